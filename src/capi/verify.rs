//! Verifying whole models.

use super::args::{Info, Text};
use super::frame::call;
use super::model::{DF11_OPEN_ANY_VERSION, OpenTexts, c_text};
use super::progress::{self, df11_progress, df11_progress_fn};
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use crate::error::{Error, Place, Result};
use crate::format::{Access, Model};
use crate::host::{self, Finding, FindingKind, Verified, VerifyOptions};
use crate::progress::Progress;
use std::ffi::{c_char, c_void};

/// A group whose codes agree with its gaps and positions: nothing is wrong.
pub const DF11_FINDING_GOOD: u32 = 1;
/// A group whose codes do not.
pub const DF11_FINDING_BAD: u32 = 2;
/// A tensor whose hash is not the one in the file's metadata.
pub const DF11_FINDING_HASH: u32 = 3;
/// A tensor that differs from the original's, or that only one of the two models has.
pub const DF11_FINDING_DIFFERS: u32 = 4;
/// Something that a person should know, such as a tied lm_head that only one model has: nothing is
/// wrong.
pub const DF11_FINDING_NOTE: u32 = 5;

/// Something that the model lacks: the name is that of a file, a tensor or a layer, or of several
/// (`model.layers.3 to 5`).
pub const DF11_FINDING_MISSING: u32 = 6;

/// Accept a model that lacks files, tensors or layers: there are no DF11_FINDING_MISSING.
pub const DF11_VERIFY_INCOMPLETE: u32 = 256;
/// Accept a model that has no group, which nobody compressed, also without an original.
pub const DF11_VERIFY_ALLOW_PLAIN: u32 = 512;

const FLAGS: u32 = DF11_OPEN_ANY_VERSION | DF11_VERIFY_INCOMPLETE | DF11_VERIFY_ALLOW_PLAIN;

/// Called for each group, and for each tensor about which there is something to say: `user` as
/// given, DF11_FINDING_*, the name of the group or tensor, and one sentence about it. Both texts are
/// UTF-8, end in a zero byte and are valid during the call only; escape them before you print them.
/// Newer versions may have more kinds. It runs on the thread that called df11_verify_model(), and
/// must not unwind.
pub type df11_finding_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, kind: u32, name: *const c_char, text: *const c_char)>;

/// The result of a verification in numbers. Begin with DF11_VERIFY_REPORT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_verify_report {
    /// sizeof(df11_verify_report)
    pub struct_size: usize,
    /// Groups whose codes agree with their gaps and positions.
    pub groups_good: u64,
    /// Groups whose codes do not.
    pub groups_bad: u64,
    /// Codes in all groups, one for each weight.
    pub code_count: u64,
    /// Tensors whose hash is the one in the model's metadata.
    pub hashes_right: u64,
    /// Tensors that have another hash, or that cannot be decoded.
    pub hashes_wrong: u64,
    /// Tensors that equal the original's.
    pub tensors_equal: u64,
    /// Tensors that differ from the original's, or that only one of the two models has.
    pub tensors_different: u64,
    /// Files, tensors and layers that the model lacks, several in a row counted once.
    pub missing_count: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all are numbers.
unsafe impl Sizeable for df11_verify_report {
    const NAME: &'static str = "df11_verify_report";
    const FIRST: usize = 72;
}

/// How to verify. Begin with DF11_VERIFY_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_verify_options {
    /// sizeof(df11_verify_options)
    pub struct_size: usize,
    /// Threads to use, the calling one among them; 0 means 1. They end before the call returns.
    pub threads: u32,
    /// DF11_OPEN_ANY_VERSION, DF11_VERIFY_INCOMPLETE and DF11_VERIFY_ALLOW_PLAIN joined by |, or 0
    pub flags: u32,
    /// NULL, or the text of a config.json for the model; see df11_open_options.
    pub config_json: *const c_char,
    /// NULL, or the path of a folder or file that has the shapes which the model's files do not say;
    /// see df11_open_options. They are compared
    /// with the original's.
    pub shapes_from: *const c_char,
    /// NULL, or the same as a JSON text; see df11_open_options.
    pub shapes_json: *const c_char,
    /// NULL, or a progress that counts and can cancel the call.
    pub progress: *mut df11_progress,
    /// NULL, or a callback that is told of the progress. It may be given together with `progress`.
    pub callback: df11_progress_fn,
    /// The `user` of `callback`.
    pub callback_user: *mut c_void,
    /// NULL, or a callback that is told of the findings.
    pub finding: df11_finding_fn,
    /// The `user` of `finding`.
    pub finding_user: *mut c_void,
    /// NULL, or where to write the numbers.
    pub report: *mut df11_verify_report,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callbacks.
unsafe impl Sizeable for df11_verify_options {
    const NAME: &'static str = "df11_verify_options";
    const FIRST: usize = 88;
}

const _: () = assert!(size_of::<df11_verify_report>() == 72 && size_of::<df11_verify_options>() == 88);

