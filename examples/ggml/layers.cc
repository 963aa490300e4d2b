// A Qwen3 transformer on ggml's public headers alone, whose weights stay compressed. There is one small graph for each
// layer, built once, and two slots. Layer l computes from slot l % 2 while the next layer is decoded into the other
// slot. The head, which may be larger than a layer, goes through the same slots in pieces. Addresses never change.
//
//     layers HEAD.gguf MODEL TOKENS [COUNT [ORIGINAL]]
//
// TOKENS are ids separated by commas. The program continues the prompt with COUNT tokens, without a cache of keys and
// values: each pass computes all positions, and the mask hides later ones. ORIGINAL is the model before compression.
// With it, the same graphs also run on uncompressed weights, and every bit of all logits is compared.
//
// --device decodes on the first CUDA device, which then holds the compressed images (device.h), and lets ggml compute
// on the best backend that it was built with. --plant MISTAKE makes a mistake for the tests; see slots.h.
#include "device.h"
#include "slots.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "tokens.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>

namespace {

using namespace example;

struct BackendFreed {
    void operator()(ggml_backend *backend) const { ggml_backend_free(backend); }
    void operator()(ggml_backend_buffer *buffer) const { ggml_backend_buffer_free(buffer); }
    void operator()(ggml_gallocr *allocator) const { ggml_gallocr_free(allocator); }
};
using Backend = std::unique_ptr<ggml_backend, BackendFreed>;
using Buffer = std::unique_ptr<ggml_backend_buffer, BackendFreed>;
using Allocator = std::unique_ptr<ggml_gallocr, BackendFreed>;

// A matrix of a step, or some of its rows, and its position among the step's weights.
struct Part {
    Tensor tensor;
    int64_t first_row;
    uint64_t offset;  // in elements
};

// The streamed weights in their order: the layers, then the head in pieces, if it is compressed.
struct Plan {
    std::vector<Step> steps;
    std::vector<std::vector<Part>> parts;
    size_t slot_bytes = 0;
    size_t layers;

