//! What one block lacks and its kin have: a matrix of a layer or of an expert, and the last experts of a layer.
//!
//! Blocks of one stack differ for good reasons: layers of different kinds alternate, some share the keys and values of others,
//! the last one leaves out what nobody reads. So not every difference is a lack. These are:
//!
//! - A module of a block, such as its MLP, has some of the matrices that the same module of three times as many other blocks has, and
//!   at least three, and those that are absent are of no use to leave out: of an MLP ([`MLPS`]) or, inside the stack, the output or the
//!   query of an attention ([`ATTENTIONS`]), its keys beside its values ([`KEYS`]) or a gate ([`GATES`]). Another matrix of the
//!   same MLP or attention is there. Values, keys and values together, and all that has another name, may be absent.
//! - A layer has fewer experts than all others, which have as many as config.json says; or than all others, and more than half
//!   as many.
//! - All layers have as many experts, and these are fewer than config.json says, and more than half. With fewer somebody
//!   has made the model smaller, which is a doubt.

use super::blocks::{Blocks, Counts, Form, Parents, Stack, is_block, stack_of};
use super::{Found, Missing};
use crate::error::{Result, shorten};
use crate::progress::Progress;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// The last parts of the names of matrices of an MLP, without which the others are of no use.
#[rustfmt::skip]
const MLPS: [&str; 24] = [
    "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "fc_in", "fc_out", "c_fc", "w1", "w2", "wi", "wi_0", "net.0.proj", "net.2",
    "dense_h_to_4h", "dense_4h_to_h", "linear_fc1", "linear_fc2", "linear1", "linear2", "lin1", "lin2", "ffn.0", "ffn.2",
];
/// The same of an attention or a state space: its output, and what reads the stream for it, alone and together with keys and values. The
/// last block may have neither, if nobody reads what it writes.
#[rustfmt::skip]
const ATTENTIONS: [&str; 20] = [
    "o_proj", "out_proj", "wo", "to_out.0", "c_proj", "dense", "proj", "o", "q_proj", "q_a_proj", "q_b_proj", "wq", "to_q", "q",
    "qkv", "qkv_proj", "Wqkv", "query_key_value", "c_attn", "in_proj",
];
/// Keys, which are not left out where the values beside them are there.
const KEYS: [(&str, &str); 4] = [("k_proj", "v_proj"), ("wk", "wv"), ("to_k", "to_v"), ("k", "v")];
/// Those of a gate, and of what it is multiplied with where the names do not tell which. There are MLPs without one.
const GATES: [&str; 4] = ["gate_proj", "w3", "wi_1", "v1"];

/// The most kinds of one module that are compared with each other: models have three.
const MOST_KINDS: usize = 32;

/// Parts of names after which a number is no block but a place in a sequence of modules.
const SEQUENCES: [&str; 4] = ["net", "to_out", "ffn", "mlp"];

/// Looks for what single blocks lack.
pub(super) fn look(parents: &Parents<'_>, counts: &Counts, progress: &Progress, found: &mut Found) -> Result<()> {
    // The experts of a layer each, by what the layers have in common in their names.
    let mut experts: BTreeMap<String, Vec<(&str, u32)>> = BTreeMap::new();
    for (parent, blocks) in parents {
        progress.check()?;
        let of_experts = stack_of(parent, counts.diffusers) == Stack::Experts;
        if !blocks.convolution && blocks.blocks.len() >= 4 {
            matrices(parent, blocks, of_experts, &mut found.missing);
        }
        let is_counted = parent.rsplit_once('.').is_some_and(|(layer, _)| layer.split('.').any(is_block));
        if of_experts && is_counted && blocks.blocks.len() as u64 == u64::from(blocks.highest()) + 1 {
            let part = |part| if is_block(part) { "*" } else { part };
            let name = parent.split('.').map(part).collect::<Vec<_>>().join(".");
            experts.entry(name).or_default().push((parent, blocks.highest() + 1));
        }
    }
    // config.json speaks of the layers of the language model, which has the most.
    let main = experts.values().map(Vec::len).max();
    for layers in experts.values() {
        let said = counts.experts().filter(|_| Some(layers.len()) == main);
        last_experts(layers, said, found);
    }
    Ok(())
}

