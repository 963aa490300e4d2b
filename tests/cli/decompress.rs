//! `df11 decompress`: the file that it writes, and what it refuses to write over.

use std::path::Path;

use df11::{Dtype, Model, OpenOptions};
use safetensors::SafeTensors;

use super::support::check::sha256;
use super::support::encoder;
use super::support::files::{self, Stored};
use super::support::weights::{self, Random};
use super::support::{encoder::safetensors as write_file, golden};
use super::{Ran, df11, list, models, run_on};

/// Every tensor of every golden model, under its name, with the type and the bytes that it had; and the file is the one
/// that the safetensors crate itself would write.
#[test]
fn every_golden_model_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    for name in golden::NAMES {
        for more in [&[][..], &["--threads", "1"], &["--threads", "7"]] {
            let more = [&["-f", "-o", out.to_str().unwrap()], more].concat();
            let text = run_on("decompress", golden::model(name), &more).good();
            let flat = name.starts_with("edge");
            assert!(text.contains("out.safetensors: ") && text.contains("--shapes-from") == flat, "{text}");

            let bytes = std::fs::read(&out).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let expected = golden::expected(name);
            assert_eq!(file.len(), expected.len(), "{name}");
            let mut tensors = Vec::new();
            for (tensor, view) in file.iter() {
                let want = &expected[tensor];
                assert_eq!(sha256(view.data()), want.sha256, "{name}: {tensor}");
                let shape: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
                let elements: u64 = want.shape.iter().product();
                assert!(
                    shape == want.shape || (shape == [elements] && view.dtype() == Dtype::BF16),
                    "{name}: {tensor}"
                );
                tensors.push(Stored::new(tensor, view.dtype(), view.shape(), view.data().to_vec()));
            }
            let views = tensors
                .iter()
                .map(|t| (&t.name, safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap()));
            let format = [("format".to_owned(), "pt".to_owned())].into();
            assert!(bytes == safetensors::serialize(views, Some(format)).unwrap(), "{name}: another layout");
        }
    }
    assert_eq!(list(dir.path()), ["out.safetensors"]);
}

/// Shapes that the metadata gives are in the file; plain safetensors are copied.
#[test]
fn shapes_come_from_the_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let weights = weights::gaussian(240, 0.02, 5);
    let shapes = r#"{"layers.0.a.weight": [2, 5, 12], "layers.0.b.weight": [120, 1], "gone": [7]}"#;
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    models::write_small(&model, &weights, Some(shapes));
    let (out, again) = (dir.path().join("out.safetensors"), dir.path().join("again.safetensors"));
    let text = run_on("decompress", &model, &["-o", out.to_str().unwrap()]).good();
    assert_eq!(text.lines().count(), 1, "no tensor without a shape: {text}");
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (a, b, flags) = (file.tensor("layers.0.a.weight"), file.tensor("layers.0.b.weight"), file.tensor("flags"));
    let (a, b, flags) = (a.unwrap(), b.unwrap(), flags.unwrap());
    assert_eq!((a.shape(), b.shape(), flags.shape()), (&[2, 5, 12][..], &[120, 1][..], &[5][..]));
    assert_eq!([a.data(), b.data()].concat(), bytemuck::cast_slice::<u16, u8>(&weights));
    assert_eq!(flags.data(), [1, 0, 1, 1, 0]);

    run_on("decompress", &out, &["-q", "-o", again.to_str().unwrap()]).good();
    assert!(std::fs::read(&again).unwrap() == bytes);
}

/// Tensors larger than the pieces that threads take, and odd ones after them.
#[test]
fn pieces_come_to_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = Vec::new();
    let mut all = Vec::new();
    let group = weights::trained_like(1 << 20, 7);
    let encoded = encoder::encode(&group, &[333_333]);
    for i in 0..10 {
        tensors.extend(encoder::group_tensors(&format!("layers.{i}"), &encoded));
        all.push((format!("layers.{i}.a.weight"), bytemuck::cast_slice(&group[..333_333]).to_vec()));
        all.push((format!("layers.{i}.b.weight"), bytemuck::cast_slice(&group[333_333..]).to_vec()));
    }
    let mut random = Random::new(3);
    for (name, len) in [("bytes.a", 17_000_001u64), ("bytes.b", 3), ("bytes.c", 0), ("bytes.d", 1)] {
        let data: Vec<u8> = (0..len).map(|_| random.bits() as u8).collect();
        tensors.push((name.into(), "U8", vec![len], data.clone()));
        all.push((name.into(), data));
    }
    std::fs::write(dir.path().join("m.safetensors"), write_file(&tensors, None)).unwrap();
    std::fs::write(dir.path().join("config.json"), files::config("0.5.0", r#"{"layers\\.\\d+": ["a", "b"]}"#)).unwrap();
    let to = tempfile::tempdir().unwrap();
    let out = to.path().join("out.safetensors");
    let text = run_on("decompress", dir.path(), &["-o", out.to_str().unwrap(), "--threads", "2"]).good();
    assert!(text.contains("24 tensors") && text.contains("20 tensors have one dimension"), "{text}");
    assert!(text.contains("--shapes-from ORIGINAL"), "{text}");
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), all.len());
    for (name, data) in &all {
        assert!(file.tensor(name).unwrap().data() == data, "{name}");
    }
}

