//! Writing whole models.

use super::args::{Info, Text};
use super::frame::call;
use super::model::c_text;
use super::preset::static_name;
use super::progress::{self, df11_progress, df11_progress_fn};
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::writer::plan::Patterns;
use crate::writer::{self, CompressOptions, Layout, LeftPlain, Part, PlainReason, Report, SideFile};
use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr;

/// Do not decode each group from its file to compare it before the file gets its name.
pub const DF11_COMPRESS_NO_VERIFY: u32 = 1;
/// Resume what an interrupted run of the same source and options has left; begin, if there is
/// nothing. The bytes are those of a run without an interruption. If nothing of a model is missing,
/// every bit is compared with the source, and what belongs to it (config.json, tokenizers) is
/// written if it is not there; if it was changed, that is an error.
pub const DF11_COMPRESS_RESUME: u32 = 2;
/// Make it an error (DF11_UNSUPPORTED_FORMAT) if something that the patterns ask for cannot be
/// compressed. Without it such a group's tensors stay plain, and df11_left_fn is called.
pub const DF11_COMPRESS_STRICT: u32 = 4;
/// Write the SHA-256 of every tensor to the files' metadata under "df11.sha256", for
/// df11_verify_model(). The reference compressor writes none.
pub const DF11_COMPRESS_HASHES: u32 = 8;
/// Write the shapes of compressed tensors to the files' metadata under "df11.shapes", for
/// df11_tensor_info. The reference compressor writes none. For automatic groups, which no other
/// program writes, they are always written.
pub const DF11_COMPRESS_SHAPES: u32 = 16;
/// Write one file: `dst`, if it ends in .safetensors, else model.safetensors
/// (diffusion_pytorch_model.safetensors for diffusers) in the folder `dst`.
pub const DF11_COMPRESS_SINGLE_FILE: u32 = 32;
/// Write a folder of one file per group, even if `dst` ends in .safetensors. With neither of the
/// two, `dst` is one file if it ends so, else such a folder.
pub const DF11_COMPRESS_FOLDER: u32 = 64;
/// Return DF11_EXISTS instead of replacing a single file `dst` or its own config. Without it they
/// are replaced. A folder `dst` that is not empty is never written to, with or without it.
pub const DF11_COMPRESS_KEEP_EXISTING: u32 = 128;
/// Write a plain copy of a source of which nothing can be compressed. Without it that is an error
/// (DF11_UNSUPPORTED_FORMAT), and nothing is written.
pub const DF11_COMPRESS_ALLOW_PLAIN: u32 = 256;
/// Compress a source that lacks files, tensors or layers, as a download that was interrupted
/// leaves it. Without it that is an error (DF11_INVALID_FORMAT). What is absent is noted in
/// config.json, and df11_verify_model() does not report it.
pub const DF11_COMPRESS_INCOMPLETE: u32 = 512;

/// Leave plain what the reference's format cannot name or hold: experts in one tensor whose name
/// does not end in .weight, and tensors of 2^32 weights. Without it, and with neither a preset nor a
/// pattern_json, they become groups by an extension of the format that only this library reads; see
/// df11_group_info.extended.
pub const DF11_COMPRESS_REFERENCE_ONLY: u32 = 1024;

const FLAGS: u32 = DF11_COMPRESS_NO_VERIFY
    | DF11_COMPRESS_RESUME
    | DF11_COMPRESS_STRICT
    | DF11_COMPRESS_HASHES
    | DF11_COMPRESS_SHAPES
    | DF11_COMPRESS_SINGLE_FILE
    | DF11_COMPRESS_FOLDER
    | DF11_COMPRESS_KEEP_EXISTING
    | DF11_COMPRESS_ALLOW_PLAIN
    | DF11_COMPRESS_INCOMPLETE
    | DF11_COMPRESS_REFERENCE_ONLY;

