//! Whole models in another form: decompressed, or packed into other files.

use super::args::{Info, List, Text};
use super::frame::call;
use super::model::OpenTexts;
use super::progress::{self, df11_progress, df11_progress_fn};
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::writer::{self, DecompressOptions, Layout, RepackOptions};
use std::ffi::{c_char, c_void};

/// Write tensors whose shapes are not known to a folder with one dimension. Without it they are an
/// error. In a single file they have one dimension in any case. df11_decompress_options.shapes_from
/// makes them known.
pub const DF11_DECOMPRESS_FLAT: u32 = 1;
/// Return DF11_EXISTS instead of replacing a single file `dst`. Without it the file is replaced. A
/// folder `dst` that is not empty is never written to, with or without it.
pub const DF11_DECOMPRESS_KEEP_EXISTING: u32 = 2;
/// Accept a model whose config names a version of the compressor that this library does not know.
pub const DF11_DECOMPRESS_ANY_VERSION: u32 = 4;
/// Decompress what is there of a model that lacks files, tensors or layers. Without it such a model
/// is refused; one of which some tensors or groups are chosen never is.
pub const DF11_DECOMPRESS_INCOMPLETE: u32 = 8;

/// The result of decompressing a model in numbers. Begin with DF11_DECOMPRESS_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_decompress_report {
    /// sizeof(df11_decompress_report)
    pub struct_size: usize,
    /// Tensors that were written.
    pub tensor_count: u64,
    /// Those of them that have one dimension because their shapes are not known.
    pub flat_count: u64,
    /// Files of tensors.
    pub file_count: u64,
    /// Bytes of these files.
    pub written_bytes: u64,
    /// Heads that are not stored, because they are tied to the embedding and equal to it.
    pub dropped_count: u64,
    /// Keys of the config.json that was written, without dfloat11_config; 0 if there is none.
    /// Published models of diffusers have one, model_type: programs that load such a model need the
    /// config.json of the original.
    pub config_key_count: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all are numbers.
unsafe impl Sizeable for df11_decompress_report {
    const NAME: &'static str = "df11_decompress_report";
    const FIRST: usize = 56;
}

/// How to decompress a model. Begin with DF11_DECOMPRESS_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_decompress_options {
    /// sizeof(df11_decompress_options)
    pub struct_size: usize,
    /// Threads that work, the calling one among them; 0 means 1, and more than 128 do not help. One
    /// more writes files. They end before the call returns, and each works in some 3 MiB of memory.
    pub threads: u32,
    /// DF11_DECOMPRESS_* joined by |
    pub flags: u32,
    /// The most bytes of the tensors of one file in a folder; 0 means 5 000 000 000. A tensor that
    /// is larger has a file of its own.
    pub shard_bytes: u64,
    /// NULL, or the text of a config.json for the model; see df11_open_options.
    pub config_json: *const c_char,
    /// NULL, or the path of a folder or file that has the shapes which the model's files do not say;
    /// see df11_open_options.
    pub shapes_from: *const c_char,
    /// NULL, or the same as a JSON text; see df11_open_options.
    pub shapes_json: *const c_char,
    /// The names of `tensor_count` tensors that are written. If that and `group_count` are 0, all
    /// are.
    pub tensors: *const *const c_char,
    /// The number of `tensors`.
    pub tensor_count: usize,
    /// The names of `group_count` groups whose tensors are written.
    pub groups: *const *const c_char,
    /// The number of `groups`.
    pub group_count: usize,
    /// NULL, or a progress that counts and can cancel the call.
    pub progress: *mut df11_progress,
    /// NULL, or a callback that is told of the progress. It may be given together with `progress`.
    pub callback: df11_progress_fn,
    /// The `user` of `callback`.
    pub callback_user: *mut c_void,
    /// NULL, or where to write the numbers.
    pub report: *mut df11_decompress_report,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callbacks.
unsafe impl Sizeable for df11_decompress_options {
    const NAME: &'static str = "df11_decompress_options";
    const FIRST: usize = 112;
}

