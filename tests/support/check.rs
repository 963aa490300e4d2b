//! Decodes whole models and compares them with their originals.

use std::collections::BTreeMap;

use df11::internals::huffman::decode::Variant;
use df11::internals::huffman::naive;
use df11::{DecodeOptions, Error, Model};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};

use super::encoder::{self, Encoded};
use super::{files, golden};

/// Returns how often a loop over seeds runs: `usual` times DF11_ROUNDS, if that is set.
pub fn rounds(usual: u64) -> u64 {
    usual * std::env::var("DF11_ROUNDS").map_or(1, |n| n.parse::<u64>().expect("DF11_ROUNDS is a number"))
}

/// Returns the SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Decodes every tensor. Returns their bytes by name.
pub fn tensors(model: &Model) -> BTreeMap<String, Vec<u8>> {
    let decode = |tensor: df11::Tensor| {
        let mut bytes = vec![0; tensor.bytes() as usize];
        tensor.read(0, &mut bytes, &DecodeOptions::default()).unwrap();
        (tensor.name().to_owned(), bytes)
    };
    model.tensors().map(decode).collect()
}

/// Asserts that every tensor of the original is there with its name and its bytes, and that each group verifies.
pub fn is_original(model: &Model, golden: &str) {
    let expected = golden::expected(golden);
    let found = tensors(model);
    let names = |name: &String| expected.contains_key(name);
    assert!(found.len() == expected.len() && found.keys().all(names), "{golden}: {:?}", found.keys());
    for (name, bytes) in found {
        assert_eq!(sha256(&bytes), expected[&name].sha256, "{golden}: {name}");
    }
    for group in model.groups() {
        group.verify(1).unwrap();
    }
}

/// Decodes, verifies and reads all of a model. Returns the first error, and drops what it decodes.
pub fn exercise(model: &Model, threads: usize) -> Result<(), Error> {
    let mut first = Ok(());
    for group in model.groups() {
        // No group of the tests has more weights. A larger one means that the library believed a lie in the header.
        assert!(group.element_count() < 1 << 26, "{} weights", group.element_count());
        let mut weights = vec![half::bf16::ZERO; group.element_count() as usize];
        let options = DecodeOptions::new().threads(threads);
        let decoded = group.decompress(0, &mut weights, &options);
        let verified = group.verify(threads);
        first = first.and(decoded).and(verified);
    }
    for tensor in model.tensors() {
        let mut bytes = vec![0; tensor.bytes().min(1 << 20) as usize];
        let read = tensor.read(0, &mut bytes, &DecodeOptions::default());
        first = first.and(read);
    }
    first
}

/// Checks a group that the library has verified: decodes it naively, and compares gaps, positions and the end of the codes with the
/// code lengths. Returns the first contradiction.
pub fn is_true(e: &Encoded, model: &Model) -> Result<(), String> {
    let group = model.group(0).unwrap();
    let signs = &e.sign_mantissa;
    let Ok((weights, end)) = naive::decode(df11::internals::format::codes(group), &e.encoded_exponent, 0, signs) else {
        return Err("the naive decoder fails".into());
    };
    for variant in Variant::ALL.into_iter().filter(|v| v.is_available()) {
        let mut found = vec![bf16::ZERO; weights.len()];
        let options = DecodeOptions::new().threads(2).variant(variant);
        model.group(0).unwrap().decompress(0, &mut found, &options).map_err(|e| format!("{}: {e}", variant.name()))?;
        if found.reinterpret_cast() != &weights[..] {
            return Err(format!("{} decodes other weights", variant.name()));
        }
    }
    if end.div_ceil(8) != e.encoded_exponent.len() {
        return Err(format!("the codes end at bit {end} of {} bytes", e.encoded_exponent.len()));
    }
    let positions = files::positions(&e.output_positions);
    let (mut at, mut chunk, mut block) = (0usize, usize::MAX, usize::MAX);
    for (i, &weight) in weights.iter().enumerate() {
        if at / 64 != chunk {
            chunk = at / 64;
            if files::gap(&e.gaps, chunk) as usize != at % 64 {
                return Err(format!("chunk {chunk}: weight {i} starts at bit {}", at % 64));
            }
        }
        if at / 32_768 != block {
            block = at / 32_768;
            if positions.get(block) != Some(&(i as u32)) {
                return Err(format!("block {block} starts with weight {i}: {positions:?}"));
            }
        }
        at += group.code_lengths()[encoder::exponent(weight) as usize] as usize;
    }
    let rest = positions.get(block.wrapping_add(1)..).unwrap_or_default();
    if rest.is_empty() || rest.iter().any(|&p| p as usize != weights.len()) {
        return Err(format!("after block {block}: {positions:?}"));
    }
    Ok(())
}
