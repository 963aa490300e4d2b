//! A compressed model in other files: a folder of one file per group, or one file. Nothing is decoded.

use super::copy::{self, OutFile, Values};
use super::folder::Content;
use super::{SingleFile, check_destination};
use crate::error::{Error, Result, shorten_path};
use crate::format::{
    Access, GROUPS_KEY, LayoutTensor, MEMBERS, Model, OpenOptions, SHAPES_KEY, ShapeSource, Span, Tensor, config_text,
    of_python, of_this_library,
};
use crate::progress::Progress;
use crate::writer::Layout;
use crate::writer::plan::{FilePlan, Files, Plan, PlannedGroup, SourceTensor};
use crate::writer::source::{companion_paths, main_file};
use crate::writer::target::{ConfigPlace, commit_with_config, refuse_existing};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Options to repack a model.
///
/// ```
/// use df11::writer::{Layout, RepackOptions};
/// let options = RepackOptions::new().threads(4).layout(Layout::SingleFile);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepackOptions {
    /// Number of threads, including the calling one; 0 means 1. One more thread brings files to the disk.
    pub threads: usize,
    /// How the model is opened.
    pub open: OpenOptions,
    /// The files that are written.
    pub layout: Layout,
    /// Fail with [`Error::Exists`](crate::Error::Exists) instead of replacing a single file or its own config. A folder that is not
    /// empty is never written to.
    pub keep_existing: bool,
    /// Accept a model that lacks files, tensors or layers, and write what is there. Without it such a model is refused.
    pub incomplete: bool,
}

