//! Counting exponents, the encoder's first pass.

#[cfg(target_arch = "x86_64")]
mod adders;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::{Variant, exponent, prefetch};

/// Counts the exponents of weights, and adds to `counts`.
///
/// # Panics
///
/// If this processor lacks `variant`.
pub fn count(weights: &[u16], counts: &mut [u64; 256], variant: Variant) {
    assert!(variant.is_available(), "this processor cannot run the {} variant", variant.name());
    // The tables count in 32 bits.
    for weights in weights.chunks(1 << 30) {
        match variant {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has what the variant needs.
            Variant::Avx512 => unsafe { avx512::count(weights, counts) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has what the variant needs.
            Variant::Avx2 => unsafe { avx2::count(weights, counts) },
            _ => count_likely(weights, counts),
        }
    }
}

/// Counts the likely exponents by comparison, a line of weights at a time, and the others one by one. The likely ones
/// are neighbours, and twelve of them are nearly all that occur.
fn count_likely(weights: &[u16], counts: &mut [u64; 256]) {
    const LIKELY: usize = 12;
    const LINE: usize = 16;
    let Some(first) = likely::<LIKELY>(weights) else { return count_plain(weights, counts) };
    let (lines, rest) = weights.as_chunks::<LINE>();
    // Sums are bytes.
    for lines in lines.chunks(255) {
        let mut sums = [[0u8; LINE]; LIKELY];
        for line in lines {
            prefetch(line.as_ptr().wrapping_add(2048));
            let mut near = [0u8; LINE];
            near.iter_mut().zip(line).for_each(|(e, &w)| *e = exponent(w).wrapping_sub(first));
            for (value, sums) in sums.iter_mut().enumerate() {
                sums.iter_mut().zip(&near).for_each(|(sum, &e)| *sum += u8::from(e == value as u8));
            }
            if near.iter().fold(false, |far, &e| far | (e >= LIKELY as u8)) {
                for &e in near.iter().filter(|&&e| e >= LIKELY as u8) {
                    counts[e.wrapping_add(first) as usize] += 1;
                }
            }
        }
        for (value, sums) in sums.iter().enumerate() {
            counts[first as usize + value] += sums.iter().map(|&n| n as u64).sum::<u64>();
        }
    }
    count_plain(rest, counts);
}

/// Returns the first of the N neighbouring exponents that are the most frequent among the first weights. Of several
/// ranges with the same count it takes the second, which leaves one exponent above the largest that was seen for larger
/// weights to come; below, each exponent is half as frequent as the next. `None` if too many weights are elsewhere to
/// count them one by one.
fn likely<const N: usize>(weights: &[u16]) -> Option<u8> {
    let first_weights = &weights[..weights.len().min(1024)];
    let mut sample = [0; 256];
    count_plain(first_weights, &mut sample);
    let mut inside = sample[..N].iter().sum::<u64>();
    let (mut most, mut first, mut ties) = (inside, 0, 0);
    for next in 1..=256 - N {
        inside = inside + sample[next + N - 1] - sample[next - 1];
        ties = if inside > most { 0 } else { ties + usize::from(inside == most) };
        if inside > most || (inside == most && ties == 1) {
            (most, first) = (inside, next);
        }
    }
    (most >= first_weights.len() as u64 / 32 * 31).then_some(first as u8)
}

/// Counts one by one, in four tables in turn: neighbouring weights often have one exponent, and counting it twice in
/// one table would wait for the first store.
fn count_plain(weights: &[u16], counts: &mut [u64; 256]) {
    let mut tables = [[0u32; 256]; 4];
    let (fours, rest) = weights.as_chunks::<4>();
    for four in fours {
        prefetch(four.as_ptr().wrapping_add(2048));
        for (table, &w) in tables.iter_mut().zip(four) {
            table[exponent(w) as usize] += 1;
        }
    }
    rest.iter().for_each(|&w| counts[exponent(w) as usize] += 1);
    for table in tables {
        counts.iter_mut().zip(table).for_each(|(sum, n)| *sum += n as u64);
    }
}
