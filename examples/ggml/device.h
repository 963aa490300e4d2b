// Weights decoded on a CUDA device: their compressed images lie there, and slots are decoded on a stream of our own,
// while ggml computes on streams of its own, which it keeps to itself. Order between the two is made by waiting on the
// host.
//
// Proven on the emulated driver with slots in pinned memory, from which ggml's CPU backend computes. **It has not run
// with ggml's CUDA backend**, whose buffers give device addresses just so.
#ifndef DF11_EXAMPLE_GGML_DEVICE_H
#define DF11_EXAMPLE_GGML_DEVICE_H

#include "weights.h"

namespace example {

// Memory that processor and device reach at the same address.
class PinnedMemory {
  public:
    explicit PinnedMemory(size_t bytes);
    PinnedMemory(const PinnedMemory &) = delete;
    ~PinnedMemory();
    void *address() const { return address_; }
    size_t bytes() const { return bytes_; }

  private:
    void *address_ = nullptr;
    size_t bytes_;
};

// Decodes on the first CUDA device. The slots are memory of the caller's that the device can write, and outlive it, as
// does the model.
class DeviceDecoder : public Decoder {
  public:
    // Uploads the images of all groups that the steps are of.
    DeviceDecoder(const Model &model, const std::vector<Step> &steps, std::array<void *, 2> slots, size_t slot_bytes);
    ~DeviceDecoder() override;
    void begin(const Step &step, size_t slot) override;
    void wait(size_t slot) override;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace example

#endif
