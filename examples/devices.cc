// Shows how an engine divides a model among several devices by layers. Each device has a context, streams, two slots for
// decoded layers, and the compressed images of the layers that it holds. A token walks over all of them: where the next
// layer is on another device, the activations go there by a peer copy. Then one layer moves to another device, by a peer
// copy of its image, and the token walks again.
//
//     devices MODEL [--devices N] [--sample]
//
// On each device the layers are decoded in one stream and used in another, so that a device decodes its first two layers
// before the activations arrive. Three waits keep the order:
//
//     decode stream     decode l     waits until the slot's previous layer has been used       (`used`)
//     compute stream    copy         waits until the device before has finished its layers     (`done`)
//                       use l        waits until layer l is decoded                            (`decoded`)
//
// A stream belongs to the context in which it was created. The calls of libdf11 need no current context: they make that
// of the device current, and restore the caller's. Those of the driver that allocate or launch need theirs.
//
// In this example the activations are some weights of each layer that was passed, and the layers are also copied to the
// host and compared with the CPU's decoding. With --sample only the first and last weights of each layer are brought to
// the device, decoded and compared, while memory is taken for all: so the division of a model that is larger than this
// machine can be tried on the emulated driver (tests/emulator), whose devices take memory only where it is written.
//
//     c++ -std=c++17 -O2 -o devices examples/devices.cc -Iinclude -Ibindings/cpp -Ltarget/release -ldf11 -ldl
//         -Wl,-rpath,$PWD/target/release
#include "df11.hpp"
#include "driver.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr std::size_t SLOTS = 2;
// With --sample, the weights at both ends of a layer that are decoded.
constexpr std::uint64_t SAMPLE = 8192;
// With --sample, the weights of each of the two parts of an image that are written: more than SAMPLE, because parts are
// cut at other places.
constexpr std::uint64_t PART = 131'072;
// The weights at both ends of a layer that go into the activations.
constexpr std::uint64_t KEPT = 64;

// A range of a layer's weights.
struct Range {
    std::uint64_t first, count;
};

// Returns the ranges of a layer that are decoded.
std::vector<Range> ranges(std::uint64_t weights, bool sample) {
    if (!sample || weights <= 2 * SAMPLE) return {{0, weights}};
    return {{0, SAMPLE}, {weights - SAMPLE, SAMPLE}};
}

// Device memory that the engine owns. It is freed in any context: the driver knows whose it is.
struct Memory {
    CUdeviceptr at = 0;
    Memory() = default;
    explicit Memory(std::size_t bytes) { CUDA(cuMemAlloc(&at, bytes)); }
    Memory(Memory &&other) noexcept : at(std::exchange(other.at, 0)) {}
    Memory &operator=(Memory &&other) noexcept {
        std::swap(at, other.at);
        return *this;
    }
    ~Memory() {
        if (at != 0) CUDA(cuMemFree(at));
    }
};

// Pinned memory of the host.
struct Pinned {
    unsigned char *at = nullptr;
    explicit Pinned(std::size_t bytes) {
        void *memory = nullptr;
        CUDA(cuMemHostAlloc(&memory, bytes, 0));
        at = static_cast<unsigned char *>(memory);
    }
    Pinned(Pinned &&other) noexcept : at(std::exchange(other.at, nullptr)) {}
    Pinned(const Pinned &) = delete;
    ~Pinned() {
        if (at != nullptr) CUDA(cuMemFreeHost(at));
    }
};

struct Event {
    CUevent handle = nullptr;
    Event() { CUDA(cuEventCreate(&handle, CU_EVENT_DISABLE_TIMING)); }
    Event(const Event &) = delete;
    ~Event() { CUDA(cuEventDestroy(handle)); }
    void record(CUstream stream) const { CUDA(cuEventRecord(handle, stream)); }
};

void wait(CUstream stream, const Event &event) { CUDA(cuStreamWaitEvent(stream, event.handle, 0)); }

// A slot for a decoded layer. After the event `decoded` it may be used, after `used` it may be overwritten.
struct Slot {
    Memory memory;
    Event decoded, used;
    explicit Slot(std::size_t bytes) : memory(bytes) {}
};

// One device with all that the engine has there. It is made and destroyed while its context is current.
struct Device {
    CUcontext context;
    df11::Device library;
    CUstream decode = nullptr, compute = nullptr;
    std::array<Slot, SLOTS> slots;
    std::size_t turn = 0;  // the slot that is next
    Memory activations, status;
    Event done;

