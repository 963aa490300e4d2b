//! The structs and constants that describe models.

use super::progress::df11_progress;
use super::structs::Sizeable;
use safetensors::Dtype;
use std::ffi::{c_char, c_void};

/// Walk every code of every group when the model is opened: decoding is then known to find no error. This takes somewhat
/// longer than decoding the model; see df11_open_options.threads.
pub const DF11_OPEN_VERIFY: u32 = 1;
/// Read the files piece by piece instead of mapping them. A mapped file that another process cuts short ends this process
/// with SIGBUS; a read one gives an error. `data` pointers are then NULL, and one descriptor per file stays open.
pub const DF11_OPEN_READ: u32 = 2;
/// Accept a version of the compressor that this library does not know.
pub const DF11_OPEN_ANY_VERSION: u32 = 4;

/// How to open a model. Begin with DF11_OPEN_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_open_options {
    /// sizeof(df11_open_options)
    pub struct_size: usize,
    /// DF11_OPEN_* joined by |
    pub flags: u32,
    /// Threads for DF11_OPEN_VERIFY, the calling one among them; 0 means 1.
    pub threads: u32,
    /// NULL, or the text of a config.json to use instead of the model's own, in UTF-8 and ended by a zero byte. For a file
    /// that comes without one: the config's pattern_dict says what the tensors inside a group are called. It is read
    /// during the call only.
    pub config_json: *const c_char,
    /// NULL, or where to count the bytes of DF11_OPEN_VERIFY (two for each weight) and to look whether somebody cancels:
    /// between files, and all the time while codes are walked.
    pub progress: *mut df11_progress,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers.
unsafe impl Sizeable for df11_open_options {
    const NAME: &'static str = "df11_open_options";
    const FIRST: usize = 24;
}

/// The `group` of a tensor that is in none.
pub const DF11_NO_GROUP: u64 = u64::MAX;

/// What a group is. Begin with DF11_GROUP_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_group_info {
    /// sizeof(df11_group_info)
    pub struct_size: usize,
    /// The module's full name, such as "model.layers.0". Belongs to the model.
    pub name: *const c_char,
    /// Weights in all its tensors; they take twice as many bytes when decoded.
    pub element_count: u64,
    /// Tensors in it.
    pub tensor_count: u64,
    /// The number of its first tensor; the others follow, in the order of their weights.
    pub first_tensor: u64,
    /// Bytes of its six parts in the files.
    pub packed_bytes: u64,
    /// Bytes of its image (df11_model_write_image()), a multiple of 256: about 10.8 bits a weight. 0 for a group that no image
    /// can hold, for its tables have more code words than a device's would: no compressor writes such.
    pub image_bytes: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zero is a NULL name.
unsafe impl Sizeable for df11_group_info {
    const NAME: &'static str = "df11_group_info";
    const FIRST: usize = 48;
}

/// What a tensor is. Begin with DF11_TENSOR_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_tensor_info {
    /// sizeof(df11_tensor_info)
    pub struct_size: usize,
    /// Its full name. Belongs to the model.
    pub name: *const c_char,
    /// The type of its elements: DF11_DTYPE_BF16 for every tensor in a group.
    pub dtype: u32,
    /// Its number of dimensions. DF11 does not store the shapes of compressed tensors: they have one dimension, unless the
    /// file's metadata tells their shape.
    pub rank: u32,
    /// Its `rank` dimensions, in elements, the last one contiguous; NULL if there are none. Belongs to the
    /// model.
    pub shape: *const u64,
    /// Bytes of its values, decoded.
    pub bytes: u64,
    /// The number of its group, or DF11_NO_GROUP for a plain tensor.
    pub group: u64,
    /// Its first weight in the group, in elements; 0 for a plain tensor.
    pub group_offset: u64,
    /// The values of a plain tensor where they lie in the file's memory, with no alignment; NULL for a tensor in a group,
    /// and with DF11_OPEN_READ. Belongs to the model.
    pub data: *const c_void,
    /// The path of the file that holds the values of a plain tensor, as in df11_part_info, for readers that bring their own
    /// input; NULL for a tensor in a group (df11_model_get_group_part() tells where the group's parts lie). Belongs to the model.
    pub file: *const c_char,
    /// The first byte of the values in that file.
    pub file_offset: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers.
unsafe impl Sizeable for df11_tensor_info {
    const NAME: &'static str = "df11_tensor_info";
    const FIRST: usize = 80;
}

/// The look-up rows, then the row of code lengths: 256 bytes each.
pub const DF11_PART_LUTS: u32 = 0;
/// The Huffman-coded exponents.
pub const DF11_PART_ENCODED_EXPONENT: u32 = 1;
/// One byte per weight: its sign in bit 7, its mantissa below.
pub const DF11_PART_SIGN_MANTISSA: u32 = 2;
/// A little-endian uint32 per block of 4096 code bytes: its first weight; then the number of weights.
pub const DF11_PART_OUTPUT_POSITIONS: u32 = 3;
/// Five bits per 8 code bytes: the bit at which the first code that starts there begins.
pub const DF11_PART_GAPS: u32 = 4;
/// A little-endian int64 per tensor but the last: the weights up to its end.
pub const DF11_PART_SPLIT_POSITIONS: u32 = 5;

