//! What a model lacks, as far as the names of its files and tensors, an index and config.json show it.
//!
//! A safetensors file is whole or refused, so what an interrupted download leaves out is whole files. Four things show that:
//!
//! - **Files with numbers.** `model-00001-of-00003.safetensors` says that there are three.
//! - **An index** names files and their tensors.
//! - **Numbered blocks.** Where `layers.2` and `layers.4` are alike, `layers.3` has not always been absent.
//! - **config.json** says how many layers there are.
//!
//! A false alarm is worse than silence, because whoever gets one learns to ignore the next. So:
//!
//! - Numbers need not be without gaps: children of an `nn.Sequential` are numbered across layers without weights (`mlp.0`, `mlp.2`),
//!   adapters are numbered by the blocks that they belong to. A gap counts if config.json says that there are as many blocks, or
//!   if few are absent among many that are alike and large.
//! - More blocks than config.json says are no lack: it does not count those of multi-token prediction.
//! - Fewer blocks than it says are a lack only where files can be absent: not in a model of one file, nor in one of which all
//!   files of its index are there. Somebody has made such a model smaller, and config.json was left. That is a [`Found::doubts`].
//!
//! What a model lacked when it was compressed stands under `lacks` in `dfloat11_config`, and is not reported again. A model with
//! automatic groups has the number of its tensors there, too: of such a model any file that is lost is missed.

use super::files::{self, Index};
use super::foreign::DOWNLOADS;
use super::json;
use super::model::Model;
use super::names::is_number;
use super::patterns::Patterns;
use super::tensor::Data;
use crate::error::{Error, Place, Result, shorten};
use crate::progress::Progress;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// The key under `dfloat11_config` with the names of what the source lacked: a list of texts. This project's addition; the reference
/// ignores it.
pub(crate) const LACKS_KEY: &str = "lacks";
/// The key in `dfloat11_config` of how many tensors a compressed model has.
pub(crate) const TENSORS_KEY: &str = "tensors";

/// The most numbers in a name that are looked at. Three are usual: layer, expert, and a part of it.
const MOST_LEVELS: usize = 4;

/// A thing that a model lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Its name: a file, a tensor, a block such as `model.layers.3`, or several such as `model.layers.3 to 5`. It comes from the
    /// model: escape it before it is printed.
    pub name: String,
    /// One sentence that says how it is known, with the name in it: escape it too.
    pub reason: String,
}

/// What is known to be absent, and what may be.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What is certain.
    pub missing: Vec<Missing>,
    /// What config.json says and the model has not, where no file can be absent.
    pub doubts: Vec<Missing>,
}

impl Model {
    /// Looks for what the model lacks, as a download that was interrupted leaves it: files by their numbers (`-00002-of-00003`) or
    /// their index, blocks (`model.layers.3`) by the numbers of the others and by config.json. What is found is certain; not
    /// everything that is absent is found: a tensor outside numbered blocks leaves no trace in a folder without an index.
    ///
    /// What config.json says that the source of a compressed model lacked is left out. Of a model that was not opened as a folder
    /// nothing is known, so nothing is found.
    ///
    /// # Errors
    ///
    /// `Io` and `InvalidFormat` if the folder, config.json or an index cannot be read.
    pub fn missing(&self) -> Result<Vec<Missing>> {
        self.missing_watched(&Progress::new())
    }

    /// Logs a warning of each thing that [`Model::missing`] finds: for calls that work with what is there.
    pub(crate) fn warn_of_missing(&self) -> Result<()> {
        for missing in self.missing()? {
            log::warn!("the model is incomplete: {}", missing.reason);
        }
        Ok(())
    }

    /// Does the same, and can be cancelled.
    pub(crate) fn missing_watched(&self, progress: &Progress) -> Result<Vec<Missing>> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let path = folder.join("config.json");
        let config: Option<Value> = match files::read_config(&path)? {
            Some(text) => Some(
                json::parse(&json::of_python(&text))
                    .map_err(|e| Error::invalid(Place::of(&path), format!("the config is not valid JSON: {e}")))?,
            ),
            None => None,
        };
        let index = if self.groups.is_empty() { files::chosen_index(folder)? } else { None };
        let patterns = self.config.parsed.as_ref().map(|config| config.patterns());
        let known = config.as_ref().map(lacks).unwrap_or_default();
        let mut missing = find(self, Some(folder), index.as_ref(), config.as_ref(), patterns, progress)?.missing;
        missing.retain(|missing| !known.contains(&missing.name[..]));
        Ok(missing)
    }
}

