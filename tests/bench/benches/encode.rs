//! libdf11's encoder beside a memory copy and its peers. See the package's README.

use df11_bench::bench::{Bench, Contestants, LAYERS};
use df11_bench::contest::Contestant;
use df11_bench::copy::Copy;
use df11_bench::data::Data;
use df11_bench::huge::InHuge;
use df11_bench::ours::{Encoder, Histogram};
use df11_bench::python::Side;
use df11_bench::{huf0, zstd};
use std::process::ExitCode;

fn contestants(data: &Data, threads: usize) -> Result<[Contestants<'_>; 2], String> {
    let (parallel, single): (Vec<_>, Vec<_>) = Encoder::all(data, threads).into_iter().partition(|e| e.threads() > 1);
    let mut one = of(data, 1, single)?;
    one.push(Box::new(zstd::Encoder::new(&data.original, 1)?));
    for copy in Copy::both(&data.original, 1) {
        let weights = data.original.len();
        one.extend(InHuge::new(copy, weights).map(|c| Box::new(c) as Box<dyn Contestant>));
    }
    Histogram::all(data).for_each(|h| one.push(Box::new(h)));
    Ok([one, if threads > 1 { of(data, threads, parallel)? } else { Vec::new() }])
}

/// Those that use so many threads, the copies first.
fn of<'a>(data: &'a Data, threads: usize, ours: Vec<Encoder<'a>>) -> Result<Contestants<'a>, String> {
    let mut all: Contestants = Vec::new();
    Copy::both(&data.original, threads).into_iter().for_each(|c| all.push(Box::new(c)));
    ours.into_iter().for_each(|e| all.push(Box::new(e)));
    all.push(Box::new(huf0::Encoder::new(&data.original, threads)?));
    Ok(all)
}

fn main() -> ExitCode {
    Bench { name: "encode", weights: LAYERS, side: Some(Side::Compress), contestants }.main()
}
