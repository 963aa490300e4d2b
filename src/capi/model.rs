//! Opening models.

use super::args::{Bytes, In, Out, Owned, Text};
use super::frame::{call, quietly};
use super::progress::{self, df11_progress};
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use crate::format::{Access, Group, Model, OpenOptions, Span, Tensor};
use crate::progress::Progress;
use std::borrow::Cow;
use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr;

/// Verify while opening: walk every code of every group, so that decoding is known to find no error.
/// This takes somewhat longer than decoding the model; see df11_open_options.threads.
pub const DF11_OPEN_VERIFY: u32 = 1;
/// Read the files piece by piece instead of mapping them. A mapped file that another process cuts
/// short ends this process with SIGBUS; a file that is read gives an error. `data` pointers are then
/// NULL. Files are opened when they are read; at most 128 are kept open, or a quarter of the soft
/// limit on descriptors, for all models together. A file that has another device, inode, size or
/// time when it is opened again is DF11_CORRUPT. Give this where mapping fails, too.
pub const DF11_OPEN_READ: u32 = 2;
/// Accept a version of the compressor that this library does not know.
pub const DF11_OPEN_ANY_VERSION: u32 = 4;
/// Leave shapes unknown that nobody says, even those that follow from the config and the plain
/// tensors with certainty (DF11_SHAPE_DERIVED).
pub const DF11_OPEN_NO_DERIVED_SHAPES: u32 = 8;

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
    /// NULL, or the text of a config.json to use instead of the model's own, in UTF-8 and ended by a
    /// zero byte. It is for a file that comes without one: the config's pattern_dict says what the
    /// tensors inside a group are called. It is read during the call only.
    pub config_json: *const c_char,
    /// NULL, or a progress that counts the bytes of DF11_OPEN_VERIFY (two for each weight) and can
    /// cancel the call at any time.
    pub progress: *mut df11_progress,
    /// NULL, or the path of a folder or file that has the shapes of tensors in groups which the
    /// model's files do not say: the original or other .safetensors files, of which only the headers
    /// are read and need be there, or a .json file of the kind that `shapes_json` is. Names that the
    /// model lacks are ignored. It is read during the call only.
    pub shapes_from: *const c_char,
    /// NULL, or the same as a text in UTF-8 that a zero byte ends: a JSON object from names of
    /// tensors to lists of dimensions, as {"lm_head.weight": [151936, 4096]}. It comes before
    /// `shapes_from`.
    pub shapes_json: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers.
unsafe impl Sizeable for df11_open_options {
    const NAME: &'static str = "df11_open_options";
    const FIRST: usize = 24;
}

const _: () = assert!(size_of::<df11_open_options>() == 48);

/// An open model. It never changes: any number of threads may use it at once.
pub struct df11_model {
    pub(super) model: Model,
    pub(super) group_names: Vec<CString>,
    pub(super) tensor_names: Vec<CString>,
    pub(super) files: Vec<CString>,
    /// The text of the config, and a zero byte.
    pub(super) config: Option<Box<[u8]>>,
}

impl df11_model {
    /// Returns the address of a span's bytes, or NULL if its file is not in memory.
    pub(super) fn data(&self, span: Span) -> *const c_void {
        self.model.bytes_of(span).map_or(ptr::null(), |bytes| bytes.as_ptr().cast())
    }
}

/// What messages call a model.
pub(super) const MODEL: &str = "the model";

/// Opens a model: a folder in Hugging Face layout, or one .safetensors file. Of a folder every
/// *.safetensors file is opened, whatever an index lists. The config is config.json in the folder or
/// next to the file; NAME.config.json next to NAME.safetensors comes before it. Headers, tables and
/// positions are read and checked, but no weights, so that this copies nothing and takes
/// milliseconds for the models that compressors write, and at most two seconds and 200 MB for any
/// files of less than 10 MB. A folder or file without compressed groups opens too, as a model of
/// plain tensors.
///
/// `path` is UTF-8 (on Unix any bytes) and ends in a zero byte. `options` may be NULL. On success
/// `*out` is the model, to be given to df11_model_free(); otherwise it is NULL.
///
/// Errors: DF11_IO; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for a file that
/// cannot be trusted; DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT, DF11_CANCELLED,
/// DF11_OUT_OF_MEMORY.
///
/// # Safety
///
/// The files do not change while the model is open, unless DF11_OPEN_READ is given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_open(
    path: *const c_char,
    options: *const df11_open_options,
    out: *mut *mut df11_model,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, and what is mapped does not change.
    unsafe {
        call(error, || {
            let path = Text::new(path, "the path");
            open(Out::new(out), OpenArgs::new(options), |options, access, progress| {
                Model::open_watched(path.path()?, options, access, progress)
            })
        })
    }
}

