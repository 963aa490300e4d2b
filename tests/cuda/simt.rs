//! The kernels' source, compiled as C++ and run by threads that are fibers (`tests/simt`): every bit of golden and
//! made-up groups under AddressSanitizer and UBSan, spoilt images too; and under ThreadSanitizer, with every barrier,
//! where nothing may be found, and with one barrier left out, where something must.
//!
//! Needs a C++ compiler (`CXX`, else `c++`) with its sanitizers. No CUDA is needed, and none is tested: what the
//! shipped machine code does is for the emulator and for GPUs.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image::{self, ImageLayout};
use df11::{Model, OpenOptions, Progress};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use support::encoder::{self, Encoded};
use support::{golden, weights};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Barriers in the kernels: they are numbered from 1 on.
const BARRIERS: u32 = 10;

/// The folder of the cases until the tests end.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// Writes what `check` reads of one group: its image, gaps, positions and weights.
fn write_case(name: &str, model: &Model, group: usize, gaps: &[u8], positions: &[u8]) -> PathBuf {
    let info = model.group(group).unwrap();
    let mut image = vec![0; ImageLayout::of(info).unwrap().image_bytes as usize];
    model.group(group).unwrap().write_image(&mut image, 1).unwrap_or_else(|e| panic!("{name}: {e}"));
    let want = image::decode(&image, 0, info.element_count()).unwrap();
    assert!(want.good, "{name}");
    let mut bytes = Vec::new();
    for size in [image.len(), gaps.len(), positions.len() / 4] {
        bytes.extend((size as u64).to_le_bytes());
    }
    for part in [&image, gaps, positions] {
        bytes.extend(part);
    }
    bytes.extend(want.weights.iter().flat_map(|w| w.to_le_bytes()));
    let path = FOLDER.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Writes a case of a linear image: of odd shapes, with escapes everywhere.
fn write_linear() -> PathBuf {
    let mut random = weights::Random::new(2);
    let some = weights::gaussian(40_000, 0.02, 3);
    let some: Vec<u16> =
        some.into_iter().map(|w| if random.below(50) == 0 { random.bits() as u16 & 0xbfff } else { w }).collect();
    let (shapes, splits) = ([(1, 1), (17, 65), (150, 130), (0, 0)], [1, 1 + 17 * 65, 20_606]);
    let file = encoder::safetensors(&encoder::group_tensors("g", &encoder::encode(&some, &splits)), None);
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    let plan = model.group(0).unwrap().linear(&shapes, 1, &Progress::new()).unwrap();
    let mut image = vec![0; plan.head().image_bytes() as usize];
    plan.write_image(&mut image, 1, &Progress::new()).unwrap();
    let mut bytes = Vec::new();
    for size in [image.len() as u64, 0, 0] {
        bytes.extend(size.to_le_bytes());
    }
    bytes.extend(image);
    bytes.extend(some.iter().flat_map(|w| w.to_le_bytes()));
    let path = FOLDER.path().join("linear");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn write_encoded(name: &str, encoded: &Encoded) -> PathBuf {
    let file = encoder::safetensors(&encoder::group_tensors("g", encoded), None);
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    write_case(name, &model, 0, &encoded.gaps, &encoded.output_positions)
}

/// Every group of the reference's files.
static GOLDEN: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let mut cases = Vec::new();
    for name in golden::NAMES {
        let model = Model::open(golden::model(name), &OpenOptions::default()).unwrap();
        let raw = golden::raw(name);
        for (number, group) in model.groups().enumerate() {
            let member = |member: &str| &raw[&format!("{}.{member}", group.name())];
            let case = format!("{name}_{number}");
            cases.push(write_case(&case, &model, number, member("gaps"), member("output_positions")));
        }
    }
    cases
});

/// Groups at the edges of the format and of the kernels.
static MADE_UP: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let mut cases = vec![write_linear()];
    for n in [1, 2, 7, 8, 9, 103, 104, 105, 207, 3326, 3327, 3328, 3329, 6656, 6657, 10_000, 50_003] {
        cases.push(write_encoded(
            &format!("gaussian_{n}"),
            &encoder::encode(&weights::gaussian(n, 0.02, n as u64), &[]),
        ));
    }
    // Codes of one bit: blocks of 32,768 weights.
    cases.push(write_encoded("one_bit", &encoder::encode(&weights::one_bit(70_001, 120, 1), &[])));
    cases.push(write_encoded("constant", &encoder::encode(&weights::constant(40_000, 0x3f80), &[])));
    // Tiles wider than what is staged, and codes of up to 32 bits.
    cases.push(write_encoded("uniform", &encoder::encode(&weights::uniform_exponents(30_000, 0..=239, 2), &[])));
    cases.push(write_encoded("long_codes", &encoder::encode(&weights::fibonacci(24, 3), &[])));
    // Tiles of more than 65,536 bits, whose lanes' starts wrap: what is frequent has the long codes.
    let lengths: Vec<(u8, u32)> = (1..=31).map(|len| (100 + len as u8, len)).chain([(140, 32)]).collect();
    let codes = encoder::canonical(&lengths, 32);
    for (name, exponents) in [("wraps", 126..=131), ("wraps_often", 131..=131), ("jagged", 101..=131)] {
        let weights = weights::uniform_exponents(20_011, exponents, 4);
        cases.push(write_encoded(name, &encoder::encode_with_codes(&weights, &[], &codes)));
    }
    cases
});

