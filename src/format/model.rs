//! A model: all files together, their groups and their tensors, checked against each other.

use super::config::Config;
use super::files::Index;
use super::group::{GroupData, MEMBERS};
use super::names::{check_name, member_of, natural};
use super::runs::{Packed, check_listed, file_of, packed_tensors};
use super::shapes::Shapes;
use super::source::{Access, Contents, Source, Span, Stored};
use super::tensor::{Data, Notes, RunData, ShapeSource, TensorData, annotate, listed_groups};
use super::{files, header};
use crate::error::{Error, Place, Result, shorten, shorten_path};
use crate::progress::Progress;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

/// The most tensors that the files of a model may store. One with a group for each expert of the largest models has 300,000.
const MOST_TENSORS: usize = 1 << 20;

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
    /// A folder or file that has the shapes of tensors in groups which the model's files do not say: the original or other
    /// `*.safetensors`, of which only the headers are read and need be there, or a `.json` file as [`OpenOptions::shapes`]
    /// takes it. Names that the model lacks are ignored, with a warning if it lacks all.
    pub shapes_from: Option<PathBuf>,
    /// The same as a JSON text: an object from names of tensors to lists of dimensions, as `df11.shapes` is. It comes before
    /// `shapes_from`.
    pub shapes: Option<String>,
    /// True to leave the shapes that nobody says unknown, even those that follow from the config and the plain tensors with
    /// certainty.
    pub no_derived_shapes: bool,
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

    /// Sets the folder or file that has the shapes which the model's files do not say. See
    /// [`shapes_from`](OpenOptions#structfield.shapes_from).
    pub fn shapes_from(mut self, path: impl Into<PathBuf>) -> Self {
        self.shapes_from = Some(path.into());
        self
    }

    /// Sets the JSON text of such shapes. See [`shapes`](OpenOptions#structfield.shapes).
    pub fn shapes(mut self, text: impl Into<String>) -> Self {
        self.shapes = Some(text.into());
        self
    }

    /// Sets whether to leave shapes unknown that can only be derived.
    pub fn no_derived_shapes(mut self, leave: bool) -> Self {
        self.no_derived_shapes = leave;
        self
    }
}

/// An open DF11 model. It is immutable: any number of threads may use it.
///
/// A folder or file of plain safetensors is a model with no groups.
pub struct Model {
    pub(super) sources: Vec<Source>,
    /// The folder that was opened; `None` if it was not one.
    pub(super) folder: Option<PathBuf>,
    pub(super) config: ConfigFile,
    pub(super) groups: Vec<GroupData>,
    pub(super) tensors: Vec<TensorData>,
    /// The runs of the tensors in groups, those of each together.
    pub(super) runs: Vec<RunData>,
    /// The numbers of the tensors in the order of their names.
    pub(super) by_name: Vec<u32>,
}

/// A config.json.
#[derive(Default)]
pub(super) struct ConfigFile {
    /// All of it.
    pub text: Option<String>,
    /// What it says of groups.
    pub parsed: Option<Config>,
}

impl ConfigFile {
    fn parse(text: Vec<u8>, place: &Place, any_version: bool, progress: &Progress) -> Result<ConfigFile> {
        let parsed = Config::parse(&text, place, any_version, progress)?;
        // A text that is valid JSON is UTF-8.
        Ok(ConfigFile { text: String::from_utf8(text).ok(), parsed })
    }
}

