//! The code that the reference compressor makes of a histogram, rule by rule.
//!
//! 1. A Huffman tree over the exponents that occur and one *end of data*, which occurs once and compares below every
//!    exponent. Nodes are ordered by (count, first symbol). Of the two smallest the first gets a 0 in front of its
//!    codes, the second a 1, and the node that joins them takes the first one's first symbol.
//! 2. While any code, the end of data's included, is longer than 32 bits: for k = 2, 3, … the k smallest counts of the
//!    *original* histogram become 1. Which of several equal counts the reference takes at the boundary depends on
//!    numpy's sort; here it is the smaller exponents, and [`Codebook::limited`] reports that codes were limited.
//! 3. The reference also writes rows ([`super::rows::write`]) that pointers cannot reach, more than 17 before the row
//!    of lengths, which no decoder can read. Here the lengths are limited instead (package-merge, 16 bits or as few as
//!    it takes), at a cost of some thousandths of a bit per weight.

use super::code::{Code, CodeTable};
use super::{MAX_CODE_BITS, rows};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

/// The code of an encoder: a word for each exponent that occurs, and one for the end of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codebook {
    /// The words by exponent; the length is 0 where it does not occur. On the heap, because callers may have little stack.
    words: Box<[Code]>,
    end: Code,
    limit: Option<Limit>,
}

/// The reason why codes are not those of the plain Huffman tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A code would have been longer than 32 bits: this many of the smallest counts were taken for 1, as the reference
    /// does.
    Counts(usize),
    /// More rows than pointers can reach: codes were limited to this many bits. The reference writes a broken file
    /// here.
    Rows(u32),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Counts(k) => write!(
                f,
                "a code would be longer than 32 bits: the {k} smallest counts were taken for 1, of equal ones the smaller \
                 exponents first (the reference leaves that order to numpy)"
            ),
            Limit::Rows(bits) => write!(
                f,
                "the code would need more than 17 look-up rows, which the reference writes and nobody can read: its words \
                 were limited to {bits} bits"
            ),
        }
    }
}

/// An exponent plus 1, or [`END`], so that the end of data compares below every exponent.
type Symbol = u16;
const END: Symbol = 0;
/// The number of symbols.
const SYMBOLS: usize = 257;
/// The right-aligned bits and the length of each symbol's code, by [`Symbol`]; the length is 0 for those that do not occur.
type Words = Box<[(u32, u32)]>;

impl Codebook {
    /// Makes the code of a histogram: how often each exponent occurs. Returns `None` if an exponent of 240 or more
    /// occurs, which no row can hold, or if none occurs.
    pub fn new(histogram: &[u64; 256]) -> Option<Codebook> {
        let (codable, not) = histogram.split_at(rows::FIRST_POINTER as usize);
        if not.iter().any(|&n| n > 0) || codable.iter().all(|&n| n == 0) {
            return None;
        }
        let (tree, changed) = limited_tree(histogram);
        let book = Codebook::from_words(&tree, (changed > 0).then_some(Limit::Counts(changed)));
        if rows::count(book.words()) < rows::MAX_ROWS {
            return Some(book);
        }
        // Eight bits are always enough: one row holds all words, and there are at most 241 symbols.
        (8..=16).rev().find_map(|most| {
            let lengths = package_merge(histogram, most);
            let book = Codebook::from_words(&canonical(&lengths), Some(Limit::Rows(most)));
            (rows::count(book.words()) < rows::MAX_ROWS).then_some(book)
        })
    }

    /// Makes the code of a decoder's table, without an end of data. Of several words for an exponent the shortest is taken.
    pub fn of_table(table: &CodeTable) -> Codebook {
        let none = |symbol: usize| Code { bits: 0, len: 0, symbol: symbol as u8 };
        let mut words: Box<[Code]> = (0..256).map(none).collect();
        for &code in table.codes() {
            let word = &mut words[code.symbol as usize];
            if word.len == 0 || code.len < word.len {
                *word = code;
            }
        }
        Codebook { words, end: none(0), limit: None }
    }

    fn from_words(words: &[(u32, u32)], limit: Option<Limit>) -> Codebook {
        let code = |symbol: usize, (bits, len): (u32, u32)| {
            let bits = if len == 0 { 0 } else { bits << (32 - len) };
            Code { bits, len: len as u8, symbol: symbol as u8 }
        };
        let exponents = words[1..].iter().enumerate().map(|(e, &word)| code(e, word));
        Codebook { words: exponents.collect(), end: code(0, words[END as usize]), limit }
    }

