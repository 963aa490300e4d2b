"""Groups as frameworks take them: as the tensors that files have, made of weights in memory, joined to modules."""

from __future__ import annotations

import ctypes as ct
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Optional

from . import _whole
from ._c import Slice
from ._library import invalid
from ._memory import Buffer
from ._model import Group, Model, Segment, Tensor, open_memory

MEMBERS = _whole.PackedGroup._fields
"""The tensors of which a group consists in a file, in the order of DF11_PART_*."""

MEMBER = r"(^|\.)(" + "|".join(MEMBERS) + r")$"
"""The regular expression of what their names end in."""


def members(group: Group) -> Iterator[tuple[str, Any]]:
    """Yields the name and the bytes of each tensor of which a group consists. They belong to the model."""
    for number, member in enumerate(MEMBERS):
        part = group.part(number)
        kind = ct.c_char * part.data_bytes
        if part.data_bytes and not part.data:
            raise invalid(f"the file of group '{group.name}' is not in memory: open it without read=True")
        yield f"{group.name}.{member}", kind.from_address(part.data) if part.data_bytes else kind()


def pattern_dict(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns the pattern_dict of groups: for each the names of its tensors, which end in ".weight"."""
    patterns: dict[str, list[str]] = {}
    for group, names in groups.items():
        if list(names) == [f"{group}.weight"]:
            patterns[re.escape(group)] = []
            continue
        for name in names:
            if name == f"{group}.weight" or not (name.startswith(f"{group}.") and name.endswith(".weight")):
                raise invalid(f"'{name}' is no weight of a module in '{group}'")
        patterns[re.escape(group)] = [name[len(group) + 1 : -len(".weight")] for name in names]
    return patterns


def config_of(groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the dfloat11_config of groups, given as to `pattern_dict`."""
    return {
        "version": "0.5.0",
        "threads_per_block": [512],
        "bytes_per_thread": 8,
        "pattern_dict": pattern_dict(groups),
    }


def compress_group(name: str, tensors: Sequence[tuple[str, Sequence[int], Buffer]], threads: int) -> Model:
    """Compresses a group in memory, and opens it. Each tensor has a name, a shape, and bf16 weights.

    Weights that the format cannot hold (an infinity, a NaN, a magnitude of 2^113 and more) are an
    InvalidArgumentError.
    """
    packed = _whole.compress_group([weights for _, _, weights in tensors], threads=threads)
    header: dict[str, Any] = {}
    offset = 0
    for member, data in packed._asdict().items():
        dtype, shape = "U8", [len(data)]
        if member == "luts":
            shape = [len(data) // 256, 256]
        elif member == "split_positions":
            dtype, shape = "I64", [len(data) // 8]
        header[f"{name}.{member}"] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return open_memory(
        b"".join([len(head).to_bytes(8, "little"), head, *packed]),
        config=json.dumps({"dfloat11_config": config_of({name: [tensor for tensor, _, _ in tensors]})}),
        shapes={tensor: shape for tensor, shape, _ in tensors},
    )


def shares(
    tensors: Sequence[Tensor], parts: Sequence[Segment], rank: int, world: int, *, columns: bool = False
) -> list[Slice]:
    """Returns what a rank holds of tensors of one group that a layer joins: rows of each of its `parts`, or columns.

    The tensors are the layer's parts, or one tensor has them all. Without parts, each tensor is divided evenly.
    """
    group = tensors[0].group
    if group is None or any(t.info.group != group.index or t.info.run_count != 1 for t in tensors):
        raise invalid(f"'{tensors[0].name}': the tensors that a layer joins must be whole in one group")
    place = {run.tensor: number for number, run in enumerate(group.runs())}
    if columns or len(parts) <= 1:
        each: Sequence[Sequence[Segment]] = [parts] * len(tensors)
    elif len(tensors) == len(parts):
        each = [(part,) for part in parts]
    elif len(tensors) == 1:
        each = [parts]
    else:
        raise invalid(f"'{tensors[0].name}': {len(tensors)} tensors cannot be the {len(parts)} parts of a layer")
    return [
        held
        for tensor, segments in zip(tensors, each)
        for held in group.slices(place[tensor.index], rank, world, dimension=int(columns), segments=segments)
    ]


def module_of(tensor: str, modules: Collection[str], prefix: str = "") -> Optional[str]:
    """Finds the module whose weight a tensor is, by its name, with or without `prefix` before it."""
    if not tensor.endswith(".weight"):
        return None
    name = tensor[: -len(".weight")]
    names = [name]
    if prefix:
        names.append(name[len(prefix) + 1 :] if name.startswith(f"{prefix}.") else f"{prefix}.{name}")
    return next((candidate for candidate in names if candidate in modules), None)
