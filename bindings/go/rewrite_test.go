package df11_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// A model that was compressed comes back as a folder, and as a file of some of its tensors.
func TestDecompressModel(t *testing.T) {
	packed, plain := filepath.Join(t.TempDir(), "packed"), filepath.Join(t.TempDir(), "plain")
	o := as(t, "block")
	o.Shapes = true
	if _, err := df11.CompressModel(ctx, originalOf("block"), packed, &o); err != nil {
		t.Fatal(err)
	}
	var done, total uint64
	how := df11.DecompressOptions{Threads: 3, ShardBytes: 300_000, KeepExisting: true,
		Progress: func(d, n uint64) { done, total = d, n }}
	report, err := df11.DecompressModel(ctx, packed, plain, &how)
	if err != nil {
		t.Fatal(err)
	}
	if report.Files < 2 || report.Flat != 0 || report.Dropped != 0 || done != total || done == 0 {
		t.Fatalf("%+v, %d of %d bytes", report, done, total)
	}
	if files := tree(t, plain); uint64(len(files)) != report.Files+1 || files["model.safetensors.index.json"] == "" {
		t.Fatalf("%d files", len(files))
	}
	verified, err := df11.VerifyModel(ctx, packed, plain, nil)
	if err != nil || verified.TensorsEqual != report.Tensors || verified.TensorsDifferent != 0 {
		t.Fatalf("%+v: %v", verified, err)
	}
	if _, err := df11.DecompressModel(ctx, packed, plain, &how); !errors.Is(err, df11.ErrExists) {
		t.Fatal(err)
	}

	some := filepath.Join(t.TempDir(), "some.safetensors")
	how = df11.DecompressOptions{Groups: []string{"lm_head"}, Tensors: []string{"model.norm.weight"}}
	report, err = df11.DecompressModel(ctx, packed, some, &how)
	if err != nil || report.Tensors != 2 || report.Files != 1 {
		t.Fatalf("%+v: %v", report, err)
	}
	how.Tensors[0] = "model.horn.weight"
	if _, err := df11.DecompressModel(ctx, packed, some, &how); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
	how.Tensors[0] = "a\x00b"
	if _, err := df11.DecompressModel(ctx, packed, some, &how); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	if _, err := df11.DecompressModel(cancelled, packed, nowhere, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(nowhere); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// A folder becomes a file and a folder again, which is the one that it was.
func TestRepackModel(t *testing.T) {
	packed, again := filepath.Join(t.TempDir(), "packed"), filepath.Join(t.TempDir(), "again")
	o := as(t, "block")
	o.Hashes = true
	if _, err := df11.CompressModel(ctx, originalOf("block"), packed, &o); err != nil {
		t.Fatal(err)
	}
	single := filepath.Join(t.TempDir(), "one.safetensors")
	report, err := df11.RepackModel(ctx, packed, single, &df11.RepackOptions{Threads: 2, KeepExisting: true})
	if err != nil || report.Files != 1 || report.Groups == 0 || report.Plain == 0 {
		t.Fatalf("%+v: %v", report, err)
	}
	if _, err := df11.RepackModel(ctx, packed, single, &df11.RepackOptions{KeepExisting: true}); !errors.Is(err, df11.ErrExists) {
		t.Fatal(err)
	}
	if report, err = df11.RepackModel(ctx, single, again, nil); err != nil || report.Files < 2 {
		t.Fatalf("%+v: %v", report, err)
	}
	sameFiles(t, tree(t, again), tree(t, packed))

	// Shapes that are given are written, and compared.
	shaped := filepath.Join(t.TempDir(), "shaped.safetensors")
	how := df11.RepackOptions{ShapesFrom: originalOf("edge")}
	if _, err := df11.RepackModel(ctx, modelOf("edge"), shaped, &how); err != nil {
		t.Fatal(err)
	}
	for _, tensor := range open(t, shaped, &df11.Options{NoDerivedShapes: true}).Tensors() {
		if tensor.ShapeSource != df11.ShapeStored {
			t.Fatalf("%+v", tensor)
		}
	}
	list := df11.VerifyOptions{ShapesFrom: originalOf("edge")}
	if _, err := df11.VerifyModel(ctx, modelOf("edge"), originalOf("edge"), &list); err != nil {
		t.Fatal(err)
	}
	for _, shapes := range [][]byte{[]byte(`{"blocks.0.ff.net.0.weight": [1, 1]}`), []byte("\x00")} {
		how.Shapes, list.Shapes = shapes, shapes
		if _, err := df11.RepackModel(ctx, modelOf("edge"), again+"3", &how); !errors.Is(err, df11.ErrInvalidArgument) {
			t.Fatal(err)
		}
		if _, err := df11.VerifyModel(ctx, modelOf("edge"), "", &list); !errors.Is(err, df11.ErrInvalidArgument) {
			t.Fatal(err)
		}
	}
	if _, err := df11.RepackModel(ctx, originalOf("block"), again+"2", nil); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
}

// A model that lacks something is refused, unless that is wanted, or what is there is chosen.
func TestIncompleteModel(t *testing.T) {
	packed := filepath.Join(t.TempDir(), "packed")
	o := as(t, "block")
	o.Shapes = true
	if _, err := df11.CompressModel(ctx, originalOf("block"), packed, &o); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(packed, "more.safetensors.aria2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	group := open(t, packed, nil).Groups()[0].Name
	for i, incomplete := range []bool{false, true} {
		to := filepath.Join(t.TempDir(), "to")
		check := func(what string, err error) {
			t.Helper()
			if incomplete != (err == nil) || !incomplete && !errors.Is(err, df11.ErrInvalidFormat) {
				t.Fatalf("%s, %d: %v", what, i, err)
			}
		}
		_, err := df11.DecompressModel(ctx, packed, to, &df11.DecompressOptions{Incomplete: incomplete})
		check("decompress", err)
		_, err = df11.RepackModel(ctx, packed, to+"2", &df11.RepackOptions{Incomplete: incomplete})
		check("repack", err)
		_, err = df11.PlanModel(ctx, packed, &df11.PlanOptions{Incomplete: incomplete})
		check("plan", err)
	}
	some := df11.DecompressOptions{Groups: []string{group}}
	if _, err := df11.DecompressModel(ctx, packed, filepath.Join(t.TempDir(), "some"), &some); err != nil {
		t.Fatal(err)
	}
}
