//! What a server does with the library, at random, through the C ABI: models are opened and freed, ranges decoded on the CPU and on a
//! device, tensors read, images written and bound, models verified or cancelled. Each answer is compared. Any number of threads may
//! take steps at once.

use super::abi::{init, no_error, said, text};
use super::engine::{Emulator, Engine};
use super::golden;
use super::weights::Random;
use df11::Status;
use df11::cuda::Stream;
use df11::internals::capi::*;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A model that stays open, and its contents.
struct Known {
    path: CString,
    /// The bytes of its only file; empty if it has several.
    file: Vec<u8>,
    model: *mut df11_model,
    groups: Vec<Vec<u16>>,
    tensors: Vec<Vec<u8>>,
}

/// The models, the device and the driver that all steps share.
pub struct Traffic<'a> {
    emulator: &'a Emulator,
    libcuda: CString,
    device: *mut df11_device,
    known: Vec<Known>,
    /// A file that is cut short.
    broken: CString,
    _folder: tempfile::TempDir,
}

// SAFETY: models and devices may be used by any number of threads at once; the tests check exactly that.
unsafe impl Sync for Traffic<'_> {}
// SAFETY: models and devices are not tied to a thread.
unsafe impl Send for Traffic<'_> {}

static LOGGED: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines the library has written to the log so far.
pub fn logged() -> u64 {
    LOGGED.load(Relaxed)
}

unsafe extern "C" fn count_line(_: *mut c_void, _: i32, _: *const c_char, length: usize) {
    assert!(length > 0);
    LOGGED.fetch_add(1, Relaxed);
}

/// Makes a call that must succeed; its last argument is the error.
macro_rules! ok {
    ($function:ident ( $($argument:expr),* $(,)? )) => {{
        let mut error = no_error();
        // SAFETY: each call below keeps the header's rules; memory is as large as is said, and lives for the call.
        let status = unsafe { $function($($argument,)* &mut error) };
        assert_eq!((status, error.status), (0, 0), "{}: {}", stringify!($function), said(&error));
    }};
}

fn is(status: df11_status, want: Status) {
    assert_eq!(status, want as i32);
}

fn open(path: &CStr, flags: u32, threads: u32) -> *mut df11_model {
    let mut options: df11_open_options = init();
    (options.flags, options.threads) = (flags, threads);
    let mut model = null_mut();
    ok!(df11_model_open(path.as_ptr(), &options, &mut model));
    model
}

fn free(model: *mut df11_model) {
    // SAFETY: it was opened, and nobody uses it any more.
    unsafe { df11_model_free(model) }
}

fn group_info(model: *const df11_model, group: usize) -> df11_group_info {
    let mut info: df11_group_info = init();
    ok!(df11_model_get_group_info(model, group as u64, &mut info));
    info
}

