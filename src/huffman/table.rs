//! Look-up tables by the next bits of a stream: what all of them are built from, and the fast decoder's, in which every
//! window of 11 bits gives up to six exponents at once.

use super::code::CodeTable;

/// Bits of a window. 2^11 entries of 8 bytes are 16 KiB: half of a 32 KiB first-level cache, the smallest in use, and
/// one bit more gained 0 to 2 % where the cache was larger.
pub const WINDOW: u32 = 11;
/// The most exponents in one entry.
pub const MOST_PER_LOOKUP: usize = 6;

/// The exponents that each window of [`WINDOW`] bits begins with.
///
/// ```text
///  an entry   63..56   55..48   47..40   39..32   31..24   23..16   15..8    7..0
///             1st      2nd      3rd      4th      5th      6th      how many bits consumed
/// ```
///
/// Exponents are stored from the top down, so that the decoder, whose staging buffer grows downwards, can store an
/// entry as it is and shift by it as it is. Entry 0 means that the first code is longer than the window, or that there
/// is none.
#[derive(Debug)]
#[repr(align(64))]
pub struct MultiTable {
    pub(crate) entries: [u64; 1 << WINDOW],
    /// The table for registers, if the code suits it.
    pub(crate) short: Option<ShortTable>,
}

impl MultiTable {
    /// Builds the table from true code words (some 10 µs).
    pub fn new(codes: &CodeTable) -> Box<MultiTable> {
        const SIZE: usize = 1 << WINDOW;
        let first = first_symbols::<SIZE>(codes);
        let mut table = Box::new(MultiTable { entries: [0; SIZE], short: ShortTable::new(codes) });
        for (window, entry) in table.entries.iter_mut().enumerate() {
            let (mut used, mut count, mut symbols) = (0, 0, 0);
            for (symbol, end) in whole_codes(&first, window).take(MOST_PER_LOOKUP) {
                symbols |= (symbol as u64) << (56 - 8 * count);
                count += 1;
                used = end;
            }
            *entry = symbols | count << 8 | used as u64;
        }
        table
    }
}

/// Bits of a window that two vector registers can be looked up by.
pub(crate) const SHORT_WINDOW: u32 = 7;
/// Windows of that many bits.
pub(crate) const SHORT_WINDOWS: usize = 1 << SHORT_WINDOW;
/// The most exponents of such a window.
pub(crate) const MOST_PER_SHORT: usize = 3;

/// The whole codes of each window of [`SHORT_WINDOW`] bits, in tables of 128 bytes, which are two vector registers.
///
/// A window without a whole code is a *prefix* of long codes. The bits after it are looked up in a second pair of
/// registers. There, the number of the prefix takes as many bits of the index as it needs, and the next bits of the
/// stream the others.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct ShortTable {
    /// The bits that the whole codes take; 0 for a prefix.
    pub used: [u8; SHORT_WINDOWS],
    /// The complements of the exponents of the first, the second and the third code; 0 where there is none.
    pub exponents: [[u8; SHORT_WINDOWS]; MOST_PER_SHORT],
    /// Bit i is set if a whole code ends with bit i of the window, the first bit being 0.
    pub ends: [u8; SHORT_WINDOWS],
    /// The number of a prefix, in the top bits of an index of [`SHORT_WINDOW`] bits.
    pub prefix: [u8; SHORT_WINDOWS],
    /// The bits after the prefix that a long code takes; 0 if the index does not tell.
    pub long_used: [u8; SHORT_WINDOWS],
    /// The complement of its exponent; [`ShortTable::UNKNOWN`] if the index does not tell.
    pub long_exponent: [u8; SHORT_WINDOWS],
    /// The bits of an index that are the number of a prefix.
    pub prefix_bits: u32,
    /// The bits and the codes that all windows take together.
    pub all_used: usize,
    pub all_codes: usize,
}

