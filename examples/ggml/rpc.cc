// A server of ggml's RPC backend, as llama.cpp's rpc-server is one: it does not know DF11. With GGML_BACKEND_PATH it
// offers the plug-in's device, on which bf16 weights take 12 bits each.
//
//     rpc HOST:PORT [DEVICE]
#include "ggml-backend.h"
#include "tokens.h"

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        std::fprintf(stderr, "usage: rpc HOST:PORT [DEVICE]\n");
        return 2;
    }
    ggml_backend_load_all();
    ggml_backend_dev_t device = ggml_backend_dev_by_name(argc > 2 ? argv[2] : "CPU");
    if (device == nullptr) {
        std::fprintf(stderr, "rpc: there is no such device\n");
        return 1;
    }
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    void *found = rpc == nullptr ? nullptr : ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_start_server");
    auto start = reinterpret_cast<void (*)(const char *, const char *, size_t, size_t, ggml_backend_dev_t *)>(found);
    if (start != nullptr) start(argv[1], nullptr, example::threads_to_use(), 1, &device);
    return 1;  // it ends only if it cannot serve
}
