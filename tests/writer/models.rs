//! Whole models: compressed from the originals of the golden models, against what the reference wrote, file by file; and
//! what happens to models that the reference would not survive.

use crate::support;

use df11::internals::host::{self, VerifyOptions};
use df11::internals::writer::plan::Patterns;
use df11::writer::{self, CompressOptions, Layout, Part, Report};
use df11::{Dtype, Error, Model, OpenOptions, Progress, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::alloc::taken;
use support::alone::alone;
use support::files::{self as made, Stored};
use support::{check, golden, weights};
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
    Some(Patterns::parse(&json.to_string()).unwrap())
}

fn golden_options(name: &str) -> CompressOptions {
    CompressOptions::new().patterns(patterns(config_of(name))).threads(2)
}

pub fn run(source: &Path, to: &Path, options: &CompressOptions) -> Result<Report, Error> {
    writer::compress(source, to, options, &Progress::new())
}

/// Every file under a folder, by its path from there on.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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
pub fn same(ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>) {
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
            let options = golden_options(name).threads(threads).layout(layout);
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
                let options = golden_options(name).layout(layout).verify(verify);
                let report = run(source.path(), &to.path().join("a/b"), &options).unwrap();
                let model = Model::open(to.path().join("a/b"), &OpenOptions::default()).unwrap();
                check::is_original(&model, name);
                assert_eq!(report.groups as usize, model.groups().len());
                assert_eq!(report.weights, model.groups().map(|g| g.element_count()).sum::<u64>());
            }
        }
    }
}

pub fn bf16(name: &str, shape: &[usize], weights: &[u16]) -> Stored {
    Stored::new(name, Dtype::BF16, shape, bytemuck::cast_slice(weights).to_vec())
}

/// A model of layers with two matrices and a norm each, an embedding, and a head if it is not tied.
fn layers(count: usize, rows: usize, head: bool) -> Vec<Stored> {
    let mut all = vec![bf16("model.embed_tokens.weight", &[rows, 96], &weights::trained_like(rows * 96, 1))];
    for layer in 0..count {
        let of = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let seed = 10 * layer as u64;
        all.push(bf16(&of("a"), &[rows, 64], &weights::trained_like(rows * 64, seed + 2)));
        all.push(bf16(&of("b.c"), &[32, rows], &weights::gaussian(rows * 32, 0.02, seed + 3)));
        all.push(bf16(&of("norm"), &[64], &weights::gaussian(64, 1.0, seed + 4)));
    }
    all.push(bf16("model.norm.weight", &[7], &weights::gaussian(7, 1.0, 5)));
    if head {
        all.push(bf16("lm_head.weight", &[rows, 96], &weights::trained_like(rows * 96, 6)));
    }
    all
}

fn layer_patterns() -> Value {
    json!({ r"model\.layers\.\d+": ["a", "b.c"], r"model\.embed_tokens": [], "lm_head": [] })
}

pub fn source(tensors: &[Stored], config: Option<Value>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), made::file(tensors)).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    }
    folder
}

fn options(json: Value) -> CompressOptions {
    CompressOptions::new().patterns(patterns(json)).threads(2)
}

/// Every tensor of the source is in the model, bit for bit.
pub fn is_equal(model: &Path, source: &Path) {
    let model = Model::open(model, &OpenOptions::new()).unwrap();
    let original = Model::open_original(source).unwrap();
    let mut wrong = Vec::new();
    let progress = Progress::new();
    let verified = host::verify_model(&model, Some(&original), &VerifyOptions::default(), &progress, &mut |f| {
        if f.kind.is_wrong() {
            wrong.push(f.text.clone());
        }
    });
    assert!(verified.unwrap().is_good(), "{wrong:?}");
}

