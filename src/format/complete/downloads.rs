//! Downloads that have not ended, by the files that programs leave beside the weights until then.

use super::{Missing, names_of_files};
use crate::error::{Error, Result, shorten};
use crate::format::files;
use crate::format::foreign::DOWNLOADS;
use crate::format::model::Model;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// The folder in which the tools of the Hugging Face Hub keep what they have of a download to a folder.
const HUB: &str = ".cache/huggingface/download";

/// Looks for downloads that have not ended. aria2 gives a file its name and its size at the beginning, and leaves a file beside it
/// until the end; others give the name at the end.
pub(super) fn look(model: &Model, folder: Option<&Path>, by_index: bool, missing: &mut Vec<Missing>) -> Result<()> {
    let opened = names_of_files(model);
    let Some(folder) = folder else { return Ok(()) };
    // What the folder has beside one file of the usual name, or beside those of an index, is not of the model.
    let all_files =
        !by_index && !opened.iter().any(|name| files::MAIN.contains(&&name[..])) || !model.groups.is_empty();
    for name in names_in(folder)? {
        let Some((file, ending)) = name.rsplit_once('.') else { continue };
        let begun = match ending {
            "aria2" => opened.contains(file) || all_files,
            ending => DOWNLOADS.contains(&ending) && all_files && !opened.contains(file),
        };
        if begun && file.ends_with(".safetensors") {
            let reason = format!("'{}' is absent or half there: '{}' says so", shorten(file, 60), shorten(&name, 60));
            missing.push(Missing { name: file.to_owned(), reason });
        }
    }
    if all_files {
        of_the_hub(folder, &folder.join(HUB), missing)?;
        // A part of a repository, such as the transformer of a pipeline.
        if let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) {
            of_the_hub(folder, &above.join(HUB).join(name), missing)?;
        }
    }
    Ok(())
}

/// Lists a folder, sorted.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io("list", folder, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Looks for large files that the tools of the Hugging Face Hub have not got whole. They load `HASH.ETAG.incomplete`, once
/// `FILE.ETAG.incomplete`, hold `FILE.lock` meanwhile, and write `FILE.metadata` with the ETag at the end. The ETag of a large file is a
/// SHA-256. `.incomplete` of another version of a file that is there was left by a download that was begun anew, and is nothing.
fn of_the_hub(folder: &Path, cache: &Path, missing: &mut Vec<Missing>) -> Result<()> {
    if !cache.is_dir() {
        return Ok(());
    }
    let names = names_in(cache)?;
    let ends_in = |ending: &'static str| names.iter().filter_map(move |name| name.strip_suffix(ending));
    let mut begun: Vec<(&str, &str)> = ends_in(".incomplete").filter_map(|name| name.rsplit_once('.')).collect();
    begun.retain(|(_, etag)| etag.len() == 64);
    if begun.is_empty() {
        return Ok(());
    }
    let ended: HashSet<&str> = ends_in(".metadata").collect();
    for name in &ended {
        let text = files::read_text(&cache.join(format!("{name}.metadata")))?.unwrap_or_default();
        begun.retain(|(_, etag)| !text.split(|&b| b == b'\n').any(|line| line.trim_ascii() == etag.as_bytes()));
    }
    let is_there = |file: &str| ended.contains(file) || folder.join(file).exists();
    let locked: Vec<&str> = ends_in(".lock").filter(|file| !is_there(file)).collect();
    let named = begun.iter().map(|(file, _)| *file).filter(|file| file.contains('.'));
    let mut weights: BTreeSet<&str> = named.clone().chain(locked.iter().copied()).collect();
    weights.retain(|file| file.ends_with(".safetensors") && !is_there(file));
    for file in &weights {
        let reason = format!("'{}' is absent: its download has not ended, by '{HUB}'", shorten(file, 60));
        missing.push(Missing { name: (*file).to_owned(), reason });
    }
    // Others say which file they are of by a hash alone.
    if weights.is_empty() && locked.is_empty() && begun.len() > named.count() {
        let reason = format!("the download of a large file has not ended: '{HUB}' has a part of it");
        missing.push(Missing { name: HUB.to_owned(), reason });
    }
    Ok(())
}
