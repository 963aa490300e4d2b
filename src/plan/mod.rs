//! What a model becomes and what it needs, before anything of it is written or uploaded: groups and files, their sizes, the memory
//! that it takes on one device or on several, and how many tokens of KV cache fit next to it.
//!
//! A [`ModelPlan`] is made from headers and config.json. The sizes of a DF11 model are exact, because its files state them. Those
//! of a plain model are estimates: how many bits an exponent's code takes is known only when the weights are counted.
//! Without [`PlanOptions::sample`] no weight is read, and [`ASSUMED_CODE_BITS`] bits are assumed; with it, some weights of
//! each kind of group are counted.
//!
//! - this file: the plan, and how it is made from a plain model or a DF11 model;
//! - `estimate`: sizes of groups that are not there yet;
//! - `devices`: a model on several devices, by layers or by rows;
//! - `cache`: the KV cache, from config.json and the tensors.
//!
//! What is not counted: activations, an engine's own workspace, what a driver takes for itself (some hundred megabytes), and
//! the fragmentation of memory.
//!
//! ```no_run
//! use df11::plan::{ModelPlan, PlanOptions, Split};
//! # fn main() -> Result<(), df11::Error> {
//! let plan = ModelPlan::new("Qwen3-8B", &PlanOptions::new(), &df11::Progress::new())?;
//! let tokens = plan.tokens(24_000_000_000, 1, Split::Layers)?;
//! println!("{:?} tokens instead of {:?}", tokens.compressed, tokens.bf16);
//! # Ok(()) }
//! ```

mod cache;
mod devices;
mod estimate;

pub use cache::KvCache;
pub use devices::{DeviceShare, Split, Tokens};
pub use estimate::{ASSUMED_CODE_BITS, Basis};

use crate::cuda::ImageLayout;
use crate::error::{Error, Result};
use crate::format::{Access, Model, OpenOptions, config_text, natural, of_python};
use crate::host::PackedSizes;
use crate::progress::Progress;
use crate::writer::dry::Dry;
use crate::writer::{CompressOptions, Coverage, LeftPlain, Patterns};
use devices::{Unit, units};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Options of a plan.
///
/// ```
/// let options = df11::plan::PlanOptions::new().sample(true).slots(1);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PlanOptions {
    /// The groups; `None` takes those of `preset`. A DF11 model has its own.
    pub patterns: Option<Patterns>,
    /// The name of a preset, or `automatic`; `None` chooses the groups as [`crate::writer::compress`] does.
    pub preset: Option<String>,
    /// How a DF11 model is opened. A config and shapes are for such a model only.
    pub open: OpenOptions,
    /// True to count some weights of each kind of group, instead of assuming how well they compress.
    pub sample: bool,
    /// True to plan what is there of a model that lacks something.
    pub incomplete: bool,
    /// Buffers for decoded weights, each as large as the largest group; 0 means [`DEFAULT_SLOTS`].
    pub slots: u32,
    /// Bytes of a number in the KV cache; 0 means 2, as bf16 has.
    pub cache_number_bytes: u32,
}

/// Buffers for decoded weights, if nothing else is said: one that is decoded to, and one that is multiplied with.
pub const DEFAULT_SLOTS: u32 = 2;

impl PlanOptions {
    /// Returns the defaults: groups as `compress` chooses them, nothing read but headers and a head that is said to be tied, two slots, a cache of bf16.
    pub fn new() -> PlanOptions {
        PlanOptions::default()
    }

    /// Sets the groups.
    pub fn patterns(mut self, patterns: impl Into<Option<Patterns>>) -> Self {
        self.patterns = patterns.into();
        self
    }

    /// Sets the name of the preset that says which groups there are.
    pub fn preset(mut self, name: impl Into<String>) -> Self {
        self.preset = Some(name.into());
        self
    }

    /// Sets how a DF11 model is opened.
    pub fn open(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }

    /// Sets whether some weights are counted.
    pub fn sample(mut self, sample: bool) -> Self {
        self.sample = sample;
        self
    }

