//! The groups of a model.

use super::args::{Cleared, In, Info, Out, Text};
use super::frame::call;
use super::model::{MODEL, df11_model, group_of, index};
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::error::{Error, Result, shorten};
use crate::format::{Group, Member, Model, Run, Tensor};
use std::ffi::{c_char, c_void};

/// A group. Begin with DF11_GROUP_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_group_info {
    /// sizeof(df11_group_info)
    pub struct_size: usize,
    /// The module's full name, such as "model.layers.0". It belongs to the model.
    pub name: *const c_char,
    /// The weights in all its tensors, 2 bytes each when decoded.
    pub element_count: u64,
    /// The tensors in it. By the extension of the format it may hold runs of larger tensors: each
    /// counts.
    pub tensor_count: u64,
    /// The number of its first tensor; the others follow, in the order of their weights.
    /// DF11_NO_TENSOR if they do not, because runs of them are in other groups too;
    /// df11_model_get_group_run() has the tensor of each in any case.
    pub first_tensor: u64,
    /// Bytes of its six parts in the files.
    pub packed_bytes: u64,
    /// Bytes of its image (df11_model_write_image()), a multiple of 256: about 10.8 bits a weight.
    /// 0 if the group cannot be decoded on a device, because its tables have more code words than a
    /// device's. No known compressor writes such groups.
    pub image_bytes: u64,
    /// 1 if it is an extension of the format, whose tensors the file's metadata names
    /// ("df11.groups"): programs that know only DF11 do not find its weights. Otherwise 0.
    pub extended: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zero is a NULL name.
unsafe impl Sizeable for df11_group_info {
    const NAME: &'static str = "df11_group_info";
    const FIRST: usize = 48;
}

/// The `first_tensor` of a group whose tensors do not follow each other.
pub const DF11_NO_TENSOR: u64 = u64::MAX;

/// The look-up rows, then the row of code lengths: 256 bytes each.
pub const DF11_PART_LUTS: u32 = 0;
/// The Huffman-coded exponents.
pub const DF11_PART_ENCODED_EXPONENT: u32 = 1;
/// One byte per weight: its sign in bit 7, its mantissa below.
pub const DF11_PART_SIGN_MANTISSA: u32 = 2;
/// A little-endian uint32 per block of 4096 code bytes: its first weight; then the number of
/// weights.
pub const DF11_PART_OUTPUT_POSITIONS: u32 = 3;
/// Five bits per 8 code bytes: the bit at which the first code that starts there begins.
pub const DF11_PART_GAPS: u32 = 4;
/// A little-endian int64 per tensor but the last: the weights up to its end.
pub const DF11_PART_SPLIT_POSITIONS: u32 = 5;

/// A part of a group in its file. Begin with DF11_PART_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_part_info {
    /// sizeof(df11_part_info)
    pub struct_size: usize,
    /// The path of the file, on Unix any bytes; "memory" for a model opened from memory. It belongs
    /// to the model.
    pub file: *const c_char,
    /// The byte of that file at which the part begins.
    pub file_offset: u64,
    /// Bytes of the part.
    pub data_bytes: u64,
    /// The part in the file's memory, with no alignment; NULL with DF11_OPEN_READ. It belongs to the
    /// model.
    pub data: *const c_void,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers.
unsafe impl Sizeable for df11_part_info {
    const NAME: &'static str = "df11_part_info";
    const FIRST: usize = 40;
}

/// A run: elements of a tensor, one after the other, that are weights of a group, one after the
/// other. Begin with DF11_RUN_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_run_info {
    /// sizeof(df11_run_info)
    pub struct_size: usize,
    /// The number of the tensor.
    pub tensor: u64,
    /// The tensor's elements before the run.
    pub tensor_offset: u64,
    /// The number of the group.
    pub group: u64,
    /// The group's weights before the run.
    pub group_offset: u64,
    /// Elements of the run.
    pub element_count: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all zeros are numbers.
unsafe impl Sizeable for df11_run_info {
    const NAME: &'static str = "df11_run_info";
    const FIRST: usize = 48;
}

// Every byte belongs to a field: padding would carry garbage across the ABI.
const _: () = assert!(size_of::<df11_group_info>() == 64 && size_of::<df11_part_info>() == 40);
const _: () = assert!(size_of::<df11_run_info>() == 48);

/// Describes a group. After an error `*out` is cleared except for its struct_size; if that is wrong,
/// `*out` is left alone.
///
/// Errors: DF11_NOT_FOUND if there is no such group; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_group_info(
    model: *const df11_model,
    group: u64,
    out: *mut df11_group_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || group_info(In::new(model, MODEL), group, Info::new(out))) }
}

