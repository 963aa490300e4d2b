//! A model: all files together, their groups and their tensors, checked against each other.

use super::config::Config;
use super::files;
use super::group::{GroupData, MEMBERS};
use super::names::{check_name, member_of, natural};
use super::runs::{Packed, file_of, packed_tensors};
use super::source::{Access, Source, Span};
use super::tensor::{Data, Metadata, RunData, TensorData};
use crate::error::{Error, Place, Result, shorten, shorten_path};
use crate::progress::Progress;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Options to open a model.
///
/// ```
/// let options = df11::OpenOptions::new().verify(true).threads(8);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// True to walk every code of every group, as [`Model::verify`] does.
    pub verify: bool,
    /// The threads for that, the calling one among them; 0 means 1.
    pub threads: usize,
    /// True to accept a `dfloat11_config.version` that this library does not know.
    pub any_version: bool,
    /// The text of a config.json to use instead of the model's own: for a file that comes without one, so that the tensors
    /// in groups get their names.
    pub config: Option<String>,
}

impl OpenOptions {
    /// Returns the defaults.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Sets whether to walk every code of every group, as [`Model::verify`] does.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets the threads for that, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether to accept a `dfloat11_config.version` that this library does not know.
    pub fn any_version(mut self, any_version: bool) -> Self {
        self.any_version = any_version;
        self
    }

    /// Sets the text of a config.json to use instead of the model's own.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }
}

/// An open DF11 model. It is immutable: any number of threads may use it.
///
/// A folder or file of plain safetensors is a model with no groups.
pub struct Model {
    pub(super) sources: Vec<Source>,
    pub(super) config: Option<Config>,
    pub(super) groups: Vec<GroupData>,
    pub(super) tensors: Vec<TensorData>,
    /// The runs of the tensors in groups, those of each together.
    pub(super) runs: Vec<RunData>,
    pub(super) group_names: HashMap<String, usize>,
    pub(super) tensor_names: HashMap<String, usize>,
}

/// A stored tensor: what its header says, and its place.
type Entry = (TensorInfo, Span);

