//! A run: the request, the claim to the destination, the work, and the report.

use super::finish::Finish;
use super::plan::{self, Files, Grouping, Origin, Part, Patterns, Plan, SourceTensor, config};
use super::source::Source;
use super::target::{
    self, Answer, Claim, Completion, ConfigPlace, Entry, Folder, LeftGroup, Locked, PartialFile, Record, Request,
};
use super::work::{self, FileSpec, GroupSpec, Made, Order, Segment, Settings, Unfit};
use super::{CompressOptions, Coverage, DEFAULT_MEMORY, Layout, LeftPlain, Report, SideFile};
use crate::error::{Error, Place, Result, shorten, shorten_path};
use crate::format::{Missing, Model, Tensor, misderived, missing_ends, no_rest, refuse_missing};
use crate::host::{self, VerifyOptions};
use crate::huffman::encode::Variant;
use crate::progress::Progress;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run: all that is known before the destination is claimed.
pub(super) struct Run<'o> {
    pub options: &'o CompressOptions,
    pub source: Source,
    /// The text of config.json.
    pub config: String,
    preset: Option<String>,
    /// True if shapes are written: if they are asked for, for automatic groups, of which no other program has the bytes, and where
    /// readers would derive others.
    shapes: bool,
    pub plan: Plan,
    pub groups: Vec<GroupSpec>,
    pub files: Files,
    /// Tied heads that are not stored, with their embeddings.
    pub dropped: Vec<(usize, usize)>,
    /// What the source lacks, as far as the config says so.
    lacks: Vec<Missing>,
    /// The identity of what is written (source, patterns, options): only the same is resumed.
    job: Value,
}

