//! Planned failures, counts, the reports at exit, and libraries that lack a symbol.

use std::ffi::CString;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::*;

#[test]
fn any_entry_point_fails_as_told() {
    let (_turn, _) = with_context(&[]);
    control("fail", "cuMemAlloc_v2@2=2,cuStreamCreate@1+=913");
    let a: u64 = get!(cuMemAlloc_v2(16));
    fails!(2, cuMemAlloc_v2(&mut 0, 16));
    ok!(cuMemFree_v2(get!(cuMemAlloc_v2(16))));
    for _ in 0..3 {
        fails!(913, cuStreamCreate(&mut 0, 1));
    }
    assert_eq!((query("failed.cuStreamCreate"), query("failed"), query("live.streams")), (3, 4, 0));
    control("unfail", "");
    ok!(cuStreamDestroy_v2(stream()));
    // What releases does so, and then fails.
    control("fail", "cuMemFree_v2=700,cuDevicePrimaryCtxRelease_v2=999");
    fails!(700, cuMemFree_v2(a));
    assert_eq!(query("live.allocations"), 0);
    fails!(999, cuDevicePrimaryCtxRelease_v2(0));
    assert_eq!(query("leaked"), 0);
}

#[test]
fn every_entry_point_can_be_told_to_fail() {
    let _turn = fresh(&[]);
    let names: Vec<String> = text("entries").lines().map(String::from).collect();
    assert!(names.len() > 150, "{}", names.len());
    for name in &names {
        control("fail", &format!("{name}=812"));
    }
    // Those without pointers can be called with nothing at all; they stand for the rest, which go the same way.
    fails!(812, cuInit(0));
    fails!(812, cuCtxSynchronize());
    fails!(812, cuProfilerStart());
    fails!(812, cuCtxPopCurrent_v2(std::ptr::null_mut()));
    fails!(812, cuGetErrorName(0, std::ptr::null_mut()));
}

#[test]
fn calls_and_launches_are_counted() {
    let (_turn, _) = with_context(&[]);
    let (f, p) = (add(), words([0; 4]));
    control("clear", "calls");
    for _ in 0..3 {
        assert_eq!(launch_add(f, p, 1, 4, 0), 0);
    }
    ok!(cuCtxSynchronize());
    assert_eq!((query("calls.cuLaunchKernel"), query("calls.cuCtxSynchronize"), query("calls")), (3, 1, 4));
    assert_eq!((query("calls.cuMemAlloc_v2"), query("launches"), query("launch.1.block")), (0, 3, 4));
    assert_eq!(query("total.instructions"), 3 * query("launch.0.instructions"));
    // Four lanes of 4 bytes each are in one sector of 32 bytes.
    assert_eq!((query("last.sectors_read"), query("last.sectors_written")), (1, 1));
    let lines = text("launches");
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.starts_with("{\"kernel\":\"add\",\"grid\":[1, 1, 1],\"block\":[4, 1, 1]"), "{lines}");
    control("clear", "launches");
    assert_eq!(query("launches") + query("total.instructions"), 0);
}

#[test]
fn unknown_keys_are_said_to_be_so() {
    let _turn = fresh(&[]);
    for key in ["nothing", "live.cats", "launch.0.instructions", "total.cats", "launch.x.y"] {
        let key = CString::new(key).unwrap();
        // SAFETY: a text.
        assert_eq!(unsafe { df11_emulator_query(key.as_ptr()) }, u64::MAX, "{key:?}");
    }
    for (key, value) in [(c"nothing", c"1"), (c"cc", c"x"), (c"fail", c"x"), (c"clear", c"x")] {
        // SAFETY: two texts.
        assert_eq!(unsafe { df11_emulator_control(key.as_ptr(), value.as_ptr()) }, -1, "{key:?}");
    }
}

/// Returns the shared library that cargo built with these tests.
fn library() -> PathBuf {
    let path = std::env::current_exe().unwrap().parent().unwrap().join("libdf11_emulator.so");
    assert!(path.exists(), "{} is missing: cargo builds it with the tests", path.display());
    path
}

/// Compiles `driver.c` once, and runs it on a library.
fn c_program(library: &std::path::Path, mode: &str, variables: &[(&str, &str)]) -> Output {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/driver.c");
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("df11-emulator-c-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("driver");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"])
        .arg(&program)
        .args([source, "-ldl"])
        .output()
        .expect("a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut command = Command::new(&program);
    command.arg(library).arg(mode);
    for (name, value) in variables {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    output
}

#[test]
fn a_c_program_finds_and_uses_what_it_needs() {
    let output = c_program(&library(), "use", &[]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.ends_with("well\n"), "{out}{err}");
}

#[test]
fn the_environment_poses_and_reports() {
    let folder = std::env::temp_dir().join(format!("df11-emulator-leaks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (leaks, launches) = (folder.join("leaks"), folder.join("launches"));
    let variables = [
        ("DF11_EMULATOR_LEAKS", leaks.to_str().unwrap()),
        ("DF11_EMULATOR_LEAK_EXIT", "77"),
        ("DF11_EMULATOR_LAUNCHES", launches.to_str().unwrap()),
    ];
    let output = c_program(&library(), "use", &variables);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(&leaks).unwrap(), "nothing leaked\n");
    let lines = std::fs::read_to_string(&launches).unwrap();
    assert!(lines.lines().count() == 1 && lines.contains("\"instructions\":"), "{lines}");
    let output = c_program(&library(), "leak", &variables);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("leaking\n"), "C streams are flushed: {output:?}");
    let report = std::fs::read_to_string(&leaks).unwrap();
    for line in ["leaked retains: 1\n", "leaked streams: 1\n", "leaked allocations: 1\n", "Device 24 bytes at"] {
        assert!(report.contains(line), "{report}");
    }
    // The pose of the environment, a failure planned there, and nonsense.
    let output = c_program(&library(), "use", &[("DF11_EMULATOR_FAIL", "cuMemAlloc_v2@1=2")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cuMemAlloc_v2: 2"), "{output:?}");
    let output = c_program(&library(), "use", &[("DF11_EMULATOR_CC", "new")]);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_copy_of_the_library_can_lack_symbols() {
    let copy = std::env::temp_dir().join(format!("df11-emulator-{}.so", std::process::id()));
    without_symbols(&library(), &copy, &["cuLaunchKernel"]).unwrap();
    let output = c_program(&copy, "use", &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("no cuLaunchKernel\n"), "{output:?}");
    without_symbols(&library(), &copy, &["cuDeviceGetUuid"]).unwrap();
    assert!(c_program(&copy, "use", &[]).status.success(), "a symbol that it does not ask for");
    assert!(without_symbols(&library(), &copy, &["cuNoSuchThing"]).is_err());
    std::fs::remove_file(copy).unwrap();
}
