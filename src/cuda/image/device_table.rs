//! The table by which a device decodes: what every window of 11 bits begins with, long codes included, without a
//! branch.
//!
//! # Entries
//!
//! ```text
//!  an entry, 8 bytes   x, bytes 0..3, a u32              y, bytes 4..7, a u32
//!                      31..24  23..16  15..8   7..0      13..8     5..0
//!  exponents           1st     2nd     3rd     4th       8·count   how many bits they take
//!  long code           ─── XOR for the next address ──   0         second_bits
//! ```
//!
//! The main table has 2^11 entries, 16 KiB. An entry holds as many whole codes as its window does, at most four, the
//! first on top; `count` is 1 to 4. A window that begins with no whole code holds
//!
//! - the exponent of the *only* word that begins so, with that word's length (up to 32, more than the window has: the
//!   bits that were not looked at can have only one value);
//! - exponent 0 with one bit, if no word begins so: no valid stream gets there, and an invalid one advances;
//! - a long code, if several words do: the decoder advances by `second_bits` and looks up the next window of 11 bits at
//!   address `8·window ^ XOR` instead of `8·window`.
//!
//! # The second level
//!
//! After such an advance the window begins with 11 − `second_bits` bits that are known. The XOR removes them and puts
//! the address of a table of 2^`second_bits` entries in their place. Its entries are as above, with at most one
//! exponent, and lengths counted from the window. Tables follow the main one in breadth-first order, and each is
//! reached from one entry. All of them together are no larger than the main table, so that no address exceeds 32 KiB
//! whatever is looked up.
//!
//! `second_bits` is the largest of 7 … 2 for which they are.
//!
//! # Why two bits are always enough
//!
//! There is a table for each prefix of 11, 13, … 31 bits that several words share. Let every exponent have one word:
//! 240 words at most, in at most 16 rows of 256 slots after the first row, because a file has no more. Of words that
//! end in a row of the second byte, at most every second one begins another prefix of 11, of 13, of 15 bits: three
//! tables for two words. The same holds for 19, 21, 23 in the third byte and 27, 29, 31 in the fourth; of 17 and 25
//! bits there are two prefixes in a row. The way to a row of the third byte is three tables more, to one of the fourth
//! byte three again, and these are in rows of their own. In all no more than 240/2 · 3 + 15 · 5 = 435 tables, and 512
//! are allowed.
//!
//! Rows that hold more words than exponents are possible: a few leftovers of the reference's writer, which need no
//! table of their own. Only rows that are made up can hold more than fits; such a group is decoded on the host alone.

use crate::huffman::MAX_CODE_BITS;
use crate::huffman::code::{Code, CodeTable};
pub use crate::huffman::table::WINDOW;
use crate::huffman::table::{first_symbols, whole_codes};
use std::ops::RangeInclusive;

/// The most exponents of an entry.
const MOST_PER_ENTRY: u32 = 4;
/// Bytes of an entry.
const ENTRY: usize = 8;
/// Bytes of the main table, and the most bytes of all others together.
const MAIN_BYTES: usize = ENTRY << WINDOW;
/// Bits that a second-level table may resolve.
const SECOND_BITS: RangeInclusive<u32> = 2..=7;

/// The shape of a code's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub second_bits: u32,
    /// The number of second-level tables.
    pub tables: u32,
}

impl Shape {
    /// Returns the shape of a code's table; `None` if no such table holds it.
    pub fn of(codes: &CodeTable) -> Option<Shape> {
        SECOND_BITS.rev().map(|second_bits| Shape { second_bits, tables: tables(codes, second_bits) }).find(Shape::fits)
    }

    /// Returns the bytes of the whole table.
    pub fn bytes(self) -> u32 {
        MAIN_BYTES as u32 + self.tables * ((ENTRY as u32) << self.second_bits)
    }

    fn fits(&self) -> bool {
        self.tables <= 1 << (WINDOW - self.second_bits)
    }

    /// Returns all sizes that a table can have; none for a number of bits that no table has.
    pub fn sizes(second_bits: u32) -> impl Iterator<Item = u32> {
        let shapes = SECOND_BITS.filter(move |&bits| bits == second_bits);
        shapes.flat_map(|second_bits| {
            (0..=1 << (WINDOW - second_bits)).map(move |tables| Shape { second_bits, tables }.bytes())
        })
    }
}

/// Counts second-level tables for a code: prefixes of 11 bits, and of `second_bits` more each, that several longer
/// words share.
fn tables(codes: &CodeTable, second_bits: u32) -> u32 {
    let mut found = 0;
    for depth in (WINDOW..codes.longest()).step_by(second_bits as usize) {
        let prefixes = codes.codes().iter().filter(|c| c.len as u32 > depth).map(|c| c.bits >> (32 - depth));
        // Words are in the order of their bits, so those of one prefix are neighbours.
        let (mut last, mut times) = (None, 0);
        for prefix in prefixes {
            times = if last == Some(prefix) { times + 1 } else { 1 };
            last = Some(prefix);
            found += (times == 2) as u32;
        }
    }
    found
}

