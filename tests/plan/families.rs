//! Automatic groups: that they cover the layouts of today's models, by tables of made-up names in their true sizes.

use super::weights::Random;
use df11::Dtype;
use df11::internals::writer::plan::{AUTOMATIC, Grouping, PlannedGroup, SourceTensor, Wanted, grouping, is_tied, plan};
use df11::writer::Patterns;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// The most weights of a group, exclusive, and the most tensors.
const LIMITS: (u64, usize) = (1 << 32, 1024);

/// A tensor of a table: its name, its type and its shape.
pub type Row = (String, Dtype, Vec<u64>);

/// Makes a table of a description. A line is a name, which ends in `.weight` unless it ends in `!`, and a shape such as `4096x1024`,
/// and perhaps F32. `{0-2,5}` are numbers, `{q,k}` texts; all combinations are meant.
pub fn table(description: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in description.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (name, shape) = (words.next().unwrap(), words.next().unwrap());
        let shape: Vec<u64> = shape.split('x').map(|d| d.parse().unwrap()).collect();
        let dtype = if words.next() == Some("F32") { Dtype::F32 } else { Dtype::BF16 };
        for name in expand(name) {
            let name = name.strip_suffix('!').map_or_else(|| format!("{name}.weight"), str::to_owned);
            rows.push((name, dtype, shape.clone()));
        }
    }
    rows
}

fn expand(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.into()] };
    let (choices, after) = rest.split_once('}').unwrap();
    let mut names = Vec::new();
    for choice in choices.split(',') {
        let range = choice.split_once('-').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
        let texts: Vec<String> = match range {
            Some((first, last)) => (first..=last).map(|n| n.to_string()).collect(),
            None => vec![choice.into()],
        };
        names.extend(texts.iter().flat_map(|text| expand(&format!("{before}{text}{after}"))));
    }
    names
}

pub fn tensors(rows: &[Row]) -> Vec<SourceTensor<'_>> {
    rows.iter()
        .map(|(name, dtype, shape)| SourceTensor { name, dtype: *dtype, elements: shape.iter().product(), shape })
        .collect()
}

/// Groups a table automatically or as is best, and checks what must hold of any: see `check`.
#[track_caller]
fn grouped(rows: &[Row], config: &Value, wanted: Wanted) -> Grouping {
    let tensors = tensors(rows);
    let found = grouping(Some(config), &tensors, wanted).unwrap();
    check(&tensors, config, &found);
    found
}

/// No group is too large or inside another, no tensor is in two, every module belongs to one pattern at most, and the patterns make
/// the same groups when they are read from a config.
#[track_caller]
pub fn check(tensors: &[SourceTensor], config: &Value, found: &Grouping) {
    let mut seen = HashSet::new();
    for group in &found.plan.groups {
        let weights: u64 = group.members.iter().map(|&m| tensors[m].elements).sum();
        assert!(weights < LIMITS.0 && group.members.len() <= LIMITS.1, "{}: {weights}", group.name);
        for &member in &group.members {
            assert!(seen.insert(member), "{} is in two groups", tensors[member].name);
            assert!(tensors[member].dtype == Dtype::BF16 && tensors[member].shape.len() >= 2);
        }
    }
    assert!(found.plan.left.is_empty() && found.plan.unmatched_patterns.is_empty(), "{found:?}");
    if found.patterns.entries().is_empty() {
        assert!(found.plan.groups.is_empty());
        return;
    }
    let again = Patterns::parse(&found.patterns.to_json()).unwrap();
    let planned = plan(tensors, &again, is_tied(Some(config), tensors)).unwrap();
    assert_eq!(planned.groups, found.plan.groups);
    let names: HashSet<&str> = found.plan.groups.iter().map(|g| &g.name[..]).collect();
    let modules: HashSet<&str> =
        tensors.iter().flat_map(|t| t.name.match_indices('.').map(|(dot, _)| &t.name[..dot])).collect();
    for module in modules {
        let matching = again.entries().iter().filter(|p| p.matches(module)).count();
        assert_eq!(matching, usize::from(names.contains(module)), "{module}");
    }
}

/// The bf16 bytes in groups, of those that a pattern can name, in percent.
fn share(tensors: &[SourceTensor], found: &Grouping) -> f64 {
    let dropped: HashSet<usize> = found.plan.dropped.iter().map(|d| d.tensor).collect();
    let nameable = |(i, t): &(usize, &SourceTensor)| {
        t.dtype == Dtype::BF16 && t.name.ends_with(".weight") && t.elements < LIMITS.0 && !dropped.contains(i)
    };
    let all: u64 = tensors.iter().enumerate().filter(nameable).map(|(_, t)| t.elements).sum();
    let members = found.plan.groups.iter().flat_map(|g| &g.members);
    100.0 * members.map(|&m| tensors[m].elements).sum::<u64>() as f64 / all as f64
}

/// What is expected of a layout.
struct Family {
    name: &'static str,
    config: Value,
    tensors: &'static str,
    /// Groups and patterns.
    makes: (usize, usize),
}

