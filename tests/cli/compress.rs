//! `df11 compress`: what it writes and carries, what it says, and what it refuses.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::support::files::{self, Stored};
use super::support::golden;
use super::{Ran, df11, list, models, run_on};

/// Compresses SOURCE to OUT.
pub fn compress(source: &Path, out: &Path, more: &[&str]) -> Ran {
    run_on("compress", source, &[&["-o", out.to_str().unwrap()], more].concat())
}

/// A small model in one shard, after `change`.
fn small(folder: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let mut tensors = models::qwen3(3, 2048);
    change(&mut tensors);
    models::write_source(folder, &tensors, 1);
}

/// The bytes of every tensor.
fn tensors_of(file: &Path) -> Vec<(String, Dtype, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = file.iter().map(|(n, v)| (n.to_owned(), v.dtype(), v.data().to_vec())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// To the reference's bytes in the layout that the reference had, and in the other to a model that is as good.
#[test]
fn every_golden_model_in_every_layout() {
    for name in golden::NAMES {
        let dir = tempfile::tempdir().unwrap();
        let original = golden::path(name).join("original.safetensors");
        let config = golden::model(name).join("config.json");
        let patterns = ["--pattern", config.to_str().unwrap()];
        for (out, more) in
            [("one.safetensors", &[][..]), ("single", &["--single-file"]), ("folder", &["--threads", "1"])]
        {
            let to = dir.path().join(out);
            let text = compress(&original, &to, &[&patterns, more].concat()).good();
            assert!(text.contains(out) && text.contains("groups ") && text.contains("model "), "{text}");
            let ours = match out {
                "one.safetensors" => Some(to.clone()),
                "single" => Some(to.join("model.safetensors")),
                _ => None,
            };
            match ours {
                Some(file) if name != "sharded" => {
                    assert!(
                        std::fs::read(&file).unwrap()
                            == std::fs::read(golden::model(name).join("model.safetensors")).unwrap()
                    );
                }
                None if name == "sharded" => {
                    let file = |f: &PathBuf| f.extension().is_some_and(|e| e == "safetensors");
                    let of = |folder: &Path| models::tree(folder).into_iter().filter(|(f, _)| file(f)).collect();
                    models::same(&of(&to), &of(&golden::model(name)));
                }
                _ => {}
            }
            let verified = run_on("verify", &to, &["--against", original.to_str().unwrap()]).good();
            assert!(verified.contains(" 0 bad") && verified.contains(", 0 different"), "{verified}");
            let back = dir.path().join("back.safetensors");
            run_on("decompress", &to, &["-qf", "-o", back.to_str().unwrap()]).good();
            assert!(tensors_of(&back) == tensors_of(&original), "{name} in {out}");
        }
    }
}

/// A folder as it is published: the preset is found, the weights are those of the index, and what goes with them is
/// carried along.
#[test]
fn a_published_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("Made-Up"), dir.path().join("Made-Up-DF11"));
    let tensors = models::qwen3(2, 4096);
    models::write_source(&source, &tensors, 3);
    std::fs::create_dir(source.join("assets")).unwrap();
    for (file, text) in [
        ("tokenizer.json", "{}"),
        ("generation_config.json", r#"{"top_p": 0.9}"#),
        ("assets/read.me", "nested"),
        (".gitattributes", "hidden"),
        ("pytorch_model.bin", "twice"),
    ] {
        std::fs::write(source.join(file), text).unwrap();
    }
    std::fs::write(source.join("consolidated.safetensors"), files::file(&tensors[..1])).unwrap();
    let before = models::tree(&source);

    let text = compress(&source, &out, &[]).good();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("Made-Up-DF11: 4 groups of 73,728 weights, preset qwen3"), "{text}");
    assert!(lines[1].starts_with("groups     147.5 kB became ") && lines[1].ends_with(" bits per weight"), "{text}");
    assert!(lines[2].starts_with("model      147.8 kB became ") && lines[2].ends_with(" %"), "{text}");
    let left: Vec<&&str> = lines.iter().filter(|l| l.starts_with("not copied ")).collect();
    let size = std::fs::metadata(source.join("consolidated.safetensors")).unwrap().len() as f64 / 1000.0;
    let shards = format!("not copied 'consolidated.safetensors', {size:.2} kB");
    assert_eq!(left, [&&shards[..], &"not copied 'pytorch_model.bin', 5 B"], "{text}");
    assert!(lines.contains(&"in groups  99.74 % of the bf16 bytes"), "{text}");
    assert!(!text.contains("left plain") && !text.contains("no match"), "{text}");

    models::same(&models::tree(&source), &before);
    let written = models::tree(&out);
    let names: Vec<&str> = written.keys().map(|path| path.to_str().unwrap()).collect();
    let expected = [
        "assets/read.me",
        "config.json",
        "generation_config.json",
        "lm_head.safetensors",
        "model.safetensors",
        "model_embed_tokens.safetensors",
        "model_layers_0.safetensors",
        "model_layers_1.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    for carried in ["assets/read.me", "generation_config.json", "tokenizer.json"] {
        assert!(written[Path::new(carried)] == before[Path::new(carried)], "{carried}");
    }
    let config: Value = serde_json::from_slice(&written[Path::new("config.json")]).unwrap();
    assert_eq!((&config["model_type"], &config["dfloat11_config"]["version"]), (&"qwen3".into(), &"0.5.0".into()));
    run_on("verify", &out, &["--against", source.to_str().unwrap()]).good();

    // The same again as JSON, and in silence.
    let json: Value = serde_json::from_str(&compress(&source, &dir.path().join("json"), &["--json"]).good()).unwrap();
    assert_eq!((&json["complete"], &json["preset"]), (&true.into(), &"qwen3".into()));
    assert_eq!(
        (&json["groups"], &json["weights"], &json["weight_bytes"]),
        (&4.into(), &73_728.into(), &147_456.into())
    );
    assert_eq!((&json["source_bytes"], &json["resumed"]), (&(147_456 + 3 * 128).into(), &0.into()));
    assert_eq!(json["carried"], serde_json::json!(["assets/read.me", "generation_config.json", "tokenizer.json"]));
    assert_eq!(json["left_behind"], serde_json::json!(["consolidated.safetensors", "pytorch_model.bin"]));
    for empty in ["left", "dropped", "unmatched_patterns"] {
        assert_eq!(json[empty], serde_json::json!([]), "{empty}");
    }
    let files = written.iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "safetensors"));
    assert_eq!(json["written_bytes"], files.map(|(_, bytes)| bytes.len()).sum::<usize>());
    let bits = 8.0 * json["packed_bytes"].as_f64().unwrap() / 73_728.0;
    assert!((json["bits_per_weight"].as_f64().unwrap() - bits).abs() < 1e-9 && json["seconds"].is_f64());
    assert_eq!(compress(&source, &dir.path().join("quiet"), &["--quiet", "--no-verify"]).good(), "");
    models::same(&models::tree(&dir.path().join("json")), &written);
    models::same(&models::tree(&dir.path().join("quiet")), &written);

    // One file in a folder has the same company.
    compress(&source, &dir.path().join("single"), &["--single-file"]).good();
    let names = ["assets", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(list(&dir.path().join("single")), names);
    run_on("verify", dir.path().join("single"), &["--against", source.to_str().unwrap()]).good();
}

