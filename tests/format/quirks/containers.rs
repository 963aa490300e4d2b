//! The container: where tensors are stored, in which files, with which metadata.

use std::path::Path;

use df11::internals::format::{HASHES_KEY, SHAPES_KEY};
use df11::{DecodeOptions, Dtype, Model, OpenOptions};

use super::support::files::{self, Stored};
use super::support::{check, encoder, golden, weights};
use super::{open, with_config};

#[test]
fn data_offsets_are_unaligned() {
    let model = open(golden::model("edge"));
    let mut odd = 0;
    for path in files::golden_files("edge") {
        let bytes = std::fs::read(path).unwrap();
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in file.iter().filter(|(name, _)| name.ends_with(".output_positions")) {
            let at = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            assert!(at >= start, "{name}");
            odd += at % 4;
        }
    }
    assert!(odd > 10, "{odd}");
    check::is_original(&model, "edge");

    // Every alignment of every member, in a file mapped, read, and in memory.
    let folder = tempfile::tempdir().unwrap();
    let want = check::tensors(&open(golden::model("tiny")));
    for pad in 0..16 {
        let mut tensors = files::stored("tiny");
        // Of the same type and first by name, it moves all of them.
        tensors.push(Stored::new("a", Dtype::U8, &[pad], vec![7; pad]));
        let bytes = files::file(&tensors);
        let path = folder.path().join("m.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let opened = |read| crate::support::files::open(&path, read).unwrap();
        for model in [Model::from_bytes(bytes, &OpenOptions::default()).unwrap(), opened(false), opened(true)] {
            let mut found = check::tensors(&model);
            assert_eq!(found.remove("a"), Some(vec![7; pad]));
            assert!(found == want, "{pad}");
            model.group(0).unwrap().verify(1).unwrap();
        }
    }
}

#[test]
fn a_groups_members_lie_in_six_different_files() {
    const NAMES: [&str; 6] = ["zz-5", " 1 ", "model-00001-of-00002", "β", "a.b.c", "0"];
    for golden in ["tiny", "edge_patched", "sharded"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), files::golden_config(golden)).unwrap();
        for (member, file) in files::MEMBERS.iter().zip(NAMES) {
            let mut tensors = files::stored(golden);
            // The plain ones go with the gaps.
            tensors.retain(|t| files::member_of(&t.name).map_or("gaps", |(_, m)| m) == *member);
            std::fs::write(folder.path().join(format!("{file}.safetensors")), files::file(&tensors)).unwrap();
        }
        for read in [false, true] {
            let model = crate::support::files::open(folder.path(), read).unwrap();
            assert_eq!(model.files().count(), 6);
            check::is_original(&model, golden);
        }
    }
}

#[test]
fn an_index_that_lists_less_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    files::copy(&golden::model("sharded"), folder.path());
    let index = r#"{"metadata": {"total_size": 256}, "weight_map": {"model.norm.weight": "model.safetensors", "no.such.tensor": "no-such-file.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    check::is_original(&open(folder.path()), "sharded");
}

#[test]
fn plain_tensors_of_every_dtype() {
    use Dtype::*;
    let all = [
        BOOL,
        F4,
        F6_E2M3,
        F6_E3M2,
        U8,
        I8,
        F8_E5M2,
        F8_E4M3,
        F8_E8M0,
        F8_E4M3FNUZ,
        F8_E5M2FNUZ,
        I16,
        U16,
        F16,
        BF16,
        I32,
        U32,
        F32,
        C64,
        F64,
        I64,
        U64,
    ];
    let mut tensors = files::stored("tiny");
    for (i, dtype) in all.into_iter().enumerate() {
        // Eight elements take whole bytes of every type.
        let data: Vec<u8> = (0..dtype.bitsize()).map(|byte| (byte * 31 + i) as u8).collect();
        tensors.push(Stored::new(&format!("plain.{dtype}"), dtype, &[2, 4], data));
        tensors.push(Stored::new(&format!("empty.{dtype}"), dtype, &[0, 3], Vec::new()));
    }
    tensors.push(Stored::new("scalar", F64, &[], vec![1; 8]));
    let bytes = files::file(&tensors);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
    for read in [false, true] {
        let model = crate::support::files::open(folder.path(), read).unwrap();
        for stored in tensors.iter().filter(|t| files::member_of(&t.name).is_none()) {
            let tensor = model.find_tensor(&stored.name).unwrap();
            let shape: Vec<u64> = stored.shape.iter().map(|&d| d as u64).collect();
            assert_eq!((tensor.dtype(), tensor.shape()), (stored.dtype, &shape[..]));
            assert_eq!(tensor.bytes(), stored.data.len() as u64);
            let mut found = vec![0; stored.data.len()];
            tensor.read(0, &mut found, &DecodeOptions::new()).unwrap();
            assert_eq!(found, stored.data, "{}", stored.name);
            assert_eq!(tensor.data(), (!read).then_some(&stored.data[..]));
            let at = tensor.location().unwrap();
            let file = std::fs::read(at.file).unwrap();
            assert_eq!(file[at.offset as usize..][..at.bytes as usize], stored.data);
        }
    }
    // The reference's own: f32, i64, bool, f16, no dimension, no element, infinities and NaN.
    check::is_original(&open(golden::model("edge")), "edge");
}

/// Returns everything that a model says of itself, and all of its bytes.
fn everything(model: &Model) -> Vec<(String, Dtype, Vec<u64>, Vec<u8>)> {
    let bytes = check::tensors(model);
    let tensor = |t: df11::Tensor| (t.name().into(), t.dtype(), t.shape().to_vec(), bytes[t.name()].clone());
    model.tensors().map(tensor).collect()
}

