//! The pattern_dicts of published models, and the choice of one for a model.
//!
//! `presets.json` holds them. Its facts come from four sources, and each preset's `evidence` says which:
//!
//! - the config.json files of the DFloat11 releases, as reported by ArnauFerma/df11pack; none was read for this project;
//! - the loader tables of mingyi456/ComfyUI-DFloat11-Extended at commit 6073936;
//! - IonDen/mlx-dfloat, a loader of some later releases;
//! - the example of the DFloat11 project's own compressor, for FLUX.1.
//!
//! The order of a list decides the compressed bytes. Presets with the same groups are kept apart where releases spell
//! their patterns differently, because config.json has that spelling, and so that each family has a name.

use super::{Patterns, Plan, Survey, Table, survey};
use crate::error::{Error, Result, shorten};
use crate::progress::Progress;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

/// The names that a model's tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Naming {
    /// Those of the library transformers.
    Transformers,
    /// Those of the library diffusers.
    Diffusers,
    /// Those of ComfyUI, which are mostly those of the first release: one file without a config.
    Comfyui,
}

impl Naming {
    /// All of them.
    pub const ALL: [Naming; 3] = [Naming::Transformers, Naming::Diffusers, Naming::Comfyui];

    /// Returns the name, as it is in the table of presets.
    pub fn name(self) -> &'static str {
        match self {
            Naming::Transformers => "transformers",
            Naming::Diffusers => "diffusers",
            Naming::Comfyui => "comfyui",
        }
    }

    /// Returns the naming that a model's config.json implies. Files for ComfyUI come without one.
    fn of(config: Option<&Value>) -> Option<Naming> {
        let Some(config) = config else { return Some(Naming::Comfyui) };
        let has = |key| config.get(key).is_some();
        if has("_class_name") || has("_diffusers_version") {
            Some(Naming::Diffusers)
        } else if has("model_type") || has("architectures") {
            Some(Naming::Transformers)
        } else {
            None
        }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A pattern_dict with a name.
#[derive(Debug)]
pub struct Preset {
    name: String,
    aliases: Vec<String>,
    models: Vec<String>,
    naming: Naming,
    model_types: Vec<String>,
    patterns: Patterns,
    /// Modules that published models leave plain beside these groups, if all are known.
    leaves: Option<Patterns>,
    /// True if published models store the matrix of a tied pair twice.
    tied_twice: bool,
    evidence: String,
    note: Option<String>,
}

impl Preset {
    /// Returns all presets.
    pub fn all() -> &'static [Preset] {
        static ALL: LazyLock<Vec<Preset>> = LazyLock::new(|| {
            parse(include_str!("presets.json"))
                .expect("presets.json is compiled in, and tests/plan/presets.rs parses it")
        });
        &ALL
    }

    /// Returns the preset of that name or alias.
    ///
    /// # Errors
    ///
    /// `NotFound`, with the names that are most like it.
    pub fn find(name: &str) -> Result<&'static Preset> {
        if let Some(preset) = Self::all().iter().find(|p| p.names().any(|n| n == name)) {
            return Ok(preset);
        }
        let shown = shorten(name, 80);
        let near = near(name);
        let advice = match &near[..] {
            [] => "`df11 presets` lists them".to_owned(),
            near => format!("did you mean {}?", near.join(", ")),
        };
        Err(Error::NotFound(format!("there is no preset '{shown}': {advice}")))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns other names by which [`Preset::find`] knows it.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Returns models that were published with it.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Returns the names that it expects.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Returns the `model_type`s of config.json for which it is preferred to others with the same groups.
    pub fn model_types(&self) -> &[String] {
        &self.model_types
    }

    /// Returns the patterns.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Returns the sources of its facts.
    pub fn evidence(&self) -> &str {
        &self.evidence
    }

    /// Returns what a user must know before it is used.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }
}

/// Reads presets.json.
fn parse(text: &str) -> Result<Vec<Preset>> {
    let internal = |reason: String| Error::Internal(format!("presets.json: {reason}"));
    let whole: Vec<Value> = serde_json::from_str(text).map_err(|e| internal(e.to_string()))?;
    let preset = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let need = |key: &str| text(key).ok_or_else(|| internal(format!("no {key} in {entry}")));
        let list = |key: &str| match entry.get(key) {
            None => Ok(Vec::new()),
            Some(list) => serde_json::from_value(list.clone()).map_err(|e| internal(format!("{key}: {e}"))),
        };
        let layout = need("layout")?;
        Ok(Preset {
            name: need("name")?,
            aliases: list("aliases")?,
            models: list("models")?,
            naming: Naming::ALL
                .into_iter()
                .find(|n| n.name() == layout)
                .ok_or_else(|| internal(format!("the layout {layout}")))?,
            model_types: list("model_types")?,
            patterns: Patterns::from_value(entry.get("patterns").unwrap_or(&Value::Null))?,
            leaves: entry.get("leaves").map(|_| leaves(list("leaves")?)).transpose()?,
            tied_twice: entry.get("tied_twice").and_then(Value::as_bool).unwrap_or(false),
            evidence: need("evidence")?,
            note: text("note"),
        })
    };
    whole.iter().map(preset).collect()
}

/// Returns patterns for the names of modules.
fn leaves(modules: Vec<String>) -> Result<Patterns> {
    match &modules[..] {
        [] => Ok(Patterns::default()),
        some => Patterns::from_value(&some.iter().map(|m| (m.clone(), Value::Array(Vec::new()))).collect()),
    }
}

