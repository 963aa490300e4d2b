//! Models decompressed to folders as they are published, and compressed models repacked: every tensor, name, shape and byte.

use crate::support;

use df11::internals::format::{HASHES_KEY, SHAPES_KEY};
use df11::internals::writer::plan::Patterns;
use df11::writer::{
    self, CompressOptions, DecompressOptions, DecompressReport, ImagesOptions, Layout, RepackOptions, RepackReport,
};
use df11::{Dtype, Error, Model, OpenOptions, Progress, ShapeSource, Status};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use support::alloc::taken;
use support::alone::alone;
use support::files::{self as made, Stored};
use support::{golden, weights};

/// Tensors by name: type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors_of(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.iter().map(|(name, v)| (name.to_owned(), (v.dtype(), v.shape().to_vec(), v.data().to_vec()))).collect()
}

fn metadata_of(file: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(file).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().clone().unwrap_or_default().into_iter().collect()
}

/// The files of a folder by their names, hidden ones too.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(tree(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

/// Says which files differ, not their bytes.
#[track_caller]
fn same(ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    ours.iter().for_each(|(name, bytes)| assert!(*bytes == theirs[name], "{} differs", name.display()));
}

fn decompress(source: &Path, to: &Path, options: &DecompressOptions) -> Result<DecompressReport, Error> {
    writer::decompress(source, to, options, &Progress::new())
}

fn repack(source: &Path, to: &Path, options: &RepackOptions) -> Result<RepackReport, Error> {
    writer::repack(source, to, options, &Progress::new())
}

fn compress(source: &Path, to: &Path, options: &CompressOptions) {
    writer::compress(source, to, options, &Progress::new()).unwrap();
}

/// A folder as it is published: its tensors, after its index was found to be true.
fn published(folder: &Path, main: &str, most: u64) -> Tensors {
    let mut all = Tensors::new();
    let mut map = BTreeMap::new();
    let files = tree(folder);
    let shards: Vec<&PathBuf> = files.keys().filter(|f| f.extension().is_some_and(|e| e == "safetensors")).collect();
    for (i, &shard) in shards.iter().enumerate() {
        let name = shard.to_str().unwrap();
        let stem = main.trim_end_matches(".safetensors");
        match shards.len() {
            1 => assert_eq!(name, main),
            n => assert_eq!(name, format!("{stem}-{:05}-of-{n:05}.safetensors", i + 1)),
        }
        let tensors = tensors_of(&files[shard]);
        let bytes: usize = tensors.values().map(|(.., data)| data.len()).sum();
        assert!(bytes as u64 <= most || tensors.len() == 1, "{name}: {bytes} bytes");
        assert_eq!(metadata_of(&folder.join(shard)), [("format".to_owned(), "pt".to_owned())].into());
        map.extend(tensors.keys().map(|t| (t.clone(), Value::from(name))));
        all.extend(tensors);
    }
    let index = files.get(&PathBuf::from(format!("{main}.index.json")));
    assert_eq!(index.is_some(), shards.len() > 1);
    if let Some(text) = index {
        let total: usize = all.values().map(|(.., data)| data.len()).sum();
        // As Python's json.dumps(…, indent=2, sort_keys=True) writes it.
        let want = json!({ "metadata": { "total_size": total }, "weight_map": map });
        assert_eq!(String::from_utf8_lossy(text), serde_json::to_string_pretty(&want).unwrap() + "\n");
    }
    all
}

fn patterns_of(name: &str) -> Patterns {
    Patterns::parse(&made::golden_config(name)).unwrap()
}

