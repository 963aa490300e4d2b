//! Writes models: plain safetensors in, DF11 files out. Every byte of every DF11 tensor is what the reference compressor
//! (dfloat11 0.5.0) writes.
//!
//! - `source`: which files are the model, and what it lacks; `roles`: what the files beside it are;
//! - `plan`: which tensors make which group, in which file they go, and what config.json says; it reads and writes nothing;
//! - `target`: the destination: the claim to it, the ledger of what is done, files that get their names when they are complete;
//! - `work`: groups are counted, encoded and verified, in bounded memory, on many threads;
//! - `dry`: what a run would write, without one;
//! - `run`: a run from its beginning to its end;
//! - `finish`: the files that go with the groups, and the order in which names appear;
//! - `finisher`: the thread that brings files to the disk while others work;
//! - `rewrite`: models decompressed, packed into other files, or written as images for devices.
//!
//! # Where things go
//!
//! *A folder* has one file per group. It is named after the module, with `_` for dots, and also holds every other tensor of that
//! module. All other tensors are in `model.safetensors` (`diffusion_pytorch_model.safetensors` for diffusers). The source's
//! config.json is written with `dfloat11_config` in it, and every other file of the source's folder is copied, except weights in
//! other formats, states of a training and downloads that have not ended.
//!
//! A tensor that the reference's format cannot name or hold has a file of its own, named after it, with all of its groups: each is
//! a run of its elements (docs/format.md, "Groups with names and runs").
//!
//! *A single file* has all tensors, and config.json is in the same folder.
//!
//! In both, the order inside a file is the safetensors package's own.
//!
//! Where the reference fails or writes what cannot be read, this does not follow it: see [`crate::huffman::codebook`] and
//! [`crate::huffman::rows::write`] for tables, and [`LeftPlain`] for what stays as it is.

pub(crate) mod dry;
mod finish;
mod finisher;
pub(crate) mod plan;
mod rewrite;
mod roles;
mod run;
mod source;
pub(crate) mod target;
mod work;

pub(crate) use plan::presets;

pub use crate::format::{FileLayout, LayoutTensor, Pattern, Patterns};
#[doc(hidden)]
pub use plan::RunSizes;
pub use plan::presets::Preset;
pub use plan::{AUTOMATIC, Coverage, Part, PlainReason, StaysPlain};
pub use rewrite::{
    DEFAULT_SHARD_BYTES, DecompressOptions, DecompressReport, RepackOptions, RepackReport, decompress, repack,
};
#[cfg(feature = "cuda")]
pub use rewrite::{IMAGE_FILE_ALIGNMENT, ImagesOptions, ImagesReport, write_images};
pub use target::NewFile;

use crate::error::Result;
use crate::format::Missing;
use crate::progress::Progress;
use run::Run;
use std::path::{Path, PathBuf};

/// The files that a model becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// A file, if the destination's name ends in `.safetensors`; else a folder of one file per group.
    #[default]
    ByName,
    /// A folder of one file per group.
    Folder,
    /// One file: the destination, if its name ends in `.safetensors`, else `model.safetensors` in that folder.
    SingleFile,
}

