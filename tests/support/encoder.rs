//! The naive encoder of tests and benchmarks. It turns weights into the six members of a DF11 group, byte for byte as the reference's
//! compressor writes them.
//!
//! It is written for reading, and shares no line with the library, so that tests can compare the two. Every rule is a function of its
//! own, and [`encode_with_codes`] takes any code table: with it tests build groups that no compressor would write. Input is checked
//! only as far as the code here depends on it.

#![allow(dead_code)] // each test takes the part that it needs

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Bytes of code words in a block.
const BLOCK_BYTES: usize = 4096;
/// Bits of code words in a chunk.
const CHUNK_BITS: u64 = 64;
/// Bits of code words in a block.
const BLOCK_BITS: u64 = 8 * BLOCK_BYTES as u64;
/// The longest code that a file may hold.
const MAX_BITS: u32 = 32;

/// The six members of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Rows of 256 bytes: decoding tables, then the code lengths.
    pub luts: Vec<u8>,
    /// The code words.
    pub encoded_exponent: Vec<u8>,
    /// One byte per weight.
    pub sign_mantissa: Vec<u8>,
    /// Little-endian u32: the first weight of each block, then the number of weights.
    pub output_positions: Vec<u8>,
    /// Five bits per chunk.
    pub gaps: Vec<u8>,
    /// Where the weights are cut into tensors.
    pub split_positions: Vec<i64>,
}

/// A code word: the low `len` bits of `bits`, the most significant one first in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The bits, right aligned.
    pub bits: u32,
    /// How many.
    pub len: u32,
}

impl Word {
    /// Parses a code word in zeros and ones: `Word::parse("0110")`.
    pub fn parse(text: &str) -> Word {
        assert!(text.len() <= 32, "{text} is longer than 32 bits");
        let bits = text.chars().fold(0u64, |bits, c| bits << 1 | c.to_digit(2).expect("0 or 1") as u64);
        Word { bits: bits as u32, len: text.len() as u32 }
    }
}

/// A code table: the word of each exponent, and the word of the end of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    /// Indexed by exponent.
    pub words: [Option<Word>; 256],
    /// The end of the data. Only its first bits are ever written, to fill the last byte.
    pub end: Word,
}

impl Codes {
    /// Creates a table of the given words; the other exponents have none.
    pub fn new(words: &[(u8, Word)], end: Word) -> Codes {
        let mut table = [None; 256];
        for &(symbol, word) in words {
            table[symbol as usize] = Some(word);
        }
        Codes { words: table, end }
    }

    /// Returns the exponents that have a word, with their words.
    pub fn iter(&self) -> impl Iterator<Item = (u8, Word)> + '_ {
        self.words.iter().enumerate().filter_map(|(symbol, word)| word.map(|w| (symbol as u8, w)))
    }

    /// Returns the bits per weight that this table takes for a histogram.
    pub fn mean_bits(&self, histogram: &[u64; 256]) -> f64 {
        let bits: u64 = self.iter().map(|(symbol, word)| histogram[symbol as usize] * word.len as u64).sum();
        bits as f64 / histogram.iter().sum::<u64>() as f64
    }
}

/// Returns the exponent of a bf16.
pub fn exponent(weight: u16) -> u8 {
    (weight >> 7) as u8
}

/// Returns the sign in bit 7 and the mantissa in the bits below.
pub fn sign_mantissa(weight: u16) -> u8 {
    (weight >> 8 & 0x80 | weight & 0x7f) as u8
}

/// Encodes weights (bf16 bits) as the reference does, with the code table that it would make. `splits` are the running
/// sums of the tensors' sizes without the last.
pub fn encode(weights: &[u16], splits: &[u64]) -> Encoded {
    encode_with_codes(weights, splits, &code_table(&histogram(weights)))
}

