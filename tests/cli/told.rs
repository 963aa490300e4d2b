//! What the tool says of what it did, what it left out, and what is absent.

use df11::Dtype;
use serde_json::Value;
use std::path::Path;

use super::support::files;
use super::{Ran, list, models, run_on};

fn compress(source: &Path, out: &Path, more: &[&str]) -> Ran {
    run_on("compress", source, &[&["-o", out.to_str().unwrap()], more].concat())
}

/// A group with an infinity, a matrix that nobody asks for, a norm, and files of all kinds beside them.
#[test]
fn the_summary_says_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    let mut tensors = models::qwen3(3, 4096);
    models::find(&mut tensors, "model.layers.1.mlp.up_proj.weight").data[..2].copy_from_slice(&[0x80, 0x7f]);
    tensors.push(models::plain("model.extra", &[1; 70_000]));
    models::write_source(&source, &tensors, 1);
    for file in ["onnx/model.onnx", "onnx/model.onnx_data", "optimizer.bin", "x.distcp", "vocab.bin"] {
        std::fs::create_dir_all(source.join(file).parent().unwrap()).unwrap();
        std::fs::write(source.join(file), "12345678").unwrap();
    }
    std::fs::write(source.join("tokenizer.json"), vec![b' '; 11_000_000]).unwrap();
    std::fs::write(source.join("other.safetensors.part"), "123").unwrap();

    let ran = compress(&source, &out, &["--preset", "qwen3"]);
    assert!(
        ran.code == 0 && ran.err.contains("'other.safetensors.part'") && ran.err.contains("not ended"),
        "{}",
        ran.err
    );
    let text = ran.out;
    // Two layers of three, the embedding and the head.
    let (grouped, all) = (2 * (2 * 7 + 4) * 4096, 2 * (3 * 7 + 4) * 4096 + 2 * 4 * 64 + 140_000);
    let share = format!("in groups  {:.2} % of the bf16 bytes", (1e4 * grouped as f64 / all as f64).floor() / 100.0);
    for line in [
        &share[..],
        "           the largest: 'model.extra' 140.0 kB",
        "copied     'tokenizer.json', 11.00 MB",
        "not copied 'onnx/model.onnx', 8 B",
        "not copied 'onnx/model.onnx_data', 8 B",
        "not copied 'optimizer.bin', 8 B",
        "not copied 'other.safetensors.part', 3 B",
        "not copied 'x.distcp', 8 B",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in:\n{text}");
    }
    assert!(!text.contains("vocab.bin") && out.join("vocab.bin").exists() && !out.join("onnx").exists());
    for (start, end) in [
        ("plain      7 tensors, 57.34 kB, ", "in a group with an infinity, a NaN or a value of 2^113 and more"),
        ("plain      1 tensor, 140.0 kB, ", "the reference's format cannot name or hold them"),
        ("plain      4 tensors, 512 B, ", "too small for a group to pay"),
    ] {
        assert!(text.lines().any(|l| l.starts_with(start) && l.ends_with(end)), "no '{start}' in:\n{text}");
    }

    let json = compress(&source, &dir.path().join("json"), &["--preset", "qwen3", "--json", "-q"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["grouped_bf16_bytes"], &json["bf16_bytes"]), (&grouped.into(), &all.into()));
    let reasons =
        json["plain"].as_array().unwrap().iter().map(|plain| (plain["reason"].as_str().unwrap(), &plain["bytes"]));
    let want = [("format", &140_000.into()), ("values", &57_344.into()), ("too_small", &512.into())];
    assert_eq!(reasons.collect::<Vec<_>>(), want);
    assert_eq!(json["plain"][0]["largest"][0], serde_json::json!({ "tensor": "model.extra", "bytes": 140_000 }));
    assert_eq!((&json["left_behind_bytes"], &json["carried_bytes"]), (&(4 * 8 + 3).into(), &11_000_008.into()));
}