/// Where a part of a group lies. Begin with DF11_PART_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_part_info {
    /// sizeof(df11_part_info)
    pub struct_size: usize,
    /// The path of the file, on Unix any bytes; "memory" for a model opened from memory. Belongs to the model.
    pub file: *const c_char,
    /// The part's first byte in that file.
    pub file_offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// The bytes where they lie in the file's memory, with no alignment; NULL with DF11_OPEN_READ. Belongs to the model.
    pub data: *const c_void,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers.
unsafe impl Sizeable for df11_part_info {
    const NAME: &'static str = "df11_part_info";
    const FIRST: usize = 40;
}

// Every byte belongs to a field: padding would carry garbage across the ABI.
const _: () = {
    assert!(size_of::<df11_open_options>() == 32 && size_of::<df11_group_info>() == 56);
    assert!(size_of::<df11_tensor_info>() == 80 && size_of::<df11_part_info>() == 40);
};

/// The type of a tensor's elements is none that this version knows.
pub const DF11_DTYPE_UNKNOWN: u32 = 0;
/// bfloat16: the upper half of a float
pub const DF11_DTYPE_BF16: u32 = 1;
/// IEEE 754 half
pub const DF11_DTYPE_F16: u32 = 2;
/// IEEE 754 single
pub const DF11_DTYPE_F32: u32 = 3;
/// IEEE 754 double
pub const DF11_DTYPE_F64: u32 = 4;
/// One byte, 0 or 1
pub const DF11_DTYPE_BOOL: u32 = 5;
/// uint8_t
pub const DF11_DTYPE_U8: u32 = 6;
/// int8_t
pub const DF11_DTYPE_I8: u32 = 7;
/// uint16_t
pub const DF11_DTYPE_U16: u32 = 8;
/// int16_t
pub const DF11_DTYPE_I16: u32 = 9;
/// uint32_t
pub const DF11_DTYPE_U32: u32 = 10;
/// int32_t
pub const DF11_DTYPE_I32: u32 = 11;
/// uint64_t
pub const DF11_DTYPE_U64: u32 = 12;
/// int64_t
pub const DF11_DTYPE_I64: u32 = 13;
/// 8-bit float, 5 exponent and 2 mantissa bits
pub const DF11_DTYPE_F8_E5M2: u32 = 14;
/// 8-bit float, 4 exponent and 3 mantissa bits
pub const DF11_DTYPE_F8_E4M3: u32 = 15;
/// 8-bit scale, exponent only
pub const DF11_DTYPE_F8_E8M0: u32 = 16;
/// 4-bit float, two in a byte
pub const DF11_DTYPE_F4: u32 = 17;
/// 6-bit float, 2 exponent and 3 mantissa bits
pub const DF11_DTYPE_F6_E2M3: u32 = 18;
/// 6-bit float, 3 exponent and 2 mantissa bits
pub const DF11_DTYPE_F6_E3M2: u32 = 19;
/// Complex of two singles
pub const DF11_DTYPE_C64: u32 = 20;
/// As F8_E4M3, without infinities and negative zero
pub const DF11_DTYPE_F8_E4M3FNUZ: u32 = 21;
/// As F8_E5M2, without infinities and negative zero
pub const DF11_DTYPE_F8_E5M2FNUZ: u32 = 22;

pub(super) fn dtype_code(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::BF16 => DF11_DTYPE_BF16,
        Dtype::F16 => DF11_DTYPE_F16,
        Dtype::F32 => DF11_DTYPE_F32,
        Dtype::F64 => DF11_DTYPE_F64,
        Dtype::BOOL => DF11_DTYPE_BOOL,
        Dtype::U8 => DF11_DTYPE_U8,
        Dtype::I8 => DF11_DTYPE_I8,
        Dtype::U16 => DF11_DTYPE_U16,
        Dtype::I16 => DF11_DTYPE_I16,
        Dtype::U32 => DF11_DTYPE_U32,
        Dtype::I32 => DF11_DTYPE_I32,
        Dtype::U64 => DF11_DTYPE_U64,
        Dtype::I64 => DF11_DTYPE_I64,
        Dtype::F8_E5M2 => DF11_DTYPE_F8_E5M2,
        Dtype::F8_E4M3 => DF11_DTYPE_F8_E4M3,
        Dtype::F8_E8M0 => DF11_DTYPE_F8_E8M0,
        Dtype::F4 => DF11_DTYPE_F4,
        Dtype::F6_E2M3 => DF11_DTYPE_F6_E2M3,
        Dtype::F6_E3M2 => DF11_DTYPE_F6_E3M2,
        Dtype::C64 => DF11_DTYPE_C64,
        Dtype::F8_E4M3FNUZ => DF11_DTYPE_F8_E4M3FNUZ,
        Dtype::F8_E5M2FNUZ => DF11_DTYPE_F8_E5M2FNUZ,
        _ => DF11_DTYPE_UNKNOWN,
    }
}
