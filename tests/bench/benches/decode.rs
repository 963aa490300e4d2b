//! libdf11's decoder beside a memory copy and its peers. See the package's README.

use df11_bench::bench::{Bench, Contestants, LAYERS};
use df11_bench::contest::Contestant;
use df11_bench::copy::Copy;
use df11_bench::data::Data;
use df11_bench::huf0::{Decoder, Huf0, Packed};
use df11_bench::ours::Df11;
use df11_bench::python::Side;
use df11_bench::zstd::Zstd;
use std::process::ExitCode;
use std::sync::Arc;

fn contestants(data: &Data, threads: usize) -> Result<[Contestants<'_>; 2], String> {
    let packed = Arc::new(Packed::new(&data.original)?);
    let (parallel, single): (Vec<_>, Vec<_>) = Df11::all(data, threads)?.into_iter().partition(|d| d.threads() > 1);
    let of = |threads, ours: Vec<Df11>| -> Result<Contestants, String> {
        let mut all: Contestants = vec![Box::new(Copy::new(&data.original, threads))];
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
    Ok([one, if threads > 1 { of(threads, parallel)? } else { Vec::new() }])
}

fn main() -> ExitCode {
    Bench { name: "decode", weights: LAYERS, side: Some(Side::Decompress), contestants }.main()
}
