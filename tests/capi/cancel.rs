//! Cancelling at any time: calls that take long are cancelled at random times, and return soon after that.
//!
//! What is measured is the processor time of the process, so each test is alone in its own: other programs may delay a call.
#![cfg(target_os = "linux")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "texts end in a zero, options and outputs live for the call")]

use crate::support;

use df11::internals::capi::*;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};
use support::abi::{init, no_error, said, text};
use support::alone::alone;
use support::sparse::{self, Hollow};
use support::weights::{self, Random};
use support::{encoder, files};

/// The most that a call may go on after it is cancelled.
const SOON: Duration = Duration::from_millis(100);

fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A handle that other threads may cancel.
struct Handle(*mut df11_progress);

// SAFETY: the header says that any thread may cancel.
unsafe impl Sync for Handle {}

impl Handle {
    fn new() -> Handle {
        let mut handle = null_mut();
        assert_eq!(unsafe { df11_progress_new(&mut handle, null_mut()) }, DF11_OK);
        Handle(handle)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        unsafe { df11_progress_free(self.0) };
    }
}

/// Makes a call of `threads` threads again and again, each time cancelled at another time.
fn ends_soon_whenever_it_is_cancelled(
    what: &str,
    threads: u32,
    mut call: impl FnMut(*mut df11_progress, &mut df11_error) -> df11_status,
) {
    let mut error = no_error();
    let mut time = || {
        let start = Instant::now();
        assert_eq!(call(Handle::new().0, &mut error), DF11_OK, "{what}: {}", said(&error));
        start.elapsed()
    };
    let mut whole = time().min(time());
    let (mut random, mut cancelled, mut round) = (Random::new(41), 0, 0);
    // On a busy machine a call may end before it is cancelled; then there are more rounds.
    while round < 16 || (cancelled < 4 && round < 256) {
        // Spread over the whole call, and nowhere twice.
        let at = whole.mul_f64(((round % 16) as f64 + random.unit()) / 18.0);
        round += 1;
        let handle = Handle::new();
        let handle = &handle;
        std::thread::scope(|scope| {
            let canceller = scope.spawn(move || {
                std::thread::sleep(at);
                let now = (Instant::now(), processor_time());
                unsafe { df11_progress_cancel(handle.0) };
                now
            });
            let start = Instant::now();
            let status = call(handle.0, &mut error);
            let end = (Instant::now(), processor_time());
            let (moment, busy) = canceller.join().unwrap();
            if status == DF11_OK {
                whole = whole.min(end.0 - start);
                return;
            }
            assert_eq!(status, DF11_CANCELLED, "{what}: {}", said(&error));
            cancelled += 1;
            let (waited, worked) = (end.0.saturating_duration_since(moment), end.1.saturating_sub(busy));
            // Each of its threads may be in the middle of something. Other programs may have the processor.
            assert!(
                worked <= threads * SOON && waited <= 20 * SOON,
                "{what}, at {at:?} of {whole:?}: {worked:?} in {waited:?}"
            );
        });
    }
    assert!(cancelled >= 4, "{what}: only {cancelled} of {round} calls were cancelled before they ended");
}

