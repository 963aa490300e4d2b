"""The C interface of libdf11 for ctypes. Generated from include/df11.h by generate.py; do not edit."""
from __future__ import annotations

import ctypes as ct
import enum
from typing import Any, NamedTuple, Optional

DF11_VERSION_NUMBER = 100
DF11_VERSION_MAJOR = 0
DF11_VERSION_MINOR = 1
DF11_VERSION_PATCH = 0
DF11_LOG_OFF = 0
DF11_LOG_ERROR = 1
DF11_LOG_WARN = 2
DF11_LOG_INFO = 3
DF11_LOG_DEBUG = 4
DF11_LOG_TRACE = 5
DF11_OPEN_VERIFY = 1
DF11_OPEN_READ = 2
DF11_OPEN_ANY_VERSION = 4
DF11_OPEN_NO_DERIVED_SHAPES = 8
DF11_NO_TENSOR = 18446744073709551615
DF11_PART_LUTS = 0
DF11_PART_ENCODED_EXPONENT = 1
DF11_PART_SIGN_MANTISSA = 2
DF11_PART_OUTPUT_POSITIONS = 3
DF11_PART_GAPS = 4
DF11_PART_SPLIT_POSITIONS = 5
DF11_NO_GROUP = 18446744073709551615
DF11_SHAPE_UNKNOWN = 0
DF11_SHAPE_STORED = 1
DF11_SHAPE_GIVEN = 2
DF11_SHAPE_DERIVED = 3
DF11_MATRIX_ALIGNMENT = 64
DF11_ORDER_LANES = 0
DF11_ORDER_GGML_AVX2 = 1
DF11_ORDER_GGML_AVX512 = 2
DF11_ORDER_GGML_AVX512_BF16 = 3
DF11_DEVICE_ALLOW_DEFAULT_STREAM = 1
DF11_DEVICE_FORCE_PTX = 2
DF11_DEVICE_EARLY_START = 4
DF11_IMAGE_HEAD_BYTES_MAX = 65792
DF11_SPLIT_EVEN = 0
DF11_SPLIT_REPLICATE = 1
DF11_SPLIT_SPREAD = 2
DF11_SPLIT_PAD = 3
DF11_DIMENSION_BY_NAME = 4294967295
DF11_COMPRESS_NO_VERIFY = 1
DF11_COMPRESS_RESUME = 2
DF11_COMPRESS_STRICT = 4
DF11_COMPRESS_HASHES = 8
DF11_COMPRESS_SHAPES = 16
DF11_COMPRESS_SINGLE_FILE = 32
DF11_COMPRESS_FOLDER = 64
DF11_COMPRESS_KEEP_EXISTING = 128
DF11_COMPRESS_ALLOW_PLAIN = 256
DF11_COMPRESS_INCOMPLETE = 512
DF11_COMPRESS_REFERENCE_ONLY = 1024
DF11_PLAN_SAMPLE = 1
DF11_PLAN_INCOMPLETE = 2
DF11_PLAN_ANY_VERSION = 4
DF11_SPLIT_LAYERS = 0
DF11_SPLIT_ROWS = 1
DF11_PLAN_NONE = 18446744073709551615
DF11_DECOMPRESS_FLAT = 1
DF11_DECOMPRESS_KEEP_EXISTING = 2
DF11_DECOMPRESS_ANY_VERSION = 4
DF11_DECOMPRESS_INCOMPLETE = 8
DF11_REPACK_SINGLE_FILE = 1
DF11_REPACK_FOLDER = 2
DF11_REPACK_KEEP_EXISTING = 4
DF11_REPACK_ANY_VERSION = 8
DF11_REPACK_INCOMPLETE = 16
DF11_FINDING_GOOD = 1
DF11_FINDING_BAD = 2
DF11_FINDING_HASH = 3
DF11_FINDING_DIFFERS = 4
DF11_FINDING_NOTE = 5
DF11_FINDING_MISSING = 6
DF11_VERIFY_INCOMPLETE = 256
DF11_VERIFY_ALLOW_PLAIN = 512


class Status(enum.IntEnum):
    """The result of a call."""

    OK = 0
    """The call succeeded."""
    INVALID_ARGUMENT = 1
    """An argument is NULL or out of range, or it contradicts another one."""
    NOT_FOUND = 2
    """There is no group, tensor or preset of that name or number."""
    BUFFER_TOO_SMALL = 3
    """A buffer holds fewer bytes than the result takes."""
    MISALIGNED = 4
    """An address is not aligned as the function requires."""
    UNSUPPORTED_OPTION = 5
    """This version does not know an option, or a field of a newer options struct."""
    CANCELLED = 6
    """The caller cancelled the call."""
    DEFAULT_STREAM = 7
    """The stream is NULL, and the device was not opened to allow that."""
    EXISTS = 8
    """A file or folder of that name exists, and the caller did not ask to overwrite it."""
    UNFINISHED = 9
    """An earlier run left unfinished work there: resume it, or write elsewhere."""
    BUSY = 10
    """Another process is writing there."""
    IO = 100
    """The operating system refused to open, read, map or write; native_code is its errno."""
    INVALID_FORMAT = 101
    """The file is no safetensors file, or it is no DF11 model."""
    UNSUPPORTED_FORMAT = 102
    """The DF11 model is of a kind that this version cannot decode."""
    CORRUPT = 103
    """Parts of the DF11 model contradict each other."""
    NO_DRIVER = 200
    """There is no usable CUDA driver."""
    NO_KERNEL = 201
    """There is no kernel for this device."""
    CUDA = 202
    """A CUDA call failed; native_code is its CUresult."""
    CAPTURING = 203
    """The call is not allowed while a stream is being captured."""
    WRONG_DEVICE = 204
    """A handle belongs to another device or context."""
    OUT_OF_MEMORY = 900
    """The memory that the call needs could not be allocated."""
    INTERNAL = 999
    """The library has a bug. The message says where; please report it."""


