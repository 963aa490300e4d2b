//! The end of a run: the files that go with the groups, the check that nothing is missing, and the order in which names appear.
//!
//! 1. Tensors that are in no group's file.
//! 2. The files that go with the model.
//! 3. The headers of all files are read as any reader would: every tensor of the source must be there.
//! 4. config.json.
//! 5. The name of a single file.
//!
//! All that may fail is done before a reader takes the destination for a model. Of a folder that is when the marker goes, which
//! the caller removes afterwards.

use super::plan::FilePlan;
use super::run::Run;
use super::target::{self, Entry, Folder, Ledger, LeftGroup, PartialFile, commit_with_config, differs};
use super::work::{self, FileSpec, Order, remove};
use super::{Report, SideFile, target::copy_file};
use crate::error::{Error, Place, Result, shorten_path};
use crate::format::Model;
use crate::progress::Progress;
use safetensors::Dtype;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The end of a run.
pub(super) struct Finish<'a> {
    pub run: &'a Run<'a>,
    pub folder: &'a Arc<Folder>,
    /// The run's ledger, if it has one.
    pub ledger: Option<&'a Ledger>,
    /// True if a file of the destination's name must not be replaced.
    pub keep: bool,
}

impl Finish<'_> {
    /// Completes the model. `left` are the groups that stay plain, `unnamed` the files that have no name yet.
    pub fn run(&self, left: &[LeftGroup], unnamed: &[Arc<PartialFile>], progress: &Progress) -> Result<Report> {
        let names: HashSet<&str> = left.iter().map(|left| &left.group[..]).collect();
        let is_left = |g: usize| names.contains(&self.run.groups[g].name[..]);
        if left.len() == self.run.groups.len() {
            self.run.refuse_plain(left)?;
            log::warn!("nothing could be compressed: the model is a copy of its source");
        }
        self.write_rest(is_left, progress)?;
        let mut report = self.run.report(left);
        report.carried = self.carry(progress)?;
        let there = match unnamed {
            [] => {
                let groups = self.run.files.files.iter().filter(|file| !file.groups.iter().all(|&g| is_left(g)));
                let files = groups.chain(&self.run.files.rest).map(|file| file.path.as_path());
                self.measure(&mut report, files, progress)?
            }
            unnamed => self.measure(&mut report, unnamed.iter().map(|out| out.temporary()), progress)?,
        };
        self.check_whole(&there)?;
        progress.check()?;
        self.name(unnamed)?;
        report.complete = true;
        Ok(report)
    }

    /// Writes the tensors that are in no group's file.
    fn write_rest(&self, is_left: impl Fn(usize) -> bool, progress: &Progress) -> Result<()> {
        let Some(rest) = &self.run.files.rest else { return Ok(()) };
        for file in &self.run.files.files {
            file.groups.iter().filter(|&&g| !is_left(g)).try_for_each(|&g| self.check_group(file, g))?;
        }
        let plain = self.run.files.plain_of(&self.run.plan, is_left);
        if plain.is_empty() {
            // An earlier run may have made the file from another source. A tensor of it would then be in the model twice.
            return remove(&rest.path);
        }
        let file = FileSpec {
            path: rest.path.clone(),
            groups: Vec::new(),
            plain,
            metadata: rest.metadata.clone(),
            named: true,
            resume: self.run.options.resume,
        };
        let (run, settings) = (self.run, self.run.settings());
        let (model, groups) = (&run.source.model, &run.groups[..]);
        work::run(&Order { model, groups, ledger: self.ledger, settings: &settings, progress }, vec![file]).map(drop)
    }

    /// Fails if a group's file is missing or damaged.
    fn check_group(&self, file: &FilePlan, group: usize) -> Result<()> {
        let name = &self.run.groups[group].name;
        Model::open_group(&file.path, name).map(drop).map_err(|error| {
            let missing = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
            // A disk that cannot be read just now is no reason to remove what may be good.
            if matches!(&error, Error::Io { source, .. } if !missing(source)) {
                return error;
            }
            let place = Place::of(&file.path).tensor(name);
            Error::invalid(place, "the file of a group is missing or damaged: remove it, and do its part again")
        })
    }

    /// Returns what goes with the model as it is: from where, and its path below the folder.
    fn carried(&self) -> impl Iterator<Item = (PathBuf, &Path)> {
        let (source, own) = (&self.run.source, self.run.files.own_folder());
        let files = source
            .folder
            .iter()
            .filter(move |_| own)
            .flat_map(|folder| source.carried.iter().map(move |f| (folder, &f.path)));
        files.map(|(folder, file)| (folder.join(file), file.as_path()))
    }

    /// Fails if something that would go with the model is there and is something else, which is not replaced unasked. Returns
    /// what is not there.
    pub fn refuse_changed(&self, progress: &Progress) -> Result<Vec<(PathBuf, &Path)>> {
        if self.run.files.own_folder() {
            self.run.config_place().check(&self.run.config)?;
        }
        let mut missing = Vec::new();
        for (from, file) in self.carried() {
            progress.check()?;
            match Entry::below(self.folder, file)?.filter(|to| to.folder.has(&to.name)) {
                Some(to) if !target::is_copy(&from, &to, progress)? => return Err(differs(&to.path())),
                Some(_) => {}
                None => missing.push((from, file)),
            }
        }
        Ok(missing)
    }

    /// Copies what goes with the model and is not there. Returns all that goes with it.
    pub fn carry(&self, progress: &Progress) -> Result<Vec<SideFile>> {
        if !self.run.files.own_folder() {
            return Ok(Vec::new());
        }
        for (from, file) in self.refuse_changed(progress)? {
            progress.check()?;
            copy_below(&from, self.folder, file, progress)?;
            self.ledger.map_or(Ok(()), |ledger| ledger.carried(file))?;
        }
        Ok(self.run.source.carried.clone())
    }

    /// Reads the headers of what was written, as any reader would, one file after the other. Returns type and bytes of every
    /// tensor.
    pub fn measure<'p>(
        &self,
        report: &mut Report,
        files: impl Iterator<Item = &'p Path>,
        progress: &Progress,
    ) -> Result<HashMap<String, (Dtype, u64)>> {
        let mut there = HashMap::new();
        for file in files.filter(|f| f.is_file()) {
            let model = Model::open_files(&[file.to_path_buf()], Some(&self.run.config), progress)?;
            for group in model.groups() {
                report.groups += 1;
                report.weights += group.element_count();
                report.packed_bytes += group.packed_bytes();
                report.extended_groups += u64::from(group.is_extended());
            }
            report.written_bytes += model.files().map(|f| f.bytes).sum::<u64>();
            there.extend(model.tensors().map(|t| (t.name().to_owned(), (t.dtype(), t.bytes()))));
        }
        report.weight_bytes = 2 * report.weights;
        Ok(there)
    }

    /// Fails unless every tensor of the source is there under its name, as large as it was.
    pub fn check_whole(&self, there: &HashMap<String, (Dtype, u64)>) -> Result<()> {
        let run = self.run;
        let is_dropped = |number: usize| run.dropped.iter().any(|&(head, _)| head == number);
        for (number, tensor) in run.source.model.tensors().enumerate() {
            if !is_dropped(number) && there.get(tensor.name()) != Some(&(tensor.dtype(), tensor.bytes())) {
                let place = Place::of(&run.files.folder).tensor(tensor.name());
                return Err(Error::corrupt(place, "the written model lacks this tensor of the source"));
            }
        }
        Ok(())
    }

    /// Writes the config and gives the files their names.
    fn name(&self, unnamed: &[Arc<PartialFile>]) -> Result<()> {
        if self.keep && !unnamed.is_empty() {
            // Once more, because the work may have taken hours.
            self.run.refuse_existing()?;
        }
        commit_with_config(unnamed, Some((&self.run.config, || self.run.config_place())), !self.keep)
    }
}