/// What cannot be compressed at all ends with 1 and leaves nothing, unless a copy is wanted.
#[test]
fn nothing_to_compress_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    let mut tensors = models::qwen3(1, 4096);
    tensors.iter_mut().for_each(|t| (t.dtype, t.shape) = (Dtype::F8_E4M3, vec![t.data.len()]));
    models::write_source(&source, &tensors, 1);
    for more in [&[][..], &["--preset", "qwen3"]] {
        compress(&source, &out, more).bad(1, &["nothing can be compressed", "F8_E4M3", "allow-plain"]);
        assert_eq!(list(dir.path()), ["source"]);
        compress(&source, &out, &[more, &["--allow-plain", "-q"]].concat()).good();
        run_on("verify", &out, &[]).bad(1, &["no tensor is in a group"]);
        run_on("verify", &out, &["--allow-plain"]).good();
        run_on("verify", &out, &["--against", source.to_str().unwrap()]).good();
        std::fs::remove_dir_all(&out).unwrap();
    }
    // A variant that could be taken is named.
    std::fs::write(source.join("model.bf16.safetensors"), files::file(&models::qwen3(1, 4096))).unwrap();
    compress(&source, &out, &[]).bad(1, &["'model.bf16.safetensors' beside it is bf16: give that file"]);
}

#[test]
fn what_is_absent_is_an_error_of_the_tool() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    models::write_source(&source, &models::qwen3(5, 4096), 3);
    compress(&source, &out, &["-q"]).good();
    run_on("verify", &out, &[]).good();
    std::fs::remove_file(out.join("model_layers_3.safetensors")).unwrap();
    for command in ["verify", "inspect"] {
        let ran = run_on(command, &out, &[]);
        ran.bad(1, &["incomplete", "'model.layers.3' is absent"]);
        assert!(ran.out.contains("MISSING") && ran.out.contains("'model.layers.3'"), "{}", ran.out);
        run_on(command, &out, &["--incomplete"]).good();
    }
    for (number, command) in ["decompress", "repack", "plan"].into_iter().enumerate() {
        let to = dir.path().join(format!("to{number}"));
        let to: &[&str] = if command == "plan" { &[] } else { &["-o", to.to_str().unwrap()] };
        let remedy = format!("{command} what is there with --incomplete");
        run_on(command, &out, to).bad(1, &["'model.layers.3' is absent", &remedy]);
        assert_eq!(list(dir.path()), ["out", "source"]);
        run_on(command, &out, &[to, &["--incomplete", "-q"]].concat()).good();
        if let Some(to) = to.get(1) {
            std::fs::remove_dir_all(to).unwrap();
        }
    }
    // What is chosen is there.
    let part = dir.path().join("part.safetensors");
    run_on("decompress", &out, &["--group", "model.layers.2", "-o", part.to_str().unwrap()]).good();
    std::fs::remove_file(part).unwrap();
    let json = run_on("inspect", &out, &["--json", "--incomplete"]).good();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["missing"][0]["name"], "model.layers.3");

    // A source: with its index, without it, and one file of it.
    const SHARD: &str = "model-00002-of-00003.safetensors";
    std::fs::remove_file(source.join(SHARD)).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    for index in [true, false] {
        if !index {
            std::fs::remove_file(source.join("model.safetensors.index.json")).unwrap();
        }
        compress(&source, &out, &[]).bad(1, &[SHARD, "absent", "compress what is there with --incomplete"]);
        run_on("plan", &source, &[]).bad(1, &[SHARD, "absent", "plan what is there with --incomplete"]);
        run_on("plan", &source, &["--incomplete", "-q"]).good();
        run_on("inspect", &source, &[]).bad(1, &[SHARD]);
    }
    compress(&source.join("model-00001-of-00003.safetensors"), &out, &[]).bad(1, &["give the whole folder"]);
    assert_eq!(list(dir.path()), ["source"]);
}