/// Options to compress a model.
///
/// ```
/// use df11::writer::{CompressOptions, Layout};
/// let options = CompressOptions::new().threads(8).layout(Layout::SingleFile).hashes(true);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompressOptions {
    /// Number of threads, including the calling one; 0 means 1. One more thread brings files to the disk. If a thread cannot be
    /// started, fewer work.
    pub threads: usize,
    /// Most bytes of memory to work in; 0 means [`DEFAULT_MEMORY`]. Fewer threads work if it is not enough for all. Headers and the
    /// list of tensors come on top; the system's cache of files is not counted.
    pub memory: u64,
    /// The groups; `None` takes those of `preset`.
    pub patterns: Option<Patterns>,
    /// The name of a preset, or [`AUTOMATIC`]; `None` chooses the best by config.json and the tensors.
    pub preset: Option<String>,
    /// The files that are written.
    pub layout: Layout,
    /// The part of the groups to do. Other processes do the others in the same folder, and when all are finished, one process calls
    /// [`merge`].
    pub part: Part,
    /// Resume what an interrupted run of the same job has left. Groups that are done are taken over after every bit of them has been
    /// compared with the source; those that differ are written again. If the model is complete already, every bit is compared, and
    /// files that go with the tensors (config.json, tokenizers) are added if they are missing; one that differs is an error.
    pub resume: bool,
    /// Fail with [`Error::Exists`](crate::Error::Exists) instead of overwriting the destination or its own config. This is checked at
    /// the beginning and once more at the end. Resuming a run that was started with overwriting allowed, when there was a file to
    /// overwrite, still overwrites.
    pub keep_existing: bool,
    /// Decode each group from its file and compare it before the file gets its name.
    pub verify: bool,
    /// Fail if something that the patterns ask for cannot be compressed.
    pub strict: bool,
    /// Write a copy of a source of which nothing can be compressed, instead of failing.
    pub allow_plain: bool,
    /// Compress a source that lacks files, tensors or layers ([`Model::missing`](crate::Model::missing)), instead of failing. What it
    /// lacks is noted in config.json, and is not reported of the compressed model.
    pub incomplete: bool,
    /// Write SHA-256 of every tensor to the files' metadata ([`crate::format::HASHES_KEY`]).
    pub hashes: bool,
    /// Write the shapes of compressed tensors to the files' metadata ([`crate::format::SHAPES_KEY`]). With automatic groups,
    /// which no other program writes, they are always written.
    pub shapes: bool,
    /// Leave plain what the reference's format cannot name or hold, instead of writing it by an extension of the format that
    /// only this library reads: experts in one tensor without `.weight`, tensors of 2^32 weights. With `patterns` or `preset`
    /// that is always so.
    pub reference_only: bool,
    #[doc(hidden)]
    pub run_sizes: RunSizes,
}

impl Default for CompressOptions {
    fn default() -> Self {
        CompressOptions {
            threads: 0,
            memory: 0,
            patterns: None,
            preset: None,
            layout: Layout::ByName,
            part: Part::WHOLE,
            resume: false,
            keep_existing: false,
            verify: true,
            strict: false,
            allow_plain: false,
            incomplete: false,
            hashes: false,
            shapes: false,
            reference_only: false,
            run_sizes: RunSizes::default(),
        }
    }
}

impl CompressOptions {
    /// Returns the defaults: one thread, a preset that is chosen by the source, and every group verified.
    pub fn new() -> CompressOptions {
        CompressOptions::default()
    }

    /// Sets the threads to work with, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the most bytes of memory to work in; 0 means [`DEFAULT_MEMORY`].
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
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

    /// Sets what is written: a folder or a single file.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets which part of the groups to write.
    pub fn part(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// Sets whether to resume what an interrupted run has left.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Sets whether to fail instead of overwriting the destination.
    pub fn keep_existing(mut self, keep_existing: bool) -> Self {
        self.keep_existing = keep_existing;
        self
    }

    /// Sets whether to decode each group from its file and compare it before the file gets its name.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets whether it is an error if something that the patterns ask for cannot be compressed.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets whether to write a copy of a source of which nothing can be compressed.
    pub fn allow_plain(mut self, allow_plain: bool) -> Self {
        self.allow_plain = allow_plain;
        self
    }

    /// Sets whether to compress a source that lacks something.
    pub fn incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }

    /// Sets whether to write the SHA-256 of every tensor to the files' metadata.
    pub fn hashes(mut self, hashes: bool) -> Self {
        self.hashes = hashes;
        self
    }

    /// Sets whether to write the shapes of compressed tensors to the files' metadata.
    pub fn shapes(mut self, shapes: bool) -> Self {
        self.shapes = shapes;
        self
    }