fn families() -> Vec<Family> {
    let family = |name, config, tensors, makes| Family { name, config, tensors, makes };
    let model_type = |name: &str| json!({"model_type": name, "architectures": ["X"]});
    let class = |name: &str| json!({"_class_name": name});
    vec![
        family(
            "Qwen3-30B-A3B",
            model_type("qwen3_moe"),
            "lm_head 151936x2048
            model.embed_tokens 151936x2048
            model.norm 2048
            model.layers.{0-47}.self_attn.q_proj 4096x2048
            model.layers.{0-47}.self_attn.{k_proj,v_proj} 512x2048
            model.layers.{0-47}.self_attn.o_proj 2048x4096
            model.layers.{0-47}.self_attn.{q_norm,k_norm} 128
            model.layers.{0-47}.mlp.gate 128x2048
            model.layers.{0-47}.mlp.experts.{0-127}.{gate_proj,up_proj} 768x2048
            model.layers.{0-47}.mlp.experts.{0-127}.down_proj 2048x768",
            // A layer has 389 tensors, which one list holds.
            (50, 3),
        ),
        family(
            "Qwen3-VL-30B-A3B, whose experts no pattern can name",
            model_type("qwen3_vl_moe"),
            "lm_head 151936x2048
            model.language_model.embed_tokens 151936x2048
            model.language_model.layers.{0-47}.self_attn.q_proj 4096x2048
            model.language_model.layers.{0-47}.self_attn.{k_proj,v_proj} 512x2048
            model.language_model.layers.{0-47}.self_attn.o_proj 2048x4096
            model.language_model.layers.{0-47}.mlp.gate 128x2048
            model.language_model.layers.{0-47}.mlp.experts.gate_up_proj! 128x2048x1536
            model.language_model.layers.{0-47}.mlp.experts.down_proj! 128x768x2048
            model.visual.patch_embed.proj 1152x3x2x16x16
            model.visual.pos_embed 2304x1152
            model.visual.blocks.{0-26}.attn.qkv 3456x1152
            model.visual.blocks.{0-26}.attn.proj 1152x1152
            model.visual.blocks.{0-26}.mlp.linear_fc1 4304x1152
            model.visual.blocks.{0-26}.mlp.linear_fc2 1152x4304
            model.visual.merger.linear_fc1 4608x4608
            model.visual.merger.linear_fc2 2048x4608
            model.visual.deepstack_merger_list.{0-2}.linear_fc1 4608x4608
            model.visual.deepstack_merger_list.{0-2}.linear_fc2 2048x4608",
            (83, 8),
        ),
        family(
            "Qwen3-Next-80B: three of four layers are linear, and 512 experts are more than a list holds",
            model_type("qwen3_next"),
            "lm_head 151936x2048
            model.embed_tokens 151936x2048
            model.layers.{0-2,4-6,8-10,12-14,16-18,20-22}.linear_attn.in_proj_qkvz 12288x2048
            model.layers.{0-2,4-6,8-10,12-14,16-18,20-22}.linear_attn.in_proj_ba 64x2048
            model.layers.{0-2,4-6,8-10,12-14,16-18,20-22}.linear_attn.conv1d 8192x1x4
            model.layers.{0-2,4-6,8-10,12-14,16-18,20-22}.linear_attn.out_proj 2048x4096
            model.layers.{3,7,11,15,19,23}.self_attn.q_proj 8192x2048
            model.layers.{3,7,11,15,19,23}.self_attn.{k_proj,v_proj} 512x2048
            model.layers.{3,7,11,15,19,23}.self_attn.o_proj 2048x4096
            model.layers.{0-23}.mlp.gate 512x2048
            model.layers.{0-23}.mlp.shared_expert_gate 1x2048
            model.layers.{0-23}.mlp.shared_expert.{gate_proj,up_proj} 512x2048
            model.layers.{0-23}.mlp.shared_expert.down_proj 2048x512
            model.layers.{0-23}.mlp.experts.{0-511}.{gate_proj,up_proj} 512x2048
            model.layers.{0-23}.mlp.experts.{0-511}.down_proj 2048x512",
            (2 + 24 * (1 + 1 + 1 + 512), 7),
        ),
        family(
            "Qwen3.5-27B: a hybrid with a vision tower and a layer to predict with",
            json!({"model_type": "qwen3_5", "text_config": {"tie_word_embeddings": false}}),
            "lm_head 248320x5120
            model.language_model.embed_tokens 248320x5120
            model.language_model.layers.{0-2,4-6,8-10,12-14}.linear_attn.in_proj_qkv 10240x5120
            model.language_model.layers.{0-2,4-6,8-10,12-14}.linear_attn.in_proj_z 6144x5120
            model.language_model.layers.{0-2,4-6,8-10,12-14}.linear_attn.{in_proj_a,in_proj_b} 48x5120
            model.language_model.layers.{0-2,4-6,8-10,12-14}.linear_attn.conv1d 10240x1x4
            model.language_model.layers.{0-2,4-6,8-10,12-14}.linear_attn.A_log! 48 F32
            model.language_model.layers.{0-2,4-6,8-10,12-14}.linear_attn.out_proj 5120x6144
            model.language_model.layers.{3,7,11,15}.self_attn.q_proj 12288x5120
            model.language_model.layers.{3,7,11,15}.self_attn.{k_proj,v_proj} 1024x5120
            model.language_model.layers.{3,7,11,15}.self_attn.o_proj 5120x6144
            model.language_model.layers.{0-15}.mlp.{gate_proj,up_proj} 17408x5120
            model.language_model.layers.{0-15}.mlp.down_proj 5120x17408
            mtp.layers.0.self_attn.q_proj 12288x5120
            mtp.layers.0.self_attn.{k_proj,v_proj} 1024x5120
            mtp.layers.0.self_attn.o_proj 5120x6144
            mtp.layers.0.mlp.{gate_proj,up_proj} 17408x5120
            mtp.layers.0.mlp.down_proj 5120x17408
            mtp.fc 5120x10240
            model.visual.blocks.{0-26}.attn.qkv 3456x1152
            model.visual.blocks.{0-26}.mlp.linear_fc1 4304x1152",
            (2 + 16 + 2 + 27, 7),
        ),
        family(
            "DeepSeek-V3: three dense layers, and an MoE layer has 11.5e9 weights",
            json!({"model_type": "deepseek_v3", "tie_word_embeddings": false}),
            "lm_head 129280x7168
            model.embed_tokens 129280x7168
            model.layers.{0-60}.self_attn.q_a_proj 1536x7168
            model.layers.{0-60}.self_attn.q_b_proj 24576x1536
            model.layers.{0-60}.self_attn.kv_a_proj_with_mqa 576x7168
            model.layers.{0-60}.self_attn.kv_b_proj 32768x512
            model.layers.{0-60}.self_attn.o_proj 7168x16384
            model.layers.{0-2}.mlp.{gate_proj,up_proj} 18432x7168
            model.layers.{0-2}.mlp.down_proj 7168x18432
            model.layers.{3-60}.mlp.gate 256x7168
            model.layers.{3-60}.mlp.gate.e_score_correction_bias! 256 F32
            model.layers.{3-60}.mlp.{shared_experts,experts.{0-255}}.{gate_proj,up_proj} 2048x7168
            model.layers.{3-60}.mlp.{shared_experts,experts.{0-255}}.down_proj 7168x2048",
            (2 + 3 + 58 * (1 + 1 + 1 + 256), 7),
        ),
        family(
            "Mixtral-8x7B",
            model_type("mixtral"),
            "lm_head 32000x4096
            model.embed_tokens 32000x4096
            model.layers.{0-31}.self_attn.{q_proj,o_proj} 4096x4096
            model.layers.{0-31}.self_attn.{k_proj,v_proj} 1024x4096
            model.layers.{0-31}.block_sparse_moe.gate 8x4096
            model.layers.{0-31}.block_sparse_moe.experts.{0-7}.{w1,w3} 14336x4096
            model.layers.{0-31}.block_sparse_moe.experts.{0-7}.w2 4096x14336",
            (34, 3),
        ),
        family(
            "Llama 4 Scout, whose experts no pattern can name",
            model_type("llama4"),
            "language_model.lm_head 202048x5120
            language_model.model.embed_tokens 202048x5120
            language_model.model.layers.{0-47}.self_attn.{q_proj,o_proj} 5120x5120
            language_model.model.layers.{0-47}.self_attn.{k_proj,v_proj} 1024x5120
            language_model.model.layers.{0-47}.feed_forward.router 16x5120
            language_model.model.layers.{0-47}.feed_forward.experts.gate_up_proj! 16x5120x16384
            language_model.model.layers.{0-47}.feed_forward.experts.down_proj! 16x8192x5120
            language_model.model.layers.{0-47}.feed_forward.shared_expert.{gate_proj,up_proj} 8192x5120
            language_model.model.layers.{0-47}.feed_forward.shared_expert.down_proj 5120x8192
            vision_model.model.layers.{0-33}.self_attn.{q_proj,k_proj,v_proj,o_proj} 1408x1408
            vision_model.model.layers.{0-33}.mlp.fc1 5632x1408
            vision_model.model.layers.{0-33}.mlp.fc2 1408x5632
            multi_modal_projector.linear_1 5120x4096",
            (2 + 48 + 34 + 1, 5),
        ),
        family(
            "gpt-oss-20b with experts in MXFP4",
            model_type("gpt_oss"),
            "lm_head 201088x2880
            model.embed_tokens 201088x2880
            model.layers.{0-23}.self_attn.q_proj 4096x2880
            model.layers.{0-23}.self_attn.{k_proj,v_proj} 512x2880
            model.layers.{0-23}.self_attn.o_proj 2880x4096
            model.layers.{0-23}.self_attn.sinks! 64
            model.layers.{0-23}.mlp.router 32x2880",
            (26, 3),
        ),
        family(
            "GLM-4.5-Air: one dense layer, one to predict with",
            model_type("glm4_moe"),
            "lm_head 151552x4096
            model.embed_tokens 151552x4096
            model.layers.{0-46}.self_attn.q_proj 12288x4096
            model.layers.{0-46}.self_attn.{k_proj,v_proj} 1024x4096
            model.layers.{0-46}.self_attn.o_proj 4096x12288
            model.layers.0.mlp.{gate_proj,up_proj} 10944x4096
            model.layers.0.mlp.down_proj 4096x10944
            model.layers.{1-46}.mlp.gate 128x4096
            model.layers.{1-46}.mlp.{shared_experts,experts.{0-127}}.{gate_proj,up_proj} 1408x4096
            model.layers.{1-46}.mlp.{shared_experts,experts.{0-127}}.down_proj 4096x1408
            model.layers.46.eh_proj 4096x8192
            model.layers.46.shared_head.head 151552x4096
            model.layers.46.embed_tokens 151552x4096",
            (2 + 47, 5),
        ),
        family(
            "GLM-4-9B",
            json!({"model_type": "glm4", "tie_word_embeddings": false}),
            "lm_head 151552x4096
            model.embed_tokens 151552x4096
            model.layers.{0-39}.self_attn.{q_proj,o_proj} 4096x4096
            model.layers.{0-39}.self_attn.{k_proj,v_proj} 256x4096
            model.layers.{0-39}.mlp.gate_up_proj 27392x4096
            model.layers.{0-39}.mlp.down_proj 4096x13696
            model.layers.{0-39}.post_mlp_layernorm 4096",
            (42, 3),
        ),
        family(
            "T5-XXL's encoder: a block has numbered layers",
            json!({"model_type": "t5", "tie_word_embeddings": false}),
            "shared 32128x4096
            encoder.block.{0-23}.layer.0.SelfAttention.{q,k,v,o} 4096x4096
            encoder.block.0.layer.0.SelfAttention.relative_attention_bias 32x64
            encoder.block.{0-23}.layer.1.DenseReluDense.{wi_0,wi_1} 10240x4096
            encoder.block.{0-23}.layer.1.DenseReluDense.wo 4096x10240
            encoder.block.{0-23}.layer.{0,1}.layer_norm 4096",
            (25, 2),
        ),
        family(
            "UMT5's encoder, with a bias in every block",
            json!({"model_type": "umt5"}),
            "shared 256384x4096
            encoder.block.{0-23}.layer.0.SelfAttention.{q,k,v,o} 4096x4096
            encoder.block.{0-23}.layer.0.SelfAttention.relative_attention_bias 32x64
            encoder.block.{0-23}.layer.1.DenseReluDense.{wi_0,wi_1} 10240x4096
            encoder.block.{0-23}.layer.1.DenseReluDense.wo 4096x10240",
            (25, 2),
        ),
        family(
            "Whisper large v3: convolutions at the beginning",
            model_type("whisper"),
            "model.encoder.conv1 1280x128x3
            model.encoder.conv2 1280x1280x3
            model.encoder.embed_positions 1500x1280
            model.{encoder,decoder}.layers.{0-31}.self_attn.{q_proj,k_proj,v_proj,out_proj} 1280x1280
            model.decoder.layers.{0-31}.encoder_attn.{q_proj,k_proj,v_proj,out_proj} 1280x1280
            model.{encoder,decoder}.layers.{0-31}.fc1 5120x1280
            model.{encoder,decoder}.layers.{0-31}.fc2 1280x5120
            model.decoder.embed_tokens 51866x1280
            model.decoder.embed_positions 448x1280",
            // conv1 is a thousandth of a third.
            (64 + 4, 6),
        ),
        family(
            "Falcon-H1-7B: attention and Mamba in every layer",
            model_type("falcon_h1"),
            "lm_head 130048x3072
            model.embed_tokens 130048x3072
            model.layers.{0-43}.mamba.in_proj 12568x3072
            model.layers.{0-43}.mamba.out_proj 3072x6144
            model.layers.{0-43}.mamba.conv1d 6656x1x4
            model.layers.{0-43}.mamba.A_log! 24
            model.layers.{0-43}.self_attn.{q_proj,k_proj,v_proj,o_proj} 1536x3072
            model.layers.{0-43}.feed_forward.{gate_proj,up_proj,down_proj} 12288x3072",
            (46, 3),
        ),
        family(
            "Nemotron-H: every layer is one of three kinds, all named mixer",
            model_type("nemotron_h"),
            "lm_head 131072x4480
            backbone.embeddings 131072x4480
            backbone.layers.{0,2,4,6,7,9}.mixer.in_proj 22656x4480
            backbone.layers.{0,2,4,6,7,9}.mixer.out_proj 4480x10240
            backbone.layers.{0,2,4,6,7,9}.mixer.conv1d 12288x1x4
            backbone.layers.{1,3,5,8,10,11}.mixer.up_proj 15680x4480
            backbone.layers.{1,3,5,8,10,11}.mixer.down_proj 4480x15680
            backbone.layers.{12,13}.mixer.{q_proj,k_proj,v_proj,o_proj} 5120x4480",
            (2 + 14, 5),
        ),
        family(
            "Granite-4-H: experts of three dimensions that have a weight",
            json!({"model_type": "granitemoehybrid", "tie_word_embeddings": true}),
            "model.embed_tokens 100352x4096
            model.layers.{0-4,6-14}.mamba.in_proj 16768x4096
            model.layers.{0-4,6-14}.mamba.out_proj 4096x8192
            model.layers.{0-4,6-14}.mamba.conv1d 8448x1x4
            model.layers.{5,15}.self_attn.{q_proj,o_proj} 4096x4096
            model.layers.{5,15}.self_attn.{k_proj,v_proj} 1024x4096
            model.layers.{0-15}.block_sparse_moe.input_linear 72x1536x4096
            model.layers.{0-15}.block_sparse_moe.output_linear 72x4096x768
            model.layers.{0-15}.block_sparse_moe.router.layer 72x4096
            model.layers.{0-15}.shared_mlp.input_linear 3072x4096
            model.layers.{0-15}.shared_mlp.output_linear 4096x1536",
            (17, 3),
        ),
        family(
            "InternLM2, fused and with names of its own",
            model_type("internlm2"),
            "output 92544x4096
            model.tok_embeddings 92544x4096
            model.layers.{0-31}.attention.wqkv 6144x4096
            model.layers.{0-31}.attention.wo 4096x4096
            model.layers.{0-31}.feed_forward.{w1,w2,w3} 14336x4096",
            (34, 3),
        ),
        family(
            "Mistral's own names",
            json!({}),
            "output 32768x5120
            tok_embeddings 32768x5120
            layers.{0-39}.attention.{wq,wk,wv,wo} 4096x5120
            layers.{0-39}.feed_forward.{w1,w2,w3} 14336x5120
            layers.{0-39}.attention_norm 5120",
            (42, 3),
        ),
        family(
            "Mistral-Small-3.1, of which preset gemma3 covers 92 %",
            model_type("mistral3"),
            "language_model.lm_head 131072x5120
            language_model.model.embed_tokens 131072x5120
            language_model.model.layers.{0-39}.self_attn.{q_proj,k_proj,v_proj,o_proj} 4096x5120
            language_model.model.layers.{0-39}.mlp.{gate_proj,up_proj,down_proj} 32768x5120
            vision_tower.patch_conv 1024x3x14x14
            vision_tower.transformer.layers.{0-23}.attention.{q_proj,k_proj,v_proj,o_proj} 1024x1024
            vision_tower.transformer.layers.{0-23}.feed_forward.{gate_proj,up_proj,down_proj} 4096x1024
            multi_modal_projector.linear_1 5120x1024
            multi_modal_projector.linear_2 5120x5120",
            (2 + 40 + 24 + 2, 6),
        ),
        family(
            "InternVL3-8B",
            model_type("internvl_chat"),
            "language_model.lm_head 151674x3584
            language_model.model.embed_tokens 151674x3584
            language_model.model.layers.{0-27}.self_attn.{q_proj,k_proj,v_proj,o_proj} 3584x3584
            language_model.model.layers.{0-27}.mlp.{gate_proj,up_proj,down_proj} 18944x3584
            mlp1.{1,3} 3584x4096
            vision_model.embeddings.patch_embedding 1024x3x14x14
            vision_model.encoder.layers.{0-23}.attn.qkv 3072x1024
            vision_model.encoder.layers.{0-23}.attn.proj 1024x1024
            vision_model.encoder.layers.{0-23}.mlp.{fc1,fc2} 4096x1024",
            (2 + 28 + 2 + 24, 5),
        ),
        family(
            "Phi-4-mini: tied, which preset phi4 stores twice",
            json!({"model_type": "phi3", "tie_word_embeddings": true}),
            "model.embed_tokens 200064x3072
            model.layers.{0-31}.self_attn.qkv_proj 5120x3072
            model.layers.{0-31}.self_attn.o_proj 3072x3072
            model.layers.{0-31}.mlp.gate_up_proj 16384x3072
            model.layers.{0-31}.mlp.down_proj 3072x8192",
            (33, 2),
        ),
        family(
            "Qwen3-VL-4B: tied, and the head is stored too",
            json!({"model_type": "qwen3_vl", "text_config": {"tie_word_embeddings": true}}),
            "lm_head 151936x2560
            model.language_model.embed_tokens 151936x2560
            model.language_model.layers.{0-35}.self_attn.{q_proj,k_proj,v_proj,o_proj} 2560x2560
            model.language_model.layers.{0-35}.mlp.{gate_proj,up_proj,down_proj} 9728x2560
            model.visual.blocks.{0-23}.attn.qkv 3072x1024",
            (1 + 36 + 24, 3),
        ),
        family(
            "Gemma 3n: embeddings per layer, an audio tower",
            json!({"model_type": "gemma3n", "text_config": {"model_type": "gemma3n_text"}}),
            "model.language_model.embed_tokens 262400x2048
            model.language_model.embed_tokens_per_layer 262144x8960
            model.language_model.layers.{0-34}.self_attn.{q_proj,k_proj,v_proj,o_proj} 2048x2048
            model.language_model.layers.{0-34}.mlp.{gate_proj,up_proj,down_proj} 16384x2048
            model.language_model.layers.{0-34}.{per_layer_input_gate,per_layer_projection} 256x2048
            model.language_model.layers.{0-34}.laurel.{linear_left,linear_right} 64x2048
            model.language_model.layers.{0-34}.altup.{modality_router,correction_coefs} 4x2048
            model.language_model.{altup_projections,altup_unembed_projections}.{0-2} 2048x2048
            model.language_model.per_layer_model_projection 8960x2048
            model.audio_tower.conformer.{0-11}.attention.attn.{q_proj,k_proj,v_proj} 1536x1536
            model.audio_tower.conformer.{0-11}.ffw_layer_start.{ffw_layer_1,ffw_layer_2} 6144x1536
            model.embed_vision.embedding_projection 2048x2048",
            (2 + 35 + 6 + 1 + 12 + 1, 8),
        ),
        family(
            "Qwen2.5-Omni: two models in one",
            model_type("qwen2_5_omni"),
            "thinker.lm_head 152064x3584
            thinker.model.embed_tokens 152064x3584
            thinker.model.layers.{0-27}.self_attn.{q_proj,k_proj,v_proj,o_proj} 3584x3584
            thinker.model.layers.{0-27}.mlp.{gate_proj,up_proj,down_proj} 18944x3584
            thinker.audio_tower.layers.{0-31}.fc1 5120x1280
            talker.model.embed_tokens 8448x3584
            talker.model.layers.{0-23}.self_attn.{q_proj,k_proj,v_proj,o_proj} 896x896
            talker.model.layers.{0-23}.mlp.{gate_proj,up_proj,down_proj} 18944x896
            talker.codec_head 8448x896
            token2wav.code2wav_dit_model.transformer_blocks.{0-21}.attn.{to_q,to_k,to_v,to_out.0} 1024x1024",
            (2 + 28 + 32 + 2 + 24 + 22, 8),
        ),
        family(
            "Mllama: some layers attend to the image",
            model_type("mllama"),
            "language_model.lm_head 128256x4096
            language_model.model.embed_tokens 128264x4096
            language_model.model.layers.{0-2,4-7,9-12}.self_attn.{q_proj,k_proj,v_proj,o_proj} 4096x4096
            language_model.model.layers.{3,8,13}.cross_attn.{q_proj,k_proj,v_proj,o_proj} 4096x4096
            language_model.model.layers.{0-13}.mlp.{gate_proj,up_proj,down_proj} 14336x4096
            vision_model.transformer.layers.{0-31}.self_attn.{q_proj,k_proj,v_proj,o_proj} 1280x1280
            vision_model.global_transformer.layers.{0-7}.self_attn.{q_proj,k_proj,v_proj,o_proj} 1280x1280
            multi_modal_projector 4096x7680",
            (2 + 14 + 32 + 8 + 1, 7),
        ),
        family(
            "FLUX.2-dev in diffusers' names",
            class("Flux2Transformer2DModel"),
            "x_embedder 6144x128
            context_embedder 6144x15360
            transformer_blocks.{0-7}.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out} 6144x6144
            transformer_blocks.{0-7}.{ff,ff_context}.linear_in 36864x6144
            transformer_blocks.{0-7}.{ff,ff_context}.linear_out 6144x18432
            single_transformer_blocks.{0-47}.attn.to_qkv_mlp_proj 55296x6144
            single_transformer_blocks.{0-47}.attn.to_out 6144x24576
            {double_stream_modulation_img,double_stream_modulation_txt}.linear 36864x6144
            single_stream_modulation.linear 18432x6144
            time_guidance_embed.timestep_embedder.linear_1 6144x256
            norm_out.linear 12288x6144
            proj_out 128x6144",
            (8 + 48 + 8, 10),
        ),
        family(
            "Wan2.1-I2V, of which preset wan-diffusers covers 84 %",
            class("WanTransformer3DModel"),
            "patch_embedding 5120x36x1x2x2
            condition_embedder.time_proj 30720x5120
            blocks.{0-39}.{attn1,attn2}.{to_q,to_k,to_v,to_out.0} 5120x5120
            blocks.{0-39}.attn2.{add_k_proj,add_v_proj} 5120x5120
            blocks.{0-39}.ffn.net.0.proj 13824x5120
            blocks.{0-39}.ffn.net.2 5120x13824
            proj_out 64x5120",
            (42, 3),
        ),
        family(
            "Wan2.2 in its own names",
            json!({}),
            "blocks.{0-39}.{self_attn,cross_attn}.{q,k,v,o} 5120x5120
            blocks.{0-39}.ffn.{0,2} 13824x5120
            text_embedding.{0,2} 5120x5120
            time_projection.1 30720x5120
            head.head 64x5120",
            (40 + 4, 4),
        ),
        family(
            "HunyuanVideo in its own names",
            json!({}),
            "double_blocks.{0-19}.{img_mod,txt_mod}.linear 18432x3072
            double_blocks.{0-19}.{img_attn_qkv,txt_attn_qkv} 9216x3072
            double_blocks.{0-19}.{img_attn_proj,txt_attn_proj} 3072x3072
            double_blocks.{0-19}.{img_mlp,txt_mlp}.{fc1,fc2} 12288x3072
            single_blocks.{0-39}.linear1 21504x3072
            single_blocks.{0-39}.linear2 3072x15360
            single_blocks.{0-39}.modulation.linear 9216x3072
            txt_in.individual_token_refiner.blocks.{0-1}.self_attn_qkv 9216x3072
            txt_in.individual_token_refiner.blocks.{0-1}.mlp.{fc1,fc2} 12288x3072",
            (20 + 40 + 2, 3),
        ),
        family(
            "SDXL's UNet in diffusers' names: blocks in blocks in blocks",
            class("UNet2DConditionModel"),
            "conv_in 320x4x3x3
            down_blocks.{1,2}.resnets.{0,1}.{conv1,conv2} 640x640x3x3
            down_blocks.{1,2}.attentions.{0,1}.{proj_in,proj_out} 1280x1280
            down_blocks.{1,2}.attentions.{0,1}.transformer_blocks.{0-9}.{attn1,attn2}.{to_q,to_k,to_v,to_out.0} 1280x1280
            down_blocks.{1,2}.attentions.{0,1}.transformer_blocks.{0-9}.ff.net.0.proj 10240x1280
            down_blocks.{1,2}.attentions.{0,1}.transformer_blocks.{0-9}.ff.net.2 1280x5120",
            (4 + 8 + 40, 4),
        ),
        family(
            "a sequence of one model, as sentence-transformers have it",
            json!({}),
            "0.auto_model.embeddings.word_embeddings 250002x1024
            0.auto_model.encoder.layer.{0-23}.attention.self.{query,key,value} 1024x1024
            0.auto_model.encoder.layer.{0-23}.attention.output.dense 1024x1024
            0.auto_model.encoder.layer.{0-23}.{intermediate,output}.dense 4096x1024
            2.linear 1024x1024",
            (1 + 24 + 1, 3),
        ),
        family(
            "wrappers' prefixes",
            model_type("llama"),
            "_orig_mod.module.base_model.model.lm_head 128256x4096
            _orig_mod.module.base_model.model.model.embed_tokens 128256x4096
            _orig_mod.module.base_model.model.model.layers.{0-31}.self_attn.{q_proj,k_proj,v_proj,o_proj} 4096x4096
            _orig_mod.module.base_model.model.model.layers.{0-31}.mlp.{gate_proj,up_proj,down_proj} 14336x4096",
            (34, 3),
        ),
        family(
            "one matrix in F32 in each layer",
            model_type("llama"),
            "lm_head 32000x4096
            model.embed_tokens 32000x4096
            model.layers.{0-31}.self_attn.{q_proj,k_proj,v_proj} 4096x4096
            model.layers.{0-31}.self_attn.o_proj 4096x4096 F32
            model.layers.{0-31}.mlp.{gate_proj,up_proj,down_proj} 11008x4096",
            (34, 3),
        ),
    ]
}

