//! Linear images: on the host against the oracle, and on the emulated driver against the host.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image::linear::{self, LinearHead, LinearPlan};
use df11::internals::cuda::{Device, Resident, Stream, decompress_batch};
use df11::{Error, Group, Model, OpenOptions, Progress, Status};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use support::encoder;
use support::engine::{Emulator, Engine};
use support::golden;
use support::target::{PAINT, Target, upload, want};
use support::weights::{self, Random};

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks().0.iter().map(|&w| u16::from_le_bytes(w)).collect()
}

/// Opens a golden model with the shapes of its original.
fn open(name: &str, read: bool) -> Model {
    let shapes: BTreeMap<String, Vec<u64>> =
        golden::expected(name).into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    let options = OpenOptions::new().shapes(serde_json::to_string(&shapes).unwrap());
    let path = golden::model(name);
    // SAFETY: nobody changes the files.
    if read { Model::open(path, &options) } else { unsafe { Model::open_mapped(path, &options) } }.unwrap()
}

/// Makes a model of one group whose tensors end at these weights.
fn made(weights: &[u16], splits: &[u64]) -> Model {
    let packed = encoder::encode(weights, splits);
    let tensors = encoder::group_tensors("layers.0", &packed);
    Model::from_bytes(encoder::safetensors(&tensors, None), &OpenOptions::new()).unwrap()
}

fn write(plan: &LinearPlan, threads: usize) -> Vec<u8> {
    let bytes = plan.head().image_bytes() as usize;
    let mut memory = vec![0xa7; bytes + 64];
    plan.write_image(&mut memory[32..][..bytes], threads, &Progress::new()).unwrap();
    assert!(memory[..32].iter().chain(&memory[32 + bytes..]).all(|&b| b == 0xa7), "wrote outside");
    memory[32..32 + bytes].to_vec()
}

/// Makes the linear image of a group, by any number of threads, and checks it by the oracle and by what it says.
fn check(what: &str, group: Group, shapes: &[(u64, u64)], want: &[u16]) -> (LinearHead, Vec<u8>) {
    let progress = Progress::new();
    let plan = group.linear(shapes, 1, &progress).unwrap_or_else(|e| panic!("{what}: {e}"));
    let written = write(&plan, 1);
    assert!(write(&group.linear(shapes, 3, &progress).unwrap(), 4) == written, "{what}: threads");
    let head = LinearHead::parse(&written).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(head, *plan.head(), "{what}");
    assert_eq!(head.bytes(), written[..head.head_bytes() as usize], "{what}");
    let decoded = linear::decode(&written, 0, want.len() as u64).unwrap();
    assert!(decoded.good, "{what}");
    assert!(decoded.weights == want, "{what}: other weights");
    // Every byte is defined, and no tile has more weights than its tensor.
    let escapes = head.tensors().iter().map(|tensor| tensor.escape_count as usize).sum::<usize>();
    let is_escape = |tensor: &linear::LinearTensor, weight: &u16| !tensor.table.contains(&((weight >> 8 & 127) as u8));
    let counted: usize = head
        .tensors()
        .iter()
        .zip(head.ends())
        .map(|(tensor, &end)| want[tensor.first as usize..end as usize].iter().filter(|w| is_escape(tensor, w)).count())
        .sum();
    assert_eq!(escapes, counted, "{what}");
    (head, written)
}

/// The images of all golden models decode to the weights, with their shapes and without.
#[test]
fn every_golden_model_has_a_linear_image() {
    for (number, name) in golden::NAMES.into_iter().enumerate() {
        let model = open(name, number % 2 == 0);
        let mut matrices = 0;
        for group in model.groups() {
            let all = words(&want(&model, group.number()));
            let what = format!("{name}: {}", group.name());
            let (head, _) = check(&what, group, &[], &all);
            for (tensor, run) in head.tensors().iter().zip(group.runs()) {
                if let [rows, columns] = run.tensor().shape()
                    && rows * columns == run.element_count()
                    && (tensor.rows, tensor.columns) == (*rows, *columns)
                {
                    matrices += 1;
                }
            }
        }
        assert!(matrices > 0, "{name}");
    }
}

