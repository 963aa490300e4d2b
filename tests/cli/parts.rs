//! `df11 compress --part` and `df11 merge`: several processes write one model.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::compress::compress;
use super::{Ran, df11, list, models, run_on};

/// Merges the parts of OUT.
pub fn merge(source: &Path, out: &Path, more: &[&str]) -> Ran {
    run_on("merge", source, &[&["-o", out.to_str().unwrap()], more].concat())
}

/// A small source, and what one run makes of it.
pub fn source(dir: &Path) -> (PathBuf, PathBuf) {
    let (source, whole) = (dir.join("source"), dir.join("whole"));
    models::write_source(&source, &models::qwen3(6, 4096), 2);
    std::fs::write(source.join("tokenizer.json"), "{}").unwrap();
    compress(&source, &whole, &[]).good();
    (source, whole)
}

/// Parts that begin in the same moment find the folder begun by one another, and together write what one run does.
#[test]
fn parts_begin_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let (source, whole) = source(dir.path());
    let (out, whole) = (dir.path().join("out"), models::tree(&whole));
    for _ in 0..12 {
        let begin = |part: usize| {
            let mut command = df11();
            command.arg("compress").arg(&source).arg("-o").arg(&out).arg("--part").arg(format!("{part}/5"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (1..=5).map(begin).collect();
        for child in children {
            let text = Ran::of(child.wait_with_output().unwrap()).good();
            assert!(text.contains("this part is finished; when all are, `df11 merge`"), "{text}");
        }
        assert_ne!(run_on("inspect", &out, &[]).code, 0, "without a merge it is not finished");
        let text = merge(&source, &out, &[]).good();
        assert!(text.contains("out: 8 groups of ") && text.contains("model "), "{text}");
        models::same(&models::tree(&out), &whole);
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_merge_wants_all_parts_and_the_same_options() {
    let dir = tempfile::tempdir().unwrap();
    let (source, whole) = source(dir.path());
    let out = dir.path().join("out");
    merge(&source, &out, &[]).bad(2, &["out", "nothing is being written here"]);
    merge(&source, &dir.path().join("x.safetensors"), &[]).bad(2, &["a single file is not written in parts"]);
    merge(&source, &whole, &[]).bad(2, &["whole", "nothing is being written here"]);
    assert_eq!(list(dir.path()), ["source", "whole"]);

    compress(&source, &out, &["--part", "1/3"]).good();
    compress(&source, &out, &["--part", "3/3"]).good();
    let before = models::tree(&out);
    merge(&source, &out, &[]).bad(2, &["part 2 of 3", "out"]);
    compress(&source, &out, &["--part", "3/3"]).bad(2, &["part 3 of 3 was begun before", "--resume"]);
    compress(&source, &out, &[]).bad(2, &["the unfinished output was begun in 3 parts"]);
    models::same(&models::tree(&out), &before);

    compress(&source, &out, &["--part", "2/3"]).good();
    let before = models::tree(&out);
    for (more, what) in [
        (&["--hashes"][..], "without hashes"),
        (&["--shapes"], "without shapes"),
        (&["--preset", "qwen3-tied"], "with other patterns"),
    ] {
        merge(&source, &out, more).bad(2, &[&format!("begun {what}")]);
    }
    models::same(&models::tree(&out), &before);
    // A part that is finished is finished.
    let text = compress(&source, &out, &["--part", "3/3", "--resume"]).good();
    assert!(text.contains("resumed    2 groups of an earlier run"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&merge(&source, &out, &["--json"]).good()).unwrap();
    assert_eq!((&json["complete"], &json["groups"]), (&true.into(), &8.into()));
    models::same(&models::tree(&out), &models::tree(&whole));
    merge(&source, &out, &[]).bad(2, &["nothing is being written here"]);
}

/// A file of a finished part that is lost is named by the merge, and made again by that part.
#[test]
fn a_lost_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (source, whole) = source(dir.path());
    let out = dir.path().join("out");
    for part in ["1/2", "2/2"] {
        compress(&source, &out, &["--part", part]).good();
    }
    let (lost, cut) = (out.join("model_layers_4.safetensors"), out.join("model_layers_5.safetensors"));
    std::fs::remove_file(&lost).unwrap();
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(5000).unwrap();
    merge(&source, &out, &[]).bad(1, &["model_layers_4.safetensors", "missing or damaged"]);
    for part in ["1/2", "2/2"] {
        compress(&source, &out, &["--part", part, "--resume"]).good();
    }
    merge(&source, &out, &[]).good();
    models::same(&models::tree(&out), &models::tree(&whole));
}

/// What one part finds out about its groups is known to the merge: a group that stays plain goes to the remainder.
#[test]
fn a_part_leaves_a_group_plain() {
    let dir = tempfile::tempdir().unwrap();
    let (source, whole, out) = (dir.path().join("source"), dir.path().join("whole"), dir.path().join("out"));
    let mut tensors = models::qwen3(4, 2048);
    models::find(&mut tensors, "model.layers.2.mlp.up_proj.weight").data[6..8].copy_from_slice(&[0x80, 0x7f]);
    models::write_source(&source, &tensors, 2);
    compress(&source, &whole, &[]).good();
    for part in ["1/2", "2/2"] {
        compress(&source, &out, &["--part", part]).good();
    }
    let text = merge(&source, &out, &[]).good();
    assert_eq!(text.lines().filter(|l| l.starts_with("left plain 'model.layers.2.")).count(), 7, "{text}");
    models::same(&models::tree(&out), &models::tree(&whole));
}