#[test]
fn todays_layouts_are_covered() {
    let mut wrong = Vec::new();
    for Family { name, config, tensors: description, makes } in families() {
        let rows = table(description);
        let found = grouped(&rows, &config, Wanted::Best);
        let share = share(&tensors(&rows), &found);
        let made = (found.plan.groups.len(), found.patterns.entries().len());
        let patterns = found.patterns.to_json();
        if found.origin.name() != Some(AUTOMATIC) || share < 99.0 || made != makes || patterns.len() > 40_000 {
            wrong.push(format!("{name}: {:?} {share} % {made:?}: {patterns}", found.origin.name()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lists are as published patterns with the same attributes have them, or else sorted as people count; kinds that alternate have
/// patterns that spell the numbers out.
#[test]
fn patterns_are_short_and_exact() {
    let patterns = |description: &str| {
        let found = grouped(&table(description), &json!({}), Wanted::Automatic);
        serde_json::from_str::<Value>(&found.patterns.to_json()).unwrap()
    };
    assert_eq!(
        patterns(
            "x.layers.{0-31}.self_attn.{k_proj,o_proj,q_proj,v_proj} 64x64
            x.layers.{0-31}.mlp.{down_proj,gate_proj,up_proj} 64x64"
        ),
        json!({"x\\.layers\\.\\d+": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]})
    );
    assert_eq!(
        patterns(
            "h.{0-2,4,5,8,20,21,23,30,31,33,100-199}.e.{10,2}.w 64x64
            h.{3,6,7,9-19,22,24-29,32}.e.{10,2}.u 64x64
            h.200.norm 64
            a+b(c.[1].w 64x64
            tail.{0,2}.w 64x64
            tail.1.norm 64"
        ),
        json!({
            "a\\+b\\(c\\.\\[1\\]\\.w": [],
            "h\\.(?:[0-2458]|[23][013]|1[0-9][0-9])": ["e.2.w", "e.10.w"],
            "h\\.(?:[3679]|1[0-9]|2[24-9]|32)": ["e.2.u", "e.10.u"],
            "tail\\.[02]": ["w"]
        })
    );
    // Two numbers: all combinations where all are there, and rows of those that are alike where not.
    assert_eq!(
        patterns(
            "b.{0,1}.s.{0-2}.{k,l,m,n,p} 64x64
            b.2.s.{0,2}.{k,l,m,n,p} 64x64
            b.2.s.1.{k,l,m,o,p} 64x64"
        ),
        json!({"b\\.2\\.s\\.1": ["k", "l", "m", "o", "p"], "b\\.2\\.s\\.[02]": ["k", "l", "m", "n", "p"],
            "b\\.[01]\\.s\\.\\d+": ["k", "l", "m", "n", "p"]})
    );
}

/// Which tensors are left, and what is done with those that are too many or too large.
#[test]
fn what_cannot_be_in_a_group_is_left() {
    let groups = |description: &str| {
        let rows = table(description);
        let found = grouped(&rows, &json!({}), Wanted::Automatic);
        let tensors = tensors(&rows);
        let text = |g: &PlannedGroup| {
            let members: Vec<&str> = g.members.iter().map(|&m| tensors[m].name).collect();
            format!("{}: {}", g.name, members.join(" "))
        };
        found.plan.groups.iter().map(text).collect::<Vec<_>>()
    };
    let big = "big 8192x8192";
    // Vectors, other types, names without weight, no elements, small ones, convolutions that do not matter.
    let left = "norm 8192\nf32 64x64 F32\nx! 1024x1024\nweight! 512x512\nempty 0x64\nsmall 64x64\nconv 512x16x8";
    assert_eq!(groups(&format!("{big}\n{left}")), ["big: big.weight"]);
    // What makes a thousandth of the model matters.
    assert_eq!(groups("a 64x64\nb 16x16x16"), ["a: a.weight", "b: b.weight"]);
    // 2^32 weights are too many for a group, alone or together.
    assert_eq!(
        groups("huge 65536x65536\nl.0.a.x 65535x65536\nl.0.b.y 65535x65536\nl.0.b.z 1x65536\nl.0.c 4096x4096"),
        ["l.0.a: l.0.a.x.weight", "l.0.b.y: l.0.b.y.weight", "l.0.b.z: l.0.b.z.weight", "l.0.c: l.0.c.weight"]
    );
    // More than 1024 tensors: by the blocks inside.
    assert_eq!(groups("l.{0-2}.e.{0-511}.{a,b} 64x64").len(), 3);
    assert_eq!(groups("l.{0,1,2}.e.{0-512}.{a,b} 64x64\nl.{0-2}.q.{x,y} 256x64").len(), 3 * 514);
    // A matrix with others inside it, and the other way round.
    assert_eq!(groups("m 512x512\nm.lora.a 64x64"), ["m: m.weight"]);
    assert_eq!(groups("m.0 64x64\nm.0.lora.a 512x512"), ["m.0: m.0.lora.a.weight"]);
    // A tensor that is called as a member of the group would be.
    assert_eq!(groups("l.0.x.a 64x64\nl.0.y.b 64x64\nl.0.gaps! 5"), ["l.0.x: l.0.x.a.weight", "l.0.y: l.0.y.b.weight"]);
    // Odd names.
    assert_eq!(groups("größe.{0,1} 64x64"), ["größe.0: größe.0.weight", "größe.1: größe.1.weight"]);
    assert_eq!(groups(".a 64x64\nb..c 64x64"), [".a: .a.weight", "b..c: b..c.weight"]);
    // More kinds than a pattern_dict has room for: the largest.
    let many: String = (0..400).map(|i| format!("m{i} {}x64\n", 1000 - i)).collect();
    let found = groups(&many);
    assert!(
        found.len() == 256 && found.iter().any(|g| g.starts_with("m0:")) && !found.iter().any(|g| g.contains("m399"))
    );
    let long = format!("{} 64x64\nb 64x64", "a".repeat(1000));
    assert!(groups(&long).iter().any(|g| g == "b: b.weight"));
}

/// A tied matrix is in one group, whether the head is stored or not. A head of another size is another matrix.
#[test]
fn a_tied_matrix_is_grouped_once() {
    let config = json!({"tie_word_embeddings": true});
    let layers = "x.layers.{0,1}.a 512x512\nx.embed_tokens 1000x512";
    for (head, groups, dropped) in [("", 3, 0), ("\nlm_head 1000x512", 3, 1), ("\nlm_head 1001x512", 4, 0)] {
        let rows = table(&format!("{layers}{head}"));
        let found = grouped(&rows, &config, Wanted::Best);
        assert_eq!((found.plan.groups.len(), found.plan.dropped.len()), (groups, dropped), "{head}");
    }
    let rows = table(&format!("{layers}\nlm_head 1000x512"));
    assert_eq!(grouped(&rows, &json!({"tie_word_embeddings": false}), Wanted::Best).plan.groups.len(), 4);
}

/// Trees of modules at random: whatever they are, what `check` says holds.
#[test]
fn random_trees_of_modules() {
    let mut random = Random::new(15);
    let rounds = std::env::var("DF11_ROUNDS").map_or(1, |n| n.parse::<u64>().expect("DF11_ROUNDS is a number"));
    for round in 0..300 * rounds {
        let mut names = HashSet::new();
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..random.below(60) + 1 {
            const WORDS: [&str; 10] = ["a", "b", "layers", "0", "1", "2", "10", "007", "x+y", "gaps"];
            let depth = random.below(6) + 1;
            let mut parts: Vec<&str> = (0..depth).map(|_| WORDS[random.below(10) as usize]).collect();
            parts.extend(["weight"; 1].iter().filter(|_| random.below(8) > 0));
            let name = parts.join(".");
            let dims =
                [(1, 64), (2, 64), (2, 512), (2, 40_000), (2, 70_000), (3, 16), (2, 0)][random.below(7) as usize];
            let dtype = if random.below(8) == 0 { Dtype::F32 } else { Dtype::BF16 };
            if names.insert(name.clone()) {
                rows.push((name, dtype, vec![dims.1; dims.0]));
            }
        }
        let tensors = tensors(&rows);
        match grouping(None, &tensors, Wanted::Automatic) {
            Ok(found) => check(&tensors, &Value::Null, &found),
            // Nothing in bf16, or two tensors that are called as members of one group.
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("no bf16") || text.contains("compressed already"), "round {round}: {text}");
            }
        }
    }
}

/// The order of the tensors in the files does not matter.
#[test]
fn the_order_of_the_table_does_not_matter() {
    for Family { name, config, tensors: description, .. } in families().into_iter().take(3) {
        let mut rows = table(description);
        let before = grouped(&rows, &config, Wanted::Best).patterns.to_json();
        rows.reverse();
        assert_eq!(grouped(&rows, &config, Wanted::Best).patterns.to_json(), before, "{name}");
    }
}

/// A hundred thousand tensors are planned in well under a second.
#[test]
fn many_tensors_are_planned_at_once() {
    let rows = table(
        "lm_head 129280x7168
        model.embed_tokens 129280x7168
        model.layers.{0-129}.self_attn.{q_a_proj,q_b_proj,kv_a_proj_with_mqa,kv_b_proj,o_proj} 4096x4096
        model.layers.{0-129}.mlp.experts.{0-255}.{gate_proj,up_proj,down_proj} 2048x7168",
    );
    let tensors = tensors(&rows);
    assert!(tensors.len() > 100_000);
    let config = json!({"model_type": "deepseek_v3"});
    let fastest = (0..3).map(|_| {
        let start = Instant::now();
        assert_eq!(grouping(Some(&config), &tensors, Wanted::Best).unwrap().plan.groups.len(), 2 + 130 * 257);
        start.elapsed()
    });
    let fastest = fastest.min().unwrap_or_default();
    assert!(fastest < Duration::from_secs(4), "{fastest:?}");
}