class DType(enum.IntEnum):
    """The type of a tensor's elements."""

    UNKNOWN = 0
    """A type of elements that this version does not know."""
    BF16 = 1
    """bfloat16: the upper half of a float"""
    F16 = 2
    """IEEE 754 half"""
    F32 = 3
    """IEEE 754 single"""
    F64 = 4
    """IEEE 754 double"""
    BOOL = 5
    """One byte, 0 or 1"""
    U8 = 6
    """uint8_t"""
    I8 = 7
    """int8_t"""
    U16 = 8
    """uint16_t"""
    I16 = 9
    """int16_t"""
    U32 = 10
    """uint32_t"""
    I32 = 11
    """int32_t"""
    U64 = 12
    """uint64_t"""
    I64 = 13
    """int64_t"""
    F8_E5M2 = 14
    """8-bit float: 5 exponent and 2 mantissa bits"""
    F8_E4M3 = 15
    """8-bit float, 4 exponent and 3 mantissa bits"""
    F8_E8M0 = 16
    """8-bit scale, exponent only"""
    F4 = 17
    """4-bit float, two in a byte"""
    F6_E2M3 = 18
    """6-bit float, 2 exponent and 3 mantissa bits"""
    F6_E3M2 = 19
    """6-bit float, 3 exponent and 2 mantissa bits"""
    C64 = 20
    """Complex number of two singles"""
    F8_E4M3FNUZ = 21
    """As F8_E4M3, without infinities and negative zero"""
    F8_E5M2FNUZ = 22
    """As F8_E5M2, without infinities and negative zero"""


df11_log_fn = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_int32, ct.c_char_p, ct.c_size_t)

df11_progress_fn = ct.CFUNCTYPE(ct.c_int32, ct.c_void_p, ct.c_uint64, ct.c_uint64)

df11_left_fn = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_char_p, ct.c_char_p, ct.c_char_p)

df11_finding_fn = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_uint32, ct.c_char_p, ct.c_char_p)


class df11_error(ct.Structure):
    status: Any
    native_code: Any
    message: Any
    _fields_ = [
        ("status", ct.c_int32),
        ("native_code", ct.c_int32),
        ("message", ct.c_char * 504),
    ]


class df11_open_options(ct.Structure):
    struct_size: Any
    flags: Any
    threads: Any
    config_json: Any
    progress: Any
    shapes_from: Any
    shapes_json: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("threads", ct.c_uint32),
        ("config_json", ct.c_char_p),
        ("progress", ct.c_void_p),
        ("shapes_from", ct.c_char_p),
        ("shapes_json", ct.c_char_p),
    ]


class df11_group_info(ct.Structure):
    struct_size: Any
    name: Any
    element_count: Any
    tensor_count: Any
    first_tensor: Any
    packed_bytes: Any
    image_bytes: Any
    extended: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("element_count", ct.c_uint64),
        ("tensor_count", ct.c_uint64),
        ("first_tensor", ct.c_uint64),
        ("packed_bytes", ct.c_uint64),
        ("image_bytes", ct.c_uint64),
        ("extended", ct.c_uint64),
    ]


class df11_run_info(ct.Structure):
    struct_size: Any
    tensor: Any
    tensor_offset: Any
    group: Any
    group_offset: Any
    element_count: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("tensor", ct.c_uint64),
        ("tensor_offset", ct.c_uint64),
        ("group", ct.c_uint64),
        ("group_offset", ct.c_uint64),
        ("element_count", ct.c_uint64),
    ]


class df11_part_info(ct.Structure):
    struct_size: Any
    file: Any
    file_offset: Any
    data_bytes: Any
    data: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("file", ct.c_char_p),
        ("file_offset", ct.c_uint64),
        ("data_bytes", ct.c_uint64),
        ("data", ct.c_void_p),
    ]


class df11_tensor_info(ct.Structure):
    struct_size: Any
    name: Any
    dtype: Any
    rank: Any
    shape: Any
    data_bytes: Any
    group: Any
    group_offset: Any
    data: Any
    file: Any
    file_offset: Any
    shape_known: Any
    reserved: Any
    run_count: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("dtype", ct.c_uint32),
        ("rank", ct.c_uint32),
        ("shape", ct.POINTER(ct.c_uint64)),
        ("data_bytes", ct.c_uint64),
        ("group", ct.c_uint64),
        ("group_offset", ct.c_uint64),
        ("data", ct.c_void_p),
        ("file", ct.c_char_p),
        ("file_offset", ct.c_uint64),
        ("shape_known", ct.c_uint32),
        ("reserved", ct.c_uint32),
        ("run_count", ct.c_uint64),
    ]


class df11_matrix_info(ct.Structure):
    struct_size: Any
    row_count: Any
    column_count: Any
    matrix_bytes: Any
    escape_count: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("row_count", ct.c_uint64),
        ("column_count", ct.c_uint64),
        ("matrix_bytes", ct.c_uint64),
        ("escape_count", ct.c_uint64),
    ]


class df11_device_options(ct.Structure):
    struct_size: Any
    flags: Any
    multiprocessors: Any
    libcuda: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("multiprocessors", ct.c_uint32),
        ("libcuda", ct.c_char_p),
    ]


class df11_device_info(ct.Structure):
    struct_size: Any
    name: Any
    kernels: Any
    libcuda: Any
    ordinal: Any
    driver_version: Any
    capability_major: Any
    capability_minor: Any
    multiprocessor_count: Any
    reserved: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("kernels", ct.c_char_p),
        ("libcuda", ct.c_char_p),
        ("ordinal", ct.c_int32),
        ("driver_version", ct.c_int32),
        ("capability_major", ct.c_uint32),
        ("capability_minor", ct.c_uint32),
        ("multiprocessor_count", ct.c_uint32),
        ("reserved", ct.c_uint32),
    ]


class df11_image_info(ct.Structure):
    struct_size: Any
    image_bytes: Any
    head_bytes: Any
    element_count: Any
    tensor_count: Any
    first_element: Any
    first_tensor: Any
    group_element_count: Any
    group_tensor_count: Any
    slice_count: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("image_bytes", ct.c_uint64),
        ("head_bytes", ct.c_uint64),
        ("element_count", ct.c_uint64),
        ("tensor_count", ct.c_uint64),
        ("first_element", ct.c_uint64),
        ("first_tensor", ct.c_uint64),
        ("group_element_count", ct.c_uint64),
        ("group_tensor_count", ct.c_uint64),
        ("slice_count", ct.c_uint64),
    ]


class df11_slice(ct.Structure):
    tensor: Any
    first: Any
    run_elements: Any
    run_stride: Any
    run_count: Any
    _fields_ = [
        ("tensor", ct.c_uint32),
        ("first", ct.c_uint32),
        ("run_elements", ct.c_uint32),
        ("run_stride", ct.c_uint32),
        ("run_count", ct.c_uint32),
    ]


class df11_segment(ct.Structure):
    extent: Any
    unit: Any
    rule: Any
    reserved: Any
    _fields_ = [
        ("extent", ct.c_uint64),
        ("unit", ct.c_uint64),
        ("rule", ct.c_uint32),
        ("reserved", ct.c_uint32),
    ]


