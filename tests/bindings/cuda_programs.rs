//! Programs that decode on a device, as their users build and start them, on the emulated driver: the examples, and the check
//! and the benchmark that `make gpu-bundle` packs for real GPUs. What they find of the driver is the emulator's library,
//! named by `DF11_LIBCUDA`; it looks at the end whether anything was left behind.
//!
//! On a machine with a GPU, `tests/gpu` runs the same programs there.
#![cfg(target_os = "linux")]

use crate::support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::engine;
use support::programs::{WARNINGS, compiler, library, run};
use support::{hollow, sparse};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const GOLDEN: [&str; 5] = ["block", "edge", "edge_patched", "sharded", "tiny"];

fn model(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/data/golden").join(name).join("model")
}

fn build(source: &str, folder: &Path) -> PathBuf {
    let cpp = source.ends_with(".cc");
    let program = folder.join(Path::new(source).file_stem().unwrap());
    run(compiler(cpp)
        .current_dir(ROOT)
        .arg(if cpp { "-std=c++17" } else { "-std=c11" })
        .args(["-g", "-O1", "-Iinclude", "-Ibindings/cpp", "-Iexamples", "-Itests/gpu"])
        .args(["-DDF11_EXAMPLE_WITHOUT_RUNTIME", source, "-o"])
        .arg(&program)
        .args(WARNINGS)
        .arg("-L")
        .arg(folder)
        .args(["-ldf11", "-ldl", "-lm", "-pthread"])
        .arg(format!("-Wl,-rpath,{}", folder.display())));
    program
}

/// Starts a program on the emulator, which ends it with status 99 if it leaves a stream, an event, memory or a context behind.
/// (Modules stay: the library keeps its kernels for as long as the context lives, see `df11_device_free`.)
fn on_emulator(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("DF11_LIBCUDA", engine::library())
        .env("DF11_EMULATOR_LEAKS", "stderr")
        .env("DF11_EMULATOR_LEAK_EXIT", "99");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn check_finds_every_golden_model_right() {
    let folder = library();
    let program = build("tests/gpu/check.c", folder.path());
    let mut command = on_emulator(&program);
    command.env("DF11_EMULATOR_DRIVER", "12050").env("DF11_EMULATOR_SMS", "16").args(["--capture", "--parts"]);
    let said = stdout(&run(command.args(GOLDEN.map(model))));
    for name in GOLDEN {
        assert!(said.contains(model(name).to_str().unwrap()), "{said}");
    }
    assert!(said.trim_end().ends_with(" passed, 0 failed"), "{said}");
    assert!(said.contains("a second context: the same"), "{said}");
    // No kind of check was left out.
    for kind in [
        "opened and uploaded beside a capture",
        "uploaded image",
        "whole group",
        "range",
        "tensors",
        "bound image",
        "batch",
        "replayed graph",
        "two streams",
        "default streams",
        "pinned host memory",
        "green context",
        "limit on multiprocessors",
        "status",
        "corrupted image",
        "second context",
    ] {
        let line = said.lines().find(|line| line.starts_with(&format!("  {kind}  ")));
        assert!(
            line.is_some_and(|line| line.ends_with(" passed, 0 failed") && !line.contains(" 0 passed")),
            "{kind}: {said}"
        );
    }
}

#[test]
fn check_runs_the_ptx_on_a_made_group() {
    let folder = library();
    let program = build("tests/gpu/check.c", folder.path());
    let said = stdout(&run(on_emulator(&program).args(["--ptx", "--quick", "--large", "200000"])));
    assert!(said.contains("kernels: PTX") && said.contains("made: 1 groups, 200000 weights"), "{said}");
}

/// A check that cannot fail is none: a kernel that takes half of all signs from elsewhere must be found.
#[test]
fn check_says_what_is_wrong() {
    let folder = library();
    let program = build("tests/gpu/check.c", folder.path());
    let ptx = std::fs::read_to_string("kernels/prebuilt/decode.ptx").unwrap();
    // 0x807f807f, which picks sign and mantissa of two weights, without its top bit.
    let spoilt = ptx.replace("-2139127681;", "8355967;");
    assert_ne!(spoilt, ptx, "the kernels have no such mask any more");
    let path = folder.path().join("spoilt.ptx");
    std::fs::write(&path, spoilt).unwrap();
    let with = |ptx: &Path| {
        let mut command = on_emulator(&program);
        command
            .env("DF11_EMULATOR_ACCEPT_CUBIN", "1")
            .env("DF11_EMULATOR_CUBIN_PTX", ptx)
            .env_remove("DF11_EMULATOR_LEAK_EXIT");
        command.arg("--quick").arg(model("tiny")).output().unwrap()
    };
    let good = with(Path::new("kernels/prebuilt/decode.ptx"));
    assert!(good.status.success(), "{good:?}");
    let output = with(&path);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("FAILED whole group") && said.contains(" bytes differ, the first is byte "), "{said}");
    // It goes on: what else is wrong is told, and what is right is, too.
    let last = said.lines().last().unwrap();
    assert!(said.contains("FAILED pinned host memory") && said.contains("a second context: not the same"), "{said}");
    assert!(!last.starts_with("0 passed") && last.ends_with(" failed") && !last.ends_with(" 0 failed"), "{said}");
    // Of each kind, the first few differences are told and the others counted.
    assert_eq!(said.matches("FAILED range").count(), 3, "{said}");
}

