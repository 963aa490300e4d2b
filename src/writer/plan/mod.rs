//! Decides what is written, from a model's table of tensors and a `pattern_dict`: which tensors make which group, and in which file
//! they go. Nothing here reads or writes files or weights.
//!
//! The rules are those of the reference compressor (dfloat11 0.5.0), which walks the modules of a loaded model. A file
//! knows no modules, so here every dotted prefix of a tensor's name is one. A module belongs to the first pattern that
//! matches its whole name and makes one group: of the tensors `NAME.ATTRIBUTE.weight` in the order of the pattern's list, or
//! of `NAME.weight` if the list is empty or the module is a matrix itself.
//!
//! - this file: groups, and which tensors go with which;
//! - `presets`: the pattern_dicts of published models;
//! - `auto`: pattern_dicts for all others, from their tables of tensors;
//! - `choice`: which of these a model is compressed by;
//! - `runs`: tensors that the reference's format cannot name or hold, in groups of their own;
//! - `coverage`: what share of the model is in groups, and why the rest is not;
//! - `files`: the files, of a folder or a single one;
//! - `part`: the parts that share a model;
//! - `config`: the text of config.json.

mod auto;
mod choice;
pub(crate) mod config;
mod coverage;
mod files;
mod part;
pub(crate) mod presets;
mod runs;

pub(crate) use choice::grouping_if;
pub use choice::{AUTOMATIC, Grouping, Origin, Wanted, grouping};
pub use coverage::{Coverage, PlainReason, StaysPlain};
pub(crate) use files::{FilePlan, Files, is_file};
pub use part::Part;
pub(crate) use runs::unnamed;
pub use runs::{PlannedRun, PlannedTensor, RunSizes, extend};

use crate::error::{Error, Result, shorten};
pub use crate::format::{Pattern, Patterns};
use crate::format::{Tensor, member_of, natural};
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A tensor of the model to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceTensor<'a> {
    /// Its full name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The number of its elements.
    pub elements: u64,
    /// Its dimensions. Only automatic grouping and the reasons why tensors stay plain depend on them.
    pub shape: &'a [u64],
}

impl<'m> From<Tensor<'m>> for SourceTensor<'m> {
    fn from(tensor: Tensor<'m>) -> SourceTensor<'m> {
        let (name, dtype, shape) = (tensor.name(), tensor.dtype(), tensor.shape());
        SourceTensor { name, dtype, elements: shape.iter().product(), shape }
    }
}

impl SourceTensor<'_> {
    /// Returns how many bytes its elements take.
    pub(crate) fn bytes(&self) -> u64 {
        let bits = self.dtype.bitsize() as u128 * u128::from(self.elements);
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    /// Returns how many bytes could be compressed: none if it is not bf16.
    pub(crate) fn bf16_bytes(&self) -> u64 {
        if self.dtype == Dtype::BF16 { self.elements.saturating_mul(2) } else { 0 }
    }
}

/// The groups, and what becomes of all other tensors. Tensors are given by their numbers in the table that the plan was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The groups, in the natural order of their names (`layers.2` before `layers.10`).
    pub groups: Vec<PlannedGroup>,
    /// The tensors that are in groups of their own, by an extension of the format ([`extend`]).
    pub in_runs: Vec<PlannedTensor>,
    /// Groups that the patterns ask for and that cannot be compressed.
    pub left: Vec<Left>,
    /// The tensors that are stored as they are, in the order of the table, including those of [`Plan::left`] and [`Plan::dropped`].
    pub plain: Vec<usize>,
    /// Heads that need not be stored.
    pub dropped: Vec<Dropped>,
    /// The patterns that make no group, in their order.
    pub unmatched_patterns: Vec<String>,
}

impl Plan {
    /// Returns the number of groups to be made, those that are runs of tensors among them.
    pub fn group_count(&self) -> usize {
        self.groups.len() + self.in_runs.iter().map(|planned| planned.runs.len()).sum::<usize>()
    }
}

/// A group to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGroup {
    /// The module's full name.
    pub name: String,
    /// The tensors, in the order of the weights.
    pub members: Vec<usize>,
    /// The number of the pattern.
    pub pattern: usize,
    /// True if this is the head of a tied model, made from the embedding's tensor. The tensor may also be in a group of its own;
    /// if it is not, it is also stored as it is.
    pub tied: bool,
}

