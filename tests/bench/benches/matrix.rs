//! libdf11's matrices beside plain bf16: made, decoded, multiplied with a vector. See the package's README.

use df11_bench::bench::{Bench, Contestants};
use df11_bench::copy::Copy;
use df11_bench::data::Data;
use df11_bench::matrix::{Case, Decode, Make, Product};
use df11_bench::ours::Df11;
use std::process::ExitCode;
use std::sync::Arc;

fn contestants(data: &Data, threads: usize) -> Result<[Contestants<'_>; 2], String> {
    let cases = [Arc::new(Case::new(data, false)?), Arc::new(Case::new(data, true)?)];
    let of = |threads: usize| -> Result<Contestants, String> {
        let mut all: Contestants = Vec::new();
        Copy::both(&data.original, threads).into_iter().for_each(|c| all.push(Box::new(c)));
        for case in &cases {
            Product::all(case, threads).into_iter().for_each(|c| all.push(Box::new(c)));
        }
        for case in &cases {
            Decode::all(case, threads).into_iter().for_each(|c| all.push(Box::new(c)));
        }
        all.push(Box::new(Df11::best(data, threads)?));
        Make::all(data, &cases[0], threads)?.into_iter().for_each(|c| all.push(Box::new(c)));
        Ok(all)
    };
    Ok([of(1)?, if threads > 1 { of(threads)? } else { Vec::new() }])
}

fn main() -> ExitCode {
    // The first does not fit into the caches, the second into the second level's.
    let weights = &[134_217_728, 524_288];
    Bench { name: "matrix", weights, side: None, contestants }.main()
}
