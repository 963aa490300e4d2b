//! A tensor as a model keeps it, and the shapes and hashes that the metadata of files may have.

use super::header::Dimensions;
use super::json::{self, Fault};
use super::source::{Source, Span};
use super::{GROUPS_KEY, HASHES_KEY, SHAPES_KEY};
use crate::error::{Error, Result, shorten};
use crate::progress::Progress;
use safetensors::Dtype;
use std::collections::BTreeMap;

/// A tensor of the original model.
pub(crate) struct TensorData {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Box<[u64]>,
    pub shape_from: ShapeSource,
    pub data: Data,
    /// Bytes of its values, decoded.
    pub bytes: u64,
    pub sha256: Option<Box<[u8; 32]>>,
}

/// Where the dimensions of a tensor come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShapeSource {
    /// Nothing says them: the one dimension is the number of weights.
    Unknown,
    /// The model's files: the header for a plain tensor, the metadata `df11.shapes` for one in a group.
    Stored,
    /// The caller: [`OpenOptions::shapes_from`](crate::OpenOptions::shapes_from) or
    /// [`OpenOptions::shapes`](crate::OpenOptions::shapes).
    Given,
    /// The config and the plain tensors, from which they follow with certainty.
    Derived,
}

/// The place of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// As they are, in a file.
    Plain(Span),
    /// In groups.
    Packed {
        /// The number of its first run in the model's list; the others follow, in the order of its elements.
        first_run: usize,
        /// The number of its runs, at least one.
        run_count: usize,
    },
}

/// Consecutive elements of a tensor that are consecutive weights of a group. Most tensors are one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunData {
    /// The tensor's number.
    pub tensor: usize,
    /// The number of its elements before the run.
    pub tensor_offset: u64,
    /// The group's number.
    pub group: usize,
    /// The number of its weights before the run.
    pub group_offset: u64,
    /// The number of elements.
    pub count: u64,
}

/// The list of a group in the metadata of a file: for each run the tensor's full name, and the number of the run's first
/// element in that.
pub(super) struct ListedGroup {
    pub runs: Vec<(String, u64)>,
    /// The number of the file.
    pub file: usize,
}

/// The most runs that the lists of all groups may have. A model of a trillion weights has some 50,000, if each expert is one.
const MOST_RUNS: usize = 1 << 20;

/// The texts in a file's metadata that say something about tensors.
pub(super) struct Notes {
    /// The number of the file.
    pub file: usize,
    /// The text under [`SHAPES_KEY`].
    pub shapes: Option<String>,
    /// The text under [`HASHES_KEY`].
    pub hashes: Option<String>,
    /// The text under [`GROUPS_KEY`].
    pub groups: Option<String>,
    /// The stamp of df11pack's variants of the format.
    pub variant: Option<String>,
}

