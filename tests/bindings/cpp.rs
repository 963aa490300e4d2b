//! Tests of the C++ binding. Programs in `tests/cpp` include `bindings/cpp/df11.hpp` alone, twice, and in two files of different
//! standards, and make every call in C++17, 20 and 23, without exceptions, under AddressSanitizer and UBSan, and on the emulated
//! driver. Programs in `tests/nvidia` include NVIDIA's own headers as well.
//!
//! Needs a C and a C++ compiler (`CC`, `CXX`, else `cc` and `c++`), and Python's venv for NVIDIA's headers. If there is a
//! `clang++`, it compiles everything once more.
#![cfg(target_os = "linux")]

use crate::support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::programs::{built, library, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const WARNINGS: [&str; 6] = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"];
const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Returns the compilers to test with.
fn compilers() -> Vec<OsString> {
    let ours = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let clang = ["clang++", "clang++-19", "clang++-16", "clang++-14"].into_iter().find(|name| there(name));
    std::iter::once(ours).chain(clang.map(OsString::from)).collect()
}

/// Returns the option for a standard. A compiler that is older than C++23 has another name for it.
fn standard(compiler: &OsString, year: &str) -> String {
    let flag = format!("-std=c++{year}");
    let known = Command::new(compiler).args([&flag[..], "-xc++", "-E", "/dev/null"]).output().unwrap().status.success();
    if known || year != "23" { flag } else { "-std=c++2b".into() }
}

fn compile(compiler: &OsString, folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let object = folder.join(name).with_extension("o");
    run(Command::new(compiler)
        .current_dir(ROOT)
        .args(["-c", "-g", "-Iinclude", "-Ibindings/cpp", "-Itests/c", "-Iexamples"])
        .args(WARNINGS)
        .args(options)
        .arg(format!("tests/cpp/{name}.cc"))
        .arg("-o")
        .arg(&object));
    object
}

fn link(compiler: &OsString, folder: &Path, objects: &[&Path], options: &[&str]) -> PathBuf {
    let program = folder.join("program");
    run(Command::new(compiler)
        .args(objects)
        .args(options)
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(folder)
        .args(["-ldf11", "-lpthread", "-ldl"])
        .arg(format!("-Wl,-rpath,{}", folder.display())));
    program
}

fn build(compiler: &OsString, folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let object = compile(compiler, folder, name, options);
    link(compiler, folder, &[&object], options)
}

/// Runs a program that counts its checks, and prints nothing else if all succeed.
fn passes(command: &mut Command) {
    let output = run(command);
    let (said, shown) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.contains("checks passed"), "{said}");
    // The emulator reports what was not freed. The kernels' module ends with its context, as it should.
    let unexpected: Vec<&str> =
        shown.lines().filter(|l| !l.contains("abandoned modules: ") && !l.contains("nothing leaked")).collect();
    assert!(unexpected.is_empty(), "{shown}");
}

fn golden() -> PathBuf {
    Path::new(ROOT).join("tests/data/golden")
}

fn host_api(program: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    passes(
        Command::new(program)
            .arg(golden())
            .arg(Path::new(ROOT).join("tests/data/hostile"))
            .arg(scratch.path())
            .env("ASAN_OPTIONS", "detect_leaks=1"),
    );
}

fn device_api(program: &Path) {
    for model in ["tiny", "edge"] {
        passes(
            Command::new(program)
                .arg(golden().join(model).join("model"))
                .env("DF11_LIBCUDA", built().join("libdf11_emulator.so"))
                .env("DF11_EMULATOR_LEAKS", "stderr")
                .env("DF11_EMULATOR_LEAK_EXIT", "99")
                .env("ASAN_OPTIONS", "detect_leaks=0"),
        );
    }
}

/// Links two files of one program, each of which includes the header twice. No symbol is defined twice, and each file catches
/// the exceptions of the other, also if they have different standards or compilers.
#[test]
fn the_header_in_two_files() {
    let folder = library();
    let compilers = compilers();
    for (one, other) in [("17", "17"), ("17", "20"), ("23", "17")] {
        for first in &compilers {
            let second = compilers.last().unwrap();
            let alone = compile(first, folder.path(), "alone", &[&standard(first, one)]);
            let again = compile(second, folder.path(), "again", &[&standard(second, other)]);
            let program = link(first, folder.path(), &[&alone, &again], &[]);
            passes(Command::new(program).arg(golden().join("tiny/model")));
        }
    }
}

