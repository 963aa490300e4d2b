//! What the files beside a model are, by their names: some go with it (tokenizers, code, licences), others are weights once more, in
//! other formats, or what a training or a download has left. Those are as large as the model or larger, and are not copied.

use crate::format::{DOWNLOADS, is_index, is_other_weights};
use std::path::Path;

/// Folders with the same model for other programs.
const FOLDERS: [&str; 5] = ["onnx", "openvino", "coreml", "tflite", "gguf"];
/// Words in names of `.bin` files that are no weights: vocabularies.
const TEXTS: [&str; 4] = ["vocab", "token", "merges", "dict"];

/// The role of a file or folder of the source's folder, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An index of safetensors files.
    Index,
    /// Weights, or what belongs to weights in another format. Those of the model are known otherwise.
    OtherWeights,
    /// A download that has not ended.
    Download,
    /// What goes with the model.
    Companion,
}

pub(super) fn role(name: &str) -> Role {
    let lower = name.to_lowercase();
    let ending = Path::new(&lower).extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    let is_text = ending == "bin" && TEXTS.iter().any(|word| lower.contains(word));
    // `model.onnx_data_1` and `model.onnx.data` are parts of `model.onnx`.
    let is_part = lower.contains(".onnx_data") || lower.contains(".onnx.data");
    if is_index(name) {
        Role::Index
    } else if DOWNLOADS.contains(&&ending[..]) {
        Role::Download
    } else if ending == "safetensors"
        || is_other_weights(&ending) && !is_text
        || is_part
        || FOLDERS.contains(&&lower[..])
        || lower.starts_with("openvino_")
        || is_index_of_others(&lower)
    {
        Role::OtherWeights
    } else {
        Role::Companion
    }
}

/// Returns whether a file is an index of weights in another format, such as `pytorch_model.bin.index.json`.
fn is_index_of_others(name: &str) -> bool {
    let Some((stem, tail)) = name.split_once(".index.") else { return false };
    let ending = stem.rsplit_once('.').map_or("", |(_, ending)| ending);
    tail.ends_with("json") && is_other_weights(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_other_kinds_are_left_behind() {
        for name in [
            "optimizer.bin",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state_0.pth",
            "training_args.bin",
            "pytorch_model.bin",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin.index.json",
            "pytorch_model.bin.index.fp16.json",
            "flax_model.msgpack.index.json",
            "model.onnx_data",
            "model.onnx_data_1",
            "model.onnx.data",
            "Model.ONNX",
            "onnx",
            "__0_0.distcp",
            "openvino_model.bin",
            "openvino_model.xml",
            "weight.bin",
            "m.mlpackage",
            "rust_model.ot",
            "saved_model.pb",
            "tf_model.h5",
            "flax_model.msgpack",
            "weights.npz",
            "model.nemo",
            "model.Q4_K_M.gguf",
            "last.ckpt",
            "consolidated.00.pth",
            "consolidated.safetensors",
            "data.pkl",
        ] {
            assert_eq!(role(name), Role::OtherWeights, "{name}");
        }
        for name in ["model.safetensors.incomplete", "a.part", "model-00002-of-00002.safetensors.aria2", "x.crdownload"]
        {
            assert_eq!(role(name), Role::Download, "{name}");
        }
        for name in ["model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.bf16.json"] {
            assert_eq!(role(name), Role::Index, "{name}");
        }
        for name in [
            "tokenizer.json",
            "tokenizer.model",
            "vocab.bin",
            "merges.txt",
            "modeling_x.py",
            "LICENSE",
            "README.md",
            "generation_config.json",
            "chat_template.jinja",
            "special_tokens_map.json",
            "preprocessor_config.json",
            "image.png",
            "zero_to_fp32.py",
            "1_Pooling",
            "book.index.json",
            "onnx.md",
            "spiece.model",
            "tekken.json",
        ] {
            assert_eq!(role(name), Role::Companion, "{name}");
        }
    }
}
