// Shows how an engine runs a model that is larger than its device's memory. The compressed weights are kept in pinned
// host memory and streamed to the device group by group, while earlier groups are decoded and used. About 10.8 bits for
// each weight cross the bus instead of 16, and the device holds at most two compressed and two decoded groups.
//
//     offload MODEL [--rounds N]
//
// Three things happen at the same time, each in its own stream: the copy of group i + 1, the decode of group i, and the
// engine's work with group i - 1. There are two slots for images and two for decoded groups, and four waits keep the
// order:
//
//     copy stream      copy i      waits until the slot's previous image has been decoded           (`emptied`)
//     decode stream    decode i    waits until its image has arrived                                (`arrived`)
//                                  and until the slot's previous weights have been used             (`used`)
//     compute stream   use i       waits until it is decoded                                        (`decoded`)
//
// The engine owns all streams, events and memory. libdf11 writes the images once, to memory of the engine, binds each
// to its slot on the device (df11_device_bind_image(), which makes no CUDA call), and puts launches into the decode
// stream. The library has no helper for this: it would only wrap the four waits on streams and events that the engine
// owns, and that must be ordered with work that only the engine knows.
//
// In this example a copy to the host stands for the engine's work, and each group is compared with the CPU's decoding.
// Then the program measures the streaming without that copy, and compares it with copying the weights uncompressed.
//
//     c++ -std=c++17 -O2 -o offload examples/offload.cc -Iinclude -Ibindings/cpp -Ltarget/release -ldf11 -ldl
//         -Wl,-rpath,$PWD/target/release
#include "df11.hpp"
#include "driver.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t SLOTS = 2;
// The bytes that are decoded and then compared with the CPU's decoding at a time, or one group if it is larger.
constexpr std::size_t CHECKED_BYTES = std::size_t{1} << 30;

// Device memory that the engine owns.
struct DeviceMemory {
    CUdeviceptr at = 0;
    explicit DeviceMemory(std::size_t bytes) { CUDA(cuMemAlloc(&at, bytes)); }
    DeviceMemory(const DeviceMemory &) = delete;
    DeviceMemory &operator=(const DeviceMemory &) = delete;
    ~DeviceMemory() { CUDA(cuMemFree(at)); }
};

// Pinned host memory that the engine owns. Only copies from pinned memory run concurrently with other work.
struct PinnedMemory {
    unsigned char *at = nullptr;
    explicit PinnedMemory(std::size_t bytes) {
        void *memory = nullptr;
        CUDA(cuMemHostAlloc(&memory, bytes, 0));
        at = static_cast<unsigned char *>(memory);
    }
    PinnedMemory(const PinnedMemory &) = delete;
    PinnedMemory &operator=(const PinnedMemory &) = delete;
    ~PinnedMemory() { CUDA(cuMemFreeHost(at)); }
};

