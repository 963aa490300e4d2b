//! Which slices of a tensor each of several ranks holds: dimensions, segments of them, and the rules for what does not
//! divide evenly.

use super::image::Slice;
use crate::error::{Error, Result, shorten};
use crate::format::{Group, Run};
use std::ops::Range;

/// The most ranks.
const MOST_RANKS: u32 = 1 << 20;

/// The rule by which units are divided among ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SplitRule {
    /// Each rank gets as many. Refused if the units do not divide by the ranks, as vLLM and Megatron refuse it.
    #[default]
    Even,
    /// As `Even`; but where there are more ranks than units, each unit goes to as many ranks as there are for one: as engines
    /// divide the heads of keys and values. Refused if the ranks do not divide by the units then.
    Replicate,
    /// The first ranks get one unit more than the last ones, or as many.
    Spread,
    /// Each rank but the last ones gets as many, rounded up, and the last ones what is left, or nothing: as engines divide a
    /// vocabulary that they pad to a multiple of the ranks. The padding itself is not in the file, and in no slice.
    Pad,
}

/// Consecutive rows or columns that are divided alike: all of a dimension, or one of the matrices that a fused tensor
/// joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Rows or columns.
    pub extent: u64,
    /// Rows or columns that stay together, such as those of a head.
    pub unit: u64,
    /// How units are divided.
    pub rule: SplitRule,
}

impl Segment {
    /// Returns a segment whose rows or columns are divided evenly.
    pub fn new(extent: u64) -> Segment {
        Segment { extent, unit: 1, rule: SplitRule::Even }
    }

    /// Sets the rows or columns that stay together.
    pub fn unit(mut self, unit: u64) -> Segment {
        self.unit = unit;
        self
    }

    /// Sets the rule.
    pub fn rule(mut self, rule: SplitRule) -> Segment {
        self.rule = rule;
        self
    }

    /// Returns the rows or columns that a rank gets, 0 to `world` - 1. It is empty only by [`SplitRule::Spread`] and
    /// [`SplitRule::Pad`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a rank that is none, and for what the rule refuses.
    pub fn share(&self, rank: u32, world: u32) -> Result<Range<u64>> {
        let &Segment { extent, unit, rule } = self;
        let invalid = |reason| Err(Error::InvalidArgument(reason));
        if rank >= world || world > MOST_RANKS {
            return invalid(format!("there is no rank {rank} of {world}: ranks are 0 to {}", world.wrapping_sub(1)));
        }
        if unit == 0 {
            return invalid("a unit of 0 rows or columns".into());
        }
        if rule != SplitRule::Pad && !extent.is_multiple_of(unit) {
            return invalid(format!("{extent} rows or columns are no whole units of {unit}"));
        }
        let units = extent.div_ceil(unit);
        let (rank, world) = (rank as u64, world as u64);
        let (first, count) = match rule {
            SplitRule::Replicate if (1..world).contains(&units) => {
                if !world.is_multiple_of(units) {
                    return invalid(format!("{units} units cannot be held by {world} ranks, as many times each"));
                }
                (rank / (world / units), 1)
            }
            SplitRule::Even | SplitRule::Replicate => {
                if !units.is_multiple_of(world) {
                    return invalid(format!(
                        "{units} units of {unit} rows or columns cannot be divided evenly among {world} ranks"
                    ));
                }
                (rank * (units / world), units / world)
            }
            SplitRule::Spread => {
                let (each, more) = (units / world, units % world);
                (rank * each + rank.min(more), each + u64::from(rank < more))
            }
            SplitRule::Pad => {
                let each = units.div_ceil(world);
                let first = units.min(rank.saturating_mul(each));
                (first, each.min(units - first))
            }
        };
        // The last unit may be cut short.
        let border = |units: u64| extent.min(units.saturating_mul(unit));
        Ok(border(first)..border(first + count))
    }
}

/// The dimension along which ranks divide a matrix, and how much its name says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ByName {
    dimension: usize,
    /// True for one matrix whose rows or columns are all alike. Others have heads, or are several in one.
    simple: bool,
}

