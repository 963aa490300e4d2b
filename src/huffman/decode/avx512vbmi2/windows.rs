//! Turning recorded windows into exponents.

use super::*;

/// The windows of a register.
const WINDOWS: usize = 64;

/// Where the three exponents of 64 windows go: byte i of register r is exponent (64 · r + i) % 3 of window
/// (64 · r + i) / 3. The second exponents are bytes 64 and up of a pair of registers; a mask has the third.
const SPREAD: ([[u8; WINDOWS]; MOST_PER_SHORT], [u64; MOST_PER_SHORT]) = {
    let (mut from, mut third) = ([[0; WINDOWS]; MOST_PER_SHORT], [0; MOST_PER_SHORT]);
    let mut at = 0;
    while at < MOST_PER_SHORT * WINDOWS {
        let (window, number) = (at / MOST_PER_SHORT, at % MOST_PER_SHORT);
        from[at / WINDOWS][at % WINDOWS] = window as u8 + if number == 1 { 64 } else { 0 };
        if number == 2 {
            third[at / WINDOWS] |= 1 << (at % WINDOWS);
        }
        at += 1;
    }
    (from, third)
};

/// Stages the exponents of the lanes of a batch after the first `rest` bytes, lane after lane, as long as each ends where
/// the next begins, the stage has room, and less than `room` exponents were found. Returns how many lanes that were, and
/// how many exponents.
///
/// # Safety
///
/// The batch was walked, `rest` is at most [`UNIT`], and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn expand(
    short: &ShortTable,
    scratch: *mut Scratch,
    batch: &Batch,
    rest: usize,
    room: usize,
) -> (usize, usize) {
    let (used, long_used) = (pair(&short.used), pair(&short.long_used));
    let expander = Expander::new(short);
    let mut staged = rest;
    for k in 0..VECTORS {
        // SAFETY: the rounds were walked.
        unsafe { transpose(scratch, k, batch.rounds) };
        // The last windows of each lane, which are those of the round in which it passes its end, and what each takes.
        let (mut ends, mut lengths) = ([0u64; WIDTH], [0u64; WIDTH]);
        for (l, end) in ends.iter_mut().enumerate() {
            let round = (batch.whole[k * WIDTH + l] as usize).min(batch.rounds - 1);
            // SAFETY: the round was walked.
            *end = unsafe { (*scratch).rounds[k][round][l] };
        }
        // SAFETY: each array has the size of a register.
        unsafe {
            let x = load(ends.as_ptr().cast());
            let after_prefix = _mm512_add_epi8(look(long_used, x), _mm512_set1_epi8(SHORT_WINDOW as i8));
            let all = _mm512_mask_mov_epi8(look(used, x), _mm512_movepi8_mask(x), after_prefix);
            _mm512_storeu_si512(lengths.as_mut_ptr().cast(), all);
        }
        for l in 0..WIDTH {
            let lane = k * WIDTH + l;
            let end = end_of_lane(short, batch, lane, ends[l], lengths[l]);
            let fits = |&(windows, _): &(usize, usize)| staged + MOST_PER_SHORT * (windows + WINDOWS) <= STAGE;
            let Some((windows, excess)) = end.filter(fits) else { return (lane, staged - rest) };
            // SAFETY: the stage has room for three exponents of each window, and the row has the windows.
            unsafe {
                let row = (&raw const (*scratch).rows[l]).cast::<u8>();
                let to = (&raw mut (*scratch).stage).cast::<u8>().add(staged);
                let count = expander.expand(row, windows, to);
                if batch.lanes_with_rare >> lane & 1 != 0 {
                    put_rare(batch, lane, windows, std::slice::from_raw_parts_mut(to, count));
                }
                staged += count - excess;
            }
            if staged - rest >= room {
                return (lane + 1, staged - rest);
            }
        }
    }
    (LANES, staged - rest)
}

/// Returns how many windows of a lane begin before its end, and how many whole codes of the last one begin after it;
/// `None` if no code ends there, or the lane did not get so far. `windows` are those of the round in which it should pass
/// its end, and `lengths` the bits that each takes.
#[inline(always)]
fn end_of_lane(
    short: &ShortTable,
    batch: &Batch,
    lane: usize,
    windows: u64,
    mut lengths: u64,
) -> Option<(usize, usize)> {
    /// 1 in each byte.
    const EACH: u64 = u64::MAX / 255;
    let whole = batch.whole[lane] as usize;
    let left = batch.starts[lane + 1].checked_sub(batch.at[lane])?;
    if left == 0 {
        return Some((whole * STEPS, 0));
    }
    // A round advances by less than 100 bits, so that sums in bytes do not overflow.
    if left > 100 || whole >= batch.rounds {
        return None;
    }
    if windows & 0x80 != 0 && short.long_used[windows as usize & (SHORT_WINDOWS - 1)] == 0 {
        let here = |r: &&Rare| r.lane as usize == lane && r.window as usize == whole * STEPS;
        lengths = lengths & !255 | batch.rare[..batch.rares].iter().find(here)?.len as u64;
    }
    let sums = lengths.wrapping_mul(EACH);
    // The top bit of each byte whose sum is not below `left`: no byte borrows from the next.
    let reached = ((sums | (128 * EACH)) - left * EACH) & (128 * EACH);
    if reached == 0 {
        return None;
    }
    let shift = reached.trailing_zeros() & !7;
    let (last, over) = (shift as usize / 8 + whole * STEPS + 1, (sums >> shift & 255) - left);
    if over == 0 {
        return Some((last, 0));
    }
    // The end is inside a window: a code of it must end there.
    let inside = (lengths >> shift & 255).checked_sub(over)?;
    let ends = *short.ends.get((windows >> shift & 255) as usize)?;
    (inside > 0 && ends >> (inside - 1) & 1 != 0).then(|| (last, (ends >> inside).count_ones() as usize))
}

