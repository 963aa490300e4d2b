//! An allocator that counts, for tests that say how much memory a call may take, and that can fail, for those that say what
//! happens then. A test binary uses it by `#[global_allocator] static COUNTING: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator with counters, which are the process's.
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// How large an allocation must be to fail, and how many such there are until one does; 0: none ever.
static LEAST: AtomicUsize = AtomicUsize::new(0);
static COUNTDOWN: AtomicUsize = AtomicUsize::new(0);

/// Makes the `nth` allocation of `least` bytes or more fail, counted from 1 and from now.
pub fn fail(nth: usize, least: usize) {
    LEAST.store(least, Relaxed);
    COUNTDOWN.store(nth, Relaxed);
}

/// Whether that allocation has come.
pub fn has_failed() -> bool {
    COUNTDOWN.load(Relaxed) == 0
}

fn fails(bytes: usize) -> bool {
    bytes >= LEAST.load(Relaxed) && COUNTDOWN.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1)
}

fn add(bytes: usize) {
    TOTAL.fetch_add(bytes, Relaxed);
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: by the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if fails(bytes) {
            return std::ptr::null_mut();
        }
        // Both lie there for a moment, as far as anybody knows.
        add(bytes);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// What a call took.
#[derive(Debug)]
pub struct Taken {
    /// The most bytes that were held at a time, above what was held before.
    pub peak: usize,
    /// All bytes ever asked for, given back or not.
    pub total: usize,
}

/// Runs a closure and says what the process took meanwhile: other threads' allocations count too.
pub fn taken<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let (live, total) = (LIVE.load(Relaxed), TOTAL.load(Relaxed));
    PEAK.store(live, Relaxed);
    let result = work();
    (result, Taken { peak: PEAK.load(Relaxed).saturating_sub(live), total: TOTAL.load(Relaxed) - total })
}