/// A call that fails fails its check, and the others go on; a driver that fails where nothing can go on ends it. Neither says that
/// all is well, and both count.
#[test]
fn check_tells_of_a_driver_that_fails() {
    let folder = library();
    let program = build("tests/gpu/check.c", folder.path());
    let with = |fail: &str| {
        let mut command = on_emulator(&program);
        command.env("DF11_EMULATOR_FAIL", fail).env_remove("DF11_EMULATOR_LEAK_EXIT");
        command.arg("--quick").arg(model("tiny")).output().unwrap()
    };
    let output = with("cuLaunchKernel@9=719");
    let said = stdout(&output);
    assert!(output.status.code() == Some(1) && said.contains("FAILED") && said.contains("(719)"), "{output:?}");
    assert!(said.contains("a second context: the same") && said.trim_end().ends_with(" passed, 1 failed"), "{said}");
    let output = with("cuMemAlloc_v2@20=719");
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("719"), "{output:?}");
    assert!(said.contains("ended early, in: ") && said.trim_end().ends_with(" passed, 1 failed"), "{said}");
}

/// Whoever ends a check that does not come to an end learns in which kind of check it was.
#[test]
fn check_that_is_ended_says_where_it_was() {
    use std::io::{BufRead, BufReader, Read};
    let folder = library();
    let program = build("tests/gpu/check.c", folder.path());
    let mut command = on_emulator(&program);
    command.env_remove("DF11_EMULATOR_LEAK_EXIT").args(["--large", "20000000"]).stdout(std::process::Stdio::piped());
    let mut check = command.spawn().unwrap();
    let mut output = BufReader::new(check.stdout.take().unwrap());
    let mut said = String::new();
    // A signal before the handler is set would tell nothing: the first line comes after it.
    output.read_line(&mut said).unwrap();
    run(Command::new("kill").args(["-TERM", &check.id().to_string()]));
    output.read_to_string(&mut said).unwrap();
    assert_eq!(check.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.trim_end().ends_with("ended from outside, in: uploaded image"), "{said}");
}

#[test]
fn check_without_a_driver_is_skipped() {
    let folder = library();
    let program = build("tests/gpu/check.c", folder.path());
    let output =
        Command::new(&program).env("DF11_LIBCUDA", "/nonexistent/libcuda.so.1").arg(model("tiny")).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing: a CUDA driver"), "{output:?}");
}

