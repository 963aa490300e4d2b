// What the examples for ggml share: a model opened with libdf11, what GGUF calls its tensors and how they are shaped,
// and two slots through which weights are streamed. Knows Qwen3 only, and nothing of graphs, contexts or backends.
//
// Hugging Face's names stay inside the library; that a GGUF file calls the same tensors otherwise is known here and
// nowhere else. Rows are taken as they are: converters permute those of Q and K for Llama, and not for Qwen3.
#ifndef DF11_EXAMPLE_GGML_WEIGHTS_H
#define DF11_EXAMPLE_GGML_WEIGHTS_H

#include "df11.h"
#include "ggml.h"
#include "gguf.h"
#include "tokens.h"

#include <array>
#include <cstdint>
#include <future>
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

// Turns a status into an exception with the library's own sentence.
struct Error : df11_error {
    void check(df11_status status) const {
        if (status != DF11_OK) throw std::runtime_error(message);
    }
};

// Anything that libdf11 opens: a DF11 model, or the bf16 folder that it was made from.
class Model {
  public:
    explicit Model(const std::string &path);
    const df11_model *handle() const { return model_.get(); }
    // The number of a tensor by its Hugging Face name; false if there is none.
    bool find(const std::string &name, uint64_t &tensor) const;
    df11_tensor_info tensor(uint64_t tensor) const;
    df11_group_info group(uint64_t group) const;
    // Bytes of a tensor's values, decoded if they are compressed. Even numbers, where they are.
    void read(uint64_t tensor, uint64_t offset, void *to, size_t bytes, unsigned threads) const;
    // Bytes of all groups in the files.
    uint64_t packed_bytes() const;

  private:
    std::unique_ptr<df11_model, Freed> model_;
};

// The sizes of a Qwen3 model, from the metadata of a GGUF file: one with a vocabulary and no tensors is enough.
struct Shape {
    int64_t layers, embedding, feed_forward, heads, kv_heads, head, vocabulary;
    float norm_epsilon, rope_base;
    explicit Shape(const gguf_context *head_file);
};

// A tensor as GGUF knows it.
struct Tensor {
    std::string name;              // in GGUF
    std::array<int64_t, 2> shape;  // as ggml counts: the contiguous dimension first
    ggml_type type;                // matrices are BF16, norms F32
    size_t bytes() const { return ggml_row_size(type, shape[0]) * size_t(shape[1]); }
};

// The Hugging Face name of a Qwen3 tensor that GGUF calls `name`; empty if it is none.
std::string hugging_face_name(const std::string &name);
// The layer of "blk.N.…"; -1 for other tensors.
int64_t layer_of(const std::string &name);
// Every tensor of the model; without output.weight if its head is its embedding.
std::vector<Tensor> tensors_of(const Shape &shape, const Model &model);
// Reads a tensor in the type in which GGUF wants it. The head of a tied model is its embedding.
void read_tensor(const Model &model, const Tensor &tensor, void *to, unsigned threads);

// The metadata of `head_file`, and the model's tensors, for llama_model_init_from_user() and for a new file.
Gguf metadata(const gguf_context *head_file, const std::vector<Tensor> &tensors);
Gguf open_gguf(const std::string &path);

// What a slot can hold: some weights of one group, one after the other.
struct Step {
    uint64_t group, first, count;
};

// A whole layer. Its group must have every matrix of the layer; it may lack the norms, which stay as they are.
Step layer_step(const Model &model, const std::vector<Tensor> &tensors, int64_t layer);

// How weights get into a slot. Not thread-safe.
class Decoder {
  public:
    virtual ~Decoder() = default;
    // Begins to decode a step into slot 0 or 1, and may return before it is there.
    virtual void begin(const Step &step, size_t slot) = 0;
    // Waits until what was begun in that slot is there; throws what went wrong.
    virtual void wait(size_t slot) = 0;
};

// Decodes on the CPU, a thread for each step that runs. The model and the slots, memory of the caller's, outlive it.
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

// Mistakes for the tests to plant, to see that they show: a step decoded into the other slot, one not decoded at all, a
// slot overwritten before its weights were used, and weights used before they are there (which shows every time on the
// emulated device, and on the CPU perhaps).
enum class Plant { nothing, slot, decode, early, wait };
Plant plant_named(const std::string &name);

// Two slots that steps 0, 1, 2, … of a pass go through again and again: step s lies in slot s % 2, always at the same
// address, and the next one is decoded while the caller computes with this one. That is all of the arithmetic: whoever
// follows step s in its slot is step s + 2 or, after the last, the first one with that slot. Not thread-safe.
class Slots {
  public:
    // Begins to decode the first two.
    Slots(Decoder &decoder, std::vector<Step> steps, Plant plant);
    // Waits for what is being decoded ahead.
    ~Slots();
    // Waits until a step's weights are in its slot. Steps are asked for in order, round and round.
    void acquire(size_t step);
    // The step's weights have been used: its slot is overwritten from now on.
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
