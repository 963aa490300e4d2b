//! Verifying a whole model: every code of every group, every hash that its files carry, and, where there is an original,
//! every bit of every tensor.
//!
//! All of it is done in pieces: no tensor is ever in memory whole.

use super::open::unusable;
use super::{DecodeOptions, threads, walk};
use crate::error::{Error, Place, Result, Status, grow};
use crate::format::{Model, ShapeSource, Tensor, ends_with};
use crate::progress::Progress;
use crate::thousands::thousands;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of each side compared at a time: a multiple of every element's size.
const PIECE_BYTES: usize = 8 << 20;
/// Bytes of a tensor that a thread hashes at a time.
const HASHED_BYTES: usize = 1 << 20;

/// Options to verify a model.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// The threads to use, the calling one among them; 0 means 1. They live for the call only.
    pub threads: usize,
    /// True to accept a model that lacks something ([`Model::missing`]).
    pub incomplete: bool,
    /// True to accept a model that has no group, which nobody compressed, without an original.
    pub allow_plain: bool,
}

impl VerifyOptions {
    /// Returns the defaults.
    pub fn new() -> VerifyOptions {
        VerifyOptions::default()
    }

    /// Sets the threads to use, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether to accept a model that lacks something.
    pub fn incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }

    /// Sets whether to accept a model that has no group.
    pub fn allow_plain(mut self, allow_plain: bool) -> Self {
        self.allow_plain = allow_plain;
        self
    }
}

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A group whose codes agree with its gaps and positions. Nothing is wrong.
    Good,
    /// A group whose codes do not.
    Bad,
    /// A tensor that has another hash than the file's metadata says.
    Hash,
    /// A tensor that differs from the original's, or that only one of the two models has.
    Differs,
    /// A remark for people. Nothing is wrong.
    Note,
    /// A file, tensor or layer that the model lacks.
    Missing,
}

impl FindingKind {
    /// Tells whether something is wrong.
    pub fn is_wrong(self) -> bool {
        !matches!(self, FindingKind::Good | FindingKind::Note)
    }
}

/// A finding about one group or one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding<'a> {
    /// Its kind.
    pub kind: FindingKind,
    /// The group (`Good`, `Bad`), the tensor, or what is absent (`Missing`). It comes from a file: escape it before it is printed.
    pub name: &'a str,
    /// One sentence, with the name in it: escape it too.
    pub text: String,
}

/// The result of a verification, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Groups whose codes agree with their gaps and positions.
    pub groups_good: u64,
    /// Groups whose codes do not.
    pub groups_bad: u64,
    /// Codes in all groups, which is weights.
    pub codes: u64,
    /// Tensors that have the hash that the metadata says.
    pub hashes_right: u64,
    /// Tensors that have another, or cannot be decoded.
    pub hashes_wrong: u64,
    /// Tensors that equal the original's.
    pub tensors_equal: u64,
    /// Tensors that differ from the original's, or that only one of the two models has.
    pub tensors_different: u64,
    /// Files, tensors and layers that the model lacks.
    pub missing: u64,
}

impl Verified {
    /// Tells whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        [self.groups_bad, self.hashes_wrong, self.tensors_different, self.missing] == [0; 4]
    }
}

