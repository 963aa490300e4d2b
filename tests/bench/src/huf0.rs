//! The peer to beat: huf0, zstd's Huffman coder, on the exponents.
//!
//! It is the strongest of the CPU decoders that can do DF11's work. Exponents and sign/mantissa bytes lie in two planes;
//! exponents are coded in blocks of 128 KiB (the most that it takes), four streams each, a table in front of every
//! block, as zstd stores literals. A decode reads table and streams into a buffer that stays in the second-level cache
//! and merges it with the other plane, streaming past the caches for large outputs as libdf11 does. An encode splits a
//! block's exponents into such a buffer and codes them from there.
//!
//! `HUF_*` are inner functions of zstd, not declared by zstd-sys but present in the static library that it builds. The
//! declarations below are those of zstd 1.5.7; another version is refused.

use crate::contest::{Contestant, cut};
use crate::merge::Merge;
use crate::split::Split;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

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

/// Whether the declarations above are this zstd's.
fn check_version() -> Result<(), String> {
    // SAFETY: takes nothing.
    match unsafe { zstd_sys::ZSTD_versionNumber() } {
        10507 => Ok(()),
        version => Err(format!("the declarations in huf0.rs are for zstd 1.5.7, and this is {version}")),
    }
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

/// What a block of so many exponents may take (`HUF_COMPRESSBOUND`).
const fn bound(exponents: usize) -> usize {
    129 + exponents + (exponents >> 8) + 8
}

/// Weights as huf0 stores them.
pub struct Packed {
    blocks: Vec<Block>,
    /// One thread's blocks lie one behind the other.
    bytes: Vec<u8>,
    /// Bytes that are used.
    used: usize,
    sign_mantissa: Vec<u8>,
}

impl Packed {
    /// Splits and compresses.
    pub fn new(weights: &[u16]) -> Result<Packed, String> {
        let mut encoder = Encoder::new(weights, 1)?;
        encoder.work(&mut [])?;
        let mut packed = encoder.packed;
        packed.bytes.truncate(packed.used);
        packed.bytes.shrink_to_fit();
        Ok(packed)
    }

    /// Bytes of both planes and of three bytes per block for its size, as zstd has them.
    pub fn stored_bytes(&self) -> usize {
        self.used + self.sign_mantissa.len() + 3 * self.blocks.len()
    }
}

/// huf0's compressor with a number of threads, and memory for what it makes.
pub struct Encoder<'a> {
    weights: &'a [u16],
    split: Split,
    packed: Packed,
    /// For each thread the exponents of a block, which stay in the second-level cache.
    exponents: Vec<Vec<u8>>,
}

impl<'a> Encoder<'a> {
    /// Ready to compress.
    pub fn new(weights: &'a [u16], threads: usize) -> Result<Self, String> {
        check_version()?;
        let blocks = weights.len().div_ceil(BLOCK);
        let packed = Packed {
            blocks: vec![Block::Raw(0); blocks],
            bytes: vec![0x55; blocks * bound(BLOCK)],
            used: 0,
            sign_mantissa: vec![0x55; weights.len()],
        };
        Ok(Encoder { weights, split: Split::best(weights.len()), packed, exponents: vec![vec![0; BLOCK]; threads] })
    }
}

impl Contestant for Encoder<'_> {
    fn name(&self) -> String {
        format!("huf0 + {} split", self.split.name())
    }

    fn threads(&self) -> usize {
        self.exponents.len()
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.packed.stored_bytes())
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        let (split, threads) = (self.split, self.exponents.len());
        let (mut weights, mut blocks) = (self.weights, &mut self.packed.blocks[..]);
        let (mut bytes, mut sign_mantissa) = (&mut self.packed.bytes[..], &mut self.packed.sign_mantissa[..]);
        let mut at = 0;
        let mut works = Vec::new();
        for (range, exponents) in cut(blocks.len(), threads).zip(&mut self.exponents) {
            let n = weights.len().min(range.len() * BLOCK);
            let room = range.len() * bound(BLOCK);
            let (src, kinds, dst, signs);
            (src, weights) = weights.split_at(n);
            (kinds, blocks) = blocks.split_at_mut(range.len());
            (dst, bytes) = bytes.split_at_mut(room);
            (signs, sign_mantissa) = sign_mantissa.split_at_mut(n);
            works.push(move || encode_blocks(src, split, exponents, kinds, dst, at, signs));
            at += room;
        }
        self.packed.used = if threads == 1 {
            works.remove(0)()?
        } else {
            std::thread::scope(|scope| {
                let handles: Vec<_> = works.into_iter().map(|work| scope.spawn(work)).collect();
                handles.into_iter().map(|h| h.join().expect("the encoder does not panic")).sum::<Result<_, _>>()
            })?
        };
        Ok(())
    }

    fn answer(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let (packed, merge) = (&self.packed, Merge::best(dst.len()));
        decode_blocks(packed, Decoder::X2, merge, &mut Scratch::new(), 0..packed.blocks.len(), dst)
    }
}

