//! What a person can type after a failure. The library has no options and no command line, so only the tool can say it.

use crate::Cli;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use df11::Error;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};

/// Returns what to type after an error of the library, as the end of its sentence.
pub fn after(error: &Error) -> String {
    match error {
        Error::Exists(_) => ": replace it (--force), or write elsewhere".into(),
        Error::NotEmpty { .. } => {
            ": write to a new or empty folder (--force replaces a single file, never a folder)".into()
        }
        Error::Unfinished(_) => ". The same command with --resume resumes it".into(),
        Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            download(path).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// Spells the options that a sentence of the library names as this tool's: `the option strict` becomes `--strict`.
pub fn spelled(text: &str) -> String {
    let mut all: Vec<String> = Cli::command()
        .get_subcommands()
        .flat_map(|command| {
            command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    // `--shapes-from` before `--shapes`.
    all.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
    all.iter().fold(text.to_owned(), |text, name| text.replace(&format!("the option {name}"), &format!("--{name}")))
}

/// Returns how to download a model whose name or address on the Hugging Face Hub was given in place of a path, or of whose files in the
/// Hub's cache one is gone.
fn download(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let cached = path.components().find_map(|part| part.as_os_str().to_str()?.strip_prefix("models--"));
    if let Some((owner, name)) = cached.and_then(|cached| cached.split_once("--")).filter(|_| path.is_symlink()) {
        return Some(format!(": hf download {owner}/{name}"));
    }
    let site = text.trim_start_matches("https://").trim_start_matches("http://");
    let address = ["huggingface.co/", "hf.co/", "hf://"].iter().find_map(|start| site.strip_prefix(start));
    let mut parts = address.unwrap_or(text).split('/');
    let (owner, name) = (parts.next()?, parts.next()?);
    let valid = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(known)
    };
    // A folder of the owner's name means that a path was meant.
    let mut is_path = || parts.next().is_some() || name.ends_with(".safetensors") || Path::new(owner).exists();
    if !valid(owner) || !valid(name) || address.is_none() && is_path() {
        return None;
    }
    Some(format!(
        "; if it is a model of the Hugging Face Hub, download it: hf download {owner}/{name} --local-dir {name}"
    ))
}

/// Adds a tip to what clap says about a wrong command line.
pub fn on_usage(error: &mut clap::Error, args: &[OsString]) {
    let tip = match (error.kind(), error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(extra)), _) => output(extra, args),
        (ErrorKind::InvalidSubcommand, _, Some(ContextValue::String(command))) => subcommand(command),
        _ => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// Returns the tip for `df11 compress IN OUT`.
fn output(extra: &str, args: &[OsString]) -> Option<String> {
    let all = Cli::command();
    let command = args.iter().skip(1).find_map(|arg| all.find_subcommand(arg))?;
    let takes_output = command.get_arguments().any(|arg| arg.get_id() == "output");
    let named = args.iter().any(|a| a.to_str().is_some_and(|a| a.starts_with("-o") || a.starts_with("--output")));
    let forgotten = takes_output && !named && !extra.starts_with('-');
    forgotten.then(|| format!("the output is named by -o: 'df11 {} ... -o {extra}'", command.get_name()))
}

/// Returns the tip for `df11 MODEL`.
fn subcommand(given: &str) -> Option<String> {
    let path = Path::new(given);
    let is_path = path.exists() || path.components().filter(|c| matches!(c, Component::Normal(_))).count() > 1;
    is_path.then(|| format!("'df11 inspect {given}' shows a model; 'df11 --help' lists the commands"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_spelled_as_they_are_typed() {
        assert_eq!(
            spelled("write it with the option single-file, or the option force"),
            "write it with --single-file, or --force"
        );
        assert_eq!(spelled("the option is not known"), "the option is not known");
    }

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        let hint = |path: &str| download(Path::new(path));
        for path in [
            "Qwen/Qwen3-8B",
            "https://huggingface.co/Qwen/Qwen3-8B/tree/main",
            "hf.co/Qwen/Qwen3-8B",
            "hf://Qwen/Qwen3-8B",
        ] {
            assert!(hint(path).unwrap().ends_with("hf download Qwen/Qwen3-8B --local-dir Qwen3-8B"), "{path}");
        }
        for path in [
            "model",
            "./Qwen/Qwen3-8B",
            "/Qwen/Qwen3-8B",
            "a/b/c",
            "../b",
            "a/x.safetensors",
            "a/b c",
            "src/nothing",
            "a/",
            "hf.co/x",
            "http://x/y",
        ] {
            assert_eq!(hint(path), None, "{path}");
        }
    }
}
