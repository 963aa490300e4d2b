package df11

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// BF16 is a bfloat16 number by its bits: the upper half of a float32.
type BF16 uint16

// Float32 is the same number as a float32, exactly.
func (b BF16) Float32() float32 { return f32(uint32(b) << 16) }

func f32(bits uint32) float32 { return *(*float32)(unsafe.Pointer(&bits)) }

// Options say how to open a model. A nil *Options, and the zero one, are all defaults.
type Options struct {
	// Verify walks every code of every group before Open returns: decoding is then known to find no error. It takes about
	// as long as decoding the whole model.
	Verify bool
	// Threads to verify with; 0 means 1.
	Threads int
	// NoMap reads the files piece by piece instead of mapping them. A mapped file that another process cuts short ends
	// this process with SIGBUS, which Go cannot catch in C code; a read one gives an error. Slower, and one descriptor per
	// file stays open.
	NoMap bool
	// AnyVersion accepts a version of the compressor that the library does not know.
	AnyVersion bool
	// Config is the text of a config.json to use instead of the model's own: for a file that comes without one. Its
	// pattern_dict says what the tensors inside a group are called.
	Config []byte
	// Progress, if set, is told how many bytes of the verification are done: some twenty times a second and once at the
	// end, on the goroutine that called Open. Total is 0 until it is known.
	Progress func(done, total uint64)
	// Logger, if set, is told what was opened, how long it took, and what failed.
	Logger *slog.Logger
}

// GroupInfo is what a group is: tensors that are compressed together, usually those of one transformer layer.
type GroupInfo struct {
	// Name is the module's full name, such as "model.layers.0". It comes from the file: quote it before you print it.
	Name string
	// Index is the group's number.
	Index int
	// Elements are the weights in all its tensors; each takes 2 bytes when decoded.
	Elements uint64
	// FirstTensor is the number of its first tensor; the others follow, in the order of their weights. Tensors says how many
	// there are.
	FirstTensor, Tensors int
	// PackedBytes is the size of the group in the files.
	PackedBytes uint64
	// ImageBytes is the size of its image (see [Model.WriteImage]), or 0 if no image can hold it.
	ImageBytes uint64
}

// TensorInfo is what a tensor is.
type TensorInfo struct {
	// Name is its full name. It comes from the file: quote it before you print it.
	Name string
	// Index is its number.
	Index int
	// DType is the type of its elements: [DTypeBF16] for every tensor in a group.
	DType DType
	// Shape are its dimensions, the last one contiguous. DF11 does not store the shapes of compressed tensors: they have one
	// dimension, unless the file's metadata tells their shape. Do not change it.
	Shape []uint64
	// Group is the number of its group, or -1 for a plain tensor.
	Group int
	// GroupOffset is its first weight in the group, in elements; 0 for a plain tensor.
	GroupOffset uint64
	// Elements is the product of its dimensions.
	Elements uint64
	// Bytes is the size of its values, decoded.
	Bytes uint64
	// File is the path of the file that holds the values of a plain tensor, and FileOffset their first byte there. Empty and
	// 0 for a tensor in a group.
	File       string
	FileOffset uint64
}

// Model is an open model. It never changes: any number of goroutines may use it at once.
type Model struct {
	handle
	c       *modelHandle
	cleanup runtime.Cleanup

	groups  []GroupInfo
	tensors []TensorInfo
	byName  map[string]int // tensors
	byGroup map[string]int
}

// Open opens a model: a folder in Hugging Face layout, or one .safetensors file. Headers, tables and positions are read and
// checked, no weights: milliseconds, unless [Options] ask for a verification. A file or folder without compressed groups
// opens too, as a model of plain tensors.
//
// When ctx ends, so does Open, soon, with an error that is both [Cancelled] and the context's. A model that is open has
// nothing to do with ctx any more.
//
// The files must not change while the model is open. Close it when it is not needed any more.
func Open(ctx context.Context, path string, o *Options) (*Model, error) {
	if o == nil {
		o = &Options{}
	}
	start := time.Now()
	m, err := open(ctx, path, o)
	if log := o.Logger; log != nil {
		if err != nil {
			log.ErrorContext(ctx, "df11: open failed", "path", path, "error", err)
		} else {
			log.InfoContext(ctx, "df11: opened a model", "path", path, "groups", len(m.groups), "tensors", len(m.tensors),
				"verified", o.Verify, "took", time.Since(start))
		}
	}
	return m, err
}

