//! `df11 compress` and `df11 merge`: write models.

use crate::decompress::refuse_stdout;
use crate::size;
use crate::terminal::{Progress, bytes, clean, counted, extension, fit, print, share, took};
use crate::thousands::thousands;
use crate::{Failure, Threads, interrupt};
use df11::writer::Patterns;
use df11::writer::{self, CompressOptions, Coverage, Layout, Part, PlainReason, Report, SideFile};
use df11::{Error, Status};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most tensors that stay plain, and files that are not copied, that are named one by one.
const NAMED: usize = 20;
/// The bytes of a file from which on it is told that it was copied.
const LARGE: u64 = 10_000_000;

/// Compresses a model to DF11: about 68 % of its size, every bit kept
///
/// SOURCE is a folder in Hugging Face layout (transformers, or one component of a diffusers pipeline), or one
/// .safetensors file; nothing in it is changed. OUT is a new folder with one file per group, or one file if its name ends in .safetensors
/// (see --single-file). Groups are written as the reference compressor writes them, byte for byte; --hashes, --shapes and
/// what only libdf11 reads add to that. Every group is decoded and compared before its file gets its name.
///
/// If it is interrupted (Ctrl-C, a full disk, a power cut), what is finished stays, and --resume resumes it; the result has the
/// same bytes. No reader takes what is unfinished for a model.
#[derive(clap::Args)]
pub struct CompressArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threads: Threads,
    /// Memory to work in, such as 256M or 2G; no more is taken, however large the model is
    #[arg(long, value_name = "BYTES", default_value = "512M", value_parser = parse_bytes)]
    memory: u64,
    /// Do only every N-th group, from the I-th on: N processes or machines share one OUT on a common disk. When all are
    /// finished, `df11 merge` completes it
    #[arg(long, value_name = "I/N", value_parser = parse_part)]
    part: Option<Part>,
    /// Resume what an interrupted run has left in OUT: what is done is compared with SOURCE, the rest is written
    #[arg(long)]
    resume: bool,
    /// Overwrite OUT if it is a file, when the new one is complete; a folder is never replaced
    #[arg(short, long)]
    force: bool,
    /// Do not decode and compare what was written
    #[arg(long)]
    no_verify: bool,
    /// Decode each group and compare it before its file gets its name; on unless --no-verify is given
    #[arg(long, conflicts_with = "no_verify")]
    verify: bool,
    /// Print the result as JSON: complete, preset, groups, extended_groups (those that only libdf11 reads), weights,
    /// weight_bytes, packed_bytes, bits_per_weight, source_bytes, written_bytes, resumed, seconds, bf16_bytes, grouped_bf16_bytes, grouped_share (0 to 1), plain[] {reason, tensors, bytes,
    /// bf16_bytes, largest[] {tensor, bytes}}, left, dropped, unmatched_patterns, missing[] {name, reason}, carried, carried_bytes,
    /// left_behind, left_behind_bytes. A reason is not_asked_for, too_small, other_type, values or format
    #[arg(long)]
    json: bool,
}

/// Completes a model that was compressed in parts
///
/// Takes the SOURCE and OUT of the parts, and of their options those that decide what is written: --preset, --pattern,
/// --hashes, --shapes, --reference-only and --incomplete. Checks that all parts are finished and that nothing is missing, and writes
/// what belongs to no group, config.json, and the files that go with the model.
#[derive(clap::Args)]
pub struct MergeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threads: Threads,
    /// Print the result as JSON, with the keys of `df11 compress`
    #[arg(long)]
    json: bool,
}

