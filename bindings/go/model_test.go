package df11_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"errors"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// Every tensor of every model of the reference compressor decodes to the original.
func TestGoldenModels(t *testing.T) {
	for _, name := range models {
		original := safetensors(t, originalOf(name))
		for _, o := range []*df11.Options{nil, {NoMap: true}, {Verify: true, Threads: 3}} {
			t.Run(fmt.Sprintf("%s/%+v", name, o), func(t *testing.T) {
				m := open(t, modelOf(name), o)
				if len(m.Tensors()) != len(original) {
					t.Fatalf("%d tensors, and %d in the original", len(m.Tensors()), len(original))
				}
				for i, info := range m.Tensors() {
					want, ok := original[info.Name]
					if !ok || info.Index != i || info.DataBytes != uint64(len(want.bytes)) || info.DType.String() != want.DType {
						t.Fatalf("%+v, and in the original %v %v", info, want.DType, want.Shape)
					}
					if (info.Group < 0) != (info.File != "") ||
						info.ShapeSource.Known() && !slices.Equal(info.Shape, want.Shape) ||
						(info.Group < 0) != (info.ShapeSource == df11.ShapeStored) || info.DType.Bytes() == 0 {
						t.Fatalf("%+v, and in the original %v", info, want.Shape)
					}
					found, err := m.FindTensor(info.Name)
					if err != nil || found.Index != i {
						t.Fatal(found, err)
					}
					got := make([]byte, info.DataBytes)
					for _, threads := range []int{0, 1, 3} {
						clear(got)
						if err := m.ReadTensor(i, 0, got, threads); err != nil || !bytes.Equal(got, want.bytes) {
							t.Fatalf("%q with %d threads: %v", info.Name, threads, err)
						}
					}
					readWeights(t, m, info, want.bytes)
				}
				groups(t, m, original)
			})
		}
	}
}

// Tensors in several groups: runs say where each element is, on both sides, and reading a tensor needs none of them.
func TestRuns(t *testing.T) {
	original := safetensors(t, "../../tests/data/extension/original.safetensors")
	m := open(t, "../../tests/data/extension/model", nil)
	extended, several := 0, 0
	for i, g := range m.Groups() {
		runs, err := m.GroupRuns(i)
		if err != nil || len(runs) != g.Tensors {
			t.Fatal(runs, err)
		}
		var weights uint64
		for j, run := range runs {
			if run.Group != i || run.GroupOffset != weights || g.FirstTensor >= 0 && run.Tensor != g.FirstTensor+j {
				t.Fatalf("%+v", run)
			}
			weights += run.Elements
		}
		if weights != g.Elements {
			t.Fatalf("%d of %d weights", weights, g.Elements)
		}
		if g.Extended {
			extended++
		}
	}
	for i, info := range m.Tensors() {
		runs, err := m.TensorRuns(i)
		if err != nil || len(runs) != info.Runs || (len(runs) == 0) != (info.Group < 0) {
			t.Fatal(runs, err)
		}
		want, got := original[info.Name].bytes, make([]byte, info.DataBytes)
		if err := m.ReadTensor(i, 0, got, 2); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: %v", info.Name, err)
		}
		var elements uint64
		for _, run := range runs {
			weights := make([]df11.BF16, run.Elements)
			if err := m.Decompress(run.Group, run.GroupOffset, weights, 1); err != nil {
				t.Fatal(err)
			}
			for k, weight := range weights {
				at := 2 * (elements + uint64(k))
				if uint16(weight) != uint16(want[at])|uint16(want[at+1])<<8 {
					t.Fatalf("%q: element %d", info.Name, elements+uint64(k))
				}
			}
			if run.Tensor != i || run.TensorOffset != elements {
				t.Fatalf("%+v", run)
			}
			elements += run.Elements
		}
		if len(runs) > 1 {
			several++
		}
	}
	if extended != 5 || several != 2 {
		t.Fatal(extended, several)
	}
	if _, err := m.TensorRuns(99); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := m.GroupRuns(99); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
}

