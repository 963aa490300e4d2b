package df11_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
	"github.com/libdf11/libdf11/bindings/go/internal/cudatest"
)

// device opens the device of the driver that DF11_LIBCUDA names, emulated or real.
func device(t testing.TB, o *df11.DeviceOptions) *df11.Device {
	t.Helper()
	there, err := cudatest.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		t.Fatal("DF11_LIBCUDA names no driver: test.sh builds the emulated one and names it")
	}
	d, err := df11.OpenDevice(0, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// memory allocates device memory for the duration of the test, and fills it with 0xa5.
func memory(t testing.TB, bytes uint64) uintptr {
	p := cudatest.Alloc(bytes, 0xa5)
	t.Cleanup(func() { cudatest.Free(p) })
	return p
}

func stream(t testing.TB) uintptr {
	s := cudatest.Stream()
	t.Cleanup(func() { cudatest.EndStream(s) })
	return s
}

// weights returns a group's weights, decoded on the CPU, as bytes.
func weights(t testing.TB, m *df11.Model, group int) []byte {
	t.Helper()
	dst := make([]df11.BF16, m.Groups()[group].Elements)
	if err := m.Decompress(group, 0, dst, 1); err != nil {
		t.Fatal(err)
	}
	return bytesOf(dst)
}

// same waits for the stream, and checks device memory: the weights, a good status, and nothing else changed.
func same(t testing.TB, what string, stream, dst, status uintptr, want []byte, after int) {
	t.Helper()
	cudatest.Wait(stream)
	got, code := make([]byte, len(want)+after), make([]byte, 4)
	cudatest.Get(got, dst)
	cudatest.Get(code, status)
	if !bytes.Equal(got[:len(want)], want) || binary.LittleEndian.Uint32(code) != 0 {
		t.Fatalf("%s: other weights on the device, status %v", what, df11.Status(binary.LittleEndian.Uint32(code)))
	}
	for _, b := range got[len(want):] {
		if b != 0xa5 {
			t.Fatalf("%s: written after the end", what)
		}
	}
}

func TestDevice(t *testing.T) {
	d := device(t, nil)
	info := d.Info()
	if info.Name == "" || info.Kernels == "" || info.LibCUDA == "" || info.DriverVersion < 12000 || info.Ordinal != 0 ||
		info.CapabilityMajor < 7 || info.Multiprocessors < 1 {
		t.Errorf("%+v", info)
	}
	m, s := open(t, modelOf("sharded"), nil), stream(t)
	status := memory(t, 4)
	cudatest.Put(status, make([]byte, 4))
	before := df11.Stats()
	for i, g := range m.Groups() {
		want := weights(t, m, i)
		size := uint64(len(want))
		dst := memory(t, size+64)
		image := make([]byte, g.ImageBytes)
		if err := m.WriteImage(i, image); err != nil {
			t.Fatal(err)
		}
		copied := memory(t, g.ImageBytes)
		cudatest.Put(copied, image)
		staging := cudatest.Pinned(1 << 16)
		defer cudatest.Unpin(staging)

		for name, make := range map[string]func() (*df11.Resident, error){
			"upload": func() (*df11.Resident, error) { return d.Upload(m, i, memory(t, g.ImageBytes), g.ImageBytes, s) },
			"upload staged": func() (*df11.Resident, error) {
				return d.UploadStaged(m, i, memory(t, g.ImageBytes), g.ImageBytes, s, staging, 1<<16)
			},
			"bind": func() (*df11.Resident, error) { return d.Bind(m, i, copied, g.ImageBytes) },
			"bind image": func() (*df11.Resident, error) {
				return d.BindImage(image[:min(len(image), df11.ImageHeadBytesMax)], copied, g.ImageBytes)
			},
		} {
			r, err := make()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			clear := func() { cudatest.Put(dst, bytes.Repeat([]byte{0xa5}, int(size)+64)) }
			clear()
			if err := r.Decompress(dst, size, status, s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			same(t, name, s, dst, status, want, 64)

			clear()
			if err := r.DecompressRange(3, g.Elements-5, dst, size, status, s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			same(t, name+", range", s, dst, status, want[6:size-4], 64)

			clear()
			dsts, sizes := []uintptr{}, []uint64{}
			for _, tensor := range m.Tensors()[g.FirstTensor:][:g.Tensors] {
				dsts, sizes = append(dsts, dst+uintptr(2*tensor.GroupOffset)), append(sizes, tensor.DataBytes)
			}
			if err := r.DecompressTensors(dsts, sizes, status, s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			same(t, name+", tensors", s, dst, status, want, 64)

			clear()
			if err := df11.DecompressBatch([]*df11.Resident{r}, []uintptr{dst}, []uint64{size}, status, s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			same(t, name+", batch", s, dst, status, want, 64)

			about, err := r.Info()
			if err != nil || about.ImageBytes != g.ImageBytes || about.Elements != g.Elements ||
				len(about.TensorEnds) != g.Tensors || about.TensorEnds[g.Tensors-1] != g.Elements {
				t.Fatalf("%s: %+v %v", name, about, err)
			}
			if err := errors.Join(r.Uploaded(), r.Close(), r.Close()); err != nil {
				t.Fatal(err)
			}
			if err := r.Decompress(dst, size, status, s); !errors.Is(err, fs.ErrClosed) {
				t.Fatal(err)
			}
		}
	}
	// Each group was uploaded twice and bound twice. Each of the four residents decoded it in four ways.
	want := before
	for _, g := range m.Groups() {
		want.HostDecodes++
		want.HostBytes += 2 * g.Elements
		want.ImagesWritten++
		want.ImageBytesWritten += g.ImageBytes
		want.Uploads += 2
		want.UploadBytes += 2 * g.ImageBytes
		want.DeviceDecodes += 4 * (3 + uint64(g.Tensors))
		want.DeviceBytes += 4 * 2 * (4*g.Elements - 5)
		want.ErrorsCaller += 4 // decodes of closed residents
	}
	if now := df11.Stats(); now != want {
		t.Errorf("%+v\nnot\n%+v", now, want)
	}
}

func TestDeviceErrors(t *testing.T) {
	d := device(t, nil)
	m, s := open(t, modelOf("tiny"), nil), stream(t)
	g := m.Groups()[0]
	image := memory(t, g.ImageBytes)
	r, err := d.Upload(m, 0, image, g.ImageBytes, s)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	size := 2 * g.Elements
	dst := memory(t, size)
	calls := df11.Stats().DeviceDecodes
	none := []*df11.Resident{}
	_, few := d.Upload(m, 0, image, g.ImageBytes-1, s)
	_, misplaced := d.Upload(m, 0, image+1, g.ImageBytes, s)
	_, missing := d.Upload(m, 9, image, g.ImageBytes, s)
	_, negative := d.Bind(m, -1, image, g.ImageBytes)
	_, noImage := d.BindImage([]byte("no image at all"), image, g.ImageBytes)
	_, noDevice := df11.OpenDevice(1000, nil)
	_, farDevice := df11.OpenDevice(1<<40, nil)
	_, noDriver := df11.OpenDevice(0, &df11.DeviceOptions{LibCUDA: "/nowhere/libcuda.so"})
	for name, c := range map[string]struct {
		err  error
		want df11.Status
	}{
		"too little memory":   {r.Decompress(dst, size-1, 0, s), df11.ErrBufferTooSmall},
		"an odd address":      {r.Decompress(dst+1, size, 0, s), df11.ErrMisaligned},
		"stream 0":            {r.Decompress(dst, size, 0, 0), df11.ErrDefaultStream},
		"outside":             {r.DecompressRange(g.Elements, 1, dst, size, 0, s), df11.ErrInvalidArgument},
		"lists that differ":   {r.DecompressTensors(make([]uintptr, 2), make([]uint64, 1), 0, s), df11.ErrInvalidArgument},
		"too many tensors":    {r.DecompressTensors(make([]uintptr, 9), make([]uint64, 9), 0, s), df11.ErrInvalidArgument},
		"no batch":            {df11.DecompressBatch(none, nil, nil, 0, s), df11.StatusOK},
		"batch of nil":        {df11.DecompressBatch(make([]*df11.Resident, 1), make([]uintptr, 1), make([]uint64, 1), 0, s), df11.ErrInvalidArgument},
		"batch that differs":  {df11.DecompressBatch(none, make([]uintptr, 1), nil, 0, s), df11.ErrInvalidArgument},
		"small image":         {few, df11.ErrBufferTooSmall},
		"odd image":           {misplaced, df11.ErrMisaligned},
		"no such group":       {missing, df11.ErrNotFound},
		"negative group":      {negative, df11.ErrNotFound},
		"no image":            {noImage, df11.ErrInvalidFormat},
		"no such device":      {noDevice, df11.ErrInvalidArgument},
		"no such device ever": {farDevice, df11.ErrInvalidArgument},
		"no driver":           {noDriver, df11.ErrNoDriver},
	} {
		if c.want == df11.StatusOK && c.err != nil || c.want != df11.StatusOK && !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, not %v", name, c.err, c.want)
		}
	}
	if now := df11.Stats().DeviceDecodes; now != calls {
		t.Errorf("%d decodes, and %d before", now, calls)
	}
	// Wrong gaps in a file are found on the device.
	bad := open(t, hostile+"gap_of_a_later_chunk.safetensors", nil)
	b := bad.Groups()[0]
	place, where, status := memory(t, b.ImageBytes), memory(t, 2*b.Elements), memory(t, 4)
	cudatest.Put(status, make([]byte, 4))
	u, err := d.Upload(bad, 0, place, b.ImageBytes, s)
	if err != nil || u.Decompress(where, 2*b.Elements, status, s) != nil {
		t.Fatal(err)
	}
	cudatest.Wait(s)
	code := make([]byte, 4)
	cudatest.Get(code, status)
	if got := df11.Status(binary.LittleEndian.Uint32(code)); got != df11.ErrCorrupt {
		t.Error(got)
	}
	u.Close()

	m.Close()
	d.Close()
	_, closedModel := device(t, nil).Upload(m, 0, image, g.ImageBytes, s)
	_, closedDevice := d.Upload(open(t, modelOf("tiny"), nil), 0, image, g.ImageBytes, s)
	_, closedBind := d.BindImage(nil, image, g.ImageBytes)
	for _, err := range []error{closedModel, closedDevice, closedBind} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	}
	// The resident is still usable.
	if err := r.Decompress(dst, size, 0, s); err != nil {
		t.Error(err)
	}
	cudatest.Wait(s)
}

// A limit on multiprocessors is one on blocks: three fit one multiprocessor.
func TestDeviceMultiprocessors(t *testing.T) {
	device(t, nil) // loads the driver
	m, s := open(t, modelOf("sharded"), nil), stream(t)
	large := 0
	for i, g := range m.Groups() {
		if g.Elements > m.Groups()[large].Elements {
			large = i
		}
	}
	g, want := m.Groups()[large], weights(t, m, large)
	blocks := func(limit uint32) uint64 {
		d := device(t, &df11.DeviceOptions{Multiprocessors: limit})
		dst, status := memory(t, uint64(len(want))), memory(t, 4)
		cudatest.Put(status, make([]byte, 4))
		r, err := d.Upload(m, large, memory(t, g.ImageBytes), g.ImageBytes, s)
		if err != nil || r.Decompress(dst, uint64(len(want)), status, s) != nil {
			t.Fatal(err)
		}
		cudatest.Wait(s)
		defer r.Close()
		same(t, "a limit", s, dst, status, want, 0)
		return cudatest.LastBlocks()
	}
	if all, one := blocks(0), blocks(1); all != 0 && (all <= 3 || one > 3) {
		t.Errorf("%d blocks, and %d with a limit of one multiprocessor", all, one)
	}
}

// The image is complete before the first decode, and no decode writes before the one before it has ended.
func TestDeviceEarlyStart(t *testing.T) {
	m, s := open(t, modelOf("sharded"), nil), stream(t)
	g, want := m.Groups()[0], weights(t, m, 0)
	d := device(t, &df11.DeviceOptions{EarlyStart: true})
	dst, status := memory(t, uint64(len(want))), memory(t, 4)
	cudatest.Put(status, make([]byte, 4))
	r, err := d.Upload(m, 0, memory(t, g.ImageBytes), g.ImageBytes, s)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cudatest.Wait(s)
	for range 2 {
		if err := r.Decompress(dst, uint64(len(want)), status, s); err != nil {
			t.Fatal(err)
		}
	}
	cudatest.Wait(s)
	same(t, "early", s, dst, status, want, 0)
}

func TestDeviceOfTheCurrentContext(t *testing.T) {
	allowed := device(t, &df11.DeviceOptions{AllowDefaultStream: true, PTX: true})
	if allowed.Info().Kernels != "PTX" {
		t.Error(allowed.Info())
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cudatest.MakeCurrent(false)
	if _, err := df11.OpenCurrentDevice(nil); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Error(err)
	}
	cudatest.MakeCurrent(true)
	defer cudatest.MakeCurrent(false)
	d, err := df11.OpenCurrentDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m := open(t, modelOf("tiny"), nil)
	g, want := m.Groups()[0], weights(t, m, 0)
	dst, status := memory(t, uint64(len(want))), memory(t, 4)
	cudatest.Put(status, make([]byte, 4))
	r, err := allowed.Upload(m, 0, memory(t, g.ImageBytes), g.ImageBytes, 0)
	if err != nil || r.Decompress(dst, uint64(len(want)), status, 0) != nil {
		t.Fatal(err)
	}
	defer r.Close()
	same(t, "the default stream", 0, dst, status, want, 0)
}

// A resident is used by many goroutines, each with its own stream. A call allocates nothing.
func TestDeviceFromManyGoroutines(t *testing.T) {
	d, m := device(t, nil), open(t, modelOf("tiny"), nil)
	g, want, s := m.Groups()[0], weights(t, m, 0), stream(t)
	r, err := d.Upload(m, 0, memory(t, g.ImageBytes), g.ImageBytes, s)
	if err != nil {
		t.Fatal(err)
	}
	cudatest.Wait(s)
	r.Uploaded()
	var all sync.WaitGroup
	for range 8 {
		mine, dst, status := stream(t), memory(t, uint64(len(want))), memory(t, 4)
		cudatest.Put(status, make([]byte, 4))
		all.Add(1)
		go func() {
			defer all.Done()
			for range 5 {
				if err := r.Decompress(dst, uint64(len(want)), status, mine); err != nil {
					t.Error(err)
				}
			}
			cudatest.Wait(mine)
			got := make([]byte, len(want))
			cudatest.Get(got, dst)
			if !bytes.Equal(got, want) {
				t.Error("other weights")
			}
		}()
	}
	all.Wait()
	dst := memory(t, uint64(len(want)))
	dsts, sizes := []uintptr{dst}, []uint64{uint64(len(want))}
	batch := []*df11.Resident{r}
	if n := testing.AllocsPerRun(10, func() {
		if r.Decompress(dst, sizes[0], 0, s) != nil || r.DecompressRange(1, 2, dst, 4, 0, s) != nil ||
			r.DecompressTensors(dsts, sizes, 0, s) != nil || df11.DecompressBatch(batch, dsts, sizes, 0, s) != nil {
			t.Fatal("cannot decode")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	cudatest.Wait(s)
	r.Close()
	if err := df11.DecompressBatch(batch, dsts, sizes, 0, s); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

// Until a stream has executed an upload, the model's files and the resident are kept, whatever is closed or forgotten.
func TestUploadsKeepWhatTheyRead(t *testing.T) {
	d, s := device(t, nil), stream(t)
	before := df11.Stats()
	now := func() (models, residents int64) {
		s := df11.Stats()
		return int64(s.ModelsOpen - before.ModelsOpen), int64(s.Residents - before.Residents)
	}
	is := func(models, residents int64) func() bool {
		return func() bool { m, r := now(); return m == models && r == residents }
	}
	m := open(t, modelOf("block"), nil)
	g, want := m.Groups()[0], weights(t, m, 0)
	image, dst, status := memory(t, g.ImageBytes), memory(t, uint64(len(want))), memory(t, 4)
	cudatest.Put(status, make([]byte, 4))

	// The model is closed with the upload still in the stream.
	r, err := d.Upload(m, 0, image, g.ImageBytes, s)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if !is(1, 1)() {
		t.Fatal(now())
	}
	if err := r.Decompress(dst, uint64(len(want)), status, s); err != nil {
		t.Fatal(err)
	}
	same(t, "the closed model's", s, dst, status, want, 0)
	r.Uploaded()
	if !is(0, 1)() {
		t.Fatal(now())
	}
	r.Close()
	if !is(0, 0)() {
		t.Fatal(now())
	}

	// Model and resident become unreachable: both are kept until the device is closed.
	forget := func(d *df11.Device, s uintptr, uploaded bool) {
		m, err := df11.Open(ctx, modelOf("block"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Upload(m, 0, image, g.ImageBytes, s)
		if err != nil || r.Decompress(dst, uint64(len(want)), status, s) != nil {
			t.Fatal(err)
		}
		if uploaded {
			cudatest.Wait(s)
			r.Uploaded()
		}
	}
	other, err := df11.OpenDevice(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	forget(other, s, false)
	for range 10 {
		runtime.GC()
	}
	if !is(1, 1)() {
		t.Fatal(now())
	}
	same(t, "the forgotten resident's", s, dst, status, want, 0)
	other.Close()
	eventually(t, "the device has freed what waited", is(0, 0))

	// After Uploaded the collector frees both, and it frees a bound resident at once.
	forget(d, s, true)
	func() {
		m := open(t, modelOf("block"), nil)
		if _, err := d.Bind(m, 0, image, g.ImageBytes); err != nil {
			t.Fatal(err)
		}
		m.Close()
	}()
	eventually(t, "the collector has freed all", is(0, 0))

	// A device that nobody closes.
	if _, err := df11.OpenDevice(0, nil); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		runtime.GC()
	}

	// The same with an upload in a stream. Nobody will ever call Uploaded, so the resident, the model and its memory,
	// which is pinned Go memory, are kept. The runtime would end a process in which pinned memory is collected.
	file, err := os.ReadFile(modelOf("block") + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	func() {
		other, err := df11.OpenDevice(0, nil)
		if err != nil {
			t.Fatal(err)
		}
		m, err := df11.OpenMemory(ctx, bytes.Clone(file), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := other.Upload(m, 0, image, g.ImageBytes, s)
		if err != nil || r.Decompress(dst, uint64(len(want)), status, s) != nil {
			t.Fatal(err)
		}
	}()
	for range 10 {
		runtime.GC()
		time.Sleep(time.Millisecond) // cleanups run on a goroutine of their own
	}
	if !is(1, 1)() {
		t.Fatal(now())
	}
	same(t, "what nobody has any more", s, dst, status, want, 0)
}
