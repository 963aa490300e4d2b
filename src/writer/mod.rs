//! Models out: plain safetensors in, DF11 files out, every byte of every DF11 tensor as the reference compressor
//! (dfloat11 0.5.0) writes it.
//!
//! - [`presets`]: the groupings of published models, and which one a model wants;
//! - [`plan`]: which tensors make which group, and in which file they go;
//! - `input`: which files of a folder are the model, and which only go with it;
//! - `engine`: the work, in bounded memory, on many threads;
//! - `check`: the verification of what was written;
//! - `config`: config.json;
//! - `output`, `state`: files that get their names when they are complete, and what is kept to go on after an interruption.
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
mod engine;
mod input;
mod output;
pub mod plan;
pub mod presets;
mod state;

pub use output::reserve;
pub use state::Part;

use crate::error::{Error, Place, Result, shorten};
use crate::format::Model;
use crate::huffman::encode::Variant;
use crate::progress::Progress;
use engine::{FileSpec, GroupSpec, Settings, Unfit};
use input::Input;
use plan::{Patterns, Plan, SourceTensor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use state::{Journal, LeftGroup, PartState};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// What a model is made into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone)]
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
    /// Go on with what an interrupted run has left.
    pub resume: bool,
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
            verify: true,
            strict: false,
            hashes: false,
            shapes: false,
        }
    }
}

/// Memory to work in, if nothing else is said: 512 MiB, which is enough for 100 threads.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// A tensor that the patterns ask for and that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    Job::new(source, destination, options)?.run(progress)
}

/// Completes a model whose parts are all finished: writes what belongs to no group, config.json and the files that go with
/// it, and checks that nothing is missing. `options` are those of the parts, with any `part` and `resume`.
///
/// # Errors
///
/// As [`compress`]; `InvalidArgument` if a part is not finished.
pub fn merge(source: &Path, destination: &Path, options: &CompressOptions, progress: &Progress) -> Result<Report> {
    let parts = state::parts_of(destination)?.unwrap_or(1);
    let options = CompressOptions { part: Part { number: 1, count: parts }, resume: true, ..options.clone() };
    let job = Job::new(source, destination, &options)?;
    if job.single.is_some() {
        return Err(Error::InvalidArgument(
            "a single file is not written in parts, so there is nothing to merge".into(),
        ));
    }
    job.merge(progress)
}

/// What is to be done.
struct Job<'o> {
    options: &'o CompressOptions,
    input: Input,
    patterns: Patterns,
    preset: Option<String>,
    plan: Plan,
    groups: Vec<GroupSpec>,
    /// For each group its file.
    files: Vec<PathBuf>,
    /// For each group the plain tensors that lie with it.
    beside: Vec<Vec<usize>>,
    /// The plain tensors of no group's module.
    rest: Vec<usize>,
    folder: PathBuf,
    /// The one file, and whether it stands alone: then only its config is written beside it.
    single: Option<PathBuf>,
    bare: bool,
    remainder: PathBuf,
    dropped: Vec<(usize, usize)>,
    /// What the run is, for those who go on with it.
    identity: Value,
}

