//! The oracle: one bit at a time, no tables, no tricks. It is what every other decoder is compared with, and it is
//! never optimised.

use super::code::CodeTable;
use super::join;
use std::collections::HashMap;

/// Decodes `sign_mantissa.len()` weights (bf16 bits) from bit `start` of `code` on.
/// Returns the weights and the bit behind the last code, or the number of weights that could be decoded.
pub fn decode(codes: &CodeTable, code: &[u8], start: usize, sign_mantissa: &[u8]) -> Result<(Vec<u16>, usize), usize> {
    let words: HashMap<(u32, u8), u8> =
        codes.codes().iter().map(|c| ((c.bits >> (32 - c.len as u32), c.len), c.symbol)).collect();
    let mut weights = Vec::with_capacity(sign_mantissa.len());
    let mut at = start;
    for &sm in sign_mantissa {
        let (mut word, mut len) = (0u32, 0u8);
        let exponent = loop {
            if len == 32 || at >= code.len() * 8 {
                return Err(weights.len());
            }
            word = word << 1 | (code[at / 8] >> (7 - at % 8) & 1) as u32;
            len += 1;
            at += 1;
            if let Some(&symbol) = words.get(&(word, len)) {
                break symbol;
            }
        };
        weights.push(join(exponent, sm));
    }
    Ok((weights, at))
}