// readWeights reads a tensor as bf16, whole and in ranges, or is refused if it is of another type.
func readWeights(t *testing.T, m *df11.Model, info df11.TensorInfo, want []byte) {
	all := make([]df11.BF16, info.Elements)
	err := m.ReadTensorBF16(info.Index, 0, all, 2)
	if info.DType != df11.DTypeBF16 {
		if !errors.Is(err, df11.ErrInvalidArgument) || !strings.Contains(err.Error(), "is of type "+info.DType.String()) {
			t.Fatalf("%q: %v", info.Name, err)
		}
		return
	}
	if err != nil || !bytes.Equal(bytesOf(all), want) {
		t.Fatalf("%q: %v", info.Name, err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 5 {
		first := random.Uint64N(info.Elements + 1)
		part := make([]df11.BF16, random.Uint64N(info.Elements-first+1))
		if err := m.ReadTensorBF16(info.Index, first, part, 1); err != nil || !bytes.Equal(bytesOf(part), want[2*first:][:2*len(part)]) {
			t.Fatalf("%q: %d from %d: %v", info.Name, len(part), first, err)
		}
	}
}

// groups decodes every group, whole and in ranges.
func groups(t *testing.T, m *df11.Model, original map[string]stored) {
	random := rand.New(rand.NewPCG(1, 2))
	for i, g := range m.Groups() {
		var want []byte
		var elements uint64
		for _, tensor := range m.Tensors()[g.FirstTensor:][:g.Tensors] {
			if tensor.Group != i || tensor.GroupOffset != elements {
				t.Fatalf("%+v in %+v", tensor, g)
			}
			want = append(want, original[tensor.Name].bytes...)
			elements += tensor.Elements
		}
		if elements != g.Elements || g.Index != i {
			t.Fatalf("%+v has %d elements", g, elements)
		}
		if found, err := m.FindGroup(g.Name); err != nil || found != g {
			t.Fatal(found, err)
		}
		dst := make([]df11.BF16, g.Elements)
		if err := m.Decompress(i, 0, dst, 2); err != nil || !bytes.Equal(bytesOf(dst), want) {
			t.Fatalf("%+v: %v", g, err)
		}
		for range 20 {
			first := random.Uint64N(g.Elements + 1)
			part := make([]df11.BF16, random.Uint64N(g.Elements-first+1))
			if err := m.Decompress(i, first, part, 1); err != nil || !bytes.Equal(bytesOf(part), want[2*first:][:2*len(part)]) {
				t.Fatalf("%+v: %d from %d: %v", g, len(part), first, err)
			}
		}
		var packed uint64
		for part := range df11.Parts {
			p, err := m.GroupPart(i, part)
			if err != nil || p.DataBytes == 0 && part != df11.PartSplitPositions {
				t.Fatal(p, err)
			}
			if stat, err := os.Stat(p.File); err != nil || uint64(stat.Size()) < p.FileOffset+p.DataBytes {
				t.Fatal(p, err)
			}
			packed += p.DataBytes
		}
		if packed != g.PackedBytes {
			t.Fatalf("%+v: the parts have %d bytes", g, packed)
		}
	}
}

func TestFloat32(t *testing.T) {
	for bits, want := range map[df11.BF16]float32{0x3f80: 1, 0xc000: -2, 0: 0, 0x7f80: float32(math.Inf(1)), 0x0001: 0x1p-133} {
		if bits.Float32() != want {
			t.Errorf("%#x is %v", bits, bits.Float32())
		}
	}
}

// Empty, out-of-range and absurd arguments give an error or do nothing.
func TestEdgesOfRanges(t *testing.T) {
	m := open(t, modelOf("block"), nil)
	group := m.Groups()[0]
	plain, packed := -1, group.FirstTensor
	for _, info := range m.Tensors() {
		if info.Group < 0 {
			plain = info.Index
		}
	}
	one, odd := make([]df11.BF16, 1), make([]byte, 3)
	all := make([]df11.BF16, group.Elements+1)
	const most = math.MaxUint64
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"nothing, nil":                  {m.Decompress(0, 0, nil, 1), nil},
		"nothing, empty":                {m.Decompress(0, 0, one[:0], 1), nil},
		"nothing, at the end":           {m.Decompress(0, group.Elements, one[:0], 1), nil},
		"nothing, after the end":        {m.Decompress(0, group.Elements+1, one[:0], 1), df11.ErrInvalidArgument},
		"the last":                      {m.Decompress(0, group.Elements-1, one, 1), nil},
		"one after the last":            {m.Decompress(0, group.Elements, one, 1), df11.ErrInvalidArgument},
		"one too many":                  {m.Decompress(0, 0, all, 1), df11.ErrInvalidArgument},
		"a range that wraps":            {m.Decompress(0, most, all, 1), df11.ErrInvalidArgument},
		"a range at 2^63":               {m.Decompress(0, 1<<63, one, 1), df11.ErrInvalidArgument},
		"no such group":                 {m.Decompress(len(m.Groups()), 0, one, 1), df11.ErrNotFound},
		"group -1":                      {m.Decompress(-1, 0, one, 1), df11.ErrNotFound},
		"the largest group":             {m.Decompress(math.MaxInt, 0, one, 1), df11.ErrNotFound},
		"-1 threads":                    {m.Decompress(0, 0, one, -1), df11.ErrInvalidArgument},
		"2^40 threads":                  {m.Decompress(0, 0, one, 1<<40), df11.ErrInvalidArgument},
		"many threads for one":          {m.Decompress(0, 0, one, 1000), nil},
		"read nothing, nil":             {m.ReadTensor(packed, 0, nil, 1), nil},
		"read nothing of plain, nil":    {m.ReadTensor(plain, 0, nil, 1), nil},
		"read half a weight":            {m.ReadTensor(packed, 0, odd, 1), df11.ErrInvalidArgument},
		"read from half a weight":       {m.ReadTensor(packed, 1, odd[:2], 1), df11.ErrInvalidArgument},
		"read three bytes of plain":     {m.ReadTensor(plain, 1, odd, 1), nil},
		"read a range that wraps":       {m.ReadTensor(packed, most-1, odd[:2], 1), df11.ErrInvalidArgument},
		"read plain at the largest":     {m.ReadTensor(plain, most, odd, 1), df11.ErrInvalidArgument},
		"read no such tensor":           {m.ReadTensor(len(m.Tensors()), 0, odd, 1), df11.ErrNotFound},
		"read tensor -1":                {m.ReadTensor(-1, 0, odd, 1), df11.ErrNotFound},
		"read no weights":               {m.ReadTensorBF16(packed, 0, nil, 1), nil},
		"read weights from the end":     {m.ReadTensorBF16(packed, m.Tensors()[packed].Elements, one, 1), df11.ErrInvalidArgument},
		"read weights that wrap to 0":   {m.ReadTensorBF16(packed, 1<<63, one, 1), df11.ErrInvalidArgument},
		"read weights at the largest":   {m.ReadTensorBF16(plain, most, one, 1), df11.ErrInvalidArgument},
		"read weights of no tensor":     {m.ReadTensorBF16(len(m.Tensors()), 0, one, 1), df11.ErrNotFound},
		"read weights of tensor -1":     {m.ReadTensorBF16(-1, 0, one, 1), df11.ErrNotFound},
		"read with -1 threads":          {m.ReadTensor(plain, 0, odd, -1), df11.ErrInvalidArgument},
		"write an image to nothing":     {m.WriteImage(0, nil), df11.ErrInvalidArgument},
		"write an image to too little":  {m.WriteImage(0, make([]byte, group.ImageBytes-1)), df11.ErrBufferTooSmall},
		"write an image of no group":    {m.WriteImage(len(m.Groups()), odd), df11.ErrNotFound},
		"write part 2 of 2 of an image": {m.WriteImagePart(0, odd, 2, 2), df11.ErrInvalidArgument},
		"write part 0 of 0 of an image": {m.WriteImagePart(0, odd, 0, 0), df11.ErrInvalidArgument},
	} {
		if c.want == nil && c.err != nil || c.want != nil && !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, not %v", name, c.err, c.want)
		}
	}
	// An odd address, which BF16 slices cannot have, but byte slices can.
	memory := make([]byte, 64)
	if err := m.ReadTensor(packed, 0, memory[1:3], 1); !errors.Is(err, df11.ErrMisaligned) {
		t.Error(err)
	}
	if _, err := m.GroupPart(0, df11.Parts); !errors.Is(err, df11.ErrNotFound) {
		t.Error(err)
	}
	if _, err := m.FindTensor("no\x00such"); !errors.Is(err, df11.ErrNotFound) {
		t.Error(err)
	}
	if _, err := m.FindGroup(string(make([]byte, 1000))); !errors.Is(err, df11.ErrNotFound) || len(err.Error()) > 500 {
		t.Error(err)
	}
}

