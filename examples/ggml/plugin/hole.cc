// See hole.h.
#include "hole.h"

#include <cstring>
#include <sstream>

namespace example {

namespace {
const char first_line[] = "DF11 hole 1\n";
const char last_line[] = "end\n";
}  // namespace

std::string key_path() { return "/proc/self/fd/" + std::to_string(key_number); }

void set_part(gguf_context *part, int number, size_t tensors) {
    gguf_set_val_u16(part, "split.no", uint16_t(number));
    gguf_set_val_u16(part, "split.count", 2);
    gguf_set_val_i32(part, "split.tensors.count", int32_t(tensors));
}

std::string text_of(const Hole &hole, size_t bytes) {
    std::ostringstream text;
    text << first_line << "model " << hole.model << "\nheads " << hole.permuted_heads << "\n";
    text << "sample " << hole.sample << "\n";
    for (const std::string &tensor : hole.tensors) text << "tensor " << tensor << "\n";
    text << last_line;
    return text.str().size() <= bytes ? text.str() : std::string();
}

Hole hole_in(const void *data, size_t bytes) {
    const char *begin = static_cast<const char *>(data);
    const char *end = static_cast<const char *>(std::memchr(begin, 0, bytes));
    std::istringstream text(std::string(begin, end != nullptr ? end : begin + bytes));
    std::string line;
    Hole hole;
    if (std::getline(text, line) && line + "\n" == first_line) {
        while (std::getline(text, line)) {
            std::string key = line.substr(0, line.find(' '));
            std::string value = line.substr(std::min(line.size(), key.size() + 1));
            if (key == "model")
                hole.model = value;
            else if (key == "heads")
                hole.permuted_heads = std::atoll(value.c_str());
            else if (key == "sample")
                hole.sample = std::strtoull(value.c_str(), nullptr, 10);
            else if (key == "tensor")
                hole.tensors.push_back(value);
            else if (line + "\n" == last_line && !hole.tensors.empty() && hole.permuted_heads >= 0)
                return hole;
            else
                break;
        }
    }
    throw std::runtime_error("it is of type i16, but no hole of a skeleton that this plug-in knows: write the skeleton "
                             "anew with df11-gguf --skeleton");
}

uint64_t sample(const void *data, size_t bytes) {
    const unsigned char *begin = static_cast<const unsigned char *>(data);
    size_t some = std::min<size_t>(bytes, 4096);
    return digest(begin + bytes - some, some, digest(begin, some));
}

}  // namespace example
