//! Writing whole models, and groups in memory.

use super::model::{c_text, path_of, text_of};
use super::progress::{self, df11_progress, df11_progress_fn};
use super::status::{df11_error, df11_status, frame};
use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use crate::format::MOST_TENSORS;
use crate::host::{self, EncodeOptions, PackedSizes};
use crate::writer::plan::Patterns;
use crate::writer::presets::Preset;
use crate::writer::{self, CompressOptions, Layout, Part, Report};
use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr;
use std::sync::LazyLock;

/// Do not decode each group from its file to compare it before the file gets its name.
pub const DF11_COMPRESS_NO_VERIFY: u32 = 1;
/// Go on with what an interrupted run of the same source and options has left; begin, if there is nothing. The bytes are
/// those of a run without an interruption. Where nothing of a model is missing, every bit is compared with the source, and what
/// goes with it (config.json, tokenizers) is written where it is not there; where it was changed, that is an error.
pub const DF11_COMPRESS_RESUME: u32 = 2;
/// Make it an error (DF11_UNSUPPORTED_FORMAT) if something that the patterns ask for cannot be compressed. Without it such
/// a group's tensors stay plain, and df11_left_fn is told.
pub const DF11_COMPRESS_STRICT: u32 = 4;
/// Write the SHA-256 of every tensor to the files' metadata under "df11.sha256", for df11_verify_model(). The reference
/// compressor writes none.
pub const DF11_COMPRESS_HASHES: u32 = 8;
/// Write the shapes of compressed tensors to the files' metadata under "df11.shapes", for df11_tensor_info. The reference
/// compressor writes none.
pub const DF11_COMPRESS_SHAPES: u32 = 16;
/// Write one file: `dst`, if it ends in .safetensors, else model.safetensors (diffusion_pytorch_model.safetensors for
/// diffusers) in the folder `dst`.
pub const DF11_COMPRESS_SINGLE_FILE: u32 = 32;
/// Write a folder of one file per group, even if `dst` ends in .safetensors. With neither of the two, `dst` is one file if
/// it ends so, else such a folder.
pub const DF11_COMPRESS_FOLDER: u32 = 64;

const FLAGS: u32 = DF11_COMPRESS_NO_VERIFY
    | DF11_COMPRESS_RESUME
    | DF11_COMPRESS_STRICT
    | DF11_COMPRESS_HASHES
    | DF11_COMPRESS_SHAPES
    | DF11_COMPRESS_SINGLE_FILE
    | DF11_COMPRESS_FOLDER;

/// Told of each tensor that the patterns ask for and that stays as it was: `user` as given, the tensor's name, the name of
/// the group that it would have been in (which stays plain as a whole), and why; all UTF-8 with a zero byte behind, valid
/// during the call only, and not to be printed unescaped. It is called on the thread that called df11_compress_model() or
/// df11_merge_model(), after the work, and must not unwind.
pub type df11_left_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, tensor: *const c_char, group: *const c_char, reason: *const c_char)>;

/// What came of a run, in numbers. Begin with DF11_COMPRESS_REPORT_INIT.
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
    /// Groups that were there already, of an earlier run.
    pub resumed: u64,
    /// Tensors that stay plain although the patterns ask for them: as many as df11_left_fn is told of.
    pub left_count: u64,
    /// Heads that are not stored, because they are tied to the embedding and equal to it.
    pub dropped_count: u64,
    /// Patterns that no module matches.
    pub unmatched_count: u64,
    /// 1, if the model is complete; 0 after a part, until df11_merge_model().
    pub complete: u64,
    /// The name of the preset whose groups these are; NULL, if it was a pattern_json. The text is static.
    pub preset: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all zeros are numbers and a NULL text.
unsafe impl Sizeable for df11_compress_report {
    const NAME: &'static str = "df11_compress_report";
    const FIRST: usize = 104;
}

