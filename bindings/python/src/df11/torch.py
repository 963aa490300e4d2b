"""DF11 weights in PyTorch: tensors decoded into torch's memory, and modules whose weights stay compressed.

    weights = df11.torch.load_file("Qwen3-8B-DF11")        # as safetensors.torch.load_file
    df11.torch.load_state_dict(model, "Qwen3-8B-DF11")     # decoded into the memory of the model's parameters
    df11.torch.load_compressed(model, "Qwen3-8B-DF11")     # the model's weights stay compressed
    df11.torch.compress_module(model)                      # compresses the bf16 weights that a model has
    df11.torch.decompress_module(model)                    # and back, bit for bit

A compressed weight is decoded whenever its module runs, into memory that is reused. On a CUDA device that is kernels on
the current stream and nothing else, so that it may be captured in a graph. Modules call operators of their own
(torch.ops.df11), which torch.compile does not look into.
"""

import itertools
import json
import logging
import os
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, NamedTuple, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import _groups, _model
from ._c import DType, Status
from ._library import CorruptError, Error, InvalidArgumentError, StrPath, invalid
from ._memory import Address
from ._model import Model
from .device import Device, Resident
from .matrix import Matrix

__all__ = [
    "DF11Embedding",
    "DF11Linear",
    "Incompatible",
    "check",
    "compress_module",
    "decompress_module",
    "group_tensors",
    "load_compressed",
    "load_file",
    "load_state_dict",
    "weights_of",
]

_log = logging.getLogger("df11.torch")

SCRATCH_ELEMENTS = 1 << 26
"""A weight of more elements is decoded and multiplied in pieces of rows, so that its memory stays small."""

PRODUCT_VECTORS = 4
"""Up to so many vectors are multiplied with a matrix as it is (`products`). For more of them it is decoded."""

_DTYPES: dict[int, torch.dtype] = {
    DType.BF16: torch.bfloat16,
    DType.F16: torch.float16,
    DType.F32: torch.float32,
    DType.F64: torch.float64,
    DType.BOOL: torch.bool,
    DType.U8: torch.uint8,
    DType.I8: torch.int8,
    DType.I16: torch.int16,
    DType.I32: torch.int32,
    DType.I64: torch.int64,
    DType.C64: torch.complex64,
}
for _number, _name in (
    (DType.U16, "uint16"),
    (DType.U32, "uint32"),
    (DType.U64, "uint64"),
    (DType.F8_E5M2, "float8_e5m2"),
    (DType.F8_E4M3, "float8_e4m3fn"),
    (DType.F8_E8M0, "float8_e8m0fnu"),
    (DType.F8_E4M3FNUZ, "float8_e4m3fnuz"),
    (DType.F8_E5M2FNUZ, "float8_e5m2fnuz"),
):
    if hasattr(torch, _name):
        _DTYPES[_number] = getattr(torch, _name)

DeviceLike = Union[str, int, torch.device]


def _device(device: DeviceLike) -> torch.device:
    """Returns a device with its number."""
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found


def _memory(tensor: Tensor) -> Address:
    return Address(tensor.data_ptr(), tensor.numel() * tensor.element_size())


def _threads(threads: Optional[int]) -> int:
    return torch.get_num_threads() if threads is None else threads


# Whole files.


class Incompatible(NamedTuple):
    """What a module and a file do not share, as `torch.nn.Module.load_state_dict` returns it."""

    missing_keys: list[str]
    """Parameters and buffers of the module that the file lacks."""
    unexpected_keys: list[str]
    """Tensors of the file that the module lacks."""


def load_file(
    path: StrPath,
    device: DeviceLike = "cpu",
    *,
    names: Optional[Collection[str]] = None,
    verify: bool = False,
    threads: Optional[int] = None,
) -> dict[str, Tensor]:
    """Reads the tensors of a model, decoded, as safetensors.torch.load_file does: a folder or file, compressed or not.

    Each tensor is decoded into its own memory on `device`, and nothing is copied after that. `names` are those to read;
    without it, all. `verify` walks every code before. `threads` threads decode on the CPU; without it, as many as torch
    uses.
    """
    wanted = None if names is None else set(names)
    where = _device(device)
    with _model.open(path, verify=verify, threads=_threads(threads)) as model:
        out: dict[str, Tensor] = {}
        for name, tensor in model.items():
            if wanted is None or name in wanted:
                if tensor.info.dtype not in _DTYPES:
                    raise invalid(f"tensor '{name}' is of type {tensor.dtype.name}, which torch does not have")
                out[name] = torch.empty(tensor.shape, dtype=_DTYPES[tensor.info.dtype], device=where)
        if wanted is not None and wanted - out.keys():
            raise invalid(f"the model has no tensor '{sorted(wanted - out.keys())[0]}'")
        _read(model, out, _threads(threads))
    return out


