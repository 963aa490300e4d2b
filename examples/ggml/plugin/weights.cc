// See weights.h.
#include "weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>

namespace example {

Model::Model(const std::string &path, uint32_t flags) {
    Error e;
    df11_model *opened = nullptr;
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    options.flags = flags;
    e.check(df11_model_open(path.c_str(), &options, &opened, &e));
    model_.reset(opened);
}

bool Model::find(const std::string &name, uint64_t &tensor) const {
    return df11_model_find_tensor(handle(), name.c_str(), &tensor, nullptr) == DF11_OK;
}

df11_tensor_info Model::tensor(uint64_t tensor) const {
    Error e;
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    e.check(df11_model_get_tensor_info(handle(), tensor, &info, &e));
    return info;
}

df11_group_info Model::group(uint64_t group) const {
    Error e;
    df11_group_info info = DF11_GROUP_INFO_INIT;
    e.check(df11_model_get_group_info(handle(), group, &info, &e));
    return info;
}

void Model::read(uint64_t tensor, uint64_t offset, void *to, size_t to_bytes, unsigned threads) const {
    Error e;
    e.check(df11_model_read_tensor(handle(), tensor, offset, to, to_bytes, threads, &e));
}

uint64_t Model::packed_bytes() const {
    uint64_t bytes = 0;
    for (uint64_t number = 0; number < df11_model_group_count(handle()); number++) bytes += group(number).packed_bytes;
    return bytes;
}

Gguf open_gguf(const std::string &path) {
    Gguf file(gguf_init_from_file(path.c_str(), {/*no_alloc*/ true, /*ctx*/ nullptr}));
    if (!file) throw std::runtime_error("cannot read " + path + " as GGUF");
    return file;
}

namespace {

// Returns the number of a key. gguf aborts the process if the type is wrong, so it is checked first.
int64_t key(const gguf_context *file, const char *name, gguf_type type) {
    int64_t id = gguf_find_key(file, name);
    if (id < 0 || gguf_get_kv_type(file, id) != type)
        throw std::runtime_error(std::string("the GGUF file has no ") + name + " of type " + gguf_type_name(type));
    return id;
}

int64_t u32(const gguf_context *file, const char *name) {
    uint32_t value = gguf_get_val_u32(file, key(file, name, GGUF_TYPE_UINT32));
    // With this limit no product below can overflow, whatever the file contains.
    if (value == 0 || value > (1u << 24))
        throw std::runtime_error(std::string("the GGUF file's ") + name + " is out of range");
    return value;
}

float f32(const gguf_context *file, const char *name) {
    return gguf_get_val_f32(file, key(file, name, GGUF_TYPE_FLOAT32));
}

struct Name {
    const char *gguf, *hugging_face;
};
const Name layer_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},       {"ffn_gate_inp", "mlp.gate"},
};
const Name other_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

}  // namespace

Shape::Shape(const gguf_context *file) {
    architecture = gguf_get_val_str(file, key(file, "general.architecture", GGUF_TYPE_STRING));
    if (architecture != "qwen3" && architecture != "qwen3moe" && architecture != "llama")
        throw std::runtime_error("the tensors of " + architecture + " do not follow from its metadata: give a GGUF " +
                                 "file of the same model that has tensors, with any quantisation");
    auto size = [&](const char *name) { return u32(file, (architecture + name).c_str()); };
    layers = size(".block_count");
    embedding = size(".embedding_length");
    heads = size(".attention.head_count");
    kv_heads = size(".attention.head_count_kv");
    head = size(".attention.key_length");
    if (architecture == "qwen3moe") experts = size(".expert_count");
    feed_forward = size(experts > 0 ? ".expert_feed_forward_length" : ".feed_forward_length");
    norm_epsilon = f32(file, (architecture + ".attention.layer_norm_rms_epsilon").c_str());
    rope_base = f32(file, (architecture + ".rope.freq_base").c_str());
    vocabulary = int64_t(gguf_get_arr_n(file, key(file, "tokenizer.ggml.tokens", GGUF_TYPE_ARRAY)));
}

void Shape::must_be_qwen3() const {
    if (architecture != "qwen3") throw std::runtime_error("this example knows qwen3, not " + architecture);
}

int64_t Tensor::rows() const {
    return std::accumulate(shape.begin() + 1, shape.end(), int64_t(1), std::multiplies<int64_t>());
}

int64_t layer_of(const std::string &name) {
    if (name.compare(0, 4, "blk.") != 0) return -1;
    char *end = nullptr;
    long layer = std::strtol(name.c_str() + 4, &end, 10);
    return end != name.c_str() + 4 && *end == '.' && layer >= 0 ? layer : -1;
}