/// How to compress. Begin with DF11_COMPRESS_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_compress_options {
    /// sizeof(df11_compress_options)
    pub struct_size: usize,
    /// Threads to work with, the calling one among them; 0 means 1. One more brings files to the disk. They are gone when
    /// the call returns, and the bytes written do not depend on their number.
    pub threads: u32,
    /// DF11_COMPRESS_* joined by |
    pub flags: u32,
    /// Bytes of memory to work in at most, 5 MiB for each thread; 0 means 512 MiB. Fewer threads work if it is not enough,
    /// and one always does. What headers and lists of tensors take comes on top.
    pub memory_bytes: u64,
    /// NULL, or the name of a preset: the groups of a published model, see df11_preset_get_info().
    pub preset: *const c_char,
    /// NULL, or the groups: the JSON text of a pattern_dict, or of a config.json that has one in its dfloat11_config. Not
    /// together with `preset`. With neither, the preset is chosen by the source's config.json and its tensors' names.
    pub pattern_json: *const c_char,
    /// Which part of the groups to write, 1 to `part_count`: other processes or machines write the others to the same
    /// folder, with the same options, and then somebody calls df11_merge_model().
    pub part: u32,
    /// How many parts there are, at most 100000. 0 and 0 are the whole model, as 1 and 1 are.
    pub part_count: u32,
    /// NULL, or where to count and to look whether somebody cancels.
    pub progress: *mut df11_progress,
    /// NULL, or what to tell of the progress. It may be given together with `progress`.
    pub callback: df11_progress_fn,
    /// What `callback` is given.
    pub callback_user: *mut c_void,
    /// NULL, or what to tell of tensors that stay plain.
    pub left: df11_left_fn,
    /// What `left` is given.
    pub left_user: *mut c_void,
    /// NULL, or where to write the numbers.
    pub report: *mut df11_compress_report,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callbacks.
unsafe impl Sizeable for df11_compress_options {
    const NAME: &'static str = "df11_compress_options";
    const FIRST: usize = 96;
}

/// A preset. Begin with DF11_PRESET_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_preset_info {
    /// sizeof(df11_preset_info)
    pub struct_size: usize,
    /// Its name, for df11_compress_options.preset. The text is static.
    pub name: *const c_char,
    /// Its pattern_dict, as JSON. The text is static.
    pub pattern_json: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL texts.
unsafe impl Sizeable for df11_preset_info {
    const NAME: &'static str = "df11_preset_info";
    const FIRST: usize = 24;
}

/// The six members of a compressed group in memory of yours, and their sizes in bytes. A file stores each as a tensor
/// called NAME.luts and so on, where NAME is the module's name; see DF11_PART_* for what their bytes mean. No address needs
/// an alignment. Begin with DF11_PACKED_GROUP_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_packed_group {
    /// sizeof(df11_packed_group)
    pub struct_size: usize,
    /// In a file of type U8 and shape luts_bytes / 256 by 256
    pub luts: *mut c_void,
    /// Bytes of `luts`
    pub luts_bytes: usize,
    /// U8, one dimension
    pub encoded_exponent: *mut c_void,
    /// Bytes of `encoded_exponent`
    pub encoded_exponent_bytes: usize,
    /// U8, one dimension: one byte for each weight
    pub sign_mantissa: *mut c_void,
    /// Bytes of `sign_mantissa`
    pub sign_mantissa_bytes: usize,
    /// U8, one dimension: little-endian uint32, 4 bytes each
    pub output_positions: *mut c_void,
    /// Bytes of `output_positions`
    pub output_positions_bytes: usize,
    /// U8, one dimension
    pub gaps: *mut c_void,
    /// Bytes of `gaps`
    pub gaps_bytes: usize,
    /// I64, one dimension: little-endian, 8 bytes for each tensor but the last, so none for a single tensor
    pub split_positions: *mut c_void,
    /// Bytes of `split_positions`
    pub split_positions_bytes: usize,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers of no bytes.
unsafe impl Sizeable for df11_packed_group {
    const NAME: &'static str = "df11_packed_group";
    const FIRST: usize = 104;
}

const _: () = {
    assert!(size_of::<df11_compress_report>() == 104 && size_of::<df11_compress_options>() == 96);
    assert!(size_of::<df11_preset_info>() == 24 && size_of::<df11_packed_group>() == 104);
    // What the comments of `memory_bytes` and df11_compress_group() say.
    assert!(writer::DEFAULT_MEMORY == 512 << 20 && MOST_TENSORS == 1024);
};

/// Compresses a model: `src` is a folder in Hugging Face layout, of any number of .safetensors files, or one such file;
/// `dst` is a new or empty folder, or a file, which is replaced when all is done and not before. Nothing of the source is
/// changed, and every byte of a group is as the reference compressor (dfloat11 0.5.0) writes it.
///
/// A folder gets one file per group, a file for the rest, the source's config.json with dfloat11_config in it, and the
/// source's other files; beside a single file goes its config.json. `options` may be NULL. Groups are gone through a piece
/// at a time and never in memory whole. Files get their names when they are complete and, unless told otherwise, verified.
///
/// What a run that fails or is cancelled leaves, df11_model_open() does not take for a model; where it has completed
/// something, DF11_COMPRESS_RESUME goes on with that. While a run works, no other one to the same place does (but for other
/// parts): it is refused, if the file system can lock files.
///
/// Errors: DF11_INVALID_ARGUMENT for what the caller can change (a `dst` that is not empty, is unfinished, or that another run writes
/// to, patterns that do not fit, no preset that fits, a source that is compressed already); DF11_NOT_FOUND (no such
/// preset); DF11_INVALID_FORMAT and DF11_CORRUPT for the source, and for a written group that failed its verification;
/// DF11_UNSUPPORTED_FORMAT with DF11_COMPRESS_STRICT; DF11_UNSUPPORTED_OPTION, DF11_IO, DF11_CANCELLED,
/// DF11_OUT_OF_MEMORY. After all of them the report is all zeros, and `left` is not called.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_compress_model(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_compress_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe { frame(error, || run(src, dst, options, writer::compress)) }
}

