//! The oracle: one bit at a time, no tables, no tricks. Every other decoder is compared with it, and it is never
//! optimised.

use super::code::CodeTable;
use super::join;
use std::collections::HashMap;

/// Decodes `sign_mantissa.len()` weights (bf16 bits) from bit `start` of `code`. Returns the weights and the bit after
/// the last code, or the number of weights that could be decoded.
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

#[cfg(test)]
mod tests {
    use super::super::code::Code;
    use super::*;

    #[test]
    fn it_ends_where_the_stream_does_and_where_no_word_fits() {
        // 0 is exponent 5, 10 is exponent 6, and nothing begins with 11.
        let code = |bits: u32, len: u8, symbol: u8| Code { bits: bits << 24, len, symbol };
        let codes = CodeTable::new(vec![code(0, 1, 5), code(0b1000_0000, 2, 6)]).unwrap();
        let weights = |exponents: &[u16]| exponents.iter().map(|e| e << 7).collect::<Vec<u16>>();
        // Eight bits: 0 0 10 0 10 0.
        assert_eq!(decode(&codes, &[0b0010_0100], 0, &[0; 6]), Ok((weights(&[5, 5, 6, 5, 6, 5]), 8)));
        assert_eq!(decode(&codes, &[0b0010_0100], 2, &[0; 2]), Ok((weights(&[6, 5]), 5)));
        // One weight more than the stream has, and a last word of which one bit is there.
        assert_eq!(decode(&codes, &[0b0010_0100], 0, &[0; 7]), Err(6));
        assert_eq!(decode(&codes, &[0b0010_0101], 0, &[0; 7]), Err(5));
        // 32 bits are the longest word, however much follows.
        assert_eq!(decode(&codes, &[0xff; 100], 0, &[0; 3]), Err(0));
    }
}
