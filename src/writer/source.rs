//! The source: which files of a folder hold the model, and which go with it as they are.

use super::SideFile;
use super::plan::{self, Grouping, SourceTensor, Wanted};
use super::roles::{Role, role};
use crate::error::{Error, Place, Result, shorten, shorten_path};
use crate::format::{self, Found, MAIN, Model, find_missing, listed, not_json, safetensors_of};
use crate::host::{are_equal, hex};
use crate::progress::Progress;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A model to be compressed.
pub(crate) struct Source {
    /// Its tensors. All are plain.
    pub model: Model,
    /// The text of its config.json.
    pub config: Option<String>,
    /// The place of that file, for messages.
    pub config_place: Place,
    /// The same, parsed.
    pub parsed: Option<Value>,
    /// The files of the folder that are copied as they are.
    pub carried: Vec<SideFile>,
    /// The files of the folder that are not copied.
    pub left_behind: Vec<SideFile>,
    /// What it lacks.
    pub found: Found,
    /// The folder itself; `None` for a single file.
    pub folder: Option<PathBuf>,
    /// The folder or the file.
    pub path: PathBuf,
}

/// Returns the text of a config.json that is to be merged; `None` if there is none.
fn read_config(path: &Path) -> Result<Option<String>> {
    /// Published ones have some 10 kB. Nested deeply, a text grows a hundredfold by the reference's indentation.
    const MOST: usize = 1 << 20;
    let Some(text) = format::read_config(path)? else { return Ok(None) };
    let invalid = |reason: &str| Error::invalid(Place::of(path), reason);
    if text.len() > MOST {
        return Err(invalid("the config is larger than 1 MiB"));
    }
    String::from_utf8(text).map(Some).map_err(|_| invalid("the config is not UTF-8"))
}

impl Source {
    /// Opens a folder or a single `.safetensors` file.
    pub fn open(path: &Path, progress: &Progress) -> Result<Source> {
        let meta = std::fs::metadata(path).map_err(|e| Error::opening(path, e))?;
        if meta.is_dir() { Source::open_folder(path, progress) } else { Source::open_file(path, progress) }
    }

    fn open_file(path: &Path, progress: &Progress) -> Result<Source> {
        let model = Model::open_files(&[path.to_owned()], None, progress)?;
        plain_only(&model, path)?;
        // A config in the same folder may be the file's own. It helps to choose a preset, and is not carried over.
        let beside = read_config(&path.with_file_name("config.json")).ok().flatten();
        let parsed = beside.and_then(|text| serde_json::from_slice(&format::of_python(text.as_bytes())).ok());
        let (carried, left_behind) = (Vec::new(), Vec::new());
        let found = find_missing(&model, None, None, parsed.as_ref(), None, progress)?;
        let config_place = Place::default();
        let path = path.to_owned();
        Ok(Source { model, config: None, config_place, parsed, carried, left_behind, found, folder: None, path })
    }

    fn open_folder(path: &Path, progress: &Progress) -> Result<Source> {
        let listed = listed(path, progress)?;
        let config_path = path.join("config.json");
        let config = read_config(&config_path)?;
        let config_place = Place::of(&config_path);
        let parse = |text: &String| {
            serde_json::from_slice::<Value>(&format::of_python(text.as_bytes()))
                .map_err(|e| Error::invalid(config_place.clone(), not_json("the config", text.as_bytes(), e)))
        };
        let parsed = config.as_ref().map(parse).transpose()?;
        if parsed.as_ref().is_some_and(|config| config.get("dfloat11_config").is_some()) {
            // Its groups may be in other files than the one that would be taken for the whole model.
            for file in safetensors_of(path)? {
                match Model::open_files(&[file], None, progress) {
                    Ok(model) => no_groups(&model, path)?,
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(_) => {}
                }
            }
        }
        let model = Model::open_listed(path, &listed.files, progress)?;
        plain_only(&model, path)?;
        no_groups_beside(&model, path, progress)?;
        let found = find_missing(&model, Some(path), listed.index.as_ref(), parsed.as_ref(), None, progress)?;
        let (carried, left_behind) = companions(&model, path)?;
        let (folder, path) = (Some(path.to_owned()), path.to_owned());
        Ok(Source { model, config, config_place, parsed, carried, left_behind, found, folder, path })
    }

