//! Files that get their names when they are complete.
//!
//! A file is written in its folder as `.NAME.df11-tmp`, a name that no loader takes, brought to the disk, and renamed.
//! While it is written it is locked. What a killed process has left under that name is removed, or resumed if that is asked
//! for, by the next process that writes the same file. A file that is dropped before it has its name is removed, unless it is
//! to be resumed.

use super::folder::Entry;
use super::lock::{Locked, existing, lock_open, open_locked};
use crate::error::{Error, Result, grow, shorten_path};
use crate::format::{open_regular, read_exact_at};
use crate::progress::Progress;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The ending of all unfinished files.
pub(crate) const SUFFIX: &str = ".df11-tmp";

/// A file being written.
#[derive(Debug)]
pub(crate) struct PartialFile {
    file: File,
    temporary: Entry,
    /// The path of the temporary file.
    path: PathBuf,
    to: Entry,
    /// True if it is removed when it is dropped.
    remove: AtomicBool,
}

/// Returns the path under which a file is written.
pub(crate) fn temporary(to: &Path) -> PathBuf {
    to.with_file_name(temporary_name(to.file_name().unwrap_or_default()))
}

fn temporary_name(name: &OsStr) -> OsString {
    // File systems allow 255 bytes.
    const MOST: usize = 255 - 1 - SUFFIX.len();
    let mut temporary = OsString::from(".");
    if name.len() <= MOST {
        temporary.push(name);
    } else {
        // Two long names that differ have different ones here.
        let hash = name.as_encoded_bytes().iter();
        let hash = hash.fold(0xcbf2_9ce4_8422_2325u64, |hash, &b| (hash ^ b as u64).wrapping_mul(0x0100_0000_01b3));
        let text = name.to_string_lossy();
        let end = (0..=100).rfind(|&i| text.is_char_boundary(i)).unwrap_or(0);
        temporary.push(format!("{}-{hash:016x}", &text[..end]));
    }
    temporary.push(SUFFIX);
    temporary
}

/// Returns the name of a temporary file that no other process uses. Processes of several machines may have the same number (in
/// containers it is mostly 1), so the time is in the name.
pub(crate) fn unique_temporary(what: &str) -> OsString {
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    format!(".df11-{what}-{}-{time}{SUFFIX}", std::process::id()).into()
}

/// Returns the name that an unfinished file of this name will have.
pub(crate) fn written_as(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(SUFFIX)
}

/// The treatment of a file that a killed process has left under the temporary name, and of this one if it is dropped unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// The one is removed, and so is the other.
    Removed,
    /// The one is removed, the other stays to be resumed.
    Kept,
    /// The one is resumed, and the other stays to be resumed again.
    Resumed,
}

impl PartialFile {
    /// Begins a file of `bytes` bytes.
    ///
    /// # Errors
    ///
    /// `Busy` if another process writes it; `Io` if something under its temporary name is not this user's alone.
    pub fn create(to: &Entry, bytes: u64, leftover: Leftover) -> Result<PartialFile> {
        let temporary = to.beside(temporary_name(&to.name));
        let path = temporary.path();
        let resume = leftover == Leftover::Resumed;
        let file =
            open_locked(&temporary, new_mode(to), resume, lock_written).map_err(|e| Error::io("create", &path, e))?;
        let Locked::Yes(file) = file else { return Err(being_written(&to.path())) };
        let remove = AtomicBool::new(leftover == Leftover::Removed);
        let partial = PartialFile { file, temporary, path, to: to.clone(), remove };
        let sized = limit_of_file_size(bytes).and_then(|()| partial.file.set_len(bytes));
        sized.and_then(|()| reserve(&partial.file, bytes)).map_err(|e| partial.failure(e))?;
        Ok(partial)
    }

    /// Returns the unfinished file's path.
    pub fn temporary(&self) -> &Path {
        &self.path
    }