/// Splits and compresses whole blocks to `dst`, which lies at byte `at` of all. Returns how many bytes they took.
fn encode_blocks(
    weights: &[u16],
    split: Split,
    exponents: &mut [u8],
    blocks: &mut [Block],
    dst: &mut [u8],
    at: usize,
    sign_mantissa: &mut [u8],
) -> Result<usize, String> {
    let mut workspace = [0u64; COMPRESS_WORKSPACE];
    let mut used = 0;
    for ((part, signs), block) in weights.chunks(BLOCK).zip(sign_mantissa.chunks_mut(BLOCK)).zip(blocks) {
        let exponents = &mut exponents[..part.len()];
        split.run(part, exponents, signs);
        let room = &mut dst[used..];
        let (mut table, mut repeat) = ([0usize; 257], 0);
        // SAFETY: all pointers come with their sizes; the table has room for symbols up to 255 (two words more than
        // the largest symbol), and the workspace has the size and alignment that the header asks for.
        let code = unsafe {
            HUF_compress4X_repeat(
                room.as_mut_ptr().cast(),
                room.len(),
                exponents.as_ptr().cast(),
                exponents.len(),
                255,
                TABLE_LOG,
                workspace.as_mut_ptr().cast(),
                size_of_val(&workspace),
                table.as_mut_ptr(),
                &mut repeat,
                flags(),
            )
        };
        let from = at + used;
        *block = match check(code)? {
            0 => {
                room[..exponents.len()].copy_from_slice(exponents);
                used += exponents.len();
                Block::Raw(from)
            }
            1 => Block::Same(exponents[0]),
            n => {
                used += n;
                Block::Coded(from, from + n)
            }
        };
    }
    Merge::finish();
    Ok(used)
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
pub struct Huf0 {
    packed: Arc<Packed>,
    decoder: Decoder,
    merge: Merge,
    scratch: Vec<Scratch>,
}

impl Huf0 {
    /// Ready to decode.
    pub fn new(packed: Arc<Packed>, decoder: Decoder, threads: usize) -> Result<Self, String> {
        check_version()?;
        let merge = Merge::best(packed.sign_mantissa.len());
        Ok(Huf0 { packed, decoder, merge, scratch: (0..threads).map(|_| Scratch::new()).collect() })
    }
}

impl Contestant for Huf0 {
    fn name(&self) -> String {
        format!("huf0 {:?} + {} merge", self.decoder, self.merge.name())
    }

    fn threads(&self) -> usize {
        self.scratch.len()
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.packed.stored_bytes())
    }

    fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
        assert_eq!(dst.len(), self.packed.sign_mantissa.len());
        let (packed, decoder, merge) = (&*self.packed, self.decoder, self.merge);
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
        let packed = Arc::new(Packed::new(&all).unwrap());
        assert!(matches!(packed.blocks[..], [Block::Coded(..), Block::Same(120), Block::Raw(_), Block::Coded(..)]));
        for threads in [1, 3] {
            let mut encoder = Encoder::new(&all, threads).unwrap();
            let mut dst = vec![0; all.len()];
            encoder.work(&mut dst).unwrap();
            encoder.answer(&mut dst).unwrap();
            assert!(dst == all && encoder.stored_bytes() == Some(packed.stored_bytes()), "{threads} threads");
        }
        for decoder in [Decoder::X1, Decoder::X2] {
            for threads in [1, 3] {
                let mut dst = vec![0; all.len()];
                Huf0::new(packed.clone(), decoder, threads).unwrap().work(&mut dst).unwrap();
                assert!(dst == all, "{decoder:?}, {threads} threads");
            }
        }
    }
}