def load_state_dict(
    module: nn.Module,
    path: StrPath,
    *,
    strict: bool = True,
    verify: bool = False,
    threads: Optional[int] = None,
) -> Incompatible:
    """Reads a model into the parameters and buffers that a module has, decoded, on whatever devices they are.

    bf16 parameters are decoded where they are; others are converted from a copy. With `strict`, all of the module and
    of the file must have a counterpart (tied parameters count as one). Where the file does not know a tensor's shape,
    the module's counts, and its number of elements must agree.
    """
    with _model.open(path, verify=verify, threads=_threads(threads)) as model:
        return _load(module, model, model.keys(), strict, _threads(threads))


def _load(module: nn.Module, model: Model, names: Iterable[str], strict: bool, threads: int) -> Incompatible:
    own = module.state_dict(keep_vars=True)
    unexpected = [name for name in names if name not in own]
    shared = {name: own[name].detach() for name in names if name in own}
    filled = {_storage(tensor) for tensor in shared.values()}
    missing = [name for name, tensor in own.items() if name not in shared and _storage(tensor) not in filled]
    if strict and (missing or unexpected):
        what, name = ("lacks", missing[0]) if missing else ("has", unexpected[0])
        count = len(missing) + len(unexpected)
        raise invalid(f"the model {what} '{name}', unlike the module; {count} tensors in all have no counterpart")
    for name, tensor in shared.items():
        theirs = model[name]
        fits = tuple(tensor.shape) == theirs.shape if theirs.shape_known else tensor.numel() == theirs.element_count
        if not fits:
            raise _misfit(name, theirs.shape, tensor.shape)
        if tensor.device.type == "meta":
            raise invalid(f"parameter '{name}' has no memory: call module.to_empty(device=...) first")
    _read(model, shared, threads)
    return Incompatible(missing, unexpected)


def _misfit(name: str, theirs: Sequence[int], ours: Sequence[int]) -> Error:
    return invalid(f"tensor '{name}' is of {list(theirs)} in the model, and of {list(ours)} in the module")


def _storage(tensor: Tensor) -> tuple[Any, ...]:
    """Returns what tells apart tensors that do not share their memory."""
    return (tensor.device, tensor.data_ptr(), tuple(tensor.shape)) if tensor.numel() else (id(tensor),)


def _read(model: Model, out: Mapping[str, Tensor], threads: int) -> None:
    """Reads tensors of a model to those of torch, group by group where they are on a CUDA device."""
    direct = {}
    for name, tensor in out.items():
        theirs = model[name]
        same = tensor.dtype == _DTYPES.get(theirs.info.dtype)
        if same and tensor.is_contiguous() and tensor.device.type in ("cpu", "cuda"):
            direct[name] = tensor
        else:
            copy = torch.empty(tensor.shape, dtype=_DTYPES[theirs.info.dtype])
            theirs.read_into(_memory(copy), threads=threads)
            tensor.copy_(copy)
    devices = {tensor.device for tensor in direct.values() if tensor.device.type == "cuda"}
    done: set[str] = set()
    for device in devices:
        done |= _read_groups(model, {n: t for n, t in direct.items() if t.device == device}, device)
    for name, tensor in direct.items():
        if name in done:
            continue
        if tensor.device.type == "cpu":
            model[name].read_into(_memory(tensor), threads=threads)
        else:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype)
            model[name].read_into(_memory(copy), threads=threads)
            tensor.copy_(copy)


def _read_groups(model: Model, out: Mapping[str, Tensor], device: torch.device) -> set[str]:
    """Decodes on a device what is whole in a group; returns the names."""
    done: set[str] = set()
    with torch.cuda.device(device):
        status = torch.zeros(1, dtype=torch.int32, device=device)
        stream = torch.cuda.current_stream(device)
        for group in model.groups():
            runs = [(run, model.tensor(run.tensor)) for run in group.runs()]
            whole = [t.name if t.name in out and run.element_count == t.element_count else None for run, t in runs]
            if not group.image_bytes or not any(whole):
                continue
            image = torch.empty(group.image_bytes, dtype=torch.uint8, device=device)
            resident = _driver(device).upload(group, image.data_ptr(), group.image_bytes, stream.cuda_stream)
            try:
                resident.decompress_tensors(
                    [out[name].data_ptr() if name else 0 for name in whole],
                    [2 * out[name].numel() if name else 0 for name in whole],
                    stream.cuda_stream,
                    d_status=status.data_ptr(),
                )
            finally:
                stream.synchronize()
                resident.close()
            _raise_damaged(status, group.name)
            done.update(name for name in whole if name)
    return done


