//! Matrices: every variant against the naive one, in memory whose borders are forbidden.

use crate::support::golden;
use crate::support::guarded::{Guarded, Side};
use crate::support::weights::{Random, gaussian, trained_like, uniform_exponents, with_zeros};
use df11::internals::matrix::{Input, Matrix, MatrixOptions, Order, Rows, Variant, bound, make, naive};
use df11::{DecodeOptions, Error, Model, OpenOptions, Progress, Result, bf16};

/// Rows in memory.
struct Plain<'w> {
    weights: &'w [u16],
    columns: u64,
}

impl Rows for Plain<'_> {
    fn rows(&self) -> u64 {
        self.weights.len() as u64 / self.columns
    }
    fn columns(&self) -> u64 {
        self.columns
    }
    fn get<'s>(&'s self, first: u64, count: u64, _: &'s mut Vec<u16>) -> Result<&'s [u16]> {
        Ok(&self.weights[(first * self.columns) as usize..((first + count) * self.columns) as usize])
    }
}

/// Makes a matrix in memory that ends where it does.
fn matrix(weights: &[u16], columns: usize, threads: usize) -> Guarded<u8> {
    let rows = Plain { weights, columns: columns as u64 };
    let most = bound(rows.rows(), rows.columns()).unwrap() as usize;
    let mut buffer = Guarded::new(&vec![0xa5; most], Side::Front);
    let used = make(&rows, buffer.as_mut_slice(), threads, &Progress::new()).unwrap().data().len();
    Guarded::new(&buffer.as_slice()[..used], Side::Back)
}

fn decompress(matrix: &Matrix, first: u64, dst: &mut [bf16], variant: Variant) -> Result<()> {
    // SAFETY: the slice is writable.
    unsafe { matrix.decompress_raw(first, dst.len() as u64, dst.as_mut_ptr().cast(), variant) }
}

fn variants() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|v| v.is_available())
}

/// All bits that a bf16 can have, in an order of no use to anybody.
fn every_weight() -> Vec<u16> {
    (0..=u16::MAX).map(|i| i.wrapping_mul(40_503)).collect()
}

fn kinds(n: usize, seed: u64) -> [Vec<u16>; 6] {
    let every = every_weight();
    [
        trained_like(n, seed),
        with_zeros(n, 0.3, seed),
        uniform_exponents(n, 100..=140, seed),
        uniform_exponents(n, 120..=134, seed),
        (0..n).map(|i| every[(i + seed as usize * 977) % every.len()]).collect(),
        vec![0x3f80; n],
    ]
}

/// Columns around the borders of steps, blocks, units and chunks.
const COLUMNS: [usize; 24] =
    [1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 160, 191, 192, 193, 255, 256, 300, 2047, 2112, 4160];

#[test]
fn every_weight_comes_back() {
    for (seed, columns) in COLUMNS.into_iter().enumerate() {
        for (kind, weights) in kinds(columns * 3, seed as u64).into_iter().enumerate() {
            let data = matrix(&weights, columns, 1);
            let matrix = Matrix::new(data.as_slice()).unwrap();
            assert_eq!((matrix.rows(), matrix.columns()), (3, columns as u64));
            for row in 0..3 {
                let expected = &weights[row * columns..][..columns];
                assert_eq!(naive::row(&matrix, row as u64), expected, "{columns} {kind}");
            }
            for variant in variants() {
                let mut out = Guarded::new(&vec![bf16::ZERO; 2 * columns], Side::Back);
                decompress(&matrix, columns as u64, out.as_mut_slice(), variant).unwrap();
                let bits: Vec<u16> = out.as_slice().iter().map(|w| w.to_bits()).collect();
                assert!(bits == weights[columns..], "{} {columns} {kind}", variant.name());
            }
        }
    }
}

#[test]
fn any_range_comes_back() {
    let mut random = Random::new(8);
    for columns in [1, 64, 100, 128, 200, 4160] {
        let weights = uniform_exponents(columns * 7, 110..=130, columns as u64);
        let data = matrix(&weights, columns, 1);
        let matrix = Matrix::new(data.as_slice()).unwrap();
        for _ in 0..50 {
            let first = random.below(weights.len() as u64) as usize;
            let count = random.below((weights.len() - first) as u64 + 1) as usize;
            for variant in variants() {
                let mut out = Guarded::new(&vec![bf16::ZERO; count], Side::Back);
                decompress(&matrix, first as u64, out.as_mut_slice(), variant).unwrap();
                let bits = out.as_slice().iter().map(|w| w.to_bits());
                assert!(bits.eq(weights[first..first + count].iter().copied()), "{} {columns} {first}", variant.name());
            }
        }
    }
}

