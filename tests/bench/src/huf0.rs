//! The peer to beat: huf0, zstd's Huffman coder, on the exponents.
//!
//! It is the strongest of the CPU decoders that can do DF11's work. Exponents and sign/mantissa bytes lie in two planes;
//! exponents are coded in blocks of 128 KiB (the most that it takes), four streams each, a table in front of every
//! block, as zstd stores literals. A decode reads table and streams into a buffer that stays in the second-level cache
//! and merges it with the other plane, streaming past the caches for large outputs as libdf11 does.
//!
//! `HUF_*` are inner functions of zstd, not declared by zstd-sys but present in the static library that it builds. The
//! declarations below are those of zstd 1.5.7, and [`Huf0::new`] refuses another version.

use crate::contest::{Contestant, cut};
use crate::merge::Merge;
use std::ffi::{c_int, c_uint, c_void};

/// The most bytes that one call compresses (`HUF_BLOCKSIZE_MAX`).
const BLOCK: usize = 128 << 10;
/// The default depth of its tables (`HUF_TABLELOG_DEFAULT`), which zstd uses too.
const TABLE_LOG: c_uint = 11;
/// The depth for which zstd makes room in its decoding table (`ZSTD_HUFFDTABLE_CAPACITY_LOG`).
const CAPACITY_LOG: usize = 12;
/// `HUF_WORKSPACE_SIZE`, in words of 8 bytes.
const COMPRESS_WORKSPACE: usize = ((8 << 10) + 512) / 8;
/// `HUF_DECOMPRESS_WORKSPACE_SIZE`, in words of 4 bytes.
const DECOMPRESS_WORKSPACE: usize = ((2 << 10) + (1 << 9)) / 4;
/// `HUF_flags_bmi2`: the processor has BMI2.
const FLAG_BMI2: c_int = 1;

unsafe extern "C" {
    fn HUF_compress4X_repeat(
        dst: *mut c_void,
        dst_size: usize,
        src: *const c_void,
        src_size: usize,
        max_symbol: c_uint,
        table_log: c_uint,
        workspace: *mut c_void,
        workspace_size: usize,
        table: *mut usize,
        repeat: *mut c_int,
        flags: c_int,
    ) -> usize;
    fn HUF_readDTableX1_wksp(
        table: *mut u32,
        src: *const c_void,
        src_size: usize,
        workspace: *mut c_void,
        workspace_size: usize,
        flags: c_int,
    ) -> usize;
    fn HUF_readDTableX2_wksp(
        table: *mut u32,
        src: *const c_void,
        src_size: usize,
        workspace: *mut c_void,
        workspace_size: usize,
        flags: c_int,
    ) -> usize;
    fn HUF_decompress4X_usingDTable(
        dst: *mut c_void,
        dst_size: usize,
        src: *const c_void,
        src_size: usize,
        table: *const u32,
        flags: c_int,
    ) -> usize;
    fn HUF_isError(code: usize) -> c_uint;
}

fn flags() -> c_int {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        return FLAG_BMI2;
    }
    0
}

fn check(code: usize) -> Result<usize, String> {
    // SAFETY: takes a number.
    if unsafe { HUF_isError(code) } != 0 { Err(format!("HUF error {}", code.wrapping_neg())) } else { Ok(code) }
}

/// How a block of exponents is stored.
#[derive(Debug, Clone, Copy)]
enum Block {
    /// Compressed, from here to here.
    Coded(usize, usize),
    /// As they are, from here on: huf0 found nothing to gain.
    Raw(usize),
    /// One exponent only.
    Same(u8),
}

/// Weights as huf0 stores them.
pub struct Packed {
    blocks: Vec<Block>,
    bytes: Vec<u8>,
    sign_mantissa: Vec<u8>,
}

