//! Whole models verified by the library: groups, hashes, originals, progress, cancelling.

use crate::support;

use df11::internals::format::HASHES_KEY;
use df11::internals::host::{self, FindingKind, Verified, VerifyOptions};
use df11::{Dtype, Error, Model, OpenOptions, Progress, Status};
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::alone::alone;
use support::files::{self, Stored};
use support::{check, encoder, golden, weights};

/// A verification's numbers, and its findings with their texts.
fn verify(model: &Model, original: Option<&Model>, threads: usize) -> (Verified, Vec<(FindingKind, String, String)>) {
    let progress = Progress::new();
    let mut found = Vec::new();
    let result = host::verify_model(model, original, &VerifyOptions::new().threads(threads), &progress, &mut |f| {
        assert!(f.text.contains(f.name), "{f:?}");
        found.push((f.kind, f.name.to_owned(), f.text));
    });
    assert_eq!(progress.done(), progress.total());
    (result.unwrap(), found)
}

/// Opens what a model is compared with.
fn original(path: &Path) -> Model {
    Model::open_original(path).unwrap()
}

/// A group of two tensors and a plain one with these hashes.
fn hashed(change: impl FnOnce(&mut encoder::Encoded), hashes: &str) -> Model {
    let mut encoded = encoder::encode(&weights::gaussian(300_000, 0.02, 1), &[100_000]);
    change(&mut encoded);
    let mut tensors = encoder::group_tensors("g", &encoded);
    tensors.push(("flags".into(), "U8", vec![3], vec![1, 2, 3]));
    let file = encoder::safetensors(&tensors, Some(&[(HASHES_KEY.to_owned(), hashes.to_owned())]));
    Model::from_bytes(file, &OpenOptions::default()).unwrap()
}

/// True hashes of all its tensors.
fn hashes() -> String {
    let of = |(name, bytes): (String, Vec<u8>)| (name, check::sha256(&bytes).into());
    serde_json::Value::Object(check::tensors(&hashed(|_| (), "{}")).into_iter().map(of).collect()).to_string()
}

#[test]
fn golden_models_are_good_and_equal_their_originals() {
    for name in golden::NAMES {
        let model = Model::open(golden::model(name), &OpenOptions::default()).unwrap();
        let original = original(&golden::path(name).join("original.safetensors"));
        for threads in [0, 1, 3] {
            let (verified, found) = verify(&model, Some(&original), threads);
            let groups = model.groups().len();
            assert!(verified.is_good() && verified.groups_good == groups as u64, "{name}: {verified:?}");
            assert_eq!(verified.tensors_equal, model.tensors().len() as u64);
            assert_eq!(verified.codes, model.groups().map(|g| g.element_count()).sum::<u64>());
            assert!(found.len() == groups && found.iter().all(|f| f.0 == FindingKind::Good), "{found:?}");
            let mut alone = verified;
            alone.tensors_equal = 0;
            assert_eq!(verify(&model, None, threads).0, alone);
        }
    }
}

