"""from_pretrained() on DF11 folders, and save_pretrained() of what it gives."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest
import torch
import transformers
from models import KINDS, folders, prompt, tokens

import df11
import df11.torch
from df11 import _groups
from df11.transformers import DFloat11Config, _folder

pytestmark = pytest.mark.parametrize("kind", KINDS)
Auto = transformers.AutoModelForCausalLM


def contents(path: pathlib.Path) -> dict[str, bytes]:
    with df11.open(path) as model:
        return {name: model[name].read(bits=True).tobytes() for name in model}


def members(path: pathlib.Path) -> dict[str, bytes]:
    with df11.open(path) as model:
        found = {}
        for group in model.groups():
            for name, data in _groups.members(group):
                found[name] = bytes(data)
        return found


def config(path: pathlib.Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((path / "config.json").read_text())
    return found


def test_the_same_tokens(kind: str, tmp_path: pathlib.Path) -> None:
    original, _, path = folders(kind, tmp_path)
    got = Auto.from_pretrained(path)
    assert len(df11.torch.weights_of(got)) >= 21
    # No bf16 copy of a compressed weight is anywhere.
    assert not any(name.endswith("_proj.weight") for name in got.state_dict())
    with torch.no_grad():
        assert torch.equal(got(prompt()).logits, original(prompt()).logits)
    assert torch.equal(tokens(got, prompt()), tokens(original, prompt()))
    assert got.hf_quantizer.is_compileable
    with torch.no_grad():
        compiled = torch.compile(got, backend="aot_eager")
        assert torch.equal(compiled(prompt()).logits, original(prompt()).logits)


def test_saved_as_it_was(kind: str, tmp_path: pathlib.Path) -> None:
    original, _, path = folders(kind, tmp_path)
    back = tmp_path / "back"
    Auto.from_pretrained(path).save_pretrained(back, max_shard_size="300KB")
    assert len(list(back.glob("*.safetensors"))) > 1
    assert members(back) == members(path)
    assert contents(back) == contents(path)
    assert config(back)["dfloat11_config"] == config(path)["dfloat11_config"]
    assert "quantization_config" not in config(back)
    df11.verify(back)
    with torch.no_grad():
        assert torch.equal(Auto.from_pretrained(back)(prompt()).logits, original(prompt()).logits)


def test_compressed_while_it_is_loaded(kind: str, tmp_path: pathlib.Path) -> None:
    original, plain, _ = folders(kind, tmp_path)
    got = Auto.from_pretrained(plain, quantization_config=DFloat11Config())
    assert all(m.df11_weight.matrix is not None for m in df11.torch.weights_of(got).values())
    assert torch.equal(tokens(got, prompt()), tokens(original, prompt()))
    saved = tmp_path / "saved"
    got.save_pretrained(saved)
    again = Auto.from_pretrained(saved)
    assert again.lm_head.df11_weight.matrix is None
    with torch.no_grad():
        assert torch.equal(again(prompt()).logits, original(prompt()).logits)
    state = again.dequantize().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in original.state_dict().items())
    assert not hasattr(again.config, "dfloat11_config")


def test_products(kind: str, tmp_path: pathlib.Path) -> None:
    original, _, path = folders(kind, tmp_path)
    got = Auto.from_pretrained(path, quantization_config=DFloat11Config(products=True, verify=True))
    assert all(m.df11_weight.matrix is not None for m in df11.torch.weights_of(got).values())
    assert torch.equal(tokens(got, prompt()), tokens(original, prompt()))


def test_asked_for_by_name_alone(kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hook, as in a version of transformers that has another inside, the public interface is enough."""
    original, _, path = folders(kind, tmp_path)
    inside = transformers.modeling_utils
    monkeypatch.setattr(inside, "get_hf_quantizer", inside.get_hf_quantizer.__wrapped__)
    got = Auto.from_pretrained(path, quantization_config=DFloat11Config())
    with torch.no_grad():
        assert torch.equal(got(prompt()).logits, original(prompt()).logits)


def test_folders_that_cannot_be_used(kind: str, tmp_path: pathlib.Path) -> None:
    _, _, path = folders(kind, tmp_path)
    layer = path / "model_layers_1.safetensors"
    whole = layer.read_bytes()
    layer.unlink()
    with pytest.raises(df11.InvalidFormatError, match=r"model\.layers\.1\..*Is the download complete"):
        Auto.from_pretrained(path)
    layer.write_bytes(whole[:-1])
    with pytest.raises(df11.FormatError, match="model_layers_1"):
        Auto.from_pretrained(path)
    # Codes that contradict the tables: found at once if it is asked for, otherwise when they are decoded.
    damaged = bytearray(whole)
    begin = 8 + int.from_bytes(whole[:8], "little")
    first, last = json.loads(whole[8:begin])["model.layers.1.encoded_exponent"]["data_offsets"]
    damaged[begin + first : begin + last] = b"\xff" * (last - first)
    layer.write_bytes(damaged)
    with pytest.raises(df11.CorruptError, match=r"layers\.1"):
        Auto.from_pretrained(path, quantization_config=DFloat11Config(verify=True))
    model = Auto.from_pretrained(path)
    with pytest.raises(df11.CorruptError, match=r"model_layers_1|layers\.1"), torch.no_grad():
        model(prompt())
    with pytest.raises(ValueError, match="DFloat11Config"):
        Auto.from_pretrained(path, quantization_config=transformers.GPTQConfig(bits=4))


def test_folders_on_the_hub(kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder on the Hub all files are asked for, not only those that transformers asks for."""
    import huggingface_hub

    asked = []

    def snapshot_download(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    class Config:
        name_or_path = f"somebody/{kind}-DF11"
        _commit_hash = "abc"

    assert _folder(Config(), ["/elsewhere/model.safetensors"]) == str(tmp_path)
    assert asked == [
        (f"somebody/{kind}-DF11", {"revision": "abc", "allow_patterns": ["*.safetensors", "config.json"]}),
    ]
    Config.name_or_path = str(tmp_path)
    assert _folder(Config(), [f"{tmp_path}/model.safetensors"]) == str(tmp_path)


MEASURE = """
import sys
import torch, transformers
import df11.transformers

def field(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024

torch.set_num_threads(1)
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
# What torch and transformers allocate once, whatever the model is.
small = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[2])
with torch.no_grad():
    small(torch.tensor([[1, 2, 3]]))
del small
before = field("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
loaded = field("VmHWM")
with torch.no_grad():
    model(torch.tensor([[1, 2, 3]]))
print("MEASURED", loaded - before, field("VmHWM") - before)
"""


def test_memory(kind: str, tmp_path: pathlib.Path) -> None:
    """Loading and running take at most the compressed size and two layers, the mapped files counted as memory, too."""
    _, _, small = folders(kind, tmp_path)
    (tmp_path / "large").mkdir()
    original, _, large = folders(kind, tmp_path / "large", layers=12, hidden=512)
    compressed = sum(path.stat().st_size for path in large.glob("*.safetensors"))
    layer = sum(2 * tensor.numel() for tensor in original.model.layers[0].parameters())
    whole = sum(2 * tensor.numel() for tensor in original.parameters())
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, large, small], check=True, capture_output=True, text=True, timeout=300
    ).stdout
    loaded, run = map(int, re.search(r"MEASURED (-?\d+) (-?\d+)", out).groups())  # type: ignore[union-attr]
    print(f"{whole} bytes of bf16, {compressed} compressed, {layer} a layer: {loaded} to load, {run} with a pass")
    assert loaded <= compressed + 2 * layer
    assert run <= compressed + 2 * layer
