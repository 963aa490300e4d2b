//! A model on several devices.
//!
//! *By layers*, each device holds whole layers, and those of one device follow one another. Where the borders are is chosen so
//! that the device that holds most holds as little as possible.
//!
//! *By rows*, each device holds an equal part of every matrix, and all of the vectors.

use super::{GroupPlan, KvCache, ModelPlan, PlainPlan};
use crate::cuda::ImageLayout;
use crate::error::{Error, Result};
use crate::format::{is_number, natural};
use std::collections::HashMap;

/// The most devices.
const MOST_DEVICES: u32 = 1024;

/// How a model is split among devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// Each device has some of the layers.
    Layers,
    /// Each device has some of the rows, or columns, of every matrix.
    Rows,
}

/// The part of a model that is on one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceShare {
    /// Bytes of images. Not compressed, the bytes of the groups' weights.
    pub image_bytes: u64,
    /// Bytes of tensors that are stored as they are.
    pub plain_bytes: u64,
    /// Bytes of the buffers for decoded weights.
    pub scratch_bytes: u64,
    /// Bytes of the KV cache for each token; `None` if they are not known.
    pub cache_bytes_per_token: Option<u64>,
    /// By layers, the first of them: the name of a block, or of a module outside the blocks.
    pub first: Option<String>,
    /// By layers, the last of them.
    pub last: Option<String>,
}

impl DeviceShare {
    /// Returns the bytes of all of it, without the KV cache.
    pub fn total_bytes(&self) -> u64 {
        self.image_bytes.saturating_add(self.plain_bytes).saturating_add(self.scratch_bytes)
    }

    /// Returns the tokens whose KV cache fits next to it: `None` if the weights alone do not, `u64::MAX` for a device without
    /// layers that have a cache.
    fn tokens(&self, memory: u64) -> Option<u64> {
        let free = memory.checked_sub(self.total_bytes())?;
        Some(free.checked_div(self.cache_bytes_per_token.unwrap_or(0)).unwrap_or(u64::MAX))
    }
}

/// Tokens of KV cache that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tokens {
    /// Next to the compressed model; `None` if it does not fit itself.
    pub compressed: Option<u64>,
    /// Next to the same model not compressed; `None` if that does not fit.
    pub bf16: Option<u64>,
}

/// What stays together on one device: a numbered block, or a module outside the blocks.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub name: String,
    image_bytes: u64,
    plain_bytes: u64,
    /// Weights in groups, and those of the largest.
    weights: u64,
    largest: u64,
    /// Numbers in the KV cache for each token.
    cache: u64,
}

/// Returns the numbered block that a module or a tensor is in, if it is in one: `model.layers.3` for
/// `model.layers.3.mlp.up_proj.weight`.
pub(super) fn block_of(name: &str) -> Option<&str> {
    let mut end = 0;
    for part in name.split('.') {
        let start = end;
        end += part.len();
        if start > 0 && is_number(part) {
            return Some(&name[..end]);
        }
        end += 1;
    }
    None
}

/// Returns whether a module outside the blocks comes after them: heads, last norms, outputs.
fn comes_last(name: &str) -> bool {
    let parts = name.split('.').filter(|part| !matches!(*part, "weight" | "bias"));
    let words = parts.flat_map(|part| part.split('_'));
    words.into_iter().any(|word| matches!(word, "head" | "norm" | "out" | "output" | "final"))
}

/// Puts groups and tensors together to units, in the order in which they are used.
pub(super) fn units(groups: &[GroupPlan], plain: &[PlainPlan], cache: Option<&KvCache>) -> Vec<Unit> {
    let mut all: Vec<Unit> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut number = |name: &str, all: &mut Vec<Unit>| {
        let module = || name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(name);
        let name = block_of(name).unwrap_or_else(module);
        *known.entry(name.to_owned()).or_insert_with(|| {
            all.push(Unit { name: name.to_owned(), ..Unit::default() });
            all.len() - 1
        })
    };
    for group in groups {
        let unit = number(&group.name, &mut all);
        let unit = &mut all[unit];
        unit.image_bytes += group.image.image_bytes;
        unit.weights += group.element_count;
        unit.largest = unit.largest.max(group.element_count);
    }
    for tensor in plain {
        let unit = number(&tensor.name, &mut all);
        all[unit].plain_bytes += tensor.bytes;
    }
    for unit in &mut all {
        unit.cache = cache.and_then(|cache| cache.blocks.get(&unit.name).copied()).unwrap_or(0);
    }
    let place = |unit: &Unit| match block_of(&unit.name) {
        Some(_) => 1,
        None => 2 * u8::from(comes_last(&unit.name)),
    };
    all.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| natural(&a.name, &b.name)));
    all
}

impl ModelPlan {
    /// Returns the part of the model that each of `count` devices holds.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a number of devices that is 0 or above 1,024.
    pub fn devices(&self, count: u32, split: Split) -> Result<Vec<DeviceShare>> {
        self.shares(count, split, true)
    }

    /// Returns the same for the model not compressed: without images and buffers.
    ///
    /// # Errors
    ///
    /// As [`ModelPlan::devices`].
    pub fn devices_bf16(&self, count: u32, split: Split) -> Result<Vec<DeviceShare>> {
        self.shares(count, split, false)
    }

