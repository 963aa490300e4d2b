/*
 * What src/cuda/driver.rs declares of the driver, beside NVIDIA's own header: numbers, the place of a count in CUdevResource,
 * and of each entry point that newer drivers have the arguments and their order. Compiled, never run or linked.
 */
#include <cuda.h>

#include <stddef.h>

_Static_assert(sizeof(CUdevResource) == 144 && offsetof(CUdevResource, sm) == 96, "CUdevResource");
_Static_assert(offsetof(CUdevSmResource, smCount) == 0 && sizeof(((CUdevSmResource *)0)->smCount) == 4, "smCount");
_Static_assert(CU_DEV_RESOURCE_TYPE_SM == 1, "CUdevResourceType");
_Static_assert(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT == 16 && CU_DEVICE_ATTRIBUTE_INTEGRATED == 18 &&
                   CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == 75 &&
                   CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == 76 &&
                   CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN == 97,
               "CUdevice_attribute");
_Static_assert(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES == 3 && CU_FUNC_ATTRIBUTE_NUM_REGS == 4 &&
                   CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8 &&
                   CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT == 9,
               "CUfunction_attribute");
_Static_assert(CUDA_ERROR_INVALID_IMAGE == 200 && CUDA_ERROR_NO_BINARY_FOR_GPU == 209 &&
                   CUDA_ERROR_INVALID_PTX == 218 && CUDA_ERROR_JIT_COMPILER_NOT_FOUND == 221 &&
                   CUDA_ERROR_UNSUPPORTED_PTX_VERSION == 222 && CUDA_ERROR_JIT_COMPILATION_DISABLED == 223 &&
                   CUDA_ERROR_INVALID_SOURCE == 300 && CUDA_ERROR_NOT_FOUND == 500 &&
                   CUDA_ERROR_STREAM_DETACHED == 917,
               "CUresult");
_Static_assert(CU_STREAM_CAPTURE_MODE_RELAXED == 2 && CU_EVENT_DISABLE_TIMING == 2, "modes and flags");
/* Enumerations are passed as the numbers that driver.rs passes. */
_Static_assert(sizeof(CUdevice_attribute) == 4 && sizeof(CUfunction_attribute) == 4 && sizeof(CUresult) == 4 &&
                   sizeof(CUdevResourceType) == 4 && sizeof(CUjit_option) == 4 && sizeof(CUlibraryOption) == 4,
               "enumerations");

/* The table of functions, each an error unless the header's has this type. A kernel is passed where functions are. */
_Static_assert(sizeof(CUkernel) == sizeof(CUfunction), "CUkernel");
CUresult (*const load_data)(CUlibrary *, const void *, CUjit_option *, void **, unsigned int, CUlibraryOption *, void **,
                            unsigned int) = cuLibraryLoadData;
CUresult (*const kernel)(CUkernel *, CUlibrary, const char *) = cuLibraryGetKernel;
CUresult (*const kernel_function)(CUfunction *, CUkernel) = cuKernelGetFunction;
CUresult (*const kernel_set_attribute)(CUfunction_attribute, int, CUkernel, CUdevice) = cuKernelSetAttribute;
CUresult (*const stream_contexts)(CUstream, CUcontext *, CUgreenCtx *) = cuStreamGetCtx_v2;
CUresult (*const context_resource)(CUcontext, CUdevResource *, CUdevResourceType) = cuCtxGetDevResource;
CUresult (*const green_resource)(CUgreenCtx, CUdevResource *, CUdevResourceType) = cuGreenCtxGetDevResource;
CUresult (*const green_id)(CUgreenCtx, unsigned long long *) = cuGreenCtxGetId;