/// Verifies a whole model, a folder or a file. It opens it as df11_model_open() does, and looks
/// for what is absent from a folder: files whose names have numbers (-00002-of-00003) or that an
/// index lists, layers between others, and layers of which config.json says that they are there.
/// Not all that is absent shows. It walks every code of every group, and compares the SHA-256 of
/// each tensor for which the files' metadata has one (under "df11.sha256"). If there is an
/// original (a folder of any number of files, or one file), it compares every tensor with it:
/// type, shape where it is known (DF11_SHAPE_UNKNOWN is the only one that is not), every bit. It
/// continues after what is wrong, so that everything wrong is found.
///
/// `original` and `options` may be NULL. Files are read piece by piece, never mapped, and the call
/// takes at most 16 MiB and 2 MiB for each thread, plus the memory of an open model. Of an original
/// with a model.safetensors.index.json the files that it lists are opened.
///
/// DF11_OK: nothing is wrong. DF11_CORRUPT: something is, and the message is the first such
/// finding's; or the model cannot be opened because of it. The report is written in both cases.
/// It is all zeros if the model could not be opened, and after all other errors:
/// DF11_INVALID_FORMAT and DF11_UNSUPPORTED_FORMAT for the model, and for one without a group if
/// there is no original, DF11_INVALID_ARGUMENT for an original that cannot be used, DF11_IO,
/// DF11_CANCELLED, DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY.
///
/// # Safety
///
/// The progress and the callbacks of the options can be used, each with its `user`, until the call
/// returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_verify_model(
    model: *const c_char,
    original: *const c_char,
    options: *const df11_verify_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, those in the options too.
    unsafe {
        call(error, || verify(Text::new(model, "the path"), Text::new(original, "the path"), VerifyArgs::new(options)?))
    }
}

/// What df11_verify_options says.
struct VerifyArgs<'a> {
    given: *const df11_verify_options,
    known: df11_verify_options,
    open: OpenTexts<'a>,
    progress: Progress,
    findings: Findings,
    report: Info<'a, df11_verify_report>,
}

impl VerifyArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose pointers are as described, during `'a`.
    unsafe fn new(options: *const df11_verify_options) -> Result<Self> {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size. All zeros are the defaults.
        let known = unsafe { structs::read_known(options)?.unwrap_or_else(|| std::mem::zeroed()) };
        // SAFETY: C caller: the struct's pointers are NULL or as described.
        let (open, progress, report) = unsafe {
            (
                OpenTexts::new(
                    [known.config_json, known.shapes_from, known.shapes_json],
                    [
                        "df11_verify_options.config_json",
                        "df11_verify_options.shapes_from",
                        "df11_verify_options.shapes_json",
                    ],
                ),
                progress::of(known.progress, known.callback, known.callback_user),
                Info::new(known.report),
            )
        };
        let findings = Findings { function: known.finding, user: known.finding_user };
        Ok(VerifyArgs { given: options, known, open, progress, findings, report })
    }

    fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its struct_size.
        unsafe { structs::refuse_unknown(self.given) }
    }
}

fn verify(model: Text, original: Text, args: VerifyArgs) -> Result<()> {
    // The handle may still hold what an earlier call counted. How much there is to do is known from the headers.
    args.progress.begin(0);
    if !args.report.is_null() {
        args.report.clear()?;
    }
    args.refuse_unknown()?;
    let VerifyArgs { known, open, progress, findings, report, .. } = args;
    structs::check_flags::<df11_verify_options>(known.flags, FLAGS)?;
    let open = open.options(known.flags & DF11_OPEN_ANY_VERSION != 0)?;
    let path = model.path()?;
    let original = if original.is_null() { None } else { Some(original.path()?) };
    progress.check()?;
    let model = Model::open_watched(path, &open, Access::Read, &progress)?;
    // Before the codes are walked: a wrong path should not be found out minutes later.
    let open = |path| Model::open_original_watched(path, &progress).map_err(host::unusable);
    let original = original.map(open).transpose()?;

    let has = |flag| known.flags & flag != 0;
    let how = VerifyOptions::new()
        .threads(known.threads as usize)
        .incomplete(has(DF11_VERIFY_INCOMPLETE))
        .allow_plain(has(DF11_VERIFY_ALLOW_PLAIN));
    let mut first = None;
    let verified = host::verify_model(&model, original.as_ref(), &how, &progress, &mut |finding| {
        findings.tell(&finding);
        if finding.kind.is_wrong() {
            first.get_or_insert(finding.text);
        }
    })?;
    if !report.is_null() {
        report.set(&report_of(&verified))?;
    }
    // The text has the place in it.
    first.map_or(Ok(()), |reason| Err(Error::Corrupt { reason, place: Place::default() }))
}

/// The callback for findings, and its `user`.
struct Findings {
    function: df11_finding_fn,
    user: *mut c_void,
}

impl Findings {
    fn tell(&self, finding: &Finding) {
        let Some(function) = self.function else { return };
        let kind = match finding.kind {
            FindingKind::Good => DF11_FINDING_GOOD,
            FindingKind::Bad => DF11_FINDING_BAD,
            FindingKind::Hash => DF11_FINDING_HASH,
            FindingKind::Differs => DF11_FINDING_DIFFERS,
            FindingKind::Note => DF11_FINDING_NOTE,
            FindingKind::Missing => DF11_FINDING_MISSING,
        };
        let (name, text) = (c_text(finding.name), c_text(&finding.text));
        // SAFETY: C caller: the callback and its `user` are valid during the call. The texts live until it returns.
        unsafe { function(self.user, kind, name.as_ptr(), text.as_ptr()) };
    }
}

fn report_of(verified: &Verified) -> df11_verify_report {
    df11_verify_report {
        struct_size: size_of::<df11_verify_report>(),
        groups_good: verified.groups_good,
        groups_bad: verified.groups_bad,
        code_count: verified.codes,
        hashes_right: verified.hashes_right,
        hashes_wrong: verified.hashes_wrong,
        tensors_equal: verified.tensors_equal,
        tensors_different: verified.tensors_different,
        missing_count: verified.missing,
    }
}