/// Called for each tensor that the patterns ask for and that stays as it was: `user` as given, the
/// tensor's name, the name of the group that it would have been in (which stays plain as a whole),
/// and the reason. All texts are UTF-8, end in a zero byte and are valid during the call only;
/// escape them before you print them. It runs on the thread that called df11_compress_model() or
/// df11_merge_model(), after the work, and must not unwind.
pub type df11_left_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, tensor: *const c_char, group: *const c_char, reason: *const c_char)>;

/// The result of a run in numbers. Begin with DF11_COMPRESS_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_compress_report {
    /// sizeof(df11_compress_report)
    pub struct_size: usize,
    /// Groups in the files that there are now; of a part, those of the part.
    pub groups: u64,
    /// Weights in them.
    pub weights: u64,
    /// Bytes of those weights before, 2 each.
    pub weight_bytes: u64,
    /// Bytes of the groups' six members.
    pub packed_bytes: u64,
    /// Bytes of all tensors of the source.
    pub source_bytes: u64,
    /// Bytes of the .safetensors files that there are now; of a part, those of the part.
    pub written_bytes: u64,
    /// Groups that an earlier run had written.
    pub resumed: u64,
    /// Tensors that stay plain although the patterns ask for them: as many as df11_left_fn is called
    /// for.
    pub left_count: u64,
    /// Heads that are not stored, because they are tied to the embedding and equal to it.
    pub dropped_count: u64,
    /// Patterns that no module matches.
    pub unmatched_count: u64,
    /// 1 if the model is complete; 0 after a part, until df11_merge_model().
    pub complete: u64,
    /// The name of the preset that gave the groups, or "automatic"; NULL if it was a pattern_json.
    /// The text is static.
    pub preset: *const c_char,
    /// Bytes of all bf16 tensors of the source, without heads that are not stored. What of them is
    /// not in groups stays plain for one of the reasons below; each of those counts bf16 bytes.
    pub bf16_bytes: u64,
    /// Bytes of the bf16 tensors in groups, each counted once.
    pub grouped_bf16_bytes: u64,
    /// Bytes for which no pattern asks.
    pub unasked_bf16_bytes: u64,
    /// Bytes of tensors that are too small for a group to pay.
    pub small_bf16_bytes: u64,
    /// Bytes of tensors whose group has a tensor of another type.
    pub mixed_bf16_bytes: u64,
    /// Bytes of tensors whose group has an infinity, a NaN, or a magnitude of 2^113 and more.
    pub unfit_bf16_bytes: u64,
    /// Bytes of tensors that the reference's format cannot name or hold.
    pub unnamed_bf16_bytes: u64,
    /// Files beside the source's weights that were copied: tokenizers, code, licences.
    pub carried_count: u64,
    /// Bytes of those files.
    pub carried_bytes: u64,
    /// Files beside the source's weights that were not copied: weights in other formats, states of a
    /// training, downloads that have not ended.
    pub left_behind_count: u64,
    /// Bytes of those files.
    pub left_behind_bytes: u64,
    /// Things that the source lacks, with DF11_COMPRESS_INCOMPLETE, and those that config.json
    /// speaks of and that cannot have got lost.
    pub missing_count: u64,
    /// Those of the groups that are an extension of the format: programs that know only DF11 do not
    /// find their weights.
    pub extended_groups: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all zeros are numbers and a NULL text.
unsafe impl Sizeable for df11_compress_report {
    const NAME: &'static str = "df11_compress_report";
    const FIRST: usize = 208;
}

