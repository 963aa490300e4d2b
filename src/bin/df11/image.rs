//! `df11 image`: what a device decodes, in files.

use crate::decompress::destination;
use crate::terminal::{Progress, bytes, clean, counted, print, took};
use crate::{Failure, Reading, Threads, interrupt};
use df11::writer::{self, ImagesOptions};
use df11::{Error, Status};
use std::path::PathBuf;
use std::time::Instant;

/// Writes a compressed model as images: files that a CUDA device decodes as they are
///
/// DIR is a new folder. Each group becomes a file in it, to be read into device memory by cuFile or any other loader and used
/// there with df11_device_bind_image(). Its size is a multiple of 4096 bytes. The file images.json says which group is where.
/// Tensors in no group stay in MODEL. No CUDA is needed. The memory for the largest image is taken. The folder has its
/// images.json when it is complete, and not before.
#[derive(clap::Args)]
pub struct ImageArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// The folder to write, which is new or empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Write the image of this group; may be given more than once
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// Remove the images that are in DIR already before the new ones are written; nothing else is ever removed
    #[arg(short, long)]
    force: bool,
    /// Write what is there of a model that lacks files, tensors or layers. Without this such a model is refused (with --group none is)
    #[arg(long)]
    incomplete: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the subcommand.
pub fn run(args: &ImageArgs, quiet: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let to = destination(&args.output)?;
    let options = ImagesOptions::new()
        .threads(args.threads.count())
        .open(args.reading.options()?)
        .groups(&args.groups)
        .keep_existing(!args.force)
        .incomplete(args.incomplete);
    // The library removes what is unfinished when it is told to end.
    let hold = interrupt::hold()?;
    let bar = Progress::new("writing images", 0, quiet);
    let result = writer::write_images(&args.model, &to, &options, &bar.of_library());
    drop(bar);
    let report = result.map_err(|error| match (interrupt::check(), error.status()) {
        (Err(interrupted), Status::Cancelled) => interrupted,
        _ => failure(error),
    })?;
    drop(hold);
    if quiet {
        return Ok(());
    }
    print(&format!(
        "{}: {}, {}{}\n",
        clean(&args.output.display().to_string()),
        counted(report.images, "image"),
        bytes(report.written_bytes),
        took(start.elapsed())
    ))
}

/// Says which option helps.
fn failure(error: Error) -> Failure {
    match error {
        Error::NotFound(_) => Failure::cannot(format!("{error} (`df11 inspect --all` lists all)")),
        Error::NotEmpty { .. } => {
            Failure::cannot(format!("{error}: write to a new or empty folder (--force removes images only)"))
        }
        _ => error.into(),
    }
}
