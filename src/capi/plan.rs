//! Plans: what a model becomes and needs.

use super::args::{In, Info, Out, Owned, Text};
use super::compress::{Left, df11_left_fn};
use super::frame::{call, quietly};
use super::model::{OpenTexts, c_text, index};
use super::preset::static_name;
use super::progress::{self, df11_progress};
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use crate::plan::{Basis, GroupPlan, ModelPlan, PlanOptions, Split};
use crate::progress::Progress;
use crate::writer::plan::Patterns;
use std::ffi::{CString, c_char, c_void};
use std::ptr;

/// Count some weights of each kind of group. Without it no weight is read, and 2.662 bits are
/// assumed for the code of an exponent.
pub const DF11_PLAN_SAMPLE: u32 = 1;

/// Plan what is there of a model, plain or DF11, that lacks something. Without it such a model is
/// refused, as df11_compress_model() refuses it.
pub const DF11_PLAN_INCOMPLETE: u32 = 2;

/// Accept a compressed model whose config names a version of the compressor that this library does
/// not know.
pub const DF11_PLAN_ANY_VERSION: u32 = 4;

/// Each device has some of the layers.
pub const DF11_SPLIT_LAYERS: u32 = 0;
/// Each device has an equal part of every matrix.
pub const DF11_SPLIT_ROWS: u32 = 1;

/// A number that is not known, or tokens next to weights that do not fit themselves.
pub const DF11_PLAN_NONE: u64 = u64::MAX;

/// How to plan. Begin with DF11_PLAN_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_plan_options {
    /// sizeof(df11_plan_options)
    pub struct_size: usize,
    /// DF11_PLAN_* joined by |
    pub flags: u32,
    /// Buffers for decoded weights, each as large as the largest group; 0 means 2.
    pub slots: u32,
    /// Bytes of a number in the KV cache, at most 8; 0 means 2, as bf16 has.
    pub cache_number_bytes: u64,
    /// As in df11_compress_options. A model that is compressed already has its own groups.
    pub preset: *const c_char,
    /// As in df11_compress_options.
    pub pattern_json: *const c_char,
    /// NULL, or the text of a config.json for a model that is compressed already; see
    /// df11_open_options.
    pub config_json: *const c_char,
    /// NULL, or the path of a folder or file that has the shapes which the files of a compressed
    /// model do not say; see df11_open_options. The size of the KV cache may depend on them.
    pub shapes_from: *const c_char,
    /// NULL, or the same as a JSON text; see df11_open_options.
    pub shapes_json: *const c_char,
    /// NULL, or a progress that can cancel the call.
    pub progress: *mut df11_progress,
    /// NULL, or a callback that is told of tensors that stay plain, before the call returns.
    pub left: df11_left_fn,
    /// The `user` of `left`.
    pub left_user: *mut c_void,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers and no callback.
unsafe impl Sizeable for df11_plan_options {
    const NAME: &'static str = "df11_plan_options";
    const FIRST: usize = 88;
}

/// A plan in numbers. Begin with DF11_PLAN_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_plan_info {
    /// sizeof(df11_plan_info)
    pub struct_size: usize,
    /// 1 if the model is compressed already, so that all sizes are exact; 0 if they are estimates.
    pub exact: u64,
    /// Groups.
    pub group_count: u64,
    /// Weights in them.
    pub element_count: u64,
    /// Bytes of the groups' six members.
    pub packed_bytes: u64,
    /// Bytes of all images.
    pub image_bytes: u64,
    /// Bytes of the tensors that are stored as they are.
    pub plain_bytes: u64,
    /// Bytes of all tensors, not compressed.
    pub original_bytes: u64,
    /// The .safetensors files of a folder.
    pub file_count: u64,
    /// Bytes of these files.
    pub written_bytes: u64,
    /// Weights of the largest group.
    pub largest_group_element_count: u64,
    /// Bytes of all buffers for decoded weights on one device.
    pub scratch_bytes: u64,
    /// Bytes of the KV cache for each token, in all layers; DF11_PLAN_NONE if they are not known.
    pub cache_bytes_per_token: u64,
    /// Layers that have a cache; 0 if that is not known.
    pub cached_layer_count: u64,
    /// Tensors that stay plain although the patterns ask for them: as many as `left` is called for.
    pub left_count: u64,
    /// The name of the preset that gives the groups, or "automatic"; NULL for those of a
    /// pattern_json, and for a model that is compressed already. The text is static.
    pub preset: *const c_char,
    /// Why the size of the KV cache is not known; NULL if it is. The text is the plan's.
    pub cache_unknown: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all zeros are numbers and NULL texts.
