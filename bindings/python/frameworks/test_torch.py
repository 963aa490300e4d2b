"""df11.torch: files, and modules whose weights stay compressed, on the CPU."""

from __future__ import annotations

import concurrent.futures
import copy
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import df11
import df11.torch as subject

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/data/golden"
HOSTILE = ROOT / "tests/data/hostile"


class Block(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 3 * hidden)
        self.down = nn.Linear(3 * hidden, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.down(nn.functional.silu(self.up(self.norm(x))))
        return y


class Network(nn.Module):
    """Blocks between an embedding and a head that share their weight."""

    def __init__(self, hidden: int = 128, rows: int = 500) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows, hidden)
        self.layers = nn.ModuleList(Block(hidden) for _ in range(3))
        self.head = nn.Linear(hidden, rows, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        y: torch.Tensor = self.head(x)
        return y


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    return Network().to(torch.bfloat16).eval()


@pytest.fixture
def ids() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randint(0, 500, (2, 7))


@pytest.fixture(params=[False, True], ids=["by weight", "by block"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    monkeypatch.setattr(subject, "BLOCKS_ON_CPU", request.param)
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("name", ["tiny", "block", "sharded", "edge", "edge_patched"])
def test_golden_models(name: str) -> None:
    from safetensors.torch import load_file

    want = load_file(GOLDEN / name / "original.safetensors")
    got = subject.load_file(GOLDEN / name / "model")
    assert set(got) == set(want)
    assert all(bits(got[key]) == bits(tensor) for key, tensor in want.items())
    assert all(tensor.dtype == want[key].dtype for key, tensor in got.items())
    some = sorted(want)[:2]
    few = subject.load_file(GOLDEN / name / "model", names=some, verify=True, threads=1)
    assert sorted(few) == some
    with pytest.raises(ValueError, match="no tensor 'nothing'"):
        subject.load_file(GOLDEN / name / "model", names=["nothing"])


def test_hostile_files_are_errors() -> None:
    refused = 0
    for path in sorted(HOSTILE.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.suffix == ".safetensors"):
            continue
        try:
            subject.load_file(path)
        except df11.Error:
            refused += 1
    assert refused > 20


def test_compressed_modules_compute_the_same(network: Network, ids: torch.Tensor, blocks: bool) -> None:
    with torch.no_grad():
        want = network(ids)
        subject.compress_module(network, products=False)
        assert sorted(subject.weights_of(network)) == [
            "embed",
            "head",
            *(f"layers.{i}.{name}" for i in range(3) for name in ("down", "up")),
        ]
        assert network.head.df11_weight is network.embed.df11_weight
        assert torch.equal(network(ids), want)
        assert torch.equal(copy.deepcopy(network)(ids), want)
        assert all(module.df11_decoded is None for module in subject.weights_of(network).values()), blocks
        for backend in ("eager", "aot_eager"):
            torch._dynamo.reset()
            assert torch.equal(torch.compile(network, backend=backend, fullgraph=True)(ids), want)


def test_round_trip(network: Network) -> None:
    before = {name: bits(tensor) for name, tensor in network.state_dict().items()}
    for products in (False, True, None):
        subject.compress_module(network, products=products)
        assert set(network.state_dict()) < set(before)
        subject.decompress_module(network)
        assert {name: bits(tensor) for name, tensor in network.state_dict().items()} == before
        assert network.head.weight is network.embed.weight
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_products_are_near(network: Network, ids: torch.Tensor) -> None:
    with torch.no_grad():
        want = network(ids[:1, :1]).float()
        subject.compress_module(network)
        weights = subject.weights_of(network).values()
        assert all(module.df11_weight.matrix is not None for module in weights)
        got = network(ids[:1, :1]).float()
        # The last of 8 bits of a sum may be another, and 7 layers add that up.
        assert float((got - want).abs().max()) <= float(want.abs().max()) / 64
        # Rows that are decoded for many vectors have the very bits.
        plain = nn.Linear(128, 384).to(torch.bfloat16)
        x = torch.randn(40, 128, dtype=torch.bfloat16)
        y = plain(x)
        assert torch.equal(subject.compress_module(nn.Sequential(plain))[0](x), y)


def test_large_weights_are_decoded_in_pieces(
    network: Network, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    original = subject._buffer
    monkeypatch.setattr(subject, "_buffer", lambda count, device: sizes.append(count) or original(count, device))
    monkeypatch.setattr(subject, "SCRATCH_ELEMENTS", 10_000)
    with torch.no_grad():
        want = network(ids)
        subject.compress_module(network, products=False)
        got = network(ids)
    assert max(sizes) <= 10_000
    assert torch.equal(got, want)


def test_gradients_reach_the_input(network: Network) -> None:
    x = torch.randn(2, 5, 128, dtype=torch.bfloat16, requires_grad=True)
    network.layers[0](x).sum().backward()
    want, x.grad = x.grad, None
    subject.compress_module(network, products=False)
    network.layers[0](x).sum().backward()
    assert want is not None
    assert x.grad is not None
    assert torch.equal(x.grad, want)


def test_threads_share_a_module(network: Network, ids: torch.Tensor, blocks: bool) -> None:
    with torch.no_grad():
        want = network(ids)
    subject.compress_module(network, products=False)

    def work(_: int) -> bool:
        with torch.no_grad():
            return torch.equal(network(ids), want)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(24))), blocks


def test_what_the_format_cannot_hold_stays(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with torch.no_grad():
        network.layers[1].up.weight[3, 4] = float("inf")
    subject.compress_module(network, products=False, exclude=["layers.0.up"])
    assert "layers.1.up" not in subject.weights_of(network)
    assert "layers.1.down" in subject.weights_of(network)
    assert "layers.0.up" not in subject.weights_of(network)
    assert "layers.1.up.weight" in caplog.text


def test_other_types_are_refused(network: Network) -> None:
    subject.compress_module(network, products=False)
    with pytest.raises(TypeError, match="float32"):
        network.layers[0].up(torch.zeros(1, 128))
    with torch.autocast("cpu", torch.bfloat16):
        assert network.layers[0].up(torch.zeros(1, 128)).dtype == torch.bfloat16
    with pytest.raises(IndexError):
        network.embed(torch.tensor([500]))


def folder(network: Network, where: pathlib.Path) -> pathlib.Path:
    """Writes the compressed weights of a network, and the rest, as one file."""
    import json

    from safetensors.torch import save_file

    subject.compress_module(network, products=False)
    members, config = subject.group_tensors(network)
    where.mkdir()
    save_file({**network.state_dict(), **members}, where / "model.safetensors")
    (where / "config.json").write_text(json.dumps({"dfloat11_config": config}))
    return where


def test_saved_and_loaded(network: Network, ids: torch.Tensor, tmp_path: pathlib.Path) -> None:
    with torch.no_grad():
        want = network(ids)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = folder(network, tmp_path / "saved")
    df11.verify(path)
    # A tied head is not in the file; strict loading takes the parameter as loaded.
    other = Network().to(torch.bfloat16).eval()
    result = subject.load_state_dict(other, path)
    assert result == ([], [])
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    wide = Network().eval()
    subject.load_state_dict(wide, path)
    assert torch.equal(wide.layers[0].up.weight, state["layers.0.up.weight"].float())
    with torch.device("meta"):
        empty = Network().to(torch.bfloat16).eval()
    empty.head = nn.Identity()
    assert subject.load_compressed(empty, path) == ([], [])
    with torch.no_grad():
        # embed, the layers, and the head by the embedding's weight
        got = nn.functional.linear(empty(ids), empty.embed.weight)
    assert torch.equal(got, want)
    narrow = Network(hidden=64).to(torch.bfloat16)
    for load in (subject.load_state_dict, subject.load_compressed):
        with pytest.raises(ValueError, match="in the module"):
            load(narrow, path)
    with pytest.raises(ValueError, match=r"lacks 'extra\.weight'"):
        subject.load_state_dict(add_extra(other), path)
    assert subject.load_state_dict(other, path, strict=False).missing_keys == ["extra.weight", "extra.bias"]


def add_extra(network: Any) -> Any:
    network.extra = nn.Linear(2, 2)
    return network