/// The six members of a group by its name, as far as they are there.
type Bases<'e> = BTreeMap<&'e str, [Option<&'e Stored>; 6]>;

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
            Some(text) => given_config(text, options.any_version, progress)?,
            None => stored_config(&found.config, !found.is_folder, options.any_version, progress)?,
        };
        let folder = Some(path).filter(|_| found.is_folder);
        Self::of_files(&found.files, folder, config, Shapes::of(options), access, progress)
    }

    /// Opens an uncompressed model to be read: the files that the index of a folder lists, if it has one, of which none may
    /// be missing, nor any of their tensors; without an index the file of the usual name, if there is one, else all files. A
    /// folder with a `dfloat11_config` is opened as a compressed one, because its index lists only a part of it.
    pub(crate) fn open_original_watched(path: &Path, progress: &Progress) -> Result<Model> {
        let found = files::find(path)?;
        let config = stored_config(&found.config, !found.is_folder, true, progress)?;
        if !found.is_folder || config.parsed.is_some() {
            let folder = Some(path).filter(|_| found.is_folder);
            return Self::of_files(&found.files, folder, config, Shapes::Derived, Access::Read, progress);
        }
        let listed = files::listed(path, progress)?;
        let model = Self::of_files(&listed.files, Some(path), config, Shapes::Stored, Access::Read, progress)?;
        if let Some(index) = &listed.index {
            index.check(path, |name| model.find_tensor(name).is_some())?;
        }
        Ok(model)
    }

    /// Opens files of a folder with an uncompressed model, to be read.
    pub(crate) fn open_listed(folder: &Path, files: &[PathBuf], progress: &Progress) -> Result<Model> {
        let config = ConfigFile::default();
        Self::of_files(files, Some(folder), config, Shapes::Stored, Access::Read, progress)
    }

    /// Opens these files, and no others, to be read, with the text of a config if there is one.
    pub(crate) fn open_files(files: &[PathBuf], config: Option<&str>, progress: &Progress) -> Result<Model> {
        let config = match config {
            Some(text) => ConfigFile::parse(text.into(), &Place::file("config.json"), true, progress)?,
            None => ConfigFile::default(),
        };
        Self::of_files(files, None, config, Shapes::Stored, Access::Read, progress)
    }

    /// Opens one group of a file, to be read: all else in it may be unfinished.
    pub(crate) fn open_group(file: &Path, group: &str) -> Result<Model> {
        let source = Source::open(file, Access::Read)?;
        let mut members: [Option<Stored>; 6] = Default::default();
        for (name, stored) in source.header(0, &Progress::new())?.tensors {
            if let Some((base, member)) = member_of(&name)
                && base == group
            {
                members[member] = Some(stored);
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
            let span = Span { file: 0, offset: *offset, len: *len };
            Stored { dtype: *dtype, shape: shape[..].into(), span }
        });
        Self::of_group(Source::open(file, Access::Read)?, group, members.each_ref())
    }

    fn of_group(source: Source, group: &str, members: [&Stored; 6]) -> Result<Model> {
        let group = GroupData::check(std::slice::from_ref(&source), group, members)?;
        let (sources, groups) = (vec![source], vec![group]);
        let (tensors, runs, by_name, config) = Default::default();
        Ok(Model { sources, folder: None, config, groups, tensors, runs, by_name })
    }

    /// Opens the bytes of one safetensors file.
    pub(crate) fn of_bytes(
        bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
        options: &OpenOptions,
        progress: &Progress,
    ) -> Result<Model> {
        let config = match &options.config {
            Some(text) => given_config(text, options.any_version, progress)?,
            None => ConfigFile::default(),
        };
        Self::build(vec![Source::memory(bytes)], None, config, Shapes::of(options), progress)
    }

    fn of_files(
        files: &[PathBuf],
        folder: Option<&Path>,
        config: ConfigFile,
        shapes: Shapes,
        access: Access,
        progress: &Progress,
    ) -> Result<Model> {
        let source = |file: &PathBuf| progress.check().and_then(|()| Source::open(file, access));
        Self::build(files.iter().map(source).collect::<Result<_>>()?, folder, config, shapes, progress)
    }

    fn build(
        sources: Vec<Source>,
        folder: Option<&Path>,
        config: ConfigFile,
        shapes: Shapes,
        progress: &Progress,
    ) -> Result<Model> {
        let (entries, notes) = read_headers(&sources, folder, progress)?;
        let bases = bases_of(&entries, progress)?;
        let mut groups =
            check_groups(&sources, &bases, progress).map_err(|error| name_variant(error, &notes, &sources))?;
        drop(bases);
        let find = |name: &str| groups.binary_search_by(|group| natural(group.name(), name)).ok();
        let lists = listed_groups(find, &notes, &sources, progress)?;
        let Packed { mut tensors, runs, listed } =
            packed_tensors(&sources, &mut groups, config.parsed.as_ref(), lists, progress)?;
        let packed = tensors.len();
        for (name, stored) in entries {
            progress.check()?;
            let in_group = |(base, _)| groups.binary_search_by(|group| natural(group.name(), base)).is_ok();
            if !member_of(&name).is_some_and(in_group) {
                let Stored { dtype, shape, span } = stored;
                let bytes = span.len;
                let (data, shape_from) = (Data::Plain(span), ShapeSource::Stored);
                tensors.push(TensorData { name, dtype, shape, shape_from, data, bytes, sha256: None });
            }
        }
        header::sort(&mut tensors[packed..], |a, b| natural(&a.name, &b.name), progress)?;
        let by_name = number_names(&sources, &groups, &tensors, &runs, progress)?;
        let find = |tensors: &[TensorData], name: &str| number_of(tensors, &by_name, name);
        annotate(&mut tensors, find, &listed, &notes, &sources, progress)?;
        check_listed(&listed, &tensors, &runs, &groups, &sources)?;
        shapes.complete(&mut tensors, find, config.text.as_deref(), progress)?;
        log::debug!("opened {} file(s): {} groups, {} tensors", sources.len(), groups.len(), tensors.len());
        let folder = folder.map(Path::to_owned);
        Ok(Model { sources, folder, config, groups, tensors, runs, by_name })
    }
}

