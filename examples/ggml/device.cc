// See device.h.
#include "device.h"

#include "../driver.h"

#include <map>

namespace example {

namespace {

void cuda(CUresult result, const char *call) {
    if (result != 0) throw std::runtime_error(std::string(call) + " failed: " + std::to_string(result));
}

// Makes the primary context of the first device current, which ggml's CUDA backend uses too.
void attach() {
    static bool done = false;
    if (done) return;
    int count = 0;
    if (!cuda_load(nullptr) || cuDeviceGetCount(&count) != 0 || count == 0) throw std::runtime_error("no CUDA device");
    CUdevice first;
    CUcontext context;
    cuda(cuDeviceGet(&first, 0), "cuDeviceGet");
    cuda(cuDevicePrimaryCtxRetain(&context, first), "cuDevicePrimaryCtxRetain");
    cuda(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    done = true;
}

struct DeviceFreed {
    void operator()(df11_device *device) const { df11_device_free(device); }
    void operator()(df11_resident *resident) const { df11_resident_free(resident); }
};

}  // namespace

PinnedMemory::PinnedMemory(size_t size) : size_(size) {
    attach();
    cuda(cuMemHostAlloc(&data_, size, 0), "cuMemHostAlloc");
}

PinnedMemory::~PinnedMemory() { cuMemFreeHost(data_); }

struct DeviceDecoder::State {
    struct Image {
        CUdeviceptr memory = 0;
        std::unique_ptr<df11_resident, DeviceFreed> resident;
    };
    std::array<void *, 2> slots;
    size_t slot_bytes;
    std::unique_ptr<df11_device, DeviceFreed> device;
    CUstream stream = nullptr;
    std::array<CUevent, 2> decoded{};  // by slot
    CUdeviceptr status = 0;            // a uint32_t that the kernels set if they find an error
    std::map<uint64_t, Image> images;  // by group

    ~State() {
        if (stream != nullptr) cuStreamSynchronize(stream);
        for (auto &[group, image] : images) {
            image.resident.reset();
            if (image.memory != 0) cuMemFree(image.memory);
        }
        if (status != 0) cuMemFree(status);
        for (CUevent event : decoded)
            if (event != nullptr) cuEventDestroy(event);
        if (stream != nullptr) cuStreamDestroy(stream);
    }
};

DeviceDecoder::DeviceDecoder(const Model &model, const std::vector<Step> &steps, std::array<void *, 2> slots,
                             size_t slot_bytes)
    : state_(std::make_unique<State>()) {
    attach();
    State &s = *state_;
    s.slots = slots;
    s.slot_bytes = slot_bytes;
    Error e;
    df11_device *device = nullptr;
    e.check(df11_device_open(0, nullptr, &device, &e));
    s.device.reset(device);
    cuda(cuStreamCreate(&s.stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    for (CUevent &event : s.decoded) cuda(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
    cuda(cuMemAlloc(&s.status, sizeof(uint32_t)), "cuMemAlloc");
    cuda(cuMemsetD8Async(s.status, 0, sizeof(uint32_t), s.stream), "cuMemsetD8Async");
    for (const Step &step : steps) {
        State::Image &image = s.images[step.group];
        if (image.resident) continue;
        df11_group_info info = model.group(step.group);
        cuda(cuMemAlloc(&image.memory, size_t(info.image_bytes)), "cuMemAlloc");
        df11_resident *resident = nullptr;
        e.check(df11_device_upload(device, model.handle(), step.group, image.memory, size_t(info.image_bytes), s.stream,
                                   &resident, &e));
        image.resident.reset(resident);
    }
    cuda(cuStreamSynchronize(s.stream), "cuStreamSynchronize");
}

DeviceDecoder::~DeviceDecoder() = default;

void DeviceDecoder::begin(const Step &step, size_t slot) {
    State &s = *state_;
    Error e;
    e.check(df11_resident_decompress_range(s.images.at(step.group).resident.get(), step.first, step.count,
                                           reinterpret_cast<uintptr_t>(s.slots[slot]), s.slot_bytes, s.status, s.stream,
                                           &e));
    cuda(cuEventRecord(s.decoded[slot], s.stream), "cuEventRecord");
}

void DeviceDecoder::wait(size_t slot) {
    State &s = *state_;
    uint32_t status;
    cuda(cuEventSynchronize(s.decoded[slot]), "cuEventSynchronize");
    cuda(cuMemcpyDtoH(&status, s.status, sizeof(status)), "cuMemcpyDtoH");
    if (status != DF11_OK)
        throw std::runtime_error(std::string("the device reports ") + df11_status_name(int32_t(status)));
}

}  // namespace example
