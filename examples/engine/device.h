// Owners of device memory, pinned memory, streams and events. A real engine has its pools instead.
#ifndef DF11_EXAMPLE_ENGINE_DEVICE_H
#define DF11_EXAMPLE_ENGINE_DEVICE_H

#include "driver.h"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace engine {

// Device memory. cuMemAlloc() aligns it to 256 bytes, as images want it.
struct Memory {
    CUdeviceptr at = 0;
    std::size_t bytes = 0;
    Memory() = default;
    explicit Memory(std::size_t count) : bytes(std::max<std::size_t>(count, 1)) {
        if (cuMemAlloc(&at, bytes) != 0)
            throw std::runtime_error("the device has no " + std::to_string(bytes) + " bytes left");
    }
    Memory(Memory &&other) noexcept : at(std::exchange(other.at, 0)), bytes(std::exchange(other.bytes, 0)) {}
    Memory &operator=(Memory &&other) noexcept {
        std::swap(at, other.at);
        std::swap(bytes, other.bytes);
        return *this;
    }
    ~Memory() {
        if (at != 0) CUDA(cuMemFree(at));
    }
};

// Host memory that the device copies from and to at full speed, while the host does something else.
struct Pinned {
    unsigned char *at = nullptr;
    std::size_t bytes = 0;
    Pinned() = default;
    explicit Pinned(std::size_t count) : bytes(std::max<std::size_t>(count, 1)) {
        void *memory = nullptr;
        if (cuMemHostAlloc(&memory, bytes, 0) != 0)
            throw std::runtime_error("the host has no " + std::to_string(bytes) + " bytes of pinned memory left");
        at = static_cast<unsigned char *>(memory);
    }
    Pinned(Pinned &&other) noexcept : at(std::exchange(other.at, nullptr)), bytes(std::exchange(other.bytes, 0)) {}
    Pinned &operator=(Pinned &&) = delete;
    ~Pinned() {
        if (at != nullptr) CUDA(cuMemFreeHost(at));
    }
};

struct Stream {
    CUstream handle = nullptr;
    Stream() { CUDA(cuStreamCreate(&handle, CU_STREAM_NON_BLOCKING)); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    ~Stream() { CUDA(cuStreamDestroy(handle)); }
    void synchronise() const { CUDA(cuStreamSynchronize(handle)); }
};

// A point in a stream.
struct Event {
    CUevent handle = nullptr;
    Event() { CUDA(cuEventCreate(&handle, CU_EVENT_DISABLE_TIMING)); }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;
    ~Event() { CUDA(cuEventDestroy(handle)); }
    void record(CUstream stream) const { CUDA(cuEventRecord(handle, stream)); }
    // What is put into the stream from now on waits for the event.
    void before(CUstream stream) const { CUDA(cuStreamWaitEvent(stream, handle, 0)); }
};

}  // namespace engine

#endif
