//! Every decoder against the naive one and against what was encoded: sizes, codes, ranges, destinations, threads, damaged streams, and
//! accesses out of bounds.

#[cfg(unix)]
mod bounds;
mod codes;
mod damaged;
mod ranges;
#[path = "../support/mod.rs"]
mod support;

use df11::internals::huffman::code::Code;
use df11::internals::huffman::decode::Variant;
use df11::internals::huffman::naive;
use df11::matrix::{self, Input, MatrixOptions, Order};
use df11::{DecodeOptions, Model, OpenOptions, Progress};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use support::alloc::{self, Counting};
use support::alone::alone;
use support::encoder::{self, Encoded};
use support::weights::{self, Random};

#[global_allocator]
static COUNTING: Counting = Counting;

fn variants() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|v| v.is_available())
}

/// A model of one group, in memory and as a file that is read.
struct Case {
    what: String,
    weights: Vec<u16>,
    encoded: Encoded,
    memory: Model,
    read: Model,
}

impl Case {
    fn new(what: impl Into<String>, weights: Vec<u16>, encoded: Encoded) -> Case {
        let (what, file) = (what.into(), encoder::safetensors(&encoder::group_tensors("g", &encoded), None));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, &file).unwrap();
        let said = |e: df11::Error| panic!("{what}: {e}");
        let read = Model::open(&path, &OpenOptions::new()).unwrap_or_else(said);
        let memory = Model::from_bytes(file, &OpenOptions::default()).unwrap_or_else(said);
        Case { what, weights, encoded, memory, read }
    }

    fn of(what: impl Into<String>, weights: Vec<u16>) -> Case {
        let encoded = encoder::encode(&weights, &[]);
        Case::new(what, weights, encoded)
    }

    fn models(&self) -> [(&'static str, &Model); 2] {
        [("in memory", &self.memory), ("read", &self.read)]
    }

    /// Decodes a range into a larger buffer, `lead` weights after its start, and checks all of the buffer.
    fn range(&self, model: (&str, &Model), first: usize, count: usize, lead: usize, options: &DecodeOptions) {
        const CANARY: u16 = 0xa5c3;
        let mut buffer = vec![bf16::from_bits(CANARY); lead + count + 64];
        let destination = &mut buffer[lead..lead + count];
        let place = || {
            let variant = options.variant.map_or("default", Variant::name);
            format!("{}, {}, {variant} x{}, {first} + {count}, offset {lead}", self.what, model.0, options.threads)
        };
        model
            .1
            .group(0)
            .unwrap()
            .decompress(first as u64, destination, options)
            .unwrap_or_else(|e| panic!("{}: {e}", place()));
        let (before, rest) = buffer.reinterpret_cast().split_at(lead);
        let (found, after) = rest.split_at(count);
        assert!(found == &self.weights[first..first + count], "{}: wrong weights", place());
        assert!(before.iter().chain(after).all(|&w| w == CANARY), "{}: wrote outside", place());
    }

    /// Decodes everything with the naive decoder and all others, and checks every gap and position.
    fn check(&self, threads: &[usize]) {
        let group = self.memory.group(0).unwrap();
        let naive = naive::decode(
            df11::internals::format::codes(group),
            &self.encoded.encoded_exponent,
            0,
            &self.encoded.sign_mantissa,
        );
        let (found, end) = naive.unwrap_or_else(|k| panic!("{}: the naive decoder stops at weight {k}", self.what));
        assert!(found == self.weights, "{}: naive", self.what);
        assert_eq!(end.div_ceil(8), self.encoded.encoded_exponent.len(), "{}", self.what);
        for model in self.models() {
            for variant in variants() {
                for &threads in threads {
                    let options = DecodeOptions::new().threads(threads).variant(variant);
                    self.range(model, 0, self.weights.len(), 0, &options);
                }
            }
            for &threads in threads {
                model.1.group(0).unwrap().verify(threads).unwrap_or_else(|e| panic!("{}, {}: {e}", self.what, model.0));
            }
        }
    }
}

/// Returns weights that repeat these exponents, with random signs and mantissas.
fn cycle(exponents: &[u8], n: usize, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    exponents.iter().cycle().take(n).map(|&e| random.bits() as u16 & 0x807f | (e as u16) << 7).collect()
}

/// Returns a random prefix code with holes. A symbol may have several words.
fn random_codes(random: &mut Random) -> Vec<Code> {
    // Words are split in two until there are enough; which are split decides the shape.
    let (mut words, wanted) = (vec![(0u64, 0u32)], 1 + random.below(40) as usize);
    let deep = random.below(3);
    for _ in 0..400 {
        if words.len() >= wanted {
            break;
        }
        let i = match deep {
            0 => random.below(words.len() as u64) as usize,
            1 => words.len() - 1,
            _ => words.len() - 1 - random.below(words.len().min(3) as u64) as usize,
        };
        let (bits, len) = words[i];
        if len < 32 {
            words.remove(i);
            words.extend([(bits << 1, len + 1), (bits << 1 | 1, len + 1)]);
        }
    }
    let holes = random.below(4);
    words.retain(|&(_, len)| len > 0 && (holes != 0 || random.below(5) != 0));
    words
        .into_iter()
        .map(|(bits, len)| Code { bits: (bits << (32 - len)) as u32, len: len as u8, symbol: random.below(240) as u8 })
        .collect()
}

