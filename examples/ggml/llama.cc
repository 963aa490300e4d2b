// A DF11 model in unmodified libllama, which takes weights from a callback instead of a file
// (llama_model_init_from_user()). There are two ways:
//
//     df11-llama HEAD.gguf MODEL PROMPT [COUNT]            decoded once, when the model is loaded: bf16 in memory
//     df11-llama --stream HEAD.gguf MODEL PROMPT [COUNT]   layers stay compressed: two slots hold a decoded one each
//
// HEAD.gguf is as for df11-gguf. PROMPT is text, or token ids separated by commas. For streaming, libllama puts the
// layers' matrices into a buffer type of ours (tensor_buft_overrides), which places all of them in the same two slots,
// and calls back when a layer is computed (cb_eval). This needs ggml-backend-impl.h, version 3 of its interface.
// --bench measures instead of speaking; see bench.h. --plant MISTAKE makes a mistake for the tests; see slots.h.
#include "ggml-backend-impl.h"
#include "bench.h"
#include "slots.h"

#include <cstring>
#include <exception>

static_assert(GGML_BACKEND_API_VERSION == 3, "written for another version of ggml's backend interface");

namespace {

using namespace example;

// The names of the layers' matrices in libllama.
const char *const streamed = "^blk\\.[0-9]+\\.(attn_(q|k|v|output)|ffn_(gate|up|down))\\.weight$";

bool is_streamed(const char *name) {
    return layer_of(name) >= 0 && std::strstr(name, "norm") == nullptr && !hugging_face_name(name).empty();
}

// A buffer type whose tensors are in two slots: those of layer l in slot l % 2, in the order of the group's weights.
class Streamer {
  public:
    Streamer(const Model &model, const Shape &shape, const std::vector<Tensor> &tensors, Plant plant)
        : model_(model), layers_(size_t(shape.layers)), plant_(plant) {
        type_.iface.get_name = [](ggml_backend_buffer_type_t) { return "DF11_SLOTS"; };
        type_.iface.alloc_buffer = [](ggml_backend_buffer_type_t, size_t bytes) {
            return ggml_backend_buft_alloc_buffer(memory(), bytes);
        };
        type_.iface.alloc_buffer_n = [](ggml_backend_buffer_type_t type, ggml_tensor **tensors, int count) {
            return static_cast<Streamer *>(type->context)->place(tensors, count);
        };
        type_.iface.get_alignment = [](ggml_backend_buffer_type_t) {
            return ggml_backend_buft_get_alignment(memory());
        };
        type_.iface.is_host = [](ggml_backend_buffer_type_t) { return ggml_backend_buft_is_host(memory()); };
        type_.context = this;
        for (int64_t layer = 0; layer < shape.layers; layer++) {
            steps_.push_back(layer_step(model, tensors, layer));
            size_t bytes = size_t(2 * steps_.back().count);
            slot_bytes_ = std::max(slot_bytes_, bytes);
            layer_bytes_ += bytes;
            packed_bytes_ += model.group(steps_.back().group).packed_bytes;
        }
        slot_bytes_ = GGML_PAD(slot_bytes_, ggml_backend_buft_get_alignment(memory()));
    }

    ggml_backend_buffer_type_t type() { return &type_; }

    // Begins to decode, after libllama has placed the tensors.
    void start() {
        if (base_ == nullptr) throw std::runtime_error("libllama has not put the layers into the slots");
        decoder_ = std::make_unique<HostDecoder>(model_, std::array<void *, 2>{base_, base_ + slot_bytes_}, slot_bytes_,
                                                 threads_to_use());
        slots_ = std::make_unique<Slots>(*decoder_, steps_, plant_);
        slots_->acquire(0);
    }

    // Called before (`ask`) and after nodes of libllama's graph. After a layer's last node its slot is free, and the
    // next layer must be decoded before any node of it runs.
    static bool evaluated(ggml_tensor *node, bool ask, void *user) {
        Streamer &self = *static_cast<Streamer *>(user);
        if (std::strncmp(node->name, "l_out-", 6) != 0) return !ask;
        if (ask) return true;
        try {
            size_t layer = size_t(std::atol(node->name + 6));
            self.slots_->release(layer);
            self.slots_->acquire((layer + 1) % self.layers_);
            return true;
        } catch (...) {
            self.failure_ = std::current_exception();
            return false;  // cancels the graph
        }
    }

    // Waits for layers that are being decoded, because the slots are freed with libllama's model.
    void stop() {
        if (slots_) decoded_bytes_ = slots_->decoded_bytes();
        slots_.reset();
    }

    // The error of a callback. libllama only knows that the graph was cancelled.
    void rethrow() const {
        if (failure_) std::rethrow_exception(failure_);
    }

    void report() const {
        std::printf("layers %" PRIu64 " bytes in bf16, %" PRIu64 " compressed, two slots of %zu; decoded %" PRIu64 "\n",
                    layer_bytes_, packed_bytes_, slot_bytes_, decoded_bytes_);
    }

  private:
    // For a device it would be ggml_backend_dev_buffer_type(device).
    static ggml_backend_buffer_type_t memory() { return ggml_backend_cpu_buffer_type(); }

