//! Models with tensors that the reference's format cannot name or hold, written in groups with names and runs.

use super::models::{bf16, cancelled_at, files, is_equal, run, same, source};
use crate::support::files::Stored;
use crate::support::weights;
use df11::internals::format::GROUPS_KEY;
use df11::internals::writer::plan::{Patterns, RunSizes};
use df11::writer::{self, CompressOptions, Layout, Part};
use df11::{DecodeOptions, Dtype, Group, Model, OpenOptions, Progress, Status, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The names of the tensors in runs, and the numbers of their runs with the sizes of [`options`].
const IN_RUNS: [(&str, usize); 5] = [
    ("model.layers.0.mlp.experts.down_proj", 4),
    ("model.layers.0.mlp.experts.gate_up_proj", 8),
    ("model.layers.1.mlp.experts.down_proj", 4),
    ("model.layers.1.mlp.experts.gate_up_proj", 8),
    ("table.weight", 4),
];

/// Two layers with eight experts each in one tensor without `.weight`, and a matrix of too many weights.
fn tensors(scale: usize) -> Vec<Stored> {
    let mut all = vec![bf16("table.weight", &[300 * scale, 200], &weights::gaussian(60_000 * scale, 0.02, 1))];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            let seed = 10 * layer + all.len() as u64;
            let weights = weights::trained_like(shape.iter().product(), seed);
            all.push(bf16(&format!("model.layers.{layer}.{name}"), shape, &weights));
        };
        add("attn.weight", &[64 * scale, 96]);
        add("mlp.experts.gate_up_proj", &[8, 64 * scale, 40]);
        add("mlp.experts.down_proj", &[8, 20 * scale, 64]);
        add("norm.weight", &[64]);
    }
    all.push(Stored::new("steps", Dtype::F32, &[2, 3], vec![1; 24]));
    all
}

fn model(tensors: &[Stored]) -> tempfile::TempDir {
    source(tensors, Some(json!({ "model_type": "x" })))
}

/// Cuts an expert of `gate_up_proj` each and two of `down_proj`.
fn options(scale: u64) -> CompressOptions {
    let [unheld, least, least_of_matrix, limit] = [50_000, 2_500, 15_000, 40_000].map(|size| size * scale);
    CompressOptions::new().threads(2).run_sizes(RunSizes { unheld, least, least_of_matrix, limit })
}

fn open(path: &Path) -> Model {
    Model::open(path, &OpenOptions::new()).unwrap()
}

fn has_runs(model: &Model, expected: &[(&str, usize)]) {
    let runs = |&(name, count): &(&str, usize)| {
        let tensor = model.find_tensor(name).unwrap();
        assert_eq!(tensor.runs().len(), count, "{name}");
        for (i, run) in tensor.runs().enumerate() {
            assert_eq!(run.group().name(), format!("{name}.run_{i}"));
            assert!(run.group().is_extended() && run.group().runs().len() == 1);
        }
        count
    };
    let all: usize = expected.iter().map(runs).sum();
    assert_eq!(model.groups().filter(|group| group.is_extended()).count(), all);
    assert_eq!(model.is_extended(), all > 0);
}

