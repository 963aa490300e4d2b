//! Runs the fuzz targets over the inputs that fuzzers have left: those that once failed, and the kept corpus. tests/README.md says how
//! inputs get there.

#[allow(clippy::duplicate_mod, reason = "a package of its own, which has the helpers of the tests, too")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Returns the files in a folder, sorted; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect())
        .unwrap_or_default();
    files.sort();
    files
}

/// Reads the inputs of a corpus file: each follows its length, as tests/fuzz/pack.py writes them.
fn packed(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut inputs, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let (input, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        inputs.push((format!("input {} of {}", inputs.len(), path.display()), input.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty(), "{} is cut short", path.display());
    inputs
}

#[test]
fn kept_inputs_break_no_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut ran = 0;
    for (name, target) in targets::TARGETS {
        let mut inputs = packed(&root.join("fuzz/corpus").join(name));
        let mut single = files(&root.join("fuzz/regressions").join(name));
        if name == "open_file" {
            single.extend(files(&root.join("data/hostile")));
        }
        inputs.extend(single.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())));
        for (from, data) in inputs {
            let start = Instant::now();
            assert!(catch_unwind(|| target(&data)).is_ok(), "{name}: {from}");
            // Milliseconds on a free machine.
            assert!(start.elapsed() < Duration::from_secs(20), "{name}: {from} takes too long");
            ran += 1;
        }
    }
    assert!(ran > 500, "{ran} inputs");
}