fn group_info(model: In<df11_model>, group: u64, out: Info<df11_group_info>) -> Result<()> {
    let out = out.clear()?;
    let handle = model.get()?;
    let info = group_of(&handle.model, group)?;
    out.set(&df11_group_info {
        struct_size: 0,
        name: handle.group_names[info.number()].as_ptr(),
        element_count: info.element_count(),
        tensor_count: info.tensors().len() as u64,
        first_tensor: first_tensor(info),
        packed_bytes: info.packed_bytes(),
        image_bytes: info.image_layout().map_or(0, |layout| layout.image_bytes),
        extended: info.is_extended().into(),
    })
}

/// Returns the number of a group's first tensor, if the others follow.
fn first_tensor(group: Group) -> u64 {
    let first = group.tensors().next().map_or(0, Tensor::number);
    let follow = group.tensors().enumerate().all(|(i, tensor)| tensor.number() == first + i);
    if follow { first as u64 } else { DF11_NO_TENSOR }
}

/// Describes a run of a group: number `run` of its `tensor_count`, in the order of its weights.
/// After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left
/// alone.
///
/// Errors: DF11_NOT_FOUND if there is no such group or run; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_group_run(
    model: *const df11_model,
    group: u64,
    run: u64,
    out: *mut df11_run_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || group_run(In::new(model, MODEL), group, run, Info::new(out))) }
}

fn group_run(model: In<df11_model>, group: u64, run: u64, out: Info<df11_run_info>) -> Result<()> {
    let out = out.clear()?;
    let runs = group_of(&model.get()?.model, group)?.runs();
    set_run(runs, run, out)
}

/// Says where a part of a group (DF11_PART_*) is stored, for programs that read files by themselves.
/// After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left
/// alone.
///
/// Errors: DF11_NOT_FOUND if there is no such group or part; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_group_part(
    model: *const df11_model,
    group: u64,
    part: u32,
    out: *mut df11_part_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || group_part(In::new(model, MODEL), group, part, Info::new(out))) }
}

fn group_part(model: In<df11_model>, group: u64, part: u32, out: Info<df11_part_info>) -> Result<()> {
    const PARTS: [Member; 6] = [
        Member::Luts,
        Member::EncodedExponent,
        Member::SignMantissa,
        Member::OutputPositions,
        Member::Gaps,
        Member::SplitPositions,
    ];
    let out = out.clear()?;
    let handle = model.get()?;
    let group = group_of(&handle.model, group)?;
    let span = group.data().member(PARTS[index(part.into(), PARTS.len(), "part")?]);
    out.set(&df11_part_info {
        struct_size: 0,
        file: handle.files[span.file].as_ptr(),
        file_offset: span.offset,
        data_bytes: span.len,
        data: handle.data(span),
    })
}

/// Describes a run of a list, by its number.
pub(super) fn set_run<'m>(
    mut runs: impl ExactSizeIterator<Item = Run<'m>>,
    number: u64,
    out: Cleared<'_, df11_run_info>,
) -> Result<()> {
    let number = index(number, runs.len(), "run")?;
    let run = runs.nth(number).ok_or_else(|| Error::Internal("a run that is not there".into()))?;
    out.set(&df11_run_info {
        struct_size: 0,
        tensor: run.tensor().number() as u64,
        tensor_offset: run.tensor_offset(),
        group: run.group().number() as u64,
        group_offset: run.group_offset(),
        element_count: run.element_count(),
    })
}

/// Finds a group by its full name. `*out` is its number, or 0 after an error.
///
/// Errors: DF11_NOT_FOUND; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_find_group(
    model: *const df11_model,
    name: *const c_char,
    out: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `name` is NULL or a C string, `out` is NULL or writable.
    unsafe {
        call(error, || {
            let (model, name) = (In::new(model, MODEL), Text::new(name, "the name"));
            find(model, name, Out::new(out), "group", |model, name| model.find_group(name).map(Group::number))
        })
    }
}

/// Finds a group or a tensor: what both searches share.
pub(super) fn find(
    model: In<df11_model>,
    name: Text,
    out: Out<u64>,
    what: &str,
    search: impl FnOnce(&Model, &str) -> Option<usize>,
) -> Result<()> {
    let out = out.clear(0)?;
    let handle = model.get()?;
    let name = name.get()?;
    // No tensor has a name that is not UTF-8.
    let found = name.to_str().ok().and_then(|name| search(&handle.model, name));
    let number = found.ok_or_else(|| {
        let name = shorten(&name.to_string_lossy(), 200);
        Error::NotFound(format!("the model has no {what} named '{name}'"))
    })?;
    out.set(number as u64);
    Ok(())
}
