//! Statuses and errors of the C ABI, and the frame around every fallible function.

use crate::error::{Error, Status};
use crate::host::panic_text;
use std::cell::Cell;
use std::ffi::c_char;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// The result of a call: one of the `DF11_*` statuses below. 0 is success; 1 to 99 are the caller's mistakes, 100 to 199
/// the file's, 200 to 299 the device's, 900 to 999 the library's. Numbers are never reused, and newer versions may return
/// new ones: treat an unknown one by its range. df11_status_name() gives its name.
pub type df11_status = i32;

/// Nothing went wrong.
pub const DF11_OK: df11_status = 0;
/// An argument is NULL, out of range, or contradicts another.
pub const DF11_INVALID_ARGUMENT: df11_status = 1;
/// There is no group or tensor of that name or number.
pub const DF11_NOT_FOUND: df11_status = 2;
/// The destination holds fewer bytes than the result.
pub const DF11_BUFFER_TOO_SMALL: df11_status = 3;
/// An address is not aligned as the function asks.
pub const DF11_MISALIGNED: df11_status = 4;
/// An option, or a field of a newer options struct, that this version does not know.
pub const DF11_UNSUPPORTED_OPTION: df11_status = 5;
/// The caller cancelled the operation.
pub const DF11_CANCELLED: df11_status = 6;
/// The NULL stream, on a device that was not opened to allow it.
pub const DF11_DEFAULT_STREAM: df11_status = 7;
/// A file or folder of that name is there already, and overwriting was not asked for.
pub const DF11_EXISTS: df11_status = 8;
/// An earlier run left unfinished work there: resume it, or write elsewhere.
pub const DF11_UNFINISHED: df11_status = 9;
/// Another process is writing there.
pub const DF11_BUSY: df11_status = 10;
/// The operating system could not open, read, map or write; native_code is its errno.
pub const DF11_IO: df11_status = 100;
/// Not a safetensors file, or not a DF11 model.
pub const DF11_INVALID_FORMAT: df11_status = 101;
/// A DF11 model of a kind that cannot be decoded.
pub const DF11_UNSUPPORTED_FORMAT: df11_status = 102;
/// A DF11 model whose parts contradict each other.
pub const DF11_CORRUPT: df11_status = 103;
/// No usable CUDA driver.
pub const DF11_NO_DRIVER: df11_status = 200;
/// No kernel for this device.
pub const DF11_NO_KERNEL: df11_status = 201;
/// A CUDA call failed; native_code is its CUresult.
pub const DF11_CUDA: df11_status = 202;
/// Not allowed while a stream is being captured.
pub const DF11_CAPTURING: df11_status = 203;
/// A handle of another device or context.
pub const DF11_WRONG_DEVICE: df11_status = 204;
/// Memory could not be had.
pub const DF11_OUT_OF_MEMORY: df11_status = 900;
/// A bug in this library. The message says where; please report it.
pub const DF11_INTERNAL: df11_status = 999;

// The two lists of numbers must not drift apart.
const _: () = {
    assert!(DF11_OK == Status::Ok as i32 && DF11_INVALID_ARGUMENT == Status::InvalidArgument as i32);
    assert!(DF11_NOT_FOUND == Status::NotFound as i32 && DF11_BUFFER_TOO_SMALL == Status::BufferTooSmall as i32);
    assert!(
        DF11_MISALIGNED == Status::Misaligned as i32 && DF11_UNSUPPORTED_OPTION == Status::UnsupportedOption as i32
    );
    assert!(DF11_CANCELLED == Status::Cancelled as i32 && DF11_DEFAULT_STREAM == Status::DefaultStream as i32);
    assert!(DF11_EXISTS == Status::Exists as i32 && DF11_UNFINISHED == Status::Unfinished as i32);
    assert!(DF11_BUSY == Status::Busy as i32);
    assert!(DF11_IO == Status::Io as i32 && DF11_INVALID_FORMAT == Status::InvalidFormat as i32);
    assert!(DF11_UNSUPPORTED_FORMAT == Status::UnsupportedFormat as i32 && DF11_CORRUPT == Status::Corrupt as i32);
    assert!(DF11_NO_DRIVER == Status::NoDriver as i32 && DF11_NO_KERNEL == Status::NoKernel as i32);
    assert!(DF11_CUDA == Status::Cuda as i32 && DF11_CAPTURING == Status::Capturing as i32);
    assert!(DF11_WRONG_DEVICE == Status::WrongDevice as i32 && DF11_OUT_OF_MEMORY == Status::OutOfMemory as i32);
    assert!(DF11_INTERNAL == Status::Internal as i32);
};

/// What went wrong, in memory of the caller's: 512 bytes, a layout that never changes. Every call that takes one writes
/// it, after success with DF11_OK and an empty message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_error {
    /// The status that the call returned.
    pub status: df11_status,
    /// The number that the system below gave: an errno, a CUresult, or 0.
    pub native_code: i32,
    /// One sentence in UTF-8, ended by a zero byte, with the file, the tensor and the byte in the file where they are
    /// known. Text that does not fit is cut between characters.
    pub message: [c_char; 504],
}

const _: () = assert!(size_of::<df11_error>() == 512 && align_of::<df11_error>() == 4);
const _: () = assert!(offset_of!(df11_error, native_code) == 4 && offset_of!(df11_error, message) == 8);

