//! Destinations in device memory that show a stray write, and the weights that are expected in them.

use super::engine::Engine;
use df11::internals::cuda::{Device, Resident, Stream, image};
use df11::{DecodeOptions, Model};
use half::bf16;

/// Bytes around a destination that must stay as they are.
const GUARD: u64 = 64;
/// The value of every byte of memory that the library has not written yet.
pub const PAINT: u8 = 0xa5;

/// A destination `off` bytes from an aligned address, with painted bytes around it.
pub struct Target {
    pub base: u64,
    pub dst: u64,
    pub bytes: u64,
}

impl Target {
    pub fn new(engine: &Engine, bytes: u64, off: u64) -> Target {
        let all = bytes + 2 * GUARD + off;
        let base = engine.alloc(all);
        engine.fill(base, PAINT, all);
        Target { base, dst: base + GUARD + off, bytes }
    }

    /// Returns the bytes of the destination, and asserts that those around it were not written. Frees the memory.
    pub fn take(self, engine: &Engine) -> Vec<u8> {
        let (before, after) = (self.dst - self.base, GUARD);
        let all = engine.read(self.base, before + self.bytes + after);
        let (head, rest) = all.split_at(before as usize);
        let (middle, tail) = rest.split_at(self.bytes as usize);
        assert!(head.iter().chain(tail).all(|&b| b == PAINT), "bytes outside the destination were written");
        engine.free(self.base);
        middle.to_vec()
    }
}

/// Decodes a group on the CPU. (Other tests compare that decoder with the originals.)
pub fn want(model: &Model, group: usize) -> Vec<u8> {
    let mut weights = vec![bf16::ZERO; model.group(group).unwrap().element_count() as usize];
    model.group(group).unwrap().decompress(0, &mut weights, &DecodeOptions::default()).unwrap();
    weights.iter().flat_map(|w| w.to_bits().to_le_bytes()).collect()
}

/// Uploads a group into memory that the engine owns. Returns the address and the resident.
pub fn upload(engine: &Engine, device: &Device, model: &Model, group: usize, stream: Stream) -> (u64, Resident) {
    let bytes = image::ImageLayout::of(model.group(group).unwrap()).unwrap().image_bytes;
    let at = engine.alloc(bytes);
    engine.fill(at, PAINT, bytes);
    // SAFETY: model, memory and stream outlive the upload in every test.
    let resident = unsafe { device.upload(model.group(group).unwrap(), at, bytes, stream, None) }.unwrap();
    (at, resident)
}