/// Verifies a model: looks for what it lacks ([`Model::missing`]), walks every code of every group as [`Model::verify`] does, compares the hash of each tensor that
/// has one ([`Tensor::sha256`]), and, if there is an original, every tensor as [`compare_models`] does. It continues after
/// a fault: each group and each tensor gives its own finding, told in the calling thread when it is made (hashes:
/// when all are compared).
///
/// Memory is at most 16 MiB, and 2 MiB for each thread.
///
/// # Errors
///
/// A fault in the model's contents is no error but a finding. `Cancelled`; `Io` and `OutOfMemory`;
/// `InvalidArgument` if the original cannot be read, because then nothing is known; `InvalidFormat` if there is no original and no
/// group, so that there is nothing to verify, unless [`allow_plain`](VerifyOptions::allow_plain) is set.
pub fn verify_model(
    model: &Model,
    original: Option<&Model>,
    options: &VerifyOptions,
    progress: &Progress,
    finding: &mut dyn FnMut(Finding),
) -> Result<Verified> {
    let walked = |model: &Model| sum(model.groups().map(|g| 2 * g.element_count()));
    let hashed = |model: &Model| sum(hashed(model).map(Tensor::bytes));
    let compared = original.map_or(0, |original| compared_bytes(model, original));
    let mut check =
        Check { threads: options.threads.max(1), progress, finding, found: Verified::default(), planned: 0 };
    progress.begin(sum([walked(model), hashed(model), compared]));
    progress.check()?;
    if model.group(0).is_none() && original.is_none() && !options.allow_plain {
        let place = model.files().next().map_or(Place::default(), |file| Place::of(file.file));
        let reason = "no tensor is in a group: this is no DF11 model, or nothing of it was compressed";
        return Err(Error::invalid(place, reason));
    }
    if !options.incomplete {
        check.look_for_missing(model)?;
    }
    check.walk(model)?;
    check.hash(model)?;
    if let Some(original) = original {
        check.compare(model, original)?;
    }
    progress.finish();
    Ok(check.found)
}

/// Compares every tensor of a model with that of the same name in another, which may be a folder of any number of files:
/// type, shape (where it is known of both, and not only derived of the original), number of elements, and every bit. That one side lacks an `lm_head.weight`
/// which is equal to the embedding is only noted. Memory, errors and findings as for [`verify_model`].
pub fn compare_models(
    model: &Model,
    original: &Model,
    options: &VerifyOptions,
    progress: &Progress,
    finding: &mut dyn FnMut(Finding),
) -> Result<Verified> {
    let mut check =
        Check { threads: options.threads.max(1), progress, finding, found: Verified::default(), planned: 0 };
    progress.begin(compared_bytes(model, original));
    progress.check()?;
    check.compare(model, original)?;
    progress.finish();
    Ok(check.found)
}

/// Adds sizes without overflow: those that files claim may add up to more than 2^64.
fn sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// Returns the tensors that have a hash.
fn hashed(model: &Model) -> impl Iterator<Item = Tensor<'_>> {
    model.tensors().filter(|t| t.sha256().is_some())
}

/// Returns the tensors of a model that another has too, each with that one.
fn pairs<'m>(model: &'m Model, other: &'m Model) -> impl Iterator<Item = (Tensor<'m>, Tensor<'m>)> {
    model.tensors().filter_map(|t| Some((t, other.find_tensor(t.name())?)))
}

/// Returns the bytes to compare, one side counted.
fn compared_bytes(model: &Model, original: &Model) -> u64 {
    sum(pairs(model, original).map(|(ours, _)| ours.bytes()))
}

/// A verification at work.
struct Check<'a> {
    threads: usize,
    progress: &'a Progress,
    finding: &'a mut dyn FnMut(Finding),
    found: Verified,
    /// Bytes of all that is done, whether it was compared or left out.
    planned: u64,
}