/// How to compress. Begin with DF11_COMPRESS_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_compress_options {
    /// sizeof(df11_compress_options)
    pub struct_size: usize,
    /// Threads that work, the calling one among them; 0 means 1. One more writes files. They end
    /// before the call returns, and the bytes written do not depend on their number.
    pub threads: u32,
    /// DF11_COMPRESS_* joined by |
    pub flags: u32,
    /// The most bytes of memory to work in, 5 MiB for each thread; 0 means 512 MiB. Fewer threads
    /// work if it is not enough, and one always does. The memory of headers and of lists of tensors
    /// comes on top.
    pub memory_bytes: u64,
    /// NULL, or the name of a preset: the groups of a published model, see df11_preset_get_info().
    /// "automatic" names the groups that are made from the table of tensors alone.
    pub preset: *const c_char,
    /// NULL, or the groups: the JSON text of a pattern_dict, or of a config.json that has one in its
    /// dfloat11_config. It excludes `preset`. With neither, a preset is chosen by the source's
    /// config.json and its tensors, or automatic groups if they cover clearly more of the model.
    pub pattern_json: *const c_char,
    /// The part of the groups to write, 1 to `part_count`: other processes or machines write the
    /// others to the same folder, with the same options, and then one calls df11_merge_model().
    pub part: u32,
    /// The number of parts, at most 100000. 0 and 0 mean the whole model, as 1 and 1 do.
    pub part_count: u32,
    /// NULL, or a progress that counts and can cancel the call.
    pub progress: *mut df11_progress,
    /// NULL, or a callback that is told of the progress. It may be given together with `progress`.
    pub callback: df11_progress_fn,
    /// The `user` of `callback`.
    pub callback_user: *mut c_void,
    /// NULL, or a callback that is told of tensors that stay plain.
    pub left: df11_left_fn,
    /// The `user` of `left`.
    pub left_user: *mut c_void,
    /// NULL, or where to write the numbers.
    pub report: *mut df11_compress_report,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callbacks.
unsafe impl Sizeable for df11_compress_options {
    const NAME: &'static str = "df11_compress_options";
    const FIRST: usize = 96;
}

const _: () = {
    assert!(size_of::<df11_compress_report>() == 208 && size_of::<df11_compress_options>() == 96);
    // What the comment of `memory_bytes` says.
    assert!(writer::DEFAULT_MEMORY == 512 << 20);
};

/// Compresses a model. `src` is a folder in Hugging Face layout, of any number of .safetensors
/// files, or one such file. `dst` is a new or empty folder, or a file, which is replaced when
/// everything is done and not before. Nothing of the source is changed, and every byte of a group
/// is as the reference compressor (dfloat11 0.5.0) writes it.
///
/// A folder gets one file per group, a file for the rest, the source's config.json with
/// dfloat11_config in it, and the source's other files, except weights in other formats, states of a
/// training, and downloads that have not ended. A single file gets its config.json next to
/// it. `options` may be NULL. Groups are processed a piece at a time and are never in memory as a
/// whole. Files get their names when they are complete and, unless told otherwise, verified.
///
/// df11_model_open() does not take what a run that fails or is cancelled leaves for a model. If such
/// a run has completed something, DF11_COMPRESS_RESUME resumes it. While a run works, any other run
/// to the same place is refused with DF11_BUSY (except for other parts), if the file system can lock
/// files.
///
/// Errors: DF11_EXISTS for a folder that is not empty, and with DF11_COMPRESS_KEEP_EXISTING for a
/// file that exists; DF11_UNFINISHED for a `dst` that an earlier run has left unfinished;
/// DF11_BUSY for one that another run writes to; DF11_INVALID_ARGUMENT for one that was begun
/// with another source or other options, for what was changed in it, patterns that do not fit,
/// and a source that has no bf16 weights or is compressed already; DF11_NOT_FOUND (no such
/// preset); DF11_INVALID_FORMAT and DF11_CORRUPT for the source, and for a written group that
/// failed its verification; DF11_INVALID_FORMAT for a source that lacks something, too, unless
/// DF11_COMPRESS_INCOMPLETE is set; DF11_UNSUPPORTED_FORMAT if nothing can be compressed, unless
/// DF11_COMPRESS_ALLOW_PLAIN is set, and with DF11_COMPRESS_STRICT; DF11_UNSUPPORTED_OPTION,
/// DF11_IO, DF11_CANCELLED, DF11_OUT_OF_MEMORY. After all of them the report is all zeros, and
/// `left` is not called.
///
/// # Safety
///
/// The progress and the callbacks of the options can be used, each with its `user`, until the call
/// returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_compress_model(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_compress_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, those in the options too.
    unsafe {
        call(error, || {
            let (src, dst) = (Text::new(src, "the path"), Text::new(dst, "the path"));
            run(src, dst, CompressArgs::new(options)?, writer::compress)
        })
    }
}