/// Starts the benchmark on two sizes, and returns its output and the figures in it.
fn bench(program: &Path, arguments: &[&str]) -> (Output, Vec<serde_json::Value>) {
    let sizes = ["--millions", "0.02,0.007", "--repeats", "1", "--json", "--ceiling", "tests/gpu/ceiling.ptx"];
    let output = on_emulator(program).current_dir(ROOT).args(sizes).args(arguments).output().unwrap();
    let mut figures = Vec::new();
    for line in stdout(&output).lines().filter(|line| line.starts_with('{')) {
        figures.push(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    }
    (output, figures)
}

/// The benchmark compares every answer with the weights before it measures; its times mean nothing here.
#[test]
fn bench_has_right_answers() {
    let folder = library();
    let program = build("tests/gpu/bench.c", folder.path());
    let (output, figures) = bench(&program, &["--reference", "tests/gpu/naive.ptx"]);
    let said = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("7000 weights") && said.contains("host time of a call"), "{said}");
    for what in [
        "copy",
        "ceiling",
        "decode",
        "copygraph",
        "ceilinggraph",
        "graph",
        "tensors",
        "batch",
        "multiply",
        "whole",
        "chunks",
        "range",
        "odd",
        "reference",
        "pinned",
        "host time, decode",
        "host time, batch",
    ] {
        let found = figures.iter().filter(|f| f["what"] == what && f["seconds"].as_f64() > Some(0.0)).count();
        assert_eq!(found, 2, "{what} in {said}");
    }
    let of = |what: &str, key: &str| figures.iter().find(|f| f["what"] == what).unwrap()[key].as_f64();
    assert!(of("decode", "of_copy").is_some() && of("graph", "of_ceiling").is_some(), "{said}");
    assert_eq!(of("ceiling", "of_copy"), None, "{said}");
    // What the driver says about the kernels is there, too.
    let logs = figures.iter().filter(|f| f["what"] == "log").filter_map(|f| f["text"].as_str());
    let logs = logs.collect::<Vec<_>>().join("\n");
    for kernel in ["df11_decode: ", "df11_decode_many: ", "df11_index: "] {
        assert!(logs.contains(kernel), "{logs}");
    }
    assert!(logs.contains(" registers, 0 local bytes") && logs.contains(" blocks a multiprocessor"), "{logs}");
}

/// Products are compared before they are timed, for each number of vectors; odd columns and rows of 16 that are not full are among
/// them. The benchmark does nothing else then.
#[test]
fn bench_multiplies() {
    let folder = library();
    let program = build("tests/gpu/bench.c", folder.path());
    let arguments = ["--products", "64x640,84x1000", "--batches", "1,2,3,8", "--repeats", "1", "--json"];
    let said = stdout(&run(on_emulator(&program).args(arguments)));
    let figures: Vec<serde_json::Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for shape in ["64 x 640", "84 x 1000"] {
        for batch in [1, 2, 3, 8] {
            let what = format!("fused {shape}, batch {batch}");
            assert!(figures.iter().any(|f| f["what"] == what && f["seconds"].as_f64() > Some(0.0)), "{what} in {said}");
        }
        assert!(figures.iter().any(|f| f["what"] == format!("decode {shape}")), "{said}");
    }
    assert!(!said.contains("  copy ") && !said.contains("wrong"), "{said}");
    let output = on_emulator(&program).args(["--products", "6x64"]).output().unwrap();
    assert!(
        output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("multiple of 4"),
        "{output:?}"
    );
}

/// The tensors are measured as tensors, not as the one run that they are where one follows the other.
#[test]
fn bench_measures_what_it_is_asked_for() {
    let folder = library();
    let program = build("tests/gpu/bench.c", folder.path());
    let launches = folder.path().join("launches.json");
    let arguments = ["--millions", "0.007", "--repeats", "1", "--only", "tensors,graph"];
    let said = stdout(&run(on_emulator(&program).env("DF11_EMULATOR_LAUNCHES", &launches).args(arguments)));
    assert!(std::fs::read_to_string(launches).unwrap().contains("df11_decode_many"));
    assert!(said.contains("  tensors ") && said.contains("  graph "), "{said}");
    assert!(!said.contains("  decode ") && !said.contains("  odd ") && !said.contains('{'), "{said}");
}

/// A kernel whose answer is wrong is named and not timed, and costs no other figure. This one writes nothing. The same goes for one
/// that the driver does not take.
#[test]
fn bench_tells_of_a_wrong_kernel_and_goes_on() {
    let folder = library();
    let program = build("tests/gpu/bench.c", folder.path());
    let path = folder.path().join("idle.ptx");
    let idle = ".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry decode(.param .u64 luts, .param .u64 code, \
                .param .u64 signs, .param .u64 positions, .param .u64 gaps, .param .u64 output, .param .u32 tables, \
                .param .u32 bytes, .param .u32 weights)\n{\nret;\n}\n";
    std::fs::write(&path, idle).unwrap();
    let (kernel, none) = (format!("idle={}", path.display()), folder.path().join("none.ptx"));
    std::fs::write(&none, "no kernel").unwrap();
    let (output, figures) = bench(&program, &["--reference", none.to_str().unwrap(), "--kernel", &kernel]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).contains("3 answers or kernels are wrong"), "{output:?}");
    assert!(stdout(&output).contains("the driver does not take "), "{output:?}");
    let of = |what: &str| figures.iter().filter(|f| f["what"] == what).collect::<Vec<_>>();
    let wrong: Vec<u64> = of("idle").iter().filter_map(|f| f["wrong"].as_u64()).collect();
    assert_eq!(wrong, [20_000, 7_000], "{figures:?}");
    assert_eq!(of("pinned").len(), 2, "{figures:?}");
}

