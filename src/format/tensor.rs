//! A tensor as a model keeps it, and the shapes and hashes that the metadata of files may have.

use super::header::Dimensions;
use super::json::{self, Fault};
use super::source::{Source, Span};
use super::{HASHES_KEY, SHAPES_KEY};
use crate::error::{Error, Result, shorten};
use crate::progress::Progress;
use safetensors::Dtype;

/// A tensor of the original model.
pub(crate) struct TensorData {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Box<[u64]>,
    pub data: Data,
    /// Bytes of its values, decoded.
    pub bytes: u64,
    pub sha256: Option<Box<[u8; 32]>>,
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

/// The texts in a file's metadata that say something about tensors.
pub(super) struct Notes {
    /// The number of the file.
    pub file: usize,
    /// The text under [`SHAPES_KEY`].
    pub shapes: Option<String>,
    /// The text under [`HASHES_KEY`].
    pub hashes: Option<String>,
}

/// Gives tensors the shapes and hashes that the notes have for them. `find` returns the number of a tensor. Notes on tensors that are not
/// there are left out, and so are shapes of plain ones, which have their own.
pub(super) fn annotate(
    tensors: &mut [TensorData],
    find: impl Fn(&[TensorData], &str) -> Option<usize>,
    notes: &[Notes],
    sources: &[Source],
    progress: &Progress,
) -> Result<()> {
    let mut has_shape = vec![false; tensors.len()];
    for Notes { file, shapes, hashes } in notes {
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
                let reason =
                    format!("the metadata of two files has shapes of this tensor: {:?} and {shape:?}", tensor.shape);
                return Err(Fault::Is(Error::corrupt(place().tensor(name), reason)));
            }
            let count = tensor.bytes / 2;
            if shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)) != Some(count) {
                let reason = format!("the metadata gives the shape {shape:?}, and there are {count} weights");
                return Err(Fault::Is(Error::corrupt(place().tensor(name), reason)));
            }
            tensor.shape = shape.into();
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
                return Err(Fault::Is(Error::corrupt(place().tensor(name), reason)));
            }
            Ok(())
        })
        .map_err(|fault| fault.or(invalid(HASHES_KEY)))?;
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
