//! Opening models and asking what is in them.

use super::progress;
use super::status::{df11_error, df11_status, frame};
use super::structs;
use super::types::*;
use crate::error::{Error, Result, shorten};
use crate::format::{Access, Data, Group, Member, Model, OpenOptions, Span, Tensor};
use crate::progress::Progress;
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr;

/// An open model. Immutable: any number of threads may use it at once, and none of them matters more than another.
pub struct df11_model {
    pub(super) model: Model,
    group_names: Vec<CString>,
    tensor_names: Vec<CString>,
    files: Vec<CString>,
}

/// Opens a model: a folder in Hugging Face layout, or one .safetensors file. Every *.safetensors file of a folder is
/// opened, whatever an index lists; config.json is looked for in the folder, or beside the file, where NAME.config.json comes
/// before it. Headers, tables and positions are read and checked, no weights: milliseconds, and no copy. A file or folder
/// without compressed groups opens too, as a model of plain tensors.
///
/// `path` is UTF-8 (on Unix any bytes), ended by a zero byte. `options` may be NULL. On success `*out` is the model, to be
/// given to df11_model_free(); otherwise NULL.
///
/// Errors: DF11_IO; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for a file that cannot be trusted;
/// DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT, DF11_CANCELLED, DF11_OUT_OF_MEMORY.
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
        open(options, out, error, |options, access, progress| {
            Model::open_watched(path_of(path)?, options, access, progress)
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
        open(options, out, error, |options, _, _| {
            if data.is_null() || bytes > isize::MAX as usize {
                return Err(Error::InvalidArgument(format!("data: {bytes} bytes at {data:p} are no memory")));
            }
            Model::of_bytes(Box::new(Borrowed(data.cast(), bytes)), options)
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
    model: impl FnOnce(&OpenOptions, Access, &Progress) -> Result<Model>,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, ptr::null_mut())?;
            let given = structs::read_known(options)?;
            let progress =
                given.map_or_else(Progress::new, |options| progress::of(options.progress, None, ptr::null_mut()));
            // What the handle was given to before is not this call's. How much there is to do the headers say.
            progress.begin(0);
            structs::refuse_unknown(options)?;
            let (options, access) = match given {
                None => (OpenOptions::default(), Access::Map),
                Some(o) => {
                    let unknown = o.flags & !(DF11_OPEN_VERIFY | DF11_OPEN_READ | DF11_OPEN_ANY_VERSION);
                    if unknown != 0 {
                        let reason = format!("df11_open_options.flags has unknown bits: {unknown:#x}");
                        return Err(Error::UnsupportedOption(reason));
                    }
                    let config = text_of(o.config_json, "df11_open_options.config_json")?;
                    let options = OpenOptions {
                        verify: o.flags & DF11_OPEN_VERIFY != 0,
                        threads: o.threads as usize,
                        any_version: o.flags & DF11_OPEN_ANY_VERSION != 0,
                        config,
                    };
                    (options, if o.flags & DF11_OPEN_READ != 0 { Access::Read } else { Access::Map })
                }
            };
            progress.check()?;
            let model = model(&options, access, &progress)?.verified(&options, &progress)?;
            // Names with zero bytes were refused when the model was opened; a path from a C text has none.
            let text = |s: &[u8]| CString::new(s).map_err(|_| Error::Internal("a name with a zero byte".into()));
            let handle = df11_model {
                group_names: model.groups().map(|g| text(g.name().as_bytes())).collect::<Result<_>>()?,
                tensor_names: model.tensors().map(|t| text(t.name().as_bytes())).collect::<Result<_>>()?,
                files: model.files().map(|f| text(&bytes_of(f.file))).collect::<Result<_>>()?,
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

/// Describes a group. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
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
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let handle = handle(model)?;
            let info = group_of(&handle.model, group)?;
            let value = df11_group_info {
                struct_size: 0,
                name: handle.group_names[info.number()].as_ptr(),
                element_count: info.element_count(),
                tensor_count: info.tensors().len() as u64,
                first_tensor: info.tensors().next().map_or(0, |tensor| tensor.number() as u64),
                packed_bytes: info.packed_bytes(),
                image_bytes: info.image_layout().map_or(0, |layout| layout.image_bytes),
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}

/// Says where a part of a group lies (DF11_PART_*), for readers that bring their own input. After an error `*out` is
/// cleared but for its struct_size; where that is wrong, it is left alone.
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
            let group = group_of(&handle.model, group)?;
            let span = group.data().member(PARTS[index(part as u64, PARTS.len(), "part")?]);
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

/// Describes a tensor. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
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
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let handle = handle(model)?;
            let info = tensor_of(&handle.model, tensor)?;
            let mut value = df11_tensor_info {
                struct_size: 0,
                name: handle.tensor_names[info.number()].as_ptr(),
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
            match info.values() {
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
    unsafe { find(model, name, out, error, "group", |model, name| model.find_group(name).map(Group::number)) }
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
    unsafe { find(model, name, out, error, "tensor", |model, name| model.find_tensor(name).map(Tensor::number)) }
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
            let name = CStr::from_ptr(name);
            // What is not UTF-8 is no tensor's name.
            match name.to_str().ok().and_then(|name| search(&handle.model, name)) {
                Some(number) => *out = number as u64,
                None => {
                    let name = shorten(&name.to_string_lossy(), 200);
                    return Err(Error::NotFound(format!("the model has no {what} named '{name}'")));
                }
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

/// Returns the group of a number.
pub(super) fn group_of(model: &Model, number: u64) -> Result<Group<'_>> {
    let number = index(number, model.groups().len(), "group")?;
    model.group(number).ok_or_else(|| Error::Internal("a group that is not there".into()))
}

/// Returns the tensor of a number.
pub(super) fn tensor_of(model: &Model, number: u64) -> Result<Tensor<'_>> {
    let number = index(number, model.tensors().len(), "tensor")?;
    model.tensor(number).ok_or_else(|| Error::Internal("a tensor that is not there".into()))
}

/// Checks a number against how many there are.
fn index(number: u64, count: usize, what: &str) -> Result<usize> {
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

/// A text of the caller's, copied; `None` for NULL.
///
/// # Safety
///
/// `text` is NULL or ended by a zero byte.
pub(super) unsafe fn text_of(text: *const c_char, what: &str) -> Result<Option<String>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    match unsafe { CStr::from_ptr(text) }.to_str() {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Error::InvalidArgument(format!("{what} is not UTF-8"))),
    }
}

/// A text for the caller. Names with zero bytes were refused when their model was opened, and no other text has any.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// A path as C takes it: what [`path_of`] was given.
fn bytes_of(path: &Path) -> Cow<'_, [u8]> {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).into();
    #[cfg(not(unix))]
    path.display().to_string().into_bytes().into()
}

/// A path of the caller's, on Unix of any bytes.
///
/// # Safety
///
/// `path` is NULL or ended by a zero byte, and lives as long as the result.
pub(super) unsafe fn path_of<'a>(path: *const c_char) -> Result<&'a Path> {
    if path.is_null() {
        return Err(Error::InvalidArgument("the path is NULL".into()));
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(path) };
    #[cfg(unix)]
    return Ok(Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(text.to_bytes())));
    #[cfg(not(unix))]
    text.to_str().map(Path::new).map_err(|_| Error::InvalidArgument("the path is not UTF-8".into()))
}
