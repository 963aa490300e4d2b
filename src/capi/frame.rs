//! The end of every call: errors and panics become a status, and the caller's df11_error is written.

use super::status::{df11_error, df11_status};
use crate::error::{Error, Status};
use crate::host::panic_text;
use std::cell::Cell;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// The number of frames that this thread is in.
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

/// Runs the body of an exported function and ends its call.
///
/// # Safety
///
/// `error` is NULL or valid for writes of a df11_error.
pub(super) unsafe fn call(error: *mut df11_error, body: impl FnOnce() -> Result<(), Error>) -> df11_status {
    let result = caught(body);
    if let Err(error) = &result {
        log::debug!("{error}");
    }
    let status = result.as_ref().map_or_else(|e| e.status(), |()| Status::Ok);
    if !error.is_null() {
        let (native, text) = result.err().map_or((0, String::new()), |e| (e.native_code(), e.to_string()));
        // SAFETY: C caller: `error` is NULL or valid for writes. NULL was refused.
        unsafe { write(error, status, native, &text) };
    }
    status.code()
}

/// Runs the body of an exported function that returns nothing and cannot fail. A panic in it ends here.
pub(super) fn quietly(body: impl FnOnce()) {
    if let Err(error) = caught(|| {
        body();
        Ok(())
    }) {
        log::error!("{error}");
    }
}

fn caught(body: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    quiet_panics();
    FRAMES.with(|frames| frames.set(frames.get() + 1));
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        // A panic's value may panic when it is dropped.
        std::mem::forget(panic);
        Err(Error::Internal(text))
    });
    FRAMES.with(|frames| frames.set(frames.get() - 1));
    result
}

/// Writes an error. The memory may be uninitialised, so no reference to it is made.
///
/// # Safety
///
/// `error` is valid for writes of a df11_error.
unsafe fn write(error: *mut df11_error, status: Status, native: i32, text: &str) {
    const MOST: usize = size_of::<df11_error>() - offset_of!(df11_error, message) - 1;
    let end = (0..=text.len().min(MOST)).rfind(|&i| text.is_char_boundary(i)).unwrap_or(0);
    // SAFETY: every field of `*error` can be written. `end` is at most the message's length less the zero byte.
    unsafe {
        (&raw mut (*error).status).write(status.code());
        (&raw mut (*error).native_code).write(native);
        let message = (&raw mut (*error).message).cast::<u8>();
        message.copy_from_nonoverlapping(text.as_ptr(), end);
        message.add(end).write(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::*;
    use super::*;
    use std::ffi::CStr;

    fn fresh() -> df11_error {
        df11_error { status: -1, native_code: -1, message: [0x55; 504] }
    }

    fn text(error: &df11_error) -> &str {
        // SAFETY: `call` ended the text.
        unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap()
    }

    #[test]
    fn a_panic_becomes_internal_with_its_text() {
        let mut error = fresh();
        // SAFETY: the error is a local variable.
        let status = unsafe { call(&mut error, || panic!("number {}", 7)) };
        assert_eq!((status, error.status, error.native_code), (DF11_INTERNAL, DF11_INTERNAL, 0));
        assert!(text(&error).contains("number 7"), "{}", text(&error));
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { call(std::ptr::null_mut(), || panic!()) }, DF11_INTERNAL);
        quietly(|| panic!("nobody is told"));
    }

    #[test]
    fn success_clears_and_long_messages_are_cut_between_characters() {
        let mut error = fresh();
        // SAFETY: the error is a local variable.
        unsafe {
            assert_eq!(call(&mut error, || Ok(())), DF11_OK);
            assert_eq!((error.status, error.native_code, text(&error)), (0, 0, ""));
            assert_eq!(call(&mut error, || Err(Error::NotFound("é".repeat(400)))), DF11_NOT_FOUND);
        }
        assert_eq!(text(&error), "é".repeat(251));
        let io = std::io::Error::from_raw_os_error(2);
        // SAFETY: the error is a local variable.
        unsafe { call(&mut error, || Err(Error::io("open", "x", io))) };
        assert_eq!((error.status, error.native_code), (DF11_IO, 2));
    }
}
