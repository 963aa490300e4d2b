//! The library as a C program sees it: the header in every standard; `tests/c/api.c` and, on the emulated driver,
//! `tests/c/threads.c`, plain, under AddressSanitizer and UBSan, and under valgrind; and the example that compresses. (The one
//! that decodes is in `tests/bindings/examples.rs`.)
//!
//! Needs a C and a C++ compiler (`CC`, `CXX`, else `cc` and `c++`) and valgrind; `make test` sees to them.
#![cfg(target_os = "linux")]

use crate::support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::programs::{WARNINGS, built, compiler, library, run};

/// Where this checkout lies.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What valgrind is to find. What is "possibly" lost is the standard library's handle of a thread that it did not start, kept by
/// a pointer into its middle.
const VALGRIND: [&str; 5] = [
    "--quiet",
    "--leak-check=full",
    "--show-leak-kinds=definite,indirect",
    "--errors-for-leak-kinds=definite,indirect",
    "--error-exitcode=99",
];

/// Compiles a program against the header and the shared library in `folder`.
fn build(source: &str, folder: &Path, options: &[&str]) -> PathBuf {
    let program = folder.join(Path::new(source).file_stem().unwrap());
    run(compiler(false)
        .current_dir(ROOT)
        .args(["-std=c11", "-g", "-O1", "-Iinclude", source, "-o"])
        .arg(&program)
        .args(WARNINGS)
        .args(options)
        .arg("-L")
        .arg(folder)
        .args(["-ldf11", "-lpthread", "-lm"])
        .arg(format!("-Wl,-rpath,{}", folder.display())));
    program
}