struct Stream {
    CUstream handle = nullptr;
    Stream() { CUDA(cuStreamCreate(&handle, CU_STREAM_NON_BLOCKING)); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    ~Stream() { CUDA(cuStreamDestroy(handle)); }
    void synchronise() const { CUDA(cuStreamSynchronize(handle)); }
};

// A point in a stream. Waiting for an event that was never recorded returns at once.
struct Event {
    CUevent handle = nullptr;
    Event() { CUDA(cuEventCreate(&handle, CU_EVENT_DISABLE_TIMING)); }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;
    ~Event() { CUDA(cuEventDestroy(handle)); }
    void record(const Stream &stream) const { CUDA(cuEventRecord(handle, stream.handle)); }
};

void wait(const Stream &stream, const Event &event) { CUDA(cuStreamWaitEvent(stream.handle, event.handle, 0)); }

// A slot for a compressed group on the device. After the event `arrived` it may be decoded, after `emptied` it may be
// overwritten.
struct ImageSlot {
    DeviceMemory memory;
    Event arrived, emptied;
    explicit ImageSlot(std::size_t bytes) : memory(bytes) {}
};

// A slot for a decoded group. After the event `decoded` it may be used, after `used` it may be overwritten.
struct WeightSlot {
    DeviceMemory memory;
    Event decoded, used;
    explicit WeightSlot(std::size_t bytes) : memory(bytes) {}
};

struct Layer {
    std::size_t image_offset, image_bytes;  // in the pinned memory
    std::size_t bytes;                      // decoded
    df11::Resident resident;                // bound to the slot that its image will be copied to
};

// The largest image and decoded group, and the sums of all, in bytes.
struct Sizes {
    std::size_t image = 0, images = 0, decoded = 0, all_decoded = 0;
    explicit Sizes(const df11::Model &model) {
        for (const df11::Group &group : model.groups()) {
            image = std::max(image, static_cast<std::size_t>(group.image_bytes()));
            images += static_cast<std::size_t>(group.image_bytes());
            decoded = std::max(decoded, static_cast<std::size_t>(group.data_bytes()));
            all_decoded += static_cast<std::size_t>(group.data_bytes());
        }
    }
};

class Engine {
  public:
    // Writes every image to pinned memory. Each of several threads writes its own part of an image.
    Engine(const df11::Model &model, const df11::Device &device)
        : sizes_(model),
          images_(sizes_.images),
          output_(std::max(sizes_.decoded, std::min(sizes_.all_decoded, CHECKED_BYTES))),
          image_slots_{ImageSlot(sizes_.image), ImageSlot(sizes_.image)},
          weight_slots_{WeightSlot(sizes_.decoded), WeightSlot(sizes_.decoded)},
          status_(sizeof(std::uint32_t)) {
        const std::uint32_t threads = std::max(1u, std::thread::hardware_concurrency());
        std::size_t offset = 0;
        for (const df11::Group &group : model.groups()) {
            const auto bytes = static_cast<std::size_t>(group.image_bytes());
            unsigned char *image = images_.at + offset;
            std::vector<std::thread> writers;
            std::vector<df11_error> errors(threads);
            for (std::uint32_t part = 0; part < threads; part++)
                writers.emplace_back([&, part] {
                    (void)model.try_write_image_part(group.index(), {image, bytes}, part, threads, &errors[part]);
                });
            for (std::thread &writer : writers) writer.join();
            for (const df11_error &error : errors) df11::check(error.status, error);
            const CUdeviceptr slot = image_slots_[layers_.size() % SLOTS].memory.at;
            layers_.push_back({offset, bytes, static_cast<std::size_t>(group.data_bytes()),
                               device.bind_image({image, bytes}, slot, bytes)});
            offset += bytes;
        }
        // Kernels write the status only after an error. It is cleared once, and may be read at any time.
        CUDA(cuMemsetD8Async(status_.at, 0, sizeof(std::uint32_t), decode_.handle));
        decode_.synchronise();
    }

    // Waits for the streams, so that nothing is freed while they may use it.
    ~Engine() {
        for (const Stream *stream : {&copy_, &decode_, &compute_}) cuStreamSynchronize(stream->handle);
    }
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    // Launches the streaming of groups `first` to `last`, without waiting for it. `use` puts the engine's work with a
    // group into the compute stream.
    template <typename Use> void pass(std::size_t first, std::size_t last, Use use) {
        for (std::size_t i = first; i < last; i++) {
            const Layer &layer = layers_[i];
            const ImageSlot &image = image_slots_[i % SLOTS];
            const WeightSlot &weights = weight_slots_[i % SLOTS];

            wait(copy_, image.emptied);
            CUDA(cuMemcpyHtoDAsync(image.memory.at, images_.at + layer.image_offset, layer.image_bytes, copy_.handle));
            image.arrived.record(copy_);

            wait(decode_, image.arrived);
            wait(decode_, weights.used);
            layer.resident.decompress(weights.memory.at, layer.bytes, status_.at, decode_.handle);
            image.emptied.record(decode_);
            weights.decoded.record(decode_);

            wait(compute_, weights.decoded);
            use(i, weights.memory.at);
            weights.used.record(compute_);
        }
    }

    // Streams all groups and compares every bit with the CPU's decoding. Returns the number of groups that are equal.
    std::size_t check(const df11::Model &model) {
        std::vector<unsigned char> want(sizes_.decoded);
        std::size_t right = 0;
        for (std::size_t first = 0, last = 0; first < layers_.size(); first = last) {
            // As many groups as there is space for: the more are in progress, the more errors can show.
            std::size_t bytes = 0;
            std::vector<std::size_t> offsets;
            for (; last < layers_.size() && (last == first || bytes + layers_[last].bytes <= CHECKED_BYTES); last++) {
                offsets.push_back(bytes);
                bytes += layers_[last].bytes;
            }
            std::memset(output_.at, 0, bytes);
            pass(first, last, [&](std::size_t i, CUdeviceptr weights) {
                CUDA(cuMemcpyDtoHAsync(output_.at + offsets[i - first], weights, layers_[i].bytes, compute_.handle));
            });
            finish(compute_);
            for (std::size_t i = first; i < last; i++) {
                model.decompress(i, {want.data(), layers_[i].bytes}, std::max(1u, std::thread::hardware_concurrency()));
                right += std::memcmp(output_.at + offsets[i - first], want.data(), layers_[i].bytes) == 0;
            }
        }
        return right;
    }

