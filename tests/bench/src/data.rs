//! What is decoded: weights, and a DF11 model of them.

use crate::{encoder, weights};

/// One case of the benchmark.
pub struct Data {
    /// The weights as they were.
    pub original: Vec<u16>,
    /// A DF11 model of one group with these weights, as a single file.
    pub model: Vec<u8>,
    /// Bytes of the group's members.
    pub df11_bytes: usize,
    /// Mean length of the codes.
    pub code_bits: f64,
}

/// The name of the model's only group.
pub const GROUP: &str = "layers.0";

impl Data {
    /// So many weights whose exponents spread as a trained layer's do.
    pub fn new(n: usize) -> Data {
        let original = weights::trained_like(n, 11);
        let histogram = encoder::histogram(&original);
        let codes = encoder::code_table(&histogram);
        // Seven tensors, as a decoder layer of a language model has; their sizes do not matter here.
        let splits: Vec<u64> = (1..7).map(|i| (n as u64 * i) / 7).collect();
        let tensors = encoder::group_tensors(GROUP, &encoder::encode_with_codes(&original, &splits, &codes));
        let df11_bytes = tensors.iter().map(|t| t.3.len()).sum();
        Data {
            model: encoder::safetensors(&tensors, None),
            df11_bytes,
            code_bits: codes.mean_bits(&histogram),
            original,
        }
    }
}

/// Memory for the weights, aligned to a page as large allocations of engines are, and written once.
pub struct Buffer {
    memory: Vec<Page>,
    len: usize,
}

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