/// Completes a folder whose parts are all finished: writes what belongs to no group, config.json and the files that go with
/// it, and checks that nothing is missing. `options` are those of the parts; `part`, `part_count` and DF11_COMPRESS_RESUME
/// do not matter. The report is the whole model's, and `left` is told of what all parts have left.
///
/// Errors: as for df11_compress_model(); DF11_INVALID_ARGUMENT if a part is not finished or `dst` was not begun.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_merge_model(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_compress_options,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe { frame(error, || run(src, dst, options, writer::merge)) }
}

/// How many presets there are.
#[unsafe(no_mangle)]
pub extern "C" fn df11_preset_count() -> u64 {
    Preset::all().len() as u64
}

/// Describes the preset of that number, from 0. DF11_NOT_FOUND if there is none.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_preset_get_info(
    preset: u64,
    out: *mut df11_preset_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let Some(texts) = usize::try_from(preset).ok().and_then(|number| PRESETS.get(number)) else {
                return Err(Error::NotFound(format!("there is no preset {preset}: there are {}", PRESETS.len())));
            };
            let info = df11_preset_info {
                struct_size: size_of::<df11_preset_info>(),
                name: texts.name.as_ptr(),
                pattern_json: texts.pattern_json.as_ptr(),
            };
            structs::write(out, &info);
            Ok(())
        })
    }
}

/// Compresses a group in memory: the weights of its tensors one after the other, in the order of the pattern's list,
/// encoded byte for byte as the reference compressor does.
///
/// `tensors` are the addresses of `tensor_count` tensors, 1 to 1024, and `element_counts` their weights, bf16 bits in the
/// processor's byte order; all together at most 4294967295. Each is aligned to 2 bytes; one of no weights may be NULL.
/// `threads` threads work, the calling one among them, and are gone when the call returns; 0 means 1. The bytes do not
/// depend on their number. Allocated are some 3 KiB for each tensor and for every 262144 weights of it, and less than 4 MiB
/// for each thread, for the time of the call. Weights are read twice and must not change meanwhile.
///
/// `io` gives the memory for each member, its address and how many bytes it holds, and is given back how many were written.
/// Where all six addresses are NULL, the sizes that the members need are set and nothing is written: the weights are then
/// read once. Otherwise only a member that has 0 bytes may be NULL, such as the split positions of a single tensor. The
/// pieces of memory overlap neither each other nor the weights.
///
/// Errors: DF11_BUFFER_TOO_SMALL, which sets the sizes that the members need, too, and writes nothing else; DF11_MISALIGNED;
/// DF11_INVALID_ARGUMENT for all else that is wrong with the arguments, for no weights at all, and for an exponent of 240 or
/// more (an infinity, a NaN, a magnitude of 2^113 or more), which the format cannot hold: store such a group's tensors as
/// they are; DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY. After all but the first the sizes are 0.
///
/// # Safety
///
/// The pointers are as described, and nobody else uses the members' memory during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_compress_group(
    tensors: *const *const c_void,
    element_counts: *const u64,
    tensor_count: usize,
    threads: u32,
    io: *mut df11_packed_group,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let given = packed_group(io)?;
            let counts = counts_of(element_counts, tensor_count)?;
            if tensors.is_null() {
                return Err(Error::InvalidArgument("the list of tensors is NULL".into()));
            }
            let mut slices: Vec<&[u16]> = Vec::with_capacity(tensor_count);
            for (number, &count) in counts.iter().enumerate() {
                let tensor = tensors.add(number).read().cast::<u16>();
                if count == 0 {
                    slices.push(&[]);
                } else if tensor.is_null() {
                    return Err(Error::InvalidArgument(format!("tensor {number} of the group is NULL")));
                } else if !tensor.is_aligned() {
                    return Err(Error::Misaligned { what: "a tensor of the group".into(), to: 2 });
                } else {
                    // Small enough for a slice: `counts_of` has looked.
                    slices.push(std::slice::from_raw_parts(tensor, count as usize));
                }
            }
            let members = members(&given)?;
            let options = EncodeOptions::new().threads(threads as usize);
            let mut sizes = PackedSizes::default();
            let result = host::compress_raw(&slices, members, &mut sizes, &options);
            if matches!(result, Ok(()) | Err(Error::BufferTooSmall { .. })) {
                structs::write(io, &with_sizes(given, &sizes));
            }
            result
        })
    }
}

