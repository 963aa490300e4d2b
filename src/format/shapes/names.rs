//! Names of modules whose axes are known.

use super::Size;

/// The modules of an attention.
pub(super) struct Attention {
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    /// Queries, keys and values in one matrix.
    pub qkv: &'static [&'static str],
    /// The module that writes the residual stream.
    pub out: &'static [&'static str],
}

pub(super) const ATTENTIONS: &[Attention] = &[
    Attention {
        q: "q_proj",
        k: "k_proj",
        v: "v_proj",
        qkv: &["qkv_proj", "query_key_value", "wqkv", "Wqkv", "qkv"],
        out: &["o_proj", "out_proj", "output_proj", "dense", "proj", "out"],
    },
    Attention { q: "to_q", k: "to_k", v: "to_v", qkv: &["to_qkv"], out: &["to_out.0", "to_out"] },
    Attention { q: "wq", k: "wk", v: "wv", qkv: &["wqkv"], out: &["wo"] },
    Attention { q: "q", k: "k", v: "v", qkv: &[], out: &["o"] },
];

/// Modules whose queries, keys and values all read the residual stream.
pub(super) const SELF_ATTENTIONS: &[&str] =
    &["self_attn", "self_attention", "SelfAttention", "attn", "attn1", "attention", "mixer", "temporal_block"];

/// The modules of an MLP.
pub(super) struct Mlp {
    /// The modules that read the residual stream, and by how much their outputs may exceed the inner width: twice, where gate
    /// and value are one matrix.
    pub readers: &'static [(&'static str, &'static [Size])],
    /// The module that writes the residual stream.
    pub writer: &'static str,
    /// The names of the MLP itself, where the names of its modules say too little; any if there are none.
    pub within: &'static [&'static str],
    /// Modules beside which these names mean something else.
    pub without: &'static [&'static str],
}

const ONE: &[Size] = &[1];
const TWO: &[Size] = &[2];
const ONE_OR_TWO: &[Size] = &[1, 2];

const fn mlp(
    readers: &'static [(&'static str, &'static [Size])],
    writer: &'static str,
    within: &'static [&'static str],
    without: &'static [&'static str],
) -> Mlp {
    Mlp { readers, writer, within, without }
}

pub(super) const MLPS: &[Mlp] = &[
    mlp(&[("gate_proj", ONE), ("up_proj", ONE), ("gate_up_proj", TWO)], "down_proj", &[], &[]),
    // Elsewhere w1 and w2 both read, or w3 writes.
    mlp(&[("w1", ONE), ("w3", ONE)], "w2", &[], &["c_proj", "w12"]),
    mlp(&[("linear_1", ONE), ("linear_3", ONE)], "linear_2", &["feed_forward"], &[]),
    mlp(&[("fc1", ONE)], "fc2", &[], &["fc3"]),
    mlp(&[("linear_fc1", ONE)], "linear_fc2", &["mlp"], &[]),
    mlp(&[("up_proj", ONE), ("gate_proj", ONE)], "linear_fc2", &["mlp"], &[]),
    mlp(&[("wi", ONE), ("wi_0", ONE), ("wi_1", ONE)], "wo", &["DenseReluDense", "mlp"], &[]),
    mlp(&[("dense_h_to_4h", ONE_OR_TWO)], "dense_4h_to_h", &[], &[]),
    mlp(&[("gate", ONE), ("up", ONE)], "down", &["mlp"], &[]),
    mlp(&[("gate_up", TWO)], "out", &["img_mlp", "txt_mlp", "mlp"], &[]),
    mlp(&[("net.0.proj", ONE_OR_TWO)], "net.2", &[], &[]),
    mlp(&[("linear_in", TWO)], "linear_out", &["ff", "ff_context"], &[]),
    mlp(&[("input_linear", TWO)], "output_linear", &["shared_mlp"], &[]),
    mlp(&[("layer1", ONE)], "layer2", &["mlp"], &[]),
];

/// Norms of the whole residual stream in a block.
pub(super) const BLOCK_NORMS: &[&str] = &[
    "input_layernorm",
    "pre_attention_layernorm",
    "post_attention_layernorm",
    "post_self_attn_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "pre_mlp_layernorm",
    "post_mlp_layernorm",
    "pre_ff_layernorm",
    "attention_layernorm",
    "feedforward_layernorm",
    "self_attn_layer_norm",
    "encoder_attn_layer_norm",
    "final_layer_norm",
    "layer_norm",
    "layer_norm1",
    "layer_norm2",
    "layernorm_before",
    "layernorm_after",
    "norm",
    "norm1",
    "norm2",
    "norm3",
    "ln1",
    "ln2",
    "ln_1",
    "ln_2",
    "attention_norm",
    "attention_norm1",
    "attention_norm2",
    "ffn_norm",
    "ffn_norm1",
    "ffn_norm2",
    "attn_norm",
    "mlp_norm",
    "operator_norm",
];

/// Norms after the last block.
pub(super) const FINAL_NORMS: &[&str] =
    &["norm", "final_norm", "norm_f", "ln_f", "final_layernorm", "final_layer_norm", "layer_norm", "post_layernorm"];

/// Norms of the heads of queries and keys.
pub(super) const QK_NORMS: &[&str] = &["q_norm", "k_norm", "norm_q", "norm_k", "q_layernorm", "k_layernorm"];