/// The tables of exponents in registers.
struct Expander {
    exponents: [[__m512i; 2]; MOST_PER_SHORT],
    long: [__m512i; 2],
    spread: [__m512i; MOST_PER_SHORT],
}

impl Expander {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(short: &ShortTable) -> Expander {
        let [a, b, c] = &short.exponents;
        let [x, y, z] = &SPREAD.0;
        // SAFETY: an order has 64 bytes.
        let spread = unsafe { [load(x.as_ptr()), load(y.as_ptr()), load(z.as_ptr())] };
        Expander { exponents: [pair(a), pair(b), pair(c)], long: pair(&short.long_exponent), spread }
    }

    /// Writes the exponents of windows, as complements, and returns how many there are.
    ///
    /// # Safety
    ///
    /// The windows can be read, to the end of their last 64, and at `to` three bytes written for each of as many. The
    /// processor has the features.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
    unsafe fn expand(&self, row: *const u8, windows: usize, to: *mut u8) -> usize {
        let [a, b, c] = self.exponents;
        let mut count = 0;
        for i in (0..windows).step_by(WINDOWS) {
            let there = u64::MAX >> WINDOWS.saturating_sub(windows - i);
            // SAFETY: the row has 64 windows from `i`.
            let x = unsafe { load(row.add(i)) };
            // Windows after a prefix have one exponent.
            let long = _mm512_movepi8_mask(x);
            let plain = !long & there;
            let first = _mm512_mask2_permutex2var_epi8(self.long[0], x, long, self.long[1]);
            let first = _mm512_mask2_permutex2var_epi8(a[0], first, plain, a[1]);
            let first = _mm512_maskz_mov_epi8(there, first);
            let second = _mm512_maskz_permutex2var_epi8(plain, b[0], x, b[1]);
            let third = _mm512_maskz_permutex2var_epi8(plain, c[0], x, c[1]);
            for j in 0..MOST_PER_SHORT {
                let all = _mm512_permutex2var_epi8(first, self.spread[j], second);
                let all = _mm512_mask_permutexvar_epi8(all, SPREAD.1[j], self.spread[j], third);
                let some = _mm512_test_epi8_mask(all, all);
                // SAFETY: no more than three bytes a window were written, and this is the last of them that ends there.
                unsafe { _mm512_storeu_si512(to.add(count).cast(), _mm512_maskz_compress_epi8(some, all)) };
                count += some.count_ones() as usize;
            }
        }
        count
    }
}

/// Puts the exponents of rare codes where a lane's windows left [`ShortTable::UNKNOWN`].
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw")]
fn put_rare(batch: &Batch, lane: usize, windows: usize, exponents: &mut [u8]) {
    let of_lane = |r: &&Rare| r.lane as usize == lane && (r.window as usize) < windows;
    let mut rares = batch.rare[..batch.rares].iter().filter(of_lane);
    let unknown = _mm512_set1_epi8(ShortTable::UNKNOWN as i8);
    for some in exponents.chunks_mut(WINDOWS) {
        // SAFETY: the mask is of as many bytes as there are.
        let x = unsafe { _mm512_maskz_loadu_epi8(u64::MAX >> (WINDOWS - some.len()), some.as_ptr().cast()) };
        let mut found = _mm512_cmpeq_epi8_mask(x, unknown);
        while found != 0 {
            let Some(rare) = rares.next() else { return };
            some[found.trailing_zeros() as usize] = !rare.symbol;
            found &= found - 1;
        }
    }
}

/// Turns the rounds of a vector into rows of lanes.
///
/// # Safety
///
/// The rounds were walked, and those up to a multiple of 8 cleared; the processor has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(scratch: *mut Scratch, vector: usize, rounds: usize) {
    for from in (0..rounds).step_by(8) {
        // Eight rounds of eight lanes, and pairs, fours and eights of rounds.
        let mut x = [_mm512_setzero_si512(); 8];
        for (i, x) in x.iter_mut().enumerate() {
            // SAFETY: the round was walked or cleared, and rounds are aligned to 64 bytes.
            *x = unsafe { _mm512_load_si512((&raw const (*scratch).rounds[vector][from + i]).cast()) };
        }
        let (mut two, mut four) = (x, x);
        for i in (0..8).step_by(2) {
            two[i] = _mm512_unpacklo_epi64(x[i], x[i + 1]);
            two[i + 1] = _mm512_unpackhi_epi64(x[i], x[i + 1]);
        }
        for i in [0, 1, 4, 5] {
            four[i] = _mm512_shuffle_i64x2::<0x88>(two[i], two[i + 2]);
            four[i + 2] = _mm512_shuffle_i64x2::<0xdd>(two[i], two[i + 2]);
        }
        for i in 0..4 {
            // SAFETY: rows have 8 bytes for each of ROUNDS rounds, which are a multiple of 8.
            unsafe {
                let row = |lane: usize| (&raw mut (*scratch).rows[lane]).cast::<u8>().add(from * STEPS);
                _mm512_storeu_si512(row(i).cast(), _mm512_shuffle_i64x2::<0x88>(four[i], four[i + 4]));
                _mm512_storeu_si512(row(i + 4).cast(), _mm512_shuffle_i64x2::<0xdd>(four[i], four[i + 4]));
            }
        }
    }
}