class df11_resident_info(ct.Structure):
    struct_size: Any
    image: Any
    image_bytes: Any
    element_count: Any
    tensor_count: Any
    tensor_ends: Any
    first_element: Any
    first_tensor: Any
    group_element_count: Any
    group_tensor_count: Any
    slice_count: Any
    slices: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("image", ct.c_ulonglong),
        ("image_bytes", ct.c_uint64),
        ("element_count", ct.c_uint64),
        ("tensor_count", ct.c_uint64),
        ("tensor_ends", ct.POINTER(ct.c_uint64)),
        ("first_element", ct.c_uint64),
        ("first_tensor", ct.c_uint64),
        ("group_element_count", ct.c_uint64),
        ("group_tensor_count", ct.c_uint64),
        ("slice_count", ct.c_uint64),
        ("slices", ct.POINTER(df11_slice)),
    ]


class df11_linear_shape(ct.Structure):
    rows: Any
    columns: Any
    _fields_ = [
        ("rows", ct.c_uint64),
        ("columns", ct.c_uint64),
    ]


class df11_compress_report(ct.Structure):
    struct_size: Any
    groups: Any
    weights: Any
    weight_bytes: Any
    packed_bytes: Any
    source_bytes: Any
    written_bytes: Any
    resumed: Any
    left_count: Any
    dropped_count: Any
    unmatched_count: Any
    complete: Any
    preset: Any
    bf16_bytes: Any
    grouped_bf16_bytes: Any
    unasked_bf16_bytes: Any
    small_bf16_bytes: Any
    mixed_bf16_bytes: Any
    unfit_bf16_bytes: Any
    unnamed_bf16_bytes: Any
    carried_count: Any
    carried_bytes: Any
    left_behind_count: Any
    left_behind_bytes: Any
    missing_count: Any
    extended_groups: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("groups", ct.c_uint64),
        ("weights", ct.c_uint64),
        ("weight_bytes", ct.c_uint64),
        ("packed_bytes", ct.c_uint64),
        ("source_bytes", ct.c_uint64),
        ("written_bytes", ct.c_uint64),
        ("resumed", ct.c_uint64),
        ("left_count", ct.c_uint64),
        ("dropped_count", ct.c_uint64),
        ("unmatched_count", ct.c_uint64),
        ("complete", ct.c_uint64),
        ("preset", ct.c_char_p),
        ("bf16_bytes", ct.c_uint64),
        ("grouped_bf16_bytes", ct.c_uint64),
        ("unasked_bf16_bytes", ct.c_uint64),
        ("small_bf16_bytes", ct.c_uint64),
        ("mixed_bf16_bytes", ct.c_uint64),
        ("unfit_bf16_bytes", ct.c_uint64),
        ("unnamed_bf16_bytes", ct.c_uint64),
        ("carried_count", ct.c_uint64),
        ("carried_bytes", ct.c_uint64),
        ("left_behind_count", ct.c_uint64),
        ("left_behind_bytes", ct.c_uint64),
        ("missing_count", ct.c_uint64),
        ("extended_groups", ct.c_uint64),
    ]


class df11_compress_options(ct.Structure):
    struct_size: Any
    threads: Any
    flags: Any
    memory_bytes: Any
    preset: Any
    pattern_json: Any
    part: Any
    part_count: Any
    progress: Any
    callback: Any
    callback_user: Any
    left: Any
    left_user: Any
    report: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("threads", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("memory_bytes", ct.c_uint64),
        ("preset", ct.c_char_p),
        ("pattern_json", ct.c_char_p),
        ("part", ct.c_uint32),
        ("part_count", ct.c_uint32),
        ("progress", ct.c_void_p),
        ("callback", df11_progress_fn),
        ("callback_user", ct.c_void_p),
        ("left", df11_left_fn),
        ("left_user", ct.c_void_p),
        ("report", ct.POINTER(df11_compress_report)),
    ]


class df11_plan_options(ct.Structure):
    struct_size: Any
    flags: Any
    slots: Any
    cache_number_bytes: Any
    preset: Any
    pattern_json: Any
    config_json: Any
    shapes_from: Any
    shapes_json: Any
    progress: Any
    left: Any
    left_user: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("slots", ct.c_uint32),
        ("cache_number_bytes", ct.c_uint64),
        ("preset", ct.c_char_p),
        ("pattern_json", ct.c_char_p),
        ("config_json", ct.c_char_p),
        ("shapes_from", ct.c_char_p),
        ("shapes_json", ct.c_char_p),
        ("progress", ct.c_void_p),
        ("left", df11_left_fn),
        ("left_user", ct.c_void_p),
    ]


class df11_plan_info(ct.Structure):
    struct_size: Any
    exact: Any
    group_count: Any
    element_count: Any
    packed_bytes: Any
    image_bytes: Any
    plain_bytes: Any
    original_bytes: Any
    file_count: Any
    written_bytes: Any
    largest_group_element_count: Any
    scratch_bytes: Any
    cache_bytes_per_token: Any
    cached_layer_count: Any
    left_count: Any
    preset: Any
    cache_unknown: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("exact", ct.c_uint64),
        ("group_count", ct.c_uint64),
        ("element_count", ct.c_uint64),
        ("packed_bytes", ct.c_uint64),
        ("image_bytes", ct.c_uint64),
        ("plain_bytes", ct.c_uint64),
        ("original_bytes", ct.c_uint64),
        ("file_count", ct.c_uint64),
        ("written_bytes", ct.c_uint64),
        ("largest_group_element_count", ct.c_uint64),
        ("scratch_bytes", ct.c_uint64),
        ("cache_bytes_per_token", ct.c_uint64),
        ("cached_layer_count", ct.c_uint64),
        ("left_count", ct.c_uint64),
        ("preset", ct.c_char_p),
        ("cache_unknown", ct.c_char_p),
    ]


class df11_plan_group_info(ct.Structure):
    struct_size: Any
    name: Any
    element_count: Any
    tensor_count: Any
    packed_bytes: Any
    image_bytes: Any
    exact: Any
    extended: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("element_count", ct.c_uint64),
        ("tensor_count", ct.c_uint64),
        ("packed_bytes", ct.c_uint64),
        ("image_bytes", ct.c_uint64),
        ("exact", ct.c_uint64),
        ("extended", ct.c_uint64),
    ]


