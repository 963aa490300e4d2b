//! Whether a stretch of a group that was just written is what it was made from, by the file's own tables.
//!
//! The weights are decoded from the file and compared, bit for bit. The decoder reads few gaps and positions, though, and
//! a GPU's reads all, so those are held against the places where the codes of the *original* weights begin, which are
//! counted afresh, backwards: then the last one to claim a chunk is the first that starts in it, and no branch is needed.

use crate::error::{Error, Result};
use crate::format::{Member, Model, position};
use crate::host::{self, DecodeOptions};
use crate::huffman::encode::exponent;
use crate::huffman::{BLOCK_BITS, CHUNKS_PER_BLOCK};

const CHUNK_BITS: u64 = 64;
/// A chunk or a block in which no weight of the stretch starts.
const NONE: u8 = 0xff;

/// A thread's memory.
#[derive(Default)]
pub(super) struct Scratch {
    decoded: Vec<u16>,
    gaps: Vec<u8>,
    packed: Vec<u8>,
    firsts: Vec<u32>,
}

/// Checks the weights from `first` on of the only group of `model`, whose codes begin at bit `start`.
///
/// # Errors
///
/// `Corrupt`, naming the member and the byte; `Io`.
pub(super) fn stretch(model: &Model, weights: &[u16], first: u64, start: u64, scratch: &mut Scratch) -> Result<()> {
    let group = &model.groups()[0];
    let corrupt = |member, byte: u64, reason: String| {
        Error::corrupt(group.place(model.sources(), member, byte), format!("verification failed: {reason}"))
    };
    let Scratch { decoded, gaps, packed, firsts } = scratch;
    if decoded.len() < weights.len() {
        decoded.resize(weights.len(), 0);
    }
    let decoded = &mut decoded[..weights.len()];
    // SAFETY: the buffer has room for all of them.
    unsafe {
        let options = DecodeOptions::default();
        host::decompress_raw(model, 0, first, weights.len() as u64, decoded.as_mut_ptr(), &options)?;
    }
    if decoded != weights {
        let i = decoded.iter().zip(weights).position(|(a, b)| a != b).unwrap_or_default();
        let reason = format!("weight {} is {:#06x}, and was {:#06x}", first + i as u64, decoded[i], weights[i]);
        return Err(corrupt(Member::SignMantissa, first + i as u64, reason));
    }

    // Where each weight's code starts, from the last one back.
    let lengths = group.code_lengths();
    let bits: u64 = weights.iter().map(|&w| lengths[exponent(w) as usize] as u64).sum();
    let origin = start / CHUNK_BITS;
    let chunks = ((start + bits) / CHUNK_BITS - origin + 1) as usize;
    gaps.clear();
    gaps.resize(chunks, NONE);
    firsts.clear();
    firsts.resize(chunks.div_ceil(CHUNKS_PER_BLOCK) + 1, u32::MAX);
    let (first_block, mut bit) = (start / BLOCK_BITS as u64, start + bits - origin * CHUNK_BITS);
    let in_block = (origin * CHUNK_BITS) % BLOCK_BITS as u64;
    for (i, &w) in weights.iter().enumerate().rev() {
        bit -= lengths[exponent(w) as usize] as u64;
        gaps[(bit / CHUNK_BITS) as usize] = (bit % CHUNK_BITS) as u8;
        firsts[((in_block + bit) / BLOCK_BITS as u64) as usize] = i as u32;
    }

    let all = group.member(Member::Gaps);
    let from = origin * 5 / 8;
    let to = ((origin + chunks as u64) * 5).div_ceil(8).min(all.len);
    let source = &model.sources()[all.file];
    let bytes = source.read_into(all.offset + from, to - from, packed)?;
    for (i, &gap) in gaps.iter().enumerate().filter(|&(_, &gap)| gap != NONE) {
        let at = (origin as usize + i) * 5 - from as usize * 8;
        let two = (bytes[at / 8] as usize) << 8 | bytes.get(at / 8 + 1).copied().unwrap_or(0) as usize;
        let recorded = (two >> (11 - at % 8) & 31) as u8;
        // The first chunk's first code may be the stretch's before.
        let of_neighbour = i == 0 && recorded < gap && (start % CHUNK_BITS) as u8 == gap;
        if recorded != gap && !of_neighbour {
            let chunk = origin + i as u64;
            let reason = format!("the gap of chunk {chunk} is {recorded}, and a code starts at bit {gap}");
            return Err(corrupt(Member::Gaps, chunk * 5 / 8, reason));
        }
    }
    let positions = group.positions(model.sources());
    for (i, &weight) in firsts.iter().enumerate().filter(|&(_, &weight)| weight != u32::MAX) {
        let block = first_block as usize + i;
        let recorded = position(positions, block);
        let found = first + weight as u64;
        let of_neighbour = i == 0 && weight == 0 && recorded < found;
        if recorded != found && !of_neighbour {
            let reason = format!("position {block} is {recorded}, and weight {found} is the first of its block");
            return Err(corrupt(Member::OutputPositions, 4 * block as u64, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FileLayout, LayoutTensor, MEMBERS};
    use crate::host::{EncodeOptions, Packed, compress};
    use half::bf16;
    use half::slice::HalfFloatSliceExt;
    use safetensors::Dtype;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// Weights with exponents of many lengths of code, always the same.
    fn weights(count: usize) -> Vec<bf16> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        };
        (0..count)
            .map(|_| {
                let exponent = 120 - (next() as u32 | 1 << 20).trailing_zeros() as u16;
                bf16::from_bits(exponent << 7 | next() as u16 & 0x807f)
            })
            .collect()
    }

    fn members(packed: &mut Packed) -> [&mut Vec<u8>; 6] {
        let Packed { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } = packed;
        [luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions]
    }

    fn write(path: &Path, packed: &mut Packed) {
        let parts = members(packed);
        let tensor = |(name, data): (&&str, &&mut Vec<u8>)| {
            let (bytes, len) = (data.len() as u64, data.len() as u64);
            let (dtype, shape) = match *name {
                "luts" => (Dtype::U8, vec![len / 256, 256]),
                "split_positions" => (Dtype::I64, vec![len / 8]),
                _ => (Dtype::U8, vec![len]),
            };
            LayoutTensor { name: format!("g.{name}"), dtype, shape, bytes }
        };
        let layout = FileLayout::new(MEMBERS.iter().zip(&parts).map(tensor).collect(), &BTreeMap::new()).unwrap();
        let mut file = layout.header().to_vec();
        for (tensor, _) in layout.tensors() {
            let i = MEMBERS.iter().position(|m| tensor.name.ends_with(m)).unwrap();
            file.extend_from_slice(parts[i]);
        }
        std::fs::write(path, file).unwrap();
    }

    /// Checks a whole group in stretches of such a length.
    fn check(path: &Path, weights: &[bf16], length: usize) -> Result<()> {
        let model = Model::open_group(path, "g")?;
        let lengths = model.groups()[0].code_lengths();
        let (mut first, mut start) = (0, 0);
        let mut scratch = Scratch::default();
        for part in weights.reinterpret_cast().chunks(length) {
            stretch(&model, part, first, start, &mut scratch)?;
            first += part.len() as u64;
            start += part.iter().map(|&w| lengths[exponent(w) as usize] as u64).sum::<u64>();
        }
        Ok(())
    }

    /// One damaged byte of any member is noticed, wherever it means something.
    #[test]
    fn every_kind_of_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let weights = weights(150_000);
        let mut packed = compress(&[&weights], &EncodeOptions::default()).unwrap();
        write(&path, &mut packed);
        for length in [150_000, 40_000, 777] {
            check(&path, &weights, length).unwrap();
        }
        // Behind the last code's chunk gaps mean nothing, nor do slots of the rows that no code reaches.
        let bytes = packed.encoded_exponent.len();
        for (member, places) in [
            (1, vec![0, 5000, bytes - 2]),
            (2, vec![0, 77_777, 149_999]),
            (3, vec![4, 8, 13]),
            (4, vec![0, 100, 319, 320, 645, bytes / 8 * 5 / 8 - 1]),
        ] {
            for place in places {
                let mut damaged = packed.clone();
                members(&mut damaged)[member][place] ^= 0x21;
                write(&path, &mut damaged);
                for length in [150_000, 4_000] {
                    let error = check(&path, &weights, length).expect_err(MEMBERS[member]);
                    assert_eq!(error.status(), crate::Status::Corrupt, "{}: byte {place}: {error}", MEMBERS[member]);
                }
            }
        }
    }
}