/// Looks for layers with fewer experts than there are to be.
fn last_experts(layers: &[(&str, u32)], said: Option<u64>, found: &mut Found) {
    let mut of_count: BTreeMap<u32, usize> = BTreeMap::new();
    layers.iter().for_each(|&(_, count)| *of_count.entry(count).or_default() += 1);
    let Some((&usual, &layers_of_it)) = of_count.iter().max_by_key(|&(count, layers)| (layers, count)) else { return };
    let alike = layers_of_it == layers.len();
    let exact = said == Some(usual.into());
    let others = layers.len() - layers_of_it;
    if !alike && (layers_of_it < 3 || others * 3 > layers_of_it || !exact && others > 1) {
        return;
    }
    for &(parent, count) in layers {
        let (end, whose) = match said {
            Some(said) if alike && u64::from(count) < said && said <= 100_000 => {
                (said as u32, format!("config.json says {said}"))
            }
            _ if count < usual && (exact || count > usual / 2) => (usual, format!("other layers have {usual}")),
            _ => continue,
        };
        let name = super::blocks::run(parent, count, end - 1);
        let reason = format!("'{}' is absent: {count} experts are there, and {whose}", shorten(&name, 80));
        let known = !alike || count > end / 2;
        if known { &mut found.missing } else { &mut found.doubts }.push(Missing { name, reason });
    }
}

/// The names of matrices in a module of a block, without `.weight`.
type Set<'n> = BTreeSet<&'n str>;

/// Looks for blocks with a module that lacks matrices.
fn matrices(parent: &str, blocks: &Blocks<'_>, of_experts: bool, missing: &mut Vec<Missing>) {
    // The matrices of each block, by the module that they are in: `mlp`, `self_attn`, or nothing for the block itself.
    let mut modules: BTreeMap<&str, BTreeMap<u32, Set>> = BTreeMap::new();
    for (&number, tensors) in &blocks.blocks {
        for name in tensors.iter().filter(|(_, form)| **form == Form::Matrix).map(|(name, _)| *name) {
            let Some(name) = name.strip_suffix(".weight").filter(|name| is_plain(name)) else { continue };
            let module = name.split_once('.').map_or("", |(module, _)| module);
            modules.entry(module).or_default().entry(number).or_default().insert(name);
        }
    }
    for blocks_of_it in modules.values() {
        let mut kinds: BTreeMap<&Set, Vec<u32>> = BTreeMap::new();
        blocks_of_it.iter().for_each(|(&number, set)| kinds.entry(set).or_default().push(number));
        if kinds.len() > MOST_KINDS {
            continue;
        }
        for (few, numbers) in &kinds {
            let mut whole = kinds.iter().filter(|(all, of)| {
                few.len() < all.len() && few.is_subset(all) && of.len() >= 3 && numbers.len() * 3 <= of.len()
            });
            let (Some((all, of)), None) = (whole.next(), whole.next()) else { continue };
            for &number in numbers {
                let at_the_end = !of_experts && (number == blocks.lowest() || number == blocks.highest());
                let tensors = &blocks.blocks[&number];
                let absent: Vec<&str> = all.difference(few).copied().collect();
                let has = |scope: &str| {
                    let mut after = few.range::<str, _>((Bound::Included(scope), Bound::Unbounded));
                    after.next().is_some_and(|name| name.starts_with(scope))
                };
                let has_value = |name: &str, (key, value): (&str, &str)| {
                    before(name, &[key]).is_some_and(|scope| few.contains(&*format!("{scope}{value}")))
                };
                let certain = absent.iter().all(|name| {
                    let inside = || before(name, &ATTENTIONS).or_else(|| before(name, &GATES));
                    let scope = before(name, &MLPS).or_else(|| if at_the_end { None } else { inside() });
                    scope.is_some_and(has) || !at_the_end && KEYS.iter().any(|&pair| has_value(name, pair))
                });
                // What has another form there, such as that of a quantized matrix, is not absent.
                let other = |name: &&str| {
                    let start = format!("{name}.");
                    let after = tensors.range::<str, _>((Bound::Included(&start[..]), Bound::Unbounded));
                    let mut inside = after.map_while(|(tensor, _)| tensor.strip_prefix(&start[..]));
                    inside.any(|rest| rest != "bias")
                };
                if !certain || absent.iter().any(other) {
                    continue;
                }
                for name in absent {
                    let name = format!("{parent}.{number}.{name}.weight");
                    let reason = format!("'{}' is absent: {} other blocks have it", shorten(&name, 100), of.len());
                    missing.push(Missing { name, reason });
                }
            }
        }
    }
}

/// Tells whether a name has no blocks in it, but at most a place in a sequence of modules.
fn is_plain(name: &str) -> bool {
    let mut before = "";
    name.split('.').all(|part| {
        let plain = !is_block(part) || SEQUENCES.contains(&before);
        before = part;
        plain && part != "experts"
    })
}

/// Returns what is before one of these at the end of a name, with the point.
fn before<'n>(name: &'n str, list: &[&str]) -> Option<&'n str> {
    let mut before = list.iter().filter_map(|end| name.strip_suffix(end));
    before.find(|before| before.is_empty() || before.ends_with('.'))
}
