//! What a model lacks, as far as the names of its files and tensors, an index and config.json show it.
//!
//! A safetensors file is whole or refused, so what an interrupted download leaves out is whole files. These show that:
//!
//! - **Files with numbers.** `model-00001-of-00003.safetensors` says that there are three.
//! - **An index** names files and their tensors.
//! - **Numbered blocks.** Where `layers.2` and `layers.4` are alike, `layers.3` has not always been absent.
//! - **config.json** says how many layers there are, and how many experts.
//! - **Blocks of one kind** have the same matrices (`kin`).
//! - **A part of a file** that a program has left beside the weights (`downloads`).
//! - **Norms in all blocks** and none after them (`rest`).
//!
//! A false alarm is worse than silence, because whoever gets one learns to ignore the next. So:
//!
//! - Numbers need not be without gaps: children of an `nn.Sequential` are numbered across layers without weights (`mlp.0`, `mlp.2`),
//!   adapters are numbered by the blocks that they belong to. A gap counts if config.json says that there are as many blocks, or
//!   if few are absent among many that are alike and large.
//! - More blocks than config.json says are no lack: it does not count those of multi-token prediction.
//! - Fewer blocks than it says are a lack where files can be absent. In a model of one file, and in one of which all files of its
//!   index are there, they are one only if config.json certainly counts these blocks (`blocks`). Otherwise somebody may have
//!   made the model smaller, which is a [`Found::doubts`].
//!
//! What a model lacked when it was compressed stands under `lacks` in `dfloat11_config`, and is not reported again. A model with
//! automatic groups has the number of its tensors there, too: of such a model any file that is lost is missed.

mod blocks;
mod downloads;
mod kin;
mod rest;

use super::files::{self, Index};
use super::foreign::not_json;
use super::group::MEMBERS;
use super::json;
use super::model::Model;
use super::patterns::Patterns;
use crate::error::{Error, Place, Result, shorten};
use crate::progress::Progress;
use blocks::Counts;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// The key under `dfloat11_config` with the names of what the source lacked: a list of texts. This project's addition; the reference
/// ignores it.
pub(crate) const LACKS_KEY: &str = "lacks";
/// The key in `dfloat11_config` of how many tensors a compressed model has.
pub(crate) const TENSORS_KEY: &str = "tensors";

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
    /// What config.json says and the model has not, where no file can be absent and it may mean something else.
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

    /// Fails if the model lacks something: `verb` is what the caller was about to do. With `accept` it warns instead.
    pub(crate) fn require_whole(&self, source: &Path, verb: &str, accept: bool, progress: &Progress) -> Result<()> {
        let missing = self.missing_watched(progress)?;
        if !accept {
            return refuse(source, verb, &missing);
        }
        for missing in missing {
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
                    .map_err(|e| Error::invalid(Place::of(&path), not_json("the config", &text, e)))?,
            ),
            None => None,
        };
        let index = if self.groups.is_empty() { files::chosen_index(folder, progress)? } else { None };
        let patterns = self.config.parsed.as_ref().map(|config| config.patterns());
        let known = config.as_ref().map(lacks).unwrap_or_default();
        let mut missing = find(self, Some(folder), index.as_ref(), config.as_ref(), patterns, progress)?.missing;
        missing.retain(|missing| !known.contains(&missing.name[..]));
        Ok(missing)
    }
}

