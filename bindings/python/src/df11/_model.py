"""Models: what is in them, and decoding on the CPU."""

from __future__ import annotations

import builtins
import ctypes as ct
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from . import _c
from ._c import DType, GroupInfo, ImageInfo, PartInfo, RunInfo, Slice, Status, TensorInfo
from ._library import (
    BufferTooSmallError,
    Closing,
    Handle,
    ProgressLike,
    StrPath,
    call,
    default_threads,
    info,
    invalid,
    lib,
    optional,
    path_text,
    plain,
    run,
    struct,
    text,
)
from ._memory import Buffer, Memory, numpy, numpy_dtype

if TYPE_CHECKING:
    from .device import Shard

Shapes = Mapping[str, Sequence[int]]


def shapes_text(shapes: Optional[Shapes]) -> Optional[bytes]:
    """Returns shapes as the library takes them."""
    if shapes is None:
        return None
    import json

    return text(json.dumps({name: list(shape) for name, shape in shapes.items()}))


def open(
    path: StrPath,
    *,
    verify: bool = False,
    read: bool = False,
    any_version: bool = False,
    derive_shapes: bool = True,
    config: Optional[str] = None,
    shapes: Optional[Shapes] = None,
    shapes_from: Optional[StrPath] = None,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> Model:
    """Opens a model: a folder in Hugging Face layout, or one .safetensors file, compressed or not.

    Headers, tables and positions are read and checked, but no weights, which takes milliseconds. `verify` walks every
    code, on `threads` threads (all processors, if not given), and tells `progress`. `read` reads the files piece by
    piece instead of mapping them: use it for files that another process may cut short. `any_version` accepts a version
    of the compressor that this library does not know. `config` is the text of a config.json to use instead of the
    model's own. `shapes` and `shapes_from` (the original, or its headers) give shapes of compressed tensors that the
    files do not say, and `derive_shapes=False` leaves those unknown that follow from config and plain tensors.

    The files must not change while the model is open, unless `read` is given.
    """
    source = path_text(path)
    return _open(
        lambda options, out: call(lib.df11_model_open, source, options, out),
        None,
        verify,
        (_c.DF11_OPEN_READ if read else 0)
        | (_c.DF11_OPEN_ANY_VERSION if any_version else 0)
        | (0 if derive_shapes else _c.DF11_OPEN_NO_DERIVED_SHAPES),
        config,
        shapes,
        shapes_from,
        threads,
        progress,
    )


def open_memory(
    data: Buffer,
    *,
    verify: bool = False,
    any_version: bool = False,
    derive_shapes: bool = True,
    config: Optional[str] = None,
    shapes: Optional[Shapes] = None,
    shapes_from: Optional[StrPath] = None,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> Model:
    """Opens the bytes of one .safetensors file, which are not copied; the model keeps them. All else is as for
    `open`."""
    memory = Memory(data, writable=False)
    return _open(
        lambda options, out: call(lib.df11_model_open_memory, memory.address, memory.nbytes, options, out),
        memory,
        verify,
        (_c.DF11_OPEN_ANY_VERSION if any_version else 0) | (0 if derive_shapes else _c.DF11_OPEN_NO_DERIVED_SHAPES),
        config,
        shapes,
        shapes_from,
        threads,
        progress,
    )


def _open(
    opening: Any,
    keep: Any,
    verify: bool,
    flags: int,
    config: Optional[str],
    shapes: Optional[Shapes],
    shapes_from: Optional[StrPath],
    threads: Optional[int],
    progress: ProgressLike,
) -> Model:
    out = ct.c_void_p()
    options = struct(
        _c.df11_open_options,
        flags=flags | (_c.DF11_OPEN_VERIFY if verify else 0),
        threads=default_threads(threads),
        config_json=optional(config),
        shapes_from=None if shapes_from is None else path_text(shapes_from),
        shapes_json=shapes_text(shapes),
    )

    def work(token: Optional[int]) -> None:
        options.progress = token
        opening(ct.byref(options), ct.byref(out))

    if verify:
        try:
            run("verifying", progress, work)
        except BaseException:
            lib.df11_model_free(out)
            raise
    else:
        work(None)
    return Model(Handle("model", out.value or 0, lib.df11_model_free, keep))


class Model(Closing, Mapping[str, "Tensor"]):
    """An open model: a mapping of names to tensors, none of which is read before it is asked for.

    It never changes: any number of threads may use it at once. It has the methods of safetensors' `safe_open`, too.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._tensors: Optional[dict[str, Tensor]] = None
        self._groups: Optional[tuple[Group, ...]] = None

    def __enter__(self) -> Model:
        return self

    def __repr__(self) -> str:
        return "<df11.Model, closed>" if self.closed else f"<df11.Model of {len(self)} tensors>"

    def __getitem__(self, name: str) -> Tensor:
        tensors = self._tensors
        if tensors is not None and name in tensors:
            return tensors[name]
        number = ct.c_uint64()
        with self._handle as pointer:
            call(lib.df11_model_find_tensor, pointer, text(name), ct.byref(number))
        return self.tensor(number.value)

    def __len__(self) -> int:
        with self._handle as pointer:
            return int(lib.df11_model_tensor_count(pointer))

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def _all(self) -> dict[str, Tensor]:
        with self._lock:
            if self._tensors is None:
                tensors = (self.tensor(number) for number in range(len(self)))
                self._tensors = {tensor.name: tensor for tensor in tensors}
            return self._tensors

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def tensor(self, number: int) -> Tensor:
        """Returns the tensor of that number, from 0: those of the first group come first, the plain ones last."""
        with self._handle as pointer:
            return Tensor(self, number, info(lib.df11_model_get_tensor_info, _c.df11_tensor_info, pointer, number))

    def groups(self) -> tuple[Group, ...]:
        """Returns the groups, in the natural order of their names."""
        with self._lock:
            if self._groups is None:
                with self._handle as pointer:
                    count = lib.df11_model_group_count(pointer)
                    self._groups = tuple(
                        Group(self, i, info(lib.df11_model_get_group_info, _c.df11_group_info, pointer, i))
                        for i in range(count)
                    )
            return self._groups

    def group(self, name: str) -> Group:
        """Finds a group by its full name, such as "model.layers.0"."""
        number = ct.c_uint64()
        with self._handle as pointer:
            call(lib.df11_model_find_group, pointer, text(name), ct.byref(number))
        return self.groups()[number.value]

    @property
    def config_text(self) -> Optional[str]:
        """The text of the config.json that the model was opened with; None if there is none."""
        with self._handle as pointer:
            raw: Optional[bytes] = lib.df11_model_config_text(pointer, None)
        return None if raw is None else raw.decode("utf-8", "surrogateescape")

    def get_tensor(self, name: str, *, bits: bool = False, threads: Optional[int] = None) -> Any:
        """Reads a tensor: see `Tensor.read`."""
        return self[name].read(bits=bits, threads=threads)

    def get_slice(self, name: str) -> TensorSlice:
        """Returns what reads parts of a tensor, as `model.get_slice(name)[10:20]`."""
        return TensorSlice(self[name])

    def read_into(
        self, name: str, buffer: Buffer, *, offset: int = 0, nbytes: Optional[int] = None, threads: Optional[int] = None
    ) -> int:
        """Reads a tensor to a buffer: see `Tensor.read_into`."""
        return self[name].read_into(buffer, offset=offset, nbytes=nbytes, threads=threads)


class Tensor:
    """A tensor of a model. Its values are read when they are asked for."""

    __slots__ = ("index", "info", "model")

    model: Model
    index: int
    """Its number in the model."""
    info: TensorInfo
    """All that the library says about it."""

    def __init__(self, model: Model, index: int, info: TensorInfo) -> None:
        self.model = model
        self.index = index
        self.info = info

    def __repr__(self) -> str:
        return f"<df11.Tensor {self.name!r}, {self.dtype.name} {list(self.shape)}>"

    @property
    def name(self) -> str:
        """Its full name."""
        return self.info.name

    @property
    def dtype(self) -> DType:
        """The type of its elements."""
        return DType(self.info.dtype) if self.info.dtype in _DTYPES else DType.UNKNOWN

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions. If they are not known (`shape_known`), it has one."""
        return self.info.shape

    @property
    def shape_known(self) -> bool:
        """Whether anything says its dimensions. DF11 does not store those of compressed tensors."""
        return self.info.shape_known != _c.DF11_SHAPE_UNKNOWN

    @property
    def nbytes(self) -> int:
        """Bytes of its values, decoded."""
        return self.info.data_bytes

    @property
    def element_count(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def compressed(self) -> bool:
        """Whether it is in a group."""
        return self.info.group is not None

    @property
    def group(self) -> Optional[Group]:
        """The group that its first element is in; None for a plain tensor."""
        return None if self.info.group is None else self.model.groups()[self.info.group]

    def runs(self) -> tuple[RunInfo, ...]:
        """Returns where its elements are: one run, or, by the extension of the format, several; none for a plain
        tensor."""
        with self.model._handle as pointer:
            return tuple(
                info(lib.df11_model_get_tensor_run, _c.df11_run_info, pointer, self.index, i)
                for i in range(self.info.run_count)
            )

    def read_into(
        self, buffer: Buffer, *, offset: int = 0, nbytes: Optional[int] = None, threads: Optional[int] = None
    ) -> int:
        """Copies or decodes bytes of its values, from byte `offset` on, to a writable buffer; returns how many.

        Without `nbytes` these are all that follow. `threads` threads work, without it one for each processor, and fewer
        where there is little to do. Other threads of Python run meanwhile.
        """
        wanted = max(self.nbytes - offset, 0) if nbytes is None else nbytes
        with Memory(buffer, writable=True) as memory, self.model._handle as pointer:
            _holds(memory, _natural(wanted))
            call(
                lib.df11_model_read_tensor,
                pointer,
                self.index,
                _natural(offset),
                memory.address,
                wanted,
                default_threads(threads),
            )
        return wanted

    def read(self, *, bits: bool = False, threads: Optional[int] = None) -> Any:
        """Reads its values to a new array of numpy of its shape; without numpy, to a bytearray.

        numpy has no bfloat16: the array has that of the package ml_dtypes if it is there, and else, or with `bits`,
        uint16. Of types whose elements are no whole bytes it has the bytes.
        """
        np = numpy()
        if np is None:
            out = bytearray(self.nbytes)
            self.read_into(out, threads=threads)
            return out
        kind = numpy_dtype(self.dtype, bits)
        array = np.empty(self.nbytes, np.uint8) if kind is None else np.empty(self.shape, kind)
        self.read_into(array, threads=threads)
        return array

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Any:
        if copy is False:
            raise invalid("the values of a tensor are always decoded to new memory")
        array = self.read()
        return array if dtype is None else array.astype(dtype)


class TensorSlice:
    """Reads parts of a tensor, as `get_slice()` of safetensors does: `slice[10:20]`, `slice[:, 3:5]`.

    What is read, or decoded, is the rows from the first one that is needed to the last one, along the first dimension.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def get_shape(self) -> list[int]:
        """Returns the tensor's dimensions."""
        return list(self.tensor.shape)

    def get_dtype(self) -> str:
        """Returns the type of its elements as safetensors spells it, such as "BF16"."""
        raw: bytes = lib.df11_dtype_name(self.tensor.info.dtype)
        return raw.decode()

    def __getitem__(self, key: Any) -> Any:
        tensor = self.tensor
        keys = key if isinstance(key, tuple) else (key,)
        if not keys or keys[0] is Ellipsis or not tensor.shape:
            whole = tensor.read()
            return whole if not keys or keys == (Ellipsis,) else whole[key]
        rows = tensor.shape[0]
        if isinstance(keys[0], builtins.slice):
            wanted = range(*keys[0].indices(rows))
            index: Any = builtins.slice(None)
        else:
            row = keys[0].__index__()
            if not -rows <= row < rows:
                raise IndexError(f"row {row} of {rows}")
            wanted = range(row % rows, row % rows + 1)
            index = 0
        first = min(wanted[0], wanted[-1]) if wanted else 0
        count = abs(wanted[-1] - wanted[0]) + 1 if wanted else 0
        step = wanted.step
        row_bytes = tensor.nbytes // rows if rows else 0
        kind = numpy_dtype(tensor.dtype, False) if numpy() is not None else None
        if kind is None:
            if len(keys) > 1 or step != 1:
                raise invalid("without numpy, and for types without one of numpy's, only whole rows can be read")
            out = bytearray(count * row_bytes)
            tensor.read_into(out, offset=first * row_bytes, nbytes=len(out))
            return out
        array = numpy().empty((count, *tensor.shape[1:]), kind)
        tensor.read_into(array, offset=first * row_bytes, nbytes=count * row_bytes)
        if index != 0:
            index = builtins.slice(None, None, step) if count else builtins.slice(0, 0)
        rest = (index, *keys[1:])
        return array[rest]


class Group:
    """A group of a model: tensors that were compressed together, usually one layer."""

    __slots__ = ("index", "info", "model")

    model: Model
    index: int
    """Its number in the model."""
    info: GroupInfo
    """All that the library says about it."""

    def __init__(self, model: Model, index: int, info: GroupInfo) -> None:
        self.model = model
        self.index = index
        self.info = info

    def __repr__(self) -> str:
        return f"<df11.Group {self.name!r} of {self.info.tensor_count} tensors, {self.element_count} weights>"

    @property
    def name(self) -> str:
        """The module's full name, such as "model.layers.0"."""
        return self.info.name

    @property
    def element_count(self) -> int:
        """The weights in all its tensors, 2 bytes each when decoded."""
        return self.info.element_count

    @property
    def nbytes(self) -> int:
        """Bytes of all its weights, decoded."""
        return 2 * self.info.element_count

    @property
    def image_bytes(self) -> int:
        """Bytes of its image on a device; 0 if it cannot be decoded there."""
        return self.info.image_bytes

    def runs(self) -> tuple[RunInfo, ...]:
        """Returns which elements of which tensors its weights are, in their order."""
        with self.model._handle as pointer:
            return tuple(
                info(lib.df11_model_get_group_run, _c.df11_run_info, pointer, self.index, i)
                for i in range(self.info.tensor_count)
            )

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns its tensors, in the order of their weights."""
        return tuple(self.model.tensor(run.tensor) for run in self.runs())

    def part(self, part: int) -> PartInfo:
        """Says where a part of it (`df11.PART_*`) is stored, for programs that read files by themselves."""
        with self.model._handle as pointer:
            where: PartInfo = info(lib.df11_model_get_group_part, _c.df11_part_info, pointer, self.index, part)
        return where

    def read_into(
        self, buffer: Buffer, *, first: int = 0, count: Optional[int] = None, threads: Optional[int] = None
    ) -> int:
        """Decodes `count` weights, from weight `first` on, to a writable buffer; returns how many.

        Without `count` these are all that follow. All else is as for `Tensor.read_into`.
        """
        wanted = max(self.element_count - first, 0) if count is None else count
        with Memory(buffer, writable=True) as memory, self.model._handle as pointer:
            _holds(memory, 2 * _natural(wanted))
            call(
                lib.df11_model_decompress,
                pointer,
                self.index,
                _natural(first),
                wanted,
                memory.address,
                2 * wanted,
                default_threads(threads),
            )
        return wanted

    def read(
        self, *, first: int = 0, count: Optional[int] = None, bits: bool = False, threads: Optional[int] = None
    ) -> Any:
        """Decodes weights to a new array of numpy, of one dimension; without numpy, to a bytearray. See
        `Tensor.read`."""
        wanted = _natural(max(self.element_count - first, 0) if count is None else count)
        np = numpy()
        out = bytearray(2 * wanted) if np is None else np.empty(wanted, numpy_dtype(DType.BF16, bits))
        self.read_into(out, first=first, count=wanted, threads=threads)
        return out

    def write_image(self, buffer: Buffer, *, part: int = 0, part_count: int = 1) -> None:
        """Writes its image, `image_bytes` bytes, to a writable buffer: what a device decodes, once it is in its memory.

        One thread works. Where you have several, each writes one of `part_count` parts.
        """
        with Memory(buffer, writable=True) as memory, self.model._handle as pointer:
            call(
                lib.df11_model_write_image_part,
                pointer,
                self.index,
                memory.address,
                memory.nbytes,
                _small(part),
                _small(part_count),
            )

    def image_range_info(self, first: int, count: int) -> ImageInfo:
        """Describes the image of `count` weights from weight `first` on: how many bytes it has, for instance."""
        with self.model._handle as pointer:
            about: ImageInfo = info(
                lib.df11_model_get_image_range_info,
                _c.df11_image_info,
                pointer,
                self.index,
                _natural(first),
                _natural(count),
            )
        return about

    def write_image_range(self, first: int, count: int, buffer: Buffer, *, threads: Optional[int] = None) -> None:
        """Writes the image of `count` weights from weight `first` on to a writable buffer."""
        with Memory(buffer, writable=True) as memory, self.model._handle as pointer:
            call(
                lib.df11_model_write_image_range,
                pointer,
                self.index,
                _natural(first),
                _natural(count),
                memory.address,
                memory.nbytes,
                default_threads(threads),
            )

    def slices(
        self,
        tensor: int,
        rank: int,
        world: int,
        *,
        dimension: Optional[int] = None,
        segments: Sequence[Segment] = (),
    ) -> tuple[Slice, ...]:
        """Returns what rank `rank` of `world` holds of a tensor, given by its number in the group.

        `dimension` is 0 for rows and 1 for columns; without it the tensor's name tells. `segments` are the parts of it
        that are divided each for itself: the matrices that a fused tensor joins, and units that stay together, such as
        heads.
        """
        given = (_c.df11_segment * len(segments))(*[_c.df11_segment(s.extent, s.unit, s.rule, 0) for s in segments])
        out = (_c.df11_slice * max(len(segments), 1))()
        with self.model._handle as pointer:
            call(
                lib.df11_model_get_slices,
                pointer,
                self.index,
                _natural(tensor),
                _c.DF11_DIMENSION_BY_NAME if dimension is None else _small(dimension),
                given if segments else None,
                len(segments),
                _small(rank),
                _small(world),
                out,
            )
        return tuple(plain(s) for s in out)

    def shard(self, slices: Sequence[Slice], *, threads: Optional[int] = None, progress: ProgressLike = None) -> Shard:
        """Counts slices of the group, so that their image can be written: what one of several devices holds of it."""
        from .device import Shard

        given = (_c.df11_slice * len(slices))(*[_c.df11_slice(*s) for s in slices])
        out = ct.c_void_p()
        workers = default_threads(threads)

        def work(token: int) -> None:
            with self.model._handle as pointer:
                call(lib.df11_model_make_shard, pointer, self.index, given, len(slices), workers, token, ct.byref(out))

        try:
            run("counting", progress, work)
        except BaseException:
            lib.df11_shard_free(out)
            raise
        return Shard(self.model, out.value or 0)


class Segment:
    """Consecutive rows or columns of a tensor that ranks divide alike: `extent` of them, in units that stay
    together."""

    __slots__ = ("extent", "rule", "unit")

    def __init__(self, extent: int, unit: int = 1, rule: int = _c.DF11_SPLIT_EVEN) -> None:
        self.extent = _natural(extent)
        self.unit = _natural(unit)
        self.rule = _small(rule)

    def split(self, rank: int, world: int) -> range:
        """Returns which rows or columns of it a rank holds."""
        first, count = ct.c_uint64(), ct.c_uint64()
        segment = _c.df11_segment(self.extent, self.unit, self.rule, 0)
        call(
            lib.df11_split_segment,
            ct.byref(segment),
            _small(rank),
            _small(world),
            ct.byref(first),
            ct.byref(count),
        )
        return range(first.value, first.value + count.value)


_DTYPES = {int(dtype) for dtype in DType}


def _holds(memory: Memory, nbytes: int) -> None:
    if memory.nbytes < nbytes:
        raise BufferTooSmallError(
            Status.BUFFER_TOO_SMALL, f"the buffer has {memory.nbytes} bytes, and {nbytes} are needed"
        )


def _natural(value: int) -> int:
    """Returns a number that fits a uint64_t. ctypes would cut it."""
    if not 0 <= value < 2**64:
        raise invalid(f"{value} is out of range")
    return value


def _small(value: int) -> int:
    """Returns a number that fits a uint32_t."""
    if not 0 <= value < 2**32:
        raise invalid(f"{value} is out of range")
    return value
