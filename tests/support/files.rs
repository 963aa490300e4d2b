//! Files and folders for tests: safetensors files with any header, and golden models taken apart and put together in another way.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use super::golden;

/// Opens a model, to be read or mapped. A caller that maps does not change the files, or does so to see what happens.
pub fn open(path: impl AsRef<Path>, read: bool) -> df11::Result<df11::Model> {
    let options = df11::OpenOptions::new();
    if read {
        df11::Model::open(path, &options)
    } else {
        // SAFETY: as above.
        unsafe { df11::Model::open_mapped(path, &options) }
    }
}

/// Returns a safetensors file with this header, unchanged, and this payload.
pub fn raw(header: &str, payload: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(payload);
    file
}

/// Returns a config.json of this version and this `pattern_dict` (JSON).
pub fn config(version: &str, patterns: &str) -> String {
    format!(
        r#"{{"dfloat11_config": {{"version": "{version}", "threads_per_block": [512], "bytes_per_thread": 8, "pattern_dict": {patterns}}}}}"#
    )
}

/// A tensor as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl Stored {
    pub fn new(name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Stored {
        Stored { name: name.into(), dtype, shape: shape.to_vec(), data }
    }
}

/// Reads every tensor of every file of a golden model, sorted by name.
pub fn stored(model: &str) -> Vec<Stored> {
    let mut all = Vec::new();
    for path in golden_files(model) {
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        all.extend(file.iter().map(|(name, v)| Stored::new(name, v.dtype(), v.shape(), v.data().to_vec())));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Returns the paths of the `*.safetensors` of a golden model, sorted.
pub fn golden_files(model: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(golden::model(model)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    files
}

/// Returns a file of these tensors, written by the safetensors crate. (`encoder::safetensors` shares no code with that crate.)
pub fn file<'a>(tensors: impl IntoIterator<Item = &'a Stored>) -> Vec<u8> {
    // Types of less than a byte have no whole bytes per element, so shape and data must fit by themselves.
    let views = tensors
        .into_iter()
        .map(|t| (t.name.clone(), TensorView::new(t.dtype, t.shape.clone(), &t.data).expect("shape and bytes fit")));
    safetensors::serialize(views, None).unwrap()
}

/// Reads the config.json of a golden model.
pub fn golden_config(model: &str) -> String {
    std::fs::read_to_string(golden::model(model).join("config.json")).unwrap()
}

/// Copies the files of a folder into another folder, which must exist.
pub fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// The last parts of the names of the six members.
pub const MEMBERS: [&str; 6] =
    ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"];

/// Splits the name of a member into group and member.
pub fn member_of(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, last)| MEMBERS.contains(last))
}

/// Returns the gap of a chunk.
pub fn gap(gaps: &[u8], chunk: usize) -> u8 {
    (0..5).fold(0, |v, i| v << 1 | gaps[(5 * chunk + i) / 8] >> (7 - (5 * chunk + i) % 8) & 1)
}

/// Sets the gap of a chunk.
pub fn set_gap(gaps: &mut [u8], chunk: usize, value: u8) {
    for i in 0..5 {
        let (byte, bit) = ((5 * chunk + i) / 8, 7 - (5 * chunk + i) % 8);
        gaps[byte] = gaps[byte] & !(1 << bit) | (value >> (4 - i) & 1) << bit;
    }
}

/// Returns the positions that the bytes of `output_positions` hold.
pub fn positions(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}
