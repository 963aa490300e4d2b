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
use support::golden;
use support::{encoder, files, weights};

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

/// Lowers the soft limit on descriptors of this process.
fn limit_files(most: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = most;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// Writes a folder of so many files with a small group each. Returns the bytes of each file.
fn many_files(folder: &Path, count: usize) {
    let group = encoder::encode(&weights::trained_like(200, 3), &[]);
    for i in 0..count {
        let file = encoder::safetensors(&encoder::group_tensors(&format!("experts.{i}"), &group), None);
        std::fs::write(folder.join(format!("experts_{i}.safetensors")), file).unwrap();
    }
}

/// A model of one file for each expert has more files than a process has descriptors, usually.
#[test]
fn more_files_than_descriptors() {
    alone!();
    const FILES: usize = 600;
    let folder = tempfile::tempdir().unwrap();
    many_files(folder.path(), FILES);
    let (path, mut error) = (text(folder.path()), no_error());
    let mut expected = vec![0u16; 200];
    for most in [1024, 256, 40] {
        limit_files(most);
        let before = entries("/proc/self/fd");
        for flags in [0, DF11_OPEN_READ, DF11_OPEN_READ | DF11_OPEN_VERIFY] {
            let model = open(&path, flags);
            assert!(entries("/proc/self/fd") <= before + 128.min(most as usize / 4), "{most}, {flags}");
            // From many threads, each in another order.
            std::thread::scope(|scope| {
                let model = model as usize;
                for thread in 0..4 {
                    scope.spawn(move || {
                        let mut weights = vec![0u16; 200];
                        for i in 0..FILES {
                            let group = (i * [1, 7, 11, 13][thread] % FILES) as u64;
                            let status = unsafe {
                                df11_model_decompress(
                                    model as *const df11_model,
                                    group,
                                    0,
                                    200,
                                    weights.as_mut_ptr().cast(),
                                    400,
                                    1,
                                    null_mut(),
                                )
                            };
                            assert_eq!(status, DF11_OK);
                        }
                    });
                }
            });
            unsafe {
                let status = df11_model_decompress(model, 5, 0, 200, expected.as_mut_ptr().cast(), 400, 1, null_mut());
                assert_eq!(status, DF11_OK);
                df11_model_free(model);
            }
            assert_eq!(entries("/proc/self/fd"), before);
        }
        let options = df11_verify_options { threads: 4, ..init() };
        let status = unsafe { df11_verify_model(path.as_ptr(), path.as_ptr(), &options, &mut error) };
        assert_eq!(status, DF11_OK, "{}", said(&error));
        assert_eq!(entries("/proc/self/fd"), before);
    }
    assert_eq!(expected, weights::trained_like(200, 3));
}

/// A file that is opened again must be the same one.
#[test]
fn a_file_that_is_another_when_it_is_opened_again() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    many_files(folder.path(), 40);
    limit_files(64);
    let path = text(folder.path());
    let model = open(&path, DF11_OPEN_READ);
    let mut weights = vec![0u16; 200];
    let mut read = |group| {
        let mut error = no_error();
        unsafe {
            df11_model_decompress(model, group, 0, 200, weights.as_mut_ptr().cast(), 400, 1, &mut error);
        }
        (error.status, said(&error).to_owned())
    };
    // The files that were opened first are closed by now. One is replaced by a copy, one changed in place, one is gone.
    let file = |i: usize| folder.path().join(format!("experts_{i}.safetensors"));
    assert_eq!(read(1).0, DF11_OK);
    for group in 10..40 {
        assert_eq!(read(group).0, DF11_OK);
    }
    std::fs::copy(file(1), folder.path().join("copy")).unwrap();
    std::fs::rename(folder.path().join("copy"), file(1)).unwrap();
    let bytes = std::fs::read(file(2)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(file(2), bytes).unwrap();
    std::fs::remove_file(file(3)).unwrap();
    for group in [1, 2] {
        let (status, message) = read(group);
        assert_eq!(status, DF11_CORRUPT, "{message}");
        let name = format!("experts_{group}.safetensors");
        assert!(message.contains("changed or replaced") && message.contains(&name), "{message}");
    }
    assert_eq!(read(3).0, DF11_IO);
    assert_eq!(read(4).0, DF11_OK);
    unsafe { df11_model_free(model) };
}

/// Where a file cannot be mapped the message says what to do, and that works.
#[test]
fn a_file_that_cannot_be_mapped() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    const BYTES: u64 = 64 << 30;
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{BYTES}],"data_offsets":[0,{BYTES}]}}}}"#);
    let head = files::raw(&header, &[]);
    let file = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &head, 0).unwrap();
    file.set_len(head.len() as u64 + BYTES).unwrap();
    let limit = libc::rlimit { rlim_cur: 16 << 30, rlim_max: libc::RLIM_INFINITY };
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    let (path, mut model, mut error) = (text(&path), null_mut(), no_error());
    assert_eq!(unsafe { df11_model_open(path.as_ptr(), std::ptr::null(), &mut model, &mut error) }, DF11_IO);
    assert_eq!(error.native_code, libc::ENOMEM);
    assert!(said(&error).contains("cannot map '") && said(&error).contains("DF11_OPEN_READ"), "{}", said(&error));
    unsafe { df11_model_free(open(&path, DF11_OPEN_READ)) };
}

/// A pipe that takes the place of a file in the moment in which that is opened is refused, and nothing waits for it.
#[test]
fn a_pipe_that_takes_the_place_of_a_file() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let (file, pipe) = (folder.path().join("model.safetensors"), folder.path().join("pipe"));
    let group = encoder::encode(&weights::trained_like(200, 3), &[]);
    std::fs::write(&file, encoder::safetensors(&encoder::group_tensors("g", &group), None)).unwrap();
    assert_eq!(unsafe { libc::mkfifo(text(&pipe).as_ptr(), 0o600) }, 0);
    let (a, b) = (text(&file), text(&pipe));
    // A process of its own, so that it can be ended whatever the call does.
    let swapper = unsafe { libc::fork() };
    assert!(swapper >= 0);
    if swapper == 0 {
        let at = libc::AT_FDCWD;
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            // Nothing else is done after the fork.
            unsafe { libc::syscall(libc::SYS_renameat2, at, a.as_ptr(), at, b.as_ptr(), libc::RENAME_EXCHANGE) };
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let path = text(&file);
    let opener = std::thread::spawn(move || {
        let (mut opened, mut refused) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            let (mut model, mut error) = (null_mut(), no_error());
            let options = df11_open_options { flags: DF11_OPEN_READ, ..init() };
            match unsafe { df11_model_open(path.as_ptr(), &options, &mut model, &mut error) } {
                DF11_OK => opened += 1,
                status => {
                    assert_eq!(status, DF11_IO, "{}", said(&error));
                    assert!(said(&error).contains("not a regular file"), "{}", said(&error));
                    refused += 1;
                }
            }
            unsafe { df11_model_free(model) };
            tell.send(()).unwrap();
        }
        (opened, refused)
    });
    let mut waited = None;
    while waited.is_none() {
        match told.recv_timeout(Duration::from_secs(20)) {
            Ok(()) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => waited = Some(false),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => waited = Some(true),
        }
    }
    unsafe {
        libc::kill(swapper, libc::SIGKILL);
        libc::waitpid(swapper, null_mut(), 0);
    }
    assert_eq!(waited, Some(false), "opening waits for a pipe");
    let (opened, refused) = opener.join().unwrap();
    assert!(opened > 20 && refused > 20, "{opened} opened, {refused} refused");
}