#[test]
fn parts_together_are_what_one_run_writes() {
    let from = source(&layers(7, 300, true), Some(json!({ "model_type": "x" })));
    std::fs::write(from.path().join("tokenizer.json"), "{}").unwrap();
    let whole = tempfile::tempdir().unwrap();
    run(from.path(), whole.path(), &options(layer_patterns())).unwrap();
    is_equal(whole.path(), from.path());
    let theirs = files(whole.path());
    for count in [1, 2, 4, 12] {
        let to = tempfile::tempdir().unwrap();
        let of = |number| options(layer_patterns()).part(Part { number, count });
        let merge = |o: &CompressOptions| writer::merge(from.path(), to.path(), o, &Progress::new());
        if count > 1 {
            for number in 1..count {
                let report = run(from.path(), to.path(), &of(number)).unwrap();
                assert!(!report.complete);
                // Nobody takes it for a model before it is one.
                let error = Model::open(to.path(), &OpenOptions::default()).unwrap_err();
                assert!(error.to_string().contains("unfinished"), "{error}");
            }
            let error = merge(&options(layer_patterns())).unwrap_err();
            assert!(error.to_string().contains(&format!("part {count} of {count} is not finished")), "{error}");
        }
        assert!(run(from.path(), to.path(), &of(count)).unwrap().complete == (count == 1));
        if count > 1 {
            let other = options(layer_patterns()).shapes(true);
            let error = merge(&other).unwrap_err();
            assert!(error.to_string().contains("begun without shapes"), "{error}");
            let report = merge(&options(layer_patterns())).unwrap();
            assert!(report.complete && report.groups == 9, "{report:?}");
        }
        same(&files(to.path()), &theirs);
        let error = merge(&options(layer_patterns())).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{error}");
    }
    // A part's file that got lost is noticed.
    let to = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let part = Part { number, count: 2 };
        run(from.path(), to.path(), &options(layer_patterns()).part(part)).unwrap();
    }
    std::fs::remove_file(to.path().join("model_layers_3.safetensors")).unwrap();
    let error = writer::merge(from.path(), to.path(), &options(layer_patterns()), &Progress::new()).unwrap_err();
    assert!(error.to_string().contains("'model.layers.3'"), "{error}");
}

/// Cancelled at every stage, and gone on with: the bytes are those of a run that was not disturbed.
/// A run that is cancelled when so many eighths of its work are done, if it does not end before that is seen.
pub fn cancelled_at(eighths: u64, source: &Path, to: &Path, options: &CompressOptions) -> Result<Report, Error> {
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| {
            while progress.total() == 0 || progress.done() < progress.total() * eighths / 8 {
                std::thread::yield_now();
            }
            progress.cancel();
        });
        let result = writer::compress(source, to, options, &progress);
        // In case it ended before it came so far.
        progress.cancel();
        stop.join().unwrap();
        result
    })
}

#[test]
fn an_interrupted_run_is_gone_on_with() {
    let mut tensors = layers(6, 9000, true);
    let from = source(&tensors, None);
    tensors[4].data[77] ^= 1;
    let other = source(&tensors, None);
    for layout in [Layout::Folder, Layout::SingleFile] {
        let undisturbed = tempfile::tempdir().unwrap();
        let all = options(layer_patterns()).layout(layout);
        run(from.path(), undisturbed.path(), &all).unwrap();
        let theirs = files(undisturbed.path());
        for eighths in 0..9 {
            let parent = tempfile::tempdir().unwrap();
            let to = parent.path().join("out");
            let result = cancelled_at(eighths, from.path(), &to, &all);
            if result.is_ok() {
                same(&files(&to), &theirs);
                continue;
            }
            assert_eq!(result.unwrap_err().status(), Status::Cancelled);
            if to.exists() {
                // Something was finished, so it stays, and says that it is not all.
                assert!(Model::open(&to, &OpenOptions::default()).is_err() || layout == Layout::SingleFile);
                assert!(layout == Layout::Folder || !to.join("model.safetensors").exists());
                assert_eq!(run(from.path(), &to, &all).unwrap_err().status(), Status::Unfinished);
                let other = all.clone().hashes(true).resume(true);
                assert_eq!(run(from.path(), &to, &other).unwrap_err().status(), Status::InvalidArgument);
            }
            let resume = all.clone().resume(true);
            let report = run(from.path(), &to, &resume).unwrap();
            assert!(report.complete);
            same(&files(&to), &theirs);
            // Once too often is no harm.
            let again = run(from.path(), &to, &resume).unwrap();
            assert!(again.complete && again.resumed == again.groups && again.left.is_empty());
            same(&files(&to), &theirs);
        }
        // Another training of the same model is not taken for this one.
        let to = undisturbed.path();
        let resume = all.clone().resume(true);
        assert!(run(other.path(), to, &resume).unwrap_err().to_string().contains("is not empty"));
        same(&files(to), &theirs);
        // What was cancelled before it began leaves nothing.
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("out");
        let progress = Progress::new();
        progress.cancel();
        let error = writer::compress(from.path(), &to, &all, &progress).unwrap_err();
        assert_eq!(error.status(), Status::Cancelled);
        assert!(!to.exists(), "{:?}", files(parent.path()).keys());
    }
}