    Plan(const Model &model, const Shape &shape, const std::vector<Tensor> &tensors) : layers(size_t(shape.layers)) {
        for (size_t layer = 0; layer < layers; layer++) {
            steps.push_back(layer_step(model, tensors, int64_t(layer)));
            parts.emplace_back();
            for (const Tensor &tensor : tensors)
                if (layer_of(tensor.name) == int64_t(layer) && tensor.type == GGML_TYPE_BF16) {
                    uint64_t t;
                    model.find(hugging_face_name(tensor.name), t);  // layer_step() has found it before
                    parts.back().push_back({tensor, 0, model.tensor(t).group_offset});
                }
            slot_bytes = std::max(slot_bytes, size_t(2 * steps.back().count));
        }
        const Tensor &head = tensors.front();
        uint64_t t;
        // A head in several groups is read as a plain one is.
        if (head.name != "output.weight" || !model.find("lm_head.weight", t) || model.tensor(t).run_count != 1) return;
        // Pieces of whole rows, as many as a slot holds, and at least three pieces, so that a small model reuses slots
        // too.
        int64_t rows = std::max<int64_t>(1, std::min(int64_t(slot_bytes / 2) / head.shape[0], (head.shape[1] + 2) / 3));
        slot_bytes = std::max(slot_bytes, size_t(2 * rows * head.shape[0]));
        for (int64_t row = 0; row < head.shape[1]; row += rows) {
            int64_t count = std::min(rows, head.shape[1] - row);
            uint64_t first = model.tensor(t).group_offset + uint64_t(row * head.shape[0]);
            steps.push_back({model.tensor(t).group, first, uint64_t(count * head.shape[0])});
            parts.push_back({{{head.name, {head.shape[0], count}, head.type}, row, 0}});
        }
    }
};

// The model's graphs on weights at given addresses. Everything except the streamed matrices is in buffers of this
// class.
class Transformer {
  public:
    // `memory` holds the streamed weights, and `address` returns the address of a step in it. Everything else is read
    // from `model`.
    Transformer(ggml_backend *backend, const Model &model, const Shape &shape, const std::vector<Tensor> &tensors,
                const Plan &plan, int64_t positions, ggml_backend_buffer *memory,
                const std::function<unsigned char *(size_t)> &address)
        : backend_(backend), model_(model), s_(shape), positions_(positions), layers_(plan.layers) {
        size_t objects = tensors.size() * 2 + 64 + 64 * plan.steps.size();
        context_.reset(ggml_init(
            {ggml_tensor_overhead() * objects + ggml_graph_overhead_custom(64, false) * (plan.steps.size() + 2),
             nullptr, /*no_alloc*/ true}));
        ggml_context *c = context_.get();
        // The weights that are always in memory: norms, and matrices outside all layers and groups.
        resident_context_.reset(ggml_init({ggml_tensor_overhead() * (tensors.size() + 8), nullptr, true}));
        ggml_context *r = resident_context_.get();
        bool streamed_head = plan.steps.size() > layers_;
        for (const Tensor &tensor : tensors) {
            bool head = tensor.name == "output.weight" ||
                        (tensor.name == "token_embd.weight" && tensors[0].name != "output.weight");
            if (tensor.type == GGML_TYPE_F32 || (head && !streamed_head)) {
                ggml_tensor *t = ggml_new_tensor_2d(r, tensor.type, tensor.shape[0], tensor.shape[1]);
                weights_[head ? "head" : tensor.name] = t;
                resident_.push_back({t, tensor});
            }
        }
        hidden_[0] = ggml_new_tensor_2d(r, GGML_TYPE_F32, s_.embedding, positions);
        hidden_[1] = ggml_new_tensor_2d(r, GGML_TYPE_F32, s_.embedding, positions);
        normed_ = ggml_new_tensor_2d(r, GGML_TYPE_F32, s_.embedding, positions);
        logits_ = ggml_new_tensor_2d(r, GGML_TYPE_F32, s_.vocabulary, positions);
        places_ = ggml_new_tensor_1d(r, GGML_TYPE_I32, positions);
        mask_ = ggml_new_tensor_2d(r, GGML_TYPE_F32, positions, positions);
        buffer_.reset(ggml_backend_alloc_ctx_tensors(r, backend));
        if (!buffer_) throw std::runtime_error("no memory for activations");

        for (size_t step = 0; step < plan.steps.size(); step++) {
            std::vector<ggml_tensor *> matrices;
            for (const Part &part : plan.parts[step]) {
                ggml_tensor *t = ggml_new_tensor_2d(c, part.tensor.type, part.tensor.shape[0], part.tensor.shape[1]);
                unsigned char *at = address(step) + 2 * part.offset;
                if (reinterpret_cast<uintptr_t>(at) % ggml_backend_get_alignment(backend) != 0 ||
                    ggml_backend_tensor_alloc(memory, t, at) != GGML_STATUS_SUCCESS)
                    throw std::runtime_error(part.tensor.name + " cannot be placed where it is decoded");
                matrices.push_back(t);
                if (step < layers_) weights_[part.tensor.name] = t;
            }
            graphs_.push_back(step < layers_ ? layer(step) : head(matrices[0], plan.parts[step][0].first_row));
            matrices_.push_back(std::move(matrices));
        }
        norm_ = ggml_new_graph_custom(c, 64, false);
        ggml_tensor *normed = norm(hidden_[layers_ % 2], "output_norm.weight");
        ggml_build_forward_expand(norm_, ggml_cpy(c, normed, normed_));
        if (!streamed_head) head_ = head(weights_["head"], 0);

        // One compute buffer serves all graphs, which run one after the other. It is as large as the largest needs.
        allocator_.reset(ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend)));
        std::vector<ggml_cgraph *> all = graphs_;
        all.push_back(norm_);
        if (head_ != nullptr) all.push_back(head_);
        for (ggml_cgraph *graph : all)
            if (!ggml_gallocr_reserve(allocator_.get(), graph)) throw std::runtime_error("no memory to compute in");
        for (ggml_cgraph *graph : all)
            if (!ggml_gallocr_alloc_graph(allocator_.get(), graph)) throw std::runtime_error("no memory to compute in");
        fill();
    }

    // Fills the memory of all steps with the model's weights, for a model that is not streamed.
    void fill_steps(const Plan &plan) {
        std::vector<unsigned char> values;
        for (size_t step = 0; step < plan.steps.size(); step++)
            for (size_t part = 0; part < plan.parts[step].size(); part++) {
                const Part &p = plan.parts[step][part];
                uint64_t number;
                if (!model_.find(hugging_face_name(p.tensor.name), number))
                    throw std::runtime_error("the original has no " + p.tensor.name);
                values.resize(p.tensor.bytes());
                model_.read(number, uint64_t(2 * p.first_row * p.tensor.shape[0]), values.data(), values.size(),
                            threads_to_use());
                ggml_backend_tensor_set(matrices_[step][part], values.data(), 0, values.size());
            }
    }

    // Computes the logits of all positions. `before` and `after` are called around each step.
    void pass(const std::vector<int32_t> &tokens, const std::function<void(size_t)> &before,
              const std::function<void(size_t)> &after) {
        embed(tokens);
        for (size_t step = 0; step < graphs_.size(); step++) {
            if (step == layers_) compute(norm_);
            before(step);
            compute(graphs_[step]);
            after(step);
        }
        if (head_ != nullptr) {
            compute(norm_);
            compute(head_);
        }
    }

    // Returns the logits of the last pass at a position.
    std::vector<float> logits(size_t position) const {
        std::vector<float> row(size_t(s_.vocabulary));
        ggml_backend_tensor_get(logits_, row.data(), position * row.size() * sizeof(float), row.size() * sizeof(float));
        return row;
    }

    std::vector<float> all_logits() const {
        std::vector<float> all(size_t(s_.vocabulary * positions_));
        ggml_backend_tensor_get(logits_, all.data(), 0, all.size() * sizeof(float));
        return all;
    }

  private:
    ggml_tensor *weight(const std::string &name) { return weights_.at(name); }

    ggml_tensor *norm(ggml_tensor *x, const std::string &name) {
        return ggml_mul(context_.get(), ggml_rms_norm(context_.get(), x, s_.norm_epsilon), weight(name));
    }

    ggml_tensor *rope(ggml_tensor *x) {
        return ggml_rope_ext(context_.get(), x, places_, nullptr, int(s_.head), GGML_ROPE_TYPE_NEOX, 0, s_.rope_base, 1,
                             0, 1, 32, 1);
    }

    ggml_cgraph *layer(size_t l) {
        ggml_context *c = context_.get();
        std::string blk = "blk." + std::to_string(l) + ".";
        int64_t n = positions_;
        ggml_tensor *in = hidden_[l % 2], *out = hidden_[(l + 1) % 2];
        ggml_tensor *x = norm(in, blk + "attn_norm.weight");
        auto project = [&](const char *name, int64_t heads) {
            return ggml_reshape_3d(c, ggml_mul_mat(c, weight(blk + name), x), s_.head, heads, n);
        };
        ggml_tensor *q = rope(norm(project("attn_q.weight", s_.heads), blk + "attn_q_norm.weight"));
        ggml_tensor *k = rope(norm(project("attn_k.weight", s_.kv_heads), blk + "attn_k_norm.weight"));
        ggml_tensor *v = project("attn_v.weight", s_.kv_heads);
        q = ggml_permute(c, q, 0, 2, 1, 3);  // head, position, number of head
        k = ggml_permute(c, k, 0, 2, 1, 3);
        v = ggml_cont(c, ggml_permute(c, v, 1, 2, 0, 3));  // position, head, number of head
        ggml_tensor *scores = ggml_mul_mat(c, k, q);
        scores = ggml_soft_max_ext(c, scores, mask_, 1.0f / std::sqrt(float(s_.head)), 0);
        ggml_tensor *attended = ggml_permute(c, ggml_mul_mat(c, v, scores), 0, 2, 1, 3);
        attended = ggml_cont_2d(c, attended, s_.head * s_.heads, n);
        ggml_tensor *middle = ggml_add(c, ggml_mul_mat(c, weight(blk + "attn_output.weight"), attended), in);
        x = norm(middle, blk + "ffn_norm.weight");
        ggml_tensor *gate = ggml_silu(c, ggml_mul_mat(c, weight(blk + "ffn_gate.weight"), x));
        ggml_tensor *up = ggml_mul_mat(c, weight(blk + "ffn_up.weight"), x);
        ggml_tensor *down = ggml_mul_mat(c, weight(blk + "ffn_down.weight"), ggml_mul(c, gate, up));
        ggml_cgraph *graph = ggml_new_graph_custom(c, 64, false);
        ggml_build_forward_expand(graph, ggml_cpy(c, ggml_add(c, down, middle), out));
        return graph;
    }

    // Returns a graph of the logits from `row` on, for the rows of the head that `matrix` has.
    ggml_cgraph *head(ggml_tensor *matrix, int64_t row) {
        ggml_context *c = context_.get();
        ggml_tensor *to =
            ggml_view_2d(c, logits_, matrix->ne[1], positions_, logits_->nb[1], size_t(row) * sizeof(float));
        ggml_cgraph *graph = ggml_new_graph_custom(c, 64, false);
        ggml_build_forward_expand(graph, ggml_cpy(c, ggml_mul_mat(c, matrix, normed_), to));
        return graph;
    }

    void fill() {
        std::vector<unsigned char> values;
        for (const auto &[to, tensor] : resident_) {
            values.resize(tensor.bytes());
            read_tensor(model_, tensor, values.data(), threads_to_use());
            ggml_backend_tensor_set(to, values.data(), 0, values.size());
        }
        std::vector<int32_t> places;
        std::vector<float> mask(size_t(positions_ * positions_));
        for (int32_t i = 0; i < positions_; i++) {
            places.push_back(i);
            for (int64_t j = i + 1; j < positions_; j++) mask[size_t(i * positions_ + j)] = -INFINITY;
        }
        ggml_backend_tensor_set(places_, places.data(), 0, ggml_nbytes(places_));
        ggml_backend_tensor_set(mask_, mask.data(), 0, ggml_nbytes(mask_));
    }

    // Reads rows of the embedding, which stays compressed too: each is a range of its group.
    void embed(const std::vector<int32_t> &tokens) {
        uint64_t number;
        if (!model_.find("model.embed_tokens.weight", number)) throw std::runtime_error("the model has no embedding");
        std::vector<ggml_bf16_t> row(size_t(s_.embedding));
        std::vector<float> all(size_t(s_.embedding * positions_));
        for (size_t i = 0; i < tokens.size(); i++) {
            model_.read(number, uint64_t(tokens[i]) * row.size() * 2, row.data(), row.size() * 2, 1);
            ggml_bf16_to_fp32_row(row.data(), all.data() + i * row.size(), s_.embedding);
        }
        ggml_backend_tensor_set(hidden_[0], all.data(), 0, ggml_nbytes(hidden_[0]));
    }

    void compute(ggml_cgraph *graph) {
        if (ggml_backend_graph_compute(backend_, graph) != GGML_STATUS_SUCCESS)
            throw std::runtime_error("ggml failed to compute");
    }

    ggml_backend *backend_;
    const Model &model_;
    Shape s_;
    int64_t positions_;
    size_t layers_;
    Context context_, resident_context_;
    Buffer buffer_;
    Allocator allocator_;
    std::map<std::string, ggml_tensor *> weights_;
    std::vector<std::pair<ggml_tensor *, Tensor>> resident_;
    std::vector<std::vector<ggml_tensor *>> matrices_;  // by step
    ggml_tensor *hidden_[2], *normed_, *logits_, *places_, *mask_;
    std::vector<ggml_cgraph *> graphs_;
    ggml_cgraph *norm_, *head_ = nullptr;
};

