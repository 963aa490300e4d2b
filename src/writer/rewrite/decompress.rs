//! A model decompressed: a folder as it is published, or one file.

use super::copy::{self, OutFile, Values};
use super::folder::Content;
use super::select::select;
use super::shards::distribute;
use super::{SingleFile, check_destination};
use crate::error::{Error, Result, shorten_path};
use crate::format::{Access, LayoutTensor, Model, OpenOptions, Tensor, config_text, of_python};
use crate::host;
use crate::progress::Progress;
use crate::writer::plan::{self, SourceTensor, config, is_file};
use crate::writer::source::{companion_paths, main_file};
use crate::writer::target::refuse_existing;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of a file at most, if nothing else is said: 5 GB, as transformers has it.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Options to decompress a model.
///
/// ```
/// use df11::writer::DecompressOptions;
/// let options = DecompressOptions::new().threads(8).shard_bytes(2_000_000_000);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DecompressOptions {
    /// Number of threads, including the calling one; 0 means 1, and more than 128 do not help. One more thread brings files to the
    /// disk. Each works in some 3 MiB of memory.
    pub threads: usize,
    /// How the model is opened.
    pub open: OpenOptions,
    /// The names of the tensors that are written. If there are none and no `groups`, all are.
    pub tensors: Vec<String>,
    /// The names of groups whose tensors are written.
    pub groups: Vec<String>,
    /// Most bytes of the tensors of one file in a folder; 0 means [`DEFAULT_SHARD_BYTES`]. A tensor that is larger has a file of
    /// its own.
    pub shard_bytes: u64,
    /// Write tensors of unknown shapes to a folder with one dimension, instead of failing with
    /// [`Error::ShapesUnknown`](crate::Error::ShapesUnknown). They always are in a single file.
    pub flat: bool,
    /// Fail with [`Error::Exists`](crate::Error::Exists) instead of replacing a file. A folder that is not empty is never written
    /// to.
    pub keep_existing: bool,
    /// Accept a model that lacks files, tensors or layers, and write what is there. Without it such a model is refused; one of
    /// which `tensors` or `groups` are chosen never is.
    pub incomplete: bool,
}

impl DecompressOptions {
    /// Returns the defaults: one thread, all tensors, files of 5 GB, and shapes that must be known.
    pub fn new() -> DecompressOptions {
        DecompressOptions::default()
    }

    /// Sets the threads to work with, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets how the model is opened.
    pub fn open(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }

    /// Sets the names of the tensors that are written.
    pub fn tensors(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tensors = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the names of the groups whose tensors are written.
    pub fn groups(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the most bytes of the tensors of one file in a folder; 0 means [`DEFAULT_SHARD_BYTES`].
    pub fn shard_bytes(mut self, bytes: u64) -> Self {
        self.shard_bytes = bytes;
        self
    }

    /// Sets whether tensors of unknown shapes are written to a folder with one dimension.
    pub fn flat(mut self, flat: bool) -> Self {
        self.flat = flat;
        self
    }

    /// Sets whether to fail instead of replacing a file.
    pub fn keep_existing(mut self, keep_existing: bool) -> Self {
        self.keep_existing = keep_existing;
        self
    }

    /// Sets whether a model that lacks something is accepted.
    pub fn incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }
}

/// The result of decompressing a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecompressReport {
    /// Tensors that were written.
    pub tensors: u64,
    /// Those of them that have one dimension because their shapes are not known.
    pub flat: u64,
    /// Files of tensors.
    pub files: u64,
    /// Bytes of these files.
    pub written_bytes: u64,
    /// Tied heads that were not stored, each with the embedding that it is equal to.
    pub dropped: Vec<(String, String)>,
    /// Files of the model's folder that were copied as they are.
    pub carried: Vec<PathBuf>,
    /// Files of the model's folder that were not: weights in other formats, or of other models.
    pub left_behind: Vec<PathBuf>,
    /// The number of keys of the config.json that was written, without `dfloat11_config`; 0 if there is none. Published models of
    /// diffusers have one, `model_type`: programs that load such a model need the config.json of the original.
    pub config_keys: u64,
}

