//! Files that appear under their names only when they are complete.
//!
//! A file is written beside its place as `.NAME.df11-tmp`, a name that no loader takes, brought to the disk, and renamed.
//! Dropped before that it is removed, unless it is to be gone on with.

use crate::error::{Error, Result, grow};
use crate::format::open_regular;
use crate::format::read_exact_at;
use crate::progress::Progress;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What all our unfinished files end in.
const SUFFIX: &str = ".df11-tmp";

/// A file being written.
pub(crate) struct PartialFile {
    file: File,
    temporary: PathBuf,
    to: PathBuf,
    /// Whether it goes when it is dropped.
    remove: AtomicBool,
}

/// Options to open a file of a name that others can tell beforehand: one that is a link is refused (ELOOP), for who may create
/// files beside ours could otherwise have us write over any file that we may write; and a pipe is not waited for.
pub(super) fn no_links() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// The name under which a file is written.
pub(crate) fn temporary(to: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(SUFFIX);
    to.with_file_name(name)
}

/// The name that an unfinished file of this name will have.
pub(crate) fn written_as(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(SUFFIX)
}

/// The folders that were made for a destination, outermost first.
pub(super) struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Makes a folder, and those that lead to it, unless they are there. A failure leaves none of them.
    pub fn make(folder: &Path) -> Result<NewFolders> {
        let lacks = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let missing: Vec<&Path> = folder.ancestors().take_while(lacks).collect();
        let mut new = NewFolders(Vec::new());
        for folder in missing.into_iter().rev() {
            match std::fs::create_dir(folder) {
                Ok(()) => new.0.push(folder.to_owned()),
                // Another process was faster, or the path leads through it and back again.
                Err(_) if folder.is_dir() => {}
                Err(e) => {
                    new.remove();
                    return Err(Error::io("create the folder", folder, e));
                }
            }
        }
        Ok(new)
    }

    /// Removes them again, but for those that have got something in them.
    pub fn remove(&self) {
        for folder in self.0.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl PartialFile {
    /// Begins a file of so many bytes that will be called `to`. With `keep` it stays when it is dropped unfinished, and one
    /// that is there already is opened as it is.
    pub fn create(to: &Path, bytes: u64, keep: bool) -> Result<PartialFile> {
        let temporary = temporary(to);
        let fail = |e| Error::io("create", &temporary, e);
        let mut options = no_links();
        // Nor is one more open to others, from the beginning on, than what it will replace; we may go on with it ourselves.
        #[cfg(unix)]
        if let Ok(meta) = std::fs::metadata(to) {
            let mode = std::os::unix::fs::MetadataExt::mode(&meta);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode & 0o777 | 0o600);
        }
        let file = options.read(true).write(true).create(true).truncate(!keep).open(&temporary).map_err(fail)?;
        let partial =
            PartialFile { file, temporary: temporary.clone(), to: to.to_owned(), remove: AtomicBool::new(!keep) };
        partial.file.set_len(bytes).and_then(|()| reserve(&partial.file, bytes)).map_err(|e| partial.failure(e))?;
        Ok(partial)
    }

    /// The unfinished file's name.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Writes bytes at a place. Any number of threads may, at different places.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, offset, bytes).map_err(|e| self.failure(e))
    }

    /// Whether it begins with these bytes.
    pub fn starts_with(&self, bytes: &[u8]) -> bool {
        let mut there = vec![0; bytes.len()];
        read_exact_at(&self.file, 0, &mut there).is_ok() && there == bytes
    }

    fn failure(&self, error: io::Error) -> Error {
        Error::io("write", &self.to, error)
    }

    /// Asks the system to begin bringing the file to the disk, and does not wait.
    pub fn start_writing(&self) {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open, and the call touches no memory of ours. That it fails harms nothing.
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        }
    }

    /// Brings what was written to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| self.failure(e))
    }

    /// Brings the file to the disk and gives it its name.
    pub fn commit(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.failure(e))?;
        // A file that takes another's place is no more open to others than that was.
        if let Ok(meta) = std::fs::metadata(&self.to) {
            self.file.set_permissions(meta.permissions()).map_err(|e| self.failure(e))?;
        }
        std::fs::rename(&self.temporary, &self.to).map_err(|e| Error::io("rename to", &self.to, e))?;
        self.remove.store(false, Ordering::Relaxed);
        sync_folder_of(&self.to);
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.remove.load(Ordering::Relaxed) && std::fs::remove_file(&self.temporary).is_err() {
            log::warn!("the unfinished file '{}' could not be removed", self.temporary.display());
        }
    }
}