/// The arguments that decide which bytes are written.
#[derive(clap::Args)]
struct ModelArgs {
    /// A folder in Hugging Face layout, or one .safetensors file
    source: PathBuf,
    /// The folder to write, which is new or empty, or a new file whose name ends in .safetensors
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Take the groups of this preset (`df11 presets` lists them), or `automatic` ones, which are made of the tensors' names and
    /// shapes [default: the preset that suits the model, or automatic groups if they cover clearly more of it]
    #[arg(long, value_name = "NAME", conflicts_with = "pattern")]
    preset: Option<String>,
    /// Take the groups of this file: a pattern_dict as JSON, or any config.json that has one. `df11 presets NAME` prints one to
    /// begin with: regular expressions that match whole names of modules, each with the modules inside whose weights make a
    /// group, without .weight; an empty list is the module's own weight
    #[arg(long, value_name = "FILE")]
    pattern: Option<PathBuf>,
    /// Write all tensors to one file, model.safetensors in the folder OUT
    #[arg(long)]
    single_file: bool,
    /// Fail if something that the groups ask for cannot be compressed, instead of leaving it as it is
    #[arg(long)]
    strict: bool,
    /// If nothing can be compressed (another type than bf16, an infinity in each group), write a plain copy instead of failing
    #[arg(long)]
    allow_plain: bool,
    /// Compress a SOURCE that lacks shards, tensors or layers, instead of failing; config.json then says what is absent
    #[arg(long)]
    incomplete: bool,
    /// Write SHA-256 of every tensor to the files, which `df11 verify` then checks; the reference writes none
    #[arg(long)]
    hashes: bool,
    /// Write the shapes of compressed tensors to the files. The reference writes none, and not all of them follow from the
    /// model. With automatic groups, which the reference does not make, they are always written
    #[arg(long)]
    shapes: bool,
    /// Leave plain what the reference's format cannot name or hold (experts in one tensor without .weight, tensors of 2^32
    /// weights), instead of writing it by an extension that only libdf11 reads. --pattern and the preset of a published model do so
    /// anyway
    #[arg(long)]
    reference_only: bool,
}

impl ModelArgs {
    fn options(&self) -> Result<CompressOptions, Failure> {
        refuse_stdout(&self.output)?;
        let options = CompressOptions::new()
            .patterns(self.pattern.as_ref().map(|path| read_patterns(path)).transpose()?)
            .layout(if self.single_file { Layout::SingleFile } else { Layout::ByName })
            .strict(self.strict)
            .allow_plain(self.allow_plain)
            .incomplete(self.incomplete)
            .hashes(self.hashes)
            .shapes(self.shapes)
            .reference_only(self.reference_only);
        Ok(match &self.preset {
            Some(name) => options.preset(name),
            None => options,
        })
    }
}