impl<'o> Job<'o> {
    fn new(source: &Path, destination: &Path, options: &'o CompressOptions) -> Result<Job<'o>> {
        options.part.check()?;
        let input = Input::open(source)?;
        let table: Vec<SourceTensor> = input
            .model
            .tensors()
            .iter()
            .map(|t| SourceTensor { name: t.name(), dtype: t.dtype(), elements: t.shape().iter().product() })
            .collect();
        let (patterns, preset) = match (&options.patterns, &options.preset) {
            (Some(_), Some(_)) => {
                return Err(Error::InvalidArgument("a preset and patterns are given: one of them decides".into()));
            }
            (Some(patterns), None) => (patterns.clone(), None),
            (None, Some(name)) => (presets::Preset::find(name)?.patterns().clone(), Some(name.clone())),
            (None, None) => {
                let preset = presets::choose(input.parsed.as_ref(), &table)?;
                (preset.patterns().clone(), Some(preset.name().to_owned()))
            }
        };
        let tied = plan::is_tied(input.parsed.as_ref(), &table);
        let plan = plan::plan(&table, &patterns, tied)?;
        if plan.groups.is_empty() && plan.left.is_empty() {
            return Err(Error::InvalidArgument(format!(
                "the patterns match no module of '{}': there is nothing to compress",
                shorten(&source.display().to_string(), 200)
            )));
        }
        if let (true, Some(left)) = (options.strict, plan.left.first()) {
            let place = Place::default().tensor(&left.group);
            return Err(Error::unsupported(place, format!("the group cannot be compressed: {}", left.reason)));
        }
        let (folder, single, bare) = destination_of(destination, options.layout, source, &input)?;
        if single.is_some() && options.part.count > 1 {
            return Err(Error::InvalidArgument("a single file cannot be written in parts: write a folder".into()));
        }
        let dropped = dropped(&input.model, &plan)?;
        let remainder = input.remainder();
        let stem = remainder.trim_end_matches(".safetensors");
        let placement = plan::place(&table, &plan.groups, stem);
        let files = placement.stems.iter().map(|stem| folder.join(format!("{stem}.safetensors"))).collect();
        let mut beside = vec![Vec::new(); plan.groups.len()];
        let mut rest = Vec::new();
        for &tensor in plan.plain.iter().filter(|t| !dropped.iter().any(|(d, _)| d == *t)) {
            match placement.files[tensor] {
                Some(group) => beside[group].push(tensor),
                None => rest.push(tensor),
            }
        }
        let groups = plan.groups.iter().map(|g| GroupSpec { name: g.name.clone(), tensors: g.members.clone() });
        let identity = json!({
            "version": 1,
            "source": identity(&input)?,
            "patterns": patterns.to_json(),
            "parts": options.part.count,
            "hashes": options.hashes,
            "shapes": options.shapes,
        });
        Ok(Job {
            groups: groups.collect(),
            options,
            patterns,
            preset,
            files,
            beside,
            rest,
            remainder: folder.join(remainder),
            folder,
            single,
            bare,
            dropped,
            identity,
            plan,
            input,
        })
    }

    fn settings(&self) -> Settings {
        let memory = if self.options.memory == 0 { DEFAULT_MEMORY } else { self.options.memory };
        let most = (memory / engine::THREAD_BYTES).max(1) as usize;
        if self.options.threads > most {
            log::warn!("{most} threads work: {memory} bytes of memory are not enough for {}", self.options.threads);
        }
        Settings {
            threads: self.options.threads.clamp(1, most),
            verify: self.options.verify,
            hashes: self.options.hashes,
            shapes: self.options.shapes,
            strict: self.options.strict,
            variant: Variant::best(),
        }
    }

    fn bytes(&self, tensors: &[usize]) -> u64 {
        tensors.iter().map(|&t| self.input.model.tensors()[t].bytes()).sum()
    }

    fn run(self, progress: &Progress) -> Result<Report> {
        match self.single.clone() {
            Some(file) => self.run_single(&file, progress),
            None => {
                let (folder, whole) = (self.folder.clone(), self.options.part == Part::WHOLE);
                let there = folder.is_dir();
                let result = self.run_folder(progress);
                if result.is_err() && whole {
                    state::clear_if_empty(&folder, !there);
                }
                result
            }
        }
    }

    fn run_folder(self, progress: &Progress) -> Result<Report> {
        let part = self.options.part;
        // Parts find the folder begun by one another.
        state::begin_folder(&self.folder, &self.identity, self.options.resume || part.count > 1)?;
        let mut state = PartState::begin(&self.folder, part, self.options.resume)?;
        let left: HashSet<String> = state.left.iter().map(|l| l.group.clone()).collect();
        let mut resumed = 0;
        let mut todo = Vec::new();
        for (number, group) in self.groups.iter().enumerate().filter(|(number, _)| part.has(*number)) {
            if left.contains(&group.name) {
                continue;
            }
            if self.options.resume
                && self.files[number].is_file()
                && state::holds_group(&self.files[number], &group.name)
            {
                resumed += 1;
                continue;
            }
            todo.push(number);
        }
        let whole = part == Part::WHOLE;
        let work: u64 = todo.iter().map(|&g| self.bytes(&self.groups[g].tensors) + self.bytes(&self.beside[g])).sum();
        let after = if whole { self.bytes(&self.rest) } else { 0 };
        progress.begin(work + after);
        if !state.finished {
            let files = todo.iter().map(|&g| FileSpec {
                path: self.files[g].clone(),
                groups: vec![g],
                plain: self.beside[g].clone(),
                metadata: BTreeMap::new(),
                journal: None,
            });
            let unfit = engine::run(&self.input.model, &self.groups, files.collect(), &self.settings(), progress)?;
            state.left.extend(unfit.into_iter().map(|u| self.left_group(u)));
            state.left.sort_by(|a, b| a.group.cmp(&b.group));
            state.finished = true;
            state.save()?;
        }
        let mut report = if whole {
            self.complete(std::mem::take(&mut state.left), progress)?
        } else {
            progress.finish();
            let names: Vec<&Path> =
                (0..self.groups.len()).filter(|&g| part.has(g)).map(|g| self.files[g].as_path()).collect();
            let mut report = self.report(&state.left);
            self.measure(&mut report, &names)?;
            report
        };
        report.resumed = resumed;
        Ok(report)
    }

    fn left_group(&self, unfit: Unfit) -> LeftGroup {
        let tensor = self.input.model.tensors()[unfit.tensor].name().to_owned();
        LeftGroup { group: self.groups[unfit.group].name.clone(), tensor, reason: unfit.reason }
    }

    fn merge(self, progress: &Progress) -> Result<Report> {
        state::check_job(&self.folder.join(crate::format::UNFINISHED), &self.identity)?;
        let count = self.options.part.count;
        let mut left = Vec::new();
        for number in 1..=count {
            left.extend(PartState::finished(&self.folder, Part { number, count })?);
        }
        progress.begin(self.bytes(&self.rest));
        self.complete(left, progress)
    }

    /// All groups are there: the rest of the folder.
    fn complete(self, left: Vec<LeftGroup>, progress: &Progress) -> Result<Report> {
        let is_left = |g: &usize| left.iter().any(|l| l.group == self.groups[*g].name);
        for g in (0..self.groups.len()).filter(|g| !is_left(g)) {
            if !state::holds_group(&self.files[g], &self.groups[g].name) {
                let place = Place::file(self.files[g].display().to_string()).tensor(&self.groups[g].name);
                return Err(Error::invalid(
                    place,
                    "the file of a group is missing or damaged: remove it, and do its part again",
                ));
            }
        }
        let mut plain = self.rest.clone();
        for g in (0..self.groups.len()).filter(is_left) {
            // A tied head's tensor is the embedding's, which may be stored already.
            if !self.plan.groups[g].tied {
                plain.extend(&self.groups[g].tensors);
            }
            plain.extend(&self.beside[g]);
        }
        plain.sort_unstable();
        plain.dedup();
        if !plain.is_empty() {
            let file = FileSpec {
                path: self.remainder.clone(),
                groups: Vec::new(),
                plain,
                metadata: [("format".to_owned(), "pt".to_owned())].into(),
                journal: None,
            };
            engine::run(&self.input.model, &self.groups, vec![file], &self.settings(), progress)?;
        }
        let mut report = self.report(&left);
        self.carry(&mut report, progress)?;
        let config = self.config()?;
        output::write_file(&self.folder.join("config.json"), config.as_bytes())?;
        let mut names: Vec<&Path> =
            (0..self.groups.len()).filter(|g| !is_left(g)).map(|g| self.files[g].as_path()).collect();
        if self.remainder.is_file() {
            names.push(&self.remainder);
        }
        self.check_whole(&self.measure(&mut report, &names)?)?;
        progress.check()?;
        state::end_folder(&self.folder)?;
        report.complete = true;
        progress.finish();
        Ok(report)
    }

    fn run_single(self, file: &Path, progress: &Progress) -> Result<Report> {
        let new_folder = !self.folder.exists();
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::io("create the folder", &self.folder, e))?;
        let goes_on = self.options.resume && Journal::exists(file);
        if !(self.bare || goes_on) {
            state::must_be_empty(&self.folder)?;
        }
        let journal = Journal::open(file, &self.identity, self.options.resume)?;
        let config = self.config()?;
        let config_path = config_beside(file, &config, self.bare);
        let new_config = !config_path.exists();
        let result = self.write_single(file, journal, (&config_path, &config), progress);
        if result.is_err() && Journal::remove_if_empty(file) {
            // Nothing was completed, so no trace is left.
            if new_config {
                let _ = std::fs::remove_file(&config_path);
            }
            if new_folder {
                let _ = std::fs::remove_dir(&self.folder);
            }
        }
        result
    }