/// Decompresses a model: turns it back into plain safetensors, bit for bit. Nothing of it is changed.
///
/// If `destination` ends in `.safetensors`, it becomes one file of all tensors. Otherwise it becomes a folder as it is published:
/// files of tensors with an index, config.json without `dfloat11_config`, and all other files of the model's folder. A head that is
/// tied to the embedding and equal to it is not stored, as in the original.
///
/// The folder is new or empty. Readers of this library refuse it until all of it is there, and config.json comes last. A failure
/// leaves nothing; what a killed process has left is removed by the next one that writes there.
///
/// # Errors
///
/// - `Exists` and `Busy` for what is at the destination already;
/// - `ShapesUnknown` if the shapes of compressed tensors are not known and `flat` is not set;
/// - `NotFound` for the name of a tensor or group that is not there;
/// - `InvalidArgument` for what the caller can change;
/// - `InvalidFormat`, `UnsupportedFormat` and `Corrupt` for what is wrong with the model, the first also if it lacks something, unless
///   `incomplete` is set;
/// - `Io`, `OutOfMemory`; `Cancelled` by `progress`.
pub fn decompress(
    source: &Path,
    destination: &Path,
    options: &DecompressOptions,
    progress: &Progress,
) -> Result<DecompressReport> {
    progress.begin(0);
    progress.check()?;
    let model =
        Model::open_watched(source, &options.open, Access::Read, progress)?.verified(&options.open, progress)?;
    let all = options.tensors.is_empty() && options.groups.is_empty();
    // What was chosen is there, or it is not found.
    if all {
        model.require_whole(source, "decompress", options.incomplete, progress)?;
    }
    if model.tensors().len() == 0 {
        return Err(Error::InvalidArgument(format!("'{}' has no tensors", shorten_path(source))));
    }
    let single = is_file(destination).then_some(destination);
    let folder = if single.is_some() { destination.parent().unwrap_or(Path::new("")) } else { destination };
    check_destination(folder, single, source, &model)?;
    let mut tensors = select(&model, &options.tensors, &options.groups)?;
    let config = config_text(source, &options.open)?;
    let parsed: Option<Value> =
        config.as_ref().and_then(|text| serde_json::from_slice(&of_python(text.as_bytes())).ok());
    let mut report = DecompressReport::default();
    if all {
        drop_tied(&model, &mut tensors, parsed.as_ref(), options.threads, &mut report, progress)?;
    }
    let unknown: Vec<Tensor> = tensors.iter().copied().filter(|t| !t.shape_known()).collect();
    report.flat = unknown.len() as u64;
    if let (None, false, Some(example)) = (single, options.flat, unknown.first()) {
        let (count, tensor) = (unknown.len() as u64, example.name().to_owned());
        return Err(Error::ShapesUnknown { count, tensor, weights: example.bytes() / 2 });
    }
    report.tensors = tensors.len() as u64;
    // Without this word some versions of transformers refuse a file.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    if let Some(to) = single {
        if options.keep_existing {
            refuse_existing(to, None)?;
        }
        let file = out_file(to.to_owned(), tensors, &metadata)?;
        (report.files, report.written_bytes) = (1, file.layout.bytes());
        progress.begin(file.data_bytes());
        let sink = SingleFile::new(to);
        copy::run(&model, &[file], &sink, options.threads, progress)?;
        progress.check()?;
        sink.made()?.commit(!options.keep_existing)?;
        progress.finish();
        return Ok(report);
    }
    let most = if options.shard_bytes == 0 { DEFAULT_SHARD_BYTES } else { options.shard_bytes };
    let shards = distribute(tensors, most, main_file(&model, parsed.as_ref()))?;
    let file = |(name, tensors): (String, Vec<Tensor>)| out_file(name.into(), tensors, &metadata);
    let files: Vec<OutFile> = shards.files.into_iter().map(file).collect::<Result<_>>()?;
    report.files = files.len() as u64;
    report.written_bytes = files.iter().map(|file| file.layout.bytes()).sum();
    if source.is_dir() {
        (report.carried, report.left_behind) = companion_paths(&model, source)?;
    }
    let mut texts = Vec::new();
    texts.extend(shards.index.as_ref().map(|(name, text)| (&name[..], text.clone())));
    if let Some((text, keys)) = config.and_then(plain_config) {
        report.config_keys = keys;
        texts.push(("config.json", text));
    }
    let carried = source.is_dir().then_some((source, &report.carried[..]));
    Content { model: &model, files, carried, texts }.write(destination, options.threads, progress)?;
    Ok(report)
}

/// Returns a config without `dfloat11_config`, and how many keys it has; `None` if nothing is left.
fn plain_config(text: String) -> Option<(String, u64)> {
    match config::without(&text) {
        Some((_, 0)) => None,
        Some((rest, keys)) => Some((rest, keys as u64)),
        None => {
            let parsed: Option<Value> = serde_json::from_slice(&of_python(text.as_bytes())).ok();
            let keys = parsed.as_ref().and_then(Value::as_object).map_or(1, |object| object.len() as u64);
            Some((text, keys))
        }
    }
}

/// Lays out a file of decoded tensors.
fn out_file(path: PathBuf, tensors: Vec<Tensor>, metadata: &BTreeMap<String, String>) -> Result<OutFile> {
    let new = |t: Tensor| {
        let (name, shape) = (t.name().to_owned(), t.shape().to_vec());
        (LayoutTensor { name, dtype: t.dtype(), shape, bytes: t.bytes() }, Values::Decoded(t.number()))
    };
    OutFile::new(path, tensors.into_iter().map(new).collect(), metadata)
}

/// Leaves out the compressed head of a tied model, which the original does not store, if it is indeed equal to the embedding.
fn drop_tied(
    model: &Model,
    tensors: &mut Vec<Tensor>,
    config: Option<&Value>,
    threads: usize,
    report: &mut DecompressReport,
    progress: &Progress,
) -> Result<()> {
    let all: Vec<SourceTensor> = model.tensors().map(SourceTensor::from).collect();
    let Some(pair) = plan::tied_pair(config, &all) else { return Ok(()) };
    let (head, embedding) = (model.tensor_at(pair.tensor), model.tensor_at(pair.embedding));
    if head.location().is_none() && host::are_equal(head, embedding, threads, progress)? {
        tensors.retain(|tensor| tensor.number() != head.number());
        report.dropped.push((head.name().to_owned(), embedding.name().to_owned()));
    }
    Ok(())
}
