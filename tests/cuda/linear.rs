//! Linear images: on the host against the oracle, and on the emulated driver against the host.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image::linear::{self, LinearHead, LinearPlan};
use df11::internals::cuda::{Device, Resident};
use df11::{Error, Group, Model, OpenOptions, Progress};
use std::collections::BTreeMap;
use support::encoder;
use support::engine::{Emulator, Engine};
use support::golden;
use support::target::{Target, want};
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
        .map(|w| if random.below(50) == 0 { random.bits() as u16 } else { w })
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

/// All values of bf16, in an order that has escapes everywhere, and groups of nothing but one exponent, zeros or escapes.
#[test]
fn extreme_weights_come_back() {
    let every: Vec<u16> = (0..=u16::MAX).map(|w| w.wrapping_mul(40_503)).collect();
    let model = made(&every, &[]);
    check("every value", model.group(0).unwrap(), &[(256, 256)], &every);
    for (what, weight) in [("zeros", 0u16), ("-0", 0x8000), ("infinities", 0x7f80), ("NaN", 0xffff), ("subnormal", 1)] {
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
