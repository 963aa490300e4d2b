//! Which files are a model: those of a folder, its config.json, and its index if the model is not compressed.
//!
//! The reference opens every file of a folder with a compressed model, and so does this library. Folders with an uncompressed
//! model often hold the same weights twice, in shards with an index and once more in one file of another name, so of those only
//! the files that the index lists are opened.

use super::config::MOST_CONFIG_BYTES;
use super::json::Fault;
use super::model::OpenOptions;
use super::source::{MOST_HEADER_BYTES, open_regular};
use super::{foreign, json};
use crate::error::{Error, Place, Result, shorten, shorten_path};
use crate::progress::Progress;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

/// A file that is in a folder until this library has finished writing a model to it. Such a folder is refused.
pub(crate) const UNFINISHED: &str = ".df11-job.json";
/// The end of an index's name, after that of the file that is in shards.
pub(crate) const INDEX: &str = ".index.json";
/// The name of the file that holds all weights, or that is in shards: by transformers, and by diffusers.
pub(crate) const MAIN: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];

/// The files of a model at `path`, and the path at which its config.json would be.
pub(super) struct Found {
    pub files: Vec<PathBuf>,
    pub config: PathBuf,
    pub is_folder: bool,
}

/// Finds the files of a model: all `*.safetensors` of a folder, or the one file.
pub(super) fn find(path: &Path) -> Result<Found> {
    let is_folder = std::fs::metadata(path).map_err(|e| Error::opening(path, e))?.is_dir();
    if !is_folder {
        // NAME.config.json comes first, because a config.json may be another file's.
        let own = path.with_extension("config.json");
        let config = if own.is_file() { own } else { path.with_file_name("config.json") };
        return Ok(Found { files: vec![path.to_owned()], config, is_folder });
    }
    if path.join(UNFINISHED).exists() {
        let reason = "the folder is unfinished: run the command that writes it once more, or merge its parts";
        return Err(Error::invalid(Place::of(path), reason));
    }
    Ok(Found { files: safetensors_of(path)?, config: path.join("config.json"), is_folder })
}

/// Returns the text of the config that a model is opened with; `None` if there is none. What is next to a single file may be another
/// model's, unless it says that it is of a compressed one.
pub(crate) fn config_text(path: &Path, options: &OpenOptions) -> Result<Option<String>> {
    if let Some(text) = &options.config {
        return Ok(Some(text.clone()));
    }
    let found = find(path)?;
    let Some(text) = read_config(&found.config)? else { return Ok(None) };
    let text =
        String::from_utf8(text).map_err(|_| Error::invalid(Place::of(&found.config), "the config is not UTF-8"))?;
    let ours = || {
        let found =
            json::fields(&json::of_python(text.as_bytes()), ["dfloat11_config"]).map(|[config]| config.is_some());
        found == Ok(true)
    };
    Ok(if found.is_folder || ours() { Some(text) } else { None })
}

/// Lists the safetensors files of a folder, by name. Names that begin with a dot are left out, as Python's `glob` does.
pub(crate) fn safetensors_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e| Error::io("list", folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::not_a_model(Place::of(folder), foreign::instead_of_safetensors(folder)));
    }
    files.sort();
    Ok(files)
}

/// An index: which tensors are in which files.
pub(crate) struct Index {
    pub path: PathBuf,
    /// The file of each tensor, by its name in the folder.
    pub map: BTreeMap<String, String>,
}

impl Index {
    /// Returns the name of the index itself.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the names of the files that it lists.
    pub fn files(&self) -> BTreeSet<&str> {
        self.map.values().map(|file| &file[..]).collect()
    }

    fn has_any_file(&self, folder: &Path) -> bool {
        self.files().into_iter().any(|file| folder.join(file).is_file())
    }

    /// Fails if a model lacks a tensor that is listed.
    pub fn check(&self, folder: &Path, has: impl Fn(&str) -> bool) -> Result<()> {
        let Some((name, file)) = self.map.iter().find(|(name, _)| !has(name)) else { return Ok(()) };
        let (place, shown) = (Place::of(&self.path), shorten(file, 80));
        if folder.join(file).is_file() {
            let reason = format!("the index lists a tensor that '{shown}' does not have");
            return Err(Error::invalid(place.tensor(name), reason));
        }
        Err(Error::invalid(place, format!("the index lists '{shown}', which is not in the folder")))
    }
}

/// The safetensors files that hold an uncompressed model, and the index that lists them, if they were found by one.
pub(crate) struct Listed {
    pub files: Vec<PathBuf>,
    pub index: Option<Index>,
}

/// Lists the safetensors files that hold an uncompressed model: those of the index that are there, else the one of the usual name,
/// else all.
///
/// # Errors
///
/// `InvalidFormat` if the index lists files elsewhere, or none that is there.
pub(crate) fn listed(folder: &Path, progress: &Progress) -> Result<Listed> {
    if let Some(index) = chosen_index(folder, progress)? {
        let mut files = Vec::new();
        for file in index.files() {
            let plain = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
            if !plain {
                let reason =
                    format!("the index lists '{}', which is not one of this folder's files", shorten(file, 80));
                return Err(Error::invalid(Place::of(&index.path), reason));
            }
            files.extend(Some(folder.join(file)).filter(|path| path.is_file()));
        }
        if files.is_empty() {
            index.check(folder, |_| false)?;
        }
        return Ok(Listed { files, index: Some(index) });
    }
    let all = safetensors_of(folder);
    for main in MAIN {
        let file = folder.join(main);
        if file.is_file() {
            return Ok(Listed { files: vec![file], index: None });
        }
    }
    if all.is_err() && folder.join("model_index.json").is_file() {
        return Err(Error::InvalidArgument(format!(
            "'{}' is a whole diffusers pipeline: compress its transformer (or unet) folder",
            shorten_path(folder)
        )));
    }
    Ok(Listed { files: all?, index: None })
}

