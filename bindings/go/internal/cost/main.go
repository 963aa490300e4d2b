//go:build !df11_static

// Cost measures the cost of the binding over the C calls. It decodes a group of 8 Mi weights (16 MiB decoded)
// alternately from C and, with this package, from Go. Then it makes the same calls with nothing to decode, where only
// the cost of the call remains.
//
//	cost [-rounds N] TOOL      TOOL is the program df11, which compresses the group
//
// It fails if a call from Go takes longer than one from C by more than 2 % of the decode. It uses the second
// measurement, which is finer: the first is reliable only on a machine without other work.
package main

/*
#cgo pkg-config: df11
#include <time.h>
#include "../cdf11/shim.h"

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static df11_model *model_of(const char *path)
{
	df11_model *model;
	return df11_model_open(path, NULL, &model, NULL) == DF11_OK ? model : NULL;
}

// Returns the seconds that the calls take, or -1.
static double decode(const df11_model *model, uint64_t count, void *dst, size_t bytes, unsigned calls)
{
	df11_error error;
	double start = now();
	for (unsigned i = 0; i < calls; i++)
		if (df11_model_decompress(model, 0, 0, count, dst, bytes, 1, &error) != DF11_OK)
			return -1;
	return now() - start;
}
*/
import "C"

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

const (
	weights = 8 << 20
	calls   = 20000 // that decode nothing
)

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 50, "how often to measure each")
	flag.Parse()
	if flag.NArg() != 1 || *rounds < 1 {
		log.Fatal("usage: cost [-rounds N] TOOL")
	}
	folder, err := os.MkdirTemp("", "df11-cost")
	if err != nil {
		log.Fatal(err)
	}
	err = measure(folder, flag.Arg(0), *rounds)
	os.RemoveAll(folder)
	if err != nil {
		log.Fatal(err)
	}
}

func measure(folder, tool string, rounds int) error {
	want := trained()
	path, err := compress(folder, tool, want)
	if err != nil {
		return err
	}
	model, err := df11.Open(context.Background(), path, nil)
	if err != nil {
		return err
	}
	defer model.Close()
	cpath := C.CString(path)
	cmodel := C.model_of(cpath)
	if cmodel == nil {
		return fmt.Errorf("C cannot open %s", path)
	}
	got := make([]df11.BF16, weights)

	byC := func(n, times int) (float64, error) {
		t := float64(C.decode(cmodel, C.uint64_t(n), unsafe.Pointer(&got[0]), C.size_t(2*n), C.uint(times)))
		if t < 0 {
			return 0, fmt.Errorf("C cannot decode")
		}
		return t, nil
	}
	byGo := func(n, times int) (float64, error) {
		start := time.Now()
		for range times {
			if err := model.Decompress(0, 0, got[:n], 1); err != nil {
				return 0, err
			}
		}
		return time.Since(start).Seconds(), nil
	}
	ways := [2]func(int, int) (float64, error){byC, byGo}
	var whole, nothing [2][]float64
	for turn := range 2 * rounds {
		which := (turn + turn/2) % 2 // each is first equally often
		for _, m := range []struct {
			to       *[]float64
			n, times int
		}{{&whole[which], weights, 1}, {&nothing[which], 0, calls}} {
			if m.n > 0 {
				clear(got) // so that both find the memory in the same state
			}
			t, err := ways[which](m.n, m.times)
			if err != nil {
				return err
			}
			*m.to = append(*m.to, t/float64(m.times))
			if m.n > 0 && !slices.Equal(got, want) {
				return fmt.Errorf("other weights")
			}
		}
	}
	C.df11_model_free(cmodel)
	extra := median(nothing[1]) - median(nothing[0])
	for i, name := range []string{"df11_model_decompress() from C", "Model.Decompress from Go"} {
		n := median(nothing[i])
		fmt.Printf("%-30s 16 MiB: %.3f ms, the best tenth %.3f ms (%+.2f %%); nothing: %.1f ns (%+.1f ns, %+.5f %%)\n", name,
			1e3*median(whole[i]), 1e3*best(whole[i]), 100*(best(whole[i])/best(whole[0])-1), 1e9*n, 1e9*(n-median(nothing[0])),
			100*(n-median(nothing[0]))/best(whole[0]))
	}
	if extra > 0.02*best(whole[0]) {
		return fmt.Errorf("a call from Go costs %.0f ns more than one from C", 1e9*extra)
	}
	return nil
}

// trained returns weights with a normal distribution, as trained weights have.
func trained() []df11.BF16 {
	random := rand.New(rand.NewPCG(11, 1))
	w := make([]df11.BF16, weights)
	for i := range w {
		w[i] = df11.BF16(math.Float32bits(float32(0.02*random.NormFloat64())) >> 16)
	}
	return w
}

// compress writes the weights as a model of one group.
func compress(folder, tool string, w []df11.BF16) (string, error) {
	header := fmt.Sprintf(`{"w.weight":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}`, len(w), 2*len(w))
	var file bytes.Buffer
	binary.Write(&file, binary.LittleEndian, uint64(len(header)))
	file.WriteString(header)
	binary.Write(&file, binary.LittleEndian, w)
	plain, pattern, packed := filepath.Join(folder, "plain.safetensors"), filepath.Join(folder, "pattern.json"),
		filepath.Join(folder, "packed.safetensors")
	if err := os.WriteFile(plain, file.Bytes(), 0o666); err != nil {
		return "", err
	}
	if err := os.WriteFile(pattern, []byte(`{"w": []}`), 0o666); err != nil {
		return "", err
	}
	command := exec.Command(tool, "compress", "--quiet", "--pattern", pattern, "--output", packed, plain)
	command.Stderr = os.Stderr
	return packed, command.Run()
}

// best returns the time below which a tenth of the calls stay: the time of calls that were not interrupted.
func best(times []float64) float64 {
	slices.Sort(times)
	return times[len(times)/10]
}

func median(times []float64) float64 {
	slices.Sort(times)
	return times[len(times)/2]
}