/// Returns the number of the tensor of a name, given the numbers in the order of names.
pub(super) fn number_of(tensors: &[TensorData], by_name: &[u32], name: &str) -> Option<usize> {
    let found = by_name.binary_search_by(|&number| tensors[number as usize].name[..].cmp(name)).ok()?;
    Some(by_name[found] as usize)
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
fn given_config(text: &str, any_version: bool, progress: &Progress) -> Result<ConfigFile> {
    ConfigFile::parse(text.into(), &Place::file("the caller's config"), any_version, progress)
}

/// Reads the config at a path, if it is there. Beside a single file it may be of another model, so there a file that is no
/// JSON is ignored.
fn stored_config(path: &Path, beside_file: bool, any_version: bool, progress: &Progress) -> Result<ConfigFile> {
    let parse = |text: Vec<u8>| ConfigFile::parse(text, &Place::of(path), any_version, progress);
    match files::read_config(path).and_then(|text| text.map_or_else(|| Ok(ConfigFile::default()), parse)) {
        Err(Error::InvalidFormat { reason, .. }) if beside_file => {
            log::warn!("'{}' is ignored: {reason}", shorten_path(path));
            Ok(ConfigFile::default())
        }
        parsed => parsed,
    }
}

/// Reads the header of every file: each stored tensor by its name, and the notes on tensors. If two files have a tensor, the one
/// counts that the index of the folder names.
fn read_headers(
    sources: &[Source],
    folder: Option<&Path>,
    progress: &Progress,
) -> Result<(BTreeMap<String, Stored>, Vec<Notes>)> {
    let mut entries: BTreeMap<String, Stored> = BTreeMap::new();
    let mut notes = Vec::new();
    // Read when it is needed for the first time.
    let mut index: Option<Option<Index>> = None;
    for (file, source) in sources.iter().enumerate() {
        progress.check()?;
        let header = source.header(file, progress)?;
        for (name, stored) in header.tensors {
            progress.check()?;
            let at = || source.place().tensor(&name);
            check_name(&name).map_err(|reason| Error::invalid(at(), reason))?;
            match entries.entry(name) {
                Entry::Vacant(entry) => _ = entry.insert(stored),
                Entry::Occupied(mut other) => {
                    let place = source.place().tensor(other.key());
                    if other.get().span.file == file {
                        return Err(Error::invalid(place, "the header has this name twice"));
                    }
                    let first = &sources[other.get().span.file];
                    if index.is_none() {
                        index = Some(folder.map_or(Ok(None), |folder| files::chosen_index(folder, progress))?);
                    }
                    let named = index.iter().flatten().find_map(|index| index.map.get(other.key()));
                    let is_in = |source: &Source| named.is_some_and(|named| source.path().ends_with(named));
                    match (is_in(source), is_in(first)) {
                        (true, false) => _ = other.insert(stored),
                        (false, true) => {}
                        _ => {
                            let first = shorten(&first.name, 100);
                            let reason =
                                format!("two files have this tensor: the other is '{first}', and no index decides");
                            return Err(Error::invalid(place, reason));
                        }
                    }
                }
            }
            if entries.len() > MOST_TENSORS {
                let reason = format!("the model has more than {MOST_TENSORS} tensors");
                return Err(Error::unsupported(source.place(), reason));
            }
        }
        let Contents { shapes, hashes, groups, variant, .. } = header;
        if [&shapes, &hashes, &groups, &variant].iter().any(|note| note.is_some()) {
            notes.push(Notes { file, shapes, hashes, groups, variant });
        }
    }
    Ok((entries, notes))
}

/// Finds the groups by the names of their members.
fn bases_of<'e>(entries: &'e BTreeMap<String, Stored>, progress: &Progress) -> Result<Bases<'e>> {
    let mut bases = Bases::new();
    for (name, stored) in entries {
        progress.check()?;
        if let Some((base, member)) = member_of(name) {
            bases.entry(base).or_default()[member] = Some(stored);
        }
    }
    // A tensor may be called `x.gaps` and be what it says. Two names of six are no accident.
    bases.retain(|_, members| members.iter().flatten().count() >= 2);
    Ok(bases)
}

