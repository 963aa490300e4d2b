//! AVX-512: 32 weights in a register.

use super::portable::Portable;
use super::{Cursor, Kernel, Simd, Sums, kernel};
use crate::matrix::layout::BLOCK;
use std::arch::x86_64::*;

/// With BF16 if the parameter is set: `vdpbf16ps` then makes the steps of pairs.
pub(super) struct Avx512<const BF16: bool>;

kernel!(KERNEL, Avx512<false>, "avx2,fma,avx512f,avx512bw,avx512vbmi2");
kernel!(KERNEL_BF16, Avx512<true>, "avx2,fma,avx512f,avx512bw,avx512vbmi2,avx512bf16");

/// For each code the bits of its exponent that go with the sign (the upper seven), and those that go with the mantissa.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    upper: __m512i,
    lowest: __m512i,
}

/// Joins 64 codes with sign/mantissa bytes to weights.
#[inline(always)]
unsafe fn block(cursor: &mut Cursor, sm: *const u8, codes: __m512i, table: &Codes) -> [__m512i; 2] {
    // SAFETY: 64 sign/mantissa bytes can be read, and the processor has AVX-512 F, BW and VBMI2.
    unsafe {
        let mut upper = _mm512_shuffle_epi8(table.upper, codes);
        let mut lowest = _mm512_shuffle_epi8(table.lowest, codes);
        let escape = _mm512_cmpeq_epi8_mask(codes, _mm512_set1_epi8(15));
        if escape != 0 {
            let mut stored = _mm512_loadu_si512(cursor.escape.cast());
            let left = cursor.end.offset_from(cursor.escape) as usize;
            let count = escape.count_ones() as usize;
            if count > left {
                // The codes promise more than there are.
                stored = _mm512_maskz_mov_epi8((1 << left) - 1, stored);
            }
            cursor.escape = cursor.escape.add(count.min(left));
            let exponents = _mm512_maskz_expand_epi8(escape, stored);
            // Shifts by 16 bits move bits to the other byte of a pair, but only to where others replace them.
            upper = _mm512_mask_mov_epi8(upper, escape, _mm512_srli_epi16::<1>(exponents));
            lowest = _mm512_mask_mov_epi8(lowest, escape, _mm512_slli_epi16::<7>(exponents));
        }
        let sm = _mm512_loadu_si512(sm.cast());
        let top = _mm512_set1_epi8(-128);
        // top ? sm : upper, and top ? lowest : sm.
        let high = _mm512_ternarylogic_epi64::<0xca>(top, sm, upper);
        let low = _mm512_ternarylogic_epi64::<0xca>(top, lowest, sm);
        [_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)]
    }
}

/// Returns 32 bf16 as two times 16 f32.
#[inline(always)]
unsafe fn floats(bits: __m512i) -> [__m512; 2] {
    // SAFETY: the processor has AVX-512 F.
    unsafe {
        [_mm512_castsi512_si256(bits), _mm512_extracti64x4_epi64::<1>(bits)]
            .map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))))
    }
}

// SAFETY: the kernels' functions are compiled for what they use, and are called where the processor has it.
unsafe impl<const BF16: bool> Simd for Avx512<BF16> {
    type Codes = Codes;
    type Block = [__m512i; 2];
    type Acc = [__m512; 2];

    #[inline(always)]
    unsafe fn codes(exponents: &[u8; 16]) -> Codes {
        // SAFETY: arrays of 16 bytes are read, and the processor has AVX-512 F.
        let broadcast = |table: [u8; 16]| unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())) };
        Codes { upper: broadcast(exponents.map(|e| e >> 1)), lowest: broadcast(exponents.map(|e| e << 7)) }
    }
    #[inline(always)]
    unsafe fn unit(cursor: &mut Cursor, codes: &Codes) -> [[__m512i; 2]; 2] {
        // SAFETY: 192 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            let mask = _mm512_set1_epi8(15);
            let packed = _mm512_loadu_si512(unit.add(2 * BLOCK).cast());
            let first = block(cursor, unit, _mm512_and_si512(packed, mask), codes);
            let second = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
            [first, block(cursor, unit.add(BLOCK), second, codes)]
        }
    }
    #[inline(always)]
    unsafe fn half(cursor: &mut Cursor, codes: &Codes) -> [__m512i; 2] {
        // SAFETY: 96 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            let packed = _mm256_loadu_si256(unit.add(BLOCK).cast());
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(packed), _mm256_srli_epi16::<4>(packed));
            block(cursor, unit, _mm512_and_si512(both, _mm512_set1_epi8(15)), codes)
        }
    }
    #[inline(always)]
    unsafe fn load_block(from: *const u16) -> [__m512i; 2] {
        // SAFETY: 64 weights can be read.
        unsafe { [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> [__m512i; 2] {
        // SAFETY: 32 weights can be read.
        unsafe { [_mm512_loadu_si512(from.cast()); 2] }
    }
    #[inline(always)]
    unsafe fn store_block(block: [__m512i; 2], to: *mut u16) {
        // SAFETY: 64 weights can be written.
        unsafe {
            _mm512_storeu_si512(to.cast(), block[0]);
            _mm512_storeu_si512(to.add(32).cast(), block[1]);
        }
    }
    #[inline(always)]
    unsafe fn load(sums: &Sums) -> [__m512; 2] {
        // SAFETY: there are 32 sums.
        unsafe { [_mm512_loadu_ps(sums.0.as_ptr()), _mm512_loadu_ps(sums.0.as_ptr().add(16))] }
    }
    #[inline(always)]
    unsafe fn store(acc: [__m512; 2], sums: &mut Sums) {
        // SAFETY: there are 32 sums.
        unsafe {
            _mm512_storeu_ps(sums.0.as_mut_ptr(), acc[0]);
            _mm512_storeu_ps(sums.0.as_mut_ptr().add(16), acc[1]);
        }
    }
    #[inline(always)]
    unsafe fn lanes_f32(mut acc: [__m512; 2], block: [__m512i; 2], half: usize, x: *const f32) -> [__m512; 2] {
        // SAFETY: 32 elements can be read.
        unsafe {
            let w = floats(block[half]);
            for i in 0..2 {
                acc[i] = _mm512_fmadd_ps(w[i], _mm512_loadu_ps(x.add(16 * i)), acc[i]);
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn lanes_bf16(mut acc: [__m512; 2], block: [__m512i; 2], half: usize, x: *const u16) -> [__m512; 2] {
        // SAFETY: 32 elements can be read.
        unsafe {
            let (w, x) = (floats(block[half]), floats(_mm512_loadu_si512(x.cast())));
            for i in 0..2 {
                acc[i] = _mm512_fmadd_ps(w[i], x[i], acc[i]);
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn pairs(acc: [__m512; 2], block: [__m512i; 2], x: *const u16) -> [__m512; 2] {
        // SAFETY: 64 elements can be read, and the processor has BF16 if the parameter says so.
        unsafe {
            if BF16 {
                let x = Self::load_block(x);
                return std::array::from_fn(|i| {
                    _mm512_dpbf16_ps(acc[i], std::mem::transmute(block[i]), std::mem::transmute(x[i]))
                });
            }
            let (mut sums, mut weights) = (Sums::ZERO, [0; BLOCK]);
            Self::store(acc, &mut sums);
            Self::store_block(block, weights.as_mut_ptr());
            Self::load(&Portable::pairs(sums, weights, x))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: any address may be prefetched; it is not accessed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
}
