//! Which patterns a model is compressed by: those that a caller gives, those of a preset, or automatic ones.

use super::{Dropped, Patterns, Plan, SourceTensor, Table, auto, is_tied, presets, survey};
use crate::error::{Error, Result};
use crate::progress::Progress;
use presets::{Fits, Preset};
use serde_json::Value;

/// The name by which automatic groups are asked for where presets are named.
pub const AUTOMATIC: &str = "automatic";
/// Another one.
const AUTO: &str = "auto";

/// The patterns that are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Those that suit the model best: of a preset, or automatic ones.
    Best,
    /// Automatic ones.
    Automatic,
    /// Those of this preset.
    Preset(&'static Preset),
    /// These.
    Patterns(&'a Patterns),
}

/// Where patterns come from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// A preset.
    Preset(&'static Preset),
    /// The table of tensors.
    Automatic,
    /// The caller.
    Given,
}

impl Origin {
    /// Returns the name of the preset, or `automatic`; `None` for patterns that were given.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Origin::Preset(preset) => Some(preset.name()),
            Origin::Automatic => Some(AUTOMATIC),
            Origin::Given => None,
        }
    }
}

/// The groups of a model: by which patterns, and which tensors.
#[derive(Debug)]
pub struct Grouping {
    /// The patterns. Automatic ones may be none at all, if the model has nothing that a pattern can name.
    pub patterns: Patterns,
    /// Where they come from.
    pub origin: Origin,
    /// The groups that they make.
    pub plan: Plan,
}

impl<'a> Wanted<'a> {
    /// Tells whether the groups are chosen for the model. Then what no pattern can name or hold may be put into runs:
    /// [`super::extend`].
    pub fn is_free(self) -> bool {
        matches!(self, Wanted::Best | Wanted::Automatic)
    }

    /// Reads options: the name of a preset or `automatic`, or patterns, or neither.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for both; `NotFound` for a name that no preset has.
    pub fn of(preset: Option<&str>, patterns: Option<&'a Patterns>) -> Result<Wanted<'a>> {
        match (preset, patterns) {
            (None, None) => Ok(Wanted::Best),
            (None, Some(patterns)) => Ok(Wanted::Patterns(patterns)),
            (Some(AUTOMATIC | AUTO), None) => Ok(Wanted::Automatic),
            (Some(name), None) => Preset::find(name).map(Wanted::Preset),
            (Some(_), Some(_)) => {
                Err(Error::InvalidArgument("a preset and patterns are given: one of them decides".into()))
            }
        }
    }
}

/// Returns the groups of a model, from its config.json, if it has one, and its tensors.
///
/// Of [`Wanted::Best`], a preset is taken if it covers nearly as much as automatic groups do: see `Fits::best`.
///
/// # Errors
///
/// `InvalidArgument`: the model has nothing to compress, or patterns do not fit it as [`super::plan`] says.
pub fn grouping(config: Option<&Value>, tensors: &[SourceTensor<'_>], wanted: Wanted<'_>) -> Result<Grouping> {
    grouping_if(is_tied(config, tensors), config, tensors, wanted, &Progress::new())
}

/// Does the same for a model of which it is known whether it is tied, and can be cancelled.
pub(crate) fn grouping_if(
    tied: bool,
    config: Option<&Value>,
    tensors: &[SourceTensor<'_>],
    wanted: Wanted<'_>,
    progress: &Progress,
) -> Result<Grouping> {
    let table = Table::new(tensors)?;
    let planned = |patterns: &Patterns| {
        progress.check()?;
        let survey = survey(&table, patterns, tied);
        survey.problems.into_iter().next().map_or(Ok(survey.plan), |problem| Err(Error::InvalidArgument(problem)))
    };
    let named = |preset: &'static Preset| {
        let plan = planned(preset.patterns())?;
        Ok(Grouping { patterns: preset.patterns().clone(), origin: Origin::Preset(preset), plan })
    };
    match wanted {
        Wanted::Patterns(patterns) => {
            let plan = planned(patterns)?;
            return Ok(Grouping { patterns: patterns.clone(), origin: Origin::Given, plan });
        }
        Wanted::Preset(preset) => return named(preset),
        Wanted::Best | Wanted::Automatic => refuse_hopeless(config, tensors)?,
    }
    let patterns = auto::patterns(&table, tied, progress)?.unwrap_or_default();
    let mut plan = planned(&patterns)?;
    if matches!(wanted, Wanted::Best)
        && let Some(preset) = Fits::new(config, &table, tied, progress)?.best(&plan)
    {
        return named(preset);
    }
    // The embedding is in a group, and serves as the head, too.
    let pair = table.pair.as_ref().filter(|_| tied && plan.dropped.is_empty());
    if let Some((pair, head)) = pair.and_then(|pair| Some((pair, pair.head_like_embedding(tensors)?))) {
        plan.dropped.push(Dropped { tensor: head, embedding: pair.embedding });
    }
    Ok(Grouping { patterns, origin: Origin::Automatic, plan })
}

/// Refuses what no groups can be found for.
fn refuse_hopeless(config: Option<&Value>, tensors: &[SourceTensor<'_>]) -> Result<()> {
    let refuse = |reason: &str| Err(Error::InvalidArgument(reason.into()));
    if config.and_then(|c| c.get("_class_name")).and_then(Value::as_str).is_some_and(|c| c.ends_with("Pipeline")) {
        return refuse("this is a pipeline; each model in it is compressed by itself, mostly that in 'transformer'");
    }
    if tensors.iter().all(|t| t.bf16_bytes() == 0) {
        return refuse("the model has no bf16 weights, and nothing else is compressed; convert it to bf16 first");
    }
    Ok(())
}
