//! The ABI as a promise: what the library exports is what the header lists, today's header is held against that of the last
//! release by abidiff, and a program of the first header's time runs with today's library.
//!
//! Needs a C compiler, nm and abidiff (binutils and abigail-tools); `make test` sees to them.
#![cfg(target_os = "linux")]

use crate::support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::programs::{WARNINGS, built, compiler, library, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The first and the last release, whose programs must go on to run: folders of tests/abi.
const FIRST: &str = "0.1.0";
const LAST: &str = "0.1.0";

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The prototypes of a header, each on one line without its semicolon.
fn prototypes(header: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = header.lines();
    while let Some(line) = lines.next() {
        let declares = line.contains(" df11_") || line.contains(" *df11_");
        if !declares || !line.contains('(') || line.starts_with([' ', '#', '/']) || line.starts_with("typedef") {
            continue;
        }
        let mut prototype = line.to_owned();
        while !prototype.ends_with(';') {
            prototype.push_str(lines.next().expect("a prototype ends"));
        }
        prototype.pop();
        found.push(prototype);
    }
    found
}

/// The function that a prototype declares.
fn name(prototype: &str) -> &str {
    let before = prototype[..prototype.find('(').unwrap()].trim_end();
    &before[before.rfind([' ', '*']).unwrap() + 1..]
}

#[test]
fn the_library_exports_what_the_header_lists_and_nothing_else() {
    let headers = read("include/df11.h") + &read("include/df11_experimental.h");
    let listed: BTreeSet<String> = prototypes(&headers).iter().map(|p| name(p).to_owned()).collect();
    assert!(listed.len() > 40 && listed.contains("df11_model_open") && listed.contains("df11_version_string"));
    let library = built().join("libdf11.so");
    let output = run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&library));
    let exported: BTreeSet<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect();
    assert_eq!(exported, listed);
}

/// A shared library with a header's functions and types and nothing in them: what abidiff compares. (What rustc writes for
/// a debugger describes Rust's types, not those that a C program sees.)
fn hollow(header: &str, folder: &Path, name_of: &str) -> PathBuf {
    let of = folder.join(name_of);
    std::fs::create_dir(&of).unwrap();
    std::fs::write(of.join("df11.h"), header).unwrap();
    let bodies: String = prototypes(header)
        .iter()
        .map(|p| format!("{p} {}\n", if p.starts_with("void df11_") { "{ }" } else { "{ return 0; }" }))
        .collect();
    std::fs::write(of.join("hollow.c"), format!("#include \"df11.h\"\n{bodies}")).unwrap();
    let library = of.join("libdf11.so");
    run(compiler(false).args(["-std=c11", "-g", "-shared", "-fPIC"]).arg(of.join("hollow.c")).arg("-o").arg(&library));
    library
}

/// Where each field of a header's structs lies and how long it is, as the compiler has it: (struct, field, offset, bytes), and
/// each struct's size as that of a field without a name.
fn fields(header: &str, folder: &Path, name_of: &str) -> Vec<(String, String, u64, u64)> {
    let mut asks = String::new();
    let mut inside = None;
    // Lines of comments may end as declarations do.
    for line in header.lines().filter(|line| !line.trim_start().starts_with(['*', '/'])) {
        if let Some(of) = line.strip_prefix("typedef struct ").and_then(|rest| rest.strip_suffix(" {")) {
            inside = Some(of);
        } else if let Some(of) = inside.take_if(|_| line.starts_with('}')) {
            asks.push_str(&format!("    printf(\"{of} . 0 %zu\\n\", sizeof({of}));\n"));
        } else if let (Some(of), Some(declared)) = (inside, line.trim().strip_suffix(';')) {
            let declared = declared.split('[').next().unwrap();
            for field in declared.split(',').map(|one| one.rsplit([' ', '*']).next().unwrap()) {
                asks.push_str(&format!(
                    "    printf(\"{of} {field} %zu %zu\\n\", offsetof({of}, {field}), sizeof((({of} *)0)->{field}));\n"
                ));
            }
        }
    }
    let of = folder.join(name_of);
    std::fs::write(
        of.join("fields.c"),
        format!("#include \"df11.h\"\n#include <stddef.h>\n#include <stdio.h>\nint main(void)\n{{\n{asks}}}\n"),
    )
    .unwrap();
    run(compiler(false).arg("-std=c11").arg(of.join("fields.c")).arg("-o").arg(of.join("fields")));
    let said = String::from_utf8(run(&mut Command::new(of.join("fields"))).stdout).unwrap();
    said.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0].into(), words[1].into(), words[2].parse().unwrap(), words[3].parse().unwrap())
        })
        .collect()
}

