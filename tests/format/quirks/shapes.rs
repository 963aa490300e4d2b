//! Where the shapes of tensors in groups come from: the files, the caller, or the config and the plain tensors.

use std::collections::HashMap;
use std::path::Path;

use df11::internals::format::SHAPES_KEY;
use df11::{Error, Model, OpenOptions, ShapeSource};

use super::support::files::{self, Stored};
use super::support::{encoder, golden, weights};

fn open(path: impl AsRef<Path>, options: OpenOptions) -> Model {
    Model::open(path, &options).unwrap()
}

/// Counts the tensors by the source of their shapes.
fn sources(model: &Model) -> HashMap<ShapeSource, usize> {
    model.tensors().fold(HashMap::new(), |mut all, t| {
        *all.entry(t.shape_source()).or_default() += 1;
        all
    })
}

/// What is derived is the original's shape, in every model that the reference wrote.
#[test]
fn the_golden_models_shapes_are_derived() {
    for (name, derived, unknown) in
        [("tiny", 1, 0), ("block", 16, 0), ("sharded", 16, 0), ("edge", 4, 34), ("edge_patched", 0, 12)]
    {
        let original = golden::expected(name);
        let model = open(golden::model(name), OpenOptions::new());
        for tensor in model.tensors() {
            let plain = tensor.group().is_none();
            let want =
                if tensor.shape_known() { &original[tensor.name()].shape[..] } else { &[tensor.bytes() / 2][..] };
            assert_eq!(tensor.shape(), want, "{name}: {}", tensor.name());
            assert_eq!(tensor.shape_source() == ShapeSource::Stored, plain);
        }
        let found = sources(&model);
        let count = |source| found.get(&source).copied().unwrap_or(0);
        assert_eq!((count(ShapeSource::Derived), count(ShapeSource::Unknown)), (derived, unknown), "{name}");

        let model = open(golden::model(name), OpenOptions::new().no_derived_shapes(true));
        let flat = model.tensors().filter(|t| t.group().is_some());
        assert!(flat.clone().all(|t| !t.shape_known() && t.shape() == [t.bytes() / 2]), "{name}");
        assert_eq!(flat.count(), derived + unknown);
    }
}

