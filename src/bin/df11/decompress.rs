//! `df11 decompress`: a model back to plain safetensors, as a folder or as one file.

use crate::output::resolve;
use crate::size;
use crate::terminal::{Progress, bytes, clean, counted, print, took};
use crate::thousands::thousands;
use crate::{Failure, Reading, Threads, interrupt};
use df11::writer::{self, DecompressOptions, DecompressReport};
use df11::{Error, Status};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Turns a model back into plain safetensors, bit for bit
///
/// OUT is a new folder as models are published: files of at most 5 GB with an index, config.json without dfloat11_config,
/// tokenizers and all other files of MODEL. If it ends in .safetensors, it is one file of all tensors. All tensors get their
/// original names, the compressed ones as BF16. It has its name when it is complete, and not before.
///
/// DF11 does not store the shapes of compressed tensors. They are those that MODEL's metadata gives, those of --shapes-from,
/// and those that follow from config.json and the plain tensors with certainty. If some are unknown, a folder needs --flat,
/// and in one file such tensors have one dimension.
#[derive(clap::Args)]
pub struct DecompressArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// The folder to write, which is new or empty, or a file whose name ends in .safetensors
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Replace OUT if it is a file that is there already, when the new one is complete; a folder is never replaced
    #[arg(short, long)]
    force: bool,
    /// Put at most so many bytes of tensors into one file of a folder, such as 500MB or 2GiB
    #[arg(long, value_name = "BYTES", default_value = "5GB", value_parser = parse_shard_bytes)]
    shard_bytes: u64,
    /// Write tensors whose shapes are not known to a folder with one dimension
    #[arg(long)]
    flat: bool,
    /// Write this tensor; may be given more than once
    #[arg(long = "tensor", value_name = "NAME")]
    tensors: Vec<String>,
    /// Write the tensors of this group; may be given more than once
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// Decompress what is there of a model that lacks files, tensors or layers. Without this such a model is refused (with --tensor or --group none is)
    #[arg(long)]
    incomplete: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    reading: Reading,
}

/// Parses the bytes of a file.
fn parse_shard_bytes(text: &str) -> Result<u64, String> {
    match size::whole(text, "500MB")? {
        0 => Err("a file must have room for something".into()),
        bytes => Ok(bytes),
    }
}

/// Runs the subcommand.
pub fn run(args: &DecompressArgs, quiet: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let to = destination(&args.output)?;
    let options = DecompressOptions::new()
        .threads(args.threads.count())
        .open(args.reading.options()?)
        .tensors(&args.tensors)
        .groups(&args.groups)
        .shard_bytes(args.shard_bytes)
        .flat(args.flat)
        .keep_existing(!args.force)
        .incomplete(args.incomplete);
    // The library removes what is unfinished when it is told to end.
    let hold = interrupt::hold()?;
    let bar = Progress::new("decompressing", 0, quiet);
    let result = writer::decompress(&args.model, &to, &options, &bar.of_library());
    drop(bar);
    let report = result.map_err(|error| match (interrupt::check(), error.status()) {
        (Err(interrupted), Status::Cancelled) => interrupted,
        _ => failure(error),
    })?;
    drop(hold);
    if quiet { Ok(()) } else { print(&summary(&report, &args.output, start.elapsed())) }
}

/// Returns where to write.
pub fn destination(output: &Path) -> Result<PathBuf, Failure> {
    refuse_stdout(output)?;
    resolve(output)
}

/// Refuses `-`, which other programs take for standard output.
pub fn refuse_stdout(output: &Path) -> Result<(), Failure> {
    if output == Path::new("-") {
        let reason = "a model is not written to standard output: name a folder, or a file that ends in .safetensors";
        return Err(Failure::cannot(format!("cannot write '-': {reason}")));
    }
    Ok(())
}

/// Says which option helps.
fn failure(error: Error) -> Failure {
    match error {
        Error::ShapesUnknown { .. } => {
            let remedy =
                "take them from the original's headers (--shapes-from ORIGINAL), or accept one dimension (--flat)";
            Failure::cannot(format!("{error}: {remedy}"))
        }
        Error::NotFound(_) => Failure::cannot(format!("{error} (`df11 inspect --all` lists all)")),
        _ => error.into(),
    }
}

/// The most files that are not copied that are named one by one.
const NAMED: usize = 20;

fn summary(report: &DecompressReport, out: &Path, time: Duration) -> String {
    let is_file = out.extension().is_some_and(|e| e == "safetensors");
    let files = if report.files > 1 { format!(" in {} files", report.files) } else { String::new() };
    let (count, size) = (counted(report.tensors, "tensor"), bytes(report.written_bytes));
    let mut text = format!("{}: {count}, {size}{files}{}\n", clean(&out.display().to_string()), took(time));
    if report.flat > 0 {
        let (have, shapes) = if report.flat == 1 { ("has", "its shape is") } else { ("have", "their shapes are") };
        let count = counted(report.flat, "tensor");
        text += &format!(
            "{count} {have} one dimension: {shapes} not known (--shapes-from ORIGINAL takes them from its headers)\n"
        );
    }
    for (head, embedding) in &report.dropped {
        text += &format!("tied       '{}' is equal to '{}' and is not stored\n", clean(head), clean(embedding));
    }
    if !is_file {
        let has = match report.config_keys {
            0 => Some("the model has no config.json of its own"),
            1 => Some("the model's config.json has one key alone"),
            _ => None,
        };
        if let Some(has) = has {
            text += &format!("config     {has}: programs that load the folder need that of the original in it\n");
        }
    }
    for file in report.left_behind.iter().take(NAMED) {
        text += &format!("not copied '{}'\n", clean(&file.display().to_string()));
    }
    if report.left_behind.len() > NAMED {
        text += &format!("           and {} more\n", thousands((report.left_behind.len() - NAMED) as u64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_files_are_those_of_hugging_face() {
        assert_eq!(parse_shard_bytes("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_shard_bytes("500mb"), Ok(500_000_000));
        assert_eq!(parse_shard_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_shard_bytes("100"), Ok(100));
        for bad in ["", "0", "M", "12X", "-1G", "99999999999GB", "1.5G"] {
            assert!(parse_shard_bytes(bad).is_err(), "{bad}");
        }
    }
}
