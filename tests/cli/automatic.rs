//! Models that no preset fits: compressed without an option, and with the patterns that `df11 presets --for` prints.

use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;

use super::compress::compress;
use super::support::files::{self, Stored};
use super::support::weights;
use super::{models, run, run_on};

/// Writes a model: its config.json, and tensors of these names and shapes, in bf16 but for names that end in `!`.
fn write(folder: &Path, config: &str, tensors: &[(&str, &[usize])]) {
    std::fs::create_dir_all(folder).unwrap();
    let make = |(seed, (name, shape)): (usize, &(&str, &[usize]))| {
        let weights = weights::trained_like(shape.iter().product(), seed as u64);
        match name.strip_suffix('!') {
            Some(name) => Stored::new(name, Dtype::F32, shape, vec![0x3f; 4 * weights.len()]),
            None => Stored::new(name, Dtype::BF16, shape, bytemuck::cast_slice(&weights).to_vec()),
        }
    };
    let tensors: Vec<Stored> = tensors.iter().enumerate().map(make).collect();
    std::fs::write(folder.join("model.safetensors"), files::file(&tensors)).unwrap();
    if !config.is_empty() {
        std::fs::write(folder.join("config.json"), config).unwrap();
    }
}

/// Kinds of layers that alternate, experts, a prefix, a tied embedding, a tower, a matrix in F32.
const HYBRID: [(&str, &[usize]); 18] = [
    ("model.language_model.embed_tokens.weight", &[300, 64]),
    ("model.language_model.layers.0.linear_attn.in_proj.weight", &[96, 64]),
    ("model.language_model.layers.0.mlp.experts.0.w1.weight", &[64, 64]),
    ("model.language_model.layers.0.mlp.experts.1.w1.weight", &[64, 64]),
    ("model.language_model.layers.1.linear_attn.in_proj.weight", &[96, 64]),
    ("model.language_model.layers.1.mlp.experts.0.w1.weight", &[64, 64]),
    ("model.language_model.layers.1.mlp.experts.1.w1.weight", &[64, 64]),
    ("model.language_model.layers.2.self_attn.q_proj.weight", &[64, 64]),
    ("model.language_model.layers.2.self_attn.o_proj.weight!", &[64, 64]),
    ("model.language_model.layers.2.mlp.experts.0.w1.weight", &[64, 64]),
    ("model.language_model.layers.2.mlp.experts.1.w1.weight", &[64, 64]),
    ("model.language_model.layers.2.input_layernorm.weight", &[64]),
    ("model.visual.patch_embed.proj.weight", &[32, 3, 4, 4]),
    ("model.visual.blocks.0.attn.qkv.weight", &[96, 64]),
    ("model.visual.blocks.1.attn.qkv.weight", &[96, 64]),
    ("model.visual.blocks.1.attn.qkv.bias", &[96]),
    ("model.visual.merger.mlp.0.weight", &[64, 64]),
    ("model.visual.merger.mlp.2.weight", &[64, 64]),
];

const HYBRID_CONFIG: &str = r#"{"model_type": "x", "text_config": {"tie_word_embeddings": true}}"#;

#[test]
fn models_without_a_preset_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let block = |n: usize, part: &str| format!("encoder.block.{n}.layer.{part}.weight");
    let t5: Vec<String> =
        (0..4).flat_map(|n| ["0.SelfAttention.q", "1.DenseReluDense.wi_0"].map(|p| block(n, p))).collect();
    let t5: Vec<(&str, &[usize])> = t5.iter().map(|name| (&name[..], &[64, 64][..])).collect();
    let wrapped = HYBRID.map(|(name, shape)| (format!("_orig_mod.module.{name}"), shape));
    let wrapped: Vec<(&str, &[usize])> = wrapped.iter().map(|(name, shape)| (&name[..], *shape)).collect();
    for (name, config, tensors, groups) in [
        ("hybrid", HYBRID_CONFIG, &HYBRID[..], 9),
        ("wrapped", "{}", &wrapped, 9),
        ("t5", r#"{"model_type": "t5"}"#, &t5, 4),
    ] {
        let source = dir.path().join(name);
        write(&source, config, tensors);
        let alone = dir.path().join(format!("{name}-alone"));
        std::fs::create_dir(&alone).unwrap();
        for out in [dir.path().join(format!("{name}-out")), alone.join("out.safetensors")] {
            let json: Value = serde_json::from_str(&compress(&source, &out, &["--json"]).good()).unwrap();
            assert_eq!((&json["preset"], &json["groups"]), (&"automatic".into(), &groups.into()), "{name}");
            run_on("verify", &out, &["--against", source.to_str().unwrap()]).good();
        }
        // By name, and by the patterns that are printed for it: the same bytes. Shapes are written unasked with automatic groups only,
        // and so is the number of tensors in config.json.
        let printed = run(["presets", "--for", source.to_str().unwrap(), "--quiet"]).good();
        let file = dir.path().join("patterns.json");
        std::fs::write(&file, &printed).unwrap();
        let mut reference = models::tree(&dir.path().join(format!("{name}-out")));
        let config = |tree: &mut std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| -> Value {
            serde_json::from_slice(&tree.remove(Path::new("config.json")).unwrap()).unwrap()
        };
        let said = config(&mut reference);
        for (out, more) in
            [("named", ["--preset", "auto", "--shapes"]), ("given", ["--pattern", file.to_str().unwrap(), "--shapes"])]
        {
            let out = dir.path().join(format!("{name}-{out}"));
            compress(&source, &out, &more).good();
            let mut written = models::tree(&out);
            let mut ours = config(&mut written);
            if more[0] == "--pattern" {
                ours["dfloat11_config"]["tensors"] = said["dfloat11_config"]["tensors"].clone();
            }
            assert_eq!(ours, said);
            models::same(&written, &reference);
        }
    }
}