impl<'o> Run<'o> {
    pub fn new(
        source: &Path,
        destination: &Path,
        options: &'o CompressOptions,
        progress: &Progress,
    ) -> Result<Run<'o>> {
        options.part.check()?;
        let input = Source::open(source, progress)?;
        if !options.incomplete {
            refuse_missing(source, "compress", &input.found.missing)?;
        }
        let table = table(&input.model);
        let mut wanted = plan::Wanted::of(options.preset.as_deref(), options.patterns.as_ref())?;
        let none = Patterns::default();
        if let (plan::Wanted::Best | plan::Wanted::Automatic, Some(reason)) = (wanted, no_bf16(&input, &table)) {
            if !options.allow_plain {
                return Err(nothing(source, &reason));
            }
            wanted = plan::Wanted::Patterns(&none);
        }
        let Grouping { patterns, origin, mut plan } = input.grouping(&table, wanted, progress)?;
        if wanted.is_free() && !options.reference_only {
            plan::extend(&mut plan, &table, &options.run_sizes);
        }
        let is_empty = plan.group_count() == 0 && plan.left.is_empty() && !options.allow_plain;
        if is_empty && matches!(origin, Origin::Automatic) {
            return Err(nothing(source, "no bf16 matrix is as large as the tables of a group"));
        }
        if is_empty {
            return Err(Error::InvalidArgument(format!(
                "the patterns make no group of '{}': there is nothing to compress (they match whole names of modules, such as \
                 model.layers.0, and attributes are written without .weight)",
                shorten_path(source)
            )));
        }
        if let (true, Some(left)) = (options.strict, plan.left.first()) {
            let place = Place::default().tensor(&left.group);
            return Err(Error::unsupported(place, format!("the group cannot be compressed: {}", left.reason)));
        }
        if let (true, false, Some(left)) = (plan.groups.is_empty(), options.allow_plain, plan.left.first()) {
            return Err(nothing(source, &left.reason));
        }
        // The source has compared them.
        let dropped: Vec<_> = plan.dropped.iter().map(|head| (head.tensor, head.embedding)).collect();
        let is_dropped = |t: &usize| dropped.iter().any(|(head, _)| head == t);
        let plain: Vec<usize> = plan.plain.iter().copied().filter(|t| !is_dropped(t)).collect();
        let files = Files::new(destination, options.layout, input.main_file(), &table, &plan, &plain);
        target::check_place(&files.folder, files.single(), source, input.model.files().map(|f| f.file))?;
        if files.single().is_some() && options.part.count > 1 {
            return Err(Error::InvalidArgument("a single file cannot be written in parts: write a folder".into()));
        }
        let mut lacks: Vec<Missing> = input.found.missing.iter().chain(&input.found.doubts).cloned().collect();
        lacks.extend(missing_ends(&patterns, input.parsed.as_ref(), |module| {
            let is_group =
                plan.groups.iter().map(|g| &g.name).chain(plan.left.iter().map(|l| &l.group)).any(|g| g == module);
            is_group || input.model.find_tensor(&format!("{module}.weight")).is_some()
        }));
        // With automatic groups or runs the number of tensors is noted, so that a file that is lost later is missed. Other configs are
        // the reference's.
        let automatic = matches!(origin, plan::Origin::Automatic);
        let counted = automatic || !plan.in_runs.is_empty();
        if !counted && beside_groups(&table, &plan, &plain) {
            lacks.extend(no_rest(&input.model, input.parsed.as_ref(), progress)?);
        }
        for lack in &lacks {
            log::warn!("the source seems to lack something: {}", lack.reason);
        }
        let names: Vec<&str> = lacks.iter().map(|lack| &lack.name[..]).collect();
        let twice = plan.groups.iter().filter(|group| group.tied).count();
        let tensors = counted.then(|| (input.model.tensors().len() - dropped.len() + twice) as u64);
        let place = &input.config_place;
        let config = config::merged(input.config.as_deref(), place, &patterns.to_value(), &names, tensors)?;
        let runs = plan.in_runs.iter().map(|planned| json!([planned.tensor, planned.runs.len()])).collect::<Vec<_>>();
        let shapes = options.shapes || automatic || is_misderived(&input, &plan, &dropped, &config, progress)?;
        let job = json!({
            "version": 2,
            "source": input.identity(progress)?,
            "patterns": patterns.to_value(),
            "parts": options.part.count,
            "hashes": options.hashes,
            "shapes": shapes,
            "runs": runs,
        });
        let groups = group_specs(&plan, &table);
        let preset = origin.name().map(str::to_owned);
        Ok(Run { options, config, preset, shapes, groups, files, dropped, job, plan, lacks, source: input })
    }

    pub fn settings(&self) -> Settings {
        let memory = if self.options.memory == 0 { DEFAULT_MEMORY } else { self.options.memory };
        let most = (memory / work::THREAD_BYTES).max(1) as usize;
        if self.options.threads > most {
            log::warn!("{most} threads work: {memory} bytes of memory are not enough for {}", self.options.threads);
        }
        Settings {
            // More than a thousand threads have nothing to do on any machine.
            threads: self.options.threads.clamp(1, most.min(1024)),
            verify: self.options.verify,
            hashes: self.options.hashes,
            shapes: self.shapes,
            strict: self.options.strict,
            variant: Variant::best(),
        }
    }

    fn bytes(&self, tensors: &[usize]) -> u64 {
        tensors.iter().map(|&t| self.source.model.tensor_at(t).bytes()).sum()
    }

    fn rest_bytes(&self) -> u64 {
        self.files.rest.as_ref().map_or(0, |rest| self.bytes(&rest.plain))
    }

    /// Compresses the model, or a part of it.
    pub fn compress(&self, progress: &Progress) -> Result<Report> {
        if let Some(report) = self.if_complete(progress)? {
            return Ok(report);
        }
        let claim = self.claim()?;
        // A file that was to be replaced when the run began may be replaced; one that has appeared since may not.
        let keep = self.options.keep_existing && !claim.replaces;
        if keep {
            self.refuse_existing()?;
        }
        let finish = Finish { run: self, folder: &claim.folder, ledger: Some(&claim.ledger), keep };
        // Before the work and not after it.
        finish.refuse_changed(progress)?;
        let Made { unfit, resumed, unnamed } = self.work(&claim, progress)?;
        let left = self.left_groups(unfit);
        if self.options.part == Part::WHOLE && left.len() == self.groups.len() {
            // While nothing is noted: whatever was begun is removed.
            self.refuse_plain(&left)?;
        }
        if self.files.named_one_by_one() {
            claim.ledger.finish(&left)?;
        }
        let mut report = if self.options.part == Part::WHOLE {
            self.complete(&claim, &finish, &left, &unnamed, progress)?
        } else {
            let mut report = self.report(&left);
            finish.measure(&mut report, self.mine().map(|file| file.path.as_path()), progress)?;
            report
        };
        progress.finish();
        claim.keep();
        report.resumed = resumed;
        Ok(report)
    }

    /// Completes the model whose groups are all done.
    fn complete(
        &self,
        claim: &Claim,
        finish: &Finish,
        left: &[LeftGroup],
        unnamed: &[Arc<PartialFile>],
        progress: &Progress,
    ) -> Result<Report> {
        let _completion = self.completion(&claim.folder)?;
        let report = finish.run(left, unnamed, progress)?;
        self.release(claim)?;
        Ok(report)
    }

    /// Returns the files of this part.
    fn mine(&self) -> impl Iterator<Item = &plan::FilePlan> + Clone {
        let part = self.options.part;
        self.files.files.iter().enumerate().filter(move |(number, _)| part.has(*number)).map(|(_, file)| file)
    }

    /// Writes all groups of this part.
    fn work(&self, claim: &Claim, progress: &Progress) -> Result<Made> {
        let mine = self.mine();
        let packed = |groups: &[usize]| groups.iter().map(|&g| 2 * self.groups[g].weights()).sum::<u64>();
        let total: u64 = mine.clone().map(|file| packed(&file.groups) + self.bytes(&file.plain)).sum();
        progress.begin(total + if self.options.part == Part::WHOLE { self.rest_bytes() } else { 0 });
        let spec = |file: &plan::FilePlan| FileSpec {
            path: file.path.clone(),
            groups: file.groups.clone(),
            plain: file.plain.clone(),
            metadata: file.metadata.clone(),
            named: self.files.named_one_by_one(),
            resume: self.options.resume,
        };
        let settings = self.settings();
        let order = Order {
            model: &self.source.model,
            groups: &self.groups,
            ledger: Some(&claim.ledger),
            settings: &settings,
            progress,
        };
        work::run(&order, mine.map(spec).collect())
    }

    /// Completes a model whose parts are all finished.
    pub fn merge(&self, progress: &Progress) -> Result<Report> {
        if self.files.single().is_some() {
            let reason = "a single file is not written in parts, so there is nothing to merge";
            return Err(Error::InvalidArgument(reason.into()));
        }
        target::check_marker(&self.files.folder, &self.job)?;
        let count = self.options.part.count;
        let mut left = Vec::new();
        for number in 1..=count {
            let path = self.files.folder.join(self.files.ledger(Part { number, count }));
            let record = Record::read(&path)?;
            // One that a run which was killed at its very end has left may be of another job.
            if record.head("job") != Some(&self.job) || !record.finished {
                return Err(Error::InvalidArgument(format!(
                    "part {number} of {count} is not finished in '{}'",
                    shorten_path(&self.files.folder)
                )));
            }
            left.extend(record.left);
        }
        self.refuse_left(&left)?;
        let folder = Arc::new(Folder::open(&self.files.folder)?);
        let _completion = self.completion(&folder)?;
        progress.begin(self.rest_bytes());
        let finish = Finish { run: self, folder: &folder, ledger: None, keep: false };
        let report = finish.run(&left, &[], progress)?;
        target::unmark(&folder, &self.names())?;
        progress.finish();
        Ok(report)
    }

    /// Claims the destination.
    fn claim(&self) -> Result<Claim> {
        let (options, files) = (self.options, &self.files);
        if files.single().is_some() && options.keep_existing && !(options.resume && self.has_ledger()) {
            self.refuse_existing()?;
        }
        let request = Request {
            folder: &files.folder,
            ledger: files.ledger(options.part),
            job: &self.job,
            manner: files.manner(),
            marked: files.named_one_by_one(),
            shared: options.part.count > 1,
            own_folder: files.own_folder(),
            temporary: files.single().map(|file| target::temporary(file).file_name().unwrap_or_default().to_owned()),
            // Only a file that is there when the run begins is to be replaced, not one that appears later.
            replaces: !options.keep_existing && self.existing().is_some(),
            resume: options.resume,
            restart: false,
        };
        match target::claim(&request)? {
            Answer::Fresh(claim) | Answer::Resumed(claim) => Ok(claim),
            Answer::Busy => Err(self.busy()),
            Answer::Unfinished => Err(self.unfinished()),
        }
    }

    /// Keeps others from completing the same folder. A single file needs none of this: its ledger is locked.
    fn completion(&self, folder: &Arc<Folder>) -> Result<Option<Completion>> {
        if !self.files.named_one_by_one() {
            return Ok(None);
        }
        let completion = Completion::begin(folder)?.ok_or_else(|| self.busy())?;
        // Another process may have completed it just now.
        if target::is_marked(folder) { Ok(Some(completion)) } else { Err(self.busy()) }
    }

    /// Removes the files that exist only while the model is not complete.
    fn release(&self, claim: &Claim) -> Result<()> {
        if self.files.named_one_by_one() {
            return target::unmark(&claim.folder, &self.names());
        }
        // Of a complete file nothing needs to be noted.
        if let Err(error) = claim.ledger.remove() {
            let path = claim.ledger.path();
            log::warn!("the file is complete, and its ledger '{}' is left: {error}", path.display());
        }
        Ok(())
    }

    fn busy(&self) -> Error {
        let (path, part) = self.files.subject(self.options.part);
        let shown = shorten_path(path);
        Error::Busy(match part {
            None => format!("another process is writing to '{shown}'"),
            Some(Part { number, count }) => format!("another process is writing part {number} of {count} to '{shown}'"),
        })
    }

    fn unfinished(&self) -> Error {
        let (path, part) = self.files.subject(self.options.part);
        let shown = shorten_path(path);
        let name = |name: &OsString| shorten(&name.to_string_lossy(), 120);
        let remove = match self.files.single() {
            Some(file) if !self.files.own_folder() => {
                let temporary = target::temporary(file).file_name().unwrap_or_default().to_owned();
                let ledger = self.files.ledger(self.options.part);
                format!("remove '{}' and '{}' in the same folder", name(&ledger), name(&temporary))
            }
            Some(_) => format!("remove the folder '{}'", shorten_path(&self.files.folder)),
            None => "remove it".to_owned(),
        };
        Error::Unfinished(match part {
            Some(Part { number, count }) => {
                format!("part {number} of {count} was begun before in '{shown}': resume it, or remove the folder")
            }
            None => format!("'{shown}' is the unfinished output of an earlier run: resume it, or {remove}"),
        })
    }

    fn has_ledger(&self) -> bool {
        self.files.folder.join(self.files.ledger(self.options.part)).is_file()
    }

    /// Returns the file, or the config that readers would take for its own, if it is there already.
    fn existing(&self) -> Option<PathBuf> {
        target::existing(self.files.single()?, (!self.files.own_folder()).then_some(&self.config))
    }

    pub fn refuse_existing(&self) -> Result<()> {
        self.existing().map_or(Ok(()), |there| Err(Error::Exists(there)))
    }

    /// Fails with `strict` if an earlier run without it has left a group plain.
    fn refuse_left(&self, left: &[LeftGroup]) -> Result<()> {
        match left.first() {
            Some(left) if self.options.strict => {
                let place = Place::default().tensor(if left.tensor.is_empty() { &left.group } else { &left.tensor });
                Err(Error::unsupported(place, left.reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Fails if no group is to be written, and that was not asked for.
    pub fn refuse_plain(&self, left: &[LeftGroup]) -> Result<()> {
        let reason = match (left.first(), self.plan.left.first()) {
            _ if self.options.allow_plain => return Ok(()),
            (Some(first), _) => format!(
                "each of {} groups has an infinity, a NaN or a value of 2^113 and more, as in '{}'",
                left.len(),
                shorten(&first.tensor, 60)
            ),
            (None, Some(left)) => left.reason.clone(),
            (None, None) => return Ok(()),
        };
        Err(nothing(&self.source.path, &reason))
    }

    fn left_groups(&self, unfit: Vec<Unfit>) -> Vec<LeftGroup> {
        let left = |unfit: Unfit| LeftGroup {
            group: self.groups[unfit.group].name.clone(),
            tensor: self.source.model.tensor_at(unfit.tensor).name().to_owned(),
            reason: unfit.reason,
        };
        let mut left: Vec<LeftGroup> = unfit.into_iter().map(left).collect();
        left.sort_by(|a, b| a.group.cmp(&b.group));
        left
    }

    /// Returns the report of an earlier run that has written all of the model: whoever repeats a command until it succeeds may
    /// repeat it once too often.
    fn if_complete(&self, progress: &Progress) -> Result<Option<Report>> {
        if !self.options.resume || self.options.part != Part::WHOLE {
            return Ok(None);
        }
        let Some(folder) = open_if_there(&self.files.folder)? else { return Ok(None) };
        if target::is_marked(&folder) {
            return Ok(None);
        }
        if self.resumes_single(&folder)? {
            return Ok(None);
        }
        let report = self.already_complete(&Arc::new(folder), progress)?;
        if report.is_some() {
            self.remove_ledger_of_single();
        }
        Ok(report)
    }

    /// Returns whether the single file is unfinished and can be resumed. A run that was ended after the file had its name leaves
    /// a ledger without a file to resume.
    fn resumes_single(&self, folder: &Folder) -> Result<bool> {
        let Some(file) = self.files.single() else { return Ok(false) };
        if target::is_busy(folder, &self.files.ledger(Part::WHOLE)) {
            return Err(self.busy());
        }
        Ok(self.has_ledger() && target::temporary(file).exists())
    }

    /// Removes the ledger that is left of a complete single file, if there is one.
    fn remove_ledger_of_single(&self) {
        if self.files.single().is_none() || !self.has_ledger() {
            return;
        }
        let ledger = self.files.folder.join(self.files.ledger(Part::WHOLE));
        let removed = Entry::at(&ledger).and_then(|entry| {
            // While it is locked. If another run has it by now, it is that run's.
            match target::lock_existing(&entry) {
                Ok(Some(Locked::Yes(_held))) => entry.remove(),
                other => other.map(drop),
            }
            .map_err(|e| Error::io("remove", &ledger, e))
        });
        if let Err(error) = removed {
            log::warn!("the file is complete, and its ledger is left: {error}");
        }
    }

    /// Names and sizes do not tell one training from the next, so every bit is compared.
    fn already_complete(&self, folder: &Arc<Folder>, progress: &Progress) -> Result<Option<Report>> {
        let mut report = self.report(&[]);
        let finish = Finish { run: self, folder, ledger: None, keep: true };
        let Some(model) = self.complete_model(&finish, &mut report, progress)? else { return Ok(None) };
        let reason = "the run that wrote the model left it so";
        let left = self.groups.iter().filter(|g| model.find_group(&g.name).is_none());
        let left = left.map(|g| LeftGroup { group: g.name.clone(), tensor: String::new(), reason: reason.into() });
        let left: Vec<LeftGroup> = left.collect();
        self.refuse_left(&left)?;
        report.left.extend(self.left_plain(&left));
        report.carried = self.complete_what_goes_with_it(&finish, progress)?;
        report.resumed = report.groups;
        report.complete = true;
        log::info!("all of it is there already, and equal to the source");
        Ok(Some(report))
    }

    /// Returns the model at the destination, if it is whole and has what is asked for.
    fn complete_model(&self, finish: &Finish, report: &mut Report, progress: &Progress) -> Result<Option<Model>> {
        let paths: Vec<PathBuf> = self.files.paths().filter(|f| f.is_file()).map(Path::to_path_buf).collect();
        let whole = finish.measure(report, self.files.paths(), progress).and_then(|there| finish.check_whole(&there));
        let model = match whole.and_then(|()| Model::open_files(&paths, Some(&self.config), progress)) {
            Ok(model) => model,
            Err(error) if is_no_answer(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        // Hashes and shapes that were not asked for then would have to be written.
        let lacks = |t: Tensor| {
            let shape = || self.source.model.find_tensor(t.name()).map(Tensor::shape);
            self.options.hashes && t.sha256().is_none()
                || self.shapes && !(t.shape_known() && shape() == Some(t.shape()))
        };
        if model.tensors().any(lacks) {
            return Ok(None);
        }
        // The source lacks the same, and may be of one kind with what was compressed of it.
        let options = VerifyOptions::new().threads(self.options.threads).incomplete(true).allow_plain(true);
        match host::verify_model(&model, Some(&self.source.model), &options, progress, &mut |_| {}) {
            Err(error) if is_no_answer(&error) => Err(error),
            Ok(verified) if verified.is_good() => Ok(Some(model)),
            _ => Ok(None),
        }
    }

    /// Completes the files that a run writes last, when all tensors are there. Missing files are written. A file that differs was
    /// changed since, here or in the source, and is not replaced unasked.
    fn complete_what_goes_with_it(&self, finish: &Finish, progress: &Progress) -> Result<Vec<SideFile>> {
        let config = ConfigPlace { replaces: false, ..self.config_place() };
        let missing = finish.refuse_changed(progress)?;
        let notes = self.files.named_one_by_one() && !target::ledgers(finish.folder)?.is_empty();
        let something = config.is_missing() || !missing.is_empty() || notes;
        let _completion =
            if something { Some(Completion::begin(finish.folder)?.ok_or_else(|| self.busy())?) } else { None };
        let carried = finish.carry(progress)?;
        config.write(&self.config)?;
        if notes {
            target::remove_ledgers(finish.folder);
        }
        Ok(carried)
    }

    /// Returns where the model's config goes.
    pub fn config_place(&self) -> ConfigPlace {
        match self.files.single() {
            Some(file) if !self.files.own_folder() => ConfigPlace::beside(file, &self.config),
            _ => ConfigPlace::in_folder(&self.files.folder),
        }
    }

    /// Returns what can be told before the files are written.
    pub fn report(&self, left: &[LeftGroup]) -> Report {
        let model = &self.source.model;
        let name = |t: usize| model.tensor_at(t).name().to_owned();
        let mut report = Report {
            preset: self.preset.clone(),
            source_bytes: model.tensors().map(|t| t.bytes()).sum(),
            dropped: self.dropped.iter().map(|&(head, embedding)| (name(head), name(embedding))).collect(),
            unmatched_patterns: self.plan.unmatched_patterns.clone(),
            left_behind: self.source.left_behind.clone(),
            coverage: self.coverage(left),
            missing: self.lacks.clone(),
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

    fn coverage(&self, left: &[LeftGroup]) -> Coverage {
        let unfit = left.iter().map(|left| &left.group[..]).collect();
        let dropped = self.dropped.iter().map(|&(head, _)| head).collect();
        Coverage::new(&table(&self.source.model), &self.plan, &self.options.run_sizes, &unfit, &dropped)
    }

    /// Returns the tensors of groups that stay plain.
    fn left_plain(&self, left: &[LeftGroup]) -> Vec<LeftPlain> {
        let groups: HashMap<&str, &GroupSpec> = self.groups.iter().map(|g| (&g.name[..], g)).collect();
        let (mut plain, mut in_runs) = (Vec::new(), HashSet::new());
        for left in left {
            let Some(group) = groups.get(&left.group[..]) else { continue };
            // All runs of a tensor are left together, and it is named once.
            if group.run_of().is_some_and(|tensor| !in_runs.insert(tensor)) {
                continue;
            }
            plain.extend(group.tensors().map(|t| LeftPlain {
                tensor: self.source.model.tensor_at(t).name().to_owned(),
                group: left.group.clone(),
                reason: left.reason.clone(),
            }));
        }
        plain
    }

    /// Returns the names of the files that are written.
    fn names(&self) -> HashSet<OsString> {
        let files = self.files.paths().chain(self.source.carried.iter().map(|file| file.path.as_path()));
        files.filter_map(Path::file_name).map(OsString::from).chain(["config.json".into()]).collect()
    }
}

/// Returns the groups of a plan, by their numbers.
pub(super) fn group_specs(plan: &Plan, table: &[SourceTensor]) -> Vec<GroupSpec> {
    let whole = |&tensor: &usize| Segment { tensor, first: 0, count: table[tensor].elements };
    let group = |g: &plan::PlannedGroup| GroupSpec {
        name: g.name.clone(),
        segments: g.members.iter().map(whole).collect(),
        is_run: false,
    };
    let runs = plan.in_runs.iter().flat_map(|planned| planned.runs.iter().map(move |run| (planned.tensor, run)));
    let run = |(tensor, run): (usize, &plan::PlannedRun)| GroupSpec {
        name: run.group.clone(),
        segments: vec![Segment { tensor, first: run.first, count: run.count }],
        is_run: true,
    };
    plan.groups.iter().map(group).chain(runs.map(run)).collect()
}

/// Returns the table of a model's tensors.
pub(super) fn table(model: &Model) -> Vec<SourceTensor<'_>> {
    model.tensors().map(SourceTensor::from).collect()
}

/// Tells whether a reader would derive a wrong shape of a tensor in a group: the shapes must then be stored.
fn is_misderived(
    input: &Source,
    plan: &Plan,
    dropped: &[(usize, usize)],
    config: &str,
    progress: &Progress,
) -> Result<bool> {
    let packed: HashSet<usize> = plan.groups.iter().flat_map(|group| group.members.iter().copied()).collect();
    let heads: Vec<(String, usize)> = plan
        .groups
        .iter()
        .filter(|group| group.tied)
        .flat_map(|group| group.members.iter().map(|&tensor| (format!("{}.weight", group.name), tensor)))
        .collect();
    let is_stored = |tensor: usize| dropped.iter().all(|&(head, _)| head != tensor);
    let is_packed = |tensor: usize| packed.contains(&tensor);
    let wrong = misderived(&input.model, (is_packed, is_stored), &heads, Some(config), progress)?;
    let Some(&first) = wrong.first() else { return Ok(false) };
    let tensor = input.model.tensor_at(first);
    log::warn!(
        "the shapes are stored, because those of {} tensors would be derived wrongly, such as that of '{}', which is {:?}",
        wrong.len(),
        shorten(tensor.name(), 80),
        tensor.shape()
    );
    Ok(true)
}

/// Tells whether a folder of these groups would have no file but theirs.
fn beside_groups(table: &[SourceTensor<'_>], plan: &Plan, plain: &[usize]) -> bool {
    let files = Files::new(Path::new(""), Layout::Folder, "model.safetensors", table, plan, plain);
    files.rest.is_none_or(|rest| rest.plain.is_empty())
}

/// Returns the error for a source of which nothing can be compressed.
pub(super) fn nothing(source: &Path, reason: &str) -> Error {
    let reason = format!("nothing can be compressed: {reason} (the option allow-plain writes a copy)");
    Error::unsupported(Place::of(source), reason)
}

/// Opens a folder; `None` if there is none.
fn open_if_there(path: &Path) -> Result<Option<Folder>> {
    match Folder::open(path) {
        Ok(folder) => Ok(Some(folder)),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns why nothing of a model can be compressed, if it has no bf16 weights.
pub(super) fn no_bf16(source: &Source, table: &[SourceTensor]) -> Option<String> {
    if table.iter().any(|tensor| tensor.bf16_bytes() > 0) {
        return None;
    }
    let mut types: BTreeMap<Dtype, u64> = BTreeMap::new();
    for tensor in table {
        let bytes = types.entry(tensor.dtype).or_default();
        *bytes = bytes.saturating_add(tensor.bytes());
    }
    let (most, _) = types.into_iter().max_by_key(|&(dtype, bytes)| (bytes, dtype))?;
    let instead = match &source.bf16_variants()[..] {
        [] if most == Dtype::F32 || most == Dtype::F16 => "; convert it to bf16 first".to_owned(),
        [] => String::new(),
        [one] => format!("; '{}' beside it is bf16: give that file", shorten(one, 80)),
        [one, ..] => {
            format!("; '{}' and others beside it are bf16: give a folder with those and their index", shorten(one, 60))
        }
    };
    Some(format!("the weights are {most:?}, and only bf16 is compressed{instead}"))
}

/// Returns whether an error leaves open whether the model is good.
fn is_no_answer(error: &Error) -> bool {
    matches!(error, Error::Cancelled | Error::Io { .. } | Error::OutOfMemory { .. } | Error::Internal(_))
}
