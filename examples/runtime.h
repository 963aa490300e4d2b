/*
 * The calls of the CUDA runtime that slots.cc makes. With a CUDA toolkit this is <cuda_runtime_api.h> (link with
 * -lcudart). Without one, the same names call the driver (driver.h), so that the example builds on any machine. A
 * runtime stream is a driver stream, and the runtime uses the device's primary context: libdf11 takes both as they are.
 */
#ifndef DF11_EXAMPLE_RUNTIME_H
#define DF11_EXAMPLE_RUNTIME_H

#if defined(__has_include)
#if __has_include(<cuda_runtime_api.h>) && !defined(DF11_EXAMPLE_WITHOUT_RUNTIME)
#define DF11_EXAMPLE_HAS_RUNTIME 1
#endif
#endif

#ifdef DF11_EXAMPLE_HAS_RUNTIME

#include <cuda_runtime_api.h>

#else

#include "driver.h"

typedef CUstream cudaStream_t;
typedef CUevent cudaEvent_t;
typedef CUgraph cudaGraph_t;
typedef CUgraphExec cudaGraphExec_t;
typedef int cudaError_t;
enum {
    cudaSuccess = 0,
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaMemcpyDeviceToHost = 2,
    cudaStreamCaptureModeThreadLocal = 1
};

static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    return cuda_load(NULL) ? cuDeviceGetCount(count) : 35; /* cudaErrorInsufficientDriver */
}

/* The runtime itself retains the context at the first call that needs one. */
static inline cudaError_t cudaSetDevice(int ordinal)
{
    CUdevice device;
    CUcontext context;
    int result = cuDeviceGet(&device, ordinal);
    if (result == 0)
        result = cuDevicePrimaryCtxRetain(&context, device);
    return result == 0 ? cuCtxSetCurrent(context) : result;
}

/* The runtime itself does not do this: it leaves it to the end of the process. */
static inline void runtime_end(int ordinal)
{
    CUdevice device;
    if (cuDeviceGet(&device, ordinal) == 0)
        cuDevicePrimaryCtxRelease(device);
}

static inline const char *cudaGetErrorString(cudaError_t error)
{
    const char *name = NULL;
    return cuGetErrorName != NULL && cuGetErrorName(error, &name) == 0 && name != NULL ? name : "unknown error";
}

static inline cudaError_t cudaMalloc(void **address, size_t bytes)
{
    CUdeviceptr found = 0;
    int result = cuMemAlloc(&found, bytes);
    *address = (void *)(uintptr_t)found;
    return result;
}

static inline cudaError_t cudaFree(void *address) { return cuMemFree((CUdeviceptr)(uintptr_t)address); }
static inline cudaError_t cudaMallocHost(void **address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }
static inline cudaError_t cudaFreeHost(void *address) { return cuMemFreeHost(address); }
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { return cuStreamCreate(s, f); }
static inline cudaError_t cudaStreamDestroy(cudaStream_t s) { return cuStreamDestroy(s); }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t s) { return cuStreamSynchronize(s); }
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f)
{
    return cuStreamWaitEvent(s, e, f);
}

static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { return cuEventCreate(e, flags); }
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) { return cuEventDestroy(e); }
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return cuEventRecord(e, s); }
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, int mode) { return cuStreamBeginCapture(s, mode); }
static inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) { return cuStreamEndCapture(s, g); }
static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) { return cuGraphLaunch(g, s); }
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return cuGraphExecDestroy(g); }
static inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { return cuGraphDestroy(g); }

static inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags)
{
    return cuGraphInstantiateWithFlags(e, g, flags);
}

static inline cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t s)
{
    return cuMemsetD8Async((CUdeviceptr)(uintptr_t)address, (unsigned char)value, bytes, s);
}

/* The example makes one kind of copy: from the device to pinned memory. */
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t s)
{
    (void)kind;
    return cuMemcpyDtoHAsync(to, (CUdeviceptr)(uintptr_t)from, bytes, s);
}

#endif
#endif
