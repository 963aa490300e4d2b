//! Decoding and products, for each instruction set.
//!
//! [`Simd`] is what differs: registers, and the few steps on them. Everything else is written once, here, and compiled for each
//! instruction set: [`Kernel`] has the functions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use super::layout::{BLOCK, HALF_UNIT_BYTES, UNIT, UNIT_BYTES};

/// A way to decode and multiply. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// No intrinsics: any processor.
    Portable,
    /// AVX2 and FMA (Intel since 2013, AMD since 2015).
    Avx2,
    /// AVX-512 F, BW and VBMI2 (Intel since Ice Lake, AMD since Zen 4).
    Avx512,
    /// The same with BF16 (Intel since Sapphire Rapids, AMD since Zen 4).
    Avx512Bf16,
    /// NEON (every AArch64 processor).
    Neon,
}

impl Variant {
    /// Every variant of every architecture, slowest first.
    pub const ALL: [Variant; 5] =
        [Variant::Portable, Variant::Avx2, Variant::Avx512, Variant::Avx512Bf16, Variant::Neon];

    /// Returns whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Variant::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 => {
                Variant::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vbmi2")
            }
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512Bf16 => Variant::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "aarch64")]
            Variant::Neon => true,
            _ => false,
        }
    }

    /// Returns the fastest one that this processor can run.
    pub fn best() -> Variant {
        Self::ALL.into_iter().rev().find(|v| v.is_available()).unwrap_or(Variant::Portable)
    }

    /// Returns its name in lower case, as tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Portable => "portable",
            Variant::Avx2 => "avx2",
            Variant::Avx512 => "avx512",
            Variant::Avx512Bf16 => "avx512bf16",
            Variant::Neon => "neon",
        }
    }

    /// Returns the functions.
    ///
    /// # Panics
    ///
    /// If this processor lacks the variant.
    pub(super) fn kernel(self) -> &'static Kernel {
        assert!(self.is_available(), "this processor cannot run the {} variant", self.name());
        match self {
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 => &avx2::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 => &avx512::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512Bf16 => &avx512::KERNEL_BF16,
            #[cfg(target_arch = "aarch64")]
            Variant::Neon => &neon::KERNEL,
            _ => &portable::KERNEL,
        }
    }
}

/// Adds up sums: the second half to the first, until one is left.
fn halved<const N: usize>(mut sums: [f32; N]) -> f32 {
    let mut n = N;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            sums[i] += sums[i + n];
        }
    }
    sums[0]
}

/// The sums of one row and one vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums(pub [f32; 32]);

impl Sums {
    pub const ZERO: Sums = Sums([0.0; 32]);

    /// Adds up all of them, or the first 16 and the others apart, and then both in f64.
    pub fn total(&self, apart: bool) -> f64 {
        let Sums(sums) = *self;
        if !apart {
            return halved(sums) as f64;
        }
        let (low, high) = (std::array::from_fn(|i| sums[i]), std::array::from_fn(|i| sums[16 + i]));
        halved::<16>(low) as f64 + halved::<16>(high) as f64
    }
}

/// The place up to which a row has been decoded. All units before the last one are whole.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    /// The next unit.
    pub unit: *const u8,
    /// The next escaped exponent.
    pub escape: *const u8,
    /// The end of the row's escaped exponents. At least 64 bytes can be read here.
    pub end: *const u8,
}

/// The most vectors that are multiplied with at once.
pub(super) const MOST_VECTORS: usize = 4;

/// The type of [`dot`].
pub(super) type Dot = unsafe fn(&mut Cursor, usize, &[u8; 16], *const u8, bool, Option<&mut Sums>) -> f64;
/// The type of [`decode`].
pub(super) type Decode = unsafe fn(&mut Cursor, usize, bool, &[u8; 16], *mut u16);

/// How products are summed up while a row is gone through.
pub(super) struct Steps {
    /// Decodes whole units and multiplies each with x, from sums of zero on.
    pub dot: Dot,
    /// Multiplies decoded weights with up to [`MOST_VECTORS`] vectors, in steps of 32 or 64 weights.
    pub add: unsafe fn(*const u16, usize, &[*const u8], &mut [Sums]),
    /// Weights of a step of `add`.
    pub step: usize,
}

/// The functions of a variant. `unsafe`, because they take pointers and need a processor.
pub(super) struct Kernel {
    /// Decodes whole units, and the half one at the end if the flag is set.
    pub decode: Decode,
    /// The same, past the caches: the destination is aligned to 64 bytes.
    pub stream: Decode,
    /// Fused multiply-adds with x of f32.
    pub lanes_f32: Steps,
    /// Fused multiply-adds with x of bf16.
    pub lanes_bf16: Steps,
    /// The steps of `vdpbf16ps`, with x of bf16.
    pub pairs: Steps,
}

