// All weights on the device as bf16, as in an engine that knows no compression: the most memory, and nothing to wait
// for.
#ifndef DF11_EXAMPLE_ENGINE_RESIDENT_H
#define DF11_EXAMPLE_ENGINE_RESIDENT_H

#include "weights.h"

namespace engine {

class Resident : public Decoded {
  public:
    // Uploads each piece compressed and decodes it, which is faster than to upload it as bf16.
    Resident(const df11::Model &model, const df11::Device &device, const Layout &layout, const Kernels &kernels,
             CUdeviceptr status)
        : Decoded(layout, kernels) {
        for (const Piece &piece : layout.pieces) {
            const Memory image(image_bytes(model, piece));
            const df11::Resident compressed = upload(model, device, piece, image, kernels.stream());
            pieces_.emplace_back(2 * piece.count);
            device_bytes += pieces_.back().bytes;
            compressed.decompress(pieces_.back().at, pieces_.back().bytes, status, kernels.stream());
            CUDA(cuStreamSynchronize(kernels.stream()));
        }
        learn();
    }

    void begin(std::size_t) override {}

  protected:
    CUdeviceptr address(std::size_t piece) const override { return pieces_[piece].at; }

  private:
    std::vector<Memory> pieces_;
};

}  // namespace engine

#endif