    /// Sets whether to leave plain what only an extension of the format could hold, so that every program that reads DF11 reads
    /// the whole model.
    pub fn reference_only(mut self, reference_only: bool) -> Self {
        self.reference_only = reference_only;
        self
    }

    /// Sets where tensors are cut into runs: for tests, which have no tensors of gigabytes.
    #[doc(hidden)]
    pub fn run_sizes(mut self, sizes: RunSizes) -> Self {
        self.run_sizes = sizes;
        self
    }
}

/// Memory to work in, if nothing else is said: 512 MiB, which is enough for 100 threads.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// A tensor that the patterns ask for and that is stored as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftPlain {
    /// Its name.
    pub tensor: String,
    /// The group that it would have been in. A group stays plain as a whole: readers match its tensors with the pattern's list by
    /// position, so none may be missing.
    pub group: String,
    /// The reason.
    pub reason: String,
}

/// A file of the source's folder that is not the model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SideFile {
    /// Its path below the folder.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The name of the preset whose patterns were used, or [`AUTOMATIC`]; `None` if patterns were given.
    pub preset: Option<String>,
    /// Groups written, including those of an earlier run.
    pub groups: u64,
    /// Those of them that are an extension of the format: programs that know only DF11 do not find their weights.
    pub extended_groups: u64,
    /// Weights in them.
    pub weights: u64,
    /// Bytes of those weights before compression, 2 each.
    pub weight_bytes: u64,
    /// Bytes of the groups' members.
    pub packed_bytes: u64,
    /// Bytes of all tensors of the source.
    pub source_bytes: u64,
    /// Bytes of the safetensors files now.
    pub written_bytes: u64,
    /// Groups of an earlier run that were taken over.
    pub resumed: u64,
    /// What share of the bf16 bytes is in groups, and what stays plain and why: all of it, also what nobody asked for.
    pub coverage: Coverage,
    /// Tensors that the patterns ask for and that could not be compressed.
    pub left: Vec<LeftPlain>,
    /// Tied heads that were not stored, each with the embedding that it is equal to.
    pub dropped: Vec<(String, String)>,
    /// Patterns that no module matches.
    pub unmatched_patterns: Vec<String>,
    /// Files of the source's folder that were copied as they are: tokenizers, code, licences.
    pub carried: Vec<SideFile>,
    /// Files of the source's folder that were not: weights in other formats or of other models, states of a training, and
    /// downloads that have not ended.
    pub left_behind: Vec<SideFile>,
    /// What the source lacks, and config.json now says so.
    pub missing: Vec<Missing>,
    /// True if the model is complete. A model that is written in parts is completed by [`merge`].
    pub complete: bool,
}

/// Compresses a model: `source` is a folder in Hugging Face layout or a `.safetensors` file. Nothing of it is changed.
///
/// No reader takes what an interrupted run leaves for a model. [`CompressOptions::resume`] resumes it, and the result
/// has the same bytes.
///
/// # Errors
///
/// - `InvalidArgument` for what the caller can change;
/// - `Exists`, `Unfinished` and `Busy` for what is at the destination already: a file, what an interrupted run has left, another
///   process that writes there;
/// - `InvalidFormat` and `Corrupt` for what is wrong with the source, and if it lacks something without
///   [`incomplete`](CompressOptions::incomplete);
/// - `UnsupportedFormat` if nothing can be compressed without [`allow_plain`](CompressOptions::allow_plain), or if something cannot
///   and `strict` is set;
/// - `Io`, `OutOfMemory`; `Cancelled` by `progress`.
pub fn compress(source: &Path, destination: &Path, options: &CompressOptions, progress: &Progress) -> Result<Report> {
    progress.begin(0);
    progress.check()?;
    Run::new(source, destination, options, progress)?.compress(progress)
}