    /// Returns the word of an exponent; its length is 0 if the exponent does not occur.
    #[inline]
    pub fn word(&self, exponent: u8) -> Code {
        self.words[exponent as usize]
    }

    /// Returns the words of all exponents that occur, in the order of the exponents.
    pub fn words(&self) -> impl Iterator<Item = Code> + Clone + '_ {
        self.words.iter().copied().filter(|c| c.len > 0)
    }

    /// Returns the word of the end of data. Its `symbol` means nothing.
    pub fn end(&self) -> Code {
        self.end
    }

    /// Returns why the code is not simply Huffman's, if it is not.
    pub fn limited(&self) -> Option<Limit> {
        self.limit
    }

    /// Returns the bits that weights of this histogram take; `None` if one of them has no word.
    pub fn bits(&self, histogram: &[u64; 256]) -> Option<u64> {
        let mut sum = 0;
        for (word, &count) in self.words.iter().zip(histogram) {
            if count > 0 && word.len == 0 {
                return None;
            }
            sum += word.len as u64 * count;
        }
        Some(sum)
    }

    /// Returns the same code as the table of a decoder.
    pub fn table(&self) -> CodeTable {
        CodeTable::new(self.words().collect()).unwrap_or_else(|fault| unreachable!("a code from a tree: {fault}"))
    }
}

/// Returns the code of a histogram, and how many counts were changed so that no word is longer than 32 bits.
fn limited_tree(histogram: &[u64; 256]) -> (Words, usize) {
    if let Some(words) = tree(histogram) {
        return (words, 0);
    }
    let mut by_count: Vec<usize> = (0..256).filter(|&e| histogram[e] > 0).collect();
    by_count.sort_by_key(|&e| histogram[e]);
    (2..=by_count.len())
        .find_map(|k| {
            let mut counts = *histogram;
            by_count[..k].iter().for_each(|&e| counts[e] = 1);
            Some((tree(&counts)?, k))
        })
        // With all counts 1 the tree is balanced.
        .unwrap_or_else(|| unreachable!("at most 257 symbols of one count have codes of 9 bits at most"))
}

/// Makes Huffman's code by the reference's tie rule; `None` if a code is longer than 32 bits.
fn tree(counts: &[u64; 256]) -> Option<Words> {
    // Leaves are numbered by their symbols, nodes from SYMBOLS on. parent[i] = (the node above, the bit on the way
    // down). Not on the stack, of which callers may have little.
    let mut parent = vec![(0usize, 0u32); 2 * SYMBOLS];
    let mut heap = BinaryHeap::with_capacity(SYMBOLS);
    heap.push(Reverse((1u64, END, END as usize)));
    for (exponent, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
        heap.push(Reverse((count, exponent as Symbol + 1, exponent + 1)));
    }
    let leaves: Vec<usize> = heap.iter().map(|Reverse((_, _, leaf))| *leaf).collect();
    let mut root = SYMBOLS;
    while let (Some(Reverse((x, first, a))), Some(Reverse((y, _, b)))) = (heap.pop(), heap.pop()) {
        root += 1;
        parent[a] = (root, 0);
        parent[b] = (root, 1);
        if heap.is_empty() {
            break;
        }
        heap.push(Reverse((x + y, first, root)));
    }
    let mut words = vec![(0, 0); SYMBOLS];
    for leaf in leaves {
        let (mut at, mut bits, mut len) = (leaf, 0u32, 0);
        while at != root {
            let (above, bit) = parent[at];
            if len == MAX_CODE_BITS {
                return None;
            }
            bits |= bit << len;
            len += 1;
            at = above;
        }
        words[leaf] = (bits, len);
    }
    Some(words.into())
}

/// Returns the lengths of the best code in which none is longer than `most` bits, by symbol. Coins of denominations
/// 2^-1 to 2^-most are packed in pairs, and a symbol's length is how many of its coins the cheapest packages use.
fn package_merge(histogram: &[u64; 256], most: u32) -> Vec<u32> {
    let mut coins: Vec<(u64, Vec<Symbol>)> = vec![(1, vec![END])];
    coins.extend((0..256).filter(|&e| histogram[e] > 0).map(|e| (histogram[e], vec![e as Symbol + 1])));
    coins.sort_by_key(|(count, _)| *count);
    let mut packages: Vec<(u64, Vec<Symbol>)> = Vec::new();
    for _ in 0..most {
        let mut merged = coins.clone();
        merged.extend(packages.chunks_exact(2).map(|p| (p[0].0 + p[1].0, [&p[0].1[..], &p[1].1[..]].concat())));
        merged.sort_by_key(|(count, _)| *count);
        packages = merged;
    }
    let mut lengths = vec![0; SYMBOLS];
    for (_, symbols) in &packages[..2 * (coins.len() - 1)] {
        symbols.iter().for_each(|&s| lengths[s as usize] += 1);
    }
    lengths
}

