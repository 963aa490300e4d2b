//! The table of nibbles: what every window of 12 bits begins with, in entries of 4 bytes.
//!
//! Nearly all exponents of a layer are among sixteen that follow each other. Their offsets from the first of them, the
//! *base*, fit four bits, so that an entry of 4 bytes holds four exponents:
//!
//! ```text
//!  an entry, a u32    31..28  27..24  23..20  19..16      15..8     7..0
//!  exponents          1st     2nd     3rd     4th         4·count   how many bits they take, 1 to 12
//!  rare               exponent ─────  bits it takes       0         0
//!  long code          number of a table, from bit 22; 0   0         0
//! ```
//!
//! An entry holds as many whole codes as its window does, at most four, up to the first one of an exponent that is not one
//! of the sixteen. A window that begins with a code which is not whole, or has such an exponent, leads to a rare entry:
//! at once, or through tables of 2^`second_bits` entries, each for as many of the bits after the window. Rare entries hold
//! what a [`DeviceTable`](super::DeviceTable) gives for the same bits, also for bits that no code begins with.
//!
//! # When an image has one
//!
//! A kernel takes far longer for rare entries than for others, so a code for which there would be many has no such table.
//! How many is calculated from the lengths of codes alone, as if an exponent with a code of n bits occurred once in 2^n
//! weights: an image's layout does not depend on its weights.

use super::device_table::{Match, Shape, begins};
use crate::huffman::MAX_CODE_BITS;
use crate::huffman::code::CodeTable;
use crate::huffman::table::{first_symbols, whole_codes};
use std::ops::RangeInclusive;

/// Bits of a window.
pub const NIBBLE_WINDOW: u32 = 12;
/// The most bytes of a table, those that follow the main one included.
pub const MOST_NIBBLE_BYTES: u32 = MAIN_BYTES + 4096;
/// Bytes of the main table.
const MAIN_BYTES: u32 = 4 << NIBBLE_WINDOW;
/// Bits that a second-level table may resolve.
const SECOND_BITS: RangeInclusive<u32> = 2..=7;
/// Exponents that nibbles hold.
const NEAR: usize = 16;
/// The most exponents of an entry.
const MOST_PER_ENTRY: usize = 4;
/// The largest share of weights with rare entries, in 2^-32.
const MOST_RARE: u64 = 1 << 22;

/// The shape of a code's table of nibbles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NibbleShape {
    /// The first of the sixteen exponents.
    pub base: u8,
    /// Bits that a second-level table resolves.
    pub second_bits: u32,
    /// The number of second-level tables.
    pub tables: u32,
}

impl NibbleShape {
    /// The shape for a layer of a published model, but for the base.
    pub(super) const OF_A_LAYER: NibbleShape = NibbleShape { base: 0, second_bits: 7, tables: 4 };

    /// Returns the shape of a code's table; `None` if too many weights would be rare, or need too many tables.
    pub(super) fn of(codes: &CodeTable) -> Option<NibbleShape> {
        let base = base(codes)?;
        let resolver = Resolver::new(codes)?;
        let shapes = SECOND_BITS.rev().map(|second_bits| {
            let tables = resolver.tables(second_bits);
            NibbleShape { base, second_bits, tables }
        });
        shapes.into_iter().find(|shape| shape.is_possible())
    }

    /// Returns whether a table can have it.
    pub(super) fn is_possible(self) -> bool {
        self.base as usize <= 256 - NEAR
            && SECOND_BITS.contains(&self.second_bits)
            && self.tables <= (MOST_NIBBLE_BYTES - MAIN_BYTES) >> (self.second_bits + 2)
    }

    /// Returns the bytes of the table.
    pub fn bytes(self) -> u32 {
        MAIN_BYTES + (self.tables << (self.second_bits + 2))
    }

    /// Returns the four bytes of the header that hold it.
    pub(super) fn to_bytes(self) -> [u8; 4] {
        let [low, high] = (self.tables as u16).to_le_bytes();
        [self.base, self.second_bits as u8, low, high]
    }

    /// Reads it from a header, where zero bits mean that there is none.
    pub(super) fn from_bytes([base, second_bits, low, high]: [u8; 4]) -> Option<NibbleShape> {
        let shape =
            NibbleShape { base, second_bits: second_bits.into(), tables: u16::from_le_bytes([low, high]).into() };
        (second_bits != 0).then_some(shape)
    }
}

