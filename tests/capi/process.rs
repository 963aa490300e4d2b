//! What the library does to the process that it lives in, which is nothing: no thread, descriptor or signal handler is there
//! after a call that was not there before.
//!
//! Threads and descriptors are counted for the whole process, so the test runs in one of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "texts end in a zero, options and outputs live for the call")]

use crate::support;

use df11::internals::capi::*;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use support::abi::{init, large, no_error, said, text};
use support::alone::alone;
use support::files;
use support::golden;

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Threads of this process. The system shows one for a moment after it has been joined.
fn threads_become(want: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while entries("/proc/self/task") != want && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    entries("/proc/self/task") == want
}

/// Which signals this thread blocks, and which the process ignores and catches, as the system has it.
fn signals() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let is_one = |line: &&str| ["SigBlk:", "SigIgn:", "SigCgt:"].iter().any(|name| line.starts_with(name));
    let lines: Vec<String> = status.lines().filter(is_one).map(str::to_owned).collect();
    assert_eq!(lines.len(), 3);
    lines
}

fn open(path: &CStr, flags: u32) -> *mut df11_model {
    let (mut model, mut error) = (null_mut(), no_error());
    let options = df11_open_options { flags, threads: 4, ..init() };
    unsafe { df11_model_open(path.as_ptr(), &options, &mut model, &mut error) };
    assert_eq!(error.status, DF11_OK, "{}", said(&error));
    model
}

/// Every kind of call that may start threads, and one that fails.
fn work(path: &CStr, original: &CStr, scratch: &Path) {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let model = open(path, DF11_OPEN_VERIFY);
    let mut info: df11_group_info = init();
    let verify = df11_verify_options { threads: 4, ..init() };
    let to = text(&scratch.join(MADE.fetch_add(1, SeqCst).to_string()));
    let compress = df11_compress_options { threads: 4, pattern_json: c"{\"g\": [\"a\", \"b\"]}".as_ptr(), ..init() };
    unsafe {
        assert_eq!(df11_model_get_group_info(model, 0, &mut info, null_mut()), DF11_OK);
        let n = info.element_count;
        let mut room = vec![0u16; n as usize];
        assert_eq!(
            df11_model_decompress(model, 0, 0, n, room.as_mut_ptr().cast(), 2 * n as usize, 4, null_mut()),
            DF11_OK
        );
        assert_eq!(df11_verify_model(path.as_ptr(), original.as_ptr(), &verify, null_mut()), DF11_OK);
        assert_eq!(df11_compress_model(original.as_ptr(), to.as_ptr(), &compress, null_mut()), DF11_OK);
        assert_eq!(df11_compress_model(path.as_ptr(), to.as_ptr(), &compress, null_mut()), DF11_INVALID_ARGUMENT);
        let mut packed: df11_packed_group = init();
        assert_eq!(df11_compress_group(&room.as_ptr().cast(), &n, 1, 4, &mut packed, null_mut()), DF11_OK);
        df11_model_free(model);
    }
}

#[test]
fn threads_descriptors_and_signals_are_as_they_were() {
    alone!();
    // Before the first call: some could be changed by that one alone.
    let signals_before = signals();
    calls_leave_nothing();
    assert_eq!(signals(), signals_before);
    files_that_are_read_keep_a_descriptor_each();
}

fn calls_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, original) = large(folder.path());
    let before = (entries("/proc/self/task"), entries("/proc/self/fd"));
    for _ in 0..3 {
        work(&path, &original, folder.path());
        assert!(threads_become(before.0), "{} threads are left", entries("/proc/self/task"));
        assert_eq!(entries("/proc/self/fd"), before.1);
    }
}

/// A file that is read keeps one descriptor open, one that is mapped none, and one that is refused none either.
fn files_that_are_read_keep_a_descriptor_each() {
    let (path, before) = (text(&golden::model("sharded")), entries("/proc/self/fd"));
    let files = files::golden_files("sharded").len();
    for (flags, open_files) in [(0, 0), (DF11_OPEN_READ, files), (DF11_OPEN_READ | DF11_OPEN_VERIFY, files)] {
        let model = open(&path, flags);
        assert_eq!(entries("/proc/self/fd"), before + open_files, "flags {flags}");
        unsafe { df11_model_free(model) };
        assert_eq!(entries("/proc/self/fd"), before);
    }
    let hostile = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile/positions_falling.safetensors");
    let (hostile, mut model) = (text(&hostile), null_mut());
    let options = df11_open_options { flags: DF11_OPEN_READ, ..init() };
    assert_eq!(unsafe { df11_model_open(hostile.as_ptr(), &options, &mut model, null_mut()) }, DF11_CORRUPT);
    assert_eq!(entries("/proc/self/fd"), before, "a model that was refused is open");
}
