package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// tool is the program df11 of the installed tree.
func tool() string {
	prefix := os.Getenv("DF11_PREFIX")
	if prefix == "" {
		prefix = "../../../target/stage"
	}
	return filepath.Join(prefix, "bin", "df11")
}

// big is much larger than the buffers of a connection, so that a client that goes away leaves work undone.
const big = 16 << 20

// loadModel writes a model with groups of large and tiny tensors and compresses it. It returns the folder, and the
// original bytes of each tensor, which are mapped, so that they do not count as memory of the process.
func loadModel(t testing.TB, layers int) (string, map[string][]byte) {
	t.Helper()
	type entry struct {
		DType string    `json:"dtype"`
		Shape [1]uint64 `json:"shape"`
		Data  [2]uint64 `json:"data_offsets"`
	}
	header, end := map[string]entry{}, uint64(0)
	add := func(name, dtype string, elements, size uint64) {
		header[name] = entry{dtype, [1]uint64{elements}, [2]uint64{end, end + elements*size}}
		end += elements * size
	}
	for i := range layers {
		module := fmt.Sprintf("model.layers.%d.", i)
		add(module+"large.weight", "BF16", big/2, 2)
		add(module+"middle.weight", "BF16", 500_001, 2)
		add(module+"tiny.weight", "BF16", 3, 2)
		add(module+"norm.weight", "BF16", 4096, 2)
	}
	add("head.scale", "F32", 100_003, 4)
	add("empty", "F32", 0, 4)

	// Realistic weights: the farther an exponent is from the most frequent one, the rarer it is.
	data := make([]byte, end+8)
	random := rand.New(rand.NewPCG(5, 6))
	for i := uint64(0); i < end; i += 2 {
		r := random.Uint32()
		exponent := 121 - uint16(bits.TrailingZeros32(r|1<<20)) // mostly 121, half of the rest 120, …
		binary.LittleEndian.PutUint16(data[i:], uint16(r>>31)<<15|exponent<<7|uint16(r>>24)&0x7f)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	folder := t.TempDir()
	source := filepath.Join(folder, "original.safetensors")
	file, err := os.Create(source)
	if err != nil {
		t.Fatal(err)
	}
	start := uint64(8 + len(text))
	for _, part := range [][]byte{binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data[:end]} {
		if _, err := file.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(start+end), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(mapped) })
	file.Close()

	patterns := filepath.Join(folder, "patterns.json")
	if err := os.WriteFile(patterns, []byte(`{"model\\.layers\\.\\d+": ["large", "middle", "tiny"]}`),
		0o666); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(folder, "model")
	if out, err := exec.Command(tool(), "compress", source, "-o", model, "--pattern",
		patterns).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tensors := map[string][]byte{}
	for name, e := range header {
		tensors[name] = mapped[start+e.Data[0] : start+e.Data[1]]
	}
	return model, tensors
}

// client makes various requests, compares every byte, and sometimes goes away.
type client struct {
	id      int
	web     *http.Client
	url     string
	tensors map[string][]byte
	names   []string // in the listing's order
	large   string   // one that is larger than the buffers of a connection, or none
	random  *rand.Rand

	asked, left, bytes *atomic.Uint64
}

