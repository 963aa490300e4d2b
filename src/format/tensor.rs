//! A tensor as a model keeps it, and the shapes and hashes that the metadata of files may have.

use super::source::{Header, Source, Span};
use super::{GROUPS_KEY, HASHES_KEY, SHAPES_KEY, json};
use crate::error::{Error, Place, Result, shorten};
use safetensors::Dtype;
use std::collections::HashMap;

/// A tensor of the original model.
pub(crate) struct TensorData {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub data: Data,
    /// Bytes of its values, decoded.
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
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

/// Shapes and hashes of tensors and lists of groups, from the `__metadata__` of all files.
#[derive(Default)]
pub(super) struct Metadata {
    /// Each with the number of its file.
    shapes: HashMap<String, (Vec<u64>, usize)>,
    hashes: HashMap<String, [u8; 32]>,
    /// The groups that are listed.
    pub groups: HashMap<String, ListedGroup>,
    /// The runs in their lists.
    run_count: usize,
}

/// The most runs that the lists of all groups may have. A model of a trillion weights has some 50,000, if each expert is one.
const MOST_RUNS: usize = 1 << 20;

impl Metadata {
    /// Adds what the header of file `number` has under [`SHAPES_KEY`], [`HASHES_KEY`] and [`GROUPS_KEY`].
    pub fn add(&mut self, header: &Header, number: usize, place: &Place) -> Result<()> {
        if let Some(text) = &header.shapes {
            let parsed: HashMap<String, Vec<u64>> = json::parse(text.as_bytes())
                .map_err(|e| Error::invalid(place.clone(), format!("the metadata '{SHAPES_KEY}' is not valid: {e}")))?;
            for (name, shape) in parsed {
                let (known, _) = self.shapes.entry(name.clone()).or_insert_with(|| (shape.clone(), number));
                if *known != shape {
                    let reason = format!("the metadata gives the shape {shape:?}, and that of another file {known:?}");
                    return Err(Error::invalid(place.clone().tensor(name), reason));
                }
            }
        }
        if let Some(text) = &header.hashes {
            read_hashes(text, place, &mut self.hashes)?;
        }
        if let Some(text) = &header.groups {
            self.read_groups(text, number, place)?;
        }
        Ok(())
    }

    /// Reads the lists of groups of a file's metadata.
    fn read_groups(&mut self, text: &str, file: usize, place: &Place) -> Result<()> {
        // The text is the value of a header's key, which the safetensors crate has decoded to a text of its own.
        let parsed: json::Entries<Vec<(String, u64)>> = json::parse(text.as_bytes())
            .map_err(|e| Error::invalid(place.clone(), format!("the metadata '{GROUPS_KEY}' is not valid: {e}")))?;
        for (name, runs) in parsed.0 {
            self.run_count += runs.len();
            if self.run_count > MOST_RUNS {
                let reason = format!("the metadata '{GROUPS_KEY}' of all files has more than {MOST_RUNS} runs");
                return Err(Error::unsupported(place.clone(), reason));
            }
            if self.groups.contains_key(&name) {
                let reason = format!("the metadata '{GROUPS_KEY}' lists this group a second time");
                return Err(Error::invalid(place.clone().tensor(name), reason));
            }
            self.groups.insert(name, ListedGroup { runs, file });
        }
        Ok(())
    }

    /// Returns the shape of a tensor that a list of a group names, and the number of its elements. Whichever file has it.
    pub fn listed_shape(&self, name: &str) -> Option<(&[u64], Option<u64>)> {
        let (shape, _) = self.shapes.get(name)?;
        let count = shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)).filter(|&count| count <= u64::MAX / 2);
        Some((shape, count))
    }

    /// Returns the shape of a tensor of `count` weights in a group: one dimension, if no file says which.
    pub fn shape(&mut self, name: &str, count: u64, sources: &[Source]) -> Result<Vec<u64>> {
        let Some((shape, file)) = self.shapes.remove(name) else { return Ok(vec![count]) };
        if shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)) != Some(count) {
            let reason = format!("the metadata gives the shape {shape:?}, and there are {count} weights");
            return Err(Error::corrupt(sources[file].place().tensor(name), reason));
        }
        Ok(shape)
    }

    /// Returns the hash of a tensor, if a file has one.
    pub fn hash(&self, name: &str) -> Option<[u8; 32]> {
        self.hashes.get(name).copied()
    }
}

/// Reads the hashes of a file's metadata.
fn read_hashes(text: &str, place: &Place, hashes: &mut HashMap<String, [u8; 32]>) -> Result<()> {
    let invalid =
        |reason: String| Error::invalid(place.clone(), format!("the metadata '{HASHES_KEY}' is not valid: {reason}"));
    let parsed: HashMap<String, String> = json::parse(text.as_bytes()).map_err(invalid)?;
    for (name, digits) in parsed {
        let Some(hash) = hash_of(&digits) else {
            let (name, digits) = (shorten(&name, 80), shorten(&digits, 80));
            return Err(invalid(format!("'{digits}' of '{name}' is not 64 hexadecimal digits")));
        };
        hashes.insert(name, hash);
    }
    Ok(())
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
