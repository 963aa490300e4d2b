// All weights on the device, compressed. Two slots hold decoded pieces: while the compute stream multiplies from one,
// the decode stream decodes the next piece into the other.
#ifndef DF11_EXAMPLE_ENGINE_SLOTS_H
#define DF11_EXAMPLE_ENGINE_SLOTS_H

#include "weights.h"

namespace engine {

// Room for a decoded piece. After `decoded` it may be read, after `used` it may be overwritten.
struct Slot {
    Memory memory;
    Event decoded, used;
    explicit Slot(std::size_t bytes) : memory(bytes) {}
};

class Slots : public Decoded {
  public:
    Slots(const df11::Model &model, const df11::Device &device, const Layout &layout, const Kernels &kernels,
          CUdeviceptr status)
        : Slots(layout, kernels, status) {
        for (const Piece &piece : layout.pieces) {
            images_.emplace_back(image_bytes(model, piece));
            device_bytes += images_.back().bytes;
            residents_.push_back(upload(model, device, piece, images_.back(), kernels.stream()));
        }
        learn();
    }
    ~Slots() override { cuStreamSynchronize(decode_.handle); }

    // The slots are free: what used them is before this in the compute stream.
    void start() override {
        for (const Slot &slot : slots_) slot.used.record(kernels_.stream());
    }
    void begin(std::size_t piece) override {
        const Slot &slot = slots_[piece % 2];
        slot.used.before(decode_.handle);
        residents_[piece].decompress(slot.memory.at, slot.memory.bytes, status_, decode_.handle);
        slot.decoded.record(decode_.handle);
        slot.decoded.before(kernels_.stream());
    }
    void end(std::size_t piece) override { slots_[piece % 2].used.record(kernels_.stream()); }

  protected:
    // The slots without images.
    Slots(const Layout &layout, const Kernels &kernels, CUdeviceptr status)
        : Decoded(layout, kernels), status_(status), slots_{Slot(2 * layout.largest), Slot(2 * layout.largest)} {
        slot_bytes = 2 * slots_[0].memory.bytes;
    }

    CUdeviceptr address(std::size_t piece) const override { return slots_[piece % 2].memory.at; }

    std::vector<df11::Resident> residents_;
    Stream decode_;

  private:
    CUdeviceptr status_;
    std::array<Slot, 2> slots_;
    std::vector<Memory> images_;
};

}  // namespace engine

#endif