#[test]
fn opening_is_cancelled_at_any_time() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    // Names that sort backwards, metadata of many entries, and patterns that are as costly as they may be.
    for file in 0..3 {
        let name = |i: usize| format!("layers.{file}.{}.weight", 1_000_000 - i);
        let entries =
            (0..60_000).map(|i| format!(r#""{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, name(i)));
        let hashes =
            (0..30_000).map(|i| format!(r#""{}":"{}""#, name(i), "0".repeat(64))).collect::<Vec<_>>().join(",");
        let hashes = serde_json::Value::from(format!("{{{hashes}}}"));
        let metadata = format!(r#""__metadata__":{{"df11.sha256":{hashes}}}"#);
        let header: Vec<String> = entries.chain([metadata]).collect();
        let bytes = files::raw(&format!("{{{}}}", header.join(",")), &[]);
        std::fs::write(folder.path().join(format!("{file}.safetensors")), bytes).unwrap();
    }
    let empty = encoder::encode_with_codes(&[], &[], &encoder::canonical(&[(120, 1)], 1));
    let name = |i: usize| format!("{}{i}", "ab".repeat(400));
    let tensors: Vec<_> = (0..400).flat_map(|i| encoder::group_tensors(&name(i), &empty)).collect();
    std::fs::write(folder.path().join("groups.safetensors"), encoder::safetensors(&tensors, None)).unwrap();
    let patterns: Vec<String> = (0..200).map(|i| format!(r#""(?:a|b)*a(?:a|b){{{}}}x{i}": []"#, 5 + i % 3)).collect();
    let config = files::config("0.5.0", &format!("{{{}}}", patterns.join(",")));
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let path = text(folder.path());
    for flags in [0, DF11_OPEN_READ] {
        ends_soon_whenever_it_is_cancelled("open", 1, |progress, error| {
            let options = df11_open_options { flags, progress, ..init() };
            let mut model = null_mut();
            let status = unsafe { df11_model_open(path.as_ptr(), &options, &mut model, error) };
            unsafe { df11_model_free(model) };
            status
        });
    }
}

/// Writes a model of bf16 layers to a folder. Returns the bytes of its weights.
fn source(folder: &Path) {
    let mut tensors = Vec::new();
    for layer in 0..6 {
        for (i, part) in ["q", "k"].iter().enumerate() {
            let weights = weights::trained_like(1 << 20, layer * 2 + i as u64);
            let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
            tensors.push((format!("layers.{layer}.{part}.weight"), "BF16", vec![1024, 1024], bytes));
        }
    }
    let plain = vec![7; 8 << 20];
    tensors.push(("table".into(), "U8", vec![8 << 20], plain));
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), encoder::safetensors(&tensors, None)).unwrap();
}

#[test]
fn compressing_verifying_and_rewriting_are_cancelled_at_any_time() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("source"), folder.path().join("model"));
    source(&from);
    let patterns = cr#"{"layers\\.\\d": ["q", "k"]}"#;
    let original = text(&from);
    for threads in [1, 4] {
        ends_soon_whenever_it_is_cancelled("compress", threads, |progress, error| {
            let _ = std::fs::remove_dir_all(&to);
            let options = df11_compress_options {
                flags: DF11_COMPRESS_HASHES,
                threads,
                pattern_json: patterns.as_ptr(),
                progress,
                ..init()
            };
            unsafe { df11_compress_model(original.as_ptr(), text(&to).as_ptr(), &options, error) }
        });
        let _ = std::fs::remove_dir_all(&to);
        let options = df11_compress_options { flags: DF11_COMPRESS_HASHES, pattern_json: patterns.as_ptr(), ..init() };
        let mut error = no_error();
        let status = unsafe { df11_compress_model(original.as_ptr(), text(&to).as_ptr(), &options, &mut error) };
        assert_eq!(status, DF11_OK, "{}", said(&error));
        let model = text(&to);
        for against in [null(), original.as_ptr()] {
            ends_soon_whenever_it_is_cancelled("verify", threads, |progress, error| {
                let options = df11_verify_options { threads, progress, ..init() };
                unsafe { df11_verify_model(model.as_ptr(), against, &options, error) }
            });
        }
        let other = folder.path().join("other");
        ends_soon_whenever_it_is_cancelled("decompress", threads, |progress, error| {
            let _ = std::fs::remove_dir_all(&other);
            let options = df11_decompress_options { flags: DF11_DECOMPRESS_FLAT, threads, progress, ..init() };
            unsafe { df11_decompress_model(model.as_ptr(), text(&other).as_ptr(), &options, error) }
        });
        ends_soon_whenever_it_is_cancelled("repack", threads, |progress, error| {
            let _ = std::fs::remove_dir_all(&other);
            let options = df11_repack_options { threads, progress, ..init() };
            unsafe { df11_repack_model(model.as_ptr(), text(&other).as_ptr(), &options, error) }
        });
        ends_soon_whenever_it_is_cancelled("open and verify", threads, |progress, error| {
            let options = df11_open_options { flags: DF11_OPEN_VERIFY, threads, progress, ..init() };
            let mut opened = null_mut();
            let status = unsafe { df11_model_open(model.as_ptr(), &options, &mut opened, error) };
            unsafe { df11_model_free(opened) };
            status
        });
    }
}

/// A mixture of experts of many tensors, whose groups no preset knows.
#[test]
fn planning_is_cancelled_at_any_time() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = Vec::new();
    for layer in 0..48 {
        for expert in 0..256 {
            for part in ["a", "b", "c"] {
                tensors.push(Hollow::bf16(format!("model.layers.{layer}.mlp.{expert}.{part}.weight"), &[256, 256]));
            }
        }
    }
    sparse::write(folder.path(), &tensors, &serde_json::json!({}));
    let path = text(folder.path());
    ends_soon_whenever_it_is_cancelled("plan", 1, |progress, error| {
        let options = df11_plan_options { flags: DF11_PLAN_SAMPLE, progress, ..init() };
        let mut plan = null_mut();
        let status = unsafe { df11_plan_model(path.as_ptr(), &options, &mut plan, error) };
        unsafe { df11_plan_free(plan) };
        status
    });
}

/// Decoding on the CPU takes no progress. Ranges as the header recommends them take less than the time in which other calls end.
#[test]
fn a_caller_may_stop_between_ranges() {
    alone!();
    const RANGE: u64 = 1 << 24;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("w.safetensors"), folder.path().join("model"));
    let weights = weights::trained_like(2 * RANGE as usize + 12_345, 7);
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let tensor = ("w.weight".to_owned(), "BF16", vec![weights.len() as u64], bytes);
    std::fs::write(&from, encoder::safetensors(&[tensor], None)).unwrap();
    let options = df11_compress_options { pattern_json: cr#"{"w": []}"#.as_ptr(), ..init() };
    let (mut error, mut model) = (no_error(), null_mut());
    unsafe {
        let status = df11_compress_model(text(&from).as_ptr(), text(&to).as_ptr(), &options, &mut error);
        assert_eq!(status, DF11_OK, "{}", said(&error));
        assert_eq!(df11_model_open(text(&to).as_ptr(), null(), &mut model, &mut error), DF11_OK, "{}", said(&error));
    }
    let mut decoded = vec![0u16; weights.len()];
    let mut first = 0;
    for range in decoded.chunks_mut(RANGE as usize) {
        let (before, bytes) = (processor_time(), size_of_val(range));
        let status = unsafe {
            df11_model_decompress(model, 0, first, range.len() as u64, range.as_mut_ptr().cast(), bytes, 1, &mut error)
        };
        assert_eq!(status, DF11_OK, "{}", said(&error));
        let worked = processor_time() - before;
        assert!(worked <= SOON, "{} weights in {worked:?}", range.len());
        first += range.len() as u64;
    }
    unsafe { df11_model_free(model) };
    assert!(decoded == weights);
}
