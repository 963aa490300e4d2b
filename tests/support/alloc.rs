//! An allocator that counts, for tests of how much memory a call may take, and that can fail, for tests of what happens then. A
//! test program uses it by `#[global_allocator] static COUNTING: Counting = Counting;`. The tests begin with `alone!()`, because the
//! counters are those of the whole process. Only the main thread is not counted: it starts a test in a thread and then takes
//! memory for its own waiting, at a time when the test may already count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with counters for the whole process.
pub struct Counting;

/// May be below zero: a thread may free what the main thread took.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// The least size of an allocation that fails, and the number of such allocations until one does; 0 for never.
static LEAST: AtomicUsize = AtomicUsize::new(0);
static COUNTDOWN: AtomicUsize = AtomicUsize::new(0);

/// Makes the `nth` allocation of `least` bytes or more from now on fail; the next one is the first.
pub fn fail(nth: usize, least: usize) {
    LEAST.store(least, Relaxed);
    COUNTDOWN.store(nth, Relaxed);
}

/// Returns true if that allocation has failed by now.
pub fn has_failed() -> bool {
    COUNTDOWN.load(Relaxed) == 0
}

fn fails(bytes: usize) -> bool {
    bytes >= LEAST.load(Relaxed) && COUNTDOWN.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1)
}

/// Returns true in the main thread, which has the process's number.
#[cfg(target_os = "linux")]
fn is_main() -> bool {
    thread_local!(static MAIN: std::cell::Cell<Option<bool>> = const { std::cell::Cell::new(None) });
    MAIN.get().unwrap_or_else(|| {
        // SAFETY: the call takes nothing and only returns a number.
        let main = unsafe { libc::gettid() } as u32 == std::process::id();
        MAIN.set(Some(main));
        main
    })
}

#[cfg(not(target_os = "linux"))]
fn is_main() -> bool {
    false
}

fn add(bytes: usize) {
    if is_main() {
        return;
    }
    TOTAL.fetch_add(bytes, Relaxed);
    let bytes = bytes as isize;
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

fn sub(bytes: usize) {
    if !is_main() {
        LIVE.fetch_sub(bytes as isize, Relaxed);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, or fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: the arguments are those that the caller has given under the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: the arguments are those that the caller has given under the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        sub(layout.size());
        // SAFETY: the arguments are those that the caller has given under the same contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if fails(bytes) {
            return std::ptr::null_mut();
        }
        // Both blocks may exist for a moment.
        add(bytes);
        sub(layout.size());
        // SAFETY: the arguments are those that the caller has given under the same contract.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// Memory that a call took.
#[derive(Debug)]
pub struct Taken {
    /// The most bytes that were held at a time, in addition to what was held before.
    pub peak: usize,
    /// Sum of all allocations, freed or not.
    pub total: usize,
}

/// Runs a closure and returns its result and the memory that the process took meanwhile. Allocations of other threads count
/// too.
pub fn taken<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let (live, total) = (LIVE.load(Relaxed), TOTAL.load(Relaxed));
    PEAK.store(live, Relaxed);
    let result = work();
    (result, Taken { peak: (PEAK.load(Relaxed) - live) as usize, total: TOTAL.load(Relaxed) - total })
}
