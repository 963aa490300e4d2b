//! Places in memory: the largest group that there can be, and destinations side by side.

use std::ffi::c_void;

use df11::internals::cuda::image;

use super::support::engine::{Emulator, Engine};
use super::support::weights::{self, Random};
use super::{PAINT, model_of, put32, put64, sum};

/// Memory that takes no room before it is written, known to the driver.
struct Sparse<'a> {
    engine: &'a Engine<'a>,
    at: *mut c_void,
    bytes: usize,
}

impl<'a> Sparse<'a> {
    fn new(engine: &'a Engine<'a>, bytes: u64) -> Sparse<'a> {
        let bytes = bytes as usize;
        // SAFETY: fresh pages.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        engine.register(at, bytes);
        Sparse { engine, at, bytes }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        assert!(at as usize + bytes.len() <= self.bytes);
        // SAFETY: inside the pages.
        unsafe { self.at.cast::<u8>().add(at as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for Sparse<'_> {
    fn drop(&mut self) {
        self.engine.unregister(self.at);
        // SAFETY: the pages of `new`.
        unsafe { libc::munmap(self.at, self.bytes) };
    }
}

/// 2^32 - 1 weights of 32 bits each, the largest group that an image can be of: its last tiles are found and decoded, and so
/// is one tile of every power of two. Where the index says nothing (zeros) the status does.
#[test]
fn the_largest_group_decodes_to_its_very_end() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let n = u32::MAX as u64;
    // A head by hand: every window begins a word of 32 bits, that of exponent 131.
    let (code_bytes, tiles) = (4 * n, n.div_ceil(3328));
    let up = |bytes: u64| bytes.next_multiple_of(256);
    let (ends, table) = (256, 512);
    let starts = table + 16384;
    let lanes = up(starts + 4 * (tiles + 1));
    let code = up(lanes + 64 * tiles);
    let section = code_bytes.next_multiple_of(16) + 64;
    let signs = up(code + section);
    let parked = up(code_bytes.div_ceil(4096) * 320) + 4 * (code_bytes.div_ceil(4096) + 2);
    let all = up(signs + n.max(parked));
    let mut head = vec![0; starts as usize];
    head[..8].copy_from_slice(b"DF11IMG\0");
    for (at, value) in [(8, 1), (12, starts), (40, 1), (44, 104), (48, 11), (52, 7), (56, 16384), (60, 32)] {
        put32(&mut head, at, value as u32);
    }
    let numbers = [all, n, code_bytes];
    numbers.iter().enumerate().for_each(|(i, &value)| put64(&mut head, 16 + 8 * i, value));
    let offsets = [ends, table, starts, lanes, code, section, signs, tiles];
    offsets.iter().enumerate().for_each(|(i, &value)| put64(&mut head, 64 + 8 * i, value));
    put64(&mut head, 256, n);
    for window in 0..2048 {
        put32(&mut head, 512 + 8 * window, 131 << 24);
        put32(&mut head, 516 + 8 * window, 8 << 8 | 32);
    }
    sum(&mut head, starts as usize);

    let memory = Sparse::new(&engine, all);
    memory.put(0, &head);
    memory.put(starts + 4 * tiles, &((code_bytes / 16 + 1) as u32).to_le_bytes());
    let index = |tile: u64| {
        memory.put(starts + 4 * tile, &((tile * 832) as u32).to_le_bytes());
        for lane in (tile * 32..tile * 32 + 32).take_while(|lane| lane * 104 < n) {
            memory.put(lanes + 2 * lane, &((lane * 3328) as u16).to_le_bytes());
        }
    };
    // SAFETY: the pages live as long as the resident.
    let resident = unsafe { device.bind_image(&head, memory.at as u64, all) }.unwrap();
    let room = 2 * 3 * 3328;
    let dst = engine.alloc(room);
    let decode = |first: u64, count: u64, off: u64| {
        engine.fill(dst, PAINT, room);
        engine.fill(status, 0, 4);
        // SAFETY: all memory lives until the stream was waited for.
        unsafe { resident.decompress_range(first, count, dst + off, 2 * count, status, stream) }.unwrap();
        engine.synchronise(stream);
        (engine.read(dst + off, 2 * count), engine.read_u32(status))
    };
    let borders = (0..32).map(|power| (1u64 << power).min(n) / 3328).chain([tiles - 2]);
    for tile in borders {
        (tile..(tile + 3).min(tiles)).for_each(index);
        let first = tile * 3328 + 5;
        let count = (3328 + 100).min(n - first);
        let sign: Vec<u8> = (0..count).map(|i| (i * 7 + tile) as u8).collect();
        memory.put(signs + first, &sign);
        let want: Vec<u8> =
            sign.iter().flat_map(|&s| ((s as u16 & 0x80) << 8 | 131 << 7 | (s as u16 & 0x7f)).to_le_bytes()).collect();
        for off in [0, 6] {
            let (got, status) = decode(first, count, off);
            assert!(status == 0 && got == want, "tile {tile} of {tiles}: status {status}");
        }
    }
    // Sparse: zeros for an index.
    assert_eq!(decode(3_000_000_000, 3 * 3328 - 10, 2).1, 103);
    // One of the last weights alone, and one too many.
    assert_eq!(decode(n - 1, 1, 0).1, 0);
    // SAFETY: refused.
    assert!(unsafe { resident.decompress_range(n - 1, 2, dst, 4, status, stream) }.is_err());
    emulator.assert_no_fault();
}

/// 1024 tensors, every second one empty, to places side by side in every order, and a single weight.
#[test]
fn tensors_without_weights_and_places_side_by_side_are_exact() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let weights = weights::trained_like(3_000, 4);
    let all: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let mut random = Random::new(31);
    for round in 0..6 {
        let splits: Vec<u64> = match round {
            0 => vec![0; 1023],
            1 => vec![3_000; 1023],
            2 => (0..1023).map(|i| i / 2).collect(),
            _ => {
                let mut splits: Vec<u64> = (0..1023).map(|_| random.below(3_001)).collect();
                splits.sort_unstable();
                splits
            }
        };
        let model = model_of(&weights, &splits);
        let bytes = image::ImageLayout::of(model.group(0).unwrap()).unwrap().image_bytes;
        let (at, base, status) = (engine.alloc(bytes), engine.alloc(20_000), engine.alloc(4));
        engine.fill(status, 0, 4);
        // SAFETY: all memory lives until the stream was waited for.
        let resident = unsafe { device.upload(model.group(0).unwrap(), at, bytes, stream, None) }.unwrap();
        let ends = resident.ends().to_vec();
        let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).take(ends.len()).collect();
        let sizes: Vec<u64> = ends.iter().zip(&starts).map(|(end, start)| 2 * (end - start)).collect();
        // Side by side as they are, in the opposite order, with one weight between, and some left out.
        for order in 0..4 {
            engine.fill(base, PAINT, 20_000);
            let mut want = vec![PAINT; 20_000];
            let mut dsts = vec![0; ends.len()];
            let mut to = 256;
            let order_of: Vec<usize> = if order == 1 { (0..1024).rev().collect() } else { (0..1024).collect() };
            for i in order_of {
                if order == 3 && random.below(4) == 0 {
                    continue;
                }
                dsts[i] = base + to as u64;
                want[to..to + sizes[i] as usize].copy_from_slice(&all[2 * starts[i] as usize..2 * ends[i] as usize]);
                to += sizes[i] as usize + if order == 2 { 2 } else { 0 };
            }
            // SAFETY: as above.
            unsafe { resident.decompress_tensors(&dsts, &sizes, status, stream) }.unwrap();
            engine.synchronise(stream);
            assert!(engine.read(base, 20_000) == want, "splits {round}, order {order}");
            assert_eq!(engine.read_u32(status), 0);
        }
        // What leaves the address space is refused, whatever the tensor; nothing is launched.
        emulator.control("clear", "launches");
        for far in [u64::MAX, u64::MAX - 1, 1 << 63 | 1] {
            // SAFETY: refused.
            let result = unsafe { resident.decompress_tensors(&vec![far; 1024], &sizes, status, stream) };
            assert!(result.is_err(), "{far:#x}");
        }
        engine.synchronise(stream);
        assert_eq!(emulator.query("launches"), 0);
        for memory in [at, base, status] {
            engine.free(memory);
        }
    }
    emulator.assert_no_fault();
}