/// Encodes weights with a given code table.
pub fn encode_with_codes(weights: &[u16], splits: &[u64], codes: &Codes) -> Encoded {
    let stream = stream(weights, codes);
    Encoded {
        luts: luts(codes),
        sign_mantissa: weights.iter().map(|&w| sign_mantissa(w)).collect(),
        output_positions: stream.positions.iter().flat_map(|p| p.to_le_bytes()).collect(),
        gaps: pack_gaps(&stream.gaps),
        encoded_exponent: stream.bytes,
        split_positions: splits.iter().map(|&s| s as i64).collect(),
    }
}

/// Counts how often each exponent occurs.
pub fn histogram(weights: &[u16]) -> [u64; 256] {
    let mut counts = [0; 256];
    for &w in weights {
        counts[exponent(w) as usize] += 1;
    }
    counts
}

/// Makes the reference's code table: Huffman's, with changed counts if a code would be longer than 32 bits.
pub fn code_table(histogram: &[u64; 256]) -> Codes {
    let counts = limited_counts(histogram);
    let of = |words: &BTreeMap<Symbol, (u32, u128)>, symbol: Symbol| {
        words.get(&symbol).map(|&(len, bits)| Word { bits: bits as u32, len })
    };
    let words = huffman(&counts);
    Codes {
        words: std::array::from_fn(|s| of(&words, Some(s as u8))),
        end: of(&words, END).expect("every table has an end-of-data code"),
    }
}

/// Returns the counts that the table is made of. While the longest code of all is over 32 bits, the k smallest of the original
/// counts become 1, for k = 2, 3 and so on. Of equal counts the smaller exponent is changed first (the reference leaves
/// it to numpy's sort which of them it is).
pub fn limited_counts(histogram: &[u64; 256]) -> [u64; 256] {
    let mut by_count: Vec<usize> = (0..256).filter(|&s| histogram[s] > 0).collect();
    by_count.sort_by_key(|&s| histogram[s]);
    let mut counts = *histogram;
    for k in 2.. {
        if huffman(&counts).values().all(|&(len, _)| len <= MAX_BITS) {
            break;
        }
        counts = *histogram;
        by_count.iter().take(k).for_each(|&s| counts[s] = 1);
    }
    counts
}

/// An exponent, or [`END`], which compares below every exponent.
type Symbol = Option<u8>;
/// The end of the data.
const END: Symbol = None;

/// Makes Huffman's code for the exponents that occur and one end of data. Returns length and bits of each word, of any length.
fn huffman(counts: &[u64; 256]) -> BTreeMap<Symbol, (u32, u128)> {
    /// A subtree: its leaves with their codes inside the subtree. The first leaf decides between equal counts.
    #[derive(PartialEq, Eq)]
    struct Node {
        count: u64,
        leaves: Vec<(Symbol, u32, u128)>,
    }
    impl Ord for Node {
        /// The standard heap returns its greatest element first, so the order is reversed.
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            (other.count, other.leaves[0].0).cmp(&(self.count, self.leaves[0].0))
        }
    }
    impl PartialOrd for Node {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    let leaf = |symbol, count| Node { count, leaves: vec![(symbol, 0, 0)] };
    let used = (0..=255).filter(|&s| counts[s as usize] > 0);
    let mut heap: BinaryHeap<Node> = used.map(|s| leaf(Some(s), counts[s as usize])).collect();
    heap.push(leaf(END, 1));
    while heap.len() > 1 {
        let (a, b) = (heap.pop().unwrap(), heap.pop().unwrap());
        let behind = |bit: u128, node: Node| {
            node.leaves.into_iter().map(move |(symbol, len, bits)| (symbol, len + 1, bit << len | bits))
        };
        let count = a.count + b.count;
        heap.push(Node { count, leaves: behind(0, a).chain(behind(1, b)).collect() });
    }
    let root = heap.pop().unwrap();
    root.leaves.into_iter().map(|(symbol, len, bits)| (symbol, (len, bits))).collect()
}

