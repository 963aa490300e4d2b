// All weights in pinned host memory, compressed: for a model that is larger than the device. Each token copies every
// piece to one of two slots for images, from where it is decoded to one of two slots for weights. Copies, decodes and
// products each have a stream, so that they go on at the same time.
#ifndef DF11_EXAMPLE_ENGINE_STREAMED_H
#define DF11_EXAMPLE_ENGINE_STREAMED_H

#include "slots.h"

namespace engine {

// Room for an image. After `arrived` it may be decoded, after `emptied` it may be overwritten.
struct ImageSlot {
    Memory memory;
    Event arrived, emptied;
    explicit ImageSlot(std::size_t bytes) : memory(bytes) {}
};

class Streamed : public Slots {
  public:
    Streamed(const df11::Model &model, const df11::Device &device, const Layout &layout, const Kernels &kernels,
             CUdeviceptr status)
        : Slots(layout, kernels, status),
          image_slots_{ImageSlot(largest_image(model, layout)), ImageSlot(largest_image(model, layout))} {
        slot_bytes += 2 * image_slots_[0].memory.bytes;
        for (const Piece &piece : layout.pieces) {
            const Pinned &image = images_.emplace_back(image_bytes(model, piece));
            write(model, piece, image);
            pinned_bytes += image.bytes;
            // The resident is bound to the slot that its image will be copied to.
            const Memory &slot = image_slots_[residents_.size() % 2].memory;
            residents_.push_back(device.bind_image({image.at, image.bytes}, slot.at, slot.bytes));
        }
        learn();
    }
    ~Streamed() override {
        cuStreamSynchronize(copy_.handle);
        cuStreamSynchronize(decode_.handle);
    }

    void start() override {
        Slots::start();
        for (const ImageSlot &slot : image_slots_) slot.emptied.record(kernels_.stream());
    }
    void begin(std::size_t piece) override {
        const ImageSlot &slot = image_slots_[piece % 2];
        slot.emptied.before(copy_.handle);
        CUDA(cuMemcpyHtoDAsync(slot.memory.at, images_[piece].at, images_[piece].bytes, copy_.handle));
        slot.arrived.record(copy_.handle);
        slot.arrived.before(decode_.handle);
        Slots::begin(piece);
        slot.emptied.record(decode_.handle);
    }

  private:
    static std::size_t largest_image(const df11::Model &model, const Layout &layout) {
        std::size_t most = 0;
        for (const Piece &piece : layout.pieces) most = std::max(most, image_bytes(model, piece));
        return most;
    }

    std::array<ImageSlot, 2> image_slots_;
    std::vector<Pinned> images_;
    Stream copy_;
};

}  // namespace engine

#endif
