// What the forward pass sees of the weights. Each way to keep them is a class: resident.h, slots.h, streamed.h,
// fused.h.
#ifndef DF11_EXAMPLE_ENGINE_WEIGHTS_H
#define DF11_EXAMPLE_ENGINE_WEIGHTS_H

#include "images.h"
#include "kernels.h"

#include <array>
#include <cstring>
#include <numeric>

namespace engine {

class Weights {
  public:
    virtual ~Weights() = default;

    // Begins a pass: other streams join the compute stream. All calls of a pass may be captured in a graph.
    virtual void start() {}
    // From here on the compute stream may multiply with a piece, until end(). Pieces come in their order.
    virtual void begin(std::size_t piece) = 0;
    virtual void end(std::size_t) {}
    // y[i] = W x for `count` matrices of the piece from `first` on, at most three, of the same columns.
    virtual void multiply(std::size_t piece, std::size_t first, std::size_t count, CUdeviceptr x,
                          const std::array<CUdeviceptr, 3> &y) = 0;

    // Bytes that weights take for good on the device and on the host, and of what they are decoded into.
    std::size_t device_bytes = 0, pinned_bytes = 0, slot_bytes = 0;
};

// Weights that are multiplied with as bf16, in the order of sums of kernels.cu. Other classes say where they are.
//
// To df11_linear() the seven most frequent exponents of a matrix are the usual ones, and it adds other weights later.
// This class counts exponents when a model is loaded, so that its sums are the same bits. An engine that does not
// compare the two would leave this out, and add all products in the order of columns.
class Decoded : public Weights {
  public:
    Decoded(const Layout &layout, const Kernels &kernels)
        : layout_(layout), kernels_(kernels), usual_(128 * layout.matrices) {}

    void multiply(std::size_t piece, std::size_t first, std::size_t count, CUdeviceptr x,
                  const std::array<CUdeviceptr, 3> &y) override {
        ProductsArgument products{};
        for (std::size_t i = 0; i < count; i++) {
            const Matrix &matrix = layout_.pieces[piece].matrices[first + i];
            products.matrices[i] = {address(piece) + 2 * matrix.first, usual_.at + 128 * matrix.number, y[i],
                                    matrix.rows, 0};
            products.columns = matrix.columns;
        }
        products.x = x;
        kernels_.multiply(products, static_cast<unsigned>(count));
    }

  protected:
    // The decoded piece, at a multiple of 16, between begin() and end().
    virtual CUdeviceptr address(std::size_t piece) const = 0;

    // Finds the usual exponents of every matrix, in a pass over all pieces.
    void learn() {
        const Memory counts(4 * 128 * layout_.matrices);
        CUDA(cuMemsetD8Async(counts.at, 0, counts.bytes, kernels_.stream()));
        start();
        for (std::size_t piece = 0; piece < layout_.pieces.size(); piece++) {
            begin(piece);
            for (const Matrix &matrix : layout_.pieces[piece].matrices)
                kernels_.count_exponents(address(piece) + 2 * matrix.first, std::uint64_t{matrix.rows} * matrix.columns,
                                         counts.at + 4 * 128 * matrix.number);
            end(piece);
        }
        std::vector<std::array<std::uint32_t, 128>> found(layout_.matrices);
        std::vector<std::array<std::int8_t, 128>> usual(layout_.matrices);
        CUDA(cuStreamSynchronize(kernels_.stream()));
        CUDA(cuMemcpyDtoH(found.data(), counts.at, counts.bytes));
        for (std::size_t i = 0; i < found.size(); i++) usual[i] = most_frequent(found[i]);
        CUDA(cuMemcpyHtoD(usual_.at, usual.data(), usual_.bytes));
    }

    const Layout &layout_;
    const Kernels &kernels_;

  private:
    // Marks 0, which zeros have, and the seven most frequent of the others; of equal ones the smaller first.
    static std::array<std::int8_t, 128> most_frequent(const std::array<std::uint32_t, 128> &counts) {
        std::array<std::uint32_t, 127> order;
        std::iota(order.begin(), order.end(), 1u);
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return counts[a] > counts[b]; });
        std::array<std::int8_t, 128> usual{};
        usual[0] = -1;
        for (std::size_t i = 0; i < 7; i++) usual[order[i]] = -1;
        return usual;
    }

    Memory usual_;
};

}  // namespace engine

#endif