/// While a run works, no other one writes to the same place, in whatever way it is asked to.
#[cfg(unix)]
#[test]
fn nobody_else_writes_meanwhile() {
    let from = source(&layers(4, 300, true), None);
    let parent = tempfile::tempdir().unwrap();
    let part = Part { number: 1, count: 2 };
    let whole = options(layer_patterns());
    let single = whole.clone().layout(Layout::SingleFile);
    for (name, first) in [("folder", whole.clone()), ("part", whole.part(part)), ("file.safetensors", single)] {
        let (source, to, other) = (from.path().to_owned(), parent.path().join(name), first.clone());
        let refused = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = refused.clone();
        // In the midst of the work, and at its end, somebody else begins the same.
        let meanwhile = move |progress: &Progress| {
            if progress.total() > 0 && progress.done() < progress.total() {
                for resume in [false, true] {
                    let second = run(&source, &to, &other.clone().resume(resume));
                    seen.lock().unwrap().push(second.map(drop).map_err(|error| error.to_string()));
                }
            }
            true
        };
        let to = parent.path().join(name);
        writer::compress(from.path(), &to, &first, &Progress::with_callback(meanwhile)).unwrap();
        let refused = std::mem::take(&mut *refused.lock().unwrap());
        assert!(refused.len() >= 2, "{name}: {refused:?}");
        for (second, resume) in refused.into_iter().zip([false, true].into_iter().cycle()) {
            let said = second.expect_err(name);
            // One that does not go on with anything may be refused for what is there already.
            assert!(
                said.contains("another process is writing") || !resume && said.contains("--resume"),
                "{name}: {said}"
            );
        }
        if first.part == Part::WHOLE {
            is_equal(&to, from.path());
        }
    }
}

/// A run that goes on with another model would mix two.
#[test]
fn a_source_that_has_changed_is_not_gone_on_with() {
    let from = source(&layers(3, 200, true), None);
    let to = tempfile::tempdir().unwrap();
    let part = |number, resume| options(layer_patterns()).part(Part { number, count: 2 }).resume(resume);
    run(from.path(), to.path(), &part(1, false)).unwrap();
    // Written again, or copied to another machine, it is the same.
    let file = from.path().join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(run(from.path(), to.path(), &part(1, true)).unwrap().resumed, 3);
    // Another training leaves other weights everywhere.
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[start..].iter_mut().step_by(2).for_each(|b| *b ^= 1);
    std::fs::write(&file, &bytes).unwrap();
    for options in [part(2, false), part(1, true)] {
        let error = run(from.path(), to.path(), &options).unwrap_err();
        assert!(error.to_string().contains("from another source"), "{error}");
    }
}

