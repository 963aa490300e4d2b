/* What an engine needs of the CUDA driver, found as engines without a toolkit do: the C tests' own side. */
#ifndef CUDA_DRIVER_H
#define CUDA_DRIVER_H

#include "check.h"
#include "df11.h"

#include <dlfcn.h>
#include <string.h>

static int (*cuInit)(unsigned);
static int (*cuDeviceGet)(int *, int);
static int (*cuDevicePrimaryCtxRetain)(void **, int);
static int (*cuDevicePrimaryCtxRelease)(int);
static int (*cuCtxSetCurrent)(void *);
static int (*cuCtxGetCurrent)(void **);
static int (*cuMemAlloc)(df11_devptr *, size_t);
static int (*cuMemFree)(df11_devptr);
static int (*cuMemHostAlloc)(void **, size_t, unsigned);
static int (*cuMemFreeHost)(void *);
static int (*cuMemcpyHtoD)(df11_devptr, const void *, size_t);
static int (*cuMemcpyDtoH)(void *, df11_devptr, size_t);
static int (*cuMemsetD8)(df11_devptr, unsigned char, size_t);
static int (*cuStreamCreate)(df11_stream *, unsigned);
static int (*cuStreamDestroy)(df11_stream);
static int (*cuStreamSynchronize)(df11_stream);

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
#define FIND(name, symbol)                                                                                            \
    do {                                                                                                              \
        void *found = dlsym(library, symbol);                                                                         \
        CHECK(found != NULL);                                                                                         \
        memcpy(&name, &found, sizeof found);                                                                          \
    } while (0)
    FIND(cuInit, "cuInit");
    FIND(cuDeviceGet, "cuDeviceGet");
    FIND(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
    FIND(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2");
    FIND(cuCtxSetCurrent, "cuCtxSetCurrent");
    FIND(cuCtxGetCurrent, "cuCtxGetCurrent");
    FIND(cuMemAlloc, "cuMemAlloc_v2");
    FIND(cuMemFree, "cuMemFree_v2");
    FIND(cuMemHostAlloc, "cuMemHostAlloc");
    FIND(cuMemFreeHost, "cuMemFreeHost");
    FIND(cuMemcpyHtoD, "cuMemcpyHtoD_v2");
    FIND(cuMemcpyDtoH, "cuMemcpyDtoH_v2");
    FIND(cuMemsetD8, "cuMemsetD8_v2");
    FIND(cuStreamCreate, "cuStreamCreate");
    FIND(cuStreamDestroy, "cuStreamDestroy_v2");
    FIND(cuStreamSynchronize, "cuStreamSynchronize");
}

#endif