class df11_plan_share_info(ct.Structure):
    struct_size: Any
    image_bytes: Any
    plain_bytes: Any
    scratch_bytes: Any
    total_bytes: Any
    cache_bytes_per_token: Any
    bf16_bytes: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("image_bytes", ct.c_uint64),
        ("plain_bytes", ct.c_uint64),
        ("scratch_bytes", ct.c_uint64),
        ("total_bytes", ct.c_uint64),
        ("cache_bytes_per_token", ct.c_uint64),
        ("bf16_bytes", ct.c_uint64),
    ]


class df11_decompress_report(ct.Structure):
    struct_size: Any
    tensor_count: Any
    flat_count: Any
    file_count: Any
    written_bytes: Any
    dropped_count: Any
    config_key_count: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("tensor_count", ct.c_uint64),
        ("flat_count", ct.c_uint64),
        ("file_count", ct.c_uint64),
        ("written_bytes", ct.c_uint64),
        ("dropped_count", ct.c_uint64),
        ("config_key_count", ct.c_uint64),
    ]


class df11_decompress_options(ct.Structure):
    struct_size: Any
    threads: Any
    flags: Any
    shard_bytes: Any
    config_json: Any
    shapes_from: Any
    shapes_json: Any
    tensors: Any
    tensor_count: Any
    groups: Any
    group_count: Any
    progress: Any
    callback: Any
    callback_user: Any
    report: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("threads", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("shard_bytes", ct.c_uint64),
        ("config_json", ct.c_char_p),
        ("shapes_from", ct.c_char_p),
        ("shapes_json", ct.c_char_p),
        ("tensors", ct.POINTER(ct.c_char_p)),
        ("tensor_count", ct.c_size_t),
        ("groups", ct.POINTER(ct.c_char_p)),
        ("group_count", ct.c_size_t),
        ("progress", ct.c_void_p),
        ("callback", df11_progress_fn),
        ("callback_user", ct.c_void_p),
        ("report", ct.POINTER(df11_decompress_report)),
    ]


class df11_repack_report(ct.Structure):
    struct_size: Any
    group_count: Any
    plain_count: Any
    file_count: Any
    written_bytes: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("group_count", ct.c_uint64),
        ("plain_count", ct.c_uint64),
        ("file_count", ct.c_uint64),
        ("written_bytes", ct.c_uint64),
    ]


class df11_repack_options(ct.Structure):
    struct_size: Any
    threads: Any
    flags: Any
    config_json: Any
    shapes_from: Any
    shapes_json: Any
    progress: Any
    callback: Any
    callback_user: Any
    report: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("threads", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("config_json", ct.c_char_p),
        ("shapes_from", ct.c_char_p),
        ("shapes_json", ct.c_char_p),
        ("progress", ct.c_void_p),
        ("callback", df11_progress_fn),
        ("callback_user", ct.c_void_p),
        ("report", ct.POINTER(df11_repack_report)),
    ]


class df11_preset_info(ct.Structure):
    struct_size: Any
    name: Any
    pattern_json: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("pattern_json", ct.c_char_p),
    ]


class df11_packed_group(ct.Structure):
    struct_size: Any
    luts: Any
    luts_bytes: Any
    encoded_exponent: Any
    encoded_exponent_bytes: Any
    sign_mantissa: Any
    sign_mantissa_bytes: Any
    output_positions: Any
    output_positions_bytes: Any
    gaps: Any
    gaps_bytes: Any
    split_positions: Any
    split_positions_bytes: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("luts", ct.c_void_p),
        ("luts_bytes", ct.c_size_t),
        ("encoded_exponent", ct.c_void_p),
        ("encoded_exponent_bytes", ct.c_size_t),
        ("sign_mantissa", ct.c_void_p),
        ("sign_mantissa_bytes", ct.c_size_t),
        ("output_positions", ct.c_void_p),
        ("output_positions_bytes", ct.c_size_t),
        ("gaps", ct.c_void_p),
        ("gaps_bytes", ct.c_size_t),
        ("split_positions", ct.c_void_p),
        ("split_positions_bytes", ct.c_size_t),
    ]


class df11_verify_report(ct.Structure):
    struct_size: Any
    groups_good: Any
    groups_bad: Any
    code_count: Any
    hashes_right: Any
    hashes_wrong: Any
    tensors_equal: Any
    tensors_different: Any
    missing_count: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("groups_good", ct.c_uint64),
        ("groups_bad", ct.c_uint64),
        ("code_count", ct.c_uint64),
        ("hashes_right", ct.c_uint64),
        ("hashes_wrong", ct.c_uint64),
        ("tensors_equal", ct.c_uint64),
        ("tensors_different", ct.c_uint64),
        ("missing_count", ct.c_uint64),
    ]


class df11_verify_options(ct.Structure):
    struct_size: Any
    threads: Any
    flags: Any
    config_json: Any
    shapes_from: Any
    shapes_json: Any
    progress: Any
    callback: Any
    callback_user: Any
    finding: Any
    finding_user: Any
    report: Any
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("threads", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("config_json", ct.c_char_p),
        ("shapes_from", ct.c_char_p),
        ("shapes_json", ct.c_char_p),
        ("progress", ct.c_void_p),
        ("callback", df11_progress_fn),
        ("callback_user", ct.c_void_p),
        ("finding", df11_finding_fn),
        ("finding_user", ct.c_void_p),
        ("report", ct.POINTER(df11_verify_report)),
    ]


class Slice(NamedTuple):
    """A slice: elements of one of a group's tensors. They are `run_count` runs of `run_elements` elements each:
    the first run begins at element `first` of the tensor, every other one `run_stride` elements after the one
    before. Rows are one run; columns are one run of each row. df11_model_get_slices() makes slices of a
    tensor's dimensions."""

    tensor: int
    """The number of the tensor among those of its group: df11_group_info.first_tensor + this is its number in
    the model."""
    first: int
    """The tensor's elements before the first run. If the group has only a run of the tensor (df11_run_info),
    they count from there."""
    run_elements: int
    """Elements of a run."""
    run_stride: int
    """Elements from the beginning of a run to that of the next: at least those of a run."""
    run_count: int
    """The number of runs."""


class GroupInfo(NamedTuple):
    """A group."""

    name: str
    """The module's full name, such as "model.layers.0". It belongs to the model."""
    element_count: int
    """The weights in all its tensors, 2 bytes each when decoded."""
    tensor_count: int
    """The tensors in it. By the extension of the format it may hold runs of larger tensors: each counts."""
    first_tensor: Optional[int]
    """The number of its first tensor; the others follow, in the order of their weights. DF11_NO_TENSOR if they
    do not, because runs of them are in other groups too; df11_model_get_group_run() has the tensor of each in
    any case."""
    packed_bytes: int
    """Bytes of its six parts in the files."""
    image_bytes: int
    """Bytes of its image (df11_model_write_image()), a multiple of 256: about 10.8 bits a weight. 0 if the group
    cannot be decoded on a device, because its tables have more code words than a device's. No known
    compressor writes such groups."""
    extended: int
    """1 if it is an extension of the format, whose tensors the file's metadata names ("df11.groups"): programs
    that know only DF11 do not find its weights. Otherwise 0."""