/// Names df11pack's variant of the format, if the file that a fault is in is stamped with one.
fn name_variant(error: Error, notes: &[Notes], sources: &[Source]) -> Error {
    let (Error::InvalidFormat { reason, place } | Error::Corrupt { reason, place }) = &error else { return error };
    let in_file = |note: &&Notes| place.file.as_ref() == Some(&sources[note.file].name);
    match notes.iter().filter(in_file).find_map(|note| note.variant.as_ref()) {
        Some(stamp) => {
            let reason =
                format!("a variant of df11pack ({stamp}), which is not DF11: only df11pack reads it ({reason})");
            Error::unsupported(place.clone(), reason)
        }
        None => error,
    }
}

/// Checks each group, and sorts them.
fn check_groups(sources: &[Source], bases: &Bases<'_>, progress: &Progress) -> Result<Vec<GroupData>> {
    let mut groups = Vec::with_capacity(bases.len());
    for (base, members) in bases {
        if let Some(missing) = members.iter().position(Option::is_none) {
            let file = members.iter().flatten().next().map_or(0, |stored| stored.span.file);
            let place = sources[file].place().tensor(format!("{base}.{}", MEMBERS[missing]));
            let reason = format!("the group '{}' lacks one of its six members", shorten(base, 80));
            return Err(Error::invalid(place, reason));
        }
        let Some(members) = all(members) else { continue };
        progress.check()?;
        groups.push(GroupData::check(sources, base, members)?);
    }
    header::sort(&mut groups, |a, b| natural(a.name(), b.name()), progress)?;
    Ok(groups)
}

/// Returns the numbers of the tensors in the order of their names. Fails if two have the same name.
fn number_names(
    sources: &[Source],
    groups: &[GroupData],
    tensors: &[TensorData],
    runs: &[RunData],
    progress: &Progress,
) -> Result<Vec<u32>> {
    let mut numbers: Vec<u32> = (0..tensors.len() as u32).collect();
    let name = |number: u32| &tensors[number as usize].name;
    header::sort(&mut numbers, |&a, &b| (name(a), a).cmp(&(name(b), b)), progress)?;
    if let Some(&[other, this]) = numbers.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        let file = |number: u32| file_of(&tensors[number as usize], runs, groups, sources);
        let reason = format!("two tensors have this name: the other is in '{}'", file(other).name);
        return Err(Error::invalid(file(this).place().tensor(name(this)), reason));
    }
    Ok(numbers)
}

fn all<'a>(members: &[Option<&'a Stored>; 6]) -> Option<[&'a Stored; 6]> {
    let [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] = *members else { return None };
    Some([a, b, c, d, e, f])
}
