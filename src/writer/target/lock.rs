//! Locks of the operating system on files whose names all processes know.

use super::Entry;
use std::fs::{File, TryLockError};
use std::io;

/// The result of an attempt to lock a file.
pub(crate) enum Locked {
    /// The lock is held as long as the file is open.
    Yes(File),
    /// Another process has it.
    Busy,
}

/// A way to lock an open file. It returns `None` if the file has lost its name.
pub(super) type Lock = fn(&Entry, File) -> io::Result<Option<Locked>>;

/// Opens the notes of a run, or creates them, and locks them. Not every file system can lock, and none must.
pub(crate) fn lock(entry: &Entry) -> io::Result<Locked> {
    /// Notes are never to be written by others.
    const MODE: u32 = 0o644;
    open_locked(entry, MODE, true, lock_open)
}

/// Creates and locks a file. One that is there and that no process has locked is what an earlier process has left: with `keep` it
/// is opened as it is, otherwise it is removed first.
///
/// If the file was unlinked between open and lock this begins again: other processes would lock a new file.
///
/// # Errors
///
/// `PermissionDenied` for a file that is not this user's alone.
pub(super) fn open_locked(entry: &Entry, mode: u32, keep: bool, lock: Lock) -> io::Result<Locked> {
    loop {
        match entry.folder.create_new(&entry.name, mode) {
            Ok(file) => match lock(entry, file)? {
                Some(Locked::Yes(file)) => return Ok(Locked::Yes(file)),
                // Another process took it for one that was left.
                Some(Locked::Busy) | None => continue,
            },
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        match existing(entry, lock) {
            Ok(Some(Locked::Yes(file))) if keep => return Ok(Locked::Yes(file)),
            // While it is locked: whoever opened it meanwhile finds that it has no name any more.
            Ok(Some(Locked::Yes(_left))) => entry.remove()?,
            Ok(Some(Locked::Busy)) => return Ok(Locked::Busy),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

/// Opens the notes of a run and locks them. Returns `None` if they lost their name meanwhile.
///
/// # Errors
///
/// `NotFound`; `PermissionDenied` for a file that is not this user's alone.
pub(crate) fn lock_existing(entry: &Entry) -> io::Result<Option<Locked>> {
    existing(entry, lock_open)
}

/// Opens and locks a file that is there.
pub(super) fn existing(entry: &Entry, lock: Lock) -> io::Result<Option<Locked>> {
    let file = entry.folder.open_existing(&entry.name)?;
    entry.folder.check_own(&file)?;
    lock(entry, file)
}

/// Locks an open file. Returns `None` if it has lost its name.
pub(super) fn lock_open(entry: &Entry, file: File) -> io::Result<Option<Locked>> {
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Ok(Some(Locked::Busy));
    }
    Ok(entry.folder.is_named(&file, &entry.name)?.then_some(Locked::Yes(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two that open the same name never both have it, also where one removes it right then.
    #[cfg(unix)]
    #[test]
    fn a_lock_is_one_processs_alone() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::at(&folder.path().join("lock")).unwrap();
        let (inside, had) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        let Locked::Yes(lock) = lock(&entry).unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                        had.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        entry.remove().unwrap();
                        drop(lock);
                    }
                });
            }
        });
        assert!(had.into_inner() > 0);
    }
}
