//! Which files of a folder hold an uncompressed model. Published folders often have the same weights twice: in shards with an
//! index, and once more in one file of another name. (Of a DF11 model the reference opens every file, and so do we.)

use super::model::{Model, read_text, safetensors_of};
use crate::error::{Error, Place, Result, shorten};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// How an index's name ends, behind that of the file that is in shards.
pub(crate) const INDEX: &str = ".index.json";
/// What the file is called that holds all weights, or that is in shards: by transformers, and by diffusers.
pub(crate) const MAIN: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];

/// The safetensors files that hold the model: those of the index, else the one of the usual name, else all.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    for main in MAIN {
        let index = folder.join(format!("{main}{INDEX}"));
        if let Some(map) = read_index(&index)? {
            let mut files: Vec<&str> = map.iter().map(|(_, file)| &file[..]).collect();
            files.sort_unstable();
            files.dedup();
            let place = || Place::file(index.display().to_string());
            let path = |file: &str| {
                let plain = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
                if !plain {
                    let reason =
                        format!("the index lists '{}', which is not one of this folder's files", shorten(file, 80));
                    return Err(Error::invalid(place(), reason));
                }
                let path = folder.join(file);
                if !path.is_file() {
                    let reason = format!("the index lists '{}', which is not in the folder", shorten(file, 80));
                    return Err(Error::invalid(place(), reason));
                }
                Ok(path)
            };
            return files.into_iter().map(path).collect();
        }
    }
    let all = safetensors_of(folder);
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
    let Some(text) = read_text(index)? else { return Ok(None) };
    let invalid = |reason: String| Error::invalid(Place::file(index.display().to_string()), reason);
    let json: Value =
        serde_json::from_slice(&text).map_err(|e| invalid(format!("the index is not valid JSON: {e}")))?;
    let map = json.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| invalid("the index has no weight_map".into()))?;
    let entry = |(name, file): (&String, &Value)| Some((name.clone(), file.as_str()?.to_owned()));
    let all: Option<Vec<_>> = map.iter().map(entry).collect();
    all.map(Some).ok_or_else(|| invalid("the index's weight_map names something that is no file".into()))
}

/// A tensor that the index lists must be there: a download may have stopped half-way.
pub(crate) fn check(folder: &Path, model: &Model) -> Result<()> {
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
