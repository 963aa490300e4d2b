// The engine: one token after the other goes through the model. A pass is captured in a graph once, whatever the
// weights are kept in, and launched for each token.
#ifndef DF11_EXAMPLE_ENGINE_ENGINE_H
#define DF11_EXAMPLE_ENGINE_ENGINE_H

#include "fused.h"
#include "plain.h"
#include "resident.h"
#include "slots.h"
#include "streamed.h"

#include <cmath>

namespace engine {

enum class Mode { bf16, decode, fused, stream };

class Engine {
  public:
    // `context` is the most tokens that may go through.
    Engine(const df11::Model &model, const Config &config, const df11::Device &device, Mode mode, unsigned context)
        : model_(model),
          config_(config),
          context_(context),
          layout_(model, config, mode == Mode::decode || mode == Mode::stream),
          kernels_(stream_.handle),
          state_(sizeof(State)),
          cache_(std::size_t{4} * config.layers * config.key_heads * config.head * context),
          rotations_(std::size_t{4} * config.head * context),
          host_(sizeof(State) + 2 * config.hidden) {
        CUDA(cuMemsetD8Async(state_.at, 0, sizeof(State), stream_.handle));
        // What a new cache holds is multiplied with 0 nowhere: attention ends at the token's own position.
        load_norms();
        load_rotations();
        allocate();
        if (layout_.plain_head) head_ = std::make_unique<PlainHead>(model, *layout_.plain_head, config, kernels_);
        weights_ = open(device, mode);
        if (head_) weights_->device_bytes += head_->bytes();
        stream_.synchronise();
        capture();
    }
    ~Engine() {
        cuStreamSynchronize(stream_.handle);
        if (graph_ != nullptr) CUDA(cuGraphExecDestroy(graph_));
    }
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    // Sends a token through the model. Returns the token that is likeliest to follow.
    unsigned next(unsigned token) {
        if (token >= config_.vocabulary) throw std::runtime_error("token " + std::to_string(token) + " does not exist");
        if (position_ == context_) throw std::runtime_error("the context is full");
        // Of the embedding a pass needs one row, so that stays in the file. Decoding it takes some microseconds.
        const std::size_t row_bytes = std::size_t{2} * config_.hidden;
        model_.read_tensor(layout_.embedding, token * row_bytes, {host_.at + sizeof(State), row_bytes});
        CUDA(cuGraphLaunch(graph_, stream_.handle));
        stream_.synchronise();
        State state;
        std::memcpy(&state, host_.at, sizeof(state));
        if (state.status != DF11_OK)
            throw std::runtime_error(std::string("the device reports ") +
                                     df11_status_name(static_cast<df11_status>(state.status)));
        position_++;
        return state.token;
    }

    const Weights &weights() const { return *weights_; }
    // Bytes for each position of the context, for all of them, and of everything else but weights.
    std::size_t cache_bytes() const { return cache_.bytes + rotations_.bytes; }
    std::size_t other_bytes() const {
        std::size_t all = state_.bytes + norms_.bytes;
        for (const Memory *memory : {&row_, &hidden_, &delta_, &normed_, &queries_, &keys_, &values_, &attended_,
                                     &gate_, &up_, &inner_, &logits_})
            all += memory->bytes;
        return all;
    }

  private:
    std::unique_ptr<Weights> open(const df11::Device &device, Mode mode) {
        const CUdeviceptr status = state_.at + offsetof(State, status);
        switch (mode) {
            case Mode::bf16: return std::make_unique<Resident>(model_, device, layout_, kernels_, status);
            case Mode::decode: return std::make_unique<Slots>(model_, device, layout_, kernels_, status);
            case Mode::fused: return std::make_unique<Fused>(model_, device, layout_, kernels_, status);
            case Mode::stream: return std::make_unique<Streamed>(model_, device, layout_, kernels_, status);
        }
        throw std::logic_error("a mode that does not exist");
    }

    // Copies the norms, which are not compressed, one after the other, each at a multiple of 16 bytes.
    void load_norms() {
        std::vector<unsigned char> all;
        const auto add = [&](const std::string &name, unsigned count, bool optional) {
            const auto tensor = model_.find_tensor(name);
            if (!tensor && optional) return CUdeviceptr{0};
            if (!tensor || tensor->dtype() != DF11_DTYPE_BF16 || tensor->data_bytes() != 2 * count)
                throw std::runtime_error("the model has no " + name + " of " + std::to_string(count) + " bf16");
            const std::size_t at = all.size();
            all.resize(at + (2 * count + 15) / 16 * 16);
            tensor->read({all.data() + at, 2 * count});
            return CUdeviceptr{at + 1};  // where it will be, after the address of the memory, less 1
        };
        for (unsigned layer = 0; layer < config_.layers; layer++) {
            const std::string name = "model.layers." + std::to_string(layer) + ".";
            layers_.push_back({add(name + "input_layernorm.weight", config_.hidden, false),
                               add(name + "self_attn.q_norm.weight", config_.head, true),
                               add(name + "self_attn.k_norm.weight", config_.head, true),
                               add(name + "post_attention_layernorm.weight", config_.hidden, false)});
        }
        last_norm_ = add("model.norm.weight", config_.hidden, false);
        norms_ = Memory(all.size());
        CUDA(cuMemcpyHtoD(norms_.at, all.data(), all.size()));
        const auto place = [&](CUdeviceptr &norm) { norm = norm == 0 ? 0 : norms_.at + norm - 1; };
        for (Norms &layer : layers_)
            for (CUdeviceptr *norm : {&layer.input, &layer.query, &layer.key, &layer.after}) place(*norm);
        place(last_norm_);
    }