def _raise_damaged(status: Tensor, what: str) -> None:
    if int(status.item()):
        raise CorruptError(Status.CORRUPT, f"the weights of '{what}' contradict the tables of the model")


_drivers: dict[int, Device] = {}
_drivers_lock = threading.Lock()


def _driver(device: torch.device) -> Device:
    """Returns the open device of one of torch's. It stays open, because graphs may hold its kernels."""
    with _drivers_lock:
        if device.index not in _drivers:
            _drivers[device.index] = Device(device.index, allow_default_stream=True)
        return _drivers[device.index]


# Weights that stay compressed.

_numbers = itertools.count(1)
# What the operators are given is the number of a weight or group; modules keep what it stands for.
_weights: "weakref.WeakValueDictionary[int, _Weight]" = weakref.WeakValueDictionary()
_groups_of: "weakref.WeakValueDictionary[int, _Group]" = weakref.WeakValueDictionary()

_statuses: dict[torch.device, Tensor] = {}


def _status(device: torch.device) -> Tensor:
    """Returns the status word that all decodes on a device raise when they notice damage."""
    if device not in _statuses:
        _statuses[device] = torch.zeros(1, dtype=torch.int32, device=device)
    return _statuses[device]


def check() -> None:
    """Waits for all CUDA devices; raises a CorruptError if a decode there noticed that an image contradicts itself.

    On the CPU every decode raises by itself. Neither is a hash: `df11.verify` compares what can be compared.
    """
    for device, status in _statuses.items():
        torch.cuda.synchronize(device)
        _raise_damaged(status, str(device))


class _Group:
    """A group of an open model, and its images on devices."""

    def __init__(self, group: _model.Group) -> None:
        self.group = group
        self.number = next(_numbers)
        self.weights: list[_Weight] = []
        self._residents: dict[torch.device, tuple[Resident, Tensor]] = {}
        self._lock = threading.Lock()
        _groups_of[self.number] = self

    def __deepcopy__(self, _memo: object) -> "_Group":
        return self

    def place(self, device: torch.device) -> None:
        """Makes the image on a device on which a weight is, and frees those on others. It waits for the device."""
        with self._lock:
            if device.type == "cuda" and device not in self._residents:
                if not self.group.image_bytes:
                    raise invalid(f"group '{self.group.name}' has too many code words to be decoded on a device")
                with torch.cuda.device(device):
                    _status(device)
                    stream = torch.cuda.current_stream(device)
                    image = torch.empty(self.group.image_bytes, dtype=torch.uint8, device=device)
                    size = self.group.image_bytes
                    resident = _driver(device).upload(self.group, image.data_ptr(), size, stream.cuda_stream)
                    stream.synchronize()
                    resident.uploaded()
                self._residents[device] = (resident, image)
            used = {weight.device for weight in self.weights}
            for other in [d for d in self._residents if d not in used]:
                torch.cuda.synchronize(other)
                self._residents.pop(other)[0].close()

    def decode(self, first: int, count: int, out: Tensor) -> None:
        """Decodes weights of the group to a tensor, on its device."""
        if out.device.type == "cuda":
            resident, _ = self._residents[out.device]
            status = _status(out.device)
            stream = torch.cuda.current_stream(out.device).cuda_stream
            resident.decompress_range(first, count, out.data_ptr(), 2 * count, stream, d_status=status.data_ptr())
        else:
            self.group.read_into(
                Address(out.data_ptr(), 2 * count), first=first, count=count, threads=torch.get_num_threads()
            )