func TestOpenMemory(t *testing.T) {
	file, err := os.ReadFile(modelOf("tiny") + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(modelOf("tiny") + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := df11.OpenMemory(ctx, file, &df11.Options{Config: config, Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	folder := open(t, modelOf("tiny"), nil)
	for i, info := range folder.Tensors() {
		got, want := make([]byte, info.DataBytes), make([]byte, info.DataBytes)
		if err := errors.Join(m.ReadTensor(i, 0, got, 1), folder.ReadTensor(i, 0, want, 1)); err != nil || !bytes.Equal(got, want) {
			t.Fatal(info, err)
		}
		if m.Tensors()[i].Name != info.Name {
			t.Fatal(info)
		}
	}
	m.Close()
	for _, cut := range [][]byte{nil, {}, file[:7], file[:len(file)-1]} {
		if _, err := df11.OpenMemory(ctx, cut, nil); err == nil {
			t.Errorf("%d bytes of a file are no model", len(cut))
		}
	}
}

func TestImagesInParts(t *testing.T) {
	m := open(t, modelOf("block"), nil)
	for i, g := range m.Groups() {
		whole, parts := make([]byte, g.ImageBytes), make([]byte, g.ImageBytes)
		if err := m.WriteImage(i, whole); err != nil {
			t.Fatal(err)
		}
		for p := range 3 {
			if err := m.WriteImagePart(i, parts, p, 3); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(whole, parts) {
			t.Fatal("an image in parts differs")
		}
		info, err := df11.GetImageInfo(whole[:min(len(whole), df11.ImageHeadBytesMax)])
		if err != nil || info.ImageBytes != g.ImageBytes || info.Elements != g.Elements || info.Tensors != uint64(g.Tensors) {
			t.Fatal(info, g, err)
		}
	}
	if _, err := df11.GetImageInfo(nil); !errors.Is(err, df11.ErrInvalidArgument) && !errors.Is(err, df11.ErrInvalidFormat) {
		t.Error(err)
	}
}

// Descriptions are copies, which stay valid after the model is closed.
func TestInfosOutliveTheModel(t *testing.T) {
	m := open(t, modelOf("sharded"), nil)
	groups, tensors := slices.Clone(m.Groups()), slices.Clone(m.Tensors())
	m.Close()
	if !slices.Equal(groups, m.Groups()) || fmt.Sprint(tensors) != fmt.Sprint(m.Tensors()) || len(groups) == 0 {
		t.Fatal("the infos have changed")
	}
	if err := m.WriteImage(0, nil); !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := m.GroupPart(0, df11.PartGaps); !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
}

// Shapes come from the caller, or from the config and the plain tensors; the config's text is kept.
func TestShapes(t *testing.T) {
	config, err := os.ReadFile(modelOf("sharded") + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	sources := func(name string, o *df11.Options) map[df11.ShapeSource]int {
		m := open(t, modelOf(name), o)
		if name == "sharded" && m.ConfigText() != string(config) {
			t.Errorf("another config: %q", m.ConfigText())
		}
		count := map[df11.ShapeSource]int{}
		for _, info := range m.Tensors() {
			if info.Group >= 0 {
				count[info.ShapeSource]++
			}
		}
		return count
	}
	list := []byte(`{"linear.weight": [64, 48]}`)
	for _, c := range []struct {
		model string
		o     df11.Options
		want  df11.ShapeSource
	}{
		{"sharded", df11.Options{}, df11.ShapeDerived},
		{"sharded", df11.Options{NoDerivedShapes: true}, df11.ShapeUnknown},
		{"edge", df11.Options{ShapesFrom: originalOf("edge")}, df11.ShapeGiven},
		{"tiny", df11.Options{Shapes: list}, df11.ShapeGiven},
	} {
		if count := sources(c.model, &c.o); len(count) != 1 || count[c.want] == 0 {
			t.Errorf("%+v: %v", c, count)
		}
	}
	for _, o := range []*df11.Options{{Shapes: []byte(`{"linear.weight": [64, 49]}`)}, {Shapes: []byte("\x00")}, {ShapesFrom: "\x00"}} {
		if _, err := df11.Open(ctx, modelOf("tiny"), o); !errors.Is(err, df11.ErrInvalidArgument) {
			t.Error(err)
		}
	}
}