    // Calculates the rotations of every position: a number of a head and the one half a head later turn by an angle.
    void load_rotations() {
        const unsigned half = config_.head / 2;
        std::vector<float> table(std::size_t{2} * context_ * half);
        for (unsigned i = 0; i < half; i++) {
            const double turn = std::pow(config_.rope_base, -2.0 * i / config_.head);
            for (unsigned position = 0; position < context_; position++) {
                table[std::size_t{position} * half + i] = static_cast<float>(std::cos(position * turn));
                table[(std::size_t{context_} + position) * half + i] = static_cast<float>(std::sin(position * turn));
            }
        }
        CUDA(cuMemcpyHtoD(rotations_.at, table.data(), 4 * table.size()));
    }

    void allocate() {
        const std::size_t queries = std::size_t{config_.query_heads} * config_.head;
        const std::size_t keys = std::size_t{config_.key_heads} * config_.head;
        row_ = Memory(std::size_t{2} * config_.hidden);
        hidden_ = Memory(std::size_t{4} * config_.hidden);
        delta_ = Memory(std::size_t{4} * config_.hidden);
        normed_ = Memory(std::size_t{2} * config_.hidden);
        queries_ = Memory(4 * queries);
        keys_ = Memory(4 * keys);
        values_ = Memory(4 * keys);
        attended_ = Memory(2 * queries);
        gate_ = Memory(std::size_t{4} * config_.feed_forward);
        up_ = Memory(std::size_t{4} * config_.feed_forward);
        inner_ = Memory(std::size_t{2} * config_.feed_forward);
        logits_ = Memory(std::size_t{4} * config_.vocabulary);
    }

    void capture() {
        CUgraph graph = nullptr;
        CUDA(cuStreamBeginCapture(stream_.handle, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        pass();
        CUDA(cuStreamEndCapture(stream_.handle, &graph));
        CUDA(cuGraphInstantiateWithFlags(&graph_, graph, 0));
        CUDA(cuGraphDestroy(graph));
    }

    // The forward pass of one token: from its row of the embedding, in pinned memory, to the next token, there too.
    void pass() {
        CUDA(cuMemcpyHtoDAsync(row_.at, host_.at + sizeof(State), row_.bytes, stream_.handle));
        kernels_.embed(row_.at, hidden_.at, config_.hidden);
        weights_->start();
        for (unsigned layer = 0; layer < config_.layers; layer++) {
            weights_->begin(layer);
            attention(layer);
            feed_forward(layer);
            weights_->end(layer);
        }
        norm(delta_.at, last_norm_);
        head();
        kernels_.choose(logits_.at, config_.vocabulary, state_.at);
        CUDA(cuMemcpyDtoHAsync(host_.at, state_.at, sizeof(State), stream_.handle));
    }

    void head() {
        if (head_) return head_->multiply(normed_.at, logits_.at);
        std::size_t row = 0;
        for (std::size_t piece = config_.layers; piece < layout_.pieces.size(); piece++) {
            weights_->begin(piece);
            weights_->multiply(piece, 0, 1, normed_.at, {logits_.at + 4 * row});
            weights_->end(piece);
            row += layout_.pieces[piece].matrices[0].rows;
        }
    }

    void attention(unsigned layer) {
        const Norms &norms = layers_[layer];
        const std::size_t half = cache_.bytes / config_.layers / 2;  // of the cache of a layer: keys, then values
        norm(layer == 0 ? 0 : delta_.at, norms.input);
        weights_->multiply(layer, QUERY, 3, normed_.at, {queries_.at, keys_.at, values_.at});
        const HeadsArgument heads{queries_.at, keys_.at, values_.at, norms.query, norms.key, rotations_.at,
                                  rotations_.at + rotations_.bytes / 2, cache_.at + 2 * layer * half,
                                  cache_.at + (2 * layer + 1) * half, state_.at, config_.query_heads, config_.key_heads,
                                  config_.head, context_, 1.0f / static_cast<float>(config_.head), config_.epsilon};
        kernels_.heads(heads);
        kernels_.attention(heads, attended_.at, 1.0f / std::sqrt(static_cast<float>(config_.head)));
        weights_->multiply(layer, OUTPUT, 1, attended_.at, {delta_.at});
    }

    void feed_forward(unsigned layer) {
        norm(delta_.at, layers_[layer].after);
        weights_->multiply(layer, GATE, 2, normed_.at, {gate_.at, up_.at});
        kernels_.swiglu(gate_.at, up_.at, inner_.at, config_.feed_forward);
        weights_->multiply(layer, DOWN, 1, inner_.at, {delta_.at});
    }

    // Adds what a part of a layer has calculated to the hidden state, and norms that for the next part.
    void norm(CUdeviceptr delta, CUdeviceptr weights) {
        kernels_.add_norm(hidden_.at, delta, weights, normed_.at, config_.hidden, config_.epsilon);
    }

    struct Norms {
        CUdeviceptr input, query, key, after;
    };

    const df11::Model &model_;
    Config config_;
    unsigned context_, position_ = 0;
    Layout layout_;
    Stream stream_;
    Kernels kernels_;
    Memory state_, cache_, rotations_, norms_;
    Memory row_, hidden_, delta_, normed_, queries_, keys_, values_, attended_, gate_, up_, inner_, logits_;
    Pinned host_;  // the state, then the row of the embedding
    std::vector<Norms> layers_;
    CUdeviceptr last_norm_ = 0;
    std::unique_ptr<PlainHead> head_;  // if it is not compressed
    std::unique_ptr<Weights> weights_;
    CUgraphExec graph_ = nullptr;
};

}  // namespace engine

#endif
