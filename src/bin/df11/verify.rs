//! `df11 verify`: is a model what it says, and is it what it was made from?

use crate::compare::{self, Comparison};
use crate::terminal::{Progress, clean, counted, fit, thousands, took};
use crate::{Common, Failure, Threads, interrupt};
use df11::{Model, Status, host};
use std::path::PathBuf;
use std::time::Instant;

/// Checks a model: its structure and every code; with --against, every bit
///
/// The structure is checked when the model is opened, and an error there ends the work. Then every code of every group is
/// walked, and the recorded gaps and positions are compared with where codes really start. Damage that keeps all of that
/// true is seen only by --against, which compares all tensors by name: type, shape (where the model knows it) and every
/// bit. All that is wrong is listed on standard output.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// The uncompressed original: a folder with *.safetensors files, or one such file
    #[arg(long, value_name = "ORIGINAL")]
    against: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

/// What was found to be wrong. Each finding is printed when it is made; the first is told again at the end.
#[derive(Default)]
pub struct Findings {
    count: u64,
    first: Option<String>,
}

impl Findings {
    /// Notes and prints a finding.
    pub fn add(&mut self, label: &str, text: String, progress: &Progress) -> Result<(), Failure> {
        progress.print(&format!("{label:<8} {}\n", clean(&text)))?;
        self.count += 1;
        self.first.get_or_insert(text);
        Ok(())
    }
}

/// Runs the subcommand.
pub fn run(args: &VerifyArgs, common: &Common) -> Result<(), Failure> {
    let model = common.open_to_stream(&args.model)?;
    // Before the codes are walked: a wrong path should not be found out minutes later.
    let original = args.against.as_ref().map(|path| common.open_original(path)).transpose()?;
    let threads = args.threads.count();
    let damaged = walk(&model, threads, common)?;
    let differing = match &original {
        Some(original) => compare(&Comparison { model: &model, original, threads }, common)?,
        None => Findings::default(),
    };

    let mut parts = Vec::new();
    if let Some(first) = &damaged.first {
        let groups = model.groups().len() as u64;
        parts.push(format!("{} of {}: {first}", damaged.count, counted_bad(groups, "group", "damaged")));
    }
    if let Some(first) = &differing.first {
        parts.push(format!("the model differs from the original in {}: {first}", counted(differing.count, "tensor")));
    }
    if parts.is_empty() { Ok(()) } else { Err(Failure::bad(parts.join("; and "))) }
}

fn counted_bad(all: u64, noun: &str, what: &str) -> String {
    format!("{} {} {what}", counted(all, noun), if all == 1 { "is" } else { "are" })
}

/// Walks every code of every group.
fn walk(model: &Model, threads: usize, common: &Common) -> Result<Findings, Failure> {
    let start = Instant::now();
    let weights: u64 = model.groups().iter().map(|g| g.element_count()).sum();
    let progress = Progress::new("verifying", 2 * weights, common.quiet());
    let mut findings = Findings::default();
    for (number, group) in model.groups().iter().enumerate() {
        interrupt::check()?;
        match host::verify(model, number, threads) {
            Ok(()) if common.quiet() => {}
            Ok(()) => {
                let count = thousands(group.element_count());
                progress.print(&format!("ok       {:<60} {count:>17} weights\n", fit(group.name(), 60)))?;
            }
            Err(error) if error.status() == Status::Corrupt => {
                findings.add("BAD", format!("group '{}': {error}", group.name()), &progress)?;
            }
            Err(error) => return Err(error.into()),
        }
        progress.advance(2 * group.element_count());
    }
    if !common.quiet() {
        let good = model.groups().len() as u64 - findings.count;
        progress.print(&format!(
            "{} good, {} bad; {} walked{}\n",
            counted(good, "group"),
            thousands(findings.count),
            counted(weights, "code"),
            took(start)
        ))?;
    }
    Ok(findings)
}

/// Compares every tensor with the original's.
fn compare(comparison: &Comparison, common: &Common) -> Result<Findings, Failure> {
    let start = Instant::now();
    let progress = Progress::new("comparing", comparison.bytes(), common.quiet());
    let mut findings = Findings::default();
    let compared = compare::run(comparison, &mut findings, &progress, common.quiet())?;
    if !common.quiet() {
        progress.print(&format!(
            "{} equal, {} different; compared{}\n",
            counted(compared.equal, "tensor"),
            thousands(findings.count),
            took(start)
        ))?;
    }
    Ok(findings)
}
