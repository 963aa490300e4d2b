package df11

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// BF16 holds the bits of a bfloat16 number: the upper half of a float32.
type BF16 uint16

// Float32 converts the number to a float32, exactly.
func (b BF16) Float32() float32 { return f32(uint32(b) << 16) }

func f32(bits uint32) float32 { return *(*float32)(unsafe.Pointer(&bits)) }

// Options control how a model is opened. A nil *Options and the zero value mean the defaults.
type Options struct {
	// Verify checks every code of every group before Open returns, so that later decoding finds no error. It takes
	// about as long as decoding the whole model.
	Verify bool
	// Threads is the number of threads for Verify; 0 means 1.
	Threads int
	// NoMap reads the files piece by piece instead of mapping them. If another process cuts a mapped file short, SIGBUS
	// ends this process, because Go cannot catch it in C code; with NoMap the call returns an error. It is slower and
	// keeps one descriptor for each file open.
	NoMap bool
	// AnyVersion accepts models of a compressor version that the library does not know.
	AnyVersion bool
	// Config is the text of a config.json that replaces the model's own, for a file that has none. Its pattern_dict
	// gives the names of the tensors inside a group.
	Config []byte
	// ShapesFrom is the path of a folder or file that has the shapes of tensors in groups which the model's files do not
	// say: the original or other .safetensors files, of which only the headers are read and need be there, or a .json
	// file as Shapes is. Names that the model lacks are ignored.
	ShapesFrom string
	// Shapes is a JSON object from names of tensors to lists of dimensions. It comes before ShapesFrom.
	Shapes []byte
	// NoDerivedShapes leaves shapes unknown that nobody says, even those that follow from the config and the plain
	// tensors with certainty.
	NoDerivedShapes bool
	// Progress, if set, is called with the number of verified bytes: at the beginning, about twenty times a second, and
	// at the end, on the goroutine that called Open. The total is 0 until it is known, and without Verify.
	Progress func(done, total uint64)
	// Logger, if set, receives a line about the opened model and the time that it took, or about the error. See
	// [SetLogger] for the library's own log.
	Logger *slog.Logger
}

// GroupInfo describes a group: tensors that are compressed together, usually those of one transformer layer.
type GroupInfo struct {
	// Name is the module's full name, such as "model.layers.0". It comes from the file: quote it before you print it.
	Name string
	// Index is the group's number.
	Index int
	// Elements is the number of weights in all its tensors. Each takes 2 bytes when decoded.
	Elements uint64
	// FirstTensor is the number of its first tensor, and Tensors how many it has. They have consecutive numbers, in the
	// order of their weights. FirstTensor is -1 if they do not, because parts of them are in other groups too; then
	// [Model.GroupRuns] has the tensor of each, and in any other case too.
	FirstTensor, Tensors int
	// PackedBytes is the size of the group in the files.
	PackedBytes uint64
	// ImageBytes is the size of its image (see [Model.WriteImage]), or 0 if no image can hold it.
	ImageBytes uint64
	// Extended is true for a group by an extension of the format: programs that know only DF11 do not find its weights.
	Extended bool
}

// Run describes consecutive elements of a tensor that are consecutive weights of a group.
type Run struct {
	// Tensor is the number of the tensor, and TensorOffset the number of its elements before the run.
	Tensor       int
	TensorOffset uint64
	// Group is the number of the group, and GroupOffset the number of its weights before the run.
	Group       int
	GroupOffset uint64
	// Elements is the number of elements.
	Elements uint64
}

// TensorInfo describes a tensor.
type TensorInfo struct {
	// Name is its full name. It comes from the file: quote it before you print it.
	Name string
	// Index is its number.
	Index int
	// DType is the type of its elements: [DTypeBF16] for every tensor in a group.
	DType DType
	// Shape holds its dimensions, the last one contiguous. DF11 does not store the shapes of compressed tensors: one
	// whose shape is not known has one dimension. Do not change it.
	Shape []uint64
	// ShapeSource tells where Shape comes from, or that it is not known.
	ShapeSource ShapeSource
	// Group is the number of the group that its first element is in, or -1 for a plain tensor. If Runs is above 1, others
	// of its elements are in other groups: see [Model.TensorRuns].
	Group int
	// GroupOffset is the position of its first weight in that group, in elements; 0 for a plain tensor.
	GroupOffset uint64
	// Runs is the number of its runs: 0 for a plain tensor, 1 for one that is whole in a group.
	Runs int
	// Elements is the product of its dimensions.
	Elements uint64
	// DataBytes is the size of its decoded values in bytes.
	DataBytes uint64
	// File is the path of the file that holds the values of a plain tensor, and FileOffset the position of their first
	// byte in it. They are empty and 0 for a tensor in a group.
	File       string
	FileOffset uint64
}