class RunInfo(NamedTuple):
    """A run: elements of a tensor, one after the other, that are weights of a group, one after the other."""

    tensor: int
    """The number of the tensor."""
    tensor_offset: int
    """The tensor's elements before the run."""
    group: int
    """The number of the group."""
    group_offset: int
    """The group's weights before the run."""
    element_count: int
    """Elements of the run."""


class PartInfo(NamedTuple):
    """A part of a group in its file."""

    file: Optional[str]
    """The path of the file, on Unix any bytes; "memory" for a model opened from memory. It belongs to the model."""
    file_offset: int
    """The byte of that file at which the part begins."""
    data_bytes: int
    """Bytes of the part."""
    data: int
    """The part in the file's memory, with no alignment; NULL with DF11_OPEN_READ. It belongs to the model."""


class TensorInfo(NamedTuple):
    """A tensor."""

    name: str
    """Its full name. It belongs to the model."""
    dtype: int
    """The type of its elements (DF11_DTYPE_*): DF11_DTYPE_BF16 for every tensor in a group."""
    rank: int
    """The number of its dimensions. DF11 does not store the shapes of compressed tensors: see `shape_known`."""
    shape: tuple[int, ...]
    """Its `rank` dimensions in elements, the last one contiguous; NULL if there are none. They belong to the
    model."""
    data_bytes: int
    """Bytes of its values, decoded."""
    group: Optional[int]
    """The number of the group that its first element is in, or DF11_NO_GROUP for a plain tensor. If `run_count`
    is above 1, others of its elements are in other groups."""
    group_offset: int
    """Its first weight in that group, in elements; 0 for a plain tensor."""
    data: int
    """The values of a plain tensor in the file's memory, with no alignment; NULL for a tensor in a group, and
    with DF11_OPEN_READ. They belong to the model."""
    file: Optional[str]
    """The path of the file that holds the values of a plain tensor, as in df11_part_info, for programs that read
    files by themselves; NULL for a tensor in a group, whose parts df11_model_get_group_part() describes. It
    belongs to the model."""
    file_offset: int
    """The byte of that file at which the values begin."""
    shape_known: int
    """Where its dimensions come from (DF11_SHAPE_*). DF11_SHAPE_UNKNOWN is 0: it then has one dimension, its
    number of weights."""
    run_count: int
    """The number of its runs (df11_run_info): 0 for a plain tensor, 1 for one that is whole in a group. Only
    groups by the extension of the format have tensors of several."""


class MatrixInfo(NamedTuple):
    """A matrix."""

    row_count: int
    """Its rows."""
    column_count: int
    """Its columns."""
    matrix_bytes: int
    """Bytes of the whole matrix."""
    escape_count: int
    """Weights whose exponents are rare, and take a byte more."""


class DeviceInfo(NamedTuple):
    """A device. The texts belong to the device."""

    name: str
    """Its name."""
    kernels: str
    """The kernels that run: "sm_90" and the like for a binary, "PTX" if the driver compiled them."""
    libcuda: str
    """The name by which the driver was loaded."""
    ordinal: int
    """Its number, as the driver counts."""
    driver_version: int
    """The driver's CUDA version: 12040 is 12.4."""
    capability_major: int
    """Its compute capability: the 9 of 9.0."""
    capability_minor: int
    """The 0 of 9.0."""
    multiprocessor_count: int
    """Its multiprocessors, whatever the options say."""


class ImageInfo(NamedTuple):
    """An image."""

    image_bytes: int
    """Bytes of the whole image."""
    head_bytes: int
    """Bytes of its head: its first ones, which df11_device_bind_image() needs in host memory."""
    element_count: int
    """Weights that it holds."""
    tensor_count: int
    """Tensors of which it holds weights; slices, if it has some."""
    first_element: int
    """The number of its first weight among those of the group. It holds this one and those that follow. 0 if it
    holds slices: their weights are numbered from 0."""
    first_tensor: int
    """The number of its first tensor among those of the group; 0 if it holds slices."""
    group_element_count: int
    """Weights of the whole group."""
    group_tensor_count: int
    """Tensors of the whole group."""
    slice_count: int
    """Slices that it holds (df11_shard_write_image()); 0 for a range and for a whole group."""


class ResidentInfo(NamedTuple):
    """A resident."""

    image: int
    """The address of the image in device memory."""
    image_bytes: int
    """Bytes of the whole image."""
    element_count: int
    """Weights that it holds."""
    tensor_count: int
    """Tensors of which it holds weights; slices, if it has some."""
    tensor_ends: tuple[int, ...]
    """For each of them the number of the weight after its last one, counted as `first_element` is. They belong
    to the resident."""
    first_element: int
    """The number of its first weight, as df11_resident_decompress_range() counts them: among those of the group,
    so 0 for a whole group. If it holds slices it is 0: their weights are numbered from 0."""
    first_tensor: int
    """The number of its first tensor among those of the group; 0 if it holds slices."""
    group_element_count: int
    """Weights of the whole group."""
    group_tensor_count: int
    """Tensors of the whole group."""
    slice_count: int
    """Slices that it holds; 0 for a range and for a whole group."""
    slices: tuple[Slice, ...]
    """The slices; NULL if there are none. They belong to the resident."""