func open(ctx context.Context, path string, o *Options) (*Model, error) {
	threads, err := threads("open", o.Threads)
	if err != nil {
		return nil, err
	}
	if err := noZero("open", "path", path); err != nil {
		return nil, err
	}
	if err := noZero("open", "config", string(o.Config)); err != nil {
		return nil, err
	}
	var flags uint32
	if o.Verify {
		flags |= cdf11.OpenVerify
	}
	if o.NoMap {
		flags |= cdf11.OpenRead
	}
	if o.AnyVersion {
		flags |= cdf11.OpenAnyVersion
	}
	var c cdf11.Model
	err = watch(ctx, "open", o.Progress, func(progress cdf11.Progress) (e *cdf11.Error) {
		c, e = cdf11.Open(path, flags, threads, o.Config, progress)
		return e
	}, func() { c.Free() })
	if err != nil {
		return nil, err
	}
	return newModel(c)
}

// newModel owns c, whatever comes of it.
func newModel(c cdf11.Model) (*Model, error) {
	m := &Model{c: newModelHandle(c)}
	m.init()
	m.cleanup = runtime.AddCleanup(m, (*modelHandle).release, m.c)
	if err := m.describe(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// describe copies what the model says of itself, so that nobody asks C again, or keeps a text of C's.
func (m *Model) describe() error {
	groups, tensors := m.c.Groups(), m.c.Tensors()
	m.groups, m.tensors = make([]GroupInfo, groups), make([]TensorInfo, tensors)
	m.byGroup, m.byName = make(map[string]int, groups), make(map[string]int, tensors)
	for i := range m.groups {
		g, e := m.c.Group(uint64(i))
		if e != nil {
			return of("open", e)
		}
		m.groups[i] = GroupInfo{
			Name:        g.Name,
			Index:       i,
			Elements:    g.Elements,
			FirstTensor: int(g.FirstTensor),
			Tensors:     int(g.Tensors),
			PackedBytes: g.Packed,
			ImageBytes:  g.ImageBytes,
		}
		m.byGroup[g.Name] = i
	}
	files := cdf11.Files{}
	for i := range m.tensors {
		t, e := m.c.Tensor(uint64(i), files)
		if e != nil {
			return of("open", e)
		}
		info := TensorInfo{
			Name:        t.Name,
			Index:       i,
			DType:       DType(t.DType),
			Shape:       t.Shape,
			Group:       -1,
			GroupOffset: t.GroupOffset,
			Elements:    1,
			Bytes:       t.Bytes,
			File:        t.File,
			FileOffset:  t.FileOffset,
		}
		if t.Group != cdf11.NoGroup {
			info.Group = int(t.Group)
		}
		for _, n := range t.Shape {
			info.Elements *= n
		}
		m.tensors[i], m.byName[t.Name] = info, i
	}
	return nil
}

// Close frees the model. Calls that run are waited for, later ones fail with [io/fs.ErrClosed]; closing again does nothing.
// It never fails.
//
// A model that is closed while residents of it have been uploaded (see [Device.Upload]) keeps its files mapped until those
// are closed, too, or told that they are uploaded.
func (m *Model) Close() error {
	m.close(func() {
		m.cleanup.Stop()
		m.c.release()
	})
	runtime.KeepAlive(m)
	return nil
}

// Groups are the model's groups by their numbers, in the natural order of their names. The slice is the model's: do not
// change it. It stays valid when the model is closed, as what comes of all the calls here that describe.
func (m *Model) Groups() []GroupInfo { return m.groups }

// Tensors are the model's tensors by their numbers: those of group 0 in the order of their weights, those of group 1, and
// so on, then the plain ones. The slice is the model's: do not change it.
func (m *Model) Tensors() []TensorInfo { return m.tensors }

// FindGroup finds a group by its full name.
func (m *Model) FindGroup(name string) (GroupInfo, error) {
	if i, ok := m.byGroup[name]; ok {
		return m.groups[i], nil
	}
	return GroupInfo{}, notFound("find group", "group", name)
}

// FindTensor finds a tensor by its full name.
func (m *Model) FindTensor(name string) (TensorInfo, error) {
	if i, ok := m.byName[name]; ok {
		return m.tensors[i], nil
	}
	return TensorInfo{}, notFound("find tensor", "tensor", name)
}

// Decompress decodes len(dst) weights of a group on the CPU, from its weight first on, straight into dst: no copy is made.
//
// That many threads of the operating system work, the calling one among them; 0 means 1. They are gone when the call
// returns, and it cannot be interrupted: a large range in pieces can be. Any number of goroutines may decode at once, also
// the same group.
//
// The error is [Corrupt] if the codes contradict the tables, and dst then holds anything.
func (m *Model) Decompress(group int, first uint64, dst []BF16, threads int) error {
	const op = "decompress"
	n, err := m.begin(op, "group", group, threads)
	if err != nil {
		return err
	}
	defer m.leave()
	return of(op, m.c.Decompress(uint64(group), first, bits(dst), n))
}

// ReadTensor copies or decodes len(dst) bytes of a tensor's values, from their byte offset on. For a tensor in a group both
// must be even. Threads and all else are as for [Model.Decompress].
//
// A decoded weight is written in the processor's byte order, low byte first on the machines that there are. If dst does not
// begin at an even address, the error is [Misaligned]; memory that was allocated as such does.
func (m *Model) ReadTensor(tensor int, offset uint64, dst []byte, threads int) error {
	const op = "read tensor"
	n, err := m.begin(op, "tensor", tensor, threads)
	if err != nil {
		return err
	}
	defer m.leave()
	return of(op, m.c.Read(uint64(tensor), offset, dst, n))
}

// WriteImage writes the image of a group to dst, which holds at least [GroupInfo.ImageBytes] bytes: what a CUDA device can
// decode once it lies in its memory. An image holds no address: it may be kept, sent and moved. No CUDA is needed, and every
// code is looked at, so what was written decodes. After an error of the file the first 256 bytes are zeros.
func (m *Model) WriteImage(group int, dst []byte) error {
	const op = "write image"
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return err
	}
	defer m.leave()
	return of(op, m.c.WriteImage(uint64(group), dst))
}

// WriteImagePart writes one of so many parts of an image, from 0 on: for goroutines that share the work, all with the same
// dst. If any part fails, there is no image.
func (m *Model) WriteImagePart(group int, dst []byte, part, parts int) error {
	const op = "write image part"
	if part < 0 || parts < 1 || part >= parts || uint64(parts) > 1<<32-1 {
		return invalid(op, "there is no part %d of %d", part, parts)
	}
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return err
	}
	defer m.leave()
	return of(op, m.c.WriteImagePart(uint64(group), dst, uint32(part), uint32(parts)))
}

// begin begins a call, unless an argument cannot be said to C or the model is closed.
func (m *Model) begin(op, what string, number, n int) (uint32, error) {
	if number < 0 {
		return 0, &Error{Status: NotFound, Message: "there is no " + what + " of a negative number", Op: op}
	}
	t, err := threads(op, n)
	if err == nil && !m.enter() {
		err = errClosed(op, "model")
	}
	return t, err
}

// threads are a number of threads as C knows it.
func threads(op string, n int) (uint32, error) {
	if n < 0 || uint64(n) > 1<<32-1 {
		return 0, invalid(op, "%d threads", n)
	}
	return uint32(n), nil
}

// bits are weights as what they are made of.
func bits(w []BF16) []uint16 { return unsafe.Slice((*uint16)(unsafe.SliceData(w)), len(w)) }

func noZero(op, what, text string) error {
	if i := strings.IndexByte(text, 0); i >= 0 {
		return invalid(op, "the %s has a zero byte at %d", what, i)
	}
	return nil
}

func notFound(op, what, name string) error {
	const most = 80
	if len(name) > most {
		name = name[:most] + "…"
	}
	e := invalid(op, "there is no %s named %q", what, name).(*Error)
	e.Status = NotFound
	return e
}