/// Every rank of two and of four holds its share, which decodes to slices of the original; three do not divide the heads. Without
/// a device the same is said, but for that.
#[test]
fn ranks_hold_their_shares() {
    let folder = library();
    let program = build("examples/shards.c", folder.path());
    let sharded = model("sharded");
    let lines = |output: &Output| stdout(output).lines().map(str::to_owned).collect::<Vec<_>>();
    for (ranks, share) in [("1", 100.0), ("2", 50.0), ("4", 27.0)] {
        let with = lines(&run(on_emulator(&program).arg(&sharded).args([ranks, "32"])));
        let none = ("DF11_LIBCUDA", "/nonexistent/libcuda.so.1");
        let without = lines(&run(Command::new(&program).env(none.0, none.1).arg(&sharded).args([ranks, "32"])));
        assert_eq!(with.len().to_string(), ranks);
        for (with, without) in with.iter().zip(&without) {
            assert!(with.starts_with(without.as_str()) && with.contains(" in 4 images, "), "{with}\n{without}");
            assert!(with.ends_with(" weights in 16 slices, 16 of them equal to the original"), "{with}");
            let percent: f64 = with.split(" images, ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            // Heads of images weigh more in a model as small as this one.
            assert!(percent >= share && percent < share + 18.0, "{with}");
        }
    }
    let output = on_emulator(&program).arg(&sharded).args(["3", "32"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("cannot be divided evenly among 3 ranks"), "{output:?}");
    assert_eq!(Command::new(&program).arg(&sharded).output().unwrap().status.code(), Some(2));
}

#[test]
fn slots_are_decoded_eagerly_and_in_a_graph() {
    let folder = library();
    let program = build("examples/slots.cc", folder.path());
    let said = stdout(&run(on_emulator(&program).arg(model("sharded"))));
    assert!(said.contains("4 of 4 layers right in an eager pass, 12 of 12 in three replays"), "{said}");
}

#[test]
fn slots_without_a_device_say_so() {
    let folder = library();
    let program = build("examples/slots.cc", folder.path());
    let output = run(Command::new(program).env("DF11_LIBCUDA", "/nonexistent/libcuda.so.1").arg(model("tiny")));
    assert!(stdout(&output).contains("missing: a CUDA device"), "{output:?}");
}

/// Streams a model, without a measurement, and gives what it printed or said.
fn offload(program: &Path, name: &str, settings: &[(&str, &str)]) -> Result<String, String> {
    let mut command = on_emulator(program);
    command.env_remove("DF11_EMULATOR_LEAKS").envs(settings.iter().copied());
    let output = command.arg(model(name)).args(["--rounds", "0"]).output().unwrap();
    if output.status.success() { Ok(stdout(&output)) } else { Err(format!("{output:?}")) }
}

#[test]
fn offload_streams_every_group_right() {
    let folder = library();
    let program = build("examples/offload.cc", folder.path());
    for (name, groups) in [("tiny", 1), ("sharded", 4), ("block", 4), ("edge", 34)] {
        let right = format!("{groups} of {groups} groups right");
        for seed in ["0", "1", "2", "3", "4", "5"] {
            let said = offload(&program, name, &[("DF11_EMULATOR_SEED", seed)]).unwrap();
            assert!(said.contains(&right), "{said}");
        }
        let said = offload(&program, name, &[("DF11_EMULATOR_EAGER", "1")]).unwrap();
        assert!(said.contains(&right), "{said}");
    }
    // With its measurement, whose times mean nothing here.
    let said = stdout(&run(on_emulator(&program).arg(model("sharded")).args(["--rounds", "2"])));
    assert!(said.contains("streamed and decoded: ") && said.contains("copied as they are: "), "{said}");
}

/// Each of the four waits is needed: without it there is an order of the streams' work in which weights come out wrong. The
/// driver leaves out every fourth call of `cuStreamWaitEvent`, from one of the first four on, and says that all is well.
#[test]
fn offload_needs_each_of_its_waits() {
    let folder = library();
    // The program as it is waits for the compute stream, so that the other two run no further than that needs. A host that
    // waits for those first lets them run ahead, as a device may.
    let as_it_is = build("examples/offload.cc", folder.path());
    let source = std::fs::read_to_string("examples/offload.cc").unwrap();
    let ahead = source.replace(
        "        last.synchronise();",
        "        copy_.synchronise();\n        decode_.synchronise();\n        last.synchronise();",
    );
    assert_ne!(ahead, source, "the example has no such line any more");
    let path = folder.path().join("ahead.cc");
    std::fs::write(&path, ahead).unwrap();
    let ahead = build(path.to_str().unwrap(), folder.path());
    for program in [&as_it_is, &ahead] {
        assert!(offload(program, "sharded", &[]).unwrap().contains("4 of 4 groups right"));
        assert!(offload(program, "edge", &[]).unwrap().contains("34 of 34 groups right"));
    }
    let waits = [("emptied", &ahead), ("arrived", &as_it_is), ("used", &ahead), ("decoded", &as_it_is)];
    for (place, (wait, program)) in waits.into_iter().enumerate() {
        for (name, groups) in [("sharded", 4), ("edge", 34)] {
            let rules: Vec<String> =
                (0..groups).map(|i| format!("cuStreamWaitEvent@{}=0", 4 * i + place + 1)).collect();
            let result = offload(program, name, &[("DF11_EMULATOR_FAIL", &rules.join(","))]);
            let said = result.expect_err(&format!("{name} comes out right without the wait for `{wait}`"));
            assert!(said.contains("groups right") || said.contains("the device reports CORRUPT"), "{wait}: {said}");
        }
    }
}

#[test]
fn offload_without_a_device_says_so() {
    let folder = library();
    let program = build("examples/offload.cc", folder.path());
    let mut command = Command::new(program);
    let output = command.env("DF11_LIBCUDA", "/nonexistent/libcuda.so.1").arg(model("tiny")).output().unwrap();
    assert!(output.status.code() == Some(77) && stdout(&output).contains("missing: a CUDA device"), "{output:?}");
}

#[test]
fn the_example_takes_the_device_where_there_is_one() {
    let folder = library();
    let program = build("examples/decompress.c", folder.path());
    let original = model("block").parent().unwrap().join("original.safetensors");
    let said = stdout(&run(on_emulator(&program).arg(model("block")).arg(&original)));
    assert!(said.contains("on the device:") && said.contains("21 of 21 tensors equal the original"), "{said}");

    let mut cpu = Command::new(&program);
    cpu.arg("--cpu").arg(model("block")).arg(&original);
    let said = stdout(&run(&mut cpu));
    assert!(said.contains("on the CPU") && said.contains("21 of 21 tensors equal the original"), "{said}");
    let mut without = Command::new(&program);
    without.env("DF11_LIBCUDA", "/nonexistent/libcuda.so.1").arg(model("block")).arg(&original);
    assert!(stdout(&run(&mut without)).contains("on the CPU"));
    // A device that the kernels do not run on is no reason to give up.
    let old = run(on_emulator(&program).env("DF11_EMULATOR_CC", "70").arg(model("block")).arg(&original));
    assert!(stdout(&old).contains("on the CPU"), "{old:?}");
    assert!(String::from_utf8_lossy(&old.stderr).contains("7.5 is the oldest"), "{old:?}");
}

/// The order, limits, budget and files of `run.py`, on a machine that is made up, in no time.
#[test]
fn the_budget_of_a_gpu_run_holds() {
    let output = Command::new("python3").current_dir(ROOT).arg("tests/gpu/run_test.py").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim_end().ends_with("OK"), "{said}");
}

/// Writes a program that other programs find by its name.
fn tool(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn report_of(out: &Path) -> serde_json::Value {
    let mut files: Vec<_> = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["gpu.json", "report.txt"]);
    serde_json::from_slice(&std::fs::read(out.join("gpu.json")).unwrap()).unwrap()
}

/// The whole run for a GPU, on the emulator: every program from the bundle, found there and linked there, in the order of
/// `run.py`, with another build of the library beside it. The tools of NVIDIA are scripts that start the program they are given.
#[test]
fn the_bundle_runs_from_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let library = library();
    let built = library.path().join("libdf11.so");
    run(Command::new("tests/gpu/bundle.sh")
        .current_dir(ROOT)
        .arg(&built)
        .arg(folder.path().join("df11-gpu.tar.gz"))
        .arg(format!("k1={}", built.display())));
    run(Command::new("tar").current_dir(folder.path()).args(["xzf", "df11-gpu.tar.gz"]));
    let bundle = folder.path().join("df11-gpu");
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let starts = "while [ ! -x \"$1\" ]; do shift; done\necho \"${0##*/} starts ${1##*/}\"\nexec \"$@\"";
    tool(&tools, "ncu", starts);
    tool(&tools, "compute-sanitizer", starts);
    tool(
        &tools,
        "nvidia-smi",
        "echo GPU, 580.1, P0, 1980 MHz, 3201 MHz, 1980 MHz, 3201 MHz, 40, 120.00 W, 700.00 W, '0 %'",
    );
    let start = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.current_dir(folder.path()).arg(bundle.join("run.py")).args([
            "--models",
            "tiny,sharded",
            "--large",
            "20000",
            "--products",
            "64x640",
        ]);
        command.args(["--millions", "0.02,0.007", "--repeats", "1", "--reference"]);
        command.arg(Path::new(ROOT).join("tests/gpu/naive.ptx")).args(arguments);
        command.env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()));
        command.env("DF11_LIBCUDA", engine::library());
        command
    };
    let out = folder.path().join("results");
    let said = stdout(&run(start(&["--out"]).arg(&out)));
    let report = report_of(&out);
    assert_eq!(std::fs::read_to_string(out.join("report.txt")).unwrap(), said);
    assert_eq!(report["complete"], true);
    let steps = report["steps"].as_array().unwrap();
    let optional = ["products, PyTorch", "PyTorch", "nvCOMP", "NWC", "SplitZip"];
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "quick check",
            "benchmark",
            "benchmark, PTX",
            "products",
            "products, PyTorch",
            "ncu",
            "benchmark, k1",
            "PyTorch",
            "check",
            "check, eager loading",
            "check, beside a capture",
            "check, parts of the device",
            "check, PTX",
            "nvCOMP",
            "NWC",
            "SplitZip",
            "compute-sanitizer, memcheck",
            "compute-sanitizer, racecheck",
            "compute-sanitizer, initcheck",
            "compute-sanitizer, synccheck",
            "offload, sharded",
            "offload, tiny",
        ]
    );
    for step in steps.iter().filter(|step| !optional.contains(&step["step"].as_str().unwrap())) {
        assert_eq!(step["result"], "passed", "{step} in {said}");
    }
    assert!(said.contains("ncu starts bench") && said.contains("compute-sanitizer starts check"), "{said}");
    assert!(said.contains(" passed, 0 failed, ") && said.contains(", 0 left out"), "{said}");
    assert!(steps.iter().any(|step| step["checks"]["passed"].as_u64() > Some(100)), "{report}");
    // Figures of each benchmark, what the driver says of the kernels, and the clocks.
    for (step, what) in [("benchmark", "reference"), ("benchmark, PTX", "decode"), ("benchmark, k1", "graph")] {
        let found = report["figures"].as_array().unwrap().iter().any(|f| f["step"] == step && f["what"] == what);
        assert!(found, "{step}, {what} in {report}");
        assert!(report["device"][step]["kernels"] == "PTX", "{report}");
        // Each has found its own build of the library.
        let folder = if step == "benchmark, k1" { "lib/k1/" } else { "lib/" };
        let expected = bundle.join(folder).join("libdf11.so");
        let found = report["device"][step]["library"].as_str().unwrap();
        assert!(found.starts_with(expected.to_str().unwrap()), "{found} instead of {}", expected.display());
    }
    let kernels = report["kernels"].as_array().unwrap();
    assert!(kernels.iter().any(|k| k["function"] == "df11_decode" && k["registers"].as_i64() > Some(0)), "{report}");
    assert!(kernels.iter().any(|k| k["blocks_a_multiprocessor"].as_i64() > Some(0)), "{report}");
    assert_eq!(report["clocks"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(report["clocks"][1]["power.draw"], "120.00 W", "{report}");

    // Where nothing could run, nothing has passed: that is no success, and says what is missing.
    let out = folder.path().join("none");
    let output = start(&["--only", "quick,bench,check", "--out"])
        .arg(&out)
        .env("DF11_LIBCUDA", "/nonexistent/libcuda.so.1")
        .output()
        .unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("skipped, missing: a CUDA driver") && said.contains("0 passed, 0 failed, 3 skipped"),
        "{said}"
    );
    report_of(&out);
    // A budget that is over leaves everything out, by name.
    let out = folder.path().join("over");
    let output = start(&["--budget", "0", "--out"]).arg(&out).output().unwrap();
    let said = stdout(&output);
    assert!(output.status.code() == Some(1) && said.contains("benchmark, PTX: left out, 0 seconds"), "{said}");
    report_of(&out);
}

