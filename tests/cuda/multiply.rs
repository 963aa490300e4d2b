//! Products with linear images on the emulated driver: bit for bit as the written order of sums says, for one and two vectors;
//! within a bound for more; experts, splits, captures, failures and damaged images.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image::linear::{self, LinearHead, LinearTensor};
use df11::internals::cuda::multiply::{self, Experts, Operand, Product};
use df11::internals::cuda::{Device, Resident};
use df11::{Error, Model, OpenOptions, Progress};
use half::bf16;
use support::engine::{Emulator, Engine};
use support::weights::{self, Random};
use support::{check, encoder, golden};

/// What lies where nothing is to be written.
const PAINT: u8 = 0xa5;

/// The oracle: the order of sums of `kernels/multiply.cuh`, one multiply-add after the other. `weights` are one row.
fn product(weights: &[u16], x: &[u16], table: [u8; 8]) -> f32 {
    let value = |bits: u16| bf16::from_bits(bits).to_f32();
    let is_escape = |weight: u16| !table.contains(&((weight >> 8 & 127) as u8));
    let mut y = None;
    for (run, x) in weights.chunks(512).zip(x.chunks(512)) {
        let mut quarters = [0f32; 4];
        for (column, (&weight, &x)) in run.iter().zip(x).enumerate() {
            let sum = &mut quarters[column / 16 % 4];
            let weight = if is_escape(weight) { 0.0 } else { value(weight) };
            *sum = weight.mul_add(value(x), *sum);
        }
        // Columns that a quarter of the last tile does not have add 0 times 0: to a sum that begins with +0 that is nothing.
        let mut sum = (quarters[0] + quarters[1]) + (quarters[2] + quarters[3]);
        for (&weight, &x) in run.iter().zip(x).filter(|(weight, _)| is_escape(**weight)) {
            sum = value(weight).mul_add(value(x), sum);
        }
        y = Some(y.map_or(sum, |y: f32| y + sum));
    }
    y.unwrap()
}

/// The same sum in f64, and the sum of the magnitudes of its products.
fn exact(weights: &[u16], x: &[u16]) -> (f64, f64) {
    let value = |bits: u16| bf16::from_bits(bits).to_f64();
    let products = weights.iter().zip(x).map(|(&w, &x)| value(w) * value(x));
    products.fold((0.0, 0.0), |(sum, all), product| (sum + product, all + product.abs()))
}

/// A linear image in host memory, with its weights.
struct Image {
    head: LinearHead,
    bytes: Vec<u8>,
    weights: Vec<u16>,
}

impl Image {
    /// Makes the image of a group.
    fn of(model: &Model, group: usize, shapes: &[(u64, u64)]) -> Image {
        let group = model.group(group).unwrap();
        let plan = group.linear(shapes, 2, &Progress::new()).unwrap();
        let mut bytes = vec![0; plan.head().image_bytes() as usize];
        plan.write_image(&mut bytes, 2, &Progress::new()).unwrap();
        let decoded = linear::decode(&bytes, 0, group.element_count()).unwrap();
        assert!(decoded.good);
        Image { head: plan.head().clone(), bytes, weights: decoded.weights }
    }

    /// Makes the image of matrices of these shapes, one after the other, with trained weights and some that are not.
    fn made(shapes: &[(u64, u64)], seed: u64) -> Image {
        let ends: Vec<u64> = shapes
            .iter()
            .scan(0, |at, (rows, columns)| {
                *at += rows * columns;
                Some(*at)
            })
            .collect();
        let mut weights = weights::trained_like(*ends.last().unwrap() as usize, seed);
        let mut random = Random::new(seed);
        for weight in &mut weights {
            match random.below(100) {
                0 => *weight = (random.bits() as u16 & 0x8000) | (random.below(0x4200) as u16),
                1 => *weight = 0x8000,
                _ => {}
            }
        }
        let packed = encoder::encode(&weights, &ends[..ends.len() - 1]);
        let file = encoder::safetensors(&encoder::group_tensors("g", &packed), None);
        let model = Model::from_bytes(file, &OpenOptions::new()).unwrap();
        let image = Image::of(&model, 0, shapes);
        assert!(image.weights == weights);
        image
    }