impl RepackOptions {
    /// Returns the defaults: one thread, and a layout that the destination's name decides.
    pub fn new() -> RepackOptions {
        RepackOptions::default()
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

    /// Sets what is written: a folder or a single file.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
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

/// The result of repacking a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepackReport {
    /// Groups that were copied.
    pub groups: u64,
    /// Tensors in no group that were copied.
    pub plain: u64,
    /// Files of tensors.
    pub files: u64,
    /// Bytes of these files.
    pub written_bytes: u64,
    /// Files of the model's folder that were copied as they are.
    pub carried: Vec<PathBuf>,
    /// Files of the model's folder that were not: weights in other formats, or of other models.
    pub left_behind: Vec<PathBuf>,
}

/// Writes a compressed model in other files, placed as [`compress`](crate::writer::compress) places them. Nothing is decoded: the
/// members of groups and the plain tensors have the same bytes, and shapes, hashes and names that the metadata has are kept. Shapes
/// that the options to open the model give are added.
/// config.json is copied, to a folder with all other files of the model's folder. Nothing of the model is changed.
///
/// A destination is new or empty, appears when it is complete, and is undone after a failure as by
/// [`decompress`](crate::writer::decompress).
///
/// # Errors
///
/// - `Exists` and `Busy` for what is at the destination already;
/// - `InvalidArgument` for what the caller can change, such as a model that is not compressed;
/// - `InvalidFormat`, `UnsupportedFormat` and `Corrupt` for what is wrong with the model, the first also if it lacks something, unless
///   `incomplete` is set;
/// - `Io`, `OutOfMemory`; `Cancelled` by `progress`.
pub fn repack(source: &Path, destination: &Path, options: &RepackOptions, progress: &Progress) -> Result<RepackReport> {
    progress.begin(0);
    progress.check()?;
    let model =
        Model::open_watched(source, &options.open, Access::Read, progress)?.verified(&options.open, progress)?;
    model.require_whole(source, "repack", options.incomplete, progress)?;
    if model.groups().len() == 0 {
        let reason = format!("'{}' is not compressed: there is nothing to repack", shorten_path(source));
        return Err(Error::InvalidArgument(reason));
    }
    let config = config_text(source, &options.open)?;
    let parsed = config.as_ref().and_then(|text| serde_json::from_slice(&of_python(text.as_bytes())).ok());
    let owners = Owners::new(&model);
    let table: Vec<SourceTensor> = model.tensors().map(SourceTensor::from).collect();
    let plain: Vec<usize> = model.tensors().filter(|t| t.location().is_some()).map(Tensor::number).collect();
    let main = main_file(&model, parsed.as_ref());
    let files = Files::new(destination, options.layout, main, &table, &owners.plan(&plain), &plain);
    check_destination(&files.folder, files.single(), source, &model)?;

    let stored = Stored::read(&model, progress)?;
    let planned: Vec<&FilePlan> = files.files.iter().chain(&files.rest).collect();
    let metadata = stored.metadata(&model, &owners, &planned);
    let mut out = Vec::with_capacity(planned.len());
    for (file, metadata) in planned.into_iter().zip(&metadata) {
        let tensors = stored.tensors(&model, &owners, file)?;
        if !tensors.is_empty() {
            let name = if files.own_folder() { file.path.file_name().map(PathBuf::from) } else { None };
            out.push(OutFile::new(name.unwrap_or_else(|| file.path.clone()), tensors, metadata)?);
        }
    }
    let mut report = RepackReport {
        groups: model.groups().len() as u64,
        plain: plain.len() as u64,
        files: out.len() as u64,
        written_bytes: out.iter().map(|file| file.layout.bytes()).sum(),
        ..RepackReport::default()
    };
    if let Some(to) = files.single().filter(|_| !files.own_folder()) {
        let text = config.as_deref();
        let refuse = || if options.keep_existing { refuse_existing(to, text) } else { Ok(()) };
        refuse()?;
        progress.begin(out.iter().map(OutFile::data_bytes).sum());
        let sink = SingleFile::new(to);
        copy::run(&model, &out, &sink, options.threads, progress)?;
        progress.check()?;
        // Once more, because the work may have taken long.
        refuse()?;
        let config = text.map(|text| (text, || ConfigPlace::beside(to, text)));
        commit_with_config(&[sink.made()?], config, !options.keep_existing)?;
        progress.finish();
        return Ok(report);
    }
    if source.is_dir() {
        (report.carried, report.left_behind) = companion_paths(&model, source)?;
    }
    let carried = source.is_dir().then_some((source, &report.carried[..]));
    let texts = config.map(|text| ("config.json", text)).into_iter().collect();
    Content { model: &model, files: out, carried, texts }.write(&files.folder, options.threads, progress)?;
    Ok(report)
}

/// What decides the files: each has the groups of one module, or all that hold runs of one tensor.
struct Owners {
    names: Vec<String>,
    /// The numbers of the groups of each.
    groups: Vec<Vec<usize>>,
    /// The owner of each group.
    of: Vec<usize>,
}

impl Owners {
    fn new(model: &Model) -> Owners {
        let mut owners = Owners { names: Vec::new(), groups: Vec::new(), of: Vec::new() };
        let mut tensors = HashMap::new();
        for group in model.groups() {
            let mut runs = group.runs();
            let name = match (group.is_extended(), runs.next(), runs.next()) {
                (true, Some(run), None) => run.tensor().name(),
                _ => group.name(),
            };
            let owner = *tensors.entry(name).or_insert(owners.names.len());
            if owner == owners.names.len() {
                owners.names.push(name.to_owned());
                owners.groups.push(Vec::new());
            }
            owners.groups[owner].push(group.number());
            owners.of.push(owner);
        }
        owners
    }

    /// Returns them as the groups of a plan, whose names decide the files. (What the groups hold does not.)
    fn plan(&self, plain: &[usize]) -> Plan {
        let group = |name: &String| PlannedGroup { name: name.clone(), members: Vec::new(), pattern: 0, tied: false };
        Plan {
            groups: self.names.iter().map(group).collect(),
            in_runs: Vec::new(),
            left: Vec::new(),
            plain: plain.to_vec(),
            dropped: Vec::new(),
            unmatched_patterns: Vec::new(),
        }
    }
}

/// What the files of a model have: tensors as they are stored, and metadata.
struct Stored {
    tensors: HashMap<String, (LayoutTensor, Span)>,
    /// The metadata of each file.
    metadata: Vec<BTreeMap<String, String>>,
}

impl Stored {
    fn read(model: &Model, progress: &Progress) -> Result<Stored> {
        let mut stored = Stored { tensors: HashMap::new(), metadata: Vec::new() };
        for (number, source) in model.sources().iter().enumerate() {
            for (name, there) in source.header(number, progress)?.tensors {
                let (dtype, shape, bytes) = (there.dtype, there.shape.into_vec(), there.span.len);
                stored.tensors.insert(name.clone(), (LayoutTensor { name, dtype, shape, bytes }, there.span));
            }
            stored.metadata.push(source.metadata()?);
        }
        Ok(stored)
    }

