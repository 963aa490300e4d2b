//! What the C functions tell of a model: every type by its number, tensors of no dimension, where bytes lie, names and paths
//! of any characters.
#![cfg(target_os = "linux")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "models are open, texts end in a zero, outputs are as large as they say"
)]

use crate::support;

use df11::Dtype;
use df11::internals::capi::*;
use df11::internals::format::{GROUPS_KEY, SHAPES_KEY};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use support::abi::{init, no_error, said, text};
use support::files::{self, Stored};
use support::{encoder, golden, weights};

/// Opens a model that must open, and closes it when `work` is done.
fn with_model(path: &Path, options: df11_open_options, work: impl FnOnce(*const df11_model)) {
    let (path, mut model, mut error) = (text(path), null_mut(), no_error());
    unsafe {
        df11_model_open(path.as_ptr(), &options, &mut model, &mut error);
        assert_eq!(error.status, DF11_OK, "{}", said(&error));
        work(model);
        df11_model_free(model);
    }
}

/// The tensor of that name: its number and what is said of it.
fn find(model: *const df11_model, name: &str) -> (u64, df11_tensor_info) {
    let (c_name, mut number, mut info) = (CString::new(name).unwrap(), 0, init());
    unsafe {
        assert_eq!(df11_model_find_tensor(model, c_name.as_ptr(), &mut number, null_mut()), DF11_OK, "{name}");
        assert_eq!(df11_model_get_tensor_info(model, number, &mut info, null_mut()), DF11_OK);
        assert_eq!(CStr::from_ptr(info.name).to_str().unwrap(), name);
    }
    (number, info)
}

