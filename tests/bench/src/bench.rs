//! What the contests share: their options, running case after case, and where results go.

use crate::clock::{Cores, Gauge};
use crate::contest::{self, Contestant, Rounds};
use crate::copy;
use crate::data::{Buffer, Data};
use crate::machine::Machine;
use crate::python::{Package, Side, Worker};
use crate::report::{self, Case};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Says how a benchmark is called.
fn usage(bench: &Bench) -> String {
    let benchmark = bench.name;
    let weights = bench.weights.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    format!(
        "\
Usage: cargo bench -p df11-bench --bench {benchmark} -- [OPTIONS]
  --quick           small data, 3 rounds, no Python: checks answers and prints
  --weights N,N,..  sizes of the cases (default {weights})
  --rounds N        rounds per case (default 15)
  --only TEXT,..    only contestants whose name contains a TEXT; copies always run
  --threads N       threads of the parallel rows (default: all cores; 1: no such rows)
  --python PATH     the Python that may have ZipNN and OpenZL (default python3)
  --json FILE       write every sample to FILE
  --out DIR         write the table and the samples to DIR/<date>-<cpu>-{benchmark}.{{txt,json}}"
    )
}

/// What was asked for.
pub struct Options {
    /// Small data, and only to check.
    pub quick: bool,
    /// Sizes of the cases.
    pub weights: Vec<usize>,
    /// Rounds per case.
    pub rounds: usize,
    /// Parts of names; none means all.
    pub only: Vec<String>,
    /// Threads of the parallel rows; `None` takes all cores.
    pub threads: Option<usize>,
    /// The Python that may have the packages.
    pub python: String,
    /// Where to write.
    pub results: Results,
}

/// Where results go, besides standard output.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// A file for the samples.
    pub json: Option<PathBuf>,
    /// A folder for table and samples, by date and processor.
    pub out: Option<PathBuf>,
}

impl Results {
    /// Writes them.
    pub fn write(
        &self,
        benchmark: &str,
        machine: &Machine,
        table: &str,
        json: &serde_json::Value,
    ) -> Result<(), String> {
        let json = format!("{json:#}\n");
        let write = |path: &Path, content: &str| {
            std::fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("\nwritten: {}", path.display());
            Ok::<(), String>(())
        };
        if let Some(path) = &self.json {
            write(path, &json)?;
        }
        if let Some(dir) = &self.out {
            let name = format!("{}-{}-{benchmark}", machine.date, machine.slug());
            write(&dir.join(format!("{name}.txt")), table)?;
            write(&dir.join(format!("{name}.json")), &json)?;
        }
        Ok(())
    }
}

impl Options {
    /// `None` asks for help.
    fn parse(bench: &Bench, usage: &str, mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            quick: false,
            weights: Vec::new(),
            rounds: 0,
            only: Vec::new(),
            threads: None,
            python: "python3".into(),
            results: Results::default(),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value\n{usage}"));
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("{text:?} is no number"));
            match arg.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--weights" => options.weights = value()?.split(',').map(number).collect::<Result<_, _>>()?,
                "--rounds" => options.rounds = number(&value()?)?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--threads" => options.threads = Some(number(&value()?)?),
                "--python" => options.python = value()?,
                "--json" => options.results.json = Some(value()?.into()),
                "--out" => options.results.out = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown option {arg}\n{usage}")),
            }
        }
        if options.weights.is_empty() {
            let quick = options.quick;
            options.weights = if quick { vec![4_000_000, 147_456] } else { bench.weights.to_vec() };
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 3 } else { 15 };
        }
        if options.weights.contains(&0) {
            return Err("--weights must be above 0".into());
        }
        Ok(Some(options))
    }

    fn wants(&self, contestant: &dyn Contestant) -> bool {
        let name = contestant.name();
        self.only.is_empty() || copy::is_copy(&name) || self.only.iter().any(|text| name.contains(text))
    }
}

/// The contestants of a case.
pub type Contestants<'a> = Vec<Box<dyn Contestant + 'a>>;

/// A large layer, a group of a small model, and one whose weights stay in the second-level cache.
pub const LAYERS: &[usize] = &[70_000_000, 11_700_000, 147_456];

/// A contest.
pub struct Bench {
    /// Its name.
    pub name: &'static str,
    /// The sizes of its cases.
    pub weights: &'static [usize],
    /// What the Python packages do in it, if they can do anything of the kind.
    pub side: Option<Side>,
    /// Its contestants but for the Python packages: those on one thread, and, if it is more than one, those on so many. The
    /// copies come first.
    pub contestants: fn(&Data, usize) -> Result<[Contestants<'_>; 2], String>,
}

impl Bench {
    /// Does what the command line says.
    pub fn main(&self) -> ExitCode {
        match self.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("{message}");
                ExitCode::FAILURE
            }
        }
    }

    fn run(&self) -> Result<(), String> {
        let usage = usage(self);
        let Some(options) = Options::parse(self, &usage, std::env::args().skip(1))? else {
            println!("{usage}");
            return Ok(());
        };
        let cores = Cores::new();
        let machine = Machine::new(cores.count());
        let mut text = report::head(self.name, &machine);
        print!("{text}");
        cores.pin();
        let mut gauge = Gauge::new();
        cores.release();
        let (mut cases, mut notes) = (Vec::new(), Vec::new());
        for &n in &options.weights {
            let case = self.measure(n, &options, &cores, &mut gauge, &mut notes)?;
            let table = format!("\n{}", case.table());
            print!("{table}");
            text += &table;
            cases.push(case);
        }
        for note in &notes {
            println!("\n{note}");
            text += &format!("\n{note}\n");
        }
        let json = report::json(self.name, &machine, &cases, &notes);
        options.results.write(self.name, &machine, &text, &json)
    }

    fn measure(
        &self,
        n: usize,
        options: &Options,
        cores: &Cores,
        gauge: &mut Gauge,
        notes: &mut Vec<String>,
    ) -> Result<Case, String> {
        let threads = options.threads.unwrap_or(cores.count());
        let data = Data::new(n);
        let mut buffer = Buffer::new(n);
        let [mut all, parallel] = (self.contestants)(&data, threads)?;
        let packages = self.side.filter(|_| !options.quick).map(|side| Package::ALL.map(|package| (side, package)));
        for (side, package) in packages.into_iter().flatten() {
            // Pinned here, it stays so: its C core would else start threads as it likes.
            cores.pin();
            let worker = Worker::start(&options.python, package, side, &data.original);
            cores.release();
            match worker? {
                Some(worker) => all.push(Box::new(worker)),
                None => {
                    let note = format!("missing: {}", package.module());
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                }
            }
        }
        all.extend(parallel);
        all.retain(|c| options.wants(c.as_ref()));

        let (sample_seconds, retries) = if options.quick { (0.005, 0) } else { (0.02, 5) };
        let rounds = Rounds { count: options.rounds, sample_seconds, retries };
        let entries = contest::run(&mut all, &data.original, buffer.weights(), rounds, cores, gauge)?;
        Ok(Case { weights: n, code_bits: data.code_bits, rounds: options.rounds, gauge: *gauge, entries })
    }
}
