//! Whom the library calls: how often, on which thread, with what, and when not any more.
#![cfg(target_os = "linux")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "texts end in a zero, options and outputs live for the call")]

use crate::support;

use df11::Dtype;
use df11::internals::capi::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use support::abi::{init, large, text};
use support::alone::alone;
use support::files::{self, Stored};
use support::{golden, weights};

fn open(path: &CStr) -> *mut df11_model {
    let mut model = null_mut();
    assert_eq!(unsafe { df11_model_open(path.as_ptr(), null(), &mut model, null_mut()) }, DF11_OK);
    model
}

/// What the callbacks below see.
#[derive(Default)]
struct Seen {
    /// The thread that calls the library.
    caller: u64,
    told: AtomicUsize,
    /// Of these, those that come by themselves: the first, those with another total, and the last.
    total: AtomicU64,
    marks: AtomicUsize,
    findings: AtomicUsize,
    left: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    fn new() -> Seen {
        Seen { caller: this_thread(), ..Seen::default() }
    }

    fn wrong(&self, what: impl Into<String>) {
        self.wrong.lock().unwrap().push(what.into());
    }

    fn on_the_callers(&self, what: &str) {
        if this_thread() != self.caller {
            self.wrong(format!("{what} on another thread"));
        }
    }
}

fn this_thread() -> u64 {
    unsafe { libc::pthread_self() as u64 }
}

unsafe extern "C" fn on_progress(user: *mut c_void, done: u64, total: u64) -> i32 {
    let seen = unsafe { &*user.cast::<Seen>() };
    if seen.told.fetch_add(1, SeqCst) == 0 && (done, total) != (0, 0) {
        seen.wrong(format!("begins with {done} of {total}"));
    }
    if seen.total.swap(total, SeqCst) != total || done == total {
        seen.marks.fetch_add(1, SeqCst);
    }
    0
}

unsafe extern "C" fn on_finding(user: *mut c_void, _: u32, _: *const c_char, _: *const c_char) {
    let seen = unsafe { &*user.cast::<Seen>() };
    seen.on_the_callers("a finding");
    seen.findings.fetch_add(1, SeqCst);
}

unsafe extern "C" fn on_left(user: *mut c_void, _: *const c_char, _: *const c_char, _: *const c_char) {
    let seen = unsafe { &*user.cast::<Seen>() };
    seen.on_the_callers("a tensor that is left");
    seen.left.fetch_add(1, SeqCst);
}

/// At the beginning with nothing, no more than twenty times a second but for what marks a stage; findings and
/// tensors that are left are told on the thread that made the call.
#[test]
fn callbacks_come_as_the_header_says() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let (path, original) = large(folder.path());
    let check = |what: &str, call: &dyn Fn(*mut c_void) -> df11_status| {
        let (seen, start) = (Seen::new(), Instant::now());
        assert_eq!(call((&raw const seen).cast_mut().cast()), DF11_OK, "{what}");
        let ticks = (start.elapsed().as_millis() / 50) as usize;
        let (told, marks) = (seen.told.load(SeqCst), seen.marks.load(SeqCst));
        assert!(
            marks >= 2 && told <= marks + ticks + 1,
            "{what}: told {told} times, {marks} of them stages, in {ticks} ticks"
        );
        assert!(seen.wrong.lock().unwrap().is_empty(), "{what}: {:?}", seen.wrong.lock().unwrap());
        (seen.findings.into_inner(), seen.left.into_inner())
    };
    for threads in [1, 4] {
        let told = check("verify", &|user| {
            let options = df11_verify_options {
                threads,
                callback: Some(on_progress),
                callback_user: user,
                finding: Some(on_finding),
                finding_user: user,
                ..init()
            };
            unsafe { df11_verify_model(path.as_ptr(), original.as_ptr(), &options, null_mut()) }
        });
        assert_eq!(told, (1, 0));
        // The second pattern asks for what is no bf16.
        let odd = folder.path().join("odd.safetensors");
        let bf16 = bytemuck::cast_slice(&weights::trained_like(1 << 21, 1)).to_vec();
        let tensors = [
            Stored::new("g.weight", Dtype::BF16, &[1 << 21], bf16),
            Stored::new("h.weight", Dtype::F32, &[1], vec![0; 4]),
        ];
        std::fs::write(&odd, files::file(&tensors)).unwrap();
        let (odd, to) = (text(&odd), text(&folder.path().join(format!("odd-{threads}"))));
        let told = check("compress", &|user| {
            let options = df11_compress_options {
                threads,
                pattern_json: c"{\"g\": [], \"h\": []}".as_ptr(),
                callback: Some(on_progress),
                callback_user: user,
                left: Some(on_left),
                left_user: user,
                ..init()
            };
            unsafe { df11_compress_model(odd.as_ptr(), to.as_ptr(), &options, null_mut()) }
        });
        assert_eq!(told, (0, 1));
    }
}