    /// Sets whether to plan what is there of a model that lacks something.
    pub fn incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }

    /// Sets the buffers for decoded weights.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Sets the bytes of a number in the KV cache.
    pub fn cache_number_bytes(mut self, bytes: u32) -> Self {
        self.cache_number_bytes = bytes;
        self
    }
}

/// A group of a plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupPlan {
    /// The module's full name.
    pub name: String,
    /// Its tensors.
    pub tensor_count: u64,
    /// The weights in all of them.
    pub element_count: u64,
    /// Bytes of its six members in the file.
    pub packed: PackedSizes,
    /// The layout of its image on a device.
    pub image: ImageLayout,
    /// True if only programs that know an extension of the format find its weights: docs/format.md says which.
    pub extended: bool,
    /// Where the sizes are from.
    pub basis: Basis,
}

/// A tensor that is stored as it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlainPlan {
    /// Its full name.
    pub name: String,
    /// The type of its elements.
    pub dtype: safetensors::Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Bytes of its values.
    pub bytes: u64,
}

/// A file of a plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FilePlan {
    /// Its name: of a DF11 model the path, else a path below the destination.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// A plan of a model. See the [module](self).
#[derive(Debug)]
pub struct ModelPlan {
    compressed: bool,
    preset: Option<&'static str>,
    groups: Vec<GroupPlan>,
    plain: Vec<PlainPlan>,
    coverage: Option<Coverage>,
    left: Vec<LeftPlain>,
    dropped: Vec<(String, String)>,
    unmatched_patterns: Vec<String>,
    files: Vec<FilePlan>,
    /// Bytes of all tensors as they are, or as they come out.
    original_bytes: u64,
    /// What stays together on one device.
    units: Vec<Unit>,
    cache: std::result::Result<KvCache, String>,
    slots: u32,
    number_bytes: u32,
}

/// The most slots, and the most bytes of a number in the cache.
const MOST_SLOTS: u32 = 64;
const MOST_NUMBER_BYTES: u32 = 8;

impl ModelPlan {
    /// Plans a model: a folder or a file, plain or DF11.
    ///
    /// # Errors
    ///
    /// Those of [`crate::writer::compress`] for the source and its groups, and those of [`Model::open`] for a DF11 model;
    /// `InvalidArgument` for options that are out of range, that name groups for a DF11 model, which has its own, or that
    /// have a config or shapes for a model that is no DF11 model.
    pub fn new(path: impl AsRef<Path>, options: &PlanOptions, progress: &Progress) -> Result<ModelPlan> {
        progress.begin(0);
        progress.check()?;
        let invalid = |reason: String| Err(Error::InvalidArgument(reason));
        if options.slots > MOST_SLOTS {
            return invalid(format!("{} slots: {MOST_SLOTS} are the most", options.slots));
        }
        if options.cache_number_bytes > MOST_NUMBER_BYTES {
            let bytes = options.cache_number_bytes;
            return invalid(format!("{bytes} bytes for a number of the KV cache: {MOST_NUMBER_BYTES} are the most"));
        }
        let groups = CompressOptions {
            patterns: options.patterns.clone(),
            preset: options.preset.clone(),
            incomplete: options.incomplete,
            ..CompressOptions::default()
        };
        match Dry::new(path.as_ref(), &groups, progress) {
            Ok(_) if options.open.config.is_some() => {
                invalid("the model is not compressed: a config is given for a compressed one only".into())
            }
            Ok(_) if options.open.shapes_from.is_some() || options.open.shapes.is_some() => {
                invalid("the model is not compressed: its files say its shapes".into())
            }
            Ok(dry) => Self::of_plain(&dry, options, progress),
            // It may be compressed already. If it is, that is no mistake here.
            Err(error @ Error::InvalidArgument(_)) => {
                let model = Model::open_watched(path.as_ref(), &options.open, Access::Read, progress)?;
                let model = model.verified(&options.open, progress)?;
                if model.groups().len() == 0 {
                    return Err(error);
                }
                if options.patterns.is_some() || options.preset.is_some() {
                    return invalid("the model is compressed already: it has its own groups".into());
                }
                model.require_whole(path.as_ref(), "plan", options.incomplete, progress)?;
                Self::of_compressed(&model, path.as_ref(), options)
            }
            Err(error) => Err(error),
        }
    }

