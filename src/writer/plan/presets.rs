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

use super::{Patterns, Plan, SourceTensor, Table, is_tied, survey};
use crate::error::{Error, Result, shorten};
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
            evidence: need("evidence")?,
            note: text("note"),
        })
    };
    whole.iter().map(preset).collect()
}

/// Chooses the preset for a model from its config.json, if it has one, and its tensors: the one whose patterns cover the
/// most bf16 bytes, of those that every module they match is complete for. Among presets that cover the same the one wins
///
/// 1. that leaves the embedding and the head of a tied model alone: the reference would store that matrix twice;
/// 2. with the fewest patterns that match nothing;
/// 3. of the layout that the config speaks of (no config: ComfyUI's);
/// 4. for the config's `model_type`;
/// 5. that comes first.
///
/// # Errors
///
/// `InvalidArgument`, if no preset covers half of the bytes: what was meant to be compressed is then somewhere else. The
/// bytes of a tied model's embedding do not count. The message names the best presets and what they cover.
pub fn choose(config: Option<&Value>, tensors: &[SourceTensor<'_>]) -> Result<&'static Preset> {
    let fits = Fits::new(config, tensors)?;
    if let Some(best) = fits.best() {
        return Ok(best);
    }
    let refuse = |reason: &str| Err(Error::InvalidArgument(format!("no preset can be chosen: {reason}")));
    if config.and_then(|c| c.get("_class_name")).and_then(Value::as_str).is_some_and(|c| c.ends_with("Pipeline")) {
        return refuse("this is a pipeline; each model in it is compressed by itself, mostly that in 'transformer'");
    }
    if tensors.iter().all(|t| t.bf16_bytes() == 0) {
        return refuse("the model has no bf16 weights, and nothing else is compressed; convert it to bf16 first");
    }
    if let Some(hint) = misnamed(config, tensors) {
        return refuse(&hint);
    }
    let mut reason = match &fits.candidates()[..] {
        [] => "none matches this model's tensors".to_owned(),
        some => format!("the best are {}", some.join("; ")),
    };
    reason.push_str(". Name one with the option preset, or give patterns with the option pattern");
    refuse(&reason)
}

/// The fit of each preset to a model, the best first.
struct Fits {
    fits: Vec<Fit>,
    /// The bytes that could be covered.
    bytes: u64,
}

/// The fit of one preset.
struct Fit {
    preset: &'static Preset,
    covered: u64,
    plan: Plan,
    problem: Option<String>,
}

impl Fits {
    fn new(config: Option<&Value>, tensors: &[SourceTensor<'_>]) -> Result<Fits> {
        let table = Table::new(tensors)?;
        let tied = is_tied(config, tensors);
        // A tied matrix counts for no preset: the smaller the model, the more of it that is, and published ones leave it.
        let pair = table.pair.as_ref().filter(|_| tied);
        let pair: HashSet<usize> = pair.map_or(HashSet::new(), |p| p.head.into_iter().chain([p.embedding]).collect());
        let sum = |tensors: &mut dyn Iterator<Item = usize>| {
            let counted = tensors.filter(|tensor| !pair.contains(tensor));
            counted.fold(0u64, |sum, tensor| sum.saturating_add(table.tensors[tensor].bf16_bytes()))
        };
        let naming = Naming::of(config);
        let model_type = config.and_then(|c| c.get("model_type")).and_then(Value::as_str);
        let mut fits: Vec<Fit> = Preset::all()
            .iter()
            .map(|preset| {
                let survey = survey(&table, &preset.patterns, tied);
                let covered = sum(&mut survey.plan.groups.iter().flat_map(|g| g.members.iter().copied()));
                Fit { preset, covered, plan: survey.plan, problem: survey.problems.into_iter().next() }
            })
            .collect();
        fits.sort_by_cached_key(|fit| {
            let twice = fit.plan.groups.iter().any(|g| g.members.iter().any(|m| pair.contains(m)));
            Reverse((
                fit.problem.is_none(),
                fit.covered,
                !twice,
                Reverse(fit.plan.unmatched_patterns.len()),
                Some(fit.preset.naming) == naming,
                fit.preset.model_types.iter().any(|t| Some(&t[..]) == model_type),
            ))
        });
        Ok(Fits { fits, bytes: sum(&mut (0..tensors.len())) })
    }

    /// Returns the preset to choose.
    fn best(&self) -> Option<&'static Preset> {
        let best = self.fits.first()?;
        (best.problem.is_none() && best.covered > 0 && best.covered >= self.bytes.div_ceil(2)).then_some(best.preset)
    }

    /// Describes at most three presets that were not chosen: how much each covers, and its problem. Presets with the same groups count
    /// as one.
    fn candidates(&self) -> Vec<String> {
        let some = self.fits.iter().any(|f| f.covered > 0);
        let worth = |f: &&Fit| f.covered > 0 || !some && f.problem.is_some();
        let mut by_share: Vec<&Fit> = self.fits.iter().filter(worth).collect();
        by_share.sort_by_key(|fit| Reverse((fit.covered, fit.problem.is_none())));
        let mut distinct: Vec<&Fit> = Vec::new();
        for fit in by_share {
            let effect =
                |f: &Fit| (f.plan.groups.iter().map(|g| g.members.clone()).collect::<Vec<_>>(), f.problem.is_some());
            if !distinct.iter().any(|other| effect(other) == effect(fit)) {
                distinct.push(fit);
            }
        }
        let told = distinct.iter().take(3).map(|fit| {
            let share = 100.0 * fit.covered as f64 / self.bytes.max(1) as f64;
            let but = fit.problem.as_ref().map_or(String::new(), |p| format!(", but {p}"));
            format!("'{}' ({share:.1} % of the bf16 bytes{but})", fit.preset.name)
        });
        told.collect()
    }
}

/// Prefixes of names in a checkpoint of several models, or of a training.
const WRAPPINGS: [&str; 3] = ["model.diffusion_model.", "diffusion_model.", "net."];
/// Prefixes of names of other versions, and what presets have instead.
const SPELLINGS: [(&str, &str); 4] =
    [("model.language_model.", "model."), ("language_model.", ""), ("transformer.", ""), ("", "model.")];

/// Returns advice for a model that a preset would fit if its names began otherwise. The names are not changed here: a loader goes by
/// them, and whoever compresses knows which ones it wants.
fn misnamed(config: Option<&Value>, tensors: &[SourceTensor<'_>]) -> Option<String> {
    // Models of experts have a hundred thousand names, so they are gone through only if that may help.
    let begins = |prefix: &str| tensors.iter().any(|t| t.name.starts_with(prefix));
    for prefix in WRAPPINGS.into_iter().filter(|p| begins(p)) {
        if let Some(preset) = fitting(config, tensors, |name| name.strip_prefix(prefix).map(str::to_owned)) {
            return Some(format!(
                "names begin with '{prefix}', as in a checkpoint of several models or of a training. Take that model out \
                 into a file of its own, without '{prefix}' in the names: preset '{}' fits it then",
                preset.name
            ));
        }
    }
    for (prefix, instead) in SPELLINGS.into_iter().filter(|(p, _)| begins(p)) {
        // Tensors whose names begin otherwise are part of the model, too, as its head may be.
        let rename =
            |name: &str| Some(name.strip_prefix(prefix).map_or(name.to_owned(), |rest| format!("{instead}{rest}")));
        if let Some(preset) = fitting(config, tensors, rename) {
            let name = &preset.name;
            return Some(format!(
                "preset '{name}' would fit, if names began with '{instead}' and not with '{prefix}'. Write what \
                 `df11 presets {name}` prints to a file, change how its patterns begin, and give it with the option pattern"
            ));
        }
    }
    None
}

/// Returns the preset for the tensors under other names, without those that get none.
fn fitting(
    config: Option<&Value>,
    tensors: &[SourceTensor<'_>],
    rename: impl Fn(&str) -> Option<String>,
) -> Option<&'static Preset> {
    let names: Vec<Option<String>> = tensors.iter().map(|t| rename(t.name)).collect();
    let pairs = names.iter().zip(tensors).filter_map(|(name, t)| Some((name.as_deref()?, t)));
    let tensors: Vec<SourceTensor> = pairs.map(|(name, t)| SourceTensor { name, ..*t }).collect();
    // Two tensors may have come to the same name. Then this is not what the names mean.
    Fits::new(config, &tensors).ok()?.best()
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
