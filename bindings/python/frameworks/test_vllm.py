"""The plug-in for vLLM against the interfaces of vLLM 0.33 that it uses, made anew here: vLLM itself is not run."""

from __future__ import annotations

import pathlib
import sys
import types
from typing import Any

import pytest
import torch
from models import folders
from torch import nn

import df11

registered: dict[str, Any] = {}


class LinearBase(nn.Module):
    """A layer as vLLM makes it: it asks the config for a method, and that for its weights."""

    def __init__(self, config: Any, prefix: str, sizes: list[int], columns: int, rank: int, world: int) -> None:
        super().__init__()
        self.tp_rank, self.tp_size, self.prefix = rank, world, prefix
        self.output_sizes = sizes
        self.quant_method = config.get_quant_method(self, prefix)
        rows = [size // world for size in sizes]
        if isinstance(self, RowParallelLinear):
            rows, columns = sizes, columns // world
        elif isinstance(self, ReplicatedLinear):
            rows = sizes
        self.quant_method.create_weights(
            self, columns, rows, columns, sum(sizes), torch.bfloat16, weight_loader=lambda *_: None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.quant_method.apply(self, x)
        return y


class ReplicatedLinear(LinearBase):
    pass


class MergedColumnParallelLinear(LinearBase):
    pass


class RowParallelLinear(LinearBase):
    pass


class QKVParallelLinear(LinearBase):
    def __init__(
        self, config: Any, prefix: str, heads: int, kv_heads: int, size: int, columns: int, rank: int, world: int
    ):
        self.total_num_heads, self.total_num_kv_heads, self.head_size, self.v_head_size = heads, kv_heads, size, size
        held = max(kv_heads // world, 1) * size * world
        super().__init__(config, prefix, [heads * size, held, held], columns, rank, world)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value) if "_modules" not in self.__dict__ else super().__setattr__(name, value)


class UnquantizedLinearMethod:
    def create_weights(self, layer: nn.Module, columns: int, rows: list[int], *_: Any, **__: Any) -> None:
        layer.weight = nn.Parameter(torch.zeros(sum(rows), columns, dtype=torch.bfloat16), requires_grad=False)

    def apply(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, layer.weight)


class QuantizationConfig:
    def __init__(self) -> None:
        self.packed_modules_mapping: dict[str, list[str]] = {}


class BaseModelLoader:
    def __init__(self, load_config: Any) -> None:
        self.load_config = load_config


def register(kind: str) -> Any:
    def outer(name: str) -> Any:
        def inner(cls: Any) -> Any:
            registered[f"{kind} {name}"] = cls
            return cls

        return inner

    return outer


current = types.SimpleNamespace(model_config=types.SimpleNamespace(model="", revision=None))


@pytest.fixture(scope="module")
def plugin() -> Any:
    modules = {
        "config": {"get_current_vllm_config": lambda: current},
        "model_executor.layers.linear": {
            "LinearBase": LinearBase,
            "LinearMethodBase": object,
            "QKVParallelLinear": QKVParallelLinear,
            "ReplicatedLinear": ReplicatedLinear,
            "RowParallelLinear": RowParallelLinear,
            "UnquantizedLinearMethod": UnquantizedLinearMethod,
        },
        "model_executor.layers.quantization": {"register_quantization_config": register("quantization")},
        "model_executor.layers.quantization.base_config": {"QuantizationConfig": QuantizationConfig},
        "model_executor.model_loader": {"register_model_loader": register("loader")},
        "model_executor.model_loader.base_loader": {"BaseModelLoader": BaseModelLoader},
        "model_executor.model_loader.weight_utils": {"download_weights_from_hf": lambda *_: pytest.fail("downloaded")},
    }
    names = {"vllm", *("vllm." + ".".join(n.split(".")[:i]) for n in modules for i in range(1, n.count(".") + 2))}
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for name, contents in modules.items():
            sys.modules[f"vllm.{name}"].__dict__.update(contents)
        import df11.vllm

        yield df11.vllm
        sys.modules.pop("df11.vllm")


@pytest.fixture
def model(tmp_path: pathlib.Path) -> tuple[Any, pathlib.Path]:
    original, _, path = folders("llama", tmp_path)
    current.model_config.model = str(path)
    return original, path


def layers(plugin: Any, rank: int, world: int) -> nn.ModuleDict:
    """The Linears of a Llama's layer, as vLLM joins them, with their shares."""
    config = plugin.DFloat11Config()
    config.packed_modules_mapping.update(
        {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
    )
    at = "model.layers.1"
    found = nn.ModuleDict(
        {
            "qkv": QKVParallelLinear(config, f"{at}.self_attn.qkv_proj", 4, 2, 32, 128, rank, world),
            "o": RowParallelLinear(config, f"{at}.self_attn.o_proj", [128], 128, rank, world),
            "gate_up": MergedColumnParallelLinear(config, f"{at}.mlp.gate_up_proj", [384, 384], 128, rank, world),
            "down": RowParallelLinear(config, f"{at}.mlp.down_proj", [128], 384, rank, world),
            "whole": ReplicatedLinear(config, f"{at}.mlp.up_proj", [384], 128, rank, world),
        }
    )
    for layer in found.values():
        assert not list(layer.parameters())
        layer.quant_method.process_weights_after_loading(layer)
    return found


@pytest.mark.parametrize("world", [1, 2, 4])
def test_each_rank_has_its_share(plugin: Any, model: tuple[Any, pathlib.Path], world: int) -> None:
    original, _ = model
    block = original.model.layers[1]
    attention, mlp = block.self_attn, block.mlp

    def rows(weight: torch.Tensor, rank: int, units: int, size: int) -> torch.Tensor:
        """The rows of heads; where there are fewer than ranks, several ranks have the same."""
        each = max(units // world, 1)
        first = rank * units // world if units >= world else rank // (world // units)
        return weight[first * size : (first + each) * size]

    torch.manual_seed(4)
    with torch.no_grad():
        for rank in range(world):
            got = layers(plugin, rank, world)
            qkv = torch.cat(
                [
                    rows(attention.q_proj.weight, rank, 4, 32),
                    rows(attention.k_proj.weight, rank, 2, 32),
                    rows(attention.v_proj.weight, rank, 2, 32),
                ]
            )
            want = {
                "qkv": qkv,
                "o": attention.o_proj.weight.chunk(world, 1)[rank],
                "gate_up": torch.cat([w.weight.chunk(world)[rank] for w in (mlp.gate_proj, mlp.up_proj)]),
                "down": mlp.down_proj.weight.chunk(world, 1)[rank],
                "whole": mlp.up_proj.weight,
            }
            for name, weight in want.items():
                x = torch.randn(3, weight.shape[1], dtype=torch.bfloat16)
                assert torch.equal(got[name](x), nn.functional.linear(x, weight.contiguous())), (name, rank)


class Engine(nn.Module):
    """A model as vLLM's are: it takes names and tensors."""

    def __init__(self, part: Any = None) -> None:
        super().__init__()
        self.part = part
        self.loaded: dict[str, torch.Tensor] = {}

    def load_weights(self, weights: Any) -> None:
        self.loaded.update(weights)


def test_the_loader_gives_all_but_what_stays_compressed(plugin: Any, model: tuple[Any, pathlib.Path]) -> None:
    original, _ = model
    loader = plugin.DFloat11ModelLoader(types.SimpleNamespace(download_dir=None))
    loader.download_model(current.model_config)
    plain = Engine()
    loader.load_weights(plain, current.model_config)
    assert all(torch.equal(plain.loaded.pop(name), tensor) for name, tensor in original.state_dict().items())
    assert not plain.loaded
    some = Engine(layers(plugin, 0, 1))
    loader.load_weights(some, current.model_config)
    names = set(original.state_dict())
    assert names - set(some.loaded) == {
        n for n in names if n.startswith("model.layers.1.") and n.endswith("_proj.weight")
    }


def test_other_layers_are_as_ever(plugin: Any, model: tuple[Any, pathlib.Path]) -> None:
    assert model
    config = plugin.DFloat11Config()
    layer = ReplicatedLinear(config, "model.layers.0.mlp.router", [8], 128, 0, 2)
    assert isinstance(layer.quant_method, UnquantizedLinearMethod)
    assert config.get_quant_method(nn.Embedding(2, 2), "model.embed_tokens") is None
    with pytest.raises(df11.InvalidArgumentError, match="float16"):
        plugin.DFloat11LinearMethod(config.tensors("model.layers.0.mlp.up_proj")).create_weights(
            layer, 128, [384], 128, 384, torch.float16
        )
    # More ranks than columns divide by.
    with pytest.raises(df11.InvalidArgumentError):
        RowParallelLinear(config, "model.layers.0.mlp.down_proj", [128], 384, 0, 5)


def test_registration(plugin: Any) -> None:
    for _ in range(2):
        plugin.register()
    assert registered == {
        "loader dfloat11": plugin.DFloat11ModelLoader,
        "quantization dfloat11": plugin.DFloat11Config,
    }
    assert plugin.DFloat11Config.from_config({}).get_name() == "dfloat11"


def test_entry_point() -> None:
    import tomllib

    project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vllm.general_plugins"] == {"df11": "df11.vllm:register"}
