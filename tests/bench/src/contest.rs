//! Contestants, and rounds in which all of them take turns.
//!
//! A shared machine is fast in one second and slow in the next. Contestants are therefore interleaved (A B C … A B C …)
//! and compared within a round; figures are medians over the rounds. Where something else used the core during a sample,
//! or just before or after it ([`Gauge`]), it is taken again, a few times at most; what is noisy even so is counted.

use crate::clock::{self, Cores, Gauge, Sample, Whose};
use crate::copy;
use std::time::Duration;

/// Something that turns its stored form of the weights back into bf16, or bf16 into its stored form.
pub trait Contestant {
    /// As it stands in the table.
    fn name(&self) -> String;

    /// How many threads it uses.
    fn threads(&self) -> usize {
        1
    }

    /// The name of what its speed is a share of, with as many threads, in the same round.
    fn peer(&self) -> String {
        copy::NAME.into()
    }

    /// Bytes of its stored form, known after [`Contestant::work`] at the latest; `None` if it is no compressor.
    fn stored_bytes(&self) -> Option<usize>;

    /// What is timed. A decoder writes all weights to `dst`; an encoder makes its stored form, in memory that it has.
    fn work(&mut self, dst: &mut [u16]) -> Result<(), String>;

    /// Does it so many times and returns the time of one. The default times [`Contestant::work`].
    fn sample(&mut self, dst: &mut [u16], repeats: usize) -> Result<Sample, String> {
        let whose = if self.threads() == 1 { Whose::Thread } else { Whose::Process };
        clock::time(whose, repeats, || self.work(dst))
    }

    /// Not timed: writes all weights to `dst`, decoded from what [`Contestant::work`] has made. A decoder has done that.
    fn answer(&mut self, _dst: &mut [u16]) -> Result<(), String> {
        Ok(())
    }

    /// Whether it leaves `dst` alone and compares its answer itself (another process, say).
    fn checks_itself(&self) -> bool {
        false
    }
}

/// What one contestant did in all rounds.
#[derive(Debug, Clone)]
pub struct Entry {
    /// [`Contestant::name`].
    pub name: String,
    /// [`Contestant::threads`].
    pub threads: usize,
    /// [`Contestant::peer`].
    pub peer: String,
    /// [`Contestant::stored_bytes`].
    pub stored_bytes: Option<usize>,
    /// One per round.
    pub samples: Vec<Sample>,
    /// The worse of the gauge's readings just before and just after each sample.
    pub gauge: Vec<Duration>,
}

impl Entry {
    /// How many samples something else on the machine has disturbed, by all that is known until now.
    pub fn noisy(&self, gauge: &Gauge) -> usize {
        self.samples.iter().zip(&self.gauge).filter(|&(s, &g)| !is_quiet(self.threads, s, g, gauge)).count()
    }
}

/// Whether the core was ours alone before and after a sample, and the thread, if it was one, never had to wait.
fn is_quiet(threads: usize, sample: &Sample, reading: Duration, gauge: &Gauge) -> bool {
    gauge.is_quiet(reading) && (threads > 1 || sample.wall < 1.05 * sample.cpu)
}

/// How to run a contest.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// How many.
    pub count: usize,
    /// Repeat what is short until a sample takes so many seconds.
    pub sample_seconds: f64,
    /// How often a sample is taken again, after waiting for up to a second, because the core was not ours alone.
    pub retries: usize,
}

/// Runs all rounds. An error is a wrong answer, or a contestant that failed.
pub fn run(
    contestants: &mut [Box<dyn Contestant + '_>],
    original: &[u16],
    dst: &mut [u16],
    rounds: Rounds,
    cores: &Cores,
    gauge: &mut Gauge,
) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut repeats = Vec::new();
    // A first turn, not counted: page tables, caches and look-up tables get ready, and it tells the repeats.
    for contestant in contestants.iter_mut() {
        let first = turn(contestant.as_mut(), original, dst, 1, cores)?;
        repeats.push((rounds.sample_seconds / first.wall.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize);
        entries.push(Entry {
            name: contestant.name(),
            threads: contestant.threads(),
            peer: contestant.peer(),
            stored_bytes: contestant.stored_bytes(),
            samples: Vec::with_capacity(rounds.count),
            gauge: Vec::with_capacity(rounds.count),
        });
    }
    for _ in 0..rounds.count {
        for ((contestant, entry), &repeats) in contestants.iter_mut().zip(&mut entries).zip(&repeats) {
            let mut tries = 0;
            let (sample, reading) = loop {
                cores.pin();
                let before = gauge.read();
                let sample = turn(contestant.as_mut(), original, dst, repeats, cores)?;
                cores.pin();
                let reading = gauge.read().max(before);
                if is_quiet(entry.threads, &sample, reading, gauge) || tries == rounds.retries {
                    break (sample, reading);
                }
                tries += 1;
                gauge.wait(Duration::from_secs(1));
            };
            entry.samples.push(sample);
            entry.gauge.push(reading);
        }
    }
    cores.release();
    Ok(entries)
}

/// One sample and its check.
fn turn(
    contestant: &mut dyn Contestant,
    original: &[u16],
    dst: &mut [u16],
    repeats: usize,
    cores: &Cores,
) -> Result<Sample, String> {
    // The last contestant left the right answer in `dst`. Here and there a wrong weight shows who writes nothing, and
    // leaves the caches as they are.
    if !contestant.checks_itself() {
        dst.iter_mut().step_by(1021).for_each(|w| *w = !*w);
    }
    if contestant.threads() == 1 {
        cores.pin();
    } else {
        cores.release();
    }
    let name = contestant.name();
    let sample = contestant.sample(dst, repeats).map_err(|e| format!("{name}: {e}"))?;
    contestant.answer(dst).map_err(|e| format!("{name}: {e}"))?;
    if !contestant.checks_itself()
        && let Some(at) = first_difference(dst, original)
    {
        return Err(format!("{name}: weight {at} is {:#06x} and should be {:#06x}", dst[at], original[at]));
    }
    Ok(sample)
}

/// The first index at which two slices of one length differ.
fn first_difference(a: &[u16], b: &[u16]) -> Option<usize> {
    // Slices compare as memory, so the search is for the unlucky only.
    if a == b { None } else { Some(a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()))) }
}

/// The median; of an even number of values the mean of the middle two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share of the values lies, neighbours interpolated.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = share * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Cuts `n` things into so many ranges of about equal size.
pub fn cut(n: usize, parts: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..parts).map(move |i| n * i / parts..n * (i + 1) / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a wrong weight, or nothing at all.
    struct Liar(Option<usize>);

    impl Contestant for Liar {
        fn name(&self) -> String {
            "liar".into()
        }
        fn stored_bytes(&self) -> Option<usize> {
            None
        }
        fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
            if let Some(at) = self.0 {
                dst.fill(7);
                dst[at] = 8;
            }
            Ok(())
        }
    }

    #[test]
    fn wrong_answers_are_found() {
        let original = vec![7; 5000];
        let rounds = Rounds { count: 1, sample_seconds: 0.0, retries: 0 };
        let mut gauge = Gauge::new();
        for (liar, found) in [(Liar(Some(4999)), "weight 4999"), (Liar(None), "weight 0")] {
            let mut dst = original.clone();
            let error = run(&mut [Box::new(liar)], &original, &mut dst, rounds, &Cores::new(), &mut gauge).unwrap_err();
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile([0.0, 4.0], 0.25), 1.0);
    }
}
