//! The look-up rows that a DF11 file stores (`luts`): read into a code table, and written as the reference does.
//!
//! # What the rows are
//!
//! T rows of 256 entries, then one row of code lengths indexed by exponent. Row 0 is indexed by the next 8 bits of the
//! stream. An entry below 240 is an exponent; an entry e ≥ 240 leads to row 256 − e, indexed by the 8 bits after those,
//! at most four rows deep. A code of n bits therefore lives at depth ⌊(n − 1) / 8⌋ and fills an aligned run of
//! 2^(8·(depth + 1) − n) slots.
//!
//! # Why they are not used as they are
//!
//! The reference's writer sets only the *first* slot of each run and repeats the slot before in all others, also across
//! the border of two rows. The slots of the end-of-data code, which is in no row, thereby hold leftovers: another
//! code's exponent (in row 0 even *before* that code's own slots) or a pointer, even one to its own row. Valid data
//! never gets there, but the bits after the last weight may, and a table of another shape that is filled by copying
//! slots decodes wrongly. So the true code words are recovered here first:
//!
//! - rows are visited in their order, and a row belongs to the first pointer that leads to it, because parents are
//!   written before their children and repeats come after what they repeat. Any later pointer to it is a leftover;
//! - an exponent is accepted only where its length fits the row's depth and the whole aligned run that this length
//!   implies holds it. Two such runs of one exponent cannot overlap, so a run that is not the true one is wholly among
//!   the leftovers, inside the end-of-data code.
//!
//! What remains is a prefix code by construction, and no path through it can loop.

use super::MAX_CODE_BITS;
use super::code::{Code, CodeTable};
use std::collections::BTreeSet;

/// The first entry that is a pointer to another row. Exponents of this size and more cannot be coded.
pub const FIRST_POINTER: u8 = 240;
/// Entries of a row.
pub const ROW: usize = 256;
/// The most rows, with the row of lengths: pointers reach rows 1 to 16.
pub const MAX_ROWS: usize = 18;

/// The reason why rows were refused.
#[derive(Debug, PartialEq, Eq)]
pub struct RowFault {
    /// One sentence.
    pub reason: String,
    /// The byte within `luts`.
    pub offset: usize,
    /// True if the rows are consistent but say something that the format cannot carry.
    pub unsupported: bool,
}

/// Checks how many bytes of rows there are, before they are read.
pub fn check_size(bytes: u64) -> Result<(), RowFault> {
    if bytes.is_multiple_of(ROW as u64) && (2..=MAX_ROWS as u64).contains(&(bytes / ROW as u64)) {
        return Ok(());
    }
    let reason = format!("{bytes} bytes of look-up rows: 2 to {MAX_ROWS} rows of {ROW} are possible");
    Err(RowFault { reason, offset: 0, unsupported: false })
}

/// Reads `luts` (all rows, row-major) into a code table. Time and memory are bounded by the rows' size.
pub fn read(luts: &[u8]) -> Result<CodeTable, RowFault> {
    let corrupt = |offset: usize, reason: String| RowFault { reason, offset, unsupported: false };
    check_size(luts.len() as u64)?;
    let rows = luts.len() / ROW - 1;
    let (tables, lens) = luts.split_at(rows * ROW);
    for (exponent, &len) in lens.iter().enumerate().filter(|&(_, &len)| len != 0) {
        let offset = rows * ROW + exponent;
        if exponent >= FIRST_POINTER as usize {
            let reason = format!(
                "exponent {exponent} has a code of {len} bits, but exponents from {FIRST_POINTER} on (infinities, NaN, \
                 magnitudes of 2^113 and more) collide with row pointers: the compressor that wrote this file lost weights"
            );
            return Err(RowFault { reason, offset, unsupported: true });
        }
        if len as u32 > MAX_CODE_BITS {
            return Err(corrupt(offset, format!("exponent {exponent} has a code of {len} bits: 32 is the longest")));
        }
    }

    // prefix[r] = (the bits that lead to row r, left-aligned, and how many rows came before)
    let mut prefix = [None; MAX_ROWS];
    prefix[0] = Some((0u32, 0u32));
    let mut codes = Vec::new();
    let mut coded = [false; ROW];
    for (row, slots) in tables.chunks_exact(ROW).enumerate() {
        let Some((bits, depth)) = prefix[row] else {
            return Err(corrupt(row * ROW, format!("no pointer in an earlier row leads to row {row}")));
        };
        let shift = 24 - 8 * depth;
        let mut slot = 0;
        while slot < ROW {
            let entry = slots[slot];
            let here = bits | (slot as u32) << shift;
            if entry >= FIRST_POINTER {
                let to = ROW - entry as usize;
                if to >= rows {
                    let reason = format!("entry {slot} of row {row} points to row {to}, and there are {rows}");
                    return Err(corrupt(row * ROW + slot, reason));
                }
                if to > row && depth < 3 && prefix[to].is_none() {
                    prefix[to] = Some((here, depth + 1));
                }
                slot += 1;
                continue;
            }
            let len = lens[entry as usize] as u32;
            let fits = len > 8 * depth && len <= 8 * depth + 8;
            let run = if fits { 1usize << (8 * depth + 8 - len) } else { 1 };
            if fits && slot.is_multiple_of(run) && slots[slot..slot + run].iter().all(|&e| e == entry) {
                codes.push(Code { bits: here, len: len as u8, symbol: entry });
                coded[entry as usize] = true;
                slot += run;
            } else {
                slot += 1;
            }
        }
    }
    if let Some(exponent) = (0..ROW).find(|&e| lens[e] != 0 && !coded[e]) {
        let reason = format!("exponent {exponent} has a code of {} bits, but no row holds that code", lens[exponent]);
        return Err(corrupt(rows * ROW + exponent, reason));
    }
    CodeTable::new(codes).map_err(|reason| corrupt(0, reason))
}

