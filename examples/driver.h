/*
 * The CUDA driver for programs that are built without a CUDA toolkit: the calls that the examples and GPU tests make,
 * found at run time. An engine includes <cuda.h> instead, which has the same types and names.
 *
 *     if (!cuda_load(NULL)) ...                 there is no driver on this machine
 *     CUDA(cuMemAlloc(&address, bytes));        prints and exits after an error
 *
 * Results are plain integers, because a driver may return codes that this header does not know.
 */
#ifndef DF11_EXAMPLE_DRIVER_H
#define DF11_EXAMPLE_DRIVER_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

enum {
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_DISABLE_TIMING = 2,
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76
};

/* The name in <cuda.h>, the name in the library, the parameters. */
#define CUDA_CALLS(CALL)                                                                                              \
    CALL(cuInit, "cuInit", (unsigned flags))                                                                          \
    CALL(cuDriverGetVersion, "cuDriverGetVersion", (int *version))                                                    \
    CALL(cuGetErrorName, "cuGetErrorName", (CUresult, const char **name))                                             \
    CALL(cuDeviceGetCount, "cuDeviceGetCount", (int *count))                                                          \
    CALL(cuDeviceGet, "cuDeviceGet", (CUdevice *, int ordinal))                                                       \
    CALL(cuDeviceGetName, "cuDeviceGetName", (char *name, int bytes, CUdevice))                                       \
    CALL(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attribute, CUdevice))                         \
    CALL(cuDeviceCanAccessPeer, "cuDeviceCanAccessPeer", (int *can, CUdevice, CUdevice peer))                         \
    CALL(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                               \
    CALL(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                       \
    CALL(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                                             \
    CALL(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *))                                                           \
    CALL(cuCtxEnablePeerAccess, "cuCtxEnablePeerAccess", (CUcontext peer, unsigned flags))                            \
    CALL(cuMemGetInfo, "cuMemGetInfo_v2", (size_t *free, size_t *total))                                              \
    CALL(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t bytes))                                                  \
    CALL(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                                    \
    CALL(cuMemHostAlloc, "cuMemHostAlloc", (void **, size_t bytes, unsigned flags))                                   \
    CALL(cuMemFreeHost, "cuMemFreeHost", (void *))                                                                    \
    CALL(cuMemcpyHtoD, "cuMemcpyHtoD_v2", (CUdeviceptr, const void *, size_t bytes))                                  \
    CALL(cuMemcpyDtoH, "cuMemcpyDtoH_v2", (void *, CUdeviceptr, size_t bytes))                                        \
    CALL(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void *, size_t bytes, CUstream))              \
    CALL(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t bytes, CUstream))                    \
    CALL(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream))       \
    CALL(cuMemcpyPeerAsync, "cuMemcpyPeerAsync",                                                                      \
         (CUdeviceptr to, CUcontext of_to, CUdeviceptr from, CUcontext of_from, size_t bytes, CUstream))              \
    CALL(cuMemsetD8Async, "cuMemsetD8Async", (CUdeviceptr, unsigned char value, size_t count, CUstream))              \
    CALL(cuStreamCreate, "cuStreamCreate", (CUstream *, unsigned flags))                                              \
    CALL(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream))                                                           \
    CALL(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                                      \
    CALL(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned flags))                                 \
    CALL(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int mode))                                       \
    CALL(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph *))                                             \
    CALL(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags", (CUgraphExec *, CUgraph, unsigned long long))    \
    CALL(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                                     \
    CALL(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))                                                     \
    CALL(cuGraphDestroy, "cuGraphDestroy", (CUgraph))                                                                 \
    CALL(cuEventCreate, "cuEventCreate", (CUevent *, unsigned flags))                                                 \
    CALL(cuEventDestroy, "cuEventDestroy_v2", (CUevent))                                                              \
    CALL(cuEventRecord, "cuEventRecord", (CUevent, CUstream))                                                         \
    CALL(cuEventSynchronize, "cuEventSynchronize", (CUevent))                                                         \
    CALL(cuEventElapsedTime, "cuEventElapsedTime", (float *milliseconds, CUevent, CUevent))                           \
    CALL(cuModuleLoadData, "cuModuleLoadData", (CUmodule *, const void *image))                                       \
    CALL(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                                \
    CALL(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *name))                      \
    CALL(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, int attribute, int value))                            \
    CALL(cuOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor",                  \
         (int *blocks, CUfunction, int threads, size_t shared_bytes))                                                 \
    CALL(cuLaunchKernel, "cuLaunchKernel",                                                                            \
         (CUfunction, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,          \
          unsigned block_z, unsigned shared_bytes, CUstream, void **parameters, void **extra))

#define CUDA_POINTER(name, symbol, parameters) static CUresult(*name) parameters;
CUDA_CALLS(CUDA_POINTER)
#undef CUDA_POINTER

/* The library that cuda_load() has loaded. It has calls that not every driver has: dlsym() finds them. */
static void *cuda_library;

/*
 * Loads the driver: `path`, or if that is NULL the one that DF11_LIBCUDA names, or else the system's. Returns 0 if
 * there is none. If `path` was given, it prints why.
 */
static inline int cuda_load(const char *path)
{
    const char *name = path != NULL ? path : getenv("DF11_LIBCUDA");
    void *library = cuda_library = dlopen(name != NULL && *name != 0 ? name : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        if (path != NULL)
            fprintf(stderr, "%s\n", dlerror());
        return 0;
    }
#define CUDA_FIND(name, symbol, parameters)                                                                           \
    {                                                                                                                 \
        void *found = dlsym(library, symbol);                                                                         \
        if (found == NULL) {                                                                                          \
            fprintf(stderr, "the CUDA driver has no %s: it is older than CUDA 12.0\n", symbol);                       \
            return 0;                                                                                                 \
        }                                                                                                             \
        memcpy(&name, &found, sizeof(found));                                                                         \
    }
    CUDA_CALLS(CUDA_FIND)
#undef CUDA_FIND
    return cuInit(0) == 0;
}

static inline void cuda_check(CUresult result, const char *call, const char *file, int line)
{
    const char *name = NULL;
    if (result == 0)
        return;
    if (cuGetErrorName(result, &name) != 0 || name == NULL)
        name = "an unknown code";
    fprintf(stderr, "%s:%d: %s: %s (%d)\n", file, line, call, name, result);
    exit(1);
}

/* Makes a call of the driver. Prints the error and exits if it fails. */
#define CUDA(call) cuda_check((call), #call, __FILE__, __LINE__)

#endif