/// The fit of each preset to a model, the best first.
pub(super) struct Fits<'t, 'n> {
    table: &'t Table<'t, 'n>,
    fits: Vec<Fit>,
    /// The tensors of a tied pair, which count for no preset: the smaller the model, the more of it that is, and published ones leave it.
    pair: HashSet<usize>,
}

/// The fit of one preset.
struct Fit {
    preset: &'static Preset,
    covered: u64,
    /// True if the matrix of a tied pair is stored twice.
    twice: bool,
    problem: bool,
}

impl<'t, 'n> Fits<'t, 'n> {
    /// Finds out how each preset fits a model. Of those that every module they match is complete for, the best covers the most bf16
    /// bytes. Among presets that cover the same the one wins
    ///
    /// 1. that leaves the embedding and the head of a tied model alone: the reference would store that matrix twice;
    /// 2. with the fewest patterns that match nothing;
    /// 3. of the layout that the config speaks of (no config: ComfyUI's);
    /// 4. for the config's `model_type`;
    /// 5. that comes first.
    pub fn new(
        config: Option<&Value>,
        table: &'t Table<'t, 'n>,
        tied: bool,
        progress: &Progress,
    ) -> Result<Fits<'t, 'n>> {
        let pair = table.pair.as_ref().filter(|_| tied);
        let pair: HashSet<usize> = pair.map_or(HashSet::new(), |p| p.head.into_iter().chain([p.embedding]).collect());
        let naming = Naming::of(config);
        let model_type = config.and_then(|c| c.get("model_type")).and_then(Value::as_str);
        let mut fits = Fits { table, fits: Vec::new(), pair };
        let mut sorted: Vec<_> = Preset::all()
            .iter()
            .map(|preset| {
                progress.check()?;
                let Survey { plan, problems } = survey(table, &preset.patterns, tied);
                let covered = fits.covered(&plan);
                let members = || plan.groups.iter().flat_map(|g| &g.members);
                let touched = members().any(|m| fits.pair.contains(m));
                let order = Reverse((
                    problems.is_empty(),
                    covered,
                    !touched,
                    Reverse(plan.unmatched_patterns.len()),
                    Some(preset.naming) == naming,
                    preset.model_types.iter().any(|t| Some(&t[..]) == model_type),
                ));
                let twice = plan.groups.iter().any(|g| g.tied);
                Ok((order, Fit { preset, covered, twice, problem: !problems.is_empty() }))
            })
            .collect::<Result<_>>()?;
        sorted.sort_by_key(|(order, _)| *order);
        fits.fits = sorted.into_iter().map(|(_, fit)| fit).collect();
        Ok(fits)
    }

    /// Returns the bf16 bytes in a plan's groups.
    fn covered(&self, plan: &Plan) -> u64 {
        self.sum(plan.groups.iter().flat_map(|g| &g.members).copied())
    }

    fn sum(&self, tensors: impl Iterator<Item = usize>) -> u64 {
        let counted = tensors.filter(|tensor| !self.pair.contains(tensor));
        counted.fold(0, |sum, tensor| sum.saturating_add(self.table.tensors[tensor].bf16_bytes()))
    }

    /// Returns the preset to choose; `None` if it covers clearly less than automatic groups do, or if it stores the matrix of a tied
    /// pair twice. Published models are judged by what was published: what a preset is known to leave plain does not count, and those
    /// that store such a matrix twice are known, too.
    pub fn best(&self, automatic: &Plan) -> Option<&'static Preset> {
        /// In hundredths. Of models that no preset was made for, the nearest reach 96 (HunyuanVideo with FLUX.1's names), while
        /// whatever is published leaves less than 1 beside what it is known to leave.
        const KNOWN: u128 = 98;
        /// The same for presets of which nothing is known.
        const UNKNOWN: u128 = 95;
        let best = self.fits.first().filter(|fit| !fit.problem && fit.covered > 0)?;
        let preset = best.preset;
        let is_left = |&tensor: &usize| {
            let module = self.table.tensors[tensor].name.trim_end_matches(".weight");
            preset.leaves.as_ref().is_some_and(|leaves| leaves.find(module).is_some())
        };
        let members = automatic.groups.iter().flat_map(|g| &g.members).copied();
        let least = u128::from(self.sum(members.filter(|tensor| !is_left(tensor))));
        let least = least * if preset.leaves.is_some() { KNOWN } else { UNKNOWN };
        let enough = u128::from(best.covered) * 100 >= least && (!best.twice || preset.tied_twice);
        enough.then_some(preset)
    }
}

/// Returns at most three names of presets that are similar to another name, the most similar first.
fn near(name: &str) -> Vec<&'static str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', '.', ' '], "");
    let wanted = plain(name);
    let mut found: Vec<(usize, &'static str)> = Vec::new();
    for known in Preset::all().iter().flat_map(Preset::names) {
        let (plain, far) = (plain(known), distance(&wanted, &plain(known)));
        if far <= plain.len() / 3 || wanted.len() >= 3 && (plain.contains(&wanted) || wanted.contains(&plain)) {
            found.push((far, known));
        }
    }
    found.sort();
    found.into_iter().map(|(_, known)| known).take(3).collect()
}

/// Returns the number of edits that make one text the other: a character inserted, deleted or changed.
fn distance(a: &str, b: &str) -> usize {
    // Names have fewer characters; a longer text is like none of them.
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