/// Makes the code of given lengths that counts upwards: short words first, then small exponents, the end of data last
/// among its equals. So long words share their first bits, and there are few rows.
fn canonical(lengths: &[u32]) -> Words {
    let mut order: Vec<usize> = (0..SYMBOLS).filter(|&s| lengths[s] > 0).collect();
    order.sort_by_key(|&s| (lengths[s], s == END as usize, s));
    let mut words = vec![(0, 0); SYMBOLS];
    let (mut next, mut last) = (0u64, 0);
    for symbol in order {
        let len = lengths[symbol];
        next <<= len - last;
        last = len;
        words[symbol] = (next as u32, len);
        next += 1;
    }
    words.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(usize, u64)]) -> [u64; 256] {
        let mut histogram = [0; 256];
        counts.iter().for_each(|&(e, n)| histogram[e] = n);
        histogram
    }

    #[test]
    fn one_symbol_gets_the_second_bit() {
        let book = Codebook::new(&histogram(&[(127, 5)])).unwrap();
        assert_eq!(book.word(127), Code { bits: 1 << 31, len: 1, symbol: 127 });
        assert_eq!((book.end().bits, book.end().len), (0, 1));
        assert_eq!(book.bits(&histogram(&[(127, 9)])), Some(9));
        assert_eq!(book.bits(&histogram(&[(126, 9)])), None);
    }

    #[test]
    fn the_code_of_a_table_is_the_code_that_the_table_was_made_of() {
        let counts = histogram(&[(1, 5), (120, 900), (121, 1000), (122, 3), (200, 1)]);
        let book = Codebook::new(&counts).unwrap();
        let again = Codebook::of_table(&book.table());
        assert!(again.words().eq(book.words()) && again.bits(&counts) == book.bits(&counts));
        assert_eq!((again.word(7).len, again.end().len), (0, 0));
        // Leftovers in the rows are words that nobody needs.
        let mut codes: Vec<Code> = vec![Code { bits: 1 << 31, len: 1, symbol: 9 }, Code { bits: 0, len: 3, symbol: 9 }];
        let shortest = codes[0];
        assert_eq!(Codebook::of_table(&CodeTable::new(codes.clone()).unwrap()).word(9), shortest);
        codes.reverse();
        assert_eq!(Codebook::of_table(&CodeTable::new(codes).unwrap()).word(9), shortest);
    }

    #[test]
    fn what_no_code_can_hold_has_none() {
        assert_eq!(Codebook::new(&[0; 256]), None);
        assert_eq!(Codebook::new(&histogram(&[(120, 5), (240, 1)])), None);
        assert_eq!(Codebook::new(&histogram(&[(255, 1)])), None);
    }

    /// Every other exponent rare: Huffman's codes of nine bits would take more rows than there are pointers.
    #[test]
    fn lengths_are_limited_where_rows_would_not_do() {
        let mut counts = histogram(&[(0, 1 << 40)]);
        counts[1..240].fill(1 << 20);
        let book = Codebook::new(&counts).unwrap();
        assert_eq!(book.limited(), Some(Limit::Rows(8)));
        assert!(book.words().all(|w| w.len <= 8) && book.words().count() == 240);
        // The end of data and all 240 words fill the tree.
        let kraft: u64 = book.words().chain([book.end()]).map(|w| 1u64 << (32 - w.len)).sum();
        assert_eq!(kraft, 1 << 32);
        assert!(Limit::Rows(8).to_string().contains("limited to 8 bits"));
        assert!(Limit::Counts(7).to_string().contains("the 7 smallest counts"));
    }

    #[test]
    fn package_merge_is_huffman_where_nothing_is_limited() {
        let counts = histogram(&[(1, 5), (2, 9), (3, 12), (4, 13), (5, 16), (6, 45)]);
        let lengths = package_merge(&counts, 16);
        let cost = |lengths: &dyn Fn(usize) -> u32| (1..=6).map(|e| counts[e] * lengths(e) as u64).sum::<u64>();
        let book = Codebook::new(&counts).unwrap();
        assert_eq!(cost(&|e| lengths[e + 1]), cost(&|e| book.word(e as u8).len as u32));
        let short = package_merge(&counts, 3);
        assert!(short.iter().all(|&len| len <= 3));
    }
}
