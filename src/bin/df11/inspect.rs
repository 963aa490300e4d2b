//! `df11 inspect`: groups, tensors, sizes and where the bits go.

use crate::kinds::{self, Kind};
use crate::plot;
use crate::summary::{CodeBits, GroupSummary, Members, Summary, TensorSummary};
use crate::terminal::{bytes, counted, extension, fit, line, print, share};
use crate::thousands::thousands;
use crate::{Failure, Reading, Threads};
use std::path::PathBuf;

/// Shows a model's groups, tensors, sizes and where its bits go
///
/// Groups and tensors whose names differ in numbers only, and that are equal otherwise, share a line. Only headers,
/// tables and positions are read, unless --plot asks for more.
///
/// The object that --json prints has the keys: schema (1), path, config_version, files[] {path, bytes}, groups[] {name,
/// tensors[], extended (only libdf11 reads it), weights, blocks, stored, bits_per_weight, code_bits {shortest, longest, mean}, code_lengths {exponent:
/// bits}}, tensors[] {name, dtype, shape, shape_known, shape_source, bytes, group}, totals {files, groups, tensors, weights,
/// stored, bits_per_weight, bf16, plain, decoded, file_bytes}, missing[] {name, reason}. Here stored (in bytes) and bits_per_weight are objects with the
/// keys sign_mantissa, codes, gaps, positions, luts, splits, total. Keys are added, never renamed; what cannot be said is
/// null; shape_known is false where nothing says the dimensions of a compressed tensor, and shape_source is stored (in
/// the files), given (--shapes-from), derived (from the config and the plain tensors, where it is certain) or null.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// Print one JSON object instead (see --help for its keys)
    #[arg(long)]
    json: bool,
    /// Give each group and each tensor a line of its own
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Also draw how often each exponent occurs and how long its code is, to a file that is replaced if it is there. All weights
    /// are decoded for this
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Draw one group only
    #[arg(long, value_name = "NAME", requires = "plot")]
    group: Option<String>,
    /// Accept a model that lacks files, tensors or layers. Without this it is shown, and the exit code is 1
    #[arg(long)]
    incomplete: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the subcommand.
pub fn run(args: &InspectArgs, quiet: bool) -> Result<(), Failure> {
    if args.plot.is_none() {
        args.threads.unused("--plot")?;
    }
    let model = args.reading.open(&args.model)?;
    let summary = Summary::new(&args.model, &model)?;
    // The picture first: if it cannot be drawn, nothing but the reason is printed.
    if let Some(to) = &args.plot {
        plot::run(&model, &args.model, args.group.as_deref(), to, args.threads.count(), quiet)?;
    }
    print(&if args.json { summary.json()? } else { text(&summary, args.all) })?;
    match summary.missing.first() {
        Some(first) if !args.incomplete => {
            let more = summary.missing.len() - 1;
            let more = if more > 0 { format!(" (and {})", counted(more as u64, "such line")) } else { String::new() };
            Err(Failure::bad(format!("the model is incomplete{more}: {}", first.reason)))
        }
        _ => Ok(()),
    }
}

/// Formats the summary for people: at most 100 columns, except for the path.
fn text(summary: &Summary, all: bool) -> String {
    let mut out = String::new();
    head(&mut out, summary);
    if !summary.groups.is_empty() {
        sizes(&mut out, summary);
        if let Some(bits) = &summary.totals.bits_per_weight {
            where_the_bits_go(&mut out, bits);
        }
        groups(&mut out, &summary.groups, all);
    }
    tensors(&mut out, &summary.tensors, all);
    if !summary.missing.is_empty() {
        line!(out, "\nMISSING");
        summary.missing.iter().for_each(|missing| line!(out, "{}", crate::terminal::clean(&missing.reason)));
    }
    out
}

fn head(out: &mut String, summary: &Summary) {
    let totals = &summary.totals;
    let kind = match (&summary.config_version, summary.groups.is_empty()) {
        (_, true) => "plain safetensors, nothing compressed".to_owned(),
        (Some(version), false) => format!("DF11, config version {}", fit(version, 20)),
        (None, false) => "DF11, no config".to_owned(),
    };
    line!(out, "{}", crate::terminal::clean(&summary.path));
    line!(
        out,
        "{kind}; {}, {}, {} of {}",
        counted(summary.groups.len() as u64, "group"),
        counted(summary.tensors.len() as u64, "tensor"),
        counted(summary.files.len() as u64, "file"),
        bytes(totals.file_bytes),
    );
    let extended = summary.groups.iter().filter(|group| group.extended).count();
    if extended > 0 {
        line!(out, "{}", extension(extended as u64));
    }
}

