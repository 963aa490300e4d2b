//! `df11 completions` and `df11 man`: what shells and `man` are told about the tool. `make install` runs both.

use crate::terminal::print;
use crate::{Cli, Failure};
use clap::CommandFactory;
use clap_complete::{Generator, Shell};
use std::path::PathBuf;

/// Prints the completions of a shell
///
/// `make install` and the packages put them where bash, fish and zsh look for them. For a tool that was installed in another
/// way: df11 completions bash > ~/.local/share/bash-completion/completions/df11
#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Writes the manual pages to a folder
///
/// One page for each command: df11.1, df11-compress.1 and so on. Pages that are there are overwritten.
#[derive(clap::Args)]
pub struct ManArgs {
    /// The folder, such as ~/.local/share/man/man1; it is made if it is not there
    folder: PathBuf,
}

/// Runs `df11 completions`.
pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.set_bin_name(command.get_name().to_owned());
    command.build();
    let mut script = Vec::new();
    let written = args.shell.try_generate(&command, &mut script);
    written.map_err(|e| Failure::cannot(format!("cannot make the completions: {e}")))?;
    print(&String::from_utf8_lossy(&script))
}

/// Runs `df11 man`.
pub fn man(args: &ManArgs) -> Result<(), Failure> {
    let written =
        std::fs::create_dir_all(&args.folder).and_then(|()| clap_mangen::generate_to(Cli::command(), &args.folder));
    written.map_err(|e| Failure::cannot(format!("cannot write to '{}': {e}", args.folder.display())))
}
