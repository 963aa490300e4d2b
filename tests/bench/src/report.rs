//! Results as a table and as JSON.

use crate::clock::{Gauge, Sample};
use crate::contest::{Entry, median, quantile};
use crate::copy;
use crate::machine::Machine;
use serde_json::{Value, json};

/// The entries of one case.
#[derive(Debug, Clone)]
pub struct Case {
    /// How many weights.
    pub weights: usize,
    /// Mean length of the DF11 codes.
    pub code_bits: f64,
    /// Rounds.
    pub rounds: usize,
    /// What was known of the core at the end.
    pub gauge: Gauge,
    /// One per contestant.
    pub entries: Vec<Entry>,
}

/// The figures of one entry: medians over the rounds.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// 10^9 bytes of bf16 per second, by the clock on the wall.
    pub gb_per_s: f64,
    /// By the clock on the wall.
    pub ns_per_weight: f64,
    /// CPU time of all threads.
    pub cpu_ns_per_weight: f64,
    /// Speed as a share of the peer's with as many threads in the same round, by the clock on the wall. Of copies the
    /// faster one counts, of those to the same kind of pages.
    pub of_peer: Option<f64>,
    /// The same by CPU time.
    pub of_peer_cpu: Option<f64>,
    /// Cores that were at work on average: CPU time by wall time.
    pub busy: f64,
    /// How far the middle half of the samples spreads, as a share of the median.
    pub spread: f64,
    /// Size of the stored form.
    pub bits_per_weight: Option<f64>,
}

impl Case {
    /// The figures of an entry of this case.
    pub fn figures(&self, entry: &Entry) -> Figures {
        let n = self.weights as f64;
        let wall = median(entry.samples.iter().map(|s| s.wall));
        let cpu = median(entry.samples.iter().map(|s| s.cpu));
        let like = |e: &&Entry| {
            e.threads == entry.threads
                && if entry.peer == copy::NAME {
                    copy::is_copy(&e.name) && copy::is_huge(&e.name) == copy::is_huge(&entry.name)
                } else {
                    e.name == entry.peer
                }
        };
        let peers: Vec<&Entry> = self.entries.iter().filter(like).collect();
        let against = |of: fn(&Sample) -> f64| {
            let fastest = |round: usize| peers.iter().map(|p| of(&p.samples[round])).fold(f64::INFINITY, f64::min);
            let ratios = entry.samples.iter().enumerate().map(|(round, s)| fastest(round) / of(s));
            (!peers.is_empty()).then(|| median(ratios))
        };
        let quartile = |share| quantile(entry.samples.iter().map(|s| s.wall), share);
        Figures {
            gb_per_s: 2.0 * n / wall * 1e-9,
            ns_per_weight: wall / n * 1e9,
            cpu_ns_per_weight: cpu / n * 1e9,
            of_peer: against(|s| s.wall),
            of_peer_cpu: against(|s| s.cpu),
            busy: median(entry.samples.iter().map(|s| s.cpu / s.wall)),
            spread: (quartile(0.75) - quartile(0.25)) / wall,
            bits_per_weight: entry.stored_bytes.map(|bytes| 8.0 * bytes as f64 / n),
        }
    }

