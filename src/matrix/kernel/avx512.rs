//! AVX-512: 32 weights in a register.

use super::avx2::halved;
use super::{Cursor, Kernel, Simd, Sums, halves, kernel, portable};
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

/// Returns the same bits in the type of 32 bf16.
#[inline(always)]
unsafe fn of_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of any content.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

/// Returns the upper eight sums of 16.
#[inline(always)]
unsafe fn upper(sums: __m512) -> __m256 {
    // SAFETY: the processor has AVX-512 F.
    unsafe { _mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(_mm512_castps_si512(sums))) }
}

/// Adds the upper eight sums to the lower eight.
#[inline(always)]
unsafe fn folded(sums: __m512) -> __m256 {
    // SAFETY: the processor has AVX-512 F.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(sums), upper(sums)) }
}

/// Returns 16 of 32 bf16 as f32: those of even places.
#[inline(always)]
unsafe fn even(bits: __m512i) -> __m512 {
    // SAFETY: the processor has AVX-512 F.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)) }
}

/// Returns 16 of 32 bf16 as f32: those of odd places.
#[inline(always)]
unsafe fn odd(bits: __m512i) -> __m512 {
    // SAFETY: the processor has AVX-512 F.
    unsafe { _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// Returns 16 bf16 as f32, in their order.
#[inline(always)]
unsafe fn widened(bits: __m256i) -> __m512 {
    // SAFETY: the processor has AVX-512 F.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))) }
}

// SAFETY: the kernels' functions are compiled for what they use, and are called where the processor has it.
unsafe impl<const BF16: bool> Simd for Avx512<BF16> {
    type Codes = Codes;
    type Block = [__m512i; 2];
    type Acc = [__m512; 2];

    #[inline(always)]
    unsafe fn codes(exponents: &[u8; 16]) -> Codes {
        let (upper, lowest) = halves(exponents);
        // SAFETY: arrays of 16 bytes are read, and the processor has AVX-512 F.
        unsafe {
            Codes {
                upper: _mm512_broadcast_i32x4(_mm_loadu_si128(upper.as_ptr().cast())),
                lowest: _mm512_broadcast_i32x4(_mm_loadu_si128(lowest.as_ptr().cast())),
            }
        }
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
    unsafe fn load_parted(sums: &Sums) -> [__m512; 2] {
        let mut parted = Sums::ZERO;
        for (i, &sum) in sums.0.iter().enumerate() {
            parted.0[i % 2 * 16 + i / 2] = sum;
        }
        // SAFETY: the processor has AVX-512 F.
        unsafe { Self::load(&parted) }
    }
    #[inline(always)]
    unsafe fn store_parted(acc: [__m512; 2], sums: &mut Sums) {
        let mut parted = Sums::ZERO;
        // SAFETY: the processor has AVX-512 F.
        unsafe { Self::store(acc, &mut parted) };
        for (i, sum) in sums.0.iter_mut().enumerate() {
            *sum = parted.0[i % 2 * 16 + i / 2];
        }
    }
    #[inline(always)]
    unsafe fn total(acc: [__m512; 2], apart: bool) -> f64 {
        // SAFETY: the processor has AVX-512 F.
        unsafe {
            if apart {
                return halved(folded(acc[0])) as f64 + halved(folded(acc[1])) as f64;
            }
            halved(folded(_mm512_add_ps(acc[0], acc[1]))) as f64
        }
    }
    #[inline(always)]
    unsafe fn total_parted(acc: [__m512; 2], apart: bool) -> f64 {
        // The last two sums are that of even columns and that of odd ones.
        // SAFETY: the processor has AVX-512 F.
        unsafe {
            if apart {
                let low = halved(_mm512_castps512_ps256(acc[0])) + halved(_mm512_castps512_ps256(acc[1]));
                return low as f64 + (halved(upper(acc[0])) + halved(upper(acc[1]))) as f64;
            }
            (halved(folded(acc[0])) + halved(folded(acc[1]))) as f64
        }
    }
    #[inline(always)]
    unsafe fn stream_block(block: [__m512i; 2], to: *mut u16) {
        // SAFETY: 64 weights can be written, and the address is aligned.
        unsafe {
            _mm512_stream_si512(to.cast(), block[0]);
            _mm512_stream_si512(to.add(32).cast(), block[1]);
        }
    }
    #[inline(always)]
    unsafe fn lanes_f32(acc: [__m512; 2], block: [__m512i; 2], half: usize, x: *const f32) -> [__m512; 2] {
        // SAFETY: 32 elements can be read.
        unsafe {
            let w = block[half];
            let (low, high) = (_mm512_castsi512_si256(w), _mm512_extracti64x4_epi64::<1>(w));
            [
                _mm512_fmadd_ps(widened(low), _mm512_loadu_ps(x), acc[0]),
                _mm512_fmadd_ps(widened(high), _mm512_loadu_ps(x.add(16)), acc[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn lanes_bf16(acc: [__m512; 2], block: [__m512i; 2], half: usize, x: *const u16) -> [__m512; 2] {
        // SAFETY: 32 elements can be read.
        unsafe {
            let (w, x) = (block[half], _mm512_loadu_si512(x.cast()));
            [_mm512_fmadd_ps(even(w), even(x), acc[0]), _mm512_fmadd_ps(odd(w), odd(x), acc[1])]
        }
    }
    #[inline(always)]
    unsafe fn pairs(acc: [__m512; 2], block: [__m512i; 2], x: *const u16) -> [__m512; 2] {
        // SAFETY: 64 elements can be read, and the processor has BF16 if the parameter says so.
        unsafe {
            if BF16 {
                let x = Self::load_block(x);
                return [
                    _mm512_dpbf16_ps(acc[0], of_bf16(block[0]), of_bf16(x[0])),
                    _mm512_dpbf16_ps(acc[1], of_bf16(block[1]), of_bf16(x[1])),
                ];
            }
            portable::pairs_of::<Self>(acc, block, x)
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: any address may be prefetched; it is not accessed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
}