fn sizes(out: &mut String, summary: &Summary) {
    let totals = &summary.totals;
    line!(out, "\n{:<22} {:>17} {:>12} {:>12} {:>9}", "SIZE", "weights", "decoded", "stored", "ratio");
    let mut row = |what: &str, weights: String, decoded: u64, stored: u64| {
        let ratio = share(stored, decoded);
        line!(out, "{what:<22} {weights:>17} {:>12} {:>12} {ratio:>9}", bytes(decoded), bytes(stored));
    };
    row("in groups", thousands(totals.weights), totals.bf16, totals.stored.total);
    row("plain tensors", String::new(), totals.plain, totals.plain);
    row("all", String::new(), totals.decoded, totals.stored.total + totals.plain);
}

fn where_the_bits_go(out: &mut String, bits: &Members<f64>) {
    line!(out, "\n{:<22} {:>17} {:>12}", "BITS PER WEIGHT", "", "share");
    let rows = [
        ("sign and mantissa", bits.sign_mantissa),
        ("codes", bits.codes),
        ("gaps", bits.gaps),
        ("positions", bits.positions),
        ("look-up tables", bits.luts),
        ("splits", bits.splits),
        ("all", bits.total),
    ];
    for (what, value) in rows {
        line!(out, "{what:<22} {value:>17.4} {:>10.2} %", 100.0 * value / bits.total);
    }
}

fn groups(out: &mut String, groups: &[GroupSummary], all: bool) {
    line!(
        out,
        "\n{:<33} {:>5} {:>7} {:>15} {:>10} {:>8}  {}",
        "GROUP",
        "count",
        "tensors",
        "weights each",
        "stored",
        "bits",
        "code bits"
    );
    let kinds = if all {
        groups.iter().map(|g| Kind { name: g.name.clone(), members: vec![g] }).collect()
    } else {
        kinds::fold(groups, |g: &GroupSummary| &g.name, |g| (g.tensors.len(), g.weights))
    };
    for kind in kinds {
        let [first, ..] = kind.members[..] else { continue };
        let stored: u64 = kind.members.iter().map(|g| g.stored.total).sum();
        let weights = first.weights * kind.members.len() as u64;
        let per_weight = if weights == 0 { "-".into() } else { format!("{:.3}", 8.0 * stored as f64 / weights as f64) };
        line!(
            out,
            "{:<33} {:>5} {:>7} {:>15} {:>10} {per_weight:>8}  {}",
            fit(&kind.name, 33),
            kind.members.len(),
            first.tensors.len(),
            thousands(first.weights),
            bytes(stored),
            code_bits(kind.members.iter().map(|g| g.code_bits))
        );
    }
}

/// Formats the shortest and the longest code of groups of equal size, and the mean by use.
fn code_bits(all: impl Iterator<Item = CodeBits> + Clone) -> String {
    let shortest = all.clone().filter_map(|c| c.shortest).min();
    let longest = all.clone().filter_map(|c| c.longest).max();
    let (Some(shortest), Some(longest)) = (shortest, longest) else { return "-".into() };
    let means: Vec<f64> = all.filter_map(|c| c.mean).collect();
    if means.is_empty() {
        return format!("{shortest}-{longest}");
    }
    format!("{shortest}-{longest}, mean {:.2}", means.iter().sum::<f64>() / means.len() as f64)
}

fn tensors(out: &mut String, tensors: &[TensorSummary], all: bool) {
    line!(out, "\n{:<50} {:>6}  {:<11} {:<17} {:>10}", "TENSOR", "count", "stored as", "shape each", "decoded");
    let kinds = if all {
        tensors.iter().map(|t| Kind { name: t.name.clone(), members: vec![t] }).collect()
    } else {
        kinds::fold(tensors, |t: &TensorSummary| &t.name, |t| (&t.dtype, &t.shape, t.place_in_group, t.shape_known))
    };
    for kind in kinds {
        let [first, ..] = kind.members[..] else { continue };
        line!(
            out,
            "{:<50} {:>6}  {:<11} {:<17} {:>10}",
            fit(&kind.name, 50),
            kind.members.len(),
            if first.group.is_some() { "DF11" } else { &first.dtype },
            shape(first),
            bytes(kind.members.iter().map(|t| t.bytes).sum())
        );
    }
    if tensors.iter().any(|t| !t.shape_known) {
        line!(out, "\nA number instead of a [shape]: the weights of a tensor whose dimensions are not in the model.");
        line!(out, "--shapes-from ORIGINAL takes them from the original, of which only the headers are needed.");
    }
}

fn shape(tensor: &TensorSummary) -> String {
    if !tensor.shape_known {
        return thousands(tensor.shape.iter().product());
    }
    let dimensions: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    fit(&format!("[{}]", dimensions.join(", ")), 17)
}