/// Large outputs go past the caches where rows begin at a cache line, and nowhere else.
#[test]
fn large_outputs_come_back() {
    for columns in [1024, 1000] {
        let weights = trained_like(columns * 2200, 4);
        let data = matrix(&weights, columns, 2);
        let matrix = Matrix::new(data.as_slice()).unwrap();
        for variant in variants() {
            for side in [Side::Front, Side::Back] {
                let mut out = Guarded::new(&vec![bf16::ZERO; weights.len()], side);
                decompress(&matrix, 0, out.as_mut_slice(), variant).unwrap();
                assert!(out.as_slice().iter().map(|w| w.to_bits()).eq(weights.iter().copied()), "{}", variant.name());
            }
        }
    }
}

#[test]
fn products_have_the_bits_of_the_written_order() {
    let mut random = Random::new(5);
    for (seed, columns) in COLUMNS.into_iter().enumerate() {
        let rows = 2;
        for (kind, weights) in kinds(columns * rows, seed as u64).into_iter().enumerate() {
            let data = matrix(&weights, columns, 1);
            let matrix = Matrix::new(data.as_slice()).unwrap();
            let vectors = [1, 2, 3, 4, 5, 9, 64][random.below(7) as usize];
            let mut bits = gaussian(columns * vectors, 1.0, seed as u64);
            // Small enough for products and sums that are not normal, and a zero with a sign.
            bits.iter_mut().step_by(7).for_each(|b| *b = random.bits() as u16 & 0x87ff);
            let x: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
            let x_f32: Vec<f32> = x.iter().map(|x| x.to_f32() * 1.000_1).collect();
            let (x, x_f32) = (Guarded::new(&x, Side::Back), Guarded::new(&x_f32, Side::Back));
            for order in Order::ALL {
                let inputs = [Some(Input::Bf16(x.as_slice())), Some(Input::F32(x_f32.as_slice()))];
                for (i, input) in inputs.into_iter().flatten().enumerate() {
                    if order != Order::Lanes && i == 1 {
                        let mut y = vec![0.0; rows * vectors];
                        let error = matrix.multiply(0..rows as u64, input, order, &mut y).unwrap_err();
                        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
                        continue;
                    }
                    let one = |v: usize| match input {
                        Input::F32(x) => Input::F32(&x[v * columns..][..columns]),
                        Input::Bf16(x) => Input::Bf16(&x[v * columns..][..columns]),
                        _ => unreachable!(),
                    };
                    let expected: Vec<u32> = (0..vectors)
                        .flat_map(|v| (0..rows).map(move |r| (v, r)))
                        .map(|(v, r)| comparable(naive::dot(&weights[r * columns..][..columns], one(v), order)))
                        .collect();
                    for variant in variants() {
                        let mut y = Guarded::new(&vec![0f32; rows * vectors], Side::Back);
                        matrix.multiply_by(0..rows as u64, input, order, y.as_mut_slice(), variant).unwrap();
                        let found: Vec<u32> = y.as_slice().iter().map(|&y| comparable(y)).collect();
                        let name = variant.name();
                        assert!(
                            found == expected,
                            "{name} {order:?} columns {columns} kind {kind} vectors {vectors} {i}"
                        );
                    }
                }
            }
        }
    }
}

