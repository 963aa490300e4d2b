//! The sizes in a config.json, by the part of the model that they describe.
//!
//! A config is nested: `text_config`, `vision_config` and so on are parts with widths of their own. Sizes of one part say
//! nothing of another, so each object is kept apart. Only known keys are kept, so memory does not depend on the text.

use super::super::json;
use super::Size;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Objects with known keys that are kept, and numbers of each: no config has so many.
const MOST_OBJECTS: usize = 16;
const MOST_NUMBERS: usize = 64;

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
const SHARED_EXPERTS: &[&str] = &["n_shared_experts", "num_shared_experts"];
const OTHERS: &[&str] = &["moe_latent_size", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"];
/// The sizes of a gated delta network.
const DELTA: [&str; 4] =
    ["linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"];
/// Keys by which an embedding may be narrower than the residual stream.
const NARROW: &[&str] = &["embedding_size", "word_embed_proj_dim", "embedding_hidden_size"];

/// The parts of a config.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

/// The sizes in one object of a config: for each kind those that it may be, most often one or none.
#[derive(Default)]
pub(super) struct Part {
    /// The width of the residual stream.
    pub widths: Vec<Size>,
    /// Heads of queries, and of keys and values.
    pub heads: Vec<Size>,
    pub key_heads: Vec<Size>,
    /// Dimensions of a head, and of its values if these have another.
    pub head_dims: Vec<Size>,
    pub value_dims: Vec<Size>,
    /// The part of a head's dimensions that is rotated, and the rest of it.
    pub rope_dims: Vec<Size>,
    pub nope_dims: Vec<Size>,
    /// Inner widths of MLPs and experts.
    pub inner_widths: Vec<Size>,
    pub experts: Vec<Size>,
    pub vocabularies: Vec<Size>,
    /// The sizes of a gated delta network: key and value heads, and their dimensions.
    pub delta: Option<[Size; 4]>,
    /// True if experts work in a narrower stream.
    pub latent_experts: bool,
    /// True if embeddings may be narrower than the residual stream.
    pub narrow_embeddings: bool,
}

impl Parts {
    /// Reads a config.json; no parts if it is none.
    pub fn read(text: &str) -> Parts {
        match json::parse(&json::of_python(text.as_bytes())) {
            Ok(Node::Object(objects)) => Parts(objects.iter().map(Part::new).collect()),
            _ => Parts::default(),
        }
    }

    pub fn all(&self) -> impl ExactSizeIterator<Item = &Part> {
        self.0.iter()
    }

    /// Tells whether any part has a width.
    pub fn has_width(&self) -> bool {
        self.0.iter().any(|part| !part.widths.is_empty())
    }

    /// Returns the widths of all parts.
    pub fn widths(&self) -> Vec<Size> {
        let mut all: Vec<Size> = self.0.iter().flat_map(|part| part.widths.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Returns the parts of this width.
    pub fn of_width(&self, h: Size) -> impl Iterator<Item = &Part> + Clone {
        self.0.iter().filter(move |part| part.widths.contains(&h))
    }
}

impl Part {
    fn new(object: &Object) -> Part {
        let of = |keys: &[&str]| {
            let found = object.0.iter().filter(|(key, value)| keys.contains(key) && *value > 0);
            found.map(|&(_, value)| Size::from(value)).collect::<Vec<_>>()
        };
        let one = |key: &str| of(&[key]).first().copied();
        let products = |a: &[Size], b: &[Size]| a.iter().flat_map(|a| b.iter().map(move |b| a * b)).collect::<Vec<_>>();
        let (heads, (rope_dims, nope_dims)) = (of(HEADS), (of(&["qk_rope_head_dim"]), of(&["qk_nope_head_dim"])));
        let mut widths = of(WIDTHS);
        if widths.is_empty() {
            // As diffusers says it.
            widths = heads.iter().zip(of(&["attention_head_dim"])).map(|(heads, dim)| heads * dim).collect();
        }
        let mut head_dims = of(HEAD_DIMS);
        head_dims.extend(rope_dims.iter().zip(&nope_dims).map(|(rope, nope)| rope + nope));
        let mut inner_widths = of(INNER_WIDTHS);
        inner_widths.extend(products(&of(&["moe_intermediate_size"]), &of(SHARED_EXPERTS)));
        let key_heads = of(KEY_HEADS);
        let delta = DELTA.map(one);
        Part {
            widths,
            key_heads: if key_heads.is_empty() { heads.clone() } else { key_heads },
            heads,
            head_dims,
            value_dims: of(&["v_head_dim"]),
            rope_dims,
            nope_dims,
            inner_widths,
            experts: of(EXPERTS),
            vocabularies: of(VOCABULARIES),
            delta: delta.iter().all(Option::is_some).then(|| delta.map(Option::unwrap_or_default)),
            latent_experts: one("moe_latent_size").is_some(),
            narrow_embeddings: !of(NARROW).is_empty(),
        }
    }
}

/// One object of a config: the numbers under known keys, each once.
#[derive(Default)]
struct Object(Vec<(&'static str, u64)>);

impl Object {
    fn add(&mut self, key: &'static str, number: u64) {
        if self.0.len() < MOST_NUMBERS && !self.0.contains(&(key, number)) {
            self.0.push((key, number));
        }
    }
}

/// Returns a known key as it is kept.
fn known(key: &str) -> Option<&'static str> {
    let all = [
        WIDTHS,
        HEADS,
        KEY_HEADS,
        HEAD_DIMS,
        INNER_WIDTHS,
        EXPERTS,
        VOCABULARIES,
        SHARED_EXPERTS,
        OTHERS,
        &DELTA,
        NARROW,
    ];
    all.iter().flat_map(|keys| keys.iter()).find(|&&k| k == key).copied()
}

/// A value of a config, as far as it has sizes.
enum Node {
    Numbers(Vec<u64>),
    /// The object's own numbers, then those of the objects in it that have any.
    Object(Vec<Object>),
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
            if let Node::Numbers(more) = node {
                let new = more.into_iter().filter(|n| !numbers.contains(n)).collect::<Vec<_>>();
                numbers.extend(new);
                numbers.truncate(MOST_NUMBERS);
            }
        }
        Ok(Node::Numbers(numbers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut objects = vec![Object::default()];
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            // Patterns are no sizes, and there may be many of them.
            if key == "dfloat11_config" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match map.next_value()? {
                Node::Numbers(numbers) => {
                    if let Some(key) = known(&key) {
                        numbers.into_iter().for_each(|n| objects[0].add(key, n));
                    }
                }
                Node::Object(more) => {
                    objects.extend(more.into_iter().filter(|object| !object.0.is_empty()));
                    objects.truncate(MOST_OBJECTS);
                }
                Node::Other => {}
            }
        }
        Ok(Node::Object(objects))
    }
}
