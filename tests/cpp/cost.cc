// Measures the cost of df11.hpp over the C calls. A group of 8 Mi weights (16 MiB decoded) is decoded alternately by
// the C call, the throwing call and the try_ call. Then the same calls decode nothing, where only the cost of the call
// remains.
//
//     cost SCRATCH [ROUNDS]       a folder to write to, and how often to decode by each (default 50)
//
// Fails if a call of the binding takes longer than the C call by more than 2 % of the decode. It uses the second
// measurement, which is finer: the first is reliable only on a machine without other work.
//
//     c++ -std=c++17 -O2 -o cost tests/cpp/cost.cc -Iinclude -Ibindings/cpp -Itests/c -Ltarget/release -ldf11
//         -Wl,-rpath,$PWD/target/release
#include "df11.hpp"

#include "check.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t WEIGHTS = std::uint64_t{8} << 20;

/// Returns bf16 weights with a roughly normal distribution, as trained weights have: sums of random numbers.
std::vector<std::uint16_t> make() {
    std::vector<std::uint16_t> weights(WEIGHTS);
    std::uint64_t state = 1;
    for (std::uint16_t &weight : weights) {
        float sum = 0;
        for (int i = 0; i < 4; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1p-36f;
        }
        std::uint32_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        weight = static_cast<std::uint16_t>(bits >> 16);
    }
    return weights;
}

/// Writes a file with the weights as one tensor.
void write(const std::string &path, const std::vector<std::uint16_t> &weights) {
    const std::string n = std::to_string(weights.size()), bytes = std::to_string(2 * weights.size());
    std::string header = R"({"w.weight":{"dtype":"BF16","shape":[)" + n + R"(],"data_offsets":[0,)" + bytes + "]}}";
    std::string length(8, 0);
    for (std::size_t i = 0; i < 8; i++) length[i] = static_cast<char>(header.size() >> 8 * i & 0xff);
    std::FILE *file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr && std::fwrite(length.data(), 1, 8, file) == 8);
    CHECK(std::fwrite(header.data(), 1, header.size(), file) == header.size());
    CHECK(std::fwrite(weights.data(), 2, weights.size(), file) == weights.size() && std::fclose(file) == 0);
}

template <typename Work> double seconds(Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> times) {
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

}  // namespace

int main(int argc, char **argv) {
    CHECK(argc == 2 || argc == 3);
    const std::string folder = argv[1];
    const unsigned rounds = argc == 3 ? static_cast<unsigned>(std::stoul(argv[2])) : 50;
    const std::vector<std::uint16_t> want = make();
    write(folder + "/plain.safetensors", want);
    df11::CompressOptions options;
    options.pattern_json = R"({"w": []})";
    CHECK(df11::compress_model(folder + "/plain.safetensors", folder + "/packed.safetensors", options).weights == WEIGHTS);
    const df11::Model model = df11::Model::open(folder + "/packed.safetensors");
    std::vector<std::uint16_t> got(WEIGHTS);

    const auto by_c = [&](std::uint64_t count) {
        df11_error error;
        CHECK(df11_model_decompress(model.get(), 0, 0, count, got.data(), 2 * got.size(), 1, &error) == DF11_OK);
    };
    const auto thrown = [&](std::uint64_t count) { model.decompress(0, 0, count, got, 1); };
    const auto returned = [&](std::uint64_t count) { CHECK(model.try_decompress(0, 0, count, got, 1) == DF11_OK); };
    thrown(WEIGHTS);
    CHECK(got == want);

    // Alternately, and each equally often first, so that other work on the machine affects all three.
    std::array<std::vector<double>, 3> whole, nothing;
    const auto measure = [&](std::size_t which, auto call) {
        constexpr unsigned CALLS = 20000;
        whole[which].push_back(seconds([&] { call(WEIGHTS); }));
        const double many = seconds([&] {
            for (unsigned i = 0; i < CALLS; i++) call(0);
        });
        nothing[which].push_back(many / CALLS);
    };
    for (std::size_t turn = 0; turn < 3 * std::size_t{rounds}; turn++) {
        const std::size_t which = (turn + turn / 3) % 3;
        if (which == 0)
            measure(which, by_c);
        else if (which == 1)
            measure(which, thrown);
        else
            measure(which, returned);
    }
    const char *const names[] = {"df11_model_decompress()", "Model::decompress()", "Model::try_decompress()"};
    for (std::size_t i = 0; i < 3; i++) {
        const double extra = median(nothing[i]) - median(nothing[0]);
        std::printf("%-24s 16 MiB: %.3f ms (%+.2f %%), nothing: %.1f ns (%+.1f ns, %+.5f %% of the former)\n", names[i],
                    1e3 * median(whole[i]), 100 * (median(whole[i]) / median(whole[0]) - 1), 1e9 * median(nothing[i]),
                    1e9 * extra, 100 * extra / median(whole[0]));
        CHECK(extra < 0.02 * median(whole[0]));
    }
    std::printf("%u checks passed\n", checks_passed);
}
