//! The journal of a single file that is being written: what is being written, and which groups are on the disk.

use super::state::Held;
use super::target::{Entry, Locked, limit_of_file_size, lock, temporary};
use crate::error::{Error, Result, shorten};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How the name of a journal ends.
pub(super) const SUFFIX: &str = ".df11-job";

/// How a single file is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// It stands alone: its folder is not the model's.
    pub bare: bool,
    /// It may replace what has its name.
    pub replaces: bool,
}

/// Which groups of a single file are on the disk.
pub(super) struct Journal {
    path: PathBuf,
    /// The first line.
    head: String,
    /// Whether the run was begun as one that may replace a file of that name.
    pub replaces: bool,
    /// Whether this call has begun it.
    pub new: bool,
    /// Those of an earlier run, as they are written here.
    there: HashSet<String>,
    /// Whether there is any, for who must know when the journal is in other hands.
    progressed: Arc<AtomicBool>,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal of a file to be written in this manner, or begins one.
    ///
    /// # Errors
    ///
    /// `Unfinished` if there is something to go on with and that was not asked for; `InvalidArgument` if it is of another job,
    /// or if another process is at it.
    pub fn open(to: &Path, job: &Value, manner: Manner, resume: bool) -> Result<Journal> {
        let path = Self::path(to);
        let fail = |e| Error::io("open", &path, e);
        let Locked::Yes(mut file) = lock(&Entry::at(&path)?).map_err(fail)? else { return Err(Self::busy(to)) };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| {
            // One that this call has made is removed; it has the lock.
            if file.metadata().is_ok_and(|m| m.len() == 0) {
                let _ = std::fs::remove_file(&path);
            }
            fail(e)
        })?;
        let head = |replaces: bool| json!({ "job": job, "alone": manner.bare, "replaces": replaces }).to_string();
        // A first line that was cut off says nothing: the run was ended before it could do anything.
        if !text.contains('\n') {
            text.clear();
        }
        let first = text.lines().next();
        let was = [false, true].into_iter().find(|&replaces| first == Some(&head(replaces)[..]));
        // What is on the disk is not thrown away unasked, and a folder that is the model's has more than the file.
        let something = has_a_group(&text) || first.is_some() && !manner.bare;
        let shown = shorten(&to.display().to_string(), 200);
        // Whose folder it is says the journal, and not who finds it.
        let found = first.and_then(|head| serde_json::from_str::<Value>(head).ok());
        let remove = match to.parent() {
            Some(folder) if found.is_some_and(|head| head["alone"] == false) => {
                format!("remove the folder '{}'", shorten(&folder.display().to_string(), 200))
            }
            _ => {
                let name = |path: &Path| shorten(&path.file_name().unwrap_or_default().to_string_lossy(), 120);
                format!("remove '{}' and '{}' beside it", name(&path), name(&temporary(to)))
            }
        };
        if first.is_some() && was.is_none() && (resume || something) {
            return Err(Error::InvalidArgument(format!(
                "the unfinished '{shown}' was begun from another source or with other options: go on with the same ones, or {remove}"
            )));
        }
        if something && !resume {
            return Err(Error::Unfinished(format!(
                "'{shown}' is unfinished since an earlier run: go on with it, or {remove}"
            )));
        }
        let was = was.filter(|_| resume);
        let replaces = was.unwrap_or(manner.replaces);
        let mut journal = Journal {
            path: path.clone(),
            head: head(replaces),
            replaces,
            new: was.is_none(),
            there: HashSet::new(),
            progressed: Arc::new(AtomicBool::new(was.is_some() && has_a_group(&text))),
            file: Mutex::new(file),
        };
        if was.is_some() {
            // A line that was cut off by the interruption is of a group that is done again.
            let end = text.rfind('\n').map_or(0, |end| end + 1);
            journal.there = text[..end].lines().skip(1).map(str::to_owned).collect();
            let file = journal.file.get_mut().unwrap_or_else(PoisonError::into_inner);
            file.set_len(end as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
        } else if let Err(error) = journal.begin() {
            // Nothing was on the disk, and a beginning of a line is nothing to go on with.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(journal)
    }

    fn path(to: &Path) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        name.push(SUFFIX);
        to.with_file_name(name)
    }

    fn busy(to: &Path) -> Error {
        Error::Busy(format!("another process is writing '{}'", shorten(&to.display().to_string(), 200)))
    }

    /// Its name in the folder.
    pub fn name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }

    /// Fails if another process writes to the file.
    pub fn check_free(to: &Path) -> Result<()> {
        match File::open(Self::path(to)).map(|file| file.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => Err(Self::busy(to)),
            _ => Ok(()),
        }
    }

    /// Keeps the lock for as long as this lives, too.
    pub fn hold(&self) -> Held {
        Held::copy_of(&self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a group of an earlier run is on the disk.
    pub fn has(&self, group: &str) -> bool {
        self.there.contains(&json!(group).to_string())
    }

    /// Says, now and later, whether any group is.
    pub fn progressed(&self) -> Arc<AtomicBool> {
        self.progressed.clone()
    }

    /// Writes the first line.
    fn begin(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |e| Error::io("write", &self.path, e);
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(fail)?;
        let line = format!("{}\n", self.head);
        limit_of_file_size(line.len() as u64).map_err(fail)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(fail)
    }

    /// No group is, but the first line stays: what else the run has written is its own.
    pub fn clear(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.progressed.store(false, Ordering::Relaxed);
        let fail = |e| Error::io("write", &self.path, e);
        file.set_len(self.head.len() as u64 + 1).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
        file.sync_data().map_err(fail)
    }

    /// A group is.
    pub fn add(&self, group: &str) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}\n", json!(group));
        let fail = |e| Error::io("write", &self.path, e);
        let end = file.metadata().map_err(fail)?.len() + line.len() as u64;
        limit_of_file_size(end).map_err(fail)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(fail)?;
        self.progressed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is one.
    pub fn exists(to: &Path) -> bool {
        Self::path(to).is_file()
    }

    /// The file is complete, or nothing of it is left.
    pub fn remove(to: &Path) -> Result<()> {
        let path = Self::path(to);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
            _ => Ok(()),
        }
    }
}

/// Whether a journal says that a group is on the disk. A line that was cut off does not.
fn has_a_group(journal: &str) -> bool {
    journal.bytes().filter(|&byte| byte == b'\n').count() > 1
}