/// The words that begin with a prefix of a stream.
pub(super) enum Match {
    /// One word: wholly in the prefix, or the only one that begins so.
    Word(Code),
    /// No word begins so.
    Nothing,
    /// Several do.
    Several,
}

/// Finds the words that begin with a prefix: its bits from the top, zeros below.
pub(super) fn begins(codes: &CodeTable, prefix: u32, depth: u32) -> Match {
    if let Some(code) = codes.first(prefix).filter(|c| c.len as u32 <= depth) {
        return Match::Word(code);
    }
    let last = prefix | u32::MAX.checked_shr(depth).unwrap_or(0);
    let all = codes.codes();
    let from = all.partition_point(|c| c.bits < prefix);
    match &all[from..all.partition_point(|c| c.bits <= last)] {
        [] => Match::Nothing,
        [one] => Match::Word(*one),
        _ => Match::Several,
    }
}

/// A decoding table. The head of this file describes its bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTable {
    bytes: Vec<u8>,
    second_bits: u32,
}

impl DeviceTable {
    /// Makes the table of a code; `None` if no table holds it (no known compressor writes such codes).
    pub fn new(codes: &CodeTable) -> Option<DeviceTable> {
        let shape = Shape::of(codes)?;
        let mut maker = Maker {
            codes,
            second_bits: shape.second_bits,
            bytes: Vec::with_capacity(shape.bytes() as usize),
            tables: Vec::new(),
        };
        let first = first_symbols(codes);
        for window in 0..1 << WINDOW {
            match whole_entry(&first, window) {
                Some((x, y)) => maker.put(x, y),
                None => maker.one(window as u64, WINDOW),
            }
        }
        let mut done = 0;
        while let Some(&(prefix, depth)) = maker.tables.get(done) {
            for low in 0..1u64 << shape.second_bits {
                maker.one(prefix << shape.second_bits | low, depth + shape.second_bits);
            }
            done += 1;
        }
        debug_assert_eq!(maker.bytes.len(), shape.bytes() as usize);
        Some(DeviceTable { bytes: maker.bytes, second_bits: shape.second_bits })
    }

    /// Reads a table from its bytes, which are treated as untrusted input. `None` if an entry could lead to anything
    /// but exponents or the next table in order: so each table is reached by one way, and no way is longer than a code.
    pub(super) fn parse(bytes: &[u8], second_bits: u32) -> Option<DeviceTable> {
        if !Shape::sizes(second_bits).any(|size| size as usize == bytes.len()) {
            return None;
        }
        let table_bytes = ENTRY << second_bits;
        // The tables that were reached: the prefix that leads to each, and its length.
        let mut reached: Vec<(u64, u32)> = Vec::new();
        let entries = (0..1 << WINDOW).map(|window| (None, window as u64));
        let tables = (bytes.len() - MAIN_BYTES) / table_bytes;
        let second = (0..tables).flat_map(|table| (0..1 << second_bits).map(move |low| (Some(table), low as u64)));
        for (i, (table, low)) in entries.chain(second).enumerate() {
            let (most, prefix, depth) = match table {
                None => (MOST_PER_ENTRY, low, WINDOW),
                Some(table) => {
                    let &(prefix, depth) = reached.get(table)?;
                    (1, prefix << second_bits | low, depth + second_bits)
                }
            };
            let (x, y) = entry_at(bytes, i * ENTRY);
            let (eight_counts, length) = (y >> 8, y & 255);
            let good = if eight_counts == 0 {
                let next = MAIN_BYTES + reached.len() * table_bytes;
                reached.push((prefix, depth));
                depth < MAX_CODE_BITS
                    && length == second_bits
                    && next < bytes.len()
                    && x == way(next, prefix, second_bits)
            } else {
                let count = eight_counts / 8;
                let unused = x.checked_shl(eight_counts).unwrap_or(0);
                eight_counts.is_multiple_of(8) && count <= most && unused == 0 && (count..=32).contains(&length)
            };
            if !good {
                return None;
            }
        }
        Some(DeviceTable { bytes: bytes.to_vec(), second_bits })
    }

    /// Returns the table's bytes as in an image: a multiple of 16, at most 32,768.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bits that a second-level table resolves.
    pub fn second_bits(&self) -> u32 {
        self.second_bits
    }

    /// Returns the entry at a byte address, which is clamped into the table.
    pub(super) fn entry(&self, address: usize) -> (u32, u32) {
        entry_at(&self.bytes, (address & !(ENTRY - 1)).min(self.bytes.len() - ENTRY))
    }
}

