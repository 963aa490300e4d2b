//! Models that the tests of the tool make for themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::support::encoder::{self, Tensor};
use super::support::files::{self, Stored};
use super::support::weights;

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
    let pairs = shapes.map(|s| vec![(df11::internals::format::SHAPES_KEY.to_owned(), s.to_owned())]);
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

/// The tensors of a made-up model that is built as Qwen3 is: so many layers of 7 matrices of so many weights each, an
/// embedding and a head of twice as many, and norms.
pub fn qwen3(layers: usize, matrix: usize) -> Vec<Stored> {
    // Weights are made once and used again and again, each time from another place on.
    assert!(matrix.is_multiple_of(64), "rows have 64 weights");
    let pool = weights::trained_like(2 * matrix + 9973, 11);
    let mut at = 0;
    let mut tensor = |name: String, count: usize| {
        at = (at + 617) % (pool.len() - count);
        let data = bytemuck::cast_slice(&pool[at..at + count]).to_vec();
        // What writes the residual stream is [width, inner], as it is in true models.
        let writes = name.contains("o_proj") || name.contains("down_proj");
        let shape = if writes { [64, count / 64] } else { [count / 64, 64] };
        Stored::new(&name, Dtype::BF16, if count == 64 { &[64] } else { &shape }, data)
    };
    let ends = ["model.embed_tokens", "lm_head"].map(|name| tensor(format!("{name}.weight"), 2 * matrix));
    let mut all = Vec::from(ends);
    all.push(tensor("model.norm.weight".into(), 64));
    for layer in 0..layers {
        for name in ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"] {
            all.push(tensor(format!("model.layers.{layer}.{name}_proj.weight"), matrix));
        }
        all.push(tensor(format!("model.layers.{layer}.input_layernorm.weight"), 64));
    }
    all
}

/// Writes tensors as a Hugging Face folder has them: in so many shards with an index, and a config.json of Qwen3's.
pub fn write_source(folder: &Path, tensors: &[Stored], shards: usize) {
    std::fs::create_dir_all(folder).unwrap();
    let mut map = serde_json::Map::new();
    for (number, shard) in (1..).zip(tensors.chunks(tensors.len().div_ceil(shards))) {
        let name = format!("model-{number:05}-of-{shards:05}.safetensors");
        std::fs::write(folder.join(&name), files::file(shard)).unwrap();
        map.extend(shard.iter().map(|t| (t.name.clone(), name.clone().into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = r#"{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "tie_word_embeddings": false}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
}

/// Every file under a folder, hidden ones too, by its path from there on.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(tree(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

/// The same files with the same bytes; says which differ, not their bytes.
#[track_caller]
pub fn same(ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, bytes) in ours {
        assert!(*bytes == theirs[name], "{} differs", name.display());
    }
}