// ShapeSource tells where the dimensions of a tensor come from.
type ShapeSource uint32

// The sources of shapes.
const (
	ShapeUnknown ShapeSource = iota // nothing says the dimensions: the only one is the number of weights
	ShapeStored                     // the model's files
	ShapeGiven                      // [Options]
	ShapeDerived                    // the config and the plain tensors, from which they follow with certainty
)

// Known tells whether the dimensions are known.
func (s ShapeSource) Known() bool { return s != ShapeUnknown }

// Model is an open model. It is immutable, and any number of goroutines may use it at once.
type Model struct {
	handle
	c       *modelHandle
	cleanup runtime.Cleanup

	config  string
	groups  []GroupInfo
	tensors []TensorInfo
	byName  map[string]int // tensors
	byGroup map[string]int
}

// Open opens a model: a folder in Hugging Face layout, or one .safetensors file. It reads and checks headers, tables
// and positions, but no weights, which takes milliseconds unless [Options] ask for a verification. A file or folder
// without compressed groups opens as a model of plain tensors.
//
// When ctx ends, Open returns soon, with an error that is both [ErrCancelled] and the context's. An open model does not
// depend on ctx.
//
// The files must not change while the model is open. Close the model when you no longer need it.
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

// OpenMemory opens the bytes of one .safetensors file in memory. They are not copied, and must not change until the
// model is closed. There is no config.json; see [Options]. Everything else is as for [Open].
func OpenMemory(ctx context.Context, data []byte, o *Options) (*Model, error) {
	if o == nil {
		o = &Options{}
	}
	return openWith(ctx, o, func(c *modelHandle, how cdf11.Opening) (e *cdf11.Error) {
		if len(data) > 0 {
			c.pinned.Pin(unsafe.SliceData(data))
		}
		c.Model, e = cdf11.OpenMemory(data, how)
		return e
	})
}

func open(ctx context.Context, path string, o *Options) (*Model, error) {
	if err := noZero("open", "path", path); err != nil {
		return nil, err
	}
	return openWith(ctx, o, func(c *modelHandle, how cdf11.Opening) (e *cdf11.Error) {
		c.Model, e = cdf11.Open(path, how)
		return e
	})
}

func openWith(ctx context.Context, o *Options,
	call func(c *modelHandle, how cdf11.Opening) *cdf11.Error) (*Model, error) {
	threads, err := threads("open", o.Threads)
	if err != nil {
		return nil, err
	}
	for what, text := range map[string]string{
		"config": string(o.Config), "path of the shapes": o.ShapesFrom, "list of shapes": string(o.Shapes),
	} {
		if err := noZero("open", what, text); err != nil {
			return nil, err
		}
	}
	how := cdf11.Opening{Threads: threads, Config: o.Config, ShapesFrom: given(o.ShapesFrom), Shapes: o.Shapes}
	if o.Verify {
		how.Flags |= cdf11.OpenVerify
	}
	if o.NoMap {
		how.Flags |= cdf11.OpenRead
	}
	if o.AnyVersion {
		how.Flags |= cdf11.OpenAnyVersion
	}
	if o.NoDerivedShapes {
		how.Flags |= cdf11.OpenNoDerivedShapes
	}
	c := newModelHandle()
	err = watch(ctx, "open", o.Progress, func(progress cdf11.Progress) *cdf11.Error {
		how.Progress = progress
		return call(c, how)
	}, c.release)
	if err != nil {
		c.release() // there is no model, but its memory may be pinned
		return nil, err
	}
	m := &Model{c: c}
	m.init()
	m.cleanup = runtime.AddCleanup(m, (*modelHandle).release, m.c)
	if err := m.describe(); err != nil {
		m.Close()
		return nil, err
	}
	var storedBytes uint64
	for _, g := range m.groups {
		storedBytes += g.PackedBytes
	}
	for _, t := range m.tensors {
		if t.Group < 0 {
			storedBytes += t.DataBytes
		}
	}
	c.opened(storedBytes)
	return m, nil
}

