//! The tensors of a model.

use super::args::{In, Info, Out, Text};
use super::frame::call;
use super::group::{df11_run_info, find, set_run};
use super::model::{MODEL, df11_model, tensor_of};
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::error::Result;
use crate::format::{Data, ShapeSource, Tensor};
use safetensors::Dtype;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

/// The `group` of a tensor that is in none.
pub const DF11_NO_GROUP: u64 = u64::MAX;

/// A type of elements that this version does not know.
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
/// 8-bit float: 5 exponent and 2 mantissa bits
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
/// Complex number of two singles
pub const DF11_DTYPE_C64: u32 = 20;
/// As F8_E4M3, without infinities and negative zero
pub const DF11_DTYPE_F8_E4M3FNUZ: u32 = 21;
/// As F8_E5M2, without infinities and negative zero
pub const DF11_DTYPE_F8_E5M2FNUZ: u32 = 22;

/// Nothing says the tensor's dimensions: its one dimension is its number of weights.
pub const DF11_SHAPE_UNKNOWN: u32 = 0;
/// The dimensions are in the model's files, as for every plain tensor.
pub const DF11_SHAPE_STORED: u32 = 1;
/// The dimensions are those that df11_open_options gives.
pub const DF11_SHAPE_GIVEN: u32 = 2;
/// The dimensions follow from the config and the plain tensors with certainty.
pub const DF11_SHAPE_DERIVED: u32 = 3;

/// A tensor. Begin with DF11_TENSOR_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_tensor_info {
    /// sizeof(df11_tensor_info)
    pub struct_size: usize,
    /// Its full name. It belongs to the model.
    pub name: *const c_char,
    /// The type of its elements (DF11_DTYPE_*): DF11_DTYPE_BF16 for every tensor in a group.
    pub dtype: u32,
    /// The number of its dimensions. DF11 does not store the shapes of compressed tensors: see
    /// `shape_known`.
    pub rank: u32,
    /// Its `rank` dimensions in elements, the last one contiguous; NULL if there are none. They
    /// belong to the model.
    pub shape: *const u64,
    /// Bytes of its values, decoded.
    pub data_bytes: u64,
    /// The number of the group that its first element is in, or DF11_NO_GROUP for a plain tensor. If
    /// `run_count` is above 1, others of its elements are in other groups.
    pub group: u64,
    /// Its first weight in that group, in elements; 0 for a plain tensor.
    pub group_offset: u64,
    /// The values of a plain tensor in the file's memory, with no alignment; NULL for a tensor in a
    /// group, and with DF11_OPEN_READ. They belong to the model.
    pub data: *const c_void,
    /// The path of the file that holds the values of a plain tensor, as in df11_part_info, for
    /// programs that read files by themselves; NULL for a tensor in a group, whose parts
    /// df11_model_get_group_part() describes. It belongs to the model.
    pub file: *const c_char,
    /// The byte of that file at which the values begin.
    pub file_offset: u64,
    /// Where its dimensions come from (DF11_SHAPE_*). DF11_SHAPE_UNKNOWN is 0: it then has one
    /// dimension, its number of weights.
    pub shape_known: u32,
    /// 0
    pub reserved: u32,
    /// The number of its runs (df11_run_info): 0 for a plain tensor, 1 for one that is whole in a
    /// group. Only groups by the extension of the format have tensors of several.
    pub run_count: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers.
unsafe impl Sizeable for df11_tensor_info {
    const NAME: &'static str = "df11_tensor_info";
    const FIRST: usize = 96;
}

const _: () = assert!(size_of::<df11_tensor_info>() == 96);

/// Describes a tensor. After an error `*out` is cleared except for its struct_size; if that is
/// wrong, `*out` is left alone.
///
/// Errors: DF11_NOT_FOUND if there is no such tensor; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_tensor_info(
    model: *const df11_model,
    tensor: u64,
    out: *mut df11_tensor_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || tensor_info(In::new(model, MODEL), tensor, Info::new(out))) }
}

fn tensor_info(model: In<df11_model>, tensor: u64, out: Info<df11_tensor_info>) -> Result<()> {
    let out = out.clear()?;
    let handle = model.get()?;
    let info = tensor_of(&handle.model, tensor)?;
    let mut value = df11_tensor_info {
        struct_size: 0,
        name: handle.tensor_names[info.number()].as_ptr(),
        dtype: dtype_code(info.dtype()),
        rank: info.shape().len() as u32,
        shape: if info.shape().is_empty() { ptr::null() } else { info.shape().as_ptr() },
        data_bytes: info.bytes(),
        group: DF11_NO_GROUP,
        group_offset: 0,
        data: ptr::null(),
        file: ptr::null(),
        file_offset: 0,
        shape_known: match info.shape_source() {
            ShapeSource::Stored => DF11_SHAPE_STORED,
            ShapeSource::Given => DF11_SHAPE_GIVEN,
            ShapeSource::Derived => DF11_SHAPE_DERIVED,
            ShapeSource::Unknown => DF11_SHAPE_UNKNOWN,
        },
        reserved: 0,
        run_count: info.runs().len() as u64,
    };
    match info.values() {
        Data::Packed { .. } => {
            value.group = info.group().map_or(DF11_NO_GROUP, |group| group.number() as u64);
            value.group_offset = info.group_offset();
        }
        Data::Plain(span) => {
            value.data = handle.data(span);
            (value.file, value.file_offset) = (handle.files[span.file].as_ptr(), span.offset);
        }
    }
    out.set(&value)
}