/// The place of a code's row: how many whole bytes lead to it, and their value. Rows are in this order.
type Prefix = (u32, u32);

/// Returns the first bytes of a code.
fn prefix(code: Code, bytes: u32) -> Prefix {
    (bytes, code.bits.checked_shr(32 - 8 * bytes).unwrap_or(0))
}

/// Returns the depth of the row that holds a code.
fn depth(code: Code) -> u32 {
    (code.len as u32 - 1) / 8
}

/// Returns the rows that words take, each as the prefix that leads to it.
fn prefixes(words: impl Iterator<Item = Code>) -> BTreeSet<Prefix> {
    words.flat_map(|code| (0..=depth(code)).map(move |bytes| prefix(code, bytes))).chain([(0, 0)]).collect()
}

/// Returns how many rows a code takes, without the row of lengths. `words` are one for each exponent that occurs.
pub fn count(words: impl Iterator<Item = Code>) -> usize {
    prefixes(words).len()
}

/// Writes `luts` (all rows, row-major, the row of lengths last) as the reference does: each code and each pointer in
/// the first slot of its run, every other slot a repetition of the one before, across rows too. The end of data is in
/// no row. `words` are one for each exponent that occurs.
///
/// At the start the reference has nothing to repeat: if no code and no pointer begins at slot 0 of row 0 (one exponent,
/// most weights of two, ternary weights) it fails. Here the smallest entry of the row stands in, which is as good: no
/// valid stream reaches such a slot.
pub fn write(words: impl Iterator<Item = Code> + Clone) -> Vec<u8> {
    let prefixes: Vec<Prefix> = prefixes(words.clone()).into_iter().collect();
    let mut rows = Vec::with_capacity((prefixes.len() + 1) * ROW);
    for &this in &prefixes {
        let bytes = this.0;
        let mut slots = [None; ROW];
        for code in words.clone().filter(|&c| bytes <= depth(c) && prefix(c, bytes) == this) {
            let slot = (code.bits << (8 * bytes)) >> 24;
            let entry = if bytes == depth(code) {
                code.symbol
            } else {
                let to = prefixes.partition_point(|&p| p < prefix(code, bytes + 1));
                (ROW - to) as u8
            };
            slots[slot as usize] = Some(entry);
        }
        let mut entry = rows.last().copied().or(slots.iter().flatten().min().copied()).unwrap_or(0);
        for slot in slots {
            entry = slot.unwrap_or(entry);
            rows.push(entry);
        }
    }
    let mut lengths = [0; ROW];
    words.for_each(|code| lengths[code.symbol as usize] = code.len);
    rows.extend(lengths);
    rows
}

#[cfg(test)]
mod tests {
    use super::super::codebook::Codebook;
    use super::*;

    /// Rows of a code of three exponents, and the place of the row of lengths.
    fn rows() -> (Vec<u8>, usize) {
        let mut counts = [0; 256];
        (counts[120], counts[121], counts[122]) = (5, 9, 40);
        let luts = write(Codebook::new(&counts).unwrap().words());
        let lengths = luts.len() - ROW;
        assert_eq!(lengths, ROW, "one row holds codes as short as these");
        (luts, lengths)
    }

    fn fault(luts: &[u8]) -> (usize, bool, String) {
        let fault = read(luts).unwrap_err();
        (fault.offset, fault.unsupported, fault.reason)
    }

    #[test]
    fn only_two_to_eighteen_whole_rows_are_read() {
        let sizes = [0, 1, 255, 256, 257, 511, 513, 18 * 256 - 1, 18 * 256 + 1, 19 * 256, 1 << 20, u64::MAX];
        assert!(sizes.iter().all(|&bytes| check_size(bytes).is_err()));
        assert!((2..=18).all(|rows| check_size(rows * 256).is_ok()));
    }

    #[test]
    fn a_fault_is_at_its_byte() {
        let (good, lengths) = rows();
        read(&good).unwrap();
        let with = |at: usize, value: u8| {
            let mut luts = good.clone();
            luts[at] = value;
            fault(&luts)
        };
        let (at, unsupported, reason) = with(lengths + 245, 3);
        assert!(at == lengths + 245 && unsupported && reason.starts_with("exponent 245 "), "{at}: {reason}");
        let (at, unsupported, reason) = with(lengths + 9, 33);
        assert!(at == lengths + 9 && !unsupported && reason.starts_with("exponent 9 "), "{at}: {reason}");
        let (at, _, reason) = with(lengths + 9, 8);
        assert!(at == lengths + 9 && reason.contains("no row holds that code"), "{at}: {reason}");
        let (at, _, reason) = with(77, 255);
        assert!(at == 77 && reason.contains("points to row 1"), "{at}: {reason}");
        // A second row that nothing leads to.
        let orphan = [&good[..ROW], &good[..ROW], &good[lengths..]].concat();
        let (at, _, reason) = fault(&orphan);
        assert!(at == ROW && reason.contains("leads to row 1"), "{at}: {reason}");
    }
}
