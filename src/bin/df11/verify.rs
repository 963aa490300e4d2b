//! `df11 verify`: checks that a model is consistent, and that it is equal to its original.

use crate::terminal::{Progress, clean, counted, fit, took, wrong};
use crate::thousands::thousands;
use crate::{Failure, Reading, Threads, interrupt};
use df11::verify::{self, Finding, FindingKind, Verified, VerifyOptions};
use df11::{Error, Model};
use std::path::PathBuf;
use std::time::Instant;

/// Checks a model: its structure, every code and its hashes; with --against, every bit
///
/// The structure is checked when the model is opened, and an error there ends the work. Then it is looked for what is absent, as
/// far as numbers in names, an index and config.json show it: files, tensors, layers. Then every code of every group is
/// walked, and the recorded gaps and positions are compared with where codes really start. Where the model's metadata has
/// hashes of its tensors, they are compared with those of the decoded values. Damage that keeps all of that true is seen
/// only by --against, which compares all tensors by name: type, shape (where the model says it) and every bit. All that
/// is wrong is listed on standard output.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// The uncompressed original: a folder with *.safetensors files, or one such file
    #[arg(long, value_name = "ORIGINAL")]
    against: Option<PathBuf>,
    /// Accept a model that lacks files, tensors or layers
    #[arg(long)]
    incomplete: bool,
    /// Accept a model of which nothing is compressed, also without --against
    #[arg(long)]
    allow_plain: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    reading: Reading,
}

/// The findings. Each one is printed when it is made, and the first of each kind that is wrong is repeated at the end.
struct Findings<'a> {
    model: &'a Model,
    progress: &'a Progress,
    quiet: bool,
    /// The first group, hash, absence and difference that are wrong.
    first: [Option<String>; 4],
    /// The time at which the last group was walked.
    walked: Option<Instant>,
    /// The error of standard output, if there was one.
    failure: Option<Failure>,
}

impl<'a> Findings<'a> {
    fn new(model: &'a Model, progress: &'a Progress, quiet: bool) -> Self {
        Findings { model, progress, quiet, first: [const { None }; 4], walked: None, failure: None }
    }

    /// Prints a finding. If that fails the library's work ends.
    fn add(&mut self, finding: Finding, work: &df11::Progress) {
        let Finding { kind, name, text, .. } = finding;
        if matches!(kind, FindingKind::Good | FindingKind::Bad) {
            self.walked = Some(Instant::now());
        }
        let label = match kind {
            _ if self.quiet && !kind.is_wrong() => return,
            FindingKind::Good => {
                let group = self.model.find_group(name);
                let count = thousands(group.map_or(0, |g| g.element_count()));
                return self.print(&format!("ok       {:<60} {count:>17} weights\n", fit(name, 60)), work);
            }
            FindingKind::Bad | FindingKind::Hash => "BAD",
            FindingKind::Differs => "DIFFERS",
            FindingKind::Missing => "MISSING",
            _ => "note",
        };
        let padded = format!("{label:<8}");
        let label = if kind.is_wrong() { wrong(&padded) } else { padded };
        self.print(&format!("{label} {}\n", clean(&text)), work);
        if kind.is_wrong() {
            let kinds = [FindingKind::Bad, FindingKind::Hash, FindingKind::Missing];
            let which = kinds.iter().position(|&k| k == kind).unwrap_or(3);
            self.first[which].get_or_insert(text);
        }
    }

    fn print(&mut self, text: &str, work: &df11::Progress) {
        if let Err(failure) = self.progress.print(text) {
            self.failure.get_or_insert(failure);
            work.cancel();
        }
    }