/// Makes the prefix code with the given lengths that counts upwards from 0: shorter words first, then smaller exponents, and the end
/// of data last among words of its length. For tests that need certain lengths only.
pub fn canonical(lengths: &[(u8, u32)], end_len: u32) -> Codes {
    let mut all: Vec<(u32, bool, u8)> = lengths.iter().map(|&(symbol, len)| (len, false, symbol)).collect();
    all.push((end_len, true, 0));
    all.sort_unstable();
    let (mut next, mut words, mut end, mut last) = (0u64, Vec::new(), None, 0);
    for (len, is_end, symbol) in all {
        next <<= len - last;
        last = len;
        assert!(len <= MAX_BITS && next >> len == 0, "no prefix code has these lengths");
        let word = Word { bits: next as u32, len };
        if is_end {
            end = Some(word);
        } else {
            words.push((symbol, word));
        }
        next += 1;
    }
    Codes::new(&words, end.unwrap())
}

/// Makes the rows of a code table. A table of more than 17 rows comes out as the reference would write it, although its pointers
/// cannot be told from exponents then.
pub fn luts(codes: &Codes) -> Vec<u8> {
    // A row belongs to a prefix of whole bytes: (how many bytes, their value), which is also their order.
    let level = |word: Word| (word.len - 1) / 8;
    let prefix = |word: Word, bytes: u32| (bytes, (word.bits as u64) >> (word.len - 8 * bytes));
    let prefixes: BTreeSet<(u32, u64)> =
        codes.iter().flat_map(|(_, w)| (0..=level(w)).map(move |bytes| prefix(w, bytes))).chain([(0, 0)]).collect();
    let row_of = |p: (u32, u64)| prefixes.iter().position(|&q| q == p).unwrap();

    let mut rows = Vec::with_capacity(256 * (prefixes.len() + 1));
    for &this in &prefixes {
        let bytes = this.0;
        let mut slots = [None; 256];
        for (symbol, word) in codes.iter().filter(|&(_, w)| bytes <= level(w) && prefix(w, bytes) == this) {
            // The eight bits after the prefix; zeros after a code that ends within them.
            let slot = ((word.bits as u64) << 8 >> (word.len - 8 * bytes)) as u8;
            let entry =
                if bytes == level(word) { symbol } else { 0u8.wrapping_sub(row_of(prefix(word, bytes + 1)) as u8) };
            slots[slot as usize] = Some(entry);
        }
        // Each entry is in the first slot of its range only; the other slots repeat the entry before, across rows too.
        // Before the very first entry the reference has nothing to repeat and fails; here the smallest entry is used.
        let mut entry = rows.last().copied().or(slots.iter().flatten().min().copied()).unwrap_or(0);
        for slot in slots {
            entry = slot.unwrap_or(entry);
            rows.push(entry);
        }
    }
    rows.extend(codes.words.iter().map(|word| word.map_or(0, |w| w.len as u8)));
    rows
}

/// The code words of a group and where they start.
pub struct Stream {
    /// The code words.
    pub bytes: Vec<u8>,
    /// One gap per chunk, for whole blocks.
    pub gaps: Vec<u8>,
    /// The first weight of each block, then the number of weights.
    pub positions: Vec<u32>,
}

/// Writes the code words of all weights, and notes where they start.
pub fn stream(weights: &[u16], codes: &Codes) -> Stream {
    assert!(u32::try_from(weights.len()).is_ok(), "a group's positions are 32-bit");
    let mut out = Stream { bytes: Vec::with_capacity(weights.len() / 2 + 8), gaps: Vec::new(), positions: Vec::new() };
    // The bit after what was written; the first bits of the next chunk and block in which no code has started yet.
    let (mut at, mut next_chunk, mut next_block) = (0u64, 0u64, 0u64);
    // Bits that do not fill a byte yet: the low `open` bits of `pending`.
    let (mut pending, mut open) = (0u64, 0u32);
    let mut start = |at: u64, weight: usize, gaps: &mut Vec<u8>, positions: &mut Vec<u32>| {
        if at >= next_chunk {
            gaps.resize((at / CHUNK_BITS) as usize, 0);
            gaps.push((at % CHUNK_BITS) as u8);
            next_chunk = (at / CHUNK_BITS + 1) * CHUNK_BITS;
        }
        if at >= next_block {
            positions.push(weight as u32);
            next_block = (at / BLOCK_BITS + 1) * BLOCK_BITS;
        }
    };
    for (i, &w) in weights.iter().enumerate() {
        start(at, i, &mut out.gaps, &mut out.positions);
        let word = codes.words[exponent(w) as usize].expect("every exponent that occurs has a code");
        pending = pending << word.len | word.bits as u64;
        open += word.len;
        at += word.len as u64;
        while open >= 8 {
            open -= 8;
            out.bytes.push((pending >> open) as u8);
        }
    }
    if open > 0 {
        // The leading bits of the end-of-data code fill the byte, with zeros after it if it is shorter.
        start(at, weights.len(), &mut out.gaps, &mut out.positions);
        let room = 8 - open;
        let end = codes.end;
        let fill = if end.len >= room { end.bits >> (end.len - room) } else { end.bits << (room - end.len) };
        out.bytes.push((pending << room | fill as u64) as u8);
    }
    out.positions.push(weights.len() as u32);
    out.gaps.resize(out.bytes.len().div_ceil(BLOCK_BYTES) * (BLOCK_BITS / CHUNK_BITS) as usize, 0);
    out
}

