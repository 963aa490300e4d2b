//! The KV cache of a model: how many numbers it holds for each token, from config.json and the tensors.
//!
//! The config says how many layers there are, the tensors which of them attend and how wide their keys and values are. What
//! the two do not say together is not known, and the reason is told: a number that is wrong costs more than one that is
//! missing.
//!
//! - *Which layers*: those whose block has a projection to keys, if the config has no list of layers' types. If it has one, that
//!   decides. Layers of linear attention, of convolutions and of state spaces have no cache that grows with the tokens.
//! - *How wide*: the rows of the projections to keys and values, or `num_key_value_heads` and `head_dim`; of a latent attention
//!   (DeepSeek's) `kv_lora_rank` and `qk_rope_head_dim`.
//!
//! Layers that attend to a window of the last tokens only are counted as all others, because whether what is outside the
//! window is freed is the engine's choice; how many they are is told.

use super::devices::block_of;
use crate::format::{Model, Tensor};
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The KV cache of a model, in numbers, each of as many bytes as the engine gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvCache {
    /// Layers of the model that the cache is of.
    pub layers: u64,
    /// Those among them that have a cache.
    pub cached_layers: u64,
    /// Those among the latter that attend to a window of the last tokens only.
    pub windowed_layers: u64,
    /// The tokens of that window.
    pub window: Option<u64>,
    /// Numbers for each token, in all layers.
    pub elements_per_token: u64,
    /// Heads of keys and values; `None` if layers differ, and for latent attention.
    pub heads: Option<u64>,
    /// True for latent attention, where keys and values of all heads are kept as one vector.
    pub latent: bool,
    /// Numbers for each token in each block.
    pub(super) blocks: HashMap<String, u64>,
}

impl KvCache {
    /// Returns the numbers for each token on one of `count` devices that have a part of each matrix. Heads are split, and a head is
    /// on several devices if there are fewer heads; a latent vector is on all devices. `None` if heads cannot be split evenly.
    pub(super) fn elements_of_share(&self, count: u64) -> Option<u64> {
        if count == 1 || self.latent {
            return Some(self.elements_per_token);
        }
        let heads = self.heads.filter(|&heads| heads > 0)?;
        let even = heads.is_multiple_of(count) || count.is_multiple_of(heads);
        even.then(|| self.elements_per_token / heads.min(count))
    }
}

/// Names of projections to keys alone, each with that to values.
const KEYS: [(&str, &str); 3] = [("k_proj", "v_proj"), ("wk", "wv"), ("key", "value")];
/// Names of projections to queries, keys and values together.
const FUSED: [&str; 7] = ["qkv_proj", "qkv", "Wqkv", "wqkv", "W_pack", "query_key_value", "c_attn"];
/// The name of the projection to the vector of latent attention.
const LATENT: &str = "kv_a_proj_with_mqa";

/// A config, or the part of one that is about the language model.
struct Config<'a>(&'a Value);

