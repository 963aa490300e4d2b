//! Compares a group in a file with the weights that it was made from, by the file's own tables.
//!
//! A group is checked in as many shares as it was encoded in stretches. Each share decodes its stretch from the file and
//! compares the weights, bit for bit. The decoder reads few gaps and positions, though, and a GPU's reads all: so each share
//! also walks its part of the blocks, by which every gap and every position is compared.

use crate::error::{Error, Result, grow};
use crate::format::{Member, Model};
use crate::host::{BlockWalk, DecodeOptions, blocks_of};

/// One share of a check.
pub(super) struct Share<'a> {
    /// Its number, and how many there are.
    pub number: usize,
    pub of: usize,
    /// The weights of its stretch, and the number of the first.
    pub weights: &'a [u16],
    pub first: u64,
}

/// Checks a share of the only group of a model; `decoded` is a thread's memory.
///
/// # Errors
///
/// `Corrupt`, naming the member and the byte; `Io`.
pub(super) fn share(model: &Model, share: &Share, decoded: &mut Vec<u16>) -> Result<()> {
    let group = model.group(0).ok_or_else(|| Error::Internal("a file without its group".into()))?;
    let Share { weights, first, .. } = *share;
    grow(decoded, weights.len(), 0, "the weights of a stretch")?;
    let decoded = &mut decoded[..weights.len()];
    // SAFETY: the buffer has room for all of them.
    unsafe {
        let options = DecodeOptions::default();
        group.decompress_raw(first, weights.len() as u64, decoded.as_mut_ptr(), &options)?;
    }
    if decoded != weights {
        let i = decoded.iter().zip(weights).position(|(a, b)| a != b).unwrap_or_default();
        let reason = format!(
            "verification failed: weight {} is {:#06x}, and was {:#06x}",
            first + i as u64,
            decoded[i],
            weights[i]
        );
        return Err(Error::corrupt(group.place(Member::SignMantissa, first + i as u64), reason));
    }
    let blocks = blocks_of(group);
    let border = |number: usize| (blocks as u64 * number as u64 / share.of as u64) as usize;
    let (from, to) = (border(share.number), border(share.number + 1));
    if from < to { BlockWalk::new(group).range(from, to) } else { Ok(()) }
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
        let (of, mut decoded) = (weights.len().div_ceil(length), Vec::new());
        for (number, part) in weights.reinterpret_cast().chunks(length).enumerate() {
            let first = (number * length) as u64;
            share(&model, &Share { number, of, weights: part, first }, &mut decoded)?;
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
        // After the last code's chunk gaps mean nothing, nor do slots of the rows that no code reaches.
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
