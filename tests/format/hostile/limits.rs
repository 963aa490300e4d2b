//! How much time and memory a hostile file may take.

use std::path::Path;
use std::time::{Duration, Instant};

use df11::internals::format::GROUPS_KEY;
use df11::{Model, OpenOptions, Status};

use super::support::{alloc, alone::alone, encoder, files};
use super::{base, file, members};

/// Returns the processor time that this process has taken.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives as long as the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs a call, and asserts that it takes no longer and no more memory than this.
fn within<T>(limit: Duration, most_bytes: usize, work: impl FnOnce() -> T) -> T {
    let (start, busy) = (Instant::now(), processor_time());
    let (result, taken) = alloc::taken(work);
    let (took, busy) = (start.elapsed(), processor_time() - busy);
    // An emulator of another processor may take many times as long.
    let limit = if std::env::var_os("DF11_TEST_RUNNER").is_some() { limit * 20 } else { limit };
    // Other programs may take the processor meanwhile, but a call that waits is seen, too.
    assert!(busy <= limit && took <= 5 * limit, "{busy:?} in {took:?}");
    assert!(taken.peak <= most_bytes, "{taken:?}");
    result
}

/// The goal for every hostile file of less than 10 MB.
const OPENS_IN: Duration = Duration::from_secs(2);

/// Returns a file of groups of no weights, with names that differ at their end.
fn empty_groups(count: usize, name: impl Fn(usize) -> String) -> Vec<u8> {
    let empty = encoder::encode_with_codes(&[], &[], &encoder::canonical(&[(120, 1)], 1));
    let tensors: Vec<_> = (0..count).flat_map(|i| encoder::group_tensors(&name(i), &empty)).collect();
    encoder::safetensors(&tensors, None)
}

/// Returns a config of these patterns.
fn config_of(patterns: impl IntoIterator<Item = String>) -> String {
    let entries: Vec<String> = patterns.into_iter().map(|p| format!("{}: []", serde_json::Value::from(p))).collect();
    files::config("0.5.0", &format!("{{{}}}", entries.join(",")))
}

/// Whatever the patterns are, matching costs one look-up for each byte of a name, or they are refused when they are compiled.
#[test]
fn names_are_matched_with_hostile_patterns_quickly() {
    alone!();
    let kinds: [fn(usize) -> String; 7] = [
        // The state of these is which of the last letters were an a.
        |i| {
            format!(
                "(?:(?:[ab]|[a-c])*a(?:a|b|[ab]|[a-c]|[a-d]|[a-e]|[a-f]){{{}}})*[c-z][d-z]{{{}}}",
                60 + i % 9,
                1 + i / 9
            )
        },
        |i| format!("(?:a|b)*a(?:a|b){{{}}}x{i}", 5 + i % 5),
        |i| format!("(?:[ab]*a[ab]{{4}})*c{i}"),
        // As large as a pattern may be.
        |i| format!("(?:{}){i}", "a".repeat(200)),
        |i| format!("(?:a?){{100}}b{i}"),
        |i| format!("(?:[ab]{{0,20}}){{20}}c{i}"),
        |i| format!(".*a.*b.*a.*{i}"),
    ];
    // 1,000 letters, none of which ends a match.
    let name = |i: usize| format!("{}{i:04}", "ab".repeat(500));
    let file = empty_groups(250, name);
    for kind in kinds {
        for count in [1, 250] {
            let options = OpenOptions::new().config(config_of((0..count).map(kind)));
            let open = || Model::from_bytes(file.clone(), &options);
            let opened = within(OPENS_IN, 48 << 20, open);
            if let Err(error) = opened {
                assert_eq!(error.status(), Status::UnsupportedFormat, "{error}");
                assert!(error.to_string().contains("too complicated"), "{error}");
            }
        }
    }
}

/// What published configs have: 26 patterns at most, and thousands of names.
#[test]
fn thousands_of_names_are_matched_with_dozens_of_patterns() {
    alone!();
    let kinds = ["layers", "blocks", "double_blocks", "experts", "encoder.layers", "decoder.layers"];
    let pattern = |i: usize| format!(r"model\.(?:language_model|visual)\.{}\.\d+\.part_{i}", kinds[i % kinds.len()]);
    let name = |i: usize| format!("model.visual.{}.{}.part_{}", kinds[i % kinds.len()], i / 40, i % 40);
    let options = OpenOptions::new().config(config_of((0..40).map(pattern)));
    let file = empty_groups(2_000, name);
    let model = within(OPENS_IN, 48 << 20, || Model::from_bytes(file, &options)).unwrap();
    assert_eq!(model.groups().len(), 2_000);
}

