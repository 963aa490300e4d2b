// The smallest program: opens a model, finds a tensor by its name, decodes it on the CPU, and prints its first values.
//
//     hello MODEL TENSOR          for example: hello Qwen3-8B-DF11 model.embed_tokens.weight
//
//     c++ -std=c++17 -o hello examples/hello.cc -Iinclude -Ibindings/cpp -Ltarget/release -ldf11
//         -Wl,-rpath,$PWD/target/release
#include <df11.hpp>

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

int main(int argc, char **argv) try {
    if (argc != 3) throw std::runtime_error("usage: hello MODEL TENSOR");
    const df11::Model model = df11::Model::open(argv[1]);
    const auto tensor = model.find_tensor(argv[2]);
    if (!tensor || tensor->dtype() != DF11_DTYPE_BF16)
        throw std::runtime_error("the model has no bf16 tensor with that name");

    std::vector<std::uint16_t> values(tensor->data_bytes() / 2);
    model.read_tensor(tensor->index(), 0, values, 4);
    for (std::size_t i = 0; i < 4 && i < values.size(); i++) {
        const std::uint32_t bits = std::uint32_t{values[i]} << 16;  // bf16 is the upper half of a float
        float value;
        std::memcpy(&value, &bits, sizeof(value));
        std::printf("%g\n", value);
    }
} catch (const std::exception &error) {
    std::fprintf(stderr, "hello: %s\n", error.what());
    return 1;
}
