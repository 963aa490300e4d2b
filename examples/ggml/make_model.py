#!/usr/bin/env python3
"""Makes a small model with random weights, which are always the same: a Hugging Face folder, and the metadata and
vocabulary that llama.cpp's converter would write for it with --vocab-only, or the whole model as that writes it. Needs
Python only.

    make_model.py FOLDER HEAD.gguf [--whole] [--kind KIND] [--layers N] [--tied] [--seed N] [--large | --larger]
                  [--feed-forward N] [--vocabulary N]
"""

import argparse
import array
import json
import pathlib
import random
import struct

KIND = "qwen3"  # or another of ARCHITECTURES
EXPERTS, EXPERTS_USED = 8, 2
EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, HEAD = 128, 384, 4, 2, 32
LARGE = 1024, 3072, 16, 8, 128  # as in Qwen3-0.6B
LARGER = 2048, 6144, 16, 8, 128  # as in Qwen3-1.7B
CONTEXT = 256
EPSILON, ROPE_BASE = 1e-6, 1e6
ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
# What llama.cpp calls them, and what transformers does.
GGUF_NAMES = {"mistral": "llama", "mixtral": "llama"}
MODEL_TYPES = {"qwen3moe": "qwen3_moe", "gemma3": "gemma3_text"}
# The names of tensors of a layer in GGUF files. Gemma 2 and 3 have norms before and after each part.
GGUF_PARTS = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "block_sparse_moe.gate.weight": "ffn_gate_inp.weight",
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
MIXTRAL_EXPERTS = {"w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"}
MERGES = ["t h", "th e", "i n"]


