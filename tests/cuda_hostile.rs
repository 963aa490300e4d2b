//! Hostile images and hostile programs on a device: heads made by hand whose checksum is right, thousands of damaged images
//! held against the oracle, files that change under an upload, the largest group that there can be, contexts that end too
//! early, and many threads while the driver fails.
#![cfg(target_os = "linux")]

mod support;

use df11::cuda::{Device, Stream, image};
use df11::{Model, OpenOptions, Status};
use sha2::{Digest, Sha256};
use std::ffi::c_void;
use support::encoder::{encode, group_tensors, safetensors};
use support::engine::{self, Emulator, Engine};
use support::weights::{self, Random};
use support::{check, golden};

const PAINT: u8 = 0xa5;

fn model_of(weights: &[u16], splits: &[u64]) -> Model {
    let file = safetensors(&group_tensors("g", &encode(weights, splits)), None);
    Model::from_bytes(file, &OpenOptions::default()).unwrap()
}

fn image_of(model: &Model, group: usize) -> (image::Layout, Vec<u8>) {
    let layout = image::Layout::of(&model.groups()[group]).unwrap();
    let mut bytes = vec![0; layout.image_bytes as usize];
    image::write_image(model, group, &mut bytes, 1).unwrap();
    (layout, bytes)
}

/// Gives a head the checksum that fits it: whoever lies can do that.
fn sum(image: &mut [u8], head_bytes: usize) {
    let mut hasher = Sha256::new();
    hasher.update(&image[..240]);
    hasher.update(&image[256..head_bytes]);
    let digest = hasher.finalize();
    image[240..248].copy_from_slice(&digest[..8]);
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Bytes behind the last weight's code, within its block: the host refuses such a file, and so does the device.
#[test]
fn code_bytes_that_nothing_is_coded_in_are_found_on_the_device_too() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let (status, good) = (engine.alloc(4), encode(&weights::trained_like(7_000, 1), &[]));
    for more in [0, 1, 7, 100] {
        let mut group = good.clone();
        group.encoded_exponent.resize(good.encoded_exponent.len() + more, 0);
        let file = safetensors(&group_tensors("g", &group), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
        let layout = image::Layout::of(&model.groups()[0]).unwrap();
        let mut bytes = vec![0; layout.image_bytes as usize];
        assert_eq!(image::write_image(&model, 0, &mut bytes, 1).is_err(), more > 0, "{more} bytes more");
        let (at, dst) = (engine.alloc(layout.image_bytes), engine.alloc(2 * layout.weights));
        engine.fill(status, 0, 4);
        // SAFETY: model and memory outlive the stream's work, which is waited for.
        unsafe {
            let resident = device.upload(&model, 0, at, layout.image_bytes, stream, None).unwrap();
            resident.decompress(dst, 2 * layout.weights, status, stream).unwrap();
            engine.synchronise(stream);
        }
        assert_eq!(engine.read_u32(status), if more > 0 { Status::Corrupt as u32 } else { 0 }, "{more} bytes more");
    }
    emulator.assert_no_fault();
}

/// Every field of a head at its limits, and heads changed at random, all with a checksum that fits: what is taken decodes inside
/// its image and its destination.
#[test]
fn heads_that_lie_with_the_right_checksum_are_refused_or_harmless() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let model = model_of(&weights::trained_like(7_000, 1), &[1, 104, 3328]);
    let (layout, good) = image_of(&model, 0);
    let head_bytes = layout.head_bytes() as usize;
    let at = engine.alloc(layout.image_bytes);
    let status = engine.alloc(4);
    let dst = engine.alloc(2 * layout.weights);
    let mut taken = 0;
    let mut try_head = |head: &[u8], what: &str| {
        // SAFETY: the image is as large as the good one, and nothing larger is taken.
        match unsafe { device.bind_image(head, at, layout.image_bytes) } {
            Err(error) => {
                let status = error.status();
                let known = [Status::InvalidFormat, Status::UnsupportedFormat, Status::Corrupt, Status::BufferTooSmall];
                assert!(known.contains(&status), "{what}: {error}");
            }
            Ok(resident) => {
                taken += 1;
                let weights = resident.layout().weights;
                assert!(resident.layout().image_bytes <= layout.image_bytes, "{what}");
                let bytes = 2 * weights.min(layout.weights);
                assert!(weights <= 3 * layout.weights, "{what}");
                engine.write(at, &good);
                engine.write(at, &head[..head_bytes.min(head.len())]);
                engine.fill(status, 0, 4);
                // SAFETY: all memory lives until the stream was waited for.
                unsafe {
                    resident.decompress_range(weights - bytes / 2, bytes / 2, dst, bytes, status, stream).unwrap()
                };
                engine.synchronise(stream);
                assert!([0, 103].contains(&engine.read_u32(status)), "{what}");
            }
        }
    };
    try_head(&good, "as it is");
    for len in [0, 1, 7, 8, 239, 255, 256, 257, head_bytes - 1] {
        try_head(&good[..len], "cut short");
    }
    let wide = |at: usize| [16, 24, 32].contains(&at) || (64..128).contains(&at);
    for field in (8..240).step_by(4) {
        let now = u32::from_le_bytes(good[field..field + 4].try_into().unwrap());
        for value in
            [0, 1, now ^ 1, now.wrapping_add(1), now.wrapping_sub(1), now * 2, 0x7fff_ffff, u32::MAX - 3, u32::MAX]
        {
            let mut head = good[..head_bytes].to_vec();
            put32(&mut head, field, value);
            sum(&mut head, head_bytes);
            try_head(&head, &format!("{value:#x} at {field}"));
            if wide(field & !7) {
                put64(&mut head, field & !7, u64::MAX - value as u64 % 4096);
                sum(&mut head, head_bytes);
                try_head(&head, &format!("a large number at {field}"));
            }
        }
    }
    let mut random = Random::new(8);
    for round in 0..6000 {
        let mut head = good[..head_bytes].to_vec();
        for _ in 0..1 + random.below(3) {
            let at = match random.below(3) {
                0 => 8 + random.below(232),
                1 => layout.ends + random.below(8 * layout.tensors as u64),
                _ => layout.table + random.below(layout.table_bytes as u64),
            } as usize;
            head[at] = if random.below(2) == 0 { head[at] ^ 1 << random.below(8) } else { random.bits() as u8 };
        }
        sum(&mut head, head_bytes);
        try_head(&head, &format!("round {round}"));
    }
    assert!(taken > 100, "only {taken} were taken");
    emulator.assert_no_fault();
}