/// A head that is stored decides whether a model is tied: config.json may say so, and the bits not.
#[test]
fn a_head_that_differs_is_not_tied() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = models::qwen3(2, 16_384);
    for (name, equal, preset) in [("different", false, "qwen3"), ("equal", true, "qwen3-tied")] {
        if equal {
            let embedding = models::find(&mut tensors, "model.embed_tokens.weight").data.clone();
            models::find(&mut tensors, "lm_head.weight").data = embedding;
        }
        let source = dir.path().join(name);
        models::write_source(&source, &tensors, 2);
        std::fs::write(source.join("config.json"), r#"{"model_type": "qwen3", "tie_word_embeddings": true}"#).unwrap();
        let out = dir.path().join(format!("{name}-out"));
        let ran = compress(&source, &out, &["--json"]);
        assert_eq!(
            (ran.code, ran.err.contains("differs from 'model.embed_tokens.weight'")),
            (0, !equal),
            "{}",
            ran.err
        );
        let json: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((&json["preset"], json["dropped"].as_array().unwrap().len()), (&preset.into(), usize::from(equal)));
        assert!(equal || json["grouped_share"].as_f64().unwrap() > 0.98, "{json:#}");
        run_on("verify", &out, &["--against", source.to_str().unwrap()]).good();
        let plan: Value = serde_json::from_str(&run_on("plan", &source, &["--json"]).out).unwrap();
        assert_eq!(plan["preset"], preset);
        let ran = run(["presets", "--for", source.to_str().unwrap()]);
        assert!(ran.code == 0 && ran.err.contains(&format!("preset {preset}:")), "{}", ran.err);
    }
}

/// The patterns that would be used are printed, and where they come from is said beside.
#[test]
fn the_patterns_for_a_model_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let hybrid = dir.path().join("hybrid");
    write(&hybrid, HYBRID_CONFIG, &HYBRID);
    let ran = run(["presets", "--for", hybrid.to_str().unwrap()]);
    assert_eq!((ran.code, &ran.err[..]), (0, "df11: automatic: 9 groups, 99.8 % of the bf16 bytes\n"));
    let dict: Value = serde_json::from_str(&ran.out).unwrap();
    let layers = r"model\.language_model\.layers\.";
    assert_eq!(
        dict,
        serde_json::json!({
            r"model\.language_model\.embed_tokens": [],
            format!("{layers}[01]"): ["linear_attn.in_proj", "mlp.experts.0.w1", "mlp.experts.1.w1"],
            format!("{layers}2"): ["mlp.experts.0.w1", "mlp.experts.1.w1", "self_attn.q_proj"],
            r"model\.visual\.blocks\.\d+": ["attn.qkv"],
            r"model\.visual\.merger\.mlp\.\d+": [],
            r"model\.visual\.patch_embed\.proj": [],
        })
    );
    let qwen3 = dir.path().join("qwen3");
    models::write_source(&qwen3, &models::qwen3(2, 2048), 1);
    let ran = run(["presets", "--for", qwen3.to_str().unwrap()]);
    assert_eq!((ran.code, &ran.err[..]), (0, "df11: preset qwen3: 4 groups, 99.5 % of the bf16 bytes\n"));
    assert_eq!(ran.out, run(["presets", "qwen3"]).good());
    let ran = run(["presets", "automatic", "--for", qwen3.to_str().unwrap()]);
    assert!(ran.code == 0 && ran.err.starts_with("df11: automatic: 4 groups"), "{}", ran.err);

    run(["presets", "automatic"]).bad(2, &["--for MODEL"]);
    assert_eq!(run(["presets", "--json", "--for", "x"]).code, 2);
    let none = dir.path().join("none");
    write(&none, "", &[("a!", &[64, 64]), ("b", &[64, 64])]);
    run(["presets", "--for", none.to_str().unwrap()]).bad(2, &["'.weight'", "1 group without a pattern"]);

    // What the patterns cover, and what all groups do.
    let fused = dir.path().join("fused");
    write(&fused, "", &[("layers.0.attn.weight", &[64, 64]), ("layers.0.experts.up", &[3, 64, 64])]);
    let ran = run(["presets", "--for", fused.to_str().unwrap()]);
    let (begins, ends) = ("df11: automatic: 1 group, 25.0 % of the bf16 bytes; with 1 group more ", " 100.0 %\n");
    assert!(ran.code == 0 && ran.err.starts_with(begins) && ran.err.ends_with(ends), "{}", ran.err);
    // Without them it is a matter of the format, however small they are.
    let out = dir.path().join("out");
    let ran = run_on("compress", &fused, &["--reference-only", "-o", out.to_str().unwrap()]);
    assert!(ran.code == 0 && ran.out.contains("the reference's format cannot name or hold them"), "{}", ran.out);
}