/// Write one file: `dst`, if it ends in .safetensors, else model.safetensors
/// (diffusion_pytorch_model.safetensors for diffusers) in the folder `dst`.
pub const DF11_REPACK_SINGLE_FILE: u32 = 1;
/// Write a folder of one file per group, even if `dst` ends in .safetensors. With neither of the
/// two, `dst` is one file if it ends so, else such a folder.
pub const DF11_REPACK_FOLDER: u32 = 2;
/// Return DF11_EXISTS instead of replacing a single file `dst` or its own config. Without it they
/// are replaced. A folder `dst` that is not empty is never written to, with or without it.
pub const DF11_REPACK_KEEP_EXISTING: u32 = 4;
/// Accept a model whose config names a version of the compressor that this library does not know.
pub const DF11_REPACK_ANY_VERSION: u32 = 8;
/// Repack what is there of a model that lacks files, tensors or layers. Without it such a model is
/// refused.
pub const DF11_REPACK_INCOMPLETE: u32 = 16;

/// The result of repacking a model in numbers. Begin with DF11_REPACK_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_repack_report {
    /// sizeof(df11_repack_report)
    pub struct_size: usize,
    /// Groups that were copied.
    pub group_count: u64,
    /// Tensors in no group that were copied.
    pub plain_count: u64,
    /// Files of tensors.
    pub file_count: u64,
    /// Bytes of these files.
    pub written_bytes: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all are numbers.
unsafe impl Sizeable for df11_repack_report {
    const NAME: &'static str = "df11_repack_report";
    const FIRST: usize = 40;
}

/// How to repack a model. Begin with DF11_REPACK_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_repack_options {
    /// sizeof(df11_repack_options)
    pub struct_size: usize,
    /// Threads that work, the calling one among them; 0 means 1. One more writes files. They end
    /// before the call returns.
    pub threads: u32,
    /// DF11_REPACK_* joined by |
    pub flags: u32,
    /// NULL, or the text of a config.json for the model, which is written for it too; see
    /// df11_open_options.
    pub config_json: *const c_char,
    /// NULL, or the path of a folder or file that has the shapes which the model's files do not say;
    /// see df11_open_options. They are written, too.
    pub shapes_from: *const c_char,
    /// NULL, or the same as a JSON text; see df11_open_options.
    pub shapes_json: *const c_char,
    /// NULL, or a progress that counts and can cancel the call.
    pub progress: *mut df11_progress,
    /// NULL, or a callback that is told of the progress. It may be given together with `progress`.
    pub callback: df11_progress_fn,
    /// The `user` of `callback`.
    pub callback_user: *mut c_void,
    /// NULL, or where to write the numbers.
    pub report: *mut df11_repack_report,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callbacks.
unsafe impl Sizeable for df11_repack_options {
    const NAME: &'static str = "df11_repack_options";
    const FIRST: usize = 72;
}

const _: () = {
    assert!(size_of::<df11_decompress_report>() == 56 && size_of::<df11_decompress_options>() == 112);
    assert!(size_of::<df11_repack_report>() == 40 && size_of::<df11_repack_options>() == 72);
    // What the comment of `shard_bytes` says.
    assert!(writer::DEFAULT_SHARD_BYTES == 5_000_000_000);
};

/// Decompresses a model to plain safetensors, bit for bit. `src` is a model, a folder or a file;
/// nothing of it is changed. If `dst` ends in .safetensors, it becomes one file of all tensors.
/// An existing file is replaced when everything is done and not before. Otherwise it becomes a
/// folder as models are published, which is new or empty: files of tensors, in shards with an
/// index if there is more than one, config.json without dfloat11_config, and all other files of
/// the folder `src`. A head that is tied to the embedding and equal to it is not stored, as in
/// the original.
///
/// `options` may be NULL. Tensors are processed a piece at a time and are never in memory whole.
/// df11_model_open() refuses the folder until all of it is there, and config.json comes last. A
/// failure leaves nothing; what a killed process has left is removed by the next call for the same
/// `dst`.
///
/// Errors: DF11_EXISTS for a folder that is not empty, and with DF11_DECOMPRESS_KEEP_EXISTING for a
/// file that exists; DF11_BUSY for a `dst` that another call writes to; DF11_NOT_FOUND for the name
/// of a tensor or group that is not there; DF11_INVALID_ARGUMENT for shapes that are not known
/// without DF11_DECOMPRESS_FLAT, and for a `dst` that is part of `src` or of an unfinished
/// compression; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for the model, the
/// first also for one that lacks something without DF11_DECOMPRESS_INCOMPLETE;
/// DF11_UNSUPPORTED_OPTION, DF11_IO, DF11_CANCELLED, DF11_OUT_OF_MEMORY. After all of them the
/// report is all zeros.
///
/// # Safety
///
/// The progress and the callback of the options can be used, the latter with its `user`, until the
/// call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_decompress_model(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_decompress_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, those in the options too.
    unsafe {
        call(error, || {
            let (src, dst) = (Text::new(src, "the path"), Text::new(dst, "the path"));
            decompress(src, dst, DecompressArgs::new(options)?)
        })
    }
}