def vocabulary(least):
    """Byte-level BPE as in GPT-2 and Qwen: 256 bytes with printable names, the results of merges, two end tokens, and what is
    missing to `least` and a multiple of 32."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokens = [names[byte] for byte in range(256)] + [merge.replace(" ", "") for merge in MERGES]
    types = [1] * len(tokens)  # normal
    tokens += ["<|endoftext|>", "<|im_end|>"]
    types += [3, 3]  # control
    while len(tokens) < least or len(tokens) % 32:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)  # unused
    return tokens, types


def tensors(layers, tied, vocabulary_size):
    """Yields names and shapes as in PyTorch (rows first), in the order of the file."""
    yield "model.embed_tokens.weight", (vocabulary_size, EMBEDDING)
    for layer in range(layers):
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", (EMBEDDING,)
        yield name + "self_attn.q_proj.weight", (HEADS * HEAD, EMBEDDING)
        yield name + "self_attn.k_proj.weight", (KV_HEADS * HEAD, EMBEDDING)
        yield name + "self_attn.v_proj.weight", (KV_HEADS * HEAD, EMBEDDING)
        yield name + "self_attn.o_proj.weight", (EMBEDDING, HEADS * HEAD)
        if KIND == "qwen2":
            yield name + "self_attn.q_proj.bias", (HEADS * HEAD,)
            yield name + "self_attn.k_proj.bias", (KV_HEADS * HEAD,)
            yield name + "self_attn.v_proj.bias", (KV_HEADS * HEAD,)
        if KIND in ("qwen3", "qwen3moe", "gemma3"):
            yield name + "self_attn.q_norm.weight", (HEAD,)
            yield name + "self_attn.k_norm.weight", (HEAD,)
        yield name + "post_attention_layernorm.weight", (EMBEDDING,)
        if KIND in ("gemma2", "gemma3"):
            yield name + "pre_feedforward_layernorm.weight", (EMBEDDING,)
            yield name + "post_feedforward_layernorm.weight", (EMBEDDING,)
        if KIND == "mixtral":
            moe = name + "block_sparse_moe."
            yield moe + "gate.weight", (EXPERTS, EMBEDDING)
            for expert in range(EXPERTS):
                yield f"{moe}experts.{expert}.w1.weight", (FEED_FORWARD, EMBEDDING)
                yield f"{moe}experts.{expert}.w2.weight", (EMBEDDING, FEED_FORWARD)
                yield f"{moe}experts.{expert}.w3.weight", (FEED_FORWARD, EMBEDDING)
            continue
        blocks = ["mlp."]
        if KIND == "qwen3moe":
            yield name + "mlp.gate.weight", (EXPERTS, EMBEDDING)
            blocks = [f"mlp.experts.{expert}." for expert in range(EXPERTS)]
        for block in blocks:
            yield name + block + "gate_proj.weight", (FEED_FORWARD, EMBEDDING)
            yield name + block + "up_proj.weight", (FEED_FORWARD, EMBEDDING)
            yield name + block + "down_proj.weight", (EMBEDDING, FEED_FORWARD)
    yield "model.norm.weight", (EMBEDDING,)
    if not tied:
        yield "lm_head.weight", (vocabulary_size, EMBEDDING)


def bf16(values):
    """Returns the upper halves of floats, little-endian."""
    floats = array.array("f", values).tobytes()
    halves = bytearray(len(floats) // 2)
    halves[0::2], halves[1::2] = floats[2::4], floats[3::4]
    return bytes(halves)


BLOCK = 1 << 20
block = []


def weights(name, shape, rng):
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    if len(shape) == 1:
        # Gemma's norms are stored less 1.
        mean = 0 if "bias" in name or KIND.startswith("gemma") else 1
        return bf16(mean + rng.gauss(0, 0.1) for _ in range(count))
    # The layers' contribution must outweigh the input token, which a tied head would otherwise repeat forever. Gemma
    # multiplies the embedding, and has norms after each part.
    embedding = 0.005 if KIND.startswith("gemma") else 0.05
    scale = embedding if "embed" in name else 1.5 / shape[1] ** 0.5
    if count <= BLOCK:
        return bf16(rng.gauss(0, scale) for _ in range(count))
    # Python is slow, so a large matrix repeats one block of weights, rotated by a random number.
    if not block:
        block.extend(rng.gauss(0, 1) for _ in range(BLOCK))
    first = rng.randrange(BLOCK)
    values = bf16(scale * value for value in block[first:] + block[:first])
    return (values * (count // BLOCK + 1))[: 2 * count]


def write_folder(folder, layers, tied, vocabulary_size, seed):
    rng = random.Random(seed)
    header, data = {}, []
    at = 0
    for name, shape in tensors(layers, tied, vocabulary_size):
        values = weights(name, shape, rng)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(values)]}
        data.append(values)
        at += len(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    config = {
        "architectures": [ARCHITECTURES[KIND]],
        "model_type": MODEL_TYPES.get(KIND, KIND),
        "torch_dtype": "bfloat16",
        "hidden_size": EMBEDDING,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "vocab_size": vocabulary_size,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON,
        "rope_theta": ROPE_BASE,
        "tie_word_embeddings": tied,
    }
    if KIND == "qwen3moe":
        config |= {
            "num_experts": EXPERTS,
            "num_experts_per_tok": EXPERTS_USED,
            "moe_intermediate_size": FEED_FORWARD,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if KIND == "mixtral":
        config |= {"num_local_experts": EXPERTS, "num_experts_per_tok": EXPERTS_USED}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return {name: (info["shape"], values) for (name, info), values in zip(header.items(), data)}


def gguf_tensors(tensors):
    """Yields names, shapes (rows first), types and values as llama.cpp's converter writes them for bf16: vectors and routers
    in F32."""
    experts = {}
    for name, (shape, values) in tensors.items():
        layer = name.split(".")[2] if name.startswith("model.layers.") else None
        part = name.split(".", 3)[3] if layer else name
        if part.startswith("block_sparse_moe.experts."):
            stack = f"blk.{layer}.{MIXTRAL_EXPERTS[part.split('.')[3]]}.weight"
            experts.setdefault(stack, (shape, []))[1].append(values)
            continue
        gguf = GGUF_PARTS[part]
        if KIND in ("gemma2", "gemma3") and part == "post_attention_layernorm.weight":
            gguf = "post_attention_norm.weight"
        heads = {"attn_q.weight": HEADS, "attn_k.weight": KV_HEADS}.get(gguf)
        if heads and KIND in ("llama", "mistral", "mixtral"):
            # reshape(heads, 2, half, columns).swapaxes(1, 2)
            size, half = 2 * shape[1], shape[0] // heads // 2
            rows = [values[at : at + size] for at in range(0, len(values), size)]
            order = [(h * 2 + j) * half + i for h in range(heads) for i in range(half) for j in range(2)]
            values = b"".join(rows[row] for row in order)
        kind = 30  # BF16
        if len(shape) == 1 or gguf == "ffn_gate_inp.weight":
            kind = 0  # F32
            floats = array.array("f", b"".join(b"\0\0" + values[at : at + 2] for at in range(0, len(values), 2)))
            if KIND.startswith("gemma"):
                floats = array.array("f", (value + 1 for value in floats))
            values = floats.tobytes()
        yield f"blk.{layer}.{gguf}" if layer else gguf, shape, kind, values
    for name, (shape, several) in experts.items():
        yield name, (len(several), *shape), 30, b"".join(several)


def write_gguf(path, layers, tokens, types, tensors):
    """Writes a GGUF file, version 3: keys and values, and the tensors if there are any."""
    text = lambda value: struct.pack("<Q", len(value.encode())) + value.encode()
    string = lambda value: struct.pack("<I", 8) + text(value)
    u32 = lambda value: struct.pack("<II", 4, value)
    f32 = lambda value: struct.pack("<If", 6, value)
    flag = lambda value: struct.pack("<IB", 7, value)
    strings = lambda values: struct.pack("<IIQ", 9, 8, len(values)) + b"".join(text(value) for value in values)
    i32s = lambda values: struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)
    end = tokens.index("<|im_end|>")
    architecture = GGUF_NAMES.get(KIND, KIND)
    pairs = {
        "general.architecture": string(architecture),
        "general.name": string("small random model"),
        f"{architecture}.block_count": u32(layers),
        f"{architecture}.context_length": u32(CONTEXT),
        f"{architecture}.embedding_length": u32(EMBEDDING),
        f"{architecture}.feed_forward_length": u32(FEED_FORWARD),
        f"{architecture}.attention.head_count": u32(HEADS),
        f"{architecture}.attention.head_count_kv": u32(KV_HEADS),
        f"{architecture}.attention.key_length": u32(HEAD),
        f"{architecture}.attention.value_length": u32(HEAD),
        f"{architecture}.attention.layer_norm_rms_epsilon": f32(EPSILON),
        f"{architecture}.rope.freq_base": f32(ROPE_BASE),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("qwen2"),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.token_type": i32s(types),
        "tokenizer.ggml.merges": strings(MERGES),
        "tokenizer.ggml.eos_token_id": u32(end),
        "tokenizer.ggml.add_bos_token": flag(False),
    }
    if KIND == "qwen3moe":
        pairs |= {
            "qwen3moe.expert_count": u32(EXPERTS),
            "qwen3moe.expert_used_count": u32(EXPERTS_USED),
            "qwen3moe.expert_feed_forward_length": u32(FEED_FORWARD),
        }
    if architecture == "llama":
        pairs |= {"llama.rope.dimension_count": u32(HEAD), "llama.vocab_size": u32(len(tokens))}
    if KIND == "mixtral":
        pairs |= {"llama.expert_count": u32(EXPERTS), "llama.expert_used_count": u32(EXPERTS_USED)}
    if KIND in ("gemma2", "gemma3"):
        pairs[f"{KIND}.attention.sliding_window"] = u32(CONTEXT // 2)
    if KIND == "gemma2":
        pairs |= {"gemma2.attn_logit_softcapping": f32(50), "gemma2.final_logit_softcapping": f32(30)}
    body = b"".join(text(key) + value for key, value in pairs.items())
    infos, data = b"", b""
    for name, shape, kind, values in tensors:
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        infos += text(name) + dimensions + struct.pack("<IQ", kind, len(data))
        data += values + bytes(-len(values) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + body + infos
    path.write_bytes(head + (bytes(-len(head) % 32) + data if tensors else b""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("head", type=pathlib.Path)
    parser.add_argument("--kind", choices=ARCHITECTURES, default="qwen3")
    parser.add_argument("--whole", action="store_true", help="HEAD.gguf has the tensors, too")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--tied", action="store_true", help="the head is the embedding")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--large", action="store_true", help="layers of 15.7 million weights instead of 197 thousand")
    parser.add_argument("--larger", action="store_true", help="layers of 50.3 million weights")
    parser.add_argument("--feed-forward", type=int, help="rows of the feed-forward matrices instead of the usual number")
    parser.add_argument("--vocabulary", type=int, default=0, help="tokens at least")
    options = parser.parse_args()
    global KIND, FEED_FORWARD
    KIND = options.kind
    if KIND in ("qwen3moe", "mixtral"):
        FEED_FORWARD //= 3
    if options.large or options.larger:
        global EMBEDDING, HEADS, KV_HEADS, HEAD
        EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, HEAD = LARGER if options.larger else LARGE
    FEED_FORWARD = options.feed_forward or FEED_FORWARD
    tokens, types = vocabulary(options.vocabulary)
    made = write_folder(options.folder, options.layers, options.tied, len(tokens), options.seed)
    whole = list(gguf_tensors(made)) if options.whole else []
    write_gguf(options.head, options.layers, tokens, types, whole)


if __name__ == "__main__":
    main()
