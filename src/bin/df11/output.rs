//! A file that the tool writes itself: a drawing.
//!
//! The library writes it to the same folder under a temporary name ([`NewFile`]), brings it to the disk, and renames it. Here
//! is what the tool decides: which files may be replaced, and that a signal ends nothing before the unfinished file is removed.

use crate::{Failure, interrupt, terminal};
use df11::Error;
use df11::writer::NewFile;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

/// A name that may be written to.
pub struct Output {
    to: PathBuf,
}

/// A file being written.
pub struct OutputFile {
    /// Declared before the hold, so that the file is removed before a signal may end the process again.
    file: NewFile,
    _hold: interrupt::Hold,
}

impl Output {
    /// Fails now rather than at the end if the name cannot be used, or if it names one of the `inputs`, however it is written.
    pub fn new<'a>(to: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<Output, Failure> {
        let shown = to.display();
        let refuse = |reason: &str| Failure::cannot(format!("cannot write '{shown}': {reason}"));
        let to = resolve(to)?;
        if to.file_name().is_none() {
            return Err(refuse("this is not the name of a file"));
        }
        match std::fs::metadata(&to) {
            Ok(meta) => check_existing(&to, &meta, inputs).map_err(|reason| refuse(&reason))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(refuse(&e.to_string())),
        }
        let folder = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let in_folder =
            |reason: &dyn std::fmt::Display| refuse(&format!("the folder '{}': {reason}", folder.display()));
        match std::fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(in_folder(&"it is not a folder")),
            Err(e) => return Err(in_folder(&e)),
        }
        Ok(Output { to })
    }

    /// Begins the file. Room on the disk is reserved for `bytes` bytes, so that a disk that is too full is known before the work;
    /// 0 if their number is not known.
    pub fn begin(self, bytes: u64) -> Result<OutputFile, Failure> {
        let hold = interrupt::hold()?;
        let file = NewFile::create(&self.to, bytes).map_err(|error| match error {
            Error::Io { action: "write", source, .. } => {
                let (shown, size) = (self.to.display(), terminal::bytes(bytes));
                Failure::cannot(format!("cannot write '{shown}' of {size}: {source}"))
            }
            // Nothing can be made in the folder.
            Error::Io { action: "create" | "open", source, .. } => {
                let folder = self.to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let (shown, folder) = (self.to.display(), folder.display());
                Failure::cannot(format!("cannot write '{shown}': the folder '{folder}': {source}"))
            }
            error => Failure::cannot(error),
        })?;
        Ok(OutputFile { file, _hold: hold })
    }
}

impl OutputFile {
    /// Returns the file, to be written.
    pub fn file(&self) -> &NewFile {
        &self.file
    }

    /// Brings the file to the disk and gives it its name.
    pub fn commit(self) -> Result<(), Failure> {
        let OutputFile { file, _hold } = self;
        file.sync()?;
        interrupt::check()?;
        file.commit(true).map_err(Failure::cannot)
    }
}

/// Returns where to write: the file that a link leads to is replaced, not the link.
pub fn resolve(to: &Path) -> Result<PathBuf, Failure> {
    let refuse = |e| Failure::cannot(format!("cannot write '{}': it is a link that leads nowhere: {e}", to.display()));
    match std::fs::symlink_metadata(to) {
        Ok(meta) if meta.is_symlink() => to.canonicalize().map_err(refuse),
        _ => Ok(to.to_owned()),
    }
}

/// Fails, with the reason, if what is there may not be replaced.
fn check_existing<'a>(to: &Path, meta: &Metadata, inputs: impl IntoIterator<Item = &'a Path>) -> Result<(), String> {
    if meta.is_dir() {
        return Err("it is a folder".into());
    }
    // Renaming over a device or a pipe would replace it, where the caller meant to write into it.
    if !meta.is_file() {
        return Err("it is not a regular file".into());
    }
    if let Some(same) = inputs.into_iter().find(|&input| is_same(to, meta, input)) {
        return Err(format!("it is a file of the model, '{}'", same.display()));
    }
    Ok(())
}

/// Returns whether an input is the file at `path`, reached by whatever name.
#[cfg(unix)]
fn is_same(_path: &Path, meta: &Metadata, input: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(input).is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino()))
}

/// Returns whether an input is the file at `path`, reached by whatever name.
#[cfg(not(unix))]
fn is_same(path: &Path, _meta: &Metadata, input: &Path) -> bool {
    matches!((path.canonicalize(), input.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
