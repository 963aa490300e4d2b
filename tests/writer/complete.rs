//! What a model lacks: found where it is certain, and not where names only look like it.

use crate::support;

use df11::verify::{self, FindingKind, VerifyOptions};
use df11::writer::{self, CompressOptions, Layout, Patterns};
use df11::{DecodeOptions, Dtype, Model, OpenOptions, Progress, Status};
use serde_json::{Value, json};
use std::path::Path;
use support::files::{self, Stored};
use support::weights;
use tempfile::TempDir;

/// A small matrix for each name.
fn matrices<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Vec<Stored> {
    let matrix = |name: S| {
        let weights = weights::trained_like(64 * 64, name.as_ref().len() as u64);
        Stored::new(name.as_ref(), Dtype::BF16, &[64, 64], bytemuck::cast_slice(&weights).to_vec())
    };
    names.into_iter().map(matrix).collect()
}

/// The names of the tensors of a usual block.
fn block(parent: &str, number: u32) -> Vec<String> {
    let parts = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];
    parts.iter().map(|part| format!("{parent}.{number}.{part}.weight")).collect()
}

fn blocks(parent: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().flat_map(|number| block(parent, number)).collect()
}

/// A folder of files, each with a matrix for each of these names, and a config.
fn folder(files: &[(&str, Vec<String>)], config: Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, tensors) in files {
        std::fs::write(folder.path().join(name), files::file(&matrices(tensors))).unwrap();
    }
    if !config.is_null() {
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    }
    folder
}

fn write_index(folder: &Path, name: &str, map: &[(&str, &str)]) {
    let map: serde_json::Map<String, Value> = map.iter().map(|(t, f)| ((*t).to_owned(), (*f).into())).collect();
    std::fs::write(folder.join(name), json!({ "weight_map": map }).to_string()).unwrap();
}

fn missing(folder: &Path) -> Vec<String> {
    let found = Model::open(folder, &OpenOptions::new()).unwrap().missing().unwrap();
    for missing in &found {
        assert!(missing.reason.contains(&missing.name) && missing.reason.len() < 160, "{missing:?}");
    }
    found.into_iter().map(|missing| missing.name).collect()
}

fn options() -> CompressOptions {
    let attributes = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];
    let patterns = json!({ r"model\.layers\.\d+": attributes, r"model\.embed_tokens": [], "lm_head": [] });
    CompressOptions::new().patterns(Patterns::parse(&patterns.to_string()).unwrap())
}

/// A model of so many layers, with an embedding and a head.
fn layers(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut names = blocks("model.layers", numbers);
    names.extend(["model.embed_tokens.weight".into(), "lm_head.weight".into()]);
    names
}