/// Returns a weight that the format holds: of an exponent below 240.
fn finite(weight: u16) -> u16 {
    if weight >> 7 & 255 < 240 { weight } else { weight & 0xbfff }
}

/// A group of odd shapes, with escapes in all of them.
fn odd_model() -> (Model, Vec<(u64, u64)>, Vec<u16>) {
    let mut random = Random::new(7);
    let shapes =
        vec![(1, 1), (0, 0), (17, 65), (16, 64), (15, 63), (3, 200), (200, 3), (1, 1000), (1000, 1), (33, 129)];
    let ends: Vec<u64> = shapes
        .iter()
        .scan(0, |sum, (rows, columns)| {
            *sum += rows * columns;
            Some(*sum)
        })
        .collect();
    let count = ends[ends.len() - 1] as usize;
    let all: Vec<u16> = weights::gaussian(count, 0.02, 3)
        .into_iter()
        .map(|w| if random.below(50) == 0 { finite(random.bits() as u16) } else { w })
        .collect();
    (made(&all, &ends[..ends.len() - 1]), shapes, all)
}

/// Rows that are not a multiple of 16, columns that are not one of 64, one weight, and no weight at all.
#[test]
fn odd_shapes_are_padded() {
    let (model, shapes, all) = odd_model();
    let (shapes, group) = (&shapes[..], model.group(0).unwrap());
    let (head, _) = check("odd", group, shapes, &all);
    for (tensor, shape) in head.tensors().iter().zip(shapes) {
        assert_eq!((tensor.rows, tensor.columns), *shape);
    }
    // Without shapes they are no matrices.
    let (head, image) = check("flat", group, &[], &all);
    assert!(head.tensors().iter().all(|tensor| tensor.columns == if tensor.rows == 0 { 0 } else { 64 }));
    assert!(image.len() < check("odd", group, shapes, &all).1.len());
    let invalid =
        |shapes: &[(u64, u64)]| matches!(group.linear(shapes, 1, &Progress::new()), Err(Error::InvalidArgument(_)));
    assert!(invalid(&shapes[1..]));
    let mut wrong = shapes.to_vec();
    wrong[2] = (65, 16);
    assert!(invalid(&wrong));
    wrong[2] = (u64::MAX, 65);
    assert!(invalid(&wrong));
}

/// All values that the format holds, in an order that has escapes everywhere, and groups of nothing but one weight. (That all
/// of the others come back is tested where tiles are made.)
#[test]
fn extreme_weights_come_back() {
    let every: Vec<u16> = (0..=u16::MAX).map(|w| w.wrapping_mul(40_503)).filter(|&w| finite(w) == w).collect();
    let model = made(&every, &[]);
    check("every value", model.group(0).unwrap(), &[(240, 256)], &every);
    for (what, weight) in [("zeros", 0u16), ("-0", 0x8000), ("huge", 0x77ff), ("-huge", 0xf7ff), ("subnormal", 1)] {
        let model = made(&[weight; 3000], &[]);
        let (head, _) = check(what, model.group(0).unwrap(), &[(30, 100)], &[weight; 3000]);
        assert_eq!(head.escapes(), 0);
    }
}

/// Weights as those of a trained layer take at most 12.1 bits.
#[test]
fn real_weights_take_twelve_bits() {
    let all = weights::trained_like(1 << 20, 11);
    let model = made(&all, &[]);
    let (head, image) = check("layer", model.group(0).unwrap(), &[(256, 4096)], &all);
    let bits = 8.0 * image.len() as f64 / all.len() as f64;
    println!("{bits:.4} bits a weight, {} escapes in 1,000,000", head.escapes() * 1_000_000 / all.len() as u64);
    assert!(bits <= 12.1, "{bits}");
}

/// An image on the device.
struct Held {
    resident: Resident,
    image: Vec<u8>,
}

