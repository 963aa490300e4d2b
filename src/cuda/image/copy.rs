//! Copies into images, which are written once and read by others. (Miri knows no stores past the caches, and gets plain
//! ones.)

/// The least size of an image that is written past the caches: it would not stay in them, and a store that fetches its
/// line first moves half as much again.
pub(super) const STREAMING_IMAGE_BYTES: u64 = 4 << 20;

/// Copies bytes, past the caches where the processor can. Such stores are ordered with nothing else before
/// [`fence`](crate::huffman::fence).
///
/// # Safety
///
/// `src.len()` bytes can be written at `dst`, and `src` is not among them.
pub(super) unsafe fn stream(src: &[u8], dst: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        let lead = dst.align_offset(64).min(src.len());
        let (before, rest) = src.split_at(lead);
        let (lines, after) = rest.as_chunks::<64>();
        // SAFETY: the three pieces together are `src`, for which there is room at `dst`; the first line is aligned to
        // 64 bytes, and so are all that follow.
        unsafe {
            dst.copy_from_nonoverlapping(before.as_ptr(), before.len());
            let mut at = dst.add(lead);
            for line in lines {
                let from: *const __m128i = line.as_ptr().cast();
                let parts: [__m128i; 4] = std::array::from_fn(|i| _mm_loadu_si128(from.add(i)));
                for (i, part) in parts.into_iter().enumerate() {
                    _mm_stream_si128(at.cast::<__m128i>().add(i), part);
                }
                at = at.add(64);
            }
            at.copy_from_nonoverlapping(after.as_ptr(), after.len());
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: there is room for `src` at `dst`, and the two do not overlap.
    unsafe {
        dst.copy_from_nonoverlapping(src.as_ptr(), src.len())
    }
}