    /// Returns the names of files beside the model's that are a bf16 variant of it by their names, as diffusers and transformers
    /// have them.
    pub fn bf16_variants(&self) -> Vec<String> {
        let is_variant = |name: &str| name.contains(".bf16.") || name.contains(".bf16-");
        let left = self.left_behind.iter().filter_map(|file| file.path.to_str().map(str::to_owned));
        left.filter(|name| name.ends_with(".safetensors") && !name.contains('/') && is_variant(name)).collect()
    }

    /// Returns the groups of the source, as [`plan::grouping`] does. A head that is stored and said to be tied is compared with the
    /// embedding: if they differ, the model is not tied, whatever config.json says.
    pub fn grouping(&self, table: &[SourceTensor<'_>], wanted: Wanted<'_>, progress: &Progress) -> Result<Grouping> {
        let config = self.parsed.as_ref();
        let mut tied = plan::is_tied(config, table);
        if let Some(pair) = plan::tied_pair(config, table) {
            let (head, embedding) = (self.model.tensor_at(pair.tensor), self.model.tensor_at(pair.embedding));
            tied = are_equal(head, embedding, 1, progress)?;
            if !tied {
                let (head, embedding) = (shorten(head.name(), 80), shorten(embedding.name(), 80));
                log::warn!("'{head}' is said to be tied, and differs from '{embedding}': it is stored");
            }
        }
        plan::grouping_if(tied, config, table, wanted, progress)
    }

    /// Returns the name of a model's only file, to which the tensors of no group's module go.
    pub fn main_file(&self) -> &'static str {
        main_file(&self.model, self.parsed.as_ref())
    }

    /// Returns what identifies the source: names and sizes of its files, and a hash of their headers and of samples of their bytes. A
    /// run is resumed only if all are as they were. That finds out early what is another model; a run that resumes
    /// compares the groups of an earlier one with the source anyway, and a merge does not. (Times would differ between machines that have a copy each.)
    pub fn identity(&self, progress: &Progress) -> Result<Value> {
        const SAMPLES: u64 = 64;
        const SAMPLE_BYTES: u64 = 4096;
        let mut files = Vec::new();
        for source in self.model.sources() {
            progress.check()?;
            let mut size = [0; 8];
            source.read_at(0, &mut size)?;
            let mut buffer = Vec::new();
            let start = 8 + u64::from_le_bytes(size);
            let mut hash = Sha256::new_with_prefix(source.read_into(0, start, &mut buffer)?);
            for i in 0..SAMPLES {
                let rest = source.len() - start;
                let at = start + (rest as u128 * i as u128 / SAMPLES as u128) as u64;
                hash.update(source.read_into(at, SAMPLE_BYTES.min(source.len() - at), &mut buffer)?);
            }
            let hash = hex(&hash.finalize());
            let name = source.path().file_name().map(|n| n.to_string_lossy().into_owned());
            files.push(json!([name, source.len(), hash]));
        }
        Ok(files.into())
    }
}

/// Returns the name of a model's only file: diffusers' if it is one of theirs, by its config or the names of its files.
pub(super) fn main_file(model: &Model, config: Option<&Value>) -> &'static str {
    let diffusers = config.is_some_and(|config| config.get("_class_name").is_some());
    let named = || {
        let mut names = model.files().filter_map(|f| f.file.file_name());
        names.any(|name| name.to_string_lossy().starts_with("diffusion_pytorch_model"))
    };
    if diffusers || named() { MAIN[1] } else { MAIN[0] }
}