class CompressReport(NamedTuple):
    """The result of a run in numbers."""

    groups: int
    """Groups in the files that there are now; of a part, those of the part."""
    weights: int
    """Weights in them."""
    weight_bytes: int
    """Bytes of those weights before, 2 each."""
    packed_bytes: int
    """Bytes of the groups' six members."""
    source_bytes: int
    """Bytes of all tensors of the source."""
    written_bytes: int
    """Bytes of the .safetensors files that there are now; of a part, those of the part."""
    resumed: int
    """Groups that an earlier run had written."""
    left_count: int
    """Tensors that stay plain although the patterns ask for them: as many as df11_left_fn is called for."""
    dropped_count: int
    """Heads that are not stored, because they are tied to the embedding and equal to it."""
    unmatched_count: int
    """Patterns that no module matches."""
    complete: int
    """1 if the model is complete; 0 after a part, until df11_merge_model()."""
    preset: Optional[str]
    """The name of the preset that gave the groups, or "automatic"; NULL if it was a pattern_json. The text is
    static."""
    bf16_bytes: int
    """Bytes of all bf16 tensors of the source, without heads that are not stored. What of them is not in groups
    stays plain for one of the reasons below; each of those counts bf16 bytes."""
    grouped_bf16_bytes: int
    """Bytes of the bf16 tensors in groups, each counted once."""
    unasked_bf16_bytes: int
    """Bytes for which no pattern asks."""
    small_bf16_bytes: int
    """Bytes of tensors that are too small for a group to pay."""
    mixed_bf16_bytes: int
    """Bytes of tensors whose group has a tensor of another type."""
    unfit_bf16_bytes: int
    """Bytes of tensors whose group has an infinity, a NaN, or a magnitude of 2^113 and more."""
    unnamed_bf16_bytes: int
    """Bytes of tensors that the reference's format cannot name or hold."""
    carried_count: int
    """Files beside the source's weights that were copied: tokenizers, code, licences."""
    carried_bytes: int
    """Bytes of those files."""
    left_behind_count: int
    """Files beside the source's weights that were not copied: weights in other formats, states of a training,
    downloads that have not ended."""
    left_behind_bytes: int
    """Bytes of those files."""
    missing_count: int
    """Things that the source lacks, with DF11_COMPRESS_INCOMPLETE, and those that config.json speaks of and that
    cannot have got lost."""
    extended_groups: int
    """Those of the groups that are an extension of the format: programs that know only DF11 do not find their
    weights."""


class PlanInfo(NamedTuple):
    """A plan in numbers."""

    exact: int
    """1 if the model is compressed already, so that all sizes are exact; 0 if they are estimates."""
    group_count: int
    """Groups."""
    element_count: int
    """Weights in them."""
    packed_bytes: int
    """Bytes of the groups' six members."""
    image_bytes: int
    """Bytes of all images."""
    plain_bytes: int
    """Bytes of the tensors that are stored as they are."""
    original_bytes: int
    """Bytes of all tensors, not compressed."""
    file_count: int
    """The .safetensors files of a folder."""
    written_bytes: int
    """Bytes of these files."""
    largest_group_element_count: int
    """Weights of the largest group."""
    scratch_bytes: int
    """Bytes of all buffers for decoded weights on one device."""
    cache_bytes_per_token: Optional[int]
    """Bytes of the KV cache for each token, in all layers; DF11_PLAN_NONE if they are not known."""
    cached_layer_count: int
    """Layers that have a cache; 0 if that is not known."""
    left_count: int
    """Tensors that stay plain although the patterns ask for them: as many as `left` is called for."""
    preset: Optional[str]
    """The name of the preset that gives the groups, or "automatic"; NULL for those of a pattern_json, and for a
    model that is compressed already. The text is static."""
    cache_unknown: Optional[str]
    """Why the size of the KV cache is not known; NULL if it is. The text is the plan's."""


class PlanGroupInfo(NamedTuple):
    """A group of a plan."""

    name: str
    """The module's full name. The text is the plan's."""
    element_count: int
    """The weights in all its tensors. Decoded, they take 2 bytes each."""
    tensor_count: int
    """Its tensors."""
    packed_bytes: int
    """Bytes of its six members in the file."""
    image_bytes: int
    """Bytes of its image on a device."""
    exact: int
    """1 if these are exact, 0 if they are estimates."""
    extended: int
    """1 if the group is, or will be, an extension of the format; see df11_group_info. Otherwise 0."""


class PlanShareInfo(NamedTuple):
    """The part of a model that is on one device."""

    image_bytes: int
    """Bytes of images."""
    plain_bytes: int
    """Bytes of tensors that are stored as they are."""
    scratch_bytes: int
    """Bytes of the buffers for decoded weights."""
    total_bytes: int
    """All of these."""
    cache_bytes_per_token: Optional[int]
    """Bytes of the KV cache for each token; DF11_PLAN_NONE if they are not known."""
    bf16_bytes: int
    """Bytes of the device of this number if the same model is not compressed."""


class DecompressReport(NamedTuple):
    """The result of decompressing a model in numbers."""

    tensor_count: int
    """Tensors that were written."""
    flat_count: int
    """Those of them that have one dimension because their shapes are not known."""
    file_count: int
    """Files of tensors."""
    written_bytes: int
    """Bytes of these files."""
    dropped_count: int
    """Heads that are not stored, because they are tied to the embedding and equal to it."""
    config_key_count: int
    """Keys of the config.json that was written, without dfloat11_config; 0 if there is none. Published models of
    diffusers have one, model_type: programs that load such a model need the config.json of the original."""


class RepackReport(NamedTuple):
    """The result of repacking a model in numbers."""

    group_count: int
    """Groups that were copied."""
    plain_count: int
    """Tensors in no group that were copied."""
    file_count: int
    """Files of tensors."""
    written_bytes: int
    """Bytes of these files."""


class PresetInfo(NamedTuple):
    """A preset."""

    name: str
    """Its name, for df11_compress_options.preset. The text is static."""
    pattern_json: str
    """Its pattern_dict, as JSON. The text is static."""


class VerifyReport(NamedTuple):
    """The result of a verification in numbers."""

    groups_good: int
    """Groups whose codes agree with their gaps and positions."""
    groups_bad: int
    """Groups whose codes do not."""
    code_count: int
    """Codes in all groups, one for each weight."""
    hashes_right: int
    """Tensors whose hash is the one in the model's metadata."""
    hashes_wrong: int
    """Tensors that have another hash, or that cannot be decoded."""
    tensors_equal: int
    """Tensors that equal the original's."""
    tensors_different: int
    """Tensors that differ from the original's, or that only one of the two models has."""
    missing_count: int
    """Files, tensors and layers that the model lacks, several in a row counted once."""


