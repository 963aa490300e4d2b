// Writes a GGUF file for a DF11 model, or for the bf16 folder from which it was made.
//
//     df11-gguf HEAD.gguf MODEL OUT.gguf               all weights, in bf16: any llama.cpp can read it
//     df11-gguf --skeleton HEAD.gguf MODEL OUT.gguf    holes in place of compressed weights, for the plug-in (plugin.cc)
//
// HEAD.gguf provides metadata and vocabulary. It is the output of convert_hf_to_gguf.py --vocab-only, or any GGUF file
// of the same model with any quantisation. One whole tensor at a time is in memory.
#include "weights.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace {

using namespace example;

struct Closed {
    void operator()(FILE *file) const { std::fclose(file); }
};

void write(const char *head_path, const char *model_path, const char *out_path, bool skeleton) {
    Gguf head = open_gguf(head_path);
    Model model(model_path);
    std::vector<Tensor> tensors = tensors_of(Shape(head.get()), model);
    auto is_hole = [&](const Tensor &tensor) {
        uint64_t number;
        return skeleton && model.find(hugging_face_name(tensor.name), number) &&
               model.tensor(number).group != DF11_NO_GROUP;
    };
    // Holes come last: a loader that maps the file unmaps the part after the last tensor that it uses in place.
    std::stable_partition(tensors.begin(), tensors.end(), [&](const Tensor &tensor) { return !is_hole(tensor); });
    Gguf out = metadata(head.get(), tensors);
    unsigned threads = threads_to_use();

    std::unique_ptr<FILE, Closed> file(std::fopen(out_path, "wb"));
    bool good = file != nullptr && gguf_write_to_file_ptr(out.get(), file.get(), /*only_meta*/ true);
    size_t data = gguf_get_meta_size(out.get()), end = data;
    uint64_t left = 0;
    std::vector<unsigned char> values;
    for (const Tensor &tensor : tensors) {
        size_t at = data + gguf_get_tensor_offset(out.get(), gguf_find_tensor(out.get(), tensor.name.c_str()));
        size_t padded = GGML_PAD(tensor.bytes(), gguf_get_alignment(out.get()));
        end = at + padded;
        if (is_hole(tensor)) {
            left += tensor.bytes();
            continue;
        }
        values.assign(padded, 0);
        read_tensor(model, tensor, values.data(), threads);
        good = good && fseeko(file.get(), off_t(at), SEEK_SET) == 0 &&
               std::fwrite(values.data(), 1, padded, file.get()) == padded;
    }
    // The file must also contain a hole at its end.
    good = good && std::fflush(file.get()) == 0 && ftruncate(fileno(file.get()), off_t(end)) == 0;
    if (good) good = std::fclose(file.release()) == 0;
    if (!good) throw std::runtime_error(std::string("cannot write ") + out_path);
    std::printf("%s: %zu tensors, %zu bytes, of which %" PRIu64 " are holes\n", out_path, tensors.size(), end, left);
}

}  // namespace

int main(int argc, char **argv) {
    bool skeleton = argc > 1 && std::strcmp(argv[1], "--skeleton") == 0;
    if (argc - skeleton != 4) {
        std::fprintf(stderr, "usage: df11-gguf [--skeleton] HEAD.gguf MODEL OUT.gguf\n");
        return 2;
    }
    argv += skeleton;
    try {
        write(argv[1], argv[2], argv[3], skeleton);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "df11-gguf: %s\n", error.what());
        return 1;
    }
    return 0;
}