#[test]
fn a_config_of_many_patterns_is_compiled_quickly() {
    alone!();
    // Each pattern alone is small enough to be compiled.
    let options = OpenOptions::new().config(config_of((0..250).map(|i| format!(r"\w{{20}}x{i}"))));
    drop(within(OPENS_IN, 16 << 20, || Model::from_bytes(files::raw("{}", &[]), &options)).unwrap());
}

/// A config.json costs four times its size at most, and 2 MiB for what is kept of it.
#[test]
fn a_large_config_costs_little_memory() {
    alone!();
    let repeat = |unit: &str| unit.repeat(3_900_000 / unit.len());
    let numbered = |unit: fn(usize) -> String| (0..300_000).map(unit).collect::<String>();
    let texts = [
        format!(r#"{{"x": [{}0]}}"#, repeat("0,")),
        format!(r#"{{"x": [{}0]}}"#, repeat("NaN,")),
        format!(r#"{{"x": [{}0]}}"#, repeat("{},")),
        format!(r#"{{"x": "{}"}}"#, repeat(r"\u0041")),
        format!(r#"{{{}"x": 0}}"#, numbered(|i| format!(r#""{i:06}":0,"#))),
        format!(r#"{{"x": {{{}"x": 0}}}}"#, numbered(|i| format!(r#""{i:06}":0,"#))),
        files::config("0.5.0", &format!(r#"{{"a": [{}"a"]}}"#, repeat(r#""a","#))),
        files::config("0.5.0", &format!(r#"{{"a": {}0}}"#, repeat("[],0,"))),
        files::config("0.5.0", &format!("{{{}}}", numbered(|i| format!(r#""{i:06}":[],"#)).trim_end_matches(','))),
        format!(r#"{{"dfloat11_config": {{{}"x": 0}}}}"#, numbered(|i| format!(r#""{i:06}":0,"#))),
    ];
    for text in texts {
        let (bytes, start) = (text.len(), text[..40].to_owned());
        assert!((2_000_000..4_000_000).contains(&bytes), "{bytes}: {start}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), files::raw("{}", &[])).unwrap();
        // The file is read, so the text itself is counted.
        let open = || Model::open(folder.path(), &OpenOptions::new());
        drop(within(OPENS_IN, 4 * bytes + (2 << 20), open));
    }
}

/// A header costs a few times its size, whatever it describes.
#[test]
fn a_large_header_costs_a_few_times_its_size() {
    alone!();
    let tensors = |name: fn(usize) -> String| {
        let entry = |i| format!(r#""{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, name(i));
        (0..160_000).map(entry).collect::<Vec<_>>().join(",")
    };
    let metadata = |key: &str, text: String| format!(r#""__metadata__":{{"{key}":{}}}"#, serde_json::Value::from(text));
    let entries = |value: &str| (0..700_000).map(|i| format!(r#""{i}":{value}"#)).collect::<Vec<_>>().join(",");
    let hash = format!(r#""{}""#, "0".repeat(64));
    let headers = [
        ("tensors", tensors(|i| format!("{i}"))),
        ("tensors of one length", tensors(|i| format!("{i:012}"))),
        ("tensors that come backwards", tensors(|i| format!("{:06}", 160_000 - i))),
        (
            "a tensor of 65 dimensions and more",
            format!(r#""a":{{"dtype":"U8","shape":[0{}],"data_offsets":[0,0]}}"#, ",1".repeat(4_000_000)),
        ),
        ("shapes of nothing", metadata("df11.shapes", format!("{{{}}}", entries("[]")))),
        ("a shape of many dimensions", metadata("df11.shapes", format!("{{\"a\":[1{}]}}", ",1".repeat(4_000_000)))),
        (
            "hashes of nothing",
            metadata(
                "df11.sha256",
                format!("{{{}}}", (0..120_000).map(|i| format!(r#""{i}":{hash}"#)).collect::<Vec<_>>().join(",")),
            ),
        ),
        ("other metadata", format!(r#""__metadata__":{{{}}}"#, entries(r#""""#))),
    ];
    for (what, header) in headers {
        let file = files::raw(&format!("{{{header}}}"), &[]);
        let bytes = file.len();
        assert!((7_000_000..13_000_000).contains(&bytes), "{what}: {bytes}");
        // The bytes of the file themselves are not counted.
        drop(within(OPENS_IN, 8 * bytes, || Model::from_bytes(file, &OpenOptions::new())));
    }
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
fn a_config_of_over_4_mb_is_refused() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(folder.path().join("model.safetensors"), file(&base())).unwrap();
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let open = || Model::open(folder.path(), &OpenOptions::default());
    let error = within(Duration::from_secs(1), 5 << 20, open).unwrap_err();
    assert_eq!(error.status(), Status::InvalidFormat);
    assert!(error.to_string().contains("larger than 4 MB"), "{error}");
}
