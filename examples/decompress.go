//go:build ignore

// Decodes a DF11 model on a CUDA device if there is one, else on the CPU with all processors. Prints the speed, and
// compares each tensor with the original.
//
//	decompress [--cpu] MODEL [ORIGINAL]
//
// MODEL is a folder or a .safetensors file. ORIGINAL contains the tensors before compression. decompress.c,
// decompress.cc and decompress.rs are the same program in other languages.
//
//	make install PREFIX=$HOME/df11
//	cd examples && PKG_CONFIG_PATH=$HOME/df11/lib/pkgconfig go build -o decompress decompress.go
//	LD_LIBRARY_PATH=$HOME/df11/lib ./decompress MODEL
package main

/*
#cgo LDFLAGS: -ldl
#include "driver.h"

// The calls of the CUDA driver. A failure ends the program, as in decompress.c. Streams are numbers in Go.

static int device_there(void)
{
	int count = 0;
	return cuda_load(NULL) && cuDeviceGetCount(&count) == 0 && count > 0;
}

static CUdevice device;

// An engine has made a context already. libdf11 makes none: it uses the device's primary context.
static uintptr_t device_begin(void)
{
	CUcontext context;
	CUstream stream;
	CUDA(cuDeviceGet(&device, 0));
	CUDA(cuDevicePrimaryCtxRetain(&context, device));
	CUDA(cuCtxSetCurrent(context));
	CUDA(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	return (uintptr_t)stream;
}

static void device_end(uintptr_t stream)
{
	CUDA(cuStreamDestroy((CUstream)stream));
	CUDA(cuDevicePrimaryCtxRelease(device));
}

static uintptr_t memory(size_t bytes)
{
	CUdeviceptr p;
	CUDA(cuMemAlloc(&p, bytes));
	return p;
}

static void memory_free(uintptr_t p) { CUDA(cuMemFree(p)); }
static void memory_clear(uintptr_t p, size_t bytes, uintptr_t stream) { CUDA(cuMemsetD8Async(p, 0, bytes, (CUstream)stream)); }
static void memory_read(void *to, uintptr_t from, size_t bytes) { CUDA(cuMemcpyDtoH(to, from, bytes)); }
static void stream_wait(uintptr_t stream) { CUDA(cuStreamSynchronize((CUstream)stream)); }
*/
import "C"

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func main() {
	args := os.Args[1:]
	cpu := len(args) > 0 && args[0] == "--cpu"
	if cpu {
		args = args[1:]
	}
	if len(args) < 1 || len(args) > 2 {
		fmt.Fprintln(os.Stderr, "usage: decompress [--cpu] MODEL [ORIGINAL]")
		os.Exit(2)
	}
	good, err := run(cpu, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "decompress:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

func run(cpu bool, args []string) (bool, error) {
	ctx := context.Background()
	model, err := df11.Open(ctx, args[0], nil)
	if err != nil {
		return false, err
	}
	defer model.Close()
	var original *df11.Model
	if len(args) == 2 {
		if original, err = df11.Open(ctx, args[1], nil); err != nil {
			return false, err
		}
		defer original.Close()
	}
	fmt.Printf("libdf11 %s, %s\n", df11.Version(), args[0])

	host := &decoder{model: model, threads: runtime.NumCPU()}
	d := host
	if !cpu {
		gpu, err := attach(model)
		if gpu != nil {
			defer gpu.close()
		}
		if err != nil {
			return false, err
		}
		if gpu != nil && gpu.device != nil {
			d = &decoder{model: model, threads: host.threads, gpu: gpu}
		}
	}
	if err := d.measure(); err != nil || original == nil {
		return err == nil, err
	}
	return d.compare(&decoder{model: original, threads: host.threads})
}

// decoder is the means of decoding: a CUDA device or, without one, threads.
type decoder struct {
	model   *df11.Model
	threads int
	gpu     *gpu // nil without one
}

// gpu is a device with all groups of the model, compressed.
type gpu struct {
	device    *df11.Device // nil if it cannot be used
	stream    uintptr
	images    []uintptr // one for each group, kept on the device
	residents []*df11.Resident
	output    uintptr // one group, decoded
	status    uintptr // a uint32 that the kernels set if they find an error
}

// attach opens the first CUDA device and uploads all groups. It returns nil if there is no device.
func attach(model *df11.Model) (*gpu, error) {
	// The calls of the driver below, but not those of libdf11, need the context on their thread.
	runtime.LockOSThread()
	if C.device_there() == 0 {
		return nil, nil
	}
	g := &gpu{stream: uintptr(C.device_begin())}
	device, err := df11.OpenDevice(0, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, "decompress: on the CPU, because:", err)
		return g, nil
	}
	g.device = device
	var largest, bytes uint64
	for _, group := range model.Groups() {
		image := uintptr(C.memory(C.size_t(group.ImageBytes)))
		g.images = append(g.images, image)
		resident, err := device.Upload(model, group.Index, image, group.ImageBytes, g.stream)
		if err != nil {
			return g, err
		}
		g.residents = append(g.residents, resident)
		bytes += group.ImageBytes
		largest = max(largest, group.Elements)
	}
	g.output, g.status = uintptr(C.memory(C.size_t(2*largest+1))), uintptr(C.memory(4))
	C.memory_clear(C.uintptr_t(g.status), 4, C.uintptr_t(g.stream))
	C.stream_wait(C.uintptr_t(g.stream))
	about := device.Info()
	fmt.Printf("%s, driver %d.%d, kernels: %s; %d bytes of compressed groups on it\n", about.Name, about.DriverVersion/1000,
		about.DriverVersion%1000/10, about.Kernels, bytes)
	return g, nil
}

func (g *gpu) close() {
	C.stream_wait(C.uintptr_t(g.stream))
	for _, resident := range g.residents {
		resident.Close()
	}
	for _, p := range append(g.images, g.output, g.status) {
		if p != 0 {
			C.memory_free(C.uintptr_t(p))
		}
	}
	if g.device != nil {
		g.device.Close()
	}
	C.device_end(C.uintptr_t(g.stream))
}

// wait waits for the device. The error is what a kernel has found.
func (g *gpu) wait() error {
	C.stream_wait(C.uintptr_t(g.stream))
	var status uint32
	C.memory_read(unsafe.Pointer(&status), C.uintptr_t(g.status), 4)
	if status != 0 {
		return fmt.Errorf("the device reports %w", df11.Status(status))
	}
	return nil
}

// measure decodes all groups repeatedly for a quarter of a second, and prints the speed.
func (d *decoder) measure() error {
	var weights, packed, largest uint64
	groups := d.model.Groups()
	for _, g := range groups {
		weights += g.Elements
		packed += g.PackedBytes
		largest = max(largest, g.Elements)
	}
	if weights == 0 {
		fmt.Println("no compressed groups")
		return nil
	}
	fmt.Printf("%d groups, %d weights, %d bytes instead of %d: %.3f bits per weight\n", len(groups), weights, packed,
		2*weights, 8*float64(packed)/float64(weights))

	// One buffer serves all groups, as in an engine that decodes each layer just before it uses it.
	buffer := make([]df11.BF16, largest)
	start, rounds := time.Now(), 0
	for rounds == 0 || time.Since(start) < 250*time.Millisecond {
		for _, g := range groups {
			var err error
			if d.gpu != nil {
				err = d.gpu.residents[g.Index].Decompress(d.gpu.output, 2*g.Elements, d.gpu.status, d.gpu.stream)
			} else {
				err = d.model.Decompress(g.Index, 0, buffer[:g.Elements], d.threads)
			}
			if err != nil {
				return err
			}
		}
		if d.gpu != nil {
			if err := d.gpu.wait(); err != nil {
				return err
			}
		}
		rounds++
	}
	speed := 2 * float64(weights) * float64(rounds) / time.Since(start).Seconds() * 1e-9
	if d.gpu != nil {
		fmt.Printf("decoded %d times on the device: %.2f GB/s of bf16\n", rounds, speed)
	} else {
		fmt.Printf("decoded %d times on the CPU with up to %d thread(s): %.2f GB/s of bf16\n", rounds, d.threads, speed)
	}
	return nil
}

// read reads a whole tensor. If there is a device, a compressed tensor is decoded there: most are a range of one group,
// and larger ones a run in each of several.
func (d *decoder) read(t df11.TensorInfo) ([]byte, error) {
	values := make([]byte, t.DataBytes)
	if d.gpu == nil || t.Group < 0 {
		return values, d.model.ReadTensor(t.Index, 0, values, d.threads)
	}
	g := d.gpu
	runs, err := d.model.TensorRuns(t.Index)
	for _, run := range runs {
		part := values[2*run.TensorOffset:][:2*run.Elements]
		resident := g.residents[run.Group]
		err = resident.DecompressRange(run.GroupOffset, run.Elements, g.output, uint64(len(part)), g.status, g.stream)
		if err == nil {
			err = g.wait()
		}
		if err != nil {
			break
		}
		if len(part) > 0 {
			C.memory_read(unsafe.Pointer(&part[0]), C.uintptr_t(g.output), C.size_t(len(part)))
		}
	}
	return values, err
}

// compare compares every tensor of the model with the original's tensor of the same name.
func (d *decoder) compare(original *decoder) (bool, error) {
	same := 0
	for _, ours := range d.model.Tensors() {
		theirs, err := original.model.FindTensor(ours.Name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "decompress:", err)
			continue
		}
		got, err := d.read(ours)
		if err != nil {
			return false, err
		}
		want, err := original.read(theirs)
		if err != nil {
			return false, err
		}
		if bytes.Equal(got, want) {
			same++
		} else {
			fmt.Fprintf(os.Stderr, "decompress: %q differs from the original\n", ours.Name)
		}
	}
	fmt.Printf("%d of %d tensors equal the original, bit for bit\n", same, len(d.model.Tensors()))
	return same == len(d.model.Tensors()), nil
}
