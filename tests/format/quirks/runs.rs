//! Groups with names and runs: the extension that docs/format.md describes, as a writer that shares no line with the library
//! makes it. The files are kept in `tests/data/extension`, for bindings and for other readers;
//! `DF11_BLESS=1 cargo test --test format extension` writes them anew.

use super::open;
use super::support::files::{self, Stored};
use super::support::{check, encoder, weights};
use df11::internals::format::{GROUPS_KEY, SHAPES_KEY};
use df11::{DecodeOptions, Dtype, Model, OpenOptions, Run, Status};
use std::path::{Path, PathBuf};

/// A tensor of the original: its name, its shape, its weights.
type Original = (&'static str, Vec<usize>, Vec<u16>);

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/extension")
}

fn original() -> Vec<Original> {
    let of =
        |name, shape: &[usize], seed| (name, shape.to_vec(), weights::gaussian(shape.iter().product(), 0.02, seed));
    vec![
        of("layers.0.attn.weight", &[20, 30], 1),
        of("layers.0.experts.down", &[4, 3, 50], 2),
        of("layers.0.experts.up", &[4, 50, 7], 3),
        of("layers.0.norm.weight", &[30], 4),
        of("table", &[31], 5),
        of("wide.weight", &[9, 1000], 6),
    ]
}

/// Returns elements of a tensor.
fn part(all: &[Original], name: &str, from: usize, to: usize) -> Vec<u16> {
    all.iter().find(|(n, ..)| *n == name).unwrap().2[from..to].to_vec()
}

/// Returns the files of the model. Runs of `experts.up` are in three groups of two files, out of order, and one of those
/// groups has a run of another tensor too.
fn model() -> Vec<(&'static str, Vec<u8>)> {
    let all = original();
    let group = |name: &str, runs: &[(&str, usize, usize)]| {
        let parts: Vec<Vec<u16>> = runs.iter().map(|&(tensor, from, to)| part(&all, tensor, from, to)).collect();
        let ends = parts.iter().scan(0, |end, part| {
            *end += part.len() as u64;
            Some(*end)
        });
        let splits: Vec<u64> = ends.take(runs.len() - 1).collect();
        encoder::group_tensors(name, &encoder::encode(&parts.concat(), &splits))
    };
    let metadata = |groups: &str, shapes: &str| {
        [(GROUPS_KEY.to_owned(), groups.to_owned()), (SHAPES_KEY.to_owned(), shapes.to_owned())]
    };
    let experts = [
        group("layers.0.experts.down.run_0", &[("layers.0.experts.down", 0, 600)]),
        group("layers.0.experts.up.run_0", &[("layers.0.experts.up", 0, 350)]),
        group("layers.0.experts.up.run_10", &[("layers.0.experts.up", 700, 1400)]),
    ];
    let of_experts = metadata(
        r#"{"layers.0.experts.down.run_0": [["layers.0.experts.down", 0]],
            "layers.0.experts.up.run_10": [["layers.0.experts.up", 700]],
            "layers.0.experts.up.run_0": [["layers.0.experts.up", 0]]}"#,
        r#"{"layers.0.experts.down": [4, 3, 50], "layers.0.experts.up": [4, 50, 7]}"#,
    );
    let mixed = [
        group("a mixture", &[("table", 0, 31), ("layers.0.experts.up", 350, 700), ("wide.weight", 2000, 9000)]),
        group("wide.weight.run_0", &[("wide.weight", 0, 2000)]),
    ];
    let of_mixed = metadata(
        r#"{"a mixture": [["table", 0], ["layers.0.experts.up", 350], ["wide.weight", 2000]],
            "wide.weight.run_0": [["wide.weight", 0]]}"#,
        r#"{"layers.0.experts.up": [4, 50, 7], "table": [31], "wide.weight": [9, 1000]}"#,
    );
    let layer = [group("layers.0", &[("layers.0.attn.weight", 0, 600)])].concat();
    let norm = ("layers.0.norm.weight".to_owned(), "BF16", vec![30], bytes(&part(&all, "layers.0.norm.weight", 0, 30)));
    vec![
        ("config.json", files::config("0.5.0", r#"{"layers\\.\\d+": ["attn"], ".*run_0": ["never"]}"#).into_bytes()),
        ("experts.safetensors", encoder::safetensors(&experts.concat(), Some(&of_experts))),
        ("mixed.safetensors", encoder::safetensors(&mixed.concat(), Some(&of_mixed))),
        ("model.safetensors", encoder::safetensors(&[layer, vec![norm]].concat(), None)),
    ]
}

fn bytes(weights: &[u16]) -> Vec<u8> {
    weights.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn the_extension_is_what_is_kept() {
    let tensor = |(name, shape, weights): &Original| Stored::new(name, Dtype::BF16, shape, bytes(weights));
    let plain = files::file(&original().iter().map(tensor).collect::<Vec<_>>());
    let files = model().into_iter().map(|(name, bytes)| (data().join("model").join(name), bytes));
    for (path, bytes) in files.chain([(data().join("original.safetensors"), plain)]) {
        if std::env::var_os("DF11_BLESS").is_some_and(|v| v == "1") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).is_ok_and(|there| there == bytes), "{}: bless it", path.display());
    }
}

