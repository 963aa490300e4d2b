//! Where a model may be written, and where its config goes.

use super::{Entry, PartialFile, temporary, write_file};
use crate::error::{Error, Result, shorten_path};
use crate::format::read_text;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Fails if writing to a destination would do harm: to something that is no folder or file, or to the source. `folder` is what is
/// written to, and `file` the one file if it is one; `files` are those of the source.
pub(crate) fn check<'a>(
    folder: &Path,
    file: Option<&Path>,
    source: &Path,
    mut files: impl Iterator<Item = &'a Path>,
) -> Result<()> {
    let refuse = |reason: &str| {
        let shown = shorten_path(file.unwrap_or(folder));
        Err(Error::InvalidArgument(format!("cannot write to '{shown}': {reason}")))
    };
    if folder.exists() && !folder.is_dir() {
        return refuse("it is not a folder");
    }
    if file.is_some_and(|f| f.exists() && !f.is_file()) {
        return refuse("it is not a regular file");
    }
    let real = source.canonicalize().map_err(|e| Error::io("open", source, e))?;
    if real.is_dir() && where_it_leads(folder).is_some_and(|folder| folder.starts_with(&real)) {
        return refuse("it is in the source's folder, and would be taken for a part of it");
    }
    // By whatever links they are reached, its shards too; and so is the name that the file has while it is written.
    let names = file.into_iter().flat_map(|f| [f.to_owned(), temporary(f)]);
    let names: Vec<PathBuf> = names.filter_map(|f| f.canonicalize().ok()).collect();
    let is_one = |file: &Path| file.canonicalize().is_ok_and(|file| names.contains(&file));
    if names.contains(&real) || files.any(is_one) {
        return refuse("it is the source");
    }
    Ok(())
}

/// Returns the real path of what may not be there yet: links are followed as far as there are any, and `..` after that leads to
/// where it will when all folders are made.
fn where_it_leads(path: &Path) -> Option<PathBuf> {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path).ok()?.components() {
        match component {
            Component::ParentDir => _ = real.pop(),
            other => real.push(other),
        }
        real = real.canonicalize().unwrap_or(real);
    }
    Some(real)
}

/// The config of a model at the destination.
pub(crate) struct ConfigPlace {
    pub path: PathBuf,
    /// True if one that says something else may be replaced.
    pub replaces: bool,
}

impl ConfigPlace {
    /// Returns the place of a folder's config.
    pub fn in_folder(folder: &Path) -> ConfigPlace {
        ConfigPlace { path: folder.join("config.json"), replaces: false }
    }

    /// Returns the place of the config of a file that stands alone: `config.json` in the same folder, or `NAME.config.json`
    /// if another model's config is there, or if an earlier file of that name has its own, where readers look first.
    pub fn beside(file: &Path, text: &str) -> ConfigPlace {
        let usual = file.with_file_name("config.json");
        let own = file.with_extension("config.json");
        let same = || read_text(&usual).is_ok_and(|there| there.is_some_and(|there| there == text.as_bytes()));
        if own.symlink_metadata().is_ok() {
            return ConfigPlace { path: own, replaces: true };
        }
        if !usual.exists() || same() {
            return ConfigPlace { path: usual, replaces: true };
        }
        log::warn!(
            "'{}' is something else's and stays: the model's config is '{}', where readers of this library look first",
            usual.display(),
            own.display()
        );
        ConfigPlace { path: own, replaces: true }
    }

    /// Fails if the config says something else and may not be replaced.
    pub fn check(&self, text: &str) -> Result<()> {
        let there = read_text(&self.path)?;
        if !self.replaces && there.is_some_and(|there| there != text.as_bytes()) {
            return Err(differs(&self.path));
        }
        Ok(())
    }

    /// Writes the config. One that may not be replaced is only written if it is missing. Returns what was there before.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it says something else and may not be replaced; `Exists` if it was missing and another process has
    /// written one meanwhile, which stays.
    pub fn write(&self, text: &str) -> Result<Option<Vec<u8>>> {
        let before = read_text(&self.path)?;
        match &before {
            Some(there) if !self.replaces && there == text.as_bytes() => {}
            Some(_) if !self.replaces => return Err(differs(&self.path)),
            _ => write_file(&Entry::at(&self.path)?, text.as_bytes(), before.is_some())?,
        }
        Ok(before)
    }

    /// Restores what was there before.
    pub fn restore(&self, before: Option<Vec<u8>>) -> Result<()> {
        match before {
            Some(text) => write_file(&Entry::at(&self.path)?, &text, true),
            None => std::fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e)),
        }
    }

    /// Returns whether nothing is there.
    pub fn is_missing(&self) -> bool {
        self.path.symlink_metadata().is_err()
    }
}

/// Returns a file that is to be written alone, or the config that readers would take for its own, if it is there already. `config` is
/// what its config will say.
pub(crate) fn existing(file: &Path, config: Option<&str>) -> Option<PathBuf> {
    let own = file.with_extension("config.json");
    let is_other =
        |config: &str| read_text(&own).is_ok_and(|there| there.is_none_or(|there| there != config.as_bytes()));
    match file.symlink_metadata() {
        Ok(_) => Some(file.to_owned()),
        Err(_) if config.is_some_and(|config| own.symlink_metadata().is_ok() && is_other(config)) => Some(own),
        Err(_) => None,
    }
}

/// Fails if it is there already.
pub(crate) fn refuse_existing(file: &Path, config: Option<&str>) -> Result<()> {
    existing(file, config).map_or(Ok(()), |there| Err(Error::Exists(there)))
}

/// Writes the config and gives the files their names.
///
/// The config comes at the last moment, because one that is to be replaced would be read with it; but before the file has its name,
/// because without it that would look finished. `config` has its text, and finds its place. If the config of another file has come to
/// be there since it was looked at, this one goes to the place next to that.
pub(crate) fn commit_with_config(
    files: &[Arc<PartialFile>],
    config: Option<(&str, impl Fn() -> ConfigPlace)>,
    replace: bool,
) -> Result<()> {
    let write = || {
        let Some((text, place)) = &config else { return Ok(None) };
        let place = place();
        place.write(text).map(|before| Some((place, before)))
    };
    let written = match write() {
        Err(Error::Exists(_)) => write()?,
        written => written?,
    };
    for file in files {
        let Err(error) = file.commit(replace) else { continue };
        // The file that has the name stays, and must be read with the config that it had.
        if let Some(Err(error)) = written.map(|(place, before)| place.restore(before)) {
            log::warn!("the config of a file that has not got its name stays: {error}");
        }
        return Err(error);
    }
    Ok(())
}

/// Returns the error of a file next to the tensors that is not the one that goes with this source.
pub(crate) fn differs(file: &Path) -> Error {
    Error::InvalidArgument(format!(
        "'{}' is not what this run would write: remove it to have it written",
        shorten_path(file)
    ))
}