/// Opens the bytes of one .safetensors file that are in memory: `data_bytes` bytes at `data`. They
/// are not copied. There is no config.json next to them; see df11_open_options.config_json. All else
/// is as for df11_model_open().
///
/// # Safety
///
/// `data_bytes` bytes can be read at `data`, and do not change, until the model is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_open_memory(
    data: *const c_void,
    data_bytes: usize,
    options: *const df11_open_options,
    out: *mut *mut df11_model,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, and the data outlives the model.
    unsafe {
        call(error, || {
            let data = Bytes::<'static>::new(data, data_bytes, "the data");
            open(Out::new(out), OpenArgs::new(options), |options, _, progress| {
                Model::of_bytes(Box::new(data.get()?), options, progress)
            })
        })
    }
}

/// The three texts by which options say how a model is read: `config_json`, `shapes_from` and `shapes_json`.
pub(super) struct OpenTexts<'a> {
    config: Text<'a>,
    shapes_from: Text<'a>,
    shapes: Text<'a>,
}

impl OpenTexts<'_> {
    /// # Safety
    ///
    /// Each of `texts` is NULL or ends in a zero byte, and nobody changes it during `'a`.
    pub unsafe fn new(texts: [*const c_char; 3], names: [&'static str; 3]) -> Self {
        let [config, shapes_from, shapes] = texts;
        // SAFETY: C caller: each is NULL or a C string.
        unsafe {
            OpenTexts {
                config: Text::new(config, names[0]),
                shapes_from: Text::new(shapes_from, names[1]),
                shapes: Text::new(shapes, names[2]),
            }
        }
    }

    /// Returns how the model is opened.
    pub fn options(&self, any_version: bool) -> Result<OpenOptions> {
        Ok(OpenOptions {
            any_version,
            config: self.config.copy()?,
            shapes_from: match self.shapes_from.is_null() {
                true => None,
                false => Some(self.shapes_from.path()?.to_owned()),
            },
            shapes: self.shapes.copy()?,
            ..OpenOptions::default()
        })
    }
}

/// What df11_open_options says.
struct OpenArgs<'a> {
    given: *const df11_open_options,
    known: Result<Option<(df11_open_options, OpenTexts<'a>)>>,
    progress: Progress,
}

impl OpenArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose pointers are as described, during `'a`.
    unsafe fn new(options: *const df11_open_options) -> Self {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size.
        let known = unsafe { structs::read_known(options) };
        let read = known.as_ref().ok().copied().flatten();
        // SAFETY: C caller: the struct's pointers are NULL or as described.
        let (known, progress) = unsafe {
            let texts = |o: df11_open_options| {
                let texts = OpenTexts::new(
                    [o.config_json, o.shapes_from, o.shapes_json],
                    ["df11_open_options.config_json", "df11_open_options.shapes_from", "df11_open_options.shapes_json"],
                );
                (o, texts)
            };
            let handle = read.map_or(ptr::null(), |o| o.progress.cast_const());
            (known.map(|known| known.map(texts)), progress::of(handle, None, ptr::null_mut()))
        };
        OpenArgs { given: options, known, progress }
    }

    fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its struct_size.
        unsafe { structs::refuse_unknown(self.given) }
    }
}