#[test]
fn the_extension_decodes_to_its_original() {
    let model = open(data().join("model"));
    assert!(model.is_extended() && !model.find_group("layers.0").unwrap().is_extended());
    let names: Vec<_> = model.groups().map(|g| g.name()).collect();
    let groups = ["a mixture", "layers.0", "layers.0.experts.down.run_0", "layers.0.experts.up.run_0"];
    assert_eq!(names, [&groups[..], &["layers.0.experts.up.run_10", "wide.weight.run_0"]].concat());
    // In the order in which the groups name them.
    let names: Vec<_> = model.tensors().map(|t| t.name()).collect();
    let tensors = ["table", "layers.0.experts.up", "wide.weight", "layers.0.attn.weight", "layers.0.experts.down"];
    assert_eq!(names, [&tensors[..], &["layers.0.norm.weight"]].concat());

    let decoded = check::tensors(&model);
    for (name, shape, weights) in original() {
        assert_eq!(decoded[name], bytes(&weights), "{name}");
        let tensor = model.find_tensor(name).unwrap();
        let same = tensor.shape().iter().map(|&d| d as usize).eq(shape);
        let known = same || name == "layers.0.attn.weight";
        assert!(known && (tensor.dtype(), tensor.bytes()) == (Dtype::BF16, 2 * weights.len() as u64), "{name}");
    }
    for group in model.groups() {
        group.verify(2).unwrap();
        assert_eq!(group.runs().map(Run::element_count).sum::<u64>(), group.element_count());
        assert!(group.tensors().map(|t| t.number()).eq(group.runs().map(|r| r.tensor().number())));
    }
}

#[test]
fn runs_say_where_every_element_is() {
    let model = open(data().join("model"));
    let options = DecodeOptions::new();
    for tensor in model.tensors() {
        let (mut elements, original) = (0, part(&original(), tensor.name(), 0, tensor.bytes() as usize / 2));
        for run in tensor.runs() {
            assert_eq!((run.tensor().number(), run.tensor_offset()), (tensor.number(), elements));
            let mut weights = vec![half::bf16::ZERO; run.element_count() as usize];
            run.group().decompress(run.group_offset(), &mut weights, &options).unwrap();
            let expected = &original[elements as usize..][..weights.len()];
            assert!(weights.iter().map(|w| w.to_bits()).eq(expected.iter().copied()), "{run:?}");
            elements += run.element_count();
        }
        match tensor.runs().next() {
            Some(first) => {
                assert_eq!(tensor.group().map(|g| g.number()), Some(first.group().number()));
                assert_eq!((tensor.group_offset(), 2 * elements), (first.group_offset(), tensor.bytes()));
            }
            None => assert!(tensor.group().is_none() && tensor.location().is_some()),
        }
    }
    let up = model.find_tensor("layers.0.experts.up").unwrap();
    let runs: Vec<_> = up.runs().map(|r| (r.group().name(), r.group_offset(), r.element_count())).collect();
    let groups = ["layers.0.experts.up.run_0", "a mixture", "layers.0.experts.up.run_10"];
    assert_eq!(runs, [(groups[0], 0, 350), (groups[1], 31, 350), (groups[2], 0, 700)]);
}

/// Every range of a tensor is read, whichever runs it is in, by any number of threads.
#[test]
fn ranges_go_over_the_borders_of_runs() {
    let model = open(data().join("model"));
    let up = model.find_tensor("layers.0.experts.up").unwrap();
    let expected = bytes(&part(&original(), up.name(), 0, 1400));
    let edges = [0, 1, 348, 349, 350, 351, 352, 698, 699, 700, 701, 702, 1399, 1400];
    for (i, &from) in edges.iter().enumerate() {
        for &to in &edges[i..] {
            for threads in [1, 3] {
                let mut read = vec![0xaa; 2 * (to - from)];
                up.read(2 * from as u64, &mut read, &DecodeOptions::new().threads(threads)).unwrap();
                assert_eq!(read, expected[2 * from..2 * to], "{from} to {to}");
            }
        }
    }
    let mut two = [0; 2];
    for offset in [1, 2800, u64::MAX] {
        let error = up.read(offset, &mut two, &DecodeOptions::new()).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{error}");
    }
}

/// Many runs are shared out among threads, and a fault in one of them ends the call.
#[test]
fn many_runs_are_decoded_side_by_side() {
    let weights = weights::gaussian(64 * 100, 0.02, 9);
    let (mut tensors, mut lists) = (Vec::new(), Vec::new());
    for (i, run) in weights.chunks(100).enumerate() {
        tensors.extend(encoder::group_tensors(&format!("t.run_{i}"), &encoder::encode(run, &[])));
        lists.push(format!(r#""t.run_{i}": [["t", {}]]"#, 100 * i));
    }
    let metadata = [
        (GROUPS_KEY.to_owned(), format!("{{{}}}", lists.join(","))),
        (SHAPES_KEY.to_owned(), r#"{"t": [64, 100]}"#.to_owned()),
    ];
    let file = encoder::safetensors(&tensors, Some(&metadata));
    let read = |model: &Model, threads| {
        let (tensor, mut read) = (model.find_tensor("t").unwrap(), vec![0; 2 * weights.len() - 30]);
        tensor.read(10, &mut read, &DecodeOptions::new().threads(threads)).map(|()| read)
    };
    let good = Model::from_bytes(file.clone(), &OpenOptions::default()).unwrap();
    for threads in [1, 2, 15, 16, 17, 100] {
        assert_eq!(read(&good, threads).unwrap(), bytes(&weights)[10..2 * weights.len() - 20], "{threads} threads");
    }
    // Ones are no code of a Gaussian's weights: the longest code is that of the end of data.
    let place = good.find_group("t.run_40").unwrap().parts().nth(1).unwrap().location;
    let mut damaged = file;
    damaged[place.offset as usize..][..4].fill(0xff);
    let bad = Model::from_bytes(damaged, &OpenOptions::default()).unwrap();
    for threads in [1, 4, 16] {
        let error = read(&bad, threads).unwrap_err();
        assert!(error.status() == Status::Corrupt && error.to_string().contains("t.run_40"), "{error}");
    }
}
