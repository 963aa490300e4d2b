//! The header of a safetensors file: JSON from tensors' names to types, shapes and places. What the safetensors package checks is
//! checked here in the same way (`tests/format/properties.rs` compares the two), and besides that no name is there twice, no shape
//! has more dimensions than any framework has, and a caller who gives up is noticed.

use super::json::{self, Seen};
use super::{GROUPS_KEY, HASHES_KEY, SHAPES_KEY};
use crate::error::{Result, shorten};
use crate::progress::Progress;
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cmp::Ordering;
use std::fmt;

/// The most dimensions of a tensor: as many as PyTorch and NumPy have.
pub(super) const MOST_DIMENSIONS: usize = 64;

/// The keys of the metadata that are kept. The last two are what df11pack (another compressor) stamps files with that are not DF11.
const KEPT: [&str; 5] = [SHAPES_KEY, HASHES_KEY, GROUPS_KEY, "df11pack_index", "df11pack_luts"];

/// A tensor as a header describes it.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub dtype: Dtype,
    pub shape: Box<[u64]>,
    /// Its first byte, from the end of the header, and its end.
    pub offsets: (u64, u64),
}

/// The content of a header.
#[derive(Default)]
pub(super) struct Header {
    /// The tensors in the order of their bytes.
    pub tensors: Vec<(String, Info)>,
    /// The values of [`KEPT`], as far as they are there.
    pub kept: [Option<String>; KEPT.len()],
    /// The bytes of all tensors.
    pub data_bytes: u64,
}

/// A fault of a header.
pub(super) enum Fault {
    /// The caller gave up.
    Cancelled,
    /// This is wrong, at this tensor.
    Invalid(String, Option<String>),
}

impl Header {
    /// Reads a header and checks it.
    pub fn parse(text: &[u8], progress: &Progress) -> std::result::Result<Header, Fault> {
        let invalid = |reason| Fault::Invalid(reason, None);
        if std::str::from_utf8(text).is_err() {
            return Err(invalid("it is not UTF-8".into()));
        }
        let header = json::parse_seed(text, Reader { progress });
        progress.check().map_err(|_| Fault::Cancelled)?;
        let mut header = header.map_err(invalid)?;
        let order = |a: &(String, Info), b: &(String, Info)| (a.1.offsets, &a.0).cmp(&(b.1.offsets, &b.0));
        sort(&mut header.tensors, order, progress).map_err(|_| Fault::Cancelled)?;
        header.check_places(progress)?;
        Ok(header)
    }

    /// Checks that the tensors are as large as their types and shapes say, and lie one after the other.
    fn check_places(&mut self, progress: &Progress) -> std::result::Result<(), Fault> {
        let mut start = 0;
        for (i, (name, Info { dtype, shape, offsets: (from, to) })) in self.tensors.iter().enumerate() {
            if i.is_multiple_of(1 << 12) {
                progress.check().map_err(|_| Fault::Cancelled)?;
            }
            let invalid = |reason: String| Err(Fault::Invalid(reason, Some(name.clone())));
            if *from != start || to < from {
                if let Some(name) = self.name_there_twice() {
                    return Err(twice(&name));
                }
                let what = if *from < start { "overlaps the one before it" } else { "leaves a hole before it" };
                let what = if to < from { "ends before it begins" } else { what };
                return invalid(format!("the tensor of the bytes {from} to {to} {what}"));
            }
            start = *to;
            let bits = shape.iter().try_fold(dtype.bitsize() as u64, |p, &d| p.checked_mul(d));
            let Some(bits) = bits.filter(|_| shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)).is_some()) else {
                return invalid("the tensor has more elements than 64 bits can count".into());
            };
            if !bits.is_multiple_of(8) {
                return invalid("the tensor's elements end inside a byte".into());
            }
            if bits / 8 != to - from {
                return invalid(format!(
                    "the tensor has {} bytes, and its type and shape take {}",
                    to - from,
                    bits / 8
                ));
            }
        }
        self.data_bytes = start;
        Ok(())
    }

    /// Returns a name that two tensors have.
    fn name_there_twice(&self) -> Option<String> {
        let mut names: Vec<&str> = self.tensors.iter().map(|(name, _)| &name[..]).collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
    }
}