/// Each source lacks one thing, by name; the other tensors are whole.
#[test]
fn what_is_absent_is_found() {
    let shard = |k: u32, n: u32| format!("model-{k:05}-of-{n:05}.safetensors");
    let (one, three) = (shard(1, 3), shard(3, 3));
    let count = |n: u32| json!({ "num_hidden_layers": n });
    type Case<'c> = (&'c [(&'c str, Vec<String>)], Value, &'c str);
    let cases: [Case; 13] = [
        // By the numbers in names of files.
        (&[(&one, layers([0, 1])), (&three, blocks("model.layers", [2]))], Value::Null, &shard(2, 3)),
        (&[("x-00000-of-00002.safetensors", layers([0]))], Value::Null, "x-00001-of-00002.safetensors"),
        (&[("d.bf16-00001-of-00002.safetensors", layers([0]))], Value::Null, "d.bf16-00002-of-00002.safetensors"),
        (&[("m-1-of-2.bf16.safetensors", layers([0]))], Value::Null, "m-2-of-2.bf16.safetensors"),
        // By a gap that config.json confirms, in whatever files; at the beginning, too.
        (&[("model.safetensors", layers([0, 1, 2, 4]))], count(5), "model.layers.3"),
        (&[("model.safetensors", layers([2, 3]))], json!({ "text_config": { "n_layers": 4 } }), "model.layers.0 to 1"),
        (
            &[("model.safetensors", blocks("transformer_blocks", [0, 3]))],
            json!({ "_class_name": "X", "num_layers": 4 }),
            "transformer_blocks.1 to 2",
        ),
        // Layers of prediction come after those that are counted.
        (
            &[("model.safetensors", layers([0, 1, 3, 4]))],
            json!({ "num_hidden_layers": 4, "num_nextn_predict_layers": 1 }),
            "model.layers.2",
        ),
        (
            &[("model.safetensors", blocks("model.layers.0.mlp.experts", [0, 2]))],
            json!({ "num_local_experts": 3 }),
            "model.layers.0.mlp.experts.1",
        ),
        // By a gap among blocks that are alike.
        (&[("a.safetensors", layers([0, 1, 2, 4])), ("b.safetensors", vec![])], Value::Null, "model.layers.3"),
        // By an end that comes too early.
        (&[("a.safetensors", layers([0, 1])), ("b.safetensors", vec![])], count(3), "model.layers.2"),
        (
            &[("a.safetensors", layers([0, 1])), ("b.safetensors", blocks("model.vision_tower.encoder.layers", [0]))],
            json!({ "num_hidden_layers": 2, "vision_config": { "depth": 3 } }),
            "model.vision_tower.encoder.layers.1 to 2",
        ),
        (
            &[
                ("a.safetensors", blocks("model.decoder.layers", 0..2)),
                ("b.safetensors", blocks("model.encoder.layers", 0..4)),
            ],
            json!({ "num_hidden_layers": 4, "encoder_layers": 4, "decoder_layers": 3 }),
            "model.decoder.layers.2",
        ),
    ];
    for (files, config, name) in cases {
        let folder = folder(files, config);
        assert_eq!(missing(folder.path()), [name]);
        let to = tempfile::tempdir().unwrap();
        let out = to.path().join("out");
        let compress = |options: &CompressOptions| writer::compress(folder.path(), &out, options, &Progress::new());
        let error = compress(&options()).unwrap_err();
        assert_eq!(error.status(), Status::InvalidFormat, "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("option incomplete"), "{error}");
        assert!(!out.exists());
        if name.starts_with("model.layers.") && !name.contains("experts") {
            // What was absent then is not reported afterwards, but what gets lost then is.
            let report = compress(&options().incomplete(true)).unwrap();
            assert_eq!(report.missing.iter().map(|m| &m.name[..]).collect::<Vec<_>>(), [name]);
            assert_eq!(missing(&out), Vec::<String>::new());
            std::fs::remove_file(out.join("model_embed_tokens.safetensors")).unwrap();
            assert_eq!(missing(&out), ["model.embed_tokens"]);
        }
    }
}

/// None of these lacks anything: numbers have gaps for many reasons, and configs count for others.
#[test]
fn there_is_no_false_alarm() {
    let count = |n: u32| json!({ "num_hidden_layers": n });
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let join = |parts: &[Vec<String>]| parts.concat();
    let two = |tensors: Vec<String>| vec![("a.safetensors", tensors), ("b.safetensors", vec!["other.weight".into()])];
    let one = |tensors: Vec<String>| vec![("model.safetensors", tensors)];
    // A convolutional codec: layers without weights lie between.
    let mut codec = Vec::new();
    for number in [0, 3, 6, 9] {
        codec.push(format!("encoder.layers.{number}.conv.weight"));
        codec.extend([1, 3].map(|inner| format!("encoder.layers.{}.block.{inner}.conv.weight", number + 1)));
    }
    let adapter = (1..12).step_by(2).flat_map(|i| ["k", "v", "o"].map(|m| format!("ip_adapter.{i}.to_{m}.weight")));
    let experts = |layer: u32| blocks(&format!("model.layers.{layer}.mlp.experts"), 0..4);
    let cases = [
        (two(names(&["m.0.weight", "m.2.weight", "m.4.weight", "x.mlp.0.weight", "x.mlp.2.weight"])), Value::Null),
        (two(codec), json!({ "num_hidden_layers": 8 })),
        (two(adapter.collect()), Value::Null),
        // Blocks that have nothing in common.
        (
            two(join(&[blocks("net", [0, 1]), names(&["net.3.a.weight", "net.4.b.weight", "net.5.c.weight"])])),
            Value::Null,
        ),
        // More layers than config.json counts, and experts in some of the layers.
        (
            two(join(&[layers(0..5), experts(1), experts(4)])),
            json!({ "num_hidden_layers": 4, "n_routed_experts": 256 }),
        ),
        // As many layers as it counts, under other numbers.
        (two(layers([0, 1, 2, 4])), count(4)),
        // The encoder is the longer one, and the decoder has no count of its own.
        (two(join(&[blocks("model.encoder.layers", 0..4), blocks("model.decoder.layers", 0..2)])), count(4)),
        // The last layer of the vision model is left out on purpose.
        (
            two(join(&[layers(0..2), blocks("vision_tower.layers", 0..3)])),
            json!({ "num_hidden_layers": 2, "vision_feature_layer": -2, "vision_config": { "num_hidden_layers": 4 } }),
        ),
        // Parts with other names, or configs of their own.
        (two(join(&[layers(0..3), blocks("mtp.layers", 0..1), blocks("talker.model.layers", 0..2)])), count(3)),
        (two(names(&["encoder.albert_layer_groups.0.albert_layers.0.ffn.weight"])), count(12)),
        // A file that is whole, of a model that somebody has made smaller.
        (one(layers(0..2)), count(6)),
        (
            one(blocks("transformer_blocks", 0..6)),
            json!({ "_class_name": "X", "num_layers": 28, "num_single_layers": 3 }),
        ),
        (one(layers([0, 1, 2, 4])), Value::Null),
        // All that the names count.
        (vec![("m-00001-of-00002.safetensors", layers(0..1)), ("m-00002-of-00002.safetensors", vec![])], count(1)),
    ];
    for (number, (files, config)) in cases.into_iter().enumerate() {
        let folder = folder(&files, config);
        assert_eq!(missing(folder.path()), Vec::<String>::new(), "case {number}");
    }
}

/// A model in one file that has fewer layers than its config says is compressed when that is wanted, and it is noted: otherwise its
/// folder of many files would seem to lack them. The config of any other model has no such note. One that has half of them or fewer
/// was made smaller, and needs no option.
#[test]
fn fewer_layers_than_the_config_says_are_noted() {
    let to = tempfile::tempdir().unwrap();
    for (there, lacks) in [(4, json!(["model.layers.4 to 5"])), (3, json!(["model.layers.3 to 5"])), (6, Value::Null)] {
        let folder = folder(&[("model.safetensors", layers(0..there))], json!({ "num_hidden_layers": 6 }));
        assert_eq!(missing(folder.path()).is_empty(), there != 4);
        for (layout, out) in [(Layout::Folder, "folder"), (Layout::SingleFile, "file")] {
            let out = to.path().join(format!("{out}{there}"));
            let run = |incomplete| {
                let options = options().layout(layout).incomplete(incomplete);
                writer::compress(folder.path(), &out, &options, &Progress::new())
            };
            let report = match run(false) {
                Err(error) => {
                    assert!(there == 4 && error.to_string().contains("'model.layers.4 to 5' is absent"), "{error}");
                    run(true).unwrap()
                }
                Ok(report) => report,
            };
            assert_eq!(report.missing.is_empty(), lacks.is_null());
            let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
            assert_eq!(config["dfloat11_config"]["lacks"], lacks);
            assert_eq!(missing(&out), Vec::<String>::new());
        }
        std::fs::remove_file(to.path().join(format!("folder{there}/model_layers_{}.safetensors", there - 1))).unwrap();
        let last = if there == 6 { "model.layers.5".into() } else { format!("model.layers.{} to 5", there - 1) };
        assert_eq!(missing(&to.path().join(format!("folder{there}"))), [last]);
    }
}

/// Names without some of them.
fn without(mut names: Vec<String>, absent: &[&str]) -> Vec<String> {
    for name in absent {
        let number = names.iter().position(|there| there == name).unwrap_or_else(|| panic!("no '{name}'"));
        names.remove(number);
    }
    names
}

/// A block of another kind of names.
fn named(parent: &str, numbers: impl IntoIterator<Item = u32>, parts: &[&str]) -> Vec<String> {
    let block = |number| parts.iter().map(move |part| format!("{parent}.{number}.{part}.weight"));
    numbers.into_iter().flat_map(block).collect()
}

const EXPERT: [&str; 3] = ["w1", "w2", "w3"];

/// The experts of layers, as many as `counts` says.
fn experts(counts: &[u32]) -> Vec<String> {
    let layer = |(layer, &count): (usize, &u32)| named(&format!("model.layers.{layer}.mlp.experts"), 0..count, &EXPERT);
    [layers(0..counts.len() as u32), counts.iter().enumerate().flat_map(layer).collect()].concat()
}

/// A matrix that all kin of a block have, and experts that all kin of a layer have: in one file, where none can be lost alone.
#[test]
fn what_one_block_lacks_is_found() {
    let count = |n: u32| json!({ "num_local_experts": n });
    let gated = ["attn.to_q", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "ff.net.2"];
    let cases: [(Vec<String>, Value, &[&str]); 14] = [
        (
            without(layers(0..9), &["model.layers.7.mlp.up_proj.weight"]),
            Value::Null,
            &["model.layers.7.mlp.up_proj.weight"],
        ),
        (
            without(layers(0..4), &["model.layers.3.mlp.down_proj.weight"]),
            Value::Null,
            &["model.layers.3.mlp.down_proj.weight"],
        ),
        (
            without(layers(0..9), &["model.layers.2.self_attn.o_proj.weight", "model.layers.5.mlp.up_proj.weight"]),
            Value::Null,
            &["model.layers.5.mlp.up_proj.weight", "model.layers.2.self_attn.o_proj.weight"],
        ),
        (
            without(named("transformer_blocks", 0..5, &gated), &["transformer_blocks.1.ff.net.2.weight"]),
            json!({ "_class_name": "X" }),
            &["transformer_blocks.1.ff.net.2.weight"],
        ),
        (without(named("h", 0..4, &["attn.q", "fc1", "fc2"]), &["h.0.fc1.weight"]), Value::Null, &["h.0.fc1.weight"]),
        // A bias is not a matrix.
        (
            [
                without(layers(0..4), &["model.layers.1.mlp.up_proj.weight"]),
                vec!["model.layers.1.mlp.up_proj.bias".into()],
            ]
            .concat(),
            Value::Null,
            &["model.layers.1.mlp.up_proj.weight"],
        ),
        // Keys without which there are values, which no architecture has.
        (
            without(named("l", 0..5, &["attn.q_proj", "attn.k_proj", "attn.v_proj"]), &["l.2.attn.k_proj.weight"]),
            Value::Null,
            &["l.2.attn.k_proj.weight"],
        ),
        // Of the first expert, and of the last.
        (
            without(experts(&[4, 4]), &["model.layers.0.mlp.experts.0.w3.weight"]),
            Value::Null,
            &["model.layers.0.mlp.experts.0.w3.weight"],
        ),
        (
            without(experts(&[4, 4]), &["model.layers.1.mlp.experts.3.w2.weight"]),
            count(4),
            &["model.layers.1.mlp.experts.3.w2.weight"],
        ),
        // Experts, by the other layers and by the config.
        (experts(&[4, 4, 3, 4]), Value::Null, &["model.layers.2.mlp.experts.3"]),
        (experts(&[4, 4, 4, 1]), count(4), &["model.layers.3.mlp.experts.1 to 3"]),
        (
            experts(&[3, 3]),
            json!({ "text_config": { "num_experts": 4 } }),
            &["model.layers.0.mlp.experts.3", "model.layers.1.mlp.experts.3"],
        ),
        (
            experts(&[5]),
            json!({ "n_routed_experts": 8, "num_experts_per_tok": 2 }),
            &["model.layers.0.mlp.experts.5 to 7"],
        ),
        // The last layer, in one file.
        (layers(0..5), json!({ "num_hidden_layers": 6 }), &["model.layers.5"]),
    ];
    for (names, config, expected) in cases {
        let folder = folder(&[("model.safetensors", names)], config);
        assert_eq!(missing(folder.path()), expected);
        let out = folder.path().join("out");
        let error = writer::compress(folder.path(), &out, &CompressOptions::new(), &Progress::new()).unwrap_err();
        assert!(error.to_string().contains(&format!("'{}' is absent", expected[0])), "{error}");
        assert!(!out.exists());
    }
}

/// Blocks of one stack differ for good reasons, and configs count in their own ways.
#[test]
fn kin_may_differ() {
    let some = |parent: &str, blocks: &[(u32, &[&str])]| {
        blocks.iter().flat_map(|&(number, parts)| named(parent, [number], parts)).collect::<Vec<_>>()
    };
    let repeat = |parent: &str, numbers: std::ops::Range<u32>, parts: &[&str]| named(parent, numbers, parts);
    let join = |parts: &[Vec<String>]| parts.concat();
    let qkvo = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let gated = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
    let joint =
        ["x.attn.qkv", "x.attn.proj", "context.attn.qkv", "context.attn.proj", "context.mlp.fc1", "context.mlp.fc2"];
    let mamba = ["mixer.in_proj", "mixer.out_proj"];
    let cases: [(Vec<String>, Value); 16] = [
        // Values that are the keys, and layers that use the keys and values of others.
        (without(repeat("l", 0..8, &qkvo), &["l.5.self_attn.v_proj.weight"]), Value::Null),
        (
            without(repeat("l", 0..8, &qkvo), &["l.5.self_attn.v_proj.weight", "l.5.self_attn.k_proj.weight"]),
            Value::Null,
        ),
        // One layer of linear attention has no gate.
        (
            join(&[
                repeat("l", 0..4, &["attention.dense", "attention.g_proj"]),
                some("l", &[(4, &["attention.dense"])]),
            ]),
            Value::Null,
        ),
        // The last block does not write the context.
        (join(&[repeat("j", 0..6, &joint), some("j", &[(6, &joint[..3])])]), Value::Null),
        // Blocks of three kinds under one name.
        (
            join(&[
                repeat("l", 0..4, &mamba),
                some("l", &[(4, &["mixer.up_proj", "mixer.down_proj"]), (5, &["mixer.q_proj", "mixer.o_proj"])]),
            ]),
            json!({ "num_hidden_layers": 6 }),
        ),
        // A dense layer among experts, and a block without an MLP.
        (join(&[repeat("l", 1..6, &["mlp.gate", "mlp.shared.up_proj"]), repeat("l", 0..1, &gated)]), Value::Null),
        (join(&[repeat("l", 0..5, &qkvo), repeat("l", 0..4, &gated)]), Value::Null),
        // The first MLP has no gate.
        (without(repeat("l", 0..5, &gated), &["l.0.mlp.gate_proj.weight"]), Value::Null),
        // One matrix has another form.
        (
            join(&[
                without(repeat("l", 0..5, &gated), &["l.2.mlp.up_proj.weight"]),
                vec!["l.2.mlp.up_proj.qweight".into()],
            ]),
            Value::Null,
        ),
        // Too few to tell.
        (without(repeat("l", 0..3, &gated), &["l.1.mlp.up_proj.weight"]), Value::Null),
        // Experts of text and of pictures, of which the last layer has none; pruned ones; numbers that differ everywhere.
        (experts(&[8, 8, 8, 4]), json!({ "moe_num_experts": [4, 4] })),
        (experts(&[4, 4]), json!({ "num_experts": 8 })),
        (experts(&[4, 7, 8, 5]), json!({ "num_experts": 8 })),
        (
            experts(&[6, 6]),
            json!({ "num_experts": 8, "talker_config": { "num_experts": 8 }, "text_config": { "num_experts": 6 } }),
        ),
        // Layers in two stacks, and layers that are shared.
        (
            join(&[blocks("model.self_decoder.layers", 0..4), blocks("model.cross_decoder.layers", 0..2)]),
            json!({ "num_hidden_layers": 6 }),
        ),
        (layers(0..5), json!({ "num_hidden_layers": 6, "layer_sharing": true })),
    ];
    for (number, (names, config)) in cases.into_iter().enumerate() {
        let folder = folder(&[("model.safetensors", names)], config);
        assert_eq!(missing(folder.path()), Vec::<String>::new(), "case {number}");
        let to = tempfile::tempdir().unwrap();
        let out = to.path().join("out");
        let options = CompressOptions::new().allow_plain(true);
        writer::compress(folder.path(), &out, &options, &Progress::new()).unwrap();
        assert_eq!(missing(&out), Vec::<String>::new(), "case {number}, compressed");
    }
}

/// A norm, or another vector.
fn vector(name: &str) -> Stored {
    Stored::new(name, Dtype::BF16, &[64], vec![0; 128])
}

/// The file of what belongs to no group is missed where something in the model says that there was one. Where the source had nothing
/// for it, that is noted.
#[test]
fn the_file_beside_the_groups_is_missed() {
    let norms = (0..3).map(|l| vector(&format!("model.layers.{l}.input_layernorm.weight")));
    let llama: Vec<Stored> = matrices(layers(0..3)).into_iter().chain(norms).collect();
    let single = matrices(named("transformer_blocks", 0..3, &["attn.to_q", "attn.to_out.0"]));
    let patterns = json!({ r"transformer_blocks\.\d+": ["attn.to_q", "attn.to_out.0"] });
    let of_blocks = CompressOptions::new().patterns(Patterns::parse(&patterns.to_string()).unwrap());
    let cases = [
        (llama, "model.norm.weight", options(), json!({ "num_hidden_layers": 3 }), "model.safetensors"),
        (single, "x_embedder.bias", of_blocks, json!({ "_class_name": "X" }), "diffusion_pytorch_model.safetensors"),
    ];
    for (tensors, rest, options, config, name) in cases {
        for has_rest in [true, false] {
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let more = has_rest.then(|| vector(rest));
            let all: Vec<Stored> = tensors.iter().cloned().chain(more).collect();
            std::fs::write(from.path().join(name), files::file(&all)).unwrap();
            std::fs::write(from.path().join("config.json"), config.to_string()).unwrap();
            let out = to.path().join("out");
            let report = writer::compress(from.path(), &out, &options, &Progress::new()).unwrap();
            let noted: Vec<&str> = report.missing.iter().map(|missing| &missing.name[..]).collect();
            assert_eq!(noted, if has_rest { vec![] } else { vec![name] });
            assert_eq!(missing(&out), Vec::<String>::new());
            if has_rest {
                std::fs::remove_file(out.join(name)).unwrap();
                assert_eq!(missing(&out), [name]);
            }
        }
    }
}

/// The tools of the Hub keep what they have of a file in a hidden folder until it is whole.
#[test]
fn a_download_of_the_hub_that_has_not_ended() {
    const LATER: &str = "model_layers_3.safetensors";
    let (etag, other) = ("a".repeat(64), "b".repeat(64));
    let hub = Path::new(".cache/huggingface/download");
    let begun = |names: &[String], metadata: &[(&str, &str)], inside: bool| {
        let above = tempfile::tempdir().unwrap();
        let model = if inside { above.path().join("transformer") } else { above.path().to_owned() };
        let cache = if inside { above.path().join(hub).join("transformer") } else { above.path().join(hub) };
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("a.safetensors"), files::file(&matrices(["x.weight"]))).unwrap();
        for name in names {
            std::fs::write(cache.join(name), "").unwrap();
        }
        for (name, etag) in metadata {
            std::fs::write(cache.join(format!("{name}.metadata")), format!("commit\n{etag}\n1.5\n")).unwrap();
        }
        missing(&model)
    };
    let hashed = format!("hash=.{etag}.incomplete");
    let lock = |name: &str| format!("{name}.lock");
    for inside in [false, true] {
        assert_eq!(begun(&[format!("{LATER}.{etag}.incomplete")], &[], inside), [LATER]);
        assert_eq!(
            begun(&[hashed.clone(), lock(LATER), lock("a.safetensors")], &[("a.safetensors", &other)], inside),
            [LATER]
        );
        assert_eq!(begun(std::slice::from_ref(&hashed), &[], inside), [hub.to_str().unwrap()]);
        // Of a file that is there by now, of a small one, of no weights, or of none.
        let nothing = Vec::<String>::new();
        assert_eq!(begun(std::slice::from_ref(&hashed), &[("a.safetensors", &etag)], inside), nothing);
        assert_eq!(begun(&[format!("a.safetensors.{etag}.incomplete")], &[], inside), nothing);
        assert_eq!(begun(&[format!("hash=.{}.incomplete", "c".repeat(40))], &[], inside), nothing);
        assert_eq!(begun(&[hashed.clone(), lock("pytorch_model.bin")], &[], inside), nothing);
        assert_eq!(begun(&[lock(LATER)], &[], inside), nothing);
    }
}

/// Whichever file of a compressed folder gets lost, verification says so, as far as its name or its tensors' tell.
#[test]
fn a_lost_file_is_found_by_verification() {
    let config = json!({ "num_hidden_layers": 5, "tie_word_embeddings": false });
    let folder = folder(&[("model.safetensors", layers(0..5))], config);
    for (file, name) in [
        ("model_layers_0", "model.layers.0"),
        ("model_layers_2", "model.layers.2"),
        ("model_layers_4", "model.layers.4"),
        ("model_embed_tokens", "model.embed_tokens"),
        ("lm_head", "lm_head"),
    ] {
        let to = tempfile::tempdir().unwrap();
        writer::compress(folder.path(), to.path(), &options(), &Progress::new()).unwrap();
        let verify = |options: &VerifyOptions| {
            let model = Model::open(to.path(), &OpenOptions::new()).unwrap();
            let mut wrong = Vec::new();
            let verified = verify::verify_model(&model, None, options, &Progress::new(), &mut |finding| {
                if finding.kind.is_wrong() {
                    wrong.push((finding.kind, finding.name.to_owned()));
                }
            });
            (verified.unwrap(), wrong)
        };
        assert!(verify(&VerifyOptions::new()).0.is_good());
        std::fs::remove_file(to.path().join(format!("{file}.safetensors"))).unwrap();
        let (verified, wrong) = verify(&VerifyOptions::new());
        assert!(!verified.is_good() && verified.missing == 1, "{verified:?}");
        assert_eq!(wrong, [(FindingKind::Missing, name.to_owned())]);
        assert!(verify(&VerifyOptions::new().incomplete(true)).0.is_good());
    }
    // A download that still goes on.
    let to = tempfile::tempdir().unwrap();
    writer::compress(folder.path(), to.path(), &options(), &Progress::new()).unwrap();
    std::fs::write(to.path().join("model_layers_3.safetensors.aria2"), "x").unwrap();
    assert_eq!(missing(to.path()), ["model_layers_3.safetensors"]);
}

/// What transformers saves of a compressed model lists the members of groups in its index.
#[test]
fn an_index_may_list_members_of_groups() {
    let folder = tempfile::tempdir().unwrap();
    let file = "model.safetensors";
    for name in [file, "config.json"] {
        std::fs::copy(support::golden::model("block").join(name), folder.path().join(name)).unwrap();
    }
    let index = "model.safetensors.index.json";
    let there = [("model.norm.weight", file), ("lm_head.luts", file), ("model.layers.0.gaps", file)];
    write_index(folder.path(), index, &there);
    assert_eq!(missing(folder.path()), [""; 0]);
    // Neither a group that is not there nor a name that only looks like a member's.
    for name in ["model.layers.7.gaps", "model.layers.0.slack"] {
        write_index(folder.path(), index, &[there[0], there[1], (name, file)]);
        assert_eq!(missing(folder.path()), [name]);
    }
}

/// An index says which files are the model, whatever it is called, and which of two tensors of one name counts.
#[test]
fn the_index_decides() {
    let (a, b) = ("d.bf16-00001-of-00002.safetensors", "d.bf16-00002-of-00002.safetensors");
    let index = "d.safetensors.index.bf16.json";
    let folder = folder(&[(a, layers(0..1)), (b, blocks("model.layers", 1..2))], Value::Null);
    std::fs::write(folder.path().join("other.safetensors"), files::file(&matrices(["stray.weight"]))).unwrap();
    let mut map: Vec<(String, &str)> = layers(0..1).into_iter().map(|name| (name, a)).collect();
    map.extend(blocks("model.layers", 1..2).into_iter().map(|name| (name, b)));
    let write = |map: &[(String, &str)]| {
        let map: Vec<(&str, &str)> = map.iter().map(|(name, file)| (&name[..], *file)).collect();
        write_index(folder.path(), index, &map);
    };
    write(&map);
    let to = tempfile::tempdir().unwrap();
    let compress = |name: &str| writer::compress(folder.path(), &to.path().join(name), &options(), &Progress::new());
    let report = compress("whole").unwrap();
    assert!(report.left_behind.iter().any(|file| file.path == Path::new("other.safetensors")), "{report:?}");
    // It lists files that the new model has not, so it does not go with it.
    assert!(!to.path().join("whole").join(index).exists() && report.carried.is_empty());

    // A tensor that the index lists and its file has not.
    map.push(("gone.weight".into(), b));
    write(&map);
    let error = compress("gone").unwrap_err();
    assert!(
        error.status() == Status::InvalidFormat && error.to_string().contains("'gone.weight' is absent"),
        "{error}"
    );
    map.pop();

    // One that both have, with other bits: the index names the file. Without it nothing decides.
    let double = &layers(0..1)[0];
    let mut both = matrices(blocks("model.layers", 1..2));
    both.extend(matrices([double]));
    both.last_mut().unwrap().data[0] ^= 1;
    std::fs::write(folder.path().join(b), files::file(&both)).unwrap();
    for (file, is_second) in [(a, false), (b, true)] {
        map[0].1 = file;
        write(&map);
        compress(file).unwrap();
        let model = Model::open_original(folder.path()).unwrap();
        let written = Model::open(to.path().join(file), &OpenOptions::new()).unwrap();
        let equal = verify::verify_model(&written, Some(&model), &VerifyOptions::new(), &Progress::new(), &mut |_| {});
        assert!(equal.unwrap().is_good());
        let mut bytes = vec![0; 2 * 64 * 64];
        written.find_tensor(double).unwrap().read(0, &mut bytes, &DecodeOptions::new()).unwrap();
        assert_eq!(bytes == both.last().unwrap().data, is_second);
    }
    std::fs::remove_file(folder.path().join(index)).unwrap();
    let error = compress("none").unwrap_err();
    assert!(error.to_string().contains("no index decides"), "{error}");
    // A file that the index lists, and a file that it does not.
    write(&map);
    std::fs::remove_file(folder.path().join(a)).unwrap();
    let error = compress("absent").unwrap_err();
    assert!(error.to_string().contains(&format!("'{a}'")), "{error}");
}

/// One file with all weights beside an index and its shards is another copy, or another model: the index decides. An index of another
/// name does not.
#[test]
fn a_whole_file_beside_shards_is_not_the_model() {
    let (main, shard) = ("model.safetensors", "model-00001-of-00001.safetensors");
    let folder = folder(&[(main, layers(0..3)), (shard, layers(0..2))], Value::Null);
    let map: Vec<(String, &str)> = layers(0..2).into_iter().map(|name| (name, shard)).collect();
    let map: Vec<(&str, &str)> = map.iter().map(|(name, file)| (&name[..], *file)).collect();
    for (index, count, other) in
        [("model.safetensors.index.json", 2, main), ("model.safetensors.index.fp16.json", 3, shard)]
    {
        write_index(folder.path(), index, &map);
        let to = tempfile::tempdir().unwrap();
        let report = writer::compress(folder.path(), to.path(), &options(), &Progress::new()).unwrap();
        assert!(report.groups == 2 + count && report.missing.is_empty(), "{report:?}");
        assert_eq!(report.left_behind.iter().map(|file| &file.path).collect::<Vec<_>>(), [Path::new(other)]);
        std::fs::remove_file(folder.path().join(index)).unwrap();
    }
}

/// A model is not compressed to nothing, unless that is wanted.
#[test]
fn nothing_in_groups_is_an_error() {
    let names = layers(0..2);
    let infinite = matrices(&names).into_iter().map(|mut t| {
        t.data[..2].copy_from_slice(&0x7f80u16.to_le_bytes());
        t
    });
    let other = matrices(&names).into_iter().map(|t| Stored { dtype: Dtype::F16, ..t });
    for (tensors, reason, automatic) in [
        (infinite.collect::<Vec<_>>(), "each of 4 groups has an infinity", false),
        (other.clone().collect(), "is F16", false),
        (other.collect(), "the weights are F16, and only bf16 is compressed; convert it", true),
    ] {
        let from = tempfile::tempdir().unwrap();
        std::fs::write(from.path().join("model.safetensors"), files::file(&tensors)).unwrap();
        for layout in [Layout::Folder, Layout::SingleFile] {
            let to = tempfile::tempdir().unwrap();
            let options = if automatic { CompressOptions::new() } else { options() }.layout(layout);
            let out = to.path().join("out");
            let compress = |options: &CompressOptions| writer::compress(from.path(), &out, options, &Progress::new());
            let error = compress(&options).unwrap_err();
            assert_eq!(error.status(), Status::UnsupportedFormat, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0, "something was written");

            let report = compress(&options.allow_plain(true)).unwrap();
            assert!(report.complete && report.groups == 0 && report.coverage.grouped_bf16_bytes == 0, "{report:?}");
            let (model, original) =
                (Model::open(&out, &OpenOptions::new()).unwrap(), Model::open_original(from.path()).unwrap());
            let verify = |original, options: &VerifyOptions| {
                verify::verify_model(&model, original, options, &Progress::new(), &mut |_| {})
            };
            assert_eq!(verify(None, &VerifyOptions::new()).unwrap_err().status(), Status::InvalidFormat);
            assert!(verify(None, &VerifyOptions::new().allow_plain(true)).unwrap().is_good());
            assert!(verify(Some(&original), &VerifyOptions::new()).unwrap().is_good());
        }
    }
}
