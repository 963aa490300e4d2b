// How an inference engine uses libdf11: the compressed layers stay on the device, two slots hold decoded ones, and layer
// l + 1 is decoded into one slot on a stream of its own while layer l computes from the other. The whole pass is captured
// once and replayed, as engines do.
//
//     engine MODEL
//
// The engine owns every byte of device memory, every stream and every event; libdf11 puts launches on the stream that it
// is given, and nothing else. What stands for computing here is a copy to the host, where each layer is compared with the
// CPU's decoding. Calls of CUDA's runtime; decompress.c shows the driver's.
//
//     c++ -std=c++17 -O2 -o engine examples/engine.cc -Iinclude -Ltarget/release -ldf11 -ldl -Wl,-rpath,$PWD/target/release
//
// With a CUDA toolkit, add -I/usr/local/cuda/include -L/usr/local/cuda/lib64 -lcudart.
#include "df11.h"
#include "runtime.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

// A status becomes an exception with the library's own sentence.
struct Error : df11_error {
    void check(df11_status status) const {
        if (status != DF11_OK) throw std::runtime_error(message);
    }
};

void cuda(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

template <auto Free> struct Deleter {
    template <typename T> void operator()(T *handle) const { Free(handle); }
};
using Model = std::unique_ptr<df11_model, Deleter<df11_model_free>>;
using Device = std::unique_ptr<df11_device, Deleter<df11_device_free>>;
using Resident = std::unique_ptr<df11_resident, Deleter<df11_resident_free>>;

// Device memory of the engine's. A real engine takes it from its pool.
struct Memory {
    void *address = nullptr;
    explicit Memory(size_t bytes) { cuda(cudaMalloc(&address, bytes)); }
    Memory(Memory &&other) noexcept : address(std::exchange(other.address, nullptr)) {}
    ~Memory() { cudaFree(address); }
    df11_devptr device() const { return reinterpret_cast<uintptr_t>(address); }
};

struct Layer {
    df11_group_info info = DF11_GROUP_INFO_INIT;
    Memory image;
    Resident resident;
    std::vector<uint16_t> on_host;  // as the CPU decodes it
};

// A slot for a decoded layer: `decoded` says that it may be read, `done` that it may be overwritten.
struct Slot {
    Memory memory;
    cudaEvent_t decoded{}, done{};
    explicit Slot(size_t bytes) : memory(bytes) {
        cuda(cudaEventCreateWithFlags(&decoded, cudaEventDisableTiming));
        cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    }
    Slot(Slot &&other) noexcept
        : memory(std::move(other.memory)), decoded(std::exchange(other.decoded, {})), done(std::exchange(other.done, {})) {}
    ~Slot() {
        if (decoded) cudaEventDestroy(decoded);
        if (done) cudaEventDestroy(done);
    }
};

class Engine {
  public:
    Engine(const df11_model *model, int ordinal) {
        Error e;
        df11_device *device = nullptr;
        // Attaching loads every kernel, so that no later call has to.
        e.check(df11_device_open(ordinal, nullptr, &device, &e));
        device_.reset(device);
        cuda(cudaStreamCreateWithFlags(&decode_, cudaStreamNonBlocking));
        cuda(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking));
        size_t largest = 0, all = 0;
        for (uint64_t group = 0; group < df11_model_group_count(model); group++) {
            df11_group_info info = DF11_GROUP_INFO_INIT;
            e.check(df11_model_group_info(model, group, &info, &e));
            Layer layer{info, Memory(info.image_bytes), nullptr, std::vector<uint16_t>(info.element_count)};
            df11_resident *resident = nullptr;
            e.check(df11_upload(device, model, group, layer.image.device(), info.image_bytes, decode_, &resident, &e));
            layer.resident.reset(resident);
            e.check(df11_decompress_host(model, group, 0, info.element_count, layer.on_host.data(), 2 * info.element_count, 0, &e));
            largest = std::max(largest, size_t(2 * info.element_count));
            offsets_.push_back(all);
            all += 2 * info.element_count;
            layers_.push_back(std::move(layer));
        }
        for (int slot = 0; slot < 2; slot++) slots_.emplace_back(largest);
        status_ = std::make_unique<Memory>(sizeof(uint32_t));
        // The kernels only ever raise the status: cleared once, looked at when it suits.
        cuda(cudaMemsetAsync(status_->address, 0, sizeof(uint32_t), decode_));
        cuda(cudaMallocHost(reinterpret_cast<void **>(&output_), all + sizeof(uint32_t)));
        all_ = all;
        cuda(cudaStreamSynchronize(decode_));
    }

    ~Engine() {
        if (graph_) cudaGraphExecDestroy(graph_);
        cudaFreeHost(output_);
        cudaStreamDestroy(compute_);
        cudaStreamDestroy(decode_);
    }

    // One forward pass, launched into the two streams; begins and ends on the compute stream.
    void pass() {
        Error e;
        cuda(cudaEventRecord(slots_[0].done, compute_));
        cuda(cudaEventRecord(slots_[1].done, compute_));
        for (size_t l = 0; l < layers_.size(); l++) {
            Slot &slot = slots_[l % 2];
            const Layer &layer = layers_[l];
            size_t bytes = 2 * layer.info.element_count;
            cuda(cudaStreamWaitEvent(decode_, slot.done, 0));
            e.check(df11_decompress(layer.resident.get(), slot.memory.device(), bytes, status_->device(), decode_, &e));
            cuda(cudaEventRecord(slot.decoded, decode_));
            cuda(cudaStreamWaitEvent(compute_, slot.decoded, 0));
            cuda(cudaMemcpyAsync(output_ + offsets_[l], slot.memory.address, bytes, cudaMemcpyDeviceToHost, compute_));
            cuda(cudaEventRecord(slot.done, compute_));
        }
        cuda(cudaMemcpyAsync(output_ + all_, status_->address, sizeof(uint32_t), cudaMemcpyDeviceToHost, compute_));
    }

    // The same pass as a graph: decoding is launches only, so it may be captured like any kernel of the engine's.
    void capture() {
        cudaGraph_t graph{};
        cuda(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal));
        pass();
        cuda(cudaStreamEndCapture(compute_, &graph));
        cuda(cudaGraphInstantiateWithFlags(&graph_, graph, 0));
        cuda(cudaGraphDestroy(graph));
    }

    void replay() { cuda(cudaGraphLaunch(graph_, compute_)); }

    // Waits for the pass and counts the layers that came out as the CPU decodes them.
    size_t right() {
        cuda(cudaStreamSynchronize(compute_));
        uint32_t status;
        std::memcpy(&status, output_ + all_, sizeof(status));
        if (status != DF11_OK) throw std::runtime_error(std::string("the device reports ") + df11_status_name(status));
        size_t count = 0;
        for (size_t l = 0; l < layers_.size(); l++)
            count += std::memcmp(output_ + offsets_[l], layers_[l].on_host.data(), 2 * layers_[l].info.element_count) == 0;
        std::memset(output_, 0, all_);
        return count;
    }

    size_t layers() const { return layers_.size(); }

  private:
    Device device_;
    cudaStream_t decode_{}, compute_{};
    std::vector<Layer> layers_;
    std::vector<Slot> slots_;
    std::unique_ptr<Memory> status_;
    std::vector<size_t> offsets_;
    unsigned char *output_ = nullptr;
    size_t all_ = 0;
    cudaGraphExec_t graph_{};
};

int run(const char *path) {
    Error e;
    df11_model *opened = nullptr;
    e.check(df11_model_open(path, nullptr, &opened, &e));
    Model model(opened);
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::printf("missing: a CUDA device; decompress shows decoding on the CPU\n");
        return 0;
    }
    cuda(cudaSetDevice(0));
    int result = 1;
    {
        Engine engine(model.get(), 0);
        engine.pass();
        size_t eager = engine.right(), replayed = 0;
        engine.capture();
        for (int i = 0; i < 3; i++) {
            engine.replay();
            replayed += engine.right();
        }
        std::printf("%zu of %zu layers right in an eager pass, %zu of %zu in three replays of its graph\n", eager,
                    engine.layers(), replayed, 3 * engine.layers());
        result = eager == engine.layers() && replayed == 3 * engine.layers() ? 0 : 1;
    }
#ifndef DF11_EXAMPLE_HAS_RUNTIME
    runtime_end(0);
#endif
    return result;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: engine MODEL\n");
        return 2;
    }
    try {
        return run(argv[1]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "engine: %s\n", error.what());
        return 1;
    }
}
