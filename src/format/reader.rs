//! Files that are read: each is opened when it is read, and some are kept open, of all models together. A model may have more files
//! than a process may have descriptors: one with a file for each expert has 15,000, and 1,024 descriptors are the usual limit.

use super::source::open_regular;
use crate::error::{Error, Place, Result};
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The most files that are kept open.
const MOST: usize = 128;

/// The files that are kept open, each with the number of its reader: the one that was used last comes last.
static KEPT: Mutex<Vec<(u64, Arc<File>)>> = Mutex::new(Vec::new());

/// A file of a model, which is opened when it is read.
pub(super) struct Reader {
    /// Its path, from the root: the process may change its folder.
    path: PathBuf,
    number: u64,
    identity: Identity,
}

/// What a file must still be when it is opened again.
#[derive(PartialEq, Eq)]
struct Identity {
    bytes: u64,
    modified: Option<SystemTime>,
    /// The device and the number of the file there.
    #[cfg(unix)]
    file: (u64, u64),
}

impl Identity {
    fn new(meta: &Metadata) -> Identity {
        Identity {
            bytes: meta.len(),
            modified: meta.modified().ok(),
            #[cfg(unix)]
            file: (std::os::unix::fs::MetadataExt::dev(meta), std::os::unix::fs::MetadataExt::ino(meta)),
        }
    }
}

impl Reader {
    /// Takes a file that is open, with its metadata.
    pub fn new(path: &Path, file: File, meta: &Metadata) -> Reader {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        keep(number, Arc::new(file));
        Reader { path, number, identity: Identity::new(meta) }
    }

    /// Returns the open file.
    ///
    /// # Errors
    ///
    /// `Io`; `Corrupt` if there is another file under its name by now.
    pub fn file(&self) -> Result<Arc<File>> {
        let mut kept = lock();
        if let Some(i) = kept.iter().position(|(number, _)| *number == self.number) {
            let entry = kept.remove(i);
            let file = entry.1.clone();
            kept.push(entry);
            return Ok(file);
        }
        drop(kept);
        let file = open_regular(&self.path)?;
        let meta = file.metadata().map_err(|e| Error::io("read the size of", &self.path, e))?;
        if Identity::new(&meta) != self.identity {
            let reason = "the file has been changed or replaced since the model was opened: open the model again";
            return Err(Error::corrupt(Place::of(&self.path), reason));
        }
        let file = Arc::new(file);
        keep(self.number, file.clone());
        Ok(file)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut kept = lock();
        let own = kept.iter().position(|(number, _)| *number == self.number).map(|i| kept.remove(i));
        drop(kept);
        drop(own);
    }
}

fn lock() -> MutexGuard<'static, Vec<(u64, Arc<File>)>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a file open, and closes those that were not used for longest, if there are too many.
fn keep(number: u64, file: Arc<File>) {
    let most = most();
    let mut kept = lock();
    // Another thread may have opened the same one meanwhile.
    let same = kept.iter().position(|(other, _)| *other == number).map(|i| kept.remove(i));
    kept.push((number, file));
    let surplus = kept.len().saturating_sub(most);
    let closed: Vec<_> = kept.drain(..surplus).collect();
    drop(kept);
    // Closing may take its time on a network's disk.
    drop((same, closed));
}

/// Returns how many files are kept open: a quarter of what the process may have, and no more than [`MOST`].
fn most() -> usize {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct lives as long as the call.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0 {
            return usize::try_from(limit.rlim_cur / 4).map_or(MOST, |quarter| quarter.clamp(1, MOST));
        }
    }
    MOST
}
