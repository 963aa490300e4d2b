package df11

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"testing"
	"time"
)

const golden = "../../tests/data/golden/"

func TestFirst(t *testing.T) {
	m, err := Open(context.Background(), golden+"block/model", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := m.Groups()[0]
	dst := make([]BF16, g.Elements)
	if err := m.Decompress(0, 0, dst, 2); err != nil {
		t.Fatal(err)
	}
	if err := m.Decompress(0, 0, nil, 2); err != nil {
		t.Fatal(err)
	}
	if err := m.Decompress(0, 1<<63, dst, 2); !errors.Is(err, InvalidArgument) {
		t.Fatal(err)
	}
	t.Log(m.Tensors()[0], g, Version(), Stats())
	m.Close()
	m.Close()
	if err := m.Decompress(0, 0, dst, 2); !errors.Is(err, fs.ErrClosed) || !errors.Is(err, InvalidArgument) {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), "nowhere", nil)
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, IO) {
		t.Fatal(err)
	}
	t.Log(err)
	_, _ = Open(context.Background(), golden+"block/model", nil)
	for range 10 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	if s := Stats(); s.ModelsOpen != 0 {
		t.Fatal(s)
	}
}
