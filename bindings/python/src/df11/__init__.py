"""DF11 models, which are bf16 weights compressed without loss: read, decode, write, on the CPU and on CUDA devices.

    with df11.open("Qwen3-8B-DF11") as model:
        weights = model["model.layers.0.mlp.up_proj.weight"].read()

`df11.matrix` multiplies on the CPU with 12 bits a weight, `df11.device` decodes on CUDA devices. Nothing but Python is
needed; arrays are numpy's if it is there. Errors are `df11.Error` and its subclasses, and the log goes to the logger
"df11".
"""

from __future__ import annotations

from . import _c, device, matrix
from ._c import (
    CompressReport,
    DecompressReport,
    DeviceInfo,
    DType,
    GroupInfo,
    ImageInfo,
    MatrixInfo,
    PartInfo,
    PlanGroupInfo,
    PlanInfo,
    PlanShareInfo,
    PresetInfo,
    RepackReport,
    ResidentInfo,
    RunInfo,
    Slice,
    Status,
    TensorInfo,
    VerifyReport,
)
from ._library import (
    AccessError,
    BufferTooSmallError,
    BusyError,
    CancelledError,
    CapturingError,
    CorruptError,
    CudaError,
    DefaultStreamError,
    DeviceError,
    Error,
    ExistsError,
    FileMissingError,
    FormatError,
    InternalError,
    InvalidArgumentError,
    InvalidFormatError,
    IoError,
    MisalignedError,
    NoDriverError,
    NoKernelError,
    NotFoundError,
    OutOfMemoryError,
    Progress,
    UnfinishedError,
    UnsupportedFormatError,
    UnsupportedOptionError,
    WrongDeviceError,
    lib,
    library_path,
    set_log_level,
)
from ._memory import Address
from ._model import Group, Model, Segment, Tensor, TensorSlice, open, open_memory
from ._whole import (
    Compressed,
    Finding,
    Left,
    PackedGroup,
    Plan,
    Verified,
    compress,
    compress_group,
    decompress,
    merge,
    plan,
    presets,
    repack,
    verify,
)
from .device import Device, Resident, Shard, decompress_batch
from .matrix import Matrix

__version__: str = lib.df11_version_string().decode()
"""The version of the library."""

PART_LUTS = _c.DF11_PART_LUTS
PART_ENCODED_EXPONENT = _c.DF11_PART_ENCODED_EXPONENT
PART_SIGN_MANTISSA = _c.DF11_PART_SIGN_MANTISSA
PART_OUTPUT_POSITIONS = _c.DF11_PART_OUTPUT_POSITIONS
PART_GAPS = _c.DF11_PART_GAPS
PART_SPLIT_POSITIONS = _c.DF11_PART_SPLIT_POSITIONS
FINDING_GOOD = _c.DF11_FINDING_GOOD
FINDING_BAD = _c.DF11_FINDING_BAD
FINDING_HASH = _c.DF11_FINDING_HASH
FINDING_DIFFERS = _c.DF11_FINDING_DIFFERS
FINDING_NOTE = _c.DF11_FINDING_NOTE
FINDING_MISSING = _c.DF11_FINDING_MISSING
SPLIT_EVEN = _c.DF11_SPLIT_EVEN
SPLIT_REPLICATE = _c.DF11_SPLIT_REPLICATE
SPLIT_SPREAD = _c.DF11_SPLIT_SPREAD
SPLIT_PAD = _c.DF11_SPLIT_PAD

__all__ = [
    "FINDING_BAD",
    "FINDING_DIFFERS",
    "FINDING_GOOD",
    "FINDING_HASH",
    "FINDING_MISSING",
    "FINDING_NOTE",
    "PART_ENCODED_EXPONENT",
    "PART_GAPS",
    "PART_LUTS",
    "PART_OUTPUT_POSITIONS",
    "PART_SIGN_MANTISSA",
    "PART_SPLIT_POSITIONS",
    "SPLIT_EVEN",
    "SPLIT_PAD",
    "SPLIT_REPLICATE",
    "SPLIT_SPREAD",
    "AccessError",
    "Address",
    "BufferTooSmallError",
    "BusyError",
    "CancelledError",
    "CapturingError",
    "CompressReport",
    "Compressed",
    "CorruptError",
    "CudaError",
    "DType",
    "DecompressReport",
    "DefaultStreamError",
    "Device",
    "DeviceError",
    "DeviceInfo",
    "Error",
    "ExistsError",
    "FileMissingError",
    "Finding",
    "FormatError",
    "Group",
    "GroupInfo",
    "ImageInfo",
    "InternalError",
    "InvalidArgumentError",
    "InvalidFormatError",
    "IoError",
    "Left",
    "Matrix",
    "MatrixInfo",
    "MisalignedError",
    "Model",
    "NoDriverError",
    "NoKernelError",
    "NotFoundError",
    "OutOfMemoryError",
    "PackedGroup",
    "PartInfo",
    "Plan",
    "PlanGroupInfo",
    "PlanInfo",
    "PlanShareInfo",
    "PresetInfo",
    "Progress",
    "RepackReport",
    "Resident",
    "ResidentInfo",
    "RunInfo",
    "Segment",
    "Shard",
    "Slice",
    "Status",
    "Tensor",
    "TensorInfo",
    "TensorSlice",
    "UnfinishedError",
    "UnsupportedFormatError",
    "UnsupportedOptionError",
    "Verified",
    "VerifyReport",
    "WrongDeviceError",
    "__version__",
    "compress",
    "compress_group",
    "decompress",
    "decompress_batch",
    "device",
    "library_path",
    "matrix",
    "merge",
    "open",
    "open_memory",
    "plan",
    "presets",
    "repack",
    "set_log_level",
    "verify",
]

# What is public says where it is to be found.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = "df11"