/// Why a program compiled with the first header may not run with a library of the second. A struct whose first field is its
/// size may become longer at its end, for the library reads and writes what the caller has of it; abidiff, which cannot
/// know that, judges everything else.
fn breaks(before: &str, after: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (hollow(before, folder.path(), "before"), hollow(after, folder.path(), "after"));
    let old_fields = fields(before, folder.path(), "before");
    let new_fields = fields(after, folder.path(), "after");
    let mut grown = String::new();
    for (of, field, offset, bytes) in &old_fields {
        let Some((_, _, new_offset, new_bytes)) = new_fields.iter().find(|new| (&new.0, &new.1) == (of, field)) else {
            return Some(format!("{of}.{field} is gone"));
        };
        let sized = old_fields.iter().any(|f| (&f.0, f.1.as_str()) == (of, "struct_size"));
        if field == "." && sized && new_bytes > bytes {
            // What is new must lie behind all that was there.
            if let Some(new) = new_fields.iter().find(|new| {
                &new.0 == of && new.2 < *bytes && !old_fields.iter().any(|old| (&old.0, &old.1) == (of, &new.1))
            }) {
                return Some(format!("{of}.{} lies among the fields that were there", new.1));
            }
            grown.push_str(&format!("[suppress_type]\n  name = {of}\n  type_kind = struct\n"));
        } else if (offset, bytes) != (new_offset, new_bytes) {
            return Some(format!(
                "{of}.{field}: byte {offset}, {bytes} long, is now byte {new_offset}, {new_bytes} long"
            ));
        }
    }
    let suppressions = folder.path().join("grown.abignore");
    std::fs::write(&suppressions, grown).unwrap();
    let output = Command::new("abidiff")
        .args(["--no-added-syms", "--suppressions"])
        .arg(suppressions)
        .args([old, new])
        .output()
        .expect("missing: abidiff (Debian package abigail-tools)");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn programs_of_the_last_release_fit_the_library() {
    let header = read("include/df11.h");
    // What the first programs know is still there too.
    for release in [LAST, FIRST] {
        assert_eq!(breaks(&read(format!("tests/abi/{release}/df11.h")), &header), None, "{release}");
    }
}

/// Each kind of change that breaks programs is found, and those that do not are let through.
#[test]
fn changes_that_break_programs_are_found() {
    let header = read("include/df11.h");
    let changed = |from: &str, to: &str| {
        assert!(header.contains(from), "the header has no {from:?}");
        breaks(&header, &header.replacen(from, to, 1))
    };
    let wrong = [
        ("a function less", "void df11_model_free(df11_model *model);", ""),
        ("another parameter", "uint64_t group,", "uint32_t group,"),
        ("another result", "uint64_t df11_model_group_count(", "uint32_t df11_model_group_count("),
        ("a field in the middle", "    uint64_t element_count;", "    uint64_t more;\n    uint64_t element_count;"),
        ("a field in a hole", "    uint64_t packed_bytes;", "    uint32_t packed_bytes;\n    uint32_t more;"),
        ("a shorter field", "    uint64_t packed_bytes;", "    uint32_t packed_bytes;"),
        ("a field of another type", "    uint64_t packed_bytes;", "    double packed_bytes;"),
        ("a longer error", "char message[504];", "char message[1016];"),
        ("another callback", "(void *user, uint64_t done, uint64_t total)", "(void *user, uint64_t done)"),
    ];
    for (what, from, to) in wrong {
        assert!(changed(from, to).is_some(), "{what} was let through");
    }
    assert_eq!(changed("\n} df11_group_info;", "\n    uint64_t more;\n} df11_group_info;"), None);
    assert_eq!(changed("void df11_model_free(", "void df11_more(int32_t a);\nvoid df11_model_free("), None);
}

#[test]
fn a_program_of_the_first_header_runs_with_the_library() {
    let folder = library();
    let program = folder.path().join("program");
    let model = Path::new(ROOT).join("tests/data/golden/tiny/model");
    let decoded: u64 = df11::Model::open(&model, &df11::OpenOptions::default())
        .unwrap()
        .groups()
        .map(|group| 2 * group.element_count())
        .sum();
    run(compiler(false)
        .current_dir(ROOT)
        .args(["-std=c11", "-g", "-O1"])
        .args([format!("-Itests/abi/{FIRST}"), format!("tests/abi/{FIRST}/program.c"), "-o".into()])
        .arg(&program)
        .args(WARNINGS)
        .arg("-L")
        .arg(folder.path())
        .arg("-ldf11")
        .arg(format!("-Wl,-rpath,{}", folder.path().display())));
    let output = run(Command::new(&program).arg(&model).arg(decoded.to_string()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("checks passed"));
}