/// From a published model to DF11 and back: what comes back has the names, types, shapes and bytes of the source, and its config.
#[test]
fn every_golden_model_comes_back_as_it_was() {
    for name in golden::NAMES {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::copy(golden::path(name).join("original.safetensors"), source.join("model.safetensors")).unwrap();
        let config = "{\n  \"a\": 1e-06,\n  \"model_type\": \"x\",\n  \"z\": [\n    \"\\u00e9\"\n  ]\n}\n";
        std::fs::write(source.join("config.json"), config).unwrap();
        std::fs::create_dir(source.join("more")).unwrap();
        std::fs::write(source.join("more/tokenizer.json"), "{}").unwrap();
        let original = tensors_of(&std::fs::read(source.join("model.safetensors")).unwrap());
        for layout in [Layout::Folder, Layout::SingleFile] {
            let packed = tempfile::tempdir().unwrap();
            let options = CompressOptions::new().patterns(patterns_of(name)).shapes(true).layout(layout);
            compress(&source, packed.path(), &options);
            for (shard_bytes, threads) in [(0, 1), (0, 3), (100_000, 1), (100_000, 5), (1, 2)] {
                let to = dir.path().join("new/er");
                let options = DecompressOptions::new().shard_bytes(shard_bytes).threads(threads);
                let report = decompress(packed.path(), &to, &options).unwrap();
                let most = if shard_bytes == 0 { writer::DEFAULT_SHARD_BYTES } else { shard_bytes };
                let back = published(&to, "model.safetensors", most);
                assert!(back == original, "{name}: other tensors");
                assert_eq!(std::fs::read_to_string(to.join("config.json")).unwrap(), config);
                assert_eq!(std::fs::read_to_string(to.join("more/tokenizer.json")).unwrap(), "{}");
                let files = tree(&to);
                let shards = files.keys().filter(|f| f.extension().is_some_and(|e| e == "safetensors")).count();
                assert_eq!(files.len(), shards + 2 + usize::from(shards > 1), "{:?}", files.keys());
                let bytes: usize =
                    files.iter().filter(|(f, _)| f.extension().unwrap() == "safetensors").map(|(_, b)| b.len()).sum();
                assert_eq!((report.tensors as usize, report.flat), (original.len(), 0));
                assert_eq!((report.files, report.written_bytes, report.config_keys), (shards as u64, bytes as u64, 3));
                assert_eq!(report.carried, [Path::new("more/tokenizer.json")]);
                std::fs::remove_dir_all(dir.path().join("new")).unwrap();
            }
        }
    }
}

/// The reference writes no shapes: then nothing is written, unless one dimension is accepted.
#[test]
fn shapes_that_are_not_known_are_an_error_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (to, model) = (dir.path().join("to"), dir.path().join("model"));
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(golden::model("block").join("model.safetensors"), model.join("model.safetensors")).unwrap();
    // A config without sizes; what follows from norms is left out.
    std::fs::write(model.join("config.json"), made::config("0.5.0", &patterns_of("block").to_json())).unwrap();
    let open = || OpenOptions::new().no_derived_shapes(true);
    let options = || DecompressOptions::new().open(open());
    let unknown = Model::open(&model, &open()).unwrap().tensors().filter(|t| !t.shape_known()).count() as u64;
    assert!(unknown > 0);
    match decompress(&model, &to, &options()) {
        Err(error @ Error::ShapesUnknown { count, weights, .. }) => {
            assert_eq!((count, weights > 0, error.status()), (unknown, true, Status::InvalidArgument));
        }
        other => panic!("{other:?}"),
    }
    assert!(!to.exists());
    let report = decompress(&model, &to, &options().flat(true)).unwrap();
    assert_eq!((report.flat, report.config_keys), (unknown, 0));
    assert!(!to.join("config.json").exists(), "it has nothing but what DF11 needs");
    // Those that are not wanted need no shapes.
    let norm = "model.norm.weight";
    let report = decompress(&model, &dir.path().join("norm"), &options().tensors([norm])).unwrap();
    assert_eq!((report.tensors, report.flat), (1, 0));
    assert_eq!(tensors_of(&std::fs::read(dir.path().join("norm/model.safetensors")).unwrap()).len(), 1);
}