unsafe impl Sizeable for df11_plan_info {
    const NAME: &'static str = "df11_plan_info";
    const FIRST: usize = 136;
}

/// A group of a plan. Begin with DF11_PLAN_GROUP_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_plan_group_info {
    /// sizeof(df11_plan_group_info)
    pub struct_size: usize,
    /// The module's full name. The text is the plan's.
    pub name: *const c_char,
    /// The weights in all its tensors. Decoded, they take 2 bytes each.
    pub element_count: u64,
    /// Its tensors.
    pub tensor_count: u64,
    /// Bytes of its six members in the file.
    pub packed_bytes: u64,
    /// Bytes of its image on a device.
    pub image_bytes: u64,
    /// 1 if these are exact, 0 if they are estimates.
    pub exact: u64,
    /// 1 if the group is, or will be, an extension of the format; see df11_group_info. Otherwise 0.
    pub extended: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all zeros are numbers and a NULL text.
unsafe impl Sizeable for df11_plan_group_info {
    const NAME: &'static str = "df11_plan_group_info";
    const FIRST: usize = 64;
}

/// The part of a model that is on one device. Begin with DF11_PLAN_SHARE_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_plan_share_info {
    /// sizeof(df11_plan_share_info)
    pub struct_size: usize,
    /// Bytes of images.
    pub image_bytes: u64,
    /// Bytes of tensors that are stored as they are.
    pub plain_bytes: u64,
    /// Bytes of the buffers for decoded weights.
    pub scratch_bytes: u64,
    /// All of these.
    pub total_bytes: u64,
    /// Bytes of the KV cache for each token; DF11_PLAN_NONE if they are not known.
    pub cache_bytes_per_token: u64,
    /// Bytes of the device of this number if the same model is not compressed.
    pub bf16_bytes: u64,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), all zeros are numbers.
unsafe impl Sizeable for df11_plan_share_info {
    const NAME: &'static str = "df11_plan_share_info";
    const FIRST: usize = 56;
}

const _: () = {
    assert!(size_of::<df11_plan_options>() == 88 && size_of::<df11_plan_info>() == 136);
    assert!(size_of::<df11_plan_group_info>() == 64 && size_of::<df11_plan_share_info>() == 56);
    // What the comment of DF11_PLAN_SAMPLE says.
    assert!(crate::plan::ASSUMED_CODE_BITS == 2.662 && crate::plan::DEFAULT_SLOTS == 2);
};

/// What a model becomes and needs. It never changes: any number of threads may use it at once.
pub struct df11_plan {
    plan: ModelPlan,
    group_names: Vec<CString>,
    cache_unknown: Option<CString>,
}

/// What messages call a plan.
const PLAN: &str = "the plan";

/// Plans a model, without writing anything: a folder or a file, compressed or not. Headers and
/// config.json are read, and weights only with DF11_PLAN_SAMPLE, so that this takes seconds for the
/// largest models. `options` may be NULL. On success `*out` is the plan, to be given to
/// df11_plan_free(); otherwise it is NULL.
///
/// The groups are those that df11_compress_model() would make, or those of a compressed model, whose
/// sizes are exact. What is not counted: activations, and what an engine and the driver take for
/// themselves.
///
/// Errors: those of df11_compress_model() for its source, its patterns and its preset, and those of
/// df11_model_open(); DF11_INVALID_ARGUMENT for options that are out of range, for groups that are
/// named for a compressed model, and for a config or shapes that are given for one that is not
/// compressed; DF11_CANCELLED.
///
/// # Safety
///
/// The progress and the callback of the options can be used, the latter with its `user`, until the
/// call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_plan_model(
    path: *const c_char,
    options: *const df11_plan_options,
    out: *mut *mut df11_plan,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, those in the options too.
    unsafe { call(error, || plan_model(Text::new(path, "the path"), PlanArgs::new(options), Out::new(out))) }
}

/// What df11_plan_options says.
struct PlanArgs<'a> {
    given: *const df11_plan_options,
    known: Result<df11_plan_options>,
    preset: Text<'a>,
    pattern_json: Text<'a>,
    open: OpenTexts<'a>,
    progress: Progress,
    left: Left,
}

