/*
 * The device calls of df11.h with the types of NVIDIA's own headers, without a cast. Compiled, never run: a type that does
 * not fit is a warning, and warnings are errors. NVIDIA's headers come first here, and last in engine.cc.
 */
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "df11.h"

enum { TENSORS = 2 };

/* Each is an error unless the two types are the same. */
CUdeviceptr *address_of(df11_devptr *address) { return address; }
CUstream *driver_stream_of(df11_stream *stream) { return stream; }
cudaStream_t *runtime_stream_of(df11_stream *stream) { return stream; }

/* An engine on the driver's interface: CUdeviceptr and CUstream. */
df11_status by_the_driver(df11_device *device, const df11_model *model, CUstream stream, void *pinned, df11_error *error)
{
    df11_resident *resident = NULL;
    df11_resident_info about = DF11_RESIDENT_INFO_INIT;
    df11_group_info group = DF11_GROUP_INFO_INIT;
    CUdeviceptr image = 0, output = 0, status = 0, found;
    df11_status result = df11_model_get_group_info(model, 0, &group, error);
    if (result == DF11_OK && (cuMemAlloc(&image, group.image_bytes) != CUDA_SUCCESS ||
                              cuMemAlloc(&output, 2 * group.element_count) != CUDA_SUCCESS ||
                              cuMemAlloc(&status, sizeof(uint32_t)) != CUDA_SUCCESS))
        result = DF11_OUT_OF_MEMORY;
    if (result == DF11_OK)
        result = df11_device_upload(device, model, 0, image, group.image_bytes, stream, &resident, error);
    if (result == DF11_OK)
        result = df11_device_upload_staged(device, model, 0, image, group.image_bytes, stream, pinned, 4096, &resident, error);
    if (result == DF11_OK)
        result = df11_device_bind(device, model, 0, image, group.image_bytes, &resident, error);
    if (result == DF11_OK)
        result = df11_device_bind_image(device, pinned, DF11_IMAGE_HEAD_BYTES_MAX, image, group.image_bytes, &resident, error);
    if (result == DF11_OK)
        result = df11_resident_decompress(resident, output, 2 * group.element_count, status, stream, error);
    if (result == DF11_OK)
        result = df11_resident_get_info(resident, &about, error);
    found = about.image;
    return result == DF11_OK && found != image ? DF11_INTERNAL : result;
}

/* An engine on the runtime's interface: cudaStream_t, and lists of addresses as the driver's interface has them. */
df11_status by_the_runtime(const df11_resident *resident, const CUdeviceptr destinations[TENSORS],
                           const size_t sizes[TENSORS], df11_error *error)
{
    const df11_resident *const residents[TENSORS] = {resident, resident};
    cudaStream_t stream = NULL;
    df11_status result;
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        return DF11_CUDA;
    result = df11_resident_decompress_range(resident, 0, 1, destinations[0], sizes[0], 0, stream, error);
    if (result == DF11_OK)
        result = df11_resident_decompress_tensors(resident, destinations, sizes, TENSORS, 0, stream, error);
    if (result == DF11_OK)
        result = df11_resident_decompress_batch(residents, destinations, sizes, TENSORS, 0, stream, error);
    return result;
}