/// Returns the base that makes the fewest weights rare; `None` if there are too many all the same.
fn base(codes: &CodeTable) -> Option<u8> {
    let (mut near, mut all) = ([0u64; 256], 0u64);
    for code in codes.codes() {
        let share = 1 << (MAX_CODE_BITS - code.len as u32);
        all += share;
        if code.len as u32 <= NIBBLE_WINDOW {
            near[code.symbol as usize] += share;
        }
    }
    let held = |base: usize| near[base..base + NEAR].iter().sum::<u64>();
    // Of equally good ones the first.
    let best = (0..=256 - NEAR).rev().max_by_key(|&base| held(base))?;
    (all - held(best) <= MOST_RARE).then_some(best as u8)
}

/// Finds what a `DeviceTable` gives for a prefix of the stream.
struct Resolver<'a> {
    codes: &'a CodeTable,
    /// The bits that the second level of that table resolves.
    step: u32,
}

impl<'a> Resolver<'a> {
    fn new(codes: &'a CodeTable) -> Option<Self> {
        Some(Resolver { codes, step: Shape::of(codes)?.second_bits })
    }

    /// Returns the first exponent and its bits, given the first `depth` bits of the stream; `None` if more must be known.
    fn first(&self, prefix: u64, depth: u32) -> Option<(u8, u32)> {
        // Prefixes may be longer than codes.
        let bits = ((prefix as u128) << (128 - depth) >> 96) as u32;
        let known = depth.min(MAX_CODE_BITS);
        let mut seen = super::WINDOW;
        loop {
            let deepest = seen.min(known);
            let top = bits & u32::MAX.checked_shl(32 - deepest).unwrap_or(0);
            match begins(self.codes, top, deepest) {
                // Bits that the table looks at, and that are not known here, may lead to nothing.
                Match::Word(code) if seen <= depth || code.len as u32 <= depth => {
                    return Some((code.symbol, code.len as u32));
                }
                // It advances a step for each table, and then one bit.
                Match::Nothing => return Some((0, (seen - super::WINDOW) + 1)),
                _ if seen > depth => return None,
                _ => seen += self.step,
            }
        }
    }

    /// Counts second-level tables of `second_bits` bits: the prefixes that do not tell, of windows and of `second_bits` more.
    fn tables(&self, second_bits: u32) -> u32 {
        let depths = || (NIBBLE_WINDOW..MAX_CODE_BITS).step_by(second_bits as usize);
        let mut found = 0;
        for depth in depths() {
            let mut last = None;
            for code in self.codes.codes().iter().filter(|code| code.len as u32 > depth) {
                let prefix = |depth: u32| (code.bits >> (32 - depth)) as u64;
                // Words are in the order of their bits, so those of one prefix are neighbours.
                if last.replace(prefix(depth)) != Some(prefix(depth)) {
                    let is_reached = depths().take_while(|&above| above <= depth);
                    found += is_reached.into_iter().all(|above| self.first(prefix(above), above).is_none()) as u32;
                }
            }
        }
        found
    }
}

/// A table of nibbles. The head of this file describes its bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NibbleTable {
    bytes: Vec<u8>,
}

impl NibbleTable {
    /// Makes a code's table; `None` if it has another shape.
    pub(super) fn new(codes: &CodeTable, shape: NibbleShape) -> Option<NibbleTable> {
        let resolver = Resolver::new(codes)?;
        let whole = first_symbols::<{ 1 << NIBBLE_WINDOW }>(codes);
        let mut tables: Vec<(u64, u32)> = Vec::new();
        let mut bytes = Vec::with_capacity(shape.bytes() as usize);
        let rare = |tables: &mut Vec<(u64, u32)>, prefix, depth| match resolver.first(prefix, depth) {
            Some((symbol, length)) => (symbol as u32) << 24 | length << 16,
            None => {
                tables.push((prefix, depth));
                (tables.len() as u32 - 1) << 22
            }
        };
        for window in 0..1 << NIBBLE_WINDOW {
            let (mut nibbles, mut count, mut used) = (0, 0, 0);
            for (symbol, end) in whole_codes(&whole, window).take(MOST_PER_ENTRY) {
                let Some(nibble) = symbol.checked_sub(shape.base).filter(|&nibble| (nibble as usize) < NEAR) else {
                    break;
                };
                nibbles |= (nibble as u32) << (28 - 4 * count);
                count += 1;
                used = end;
            }
            let entry = match count {
                0 => rare(&mut tables, window as u64, NIBBLE_WINDOW),
                _ => nibbles | (4 * count) << 8 | used,
            };
            bytes.extend(entry.to_le_bytes());
        }
        let mut done = 0;
        while let Some(&(prefix, depth)) = tables.get(done) {
            if tables.len() > shape.tables as usize {
                return None;
            }
            for low in 0..1u64 << shape.second_bits {
                let entry = rare(&mut tables, prefix << shape.second_bits | low, depth + shape.second_bits);
                bytes.extend(entry.to_le_bytes());
            }
            done += 1;
        }
        (bytes.len() == shape.bytes() as usize).then_some(NibbleTable { bytes })
    }

