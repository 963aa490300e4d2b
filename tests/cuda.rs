//! Decoding on a device, bit for bit: every golden model whole, in ranges, tensor by tensor and in batches, on the emulated
//! driver, which runs the PTX that the library ships.
#![cfg(target_os = "linux")]

mod support;

use df11::cuda::{self, Device, Resident, Stream, image};
use df11::host::{self, DecodeOptions};
use df11::{Model, OpenOptions};
use half::bf16;
use support::engine::{Emulator, Engine};
use support::golden;
use support::weights::Random;

/// Bytes around a destination that must stay as they are.
const GUARD: u64 = 64;
const PAINT: u8 = 0xa5;

/// A destination `off` bytes from an aligned address, with painted bytes around it.
struct Target {
    base: u64,
    dst: u64,
    bytes: u64,
}

impl Target {
    fn new(engine: &Engine, bytes: u64, off: u64) -> Target {
        let all = bytes + 2 * GUARD + off;
        let base = engine.alloc(all);
        engine.fill(base, PAINT, all);
        Target { base, dst: base + GUARD + off, bytes }
    }

    /// The bytes that were written, after a look at those around, which must not have been.
    fn take(self, engine: &Engine) -> Vec<u8> {
        let (before, after) = (self.dst - self.base, GUARD);
        let all = engine.read(self.base, before + self.bytes + after);
        let (head, rest) = all.split_at(before as usize);
        let (middle, tail) = rest.split_at(self.bytes as usize);
        assert!(head.iter().chain(tail).all(|&b| b == PAINT), "bytes outside the destination were written");
        engine.free(self.base);
        middle.to_vec()
    }
}

/// A group's weights by the CPU's decoder, which other tests hold against the originals.
fn want(model: &Model, group: usize) -> Vec<u8> {
    let mut weights = vec![bf16::ZERO; model.groups()[group].element_count() as usize];
    host::decompress(model, group, 0, &mut weights, &DecodeOptions::default()).unwrap();
    weights.iter().flat_map(|w| w.to_bits().to_le_bytes()).collect()
}

/// A group uploaded, with memory of the engine's.
fn upload(engine: &Engine, device: &Device, model: &Model, group: usize, stream: Stream) -> (u64, Resident) {
    let bytes = image::Layout::of(&model.groups()[group]).unwrap().image_bytes;
    let at = engine.alloc(bytes);
    engine.fill(at, PAINT, bytes);
    // SAFETY: model, memory and stream outlive the upload in every test.
    let resident = unsafe { device.upload(model, group, at, bytes, stream, None) }.unwrap();
    (at, resident)
}

fn open(name: &str) -> Model {
    Model::open(golden::model(name), &OpenOptions::default()).unwrap()
}

/// Every group of every golden model, uploaded: the image is what the host writes, and decodes to what the CPU decodes.
#[test]
fn every_golden_group_uploads_to_the_hosts_image_and_decodes_whole() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    for name in golden::NAMES {
        let model = open(name);
        for group in 0..model.groups().len() {
            let (at, resident) = upload(&engine, &device, &model, group, stream);
            let want = want(&model, group);
            let target = Target::new(&engine, want.len() as u64, 2 * (group as u64 % 8));
            // SAFETY: all memory lives until the stream was waited for.
            unsafe { resident.decompress(target.dst, target.bytes, status, stream) }.unwrap();
            engine.synchronise(stream);
            assert!(target.take(&engine) == want, "{name}: group {group} differs");
            assert_eq!(engine.read_u32(status), 0, "{name}: group {group}");

            let layout = *resident.layout();
            let mut image = vec![0; layout.image_bytes as usize];
            image::write_image(&model, group, &mut image, 1).unwrap();
            let made = engine.read(at, layout.image_bytes);
            let difference = image.iter().zip(&made).position(|(a, b)| a != b);
            assert_eq!(difference, None, "{name}: the image of group {group} differs, {layout:?}");
            engine.free(at);
        }
    }
    emulator.assert_no_fault();
    engine.free(status);
    engine.destroy(stream);
}
