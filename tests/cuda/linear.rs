//! Linear images: on the host against the oracle, and on the emulated driver against the host.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image::linear::{self, LinearHead, LinearPlan};
use df11::{Error, Group, Model, OpenOptions, Progress};
use std::collections::BTreeMap;
use support::encoder;
use support::golden;
use support::target::want;
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

/// Rows that are not a multiple of 16, columns that are not one of 64, one weight, and no weight at all.
#[test]
fn odd_shapes_are_padded() {
    let mut random = Random::new(7);
    let shapes: &[(u64, u64)] =
        &[(1, 1), (0, 0), (17, 65), (16, 64), (15, 63), (3, 200), (200, 3), (1, 1000), (1000, 1), (33, 129)];
    let mut splits = Vec::new();
    let count = shapes.iter().fold(0, |sum, (rows, columns)| {
        splits.push(sum + rows * columns);
        sum + rows * columns
    });
    splits.pop();
    let all: Vec<u16> = weights::gaussian(count as usize, 0.02, 3)
        .into_iter()
        .map(|w| if random.below(50) == 0 { random.bits() as u16 } else { w })
        .collect();
    let model = made(&all, &splits);
    let group = model.group(0).unwrap();
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
