//! Views of a model's groups and tensors: what a user holds. A view is tied to its model, so no call can be given the group of
//! one model and the files of another.

use super::config::Config;
use super::group::{GroupData, MEMBERS, Member};
use super::model::{Model, number_of};
use super::names::natural;
use super::source::{Source, Span};
use super::tensor::{Data, RunData, ShapeSource, TensorData};
use crate::error::{Error, Place, Result, shorten};
use safetensors::Dtype;
use std::fmt;
use std::path::Path;

/// A compressed group of an open model: weights that share one Huffman code, usually those of a transformer layer.
///
/// A view: copying it is free, and it lives as long as its model. The group was checked when the model was
/// opened: every size fits every other, the look-up rows form a prefix code, the positions rise as the code's lengths
/// allow.
#[derive(Clone, Copy)]
pub struct Group<'m> {
    model: &'m Model,
    number: usize,
    data: &'m GroupData,
}

/// A tensor of the original model, in an open model.
///
/// A view: copying it is free, and it lives as long as its model.
#[derive(Clone, Copy)]
pub struct Tensor<'m> {
    model: &'m Model,
    number: usize,
    data: &'m TensorData,
}

/// Consecutive elements of a tensor that are consecutive weights of a group.
///
/// A tensor in a group by the reference's format is one run. A group whose tensors a file's metadata names may hold runs
/// of larger tensors: then a tensor has several, in several groups.
#[derive(Clone, Copy)]
pub struct Run<'m> {
    model: &'m Model,
    data: &'m RunData,
}

/// A run of bytes in a file, for readers that bring their own input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location<'m> {
    /// The file's path; `memory` for a model opened from memory.
    pub file: &'m Path,
    /// The first byte, from the start of the file.
    pub offset: u64,
    /// The number of bytes.
    pub bytes: u64,
}

/// One of the six stored tensors that make a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPart<'m> {
    /// The last part of its name: `luts`, `encoded_exponent`, `sign_mantissa`, `output_positions`, `gaps` or
    /// `split_positions`.
    pub name: &'static str,
    /// Its place in the file.
    pub location: Location<'m>,
    /// Its bytes in place; `None` where files are read and not in memory.
    pub data: Option<&'m [u8]>,
}

impl Model {
    /// Returns the groups, in the natural order of their names (`layers.2` before `layers.10`).
    pub fn groups(&self) -> impl ExactSizeIterator<Item = Group<'_>> + DoubleEndedIterator + Clone {
        self.groups.iter().enumerate().map(|(number, data)| Group { model: self, number, data })
    }

    /// Returns the group of that number, in the order of [`Model::groups`].
    pub fn group(&self, number: usize) -> Option<Group<'_>> {
        self.groups.get(number).map(|data| Group { model: self, number, data })
    }

    /// Returns the group of that name.
    pub fn find_group(&self, name: &str) -> Option<Group<'_>> {
        let number = self.groups.binary_search_by(|group| natural(group.name(), name)).ok()?;
        self.group(number)
    }

    /// Returns the tensors: those of the first group in the order of their weights, those of the next, and so on, each by the
    /// first group that has a part of it; then the plain ones by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> + DoubleEndedIterator + Clone {
        self.tensors_from(0, self.tensors.len())
    }

    /// Returns the tensor of that number, in the order of [`Model::tensors`].
    pub fn tensor(&self, number: usize) -> Option<Tensor<'_>> {
        self.tensors.get(number).map(|data| Tensor { model: self, number, data })
    }

    /// Returns the tensor of that name.
    pub fn find_tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.tensor(number_of(&self.tensors, &self.by_name, name)?)
    }

    /// Returns the tensor of a number that this model has given out. Panics for any other.
    pub(crate) fn tensor_at(&self, number: usize) -> Tensor<'_> {
        Tensor { model: self, number, data: &self.tensors[number] }
    }

    fn tensors_from(
        &self,
        from: usize,
        to: usize,
    ) -> impl ExactSizeIterator<Item = Tensor<'_>> + DoubleEndedIterator + Clone {
        let all = self.tensors[from..to].iter().enumerate();
        all.map(move |(i, data)| Tensor { model: self, number: from + i, data })
    }

    /// Tells whether a group of the model is an extension of the format ([`Group::is_extended`]), so that programs that know
    /// only DF11 do not find all weights.
    pub fn is_extended(&self) -> bool {
        self.groups().any(Group::is_extended)
    }

    /// Returns the model's config, if it has one.
    pub fn config(&self) -> Option<&Config> {
        self.config.parsed.as_ref()
    }

    /// Returns the whole text of the config.json that the model was opened with, its own or the one in
    /// [`OpenOptions`](crate::OpenOptions); `None` if there is none.
    pub fn config_text(&self) -> Option<&str> {
        self.config.text.as_deref()
    }

    /// Returns the files of the model, whole.
    pub fn files(&self) -> impl ExactSizeIterator<Item = Location<'_>> + DoubleEndedIterator + Clone {
        self.sources.iter().map(|source| Location { file: source.path(), offset: 0, bytes: source.len() })
    }

    fn run(&self, number: usize) -> Run<'_> {
        Run { model: self, data: &self.runs[number] }
    }

    fn locate(&self, span: Span) -> Location<'_> {
        Location { file: self.sources[span.file].path(), offset: span.offset, bytes: span.len }
    }

    /// Returns the bytes of one of this model's spans in place; `None` where files are read.
    pub(crate) fn bytes_of(&self, span: Span) -> Option<&[u8]> {
        self.sources[span.file].slice(span.offset, span.len)
    }

    /// Tells whether decoding reads the files' bytes in place.
    pub(crate) fn mapped(&self) -> bool {
        self.sources.iter().all(|source| source.slice(0, 0).is_some())
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }
}

