//! A whole model compressed, beside `cp` of it. See the package's README.
//!
//! Each compression runs in a process of its own, this program again, so that its memory is its own, and so that it starts
//! as cold as `cp` does.

use df11::internals::host::{VerifyOptions, verify_model};
use df11::writer::{CompressOptions, compress};
use df11::{Model, OpenOptions, Progress};
use df11_bench::bench::Results;
use df11_bench::clock::{Cores, Sample};
use df11_bench::contest::{median, quantile};
use df11_bench::machine::Machine;
use df11_bench::model::Shape;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "\
Usage: cargo bench -p df11-bench --bench model -- [OPTIONS]
  --quick           30 MB, 2 rounds: checks answers and prints
  --bytes N         size of the model (default 2000000000); the disk needs twice as much
  --rounds N        rounds (default 5)
  --threads N       threads of the parallel rows (default: all cores; 1: no such rows)
  --dir DIR         where the model is written, in a folder that is removed (default: the system's temporary folder)
  --json FILE       write every sample to FILE
  --out DIR         write the table and the samples to DIR/<date>-<cpu>-model.{txt,json}";

/// The first argument of the process that compresses: it is no option.
const CHILD: &str = "--compress-in-this-process";

struct Options {
    bytes: u64,
    rounds: usize,
    threads: usize,
    dir: PathBuf,
    results: Results,
}

impl Options {
    /// `None` asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let (mut quick, mut bytes, mut rounds, mut threads) = (false, None, None, None);
        let (mut dir, mut results) = (std::env::temp_dir(), Results::default());
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
            match arg.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => quick = true,
                "--bytes" => bytes = Some(number(value()?)?),
                "--rounds" => rounds = Some(number(value()?)? as usize),
                "--threads" => threads = Some(number(value()?)? as usize),
                "--dir" => dir = value()?.into(),
                "--json" => results.json = Some(value()?.into()),
                "--out" => results.out = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown option {arg}\n{USAGE}")),
            }
        }
        Ok(Some(Options {
            bytes: bytes.unwrap_or(if quick { 30_000_000 } else { 2_000_000_000 }),
            rounds: rounds.unwrap_or(if quick { 2 } else { 5 }).max(1),
            threads: threads.unwrap_or(Cores::new().count()),
            dir,
            results,
        }))
    }
}

/// What takes its turn in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The `cp` command.
    Copy,
    /// The same, and the copies brought to the disk, as libdf11 brings what it writes.
    CopySynced,
    /// The library, in a process of its own.
    Compress { threads: usize, verify: bool },
}

/// What one of them did in all rounds.
struct Entry {
    kind: Kind,
    samples: Vec<Sample>,
    /// Bytes of memory at most, where the system tells.
    peak: Option<u64>,
    /// Bytes of all files written.
    written: u64,
}

impl Entry {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Copy => "cp",
            Kind::CopySynced => "cp, synced",
            Kind::Compress { verify: true, .. } => "df11",
            Kind::Compress { verify: false, .. } => "df11, not verified",
        }
    }

    fn threads(&self) -> usize {
        match self.kind {
            Kind::Compress { threads, .. } => threads,
            _ => 1,
        }
    }

    /// The median over the rounds of the time as a multiple of another's in the same round.
    fn times(&self, other: &Entry) -> f64 {
        median(self.samples.iter().zip(&other.samples).map(|(s, o)| s.wall / o.wall))
    }
}