/// Embeddings of a vocabulary: \[words, width\].
pub(super) const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "wte",
    "word_embeddings",
    "tok_embeddings",
    "token_embedding",
    "embed_in",
    "embeddings",
    "shared",
];

/// Heads: \[words, width\].
pub(super) const HEADS: &[&str] = &["lm_head", "embed_out", "output"];

/// The names of these for which the final norm and the config's width are enough.
pub(super) const USUAL_VOCABULARIES: &[&str] = &["embed_tokens", "lm_head"];

/// Modules that hold the blocks, from the module that holds the head.
pub(super) const TOWERS: &[&str] =
    &["", "model", "model.language_model", "language_model.model", "transformer", "backbone"];

/// Matrices that choose experts: \[experts, width\].
pub(super) const ROUTERS: &[&str] =
    &["mlp.gate", "block_sparse_moe.gate", "feed_forward.router", "mlp.router", "feed_forward.gate"];

/// Modules that are matrices wherever they have these names, so that a bias tells their output.
pub(super) const BIASED: &[&str] = &[
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "qkv_proj",
    "self_attn.out_proj",
    "encoder_attn.out_proj",
    "query_key_value",
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
    "to_q_t",
    "to_k_t",
    "to_v_t",
    "to_out_t",
    "attn1.to_out",
    "attn.img_qkv",
    "attn.txt_qkv",
    "self_attn.q",
    "self_attn.k",
    "self_attn.v",
    "self_attn.o",
    "cross_attn.q",
    "cross_attn.k",
    "cross_attn.v",
    "cross_attn.o",
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.dense",
    "self_attention.dense",
    "intermediate.dense",
    "gate_proj",
    "up_proj",
    "down_proj",
    "gate_up_proj",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
    "net.0.proj",
    "ff.net.2",
    "ff_context.net.2",
    "ffn.net.2",
    "img_mlp.net.2",
    "txt_mlp.net.2",
    "time_embed.time_proj",
    "time_embed_r.time_proj",
    "q_proj_moe_gen",
    "k_proj_moe_gen",
    "v_proj_moe_gen",
    "o_proj_moe_gen",
    "self_attn.output_proj",
    "cross_attn.output_proj",
    "attn.wq",
    "attn.wk",
    "attn.wv",
    "attn.wo",
    "attn.gate",
    "mlp.gate",
    "mlp.up",
    "mlp.down",
    "mlp.layer1",
    "mlp.layer2",
    "img_mlp.gate_up",
    "img_mlp.out",
    "adaln_modulation_self_attn.1",
    "adaln_modulation_self_attn.2",
    "adaln_modulation_cross_attn.1",
    "adaln_modulation_cross_attn.2",
    "adaln_modulation_mlp.1",
    "adaln_modulation_mlp.2",
    "lin",
    "param_generator",
    "emb_layers.1",
    "label_emb.0.0",
    "label_emb.0.2",
    "time_embed.0",
    "time_embed.2",
    "tmlp.0",
    "tmlp.2",
    "txtmlp.1",
    "txtmlp.3",
    "tproj.1",
    "modulation.1",
    "txt_in",
    "distilled_guidance_layer.in_proj",
    "distilled_guidance_layer.out_proj",
    "dt_proj",
    "linear",
    "linear1",
    "linear2",
    "linear_1",
    "linear_2",
    "linear_3",
    "linear_fc1",
    "linear_fc2",
    "img_mod.1",
    "txt_mod.1",
    "adaLN_modulation.0",
    "adaLN_modulation.1",
    "merger.mlp.0",
    "merger.mlp.2",
];

/// Modules that are matrices in transformers, and convolutions with a window of one in some other networks.
pub(super) const BIASED_UNLESS_CONVOLUTIONAL: &[&str] = &[
    "attn.qkv",
    "attn.proj",
    "img_attn.qkv",
    "img_attn.proj",
    "txt_attn.qkv",
    "txt_attn.proj",
    "attention.qkv",
    "attention.out",
    "mlp.fc1",
    "mlp.fc2",
    "feed_forward.w1",
    "feed_forward.w2",
    "feed_forward.w3",
    "ff_t.w1",
    "ff_t.w2",
    "ff_t.w3",
    "shared_experts.w1",
    "shared_experts.w2",
    "shared_experts.w3",
    "img_mlp.w1",
    "img_mlp.w2",
    "img_mlp.w3",
    "txt_mlp.w1",
    "txt_mlp.w2",
    "txt_mlp.w3",
    "img_mlp.0",
    "img_mlp.2",
    "txt_mlp.0",
    "txt_mlp.2",
    "ffn.0",
    "ffn.2",
];

/// As those, in numbered blocks of these names only: the path ends in NAME.number.module.
pub(super) const BIASED_IN: &[(&str, &str)] = &[
    ("llm_adapter.blocks", "mlp.0"),
    ("llm_adapter.blocks", "mlp.2"),
    ("res_blocks", "mlp.0"),
    ("res_blocks", "mlp.2"),
    ("single_transformer_blocks", "proj_mlp"),
    ("single_transformer_blocks", "proj_out"),
    ("distilled_guidance_layer.layers", "in_layer"),
    ("distilled_guidance_layer.layers", "out_layer"),
    ("ff_i.experts", "w1"),
    ("ff_i.experts", "w2"),
    ("ff_i.experts", "w3"),
];
