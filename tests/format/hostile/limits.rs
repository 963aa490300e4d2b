//! How much time and memory a hostile file may take.

use std::path::Path;
use std::time::{Duration, Instant};

use df11::internals::format::GROUPS_KEY;
use df11::{Model, OpenOptions, Status};

use super::support::{alloc, alone::alone, encoder, files};
use super::{base, file, members};

/// Runs a call, and asserts that it takes no longer and no more memory than this.
fn within<T>(limit: Duration, most_bytes: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let (result, taken) = alloc::taken(work);
    let took = start.elapsed();
    // An emulator of another processor may take many times as long.
    let limit = if std::env::var_os("DF11_TEST_RUNNER").is_some() { limit * 20 } else { limit };
    assert!(took <= limit, "{took:?}");
    assert!(taken.peak <= most_bytes, "{taken:?}");
    result
}

/// Only compiling is measured: the model has no group whose name would be matched with the patterns.
#[test]
fn a_config_of_many_patterns_is_compiled_quickly() {
    alone!();
    // Each pattern alone is small enough to be compiled.
    let patterns: Vec<String> = (0..250).map(|i| format!(r#""\\w{{20}}x{i}": []"#)).collect();
    let config = files::config("0.5.0", &format!("{{{}}}", patterns.join(",")));
    let options = OpenOptions::new().config(config);
    let opened = within(Duration::from_secs(3), 16 << 20, || Model::from_bytes(files::raw("{}", &[]), &options));
    drop(opened);
}

#[test]
fn a_long_name_with_many_tensors_takes_no_more_memory_than_it_should() {
    alone!();
    // 180 KB: each tensor inside is called after its group, and there may be as many as there are cuts.
    let mut e = base();
    e.split_positions = vec![0; 12_000];
    let mut tensors = members(&e);
    tensors.iter_mut().for_each(|t| t.0 = t.0.replace("layer", &"n".repeat(12_000)));
    let file = encoder::safetensors(&tensors, None);
    let options = OpenOptions::default();
    drop(within(Duration::from_secs(3), 32 << 20, || Model::from_bytes(file, &options)));
}

#[test]
fn names_that_multiply_are_bounded_for_one_group_and_for_all() {
    alone!();
    let with_cuts = |groups: usize, cuts: usize| {
        let mut e = base();
        e.split_positions = vec![0; cuts];
        let name = |i: usize| format!("{i}{}", "n".repeat(990));
        let tensors: Vec<_> = (0..groups).flat_map(|i| encoder::group_tensors(&name(i), &e)).collect();
        encoder::safetensors(&tensors, None)
    };
    let options = OpenOptions::default();
    let open = |file| within(Duration::from_secs(3), 32 << 20, || Model::from_bytes(file, &options));
    assert_eq!(open(with_cuts(1, 1_023)).unwrap().tensors().len(), 1_024);
    let error = open(with_cuts(1, 1_024)).unwrap_err();
    assert_eq!(error.status(), Status::Corrupt);
    assert!(error.to_string().contains("into 1025 tensors"), "{error}");
    let error = open(with_cuts(6, 1_000)).unwrap_err();
    assert_eq!(error.status(), Status::UnsupportedFormat);
    assert!(error.to_string().contains("names of the tensors in groups"), "{error}");
}

#[test]
fn runs_are_bounded() {
    alone!();
    // 8 MB of them.
    let list = |runs: usize| format!(r#"{{"layer": [{}]}}"#, vec![r#"["",0]"#; runs].join(","));
    let file = |runs| encoder::safetensors(&members(&base()), Some(&[(GROUPS_KEY.to_owned(), list(runs))]));
    let options = OpenOptions::default();
    for (runs, says) in [(1 << 20, "lists 1048576 runs for this group"), ((1 << 20) + 1, "more than 1048576 runs")] {
        let file = file(runs);
        let error = within(Duration::from_secs(3), 150 << 20, || Model::from_bytes(file, &options)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// Writes a file of the small group in which one member is a hole of this many bytes.
#[cfg(target_os = "linux")]
fn with_a_hole(path: &Path, member: &str, shape: &str, bytes: u64) {
    use std::os::unix::fs::FileExt;
    let (mut header, mut payload, mut at) = (String::from("{"), Vec::new(), 0u64);
    let mut tensors = members(&base());
    // The hole comes last.
    tensors.sort_by_key(|t| t.0.ends_with(member));
    for (name, dtype, own, data) in &tensors {
        let hole = name.ends_with(member);
        let (shape, len) = if hole { (shape.to_owned(), bytes) } else { (format!("{own:?}"), data.len() as u64) };
        let comma = if at == 0 && payload.is_empty() { "" } else { "," };
        header +=
            &format!(r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{at},{}]}}"#, at + len);
        if !hole {
            payload.extend_from_slice(data);
        }
        at += len;
    }
    header.push('}');
    let head = files::raw(&header, &payload);
    let file = std::fs::File::create(path).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.set_len(head.len() as u64 - payload.len() as u64 + at).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn members_of_absurd_sizes_are_refused_before_they_are_read() {
    alone!();
    const GIB: u64 = 1 << 30;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let holes = [
        ("luts", format!("[{}, 256]", 4 * GIB / 256), 4 * GIB),
        ("output_positions", format!("[{}]", 4 * GIB), 4 * GIB),
        ("gaps", format!("[{}]", 4 * GIB), 4 * GIB),
        // More weights than positions can count.
        ("sign_mantissa", format!("[{}]", 4 * GIB), 4 * GIB),
        ("sign_mantissa", format!("[{}]", 4 * GIB - 1), 4 * GIB - 1),
        ("sign_mantissa", format!("[{}]", 4 * GIB + 40), 4 * GIB + 40),
        ("encoded_exponent", format!("[{}]", 8 * GIB), 8 * GIB),
    ];
    for (member, shape, bytes) in holes {
        with_a_hole(&path, member, &shape, bytes);
        for read in [false, true] {
            let open = || crate::support::files::open(&path, read);
            let error = within(Duration::from_secs(3), 16 << 20, open).unwrap_err();
            assert_eq!(error.status(), Status::Corrupt, "{member}, {bytes}, read {read}: {error}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_config_of_over_100_mb_is_refused() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(folder.path().join("model.safetensors"), file(&base())).unwrap();
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = Model::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert_eq!(error.status(), Status::InvalidFormat);
    assert!(error.to_string().contains("larger than 100 MB"), "{error}");
}