// ask makes one request. The error describes what was wrong.
func (c *client) ask(kind int) error {
	name := c.names[c.random.IntN(len(c.names))]
	want := c.tensors[name]
	method, headers, status := "GET", map[string]string{}, 200
	leave := false
	switch kind {
	case 0, 1: // all of one; of a large one, if there is any, and perhaps not to the end
		if c.large != "" {
			name, want, leave = c.large, c.tensors[c.large], kind == 1
		}
	case 2:
		method = "HEAD"
	case 3: // what is known already
		answer, err := c.web.Head(c.url + tensorURL(name))
		if err != nil {
			return err
		}
		answer.Body.Close()
		c.asked.Add(1)
		headers["If-None-Match"], status = answer.Header.Get("ETag"), 304
	default: // a range
		if len(want) > 0 {
			first := c.random.IntN(len(want))
			last := min(first+c.random.IntN(1<<20), len(want)-1)
			want = want[first : last+1]
			headers["Range"], status = fmt.Sprintf("bytes=%d-%d", first, last), 206
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.url+tensorURL(name), nil)
	if err != nil {
		return err
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	answer, err := c.web.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	c.asked.Add(1)
	if answer.StatusCode != status {
		return fmt.Errorf("%s %s %v: %s", method, name, headers, answer.Status)
	}
	if status == 304 {
		return nil
	}
	if answer.ContentLength != int64(len(want)) {
		return fmt.Errorf("%s %s %v: %d bytes, not %d", method, name, headers, answer.ContentLength, len(want))
	}
	if method == "HEAD" {
		return nil
	}
	buffer := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := answer.Body.Read(buffer)
		if at+n > len(want) || !bytes.Equal(buffer[:n], want[at:at+n]) {
			return fmt.Errorf("%s %v: other bytes within %d and %d", name, headers, at, at+n)
		}
		at += n
		if leave && at > 100_000 {
			c.left.Add(1)
			return nil // the end of ctx ends the connection
		}
		if err == io.EOF && at == len(want) {
			c.bytes.Add(uint64(at))
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s %v: after %d bytes of %d: %w", name, headers, at, len(want), err)
		}
	}
}

// Many concurrent clients: no error, every byte right, no work for clients that have gone, memory within the limits,
// and everything freed at the end.
func TestLoad(t *testing.T) {
	rounds, layers := 64, 3
	if testing.Short() {
		rounds, layers = 16, 1
	}
	model, tensors := loadModel(t, layers)
	load(t, model, tensors, "model.layers.0.large.weight", rounds)
}

// The same with models of the reference compressor, compared with their originals. Their tensors are too small for a
// client to go away in the middle of one.
func TestLoadOfGoldenModels(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			tensors := map[string][]byte{}
			for name, one := range originals(t, filepath.Join(golden, name, "original.safetensors")) {
				tensors[name] = one.bytes
			}
			load(t, filepath.Join(golden, name, "model"), tensors, "", 12)
		})
	}
}