    fn write_single(
        &self,
        file: &Path,
        journal: Journal,
        (config_path, config): (&Path, &str),
        progress: &Progress,
    ) -> Result<Report> {
        let resumed = self.groups.iter().filter(|g| journal.has(&g.name)).count() as u64;
        // Before the file has its name: without its config it would look finished.
        output::write_file(config_path, config.as_bytes())?;
        let plain: Vec<usize> = self.beside.iter().flatten().chain(&self.rest).copied().collect();
        let packed: u64 = self.groups.iter().map(|g| self.bytes(&g.tensors)).sum();
        progress.begin(packed + self.bytes(&plain));
        let spec = FileSpec {
            path: file.to_owned(),
            groups: (0..self.groups.len()).collect(),
            plain,
            metadata: BTreeMap::new(),
            journal: Some(journal),
        };
        let unfit = engine::run(&self.input.model, &self.groups, vec![spec], &self.settings(), progress)?;
        let left: Vec<LeftGroup> = unfit.into_iter().map(|u| self.left_group(u)).collect();
        let mut report = self.report(&left);
        report.resumed = resumed;
        if !self.bare {
            self.carry(&mut report, progress)?;
        }
        self.check_whole(&self.measure(&mut report, &[file])?)?;
        Journal::remove(file)?;
        report.complete = true;
        progress.finish();
        Ok(report)
    }