Buffer allocate(ggml_backend *backend, size_t bytes) {
    Buffer buffer(ggml_backend_alloc_buffer(backend, bytes));
    if (!buffer) throw std::runtime_error("no memory for " + std::to_string(bytes) + " bytes of weights");
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    return buffer;
}

int run(const char *head_path, const char *model_path, std::vector<int32_t> tokens, unsigned count,
        const char *original_path, Plant plant, bool device) {
    Gguf head = open_gguf(head_path);
    Shape shape(head.get());
    shape.must_be_qwen3();
    Model model(model_path);
    std::vector<Tensor> tensors = tensors_of(shape, model);
    Plan plan(model, shape, tensors);
    for (int32_t token : tokens)
        if (token >= shape.vocabulary) throw std::runtime_error("the prompt has a token that the model does not know");
    int64_t positions = int64_t(tokens.size() + count);

    Backend backend(device ? ggml_backend_init_best()
                           : ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    if (!backend) throw std::runtime_error("ggml has no backend");
    auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get())), "ggml_backend_set_n_threads"));
    if (set_threads != nullptr) set_threads(backend.get(), int(threads_to_use()));
    size_t alignment = ggml_backend_get_alignment(backend.get());
    auto base = [&](const Buffer &buffer) {
        return reinterpret_cast<unsigned char *>(
            GGML_PAD(reinterpret_cast<uintptr_t>(ggml_backend_buffer_get_base(buffer.get())), alignment));
    };

    // The two differ in the address of a step's weights.
    size_t slot_bytes = GGML_PAD(plan.slot_bytes, alignment), resident_bytes = 0;
    // If ggml computes on the CPU and a device decodes, the slots are in pinned memory, which both can access.
    std::unique_ptr<PinnedMemory> pinned;
    Buffer two;
    if (device && ggml_backend_buft_is_host(ggml_backend_get_default_buffer_type(backend.get()))) {
        pinned = std::make_unique<PinnedMemory>(2 * slot_bytes + alignment);
        two.reset(ggml_backend_cpu_buffer_from_ptr(pinned->data(), pinned->size()));
    } else {
        two = allocate(backend.get(), 2 * slot_bytes + alignment);
    }
    std::array<void *, 2> slots{base(two), base(two) + slot_bytes};
    Transformer streamed(backend.get(), model, shape, tensors, plan, positions, two.get(),
                         [&](size_t step) { return base(two) + step % 2 * slot_bytes; });
    std::vector<size_t> offsets;
    for (const Step &step : plan.steps) {
        offsets.push_back(resident_bytes);
        resident_bytes += GGML_PAD(2 * size_t(step.count), alignment);
    }
    std::unique_ptr<Model> original;
    Buffer whole;
    std::unique_ptr<Transformer> resident;
    if (original_path != nullptr) {
        original = std::make_unique<Model>(original_path);
        whole = allocate(backend.get(), resident_bytes + alignment);
        resident = std::make_unique<Transformer>(backend.get(), *original, shape, tensors, plan, positions, whole.get(),
                                                 [&](size_t step) { return base(whole) + offsets[step]; });
        resident->fill_steps(plan);
    }

    std::unique_ptr<Decoder> decoder;
    if (device)
        decoder = std::make_unique<DeviceDecoder>(model, plan.steps, slots, slot_bytes);
    else
        decoder = std::make_unique<HostDecoder>(model, slots, slot_bytes, threads_to_use());
    Slots ring(*decoder, plan.steps, plant);
    std::vector<int32_t> made;
    uint64_t sum = digest(nullptr, 0);
    unsigned equal = 0;
    for (unsigned i = 0; i < count; i++) {
        streamed.pass(tokens, [&](size_t step) { ring.acquire(step); }, [&](size_t step) { ring.release(step); });
        std::vector<float> all = streamed.all_logits();
        sum = digest(all.data(), all.size() * sizeof(float), sum);
        if (resident) {
            resident->pass(tokens, [](size_t) {}, [](size_t) {});
            std::vector<float> theirs = resident->all_logits();
            equal += std::memcmp(all.data(), theirs.data(), all.size() * sizeof(float)) == 0;
        }
        std::vector<float> last = streamed.logits(tokens.size() - 1);
        made.push_back(likeliest(last.data(), last.size()));
        tokens.push_back(made.back());
    }
    print_tokens("tokens", made);
    std::printf("logits %016" PRIx64 "\n", sum);
    std::printf("weights of layers and head: %zu bytes where they are resident\n", resident_bytes);
    std::printf("weights streamed: two slots of %zu bytes; %" PRIu64 " bytes compressed, which the files hold\n",
                slot_bytes, model.packed_bytes());
    std::printf("%zu steps a pass; decoded %" PRIu64 " bytes\n", plan.steps.size(), ring.decoded_bytes());
    if (!resident) return 0;
    std::printf("%u of %u passes gave the logits of resident weights, bit for bit\n", equal, count);
    return equal == count ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        Plant plant = Plant::nothing;
        bool device = argc > 1 && std::strcmp(argv[1], "--device") == 0;
        argv += device;
        argc -= device;
        if (argc > 2 && std::strcmp(argv[1], "--plant") == 0) {
            plant = plant_named(argv[2]);
            argv += 2;
            argc -= 2;
        }
        std::vector<int32_t> tokens;
        if (argc < 4 || argc > 6 || !parse_tokens(argv[3], tokens)) {
            std::fprintf(stderr,
                         "usage: layers [--device] [--plant MISTAKE] HEAD.gguf MODEL TOKENS [COUNT [ORIGINAL]]\n");
            return 2;
        }
        ggml_backend_load_all();
        return run(argv[1], argv[2], tokens, argc > 4 ? unsigned(std::atoi(argv[4])) : 4, argc > 5 ? argv[5] : nullptr,
                   plant, device);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "layers: %s\n", error.what());
        return 1;
    }
}