/// Thousands of damaged images, section by section, with a status and without: no access goes astray, every kernel ends, and the status is what the
/// oracle says of the same bytes.
#[test]
fn thousands_of_damaged_images_are_judged_as_the_oracle_does() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let mut random = Random::new(11);
    let kinds: [(&str, Vec<u16>); 5] = [
        ("trained", weights::trained_like(7_777, 5)),
        ("uniform", weights::uniform_exponents(3_500, 60..=180, 3)),
        ("long", weights::fibonacci(14, 2)),
        ("one bit", weights::one_bit(3_400, 120, 1)),
        ("one", weights::constant(1, 0x3f80)),
    ];
    let (mut agreed, mut missed, mut early) = (0, 0, 0);
    for (kind, weights) in kinds {
        let model = model_of(&weights, &[]);
        let (layout, good) = image_of(&model, 0);
        let n = layout.weights;
        let at = engine.alloc(layout.image_bytes);
        let base = engine.alloc(2 * n + 256);
        // SAFETY: the memory lives as long as the resident.
        let resident = unsafe { device.bind(&model, 0, at, layout.image_bytes) }.unwrap();
        for round in 0..check::rounds(1_700) {
            let sections = [layout.table, layout.starts, layout.lanes, layout.code, layout.signs, layout.image_bytes];
            let section = random.below(5) as usize;
            let (from, to) = (sections[section] as usize, sections[section + 1] as usize);
            let mut bad = good.clone();
            match random.below(5) {
                0 => bad[from + random.below((to - from) as u64) as usize] ^= 1 << random.below(8),
                1 => (0..8).for_each(|_| bad[from + random.below((to - from) as u64) as usize] = random.bits() as u8),
                2 => bad[from..to].fill([0, 0xff, 0x80, 1][random.below(4) as usize]),
                3 => bad[from..to].iter_mut().for_each(|b| *b = random.bits() as u8),
                _ => {
                    let len = 1 + random.below((to - from) as u64 / 2) as usize;
                    let (a, b) =
                        (random.below((to - from - len) as u64 + 1), random.below((to - from - len) as u64 + 1));
                    bad.copy_within(from + a as usize..from + a as usize + len, from + b as usize);
                }
            }
            let first = if random.below(3) == 0 { random.below(n) } else { 0 };
            let count = if random.below(3) == 0 { 1 + random.below(n - first) } else { n - first };
            let dst = base + 64 + 2 * random.below(8);
            // Without a word for it nothing can be reported, and nothing else may change.
            let asked = if random.below(4) == 0 { 0 } else { status };
            engine.write(at, &bad);
            engine.fill(base, PAINT, 2 * n + 256);
            engine.fill(status, 0, 4);
            // SAFETY: all memory lives until the stream was waited for.
            unsafe { resident.decompress_range(first, count, dst, 2 * count, asked, stream) }.unwrap();
            let what = format!("{kind}, round {round}, section {section}, weights {first} + {count}");
            assert_eq!(engine.wait(stream), 0, "{what}: {}", emulator.text("fault"));
            let got = engine.read(base, 2 * n + 256);
            let lead = (dst - base) as usize;
            let (before, rest) = got.split_at(lead);
            let (got, behind) = rest.split_at(2 * count as usize);
            assert!(before.iter().chain(behind).all(|&b| b == PAINT), "{what}: bytes outside were written");
            let said = engine.read_u32(status);
            assert!(said == 0 || said == 103, "{what}: {said}");
            assert!(said == 0 || asked != 0, "{what}: a status that was not asked for");
            // The oracle wants a head whose table is one; the kernel takes any.
            if section == 0 || asked == 0 {
                continue;
            }
            // A kernel looks at whole tiles.
            let from = first / 3328 * 3328;
            let to = (first + count).next_multiple_of(3328).min(n);
            let oracle = image::decode(&bad, from, to - from).unwrap();
            match (said, oracle.good) {
                (0, false) => missed += 1,
                (103, true) => early += 1,
                _ => agreed += 1,
            }
            // Silence means that each lane was decoded from where the index says to its end, as the oracle does it.
            if said == 0 {
                let want = &oracle.weights[(first - from) as usize..][..count as usize];
                let want: Vec<u8> = want.iter().flat_map(|w| w.to_le_bytes()).collect();
                assert!(got == want, "{what}: weights differ");
            }
        }
        engine.free(at);
        engine.free(base);
    }
    emulator.assert_no_fault();
    // They measure differently whether a lane ends where the next begins; the kernel asks where a tile's code ends, which the
    // oracle does not, but not where the last lane does.
    assert!(agreed > 25 * (missed + early), "{agreed} {missed} {early}");
}

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