    Device(int ordinal, CUcontext current, std::size_t slot_bytes, std::size_t activation_bytes)
        : context(current),
          library(df11::Device::open(ordinal)),
          slots{Slot(slot_bytes), Slot(slot_bytes)},
          activations(activation_bytes),
          status(sizeof(std::uint32_t)) {
        CUDA(cuStreamCreate(&decode, CU_STREAM_NON_BLOCKING));
        CUDA(cuStreamCreate(&compute, CU_STREAM_NON_BLOCKING));
        CUDA(cuMemsetD8Async(status.at, 0, sizeof(std::uint32_t), compute));
        CUDA(cuStreamSynchronize(compute));
    }
    ~Device() {
        CUDA(cuStreamDestroy(decode));
        CUDA(cuStreamDestroy(compute));
    }
};

// A layer: where its image is, and what it decodes to.
struct Layer {
    std::string name;
    std::uint64_t weights;
    std::size_t image_bytes;
    std::size_t device;
    Memory image;
    df11::Resident resident;
};

class Engine {
  public:
    Engine(const df11::Model &model, std::size_t count, bool sample) : model_(model), sample_(sample) {
        std::size_t largest = 0, largest_image = 0, all = 0;
        for (const df11::Group &group : model.groups()) {
            layers_.push_back({std::string(group.name()), group.element_count(),
                               static_cast<std::size_t>(group.image_bytes()), 0, {}, {}});
            largest = std::max(largest, static_cast<std::size_t>(group.data_bytes()));
            largest_image = std::max(largest_image, layers_.back().image_bytes);
            all += layers_.back().image_bytes;
            for (const Range &range : ranges(group.element_count(), sample)) output_bytes_ += 2 * range.count;
        }
        // Runs of layers, so that the activations change devices as seldom as they can; each of an equal share of bytes.
        // A layer goes where its middle is.
        double before = 0;
        for (Layer &layer : layers_) {
            const auto bytes = static_cast<double>(layer.image_bytes);
            const double share = (before + bytes / 2) / static_cast<double>(all) * static_cast<double>(count);
            layer.device = std::min(count - 1, static_cast<std::size_t>(share));
            before += bytes;
        }
        for (std::size_t i = 0; i < count; i++) {
            CUdevice number;
            CUcontext context;
            CUDA(cuDeviceGet(&number, static_cast<int>(i)));
            CUDA(cuDevicePrimaryCtxRetain(&context, number));
            CUDA(cuCtxSetCurrent(context));
            retained_.push_back(number);
            require(SLOTS * largest + activation_bytes(), static_cast<int>(i));
            devices_.push_back(std::make_unique<Device>(static_cast<int>(i), context, largest, activation_bytes()));
        }
        connect();
        output_ = std::make_unique<Pinned>(output_bytes_);
        Pinned staging(sample ? largest_image : 1);
        for (std::size_t i = 0; i < layers_.size(); i++) bring(i, staging);
        for (const auto &device : devices_) CUDA(cuStreamSynchronize(device->decode));
    }

    ~Engine() {
        for (const auto &device : devices_) {
            cuStreamSynchronize(device->decode);
            cuStreamSynchronize(device->compute);
        }
        layers_.clear();
        output_.reset();
        for (std::size_t i = 0; i < retained_.size(); i++) {
            if (i < devices_.size()) {
                CUDA(cuCtxSetCurrent(devices_[i]->context));
                devices_[i].reset();
            }
            CUDA(cuDevicePrimaryCtxRelease(retained_[i]));
        }
    }
    Engine(const Engine &) = delete;

    // Lets a token walk over all layers. Returns the number of layers that equal the CPU's decoding.
    std::size_t walk() {
        const Device *at = nullptr;
        std::size_t output = 0;
        std::memset(output_->at, 0, output_bytes_);
        for (std::size_t i = 0; i < layers_.size(); i++) {
            const Layer &layer = layers_[i];
            Device &device = *devices_[layer.device];
            CUDA(cuCtxSetCurrent(device.context));
            if (at == nullptr) {
                CUDA(cuMemsetD8Async(device.activations.at, 0, activation_bytes(), device.compute));
            } else if (at != &device) {
                // What the last device has done is waited for by this one; the host waits for nothing.
                wait(device.compute, at->done);
                CUDA(cuMemcpyPeerAsync(device.activations.at, device.context, at->activations.at, at->context,
                                       activation_bytes(), device.compute));
            }
            Slot &slot = device.slots[device.turn++ % SLOTS];
            wait(device.decode, slot.used);
            for (const Range &range : ranges(layer.weights, sample_))
                layer.resident.decompress_range(range.first, range.count, slot.memory.at + 2 * range.first,
                                                2 * range.count, device.status.at, device.decode);
            slot.decoded.record(device.decode);

            wait(device.compute, slot.decoded);
            const std::uint64_t kept = std::min(KEPT, layer.weights);
            for (const std::uint64_t first : {std::uint64_t{0}, layer.weights - kept})
                CUDA(cuMemcpyDtoDAsync(device.activations.at + place(i) + (first == 0 ? 0 : 2 * KEPT),
                                       slot.memory.at + 2 * first, 2 * kept, device.compute));
            for (const Range &range : ranges(layer.weights, sample_)) {
                CUDA(cuMemcpyDtoHAsync(output_->at + output, slot.memory.at + 2 * range.first, 2 * range.count,
                                       device.compute));
                output += 2 * range.count;
            }
            slot.used.record(device.compute);
            device.done.record(device.compute);
            at = &device;
        }
        return at != nullptr ? right(*at) : 0;
    }