    ggml_backend_buffer_t place(ggml_tensor **tensors, int count) {
        size_t alignment = ggml_backend_buft_get_alignment(memory());
        ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(memory(), 2 * slot_bytes_ + alignment);
        if (buffer == nullptr) return nullptr;
        base_ = reinterpret_cast<unsigned char *>(
            GGML_PAD(reinterpret_cast<uintptr_t>(ggml_backend_buffer_get_base(buffer)), alignment));
        int placed = 0;
        for (int i = 0; i < count; i++) {
            uint64_t number;
            if (!model_.find(hugging_face_name(tensors[i]->name), number)) break;
            size_t offset = 2 * size_t(model_.tensor(number).group_offset);
            unsigned char *address = base_ + size_t(layer_of(tensors[i]->name) % 2) * slot_bytes_ + offset;
            if (offset % alignment != 0 ||
                ggml_backend_tensor_alloc(buffer, tensors[i], address) != GGML_STATUS_SUCCESS)
                break;
            placed++;
        }
        if (placed == count) return buffer;
        ggml_backend_buffer_free(buffer);
        return nullptr;
    }

    const Model &model_;
    size_t layers_;
    Plant plant_;
    ggml_backend_buffer_type type_{};
    std::vector<Step> steps_;
    size_t slot_bytes_ = 0;
    uint64_t layer_bytes_ = 0, packed_bytes_ = 0, decoded_bytes_ = 0;
    unsigned char *base_ = nullptr;
    std::unique_ptr<HostDecoder> decoder_;
    std::unique_ptr<Slots> slots_;
    std::exception_ptr failure_;
};

struct Source {
    const Model &model;
    bool stream;
};

// libllama asks for every tensor that its architecture may have, also for those that converters omit: missing biases
// are 0, missing scales 1, and a head for ranking is not used.
void set_tensor(ggml_tensor *tensor, void *user) {
    const Source &source = *static_cast<const Source *>(user);
    std::string name = tensor->name;
    if (source.stream && is_streamed(tensor->name)) return;
    std::vector<unsigned char> values(ggml_nbytes(tensor));
    auto ends_with = [&](const char *end) {
        size_t length = std::strlen(end);
        return name.size() >= length && name.compare(name.size() - length, length, end) == 0;
    };
    if (!hugging_face_name(name).empty()) {
        read_tensor(source.model, {name, {tensor->ne[0], tensor->ne[1]}, tensor->type}, values.data(),
                    threads_to_use());
    } else if (tensor->type == GGML_TYPE_F32 && ends_with("scale")) {
        float *scales = reinterpret_cast<float *>(values.data());
        std::fill(scales, scales + ggml_nelements(tensor), 1.0f);
    } else if (!ends_with(".bias") && name.compare(0, 4, "cls.") != 0) {
        throw std::runtime_error("libllama asks for an unknown tensor: " + name);
    }
    ggml_backend_tensor_set(tensor, values.data(), 0, values.size());
}

// Without a prompt it measures.
void run(const char *head_path, const char *model_path, const char *prompt, unsigned count, bool stream, Plant plant) {
    auto speak = [&](llama_model *model, const Hooks &hooks) {
        prompt != nullptr ? greedy(model, prompt, count, hooks) : bench(model, count, hooks);
    };
    Gguf head = open_gguf(head_path);
    Model model(model_path);
    Shape shape(head.get());
    shape.must_be_qwen3();
    std::vector<Tensor> tensors = tensors_of(shape, model);
    // An untied head is always in memory, in the embedding's type.
    if (std::none_of(tensors.begin(), tensors.end(), [](const Tensor &t) { return t.name == "output.weight"; }))
        tensors.push_back({"output.weight", {shape.embedding, shape.vocabulary}, GGML_TYPE_BF16});
    Gguf about = metadata(head.get(), tensors);

    // Outlives libllama's model, whose buffers have this type, but is stopped before their memory is freed.
    std::unique_ptr<Streamer> streamer = stream ? std::make_unique<Streamer>(model, shape, tensors, plant) : nullptr;
    llama_model_tensor_buft_override overrides[] = {{streamed, stream ? streamer->type() : nullptr},
                                                    {nullptr, nullptr}};
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    if (stream) params.tensor_buft_overrides = overrides;
    Source source{model, stream};
    LlamaModel loaded(llama_model_init_from_user(about.get(), set_tensor, &source, params));
    if (!loaded) throw std::runtime_error("libllama did not take the model");
    if (!stream) return speak(loaded.get(), {});
    struct Stop {
        Streamer *streamer;
        ~Stop() { streamer->stop(); }
    } stop{streamer.get()};
    streamer->start();
    speak(loaded.get(), {Streamer::evaluated, streamer.get(), [&] { streamer->rethrow(); }});
    streamer->stop();
    streamer->report();
}

}  // namespace

int main(int argc, char **argv) {
    bool stream = false, measure = false;
    Plant plant = Plant::nothing;
    int at = 1;
    try {
        for (; at < argc && std::strncmp(argv[at], "--", 2) == 0; at++) {
            if (std::strcmp(argv[at], "--stream") == 0)
                stream = true;
            else if (std::strcmp(argv[at], "--bench") == 0)
                measure = true;
            else if (std::strcmp(argv[at], "--plant") == 0 && at + 1 < argc)
                plant = plant_named(argv[++at]);
            else
                break;
        }
        if (argc - at < 3 - measure || argc - at > 4 - measure) {
            std::fprintf(stderr, "usage: df11-llama [--stream [--plant MISTAKE]] HEAD.gguf MODEL PROMPT [COUNT]\n"
                                 "       df11-llama --bench [--stream] HEAD.gguf MODEL [COUNT]\n");
            return 2;
        }
        llama_log_set(quiet, nullptr);
        ggml_backend_load_all();
        int number = at + 3 - measure;
        run(argv[at], argv[at + 1], measure ? nullptr : argv[at + 2],
            number < argc ? unsigned(std::atoi(argv[number])) : 16, stream, plant);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "df11-llama: %s\n", error.what());
        return 1;
    }
    return 0;
}