fn open(
    out: Out<*mut df11_model>,
    args: OpenArgs,
    model: impl FnOnce(&OpenOptions, Access, &Progress) -> Result<Model>,
) -> Result<()> {
    let out = out.clear(ptr::null_mut())?;
    // The handle may still hold what an earlier call counted. How much there is to do is known from the headers.
    args.progress.begin(0);
    args.refuse_unknown()?;
    let OpenArgs { known, progress, .. } = args;
    let (mut options, mut access) = (OpenOptions::default(), Access::Map);
    if let Some((given, texts)) = known? {
        let flags = DF11_OPEN_VERIFY | DF11_OPEN_READ | DF11_OPEN_ANY_VERSION | DF11_OPEN_NO_DERIVED_SHAPES;
        structs::check_flags::<df11_open_options>(given.flags, flags)?;
        options = OpenOptions {
            verify: given.flags & DF11_OPEN_VERIFY != 0,
            threads: given.threads as usize,
            no_derived_shapes: given.flags & DF11_OPEN_NO_DERIVED_SHAPES != 0,
            ..texts.options(given.flags & DF11_OPEN_ANY_VERSION != 0)?
        };
        if given.flags & DF11_OPEN_READ != 0 {
            access = Access::Read;
        }
    }
    progress.check()?;
    let model = model(&options, access, &progress)?.verified(&options, &progress)?;
    // Names with zero bytes were refused when the model was opened; a path from a C text has none.
    let text = |s: &[u8]| CString::new(s).map_err(|_| Error::Internal("a name with a zero byte".into()));
    let ended = |text: &str| [text.as_bytes(), &[0]].concat().into_boxed_slice();
    out.give(df11_model {
        config: model.config_text().map(ended),
        group_names: model.groups().map(|g| text(g.name().as_bytes())).collect::<Result<_>>()?,
        tensor_names: model.tensors().map(|t| text(t.name().as_bytes())).collect::<Result<_>>()?,
        files: model.files().map(|f| text(&c_bytes(f.file))).collect::<Result<_>>()?,
        model,
    });
    Ok(())
}

/// Frees a model, from any thread. NULL is allowed. Its names, shapes and data go with it.
///
/// # Safety
///
/// No call uses `model` any more, and no upload without staging memory still copies from it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_free(model: *mut df11_model) {
    // SAFETY: C caller: `model` is NULL or is freed once, and nobody uses it any more.
    let model = unsafe { Owned::new(model) };
    quietly(|| model.free());
}

/// Returns the number of groups; 0 for NULL. Groups are numbered from 0 in the natural order of
/// their names.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_group_count(model: *const df11_model) -> u64 {
    // SAFETY: C caller: `model` is NULL or open.
    unsafe { In::new(model, MODEL) }.given().map_or(0, |m| m.model.groups().len() as u64)
}

/// Returns the number of tensors; 0 for NULL. Tensors are numbered from 0: those of group 0 in the
/// order of their weights, those of group 1, and so on, each by the first group that has a part of
/// it; then the plain ones.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_tensor_count(model: *const df11_model) -> u64 {
    // SAFETY: C caller: `model` is NULL or open.
    unsafe { In::new(model, MODEL) }.given().map_or(0, |m| m.model.tensors().len() as u64)
}

/// Returns the whole text of the config.json that the model was opened with, its own or the one in
/// df11_open_options; NULL if there is none, and for NULL. It ends in a zero byte, belongs to the
/// model, and has keys that this library does not read. `*text_bytes` is its size without the zero
/// byte, or 0; `text_bytes` may be NULL.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_config_text(model: *const df11_model, text_bytes: *mut u64) -> *const c_char {
    // SAFETY: C caller: `model` is NULL or open, `text_bytes` is NULL or writable.
    let (model, text_bytes) = unsafe { (In::new(model, MODEL), Out::new(text_bytes)) };
    let text = model.given().and_then(|m| m.config.as_deref());
    text_bytes.offer(text.map_or(0, |text| text.len() as u64 - 1));
    text.map_or(ptr::null(), |text| text.as_ptr().cast())
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

/// Checks a number against how many things there are.
pub(super) fn index(number: u64, count: usize, what: &str) -> Result<usize> {
    usize::try_from(number)
        .ok()
        .filter(|&n| n < count)
        .ok_or_else(|| Error::NotFound(format!("there is no {what} {number}: there are {count}")))
}

/// Returns a text for the caller. Names with zero bytes were refused when their model was opened, and no other text has
/// any.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// Returns a path as C takes it: the bytes that [`Text::path`] was given.
fn c_bytes(path: &Path) -> Cow<'_, [u8]> {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).into();
    #[cfg(not(unix))]
    path.display().to_string().into_bytes().into()
}