    /// Writes bytes at a place. Any number of threads may do so at different places.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let within = limit_of_file_size(offset + bytes.len() as u64);
        within.and_then(|()| write_all_at(&self.file, offset, bytes)).map_err(|e| self.failure(e))
    }

    /// Returns whether it begins with these bytes.
    pub fn starts_with(&self, bytes: &[u8]) -> bool {
        let mut there = vec![0; bytes.len()];
        read_exact_at(&self.file, 0, &mut there).is_ok() && there == bytes
    }

    fn failure(&self, error: io::Error) -> Error {
        Error::io("write", self.to.path(), error)
    }

    /// Fails if the disk has no room for that many bytes more than it has reserved by now. Nothing is reserved: if others fill the
    /// disk meanwhile, writing will tell.
    pub fn check_room(&self, more: u64) -> Result<()> {
        #[cfg(target_os = "linux")]
        if room(&self.file).is_some_and(|room| more > room) {
            return Err(self.failure(io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        let _ = more;
        Ok(())
    }

    /// Asks the system to begin bringing the file to the disk, and does not wait.
    pub fn start_writing(&self) {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open, and the call accesses no memory of this process. That it fails harms nothing.
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        }
    }

    /// Brings what was written to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| self.failure(e))
    }

    /// Brings the file to the disk and gives it its name, unless `replace` is false and something has the name.
    ///
    /// # Errors
    ///
    /// `Exists`, `Io`: what had the name still has it.
    pub fn commit(&self, replace: bool) -> Result<()> {
        self.file.sync_all().map_err(|e| self.failure(e))?;
        // A file that takes another's place is no more open to others than that was.
        #[cfg(unix)]
        if let Some(mode) = self.to.folder.mode_in_place_of(&self.to.name, &self.file).map_err(|e| self.failure(e))? {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            self.file.set_permissions(permissions).map_err(|e| self.failure(e))?;
        }
        let (folder, fail) = (&self.to.folder, |e| Error::io("rename to", self.to.path(), e));
        let is_named = |name: &OsStr| folder.is_named(&self.file, name).map_err(fail);
        let taken = || fail(io::Error::other("another process has put something else in its place"));
        if !is_named(&self.temporary.name)? {
            return Err(taken());
        }
        let (from, to) = (&self.temporary.name, &self.to.name);
        match if replace { folder.rename(from, to) } else { folder.rename_new(from, to) } {
            Err(e) if !replace && e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(self.to.path()));
            }
            renamed => renamed.map_err(fail)?,
        }
        self.remove.store(false, Ordering::Relaxed);
        if !is_named(&self.to.name)? {
            return Err(taken());
        }
        folder.sync();
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.remove.load(Ordering::Relaxed) {
            return;
        }
        // A file that somebody else has put there is not removed.
        let named = self.temporary.folder.is_named(&self.file, &self.temporary.name);
        if named.is_ok_and(|named| named) && self.temporary.remove().is_err() {
            log::warn!("the unfinished file '{}' could not be removed", self.path.display());
        }
    }
}

/// Returns the permissions of a new file: from the beginning on it is no more open to others than the file that it will replace.
fn new_mode(to: &Entry) -> u32 {
    #[cfg(unix)]
    if let Some(mode) = to.folder.mode(&to.name) {
        return mode & 0o666 | 0o600;
    }
    let _ = to;
    0o666
}

/// Removes what a run has left under a temporary name. What somebody else has put there stays, and so does what another process
/// is writing: it need not be a run, so that no ledger is locked.
pub(super) fn remove_left(temporary: &Entry) {
    if let Ok(Some(Locked::Yes(_left))) = existing(temporary, lock_written) {
        let _ = temporary.remove();
    }
}

/// Locks a file that is written. Not on Windows, where nobody, this process included, can read what is locked.
fn lock_written(temporary: &Entry, file: File) -> io::Result<Option<Locked>> {
    if cfg!(windows) { Ok(Some(Locked::Yes(file))) } else { lock_open(temporary, file) }
}

/// A new file that appears under its name only when it is complete.
///
/// It is written in its folder under another name, brought to the disk, and renamed. If it is dropped before that, it
/// is removed. What a killed process has left of the same file is removed by the next one that writes it. Of two processes at a
/// time, the second fails with [`Error::Busy`].
#[derive(Debug)]
pub struct NewFile(PartialFile);

impl NewFile {
    /// Begins a file of `bytes` bytes that will be called `to`. Links that lead to its folder are followed. Where the system can,
    /// its room on the disk is reserved. More may be written than that.
    ///
    /// # Errors
    ///
    /// `Busy` if another process writes it; `Io`.
    pub fn create(to: impl AsRef<Path>, bytes: u64) -> Result<NewFile> {
        PartialFile::create(&Entry::at(to.as_ref())?, bytes, Leftover::Removed).map(NewFile)
    }

