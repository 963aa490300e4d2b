//! A model against its original, tensor by tensor and bit for bit, in pieces: no tensor is ever in memory whole.

use crate::terminal::{Progress, thousands};
use crate::verify::Findings;
use crate::{Failure, interrupt};
use df11::host::{self, DecodeOptions};
use df11::{Model, Status, Tensor};

/// Bytes of each side compared at a time: a multiple of every element's size.
const PIECE_BYTES: usize = 8 << 20;

/// What is compared.
pub struct Comparison<'a> {
    /// The DF11 model.
    pub model: &'a Model,
    /// What it was made from.
    pub original: &'a Model,
    /// Threads to decode with.
    pub threads: usize,
}

/// What came of it, beside the findings.
#[derive(Default)]
pub struct Compared {
    /// Tensors that are equal.
    pub equal: u64,
}

impl<'a> Comparison<'a> {
    /// Bytes to compare, one side counted.
    pub fn bytes(&self) -> u64 {
        self.model.tensors().iter().filter(|t| tensor(self.original, t.name()).is_some()).map(Tensor::bytes).sum()
    }

    /// Both sides, each with what it is called and the other.
    fn sides(&self) -> [(&'static str, &'a Model, &'static str, &'a Model); 2] {
        [("model", self.model, "original", self.original), ("original", self.original, "model", self.model)]
    }
}

/// Compares all tensors. A difference is a finding; that one side lacks a tied `lm_head.weight` is only noted.
pub fn run(
    comparison: &Comparison,
    findings: &mut Findings,
    progress: &Progress,
    quiet: bool,
) -> Result<Compared, Failure> {
    let mut work = Work::new(comparison.threads);
    let mut compared = Compared::default();
    for ours in comparison.model.tensors() {
        let Some(theirs) = tensor(comparison.original, ours.name()) else { continue };
        match work.difference(comparison, ours, theirs, progress)? {
            None => compared.equal += 1,
            Some(difference) => {
                findings.add("DIFFERS", format!("tensor '{}': {difference}", ours.name()), progress)?;
            }
        }
    }
    for (side, have, other, lack) in comparison.sides() {
        for lone in have.tensors().iter().filter(|t| tensor(lack, t.name()).is_none()) {
            match work.tied_to(have, lone)? {
                Some(twin) if !quiet => progress.print(&format!(
                    "note     '{}' is in the {side} only: it is tied, bit for bit equal to '{}'\n",
                    crate::terminal::clean(lone.name()),
                    crate::terminal::clean(twin.name())
                ))?,
                Some(_) => {}
                None => {
                    let text = format!("tensor '{}': the {side} has it and the {other} does not", lone.name());
                    findings.add("DIFFERS", text, progress)?;
                }
            }
        }
    }
    Ok(compared)
}

fn tensor<'m>(model: &'m Model, name: &str) -> Option<&'m Tensor> {
    model.find_tensor(name).map(|i| &model.tensors()[i])
}

/// Whether the last parts of a dotted name are these.
fn ends_in(name: &str, parts: &str) -> bool {
    name.strip_suffix(parts).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// A side of a comparison: a tensor of a model.
#[derive(Clone, Copy)]
struct Side<'a> {
    model: &'a Model,
    tensor: &'a Tensor,
}

/// The buffers, and how to decode.
struct Work {
    options: DecodeOptions,
    /// Of words, so that bf16 in them are aligned.
    a: Vec<u64>,
    b: Vec<u64>,
}

impl Work {
    fn new(threads: usize) -> Self {
        let buffer = || vec![0; PIECE_BYTES / 8];
        Work { options: DecodeOptions { threads, ..DecodeOptions::default() }, a: buffer(), b: buffer() }
    }

