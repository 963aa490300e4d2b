//! libdf11's decoder beside a memory copy and its peers. See the package's README.

use df11_bench::clock::{Cores, Gauge};
use df11_bench::contest::{self, Contestant, Rounds};
use df11_bench::copy::Copy;
use df11_bench::data::{Buffer, Data};
use df11_bench::huf0::{Decoder, Huf0, Packed};
use df11_bench::machine::Machine;
use df11_bench::ours::Df11;
use df11_bench::report::{self, Case};
use df11_bench::zipnn::ZipNn;
use df11_bench::zstd::Zstd;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo bench -p df11-bench --bench decode -- [OPTIONS]
  --quick           small data, 3 rounds, no ZipNN: checks answers and prints
  --weights N,N,..  sizes of the cases (default 70000000,11700000,147456)
  --rounds N        rounds per case (default 15)
  --only TEXT,..    only contestants whose name contains a TEXT; the copy always runs
  --threads N       threads of the parallel rows (default: all cores; 1: no such rows)
  --python PATH     the Python that may have ZipNN (default python3)
  --json FILE       write every sample to FILE
  --out DIR         write the table and the samples to DIR/<date>-<cpu>-decode.{txt,json}";

struct Options {
    quick: bool,
    weights: Vec<usize>,
    rounds: usize,
    only: Vec<String>,
    threads: Option<usize>,
    python: String,
    json: Option<PathBuf>,
    out: Option<PathBuf>,
}

impl Options {
    /// `None` asks for help.
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            quick: false,
            // A large layer, a group of a small model, and one whose weights stay in the second-level cache.
            weights: Vec::new(),
            rounds: 0,
            only: Vec::new(),
            threads: None,
            python: "python3".into(),
            json: None,
            out: None,
        };
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
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
                "--json" => options.json = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown option {arg}\n{USAGE}")),
            }
        }
        if options.weights.is_empty() {
            let quick = options.quick;
            options.weights = if quick { vec![4_000_000, 147_456] } else { vec![70_000_000, 11_700_000, 147_456] };
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
        self.only.is_empty() || contestant.stored_bytes().is_none() || self.only.iter().any(|text| name.contains(text))
    }
}

fn measure(
    n: usize,
    options: &Options,
    cores: &Cores,
    gauge: &mut Gauge,
    notes: &mut Vec<String>,
) -> Result<Case, String> {
    let threads = options.threads.unwrap_or(cores.count());
    let data = Data::new(n);
    let packed = Packed::new(&data.original)?;
    let mut buffer = Buffer::new(n);

    let mut all: Vec<Box<dyn Contestant + '_>> = vec![Box::new(Copy::new(&data.original, 1))];
    let ours = Df11::all(&data, threads)?;
    let (parallel, single): (Vec<_>, Vec<_>) = ours.into_iter().partition(|d| d.threads() > 1);
    single.into_iter().for_each(|d| all.push(Box::new(d)));
    all.push(Box::new(Huf0::new(&packed, Decoder::X1, 1)?));
    all.push(Box::new(Huf0::new(&packed, Decoder::X2, 1)?));
    all.push(Box::new(Zstd::new(&data.original, 1)?));
    all.push(Box::new(Zstd::new(&data.original, 3)?));
    if !options.quick {
        // Pinned here, it stays so: its C core would else start threads as it likes.
        cores.pin();
        let zipnn = ZipNn::start(&options.python, &data.original);
        cores.release();
        match zipnn? {
            Some(zipnn) => all.push(Box::new(zipnn)),
            None => {
                let note = "missing: zipnn".to_owned();
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    if threads > 1 {
        all.push(Box::new(Copy::new(&data.original, threads)));
        parallel.into_iter().for_each(|d| all.push(Box::new(d)));
        all.push(Box::new(Huf0::new(&packed, Decoder::X1, threads)?));
        all.push(Box::new(Huf0::new(&packed, Decoder::X2, threads)?));
    }
    all.retain(|c| options.wants(c.as_ref()));

    let (sample_seconds, retries) = if options.quick { (0.005, 0) } else { (0.02, 5) };
    let rounds = Rounds { count: options.rounds, sample_seconds, retries };
    let entries = contest::run(&mut all, &data.original, buffer.weights(), rounds, cores, gauge)?;
    Ok(Case { weights: n, code_bits: data.code_bits, rounds: options.rounds, gauge: *gauge, entries })
}

fn run() -> Result<(), String> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let cores = Cores::new();
    let machine = Machine::new(cores.count());
    let mut text = report::head(&machine);
    print!("{text}");
    cores.pin();
    let mut gauge = Gauge::new();
    cores.release();
    let (mut cases, mut notes) = (Vec::new(), Vec::new());
    for &n in &options.weights {
        let case = measure(n, &options, &cores, &mut gauge, &mut notes)?;
        let table = format!("\n{}", case.table());
        print!("{table}");
        text += &table;
        cases.push(case);
    }
    for note in &notes {
        println!("\n{note}");
        text += &format!("\n{note}\n");
    }

    let json = format!("{:#}\n", report::json(&machine, &cases, &notes));
    let write = |path: PathBuf, content: &str| {
        std::fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("\nwritten: {}", path.display());
        Ok::<(), String>(())
    };
    if let Some(path) = options.json {
        write(path, &json)?;
    }
    if let Some(dir) = options.out {
        let name = format!("{}-{}-decode", machine.date, machine.slug());
        write(dir.join(format!("{name}.txt")), &text)?;
        write(dir.join(format!("{name}.json")), &json)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
