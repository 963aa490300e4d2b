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

    /// Makes the image of a matrix with trained weights alone.
    fn trained(shape: (u64, u64), seed: u64) -> Image {
        let weights = weights::trained_like((shape.0 * shape.1) as usize, seed);
        let file = encoder::safetensors(&encoder::group_tensors("g", &encoder::encode(&weights, &[])), None);
        Image::of(&Model::from_bytes(file, &OpenOptions::new()).unwrap(), 0, &[shape])
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

pub(crate) fn golden_matrices(emulator: &Emulator) {
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

pub(crate) fn odd_shapes(emulator: &Emulator) {
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

/// Multiplies with `batch` vectors, and says what a weight cost: instructions, wavefronts for 32, and sectors in relation to those
/// of the layout.
pub(crate) fn count(emulator: &Emulator, (rows, columns): (u64, u64), batch: u32, name: &str) -> [f64; 3] {
    // Races are the business of other tests. On one multiprocessor a block has as many rows as in large matrices.
    emulator.control("races", "0");
    emulator.control("sms", "1");
    let image = Image::trained((rows, columns), 11);
    compare(emulator, &image, &[0], batch, false, name);
    let weights = (rows * columns) as f64;
    let last = |what: &str| emulator.query(what) as f64;
    let instructions = last("last.instructions") / weights;
    let wavefronts = 32.0 * last("last.shared_wavefronts") / weights;
    let sectors = last("last.sectors_read") * 32.0 / image.bytes.len() as f64;
    println!(
        "{name}, {batch} vectors: {instructions:.2} instructions a weight, {wavefronts:.2} wavefronts for 32, {sectors:.3} of \
         the layout's sectors, {} local accesses",
        emulator.query("last.local_accesses")
    );
    [instructions, wavefronts, sectors]
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

/// Three to eight vectors, on tensor cores; more than two are not offered where these take no bf16.
#[test]
fn more_vectors_are_within_the_bound() {
    let emulator = Emulator::new();
    for (shape, batches) in [((40, 1100), 3..=8), ((17, 64), 8..=8), ((33, 4700), 5..=5)] {
        let image = Image::made(&[shape], 21);
        for batch in batches {
            compare(&emulator, &image, &[0], batch, batch == 7, "tensor cores");
        }
    }
    emulator.control("reset", "1");
    emulator.control("cc", "75");
    let device = emulator.open(0);
    assert_eq!(multiply::refusal(&device, 16, 64, 2), None);
    for (rows, columns, batch) in [(16, 64, 3), (16, 64, 0), (16, 63, 1), (0, 64, 1), (1 << 20, 1 << 12, 1)] {
        assert!(multiply::refusal(&device, rows, columns, batch).is_some(), "{rows} × {columns}, {batch}");
    }
}

/// Experts by numbers on the device: gate and up of one vector, a vector each, two vectors; numbers that do not exist.
#[test]
fn experts_are_chosen_on_the_device() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    // Four experts, each with a gate and an up, and something before them.
    let (rows, columns) = (35u64, 1200u64);
    let shapes: Vec<(u64, u64)> = std::iter::once((3, 64)).chain((0..4).flat_map(|_| [(rows, columns); 2])).collect();
    let image = Image::made(&shapes, 5);
    let placed = place(&engine, &device, &image);
    let ids = [2u32, 0, 3, u32::MAX, 4, 2];
    let chosen = ids.len() as u64;
    let (at_ids, status) = (engine.alloc(4 * chosen), engine.alloc(4));
    engine.write(at_ids, &ids.map(u32::to_le_bytes).concat());
    for (batch, own) in [(1, false), (1, true), (2, true)] {
        let (x, x_stride) = vectors(columns, u64::from(batch) * chosen, 4);
        let x_step = if own { u64::from(batch) * x_stride } else { 0 };
        let (y_stride, y_step) = (rows + 1, (rows + 1) * u64::from(batch) + 2);
        let size = 4 * y_step * chosen;
        let at = engine.alloc(2 * x.len() as u64);
        engine.write(at, &bytes(&x));
        let ys = [engine.alloc(size), engine.alloc(size)];
        for y in ys {
            engine.fill(y, PAINT, size);
        }
        engine.fill(status, 0, 4);
        let operand = |i: usize| Operand {
            resident: &placed.resident,
            tensor: 1 + i as u64,
            step: 2,
            rows,
            columns,
            y: ys[i],
            y_stride,
            y_step,
        };
        let experts = Some(Experts { ids: at_ids, chosen, count: 4, x_step });
        let mut with = Product { x: at, x_stride, batch, experts, status, ..Product::default() };
        with.workspace_bytes = multiply::workspace_bytes(operand, 2, &with).unwrap();
        with.workspace = engine.alloc(with.workspace_bytes.max(1));
        // SAFETY: all memory outlives the stream's work.
        unsafe { multiply::multiply(operand, 2, &with, stream) }.unwrap();
        engine.synchronise(stream);
        assert_eq!(engine.read_u32(status), 1, "experts that do not exist");
        for (which, y) in ys.into_iter().enumerate() {
            let got = engine.read(y, size);
            for (place, &id) in ids.iter().enumerate() {
                for (vector, row) in (0..batch as usize).flat_map(|v| (0..rows as usize).map(move |row| (v, row))) {
                    let element = place * y_step as usize + vector * y_stride as usize + row;
                    let got = f32::from_le_bytes(got[4 * element..][..4].try_into().unwrap());
                    let x = &x[(place as u64 * x_step + vector as u64 * x_stride) as usize..][..columns as usize];
                    let want = if id < 4 {
                        let (shape, weights) = image.tensor(1 + 2 * id as usize + which);
                        product(&weights[row * columns as usize..][..columns as usize], x, shape.table)
                    } else {
                        0.0
                    };
                    assert_eq!(got.to_bits(), want.to_bits(), "matrix {which}, place {place}, row {row}");
                }
            }
            engine.free(y);
        }
        engine.free(at);
        engine.free(with.workspace);
    }
    emulator.assert_no_fault();
}

/// One product that takes two launches, with all that it needs.
struct Scene<'a> {
    engine: &'a Engine<'a>,
    placed: Placed<'a>,
    product: Product,
    y: u64,
    want: Vec<u8>,
}

const SCENE: (u64, u64) = (20, 4700);

impl<'a> Scene<'a> {
    fn new(engine: &'a Engine<'a>, device: &Device) -> Scene<'a> {
        let image = Image::made(&[SCENE], 8);
        let (x, x_stride) = vectors(SCENE.1, 1, 2);
        let at = engine.alloc(2 * x.len() as u64);
        engine.write(at, &bytes(&x));
        let (shape, weights) = image.tensor(0);
        let rows = weights.chunks(SCENE.1 as usize);
        let want = rows.flat_map(|row| product(row, &x, shape.table).to_le_bytes()).collect();
        let product = Product { x: at, x_stride, batch: 1, ..Product::default() };
        let placed = place(engine, device, &image);
        let mut scene = Scene { engine, placed, product, y: engine.alloc(4 * SCENE.0), want };
        let needed = multiply::workspace_bytes(|_| scene.operand(), 1, &scene.product).unwrap();
        assert!(needed > 0, "it is not split");
        (scene.product.workspace, scene.product.workspace_bytes) = (engine.alloc(needed), needed);
        scene
    }

    fn operand(&self) -> Operand<'_> {
        let resident = &self.placed.resident;
        Operand { resident, tensor: 0, step: 0, rows: SCENE.0, columns: SCENE.1, y: self.y, y_stride: 0, y_step: 0 }
    }

    fn multiply(&self, stream: df11::cuda::Stream) -> Result<(), Error> {
        // SAFETY: all memory outlives the stream's work.
        unsafe { multiply::multiply(|_| self.operand(), 1, &self.product, stream) }
    }

    fn clear(&self) {
        self.engine.fill(self.y, PAINT, 4 * SCENE.0);
    }

    fn is_right(&self) -> bool {
        self.engine.read(self.y, 4 * SCENE.0) == self.want
    }
}

