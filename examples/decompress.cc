// Decodes a DF11 model on a CUDA device if there is one, else on the CPU with all processors. Prints the speed, and
// compares each tensor with the original.
//
//     decompress [--cpu] MODEL [ORIGINAL]
//
// MODEL is a folder or a .safetensors file. ORIGINAL contains the tensors before compression. decompress.c,
// decompress.go and decompress.rs are the same program in other languages. slots.cc and offload.cc show more of
// decoding on a device.
//
//     c++ -std=c++17 -O2 -o decompress examples/decompress.cc -Iinclude -Ibindings/cpp -Ltarget/release -ldf11 -ldl
//         -Wl,-rpath,$PWD/target/release
#include "df11.hpp"
#include "driver.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

// Device memory that the program owns.
class Memory {
  public:
    explicit Memory(std::size_t bytes) { CUDA(cuMemAlloc(&address_, bytes)); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    ~Memory() { CUDA(cuMemFree(address_)); }
    CUdeviceptr get() const { return address_; }

  private:
    CUdeviceptr address_ = 0;
};

// The context and a stream of the first CUDA device. An engine has made them already. libdf11 makes no context: it uses
// the device's primary context.
class Cuda {
  public:
    Cuda() {
        CUcontext context;
        CUDA(cuDeviceGet(&device_, 0));
        CUDA(cuDevicePrimaryCtxRetain(&context, device_));
        CUDA(cuCtxSetCurrent(context));
        CUDA(cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING));
    }
    Cuda(const Cuda &) = delete;
    Cuda &operator=(const Cuda &) = delete;
    ~Cuda() {
        CUDA(cuStreamDestroy(stream_));
        CUDA(cuDevicePrimaryCtxRelease(device_));
    }
    CUstream stream() const { return stream_; }
    void wait() const { CUDA(cuStreamSynchronize(stream_)); }

  private:
    CUdevice device_ = 0;
    CUstream stream_ = nullptr;
};

// All groups on the device, compressed, and memory for one decoded group.
class OnDevice {
  public:
    OnDevice(const df11::Model &model, const Cuda &cuda, df11::Device device)
        : cuda_(cuda), device_(std::move(device)), status_(sizeof(std::uint32_t)) {
        std::uint64_t largest = 0, image_bytes = 0;
        for (const df11::Group &group : model.groups()) {
            const auto bytes = static_cast<std::size_t>(group.image_bytes());
            images_.push_back(std::make_unique<Memory>(bytes));
            residents_.push_back(device_.upload(model, group.index(), images_.back()->get(), bytes, cuda.stream()));
            image_bytes += bytes;
            largest = std::max(largest, group.data_bytes());
        }
        output_ = std::make_unique<Memory>(static_cast<std::size_t>(largest) + 1);
        CUDA(cuMemsetD8Async(status_.get(), 0, sizeof(std::uint32_t), cuda.stream()));
        cuda.wait();
        const df11_device_info about = device_.get_info();
        std::printf("%s, driver %d.%d, kernels: %s; %" PRIu64 " bytes of compressed groups on it\n", about.name,
                    about.driver_version / 1000, about.driver_version % 1000 / 10, about.kernels, image_bytes);
    }
    ~OnDevice() { cuda_.wait(); }

    void decode(const df11::Group &group) const {
        residents_[group.index()].decompress(output_->get(), static_cast<std::size_t>(group.data_bytes()),
                                             status_.get(), cuda_.stream());
    }
    // Reads a compressed tensor: most are a range of one group, and larger ones a run in each of several.
    void read(const df11::Tensor &tensor, std::vector<unsigned char> &values) const {
        for (std::uint64_t i = 0; i < tensor.run_count(); i++) {
            const df11_run_info run = tensor.run(i);
            const std::size_t bytes = 2 * static_cast<std::size_t>(run.element_count);
            residents_[run.group].decompress_range(run.group_offset, run.element_count, output_->get(), bytes,
                                                   status_.get(), cuda_.stream());
            wait();
            CUDA(cuMemcpyDtoH(values.data() + 2 * run.tensor_offset, output_->get(), bytes));
        }
    }
    // Waits for the device, and throws if a kernel has found an error.
    void wait() const {
        std::uint32_t status = DF11_OK;
        cuda_.wait();
        CUDA(cuMemcpyDtoH(&status, status_.get(), sizeof(status)));
        if (status != DF11_OK)
            throw std::runtime_error(std::string("the device reports ") +
                                     df11_status_name(static_cast<df11_status>(status)));
    }

  private:
    const Cuda &cuda_;
    df11::Device device_;
    Memory status_;                                // a uint32_t that the kernels set if they find an error
    std::vector<std::unique_ptr<Memory>> images_;  // one for each group: compressed, and kept on the device
    std::vector<df11::Resident> residents_;
    std::unique_ptr<Memory> output_;  // one group, decoded
};