    /// Copies what goes with the model as it is.
    fn carry(&self, report: &mut Report, progress: &Progress) -> Result<()> {
        let Some(source) = &self.input.folder else { return Ok(()) };
        for file in &self.input.carried {
            progress.check()?;
            let to = self.folder.join(file);
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, e))?;
            }
            output::copy_file(&source.join(file), &to)?;
            report.carried.push(file.clone());
        }
        Ok(())
    }

    /// What can be told before and beside the files.
    fn report(&self, left: &[LeftGroup]) -> Report {
        let tensors = self.input.model.tensors();
        let name = |t: usize| tensors[t].name().to_owned();
        let mut report = Report {
            preset: self.preset.clone(),
            source_bytes: tensors.iter().map(|t| t.bytes()).sum(),
            dropped: self.dropped.iter().map(|&(head, embedding)| (name(head), name(embedding))).collect(),
            unmatched_patterns: self.plan.unmatched_patterns.clone(),
            left_behind: self.input.left_behind.clone(),
            ..Report::default()
        };
        let mut leave = |group: &str, members: &[usize], reason: &str| {
            report.left.extend(members.iter().map(|&t| LeftPlain {
                tensor: name(t),
                group: group.into(),
                reason: reason.into(),
            }));
        };
        self.plan.left.iter().for_each(|l| leave(&l.group, &l.tensors, &l.reason));
        for left in left {
            if let Some(group) = self.groups.iter().find(|g| g.name == left.group) {
                leave(&left.group, &group.tensors, &left.reason);
            }
        }
        for left in &report.left {
            let (tensor, group) = (shorten(&left.tensor, 80), shorten(&left.group, 80));
            log::info!("tensor '{tensor}' of group '{group}' is left plain: {}", left.reason);
        }
        report
    }

    /// Reads the headers of what was written, as any reader would.
    fn measure(&self, report: &mut Report, files: &[&Path]) -> Result<Model> {
        let files: Vec<PathBuf> = files.iter().filter(|f| f.is_file()).map(|f| f.to_path_buf()).collect();
        let model = Model::open_files(&files, Some(&self.config()?))?;
        report.groups = model.groups().len() as u64;
        report.weights = model.groups().iter().map(|g| g.element_count()).sum();
        report.weight_bytes = 2 * report.weights;
        report.packed_bytes = model.groups().iter().map(|g| g.packed_bytes()).sum();
        report.written_bytes = model.files().map(|f| f.bytes).sum();
        Ok(model)
    }

    /// Every tensor of the source is there under its name, as large as it was.
    fn check_whole(&self, model: &Model) -> Result<()> {
        let is_dropped = |number: usize| self.dropped.iter().any(|&(head, _)| head == number);
        for (number, tensor) in self.input.model.tensors().iter().enumerate() {
            let alike = |t: usize| {
                let ours = &model.tensors()[t];
                (ours.dtype(), ours.bytes()) == (tensor.dtype(), tensor.bytes())
            };
            if !is_dropped(number) && !model.find_tensor(tensor.name()).is_some_and(alike) {
                let place = Place::file(self.folder.display().to_string()).tensor(tensor.name());
                return Err(Error::corrupt(place, "the written model lacks this tensor of the source"));
            }
        }
        Ok(())
    }

    /// The text of config.json.
    fn config(&self) -> Result<String> {
        config::merged(self.input.config.as_deref(), &self.input.config_place, &self.patterns.to_json())
    }
}

