// A model opened with libdf11, and the names and shapes of its tensors in GGUF. It knows no graphs, contexts or
// backends.
//
// libdf11 uses the names of Hugging Face. Only this file knows the names of the same tensors in GGUF, and whose rows
// converters permute.
#ifndef DF11_EXAMPLE_GGML_WEIGHTS_H
#define DF11_EXAMPLE_GGML_WEIGHTS_H

#include "df11.h"
#include "ggml.h"
#include "gguf.h"
#include "tokens.h"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace example {

struct Freed {
    void operator()(df11_model *model) const { df11_model_free(model); }
    void operator()(gguf_context *file) const { gguf_free(file); }
    void operator()(ggml_context *context) const { ggml_free(context); }
};
using Gguf = std::unique_ptr<gguf_context, Freed>;
using Context = std::unique_ptr<ggml_context, Freed>;

// Turns a status into an exception with the library's message.
struct Error : df11_error {
    void check(df11_status status) const {
        if (status != DF11_OK) throw std::runtime_error(message);
    }
};

// A model that libdf11 opens: a DF11 model, or the bf16 folder from which it was made.
class Model {
  public:
    // `flags` are DF11_OPEN_*.
    explicit Model(const std::string &path, uint32_t flags = 0);
    const df11_model *handle() const { return model_.get(); }
    // Finds the number of a tensor by its Hugging Face name. Returns false if there is none.
    bool find(const std::string &name, uint64_t &tensor) const;
    df11_tensor_info tensor(uint64_t tensor) const;
    df11_group_info group(uint64_t group) const;
    // Reads bytes of a tensor's values, decoded. For a compressed tensor, offset and size are even.
    void read(uint64_t tensor, uint64_t offset, void *to, size_t to_bytes, unsigned threads) const;
    // Returns the size of all groups in the files, in bytes.
    uint64_t packed_bytes() const;

  private:
    std::unique_ptr<df11_model, Freed> model_;
};

// The sizes of a Qwen3, Qwen3-MoE or Llama model, from the metadata of a GGUF file. A file with a vocabulary and no
// tensors is enough.
struct Shape {
    std::string architecture;
    int64_t layers, embedding, feed_forward, heads, kv_heads, head, vocabulary;
    int64_t experts = 0;
    float norm_epsilon, rope_base;
    explicit Shape(const gguf_context *head_file);
    // Throws if it is not Qwen3, the only one whose graph the examples have.
    void must_be_qwen3() const;
};

// A tensor in GGUF.
struct Tensor {
    std::string name;            // in GGUF
    std::vector<int64_t> shape;  // in ggml's order: the contiguous dimension first
    ggml_type type;              // matrices are BF16, norms F32
    int64_t rows() const;
    size_t bytes() const { return ggml_row_size(type, shape[0]) * size_t(rows()); }
};

// Returns the Hugging Face name of the tensor that is called `name` in GGUF, or an empty string.
std::string hugging_face_name(const std::string &name);
// Returns N for a tensor "blk.N.…", or -1.
int64_t layer_of(const std::string &name);
// Returns every tensor of the model, without output.weight if its head is its embedding.
std::vector<Tensor> tensors_of(const Shape &shape, const Model &model);
// Reads a tensor of Qwen3 in the type that GGUF has for it. The head of a tied model is its embedding.
void read_tensor(const Model &model, const Tensor &tensor, void *to, unsigned threads);

// The tensors of a DF11 model that a matrix in GGUF consists of: one, or one for each expert, all of bf16.
struct Source {
    std::vector<uint64_t> tensors;
    // 0, or the number of heads whose rows llama.cpp's converter permutes, as it does for Q and K of Llama: row 2 i + j
    // of a head is row i + j * (rows of a head / 2) in the model.
    int64_t permuted_heads = 0;
};

// Finds the source of a matrix in GGUF, by the names that the converter gives to Llama, Mistral, Mixtral, Qwen2, Qwen3,
// Qwen3-MoE and Gemma, whose architecture and heads the metadata in `head_file` has. Returns false for other tensors.
bool find_source(const gguf_context *head_file, const Model &model, const Tensor &tensor, Source &source);
// Reads a source in GGUF's order. `rows` is the second dimension in GGUF.
void read_source(const Model &model, const Source &source, int64_t rows, void *to, size_t to_bytes, unsigned threads);

// Returns the metadata of `head_file` with the model's tensors, for llama_model_init_from_user() and for a new file.
Gguf metadata(const gguf_context *head_file, const std::vector<Tensor> &tensors);
Gguf open_gguf(const std::string &path);

}  // namespace example

#endif