/// What DF11 cannot hold stays as it is, and its whole group with it; `--strict` makes it an error.
#[test]
fn what_cannot_be_compressed_is_left_plain_by_name() {
    type Change = fn(&mut Vec<Stored>);
    let half: Change = |t| models::find(t, "model.layers.1.mlp.up_proj.weight").dtype = Dtype::F16;
    let infinite: Change = |t| {
        let tensor = models::find(t, "model.layers.1.mlp.up_proj.weight");
        tensor.data[1001..1003].fill(0x7f);
        tensor.data[1002] = 0x80;
        tensor.data[1003] = 0x7f;
    };
    for (change, reason) in [(half, "F16"), (infinite, "exponent of 240 or more")] {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        small(&source, change);
        // Without a name the preset would not be chosen: automatic groups go without the tensor.
        let named = ["--preset", "qwen3"];
        let fields =
            [("folder", &named[..]), ("one.safetensors", &named), ("single", &["--preset", "qwen3", "--single-file"])];
        for (name, more) in fields {
            let out = dir.path().join(name);
            let text = compress(&source, &out, more).good();
            assert!(text.contains(": 4 groups of "), "{text}");
            let left: Vec<&str> = text.lines().filter(|l| l.starts_with("left plain ")).collect();
            let all = left.iter().all(|l| l.contains("'model.layers.1."));
            // The reason is told once, for it is the group's.
            let all = all && left[0].contains(reason) && left[1..].iter().all(|l| l.ends_with(": with its group"));
            assert!(left.len() == 7 && all && left[0].contains("up_proj"), "{text}");
            run_on("verify", &out, &["--against", source.to_str().unwrap()]).good();
            let before = list(dir.path());
            let strict = [&["--strict"], more].concat();
            let ran = compress(&source, &dir.path().join(format!("strict-{name}")), &strict);
            ran.bad(2, &["model.layers.1", reason]);
            let begun = dir.path().join(format!("strict-{name}"));
            if name == "folder" && begun.exists() {
                // Weights are looked at group by group, and groups before it may be done. Without --strict it goes on.
                assert_eq!(reason, "exponent of 240 or more");
                compress(&source, &begun, &["--preset", "qwen3", "--resume"]).good();
                models::same(&models::tree(&begun), &models::tree(&out));
                std::fs::remove_dir_all(&begun).unwrap();
            }
            assert_eq!(list(dir.path()), before, "{}", ran.err);
        }
        let json = compress(&source, &dir.path().join("json"), &["--preset", "qwen3", "--json"]).good();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["left"].as_array().unwrap().len(), &json["complete"]), (7, &true.into()));
        assert_eq!(json["left"][0]["group"], "model.layers.1");
    }
}

