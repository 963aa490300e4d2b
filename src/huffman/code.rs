//! A prefix code over exponents.

use super::MAX_CODE_BITS;

/// One code word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The code's bits, the first one in bit 31; zeros below the code.
    pub bits: u32,
    /// The number of bits, 1 to 32.
    pub len: u8,
    /// The exponent that it stands for, below 240.
    pub symbol: u8,
}

impl Code {
    /// Returns the last window of 32 bits that begins with this code.
    fn last(self) -> u32 {
        self.bits | u32::MAX.checked_shr(self.len as u32).unwrap_or(0)
    }
}

/// A prefix code: no code word begins with another, so a bit stream reads in one way only.
///
/// A symbol may have several words here. The rows of a DF11 file hold leftovers in the slots that only the end-of-data
/// code would reach, and some of those are indistinguishable from words. Valid streams never use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTable {
    /// Sorted by `bits`.
    codes: Vec<Code>,
    shortest: u32,
    longest: u32,
}

impl CodeTable {
    /// Makes a table of code words. The error says why these are no prefix code.
    pub fn new(mut codes: Vec<Code>) -> Result<Self, String> {
        codes.sort_unstable_by_key(|c| (c.bits, c.len));
        for c in &codes {
            if c.len == 0 || c.len as u32 > MAX_CODE_BITS || c.bits & !c.bits_mask() != 0 {
                return Err(format!("exponent {} has a code of {} bits, outside 1 to 32", c.symbol, c.len));
            }
        }
        if let Some(pair) = codes.windows(2).find(|p| p[0].last() >= p[1].bits) {
            return Err(format!(
                "the codes of exponents {} and {} overlap: this is no prefix code",
                pair[0].symbol, pair[1].symbol
            ));
        }
        let lens = || codes.iter().map(|c| c.len as u32);
        let (shortest, longest) = (lens().min().unwrap_or(0), lens().max().unwrap_or(0));
        Ok(CodeTable { shortest, longest, codes })
    }

    /// Returns the code words, in the order of their bits.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// Returns the bits of the shortest word; 0 if there is none.
    pub fn shortest(&self) -> u32 {
        self.shortest
    }

    /// Returns the bits of the longest word; 0 if there is none.
    pub fn longest(&self) -> u32 {
        self.longest
    }

    /// Returns the code word that a window of 32 bits begins with.
    #[inline]
    pub fn first(&self, window: u32) -> Option<Code> {
        let after = self.codes.partition_point(|c| c.bits <= window);
        self.codes[..after].last().copied().filter(|c| window <= c.last())
    }
}

impl Code {
    fn bits_mask(self) -> u32 {
        !u32::MAX.checked_shr(self.len as u32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bits: &str, symbol: u8) -> Code {
        let len = bits.len() as u8;
        Code { bits: (u64::from_str_radix(bits, 2).unwrap() << (32 - len)) as u32, len, symbol }
    }

    #[test]
    fn finds_the_word_a_window_begins_with() {
        let ones = "1".repeat(32);
        let table = CodeTable::new(vec![code("110", 7), code("0", 5), code("10", 6), code(&ones, 8)]).unwrap();
        assert_eq!((table.shortest(), table.longest()), (1, 32));
        let symbol = |w: u32| table.first(w).map(|c| c.symbol);
        assert_eq!(symbol(0), Some(5));
        assert_eq!(symbol(0x7fff_ffff), Some(5));
        assert_eq!(symbol(0x8000_0000), Some(6));
        assert_eq!(symbol(0xdfff_ffff), Some(7));
        assert_eq!(symbol(0xe000_0000), None);
        assert_eq!(symbol(0xffff_fffe), None);
        assert_eq!(symbol(0xffff_ffff), Some(8));
    }

    #[test]
    fn refuses_what_is_no_prefix_code() {
        assert!(CodeTable::new(vec![code("10", 1), code("101", 2)]).unwrap_err().contains("no prefix code"));
        assert!(CodeTable::new(vec![code("10", 1), code("10", 2)]).is_err());
        assert!(CodeTable::new(vec![Code { bits: 0, len: 33, symbol: 1 }]).is_err());
        assert!(CodeTable::new(vec![Code { bits: 1, len: 4, symbol: 1 }]).is_err());
        assert!(CodeTable::new(vec![]).unwrap().first(0).is_none());
    }
}
