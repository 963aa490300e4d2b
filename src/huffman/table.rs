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
}

impl MultiTable {
    /// Builds the table from true code words (some 10 µs).
    pub fn new(codes: &CodeTable) -> Box<MultiTable> {
        const SIZE: usize = 1 << WINDOW;
        let first = first_symbols::<SIZE>(codes);
        let mut table = Box::new(MultiTable { entries: [0; SIZE] });
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
