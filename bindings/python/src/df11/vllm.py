"""DF11 models in vLLM, as a plug-in that vLLM finds by itself (the entry point vllm.general_plugins).

    vllm serve Qwen3-8B-DF11 --load-format dfloat11
    vllm serve Qwen3-8B-DF11 --load-format dfloat11 --quantization dfloat11

By the first the weights are bf16 on the device, by the second those of Linears stay compressed there.
With tensor parallelism each rank holds its rows or columns only: they are encoded anew as one image for each layer,
with the group's own table. Embeddings and the head are bf16 on the device in both ways.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import torch
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.linear import (
    LinearBase,
    LinearMethodBase,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.weight_utils import download_weights_from_hf

from . import _groups, _model
from . import torch as df11_torch
from ._c import DF11_SPLIT_EVEN, DF11_SPLIT_REPLICATE, Slice
from ._library import invalid
from ._memory import Address
from ._model import Model, Segment, Tensor
from .device import Resident

__all__ = ["NAME", "DFloat11Config", "DFloat11LinearMethod", "DFloat11ModelLoader", "register"]

NAME = "dfloat11"
"""What --load-format and --quantization are given."""


def _folder(model: str, revision: Optional[str], download_dir: Optional[str] = None) -> str:
    if os.path.exists(model):
        return model
    return str(download_weights_from_hf(model, download_dir, ["*.safetensors"], revision))


class DFloat11Config(QuantizationConfig):  # type: ignore[misc]
    """Says which layers hold compressed weights: those whose tensors are all in one group of the model."""

    def __init__(self) -> None:
        super().__init__()
        self._model: Optional[Model] = None

    @property
    def model(self) -> Model:
        """The open model, that of the engine which is being made."""
        if self._model is None:
            config = get_current_vllm_config().model_config
            self._model = _model.open(_folder(config.model, config.revision))
        return self._model

    def get_name(self) -> str:
        return NAME

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 75

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, _config: dict[str, Any]) -> "DFloat11Config":
        return cls()

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        if not isinstance(layer, LinearBase):
            return None
        tensors = self.tensors(prefix)
        return DFloat11LinearMethod(tensors) if tensors else UnquantizedLinearMethod()

    def tensors(self, prefix: str) -> list[Tensor]:
        """Returns the tensors that a layer joins, if they are whole and in one group; otherwise none."""
        parent, _, last = prefix.rpartition(".")
        names = self.packed_modules_mapping.get(last, [last])
        full = [f"{parent}.{name}.weight" if parent else f"{name}.weight" for name in names]
        if not all(name in self.model for name in full):
            return []
        found = [self.model[name] for name in full]
        groups = {tensor.info.group for tensor in found}
        return found if len(groups) == 1 and all(t.compressed and t.info.run_count == 1 for t in found) else []


def slices(layer: Any, tensors: Sequence[Tensor]) -> list[Slice]:
    """Returns what a rank holds of the tensors that a layer joins, in the order of the layer's rows."""
    rank, world = (0, 1) if isinstance(layer, ReplicatedLinear) else (layer.tp_rank, layer.tp_size)
    if isinstance(layer, RowParallelLinear):
        return _groups.shares(tensors, (), rank, world, columns=True)
    parts: list[Segment] = []
    if isinstance(layer, QKVParallelLinear):
        kv_heads = layer.total_num_kv_heads
        parts = [
            Segment(layer.total_num_heads * layer.head_size, layer.head_size, DF11_SPLIT_EVEN),
            Segment(kv_heads * layer.head_size, layer.head_size, DF11_SPLIT_REPLICATE),
            Segment(kv_heads * layer.v_head_size, layer.v_head_size, DF11_SPLIT_REPLICATE),
        ]
    elif len(getattr(layer, "output_sizes", None) or ()) > 1:
        parts = [Segment(size) for size in layer.output_sizes]
    return _groups.shares(tensors, parts, rank, world)