/// The folder that is written to, the one file if it is to be one, and whether that stands alone.
fn destination_of(
    destination: &Path,
    layout: Layout,
    source: &Path,
    input: &Input,
) -> Result<(PathBuf, Option<PathBuf>, bool)> {
    let refuse = |reason: String| {
        Err(Error::InvalidArgument(format!(
            "cannot write to '{}': {reason}",
            shorten(&destination.display().to_string(), 200)
        )))
    };
    let is_file = destination.extension().is_some_and(|e| e == "safetensors");
    let (folder, single, bare) = match layout {
        Layout::Folder => (destination.to_owned(), None, false),
        Layout::ByName if !is_file => (destination.to_owned(), None, false),
        _ if is_file => {
            let parent = destination.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (parent.to_owned(), Some(destination.to_owned()), true)
        }
        _ => (destination.to_owned(), Some(destination.join(input.remainder())), false),
    };
    if folder.exists() && !folder.is_dir() {
        return refuse("it is not a folder".into());
    }
    if single.as_ref().is_some_and(|f| f.exists() && !f.is_file()) {
        return refuse("it is not a regular file".into());
    }
    // The part of the path that is there already decides where it leads.
    let there = folder.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let real = there.clone().find_map(|p| p.canonicalize().ok());
    let source = source.canonicalize().map_err(|e| Error::io("open", source, e))?;
    if input.folder.is_some() && real.is_some_and(|real| real.starts_with(&source)) {
        return refuse("it lies in the source's folder, and would be taken for a part of it".into());
    }
    let same = single.as_ref().and_then(|f| f.canonicalize().ok());
    if same.is_some_and(|same| same == source) {
        return refuse("it is the source".into());
    }
    Ok((folder, single, bare))
}

/// Where the config of a single file goes: beside it, unless something else has that place.
fn config_beside(file: &Path, text: &str, bare: bool) -> PathBuf {
    let usual = file.with_file_name("config.json");
    if !bare || !usual.exists() || std::fs::read_to_string(&usual).is_ok_and(|there| there == text) {
        return usual;
    }
    let own = file.with_extension("config.json");
    log::warn!(
        "'{}' is something else's and stays: the model's config is '{}', to be given to readers (--config)",
        usual.display(),
        own.display()
    );
    own
}

/// The heads that may be dropped and are indeed equal to their embeddings.
fn dropped(model: &Model, plan: &Plan) -> Result<Vec<(usize, usize)>> {
    let mut equal = Vec::new();
    for head in &plan.dropped {
        let (a, b) = (&model.tensors()[head.tensor], &model.tensors()[head.embedding]);
        let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let mut at = 0;
        let mut same = a.bytes() == b.bytes();
        while same && at < a.bytes() {
            let len = (a.bytes() - at).min(x.len() as u64) as usize;
            model.read_plain(a, at, &mut x[..len])?;
            model.read_plain(b, at, &mut y[..len])?;
            same = x[..len] == y[..len];
            at += len as u64;
        }
        if same {
            equal.push((head.tensor, head.embedding));
        } else {
            log::warn!("'{}' is said to be tied, and differs from '{}': it is stored", a.name(), b.name());
        }
    }
    Ok(equal)
}

/// What the source is: names, sizes, times of its files, and a hash of their headers. A run is gone on with only if all are
/// as they were.
fn identity(input: &Input) -> Result<Value> {
    let mut files = Vec::new();
    for source in input.model.sources() {
        let mut size = [0; 8];
        source.read_at(0, &mut size)?;
        let mut header = Vec::new();
        let header = source.read_into(0, 8 + u64::from_le_bytes(size), &mut header)?;
        let hash: String = Sha256::digest(header).iter().map(|b| format!("{b:02x}")).collect();
        let changed = std::fs::metadata(source.path()).and_then(|m| m.modified()).ok();
        let changed = changed.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map(|d| d.as_nanos() as u64);
        let name = source.path().file_name().map(|n| n.to_string_lossy().into_owned());
        files.push(json!([name, source.len(), changed, hash]));
    }
    Ok(files.into())
}