// Decodes all groups repeatedly for a quarter of a second, and prints the speed. One buffer serves all groups, as in an
// engine that decodes each layer just before it uses it.
void measure(const df11::Model &model, const OnDevice *device, std::uint32_t threads) {
    std::uint64_t weights = 0, packed = 0, largest = 0;
    for (const df11::Group &group : model.groups()) {
        weights += group.element_count();
        packed += group.packed_bytes();
        largest = std::max(largest, group.element_count());
    }
    if (weights == 0) {
        std::printf("no compressed groups\n");
        return;
    }
    std::printf("%zu groups, %" PRIu64 " weights, %" PRIu64 " bytes instead of %" PRIu64 ": %.3f bits per weight\n",
                model.groups().size(), weights, packed, 2 * weights,
                8.0 * static_cast<double>(packed) / static_cast<double>(weights));
    std::vector<std::uint16_t> buffer(device != nullptr ? 0 : static_cast<std::size_t>(largest));
    const auto start = std::chrono::steady_clock::now();
    std::chrono::duration<double> elapsed{};
    unsigned rounds = 0;
    do {
        for (const df11::Group &group : model.groups()) {
            if (device != nullptr)
                device->decode(group);
            else
                model.decompress(group.index(), buffer, threads);
        }
        if (device != nullptr) device->wait();
        rounds++;
        elapsed = std::chrono::steady_clock::now() - start;
    } while (elapsed.count() < 0.25);
    const double speed = 2.0 * static_cast<double>(weights) * rounds / elapsed.count() * 1e-9;
    if (device != nullptr)
        std::printf("decoded %u times on the device: %.2f GB/s of bf16\n", rounds, speed);
    else
        std::printf("decoded %u times on the CPU with up to %" PRIu32 " thread(s): %.2f GB/s of bf16\n", rounds,
                    threads, speed);
}

// Compares every tensor of the model with the original's tensor of the same name.
bool compare(const df11::Model &model, const OnDevice *device, const df11::Model &original, std::uint32_t threads) {
    std::size_t same = 0;
    std::vector<unsigned char> got, want;
    for (const df11::Tensor &ours : model.tensors()) {
        const auto theirs = original.find_tensor(ours.name().data());
        if (!theirs) {
            std::fprintf(stderr, "decompress: the original has no tensor named '%s'\n", ours.name().data());
            continue;
        }
        got.resize(static_cast<std::size_t>(ours.data_bytes()));
        want.resize(static_cast<std::size_t>(theirs->data_bytes()));
        if (device != nullptr && ours.group())
            device->read(ours, got);
        else
            model.read_tensor(ours.index(), 0, got, threads);
        original.read_tensor(theirs->index(), 0, want, threads);
        if (got == want)
            same++;
        else
            std::fprintf(stderr, "decompress: '%s' differs from the original\n", ours.name().data());
    }
    std::printf("%zu of %zu tensors equal the original, bit for bit\n", same, model.tensors().size());
    return same == model.tensors().size();
}

bool run(bool cpu, const char *path, const char *original_path) {
    const std::uint32_t threads = std::max(1u, std::thread::hardware_concurrency());
    const df11::Model model = df11::Model::open(path);
    df11::Model original;
    if (original_path != nullptr) original = df11::Model::open(original_path);
    std::printf("libdf11 %s, %s\n", df11::version().data(), path);

    std::unique_ptr<Cuda> cuda;
    std::unique_ptr<OnDevice> device;
    int count = 0;
    if (!cpu && cuda_load(nullptr) && cuDeviceGetCount(&count) == 0 && count > 0) {
        cuda = std::make_unique<Cuda>();
        df11_error error;
        df11::Device opened;
        if (df11::Device::try_open(opened, 0, {}, &error) == DF11_OK)
            device = std::make_unique<OnDevice>(model, *cuda, std::move(opened));
        else
            std::fprintf(stderr, "decompress: on the CPU, because: %s\n", error.message);
    }
    measure(model, device.get(), threads);
    return original_path == nullptr || compare(model, device.get(), original, threads);
}

}  // namespace

int main(int argc, char **argv) {
    const int cpu = argc > 1 && std::strcmp(argv[1], "--cpu") == 0;
    if (argc - cpu < 2 || argc - cpu > 3) {
        std::fprintf(stderr, "usage: decompress [--cpu] MODEL [ORIGINAL]\n");
        return 2;
    }
    try {
        return run(cpu != 0, argv[1 + cpu], argc - cpu == 3 ? argv[2 + cpu] : nullptr) ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "decompress: %s\n", error.what());
        return 1;
    }
}
