//! Sizes of groups that are not there yet.

use super::GroupPlan;
use crate::cuda::ImageLayout;
use crate::error::{Error, Result, grow, shorten};
use crate::format::Model;
use crate::host::PackedSizes;
use crate::huffman::code::CodeTable;
use crate::huffman::codebook::Codebook;
use crate::huffman::encode::{Variant, count};
use crate::huffman::{BLOCK_BYTES, GAP_BYTES_PER_BLOCK, rows};
use crate::progress::Progress;
use crate::writer::dry::DryGroup;
use std::collections::HashMap;

/// Bits that the code of an exponent takes, if nothing is known of the weights: those of a layer of a published model, which takes
/// 10.87 bits a weight with signs, mantissas, gaps, positions and tables. docs/format.md says where the bits go.
pub const ASSUMED_CODE_BITS: f64 = 2.662;
/// The rows of the look-up tables of such a layer.
const ASSUMED_ROWS: u64 = 8;

/// Where the sizes of a group are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// The group's own file.
    Exact,
    /// Some of its weights, or of a group of its kind, were counted.
    Sampled,
    /// [`ASSUMED_CODE_BITS`].
    Assumed,
}

/// The code that sampled weights have.
#[derive(Debug, Clone)]
pub(super) struct SampledCode {
    bits_per_weight: f64,
    rows: u64,
    table: CodeTable,
}

impl SampledCode {
    /// Returns the code of a histogram; `None` if DF11 cannot hold such weights, or if there are none.
    fn of(histogram: &[u64; 256]) -> Option<SampledCode> {
        let book = Codebook::new(histogram)?;
        let weights: u64 = histogram.iter().sum();
        let bits_per_weight = book.bits(histogram)? as f64 / weights as f64;
        let rows = rows::count(book.words()) as u64 + 1;
        Some(SampledCode { bits_per_weight, rows, table: book.table() })
    }
}

/// Returns the sizes of a group.
pub(super) fn group(group: &DryGroup, code: Option<&SampledCode>) -> Result<GroupPlan> {
    let (weights, count) = (weights_of(group), group.segments.len());
    let bits = code.map_or(ASSUMED_CODE_BITS, |c| c.bits_per_weight);
    let code_bytes = (weights as f64 * bits / 8.0).ceil() as u64;
    let blocks = code_bytes.div_ceil(BLOCK_BYTES as u64);
    let packed = PackedSizes {
        luts: code.map_or(ASSUMED_ROWS, |c| c.rows) * rows::ROW as u64,
        encoded_exponent: code_bytes,
        sign_mantissa: weights,
        output_positions: 4 * (blocks + 1),
        gaps: GAP_BYTES_PER_BLOCK as u64 * blocks,
        split_positions: 8 * (count as u64).saturating_sub(1),
    };
    let image = ImageLayout::estimated(weights, code_bytes, count, code.map(|c| &c.table));
    let image = image.ok_or_else(|| {
        let shown = shorten(&group.name, 80);
        Error::InvalidArgument(format!("a group of {count} tensors and {weights} weights: '{shown}'"))
    })?;
    Ok(GroupPlan {
        name: group.name.clone(),
        tensor_count: count as u64,
        element_count: weights,
        packed,
        image,
        extended: group.extended,
        basis: if code.is_some() { Basis::Sampled } else { Basis::Assumed },
    })
}

/// Groups of one kind that are sampled.
const GROUPS_OF_A_KIND: usize = 16;
/// Weights of a group that are counted, in runs of so many that lie apart.
const SAMPLED_WEIGHTS: u64 = 1 << 18;
const RUN: u64 = 1 << 13;

/// Counts some weights: those of some groups of each kind, which are groups whose names differ in numbers only and that have as many
/// weights. Returns a code for each group; `None` for one whose weights cannot be compressed, as far as they were seen.
pub(super) fn sample(model: &Model, groups: &[DryGroup], progress: &Progress) -> Result<Vec<Option<SampledCode>>> {
    let mut kinds: HashMap<(String, u64), Vec<usize>> = HashMap::new();
    for (number, group) in groups.iter().enumerate() {
        let skeleton = group.name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
        let mut name: Vec<char> = skeleton.collect();
        name.dedup_by(|a, b| *a == '0' && *b == '0');
        kinds.entry((name.into_iter().collect(), weights_of(group))).or_default().push(number);
    }
    let mut codes = vec![None; groups.len()];
    let mut buffer = Vec::new();
    for members in kinds.values() {
        let step = members.len().div_ceil(GROUPS_OF_A_KIND);
        let mut sum = [0u64; 256];
        for &number in members.iter().step_by(step) {
            progress.check()?;
            let mut histogram = [0; 256];
            count_some(model, &groups[number], &mut buffer, &mut histogram)?;
            sum.iter_mut().zip(&histogram).for_each(|(sum, n)| *sum += n);
            codes[number] = SampledCode::of(&histogram);
        }
        let of_kind = SampledCode::of(&sum);
        for &number in members {
            codes[number] = codes[number].take().or_else(|| of_kind.clone());
        }
    }
    Ok(codes)
}

fn weights_of(group: &DryGroup) -> u64 {
    group.segments.iter().map(|&(_, _, count)| count).sum()
}

/// Counts runs of a group's weights that are spread evenly over its tensors, and all weights of a small group.
fn count_some(model: &Model, group: &DryGroup, buffer: &mut Vec<u16>, histogram: &mut [u64; 256]) -> Result<()> {
    let all = weights_of(group);
    let variant = Variant::best();
    grow(buffer, RUN as usize, 0u16, "a sample of weights")?;
    for &(tensor, first, weights) in &group.segments {
        let tensor = model.tensor_at(tensor);
        let share = (u128::from(SAMPLED_WEIGHTS) * u128::from(weights)).div_ceil(u128::from(all.max(1))) as u64;
        let runs = if all <= SAMPLED_WEIGHTS { weights.div_ceil(RUN) } else { share.div_ceil(RUN) };
        for run in 0..runs {
            let from = match all <= SAMPLED_WEIGHTS {
                true => run * RUN,
                false => (u128::from(weights) * u128::from(run) / u128::from(runs)) as u64,
            };
            let run = &mut buffer[..RUN.min(weights - from) as usize];
            tensor.read_plain(2 * (first + from), bytemuck::cast_slice_mut(run))?;
            count(run, histogram, variant);
        }
    }
    Ok(())
}