# For each struct its tuple, and of each field its name, its kind, and what counts it or stands for None.
TUPLES: dict[type[ct.Structure], tuple[Any, tuple[tuple[str, str, str], ...]]] = {
    df11_slice: (
        Slice,
        (
            ("tensor", "number", ""),
            ("first", "number", ""),
            ("run_elements", "number", ""),
            ("run_stride", "number", ""),
            ("run_count", "number", ""),
        ),
    ),
    df11_group_info: (
        GroupInfo,
        (
            ("name", "text", ""),
            ("element_count", "number", ""),
            ("tensor_count", "number", ""),
            ("first_tensor", "maybe", "DF11_NO_TENSOR"),
            ("packed_bytes", "number", ""),
            ("image_bytes", "number", ""),
            ("extended", "number", ""),
        ),
    ),
    df11_run_info: (
        RunInfo,
        (
            ("tensor", "number", ""),
            ("tensor_offset", "number", ""),
            ("group", "number", ""),
            ("group_offset", "number", ""),
            ("element_count", "number", ""),
        ),
    ),
    df11_part_info: (
        PartInfo,
        (
            ("file", "path", ""),
            ("file_offset", "number", ""),
            ("data_bytes", "number", ""),
            ("data", "address", ""),
        ),
    ),
    df11_tensor_info: (
        TensorInfo,
        (
            ("name", "text", ""),
            ("dtype", "number", ""),
            ("rank", "number", ""),
            ("shape", "list", "rank"),
            ("data_bytes", "number", ""),
            ("group", "maybe", "DF11_NO_GROUP"),
            ("group_offset", "number", ""),
            ("data", "address", ""),
            ("file", "path", ""),
            ("file_offset", "number", ""),
            ("shape_known", "number", ""),
            ("run_count", "number", ""),
        ),
    ),
    df11_matrix_info: (
        MatrixInfo,
        (
            ("row_count", "number", ""),
            ("column_count", "number", ""),
            ("matrix_bytes", "number", ""),
            ("escape_count", "number", ""),
        ),
    ),
    df11_device_info: (
        DeviceInfo,
        (
            ("name", "text", ""),
            ("kernels", "text", ""),
            ("libcuda", "path", ""),
            ("ordinal", "number", ""),
            ("driver_version", "number", ""),
            ("capability_major", "number", ""),
            ("capability_minor", "number", ""),
            ("multiprocessor_count", "number", ""),
        ),
    ),
    df11_image_info: (
        ImageInfo,
        (
            ("image_bytes", "number", ""),
            ("head_bytes", "number", ""),
            ("element_count", "number", ""),
            ("tensor_count", "number", ""),
            ("first_element", "number", ""),
            ("first_tensor", "number", ""),
            ("group_element_count", "number", ""),
            ("group_tensor_count", "number", ""),
            ("slice_count", "number", ""),
        ),
    ),
    df11_resident_info: (
        ResidentInfo,
        (
            ("image", "number", ""),
            ("image_bytes", "number", ""),
            ("element_count", "number", ""),
            ("tensor_count", "number", ""),
            ("tensor_ends", "list", "tensor_count"),
            ("first_element", "number", ""),
            ("first_tensor", "number", ""),
            ("group_element_count", "number", ""),
            ("group_tensor_count", "number", ""),
            ("slice_count", "number", ""),
            ("slices", "slices", "slice_count"),
        ),
    ),
    df11_compress_report: (
        CompressReport,
        (
            ("groups", "number", ""),
            ("weights", "number", ""),
            ("weight_bytes", "number", ""),
            ("packed_bytes", "number", ""),
            ("source_bytes", "number", ""),
            ("written_bytes", "number", ""),
            ("resumed", "number", ""),
            ("left_count", "number", ""),
            ("dropped_count", "number", ""),
            ("unmatched_count", "number", ""),
            ("complete", "number", ""),
            ("preset", "text", ""),
            ("bf16_bytes", "number", ""),
            ("grouped_bf16_bytes", "number", ""),
            ("unasked_bf16_bytes", "number", ""),
            ("small_bf16_bytes", "number", ""),
            ("mixed_bf16_bytes", "number", ""),
            ("unfit_bf16_bytes", "number", ""),
            ("unnamed_bf16_bytes", "number", ""),
            ("carried_count", "number", ""),
            ("carried_bytes", "number", ""),
            ("left_behind_count", "number", ""),
            ("left_behind_bytes", "number", ""),
            ("missing_count", "number", ""),
            ("extended_groups", "number", ""),
        ),
    ),
    df11_plan_info: (
        PlanInfo,
        (
            ("exact", "number", ""),
            ("group_count", "number", ""),
            ("element_count", "number", ""),
            ("packed_bytes", "number", ""),
            ("image_bytes", "number", ""),
            ("plain_bytes", "number", ""),
            ("original_bytes", "number", ""),
            ("file_count", "number", ""),
            ("written_bytes", "number", ""),
            ("largest_group_element_count", "number", ""),
            ("scratch_bytes", "number", ""),
            ("cache_bytes_per_token", "maybe", "DF11_PLAN_NONE"),
            ("cached_layer_count", "number", ""),
            ("left_count", "number", ""),
            ("preset", "text", ""),
            ("cache_unknown", "text", ""),
        ),
    ),
    df11_plan_group_info: (
        PlanGroupInfo,
        (
            ("name", "text", ""),
            ("element_count", "number", ""),
            ("tensor_count", "number", ""),
            ("packed_bytes", "number", ""),
            ("image_bytes", "number", ""),
            ("exact", "number", ""),
            ("extended", "number", ""),
        ),
    ),
    df11_plan_share_info: (
        PlanShareInfo,
        (
            ("image_bytes", "number", ""),
            ("plain_bytes", "number", ""),
            ("scratch_bytes", "number", ""),
            ("total_bytes", "number", ""),
            ("cache_bytes_per_token", "maybe", "DF11_PLAN_NONE"),
            ("bf16_bytes", "number", ""),
        ),
    ),
    df11_decompress_report: (
        DecompressReport,
        (
            ("tensor_count", "number", ""),
            ("flat_count", "number", ""),
            ("file_count", "number", ""),
            ("written_bytes", "number", ""),
            ("dropped_count", "number", ""),
            ("config_key_count", "number", ""),
        ),
    ),
    df11_repack_report: (
        RepackReport,
        (
            ("group_count", "number", ""),
            ("plain_count", "number", ""),
            ("file_count", "number", ""),
            ("written_bytes", "number", ""),
        ),
    ),
    df11_preset_info: (
        PresetInfo,
        (
            ("name", "text", ""),
            ("pattern_json", "text", ""),
        ),
    ),
    df11_verify_report: (
        VerifyReport,
        (
            ("groups_good", "number", ""),
            ("groups_bad", "number", ""),
            ("code_count", "number", ""),
            ("hashes_right", "number", ""),
            ("hashes_wrong", "number", ""),
            ("tensors_equal", "number", ""),
            ("tensors_different", "number", ""),
            ("missing_count", "number", ""),
        ),
    ),
}

