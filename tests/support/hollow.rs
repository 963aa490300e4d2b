//! DF11 files of large groups that are mostly holes: they take no room on a disk that knows holes. Holes read as zeros, and in the
//! code tables used here zeros are the first code word.

#![allow(dead_code)] // each test takes the part that it needs

use super::encoder::{self, Codes, Encoded};
use super::files;
use super::sparse::Dense;
use super::weights::{self, Random};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bits of code words in a block.
const BLOCK_BITS: u64 = 32_768;
const GAP_BYTES_PER_BLOCK: u64 = 320;

/// The bytes of a member that are written. The rest of it is a hole.
type Pieces<'a> = &'a [(u64, &'a [u8])];

/// Writes a file with one group of these members (name, dtype, bytes, and what is written of them). Returns the file, and where in it
/// each member begins.
fn write_members(path: &Path, name: &str, members: [(&str, &str, u64, Pieces); 6]) -> (File, [u64; 6]) {
    let (mut entries, mut starts, mut end) = (Vec::new(), [0; 6], 0);
    for ((member, dtype, bytes, _), start) in members.into_iter().zip(&mut starts) {
        let shape = match dtype {
            "I64" => (bytes / 8).to_string(),
            _ if member == "luts" => format!("{},256", bytes / 256),
            _ => bytes.to_string(),
        };
        let offsets = format!("{end},{}", end + bytes);
        entries
            .push(format!(r#""{name}.{member}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}"#));
        *start = end;
        end += bytes;
    }
    let header = format!("{{{}}}", entries.join(","));
    let start = 8 + header.len() as u64;
    let file = File::create(path).unwrap();
    file.write_all_at(&files::raw(&header, &[]), 0).unwrap();
    file.set_len(start + end).unwrap();
    starts.iter_mut().for_each(|at| *at += start);
    for ((.., pieces), start) in members.into_iter().zip(starts) {
        pieces.iter().for_each(|(at, bytes)| file.write_all_at(bytes, start + at).unwrap());
    }
    (file, starts)
}

/// Writes a file with a group of `weights` weights whose codes are all zero bits, `bits` each. Only the header, the rows and the
/// positions are written; the rest are holes. Returns the file, and where in it the codes and the signs begin.
pub fn write_hollow(path: &Path, name: &str, codes: &Codes, bits: u64, weights: u64) -> (File, u64, u64) {
    let code_bytes = (weights * bits).div_ceil(8);
    let blocks = code_bytes.div_ceil(4096);
    assert!(
        BLOCK_BITS.is_multiple_of(bits) && (weights * bits).is_multiple_of(8),
        "codes end where blocks and the stream do"
    );
    let luts = encoder::luts(codes);
    let positions: Vec<u8> = (0..blocks)
        .map(|block| block * BLOCK_BITS / bits)
        .chain([weights])
        // More than 32 bits can count is refused for that, before the positions are read.
        .flat_map(|position| u32::try_from(position).unwrap_or(u32::MAX).to_le_bytes())
        .collect();
    let members: [(&str, &str, u64, Pieces); 6] = [
        ("split_positions", "I64", 0, &[]),
        ("luts", "U8", luts.len() as u64, &[(0, &luts)]),
        ("output_positions", "U8", positions.len() as u64, &[(0, &positions)]),
        ("encoded_exponent", "U8", code_bytes, &[]),
        ("gaps", "U8", blocks * GAP_BYTES_PER_BLOCK, &[]),
        ("sign_mantissa", "U8", weights, &[]),
    ];
    let (file, starts) = write_members(path, name, members);
    (file, starts[3], starts[5])
}

/// What long groups have at both ends: weights as they are in trained layers, with their own code. Between them all weights have the
/// exponent whose code word is zeros, and sign and mantissa are 0.
struct Ends {
    codes: Codes,
    /// Bits of the code word of zeros.
    bits: u64,
    /// Whole blocks.
    first: Vec<u16>,
    /// As many of them as are needed are the end.
    last: Vec<u16>,
}

impl Ends {
    const FIRST: usize = 40_000;
    const LAST: usize = 40_000;

    fn new() -> Ends {
        let sample = weights::trained_like(Ends::FIRST + Ends::LAST + BLOCK_BITS as usize, 405);
        let table = encoder::code_table(&encoder::histogram(&sample));
        let lengths: Vec<(u8, u32)> = table.iter().map(|(symbol, word)| (symbol, word.len)).collect();
        let codes = encoder::canonical(&lengths, table.end.len);
        let (zero, word) = codes.iter().find(|(_, word)| word.bits == 0).unwrap();
        let bits = u64::from(word.len);
        assert!(BLOCK_BITS.is_multiple_of(bits), "the most frequent exponent has {bits} bits");
        let length = |w: u16| u64::from(codes.words[encoder::exponent(w) as usize].unwrap().len);
        // Fill the last block.
        let mut first = sample[..Ends::FIRST].to_vec();
        let mut sum: u64 = first.iter().map(|&w| length(w)).sum();
        while !sum.is_multiple_of(bits) {
            let more = *sample.iter().find(|&&w| !length(w).is_multiple_of(bits)).unwrap();
            first.push(more);
            sum += length(more);
        }
        let rest = (BLOCK_BITS - sum % BLOCK_BITS) % BLOCK_BITS / bits;
        first.extend((0..rest).map(|_| u16::from(zero) << 7));
        Ends { codes, bits, first, last: sample[Ends::FIRST..].to_vec() }
    }

    /// Writes a group of `count` weights, cut into tensors at `splits`. The signs and mantissas at both ends depend on the seed.
    fn write(&self, path: &Path, name: &str, count: u64, splits: &[u64], seed: u64) {
        let in_block = BLOCK_BITS / self.bits;
        let first = self.first.len() as u64;
        let last = Ends::LAST as u64 + (count - first - Ends::LAST as u64) % in_block;
        let mut random = Random::new(seed);
        let mut encode = |weights: &[u16]| {
            let signed: Vec<u16> = weights.iter().map(|&w| w & 0x7f80 | random.bits() as u16 & 0x807f).collect();
            encoder::encode_with_codes(&signed, &[], &self.codes)
        };
        let (begin, end): (Encoded, Encoded) = (encode(&self.first), encode(&self.last[..last as usize]));
        let blocks_before = begin.encoded_exponent.len() as u64 / 4096;
        let blocks = blocks_before + (count - first - last) / in_block;
        let code_bytes = blocks * 4096 + end.encoded_exponent.len() as u64;
        let mut positions = begin.output_positions;
        positions.truncate(positions.len() - 4);
        let between = (0..blocks - blocks_before).map(|block| first + block * in_block);
        let after = files::positions(&end.output_positions).into_iter().map(|p| u64::from(p) + count - last);
        positions.extend(between.chain(after).flat_map(|position| (position as u32).to_le_bytes()));
        let splits: Vec<u8> = splits.iter().flat_map(|split| split.to_le_bytes()).collect();
        let gap_bytes = code_bytes.div_ceil(4096) * GAP_BYTES_PER_BLOCK;
        let (luts, position_bytes) = (encoder::luts(&self.codes), positions.len() as u64);
        let members: [(&str, &str, u64, Pieces); 6] = [
            ("split_positions", "I64", splits.len() as u64, &[(0, &splits)]),
            ("luts", "U8", luts.len() as u64, &[(0, &luts)]),
            ("output_positions", "U8", position_bytes, &[(0, &positions)]),
            (
                "encoded_exponent",
                "U8",
                code_bytes,
                &[(0, &begin.encoded_exponent), (blocks * 4096, &end.encoded_exponent)],
            ),
            ("gaps", "U8", gap_bytes, &[(0, &begin.gaps), (blocks * GAP_BYTES_PER_BLOCK, &end.gaps)]),
            ("sign_mantissa", "U8", count, &[(0, &begin.sign_mantissa), (count - last, &end.sign_mantissa)]),
        ];
        write_members(path, name, members);
    }
}

/// Writes the groups of a model as compressed: of each the beginning and the end, and holes between them. Norms are left out.
pub fn write_model(folder: &Path, model: &Dense) {
    let ends = Ends::new();
    let tensors = model.tensors();
    let count = |name: &str| -> u64 { tensors.iter().find(|t| t.name == name).unwrap().shape.iter().product() };
    let mut seed = 0;
    let mut write = |name: &str, counts: &[u64]| {
        let sums: Vec<u64> = counts
            .iter()
            .scan(0, |sum, n| {
                Some(*{
                    *sum += n;
                    sum
                })
            })
            .collect();
        let (all, splits) = sums.split_last().unwrap();
        seed += 1;
        ends.write(&folder.join(format!("{}.safetensors", name.replace('.', "_"))), name, *all, splits, seed);
    };
    let inside = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    for name in ["lm_head", "model.embed_tokens"] {
        write(name, &[count(&format!("{name}.weight"))]);
    }
    for layer in 0..model.layers {
        let name = format!("model.layers.{layer}");
        write(&name, &inside.map(|tensor| count(&format!("{name}.{tensor}.weight"))));
    }
    let patterns = serde_json::json!({ "lm_head": [], "model\\.embed_tokens": [], "model\\.layers\\.\\d+": inside });
    std::fs::write(folder.join("config.json"), files::config("0.5.0", &patterns.to_string())).unwrap();
}
