//! What is decoded and encoded: weights, and a DF11 model of them made by the tests' own encoder.

use crate::contest::cut;
use crate::encoder::{self, Encoded};
use crate::weights;
use df11::{Model, OpenOptions};

/// One case of the benchmark.
pub struct Data {
    /// The weights as they were.
    pub original: Vec<u16>,
    /// The group's members.
    pub packed: Encoded,
    /// Mean length of the codes.
    pub code_bits: f64,
}

/// The name of the model's only group.
const GROUP: &str = "layers.0";
/// Its tensors: as many as a decoder layer of a language model has. Their sizes do not matter here.
const TENSORS: usize = 7;

impl Data {
    /// So many weights whose exponents spread as a trained layer's do.
    pub fn new(n: usize) -> Data {
        let original = weights::trained_like(n, 11);
        let histogram = encoder::histogram(&original);
        let codes = encoder::code_table(&histogram);
        let splits: Vec<u64> = cut(n, TENSORS).skip(1).map(|range| range.start as u64).collect();
        let packed = encoder::encode_with_codes(&original, &splits, &codes);
        Data { packed, code_bits: codes.mean_bits(&histogram), original }
    }

    /// The group's tensors.
    pub fn tensors(&self) -> Vec<&[u16]> {
        cut(self.original.len(), TENSORS).map(|range| &self.original[range]).collect()
    }
}

/// Opens a group's members as a model, a single file in memory.
pub fn open(packed: &Encoded) -> Result<Model, String> {
    let file = encoder::safetensors(&encoder::group_tensors(GROUP, packed), None);
    Model::from_bytes(file, &OpenOptions::default()).map_err(|e| e.to_string())
}

/// Bytes of a group's members.
pub fn bytes(packed: &Encoded) -> usize {
    let Encoded { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } = packed;
    let bytes = [luts, encoded_exponent, sign_mantissa, output_positions, gaps].iter().map(|m| m.len()).sum::<usize>();
    bytes + size_of_val(&split_positions[..])
}

/// Memory for the weights, aligned to a page as large allocations of engines are, and written once.
pub struct Buffer {
    memory: Vec<Page>,
    len: usize,
}

/// A page of any kind: large enough to be a huge one.
const PAGE: usize = 2 << 20;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u16; 2048]);

impl Buffer {
    /// Room for so many weights.
    pub fn new(len: usize) -> Buffer {
        Buffer { memory: vec![Page([0x5555; 2048]); len.div_ceil(2048)], len }
    }

    /// The weights.
    pub fn weights(&mut self) -> &mut [u16] {
        // SAFETY: pages are arrays of u16 without gaps, `len` is at most their number, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.len) }
    }
}

/// Memory for as many of T, in huge pages, and written once.
pub struct Huge<T> {
    /// With room to begin at a huge page.
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy> Huge<T> {
    /// Room for `len` of a value; `None` where the system has no huge pages on request, or does not give any.
    pub fn new(len: usize, value: T) -> Option<Huge<T>> {
        let mut memory: Vec<T> = Vec::with_capacity(len + 2 * PAGE / size_of::<T>());
        let start = memory.as_ptr().align_offset(PAGE);
        if len * size_of::<T>() < PAGE || !advise(memory.as_mut_ptr().wrapping_add(start).cast(), len * size_of::<T>())
        {
            return None;
        }
        memory.resize(start + len, value);
        Some(Huge { memory, start, len })
    }

    /// All of it.
    pub fn all(&mut self) -> &mut [T] {
        &mut self.memory[self.start..][..self.len]
    }

    /// The same, to read.
    pub fn get(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }
}

/// Asks for huge pages before memory is first written. Returns whether the system promises to try.
fn advise(start: *mut u8, bytes: usize) -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: the pages are part of an allocation that has nothing in it yet, and advice changes no contents.
    return unsafe { libc::madvise(start.cast(), bytes.next_multiple_of(PAGE), libc::MADV_HUGEPAGE) == 0 };
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (start, bytes);
        false
    }
}
