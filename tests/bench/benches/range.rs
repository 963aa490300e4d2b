//! How long small ranges take, at random places of a large group: rows of an embedding, for example. See the package's
//! README.

use df11::internals::huffman::decode::Variant;
use df11::{DecodeOptions, Model};
use df11_bench::clock::Cores;
use df11_bench::data::{self, Data};
use df11_bench::machine::Machine;
use df11_bench::weights::Random;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use std::time::Instant;

/// Weights of a range.
const SIZES: [usize; 7] = [1, 64, 384, 1_024, 4_096, 16_384, 65_536];

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (weights, rounds) = if quick { (1_000_000, 20) } else { (70_000_000, 2_000) };
    let cores = Cores::new();
    println!("libdf11 range benchmark. Medians of {rounds} ranges at random places, one thread, in microseconds.\n");
    Machine::new(cores.count()).lines().iter().for_each(|line| println!("{line}"));
    let data = Data::new(weights);
    let model = data::open(&data.packed).unwrap();
    cores.pin();
    print!("\n{:<16}", format!("of {weights}"));
    SIZES.iter().for_each(|size| print!(" {size:>8}"));
    println!();
    for variant in Variant::ALL.into_iter().filter(|v| v.is_available()) {
        print!("df11 {:<11}", variant.name());
        for size in SIZES {
            print!(" {:>8.2}", median(&model, &data.original, size, rounds, variant));
        }
        println!();
    }
}

/// The median time of a range, in microseconds. Each answer is compared with the original.
fn median(model: &Model, original: &[u16], size: usize, rounds: usize, variant: Variant) -> f64 {
    let options = DecodeOptions::new().variant(variant);
    let group = model.group(0).unwrap();
    let (mut random, mut dst) = (Random::new(size as u64), vec![bf16::ZERO; size]);
    let times = (0..rounds).map(|_| {
        let first = random.below((original.len() - size) as u64);
        let start = Instant::now();
        group.decompress(first, &mut dst, &options).unwrap();
        let time = start.elapsed();
        assert!(dst.reinterpret_cast() == &original[first as usize..][..size], "{} from {first}", variant.name());
        time.as_secs_f64() * 1e6
    });
    df11_bench::contest::median(times)
}