    // Moves a layer's image to another device. Nothing of the model is needed for it.
    void move(std::size_t layer_number, std::size_t to) {
        Layer &layer = layers_[layer_number];
        const Device &source = *devices_[layer.device], &target = *devices_[to];
        CUDA(cuCtxSetCurrent(target.context));
        require(layer.image_bytes, static_cast<int>(to));
        Memory image(layer.image_bytes);
        // The layer is in use until its last decode is done; here the host has waited for that.
        CUDA(cuMemcpyPeerAsync(image.at, target.context, layer.image.at, source.context, layer.image_bytes,
                               target.decode));
        // The first bytes of an image describe it.
        std::vector<unsigned char> head(std::min<std::size_t>(layer.image_bytes, DF11_IMAGE_HEAD_BYTES_MAX));
        CUDA(cuMemcpyDtoHAsync(head.data(), image.at, head.size(), target.decode));
        CUDA(cuStreamSynchronize(target.decode));
        layer.resident = target.library.bind_image(head, image.at, layer.image_bytes);
        layer.image = std::move(image);
        layer.device = to;
    }

    // Prints what each device holds.
    void print() const {
        for (std::size_t i = 0; i < devices_.size(); i++) {
            CUDA(cuCtxSetCurrent(devices_[i]->context));
            std::size_t count = 0, bytes = 0, free = 0, total = 0;
            std::string names;
            for (std::size_t l = 0; l < layers_.size(); l++) {
                if (layers_[l].device != i) continue;
                // The first and last of each run of layers.
                const bool begins = l == 0 || layers_[l - 1].device != i;
                const bool ends = l + 1 == layers_.size() || layers_[l + 1].device != i;
                if (begins) names += (names.empty() ? "" : ", ") + layers_[l].name;
                if (ends && !begins) names += " to " + layers_[l].name;
                count++;
                bytes += layers_[l].image_bytes;
            }
            CUDA(cuMemGetInfo(&free, &total));
            if (!names.empty()) names = " (" + names + ")";
            std::printf("device %zu: %zu layers%s, %.3f GB of images, %.3f of %.3f GB free\n", i, count, names.c_str(),
                        gigabytes(bytes), gigabytes(free), gigabytes(total));
        }
    }

    std::size_t layers() const { return layers_.size(); }
    std::size_t devices() const { return devices_.size(); }
    std::size_t device_of(std::size_t layer) const { return layers_[layer].device; }
    bool direct() const { return direct_; }

  private:
    static double gigabytes(std::size_t bytes) { return static_cast<double>(bytes) * 1e-9; }
    // The activations have room for what each layer leaves in them.
    std::size_t activation_bytes() const { return layers_.size() * 4 * KEPT; }
    static std::size_t place(std::size_t layer) { return layer * 4 * KEPT; }

    // Throws if the current device lacks memory.
    static void require(std::size_t bytes, int device) {
        std::size_t free = 0, total = 0;
        CUDA(cuMemGetInfo(&free, &total));
        if (free < bytes)
            throw std::runtime_error("device " + std::to_string(device) + " has " + std::to_string(free) +
                                     " bytes free and needs " + std::to_string(bytes));
    }

    // Lets devices reach each other's memory where they can. Without it peer copies go through the host's memory.
    void connect() {
        for (std::size_t i = 0; i < devices_.size(); i++)
            for (std::size_t j = 0; j < devices_.size(); j++) {
                int can = 0;
                if (i != j) CUDA(cuDeviceCanAccessPeer(&can, retained_[i], retained_[j]));
                direct_ = direct_ && (i == j || can != 0);
                if (can == 0) continue;
                CUDA(cuCtxSetCurrent(devices_[i]->context));
                CUDA(cuCtxEnablePeerAccess(devices_[j]->context, 0));
            }
    }

