//! Folders that are held open, and names in them.
//!
//! On Unix every operation on a name is relative to the open folder (`openat` and its like) and follows no link: whoever may
//! change names on the way cannot lead a run to a file elsewhere.

use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    #[cfg(unix)]
    file: File,
}

/// A name in an open folder. There may be a file of that name or not.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub folder: Arc<Folder>,
    pub name: OsString,
}

impl Entry {
    /// Opens the folder of a path that the caller has named. Links that lead to the folder are followed.
    pub fn at(path: &Path) -> Result<Entry> {
        let name = path.file_name().ok_or_else(|| {
            Error::io("write", path, io::Error::new(io::ErrorKind::InvalidInput, "this is not the name of a file"))
        })?;
        let folder = Folder::open(path.parent().unwrap_or(Path::new("")))?;
        Ok(Entry { folder: Arc::new(folder), name: name.to_owned() })
    }

    /// Opens the folders that lead from `folder` to the last name of a relative path, one after the other and without
    /// following links. Returns `None` if one of them is missing.
    pub fn below(folder: &Arc<Folder>, path: &Path) -> Result<Option<Entry>> {
        let (mut folder, name) = (folder.clone(), Self::last(path)?);
        for part in folders_of(path) {
            match folder.below(part) {
                Ok(below) => folder = Arc::new(below),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::io("open", folder.path.join(part), e)),
            }
        }
        Ok(Some(Entry { folder, name }))
    }

    /// Does the same and makes the folders that are missing, which `made` gets.
    pub fn make_below(folder: &Arc<Folder>, path: &Path, made: &mut Vec<Entry>) -> Result<Entry> {
        let (mut folder, name) = (folder.clone(), Self::last(path)?);
        for part in folders_of(path) {
            match folder.make(part) {
                Ok(()) => made.push(Entry { folder: folder.clone(), name: part.to_owned() }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create the folder", folder.path.join(part), e)),
            }
            let below = folder.below(part).map_err(|e| Error::io("open", folder.path.join(part), e))?;
            folder = Arc::new(below);
        }
        Ok(Entry { folder, name })
    }

    fn last(path: &Path) -> Result<OsString> {
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        let name = path.file_name().filter(|_| plain).map(OsStr::to_owned);
        name.ok_or_else(|| Error::Internal(format!("'{}' is not the name of a file below a folder", path.display())))
    }

    /// Returns an entry of the same folder with another name.
    pub fn beside(&self, name: impl Into<OsString>) -> Entry {
        Entry { folder: self.folder.clone(), name: name.into() }
    }

    /// Returns the whole path, for messages and for reading.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// Removes the file of this name.
    pub fn remove(&self) -> io::Result<()> {
        self.folder.remove(&self.name)
    }
}

/// Returns the folders of a relative path, outermost first.
fn folders_of(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.parent().into_iter().flat_map(Path::components).map(|c| c.as_os_str())
}

impl Folder {
    /// Returns the path that it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the names in it to the disk. Without that, a power cut could take back the name of a complete file.
    pub fn sync(&self) {
        #[cfg(unix)]
        if let Err(e) = self.file.sync_all() {
            log::warn!("the folder '{}' could not be brought to the disk: {e}", self.path.display());
        }
    }
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::ffi::CString;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    /// Of every file: a link under its name is refused (ELOOP), and opening a pipe does not wait.
    const FILE: libc::c_int = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

