//! Tensors that the reference's format cannot name or hold, in groups of their own: docs/format.md, "Groups with names and runs".
//!
//! A group of the reference holds whole tensors that are called `.weight`, and fewer than 2^32 weights. The experts of a
//! layer are often one tensor without such a name, and a tensor may be larger. Each of these becomes several groups, of which
//! each is a run of its elements, cut so that an expert can be decoded alone.

use super::{MOST_WEIGHTS, Plan, SourceTensor, modules_of};
use safetensors::Dtype;
use std::collections::HashSet;

/// A tensor in groups of its own, of which each is a run of its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// The tensor.
    pub tensor: usize,
    /// Its runs, in the order of its elements.
    pub runs: Vec<PlannedRun>,
}

/// A group that is a run of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRun {
    /// The group's name.
    pub group: String,
    /// The first element.
    pub first: u64,
    /// The number of elements.
    pub count: u64,
}

/// The sizes by which tensors are cut into runs, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSizes {
    /// From this size on the reference's format cannot hold a group.
    pub unheld: u64,
    /// The least size of a run of a tensor with three dimensions or more, which is cut at the borders of the first.
    pub least: u64,
    /// The same for a matrix, which is cut at the borders of its rows.
    pub least_of_matrix: u64,
    /// No run has this size or more.
    pub limit: u64,
}

impl Default for RunSizes {
    fn default() -> RunSizes {
        // Groups of fewer than 2^23 weights are many for no gain: a group takes some 6 KiB of tables and names.
        RunSizes { unheld: MOST_WEIGHTS, least: 1 << 23, least_of_matrix: 1 << 28, limit: 1 << 31 }
    }
}

/// Smaller tensors stay plain.
const SMALL: u64 = 1 << 16;
/// In a small model those that are less than this part of it.
const SMALL_PART: u64 = 1000;
/// If all that could be in runs is less than this part of the model, it stays plain: then every program that reads the model
/// reads all of it.
const WORTH_PART: u64 = 100;
/// The longest name of a tensor in runs: names of stored tensors have at most 1,024 bytes, and the group's is part of them.
const LONGEST_NAME: usize = 900;

/// Puts the bf16 tensors into runs that a plan leaves plain because the reference's format cannot name or hold them.
pub fn extend(plan: &mut Plan, tensors: &[SourceTensor<'_>], sizes: &RunSizes) {
    let total = tensors.iter().fold(0u64, |sum, t| sum.saturating_add(t.bf16_bytes() / 2));
    let small = SMALL.min(total / SMALL_PART);
    // Groups that are too large as wholes.
    let weights = |members: &[usize]| members.iter().fold(0u64, |sum, &m| sum.saturating_add(tensors[m].elements));
    let bf16 = |members: &[usize]| members.iter().all(|&m| tensors[m].dtype == Dtype::BF16);
    let is_unheld = |members: &[usize]| weights(members) >= sizes.unheld && bf16(members);
    // The limit of the format has kept them out already; a smaller one, of a test, does it here.
    for group in plan.groups.extract_if(.., |group| !group.tied && is_unheld(&group.members)) {
        plan.plain.extend(&group.members);
    }
    plan.plain.sort_unstable();
    let of_unheld: HashSet<usize> = plan
        .left
        .iter()
        .filter(|left| is_unheld(&left.tensors))
        .flat_map(|left| left.tensors.iter().copied())
        .collect();
    let dropped: HashSet<usize> = plan.dropped.iter().map(|dropped| dropped.tensor).collect();
    let wanted = |t: usize| {
        let SourceTensor { name, dtype, elements, shape } = tensors[t];
        let nameless = shape.len() >= 2 && !name.ends_with(".weight");
        let fits = dtype == Dtype::BF16 && name.len() <= LONGEST_NAME && !dropped.contains(&t);
        fits && elements >= small.max(1) && (nameless || elements >= sizes.unheld || of_unheld.contains(&t))
    };
    let mut found: Vec<usize> = plan.plain.iter().copied().filter(|&t| wanted(t)).collect();
    if found.is_empty() {
        return;
    }
    // The groups' names are the tensor's with an end, which no tensor may have if it is no module.
    let modules: HashSet<&str> = tensors.iter().flat_map(|t| modules_of(t.name)).collect();
    found.retain(|&t| !modules.contains(tensors[t].name));
    if weights(&found) < total / WORTH_PART {
        return;
    }
    found.sort_by(|&a, &b| crate::format::natural(tensors[a].name, tensors[b].name));
    let in_runs: HashSet<usize> = found.iter().copied().collect();
    plan.plain.retain(|t| !in_runs.contains(t));
    plan.left.retain_mut(|left| {
        // What is still plain of a group that was too large is small.
        let unheld = is_unheld(&left.tensors);
        left.tensors.retain(|t| !in_runs.contains(t));
        !unheld && !left.tensors.is_empty()
    });
    plan.in_runs = found.into_iter().map(|tensor| cut(tensor, &tensors[tensor], sizes)).collect();
}

/// Returns the tensors that [`extend`] would put into runs.
pub(crate) fn unnamed(plan: &Plan, tensors: &[SourceTensor<'_>], sizes: &RunSizes) -> HashSet<usize> {
    let mut plan = plan.clone();
    extend(&mut plan, tensors, sizes);
    plan.in_runs.iter().map(|planned| planned.tensor).collect()
}

/// Cuts a tensor into runs.
fn cut(number: usize, tensor: &SourceTensor<'_>, sizes: &RunSizes) -> PlannedTensor {
    let length = run_length(tensor.shape, sizes);
    let run = |(i, first): (usize, u64)| PlannedRun {
        group: format!("{}.run_{i}", tensor.name),
        first,
        count: length.min(tensor.elements - first),
    };
    let runs = (0..tensor.elements).step_by(length.min(usize::MAX as u64) as usize).enumerate().map(run).collect();
    PlannedTensor { tensor: number, runs }
}

/// Returns the length of a tensor's runs: as many elements of the first dimension as it takes for the least size, or elements
/// of a later dimension where one of the first has too many.
fn run_length(shape: &[u64], sizes: &RunSizes) -> u64 {
    let least = if shape.len() > 2 { sizes.least } else { sizes.least_of_matrix };
    let mut unit = 1;
    for &dimension in shape.iter().skip(1).rev() {
        match u64::checked_mul(unit, dimension).filter(|&next| next < sizes.limit) {
            Some(next) => unit = next.max(1),
            None => break,
        }
    }
    let most = ((sizes.limit - 1) / unit).max(1);
    unit * least.div_ceil(unit).clamp(1, most)
}
