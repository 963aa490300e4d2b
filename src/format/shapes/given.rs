//! Shapes that the caller gives: of the original's files, or of a list.

use super::super::source::{Access, Source};
use super::super::tensor::shapes_of;
use super::super::{files, json};
use crate::error::{Error, Place, Result, shorten};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Shapes by the names of tensors.
#[derive(Default)]
pub(in crate::format) struct Given(HashMap<String, Vec<u64>>);

impl Given {
    /// Reads the shapes of a folder, a safetensors file or a list in JSON, and of a list that is a text. Of safetensors files
    /// only the headers are read, so no more of them need be there. The text comes before the path.
    pub fn read(path: Option<&Path>, list: Option<&str>) -> Result<Given> {
        let mut given = Given::default();
        path.map(|path| given.add_path(path)).transpose().map_err(|e| e.into_argument("the shapes cannot be used"))?;
        if let Some(text) = list {
            given
                .add_list(text.as_bytes())
                .map_err(|reason| Error::InvalidArgument(format!("the list of shapes cannot be used: {reason}")))?;
        }
        Ok(given)
    }

    fn add_path(&mut self, path: &Path) -> Result<()> {
        if std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?.is_dir() {
            return files::safetensors_of(path)?.iter().try_for_each(|file| self.add_file(file));
        }
        if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            return self.add_file(path);
        }
        let text = files::read_text(path)?.unwrap_or_default();
        self.add_list(&text).map_err(|reason| Error::invalid(Place::of(path), reason))
    }

    /// Adds the shapes of a file's header, and those that its metadata has of tensors in groups.
    fn add_file(&mut self, path: &Path) -> Result<()> {
        let source = Source::open(path, Access::Read)?;
        let header = source.header_alone(0)?;
        let stored =
            header.tensors.into_iter().map(|(name, info, _)| (name, info.shape.iter().map(|&d| d as u64).collect()));
        let packed = header.shapes.map(|text| shapes_of(&text, &source.place())).transpose()?.unwrap_or_default();
        for (name, shape) in stored.chain(packed) {
            let twice = self.0.get(&name).is_some_and(|before| *before != shape);
            if twice {
                return Err(Error::invalid(source.place().tensor(name), "two files give this tensor different shapes"));
            }
            self.0.insert(name, shape);
        }
        Ok(())
    }

    /// Adds a list: a JSON object from names to lists of dimensions, or to objects that have these as `shape`, as the header
    /// of a safetensors file is. The error is the reason.
    fn add_list(&mut self, text: &[u8]) -> std::result::Result<(), String> {
        let list: HashMap<String, Entry> = json::parse(text)?;
        for (name, entry) in list {
            match entry {
                Entry::Shape(shape) => _ = self.0.insert(name, shape),
                Entry::Other if name == "__metadata__" => {}
                Entry::Other => return Err(format!("'{}' has no list of dimensions", shorten(&name, 80))),
            }
        }
        Ok(())
    }

    /// Returns the shape given for a tensor of `count` weights.
    pub fn shape(&mut self, name: &str, count: u64) -> Result<Option<Vec<u64>>> {
        let Some(shape) = self.0.remove(name) else { return Ok(None) };
        if shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)) != Some(count) {
            let reason = format!(
                "the shape {shape:?} is given for tensor '{}', which has {count} weights: it is another model's",
                shorten(name, 80)
            );
            return Err(Error::InvalidArgument(reason));
        }
        Ok(Some(shape))
    }
}

/// What a list says of a tensor.
enum Entry {
    Shape(Vec<u64>),
    Other,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Entry, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Entry, A::Error> {
        let mut shape = Vec::new();
        while let Some(dimension) = list.next_element()? {
            shape.push(dimension);
        }
        Ok(Entry::Shape(shape))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry, A::Error> {
        let mut shape = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "shape" {
                shape = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(shape.map_or(Entry::Other, Entry::Shape))
    }
}
