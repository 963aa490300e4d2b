//! A compressed group: its six members, checked against each other.

use super::source::{Source, Span, Stored};
use crate::error::{Error, Place, Result};
use crate::huffman::code::CodeTable;
use crate::huffman::table::MultiTable;
use crate::huffman::{BLOCK_BITS, BLOCK_BYTES, GAP_BYTES_PER_BLOCK, rows};
use once_cell::sync::OnceCell;
use safetensors::Dtype;
use std::borrow::Cow;

/// The members of a group, in the order of [`Member`].
pub(crate) const MEMBERS: [&str; 6] =
    ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"];

/// One of the six tensors that make a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Luts,
    EncodedExponent,
    SignMantissa,
    OutputPositions,
    Gaps,
    SplitPositions,
}

impl Member {
    /// All of them, in their order.
    pub const ALL: [Member; 6] = [
        Member::Luts,
        Member::EncodedExponent,
        Member::SignMantissa,
        Member::OutputPositions,
        Member::Gaps,
        Member::SplitPositions,
    ];
}

/// Tensors of a group at most. The largest published group has 157 (BAGEL's vision model).
pub(crate) const MOST_TENSORS: u64 = 1024;

/// A compressed group, as a model keeps it.
pub(crate) struct GroupData {
    name: String,
    /// The numbers of its runs in the model's list, in the order of its weights.
    pub(crate) runs: Vec<u32>,
    /// True if a file's metadata names its tensors: no other program finds them.
    pub(crate) extended: bool,
    members: [Span; 6],
    /// Elements before each tensor, then all of them.
    cuts: Vec<u64>,
    codes: CodeTable,
    lengths: [u8; 256],
    /// The positions, if the file is not in memory: four bytes for some 12,400 weights.
    positions: Option<Vec<u8>>,
    table: OnceCell<Box<MultiTable>>,
}

impl GroupData {
    /// Returns the module's full name, such as `model.layers.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of weights in all its tensors.
    pub fn element_count(&self) -> u64 {
        self.member(Member::SignMantissa).len
    }

    /// Returns the bytes of its six members in the files.
    pub fn packed_bytes(&self) -> u64 {
        self.members.iter().map(|m| m.len).sum()
    }

    /// Returns the bits of each exponent's code word; 0 where it does not occur.
    pub fn code_lengths(&self) -> &[u8; 256] {
        &self.lengths
    }

    /// Returns its code words.
    pub fn codes(&self) -> &CodeTable {
        &self.codes
    }

    /// Returns the number of blocks of which positions are recorded. It can differ by one from the blocks of the stream.
    pub fn block_count(&self) -> usize {
        (self.member(Member::OutputPositions).len / 4) as usize - 1
    }

    /// Elements before each tensor, then all of them.
    pub(crate) fn cuts(&self) -> &[u64] {
        &self.cuts
    }

    pub(crate) fn member(&self, member: Member) -> Span {
        self.members[member as usize]
    }

    /// Returns the decoder's table. It is made at its first use and kept, because it costs as much as decoding 25,000
    /// weights.
    pub(crate) fn table(&self) -> &MultiTable {
        self.table.get_or_init(|| MultiTable::new(&self.codes))
    }

    /// Returns the recorded positions, four bytes each. The C ABI maps files, whose bytes may change, so users must clamp what they
    /// read.
    pub(crate) fn positions<'a>(&'a self, sources: &'a [Source]) -> &'a [u8] {
        let span = self.member(Member::OutputPositions);
        match &self.positions {
            Some(bytes) => bytes,
            None => sources[span.file].slice(span.offset, span.len).unwrap_or_default(),
        }
    }

    /// Returns the place of a byte of a member.
    pub(crate) fn place(&self, sources: &[Source], member: Member, offset: u64) -> Place {
        place(sources, &self.name, self.members[member as usize], member, offset)
    }

    /// Checks the six members of the group `name` against each other.
    pub(crate) fn check(sources: &[Source], name: &str, infos: [&Stored; 6]) -> Result<GroupData> {
        let members = Members { sources, name, infos };
        members.check_types()?;
        // Sizes come first in each of these: nothing is read that is larger than it can rightly be.
        let (codes, lengths) = members.read_code()?;
        members.check_sizes()?;
        let positions = members.read_positions(&codes)?;
        let cuts = members.read_cuts()?;
        Ok(GroupData {
            name: name.into(),
            runs: Vec::new(),
            extended: false,
            members: infos.map(|stored| stored.span),
            cuts,
            codes,
            lengths,
            positions,
            table: OnceCell::new(),
        })
    }
}

/// The members of a group that is being checked.
struct Members<'a> {
    sources: &'a [Source],
    name: &'a str,
    infos: [&'a Stored; 6],
}

