//! The walk: from code to code in all lanes, recording the windows.

use super::*;

/// Units that are merged in a round. Batches of real models have 9.4 for each.
const UNITS_PER_ROUND: usize = 10;
/// The most bits by which a round advances a lane, but for codes that the tables do not have.
const MOST_BITS: usize = (STEPS + 1) * SHORT_WINDOW as usize;

/// Walks the lanes of a batch until each is at its end or beyond it, or there were [`ROUNDS`] rounds, and merges what is
/// pending meanwhile. Returns false if bits were met that begin no code, or too many codes that the tables do not have.
///
/// # Safety
///
/// The lanes begin in ascending order, inside the code and 8 bytes or more before its end. The units are pending, the
/// exponents outside `rounds`. The processor has the features.
#[inline(never)]
#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn walk<const STREAM: bool, const MANY: bool>(
    run: &Run,
    short: &ShortTable,
    codes: &CodeTable,
    scratch: *mut Scratch,
    batch: &mut Batch,
    pending: &mut Pending,
) -> bool {
    let (used, long_used, prefix) = (pair(&short.used), pair(&short.long_used), pair(&short.prefix));
    let prefix_bits = _mm_cvtsi32_si128(short.prefix_bits as i32);
    let swap = _mm512_set4_epi32(0x08090a0b, 0x0c0d0e0f, 0x00010203, 0x04050607);
    let (zero, seven, low6) = (_mm512_setzero_si512(), _mm512_set1_epi64(7), _mm512_set1_epi64(63));
    let (window, windows) = (_mm512_set1_epi64(0x7f), _mm512_set1_epi8(0x7f));
    let flag = _mm512_set1_epi64(0x80);
    // Of the lengths of a round, but for the first.
    let lengths = _mm512_set1_epi64(0x0707_0707_0707_0700);
    let last_load = _mm512_set1_epi64((run.code_bytes.saturating_sub(8) * 8) as i64);
    let shortest = batch.starts.windows(2).map(|p| p[1] - p[0]).min().unwrap_or(0) as usize;
    // No lane is beyond its end in these rounds, but for codes that the tables do not have; then it is not confirmed.
    let unchecked = (shortest / MOST_BITS).min(ROUNDS - 1);

    // Each lane's place, whether it is after a prefix, and the number of that.
    let (mut pos, mut stopped, mut number) = ([zero; VECTORS], [0; VECTORS], [zero; VECTORS]);
    for (k, pos) in pos.iter_mut().enumerate() {
        // SAFETY: there are more than 8 · VECTORS starts.
        *pos = unsafe { load(batch.starts.as_ptr().add(WIDTH * k).cast()) };
    }
    batch.whole.fill(unchecked as u64);
    batch.at.copy_from_slice(&batch.starts[..LANES]);
    // The code of the next batch is prefetched, a cache line for each vector and round.
    let mut ahead = run.code.wrapping_add(batch.starts[LANES] as usize / 8);
    let mut p = *pending;
    (batch.rares, batch.lanes_with_rare) = (0, 0);
    let mut round = 0;
    loop {
        let (mut bits, mut record, mut first) = ([zero; VECTORS], [zero; VECTORS], [zero; VECTORS]);
        let (mut missed, mut any) = ([0; VECTORS], 0);
        for k in 0..VECTORS {
            // SAFETY: places are 8 bytes or more before the code's end.
            let x = unsafe { _mm512_i64gather_epi64::<1>(_mm512_srli_epi64::<3>(pos[k]), run.code.cast()) };
            let by = _mm512_add_epi64(_mm512_and_si512(pos[k], seven), seven);
            bits[k] = _mm512_rolv_epi64(_mm512_shuffle_epi8(x, swap), by);
        }
        // The first step.
        for k in 0..VECTORS {
            let mut index = bits[k];
            if MANY {
                let next = _mm512_srl_epi64(_mm512_and_si512(bits[k], window), prefix_bits);
                index = _mm512_mask_or_epi64(bits[k], stopped[k], next, number[k]);
            }
            first[k] = _mm512_mask_mov_epi64(look(used, bits[k]), stopped[k], look(long_used, index));
            missed[k] = _mm512_mask_testn_epi64_mask(stopped[k], first[k], low6);
            any |= missed[k];
            record[k] = _mm512_shrdi_epi64::<8>(index, index);
        }
        if any != 0 {
            for k in 0..VECTORS {
                if missed[k] != 0 {
                    let state = [pos[k], bits[k], first[k]];
                    // By value: what a function is given a reference to stays in memory, and each step waits for it.
                    // SAFETY: as of the walk.
                    let Some(after) = (unsafe { rare(run, codes, batch, k, round, missed[k], state) }) else {
                        *pending = p;
                        return false;
                    };
                    [bits[k], first[k]] = after;
                }
            }
        }
        for k in 0..VECTORS {
            bits[k] = _mm512_rolv_epi64(bits[k], first[k]);
            pos[k] = _mm512_add_epi64(pos[k], _mm512_and_si512(first[k], low6));
        }
        // The others.
        let mut last = [zero; VECTORS];
        macro_rules! step {
            () => {
                for k in 0..VECTORS {
                    last[k] = look(used, bits[k]);
                    record[k] = _mm512_shrdi_epi64::<8>(record[k], bits[k]);
                    bits[k] = _mm512_rolv_epi64(bits[k], last[k]);
                }
            };
            ($($units:literal)*) => { $(
                for _ in 0..$units {
                    // SAFETY: as many units are pending.
                    unsafe { p.merge::<STREAM>() };
                }
                step!();
            )* };
        }
        if p.units >= UNITS_PER_ROUND {
            step!(2 1 2 1 2 1 1);
        } else {
            for _ in 1..STEPS {
                step!();
            }
        }
        for k in 0..VECTORS {
            let taken = _mm512_sad_epu8(_mm512_and_si512(look(used, record[k]), lengths), zero);
            if MANY {
                number[k] = look(prefix, _mm512_srli_epi64::<56>(record[k]));
            }
            // Windows have 7 bits; the eighth says that one is after a prefix.
            let kept = _mm512_and_si512(record[k], windows);
            let kept = _mm512_mask_or_epi64(kept, stopped[k], kept, flag);
            // SAFETY: `round` is below ROUNDS, and rounds are aligned to 64 bytes.
            unsafe { _mm512_store_si512((&raw mut (*scratch).rounds[k][round]).cast(), kept) };
            stopped[k] = _mm512_testn_epi64_mask(last[k], low6);
            pos[k] = _mm512_add_epi64(pos[k], taken);
        }
        round += 1;
        if round <= unchecked {
            for (k, &pos) in pos.iter().enumerate() {
                // SAFETY: there are 8 · VECTORS of them. Any address may be prefetched.
                unsafe {
                    _mm512_storeu_si512(batch.at.as_mut_ptr().add(WIDTH * k).cast(), pos);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
                ahead = ahead.wrapping_add(64);
            }
        } else {
            let (mut more, rounds) = (0, _mm512_set1_epi64(round as i64));
            for (k, &pos) in pos.iter().enumerate() {
                let lane = WIDTH * k;
                // SAFETY: there are 8 · VECTORS of each, and one more start.
                unsafe {
                    let end = load(batch.starts.as_ptr().add(lane + 1).cast());
                    let inside = _mm512_cmple_epu64_mask(pos, end);
                    _mm512_mask_storeu_epi64(batch.whole.as_mut_ptr().add(lane).cast(), inside, rounds);
                    _mm512_mask_storeu_epi64(batch.at.as_mut_ptr().add(lane).cast(), inside, pos);
                    more |= _mm512_cmplt_epu64_mask(pos, end);
                }
            }
            if more == 0 || round == ROUNDS {
                break;
            }
        }
        for k in 0..VECTORS {
            let after = _mm512_mask_add_epi64(pos[k], stopped[k], pos[k], seven);
            pos[k] = _mm512_min_epu64(after, last_load);
        }
    }
    for k in 0..VECTORS {
        // Rounds are expanded eight at a time.
        for round in round..round.next_multiple_of(8) {
            // SAFETY: ROUNDS is a multiple of 8.
            unsafe { _mm512_store_si512((&raw mut (*scratch).rounds[k][round]).cast(), zero) };
        }
    }
    batch.rounds = round;
    *pending = p;
    true
}

/// Finds the codes after prefixes that the tables do not have, and moves their lanes after them. `state` is the lanes'
/// places, their bits and what the first step takes; returns the latter two. Returns `None` if there is no such code, or no
/// room for one more.
///
/// # Safety
///
/// As [`walk`]; the lanes `missed` are after a prefix.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f")]
unsafe fn rare(
    run: &Run,
    codes: &CodeTable,
    batch: &mut Batch,
    vector: usize,
    round: usize,
    missed: u8,
    state: [__m512i; 3],
) -> Option<[__m512i; 2]> {
    let mut lanes = [[0u64; WIDTH]; 3];
    for (lanes, state) in lanes.iter_mut().zip(state) {
        // SAFETY: eight lanes are a register.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), state) };
    }
    let [places, mut bits, mut first] = lanes;
    for l in (0..WIDTH).filter(|l| missed >> l & 1 != 0) {
        let lane = vector * WIDTH + l;
        first[l] = 1;
        if places[l] > batch.starts[lane + 1] {
            // Beyond its end a lane may meet anything.
            continue;
        }
        let from = (places[l] as usize).saturating_sub(SHORT_WINDOW as usize);
        // SAFETY: both bits are 8 bytes or more before the code's end.
        let at = |bit: usize| unsafe { be64(run.code.add(bit / 8)) } << (bit % 8);
        let code = codes.first((at(from) >> 32) as u32)?;
        let (after, taken) = (from + code.len as usize, (code.len as u32).checked_sub(SHORT_WINDOW)?);
        if batch.rares == MOST_RARE || after / 8 + 8 > run.code_bytes {
            return None;
        }
        batch.rare[batch.rares] =
            Rare { lane: lane as u32, window: (round * STEPS) as u32, len: code.len, symbol: code.symbol };
        batch.rares += 1;
        batch.lanes_with_rare |= 1 << lane;
        // The rotation that comes makes the bits after the code the lowest.
        first[l] = taken as u64;
        bits[l] = at(after).rotate_left(SHORT_WINDOW).rotate_right(taken);
    }
    // SAFETY: eight lanes are a register.
    Some(unsafe { [load(bits.as_ptr().cast()), load(first.as_ptr().cast())] })
}
