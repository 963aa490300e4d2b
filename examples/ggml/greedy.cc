// A program that does not know DF11: it loads a GGUF file with unmodified libllama and continues a prompt. It
// represents llama-cli and similar programs, which make the same two calls. With GGML_BACKEND_PATH it uses the plug-in
// (plugin.cc).
//
//     greedy [--no-mmap] [--rpc] MODEL.gguf PROMPT [COUNT]        PROMPT is text, or token ids separated by commas
//     greedy [--no-mmap] [--rpc] --bench MODEL.gguf [COUNT]       measures instead; see bench.h
//
// With --rpc the model is on the server at DF11_EXAMPLE_RPC, HOST:PORT.
#include "bench.h"

#include <cstring>

int main(int argc, char **argv) {
    auto option = [&](const char *name) {
        bool given = argc > 1 && std::strcmp(argv[1], name) == 0;
        argv += given;
        argc -= given;
        return given;
    };
    bool no_mmap = option("--no-mmap"), remote = option("--rpc"), measure = option("--bench");
    if (argc < 3 - measure || argc > 4 - measure) {
        std::fprintf(stderr, "usage: greedy [--no-mmap] [--rpc] MODEL.gguf PROMPT [COUNT]\n"
                             "       greedy [--no-mmap] [--rpc] --bench MODEL.gguf [COUNT]\n");
        return 2;
    }
    llama_log_set(example::quiet, nullptr);
    ggml_backend_load_all();
    try {
        llama_model_params params = llama_model_default_params();
        params.use_extra_bufts = false;
        if (no_mmap) params.load_mode = LLAMA_LOAD_MODE_NONE;
        if (remote) {
            const char *endpoint = std::getenv("DF11_EXAMPLE_RPC");
            ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
            auto add = rpc == nullptr ? nullptr
                                      : reinterpret_cast<ggml_backend_reg_t (*)(const char *)>(
                                            ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server"));
            ggml_backend_reg_t server = add != nullptr && endpoint != nullptr ? add(endpoint) : nullptr;
            if (server == nullptr) throw std::runtime_error("no RPC server at DF11_EXAMPLE_RPC");
            ggml_backend_register(server);
        }
        example::LlamaModel model(llama_model_load_from_file(argv[1], params));
        if (!model) return 1;
        if (measure)
            example::bench(model.get(), argc > 2 ? unsigned(std::atoi(argv[2])) : 32);
        else
            example::greedy(model.get(), argv[2], argc > 3 ? unsigned(std::atoi(argv[3])) : 16);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "greedy: %s\n", error.what());
        return 1;
    }
    return 0;
}
