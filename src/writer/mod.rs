//! Models out: plain safetensors in, DF11 files out, every byte of every DF11 tensor as the reference compressor
//! (dfloat11 0.5.0) writes it.
//!
//! - [`presets`]: the groupings of published models, and which one a model wants;
//! - [`plan`]: which tensors make which group, and in which file they go;
//! - `input`: which files of a folder are the model, and which only go with it;
//! - `job`: a compression from its beginning to its end;
//! - `engine`: the work, in bounded memory, on many threads;
//! - `tasks`: what its threads do next;
//! - `check`: the verification of what was written;
//! - `config`: config.json;
//! - `destination`: where a model goes, and what may not be there;
//! - `target`: files that get their names when they are complete, folders and locks;
//! - `state`, `journal`: what is kept of folders and of single files to go on after an interruption.
//!
//! # Where things go
//!
//! *A folder*: one file per group, called by the module's name with `_` for dots, which also holds every other tensor of
//! that module; the rest in `model.safetensors` (`diffusion_pytorch_model.safetensors` for diffusers); the source's config.json with
//! `dfloat11_config` in it; and every other file of the source's folder, but for weights in other formats.
//! *A single file*: all tensors in one, and config.json beside it. In both, the order inside a file is the safetensors
//! package's own.
//!
//! Where the reference fails or writes what cannot be read, this does not follow it: see [`crate::huffman::codebook`] and
//! [`crate::huffman::rows::write`] for tables, and [`LeftPlain`] for what stays as it is.

mod check;
mod config;
mod destination;
mod engine;
mod input;
mod job;
mod journal;
pub(crate) mod plan;
pub(crate) mod presets;
mod state;
pub(crate) mod target;
mod tasks;

pub use crate::format::{FileLayout, LayoutTensor, Pattern, Patterns};
pub use presets::Preset;
pub use state::Part;
pub use target::reserve;

use crate::error::Result;
use crate::progress::Progress;
use job::Job;
use std::path::{Path, PathBuf};

/// What a model is made into.
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

/// How to compress a model.
///
/// ```
/// use df11::writer::{CompressOptions, Layout};
/// let options = CompressOptions::new().threads(8).layout(Layout::SingleFile).hashes(true);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompressOptions {
    /// Threads to work with, the calling one among them; 0 means 1. One more brings files to the disk.
    pub threads: usize,
    /// Bytes of memory to work in at most; 0 means [`DEFAULT_MEMORY`]. Fewer threads work if it is not enough for all. What headers and
    /// the list of tensors take comes on top, and the system's cache of files is not counted.
    pub memory: u64,
    /// The groups; `None` takes those of `preset`.
    pub patterns: Option<Patterns>,
    /// The name of a preset; `None` chooses one by config.json and the tensors' names.
    pub preset: Option<String>,
    /// What is written.
    pub layout: Layout,
    /// Which part of the groups to do. Other processes do the others, in the same folder, and then somebody calls
    /// [`merge`].
    pub part: Part,
    /// Go on with what an interrupted run has left. Where no tensor is missing, every bit is compared with the source, and what
    /// goes with the tensors (config.json, tokenizers) is written where it is not there; where it differs, that is an error.
    pub resume: bool,
    /// Fail ([`Error::Exists`](crate::Error::Exists)) rather than replace a file that has the destination's name, or that of its own
    /// config, unless the file is what would be written, or the run that is gone on with began without this when there was one to
    /// replace. It is looked for at the beginning and once more at the end.
    pub keep_existing: bool,
    /// Decode each group from its file and compare before the file gets its name.
    pub verify: bool,
    /// Make it an error if something that the patterns ask for cannot be compressed.
    pub strict: bool,
    /// Write SHA-256 of every tensor to the files' metadata ([`crate::format::HASHES_KEY`]).
    pub hashes: bool,
    /// Write the shapes of compressed tensors to the files' metadata ([`crate::format::SHAPES_KEY`]).
    pub shapes: bool,
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
            hashes: false,
            shapes: false,
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
}

/// Memory to work in, if nothing else is said: 512 MiB, which is enough for 100 threads.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// A tensor that the patterns ask for and that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftPlain {
    /// Its name.
    pub tensor: String,
    /// The group that it would have been in. A group stays plain as a whole: readers pair its tensors with the pattern's
    /// list by their places, so that it cannot do without one.
    pub group: String,
    /// Why.
    pub reason: String,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The preset whose groups these are, if it was one.
    pub preset: Option<String>,
    /// Groups written, those of an earlier run among them.
    pub groups: u64,
    /// Weights in them.
    pub weights: u64,
    /// Bytes of those weights before, 2 each.
    pub weight_bytes: u64,
    /// Bytes of the groups' members.
    pub packed_bytes: u64,
    /// Bytes of all tensors of the source.
    pub source_bytes: u64,
    /// Bytes of the safetensors files that there are now.
    pub written_bytes: u64,
    /// Groups that were there already, of an earlier run.
    pub resumed: u64,
    /// What could not be compressed.
    pub left: Vec<LeftPlain>,
    /// Tied heads that were not stored, with the embedding that they are equal to.
    pub dropped: Vec<(String, String)>,
    /// Patterns that no module matches.
    pub unmatched_patterns: Vec<String>,
    /// Files of the source's folder that were copied as they are.
    pub carried: Vec<PathBuf>,
    /// Files of the source's folder that were not: weights in other formats, or of other models.
    pub left_behind: Vec<PathBuf>,
    /// Whether the model is complete: not before [`merge`], where it was written in parts.
    pub complete: bool,
}

/// Compresses a model: `source` is a folder in Hugging Face layout or a `.safetensors` file. Nothing of it is changed.
///
/// An interrupted run leaves only what no reader takes for a model, and [`CompressOptions::resume`] goes on with it; the bytes
/// are then the same.
///
/// # Errors
///
/// `InvalidArgument` for what the caller can change, `InvalidFormat` and `Corrupt` for what is wrong with the source,
/// `UnsupportedFormat` if it cannot be compressed and `strict` is set, `Io`, `OutOfMemory`; `Cancelled` by `progress`.
pub fn compress(source: &Path, destination: &Path, options: &CompressOptions, progress: &Progress) -> Result<Report> {
    progress.begin(0);
    progress.check()?;
    Job::new(source, destination, options)?.run(progress)
}

/// Completes a model whose parts are all finished: writes what belongs to no group, config.json and the files that go with
/// it, and checks that nothing is missing. `options` are those of the parts, with any `part` and `resume`.
///
/// # Errors
///
/// As [`compress`]; `InvalidArgument` if a part is not finished.
pub fn merge(source: &Path, destination: &Path, options: &CompressOptions, progress: &Progress) -> Result<Report> {
    progress.begin(0);
    progress.check()?;
    let parts = state::parts_of(destination)?.unwrap_or(1);
    let options = CompressOptions { part: Part { number: 1, count: parts }, resume: true, ..options.clone() };
    let job = Job::new(source, destination, &options)?;
    job.merge(progress)
}