/// Returns the fault of a name that is there twice.
fn twice(name: &str) -> Fault {
    Fault::Invalid("the header has this name twice".into(), Some(name.into()))
}

/// Sorts, and notices a caller who gives up.
pub(super) fn sort<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering, progress: &Progress) -> Result<()> {
    let mut width = 1 << 14;
    for chunk in items.chunks_mut(width) {
        progress.check()?;
        chunk.sort_by(&compare);
    }
    // Two sorted halves are merged in one pass: the standard library's sort finds them.
    while width < items.len() {
        width *= 2;
        for chunk in items.chunks_mut(width) {
            progress.check()?;
            chunk.sort_by(&compare);
        }
    }
    Ok(())
}

/// Reads a header.
struct Reader<'p> {
    progress: &'p Progress,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut header = Header::default();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            self.progress.check().map_err(A::Error::custom)?;
            if name != "__metadata__" {
                let info =
                    map.next_value().map_err(|e| A::Error::custom(format_args!("'{}': {e}", shorten(&name, 80))))?;
                header.tensors.push((name, info));
            } else if std::mem::replace(&mut has_metadata, true) {
                return Err(A::Error::custom("it has the key '__metadata__' twice"));
            } else if let Some(Kept(kept)) = map.next_value()? {
                header.kept = kept;
            }
        }
        Ok(header)
    }
}

/// The metadata: texts by name, of which those of [`KEPT`] are kept.
struct Kept([Option<String>; KEPT.len()]);

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Kept, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Kept;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Kept, A::Error> {
                let (mut kept, mut seen) = ([const { None }; KEPT.len()], Seen::default());
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    seen.add(&key)?;
                    if let Some(i) = KEPT.iter().position(|k| *k == key) {
                        kept[i] = Some(value);
                    }
                }
                Ok(Kept(kept))
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Info, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Info;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Info, A::Error> {
                fn put<T, E: serde::de::Error>(place: &mut Option<T>, value: T, key: &'static str) -> Result<(), E> {
                    match place.replace(value) {
                        None => Ok(()),
                        Some(_) => Err(E::duplicate_field(key)),
                    }
                }
                type Result<T, E> = std::result::Result<T, E>;
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(key) = map.next_key::<json::Key>()? {
                    match &*key.0 {
                        "dtype" => put(&mut dtype, map.next_value()?, "dtype")?,
                        "shape" => put(&mut shape, map.next_value::<Dimensions>()?.0, "shape")?,
                        "data_offsets" => put(&mut offsets, map.next_value()?, "data_offsets")?,
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                let lacks = A::Error::missing_field;
                Ok(Info {
                    dtype: dtype.ok_or_else(|| lacks("dtype"))?,
                    shape: shape.ok_or_else(|| lacks("shape"))?.into(),
                    offsets: offsets.ok_or_else(|| lacks("data_offsets"))?,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A shape, of [`MOST_DIMENSIONS`] at most.
#[derive(Debug)]
pub(super) struct Dimensions(pub Vec<u64>);

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Dimensions, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Dimensions, A::Error> {
                let mut dimensions = Vec::new();
                while let Some(dimension) = list.next_element()? {
                    if dimensions.len() == MOST_DIMENSIONS {
                        return Err(A::Error::custom(format_args!(
                            "a shape has more than {MOST_DIMENSIONS} dimensions"
                        )));
                    }
                    dimensions.push(dimension);
                }
                Ok(Dimensions(dimensions))
            }
        }
        deserializer.deserialize_seq(List)
    }
}
