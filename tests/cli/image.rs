//! `df11 image`: the files that it writes, their index, and what it refuses to write over.

use std::path::Path;

use df11::internals::cuda::image::{IMAGE_VERSION, ImageLayout};
use df11::{Model, OpenOptions};
use serde_json::{Value, json};

use super::support::golden;
use super::{Ran, df11, list, models, run, run_on};

fn image(model: &Path, out: &Path, more: &[&str]) -> Ran {
    Ran::of(df11().arg("image").arg(model).arg("-o").arg(out).args(more).output().unwrap())
}

/// What the index of a folder says.
fn index(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("images.json")).unwrap()).unwrap()
}

/// Every file is the image that the library makes in memory, and zeros; the index says what is where, and no more is there.
#[test]
fn every_golden_model_as_images() {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in golden::NAMES.into_iter().enumerate() {
        let (out, threads) = (dir.path().join(name), ["1", "2", "7"][i % 3]);
        let model = Model::open(golden::model(name), &OpenOptions::new()).unwrap();
        let text = image(&golden::model(name), &out, &["--threads", threads]).good();
        let count = model.groups().len();
        assert!(text.contains(&format!("{count} image")), "{text}");
        let index = index(&out);
        assert_eq!(
            (&index["df11_images"], &index["image_version"], &index["alignment"]),
            (&json!(1), &json!(IMAGE_VERSION), &json!(4096))
        );
        let entries = index["images"].as_array().unwrap();
        assert_eq!(entries.len(), count);
        let mut names = vec!["images.json".to_owned()];
        for (entry, group) in entries.iter().zip(model.groups()) {
            let layout = ImageLayout::of(group).unwrap();
            let mut want = vec![0; layout.image_bytes as usize];
            group.write_image(&mut want, 1).unwrap();
            want.resize(want.len().next_multiple_of(4096), 0);
            let file = entry["file"].as_str().unwrap();
            assert!(std::fs::read(out.join(file)).unwrap() == want, "{name}: {file}");
            assert!(want.len() as u64 <= index["largest_file_bytes"].as_u64().unwrap());
            names.push(file.to_owned());
            let tensors = entry["tensors"].as_array().unwrap();
            assert_eq!(tensors.len(), group.tensors().len());
            for (entry, run) in tensors.iter().zip(group.runs()) {
                let mut want = json!({
                    "name": run.tensor().name(), "group_offset": run.group_offset(), "element_count": run.element_count(),
                });
                if run.tensor().shape_known() {
                    want["shape"] = json!(run.tensor().shape());
                }
                assert_eq!(*entry, want);
            }
            let mut rest = entry.clone();
            rest.as_object_mut().unwrap().remove("tensors");
            assert_eq!(
                rest,
                json!({
                    "group": group.name(), "file": file, "file_bytes": want.len(), "image_bytes": layout.image_bytes,
                    "head_bytes": layout.head_bytes(), "element_count": group.element_count(),
                })
            );
        }
        names.sort();
        assert_eq!(list(&out), names);
    }
}

/// A tensor in several groups is named in each of their images, with its place in the tensor.
#[test]
fn runs_of_tensors_are_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    image(Path::new("tests/data/extension/model"), &out, &[]).good();
    let index = index(&out);
    let images = index["images"].as_array().unwrap();
    let runs: Vec<&Value> = images.iter().flat_map(|image| image["tensors"].as_array().unwrap()).collect();
    let several: Vec<&&Value> = runs.iter().filter(|run| run.get("tensor_offset").is_some()).collect();
    assert!(several.len() >= 4 && several.iter().any(|run| run["tensor_offset"].as_u64() > Some(0)), "{index}");
}

/// One group alone, whatever else the model lacks; and names that are no groups.
#[test]
fn groups_are_chosen_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (out, model) = (dir.path().join("out"), golden::model("sharded"));
    let opened = Model::open(&model, &OpenOptions::new()).unwrap();
    let names: Vec<&str> = opened.groups().map(|group| group.name()).collect();
    image(&model, &out, &["--group", names[2], "--group", names[0], "--group", names[2]]).good();
    let chosen = index(&out);
    let groups: Vec<&str> =
        chosen["images"].as_array().unwrap().iter().map(|image| image["group"].as_str().unwrap()).collect();
    assert_eq!(groups, [names[0], names[2]]);
    assert_eq!(list(&out), ["group-00000.image", "group-00002.image", "images.json"]);
    let no = dir.path().join("no");
    image(&model, &no, &["--group", "nothing"]).bad(2, &["no group 'nothing'", "inspect --all"]);
    let tensor = opened.group(0).unwrap().tensors().next().unwrap().name();
    image(&model, &no, &["--group", tensor]).bad(2, &["is a tensor and no group"]);
    assert!(!no.exists());
}