impl Packed {
    /// Splits and compresses.
    pub fn new(weights: &[u16]) -> Result<Packed, String> {
        let exponents: Vec<u8> = weights.iter().map(|&w| (w >> 7) as u8).collect();
        let sign_mantissa = weights.iter().map(|&w| (w >> 8 & 0x80 | w & 0x7f) as u8).collect();
        let (mut blocks, mut bytes) = (Vec::new(), Vec::new());
        let mut out = vec![0u8; 2 * BLOCK];
        let mut workspace = [0u64; COMPRESS_WORKSPACE];
        for block in exponents.chunks(BLOCK) {
            let (mut table, mut repeat) = ([0usize; 257], 0);
            // SAFETY: all pointers come with their sizes; the table has room for symbols up to 255 (two words more than
            // the largest symbol), and the workspace has the size and alignment that the header asks for.
            let code = unsafe {
                HUF_compress4X_repeat(
                    out.as_mut_ptr().cast(),
                    out.len(),
                    block.as_ptr().cast(),
                    block.len(),
                    255,
                    TABLE_LOG,
                    workspace.as_mut_ptr().cast(),
                    size_of_val(&workspace),
                    table.as_mut_ptr(),
                    &mut repeat,
                    flags(),
                )
            };
            let from = bytes.len();
            blocks.push(match check(code)? {
                0 => {
                    bytes.extend_from_slice(block);
                    Block::Raw(from)
                }
                1 => Block::Same(block[0]),
                n => {
                    bytes.extend_from_slice(&out[..n]);
                    Block::Coded(from, from + n)
                }
            });
        }
        Ok(Packed { blocks, bytes, sign_mantissa })
    }

    /// Bytes of both planes and of three bytes per block for its size, as zstd has them.
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len() + self.sign_mantissa.len() + 3 * self.blocks.len()
    }
}

/// Which of huf0's decoders: one exponent per look-up, or up to two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// One.
    X1,
    /// Up to two.
    X2,
}

/// Memory of one thread.
struct Scratch {
    table: [u32; 1 + (1 << CAPACITY_LOG)],
    workspace: [u32; DECOMPRESS_WORKSPACE],
    exponents: Vec<u8>,
}

impl Scratch {
    fn new() -> Scratch {
        let mut table = [0; 1 + (1 << CAPACITY_LOG)];
        // The first word tells how large the table is, in its lowest and its highest byte.
        table[0] = CAPACITY_LOG as u32 * 0x0100_0001;
        Scratch { table, workspace: [0; DECOMPRESS_WORKSPACE], exponents: vec![0; BLOCK] }
    }
}

/// huf0 with a given decoder and number of threads.
pub struct Huf0<'a> {
    packed: &'a Packed,
    decoder: Decoder,
    merge: Merge,
    scratch: Vec<Scratch>,
}

impl<'a> Huf0<'a> {
    /// Ready to decode.
    pub fn new(packed: &'a Packed, decoder: Decoder, threads: usize) -> Result<Self, String> {
        // SAFETY: takes nothing.
        let version = unsafe { zstd_sys::ZSTD_versionNumber() };
        if version != 10507 {
            return Err(format!("the declarations in huf0.rs are for zstd 1.5.7, and this is {version}"));
        }
        let merge = Merge::best(packed.sign_mantissa.len());
        Ok(Huf0 { packed, decoder, merge, scratch: (0..threads).map(|_| Scratch::new()).collect() })
    }
}