impl<'a> Members<'a> {
    fn span(&self, member: Member) -> Span {
        self.infos[member as usize].span
    }

    fn len(&self, member: Member) -> u64 {
        self.span(member).len
    }

    fn source(&self, member: Member) -> &'a Source {
        &self.sources[self.span(member).file]
    }

    fn bytes(&self, member: Member) -> Result<Cow<'a, [u8]>> {
        self.source(member).view(self.span(member).offset, self.len(member))
    }

    fn at(&self, member: Member, offset: u64) -> Place {
        place(self.sources, self.name, self.span(member), member, offset)
    }

    /// Returns the weights of the group.
    fn weights(&self) -> u64 {
        self.len(Member::SignMantissa)
    }

    /// Checks the type and the number of dimensions of each member.
    fn check_types(&self) -> Result<()> {
        for member in Member::ALL {
            let info = self.infos[member as usize];
            let dtype = if member == Member::SplitPositions { Dtype::I64 } else { Dtype::U8 };
            let dims = if member == Member::Luts { 2 } else { 1 };
            if info.dtype != dtype || info.shape.len() != dims {
                let reason = format!("is {} {:?}, not {dtype} of {dims} dimension(s)", info.dtype, info.shape);
                return Err(Error::invalid(self.at(member, 0), reason));
            }
        }
        Ok(())
    }

    /// Reads the code from its look-up tables. Returns it with the bits of each exponent's code word.
    fn read_code(&self) -> Result<(CodeTable, [u8; 256])> {
        let shape = &self.infos[Member::Luts as usize].shape;
        if shape[1] != rows::ROW as u64 {
            let reason = format!("has the shape {shape:?}, not [rows, 256]");
            return Err(Error::corrupt(self.at(Member::Luts, 0), reason));
        }
        let refuse = |fault: rows::RowFault| {
            let place = self.at(Member::Luts, fault.offset as u64);
            if fault.unsupported {
                Error::unsupported(place, fault.reason)
            } else {
                Error::corrupt(place, fault.reason)
            }
        };
        rows::check_size(self.len(Member::Luts)).map_err(refuse)?;
        let luts = self.bytes(Member::Luts)?;
        let codes = rows::read(&luts).map_err(refuse)?;
        let mut lengths = [0; 256];
        lengths.copy_from_slice(&luts[luts.len() - 256..]);
        Ok((codes, lengths))
    }

    /// Checks the numbers of weights, gaps and positions against the bytes of codes.
    fn check_sizes(&self) -> Result<()> {
        use Member::{EncodedExponent, Gaps, OutputPositions, SignMantissa};
        let n = self.weights();
        if n > u32::MAX as u64 {
            let reason = format!("has {n} weights: positions are 32 bits wide, so 4294967295 are the most");
            return Err(Error::corrupt(self.at(SignMantissa, 0), reason));
        }
        let stream = self.len(EncodedExponent);
        let blocks = stream.div_ceil(BLOCK_BYTES as u64);
        let gaps = blocks * GAP_BYTES_PER_BLOCK as u64;
        if self.len(Gaps) != gaps {
            let reason = format!("has {} bytes, and {stream} bytes of codes take {gaps}", self.len(Gaps));
            return Err(Error::corrupt(self.at(Gaps, 0), reason));
        }
        let positions = self.len(OutputPositions);
        if positions > 4 * (blocks + 2) {
            let reason = format!("has {} positions for {blocks} blocks of codes", positions / 4);
            return Err(Error::corrupt(self.at(OutputPositions, positions - 4), reason));
        }
        Ok(())
    }

    /// Checks the positions. Returns them if the file is not in memory.
    fn read_positions(&self, codes: &CodeTable) -> Result<Option<Vec<u8>>> {
        let member = Member::OutputPositions;
        let positions = self.bytes(member)?;
        check_positions(&positions, self.weights(), self.len(Member::EncodedExponent), codes)
            .map_err(|(reason, index)| Error::corrupt(self.at(member, 4 * index as u64), reason))?;
        let in_memory = self.source(member).slice(0, 0).is_some();
        Ok((!in_memory).then(|| positions.into_owned()))
    }

    /// Returns the elements before each tensor, then all of them.
    fn read_cuts(&self) -> Result<Vec<u64>> {
        let member = Member::SplitPositions;
        let (n, count) = (self.weights(), self.len(member) / 8);
        if count >= MOST_TENSORS {
            let reason = format!("cuts the group into {} tensors: {MOST_TENSORS} are the most", count + 1);
            return Err(Error::corrupt(self.at(member, 0), reason));
        }
        let mut cuts = vec![0u64];
        for (i, value) in self.bytes(member)?.chunks_exact(8).enumerate() {
            let value = i64::from_le_bytes(value.try_into().unwrap_or_default());
            let before = cuts[i];
            match u64::try_from(value) {
                Ok(value) if (before..=n).contains(&value) => cuts.push(value),
                _ => {
                    let reason = format!("cut {i} is {value}, outside {before} to {n}");
                    return Err(Error::corrupt(self.at(member, 8 * i as u64), reason));
                }
            }
        }
        cuts.push(n);
        Ok(cuts)
    }
}

