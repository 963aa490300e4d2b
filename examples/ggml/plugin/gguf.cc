// Writes a GGUF file for a DF11 model, or for the bf16 folder from which it was made.
//
//     df11-gguf HEAD.gguf MODEL OUT.gguf               all weights, in bf16: any llama.cpp can read it
//     df11-gguf --skeleton HEAD.gguf MODEL OUT.gguf    holes in place of compressed weights, for the plug-in
//
// A skeleton is two files, OUT-00001-of-00002.gguf and its key, OUT-00002-of-00002.gguf; see hole.h.
//
// HEAD.gguf is any GGUF file of the same model, with any quantisation: metadata, vocabulary and small tensors (norms,
// biases) come from it, and bf16 matrices from MODEL. See find_source() for the architectures. For Qwen3, Qwen3-MoE and
// Llama the output of convert_hf_to_gguf.py --vocab-only is enough. One whole tensor at a time is in memory.
#include "hole.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <unistd.h>

namespace {

using namespace example;

struct Closed {
    void operator()(FILE *file) const { std::fclose(file); }
};
using File = std::unique_ptr<FILE, Closed>;

// A tensor of the new file, and where its values come from.
struct Part {
    Tensor tensor;
    bool from_model = false;  // `source`, or the DF11 model's tensor of its name (norms)
    Source source;
    size_t head_offset = 0;  // in HEAD.gguf, if not from the model
    std::string hole;        // what a skeleton has in its place
};

class Writer {
  public:
    Writer(const char *head_path, const char *model_path, bool skeleton)
        : head_path_(head_path), model_path_(model_path), model_(model_path), skeleton_(skeleton) {
        ggml_context *tensors = nullptr;
        head_.reset(gguf_init_from_file(head_path, {/*no_alloc*/ true, &tensors}));
        tensors_.reset(tensors);
        if (!head_) throw std::runtime_error(head_path_ + " cannot be read as GGUF");
        if (gguf_find_key(head_.get(), "split.count") >= 0 && gguf_get_n_tensors(head_.get()) > 0)
            throw std::runtime_error(head_path_ + " is one of several files: join them with llama-gguf-split --merge");
        if (gguf_get_n_tensors(head_.get()) == 0)
            add_from_metadata();
        else
            for (int64_t i = 0; i < gguf_get_n_tensors(head_.get()); i++) add(gguf_get_tensor_name(head_.get(), i));
        if (skeleton_) plan_holes();
    }

    void write(const std::string &given) {
        std::vector<Tensor> tensors;
        for (const Part &part : parts_) {
            tensors.push_back(part.tensor);
            if (!part.hole.empty()) tensors.back().type = hole_type;
        }
        Gguf out = metadata(head_.get(), tensors);
        std::string path = given, key;
        if (skeleton_) {
            set_part(out.get(), 0, parts_.size());
            path = name_of_part(given, 0);
            key = name_of_part(given, 1);
        }
        File file(std::fopen(path.c_str(), "wb"));
        bool good = file != nullptr && gguf_write_to_file_ptr(out.get(), file.get(), /*only_meta*/ true);
        size_t data = gguf_get_meta_size(out.get()), end = data;
        uint64_t left = 0;
        std::vector<unsigned char> values;
        for (const Part &part : parts_) {
            size_t at = data + gguf_get_tensor_offset(out.get(), gguf_find_tensor(out.get(), part.tensor.name.c_str()));
            size_t padded = GGML_PAD(part.tensor.bytes(), gguf_get_alignment(out.get()));
            end = at + padded;
            if (part.hole.empty()) {
                values.assign(padded, 0);
                read(part, values.data());
            } else {
                values.assign(part.hole.begin(), part.hole.end());
                left += part.tensor.bytes() - values.size();
            }
            good = good && fseeko(file.get(), off_t(at), SEEK_SET) == 0 &&
                   std::fwrite(values.data(), 1, values.size(), file.get()) == values.size();
        }
        // The file must also contain a hole at its end.
        good = good && std::fflush(file.get()) == 0 && ftruncate(fileno(file.get()), off_t(end)) == 0;
        if (good) good = std::fclose(file.release()) == 0;
        if (!good) throw std::runtime_error("cannot write " + path);
        if (skeleton_) {
            std::filesystem::remove(key);
            std::filesystem::create_symlink(key_path(), key);
        }
        std::printf("%s: %zu tensors, %zu bytes, of which %" PRIu64 " are holes\n", path.c_str(), parts_.size(), end,
                    left);
        if (skeleton_) std::printf("%s: its key, a link that only the plug-in can follow\n", key.c_str());
    }

