//! The examples that exist in several languages, built as their first lines say. `examples/decompress.*` prints the same lines
//! in every language, on the CPU and on the emulated device, except for the line with the speed. `examples/hello.*` prints the
//! first values of a tensor.
//!
//! Python's runs from `bindings/python/src`; the wheel has tests of its own.
//!
//! Needs Python, a C and a C++ compiler (`CC`, `CXX`, else `cc` and `c++`), pkg-config, and a `go` that `bindings/go/toolchain.sh` finds or
//! installs.
#![cfg(target_os = "linux")]

use crate::support;

use half::bf16;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::programs::{WARNINGS, built, compiler, library, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An example, and whether it looks for a CUDA device.
struct Example {
    program: PathBuf,
    device: bool,
    /// What the interpreter runs, and the library that it loads.
    script: Option<(PathBuf, PathBuf)>,
}

impl Example {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(ROOT);
        if let Some((script, library)) = &self.script {
            command.arg(script).env("DF11_LIBRARY", library).env("PYTHONPATH", format!("{ROOT}/bindings/python/src"));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
        }
        command
    }
}

fn python(folder: &Path, name: &str) -> Example {
    let script = Path::new(ROOT).join(format!("examples/{name}.py"));
    Example { program: "python3".into(), device: false, script: Some((script, folder.join("libdf11.so"))) }
}

/// Builds the C or the C++ program `name`, linked with the shared library in `folder`, or with the archive.
fn native(folder: &Path, name: &str, cpp: bool, archive: bool) -> Example {
    let (extension, std) = if cpp { ("cc", "-std=c++17") } else { ("c", "-std=c11") };
    let source = format!("{name}.{extension}");
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
    Example { program, device: true, script: None }
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
    Example { program, device: false, script: None }
}

/// Builds the Go program `name` with the library in `folder`, which the binding finds by pkg-config.
fn go(folder: &Path, name: &str) -> Example {
    let package = format!(
        "Name: df11\nDescription: the library under test\nVersion: {}\nCflags: -I{ROOT}/include\nLibs: -L{} -ldf11\n",
        env!("CARGO_PKG_VERSION"),
        folder.display()
    );
    let packages = folder.join("pkgconfig");
    std::fs::create_dir_all(&packages).unwrap();
    std::fs::write(packages.join("df11.pc"), package).unwrap();
    let found = run(Command::new("bindings/go/toolchain.sh").current_dir(ROOT)).stdout;
    let go = Path::new(std::str::from_utf8(&found).unwrap().trim()).join("go");
    let flags = run(Command::new("bindings/go/flags.sh").current_dir(ROOT).arg(ROOT).arg(folder)).stdout;
    let source = format!("{name}.go");
    let program = folder.join(format!("{source}.program"));
    run(Command::new(go)
        .current_dir(Path::new(ROOT).join("examples"))
        .arg("build")
        .arg(format!("-ldflags=-extldflags=-Wl,-rpath,{}", folder.display()))
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .env("GOFLAGS", std::str::from_utf8(&flags).unwrap().trim())
        .env("PKG_CONFIG_PATH", packages));
    Example { program, device: true, script: None }
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
    let mut command = example.command();
    command.env("DF11_LIBCUDA", libcuda).arg(data(model)).arg(data(original));
    command
}

#[test]
fn decompress_says_the_same_in_every_language() {
    let folder = library();
    let examples = [
        native(folder.path(), "decompress", false, false),
        native(folder.path(), "decompress", false, true),
        native(folder.path(), "decompress", true, false),
        native(folder.path(), "decompress", true, true),
        go(folder.path(), "decompress"),
        rust(),
        python(folder.path(), "decompress"),
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
        let output = example.command().output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn multiply_compares_both_forms() {
    let folder = library();
    let example = native(folder.path(), "multiply", false, false);
    let multiply = |arguments: &[&str]| example.command().args(arguments).output().unwrap();
    let model = "tests/data/golden/block/model";
    for tensor in [&[model][..], &[model, "model.layers.1.mlp.down_proj.weight"]] {
        let output = multiply(tensor);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.starts_with("matrix x vector, one thread: "), "{text}");
        let compares = cfg!(target_arch = "x86_64") && is_x86_feature_detected!("fma");
        assert_eq!(text.contains("the same sums, bit for bit"), compares, "{text}");
        assert_eq!(text.lines().count(), 1);
    }
    assert_eq!(multiply(&[]).status.code(), Some(2));
    let output = multiply(&[model, "model.norm.weight"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("multiply: the columns of model.norm.weight"), "{said}");
    assert_eq!(multiply(&[model, "nothing"]).status.code(), Some(1));
}

#[test]
fn hello_prints_a_tensor_in_every_language() {
    let folder = library();
    let examples = [
        native(folder.path(), "hello", false, false),
        native(folder.path(), "hello", true, true),
        go(folder.path(), "hello"),
    ];
    let hello = |example: &Example, arguments: &[&str]| example.command().args(arguments).output().unwrap();
    let model = "tests/data/golden/block/model";
    let original = std::fs::read(Path::new(ROOT).join("tests/data/golden/block/original.safetensors")).unwrap();
    let original = safetensors::SafeTensors::deserialize(&original).unwrap();
    // One in a group, and a plain one.
    for tensor in ["model.layers.1.mlp.down_proj.weight", "model.norm.weight"] {
        let bytes = original.tensor(tensor).unwrap().data().chunks_exact(2).take(4);
        let want: Vec<bf16> = bytes.map(|b| bf16::from_le_bytes([b[0], b[1]])).collect();
        assert!(want.iter().any(|&v| v != bf16::ZERO));
        for example in &examples {
            let output = hello(example, &[model, tensor]);
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let got: Vec<f32> = text.lines().map(|line| line.parse().unwrap()).collect();
            // The programs print six digits or more, and a bf16 number has fewer.
            let got: Vec<bf16> = got.into_iter().map(bf16::from_f32).collect();
            assert_eq!(got, want, "{tensor}: {text}");
        }
    }
    for example in &examples {
        for (arguments, says) in
            [(&[model, "nowhere"][..], "no"), (&["nowhere", "x"], "cannot open 'nowhere'"), (&[], "usage: hello")]
        {
            let output = hello(example, arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && output.stdout.is_empty() && said.contains(says), "{output:?}");
        }
    }
}
