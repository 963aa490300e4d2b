//! The models in `tests/data/golden`: what the reference compressor wrote, and the originals that it was given.

use std::collections::HashMap;
use std::path::PathBuf;

/// Names of the folders. Their README says what each shows.
pub const NAMES: [&str; 5] = ["tiny", "block", "sharded", "edge", "edge_patched"];

/// Returns the path of a folder or file under `tests/data/golden`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

/// Returns the path of the DF11 model of that name.
pub fn model(name: &str) -> PathBuf {
    path(name).join("model")
}

/// A tensor before compression.
pub struct Expected {
    /// SHA-256 of its little-endian bytes, in hexadecimal.
    pub sha256: String,
    /// The original shape.
    pub shape: Vec<u64>,
}

/// Reads what is known of every tensor of the original model, by name.
pub fn expected(name: &str) -> HashMap<String, Expected> {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path(name).join("expected.json")).unwrap()).unwrap();
    json["tensors"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, t)| {
            let shape = t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            (name.clone(), Expected { sha256: t["sha256"].as_str().unwrap().into(), shape })
        })
        .collect()
}

/// Reads the bytes of every tensor in every file of the DF11 model, as stored, by name.
pub fn raw(name: &str) -> HashMap<String, Vec<u8>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(model(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = std::fs::read(path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            all.extend(file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())));
        }
    }
    all
}