    /// Returns the tokens of KV cache that fit `count` devices with `memory` bytes each.
    ///
    /// # Errors
    ///
    /// `NotFound`, with the reason, if the size of the cache is not known; else as [`ModelPlan::devices`].
    pub fn tokens(&self, memory: u64, count: u32, split: Split) -> Result<Tokens> {
        self.cache().map_err(|reason| Error::NotFound(reason.to_owned()))?;
        let fit = |shares: Vec<DeviceShare>| {
            if shares.iter().any(|share| share.cache_bytes_per_token.is_none()) {
                let reason = format!("the heads of the KV cache cannot be split evenly among {count} devices");
                return Err(Error::NotFound(reason));
            }
            let each: Option<Vec<u64>> = shares.iter().map(|share| share.tokens(memory)).collect();
            Ok(each.and_then(|each| each.into_iter().min()))
        };
        Ok(Tokens { compressed: fit(self.devices(count, split)?)?, bf16: fit(self.devices_bf16(count, split)?)? })
    }

    fn shares(&self, count: u32, split: Split, compressed: bool) -> Result<Vec<DeviceShare>> {
        if !(1..=MOST_DEVICES).contains(&count) {
            return Err(Error::InvalidArgument(format!("{count} devices: 1 to {MOST_DEVICES} are possible")));
        }
        Ok(match split {
            Split::Rows => vec![self.by_rows(u64::from(count), compressed); count as usize],
            Split::Layers => self.by_layers(count as usize, compressed),
        })
    }

    fn share_of(&self, units: &[Unit], compressed: bool) -> DeviceShare {
        let sum = |value: &dyn Fn(&Unit) -> u64| units.iter().map(value).fold(0u64, u64::saturating_add);
        let largest = units.iter().map(|unit| unit.largest).max().unwrap_or(0);
        let cache = self.cache.as_ref().ok().map(|_| sum(&|unit| unit.cache) * u64::from(self.number_bytes));
        DeviceShare {
            image_bytes: sum(&|unit| if compressed { unit.image_bytes } else { 2 * unit.weights }),
            plain_bytes: sum(&|unit| unit.plain_bytes),
            scratch_bytes: if compressed { self.scratch(largest) } else { 0 },
            cache_bytes_per_token: cache,
            first: units.first().map(|unit| unit.name.clone()),
            last: units.last().map(|unit| unit.name.clone()),
        }
    }

    fn by_layers(&self, count: usize, compressed: bool) -> Vec<DeviceShare> {
        let most = |limit: u64| cut(&self.units, count, |units| self.bytes_of(units, compressed) <= limit);
        // The least limit with which the units fit that many devices.
        let (mut low, mut high) = (0, self.bytes_of(&self.units, compressed));
        while low < high {
            let middle = low + (high - low) / 2;
            if most(middle).is_some() { high = middle } else { low = middle + 1 }
        }
        let ends = most(high).unwrap_or_default();
        let mut from = 0;
        let share = |to| {
            let units = &self.units[from..to];
            from = to;
            self.share_of(units, compressed)
        };
        ends.into_iter().map(share).collect()
    }

    fn bytes_of(&self, units: &[Unit], compressed: bool) -> u64 {
        let add = |(sum, largest): (u64, u64), unit: &Unit| {
            let groups = if compressed { unit.image_bytes } else { 2 * unit.weights };
            (sum.saturating_add(groups).saturating_add(unit.plain_bytes), largest.max(unit.largest))
        };
        let (sum, largest) = units.iter().fold((0, 0), add);
        sum.saturating_add(if compressed { self.scratch(largest) } else { 0 })
    }

    fn by_rows(&self, count: u64, compressed: bool) -> DeviceShare {
        let image = |group: &GroupPlan| {
            if !compressed {
                return 2 * group.element_count.div_ceil(count);
            }
            if count == 1 {
                return group.image.image_bytes;
            }
            ImageLayout::of_share(&group.image, count).map_or(0, |layout| layout.image_bytes)
        };
        let plain = |tensor: &PlainPlan| match tensor.shape[..] {
            [rows, _, ..] if rows.is_multiple_of(count) => tensor.bytes / count,
            _ => tensor.bytes,
        };
        let largest = self.largest_group().map_or(0, |group| group.element_count.div_ceil(count));
        let cache = self.cache.as_ref().ok().and_then(|cache| cache.elements_of_share(count));
        DeviceShare {
            image_bytes: self.groups.iter().map(image).fold(0, u64::saturating_add),
            plain_bytes: self.plain.iter().map(plain).fold(0, u64::saturating_add),
            scratch_bytes: if compressed { self.scratch(largest) } else { 0 },
            cache_bytes_per_token: cache.map(|elements| elements * u64::from(self.number_bytes)),
            first: None,
            last: None,
        }
    }
}

/// Cuts units into at most `count` runs, each as long as it fits. Returns their ends, `count` of them (the last runs may be empty);
/// `None` if more runs are needed.
fn cut(units: &[Unit], count: usize, fits: impl Fn(&[Unit]) -> bool) -> Option<Vec<usize>> {
    let mut ends = Vec::with_capacity(count);
    let mut from = 0;
    while ends.len() < count {
        // What fits grows with no run that is longer, so the end is found by halving.
        let rest = units.len() - from;
        let (mut low, mut high) = (0, rest);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(&units[from..from + middle]) { low = middle } else { high = middle - 1 }
        }
        from += low;
        ends.push(from);
    }
    (from == units.len()).then_some(ends)
}
