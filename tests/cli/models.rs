//! Models that the tests of the tool make for themselves.

use std::path::Path;

use safetensors::Dtype;

use super::support::encoder::{self, Tensor};
use super::support::files::{self, Stored};

/// A golden model in one file, with a config beside it, after `change` had its way with the tensors as stored.
pub fn changed(golden: &str, folder: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let mut tensors = files::stored(golden);
    change(&mut tensors);
    std::fs::write(folder.join("model.safetensors"), files::file(&tensors)).unwrap();
    std::fs::write(folder.join("config.json"), files::golden_config(golden)).unwrap();
}

/// Its original, after `change`.
pub fn changed_original(golden: &str, file: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let bytes = std::fs::read(super::support::golden::path(golden).join("original.safetensors")).unwrap();
    let original = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let stored =
        |(name, v): (&str, safetensors::tensor::TensorView)| Stored::new(name, v.dtype(), v.shape(), v.data().to_vec());
    let mut tensors: Vec<Stored> = original.iter().map(stored).collect();
    change(&mut tensors);
    std::fs::write(file, files::file(&tensors)).unwrap();
}

/// The tensor of that name.
pub fn find<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    tensors.iter_mut().find(|t| t.name == name).unwrap()
}

/// A group of two tensors, `a` and `b`, and a plain tensor of 1-byte elements and an odd length. With shapes, the file's
/// metadata has those of both.
pub fn write_small(folder: &Path, weights: &[u16], shapes: Option<&str>) {
    let half = weights.len() as u64 / 2;
    let mut tensors: Vec<Tensor> = encoder::group_tensors("layers.0", &encoder::encode(weights, &[half]));
    tensors.push(("flags".into(), "BOOL", vec![5], vec![1, 0, 1, 1, 0]));
    let pairs = shapes.map(|s| vec![(df11::format::SHAPES_KEY.to_owned(), s.to_owned())]);
    std::fs::write(folder.join("model.safetensors"), encoder::safetensors(&tensors, pairs.as_deref())).unwrap();
    std::fs::write(folder.join("config.json"), files::config("0.5.0", r#"{"layers\\.\\d+": ["a", "b"]}"#)).unwrap();
}

/// A file with one plain tensor of so many zero bytes, which takes no room on a disk that knows holes.
pub fn write_hollow(file: &Path, bytes: u64) {
    let header = format!(r#"{{"hollow":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    std::fs::write(file, files::raw(&header, &[])).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_len(8 + header.len() as u64 + bytes).unwrap();
}

/// A plain bf16 tensor.
pub fn plain(name: &str, weights: &[u16]) -> Stored {
    Stored::new(name, Dtype::BF16, &[weights.len()], bytemuck::cast_slice(weights).to_vec())
}