    fn tensor(&self, number: usize) -> (&LinearTensor, &[u16]) {
        let tensor = &self.head.tensors()[number];
        (tensor, &self.weights[tensor.first as usize..self.head.ends()[number] as usize])
    }
}

/// An image on a device.
struct Placed<'a> {
    engine: &'a Engine<'a>,
    resident: Resident,
    at: u64,
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.engine.free(self.at);
    }
}

fn place<'a>(engine: &'a Engine<'a>, device: &Device, image: &Image) -> Placed<'a> {
    let at = engine.alloc(image.bytes.len() as u64);
    engine.write(at, &image.bytes);
    // SAFETY: the memory lives as long as the resident.
    let resident = unsafe { device.bind_image(&image.bytes, at, image.bytes.len() as u64) }.unwrap();
    Placed { engine, resident, at }
}

/// Vectors of normal numbers, each padded to a multiple of eight by what would be seen in a sum.
fn vectors(columns: u64, count: u64, seed: u64) -> (Vec<u16>, u64) {
    let stride = columns.next_multiple_of(8) + 8;
    let mut x = weights::gaussian((stride * count) as usize, 1.0, seed);
    for row in x.chunks_mut(stride as usize) {
        row[columns as usize..].fill(0x7fc0);
    }
    (x, stride)
}

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Multiplies tensors of one image, in one launch, and compares every result.
fn compare(emulator: &Emulator, image: &Image, tensors: &[usize], batch: u32, y_bf16: bool, what: &str) -> u64 {
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let placed = place(&engine, &device, image);
    let columns = image.tensor(tensors[0]).0.columns;
    let (x, x_stride) = vectors(columns, batch.into(), 9);
    let at = engine.alloc(2 * x.len() as u64);
    engine.write(at, &bytes(&x));
    let element = if y_bf16 { 2 } else { 4 };
    let mut places = Vec::new();
    for &tensor in tensors {
        let rows = image.tensor(tensor).0.rows;
        let stride = rows + 3;
        let size = element * stride * u64::from(batch);
        let y = engine.alloc(size);
        engine.fill(y, PAINT, size);
        places.push((y, stride, size));
    }
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let operand = |i: usize| {
        let (tensor, _) = image.tensor(tensors[i]);
        Operand {
            resident: &placed.resident,
            tensor: tensors[i] as u64,
            step: 0,
            rows: tensor.rows,
            columns: tensor.columns,
            y: places[i].0,
            y_stride: places[i].1,
            y_step: 0,
        }
    };
    let mut product_of = Product { x: at, x_stride, batch, y_bf16, status, ..Product::default() };
    let needed = multiply::workspace_bytes(operand, tensors.len(), &product_of).unwrap();
    let workspace = engine.alloc(needed.max(1));
    (product_of.workspace, product_of.workspace_bytes) = (workspace, needed);
    // SAFETY: all memory outlives the stream's work.
    unsafe { multiply::multiply(operand, tensors.len(), &product_of, stream) }
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    engine.synchronise(stream);
    assert_eq!(engine.read_u32(status), 0, "{what}");
    for (&tensor, &(y, stride, size)) in tensors.iter().zip(&places) {
        let (shape, weights) = image.tensor(tensor);
        let got = engine.read(y, size);
        for (at, got) in got.chunks(element as usize).enumerate() {
            let (vector, row) = (at as u64 / stride, at as u64 % stride);
            if row >= shape.rows {
                assert!(got.iter().all(|&b| b == PAINT), "{what}: written behind the results");
                continue;
            }
            let weights = &weights[(row * shape.columns) as usize..][..shape.columns as usize];
            let x = &x[(vector * x_stride) as usize..][..shape.columns as usize];
            let what =
                || format!("{what}: tensor {tensor} of {} × {}, row {row}, vector {vector}", shape.rows, shape.columns);
            let value = |got: &[u8]| match got {
                [a, b] => bf16::from_le_bytes([*a, *b]).to_f32(),
                _ => f32::from_le_bytes(got.try_into().unwrap()),
            };
            if batch <= 2 {
                let want = product(weights, x, shape.table);
                let want = if y_bf16 { bf16::from_f32(want).to_f32() } else { want };
                assert_eq!(value(got).to_bits(), want.to_bits(), "{}: {} instead of {want}", what(), value(got));
            } else {
                let (want, all) = exact(weights, x);
                let bound = all * if y_bf16 { 1.0 / 256.0 } else { 2f64.powi(-22) };
                let off = (f64::from(value(got)) - want).abs();
                assert!(off <= bound, "{}: {} instead of {want}, off by {}", what(), value(got), off / all);
            }
        }
        engine.free(y);
    }
    for address in [at, status, workspace] {
        engine.free(address);
    }
    engine.destroy(stream);
    emulator.assert_no_fault();
    needed
}