impl Check<'_> {
    fn tell(&mut self, kind: FindingKind, name: &str, text: String) {
        (self.finding)(Finding { kind, name, text });
    }

    /// Counts bytes as done, also where a part of them was left out.
    fn pass(&mut self, bytes: u64) {
        self.planned = self.planned.saturating_add(bytes);
        self.progress.reach(self.planned);
    }

    /// Tells what the model lacks.
    fn look_for_missing(&mut self, model: &Model) -> Result<()> {
        for missing in model.missing_watched(self.progress)? {
            self.found.missing += 1;
            self.tell(FindingKind::Missing, &missing.name, missing.reason);
        }
        Ok(())
    }

    /// Walks every code of every group.
    fn walk(&mut self, model: &Model) -> Result<()> {
        for group in model.groups() {
            let name = group.name();
            self.progress.check()?;
            match walk::walk(group, self.threads, self.progress) {
                Ok(()) => {
                    self.found.groups_good += 1;
                    let text = format!("group '{name}': {} codes", thousands(group.element_count()));
                    self.tell(FindingKind::Good, name, text);
                }
                Err(error) if error.status() == Status::Corrupt => {
                    self.found.groups_bad += 1;
                    self.tell(FindingKind::Bad, name, format!("group '{name}': {error}"));
                }
                Err(error) => return Err(error),
            }
            self.found.codes += group.element_count();
            self.pass(2 * group.element_count());
        }
        Ok(())
    }

    /// Compares the hash of every tensor that has one: each thread takes the next tensor.
    fn hash(&mut self, model: &Model) -> Result<()> {
        let tensors: Vec<Tensor> = hashed(model).collect();
        let largest = tensors.iter().map(|t| t.bytes()).max().unwrap_or(0);
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let workers = self.threads.clamp(1, tensors.len().max(1));
        // A single large tensor should not leave the others idle altogether.
        let options = DecodeOptions::new().threads(self.threads / workers);
        threads::run(workers, || {
            let work = || {
                let mut buffer = Buffer::new(largest.min(HASHED_BYTES as u64) as usize)?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&tensor) = tensors.get(number) else { return Ok(()) };
                    if let Some(text) = wrong_hash(tensor, &mut buffer, &options, self.progress)? {
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).push((number, text));
                    }
                }
            };
            // The other threads may stop.
            work().inspect_err(|_| next.store(tensors.len(), Ordering::Relaxed))
        })?;
        let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        wrong.sort_unstable();
        self.found.hashes_wrong = wrong.len() as u64;
        self.found.hashes_right = (tensors.len() - wrong.len()) as u64;
        for (number, text) in wrong {
            let name = tensors[number].name();
            self.tell(FindingKind::Hash, name, format!("tensor '{name}': {text}"));
        }
        self.pass(sum(tensors.iter().map(|t| t.bytes())));
        Ok(())
    }

    /// Compares all tensors.
    fn compare(&mut self, model: &Model, original: &Model) -> Result<()> {
        let options = DecodeOptions::new().threads(self.threads);
        let largest = model.tensors().chain(original.tensors()).map(Tensor::bytes).max().unwrap_or(0);
        let size = largest.min(PIECE_BYTES as u64) as usize;
        let mut work = Work { options, progress: self.progress, a: Buffer::new(size)?, b: Buffer::new(size)? };
        for (ours, theirs) in pairs(model, original) {
            match work.difference(ours, theirs)? {
                None => self.found.tensors_equal += 1,
                Some(difference) => self.differs(ours.name(), &difference),
            }
            self.pass(ours.bytes());
        }
        let sides = [("model", model, "original", original), ("original", original, "model", model)];
        for (side, have, other, lack) in sides {
            for lone in have.tensors().filter(|t| lack.find_tensor(t.name()).is_none()) {
                let name = lone.name();
                let tied = work.tied_to(lone).map_err(|e| if side == "original" { unusable(e) } else { e })?;
                match tied {
                    Some(twin) => {
                        let twin = twin.name();
                        let text = format!("'{name}' is in the {side} only: it is tied, bit for bit equal to '{twin}'");
                        self.tell(FindingKind::Note, name, text);
                    }
                    None => self.differs(name, &format!("the {side} has it and the {other} does not")),
                }
            }
        }
        Ok(())
    }

    fn differs(&mut self, name: &str, difference: &str) {
        self.found.tensors_different += 1;
        self.tell(FindingKind::Differs, name, format!("tensor '{name}': {difference}"));
    }
}

