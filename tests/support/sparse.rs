//! Layouts of large models without their weights: the headers of shards that are holes otherwise, as large as the real ones, and
//! config.json. They take no room on a disk that knows holes.
//!
//! The numbers are those of the models' public config.json files.

#![allow(dead_code)] // each test takes the part that it needs

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// A tensor of a layout.
#[derive(Debug, Clone)]
pub struct Hollow {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
}

impl Hollow {
    pub fn new(name: impl Into<String>, dtype: &'static str, shape: &[u64]) -> Hollow {
        Hollow { name: name.into(), dtype, shape: shape.to_vec() }
    }

    pub fn bf16(name: impl Into<String>, shape: &[u64]) -> Hollow {
        Hollow::new(name, "BF16", shape)
    }

    fn bytes(&self) -> u64 {
        let width = match self.dtype {
            "F32" => 4,
            "BF16" | "F16" => 2,
            _ => 1,
        };
        width * self.shape.iter().product::<u64>()
    }
}

/// The numbers of a model that is built as Llama and its kin are.
#[derive(Debug, Clone, Copy)]
pub struct Dense {
    pub name: &'static str,
    pub model_type: &'static str,
    pub layers: u64,
    pub hidden: u64,
    pub intermediate: u64,
    pub heads: u64,
    pub key_value_heads: u64,
    pub head_dim: u64,
    pub vocabulary: u64,
    /// Biases of queries, keys and values, as Qwen2 has.
    pub biases: bool,
    /// Norms of queries and keys, as Qwen3 has.
    pub norms: bool,
}

const fn dense(
    (name, model_type): (&'static str, &'static str),
    (layers, hidden, intermediate): (u64, u64, u64),
    (heads, key_value_heads, head_dim): (u64, u64, u64),
    vocabulary: u64,
) -> Dense {
    let (biases, norms) = (false, false);
    Dense {
        name,
        model_type,
        layers,
        hidden,
        intermediate,
        heads,
        key_value_heads,
        head_dim,
        vocabulary,
        biases,
        norms,
    }
}

const fn qwen2(model: Dense) -> Dense {
    Dense { biases: true, ..model }
}

const fn qwen3(model: Dense) -> Dense {
    Dense { norms: true, ..model }
}

/// The models of docs/plan.md.
pub const MODELS: [Dense; 8] = [
    dense(("Llama-3.1-8B", "llama"), (32, 4096, 14336), (32, 8, 128), 128_256),
    qwen3(dense(("Qwen3-8B", "qwen3"), (36, 4096, 12288), (32, 8, 128), 151_936)),
    dense(("Mistral-Nemo-12B", "mistral"), (40, 5120, 14336), (32, 8, 128), 131_072),
    qwen2(dense(("Qwen2.5-14B", "qwen2"), (48, 5120, 13824), (40, 8, 128), 152_064)),
    qwen3(dense(("Qwen3-14B", "qwen3"), (40, 5120, 17408), (40, 8, 128), 151_936)),
    qwen2(dense(("Qwen2.5-32B", "qwen2"), (64, 5120, 27648), (40, 8, 128), 152_064)),
    dense(("Llama-3.3-70B", "llama"), (80, 8192, 28672), (64, 8, 128), 128_256),
    dense(("Llama-3.1-405B", "llama"), (126, 16384, 53248), (128, 8, 128), 128_256),
];

impl Dense {
    /// Returns the model of that name.
    pub fn named(name: &str) -> &'static Dense {
        MODELS.iter().find(|model| model.name == name).unwrap()
    }

    /// Returns its tensors.
    pub fn tensors(&self) -> Vec<Hollow> {
        let (hidden, queries, keys) = (self.hidden, self.heads * self.head_dim, self.key_value_heads * self.head_dim);
        let ends = ["model.embed_tokens", "lm_head"];
        let mut all: Vec<Hollow> =
            ends.iter().map(|name| Hollow::bf16(format!("{name}.weight"), &[self.vocabulary, hidden])).collect();
        all.push(Hollow::bf16("model.norm.weight", &[hidden]));
        for layer in 0..self.layers {
            let mut push =
                |name: &str, shape: &[u64]| all.push(Hollow::bf16(format!("model.layers.{layer}.{name}"), shape));
            push("self_attn.q_proj.weight", &[queries, hidden]);
            push("self_attn.k_proj.weight", &[keys, hidden]);
            push("self_attn.v_proj.weight", &[keys, hidden]);
            push("self_attn.o_proj.weight", &[hidden, queries]);
            push("mlp.gate_proj.weight", &[self.intermediate, hidden]);
            push("mlp.up_proj.weight", &[self.intermediate, hidden]);
            push("mlp.down_proj.weight", &[hidden, self.intermediate]);
            push("input_layernorm.weight", &[hidden]);
            push("post_attention_layernorm.weight", &[hidden]);
            if self.biases {
                push("self_attn.q_proj.bias", &[queries]);
                push("self_attn.k_proj.bias", &[keys]);
                push("self_attn.v_proj.bias", &[keys]);
            }
            if self.norms {
                push("self_attn.q_norm.weight", &[self.head_dim]);
                push("self_attn.k_norm.weight", &[self.head_dim]);
            }
        }
        all
    }

    /// Returns its config.json, as far as it matters.
    pub fn config(&self) -> Value {
        json!({
            "model_type": self.model_type,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": false,
        })
    }

    /// Writes the layout to a folder.
    pub fn write(&self, folder: &Path) {
        write(folder, &self.tensors(), &self.config());
    }
}

/// Writes a folder of shards of at most 5 GB where tensors allow, with an index and a config.json.
pub fn write(folder: &Path, tensors: &[Hollow], config: &Value) {
    const SHARD: u64 = 5_000_000_000;
    let mut shards: Vec<Vec<&Hollow>> = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        if bytes > 0 && bytes + tensor.bytes() > SHARD {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.bytes();
        shards.last_mut().unwrap().push(tensor);
    }
    let count = shards.len();
    let mut map = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), name.clone())));
        write_file(&folder.join(name), shard);
    }
    if count > 1 {
        let index = json!({ "metadata": {}, "weight_map": map });
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Writes a file of a header, and a hole in the place of the weights.
fn write_file(path: &Path, tensors: &[&Hollow]) {
    let mut entries = serde_json::Map::new();
    let mut end = 0;
    for tensor in tensors {
        let from = end;
        end += tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [from, end] });
        entries.insert(tensor.name.clone(), entry);
    }
    let header = Value::Object(entries).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}