impl<'a> Traffic<'a> {
    /// Opens small golden models and a device of the emulator.
    pub fn new(emulator: &'a Emulator) -> Traffic<'a> {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.safetensors");
        let file = std::fs::read(golden::model("tiny").join("model.safetensors")).unwrap();
        std::fs::write(&broken, &file[..file.len() - 1]).unwrap();
        let known = ["tiny", "edge_patched", "sharded"].map(|name| {
            let path = text(&golden::model(name));
            let model = open(&path, 0, 1);
            let reference = df11::Model::open(golden::model(name), &df11::OpenOptions::default()).unwrap();
            let decode = |group: df11::Group| {
                let mut weights = vec![half::bf16::ZERO; group.element_count() as usize];
                group.decompress(0, &mut weights, &Default::default()).unwrap();
                weights.into_iter().map(half::bf16::to_bits).collect()
            };
            let groups = reference.groups().map(decode).collect();
            let tensors = super::check::tensors(&reference);
            let tensors = reference.tensors().map(|t| tensors[t.name()].clone()).collect();
            let file = if name == "sharded" {
                Vec::new()
            } else {
                std::fs::read(golden::model(name).join("model.safetensors")).unwrap()
            };
            Known { path, file, model, groups, tensors }
        });
        let libcuda = text(emulator.path());
        let device = open_device(&libcuda);
        Traffic { emulator, libcuda, device, known: known.into(), broken: text(&broken), _folder: folder }
    }

    /// Does one thing of those that the module's text lists. `engine` is the thread's own.
    pub fn step(&self, engine: &Engine, random: &mut Random) {
        let known = &self.known[random.below(self.known.len() as u64) as usize];
        match random.below(12) {
            0 | 1 => self.opens(known, random),
            2 | 3 => decodes(known.model, known, random),
            4 => reads(known.model, known, random),
            5 => self.refuses(random),
            6 => verifies(known, random),
            7 => images(known, random),
            8 => uploads(engine, self.device, known.model, known, random),
            9 => self.own_device(engine, known, random),
            10 => binds(engine, self.device, known, random),
            // A caller may replace the log at any time.
            _ => {
                let level = random.below(6) as i32;
                // SAFETY: the callback is a function without state that works on any thread.
                unsafe { df11_log_set((level > 2).then_some(count_line as _), level, null_mut()) }
            }
        }
    }

    /// Opens a model in any way, uses it and frees it.
    fn opens(&self, known: &Known, random: &mut Random) {
        let flags = random.below(4) as u32 & (DF11_OPEN_READ | DF11_OPEN_VERIFY);
        let threads = 1 + random.below(3) as u32;
        let model = if known.file.is_empty() || random.below(2) == 0 {
            open(&known.path, flags, threads)
        } else {
            let mut model = null_mut();
            ok!(df11_model_open_memory(known.file.as_ptr().cast(), known.file.len(), null(), &mut model));
            model
        };
        // SAFETY: an open model.
        assert_eq!(unsafe { df11_model_group_count(model) }, known.groups.len() as u64);
        decodes(model, known, random);
        free(model);
    }

    /// Opens what is no model: each thread gets its own error.
    fn refuses(&self, random: &mut Random) {
        let (mut error, mut model) = (no_error(), null_mut());
        let (path, want) = match random.below(2) {
            0 => (self.broken.as_c_str(), Status::InvalidFormat),
            _ => (c"/nowhere/at all", Status::Io),
        };
        // SAFETY: a text, no options, places for the answer.
        let status = unsafe { df11_model_open(path.as_ptr(), null(), &mut model, &mut error) };
        is(status, want);
        assert!(model.is_null() && said(&error).contains(path.to_str().unwrap()), "{}", said(&error));
    }

    /// Opens another handle of the device, uses it and frees it.
    fn own_device(&self, engine: &Engine, known: &Known, random: &mut Random) {
        let (device, model) = (open_device(&self.libcuda), open(&known.path, 0, 1));
        uploads(engine, device, model, known, random);
        free(model);
        // SAFETY: nobody uses it any more.
        unsafe { df11_device_free(device) };
        assert_eq!(engine.current(), engine.context, "another context is current");
    }

    /// Clears the list of launches that the emulator keeps.
    pub fn forget(&self) {
        self.emulator.control("clear", "launches");
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        // SAFETY: as above; the callback is static.
        unsafe {
            df11_log_set(None, 0, null_mut());
            df11_device_free(self.device);
        }
        self.known.iter().for_each(|known| free(known.model));
    }
}

fn open_device(libcuda: &CStr) -> *mut df11_device {
    let mut options: df11_device_options = init();
    options.libcuda = libcuda.as_ptr();
    let mut device = null_mut();
    ok!(df11_device_open(0, &options, &mut device));
    device
}

/// Returns a range of `n` things: the first and how many.
fn range(n: usize, random: &mut Random) -> (usize, usize) {
    let first = random.below(n as u64 + 1) as usize;
    // Short ones as often as long ones.
    let room = (n - first) as u64 >> random.below(12);
    (first, random.below(room + 1) as usize)
}

fn decodes(model: *const df11_model, known: &Known, random: &mut Random) {
    let group = random.below(known.groups.len() as u64) as usize;
    let want = &known.groups[group];
    let (first, count) = range(want.len(), random);
    let mut weights = vec![0xa5a5u16; count + 1];
    let threads = 1 + random.below(3) as u32;
    let (dst, bytes) = (weights.as_mut_ptr().cast(), 2 * count);
    ok!(df11_model_decompress(model, group as u64, first as u64, count as u64, dst, bytes, threads));
    assert!(weights[..count] == want[first..first + count] && weights[count] == 0xa5a5, "{first} + {count}");
}

fn reads(model: *const df11_model, known: &Known, random: &mut Random) {
    let tensor = random.below(known.tensors.len() as u64) as usize;
    let mut info: df11_tensor_info = init();
    ok!(df11_model_get_tensor_info(model, tensor as u64, &mut info));
    let mut number = u64::MAX;
    ok!(df11_model_find_tensor(model, info.name, &mut number));
    assert_eq!(number, tensor as u64);
    let want = &known.tensors[tensor];
    // Whole weights of a compressed one.
    let (first, count) = range(want.len() / 2, random);
    let (first, count) = (2 * first, 2 * count);
    let mut bytes = vec![0u8; count];
    ok!(df11_model_read_tensor(model, tensor as u64, first as u64, bytes.as_mut_ptr().cast(), count, 2));
    assert!(bytes == want[first..first + count]);
}

/// Verifies a model on one thread while another one reads the progress and may cancel.
fn verifies(known: &Known, random: &mut Random) {
    /// A progress, which any thread may use.
    struct Shared(*mut df11_progress);
    // SAFETY: the header says that any thread may use a progress.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn get(&self) -> *mut df11_progress {
            self.0
        }
    }
    let mut progress = null_mut();
    ok!(df11_progress_new(&mut progress));
    let (shared, cancels, path) = (Shared(progress), random.below(2) == 0, known.path.as_c_str());
    let status = std::thread::scope(|scope| {
        let verifier = scope.spawn(|| {
            let mut options: df11_verify_options = init();
            (options.threads, options.progress) = (2, shared.get());
            // SAFETY: a text and options that live; no original, no error.
            unsafe { df11_verify_model(path.as_ptr(), null(), &options, null_mut()) }
        });
        let (mut done, mut total) = (0, 0);
        // SAFETY: the progress is freed below.
        unsafe {
            df11_progress_get(shared.get(), &mut done, &mut total);
            if cancels {
                df11_progress_cancel(shared.get());
            }
        }
        assert!(done <= total);
        verifier.join().unwrap()
    });
    assert!(status == 0 || cancels && status == Status::Cancelled as i32, "{status}");
    // SAFETY: the call that used it has returned.
    unsafe { df11_progress_free(progress) };
}

