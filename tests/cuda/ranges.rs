//! Images of ranges of groups: what they hold and say, on the host and on the emulated driver.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image::{self, Head};
use df11::{Error, Group, Model, OpenOptions, Status};
use support::encoder::{self, Encoded};
use support::engine::{Emulator, Engine};
use support::target::{PAINT, Target, want};
use support::weights::Random;
use support::{files, golden, weights};

/// A byte that no section is full of.
const CANARY: u8 = 0xa7;

/// Writes the image of a range, with guards around it.
fn write(group: Group, first: u64, count: u64, threads: usize) -> Result<Vec<u8>, Error> {
    let bytes = group.image_range_layout(first, count)?.image_bytes as usize;
    let mut memory = vec![CANARY; bytes + 64];
    let result = group.write_image_range(first, count, &mut memory[32..], threads);
    assert!(memory[..32].iter().chain(&memory[32 + bytes..]).all(|&b| b == CANARY), "wrote outside");
    memory.truncate(32 + bytes);
    memory.drain(..32);
    if result.is_err() {
        assert!(memory[..256].iter().all(|&b| b == 0), "a half image has a header");
    }
    result.map(|()| memory)
}

/// Ranges of `n` weights: at every kind of border, and random ones.
fn ranges(n: u64, more: usize, random: &mut Random) -> Vec<(u64, u64)> {
    let mut all = vec![(0, 1), (n - 1, 1), (0, n), (0, n - n / 2), (n / 2, n - n / 2), (n / 3, n / 3 + 1)];
    for border in [1, 103, 104, 105, 3327, 3328, 3329, 12_000] {
        if n > border {
            all.extend([(border, n - border), (0, border), (n - border, border)]);
        }
    }
    for _ in 0..more {
        let first = random.below(n);
        all.push((first, 1 + random.below(n - first)));
    }
    all.retain(|&(first, count)| count > 0 && first + count <= n);
    all
}