/// Returns what a config says that the source lacked.
fn lacks(config: &Value) -> HashSet<&str> {
    let list = ours(config, LACKS_KEY).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn ours<'c>(config: &'c Value, key: &str) -> Option<&'c Value> {
    config.get("dfloat11_config").and_then(|c| c.get(key))
}

/// Compares the number of tensors with the one in the config of a compressed model.
fn counted(model: &Model, config: &Value) -> Option<Missing> {
    let (said, there) = (ours(config, TENSORS_KEY)?.as_u64()?, model.tensors.len() as u64);
    let reason = format!("config.json says that the model has {said} tensors, and {there} are there");
    (!model.groups.is_empty() && there < said).then(|| Missing { name: "tensors".into(), reason })
}

/// Looks for what a model lacks. `folder` is where it was opened, unless that was a file; `index` is the one that it was opened by;
/// `patterns` are those of its groups.
pub(crate) fn find(
    model: &Model,
    folder: Option<&Path>,
    index: Option<&Index>,
    config: Option<&Value>,
    patterns: Option<&Patterns>,
    progress: &Progress,
) -> Result<Found> {
    let mut found = Found::default();
    numbered_files(model, &mut found.missing);
    downloads(model, folder, index.is_some(), &mut found.missing)?;
    let mut listed_whole = false;
    match (folder, index) {
        (_, Some(index)) => {
            let before = found.missing.len();
            listed(model, index, &mut found.missing);
            listed_whole = found.missing.len() == before;
        }
        (Some(folder), None) if !model.groups.is_empty() => listed_rest(model, folder, &mut found.missing)?,
        _ => {}
    }
    found.missing.extend(config.and_then(|config| counted(model, config)));
    let counts = config.map(Counts::of).unwrap_or_default();
    // A model of which no file can be absent.
    let whole = found.missing.is_empty() && (listed_whole || is_one_file(model));
    blocks(model, &counts, whole, progress, &mut found)?;
    if let Some(patterns) = patterns {
        let has = |module: &str| {
            let weight = || has_tensor(model, &format!("{module}.weight"));
            model.find_group(module).is_some() || weight()
        };
        if whole { &mut found.doubts } else { &mut found.missing }.extend(ends(patterns, config, has));
    }
    Ok(found)
}

fn has_tensor(model: &Model, name: &str) -> bool {
    model.find_tensor(name).is_some()
}

/// Returns whether a model is one file that is not the file of one group.
fn is_one_file(model: &Model) -> bool {
    let [file] = &model.sources[..] else { return false };
    let stem = file.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    !model.groups.iter().any(|group| group.name().replace('.', "_") == stem)
}

/// The parts of a name such as `model-00002-of-00003.safetensors`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Numbered<'n> {
    /// What is before the number, with its hyphen.
    before: &'n str,
    /// What is after the count: an ending such as `.bf16.safetensors`.
    after: &'n str,
    count: u32,
    number: u32,
    /// The digits of the number, and the text of the count.
    digits: usize,
    of: &'n str,
}

impl<'n> Numbered<'n> {
    fn read(name: &'n str) -> Option<Numbered<'n>> {
        let (head, tail) = name.rsplit_once("-of-")?;
        let of = &tail[..tail.find(|c: char| !c.is_ascii_digit())?];
        let number = &head[head.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1)..];
        let before = head.strip_suffix(number)?.strip_suffix('-').map(|stem| &head[..stem.len() + 1])?;
        let parse = |text: &str| text.parse().ok().filter(|&n: &u32| text.len() <= 6 && n < 1_000_000);
        let after = &tail[of.len()..];
        after.starts_with('.').then_some(())?;
        Some(Numbered { before, after, count: parse(of)?, number: parse(number)?, digits: number.len(), of })
    }

    fn name(&self, number: u32) -> String {
        format!("{}{number:0digits$}-of-{}{}", self.before, self.of, self.after, digits = self.digits)
    }
}