/// Writes an image in parts, each on a thread of its own, and compares it with the image that one call writes.
fn images(known: &Known, random: &mut Random) {
    let group = random.below(known.groups.len() as u64) as usize;
    let bytes = group_info(known.model, group).image_bytes as usize;
    let (mut whole, mut in_parts) = (vec![0u8; bytes], vec![0xa5u8; bytes]);
    ok!(df11_model_write_image(known.model, group as u64, whole.as_mut_ptr().cast(), bytes));
    let parts = 1 + random.below(3) as u32;
    let (model, dst) = (known.model as usize, in_parts.as_mut_ptr() as usize);
    std::thread::scope(|scope| {
        for part in 0..parts {
            scope.spawn(move || {
                let (model, dst) = (model as *const df11_model, dst as *mut c_void);
                ok!(df11_model_write_image_part(model, group as u64, dst, bytes, part, parts));
            });
        }
    });
    assert!(whole == in_parts, "an image in {parts} parts");
}

/// Decodes a range of a resident and compares it. When it returns, the image is no longer used.
fn decodes_there(engine: &Engine, resident: *const df11_resident, stream: Stream, want: &[u16], random: &mut Random) {
    let (first, count) = range(want.len(), random);
    let (status, dst) = (engine.alloc(4), engine.alloc(2 * count as u64));
    engine.write(status, &[0; 4]);
    let bytes = 2 * count;
    ok!(df11_resident_decompress_range(resident, first as u64, count as u64, dst, bytes, status, stream.raw().cast()));
    engine.synchronise(stream);
    let found = engine.read(dst, bytes as u64);
    assert!(
        found.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).eq(want[first..first + count].iter().copied())
    );
    assert_eq!(engine.read_u32(status), 0);
    engine.free(dst);
    engine.free(status);
}

/// An upload.
fn uploads(engine: &Engine, device: *mut df11_device, model: *const df11_model, known: &Known, random: &mut Random) {
    let group = random.below(known.groups.len() as u64) as usize;
    let stream = engine.stream();
    let mut resident = null_mut();
    let bytes = group_info(model, group).image_bytes;
    let image = engine.alloc(bytes);
    ok!(df11_device_upload(device, model, group as u64, image, bytes as usize, stream.raw().cast(), &mut resident));
    decodes_there(engine, resident, stream, &known.groups[group], random);
    // SAFETY: the stream has nothing more to do with it.
    unsafe { df11_resident_free(resident) };
    engine.free(image);
    engine.destroy(stream);
}

/// Binds an image that was written on the host and copied by the engine.
fn binds(engine: &Engine, device: *mut df11_device, known: &Known, random: &mut Random) {
    let group = random.below(known.groups.len() as u64) as usize;
    let bytes = group_info(known.model, group).image_bytes as usize;
    let mut host = vec![0u8; bytes];
    ok!(df11_model_write_image(known.model, group as u64, host.as_mut_ptr().cast(), bytes));
    let image = engine.alloc(bytes as u64);
    engine.write(image, &host);
    let (stream, mut resident) = (engine.stream(), null_mut());
    ok!(df11_device_bind_image(device, host.as_ptr().cast(), bytes, image, bytes, &mut resident));
    decodes_there(engine, resident, stream, &known.groups[group], random);
    // SAFETY: as above.
    unsafe { df11_resident_free(resident) };
    engine.free(image);
    engine.destroy(stream);
}

/// Returns the numbers of things that are alive in the emulator, and the bytes of device memory.
pub fn live(emulator: &Emulator) -> Vec<(&'static str, u64)> {
    let kinds =
        ["live.retains", "live.streams", "live.events", "live.allocations", "live.pinned", "live.modules", "bytes"];
    kinds.into_iter().map(|kind| (kind, emulator.query(kind))).collect()
}
