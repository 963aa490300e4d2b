//! Verifying whole models.

use super::model::{c_text, path_of, text_of};
use super::progress::{self, df11_progress, df11_progress_fn};
use super::status::{df11_error, df11_status, frame};
use super::structs::{self, Sizeable};
use super::types::DF11_OPEN_ANY_VERSION;
use crate::error::{Error, Place};
use crate::format::{Access, Model, OpenOptions};
use crate::host::{self, Finding, FindingKind, Verified, VerifyOptions};
use std::ffi::{c_char, c_void};

/// A group whose codes agree with its gaps and positions: nothing is wrong.
pub const DF11_FINDING_GOOD: u32 = 1;
/// A group whose codes do not.
pub const DF11_FINDING_BAD: u32 = 2;
/// A tensor that has another hash than the file's metadata says.
pub const DF11_FINDING_HASH: u32 = 3;
/// A tensor that differs from the original's, or that only one of the two models has.
pub const DF11_FINDING_DIFFERS: u32 = 4;
/// What a person should know, such as a tied lm_head that is in one model only: nothing is wrong.
pub const DF11_FINDING_NOTE: u32 = 5;

/// Told of each group, and of each tensor of which there is something to say: `user` as given, DF11_FINDING_*, the name of
/// the group or tensor, and one sentence about it, both UTF-8 with a zero byte behind, valid during the call only, and not
/// to be printed unescaped. Newer versions may have more kinds. It is called on the thread that called
/// df11_verify_model(), and must not unwind.
pub type df11_finding_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, kind: u32, name: *const c_char, text: *const c_char)>;

/// What came of a verification, in numbers. Begin with DF11_VERIFY_REPORT_INIT.
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
    /// Tensors that have the hash that the model's metadata says.
    pub hashes_right: u64,
    /// Tensors that have another, or cannot be decoded.
    pub hashes_wrong: u64,
    /// Tensors that equal the original's.
    pub tensors_equal: u64,
    /// Tensors that differ from the original's, or that only one of the two models has.
    pub tensors_different: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all are numbers.
unsafe impl Sizeable for df11_verify_report {
    const NAME: &'static str = "df11_verify_report";
    const FIRST: usize = 64;
}

/// How to verify. Begin with DF11_VERIFY_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_verify_options {
    /// sizeof(df11_verify_options)
    pub struct_size: usize,
    /// Threads to use, the calling one among them; 0 means 1. They are gone when the call returns.
    pub threads: u32,
    /// DF11_OPEN_ANY_VERSION or 0
    pub flags: u32,
    /// NULL, or the text of a config.json for the model; see df11_open_options.
    pub config_json: *const c_char,
    /// NULL, or where to count and to look whether somebody cancels.
    pub progress: *mut df11_progress,
    /// NULL, or what to tell of the progress. It may be given together with `progress`.
    pub callback: df11_progress_fn,
    /// What `callback` is given.
    pub callback_user: *mut c_void,
    /// NULL, or what to tell of the findings.
    pub finding: df11_finding_fn,
    /// What `finding` is given.
    pub finding_user: *mut c_void,
    /// NULL, or where to write the numbers.
    pub report: *mut df11_verify_report,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callbacks.
unsafe impl Sizeable for df11_verify_options {
    const NAME: &'static str = "df11_verify_options";
    const FIRST: usize = 72;
}

const _: () = assert!(size_of::<df11_verify_report>() == 64 && size_of::<df11_verify_options>() == 72);

