//! Blocks with numbers, such as layers and experts: how many config.json says there are, and which are absent.

use super::{Found, Missing};
use crate::error::{Result, shorten};
use crate::format::model::Model;
use crate::format::names::is_number;
use crate::format::tensor::{Data, TensorData};
use crate::progress::Progress;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The most numbers in a name that are looked at. Three are usual: layer, expert, and a part of it.
const MOST_LEVELS: usize = 4;

/// The kind of a stack of blocks. A model may have one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stack {
    /// The language model, or the only one.
    Main,
    /// diffusers' second stack, `single_transformer_blocks`.
    Single,
    Encoder,
    Decoder,
    Vision,
    Audio,
    /// Experts within a block.
    Experts,
    /// One of which nothing is known.
    Other,
}

/// How many blocks config.json says there are, in each stack.
#[derive(Debug, Default)]
pub(super) struct Counts {
    counts: Vec<(Stack, String, u64)>,
    /// The experts of a layer, under the keys that mean nothing else.
    experts: BTreeSet<u64>,
    /// Blocks of multi-token prediction, which come after the others and are not counted with them.
    more: u64,
    /// True if the last blocks of a vision model may have been left out on purpose.
    cut_vision: bool,
    /// True if layers may share their weights, so that fewer are stored.
    shared: bool,
    pub diffusers: bool,
}

/// Keys of the number of experts that a layer has.
const EXPERTS: [&str; 5] =
    ["num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts"];

impl Counts {
    pub fn of(config: &Value) -> Counts {
        let mut counts = Counts { diffusers: config.get("_class_name").is_some(), ..Counts::default() };
        counts.read(config, Stack::Main, 0);
        counts
    }

    fn read(&mut self, object: &Value, stack: Stack, depth: usize) {
        for (key, value) in object.as_object().into_iter().flatten() {
            if ["select_layer", "feature_layer", "drop_vision"].iter().any(|part| key.contains(part)) {
                self.cut_vision = true;
            }
            self.shared |= key.contains("shar") && key.contains("layer") && !key.contains("kv");
            if let (Some(inner), true, true) = (key.strip_suffix("_config"), value.is_object(), depth < 3) {
                self.read(value, stack_of_config(inner, stack), depth + 1);
                continue;
            }
            let Some(count) = value.as_u64() else { continue };
            if stack == Stack::Main && EXPERTS.contains(&&key[..]) {
                self.experts.insert(count);
            }
            let of = match (&key[..], stack) {
                ("num_nextn_predict_layers" | "num_mtp_layers" | "mtp_num_hidden_layers", _) => {
                    self.more = self.more.max(count);
                    continue;
                }
                (key, _) if key.contains("expert") => Stack::Experts,
                ("num_single_layers", Stack::Main) => Stack::Single,
                ("encoder_layers" | "num_encoder_layers", Stack::Main) => Stack::Encoder,
                ("decoder_layers" | "num_decoder_layers", Stack::Main) => Stack::Decoder,
                ("num_hidden_layers" | "num_layers" | "n_layer" | "n_layers" | "depth" | "encoder_layers", _) => stack,
                _ => continue,
            };
            if of != Stack::Other {
                self.counts.push((of, shorten(key, 30), count));
            }
        }
    }

    /// Returns how many experts a layer has; `None` if that is not said, or not once for all.
    pub fn experts(&self) -> Option<u64> {
        self.experts.first().copied().filter(|_| self.experts.len() == 1)
    }

    /// Returns the counts of a stack. The smallest is the one to go by: a config may have one of an outer model, too.
    fn all(&self, stack: Stack) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().filter(move |(of, ..)| *of == stack).map(|(_, key, count)| (&key[..], *count))
    }
}

