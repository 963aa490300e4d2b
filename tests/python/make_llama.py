#!/usr/bin/env python3
"""Makes a small Llama with a tokenizer of SentencePiece, as they are published: make_llama.py FOLDER"""
import json
import pathlib
import random
import sys

import sentencepiece
import torch
from safetensors.torch import save_file

HIDDEN, INNER, LAYERS, HEADS, KEYS, VOCABULARY = 128, 256, 3, 4, 2, 128


def tokenizer(folder: pathlib.Path) -> None:
    """Trains a tokenizer on made-up words."""
    choose = random.Random(1)
    words = ["".join(choose.choices("abcdefghijklmnop", k=choose.randint(2, 9))) for _ in range(500)]
    corpus = folder / "corpus"
    corpus.write_text("\n".join(" ".join(choose.choices(words, k=20)) for _ in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "tokenizer"), vocab_size=VOCABULARY, model_type="bpe", minloglevel=2
    )
    corpus.unlink()
    (folder / "tokenizer.vocab").unlink()


def shapes() -> dict:
    """Returns the shape of each tensor."""
    out = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    out["lm_head.weight"] = (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        key = HIDDEN // HEADS * KEYS
        for name, shape in {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (key, HIDDEN),
            "self_attn.v_proj": (key, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
        }.items():
            out[f"model.layers.{layer}.{name}.weight"] = shape
    return out


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    tokenizer(folder)
    torch.manual_seed(1)
    tensors = {name: (torch.randn(shape) * 0.02).to(torch.bfloat16) for name, shape in shapes().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 256,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEYS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
