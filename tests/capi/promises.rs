//! `tests/PROMISES.md` says of each promise which tests fail when it is broken. Here it is held against what there is: every
//! function of the header has a row, and every test that is named exists.
#![cfg(target_os = "linux")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use support::abi::functions_of_the_header;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file with that ending in a folder and below it.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
}

/// The names of the Rust tests, each with the modules that have one of that name.
fn rust_tests() -> BTreeMap<String, Vec<String>> {
    let mut sources = Vec::new();
    files(&root().join("tests"), "rs", &mut sources);
    files(&root().join("src"), "rs", &mut sources);
    let mut tests = BTreeMap::<String, Vec<String>>::new();
    for path in sources {
        let text = read(&path);
        let stem = match path.file_stem().unwrap().to_str().unwrap() {
            "main" | "mod" => path.parent().unwrap().file_name().unwrap().to_str().unwrap(),
            stem => stem,
        };
        // Between the attribute and the function there may be others, and comments.
        for behind in text.split("#[test]\n").skip(1) {
            let name = behind.lines().find_map(|line| line.trim().strip_prefix("fn ")).unwrap();
            tests.entry(name.split('(').next().unwrap().to_owned()).or_default().push(stem.to_owned());
        }
    }
    tests
}

/// The functions of a C program that are called somewhere, too.
fn c_tests(program: &str) -> BTreeSet<String> {
    let text = read(&root().join("tests/c").join(program));
    let names =
        text.lines().filter_map(|line| line.strip_prefix("static void ")?.split_once('(')).map(|(name, _)| name);
    let calls = |name: &&str| text.matches(&format!("{name}(")).count() > 1;
    names.filter(calls).map(str::to_owned).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The rows of all tables: what is promised, and by which tests.
fn rows(text: &str) -> Vec<(&str, Vec<&str>)> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    cells
        .filter(|(promise, _)| *promise != "promise")
        .map(|(promise, tests)| (promise, quoted(tests).collect()))
        .collect()
}

/// Why a name is no test's.
fn unknown(name: &str, rust: &BTreeMap<String, Vec<String>>) -> Option<String> {
    if name.contains('/') {
        return (!root().join(name).is_file()).then(|| "there is no such file".into());
    }
    let (file, test) = name.split_once("::").map_or((None, name), |(file, test)| (Some(file), test));
    if let Some(program) = file.filter(|file| file.ends_with(".c")) {
        return (!c_tests(program).contains(test)).then(|| format!("{program} has no such function, or calls none"));
    }
    match (rust.get(test), file) {
        (None, _) => Some("there is no such test".into()),
        (Some(stems), Some(file)) if !stems.iter().any(|stem| stem == file) => Some(format!("it is in {stems:?}")),
        (Some(stems), None) if stems.len() > 1 => Some(format!("several are called so, in {stems:?}: say which")),
        _ => None,
    }
}

#[test]
fn every_promise_has_tests_that_exist() {
    let (text, rust) = (read(&root().join("tests/PROMISES.md")), rust_tests());
    let rows = rows(&text);
    assert!(rows.len() > 80 && rust.len() > 200, "{} promises, {} tests", rows.len(), rust.len());
    let mut wrong = Vec::new();
    for (promise, tests) in &rows {
        if tests.is_empty() {
            wrong.push(format!("no test is named for: {promise}"));
        }
        wrong.extend(tests.iter().filter_map(|name| unknown(name, &rust).map(|why| format!("{name}: {why}"))));
    }
    assert!(wrong.is_empty(), "tests/PROMISES.md\n{}", wrong.join("\n"));
}

#[test]
fn every_function_has_a_row() {
    let text = read(&root().join("tests/PROMISES.md"));
    let listed: BTreeSet<&str> = rows(&text).iter().flat_map(|(promise, _)| quoted(promise)).collect();
    let functions = functions_of_the_header();
    assert!(functions.len() > 40);
    let missing: Vec<&String> = functions.iter().map(|f| &f.name).filter(|name| !listed.contains(&name[..])).collect();
    assert!(missing.is_empty(), "tests/PROMISES.md has no row for {missing:?}");
    let gone: Vec<&&str> =
        listed.iter().filter(|name| name.starts_with("df11_") && !functions.iter().any(|f| f.name == **name)).collect();
    assert!(gone.is_empty(), "tests/PROMISES.md has rows for {gone:?}, which the header does not have");
}

/// The checks above see what they are to see.
#[test]
fn what_is_wrong_in_the_list_is_found() {
    let rust = rust_tests();
    assert_eq!(unknown("every_function_has_a_row", &rust), None);
    assert_eq!(unknown("promises::every_function_has_a_row", &rust), None);
    assert_eq!(unknown("api.c::verifying", &rust), None);
    for wrong in [
        "no_such_test",
        "writer::every_function_has_a_row",
        "memory_does_not_grow_with_the_model",
        "api.c::no_such_function",
        "tests/no-such-script.sh",
    ] {
        assert!(unknown(wrong, &rust).is_some(), "{wrong}");
    }
    let table = "| promise | tests |\n|---|---|\n| `df11_a`: b | `c`, `d::e` |\n| nothing | |\n";
    assert_eq!(rows(table), [("`df11_a`: b", vec!["c", "d::e"])]);
}