impl<'a> Config<'a> {
    fn of(whole: &'a Value) -> Config<'a> {
        const PARTS: [&str; 3] = ["text_config", "llm_config", "language_config"];
        let part = PARTS.iter().find_map(|key| whole.get(key).filter(|part| part.is_object()));
        Config(part.unwrap_or(whole))
    }

    fn number(&self, keys: &[&str]) -> Option<u64> {
        keys.iter().find_map(|key| self.0.get(key).and_then(Value::as_u64))
    }

    fn layers(&self) -> Option<u64> {
        self.number(&["num_hidden_layers", "n_layer", "num_layers", "n_layers"]).filter(|&n| n > 0)
    }

    fn heads(&self) -> Option<u64> {
        self.number(&["num_attention_heads", "n_head"]).filter(|&n| n > 0)
    }

    fn key_value_heads(&self) -> Option<u64> {
        self.number(&["num_key_value_heads", "multi_query_group_num", "num_kv_heads"]).filter(|&n| n > 0)
    }

    fn hidden(&self) -> Option<u64> {
        self.number(&["hidden_size", "n_embd"]).filter(|&n| n > 0)
    }

    fn head_dim(&self) -> Option<u64> {
        let even = || {
            let (hidden, heads) = (self.hidden()?, self.heads()?);
            hidden.is_multiple_of(heads).then(|| hidden / heads)
        };
        self.number(&["head_dim", "kv_channels"]).or_else(even).filter(|&n| n > 0)
    }

    /// Returns the type of each layer, if the config has such a list.
    fn layer_types(&self) -> Result<Option<Vec<Layer>>, String> {
        const KEYS: [&str; 3] = ["layer_types", "layers_block_type", "attn_type_list"];
        let Some((key, list)) = KEYS.iter().find_map(|key| Some((key, self.0.get(key)?.as_array()?))) else {
            return Ok(None);
        };
        let layer = |value: &Value| match (value.as_str(), value.as_u64()) {
            (Some("full_attention" | "attention" | "global_attention" | "full"), _) | (_, Some(1)) => Ok(Layer::Full),
            (Some("sliding_attention" | "chunked_attention" | "local_attention"), _) => Ok(Layer::Windowed),
            (Some("linear_attention" | "mamba" | "mamba2" | "conv" | "recurrent" | "mlp" | "moe"), _)
            | (_, Some(0)) => Ok(Layer::None),
            _ => Err(format!("config.json lists a layer of the unknown type {value} in {key}")),
        };
        list.iter().map(layer).collect::<Result<_, _>>().map(Some)
    }
}

/// What a layer's cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Full,
    Windowed,
    None,
}

/// A block's tensors, each with the rest of its name.
type Block<'m> = Vec<(&'m str, Tensor<'m>)>;

/// The attention of a block.
struct Attention<'m> {
    keys: Projection<'m>,
    /// The names of all tensors in the same module.
    names: BTreeSet<&'m str>,
}