class _Weight:
    """A compressed weight of a module: rows and columns of bf16. It is in a model, or a matrix, or both."""

    def __init__(
        self,
        name: str,
        rows: int,
        columns: int,
        *,
        tensor: Optional[_model.Tensor] = None,
        group: Optional[_Group] = None,
        matrix: Optional[Matrix] = None,
    ) -> None:
        self.name = name
        self.rows, self.columns = rows, columns
        self.tensor, self.matrix = tensor, matrix
        self.group: Optional[_Group] = None
        self.first = 0
        self.device = torch.device("cpu")
        self.number = next(_numbers)
        _weights[self.number] = self
        if group is not None and tensor is not None:
            self._join(group, tensor)

    def __deepcopy__(self, _memo: object) -> "_Weight":
        return self

    def _join(self, group: _Group, tensor: _model.Tensor) -> None:
        self.group, self.tensor, self.first = group, tensor, tensor.info.group_offset
        group.weights.append(self)

    def place(self, device: torch.device) -> None:
        """Says on which device the module is. Images for it are made now; a matrix is for the CPU."""
        if device.type == "cuda":
            if self.tensor is None:
                self.pack()
            if self.group is None:
                raise invalid(f"tensor '{self.name}' is in several groups, and cannot be decoded on a device")
        self.device = device
        if self.group is not None:
            self.group.place(device)
        if device.type == "cuda":
            self.matrix = None

    def pack(self) -> None:
        """Makes a group of a weight that is a matrix only."""
        if self.tensor is None:
            weights = self.whole()
            name = self.name[: -len(".weight")]
            tensor = (self.name, weights.shape, _memory(weights))
            model = _groups.compress_group(name, [tensor], torch.get_num_threads())
            self._join(_Group(model.groups()[0]), model[self.name])

    def make_matrix(self) -> None:
        """Makes the form that a processor multiplies with."""
        if self.matrix is None and self.tensor is not None and self.device.type == "cpu":
            self.matrix = Matrix.of_tensor(self.tensor, column_count=self.columns, threads=torch.get_num_threads())

    def decode(self, row: int, rows: int, out: Tensor) -> None:
        """Decodes rows to a tensor, on its device."""
        if out.device != self.device:
            raise RuntimeError(f"the weight '{self.name}' is on {self.device}, and its input on {out.device}")
        first, count = row * self.columns, rows * self.columns
        matrix = self.matrix
        if matrix is not None:
            parts = _parts(count)
            ends = [rows * i // parts * self.columns for i in range(parts + 1)]

            def read(begin: int, end: int) -> None:
                target = Address(out.data_ptr() + 2 * begin, 2 * (end - begin))
                matrix.read_into(target, first=first + begin, count=end - begin)

            pending = [_executor().submit(read, *ends[i : i + 2]) for i in range(1, parts)]
            try:
                read(0, ends[1])
            finally:
                for future in pending:
                    future.result()
        elif self.group is not None:
            self.group.decode(self.first + first, count, out)
        else:
            assert self.tensor is not None
            target = Address(out.data_ptr(), 2 * count)
            self.tensor.read_into(target, offset=2 * first, nbytes=2 * count, threads=torch.get_num_threads())

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yields the rows that are decoded at a time: first and count."""
        step = max(1, min(self.rows, SCRATCH_ELEMENTS // max(self.columns, 1)))
        for row in range(0, self.rows, step):
            yield row, min(step, self.rows - row)

    def whole(self) -> Tensor:
        """Decodes it to a new tensor."""
        out = torch.empty((self.rows, self.columns), dtype=torch.bfloat16, device=self.device)
        self.decode(0, self.rows, out)
        return out


_pool: Optional[ThreadPoolExecutor] = None
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    # A child of a fork has none of the threads.
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="df11")
        return _pool


def _parts(weights: int) -> int:
    """Returns among how many threads work is divided: those of torch, with half a million weights each at least."""
    return max(1, min(torch.get_num_threads(), weights >> 19))


class _Scratch(threading.local):
    """Memory of a thread that weights are decoded to on the CPU. Fresh pages would cost as much as the decoding."""

    memory: Optional[Tensor] = None


_scratch = _Scratch()


def _buffer(count: int, device: torch.device) -> Tensor:
    """Returns memory for a weight, which is used until the next one. On a CUDA device torch's allocator reuses it."""
    if device.type != "cpu":
        return torch.empty(count, dtype=torch.bfloat16, device=device)
    if _scratch.memory is None or _scratch.memory.numel() < count:
        _scratch.memory = None
        _scratch.memory = torch.empty(count, dtype=torch.bfloat16)
    return _scratch.memory[:count]


def _products(weight: _Weight, matrix: Matrix, x: Tensor) -> Tensor:
    """Multiplies up to a few vectors with a weight as it is. The sums are of f32, in a fixed order."""
    x = x.contiguous()
    y = torch.empty((x.shape[0], weight.rows), dtype=torch.float32)
    parts = _parts(weight.rows * weight.columns)
    matrix.multiply_into(
        _memory(x),
        _memory(y),
        x_dtype=DType.BF16,
        vector_count=x.shape[0],
        executor=_executor() if parts > 1 else None,
        parts=parts,
    )
    return y.to(torch.bfloat16)


def _linear(x: Tensor, bias: Optional[Tensor], weight: int, rows: int) -> Tensor:
    held = _weights[weight]
    vectors = x.numel() // held.columns if held.columns else 0
    if held.matrix is not None and 0 < vectors <= PRODUCT_VECTORS:
        y = _products(held, held.matrix, x.reshape(vectors, held.columns)).reshape(*x.shape[:-1], rows)
        return y if bias is None else y + bias
    pieces = list(held.pieces())
    if len(pieces) == 1:
        decoded = _buffer(held.rows * held.columns, x.device)
        held.decode(0, held.rows, decoded)
        return functional.linear(x, decoded.view(held.rows, held.columns), bias)
    out = torch.empty((*x.shape[:-1], rows), dtype=x.dtype, device=x.device)
    for row, count in pieces:
        decoded = _buffer(count * held.columns, x.device)
        held.decode(row, count, decoded)
        part = None if bias is None else bias[row : row + count]
        out[..., row : row + count] = functional.linear(x, decoded.view(count, held.columns), part)
    return out


def _embedding(ids: Tensor, weight: int, columns: int) -> Tensor:
    held = _weights[weight]
    out = torch.empty((*ids.shape, columns), dtype=torch.bfloat16, device=ids.device)
    flat, rows = out.view(-1, columns), ids.reshape(-1)
    if ids.device.type == "cpu":
        wanted, back = torch.unique(rows, return_inverse=True)
        if wanted.numel() and not 0 <= int(wanted[0]) <= int(wanted[-1]) < held.rows:
            raise IndexError(f"a token is outside the {held.rows} rows of '{held.name}'")
        decoded = torch.empty((wanted.numel(), columns), dtype=torch.bfloat16)
        for i, row in enumerate(wanted.tolist()):
            held.decode(row, 1, decoded[i])
        torch.index_select(decoded, 0, back, out=flat)
        return out
    # Which rows are wanted is known on the device only, and nothing waits for it.
    for row, count in held.pieces():
        decoded = _buffer(count * columns, ids.device)
        held.decode(row, count, decoded)
        here = (rows >= row) & (rows < row + count)
        found = decoded.view(count, columns).index_select(0, (rows - row).clamp(0, count - 1))
        flat.copy_(torch.where(here[:, None], found, flat))
    return out


def _whole(_place: Tensor, weight: int, _rows: int, _columns: int) -> Tensor:
    return _weights[weight].whole()


def _group(place: Tensor, group: int, count: int) -> Tensor:
    out = torch.empty(count, dtype=torch.bfloat16, device=place.device)
    _groups_of[group].decode(0, count, out)
    return out


def _linear_backward(context: Any, gradient: Tensor) -> tuple[Optional[Tensor], Optional[Tensor], None, None]:
    x = bias = None
    if context.needs_input_grad[0]:
        x = gradient.matmul(torch.ops.df11.weight(gradient, context.weight, context.rows, context.columns))
    if context.needs_input_grad[1]:
        bias = gradient.reshape(-1, gradient.shape[-1]).sum(0)
    return x, bias, None, None


def _linear_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, _, ctx.weight, ctx.rows = inputs
    ctx.columns = x.shape[-1]


def _operator(name: str, schema: str, body: Callable[..., Tensor], fake: Callable[..., Tensor]) -> Any:
    operator = torch.library.custom_op(f"df11::{name}", body, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


_operator(
    "linear",
    "(Tensor x, Tensor? bias, int weight, int rows) -> Tensor",
    _linear,
    lambda x, _bias, _weight, rows: x.new_empty((*x.shape[:-1], rows)),
).register_autograd(_linear_backward, setup_context=_linear_context)
_operator(
    "embedding",
    "(Tensor ids, int weight, int columns) -> Tensor",
    _embedding,
    lambda ids, _weight, columns: ids.new_empty((*ids.shape, columns), dtype=torch.bfloat16),
)
_operator(
    "weight",
    "(Tensor place, int weight, int rows, int columns) -> Tensor",
    _whole,
    lambda place, _weight, rows, columns: place.new_empty((rows, columns), dtype=torch.bfloat16),
)
_operator(
    "group",
    "(Tensor place, int group, int count) -> Tensor",
    _group,
    lambda place, _group, count: place.new_empty((count,), dtype=torch.bfloat16),
)


# Modules.


class _Compressed(nn.Module):
    """What compressed modules share. The weight is no parameter: `weight` decodes it anew each time."""

    df11_weight: _Weight
    df11_decoded: Optional[Tensor]
    df11_place: Tensor

    def _take(self, weight: _Weight, device: torch.device) -> None:
        self.df11_weight = weight
        # Its block's hook sets it for the time that the block runs.
        self.df11_decoded = None
        # An empty tensor that is moved with the module, and says where that is.
        self.register_buffer("df11_place", torch.empty(0, dtype=torch.uint8, device=device), persistent=False)
        if device.type != "meta":
            weight.place(_device(device))

    @property
    def weight(self) -> Tensor:
        """The weight, decoded to a new tensor. Changes of it change nothing."""
        held = self.df11_weight
        if self.df11_place.device.type == "meta":
            return torch.empty((held.rows, held.columns), dtype=torch.bfloat16, device="meta")
        decoded: Tensor = torch.ops.df11.weight(self.df11_place, held.number, held.rows, held.columns)
        return decoded

    def _apply(self, fn: Any, recurse: bool = True) -> "_Compressed":
        super()._apply(fn, recurse)
        place(self)
        return self


class DF11Linear(_Compressed, nn.Linear):  # type: ignore[override]
    """A Linear whose weight is compressed. It computes what a Linear with the decoded weight computes."""

    def __init__(self, weight: _Weight, bias: Optional[nn.Parameter], device: torch.device) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = weight.columns, weight.rows
        self.register_parameter("bias", bias)
        self._take(weight, device)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.dtype != torch.bfloat16:
            input = _converted(input, self.df11_weight)
        if self.df11_decoded is not None:
            return functional.linear(input, self.df11_decoded, self.bias)
        y: Tensor = torch.ops.df11.linear(input, self.bias, self.df11_weight.number, self.out_features)
        return y


class DF11Embedding(_Compressed, nn.Embedding):  # type: ignore[override]
    """An Embedding whose weight is compressed. On the CPU only the rows of the tokens are decoded."""

    def __init__(self, weight: _Weight, padding_idx: Optional[int], device: torch.device) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = weight.rows, weight.columns
        self.padding_idx = padding_idx
        self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse = None, 2.0, False, False
        self._take(weight, device)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.df11_decoded is not None:
            return functional.embedding(input, self.df11_decoded)
        y: Tensor = torch.ops.df11.embedding(input, self.df11_weight.number, self.embedding_dim)
        return y


def _converted(x: Tensor, weight: _Weight) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.bfloat16)
    raise TypeError(f"the weight '{weight.name}' is of bfloat16, its input of {x.dtype}: use bfloat16, or autocast")


def place(module: nn.Module) -> None:
    """Brings the compressed weights in a module to the device where it says that it is."""
    for part in module.modules():
        if isinstance(part, _Compressed) and part.df11_place.device.type != "meta":
            where = _device(part.df11_place.device)
            if where != part.df11_weight.device or where.type == "cuda":
                part.df11_weight.place(where)


def weights_of(module: nn.Module) -> "dict[str, _Compressed]":
    """Returns the modules in a module whose weights are compressed, by their names."""
    return {name: part for name, part in module.named_modules() if isinstance(part, _Compressed)}


def _part(root: nn.Module, name: str) -> Any:
    return root.get_submodule(name)


def _set(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(_part(root, parent), last, module)


def _kind(module: nn.Module) -> Optional[type]:
    """Returns the compressed counterpart of a module's type, or None. Types derived from these may do anything."""
    if type(module) is nn.Linear:
        return DF11Linear
    if type(module) is nn.Embedding and module.max_norm is None:
        return DF11Embedding
    return None


def _replace(root: nn.Module, name: str, weight: _Weight) -> None:
    old = _part(root, name)
    bias = getattr(old, "bias", None)
    where = old.weight.device
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = DF11Linear(weight, bias, where)
    else:
        assert isinstance(old, nn.Embedding)
        new = DF11Embedding(weight, old.padding_idx, where)
    new.train(old.training)
    _set(root, name, new)


class _Before:
    """Decodes a block's group. The memory is torch's, in the order of the stream: two blocks' at most are in use."""

    def __init__(self, group: _Group, inside: Sequence[_Compressed]) -> None:
        self.group, self.number, self.count = group, group.number, group.group.element_count
        self.parts = [(m, m.df11_weight.first, m.df11_weight.rows, m.df11_weight.columns) for m in inside]

    def __call__(self, _module: nn.Module, _inputs: Any) -> None:
        where = self.parts[0][0].df11_place
        if where.device.type != "cuda" and not BLOCKS_ON_CPU:
            return
        if torch.is_grad_enabled() and torch.is_inference_mode_enabled() is False and _module.training:
            return  # What is decoded would be kept for the backward pass.
        decoded = torch.ops.df11.group(where, self.number, self.count)
        for module, first, rows, columns in self.parts:
            module.df11_decoded = decoded[first : first + rows * columns].view(rows, columns)


class _After:
    """Gives the memory back."""

    def __init__(self, inside: Sequence[_Compressed]) -> None:
        self.inside = list(inside)

    def __call__(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        for module in self.inside:
            module.df11_decoded = None


BLOCKS_ON_CPU = False
"""Whether blocks decode whole groups on the CPU too. It takes more memory, and is of use for tests only."""


class Attached(NamedTuple):
    """What `attach` has done with the compressed tensors of a model."""

    modules: dict[str, str]
    """The module of each tensor that stays compressed."""
    others: list[str]
    """Compressed tensors that no Linear or Embedding of the module has as its weight. They must be decoded."""


def attach(
    module: nn.Module,
    model: Model,
    *,
    products: bool = False,
    prefix: str = "",
    rename: Optional[Callable[[str], str]] = None,
) -> Attached:
    """Replaces each Linear and Embedding whose weight an open model has compressed; it may be on "meta" before.

    `rename` gives a tensor's name as the module has it, and `prefix` is one that may stand before it or be missing. The
    model stays open as long as one of the modules lives: do not close it.
    """
    parts = dict(module.named_modules())
    found: list[tuple[str, _model.Tensor]] = []
    others: list[str] = []
    for name, tensor in model.items():
        if not tensor.compressed:
            continue
        where = _groups.module_of(rename(name) if rename else name, parts, prefix)
        if where is None or _kind(parts[where]) is None:
            others.append(name)
            continue
        shape = tuple(parts[where].weight.shape)
        if (tensor.shape != shape) if tensor.shape_known else (tensor.element_count != parts[where].weight.numel()):
            raise _misfit(name, tensor.shape, shape)
        found.append((where, tensor))
    groups: dict[int, tuple[_Group, list[str]]] = {}
    modules: dict[str, str] = {}
    for where, tensor in found:
        group = None
        if tensor.info.run_count == 1:
            number = tensor.info.group
            assert number is not None
            if number not in groups:
                groups[number] = (_Group(model.groups()[number]), [])
            group, names = groups[number]
            names.append(where)
        rows, columns = parts[where].weight.shape
        weight = _Weight(tensor.name, rows, columns, tensor=tensor, group=group)
        if products:
            weight.make_matrix()
        _replace(module, where, weight)
        modules[tensor.name] = where
    for group, names in groups.values():
        _decode_as_block(module, group, names)
    return Attached(modules, others)


def _decode_as_block(root: nn.Module, group: _Group, names: Sequence[str]) -> None:
    """Lets the block that has all modules of a group decode it in one launch before it runs, not weight by weight."""
    block = _common([name.split(".") for name in names])
    if len(names) < 2 or not block or group.group.info.tensor_count != len(names):
        return
    inside = [_part(root, name) for name in names]
    module = _part(root, block)
    module.register_forward_pre_hook(_Before(group, [m for m in inside if isinstance(m, _Compressed)]))
    module.register_forward_hook(_After([m for m in inside if isinstance(m, _Compressed)]))


def _common(paths: Sequence[Sequence[str]]) -> str:
    """Returns the module that all of some modules are in."""
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths))
    return ".".join(parts[0] for parts in same)


def load_compressed(
    module: nn.Module,
    path: StrPath,
    *,
    products: bool = False,
    prefix: str = "",
    strict: bool = True,
    verify: bool = False,
    threads: Optional[int] = None,
) -> Incompatible:
    """Gives a module the weights of a model, which stay compressed where a Linear or an Embedding has them.

    The rest is read as by `load_state_dict`. The module may be on the device "meta" before, so that nothing is
    allocated that is not used; what is on it then and has to be read is allocated on the CPU. Compressed weights are
    decoded from the file, which stays open; on CUDA devices, from images that are made when the module is moved there.
    With `products` the CPU has them in a form to multiply with (12 bits a weight, in memory): faster for one token at a
    time, and with sums in another order. `prefix` is one that names in the file may have or lack.
    """
    model = _model.open(path, verify=verify, threads=_threads(threads))
    attached = attach(module, model, products=products, prefix=prefix)
    own = module.state_dict(keep_vars=True)
    for name, tensor in own.items():
        if tensor.device.type == "meta" and name in model:
            parent, _, last = name.rpartition(".")
            holder = _part(module, parent)
            memory = torch.empty(tensor.shape, dtype=tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(last, nn.Parameter(memory, requires_grad=tensor.requires_grad))
            else:
                holder.register_buffer(last, memory)
    for part in weights_of(module).values():
        if part.df11_place.device.type == "meta":
            part.df11_place = torch.empty(0, dtype=torch.uint8)
    names = [name for name in model if name not in attached.modules]
    return _load(module, model, names, strict, _threads(threads))


def compress_module(
    module: nn.Module,
    *,
    products: Optional[bool] = None,
    exclude: Collection[str] = (),
    min_elements: int = 1 << 12,
    threads: Optional[int] = None,
) -> nn.Module:
    """Compresses the bf16 weights of the Linears and Embeddings in a module, in place, and returns it.

    The weights of a block (a child of a ModuleList) become a group. On the CPU they become matrices to multiply with,
    unless `products` is False: then they take a tenth less memory and more time. Modules with a name in `exclude`,
    weights of fewer than `min_elements`, and weights that the format cannot hold (infinities, NaNs) stay as they are.
    Modules that share a weight still share it. `decompress_module` gives back the same bits.
    """
    blocks: dict[str, list[str]] = {}
    shared: dict[int, list[str]] = {}
    lists = {name for name, part in module.named_modules() if isinstance(part, nn.ModuleList)}
    for name, part in module.named_modules():
        if not name or name in exclude or _kind(part) is None:
            continue
        weight = part.weight
        if weight.dtype != torch.bfloat16 or weight.numel() < min_elements or weight.device.type == "meta":
            continue
        shared.setdefault(id(weight), []).append(name)
        if len(shared[id(weight)]) == 1:
            blocks.setdefault(_block_of(name, lists), []).append(name)
    for block, names in blocks.items():
        held = {name: _part(module, name).weight for name in names}
        same = {name: shared[id(weight)] for name, weight in held.items()}
        for weight in _compressed(block, held, products, _threads(threads)):
            for name in same[weight.name[: -len(".weight")]]:
                _replace(module, name, weight)
            del held[weight.name[: -len(".weight")]]
        together = [n for n in names if n not in held]
        if together:
            group = _part(module, together[0]).df11_weight.group
            if group is not None and len(group.weights) == len(together):
                _decode_as_block(module, group, together)
    return module


def _block_of(name: str, lists: Collection[str]) -> str:
    """Returns the child of a ModuleList that a module is in, the innermost; or the module itself."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        if ".".join(parts[: i - 1]) in lists and i < len(parts):
            return ".".join(parts[:i])
    return name


def _compressed(block: str, held: Mapping[str, Tensor], products: Optional[bool], threads: int) -> Iterator["_Weight"]:
    """Compresses weights of a block, and leaves out those that the format cannot hold."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in held.items()}
    on_cpu = all(weight.device.type == "cpu" for weight in held.values())
    if on_cpu if products is None else products:
        for name, tensor in tensors.items():
            rows, columns = tensor.shape
            matrix = Matrix.of_weights(_memory(tensor), rows, columns, threads=threads)
            yield _Weight(f"{name}.weight", rows, columns, matrix=matrix)
        return
    for part in (list(tensors), *([name] for name in tensors)):
        try:
            model = _groups.compress_group(
                block if part != [block] and len(part) > 1 else part[0],
                [(f"{name}.weight", tensors[name].shape, _memory(tensors[name])) for name in part],
                threads,
            )
        except InvalidArgumentError as e:
            if len(part) == 1:
                _log.warning("'%s.weight' stays as it is: %s", part[0], e)
            continue
        group = _Group(model.groups()[0])
        for name in part:
            rows, columns = tensors[name].shape
            yield _Weight(f"{name}.weight", rows, columns, tensor=model[f"{name}.weight"], group=group)
        if len(part) == len(tensors):
            return


def decompress_module(module: nn.Module) -> nn.Module:
    """Gives the modules with compressed weights in a module their plain types back, in place, and returns it."""
    done: dict[int, nn.Parameter] = {}
    for name, old in weights_of(module).items():
        held = old.df11_weight
        if held.number not in done:
            done[held.number] = nn.Parameter(held.whole(), requires_grad=False)
        new: nn.Module
        if isinstance(old, DF11Linear):
            new = nn.Linear(held.columns, held.rows, bias=False, device="meta", dtype=torch.bfloat16)
            new.register_parameter("bias", old.bias)
        else:
            assert isinstance(old, DF11Embedding)
            new = nn.Embedding(held.rows, held.columns, old.padding_idx, device="meta", dtype=torch.bfloat16)
        new.weight = done[held.number]
        new.train(old.training)
        _set(module, name, new)
    for part in module.modules():
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for number in [n for n, hook in hooks.items() if isinstance(hook, (_Before, _After))]:
                del hooks[number]
    return module


def group_tensors(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns what a file of the compressed weights in a module holds: the members of their groups, by name.

    The second is the dfloat11_config that goes with them. The tensors are the memory of the open model: do not write to
    them.
    """
    members: dict[str, Tensor] = {}
    patterns: dict[str, list[str]] = {}
    config: dict[str, Any] = {}
    seen: set[int] = set()
    for part in weights_of(module).values():
        held = part.df11_weight
        held.pack()
        assert held.tensor is not None
        for run in held.tensor.runs():
            group = held.tensor.model.groups()[run.group]
            if group.info.extended:
                raise invalid(f"group '{group.name}' is of the extension of the format: `df11 repack` copies it")
            if (key := id(held.tensor.model) ^ run.group) in seen:
                continue
            seen.add(key)
            for name, data in _groups.members(group):
                members[name] = _member(name, data)
        theirs = held.tensor.model.config_text
        config = json.loads(theirs or "{}").get("dfloat11_config") or config
        patterns.update(config.get("pattern_dict", {}))
    return members, {**config, "pattern_dict": patterns}


def _member(name: str, data: Any) -> Tensor:
    if name.endswith(".split_positions"):
        # It may begin at any byte of the file.
        return torch.frombuffer(bytearray(data), dtype=torch.int64) if len(data) else torch.empty(0, dtype=torch.int64)
    tensor = torch.frombuffer(data, dtype=torch.uint8)
    return tensor.view(-1, 256) if name.endswith(".luts") else tensor