/// Sources that are damaged, or are something else: one line says what, and nothing is begun.
#[test]
fn sources_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let case = |code: i32, parts: &[&str], change: &dyn Fn(&Path)| {
        let source = dir.path().join("source");
        small(&source, |_| ());
        change(&source);
        for out in ["out", "out.safetensors"] {
            compress(&source, &dir.path().join(out), &[]).bad(code, parts);
            assert_eq!(list(dir.path()), ["source"], "{parts:?}");
        }
        std::fs::remove_dir_all(&source).unwrap();
    };
    const SHARD: &str = "model-00001-of-00001.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    let replace = |file: PathBuf, from: &str, to: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    };
    case(1, &[SHARD, "bytes"], &|s| {
        let file = std::fs::File::options().write(true).open(s.join(SHARD)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 100).unwrap();
    });
    case(2, &[SHARD], &|s| std::fs::write(s.join(SHARD), "no tensors at all").unwrap());
    case(1, &[INDEX, SHARD, "not in the folder"], &|s| std::fs::remove_file(s.join(SHARD)).unwrap());
    case(1, &[INDEX, "'lm_head.bias'", SHARD], &|s| replace(s.join(INDEX), "lm_head.weight", "lm_head.bias"));
    case(1, &[INDEX, "../x.safetensors"], &|s| replace(s.join(INDEX), SHARD, "../x.safetensors"));
    case(1, &[INDEX, "JSON"], &|s| std::fs::write(s.join(INDEX), "{").unwrap());
    case(1, &["config.json", "JSON"], &|s| std::fs::write(s.join("config.json"), "{").unwrap());
    case(1, &["the weights are F16", "convert it to bf16 first", "allow-plain"], &|s| {
        let mut tensors = models::qwen3(1, 2048);
        tensors.iter_mut().for_each(|t| t.dtype = Dtype::F16);
        models::write_source(s, &tensors, 1);
    });
    case(2, &["compressed already", "'lm_head'"], &|s| {
        std::fs::remove_dir_all(s).unwrap();
        std::fs::create_dir(s).unwrap();
        files::copy(&golden::model("sharded"), s);
    });
    // Weights of PyTorch's own are code that runs when it is opened.
    case(2, &["no *.safetensors", "PyTorch's weights ('pytorch_model.bin')"], &|s| {
        std::fs::remove_file(s.join(INDEX)).unwrap();
        std::fs::rename(s.join(SHARD), s.join("pytorch_model.bin")).unwrap();
    });
    case(2, &["a whole diffusers pipeline", "transformer"], &|s| {
        let shard = std::fs::read(s.join(SHARD)).unwrap();
        std::fs::remove_dir_all(s).unwrap();
        std::fs::create_dir_all(s.join("transformer")).unwrap();
        std::fs::write(s.join("transformer/diffusion_pytorch_model.safetensors"), shard).unwrap();
        std::fs::write(s.join("model_index.json"), r#"{"_class_name": "FluxPipeline"}"#).unwrap();
    });
    compress(&dir.path().join("gone"), &dir.path().join("out"), &[]).bad(2, &["gone", "No such file"]);
    assert!(list(dir.path()).is_empty());
}

