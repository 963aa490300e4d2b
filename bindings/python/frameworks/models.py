"""Models with random weights that look like trained ones, for the tests with frameworks."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
import transformers

import df11

Kind = tuple[type, bool]
KINDS: dict[str, Any] = {
    "llama": (transformers.LlamaConfig, {"tie_word_embeddings": False}),
    "qwen3-tied": (transformers.Qwen3Config, {"tie_word_embeddings": True, "head_dim": 32}),
}


def language_model(kind: str, layers: int = 3, hidden: int = 128, vocabulary: int = 512) -> Any:
    """Makes a tiny language model in bf16; the same each time."""
    torch.manual_seed(7)
    config, options = KINDS[kind]
    return transformers.AutoModelForCausalLM.from_config(
        config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            **options,
        ),
        dtype=torch.bfloat16,
    ).eval()


def folders(kind: str, where: pathlib.Path, **options: Any) -> tuple[Any, pathlib.Path, pathlib.Path]:
    """Makes a language model, its folder, and the same compressed as published ones are."""
    model = language_model(kind, **options)
    plain, compressed = where / kind, where / f"{kind}-DF11"
    model.save_pretrained(plain)
    df11.compress(plain, compressed)
    return model, plain, compressed


def tokens(model: Any, prompt: torch.Tensor) -> torch.Tensor:
    """Generates greedily."""
    out: torch.Tensor = model.generate(prompt, max_new_tokens=16, do_sample=False)
    return out


def prompt() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randint(0, 512, (1, 9))