/// Shapes that follow from the model are in the file, and those that only the original's header says.
#[test]
fn shapes_are_derived_or_given() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    for (name, given) in [("block", false), ("sharded", false), ("edge", true)] {
        let bytes = std::fs::read(golden::path(name).join("original.safetensors")).unwrap();
        let header = dir.path().join("header.safetensors");
        std::fs::write(&header, &bytes[..8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize]).unwrap();
        let header = header.to_str().unwrap();
        let more = if given { &["--shapes-from", header][..] } else { &[] };
        let text =
            run_on("decompress", golden::model(name), &[&["-f", "-o", out.to_str().unwrap()], more].concat()).good();
        assert_eq!(text.lines().count(), 1, "no tensor without a shape: {text}");
        let bytes = std::fs::read(&out).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (tensor, want) in golden::expected(name) {
            let shape: Vec<u64> = file.tensor(&tensor).unwrap().shape().iter().map(|&d| d as u64).collect();
            assert_eq!(shape, want.shape, "{name}: {tensor}");
        }
        let json = run_on("inspect", golden::model(name), &[&["--json"], more].concat()).good();
        assert_eq!(json.contains("\"given\""), given);
    }
    let other = golden::path("block").join("original.safetensors");
    let args = ["--shapes-from", other.to_str().unwrap(), "-o", out.to_str().unwrap(), "-f"];
    run_on("decompress", golden::model("sharded"), &args).bad(2, &["another model's"]);
    let list = dir.path().join("list.json");
    std::fs::write(&list, r#"{"linear.weight": [64, 49]}"#).unwrap();
    for command in ["inspect", "verify"] {
        let args = ["--shapes-from", list.to_str().unwrap()];
        run_on(command, golden::model("tiny"), &args).bad(2, &["[64, 49]", "'linear.weight'", "another model's"]);
    }
    // Names of another model alone: that is said, and nothing is taken.
    std::fs::write(&list, r#"{"other.weight": [64, 49]}"#).unwrap();
    for from in [&list, &golden::path("block").join("original.safetensors")] {
        let ran = run_on("inspect", golden::model("tiny"), &["--shapes-from", from.to_str().unwrap()]);
        assert!(ran.code == 0 && ran.err.contains("is of a tensor of this model"), "{}", ran.err);
        assert!(ran.err.contains(from.file_name().unwrap().to_str().unwrap()), "{}", ran.err);
    }
}

/// A model of no known kind keeps its shapes without being asked: nothing else could say them.
#[test]
fn automatic_groups_come_with_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let weights = weights::gaussian(3 * 64 * 96, 0.02, 9);
    let matrix = |i: usize, shape: &[usize]| {
        let data = bytemuck::cast_slice(&weights[i * 6144..][..6144]).to_vec();
        Stored::new(&format!("blocks.{i}.strange.weight"), Dtype::BF16, shape, data)
    };
    let stored = [matrix(0, &[64, 96]), matrix(1, &[64, 96]), matrix(2, &[4, 24, 64])];
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("model.safetensors"), files::file(&stored)).unwrap();
    run_on("compress", path("model.safetensors"), &["-o", &path("packed")]).good();
    run_on("decompress", path("packed"), &["-o", &path("back")]).good();
    let bytes = std::fs::read(path("back/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for tensor in &stored {
        let view = file.tensor(&tensor.name).unwrap();
        assert!(view.shape() == tensor.shape && view.data() == tensor.data, "{}", tensor.name);
    }
}

/// An older file is replaced on request alone, when the new one is there, and stays as it was when there is none.
#[test]
fn an_older_file_is_replaced_or_kept() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    std::fs::write(&out, "older").unwrap();
    let bad = dir.path().join("bad");
    std::fs::create_dir(&bad).unwrap();
    models::changed("block", &bad, |t| models::find(t, "model.layers.1.encoded_exponent").data[200_000..].fill(0xff));
    for more in [&[][..], &["--threads", "3"], &["-q"]] {
        let more = [&["-o", out.to_str().unwrap(), "--force"], more].concat();
        run_on("decompress", &bad, &more).bad(1, &["model.layers.1.encoded_exponent", "at byte"]);
        assert_eq!(std::fs::read(&out).unwrap(), b"older");
    }
    // Before the work: the model is not even found to be bad.
    for model in [&bad, &golden::model("tiny")] {
        let ran = run_on("decompress", model, &["-o", out.to_str().unwrap()]);
        ran.bad(2, &["out.safetensors'", "is there already", "--force"]);
        assert_eq!(std::fs::read(&out).unwrap(), b"older");
    }
    let text = run_on("decompress", golden::model("tiny"), &["-q", "-f", "-o", out.to_str().unwrap()]).good();
    assert_eq!((&text[..], list(dir.path())), ("", vec!["bad".to_owned(), "out.safetensors".into()]));
    assert_eq!(Model::open(&out, &OpenOptions::default()).unwrap().tensors().len(), 4);
}

