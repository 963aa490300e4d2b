//! `df11 presets`: the patterns that the tool knows by name.

use crate::Failure;
use crate::terminal::{counted, note, print};
use df11::writer::{self, AUTOMATIC, Patterns, Preset};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Lists the groupings of published models, or prints one as patterns
///
/// A preset says which tensors are compressed together: a pattern_dict as in the dfloat11_config of a model's config.json.
/// With NAME its pattern_dict is printed as JSON, to be changed and given to --pattern. With --for the patterns are printed that
/// `df11 compress` would use for a model: those of a preset, or automatic ones, which are made of the names, types and shapes of its
/// tensors; which of the two, and how much of the model they cover, is said on standard error, with the groups that no pattern names.
///
/// The object that --json prints has the keys: schema (1), presets[] {name, aliases[], models[], layout, model_types[],
/// patterns {regular expression: attribute paths[]}, evidence, note}. The note may be null. Keys are added, never renamed.
#[derive(clap::Args)]
pub struct PresetsArgs {
    /// Print the patterns of this preset, or, with --for, `automatic` ones
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print the patterns that `df11 compress` would use for this model, a folder or a .safetensors file
    #[arg(long = "for", value_name = "MODEL", conflicts_with = "json")]
    model: Option<PathBuf>,
    /// Print one JSON object with all presets instead (see --help for its keys)
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &PresetsArgs, quiet: bool) -> Result<(), Failure> {
    match (&args.model, args.name.as_deref()) {
        (Some(model), name) => for_model(model, name, quiet),
        (None, Some(AUTOMATIC | "auto")) => Err(Failure::cannot(
            "automatic patterns are made for a model: name it, as in `df11 presets --for MODEL automatic`",
        )),
        (None, Some(name)) => print(&pretty(Preset::find(name)?.patterns())),
        (None, None) if args.json => print(&format!("{:#}\n", all())),
        (None, None) => print(&table()),
    }
}

/// Prints the patterns for a model, and says on standard error where they come from.
fn for_model(model: &Path, name: Option<&str>, quiet: bool) -> Result<(), Failure> {
    let choice = writer::patterns_for(model, name)?;
    if choice.patterns.entries().is_empty() {
        let others = match choice.extended_groups {
            0 => String::new(),
            groups => {
                format!(" ({} without a pattern can be made, which only libdf11 reads)", counted(groups, "group"))
            }
        };
        return Err(Failure::cannot(format!(
            "no pattern can name a matrix of '{}': there is none in bf16 whose name ends in '.weight'{others}",
            model.display()
        )));
    }
    if !quiet {
        let kind = if choice.name == AUTOMATIC { "" } else { "preset " };
        let share = |bytes: u64| format!("{:.1} %", 100.0 * bytes as f64 / choice.bf16_bytes.max(1) as f64);
        let (groups, of_patterns) = (counted(choice.groups, "group"), share(choice.grouped_bf16_bytes));
        let others = match choice.extended_groups {
            0 => String::new(),
            others => format!(
                "; with {} more that no pattern names and only libdf11 reads {}",
                counted(others, "group"),
                share(choice.grouped_bf16_bytes + choice.extended_bf16_bytes)
            ),
        };
        note(&format!("{kind}{}: {groups}, {of_patterns} of the bf16 bytes{others}", choice.name));
    }
    print(&pretty(&choice.patterns))
}

/// Returns a pattern_dict as JSON on lines of its own.
fn pretty(patterns: &Patterns) -> String {
    let value: Value = serde_json::from_str(&patterns.to_json()).unwrap_or_default();
    format!("{value:#}\n")
}

/// Returns everything as JSON.
fn all() -> Value {
    let preset = |p: &Preset| {
        json!({
            "name": p.name(),
            "aliases": p.aliases(),
            "models": p.models(),
            "layout": p.naming().name(),
            "model_types": p.model_types(),
            "patterns": serde_json::from_str::<Value>(&p.patterns().to_json()).unwrap_or_default(),
            "evidence": p.evidence(),
            "note": p.note(),
        })
    };
    json!({"schema": 1, "presets": Preset::all().iter().map(preset).collect::<Vec<_>>()})
}

/// Formats the table for people: at most 100 columns.
fn table() -> String {
    const MODELS: usize = 60;
    let mut out = format!("{:<25} {:<13} MODELS\n", "NAME", "LAYOUT");
    for preset in Preset::all() {
        let mut names = preset.models().to_vec();
        names.extend(preset.aliases().iter().map(|alias| format!("[{alias}]")));
        let (mut name, mut layout) = (preset.name(), preset.naming().name());
        for line in lines(&names, MODELS) {
            // A string takes any text.
            let _ = writeln!(out, "{name:<25} {layout:<13} {line}");
            (name, layout) = ("", "");
        }
    }
    out.push_str("\n[In brackets]: other names of the preset. `df11 presets NAME` prints its patterns.\n");
    out.push_str("`df11 presets --for MODEL` prints those that `df11 compress` would use.\n");
    out
}

/// Breaks a list into lines of at most `width` columns, unless one item alone is wider.
fn lines(items: &[String], width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (i, item) in items.iter().enumerate() {
        let comma = if i + 1 < items.len() { "," } else { "" };
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + item.chars().count() + comma.len() > width {
            lines.push(format!("{item}{comma}"));
        } else {
            let space = if line.is_empty() { "" } else { " " };
            line.extend([space, item, comma]);
        }
    }
    lines
}
