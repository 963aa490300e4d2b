// Decodes weights on a CUDA device. The compressed images are in its memory, and slots are decoded on a stream of our
// own. ggml computes on its own streams, which are not public, so the order between the two is kept by waiting on the
// host.
//
// Tested on the emulated driver with slots in pinned memory and ggml's CPU backend. **It has not run with ggml's CUDA
// backend**, whose buffers have device addresses.
#ifndef DF11_EXAMPLE_GGML_DEVICE_H
#define DF11_EXAMPLE_GGML_DEVICE_H

#include "slots.h"

namespace example {

// Memory that the processor and the device can access at the same address.
class PinnedMemory {
  public:
    explicit PinnedMemory(size_t size);
    PinnedMemory(const PinnedMemory &) = delete;
    ~PinnedMemory();
    void *data() const { return data_; }
    size_t size() const { return size_; }

  private:
    void *data_ = nullptr;
    size_t size_;
};

// Decodes on the first CUDA device. The slots are memory that the device can write. They and the model must outlive it.
class DeviceDecoder : public Decoder {
  public:
    // Uploads the images of all groups of the steps.
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
