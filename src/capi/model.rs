//! Opening models and asking what is in them.

use super::status::{df11_error, df11_status, frame};
use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use crate::format::{Data, Member, Model, OpenOptions, Span};
use safetensors::Dtype;
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::path::Path;
use std::ptr;

/// An open model. Immutable: any number of threads may use it at once, and none of them matters more than another.
pub struct df11_model {
    pub(super) model: Model,
    group_names: Vec<CString>,
    tensor_names: Vec<CString>,
    files: Vec<CString>,
}

/// Walk every code of every group when the model is opened: decoding is then known to find no error. Takes about as long as
/// decoding the model; see df11_open_options.threads.
pub const DF11_OPEN_VERIFY: u32 = 1;
/// Read the files piece by piece instead of mapping them. A mapped file that another process cuts short ends this process
/// with SIGBUS; a read one gives an error. `data` pointers are then NULL.
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
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zero is a NULL text.
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
    /// The path of the file that holds the values of a plain tensor, for readers that bring their own input; NULL for a
    /// tensor in a group (df11_model_group_part() tells where the group's parts lie). Belongs to the model.
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
    /// The path of the file; "memory" for a model opened from memory. Belongs to the model.
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
    assert!(size_of::<df11_open_options>() == 24 && size_of::<df11_group_info>() == 48);
    assert!(size_of::<df11_tensor_info>() == 80 && size_of::<df11_part_info>() == 40);
};

/// Opens a model: a folder in Hugging Face layout, or one .safetensors file. Every *.safetensors file of a folder is
/// opened, whatever an index lists; config.json is looked for in the folder, or beside the file. Headers, tables and
/// positions are read and checked, no weights: milliseconds, and no copy. A file or folder without compressed groups opens
/// too, as a model of plain tensors.
///
/// `path` is UTF-8 (on Unix any bytes), ended by a zero byte. `options` may be NULL. On success `*out` is the model, to be
/// given to df11_model_free(); otherwise NULL.
///
/// Errors: DF11_IO; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for a file that cannot be trusted;
/// DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT, DF11_OUT_OF_MEMORY.
///
/// # Safety
///
/// The pointers are as described. The files must not change while a mapped model is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_open(
    path: *const c_char,
    options: *const df11_open_options,
    out: *mut *mut df11_model,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        open(options, out, error, |options| {
            if path.is_null() {
                return Err(Error::InvalidArgument("the path is NULL".into()));
            }
            Model::open(path_of(CStr::from_ptr(path))?, options)
        })
    }
}

/// Opens the bytes of one .safetensors file that lie in memory. They are not copied: they must stay, unchanged, until the
/// model is freed. There is no config.json beside them; see df11_open_options.config_json. All else is as for
/// df11_model_open().
///
/// # Safety
///
/// The pointers are as described, and `bytes` bytes can be read at `data` until the model is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_open_memory(
    data: *const c_void,
    bytes: usize,
    options: *const df11_open_options,
    out: *mut *mut df11_model,
    error: *mut df11_error,
) -> df11_status {
    /// Memory of the caller's, which by contract outlives the model.
    struct Borrowed(*const u8, usize);
    // SAFETY: it is only read.
    unsafe impl Send for Borrowed {}
    // SAFETY: it is only read.
    unsafe impl Sync for Borrowed {}
    impl AsRef<[u8]> for Borrowed {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: by the caller's promise.
            unsafe { std::slice::from_raw_parts(self.0, self.1) }
        }
    }
    // SAFETY: by the caller's promise.
    unsafe {
        open(options, out, error, |options| {
            if data.is_null() || bytes > isize::MAX as usize {
                return Err(Error::InvalidArgument(format!("{bytes} bytes at {data:p} are no memory")));
            }
            Model::from_bytes(Borrowed(data.cast(), bytes), options)
        })
    }
}

