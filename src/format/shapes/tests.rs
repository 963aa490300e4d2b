//! Tables of many architectures, of which the truth is known: what is derived must be true, and how much is derived is
//! counted. Tables that lie must yield nothing.

use super::super::source::Span;
use super::*;
use crate::format::tensor::Data;
use safetensors::Dtype;
use std::collections::HashMap;

/// The tensors of a model: name, shape, and whether it is in a group.
#[derive(Clone, Default)]
struct Table(Vec<(String, Vec<u64>, bool)>);

impl Table {
    /// Adds matrices in groups.
    fn packed(mut self, prefix: &str, matrices: &[(&str, &[u64])]) -> Table {
        self.0.extend(matrices.iter().map(|(name, shape)| (format!("{prefix}{name}.weight"), shape.to_vec(), true)));
        self
    }

    /// Adds plain tensors, with their whole names.
    fn plain(mut self, prefix: &str, tensors: &[(&str, &[u64])]) -> Table {
        self.0.extend(tensors.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.to_vec(), false)));
        self
    }

    /// Adds norms of one length.
    fn norms(self, prefix: &str, len: u64, names: &[&str]) -> Table {
        names.iter().fold(self, |table, name| table.plain(prefix, &[(&format!("{name}.weight"), &[len])]))
    }

    /// Adds matrices in groups, each with a plain bias.
    fn biased(self, prefix: &str, matrices: &[(&str, &[u64])]) -> Table {
        matrices.iter().fold(self.packed(prefix, matrices), |table, (name, shape)| {
            table.plain(prefix, &[(&format!("{name}.bias"), &shape[..1])])
        })
    }

    /// Returns the derived shape of each tensor in a group.
    fn derived(&self, config: &str) -> Vec<(&str, Option<Vec<u64>>)> {
        let tensor = |(name, shape, packed): &(String, Vec<u64>, bool)| {
            let n: u64 = shape.iter().product();
            let span = Span { file: 0, offset: 0, len: 2 * n };
            let (shape, shape_from, data) = match packed {
                true => (vec![n], ShapeSource::Unknown, Data::Packed { first_run: 0, run_count: 1 }),
                false => (shape.clone(), ShapeSource::Stored, Data::Plain(span)),
            };
            TensorData {
                name: name.clone(),
                dtype: Dtype::BF16,
                shape: shape.into(),
                shape_from,
                data,
                bytes: 2 * n,
                sha256: None,
            }
        };
        let mut tensors: Vec<TensorData> = self.0.iter().map(tensor).collect();
        derive(&mut tensors, (!config.is_empty()).then_some(config), &Progress::new()).unwrap();
        let found = |t: TensorData| (t.shape_from == ShapeSource::Derived).then(|| t.shape.to_vec());
        let packed = self.0.iter().zip(tensors).filter(|(entry, _)| entry.2);
        packed.map(|(entry, tensor)| (&entry.0[..], found(tensor))).collect()
    }

    /// Checks that what is derived is true, and that nothing else than `absent` is not derived.
    #[track_caller]
    fn check(&self, config: &str, absent: &[&str]) {
        let truth: HashMap<&str, &Vec<u64>> = self.0.iter().map(|(name, shape, _)| (&name[..], shape)).collect();
        let mut left = Vec::new();
        for (name, shape) in self.derived(config) {
            match shape {
                Some(shape) => assert_eq!(&shape, truth[name], "{name} is wrong"),
                None => left.push(name.strip_suffix(".weight").unwrap()),
            }
        }
        assert_eq!(left, absent, "not derived");
    }

    /// Checks that nothing is derived.
    #[track_caller]
    fn check_none(&self, config: &str) {
        let derived: Vec<_> = self.derived(config).into_iter().filter(|(_, shape)| shape.is_some()).collect();
        assert!(derived.is_empty(), "{derived:?}");
    }

    /// Checks that what is derived is true, however little that is.
    #[track_caller]
    fn check_true(&self, config: &str) -> usize {
        let truth: HashMap<&str, &Vec<u64>> = self.0.iter().map(|(name, shape, _)| (&name[..], shape)).collect();
        let derived = self.derived(config).into_iter().filter_map(|(name, shape)| Some((name, shape?)));
        derived.map(|(name, shape)| assert_eq!(&shape, truth[name], "{name} is wrong")).count()
    }
}