/// Writes a compressed model in other files, placed as df11_compress_model() places them: a folder
/// as one file, and back. Nothing is decoded: groups and plain tensors keep their bytes, and shapes,
/// hashes and names that the files' metadata has are kept. config.json is copied: next to a single
/// file, or to a folder with all other files of the folder `src`. Nothing of `src` is changed.
///
/// `options` may be NULL. `dst` appears when it is complete, and is undone after a failure, as by
/// df11_decompress_model().
///
/// Errors: DF11_EXISTS for a folder that is not empty, and with DF11_REPACK_KEEP_EXISTING for a file
/// that exists; DF11_BUSY for a `dst` that another call writes to; DF11_INVALID_ARGUMENT for a model
/// that is not compressed, and for a `dst` that is part of `src` or of an unfinished compression;
/// DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for the model, the first also for
/// one that lacks something without DF11_REPACK_INCOMPLETE; DF11_UNSUPPORTED_OPTION, DF11_IO,
/// DF11_CANCELLED, DF11_OUT_OF_MEMORY. After all of them the report is all zeros.
///
/// # Safety
///
/// The progress and the callback of the options can be used, the latter with its `user`, until the
/// call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_repack_model(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_repack_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, those in the options too.
    unsafe {
        call(error, || {
            let (src, dst) = (Text::new(src, "the path"), Text::new(dst, "the path"));
            repack(src, dst, RepackArgs::new(options)?)
        })
    }
}

/// What df11_decompress_options says.
struct DecompressArgs<'a> {
    given: *const df11_decompress_options,
    known: df11_decompress_options,
    open: OpenTexts<'a>,
    tensors: Vec<Text<'a>>,
    groups: Vec<Text<'a>>,
    progress: Progress,
    report: Info<'a, df11_decompress_report>,
}

impl DecompressArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose pointers are as described, during `'a`.
    unsafe fn new(options: *const df11_decompress_options) -> Result<Self> {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size. All zeros are the defaults.
        let known = unsafe { structs::read_known(options)?.unwrap_or_else(|| std::mem::zeroed()) };
        // SAFETY: C caller: the struct's pointers are NULL or as described.
        let (open, tensors, groups, progress, report) = unsafe {
            (
                OpenTexts::new(
                    [known.config_json, known.shapes_from, known.shapes_json],
                    [
                        "df11_decompress_options.config_json",
                        "df11_decompress_options.shapes_from",
                        "df11_decompress_options.shapes_json",
                    ],
                ),
                texts(known.tensors, known.tensor_count, "df11_decompress_options.tensors")?,
                texts(known.groups, known.group_count, "df11_decompress_options.groups")?,
                progress::of(known.progress, known.callback, known.callback_user),
                Info::new(known.report),
            )
        };
        Ok(DecompressArgs { given: options, known, open, tensors, groups, progress, report })
    }

    fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its struct_size.
        unsafe { structs::refuse_unknown(self.given) }
    }
}

/// Returns the texts of a list.
///
/// # Safety
///
/// `at` is NULL, or `count` texts can be read there during `'a`, each of which is NULL or ends in a zero byte.
unsafe fn texts<'a>(at: *const *const c_char, count: usize, what: &'static str) -> Result<Vec<Text<'a>>> {
    // SAFETY: C caller: `at` is NULL or has `count` texts.
    let list = unsafe { List::new(at, count, what) }.get()?;
    // SAFETY: C caller: each is NULL or a C string.
    Ok(list.iter().map(|&text| unsafe { Text::new(text, what) }).collect())
}

/// Copies texts, none of which may be NULL.
fn names(texts: &[Text]) -> Result<Vec<String>> {
    texts.iter().map(|text| text.get().and(text.copy()).map(Option::unwrap_or_default)).collect()
}

