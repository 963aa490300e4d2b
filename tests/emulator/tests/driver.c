/* The emulated driver as a C program sees it that loads libcuda at run time: symbols, types, one kernel.
   Usage: driver LIBRARY use|leak. Ends with 1 when a call fails, 2 when a symbol is missing. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char PTX[] =
    ".version 8.0\n.target sm_75\n.address_size 64\n"
    ".visible .entry fill(.param .u64 p, .param .u32 value)\n{\n"
    "    .reg .b32 %r<3>;\n    .reg .b64 %rd<4>;\n"
    "    ld.param.u64 %rd1, [p];\n    ld.param.u32 %r1, [value];\n"
    "    cvta.to.global.u64 %rd2, %rd1;\n    mov.u32 %r2, %tid.x;\n    mul.wide.u32 %rd3, %r2, 4;\n"
    "    add.s64 %rd2, %rd2, %rd3;\n    st.global.u32 [%rd2], %r1;\n    ret;\n}\n";

/* The one function type that gcc lets be cast to any other. */
typedef void (*any_fn)(void);

static void *library;

static any_fn find(const char *name) {
    any_fn found;
    void *address = dlsym(library, name);
    if (!address) {
        fprintf(stderr, "no %s\n", name);
        exit(2);
    }
    memcpy(&found, &address, sizeof found);
    return found;
}

#define CALL(name, types, ...)                                    \
    do {                                                          \
        int code_ = ((int(*) types)find(#name))(__VA_ARGS__);     \
        if (code_) {                                              \
            fprintf(stderr, "%s: %d\n", #name, code_);            \
            exit(1);                                              \
        }                                                         \
    } while (0)

/* What libraries and engines look for at least. */
static const char *const NAMES[] = {
    "cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute", "cuDeviceGetName",
    "cuDeviceGetUuid_v2", "cuDeviceTotalMem_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxGetState", "cuDevicePrimaryCtxSetFlags_v2", "cuCtxCreate_v2", "cuCtxDestroy_v2",
    "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuCtxGetCurrent", "cuCtxSetCurrent", "cuCtxGetDevice",
    "cuCtxSynchronize", "cuCtxGetApiVersion", "cuCtxGetLimit", "cuCtxSetLimit", "cuCtxGetStreamPriorityRange",
    "cuStreamCreate", "cuStreamCreateWithPriority", "cuStreamDestroy_v2", "cuStreamQuery", "cuStreamSynchronize",
    "cuStreamWaitEvent", "cuStreamGetCtx", "cuStreamGetFlags", "cuStreamIsCapturing", "cuStreamGetCaptureInfo_v2",
    "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuThreadExchangeStreamCaptureMode", "cuGraphInstantiate_v2",
    "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuGraphUpload", "cuGraphDestroy", "cuGraphExecDestroy",
    "cuGraphExecUpdate_v2", "cuGraphGetNodes", "cuEventCreate", "cuEventRecord", "cuEventQuery", "cuEventSynchronize",
    "cuEventElapsedTime", "cuEventDestroy_v2", "cuMemAlloc_v2", "cuMemFree_v2", "cuMemAllocAsync", "cuMemFreeAsync",
    "cuMemAllocHost_v2", "cuMemHostAlloc", "cuMemFreeHost", "cuMemHostRegister_v2", "cuMemHostUnregister",
    "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2", "cuMemcpyDtoD_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2", "cuMemcpy", "cuMemcpyAsync", "cuMemsetD8_v2", "cuMemsetD16_v2", "cuMemsetD32_v2",
    "cuMemsetD8Async", "cuMemsetD16Async", "cuMemsetD32Async", "cuMemGetInfo_v2", "cuMemGetAddressRange_v2",
    "cuPointerGetAttribute", "cuPointerGetAttributes", "cuModuleLoadData", "cuModuleLoadDataEx", "cuModuleUnload",
    "cuModuleGetFunction", "cuModuleGetGlobal_v2", "cuModuleGetLoadingMode", "cuLibraryLoadData", "cuLibraryUnload",
    "cuLibraryGetKernel", "cuKernelGetFunction", "cuFuncGetAttribute", "cuFuncSetAttribute", "cuFuncSetCacheConfig",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor", "cuOccupancyMaxPotentialBlockSize", "cuLaunchKernel",
    "cuLaunchKernelEx", "cuLaunchHostFunc", "cuGetErrorName", "cuGetErrorString", "cuGetProcAddress",
    "cuGetProcAddress_v2", "cuProfilerStart", "cuProfilerStop", "cuLaunchKernel_ptsz", "cuStreamSynchronize_ptsz",
    "cuMemcpyHtoDAsync_v2_ptsz", "cuMemcpyHtoD_v2_ptds", "cuMemsetD8Async_ptsz", "cuEventRecord_ptsz",
    "cuStreamWaitEvent_ptsz", "cuGraphLaunch_ptsz", "df11_emulator_control", "df11_emulator_query",
    "df11_emulator_text",
};

int main(int argc, char **argv) {
    if (argc != 3 || !(library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL))) {
        fprintf(stderr, "%s\n", argc == 3 ? dlerror() : "usage: driver LIBRARY use|leak");
        return 3;
    }
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) find(NAMES[i]);

    void *context = NULL, *stream = NULL, *module = NULL, *function = NULL, *popped = NULL;
    unsigned long long address = 0;
    unsigned value = 42;
    unsigned back[6];
    CALL(cuInit, (unsigned), 0);
    CALL(cuDevicePrimaryCtxRetain, (void **, int), &context, 0);
    CALL(cuCtxPushCurrent_v2, (void *), context);
    CALL(cuStreamCreate, (void **, unsigned), &stream, 1);
    CALL(cuMemAlloc_v2, (unsigned long long *, size_t), &address, sizeof back);
    if (!strcmp(argv[2], "leak")) {
        printf("leaking\n");
        return 0;
    }
    CALL(cuModuleLoadData, (void **, const void *), &module, PTX);
    CALL(cuModuleGetFunction, (void **, void *, const char *), &function, module, "fill");
    void *params[] = {&address, &value};
    CALL(cuLaunchKernel,
         (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
         function, 1, 1, 1, 6, 1, 1, 0, stream, params, NULL);
    CALL(cuMemcpyDtoHAsync_v2, (void *, unsigned long long, size_t, void *), back, address, sizeof back, stream);
    CALL(cuStreamSynchronize, (void *), stream);
    for (int i = 0; i < 6; i++)
        if (back[i] != 42) {
            fprintf(stderr, "word %d is %u\n", i, back[i]);
            return 1;
        }
    uint64_t (*query)(const char *);
    any_fn found = find("df11_emulator_query");
    memcpy(&query, &found, sizeof query);
    if (query("launches") != 1 || query("live.streams") != 1) return 4;
    CALL(cuMemFree_v2, (unsigned long long), address);
    CALL(cuStreamDestroy_v2, (void *), stream);
    CALL(cuModuleUnload, (void *), module);
    CALL(cuCtxPopCurrent_v2, (void **), &popped);
    CALL(cuDevicePrimaryCtxRelease_v2, (int), 0);
    if (popped != context || query("leaked") != 0) return 5;
    printf("well\n");
    return 0;
}