#[test]
fn products_are_captured_and_replayed() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let scene = Scene::new(&engine, &device);
    scene.clear();
    engine.begin_capture(stream, 0);
    scene.multiply(stream).unwrap();
    let exec = engine.end_capture(stream).unwrap();
    engine.synchronise(stream);
    assert!(!scene.is_right(), "a capture multiplies nothing");
    for _ in 0..2 {
        scene.clear();
        engine.launch_graph(exec, stream);
        engine.synchronise(stream);
        assert!(scene.is_right());
    }
    engine.destroy_graph(exec);
    emulator.assert_no_fault();
}

/// Each entry point of the driver fails at each of its calls: the error is told, and the next product is right.
#[test]
fn products_survive_every_failure_of_the_driver() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let scene = Scene::new(&engine, &device);
    let (result, calls) = emulator.calls_of(|| scene.multiply(stream));
    result.unwrap();
    assert_eq!(calls["cuLaunchKernel"], 2);
    assert_eq!(calls.len(), 4, "{calls:?}");
    let mut failures = 0;
    for (name, count) in calls {
        for nth in 1..=count {
            for code in [2, 700, 901, 999] {
                emulator.control("fail", &format!("{name}@{nth}={code}"));
                let error = scene.multiply(stream).unwrap_err();
                emulator.control("unfail", "");
                assert_eq!(error.native_code(), code, "{name}@{nth}: {error}");
                let second = name == "cuLaunchKernel" && nth == 2 && code != 901;
                assert_eq!(error.to_string().contains("1 launches of this call"), second, "{error}");
                engine.synchronise(stream);
                scene.clear();
                scene.multiply(stream).unwrap();
                engine.synchronise(stream);
                assert!(scene.is_right(), "after {name}@{nth}");
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 20);
    emulator.assert_no_fault();
}

#[test]
fn mistakes_are_refused_before_anything_is_launched() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let scene = Scene::new(&engine, &device);
    let (good, from) = (scene.operand(), scene.product);
    let experts = Experts { ids: from.x, chosen: 1, count: 1, x_step: 0 };
    let two = Product { batch: 2, ..from };
    type Change<'a> = (Operand<'a>, Product, &'static str);
    let cases: &[Change] = &[
        (Operand { tensor: 1, ..good }, from, "InvalidArgument"),
        (Operand { rows: 21, ..good }, from, "UnsupportedOption"),
        (Operand { columns: 4699, ..good }, from, "UnsupportedOption"),
        (Operand { y: 0, ..good }, from, "InvalidArgument"),
        (Operand { y: good.y + 2, ..good }, from, "Misaligned"),
        (Operand { y: u64::MAX - 3, ..good }, from, "InvalidArgument"),
        (Operand { y: scene.placed.at + 4, ..good }, from, "InvalidArgument"),
        (good, Product { batch: 0, ..from }, "UnsupportedOption"),
        (good, Product { batch: 9, ..from }, "UnsupportedOption"),
        (good, Product { x: 0, ..from }, "InvalidArgument"),
        (good, Product { x: from.x + 2, ..from }, "Misaligned"),
        (good, Product { x: u64::MAX - 15, ..from }, "InvalidArgument"),
        (good, Product { status: 2, ..from }, "Misaligned"),
        (good, Product { status: scene.placed.at, ..from }, "InvalidArgument"),
        (good, Product { workspace: 0, ..from }, "InvalidArgument"),
        (good, Product { workspace: from.workspace + 4, ..from }, "Misaligned"),
        (good, Product { workspace_bytes: from.workspace_bytes - 1, ..from }, "BufferTooSmall"),
        (good, Product { x_stride: 4704, ..two }, "BufferTooSmall"),
        (good, Product { x_stride: 4701, ..two }, "Misaligned"),
        (good, Product { x_stride: 4696, ..two }, "InvalidArgument"),
        (good, Product { experts: Some(Experts { ids: 0, ..experts }), ..from }, "InvalidArgument"),
        (good, Product { experts: Some(Experts { ids: from.x + 1, ..experts }), ..from }, "Misaligned"),
        (good, Product { experts: Some(Experts { count: 0, ..experts }), ..from }, "InvalidArgument"),
        (good, Product { experts: Some(Experts { chosen: 65_536, ..experts }), ..from }, "InvalidArgument"),
        (
            Operand { step: 1, ..good },
            Product { experts: Some(Experts { count: 2, ..experts }), ..from },
            "InvalidArgument",
        ),
    ];
    let (launched, calls) = emulator.calls_of(|| {
        for (number, (operand, product, want)) in cases.iter().enumerate() {
            // SAFETY: nothing is launched.
            let error = unsafe { multiply::multiply(|_| *operand, 1, product, stream) }.unwrap_err();
            assert_eq!(format!("{:?}", error.status()), *want, "case {number}: {error}");
        }
        for count in [0, 9] {
            // SAFETY: nothing is launched.
            let error = unsafe { multiply::multiply(|_| good, count, &from, stream) }.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        }
        // SAFETY: nothing is launched.
        let error =
            unsafe { multiply::multiply(|_| good, 1, &from, df11::cuda::Stream::from_raw(std::ptr::null_mut())) };
        assert!(matches!(error, Err(Error::DefaultStream)));
        let none = Product { experts: Some(Experts { chosen: 0, ..experts }), ..from };
        // SAFETY: nothing is launched.
        unsafe { multiply::multiply(|_| good, 1, &none, stream) }
    });
    launched.unwrap();
    assert!(calls.is_empty(), "{calls:?}");
}

