//! Decodes a DF11 model on the CPU with all processors. Prints the speed, and compares each tensor with the original.
//!
//!     decompress MODEL [ORIGINAL]
//!
//! MODEL is a folder or a .safetensors file. ORIGINAL contains the tensors before compression. decompress.c, decompress.cc
//! and decompress.go are the same program in other languages, which also decode on a CUDA device.

use df11::{DecodeOptions, Error, Model, OpenOptions, bf16};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || args.len() > 2 {
        eprintln!("usage: decompress MODEL [ORIGINAL]");
        return ExitCode::from(2);
    }
    match run(&args[0], args.get(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("decompress: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &str, original: Option<&String>) -> Result<bool, Error> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let options = DecodeOptions::new().threads(threads);
    let model = Model::open(path, &OpenOptions::new())?;
    println!("libdf11 {}, {path}", df11::VERSION);
    measure(&model, &options)?;
    match original {
        None => Ok(true),
        Some(original) => compare(&model, &Model::open(original, &OpenOptions::new())?, &options),
    }
}

/// Decodes all groups repeatedly for a quarter of a second, and prints the speed.
fn measure(model: &Model, options: &DecodeOptions) -> Result<(), Error> {
    let weights: u64 = model.groups().map(|g| g.element_count()).sum();
    let packed: u64 = model.groups().map(|g| g.packed_bytes()).sum();
    let largest = model.groups().map(|g| g.element_count()).max().unwrap_or(0);
    if weights == 0 {
        println!("no compressed groups");
        return Ok(());
    }
    println!(
        "{} groups, {weights} weights, {packed} bytes instead of {}: {:.3} bits per weight",
        model.groups().len(),
        2 * weights,
        8.0 * packed as f64 / weights as f64
    );

    // One buffer serves all groups, as in an engine that decodes each layer just before it uses it.
    let mut buffer = vec![bf16::ZERO; largest as usize];
    let start = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < Duration::from_millis(250) {
        for group in model.groups() {
            group.decompress(0, &mut buffer[..group.element_count() as usize], options)?;
        }
        rounds += 1;
    }
    let speed = 2.0 * weights as f64 * rounds as f64 / start.elapsed().as_secs_f64() * 1e-9;
    println!("decoded {rounds} times on the CPU with up to {} thread(s): {speed:.2} GB/s of bf16", options.threads);
    Ok(())
}

/// Compares every tensor of the model with the original's tensor of the same name.
fn compare(model: &Model, original: &Model, options: &DecodeOptions) -> Result<bool, Error> {
    let mut same = 0;
    for tensor in model.tensors() {
        let Some(other) = original.find_tensor(tensor.name()) else {
            eprintln!("decompress: the original has no tensor named '{}'", tensor.name());
            continue;
        };
        let (mut got, mut want) = (vec![0; tensor.bytes() as usize], vec![0; other.bytes() as usize]);
        tensor.read(0, &mut got, options)?;
        other.read(0, &mut want, options)?;
        if got == want {
            same += 1;
        } else {
            eprintln!("decompress: '{}' differs from the original", tensor.name());
        }
    }
    println!("{same} of {} tensors equal the original, bit for bit", model.tensors().len());
    Ok(same == model.tensors().len())
}
