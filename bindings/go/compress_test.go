package df11_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// as returns the options with which a golden model was compressed.
func as(t testing.TB, name string) df11.CompressOptions {
	t.Helper()
	config, err := os.ReadFile(modelOf(name) + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	return df11.CompressOptions{Threads: 2, Patterns: config}
}

// tree returns the files of a folder by name, including hidden ones.
func tree(t testing.TB, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(text)
	}
	return files
}

func sameFiles(t testing.TB, a, b map[string]string) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d files, and %d", len(a), len(b))
	}
	for name, text := range a {
		if b[name] != text {
			t.Fatalf("%s differs", name)
		}
	}
}

// The written bytes equal those of the reference compressor, and decode to the original.
func TestCompress(t *testing.T) {
	for _, name := range []string{"tiny", "block", "edge_patched"} {
		o := as(t, name)
		var done, total uint64
		o.Progress = func(d, n uint64) { done, total = d, n }
		file := filepath.Join(t.TempDir(), "model.safetensors")
		report, err := df11.CompressModel(ctx, originalOf(name), file, &o)
		if err != nil {
			t.Fatal(err)
		}
		m := open(t, file, nil)
		want := df11.CompressReport{Groups: uint64(len(m.Groups())), SourceBytes: report.SourceBytes, Complete: true,
			Unmatched: report.Unmatched, Left: report.Left, BF16: report.BF16}
		for _, g := range m.Groups() {
			want.Weights += g.Elements
			want.PackedBytes += g.PackedBytes
		}
		want.WeightBytes = 2 * want.Weights
		ours, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want.WrittenBytes = uint64(len(ours))
		b := report.BF16
		if b.Grouped != want.WeightBytes || b.All != b.Grouped+b.Unasked+b.Small+b.Mixed+b.Unfit+b.Unnamed {
			t.Errorf("%s: %+v", name, b)
		}
		if fmt.Sprint(report) != fmt.Sprint(want) || done != total || total < want.WeightBytes || len(report.Left) != 0 {
			t.Errorf("%s: %+v, and not %+v; %d of %d bytes", name, report, want, done, total)
		}
		theirs, err := os.ReadFile(modelOf(name) + "/model.safetensors")
		if err != nil || !bytes.Equal(ours, theirs) {
			t.Errorf("%s: other bytes than the reference's: %v", name, err)
		}
		if _, err := df11.VerifyModel(ctx, file, originalOf(name), nil); err != nil {
			t.Error(err)
		}
	}
}

// Parts, in any order, make the same model as one run. Resuming a complete model does nothing.
func TestCompressInParts(t *testing.T) {
	o := as(t, "block")
	whole, parts := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "parts")
	report, err := df11.CompressModel(ctx, originalOf("block"), whole, &o)
	if err != nil || !report.Complete || report.Groups != 4 || report.Resumed != 0 {
		t.Fatalf("%+v: %v", report, err)
	}
	for _, part := range []int{2, 1} {
		o := o
		o.Part, o.Parts = part, 2
		report, err := df11.CompressModel(ctx, originalOf("block"), parts, &o)
		if err != nil || report.Complete || report.Groups != 2 {
			t.Fatalf("%+v: %v", report, err)
		}
		if _, err := df11.Open(ctx, parts, nil); err == nil {
			t.Fatal("a part is taken for a model")
		}
	}
	again := o
	again.Parts, again.Part = 2, 1
	if report, err = df11.MergeModel(ctx, originalOf("block"), parts, &again); err != nil || !report.Complete || report.Groups != 4 {
		t.Fatalf("%+v: %v", report, err)
	}
	sameFiles(t, tree(t, parts), tree(t, whole))
	o.Resume = true
	if report, err = df11.CompressModel(ctx, originalOf("block"), whole, &o); err != nil || report.Resumed != 4 {
		t.Fatalf("%+v: %v", report, err)
	}
}

// Tensors that cannot be compressed are reported by name, and stay plain.
func TestCompressLeaves(t *testing.T) {
	tensors := safetensors(t, originalOf("block"))
	const name = "model.layers.1.mlp.up_proj.weight"
	bad := tensors[name]
	bad.bytes = bytes.Clone(bad.bytes)
	bad.bytes[0], bad.bytes[1] = 0x80, 0x7f // infinity
	tensors[name] = bad
	source := filepath.Join(t.TempDir(), "source.safetensors")
	write(t, source, tensors)
	o := as(t, "block")
	o.Hashes, o.Shapes = true, true
	to := filepath.Join(t.TempDir(), "out")
	report, err := df11.CompressModel(ctx, source, to, &o)
	if err != nil || report.Groups != 3 || len(report.Left) != 7 || report.LeftLost != 0 {
		t.Fatalf("%+v: %v", report, err)
	}
	for _, left := range report.Left {
		if left.Group != "model.layers.1" || !strings.HasPrefix(left.Tensor, "model.layers.1.") || left.Reason == "" {
			t.Errorf("%+v", left)
		}
	}
	verified, err := df11.VerifyModel(ctx, to, source, nil)
	if err != nil || verified.HashesRight != uint64(len(tensors)) {
		t.Errorf("%+v: %v", verified, err)
	}
	o.Strict = true
	if report, err := df11.CompressModel(ctx, source, filepath.Join(t.TempDir(), "strict"), &o); !errors.Is(err, df11.ErrUnsupportedFormat) ||
		fmt.Sprint(report) != fmt.Sprint(df11.CompressReport{}) {
		t.Errorf("%+v: %v", report, err)
	}
}