// describe copies the descriptions of all groups and tensors, so that no later call needs C for them or keeps a C
// string.
func (m *Model) describe() error {
	m.config = m.c.ConfigText()
	groups, tensors := m.c.Groups(), m.c.Tensors()
	m.groups, m.tensors = make([]GroupInfo, groups), make([]TensorInfo, tensors)
	m.byGroup, m.byName = make(map[string]int, groups), make(map[string]int, tensors)
	for i := range m.groups {
		g, e := m.c.Group(uint64(i))
		if e != nil {
			return result("open", e)
		}
		m.groups[i] = GroupInfo{
			Name:        g.Name,
			Index:       i,
			Elements:    g.Elements,
			FirstTensor: int(g.FirstTensor),
			Tensors:     int(g.Tensors),
			PackedBytes: g.Packed,
			ImageBytes:  g.ImageBytes,
			Extended:    g.Extended,
		}
		if g.FirstTensor == cdf11.NoTensor {
			m.groups[i].FirstTensor = -1
		}
		m.byGroup[g.Name] = i
	}
	files := cdf11.Files{}
	for i := range m.tensors {
		t, e := m.c.Tensor(uint64(i), files)
		if e != nil {
			return result("open", e)
		}
		info := TensorInfo{
			Name:        t.Name,
			Index:       i,
			DType:       DType(t.DType),
			Shape:       t.Shape,
			Group:       -1,
			GroupOffset: t.GroupOffset,
			Runs:        int(t.Runs),
			Elements:    1,
			DataBytes:   t.DataBytes,
			File:        t.File,
			FileOffset:  t.FileOffset,
			ShapeSource: ShapeSource(t.ShapeKnown),
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

// Close frees the model. It waits for running calls; later ones fail with [io/fs.ErrClosed]. Closing again does
// nothing, and Close never fails.
//
// If residents of the model have been uploaded (see [Device.Upload]), its files stay mapped until each of those is
// closed or its [Resident.Uploaded] is called.
func (m *Model) Close() error {
	m.close(func() {
		m.cleanup.Stop()
		m.c.release()
	})
	runtime.KeepAlive(m)
	return nil
}

// ConfigText returns the whole text of the config.json that the model was opened with, its own or the one in [Options],
// or "" if there is none. It has keys that this package does not read, such as hidden_size.
func (m *Model) ConfigText() string { return m.config }

// Groups returns the model's groups by their numbers, in the natural order of their names. The slice belongs to the
// model: do not change it. Like all descriptions, it stays valid after the model is closed.
func (m *Model) Groups() []GroupInfo { return m.groups }

// Tensors returns the model's tensors by their numbers: those of group 0 in the order of their weights, those of group
// 1 and so on, each by the first group that has a part of it, then the plain ones. The slice belongs to the model: do not change it.
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

// TensorRuns returns the runs of a tensor in groups, in the order of its elements: none for a plain tensor, one for a
// tensor that is whole in a group. [Model.ReadTensor] needs none of this; decoding on a device does, where a tensor is in
// several groups.
func (m *Model) TensorRuns(tensor int) ([]Run, error) {
	const op = "tensor runs"
	if _, err := m.begin(op, "tensor", tensor, 0); err != nil {
		return nil, err
	}
	defer m.leave()
	count := 1 // of a tensor that is not there, which the library says
	if tensor < len(m.tensors) {
		count = m.tensors[tensor].Runs
	}
	return runs(op, count, func(run uint64) (cdf11.Run, *cdf11.Error) { return m.c.TensorRun(uint64(tensor), run) })
}

// GroupRuns returns the runs of a group, in the order of its weights: one for each of its tensors.
func (m *Model) GroupRuns(group int) ([]Run, error) {
	const op = "group runs"
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return nil, err
	}
	defer m.leave()
	count := 1
	if group < len(m.groups) {
		count = m.groups[group].Tensors
	}
	return runs(op, count, func(run uint64) (cdf11.Run, *cdf11.Error) { return m.c.GroupRun(uint64(group), run) })
}

// runs collects count runs.
func runs(op string, count int, get func(run uint64) (cdf11.Run, *cdf11.Error)) ([]Run, error) {
	all := make([]Run, count)
	for i := range all {
		r, e := get(uint64(i))
		if e != nil {
			return nil, result(op, e)
		}
		all[i] = Run{int(r.Tensor), r.TensorOffset, int(r.Group), r.GroupOffset, r.Elements}
	}
	return all, nil
}

// Decompress decodes len(dst) weights of a group on the CPU, from its weight first on, directly into dst.
//
// threads is the number of operating system threads that work, including the calling one; 0 means 1. They end before
// the call returns. The call cannot be interrupted: decode a large range in pieces if you must be able to stop. Any
// number of goroutines may decode at once, also the same group.
//
// The error is [ErrCorrupt] if the codes contradict the tables. The contents of dst are then undefined.
func (m *Model) Decompress(group int, first uint64, dst []BF16, threads int) error {
	const op = "decompress"
	n, err := m.begin(op, "group", group, threads)
	if err != nil {
		return err
	}
	defer m.leave()
	return decoded(2*len(dst), result(op, m.c.Decompress(uint64(group), first, bits(dst), n)))
}

// ReadTensor copies or decodes len(dst) bytes of a tensor's values, from byte offset on. For a tensor in a group,
// offset and len(dst) must be even. Everything else is as for [Model.Decompress].
//
// A decoded weight is written in the processor's byte order, which is low byte first on all supported machines. If dst
// does not begin at an even address, the error is [ErrMisaligned]; newly allocated slices do.
func (m *Model) ReadTensor(tensor int, offset uint64, dst []byte, threads int) error {
	const op = "read tensor"
	n, err := m.begin(op, "tensor", tensor, threads)
	if err != nil {
		return err
	}
	defer m.leave()
	return decoded(len(dst), result(op, m.c.ReadTensor(uint64(tensor), offset, dst, n)))
}

// ReadTensorBF16 copies or decodes len(dst) weights of a tensor whose type is [DTypeBF16], from its weight first on. The
// tensor may be plain or in a group, and every tensor in a group has this type. For a tensor of another type the error is
// [ErrInvalidArgument]: see [Model.ReadTensor]. Everything else is as for [Model.Decompress].
func (m *Model) ReadTensorBF16(tensor int, first uint64, dst []BF16, threads int) error {
	const op = "read tensor"
	n, err := m.begin(op, "tensor", tensor, threads)
	if err != nil {
		return err
	}
	defer m.leave()
	if tensor < len(m.tensors) && m.tensors[tensor].DType != DTypeBF16 {
		return invalid(op, "the tensor %q is of type %v, not BF16", shortened(m.tensors[tensor].Name), m.tensors[tensor].DType)
	}
	if first > 1<<63-1 {
		return invalid(op, "there is no weight %d", first)
	}
	return decoded(2*len(dst), result(op, m.c.ReadTensor(uint64(tensor), 2*first, inBytes(dst), n)))
}

// WriteImage writes the image of a group to dst, which holds at least [GroupInfo.ImageBytes] bytes. An image is the
// form that a CUDA device decodes from its memory. It contains no addresses, so it may be stored, sent and moved. No
// CUDA driver is needed. Every code is checked, so a written image decodes without an error. After an error of the file
// the first 256 bytes are zeros.
func (m *Model) WriteImage(group int, dst []byte) error {
	const op = "write image"
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return err
	}
	defer m.leave()
	err := result(op, m.c.WriteImage(uint64(group), dst))
	m.written(group, 0, err)
	return err
}

// WriteImagePart writes part number part of an image that is divided into parts, so that goroutines can share the work.
// All of them pass the same dst. If any part fails, there is no image.
func (m *Model) WriteImagePart(group int, dst []byte, part, parts int) error {
	const op = "write image part"
	if part < 0 || parts < 1 || part >= parts || uint64(parts) > 1<<32-1 {
		return invalid(op, "there is no part %d of %d", part, parts)
	}
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return err
	}
	defer m.leave()
	err := result(op, m.c.WriteImagePart(uint64(group), dst, uint32(part), uint32(parts)))
	m.written(group, part, err)
	return err
}

