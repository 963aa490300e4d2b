// The program of consumer.c in C++, with df11.hpp.
#include <df11.hpp>

#include <cinttypes>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

static std::uint64_t fnv1a(const std::vector<unsigned char> &bytes) {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (unsigned char byte : bytes)
        hash = (hash ^ byte) * 0x100000001b3u;
    return hash;
}

int main(int argc, char **argv) try {
    if (argc != 2 || df11_version_number() != DF11_VERSION_NUMBER)
        return 2;
    const df11::Model model = df11::Model::open(argv[1]);
    for (const df11::Tensor &tensor : model.tensors()) {
        std::vector<unsigned char> bytes(tensor.data_bytes());
        model.read_tensor(tensor.index(), 0, bytes, 2);
        std::printf("%s %zu %016" PRIx64 "\n", std::string(tensor.name()).c_str(), bytes.size(), fnv1a(bytes));
    }
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "consumer: %s\n", error.what());
    return 1;
}