/// What the callback of the log is given.
#[derive(Default)]
struct Lines {
    inside: AtomicBool,
    count: AtomicUsize,
    highest: AtomicUsize,
    slow: AtomicBool,
}

unsafe extern "C" fn on_line(user: *mut c_void, level: i32, message: *const c_char, length: usize) {
    let lines = unsafe { &*user.cast::<Lines>() };
    lines.inside.store(true, SeqCst);
    let bytes = unsafe { CStr::from_ptr(message) }.to_bytes();
    let line = std::str::from_utf8(bytes).unwrap_or("\n");
    // A callback cannot panic: what is wrong is no level.
    let good = bytes.len() == length && !line.is_empty() && !line.contains(char::is_control);
    lines.highest.fetch_max(if good { level as usize } else { 99 }, SeqCst);
    lines.count.fetch_add(1, SeqCst);
    if lines.slow.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(300));
    }
    lines.inside.store(false, SeqCst);
}

fn log_to(lines: Option<&Lines>, level: i32) {
    let user = lines.map_or(null_mut(), |lines| (&raw const *lines).cast_mut().cast());
    unsafe { df11_log_set(lines.map(|_| on_line as _), level, user) };
}

/// When the log is set anew, the callback of before runs in no thread, and is not called again.
#[test]
fn a_log_that_is_replaced_is_not_in_use() {
    alone!();
    let lines = Lines { slow: true.into(), ..Lines::default() };
    let path = text(&golden::model("tiny"));
    log_to(Some(&lines), DF11_LOG_TRACE);
    std::thread::scope(|scope| {
        let opens = scope.spawn(|| unsafe { df11_model_free(open(&path)) });
        while !lines.inside.load(SeqCst) {
            std::thread::yield_now();
        }
        log_to(None, DF11_LOG_TRACE);
        assert!(!lines.inside.load(SeqCst), "the callback of before is still running");
        let count = lines.count.load(SeqCst);
        opens.join().unwrap();
        unsafe { df11_model_free(open(&path)) };
        assert_eq!(lines.count.load(SeqCst), count, "the callback of before was called again");
    });
}

/// Levels beyond the last are as the last; and whatever lies in a path, a message is one line.
#[test]
fn the_log_has_levels_and_lines() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a\nb\u{1b}[31m");
    std::fs::create_dir(&odd).unwrap();
    let file = odd.join("model.safetensors");
    std::fs::copy(golden::model("tiny").join("model.safetensors"), &file).unwrap();
    // It is no config, and so a warning.
    std::fs::write(odd.join("config.json"), "no JSON").unwrap();
    let (file, nowhere) = (text(&file), text(&odd.join("nowhere")));
    let highest = |level| {
        let (lines, mut model) = (Lines::default(), null_mut());
        log_to(Some(&lines), level);
        unsafe {
            df11_model_free(open(&file));
            assert_eq!(df11_model_open(nowhere.as_ptr(), null(), &mut model, null_mut()), DF11_IO);
        }
        log_to(None, DF11_LOG_OFF);
        (lines.count.into_inner(), lines.highest.into_inner())
    };
    assert_eq!(highest(DF11_LOG_OFF), (0, 0));
    assert_eq!(highest(-5), (0, 0));
    // An error that a call returns is its caller's to tell: only who looks for mistakes sees it here.
    assert_eq!(highest(DF11_LOG_ERROR), (0, 0));
    assert_eq!(highest(DF11_LOG_WARN), (1, DF11_LOG_WARN as usize));
    let (informed, looking) = (highest(DF11_LOG_INFO), highest(DF11_LOG_DEBUG));
    assert!(looking.0 > informed.0 && looking.1 == DF11_LOG_DEBUG as usize, "{informed:?}, {looking:?}");
    let all = highest(DF11_LOG_TRACE);
    assert!(all.0 > 1 && all.1 <= DF11_LOG_TRACE as usize, "{all:?}");
    assert_eq!(highest(i32::MAX), all);
}