    /// Plans a model that is not compressed yet.
    fn of_plain(dry: &Dry, options: &PlanOptions, progress: &Progress) -> Result<ModelPlan> {
        let model = &dry.source.model;
        let codes = match options.sample {
            true => estimate::sample(model, &dry.groups, progress)?,
            false => vec![None; dry.groups.len()],
        };
        let mut groups = Vec::with_capacity(dry.groups.len());
        for (group, code) in dry.groups.iter().zip(codes) {
            progress.check()?;
            groups.push(estimate::group(group, code.as_ref())?);
        }
        let is_dropped = |t: &usize| dry.plan.dropped.iter().any(|d| d.tensor == *t);
        let stored: Vec<usize> = dry.plan.plain.iter().copied().filter(|t| !is_dropped(t)).collect();
        let plain = stored.iter().map(|&t| plain_of(model.tensor_at(t))).collect();
        let name = |t: usize| model.tensor_at(t).name().to_owned();
        let left = |l: &crate::writer::plan::Left| {
            let (group, reason) = (l.group.clone(), l.reason.clone());
            let each = move |&t: &usize| LeftPlain { tensor: name(t), group: group.clone(), reason: reason.clone() };
            l.tensors.iter().map(each).collect::<Vec<_>>()
        };
        let sizes: Vec<_> = groups.iter().map(|g| g.packed.each()).collect();
        let files = dry.files(&stored, &sizes, progress)?;
        groups.sort_by(|a, b| natural(&a.name, &b.name));
        Ok(ModelPlan {
            compressed: false,
            preset: dry.grouping,
            coverage: Some(dry.coverage.clone()),
            left: dry.plan.left.iter().flat_map(left).collect(),
            dropped: dry.plan.dropped.iter().map(|d| (name(d.tensor), name(d.embedding))).collect(),
            unmatched_patterns: dry.plan.unmatched_patterns.clone(),
            files: files.into_iter().map(|(path, bytes)| FilePlan { path, bytes }).collect(),
            ..Self::of_parts(model, dry.source.parsed.as_ref(), groups, plain, options)
        })
    }

    /// Plans a DF11 model.
    fn of_compressed(model: &Model, path: &Path, options: &PlanOptions) -> Result<ModelPlan> {
        let group = |g: crate::Group| {
            Ok(GroupPlan {
                name: g.name().to_owned(),
                tensor_count: g.tensors().len() as u64,
                element_count: g.element_count(),
                packed: PackedSizes::of_group(g),
                image: ImageLayout::of(g)?,
                extended: g.is_extended(),
                basis: Basis::Exact,
            })
        };
        let groups = model.groups().map(group).collect::<Result<Vec<_>>>()?;
        let plain = model.tensors().filter(|t| t.group().is_none()).map(plain_of).collect();
        let config = config_text(path, &options.open)?;
        let config = config.and_then(|text| serde_json::from_slice::<Value>(&of_python(text.as_bytes())).ok());
        let files = model.files().map(|f| FilePlan { path: f.file.to_owned(), bytes: f.bytes }).collect();
        Ok(ModelPlan { compressed: true, files, ..Self::of_parts(model, config.as_ref(), groups, plain, options) })
    }

    fn of_parts(
        model: &Model,
        config: Option<&Value>,
        groups: Vec<GroupPlan>,
        plain: Vec<PlainPlan>,
        options: &PlanOptions,
    ) -> ModelPlan {
        let cache = cache::find(config, model);
        ModelPlan {
            compressed: false,
            preset: None,
            units: units(&groups, &plain, cache.as_ref().ok()),
            groups,
            plain,
            coverage: None,
            left: Vec::new(),
            dropped: Vec::new(),
            unmatched_patterns: Vec::new(),
            files: Vec::new(),
            original_bytes: model.tensors().map(|t| t.bytes()).sum(),
            cache,
            slots: if options.slots == 0 { DEFAULT_SLOTS } else { options.slots },
            number_bytes: if options.cache_number_bytes == 0 { 2 } else { options.cache_number_bytes },
        }
    }