/// Every matrix of the reference's files that is at least a tile wide.
#[test]
fn golden_matrices_are_multiplied_bit_for_bit() {
    golden_matrices(&Emulator::new());
}

fn golden_matrices(emulator: &Emulator) {
    let mut found = 0;
    for name in golden::NAMES {
        let shapes: std::collections::BTreeMap<String, Vec<u64>> =
            golden::expected(name).into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
        let options = OpenOptions::new().shapes(serde_json::to_string(&shapes).unwrap());
        let model = Model::open(golden::model(name), &options).unwrap();
        for group in 0..model.groups().count() {
            let image = Image::of(&model, group, &[]);
            for (number, tensor) in image.head.tensors().iter().enumerate() {
                let weights = image.tensor(number).1.len() as u64;
                if tensor.columns >= 64 && tensor.rows * tensor.columns == weights {
                    for batch in [1, 2] {
                        compare(emulator, &image, &[number], batch, false, &format!("{name}, group {group}"));
                    }
                    found += 1;
                }
            }
        }
    }
    assert!(found > 20, "only {found} matrices");
}

/// Shapes at and beside every border: rows of tiles, columns of tiles, runs, pieces; one vector and two.
#[test]
fn odd_shapes_are_multiplied_bit_for_bit() {
    odd_shapes(&Emulator::new());
}

fn odd_shapes(emulator: &Emulator) {
    let mut split = 0;
    for (seed, (rows, columns)) in [
        (1, 64),
        (16, 65),
        (17, 100),
        (33, 512),
        (5, 513),
        (40, 576),
        (15, 1000),
        (100, 1536),
        (3, 4096),
        (20, 4097),
        (17, 9300),
    ]
    .into_iter()
    .enumerate()
    {
        let image = Image::made(&[(rows, columns)], seed as u64 + 1);
        for batch in [1, 2] {
            split += u32::from(compare(emulator, &image, &[0], batch, batch == 2, "an odd shape") > 0);
        }
    }
    assert!(split > 0, "no columns were split");
}

/// Query, key and value in one launch, and as many matrices as a launch takes.
#[test]
fn several_matrices_share_a_launch() {
    let emulator = Emulator::new();
    let shapes = [(48, 1100), (16, 1100), (33, 1100), (1, 1100), (90, 1100), (16, 1100), (17, 1100), (64, 1100)];
    let image = Image::made(&shapes, 3);
    for (tensors, batch) in [(&[0, 1, 2, 3, 4, 5, 6, 7][..], 1), (&[4, 1, 2], 2), (&[3, 3], 1)] {
        compare(&emulator, &image, tensors, batch, false, "several");
    }
}
