// Greedy decoding with libllama. All programs here share it, so that they differ only in how weights get into memory.
// It does not know DF11.
#ifndef DF11_EXAMPLE_GGML_GREEDY_H
#define DF11_EXAMPLE_GGML_GREEDY_H

#include "llama.h"
#include "tokens.h"

#include <functional>
#include <memory>
#include <stdexcept>

namespace example {

// Suppresses the log of libllama and ggml, except warnings and errors.
inline void quiet(ggml_log_level level, const char *text, void *) {
    if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

struct LlamaFreed {
    void operator()(llama_model *model) const { llama_model_free(model); }
    void operator()(llama_context *context) const { llama_free(context); }
};
using LlamaModel = std::unique_ptr<llama_model, LlamaFreed>;
using LlamaContext = std::unique_ptr<llama_context, LlamaFreed>;

// Returns a prompt's tokens. The prompt is a list of ids, or text for the model's vocabulary.
inline std::vector<llama_token> prompt_tokens(const llama_model *model, const std::string &prompt) {
    std::vector<llama_token> tokens;
    if (!parse_tokens(prompt, tokens)) {
        const llama_vocab *vocabulary = llama_model_get_vocab(model);
        tokens.resize(prompt.size() + 2);
        int count =
            llama_tokenize(vocabulary, prompt.data(), int32_t(prompt.size()), tokens.data(), int32_t(tokens.size()),
                           /*add_special*/ true, /*parse_special*/ true);
        tokens.resize(size_t(std::max(count, 0)));
    }
    if (tokens.empty()) throw std::runtime_error("the prompt has no tokens");
    int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (llama_token token : tokens)
        if (token >= vocabulary) throw std::runtime_error("the prompt has a token that the model does not know");
    return tokens;
}

// Functions that are called while libllama computes.
struct Hooks {
    ggml_backend_sched_eval_callback evaluated = nullptr;  // between the nodes of libllama's graph
    void *user = nullptr;
    // Called after each pass. It throws if `evaluated` has cancelled the pass, which libllama reports as success.
    std::function<void()> computed;
};

// Continues a prompt with `count` tokens. Prints both, and the digest of all logits.
inline void greedy(llama_model *model, const std::string &prompt, unsigned count, const Hooks &hooks = {}) {
    std::vector<llama_token> tokens = prompt_tokens(model, prompt);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = uint32_t(tokens.size()) + count;
    params.n_threads = params.n_threads_batch = int32_t(threads_to_use());
    // As in layers.cc, so that the tokens can be compared: nothing is rounded to half precision.
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.cb_eval = hooks.evaluated;
    params.cb_eval_user_data = hooks.user;
    LlamaContext context(llama_init_from_model(model, params));
    if (!context) throw std::runtime_error("libllama made no context");
    size_t vocabulary = size_t(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    std::vector<llama_token> made, next = tokens;
    uint64_t sum = digest(nullptr, 0);
    while (made.size() < count) {
        if (llama_decode(context.get(), llama_batch_get_one(next.data(), int32_t(next.size()))) != 0)
            throw std::runtime_error("libllama failed to decode");
        if (hooks.computed) hooks.computed();
        const float *logits = llama_get_logits_ith(context.get(), -1);
        if (logits == nullptr) throw std::runtime_error("libllama computed no logits");
        sum = digest(logits, vocabulary * sizeof(float), sum);
        next = {likeliest(logits, vocabulary)};
        made.push_back(next[0]);
    }
    print_tokens("prompt", tokens);
    print_tokens("tokens", made);
    std::string text;
    for (llama_token token : made) {
        char piece[256];
        int length =
            llama_token_to_piece(llama_model_get_vocab(model), token, piece, sizeof(piece), 0, /*special*/ true);
        text.append(piece, size_t(std::max(length, 0)));
    }
    // A random model may produce any bytes: those that are not printable ASCII are shown as dots.
    for (char &c : text)
        if (c < 32 || c > 126) c = '.';
    std::printf("text %s\nlogits %016" PRIx64 "\n", text.c_str(), sum);
}

}  // namespace example

#endif