/// Completes a folder whose parts are all finished: writes what belongs to no group, config.json and
/// the files that go with it, and checks that nothing is missing. `options` are those of the parts;
/// `part`, `part_count` and DF11_COMPRESS_RESUME do not matter. The report is the whole model's, and
/// `left` is called for what all parts have left.
///
/// The source must be the same for all parts. Its headers, sizes and samples of its bytes are
/// compared with those that the parts saw; df11_verify_model() with the original compares every bit.
///
/// Errors: as for df11_compress_model(); DF11_INVALID_ARGUMENT if a part is not finished or `dst`
/// was not begun.
///
/// # Safety
///
/// What df11_compress_model() requires.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_merge_model(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_compress_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, those in the options too.
    unsafe {
        call(error, || {
            let (src, dst) = (Text::new(src, "the path"), Text::new(dst, "the path"));
            run(src, dst, CompressArgs::new(options)?, writer::merge)
        })
    }
}

/// What df11_compress_options says.
struct CompressArgs<'a> {
    given: *const df11_compress_options,
    known: df11_compress_options,
    preset: Text<'a>,
    pattern_json: Text<'a>,
    progress: Progress,
    left: Left,
    report: Info<'a, df11_compress_report>,
}

impl CompressArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose pointers are as described, during `'a`.
    unsafe fn new(options: *const df11_compress_options) -> Result<Self> {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size. All zeros are the defaults.
        let known = unsafe { structs::read_known(options)?.unwrap_or_else(|| std::mem::zeroed()) };
        // SAFETY: C caller: the struct's pointers are NULL or as described.
        let (preset, pattern_json, progress, report) = unsafe {
            (
                Text::new(known.preset, "df11_compress_options.preset"),
                Text::new(known.pattern_json, "df11_compress_options.pattern_json"),
                progress::of(known.progress, known.callback, known.callback_user),
                Info::new(known.report),
            )
        };
        let left = Left { function: known.left, user: known.left_user };
        Ok(CompressArgs { given: options, known, preset, pattern_json, progress, left, report })
    }

    fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its struct_size.
        unsafe { structs::refuse_unknown(self.given) }
    }

    /// Returns what the writer is told to do.
    fn settings(&self) -> Result<CompressOptions> {
        let options = &self.known;
        structs::check_flags::<df11_compress_options>(options.flags, FLAGS)?;
        let has = |flag| options.flags & flag != 0;
        let layout = match (has(DF11_COMPRESS_SINGLE_FILE), has(DF11_COMPRESS_FOLDER)) {
            (true, true) => {
                let reason = "DF11_COMPRESS_SINGLE_FILE and DF11_COMPRESS_FOLDER exclude each other";
                return Err(Error::InvalidArgument(reason.into()));
            }
            (true, false) => Layout::SingleFile,
            (false, true) => Layout::Folder,
            (false, false) => Layout::ByName,
        };
        let parse = |text: String| {
            Patterns::parse(&text)
                .map_err(|e| Error::InvalidArgument(format!("df11_compress_options.pattern_json: {e}")))
        };
        Ok(CompressOptions {
            threads: options.threads as usize,
            memory: options.memory_bytes,
            preset: self.preset.copy()?,
            patterns: self.pattern_json.copy()?.map(parse).transpose()?,
            layout,
            part: match (options.part, options.part_count) {
                (0, 0) => Part::WHOLE,
                (number, count) => Part { number, count },
            },
            resume: has(DF11_COMPRESS_RESUME),
            keep_existing: has(DF11_COMPRESS_KEEP_EXISTING),
            verify: !has(DF11_COMPRESS_NO_VERIFY),
            strict: has(DF11_COMPRESS_STRICT),
            allow_plain: has(DF11_COMPRESS_ALLOW_PLAIN),
            incomplete: has(DF11_COMPRESS_INCOMPLETE),
            hashes: has(DF11_COMPRESS_HASHES),
            shapes: has(DF11_COMPRESS_SHAPES),
            reference_only: has(DF11_COMPRESS_REFERENCE_ONLY),
            run_sizes: writer::RunSizes::default(),
        })
    }
}