/// The parts that both ways of opening share.
///
/// # Safety
///
/// As for the exported functions.
unsafe fn open(
    options: *const df11_open_options,
    out: *mut *mut df11_model,
    error: *mut df11_error,
    model: impl FnOnce(&OpenOptions) -> Result<Model>,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, ptr::null_mut())?;
            let (options, verify) = match structs::read(options)? {
                None => (OpenOptions::default(), None),
                Some(o) => {
                    let unknown = o.flags & !(DF11_OPEN_VERIFY | DF11_OPEN_READ | DF11_OPEN_ANY_VERSION);
                    if unknown != 0 {
                        let reason = format!("df11_open_options.flags has unknown bits: {unknown:#x}");
                        return Err(Error::UnsupportedOption(reason));
                    }
                    let config = match o.config_json {
                        text if text.is_null() => None,
                        text => Some(CStr::from_ptr(text).to_str().map(str::to_owned).map_err(|_| {
                            Error::InvalidArgument("df11_open_options.config_json is not UTF-8".into())
                        })?),
                    };
                    let options = OpenOptions {
                        read: o.flags & DF11_OPEN_READ != 0,
                        any_version: o.flags & DF11_OPEN_ANY_VERSION != 0,
                        config,
                    };
                    (options, (o.flags & DF11_OPEN_VERIFY != 0).then_some(o.threads as usize))
                }
            };
            let model = model(&options)?;
            if let Some(threads) = verify {
                (0..model.groups().len()).try_for_each(|group| crate::host::verify(&model, group, threads))?;
            }
            // Names with zero bytes were refused when the model was opened; a path from a C text has none.
            let text = |s: &str| CString::new(s).map_err(|_| Error::Internal("a name with a zero byte".into()));
            let handle = df11_model {
                group_names: model.groups().iter().map(|g| text(g.name())).collect::<Result<_>>()?,
                tensor_names: model.tensors().iter().map(|t| text(t.name())).collect::<Result<_>>()?,
                files: model.files().map(|f| text(&f.file.display().to_string())).collect::<Result<_>>()?,
                model,
            };
            *out = Box::into_raw(Box::new(handle));
            Ok(())
        })
    }
}

/// Frees a model, from any thread; NULL is allowed. No call may be using it, and its names, shapes and data go with it.
///
/// # Safety
///
/// `model` is NULL or a model that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_free(model: *mut df11_model) {
    if !model.is_null() {
        // Dropping unmaps and closes; if that ever panicked, nothing must unwind into C.
        // SAFETY: `open` made it by `Box::into_raw`.
        let model = unsafe { Box::from_raw(model) };
        let free = || {
            drop(model);
            Ok(())
        };
        // SAFETY: no error is wanted.
        unsafe { frame(ptr::null_mut(), free) };
    }
}

/// How many groups a model has; 0 for NULL. They are numbered from 0 in the natural order of their names.
///
/// # Safety
///
/// `model` is NULL or an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_group_count(model: *const df11_model) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { model.as_ref() }.map_or(0, |m| m.model.groups().len() as u64)
}

/// How many tensors a model has; 0 for NULL. They are numbered from 0: those of group 0 in the order of their weights,
/// those of group 1, and so on; then the plain ones.
///
/// # Safety
///
/// `model` is NULL or an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_tensor_count(model: *const df11_model) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { model.as_ref() }.map_or(0, |m| m.model.tensors().len() as u64)
}

/// Describes a group. After an error `*out` is cleared but for its struct_size.
///
/// Errors: DF11_NOT_FOUND if there is no such group; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_group_info(
    model: *const df11_model,
    group: u64,
    out: *mut df11_group_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let handle = handle(model)?;
            let (number, info) = (index(group, handle.model.groups().len(), "group")?, &handle.model.groups());
            let info = &info[number];
            let value = df11_group_info {
                struct_size: 0,
                name: handle.group_names[number].as_ptr(),
                element_count: info.element_count(),
                tensor_count: info.tensors().len() as u64,
                first_tensor: info.tensors().start as u64,
                packed_bytes: info.packed_bytes(),
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}