/// Returns both halves of the entry at a byte address.
fn entry_at(bytes: &[u8], at: usize) -> (u32, u32) {
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    (half(at), half(at + 4))
}

/// Returns the XOR of an entry that leads to the table at `to`, for a prefix: it removes the prefix's last bits, which
/// the next window begins with, from the address.
fn way(to: usize, prefix: u64, second_bits: u32) -> u32 {
    let known = prefix & ((1 << (WINDOW - second_bits)) - 1);
    to as u32 ^ ((known << second_bits) as u32 * ENTRY as u32)
}

/// Returns the entry of a window that begins with whole codes; `None` if it begins with none.
fn whole_entry(first: &[(u8, u8); 1 << WINDOW], window: usize) -> Option<(u32, u32)> {
    let (mut x, mut count, mut used) = (0, 0, 0);
    for (symbol, end) in whole_codes(first, window).take(MOST_PER_ENTRY as usize) {
        x |= (symbol as u32) << (24 - 8 * count);
        count += 1;
        used = end;
    }
    (count > 0).then_some((x, (8 * count) << 8 | used))
}

/// A table that is being made.
struct Maker<'a> {
    codes: &'a CodeTable,
    second_bits: u32,
    bytes: Vec<u8>,
    /// The second-level tables that entries lead to: the prefix of each, and its length.
    tables: Vec<(u64, u32)>,
}