    // Returns the seconds in which all groups are streamed and decoded once, the best of some rounds.
    double streamed(unsigned rounds) {
        return best(rounds, compute_, [&] { pass(0, layers_.size(), [](std::size_t, CUdeviceptr) {}); });
    }

    // Returns the seconds for copying the same weights uncompressed, one copy after the other and nothing else, which
    // is the best case. All copies come from the same pinned memory, because memory for all of them would be half as
    // large again.
    double copied(unsigned rounds) {
        return best(rounds, copy_, [&] {
            for (std::size_t i = 0; i < layers_.size(); i++)
                CUDA(cuMemcpyHtoDAsync(weight_slots_[i % SLOTS].memory.at, output_.at, layers_[i].bytes, copy_.handle));
        });
    }

    std::size_t layers() const { return layers_.size(); }
    const Sizes &sizes() const { return sizes_; }

  private:
    // Waits for the stream in which the launched work ends, and throws if a kernel has found an error.
    void finish(const Stream &last) const {
        last.synchronise();
        std::uint32_t status = DF11_OK;
        CUDA(cuMemcpyDtoH(&status, status_.at, sizeof(status)));
        if (status != DF11_OK)
            throw std::runtime_error(std::string("the device reports ") +
                                     df11_status_name(static_cast<df11_status>(status)));
    }

    template <typename Launch> double best(unsigned rounds, const Stream &last, Launch launch) const {
        double least = 0;
        for (unsigned round = 0; round < rounds; round++) {
            const auto start = std::chrono::steady_clock::now();
            launch();
            finish(last);
            const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
            least = round == 0 ? taken.count() : std::min(least, taken.count());
        }
        return least;
    }

    Sizes sizes_;
    PinnedMemory images_;  // all of them, compressed
    PinnedMemory output_;  // for the comparison, and as a source of bytes to copy
    std::array<ImageSlot, SLOTS> image_slots_;
    std::array<WeightSlot, SLOTS> weight_slots_;
    DeviceMemory status_;  // a uint32_t that the kernels set if they find an error
    std::vector<Layer> layers_;
    Stream copy_, decode_, compute_;
};

int run(const char *path, unsigned rounds) {
    const df11::Model model = df11::Model::open(path);
    if (model.groups().empty()) throw std::runtime_error("the model has no compressed groups");
    int devices = 0;
    if (!cuda_load(nullptr) || cuDeviceGetCount(&devices) != 0 || devices == 0) {
        std::printf("missing: a CUDA device; decompress shows decoding on the CPU\n");
        return 77;  // skipped
    }
    CUdevice number;
    CUcontext context;
    CUDA(cuDeviceGet(&number, 0));
    CUDA(cuDevicePrimaryCtxRetain(&context, number));
    CUDA(cuCtxSetCurrent(context));
    bool good = false;
    {
        const df11::Device device = df11::Device::open(0);
        Engine engine(model, device);
        const Sizes &sizes = engine.sizes();
        std::printf("%s: %zu groups, %zu bytes in pinned memory, %zu on the device instead of %zu\n",
                    device.get_info().name, engine.layers(), sizes.images, SLOTS * (sizes.image + sizes.decoded),
                    sizes.all_decoded);
        const std::size_t right = engine.check(model);
        std::printf("%zu of %zu groups right\n", right, engine.layers());
        good = right == engine.layers();
        if (good && rounds > 0) {
            const double bytes = static_cast<double>(sizes.all_decoded) * 1e-9;
            const double streamed = engine.streamed(rounds), copied = engine.copied(rounds);
            std::printf("streamed and decoded: %.3f ms, %.2f GB/s of bf16\n", 1e3 * streamed, bytes / streamed);
            std::printf("copied as they are:   %.3f ms, %.2f GB/s of bf16: %.2f times as long\n", 1e3 * copied,
                        bytes / copied, copied / streamed);
        }
    }
    CUDA(cuDevicePrimaryCtxRelease(number));
    return good ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
    unsigned rounds = 5;
    if (argc == 4 && std::strcmp(argv[2], "--rounds") == 0) {
        rounds = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
    } else if (argc != 2) {
        std::fprintf(stderr, "usage: offload MODEL [--rounds N]\n");
        return 2;
    }
    try {
        return run(argv[1], rounds);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "offload: %s\n", error.what());
        return 1;
    }
}