/// Tensors that DF11 cannot hold stay as they are, with all of their group, in every layout.
#[test]
fn what_cannot_be_compressed_stays_plain() {
    let mut tensors = layers(4, 300, true);
    let find = |tensors: &mut Vec<Stored>, name: &str| tensors.iter().position(|t| t.name == name).unwrap();
    let i = find(&mut tensors, "model.layers.1.b.c.weight");
    tensors[i].dtype = Dtype::F16;
    let i = find(&mut tensors, "model.layers.2.a.weight");
    tensors[i].data[5001] = 0x7f;
    tensors[i].data[5000] = 0x80; // infinity
    let from = source(&tensors, None);
    for layout in [Layout::Folder, Layout::SingleFile] {
        for (hashes, shapes) in [(false, false), (true, true)] {
            let to = tempfile::tempdir().unwrap();
            let all = options(layer_patterns()).layout(layout).hashes(hashes).shapes(shapes);
            let progress = Progress::new();
            let report = writer::compress(from.path(), to.path(), &all, &progress).unwrap();
            assert_eq!(progress.done(), progress.total());
            is_equal(to.path(), from.path());
            let mut left: Vec<_> = report.left.iter().map(|l| (&l.tensor[..], &l.group[..])).collect();
            left.sort_unstable();
            let (one, two) = ("model.layers.1", "model.layers.2");
            let want = [
                ("model.layers.1.a.weight", one),
                ("model.layers.1.b.c.weight", one),
                ("model.layers.2.a.weight", two),
                ("model.layers.2.b.c.weight", two),
            ];
            assert_eq!(left, want);
            assert!(report.left.iter().any(|l| l.reason.contains("F16")));
            assert!(report.left.iter().any(|l| l.reason.contains("infinities") && l.reason.contains("2.a.weight")));
            assert!(!to.path().join("model_layers_2.safetensors").exists());
            assert_eq!(report.groups, 4);
        }
        let to = tempfile::tempdir().unwrap();
        let strict = options(layer_patterns()).layout(layout).strict(true);
        let error = run(from.path(), &to.path().join("x"), &strict).unwrap_err();
        assert_eq!(error.status(), Status::UnsupportedFormat, "{error}");
        assert!(files(to.path()).is_empty());
        let mut only_infinity = tensors.clone();
        only_infinity.retain(|t| !t.name.contains(".1."));
        let from = source(&only_infinity, None);
        let error = run(from.path(), &to.path().join("x"), &strict).unwrap_err();
        assert!(error.to_string().contains("'model.layers.2.a.weight'"), "{error}");
    }
    // In parts the others hear of it.
    let to = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let part = Part { number, count: 2 };
        run(from.path(), to.path(), &options(layer_patterns()).part(part)).unwrap();
    }
    let report = writer::merge(from.path(), to.path(), &options(layer_patterns()), &Progress::new()).unwrap();
    assert_eq!(report.left.len(), 4);
    is_equal(to.path(), from.path());
}

#[test]
fn tied_embeddings_work_in_both_layouts() {
    let untied = layers(2, 300, false);
    let mut both = untied.clone();
    both.push(Stored { name: "lm_head.weight".into(), ..untied[0].clone() });
    let only_layers = json!({ r"model\.layers\.\d+": ["a", "b.c"] });
    let config = json!({ "tie_word_embeddings": true });
    for layout in [Layout::Folder, Layout::SingleFile] {
        for (tensors, patterns, groups, has_head, dropped) in [
            (&untied, layer_patterns(), 4, true, 0),
            (&untied, only_layers.clone(), 2, false, 0),
            (&both, layer_patterns(), 4, true, 0),
            (&both, only_layers.clone(), 2, false, 1),
        ] {
            let from = source(tensors, Some(config.clone()));
            let to = tempfile::tempdir().unwrap();
            let report = run(from.path(), to.path(), &options(patterns).layout(layout)).unwrap();
            let model = Model::open(to.path(), &OpenOptions::default()).unwrap();
            assert_eq!((model.groups().len(), report.dropped.len()), (groups, dropped));
            assert_eq!(model.find_tensor("lm_head.weight").is_some(), has_head);
            let found = check::tensors(&model);
            for name in ["lm_head.weight", "model.embed_tokens.weight"] {
                assert!(found.get(name).is_none_or(|bytes| *bytes == tensors[0].data), "{name}");
            }
            is_equal(to.path(), from.path());
        }
    }
    // What is said to be tied and is not is kept.
    let mut unequal = both.clone();
    unequal.last_mut().unwrap().data[0] ^= 1;
    let from = source(&unequal, Some(config));
    let to = tempfile::tempdir().unwrap();
    let report = run(from.path(), to.path(), &options(only_layers)).unwrap();
    assert!(report.dropped.is_empty());
    is_equal(to.path(), from.path());
}