const LLAMA_NORMS: &[&str] = &["input_layernorm", "post_attention_layernorm"];

/// A layer as Llama's.
fn llama_layer(table: Table, prefix: &str, h: u64, q: u64, kv: u64, inner: u64) -> Table {
    table
        .packed(
            prefix,
            &[
                ("self_attn.q_proj", &[q, h]),
                ("self_attn.k_proj", &[kv, h]),
                ("self_attn.v_proj", &[kv, h]),
                ("self_attn.o_proj", &[h, q]),
                ("mlp.gate_proj", &[inner, h]),
                ("mlp.up_proj", &[inner, h]),
                ("mlp.down_proj", &[h, inner]),
            ],
        )
        .norms(prefix, h, LLAMA_NORMS)
}

fn llama(h: u64, q: u64, kv: u64, inner: u64, vocab: u64) -> Table {
    let table = Table::default().packed("", &[("lm_head", &[vocab, h]), ("model.embed_tokens", &[vocab, h])]);
    let table = (0..3).fold(table, |t, i| llama_layer(t, &format!("model.layers.{i}."), h, q, kv, inner));
    table.norms("model.", h, &["norm"])
}

const LLAMA_8B: &str = r#"{"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "num_hidden_layers": 32, "model_type": "llama"}"#;

#[test]
fn llamas_and_their_kin_are_derived_whole() {
    llama(4096, 4096, 1024, 14336, 128256).check(LLAMA_8B, &[]);
    // Qwen3: a head dimension that is not width / heads.
    let qwen = r#"{"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151936}"#;
    let table = llama(1024, 2048, 1024, 3072, 151936);
    table.clone().norms("model.layers.0.self_attn.", 128, &["q_norm", "k_norm"]).check(qwen, &[]);
    // Gemma 3: four norms a block, and a config that leaves heads and vocabulary to its class.
    let gemma = r#"{"text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text"},
        "vision_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}}"#;
    let table = llama(2560, 2048, 1024, 10240, 262208);
    table
        .norms("model.layers.0.", 2560, &["pre_feedforward_layernorm", "post_feedforward_layernorm"])
        .check(gemma, &[]);
    // Biases of queries, keys and values say the same as the config.
    let bias: &[(&str, &[u64])] = &[("q_proj.bias", &[4096]), ("k_proj.bias", &[1024]), ("v_proj.bias", &[1024])];
    llama(4096, 4096, 1024, 14336, 128256).plain("model.layers.1.self_attn.", bias).check(LLAMA_8B, &[]);
    // Without a config, the two norms of a block, the final norm and the other matrices are left.
    llama(4096, 4096, 1024, 14336, 128256).check("", &[]);
    // Another matrix outside blocks may be one between the embedding and the stream.
    let table = llama(4096, 4096, 1024, 14336, 128256).packed("model.", &[("project_in", &[4096, 4096])]);
    table.check("", &["lm_head", "model.embed_tokens", "model.project_in"]);
}

#[test]
fn fused_matrices_are_derived() {
    let phi = |q: u64, kv: u64| {
        let layer: &[(&str, &[u64])] = &[
            ("self_attn.o_proj", &[3072, q]),
            ("self_attn.qkv_proj", &[q + 2 * kv, 3072]),
            ("mlp.gate_up_proj", &[16384, 3072]),
            ("mlp.down_proj", &[3072, 8192]),
        ];
        let table = Table::default().packed("model.layers.0.", layer).norms("model.layers.0.", 3072, LLAMA_NORMS);
        table.norms("model.", 3072, &["norm"])
    };
    let config =
        r#"{"hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24, "num_key_value_heads": 8}"#;
    phi(3072, 1024).check(config, &[]);
    phi(3072, 3072).check("", &[]);
    // Three times the output's only if there are as many keys as queries.
    phi(3072, 1024).check("", &["model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.qkv_proj"]);
    // InternLM2.
    let layer: &[(&str, &[u64])] = &[
        ("attention.wqkv", &[6144, 4096]),
        ("attention.wo", &[4096, 4096]),
        ("feed_forward.w1", &[14336, 4096]),
        ("feed_forward.w3", &[14336, 4096]),
        ("feed_forward.w2", &[4096, 14336]),
    ];
    let table = Table::default().packed("model.layers.0.", layer).norms(
        "model.layers.0.",
        4096,
        &["attention_norm", "ffn_norm"],
    );
    let head: &[(&str, &[u64])] = &[("model.tok_embeddings", &[92544, 4096]), ("output", &[92544, 4096])];
    let config = r#"{"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 92544}"#;
    table.packed("", head).norms("model.", 4096, &["norm"]).check(config, &[]);
}