func load(t *testing.T, model string, tensors map[string][]byte, large string, rounds int) {
	const clients = 64
	leaving := 0
	if large != "" {
		leaving = clients // each once
	}
	runtime.GC()
	before, goroutines, descriptors := df11.Stats(), runtime.NumGoroutine(), openFiles(t)

	const streams, chunk = 16, 256 << 10
	l := live(t, nil, func(c *Config) {
		c.Open, c.Model, c.Verify = Open, model, true
		c.Streams, c.Chunk, c.Waiting, c.Wait, c.Decodes = streams, chunk, clients, 100*time.Second,
			runtime.GOMAXPROCS(0)
	})
	await(t, "ready", func() bool { return l.Health().State == "ready" })
	if now := df11.Stats(); now.ModelsOpen != before.ModelsOpen+1 {
		t.Errorf("%d models are open", now.ModelsOpen)
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(256 << 10) // see smallBuffers
		}
		return conn, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: clients, DialContext: dial}
	web := &http.Client{Transport: transport}
	names := []string{}
	for _, one := range listTensors(t, l.url) {
		names = append(names, one.Name)
		if _, ok := tensors[one.Name]; !ok {
			t.Fatalf("a tensor that is not in the original: %q", one.Name)
		}
	}
	if len(names) != len(tensors) {
		t.Fatalf("%d tensors, not %d", len(names), len(tensors))
	}
	http.DefaultClient.CloseIdleConnections()

	debug.FreeOSMemory() // what making the model took, too
	heap, anonymous := heapBytes(), anonymousBytes(t)
	mostHeap, mostAnonymous := heap, anonymous
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				mostHeap, mostAnonymous = max(mostHeap, heapBytes()), max(mostAnonymous, anonymousBytes(t))
			}
		}
	}()
	var asked, left, got atomic.Uint64
	var all sync.WaitGroup
	start := time.Now()
	for i := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			c := client{i, web, l.url, tensors, names, large, rand.New(rand.NewPCG(7, uint64(i))), &asked, &left, &got}
			for round := range rounds {
				// Each client goes away once, and a quarter of them reads the whole of a large tensor.
				kind := 2 + c.random.IntN(8)
				if round == i%rounds {
					kind = 1
				} else if round == (i+1)%rounds && i%4 == 0 {
					kind = 0
				}
				if err := c.ask(kind); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		}()
	}
	all.Wait()
	took := time.Since(start)
	close(stop)
	<-stopped
	transport.CloseIdleConnections()

	// Clients that went away were noticed, and no work for them is left.
	await(t, "nothing running", func() bool { return l.metrics.inFlight.Load() == 0 })
	m := &l.metrics
	if m.ended[routeTensor][endGone] != left.Load() || left.Load() != uint64(leaving) ||
		m.ended[routeTensor][endComplete] != asked.Load()-left.Load() {
		t.Errorf("%d clients left, %d are known; %d of %d requests are complete", left.Load(),
			m.ended[routeTensor][endGone],
			m.ended[routeTensor][endComplete], asked.Load())
	}
	for key, n := range m.requests {
		if key.status >= 400 && n > 0 {
			t.Errorf("%d times %d", n, key.status)
		}
	}
	if m.rejected.Load()+m.panics.Load()+m.evicted.Load()+m.hashFailures.Load() != 0 || l.pool.used() != 0 ||
		len(l.decodes) != 0 {
		t.Errorf("%d rejected, %d panics, %d evicted", m.rejected.Load(), m.panics.Load(), m.evicted.Load())
	}
	now := df11.Stats()
	decoded := now.HostBytes - before.HostBytes
	if decoded < got.Load() || decoded > got.Load()+2*asked.Load()+left.Load()*big/4 {
		t.Errorf("%d bytes were decoded for %d that arrived, and %d clients that left bodies of %d", decoded,
			got.Load(), left.Load(), big)
	}
	if now.ErrorsFile+now.ErrorsLibrary != before.ErrorsFile+before.ErrorsLibrary {
		t.Errorf("errors of the library: %+v", now)
	}

	// The buffers, both ends of 64 connections, and garbage that is not collected yet.
	const bound = 2*streams*chunk + 24<<20
	if mostHeap-heap > bound {
		t.Errorf("the heap grew by %d bytes", mostHeap-heap)
	}
	if grown := mostAnonymous - anonymous; grown > 2*bound && !race {
		t.Errorf("memory grew by %d bytes", grown)
	}
	l.end()
	if err := l.ended(t); err != nil {
		t.Error(err)
	}
	await(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	await(t, "as many descriptors as before", func() bool { return openFiles(t) <= descriptors })
	if now := df11.Stats(); now.ModelsOpen != before.ModelsOpen || now.ModelBytesOpen != before.ModelBytesOpen {
		t.Errorf("%d models are open", now.ModelsOpen)
	}
	t.Logf("%d requests of %d clients in %v, %d left; %d MB arrived, %d MB decoded; heap +%.1f MB, anonymous memory +%.1f MB",
		asked.Load(), clients, took.Round(time.Millisecond), left.Load(), got.Load()/1e6, decoded/1e6,
		float64(mostHeap-heap)/1e6, float64(mostAnonymous-anonymous)/1e6)
}

// heapBytes returns the size of all objects in Go's heap, including garbage.
func heapBytes() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// anonymousBytes returns the process's memory in RAM without mapped files. It includes the library's memory.
func anonymousBytes(t testing.TB) uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kilobytes uint64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		t.Error(err)
	}
	return kilobytes << 10
}

// openFiles counts the process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