// decoded counts a call that decoded on the CPU, if it succeeded, and returns its error.
func decoded(dstBytes int, err error) error {
	if err == nil {
		count.hostDecodes.Add(1)
		count.hostBytes.Add(uint64(dstBytes))
	}
	return err
}

// written counts an image by its part 0, if that was written.
func (m *Model) written(group, part int, err error) {
	if err == nil && part == 0 {
		count.imagesWritten.Add(1)
		count.imageBytesWritten.Add(m.groups[group].ImageBytes)
	}
}

// begin begins a call, unless an argument has no C representation or the model is closed.
func (m *Model) begin(op, what string, number, n int) (uint32, error) {
	if number < 0 {
		return 0, failed(&Error{Status: ErrNotFound, Message: "there is no " + what + " of a negative number", Op: op})
	}
	t, err := threads(op, n)
	if err == nil && !m.enter() {
		err = errClosed(op, "model")
	}
	return t, err
}

// threads converts a number of threads to its C type.
func threads(op string, n int) (uint32, error) {
	if n < 0 || uint64(n) > 1<<32-1 {
		return 0, invalid(op, "%d threads", n)
	}
	return uint32(n), nil
}

// bits converts weights to their bits, without a copy.
func bits(w []BF16) []uint16 { return unsafe.Slice((*uint16)(unsafe.SliceData(w)), len(w)) }

// inBytes converts weights to their bytes, without a copy.
func inBytes(w []BF16) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 2*len(w))
}

func noZero(op, what, text string) error {
	if i := strings.IndexByte(text, 0); i >= 0 {
		return invalid(op, "the %s has a zero byte at %d", what, i)
	}
	return nil
}

func notFound(op, what, name string) error {
	// Not counted as a failed call: a program may look for optional tensors.
	return &Error{Status: ErrNotFound, Message: fmt.Sprintf("there is no %s named %q", what, shortened(name)), Op: op}
}

// shortened returns a name of a length that a message can have.
func shortened(name string) string {
	const most = 80
	if len(name) > most {
		name = name[:most] + "…"
	}
	return name
}

// given returns an optional string as the package cdf11 takes it: nil for none.
func given(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}