    /// Writes bytes at a place. Any number of threads may do so at different places.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// Brings the file to the disk and gives it its name, unless `replace` is false and something has the name.
    ///
    /// # Errors
    ///
    /// `Exists`, `Io`.
    pub fn commit(self, replace: bool) -> Result<()> {
        self.0.commit(replace)
    }
}

/// Returns the error of a file that another process is writing.
fn being_written(path: &Path) -> Error {
    Error::Busy(format!("another process is writing '{}'", shorten_path(path)))
}

/// Writes a whole small file. If another process writes it, this waits for a moment.
///
/// # Errors
///
/// `Exists` if something has the name and `replace` is false.
pub(crate) fn write_file(to: &Entry, bytes: &[u8], replace: bool) -> Result<()> {
    let file = create_soon(to, bytes.len() as u64)?;
    file.write_at(0, bytes)?;
    file.commit(replace)
}

/// Begins a file that nobody writes for long.
fn create_soon(to: &Entry, bytes: u64) -> Result<PartialFile> {
    const TRIES: u32 = 100;
    for _ in 1..TRIES {
        match PartialFile::create(to, bytes, Leftover::Removed) {
            Err(Error::Busy(_)) => std::thread::sleep(Duration::from_millis(20)),
            created => return created,
        }
    }
    PartialFile::create(to, bytes, Leftover::Removed)
}

/// Copies a file, as long as it is when it is opened.
///
/// # Errors
///
/// `Exists` if a file of the name has come to be there.
pub(crate) fn copy_file(from: &Path, to: &Entry, progress: &Progress) -> Result<()> {
    let mut source = open_regular(from)?;
    let mut rest = source.metadata().map_err(|e| Error::io("read the size of", from, e))?.len();
    let file = create_soon(to, rest)?;
    let mut buffer = Vec::new();
    grow(&mut buffer, 1 << 20, 0, "a part of a file")?;
    let mut at = 0;
    while rest > 0 {
        progress.check()?;
        let piece = &mut buffer[..rest.min(1 << 20) as usize];
        io::Read::read_exact(&mut source, piece).map_err(|e| Error::io("read", from, e))?;
        file.write_at(at, piece)?;
        at += piece.len() as u64;
        rest -= piece.len() as u64;
    }
    file.commit(false)
}

/// Returns whether a file has the same bytes as another.
pub(crate) fn is_copy(from: &Path, to: &Entry, progress: &Progress) -> Result<bool> {
    let path = to.path();
    let copy = to.folder.open_to_read(&to.name).map_err(|e| Error::io("open", &path, e))?;
    let (mut source, mut copy) = (open_regular(from)?, copy);
    let bytes =
        |file: &File, path| file.metadata().map(|m| m.len()).map_err(|e| Error::io("read the size of", path, e));
    let mut rest = bytes(&source, from)?;
    if bytes(&copy, &path)? != rest {
        return Ok(false);
    }
    let mut buffer = Vec::new();
    grow(&mut buffer, 2 << 20, 0, "parts of two files")?;
    while rest > 0 {
        progress.check()?;
        let piece = rest.min(1 << 20) as usize;
        let (a, b) = buffer.split_at_mut(1 << 20);
        io::Read::read_exact(&mut source, &mut a[..piece]).map_err(|e| Error::io("read", from, e))?;
        io::Read::read_exact(&mut copy, &mut b[..piece]).map_err(|e| Error::io("read", &path, e))?;
        if a[..piece] != b[..piece] {
            return Ok(false);
        }
        rest -= piece as u64;
    }
    Ok(true)
}