/// Returns the index of an uncompressed model's folder: the one of the usual name, if any of its files is there, or if there is no
/// other; else, without a file of the usual name, another one with such files. diffusers' variants have others, such as
/// `diffusion_pytorch_model.safetensors.index.bf16.json`.
pub(crate) fn chosen_index(folder: &Path, progress: &Progress) -> Result<Option<Index>> {
    let is_usual = |index: &Index| MAIN.iter().any(|main| index.name().strip_suffix(INDEX) == Some(main));
    let (mut usual, mut others): (Vec<Index>, Vec<Index>) = indexes(folder, progress)?.into_iter().partition(is_usual);
    let whole = MAIN.iter().any(|main| folder.join(main).is_file());
    if let Some(number) = usual.iter().position(|index| index.has_any_file(folder)) {
        return Ok(Some(usual.swap_remove(number)));
    }
    match others.iter().position(|index| index.has_any_file(folder)) {
        Some(number) if !whole => Ok(Some(others.swap_remove(number))),
        _ => Ok(usual.into_iter().next()),
    }
}

/// Tells whether a file's name is that of an index of safetensors files: `NAME.safetensors.index.json`, or
/// `NAME.safetensors.index.VARIANT.json`.
pub(crate) fn is_index(name: &str) -> bool {
    name.ends_with(".json") && name.contains(".safetensors.index.")
}

/// Reads the indexes in a folder, those of the usual names first.
pub(super) fn indexes(folder: &Path, progress: &Progress) -> Result<Vec<Index>> {
    let fail = |e| Error::io("list", folder, e);
    let usual = MAIN.map(|main| format!("{main}{INDEX}"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        if is_index(&name) && !name.starts_with('.') {
            names.push((usual.iter().position(|usual| *usual == name).unwrap_or(usual.len()), name));
        }
    }
    names.sort();
    let mut found = Vec::new();
    for (rank, name) in names {
        match read_index(&folder.join(&name), progress) {
            Ok(index) => found.extend(index),
            // Nobody may ever have looked into that of a variant.
            Err(error @ Error::InvalidFormat { .. }) if rank == usual.len() => {
                log::warn!("an index is ignored: {error}")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Reads an index. Returns `None` if there is no such file.
fn read_index(path: &Path, progress: &Progress) -> Result<Option<Index>> {
    refuse_broken_link(path)?;
    let Some(stored) = read_text(path)? else { return Ok(None) };
    let invalid = |reason: String| Error::invalid(Place::of(path), reason);
    let not_json = |e| invalid(foreign::not_json("the index", &stored, e));
    let text = json::of_python(&stored);
    let [map] = json::fields(&text, ["weight_map"]).map_err(not_json)?;
    let map = map.filter(|map| map.starts_with('{')).ok_or_else(|| invalid("the index has no weight_map".into()))?;
    json::check_names(json::stored(&stored, &text, map))
        .map_err(|e| invalid(format!("the index is not valid: {e}")))?;
    let mut files = BTreeMap::new();
    json::each(map.as_bytes(), |name, file| {
        progress.check().map_err(Fault::Is)?;
        let file = json::parse(file.get().as_bytes());
        let file = file.map_err(|_| Fault::Json("its weight_map names something that is no file".into()))?;
        files.insert(name.into_owned(), file);
        Ok(())
    })
    .map_err(|fault: Fault| fault.or(|reason| invalid(format!("the index is not valid: {reason}"))))?;
    match files.is_empty() {
        true => Err(invalid("the index has no weight_map".into())),
        false => Ok(Some(Index { path: path.to_owned(), map: files })),
    }
}

/// Reads a config.json. Returns `None` if there is no such file.
pub(crate) fn read_config(path: &Path) -> Result<Option<Vec<u8>>> {
    refuse_broken_link(path)?;
    read_at_most(path, MOST_CONFIG_BYTES, "4 MB, which no config.json has")
}

/// Fails if a link is there that leads nowhere: the file was there once.
fn refuse_broken_link(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound && path.is_symlink() => Err(Error::opening(path, e)),
        _ => Ok(()),
    }
}

/// Reads an index, or a file of notes. Returns `None` if there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<Vec<u8>>> {
    read_at_most(path, MOST_HEADER_BYTES, "100 MB")
}

fn read_at_most(path: &Path, most: u64, words: &str) -> Result<Option<Vec<u8>>> {
    if !path.try_exists().map_err(|e| Error::io("open", path, e))? {
        return Ok(None);
    }
    let file = open_regular(path)?;
    let bytes = file.metadata().map_err(|e| Error::io("read", path, e))?.len().min(most);
    let mut text = Vec::new();
    // Without this it would be doubled again and again, up to twice its size. If there is no room, reading says so.
    let _ = text.try_reserve_exact(bytes as usize + 1);
    file.take(most + 1).read_to_end(&mut text).map_err(|e| Error::io("read", path, e))?;
    if text.len() as u64 > most {
        return Err(Error::invalid(Place::of(path), format!("the file is larger than {words}")));
    }
    Ok(Some(text))
}