/// The name of a status in capitals without its prefix, such as "CORRUPT"; "UNKNOWN" for a number that this version does
/// not have. The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn df11_status_name(status: df11_status) -> *const c_char {
    macro_rules! names {
        ($($status:ident => $name:literal),*) => {
            match Status::from_code(status) { $(Some(Status::$status) => $name,)* None => c"UNKNOWN" }
        };
    }
    let name = names! {
        Ok => c"OK", InvalidArgument => c"INVALID_ARGUMENT", NotFound => c"NOT_FOUND",
        BufferTooSmall => c"BUFFER_TOO_SMALL", Misaligned => c"MISALIGNED", UnsupportedOption => c"UNSUPPORTED_OPTION",
        Cancelled => c"CANCELLED", DefaultStream => c"DEFAULT_STREAM", Exists => c"EXISTS", Unfinished => c"UNFINISHED", Busy => c"BUSY", Io => c"IO", InvalidFormat => c"INVALID_FORMAT",
        UnsupportedFormat => c"UNSUPPORTED_FORMAT", Corrupt => c"CORRUPT", NoDriver => c"NO_DRIVER",
        NoKernel => c"NO_KERNEL", Cuda => c"CUDA", Capturing => c"CAPTURING", WrongDevice => c"WRONG_DEVICE",
        OutOfMemory => c"OUT_OF_MEMORY", Internal => c"INTERNAL"
    };
    name.as_ptr()
}

thread_local! {
    /// How many frames this thread is in.
    static FRAMES: Cell<u32> = const { Cell::new(0) };
}

/// Keeps panics inside frames, and on this library's own threads, from being printed: they become `DF11_INTERNAL`. All
/// other panics go where they went before. This is a hook of Rust's own and no signal handler; a shared library has a
/// Rust runtime to itself.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let own = std::thread::current().name() == Some(crate::host::THREAD_NAME);
            if !own && FRAMES.try_with(Cell::get).unwrap_or(0) == 0 {
                before(info);
            }
        }));
    });
}

/// Runs a function of the C ABI: an error or a panic becomes a status, and `error` is written if there is one.
///
/// # Safety
///
/// `error` is NULL or can be written.
pub(super) unsafe fn frame(error: *mut df11_error, body: impl FnOnce() -> Result<(), Error>) -> df11_status {
    quiet_panics();
    FRAMES.with(|frames| frames.set(frames.get() + 1));
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        // A panic's value may panic when it is dropped.
        std::mem::forget(panic);
        Err(Error::Internal(text))
    });
    FRAMES.with(|frames| frames.set(frames.get() - 1));
    if let Err(error) = &result {
        log::debug!("{error}");
    }
    let status = result.as_ref().map_or_else(|e| e.status(), |()| Status::Ok);
    if !error.is_null() {
        let (native, text) = result.err().map_or((0, String::new()), |e| (e.native_code(), e.to_string()));
        const MOST: usize = size_of::<df11_error>() - offset_of!(df11_error, message) - 1;
        let end = (0..=text.len().min(MOST)).rfind(|&i| text.is_char_boundary(i)).unwrap_or(0);
        // SAFETY: by the caller's promise. The memory may be uninitialised, so it is written without a reference to it.
        unsafe {
            (&raw mut (*error).status).write(status.code());
            (&raw mut (*error).native_code).write(native);
            let message = (&raw mut (*error).message).cast::<u8>();
            message.copy_from_nonoverlapping(text.as_ptr(), end);
            message.add(end).write(0);
        }
    }
    status.code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn fresh() -> df11_error {
        df11_error { status: -1, native_code: -1, message: [0x55; 504] }
    }

    fn text(error: &df11_error) -> &str {
        // SAFETY: `frame` ended the text.
        unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap()
    }

    #[test]
    fn a_panic_becomes_internal_with_its_text() {
        let mut error = fresh();
        // SAFETY: the error is ours.
        let status = unsafe { frame(&mut error, || panic!("number {}", 7)) };
        assert_eq!((status, error.status, error.native_code), (DF11_INTERNAL, DF11_INTERNAL, 0));
        assert!(text(&error).contains("number 7"), "{}", text(&error));
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { frame(std::ptr::null_mut(), || panic!()) }, DF11_INTERNAL);
    }

    #[test]
    fn success_clears_and_long_messages_are_cut_between_characters() {
        let mut error = fresh();
        // SAFETY: the error is ours.
        unsafe {
            assert_eq!(frame(&mut error, || Ok(())), DF11_OK);
            assert_eq!((error.status, error.native_code, text(&error)), (0, 0, ""));
            assert_eq!(frame(&mut error, || Err(Error::NotFound("é".repeat(400)))), DF11_NOT_FOUND);
        }
        assert_eq!(text(&error), "é".repeat(251));
        let io = std::io::Error::from_raw_os_error(2);
        // SAFETY: the error is ours.
        unsafe { frame(&mut error, || Err(Error::io("open", "x", io))) };
        assert_eq!((error.status, error.native_code), (DF11_IO, 2));
    }

    #[test]
    fn names_are_those_of_the_statuses() {
        for status in Status::ALL {
            // SAFETY: a static text.
            let name = unsafe { CStr::from_ptr(df11_status_name(status.code())) };
            assert_eq!(name.to_str().unwrap(), status.name());
        }
        // SAFETY: a static text.
        assert_eq!(unsafe { CStr::from_ptr(df11_status_name(12345)) }, c"UNKNOWN");
    }
}