#[test]
fn every_type_has_its_number() {
    use Dtype::*;
    let all = [
        (BF16, DF11_DTYPE_BF16, 1),
        (F16, DF11_DTYPE_F16, 2),
        (F32, DF11_DTYPE_F32, 3),
        (F64, DF11_DTYPE_F64, 4),
        (BOOL, DF11_DTYPE_BOOL, 5),
        (U8, DF11_DTYPE_U8, 6),
        (I8, DF11_DTYPE_I8, 7),
        (U16, DF11_DTYPE_U16, 8),
        (I16, DF11_DTYPE_I16, 9),
        (U32, DF11_DTYPE_U32, 10),
        (I32, DF11_DTYPE_I32, 11),
        (U64, DF11_DTYPE_U64, 12),
        (I64, DF11_DTYPE_I64, 13),
        (F8_E5M2, DF11_DTYPE_F8_E5M2, 14),
        (F8_E4M3, DF11_DTYPE_F8_E4M3, 15),
        (F8_E8M0, DF11_DTYPE_F8_E8M0, 16),
        (F4, DF11_DTYPE_F4, 17),
        (F6_E2M3, DF11_DTYPE_F6_E2M3, 18),
        (F6_E3M2, DF11_DTYPE_F6_E3M2, 19),
        (C64, DF11_DTYPE_C64, 20),
        (F8_E4M3FNUZ, DF11_DTYPE_F8_E4M3FNUZ, 21),
        (F8_E5M2FNUZ, DF11_DTYPE_F8_E5M2FNUZ, 22),
    ];
    let mut tensors = Vec::new();
    for (i, (dtype, ..)) in all.iter().enumerate() {
        let data: Vec<u8> = (0..dtype.bitsize()).map(|byte| (byte * 31 + i) as u8).collect();
        tensors.push(Stored::new(&format!("t{i}"), *dtype, &[2, 4], data));
    }
    tensors.push(Stored::new("scalar", F64, &[], vec![1; 8]));
    tensors.push(Stored::new("nothing", F64, &[0, 3], Vec::new()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, files::file(&tensors)).unwrap();
    for flags in [0, DF11_OPEN_READ] {
        with_model(folder.path(), df11_open_options { flags, ..init() }, |model| {
            assert_eq!(unsafe { df11_model_tensor_count(model) }, tensors.len() as u64);
            for (stored, number) in tensors.iter().zip(all.iter().map(|of| Some(of.1)).chain([None, None])) {
                let (tensor, info) = find(model, &stored.name);
                assert!(number.is_none_or(|number| number == info.dtype), "{}: {}", stored.name, info.dtype);
                assert_eq!((info.group, info.group_offset), (DF11_NO_GROUP, 0));
                assert_eq!((info.rank as usize, info.shape.is_null()), (stored.shape.len(), stored.shape.is_empty()));
                let shape = (0..stored.shape.len()).map(|d| unsafe { *info.shape.add(d) } as usize);
                assert!(shape.eq(stored.shape.iter().copied()), "{}", stored.name);
                // The bytes by the call, in the file by what it says, and in memory unless files are read.
                let mut found = vec![0u8; stored.data.len()];
                let dst = found.as_mut_ptr().cast();
                assert_eq!(
                    unsafe { df11_model_read_tensor(model, tensor, 0, dst, found.len(), 1, null_mut()) },
                    DF11_OK
                );
                assert_eq!((found == stored.data, info.data_bytes), (true, stored.data.len() as u64));
                let file = unsafe { CStr::from_ptr(info.file) };
                assert_eq!(file.to_bytes(), path.as_os_str().as_bytes());
                let mut there = vec![0u8; found.len()];
                std::fs::File::open(&path).unwrap().read_exact_at(&mut there, info.file_offset).unwrap();
                assert!(there == stored.data, "{}: other bytes in the file", stored.name);
                assert_eq!(info.data.is_null(), flags == DF11_OPEN_READ);
                if !info.data.is_null() {
                    let there = unsafe { std::slice::from_raw_parts(info.data.cast::<u8>(), found.len()) };
                    assert!(there == stored.data, "{}: other bytes in memory", stored.name);
                }
            }
        });
    }
    // The header's numbers, which programs have in them, do not change.
    assert!(all.iter().all(|(_, number, fixed)| number == fixed));
}

/// Where tensors of a group do not follow each other in number, nothing says that they do.
#[test]
fn tensors_in_several_groups() {
    let of = |weights: usize| encoder::encode(&weights::gaussian(weights, 0.02, weights as u64), &[weights as u64 / 2]);
    let groups = [("a", of(20)), ("b", of(30))];
    let tensors: Vec<_> = groups.iter().flat_map(|(name, e)| encoder::group_tensors(name, e)).collect();
    let metadata = [
        (GROUPS_KEY, r#"{"a": [["x", 15], ["y", 0]], "b": [["z", 0], ["x", 0]]}"#),
        (SHAPES_KEY, r#"{"x": [25], "y": [2, 5], "z": [15]}"#),
    ];
    let metadata = metadata.map(|(key, text)| (key.to_owned(), text.to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, encoder::safetensors(&tensors, Some(&metadata))).unwrap();
    with_model(&path, init(), |model| {
        let group = |group| {
            let mut info: df11_group_info = init();
            assert_eq!(unsafe { df11_model_get_group_info(model, group, &mut info, null_mut()) }, DF11_OK);
            (info.first_tensor, info.tensor_count, info.extended)
        };
        assert_eq!([group(0), group(1)], [(0, 2, 1), (DF11_NO_TENSOR, 2, 1)]);
        let run = |group, run| {
            let mut info: df11_run_info = init();
            assert_eq!(unsafe { df11_model_get_group_run(model, group, run, &mut info, null_mut()) }, DF11_OK);
            (info.tensor, info.tensor_offset, info.group_offset, info.element_count)
        };
        assert_eq!([run(0, 0), run(0, 1)], [(0, 15, 0, 10), (1, 0, 10, 10)]);
        assert_eq!([run(1, 0), run(1, 1)], [(2, 0, 0, 15), (0, 0, 15, 15)]);
        // Its first element is in the second group.
        let (_, info) = find(model, "x");
        assert_eq!((info.group, info.group_offset, info.run_count, info.data_bytes), (1, 15, 2, 50));
    });
}

/// A path is any bytes on Unix, and what files are called is told as they were given: a reader can open them.
#[test]
fn paths_of_any_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join(OsStr::from_bytes(b"no UTF-8 \xff\xfe and a\nline"));
    std::fs::create_dir(&below).unwrap();
    files::copy(&golden::model("sharded"), &below);
    with_model(&below, init(), |model| {
        for group in 0..unsafe { df11_model_group_count(model) } {
            let mut part: df11_part_info = init();
            let status = unsafe { df11_model_get_group_part(model, group, DF11_PART_GAPS, &mut part, null_mut()) };
            assert_eq!(status, DF11_OK);
            let file = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(part.file) }.to_bytes()));
            assert!(file.starts_with(&below), "{}", file.display());
            let mut there = vec![0u8; part.data_bytes as usize];
            std::fs::File::open(file).unwrap().read_exact_at(&mut there, part.file_offset).unwrap();
            let mapped = unsafe { std::slice::from_raw_parts(part.data.cast::<u8>(), there.len()) };
            assert!(there == mapped, "group {group}");
        }
    });
}