/// Gives tensors the shapes and hashes that the notes have for them. `find` returns the number of a tensor. Notes on tensors that are not
/// there are left out, and so are shapes of plain ones, which have their own. `listed` holds the numbers of the tensors that lists of
/// groups name, each with the file of its list: the shape of such a tensor says how many elements it has.
pub(super) fn annotate(
    tensors: &mut [TensorData],
    find: impl Fn(&[TensorData], &str) -> Option<usize>,
    listed: &BTreeMap<usize, usize>,
    notes: &[Notes],
    sources: &[Source],
    progress: &Progress,
) -> Result<()> {
    let mut has_shape = vec![false; tensors.len()];
    for Notes { file, shapes, hashes, .. } in notes {
        let place = || sources[*file].place();
        let invalid =
            |key| move |reason| Error::invalid(place(), format!("the metadata '{key}' is not valid: {reason}"));
        let text = shapes.as_deref().unwrap_or("{}");
        json::each(text.as_bytes(), |name, shape| {
            progress.check().map_err(Fault::Is)?;
            let Dimensions(shape) = json::parse(shape.get().as_bytes())?;
            let Some(number) = find(tensors, &name) else { return Ok(()) };
            let tensor = &mut tensors[number];
            let Data::Packed { .. } = tensor.data else { return Ok(()) };
            if std::mem::replace(&mut has_shape[number], true) && *tensor.shape != *shape {
                let known = &tensor.shape;
                let reason = format!("the metadata gives the shape {shape:?}, and that of another file {known:?}");
                return Err(Fault::Is(Error::invalid(place().tensor(name), reason)));
            }
            let count = shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)).filter(|&count| count <= u64::MAX / 2);
            let refuse = |reason| Err(Fault::Is(Error::corrupt(place().tensor(&*name), reason)));
            match count {
                Some(count) if listed.contains_key(&number) => tensor.bytes = 2 * count,
                None if listed.contains_key(&number) => {
                    return refuse(format!("the metadata gives the shape {shape:?}, which has too many elements"));
                }
                count if count == Some(tensor.bytes / 2) => {}
                _ => {
                    let weights = tensor.bytes / 2;
                    return refuse(format!("the metadata gives the shape {shape:?}, and there are {weights} weights"));
                }
            }
            (tensor.shape, tensor.shape_from) = (shape.into(), ShapeSource::Stored);
            Ok(())
        })
        .map_err(|fault| fault.or(invalid(SHAPES_KEY)))?;
        let text = hashes.as_deref().unwrap_or("{}");
        json::each(text.as_bytes(), |name, digits| {
            progress.check().map_err(Fault::Is)?;
            let digits: String = json::parse(digits.get().as_bytes())?;
            let Some(hash) = hash_of(&digits) else {
                let (name, digits) = (shorten(&name, 80), shorten(&digits, 80));
                return Err(Fault::Json(format!("'{digits}' of '{name}' is not 64 hexadecimal digits")));
            };
            let Some(number) = find(tensors, &name) else { return Ok(()) };
            if tensors[number].sha256.replace(Box::new(hash)).is_some_and(|other| *other != hash) {
                let reason = "the metadata of two files has hashes of this tensor, which differ";
                return Err(Fault::Is(Error::invalid(place().tensor(name), reason)));
            }
            Ok(())
        })
        .map_err(|fault| fault.or(invalid(HASHES_KEY)))?;
    }
    if let Some((&number, &file)) = listed.iter().find(|(number, _)| !has_shape[**number]) {
        let reason = format!("the metadata '{GROUPS_KEY}' names this tensor, and no file's '{SHAPES_KEY}' has it");
        return Err(Error::invalid(sources[file].place().tensor(&tensors[number].name), reason));
    }
    Ok(())
}

/// Reads the lists of groups. `find` returns the number of a group; the lists are in the order of those.
pub(super) fn listed_groups(
    find: impl Fn(&str) -> Option<usize>,
    notes: &[Notes],
    sources: &[Source],
    progress: &Progress,
) -> Result<BTreeMap<usize, ListedGroup>> {
    let (mut lists, mut run_count) = (BTreeMap::new(), 0);
    for Notes { file, groups, .. } in notes {
        let place = || sources[*file].place();
        let text = groups.as_deref().unwrap_or("{}");
        json::each(text.as_bytes(), |name, list| {
            progress.check().map_err(Fault::Is)?;
            let runs: Vec<(String, u64)> = json::parse(list.get().as_bytes())?;
            run_count += runs.len();
            if run_count > MOST_RUNS {
                let reason = format!("the metadata '{GROUPS_KEY}' of all files has more than {MOST_RUNS} runs");
                return Err(Fault::Is(Error::unsupported(place(), reason)));
            }
            let refuse = |what| {
                let reason = format!("the metadata '{GROUPS_KEY}' lists this group{what}");
                Err(Fault::Is(Error::invalid(place().tensor(&*name), reason)))
            };
            let Some(number) = find(&name) else { return refuse(", and the model does not have it") };
            match lists.insert(number, ListedGroup { runs, file: *file }) {
                None => Ok(()),
                Some(_) => refuse(" a second time"),
            }
        })
        .map_err(|fault| {
            fault.or(|reason| Error::invalid(place(), format!("the metadata '{GROUPS_KEY}' is not valid: {reason}")))
        })?;
    }
    Ok(lists)
}

/// Returns the 32 bytes of 64 hexadecimal digits, in either case.
fn hash_of(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let pairs = digits.as_bytes().chunks_exact(2);
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(hash)
}