/// Says where a part of a group lies (DF11_PART_*), for readers that bring their own input. After an error `*out` is
/// cleared but for its struct_size.
///
/// Errors: DF11_NOT_FOUND if there is no such group or part; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_group_part(
    model: *const df11_model,
    group: u64,
    part: u32,
    out: *mut df11_part_info,
    error: *mut df11_error,
) -> df11_status {
    const PARTS: [Member; 6] = [
        Member::Luts,
        Member::EncodedExponent,
        Member::SignMantissa,
        Member::OutputPositions,
        Member::Gaps,
        Member::SplitPositions,
    ];
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let handle = handle(model)?;
            let group = &handle.model.groups()[index(group, handle.model.groups().len(), "group")?];
            let span = group.member(PARTS[index(part as u64, PARTS.len(), "part")?]);
            let value = df11_part_info {
                struct_size: 0,
                file: handle.files[span.file].as_ptr(),
                file_offset: span.offset,
                bytes: span.len,
                data: handle.data(span),
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}

/// Describes a tensor. After an error `*out` is cleared but for its struct_size.
///
/// Errors: DF11_NOT_FOUND if there is no such tensor; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_tensor_info(
    model: *const df11_model,
    tensor: u64,
    out: *mut df11_tensor_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let handle = handle(model)?;
            let number = index(tensor, handle.model.tensors().len(), "tensor")?;
            let info = &handle.model.tensors()[number];
            let mut value = df11_tensor_info {
                struct_size: 0,
                name: handle.tensor_names[number].as_ptr(),
                dtype: dtype_code(info.dtype()),
                rank: info.shape().len() as u32,
                shape: if info.shape().is_empty() { ptr::null() } else { info.shape().as_ptr() },
                bytes: info.bytes(),
                group: DF11_NO_GROUP,
                group_offset: 0,
                data: ptr::null(),
                file: ptr::null(),
                file_offset: 0,
            };
            match info.data() {
                Data::Packed { group, first } => (value.group, value.group_offset) = (group as u64, first),
                Data::Plain(span) => {
                    value.data = handle.data(span);
                    (value.file, value.file_offset) = (handle.files[span.file].as_ptr(), span.offset);
                }
            }
            structs::write(out, &value);
            Ok(())
        })
    }
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
    // SAFETY: by the caller's promise.
    unsafe { find(model, name, out, error, "group", Model::find_group) }
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
    // SAFETY: by the caller's promise.
    unsafe { find(model, name, out, error, "tensor", Model::find_tensor) }
}

/// The parts that both searches share.
///
/// # Safety
///
/// As for the exported functions.
unsafe fn find(
    model: *const df11_model,
    name: *const c_char,
    out: *mut u64,
    error: *mut df11_error,
    what: &str,
    search: impl FnOnce(&Model, &str) -> Option<usize>,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, 0)?;
            let handle = handle(model)?;
            if name.is_null() {
                return Err(Error::InvalidArgument("the name is NULL".into()));
            }
            let name = CStr::from_ptr(name).to_string_lossy();
            match search(&handle.model, &name) {
                Some(number) => *out = number as u64,
                None => return Err(Error::NotFound(format!("the model has no {what} named '{name}'"))),
            }
            Ok(())
        })
    }
}

impl df11_model {
    /// Where a span's bytes lie in memory, or NULL.
    fn data(&self, span: Span) -> *const c_void {
        self.model.bytes_of(span).map_or(ptr::null(), |bytes| bytes.as_ptr().cast())
    }
}

/// # Safety
///
/// `model` is NULL or an open model.
pub(super) unsafe fn handle<'a>(model: *const df11_model) -> Result<&'a df11_model> {
    // SAFETY: by the caller's promise.
    unsafe { model.as_ref() }.ok_or_else(|| Error::InvalidArgument("the model is NULL".into()))
}

/// Checks a number against how many there are.
pub(super) fn index(number: u64, count: usize, what: &str) -> Result<usize> {
    usize::try_from(number)
        .ok()
        .filter(|&n| n < count)
        .ok_or_else(|| Error::NotFound(format!("there is no {what} {number}: there are {count}")))
}

/// Gives an output its value for errors.
///
/// # Safety
///
/// `out` is NULL or can be written.
unsafe fn clear<T>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() {
        return Err(Error::InvalidArgument("the output is NULL".into()));
    }
    // SAFETY: by the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

#[cfg(unix)]
fn path_of(text: &CStr) -> Result<&Path> {
    Ok(Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(text.to_bytes())))
}

#[cfg(not(unix))]
fn path_of(text: &CStr) -> Result<&Path> {
    text.to_str().map(Path::new).map_err(|_| Error::InvalidArgument("the path is not UTF-8".into()))
}

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

fn dtype_code(dtype: Dtype) -> u32 {
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