/// CPU seconds of all children that were waited for.
fn children_seconds() -> f64 {
    // SAFETY: zeros are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a rusage that lives through the call.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Runs a command to its end and returns what it said.
fn finish(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// All files of a folder, which has no folders in it.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
    entries.map_err(|e| format!("{}: {e}", folder.display()))
}

/// One turn, to a destination that is not there: its time, and the most memory, where that is known.
fn turn(kind: Kind, source: &Path, destination: &Path) -> Result<(Sample, Option<u64>), String> {
    // Virtual machines give memory that is free for some seconds back to their host, which takes long to return it. So all
    // begin with as much memory just freed, whoever came before.
    finish(Command::new("cp").arg("-R").arg(source).arg(destination))?;
    fs::remove_dir_all(destination).map_err(|e| e.to_string())?;
    // Nobody writes what another has left to be written.
    // SAFETY: takes nothing.
    unsafe { libc::sync() };
    let (wall, cpu) = (Instant::now(), children_seconds());
    let said = match kind {
        Kind::Copy | Kind::CopySynced => finish(Command::new("cp").arg("-R").arg(source).arg(destination))?,
        Kind::Compress { threads, verify } => {
            let program = std::env::current_exe().map_err(|e| e.to_string())?;
            let args = [threads.to_string(), verify.to_string()];
            finish(Command::new(program).arg(CHILD).arg(source).arg(destination).args(args))?
        }
    };
    if kind == Kind::CopySynced {
        let synced = |path: PathBuf| File::open(&path).and_then(|f| f.sync_all()).map_err(|e| e.to_string());
        files(destination)?.into_iter().chain([destination.to_owned()]).try_for_each(synced)?;
    }
    let sample = Sample { wall: wall.elapsed().as_secs_f64(), cpu: children_seconds() - cpu };
    Ok((sample, said.parse().ok()))
}

/// Compresses, and says the most bytes of memory that this process had.
fn child(args: &[String]) -> Result<(), String> {
    let [source, destination, threads, verify] = args else { return Err("four arguments".into()) };
    let options =
        CompressOptions::new().threads(threads.parse().map_err(|_| "no number of threads")?).verify(verify == "true");
    compress(Path::new(source), Path::new(destination), &options, &Progress::new()).map_err(|e| e.to_string())?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    println!("{}", peak.map_or(String::new(), |kib: u64| (kib << 10).to_string()));
    Ok(())
}

/// Compares every bit with the original.
fn check(compressed: &Path, source: &Path, threads: usize) -> Result<(), String> {
    let open = |path: &Path| Model::open(path, &OpenOptions::default()).map_err(|e| e.to_string());
    let (model, original) = (open(compressed)?, open(source)?);
    let mut wrong = Vec::new();
    let verified = verify_model(
        &model,
        Some(&original),
        &VerifyOptions::new().threads(threads),
        &Progress::new(),
        &mut |finding| {
            if finding.kind.is_wrong() {
                wrong.push(finding.text);
            }
        },
    )
    .map_err(|e| e.to_string())?;
    if model.groups().len() == 0 || verified.tensors_equal != original.tensors().len() as u64 {
        return Err(format!("{} of {} tensors are equal", verified.tensors_equal, original.tensors().len()));
    }
    if verified.is_good() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// All rounds, in a folder that is there. Returns the source's bytes too.
fn contest(options: &Options, folder: &Path) -> Result<(u64, Vec<Entry>), String> {
    let (source, destination) = (folder.join("model"), folder.join("result"));
    fs::create_dir(&source).map_err(|e| e.to_string())?;
    let shape = Shape::of(options.bytes);
    let bytes = shape.write(&source).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut kinds = vec![Kind::Copy, Kind::CopySynced];
    for verify in [true, false] {
        kinds.push(Kind::Compress { threads: 1, verify });
        if options.threads > 1 {
            kinds.push(Kind::Compress { threads: options.threads, verify });
        }
    }
    let mut entries: Vec<Entry> =
        kinds.into_iter().map(|kind| Entry { kind, samples: Vec::new(), peak: None, written: 0 }).collect();
    // The first round is not counted: it brings the source into the system's cache, and there answers are checked.
    for round in 0..=options.rounds {
        for entry in &mut entries {
            let (sample, peak) = turn(entry.kind, &source, &destination)?;
            if round == 0 {
                let size = |path: &PathBuf| fs::metadata(path).map_or(0, |m| m.len());
                entry.written = files(&destination)?.iter().map(size).sum();
                if matches!(entry.kind, Kind::Compress { .. }) {
                    check(&destination, &source, options.threads).map_err(|e| format!("{}: {e}", entry.name()))?;
                }
            } else {
                entry.samples.push(sample);
                entry.peak = entry.peak.max(peak);
            }
            fs::remove_dir_all(&destination).map_err(|e| e.to_string())?;
        }
    }
    Ok((bytes, entries))
}

fn table(bytes: u64, rounds: usize, entries: &[Entry]) -> String {
    let mut out = format!("{:.1} MB of bf16, medians of {rounds} rounds\n", bytes as f64 * 1e-6);
    out += &format!(
        "{:<20} {:>7} {:>8} {:>6} {:>9} {:>11} {:>7} {:>5} {:>7} {:>8} {:>8}\n",
        "", "threads", "seconds", "GB/s", "times cp", "times synced", "CPU s", "busy", "spread", "peak MB", "MB"
    );
    for entry in entries {
        let wall = median(entry.samples.iter().map(|s| s.wall));
        let cpu = median(entry.samples.iter().map(|s| s.cpu));
        let quartile = |share| quantile(entry.samples.iter().map(|s| s.wall), share);
        out += &format!(
            "{:<20} {:>7} {:>8.2} {:>6.2} {:>9.2} {:>12.2} {:>7.2} {:>5.2} {:>6.1}% {:>8} {:>8.1}\n",
            entry.name(),
            entry.threads(),
            wall,
            bytes as f64 / wall * 1e-9,
            entry.times(&entries[0]),
            entry.times(&entries[1]),
            cpu,
            median(entry.samples.iter().map(|s| s.cpu / s.wall)),
            100.0 * (quartile(0.75) - quartile(0.25)) / wall,
            entry.peak.map_or("-".into(), |peak| format!("{:.0}", peak as f64 * 1e-6)),
            entry.written as f64 * 1e-6,
        );
    }
    out
}

fn json(machine: &Machine, bytes: u64, entries: &[Entry]) -> Value {
    let entries: Vec<Value> = entries
        .iter()
        .map(|e| {
            json!({
                "name": e.name(), "threads": e.threads(), "times_cp": e.times(&entries[0]),
                "times_cp_synced": e.times(&entries[1]), "peak_bytes": e.peak, "written_bytes": e.written,
                "wall_s": e.samples.iter().map(|s| s.wall).collect::<Vec<_>>(),
                "cpu_s": e.samples.iter().map(|s| s.cpu).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"benchmark": "model", "machine": machine.json(), "bytes": bytes, "entries": entries})
}

fn head(machine: &Machine) -> String {
    let mut out = String::from(
        "libdf11 model benchmark: a model compressed from a folder to a folder, each time by a process of its own, and `cp`\n\
         of that folder. GB are 10^9 bytes of bf16 read. `times cp` is the time as a multiple of that of `cp` in the same\n\
         round, `times synced` of `cp` and bringing the copies to the disk, which libdf11 does with what it writes. `busy`\n\
         is the number of cores at work, CPU time by wall time; `spread` is the middle half of the samples; `peak` is the\n\
         most memory at a time (VmHWM), `MB` what was written. The source was in the system's cache. Every model was\n\
         compared with the original once.\n\n",
    );
    machine.lines().iter().for_each(|line| out += &format!("{line}\n"));
    out
}

fn run() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == CHILD) {
        return child(&args[1..]);
    }
    let Some(options) = Options::parse(args.into_iter())? else {
        println!("{USAGE}");
        return Ok(());
    };
    let machine = Machine::new(Cores::new().count());
    let mut text = head(&machine);
    println!("{text}");
    let folder = options.dir.join(format!("df11-bench-model-{}", std::process::id()));
    fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let result = contest(&options, &folder);
    let _ = fs::remove_dir_all(&folder);
    let (bytes, entries) = result?;
    let table = table(bytes, options.rounds, &entries);
    print!("{table}");
    text += &format!("\n{table}");
    options.results.write("model", &machine, &text, &json(&machine, bytes, &entries))
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
