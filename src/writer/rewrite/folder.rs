//! A folder that is written whole or not at all.
//!
//! It is marked as unfinished until all of it is there, so that this library refuses it, and its config.json comes last, without
//! which no other program takes it. Each file gets its name when it is complete. The ledger notes the name before that, so that the
//! next process knows what a killed one has left.

use super::busy;
use super::copy::{self, OutFile, Sink};
use crate::error::{Error, Result};
use crate::format::Model;
use crate::progress::Progress;
use crate::writer::finish::copy_below;
use crate::writer::target::{
    self, Answer, Claim, Entry, Folder, Leftover, PartialFile, RESTARTED, Request, ledger_of_part, remove_named,
    write_file,
};
use serde_json::json;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The content of a folder to be written.
pub(super) struct Content<'a> {
    pub model: &'a Model,
    pub files: Vec<OutFile>,
    /// The folder whose files go with the model, and their paths below it.
    pub carried: Option<(&'a Path, &'a [PathBuf])>,
    /// Small files by their names, the last of which makes the folder a model.
    pub texts: Vec<(&'a str, String)>,
}

impl Content<'_> {
    /// Writes everything to a folder, which is new or empty.
    ///
    /// # Errors
    ///
    /// `Exists` if something is there, `Busy` if another process writes there; and those of the work.
    pub fn write(&self, folder: &Path, threads: usize, progress: &Progress) -> Result<()> {
        let total: u64 = self.files.iter().map(OutFile::data_bytes).sum();
        progress.begin(total);
        let claim = claim_new(folder)?;
        let made = Made::new(&claim, total);
        copy::run(self.model, &self.files, &made, threads, progress)?;
        if let Some((from, files)) = self.carried {
            for file in files {
                progress.check()?;
                made.naming(file)?;
                copy_below(&from.join(file), &claim.folder, file, progress)?;
            }
        }
        for (name, text) in &self.texts {
            progress.check()?;
            made.text(name, text)?;
        }
        made.complete()?;
        claim.keep();
        progress.finish();
        Ok(())
    }
}

/// Claims a folder, which is new or empty, for a run that begins anew. Whatever an earlier one has left of this kind is removed.
///
/// # Errors
///
/// `Exists` if something is there, `Busy` if another process writes there.
pub(super) fn claim_new(folder: &Path) -> Result<Claim> {
    let request = Request {
        folder,
        ledger: ledger_of_part(1, 1),
        job: &json!({ "version": 2, RESTARTED: true }),
        manner: "anew",
        marked: true,
        shared: false,
        own_folder: true,
        temporary: None,
        replaces: false,
        resume: false,
        restart: true,
    };
    match target::claim(&request)? {
        Answer::Fresh(claim) => Ok(claim),
        Answer::Busy => Err(busy(folder)),
        Answer::Unfinished | Answer::Resumed(_) => {
            Err(Error::Internal("a run that begins anew was to be resumed".into()))
        }
    }
}

/// The files that have their names, which a failure takes away again.
pub(super) struct Made<'a> {
    claim: &'a Claim,
    /// Bytes of all files, roughly.
    total: u64,
    begun: AtomicBool,
    names: Mutex<Vec<PathBuf>>,
}

impl<'a> Made<'a> {
    pub fn new(claim: &'a Claim, total: u64) -> Made<'a> {
        Made { claim, total, begun: AtomicBool::new(false), names: Mutex::default() }
    }

    fn folder(&self) -> &Arc<Folder> {
        &self.claim.folder
    }

    /// Begins a file of this name and size.
    pub fn begin_file(&self, name: &Path, bytes: u64) -> Result<PartialFile> {
        let to = Entry { folder: self.folder().clone(), name: name.as_os_str().to_owned() };
        let out = PartialFile::create(&to, bytes, Leftover::Removed)?;
        // A disk that is too small is known before the work and not after it.
        if !self.begun.swap(true, Ordering::Relaxed) {
            out.check_room(self.total.saturating_sub(bytes))?;
        }
        Ok(out)
    }

    /// Brings a file to the disk and gives it its name.
    pub fn complete_file(&self, name: &Path, out: &PartialFile) -> Result<()> {
        out.sync()?;
        self.naming(name)?;
        let named = out.commit(false);
        if let Err(Error::Exists(_)) = named {
            // What has come to be there since it was looked for is not this run's to remove.
            self.names.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| path != name);
        }
        named
    }

    /// Writes a small file.
    pub fn text(&self, name: &str, text: &str) -> Result<()> {
        self.naming(Path::new(name))?;
        write_file(&Entry { folder: self.folder().clone(), name: name.into() }, text.as_bytes(), false)
    }

    /// Says that the folder is complete. The files stay from now on.
    pub fn complete(self) -> Result<()> {
        target::unmark(self.folder(), &HashSet::<OsString>::new())?;
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// Notes a file that is about to get its name. What has the name already is not this run's.
    fn naming(&self, path: &Path) -> Result<()> {
        if let Some(entry) = Entry::below(self.folder(), path)?.filter(|entry| entry.folder.has(&entry.name)) {
            return Err(Error::Exists(entry.path()));
        }
        self.claim.ledger.naming(path)?;
        self.names.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        Ok(())
    }
}

impl Sink for Made<'_> {
    fn begin(&self, file: &OutFile) -> Result<PartialFile> {
        self.begin_file(&file.path, file.layout.bytes())
    }

    fn complete(&self, file: &OutFile, out: Arc<PartialFile>) -> Result<()> {
        self.complete_file(&file.path, &out)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for path in self.names.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Err(error) = remove_named(&self.claim.folder, &path) {
                log::warn!("a file of an unfinished model is left: {error}");
            }
        }
    }
}