fn compiler() -> Command {
    Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn compile(options: &[&str], source: &str, out: &Path) {
    let output = compiler()
        .current_dir(ROOT)
        .args(["-std=c++17", "-g", "-c", "-Wall", "-Wextra", "-Werror", "-Wno-parentheses", "-Wno-unknown-pragmas"])
        // A warp without a tile loads none, which compilers do not always see.
        .args(["-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"])
        .args(["-Ikernels", "-Itests/simt"])
        .args(options)
        .arg(source)
        .arg("-o")
        .arg(out)
        .output()
        .expect("missing: a C++ compiler");
    assert!(output.status.success(), "{options:?}\n{}", text(&output));
}

/// Builds the checking program, instrumented.
fn build(name: &str, sanitizers: &str) -> PathBuf {
    let at = |suffix: &str| FOLDER.path().join(format!("{name}{suffix}"));
    let sanitize = format!("-fsanitize={sanitizers}");
    compile(&["-O1", &sanitize, "-fno-sanitize-recover=all"], "tests/simt/check.cpp", &at(".check.o"));
    // The scheduler's own memory is shared between fibers on purpose.
    let scheduler = if sanitizers == "thread" { ["-O2", "-DSIMT_TSAN"] } else { ["-O2", &sanitize] };
    compile(&scheduler, "tests/simt/simt.cpp", &at(".simt.o"));
    let program = at("");
    let output = compiler().args([&sanitize, "-o"]).args([&program, &at(".check.o"), &at(".simt.o")]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    program
}

fn run(program: &Path, arguments: &[&str], cases: &[PathBuf]) -> Output {
    let with = |command: &mut Command| {
        command.args(arguments).args(cases).env("TSAN_OPTIONS", "halt_on_error=1").output().unwrap()
    };
    let output = with(&mut Command::new(program));
    // Older ThreadSanitizers want addresses that are less random than newer kernels make them.
    if text(&output).contains("unexpected memory mapping") {
        return with(Command::new("setarch").arg("-R").arg(program));
    }
    output
}

/// Runs to the end, without a difference and without a report.
fn passes(output: &Output) {
    let text = text(output);
    println!("{text}");
    assert!(output.status.success() && text.contains(" 0 failures"), "{}\n{text}", output.status);
}

static ADDRESSES: LazyLock<PathBuf> = LazyLock::new(|| build("addresses", "address,undefined"));
static RACES: LazyLock<PathBuf> = LazyLock::new(|| build("races", "thread"));

#[test]
fn golden_groups_decode_to_the_bit() {
    passes(&run(&ADDRESSES, &["all"], &GOLDEN));
}

#[test]
fn made_up_groups_decode_to_the_bit() {
    passes(&run(&ADDRESSES, &["all"], &MADE_UP));
}

#[test]
fn spoilt_images_are_never_left() {
    passes(&run(&ADDRESSES, &["fuzz", "40"], &MADE_UP));
    let small: Vec<PathBuf> =
        GOLDEN.iter().filter(|case| std::fs::metadata(case).unwrap().len() < 400_000).cloned().collect();
    assert!(small.len() > 10);
    passes(&run(&ADDRESSES, &["fuzz", "20"], &small));
}

/// Among them tiles that are staged and tiles that are wide, several a warp, and blocks of code, several a block of
/// threads.
fn cases_for_races() -> Vec<PathBuf> {
    let named = |name: &str| MADE_UP.iter().find(|case| case.ends_with(name)).unwrap().clone();
    vec![named("gaussian_50003"), named("wraps"), named("linear")]
}

#[test]
fn no_thread_races_with_another() {
    passes(&run(&RACES, &["brief"], &cases_for_races()));
}

#[test]
fn every_barrier_is_needed() {
    let mut numbers = Vec::new();
    for file in ["platform.cuh", "decode.cuh", "index.cuh", "linear.cuh", "decode.cu"] {
        let source = std::fs::read_to_string(Path::new(ROOT).join("kernels").join(file)).unwrap();
        if file != "platform.cuh" {
            assert!(!source.contains("__sync"), "{file} has a barrier without a number");
            let calls = source.split("DF11_SYNC_").skip(1).map(|rest| rest.split(['(', ')']).nth(1).unwrap());
            numbers.extend(calls.map(|number| number.parse::<u32>().unwrap()));
        }
    }
    numbers.sort();
    assert_eq!(numbers, (1..=BARRIERS).collect::<Vec<_>>());
    for number in numbers {
        let output = run(&RACES, &["without", &number.to_string()], &cases_for_races());
        let text = text(&output);
        let caught = text.contains("ThreadSanitizer: data race") || text.contains("differs") || text.contains("other ");
        assert!(!output.status.success() && caught, "nobody misses barrier {number}\n{text}");
    }
}