/// Bits of a number; one pattern for all that are none, whose bits no standard says.
fn comparable(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

#[test]
fn the_bytes_do_not_depend_on_threads() {
    let weights = uniform_exponents(1000 * 1500, 110..=130, 3);
    let one = matrix(&weights, 1500, 1);
    for threads in [2, 3, 7] {
        assert!(one.as_slice() == matrix(&weights, 1500, threads).as_slice(), "{threads}");
    }
}

#[test]
fn twelve_bits_are_enough_for_trained_weights() {
    let (rows, columns) = (256, 4096);
    let data = matrix(&trained_like(rows * columns, 1), columns, 2);
    let bits = data.as_slice().len() as f64 * 8.0 / (rows * columns) as f64;
    assert!(bits < 12.1, "{bits}");
}

#[test]
fn a_buffer_that_is_too_small_says_what_is_needed() {
    let weights = uniform_exponents(10_000, 0..=255, 1);
    let whole = matrix(&weights, 100, 1).as_slice().len();
    let rows = Plain { weights: &weights, columns: 100 };
    for bytes in [0, 64, whole - 64] {
        let mut buffer = Guarded::new(&vec![0; bytes], Side::Back);
        let result = make(&rows, buffer.as_mut_slice(), 2, &Progress::new());
        let Err(Error::BufferTooSmall { needed, .. }) = result else { panic!("{result:?}") };
        assert!(needed as usize <= whole && (bytes <= 64 || needed as usize == whole), "{needed} {whole}");
    }
    let mut buffer = Guarded::new(&vec![0; whole], Side::Back);
    make(&rows, buffer.as_mut_slice(), 2, &Progress::new()).unwrap();
    let progress = Progress::new();
    progress.cancel();
    assert!(matches!(make(&rows, buffer.as_mut_slice(), 2, &progress), Err(Error::Cancelled)));
}

#[test]
fn damaged_bytes_lead_nowhere() {
    let mut random = Random::new(9);
    for columns in [64, 100, 128, 300] {
        let weights = uniform_exponents(columns * 4, 115..=135, 2);
        let good = matrix(&weights, columns, 1);
        let x = vec![1f32; columns * 2];
        let mut opened = 0;
        for round in 0..2000 {
            let mut bytes = good.as_slice().to_vec();
            // The head has a checksum. A quarter of the rounds change it all the same.
            let from = if round % 4 == 0 { 0 } else { 128 };
            for _ in 0..=random.below(3) {
                let at = from + random.below((bytes.len() - from) as u64) as usize;
                bytes[at] = [0, 0xff, random.bits() as u8][random.below(3) as usize];
            }
            if round % 8 == 0 {
                // Whoever means it harm has the sum right: FNV-1a of the first 120 bytes.
                let fnv = |sum: u64, &b: &u8| (sum ^ b as u64).wrapping_mul(0x100_0000_01b3);
                let sum = bytes[..120].iter().fold(0xcbf2_9ce4_8422_2325, fnv);
                bytes[120..128].copy_from_slice(&sum.to_le_bytes());
            }
            let bytes = Guarded::new(&bytes, Side::Back);
            let Ok(matrix) = Matrix::new(bytes.as_slice()) else { continue };
            opened += 1;
            if (matrix.rows(), matrix.columns()) != (4, columns as u64) {
                // Smaller than it was: whatever it is now is inside.
                let (rows, columns) = (matrix.rows(), matrix.columns() as usize);
                let mut out = vec![bf16::ZERO; rows as usize * columns];
                matrix.decompress(0, &mut out).unwrap();
                let (x, mut y) = (vec![1f32; columns], vec![0f32; rows as usize]);
                matrix.multiply(0..rows, Input::F32(&x), Order::Lanes, &mut y).unwrap();
                continue;
            }
            let expected: Vec<u16> = (0..4).flat_map(|row| naive::row(&matrix, row)).collect();
            for variant in variants() {
                let mut out = Guarded::new(&vec![bf16::ZERO; 4 * columns], Side::Back);
                decompress(&matrix, 0, out.as_mut_slice(), variant).unwrap();
                let found = out.as_slice().iter().map(|w| w.to_bits());
                assert!(found.eq(expected.iter().copied()), "{} {columns} {round}", variant.name());
                let mut y = Guarded::new(&[0f32; 8], Side::Back);
                matrix.multiply_by(0..4, Input::F32(&x), Order::Lanes, y.as_mut_slice(), variant).unwrap();
            }
        }
        assert!((800..1990).contains(&opened), "{opened}");
        for bytes in 0..good.as_slice().len() {
            assert!(Matrix::new(&good.as_slice()[..bytes]).is_err());
        }
        assert!(matches!(Matrix::new(&good.as_slice()[1..]), Err(Error::Misaligned { .. })));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let weights = trained_like(4 * 100, 1);
    let data = matrix(&weights, 100, 1);
    let matrix = Matrix::new(data.as_slice()).unwrap();
    let (x, mut y) = ([0f32; 200], [0f32; 8]);
    for (rows, x_len, y_len, fits) in [
        (0..4, 200, 8, true),
        (1..1, 100, 0, true),
        (0..5, 100, 5, false),
        (std::ops::Range { start: 3, end: 2 }, 100, 1, false),
        (0..4, 100, 3, false),
        (0..4, 150, 4, false),
        (0..4, 0, 0, false),
    ] {
        let result = matrix.multiply(rows.clone(), Input::F32(&x[..x_len]), Order::Lanes, &mut y[..y_len]);
        assert_eq!(result.is_ok(), fits, "{rows:?} {x_len} {y_len}");
    }
    assert!(matrix.decompress(301, &mut [bf16::ZERO; 100]).is_err());
    assert!(matrix.decompress(u64::MAX, &mut [bf16::ZERO; 1]).is_err());
    matrix.decompress(400, &mut []).unwrap();
    assert!(bound(0, 5).is_err() && bound(5, 0).is_err() && bound(1 << 24, 1 << 24).is_err());
    assert!(bound(u64::MAX, u64::MAX).is_err());
}

/// Tensors of groups, of several runs, and plain ones, whole and in part.
#[test]
fn matrices_of_tensors_are_those_of_their_weights() {
    let mut tensors = 0;
    for folder in [golden::model("block"), golden::model("edge"), golden::path("../extension/model")] {
        let model = Model::open(&folder, &OpenOptions::new()).unwrap();
        for tensor in model.tensors().filter(|t| t.dtype() == df11::Dtype::BF16 && t.bytes() > 2) {
            let mut bytes = vec![0; tensor.bytes() as usize];
            tensor.read(0, &mut bytes, &DecodeOptions::new()).unwrap();
            let weights: Vec<u16> = bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
            let n = weights.len();
            let columns = (1..=n.min(300)).rev().find(|c| n.is_multiple_of(*c)).unwrap();
            let rows = n / columns;
            for rows in [0..rows, rows / 3..rows, rows / 2..rows / 2 + 1] {
                let expected = matrix(&weights[rows.start * columns..rows.end * columns], columns, 1);
                let mut buffer = Guarded::new(&vec![0xa5; expected.as_slice().len()], Side::Front);
                let range = rows.start as u64..rows.end as u64;
                let (options, progress) = (MatrixOptions::new().threads(2), Progress::new());
                let made = tensor.write_matrix(columns as u64, range, buffer.as_mut_slice(), &options, &progress);
                assert!(made.unwrap().data() == expected.as_slice(), "{} {rows:?}", tensor.name());
                assert_eq!(progress.done(), 2 * (rows.len() * columns) as u64);
                tensors += 1;
            }
            let more = rows as u64 + 1;
            let (options, progress, mut none) = (MatrixOptions::new(), Progress::new(), [0; 0]);
            let refused = |columns, rows: std::ops::Range<u64>, none: &mut [u8]| {
                let error = tensor.write_matrix(columns, rows, none, &options, &progress).unwrap_err();
                assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains("tensor"), "{error}");
            };
            refused(columns as u64, 0..more, &mut none);
            refused(columns as u64, more..1, &mut none);
            refused(n as u64 + 1, 0..1, &mut none);
            refused(0, 0..1, &mut none);
        }
    }
    assert!(tensors > 60, "{tensors}");
}

/// Rows of which some cannot be had: after an error, and even after a panic, no thread waits for ever.
#[test]
fn rows_that_cannot_be_had() {
    struct Bad(bool);
    impl Rows for Bad {
        fn rows(&self) -> u64 {
            4000
        }
        fn columns(&self) -> u64 {
            1024
        }
        fn get<'s>(&'s self, first: u64, count: u64, scratch: &'s mut Vec<u16>) -> Result<&'s [u16]> {
            // The sample's pieces are small.
            if count > 16 && first > 1000 {
                assert!(!self.0, "rows that panic");
                return Err(Error::InvalidArgument("rows that fail".into()));
            }
            scratch.clear();
            scratch.resize(count as usize * 1024, 0x3f80);
            Ok(scratch)
        }
    }
    let most = bound(4000, 1024).unwrap() as usize;
    let mut buffer = Guarded::new(&vec![0; most], Side::Front);
    for panics in [false, true] {
        let mut attempt = || make(&Bad(panics), buffer.as_mut_slice(), 3, &Progress::new()).map(|_| ());
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut attempt)) {
            Ok(result) => {
                assert!(result.unwrap_err().to_string().contains(if panics { "panic" } else { "rows that fail" }))
            }
            Err(_) => assert!(panics),
        }
    }
}