/// Looks for files whose numbers are absent.
fn numbered_files(model: &Model, missing: &mut Vec<Missing>) {
    let names: Vec<String> =
        model.sources.iter().filter_map(|s| Some(s.path().file_name()?.to_string_lossy().into())).collect();
    let mut sets: BTreeMap<(&str, &str, u32), Vec<Numbered>> = BTreeMap::new();
    for file in names.iter().filter_map(|name| Numbered::read(name)) {
        sets.entry((file.before, file.after, file.count)).or_default().push(file);
    }
    for ((.., count), files) in sets {
        let numbers: BTreeSet<u32> = files.iter().map(|file| file.number).collect();
        // Some programs count from 0.
        let first = u32::from(!numbers.contains(&0));
        let absent: Vec<u32> = (first..first + count).filter(|number| !numbers.contains(number)).collect();
        let ([some, ..], Some(&one)) = (&files[..], absent.first()) else { continue };
        let name = some.name(one);
        let more = match absent.len() - 1 {
            0 => "is".to_owned(),
            more => format!("and {more} more are"),
        };
        let reason =
            format!("'{}' {more} absent: {} of {count} such files are there", shorten(&name, 60), numbers.len());
        missing.push(Missing { name, reason });
    }
}

/// Looks for downloads that have not ended. aria2 gives a file its name and its size at the beginning, and leaves a file beside it
/// until the end; others give the name at the end.
fn downloads(model: &Model, folder: Option<&Path>, by_index: bool, missing: &mut Vec<Missing>) -> Result<()> {
    let opened = names_of_files(model);
    let Some(folder) = folder else { return Ok(()) };
    // What the folder has beside one file of the usual name, or beside those of an index, is not of the model.
    let all_files =
        !by_index && !opened.iter().any(|name| files::MAIN.contains(&&name[..])) || !model.groups.is_empty();
    let fail = |e| Error::io("list", folder, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        let Some((file, ending)) = name.rsplit_once('.') else { continue };
        let begun = match ending {
            "aria2" => opened.contains(file) || all_files,
            ending => DOWNLOADS.contains(&ending) && all_files && !opened.contains(file),
        };
        if begun && file.ends_with(".safetensors") {
            let reason = format!("'{}' is absent or half there: '{}' says so", shorten(file, 60), shorten(&name, 60));
            missing.push(Missing { name: file.to_owned(), reason });
        }
    }
    Ok(())
}

/// Looks for what the index that a model was opened by names and the model has not.
fn listed(model: &Model, index: &Index, missing: &mut Vec<Missing>) {
    let at = shorten(&index.name(), 50);
    let mut files: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (tensor, file) in &index.map {
        if !has_tensor(model, tensor) {
            files.entry(file).or_insert((0, tensor)).0 += 1;
        }
    }
    let opened: HashSet<String> = names_of_files(model);
    for (file, (tensors, one)) in files {
        let shown = shorten(file, 50);
        missing.push(if opened.contains(file) {
            let (tensor, name) = (shorten(one, 60), one.to_owned());
            Missing { name, reason: format!("'{tensor}' is absent: '{at}' lists it, in '{shown}'") }
        } else {
            let reason = format!("'{shown}' is absent: '{at}' lists it, with {tensors} of the tensors");
            Missing { name: file.to_owned(), reason }
        });
    }
}

fn names_of_files(model: &Model) -> HashSet<String> {
    model.sources.iter().filter_map(|s| Some(s.path().file_name()?.to_string_lossy().into_owned())).collect()
}

/// Looks for what the indexes in the folder of a compressed model name and the model has not. Its index lists only plain tensors.
/// One of which no file is there may be the original's, if the model has tensors that it lists.
fn listed_rest(model: &Model, folder: &Path, missing: &mut Vec<Missing>) -> Result<()> {
    let opened = names_of_files(model);
    for index in files::indexes(folder)? {
        let has = |tensor: &String| has_tensor(model, tensor);
        let any_file = index.map.values().any(|file| opened.contains(file));
        if any_file || !index.map.keys().any(has) {
            listed(model, &index, missing);
        }
    }
    Ok(())
}

/// The kind of a stack of blocks. A model may have one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stack {
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
struct Counts {
    counts: Vec<(Stack, String, u64)>,
    /// Blocks of multi-token prediction, which come after the others and are not counted with them.
    more: u64,
    /// True if the last blocks of a vision model may have been left out on purpose.
    cut_vision: bool,
    diffusers: bool,
}