    fn text(name: &OsStr) -> io::Result<CString> {
        CString::new(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    fn done(result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    impl Folder {
        /// Opens a folder that the caller has named. Links that lead to it are followed.
        pub fn open(path: &Path) -> Result<Folder> {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let open = |flags| {
                let mut options = std::fs::OpenOptions::new();
                options.read(true).custom_flags(libc::O_DIRECTORY | flags).open(path)
            };
            let opened = match open(0) {
                // One that may not be listed may still be written to.
                #[cfg(target_os = "linux")]
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => open(libc::O_PATH).map_err(|_| e),
                opened => opened,
            };
            let file = opened.map_err(|e| Error::io("open", path, e))?;
            Ok(Folder { path: path.to_owned(), file })
        }

        fn open_at(&self, name: &OsStr, flags: libc::c_int, mode: u32) -> io::Result<File> {
            let text = text(name)?;
            // SAFETY: the descriptor is open, and the text ends in a zero byte and lives as long as the call.
            let file = unsafe { libc::openat(self.file.as_raw_fd(), text.as_ptr(), flags, mode as libc::c_uint) };
            if file < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: it is a descriptor that was opened just now and is nobody else's.
            Ok(unsafe { File::from_raw_fd(file) })
        }

        /// Creates a file that is not there yet.
        pub fn create_new(&self, name: &OsStr, mode: u32) -> io::Result<File> {
            self.open_at(name, FILE | libc::O_CREAT | libc::O_EXCL, mode)
        }

        /// Opens a file to read and write it.
        pub fn open_existing(&self, name: &OsStr) -> io::Result<File> {
            self.open_at(name, FILE, 0)
        }

        /// Opens a regular file to read it.
        pub fn open_to_read(&self, name: &OsStr) -> io::Result<File> {
            let flags = FILE & !libc::O_RDWR | libc::O_RDONLY | libc::O_NOCTTY;
            let file = self.open_at(name, flags, 0)?;
            if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
        }

        /// Opens a folder in this one. A link is refused (ELOOP).
        pub fn below(&self, name: &OsStr) -> io::Result<Folder> {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let file = self.open_at(name, flags, 0).map_err(|e| match (e.raw_os_error(), self.status(name)) {
                // The system says of a link, too, that it is no folder.
                (Some(libc::ENOTDIR), Ok(Some(status))) if status.st_mode & libc::S_IFMT == libc::S_IFLNK => {
                    io::Error::from_raw_os_error(libc::ELOOP)
                }
                _ => e,
            })?;
            Ok(Folder { path: self.path.join(name), file })
        }

        /// Returns the status of what has a name, itself and not what it may lead to; `None` if nothing has the name.
        fn status(&self, name: &OsStr) -> io::Result<Option<libc::stat>> {
            let text = text(name)?;
            // SAFETY: all zeros are a value of this plain struct.
            let mut status: libc::stat = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is open, the text ends in a zero byte, and the struct lives as long as the call.
            let result =
                unsafe { libc::fstatat(self.file.as_raw_fd(), text.as_ptr(), &mut status, libc::AT_SYMLINK_NOFOLLOW) };
            match done(result) {
                Ok(()) => Ok(Some(status)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        }

        /// Returns whether anything has a name, be it a link that leads nowhere.
        pub fn has(&self, name: &OsStr) -> bool {
            self.status(name).is_ok_and(|status| status.is_some())
        }

        /// Returns whether a regular file has a name.
        pub fn is_file(&self, name: &OsStr) -> bool {
            self.mode(name).is_some()
        }

        /// Returns the permissions of the regular file of a name.
        pub fn mode(&self, name: &OsStr) -> Option<u32> {
            self.owner_and_mode(name).map(|(_, mode)| mode)
        }

        #[allow(clippy::unnecessary_cast, reason = "the type is another one on other systems")]
        fn owner_and_mode(&self, name: &OsStr) -> Option<(u32, u32)> {
            let status = self.status(name).ok()??;
            let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
            regular.then_some((status.st_uid as u32, status.st_mode as u32 & 0o777))
        }

        /// Returns the permissions that a new file gets when it takes the place of the regular file of a name, if there is one.
        /// They are those of the old file. If that belongs to another user, they are no more than the new file has already:
        /// whoever can put a file there must not decide who may write to the new one.
        pub fn mode_in_place_of(&self, name: &OsStr, new: &File) -> io::Result<Option<u32>> {
            let Some((owner, mode)) = self.owner_and_mode(name) else { return Ok(None) };
            let new = new.metadata()?;
            Ok(Some(if owner == new.uid() { mode } else { mode & new.mode() }))
        }

        /// Returns whether an open file still has its name.
        #[allow(clippy::unnecessary_cast, reason = "the type is another one on other systems")]
        pub fn is_named(&self, file: &File, name: &OsStr) -> io::Result<bool> {
            let open = file.metadata()?;
            let named = self.status(name)?;
            Ok(named.is_some_and(|named| (named.st_dev as u64, named.st_ino as u64) == (open.dev(), open.ino())))
        }

        /// Renames within the folder, over whatever has the name.
        pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            let (from, to, folder) = (text(from)?, text(to)?, self.file.as_raw_fd());
            // SAFETY: the descriptor is open, and the texts end in zero bytes and live as long as the call.
            done(unsafe { libc::renameat(folder, from.as_ptr(), folder, to.as_ptr()) })
        }

        /// Renames within the folder, unless something has the name (`AlreadyExists`). Where the system or the file system cannot
        /// do that in one step, something that appears at that very moment is replaced.
        pub fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            #[cfg(target_os = "linux")]
            {
                let (from, to, folder) = (text(from)?, text(to)?, self.file.as_raw_fd());
                let (from, to) = (from.as_ptr(), to.as_ptr());
                let call = libc::SYS_renameat2;
                // SAFETY: the descriptor is open, and the texts end in zero bytes and live as long as the call. It is made by its
                // number, because not every C library has it.
                let result = unsafe { libc::syscall(call, folder, from, folder, to, libc::RENAME_NOREPLACE) };
                match done(result as libc::c_int) {
                    Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {}
                    renamed => return renamed,
                }
            }
            if self.has(to) { Err(io::ErrorKind::AlreadyExists.into()) } else { self.rename(from, to) }
        }

        /// Gives a file a second name, unless something has that.
        pub fn link(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            let (from, to, folder) = (text(from)?, text(to)?, self.file.as_raw_fd());
            // SAFETY: the descriptor is open, and the texts end in zero bytes and live as long as the call.
            done(unsafe { libc::linkat(folder, from.as_ptr(), folder, to.as_ptr(), 0) })
        }

        /// Removes a file, or a link.
        pub fn remove(&self, name: &OsStr) -> io::Result<()> {
            let name = text(name)?;
            // SAFETY: the descriptor is open, and the text ends in a zero byte and lives as long as the call.
            done(unsafe { libc::unlinkat(self.file.as_raw_fd(), name.as_ptr(), 0) })
        }

        /// Removes an empty folder.
        pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
            let name = text(name)?;
            // SAFETY: the descriptor is open, and the text ends in a zero byte and lives as long as the call.
            done(unsafe { libc::unlinkat(self.file.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
        }

        /// Makes a folder in this one.
        pub fn make(&self, name: &OsStr) -> io::Result<()> {
            let name = text(name)?;
            // SAFETY: the descriptor is open, and the text ends in a zero byte and lives as long as the call.
            done(unsafe { libc::mkdirat(self.file.as_raw_fd(), name.as_ptr(), 0o777) })
        }

        /// Fails unless an open file that was found in this folder is this user's alone: whoever else could write to it, or has
        /// it under another name, would share what this process writes.
        pub fn check_own(&self, file: &File) -> io::Result<()> {
            let meta = file.metadata()?;
            let refuse = |reason: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            if !meta.is_file() {
                return Err(not_regular());
            }
            if meta.nlink() > 1 {
                return refuse("it has a second name (a hard link), and what is written would change that file, too");
            }
            // SAFETY: it cannot fail and touches no memory.
            let user = unsafe { libc::geteuid() };
            let (mut owner, mut open_to_others) = (user, 0);
            if (meta.uid(), meta.mode() & 0o022) != (owner, 0)
                && let Some(new) = self.probe()
            {
                // Some file systems know no owners or no permissions: a file is this user's if it is as a new one would be.
                // One that others may write to is theirs, too, unless this user's new files all are.
                (owner, open_to_others) = (new.uid(), new.mode() & 0o022);
            }
            if meta.uid() != owner {
                return refuse("it belongs to another user");
            }
            if meta.mode() & 0o022 & !open_to_others != 0 {
                return refuse("other users may write to it");
            }
            Ok(())
        }

        /// Returns the metadata of a file that this process makes in this folder, if it can make one.
        fn probe(&self) -> Option<std::fs::Metadata> {
            let name = super::super::file::unique_temporary("probe");
            let file = self.create_new(&name, 0o666).ok()?;
            let meta = file.metadata();
            let _ = self.remove(&name);
            meta.ok()
        }
    }
}

#[cfg(not(unix))]
mod other {
    use super::*;
    use std::fs::OpenOptions;

    impl Folder {
        /// Opens a folder that the caller has named.
        pub fn open(path: &Path) -> Result<Folder> {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            if path.is_dir() {
                return Ok(Folder { path: path.to_owned() });
            }
            std::fs::read_dir(path).map_err(|e| Error::io("open", path, e))?;
            Ok(Folder { path: path.to_owned() })
        }

        /// Creates a file that is not there yet.
        pub fn create_new(&self, name: &OsStr, _mode: u32) -> io::Result<File> {
            OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))
        }

        /// Opens a file to read and write it.
        pub fn open_existing(&self, name: &OsStr) -> io::Result<File> {
            self.refuse_link(name)?;
            OpenOptions::new().read(true).write(true).open(self.path.join(name))
        }

        /// Opens a regular file to read it.
        pub fn open_to_read(&self, name: &OsStr) -> io::Result<File> {
            self.refuse_link(name)?;
            let file = File::open(self.path.join(name))?;
            if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
        }

        /// Opens a folder in this one. A link is refused.
        pub fn below(&self, name: &OsStr) -> io::Result<Folder> {
            self.refuse_link(name)?;
            let path = self.path.join(name);
            if path.symlink_metadata()?.is_dir() {
                Ok(Folder { path })
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }

        fn refuse_link(&self, name: &OsStr) -> io::Result<()> {
            if self.path.join(name).symlink_metadata()?.is_symlink() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link"));
            }
            Ok(())
        }

        /// Returns whether anything has a name, be it a link that leads nowhere.
        pub fn has(&self, name: &OsStr) -> bool {
            self.path.join(name).symlink_metadata().is_ok()
        }

        /// Returns whether a regular file has a name.
        pub fn is_file(&self, name: &OsStr) -> bool {
            self.path.join(name).symlink_metadata().is_ok_and(|meta| meta.is_file())
        }

        /// Returns whether an open file still has its name. Here, it cannot lose it while it is open.
        pub fn is_named(&self, _file: &File, _name: &OsStr) -> io::Result<bool> {
            Ok(true)
        }

        /// Renames within the folder, over whatever has the name.
        pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            std::fs::rename(self.path.join(from), self.path.join(to))
        }

        /// Renames within the folder, unless something has the name (`AlreadyExists`). Something that appears at that very moment
        /// is replaced.
        pub fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            if self.has(to) { Err(io::ErrorKind::AlreadyExists.into()) } else { self.rename(from, to) }
        }

        /// Gives a file a second name, unless something has that.
        pub fn link(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
            std::fs::hard_link(self.path.join(from), self.path.join(to))
        }

        /// Removes a file, or a link.
        pub fn remove(&self, name: &OsStr) -> io::Result<()> {
            std::fs::remove_file(self.path.join(name))
        }

        /// Removes an empty folder.
        pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
            std::fs::remove_dir(self.path.join(name))
        }

        /// Makes a folder in this one.
        pub fn make(&self, name: &OsStr) -> io::Result<()> {
            std::fs::create_dir(self.path.join(name))
        }

        /// Fails unless an open file is a regular one. Owners are not looked at on this system.
        pub fn check_own(&self, file: &File) -> io::Result<()> {
            if file.metadata()?.is_file() { Ok(()) } else { Err(not_regular()) }
        }
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// The folders that were made for a destination, outermost first.
pub(crate) struct NewFolders(Vec<PathBuf>);

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

    /// Removes them again, except those that are not empty any more.
    pub fn remove(&self) {
        for folder in self.0.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}