/// Divides a model among devices, and gives what the program printed or said.
fn devices(program: &Path, model: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Result<String, String> {
    let mut command = on_emulator(program);
    command.env("DF11_EMULATOR_DEVICES", "8").envs(settings.iter().copied());
    let output = command.arg(model).args(arguments).output().unwrap();
    if output.status.success() { Ok(stdout(&output)) } else { Err(format!("{output:?}")) }
}

#[test]
fn a_token_walks_over_many_devices() {
    let folder = library();
    let program = build("examples/devices.cc", folder.path());
    for (name, groups) in [("tiny", 1), ("sharded", 4), ("edge", 34)] {
        for (count, seed, peers) in [("1", "1", "0"), ("2", "2", "1"), ("8", "0", "1"), ("64", "3", "0")] {
            let settings = [("DF11_EMULATOR_SEED", seed), ("DF11_EMULATOR_PEERS", peers)];
            let said = devices(&program, &model(name), &["--devices", count], &settings).unwrap();
            assert!(said.contains(&format!("{groups} of {groups} layers right in a walk")), "{said}");
            let moved =
                said.contains(&format!("{groups} of {groups} layers right after the first has moved to device"));
            assert_eq!(moved, count != "1", "{said}");
            assert_eq!(said.contains("from device to device"), peers == "1" || count == "1", "{said}");
        }
    }
    // Two slots and the images are more than the device has.
    let error = devices(&program, &model("sharded"), &[], &[("DF11_EMULATOR_MEMORY", "100K")]).unwrap_err();
    assert!(error.contains("device 0 has ") && error.contains(" bytes free and needs "), "{error}");
}

/// Each of the three waits is needed: without it there is an order of the streams' work in which something comes out wrong.
#[test]
fn devices_need_each_of_their_waits() {
    let folder = library();
    let source = std::fs::read_to_string("examples/devices.cc").unwrap();
    // The host that waits in another order lets other streams run ahead, as devices may.
    let ahead = source.replace(
        "        std::vector<unsigned char> activations(activation_bytes());\n",
        "        std::vector<unsigned char> activations(activation_bytes());\n        for (const auto &device : devices_) {\n            CUDA(cuCtxSetCurrent(device->context));\n            CUDA(cuStreamSynchronize(device->decode));\n        }\n        for (auto device = devices_.rbegin(); device != devices_.rend(); ++device) {\n            CUDA(cuCtxSetCurrent((*device)->context));\n            CUDA(cuStreamSynchronize((*device)->compute));\n        }\n",
    );
    assert_ne!(ahead, source, "the example has no such line any more");
    for (wait, line) in [
        ("used", "            wait(device.decode, slot.used);\n"),
        ("done", "                wait(device.compute, at->done);\n"),
        ("decoded", "            wait(device.compute, slot.decoded);\n"),
    ] {
        assert!(ahead.contains(line), "the example has no wait for `{wait}` any more");
        let path = folder.path().join(format!("without_{wait}.cc"));
        std::fs::write(&path, ahead.replace(line, "")).unwrap();
        let program = build(path.to_str().unwrap(), folder.path());
        let error = devices(&program, &model("edge"), &["--devices", "3"], &[])
            .expect_err(&format!("everything comes out right without the wait for `{wait}`"));
        assert!(error.contains("layers right") || error.contains("a device reports CORRUPT"), "{wait}: {error}");
    }
    let path = folder.path().join("with_all.cc");
    std::fs::write(&path, ahead).unwrap();
    let program = build(path.to_str().unwrap(), folder.path());
    devices(&program, &model("edge"), &["--devices", "3"], &[]).unwrap();
}

/// Llama-3.1-405B over eight devices of 80 GB: files and devices are mostly holes, of each layer both ends are decoded.
#[test]
fn a_405b_model_fits_eight_devices_of_80_gb() {
    let folder = library();
    let program = build("examples/devices.cc", folder.path());
    let large = tempfile::tempdir().unwrap();
    hollow::write_model(large.path(), sparse::Dense::named("Llama-3.1-405B"));
    let settings = [("DF11_EMULATOR_MEMORY", "80G"), ("DF11_EMULATOR_SPARSE", "64M"), ("DF11_EMULATOR_PEERS", "1")];
    let said = devices(&program, large.path(), &["--sample"], &settings).unwrap();
    println!("{said}");
    assert!(
        said.contains("128 of 128 layers right in a walk over 8 devices, activations from device to device"),
        "{said}"
    );
    assert!(said.contains("128 of 128 layers right after the first has moved to device 7"), "{said}");
    let images: Vec<f64> = said
        .lines()
        .take(8)
        .map(|line| line.split_once(" GB of images").unwrap().0.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(images.iter().all(|&gb| (60.0..75.0).contains(&gb)), "{said}");
    // Seven devices have no room for it.
    let error = devices(&program, large.path(), &["--sample", "--devices", "6"], &settings).unwrap_err();
    assert!(error.contains("bytes free and needs"), "{error}");
}

/// Products from chunks, from whole matrices and from bf16, all with the bits that the host calculates.
#[test]
fn products_from_chunks_are_those_of_whole_matrices() {
    let folder = library();
    let program = build("examples/chunks.cc", folder.path());
    let right = "products from chunks: right in three launches of one graph; from whole matrices and bf16: right";
    // A row at a time, chunks that end within a matrix, and a third of the L2, which is more than any of these matrices.
    for (name, matrices) in [("tiny", 1), ("block", 16), ("sharded", 16), ("edge", 4)] {
        for chunk in ["1", "20000", "0"] {
            if name == "block" && chunk == "1" {
                continue;
            }
            let arguments = ["--rounds", "0", "--chunk-bytes", chunk];
            let said = stdout(&run(on_emulator(&program).arg(model(name)).args(arguments)));
            assert!(said.contains(right) && said.contains(&format!("{matrices} matrices")), "{name}, {chunk}: {said}");
        }
    }
    // With its measurement, whose times mean nothing here.
    let said = stdout(&run(on_emulator(&program).arg(model("sharded")).args(["--rounds", "1"])));
    assert!(said.contains("an L2 of 4194304") && said.contains("times the time of bf16"), "{said}");

    // A product that is wrong in one bit of one weight of eight is found.
    let source = std::fs::read_to_string("examples/multiply_kernel.h").unwrap();
    let spoilt = source.replacen("and.b32 %r14, %r13, 0xffff0000;", "and.b32 %r14, %r13, 0xfffe0000;", 1);
    assert_ne!(spoilt, source, "the kernel has no such line any more");
    std::fs::write(folder.path().join("multiply_kernel.h"), spoilt).unwrap();
    let path = folder.path().join("spoilt.cc");
    std::fs::copy("examples/chunks.cc", &path).unwrap();
    let program = build(path.to_str().unwrap(), folder.path());
    let output = on_emulator(&program).arg(model("tiny")).args(["--rounds", "0"]).output().unwrap();
    assert!(output.status.code() == Some(1) && stdout(&output).contains("chunks: WRONG"), "{output:?}");
    let mut without = Command::new(&program);
    let output = without.env("DF11_LIBCUDA", "/nonexistent/libcuda.so.1").arg(model("tiny")).output().unwrap();
    assert!(output.status.code() == Some(77) && stdout(&output).contains("missing: a CUDA device"), "{output:?}");
}