#[test]
fn decoding_takes_less_than_a_megabyte_per_thread() {
    alone!();
    // One-bit codes need the largest buffers where files are read.
    let cases = [
        Case::of("trained-like, small", weights::trained_like(300_000, 14)),
        Case::of("trained-like, large", weights::trained_like(3_000_000, 15)),
        Case::of("one bit", weights::one_bit(5_000_000, 8, 16)),
    ];
    const TABLE: usize = 8 << 11;
    for case in &cases {
        let mut buffer = vec![bf16::ZERO; case.weights.len()];
        for (how, model) in case.models() {
            for (i, threads) in [1, 2, 4].into_iter().enumerate() {
                let options = DecodeOptions::new().threads(threads);
                let (result, taken) = alloc::taken(|| model.group(0).unwrap().decompress(0, &mut buffer, &options));
                result.unwrap();
                assert!(buffer.reinterpret_cast() == &case.weights[..]);
                println!("{}, {how}, {threads} threads: {taken:?}", case.what);
                // The table is made once, at the first use.
                let table = if i == 0 { TABLE + 64 } else { 0 };
                let scratch = taken.peak.saturating_sub(table);
                assert!(scratch < threads << 20, "{}, {how}, {threads} threads: {taken:?}", case.what);
                if how == "in memory" {
                    assert!(scratch < 4096 + threads * 2048, "{}, {threads} threads: {taken:?}", case.what);
                }
                let (result, taken) = alloc::taken(|| model.group(0).unwrap().verify(threads));
                result.unwrap();
                assert!(taken.peak < threads << 18, "verify, {}, {how}, {threads} threads: {taken:?}", case.what);
            }
        }
    }
}

/// Products and decoding of matrices take no memory at all.
#[test]
fn products_allocate_nothing() {
    alone!();
    let weights: &[bf16] = &weights::trained_like(500 * 300, 3).iter().map(|&w| bf16::from_bits(w)).collect::<Vec<_>>();
    let mut memory = vec![Line([0; 64]); matrix::bound(500, 300).unwrap() as usize / 64];
    let (progress, options) = (Progress::new(), MatrixOptions::new());
    // SAFETY: lines are bytes, borrowed exclusively.
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), size_of_val(&memory[..])) };
    let matrix = matrix::write(weights, 300, bytes, &options, &progress).unwrap();
    let (x, mut y, mut out) = (vec![1f32; 300 * 70], vec![0f32; 500 * 70], vec![bf16::ZERO; 500 * 300]);
    for vectors in [1, 3, 70] {
        let (result, taken) = alloc::taken(|| {
            matrix.multiply(0..500, Input::F32(&x[..300 * vectors]), Order::Lanes, &mut y[..500 * vectors])
        });
        result.unwrap();
        assert_eq!(taken.total, 0, "{vectors} vectors");
    }
    let (result, taken) = alloc::taken(|| matrix.decompress(0, &mut out));
    result.unwrap();
    assert_eq!(taken.total, 0);
    assert!(out == weights);
}

/// Making a matrix takes what the header says, also of a compressed tensor in a file that is read, and with long rows.
#[test]
fn making_a_matrix_takes_less_than_three_megabytes_per_thread() {
    alone!();
    let case = Case::of("matrix", weights::trained_like(3 << 20, 4));
    let most = matrix::bound(3, 1 << 20).unwrap().max(matrix::bound(3 << 10, 1 << 10).unwrap()) as usize;
    let mut memory = vec![Line([0; 64]); most / 64];
    // SAFETY: lines are bytes, borrowed exclusively.
    let dst = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), size_of_val(&memory[..])) };
    for (columns, threads) in [(1024u64, 1), (1024, 3), (1 << 20, 1), (1 << 20, 2)] {
        let (options, progress) = (MatrixOptions::new().threads(threads), Progress::new());
        let long = if columns > 1 << 18 { 5 * columns as usize } else { 0 };
        for (how, model) in case.models() {
            let tensor = model.tensor(0).unwrap();
            let rows = 0..(3 << 20) / columns;
            let (result, taken) =
                alloc::taken(|| tensor.write_matrix(columns, rows, dst, &options, &progress).map(|_| ()));
            result.unwrap();
            println!("{how}, rows of {columns}, {threads} threads: {taken:?}");
            assert!(taken.peak < threads * ((3 << 20) + long), "{how}, rows of {columns}, {threads}: {taken:?}");
        }
    }
}

/// A cache line, to which a matrix is aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);
