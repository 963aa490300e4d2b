// What llama-bench measures, inside a process: tokens a second one by one and for a prompt, and memory. See greedy.h.
#ifndef DF11_EXAMPLE_GGML_BENCH_H
#define DF11_EXAMPLE_GGML_BENCH_H

#include "greedy.h"

#include <chrono>
#include <ctime>

namespace example {

// Returns the MiB that /proc/self/status has for a key, such as RssAnon.
inline double memory_mib(const std::string &key) {
    std::unique_ptr<FILE, int (*)(FILE *)> status(std::fopen("/proc/self/status", "r"), &std::fclose);
    char line[256];
    while (status && std::fgets(line, sizeof(line), status.get()) != nullptr)
        if (std::string(line).compare(0, key.size() + 1, key + ":") == 0)
            return std::atof(line + key.size() + 1) / 1024;
    throw std::runtime_error("the system does not say " + key);
}

// Makes `count` tokens, each from the last, and computes a prompt of 512 tokens, with libllama's defaults. Prints a
// line.
inline void bench(llama_model *model, unsigned count, const Hooks &hooks = {}) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 1024;
    params.n_batch = params.n_ubatch = 512;
    params.n_threads = params.n_threads_batch = int32_t(threads_to_use());
    params.cb_eval = hooks.evaluated;
    params.cb_eval_user_data = hooks.user;
    LlamaContext context(llama_init_from_model(model, params));
    if (!context) throw std::runtime_error("libllama made no context");
    size_t vocabulary = size_t(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    uint64_t sum = digest(nullptr, 0);
    auto seconds_for = [&](std::vector<llama_token> &tokens) {
        auto begin = std::chrono::steady_clock::now();
        if (llama_decode(context.get(), llama_batch_get_one(tokens.data(), int32_t(tokens.size()))) != 0)
            throw std::runtime_error("libllama failed to decode");
        if (hooks.computed) hooks.computed();
        const float *logits = llama_get_logits_ith(context.get(), -1);
        double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        sum = digest(logits, vocabulary * sizeof(float), sum);
        tokens[0] = likeliest(logits, vocabulary);
        return took;
    };
    auto median = [](std::vector<double> times) {
        std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
        return times[times.size() / 2];
    };
    constexpr unsigned warm = 3;
    std::vector<llama_token> token{5};
    std::vector<double> times, cpu_times;
    for (unsigned i = 0; i < warm + count; i++) {
        std::clock_t before = std::clock();
        double took = seconds_for(token);
        if (i < warm) continue;
        times.push_back(took);
        cpu_times.push_back(double(std::clock() - before) / CLOCKS_PER_SEC);
    }
    double anonymous = memory_mib("RssAnon"), resident = memory_mib("VmRSS");
    std::vector<double> prompts, cpu_prompts;
    for (int i = 0; i < 3; i++) {
        llama_memory_clear(llama_get_memory(context.get()), true);
        std::vector<llama_token> prompt(512);
        for (size_t p = 0; p < prompt.size(); p++) prompt[p] = llama_token((p * 7 + 3) % 250);
        std::clock_t before = std::clock();
        prompts.push_back(seconds_for(prompt));
        cpu_prompts.push_back(double(std::clock() - before) / CLOCKS_PER_SEC);
    }
    std::printf("bench threads %d token_ms %.3f best_ms %.3f token_cpu_ms %.3f prompt_ms %.1f prompt_best_ms %.1f "
                "prompt_cpu_ms %.1f anonymous_mib %.0f resident_mib %.0f logits %016" PRIx64 "\n",
                int(threads_to_use()), median(times) * 1e3, *std::min_element(times.begin(), times.end()) * 1e3,
                median(cpu_times) * 1e3, median(prompts) * 1e3, *std::min_element(prompts.begin(), prompts.end()) * 1e3,
                median(cpu_prompts) * 1e3, anonymous, resident, sum);
}

}  // namespace example

#endif