/// Lists the files of a model's folder, by their paths below it: those that go with the model, and those that do not.
fn companions(model: &Model, folder: &Path) -> Result<(Vec<SideFile>, Vec<SideFile>)> {
    let (mut carried, mut left_behind) = (Vec::new(), Vec::new());
    list(folder, Path::new(""), false, &mut carried, &mut left_behind)?;
    let own: HashSet<&Path> = model.files().map(|file| file.file).collect();
    left_behind.retain(|file| !own.contains(&*folder.join(&file.path)));
    Ok((carried, left_behind))
}

/// Returns the paths of what [`companions`] returns.
pub(super) fn companion_paths(model: &Model, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let paths = |files: Vec<SideFile>| files.into_iter().map(|file| file.path).collect();
    companions(model, folder).map(|(carried, left_behind)| (paths(carried), paths(left_behind)))
}

fn plain_only(model: &Model, path: &Path) -> Result<()> {
    if model.tensors().len() == 0 {
        return Err(Error::InvalidArgument(format!("'{}' has no tensors", shorten_path(path))));
    }
    no_groups(model, path)
}

fn no_groups(model: &Model, path: &Path) -> Result<()> {
    match model.group(0) {
        None => Ok(()),
        Some(group) => Err(Error::InvalidArgument(format!(
            "'{}' is compressed already: it has the group '{}'",
            shorten_path(path),
            shorten(group.name(), 80)
        ))),
    }
}

/// Fails if another file of the folder has a group of which the model has no tensor: without a config, the file with the rest of a
/// compressed model looks like a whole model. A compressed copy beside a model has groups whose tensors the model has.
fn no_groups_beside(model: &Model, path: &Path, progress: &Progress) -> Result<()> {
    let own: HashSet<&Path> = model.files().map(|file| file.file).collect();
    let mut names: Vec<&str> = Vec::new();
    for file in safetensors_of(path)?.into_iter().filter(|file| !own.contains(&**file)) {
        let other = match Model::open_files(&[file], None, progress) {
            Ok(other) => other,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // It is not the model's, and what is wrong with it harms nobody.
            Err(_) => continue,
        };
        let Some(group) = other.group(0) else { continue };
        if names.is_empty() {
            names.extend(model.tensors().map(|tensor| tensor.name()));
            names.sort_unstable();
        }
        let inside = format!("{}.", group.name());
        let first = names.partition_point(|name| *name < &inside[..]);
        if !names.get(first).is_some_and(|name| name.starts_with(&inside)) {
            return no_groups(&other, path);
        }
    }
    Ok(())
}

/// Lists all files below a folder: those that are copied, and those that are not, as all are with `left`. Hidden ones are in neither
/// list, nor are links to folders.
fn list(
    root: &Path,
    below: &Path,
    left: bool,
    carried: &mut Vec<SideFile>,
    left_behind: &mut Vec<SideFile>,
) -> Result<()> {
    let folder = root.join(below);
    let fail = |e| Error::io("list", &folder, e);
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).map_err(fail)?.collect::<std::io::Result<Vec<_>>>().map_err(fail)?;
    names.sort_by_key(|entry| entry.file_name());
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = below.join(entry.file_name());
        if name.starts_with('.') || path == Path::new("config.json") {
            continue;
        }
        let role = role(&name);
        let left = left || role == Role::OtherWeights;
        if entry.file_type().map_err(fail)?.is_dir() {
            list(root, &path, left, carried, left_behind)?;
            continue;
        }
        let meta = std::fs::metadata(root.join(&path)).ok();
        let file = |path| SideFile { path, bytes: meta.as_ref().map_or(0, std::fs::Metadata::len) };
        match role {
            // It lists shards that the new model does not have.
            Role::Index => {}
            _ if left => left_behind.push(file(path)),
            Role::Download => {
                let shown = shorten_path(&path);
                log::warn!("'{shown}' in the source's folder is a download that has not ended, and is not copied");
                left_behind.push(file(path));
            }
            _ if meta.as_ref().is_some_and(std::fs::Metadata::is_file) => carried.push(file(path)),
            _ => {}
        }
    }
    Ok(())
}