impl<'m> Group<'m> {
    /// Returns the module's full name, such as `model.layers.0`.
    pub fn name(self) -> &'m str {
        self.data.name()
    }

    /// Returns the number of this group in [`Model::groups`].
    pub fn number(self) -> usize {
        self.number
    }

    /// Returns the model that the group is of.
    pub fn model(self) -> &'m Model {
        self.model
    }

    /// Returns the number of weights in all its tensors.
    pub fn element_count(self) -> u64 {
        self.data.element_count()
    }

    /// Returns its tensors in the order of their weights. Of a tensor that is in several groups it may hold a part only:
    /// [`Group::runs`] says which.
    pub fn tensors(self) -> impl ExactSizeIterator<Item = Tensor<'m>> + DoubleEndedIterator + Clone {
        self.runs().map(Run::tensor)
    }

    /// Returns the runs of tensors that are its weights, in their order. There are as many as [`Group::tensors`].
    pub fn runs(self) -> impl ExactSizeIterator<Item = Run<'m>> + DoubleEndedIterator + Clone {
        self.data.runs.iter().map(move |&run| self.model.run(run as usize))
    }

    /// Tells whether a file's metadata names its tensors, which is an extension of the format: programs that know only
    /// DF11 do not find its weights.
    pub fn is_extended(self) -> bool {
        self.data.extended
    }

    /// Returns the bytes that its six parts take in the files.
    pub fn packed_bytes(self) -> u64 {
        self.data.packed_bytes()
    }

    /// Returns its six parts, in the order that [`GroupPart::name`] lists.
    pub fn parts(self) -> impl ExactSizeIterator<Item = GroupPart<'m>> {
        let part = move |(name, member): (&'static str, Member)| {
            let span = self.data.member(member);
            GroupPart { name, location: self.model.locate(span), data: self.model.bytes_of(span) }
        };
        MEMBERS.into_iter().zip(Member::ALL).map(part)
    }

    /// Returns the bits of each exponent's code word; 0 where the exponent does not occur.
    pub fn code_lengths(self) -> &'m [u8; 256] {
        self.data.code_lengths()
    }

    /// Returns the number of blocks of which positions are recorded. It can differ by one from the blocks of the stream.
    pub fn block_count(self) -> usize {
        self.data.block_count()
    }

    pub(crate) fn data(self) -> &'m GroupData {
        self.data
    }

    /// Returns the place of a byte of one of its members.
    pub(crate) fn place(self, member: Member, offset: u64) -> Place {
        self.data.place(&self.model.sources, member, offset)
    }

    /// Returns the recorded positions, four bytes each.
    pub(crate) fn positions(self) -> &'m [u8] {
        self.data.positions(&self.model.sources)
    }
}