fn bind(engine: &Engine, device: &Device, image: Vec<u8>) -> Held {
    let at = engine.alloc(image.len() as u64);
    engine.write(at, &image);
    // SAFETY: the memory is never freed.
    let resident = unsafe { device.bind_image(&image, at, image.len() as u64) }.unwrap();
    Held { resident, image }
}

/// Whole groups, single tensors and ranges of all golden models and of odd shapes, at destinations of any alignment: what the
/// oracle says, and no byte more.
#[test]
fn devices_decode_linear_images() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let mut random = Random::new(3);
    let odd = odd_model();
    let golden = golden::NAMES.iter().enumerate().map(|(number, name)| (*name, open(name, number % 2 == 0), None));
    for (name, model, shapes) in golden.chain([("odd", odd.0, Some(&odd.1[..]))]) {
        for group in model.groups() {
            let what = format!("{name}: {}", group.name());
            let want = want(&model, group.number());
            let (head, image) = check(&what, group, shapes.unwrap_or_default(), &words(&want));
            let held = bind(&engine, &device, image);
            let resident = &held.resident;
            assert_eq!((resident.linear_head(), resident.layout()), (Some(&head), None));
            let n = group.element_count();
            assert_eq!((resident.element_count(), resident.elements()), (n, 0..n));
            for off in [0, 2, 8, 14] {
                let target = Target::new(&engine, 2 * n, off);
                // SAFETY: all memory lives until the stream was waited for.
                unsafe { resident.decompress(target.dst, 2 * n, status, stream) }.unwrap();
                engine.synchronise(stream);
                assert!(target.take(&engine) == want, "{what}: at {off}");
            }
            // Tensors, backwards, so that no two are decoded as one.
            let sizes: Vec<u64> = group.runs().map(|run| 2 * run.element_count()).collect();
            let targets: Vec<Target> = sizes.iter().map(|&bytes| Target::new(&engine, bytes, 2)).collect();
            let dsts: Vec<u64> = targets.iter().map(|target| target.dst).collect();
            // SAFETY: as above.
            unsafe { resident.decompress_tensors(&dsts, &sizes, status, stream) }.unwrap();
            engine.synchronise(stream);
            for (target, run) in targets.into_iter().zip(group.runs()) {
                let (from, bytes) = (2 * run.group_offset() as usize, 2 * run.element_count() as usize);
                assert!(target.take(&engine) == want[from..from + bytes], "{what}: tensor at {from}");
            }
            for _ in 0..20 {
                let first = random.below(n);
                let count = match random.below(3) {
                    0 => random.below(n - first) + 1,
                    _ => (random.below(300) + 1).min(n - first),
                };
                let target = Target::new(&engine, 2 * count, 2 * random.below(8));
                // SAFETY: as above.
                unsafe { resident.decompress_range(first, count, target.dst, 2 * count, status, stream) }.unwrap();
                engine.synchronise(stream);
                let (from, bytes) = (2 * first as usize, 2 * count as usize);
                assert!(target.take(&engine) == want[from..from + bytes], "{what}: {first} + {count}");
            }
            assert!(
                engine.read(resident.image(), held.image.len() as u64) == held.image,
                "{what}: the image was written"
            );
        }
    }
    assert_eq!(engine.read_u32(status), 0);
    emulator.assert_no_fault();
}