/// The six members of a group by its name, as far as they are there.
type Bases<'e> = BTreeMap<&'e str, [Option<&'e Entry>; 6]>;

impl Model {
    /// Opens a folder or a file, as `Model::open` does without verifying. It can be cancelled between files, and counts
    /// nothing: headers take milliseconds.
    pub(crate) fn open_watched(
        path: &Path,
        options: &OpenOptions,
        access: Access,
        progress: &Progress,
    ) -> Result<Model> {
        let found = files::find(path)?;
        let config = match &options.config {
            Some(text) => given_config(text, options.any_version)?,
            None => stored_config(&found.config, !found.is_folder, options.any_version)?,
        };
        Self::of_files(&found.files, config, access, progress)
    }

    /// Opens an uncompressed model to be read: the files that the index of a folder lists, if it has one, of which none may
    /// be missing, nor any of their tensors; without an index the file of the usual name, if there is one, else all files. A
    /// folder with a `dfloat11_config` is opened as a compressed one, because its index lists only a part of it.
    pub(crate) fn open_original_watched(path: &Path, progress: &Progress) -> Result<Model> {
        let found = files::find(path)?;
        let config = stored_config(&found.config, !found.is_folder, true)?;
        if !found.is_folder || config.is_some() {
            return Self::of_files(&found.files, config, Access::Read, progress);
        }
        let model = Self::of_files(&files::listed(path)?, None, Access::Read, progress)?;
        files::check_index(path, |name| model.tensor_names.contains_key(name))?;
        Ok(model)
    }

    /// Opens the files of an uncompressed model to be read, as a folder's index lists them, and fails if the index lists a
    /// tensor that they lack.
    pub(crate) fn open_listed(folder: &Path, files: &[PathBuf]) -> Result<Model> {
        let model = Self::of_files(files, None, Access::Read, &Progress::new())?;
        files::check_index(folder, |name| model.tensor_names.contains_key(name))?;
        Ok(model)
    }

    /// Opens these files, and no others, to be read, with the text of a config if there is one.
    pub(crate) fn open_files(files: &[PathBuf], config: Option<&str>) -> Result<Model> {
        let config = match config {
            Some(text) => Config::parse(text.as_bytes(), &Place::file("config.json"), true)?,
            None => None,
        };
        Self::of_files(files, config, Access::Read, &Progress::new())
    }

    /// Opens one group of a file, to be read: all else in it may be unfinished.
    pub(crate) fn open_group(file: &Path, group: &str) -> Result<Model> {
        let source = Source::open(file, Access::Read)?;
        let mut members: [Option<Entry>; 6] = Default::default();
        for (name, info, span) in source.header(0)?.tensors {
            if let Some((base, member)) = member_of(&name)
                && base == group
            {
                members[member] = Some((info, span));
            }
        }
        let members = members.each_ref().map(Option::as_ref);
        let Some(members) = all(&members) else {
            return Err(Error::invalid(source.place(), format!("there is no group '{}'", shorten(group, 80))));
        };
        Self::of_group(source, group, members)
    }

    /// The same for one whose members are known: type, shape, first byte in the file and bytes of each.
    pub(crate) fn open_members(file: &Path, group: &str, members: &[(Dtype, Vec<u64>, u64, u64); 6]) -> Result<Model> {
        let members = members.each_ref().map(|(dtype, shape, offset, len)| {
            let shape = shape.iter().map(|&d| d as usize).collect();
            let data_offsets = (*offset as usize, (offset + len) as usize);
            (TensorInfo { dtype: *dtype, shape, data_offsets }, Span { file: 0, offset: *offset, len: *len })
        });
        Self::of_group(Source::open(file, Access::Read)?, group, members.each_ref())
    }

    fn of_group(source: Source, group: &str, members: [&Entry; 6]) -> Result<Model> {
        let group = GroupData::check(std::slice::from_ref(&source), group, members)?;
        let group_names = [(group.name().to_owned(), 0)].into();
        let (sources, groups) = (vec![source], vec![group]);
        let (tensors, runs, tensor_names) = Default::default();
        Ok(Model { sources, config: None, groups, tensors, runs, group_names, tensor_names })
    }

    /// Opens the bytes of one safetensors file.
    pub(crate) fn of_bytes(bytes: Box<dyn AsRef<[u8]> + Send + Sync>, options: &OpenOptions) -> Result<Model> {
        let config = match &options.config {
            Some(text) => given_config(text, options.any_version)?,
            None => None,
        };
        Self::build(vec![Source::memory(bytes)], config, &Progress::new())
    }

    fn of_files(files: &[PathBuf], config: Option<Config>, access: Access, progress: &Progress) -> Result<Model> {
        let source = |file: &PathBuf| progress.check().and_then(|()| Source::open(file, access));
        Self::build(files.iter().map(source).collect::<Result<_>>()?, config, progress)
    }

    fn build(sources: Vec<Source>, config: Option<Config>, progress: &Progress) -> Result<Model> {
        let (entries, mut metadata) = read_headers(&sources, progress)?;
        let bases = bases_of(&entries);
        let mut groups = check_groups(&sources, &bases, progress)?;
        let Packed { mut tensors, runs } = packed_tensors(&sources, &mut groups, config.as_ref(), &mut metadata)?;
        let packed = |name: &str| member_of(name).is_some_and(|(base, _)| bases.contains_key(base));
        let mut plain: Vec<_> = entries.iter().filter(|(name, _)| !packed(name)).collect();
        plain.sort_by(|a, b| natural(a.0, b.0));
        tensors.extend(plain.into_iter().map(|(name, (info, span))| TensorData {
            name: name.clone(),
            dtype: info.dtype,
            shape: info.shape.iter().map(|&d| d as u64).collect(),
            data: Data::Plain(*span),
            bytes: span.len,
            sha256: metadata.hash(name),
        }));
        let tensor_names = number_names(&sources, &groups, &tensors, &runs)?;
        let group_names = groups.iter().enumerate().map(|(i, g)| (g.name().to_owned(), i)).collect();
        log::debug!("opened {} file(s): {} groups, {} tensors", sources.len(), groups.len(), tensors.len());
        Ok(Model { sources, config, groups, tensors, runs, group_names, tensor_names })
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<&str> = self.sources.iter().map(|s| &s.name[..]).collect();
        f.debug_struct("Model")
            .field("files", &files)
            .field("groups", &self.groups.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

/// Reads a config that the caller gave as a text.
fn given_config(text: &str, any_version: bool) -> Result<Option<Config>> {
    Config::parse(text.as_bytes(), &Place::file("the caller's config"), any_version)
}

/// Reads the config at a path, if it is there. Beside a single file it may be of another model, so there a file that is no
/// JSON is ignored.
fn stored_config(path: &Path, beside_file: bool, any_version: bool) -> Result<Option<Config>> {
    let Some(json) = files::read_text(path)? else { return Ok(None) };
    match Config::parse(&json, &Place::of(path), any_version) {
        Err(Error::InvalidFormat { reason, .. }) if beside_file => {
            log::warn!("'{}' is ignored: {reason}", shorten_path(path));
            Ok(None)
        }
        parsed => parsed,
    }
}

/// Reads the header of every file: each stored tensor by its name, and the metadata.
fn read_headers(sources: &[Source], progress: &Progress) -> Result<(BTreeMap<String, Entry>, Metadata)> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut metadata = Metadata::default();
    for (number, source) in sources.iter().enumerate() {
        progress.check()?;
        let header = source.header(number)?;
        metadata.add(&header, number, &source.place())?;
        for (name, info, span) in header.tensors {
            check_name(&name).map_err(|reason| Error::invalid(source.place().tensor(&name), reason))?;
            if let Some((_, other)) = entries.insert(name.clone(), (info, span)) {
                let reason = format!("two files have this tensor: the other is '{}'", sources[other.file].name);
                return Err(Error::invalid(source.place().tensor(name), reason));
            }
        }
    }
    Ok((entries, metadata))
}

/// Finds the groups by the names of their members.
fn bases_of(entries: &BTreeMap<String, Entry>) -> Bases<'_> {
    let mut bases = Bases::new();
    for (name, entry) in entries {
        if let Some((base, member)) = member_of(name) {
            bases.entry(base).or_default()[member] = Some(entry);
        }
    }
    // A tensor may be called `x.gaps` and be what it says. Two names of six are no accident.
    bases.retain(|_, members| members.iter().flatten().count() >= 2);
    bases
}

/// Checks each group, and sorts them.
fn check_groups(sources: &[Source], bases: &Bases<'_>, progress: &Progress) -> Result<Vec<GroupData>> {
    let mut groups = Vec::with_capacity(bases.len());
    for (base, members) in bases {
        if let Some(missing) = members.iter().position(Option::is_none) {
            let file = members.iter().flatten().next().map_or(0, |(_, span)| span.file);
            let place = sources[file].place().tensor(format!("{base}.{}", MEMBERS[missing]));
            let reason = format!("the group '{}' lacks one of its six members", shorten(base, 80));
            return Err(Error::invalid(place, reason));
        }
        let Some(members) = all(members) else { continue };
        progress.check()?;
        groups.push(GroupData::check(sources, base, members)?);
    }
    groups.sort_by(|a, b| natural(a.name(), b.name()));
    Ok(groups)
}

/// Maps each tensor's name to its number. Fails if two have the same name.
fn number_names(
    sources: &[Source],
    groups: &[GroupData],
    tensors: &[TensorData],
    runs: &[RunData],
) -> Result<HashMap<String, usize>> {
    let mut numbers = HashMap::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        if let Some(other) = numbers.insert(tensor.name.clone(), i) {
            let other = file_of(&tensors[other], runs, groups, sources);
            let reason = format!("two tensors have this name: the other is in '{}'", other.name);
            return Err(Error::invalid(file_of(tensor, runs, groups, sources).place().tensor(&tensor.name), reason));
        }
    }
    Ok(numbers)
}

fn all<'a>(members: &[Option<&'a Entry>; 6]) -> Option<[&'a Entry; 6]> {
    let [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] = *members else { return None };
    Some([a, b, c, d, e, f])
}