/// A group that stays plain, as a whole: the reference's loader matches the tensors of a group with its pattern's list by position,
/// so none may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The tensors that would have been its members.
    pub tensors: Vec<usize>,
    /// The name that it would have had.
    pub group: String,
    /// The reason, with the name of the tensor that causes it.
    pub reason: String,
    /// The kind of that reason.
    pub why: PlainReason,
}

/// A head that need not be stored, because it is tied: the reference does not store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// The head's tensor.
    pub tensor: usize,
    /// The embedding's, of equal type and size. Drop the head only if their bytes are equal.
    pub embedding: usize,
}

/// The files of a folder with one file per group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The stem of each group's file, distinct on file systems that ignore case.
    pub stems: Vec<String>,
    /// The stem of the file of each tensor in runs.
    pub stems_of_runs: Vec<String>,
    /// For each tensor the group in whose file it is stored: that of its module, of which it may be a weight, a norm, a bias and so
    /// on. `None` for tensors of the remainder file.
    pub files: Vec<Option<usize>>,
}

/// The limit of a group's weights, exclusive: its positions are stored in 32 bits.
const MOST_WEIGHTS: u64 = 1 << 32;

/// Plans the groups of a model. `tied` says that one matrix serves as the embedding and as the head, see [`is_tied`]:
///
/// - if only the embedding is in the table, and a pattern with an empty list matches the head's name (`lm_head`, with or
///   without a prefix of the embedding's), the head is a group made from the embedding, as the reference compresses a shared weight twice;
/// - if both are in the table, and no pattern matches either's name, the head may be dropped.
///
/// # Errors
///
/// `InvalidArgument`: a module has some but not all attributes of its pattern's list; a group is inside another; the
/// model is compressed already; two tensors have one name.
pub fn plan(tensors: &[SourceTensor<'_>], patterns: &Patterns, tied: bool) -> Result<Plan> {
    let survey = survey(&Table::new(tensors)?, patterns, tied);
    match survey.problems.into_iter().next() {
        Some(problem) => Err(Error::InvalidArgument(problem)),
        None => Ok(survey.plan),
    }
}

/// Tells whether one matrix serves as the embedding and as the head. `tie_word_embeddings` says so, at the top of the config.json or
/// in its `text_config`. Without it (Gemma's is true by default and never written down), a model with an embedding and no head is
/// tied.
pub fn is_tied(config: Option<&Value>, tensors: &[SourceTensor<'_>]) -> bool {
    let said = |config: &Value| config.get("tie_word_embeddings").and_then(Value::as_bool);
    let said = config.and_then(|c| said(c).or_else(|| c.get("text_config").and_then(said)));
    said.unwrap_or_else(|| {
        let index = tensors.iter().enumerate().map(|(i, t)| (t.name, i)).collect();
        Pair::find(tensors, &index).is_some_and(|pair| pair.head.is_none())
    })
}

/// Returns the head and the embedding of a model that is said to be tied and has both.
pub(crate) fn tied_pair(config: Option<&Value>, tensors: &[SourceTensor<'_>]) -> Option<Dropped> {
    if !is_tied(config, tensors) {
        return None;
    }
    let index = tensors.iter().enumerate().map(|(i, t)| (t.name, i)).collect();
    let pair = Pair::find(tensors, &index)?;
    Some(Dropped { tensor: pair.head?, embedding: pair.embedding })
}

/// Places groups and tensors in files as the reference does: a group's file is named like its module, with `_` for `.`, and
/// holds every other tensor of the module, too; all the rest goes to the remainder file, whose stem is given.
///
/// The reference lets the groups `a.b` and `a_b` overwrite each other's file. Here the later one's stem gets a number at its
/// end: loaders ignore file names. Characters that a path cannot have become `_`, and long names are cut.
///
/// All runs of a tensor are in one file, which is named like the tensor.
pub fn place(tensors: &[SourceTensor<'_>], plan: &Plan, remainder: &str) -> Placement {
    let groups = &plan.groups[..];
    let mut taken = HashSet::from([remainder.to_lowercase()]);
    let mut free_stem = |name: &str| {
        let first = stem(name);
        let numbered = (2u64..).map(|n| format!("{first}-{n}"));
        // There are infinitely many to choose from, so the default is never used.
        let free = std::iter::once(first.clone()).chain(numbered).find(|s| taken.insert(s.to_lowercase()));
        free.unwrap_or_default()
    };
    let stems = groups.iter().map(|group| free_stem(&group.name)).collect();
    let stems_of_runs = plan.in_runs.iter().map(|planned| free_stem(tensors[planned.tensor].name)).collect();
    let by_name: HashMap<&str, usize> = groups.iter().enumerate().map(|(i, g)| (&g.name[..], i)).collect();
    let owner = |t: &SourceTensor| modules_of(t.name).find_map(|module| by_name.get(module).copied());
    Placement { stems, stems_of_runs, files: tensors.iter().map(owner).collect() }
}

/// Returns the stem of a group's file. File systems allow 255 bytes, and some are left for an ending.
fn stem(group: &str) -> String {
    const MOST: usize = 200;
    let safe =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '=' | '@' | '[' | ']' | '(' | ')' | ',' | ' ');
    let mut stem: String = group.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    // A name that begins with it would be an option to most programs, and one without a stem is hidden.
    if stem.starts_with('-') {
        stem.replace_range(..1, "_");
    } else if stem.is_empty() {
        stem.push('_');
    }
    stem.truncate((0..=MOST).rfind(|&i| stem.is_char_boundary(i)).unwrap_or(0));
    stem
}

/// Returns the modules that a tensor is in, the innermost first: the dotted prefixes of its name.
fn modules_of(tensor: &str) -> impl Iterator<Item = &str> {
    tensor.rmatch_indices('.').map(|(dot, _)| &tensor[..dot]).filter(|module| !module.is_empty())
}

/// A model's tensors, with the indexes that every pattern_dict needs.
pub(crate) struct Table<'t, 'n> {
    /// The tensors themselves.
    pub tensors: &'t [SourceTensor<'n>],
    index: HashMap<&'n str, usize>,
    modules: Vec<&'n str>,
    /// Tensors that are called as a member of a group would be: the group and the tensor.
    like_members: Vec<(&'n str, &'n str)>,
    /// The embedding and its head.
    pub pair: Option<Pair>,
}

impl<'t, 'n> Table<'t, 'n> {
    pub fn new(tensors: &'t [SourceTensor<'n>]) -> Result<Table<'t, 'n>> {
        let mut index = HashMap::with_capacity(tensors.len());
        let (mut packed, mut like_members) = (HashSet::new(), Vec::new());
        for (i, tensor) in tensors.iter().enumerate() {
            if index.insert(tensor.name, i).is_some() {
                return Err(Error::InvalidArgument(format!(
                    "the model has the tensor '{}' twice",
                    shorten(tensor.name, 80)
                )));
            }
            // A model with two of the six members of a group is opened as one with that group, so it is one here.
            let Some((base, _)) = member_of(tensor.name) else { continue };
            like_members.push((base, tensor.name));
            if !packed.insert(base) {
                return Err(Error::InvalidArgument(format!(
                    "the model is compressed already: '{}' is a group",
                    shorten(base, 80)
                )));
            }
        }
        // The modules around one that is known are known, too.
        let mut known = HashSet::new();
        let mut modules: Vec<&str> = tensors
            .iter()
            .flat_map(|t| modules_of(t.name).take_while(|module| known.insert(*module)).collect::<Vec<_>>())
            .collect();
        modules.sort_unstable_by(|a, b| natural(a, b));
        let pair = Pair::find(tensors, &index);
        Ok(Table { tensors, index, modules, like_members, pair })
    }

    fn find(&self, module: &str, attribute: &str) -> Option<usize> {
        self.index.get(&format!("{module}.{attribute}.weight")[..]).copied()
    }

    fn own_weight(&self, module: &str) -> Option<usize> {
        self.index.get(&format!("{module}.weight")[..]).copied()
    }
}

/// An embedding and the head that may be tied to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The embedding's tensor.
    pub embedding: usize,
    /// The head's, if it is stored.
    pub head: Option<usize>,
    /// Possible names of the head's module, the likeliest first.
    heads: Vec<String>,
}