/// A shard that may not be read. Root may read everything, so the tool is started without that right.
#[cfg(target_os = "linux")]
#[test]
fn a_shard_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    small(&source, |_| ());
    let shard = source.join("model-00001-of-00001.safetensors");
    std::fs::set_permissions(&shard, PermissionsExt::from_mode(0o000)).unwrap();
    let mut tool = df11();
    tool.arg("compress").arg(&source).arg("-o").arg(dir.path().join("out"));
    // SAFETY: these calls are made by the child alone, touch no memory, and may fail, as they do for all but root.
    unsafe {
        tool.pre_exec(|| {
            // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (linux/capability.h), which the libc package does not name.
            for capability in [1, 2] {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
    Ran::of(tool.output().unwrap()).bad(2, &["model-00001-of-00001", "Permission denied"]);
    assert_eq!(list(dir.path()), ["source"]);
}

/// Destinations that would do harm, and options that contradict one another.
#[test]
fn destinations_and_options_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    small(&source, |_| ());
    let shard = source.join("model-00001-of-00001.safetensors");
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("something"), "else").unwrap();
    std::fs::write(dir.path().join("file"), "a file").unwrap();
    let before = models::tree(dir.path());
    let refused = |from: &Path, out: &Path, more: &[&str], parts: &[&str]| {
        let ran = compress(from, out, more);
        ran.bad(2, parts);
        assert!(!ran.err.contains("what is finished stays"), "{}", ran.err);
        models::same(&models::tree(dir.path()), &before);
    };
    let out = dir.path().join("out");
    refused(&source, &source, &[], &["is in the source's folder"]);
    refused(&source, &source.join("a/b"), &[], &["is in the source's folder"]);
    refused(&source, &source.join("one.safetensors"), &[], &["is in the source's folder"]);
    refused(&source, &out.join("../source/new"), &[], &["is in the source's folder"]);
    refused(&source, &full, &[], &["full' is not empty", "'something'"]);
    refused(&source, &full, &["--single-file"], &["full' is not empty", "'something'"]);
    refused(&source, &full, &["--resume"], &["full' is not empty", "'something'"]);
    refused(&source, &full, &["--part", "1/2"], &["full' is not empty", "'something'"]);
    refused(&source, &dir.path().join("file"), &[], &["it is not a folder"]);
    refused(&source, &dir.path().join("file/x"), &[], &["file"]);
    refused(&shard, &shard, &["--preset", "qwen3"], &["it is the source"]);
    refused(&source, &out, &["--preset", "qwen-3"], &["'qwen-3'", "did you mean qwen3"]);
    refused(&source, &out, &["--preset", "flux-diffusers"], &["make no group", "nothing to compress"]);
    refused(&source, &out, &["--pattern", "no/such/file"], &["'no/such/file'", "No such file"]);
    refused(&source, &out, &["--pattern", shard.to_str().unwrap()], &["cannot use the patterns of", "model-00001"]);
    refused(&source, &out, &["--pattern", source.join("config.json").to_str().unwrap()], &["cannot use the patterns"]);
    let one = dir.path().join("one.safetensors");
    refused(&source, &one, &["--part", "1/2"], &["cannot be written in parts"]);
    refused(&source, &out, &["--single-file", "--part", "1/2"], &["cannot be written in parts"]);

    // What is wrong on the command line itself has more lines, with advice.
    let wrong: [(&[&str], &str); 9] = [
        (&["--preset", "qwen3", "--pattern", "x"], "cannot be used with"),
        (&["--verify", "--no-verify"], "cannot be used with"),
        (&["--part", "0/3"], "numbered from 1"),
        (&["--part", "4/3"], "numbered from 1"),
        (&["--part", "half"], "write it as I/N"),
        (&["--memory", "1M"], "at least 16M"),
        (&["--memory", "12X"], "'X' is no unit"),
        (&["--memory", "much"], "unit"),
        (&["--threads", "0"], "0"),
    ];
    for (more, part) in wrong {
        let ran = compress(&source, &out, more);
        assert!(
            ran.code == 2 && ran.err.starts_with("df11: error: ") && ran.err.contains(part),
            "{more:?}: {}",
            ran.err
        );
        models::same(&models::tree(dir.path()), &before);
    }
    let ran = Ran::of(df11().arg("compress").arg(&source).output().unwrap());
    assert!(ran.code == 2 && ran.err.contains("--output"), "{}", ran.err);
}

/// A file is replaced on request alone; what goes on, or has gone on to its end, needs none.
#[test]
fn a_file_that_is_there_already() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out.safetensors"));
    small(&source, |_| ());
    compress(&source, &out, &[]).good();
    let whole = std::fs::read(&out).unwrap();
    let there = ["out.safetensors' is there already", "(--force)"];
    compress(&source, &out, &[]).bad(2, &there);
    // It is all there, as an earlier run has written it: whoever goes on is done.
    let text = compress(&source, &out, &["--resume"]).good();
    assert!(text.contains("resumed "), "{text}");
    assert!(std::fs::read(&out).unwrap() == whole);

    for other in ["something else", ""] {
        std::fs::write(&out, other).unwrap();
        let before = list(dir.path());
        for more in [&[][..], &["--resume"]] {
            compress(&source, &out, more).bad(2, &there);
            assert_eq!((std::fs::read(&out).unwrap(), list(dir.path())), (other.into(), before.clone()), "{more:?}");
        }
        // A run that fails replaces nothing.
        compress(&source, &out, &["--force", "--strict", "--memory", "much"]);
        assert_eq!(std::fs::read(&out).unwrap(), other.as_bytes());
        compress(&source, &out, &["--force"]).good();
        assert!(std::fs::read(&out).unwrap() == whole);
    }
    // In a folder, too, where more lies beside it; and a folder is never replaced.
    let folder = dir.path().join("folder");
    compress(&source, &folder, &["--single-file"]).good();
    compress(&source, &folder, &["--single-file"]).bad(2, &["model.safetensors' is there already"]);
    compress(&source, &folder, &["--single-file", "--force"]).bad(2, &["is not empty"]);
    let parts = dir.path().join("parts");
    compress(&source, &parts, &[]).good();
    compress(&source, &parts, &["-f"]).bad(2, &["is not empty"]);
}