impl Maker<'_> {
    fn put(&mut self, x: u32, y: u32) {
        self.bytes.extend(x.to_le_bytes());
        self.bytes.extend(y.to_le_bytes());
    }

    /// Appends the entry of a prefix of `depth` bits that holds no more than one word.
    fn one(&mut self, prefix: u64, depth: u32) {
        // Second-level prefixes may be longer than codes.
        let top = ((prefix as u128) << (128 - depth) >> 96) as u32;
        let (x, y) = match begins(self.codes, top, depth.min(MAX_CODE_BITS)) {
            // The bits before the window were consumed.
            Match::Word(code) => ((code.symbol as u32) << 24, (8 << 8) | (code.len as u32 + WINDOW - depth)),
            Match::Nothing => (0, 8 << 8 | 1),
            Match::Several => {
                let to = MAIN_BYTES + self.tables.len() * (ENTRY << self.second_bits);
                self.tables.push((prefix, depth));
                (way(to, prefix, self.second_bits), self.second_bits)
            }
        };
        self.put(x, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A random number, good enough here.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// Makes a table of words, right-aligned bits and lengths, for the exponents from 0.
    fn codes(words: &[(u64, u32)]) -> CodeTable {
        let code = |(i, &(bits, len)): (usize, &(u64, u32))| Code {
            bits: (bits << (32 - len)) as u32,
            len: len as u8,
            symbol: (i % 240) as u8,
        };
        CodeTable::new(words.iter().enumerate().map(code).collect()).unwrap()
    }

    /// Makes a complete code of `count` words, by splitting words at random, preferably a long one.
    fn complete(random: &mut Random, count: usize, depth: u64) -> Vec<(u64, u32)> {
        let mut words = vec![(0, 1), (1, 1)];
        while words.len() < count {
            let any = random.below(words.len() as u64) as usize;
            let at = if random.below(depth) != 0 { words.len() - 1 } else { any };
            let at = if words[at].1 == 32 { any } else { at };
            if words[at].1 < 32 {
                let (bits, len) = words.swap_remove(at);
                words.extend([(bits << 1, len + 1), (bits << 1 | 1, len + 1)]);
            }
        }
        words
    }

    /// Looks up a stream's first 64 bits: the exponents of the first entry with any, and their bits.
    fn look_up(table: &DeviceTable, stream: u64) -> (Vec<u8>, u32) {
        let (mut bit, mut xor) = (0, 0);
        loop {
            let window = (stream << bit >> (64 - WINDOW)) as u32;
            let address = (window << 3) ^ xor;
            assert!((address as usize) < table.bytes().len());
            let (x, y) = table.entry(address as usize);
            bit += y & 63;
            if y >> 8 != 0 {
                return (x.to_be_bytes()[..y as usize >> 11].to_vec(), bit);
            }
            xor = x;
        }
    }

    /// Checks that every word is found, whatever follows it, and that what is found is in the stream.
    fn check(codes: &CodeTable, random: &mut Random) {
        let table = DeviceTable::new(codes).unwrap();
        assert_eq!(DeviceTable::parse(table.bytes(), table.second_bits()).as_ref(), Some(&table));
        assert_eq!(table.bytes().len(), Shape::of(codes).unwrap().bytes() as usize);
        for code in codes.codes() {
            for _ in 0..3 {
                let noise = random.below(1 << 31) << 33 | random.below(1 << 31) << 2;
                let stream = (code.bits as u64) << 32 | noise >> code.len;
                let (found, bits) = look_up(&table, stream);
                let mut at = 0;
                for symbol in &found {
                    let expected = codes.first((stream << at >> 32) as u32).unwrap();
                    assert_eq!(*symbol, expected.symbol);
                    at += expected.len as u32;
                }
                assert_eq!((found[0], bits), (code.symbol, at));
                // As many as fit, up to four.
                let next = codes.first((stream << at >> 32) as u32).map_or(32, |c| c.len as u32);
                assert!(found.len() == 4 || at > WINDOW || at + next > WINDOW, "{found:?}, {at} bits");
            }
        }
    }

    #[test]
    fn complete_codes_have_tables() {
        let mut random = Random(1);
        for round in 0..200 {
            let count = [2, 3, 17, 60, 240, 241][round % 6];
            let depth = 1 + random.below(60);
            let mut words = complete(&mut random, count, depth);
            // One of them is the end of data, which is in no table.
            words.swap_remove(random.below(words.len() as u64) as usize);
            let codes = codes(&words);
            // A complete code has fewer inner nodes than words, and each table is one.
            assert!(tables(&codes, 3) < 240 && Shape::of(&codes).unwrap().second_bits >= 3);
            check(&codes, &mut random);
        }
    }

    /// Words in pairs that differ in their last bits only, spread over as many rows as there are: what takes the most
    /// tables.
    #[test]
    fn two_bits_are_always_enough_for_one_word_each() {
        let mut random = Random(2);
        let mut most = 0;
        for _ in 0..2000 {
            // Rows of the second byte hang from the first row, and so on.
            let mut rows: Vec<(u64, u32)> = vec![(0, 0)];
            let likely = random.below(4);
            while rows.len() < 17 {
                let wanted = if random.below(4) < 3 { likely } else { random.below(3) };
                let (bits, depth) = rows[random.below(rows.len() as u64) as usize];
                let row = (bits << 8 | random.below(256), depth + 8);
                if depth < 24 && depth <= 8 * wanted as u32 && !rows.contains(&row) {
                    rows.push(row);
                }
            }
            let taken = rows.clone();
            let mut words = Vec::new();
            for try_ in 0..4000 {
                let (bits, depth) = rows[random.below(16) as usize + 1];
                let pair = random.below(128) << 1;
                let words_of = [0, 1].map(|low| (bits << 8 | pair | low, depth + 8));
                let free = |w: &(u64, u32)| !taken.contains(w) && !words.contains(w);
                if words_of.iter().all(free) && words.len() < 239 {
                    words.extend(words_of);
                }
                if words.len() >= 239 || try_ == 3999 {
                    break;
                }
            }
            let codes = codes(&words);
            let count = tables(&codes, 2);
            assert!(count <= 435, "{count} tables");
            most = most.max(count);
            let shape = Shape::of(&codes).unwrap();
            assert!(shape.bytes() as usize <= 2 * MAIN_BYTES);
        }
        // The search does come near the bound.
        assert!(most > 330, "{most} tables at most");
    }

    #[test]
    fn rows_that_no_compressor_writes_have_none() {
        // 16 rows of the second byte, all full: words of 16 bits, many to an exponent.
        let words: Vec<(u64, u32)> = (0..4096).map(|i| (i, 16)).collect();
        assert_eq!(DeviceTable::new(&codes(&words)), None);
        assert_eq!(Shape::of(&codes(&words)), None);
        // No word at all, and one.
        let empty = DeviceTable::new(&codes(&[])).unwrap();
        assert_eq!(empty.bytes().len(), MAIN_BYTES);
        assert_eq!(look_up(&empty, 0), (vec![0], 1));
        check(&codes(&[(0, 1)]), &mut Random(3));
        check(&codes(&[(0xffff_fffe, 32), (0xffff_ffff, 32), (0, 1)]), &mut Random(4));
    }

    #[test]
    fn changed_tables_lead_nowhere_else() {
        let mut random = Random(5);
        let words = complete(&mut random, 241, 12);
        let table = DeviceTable::new(&codes(&words[1..])).unwrap();
        assert!(table.bytes().len() > MAIN_BYTES);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = table.bytes().to_vec();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            match DeviceTable::parse(&bytes, table.second_bits()) {
                None => refused += 1,
                // Another exponent or length: every stream still ends.
                Some(other) => {
                    look_up(&other, random.below(1 << 31) << 33);
                }
            }
        }
        assert!(refused > 5_000, "{refused}");
        for second_bits in [0, 1, 8, 32, 64] {
            assert_eq!(DeviceTable::parse(table.bytes(), second_bits), None);
        }
        assert_eq!(DeviceTable::parse(&table.bytes()[..MAIN_BYTES], table.second_bits()), None);
        assert_eq!(DeviceTable::parse(&[], 7), None);
    }
}