    // Brings a layer's image to its device.
    void bring(std::size_t number, const Pinned &staging) {
        Layer &layer = layers_[number];
        const Device &device = *devices_[layer.device];
        CUDA(cuCtxSetCurrent(device.context));
        require(layer.image_bytes, static_cast<int>(layer.device));
        layer.image = Memory(layer.image_bytes);
        if (!sample_) {
            layer.resident = device.library.upload(model_, number, layer.image.at, layer.image_bytes, device.decode);
            return;
        }
        // The head and the first weights are the first part, the last weights the last.
        const auto parts = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, layer.weights / PART));
        model_.write_image_part(number, {staging.at, layer.image_bytes}, 0, parts);
        if (parts > 1) model_.write_image_part(number, {staging.at, layer.image_bytes}, parts - 1, parts);
        CUDA(cuMemcpyHtoDAsync(layer.image.at, staging.at, layer.image_bytes, device.decode));
        CUDA(cuStreamSynchronize(device.decode));
        layer.resident = device.library.bind_image({staging.at, layer.image_bytes}, layer.image.at, layer.image_bytes);
    }

    // Waits for the walk, whose last layer was on device `last`, and counts the layers that are right.
    std::size_t right(const Device &last) const {
        std::vector<unsigned char> activations(activation_bytes());
        CUDA(cuMemcpyDtoHAsync(activations.data(), last.activations.at, activations.size(), last.compute));
        for (const auto &device : devices_) {
            CUDA(cuCtxSetCurrent(device->context));
            CUDA(cuStreamSynchronize(device->compute));
            std::uint32_t status = DF11_OK;
            CUDA(cuMemcpyDtoH(&status, device->status.at, sizeof(status)));
            if (status != DF11_OK)
                throw std::runtime_error(std::string("a device reports ") +
                                         df11_status_name(static_cast<df11_status>(status)));
        }
        std::size_t count = 0, output = 0;
        std::vector<unsigned char> want;
        const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
        for (std::size_t i = 0; i < layers_.size(); i++) {
            bool good = true;
            const std::uint64_t weights = layers_[i].weights, kept = std::min(KEPT, weights);
            const unsigned char *left = activations.data() + place(i);
            for (const Range &range : ranges(weights, sample_)) {
                want.resize(2 * range.count);
                model_.decompress(i, range.first, range.count, want, threads);
                good = good && std::memcmp(output_->at + output, want.data(), want.size()) == 0;
                output += want.size();
                if (range.first == 0) good = good && std::memcmp(left, want.data(), 2 * kept) == 0;
                if (weights > kept && range.first + range.count == weights)
                    good = good && std::memcmp(left + 2 * KEPT, &want[want.size() - 2 * kept], 2 * kept) == 0;
            }
            count += good;
        }
        return count;
    }

    const df11::Model &model_;
    bool sample_, direct_ = true;
    std::vector<CUdevice> retained_;
    std::vector<std::unique_ptr<Device>> devices_;
    std::vector<Layer> layers_;
    std::unique_ptr<Pinned> output_;  // of all layers, for the comparison
    std::size_t output_bytes_ = 0;
};

int run(const char *path, std::size_t wanted, bool sample) {
    const df11::Model model = df11::Model::open(path);
    if (model.groups().empty()) throw std::runtime_error("the model has no compressed groups");
    int found = 0;
    if (!cuda_load(nullptr) || cuDeviceGetCount(&found) != 0 || found == 0) {
        std::printf("missing: a CUDA device; decompress shows decoding on the CPU\n");
        return 77;  // skipped
    }
    Engine engine(model, wanted == 0 ? static_cast<std::size_t>(found) : std::min<std::size_t>(wanted, found), sample);
    engine.print();
    const std::size_t walked = engine.walk();
    std::printf("%zu of %zu layers right in a walk over %zu devices, activations %s\n", walked, engine.layers(),
                engine.devices(), engine.direct() ? "from device to device" : "through the host");
    // The first layer goes to the last device: the token begins there.
    std::size_t again = walked;
    if (engine.devices() > 1) {
        engine.move(0, engine.devices() - 1);
        engine.print();
        again = engine.walk();
        std::printf("%zu of %zu layers right after the first has moved to device %zu\n", again, engine.layers(),
                    engine.device_of(0));
    }
    return walked == engine.layers() && again == engine.layers() ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
    std::size_t devices = 0;
    bool sample = false, good = argc >= 2;
    for (int i = 2; i < argc && good; i++) {
        if (std::strcmp(argv[i], "--sample") == 0) {
            sample = true;
        } else if (std::strcmp(argv[i], "--devices") == 0 && i + 1 < argc) {
            devices = std::strtoul(argv[++i], nullptr, 10);
            good = devices > 0;
        } else {
            good = false;
        }
    }
    if (!good) {
        std::fprintf(stderr, "usage: devices MODEL [--devices N] [--sample]\n");
        return 2;
    }
    try {
        return run(argv[1], devices, sample);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "devices: %s\n", error.what());
        return 1;
    }
}