impl Contestant for Huf0<'_> {
    fn name(&self) -> String {
        format!("huf0 {:?} + {} merge", self.decoder, self.merge.name())
    }

    fn threads(&self) -> usize {
        self.scratch.len()
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.packed.stored_bytes())
    }

    fn decode(&mut self, dst: &mut [u16]) -> Result<(), String> {
        assert_eq!(dst.len(), self.packed.sign_mantissa.len());
        let (packed, decoder, merge) = (self.packed, self.decoder, self.merge);
        if let [scratch] = &mut self.scratch[..] {
            return decode_blocks(packed, decoder, merge, scratch, 0..packed.blocks.len(), dst);
        }
        std::thread::scope(|scope| {
            let mut rest = dst;
            let mut handles = Vec::new();
            for (range, scratch) in cut(packed.blocks.len(), self.scratch.len()).zip(&mut self.scratch) {
                let (part, behind) = rest.split_at_mut(rest.len().min(range.len() * BLOCK));
                rest = behind;
                handles.push(scope.spawn(move || decode_blocks(packed, decoder, merge, scratch, range, part)));
            }
            handles.into_iter().try_for_each(|h| h.join().expect("the decoder does not panic"))
        })
    }
}

fn decode_blocks(
    packed: &Packed,
    decoder: Decoder,
    merge: Merge,
    scratch: &mut Scratch,
    range: std::ops::Range<usize>,
    dst: &mut [u16],
) -> Result<(), String> {
    let sign_mantissa = &packed.sign_mantissa[range.start * BLOCK..];
    let blocks = &packed.blocks[range];
    for ((block, part), sm) in blocks.iter().zip(dst.chunks_mut(BLOCK)).zip(sign_mantissa.chunks(BLOCK)) {
        let n = part.len();
        let exponents = match *block {
            Block::Coded(from, to) => {
                coded(decoder, scratch, &packed.bytes[from..to], n)?;
                &scratch.exponents[..n]
            }
            Block::Raw(from) => &packed.bytes[from..from + n],
            Block::Same(exponent) => {
                scratch.exponents[..n].fill(exponent);
                &scratch.exponents[..n]
            }
        };
        merge.run(part, exponents, &sm[..n]);
    }
    Merge::finish();
    Ok(())
}

/// Decodes one block to the scratch buffer.
fn coded(decoder: Decoder, scratch: &mut Scratch, src: &[u8], n: usize) -> Result<(), String> {
    let read = match decoder {
        Decoder::X1 => HUF_readDTableX1_wksp,
        Decoder::X2 => HUF_readDTableX2_wksp,
    };
    let flags = flags();
    // SAFETY: all pointers come with their sizes; the table's first word tells its own.
    let header = check(unsafe {
        read(
            scratch.table.as_mut_ptr(),
            src.as_ptr().cast(),
            src.len(),
            scratch.workspace.as_mut_ptr().cast(),
            size_of_val(&scratch.workspace),
            flags,
        )
    })?;
    let streams = &src[header..];
    let dst = &mut scratch.exponents[..n];
    // SAFETY: as above; the table was just read.
    let written = check(unsafe {
        HUF_decompress4X_usingDTable(
            dst.as_mut_ptr().cast(),
            n,
            streams.as_ptr().cast(),
            streams.len(),
            scratch.table.as_ptr(),
            flags,
        )
    })?;
    if written == n { Ok(()) } else { Err(format!("a block gave {written} exponents instead of {n}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights;

    #[test]
    fn all_kinds_of_blocks_come_back() {
        let mut all = weights::trained_like(3 * BLOCK / 2, 1);
        all.truncate(BLOCK);
        all.extend(weights::one_bit(BLOCK, 120, 2)); // one exponent
        all.extend(weights::uniform_exponents(BLOCK, 0..=255, 3)); // incompressible
        all.extend(weights::gaussian(1234, 0.02, 4)); // a short last block
        let packed = Packed::new(&all).unwrap();
        assert!(matches!(packed.blocks[..], [Block::Coded(..), Block::Same(120), Block::Raw(_), Block::Coded(..)]));
        for decoder in [Decoder::X1, Decoder::X2] {
            for threads in [1, 3] {
                let mut dst = vec![0; all.len()];
                Huf0::new(&packed, decoder, threads).unwrap().decode(&mut dst).unwrap();
                assert!(dst == all, "{decoder:?}, {threads} threads");
            }
        }
    }
}
