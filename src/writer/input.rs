//! What is compressed: which files of a folder hold the model, and which only lie beside it.

use crate::error::{Error, Place, Result, shorten};
use crate::format::Model;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The endings of files that hold weights in other ways: they are left behind, for the model would be there twice.
const WEIGHTS: [&str; 11] =
    ["safetensors", "pt", "pth", "ckpt", "gguf", "ggml", "onnx", "h5", "msgpack", "mlmodel", "tflite"];
/// And how such files begin that end in `.bin`, which other files do too.
const WEIGHTS_BIN: [&str; 4] = ["pytorch_model", "diffusion_pytorch_model", "adapter_model", "model"];
/// The indexes that list shards by their tensors. The first two are looked for, and none is carried over.
const INDEX: &str = ".index.json";
const MAIN: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];

/// A model to be compressed.
pub(crate) struct Input {
    /// Its tensors. All are plain.
    pub model: Model,
    /// The text of its config.json.
    pub config: Option<String>,
    /// Where that is.
    pub config_place: Place,
    /// The same, parsed.
    pub parsed: Option<Value>,
    /// The folder, and the files in it that go with the model as they are: paths from the folder on.
    pub carried: Vec<PathBuf>,
    /// Files of the folder that do not.
    pub left_behind: Vec<PathBuf>,
    /// The folder itself; `None` for a single file.
    pub folder: Option<PathBuf>,
}

impl Input {
    /// Opens a folder or a single `.safetensors` file.
    pub fn open(path: &Path) -> Result<Input> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        if !meta.is_dir() {
            let model = Model::open_files(&[path.to_owned()])?;
            plain_only(&model, path)?;
            // What lies beside a file may be its config. It helps to choose a preset, and is not carried over.
            let beside = std::fs::read_to_string(path.with_file_name("config.json")).ok();
            let parsed = beside.and_then(|text| serde_json::from_str(&text).ok());
            let (carried, left_behind) = (Vec::new(), Vec::new());
            let config_place = Place::default();
            return Ok(Input { model, config: None, config_place, parsed, carried, left_behind, folder: None });
        }
        let (files, mut carried, mut left_behind) = (weight_files(path)?, Vec::new(), Vec::new());
        list(path, Path::new(""), &mut carried, &mut left_behind)?;
        left_behind.retain(|file| !files.contains(&path.join(file)));
        let config_path = path.join("config.json");
        let config = match std::fs::read_to_string(&config_path) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io("read", &config_path, e)),
        };
        let config_place = Place::file(config_path.display().to_string());
        let parse = |text: &String| {
            serde_json::from_str::<Value>(text)
                .map_err(|e| Error::invalid(config_place.clone(), format!("the config is not valid JSON: {e}")))
        };
        let parsed = config.as_ref().map(parse).transpose()?;
        let model = Model::open_files(&files)?;
        plain_only(&model, path)?;
        check_index(path, &model)?;
        Ok(Input { model, config, config_place, parsed, carried, left_behind, folder: Some(path.to_owned()) })
    }

    /// The file that the tensors of no group's module go to.
    pub fn remainder(&self) -> &'static str {
        let diffusers = self.parsed.as_ref().is_some_and(|c| c.get("_class_name").is_some());
        let named = || {
            self.model
                .files()
                .any(|f| f.file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("diffusion_pytorch_model")))
        };
        if diffusers || named() { MAIN[1] } else { MAIN[0] }
    }
}

fn plain_only(model: &Model, path: &Path) -> Result<()> {
    if model.tensors().is_empty() {
        return Err(Error::InvalidArgument(format!("'{}' has no tensors", shorten(&path.display().to_string(), 200))));
    }
    match model.groups().first() {
        None => Ok(()),
        Some(group) => Err(Error::InvalidArgument(format!(
            "'{}' is compressed already: it has the group '{}'",
            shorten(&path.display().to_string(), 200),
            shorten(group.name(), 80)
        ))),
    }
}

/// The safetensors files that hold the model: those of the index, else the one of the usual name, else all.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    for main in MAIN {
        let index = folder.join(format!("{main}{INDEX}"));
        if let Some(map) = read_index(&index)? {
            let mut files: Vec<&str> = map.iter().map(|(_, file)| &file[..]).collect();
            files.sort_unstable();
            files.dedup();
            let place = || Place::file(index.display().to_string());
            let path = |file: &str| {
                let plain = Path::new(file).components().all(|c| matches!(c, std::path::Component::Normal(_)));
                if !plain {
                    let reason = format!("lists the file '{}', which is not one of this folder", shorten(file, 80));
                    return Err(Error::invalid(place(), reason));
                }
                let path = folder.join(file);
                if !path.is_file() {
                    let reason = format!("lists the file '{}', which is not there", shorten(file, 80));
                    return Err(Error::invalid(place(), reason));
                }
                Ok(path)
            };
            return files.into_iter().map(path).collect();
        }
    }
    let all = crate::format::safetensors_of(folder);
    for main in MAIN {
        let file = folder.join(main);
        if file.is_file() {
            return Ok(vec![file]);
        }
    }
    if all.is_err() && folder.join("model_index.json").is_file() {
        return Err(Error::InvalidArgument(format!(
            "'{}' is a whole diffusers pipeline: compress its transformer (or unet) folder",
            shorten(&folder.display().to_string(), 200)
        )));
    }
    all
}

/// Tensors and their files by an index; `None` where there is none.
fn read_index(index: &Path) -> Result<Option<Vec<(String, String)>>> {
    let text = match std::fs::read_to_string(index) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", index, e)),
    };
    let invalid = |reason: String| Error::invalid(Place::file(index.display().to_string()), reason);
    let json: Value = serde_json::from_str(&text).map_err(|e| invalid(format!("the index is not valid JSON: {e}")))?;
    let map = json.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| invalid("the index has no weight_map".into()))?;
    let entry = |(name, file): (&String, &Value)| Some((name.clone(), file.as_str()?.to_owned()));
    let all: Option<Vec<_>> = map.iter().map(entry).collect();
    all.map(Some).ok_or_else(|| invalid("the index's weight_map names something that is no file".into()))
}

/// A tensor that the index lists must be there: a download may have stopped half-way.
fn check_index(folder: &Path, model: &Model) -> Result<()> {
    for main in MAIN {
        let index = folder.join(format!("{main}{INDEX}"));
        for (name, file) in read_index(&index)?.into_iter().flatten() {
            if model.find_tensor(&name).is_none() {
                let place = Place::file(index.display().to_string()).tensor(name);
                let reason = format!("the index lists a tensor that '{}' does not have", shorten(&file, 80));
                return Err(Error::invalid(place, reason));
            }
        }
    }
    Ok(())
}

/// All files under a folder, whether they go with the model or not. Hidden ones do not, nor do links to folders.
fn list(root: &Path, below: &Path, carried: &mut Vec<PathBuf>, left: &mut Vec<PathBuf>) -> Result<()> {
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
        let kind = entry.file_type().map_err(fail)?;
        let is_weights = match Path::new(&name).extension() {
            Some(e) if e == "bin" => WEIGHTS_BIN.iter().any(|start| name.starts_with(start)),
            Some(e) => WEIGHTS.iter().any(|w| e.eq_ignore_ascii_case(w)),
            None => false,
        };
        if kind.is_dir() {
            list(root, &path, carried, left)?;
        } else if is_weights || name.ends_with(INDEX) {
            left.push(path);
        } else if root.join(&path).is_file() {
            carried.push(path);
        }
    }
    Ok(())
}