fn run(
    src: Text,
    dst: Text,
    args: CompressArgs,
    work: impl FnOnce(&Path, &Path, &CompressOptions, &Progress) -> Result<Report>,
) -> Result<()> {
    // The handle may still hold what an earlier call counted, even if this call's arguments are refused.
    args.progress.reset();
    if !args.report.is_null() {
        args.report.clear()?;
    }
    args.refuse_unknown()?;
    let (src, dst) = (src.path()?, dst.path()?);
    let report = work(src, dst, &args.settings()?, &args.progress)?;
    args.left.tell(&report.left);
    if !args.report.is_null() {
        args.report.set(&report_of(&report)?)?;
    }
    Ok(())
}

/// The callback for tensors that stay plain, and its `user`.
pub(super) struct Left {
    pub function: df11_left_fn,
    pub user: *mut c_void,
}

impl Left {
    pub fn tell(&self, left: &[LeftPlain]) {
        let Some(function) = self.function else { return };
        for left in left {
            let [tensor, group, reason] = [&left.tensor, &left.group, &left.reason].map(|text| c_text(text));
            // SAFETY: C caller: the callback and its `user` are valid during the call. The texts live until it returns.
            unsafe { function(self.user, tensor.as_ptr(), group.as_ptr(), reason.as_ptr()) };
        }
    }
}

fn report_of(report: &Report) -> Result<df11_compress_report> {
    let plain = |reason| report.coverage.plain.iter().find(|p| p.reason == reason).map_or(0, |p| p.bf16_bytes);
    let sum = |files: &[SideFile]| files.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
    let preset = report.preset.as_deref().map(static_name).transpose()?.flatten();
    Ok(df11_compress_report {
        struct_size: size_of::<df11_compress_report>(),
        groups: report.groups,
        weights: report.weights,
        weight_bytes: report.weight_bytes,
        packed_bytes: report.packed_bytes,
        source_bytes: report.source_bytes,
        written_bytes: report.written_bytes,
        resumed: report.resumed,
        left_count: report.left.len() as u64,
        dropped_count: report.dropped.len() as u64,
        unmatched_count: report.unmatched_patterns.len() as u64,
        complete: report.complete.into(),
        preset: preset.map_or(ptr::null(), |name| name.as_ptr()),
        bf16_bytes: report.coverage.bf16_bytes,
        grouped_bf16_bytes: report.coverage.grouped_bf16_bytes,
        unasked_bf16_bytes: plain(PlainReason::NotAskedFor),
        small_bf16_bytes: plain(PlainReason::TooSmall),
        mixed_bf16_bytes: plain(PlainReason::OtherType),
        unfit_bf16_bytes: plain(PlainReason::Values),
        unnamed_bf16_bytes: plain(PlainReason::Format),
        carried_count: report.carried.len() as u64,
        carried_bytes: sum(&report.carried),
        left_behind_count: report.left_behind.len() as u64,
        left_behind_bytes: sum(&report.left_behind),
        missing_count: report.missing.len() as u64,
        extended_groups: report.extended_groups,
    })
}
