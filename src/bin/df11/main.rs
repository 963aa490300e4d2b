//! The command line tool `df11`: compresses models to DF11, inspects, decompresses and verifies them.
//!
//! This file holds the command line, the exit codes and what all subcommands share; each subcommand has a file of its
//! own. The tool uses the library through its public interface alone, as an engine written in Rust would.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done, and nothing is wrong |
//! | 1 | the model is bad, or differs from the original |
//! | 2 | it could not be done: usage, input and output, no model there, interrupted |
//!
//! Results go to standard output. An error is one line on standard error, `df11: error: …`. A reader of standard output
//! that goes away (`df11 inspect MODEL | head`) ends nothing: the exit code of `verify` still tells what it found.

mod advice;
mod compress;
mod decompress;
mod histogram;
mod image;
mod inspect;
mod interrupt;
mod kinds;
mod manual;
mod output;
mod plan;
mod plot;
mod presets;
mod repack;
mod size;
mod summary;
mod terminal;
#[path = "../../thousands.rs"]
mod thousands;
mod verify;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand};
use df11::{Model, OpenOptions, Status};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compresses models to DF11 (losslessly compressed bf16 weights), inspects, decompresses and verifies them.
///
/// MODEL is a folder with *.safetensors files and a config.json, or one .safetensors file.
///
/// Exit codes: 0 done, and nothing is wrong; 1 the model is bad or incomplete, differs from the original, or nothing of it can
/// be compressed; 2 it could not be done (usage, input and output, no model there, interrupted). Nothing half-written is left behind after an error or Ctrl-C.
#[derive(Parser)]
#[command(name = "df11", version)]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compress(compress::CompressArgs),
    Merge(compress::MergeArgs),
    Plan(plan::PlanArgs),
    Inspect(inspect::InspectArgs),
    Decompress(decompress::DecompressArgs),
    Verify(verify::VerifyArgs),
    Repack(repack::RepackArgs),
    Image(image::ImageArgs),
    Presets(presets::PresetsArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// The options for the amount of output, which every subcommand takes.
#[derive(Args)]
pub(crate) struct Verbosity {
    /// Say more on standard error; twice for everything
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// Say nothing but errors and what is bad: no warnings, no progress bar, no summary
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

/// The options of the subcommands that read a model.
#[derive(Args)]
pub(crate) struct Reading {
    /// Use this config.json instead of the model's own: for a single file that comes without one, so that the tensors
    /// inside its groups get their names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accept a model that says it was written by an unknown version of the compressor
    #[arg(long)]
    any_version: bool,
    /// Take the shapes that the model's files do not say from PATH: the original (a folder with *.safetensors files, or one
    /// such file), of which only the headers are read and need be there, or a .json file with an object from names of
    /// tensors to lists of dimensions
    #[arg(long, value_name = "PATH")]
    shapes_from: Option<PathBuf>,
}

/// The number of threads, for the subcommands that decode.
#[derive(Args)]
pub(crate) struct Threads {
    /// Threads to work with [default: as many as this process may use]
    #[arg(long = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    count: Option<u16>,
}

impl Threads {
    /// Fails if a number was given to a command that decodes nothing this time.
    pub fn unused(&self, unless: &str) -> Result<(), Failure> {
        match self.count {
            Some(_) => Err(Failure::cannot(format!("--threads does nothing without {unless}: leave it out"))),
            None => Ok(()),
        }
    }

    /// Returns the number that was asked for, or that of the processors that this process may use.
    pub fn count(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        self.count.map_or_else(available, usize::from)
    }
}

impl Reading {
    /// Opens the model. Its files are read, never mapped: that is as fast if each byte is used once, and a mapped file would count as
    /// this process's memory, in the end all of it.
    pub fn open(&self, path: &Path) -> Result<Model, Failure> {
        Ok(Model::open(path, &self.options()?)?)
    }

    /// Opens what the model is compared with. A config given on the command line is not meant for it, and if it is bad,
    /// that says nothing about the model.
    pub fn open_original(&self, path: &Path) -> Result<Model, Failure> {
        Model::open_original(path)
            .map_err(|e| Failure::cannot(format!("the original cannot be used: {e}{}", advice::after(&e))))
    }

    pub fn options(&self) -> Result<OpenOptions, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|e| Failure::cannot(format!("cannot read the config '{}': {e}", path.display())))
        };
        let mut options = OpenOptions::new().any_version(self.any_version);
        options.shapes_from.clone_from(&self.shapes_from);
        Ok(match self.config.as_ref().map(read).transpose()? {
            Some(config) => options.config(config),
            None => options,
        })
    }
}

/// The reason why a subcommand failed. Its text follows `df11: error: `.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The model is bad, or differs: exit code 1.
    Bad(String),
    /// It could not be done: exit code 2.
    Cannot(String),
}

impl Failure {
    /// Returns the failure of a model that is bad, or differs.
    pub fn bad(text: impl Display) -> Failure {
        Failure::Bad(text.to_string())
    }

    /// Returns the failure of what could not be done.
    pub fn cannot(text: impl Display) -> Failure {
        Failure::Cannot(text.to_string())
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Bad(_) => ExitCode::from(1),
            Failure::Cannot(_) => ExitCode::from(2),
        }
    }
}

impl From<df11::Error> for Failure {
    fn from(error: df11::Error) -> Failure {
        let bad = matches!(error.status(), Status::InvalidFormat | Status::UnsupportedFormat | Status::Corrupt);
        // What is no model at all cannot be a bad one.
        if bad && !matches!(error, df11::Error::NotAModel { .. }) {
            return Failure::bad(error);
        }
        Failure::cannot(format!("{error}{}", advice::after(&error)))
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand || !error.use_stderr() => {
            error.exit()
        }
        Err(mut error) => {
            advice::on_usage(&mut error, &args);
            terminal::explain(&error);
            return ExitCode::from(2);
        }
    };
    // A panic is a bug; even then the exit code means what the manual says, and what was half-written is removed while
    // the stack unwinds.
    let run = std::panic::AssertUnwindSafe(|| run(&cli));
    let result = std::panic::catch_unwind(run)
        .unwrap_or_else(|_| Err(Failure::cannot("internal error, please report it with the lines above")));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (Failure::Bad(text) | Failure::Cannot(text)) = &failure;
            terminal::complain(&advice::spelled(text));
            failure.exit_code()
        }
    }
}

/// Raises the soft limit on open files to the hard one. The library needs few at a time, but reads faster if it need not open each
/// again.
#[cfg(unix)]
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct lives as long as the calls. If they fail, the limit stays as it is.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let quiet = cli.verbosity.quiet;
    terminal::log_to_stderr(cli.verbosity.verbose, quiet);
    interrupt::install()?;
    #[cfg(unix)]
    raise_file_limit();
    match &cli.command {
        Command::Compress(args) => compress::compress(args, quiet),
        Command::Merge(args) => compress::merge(args, quiet),
        Command::Plan(args) => plan::run(args, quiet),
        Command::Inspect(args) => inspect::run(args, quiet),
        Command::Decompress(args) => decompress::run(args, quiet),
        Command::Verify(args) => verify::run(args, quiet),
        Command::Repack(args) => repack::run(args, quiet),
        Command::Image(args) => image::run(args, quiet),
        Command::Presets(args) => presets::run(args, quiet),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
    }
}