/// Tensors and groups by name, in a folder and in a file; a name that is not there is answered by its neighbour.
#[test]
fn what_is_selected_is_written_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden::model("sharded");
    let opened = Model::open(&model, &OpenOptions::new()).unwrap();
    let group = opened.find_group("model.layers.1").unwrap();
    let mut want: BTreeSet<&str> = group.tensors().map(|t| t.name()).collect();
    want.extend(["model.norm.weight", "lm_head.weight"]);
    let options = DecompressOptions::new().flat(true).groups(["model.layers.1", "model.layers.1"]).tensors([
        "model.norm.weight",
        "lm_head.weight",
        "lm_head.weight",
    ]);
    for to in ["some", "some.safetensors"] {
        let to = dir.path().join(to);
        let report = decompress(&model, &to, &options).unwrap();
        assert_eq!(report.tensors as usize, want.len());
        let file = if to.is_dir() { to.join("model.safetensors") } else { to };
        let tensors = tensors_of(&std::fs::read(file).unwrap());
        assert_eq!(tensors.keys().map(|name| &name[..]).collect::<BTreeSet<_>>(), want);
        for (name, (_, _, data)) in &tensors {
            assert_eq!(support::check::sha256(data), golden::expected("sharded")[name].sha256, "{name}");
        }
    }
    for (tensors, groups, says) in [
        (&["model.layer.1.mlp.up_proj.weight"][..], &[][..], "the nearest name is 'model.layers.1.mlp.up_proj.weight'"),
        (&[], &["model.layers.l"], "the nearest name is 'model.layers."),
        (&["lm_head"], &[], "'lm_head' is a group and no tensor"),
        (&[], &["lm_head.weight"], "'lm_head.weight' is a tensor and no group"),
    ] {
        let options = DecompressOptions::new().flat(true).tensors(tensors.to_vec()).groups(groups.to_vec());
        let error = decompress(&model, &dir.path().join("none"), &options).unwrap_err();
        assert!(error.status() == Status::NotFound && error.to_string().contains(says), "{error}");
        assert!(!dir.path().join("none").exists());
    }
}

fn bf16(name: &str, shape: &[usize], weights: &[u16]) -> Stored {
    Stored::new(name, Dtype::BF16, shape, bytemuck::cast_slice(weights).to_vec())
}

/// A model whose head is tied to the embedding and made a group of its own comes back without a head, if it is told so and
/// equal.
#[test]
fn a_tied_head_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let embedding = weights::trained_like(64 * 32, 3);
    let tensors = [bf16("model.embed_tokens.weight", &[64, 32], &embedding)];
    std::fs::write(source.join("model.safetensors"), made::file(&tensors)).unwrap();
    let patterns = || Patterns::parse(r#"{"lm_head": [], "model\\.embed_tokens": []}"#).unwrap();
    std::fs::write(source.join("config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    let packed = dir.path().join("packed");
    compress(&source, &packed, &CompressOptions::new().patterns(patterns()).shapes(true));
    assert!(Model::open(&packed, &OpenOptions::new()).unwrap().find_group("lm_head").is_some());
    let to = dir.path().join("to");
    let options = DecompressOptions::new();
    let report = decompress(&packed, &to, &options).unwrap();
    assert_eq!(report.dropped, [("lm_head.weight".to_owned(), "model.embed_tokens.weight".to_owned())]);
    let back = tensors_of(&std::fs::read(to.join("model.safetensors")).unwrap());
    assert!(back == tensors_of(&made::file(&tensors)));
    // Who asks for it gets it.
    decompress(&packed, &dir.path().join("asked"), &options.clone().flat(true).tensors(["lm_head.weight"])).unwrap();
    // It is stored if no config says that it is tied.
    let config = std::fs::read_to_string(packed.join("config.json")).unwrap();
    std::fs::write(packed.join("config.json"), config.replace("\"tie_word_embeddings\": true", "\"x\": 1")).unwrap();
    let report = decompress(&packed, &dir.path().join("untied"), &options.flat(true)).unwrap();
    assert_eq!((report.tensors, report.dropped.len()), (2, 0));
}

/// A published model of diffusers: the names of its files are theirs, and its config has two keys.
#[test]
fn models_of_diffusers_have_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let file = golden::model("tiny").join("model.safetensors");
    std::fs::copy(file, model.join("diffusion_pytorch_model.safetensors")).unwrap();
    let config = made::golden_config("tiny");
    let ours = serde_json::from_str::<Value>(&config).unwrap()["dfloat11_config"].to_string();
    let two = format!("{{\"dfloat11_config\": {ours}, \"model_type\": \"llama\"}}");
    std::fs::write(model.join("config.json"), two).unwrap();
    let to = dir.path().join("to");
    let report = decompress(&model, &to, &DecompressOptions::new().flat(true).shard_bytes(1)).unwrap();
    assert!(report.files > 1 && report.config_keys == 1);
    published(&to, "diffusion_pytorch_model.safetensors", 1);
    assert_eq!(std::fs::read_to_string(to.join("config.json")).unwrap(), "{\"model_type\": \"llama\"}");
}

/// A folder that has something in it stays as it is, and so does one that a compression has begun.
#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (model, to) = (golden::model("tiny"), dir.path().join("to"));
    let options = DecompressOptions::new().flat(true);
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("notes"), "mine").unwrap();
    let before = tree(&to);
    assert_eq!(decompress(&model, &to, &options).unwrap_err().status(), Status::Exists);
    assert_eq!(repack(&model, &to, &RepackOptions::new()).unwrap_err().status(), Status::Exists);
    same(&tree(&to), &before);
    std::fs::remove_file(to.join("notes")).unwrap();
    std::fs::write(to.join(".gitattributes"), "hidden").unwrap();
    decompress(&model, &to, &options).unwrap();
    assert!(to.join(".gitattributes").exists() && to.join("model.safetensors").exists());
    // A part of a compression is there.
    let (begun, source) = (dir.path().join("begun"), golden::path("block").join("original.safetensors"));
    let part = CompressOptions::new().patterns(patterns_of("block")).part(writer::Part { number: 1, count: 2 });
    compress(&source, &begun, &part);
    let before = tree(&begun);
    for error in
        [decompress(&model, &begun, &options).unwrap_err(), repack(&model, &begun, &RepackOptions::new()).unwrap_err()]
    {
        assert!(error.to_string().contains("by a compression"), "{error}");
    }
    same(&tree(&begun), &before);
}