/// Images that a device makes of others have the bytes of those that the host writes, whatever the scratch memory, whose bytes
/// around it stay.
#[test]
fn devices_make_linear_images_of_others() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let odd = odd_model();
    let extension = Model::open("tests/data/extension/model", &OpenOptions::default()).unwrap();
    let golden = ["tiny", "edge"].map(|name| (name, open(name, true), None));
    for (name, model, shapes) in golden.into_iter().chain([("odd", odd.0, Some(odd.1)), ("extension", extension, None)])
    {
        for group in model.groups() {
            let what = format!("{name}: {}", group.name());
            let plan = group.linear(shapes.as_deref().unwrap_or_default(), 2, &Progress::new()).unwrap();
            let (want, bytes) = (write(&plan, 1), plan.head().image_bytes());
            let (_, source) = upload(&engine, &device, &model, group.number(), stream);
            for scratch in [plan.scratch_bytes(), plan.scratch_bytes() * 3 + 2, 1 << 20] {
                let (image, scratch) = (Target::new(&engine, bytes + 256, 192), Target::new(&engine, scratch, 0));
                assert!(image.dst.is_multiple_of(256) && scratch.dst.is_multiple_of(16));
                // SAFETY: all memory lives until the stream was waited for.
                let made = unsafe {
                    device.make_linear(&plan, &source, image.dst, bytes, scratch.dst, scratch.bytes, stream).unwrap()
                };
                engine.synchronise(stream);
                assert_eq!(made.linear_head(), Some(plan.head()), "{what}");
                let (got, rest) = (engine.read(image.dst, bytes), engine.read(image.dst + bytes, 256));
                assert!(
                    got == want,
                    "{what}: other bytes, from {:?} on",
                    got.iter().zip(&want).position(|(a, b)| a != b)
                );
                assert!(rest.iter().all(|&byte| byte == PAINT), "{what}: wrote after the image");
                image.take(&engine);
                scratch.take(&engine);
            }
        }
    }
    emulator.assert_no_fault();
}

/// What cannot be made is refused before anything is enqueued; a source of other weights than were counted is told by decoding.
#[test]
fn what_cannot_be_made_is_refused() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let model = made(&weights::trained_like(20_000, 5), &[7000]);
    let group = model.group(0).unwrap();
    let plan = group.linear(&[(70, 100), (130, 100)], 1, &Progress::new()).unwrap();
    let bytes = plan.head().image_bytes();
    let (at, source) = upload(&engine, &device, &model, 0, stream);
    let (image, scratch, status) = (engine.alloc(bytes), engine.alloc(1 << 16), engine.alloc(4));
    let make = |source: &Resident, image, image_bytes, scratch, scratch_bytes, stream| {
        // SAFETY: all memory lives until the stream was waited for.
        unsafe { device.make_linear(&plan, source, image, image_bytes, scratch, scratch_bytes, stream) }
    };
    let least = plan.scratch_bytes();
    assert_eq!(least, 3200);
    for (given, want) in [
        ((image, bytes - 1, scratch, least, stream), Status::BufferTooSmall),
        ((image, bytes, scratch, least - 1, stream), Status::BufferTooSmall),
        ((image + 16, bytes, scratch, least, stream), Status::Misaligned),
        ((image, bytes, scratch + 2, least, stream), Status::Misaligned),
        ((0, bytes, scratch, least, stream), Status::InvalidArgument),
        ((image, bytes, 0, least, stream), Status::InvalidArgument),
        ((image, bytes, image + 256, least, stream), Status::InvalidArgument),
        ((image, bytes, at, least, stream), Status::InvalidArgument),
        ((at, bytes, scratch, least, stream), Status::InvalidArgument),
        ((image, bytes, scratch, u64::MAX, stream), Status::InvalidArgument),
        ((image, bytes, scratch, least, Stream::from_raw(std::ptr::null_mut())), Status::DefaultStream),
    ] {
        let (image, image_bytes, scratch, scratch_bytes, stream) = given;
        let (result, calls) =
            emulator.calls_of(|| make(&source, image, image_bytes, scratch, scratch_bytes, stream).unwrap_err());
        assert_eq!(result.status(), want, "{result}");
        assert!(!calls.contains_key("cuLaunchKernel"), "{calls:?}");
    }
    let part_bytes = group.image_range_layout(0, 7000).unwrap().image_bytes;
    let part = engine.alloc(part_bytes);
    // SAFETY: as above.
    let part = unsafe { device.upload_range(group, 0, 7000, part, part_bytes, stream, None).unwrap() };
    assert_eq!(make(&part, image, bytes, scratch, least, stream).unwrap_err().status(), Status::InvalidArgument);
    engine.begin_capture(stream, 0);
    assert_eq!(make(&source, image, bytes, scratch, least, stream).unwrap_err().status(), Status::Capturing);
    engine.destroy_graph(engine.end_capture(stream).unwrap());

    let other = made(&weights::uniform_exponents(20_000, 0..=239, 5), &[7000]);
    let (_, other) = upload(&engine, &device, &other, 0, stream);
    let dst = engine.alloc(40_000);
    for (source, want) in [(&other, Status::Corrupt as u32), (&source, 0)] {
        let made = make(source, image, bytes, scratch, least, stream).unwrap();
        engine.fill(status, 0, 4);
        // SAFETY: as above.
        unsafe { made.decompress(dst, 40_000, status, stream) }.unwrap();
        engine.synchronise(stream);
        assert_eq!(engine.read_u32(status), want);
    }
    emulator.assert_no_fault();
}