/// A standard that is too old gives a clear error.
#[test]
fn the_header_says_what_it_needs() {
    let output = Command::new(&compilers()[0])
        .current_dir(ROOT)
        .args(["-std=c++14", "-fsyntax-only", "-Iinclude", "-Ibindings/cpp", "-Itests/c", "tests/cpp/alone.cc"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("df11.hpp needs C++17"), "{said}");
}

#[test]
fn every_call_in_every_standard() {
    for (number, compiler) in compilers().iter().enumerate() {
        // Compilation is slow, and the first compiler covers the standards.
        let years: &[&str] = if number == 0 { &["17", "20", "23"] } else { &["20"] };
        for year in years {
            let folder = library();
            let std = standard(compiler, year);
            host_api(&build(compiler, folder.path(), "api", &[&std]));
            device_api(&build(compiler, folder.path(), "device", &[&std]));
        }
    }
}

#[test]
fn every_call_under_the_sanitizers() {
    let (folder, compiler) = (library(), &compilers()[0]);
    let options = [&["-std=c++20"], &SANITIZERS[..]].concat();
    host_api(&build(compiler, folder.path(), "api", &options));
    device_api(&build(compiler, folder.path(), "device", &options));
}

/// The compiler warns about ignored results that must be used, and the warning can be made an error. `tests/cpp/dropped.cc`
/// ignores all of them. The preprocessor removes lines that do not exist in a standard, or without exceptions.
#[test]
fn a_result_that_is_dropped_is_warned_of() {
    let source = std::fs::read_to_string(Path::new(ROOT).join("tests/cpp/dropped.cc")).unwrap();
    let header = std::fs::read_to_string(Path::new(ROOT).join("bindings/cpp/df11.hpp")).unwrap();
    // Every call that returns a status is marked, and dropped.cc ignores its result.
    for line in header.lines().filter(|line| line.contains("df11_status try_") && !line.contains("return")) {
        let name = &line[line.find("try_").unwrap()..line.find('(').unwrap()];
        assert!(line.trim_start().starts_with("[[nodiscard]]"), "{line}");
        assert!(source.contains(&format!("{name}(")), "dropped.cc does not drop {name}()");
    }
    let compile = |compiler: &OsString, options: &[&str]| {
        let mut command = Command::new(compiler);
        command.current_dir(ROOT).args(["-fsyntax-only", "-Iinclude", "-Ibindings/cpp"]).args(options);
        command.arg("tests/cpp/dropped.cc").output().unwrap()
    };
    for compiler in compilers() {
        for (year, options) in [("17", &[][..]), ("20", &[]), ("23", &[]), ("17", &["-fno-exceptions"])] {
            let std = standard(&compiler, year);
            let all = [&[&std[..]], options].concat();
            let marked = Command::new(&compiler)
                .current_dir(ROOT)
                .args(["-E", "-CC", "-Iinclude", "-Ibindings/cpp", "tests/cpp/dropped.cc"])
                .args(&all)
                .output()
                .unwrap();
            let marked = String::from_utf8(marked.stdout).unwrap();
            // The preprocessor may change the spaces before a comment.
            let code = |line: &str| line.strip_suffix("// dropped").map(|code| code.trim().to_owned());
            let number = |text: String| 1 + source.lines().position(|line| code(line).as_ref() == Some(&text)).unwrap();
            let want: Vec<usize> = marked.lines().filter_map(code).map(number).collect();
            assert!(want.len() >= 22, "{marked}");

            let output = compile(&compiler, &all);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{said}");
            let warned = said.lines().filter(|line| line.contains(": warning: "));
            let at = |line: &str| line.strip_prefix("tests/cpp/dropped.cc:")?.split(':').next()?.parse::<usize>().ok();
            let found: Vec<usize> = warned.map(|line| at(line).unwrap_or_else(|| panic!("{line}"))).collect();
            assert_eq!(found, want, "{compiler:?} {all:?}\n{said}");
            assert!(!compile(&compiler, &[&all[..], &["-Werror"]].concat()).status.success());
        }
    }
}

/// NVIDIA's headers beside ours: their types are passed without a cast, from C and from C++, in either order of inclusion, and
/// the examples for the CUDA runtime compile with the real one. Nothing is linked.
#[test]
fn with_nvidias_own_headers() {
    let found = run(Command::new("tests/nvidia/headers.sh").current_dir(ROOT)).stdout;
    let headers = std::str::from_utf8(&found).unwrap().trim();
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compile = |compiler: &OsString, std: &str, source: &str| {
        run(Command::new(compiler)
            .current_dir(ROOT)
            .args([std, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
            .args(["-isystem", headers, "-Iinclude", "-Ibindings/cpp", source]));
    };
    for std in ["-std=c99", "-std=c11"] {
        compile(&cc, std, "tests/nvidia/engine.c");
    }
    compile(&cc, "-std=c11", "tests/nvidia/driver.c");
    for compiler in compilers() {
        for std in ["-std=c++17", "-std=c++20"] {
            compile(&compiler, std, "tests/nvidia/engine.cc");
        }
        for example in ["examples/slots.cc", "examples/offload.cc"] {
            compile(&compiler, "-std=c++17", example);
        }
    }
}

#[test]
fn without_exceptions() {
    for compiler in compilers() {
        let folder = library();
        let program = build(&compiler, folder.path(), "noexcept", &["-std=c++17", "-fno-exceptions", "-fno-rtti"]);
        passes(Command::new(program).arg(golden().join("tiny/model")));
    }
}

/// The cost of the binding over the C call. The program fails if it is too high. Its times are reliable only on a quiet machine
/// with an optimised library: `tests/cpp/cost.cc` says how to run it there.
#[test]
fn the_binding_costs_next_to_nothing() {
    let (folder, scratch) = (library(), tempfile::tempdir().unwrap());
    let program = build(&compilers()[0], folder.path(), "cost", &["-std=c++17", "-O2"]);
    passes(Command::new(program).arg(scratch.path()).arg("5"));
}
