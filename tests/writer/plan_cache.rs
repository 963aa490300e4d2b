//! The KV cache that a plan tells: of layouts as they are published, and of those that do not tell enough.

use crate::support::sparse::{self, Dense, Hollow};
use df11::Progress;
use df11::plan::{KvCache, ModelPlan, PlanOptions, Split};
use df11::writer::Patterns;
use serde_json::{Value, json};

/// Returns the plan of a layout. Its groups do not matter here.
fn plan(tensors: &[Hollow], config: &Value) -> ModelPlan {
    let folder = tempfile::tempdir().unwrap();
    sparse::write(folder.path(), tensors, config);
    let none = Patterns::parse(r#"{"nothing": []}"#).unwrap();
    // Some configs say more layers than there are.
    let options = PlanOptions::new().patterns(none).incomplete(true);
    ModelPlan::new(folder.path(), &options, &Progress::new()).unwrap()
}

#[track_caller]
fn known(tensors: &[Hollow], config: &Value) -> KvCache {
    plan(tensors, config).cache().unwrap().clone()
}

#[track_caller]
fn unknown(tensors: &[Hollow], config: &Value, reason: &str) {
    let plan = plan(tensors, config);
    let said = plan.cache().unwrap_err();
    assert!(said.contains(reason), "{said}");
    assert_eq!(plan.cache_bytes_per_token(), None);
    let tokens = plan.tokens(1 << 40, 1, Split::Layers).unwrap_err();
    assert_eq!(tokens.to_string(), said);
}

/// Layers of these matrices, each with its name in the layer, rows and columns.
fn layers(stack: &str, count: u64, matrices: &[(&str, u64, u64)]) -> Vec<Hollow> {
    let of = |layer| {
        let name = move |name: &str| format!("{stack}.{layer}.{name}.weight");
        matrices.iter().map(move |&(matrix, rows, columns)| Hollow::bf16(name(matrix), &[rows, columns]))
    };
    (0..count).flat_map(of).collect()
}

const ATTENTION: [(&str, u64, u64); 4] = [
    ("self_attn.q_proj", 512, 256),
    ("self_attn.k_proj", 128, 256),
    ("self_attn.v_proj", 128, 256),
    ("self_attn.o_proj", 256, 512),
];
const LINEAR: [(&str, u64, u64); 2] = [("linear_attn.in_proj_qkvz", 512, 256), ("linear_attn.out_proj", 256, 512)];

/// The config of layers of ATTENTION: 8 heads of 64, 2 of keys and values.
fn config(layers: u64) -> Value {
    json!({
        "num_hidden_layers": layers, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
    })
}

fn with(mut config: Value, more: Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[test]
fn published_models_take_what_their_configs_say() {
    for (name, layers, bytes) in [
        ("Llama-3.1-8B", 32, 131_072),
        ("Qwen3-8B", 36, 147_456),
        ("Mistral-Nemo-12B", 40, 163_840),
        ("Qwen2.5-32B", 64, 262_144),
        ("Llama-3.1-405B", 126, 516_096),
    ] {
        let model = Dense::named(name);
        let plan = plan(&model.tensors(), &model.config());
        let cache = plan.cache().unwrap();
        assert_eq!((cache.layers, cache.cached_layers, cache.heads), (layers, layers, Some(8)), "{name}");
        assert_eq!(plan.cache_bytes_per_token(), Some(bytes), "{name}");
    }
}

#[test]
fn latent_attention_keeps_one_vector() {
    // DeepSeek-V3's numbers, with one block more that predicts a further token.
    let block = [("self_attn.kv_a_proj_with_mqa", 576, 7168), ("self_attn.kv_b_proj", 32768, 512)];
    let config = json!({
        "num_hidden_layers": 61, "num_nextn_predict_layers": 1, "num_attention_heads": 128, "num_key_value_heads": 128,
        "kv_lora_rank": 512, "qk_rope_head_dim": 64, "hidden_size": 7168,
    });
    let plan = plan(&layers("model.layers", 62, &block), &config);
    assert_eq!(plan.cache_bytes_per_token(), Some(61 * 576 * 2));
    let cache = plan.cache().unwrap();
    assert!(cache.latent && cache.heads.is_none() && cache.cached_layers == 61);
    // Every device has all of it.
    let share = |split| plan.devices(4, split).unwrap()[0].cache_bytes_per_token;
    assert_eq!((share(Split::Rows), share(Split::Layers) < Some(61 * 576 * 2)), (Some(61 * 576 * 2), true));
    unknown(&layers("model.layers", 62, &block), &with(config, json!({"kv_lora_rank": 500})), "has 576 rows");
}

#[test]
fn hybrids_count_layers_that_attend() {
    let kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"];
    let mut tensors = Vec::new();
    for (layer, kind) in kinds.repeat(2).into_iter().enumerate() {
        let matrices = if kind == "full_attention" { &ATTENTION[..] } else { &LINEAR[..] };
        let name = |matrix: &str| format!("model.language_model.layers.{layer}.{matrix}.weight");
        tensors.extend(matrices.iter().map(|&(matrix, r, c)| Hollow::bf16(name(matrix), &[r, c])));
    }
    // As many blocks of another model, which is no language model and larger.
    tensors.extend(layers("model.visual.blocks", 8, &[("attn.qkv", 3072, 1024)]));
    let listed = with(config(8), json!({ "layer_types": kinds.repeat(2) }));
    // In the whole config and in its part, with a list and without: what the tensors have says the same.
    for config in [listed.clone(), json!({ "text_config": listed }), config(8)] {
        let cache = known(&tensors, &config);
        assert_eq!((cache.cached_layers, cache.elements_per_token), (2, 2 * 2 * 128));
    }
    let wrong = with(config(8), json!({ "layer_types": vec!["full_attention"; 8] }));
    unknown(&tensors, &wrong, "'model.language_model.layers.0' attends");
    let strange = with(config(8), json!({ "layer_types": vec!["of another kind"; 8] }));
    unknown(&tensors, &strange, "of another kind");
    let short = with(config(8), json!({ "layer_types": kinds }));
    unknown(&tensors, &short, "another number");
}

#[test]
fn windows_and_shared_caches_are_told() {
    let tensors = layers("model.layers", 6, &ATTENTION);
    let types = ["sliding_attention", "sliding_attention", "full_attention"].repeat(2);
    let windowed = with(config(6), json!({ "layer_types": types, "sliding_window": 1024 }));
    let cache = known(&tensors, &windowed);
    assert_eq!((cache.cached_layers, cache.windowed_layers, cache.window), (6, 4, Some(1024)));
    let cache = known(&tensors, &with(config(6), json!({ "num_kv_shared_layers": 2 })));
    assert_eq!((cache.layers, cache.cached_layers, cache.elements_per_token), (6, 4, 4 * 256));
}

/// Projections to queries, keys and values together do not say themselves how many heads there are.
#[test]
fn joined_projections_need_the_config() {
    let fused = |rows| layers("transformer.h", 3, &[("attn.qkv_proj", rows, 256)]);
    assert_eq!(known(&fused(768), &config(3)).elements_per_token, 3 * 256);
    unknown(&fused(700), &config(3), "has 700 rows, and by config.json it would have 768");
    let mut silent = config(3);
    silent.as_object_mut().unwrap().remove("num_key_value_heads");
    unknown(&fused(768), &silent, "num_key_value_heads");
    // But for every head having its own.
    assert_eq!(known(&fused(3 * 512), &silent).elements_per_token, 3 * 2 * 512);
}

#[test]
fn the_tensors_decide_where_layers_differ() {
    let mut tensors = layers("model.layers", 4, &ATTENTION);
    for tensor in tensors.iter_mut().filter(|t| t.name.contains(".3.self_attn.k") || t.name.contains(".3.self_attn.v"))
    {
        tensor.shape[0] = 512;
    }
    let different = with(config(4), json!({ "layer_types": vec!["full_attention"; 4] }));
    let plan = plan(&tensors, &different);
    let cache = plan.cache().unwrap();
    assert_eq!((cache.elements_per_token, cache.heads), (3 * 256 + 1024, None));
    // Which heads go together is not known then.
    assert_eq!(plan.devices(2, Split::Rows).unwrap()[0].cache_bytes_per_token, None);
    assert!(plan.tokens(1 << 40, 2, Split::Rows).is_err() && plan.tokens(1 << 40, 1, Split::Rows).is_ok());
}

/// Heads that are fewer than the devices are on several of them, and those that cannot be split evenly are told.
#[test]
fn heads_are_split_by_rows() {
    let plan = plan(&layers("model.layers", 4, &ATTENTION), &config(4));
    let bytes = |count| plan.devices(count, Split::Rows).unwrap()[0].cache_bytes_per_token;
    assert_eq!([1, 2, 4, 8].map(bytes), [Some(2048), Some(1024), Some(1024), Some(1024)]);
    assert_eq!(bytes(3), None);
}

#[test]
fn what_is_not_certain_is_unknown() {
    let tensors = layers("model.layers", 4, &ATTENTION);
    unknown(&tensors, &json!({ "hidden_size": 256 }), "num_hidden_layers");
    unknown(
        &tensors,
        &json!({ "_class_name": "FluxTransformer2DModel", "num_layers": 19 }),
        "no such number of blocks",
    );
    unknown(&tensors, &config(5), "config.json says 5 layers");
    unknown(&tensors, &with(config(4), json!({ "is_encoder_decoder": true })), "an encoder and a decoder");
    let none = layers("model.layers", 4, &[("mixer.in_proj", 512, 256)]);
    unknown(&none, &config(4), "no layer has a projection to keys");
    let crossing = layers("model.layers", 4, &[("cross_attn.k_proj", 128, 256)]);
    unknown(&crossing, &config(4), "no layer has a projection to keys");
    let mut indexed = tensors.clone();
    indexed.extend(layers("model.layers", 4, &[("self_attn.indexer.wk", 128, 256)]));
    unknown(&indexed, &config(4), "indexer");
    // Two kinds with projections of the same names: one may keep no cache.
    let mut mixed = tensors.clone();
    mixed.extend((0..3).map(|layer| Hollow::bf16(format!("model.layers.{layer}.self_attn.A_log"), &[16])));
    unknown(&mixed, &config(4), "attend in different ways");
    let mut twice = tensors;
    twice.extend(layers("model.layers", 4, &[("other_attn.k_proj", 128, 256)]));
    unknown(&twice, &config(4), "more than one way");
}

/// Packed keys have no rows that mean heads: the config says how many there are, or nobody.
#[test]
fn packed_weights_leave_it_to_the_config() {
    let packed = |layer| Hollow::new(format!("model.layers.{layer}.self_attn.k_proj.qweight"), "U8", &[32, 128]);
    let tensors: Vec<Hollow> = (0..4).map(packed).collect();
    assert_eq!(known(&tensors, &config(4)).elements_per_token, 4 * 256);
    let mut silent = config(4);
    silent.as_object_mut().unwrap().remove("num_key_value_heads");
    unknown(&tensors, &silent, "num_key_value_heads");
}
