//! Which tensor goes to which file of a decompressed model, and the index that says so: as transformers and diffusers write them.

use crate::error::{Error, Result};
use crate::format::{INDEX, Tensor};
use crate::writer::plan::config::pretty;
use serde_json::json;
use std::collections::BTreeMap;

/// The files of a model.
pub(super) struct Shards<'m> {
    /// Their names, and the tensors of each.
    pub files: Vec<(String, Vec<Tensor<'m>>)>,
    /// Name and text of the index; `None` if there is one file alone.
    pub index: Option<(String, String)>,
}

/// Distributes tensors over files of at most `most` bytes of tensors, in their order. A tensor that is larger has a file of its own.
/// `main` is the name of a file that has them all.
///
/// # Errors
///
/// `InvalidArgument` if there would be more than 99,999 files, which is as far as their names count.
pub(super) fn distribute<'m>(tensors: Vec<Tensor<'m>>, most: u64, main: &str) -> Result<Shards<'m>> {
    const MOST_FILES: usize = 99_999;
    let (mut files, mut current, mut bytes) = (Vec::new(), Vec::new(), 0u64);
    let mut total = 0u64;
    for tensor in tensors {
        total = total.saturating_add(tensor.bytes());
        bytes = bytes.saturating_add(tensor.bytes());
        if bytes > most && !current.is_empty() {
            files.push(std::mem::take(&mut current));
            bytes = tensor.bytes();
        }
        current.push(tensor);
    }
    files.push(current);
    let count = files.len();
    if count > MOST_FILES {
        let reason = format!("files of at most {most} bytes would be {count}, and {MOST_FILES} are the most");
        return Err(Error::InvalidArgument(reason));
    }
    let stem = main.trim_end_matches(".safetensors");
    let name = |number: usize| match count {
        1 => main.to_owned(),
        _ => format!("{stem}-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let files: Vec<(String, Vec<Tensor>)> = files.into_iter().enumerate().map(|(i, file)| (name(i), file)).collect();
    if count == 1 {
        return Ok(Shards { files, index: None });
    }
    let entries = files.iter().flat_map(|(file, tensors)| tensors.iter().map(move |t| (t.name(), &file[..])));
    let map: BTreeMap<&str, &str> = entries.collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    Ok(Shards { files, index: Some((format!("{main}{INDEX}"), pretty(&index)?)) })
}