#[test]
fn hashes_and_shapes_are_those_of_the_source() {
    let tensors = layers(2, 300, true);
    let from = source(&tensors, None);
    for layout in [Layout::Folder, Layout::SingleFile] {
        let to = tempfile::tempdir().unwrap();
        let all = options(layer_patterns()).layout(layout).hashes(true).shapes(true);
        run(from.path(), to.path(), &all).unwrap();
        let model = Model::open(to.path(), &OpenOptions::default()).unwrap();
        for tensor in &tensors {
            let ours = model.find_tensor(&tensor.name).unwrap();
            let shape: Vec<u64> = tensor.shape.iter().map(|&d| d as u64).collect();
            assert_eq!(ours.shape(), shape, "{}", tensor.name);
            let hash: String = ours.sha256().unwrap().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hash, check::sha256(&tensor.data), "{}", tensor.name);
        }
        is_equal(to.path(), from.path());
    }
}

/// What a compression takes does not depend on how large the model is, nor a group.
#[test]
fn memory_does_not_grow_with_the_model() {
    alone!();
    let mut peaks = Vec::new();
    for (count, rows) in [(2, 12_000), (12, 12_000), (2, 90_000)] {
        let from = source(&layers(count, rows, true), None);
        for layout in [Layout::Folder, Layout::SingleFile] {
            let to = tempfile::tempdir().unwrap();
            let all = options(layer_patterns()).layout(layout);
            let (result, taken) = taken(|| run(from.path(), to.path(), &all));
            result.unwrap();
            peaks.push(taken.peak);
        }
    }
    assert!(peaks.iter().all(|&peak| peak < 16 << 20), "{peaks:?}");
    // With little to work in, fewer threads work.
    let (from, to) = (source(&layers(2, 90_000, true), None), tempfile::tempdir().unwrap());
    let little = options(layer_patterns()).threads(64).memory(10 << 20);
    let (result, taken) = taken(|| run(from.path(), to.path(), &little));
    result.unwrap();
    assert!(taken.peak < 16 << 20, "{}", taken.peak);
}