impl PlanArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose pointers are as described, during `'a`.
    unsafe fn new(options: *const df11_plan_options) -> Self {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size. All zeros are the defaults.
        let known = unsafe { structs::read_known(options).map(|o| o.unwrap_or_else(|| std::mem::zeroed())) };
        let read = known.as_ref().ok();
        let text = |of: fn(&df11_plan_options) -> *const c_char| read.map_or(ptr::null(), of);
        let handle = read.map_or(ptr::null(), |o| o.progress.cast_const());
        // SAFETY: C caller: the struct's pointers are NULL or as described.
        let (preset, pattern_json, open, progress) = unsafe {
            (
                Text::new(text(|o| o.preset), "df11_plan_options.preset"),
                Text::new(text(|o| o.pattern_json), "df11_plan_options.pattern_json"),
                OpenTexts::new(
                    [text(|o| o.config_json), text(|o| o.shapes_from), text(|o| o.shapes_json)],
                    ["df11_plan_options.config_json", "df11_plan_options.shapes_from", "df11_plan_options.shapes_json"],
                ),
                progress::of(handle, None, ptr::null_mut()),
            )
        };
        let left = Left { function: read.and_then(|o| o.left), user: read.map_or(ptr::null_mut(), |o| o.left_user) };
        PlanArgs { given: options, known, preset, pattern_json, open, progress, left }
    }

    fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its struct_size.
        unsafe { structs::refuse_unknown(self.given) }
    }
}

fn plan_model(path: Text, args: PlanArgs, out: Out<*mut df11_plan>) -> Result<()> {
    let out = out.clear(ptr::null_mut())?;
    args.refuse_unknown()?;
    let PlanArgs { known, preset, pattern_json, open, progress, left, .. } = args;
    let known = known?;
    let flags = DF11_PLAN_SAMPLE | DF11_PLAN_INCOMPLETE | DF11_PLAN_ANY_VERSION;
    structs::check_flags::<df11_plan_options>(known.flags, flags)?;
    let parse = |text: String| {
        Patterns::parse(&text).map_err(|e| Error::InvalidArgument(format!("df11_plan_options.pattern_json: {e}")))
    };
    let options = PlanOptions {
        patterns: pattern_json.copy()?.map(parse).transpose()?,
        preset: preset.copy()?,
        open: open.options(known.flags & DF11_PLAN_ANY_VERSION != 0)?,
        sample: known.flags & DF11_PLAN_SAMPLE != 0,
        incomplete: known.flags & DF11_PLAN_INCOMPLETE != 0,
        slots: known.slots,
        cache_number_bytes: u32::try_from(known.cache_number_bytes).unwrap_or(u32::MAX),
    };
    let plan = ModelPlan::new(path.path()?, &options, &progress)?;
    left.tell(plan.left());
    out.give(df11_plan {
        group_names: plan.groups().iter().map(|group| c_text(&group.name)).collect(),
        cache_unknown: plan.cache().err().map(c_text),
        plan,
    });
    Ok(())
}

/// Frees a plan, from any thread. NULL is allowed. Its texts go with it.
///
/// # Safety
///
/// No call uses `plan` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_plan_free(plan: *mut df11_plan) {
    // SAFETY: C caller: `plan` is NULL or is freed once, and nobody uses it any more.
    let plan = unsafe { Owned::new(plan) };
    quietly(|| plan.free());
}

/// Describes a plan. After an error `*out` is cleared except for its struct_size; if that is wrong,
/// `*out` is left alone.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_plan_get_info(
    plan: *const df11_plan,
    out: *mut df11_plan_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `plan` is NULL or a plan, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || plan_info(In::new(plan, PLAN), Info::new(out))) }
}

fn plan_info(plan: In<df11_plan>, out: Info<df11_plan_info>) -> Result<()> {
    let out = out.clear()?;
    let df11_plan { plan, cache_unknown, .. } = plan.get()?;
    let preset = plan.preset().map(static_name).transpose()?.flatten();
    out.set(&df11_plan_info {
        struct_size: 0,
        exact: plan.is_compressed().into(),
        group_count: plan.groups().len() as u64,
        element_count: plan.element_count(),
        packed_bytes: plan.packed_bytes(),
        image_bytes: plan.image_bytes(),
        plain_bytes: plan.plain_bytes(),
        original_bytes: plan.original_bytes(),
        file_count: plan.files().len() as u64,
        written_bytes: plan.files().iter().map(|file| file.bytes).sum(),
        largest_group_element_count: plan.largest_group().map_or(0, |group| group.element_count),
        scratch_bytes: plan.scratch_bytes(),
        cache_bytes_per_token: plan.cache_bytes_per_token().unwrap_or(DF11_PLAN_NONE),
        cached_layer_count: plan.cache().map_or(0, |cache| cache.cached_layers),
        left_count: plan.left().len() as u64,
        preset: preset.map_or(ptr::null(), |name| name.as_ptr()),
        cache_unknown: cache_unknown.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
    })
}

/// Describes the group of that number, from 0, in the natural order of their names. After an error
/// `*out` is as after df11_plan_get_info().
///
/// Errors: DF11_NOT_FOUND if there is no such group; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_plan_get_group_info(
    plan: *const df11_plan,
    group: u64,
    out: *mut df11_plan_group_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `plan` is NULL or a plan, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || group_info(In::new(plan, PLAN), group, Info::new(out))) }
}