#[test]
fn every_tensor_comes_back_in_both_layouts() {
    let original = tensors(1);
    let from = model(&original);
    for layout in [Layout::Folder, Layout::SingleFile] {
        for (hashes, shapes) in [(false, false), (true, true)] {
            let to = tempfile::tempdir().unwrap();
            let options = options(1).layout(layout).hashes(hashes).shapes(shapes);
            let report = run(from.path(), to.path(), &options).unwrap();
            assert!(report.complete && report.left.is_empty(), "{report:?}");
            assert_eq!((report.groups, report.extended_groups), (2 + 28, 28));
            is_equal(to.path(), from.path());
            let written = open(to.path());
            has_runs(&written, &IN_RUNS);
            for tensor in &original {
                let found = written.find_tensor(&tensor.name).unwrap();
                let in_runs = IN_RUNS.iter().any(|(name, _)| *name == tensor.name);
                let shape = || found.shape().iter().map(|&d| d as usize).eq(tensor.shape.iter().copied());
                assert!(shape() || !in_runs && !shapes, "{} {:?}", tensor.name, found.shape());
                assert_eq!(found.sha256().is_some(), hashes, "{}", tensor.name);
            }
            // One expert, alone.
            let gate_up = original.iter().find(|t| t.name == IN_RUNS[1].0).unwrap();
            let mut expert = vec![half::bf16::ZERO; 64 * 40];
            let group = written.find_group("model.layers.0.mlp.experts.gate_up_proj.run_5").unwrap();
            group.decompress(0, &mut expert, &DecodeOptions::new()).unwrap();
            let bytes: Vec<u8> = expert.iter().flat_map(|w| w.to_bits().to_le_bytes()).collect();
            assert!(bytes == gate_up.data[2 * 5 * 2560..2 * 6 * 2560]);
            // All runs of a tensor are in one file.
            let files = written.files().len();
            assert_eq!(files, if layout == Layout::Folder { 2 + 5 + 1 } else { 1 });
        }
    }
}

/// What the reference can hold has the bytes that it has without the extension.
#[test]
fn the_rest_of_the_model_is_as_it_would_be() {
    let from = model(&tensors(1));
    let folder = |options: &CompressOptions| {
        let to = tempfile::tempdir().unwrap();
        run(from.path(), to.path(), options).unwrap();
        is_equal(to.path(), from.path());
        has_runs(&open(to.path()), if options.reference_only || options.patterns.is_some() { &[] } else { &IN_RUNS });
        files(to.path())
    };
    let extended = folder(&options(1));
    let without = folder(&options(1).reference_only(true));
    let config: Value = serde_json::from_slice(&without[Path::new("config.json")]).unwrap();
    let patterns = Patterns::parse(&config["dfloat11_config"]["pattern_dict"].to_string()).unwrap();
    let mut by_hand = folder(&options(1).patterns(patterns).shapes(true));
    // The number of tensors is in the config of automatic groups only.
    let mut theirs: Value = serde_json::from_slice(&by_hand[Path::new("config.json")]).unwrap();
    theirs["dfloat11_config"]["tensors"] = config["dfloat11_config"]["tensors"].clone();
    assert_eq!(theirs, config);
    by_hand.insert("config.json".into(), without[Path::new("config.json")].clone());
    same(&without, &by_hand);
    // Experts that stay plain are in the file of their layer's group. The group has the same bytes without them.
    let members = |files: &BTreeMap<PathBuf, Vec<u8>>, group: &str| {
        let all = files.values().filter(|file| file.len() > 8 && file[..8].ends_with(&[0; 4]));
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        for file in all {
            let file = safetensors::SafeTensors::deserialize(file).unwrap();
            let of_group = file.iter().filter(|(name, _)| name.rsplit_once('.').is_some_and(|(base, _)| base == group));
            members.extend(of_group.map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())));
        }
        members.sort();
        members
    };
    for group in ["model.layers.0", "model.layers.1"] {
        let found = members(&without, group);
        assert!(found.len() == 6 && found == members(&extended, group), "{group}");
    }
    assert!(without.values().all(|bytes| !String::from_utf8_lossy(bytes).contains(GROUPS_KEY)));
    assert_eq!(extended.len(), without.len() - 1 + 5);
}

