// A head that is not compressed. Where the embedding is the head, too, published models leave it as it is: then it
// stays on the device as bf16, however the layers are kept.
#ifndef DF11_EXAMPLE_ENGINE_PLAIN_H
#define DF11_EXAMPLE_ENGINE_PLAIN_H

#include "kernels.h"
#include "layout.h"

namespace engine {

class PlainHead {
  public:
    PlainHead(const df11::Model &model, std::uint64_t tensor, const Config &config, const Kernels &kernels)
        : kernels_(kernels), weights_(model.tensors()[tensor].data_bytes()), usual_(128) {
        CUDA(cuMemcpyHtoD(weights_.at, model.tensors()[tensor].data().data(), weights_.bytes));
        CUDA(cuMemsetD8Async(usual_.at, 0xff, usual_.bytes, kernels.stream()));
        products_.matrices[0] = {weights_.at, usual_.at, 0, config.vocabulary, 0};
        products_.columns = config.hidden;
    }

    // y = W x
    void multiply(CUdeviceptr x, CUdeviceptr y) {
        products_.matrices[0].y = y;
        products_.x = x;
        kernels_.multiply(products_, 1);
    }

    std::size_t bytes() const { return weights_.bytes; }

  private:
    const Kernels &kernels_;
    Memory weights_, usual_;  // all exponents are usual
    ProductsArgument products_{};
};

}  // namespace engine

#endif