#[test]
fn mixtures_of_experts_are_derived() {
    let attention: &[(&str, &[u64])] =
        &[("q_proj", &[4096, 2048]), ("k_proj", &[512, 2048]), ("v_proj", &[512, 2048]), ("o_proj", &[2048, 4096])];
    let expert: &[(&str, &[u64])] =
        &[("gate_proj", &[768, 2048]), ("up_proj", &[768, 2048]), ("down_proj", &[2048, 768])];
    let qwen = (0..2).fold(Table::default(), |t, i| {
        let block = format!("model.layers.{i}.");
        let t = t.packed(&format!("{block}self_attn."), attention).packed(&block, &[("mlp.gate", &[128, 2048])]);
        let t = (0..4).fold(t, |t, e| t.packed(&format!("{block}mlp.experts.{e}."), expert));
        t.norms(&block, 2048, LLAMA_NORMS)
    });
    let config = r#"{"hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128}"#;
    qwen.norms("model.", 2048, &["norm"]).check(config, &[]);

    let expert: &[(&str, &[u64])] = &[("w1", &[14336, 4096]), ("w2", &[4096, 14336]), ("w3", &[14336, 4096])];
    let block = "model.layers.0.";
    let mixtral = Table::default()
        .packed(&format!("{block}block_sparse_moe."), &[("gate", &[8, 4096])])
        .packed(&format!("{block}block_sparse_moe.experts.7."), expert)
        .norms(block, 4096, LLAMA_NORMS);
    let config =
        r#"{"hidden_size": 4096, "intermediate_size": 14336, "num_local_experts": 8, "num_attention_heads": 32}"#;
    mixtral.check(config, &[]);
    // Experts are not compared with each other: they may work in a narrower stream.
    mixtral.check_none("");
    // Experts that do: 2688 × 1024 = 672 × 4096.
    let latent: &[(&str, &[u64])] = &[("up_proj", &[2688, 1024]), ("down_proj", &[1024, 2688])];
    let table = Table::default().packed("backbone.layers.1.mixer.experts.0.", latent).norms(
        "backbone.layers.1.",
        4096,
        &["norm"],
    );
    let config = r#"{"hidden_size": 4096, "moe_latent_size": 1024, "moe_intermediate_size": 672}"#;
    table.norms("backbone.", 4096, &["norm_f"]).check_none(config);
    // Experts in one tensor have three dimensions.
    let all: &[(&str, &[u64])] =
        &[("block_sparse_moe.input_linear", &[18, 24, 8]), ("mlp.experts.gate_up_proj", &[8, 3072, 2048])];
    let config = r#"{"hidden_size": 2048, "intermediate_size": 12288, "moe_intermediate_size": 1536}"#;
    Table::default().packed("model.layers.0.", all).norms("model.layers.0.", 2048, LLAMA_NORMS).check_none(config);
}

/// Kimi K2: 64 heads of 128 + 64, values of 128.
#[test]
fn latent_attention_is_derived() {
    let attention: &[(&str, &[u64])] = &[
        ("q_a_proj", &[1536, 7168]),
        ("q_b_proj", &[12288, 1536]),
        ("kv_a_proj_with_mqa", &[576, 7168]),
        ("kv_b_proj", &[16384, 512]),
        ("o_proj", &[7168, 8192]),
    ];
    let block = "model.layers.3.";
    let shared: &[(&str, &[u64])] =
        &[("gate_proj", &[4096, 7168]), ("up_proj", &[4096, 7168]), ("down_proj", &[7168, 4096])];
    let table = Table::default()
        .packed(&format!("{block}self_attn."), attention)
        .norms(&format!("{block}self_attn."), 1536, &["q_a_layernorm"])
        .norms(&format!("{block}self_attn."), 512, &["kv_a_layernorm"])
        .packed(&format!("{block}mlp.shared_experts."), shared)
        .norms(block, 7168, LLAMA_NORMS);
    let config = r#"{"hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_shared_experts": 2,
        "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}"#;
    table.check(config, &[]);
    // The lite ones have no low rank of queries.
    let attention: &[(&str, &[u64])] = &[("q_proj", &[3072, 2048]), ("o_proj", &[2048, 2048])];
    let lite =
        Table::default().packed("model.layers.0.self_attn.", attention).norms("model.layers.0.", 2048, LLAMA_NORMS);
    let config = r#"{"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": null,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}"#;
    lite.check(config, &[]);
}

