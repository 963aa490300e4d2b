"""What frameworks are given of groups: their members, groups made in memory, and the modules that they belong to."""

from __future__ import annotations

import array
import os
from collections.abc import Iterator

import pytest
from support import BLOCK, read
from test_device import Driver

import df11
from df11 import _groups


def test_members_are_those_of_the_file() -> None:
    stored = read(BLOCK / "model.safetensors")
    with df11.open(BLOCK) as model:
        seen = 0
        for group in model.groups():
            for name, data in _groups.members(group):
                assert bytes(data) == stored[name].data
                seen += 1
        assert seen == 6 * len(model.groups())
    with df11.open(BLOCK, read=True) as model, pytest.raises(ValueError, match="not in memory"):
        list(_groups.members(model.groups()[0]))


def test_groups_are_made_in_memory() -> None:
    stored = read(BLOCK / "model.safetensors")
    with df11.open(BLOCK) as model:
        for group in model.groups():
            tensors = [(t.name, t.shape, t.read(bits=True)) for t in group.tensors()]
            made = _groups.compress_group(group.name, tensors, 2)
            # Byte for byte what the reference compressor wrote.
            for name, data in _groups.members(made.groups()[0]):
                assert bytes(data) == stored[name].data
            assert list(made) == [name for name, _, _ in tensors]
            for name, shape, values in tensors:
                assert made[name].shape == shape
                assert made[name].read(bits=True).tobytes() == values.tobytes()
            made.close()
    infinite = array.array("H", [0x7F80] * 4)
    with pytest.raises(df11.InvalidArgumentError):
        _groups.compress_group("a", [("a.weight", (2, 2), infinite)], 1)


def test_patterns() -> None:
    groups = {"lm_head": ["lm_head.weight"], "layers.0": ["layers.0.a.q.weight", "layers.0.up.weight"]}
    assert _groups.pattern_dict(groups) == {"lm_head": [], r"layers\.0": ["a.q", "up"]}
    for wrong in ("layers.1.up.weight", "layers.0.up.bias", "layers.0.weight"):
        with pytest.raises(ValueError, match="no weight of a module"):
            _groups.pattern_dict({"layers.0": ["layers.0.up.weight", wrong]})


@pytest.mark.parametrize(
    ("tensor", "prefix", "module"),
    [
        ("model.up.weight", "", "model.up"),
        ("model.up.bias", "", None),
        ("up.weight", "", None),
        ("up.weight", "model", "model.up"),
        ("model.head.weight", "model", "head"),
        ("model.nothing.weight", "model", None),
    ],
)
def test_modules_are_found(tensor: str, prefix: str, module: str | None) -> None:
    assert _groups.module_of(tensor, {"model", "model.up", "head"}, prefix) == module


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    path = os.environ.get("DF11_LIBCUDA")
    assert path, "DF11_LIBCUDA names no driver: test.sh builds the emulated one and names it"
    driver = Driver(path)
    yield driver
    driver.free()


def test_ranks_decode_their_shares_on_a_device(driver: Driver) -> None:
    """What the plug-in for vLLM does: rows of several tensors, or columns of one, as one image for a rank."""
    device = df11.Device(0)
    layer = "model.layers.0"
    with df11.open(BLOCK) as model:
        values = {name: model[name].read(bits=True) for name in model if name.startswith(layer)}

        def decode(held: list[df11.Slice], count: int) -> bytes:
            with model.group(layer).shard(held, threads=1) as shard:
                image = bytearray(shard.image_bytes)
                shard.write_image(image, threads=1)
            d_image, d_out, stream = driver.memory(len(image)), driver.memory(2 * count), driver.stream()
            driver.put(d_image, bytes(image))
            with device.bind_image(image, d_image, len(image)) as resident:
                resident.decompress(d_out, 2 * count, stream)
                driver.wait(stream)
            return driver.get(d_out, 2 * count)

        qkv = [model[f"{layer}.self_attn.{name}_proj.weight"] for name in "qkv"]
        rows = [tensor.shape[0] for tensor in qkv]
        parts = [df11.Segment(rows[0], 16), *(df11.Segment(n, n, df11.SPLIT_REPLICATE) for n in rows[1:])]
        down = model[f"{layer}.mlp.down_proj.weight"]
        for rank in range(2):
            half = rows[0] // 2
            want = values[qkv[0].name][rank * half : rank * half + half].tobytes()
            want += values[qkv[1].name].tobytes() + values[qkv[2].name].tobytes()
            assert decode(_groups.shares(qkv, parts, rank, 2), len(want) // 2) == want
            half = down.shape[1] // 2
            want = values[down.name][:, rank * half : rank * half + half].tobytes()
            assert decode(_groups.shares([down], (), rank, 2, columns=True), len(want) // 2) == want
        with pytest.raises(ValueError, match="2 tensors cannot be the 3 parts"):
            _groups.shares(qkv[:2], parts, 0, 2)
        with pytest.raises(ValueError, match="whole in one group"):
            _groups.shares([down, model["lm_head.weight"]], (), 0, 2)
