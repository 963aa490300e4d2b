// Shows how an engine on the CUDA runtime uses libdf11. The compressed layers stay on the device, and two slots hold
// decoded layers: while layer l computes from one slot, layer l + 1 is decoded into the other on a stream of its own. The
// whole pass is captured in a graph once and then replayed.
//
//     slots MODEL
//
// The engine owns all device memory, streams and events. libdf11 only puts launches on the stream that it is given. In
// this example a copy to the host stands for the computation, and each layer is compared with the CPU's decoding. The
// folder engine has an engine that computes, on the driver API.
//
//     c++ -std=c++17 -O2 -o slots examples/slots.cc -Iinclude -Ibindings/cpp -Ltarget/release -ldf11 -ldl
//         -Wl,-rpath,$PWD/target/release
//
// With a CUDA toolkit, add -I/usr/local/cuda/include -L/usr/local/cuda/lib64 -lcudart.
#include "df11.hpp"
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

void cuda(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// Device memory that the engine owns. A real engine takes it from its pool.
struct Memory {
    void *address = nullptr;
    explicit Memory(size_t bytes) { cuda(cudaMalloc(&address, bytes)); }
    Memory(Memory &&other) noexcept : address(std::exchange(other.address, nullptr)) {}
    ~Memory() { cudaFree(address); }
    df11_devptr device() const { return df11::device_address(address); }
};

struct Layer {
    std::size_t bytes;  // decoded
    Memory image;
    df11::Resident resident;
    std::vector<uint16_t> on_host;  // decoded by the CPU, for the comparison
};

// A slot for a decoded layer. After the event `decoded` it may be read, after `done` it may be overwritten.
struct Slot {
    Memory memory;
    cudaEvent_t decoded{}, done{};
    explicit Slot(size_t bytes) : memory(bytes) {
        cuda(cudaEventCreateWithFlags(&decoded, cudaEventDisableTiming));
        cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    }
    Slot(Slot &&other) noexcept
        : memory(std::move(other.memory)),
          decoded(std::exchange(other.decoded, {})),
          done(std::exchange(other.done, {})) {}
    ~Slot() {
        if (decoded) cudaEventDestroy(decoded);
        if (done) cudaEventDestroy(done);
    }
};

class Engine {
  public:
    // Opening the device loads every kernel, so that no later call has to.
    Engine(const df11::Model &model, int ordinal) : device_(df11::Device::open(ordinal)) {
        cuda(cudaStreamCreateWithFlags(&decode_, cudaStreamNonBlocking));
        cuda(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking));
        size_t largest = 0, all = 0;
        for (const df11::Group &group : model.groups()) {
            Layer layer{group.data_bytes(),
                        Memory(group.image_bytes()),
                        {},
                        std::vector<uint16_t>(group.element_count())};
            layer.resident = device_.upload(model, group.index(), layer.image.device(), group.image_bytes(), decode_);
            model.decompress(group.index(), layer.on_host);
            largest = std::max(largest, layer.bytes);
            offsets_.push_back(all);
            all += layer.bytes;
            layers_.push_back(std::move(layer));
        }
        for (int slot = 0; slot < 2; slot++) slots_.emplace_back(largest);
        status_ = std::make_unique<Memory>(sizeof(uint32_t));
        // Kernels write the status only after an error. It is cleared once, and may be read at any time.
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

    // Launches one forward pass into the two streams. It begins and ends on the compute stream.
    void pass() {
        cuda(cudaEventRecord(slots_[0].done, compute_));
        cuda(cudaEventRecord(slots_[1].done, compute_));
        for (size_t l = 0; l < layers_.size(); l++) {
            Slot &slot = slots_[l % 2];
            const Layer &layer = layers_[l];
            cuda(cudaStreamWaitEvent(decode_, slot.done, 0));
            layer.resident.decompress(slot.memory.device(), layer.bytes, status_->device(), decode_);
            cuda(cudaEventRecord(slot.decoded, decode_));
            cuda(cudaStreamWaitEvent(compute_, slot.decoded, 0));
            cuda(cudaMemcpyAsync(output_ + offsets_[l], slot.memory.address, layer.bytes, cudaMemcpyDeviceToHost,
                                 compute_));
            cuda(cudaEventRecord(slot.done, compute_));
        }
        cuda(cudaMemcpyAsync(output_ + all_, status_->address, sizeof(uint32_t), cudaMemcpyDeviceToHost, compute_));
    }

    // Captures the same pass as a graph. Decoding consists of launches only, so it can be captured like any kernel.
    void capture() {
        cudaGraph_t graph{};
        cuda(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal));
        pass();
        cuda(cudaStreamEndCapture(compute_, &graph));
        cuda(cudaGraphInstantiateWithFlags(&graph_, graph, 0));
        cuda(cudaGraphDestroy(graph));
    }

    void replay() { cuda(cudaGraphLaunch(graph_, compute_)); }

    // Waits for the pass, and counts the layers that equal the CPU's decoding.
    size_t right() {
        cuda(cudaStreamSynchronize(compute_));
        uint32_t status;
        std::memcpy(&status, output_ + all_, sizeof(status));
        if (status != DF11_OK) throw std::runtime_error(std::string("the device reports ") + df11_status_name(status));
        size_t count = 0;
        for (size_t l = 0; l < layers_.size(); l++)
            count += std::memcmp(output_ + offsets_[l], layers_[l].on_host.data(), layers_[l].bytes) == 0;
        std::memset(output_, 0, all_);
        return count;
    }

    size_t layers() const { return layers_.size(); }

  private:
    df11::Device device_;
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
    const df11::Model model = df11::Model::open(path);
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::printf("missing: a CUDA device; decompress shows decoding on the CPU\n");
        return 0;
    }
    cuda(cudaSetDevice(0));
    int result = 1;
    {
        Engine engine(model, 0);
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
        std::fprintf(stderr, "usage: slots MODEL\n");
        return 2;
    }
    try {
        return run(argv[1]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "slots: %s\n", error.what());
        return 1;
    }
}