/// Sets the sizes of `out` to what a group of so many weights takes at most, whatever they are, and leaves its addresses
/// alone: memory of these sizes is enough for df11_compress_group(). `element_counts` are the weights of its `tensor_count`
/// tensors. A group of trained weights takes about a third of it for `encoded_exponent`.
///
/// Errors: DF11_INVALID_ARGUMENT, for the same counts as in df11_compress_group(); DF11_UNSUPPORTED_OPTION. The sizes are
/// then 0.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_compress_bound(
    element_counts: *const u64,
    tensor_count: usize,
    out: *mut df11_packed_group,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let given = packed_group(out)?;
            let weights = counts_of(element_counts, tensor_count)?.iter().sum();
            structs::write(out, &with_sizes(given, &PackedSizes::bound(weights, tensor_count as u64)));
            Ok(())
        })
    }
}

/// The name and the patterns of a preset as C texts.
struct PresetTexts {
    name: CString,
    pattern_json: CString,
}

static PRESETS: LazyLock<Vec<PresetTexts>> = LazyLock::new(|| {
    let texts = |p: &Preset| PresetTexts { name: c_text(p.name()), pattern_json: c_text(&p.patterns().to_json()) };
    Preset::all().iter().map(texts).collect()
});

/// # Safety
///
/// The pointers are as described for [`df11_compress_model`].
unsafe fn run(
    src: *const c_char,
    dst: *const c_char,
    options: *const df11_compress_options,
    work: impl FnOnce(&Path, &Path, &CompressOptions, &crate::Progress) -> Result<Report>,
) -> Result<()> {
    // SAFETY: by the caller's promise.
    unsafe {
        // All zeros are the defaults.
        let given = options;
        let options = structs::read_known(given)?.unwrap_or_else(|| std::mem::zeroed());
        let progress = progress::of(options.progress, options.callback, options.callback_user);
        // What the handle was given to before is not this call's, even if its arguments are refused.
        progress.reset();
        if !options.report.is_null() {
            structs::clear(options.report)?;
        }
        structs::refuse_unknown(given)?;
        let (src, dst) = (path_of(src)?, path_of(dst)?);
        let settings = settings(&options)?;
        let report = work(src, dst, &settings, &progress)?;
        if let Some(function) = options.left {
            for left in &report.left {
                let [tensor, group, reason] = [&left.tensor, &left.group, &left.reason].map(|text| c_text(text));
                function(options.left_user, tensor.as_ptr(), group.as_ptr(), reason.as_ptr());
            }
        }
        if !options.report.is_null() {
            structs::write(options.report, &report_of(&report)?);
        }
        Ok(())
    }
}

/// What the writer is to do.
///
/// # Safety
///
/// The texts are NULL or ended by a zero byte.
unsafe fn settings(options: &df11_compress_options) -> Result<CompressOptions> {
    let unknown = options.flags & !FLAGS;
    if unknown != 0 {
        let reason = format!("df11_compress_options.flags has unknown bits: {unknown:#x}");
        return Err(Error::UnsupportedOption(reason));
    }
    let has = |flag| options.flags & flag != 0;
    let layout = match (has(DF11_COMPRESS_SINGLE_FILE), has(DF11_COMPRESS_FOLDER)) {
        (true, true) => {
            let reason = "DF11_COMPRESS_SINGLE_FILE and DF11_COMPRESS_FOLDER are given: one of them decides";
            return Err(Error::InvalidArgument(reason.into()));
        }
        (true, false) => Layout::SingleFile,
        (false, true) => Layout::Folder,
        (false, false) => Layout::ByName,
    };
    // SAFETY: by the caller's promise.
    let (preset, json) = unsafe {
        let preset = text_of(options.preset, "df11_compress_options.preset")?;
        (preset, text_of(options.pattern_json, "df11_compress_options.pattern_json")?)
    };
    let parse = |text: String| {
        let json = serde_json::from_str(&text).map_err(|e| {
            Error::InvalidArgument(format!("df11_compress_options.pattern_json is not valid JSON: {e}"))
        })?;
        Patterns::from_value(&json)
    };
    Ok(CompressOptions {
        threads: options.threads as usize,
        memory: options.memory_bytes,
        patterns: json.map(parse).transpose()?,
        preset,
        layout,
        part: match (options.part, options.part_count) {
            (0, 0) => Part::WHOLE,
            (number, count) => Part { number, count },
        },
        resume: has(DF11_COMPRESS_RESUME),
        keep_existing: false,
        verify: !has(DF11_COMPRESS_NO_VERIFY),
        strict: has(DF11_COMPRESS_STRICT),
        hashes: has(DF11_COMPRESS_HASHES),
        shapes: has(DF11_COMPRESS_SHAPES),
    })
}

