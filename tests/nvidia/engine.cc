// The device calls of df11.hpp with the types of NVIDIA's own headers, without a cast. Compiled, never run. NVIDIA's
// headers come last here, and first in engine.c.
#include "df11.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <type_traits>
#include <vector>

static_assert(std::is_same_v<df11_devptr, CUdeviceptr>);
static_assert(std::is_same_v<df11_stream, CUstream> && std::is_same_v<df11_stream, cudaStream_t>);

// An engine on the driver's interface: CUdeviceptr and CUstream.
df11::Resident by_the_driver(const df11::Device &device, const df11::Model &model, CUstream stream) {
    const df11::Group group = model.groups()[0];
    CUdeviceptr image = 0, output = 0, status = 0;
    cuMemAlloc(&image, group.image_bytes());
    cuMemAlloc(&output, group.data_bytes());
    cuMemAlloc(&status, sizeof(std::uint32_t));
    df11::Resident resident = device.upload(model, 0, image, group.image_bytes(), stream);
    resident.decompress(output, group.data_bytes(), status, stream);
    const CUdeviceptr found = resident.get_info().image;
    return device.bind(model, 0, found, group.image_bytes());
}

// An engine on the runtime's interface: cudaStream_t and pointers. A pointer becomes an address by device_address().
void by_the_runtime(const df11::Resident &resident, std::size_t dst_bytes) {
    void *memory = nullptr;
    cudaStream_t stream = nullptr;
    cudaMalloc(&memory, dst_bytes);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    const CUdeviceptr dst = df11::device_address(memory);
    const std::vector<CUdeviceptr> destinations{dst, dst};
    const std::vector<std::size_t> sizes{dst_bytes, dst_bytes};
    const std::vector<const df11_resident *> residents{resident.get(), resident.get()};
    resident.decompress(df11::device_address(memory), dst_bytes, 0, stream);
    resident.decompress_range(0, 1, dst, dst_bytes, 0, stream);
    resident.decompress_tensors(destinations, sizes, 0, stream);
    df11::Resident::decompress_batch(residents, destinations, sizes, 0, stream);
}
