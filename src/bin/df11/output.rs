//! A file that appears under its name only when it is complete.
//!
//! It is written beside its place under another name, brought to the disk, and then renamed, if that may be over whatever
//! had the name.
//! If anything goes wrong before that, the unfinished file is removed and what was there stays.

use crate::{Failure, interrupt, terminal};
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Why a name cannot be had.
const THERE: &str = "it is there already: replace it (--force), or write elsewhere";

/// A file being written.
pub struct OutputFile {
    /// Before the hold in the order of fields: it is removed before a signal may end the process by itself again.
    temporary: NamedTempFile,
    to: PathBuf,
    folder: PathBuf,
    replace: bool,
    _hold: interrupt::Hold,
}

impl OutputFile {
    /// Begins a file that will be called `to`. Fails now rather than at the end if the name cannot be had, if it is that
    /// of one of the `inputs`, however it is written, or, unless it may `replace` one, of any file.
    pub fn create<'a>(
        to: &Path,
        replace: bool,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> Result<OutputFile, Failure> {
        let shown = to.display();
        let refuse = |reason: &str| Failure::cannot(format!("cannot write '{shown}': {reason}"));
        // The file that a link leads to is replaced, not the link.
        let to = match std::fs::symlink_metadata(to) {
            Ok(meta) if meta.is_symlink() => {
                to.canonicalize().map_err(|e| refuse(&format!("it is a link that leads nowhere: {e}")))?
            }
            _ => to.to_owned(),
        };
        if to.file_name().is_none() {
            return Err(refuse("this is not the name of a file"));
        }
        match std::fs::metadata(&to) {
            Ok(meta) if meta.is_dir() => return Err(refuse("it is a folder")),
            // Renaming over a device or a pipe would replace it, where the caller meant to write into it.
            Ok(meta) if !meta.is_file() => return Err(refuse("it is not a regular file")),
            Ok(meta) => {
                if let Some(same) = inputs.into_iter().find(|&input| is_same(&to, &meta, input)) {
                    return Err(refuse(&format!("it is a file of the model, '{}'", same.display())));
                }
                if !replace {
                    return Err(refuse(THERE));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(refuse(&e.to_string())),
        }
        let folder = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let in_folder =
            |reason: &dyn std::fmt::Display| refuse(&format!("the folder '{}': {reason}", folder.display()));
        match std::fs::metadata(&folder) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(in_folder(&"it is not a folder")),
            Err(e) => return Err(in_folder(&e)),
        }
        let hold = interrupt::hold()?;
        // The package's text adds a random name, which tells nobody anything.
        let temporary = temporary_in(&folder).map_err(|e| in_folder(&e.kind()))?;
        Ok(OutputFile { temporary, to, folder, replace, _hold: hold })
    }

    /// The file, to be written.
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Why writing failed.
    pub fn failure(&self, error: &io::Error) -> Failure {
        Failure::cannot(format!("cannot write '{}': {error}", self.to.display()))
    }

    /// Asks for so many bytes of the disk, so that one that is too full is known before the work and not after it. Where
    /// the file system cannot tell, writing will.
    pub fn reserve(&self, bytes: u64) -> Result<(), Failure> {
        df11::writer::reserve(self.file(), bytes).map_err(|e| {
            Failure::cannot(format!("cannot write '{}' of {}: {e}", self.to.display(), terminal::bytes(bytes)))
        })
    }

    /// Brings the file to the disk and gives it its name.
    pub fn commit(self) -> Result<(), Failure> {
        self.file().sync_all().map_err(|e| self.failure(&e))?;
        interrupt::check()?;
        let OutputFile { temporary, to, folder, replace, _hold } = self;
        // Once more, for it may have taken hours. (Not every file system can say so in the moment of renaming.)
        if !replace && to.symlink_metadata().is_ok() {
            return Err(Failure::cannot(format!("cannot write '{}': {THERE}", to.display())));
        }
        // A file that takes another's place is no more open to others than that was.
        if let Ok(meta) = std::fs::metadata(&to) {
            let set = temporary.as_file().set_permissions(meta.permissions());
            set.map_err(|e| Failure::cannot(format!("cannot set the permissions of '{}': {e}", to.display())))?;
        }
        temporary.persist(&to).map_err(|e| Failure::cannot(format!("cannot write '{}': {}", to.display(), e.error)))?;
        // The file is complete and has its name; a power cut could still take the name back.
        #[cfg(unix)]
        if let Err(e) = File::open(&folder).and_then(|f| f.sync_all()) {
            log::warn!("the folder '{}' could not be brought to the disk: {e}", folder.display());
        }
        Ok(())
    }
}

/// A new file with the permissions of any new file (the package's own are the owner's alone), and a name that neither
/// a user's `*.safetensors` nor a loader of the folder picks up.
fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".df11-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Whether an input is the file at `path`, reached by whatever name.
#[cfg(unix)]
fn is_same(_path: &Path, meta: &Metadata, input: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(input).is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino()))
}

/// Whether an input is the file at `path`, reached by whatever name.
#[cfg(not(unix))]
fn is_same(path: &Path, _meta: &Metadata, input: &Path) -> bool {
    matches!((path.canonicalize(), input.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
