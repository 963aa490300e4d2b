//! A made-up model on the disk, with the names of a Qwen3 and weights as trained ones spread.
//!
//! Random weights take longer to make than to compress, so one layer's are made, and every tensor is a stretch of them with
//! its signs and mantissas changed: exponents, which decide what compression does, keep their spread.

use crate::weights;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Weights whose signs and mantissas change in the same way.
const ROW: usize = 4096;

/// Numbers that tell what a model's tensors are.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The hidden size; the feed-forward networks have three times as much, the vocabulary sixteen times.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
}

impl Shape {
    /// A model of about so many bytes: layers get smaller with it, so that there are some sixteen of them.
    pub fn of(bytes: u64) -> Shape {
        let mut hidden = 64;
        // A layer has 24 bytes for each square, embedding and head 64 together.
        let square = |hidden: usize| (hidden * hidden) as u64;
        while (16 * 24 + 64) * square(2 * hidden) <= bytes {
            hidden *= 2;
        }
        let layers = bytes.saturating_sub(64 * square(hidden)).div_ceil(24 * square(hidden));
        Shape { hidden, layers: layers.max(1) as usize }
    }

    /// Names and shapes, in the order of the file.
    fn tensors(self) -> Vec<(String, Vec<usize>)> {
        let (h, wide, vocabulary) = (self.hidden, 3 * self.hidden, 16 * self.hidden);
        let head = (h / 16).min(128);
        let mut all = vec![
            ("lm_head.weight".to_owned(), vec![vocabulary, h]),
            ("model.embed_tokens.weight".to_owned(), vec![vocabulary, h]),
        ];
        for layer in 0..self.layers {
            let of_layer = [
                ("input_layernorm", vec![h]),
                ("mlp.down_proj", vec![h, wide]),
                ("mlp.gate_proj", vec![wide, h]),
                ("mlp.up_proj", vec![wide, h]),
                ("post_attention_layernorm", vec![h]),
                ("self_attn.k_norm", vec![head]),
                ("self_attn.k_proj", vec![h / 2, h]),
                ("self_attn.o_proj", vec![h, h]),
                ("self_attn.q_norm", vec![head]),
                ("self_attn.q_proj", vec![h, h]),
                ("self_attn.v_proj", vec![h / 2, h]),
            ];
            all.extend(of_layer.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
        }
        all.push(("model.norm.weight".to_owned(), vec![h]));
        all
    }

    /// Writes the model to a folder that is there: one file of weights, and config.json. Returns the bytes of the weights.
    pub fn write(self, folder: &Path) -> std::io::Result<u64> {
        let config = json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "tie_word_embeddings": false,
            "torch_dtype": "bfloat16", "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "intermediate_size": 3 * self.hidden, "vocab_size": 16 * self.hidden,
        });
        fs::write(folder.join("config.json"), format!("{config:#}\n"))?;

        let tensors = self.tensors();
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0;
        for (name, shape) in &tensors {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
        }
        let mut header = Value::Object(header).to_string();
        // The weights begin at a multiple of 8 bytes.
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());

        let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join("model.safetensors"))?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let pool = weights::trained_like((12 * self.hidden * self.hidden).next_multiple_of(ROW), 12);
        // Norms are near 1.
        let norms = weights::uniform_exponents(self.hidden, 126..=127, 13);
        let mut random = weights::Random::new(14);
        let mut bytes = Vec::with_capacity(2 * ROW);
        for (_, shape) in &tensors {
            let n = shape.iter().product::<usize>();
            let mut row = random.below((pool.len() / ROW) as u64) as usize;
            for from in (0..n).step_by(ROW) {
                let count = ROW.min(n - from);
                let (source, mask) = match shape.len() {
                    1 => (&norms[from..from + count], 0),
                    _ => (&pool[row * ROW..][..count], random.bits() as u16 & 0x807f),
                };
                bytes.clear();
                bytes.extend(source.iter().flat_map(|w| (w ^ mask).to_le_bytes()));
                file.write_all(&bytes)?;
                row = (row + 1) % (pool.len() / ROW);
            }
        }
        file.into_inner()?.sync_all()?;
        Ok(end as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use df11::{Model, OpenOptions};

    #[test]
    fn sizes_are_about_what_was_asked_for() {
        for bytes in [1_000_000, 30_000_000, 2_000_000_000] {
            let shape = Shape::of(bytes);
            let made: usize = shape.tensors().iter().map(|t| 2 * t.1.iter().product::<usize>()).sum();
            assert!(made.abs_diff(bytes as usize) < bytes as usize / 5, "{made} instead of {bytes}: {shape:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_opened() {
        let folder = std::env::temp_dir().join(format!("df11-bench-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let shape = Shape { hidden: 64, layers: 2 };
        let bytes = shape.write(&folder).unwrap();
        let model = Model::open(&folder, &OpenOptions::default()).unwrap();
        let all: u64 = model.tensors().map(|t| t.bytes()).sum();
        assert_eq!((model.tensors().len(), all), (2 + 2 * 11 + 1, bytes));
        drop(model);
        fs::remove_dir_all(&folder).unwrap();
    }
}