/// One call decodes images of both kinds, more tensors than one launch takes, with a limit of blocks, with an early start, and
/// in a graph that is replayed.
#[test]
fn linear_images_decode_as_the_others_do() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let stream = engine.stream();
    let splits: Vec<u64> = (1..40).map(|i| i * 500 - i % 3).collect();
    let model = made(&weights::trained_like(20_000, 5), &splits);
    let small = made(&weights::trained_like(3_000, 6), &[1000]);
    let (want, want_small) = (want(&model, 0), want(&small, 0));
    let (_, image) = check("40 tensors", model.group(0).unwrap(), &[], &words(&want));
    let statuses = engine.alloc(20);
    engine.fill(statuses, 0, 20);
    for (options, limited) in [
        (emulator.options(), false),
        (emulator.options().multiprocessors(1), true),
        (emulator.options().early_start(true), false),
    ] {
        let device = Device::open(0, &options).unwrap();
        let (linear, huffman) = (bind(&engine, &device, image.clone()), upload(&engine, &device, &small, 0, stream).1);
        let all = [&huffman, &linear.resident, &linear.resident, &huffman, &linear.resident];
        let wanted = all.map(|resident| if resident.element_count() == 20_000 { &want } else { &want_small });
        engine.synchronise(stream);
        for captured in [false, true] {
            let targets = wanted.map(|want| Target::new(&engine, want.len() as u64, 0));
            let (dsts, sizes) = (targets.each_ref().map(|t| t.dst), targets.each_ref().map(|t| t.bytes));
            if captured {
                engine.begin_capture(stream, 0);
            }
            // SAFETY: all memory lives until the stream was waited for.
            let ((), calls) =
                emulator.calls_of(|| unsafe { decompress_batch(&all, &dsts, &sizes, statuses, stream).unwrap() });
            let launches = calls.get("cuLaunchKernel").unwrap_or(&0) + calls.get("cuLaunchKernelEx").unwrap_or(&0);
            // One, 80 jobs, one, 40 jobs.
            assert!(limited || launches == 1 + 3 + 1 + 2, "{calls:?}");
            if captured {
                let exec = engine.end_capture(stream).unwrap();
                engine.launch_graph(exec, stream);
                engine.launch_graph(exec, stream);
                engine.synchronise(stream);
                engine.destroy_graph(exec);
            }
            engine.synchronise(stream);
            for (target, want) in targets.into_iter().zip(wanted) {
                assert!(target.take(&engine) == *want);
            }
        }
        // What is refused for the others is for these.
        let (dst, resident) = (engine.alloc(40_000), &linear.resident);
        // SAFETY: as above.
        let refused = |first, count, dst, bytes, status| unsafe {
            resident.decompress_range(first, count, dst, bytes, status, stream).unwrap_err().status()
        };
        assert_eq!(refused(1, 20_000, dst, 40_000, 0), Status::InvalidArgument);
        assert_eq!(refused(0, 20_000, dst, 39_999, 0), Status::BufferTooSmall);
        assert_eq!(refused(0, 20_000, resident.image() + 4096, 40_000, 0), Status::InvalidArgument);
        assert_eq!(refused(0, 9, dst, 40_000, resident.image() + 248), Status::InvalidArgument);
        assert_eq!(refused(0, 9, dst + 1, 40_000, 0), Status::Misaligned);
    }
    assert_eq!(engine.read(statuses, 20), [0; 20]);
    emulator.assert_no_fault();
}

