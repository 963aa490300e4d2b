//! The progress of long calls: a handle to look at and to cancel with, and a callback.

use super::args::{In, Out, Owned};
use super::frame::{call, quietly};
use super::status::{df11_error, df11_status};
use crate::error::Result;
use crate::progress::Progress;
use std::ffi::c_void;
use std::ptr;

/// The progress of a long call. Give it to the call in its options; any thread may then ask how far
/// the call is, and cancel it. It serves one call at a time. A new call begins at 0 again, but a
/// progress that was cancelled stays cancelled.
pub struct df11_progress {
    pub(super) progress: Progress,
}

/// Called with the progress of a long call: `user` as given, and the bytes of its work that are done
/// and that there are (0: not known yet). Any result but 0 cancels the call. It runs on whatever
/// thread of the call has just done something, and never twice at a time: at the beginning, when the
/// amount of work is known, at the end of a call that no error cuts short, and in between at most 20
/// times a second. It must not unwind. The threads that the library starts have stacks of 256 KiB.
pub type df11_progress_fn = Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> i32>;

/// Makes a progress, at 0 of 0 bytes. Give `*out` to df11_progress_free(). After an error it is
/// NULL.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_new(out: *mut *mut df11_progress, error: *mut df11_error) -> df11_status {
    // SAFETY: C caller: `out` and `error` are NULL or writable.
    unsafe { call(error, || new(Out::new(out))) }
}

fn new(out: Out<*mut df11_progress>) -> Result<()> {
    out.clear(ptr::null_mut())?.give(df11_progress { progress: Progress::new() });
    Ok(())
}

/// Frees a progress, from any thread. NULL is allowed.
///
/// # Safety
///
/// No call uses `progress` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_free(progress: *mut df11_progress) {
    // SAFETY: C caller: `progress` is NULL or is freed once, and nobody uses it any more.
    let progress = unsafe { Owned::new(progress) };
    quietly(|| progress.free());
}

/// Reads the bytes of work that are done and that there are, from any thread: 0 of 0 before the call
/// knows, and for NULL. `done` and `total` may be NULL.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_get(progress: *const df11_progress, done: *mut u64, total: *mut u64) {
    // SAFETY: C caller: `progress` is NULL or not freed, `done` and `total` are NULL or writable.
    let (progress, done, total) = unsafe { (In::new(progress, "the progress"), Out::new(done), Out::new(total)) };
    let (so_far, all) = progress.given().map_or((0, 0), |p| (p.progress.done(), p.progress.total()));
    done.offer(so_far);
    total.offer(all);
}

/// Cancels the call that the progress was given to, from any thread: the call returns DF11_CANCELLED
/// after at most 100 ms of a processor's time for each of its threads, whatever it is at, if the
/// disk does not keep it waiting. A call that begins later returns it at once. Cancelling cannot be
/// undone. NULL is allowed.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_progress_cancel(progress: *mut df11_progress) {
    // SAFETY: C caller: `progress` is NULL or not freed. Other threads may use it, so the reference is shared.
    if let Some(handle) = unsafe { In::new(progress.cast_const(), "the progress") }.given() {
        handle.progress.cancel();
    }
}

/// A callback and its `user`.
struct Callback {
    function: unsafe extern "C" fn(*mut c_void, u64, u64) -> i32,
    user: *mut c_void,
}

// SAFETY: C caller: the callback may be called with its `user` from any thread (df11_progress_fn).
unsafe impl Send for Callback {}
// SAFETY: `Progress` calls it under a lock, so that two threads never call it at once.
unsafe impl Sync for Callback {}

impl Callback {
    /// Returns true if the call should go on.
    fn tell(&self, progress: &Progress) -> bool {
        // SAFETY: C caller: the callback and its `user` are valid during the call, and only a call's Progress tells.
        unsafe { (self.function)(self.user, progress.done(), progress.total()) == 0 }
    }
}

/// Makes the progress of one call from the three fields of its options: it counts in the handle, if
/// there is one, and calls the callback, if there is one.
///
/// # Safety
///
/// `handle` is NULL or a progress that is not freed while the result lives. `callback` can be called with `user` from any
/// thread for as long.
pub(super) unsafe fn of(handle: *const df11_progress, callback: df11_progress_fn, user: *mut c_void) -> Progress {
    let progress = match callback {
        Some(function) => {
            let callback = Callback { function, user };
            Progress::with_callback(move |progress| callback.tell(progress))
        }
        None => Progress::new(),
    };
    // SAFETY: C caller: `handle` is NULL or a progress that is not freed during the call.
    match unsafe { In::new(handle, "the progress") }.given() {
        Some(handle) => progress.shared_with(&handle.progress),
        None => progress,
    }
}
