//! libdf11's decoder beside a memory copy and its peers. See the package's README.

use df11_bench::bench::{Bench, Contestants, LAYERS};
use df11_bench::contest::Contestant;
use df11_bench::copy::Copy;
use df11_bench::data::Data;
use df11_bench::huf0::{Decoder, Huf0, Packed};
use df11_bench::huge::InHuge;
use df11_bench::ours::Df11;
use df11_bench::python::Side;
use df11_bench::zstd::Zstd;
use std::process::ExitCode;
use std::sync::Arc;

fn contestants(data: &Data, threads: usize) -> Result<[Contestants<'_>; 2], String> {
    let packed = Arc::new(Packed::new(&data.original)?);
    let (parallel, single): (Vec<_>, Vec<_>) = Df11::all(data, threads)?.into_iter().partition(|d| d.threads() > 1);
    let of = |threads, ours: Vec<Df11>| -> Result<Contestants, String> {
        let mut all: Contestants = Vec::new();
        Copy::both(&data.original, threads).into_iter().for_each(|c| all.push(Box::new(c)));
        ours.into_iter().for_each(|d| all.push(Box::new(d)));
        for decoder in [Decoder::X1, Decoder::X2] {
            all.push(Box::new(Huf0::new(packed.clone(), decoder, threads)?));
        }
        Ok(all)
    };
    let mut one = of(1, single)?;
    for level in [1, 3] {
        one.push(Box::new(Zstd::new(&data.original, level)?));
    }
    let weights = data.original.len();
    for copy in Copy::both(&data.original, 1) {
        one.extend(InHuge::new(copy, weights).map(|c| Box::new(c) as Box<dyn Contestant>));
    }
    one.extend(InHuge::new(Df11::best(data, 1)?, weights).map(|c| Box::new(c) as Box<dyn Contestant>));
    let huf0 = Huf0::new(packed.clone(), Decoder::X2, 1)?;
    one.extend(InHuge::new(huf0, weights).map(|c| Box::new(c) as Box<dyn Contestant>));
    Ok([one, if threads > 1 { of(threads, parallel)? } else { Vec::new() }])
}

fn main() -> ExitCode {
    Bench { name: "decode", weights: LAYERS, side: Some(Side::Decompress), contestants }.main()
}