#[test]
fn hybrids_are_derived() {
    // Qwen3-Next: gated queries, and gated delta networks.
    let attention: &[(&str, &[u64])] =
        &[("q_proj", &[8192, 2048]), ("k_proj", &[512, 2048]), ("v_proj", &[512, 2048]), ("o_proj", &[2048, 4096])];
    let delta: &[(&str, &[u64])] =
        &[("in_proj_qkvz", &[12288, 2048]), ("in_proj_ba", &[64, 2048]), ("out_proj", &[2048, 4096])];
    let table = Table::default()
        .packed("model.layers.3.self_attn.", attention)
        .norms("model.layers.3.self_attn.", 256, &["q_norm", "k_norm"])
        .norms("model.layers.3.", 2048, LLAMA_NORMS)
        .packed("model.layers.0.linear_attn.", delta)
        .norms("model.layers.0.linear_attn.", 128, &["norm"])
        .plain("model.layers.0.linear_attn.", &[("conv1d.weight", &[8192, 1, 4]), ("A_log", &[32])])
        .norms("model.layers.0.", 2048, LLAMA_NORMS);
    let config = r#"{"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128}"#;
    table.check(config, &[]);
    // Mamba 2 (Granite 4): inner 8192, state 128, one group, 128 heads; Mamba 1; LFM2's short convolution.
    let mamba: &[(&str, &[u64])] = &[("in_proj", &[16768, 4096]), ("out_proj", &[4096, 8192])];
    let first: &[(&str, &[u64])] =
        &[("in_proj", &[16384, 4096]), ("out_proj", &[4096, 8192]), ("x_proj", &[288, 8192])];
    let short: &[(&str, &[u64])] = &[("in_proj", &[12288, 4096]), ("out_proj", &[4096, 4096])];
    let table = Table::default()
        .packed("model.layers.0.mamba.", mamba)
        .plain(
            "model.layers.0.mamba.",
            &[("conv1d.weight", &[8448, 1, 4]), ("A_log", &[128]), ("norm.weight", &[8192])],
        )
        .packed("model.layers.1.mixer.", first)
        .plain("model.layers.1.mixer.", &[("conv1d.weight", &[8192, 1, 4]), ("A_log", &[8192, 16]), ("D", &[8192])])
        .packed("model.layers.2.conv.", short)
        .plain("model.layers.2.conv.", &[("conv.weight", &[4096, 1, 3])]);
    let table = (0..3).fold(table, |t, i| t.norms(&format!("model.layers.{i}."), 4096, LLAMA_NORMS));
    table.check(r#"{"hidden_size": 4096}"#, &["model.layers.1.mixer.x_proj"]);
}

#[test]
fn encoders_are_derived() {
    // T5: the relative positions are a small embedding that nothing proves.
    let t5: &[(&str, &[u64])] = &[
        ("layer.0.SelfAttention.q", &[4096, 4096]),
        ("layer.0.SelfAttention.k", &[4096, 4096]),
        ("layer.0.SelfAttention.v", &[4096, 4096]),
        ("layer.0.SelfAttention.o", &[4096, 4096]),
        ("layer.1.DenseReluDense.wi_0", &[10240, 4096]),
        ("layer.1.DenseReluDense.wi_1", &[10240, 4096]),
        ("layer.1.DenseReluDense.wo", &[4096, 10240]),
        ("layer.0.SelfAttention.relative_attention_bias", &[32, 64]),
    ];
    let table = Table::default()
        .packed("", &[("shared", &[32128, 4096])])
        .packed("encoder.block.0.", t5)
        .norms("encoder.block.0.", 4096, &["layer.0.layer_norm", "layer.1.layer_norm"])
        .norms("encoder.", 4096, &["final_layer_norm"]);
    let config = r#"{"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "vocab_size": 32128}"#;
    table.check(config, &["encoder.block.0.layer.0.SelfAttention.relative_attention_bias"]);
    // BERT and SigLIP: a bias at each matrix. Whisper has none at keys.
    let bert: &[(&str, &[u64])] = &[
        ("attention.self.query", &[768, 768]),
        ("attention.self.key", &[768, 768]),
        ("attention.self.value", &[768, 768]),
        ("attention.output.dense", &[768, 768]),
        ("intermediate.dense", &[3072, 768]),
        ("output.dense", &[768, 3072]),
    ];
    let config = r#"{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "vocab_size": 30522}"#;
    let embeddings: &[(&str, &[u64])] =
        &[("embeddings.word_embeddings", &[30522, 768]), ("embeddings.position_embeddings", &[512, 768])];
    let table = Table::default().packed("bert.", embeddings).biased("bert.encoder.layer.0.", bert);
    table.check(config, &["bert.embeddings.position_embeddings", "bert.encoder.layer.0.output.dense"]);
    let siglip: &[(&str, &[u64])] = &[
        ("self_attn.q_proj", &[1152, 1152]),
        ("self_attn.out_proj", &[1152, 1152]),
        ("mlp.fc1", &[4304, 1152]),
        ("mlp.fc2", &[1152, 4304]),
    ];
    let patches: &[(&str, &[u64])] = &[("embeddings.patch_embedding", &[1152, 3, 14, 14])];
    let table = Table::default().biased("vision_model.encoder.layers.0.", siglip).biased("vision_model.", patches);
    table
        .norms("vision_model.encoder.layers.0.", 1152, &["layer_norm1", "layer_norm2"])
        .check("", &["vision_model.embeddings.patch_embedding"]);
    let whisper: &[(&str, &[u64])] = &[
        ("self_attn.q_proj", &[1280, 1280]),
        ("self_attn.out_proj", &[1280, 1280]),
        ("fc1", &[5120, 1280]),
        ("fc2", &[1280, 5120]),
    ];
    let cross: &[(&str, &[u64])] = &[("encoder_attn.k_proj", &[1280, 1280]), ("self_attn.k_proj", &[1280, 1280])];
    let table = Table::default()
        .biased("model.decoder.layers.0.", whisper)
        .packed("model.decoder.layers.0.", cross)
        .norms("model.decoder.layers.0.", 1280, &["self_attn_layer_norm", "final_layer_norm"]);
    let config = r#"{"d_model": 1280, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120}"#;
    table.check(config, &["model.decoder.layers.0.encoder_attn.k_proj"]);
}

#[test]
fn diffusion_transformers_are_derived_by_their_biases() {
    let flux: &[(&str, &[u64])] = &[
        ("norm1.linear", &[18432, 3072]),
        ("norm1_context.linear", &[18432, 3072]),
        ("attn.to_q", &[3072, 3072]),
        ("attn.to_k", &[3072, 3072]),
        ("attn.add_k_proj", &[3072, 3072]),
        ("attn.to_out.0", &[3072, 3072]),
        ("attn.to_add_out", &[3072, 3072]),
        ("ff.net.0.proj", &[12288, 3072]),
        ("ff.net.2", &[3072, 12288]),
        ("ff_context.net.0.proj", &[12288, 3072]),
        ("ff_context.net.2", &[3072, 12288]),
    ];
    let single: &[(&str, &[u64])] = &[
        ("norm.linear", &[9216, 3072]),
        ("proj_mlp", &[12288, 3072]),
        ("proj_out", &[3072, 15360]),
        ("attn.to_q", &[3072, 3072]),
    ];
    let table = Table::default().biased("transformer_blocks.0.", flux).biased("single_transformer_blocks.37.", single);
    table.check("", &[]);
    table.check(r#"{"dfloat11_config": {"pattern_dict": {}}, "model_type": "llama"}"#, &[]);
    let comfy: &[(&str, &[u64])] = &[
        ("img_mod.lin", &[18432, 3072]),
        ("img_attn.qkv", &[9216, 3072]),
        ("img_attn.proj", &[3072, 3072]),
        ("img_mlp.0", &[12288, 3072]),
        ("img_mlp.2", &[3072, 12288]),
    ];
    let single: &[(&str, &[u64])] =
        &[("linear1", &[21504, 3072]), ("linear2", &[3072, 15360]), ("modulation.lin", &[9216, 3072])];
    Table::default().biased("double_blocks.18.", comfy).biased("single_blocks.0.", single).check("", &[]);
    // Wan: attn2 reads the text; the patches are a convolution over space and time.
    let wan: &[(&str, &[u64])] = &[
        ("attn1.to_q", &[5120, 5120]),
        ("attn2.to_k", &[5120, 4096]),
        ("attn2.to_out.0", &[5120, 5120]),
        ("ffn.net.0.proj", &[13824, 5120]),
        ("ffn.net.2", &[5120, 13824]),
    ];
    let table = Table::default().biased("blocks.0.", wan).biased("", &[("patch_embedding", &[5120, 16, 1, 2, 2])]);
    table.norms("blocks.0.", 5120, &["norm2"]).check("", &["patch_embedding"]);
    // Z-Image: no biases, but a norm before and after each attention and MLP.
    let lumina: &[(&str, &[u64])] = &[
        ("attention.qkv", &[11520, 3840]),
        ("attention.out", &[3840, 3840]),
        ("feed_forward.w1", &[10240, 3840]),
        ("feed_forward.w2", &[3840, 10240]),
        ("feed_forward.w3", &[10240, 3840]),
    ];
    let norms = &["attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"];
    let table =
        Table::default().packed("layers.0.", lumina).biased("layers.0.", &[("adaLN_modulation.0", &[15360, 256])]);
    table.norms("layers.0.", 3840, norms).check("", &[]);
    // A config with sizes, where blocks have no norms.
    let cosmos: &[(&str, &[u64])] = &[("attn1.to_q", &[2048, 2048]), ("attn1.to_out.0", &[2048, 2048])];
    Table::default()
        .packed("transformer_blocks.0.", cosmos)
        .check(r#"{"num_attention_heads": 16, "attention_head_dim": 128}"#, &[]);
}

/// A window of k × k makes n / out no width, and one of 1 × 1 looks like a matrix: names and neighbours tell.
#[test]
fn convolutions_are_left() {
    let conv: &[(&str, &[u64])] = &[
        ("patch_embed.proj", &[768, 3, 16, 16]),
        ("blocks.0.attn.proj", &[64, 64, 1, 1]),
        ("blocks.0.attn.qkv", &[192, 64, 1, 1]),
        ("blocks.0.mlp.fc1", &[256, 64, 1, 1]),
        ("blocks.0.se.fc1", &[16, 64, 1, 1]),
        ("blocks.0.mlp.conv1", &[64, 64, 3, 3]),
        ("mid.attn_1.q", &[512, 512, 1, 1]),
        ("mid.attn_1.proj_out", &[512, 512, 1, 1]),
        ("conv_in", &[128, 3, 3, 3]),
        ("down_blocks.0.attentions.0.proj_in", &[320, 320, 1, 1]),
        ("down_blocks.0.attentions.0.proj_out", &[320, 320, 1, 1]),
        ("encoder.layers.0.w_1", &[1024, 256, 9]),
        ("fc2", &[64, 16, 1, 1]),
        ("proj_out", &[64, 16, 1, 1]),
    ];
    Table::default().biased("", conv).norms("blocks.0.", 64, &["norm1", "norm2"]).check_none("");
    // A window that is larger contradicts the width, wherever it is.
    let conv: &[(&str, &[u64])] = &[("mlp.fc1", &[256, 64, 3, 3]), ("self_attn.q_proj", &[64, 64, 3])];
    Table::default().biased("layers.0.", conv).norms("layers.0.", 64, &["norm1", "norm2"]).check_none("");
    // GPT-2's matrices are transposed: the bias is the second dimension.
    let gpt2: &[(&str, &[u64])] =
        &[("attn.c_attn", &[768, 2304]), ("mlp.c_fc", &[768, 3072]), ("mlp.c_proj", &[3072, 768])];
    let table = gpt2.iter().fold(Table::default().packed("h.0.", gpt2), |t, (name, shape)| {
        t.plain("h.0.", &[(&format!("{name}.bias"), &shape[1..])])
    });
    table.norms("h.0.", 768, &["ln_1", "ln_2"]).check_none(r#"{"n_embd": 768, "n_head": 12, "n_inner": 3072}"#);
}

#[test]
fn facts_that_contradict_each_other_yield_nothing() {
    let true_table = llama(4096, 4096, 1024, 14336, 128256);
    // A config that lies about the width, in a way that divides everything.
    for h in [2048, 1024, 8192, 512, 4097] {
        let config = LLAMA_8B.replace("4096", &h.to_string());
        true_table.check_none(&config);
    }
    // One that lies about the heads, the inner width or the vocabulary: what depends on them is left.
    for (key, names) in [("\"num_attention_heads\": 32", ["q_proj", "o_proj"]), ("14336", ["gate_proj", "down_proj"])] {
        let lie = LLAMA_8B.replace(key, &key.replace("32", "48").replace("14336", "7168"));
        for (name, shape) in true_table.derived(&lie) {
            assert!(shape.is_none() || !names.iter().any(|n| name.contains(n)), "{name}: {shape:?}");
        }
        assert!(true_table.check_true(&lie) > 0);
    }
    // Norms that are not of the width: one, both, or the final one.
    let replace = |names: &[&str], len: u64| {
        let mut table = true_table.clone();
        for (name, shape, _) in &mut table.0 {
            if names.iter().any(|n| name.ends_with(&format!("{n}.weight"))) {
                *shape = vec![len];
            }
        }
        table
    };
    for names in [&["input_layernorm"][..], LLAMA_NORMS, &["model.norm"]] {
        for len in [2048, 8192, 128, 1] {
            for config in [LLAMA_8B, ""] {
                let table = replace(names, len);
                let derived = table.derived(config);
                let layers = derived.iter().filter(|(name, _)| name.contains("layers"));
                assert!(layers.clone().all(|(_, shape)| shape.is_none()), "{names:?} {len} {config}");
            }
        }
    }
    // One norm and nothing else.
    let one = Table::default().packed("layers.0.", &[("attn.q_proj", &[64, 32]), ("attn.o_proj", &[32, 64])]);
    one.clone().norms("layers.0.", 32, &["norm1"]).check_none("");
    one.check_none("");
}

#[test]
fn structures_that_only_look_alike_yield_nothing() {
    // EAGLE 3: queries, keys and values read two streams side by side, with norms of one.
    let eagle: &[(&str, &[u64])] = &[
        ("self_attn.q_proj", &[4096, 8192]),
        ("self_attn.k_proj", &[1024, 8192]),
        ("self_attn.v_proj", &[1024, 8192]),
    ];
    let table = Table::default().packed("layers.0.", eagle).packed("layers.0.", &[("self_attn.o_proj", &[4096, 4096])]);
    let table =
        table.norms("layers.0.", 4096, &["input_layernorm", "post_attention_layernorm"]).norms("", 4096, &["norm"]);
    assert_eq!(table.check_true(LLAMA_8B), 1);
    table.check_none("");
    // Zamba 2: an attention of twice the width, whose norms say so.
    let table = Table::default()
        .packed("layers.0.", &[("self_attn.q_proj", &[4096, 4096]), ("self_attn.o_proj", &[2048, 4096])])
        .norms("layers.0.", 4096, &["input_layernorm"])
        .norms("layers.0.", 2048, &["pre_ff_layernorm"]);
    table.check_none(r#"{"hidden_size": 2048, "num_attention_heads": 32}"#);
    // OPT-350m: an embedding narrower than the stream.
    let table =
        Table::default().packed("", &[("model.decoder.embed_tokens", &[50272, 512]), ("lm_head", &[50272, 512])]);
    let table = table.norms("model.decoder.", 1024, &["final_layer_norm"]).norms("model.", 1024, &["norm"]);
    table.check_none(r#"{"hidden_size": 1024, "word_embed_proj_dim": 512}"#);
    // Cross-attention reads another width.
    let cross: &[(&str, &[u64])] = &[
        ("cross_attn.q_proj", &[1024, 1024]),
        ("cross_attn.k_proj", &[1024, 2048]),
        ("cross_attn.v_proj", &[1024, 2048]),
        ("cross_attn.o_proj", &[1024, 1024]),
    ];
    let table = Table::default().packed("layers.0.", cross).norms("layers.0.", 1024, LLAMA_NORMS);
    assert_eq!(table.check_true(r#"{"hidden_size": 1024, "num_attention_heads": 8, "head_dim": 128}"#), 2);
    // Qwen 1 and DINOv2: w1, w2 and w3 are not what they are elsewhere.
    let qwen1: &[(&str, &[u64])] = &[("mlp.w1", &[2048, 512]), ("mlp.w2", &[2048, 512]), ("mlp.c_proj", &[512, 2048])];
    let dino: &[(&str, &[u64])] = &[("mlp.w12", &[4096, 512]), ("mlp.w3", &[512, 2048])];
    for mlp in [qwen1, dino] {
        Table::default()
            .packed("h.0.", mlp)
            .norms("h.0.", 512, &["ln_1", "ln_2"])
            .check_none(r#"{"hidden_size": 512, "intermediate_size": 2048}"#);
    }
    // Two towers of one product: 64 × 32 is 32 × 64.
    let table = Table::default().packed("", &[("lm_head", &[64, 32])]).norms("model.", 32, &["norm"]).norms(
        "text.",
        64,
        &["norm"],
    );
    table.check_none(r#"{"a": {"hidden_size": 32, "vocab_size": 64}, "b": {"hidden_size": 64, "vocab_size": 32}}"#);
}

#[test]
fn hostile_configs_end_without_shapes() {
    let table = llama(4096, 4096, 1024, 14336, 128256);
    let numbers = [
        "0",
        "-1",
        "18446744073709551615",
        "1e400",
        "4096.0",
        "\"4096\"",
        "null",
        "[]",
        "[0]",
        "{}",
        "99999999999999999999999",
    ];
    for number in numbers {
        for key in ["4096", "14336", "32,", "8,", "128256"] {
            let value = if key.ends_with(',') { format!("{number},") } else { number.to_owned() };
            table.check_true(&LLAMA_8B.replace(key, &value));
        }
        table.check_true(
            &LLAMA_8B.replace("4096", number).replace("14336", number).replace("32,", &format!("{number},")),
        );
    }
    // Sizes whose products wrap around to the true ones.
    let wraps = LLAMA_8B.replace("4096", "4294967296").replace("128256", "4294967296");
    table.check_none(&wraps);
    for text in ["", "[", "[1]", "null", "{\"hidden_size\":", &"[".repeat(1000), "\u{feff}{}"] {
        table.check_true(text);
    }
    // Many parts and long lists are cut, and the first part counts.
    let parts: String = (0..5000)
        .map(|i| format!("\"p{i}\": {{\"hidden_size\": {i}, \"intermediate_size\": [{}1]}},", "7,".repeat(99)))
        .collect();
    let big = format!("{{{parts} {}", &LLAMA_8B[1..]);
    table.check(&big, &[]);
    // Names that no model has.
    let deep = "a.".repeat(400) + "0.self_attn.q_proj";
    let long = "a".repeat(1000) + ".0.mlp.up_proj";
    Table::default()
        .biased("", &[(&deep, &[64, 64]), (&long, &[64, 64]), ("", &[4, 4]), ("q_proj", &[1, 1])])
        .check_none("");
}

/// Of the modules that published models compress, with biases: which are not known to be matrices.
#[test]
fn modules_of_the_presets_are_known() {
    let presets: serde_json::Value = serde_json::from_str(include_str!("../../writer/plan/presets.json")).unwrap();
    let (mut known, mut unknown) = (0, std::collections::BTreeSet::new());
    for preset in presets.as_array().unwrap() {
        for (pattern, list) in preset["patterns"].as_object().into_iter().flatten() {
            let group = pattern.replace("\\d++", "0").replace("\\d+", "0").replace('\\', "").replace("[12]", "1");
            let group = group.split("([").next().unwrap().to_owned() + if group.contains("([") { "0" } else { "" };
            let paths = list.as_array().unwrap().iter().map(|path| format!("{group}.{}", path.as_str().unwrap()));
            let modules: Vec<String> =
                if list == &serde_json::json!([]) { vec![group.clone()] } else { paths.collect() };
            for module in modules {
                let derived = Table::default().biased("", &[(&module, &[96, 64])]).check_true("");
                known += derived;
                if derived == 0 {
                    unknown.insert(module.replace(|c: char| c.is_ascii_digit(), "0"));
                }
            }
        }
    }
    let unknown: Vec<&str> = unknown.iter().map(|name| &name[..]).collect();
    // Embeddings and heads have no bias, and what BAGEL calls a patch embedding is a convolution elsewhere.
    let without = [
        "language_model.lm_head",
        "language_model.model.embed_tokens",
        "llm_adapter.embed",
        "lm_head",
        "model.embed_tokens",
        "vit_model.vision_model.embeddings.patch_embedding",
    ];
    assert_eq!(unknown, without);
    assert!(known > 850, "{known}");
}