impl Pair {
    /// Finds the pair. Returns `None` if there is no embedding, or if there are several.
    fn find(tensors: &[SourceTensor<'_>], index: &HashMap<&str, usize>) -> Option<Pair> {
        const NAME: &str = "embed_tokens.weight";
        let mut found = tensors.iter().enumerate().filter_map(|(i, t)| {
            let prefix = t.name.strip_suffix(NAME)?;
            (prefix.is_empty() || prefix.ends_with('.')).then_some((i, t.name))
        });
        let (Some((embedding, name)), None) = (found.next(), found.next()) else { return None };
        // `language_model.model.embed_tokens` goes with `language_model.lm_head`, and
        // `model.language_model.embed_tokens` with `lm_head`: the head is never in the module that the embedding is in.
        let mut heads: Vec<String> = modules_of(name).skip(2).map(|module| format!("{module}.lm_head")).collect();
        heads.push("lm_head".into());
        let head = heads.iter().find_map(|h| index.get(&format!("{h}.weight")[..]).copied());
        Some(Pair { embedding, head, heads })
    }

    /// Returns the head's tensor, if it is stored and may have the embedding's values.
    fn head_like_embedding(&self, tensors: &[SourceTensor<'_>]) -> Option<usize> {
        let (head, embedding) = (tensors[self.head?], tensors[self.embedding]);
        ((head.dtype, head.elements) == (embedding.dtype, embedding.elements)).then_some(self.head?)
    }
}

/// A plan, and its problems.
pub(crate) struct Survey {
    /// The plan for what has no problem.
    pub plan: Plan,
    /// The problems of the rest, as sentences.
    pub problems: Vec<String>,
}

/// Plans as [`plan`] does, and continues after a problem: to compare pattern_dicts that do not quite fit.
pub(crate) fn survey(table: &Table<'_, '_>, patterns: &Patterns, tied: bool) -> Survey {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for &module in &table.modules {
        let Some(number) = patterns.find(module) else { continue };
        match members(table, module, &patterns.entries()[number]) {
            Ok(members) if members.is_empty() => {}
            Ok(members) => found.push(PlannedGroup { name: module.into(), members, pattern: number, tied: false }),
            Err(problem) => problems.push(problem),
        }
    }
    let dropped = match table.pair.as_ref().filter(|_| tied) {
        Some(pair) => tie(table, patterns, pair, &mut found),
        None => None,
    };
    found.sort_by(|a, b| natural(&a.name, &b.name));
    problems.extend(clashes(table, &found));

    let mut used = vec![false; patterns.entries().len()];
    found.iter().for_each(|group| used[group.pattern] = true);
    let unmatched = patterns.entries().iter().zip(&used).filter(|(_, used)| !**used).map(|(p, _)| p.text().to_owned());
    let (mut groups, mut left) = (Vec::new(), Vec::new());
    for group in found {
        match obstacle(table.tensors, &group.members) {
            None => groups.push(group),
            Some((why, reason)) => left.push(Left { tensors: group.members, group: group.name, reason, why }),
        }
    }
    let mut is_plain = vec![true; table.tensors.len()];
    for &member in groups.iter().filter(|g| !g.tied).flat_map(|g| &g.members) {
        is_plain[member] = false;
    }
    let plain = (0..table.tensors.len()).filter(|&i| is_plain[i]).collect();
    let dropped = Vec::from_iter(dropped);
    Survey {
        plan: Plan { groups, in_runs: Vec::new(), left, plain, dropped, unmatched_patterns: unmatched.collect() },
        problems,
    }
}

/// Adds the head of a tied model to the groups if it is not stored and a pattern asks for it. Returns it if it is stored and may be
/// dropped.
fn tie(table: &Table<'_, '_>, patterns: &Patterns, pair: &Pair, found: &mut Vec<PlannedGroup>) -> Option<Dropped> {
    if pair.head.is_none() {
        let for_matrix = |&pattern: &usize| patterns.entries()[pattern].attributes().is_empty();
        let find = |name: &'_ String| Some((name.clone(), patterns.find(name).filter(for_matrix)?));
        let (name, pattern) = pair.heads.iter().find_map(find)?;
        found.push(PlannedGroup { name, members: vec![pair.embedding], pattern, tied: true });
        return None;
    }
    let head = pair.head_like_embedding(table.tensors)?;
    let in_group = |tensor: usize| found.iter().any(|g| g.members.contains(&tensor));
    let free = !in_group(head) && !in_group(pair.embedding);
    free.then_some(Dropped { tensor: head, embedding: pair.embedding })
}

/// Returns as sentences which groups are in conflict with others, or with tensors of the model.
fn clashes(table: &Table<'_, '_>, found: &[PlannedGroup]) -> Vec<String> {
    let mut problems = Vec::new();
    let names: HashSet<&str> = found.iter().map(|g| &g.name[..]).collect();
    for group in found {
        // Groups share a tensor only if the module of one is inside that of the other: every list has an attribute only once.
        if let Some(outer) = modules_of(&group.name).find(|outer| names.contains(outer)) {
            let (inner, outer) = (shorten(&group.name, 80), shorten(outer, 80));
            problems.push(format!("the patterns make a group of '{outer}' and another of '{inner}' within it"));
        }
    }
    for (base, name) in table.like_members.iter().copied() {
        if names.contains(base) {
            let (base, name) = (shorten(base, 80), shorten(name, 80));
            problems
                .push(format!("the model has a tensor '{name}', and the group '{base}' needs that name for its own"));
        }
    }
    problems
}

/// Returns the tensors of a matched module; none if it has nothing that the pattern asks for.
fn members(table: &Table<'_, '_>, module: &str, pattern: &Pattern) -> std::result::Result<Vec<usize>, String> {
    let listed: Vec<Option<usize>> = pattern.attributes().iter().map(|a| table.find(module, a)).collect();
    let missing = listed.iter().position(Option::is_none);
    match (missing, table.own_weight(module)) {
        (None, _) if !listed.is_empty() => Ok(listed.into_iter().flatten().collect()),
        (None, own) => Ok(own.into_iter().collect()),
        // A reader that knows the pattern but not the module would give the one tensor the one name in the list.
        (Some(_), Some(_)) if listed.len() == 1 => Err(format!(
            "the pattern '{}' matches '{}', which is a matrix and has no '{}': its list must be empty",
            shorten(pattern.text(), 80),
            shorten(module, 80),
            shorten(&pattern.attributes()[0], 80)
        )),
        // The reference looks at a Linear or an Embedding before it looks at the list.
        (Some(_), Some(own)) => Ok(vec![own]),
        (Some(_), None) if listed.iter().all(Option::is_none) => Ok(Vec::new()),
        (Some(missing), None) => Err(format!(
            "'{}' lacks the tensor '{}.weight', which is in the list of the pattern '{}'",
            shorten(module, 80),
            shorten(&pattern.attributes()[missing], 80),
            shorten(pattern.text(), 80)
        )),
    }
}

/// Returns why tensors cannot be a group, if they cannot.
fn obstacle(tensors: &[SourceTensor<'_>], members: &[usize]) -> Option<(PlainReason, String)> {
    if let Some(other) = members.iter().map(|&m| &tensors[m]).find(|t| t.dtype != Dtype::BF16) {
        let name = shorten(other.name, 80);
        let reason = format!("the tensor '{name}' is {:?}, and only BF16 is compressed", other.dtype);
        return Some((PlainReason::OtherType, reason));
    }
    let weights = members.iter().fold(0u64, |sum, &m| sum.saturating_add(tensors[m].elements));
    let largest = members.iter().map(|&m| &tensors[m]).max_by_key(|t| t.elements)?;
    match weights {
        0 => Some((PlainReason::TooSmall, format!("the tensor '{}' has no weights", shorten(largest.name, 80)))),
        n if n >= MOST_WEIGHTS => {
            let reason = format!(
                "it has {n} weights, {} of them in the tensor '{}', and a group must have fewer than {MOST_WEIGHTS}",
                largest.elements,
                shorten(largest.name, 80)
            );
            Some((PlainReason::Format, reason))
        }
        _ => None,
    }
}