std::string hugging_face_name(const std::string &name) {
    for (const Name &other : other_names)
        if (name == other.gguf) return other.hugging_face;
    int64_t layer = layer_of(name);
    if (layer < 0) return "";
    std::string rest = name.substr(name.find('.', 4) + 1);
    for (const Name &part : layer_names)
        if (rest == std::string(part.gguf) + ".weight")
            return "model.layers." + std::to_string(layer) + "." + part.hugging_face + ".weight";
    return "";
}

std::vector<Tensor> tensors_of(const Shape &s, const Model &model) {
    std::vector<Tensor> all;
    uint64_t unused;
    auto matrix = [&](const std::string &name, int64_t columns, int64_t rows) {
        all.push_back({name, {columns, rows}, GGML_TYPE_BF16});
    };
    auto norm = [&](const std::string &name, int64_t length) { all.push_back({name, {length, 1}, GGML_TYPE_F32}); };
    if (model.find("lm_head.weight", unused)) matrix("output.weight", s.embedding, s.vocabulary);
    matrix("token_embd.weight", s.embedding, s.vocabulary);
    norm("output_norm.weight", s.embedding);
    for (int64_t layer = 0; layer < s.layers; layer++) {
        std::string blk = "blk." + std::to_string(layer) + ".";
        norm(blk + "attn_norm.weight", s.embedding);
        matrix(blk + "attn_q.weight", s.embedding, s.head * s.heads);
        matrix(blk + "attn_k.weight", s.embedding, s.head * s.kv_heads);
        matrix(blk + "attn_v.weight", s.embedding, s.head * s.kv_heads);
        if (s.architecture != "llama") {
            norm(blk + "attn_q_norm.weight", s.head);
            norm(blk + "attn_k_norm.weight", s.head);
        }
        matrix(blk + "attn_output.weight", s.head * s.heads, s.embedding);
        norm(blk + "ffn_norm.weight", s.embedding);
        if (s.experts == 0) {
            matrix(blk + "ffn_gate.weight", s.embedding, s.feed_forward);
            matrix(blk + "ffn_up.weight", s.embedding, s.feed_forward);
            matrix(blk + "ffn_down.weight", s.feed_forward, s.embedding);
        } else {
            all.push_back({blk + "ffn_gate_inp.weight", {s.embedding, s.experts}, GGML_TYPE_F32});
            all.push_back({blk + "ffn_gate_exps.weight", {s.embedding, s.feed_forward, s.experts}, GGML_TYPE_BF16});
            all.push_back({blk + "ffn_up_exps.weight", {s.embedding, s.feed_forward, s.experts}, GGML_TYPE_BF16});
            all.push_back({blk + "ffn_down_exps.weight", {s.feed_forward, s.embedding, s.experts}, GGML_TYPE_BF16});
        }
    }
    // DF11 does not store shapes, so the number of weights is compared. That of experts is where they are read.
    for (const Tensor &tensor : all) {
        if (tensor.shape.size() > 2) continue;
        std::string name = hugging_face_name(tensor.name);
        uint64_t number;
        if (!model.find(name, number)) throw std::runtime_error("the model has no " + name);
        df11_tensor_info info = model.tensor(number);
        if (info.dtype != DF11_DTYPE_BF16 || info.data_bytes != 2 * uint64_t(tensor.shape[0] * tensor.rows()))
            throw std::runtime_error(name + " is not bf16 of the size that the GGUF file's metadata asks for");
    }
    return all;
}

void read_tensor(const Model &model, const Tensor &tensor, void *to, unsigned threads) {
    uint64_t number;
    bool tied = tensor.name == "output.weight" && !model.find("lm_head.weight", number);
    std::string name = tied ? "model.embed_tokens.weight" : hugging_face_name(tensor.name);
    if (!model.find(name, number)) throw std::runtime_error("the model has no " + name);
    size_t count = size_t(tensor.shape[0] * tensor.rows());
    if (tensor.type == GGML_TYPE_BF16) return model.read(number, 0, to, 2 * count, threads);
    // To F32, which is exact.
    std::vector<ggml_bf16_t> narrow(count);
    model.read(number, 0, narrow.data(), 2 * count, threads);
    ggml_bf16_to_fp32_row(narrow.data(), static_cast<float *>(to), int64_t(count));
}