#[test]
fn hashes_are_compared() {
    let hashes = hashes();
    for threads in [1, 2, 8] {
        let mut good = Verified::default();
        (good.groups_good, good.codes, good.hashes_right) = (1, 300_000, 3);
        assert_eq!(verify(&hashed(|_| (), &hashes), None, threads).0, good);

        // A mantissa: nothing but the hash knows.
        let changed = hashed(|e| e.sign_mantissa[250_000] ^= 1, &hashes);
        let (verified, found) = verify(&changed, None, threads);
        assert!(!verified.is_good());
        let mut expected = good;
        (expected.hashes_right, expected.hashes_wrong) = (2, 1);
        assert_eq!(verified, expected);
        let [(FindingKind::Good, ..), (FindingKind::Hash, name, text)] = &found[..] else { panic!("{found:?}") };
        assert!(name == "g.part_1" && text.starts_with("tensor 'g.part_1': its SHA-256 is "), "{text}");

        // What cannot be decoded cannot have the right one.
        let damaged = hashed(|e| e.encoded_exponent[2000..4000].fill(0xff), &hashes);
        let (verified, found) = verify(&damaged, None, threads);
        assert!(verified.groups_bad == 1 && verified.hashes_wrong >= 1, "{verified:?}");
        assert!(
            found[0].0 == FindingKind::Bad && found[1].2.contains("it cannot be decoded to be hashed: "),
            "{found:?}"
        );

        // Of the plain tensor alone, and wrong; what the model does not have does not count.
        let wrong = format!(r#"{{"flags": "{0}", "no such": "{0}"}}"#, "00".repeat(32));
        let (verified, found) = verify(&hashed(|_| (), &wrong), None, threads);
        assert_eq!((verified.hashes_right, verified.hashes_wrong), (0, 1));
        assert_eq!((found[1].0, &found[1].1[..]), (FindingKind::Hash, "flags"));
    }
}

/// Writes the original of a golden model as Hugging Face does: shards, their index, a config.json of its own.
fn write_shards(golden: &str, folder: &Path) {
    let bytes = std::fs::read(golden::path(golden).join("original.safetensors")).unwrap();
    let original = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut shards: [Vec<Stored>; 3] = Default::default();
    let mut map = serde_json::Map::new();
    for (i, (name, v)) in original.iter().enumerate() {
        shards[i % 3].push(Stored::new(name, v.dtype(), v.shape(), v.data().to_vec()));
        map.insert(name.into(), format!("model-{:05}-of-00003.safetensors", i % 3 + 1).into());
    }
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-00003.safetensors", i + 1);
        std::fs::write(folder.join(name), files::file(shard)).unwrap();
    }
    let index = serde_json::json!({ "metadata": { "total_size": bytes.len() }, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"architectures": ["LlamaForCausalLM"]}"#).unwrap();
}

#[test]
fn an_original_in_shards() {
    let folder = tempfile::tempdir().unwrap();
    write_shards("block", folder.path());
    let model = Model::open(golden::model("block"), &OpenOptions::default()).unwrap();
    let (verified, _) = verify(&model, Some(&original(folder.path())), 2);
    assert!(verified.is_good() && verified.tensors_equal == model.tensors().len() as u64, "{verified:?}");

    // The same weights once more, under other names, as some models come: not in the index.
    let more = [Stored::new("layers.0.attention.wq.weight", Dtype::BF16, &[2], vec![0; 4])];
    std::fs::write(folder.path().join("consolidated.safetensors"), files::file(&more)).unwrap();
    assert!(verify(&model, Some(&original(folder.path())), 2).0.is_good());
    let all = Model::open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(verify(&model, Some(&all), 2).0.tensors_different, 1);

    // A shard that was not downloaded, and indexes that say nothing.
    let open = || Model::open_original(folder.path()).unwrap_err();
    std::fs::remove_file(folder.path().join("model-00002-of-00003.safetensors")).unwrap();
    let error = open();
    assert_eq!(error.status(), Status::InvalidFormat);
    assert!(error.to_string().contains("the index lists 'model-00002-of-00003.safetensors'"), "{error}");
    for text in ["{", "[]", r#"{"weight_map": {"a": 1}}"#] {
        std::fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
        assert_eq!(open().status(), Status::InvalidFormat, "{text}");
    }
    // A DF11 folder's index lists only a part of it.
    let sharded = original(&golden::model("sharded"));
    assert_eq!(sharded.groups().len(), 4);
}

#[test]
fn a_call_is_watched_and_cancelled() {
    let model = Model::open(golden::model("block"), &OpenOptions::default()).unwrap();
    let original = original(&golden::path("block").join("original.safetensors"));
    let run = |progress: &Progress| {
        let options = VerifyOptions::new().threads(2);
        host::verify_model(&model, Some(&original), &options, progress, &mut |_| ())
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let progress = Progress::with_callback(move |p| {
        sink.lock().unwrap().push((p.done(), p.total()));
        true
    });
    run(&progress).unwrap();
    let told = told.lock().unwrap().clone();
    let weights: u64 = model.groups().map(|g| 2 * g.element_count()).sum();
    let total = weights + model.tensors().map(|t| t.bytes()).sum::<u64>();
    assert!(told[0] == (0, total) && told.last() == Some(&(total, total)), "{told:?}");
    assert!(told.is_sorted_by_key(|t| t.0), "{told:?}");

    // Before it began, by the callback, and somewhere on the way by another's switch.
    let progress = Progress::new();
    progress.cancel();
    assert!(matches!(run(&progress), Err(Error::Cancelled)));
    let progress = Progress::with_callback(|_| false);
    assert!(matches!(run(&progress), Err(Error::Cancelled)));
    assert_eq!(progress.done(), 0);
    for after in 0..model.groups().len() {
        let given = Progress::new();
        let switch = Progress::new().shared_with(&given);
        let mut told = 0;
        let result = host::verify_model(&model, Some(&original), &VerifyOptions::default(), &given, &mut |_| {
            if told == after {
                switch.cancel();
            }
            told += 1;
        });
        assert!(matches!(result, Err(Error::Cancelled)) && told == after + 1, "{after}: {result:?}");
    }
}

/// An original that is cut short while it is compared says nothing about the model.
#[test]
fn an_original_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.safetensors");
    std::fs::copy(golden::path("tiny").join("original.safetensors"), &path).unwrap();
    let model = Model::open(golden::model("tiny"), &OpenOptions::default()).unwrap();
    let original = original(&path);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let compared = host::compare_models(&model, &original, &VerifyOptions::default(), &Progress::new(), &mut |_| ());
    let error = compared.unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.to_string().contains("the original cannot be used: the file has become shorter"), "{error}");
}

#[test]
fn memory_does_not_grow_with_the_model() {
    alone!();
    let all: Vec<u16> = weights::trained_like(12_000_000, 3);
    let encoded = encoder::encode(&all, &[]);
    let zeros = "00".repeat(32);
    let metadata = [(HASHES_KEY.to_owned(), format!(r#"{{"g.weight": "{zeros}"}}"#))];
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        Model::open(folder.path().join(name), &OpenOptions::new()).unwrap()
    };
    let model = write("m.safetensors", encoder::safetensors(&encoder::group_tensors("g", &encoded), Some(&metadata)));
    let plain = Stored::new("g.weight", Dtype::BF16, &[all.len()], all.iter().flat_map(|w| w.to_le_bytes()).collect());
    let original = write("o.safetensors", files::file(&[plain]));
    let ((verified, _), taken) = support::alloc::taken(|| verify(&model, Some(&original), 2));
    assert_eq!((verified.hashes_wrong, verified.tensors_equal), (1, 1));
    assert!(taken.peak < 21 << 20, "{taken:?}");
}