#[test]
fn destinations_that_would_harm_are_refused() {
    let from = source(&layers(1, 50, true), None);
    let refused_as = |status, to: &Path, layout, part: &str| {
        let error = run(from.path(), to, &options(layer_patterns()).layout(layout)).unwrap_err();
        assert_eq!(error.status(), status, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let refused = |to: &Path, layout, part: &str| refused_as(Status::InvalidArgument, to, layout, part);
    let before = files(from.path());
    refused(from.path(), Layout::Folder, "source's folder");
    refused(&from.path().join("a/b"), Layout::Folder, "source's folder");
    refused(&from.path().join("x.safetensors"), Layout::ByName, "source's folder");
    refused(from.path(), Layout::SingleFile, "source's folder");
    refused(&from.path().join("../").join(from.path().file_name().unwrap()), Layout::Folder, "source's folder");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("precious.txt"), "x").unwrap();
    refused_as(Status::Exists, other.path(), Layout::Folder, "'precious.txt'");
    refused_as(Status::Exists, other.path(), Layout::SingleFile, "'precious.txt'");
    refused(&other.path().join("precious.txt"), Layout::Folder, "not a folder");
    // The source itself, as a file.
    let file = from.path().join("model.safetensors");
    let options = options(layer_patterns());
    let error = run(&file, &file, &options).unwrap_err();
    assert!(error.to_string().contains("it is the source"), "{error}");
    same(&files(from.path()), &before);
    assert_eq!(files(other.path()).len(), 1);
    // Beside the source file, whose config.json stays as it is.
    std::fs::write(from.path().join("config.json"), r#"{"precious": 1}"#).unwrap();
    run(&file, &from.path().join("x.safetensors"), &options).unwrap();
    assert_eq!(std::fs::read_to_string(from.path().join("config.json")).unwrap(), r#"{"precious": 1}"#);
    assert!(from.path().join("x.config.json").exists());
    let model = Model::open(from.path().join("x.safetensors"), &OpenOptions::default()).unwrap();
    assert!(model.find_tensor("model.layers.0.b.c.weight").is_some(), "its own config comes first");
}

#[test]
fn sources_that_are_not_what_they_should_be() {
    let refused = |from: &Path, status, part: &str| {
        let parent = tempfile::tempdir().unwrap();
        let error = run(from, &parent.path().join("out"), &options(layer_patterns())).unwrap_err();
        assert_eq!(error.status(), status, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(files(parent.path()).is_empty() && !parent.path().join("out").exists());
    };
    refused(Path::new("no/such/model"), Status::Io, "no/such/model");
    refused(&golden::model("block"), Status::InvalidArgument, "compressed already");
    // Without its config, the file with the rest of it looks like a model. Beside a model it is only a copy.
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in files(&golden::model("sharded"))
        .into_iter()
        .filter(|(name, _)| name.extension().is_some_and(|e| e == "safetensors"))
    {
        std::fs::write(folder.path().join(name), file).unwrap();
    }
    refused(folder.path(), Status::InvalidArgument, "compressed already: it has the group 'lm_head'");
    std::fs::copy(golden::path("sharded/original.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let parent = tempfile::tempdir().unwrap();
    run(folder.path(), &parent.path().join("out"), &options(layer_patterns())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), Status::InvalidFormat, "no *.safetensors");
    std::fs::write(folder.path().join("model_index.json"), "{}").unwrap();
    refused(folder.path(), Status::InvalidArgument, "whole diffusers pipeline");
    std::fs::write(folder.path().join("model.safetensors"), b"short").unwrap();
    refused(folder.path(), Status::InvalidFormat, "model.safetensors");
    let nothing = source(&[bf16("other.weight", &[4], &[0; 4])], None);
    refused(nothing.path(), Status::InvalidArgument, "make no group");
    let config = source(&layers(1, 50, true), None);
    std::fs::write(config.path().join("config.json"), "{").unwrap();
    refused(config.path(), Status::InvalidFormat, "config.json");
    let index = source(&layers(1, 50, true), None);
    let write = |text: &str| std::fs::write(index.path().join("model.safetensors.index.json"), text).unwrap();
    write(r#"{"weight_map": {"model.norm.weight": "../model.safetensors"}}"#);
    refused(index.path(), Status::InvalidFormat, "not one of this folder");
    write(r#"{"weight_map": {"gone.weight": "model.safetensors"}}"#);
    refused(index.path(), Status::InvalidFormat, "'gone.weight'");
}

/// A run that is refused, or fails before it has done anything, touches nothing of others.
#[test]
fn a_run_that_is_refused_harms_nobody() {
    let from = source(&layers(4, 200, true), None);
    let to = tempfile::tempdir().unwrap();
    let part = |number| options(layer_patterns()).part(Part { number, count: 3 });
    run(from.path(), to.path(), &part(1)).unwrap();
    let before = files(to.path());
    for (refused, status) in [
        (options(layer_patterns()), Status::InvalidArgument),
        (options(layer_patterns()).resume(true), Status::InvalidArgument),
        (options(layer_patterns()).layout(Layout::SingleFile), Status::InvalidArgument),
        (part(1), Status::Unfinished),
        (part(2).hashes(true), Status::InvalidArgument),
    ] {
        assert_eq!(run(from.path(), to.path(), &refused).unwrap_err().status(), status);
        same(&files(to.path()), &before);
    }
    // A file beside others: those keep their config, and their unfinished files.
    let both = tempfile::tempdir().unwrap();
    let file = |name: &str| both.path().join(name);
    run(from.path(), &file("a.safetensors"), &options(layer_patterns())).unwrap();
    std::fs::write(file(".c.safetensors.df11-tmp"), "another's").unwrap();
    let before = files(both.path());
    // Cancelled when the call begins, and when its work does.
    for known in [false, true] {
        let progress = Progress::with_callback(move |progress| (progress.total() > 0) != known);
        let error = writer::compress(from.path(), &file("b.safetensors"), &options(layer_patterns()), &progress);
        assert_eq!(error.unwrap_err().status(), Status::Cancelled);
        same(&files(both.path()), &before);
    }
}

/// A file that is to be replaced stays as it was, with the config that it is read with, until the new one is complete.
#[test]
fn a_file_is_replaced_when_all_is_done_and_not_before() {
    let from = source(&layers(6, 9000, true), None);
    let seen = |folder: &Path| {
        let mut files = files(folder);
        files.retain(|name, _| !name.to_string_lossy().starts_with('.'));
        files
    };
    let mut failed = 0;
    for eighths in [0, 2, 4, 6, 7, 8] {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("x.safetensors");
        run(from.path(), &to, &options(layer_patterns())).unwrap();
        let before = seen(folder.path());
        // Other groups, and so another config.
        let all = options(json!({ r"model\.layers\.\d+": ["a"] }));
        match cancelled_at(eighths, from.path(), &to, &all) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.status(), Status::Cancelled, "{error}");
                failed += 1;
                same(&seen(folder.path()), &before);
                is_equal(&to, from.path());
                run(from.path(), &to, &all.resume(true)).unwrap();
            }
        }
        assert_eq!(Model::open(&to, &OpenOptions::default()).unwrap().group(0).unwrap().tensors().len(), 1);
        is_equal(&to, from.path());
        assert!(files(folder.path()).keys().all(|name| !name.to_string_lossy().starts_with('.')));
    }
    assert!(failed > 0, "none of the runs was cancelled before its end");
}

#[test]
fn requests_beyond_reason_are_bounded() {
    let from = source(&layers(2, 100, true), None);
    let to = tempfile::tempdir().unwrap();
    let many = options(layer_patterns()).threads(usize::MAX).memory(u64::MAX);
    run(from.path(), to.path(), &many).unwrap();
    is_equal(to.path(), from.path());
    // A config.json of 40,000 keys, in a time that nobody notices; a larger one is none.
    let keys: Vec<String> = (0..40_000).map(|i| format!("\"k{i}\":1")).collect();
    std::fs::write(from.path().join("config.json"), format!("{{{}}}", keys.join(","))).unwrap();
    let to = tempfile::tempdir().unwrap();
    run(from.path(), to.path(), &options(layer_patterns())).unwrap();
    assert_eq!(Model::open(to.path(), &OpenOptions::default()).unwrap().groups().len(), 4);
    std::fs::write(from.path().join("config.json"), format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20))).unwrap();
    let error = run(from.path(), &to.path().join("x"), &options(layer_patterns())).unwrap_err();
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
}

/// Opening a pipe would wait for ever.
#[cfg(unix)]
#[test]
fn a_config_that_is_no_file_is_refused() {
    let from = source(&layers(1, 100, true), None);
    let path = std::ffi::CString::new(from.path().join("config.json").to_str().unwrap()).unwrap();
    // SAFETY: a path that ends in a zero byte.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let to = tempfile::tempdir().unwrap();
    let error = run(from.path(), &to.path().join("x"), &options(layer_patterns())).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    // Beside a single file it is nobody's.
    run(&from.path().join("model.safetensors"), &to.path().join("y"), &options(layer_patterns())).unwrap();
}
