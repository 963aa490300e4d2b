// The kernels of kernels.cu, with a member to launch each. All of them go to one stream, and may be captured.
#ifndef DF11_EXAMPLE_ENGINE_KERNELS_H
#define DF11_EXAMPLE_ENGINE_KERNELS_H

#include "config.h"
#include "device.h"
#include "kernels_ptx.h"

#include <cstdint>

namespace engine {

// The structs of kernels.cu, with device addresses for pointers.
struct State {
    std::uint32_t position, token, status;
};
struct MatrixArgument {
    CUdeviceptr weights, usual, y;
    std::uint32_t rows, padding;
};
struct ProductsArgument {
    MatrixArgument matrices[3];
    CUdeviceptr x;
    std::uint32_t columns, padding;
};
struct HeadsArgument {
    CUdeviceptr queries, keys, values, query_norm, key_norm, cosines, sines, key_cache, value_cache, state;
    std::uint32_t query_heads, key_heads, size, context;
    float share, epsilon;
};
static_assert(sizeof(MatrixArgument) == 32 && sizeof(ProductsArgument) == 112 && sizeof(HeadsArgument) == 104,
              "the kernels take these sizes");

// The columns of a matrix: for each 512 of them, multiply() needs 64 bytes of shared memory.
constexpr unsigned MOST_COLUMNS = 1 << 17;

class Kernels {
  public:
    // The driver compiles the kernels. Every one is loaded here, by giving it an attribute, because none can be
    // loaded during a capture.
    explicit Kernels(CUstream stream) : stream_(stream) {
        CUDA(cuModuleLoadData(&module_, KERNELS_PTX));
        for (auto [function, name] : {std::pair(&embed_, "embed"), {&add_norm_, "add_norm"}, {&multiply_, "multiply"},
                                      {&count_exponents_, "count_exponents"}, {&heads_, "heads"},
                                      {&attention_, "attention"}, {&swiglu_, "swiglu"}, {&choose_, "choose"}}) {
            CUDA(cuModuleGetFunction(function, module_, name));
            CUDA(cuFuncSetAttribute(*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, MOST_COLUMNS / 8));
        }
    }
    Kernels(const Kernels &) = delete;
    Kernels &operator=(const Kernels &) = delete;
    ~Kernels() { CUDA(cuModuleUnload(module_)); }

    CUstream stream() const { return stream_; }

    void embed(CUdeviceptr row, CUdeviceptr hidden, std::uint32_t count) const {
        launch(embed_, (count + 255) / 256, 1, 256, 0, row, hidden, count);
    }
    void add_norm(CUdeviceptr hidden, CUdeviceptr delta, CUdeviceptr norm, CUdeviceptr out, std::uint32_t count,
                  float epsilon) const {
        launch(add_norm_, 1, 1, 256, 0, hidden, delta, norm, out, count, 1.0f / static_cast<float>(count), epsilon);
    }
    // Multiplies up to three matrices with one x.
    void multiply(const ProductsArgument &products, unsigned count) const {
        unsigned rows = 0;
        for (unsigned i = 0; i < count; i++) rows = std::max(rows, products.matrices[i].rows);
        const unsigned runs = (products.columns + 511) / 512;
        launch(multiply_, (rows + 15) / 16, count, 32 * std::min(runs, 8u), 64 * runs, products);
    }
    void count_exponents(CUdeviceptr weights, std::uint64_t count, CUdeviceptr counts) const {
        const auto blocks = static_cast<unsigned>(std::min<std::uint64_t>((count + 255) / 256, 1024));
        launch(count_exponents_, blocks, 1, 256, 0, weights, count, counts);
    }
    void heads(const HeadsArgument &heads) const {
        launch(heads_, heads.query_heads + 2 * heads.key_heads, 1, 32, 0, heads);
    }
    void attention(const HeadsArgument &heads, CUdeviceptr out, float scale) const {
        launch(attention_, heads.query_heads, 1, 128, 0, heads.queries, heads.key_cache, heads.value_cache, out,
               heads.state, heads.size, heads.context, heads.query_heads / heads.key_heads, scale);
    }
    void swiglu(CUdeviceptr gate, CUdeviceptr up, CUdeviceptr out, std::uint32_t count) const {
        launch(swiglu_, (count + 255) / 256, 1, 256, 0, gate, up, out, count);
    }
    void choose(CUdeviceptr logits, std::uint32_t count, CUdeviceptr state) const {
        launch(choose_, 1, 1, 1024, 0, logits, count, state);
    }

  private:
    // The arguments have the sizes of the kernel's parameters.
    template <typename... Arguments>
    void launch(CUfunction function, unsigned columns, unsigned rows, unsigned threads, unsigned shared_bytes,
                Arguments... arguments) const {
        void *all[] = {&arguments...};
        CUDA(cuLaunchKernel(function, columns, rows, 1, threads, 1, 1, shared_bytes, stream_, all, nullptr));
    }

    CUstream stream_;
    CUmodule module_ = nullptr;
    CUfunction embed_ = nullptr, add_norm_ = nullptr, multiply_ = nullptr, count_exponents_ = nullptr, heads_ = nullptr,
               attention_ = nullptr, swiglu_ = nullptr, choose_ = nullptr;
};

}  // namespace engine

#endif