/// A file that changes between its opening and the upload, so that positions are what no opening lets pass: the kernel that
/// makes the index stays inside the image, and where it reports nothing its image is the one that the host makes.
#[test]
fn files_that_change_before_the_upload_give_a_good_image_or_a_report() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut random = Random::new(21);
    let kinds = [
        ("trained", weights::trained_like(40_000, 5)),
        ("uniform", weights::uniform_exponents(9_000, 60..=180, 3)),
        ("one bit", weights::one_bit(70_000, 120, 1)),
    ];
    let (mut reported, mut silent) = (0, 0);
    for (kind, weights) in kinds {
        let encoded = encode(&weights, &[]);
        let tensors = group_tensors("g", &encoded);
        std::fs::write(&path, safetensors(&tensors, None)).unwrap();
        let model = Model::open(&path, &OpenOptions::default()).unwrap();
        let (layout, _) = image_of(&model, 0);
        let (at, base) = (engine.alloc(layout.image_bytes), engine.alloc(2 * layout.weights + 256));
        for round in 0..check::rounds(500) {
            let mut bad = tensors.clone();
            let which = ["encoded_exponent", "gaps", "output_positions"][random.below(3) as usize];
            let data = &mut bad.iter_mut().find(|tensor| tensor.0.ends_with(which)).unwrap().3;
            let len = data.len() as u64;
            match random.below(5) {
                0 => data[random.below(len) as usize] ^= 1 << random.below(8),
                1 => data.fill([0, 0xff, 0x80][random.below(3) as usize]),
                2 => data.iter_mut().for_each(|b| *b = random.bits() as u8),
                3 => (0..4).for_each(|_| data[random.below(len) as usize] = random.bits() as u8),
                _ => data.rotate_left(4 * random.below(len / 4) as usize),
            }
            std::fs::write(&path, safetensors(&bad, None)).unwrap();
            engine.fill(at, PAINT, layout.image_bytes);
            engine.fill(base, PAINT, 2 * layout.weights + 256);
            engine.fill(status, 0, 4);
            let what = format!("{kind}, round {round}, {which}");
            // SAFETY: all memory lives until the stream was waited for.
            unsafe {
                let resident = device.upload(&model, 0, at, layout.image_bytes, stream, None).unwrap();
                if random.below(4) == 0 {
                    resident.decompress(base + 128, 2 * layout.weights, 0, stream).unwrap();
                }
                resident.decompress(base + 128, 2 * layout.weights, status, stream).unwrap();
                assert_eq!(engine.wait(stream), 0, "{what}: {}", emulator.text("fault"));
            }
            let all = engine.read(base, 2 * layout.weights + 256);
            assert!(all[..128].iter().chain(&all[all.len() - 128..]).all(|&b| b == PAINT), "{what}");
            let said = engine.read_u32(status);
            let mut image = vec![0; layout.image_bytes as usize];
            let host = image::write_image(&model, 0, &mut image, 1);
            match (said, host) {
                (0, Ok(())) => {
                    silent += 1;
                    assert!(engine.read(at, layout.image_bytes) == image, "{what}: another image");
                }
                (103, _) => reported += 1,
                (said, host) => panic!("{what}: the device says {said}, the host {host:?}"),
            }
        }
        engine.free(at);
        engine.free(base);
    }
    emulator.assert_no_fault();
    assert!(reported > 900, "{reported} of {}", reported + silent);
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
        let bytes = image::Layout::of(&model.groups()[0]).unwrap().image_bytes;
        let (at, base, status) = (engine.alloc(bytes), engine.alloc(20_000), engine.alloc(4));
        engine.fill(status, 0, 4);
        // SAFETY: all memory lives until the stream was waited for.
        let resident = unsafe { device.upload(&model, 0, at, bytes, stream, None) }.unwrap();
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