/// Reads the patterns of a file.
pub fn read_patterns(path: &Path) -> Result<Patterns, Failure> {
    let named =
        |e: &dyn std::fmt::Display| Failure::cannot(format!("cannot use the patterns of '{}': {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| named(&e))?;
    Patterns::parse(&text).map_err(|e| named(&format!("{e} (`df11 presets NAME` prints patterns to begin with)")))
}

fn parse_part(text: &str) -> Result<Part, String> {
    Part::parse(text).map_err(|e| e.to_string())
}

/// Parses a size such as `512M`. The letters are powers of 1024.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = size::whole(text, "512M")?;
    const LEAST: u64 = 16 << 20;
    if bytes < LEAST { Err("at least 16M are needed".into()) } else { Ok(bytes) }
}

/// Runs `df11 compress`.
pub fn compress(args: &CompressArgs, quiet: bool) -> Result<(), Failure> {
    let options = args
        .model
        .options()?
        .threads(args.threads.count())
        .memory(args.memory)
        .part(args.part.unwrap_or(Part::WHOLE))
        .resume(args.resume)
        .keep_existing(!args.force)
        .verify(!args.no_verify);
    let label = if options.verify { "compressing and verifying" } else { "compressing" };
    let work = |progress: &_| writer::compress(&args.model.source, &args.model.output, &options, progress);
    run(&args.model, (label, "the same command with --resume"), args.json, quiet, work)
}

/// Runs `df11 merge`.
pub fn merge(args: &MergeArgs, quiet: bool) -> Result<(), Failure> {
    let options = args.model.options()?.threads(args.threads.count());
    let work = |progress: &_| writer::merge(&args.model.source, &args.model.output, &options, progress);
    run(&args.model, ("merging", "the same command"), args.json, quiet, work)
}

fn run(
    args: &ModelArgs,
    (label, again): (&'static str, &str),
    json: bool,
    quiet: bool,
    work: impl FnOnce(&df11::Progress) -> Result<Report, Error>,
) -> Result<(), Failure> {
    let start = Instant::now();
    // The library undoes or keeps what is unfinished when it is told to end.
    let hold = interrupt::hold()?;
    let bar = Progress::new(label, 0, quiet);
    let result = work(&bar.of_library());
    drop(bar);
    let report = result.map_err(|error| match (interrupt::check(), error.status()) {
        (Err(interrupted), Status::Cancelled) => advise(interrupted, args, again),
        // The reason may pass: a full disk, too little memory.
        (_, Status::Cancelled | Status::Io | Status::OutOfMemory) => advise(error.into(), args, again),
        (_, Status::UnsupportedFormat) if args.strict => Failure::cannot(error),
        _ => error.into(),
    })?;
    drop(hold);
    let took = start.elapsed();
    if json {
        return print(&(as_json(&report, took).to_string() + "\n"));
    }
    if quiet { Ok(()) } else { print(&summary(&report, &args.output, took)) }
}

/// Says after a failure how to resume, if there is something to resume.
fn advise(failure: Failure, args: &ModelArgs, again: &str) -> Failure {
    match failure {
        Failure::Cannot(text) if writer::is_unfinished(&args.output) => {
            Failure::Cannot(format!("{text}; what is finished stays: {again} resumes it"))
        }
        other => other,
    }
}

fn summary(report: &Report, out: &Path, time: Duration) -> String {
    let mut text = String::new();
    let preset = report.preset.as_ref().map_or(String::new(), |p| format!(", preset {p}"));
    text += &format!(
        "{}: {} of {}{preset}{}\n",
        clean(&out.display().to_string()),
        counted(report.groups, "group"),
        counted(report.weights, "weight"),
        took(time)
    );
    if report.weights > 0 {
        text += &format!(
            "groups     {} became {}: {}, {:.3} bits per weight\n",
            bytes(report.weight_bytes),
            bytes(report.packed_bytes),
            share(report.packed_bytes, report.weight_bytes),
            8.0 * report.packed_bytes as f64 / report.weights as f64
        );
    }
    if report.complete {
        text += &format!(
            "model      {} became {}: {}\n",
            bytes(report.source_bytes),
            bytes(report.written_bytes),
            share(report.written_bytes, report.source_bytes)
        );
    } else {
        text += "this part is finished; when all are, `df11 merge` completes the model\n";
    }
    if time > Duration::from_millis(100) && report.resumed == 0 {
        let rate = report.weight_bytes as f64 / time.as_secs_f64();
        text += &format!("speed      {} per second\n", bytes(rate as u64));
    }
    if report.resumed > 0 {
        text += &format!("resumed    {} of an earlier run\n", counted(report.resumed, "group"));
    }
    for (head, embedding) in &report.dropped {
        text += &format!("tied       '{}' is equal to '{}' and is not stored\n", clean(head), clean(embedding));
    }
    coverage(&report.coverage, &mut text);
    if report.extended_groups > 0 {
        text += &format!("{}\n", extension(report.extended_groups));
    }
    let mut group = None;
    for left in report.left.iter().take(NAMED) {
        // The reason is that of the group.
        let same = group.replace(&left.group) == Some(&left.group);
        let reason = if same { "with its group".into() } else { clean(&left.reason) };
        text += &format!("left plain '{}': {reason}\n", clean(&left.tensor));
    }
    if report.left.len() > NAMED {
        text += &format!("           and {} more (--json names all)\n", thousands((report.left.len() - NAMED) as u64));
    }
    for pattern in &report.unmatched_patterns {
        text += &format!("no match   the pattern '{}' matches no module\n", clean(pattern));
    }
    for missing in report.missing.iter().take(NAMED) {
        text += &format!("lacks      {}\n", clean(&missing.reason));
    }
    let large: Vec<&SideFile> = report.carried.iter().filter(|file| file.bytes >= LARGE).collect();
    files("copied", &large, &mut text);
    files("not copied", &report.left_behind.iter().collect::<Vec<_>>(), &mut text);
    text
}

/// Adds lines about files beside the weights.
fn files(label: &str, files: &[&SideFile], text: &mut String) {
    for file in files.iter().take(NAMED) {
        *text += &format!("{label:<10} '{}', {}\n", clean(&file.path.display().to_string()), bytes(file.bytes));
    }
    if let Some(more) = files.get(NAMED..).filter(|more| !more.is_empty()) {
        let sum = more.iter().map(|file| file.bytes).sum();
        *text += &format!("           and {} more, {}\n", thousands(more.len() as u64), bytes(sum));
    }
}

/// Adds lines about what is in groups and what is not.
pub fn coverage(coverage: &Coverage, text: &mut String) {
    if coverage.bf16_bytes > 0 {
        // Rounded down: only all of it is 100 %.
        let percent = (10_000.0 * coverage.share()).floor() / 100.0;
        *text += &format!("in groups  {percent:.2} % of the bf16 bytes\n");
    }
    for plain in &coverage.plain {
        let of_all = match plain.bf16_bytes {
            0 => String::new(),
            some => format!(", {} of the bf16 bytes", share(some, coverage.bf16_bytes)),
        };
        let (tensors, size) = (counted(plain.tensors, "tensor"), bytes(plain.bytes));
        *text += &format!("plain      {tensors}, {size}{of_all}: {}\n", plain.reason.text());
        // Norms and biases are of no interest.
        if plain.reason != PlainReason::TooSmall {
            let name = |(name, size): &(String, u64)| format!("'{}' {}", fit(name, 60), bytes(*size));
            let largest: Vec<String> = plain.largest.iter().take(3).map(name).collect();
            *text += &format!("           the largest: {}\n", largest.join(", "));
        }
    }
}

/// Returns the tensors that stay plain for one reason as JSON.
pub fn stays_plain(plain: &writer::StaysPlain) -> serde_json::Value {
    let largest = |(tensor, bytes): &(String, u64)| json!({ "tensor": tensor, "bytes": bytes });
    json!({
        "reason": plain.reason.name(),
        "tensors": plain.tensors,
        "bytes": plain.bytes,
        "bf16_bytes": plain.bf16_bytes,
        "largest": plain.largest.iter().map(largest).collect::<Vec<_>>(),
    })
}

fn as_json(report: &Report, time: Duration) -> serde_json::Value {
    let paths = |files: &[SideFile]| files.iter().map(|f| f.path.display().to_string()).collect::<Vec<_>>();
    let sum = |files: &[SideFile]| files.iter().map(|f| f.bytes).sum::<u64>();
    let coverage = &report.coverage;
    let missing = |m: &df11::Missing| json!({ "name": m.name, "reason": m.reason });
    let left = |l: &writer::LeftPlain| json!({ "tensor": l.tensor, "group": l.group, "reason": l.reason });
    let dropped = |(head, embedding): &(String, String)| json!({ "tensor": head, "equal_to": embedding });
    let bits = (report.weights > 0).then(|| 8.0 * report.packed_bytes as f64 / report.weights as f64);
    json!({
        "complete": report.complete,
        "preset": report.preset,
        "groups": report.groups,
        "extended_groups": report.extended_groups,
        "weights": report.weights,
        "weight_bytes": report.weight_bytes,
        "packed_bytes": report.packed_bytes,
        "bits_per_weight": bits,
        "source_bytes": report.source_bytes,
        "written_bytes": report.written_bytes,
        "resumed": report.resumed,
        "seconds": time.as_secs_f64(),
        "left": report.left.iter().map(left).collect::<Vec<_>>(),
        "dropped": report.dropped.iter().map(dropped).collect::<Vec<_>>(),
        "unmatched_patterns": report.unmatched_patterns,
        "bf16_bytes": coverage.bf16_bytes,
        "grouped_bf16_bytes": coverage.grouped_bf16_bytes,
        "grouped_share": coverage.share(),
        "plain": coverage.plain.iter().map(stays_plain).collect::<Vec<_>>(),
        "missing": report.missing.iter().map(missing).collect::<Vec<_>>(),
        "carried": paths(&report.carried),
        "carried_bytes": sum(&report.carried),
        "left_behind": paths(&report.left_behind),
        "left_behind_bytes": sum(&report.left_behind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory_have_units() {
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("33554432"), Ok(32 << 20));
        for bad in ["", "M", "1M", "12X", "-1G", "99999999999T", "1.5G"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