/// Copies a file to a path below a folder. A failure leaves no folder that was made for it.
pub(super) fn copy_below(from: &Path, folder: &Arc<Folder>, file: &Path, progress: &Progress) -> Result<()> {
    let mut made = Vec::new();
    let copied = Entry::make_below(folder, file, &mut made).and_then(|to| copy_file(from, &to, progress));
    if copied.is_err() {
        made.iter().rev().for_each(|made| _ = made.folder.remove_folder(&made.name));
    }
    copied.map_err(|error| match error {
        // Not every file system tells README.md from readme.md.
        Error::Exists(to) => Error::InvalidArgument(format!(
            "'{}' has come to be there: there, two names of the source are one, or another process writes to it",
            shorten_path(&to)
        )),
        error => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where two names of the source are one, neither file takes the other's place.
    #[test]
    fn two_names_that_are_one_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, to) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("to"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        std::fs::create_dir(&to).unwrap();
        let to_folder = Arc::new(Folder::open(&to).unwrap());
        let copy = |from| copy_below(from, &to_folder, Path::new("more/card.md"), &Progress::new());
        copy(&a).unwrap();
        let error = copy(&b).unwrap_err();
        assert!(error.to_string().contains("more/card.md' has come to be there"), "{error}");
        assert_eq!(std::fs::read_to_string(to.join("more/card.md")).unwrap(), "a");
        assert_eq!(std::fs::read_dir(to.join("more")).unwrap().count(), 1);
    }
}