fn decompress(src: Text, dst: Text, args: DecompressArgs) -> Result<()> {
    // The handle may still hold what an earlier call counted, even if this call's arguments are refused.
    args.progress.reset();
    if !args.report.is_null() {
        args.report.clear()?;
    }
    args.refuse_unknown()?;
    let (src, dst, known) = (src.path()?, dst.path()?, &args.known);
    let flags =
        DF11_DECOMPRESS_FLAT | DF11_DECOMPRESS_KEEP_EXISTING | DF11_DECOMPRESS_ANY_VERSION | DF11_DECOMPRESS_INCOMPLETE;
    structs::check_flags::<df11_decompress_options>(known.flags, flags)?;
    let options = DecompressOptions {
        threads: known.threads as usize,
        open: args.open.options(known.flags & DF11_DECOMPRESS_ANY_VERSION != 0)?,
        tensors: names(&args.tensors)?,
        groups: names(&args.groups)?,
        shard_bytes: known.shard_bytes,
        flat: known.flags & DF11_DECOMPRESS_FLAT != 0,
        keep_existing: known.flags & DF11_DECOMPRESS_KEEP_EXISTING != 0,
        incomplete: known.flags & DF11_DECOMPRESS_INCOMPLETE != 0,
    };
    let report = writer::decompress(src, dst, &options, &args.progress)?;
    if !args.report.is_null() {
        args.report.set(&df11_decompress_report {
            struct_size: size_of::<df11_decompress_report>(),
            tensor_count: report.tensors,
            flat_count: report.flat,
            file_count: report.files,
            written_bytes: report.written_bytes,
            dropped_count: report.dropped.len() as u64,
            config_key_count: report.config_keys,
        })?;
    }
    Ok(())
}

/// What df11_repack_options says.
struct RepackArgs<'a> {
    given: *const df11_repack_options,
    known: df11_repack_options,
    open: OpenTexts<'a>,
    progress: Progress,
    report: Info<'a, df11_repack_report>,
}

impl RepackArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose pointers are as described, during `'a`.
    unsafe fn new(options: *const df11_repack_options) -> Result<Self> {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size. All zeros are the defaults.
        let known = unsafe { structs::read_known(options)?.unwrap_or_else(|| std::mem::zeroed()) };
        // SAFETY: C caller: the struct's pointers are NULL or as described.
        let (open, progress, report) = unsafe {
            (
                OpenTexts::new(
                    [known.config_json, known.shapes_from, known.shapes_json],
                    [
                        "df11_repack_options.config_json",
                        "df11_repack_options.shapes_from",
                        "df11_repack_options.shapes_json",
                    ],
                ),
                progress::of(known.progress, known.callback, known.callback_user),
                Info::new(known.report),
            )
        };
        Ok(RepackArgs { given: options, known, open, progress, report })
    }

    fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its struct_size.
        unsafe { structs::refuse_unknown(self.given) }
    }
}

fn repack(src: Text, dst: Text, args: RepackArgs) -> Result<()> {
    args.progress.reset();
    if !args.report.is_null() {
        args.report.clear()?;
    }
    args.refuse_unknown()?;
    let (src, dst, known) = (src.path()?, dst.path()?, &args.known);
    let flags = DF11_REPACK_SINGLE_FILE
        | DF11_REPACK_FOLDER
        | DF11_REPACK_KEEP_EXISTING
        | DF11_REPACK_ANY_VERSION
        | DF11_REPACK_INCOMPLETE;
    structs::check_flags::<df11_repack_options>(known.flags, flags)?;
    let has = |flag| known.flags & flag != 0;
    let options = RepackOptions {
        threads: known.threads as usize,
        open: args.open.options(has(DF11_REPACK_ANY_VERSION))?,
        layout: match (has(DF11_REPACK_SINGLE_FILE), has(DF11_REPACK_FOLDER)) {
            (true, true) => {
                let reason = "DF11_REPACK_SINGLE_FILE and DF11_REPACK_FOLDER exclude each other";
                return Err(Error::InvalidArgument(reason.into()));
            }
            (true, false) => Layout::SingleFile,
            (false, true) => Layout::Folder,
            (false, false) => Layout::ByName,
        },
        keep_existing: has(DF11_REPACK_KEEP_EXISTING),
        incomplete: has(DF11_REPACK_INCOMPLETE),
    };
    let report = writer::repack(src, dst, &options, &args.progress)?;
    if !args.report.is_null() {
        args.report.set(&df11_repack_report {
            struct_size: size_of::<df11_repack_report>(),
            group_count: report.groups,
            plain_count: report.plain,
            file_count: report.files,
            written_bytes: report.written_bytes,
        })?;
    }
    Ok(())
}
