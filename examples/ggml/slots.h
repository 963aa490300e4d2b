// Two slots through which weights are streamed. It knows no graphs, contexts or backends.
#ifndef DF11_EXAMPLE_GGML_SLOTS_H
#define DF11_EXAMPLE_GGML_SLOTS_H

#include "weights.h"

#include <array>
#include <future>

namespace example {

// The contents of a slot: consecutive weights of one group.
struct Step {
    uint64_t group, first, count;
};

// Returns the step of a whole layer. Its group must have every matrix of the layer. It may lack the norms, which stay
// plain.
Step layer_step(const Model &model, const std::vector<Tensor> &tensors, int64_t layer);

// Decodes weights into a slot. Not thread-safe.
class Decoder {
  public:
    virtual ~Decoder() = default;
    // Begins to decode a step into slot 0 or 1. It may return before the weights are there.
    virtual void begin(const Step &step, size_t slot) = 0;
    // Waits until the step that was begun in the slot is decoded. Throws its error.
    virtual void wait(size_t slot) = 0;
};

// Decodes on the CPU, with a thread for each running step. The model and the slots' memory must outlive it.
class HostDecoder : public Decoder {
  public:
    HostDecoder(const Model &model, std::array<void *, 2> slots, size_t slot_bytes, unsigned threads);
    void begin(const Step &step, size_t slot) override;
    void wait(size_t slot) override;

  private:
    const Model &model_;
    std::array<void *, 2> slots_;
    size_t slot_bytes_;
    unsigned threads_;
    std::array<std::future<void>, 2> pending_;
};

// Mistakes that tests plant to see that they are noticed: a step that is decoded into the wrong slot, a step that is
// not decoded, a slot that is overwritten before its weights were used, and weights that are used before they are
// decoded (which always shows on the emulated device, and sometimes on the CPU).
enum class Plant { nothing, slot, decode, early, wait };
Plant plant_named(const std::string &name);

// Two slots through which the steps 0, 1, 2, … of a pass go repeatedly. Step s is in slot s % 2, always at the same
// address, and the next step is decoded while the caller computes with this one. The successor of step s in its slot is
// step s + 2 or, at the end of a pass, the first step with that slot. Not thread-safe.
class Slots {
  public:
    // Begins to decode the first two steps.
    Slots(Decoder &decoder, std::vector<Step> steps, Plant plant);
    // Waits for the steps that are being decoded.
    ~Slots();
    // Waits until a step's weights are in its slot. Steps must be acquired in order, repeatedly.
    void acquire(size_t step);
    // Says that the step's weights have been used. Its slot is overwritten from now on.
    void release(size_t step);
    uint64_t decoded_bytes() const { return decoded_bytes_; }

  private:
    void decode(size_t step);
    size_t next(size_t step) const { return step + 2 < steps_.size() ? step + 2 : step % 2; }

    Decoder &decoder_;
    std::vector<Step> steps_;
    Plant plant_;
    uint64_t decoded_bytes_ = 0;
};

}  // namespace example

#endif
