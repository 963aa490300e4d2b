package df11_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// Goroutines decode the same groups at the same time, each to its own memory.
func TestManyGoroutines(t *testing.T) {
	m := open(t, modelOf("block"), nil)
	original := safetensors(t, originalOf("block"))
	var all sync.WaitGroup
	for n := range 64 {
		all.Add(1)
		go func() {
			defer all.Done()
			random := rand.New(rand.NewPCG(uint64(n), 0))
			for range 10 {
				info := m.Tensors()[random.IntN(len(m.Tensors()))]
				from := random.Uint64N(info.DataBytes/2+1) &^ 1
				got := make([]byte, min(info.DataBytes-from, 1<<16)&^1)
				if err := m.ReadTensor(info.Index, from, got, 1+n%3); err != nil ||
					!bytes.Equal(got, original[info.Name].bytes[from:][:len(got)]) {
					t.Errorf("%+v from %d: %v", info, from, err)
				}
			}
		}()
	}
	all.Wait()
}

// Close waits for running calls, and later ones fail. No call uses a freed model.
func TestCloseWhileCallsRun(t *testing.T) {
	before := df11.Stats().ModelsOpen
	for round := range 30 {
		m := open(t, modelOf("block"), &df11.Options{NoMap: round%2 == 0})
		group := m.Groups()[1]
		want := make([]df11.BF16, group.Elements)
		if err := m.Decompress(1, 0, want, 1); err != nil {
			t.Fatal(err)
		}
		var good, late atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				dst := make([]df11.BF16, group.Elements)
				for {
					err := m.Decompress(1, 0, dst, 1)
					if errors.Is(err, fs.ErrClosed) && errors.Is(err, df11.ErrInvalidArgument) {
						late.Add(1)
						return
					}
					if err != nil || !bytes.Equal(bytesOf(dst), bytesOf(want)) {
						t.Error("a call that ran while the model was closed:", err)
						return
					}
					good.Add(1)
				}
			}()
		}
		for good.Load() < 4 {
			runtime.Gosched()
		}
		for range 3 {
			all.Add(1)
			go func() {
				defer all.Done()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
				if now := df11.Stats().ModelsOpen; now != before {
					t.Errorf("%d models are open when Close has returned, and %d before", now, before)
				}
			}()
		}
		all.Wait()
		if late.Load() != 8 {
			t.Fatal(late.Load(), "of 8 goroutines were told")
		}
	}
}

// The garbage collector closes models that nobody closes, but not while they are in use.
func TestModelsThatNobodyCloses(t *testing.T) {
	before := df11.Stats().ModelsOpen
	file, err := os.ReadFile(modelOf("tiny") + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := df11.Open(ctx, modelOf("tiny"), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := df11.OpenMemory(ctx, bytes.Clone(file), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all models are freed", func() bool { return df11.Stats().ModelsOpen == before })

	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 20 {
				m, err := df11.Open(ctx, modelOf("block"), nil)
				if err != nil {
					t.Error(err)
					return
				}
				dst := make([]df11.BF16, m.Groups()[0].Elements)
				if err := m.Decompress(0, 0, dst, 1); err != nil { // the last use of m
					t.Error(err)
				}
			}
		}()
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			runtime.GC()
		}
	}
	eventually(t, "all models are freed", func() bool { return df11.Stats().ModelsOpen == before })
}

// A call of the binding allocates nothing: errors and lists stay on the stack.
func TestCallsAllocateNothing(t *testing.T) {
	m := open(t, modelOf("block"), nil)
	dst := make([]df11.BF16, 1000)
	read := make([]byte, 1000)
	if n := testing.AllocsPerRun(100, func() {
		if m.Decompress(0, 7, dst, 1) != nil || m.ReadTensor(0, 0, read, 1) != nil {
			t.Fatal("cannot decode")
		}
		df11.Stats()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// Destinations on the goroutine's stack work as well.
	var few [8]df11.BF16
	if err := m.Decompress(0, 7, few[:], 1); err != nil {
		t.Fatal(err)
	}
	if err := m.Decompress(0, 7, dst, 1); err != nil || !bytes.Equal(bytesOf(few[:]), bytesOf(dst[:8])) {
		t.Fatal("other weights on the stack", err)
	}
}