impl ShortTable {
    /// Stands for the complement of an exponent that the tables do not have; no exponent that can be coded has it.
    pub const UNKNOWN: u8 = 1;
    /// The most prefixes. Each takes 1 in 128 codes or fewer, and each long code costs a lane half a round.
    const MOST_PREFIXES: usize = 4;

    /// Builds the tables, if few codes are long and windows hold more than one code: else they are not worth it.
    fn new(codes: &CodeTable) -> Option<ShortTable> {
        let first = first_symbols::<SHORT_WINDOWS>(codes);
        let mut table = ShortTable {
            used: [0; SHORT_WINDOWS],
            exponents: [[0; SHORT_WINDOWS]; MOST_PER_SHORT],
            ends: [0; SHORT_WINDOWS],
            prefix: [0; SHORT_WINDOWS],
            long_used: [0; SHORT_WINDOWS],
            long_exponent: [Self::UNKNOWN; SHORT_WINDOWS],
            prefix_bits: 0,
            all_used: 0,
            all_codes: 0,
        };
        let mut prefixes = 0;
        for window in 0..SHORT_WINDOWS {
            for ((symbol, end), exponents) in whole_codes(&first, window).zip(&mut table.exponents) {
                exponents[window] = !symbol;
                table.used[window] = end as u8;
                table.ends[window] |= 1 << (end - 1);
                table.all_codes += 1;
            }
            table.all_used += table.used[window] as usize;
            if table.used[window] == 0 {
                table.prefix[window] = prefixes as u8;
                prefixes += 1;
            }
        }
        if prefixes > Self::MOST_PREFIXES || table.all_codes < SHORT_WINDOWS * 3 / 2 {
            return None;
        }
        table.prefix_bits = prefixes.next_power_of_two().ilog2();
        let free = SHORT_WINDOW - table.prefix_bits;
        table.prefix.iter_mut().for_each(|number| *number <<= free);
        for c in codes.codes() {
            let after = (c.len as u32).wrapping_sub(SHORT_WINDOW);
            if (1..=free).contains(&after) {
                let prefix = table.prefix[(c.bits >> (32 - SHORT_WINDOW)) as usize] as usize;
                let from = prefix | ((c.bits << SHORT_WINDOW) >> (32 - free)) as usize;
                let run = from..from + (1 << (free - after));
                table.long_used[run.clone()].fill(after as u8);
                table.long_exponent[run].fill(!c.symbol);
            }
        }
        Some(table)
    }
}

/// Returns, for each window of as many bits as `SIZE` has numbers for, the first exponent and its code's length; length
/// 0 where the code is longer. They are on the heap, because callers may have little stack.
pub(crate) fn first_symbols<const SIZE: usize>(codes: &CodeTable) -> Box<[(u8, u8); SIZE]> {
    const { assert!(SIZE.is_power_of_two() && SIZE < 1 << 32) };
    let window = SIZE.ilog2();
    let Ok(mut first) = <Box<[_; SIZE]>>::try_from(vec![(0, 0); SIZE]) else { unreachable!("it has SIZE entries") };
    for c in codes.codes().iter().filter(|c| c.len as u32 <= window) {
        let from = (c.bits >> (32 - window)) as usize;
        first[from..from + (1 << (window - c.len as u32))].fill((c.symbol, c.len));
    }
    first
}

/// Returns the whole codes that a window begins with, given [`first_symbols`]: the exponent of each, and the bit of the
/// window at which its code ends.
#[inline(always)]
pub(crate) fn whole_codes<const SIZE: usize>(
    first: &[(u8, u8); SIZE],
    window: usize,
) -> impl Iterator<Item = (u8, u32)> {
    let mut used = 0;
    std::iter::from_fn(move || {
        // Bits shifted in from the right are unknown: a code counts only if it ends before them.
        let (symbol, len) = first[window << used & (SIZE - 1)];
        if len == 0 || used + len as u32 > SIZE.ilog2() {
            return None;
        }
        used += len as u32;
        Some((symbol, used))
    })
}
