// A small inference engine on the CUDA driver API and libdf11. Sends a prompt through a model of Qwen3's shape and
// prints the tokens that follow, with the weights kept in each of four ways. README.md says what is in which file.
//
//     engine MODEL [--mode all|bf16|decode|fused|stream] [--prompt ID,ID,...] [--tokens N] [--context N]
//
//     c++ -std=c++17 -O2 -o engine examples/engine/main.cc -Iexamples -Iinclude -Ibindings/cpp -Ltarget/release -ldf11
//         -ldl -pthread -Wl,-rpath,$PWD/target/release
#include "engine.h"

#include <chrono>
#include <cstdio>

namespace {

using engine::Mode;

constexpr std::pair<Mode, const char *> MODES[] = {
    {Mode::bf16, "bf16"}, {Mode::decode, "decode"}, {Mode::fused, "fused"}, {Mode::stream, "stream"}};

struct Options {
    const char *model = nullptr;
    std::string mode = "all";
    std::vector<unsigned> prompt = {1, 2, 3, 4};
    unsigned tokens = 16, context = 0;
};

bool parse(int count, char **words, Options &options) {
    for (int i = 1; i < count; i++) {
        const std::string word = words[i];
        if (word.rfind("--", 0) != 0) {
            if (options.model != nullptr) return false;
            options.model = words[i];
            continue;
        }
        if (++i == count) return false;
        if (word == "--mode") {
            options.mode = words[i];
        } else if (word == "--tokens") {
            options.tokens = static_cast<unsigned>(std::strtoul(words[i], nullptr, 10));
        } else if (word == "--context") {
            options.context = static_cast<unsigned>(std::strtoul(words[i], nullptr, 10));
        } else if (word == "--prompt") {
            options.prompt.clear();
            for (char *at = words[i]; *at != 0; at += *at == ',')
                options.prompt.push_back(static_cast<unsigned>(std::strtoul(at, &at, 10)));
        } else {
            return false;
        }
    }
    // The last token of the output goes through no model.
    const auto needed = static_cast<unsigned>(options.prompt.size()) + options.tokens - 1;
    if (options.context == 0) options.context = needed;
    bool known = options.mode == "all";
    for (const auto &[mode, name] : MODES) known = known || options.mode == name;
    return known && options.model != nullptr && !options.prompt.empty() && options.tokens > 0 &&
           options.context >= needed;
}

// Times of the emulated driver of libdf11's tests mean nothing.
bool emulated() { return dlsym(cuda_library, "df11_emulator_query") != nullptr; }

// Generates tokens in one mode, and prints them and what they took.
std::vector<unsigned> generate(const df11::Model &model, const engine::Config &config, const df11::Device &device,
                               Mode mode, const char *name, const Options &options) {
    engine::Engine engine(model, config, device, mode, options.context);
    unsigned next = 0;
    for (const unsigned token : options.prompt) next = engine.next(token);
    std::vector<unsigned> tokens = {next};
    const auto start = std::chrono::steady_clock::now();
    while (tokens.size() < options.tokens) tokens.push_back(next = engine.next(next));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;

    std::printf("%-6s tokens", name);
    for (const unsigned token : tokens) std::printf(" %u", token);
    const engine::Weights &weights = engine.weights();
    std::printf("\n%-6s %zu bytes of weights on the device and %zu in pinned memory, %zu of slots, %zu of activations, "
                "%zu for a context of %u\n",
                name, weights.device_bytes, weights.pinned_bytes, weights.slot_bytes, engine.other_bytes(),
                engine.cache_bytes(), options.context);
    std::size_t free = 0, total = 0;
    CUDA(cuMemGetInfo(&free, &total));
    const std::size_t fits = (free + engine.cache_bytes()) / config.position_bytes();
    std::printf("%-6s a context of %zu tokens fits into the device; the model is made for %u\n", name, fits,
                config.context);
    if (!emulated() && tokens.size() > 1)
        std::printf("%-6s %.2f tokens a second\n", name, static_cast<double>(tokens.size() - 1) / taken.count());
    return tokens;
}

int run(const Options &options) {
    const df11::Model model = df11::Model::open(options.model);
    const engine::Config config(model.config_text());
    int devices = 0;
    if (!cuda_load(nullptr) || cuDeviceGetCount(&devices) != 0 || devices == 0) {
        std::printf("missing: a CUDA device\n");
        return 77;  // skipped
    }
    CUdevice number;
    CUcontext context;
    CUDA(cuDeviceGet(&number, 0));
    CUDA(cuDevicePrimaryCtxRetain(&context, number));
    CUDA(cuCtxSetCurrent(context));
    int result = 2;
    try {
        const df11::Device device = df11::Device::open(0);
        std::vector<std::vector<unsigned>> results;
        for (const auto &[mode, name] : MODES) {
            if (options.mode != "all" && options.mode != name) continue;
            try {
                results.push_back(generate(model, config, device, mode, name, options));
            } catch (const std::exception &error) {
                // Without compression a model may be too large, which is no mistake where others are asked for, too.
                std::fprintf(stderr, "engine: %s: %s\n", name, error.what());
            }
        }
        const auto equal = [&](const std::vector<unsigned> &tokens) { return tokens == results[0]; };
        const bool same = std::all_of(results.begin(), results.end(), equal);
        if (results.size() > 1) std::printf("%zu modes, %s tokens\n", results.size(), same ? "the same" : "DIFFERENT");
        result = !results.empty() && same ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "engine: %s\n", error.what());
        result = 1;
    }
    CUDA(cuDevicePrimaryCtxRelease(number));
    return result;
}

}  // namespace

int main(int argc, char **argv) {
    Options options;
    if (!parse(argc, argv, options)) {
        std::fprintf(stderr, "usage: engine MODEL [--mode all|bf16|decode|fused|stream] [--prompt ID,ID,...] [--tokens N]"
                             " [--context N]\nThe context has room for the prompt and all tokens but the last.\n");
        return 2;
    }
    try {
        return run(options);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "engine: %s\n", error.what());
        return 1;
    }
}