/// Returns the stack that a part of a config is about, such as `vision` of `vision_config`.
fn stack_of_config(name: &str, outer: Stack) -> Stack {
    let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if is(&["vision", "visual", "vit", "image"]) {
        Stack::Vision
    } else if is(&["audio", "speech"]) {
        Stack::Audio
    } else if is(&["text", "llm", "language", "thinker"]) {
        outer
    } else {
        Stack::Other
    }
}

/// Words in the names of blocks of prediction, and of parts with configs of their own that have no fixed names.
const APART: [&str; 10] =
    ["mtp", "nextn", "eagle", "medusa", "draft", "talker", "timm", "token2wav", "code_predictor", "global"];

/// Tells whether a part of a name has one of these words.
fn has_word(parent: &str, words: &[&str]) -> bool {
    parent.split('.').any(|part| words.iter().any(|word| part.contains(word)))
}

/// Returns the stack that a parent of numbered blocks is, by its name.
pub(super) fn stack_of(parent: &str, diffusers: bool) -> Stack {
    let parts: Vec<&str> = parent.split('.').collect();
    let has = |words: &[&str]| has_word(parent, words);
    let last = parts.last().copied().unwrap_or_default();
    if last == "experts" {
        return Stack::Experts;
    }
    if has(&APART) {
        return Stack::Other;
    }
    if diffusers {
        return match parent {
            "transformer_blocks" | "blocks" | "layers" | "double_stream_blocks" => Stack::Main,
            "single_transformer_blocks" | "single_stream_blocks" => Stack::Single,
            _ => Stack::Other,
        };
    }
    if !matches!(last, "layers" | "layer" | "h" | "blocks" | "block") || parts.iter().any(|part| is_block(part)) {
        return Stack::Other;
    }
    if has(&["vision", "visual", "image", "vpm", "vit"]) {
        Stack::Vision
    } else if has(&["audio", "speech", "apm", "conformer", "whisper"]) {
        Stack::Audio
    } else {
        let before = parts.iter().rev().nth(1).copied().unwrap_or_default();
        match before {
            "encoder" => Stack::Encoder,
            "decoder" => Stack::Decoder,
            _ => Stack::Main,
        }
    }
}

/// Tells whether a part of a name is a number that blocks may have: not a hash or a date.
pub(super) fn is_block(part: &str) -> bool {
    part.len() <= 6 && is_number(part)
}

/// The form of a tensor, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Vector,
    /// One of two dimensions, or one in a group, whose dimensions need not be known.
    Matrix,
    Other,
}

impl Form {
    fn of(tensor: &TensorData) -> Form {
        match (tensor.data, tensor.shape.len()) {
            (Data::Packed { .. }, _) | (_, 2) => Form::Matrix,
            (_, 1) => Form::Vector,
            _ => Form::Other,
        }
    }
}

/// Blocks with numbers under one parent.
#[derive(Default)]
pub(super) struct Blocks<'n> {
    /// The tensors of each, by what follows the number.
    pub blocks: BTreeMap<u32, BTreeMap<&'n str, Form>>,
    /// True if a tensor of one is a convolution.
    pub convolution: bool,
}

impl Blocks<'_> {
    pub fn lowest(&self) -> u32 {
        self.blocks.keys().next().copied().unwrap_or_default()
    }

    pub fn highest(&self) -> u32 {
        self.blocks.keys().next_back().copied().unwrap_or_default()
    }

    /// Returns the numbers up to the highest that are absent, as runs.
    fn absent(&self, from: u32) -> Vec<(u32, u32)> {
        let mut runs = Vec::new();
        let mut next = from;
        for &number in self.blocks.keys().filter(|&&number| number >= from) {
            if number > next {
                runs.push((next, number - 1));
            }
            next = number + 1;
        }
        runs
    }

    /// Returns the number of child modules, and of tensors, that all blocks have.
    fn in_common(&self) -> (usize, usize) {
        let mut all = self.blocks.values();
        let Some(first) = all.next() else { return (0, 0) };
        let common: Vec<&str> =
            first.keys().copied().filter(|name| self.blocks.values().all(|block| block.contains_key(name))).collect();
        let children: BTreeSet<&str> = common.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        (children.len(), common.len())
    }

    /// Returns whether the blocks are so much alike, and so few are absent, that those were there once: nothing but repeated
    /// blocks of several modules looks like that.
    fn are_a_stack(&self) -> bool {
        let (there, all) = (self.blocks.len() as u32, self.highest() + 1 - self.lowest());
        let (children, tensors) = self.in_common();
        there >= 4 && (all - there) * 3 <= there && !self.convolution && children >= 2 && tensors >= 3
    }
}