/// Checks the image of a range against the group's weights (two bytes each), and what it says. Returns it.
fn check(what: &str, group: Group, want: &[u8], first: u64, count: u64) -> Vec<u8> {
    let what = format!("{what}: {first} + {count}");
    let written = write(group, first, count, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
    let all = group.image_layout().unwrap();
    let head = Head::parse(&written).unwrap_or_else(|e| panic!("{what}: {e}"));
    let layout = *head.layout();
    assert_eq!(layout, group.image_range_layout(first, count).unwrap(), "{what}");
    assert_eq!(layout.image_bytes, written.len() as u64, "{what}");
    assert_eq!(head.bytes().unwrap(), written[..layout.head_bytes() as usize], "{what}");
    assert_eq!((layout.weights, layout.extent.first), (count, first), "{what}");
    assert_eq!((layout.extent.group_weights, layout.extent.group_tensors), (all.weights, all.tensors), "{what}");
    assert_eq!(layout.is_whole(), count == all.weights, "{what}");
    // The tensors, one weight after the other.
    let cuts: Vec<u64> = group.runs().map(|run| run.group_offset() + run.element_count()).collect();
    let tensors = layout.extent.first_tensor as usize..(layout.extent.first_tensor + layout.tensors) as usize;
    let ends: Vec<u64> = cuts[tensors].iter().map(|&cut| cut.clamp(first, first + count) - first).collect();
    assert_eq!(head.ends(), ends, "{what}");
    if !layout.is_whole() {
        let start = |i: usize| if i == 0 { 0 } else { ends[i - 1] };
        assert!(ends[0] > 0 && start(ends.len() - 1) < count, "{what}: a tensor at the border without a weight");
    }
    let decoded = image::decode(&written, 0, count).unwrap();
    let weights: Vec<u8> = decoded.weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    assert!(decoded.good, "{what}");
    assert!(weights == want[2 * first as usize..2 * (first + count) as usize], "{what}: other weights");
    written
}

fn codes_bytes(image: &[u8]) -> u64 {
    Head::parse(image).unwrap().layout().code_bytes
}

#[test]
fn every_golden_group_in_every_kind_of_range() {
    let mut random = Random::new(3);
    for name in golden::NAMES {
        for read in [false, true] {
            let model = files::open(golden::model(name), read).unwrap();
            for group in model.groups() {
                let (want, n) = (want(&model, group.number()), group.element_count());
                let mut whole = vec![0; group.image_layout().unwrap().image_bytes as usize];
                group.write_image(&mut whole, 1).unwrap();
                for (first, count) in ranges(n, 6, &mut random) {
                    let written = check(name, group, &want, first, count);
                    assert!(write(group, first, count, 3).unwrap() == written, "{name}: threads");
                    assert_eq!(written == whole, count == n, "{name}: all of a group is its image");
                }
            }
        }
    }
}

/// Whatever a group's codes are like: one bit long or 32, blocks that hold none, a last code that straddles a border.
#[test]
fn groups_at_the_edges_of_the_format_in_ranges() {
    let same = |exponent: u16, n: usize| vec![exponent << 7; n];
    let long = encoder::canonical(&[(100, 1), (101, 32), (102, 32)], 31);
    let mixed = encoder::canonical(&[(100, 4), (101, 8), (102, 12)], 13);
    let straddling = encoder::encode_with_codes(&[same(100, 1), same(101, 4095), same(102, 1)].concat(), &[], &mixed);
    let with_positions = |positions: &[u32]| Encoded {
        output_positions: positions.iter().flat_map(|p| p.to_le_bytes()).collect(),
        ..straddling.clone()
    };
    let mut random = Random::new(5);
    let some: Vec<u16> = (0..60_000).map(|_| (100 + u16::from(random.below(40) == 0)) << 7).collect();
    let groups = [
        ("one-bit codes", encoder::encode(&weights::one_bit(100_000, 120, 1), &[])),
        ("32-bit codes", encoder::encode_with_codes(&[same(101, 7000), same(102, 3000)].concat(), &[], &long)),
        ("some 32-bit codes", encoder::encode_with_codes(&some, &[20, 20, 40_000], &long)),
        ("an empty block", with_positions(&[0, 4097, 4097])),
        ("a position fewer", with_positions(&[0, 4097])),
        ("fibonacci", encoder::encode(&weights::fibonacci(24, 3), &[5, 9, 9, 1000])),
        ("trained-like", encoder::encode(&weights::trained_like(150_000, 3), &[0, 50_000, 50_000, 100_000])),
    ];
    for (what, encoded) in groups {
        let file = encoder::safetensors(&encoder::group_tensors("g", &encoded), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
        let group = model.group(0).unwrap();
        let want = want(&model, 0);
        for (first, count) in ranges(group.element_count(), 12, &mut random) {
            let written = check(what, group, &want, first, count);
            assert!(write(group, first, count, 4).unwrap() == written, "{what}: threads");
        }
        // Parts of a group hold no more than a unit of 16 bytes twice, and a byte.
        let n = group.element_count();
        for parts in [2, 3, 8] {
            let border = |i: u64| n * i / parts;
            let bytes = (0..parts).map(|i| write(group, border(i), border(i + 1) - border(i), 1).unwrap());
            let sum: u64 = bytes.map(|image| codes_bytes(&image)).sum();
            assert!(sum <= encoded.encoded_exponent.len() as u64 + 17 * (parts - 1), "{what}: {sum}");
        }
    }
}

/// A range that is not in its group, or of no weight, and codes that contradict positions and gaps inside the range: errors,
/// and no image. What is wrong elsewhere in the group does not matter.
#[test]
fn what_is_no_range_is_refused() {
    let good = encoder::encode(&weights::trained_like(150_000, 5), &[]);
    let positions = files::positions(&good.output_positions);
    let model = |e: &Encoded| {
        let file = encoder::safetensors(&encoder::group_tensors("g", e), None);
        Model::from_bytes(file, &OpenOptions::default()).unwrap()
    };
    let right = model(&good);
    let group = right.group(0).unwrap();
    for (first, count) in [(0, 0), (150_000, 0), (150_000, 1), (1, 150_000), (u64::MAX, 1), (1, u64::MAX), (7, 0)] {
        let errors = [group.image_range_layout(first, count).unwrap_err(), write(group, first, count, 1).unwrap_err()];
        for error in errors {
            assert!(error.status() == Status::InvalidArgument && error.to_string().contains("'g'"), "{error}");
        }
    }
    let error = group.write_image_range(5, 100, &mut [0; 1000], 1).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { given: 1000, .. }), "{error}");

    // Block 4 begins with one weight more by its position, or at another bit by its gap.
    let mut e = good.clone();
    let mut wrong = positions.clone();
    wrong[4] += 1;
    e.output_positions = wrong.iter().flat_map(|p| p.to_le_bytes()).collect();
    let by_position = model(&e);
    let mut e = good.clone();
    let gap = files::gap(&e.gaps, 512 * 4);
    files::set_gap(&mut e.gaps, 512 * 4, gap ^ 1);
    let by_gap = model(&e);
    let (from, to) = (u64::from(positions[2]) + 100, u64::from(positions[6]));
    for (what, spoilt) in [("position", by_position), ("gap", by_gap)] {
        let spoilt = spoilt.group(0).unwrap();
        for threads in [1, 3] {
            let error = write(spoilt, from, to - from, threads).expect_err(what);
            assert!(error.status() == Status::Corrupt && error.to_string().contains("at byte"), "{what}: {error}");
        }
        // Up to the block before, and from the one after.
        for (first, end) in [(from, u64::from(positions[3]) + 7), (u64::from(positions[6]), 150_000)] {
            assert!(write(spoilt, first, end - first, 1).unwrap() == write(group, first, end - first, 1).unwrap());
        }
    }
}