class _Shard(df11_torch._Weight):
    """What a rank holds of a layer: an image on its device, or bf16 on the CPU."""

    def __init__(self, tensors: Sequence[Tensor], held: Sequence[Slice], rows: int, columns: int) -> None:
        super().__init__(tensors[0].name, rows, columns)
        if sum(s.run_elements * s.run_count for s in held) != rows * columns:
            raise invalid(f"'{self.name}': the slices of the rank are not the {rows} x {columns} weights of the layer")
        self.tensors, self.held = list(tensors), list(held)
        self.plain: Optional[torch.Tensor] = None
        self.resident: Optional[Resident] = None
        self.image: Optional[torch.Tensor] = None

    def place(self, device: torch.device) -> None:
        if device.type == "cuda" and self.resident is None:
            group = self.tensors[0].group
            assert group is not None
            threads = torch.get_num_threads()
            with group.shard(self.held, threads=threads) as shard, torch.cuda.device(device):
                host = torch.empty(shard.image_bytes, dtype=torch.uint8)
                shard.write_image(Address(host.data_ptr(), host.numel()), threads=threads)
                df11_torch._status(device)
                self.image = host.to(device)
                head = Address(host.data_ptr(), host.numel())
                self.resident = df11_torch._driver(device).bind_image(head, self.image.data_ptr(), self.image.numel())
        elif device.type == "cpu" and self.plain is None:
            self.plain = self._read()
        self.device = device

    def _read(self) -> torch.Tensor:
        group = self.tensors[0].group
        assert group is not None
        members = group.tensors()
        parts = []
        for s in self.held:
            tensor = members[s.tensor]
            flat = torch.empty(tensor.element_count, dtype=torch.bfloat16)
            tensor.read_into(Address(flat.data_ptr(), tensor.nbytes), threads=torch.get_num_threads())
            parts.append(flat.as_strided((s.run_count, s.run_elements), (s.run_stride, 1), s.first).reshape(-1))
        return torch.cat(parts)

    def decode(self, row: int, rows: int, out: torch.Tensor) -> None:
        first, count = row * self.columns, rows * self.columns
        if out.device.type == "cpu":
            assert self.plain is not None
            out.view(-1)[:count].copy_(self.plain[first : first + count])
            return
        assert self.resident is not None
        status = df11_torch._status(out.device)
        stream = torch.cuda.current_stream(out.device).cuda_stream
        self.resident.decompress_range(first, count, out.data_ptr(), 2 * count, stream, d_status=status.data_ptr())


class DFloat11LinearMethod(LinearMethodBase):  # type: ignore[misc]
    """Holds a layer's share of its weights compressed, and decodes it before each product."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def create_weights(
        self,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,  # noqa: ARG002
        output_size: int,  # noqa: ARG002
        params_dtype: torch.dtype,
        **_attributes: Any,
    ) -> None:
        if params_dtype != torch.bfloat16:
            raise invalid(f"'{self.tensors[0].name}' is of bfloat16, and not of {params_dtype}: --dtype bfloat16")
        held = slices(layer, self.tensors)
        layer.df11_weight = _Shard(self.tensors, held, sum(output_partition_sizes), input_size_per_partition)
        # It is where vLLM makes parameters now.
        layer.register_buffer("df11_place", torch.empty(0, dtype=torch.uint8), persistent=False)

    def process_weights_after_loading(self, layer: Any) -> None:
        layer.df11_weight.place(df11_torch._device(layer.df11_place.device))

    def apply(self, layer: Any, x: torch.Tensor, bias: Optional[torch.Tensor] = None) -> torch.Tensor:
        held = layer.df11_weight
        y: torch.Tensor = torch.ops.df11.linear(x, bias, held.number, held.rows)
        return y


class DFloat11ModelLoader(BaseModelLoader):  # type: ignore[misc]
    """Gives vLLM's models the tensors of a DF11 folder, decoded, but for those that stay compressed."""

    def download_model(self, model_config: Any) -> None:
        _folder(model_config.model, model_config.revision, self.load_config.download_dir)

    def load_weights(self, model: torch.nn.Module, model_config: Any) -> None:
        methods = [getattr(part, "quant_method", None) for part in model.modules()]
        kept = {t.name for m in methods if isinstance(m, DFloat11LinearMethod) for t in m.tensors}
        load: Any = model.load_weights
        folder = _folder(model_config.model, model_config.revision, self.load_config.download_dir)
        with _model.open(folder) as source:
            load(_decoded(source, kept))


def _decoded(source: Model, without: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the tensors of a model, each decoded when its turn comes."""
    for name, theirs in source.items():
        if name in without:
            continue
        if theirs.info.dtype not in df11_torch._DTYPES:
            raise invalid(f"tensor '{name}' is of type {theirs.dtype.name}, which torch does not have")
        tensor = torch.empty(theirs.shape, dtype=df11_torch._DTYPES[theirs.info.dtype])
        theirs.read_into(df11_torch._memory(tensor), threads=torch.get_num_threads())
        if not theirs.shape_known:
            raise invalid(f"nothing says the shape of '{name}': `df11 repack --shapes-from` adds those of the original")
        yield name, tensor


def register() -> None:
    """Registers the load format and the quantization with vLLM, which calls this in each of its processes."""
    register_model_loader(NAME)(DFloat11ModelLoader)
    register_quantization_config(NAME)(DFloat11Config)