/// The registers of an instruction set, and the steps on them.
///
/// # Safety
///
/// Every function needs the processor; pointers must be valid for what each one says.
pub(super) unsafe trait Simd: Sized {
    /// The table of exponents.
    type Codes: Copy;
    /// The bits of 64 weights in their order.
    type Block: Copy;
    /// 32 sums.
    type Acc: Copy;

    unsafe fn codes(exponents: &[u8; 16]) -> Self::Codes;
    /// Decodes the unit at the cursor, and moves only its escapes.
    unsafe fn unit(cursor: &mut Cursor, codes: &Self::Codes) -> [Self::Block; 2];
    /// Decodes the half unit at the cursor, and moves only its escapes.
    unsafe fn half(cursor: &mut Cursor, codes: &Self::Codes) -> Self::Block;
    unsafe fn load_block(from: *const u16) -> Self::Block;
    unsafe fn store_block(block: Self::Block, to: *mut u16);
    /// Stores past the caches. `to` is aligned to 64 bytes. A fence must follow before other threads are told.
    unsafe fn stream_block(block: Self::Block, to: *mut u16);
    /// Loads 32 weights, for a step of 32 with `half` 0.
    unsafe fn load_half(from: *const u16) -> Self::Block;
    unsafe fn load(sums: &Sums) -> Self::Acc;
    unsafe fn store(acc: Self::Acc, sums: &mut Sums);
    /// Loads sums in the order of [`Simd::lanes_bf16`], which may have those of even columns apart from those of odd ones.
    unsafe fn load_parted(sums: &Sums) -> Self::Acc;
    /// Stores sums that are in the order of [`Simd::lanes_bf16`].
    unsafe fn store_parted(acc: Self::Acc, sums: &mut Sums);
    /// Adds up sums: all of them, or the first 16 and the others apart, and then both in f64.
    unsafe fn total(acc: Self::Acc, apart: bool) -> f64;
    /// Adds up sums that are in the order of [`Simd::lanes_bf16`].
    unsafe fn total_parted(acc: Self::Acc, apart: bool) -> f64;
    /// Multiplies one half of the weights with 32 elements of x.
    unsafe fn lanes_f32(acc: Self::Acc, block: Self::Block, half: usize, x: *const f32) -> Self::Acc;
    /// Multiplies one half of the weights with 32 elements of x.
    unsafe fn lanes_bf16(acc: Self::Acc, block: Self::Block, half: usize, x: *const u16) -> Self::Acc;
    /// Multiplies the weights with 64 elements of x, as `vdpbf16ps` does; without vectors, unless there is such an instruction.
    #[inline(always)]
    unsafe fn pairs(acc: Self::Acc, block: Self::Block, x: *const u16) -> Self::Acc {
        // SAFETY: what the caller gives is passed on.
        unsafe { portable::pairs_of::<Self>(acc, block, x) }
    }
    unsafe fn prefetch(at: *const u8);
}

/// How products with one kind of x are summed up.
pub(super) trait Kind {
    /// Bytes of an element of x.
    const BYTES: usize;
    /// Weights of a step.
    const STEP: usize;
    /// Loads sums.
    #[inline(always)]
    unsafe fn load_sums<S: Simd>(sums: &Sums) -> S::Acc {
        // SAFETY: the processor can run S.
        unsafe { S::load(sums) }
    }
    /// Stores sums.
    #[inline(always)]
    unsafe fn store_sums<S: Simd>(acc: S::Acc, sums: &mut Sums) {
        // SAFETY: the processor can run S.
        unsafe { S::store(acc, sums) }
    }
    /// Adds up sums.
    #[inline(always)]
    unsafe fn total<S: Simd>(acc: S::Acc, apart: bool) -> f64 {
        // SAFETY: the processor can run S.
        unsafe { S::total(acc, apart) }
    }
    /// Multiplies 64 weights with x.
    unsafe fn block<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc;
    /// Loads the weights of a step of 32.
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u16) -> S::Block {
        // SAFETY: 32 weights can be read.
        unsafe { S::load_half(from) }
    }
    /// Multiplies the weights of a step with x.
    unsafe fn step<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc;
}

pub(super) struct LanesF32;
pub(super) struct LanesBf16;
pub(super) struct Pairs;

// SAFETY of the three: the callers' pointers and processor are passed on.
impl Kind for LanesF32 {
    const BYTES: usize = 4;
    const STEP: usize = 32;
    #[inline(always)]
    unsafe fn block<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc {
        // SAFETY: x has 64 elements.
        unsafe {
            let acc = S::lanes_f32(acc, block, 0, x.cast());
            S::lanes_f32(acc, block, 1, x.cast::<f32>().add(32))
        }
    }
    #[inline(always)]
    unsafe fn step<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc {
        // SAFETY: x has 32 elements.
        unsafe { S::lanes_f32(acc, block, 0, x.cast()) }
    }
}