/// Experts in one tensor without `.weight` are compressed unless somebody wants files for the reference.
#[test]
fn fused_experts() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    small(&source, |tensors| {
        for (layer, name) in [(0, "gate_up_proj"), (0, "down_proj"), (1, "gate_up_proj"), (1, "down_proj")] {
            let weights = super::support::weights::trained_like(4 * 32 * 64, 7 + layer);
            let data = bytemuck::cast_slice(&weights).to_vec();
            tensors.push(Stored::new(
                &format!("model.layers.{layer}.mlp.experts.{name}"),
                Dtype::BF16,
                &[4, 32, 64],
                data,
            ));
        }
    });
    let groups = |to: &Path| -> Vec<String> {
        let text = run_on("inspect", to, &["--json"]).good();
        let json: Value = serde_json::from_str(&text).unwrap();
        json["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap().to_owned()).collect()
    };
    for (name, more, extended) in [
        ("folder", &[][..], 4),
        ("one.safetensors", &[], 4),
        ("reference", &["--reference-only"], 0),
        ("preset", &["--preset", "qwen3"], 0),
    ] {
        let to = dir.path().join(name);
        let said = compress(&source, &to, more).good();
        let shown = run_on("inspect", &to, &[]).good();
        for text in [said, shown] {
            assert_eq!(text.contains("needs libdf11"), extended > 0, "{text}");
        }
        let text = run_on("verify", &to, &["--against", source.to_str().unwrap()]).good();
        assert!(text.contains("equal"), "{text}");
        let found = groups(&to).iter().filter(|group| group.ends_with(".run_0")).count();
        assert_eq!(found, extended, "{name}: {:?}", groups(&to));
        let out = dir.path().join(format!("{name}.back.safetensors"));
        run_on("decompress", &to, &["-o", out.to_str().unwrap()]).good();
        assert!(tensors_of(&out) == tensors_of(&source.join("model-00001-of-00001.safetensors")), "{name}");
        let bytes = std::fs::read(&out).unwrap();
        let shape = SafeTensors::deserialize(&bytes).unwrap();
        let shape = shape.tensor("model.layers.1.mlp.experts.down_proj").unwrap().shape().to_vec();
        assert_eq!(shape, [4, 32, 64]);
    }
    // Whichever file is lost, the model does not verify: also one of experts, whose layer is still there.
    let folder = dir.path().join("folder");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let weights: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    assert!(weights.len() >= 6, "{weights:?}");
    for file in weights {
        let away = dir.path().join("away");
        std::fs::rename(&file, &away).unwrap();
        let ran = run_on("verify", &folder, &[]);
        assert!(ran.code == 1 && ran.out.contains("config.json says"), "{file:?}: {} {}", ran.out, ran.err);
        std::fs::rename(&away, &file).unwrap();
    }
    run_on("verify", &folder, &[]).good();
}

/// With hashes and shapes a model can be checked without its original, and its tensors keep their dimensions.
#[test]
fn hashes_and_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    small(&source, |_| ());
    for (to, more) in [(out.clone(), &[][..]), (dir.path().join("one.safetensors"), &[])] {
        compress(&source, &to, &[&["--hashes", "--shapes"], more].concat()).good();
        let text = run_on("verify", &to, &["--against", source.to_str().unwrap()]).good();
        assert!(text.contains("27 hashes right, 0 wrong"), "{text}");
        let text = run_on("inspect", &to, &["--all"]).good();
        let row = |l: &&str| l.starts_with("model.layers.2.mlp.down_proj.weight");
        assert!(text.lines().find(row).unwrap().contains("[64, 32]"), "{text}");
    }
    // What the metadata says is said in the header, so that only a longer header tells these files from the others.
    let file = out.join("model_layers_1.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = json["model.layers.1.sign_mantissa"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + at + 2048 + 77] ^= 0x80;
    std::fs::write(&file, bytes).unwrap();
    run_on("verify", &out, &[]).bad(1, &["1 of 27 hashes is wrong", "'model.layers.1.self_attn.k_proj.weight'"]);
}