fn place(sources: &[Source], group: &str, span: Span, member: Member, offset: u64) -> Place {
    sources[span.file].place().tensor(format!("{group}.{}", MEMBERS[member as usize])).at(span.offset + offset)
}

/// Returns position k of a list of little-endian u32.
#[inline]
pub(crate) fn position(positions: &[u8], k: usize) -> u64 {
    match positions.get(4 * k..4 * k + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]) as u64,
        _ => 0,
    }
}

/// Checks that K + 1 positions cut N weights into blocks as a stream of that many bytes can hold them: with codes of
/// `shortest` to `longest` bits, a stretch of b bits holds at least ⌈b / longest⌉ and at most ⌊b / shortest⌋ codes,
/// give or take what runs across its borders. Returns what is wrong and at which position.
fn check_positions(
    positions: &[u8],
    n: u64,
    stream: u64,
    codes: &CodeTable,
) -> std::result::Result<(), (String, usize)> {
    if positions.len() < 4 || !positions.len().is_multiple_of(4) {
        return Err((format!("has {} bytes: positions take four each, and there is at least one", positions.len()), 0));
    }
    let k = positions.len() / 4 - 1;
    let get = |i: usize| position(positions, i);
    if get(0) != 0 {
        return Err((format!("position 0 is {}, not 0", get(0)), 0));
    }
    if get(k) != n {
        return Err((format!("the last position is {}, and sign_mantissa has {n} weights", get(k)), k));
    }
    let blocks = stream.div_ceil(BLOCK_BYTES as u64) as usize;
    if n == 0 {
        return if stream == 0 && k <= 1 {
            Ok(())
        } else {
            Err((format!("no weights, but {stream} bytes of codes"), 0))
        };
    }
    // One block fewer: the last code straddles the last border, so up to 31 bits of it follow the border, ending on a byte.
    // One more: nothing but the end of data can start there.
    let straddles = blocks > 0 && k + 1 == blocks && stream as usize - k * BLOCK_BYTES <= 3;
    if k != blocks && !straddles && !(k == blocks + 1 && get(blocks) == n) {
        return Err((format!("has {} positions for {blocks} blocks of codes", k + 1), k));
    }
    let (shortest, longest) = (codes.shortest() as u64, codes.longest() as u64);
    if shortest == 0 {
        return Err((format!("{n} weights, but no exponent has a code"), k));
    }
    if let Some(i) = (0..k).find(|&i| get(i) > get(i + 1)) {
        return Err((format!("position {} is {}, less than {} before it", i + 1, get(i + 1), get(i)), i + 1));
    }
    // The block in which the last weight starts; those after it must be empty.
    let last = (0..k).rfind(|&i| get(i) < n).unwrap_or(0);
    for i in 0..k {
        let (from, to) = (get(i), get(i + 1));
        // Codes that start in a whole block: the first at most `longest` − 1 bits in, the last anywhere.
        let (bits, least, most) = if i < last {
            let bits = BLOCK_BITS as u64;
            (bits, (bits - (longest - 1)).div_ceil(longest), (bits - 1) / shortest + 1)
        } else if i == last {
            // They end in the last byte, of which up to 7 bits are filled with the start of the end-of-data code. Where
            // there are more blocks, the last code reaches into the next, by 31 bits at most.
            let bits = 8 * stream - (i * BLOCK_BITS) as u64;
            if bits > BLOCK_BITS as u64 + 32 {
                let reason = format!(
                    "the last weight is in block {i}, but {} bytes of codes follow that block",
                    bits / 8 - 4096
                );
                return Err((reason, i + 1));
            }
            let starts = bits.min(BLOCK_BITS as u64);
            (
                bits,
                bits.saturating_sub(longest - 1 + 7).div_ceil(longest),
                (bits / shortest).min((starts - 1) / shortest + 1),
            )
        } else {
            (0, 0, 0)
        };
        if !(least..=most).contains(&(to - from)) {
            let reason = format!(
                "block {i} has {} weights in {bits} bits, where codes of {shortest} to {longest} bits allow {least} to {most}",
                to - from
            );
            return Err((reason, i + 1));
        }
    }
    Ok(())
}
