//! Memory that is reserved and takes room where it is written, by the calls of Linux that do that.

use std::ffi::{c_int, c_long, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// Bytes on both sides of a reserved block that nobody can access: a multiple of every size of pages.
const GUARD: usize = 64 << 10;

const PROT_NONE: c_int = 0;
const PROT_READ_WRITE: c_int = 1 | 2;
/// Private, anonymous, and not counted as memory.
const FLAGS: c_int = 0x2 | 0x20 | 0x4000;
const MADV_DONTNEED: c_int = 4;
const MADV_NOHUGEPAGE: c_int = 15;
const SC_PAGESIZE: c_int = 30;

unsafe extern "C" {
    fn mmap(at: *mut c_void, bytes: usize, prot: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
    fn munmap(at: *mut c_void, bytes: usize) -> c_int;
    fn mprotect(at: *mut c_void, bytes: usize, prot: c_int) -> c_int;
    fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    fn sysconf(name: c_int) -> c_long;
}

/// The bytes of a page.
static PAGE: LazyLock<u64> = LazyLock::new(|| {
    // SAFETY: it only asks for a number.
    let page = unsafe { sysconf(SC_PAGESIZE) };
    u64::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(4096)
});

/// A reserved block between two guards.
pub(super) struct Reserved {
    base: *mut c_void,
    all: usize,
}

impl Reserved {
    /// Reserves a block of zeros.
    pub fn new(bytes: u64) -> Option<Reserved> {
        let inside = usize::try_from(bytes).ok()?.checked_next_multiple_of(GUARD)?;
        let all = inside.checked_add(2 * GUARD)?;
        // SAFETY: a new mapping, at a place that the system chooses.
        let base = unsafe { mmap(std::ptr::null_mut(), all, PROT_NONE, FLAGS, -1, 0) };
        if base as isize == -1 {
            return None;
        }
        let reserved = Reserved { base, all };
        // SAFETY: the middle of the new mapping, in whole pages. Without the second call a page more is taken now and then.
        let usable = unsafe {
            let middle = base.byte_add(GUARD);
            let usable = mprotect(middle, inside, PROT_READ_WRITE) == 0;
            madvise(middle, inside, MADV_NOHUGEPAGE);
            usable
        };
        usable.then_some(reserved)
    }

    /// Returns its first byte.
    pub fn start(&self) -> *mut u8 {
        // SAFETY: the mapping is larger than a guard.
        unsafe { self.base.byte_add(GUARD).cast() }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which ends once.
        unsafe { munmap(self.base, self.all) };
    }
}

/// Writes zeros: whole pages are given back, and read as zeros.
///
/// # Safety
/// The bytes are inside one reserved block, and nobody else uses them.
pub(super) unsafe fn clear(to: u64, bytes: u64) {
    let end = to + bytes;
    let (first, last) = (to.next_multiple_of(*PAGE), end / *PAGE * *PAGE);
    // SAFETY: all of it is inside the bytes that may be written; pages of a private mapping without a file are zeros afterwards.
    unsafe {
        if first >= last {
            (to as *mut u8).write_bytes(0, bytes as usize);
            return;
        }
        (to as *mut u8).write_bytes(0, (first - to) as usize);
        (last as *mut u8).write_bytes(0, (end - last) as usize);
        if madvise(first as *mut c_void, (last - first) as usize, MADV_DONTNEED) != 0 {
            (first as *mut u8).write_bytes(0, (last - first) as usize);
        }
    }
}

/// Copies what was ever written in the source, and clears the rest of the target.
///
/// # Safety
/// Both are inside reserved blocks, do not overlap, and nobody else writes them.
pub(super) unsafe fn copy(to: u64, from: u64, bytes: u64) {
    let end = from + bytes;
    let mut at = from;
    // SAFETY: this function's own contract.
    for (next, written) in unsafe { Runs::new(from, end) } {
        // SAFETY: a part of the source, and its counterpart.
        unsafe {
            if written {
                std::ptr::copy_nonoverlapping(at as *const u8, (at - from + to) as *mut u8, (next - at) as usize);
            } else {
                clear(at - from + to, next - at);
            }
        }
        at = next;
    }
}

/// The runs of pages that were written, and of those that were not: the end of each, and which of the two it is.
struct Runs {
    /// What the system knows of the process's pages. Without it they are looked at, which takes longer.
    map: Option<File>,
    at: u64,
    end: u64,
    /// What is known of the pages from `at` on.
    known: Vec<bool>,
    used: usize,
}

impl Runs {
    /// # Safety
    /// The bytes from `at` to `end` are in a reserved block, for as long as this is used.
    unsafe fn new(at: u64, end: u64) -> Runs {
        let mut runs = Runs { map: File::open("/proc/self/pagemap").ok(), at, end, known: Vec::new(), used: 0 };
        // Where addresses are not the system's own (an emulated processor), it tells of other pages: then it is not asked.
        let here = std::hint::black_box(Box::new(1u8));
        let mut entry = [0; 8];
        let page = &raw const *here as u64 / *PAGE;
        let read = |map: &File| map.read_exact_at(&mut entry, 8 * page).is_ok();
        if !runs.map.as_ref().is_some_and(read) || u64::from_le_bytes(entry) >> 62 == 0 {
            runs.map = None;
        }
        runs
    }

    /// Returns whether the page of `at` was written.
    fn written(&mut self) -> bool {
        if self.used == self.known.len() {
            const MOST: u64 = 64 << 10;
            let first = self.at / *PAGE;
            let count = (self.end.div_ceil(*PAGE) - first).min(MOST) as usize;
            let mut entries = vec![0u8; 8 * count];
            let read = self.map.as_ref().is_some_and(|map| map.read_exact_at(&mut entries, 8 * first).is_ok());
            self.used = 0;
            self.known = if read {
                // In memory, or swapped out.
                entries.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry) >> 62 != 0).collect()
            } else {
                let bytes = |page: u64| {
                    let (from, to) = ((page * *PAGE).max(self.at), ((page + 1) * *PAGE).min(self.end));
                    // SAFETY: a part of the source, which is there for as long as this is used.
                    unsafe { std::slice::from_raw_parts(from as *const u8, (to - from) as usize) }
                };
                let written = |page: u64| {
                    let (words, rest) = bytes(page).as_chunks::<64>();
                    words.iter().any(|word| *word != [0; 64]) || rest.iter().any(|&byte| byte != 0)
                };
                (first..first + count as u64).map(written).collect()
            };
        }
        self.known[self.used]
    }
}

impl Iterator for Runs {
    type Item = (u64, bool);

    fn next(&mut self) -> Option<(u64, bool)> {
        if self.at >= self.end {
            return None;
        }
        let written = self.written();
        while self.at < self.end && self.written() == written {
            self.used += 1;
            self.at = (self.at / *PAGE + 1) * *PAGE;
        }
        self.at = self.at.min(self.end);
        Some((self.at, written))
    }
}
