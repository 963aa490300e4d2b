// Tests the calls of df11.hpp that need a CUDA device, with the driver that the environment variable DF11_LIBCUDA
// names: every upload, bind and decode, throwing and not, compared with the CPU's decoding.
//
//     device MODEL        a folder with a DF11 model
#include "df11.hpp"

#include "check.h"
#include "driver.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#if __cplusplus >= 202002L
#include <span>
#endif

// Counts every allocation of C++ code in this program.
static std::atomic<std::size_t> allocations{0};

void *operator new(std::size_t bytes) {
    allocations++;
    if (void *memory = std::malloc(bytes != 0 ? bytes : 1)) return memory;
    throw std::bad_alloc();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

namespace {

template <typename Call> df11_status failure(Call call) {
    try {
        call();
    } catch (const df11::Error &error) {
        CHECK(error.status() != DF11_OK && error.what()[0] != 0);
        return error.status();
    }
    return DF11_OK;
}

/// Device memory that the engine owns.
struct Memory {
    CUdeviceptr at = 0;
    std::size_t bytes;
    explicit Memory(std::size_t n) : bytes(n) { CHECK(cuMemAlloc(&at, n) == 0); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    ~Memory() { CHECK(cuMemFree(at) == 0); }
};

/// Returns how many blocks the last launch had, from the emulated driver; 0 from any other.
std::uint64_t last_blocks() {
    void *library = dlopen(std::getenv("DF11_LIBCUDA"), RTLD_NOW | RTLD_LOCAL);
    const auto query = reinterpret_cast<std::uint64_t (*)(const char *)>(dlsym(library, "df11_emulator_query"));
    return query != nullptr ? query("last.blocks") : 0;
}

struct Engine {
    CUstream stream = nullptr;

    void wait() const { CHECK(cuStreamSynchronize(stream) == 0); }
    void clear(const Memory &memory) const { CHECK(cuMemsetD8Async(memory.at, 0, memory.bytes, stream) == 0); }
    /// Waits for the stream, and returns whether the weights are in device memory.
    bool has(CUdeviceptr at, const std::vector<std::uint16_t> &want) const {
        std::vector<std::uint16_t> got(want.size());
        wait();
        CHECK(cuMemcpyDtoH(got.data(), at, 2 * got.size()) == 0);
        return got == want;
    }
};

/// Decodes a resident in every way.
void decodes(const Engine &engine, const df11::Resident &resident, const std::vector<std::uint16_t> &want) {
    const std::size_t bytes = 2 * want.size();
    const Memory dst(bytes + 256), status(4);
    engine.clear(dst);
    engine.clear(status);
    resident.decompress(dst.at, bytes, status.at, engine.stream);
    CHECK(engine.has(dst.at, want));
    engine.clear(dst);
    CHECK(resident.try_decompress(dst.at, bytes, 0, engine.stream) == DF11_OK && engine.has(dst.at, want));

    const std::vector<std::uint16_t> tail(want.begin() + 1, want.end());
    const std::uint64_t first = resident.get_info().first_element;
    engine.clear(dst);
    resident.decompress_range(first + 1, tail.size(), dst.at, 2 * tail.size(), status.at, engine.stream);
    CHECK(engine.has(dst.at, tail));
    engine.clear(dst);
    CHECK(resident.try_decompress_range(first + 1, tail.size(), dst.at, bytes, 0, engine.stream) == DF11_OK);
    CHECK(engine.has(dst.at, tail));

    // Each tensor to its own destination: here one after the other, shifted by two bytes.
    const df11_resident_info info = resident.get_info();
    const df11::Span<const std::uint64_t> ends(info.tensor_ends, static_cast<std::size_t>(info.tensor_count));
    std::vector<df11_devptr> dsts;
    std::vector<std::size_t> sizes;
    std::uint64_t start = first;
    for (std::uint64_t end : ends) {
        dsts.push_back(dst.at + 2 + 2 * (start - first));
        sizes.push_back(static_cast<std::size_t>(2 * (end - start)));
        start = end;
    }
    CHECK(start - first == want.size() && info.element_count == want.size());
    engine.clear(dst);
    resident.decompress_tensors(dsts, sizes, status.at, engine.stream);
    CHECK(engine.has(dst.at + 2, want));
    engine.clear(dst);
#if __cplusplus >= 202002L
    CHECK(resident.try_decompress_tensors(std::span(dsts), std::span(sizes), 0, engine.stream) == DF11_OK);
#else
    CHECK(resident.try_decompress_tensors(dsts, sizes, 0, engine.stream) == DF11_OK);
#endif
    CHECK(engine.has(dst.at + 2, want));

    const Memory second(bytes);
    const df11_resident *const residents[] = {resident.get(), resident.get()};
    const df11_devptr both[] = {dst.at, second.at};
    const std::size_t room[] = {bytes, bytes};
    engine.clear(dst);
    engine.clear(second);
    df11::Resident::decompress_batch(residents, both, room, 0, engine.stream);
    CHECK(engine.has(dst.at, want) && engine.has(second.at, want));
    CHECK(df11::Resident::try_decompress_batch(residents, both, room, 0, engine.stream) == DF11_OK);
    CHECK(df11::Resident::try_decompress_batch({}, {}, {}, 0, engine.stream) == DF11_OK);

    // None of these calls allocates.
    const std::size_t before = allocations;
    resident.decompress(dst.at, bytes, status.at, engine.stream);
    resident.decompress_range(first + 1, tail.size(), dst.at, bytes, status.at, engine.stream);
    resident.decompress_tensors(dsts, sizes, status.at, engine.stream);
    df11::Resident::decompress_batch(residents, both, room, 0, engine.stream);
    CHECK(resident.get_info().element_count == want.size());
    CHECK(allocations == before);

    std::uint32_t word = 7;
    engine.wait();
    CHECK(cuMemcpyDtoH(&word, status.at, 4) == 0 && word == 0);

    // Mistakes, thrown and returned. Lists of different lengths are found before the C call.
    df11_error error;
    CHECK(failure([&] { resident.decompress(dst.at, bytes - 1, 0, engine.stream); }) == DF11_BUFFER_TOO_SMALL);
    CHECK(resident.try_decompress(dst.at + 1, bytes, 0, engine.stream, &error) == DF11_MISALIGNED);
    CHECK(error.status == DF11_MISALIGNED && error.message[0] != 0);
    CHECK(failure([&] { resident.decompress(dst.at, bytes, 0, nullptr); }) == DF11_DEFAULT_STREAM);
    CHECK(failure([&] { resident.decompress_range(first + 1, want.size(), dst.at, bytes, 0, engine.stream); }) ==
          DF11_INVALID_ARGUMENT);
    const df11::Span<const std::size_t> none;
    CHECK(resident.try_decompress_tensors(dsts, none, 0, engine.stream, &error) == DF11_INVALID_ARGUMENT);
    CHECK(error.status == DF11_INVALID_ARGUMENT &&
          std::string(error.message).find("different lengths") != std::string::npos);
    CHECK(resident.try_decompress_tensors(dsts, none, 0, engine.stream) == DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { df11::Resident::decompress_batch(residents, both, none, 0, engine.stream); }) == DF11_INVALID_ARGUMENT);
    const df11::Resident empty;
    CHECK(empty.try_decompress(dst.at, bytes, 0, engine.stream) == DF11_INVALID_ARGUMENT);
    CHECK(empty.get_info().element_count == 0 && empty.get_info().tensor_ends == nullptr);
}

void group(const Engine &engine, const df11::Device &device, const df11::Model &model, const df11::Group &group) {
    std::vector<std::uint16_t> want(group.element_count());
    const std::size_t before = allocations;
    std::uint64_t weights = 0;
    for (const df11::Tensor &tensor : group.tensors()) weights += tensor.data_bytes() / 2;
    model.decompress(group.index(), want);
    CHECK(weights == want.size() && model.find_group(group.name().data())->index() == group.index());
    CHECK(allocations == before);
    const auto bytes = static_cast<std::size_t>(group.image_bytes());
    const std::uint64_t g = group.index();
    std::vector<unsigned char> host(bytes);
    model.write_image(g, host);
    void *pinned = nullptr;
    CHECK(cuMemHostAlloc(&pinned, 1 << 16, 0) == 0);
    {
        const Memory image(bytes), staged(bytes), copied(bytes);
        const df11::Resident one = device.upload(model, g, image.at, bytes, engine.stream);
        CHECK(one.get_info().image == image.at && one.get_info().image_bytes == bytes);
        decodes(engine, one, want);
        decodes(engine, device.upload_staged(model, g, staged.at, bytes, engine.stream, {pinned, 1 << 16}), want);
        CHECK(cuMemcpyHtoDAsync(copied.at, host.data(), bytes, engine.stream) == 0);
        decodes(engine, device.bind(model, g, copied.at, bytes), want);
        df11::Resident last = device.bind_image(host, copied.at, bytes);
        decodes(engine, last, want);
        const df11_image_info half = model.get_image_range_info(g, want.size() / 2, want.size() - want.size() / 2);
        const Memory part(half.image_bytes);
        const df11::Resident rest = device.upload_range(model, g, half.first_element, half.element_count, part.at,
                                                        half.image_bytes, engine.stream);
        CHECK(rest.get_info().first_element == want.size() / 2 && rest.get_info().slices == nullptr);
        decodes(engine, rest, {want.begin() + static_cast<std::ptrdiff_t>(want.size() / 2), want.end()});
        // A failed call empties its output.
        df11_error error;
        CHECK(device.try_bind(last, model, g, copied.at + 8, bytes, &error) == DF11_MISALIGNED && !last);
        CHECK(device.try_upload(last, model, 999, image.at, bytes, engine.stream) == DF11_NOT_FOUND && !last);
        CHECK(device.try_upload_staged(last, model, g, image.at, bytes, engine.stream, {pinned, 1}) ==
              DF11_BUFFER_TOO_SMALL);
        CHECK(device.try_bind_image(last, {host.data(), 16}, image.at, bytes) == DF11_CORRUPT && !last);
        CHECK(device.try_upload(last, model, g, image.at, bytes, engine.stream) == DF11_OK && last);
        CHECK(failure([&] { (void)device.upload(model, g, image.at, bytes - 1, engine.stream); }) ==
              DF11_BUFFER_TOO_SMALL);
        engine.wait();
    }
    CHECK(cuMemFreeHost(pinned) == 0);
}

}  // namespace

int main(int argc, char **argv) {
    CHECK(argc == 2 && std::getenv("DF11_LIBCUDA") != nullptr && cuda_load(nullptr));
    const df11::Model model = df11::Model::open(argv[1]);
    df11::DeviceOptions nowhere;
    nowhere.libcuda = "/nowhere/libcuda.so.1";
    CHECK(failure([&] { (void)df11::Device::open(0, nowhere); }) == DF11_NO_DRIVER);
    CHECK(failure([&] { (void)df11::Device::open(-1); }) == DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { (void)df11::Device::open_current(); }) == DF11_INVALID_ARGUMENT);

    CUdevice number;
    CUcontext context;
    Engine engine;
    CHECK(cuDeviceGet(&number, 0) == 0 && cuDevicePrimaryCtxRetain(&context, number) == 0 &&
          cuCtxSetCurrent(context) == 0);
    CHECK(cuStreamCreate(&engine.stream, CU_STREAM_NON_BLOCKING) == 0);
    {
        df11::Device device = df11::Device::open_current();
        CHECK(std::strcmp(device.get_info().libcuda, std::getenv("DF11_LIBCUDA")) == 0);
        device = df11::Device::open(0);
        const df11_device_info info = device.get_info();
        CHECK(info.ordinal == 0 && info.name != nullptr && info.kernels != nullptr && info.capability_major >= 7);
        for (const df11::Group &g : model.groups()) group(engine, device, model, g);
        // A failed call empties its output.
        CHECK(df11::Device::try_open(device, -1) == DF11_INVALID_ARGUMENT && !device);
        CHECK(df11::Device::try_open_current(device) == DF11_OK && device);
        CHECK(df11::Device::try_open_current(device, nowhere) == DF11_NO_DRIVER && !device);
        // A device that was opened with this flag accepts the NULL stream. A resident outlives its device.
        df11::DeviceOptions options;
        options.flags = DF11_DEVICE_ALLOW_DEFAULT_STREAM | DF11_DEVICE_EARLY_START;
        device = df11::Device::open(0, options);
        const df11::Group first = model.groups()[0];
        std::vector<std::uint16_t> want(first.element_count());
        model.decompress(0, want);
        const Memory image(static_cast<std::size_t>(first.image_bytes())), dst(2 * want.size());
        const df11::Resident resident = device.upload(model, 0, image.at, image.bytes, nullptr);
        // The image is complete before the decode, which may start early.
        CHECK(cuStreamSynchronize(nullptr) == 0);
        device = df11::Device();
        CHECK(!device && device.get_info().name == nullptr);
        resident.decompress(dst.at, dst.bytes, 0, nullptr);
        CHECK(cuStreamSynchronize(nullptr) == 0 && engine.has(dst.at, want));
        options.flags = 0;
        // A limit on multiprocessors: three blocks fit one, and four multiprocessors are there.
        std::uint64_t most = 0, most_limited = 0;
        for (options.multiprocessors = 0; options.multiprocessors < 2; options.multiprocessors++) {
            device = df11::Device::open(0, options);
            for (const df11::Group &g : model.groups()) {
                const Memory at(static_cast<std::size_t>(g.image_bytes())), to(2 * g.element_count());
                device.upload(model, g.index(), at.at, at.bytes, engine.stream)
                    .decompress(to.at, to.bytes, 0, engine.stream);
                engine.wait();
                std::uint64_t &seen = options.multiprocessors == 0 ? most : most_limited;
                seen = std::max(seen, last_blocks());
            }
        }
        CHECK(most <= 12 && most_limited <= 3 && (most_limited < most || most <= 3));
    }
    CHECK(cuStreamDestroy(engine.stream) == 0 && cuCtxSetCurrent(nullptr) == 0 &&
          cuDevicePrimaryCtxRelease(number) == 0);
    std::printf("%u checks passed\n", checks_passed);
}