/// Matrices of two dimensions by the name of their module. [Megatron's][1] way: what reads the residual stream is divided by
/// rows, what writes it by columns, so that a block adds up once over all ranks.
///
/// [1]: https://arxiv.org/abs/1909.08053
const NAMES: &[(usize, bool, &[&str])] = &[
    (0, true, &["gate_proj", "up_proj", "w1", "w3", "fc1", "dense_h_to_4h"]),
    (0, true, &["embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "lm_head", "embed_out"]),
    (0, false, &["q_proj", "k_proj", "v_proj", "wq", "wk", "wv"]),
    (0, false, &["qkv_proj", "query_key_value", "Wqkv", "wqkv", "gate_up_proj"]),
    (1, true, &["down_proj", "w2", "fc2", "dense_4h_to_h"]),
    (1, false, &["o_proj", "wo"]),
];

fn by_name(name: &str) -> Option<ByName> {
    let module = name.strip_suffix(".weight")?.rsplit('.').next()?;
    let (dimension, simple, _) = NAMES.iter().find(|(_, _, names)| names.contains(&module))?;
    Some(ByName { dimension: *dimension, simple: *simple })
}

impl<'m> Group<'m> {
    /// Returns the slices that a rank holds of one of the group's tensors, one for each segment of a dimension: rows for
    /// dimension 0 of a matrix, columns for dimension 1. The segments together are the whole dimension. Without segments the
    /// dimension is one that is divided evenly.
    ///
    /// `dimension` `None` takes the one by which tensor parallelism divides a tensor of this name: rows of `q_proj`,
    /// `k_proj`, `v_proj`, `gate_proj`, `up_proj`, embeddings and heads, columns of `o_proj` and `down_proj`, and their like.
    /// Those that have heads, or are several matrices in one, need segments.
    ///
    /// If the group holds only a run of the tensor, the slices are of that run.
    ///
    /// # Errors
    ///
    /// `NotFound` for a tensor that the group does not have, and for a name that does not tell; `InvalidArgument` for a
    /// tensor whose shape is not known, a dimension that it does not have, segments that are not all of it, what
    /// [`Segment::share`] refuses, and a run that is not whole in the dimension.
    pub fn slices(
        self,
        tensor: usize,
        dimension: Option<usize>,
        segments: &[Segment],
        rank: u32,
        world: u32,
    ) -> Result<Vec<Slice>> {
        let Some(run) = self.runs().nth(tensor) else {
            let (name, count) = (shorten(self.name(), 80), self.runs().len());
            return Err(Error::NotFound(format!("group '{name}' has no tensor {tensor}: it has {count}")));
        };
        let (name, shape) = (shorten(run.tensor().name(), 80), run.tensor().shape());
        let invalid = |reason| Err(Error::InvalidArgument(reason));
        if !run.tensor().shape_known() {
            return invalid(format!(
                "the shape of '{name}' is not known: give it when the model is opened (df11_open_options.shapes_json)"
            ));
        }
        let dimension = match dimension {
            Some(dimension) => dimension,
            None => {
                let known = by_name(run.tensor().name()).filter(|_| shape.len() == 2);
                let Some(ByName { dimension, simple }) = known else {
                    let reason = format!("the name of '{name}' does not tell how ranks divide it: give the dimension");
                    return Err(Error::NotFound(reason));
                };
                if !simple && segments.is_empty() {
                    return invalid(format!("'{name}' has heads, or is several matrices in one: give segments"));
                }
                dimension
            }
        };
        let Some(&extent) = shape.get(dimension) else {
            return invalid(format!("'{name}' of {} dimensions has no dimension {dimension}", shape.len()));
        };
        let whole = [Segment::new(extent)];
        let segments = if segments.is_empty() { &whole[..] } else { segments };
        let sum = segments.iter().fold(0u64, |sum, segment| sum.saturating_add(segment.extent));
        if sum != extent {
            return invalid(format!("segments of {sum} together, and dimension {dimension} of '{name}' is {extent}"));
        }
        let mut before = 0;
        let slice_of = |segment: &Segment| {
            let share = segment.share(rank, world).map_err(|error| match error {
                Error::InvalidArgument(reason) => Error::InvalidArgument(format!("'{name}': {reason}")),
                other => other,
            })?;
            let part = before + share.start..before + share.end;
            before += segment.extent;
            slice(tensor as u32, run, dimension, part)
        };
        segments.iter().map(slice_of).collect()
    }
}

/// Returns the slice of a run that is part of a dimension.
fn slice(number: u32, run: Run, dimension: usize, part: Range<u64>) -> Result<Slice> {
    let shape = run.tensor().shape();
    let (start, count) = (run.tensor_offset(), run.element_count());
    // Only the dimensions of a tensor without elements have larger products.
    let inner = shape[dimension + 1..].iter().fold(1u64, |product, &size| product.saturating_mul(size));
    let stride = shape[dimension].saturating_mul(inner);
    let (first, elements, runs) = if count == 0 {
        (0, 0, 0)
    } else if dimension == 0 {
        let from = (part.start * inner).clamp(start, start + count);
        let to = (part.end * inner).clamp(start, start + count);
        (from - start, to - from, 1)
    } else if part == (0..shape[dimension]) {
        (0, count, 1)
    } else {
        if !start.is_multiple_of(stride) || !count.is_multiple_of(stride) {
            let name = shorten(run.tensor().name(), 80);
            let reason =
                format!("the group has elements {start} + {count} of '{name}': not whole in dimension {dimension}");
            return Err(Error::InvalidArgument(reason));
        }
        (part.start * inner, (part.end - part.start) * inner, count / stride)
    };
    if elements == 0 || runs == 0 {
        return Ok(Slice { tensor: number, ..Slice::default() });
    }
    // A group has fewer than 2^32 weights, and so have its tensors.
    let word = |value: u64| u32::try_from(value).map_err(|_| Error::Internal(format!("{value} weights in a group")));
    let stride = if runs == 1 { elements } else { stride };
    let (first, run_elements, run_stride, run_count) = (word(first)?, word(elements)?, word(stride)?, word(runs)?);
    Ok(Slice { tensor: number, first, run_elements, run_stride, run_count })
}