enum Projection<'m> {
    Apart { keys: Tensor<'m>, values: Option<Tensor<'m>> },
    Fused(Tensor<'m>),
    Latent(Tensor<'m>),
}

/// Finds the cache of a model. The error is the reason why it is not known.
pub(super) fn find(config: Option<&Value>, model: &Model) -> Result<KvCache, String> {
    let whole = config.ok_or("there is no config.json")?;
    if whole.get("is_encoder_decoder") == Some(&Value::Bool(true)) {
        return Err("the model has an encoder and a decoder".into());
    }
    let config = Config::of(whole);
    let layers = config.layers().ok_or("config.json does not say how many layers there are (num_hidden_layers)")?;
    let blocks = stack(&config, layers, model)?;
    let types = config.layer_types()?;
    if types.as_ref().is_some_and(|types| types.len() as u64 != layers) {
        return Err(format!("config.json says {layers} layers, and lists the types of another number of them"));
    }
    // These use the cache of an earlier layer.
    let own = layers.saturating_sub(config.number(&["num_kv_shared_layers"]).unwrap_or(0));
    let mut found = KvCache {
        layers,
        cached_layers: 0,
        windowed_layers: 0,
        window: None,
        elements_per_token: 0,
        heads: None,
        latent: false,
        blocks: HashMap::new(),
    };
    let mut names: Option<BTreeSet<&str>> = None;
    let mut all = Vec::new();
    for (number, (name, block)) in blocks.iter().enumerate().take(own as usize) {
        let kind = types.as_ref().and_then(|types| types.get(number).copied());
        let attention = attention_of(block)?;
        let attention = match (kind, attention) {
            (Some(Layer::None), _) | (None, None) => continue,
            (Some(_), None) => {
                return Err(format!("config.json says that '{name}' attends, and it has no projection to keys"));
            }
            (_, Some(attention)) => attention,
        };
        // Two kinds of attention with projections of the same names: one of them may have no cache.
        if kind.is_none() && *names.get_or_insert_with(|| attention.names.clone()) != attention.names {
            return Err("the layers attend in different ways, and config.json does not list their types".into());
        }
        let (elements, heads, latent) = width(&config, &attention.keys)?;
        found.cached_layers += 1;
        found.windowed_layers += u64::from(kind == Some(Layer::Windowed));
        found.elements_per_token += elements;
        found.latent |= latent;
        found.blocks.insert((*name).to_owned(), elements);
        all.push((elements, heads));
    }
    if found.cached_layers == 0 {
        return Err("no layer has a projection to keys under a known name".into());
    }
    if found.windowed_layers > 0 {
        found.window = config.number(&["sliding_window", "attention_chunk_size", "window_size"]);
    }
    found.heads = all.first().and_then(|&(_, heads)| heads).filter(|_| all.iter().all(|width| *width == all[0]));
    Ok(found)
}

/// Returns the blocks of the language model, in their order: of the numbered blocks that are as many as the layers the largest.
fn stack<'m>(config: &Config, layers: u64, model: &'m Model) -> Result<Vec<(&'m str, Block<'m>)>, String> {
    let mut stacks: HashMap<&str, BTreeMap<u64, (&str, Block)>> = HashMap::new();
    for tensor in model.tensors() {
        let Some(block) = block_of(tensor.name()) else { continue };
        let Some((stack, Ok(number))) = block.rsplit_once('.').map(|(stack, n)| (stack, n.parse::<u64>())) else {
            continue;
        };
        let rest = tensor.name()[block.len()..].trim_start_matches('.');
        let blocks = stacks.entry(stack).or_default();
        blocks.entry(number).or_insert_with(|| (block, Vec::new())).1.push((rest, tensor));
    }
    // Blocks that predict further tokens may follow.
    let more = config.number(&["num_nextn_predict_layers"]).unwrap_or(0);
    let is_language = |stack: &str| !["vision", "visual", "audio", "vit"].iter().any(|word| stack.contains(word));
    let as_many = |blocks: &BTreeMap<u64, (&str, Block)>| {
        let count = blocks.len() as u64;
        (layers..=layers.saturating_add(more)).contains(&count)
            && blocks.last_key_value().is_some_and(|(&n, _)| n + 1 == count)
    };
    let bytes = |blocks: &BTreeMap<u64, (&str, Block)>| -> u64 {
        blocks.values().flat_map(|(_, block)| block).map(|(_, tensor)| tensor.bytes()).sum()
    };
    let fitting = stacks.into_iter().filter(|(stack, blocks)| is_language(stack) && as_many(blocks));
    let largest = fitting.max_by(|a, b| bytes(&a.1).cmp(&bytes(&b.1)).then_with(|| b.0.cmp(a.0)));
    let (_, blocks) = largest
        .ok_or_else(|| format!("config.json says {layers} layers, and the tensors have no such number of blocks"))?;
    Ok(blocks.into_values().take(layers as usize).collect())
}

/// Finds the attention of a block. Attention to the output of another model has a cache that does not grow.
fn attention_of<'m>(block: &Block<'m>) -> Result<Option<Attention<'m>>, String> {
    let find = |parent: &str, name: &str| {
        let of = |rest: &str| rest.strip_prefix(parent).and_then(|r| r.strip_prefix(name)).is_some_and(is_weight);
        block.iter().find(|(rest, _)| of(rest)).map(|(_, tensor)| *tensor)
    };
    let mut found: Option<Attention> = None;
    let mut of_parent: Option<&str> = None;
    for &(rest, tensor) in block {
        if rest.split('.').any(|part| part == "indexer") {
            return Err("an indexer chooses the tokens to attend to, and how its own cache is kept is not known".into());
        }
        let Some((parent, name)) = projection(rest) else { continue };
        if parent.contains("cross") || parent.contains("encoder_attn") {
            continue;
        }
        let keys = match name {
            LATENT => Projection::Latent(tensor),
            _ if FUSED.contains(&name) => Projection::Fused(tensor),
            _ => {
                let values = KEYS.iter().find(|(keys, _)| *keys == name).and_then(|(_, values)| find(parent, values));
                Projection::Apart { keys: tensor, values }
            }
        };
        if of_parent.is_some_and(|other| other != parent) {
            return Err("a layer attends in more than one way".into());
        }
        of_parent = Some(parent);
        let latent_is_there = found.as_ref().is_some_and(|f| matches!(f.keys, Projection::Latent(_)));
        if !latent_is_there {
            let names = block.iter().filter_map(|(rest, _)| rest.strip_prefix(parent)).collect();
            found = Some(Attention { keys, names });
        }
    }
    Ok(found)
}