fn run_api(program: &mut Command) {
    let data = Path::new(ROOT).join("tests/data");
    let scratch = tempfile::tempdir().unwrap();
    let output = run(program.arg(data.join("golden")).arg(data.join("hostile")).arg(scratch.path()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("checks passed"), "{text}");
    assert!(output.stderr.is_empty(), "the library printed: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_compiles_in_every_standard() {
    let folder = tempfile::tempdir().unwrap();
    // What a compiler older than the standard's publication calls it.
    let known = |cpp: bool, std: &str| {
        compiler(cpp).args([std, "-xc", "-E", "/dev/null"]).output().is_ok_and(|o| o.status.success())
    };
    for (cpp, std) in
        [(false, "c99"), (false, "c11"), (false, "c23"), (true, "c++11"), (true, "c++17"), (true, "c++20")]
    {
        let mut flag = format!("-std={std}");
        if std == "c23" && !known(cpp, &flag) {
            flag = "-std=c2x".into();
        }
        let program = folder.path().join("header");
        run(compiler(cpp)
            .current_dir(ROOT)
            .args([&flag[..], if cpp { "-xc++" } else { "-xc" }, "-Iinclude", "tests/c/header.c", "-o"])
            .arg(&program)
            .args(WARNINGS));
        run(&mut Command::new(&program));
    }
}

#[test]
fn every_function_from_c() {
    let folder = library();
    run_api(&mut Command::new(build("tests/c/api.c", folder.path(), &[])));
}

#[test]
fn every_function_from_c_under_the_sanitizers() {
    let folder = library();
    let program = build("tests/c/api.c", folder.path(), &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    run_api(Command::new(program).env("ASAN_OPTIONS", "detect_leaks=1"));
}

#[test]
fn every_function_from_c_under_valgrind() {
    let folder = library();
    let program = build("tests/c/api.c", folder.path(), &[]);
    run_api(Command::new("valgrind").args(VALGRIND).arg(program));
}

/// The main path on a CUDA device, which is the emulator's: plain, and under the sanitizers (the program's; the library and
/// the emulator are as always).
#[test]
fn the_main_path_on_a_device_from_c() {
    let folder = library();
    let driver = built().join("libdf11_emulator.so");
    assert!(driver.exists(), "{} is missing: cargo builds it with the tests", driver.display());
    for options in [&[][..], &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]] {
        let program = build("tests/c/cuda.c", folder.path(), &[options, &["-ldl"]].concat());
        for model in ["tiny", "edge"] {
            let output = run(Command::new(&program)
                .arg(Path::new(ROOT).join("tests/data/golden").join(model).join("model"))
                .env("DF11_LIBCUDA", &driver)
                .env("DF11_EMULATOR_LEAKS", "stderr")
                .env("ASAN_OPTIONS", "detect_leaks=0"));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("checks passed"), "{text}");
            let said = String::from_utf8(output.stderr).unwrap();
            // The kernels' module ends with its context, as it should.
            let leaks: Vec<&str> = said.lines().filter(|line| !line.contains("abandoned modules: ")).collect();
            assert!(leaks.iter().all(|line| line.contains("nothing leaked")), "{said}");
        }
    }
}

/// `tests/c/threads.c` on small models and the emulator's device; `wrap` runs the program.
fn sixteen_threads(steps: u32, models: &[&str], options: &[&str], wrap: &[&str]) {
    let folder = library();
    let driver = built().join("libdf11_emulator.so");
    assert!(driver.exists(), "{} is missing: cargo builds it with the tests", driver.display());
    let program = build("tests/c/threads.c", folder.path(), &[options, &["-ldl"]].concat());
    let mut command = Command::new(wrap.first().map_or(program.as_os_str(), |wrap| wrap.as_ref()));
    if let Some((_, more)) = wrap.split_first() {
        command.args(more).arg(&program);
    }
    let golden = Path::new(ROOT).join("tests/data/golden");
    command.arg(steps.to_string()).args(models.iter().map(|model| golden.join(model).join("model")));
    command.env("DF11_LIBCUDA", &driver).env("DF11_EMULATOR_LEAKS", "stderr").env("ASAN_OPTIONS", "detect_leaks=1");
    let output = run(&mut command);
    let (text, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(text.contains("checks passed"), "{text}");
    let leaks = said.lines().filter(|line| !line.contains("abandoned modules: "));
    assert!(leaks.clone().all(|line| line.contains("nothing leaked")), "{said}");
}

const THREADS_MODELS: [&str; 3] = ["tiny", "edge_patched", "sharded"];

#[test]
fn sixteen_threads_from_c() {
    sixteen_threads(100, &THREADS_MODELS, &[], &[]);
}

#[test]
fn sixteen_threads_from_c_under_the_sanitizers() {
    sixteen_threads(30, &THREADS_MODELS, &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], &[]);
}

/// Without a suppression. Threads take turns there, fairly: one alone would otherwise wait for the others for ever.
#[test]
fn sixteen_threads_from_c_under_valgrind() {
    let valgrind = [&["valgrind", "--fair-sched=yes"], &VALGRIND[..]].concat();
    sixteen_threads(4, &THREADS_MODELS[..2], &[], &valgrind);
}

/// What the other example writes is the original again, and it can be stopped by its mistakes only.
#[test]
fn the_example_that_compresses() {
    let folder = library();
    let program = build("examples/compress.c", folder.path(), &[]);
    let (source, to) = ("tests/data/golden/block/original.safetensors", folder.path().join("model"));
    let compress = |to: &Path| {
        let mut command = Command::new(&program);
        command.current_dir(ROOT).arg(source).arg(to);
        command
    };
    let output = run(&mut compress(&to));
    let (said, shown) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.contains(" groups, 0 of them") && said.contains("bits per weight"), "{said}");
    assert!(shown.ends_with("\r100 %\n"), "{shown}");
    let decompress = build("examples/decompress.c", folder.path(), &[]);
    let output = run(Command::new(decompress).current_dir(ROOT).arg(&to).arg(source));
    assert!(String::from_utf8(output.stdout).unwrap().contains("21 of 21 tensors equal"));

    // It goes on with what is there: all of it.
    let again = String::from_utf8(run(&mut compress(&to)).stdout).unwrap();
    assert!(again.contains("4 groups, 4 of them"), "{again}");
    let unknown = compress(&folder.path().join("other")).arg("no such preset").output().unwrap();
    assert_eq!(unknown.status.code(), Some(1));
}