/// Heads of any bytes, with a checksum that fits, are refused or say what they are.
#[test]
fn spoilt_linear_heads_are_refused() {
    let (model, shapes, _) = odd_model();
    let plan = model.group(0).unwrap().linear(&shapes, 1, &Progress::new()).unwrap();
    let (good, mut random, mut taken) = (plan.head().bytes(), Random::new(9), 0);
    for round in 0..10_000 {
        let mut head = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(head.len() as u64 / 4) as usize * 4;
            let value = match random.below(4) {
                0 => [0, 1, u32::MAX, 1 << 31, 255, 256][random.below(6) as usize],
                1 => u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) ^ 1 << random.below(32),
                2 => u32::from_le_bytes(head[at..at + 4].try_into().unwrap()).wrapping_add(random.below(3) as u32),
                _ => random.bits() as u32,
            };
            head[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if round % 7 == 0 {
            head.truncate(random.below(head.len() as u64) as usize);
        } else if round % 2 == 0 {
            let mut hash = Sha256::new();
            hash.update(&head[..240]);
            hash.update(&head[256..]);
            head[240..248].copy_from_slice(&hash.finalize()[..8]);
        }
        match LinearHead::parse(&head) {
            Err(error) => {
                let known = [Status::InvalidFormat, Status::UnsupportedFormat, Status::Corrupt];
                assert!(known.contains(&error.status()), "{error}");
            }
            Ok(read) => {
                taken += 1;
                let mut bytes = read.bytes();
                bytes[248..252].copy_from_slice(&head[248..252]);
                assert!(bytes == head, "round {round}");
            }
        }
    }
    // Other tables, and other states.
    assert!(taken > 10, "{taken}");
}

/// Spoilt bodies: wrong weights, and a status where the oracle sees a contradiction, and no access outside of image and
/// destination.
#[test]
fn spoilt_linear_images_are_never_left() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let (model, shapes, all) = odd_model();
    let n = all.len() as u64;
    let (head, good) = check("odd", model.group(0).unwrap(), &shapes, &all);
    let held = bind(&engine, &device, good.clone());
    let (mut random, mut bad) = (Random::new(4), 0);
    for round in 0..300 {
        let mut image = good.clone();
        let tensor = loop {
            let tensor = &head.tensors()[random.below(head.tensors().len() as u64) as usize];
            if tensor.rows > 0 {
                break tensor;
            }
        };
        let end = tensor.escapes + 4 * tensor.escape_count as u64;
        // Mostly where offsets and places are.
        let from = if round % 3 == 0 { tensor.tiles } else { tensor.starts };
        for _ in 0..=random.below(3) {
            let at = (from + random.below((end - from) / 4) * 4) as usize;
            let value = match random.below(3) {
                0 => [0, u32::MAX, 1 << 31, tensor.escape_count, tensor.escape_count + 1][random.below(5) as usize],
                1 => u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) ^ 1 << random.below(32),
                _ => random.bits() as u32,
            };
            image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if round % 50 == 0 {
            image[248] = 103;
        }
        let oracle = linear::decode(&image, 0, n).unwrap();
        engine.write(held.resident.image(), &image);
        engine.fill(status, 0, 4);
        let target = Target::new(&engine, 2 * n, 0);
        // SAFETY: all memory lives until the stream was waited for.
        unsafe { held.resident.decompress(target.dst, 2 * n, status, stream) }.unwrap();
        engine.synchronise(stream);
        let got = words(&target.take(&engine));
        assert_eq!(engine.read_u32(status), if oracle.good { 0 } else { 103 }, "round {round}");
        assert!(!oracle.good || got == oracle.weights, "round {round}: other weights than the oracle's");
        bad += u32::from(!oracle.good);
    }
    assert!((50..290).contains(&bad), "{bad} of 300 contradict themselves");
    emulator.assert_no_fault();
}

