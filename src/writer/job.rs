//! One compression from its beginning to its end: what is to be done, in which order, and what came of it.

use super::config;
use super::destination::{config_beside, destination_of};
use super::engine::{self, FileSpec, GroupSpec, Settings, Unfit};
use super::input::Input;
use super::journal::{Journal, Manner};
use super::plan::{self, Plan, SourceTensor};
use super::presets;
use super::state::{self, Held, LeftGroup, Part, PartState};
use super::target::{self, Entry, Folder, NewFolders, write_file};
use super::{CompressOptions, DEFAULT_MEMORY, LeftPlain, Report};
use crate::error::{Error, Place, Result, shorten};
use crate::format::{Model, Tensor, UNFINISHED, read_text};
use crate::host::{self, VerifyOptions};
use crate::huffman::encode::Variant;
use crate::progress::Progress;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is to be done.
pub(super) struct Job<'o> {
    options: &'o CompressOptions,
    input: Input,
    /// The text of config.json.
    config: String,
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
    pub fn new(source: &Path, destination: &Path, options: &'o CompressOptions) -> Result<Job<'o>> {
        options.part.check()?;
        let input = Input::open(source)?;
        let table: Vec<SourceTensor> = input
            .model
            .tensors()
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
                "the patterns make no group of '{}': there is nothing to compress (they match whole names of modules, such as \
                 model.layers.0, and attributes are written without .weight)",
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
        let config = config::merged(input.config.as_deref(), &input.config_place, &patterns.to_value())?;
        let identity = json!({
            "version": 1,
            "source": input.identity()?,
            "patterns": patterns.to_value(),
            "parts": options.part.count,
            "hashes": options.hashes,
            "shapes": options.shapes,
        });
        Ok(Job {
            groups: groups.collect(),
            options,
            config,
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
            // More than a thousand threads have nothing to do on any machine.
            threads: self.options.threads.clamp(1, most.min(1024)),
            verify: self.options.verify,
            hashes: self.options.hashes,
            shapes: self.options.shapes,
            strict: self.options.strict,
            variant: Variant::best(),
        }
    }

    fn bytes(&self, tensors: &[usize]) -> u64 {
        tensors.iter().map(|&t| self.input.model.tensor_at(t).bytes()).sum()
    }

    pub fn run(self, progress: &Progress) -> Result<Report> {
        match self.single.clone() {
            Some(file) => self.run_single(&file, progress),
            None => {
                let (folder, names) = (self.folder.clone(), self.names());
                let mut undo = None;
                let result = self.run_folder(progress, &mut undo);
                if let (Err(_), Some((_held, made))) = (&result, undo) {
                    state::clear_if_empty(&folder, &names, &made);
                }
                result
            }
        }
    }

    /// `undo` is set if what was begun is this run's alone: a lock, which is kept until all is removed, and the folders made.
    fn run_folder(self, progress: &Progress, undo: &mut Option<(Held, NewFolders)>) -> Result<Report> {
        let part = self.options.part;
        if self.options.resume && part == Part::WHOLE && !self.folder.join(UNFINISHED).exists() {
            let all: Vec<&Path> = self.files.iter().chain([&self.remainder]).map(PathBuf::as_path).collect();
            if let Some(report) = self.already_complete(&all, progress)? {
                return Ok(report);
            }
        }
        // Parts find the folder begun by one another.
        let begun = state::begin_folder(&self.folder, &self.identity, self.options.resume || part.count > 1)?;
        let alone = begun.new && part == Part::WHOLE;
        // Notes in a folder that was just begun are those of a run that was killed at its very end.
        let state = PartState::begin(&self.folder, part, &self.identity, self.options.resume || alone);
        if alone {
            let held = match &state {
                Ok(state) => Some(state.hold()),
                // Another run has it by now.
                Err(Error::Busy(_)) => None,
                Err(_) => Held::of_part(&self.folder, part),
            };
            *undo = held.map(|held| (held, begun.folders));
        }
        let mut state = state?;
        self.refuse_left(&state.left)?;
        // Before the work and not after it.
        self.refuse_changed(&Arc::new(Folder::open(&self.folder)?), progress)?;
        let left: HashSet<String> = state.left.iter().map(|l| l.group.clone()).collect();
        let mut resumed = 0;
        let mut todo = Vec::new();
        for (number, group) in self.groups.iter().enumerate().filter(|(number, _)| part.has(*number)) {
            if left.contains(&group.name) {
                continue;
            }
            if self.options.resume
                && self.files[number].is_file()
                && state::holds_group(&self.files[number], &group.name).is_ok()
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
        // A finished part whose file was lost since makes it again.
        if !state.finished || !todo.is_empty() {
            let files = todo.iter().map(|&g| FileSpec {
                path: self.files[g].clone(),
                groups: vec![g],
                plain: self.beside[g].clone(),
                metadata: BTreeMap::new(),
                journal: None,
            });
            let made = engine::run(&self.input.model, &self.groups, files.collect(), &self.settings(), progress)?;
            state.left.extend(made.unfit.into_iter().map(|u| self.left_group(u)));
            state.left.sort_by(|a, b| a.group.cmp(&b.group));
            state.finished = true;
            state.save()?;
        }
        let mut report = if whole {
            let _alone = state::begin_end(&self.folder)?;
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

    /// What there is to say if an earlier run has written all of the model to these files: whoever repeats a command until it
    /// succeeds may repeat it once too often. Names and sizes do not tell one training from the next, so every bit is compared.
    fn already_complete(&self, files: &[&Path], progress: &Progress) -> Result<Option<Report>> {
        let mut report = self.report(&[]);
        let paths: Vec<PathBuf> = files.iter().filter(|f| f.is_file()).map(|f| f.to_path_buf()).collect();
        let whole = self.measure(&mut report, files).and_then(|there| self.check_whole(&there));
        let model = match whole.and_then(|()| Model::open_files(&paths, Some(&self.config))) {
            Ok(model) => model,
            Err(error) if is_no_answer(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        // What is asked for and was not then would have to be written.
        let lacks = |t: Tensor| {
            let shape = || self.input.model.find_tensor(t.name()).map(Tensor::shape);
            self.options.hashes && t.sha256().is_none() || self.options.shapes && shape() != Some(t.shape())
        };
        if model.tensors().any(lacks) {
            return Ok(None);
        }
        let options = VerifyOptions::new().threads(self.options.threads);
        let verified = host::verify_model(&model, Some(&self.input.model), &options, progress, &mut |_| {});
        match verified {
            Err(error) if is_no_answer(&error) => return Err(error),
            Ok(verified) if verified.is_good() => {}
            _ => return Ok(None),
        }
        let reason = "the run that wrote the model left it so";
        let left = self.groups.iter().filter(|g| model.find_group(&g.name).is_none());
        let left = left.map(|g| LeftGroup { group: g.name.clone(), tensor: String::new(), reason: reason.into() });
        let left: Vec<LeftGroup> = left.collect();
        self.refuse_left(&left)?;
        report.left.extend(self.left_plain(&left));
        report.carried = self.complete_what_goes_with_it(progress)?;
        report.resumed = report.groups;
        report.complete = true;
        log::info!("all of it is there already, and equal to the source");
        Ok(Some(report))
    }

    /// Beside tensors that are all there: what a run writes last. What is missing is written; what is different was changed since,
    /// here or in the source, and is not replaced unasked.
    fn complete_what_goes_with_it(&self, progress: &Progress) -> Result<Vec<PathBuf>> {
        let config = match &self.single {
            Some(file) => config_beside(file, &self.config, self.bare),
            None => self.folder.join("config.json"),
        };
        let lacks = |path: &Path| path.symlink_metadata().is_err();
        let incomplete = lacks(&config) || !self.bare && self.carried().any(|(_, to)| lacks(&self.folder.join(to)));
        let notes = self.single.is_none() && !state::notes(&self.folder)?.is_empty();
        let _alone = (incomplete || notes).then(|| state::alone(&self.folder)).transpose()?;
        let carried = if self.bare { Vec::new() } else { self.carry(&mut Vec::new(), progress)? };
        self.write_config(&config)?;
        if notes {
            state::remove_notes(&self.folder);
        }
        Ok(carried)
    }

    /// Writes the config of a folder, unless it is there.
    fn write_config(&self, config: &Path) -> Result<()> {
        match read_text(config)? {
            None => write_file(&Entry::at(config)?, self.config.as_bytes()),
            Some(there) if there == self.config.as_bytes() => Ok(()),
            Some(_) => Err(differs(config)),
        }
    }

    fn left_group(&self, unfit: Unfit) -> LeftGroup {
        let tensor = self.input.model.tensor_at(unfit.tensor).name().to_owned();
        LeftGroup { group: self.groups[unfit.group].name.clone(), tensor, reason: unfit.reason }
    }

    pub fn merge(self, progress: &Progress) -> Result<Report> {
        if self.single.is_some() {
            let reason = "a single file is not written in parts, so there is nothing to merge";
            return Err(Error::InvalidArgument(reason.into()));
        }
        state::check_job(&self.folder.join(UNFINISHED), &self.identity)?;
        let count = self.options.part.count;
        let mut left = Vec::new();
        for number in 1..=count {
            left.extend(PartState::finished(&self.folder, Part { number, count }, &self.identity)?);
        }
        self.refuse_left(&left)?;
        let _alone = state::begin_end(&self.folder)?;
        progress.begin(self.bytes(&self.rest));
        self.complete(left, progress)
    }

    /// What an earlier run without `strict` has left plain is an error with it, as it is in this one.
    fn refuse_left(&self, left: &[LeftGroup]) -> Result<()> {
        match left.first() {
            Some(left) if self.options.strict => {
                let place = Place::default().tensor(if left.tensor.is_empty() { &left.group } else { &left.tensor });
                Err(Error::unsupported(place, left.reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// All groups are there: the rest of the folder.
    fn complete(self, left: Vec<LeftGroup>, progress: &Progress) -> Result<Report> {
        let names: HashSet<&str> = left.iter().map(|l| &l.group[..]).collect();
        let is_left = |g: &usize| names.contains(&self.groups[*g].name[..]);
        for g in (0..self.groups.len()).filter(|g| !is_left(g)) {
            state::holds_group(&self.files[g], &self.groups[g].name).map_err(|error| {
                let missing = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
                // A disk that cannot be read just now is no reason to remove what may be good.
                if matches!(&error, Error::Io { source, .. } if !missing(source)) {
                    return error;
                }
                let place = Place::file(self.files[g].display().to_string()).tensor(&self.groups[g].name);
                Error::invalid(place, "the file of a group is missing or damaged: remove it, and do its part again")
            })?;
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
        if left.len() == self.groups.len() {
            log::warn!("no group could be compressed: the model is a copy of its source");
        }
        report.carried = self.carry(&mut Vec::new(), progress)?;
        self.write_config(&self.folder.join("config.json"))?;
        let mut names: Vec<&Path> =
            (0..self.groups.len()).filter(|g| !is_left(g)).map(|g| self.files[g].as_path()).collect();
        if self.remainder.is_file() {
            names.push(&self.remainder);
        }
        let there = self.measure(&mut report, &names)?;
        self.check_whole(&there)?;
        progress.check()?;
        state::end_folder(&self.folder, &self.names())?;
        report.complete = true;
        progress.finish();
        Ok(report)
    }

    fn run_single(self, file: &Path, progress: &Progress) -> Result<Report> {
        let folders = NewFolders::make(&self.folder)?;
        let result = self.begin_single(file, progress);
        if result.is_err() {
            folders.remove();
        }
        result
    }

    fn begin_single(self, file: &Path, progress: &Progress) -> Result<Report> {
        let begun = Journal::exists(file);
        if begun {
            Journal::check_free(file)?;
        }
        // A folder that is being written has files of its own of such names.
        if self.folder.join(UNFINISHED).exists() {
            return Err(Error::InvalidArgument(format!(
                "the folder '{}' is being written as one file per group, or was and is unfinished",
                shorten(&self.folder.display().to_string(), 200)
            )));
        }
        // A run that was ended after the file had its name leaves a journal without a file to go on with.
        if self.options.resume
            && !(begun && target::temporary(file).exists())
            && let Some(report) = self.already_complete(&[file], progress)?
        {
            if begun {
                remove_journal(file);
            }
            return Ok(report);
        }
        if self.options.keep_existing && !(begun && self.options.resume) {
            self.refuse_existing(file)?;
        }
        // Before anything is written, and once more when nobody else can.
        if !self.bare && !begun {
            state::must_be_empty(&self.folder, None)?;
        }
        // What is to be replaced is there when the run begins; what comes later is not meant.
        let replaces = !self.options.keep_existing && self.existing(file).is_some();
        let manner = Manner { bare: self.bare, replaces };
        let journal = Journal::open(file, &self.identity, manner, self.options.resume)?;
        // Until nothing is left to be removed, nobody else begins.
        let (_held, progressed) = (journal.hold(), journal.progressed());
        // Of a folder with more in it than the file, an earlier run may have written a part.
        let undo = journal.new || self.bare;
        let mut written = Vec::new();
        let result = self.write_single(file, journal, &mut written, progress);
        // If nothing was completed, no trace is left.
        if result.is_err() && undo && !progressed.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(target::temporary(file));
            for file in written {
                let _ = std::fs::remove_file(&file);
                for folder in file.ancestors().skip(1).take_while(|folder| *folder != self.folder) {
                    let _ = std::fs::remove_dir(folder);
                }
            }
            let _ = Journal::remove(file);
        }
        result
    }

    /// The file, or the config that readers would take for its own, if it is there already.
    fn existing(&self, file: &Path) -> Option<PathBuf> {
        let own = file.with_extension("config.json");
        let is_other = || read_text(&own).is_ok_and(|there| there.is_none_or(|there| there != self.config.as_bytes()));
        match file.symlink_metadata() {
            Ok(_) => Some(file.to_owned()),
            Err(_) if self.bare && own.symlink_metadata().is_ok() && is_other() => Some(own),
            Err(_) => None,
        }
    }

    fn refuse_existing(&self, file: &Path) -> Result<()> {
        self.existing(file).map_or(Ok(()), |there| Err(Error::Exists(there)))
    }

    /// `written` gets the names of the files that were copied.
    fn write_single(
        &self,
        file: &Path,
        journal: Journal,
        written: &mut Vec<PathBuf>,
        progress: &Progress,
    ) -> Result<Report> {
        // What was to be replaced when the run began may be; what has come since may not.
        let keep = self.options.keep_existing && !journal.replaces;
        if keep {
            self.refuse_existing(file)?;
        }
        if journal.new && !self.bare {
            state::must_be_empty(&self.folder, journal.name())?;
        }
        let plain: Vec<usize> = self.beside.iter().flatten().chain(&self.rest).copied().collect();
        let packed: u64 = self.groups.iter().map(|g| self.bytes(&g.tensors)).sum();
        progress.begin(packed + self.bytes(&plain));
        let carried = if self.bare { Vec::new() } else { self.carry(written, progress)? };
        let spec = FileSpec {
            path: file.to_owned(),
            groups: (0..self.groups.len()).collect(),
            plain,
            metadata: BTreeMap::new(),
            journal: Some(journal),
        };
        let made = engine::run(&self.input.model, &self.groups, vec![spec], &self.settings(), progress)?;
        let left: Vec<LeftGroup> = made.unfit.into_iter().map(|u| self.left_group(u)).collect();
        let mut report = Report { resumed: made.resumed, carried, ..self.report(&left) };
        // All that may fail is done before the file has its name: then there is a model, and no error.
        for out in &made.unnamed {
            let there = self.measure(&mut report, &[out.temporary()])?;
            self.check_whole(&there)?;
            progress.check()?;
            if keep {
                // Once more, for it may have taken hours.
                self.refuse_existing(file)?;
            }
            // At the last moment, for one that is to be replaced would be read with it; but before the file has its name,
            // for without it that would look finished.
            let config = config_beside(file, &self.config, self.bare);
            let before = read_text(&config)?;
            if !self.bare && before.as_ref().is_some_and(|there| there != self.config.as_bytes()) {
                return Err(differs(&config));
            }
            write_file(&Entry::at(&config)?, self.config.as_bytes())?;
            if let Err(error) = out.commit() {
                // What is there under the name stays, and is read with what it was read with.
                let undone = match before {
                    Some(text) => Entry::at(&config).and_then(|config| write_file(&config, &text)),
                    None => std::fs::remove_file(&config).map_err(|e| Error::io("remove", &config, e)),
                };
                if let Err(error) = undone {
                    log::warn!("the config of a file that has not got its name stays: {error}");
                }
                return Err(error);
            }
        }
        remove_journal(file);
        // Until now, nobody else could go on with it.
        drop(made.journals);
        report.complete = true;
        progress.finish();
        Ok(report)
    }

    /// What goes with the model as it is: from where, and its path below the folder.
    fn carried(&self) -> impl Iterator<Item = (PathBuf, &Path)> {
        let files =
            self.input.folder.iter().flat_map(|source| self.input.carried.iter().map(move |file| (source, file)));
        files.map(|(source, file)| (source.join(file), file.as_path()))
    }

    /// Fails if something that would go with the model is there and is something else, which is not replaced unasked. Returns
    /// what is not there.
    fn refuse_changed(&self, folder: &Arc<Folder>, progress: &Progress) -> Result<Vec<(PathBuf, &Path)>> {
        let config = self.folder.join("config.json");
        if read_text(&config)?.is_some_and(|there| there != self.config.as_bytes()) {
            return Err(differs(&config));
        }
        let mut missing = Vec::new();
        for (from, file) in self.carried() {
            progress.check()?;
            match Entry::below(folder, file)?.filter(|to| to.folder.has(&to.name)) {
                Some(to) if !target::is_copy(&from, &to, progress)? => return Err(differs(&to.path())),
                Some(_) => {}
                None => missing.push((from, file)),
            }
        }
        Ok(missing)
    }

    /// Copies what goes with the model and is not there, and names all of it; `written` gets what was copied.
    fn carry(&self, written: &mut Vec<PathBuf>, progress: &Progress) -> Result<Vec<PathBuf>> {
        let folder = Arc::new(Folder::open(&self.folder)?);
        for (from, file) in self.refuse_changed(&folder, progress)? {
            progress.check()?;
            let mut made = Vec::new();
            let copied = Entry::make_below(&folder, file, &mut made)
                .and_then(|to| target::copy_file(&from, &to, progress).map(|()| written.push(to.path())));
            if copied.is_err() {
                made.iter().rev().for_each(|made| _ = made.folder.remove_folder(&made.name));
            }
            // Not every file system tells README.md from readme.md.
            copied.map_err(|error| match error {
                Error::Exists(to) => Error::InvalidArgument(format!(
                    "'{}' has come to be there: there, two names of the source are one, or another process writes to it",
                    shorten(&to.display().to_string(), 200)
                )),
                error => error,
            })?;
        }
        Ok(self.input.carried.clone())
    }

    /// What can be told before and beside the files.
    fn report(&self, left: &[LeftGroup]) -> Report {
        let model = &self.input.model;
        let name = |t: usize| model.tensor_at(t).name().to_owned();
        let mut report = Report {
            preset: self.preset.clone(),
            source_bytes: model.tensors().map(|t| t.bytes()).sum(),
            dropped: self.dropped.iter().map(|&(head, embedding)| (name(head), name(embedding))).collect(),
            unmatched_patterns: self.plan.unmatched_patterns.clone(),
            left_behind: self.input.left_behind.clone(),
            ..Report::default()
        };
        for left in &self.plan.left {
            let leave =
                |&t: &usize| LeftPlain { tensor: name(t), group: left.group.clone(), reason: left.reason.clone() };
            report.left.extend(left.tensors.iter().map(leave));
        }
        report.left.extend(self.left_plain(left));
        for left in &report.left {
            let (tensor, group) = (shorten(&left.tensor, 80), shorten(&left.group, 80));
            log::info!("tensor '{tensor}' of group '{group}' is left plain: {}", left.reason);
        }
        report
    }

    /// The tensors of groups that stay plain.
    fn left_plain(&self, left: &[LeftGroup]) -> Vec<LeftPlain> {
        let groups: HashMap<&str, &GroupSpec> = self.groups.iter().map(|g| (&g.name[..], g)).collect();
        let mut plain = Vec::new();
        for left in left {
            let tensors = groups.get(&left.group[..]).into_iter().flat_map(|g| &g.tensors);
            plain.extend(tensors.map(|&t| LeftPlain {
                tensor: self.input.model.tensor_at(t).name().to_owned(),
                group: left.group.clone(),
                reason: left.reason.clone(),
            }));
        }
        plain
    }

    /// Reads the headers of what was written, as any reader would, one file after the other. Returns type and bytes of every
    /// tensor.
    fn measure(&self, report: &mut Report, files: &[&Path]) -> Result<HashMap<String, (Dtype, u64)>> {
        let mut there = HashMap::new();
        for file in files.iter().filter(|f| f.is_file()) {
            let model = Model::open_files(&[file.to_path_buf()], Some(&self.config))?;
            for group in model.groups() {
                report.groups += 1;
                report.weights += group.element_count();
                report.packed_bytes += group.packed_bytes();
            }
            report.written_bytes += model.files().map(|f| f.bytes).sum::<u64>();
            there.extend(model.tensors().map(|t| (t.name().to_owned(), (t.dtype(), t.bytes()))));
        }
        report.weight_bytes = 2 * report.weights;
        Ok(there)
    }

    /// Every tensor of the source is there under its name, as large as it was.
    fn check_whole(&self, there: &HashMap<String, (Dtype, u64)>) -> Result<()> {
        let is_dropped = |number: usize| self.dropped.iter().any(|&(head, _)| head == number);
        for (number, tensor) in self.input.model.tensors().enumerate() {
            if !is_dropped(number) && there.get(tensor.name()) != Some(&(tensor.dtype(), tensor.bytes())) {
                let place = Place::file(self.folder.display().to_string()).tensor(tensor.name());
                return Err(Error::corrupt(place, "the written model lacks this tensor of the source"));
            }
        }
        Ok(())
    }

    /// The names of the files that are written.
    fn names(&self) -> HashSet<String> {
        let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let files = self.files.iter().chain([&self.remainder]).chain(&self.input.carried).filter_map(name);
        files.chain(["config.json".to_owned()]).collect()
    }
}

/// Of a complete file nothing needs to be noted.
fn remove_journal(file: &Path) {
    if let Err(error) = Journal::remove(file) {
        log::warn!("the file is complete, and what notes its progress is left: {error}");
    }
}

/// Whether it was not found out what a model is, rather than that it is a bad one.
fn is_no_answer(error: &Error) -> bool {
    matches!(error, Error::Cancelled | Error::Io { .. } | Error::OutOfMemory { .. } | Error::Internal(_))
}

/// Something beside the tensors is not what goes with this source.
fn differs(file: &Path) -> Error {
    Error::InvalidArgument(format!(
        "'{}' is not what this run would write: remove it to have it written",
        shorten(&file.display().to_string(), 200)
    ))
}

/// The heads that may be dropped and are indeed equal to their embeddings.
fn dropped(model: &Model, plan: &Plan) -> Result<Vec<(usize, usize)>> {
    let mut equal = Vec::new();
    for head in &plan.dropped {
        let (a, b) = (model.tensor_at(head.tensor), model.tensor_at(head.embedding));
        let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let mut at = 0;
        let mut same = a.bytes() == b.bytes();
        while same && at < a.bytes() {
            let len = (a.bytes() - at).min(x.len() as u64) as usize;
            a.read_plain(at, &mut x[..len])?;
            b.read_plain(at, &mut y[..len])?;
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