/// The original, its folder, its header alone, a list and a list in a file say the same.
#[test]
fn the_caller_gives_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let original = golden::path("edge").join("original.safetensors");
    let bytes = std::fs::read(&original).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let header = write("header.safetensors", &bytes[..end]);
    let part = write("part", &bytes[..end + 1]);
    let want = golden::expected("edge");
    let list: HashMap<&str, &[u64]> = want.iter().map(|(name, t)| (&name[..], &t.shape[..])).collect();
    let list = serde_json::to_string(&list).unwrap();
    let json = write("list.json", list.as_bytes());
    let header_json = write("header.JSON", &bytes[8..end]);
    write("folder/model-00001-of-00002.safetensors", &bytes[..end]);
    write("folder/model-00002-of-00002.safetensors", &files::file(&[Stored::new("x", df11::Dtype::U8, &[1], vec![0])]));
    let ways = [
        OpenOptions::new().shapes_from(&original),
        OpenOptions::new().shapes_from(header),
        OpenOptions::new().shapes_from(part),
        OpenOptions::new().shapes_from(dir.path().join("folder")),
        OpenOptions::new().shapes_from(json),
        OpenOptions::new().shapes_from(header_json),
        OpenOptions::new().shapes(list.clone()),
        // The list comes first, so that the file need not be right.
        OpenOptions::new().shapes(list).shapes_from(golden::path("tiny").join("original.safetensors")),
    ];
    for options in ways {
        let model = open(golden::model("edge"), options);
        for tensor in model.tensors() {
            assert_eq!(tensor.shape(), want[tensor.name()].shape, "{}", tensor.name());
        }
        assert_eq!(sources(&model).get(&ShapeSource::Given), Some(&38));
    }
    // A DF11 model with shapes gives them too.
    let members = encoder::group_tensors("g", &encoder::encode(&weights::gaussian(60, 0.02, 1), &[12]));
    let metadata = [(SHAPES_KEY.to_owned(), r#"{"g.part_0": [3, 4]}"#.to_owned())];
    let with = write("with.safetensors", &encoder::safetensors(&members, Some(&metadata)));
    let without = write("without.safetensors", &encoder::safetensors(&members, None));
    let model = open(&without, OpenOptions::new().shapes_from(&with));
    let shapes: Vec<_> = model.tensors().map(|t| (t.shape_source(), t.shape().to_vec())).collect();
    assert_eq!(shapes, [(ShapeSource::Given, vec![3, 4]), (ShapeSource::Unknown, vec![48])]);
    // What the model's files say comes before what the caller says.
    let model = open(&with, OpenOptions::new().shapes(r#"{"g.part_0": [4, 3], "g.part_1": [6, 8]}"#));
    let shapes: Vec<_> = model.tensors().map(|t| (t.shape_source(), t.shape().to_vec())).collect();
    assert_eq!(shapes, [(ShapeSource::Stored, vec![3, 4]), (ShapeSource::Given, vec![6, 8])]);
}

/// What is wrong with them is the caller's mistake, and never looks like damage of the model.
#[test]
fn shapes_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (name, bytes) in [
        ("short.safetensors", &b"\x09\0\0\0\0\0\0\0{}"[..]),
        ("index.json", br#"{"weight_map": {"a": "b"}}"#),
        ("none.json", b"[1, 2]"),
        ("a/1.safetensors", &files::file(&[Stored::new("linear.weight", df11::Dtype::U8, &[48, 64], vec![0; 3072])])),
        ("a/2.safetensors", &files::file(&[Stored::new("linear.weight", df11::Dtype::U8, &[64, 48], vec![0; 3072])])),
    ] {
        std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        std::fs::write(path(name), bytes).unwrap();
    }
    std::fs::create_dir(path("empty")).unwrap();
    let given = |text: &str| OpenOptions::new().shapes(text);
    let cases = [
        (OpenOptions::new().shapes_from(path("short.safetensors")), "not a whole safetensors file"),
        (OpenOptions::new().shapes_from(path("index.json")), "'weight_map' has no list of dimensions"),
        (OpenOptions::new().shapes_from(path("none.json")), "none.json"),
        (OpenOptions::new().shapes_from(path("a")), "another file gives [48, 64]"),
        (OpenOptions::new().shapes_from(path("empty")), "no *.safetensors"),
        (
            given(r#"{"linear.weight": [48, 63]}"#),
            "[48, 63] is given for tensor 'linear.weight', which has 3072 weights",
        ),
        (given(r#"{"linear.weight": [4294967296, 4294967296, 3072]}"#), "another model's"),
        (given(r#"{"linear.weight": []}"#), "another model's"),
        (given(r#"{"linear.weight": [-48, -64]}"#), "cannot be used"),
        (given(r#"{"linear.weight": 3072}"#), "cannot be used"),
        (given(r#"{"linear.weight": {}}"#), "no list of dimensions"),
        (given(r#"{"linear.weight": "48, 64"}"#), "cannot be used"),
        (given(r#"{"linear.weight": {"shape": [48, 64], "shape": [48, 64]}}"#), "the key 'shape' twice"),
        (given(r#"{"linear.weight": {"shape": [48, 64], "dtype": "U8", "dtype": "I8"}}"#), "the key 'dtype' twice"),
        (given(r#"{"linear.weight": {"shape": [48, 64], "x": [{"a": 1, "a": 2}]}}"#), "the key 'a' twice"),
        (given(r#"{"__metadata__": {"format": "pt", "format": "pt"}}"#), "the key 'format' twice"),
        (given(r#"{"linear.weight": [48, 64], "linear.weight": [48, 64]}"#), "the key 'linear.weight' twice"),
        (given(r#"{"\ud800": [48, 64]}"#), "\\ud800 is half a character"),
        (given("{"), "cannot be used"),
    ];
    for (options, part) in cases {
        match Model::open(golden::model("tiny"), &options) {
            Err(Error::InvalidArgument(text)) => assert!(text.contains(part), "{text}"),
            other => panic!("{options:?}: {other:?}"),
        }
    }
    let missing = Model::open(golden::model("tiny"), &OpenOptions::new().shapes_from(path("missing")));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
}

/// The whole text of the config is there, as it was read.
#[test]
fn the_configs_text_is_kept() {
    for name in ["block", "tiny"] {
        let text = std::fs::read_to_string(golden::model(name).join("config.json")).unwrap();
        assert_eq!(open(golden::model(name), OpenOptions::new()).config_text(), Some(&text[..]));
    }
    let other = r#" {"hidden_size": 7, "dfloat11_config": {"pattern_dict": {}}} "#;
    assert_eq!(open(golden::model("tiny"), OpenOptions::new().config(other)).config_text(), Some(other));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plain.safetensors");
    std::fs::write(&file, files::file(&[Stored::new("x", df11::Dtype::U8, &[1], vec![0])])).unwrap();
    assert_eq!(open(&file, OpenOptions::new()).config_text(), None);
    // Next to a file may be another's, which is not even JSON; a plain model's has no patterns.
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    assert_eq!(open(&file, OpenOptions::new()).config_text(), None);
    std::fs::write(folder.path().join("config.json"), r#"{"a": 1}"#).unwrap();
    let model = open(folder.path(), OpenOptions::new());
    assert!(model.config().is_none() && model.config_text() == Some(r#"{"a": 1}"#));
}