/// Blocks by the names of their parents.
pub(super) type Parents<'m> = BTreeMap<&'m str, Blocks<'m>>;

/// Collects the blocks of a model by their parents.
pub(super) fn collect<'m>(model: &'m Model, progress: &Progress) -> Result<Parents<'m>> {
    let mut parents = Parents::new();
    for tensor in &model.tensors {
        progress.check()?;
        let name = &tensor.name[..];
        let convolution = matches!(tensor.data, Data::Plain(_)) && tensor.shape.len() > 3;
        let mut from = 0;
        let mut levels = 0;
        for part in name.split('.') {
            let (start, end) = (from, from + part.len());
            from = end + 1;
            if start == 0 || end >= name.len() || !is_block(part) {
                continue;
            }
            levels += 1;
            if levels > MOST_LEVELS {
                break;
            }
            let Ok(number) = part.parse() else { continue };
            let blocks = parents.entry(&name[..start - 1]).or_default();
            blocks.blocks.entry(number).or_default().insert(&name[end + 1..], Form::of(tensor));
            blocks.convolution |= convolution;
        }
    }
    Ok(parents)
}

/// Looks for blocks that are absent. `whole` says that no file can be, and `own` that the config is certainly the model's.
pub(super) fn absent(
    parents: &Parents<'_>,
    counts: &Counts,
    (whole, own): (bool, bool),
    progress: &Progress,
    found: &mut Found,
) -> Result<()> {
    // Of a stack without a gap the end is compared: config.json speaks of the longest one of its kind.
    let mut longest: BTreeMap<Stack, (&str, u32)> = BTreeMap::new();
    for (parent, blocks) in parents {
        progress.check()?;
        let stack = stack_of(parent, counts.diffusers);
        let (end, there) = (u64::from(blocks.highest()) + 1, blocks.blocks.len() as u64);
        if stack != Stack::Other && stack != Stack::Experts {
            let entry = longest.entry(stack).or_insert((parent, blocks.highest()));
            if entry.1 < blocks.highest() {
                *entry = (parent, blocks.highest());
            }
        }
        let said: Vec<(&str, u64)> = counts.all(stack).chain(related(counts, stack)).collect();
        // As many blocks as there are to be: their numbers are names, and no more.
        if counts.more == 0 && said.iter().any(|&(_, count)| count == there) {
            continue;
        }
        let by_config = said.iter().find(|&&(_, count)| count + counts.more >= end);
        let from = if by_config.is_some() && blocks.in_common().1 > 0 { 0 } else { blocks.lowest() };
        for (first, last) in blocks.absent(from) {
            let name = run(parent, first, last);
            let there = numbers(blocks);
            let shown = shorten(&name, 60);
            let (list, reason) = match by_config {
                Some((key, count)) => (
                    &mut found.missing,
                    format!("'{shown}' is absent: {there} are there, and config.json says {key} {count}"),
                ),
                None if blocks.are_a_stack() => (
                    if whole { &mut found.doubts } else { &mut found.missing },
                    format!("'{shown}' is absent: {there} are there, and all alike"),
                ),
                None => continue,
            };
            list.push(Missing { name, reason });
        }
    }
    for (stack, (parent, highest)) in longest {
        // An encoder and a decoder without counts of their own are what the general one is about: the longer one of them.
        let general = matches!(stack, Stack::Encoder | Stack::Decoder) && counts.all(stack).next().is_none();
        let end = if general || stack == Stack::Main {
            let ends = [Stack::Main, Stack::Encoder, Stack::Decoder]
                .into_iter()
                .filter_map(|s| longest_of(parents, s, counts));
            ends.max().unwrap_or(0)
        } else {
            highest + 1
        };
        if end != highest + 1 {
            continue;
        }
        let least = counts.all(if general { Stack::Main } else { stack }).min_by_key(|&(_, count)| count);
        let Some((key, count)) = least.filter(|&(_, count)| count <= 100_000) else { continue };
        let tolerated = u64::from(stack == Stack::Vision && counts.cut_vision);
        if u64::from(end) + tolerated >= count {
            continue;
        }
        let name = run(parent, end, count as u32 - 1);
        let reason = format!(
            "'{}' is absent: {highest} is the last number, and config.json says {key} {count}",
            shorten(&name, 60)
        );
        let known = !whole || own && !counts.shared && is_exact(parents, parent, stack, counts, count);
        if known { &mut found.missing } else { &mut found.doubts }.push(Missing { name, reason });
    }
    Ok(())
}