impl<'m> Tensor<'m> {
    /// Returns its full name.
    pub fn name(self) -> &'m str {
        &self.data.name
    }

    /// Returns the number of this tensor in [`Model::tensors`].
    pub fn number(self) -> usize {
        self.number
    }

    /// Returns the model that the tensor is of.
    pub fn model(self) -> &'m Model {
        self.model
    }

    /// Returns the type of its elements: BF16 for every tensor in a group.
    pub fn dtype(self) -> Dtype {
        self.data.dtype
    }

    /// Returns its dimensions. DF11 does not store those of compressed tensors: [`Tensor::shape_source`] says where they come
    /// from. A tensor whose dimensions are unknown has one, its number of weights.
    pub fn shape(self) -> &'m [u64] {
        &self.data.shape
    }

    /// Tells whether its dimensions are its own.
    pub fn shape_known(self) -> bool {
        self.shape_source() != ShapeSource::Unknown
    }

    /// Returns where its dimensions come from.
    pub fn shape_source(self) -> ShapeSource {
        self.data.shape_from
    }

    /// Returns the bytes of its values, decoded.
    pub fn bytes(self) -> u64 {
        self.data.bytes
    }

    /// Returns the group that its first element is in; `None` for a plain tensor. If it has several runs, others of its
    /// elements are in other groups.
    pub fn group(self) -> Option<Group<'m>> {
        self.runs().next().map(Run::group)
    }

    /// Returns the number of weights of that group before its first; 0 for a plain tensor.
    pub fn group_offset(self) -> u64 {
        self.runs().next().map_or(0, Run::group_offset)
    }

    /// Returns the runs of its elements in groups, in their order: one for a tensor that is whole in a group, none for a
    /// plain tensor.
    pub fn runs(self) -> impl ExactSizeIterator<Item = Run<'m>> + DoubleEndedIterator + Clone {
        (0..self.run_count()).map(move |number| self.run(number))
    }

    /// Returns the number of its runs.
    pub(crate) fn run_count(self) -> usize {
        match self.data.data {
            Data::Plain(_) => 0,
            Data::Packed { run_count, .. } => run_count,
        }
    }

    /// Returns one of its runs. Panics for a number that it does not have.
    pub(crate) fn run(self, number: usize) -> Run<'m> {
        match self.data.data {
            Data::Packed { first_run, run_count } if number < run_count => self.model.run(first_run + number),
            _ => panic!("a tensor of {} runs has no run {number}", self.run_count()),
        }
    }

    /// Returns the place of a plain tensor's values; `None` for a tensor in a group ([`Group::parts`] says where that is).
    pub fn location(self) -> Option<Location<'m>> {
        match self.data.data {
            Data::Plain(span) => Some(self.model.locate(span)),
            Data::Packed { .. } => None,
        }
    }

    /// Returns the values of a plain tensor in place, with no alignment; `None` for a tensor in a group, and where files are
    /// read and not in memory.
    pub fn data(self) -> Option<&'m [u8]> {
        match self.data.data {
            Data::Plain(span) => self.model.bytes_of(span),
            Data::Packed { .. } => None,
        }
    }

    /// Returns the SHA-256 of its decoded values, if the file's metadata has it under `df11.sha256`. Opening a model compares
    /// it with nothing.
    pub fn sha256(self) -> Option<&'m [u8; 32]> {
        self.data.sha256.as_deref()
    }

    pub(crate) fn values(self) -> Data {
        self.data.data
    }

    /// Copies values of a plain tensor, from its byte `offset` on.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a tensor in a group and for bytes outside the tensor; `Io` and `Corrupt` from the file.
    pub(crate) fn read_plain(self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Data::Plain(span) = self.data.data else {
            return Err(Error::InvalidArgument(format!(
                "tensor '{}' is in a group: it must be decoded",
                shorten(self.name(), 80)
            )));
        };
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > span.len) {
            return Err(Error::InvalidArgument(format!(
                "bytes {offset} + {} are outside tensor '{}' of {} bytes",
                buffer.len(),
                shorten(self.name(), 80),
                span.len
            )));
        }
        self.model.sources[span.file].read_at(span.offset + offset, buffer)
    }

    /// Asks the system to read bytes of a plain tensor, from its byte `offset` on, before they are needed.
    pub(crate) fn read_ahead(self, offset: u64, len: u64) {
        if let Data::Plain(span) = self.data.data {
            let offset = offset.min(span.len);
            self.model.sources[span.file].read_ahead(span.offset + offset, len.min(span.len - offset));
        }
    }
}

impl<'m> Run<'m> {
    /// Returns the tensor.
    pub fn tensor(self) -> Tensor<'m> {
        self.model.tensor_at(self.data.tensor)
    }

    /// Returns the number of the tensor's elements before the run.
    pub fn tensor_offset(self) -> u64 {
        self.data.tensor_offset
    }

    /// Returns the group.
    pub fn group(self) -> Group<'m> {
        let number = self.data.group;
        Group { model: self.model, number, data: &self.model.groups[number] }
    }

    /// Returns the number of the group's weights before the run.
    pub fn group_offset(self) -> u64 {
        self.data.group_offset
    }

    /// Returns the number of elements.
    pub fn element_count(self) -> u64 {
        self.data.count
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("tensor", &self.tensor().name())
            .field("tensor_offset", &self.tensor_offset())
            .field("group", &self.group().name())
            .field("group_offset", &self.group_offset())
            .field("element_count", &self.element_count())
            .finish()
    }
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("number", &self.number)
            .field("name", &self.name())
            .field("element_count", &self.element_count())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("number", &self.number)
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .finish_non_exhaustive()
    }
}