/// A folder as it is published, with the files that go with the model; what is selected; what is said if it cannot be.
#[test]
fn a_folder_is_written_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let (source, packed, out) = (dir.path().join("source"), dir.path().join("packed"), dir.path().join("out"));
    models::write_source(&source, &models::qwen3(2, 4096), 2);
    std::fs::write(source.join("tokenizer.json"), "{}").unwrap();
    let compress = |more: &[&str]| {
        let _ = std::fs::remove_dir_all(&packed);
        run_on("compress", &source, &[&["-q", "-o", packed.to_str().unwrap()], more].concat()).good();
    };
    let back = |more: &[&str]| run_on("decompress", &packed, &[&["-o", out.to_str().unwrap()], more].concat());
    compress(&["--shapes"]);
    let text = back(&["--shard-bytes", "60KB"]).good();
    assert!(text.contains(" tensors, ") && text.contains(" files") && text.lines().count() == 1, "{text}");
    assert_eq!(std::fs::read_to_string(out.join("tokenizer.json")).unwrap(), "{}");
    run_on("verify", &packed, &["-q", "--against", out.to_str().unwrap()]).good();
    let config = |folder: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(config(&out), config(&source));
    back(&[]).bad(2, &["is not empty"]);
    std::fs::remove_dir_all(&out).unwrap();

    let text =
        back(&["--tensor", "lm_head.weight", "--group", "model.layers.0", "--tensor", "model.norm.weight"]).good();
    assert!(text.contains(": 9 tensors, "), "{text}");
    std::fs::remove_dir_all(&out).unwrap();
    back(&["--tensor", "lm_heat.weight"]).bad(2, &["no tensor 'lm_heat.weight'", "nearest name is 'lm_head.weight'"]);
    back(&["--group", "layers.0"]).bad(2, &["no group 'layers.0'", "nearest name is 'model.layers.0'"]);
    assert_eq!(run_on("decompress", &packed, &["-o", "x", "--shard-bytes", "5XB"]).code, 2);
    assert!(!out.exists());

    // What is not copied is named, and so is a config.json that no program can load the model with.
    std::fs::write(packed.join("pytorch_model.bin"), "pickled").unwrap();
    let ours = serde_json::json!({ "dfloat11_config": config(&packed)["dfloat11_config"], "model_type": "qwen3" });
    std::fs::write(packed.join("config.json"), ours.to_string()).unwrap();
    let text = back(&[]).good();
    assert!(
        text.contains("config.json has one key alone") && text.contains("not copied 'pytorch_model.bin'"),
        "{text}"
    );
    assert!(!out.join("pytorch_model.bin").exists());
}

/// A folder becomes one file and a folder again, the same to the byte; and says what it copied.
#[test]
fn a_model_is_repacked_to_a_file_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden::model("sharded");
    let (file, folder) = (dir.path().join("one.safetensors"), dir.path().join("folder"));
    let text = run_on("repack", &model, &["-o", file.to_str().unwrap()]).good();
    assert!(text.contains("4 groups and 5 plain tensors, "), "{text}");
    run_on("repack", &model, &["-o", file.to_str().unwrap()]).bad(2, &["is there already", "--force"]);
    run_on("repack", &model, &["-f", "-q", "-o", file.to_str().unwrap()]).good();
    run_on("repack", &file, &["-q", "-o", folder.to_str().unwrap()]).good();
    let mut theirs = models::tree(&model);
    theirs.remove(Path::new("generation_config.json"));
    models::same(&models::tree(&folder), &theirs);
    run_on("repack", &folder, &["-o", "-"]).bad(2, &["standard output"]);
    let original = golden::path("sharded").join("original.safetensors");
    run_on("repack", &original, &["-o", dir.path().join("x").to_str().unwrap()]).bad(2, &["is not compressed"]);
}

