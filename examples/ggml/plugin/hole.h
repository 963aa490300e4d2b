// What a skeleton has in place of a weight: a short text that says where the weight is, and then nothing. The tensor
// has the type I16, which has as many bytes as BF16 and which no kernel of ggml multiplies with. So a skeleton cannot
// be computed with by accident: not on a device whose weights do not pass through the plug-in.
//
// Without the plug-in it does not load at all. A skeleton is a GGUF file in two parts, as llama.cpp splits large ones.
// The first part has everything. The second, its key, is a link to a file that only exists in a process with the
// plug-in: it leads to /proc/self/fd, and the plug-in keeps a file open there, without tensors, in memory.
#ifndef DF11_EXAMPLE_GGML_HOLE_H
#define DF11_EXAMPLE_GGML_HOLE_H

#include "weights.h"

namespace example {

struct Hole {
    std::string model;                 // the DF11 model's folder or file
    int64_t permuted_heads = 0;        // as in Source
    std::vector<std::string> tensors;  // one after the other, in the DF11 model
    uint64_t sample = 0;               // see sample()
};

// The type of a hole.
constexpr ggml_type hole_type = GGML_TYPE_I16;

// The number under which the plug-in keeps the key open. Programs with fewer open files do not use it.
constexpr int key_number = 1011;
// Returns where the second part of a skeleton leads.
std::string key_path();
// Sets the metadata of part 0 or 1 of a skeleton.
void set_part(gguf_context *part, int number, size_t tensors);

// Returns the text, or an empty one if it is longer than the weight.
std::string text_of(const Hole &hole, size_t bytes);
// Reads the text at the beginning of a tensor's bytes. Throws if it is none.
Hole hole_in(const void *data, size_t bytes);

// Returns the digest of a weight's first and last 4096 bytes.
uint64_t sample(const void *data, size_t bytes);

}  // namespace example

#endif