fn report_of(report: &Report) -> Result<df11_compress_report> {
    let preset = match &report.preset {
        // An alias, perhaps.
        Some(name) => {
            let name = Preset::find(name)?.name();
            let texts = PRESETS.iter().find(|texts| texts.name.as_bytes() == name.as_bytes());
            texts.map_or(ptr::null(), |texts| texts.name.as_ptr())
        }
        None => ptr::null(),
    };
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
        preset,
    })
}

/// Reads a group's members, and clears their sizes in the caller's struct.
///
/// # Safety
///
/// `at` is NULL or points to a writable struct as large as its `struct_size` says.
unsafe fn packed_group(at: *mut df11_packed_group) -> Result<df11_packed_group> {
    // SAFETY: by the caller's promise.
    unsafe {
        let Some(given) = structs::read_known(at)? else {
            return Err(Error::InvalidArgument("the df11_packed_group is NULL".into()));
        };
        structs::write(at, &with_sizes(given, &PackedSizes::default()));
        structs::refuse_unknown(at)?;
        Ok(given)
    }
}

fn with_sizes(group: df11_packed_group, sizes: &PackedSizes) -> df11_packed_group {
    // Of memory of this process, or of what such memory could be: 64 bits, as lib.rs asks for.
    df11_packed_group {
        luts_bytes: sizes.luts as usize,
        encoded_exponent_bytes: sizes.encoded_exponent as usize,
        sign_mantissa_bytes: sizes.sign_mantissa as usize,
        output_positions_bytes: sizes.output_positions as usize,
        gaps_bytes: sizes.gaps as usize,
        split_positions_bytes: sizes.split_positions as usize,
        ..group
    }
}

/// Where to write, in the order of [`host::Packed`]; `None` if only the sizes are asked for.
fn members(group: &df11_packed_group) -> Result<Option<[(*mut u8, u64); 6]>> {
    let members = [
        (group.luts, group.luts_bytes),
        (group.encoded_exponent, group.encoded_exponent_bytes),
        (group.sign_mantissa, group.sign_mantissa_bytes),
        (group.output_positions, group.output_positions_bytes),
        (group.gaps, group.gaps_bytes),
        (group.split_positions, group.split_positions_bytes),
    ];
    if members.iter().all(|(at, _)| at.is_null()) {
        return Ok(None);
    }
    if members.iter().any(|(at, bytes)| at.is_null() && *bytes > 0) {
        return Err(Error::InvalidArgument("a member of the df11_packed_group is NULL and has bytes".into()));
    }
    // Nothing is written to a member of 0 bytes, but its address is reckoned with.
    let place = |at: *mut c_void| if at.is_null() { ptr::dangling_mut() } else { at.cast() };
    Ok(Some(members.map(|(at, bytes)| (place(at), bytes as u64))))
}

/// The weights of each tensor of a group, together no more than the format can count.
///
/// # Safety
///
/// `counts` is NULL or points to so many numbers, which live as long as the result.
unsafe fn counts_of<'a>(counts: *const u64, tensors: usize) -> Result<&'a [u64]> {
    if counts.is_null() {
        return Err(Error::InvalidArgument("the list of element counts is NULL".into()));
    }
    if tensors == 0 || tensors as u64 > MOST_TENSORS {
        return Err(Error::InvalidArgument(format!("a group of {tensors} tensors: 1 to {MOST_TENSORS} may be")));
    }
    // SAFETY: by the caller's promise, and not more than a slice may have.
    let counts = unsafe { std::slice::from_raw_parts(counts, tensors) };
    let weights = counts.iter().fold(0u64, |sum, &count| sum.saturating_add(count));
    if weights == 0 || weights > u32::MAX.into() {
        return Err(Error::InvalidArgument(format!("a group of {weights} weights: 1 to {} may be", u32::MAX)));
    }
    Ok(counts)
}