#[test]
fn parts_with_runs_are_what_one_run_writes() {
    let from = model(&tensors(1));
    let whole = tempfile::tempdir().unwrap();
    run(from.path(), whole.path(), &options(1)).unwrap();
    for count in [2, 5, 9] {
        let to = tempfile::tempdir().unwrap();
        for number in 1..=count {
            run(from.path(), to.path(), &options(1).part(Part { number, count })).unwrap();
        }
        let other = options(1).reference_only(true);
        let error = writer::merge(from.path(), to.path(), &other, &Progress::new()).unwrap_err();
        assert!(error.to_string().contains("with other tensors in runs"), "{error}");
        let report = writer::merge(from.path(), to.path(), &options(1), &Progress::new()).unwrap();
        assert_eq!((report.groups, report.extended_groups), (30, 28));
        same(&files(to.path()), &files(whole.path()));
    }
}

#[test]
fn an_interrupted_run_is_resumed() {
    let from = model(&tensors(16));
    for layout in [Layout::Folder, Layout::SingleFile] {
        let undisturbed = tempfile::tempdir().unwrap();
        let all = options(16).layout(layout).hashes(true);
        run(from.path(), undisturbed.path(), &all).unwrap();
        let theirs = files(undisturbed.path());
        for eighths in [1, 3, 5, 7, 8] {
            let parent = tempfile::tempdir().unwrap();
            let to = parent.path().join("out");
            let _ = cancelled_at(eighths, from.path(), &to, &all);
            let report = run(from.path(), &to, &all.clone().resume(true)).unwrap();
            assert!(report.complete);
            same(&files(&to), &theirs);
            let again = run(from.path(), &to, &all.clone().resume(true)).unwrap();
            assert!(again.complete && again.resumed == again.groups && again.extended_groups == 28);
        }
    }
}

/// A tensor is in groups as a whole, or not at all.
#[test]
fn a_tensor_with_an_infinity_in_one_run_stays_plain() {
    let mut original = tensors(1);
    let (bad, _) = IN_RUNS[1];
    let tensor = original.iter_mut().find(|t| t.name == bad).unwrap();
    // In the sixth of eight runs.
    tensor.data[2 * 13_000..][..2].copy_from_slice(&0x7f80u16.to_le_bytes());
    let from = model(&original);
    for layout in [Layout::Folder, Layout::SingleFile] {
        for hashes in [false, true] {
            let to = tempfile::tempdir().unwrap();
            let all = options(1).layout(layout).hashes(hashes);
            for options in [all.clone(), all.clone().resume(true)] {
                let report = run(from.path(), to.path(), &options).unwrap();
                let left: Vec<_> = report.left.iter().map(|left| &left.tensor[..]).collect();
                assert_eq!((left, report.groups, report.extended_groups), (vec![bad], 22, 20));
                is_equal(to.path(), from.path());
                let written = open(to.path());
                has_runs(&written, &IN_RUNS.map(|(name, runs)| (name, if name == bad { 0 } else { runs })));
                assert!(written.find_tensor(bad).is_some_and(|t| t.group().is_none() && t.shape().len() == 3));
            }
            assert!(
                layout == Layout::SingleFile
                    || !to.path().join("model_layers_0_mlp_experts_gate_up_proj.safetensors").exists()
            );
            let strict = tempfile::tempdir().unwrap();
            let error = run(from.path(), strict.path(), &all.strict(true)).unwrap_err();
            assert_eq!(error.status(), Status::UnsupportedFormat, "{error}");
        }
    }
}

/// A model of nothing but such tensors has no pattern at all.
#[test]
fn a_model_of_experts_alone() {
    let mut original = tensors(1);
    original.retain(|t| t.name.contains("experts"));
    let from = model(&original);
    for layout in [Layout::Folder, Layout::SingleFile] {
        let to = tempfile::tempdir().unwrap();
        let report = run(from.path(), to.path(), &options(1).layout(layout)).unwrap();
        assert_eq!((report.groups, report.extended_groups), (24, 24));
        is_equal(to.path(), from.path());
        let groups: Vec<_> = open(to.path()).groups().map(Group::element_count).collect();
        assert!(groups.iter().all(|&weights| weights == 2560), "{groups:?}");
        assert!(open(to.path()).tensors().all(|t: Tensor| t.shape_known()));
    }
}