/// Fails like a write that ends after the process's limit on the size of files (EFBIG). The system would also send SIGXFSZ,
/// which ends the process unless it is ignored; whether it is, is the program's decision and not this library's, so the limit is
/// looked at before every call that may make a file larger.
#[cfg(unix)]
#[allow(clippy::unnecessary_cast, reason = "the type is another one on other systems")]
pub(crate) fn limit_of_file_size(end: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct lives as long as the call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    if known && limit.rlim_cur != libc::RLIM_INFINITY && end > limit.rlim_cur as u64 {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(())
}

/// This system has no such limit.
#[cfg(not(unix))]
pub(crate) fn limit_of_file_size(_end: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += n as u64;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Reserves that many bytes on the disk for a file, so that a full disk is known before the work and not after it.
/// If the file system cannot tell, writing will.
///
/// # Errors
///
/// `StorageFull` and its like.
#[cfg(target_os = "linux")]
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    let Ok(len) = libc::off_t::try_from(bytes) else { return Err(io::ErrorKind::FileTooLarge.into()) };
    if len == 0 {
        return Ok(());
    }
    // The bytes that it has already need not be reserved again.
    let more = bytes.saturating_sub(file.metadata()?.blocks().saturating_mul(512));
    // Asked first, because reserving more than there is may take all there is before it fails, and others would find the
    // disk full for that while.
    if room(file).is_some_and(|room| more > room) {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    // SAFETY: the descriptor is open, and the call accesses no memory of this process.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Err(error),
        // Not every file system can do this, and none must.
        _ => Ok(()),
    }
}

/// Returns the bytes that are free on the disk of a file, if the file system tells.
#[cfg(target_os = "linux")]
fn room(file: &File) -> Option<u64> {
    use std::os::fd::AsRawFd;
    // SAFETY: all zeros are a valid value of this plain struct.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the struct lives as long as the call.
    let known = unsafe { libc::fstatvfs(file.as_raw_fd(), &mut disk) } == 0 && disk.f_blocks > 0;
    known.then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Does nothing: this system has no way to reserve room on the disk.
///
/// # Errors
///
/// None.
#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _bytes: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_replaces_a_private_file_is_private_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("model.safetensors");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        for (before, meanwhile) in [(0o600, 0o600), (0o400, 0o600)] {
            let _ = std::fs::remove_file(&to);
            std::fs::write(&to, "private").unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(before)).unwrap();
            let file = PartialFile::create(&Entry::at(&to).unwrap(), 3, Leftover::Removed).unwrap();
            assert_eq!(mode(file.temporary()), meanwhile);
            file.write_at(0, b"new").unwrap();
            file.commit(true).unwrap();
            assert_eq!((mode(&to), std::fs::read(&to).unwrap()), (before, b"new".to_vec()));
        }
    }

    /// Of two that write one file the second hears of the first, and what a killed one has left is in nobody's way.
    #[test]
    fn a_file_is_written_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x".to_owned(), "n".repeat(255)] {
            let to = Entry::at(&folder.path().join(&name)).unwrap();
            let first = PartialFile::create(&to, 3, Leftover::Removed).unwrap();
            assert!(matches!(PartialFile::create(&to, 3, Leftover::Removed), Err(Error::Busy(_))));
            assert!(matches!(PartialFile::create(&to, 3, Leftover::Resumed), Err(Error::Busy(_))));
            first.write_at(0, b"one").unwrap();
            // As a kill does.
            let left = first.temporary().to_owned();
            first.remove.store(false, Ordering::Relaxed);
            drop(first);
            let resumed = PartialFile::create(&to, 3, Leftover::Resumed).unwrap();
            assert!(resumed.starts_with(b"one"));
            drop(resumed);
            let second = PartialFile::create(&to, 3, Leftover::Removed).unwrap();
            assert!(second.temporary() == left && !second.starts_with(b"one"));
            second.write_at(0, b"two").unwrap();
            second.commit(true).unwrap();
            assert_eq!(std::fs::read(folder.path().join(&name)).unwrap(), b"two");
            std::fs::remove_file(folder.path().join(&name)).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    /// Something else under the temporary name is neither given the file's name nor removed.
    #[test]
    fn what_takes_its_place_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("x");
        let file = PartialFile::create(&Entry::at(&to).unwrap(), 3, Leftover::Removed).unwrap();
        let temporary = file.temporary().to_owned();
        std::fs::remove_file(&temporary).unwrap();
        std::fs::write(&temporary, "else").unwrap();
        let error = file.commit(true).unwrap_err();
        assert!(error.to_string().contains("something else in its place"), "{error}");
        drop(file);
        assert!(!to.exists() && std::fs::read(&temporary).unwrap() == b"else");
    }
}