/// Who cancels finds nothing, whenever that is.
#[test]
fn what_is_cancelled_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden::model("sharded");
    let options = DecompressOptions::new().flat(true).shard_bytes(100_000).threads(2);
    type Write<'a> = &'a dyn Fn(&Path, &Progress) -> Result<(), Error>;
    let decompress = |to: &Path, progress: &Progress| writer::decompress(&model, to, &options, progress).map(|_| ());
    let images = |to: &Path, progress: &Progress| {
        writer::write_images(&model, to, &ImagesOptions::new().threads(2), progress).map(|_| ())
    };
    let kinds: [(&str, Write); 3] = [("to", &decompress), ("to.safetensors", &decompress), ("images", &images)];
    for (to, write) in kinds {
        let to = dir.path().join(to);
        for calls in 0.. {
            let left = std::sync::atomic::AtomicUsize::new(calls);
            let stop = move |_: &Progress| {
                left.fetch_update(std::sync::atomic::Ordering::Relaxed, std::sync::atomic::Ordering::Relaxed, |n| {
                    n.checked_sub(1)
                })
                .is_ok()
            };
            let progress = Progress::with_callback(stop);
            match write(&to, &progress) {
                Err(Error::Cancelled) => assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{calls}"),
                done => {
                    done.unwrap();
                    assert!(calls > 1);
                    break;
                }
            }
        }
        let _ = std::fs::remove_dir_all(&to);
        let _ = std::fs::remove_file(&to);
    }
}