impl Kind for LanesBf16 {
    const BYTES: usize = 2;
    const STEP: usize = 32;
    #[inline(always)]
    unsafe fn load_sums<S: Simd>(sums: &Sums) -> S::Acc {
        // SAFETY: the processor can run S.
        unsafe { S::load_parted(sums) }
    }
    #[inline(always)]
    unsafe fn store_sums<S: Simd>(acc: S::Acc, sums: &mut Sums) {
        // SAFETY: the processor can run S.
        unsafe { S::store_parted(acc, sums) }
    }
    #[inline(always)]
    unsafe fn total<S: Simd>(acc: S::Acc, apart: bool) -> f64 {
        // SAFETY: the processor can run S.
        unsafe { S::total_parted(acc, apart) }
    }
    #[inline(always)]
    unsafe fn block<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc {
        // SAFETY: x has 64 elements.
        unsafe {
            let acc = S::lanes_bf16(acc, block, 0, x.cast());
            S::lanes_bf16(acc, block, 1, x.cast::<u16>().add(32))
        }
    }
    #[inline(always)]
    unsafe fn step<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc {
        // SAFETY: x has 32 elements.
        unsafe { S::lanes_bf16(acc, block, 0, x.cast()) }
    }
}

impl Kind for Pairs {
    const BYTES: usize = 2;
    const STEP: usize = 64;
    #[inline(always)]
    unsafe fn block<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc {
        // SAFETY: x has 64 elements.
        unsafe { S::pairs(acc, block, x.cast()) }
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u16) -> S::Block {
        // SAFETY: 64 weights can be read.
        unsafe { S::load_block(from) }
    }
    #[inline(always)]
    unsafe fn step<S: Simd>(acc: S::Acc, block: S::Block, x: *const u8) -> S::Acc {
        // SAFETY: x has 64 elements.
        unsafe { S::pairs(acc, block, x.cast()) }
    }
}

/// Bytes ahead of the decoder that are fetched. A core keeps more lines of memory on their way if it is asked for them this early
/// than its own prefetcher does: docs/matrix.md says what was measured.
const AHEAD: usize = 12 << 10;

/// Fetches the three lines of the unit that is [`AHEAD`] of this one.
#[inline(always)]
unsafe fn fetch<S: Simd>(unit: *const u8) {
    let ahead = unit.wrapping_add(AHEAD);
    // SAFETY: any address may be fetched.
    unsafe {
        S::prefetch(ahead);
        S::prefetch(ahead.wrapping_add(64));
        S::prefetch(ahead.wrapping_add(128));
    }
}

/// Returns, for each code, the bits of its exponent that go with the sign (the upper seven), and those that go with the
/// mantissa.
#[inline(always)]
fn halves(exponents: &[u8; 16]) -> ([u8; 16], [u8; 16]) {
    let (mut upper, mut lowest) = ([0; 16], [0; 16]);
    for (code, &exponent) in exponents.iter().enumerate() {
        (upper[code], lowest[code]) = (exponent >> 1, exponent << 7);
    }
    (upper, lowest)
}

/// Decodes `units` whole units, and a half one if there is; with `STREAM` past the caches.
///
/// # Safety
///
/// The cursor has them, `to` has room for their weights and with `STREAM` is aligned to 64 bytes, and the processor can run S.
#[inline(always)]
unsafe fn decode<S: Simd, const STREAM: bool>(
    cursor: &mut Cursor,
    units: usize,
    half: bool,
    exponents: &[u8; 16],
    to: *mut u16,
) {
    // SAFETY: each unit and each place of `to` is within what the caller gives.
    unsafe {
        let codes = S::codes(exponents);
        let mut at = *cursor;
        for i in 0..units {
            fetch::<S>(at.unit);
            let [a, b] = S::unit(&mut at, &codes);
            let (first, second) = (to.add(UNIT * i), to.add(UNIT * i + BLOCK));
            if STREAM {
                S::stream_block(a, first);
                S::stream_block(b, second);
            } else {
                S::store_block(a, first);
                S::store_block(b, second);
            }
            at.unit = at.unit.add(UNIT_BYTES);
        }
        if half {
            let block = S::half(&mut at, &codes);
            S::store_block(block, to.add(UNIT * units));
            at.unit = at.unit.add(HALF_UNIT_BYTES);
        }
        *cursor = at;
    }
}

