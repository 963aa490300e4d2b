//! `df11 repack`: a compressed model in other files.

use crate::decompress::destination;
use crate::terminal::{Progress, bytes, clean, counted, print, took};
use crate::{Failure, Reading, Threads, interrupt};
use df11::Status;
use df11::writer::{self, Layout, RepackOptions};
use std::path::PathBuf;
use std::time::Instant;

/// Writes a compressed model in other files: a folder as one file, and back
///
/// OUT is a new folder with one file per group, config.json and all other files of MODEL; or one file, with config.json beside it, if
/// its name ends in .safetensors. Nothing is decoded: groups and plain tensors keep their bytes, and shapes, hashes and names
/// that the files have are kept. Shapes that --shapes-from has are added. It has its name when it is complete, and not before.
#[derive(clap::Args)]
pub struct RepackArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// The folder to write, which is new or empty, or a file whose name ends in .safetensors
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Write all tensors to one file, model.safetensors in the folder OUT
    #[arg(long)]
    single_file: bool,
    /// Replace OUT if it is a file that is there already, when the new one is complete; a folder is never replaced
    #[arg(short, long)]
    force: bool,
    /// Repack what is there of a model that lacks files, tensors or layers. Without this such a model is refused
    #[arg(long)]
    incomplete: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the subcommand.
pub fn run(args: &RepackArgs, quiet: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let to = destination(&args.output)?;
    let options = RepackOptions::new()
        .threads(args.threads.count())
        .open(args.reading.options()?)
        .layout(if args.single_file { Layout::SingleFile } else { Layout::ByName })
        .keep_existing(!args.force)
        .incomplete(args.incomplete);
    // The library removes what is unfinished when it is told to end.
    let hold = interrupt::hold()?;
    let bar = Progress::new("repacking", 0, quiet);
    let result = writer::repack(&args.model, &to, &options, &bar.of_library());
    drop(bar);
    let report = result.map_err(|error| match (interrupt::check(), error.status()) {
        (Err(interrupted), Status::Cancelled) => interrupted,
        _ => error.into(),
    })?;
    drop(hold);
    if quiet {
        return Ok(());
    }
    let files = if report.files > 1 { format!(" in {} files", report.files) } else { String::new() };
    print(&format!(
        "{}: {} and {}, {}{files}{}\n",
        clean(&args.output.display().to_string()),
        counted(report.groups, "group"),
        counted(report.plain, "plain tensor"),
        bytes(report.written_bytes),
        took(start.elapsed())
    ))
}