fn group_info(plan: In<df11_plan>, group: u64, out: Info<df11_plan_group_info>) -> Result<()> {
    let out = out.clear()?;
    let df11_plan { plan, group_names, .. } = plan.get()?;
    let number = index(group, plan.groups().len(), "group")?;
    let GroupPlan { tensor_count, element_count, packed, image, basis, extended, .. } = &plan.groups()[number];
    out.set(&df11_plan_group_info {
        struct_size: 0,
        name: group_names[number].as_ptr(),
        element_count: *element_count,
        tensor_count: *tensor_count,
        packed_bytes: packed.total(),
        image_bytes: image.image_bytes,
        exact: (*basis == Basis::Exact).into(),
        extended: (*extended).into(),
    })
}

/// Describes what device number `device` of `device_count` holds, from 0, if the model is split by
/// layers (DF11_SPLIT_LAYERS) or by rows (DF11_SPLIT_ROWS). By layers, those of one device follow
/// one another, and the device that holds most holds as little as possible; by rows, all devices
/// hold as much, and what is said of them is an estimate. After an error `*out` is as after
/// df11_plan_get_info().
///
/// Errors: DF11_NOT_FOUND if there is no such device; DF11_UNSUPPORTED_OPTION for another split;
/// DF11_INVALID_ARGUMENT, also for no device or more than 1024.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_plan_get_share_info(
    plan: *const df11_plan,
    split: u32,
    device_count: u32,
    device: u32,
    out: *mut df11_plan_share_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `plan` is NULL or a plan, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || share_info(In::new(plan, PLAN), (split, device_count, device), Info::new(out))) }
}

fn share_info(
    plan: In<df11_plan>,
    (split, count, device): (u32, u32, u32),
    out: Info<df11_plan_share_info>,
) -> Result<()> {
    let out = out.clear()?;
    let (plan, split) = (&plan.get()?.plan, split_of(split)?);
    let (shares, bf16) = (plan.devices(count, split)?, plan.devices_bf16(count, split)?);
    let device = index(device.into(), shares.len(), "device")?;
    let (share, bf16) = (&shares[device], &bf16[device]);
    out.set(&df11_plan_share_info {
        struct_size: 0,
        image_bytes: share.image_bytes,
        plain_bytes: share.plain_bytes,
        scratch_bytes: share.scratch_bytes,
        total_bytes: share.total_bytes(),
        cache_bytes_per_token: share.cache_bytes_per_token.unwrap_or(DF11_PLAN_NONE),
        bf16_bytes: bf16.total_bytes(),
    })
}

fn split_of(split: u32) -> Result<Split> {
    match split {
        DF11_SPLIT_LAYERS => Ok(Split::Layers),
        DF11_SPLIT_ROWS => Ok(Split::Rows),
        other => Err(Error::UnsupportedOption(format!("{other} is no way to split a model"))),
    }
}

/// Counts the tokens whose KV cache fits next to the weights, on `device_count` devices of
/// `device_memory_bytes` bytes each. `*tokens` are those next to the compressed model,
/// `*bf16_tokens` those next to the same model not compressed; DF11_PLAN_NONE if the weights
/// themselves do not fit. Either may be NULL. After an error both are DF11_PLAN_NONE.
///
/// Errors: DF11_NOT_FOUND, with the reason, if the size of the cache is not known, or if its heads
/// cannot be split so; DF11_UNSUPPORTED_OPTION for another split; DF11_INVALID_ARGUMENT, also for no
/// device or more than 1024.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_plan_count_tokens(
    plan: *const df11_plan,
    split: u32,
    device_count: u32,
    device_memory_bytes: u64,
    tokens: *mut u64,
    bf16_tokens: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `plan` is NULL or a plan, the outputs are NULL or can be written.
    unsafe {
        call(error, || {
            let counted = count_tokens(In::new(plan, PLAN), (split, device_count), device_memory_bytes);
            let (compressed, bf16) = counted.as_ref().copied().unwrap_or((None, None));
            Out::new(tokens).offer(compressed.unwrap_or(DF11_PLAN_NONE));
            Out::new(bf16_tokens).offer(bf16.unwrap_or(DF11_PLAN_NONE));
            counted.map(drop)
        })
    }
}

fn count_tokens(plan: In<df11_plan>, (split, count): (u32, u32), memory: u64) -> Result<(Option<u64>, Option<u64>)> {
    let tokens = plan.get()?.plan.tokens(memory, count, split_of(split)?)?;
    Ok((tokens.compressed, tokens.bf16))
}
