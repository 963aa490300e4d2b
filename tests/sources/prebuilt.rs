//! What `kernels/prebuilt` ships belongs to the kernels' sources: hashes only, for nobody needs the compiler to run
//! tests. Whether the compiler still makes the same bytes is asked by `kernels/build.py --check`, which `make test`
//! runs.

use crate::support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::check::sha256;

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// The bytes of the files in a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

fn manifest() -> Value {
    serde_json::from_slice(&std::fs::read(kernels().join("prebuilt/manifest.json")).unwrap()).unwrap()
}

fn names(of: &Value) -> Vec<String> {
    let mut names: Vec<String> = of.as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}

#[test]
fn was_built_from_these_sources() {
    let (manifest, mut sources) = (manifest(), files(&kernels()));
    sources.retain(|name, _| [".cu", ".cuh", ".h"].iter().any(|end| name.ends_with(end)));
    assert!(sources.contains_key("decode.cu"));
    assert_eq!(names(&manifest["sources"]), sources.keys().cloned().collect::<Vec<_>>());
    for (name, contents) in sources {
        let built_from = manifest["sources"][&name].as_str().unwrap();
        assert_eq!(sha256(&contents), built_from, "kernels/{name} has changed: run `make kernels`");
    }
}

/// The example engine has its PTX in a header, which names the source.
#[test]
fn the_engines_kernels_were_built_from_their_source() {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/engine");
    let header = std::fs::read_to_string(engine.join("kernels_ptx.h")).unwrap();
    let source = sha256(&std::fs::read(engine.join("kernels.cu")).unwrap());
    let named = header.lines().nth(1).and_then(|line| line.strip_prefix("// "));
    assert_eq!(named, Some(&*source), "kernels.cu has changed: run `make kernels`");
    for wanted in [".version 8.0\n", ".target sm_75\n", ".visible .entry multiply("] {
        assert!(header.contains(wanted), "{wanted}");
    }
}

#[test]
fn is_what_the_manifest_says() {
    let (manifest, mut outputs) = (manifest(), files(&kernels().join("prebuilt")));
    outputs.remove("manifest.json").unwrap();
    assert_eq!(names(&manifest["files"]), outputs.keys().cloned().collect::<Vec<_>>());
    for (name, contents) in outputs {
        let said = &manifest["files"][&name];
        assert_eq!(said["bytes"].as_u64().unwrap(), contents.len() as u64, "{name}");
        assert_eq!(said["sha256"].as_str().unwrap(), sha256(&contents), "{name}");
    }
}

#[test]
fn holds_every_kernel_for_every_architecture() {
    let outputs = files(&kernels().join("prebuilt"));
    // ISA 8.0 is that of CUDA 12.0, whose driver is 525, and 8.3 that of 12.3.
    for (name, version, target) in [("decode.ptx", "8.0", "sm_75"), ("decode.sm_90.ptx", "8.3", "sm_90")] {
        let ptx = std::str::from_utf8(&outputs[name]).unwrap();
        for wanted in [format!(".version {version}"), format!(".target {target}")] {
            assert!(ptx.lines().any(|line| line == wanted), "{name}: {wanted}");
        }
        for kernel in ["df11_decode", "df11_decode_many", "df11_index"] {
            assert!(ptx.contains(&format!(".visible .entry {kernel}(")), "{name}: {kernel}");
        }
    }
    for kernel in ["df11_decode", "df11_decode_many", "df11_index"] {
        for number in [75, 80, 90, 100, 120] {
            let cubin = &outputs[&format!("decode.sm_{number}.cubin")];
            assert!(
                cubin.starts_with(b"\x7fELF") && cubin[18..20] == 190u16.to_le_bytes(),
                "{number}: no ELF for CUDA"
            );
            // A cubin's section of code is named after its kernel.
            let section = format!(".text.{kernel}\0");
            assert!(cubin.windows(section.len()).any(|bytes| bytes == section.as_bytes()), "{number}: {kernel}");
        }
    }
    // Nothing of the machine that built it.
    for (name, contents) in &outputs {
        for path in [&b"/home/"[..], b"/root/", b"/tmp/", b"/usr/"] {
            assert!(!contents.windows(path.len()).any(|bytes| bytes == path), "{name} holds a path");
        }
    }
}

/// Three readers parse this file, and none of them well.
#[test]
fn policy_is_comments_and_numbers() {
    let policy = std::fs::read_to_string(kernels().join("policy.h")).unwrap();
    let mut names = Vec::new();
    for line in policy.lines().filter(|line| !line.is_empty() && !line.starts_with("//")) {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words.len() == 3 && words[0] == "#define" && words[1].starts_with("DF11_"), "{line}");
        assert!(words[2].parse::<u32>().is_ok(), "{line}");
        assert!(!names.contains(&words[1]), "{line}: twice");
        names.push(words[1]);
    }
    assert!(names.len() > 10);
}