impl Counts {
    fn of(config: &Value) -> Counts {
        let mut counts = Counts { diffusers: config.get("_class_name").is_some(), ..Counts::default() };
        counts.read(config, Stack::Main, 0);
        counts
    }

    fn read(&mut self, object: &Value, stack: Stack, depth: usize) {
        for (key, value) in object.as_object().into_iter().flatten() {
            if ["select_layer", "feature_layer", "drop_vision"].iter().any(|part| key.contains(part)) {
                self.cut_vision = true;
            }
            if let (Some(inner), true, true) = (key.strip_suffix("_config"), value.is_object(), depth < 3) {
                self.read(value, stack_of_config(inner, stack), depth + 1);
                continue;
            }
            let Some(count) = value.as_u64() else { continue };
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

/// Returns the stack that a parent of numbered blocks is, by its name.
fn stack_of(parent: &str, diffusers: bool) -> Stack {
    let parts: Vec<&str> = parent.split('.').collect();
    let has = |words: &[&str]| parts.iter().any(|part| words.iter().any(|word| part.contains(word)));
    let last = parts.last().copied().unwrap_or_default();
    if last == "experts" {
        return Stack::Experts;
    }
    // Blocks of prediction, and of parts with configs of their own that have no fixed names.
    if has(&["mtp", "nextn", "eagle", "medusa", "draft", "talker", "timm", "token2wav", "code_predictor", "global"]) {
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
fn is_block(part: &str) -> bool {
    part.len() <= 6 && is_number(part)
}

/// Blocks with numbers under one parent.
#[derive(Default)]
struct Blocks<'n> {
    /// The tensors of each, by what follows the number.
    blocks: BTreeMap<u32, BTreeSet<&'n str>>,
    /// True if a tensor of one is a convolution.
    convolution: bool,
}

impl Blocks<'_> {
    fn lowest(&self) -> u32 {
        self.blocks.keys().next().copied().unwrap_or_default()
    }

    fn highest(&self) -> u32 {
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
            first.iter().copied().filter(|name| self.blocks.values().all(|block| block.contains(name))).collect();
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

/// Collects the blocks of a model by their parents.
fn collect<'m>(model: &'m Model, progress: &Progress) -> Result<BTreeMap<&'m str, Blocks<'m>>> {
    let mut parents: BTreeMap<&str, Blocks> = BTreeMap::new();
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
            blocks.blocks.entry(number).or_default().insert(&name[end + 1..]);
            blocks.convolution |= convolution;
        }
    }
    Ok(parents)
}

/// Looks for blocks that are absent.
fn blocks(model: &Model, counts: &Counts, whole: bool, progress: &Progress, found: &mut Found) -> Result<()> {
    let parents = collect(model, progress)?;
    // Of a stack without a gap the end is compared: config.json speaks of the longest one of its kind.
    let mut longest: BTreeMap<Stack, (&str, u32)> = BTreeMap::new();
    for (parent, blocks) in &parents {
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
                .filter_map(|s| longest_of(&parents, s, counts));
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
        if whole { &mut found.doubts } else { &mut found.missing }.push(Missing { name, reason });
    }
    Ok(())
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
fn run(parent: &str, first: u32, last: u32) -> String {
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

/// Returns the embedding and the head that patterns name and that are absent. Each is a group of its own, and so a file that may be.
/// `has` tells whether a module has a group or a weight.
pub(crate) fn ends(patterns: &Patterns, config: Option<&Value>, has: impl Fn(&str) -> bool) -> Vec<Missing> {
    let untied = |config: &Value| config.get("tie_word_embeddings") == Some(&Value::Bool(false));
    let untied = config.is_some_and(|c| untied(c) || c.get("text_config").is_some_and(untied));
    let mut missing = Vec::new();
    for pattern in patterns.entries().iter().filter(|pattern| pattern.attributes().is_empty()) {
        let name = pattern.text().replace(r"\.", ".");
        let literal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        let needed = name.ends_with("embed_tokens") || untied && name.ends_with("lm_head");
        if literal && needed && !has(&name) {
            let reason = format!("'{}' is absent: by the patterns it is a group", shorten(&name, 60));
            missing.push(Missing { name, reason });
        }
    }
    missing
}