/// Tells whether a count of config.json is certainly that of the blocks of this parent, of which some are absent at the end: of a
/// language model, or of the only stack that there is. Encoders and decoders beside each other are counted in other ways too, and
/// convolutions are numbered across layers without weights. Where half of the blocks or more are absent, somebody has made the model
/// smaller; so people do with pipelines of diffusers, whose config.json they leave as it was.
fn is_exact(parents: &Parents<'_>, parent: &str, stack: Stack, counts: &Counts, count: u64) -> bool {
    let of = |parent: &str| stack_of(parent, false);
    let kinds = [Stack::Main, Stack::Encoder, Stack::Decoder];
    let alone = parents.keys().filter(|parent| kinds.contains(&of(parent))).count() == 1;
    let is_meant = stack == Stack::Main || alone && kinds.contains(&stack);
    // Layers may be in several stacks, such as those that make a cache and those that use it.
    let is_layers = |parent: &str| {
        let last = parent.rsplit('.').next().unwrap_or(parent);
        matches!(of(parent), Stack::Main | Stack::Other)
            && (last.contains("layer") || last.contains("block"))
            && !parent.split('.').any(is_block)
            && !has_word(parent, &APART)
    };
    let all = parents.iter().filter(|(parent, _)| is_layers(parent)).map(|(_, blocks)| blocks.blocks.len() as u64);
    let alike = parents.get(parent).is_some_and(|blocks| {
        !blocks.convolution && blocks.in_common().1 > 0 && 2 * blocks.blocks.len() as u64 > count
    });
    is_meant && !counts.diffusers && alike && all.sum::<u64>() < count
}

/// Returns the general counts, for an encoder or decoder without one of its own.
fn related(counts: &Counts, stack: Stack) -> impl Iterator<Item = (&str, u64)> {
    let general = matches!(stack, Stack::Encoder | Stack::Decoder) && counts.all(stack).next().is_none();
    counts.all(Stack::Main).filter(move |_| general)
}

fn longest_of(parents: &BTreeMap<&str, Blocks<'_>>, stack: Stack, counts: &Counts) -> Option<u32> {
    let of = parents.iter().filter(|(parent, _)| stack_of(parent, counts.diffusers) == stack);
    of.map(|(_, blocks)| blocks.highest() + 1).max()
}

/// Returns the name of one block or several.
pub(super) fn run(parent: &str, first: u32, last: u32) -> String {
    if first == last { format!("{parent}.{first}") } else { format!("{parent}.{first} to {last}") }
}

/// Returns the numbers of the blocks that are there, as a text.
fn numbers(blocks: &Blocks<'_>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in blocks.blocks.keys() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text =
        |&(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first} to {last}") };
    shorten(&runs.iter().map(text).collect::<Vec<_>>().join(", "), 40)
}