    /// What is different between two tensors of one name, in words.
    fn difference(
        &mut self,
        comparison: &Comparison,
        ours: &Tensor,
        theirs: &Tensor,
        progress: &Progress,
    ) -> Result<Option<String>, Failure> {
        let mut found = Vec::new();
        if ours.dtype() != theirs.dtype() {
            found.push(format!("it is {}, and {} in the original", ours.dtype(), theirs.dtype()));
        }
        let shapes = (ours.shape(), theirs.shape());
        if shapes.0 != shapes.1 && ours.shape_known() && theirs.shape_known() {
            found.push(format!("its shape is {:?}, and {:?} in the original", shapes.0, shapes.1));
        }
        let elements = (elements(ours), elements(theirs));
        if elements.0 != elements.1 {
            let (a, b) = (thousands(elements.0), thousands(elements.1));
            found.push(format!("it has {a} elements, and {b} in the original"));
        }
        if ours.dtype() == theirs.dtype() && ours.bytes() == theirs.bytes() {
            let a = Side { model: comparison.model, tensor: ours };
            let b = Side { model: comparison.original, tensor: theirs };
            match self.bits(a, b, progress) {
                Ok(differing) => found.extend(differing.map(|d| d.describe(ours))),
                // The original is what it is compared with: if that cannot be read, nothing is known.
                Err(Unreadable::Theirs(error)) => return Err(Failure::cannot(error)),
                Err(Unreadable::Ours(error)) if error.status() == Status::Corrupt => {
                    found.push(format!("it cannot be decoded: {error}"));
                }
                Err(Unreadable::Ours(error)) => return Err(error.into()),
                Err(Unreadable::Interrupted(failure)) => return Err(failure),
            }
        }
        Ok((!found.is_empty()).then(|| found.join("; ")))
    }

    /// Compares two tensors of one size. All of it is looked at, to tell how much differs.
    fn bits(&mut self, a: Side, b: Side, progress: &Progress) -> Result<Option<Differing>, Unreadable> {
        let width = element_bytes(a.tensor);
        let mut found: Option<Differing> = None;
        let mut done = 0;
        while done < a.tensor.bytes() {
            interrupt::check().map_err(Unreadable::Interrupted)?;
            let len = (a.tensor.bytes() - done).min(PIECE_BYTES as u64) as usize;
            let ours = &mut bytemuck::cast_slice_mut(&mut self.a)[..len];
            let theirs = &mut bytemuck::cast_slice_mut(&mut self.b)[..len];
            host::read_tensor(a.model, a.tensor, done, ours, &self.options).map_err(Unreadable::Ours)?;
            host::read_tensor(b.model, b.tensor, done, theirs, &self.options).map_err(Unreadable::Theirs)?;
            if ours != theirs {
                let pairs = ours.chunks(width).zip(theirs.chunks(width)).enumerate();
                for (i, (x, y)) in pairs.filter(|(_, (x, y))| x != y) {
                    let element = done / width as u64 + i as u64;
                    found
                        .get_or_insert_with(|| Differing { element, ours: bits(x), theirs: bits(y), count: 0 })
                        .count += 1;
                }
            }
            progress.advance(len as u64);
            done += len as u64;
        }
        Ok(found)
    }

    /// The embedding of the same model that a lone `lm_head.weight` is equal to, if that explains why it is alone.
    fn tied_to<'m>(&mut self, model: &'m Model, lone: &'m Tensor) -> Result<Option<&'m Tensor>, Failure> {
        if !ends_in(lone.name(), "lm_head.weight") {
            return Ok(None);
        }
        let alike = |t: &&Tensor| {
            ends_in(t.name(), "embed_tokens.weight") && t.dtype() == lone.dtype() && t.bytes() == lone.bytes()
        };
        for twin in model.tensors().iter().filter(alike) {
            let (a, b) = (Side { model, tensor: lone }, Side { model, tensor: twin });
            match self.bits(a, b, &Progress::none()) {
                Ok(None) => return Ok(Some(twin)),
                Ok(Some(_)) => {}
                Err(Unreadable::Interrupted(failure)) => return Err(failure),
                // What cannot be decoded was found and told already, and is equal to nothing.
                Err(Unreadable::Ours(error) | Unreadable::Theirs(error)) if error.status() == Status::Corrupt => {}
                Err(Unreadable::Ours(error) | Unreadable::Theirs(error)) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

/// Why two tensors could not be compared.
enum Unreadable {
    Ours(df11::Error),
    Theirs(df11::Error),
    Interrupted(Failure),
}

/// Where two tensors differ.
struct Differing {
    /// The first such element.
    element: u64,
    /// Its bits on both sides.
    ours: String,
    theirs: String,
    /// How many elements differ.
    count: u64,
}

impl Differing {
    fn describe(&self, tensor: &Tensor) -> String {
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

/// Bytes of an element; 1 where several share a byte.
fn element_bytes(tensor: &Tensor) -> usize {
    (tensor.dtype().bitsize() / 8).max(1)
}

fn elements(tensor: &Tensor) -> u64 {
    tensor.shape().iter().product()
}

/// The bits of an element as a number: its bytes are little-endian.
fn bits(element: &[u8]) -> String {
    let digits: String = element.iter().rev().map(|b| format!("{b:02x}")).collect();
    format!("0x{digits}")
}