/// Whatever the model's size, the memory is that of the threads.
#[test]
fn memory_does_not_grow_with_the_model() {
    alone!();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hollow.safetensors");
    let bytes: u64 = 256 << 20;
    let header = format!(r#"{{"hollow":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    std::fs::write(&file, made::raw(&header, &[])).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(8 + header.len() as u64 + bytes).unwrap();
    for to in ["to", "to.safetensors"] {
        let to = dir.path().join(to);
        let options = DecompressOptions::new().threads(4);
        let (report, most) = taken(|| decompress(&file, &to, &options).unwrap());
        assert!(report.written_bytes > bytes && most.peak < 16 << 20, "{} bytes", most.peak);
    }
}

/// From folder to file and back, each is what `compress` would have written there: not a bit is lost, nor a word of the metadata.
#[test]
fn what_is_repacked_is_what_compress_writes() {
    for name in golden::NAMES {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::copy(golden::path(name).join("original.safetensors"), source.join("model.safetensors")).unwrap();
        std::fs::write(source.join("config.json"), "{\"model_type\": \"x\"}").unwrap();
        std::fs::write(source.join("tokenizer.json"), "{}").unwrap();
        for notes in [false, true] {
            let at = |name: &str| dir.path().join(format!("{name}-{notes}"));
            let options = CompressOptions::new().patterns(patterns_of(name)).shapes(notes).hashes(notes).threads(2);
            compress(&source, &at("folder"), &options);
            compress(&source, &at("single"), &options.clone().layout(Layout::SingleFile));
            compress(&source, &at("alone").join("x.safetensors"), &options);
            for from in [at("folder"), at("single"), at("alone").join("x.safetensors")] {
                let to = tempfile::tempdir().unwrap();
                let (folder, single, alone) =
                    (to.path().join("folder"), to.path().join("single"), to.path().join("alone"));
                let options = RepackOptions::new().threads(3);
                let report = repack(&from, &folder, &options).unwrap();
                let carries = from.is_dir();
                let without_tokenizer = |mut tree: BTreeMap<PathBuf, Vec<u8>>| {
                    tree.retain(|name, _| carries || name != Path::new("tokenizer.json"));
                    tree
                };
                same(&tree(&folder), &without_tokenizer(tree(&at("folder"))));
                let opened = Model::open(&from, &OpenOptions::new()).unwrap();
                assert_eq!(report.groups as usize, opened.groups().len());
                assert_eq!(report.plain as usize, opened.tensors().filter(|t| t.group().is_none()).count());
                repack(&from, &single, &options.clone().layout(Layout::SingleFile)).unwrap();
                same(&tree(&single), &without_tokenizer(tree(&at("single"))));
                std::fs::create_dir(&alone).unwrap();
                repack(&from, &alone.join("x.safetensors"), &options).unwrap();
                same(&tree(&alone), &tree(&at("alone")));
            }
        }
    }
}

/// Shapes that the model lacks and the caller has are stored with it.
#[test]
fn shapes_that_are_given_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let original = golden::path("edge").join("original.safetensors");
    let open = OpenOptions::new().shapes_from(&original);
    for to in ["folder", "one.safetensors"] {
        let to = dir.path().join(to);
        repack(&golden::model("edge"), &to, &RepackOptions::new().open(open.clone())).unwrap();
        let model = Model::open(&to, &OpenOptions::new()).unwrap();
        for (name, want) in golden::expected("edge") {
            let tensor = model.find_tensor(&name).unwrap();
            assert!(tensor.shape_known() && tensor.shape() == want.shape, "{name}: {:?}", tensor.shape());
        }
    }
}

