//! What the process has done through the C ABI, in numbers, for programs with metrics. The functions of this folder count
//! here when they have succeeded, and `status::frame` counts errors; nothing else does, the Rust API in particular.

use super::status::{df11_error, df11_status, frame};
use super::structs::{self, Sizeable};
use crate::error::Status;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the process has done through this library since it was loaded. Begin with DF11_STATS_INIT. Counters only grow,
/// but for those of what is alive. Each figure is exact by itself, and they are read one after the other: while other
/// threads work, two figures may be of two moments.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_stats {
    /// sizeof(df11_stats)
    pub struct_size: usize,
    /// Models that df11_model_open() and df11_model_open_memory() gave.
    pub models_opened: u64,
    /// Of these, how many are alive now.
    pub models_open: u64,
    /// Bytes of the files, or of the memory, of the models that are alive now.
    pub model_bytes_open: u64,
    /// Calls of df11_model_decompress() and df11_model_read_tensor() that succeeded.
    pub host_decodes: u64,
    /// Bytes that they wrote.
    pub host_bytes: u64,
    /// Images that were written to host memory. One that is written in parts counts with its part 0.
    pub images_written: u64,
    /// Bytes of these images.
    pub image_bytes_written: u64,
    /// Uploads that were put into a stream.
    pub uploads: u64,
    /// Bytes of the images that they make.
    pub upload_bytes: u64,
    /// Residents that are alive now, uploaded or bound.
    pub residents: u64,
    /// Bytes of their images. Several residents of one image count each.
    pub resident_bytes: u64,
    /// Groups, ranges of them and tensors that calls of df11_resident_decompress() and its kin put into a stream. What a graph
    /// replays does not count again.
    pub device_decodes: u64,
    /// Bytes that these write when the stream gets there.
    pub device_bytes: u64,
    /// Calls that returned a status of 1 to 99: the caller's mistakes, and cancellations.
    pub errors_caller: u64,
    /// Calls that returned a status of 100 to 199: the file's.
    pub errors_file: u64,
    /// Calls that returned a status of 200 to 299: the device's.
    pub errors_device: u64,
    /// Calls that returned any other status but DF11_OK: the library's, and memory that could not be had.
    pub errors_library: u64,
}

// SAFETY: repr(C), begins with its size, all else are numbers of 64 bits, so there is no padding (asserted below).
unsafe impl Sizeable for df11_stats {
    const NAME: &'static str = "df11_stats";
    const FIRST: usize = 144;
}

const _: () = assert!(size_of::<df11_stats>() == 144);

/// A number of things and their bytes. Each has a cache line of its own, so that threads which decode on the CPU do not
/// slow those down that launch.
#[repr(align(64))]
struct Pair {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Pair {
    const fn new() -> Self {
        Pair { count: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    fn add(&self, count: u64, bytes: u64) {
        self.count.fetch_add(count, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn remove(&self, bytes: u64) {
        self.count.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.bytes.load(Relaxed))
    }
}

static MODELS_OPENED: AtomicU64 = AtomicU64::new(0);
static MODELS: Pair = Pair::new();
static HOST: Pair = Pair::new();
static IMAGES: Pair = Pair::new();
static UPLOADS: Pair = Pair::new();
static RESIDENTS: Pair = Pair::new();
static DEVICE: Pair = Pair::new();
/// The caller's, the file's, the device's, the library's.
static ERRORS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

pub(super) fn model_opened(bytes: u64) {
    MODELS_OPENED.fetch_add(1, Relaxed);
    MODELS.add(1, bytes);
}

pub(super) fn model_freed(bytes: u64) {
    MODELS.remove(bytes);
}

pub(super) fn decoded_on_host(bytes: u64) {
    HOST.add(1, bytes);
}

pub(super) fn image_written(bytes: u64) {
    IMAGES.add(1, bytes);
}

pub(super) fn uploaded(bytes: u64) {
    UPLOADS.add(1, bytes);
}

pub(super) fn resident_made(bytes: u64) {
    RESIDENTS.add(1, bytes);
}

pub(super) fn resident_freed(bytes: u64) {
    RESIDENTS.remove(bytes);
}

/// Part of the hot path: two additions, nothing else.
pub(super) fn decodes_enqueued(count: u64, bytes: u64) {
    DEVICE.add(count, bytes);
}

pub(super) fn failed(status: Status) {
    let class = match status.code() {
        0 => return,
        1..=99 => 0,
        100..=199 => 1,
        200..=299 => 2,
        _ => 3,
    };
    ERRORS[class].fetch_add(1, Relaxed);
}

/// Says what the process has done through this library, from any thread: no lock, no allocation, no CUDA call.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_stats_get(out: *mut df11_stats, error: *mut df11_error) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let (models_open, model_bytes_open) = MODELS.get();
            let (host_decodes, host_bytes) = HOST.get();
            let (images_written, image_bytes_written) = IMAGES.get();
            let (uploads, upload_bytes) = UPLOADS.get();
            let (residents, resident_bytes) = RESIDENTS.get();
            let (device_decodes, device_bytes) = DEVICE.get();
            let [errors_caller, errors_file, errors_device, errors_library] =
                std::array::from_fn(|class| ERRORS[class].load(Relaxed));
            let value = df11_stats {
                struct_size: 0,
                models_opened: MODELS_OPENED.load(Relaxed),
                models_open,
                model_bytes_open,
                host_decodes,
                host_bytes,
                images_written,
                image_bytes_written,
                uploads,
                upload_bytes,
                residents,
                resident_bytes,
                device_decodes,
                device_bytes,
                errors_caller,
                errors_file,
                errors_device,
                errors_library,
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}
