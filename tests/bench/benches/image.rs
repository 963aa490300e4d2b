//! libdf11 writing images of groups, beside a memory copy of the weights. See the package's README.

use df11_bench::bench::{Bench, Contestants, LAYERS};
use df11_bench::contest::Contestant;
use df11_bench::copy::Copy;
use df11_bench::data::Data;
use df11_bench::image::Image;
use std::process::ExitCode;

fn contestants(data: &Data, threads: usize) -> Result<[Contestants<'_>; 2], String> {
    let (parallel, single): (Vec<_>, Vec<_>) = Image::all(data, threads)?.into_iter().partition(|i| i.threads() > 1);
    let of = |threads, ours: Vec<Image>| {
        let mut all: Contestants = Vec::new();
        Copy::both(&data.original, threads).into_iter().for_each(|c| all.push(Box::new(c)));
        ours.into_iter().for_each(|i| all.push(Box::new(i)));
        all
    };
    Ok([of(1, single), if threads > 1 { of(threads, parallel) } else { Vec::new() }])
}

fn main() -> ExitCode {
    Bench { name: "image", weights: LAYERS, side: None, contestants }.main()
}
