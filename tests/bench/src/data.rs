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

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

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

/// Bytes aligned to a cache line, in small pages or, if the system has them, in huge ones.
pub struct Lines {
    memory: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is this value's alone.
unsafe impl Send for Lines {}
// SAFETY: shared references only read.
unsafe impl Sync for Lines {}

impl Lines {
    /// Zeros, whose pages are there.
    pub fn new(bytes: usize, huge: bool) -> Lines {
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        let layout = std::alloc::Layout::from_size_align(bytes, HUGE_PAGE).expect("no size is too large here");
        // SAFETY: the size is not 0.
        let memory = unsafe { std::alloc::alloc(layout) };
        assert!(!memory.is_null(), "out of memory");
        #[cfg(target_os = "linux")]
        // SAFETY: the range is one allocation, aligned to pages; the advice changes no contents.
        unsafe {
            libc::madvise(memory.cast(), bytes, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
        }
        let _ = huge;
        // SAFETY: the bytes were allocated.
        unsafe { memory.write_bytes(0, bytes) };
        Lines { memory, bytes }
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        // SAFETY: all bytes are initialised, and are borrowed as this value is.
        unsafe { std::slice::from_raw_parts(self.memory, self.bytes) }
    }

    /// The bytes.
    pub fn get_mut(&mut self) -> &mut [u8] {
        // SAFETY: all bytes are initialised, and are borrowed as this value is.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.bytes) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let layout = std::alloc::Layout::from_size_align(self.bytes, HUGE_PAGE).expect("it was one before");
        // SAFETY: it was allocated with this layout.
        unsafe { std::alloc::dealloc(self.memory, layout) };
    }
}
