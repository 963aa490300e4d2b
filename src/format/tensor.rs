//! A tensor as a model keeps it, and the shapes and hashes that the metadata of files may have.

use super::source::{Source, Span};
use super::{HASHES_KEY, SHAPES_KEY, json};
use crate::error::{Error, Place, Result, shorten};
use safetensors::Dtype;
use std::collections::HashMap;

/// A tensor of the original model.
pub(crate) struct TensorData {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub shape_from: ShapeSource,
    pub data: Data,
    /// Bytes of its values, decoded.
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
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
    /// In a group.
    Packed {
        /// The group's number.
        group: usize,
        /// Its first weight there, in elements.
        first: u64,
    },
}

/// Shapes and hashes of tensors, from the `__metadata__` of all files.
#[derive(Default)]
pub(super) struct Metadata {
    /// Each with the number of its file.
    shapes: HashMap<String, (Vec<u64>, usize)>,
    hashes: HashMap<String, [u8; 32]>,
}

impl Metadata {
    /// Adds what the header of file `number` has under [`SHAPES_KEY`] and [`HASHES_KEY`].
    pub fn add(&mut self, shapes: Option<String>, hashes: Option<String>, number: usize, place: &Place) -> Result<()> {
        if let Some(text) = &shapes {
            self.shapes.extend(shapes_of(text, place)?.into_iter().map(|(name, shape)| (name, (shape, number))));
        }
        if let Some(text) = &hashes {
            read_hashes(text, place, &mut self.hashes)?;
        }
        Ok(())
    }

    /// Returns the shape of a tensor of `count` weights in a group, if a file says it.
    pub fn shape(&mut self, name: &str, count: u64, sources: &[Source]) -> Result<Option<Vec<u64>>> {
        let Some((shape, file)) = self.shapes.remove(name) else { return Ok(None) };
        if shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)) != Some(count) {
            let reason = format!("the metadata gives the shape {shape:?}, and there are {count} weights");
            return Err(Error::corrupt(sources[file].place().tensor(name), reason));
        }
        Ok(Some(shape))
    }

    /// Returns the hash of a tensor, if a file has one.
    pub fn hash(&self, name: &str) -> Option<[u8; 32]> {
        self.hashes.get(name).copied()
    }
}

/// Reads the shapes of a file's metadata.
pub(super) fn shapes_of(text: &str, place: &Place) -> Result<HashMap<String, Vec<u64>>> {
    json::parse(text.as_bytes())
        .map_err(|e| Error::invalid(place.clone(), format!("the metadata '{SHAPES_KEY}' is not valid: {e}")))
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