/// Compares a tensor's hash. Returns the fault in words.
fn wrong_hash(
    tensor: Tensor,
    buffer: &mut Buffer,
    options: &DecodeOptions,
    progress: &Progress,
) -> Result<Option<String>> {
    let Some(recorded) = tensor.sha256() else { return Ok(None) };
    let mut hasher = Sha256::new();
    let mut done = 0;
    while done < tensor.bytes() {
        progress.check()?;
        let piece = buffer.first(tensor.bytes() - done);
        match tensor.read(done, piece, options) {
            Ok(()) => hasher.update(&*piece),
            Err(error) if error.status() == Status::Corrupt => {
                return Ok(Some(format!("it cannot be decoded to be hashed: {error}")));
            }
            Err(error) => return Err(error),
        }
        done += piece.len() as u64;
        progress.advance(piece.len() as u64);
    }
    let found: [u8; 32] = hasher.finalize().into();
    let differs = || format!("its SHA-256 is {}, and {} in the metadata", hex(&found), hex(recorded));
    Ok((found != *recorded).then(differs))
}

/// Formats bytes as hexadecimal digits, as hashes are written.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Memory for pieces of tensors, of words, so that bf16 in it are aligned.
struct Buffer(Vec<u64>);

impl Buffer {
    /// Allocates at least `bytes` bytes.
    fn new(bytes: usize) -> Result<Buffer> {
        let mut words = Vec::new();
        grow(&mut words, bytes.div_ceil(8), 0, "a part of a tensor")?;
        Ok(Buffer(words))
    }

    /// Returns its first `bytes` bytes, or all of them.
    fn first(&mut self, bytes: u64) -> &mut [u8] {
        let all = self.0.len() * 8;
        let len = bytes.min(all as u64) as usize;
        // SAFETY: the words have `len` bytes, any value is valid for them, and they are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// The buffers of a comparison, and how to decode.
struct Work<'a> {
    options: DecodeOptions,
    progress: &'a Progress,
    a: Buffer,
    b: Buffer,
}

impl Work<'_> {
    /// Returns the difference between two tensors of one name, in words.
    fn difference(&mut self, ours: Tensor, theirs: Tensor) -> Result<Option<String>> {
        let mut found = Vec::new();
        if ours.dtype() != theirs.dtype() {
            found.push(format!("it is {}, and {} in the original", ours.dtype(), theirs.dtype()));
        }
        let shapes = (ours.shape(), theirs.shape());
        // A shape that was derived for the original says nothing against the model's.
        let says = |t: Tensor| matches!(t.shape_source(), ShapeSource::Stored | ShapeSource::Given);
        let [a, b] = [shapes.0, shapes.1].map(|shape| format!("{shape:?}"));
        match ours.shape_source() {
            _ if shapes.0 == shapes.1 || !says(theirs) => {}
            ShapeSource::Unknown => {}
            ShapeSource::Derived => found.push(format!(
                "its shape follows from the config and the plain tensors as {a}, and is {b} in the original: take it from there \
                 (the option shapes-from)"
            )),
            ShapeSource::Stored | ShapeSource::Given => found.push(format!("its shape is {a}, and {b} in the original")),
        }
        let elements = (elements(ours), elements(theirs));
        if elements.0 != elements.1 {
            let (a, b) = (thousands(elements.0), thousands(elements.1));
            found.push(format!("it has {a} elements, and {b} in the original"));
        }
        if ours.dtype() == theirs.dtype() && ours.bytes() == theirs.bytes() {
            match self.bits(ours, theirs, true) {
                Ok(differing) => found.extend(differing.map(|d| d.describe(ours))),
                Err(Unreadable::Ours(error)) if error.status() == Status::Corrupt => {
                    found.push(format!("it cannot be decoded: {error}"));
                }
                Err(Unreadable::Ours(error)) => return Err(error),
                Err(Unreadable::Theirs(error)) => return Err(unusable(error)),
            }
        }
        Ok((!found.is_empty()).then(|| found.join("; ")))
    }