/// Uploads the image of a range into memory that the engine owns.
fn upload(
    engine: &Engine,
    device: &df11::cuda::Device,
    group: Group,
    (first, count): (u64, u64),
    staging: Option<df11::cuda::Staging>,
) -> (u64, df11::cuda::Resident) {
    let bytes = group.image_range_layout(first, count).unwrap().image_bytes;
    let at = engine.alloc(bytes);
    engine.fill(at, PAINT, bytes);
    let stream = engine.stream();
    // SAFETY: model, memory and stream outlive the upload.
    let resident = unsafe { device.upload_range(group, first, count, at, bytes, stream, staging) }.unwrap();
    engine.synchronise(stream);
    (at, resident)
}

/// Uploads of ranges make the host's bytes by every way, and decode by the group's numbers: whole, in ranges and by tensors.
#[test]
fn ranges_on_a_device_decode_by_the_groups_numbers() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let staging = engine.pinned(8192);
    let mut random = Random::new(11);
    for name in golden::NAMES {
        for read in [false, true] {
            let model = files::open(golden::model(name), read).unwrap();
            for group in model.groups() {
                let (want, n) = (want(&model, group.number()), group.element_count());
                let part = |first: u64, count: u64| &want[2 * first as usize..2 * (first + count) as usize];
                let (a, b) = (random.below(n), random.below(n));
                for (first, count) in [(n / 3, n - n / 3 - n / 5), (a.min(b), a.max(b) - a.min(b) + 1)] {
                    // SAFETY: the memory stays.
                    let by = read.then(|| unsafe { df11::cuda::Staging::new(staging, 8192) });
                    let (at, resident) = upload(&engine, &device, group, (first, count), by);
                    let made = engine.read(at, resident.image_bytes());
                    assert!(made == write(group, first, count, 1).unwrap(), "{name}: {first} + {count}");
                    assert_eq!(resident.elements(), first..first + count, "{name}");

                    let all = Target::new(&engine, 2 * count, 2);
                    // SAFETY: all memory lives until the stream was waited for.
                    unsafe { resident.decompress(all.dst, all.bytes, status, stream) }.unwrap();
                    engine.synchronise(stream);
                    assert!(all.take(&engine) == part(first, count), "{name}: {first} + {count}");

                    let (from, some) = (first + count / 3, count - count / 3 - count / 4);
                    let target = Target::new(&engine, 2 * some, 6);
                    // SAFETY: as above.
                    unsafe { resident.decompress_range(from, some, target.dst, target.bytes, status, stream) }.unwrap();
                    engine.synchronise(stream);
                    assert!(target.take(&engine) == part(from, some), "{name}: {from} + {some} of {first} + {count}");

                    // Each tensor, or what there is of it, to a destination of its own. The image is taken by its head alone.
                    // SAFETY: as above.
                    let bound = unsafe { device.bind_image(&made, at, made.len() as u64) }.unwrap();
                    assert_eq!((bound.ends(), bound.elements()), (resident.ends(), resident.elements()));
                    let starts = std::iter::once(first).chain(bound.ends().iter().copied());
                    let parts: Vec<(u64, u64)> = starts.zip(bound.ends().iter().copied()).collect();
                    let targets: Vec<Target> =
                        parts.iter().map(|(from, to)| Target::new(&engine, 2 * (to - from), 0)).collect();
                    let dsts: Vec<u64> = targets.iter().map(|t| t.dst).collect();
                    let sizes: Vec<u64> = targets.iter().map(|t| t.bytes).collect();
                    // SAFETY: as above.
                    unsafe { bound.decompress_tensors(&dsts, &sizes, status, stream) }.unwrap();
                    engine.synchronise(stream);
                    let cuts: Vec<u64> = group.runs().map(|run| run.group_offset()).collect();
                    let first_tensor = bound.extent().first_tensor as usize;
                    for (i, (target, (from, to))) in targets.into_iter().zip(parts).enumerate() {
                        assert!(from == first.max(cuts[first_tensor + i]), "{name}: tensor {i}");
                        assert!(target.take(&engine) == part(from, to - from), "{name}: tensor {i}");
                    }

                    // Weights that it does not hold.
                    for (from, some) in
                        [(first.wrapping_sub(1), 1), (first + count, 1), (first, count + 1), (u64::MAX, 2)]
                    {
                        // SAFETY: as above.
                        let error = unsafe { resident.decompress_range(from, some, status, 4, 0, stream) }.unwrap_err();
                        let text = error.to_string();
                        assert_eq!(error.status(), Status::InvalidArgument, "{text}");
                        let whole = resident.is_whole();
                        let holds = format!("it holds weights {first} to {} of a group of {n}", first + count - 1);
                        assert!(whole || text.contains(&holds), "{text}");
                    }
                    engine.free(at);
                }
            }
        }
    }
    assert_eq!(engine.read_u32(status), 0);
    engine.free_pinned(staging);
    emulator.assert_no_fault();
}
