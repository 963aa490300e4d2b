//! The program of consumer.c in Rust, with the crate that cargo packs.

use df11::{DecodeOptions, Model, OpenOptions};

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf29ce484222325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3))
}

fn main() -> Result<(), df11::Error> {
    let path = std::env::args().nth(1).expect("usage: consumer MODEL");
    let model = Model::open(path, &OpenOptions::new())?;
    for tensor in model.tensors() {
        let mut bytes = vec![0; tensor.bytes() as usize];
        tensor.read(0, &mut bytes, &DecodeOptions::new().threads(2))?;
        println!("{} {} {:016x}", tensor.name(), bytes.len(), fnv1a(&bytes));
    }
    Ok(())
}