/// Every cubin makes the host's bytes, and decodes them to the weights.
#[test]
fn linear_kernels_of_every_cubin_decode_to_the_bit() {
    let (model, shapes, all) = odd_model();
    let plan = model.group(0).unwrap().linear(&shapes, 1, &Progress::new()).unwrap();
    let (want, bytes, n) = (write(&plan, 1), plan.head().image_bytes(), all.len() as u64);
    for capability in [75, 80, 90, 100, 120] {
        let Some(emulator) = Emulator::machine_code(capability) else { return };
        let engine = emulator.engine(0);
        let (device, stream) = (emulator.open(0), engine.stream());
        let (_, source) = upload(&engine, &device, &model, 0, stream);
        let (image, scratch, status) = (engine.alloc(bytes), engine.alloc(1 << 16), engine.alloc(4));
        engine.fill(status, 0, 4);
        // SAFETY: all memory lives until the stream was waited for.
        let made = unsafe { device.make_linear(&plan, &source, image, bytes, scratch, 1 << 16, stream).unwrap() };
        engine.synchronise(stream);
        assert!(engine.read(image, bytes) == want, "sm_{capability}: other bytes");
        for off in [0, 4, 10] {
            let target = Target::new(&engine, 2 * n, off);
            // SAFETY: as above.
            unsafe { made.decompress(target.dst, 2 * n, status, stream) }.unwrap();
            engine.synchronise(stream);
            assert!(words(&target.take(&engine)) == all, "sm_{capability}: at {off}");
        }
        assert_eq!(engine.read_u32(status), 0);
        assert!(emulator.query("machine_code") > 0, "no cubin was loaded");
        emulator.assert_no_fault();
    }
}

/// What a weight costs: instructions, and sectors of memory beside the fewest possible. `kernels/README.md` has the counts.
#[test]
fn linear_decodes_stay_within_the_bounds() {
    let model = made(&weights::trained_like(1 << 20, 11), &[]);
    let plan = model.group(0).unwrap().linear(&[(256, 4096)], 1, &Progress::new()).unwrap();
    let (image, n) = (write(&plan, 1), 1u64 << 20);
    let machines = [75, 80, 90, 100, 120].into_iter().map(|of| (format!("sm_{of}"), Emulator::machine_code(of)));
    for (name, emulator) in std::iter::once(("PTX".to_owned(), Some(Emulator::new()))).chain(machines) {
        let Some(emulator) = emulator else { return };
        // Races are the business of other tests.
        emulator.control("races", "0");
        let engine = emulator.engine(0);
        let held = bind(&engine, &emulator.open(0), image.clone());
        let (dst, stream) = (engine.alloc(2 * n), engine.stream());
        // SAFETY: all memory lives until the stream was waited for.
        unsafe { held.resident.decompress(dst, 2 * n, 0, stream) }.unwrap();
        engine.synchronise(stream);
        let per_weight = |what: &str| emulator.query(what) as f64 / n as f64;
        let (instructions, issues) = (per_weight("last.instructions"), 32.0 * per_weight("last.warp_issues"));
        let sectors = per_weight("last.sectors_read") + per_weight("last.sectors_written");
        let over = sectors / ((2.0 + image.len() as f64 / n as f64) / 32.0);
        println!(
            "{name}: {instructions:.2} instructions a weight; {issues:.2} issues for 32; {over:.3} of the sectors"
        );
        assert!(
            instructions > 2.0 && instructions <= if name == "PTX" { 6.5 } else { 6.0 },
            "{name}: {instructions:.2}"
        );
        assert!((1.0..=1.25).contains(&over), "{name}: {over:.3}");
        emulator.assert_no_fault();
    }
}