/// Verifies a whole model, a folder or a file: opens it as df11_model_open() does, walks every code of every group, compares
/// the SHA-256 of each tensor for which the files' metadata has one (under "df11.sha256"), and, if there is an original, a
/// folder of any number of files or one file, every tensor with it: type, shape where the model knows it, every bit. It goes
/// on after what is wrong, so that all of it is found.
///
/// `original` and `options` may be NULL. Files are read piece by piece, never mapped, and memory is at most 16 MiB and 2 MiB
/// for each thread, beside what an open model takes. Of an original with a model.safetensors.index.json the files that it
/// lists are opened.
///
/// DF11_OK: nothing is wrong. DF11_CORRUPT: something is, and the message is the first such finding's; or the model cannot
/// be opened for it. The report is written in both cases, and all zeros where the model could not be opened and after all
/// other errors: DF11_INVALID_FORMAT and DF11_UNSUPPORTED_FORMAT for the model, DF11_INVALID_ARGUMENT for an original that
/// cannot be used, DF11_IO, DF11_CANCELLED, DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_verify_model(
    model: *const c_char,
    original: *const c_char,
    options: *const df11_verify_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            // All zeros are the defaults.
            let given = options;
            let options = structs::read_known(given)?.unwrap_or_else(|| std::mem::zeroed());
            let progress = progress::of(options.progress, options.callback, options.callback_user);
            // What the handle was given to before is not this call's. How much there is to do the headers say.
            progress.begin(0);
            if !options.report.is_null() {
                structs::clear(options.report)?;
            }
            structs::refuse_unknown(given)?;
            let unknown = options.flags & !DF11_OPEN_ANY_VERSION;
            if unknown != 0 {
                let reason = format!("df11_verify_options.flags has unknown bits: {unknown:#x}");
                return Err(Error::UnsupportedOption(reason));
            }
            let open = OpenOptions {
                any_version: options.flags & DF11_OPEN_ANY_VERSION != 0,
                config: text_of(options.config_json, "df11_verify_options.config_json")?,
                ..OpenOptions::default()
            };
            let path = path_of(model)?;
            let original = if original.is_null() { None } else { Some(path_of(original)?) };
            progress.check()?;
            let model = Model::open_watched(path, &open, Access::Read, &progress)?;
            // Before the codes are walked: a wrong path should not be found out minutes later.
            let open = |path| Model::open_original_watched(path, &progress).map_err(host::unusable);
            let original = original.map(open).transpose()?;

            let threads = VerifyOptions::new().threads(options.threads as usize);
            let mut first = None;
            let verified = host::verify_model(&model, original.as_ref(), &threads, &progress, &mut |finding| {
                tell(&options, &finding);
                if finding.kind.is_wrong() {
                    first.get_or_insert(finding.text);
                }
            })?;
            if !options.report.is_null() {
                structs::write(options.report, &report(&verified));
            }
            // The text has the place in it.
            first.map_or(Ok(()), |reason| Err(Error::Corrupt { reason, place: Place::default() }))
        })
    }
}

/// Tells the caller of a finding.
///
/// # Safety
///
/// The callback of the options is valid.
unsafe fn tell(options: &df11_verify_options, finding: &Finding) {
    let Some(function) = options.finding else { return };
    let kind = match finding.kind {
        FindingKind::Good => DF11_FINDING_GOOD,
        FindingKind::Bad => DF11_FINDING_BAD,
        FindingKind::Hash => DF11_FINDING_HASH,
        FindingKind::Differs => DF11_FINDING_DIFFERS,
        FindingKind::Note => DF11_FINDING_NOTE,
    };
    let (name, text) = (c_text(finding.name), c_text(&finding.text));
    // SAFETY: by the caller's promise; the texts live for the call.
    unsafe { function(options.finding_user, kind, name.as_ptr(), text.as_ptr()) };
}

fn report(verified: &Verified) -> df11_verify_report {
    df11_verify_report {
        struct_size: size_of::<df11_verify_report>(),
        groups_good: verified.groups_good,
        groups_bad: verified.groups_bad,
        code_count: verified.codes,
        hashes_right: verified.hashes_right,
        hashes_wrong: verified.hashes_wrong,
        tensors_equal: verified.tensors_equal,
        tensors_different: verified.tensors_different,
    }
}