    /// Returns the library's result, unless the tool has cancelled its work.
    fn result(&mut self, result: Result<Verified, Error>) -> Result<Verified, Failure> {
        interrupt::check()?;
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(result?),
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &VerifyArgs, quiet: bool) -> Result<(), Failure> {
    let model = args.reading.open(&args.model)?;
    // The original is opened before the codes are walked, so that a wrong path is reported at once.
    let original = args.against.as_ref().map(|path| args.reading.open_original(path)).transpose()?;
    let options = VerifyOptions::new()
        .threads(args.threads.count())
        .incomplete(args.incomplete)
        .allow_plain(args.allow_plain || original.is_some());
    let mut parts = verify(&model, &options, quiet)?;
    if let Some(original) = &original {
        parts.extend(compare(&model, original, &options, quiet)?);
    }
    if parts.is_empty() { Ok(()) } else { Err(Failure::bad(parts.join("; and "))) }
}

fn counted_bad(all: u64, noun: &str, what: &str) -> String {
    format!("{} {} {what}", counted(all, noun), if all == 1 { "is" } else { "are" })
}

/// Formats a number of hashes, whose plural is irregular.
fn counted_hashes(number: u64) -> String {
    format!("{} hash{}", thousands(number), if number == 1 { "" } else { "es" })
}

/// Walks every code of every group and compares the hashes. Returns what is wrong, in words.
fn verify(model: &Model, options: &VerifyOptions, quiet: bool) -> Result<Vec<String>, Failure> {
    let start = Instant::now();
    let bar = Progress::new("verifying", 0, quiet);
    let progress = bar.of_library();
    let mut findings = Findings::new(model, &bar, quiet);
    let result = verify::verify_model(model, None, options, &progress, &mut |f| findings.add(f, &progress));
    let found = findings.result(result)?;
    let hashes = found.hashes_right + found.hashes_wrong;
    if !quiet {
        let walked = findings.walked.unwrap_or(start);
        bar.print(&format!(
            "{} good, {} bad; {} walked{}\n",
            counted(found.groups_good, "group"),
            thousands(found.groups_bad),
            counted(found.codes, "code"),
            took(walked - start)
        ))?;
        if hashes > 0 {
            let right = counted_hashes(found.hashes_right);
            let wrong = thousands(found.hashes_wrong);
            bar.print(&format!("{right} right, {wrong} wrong; compared{}\n", took(walked.elapsed())))?;
        }
    }
    let [group, hash, missing, _] = findings.first;
    let mut parts = Vec::new();
    if let Some(first) = missing {
        let more =
            if found.missing > 1 { format!(" ({} such lines)", thousands(found.missing)) } else { String::new() };
        parts.push(format!("the model is incomplete{more}: {first}"));
    }
    if let Some(first) = group {
        let groups = counted_bad(found.groups_good + found.groups_bad, "group", "damaged");
        parts.push(format!("{} of {groups}: {first}", found.groups_bad));
    }
    if let Some(first) = hash {
        let are = if found.hashes_wrong == 1 { "is" } else { "are" };
        parts.push(format!("{} of {} {are} wrong: {first}", thousands(found.hashes_wrong), counted_hashes(hashes)));
    }
    Ok(parts)
}

/// Compares every tensor with the original's. Returns what is wrong, in words.
fn compare(model: &Model, original: &Model, options: &VerifyOptions, quiet: bool) -> Result<Option<String>, Failure> {
    let start = Instant::now();
    let bar = Progress::new("comparing", 0, quiet);
    let progress = bar.of_library();
    let mut findings = Findings::new(model, &bar, quiet);
    let result = verify::compare_models(model, original, options, &progress, &mut |f| findings.add(f, &progress));
    let found = findings.result(result)?;
    if !quiet {
        bar.print(&format!(
            "{} equal, {} different; compared{}\n",
            counted(found.tensors_equal, "tensor"),
            thousands(found.tensors_different),
            took(start.elapsed())
        ))?;
    }
    let [.., first] = findings.first;
    let tensors = counted(found.tensors_different, "tensor");
    Ok(first.map(|first| format!("the model differs from the original in {tensors}: {first}")))
}
