// Shared by programs with and without DF11: token ids on the command line and in the output, the digest with which
// logits are compared, and the number of threads.
#ifndef DF11_EXAMPLE_GGML_TOKENS_H
#define DF11_EXAMPLE_GGML_TOKENS_H

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace example {

// Returns DF11_EXAMPLE_THREADS, or the number of cores. ggml's threads spin while they wait, so fewer are faster on a
// busy machine.
inline unsigned threads_to_use() {
    const char *given = std::getenv("DF11_EXAMPLE_THREADS");
    return std::max(1u, given != nullptr ? unsigned(std::atoi(given)) : std::thread::hardware_concurrency());
}

// Returns the FNV-1a hash. `seed` continues an earlier one.
inline uint64_t digest(const void *data, size_t bytes, uint64_t seed = 0xcbf29ce484222325u) {
    for (size_t i = 0; i < bytes; i++) seed = (seed ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001b3u;
    return seed;
}

// Reads token ids such as "3,17,99". Returns false for any other text.
inline bool parse_tokens(const std::string &text, std::vector<int32_t> &tokens) {
    if (text.empty() || text.find_first_not_of("0123456789,") != std::string::npos) return false;
    for (size_t at = 0; at < text.size();) {
        size_t end = std::min(text.find(',', at), text.size());
        if (end == at || end - at > 9) return false;
        tokens.push_back(std::atoi(text.substr(at, end - at).c_str()));
        at = end + 1;
    }
    return true;
}

inline void print_tokens(const char *what, const std::vector<int32_t> &tokens) {
    std::printf("%s", what);
    for (size_t i = 0; i < tokens.size(); i++) std::printf("%s%" PRId32, i == 0 ? " " : ",", tokens[i]);
    std::printf("\n");
}

// Returns the likeliest token, the first of equals.
inline int32_t likeliest(const float *logits, size_t count) {
    return int32_t(std::max_element(logits, logits + count) - logits);
}

}  // namespace example

#endif