/// What is there stays: images unless `--force` is given, anything else in any case.
#[test]
fn what_is_there_is_replaced_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let (out, model) = (dir.path().join("out"), golden::model("sharded"));
    image(&model, &out, &[]).good();
    let whole = models::tree(&out);
    image(&golden::model("tiny"), &out, &[]).bad(2, &["images.json", "--force"]);
    models::same(&models::tree(&out), &whole);
    // Fewer images than before: none of the older ones is left.
    image(&golden::model("tiny"), &out, &["--force"]).good();
    assert_eq!(list(&out), ["group-00000.image", "images.json"]);
    image(&model, &out, &["-f"]).good();
    models::same(&models::tree(&out), &whole);

    // Something else is in the folder, which an index may name.
    let notes = out.join("notes");
    std::fs::write(&notes, "mine").unwrap();
    let spoilt = std::fs::read_to_string(out.join("images.json")).unwrap().replacen("group-00001.image", "notes", 1);
    std::fs::write(out.join("images.json"), spoilt).unwrap();
    image(&model, &out, &["--force"]).bad(2, &["is not empty", "--force removes images only"]);
    assert_eq!(std::fs::read(&notes).unwrap(), b"mine");

    // What only has the name of an index.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for text in
        ["", "{}", "[]", r#"{"df11_images": "x", "images": []}"#, r#"{"images": [{"file": "group-00000.image"}]}"#]
    {
        std::fs::write(other.join("images.json"), text).unwrap();
        std::fs::write(other.join("group-00000.image"), "mine").unwrap();
        image(&model, &other, &["--force"]).bad(1, &["images.json", "not the index of images"]);
        assert_eq!(list(&other), ["group-00000.image", "images.json"], "{text}");
    }
    std::fs::write(dir.path().join("file"), "mine").unwrap();
    image(&model, &dir.path().join("file"), &["--force"]).bad(2, &["it is not a folder"]);
    image(&model, &model.join("images"), &[]).bad(2, &["in the source's folder"]);
    image(&model, Path::new("-"), &[]).bad(2, &["cannot write '-'"]);
}

/// What has no image: a model without groups, one that lacks something, and a group whose codes are damaged.
#[test]
fn what_cannot_become_images_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let original = golden::path("tiny").join("original.safetensors");
    image(&original, &out, &[]).bad(2, &["is not compressed"]);
    let broken = dir.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    models::changed("tiny", &broken, |tensors| {
        let codes = tensors.iter_mut().find(|tensor| tensor.name.ends_with("encoded_exponent")).unwrap();
        let middle = codes.data.len() / 2;
        codes.data[middle..middle + 64].fill(0xff);
    });
    image(&broken, &out, &[]).bad(1, &["block 0", "linear.gaps"]);
    assert!(!out.exists());
    let lacking = dir.path().join("lacking");
    std::fs::create_dir(&lacking).unwrap();
    super::support::files::copy(&golden::model("sharded"), &lacking);
    std::fs::write(lacking.join("model-00001-of-00009.safetensors.aria2"), "").unwrap();
    let refused = image(&lacking, &out, &[]);
    refused.bad(1, &["--incomplete"]);
    assert!(!out.exists());
    assert_eq!(image(&lacking, &out, &["--incomplete"]).code, 0);
    assert_eq!(list(&out).len(), 5);
    run_on("inspect", &out, &[]).bad(2, &["no *.safetensors"]);
    assert!(run(["image", "--help"]).good().contains("df11_device_bind_image()"));
}

/// What a killed process has left is no folder of images, and is gone when the next one has written there.
#[test]
#[cfg(unix)]
fn what_is_killed_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (source, model, out) = (dir.path().join("source"), dir.path().join("model"), dir.path().join("out"));
    models::write_source(&source, &models::qwen3(38, 32_000), 3);
    Ran::of(df11().arg("compress").arg(&source).arg("-o").arg(&model).arg("-q").output().unwrap()).good();
    let whole = dir.path().join("whole");
    image(&model, &whole, &[]).good();
    for attempt in 0.. {
        assert!(attempt < 20, "it was always done before it could be killed");
        let mut command = df11();
        command.arg("image").arg(&model).arg("-o").arg(&out).args(["--threads", "1", "-q"]);
        let mut child = command.spawn().unwrap();
        while !out.join("group-00000.image").exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            break;
        }
        std::fs::remove_dir_all(&out).unwrap();
    }
    let left = list(&out);
    assert!(left.contains(&".df11-job.json".to_owned()) && !left.contains(&"images.json".to_owned()), "{left:?}");
    image(&model, &out, &["--group", "model.layers.1"]).good();
    assert_eq!(list(&out).len(), 2, "{:?}", list(&out));
    image(&model, &out, &["--force"]).good();
    models::same(&models::tree(&out), &models::tree(&whole));
}