#[test]
fn a_folder_a_file_and_memory_mapped_or_read_are_the_same_model() {
    for golden in ["tiny", "edge", "edge_patched", "block"] {
        let folder = golden::model(golden);
        let file = &files::golden_files(golden)[0];
        let read = OpenOptions::new();
        let config = with_config(&files::golden_config(golden));
        let want = everything(&open(&folder));
        assert_eq!(want.len(), golden::expected(golden).len());
        let others = [
            Model::open(&folder, &read).unwrap(),
            open(file),
            Model::open(file, &read).unwrap(),
            Model::from_bytes(std::fs::read(file).unwrap(), &config).unwrap(),
        ];
        for (i, other) in others.iter().enumerate() {
            assert!(everything(other) == want, "{golden}: {i}");
        }
    }
}

#[cfg(unix)]
#[test]
fn files_may_be_links() {
    use std::os::unix::fs::symlink;
    // As a download cache lays a model out: names that link to blobs, and a link to the folder.
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshot"));
    std::fs::create_dir(&blobs).unwrap();
    std::fs::create_dir(&snapshot).unwrap();
    for (i, entry) in std::fs::read_dir(golden::model("sharded")).unwrap().enumerate() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, blobs.join(i.to_string())).unwrap();
        symlink(Path::new("../blobs").join(i.to_string()), snapshot.join(path.file_name().unwrap())).unwrap();
    }
    let link = cache.path().join("main");
    symlink(&snapshot, &link).unwrap();
    check::is_original(&open(link), "sharded");
}

#[test]
fn hidden_files_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    files::copy(&golden::model("tiny"), folder.path());
    // What some systems leave beside each file of an archive; it is no safetensors file.
    std::fs::write(folder.path().join("._model.safetensors"), [0, 5, 22, 7]).unwrap();
    std::fs::write(folder.path().join(".safetensors"), []).unwrap();
    std::fs::write(folder.path().join("model.safetensors.tmp"), [1]).unwrap();
    std::fs::write(folder.path().join("model.SAFETENSORS.bak"), [1]).unwrap();
    std::fs::create_dir(folder.path().join("original")).unwrap();
    let model = open(folder.path());
    assert_eq!(model.files().count(), 1);
    check::is_original(&model, "tiny");
}

#[test]
fn shapes_of_compressed_tensors_come_from_the_metadata() {
    let weights = weights::gaussian(60, 0.02, 1);
    let members = encoder::group_tensors("g", &encoder::encode(&weights, &[12, 12, 36]));
    let shapes = r#"{"g.part_0": [3, 4], "g.part_1": [7, 0], "g.part_2": [1, 2, 3, 4], "no such": [1, 9]}"#;
    let metadata = [(SHAPES_KEY.to_owned(), shapes.to_owned()), ("format".to_owned(), "pt".to_owned())];
    let file = encoder::safetensors(&members, Some(&metadata));
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    let found: Vec<_> = model.tensors().map(|t| t.shape().to_vec()).collect();
    assert_eq!(found, [vec![3, 4], vec![7, 0], vec![1, 2, 3, 4], vec![24]]);
    let found: Vec<_> = model.tensors().map(|t| (t.group().unwrap().number(), t.group_offset())).collect();
    assert_eq!(found, [(0, 0), (0, 12), (0, 12), (0, 36)]);

    // Another file of the model may carry them.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.safetensors"), encoder::safetensors(&members, None)).unwrap();
    std::fs::write(folder.path().join("a.safetensors"), encoder::safetensors(&[], Some(&metadata))).unwrap();
    assert_eq!(open(folder.path()).tensor(2).unwrap().shape(), [1, 2, 3, 4]);
}

#[test]
fn hashes_come_from_the_metadata() {
    let mut members = encoder::group_tensors("g", &encoder::encode(&weights::gaussian(60, 0.02, 1), &[12]));
    members.push(("flags".into(), "U8", vec![1], vec![7]));
    let (ones, mixed) = ("11".repeat(32), "0aF0".repeat(16));
    let hashes = format!(r#"{{"g.part_0": "{ones}", "flags": "{mixed}", "no such": "{ones}"}}"#);
    let metadata = [(HASHES_KEY.to_owned(), hashes)];
    let found = |model: &Model| {
        let hash = |t: df11::Tensor| (t.name().to_owned(), t.sha256().copied());
        model.tensors().map(hash).collect::<Vec<_>>()
    };
    let mixed = std::array::from_fn(|i| [0x0a, 0xf0][i % 2]);
    let all = [("g.part_0", Some([0x11; 32])), ("g.part_1", None), ("flags", Some(mixed))];
    let all = all.map(|(name, hash)| (name.to_owned(), hash));
    let model = Model::from_bytes(encoder::safetensors(&members, Some(&metadata)), &OpenOptions::default()).unwrap();
    assert_eq!(found(&model), all);

    // Another file of the model may carry them.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.safetensors"), encoder::safetensors(&members, None)).unwrap();
    std::fs::write(folder.path().join("a.safetensors"), encoder::safetensors(&[], Some(&metadata))).unwrap();
    assert_eq!(found(&open(folder.path())), all);
}

#[test]
fn a_name_like_a_members_does_not_make_a_group() {
    let tensors = [
        Stored::new("x.gaps", Dtype::F32, &[1], vec![0; 4]),
        Stored::new("luts", Dtype::U8, &[2], vec![1; 2]),
        Stored::new("gaps", Dtype::U8, &[2], vec![2; 2]),
    ];
    let model = Model::from_bytes(files::file(&tensors), &OpenOptions::default()).unwrap();
    assert_eq!((model.groups().len(), model.tensors().len()), (0, 3));
}