/// Completes a model whose parts are all finished: writes what belongs to no group, config.json and the files that go with
/// it, and checks that nothing is missing. `options` are those of the parts, with any `part` and `resume`.
///
/// The source must be the same for all parts. Its headers, sizes and samples of its bytes are compared with those that the parts
/// saw; `verify` with the original compares every bit.
///
/// # Errors
///
/// As [`compress`]; `InvalidArgument` if a part is not finished.
pub fn merge(source: &Path, destination: &Path, options: &CompressOptions, progress: &Progress) -> Result<Report> {
    progress.begin(0);
    progress.check()?;
    let parts = target::parts_of(destination)?.unwrap_or(1);
    let options = CompressOptions { part: Part { number: 1, count: parts }, resume: true, ..options.clone() };
    Run::new(source, destination, &options, progress)?.merge(progress)
}

/// The patterns for a model, and what they make of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PatternChoice {
    /// The patterns. None at all, if no pattern can name anything of the model.
    pub patterns: Patterns,
    /// The name of the preset that has them, or [`AUTOMATIC`].
    pub name: &'static str,
    /// Groups that they make.
    pub groups: u64,
    /// Groups that are made besides, of tensors that no pattern can name: only this library reads them (docs/format.md).
    pub extended_groups: u64,
    /// Bytes of the model's bf16 tensors, without the head if it is tied and need not be stored.
    pub bf16_bytes: u64,
    /// How many of them are in groups of the patterns.
    pub grouped_bf16_bytes: u64,
    /// How many of them are in the other groups.
    pub extended_bf16_bytes: u64,
}

/// Returns the patterns by which [`compress`] would compress a model: those of `preset`, a name or [`AUTOMATIC`], or the best. Only
/// headers and config.json are read.
///
/// # Errors
///
/// Those of [`compress`] for the source and the preset.
pub fn patterns_for(source: &Path, preset: Option<&str>) -> Result<PatternChoice> {
    let progress = Progress::new();
    let source = source::Source::open(source, &progress)?;
    let table: Vec<plan::SourceTensor> = source.model.tensors().map(plan::SourceTensor::from).collect();
    let wanted = plan::Wanted::of(preset, None)?;
    let mut grouping = source.grouping(&table, wanted, &progress)?;
    if wanted.is_free() {
        plan::extend(&mut grouping.plan, &table, &plan::RunSizes::default());
    }
    let plan = &grouping.plan;
    let mut counted = vec![true; table.len()];
    plan.dropped.iter().for_each(|dropped| counted[dropped.tensor] = false);
    let bytes = |tensors: &mut dyn Iterator<Item = usize>| tensors.map(|t| table[t].bf16_bytes()).sum();
    let bf16_bytes = bytes(&mut (0..table.len()).filter(|&t| counted[t]));
    let mut grouped = vec![false; table.len()];
    plan.groups.iter().flat_map(|g| &g.members).for_each(|&member| grouped[member] = true);
    Ok(PatternChoice {
        name: grouping.origin.name().unwrap_or_default(),
        groups: plan.groups.len() as u64,
        extended_groups: plan.in_runs.iter().map(|planned| planned.runs.len() as u64).sum(),
        bf16_bytes,
        grouped_bf16_bytes: bytes(&mut (0..table.len()).filter(|&t| grouped[t])),
        extended_bf16_bytes: bytes(&mut plan.in_runs.iter().map(|planned| planned.tensor)),
        patterns: grouping.patterns,
    })
}

/// Tells whether a destination has something that an interrupted run has left, and that [`CompressOptions::resume`] resumes. Not
/// whether it is the same job: a run says that when it begins.
pub fn is_unfinished(destination: &Path) -> bool {
    // As a folder, whatever it is called, and as a single file.
    let ledger = target::ledger_of_file(destination.file_name().unwrap_or_default());
    target::has_unfinished(destination) || destination.with_file_name(ledger).is_file()
}
