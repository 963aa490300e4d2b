//! The sizes in a config.json, by the part of the model that they describe.
//!
//! A config is nested: `text_config`, `vision_config` and so on are parts with widths of their own. Sizes of one part say
//! nothing of another, so each object is kept apart. Only known keys are kept, so memory does not depend on the text.

use super::super::json;
use super::Size;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Objects that are kept, and numbers of a list: no config has so many.
const MOST_PARTS: usize = 64;
const MOST_NUMBERS: usize = 256;

/// Keys of the width of the residual stream.
const WIDTHS: &[&str] = &["hidden_size", "d_model", "n_embd", "dim", "embed_dim", "model_dim"];
const HEADS: &[&str] =
    &["num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"];
const KEY_HEADS: &[&str] = &[
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
    "n_head_kv",
    "multi_query_group_num",
    "num_global_key_value_heads",
    "swa_num_key_value_heads",
];
const HEAD_DIMS: &[&str] =
    &["head_dim", "attention_head_dim", "d_kv", "kv_channels", "qk_head_dim", "global_head_dim", "swa_head_dim"];
const INNER_WIDTHS: &[&str] = &[
    "intermediate_size",
    "ffn_hidden_size",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "d_ff",
    "n_inner",
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "intermediate_size_mlp",
];
const EXPERTS: &[&str] =
    &["num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts"];
const VOCABULARIES: &[&str] = &["vocab_size", "padded_vocab_size"];
const OTHERS: &[&str] = &[
    "n_shared_experts",
    "num_shared_experts",
    "moe_latent_size",
    "v_head_dim",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
];
/// Keys by which an embedding may be narrower than the residual stream.
const NARROW: &[&str] = &["embedding_size", "word_embed_proj_dim", "embedding_hidden_size"];

/// The parts of a config.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

/// One object of a config: the numbers under known keys.
#[derive(Default)]
pub(super) struct Part(Vec<(&'static str, u64)>);

impl Parts {
    /// Reads a config.json; no parts if it is none.
    pub fn read(text: &str) -> Parts {
        match json::parse(&json::of_python(text.as_bytes())) {
            Ok(Node::Object(parts)) => Parts(parts),
            _ => Parts::default(),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }

    /// Tells whether any part has a width.
    pub fn has_width(&self) -> bool {
        self.0.iter().any(|part| part.widths().next().is_some())
    }

    /// Returns the widths of all parts.
    pub fn widths(&self) -> Vec<Size> {
        let mut all: Vec<Size> = self.0.iter().flat_map(Part::widths).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Returns the parts of this width.
    pub fn of_width(&self, h: u64) -> impl Iterator<Item = &Part> + Clone {
        self.0.iter().filter(move |part| part.widths().any(|width| width == Size::from(h)))
    }

    /// Tells whether a part has this key.
    pub fn any(&self, key: &str) -> bool {
        self.0.iter().any(|part| part.all(key).next().is_some())
    }

    /// Tells whether embeddings may be narrower than the residual stream.
    pub fn narrow_embeddings(&self) -> bool {
        NARROW.iter().any(|key| self.any(key))
    }
}

impl Part {
    /// Returns the numbers of a key: one, or those of a list. Zeros are left out.
    pub fn all<'p>(&'p self, key: &str) -> impl Iterator<Item = Size> + Clone + use<'p> {
        let known = known(key);
        self.0.iter().filter(move |(k, v)| Some(*k) == known && *v > 0).map(|&(_, v)| v.into())
    }

    fn of<'p>(&'p self, keys: &'static [&'static str]) -> impl Iterator<Item = Size> + Clone + use<'p> {
        self.0.iter().filter(move |(key, value)| keys.contains(key) && *value > 0).map(|&(_, value)| value.into())
    }

    /// Returns the widths of the residual stream; diffusers has heads × head dimension instead.
    pub fn widths(&self) -> impl Iterator<Item = Size> + Clone {
        let said = self.of(WIDTHS);
        let of_heads = self.heads().zip(self.all("attention_head_dim")).map(|(heads, dim)| heads * dim);
        let no = said.clone().next().is_none();
        said.chain(of_heads.filter(move |_| no))
    }

    pub fn heads(&self) -> impl Iterator<Item = Size> + Clone {
        self.of(HEADS)
    }

    /// Returns the numbers of key-value heads.
    pub fn key_heads(&self) -> impl Iterator<Item = Size> + Clone {
        let said = self.of(KEY_HEADS);
        let no = said.clone().next().is_none();
        said.chain(self.heads().filter(move |_| no))
    }

    /// Returns the head dimensions that are said.
    pub fn head_dims(&self) -> Vec<Size> {
        let ropes = self.all("qk_rope_head_dim");
        let latent = self.all("qk_nope_head_dim").flat_map(|nope| ropes.clone().map(move |rope| nope + rope));
        self.of(HEAD_DIMS).chain(latent).collect()
    }

    /// Returns the inner widths of MLPs and experts.
    pub fn inner_widths(&self) -> impl Iterator<Item = Size> {
        let shared = self.of(&["n_shared_experts", "num_shared_experts"]);
        let of_shared = self.all("moe_intermediate_size").flat_map(move |i| shared.clone().map(move |n| i * n));
        self.of(INNER_WIDTHS).chain(of_shared)
    }

    pub fn experts(&self) -> impl Iterator<Item = Size> {
        self.of(EXPERTS)
    }

    pub fn vocabularies(&self) -> impl Iterator<Item = Size> {
        self.of(VOCABULARIES)
    }
}

/// Returns a known key as it is kept.
fn known(key: &str) -> Option<&'static str> {
    [WIDTHS, HEADS, KEY_HEADS, HEAD_DIMS, INNER_WIDTHS, EXPERTS, VOCABULARIES, OTHERS, NARROW]
        .iter()
        .flat_map(|keys| keys.iter())
        .find(|&&k| k == key)
        .copied()
}

/// A value of a config, as far as it has sizes.
enum Node {
    Numbers(Vec<u64>),
    /// The object's own numbers, then those of the objects in it.
    Object(Vec<Part>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Numbers(vec![value]))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut numbers = Vec::new();
        while let Some(node) = list.next_element()? {
            match node {
                Node::Numbers(more) if numbers.len() < MOST_NUMBERS => numbers.extend(more),
                _ => {}
            }
        }
        numbers.truncate(MOST_NUMBERS);
        Ok(Node::Numbers(numbers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut parts = vec![Part::default()];
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            // Patterns are no sizes, and there may be many of them.
            if key == "dfloat11_config" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match map.next_value()? {
                Node::Numbers(numbers) => {
                    if let Some(key) = known(&key) {
                        parts[0].0.extend(numbers.into_iter().map(|n| (key, n)));
                        parts[0].0.truncate(MOST_NUMBERS);
                    }
                }
                Node::Object(more) => {
                    parts.extend(more);
                    parts.truncate(MOST_PARTS);
                }
                Node::Other => {}
            }
        }
        Ok(Node::Object(parts))
    }
}