/// Writes a whole small file.
pub(crate) fn write_file(to: &Path, bytes: &[u8]) -> Result<()> {
    let file = PartialFile::create(to, bytes.len() as u64, false)?;
    file.write_at(0, bytes)?;
    file.commit()
}

/// Copies a file, as long as it is when it is opened.
pub(crate) fn copy_file(from: &Path, to: &Path, progress: &Progress) -> Result<()> {
    let mut source = open_regular(from)?;
    let mut rest = source.metadata().map_err(|e| Error::io("read the size of", from, e))?.len();
    let file = PartialFile::create(to, rest, false)?;
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
    file.commit()
}

/// Whether two files have the same bytes.
pub(crate) fn is_copy(from: &Path, to: &Path, progress: &Progress) -> Result<bool> {
    let (mut source, mut copy) = (open_regular(from)?, open_regular(to)?);
    let bytes =
        |file: &File, path| file.metadata().map(|m| m.len()).map_err(|e| Error::io("read the size of", path, e));
    let mut rest = bytes(&source, from)?;
    if bytes(&copy, to)? != rest {
        return Ok(false);
    }
    let mut buffer = Vec::new();
    grow(&mut buffer, 2 << 20, 0, "parts of two files")?;
    while rest > 0 {
        progress.check()?;
        let piece = rest.min(1 << 20) as usize;
        let (a, b) = buffer.split_at_mut(1 << 20);
        io::Read::read_exact(&mut source, &mut a[..piece]).map_err(|e| Error::io("read", from, e))?;
        io::Read::read_exact(&mut copy, &mut b[..piece]).map_err(|e| Error::io("read", to, e))?;
        if a[..piece] != b[..piece] {
            return Ok(false);
        }
        rest -= piece as u64;
    }
    Ok(true)
}

/// A file that has its name could still lose it in a power cut until its folder is on the disk.
pub(crate) fn sync_folder_of(path: &Path) {
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(e) = File::open(folder).and_then(|f| f.sync_all()) {
            log::warn!("the folder '{}' could not be brought to the disk: {e}", folder.display());
        }
    }
    #[cfg(not(unix))]
    let _ = path;
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

/// Asks for so many bytes of the disk for a file, so that one that is too full is known before the work and not after it.
/// Where the file system cannot tell, writing will.
///
/// # Errors
///
/// `StorageFull` and its like.
#[cfg(target_os = "linux")]
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    let Ok(len) = libc::off_t::try_from(bytes) else { return Err(io::ErrorKind::FileTooLarge.into()) };
    if len == 0 {
        return Ok(());
    }
    // What it has already need not be found again.
    let more = bytes.saturating_sub(file.metadata()?.blocks().saturating_mul(512));
    // Asked first, because reserving more than there is may take all there is before it fails, and others would find the
    // disk full for that while.
    // SAFETY: all zeros are a valid value of this plain struct.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the struct lives as long as the call.
    let known = unsafe { libc::fstatvfs(file.as_raw_fd(), &mut disk) } == 0 && disk.f_blocks > 0;
    if known && more > disk.f_bavail.saturating_mul(disk.f_frsize) {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    // SAFETY: the descriptor is open, and the call touches no memory of ours.
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

/// Asks for so many bytes of the disk for a file. This system has no way to.
///
/// # Errors
///
/// None.
#[cfg(not(target_os = "linux"))]
pub fn reserve(_file: &File, _bytes: u64) -> io::Result<()> {
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
            let file = PartialFile::create(&to, 3, false).unwrap();
            assert_eq!(mode(file.temporary()), meanwhile);
            file.write_at(0, b"new").unwrap();
            file.commit().unwrap();
            assert_eq!((mode(&to), std::fs::read(&to).unwrap()), (before, b"new".to_vec()));
        }
    }
}
