//! Writes into images, which are written once and read by others. (Miri knows no stores past the caches, and gets plain
//! ones.)

/// The least size of an image that is written past the caches: it would not stay in them, and a store that fetches its
/// line first moves half as much again.
const STREAMING_IMAGE_BYTES: u64 = 4 << 20;

/// The memory of an image that is being written, by threads that write disjoint parts of it. Nothing is read from it.
pub(super) struct Target {
    dst: *mut u8,
    /// Bytes that are written: the image's, or its first ones.
    bytes: u64,
}

// SAFETY: threads write through `dst` in disjoint parts.
unsafe impl Sync for Target {}

impl Target {
    /// # Safety
    ///
    /// `bytes` bytes at `dst` can be written by any thread as long as the target lives, and nobody else uses them.
    pub unsafe fn new(dst: *mut u8, bytes: u64) -> Target {
        Target { dst, bytes }
    }

    /// Returns the bytes that are written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether they are written past the caches.
    pub fn streams(&self) -> bool {
        self.bytes >= STREAMING_IMAGE_BYTES
    }

    /// Returns the address of `bytes` bytes.
    pub fn address(&self, at: u64, bytes: u64) -> *mut u8 {
        assert!(at.checked_add(bytes).is_some_and(|end| end <= self.bytes));
        self.dst.wrapping_add(at as usize)
    }

    /// Writes bytes of the image.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        // SAFETY: the image's bytes can all be written, and these are inside it, as `address` asserts.
        unsafe { self.address(at, bytes.len() as u64).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Writes many bytes of the image. [`crate::huffman::fence`] orders them with what the thread does later.
    pub fn put_all(&self, at: u64, bytes: &[u8]) {
        if !self.streams() {
            return self.put(at, bytes);
        }
        // SAFETY: the image's bytes can all be written, these are inside it, and the source is another's memory.
        unsafe { stream(bytes, self.address(at, bytes.len() as u64)) };
    }

    /// Writes zeros from one byte of the image to another.
    pub fn zero(&self, from: u64, to: u64) {
        assert!(from <= to);
        // SAFETY: the image's bytes can all be written, and these are inside it, as `address` asserts.
        unsafe { self.address(from, to - from).write_bytes(0, (to - from) as usize) };
    }
}

/// Copies bytes, past the caches where the processor can. Such stores are ordered with nothing else before
/// [`fence`](crate::huffman::fence).
///
/// # Safety
///
/// `src.len()` bytes can be written at `dst`, and `src` is not among them.
unsafe fn stream(src: &[u8], dst: *mut u8) {
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