/// Decodes `units` whole units and multiplies them with x. Returns the sum of all sums, or stores them for more to be added.
///
/// # Safety
///
/// The cursor has them, `x` has as many elements as they have weights, and the processor can run S.
#[inline(always)]
unsafe fn dot<S: Simd, K: Kind>(
    cursor: &mut Cursor,
    units: usize,
    exponents: &[u8; 16],
    x: *const u8,
    apart: bool,
    sums: Option<&mut Sums>,
) -> f64 {
    // SAFETY: each unit, and each element of x, is within what the caller gives.
    unsafe {
        let codes = S::codes(exponents);
        let (mut at, mut acc, mut x) = (*cursor, S::load(&Sums::ZERO), x);
        for _ in 0..units {
            fetch::<S>(at.unit);
            let [a, b] = S::unit(&mut at, &codes);
            acc = K::block::<S>(acc, a, x);
            acc = K::block::<S>(acc, b, x.add(BLOCK * K::BYTES));
            at.unit = at.unit.add(UNIT_BYTES);
            x = x.add(UNIT * K::BYTES);
        }
        *cursor = at;
        match sums {
            None => K::total::<S>(acc, apart),
            Some(sums) => {
                K::store_sums::<S>(acc, sums);
                0.0
            }
        }
    }
}

/// Multiplies weights with N vectors.
///
/// # Safety
///
/// `w` and each vector have K::STEP · `steps` elements, and the processor can run S.
#[inline(always)]
unsafe fn add_to<S: Simd, K: Kind, const N: usize>(w: *const u16, steps: usize, x: &[*const u8], sums: &mut [Sums]) {
    // SAFETY: each step is within what the caller gives.
    unsafe {
        let mut acc = [K::load_sums::<S>(&sums[0]); N];
        for i in 1..N {
            acc[i] = K::load_sums::<S>(&sums[i]);
        }
        for step in 0..steps {
            let block = K::load::<S>(w.add(step * K::STEP));
            for i in 0..N {
                acc[i] = K::step::<S>(acc[i], block, x[i].add(step * K::STEP * K::BYTES));
            }
        }
        for i in 0..N {
            K::store_sums::<S>(acc[i], &mut sums[i]);
        }
    }
}

/// Multiplies weights with up to [`MOST_VECTORS`] vectors.
///
/// # Safety
///
/// As [`add_to`], for each vector.
#[inline(always)]
unsafe fn add<S: Simd, K: Kind>(w: *const u16, steps: usize, x: &[*const u8], sums: &mut [Sums]) {
    // SAFETY: what the caller gives is passed on.
    unsafe {
        match x.len() {
            1 => add_to::<S, K, 1>(w, steps, x, sums),
            2 => add_to::<S, K, 2>(w, steps, x, sums),
            3 => add_to::<S, K, 3>(w, steps, x, sums),
            _ => add_to::<S, K, MOST_VECTORS>(w, steps, x, sums),
        }
    }
}

/// Defines a kernel: the functions above, compiled for some features of the processor.
macro_rules! kernel {
    ($name:ident, $simd:ty $(, $features:literal)?) => {
        pub(in crate::matrix) static $name: Kernel = {
            use crate::matrix::kernel::{Kind, LanesBf16, LanesF32, Pairs, Steps, Sums};
            /// # Safety
            ///
            /// As [`crate::matrix::kernel::decode`].
            $(#[target_feature(enable = $features)])?
            unsafe fn decode<const STREAM: bool>(c: &mut Cursor, units: usize, half: bool, exponents: &[u8; 16], to: *mut u16) {
                // SAFETY: what the caller gives is passed on.
                unsafe { crate::matrix::kernel::decode::<$simd, STREAM>(c, units, half, exponents, to) }
            }
            /// # Safety
            ///
            /// As [`crate::matrix::kernel::dot`].
            $(#[target_feature(enable = $features)])?
            unsafe fn dot<K: Kind>(
                c: &mut Cursor,
                units: usize,
                exponents: &[u8; 16],
                x: *const u8,
                apart: bool,
                sums: Option<&mut Sums>,
            ) -> f64 {
                // SAFETY: what the caller gives is passed on.
                unsafe { crate::matrix::kernel::dot::<$simd, K>(c, units, exponents, x, apart, sums) }
            }
            /// # Safety
            ///
            /// As [`crate::matrix::kernel::add`].
            $(#[target_feature(enable = $features)])?
            unsafe fn add<K: Kind>(w: *const u16, steps: usize, x: &[*const u8], sums: &mut [Sums]) {
                // SAFETY: what the caller gives is passed on.
                unsafe { crate::matrix::kernel::add::<$simd, K>(w, steps, x, sums) }
            }
            const fn steps<K: Kind>() -> Steps {
                Steps { dot: dot::<K>, add: add::<K>, step: K::STEP }
            }
            Kernel {
                decode: decode::<false>,
                stream: decode::<true>,
                lanes_f32: steps::<LanesF32>(),
                lanes_bf16: steps::<LanesBf16>(),
                pairs: steps::<Pairs>(),
            }
        };
    };
}
use kernel;