    /// Returns the tensors of a file.
    fn tensors(&self, model: &Model, owners: &Owners, file: &FilePlan) -> Result<Vec<(LayoutTensor, Values)>> {
        let find = |name: &str| {
            let (tensor, span) = self
                .tensors
                .get(name)
                .ok_or_else(|| Error::Internal(format!("the files have no tensor '{name}' any more")))?;
            Ok((tensor.clone(), Values::Stored(*span)))
        };
        let groups = file.groups.iter().flat_map(|&owner| &owners.groups[owner]);
        let names = groups.filter_map(|&group| model.group(group)).map(|group| group.name());
        let members = names.flat_map(|name| MEMBERS.iter().map(move |member| format!("{name}.{member}")));
        let plain = file.plain.iter().map(|&tensor| model.tensor_at(tensor).name().to_owned());
        members.chain(plain).map(|name| find(&name)).collect()
    }

    /// Returns the metadata of each planned file. This library's has objects whose keys are groups or tensors, and an entry goes to
    /// the file of its group or tensor. All other metadata goes to every file, if every file had it, else to the last, which is for
    /// all that belongs to no group.
    fn metadata(&self, model: &Model, owners: &Owners, files: &[&FilePlan]) -> Vec<BTreeMap<String, String>> {
        let place = Places::new(model, owners, files);
        let mut all: Vec<BTreeMap<String, String>> = files.iter().map(|file| file.metadata.clone()).collect();
        let mut entries: Vec<BTreeMap<&str, BTreeMap<String, Box<RawValue>>>> = vec![BTreeMap::new(); files.len()];
        for (key, text) in self.metadata.iter().flatten() {
            let parsed: Option<BTreeMap<String, Box<RawValue>>> =
                if of_this_library(key) { serde_json::from_str(text).ok() } else { None };
            if let Some(parsed) = parsed {
                for (name, value) in parsed {
                    let file = place.of(&name, key == GROUPS_KEY);
                    entries[file].entry(key).or_default().insert(name, value);
                }
            } else if self.metadata.iter().all(|file| file.get(key) == Some(text)) {
                all.iter_mut().for_each(|file| _ = file.insert(key.clone(), text.clone()));
            } else if key != "format" {
                // (The word "format" is where the writer puts it.)
                all[place.rest].insert(key.clone(), text.clone());
            }
        }
        for tensor in model.tensors().filter(|t| t.shape_source() == ShapeSource::Given) {
            let shape = serde_json::value::to_raw_value(tensor.shape());
            let entries = entries[place.of(tensor.name(), false)].entry(SHAPES_KEY).or_default();
            entries.extend(shape.ok().map(|shape| (tensor.name().to_owned(), shape)));
        }
        for (file, entries) in all.iter_mut().zip(entries) {
            for (key, entries) in entries {
                // An object of texts cannot fail to be written.
                let text = serde_json::to_string(&entries).unwrap_or_default();
                file.insert(key.to_owned(), text);
            }
        }
        all
    }
}

/// The files of groups and tensors.
struct Places<'m> {
    groups: HashMap<&'m str, usize>,
    tensors: HashMap<&'m str, usize>,
    /// The file of what is neither.
    rest: usize,
}

impl<'m> Places<'m> {
    fn new(model: &'m Model, owners: &Owners, files: &[&FilePlan]) -> Places<'m> {
        let mut file_of = vec![0; owners.names.len()];
        let mut places = Places { groups: HashMap::new(), tensors: HashMap::new(), rest: 0 };
        for (number, file) in files.iter().enumerate() {
            file.groups.iter().for_each(|&owner| file_of[owner] = number);
            places.tensors.extend(file.plain.iter().map(|&t| (model.tensor_at(t).name(), number)));
            if !file.plain.is_empty() || !file.groups.is_empty() {
                places.rest = number;
            }
        }
        for group in model.groups() {
            let file = file_of[owners.of[group.number()]];
            places.groups.insert(group.name(), file);
            group.tensors().for_each(|tensor| _ = places.tensors.entry(tensor.name()).or_insert(file));
        }
        places
    }

    fn of(&self, name: &str, is_group: bool) -> usize {
        let names = if is_group { &self.groups } else { &self.tensors };
        names.get(name).copied().unwrap_or(self.rest)
    }
}