    /// Tells whether the model is a DF11 model, of which all sizes are exact.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Returns the name of the preset whose groups these are, or `automatic`; `None` for groups of the options, and for those that a
    /// DF11 model has.
    pub fn preset(&self) -> Option<&'static str> {
        self.preset
    }

    /// Returns the groups, in the natural order of their names.
    pub fn groups(&self) -> &[GroupPlan] {
        &self.groups
    }

    /// Returns the tensors that are stored as they are.
    pub fn plain(&self) -> &[PlainPlan] {
        &self.plain
    }

    /// Returns what share of the model is in groups, and why the rest stays plain; `None` for a DF11 model.
    pub fn coverage(&self) -> Option<&Coverage> {
        self.coverage.as_ref()
    }

    /// Returns the tensors among them that the patterns ask for and that cannot be compressed. Infinities and NaN are seen only
    /// when the weights are.
    pub fn left(&self) -> &[LeftPlain] {
        &self.left
    }

    /// Returns heads that are not stored because they are tied, each with its embedding, to which it is equal.
    pub fn dropped(&self) -> &[(String, String)] {
        &self.dropped
    }

    /// Returns the patterns that no module matches.
    pub fn unmatched_patterns(&self) -> &[String] {
        &self.unmatched_patterns
    }

    /// Returns the `.safetensors` files: of a DF11 model those that there are, else those of a folder that `compress` writes.
    pub fn files(&self) -> &[FilePlan] {
        &self.files
    }

    /// Returns the KV cache of a token, or why it is not known.
    pub fn cache(&self) -> std::result::Result<&KvCache, &str> {
        self.cache.as_ref().map_err(String::as_str)
    }

    /// Returns the bytes that a token takes in the KV cache, in all layers; `None` if that is not known.
    pub fn cache_bytes_per_token(&self) -> Option<u64> {
        self.cache.as_ref().ok().map(|cache| cache.elements_per_token * u64::from(self.number_bytes))
    }

    /// Returns the bytes of all tensors, not compressed.
    pub fn original_bytes(&self) -> u64 {
        self.original_bytes
    }

    /// Returns the weights in groups.
    pub fn element_count(&self) -> u64 {
        self.groups.iter().map(|g| g.element_count).sum()
    }

    /// Returns the bytes of all groups' members.
    pub fn packed_bytes(&self) -> u64 {
        self.groups.iter().map(|g| g.packed.total()).sum()
    }

    /// Returns the bytes of all images.
    pub fn image_bytes(&self) -> u64 {
        self.groups.iter().map(|g| g.image.image_bytes).sum()
    }

    /// Returns the bytes of the tensors that are stored as they are.
    pub fn plain_bytes(&self) -> u64 {
        self.plain.iter().map(|t| t.bytes).sum()
    }

    /// Returns the group with the most weights.
    pub fn largest_group(&self) -> Option<&GroupPlan> {
        self.groups.iter().max_by_key(|g| g.element_count)
    }

    /// Returns the number of buffers for decoded weights.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Returns the bytes of a number in the KV cache.
    pub fn cache_number_bytes(&self) -> u32 {
        self.number_bytes
    }

    /// Returns the bytes of all buffers for decoded weights.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch(self.largest_group().map_or(0, |g| g.element_count))
    }

    /// Returns the bytes of buffers for that many weights.
    fn scratch(&self, weights: u64) -> u64 {
        weights.saturating_mul(2 * u64::from(self.slots))
    }
}

fn plain_of(tensor: crate::Tensor) -> PlainPlan {
    PlainPlan {
        name: tensor.name().to_owned(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.bytes(),
    }
}
