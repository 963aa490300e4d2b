// Where the weights of a model are, and in which pieces the engine decodes them: a layer at a time, then the head.
#ifndef DF11_EXAMPLE_ENGINE_LAYOUT_H
#define DF11_EXAMPLE_ENGINE_LAYOUT_H

#include "config.h"
#include "df11.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace engine {

// The matrices of a layer, in the order of a piece.
enum { QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN, MATRICES };

// A matrix of a piece, or some rows of one.
struct Matrix {
    std::size_t number;   // of the tensor that it belongs to, among all that are multiplied with
    std::uint64_t first;  // its first weight in the piece
    unsigned rows, columns;
};

// Consecutive weights of a group that are decoded at once.
struct Piece {
    std::uint64_t group, first, count;
    std::vector<Matrix> matrices;
};

struct Layout {
    std::vector<Piece> pieces;  // the layers, then the head
    std::size_t matrices = 0;   // tensors that are multiplied with
    std::uint64_t largest = 0;  // weights of a piece
    std::uint64_t embedding;    // the number of its tensor
    // The number of the head's tensor, if that is not compressed. Then the pieces are the layers only.
    std::optional<std::uint64_t> plain_head;

    // If `split` is set, the head is decoded in pieces that are no larger than a layer.
    Layout(const df11::Model &model, const Config &config, bool split) {
        const unsigned query = config.query_heads * config.head, key = config.key_heads * config.head;
        for (unsigned layer = 0; layer < config.layers; layer++) {
            const std::string name = "model.layers." + std::to_string(layer) + ".";
            const df11::Tensor first = compressed(model, name + "self_attn.q_proj.weight", query, config.hidden);
            const std::uint64_t group = *first.group();
            Piece piece{group, 0, model.groups()[group].element_count(), {}};
            const auto add = [&](const char *which, unsigned rows, unsigned columns) {
                const df11::Tensor found = compressed(model, name + which + ".weight", rows, columns);
                if (*found.group() != group) throw std::runtime_error(name + which + " is not in the layer's group");
                piece.matrices.push_back({matrices++, found.group_offset(), rows, columns});
            };
            add("self_attn.q_proj", query, config.hidden);
            add("self_attn.k_proj", key, config.hidden);
            add("self_attn.v_proj", key, config.hidden);
            add("self_attn.o_proj", config.hidden, query);
            add("mlp.gate_proj", config.feed_forward, config.hidden);
            add("mlp.up_proj", config.feed_forward, config.hidden);
            add("mlp.down_proj", config.hidden, config.feed_forward);
            largest = std::max(largest, piece.count);
            pieces.push_back(std::move(piece));
        }
        embedding = tensor(model, "model.embed_tokens.weight", config.vocabulary, config.hidden).index();
        // A head that has no tensor of its own is the embedding.
        const char *name = model.find_tensor("lm_head.weight") ? "lm_head.weight" : "model.embed_tokens.weight";
        if (const auto found = tensor(model, name, config.vocabulary, config.hidden); !found.group()) {
            plain_head = found.index();
            return;
        }
        const df11::Tensor head = compressed(model, name, config.vocabulary, config.hidden);
        const auto most = static_cast<unsigned>(std::min<std::uint64_t>(largest / config.hidden, config.vocabulary));
        const unsigned step = split ? std::max(most, 1u) : config.vocabulary;
        for (unsigned row = 0; row < config.vocabulary; row += step) {
            const unsigned rows = std::min(step, config.vocabulary - row);
            const std::uint64_t first = head.group_offset() + std::uint64_t{row} * config.hidden;
            const std::uint64_t count = std::uint64_t{rows} * config.hidden;
            pieces.push_back({*head.group(), first, count, {{matrices, 0, rows, config.hidden}}});
            largest = std::max(largest, count);
        }
        matrices++;
    }

  private:
    // Finds a matrix. Its shape follows from the config; files may say only how many weights it has.
    static df11::Tensor tensor(const df11::Model &model, const std::string &name, unsigned rows, unsigned columns) {
        const auto found = model.find_tensor(name);
        if (!found) throw std::runtime_error("the model has no " + name);
        if (found->dtype() != DF11_DTYPE_BF16 || found->data_bytes() != std::uint64_t{2} * rows * columns)
            throw std::runtime_error(name + " is not bf16 of the size that config.json says");
        return *found;
    }

    // Finds a matrix that is whole in a group.
    static df11::Tensor compressed(const df11::Model &model, const std::string &name, unsigned rows, unsigned columns) {
        const df11::Tensor found = tensor(model, name, rows, columns);
        if (found.run_count() != 1 || found.group_offset() % 8 != 0)
            throw std::runtime_error(name + " is not compressed, or in several groups");
        return found;
    }
};

}  // namespace engine

#endif
