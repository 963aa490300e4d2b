//! Whole models: compressed from the originals of the golden models, against what the reference wrote, file by file; and
//! what happens to models that the reference would not survive.

mod support;

use df11::writer::plan::Patterns;
use df11::writer::{self, CompressOptions, Layout, Part, Report};
use df11::{Error, Model, OpenOptions, Progress, Status, host};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::{check, encoder, golden, weights};
use tempfile::TempDir;

/// A folder with the original of a golden model, and what its config.json was.
fn original(name: &str, config: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden::path(name).join("original.safetensors"), folder.path().join("model.safetensors")).unwrap();
    if config {
        // Its own dfloat11_config is replaced, and numbers are spelled as Python does.
        std::fs::copy(golden::model(name).join("config.json"), folder.path().join("config.json")).unwrap();
    }
    folder
}

fn config_of(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden::model(name).join("config.json")).unwrap()).unwrap()
}

fn patterns(json: Value) -> Option<Patterns> {
    Some(Patterns::from_json(&json).unwrap())
}

fn golden_options(name: &str) -> CompressOptions {
    CompressOptions { patterns: patterns(config_of(name)), threads: 2, ..CompressOptions::default() }
}

fn run(source: &Path, to: &Path, options: &CompressOptions) -> Result<Report, Error> {
    writer::compress(source, to, options, &Progress::new())
}

/// Every file under a folder, by its path from there on.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let below = path.file_name().unwrap().to_owned();
            all.extend(files(&path).into_iter().map(|(name, bytes)| (Path::new(&below).join(name), bytes)));
        } else {
            all.insert(path.file_name().unwrap().into(), std::fs::read(&path).unwrap());
        }
    }
    all
}

/// Which files differ; not their bytes.
fn same(ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, bytes) in ours {
        let other = &theirs[name];
        let first = bytes.iter().zip(other).position(|(a, b)| a != b);
        assert!(first.is_none() && bytes.len() == other.len(), "{}: byte {first:?}", name.display());
    }
}

#[test]
fn every_file_of_the_reference_is_written_to_the_byte() {
    for name in golden::NAMES {
        let sharded = name == "sharded";
        let source = original(name, sharded);
        let mut theirs = files(&golden::model(name));
        // It belongs to the source, and none lies there.
        theirs.remove(Path::new("generation_config.json"));
        for threads in [1, 2, 5] {
            let to = tempfile::tempdir().unwrap();
            let layout = if sharded { Layout::Folder } else { Layout::SingleFile };
            let options = CompressOptions { threads, layout, ..golden_options(name) };
            let report = run(source.path(), to.path(), &options).unwrap();
            assert!(report.complete && report.left.is_empty(), "{name}: {report:?}");
            same(&files(to.path()), &theirs);
            check::is_original(&Model::open(to.path(), &OpenOptions::default()).unwrap(), name);
        }
    }
}

/// Both layouts of every golden model, bit for bit its original again.
#[test]
fn every_model_comes_back_in_both_layouts() {
    for name in golden::NAMES {
        let source = original(name, false);
        for layout in [Layout::Folder, Layout::SingleFile] {
            for verify in [false, true] {
                let to = tempfile::tempdir().unwrap();
                let options = CompressOptions { layout, verify, ..golden_options(name) };
                let report = run(source.path(), &to.path().join("a/b"), &options).unwrap();
                let model = Model::open(to.path().join("a/b"), &OpenOptions::default()).unwrap();
                check::is_original(&model, name);
                assert_eq!(report.groups as usize, model.groups().len());
                assert_eq!(report.weights, model.groups().iter().map(|g| g.element_count()).sum::<u64>());
            }
        }
    }
}