    /// Reads a table from its bytes, which are treated as untrusted input. `None` if an entry is none of those described
    /// above, or leads to no later table.
    pub(super) fn parse(bytes: &[u8], shape: NibbleShape) -> Option<NibbleTable> {
        if bytes.len() != shape.bytes() as usize {
            return None;
        }
        let good = |(i, &entry): (usize, &[u8; 4])| {
            let entry = u32::from_le_bytes(entry);
            let (upper, bits, used) = (entry >> 16, entry >> 8 & 255, entry & 255);
            let second = i.checked_sub(1 << NIBBLE_WINDOW);
            match bits {
                0 if upper & 63 == 0 => {
                    let later = second.map_or(0, |i| (i >> shape.second_bits) as u32 + 1);
                    used == 0 && (later..shape.tables).contains(&(entry >> 22))
                }
                0 => used == 0 && upper & 0xc0 == 0 && upper & 63 <= MAX_CODE_BITS,
                4 | 8 | 12 | 16 => {
                    second.is_none() && (bits / 4..=NIBBLE_WINDOW).contains(&used) && upper & (0xffff >> bits) == 0
                }
                _ => false,
            }
        };
        bytes.as_chunks().0.iter().enumerate().all(good).then(|| NibbleTable { bytes: bytes.to_vec() })
    }

    /// Returns the table's bytes as in an image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::image::DeviceTable;
    use crate::huffman::code::Code;

    /// Makes a complete code of words like a layer's: `count` exponents from 110 on, each half as likely as the one before,
    /// the last ones at random in the tail.
    fn geometric(count: u32) -> CodeTable {
        let code = |i: u32| {
            let len = (i + 1).min(count - 1);
            let bits = (u32::MAX << (32 - len)) & !if i + 1 < count { 1 << (32 - len) } else { 0 };
            Code { bits, len: len as u8, symbol: (110 + (i * 7) % 14 + (i / 14) * 40) as u8 }
        };
        CodeTable::new((0..count).map(code).collect()).unwrap()
    }

    /// Looks up what the kernel does: exponents and bits, from the top of a stream.
    fn look_up(table: &NibbleTable, shape: NibbleShape, stream: u64) -> (Vec<u8>, u32) {
        let entry = |i: usize| u32::from_le_bytes(table.bytes.as_chunks().0[i]);
        let mut e = entry((stream >> 52) as usize);
        if e & 0xffff != 0 {
            let count = (e >> 10 & 7) as usize;
            let nibble = |i: usize| shape.base + (e >> (28 - 4 * i) & 15) as u8;
            return ((0..count).map(nibble).collect(), e & 63);
        }
        let mut rest = stream << NIBBLE_WINDOW;
        while e >> 16 & 63 == 0 {
            let at = ((e >> 22 << shape.second_bits) as usize) + (rest >> (64 - shape.second_bits)) as usize;
            e = entry((1 << NIBBLE_WINDOW) + at);
            rest <<= shape.second_bits;
        }
        (vec![(e >> 24) as u8], e >> 16 & 63)
    }

    /// The same by the table of 8-byte entries: as many exponents as are asked for, and their bits.
    fn by_bytes(table: &DeviceTable, stream: u64, count: usize) -> (Vec<u8>, u32) {
        let (mut found, mut bit, mut xor) = (Vec::new(), 0, 0);
        while found.len() < count {
            let (x, y) = table.entry(((stream << bit >> 53) as usize * 8) ^ xor as usize);
            bit += y & 63;
            xor = if y >> 8 == 0 { x } else { 0 };
            found.extend(&x.to_be_bytes()[..y as usize >> 11]);
        }
        (found, bit)
    }