    /// Compares two tensors of one size. All of it is looked at, to tell how much differs.
    fn bits(&mut self, a: Tensor, b: Tensor, counted: bool) -> std::result::Result<Option<Differing>, Unreadable> {
        let width = element_bytes(a);
        let mut found: Option<Differing> = None;
        let mut done = 0;
        while done < a.bytes() {
            self.progress.check().map_err(Unreadable::Ours)?;
            let (ours, theirs) = (self.a.first(a.bytes() - done), self.b.first(a.bytes() - done));
            a.read(done, ours, &self.options).map_err(Unreadable::Ours)?;
            b.read(done, theirs, &self.options).map_err(Unreadable::Theirs)?;
            if ours != theirs {
                let pairs = ours.chunks(width).zip(theirs.chunks(width)).enumerate();
                for (i, (x, y)) in pairs.filter(|(_, (x, y))| x != y) {
                    let element = done / width as u64 + i as u64;
                    found
                        .get_or_insert_with(|| Differing { element, ours: bits(x), theirs: bits(y), count: 0 })
                        .count += 1;
                }
            }
            done += ours.len() as u64;
            if counted {
                self.progress.advance(ours.len() as u64);
            }
        }
        Ok(found)
    }

    /// Returns the embedding of the same model that a lone `lm_head.weight` is equal to, if that explains why it is alone.
    fn tied_to<'m>(&mut self, lone: Tensor<'m>) -> Result<Option<Tensor<'m>>> {
        if !ends_with(lone.name(), "lm_head.weight") {
            return Ok(None);
        }
        let alike = |t: &Tensor| {
            ends_with(t.name(), "embed_tokens.weight") && t.dtype() == lone.dtype() && t.bytes() == lone.bytes()
        };
        for twin in lone.model().tensors().filter(alike) {
            match self.bits(lone, twin, false) {
                Ok(None) => return Ok(Some(twin)),
                Ok(Some(_)) => {}
                // A tensor that cannot be decoded is a finding already, and equals nothing.
                Err(Unreadable::Ours(error) | Unreadable::Theirs(error)) if error.status() == Status::Corrupt => {}
                Err(Unreadable::Ours(error) | Unreadable::Theirs(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Tells whether two tensors have the same type and the same bits.
#[cfg(feature = "writer")]
pub(crate) fn are_equal(a: Tensor, b: Tensor, threads: usize, progress: &Progress) -> Result<bool> {
    if (a.dtype(), a.bytes()) != (b.dtype(), b.bytes()) {
        return Ok(false);
    }
    let options = DecodeOptions::new().threads(threads);
    let (mut x, mut y) = (Buffer::new(PIECE_BYTES)?, Buffer::new(PIECE_BYTES)?);
    let mut at = 0;
    while at < a.bytes() {
        progress.check()?;
        let (x, y) = (x.first(a.bytes() - at), y.first(a.bytes() - at));
        a.read(at, x, &options)?;
        b.read(at, y, &options)?;
        if x != y {
            return Ok(false);
        }
        at += x.len() as u64;
    }
    Ok(true)
}

/// The side on which a comparison failed, with the error.
enum Unreadable {
    Ours(Error),
    Theirs(Error),
}

/// The difference between two tensors.
struct Differing {
    /// The first such element.
    element: u64,
    /// Its bits on both sides.
    ours: String,
    theirs: String,
    /// The number of elements that differ.
    count: u64,
}

impl Differing {
    fn describe(&self, tensor: Tensor) -> String {
        let what = if tensor.dtype().bitsize() < 8 { "byte" } else { "element" };
        let all = tensor.bytes() / element_bytes(tensor) as u64;
        format!(
            "{what} {} is {}, and {} in the original ({} of {} {what}s differ)",
            self.element,
            self.ours,
            self.theirs,
            thousands(self.count),
            thousands(all)
        )
    }
}

/// Returns the bytes of an element; 1 if several share a byte.
fn element_bytes(tensor: Tensor) -> usize {
    (tensor.dtype().bitsize() / 8).max(1)
}

fn elements(tensor: Tensor) -> u64 {
    tensor.shape().iter().product()
}

/// Formats the bits of an element as a number: its bytes are little-endian.
fn bits(element: &[u8]) -> String {
    let digits: String = element.iter().rev().map(|b| format!("{b:02x}")).collect();
    format!("0x{digits}")
}
