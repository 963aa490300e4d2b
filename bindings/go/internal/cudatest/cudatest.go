// Package cudatest has the calls of the CUDA driver that the device tests need. DF11_LIBCUDA names the driver. It is for
// tests only.
package cudatest

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;

static int (*set_current)(CUcontext), (*get_current)(CUcontext *), (*stream_create)(CUstream *, unsigned), (*stream_destroy)(CUstream),
	(*stream_synchronize)(CUstream), (*mem_alloc)(uint64_t *, size_t), (*mem_free)(uint64_t), (*memset8)(uint64_t, unsigned char, size_t),
	(*to_device)(uint64_t, const void *, size_t), (*from_device)(void *, uint64_t, size_t), (*host_alloc)(void **, size_t, unsigned),
	(*host_free)(void *);
static CUcontext context;

static void *library;
static void *find(const char *name, int *missing)
{
	void *found = dlsym(library, name);
	*missing |= found == NULL;
	return found;
}

static int load(const char *path)
{
	int missing = 0, (*init)(unsigned), (*retain)(CUcontext *, int);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return -1;
	*(void **)&init = find("cuInit", &missing);
	*(void **)&retain = find("cuDevicePrimaryCtxRetain", &missing);
	*(void **)&set_current = find("cuCtxSetCurrent", &missing);
	*(void **)&get_current = find("cuCtxGetCurrent", &missing);
	*(void **)&stream_create = find("cuStreamCreate", &missing);
	*(void **)&stream_destroy = find("cuStreamDestroy_v2", &missing);
	*(void **)&stream_synchronize = find("cuStreamSynchronize", &missing);
	*(void **)&mem_alloc = find("cuMemAlloc_v2", &missing);
	*(void **)&mem_free = find("cuMemFree_v2", &missing);
	*(void **)&memset8 = find("cuMemsetD8_v2", &missing);
	*(void **)&to_device = find("cuMemcpyHtoD_v2", &missing);
	*(void **)&from_device = find("cuMemcpyDtoH_v2", &missing);
	*(void **)&host_alloc = find("cuMemHostAlloc", &missing);
	*(void **)&host_free = find("cuMemFreeHost", &missing);
	if (missing)
		return -2;
	int error = init(0);
	return error != 0 ? error : retain(&context, 0);
}

// Goroutines move between threads: each call makes the context current on its thread, and restores the thread's own.
#define IN_CONTEXT(call) \
	CUcontext before = NULL; \
	get_current(&before); \
	set_current(context); \
	int result = (call); \
	set_current(before); \
	return result;

static int new_stream(uintptr_t *out) { IN_CONTEXT(stream_create((CUstream *)out, 1)) }
static int end_stream(uintptr_t s) { IN_CONTEXT(stream_destroy((CUstream)s)) }
static int wait_for(uintptr_t s) { IN_CONTEXT(stream_synchronize((CUstream)s)) }
static int allocate(uint64_t *out, size_t n) { IN_CONTEXT(mem_alloc(out, n)) }
static int release(uint64_t p) { IN_CONTEXT(mem_free(p)) }
// A memset is asynchronous in the default stream, with which other streams are not ordered.
static int clear(uint64_t p, unsigned char with, size_t n) { IN_CONTEXT(memset8(p, with, n) | stream_synchronize(NULL)) }
static int put(uint64_t p, const void *from, size_t n) { IN_CONTEXT(to_device(p, from, n)) }
static int get(void *to, uint64_t p, size_t n) { IN_CONTEXT(from_device(to, p, n)) }
static int pinned(uintptr_t *out, size_t n) { IN_CONTEXT(host_alloc((void **)out, n, 0)) }
static int unpin(uintptr_t p) { IN_CONTEXT(host_free((void *)p)) }
// What the emulated driver says of a key; 0 from any other driver.
static uint64_t emulated(const char *key)
{
	uint64_t (*query)(const char *);
	*(void **)&query = dlsym(library, "df11_emulator_query");
	return query != NULL ? query(key) : 0;
}
static int make_current(int on) { return set_current(on ? context : NULL); }
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// Load loads the driver that DF11_LIBCUDA names. It returns false if the variable is not set.
var Load = sync.OnceValues(func() (bool, error) {
	path := os.Getenv("DF11_LIBCUDA")
	if path == "" {
		return false, nil
	}
	c := C.CString(path)
	defer C.free(unsafe.Pointer(c))
	if error := C.load(c); error != 0 {
		return true, fmt.Errorf("the driver %s: %d", path, error)
	}
	return true, nil
})

func must(what string, error C.int) {
	if error != 0 {
		panic(fmt.Sprintf("%s: CUDA error %d", what, error))
	}
}

// Stream makes a non-blocking stream.
func Stream() uintptr {
	var s C.uintptr_t
	must("cuStreamCreate", C.new_stream(&s))
	return uintptr(s)
}

// EndStream destroys a stream.
func EndStream(s uintptr) { must("cuStreamDestroy", C.end_stream(C.uintptr_t(s))) }

// Wait waits for a stream.
func Wait(s uintptr) { must("cuStreamSynchronize", C.wait_for(C.uintptr_t(s))) }

// Alloc allocates device memory, and sets its bytes to a value.
func Alloc(bytes uint64, with byte) uintptr {
	var p C.uint64_t
	must("cuMemAlloc", C.allocate(&p, C.size_t(bytes)))
	must("cuMemsetD8", C.clear(p, C.uchar(with), C.size_t(bytes)))
	return uintptr(p)
}

// Free frees device memory.
func Free(p uintptr) { must("cuMemFree", C.release(C.uint64_t(p))) }

// Put copies to the device.
func Put(p uintptr, from []byte) {
	must("cuMemcpyHtoD", C.put(C.uint64_t(p), unsafe.Pointer(unsafe.SliceData(from)), C.size_t(len(from))))
}

// Get copies from the device.
func Get(to []byte, p uintptr) {
	must("cuMemcpyDtoH", C.get(unsafe.Pointer(unsafe.SliceData(to)), C.uint64_t(p), C.size_t(len(to))))
}

// Pinned allocates pinned host memory, and Unpin frees it.
func Pinned(bytes uint64) uintptr {
	var p C.uintptr_t
	must("cuMemHostAlloc", C.pinned(&p, C.size_t(bytes)))
	return uintptr(p)
}

// Unpin frees pinned host memory.
func Unpin(p uintptr) { must("cuMemFreeHost", C.unpin(C.uintptr_t(p))) }

// LastBlocks returns how many blocks the last launch had on the emulated driver, and 0 on any other.
func LastBlocks() uint64 {
	key := C.CString("last.blocks")
	defer C.free(unsafe.Pointer(key))
	return uint64(C.emulated(key))
}

// MakeCurrent makes the device's primary context current on the calling thread, or no context.
func MakeCurrent(on bool) {
	n := C.int(0)
	if on {
		n = 1
	}
	must("cuCtxSetCurrent", C.make_current(n))
}