/// Sixteen threads over two drivers with two devices each open, upload, bind, decode and free at once, while the driver fails
/// here and there: what succeeds is right, what fails says so, no thread's context changes, and nothing stays behind.
#[test]
fn many_threads_over_two_drivers_survive_failures() {
    let emulators = [Emulator::new(), Emulator::new()];
    emulators.iter().for_each(|emulator| emulator.control("devices", "2"));
    emulators.iter().enumerate().for_each(|(i, emulator)| emulator.control("seed", &(i + 3).to_string()));
    let model = Model::open(golden::model("tiny"), &OpenOptions::default()).unwrap();
    let (layout, image) = image_of(&model, 0);
    let want: Vec<u8> =
        image::decode(&image, 0, layout.weights).unwrap().weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let engines: Vec<Engine> = (0..4).map(|i| Engine::primary(&emulators[i % 2], i as i32 / 2)).collect();
    let failures = [
        "cuCtxPushCurrent_v2@7=719",
        "cuMemcpyHtoDAsync_v2@5=2",
        "cuLaunchKernel@4=913",
        "cuModuleLoadData@1=1",
        "cuMemAlloc_v2@9=2",
        "cuStreamGetCtx@3=999",
        "cuDevicePrimaryCtxRetain@2=100",
        "cuMemsetD8Async@2=1",
        "cuFuncSetAttribute@1=1",
        "cuThreadExchangeStreamCaptureMode@6=4",
        "cuCtxGetId@1=201",
    ];
    let stop = std::sync::atomic::AtomicBool::new(false);
    let done = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (engines, model, want, image, stop, done, layout) =
            (&engines, &model, &want, &image, &stop, &done, &layout);
        let workers: Vec<_> = (0..16)
            .map(|thread| {
                scope.spawn(move || {
                    let engine = &engines[thread % 4];
                    let emulator = engine.emulator;
                    let ordinal = (thread % 4 / 2) as i32;
                    let mut random = Random::new(thread as u64);
                    for _ in 0..25 {
                        let before = engine::current(emulator);
                        let device = match Device::open(ordinal, &emulator.options()) {
                            Ok(device) => device,
                            Err(error) => {
                                assert!(error.native_code() != 0, "{error}");
                                assert_eq!(engine::current(emulator), before);
                                continue;
                            }
                        };
                        let stream = Stream::from_raw(std::ptr::without_provenance_mut(2));
                        // SAFETY: all memory lives until the context was waited for; the per-thread stream is always one.
                        unsafe {
                            let resident = match random.below(3) {
                                0 => device.upload_alloc(model, 0, stream),
                                _ => engine
                                    .try_alloc(layout.image_bytes)
                                    .map(|at| {
                                        engine.try_write(at, image);
                                        device.bind(model, 0, at, layout.image_bytes).map(|resident| (at, resident))
                                    })
                                    .unwrap_or(Err(df11::Error::Internal("no memory".into()))),
                            };
                            let Ok((memory, resident)) = resident else { continue };
                            if random.below(2) == 0 {
                                drop(device.clone());
                            }
                            if let Some(dst) = engine.try_alloc(want.len() as u64) {
                                let decoded = resident.decompress(dst, want.len() as u64, 0, stream);
                                engine.wait_context();
                                if decoded.is_ok() {
                                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                    assert!(engine.read(dst, want.len() as u64) == *want);
                                }
                                engine.free(dst);
                            }
                            drop(resident);
                            while device.free_memory(memory).is_err_and(|e| {
                                !matches!(e, df11::Error::Cuda { call: "cuCtxPopCurrent" | "cuMemFree", .. })
                            }) {}
                        }
                        drop(device);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            for round in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                engines[round % 2].emulator.control("fail", failures[round % failures.len()]);
                std::thread::sleep(std::time::Duration::from_millis(3));
                engines[round % 2].emulator.control("unfail", "");
            }
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    assert!(done.into_inner() > 100);
    for emulator in &emulators {
        emulator.control("unfail", "");
        emulator.control("run", "");
        emulator.assert_no_fault();
        for what in ["allocations", "events", "streams", "captures"] {
            assert_eq!(emulator.query(&format!("live.{what}")), 0, "{what}");
        }
        assert_eq!(emulator.query("live.retains"), 2);
    }
}

/// A context that ends, by its owner's hand, under devices and residents: calls say so, and freeing is safe in every order.
#[test]
fn contexts_may_end_before_what_was_opened_in_them() {
    let emulator = Emulator::new();
    let model = Model::open(golden::model("tiny"), &OpenOptions::default()).unwrap();
    for order in 0..4 {
        let engine = Engine::own(&emulator, 0);
        // SAFETY: what follows is what is looked at: nothing but errors may come of it.
        let device = unsafe { Device::open_current(&emulator.options()) }.unwrap();
        let stream = engine.stream();
        // SAFETY: as above.
        let (memory, resident) = unsafe { device.upload_alloc(&model, 0, stream) }.unwrap();
        let dst = engine.alloc(2 * resident.layout().weights);
        engine.synchronise(stream);
        let bytes = 2 * resident.layout().weights;
        if order % 2 == 0 {
            drop(engine);
            // SAFETY: as above.
            unsafe {
                let failed = resident.decompress(dst, bytes, 0, stream).unwrap_err();
                assert_eq!(failed.status(), Status::Cuda, "{failed}");
                assert!(device.free_memory(memory).is_err());
                assert!(device.upload_alloc(&model, 0, stream).is_err());
            }
            if order == 0 {
                drop(device);
                drop(resident);
            } else {
                drop(resident);
                drop(device);
            }
        } else {
            drop(device);
            // SAFETY: as above; the memory is the context's.
            unsafe { resident.decompress(dst, bytes, 0, stream) }.unwrap();
            engine.synchronise(stream);
            if order == 1 {
                drop(resident);
                drop(engine);
            } else {
                drop(engine);
                drop(resident);
            }
        }
    }
    // SAFETY: no context is current.
    let error = unsafe { Device::open_current(&emulator.options()) }.err().unwrap();
    assert_eq!(error.status(), Status::InvalidArgument);
    emulator.assert_no_fault();
}

/// Opening, uploading, binding, decoding and freeing while another thread captures in each mode: the capture stays whole.
#[test]
fn captures_of_every_mode_live_beside_all_calls() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (captured, other) = (engine.stream(), engine.stream());
    let model = Model::open(golden::model("tiny"), &OpenOptions { read: true, ..Default::default() }).unwrap();
    let bytes = image::Layout::of(&model.groups()[0]).unwrap().image_bytes;
    let (at, dst) = (engine.alloc(bytes), engine.alloc(2 * model.groups()[0].element_count()));
    for mode in [0, 1, 2] {
        for again in [false, true] {
            engine.begin_capture(captured, mode);
            let work = || {
                let device = emulator.open(0);
                // SAFETY: all memory lives until the stream was waited for.
                unsafe {
                    let first = device.upload(&model, 0, at, bytes, other, None).unwrap();
                    let second = device.bind(&model, 0, at, bytes).unwrap();
                    for resident in [&first, &second] {
                        resident.decompress(dst, 2 * resident.layout().weights, 0, other).unwrap();
                    }
                    let (memory, third) = device.upload_alloc(&model, 0, other).unwrap();
                    drop(device);
                    third.device().free_memory(memory).unwrap();
                }
            };
            if again {
                // On the very thread that captures.
                work();
            } else {
                std::thread::scope(|scope| scope.spawn(work).join().unwrap());
            }
            let exec = engine.end_capture(captured).expect("the capture was broken");
            engine.destroy_graph(exec);
            engine.synchronise(other);
        }
    }
    emulator.assert_no_fault();
}
