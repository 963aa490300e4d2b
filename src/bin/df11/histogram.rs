//! Histograms of exponents: groups are decoded piece by piece and counted.

use crate::Failure;
use crate::interrupt;
use crate::terminal::Progress;
use df11::{DecodeOptions, Group};
use half::bf16;

/// Weights decoded at a time: 8 MiB.
const PIECE: usize = 4 << 20;
/// The least number of weights of a thread, if there are several.
const WORTH_A_THREAD: usize = 1 << 18;

/// The number of occurrences of each exponent in a group, and the lengths of its codes.
pub struct GroupHistogram {
    /// By exponent.
    pub counts: [u64; 256],
    /// Bits by exponent; 0 where there is no code.
    pub lengths: [u8; 256],
}

impl GroupHistogram {
    /// Returns the number of weights.
    pub fn weights(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the entropy of its exponents in bits: the fewest that a code of one word per exponent can take.
    pub fn entropy_bits(&self) -> f64 {
        let all = self.weights() as f64;
        self.counts.iter().filter(|&&n| n > 0).map(|&n| -(n as f64) * (n as f64 / all).log2()).sum()
    }

    /// Returns the bits that its codes take.
    pub fn code_bits(&self) -> u64 {
        self.counts.iter().zip(self.lengths).map(|(&n, len)| n * u64::from(len)).sum()
    }
}

/// Counts the exponents of groups.
pub fn count<'m>(
    groups: impl IntoIterator<Item = Group<'m>>,
    threads: usize,
    progress: &Progress,
) -> Result<Vec<GroupHistogram>, Failure> {
    let options = DecodeOptions::new().threads(threads);
    let mut buffer = Vec::new();
    let mut histograms = Vec::new();
    for group in groups {
        let mut counts = [0; 256];
        let (mut first, all) = (0, group.element_count());
        while first < all {
            interrupt::check()?;
            let len = (all - first).min(PIECE as u64) as usize;
            if buffer.len() < len {
                buffer.resize(len, bf16::ZERO);
            }
            group.decompress(first, &mut buffer[..len], &options)?;
            add(&mut counts, &buffer[..len], threads);
            progress.advance(2 * len as u64);
            first += len as u64;
        }
        histograms.push(GroupHistogram { counts, lengths: *group.code_lengths() });
    }
    Ok(histograms)
}

/// Adds the exponents of weights to counts.
fn add(counts: &mut [u64; 256], weights: &[bf16], threads: usize) {
    let threads = threads.min(weights.len() / WORTH_A_THREAD).max(1);
    let (own, others) = weights.split_at(weights.len().div_ceil(threads));
    let mut merge = |counted: [u64; 256]| counts.iter_mut().zip(counted).for_each(|(to, n)| *to += n);
    std::thread::scope(|scope| {
        let spawn =
            |piece| std::thread::Builder::new().spawn_scoped(scope, move || exponents(piece)).map_err(|_| piece);
        let spawned: Vec<_> = others.chunks(own.len().max(1)).map(spawn).collect();
        merge(exponents(own));
        for thread in spawned {
            merge(match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // The thread could not be started: this one does its work.
                Err(piece) => exponents(piece),
            });
        }
    });
}

/// Counts on one thread, in four tables in turn, because two equal exponents in a row would wait for each other in one table.
fn exponents(weights: &[bf16]) -> [u64; 256] {
    let mut tables = [[0u64; 256]; 4];
    let (fours, rest) = weights.as_chunks::<4>();
    let mut count = |table: usize, weight: bf16| tables[table][(weight.to_bits() >> 7 & 0xff) as usize] += 1;
    for four in fours {
        four.iter().enumerate().for_each(|(i, &weight)| count(i, weight));
    }
    rest.iter().for_each(|&weight| count(0, weight));
    std::array::from_fn(|e| tables.iter().map(|t| t[e]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_is_counted_once() {
        let weights: Vec<bf16> =
            (0..3_000_001u32).map(|i| bf16::from_bits((i.wrapping_mul(40503) >> 3) as u16)).collect();
        let mut expected = [0; 256];
        weights.iter().for_each(|w| expected[(w.to_bits() << 1 >> 8) as usize] += 1);
        for threads in [1, 2, 3, 8] {
            let mut counts = [0; 256];
            add(&mut counts, &weights, threads);
            assert_eq!(counts, expected, "{threads} threads");
        }
        let mut counts = [7; 256];
        add(&mut counts, &[], 4);
        assert_eq!(counts, [7; 256]);
    }

    #[test]
    fn bits_of_a_small_histogram() {
        let (mut counts, mut lengths) = ([0; 256], [0; 256]);
        (counts[100], counts[101], counts[102]) = (4, 2, 2);
        (lengths[100], lengths[101], lengths[102]) = (1, 3, 3);
        let histogram = GroupHistogram { counts, lengths };
        assert_eq!((histogram.weights(), histogram.entropy_bits(), histogram.code_bits()), (8, 12.0, 16));
    }
}
