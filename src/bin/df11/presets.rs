//! `df11 presets`: the patterns that the tool knows by name.

use crate::Failure;
use crate::terminal::print;
use df11::writer::Preset;
use serde_json::{Value, json};
use std::fmt::Write;

/// Lists the groupings of published models, or prints one as patterns
///
/// A preset says which tensors are compressed together: a pattern_dict as in the dfloat11_config of a model's config.json.
/// With NAME its pattern_dict is printed as JSON, to be changed and given to --pattern.
///
/// The object that --json prints has the keys: schema (1), presets[] {name, aliases[], models[], layout, model_types[],
/// patterns {regular expression: attribute paths[]}, evidence, note}. The note may be null. Keys are added, never renamed.
#[derive(clap::Args)]
pub struct PresetsArgs {
    /// Print the patterns of this preset
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON object with all presets instead (see --help for its keys)
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &PresetsArgs) -> Result<(), Failure> {
    match &args.name {
        Some(name) => print(&format!("{:#}\n", patterns(Preset::find(name)?))),
        None if args.json => print(&format!("{:#}\n", all())),
        None => print(&table()),
    }
}

/// Returns the pattern_dict of a preset.
fn patterns(preset: &Preset) -> Value {
    serde_json::from_str(&preset.patterns().to_json()).unwrap_or_default()
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
            "patterns": patterns(p),
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