func TestCompressRefuses(t *testing.T) {
	good := as(t, "tiny")
	for what, try := range map[string]struct {
		change func(o *df11.CompressOptions)
		status df11.Status
		says   string
	}{
		"threads":  {func(o *df11.CompressOptions) { o.Threads = -1 }, df11.ErrInvalidArgument, "-1 threads"},
		"part":     {func(o *df11.CompressOptions) { o.Part = -1 }, df11.ErrInvalidArgument, "no part -1 of 0"},
		"parts":    {func(o *df11.CompressOptions) { o.Part, o.Parts = 3, 2 }, df11.ErrInvalidArgument, "no part 3 of 2"},
		"zero":     {func(o *df11.CompressOptions) { o.Patterns = []byte("{}\x00") }, df11.ErrInvalidArgument, "zero byte at 2"},
		"json":     {func(o *df11.CompressOptions) { o.Patterns = []byte("{") }, df11.ErrInvalidArgument, "JSON"},
		"empty":    {func(o *df11.CompressOptions) { o.Patterns = []byte{} }, df11.ErrInvalidArgument, "not valid JSON but empty"},
		"both":     {func(o *df11.CompressOptions) { o.Preset = "qwen3" }, df11.ErrInvalidArgument, "one of them decides"},
		"preset":   {func(o *df11.CompressOptions) { o.Patterns, o.Preset = nil, "qwen-3" }, df11.ErrNotFound, "qwen3"},
		"a folder": {func(o *df11.CompressOptions) { o.SingleFile, o.Part, o.Parts = true, 1, 2 }, df11.ErrInvalidArgument, "in parts"},
	} {
		o := good
		try.change(&o)
		to := filepath.Join(t.TempDir(), "out")
		report, err := df11.CompressModel(ctx, originalOf("tiny"), to, &o)
		if !errors.Is(err, try.status) || !strings.Contains(err.Error(), try.says) || report.Complete {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was written: %v", what, err)
		}
	}
	if _, err := df11.CompressModel(ctx, "/no/where", t.TempDir(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := df11.MergeModel(ctx, originalOf("tiny"), t.TempDir(), &good); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := df11.CompressModel(ctx, originalOf("tiny"), "a\x00b", &good); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Error(err)
	}
}

// The end of the context ends the call in the middle. Finished groups stay, and the next call resumes.
func TestCompressCancelled(t *testing.T) {
	// Progress is called 20 times a second at most, so the work must take several times as long.
	const groups = 96
	tensors := map[string]stored{}
	for name, s := range safetensors(t, originalOf("block")) {
		rest, ok := strings.CutPrefix(name, "model.layers.0.")
		for i := 0; ok && i < groups; i++ {
			tensors[fmt.Sprintf("model.layers.%d.%s", i, rest)] = s
		}
	}
	source := filepath.Join(t.TempDir(), "source.safetensors")
	write(t, source, tensors)
	o := as(t, "block")
	o.Threads = 1
	to := filepath.Join(t.TempDir(), "out")
	soon, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Progress = func(done, total uint64) {
		// When the first group has its file name.
		if files, _ := filepath.Glob(to + "/*.safetensors"); len(files) > 0 {
			cancel()
		}
	}
	report, err := df11.CompressModel(soon, source, to, &o)
	if !errors.Is(err, df11.ErrCancelled) || !errors.Is(err, context.Canceled) || report.Groups != 0 {
		t.Fatalf("%+v: %v", report, err)
	}
	if _, err := df11.Open(ctx, to, nil); err == nil {
		t.Fatal("what is unfinished is taken for a model")
	}
	o.Progress = nil
	if _, err := df11.CompressModel(ctx, source, to, &o); !errors.Is(err, df11.ErrUnfinished) {
		t.Fatal(err)
	}
	o.Resume = true
	report, err = df11.CompressModel(ctx, source, to, &o)
	if err != nil || !report.Complete || report.Groups != groups || report.Resumed == 0 || report.Resumed == groups {
		t.Fatalf("%+v: %v", report, err)
	}
	if _, err := df11.VerifyModel(ctx, to, source, nil); err != nil {
		t.Error(err)
	}
	// A panic of Progress reaches the caller.
	defer func() {
		if got := recover(); got != "told" {
			t.Error(got)
		}
	}()
	o.Progress = func(_, _ uint64) { panic("told") }
	_, err = df11.CompressModel(ctx, source, filepath.Join(t.TempDir(), "out"), &o)
	t.Error(err)
}

// A model is compressed by the patterns of another one's config.
func ExampleCompressModel() {
	folder, err := os.MkdirTemp("", "df11")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	config, err := os.ReadFile("../../tests/data/golden/block/model/config.json")
	if err != nil {
		panic(err)
	}
	report, err := df11.CompressModel(context.Background(), "../../tests/data/golden/block/original.safetensors", folder+"/model",
		&df11.CompressOptions{Threads: 4, Patterns: config})
	if err != nil {
		fmt.Println(err) // names the file, the tensor and the byte
		return
	}
	fmt.Printf("%d groups, %.1f bits for each of %d weights\n", report.Groups,
		8*float64(report.PackedBytes)/float64(report.Weights), report.Weights)
	// Output: 4 groups, 11.1 bits for each of 1638400 weights
}
