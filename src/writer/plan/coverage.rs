//! What share of a model is in groups, and what stays plain, and why.

use super::{Plan, RunSizes, SourceTensor, unnamed};
use safetensors::Dtype;
use std::collections::{BTreeMap, HashSet};

/// The most tensors that [`StaysPlain::largest`] names.
const NAMED: usize = 5;
/// The weights below which a matrix takes about as many bytes in a group: tables and a header of its own outweigh what is saved.
const SMALL_MATRIX: u64 = 4096;
/// The same for a vector. Automatic groups have none, whatever its size.
const SMALL_VECTOR: u64 = 1 << 16;

/// The reason why a tensor is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PlainReason {
    /// No pattern asks for it.
    NotAskedFor,
    /// It is too small for a group to pay.
    TooSmall,
    /// It is not bf16, or another tensor of its group is not.
    OtherType,
    /// Its group has a value that DF11 cannot hold: an infinity, a NaN, or a magnitude of 2^113 and more.
    Values,
    /// The reference's format cannot name it or hold it.
    Format,
}

impl PlainReason {
    /// Returns a word for programs, such as `not_asked_for`.
    pub fn name(self) -> &'static str {
        match self {
            PlainReason::NotAskedFor => "not_asked_for",
            PlainReason::TooSmall => "too_small",
            PlainReason::OtherType => "other_type",
            PlainReason::Values => "values",
            PlainReason::Format => "format",
        }
    }

    /// Returns the reason in words for people.
    pub fn text(self) -> &'static str {
        match self {
            PlainReason::NotAskedFor => "no pattern asks for them",
            PlainReason::TooSmall => "too small for a group to pay",
            PlainReason::OtherType => "not bf16, or in a group with such a tensor",
            PlainReason::Values => "in a group with an infinity, a NaN or a value of 2^113 and more",
            PlainReason::Format => "the reference's format cannot name or hold them",
        }
    }
}

/// The tensors that stay plain for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaysPlain {
    /// The reason.
    pub reason: PlainReason,
    /// The number of tensors.
    pub tensors: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// The bytes of those that are bf16.
    pub bf16_bytes: u64,
    /// The names and bytes of the largest five, the largest first.
    pub largest: Vec<(String, u64)>,
}

/// What share of a model's bf16 bytes is in groups, and what stays plain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// The bytes of all bf16 tensors that are stored. A tied head that is not stored does not count.
    pub bf16_bytes: u64,
    /// The bytes of those in groups, each tensor once.
    pub grouped_bf16_bytes: u64,
    /// What stays plain, the reason with the most bytes first. No reason is there twice.
    pub plain: Vec<StaysPlain>,
}

impl Coverage {
    /// Returns the share of the bf16 bytes that is in groups, from 0 to 1; 0 for a model without any.
    pub fn share(&self) -> f64 {
        if self.bf16_bytes == 0 { 0.0 } else { self.grouped_bf16_bytes as f64 / self.bf16_bytes as f64 }
    }

