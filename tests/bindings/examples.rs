//! The same example in every language: `examples/decompress.*`, built as its first lines say, prints the same line by line, on
//! the CPU and on the emulated device, but for the one line that tells the speed.
//!
//! Needs a C and a C++ compiler (`CC`, `CXX`, else `cc` and `c++`), pkg-config, and a `go` that `bindings/go/toolchain.sh` finds or
//! fetches.
#![cfg(target_os = "linux")]

use crate::support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::programs::{WARNINGS, built, compiler, library, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An example, and whether it looks for a CUDA device.
struct Example {
    program: PathBuf,
    device: bool,
}

/// The C and the C++ program, linked with the shared library in `folder`, or with the archive.
fn native(folder: &Path, cpp: bool, archive: bool) -> Example {
    let (source, std) = if cpp { ("decompress.cc", "-std=c++17") } else { ("decompress.c", "-std=c11") };
    let program = folder.join(format!("{source}{}", if archive { ".static" } else { "" }));
    let mut command = compiler(cpp);
    command
        .current_dir(ROOT)
        .args([std, "-O2", "-Iinclude", "-Ibindings/cpp", &format!("examples/{source}"), "-o"])
        .arg(&program)
        .args(WARNINGS);
    if archive {
        command.arg(built().join("libdf11.a"));
    } else {
        command.arg("-L").arg(folder).arg("-ldf11").arg(format!("-Wl,-rpath,{}", folder.display()));
    }
    run(command.args(["-lpthread", "-ldl", "-lm"]));
    Example { program, device: true }
}

fn rust() -> Example {
    let mut program = built().join("../examples/decompress");
    if !program.exists() {
        // A run of this file alone does not build examples. Built in the same folder it would replace the shared library that
        // the programs of the other tests are running with.
        let alone = Path::new(ROOT).join("target/examples");
        run(Command::new(env!("CARGO"))
            .current_dir(ROOT)
            .args(["build", "--quiet", "--example", "decompress", "--target-dir"])
            .arg(&alone));
        program = alone.join("debug/examples/decompress");
    }
    Example { program, device: false }
}

/// The Go program, with the library in `folder`: the binding asks pkg-config for it.
fn go(folder: &Path) -> Example {
    let package = format!(
        "Name: df11\nDescription: the library under test\nVersion: {}\nCflags: -I{ROOT}/include\nLibs: -L{} -ldf11\n",
        env!("CARGO_PKG_VERSION"),
        folder.display()
    );
    let packages = folder.join("pkgconfig");
    std::fs::create_dir(&packages).unwrap();
    std::fs::write(packages.join("df11.pc"), package).unwrap();
    let found = run(Command::new("bindings/go/toolchain.sh").current_dir(ROOT)).stdout;
    let go = Path::new(std::str::from_utf8(&found).unwrap().trim()).join("go");
    let flags = run(Command::new("bindings/go/flags.sh").current_dir(ROOT).arg(ROOT).arg(folder)).stdout;
    let program = folder.join("decompress.go.program");
    run(Command::new(go)
        .current_dir(Path::new(ROOT).join("examples"))
        .arg("build")
        .arg(format!("-ldflags=-extldflags=-Wl,-rpath,{}", folder.display()))
        .arg("-o")
        .arg(&program)
        .arg("decompress.go")
        .env("GOFLAGS", std::str::from_utf8(&flags).unwrap().trim())
        .env("PKG_CONFIG_PATH", packages));
    Example { program, device: true }
}

/// Runs an example that must succeed, and gives what it printed without the line of the speed, which must be one.
fn said(command: &mut Command) -> Vec<String> {
    let text = String::from_utf8(run(command).stdout).unwrap();
    let lines: Vec<String> = text.lines().filter(|line| !line.contains("GB/s")).map(str::to_owned).collect();
    assert_eq!(lines.len() + 1, text.lines().count(), "one line tells the speed: {text}");
    lines
}

fn decompress(example: &Example, libcuda: &Path, model: &str, original: &str) -> Command {
    let data = |path: &str| Path::new("tests/data/golden").join(path);
    let mut command = Command::new(&example.program);
    command.current_dir(ROOT).env("DF11_LIBCUDA", libcuda).arg(data(model)).arg(data(original));
    command
}

#[test]
fn decompress_says_the_same_in_every_language() {
    let folder = library();
    let examples = [
        native(folder.path(), false, false),
        native(folder.path(), false, true),
        native(folder.path(), true, false),
        native(folder.path(), true, true),
        go(folder.path()),
        rust(),
    ];
    let (none, emulator) = (Path::new("/nonexistent/libcuda.so.1"), built().join("libdf11_emulator.so"));

    // On the CPU, all of them.
    for model in ["block", "sharded", "tiny"] {
        let (folder, original) = (format!("{model}/model"), format!("{model}/original.safetensors"));
        let all: Vec<_> = examples.iter().map(|e| said(&mut decompress(e, none, &folder, &original))).collect();
        assert!(all.iter().all(|lines| *lines == all[0]), "{all:#?}");
        assert!(all[0].last().unwrap().contains("tensors equal the original, bit for bit"), "{all:#?}");
        if model == "block" {
            assert!(all[0].last().unwrap().starts_with("21 of 21 "), "{all:#?}");
        }
    }
    // On the device, those that look for one: one line more, and nothing left behind.
    let all: Vec<_> = examples
        .iter()
        .filter(|example| example.device)
        .map(|example| {
            said(
                decompress(example, &emulator, "block/model", "block/original.safetensors")
                    .env("DF11_EMULATOR_LEAKS", "stderr")
                    .env("DF11_EMULATOR_LEAK_EXIT", "99"),
            )
        })
        .collect();
    assert!(all.len() == 5 && all.iter().all(|lines| *lines == all[0]), "{all:#?}");
    assert!(all[0][1].contains("bytes of compressed groups on it") && all[0].len() == 4, "{all:#?}");

    // What differs is told by the exit status, and so is a wrong use.
    for example in &examples {
        let output = decompress(example, none, "block/model", "tiny/original.safetensors").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let output = decompress(example, none, "nowhere", "tiny/original.safetensors").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("decompress: "), "{output:?}");
        let output = Command::new(&example.program).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
