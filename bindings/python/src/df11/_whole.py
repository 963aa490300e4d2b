"""Whole models: compressing, decompressing, verifying, planning; and groups in memory."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from . import _c
from ._c import (
    CompressReport,
    DecompressReport,
    PlanGroupInfo,
    PlanInfo,
    PlanShareInfo,
    PresetInfo,
    RepackReport,
    VerifyReport,
)
from ._library import (
    Closing,
    CorruptError,
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
from ._memory import Buffer, Memory
from ._model import Shapes, _natural, _small, shapes_text


class Left(NamedTuple):
    """A tensor that the patterns ask for and that stays as it was."""

    tensor: str
    group: str
    """The group that it would have been in, which stays plain as a whole."""
    reason: str


class Finding(NamedTuple):
    """What a verification says of a group or tensor."""

    kind: int
    """`df11.FINDING_GOOD`, `FINDING_BAD`, `FINDING_HASH`, `FINDING_DIFFERS`, `FINDING_NOTE` or `FINDING_MISSING`."""
    name: str
    text: str


class Verified(NamedTuple):
    """A verification that found nothing wrong, or, as the `result` of a CorruptError, one that did."""

    report: VerifyReport
    findings: tuple[Finding, ...]


class Compressed(NamedTuple):
    """A compression."""

    report: CompressReport
    left: tuple[Left, ...]


def _said(raw: Optional[bytes]) -> str:
    return (raw or b"").decode("utf-8", "surrogateescape")


def _path(path: Optional[StrPath]) -> Optional[bytes]:
    return None if path is None else path_text(path)


def _flags(**chosen: tuple[bool, int]) -> int:
    return sum(flag for wanted, flag in chosen.values() if wanted)


class _Leaving:
    """Keeps what a df11_left_fn is told."""

    def __init__(self) -> None:
        self.found: list[Left] = []
        self.callback = _c.df11_left_fn(self._take)

    def _take(self, _user: Any, tensor: bytes, group: bytes, reason: bytes) -> None:
        self.found.append(Left(_said(tensor), _said(group), _said(reason)))


def _compress(
    function: Any,
    src: StrPath,
    dst: StrPath,
    threads: Optional[int],
    memory_bytes: int,
    preset: Optional[str],
    patterns: Optional[str],
    part: tuple[int, int],
    flags: int,
    progress: ProgressLike,
) -> Compressed:
    source, target, leaving = path_text(src), path_text(dst), _Leaving()
    report = struct(_c.df11_compress_report)
    options = struct(
        _c.df11_compress_options,
        threads=default_threads(threads),
        flags=flags,
        memory_bytes=_natural(memory_bytes),
        preset=optional(preset),
        pattern_json=optional(patterns),
        part=_small(part[0]),
        part_count=_small(part[1]),
        left=leaving.callback,
        report=ct.pointer(report),
    )

    def work(token: int) -> None:
        options.progress = token
        call(function, source, target, ct.byref(options))

    run("compressing", progress, work)
    return Compressed(plain(report), tuple(leaving.found))


def compress(
    src: StrPath,
    dst: StrPath,
    *,
    preset: Optional[str] = None,
    patterns: Optional[str] = None,
    verify: bool = True,
    resume: bool = False,
    strict: bool = False,
    hashes: bool = False,
    shapes: bool = False,
    single_file: bool = False,
    folder: bool = False,
    keep_existing: bool = False,
    allow_plain: bool = False,
    incomplete: bool = False,
    reference_only: bool = False,
    part: int = 0,
    part_count: int = 0,
    memory_bytes: int = 0,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> Compressed:
    """Compresses a model: a folder in Hugging Face layout or one .safetensors file, to a new folder or a file.

    The groups are those of a `preset`, or of `patterns` (the JSON text of a pattern_dict, or of a config.json that has
    one), or chosen by the model. `verify=False` does not decode what was written. `resume` goes on with what an
    interrupted run has left. `strict` makes it an error if something that was asked for stays plain. `hashes` and
    `shapes` write those of each tensor to the files. `single_file` and `folder` say what `dst` becomes, otherwise its
    name does. `keep_existing` refuses to replace a file. `allow_plain` copies a model of which nothing can be
    compressed, `incomplete` takes one that lacks something, and `reference_only` uses no extension of the format. Part
    `part` of `part_count` is for several processes; `merge` then completes the model.
    """
    flags = _flags(
        verify=(not verify, _c.DF11_COMPRESS_NO_VERIFY),
        resume=(resume, _c.DF11_COMPRESS_RESUME),
        strict=(strict, _c.DF11_COMPRESS_STRICT),
        hashes=(hashes, _c.DF11_COMPRESS_HASHES),
        shapes=(shapes, _c.DF11_COMPRESS_SHAPES),
        single_file=(single_file, _c.DF11_COMPRESS_SINGLE_FILE),
        folder=(folder, _c.DF11_COMPRESS_FOLDER),
        keep_existing=(keep_existing, _c.DF11_COMPRESS_KEEP_EXISTING),
        allow_plain=(allow_plain, _c.DF11_COMPRESS_ALLOW_PLAIN),
        incomplete=(incomplete, _c.DF11_COMPRESS_INCOMPLETE),
        reference_only=(reference_only, _c.DF11_COMPRESS_REFERENCE_ONLY),
    )
    return _compress(
        lib.df11_compress_model, src, dst, threads, memory_bytes, preset, patterns, (part, part_count), flags, progress
    )


def merge(
    src: StrPath,
    dst: StrPath,
    *,
    preset: Optional[str] = None,
    patterns: Optional[str] = None,
    verify: bool = True,
    strict: bool = False,
    hashes: bool = False,
    shapes: bool = False,
    allow_plain: bool = False,
    incomplete: bool = False,
    reference_only: bool = False,
    memory_bytes: int = 0,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> Compressed:
    """Completes a folder whose parts are all finished. The options are those of the parts: see `compress`."""
    flags = _flags(
        verify=(not verify, _c.DF11_COMPRESS_NO_VERIFY),
        strict=(strict, _c.DF11_COMPRESS_STRICT),
        hashes=(hashes, _c.DF11_COMPRESS_HASHES),
        shapes=(shapes, _c.DF11_COMPRESS_SHAPES),
        allow_plain=(allow_plain, _c.DF11_COMPRESS_ALLOW_PLAIN),
        incomplete=(incomplete, _c.DF11_COMPRESS_INCOMPLETE),
        reference_only=(reference_only, _c.DF11_COMPRESS_REFERENCE_ONLY),
    )
    return _compress(lib.df11_merge_model, src, dst, threads, memory_bytes, preset, patterns, (0, 0), flags, progress)


def decompress(
    src: StrPath,
    dst: StrPath,
    *,
    tensors: Sequence[str] = (),
    groups: Sequence[str] = (),
    flat: bool = False,
    keep_existing: bool = False,
    any_version: bool = False,
    incomplete: bool = False,
    shard_bytes: int = 0,
    config: Optional[str] = None,
    shapes: Optional[Shapes] = None,
    shapes_from: Optional[StrPath] = None,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> DecompressReport:
    """Decompresses a model to plain safetensors, bit for bit: to one file, if `dst` ends in .safetensors, else a new
    folder.

    `tensors` and `groups` choose some by their names. `flat` writes tensors whose shapes are not known with one
    dimension. `shard_bytes` is the most bytes of a file in a folder (0: 5 GB). For the others see `open` and
    `compress`.
    """
    names = [(ct.c_char_p * len(some))(*map(text, some)) for some in (tensors, groups)]
    report = struct(_c.df11_decompress_report)
    options = struct(
        _c.df11_decompress_options,
        threads=default_threads(threads),
        flags=_flags(
            flat=(flat, _c.DF11_DECOMPRESS_FLAT),
            keep_existing=(keep_existing, _c.DF11_DECOMPRESS_KEEP_EXISTING),
            any_version=(any_version, _c.DF11_DECOMPRESS_ANY_VERSION),
            incomplete=(incomplete, _c.DF11_DECOMPRESS_INCOMPLETE),
        ),
        shard_bytes=_natural(shard_bytes),
        config_json=optional(config),
        shapes_from=_path(shapes_from),
        shapes_json=shapes_text(shapes),
        tensors=ct.cast(names[0], ct.POINTER(ct.c_char_p)),
        tensor_count=len(tensors),
        groups=ct.cast(names[1], ct.POINTER(ct.c_char_p)),
        group_count=len(groups),
        report=ct.pointer(report),
    )
    source, target = path_text(src), path_text(dst)

    def work(token: int) -> None:
        options.progress = token
        call(lib.df11_decompress_model, source, target, ct.byref(options))

    run("decompressing", progress, work)
    result: DecompressReport = plain(report)
    return result


def repack(
    src: StrPath,
    dst: StrPath,
    *,
    single_file: bool = False,
    folder: bool = False,
    keep_existing: bool = False,
    any_version: bool = False,
    incomplete: bool = False,
    config: Optional[str] = None,
    shapes: Optional[Shapes] = None,
    shapes_from: Optional[StrPath] = None,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> RepackReport:
    """Writes a compressed model in other files, a folder as one file or back, without decoding. See `compress`."""
    report = struct(_c.df11_repack_report)
    options = struct(
        _c.df11_repack_options,
        threads=default_threads(threads),
        flags=_flags(
            single_file=(single_file, _c.DF11_REPACK_SINGLE_FILE),
            folder=(folder, _c.DF11_REPACK_FOLDER),
            keep_existing=(keep_existing, _c.DF11_REPACK_KEEP_EXISTING),
            any_version=(any_version, _c.DF11_REPACK_ANY_VERSION),
            incomplete=(incomplete, _c.DF11_REPACK_INCOMPLETE),
        ),
        config_json=optional(config),
        shapes_from=_path(shapes_from),
        shapes_json=shapes_text(shapes),
        report=ct.pointer(report),
    )
    source, target = path_text(src), path_text(dst)

    def work(token: int) -> None:
        options.progress = token
        call(lib.df11_repack_model, source, target, ct.byref(options))

    run("repacking", progress, work)
    result: RepackReport = plain(report)
    return result


def verify(
    model: StrPath,
    original: Optional[StrPath] = None,
    *,
    any_version: bool = False,
    incomplete: bool = False,
    allow_plain: bool = False,
    config: Optional[str] = None,
    shapes: Optional[Shapes] = None,
    shapes_from: Optional[StrPath] = None,
    threads: Optional[int] = None,
    progress: ProgressLike = None,
) -> Verified:
    """Verifies a whole model: every code, hashes if the files have some, and every bit if there is an original.

    Raises a CorruptError if something is wrong; its `result` has all that was found.
    """
    found: list[Finding] = []

    def take(_user: Any, kind: int, name: bytes, what: bytes) -> None:
        found.append(Finding(kind, _said(name), _said(what)))

    finding = _c.df11_finding_fn(take)
    report = struct(_c.df11_verify_report)
    options = struct(
        _c.df11_verify_options,
        threads=default_threads(threads),
        flags=_flags(
            any_version=(any_version, _c.DF11_OPEN_ANY_VERSION),
            incomplete=(incomplete, _c.DF11_VERIFY_INCOMPLETE),
            allow_plain=(allow_plain, _c.DF11_VERIFY_ALLOW_PLAIN),
        ),
        config_json=optional(config),
        shapes_from=_path(shapes_from),
        shapes_json=shapes_text(shapes),
        finding=finding,
        report=ct.pointer(report),
    )
    compressed, other = path_text(model), _path(original)

    def work(token: int) -> None:
        options.progress = token
        call(lib.df11_verify_model, compressed, other, ct.byref(options))

    try:
        run("verifying", progress, work)
    except CorruptError as e:
        e.result = Verified(plain(report), tuple(found))
        raise
    return Verified(plain(report), tuple(found))


class Plan(Closing):
    """What a model becomes and needs: see `plan`."""

    def __init__(self, pointer: int, left: tuple[Left, ...]) -> None:
        self._handle = Handle("plan", pointer, lib.df11_plan_free)
        self.left = left
        """Tensors that will stay plain although the patterns ask for them."""
        with self._handle as plan:
            self.info: PlanInfo = info(lib.df11_plan_get_info, _c.df11_plan_info, plan)

    def __enter__(self) -> Plan:
        return self

    def groups(self) -> tuple[PlanGroupInfo, ...]:
        """Returns the groups, in the natural order of their names."""
        with self._handle as plan:
            return tuple(
                info(lib.df11_plan_get_group_info, _c.df11_plan_group_info, plan, i)
                for i in range(self.info.group_count)
            )

    def share(self, device: int, device_count: int, *, by_rows: bool = False) -> PlanShareInfo:
        """Describes what one of several devices holds, if the model is split by layers, or by rows."""
        with self._handle as plan:
            share: PlanShareInfo = info(
                lib.df11_plan_get_share_info,
                _c.df11_plan_share_info,
                plan,
                _c.DF11_SPLIT_ROWS if by_rows else _c.DF11_SPLIT_LAYERS,
                _small(device_count),
                _small(device),
            )
        return share

    def count_tokens(
        self, device_memory_bytes: int, device_count: int = 1, *, by_rows: bool = False
    ) -> tuple[Optional[int], Optional[int]]:
        """Counts the tokens whose KV cache fits next to the weights: compressed, and not. None: the weights do not
        fit."""
        tokens, bf16 = ct.c_uint64(), ct.c_uint64()
        with self._handle as plan:
            call(
                lib.df11_plan_count_tokens,
                plan,
                _c.DF11_SPLIT_ROWS if by_rows else _c.DF11_SPLIT_LAYERS,
                _small(device_count),
                _natural(device_memory_bytes),
                ct.byref(tokens),
                ct.byref(bf16),
            )
        none = _c.DF11_PLAN_NONE
        return (
            None if tokens.value == none else tokens.value,
            None if bf16.value == none else bf16.value,
        )


def plan(
    path: StrPath,
    *,
    sample: bool = False,
    incomplete: bool = False,
    any_version: bool = False,
    slots: int = 0,
    cache_number_bytes: int = 0,
    preset: Optional[str] = None,
    patterns: Optional[str] = None,
    config: Optional[str] = None,
    shapes: Optional[Shapes] = None,
    shapes_from: Optional[StrPath] = None,
    progress: ProgressLike = None,
) -> Plan:
    """Plans a model, compressed or not: sizes, memory on devices, tokens of context. Nothing is written.

    `sample` counts some weights of each kind of group. `slots` are buffers for decoded weights (0: 2), and
    `cache_number_bytes` the bytes of a number in the KV cache (0: 2). For the others see `compress` and `open`.
    """
    leaving = _Leaving()
    options = struct(
        _c.df11_plan_options,
        flags=_flags(
            sample=(sample, _c.DF11_PLAN_SAMPLE),
            incomplete=(incomplete, _c.DF11_PLAN_INCOMPLETE),
            any_version=(any_version, _c.DF11_PLAN_ANY_VERSION),
        ),
        slots=_small(slots),
        cache_number_bytes=_natural(cache_number_bytes),
        preset=optional(preset),
        pattern_json=optional(patterns),
        config_json=optional(config),
        shapes_from=_path(shapes_from),
        shapes_json=shapes_text(shapes),
        left=leaving.callback,
    )
    out = ct.c_void_p()
    source = path_text(path)

    def work(token: int) -> None:
        options.progress = token
        call(lib.df11_plan_model, source, ct.byref(options), ct.byref(out))

    try:
        run("planning", progress, work)
    except BaseException:
        lib.df11_plan_free(out)
        raise
    return Plan(out.value or 0, tuple(leaving.found))


def presets() -> tuple[PresetInfo, ...]:
    """Returns the presets: the groups of published models, by their names."""
    count = lib.df11_preset_count()
    return tuple(info(lib.df11_preset_get_info, _c.df11_preset_info, i) for i in range(count))


class PackedGroup(NamedTuple):
    """The six members of a compressed group. A file stores each as a tensor called NAME.luts and so on."""

    luts: bytearray
    encoded_exponent: bytearray
    sign_mantissa: bytearray
    output_positions: bytearray
    gaps: bytearray
    split_positions: bytearray


def compress_group(tensors: Sequence[Buffer], *, threads: Optional[int] = None) -> PackedGroup:
    """Compresses a group in memory: the weights of its tensors, bf16, one after the other.

    The members are byte for byte those that the reference compressor writes.
    """
    workers = default_threads(threads)
    memories = [Memory(tensor, writable=False) for tensor in tensors]
    for memory in memories:
        if memory.nbytes % 2:
            raise invalid(f"a tensor has {memory.nbytes} bytes, which are no whole bf16 weights")
    count = len(memories)
    addresses = (ct.c_void_p * count)(*[memory.address or None for memory in memories])
    counts = (ct.c_uint64 * count)(*[memory.nbytes // 2 for memory in memories])
    io = struct(_c.df11_packed_group)
    # Sizes first, then what they say.
    call(lib.df11_compress_group, addresses, counts, count, workers, ct.byref(io))
    parts = PackedGroup(*[bytearray(getattr(io, f"{name}_bytes")) for name in PackedGroup._fields])
    places = [Memory(part, writable=True) for part in parts]
    for name, place in zip(PackedGroup._fields, places):
        setattr(io, name, place.address if place.nbytes else None)
    call(lib.df11_compress_group, addresses, counts, count, workers, ct.byref(io))
    for place in places:
        place.release()
    return parts