/// Packs gaps into five bits per chunk, the first chunk in the highest bits. Eight chunks are five bytes.
pub fn pack_gaps(gaps: &[u8]) -> Vec<u8> {
    assert!(gaps.len().is_multiple_of(8), "gaps come in whole blocks");
    gaps.chunks(8).flat_map(|c| c.iter().fold(0, |v, &g| v << 5 | g as u64).to_be_bytes().into_iter().skip(3)).collect()
}

/// A tensor of a file: name, dtype (as safetensors writes it), shape, bytes.
pub type Tensor = (String, &'static str, Vec<u64>, Vec<u8>);

/// Returns the members of a group as tensors of a file.
pub fn group_tensors(name: &str, e: &Encoded) -> Vec<Tensor> {
    let splits = e.split_positions.iter().flat_map(|s| s.to_le_bytes()).collect();
    let bytes = |member: &str, data: &[u8]| (format!("{name}.{member}"), "U8", vec![data.len() as u64], data.to_vec());
    vec![
        (format!("{name}.luts"), "U8", vec![e.luts.len() as u64 / 256, 256], e.luts.clone()),
        bytes("encoded_exponent", &e.encoded_exponent),
        bytes("sign_mantissa", &e.sign_mantissa),
        bytes("output_positions", &e.output_positions),
        bytes("gaps", &e.gaps),
        (format!("{name}.split_positions"), "I64", vec![e.split_positions.len() as u64], splits),
    ]
}

/// Writes a safetensors file, its tensors in the order of the safetensors library: the wider dtype first, then by name.
pub fn safetensors(tensors: &[(String, &str, Vec<u64>, Vec<u8>)], metadata: Option<&[(String, String)]>) -> Vec<u8> {
    /// From narrow to wide, in that library's order.
    const DTYPES: [&str; 20] = [
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16", "BF16",
        "I32", "U32", "F32", "C64", "F64", "I64", "U64",
    ];
    let rank = |dtype: &str| DTYPES.iter().position(|&d| d == dtype).unwrap_or_else(|| panic!("dtype {dtype:?}"));
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by(|a, b| rank(b.1).cmp(&rank(a.1)).then(a.0.cmp(&b.0)));

    let mut entries = Vec::new();
    if let Some(pairs) = metadata {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{}:{}", json_text(k), json_text(v))).collect();
        entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut end = 0;
    for (name, dtype, shape, data) in &order {
        let (from, to) = (end, end + data.len());
        let shape: Vec<_> = shape.iter().map(u64::to_string).collect();
        entries.push(format!(
            "{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{from},{to}]}}",
            json_text(name),
            shape.join(",")
        ));
        end = to;
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = Vec::with_capacity(8 + header.len() + end);
    file.extend_from_slice(&(header.len() as u64).to_le_bytes());
    file.extend_from_slice(&header);
    order.iter().for_each(|t| file.extend_from_slice(&t.3));
    file
}

/// Quotes a text as JSON.
fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", c as u32)),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}