/// Published models have the members of a group in several files, and metadata of others' in some of them.
#[test]
fn scattered_members_come_together() {
    let dir = tempfile::tempdir().unwrap();
    let (source, whole, model) = (dir.path().join("x.safetensors"), dir.path().join("whole"), dir.path().join("model"));
    std::fs::copy(golden::path("block").join("original.safetensors"), &source).unwrap();
    compress(&source, &whole, &CompressOptions::new().patterns(patterns_of("block")).shapes(true).hashes(true));
    std::fs::create_dir(&model).unwrap();
    let mut parts = [const { Vec::new() }; 3];
    let mut notes = BTreeMap::new();
    for (path, bytes) in tree(&whole).into_iter().filter(|(path, _)| path.extension().unwrap() == "safetensors") {
        for (i, (name, (dtype, shape, data))) in tensors_of(&bytes).into_iter().enumerate() {
            parts[i % 3].push(Stored::new(&name, dtype, &shape, data));
        }
        for (key, text) in metadata_of(&whole.join(path)) {
            if let Ok(Value::Object(entries)) = serde_json::from_str(&text) {
                notes.entry(key).or_insert_with(serde_json::Map::new).extend(entries);
            }
        }
    }
    assert!(notes.contains_key(SHAPES_KEY) && notes.contains_key(HASHES_KEY));
    for (i, part) in parts.iter().enumerate() {
        let views = part
            .iter()
            .map(|t| (&t.name, safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap()));
        let mut metadata: std::collections::HashMap<String, String> =
            [("everywhere".to_owned(), "yes".to_owned())].into();
        if i == 1 {
            metadata.extend(notes.iter().map(|(key, map)| (key.clone(), Value::from(map.clone()).to_string())));
            metadata.insert("title".into(), "a model".into());
        }
        std::fs::write(
            model.join(format!("part-{i}.safetensors")),
            safetensors::serialize(views, Some(metadata)).unwrap(),
        )
        .unwrap();
    }
    std::fs::copy(whole.join("config.json"), model.join("config.json")).unwrap();
    let to = dir.path().join("to");
    repack(&model, &to, &RepackOptions::new().threads(2)).unwrap();
    let (ours, theirs) = (tree(&to), tree(&whole));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for path in theirs.keys().filter(|path| path.extension().unwrap() == "safetensors") {
        assert!(tensors_of(&ours[path]) == tensors_of(&theirs[path]), "{}", path.display());
        let mut metadata = metadata_of(&to.join(path));
        assert_eq!(metadata.remove("everywhere").as_deref(), Some("yes"));
        let title = metadata.remove("title");
        assert_eq!(title.is_some(), path == Path::new("model.safetensors"));
        let parse = |metadata: BTreeMap<String, String>| -> BTreeMap<String, Value> {
            metadata.into_iter().map(|(key, text)| (key, serde_json::from_str(&text).unwrap_or(Value::Null))).collect()
        };
        assert_eq!(parse(metadata), parse(metadata_of(&whole.join(path))), "{}", path.display());
    }
}

/// A file is replaced on request alone, with its config; what is not compressed is not repacked.
#[test]
fn a_repacked_file_replaces_another_on_request_alone() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("x.safetensors");
    let keep = RepackOptions::new().keep_existing(true);
    repack(&golden::model("tiny"), &to, &keep).unwrap();
    let before = tree(dir.path());
    assert_eq!(repack(&golden::model("block"), &to, &keep).unwrap_err().status(), Status::Exists);
    same(&tree(dir.path()), &before);
    repack(&golden::model("block"), &to, &RepackOptions::new()).unwrap();
    support::check::is_original(&Model::open(&to, &OpenOptions::new()).unwrap(), "block");
    let plain = golden::path("tiny").join("original.safetensors");
    let error = repack(&plain, &dir.path().join("out"), &keep).unwrap_err();
    assert!(error.to_string().contains("is not compressed"), "{error}");
    assert!(!dir.path().join("out").exists());
}

/// Python reads numbers that no double holds, and halves of characters, which JSON's parsers refuse elsewhere. The config is used
/// for all else that it says, and comes back as it is spelled.
#[test]
fn a_config_that_only_python_reads_is_kept() {
    let odd = r#""odd": [1e400, -Infinity, NaN], "\ud800": "\udfff \ud834\udd1e", "model_type": "llama"}"#;
    let (from, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(golden::path("sharded/original.safetensors"), from.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(golden::model("sharded").join("config.json")).unwrap();
    let config = config.replacen("\"model_type\": \"llama\"", &odd[..odd.len() - 1], 1);
    std::fs::write(from.path().join("config.json"), &config).unwrap();
    let (packed, plain) = (parent.path().join("packed"), parent.path().join("plain"));
    let report = writer::compress(from.path(), &packed, &CompressOptions::new(), &Progress::new()).unwrap();
    assert_eq!(report.preset.as_deref(), Some("llama"), "by its model_type");
    let model = Model::open(&packed, &OpenOptions::new()).unwrap();
    assert!(model.tensors().all(|t| t.shape_source() != ShapeSource::Unknown), "by the config's sizes");
    decompress(&packed, &plain, &DecompressOptions::new()).unwrap();
    for folder in [&packed, &plain] {
        let written = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let odd = "\"odd\": [\n    1e400,\n    -Infinity,\n    NaN\n  ],\n";
        assert!(written.contains(odd) && written.contains("\"\\ud800\": \"\\udfff \\ud834\\udd1e\""), "{written}");
    }
}
