//! The oracle: decodes an image as a kernel does, lane by lane, from the image's bytes alone. It is never optimised.

use super::*;
use crate::error::{Error, Result};
use crate::huffman::join;

/// Weights decoded from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Their bf16 bits.
    pub weights: Vec<u16>,
    /// True if every lane that was decoded ends where the next one begins, and the image's state word is 0. A kernel
    /// judges almost the same before it reports `DF11_CORRUPT` in `d_status`: it checks whole tiles, does not check
    /// where the group's last lane ends, and lets a lane end up to ten bits late, or eleven
    /// where it decodes by a table of nibbles.
    pub good: bool,
    /// For each lane that was decoded, but the last one of the group: the bits by which it ends after the next one begins.
    pub slips: Vec<i64>,
}

/// Decodes `count` weights of an image in host memory, from its weight `first`.
///
/// # Errors
///
/// As [`Head::parse`]; `BufferTooSmall` if the image is cut short; `InvalidArgument` for a range outside the group.
pub fn decode(image: &[u8], first: u64, count: u64) -> Result<Decoded> {
    let head = Head::parse(image)?;
    let layout = *head.layout();
    if (image.len() as u64) < layout.image_bytes {
        return Err(Error::BufferTooSmall {
            what: "the image".into(),
            needed: layout.image_bytes,
            given: image.len() as u64,
        });
    }
    if first.checked_add(count).is_none_or(|end| end > layout.weights) {
        let reason = format!("weights {first} + {count} are outside an image of {} weights", layout.weights);
        return Err(Error::InvalidArgument(reason));
    }
    let state = &image[STATE_OFFSET as usize..][..4];
    let reader = Reader { image, layout, head };
    let mut decoded = Decoded { weights: Vec::with_capacity(count as usize), good: state == [0; 4], slips: Vec::new() };
    let end = first + count;
    for lane in first / LANE_WEIGHTS..end.div_ceil(LANE_WEIGHTS) {
        let weights = lane * LANE_WEIGHTS..layout.weights.min((lane + 1) * LANE_WEIGHTS);
        let (exponents, lane_end) = reader.lane(lane, (weights.end - weights.start) as usize);
        if weights.end < layout.weights {
            decoded.slips.push(lane_end as i64 - reader.bit(lane + 1) as i64);
        }
        decoded.good &= reader.fits(lane, exponents.len() as u64 - (weights.end - weights.start), lane_end);
        for (weight, exponent) in weights.zip(exponents) {
            if (first..end).contains(&weight) {
                decoded.weights.push(join(exponent, image[(layout.signs + weight) as usize]));
            }
        }
    }
    Ok(decoded)
}

struct Reader<'a> {
    image: &'a [u8],
    layout: ImageLayout,
    head: Head,
}

impl Reader<'_> {
    /// Returns the bit at which a tile starts, rounded down to a multiple of 128.
    fn start(&self, tile: u64) -> u64 {
        let at = (self.layout.starts + 4 * tile) as usize;
        128 * u32::from_le_bytes(std::array::from_fn(|i| self.image[at + i])) as u64
    }

    /// Returns the bit at which a lane starts, from the tile's start and modulo 2^16.
    fn relative(&self, lane: u64) -> u64 {
        let at = (self.layout.lanes + 2 * lane) as usize;
        let low = u16::from_le_bytes([self.image[at], self.image[at + 1]]);
        low.wrapping_sub(self.start(lane / TILE_LANES) as u16) as u64
    }

    /// Returns the bit at which a lane starts.
    fn bit(&self, lane: u64) -> u64 {
        let first = lane / TILE_LANES * TILE_LANES;
        let falls = (first..lane).filter(|&l| self.relative(l + 1) < self.relative(l)).count() as u64;
        self.start(lane / TILE_LANES) + self.relative(lane) + (falls << 16)
    }

    /// Returns 11 bits of the codes; zeros after their end.
    fn window(&self, bit: u64) -> u32 {
        let code = &self.image[self.layout.code as usize..][..self.layout.code_section_bytes as usize];
        crate::huffman::window(code, bit as usize) >> (32 - WINDOW)
    }

    /// Decodes the exponents of a lane, at least `count` and up to three more. Returns them and the bit after the last
    /// one.
    fn lane(&self, lane: u64, count: usize) -> (Vec<u8>, u64) {
        let (mut exponents, mut bit, mut xor) = (Vec::new(), self.bit(lane), 0);
        while exponents.len() < count {
            let (x, y) = self.head.table().entry((self.window(bit) << 3 ^ xor) as usize);
            let found = y as usize >> 11;
            xor = if found == 0 { x } else { 0 };
            exponents.extend(&x.to_be_bytes()[..found]);
            bit += y as u64 & 63;
        }
        (exponents, bit)
    }

    /// Returns whether a lane that ends at bit `end`, `over` weights too far, fits the next lane or the end of the
    /// codes.
    fn fits(&self, lane: u64, over: u64, end: u64) -> bool {
        let last = (lane + 1) * LANE_WEIGHTS >= self.layout.weights;
        // The last code ends in the last byte.
        let (from, to) = if last {
            ((self.layout.code_bytes * 8).saturating_sub(7), self.layout.code_bytes * 8)
        } else {
            (self.bit(lane + 1), self.bit(lane + 1))
        };
        (from + over..=to + over * self.layout.longest as u64).contains(&end)
    }
}
