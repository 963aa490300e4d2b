//! What a model says without saying shapes: lengths of its plain tensors, and sizes of its config.

use super::config::{Part, Parts};
use super::paths::{blocks_around, tower_of};
use super::{MOST_LEVELS, MOST_NAME, Size, names};
use crate::error::Result;
use crate::format::tensor::{Data, TensorData};
use crate::progress::Progress;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// The lengths of the norms of a block.
#[derive(Default)]
pub(super) struct Norms {
    pub(super) len: u64,
    pub(super) count: usize,
    pub(super) differ: bool,
}

impl Norms {
    pub(super) fn add(&mut self, len: u64) {
        self.differ |= self.count > 0 && self.len != len;
        (self.len, self.count) = (len, self.count + 1);
    }
}

/// The width of the residual stream at a place.
#[derive(Clone, Copy)]
pub(super) enum Width {
    /// At least two facts say so.
    Certain(u64),
    /// Nothing says it.
    Open,
    /// Facts contradict each other, or there is only one.
    Doubtful,
}

pub(super) struct Facts<'a> {
    pub(super) tensors: &'a [TensorData],
    /// The numbers of tensors by their names, but for names that are longer than any model's.
    numbers: HashMap<&'a str, u32>,
    pub(super) parts: Parts,
    /// Norms of blocks, by the block.
    norms: HashMap<&'a str, Norms>,
    /// Norms after all blocks, by the module that holds them.
    pub(super) finals: HashMap<&'a str, Norms>,
    /// All norms of the blocks of a list, by the module that holds it.
    pub(super) towers: HashMap<&'a str, Norms>,
    /// The lengths of norms that agree with those beside them.
    pub(super) normed: HashSet<u64>,
    /// True if the only matrices outside blocks are embeddings of a vocabulary and heads.
    pub(super) plain_stream: bool,
    /// The steps of work that have been done: what a config and names make of a few megabytes is bounded.
    pub(super) steps: Cell<u64>,
    /// Blocks in which something is called a convolution, or has three and more dimensions.
    convolutional: HashSet<&'a str>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(tensors: &'a [TensorData], config: Option<&str>, progress: &Progress) -> Result<Self> {
        let parts = config.map(Parts::read).unwrap_or_default();
        let (mut norms, mut finals) = (HashMap::<_, Norms>::new(), HashMap::<_, Norms>::new());
        let mut towers = HashMap::<_, Norms>::new();
        let (mut convolutional, mut plain_stream) = (HashSet::new(), true);
        let mut numbers = HashMap::new();
        for (number, tensor) in tensors.iter().enumerate().filter(|(_, t)| t.name.len() <= MOST_NAME) {
            progress.check()?;
            numbers.insert(&tensor.name[..], number as u32);
            if let (Some(module), Data::Plain(_), [len]) =
                (tensor.name.strip_suffix(".weight"), tensor.data, &tensor.shape[..])
            {
                let (parent, leaf) = module.rsplit_once('.').unwrap_or(("", module));
                if names::BLOCK_NORMS.contains(&leaf) {
                    norms.entry(parent).or_default().add(*len);
                    if let Some(tower) = tower_of(parent) {
                        towers.entry(tower).or_default().add(*len);
                    }
                }
                if names::FINAL_NORMS.contains(&leaf) {
                    finals.entry(parent).or_default().add(*len);
                }
            } else if tower_of(&tensor.name).is_none() {
                let module = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
                let leaf = module.rsplit('.').next().unwrap_or(module);
                plain_stream &= names::USUAL_VOCABULARIES.contains(&leaf);
            }
            if tensor.shape.len() > 2 || tensor.name.contains("conv") || tensor.name.ends_with(".running_mean") {
                convolutional.extend(blocks_around(&tensor.name));
            }
        }
        let agreed = norms.values().chain(finals.values()).filter(|norms| !norms.differ);
        let normed = agreed.map(|norms| norms.len).collect();
        Ok(Facts {
            tensors,
            numbers,
            parts,
            norms,
            finals,
            towers,
            normed,
            plain_stream,
            steps: Cell::new(0),
            convolutional,
        })
    }

    /// Returns the elements of a module's weight, in a group or plain.
    pub(super) fn count(&self, scope: &str, leaf: &str) -> Option<u64> {
        let tensor = self.get(&format!("{scope}.{leaf}.weight"))?;
        match tensor.data {
            Data::Packed { .. } => Some(tensor.bytes / 2),
            Data::Plain(_) => tensor.shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)),
        }
    }

    /// Returns the length of a plain tensor of one dimension.
    pub(super) fn length(&self, name: &str) -> Option<u64> {
        self.get(name).filter(|t| matches!(t.data, Data::Plain(_))).and_then(|t| match t.shape[..] {
            [len] if len > 0 => Some(len),
            _ => None,
        })
    }

    /// Returns the first dimension of a plain tensor.
    pub(super) fn rows(&self, name: &str) -> Option<u64> {
        self.get(name)
            .filter(|t| matches!(t.data, Data::Plain(_)))
            .and_then(|t| t.shape.first().copied())
            .filter(|&d| d > 0)
    }

    pub(super) fn get(&self, name: &str) -> Option<&TensorData> {
        self.numbers.get(name).map(|&i| &self.tensors[i as usize])
    }

    /// Finds the width of the residual stream that the module `scope` (an attention, an MLP) reads and writes, and the block
    /// in which it is.
    pub(super) fn width(&self, scope: &'a str) -> (Width, &'a str) {
        let mut block = scope;
        for _ in 0..MOST_LEVELS {
            let Some((parent, _)) = block.rsplit_once('.') else { break };
            block = parent;
            let Some(tower) = tower_of(block) else { break };
            if let Some(norms) = self.norms.get(block) {
                return (self.weigh(norms, self.finals.get(tower)), block);
            }
        }
        (Width::Open, scope)
    }

    /// Weighs what norms and the config say of a width.
    pub(super) fn weigh(&self, norms: &Norms, after_all: Option<&Norms>) -> Width {
        let h = norms.len;
        let contradicted = norms.differ
            || h < 2
            || after_all.is_some_and(|f| f.differ || f.len != h)
            || self.parts.has_width() && self.parts.of_width(h.into()).next().is_none();
        let votes = norms.count.min(2) + usize::from(after_all.is_some()) + usize::from(self.parts.has_width());
        if !contradicted && votes >= 2 { Width::Certain(h) } else { Width::Doubtful }
    }

    /// Returns the widths to try for a scope: the certain one; where the block has no norms at all, each of the config, which
    /// then needs an exact product of its own.
    pub(super) fn widths(&self, scope: &'a str) -> Vec<Size> {
        match self.width(scope).0 {
            Width::Certain(h) => vec![h.into()],
            Width::Open if tower_of(scope).is_some() => self.parts.widths(),
            _ => Vec::new(),
        }
    }

    /// Returns the parts of the config that have this width.
    pub(super) fn parts_of(&self, h: Size) -> impl Iterator<Item = &Part> + Clone {
        self.spend(self.parts.all().len());
        self.parts.of_width(h)
    }

    /// Counts steps of work. Real models take a few for each tensor.
    pub(super) fn spend(&self, steps: usize) {
        self.steps.set(self.steps.get() + steps as u64);
    }

    /// Tells whether the norms of the block that `scope` is in are certain of its width, and nothing there is a convolution: the
    /// other matrix is then a fact more.
    pub(super) fn may_compare(&self, scope: &'a str) -> bool {
        let (width, block) = self.width(scope);
        let direct = scope.rsplit_once('.').is_some_and(|(parent, _)| parent == block);
        matches!(width, Width::Certain(_)) && direct && !self.is_convolutional(block)
    }

    /// Tells whether there are convolutions in the innermost block that a path is in.
    pub(super) fn is_convolutional(&self, path: &str) -> bool {
        blocks_around(path).last().is_some_and(|block| self.convolutional.contains(block))
    }
}