    /// Counts what a plan makes of a model. `unfit` are the names of groups whose values DF11 turned out not to hold, and
    /// `dropped` the tensors that are not stored at all. What could be in runs of these `sizes` and is not, the reference cannot
    /// name or hold.
    pub(crate) fn new(
        tensors: &[SourceTensor<'_>],
        plan: &Plan,
        sizes: &RunSizes,
        unfit: &HashSet<&str>,
        dropped: &HashSet<usize>,
    ) -> Coverage {
        let mut reasons: Vec<Option<PlainReason>> = tensors.iter().map(|tensor| Some(unasked(tensor))).collect();
        unnamed(plan, tensors, sizes).into_iter().for_each(|t| reasons[t] = Some(PlainReason::Format));
        for left in &plan.left {
            left.tensors.iter().for_each(|&t| reasons[t] = Some(left.why));
        }
        for group in &plan.groups {
            let reason = unfit.contains(&group.name[..]).then_some(PlainReason::Values);
            for &member in &group.members {
                // The embedding of a tied model may be in two groups.
                if reason.is_none() || reasons[member].is_some() {
                    reasons[member] = reason;
                }
            }
        }
        for planned in &plan.in_runs {
            // All runs of a tensor stay plain if one does.
            let fits = !planned.runs.iter().any(|run| unfit.contains(&run.group[..]));
            reasons[planned.tensor] = if fits { None } else { Some(PlainReason::Values) };
        }
        let mut coverage = Coverage::default();
        let mut plain: BTreeMap<PlainReason, Vec<usize>> = BTreeMap::new();
        for (number, tensor) in tensors.iter().enumerate().filter(|(number, _)| !dropped.contains(number)) {
            coverage.bf16_bytes = coverage.bf16_bytes.saturating_add(tensor.bf16_bytes());
            match reasons[number] {
                None => {
                    coverage.grouped_bf16_bytes = coverage.grouped_bf16_bytes.saturating_add(tensor.bf16_bytes());
                }
                Some(reason) => plain.entry(reason).or_default().push(number),
            }
        }
        coverage.plain = plain.into_iter().map(|(reason, numbers)| stays_plain(tensors, reason, numbers)).collect();
        coverage.plain.sort_by_key(|plain| std::cmp::Reverse(plain.bytes));
        coverage
    }
}

/// Returns why a tensor is plain that no group asks for.
fn unasked(tensor: &SourceTensor<'_>) -> PlainReason {
    if tensor.dtype != Dtype::BF16 {
        PlainReason::OtherType
    } else if tensor.elements < if tensor.shape.len() > 1 { SMALL_MATRIX } else { SMALL_VECTOR } {
        PlainReason::TooSmall
    } else if !tensor.name.ends_with(".weight") {
        // Patterns name modules, and a module's tensor is its `.weight`.
        PlainReason::Format
    } else {
        PlainReason::NotAskedFor
    }
}

fn stays_plain(tensors: &[SourceTensor<'_>], reason: PlainReason, mut numbers: Vec<usize>) -> StaysPlain {
    let (mut bytes, mut bf16_bytes) = (0u64, 0u64);
    for &number in &numbers {
        bytes = bytes.saturating_add(tensors[number].bytes());
        bf16_bytes = bf16_bytes.saturating_add(tensors[number].bf16_bytes());
    }
    let count = numbers.len() as u64;
    numbers.sort_by_key(|&number| std::cmp::Reverse(tensors[number].bytes()));
    let named = |&number: &usize| (tensors[number].name.to_owned(), tensors[number].bytes());
    let largest = numbers.iter().take(NAMED).map(named).collect();
    StaysPlain { reason, tensors: count, bytes, bf16_bytes, largest }
}

#[cfg(test)]
mod tests {
    use super::super::{Patterns, plan};
    use super::*;

    #[test]
    fn every_tensor_is_counted_once_with_its_reason() {
        let tensor = |name, dtype, elements| SourceTensor { name, dtype, shape: &[100, 100], elements };
        let table = [
            tensor("l.0.a.weight", Dtype::BF16, 10_000),
            tensor("l.0.norm.weight", Dtype::BF16, 64),
            tensor("l.1.a.weight", Dtype::F32, 10_000),
            tensor("l.2.a.weight", Dtype::BF16, 20_000),
            tensor("l.3.a.weight", Dtype::BF16, 1 << 32),
            tensor("l.3.experts", Dtype::BF16, 50_000),
            tensor("m.weight", Dtype::BF16, 30_000),
            tensor("m2.weight", Dtype::BF16, 40_000),
            tensor("q", Dtype::F4, 3),
            tensor("head.weight", Dtype::BF16, 9_000),
        ];
        let patterns = Patterns::from_value(&serde_json::json!({ r"l\.\d": ["a"] })).unwrap();
        let plan = plan(&table, &patterns, false).unwrap();
        let sizes = RunSizes::default();
        let coverage = Coverage::new(&table, &plan, &sizes, &HashSet::from(["l.2"]), &HashSet::from([9]));
        assert_eq!(coverage.grouped_bf16_bytes, 20_000);
        let plain = coverage.plain.iter().map(|p| (p.reason, p.tensors, p.bytes, p.bf16_bytes));
        let want = [
            (PlainReason::Format, 2, (1 << 33) + 100_000, (1 << 33) + 100_000),
            (PlainReason::NotAskedFor, 2, 140_000, 140_000),
            (PlainReason::OtherType, 2, 40_001, 0),
            (PlainReason::Values, 1, 40_000, 40_000),
            (PlainReason::TooSmall, 1, 128, 128),
        ];
        assert_eq!(plain.collect::<Vec<_>>(), want);
        assert_eq!(coverage.plain[1].largest, [("m2.weight".to_owned(), 80_000), ("m.weight".to_owned(), 60_000)]);
        let all: u64 = want.iter().map(|w| w.3).sum();
        assert_eq!(coverage.bf16_bytes, coverage.grouped_bf16_bytes + all);
        assert_eq!(Coverage::default().share(), 0.0);
        // Experts of a small model are not too small for a run, but without a name.
        let small = [tensor("l.0.a.weight", Dtype::BF16, 4096), tensor("l.0.experts", Dtype::BF16, 4000)];
        let plan = super::super::plan(&small, &patterns, false).unwrap();
        let coverage = Coverage::new(&small, &plan, &sizes, &HashSet::new(), &HashSet::new());
        assert_eq!(coverage.plain.iter().map(|p| p.reason).collect::<Vec<_>>(), [PlainReason::Format]);
    }
}