    /// The case as a table.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{} weights ({:.1} MB of bf16), mean code {:.3} bits, medians of {} rounds\n",
            grouped(self.weights),
            self.weights as f64 * 2e-6,
            self.code_bits,
            self.rounds
        );
        let copies = self.entries.iter().all(|e| e.peer == copy::NAME);
        let share = if copies { "x copy" } else { "x peer" };
        out += &format!(
            "{:<34} {:>7} {:>7} {:>9} {:>7} {:>9} {:>7} {:>6} {:>7} {:>7}\n",
            "", "threads", "GB/s", "ns/weight", share, "CPU ns/w", share, "busy", "spread", "bits/w"
        );
        for entry in &self.entries {
            let f = self.figures(entry);
            let peer = if copies { String::new() } else { format!("  {}", entry.peer) };
            let optional = |value: Option<f64>, digits| value.map_or("-".into(), |v| format!("{v:.digits$}"));
            out += &format!(
                "{:<34} {:>7} {:>7.2} {:>9.3} {:>7} {:>9.3} {:>7} {:>6.2} {:>6.1}% {:>7}{peer}\n",
                entry.name,
                entry.threads,
                f.gb_per_s,
                f.ns_per_weight,
                optional(f.of_peer, 2),
                f.cpu_ns_per_weight,
                optional(f.of_peer_cpu, 2),
                f.busy,
                100.0 * f.spread,
                optional(f.bits_per_weight, 3),
            );
        }
        if self.entries.iter().any(|e| e.threads > 1 && self.figures(e).busy < 0.75 * e.threads as f64) {
            out += "The system did not give every thread a core of its own (busy): rows of several threads show no scaling\n";
        }
        let noisy: usize = self.entries.iter().map(|e| e.noisy(&self.gauge)).sum();
        if noisy > 0 {
            let all: usize = self.entries.iter().map(|e| e.samples.len()).sum();
            out += &format!("{noisy} of {all} samples were disturbed by something else on the machine\n");
        }
        out
    }

    fn json(&self) -> Value {
        let entries: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                let f = self.figures(entry);
                json!({
                    "name": entry.name, "threads": entry.threads, "peer": entry.peer, "gb_per_s": f.gb_per_s, "ns_per_weight": f.ns_per_weight,
                    "cpu_ns_per_weight": f.cpu_ns_per_weight, "of_peer": f.of_peer, "of_peer_cpu": f.of_peer_cpu,
                    "busy": f.busy, "spread": f.spread, "bits_per_weight": f.bits_per_weight,
                    "gauge_s": entry.gauge.iter().map(|g| g.as_secs_f64()).collect::<Vec<_>>(),
                    "wall_s": entry.samples.iter().map(|s| s.wall).collect::<Vec<_>>(),
                    "cpu_s": entry.samples.iter().map(|s| s.cpu).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"weights": self.weights, "code_bits": self.code_bits, "rounds": self.rounds, "gauge_best_s": self.gauge.best().as_secs_f64(), "entries": entries})
    }
}

/// What heads a report of a contest ([`Case`]): how to read it, and what it was measured on.
pub fn head(benchmark: &str, machine: &Machine) -> String {
    let mut out = format!(
        "libdf11 {benchmark} benchmark. GB are 10^9 bytes of bf16. `x copy` is the speed as a share of the faster memory copy\n\
         of the bf16 in the same round, by as many threads and to pages of the same kind, first by wall time, then by CPU\n\
         time; a streamed copy goes past the caches. `x peer` is a share of the row that the line ends with. `busy` is the\n\
         number of cores at work, CPU time by wall time; `spread` is the middle half of the samples. Every answer was\n\
         compared with the original bits.\n\n",
    );
    machine.lines().iter().for_each(|line| out += &format!("{line}\n"));
    out
}

/// The whole result for programs: every sample in seconds, in the order of the rounds.
pub fn json(benchmark: &str, machine: &Machine, cases: &[Case], notes: &[String]) -> Value {
    let cases: Vec<Value> = cases.iter().map(Case::json).collect();
    json!({"benchmark": benchmark, "machine": machine.json(), "notes": notes, "cases": cases})
}

/// A number with commas between its thousands.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_and_ratios_are_taken_within_rounds() {
        let entry = |name: &str, stored, seconds: [f64; 3]| Entry {
            name: name.into(),
            threads: 1,
            peer: copy::NAME.into(),
            stored_bytes: stored,
            gauge: Vec::new(),
            samples: seconds.iter().map(|&s| Sample { wall: s, cpu: s }).collect(),
        };
        // The machine was slow in the second round, for both.
        let ours = entry("ours", Some(1_000_000_000), [2.0, 20.0, 2.0]);
        let copies = [("memory copy", [3.0, 10.0, 1.0]), ("memory copy, streamed", [1.0, 30.0, 3.0])];
        let mut entries = vec![ours];
        entries.extend(copies.map(|(name, seconds)| entry(name, None, seconds)));
        entries.push(entry("memory copy, huge pages", None, [0.1; 3]));
        let case = Case { weights: 1_000_000_000, code_bits: 2.6, rounds: 3, gauge: Gauge::new(), entries };
        let f = case.figures(&case.entries[0]);
        assert_eq!((f.gb_per_s, f.ns_per_weight, f.of_peer, f.bits_per_weight), (1.0, 2.0, Some(0.5), Some(8.0)));
        assert!(case.table().contains("1,000,000,000 weights"));
    }
}