    #[test]
    fn both_tables_find_the_same_in_any_stream() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        };
        let mut seen = 0;
        for count in [2, 13, 14, 15, 20, 26, 31] {
            // All words, and without some, so that there are bits that no word begins with.
            for left_out in [None, Some(9), Some(14)] {
                let words = geometric(count).codes().to_vec();
                let kept = words.iter().enumerate().filter(|(i, _)| Some(*i) != left_out).map(|(_, &code)| code);
                let codes = CodeTable::new(kept.collect()).unwrap();
                let Some(shape) = NibbleShape::of(&codes) else { continue };
                seen += 1;
                let table = NibbleTable::new(&codes, shape).unwrap();
                let other = DeviceTable::new(&codes).unwrap();
                assert_eq!(table.bytes().len(), shape.bytes() as usize);
                assert_eq!(NibbleTable::parse(table.bytes(), shape).as_ref(), Some(&table));
                assert_eq!(NibbleShape::from_bytes(shape.to_bytes()), Some(shape));
                for round in 0..20_000 {
                    // Streams that begin with many ones have long codes.
                    let stream =
                        random() >> 1 | (u64::MAX << 1).rotate_right(round % 40) & (1 << 63) | !0 << (63 - round % 40);
                    let (found, bits) = look_up(&table, shape, stream);
                    // One more exponent of an entry of 8 bytes may be known.
                    let (mut expected, mut at) = (Vec::new(), 0);
                    while expected.len() < found.len() {
                        let first = codes.first((stream << at >> 32) as u32);
                        let (one, taken) = match first {
                            Some(code) => (vec![code.symbol], code.len as u32),
                            None => by_bytes(&other, stream << at, 1),
                        };
                        expected.extend(one);
                        at += taken;
                    }
                    assert_eq!((&found, bits), (&expected, at), "{count} {left_out:?} {stream:064b}");
                }
            }
        }
        assert!(seen > 12, "{seen}");
    }

    #[test]
    fn codes_of_many_exponents_have_none() {
        // 64 words of 6 bits: three quarters are far.
        let words = (0..64).map(|i| Code { bits: i << 26, len: 6, symbol: i as u8 });
        assert_eq!(NibbleShape::of(&CodeTable::new(words.collect()).unwrap()), None);
        // 16 of 4 bits are near, wherever they are.
        for first in [0, 100, 240] {
            let words = (0..16).map(|i| Code { bits: i << 28, len: 4, symbol: (first + i) as u8 });
            let shape = NibbleShape::of(&CodeTable::new(words.collect()).unwrap()).unwrap();
            assert_eq!((shape.base as u32, shape.tables), (first, 0));
        }
    }

    #[test]
    fn changed_tables_are_refused() {
        let codes = geometric(26);
        let shape = NibbleShape::of(&codes).unwrap();
        let table = NibbleTable::new(&codes, shape).unwrap();
        assert!(shape.tables > 0);
        let main = 4usize << NIBBLE_WINDOW;
        let last = table.bytes.len() - 4;
        let changed = |at: usize, entry: u32| {
            let mut bytes = table.bytes.clone();
            bytes[at..at + 4].copy_from_slice(&entry.to_le_bytes());
            NibbleTable::parse(&bytes, shape).is_some()
        };
        assert!(changed(0, 4 << 8 | 1) && changed(last, 5 << 24 | 32 << 16));
        for (at, entry) in [
            (0, 4 << 8),
            (0, 4 << 8 | 13),
            (0, 20 << 8 | 12),
            (0, 2 << 8 | 2),
            (0, 1 << 16 | 4 << 8 | 1),
            (0, shape.tables << 22),
            (0, 1 << 24 | 33 << 16),
            (0, 1),
            (last, 4 << 8 | 1),
            (main, 0),
            (last, (shape.tables - 1) << 22),
        ] {
            assert!(!changed(at, entry), "{at}: {entry:#x}");
        }
        assert_eq!(NibbleTable::parse(&table.bytes[..last], shape), None);
    }
}