/// Splits the name of a projection's matrix into the module that it is in, with its dot, and its own name.
fn projection(rest: &str) -> Option<(&str, &str)> {
    let is_known = |part: &str| part == LATENT || FUSED.contains(&part) || KEYS.iter().any(|(keys, _)| *keys == part);
    let mut start = 0;
    for part in rest.split('.') {
        let end = start + part.len();
        if start > 0 && is_known(part) && is_weight(&rest[end..]) {
            return Some((&rest[..start], part));
        }
        start = end + 1;
    }
    None
}

/// Returns whether what follows a projection's name says that this is its matrix, perhaps packed.
fn is_weight(after: &str) -> bool {
    matches!(after, ".weight" | ".qweight" | ".weight_packed")
}

/// Returns the numbers for each token, the heads if they are known, and whether the attention is latent.
fn width(config: &Config, keys: &Projection) -> Result<(u64, Option<u64>, bool), String> {
    let said = config.key_value_heads().zip(config.head_dim());
    match keys {
        Projection::Latent(tensor) => {
            let rank = config.number(&["kv_lora_rank"]).zip(config.number(&["qk_rope_head_dim"]));
            let (rank, rope) = rank.ok_or("config.json does not say kv_lora_rank and qk_rope_head_dim")?;
            match rows(config, *tensor) {
                Some(rows) if rows != rank + rope => Err(disagree(*tensor, rows, rank + rope)),
                _ => Ok((rank + rope, None, true)),
            }
        }
        Projection::Apart { keys, values } => {
            let of_keys = rows(config, *keys);
            let of_values = values.map_or(of_keys, |values| rows(config, values));
            let (of_keys, of_values) = match (of_keys, of_values, said) {
                (Some(keys), Some(values), _) => (keys, values),
                (_, _, Some((heads, dim))) => (heads * dim, heads * dim),
                _ => return Err("config.json does not say num_key_value_heads and head_dim".into()),
            };
            let heads = said.filter(|(heads, dim)| heads * dim == of_keys).map(|(heads, _)| heads);
            Ok((of_keys + of_values, heads, false))
        }
        Projection::Fused(tensor) => {
            let dim = config.head_dim().ok_or("config.json does not say head_dim")?;
            let queries = config.heads().ok_or("config.json does not say num_attention_heads")?;
            let rows = rows(config, *tensor);
            // Without the number every head may have keys and values of its own; then the rows say so.
            let heads = config.key_value_heads().or_else(|| (rows == Some(3 * queries * dim)).then_some(queries));
            let heads = heads.ok_or("config.json does not say num_key_value_heads")?;
            match rows {
                Some(rows) if rows != (queries + 2 * heads) * dim => {
                    Err(disagree(*tensor, rows, (queries + 2 * heads) * dim))
                }
                _ => Ok((2 * heads * dim, Some(heads), false)),
            }
        }
    }
}

fn disagree(tensor: Tensor, rows: u64, said: u64) -> String {
    format!("'{}' has {rows} rows, and by config.json it would have {said}", crate::error::shorten(tensor.name(), 80))
}

/// Returns the rows of a matrix: of its shape, or what its length leaves if its columns are the model's width.
fn rows(config: &Config, tensor: Tensor) -> Option<u64> {
    // Other types may have several weights in an element.
    let element = match tensor.dtype() {
        Dtype::BF16 | Dtype::F16 => 2,
        Dtype::F32 => 4,
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => 1,
        _ => return None,
    };
    match tensor.shape() {
        [rows, _] => Some(*rows),
        _ => {
            let (elements, columns) = (tensor.bytes() / element, config.hidden()?);
            elements.is_multiple_of(columns).then(|| elements / columns)
        }
    }
}
