//! The memory copy of the bf16 weights, to memory that was written before: what all are held against.

use crate::contest::{Contestant, cut};

/// Its name, by which ratios find it.
pub const NAME: &str = "memory copy";

/// Copies the original weights.
pub struct Copy<'a> {
    original: &'a [u16],
    threads: usize,
}

impl<'a> Copy<'a> {
    /// Copies with so many threads.
    pub fn new(original: &'a [u16], threads: usize) -> Self {
        Copy { original, threads }
    }
}

impl Contestant for Copy<'_> {
    fn name(&self) -> String {
        NAME.into()
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
            // SAFETY: two slices of one length, one of them borrowed mutably, so they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(original.as_ptr(), dst.as_mut_ptr(), dst.len()) };
        } else {
            std::thread::scope(|scope| {
                let mut rest = dst;
                for range in cut(original.len(), self.threads) {
                    let (part, behind) = rest.split_at_mut(range.len());
                    rest = behind;
                    scope.spawn(move || part.copy_from_slice(&original[range]));
                }
            });
        }
        Ok(())
    }
}