/// Fails if something is missing, with what it is, and with what helps the caller, who was about to do what `verb` says.
pub(crate) fn refuse(source: &Path, verb: &str, missing: &[Missing]) -> Result<()> {
    let Some(first) = missing.first() else { return Ok(()) };
    let more = if missing.len() > 1 { format!(", and {} more", missing.len() - 1) } else { String::new() };
    let remedy = if source.is_dir() { "complete the download" } else { "give the whole folder" };
    let reason = format!("{}{more}: {remedy}, or {verb} what is there with the option incomplete", first.reason);
    Err(Error::invalid(Place::of(source), reason))
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
    downloads::look(model, folder, index.is_some(), &mut found.missing)?;
    let mut listed_whole = false;
    match (folder, index) {
        (_, Some(index)) => {
            let before = found.missing.len();
            listed(model, index, &mut found.missing);
            listed_whole = found.missing.len() == before;
        }
        (Some(folder), None) if !model.groups.is_empty() => listed_rest(model, folder, &mut found.missing, progress)?,
        _ => {}
    }
    found.missing.extend(config.and_then(|config| counted(model, config)));
    let counts = config.map(Counts::of).unwrap_or_default();
    // A model of which no file can be absent.
    let whole = found.missing.is_empty() && (listed_whole || is_one_file(model));
    // The config beside a file may be another's.
    let own = folder.is_some() || names_of_files(model).iter().all(|name| files::MAIN.contains(&&name[..]));
    let parents = blocks::collect(model, progress)?;
    blocks::absent(&parents, &counts, (whole, own), progress, &mut found)?;
    kin::look(&parents, &counts, progress, &mut found)?;
    if let (Some(config), Some(_), true) = (config, folder, rest::only_groups(model))
        && ours(config, "pattern_dict").is_some()
        && ours(config, TENSORS_KEY).is_none()
        && rest::is_absent(model, &parents, counts.diffusers)
    {
        found.missing.push(without_rest(counts.diffusers));
    }
    if let Some(patterns) = patterns {
        let has = |module: &str| {
            let weight = || has_tensor(model, &format!("{module}.weight"));
            model.find_group(module).is_some() || weight()
        };
        if whole { &mut found.doubts } else { &mut found.missing }.extend(ends(patterns, config, has));
    }
    Ok(found)
}

/// Returns what is said of a model in which every tensor would be in the file of a group, if no such model can be.
pub(crate) fn no_rest(model: &Model, config: Option<&Value>, progress: &Progress) -> Result<Option<Missing>> {
    let diffusers = config.map(Counts::of).is_some_and(|counts| counts.diffusers);
    let parents = blocks::collect(model, progress)?;
    Ok(rest::is_absent(model, &parents, diffusers).then(|| without_rest(diffusers)))
}

fn without_rest(diffusers: bool) -> Missing {
    let name = files::MAIN[usize::from(diffusers)];
    let reason = format!("'{name}' is absent: nothing is there but groups, and no norm or layer outside them");
    Missing { name: name.into(), reason }
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

/// Returns whether a model has a tensor that an index names. Most indexes of compressed models list plain tensors only, but what
/// transformers saves lists the members of groups, too.
fn has_listed(model: &Model, name: &str) -> bool {
    let of_group = |(group, member): (&str, &str)| MEMBERS.contains(&member) && model.find_group(group).is_some();
    has_tensor(model, name) || name.rsplit_once('.').is_some_and(of_group)
}

/// Looks for what the index that a model was opened by names and the model has not.
fn listed(model: &Model, index: &Index, missing: &mut Vec<Missing>) {
    let at = shorten(&index.name(), 50);
    let mut files: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (tensor, file) in &index.map {
        if !has_listed(model, tensor) {
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
            let link = index.path.with_file_name(file).is_symlink();
            let gone = if link { "a link that leads nowhere" } else { "absent" };
            let reason = format!("'{shown}' is {gone}: '{at}' lists it, with {tensors} of the tensors");
            Missing { name: file.to_owned(), reason }
        });
    }
}

fn names_of_files(model: &Model) -> HashSet<String> {
    model.sources.iter().filter_map(|s| Some(s.path().file_name()?.to_string_lossy().into_owned())).collect()
}

/// Looks for what the indexes in the folder of a compressed model name and the model has not. Its index lists only plain tensors.
/// One of which no file is there may be the original's, if the model has tensors that it lists.
fn listed_rest(model: &Model, folder: &Path, missing: &mut Vec<Missing>, progress: &Progress) -> Result<()> {
    let opened = names_of_files(model);
    for index in files::indexes(folder, progress)? {
        let has = |tensor: &String| has_tensor(model, tensor);
        let any_file = index.map.values().any(|file| opened.contains(file));
        if any_file || !index.map.keys().any(has) {
            listed(model, &index, missing);
        }
    }
    Ok(())
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