/// Names that cannot be written, or should not be.
#[test]
fn some_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    files::copy(&golden::model("tiny"), &model);
    let own = model.join("model.safetensors");
    let before = (std::fs::read(&own).unwrap(), list(&model));
    let refused = |to: &Path, part: &str| {
        for given in [&model, &own] {
            run_on("decompress", given, &["-o", to.to_str().unwrap()]).bad(2, &[part]);
        }
        assert!((std::fs::read(&own).unwrap(), list(&model)) == before, "{}", to.display());
    };
    for same in [&own, &dir.path().join("model/../model/model.safetensors")] {
        run_on("decompress", &model, &["--force", "-o", same.to_str().unwrap()]).bad(2, &["in the source's folder"]);
        run_on("decompress", &own, &["--force", "-o", same.to_str().unwrap()]).bad(2, &["it is the source"]);
    }
    refused(&model.join("config.json"), "it is not a folder");
    refused(&dir.path().join("no/out.safetensors"), "No such file");
    refused(Path::new("-"), "standard output");
    assert!(!Path::new("-").exists());
    // Folders: the model's own, one in it, and one that has something in it.
    for (given, part) in [(&model, "in the source's folder"), (&own, "is not empty")] {
        run_on("decompress", given, &["--flat", "-o", model.to_str().unwrap()]).bad(2, &[part]);
        assert!((std::fs::read(&own).unwrap(), list(&model)) == before);
    }
    let below = model.join("below");
    run_on("decompress", &model, &["--flat", "-o", below.to_str().unwrap()]).bad(2, &["in the source's folder"]);
    #[cfg(unix)]
    {
        let [hard, soft, lost] =
            ["hard", "soft", "lost"].map(|name| dir.path().join(name).with_extension("safetensors"));
        std::fs::hard_link(&own, &hard).unwrap();
        std::os::unix::fs::symlink(&own, &soft).unwrap();
        std::os::unix::fs::symlink("nowhere", &lost).unwrap();
        // A link is the file that it leads to; replacing one of two names of a file changes the other one's in nothing.
        refused(&hard, "is there already");
        run_on("decompress", &own, &["--force", "-o", soft.to_str().unwrap()]).bad(2, &["it is the source"]);
        run_on("decompress", &model, &["--force", "-o", soft.to_str().unwrap()]).bad(2, &["in the source's folder"]);
        refused(&lost, "leads nowhere");
        refused(Path::new("/dev/null"), "it is not a folder");
    }
    // The next to open the folder would take it for a part of the model.
    let new = model.join("new.safetensors");
    run_on("decompress", &model, &["-o", new.to_str().unwrap()]).bad(2, &["taken for a part of it"]);
    assert_eq!(list(&model), before.1);
}

/// A link is followed; a new file's permissions are those of any new file, and one that takes another's place keeps its.
#[cfg(unix)]
#[test]
fn links_and_permissions_are_as_usual() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target.safetensors"), dir.path().join("link.safetensors"));
    std::fs::write(&target, "older").unwrap();
    std::os::unix::fs::symlink("target.safetensors", &link).unwrap();
    let write = |mask: libc::mode_t, to: &Path| {
        let mut command = df11();
        command.arg("decompress").arg(golden::model("tiny")).arg("--force").arg("-o").arg(to);
        // SAFETY: umask may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::umask(mask);
                Ok(())
            })
        };
        Ran::of(command.output().unwrap()).good();
    };
    for (mask, mode) in [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)] {
        let bits = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        for old in [0o600, 0o640] {
            std::fs::set_permissions(&target, PermissionsExt::from_mode(old)).unwrap();
            write(mask, &link);
            assert!(link.is_symlink());
            assert_eq!(bits(&target), old);
        }
        let new = dir.path().join("new.safetensors");
        write(mask, &new);
        assert_eq!(bits(&new), mode);
        std::fs::remove_file(&new).unwrap();
        assert_eq!(Model::open(&target, &OpenOptions::default()).unwrap().tensors().len(), 4);
    }
    // A file name alone is one in the current folder.
    let output = df11()
        .current_dir(dir.path())
        .arg("decompress")
        .arg(golden::model("tiny"))
        .args(["-o", "here.safetensors"])
        .output();
    Ran::of(output.unwrap()).good();
    assert_eq!(list(dir.path()), ["here.safetensors", "link.safetensors", "target.safetensors"]);
}

/// A folder that nothing can be written to is known before the work.
#[cfg(unix)]
#[test]
fn a_folder_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o555)).unwrap();
    // Root may write there all the same; a folder of the kernel's own refuses even root.
    let folder = if std::fs::write(dir.path().join("probe"), "").is_err() { dir.path() } else { Path::new("/proc") };
    if folder.is_dir() {
        let out = folder.join("out.safetensors");
        let ran = run_on("decompress", golden::model("tiny"), &["-o", out.to_str().unwrap()]);
        ran.bad(2, &["cannot create", folder.to_str().unwrap()]);
        assert!(!out.exists());
    }
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
}