/// Damaged bytes anywhere behind the head, and for experts in its records on the device too: no access goes astray, nothing else
/// is written, and where the status says nothing the sums are those of the weights that the oracle decodes.
#[test]
fn spoilt_images_give_wrong_sums_and_nothing_else() {
    spoilt(&Emulator::new(), check::rounds(10_000));
}

fn spoilt(emulator: &Emulator, rounds: u64) {
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let (rows, columns) = (18u64, 200u64);
    let image = Image::made(&[(rows, columns), (rows, columns)], 31);
    let placed = place(&engine, &device, &image);
    let head = image.head.head_bytes();
    let tensor = image.tensor(0).0;
    let sections = [
        (256, head),
        (tensor.tiles, tensor.starts),
        (tensor.starts, tensor.escapes),
        (tensor.escapes, tensor.escapes + 4 * u64::from(tensor.escape_count)),
    ];
    let (x, x_stride) = vectors(columns, 8, 6);
    let (at, ids, status, size) = (engine.alloc(2 * x.len() as u64), engine.alloc(4), engine.alloc(4), 4 * 8 * rows);
    engine.write(at, &bytes(&x));
    let y = engine.alloc(size + 128);
    let mut random = Random::new(12);
    let (mut said, mut zeros) = (0, 0);
    for round in 0..rounds {
        let (from, to) = sections[random.below(4) as usize];
        let mut bad = image.bytes.clone();
        let part = &mut bad[from as usize..to as usize];
        let len = part.len() as u64;
        match random.below(4) {
            0 => part[random.below(len) as usize] ^= 1 << random.below(8),
            1 => (0..6).for_each(|_| part[random.below(len) as usize] = random.bits() as u8),
            2 => part.fill([0, 0xff, 0x80, 1][random.below(4) as usize]),
            _ => part.rotate_left(random.below(len) as usize),
        }
        engine.write(placed.at, &bad);
        engine.fill(y, PAINT, size + 128);
        engine.fill(status, 0, 4);
        engine.write(ids, &(random.below(2) as u32).to_le_bytes());
        let by_number = random.below(2) == 0;
        let batch = [1, 2, 5][random.below(3) as usize];
        let operand = Operand {
            resident: &placed.resident,
            tensor: 0,
            step: 1,
            rows,
            columns,
            y: y + 64,
            y_stride: rows,
            y_step: 0,
        };
        let experts = by_number.then_some(Experts { ids, chosen: 1, count: 2, x_step: 0 });
        let with = Product { x: at, x_stride, batch, experts, status, ..Product::default() };
        let what = format!("round {round}, section {from}, batch {batch}, by number: {by_number}");
        // SAFETY: all memory outlives the stream's work.
        unsafe { multiply::multiply(|_| operand, 1, &with, stream) }.unwrap();
        assert_eq!(engine.wait(stream), 0, "{what}: {}", emulator.text("fault"));
        let got = engine.read(y, size + 128);
        let end = 64 + 4 * (u64::from(batch) * rows) as usize;
        assert!(got[..64].iter().chain(&got[end..]).all(|&b| b == PAINT), "{what}: bytes outside were written");
        let status = engine.read_u32(status);
        assert!([0, 103].contains(&status), "{what}: {status}");
        said += u32::from(status == 103);
        zeros += u32::from(status == 103 && got[64..end].iter().all(|&b| b == 0));
        if status != 0 || by_number || batch > 2 {
            continue;
        }
        // The head on the host is the good one, and tiles are what they are: other weights, other sums.
        let mut seen = bad.clone();
        seen[..head as usize].copy_from_slice(&image.bytes[..head as usize]);
        let oracle = linear::decode(&seen, 0, rows * columns).unwrap();
        if from == tensor.tiles && oracle.good {
            for row in 0..rows as usize {
                // An escape's place says +0 in a good image only.
                if (0..columns).any(|column| image.is_escape(row as u64, column)) {
                    continue;
                }
                let want = product(
                    &oracle.weights[row * columns as usize..][..columns as usize],
                    &x[..columns as usize],
                    tensor.table,
                );
                let got = f32::from_le_bytes(got[64 + 4 * row..][..4].try_into().unwrap());
                assert_eq!(got.to_bits(), want.to_bits(), "{what}, row {row}");
            }
        }
    }
    emulator.assert_no_fault();
    assert!(u64::from(said) > rounds / 10 && zeros > 0, "{said} reported of {rounds}, {zeros} of them zeros");
}

impl Image {
    /// Whether a weight of tensor 0 is an escape.
    fn is_escape(&self, row: u64, column: u64) -> bool {
        let (tensor, weights) = self.tensor(0);
        let weight = weights[(row * tensor.columns + column) as usize];
        !tensor.table.contains(&((weight >> 8 & 127) as u8))
    }
}
