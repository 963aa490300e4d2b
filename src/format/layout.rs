//! A safetensors file to be written: its header, and where each tensor's bytes will go.
//!
//! The order is the safetensors package's own: the wider type first, then by name, so that every tensor is aligned to its
//! type as far as the header's padding to 8 bytes allows. The bytes of the header depend on nothing else: keys of the
//! metadata are sorted.

use crate::error::{Error, Place, Result};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A tensor of a file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutTensor {
    /// Its full name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Bytes of its values.
    pub bytes: u64,
}

/// The header of a file to be written, and the place of each tensor in it.
#[derive(Debug, Clone)]
pub struct FileLayout {
    header: Vec<u8>,
    /// In the order of the file, each with its first byte in the file.
    tensors: Vec<(LayoutTensor, u64)>,
    bytes: u64,
}

impl FileLayout {
    /// Lays out a file of these tensors, in whatever order they come. Without `metadata` the header has none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if the file would have more than 2^64 bytes or two tensors of one name.
    pub fn new(mut tensors: Vec<LayoutTensor>, metadata: &BTreeMap<String, String>) -> Result<FileLayout> {
        tensors.sort_by(|a, b| (Reverse(a.dtype), &a.name).cmp(&(Reverse(b.dtype), &b.name)));
        let mut entries = Map::with_capacity(tensors.len() + 1);
        if !metadata.is_empty() {
            entries.insert("__metadata__".into(), json!(metadata));
        }
        let mut end = 0u64;
        let mut placed = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let refuse =
                |reason: &str| Error::InvalidArgument(format!("{reason} [{}]", Place::default().tensor(&tensor.name)));
            let from = end;
            end = end.checked_add(tensor.bytes).ok_or_else(|| refuse("the tensors do not fit one file"))?;
            let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [from, end] });
            if entries.insert(tensor.name.clone(), entry).is_some() {
                return Err(refuse("two tensors of one file have this name"));
            }
            placed.push((tensor, from));
        }
        let mut json = Value::Object(entries).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        let start = header.len() as u64;
        placed.iter_mut().for_each(|(_, at)| *at += start);
        Ok(FileLayout { bytes: start + end, tensors: placed, header })
    }

    /// Returns the header with its length before it.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Returns the tensors in the order of their bytes, each with its first byte in the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&LayoutTensor, u64)> {
        self.tensors.iter().map(|(tensor, at)| (tensor, *at))
    }

    /// Returns the tensor of that number, in the order of [`FileLayout::tensors`], and its first byte in the file.
    #[cfg(feature = "writer")]
    pub(crate) fn tensor(&self, number: usize) -> Option<(&LayoutTensor, u64)> {
        self.tensors.get(number).map(|(tensor, at)| (tensor, *at))
    }

    /// Returns the bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_the_package_reads() {
        let tensor = |name: &str, dtype, shape: &[u64], bytes| LayoutTensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        };
        let tensors = vec![
            tensor("b", Dtype::U8, &[3], 3),
            tensor("a\"", Dtype::BF16, &[2, 2], 8),
            tensor("c", Dtype::I64, &[0], 0),
        ];
        let metadata = [("z".to_owned(), "1".to_owned()), ("format".to_owned(), "pt".to_owned())].into();
        let layout = FileLayout::new(tensors.clone(), &metadata).unwrap();
        assert!(layout.header().len().is_multiple_of(8));
        let mut file = layout.header().to_vec();
        file.resize(layout.bytes() as usize, 0);
        let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        let order: Vec<&str> = layout.tensors().map(|(t, _)| &t.name[..]).collect();
        assert_eq!(order, ["c", "a\"", "b"]);
        assert_eq!(header.info("a\"").unwrap().data_offsets, (0, 8));
        assert_eq!(layout.tensors().nth(1).unwrap().1, layout.header().len() as u64);
        assert!(FileLayout::new(vec![tensors[0].clone(), tensors[0].clone()], &metadata).is_err());
        assert!(FileLayout::new(vec![tensor("x", Dtype::U8, &[], u64::MAX), tensors[0].clone()], &metadata).is_err());
    }
}
