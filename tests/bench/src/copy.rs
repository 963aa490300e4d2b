//! Memory copies of the bf16 weights, to memory that was written before: what all are held against.
//!
//! Which copy the C library makes depends on the machine: beyond some size, which on some is 200 MB, its stores go past
//! the caches. So there is a copy of our own that always does. Ratios are taken to the faster of the two.

use crate::contest::{Contestant, cut};

/// How the names of copies begin, by which ratios find them.
pub const NAME: &str = "memory copy";
/// How the names of rows end whose destination is in huge pages.
pub const HUGE: &str = ", huge pages";

/// Returns whether a contestant of that name is a copy.
pub fn is_copy(name: &str) -> bool {
    name.starts_with(NAME)
}

/// Returns whether a contestant of that name writes to huge pages.
pub fn is_huge(name: &str) -> bool {
    name.ends_with(HUGE)
}

/// Copies the original weights.
pub struct Copy<'a> {
    original: &'a [u16],
    threads: usize,
    streaming: bool,
}

impl<'a> Copy<'a> {
    /// Both copies, by so many threads: the C library's, and the one past the caches.
    pub fn both(original: &'a [u16], threads: usize) -> [Copy<'a>; 2] {
        [false, true].map(|streaming| Copy { original, threads, streaming })
    }

    fn copy(&self, dst: &mut [u16], src: &[u16]) {
        if self.streaming { stream(dst, src) } else { dst.copy_from_slice(src) }
    }
}

/// Copies past the caches.
fn stream(dst: &mut [u16], src: &[u16]) {
    assert_eq!(dst.len(), src.len());
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        // SAFETY: any bytes are weights, and a line of them is 64 bytes.
        let (head, lines, tail) = unsafe { dst.align_to_mut::<Line>() };
        let (first, rest) = src.split_at(head.len());
        let (middle, last) = rest.split_at(lines.len() * 32);
        head.copy_from_slice(first);
        tail.copy_from_slice(last);
        for (line, from) in lines.iter_mut().zip(middle.as_chunks::<32>().0) {
            // SAFETY: 64 bytes can be read and, on a cache line, written; any address may be prefetched. The
            // instructions are part of x86-64's baseline.
            unsafe {
                let (to, from) = ((&raw mut *line).cast::<__m128i>(), from.as_ptr().cast::<__m128i>());
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(64).cast());
                let all = [0, 1, 2, 3].map(|i| _mm_loadu_si128(from.add(i)));
                all.into_iter().enumerate().for_each(|(i, x)| _mm_stream_si128(to.add(i), x));
            }
        }
        // SAFETY: the instruction is part of x86-64's baseline.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    dst.copy_from_slice(src);
}

/// A cache line.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Line([u16; 32]);

impl Contestant for Copy<'_> {
    fn name(&self) -> String {
        format!("{NAME}{}", if self.streaming { ", streamed" } else { "" })
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn stored_bytes(&self) -> Option<usize> {
        None
    }

    fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let original = self.original;
        assert_eq!(dst.len(), original.len());
        if self.threads == 1 {
            self.copy(dst, original);
        } else {
            std::thread::scope(|scope| {
                let mut rest = dst;
                for range in cut(original.len(), self.threads) {
                    let (part, behind) = rest.split_at_mut(range.len());
                    rest = behind;
                    let this = &*self;
                    scope.spawn(move || this.copy(part, &original[range]));
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_copies_copy_every_weight() {
        let original: Vec<u16> = (0..10_007).collect();
        for from in 0..40 {
            for mut copy in Copy::both(&original[from..], 1) {
                let mut dst = vec![1; original.len()];
                copy.work(&mut dst[from..]).unwrap();
                assert!(dst[from..] == original[from..] && dst[..from].iter().all(|&w| w == 1), "{}", copy.name());
            }
        }
    }
}