/// Names are the file's, to the character, and only by all of them is a tensor found.
#[test]
fn names_of_any_characters() {
    let names = ["\u{1b}[31m red", "a\nb", "\u{fffd}", "\u{7f}", "ü", "\u{202e}txt", ""];
    let tensors: Vec<Stored> = names.iter().map(|name| Stored::new(name, Dtype::U8, &[1], vec![7])).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, files::file(&tensors)).unwrap();
    with_model(&path, init(), |model| {
        for name in names {
            find(model, name);
        }
        // Bytes that are no UTF-8 are not taken for the character that stands for such.
        for name in [&b"\xff"[..], b"\xc3", b"a", b"a\nb ", b"\xef\xbf"] {
            let (name, mut number, mut error) = (CString::new(name).unwrap(), 77, no_error());
            for call in [df11_model_find_tensor, df11_model_find_group] {
                let status = unsafe { call(model, name.as_ptr(), &mut number, &mut error) };
                assert_eq!((status, number), (DF11_NOT_FOUND, 0), "{name:?}");
                assert!(!said(&error).contains(char::is_control), "{}", said(&error));
            }
        }
    });
}

/// A version of the compressor that nobody knows is refused, unless the caller wants it all the same; and a config that is
/// given comes before the file's own, and may go when the call returns.
#[test]
fn configs_of_the_callers() {
    let path = golden::model("tiny");
    let patterns = |name: &str| format!(r#"{{"line.r": ["{name}"]}}"#);
    let known = CString::new(files::config("0.5.0", &patterns("known"))).unwrap();
    let later = CString::new(files::config("9.9.0", &patterns("later"))).unwrap();
    with_model(&path, df11_open_options { config_json: known.as_ptr(), ..init() }, |model| {
        drop(known);
        find(model, "linear.known.weight");
    });
    let (mut model, mut error) = (null_mut(), no_error());
    let options = df11_open_options { config_json: later.as_ptr(), ..init() };
    let c_path = text(&path);
    unsafe { df11_model_open(c_path.as_ptr(), &options, &mut model, &mut error) };
    assert!(error.status == DF11_UNSUPPORTED_FORMAT && said(&error).contains("9.9.0"), "{}", said(&error));
    assert!(model.is_null());
    with_model(&path, df11_open_options { flags: DF11_OPEN_ANY_VERSION, ..options }, |model| {
        find(model, "linear.later.weight");
    });
    assert_eq!(unsafe { df11_model_open(c_path.as_ptr(), null(), &mut model, null_mut()) }, DF11_OK);
    unsafe { df11_model_free(model) };
}