# Result and parameters of each function.
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "df11_version_number": (
        ct.c_uint32,
        (
        ),
    ),
    "df11_version_string": (
        ct.c_char_p,
        (
        ),
    ),
    "df11_status_name": (
        ct.c_char_p,
        (
            ct.c_int32,
        ),
    ),
    "df11_log_set": (
        None,
        (
            df11_log_fn,
            ct.c_int32,
            ct.c_void_p,
        ),
    ),
    "df11_progress_new": (
        ct.c_int32,
        (
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_progress_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_progress_get": (
        None,
        (
            ct.c_void_p,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(ct.c_uint64),
        ),
    ),
    "df11_progress_cancel": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_model_open": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.POINTER(df11_open_options),
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_open_memory": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(df11_open_options),
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_model_group_count": (
        ct.c_uint64,
        (
            ct.c_void_p,
        ),
    ),
    "df11_model_tensor_count": (
        ct.c_uint64,
        (
            ct.c_void_p,
        ),
    ),
    "df11_model_config_text": (
        ct.c_char_p,
        (
            ct.c_void_p,
            ct.POINTER(ct.c_uint64),
        ),
    ),
    "df11_model_get_group_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.POINTER(df11_group_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_get_group_run": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.POINTER(df11_run_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_get_group_part": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint32,
            ct.POINTER(df11_part_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_find_group": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_char_p,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_get_tensor_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.POINTER(df11_tensor_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_get_tensor_run": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.POINTER(df11_run_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_find_tensor": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_char_p,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_dtype_name": (
        ct.c_char_p,
        (
            ct.c_uint32,
        ),
    ),
    "df11_dtype_bytes": (
        ct.c_size_t,
        (
            ct.c_uint32,
        ),
    ),
    "df11_model_decompress": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_read_tensor": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_matrix_bound": (
        ct.c_int32,
        (
            ct.c_uint64,
            ct.c_uint64,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_matrix_write": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.c_void_p,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_write_matrix": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.c_void_p,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_matrix_bind": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_matrix_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_matrix_get_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(df11_matrix_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_matrix_decompress": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_matrix_multiply": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_uint32,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint32,
            ct.c_void_p,
            ct.c_uint64,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_open": (
        ct.c_int32,
        (
            ct.c_int32,
            ct.POINTER(df11_device_options),
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_open_current": (
        ct.c_int32,
        (
            ct.POINTER(df11_device_options),
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_device_get_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(df11_device_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_write_image": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_write_image_part": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.c_uint32,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_get_image_range_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint64,
            ct.POINTER(df11_image_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_write_image_range": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_image_get_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(df11_image_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_image_get_slice": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint64,
            ct.POINTER(df11_slice),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_split_segment": (
        ct.c_int32,
        (
            ct.POINTER(df11_segment),
            ct.c_uint32,
            ct.c_uint32,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_get_slices": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint32,
            ct.POINTER(df11_segment),
            ct.c_size_t,
            ct.c_uint32,
            ct.c_uint32,
            ct.POINTER(df11_slice),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_make_shard": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.POINTER(df11_slice),
            ct.c_size_t,
            ct.c_uint32,
            ct.c_void_p,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_shard_get_image_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(df11_image_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_shard_write_image": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.c_void_p,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_shard_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_device_upload": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_uint64,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_void_p,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_upload_staged": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_uint64,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_void_p,
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_upload_range": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_void_p,
            ct.c_void_p,
            ct.c_size_t,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_bind": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_uint64,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_bind_image": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_resident_get_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(df11_resident_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_resident_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_resident_decompress": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_ulonglong,
            ct.c_void_p,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_resident_decompress_range": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.c_uint64,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_ulonglong,
            ct.c_void_p,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_resident_decompress_tensors": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(ct.c_ulonglong),
            ct.POINTER(ct.c_size_t),
            ct.c_size_t,
            ct.c_ulonglong,
            ct.c_void_p,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_resident_decompress_batch": (
        ct.c_int32,
        (
            ct.POINTER(ct.c_void_p),
            ct.POINTER(ct.c_ulonglong),
            ct.POINTER(ct.c_size_t),
            ct.c_size_t,
            ct.c_ulonglong,
            ct.c_void_p,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_model_plan_linear_image": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.POINTER(df11_linear_shape),
            ct.c_size_t,
            ct.c_uint32,
            ct.c_void_p,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_linear_plan_get_image_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(df11_image_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_linear_plan_write_image": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_size_t,
            ct.c_uint32,
            ct.c_void_p,
            ct.POINTER(df11_error),
        ),
    ),
    "df11_device_make_linear_image": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_void_p,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_ulonglong,
            ct.c_size_t,
            ct.c_void_p,
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_linear_plan_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_compress_model": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.c_char_p,
            ct.POINTER(df11_compress_options),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_merge_model": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.c_char_p,
            ct.POINTER(df11_compress_options),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_plan_model": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.POINTER(df11_plan_options),
            ct.POINTER(ct.c_void_p),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_plan_free": (
        None,
        (
            ct.c_void_p,
        ),
    ),
    "df11_plan_get_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.POINTER(df11_plan_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_plan_get_group_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint64,
            ct.POINTER(df11_plan_group_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_plan_get_share_info": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint32,
            ct.c_uint32,
            ct.c_uint32,
            ct.POINTER(df11_plan_share_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_plan_count_tokens": (
        ct.c_int32,
        (
            ct.c_void_p,
            ct.c_uint32,
            ct.c_uint32,
            ct.c_uint64,
            ct.POINTER(ct.c_uint64),
            ct.POINTER(ct.c_uint64),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_decompress_model": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.c_char_p,
            ct.POINTER(df11_decompress_options),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_repack_model": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.c_char_p,
            ct.POINTER(df11_repack_options),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_preset_count": (
        ct.c_uint64,
        (
        ),
    ),
    "df11_preset_get_info": (
        ct.c_int32,
        (
            ct.c_uint64,
            ct.POINTER(df11_preset_info),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_compress_group": (
        ct.c_int32,
        (
            ct.POINTER(ct.c_void_p),
            ct.POINTER(ct.c_uint64),
            ct.c_size_t,
            ct.c_uint32,
            ct.POINTER(df11_packed_group),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_compress_bound": (
        ct.c_int32,
        (
            ct.POINTER(ct.c_uint64),
            ct.c_size_t,
            ct.POINTER(df11_packed_group),
            ct.POINTER(df11_error),
        ),
    ),
    "df11_verify_model": (
        ct.c_int32,
        (
            ct.c_char_p,
            ct.c_char_p,
            ct.POINTER(df11_verify_options),
            ct.POINTER(df11_error),
        ),
    ),
}
