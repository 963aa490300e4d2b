//! Where a model goes: the folder or file, and the config beside it.

use super::Layout;
use super::input::Input;
use super::target;
use crate::error::{Error, Result, shorten};
use crate::format::read_text;
use std::path::{Component, Path, PathBuf};

/// The folder that is written to, the one file if it is to be one, and whether that stands alone.
pub(super) fn destination_of(
    destination: &Path,
    layout: Layout,
    source: &Path,
    input: &Input,
) -> Result<(PathBuf, Option<PathBuf>, bool)> {
    let refuse = |reason: String| {
        Err(Error::InvalidArgument(format!(
            "cannot write to '{}': {reason}",
            shorten(&destination.display().to_string(), 200)
        )))
    };
    let is_file = destination.extension().is_some_and(|e| e == "safetensors");
    let (folder, single, bare) = match layout {
        Layout::Folder => (destination.to_owned(), None, false),
        Layout::ByName if !is_file => (destination.to_owned(), None, false),
        _ if is_file => {
            let parent = destination.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (parent.to_owned(), Some(destination.to_owned()), true)
        }
        _ => (destination.to_owned(), Some(destination.join(input.remainder())), false),
    };
    if folder.exists() && !folder.is_dir() {
        return refuse("it is not a folder".into());
    }
    if single.as_ref().is_some_and(|f| f.exists() && !f.is_file()) {
        return refuse("it is not a regular file".into());
    }
    let source = source.canonicalize().map_err(|e| Error::io("open", source, e))?;
    if input.folder.is_some() && where_it_leads(&folder).is_some_and(|real| real.starts_with(&source)) {
        return refuse("it lies in the source's folder, and would be taken for a part of it".into());
    }
    // By whatever links they are reached, its shards too; and so is the name that the file has while it is written.
    let names = single.iter().flat_map(|f| [f.clone(), target::temporary(f)]);
    let real: Vec<PathBuf> = names.filter_map(|f| f.canonicalize().ok()).collect();
    let is_one = |file: &Path| file.canonicalize().is_ok_and(|file| real.contains(&file));
    if real.contains(&source) || input.model.files().any(|f| is_one(f.file)) {
        return refuse("it is the source".into());
    }
    Ok((folder, single, bare))
}

/// The real path of what may not be there yet: links are followed as far as there are any, and `..` behind that leads to
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

/// Where the config of a single file goes: beside it, unless something else has that place, or readers would not look there
/// because an earlier one of that name has its own.
pub(super) fn config_beside(file: &Path, text: &str, bare: bool) -> PathBuf {
    let usual = file.with_file_name("config.json");
    let same = || read_text(&usual).is_ok_and(|there| there.is_some_and(|there| there == text.as_bytes()));
    let own = file.with_extension("config.json");
    if bare && own.symlink_metadata().is_ok() {
        return own;
    }
    if !bare || !usual.exists() || same() {
        return usual;
    }
    log::warn!(
        "'{}' is something else's and stays: the model's config is '{}', where readers of this library look first",
        usual.display(),
        own.display()
    );
    own
}