  private:
    static std::string name_of_part(const std::string &given, int part) {
        std::string stem = given, end = ".gguf";
        if (stem.size() > end.size() && stem.compare(stem.size() - end.size(), end.size(), end) == 0)
            stem.resize(stem.size() - end.size());
        return stem + (part == 0 ? "-00001-of-00002" : "-00002-of-00002") + end;
    }

    void add_from_metadata() {
        for (Tensor &tensor : tensors_of(Shape(head_.get()), model_)) {
            Part part;
            part.from_model = true;
            if (tensor.type == GGML_TYPE_BF16 && !find_source(head_.get(), model_, tensor, part.source))
                throw std::runtime_error("the model has no " + tensor.name);
            part.tensor = std::move(tensor);
            parts_.push_back(std::move(part));
        }
    }

    void add(const char *name) {
        const ggml_tensor *given = ggml_get_tensor(tensors_.get(), name);
        Part part;
        part.tensor = {name, std::vector<int64_t>(given->ne, given->ne + ggml_n_dims(given)), given->type};
        bool is_matrix = ggml_n_dims(given) > 1;
        if (is_matrix && given->type != GGML_TYPE_F32) {
            part.from_model = find_source(head_.get(), model_, part.tensor, part.source);
            if (part.from_model)
                part.tensor.type = GGML_TYPE_BF16;
            else if (ggml_is_quantized(given->type))
                throw std::runtime_error(std::string(name) + ": this program does not know where it is in a DF11 " +
                                         "model; use df11 decompress and llama.cpp's converter");
        }
        part.head_offset = gguf_get_data_offset(head_.get()) +
                           gguf_get_tensor_offset(head_.get(), gguf_find_tensor(head_.get(), name));
        parts_.push_back(std::move(part));
    }

    // Compressed weights become holes. They come last: a loader that maps the file unmaps what follows the last tensor
    // that it uses in place.
    void plan_holes() {
        std::string model = std::filesystem::absolute(model_path_).lexically_normal().string();
        std::vector<unsigned char> values;
        for (Part &part : parts_) {
            if (!part.from_model || part.tensor.type != GGML_TYPE_BF16) continue;
            Hole hole;
            hole.model = model;
            hole.permuted_heads = part.source.permuted_heads;
            bool compressed = true;
            for (uint64_t tensor : part.source.tensors) {
                df11_tensor_info info = model_.tensor(tensor);
                compressed = compressed && info.group != DF11_NO_GROUP;
                hole.tensors.push_back(info.name);
            }
            if (!compressed) continue;
            values.resize(part.tensor.bytes());
            read(part, values.data());
            hole.sample = sample(values.data(), values.size());
            part.hole = text_of(hole, values.size());
        }
        std::stable_partition(parts_.begin(), parts_.end(), [](const Part &part) { return part.hole.empty(); });
    }

    void read(const Part &part, void *to) {
        if (!part.source.tensors.empty())
            return read_source(model_, part.source, part.tensor.shape[1], to, part.tensor.bytes(), threads_to_use());
        if (part.from_model) return read_tensor(model_, part.tensor, to, threads_to_use());
        if (!opened_) opened_.reset(std::fopen(head_path_.c_str(), "rb"));
        if (!opened_ || fseeko(opened_.get(), off_t(part.head_offset), SEEK_SET) != 0 ||
            std::fread(to, 1, part.tensor.bytes(), opened_.get()) != part.tensor.bytes())
            throw std::runtime_error("cannot read " + part.tensor.name + " of " + head_path_);
    }

    std::string head_path_, model_path_;
    Model model_;
    bool skeleton_;
    Gguf head_;
    Context tensors_;
    File opened_;
    std::vector<Part> parts_;
};

}  // namespace

int main(int argc, char **argv) {
    bool skeleton = argc > 1 && std::strcmp(argv[1], "--skeleton") == 0;
    if (argc - skeleton != 4) {
        std::fprintf(stderr, "usage: df11-gguf [--skeleton] HEAD.gguf MODEL OUT.gguf\n");
        return 2;
    }
    argv += skeleton;
    try {
        Writer(argv[1], argv[2], skeleton).write(argv[3]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "df11-gguf: %s\n", error.what());
        return 1;
    }
    return 0;
}
