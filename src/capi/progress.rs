//! The progress of long calls: a handle for those who look, a callback for those who are told.

use super::status::{df11_error, df11_status, frame};
use crate::error::Error;
use crate::progress::Progress;
use std::ffi::c_void;
use std::ptr;

/// The progress of a long call, to be given to it in its options: any thread may ask for it, and cancel the call, while it
/// runs. One call at a time; a new call begins at 0 again, but what was cancelled stays so.
pub struct df11_progress {
    progress: Progress,
}

/// Told of the progress of a long call: `user` as given, and the bytes of its work that are done and that there are (0: not
/// known yet). Anything but 0 cancels the call. It is called on whatever thread of the call has just done something, never
/// two at a time: at the beginning, when it is known how much there is to do, at the end of a call that is not cut short by
/// an error, and in between at most 20 times a second. It must not unwind, and the stacks of such threads have 256 KiB.
pub type df11_progress_fn = Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> i32>;

/// Makes a progress, at 0 of 0 bytes. `*out` is to be given to df11_progress_free(); after an error it is NULL.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_new(out: *mut *mut df11_progress, error: *mut df11_error) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            if out.is_null() {
                return Err(Error::InvalidArgument("the output is NULL".into()));
            }
            *out = ptr::null_mut();
            *out = Box::into_raw(Box::new(df11_progress { progress: Progress::new() }));
            Ok(())
        })
    }
}

/// Frees a progress, from any thread; NULL is allowed. No call may be using it.
///
/// # Safety
///
/// `progress` is NULL or a progress that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_free(progress: *mut df11_progress) {
    if !progress.is_null() {
        // SAFETY: `df11_progress_new` made it by `Box::into_raw`. It holds numbers: dropping it cannot panic.
        drop(unsafe { Box::from_raw(progress) });
    }
}

/// The bytes of work that are done and that there are; 0 of 0 before a call knows, and for NULL. Any thread may ask. Where
/// `done` or `total` is NULL it is left out.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_get(progress: *const df11_progress, done: *mut u64, total: *mut u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        let (so_far, all) = progress.as_ref().map_or((0, 0), |p| (p.progress.done(), p.progress.total()));
        if !done.is_null() {
            done.write(so_far);
        }
        if !total.is_null() {
            total.write(all);
        }
    }
}

/// Cancels the call that the progress was given to, from any thread: it returns DF11_CANCELLED soon. One that begins later
/// does so at once; there is no way back. NULL is allowed.
///
/// # Safety
///
/// `progress` is NULL or a progress that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_cancel(progress: *mut df11_progress) {
    // SAFETY: by the caller's promise. Other threads may use it too, so no exclusive reference is made.
    if let Some(handle) = unsafe { progress.as_ref() } {
        handle.progress.cancel();
    }
}

/// A callback and what it is given.
struct Callback {
    function: unsafe extern "C" fn(*mut c_void, u64, u64) -> i32,
    user: *mut c_void,
}

// SAFETY: the callback may be called from any thread, by its contract, and `user` is only handed to it.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Callback {
    /// Whether the call goes on.
    fn tell(&self, progress: &Progress) -> bool {
        // SAFETY: the callback and its user are valid during the call, by the caller's promise.
        unsafe { (self.function)(self.user, progress.done(), progress.total()) == 0 }
    }
}

/// What a long call of the library is given for the three fields of its options: it counts in the handle, if there is
/// one, and tells the callback, if there is one.
///
/// # Safety
///
/// `handle` is NULL or a progress that is not freed meanwhile; `callback` may be called with `user` from any thread for as
/// long as the result lives.
pub(super) unsafe fn of(handle: *const df11_progress, callback: df11_progress_fn, user: *mut c_void) -> Progress {
    let progress = match callback {
        Some(function) => {
            let callback = Callback { function, user };
            Progress::with_callback(move |progress| callback.tell(progress))
        }
        None => Progress::new(),
    };
    // SAFETY: by the caller's promise.
    match unsafe { handle.as_ref() } {
        Some(handle) => progress.shared_with(&handle.progress),
        None => progress,
    }
}