bool find_source(const gguf_context *head_file, const Model &model, const Tensor &tensor, Source &source) {
    std::string architecture = gguf_get_val_str(head_file, key(head_file, "general.architecture", GGUF_TYPE_STRING));
    static const char *const known[] = {"llama", "qwen2", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3"};
    if (std::find(std::begin(known), std::end(known), architecture) == std::end(known)) return false;
    bool is_llama = architecture == "llama";
    int64_t experts = tensor.shape.size() > 2 ? tensor.shape[2] : 1;
    int64_t layer = layer_of(tensor.name);
    std::string part = layer < 0 ? tensor.name : tensor.name.substr(tensor.name.find('.', 4) + 1);
    struct ExpertName {
        const char *gguf, *qwen, *mixtral;
    };
    static const ExpertName expert_names[] = {{"ffn_gate_exps.weight", "gate_proj", "w1"},
                                              {"ffn_up_exps.weight", "up_proj", "w3"},
                                              {"ffn_down_exps.weight", "down_proj", "w2"}};
    std::vector<std::string> names;
    for (const ExpertName &name : expert_names)
        for (int64_t expert = 0; layer >= 0 && part == name.gguf && expert < experts; expert++)
            names.push_back("model.layers." + std::to_string(layer) +
                            (is_llama ? ".block_sparse_moe.experts." : ".mlp.experts.") + std::to_string(expert) + "." +
                            (is_llama ? name.mixtral : name.qwen) + ".weight");
    if (is_llama && part == "ffn_gate_inp.weight")
        names = {"model.layers." + std::to_string(layer) + ".block_sparse_moe.gate.weight"};
    if (names.empty()) names = {hugging_face_name(tensor.name)};
    if (names[0].empty()) return false;
    // The language models of models of images and text.
    source = {};
    for (const char *prefix : {"model.", "model.language_model.", "language_model.model."}) {
        for (const std::string &name : names) {
            std::string whole = name.compare(0, 6, "model.") == 0 ? prefix + name.substr(6) : name;
            uint64_t number;
            if (!model.find(whole, number)) break;
            df11_tensor_info info = model.tensor(number);
            uint64_t bytes = 2 * uint64_t(tensor.shape[0] * tensor.rows());
            if (info.dtype != DF11_DTYPE_BF16 || info.data_bytes * names.size() != bytes)
                throw std::runtime_error(whole + " is not bf16 of the size that the GGUF file has for " + tensor.name);
            source.tensors.push_back(number);
        }
        if (!source.tensors.empty()) break;
    }
    if (source.tensors.size() != names.size()) return false;
    if (is_llama && (part == "attn_q.weight" || part == "attn_k.weight")) {
        source.permuted_heads = u32(head_file, "llama.attention.head_count");
        if (part == "attn_k.weight" && gguf_find_key(head_file, "llama.attention.head_count_kv") >= 0)
            source.permuted_heads = u32(head_file, "llama.attention.head_count_kv");
    }
    return true;
}

void read_source(const Model &model, const Source &source, int64_t rows, void *to, size_t to_bytes, unsigned threads) {
    unsigned char *at = static_cast<unsigned char *>(to);
    size_t each = to_bytes / source.tensors.size();
    for (uint64_t tensor : source.tensors) {
        if (model.tensor(tensor).data_bytes != each || each * source.tensors.size() != to_bytes)
            throw std::runtime_error("the DF11 model has it in another size");
        model.read(tensor, 0, at, each, threads);
        at += each;
    }
    if (source.permuted_heads == 0) return;
    if (rows <= 0 || rows % (2 * source.permuted_heads) != 0) throw std::runtime_error("its rows cannot be permuted");
    int64_t half = rows / source.permuted_heads / 2;
    size_t row_bytes = to_bytes / size_t(rows);
    std::vector<unsigned char> original(static_cast<unsigned char *>(to), static_cast<unsigned char *>(to) + to_bytes);
    for (int64_t row = 0; row < rows; row++) {
        int64_t head = row / (2 * half), i = row % (2 * half) / 2, j = row % 2;
        std::memcpy(static_cast<unsigned char *>(to) + size_t(row) * row_bytes,
                    original.data() + size_t(head * 2 * half + j * half + i) * row_bytes, row_bytes);
    }
}

Gguf metadata(const gguf_context *head_file, const std::vector<Tensor> &tensors) {
    Gguf file(gguf_init_empty());
    gguf_set_kv(file.get(), head_file);
    // The head may come from a file of another kind, in parts or quantised.
    for (const char *split : {"split.no", "split.count", "split.tensors.count", "general.quantization_version"})
        gguf_remove_key(file.get(), split);
    gguf_set_val_u32(file.get(), "general.file_type", 32);  // mostly BF16
    Context context(ggml_init({ggml_tensor_overhead() * tensors.size(), nullptr, /*no_alloc*/ true}));
    for (const Tensor &tensor : tensors) {
        ggml_tensor *t = ggml_new_tensor(context.get(), tensor.type, int(tensor.shape.size()), tensor.shape.data());
        ggml_set_name(t, tensor.name.c_str());
        gguf_add_tensor(file.get(), t);
    }
    return file;
}

}  // namespace example