/// Describes a run of a tensor: number `run` of its `run_count`, in the order of its elements. So a
/// tensor in several groups is found in all of them; df11_model_read_tensor() does that by itself.
/// After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left
/// alone.
///
/// Errors: DF11_NOT_FOUND if there is no such tensor or run; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_tensor_run(
    model: *const df11_model,
    tensor: u64,
    run: u64,
    out: *mut df11_run_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || tensor_run(In::new(model, MODEL), tensor, run, Info::new(out))) }
}

fn tensor_run(model: In<df11_model>, tensor: u64, run: u64, out: Info<df11_run_info>) -> Result<()> {
    let out = out.clear()?;
    let runs = tensor_of(&model.get()?.model, tensor)?.runs();
    set_run(runs, run, out)
}

/// Finds a tensor by its full name. `*out` is its number, or 0 after an error.
///
/// Errors: DF11_NOT_FOUND; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_find_tensor(
    model: *const df11_model,
    name: *const c_char,
    out: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `name` is NULL or a C string, `out` is NULL or writable.
    unsafe {
        call(error, || {
            let (model, name) = (In::new(model, MODEL), Text::new(name, "the name"));
            find(model, name, Out::new(out), "tensor", |model, name| model.find_tensor(name).map(Tensor::number))
        })
    }
}

/// Returns the name of a type of elements (DF11_DTYPE_*) as safetensors files spell it, such as
/// "BF16"; "UNKNOWN" for any other number. The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn df11_dtype_name(dtype: u32) -> *const c_char {
    let names = DTYPES.iter().find(|(code, ..)| *code == dtype);
    names.map_or(c"UNKNOWN", |(_, _, name)| name).as_ptr()
}

/// Returns the bytes of an element of a type (DF11_DTYPE_*); 0 for DF11_DTYPE_UNKNOWN, any other
/// number, and the types whose elements are no whole number of bytes: the `data_bytes` of such a
/// tensor say how many it has.
#[unsafe(no_mangle)]
pub extern "C" fn df11_dtype_bytes(dtype: u32) -> usize {
    let known = DTYPES.iter().find(|(code, ..)| *code == dtype).map(|(_, dtype, _)| dtype.bitsize());
    known.filter(|bits| bits.is_multiple_of(8)).map_or(0, |bits| bits / 8)
}

/// Every type that this version knows, with its name in safetensors files.
const DTYPES: &[(u32, Dtype, &CStr)] = &[
    (DF11_DTYPE_BF16, Dtype::BF16, c"BF16"),
    (DF11_DTYPE_F16, Dtype::F16, c"F16"),
    (DF11_DTYPE_F32, Dtype::F32, c"F32"),
    (DF11_DTYPE_F64, Dtype::F64, c"F64"),
    (DF11_DTYPE_BOOL, Dtype::BOOL, c"BOOL"),
    (DF11_DTYPE_U8, Dtype::U8, c"U8"),
    (DF11_DTYPE_I8, Dtype::I8, c"I8"),
    (DF11_DTYPE_U16, Dtype::U16, c"U16"),
    (DF11_DTYPE_I16, Dtype::I16, c"I16"),
    (DF11_DTYPE_U32, Dtype::U32, c"U32"),
    (DF11_DTYPE_I32, Dtype::I32, c"I32"),
    (DF11_DTYPE_U64, Dtype::U64, c"U64"),
    (DF11_DTYPE_I64, Dtype::I64, c"I64"),
    (DF11_DTYPE_F8_E5M2, Dtype::F8_E5M2, c"F8_E5M2"),
    (DF11_DTYPE_F8_E4M3, Dtype::F8_E4M3, c"F8_E4M3"),
    (DF11_DTYPE_F8_E8M0, Dtype::F8_E8M0, c"F8_E8M0"),
    (DF11_DTYPE_F4, Dtype::F4, c"F4"),
    (DF11_DTYPE_F6_E2M3, Dtype::F6_E2M3, c"F6_E2M3"),
    (DF11_DTYPE_F6_E3M2, Dtype::F6_E3M2, c"F6_E3M2"),
    (DF11_DTYPE_C64, Dtype::C64, c"C64"),
    (DF11_DTYPE_F8_E4M3FNUZ, Dtype::F8_E4M3FNUZ, c"F8_E4M3FNUZ"),
    (DF11_DTYPE_F8_E5M2FNUZ, Dtype::F8_E5M2FNUZ, c"F8_E5M2FNUZ"),
];

fn dtype_code(dtype: Dtype) -> u32 {
    DTYPES.iter().find(|(_, known, _)| *known == dtype).map_or(DF11_DTYPE_UNKNOWN, |(code, ..)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The safetensors crate spells the names, and says how wide types are.
    #[test]
    fn types_have_the_names_and_sizes_of_safetensors() {
        for (i, (code, dtype, name)) in DTYPES.iter().enumerate() {
            assert_eq!(*code as usize, i + 1);
            assert_eq!(name.to_str().unwrap(), dtype.to_string());
            let whole = dtype.bitsize() % 8 == 0;
            assert_eq!(df11_dtype_bytes(*code), if whole { dtype.bitsize() / 8 } else { 0 }, "{name:?}");
            assert_eq!(dtype_code(*dtype), *code);
        }
        for code in [DF11_DTYPE_UNKNOWN, DTYPES.len() as u32 + 1, u32::MAX] {
            // SAFETY: the text is static.
            assert_eq!(unsafe { CStr::from_ptr(df11_dtype_name(code)) }, c"UNKNOWN");
            assert_eq!(df11_dtype_bytes(code), 0);
        }
        assert_eq!(df11_dtype_bytes(DF11_DTYPE_BF16), 2);
        assert_eq!(df11_dtype_bytes(DF11_DTYPE_F4), 0);
    }
}
