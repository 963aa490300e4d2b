// What the engine must know of a model, from its config.json: the shape of Qwen3, or of Llama, which has the same
// parts without norms of queries and keys. Everything that it does not calculate is refused.
#ifndef DF11_EXAMPLE_ENGINE_CONFIG_H
#define DF11_EXAMPLE_ENGINE_CONFIG_H

#include "json.h"

namespace engine {

struct Config {
    unsigned hidden, feed_forward, layers, vocabulary;
    unsigned query_heads, key_heads, head;  // heads of queries; of keys and of values; numbers in each
    unsigned context;                       // that the model is made for
    float epsilon;
    double rope_base;

    explicit Config(std::string_view text) {
        const Json json(text);
        const std::string type = json.find("model_type").value_or("unknown");
        if (type != "qwen3" && type != "llama") refuse("model_type is " + type + "; qwen3 and llama are known");
        if (json.find("hidden_act").value_or("silu") != "silu") refuse("hidden_act is not silu");
        for (const char *flag : {"attention_bias", "mlp_bias", "use_sliding_window"})
            if (json.find(flag) == "true") refuse(std::string(flag) + " is set");
        for (const char *rope : {"rope_scaling.rope_type", "rope_scaling.type", "rope_parameters.rope_type"})
            if (json.find(rope).value_or("default") != "default") refuse(std::string(rope) + " is not default");

        hidden = number(json, "hidden_size");
        feed_forward = number(json, "intermediate_size");
        layers = number(json, "num_hidden_layers");
        vocabulary = number(json, "vocab_size", 1 << 24);
        query_heads = number(json, "num_attention_heads");
        key_heads = json.find("num_key_value_heads") ? number(json, "num_key_value_heads") : query_heads;
        head = json.find("head_dim") ? number(json, "head_dim") : hidden / query_heads;
        context = number(json, "max_position_embeddings", 1u << 30);
        epsilon = std::stof(json.find("rms_norm_eps").value_or("1e-6"));
        const auto base = json.find("rope_theta");
        rope_base = std::stod(base ? *base : json.find("rope_parameters.rope_theta").value_or("10000"));
        // What the kernels ask for: 16-byte loads, and a thread for each number of a head.
        if (hidden % 8 != 0 || feed_forward % 8 != 0) refuse("hidden_size or intermediate_size is no multiple of 8");
        if (head == 0 || head % 8 != 0 || head > 128) refuse("head_dim is not a multiple of 8 up to 128");
        if (query_heads % key_heads != 0) refuse("the heads of queries are no multiple of those of keys");
    }

    // Bytes of keys and values, and of the table of rotations, for one position.
    std::size_t position_bytes() const {
        return std::size_t{4} * layers * key_heads * head + std::size_t{4} * head;
    }

  private:
    [[noreturn]] static void refuse(const std::string &why) { throw std::runtime_error("config.json: " + why); }

    static unsigned number(const Json &json, const char *name, unsigned most = 1 << 17) {
        const auto text = json.find(name);
        const unsigned long value = text ? std::strtoul(text->c_str(), nullptr, 10) : 0;
        if (value == 0 || value > most)
            refuse(std::string(name) + " is missing, or not from 1 to " + std::to_string(most));
        return static_cast<unsigned>(value);
    }
};

}  // namespace engine

#endif
