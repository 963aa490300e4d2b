//! The oracle: decodes a linear image weight by weight, from its bytes alone, by the drawing in the module's text. It is
//! never optimised.

use super::super::STATE_OFFSET;
use super::*;
use crate::error::{Error, Result};

/// Weights decoded from a linear image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Their bf16 bits.
    pub weights: Vec<u16>,
    /// True if the lists of escapes of the tiles that were met are what they should be, and the state word is 0. It is
    /// what a kernel reports: see `escapes_are_good` in `kernels/linear.cuh`.
    pub good: bool,
}

/// Decodes `count` weights of a linear image in host memory, from its weight `first`.
///
/// # Errors
///
/// As [`LinearHead::parse`]; `BufferTooSmall` if the image is cut short; `InvalidArgument` for a range outside the group.
pub fn decode(image: &[u8], first: u64, count: u64) -> Result<Decoded> {
    let head = LinearHead::parse(image)?;
    let (needed, given) = (head.image_bytes(), image.len() as u64);
    if given < needed {
        return Err(Error::BufferTooSmall { what: "the image".into(), needed, given });
    }
    if first.checked_add(count).is_none_or(|end| end > head.weights()) {
        let reason = format!("weights {first} + {count} are outside an image of {} weights", head.weights());
        return Err(Error::InvalidArgument(reason));
    }
    let word = |at: u64| u32::from_le_bytes(std::array::from_fn(|i| image[at as usize + i]));
    let mut decoded = Decoded { weights: Vec::new(), good: word(STATE_OFFSET) == 0 };
    for weight in first..first + count {
        let number = head.ends().partition_point(|&end| end <= weight);
        let tensor = &head.tensors()[number];
        let (row, column) = ((weight - tensor.first) / tensor.columns, (weight - tensor.first) % tensor.columns);
        let tile = row / TILE_ROWS * tensor.ktiles as u64 + column / TILE_COLUMNS;
        let at = tensor.tiles + TILE_BYTES * tile;
        let (row, column) = (row % TILE_ROWS, column % TILE_COLUMNS);
        let (upper, lane, place) = (row / 8, row % 8 * 4 + column / 16, column % 16);
        let low = image[(at + 512 * upper + 16 * lane + place) as usize] as u16;
        let codes = word(at + 1024 + 16 * lane + 8 * upper + 4 * (place / 8));
        let code = codes >> (4 * (place % 8)) & 7;
        let sign = codes >> (8 * (place % 4) + if place % 8 < 4 { 7 } else { 3 }) & 1;
        let mut value = (sign as u16) << 15 | (tensor.table[code as usize] as u16) << 8 | low;

        let mut last = None;
        let (from, to) = (word(tensor.starts + 4 * tile), word(tensor.starts + 4 * tile + 4));
        decoded.good &= from <= to && to <= tensor.escape_count && to - from.min(to) <= TILE as u32;
        for escape in from.min(tensor.escape_count)..to.min(tensor.escape_count).min(from.saturating_add(TILE as u32)) {
            let escape = word(tensor.escapes + 4 * escape as u64);
            let (place, bits) = (escape >> 16, escape as u16);
            decoded.good &= place < TILE as u32 && last.is_none_or(|last| last < place);
            decoded.good &= !tensor.table.contains(&((bits >> 8 & 127) as u8));
            last = Some(place);
            if place as u64 == row * TILE_COLUMNS + column {
                value = bits;
            }
        }
        decoded.weights.push(value);
    }
    Ok(decoded)
}
