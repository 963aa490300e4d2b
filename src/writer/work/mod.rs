//! The work: many groups into many files, on many threads, in memory that does not depend on the model.
//!
//! A group is never in memory whole. It is gone through two or three times, a stretch of some 256,000 weights at a time:
//!
//! ```text
//! count    stretches are read and their exponents counted; then the code is known, and with it the size of every
//!          member, so that the file can be laid out, its header written and its room reserved
//! encode   stretches are read again, encoded, and written at their places; plain tensors are copied
//! verify   stretches are read again, decoded from the file, and compared
//! ```
//!
//! The second and third reading find the bytes in the system's cache, which is cheaper than memory that would have to be large
//! enough for any group. Threads take whatever stretch is next, of the oldest file first, and turn to counting the next file's
//! groups where nothing else is left, so that they wait for one another only at the very end. One more thread brings files to the
//! disk and names them, because that is waiting and nothing else.
//!
//! What an earlier run has left is taken over only if it is what this run would write: the header is the same, and every weight
//! and every byte of a plain tensor is compared with the source. So the step "encode" is all that resuming saves. What differs is
//! written again.
//!
//! - `engine`: the threads and what they share; bringing files to the disk;
//! - `group`: the steps of a group;
//! - `file`: the steps of a file;
//! - `lay_out`: what is where in a file;
//! - `tasks`: what threads do next;
//! - `check`: the comparison of what was written.

mod check;
mod engine;
mod file;
mod group;
mod lay_out;
mod tasks;

pub(super) use file::remove;
pub(super) use lay_out::file_bytes;

use super::target::{Ledger, PartialFile};
use crate::error::Result;
use crate::format::Model;
use crate::huffman::encode::Variant;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a plain tensor copied or hashed at a time.
const PIECE: usize = 1 << 20;
/// The memory of a thread in bytes: its buffers, with codes of the worst length, and its share of everything else.
pub(super) const THREAD_BYTES: u64 = 5 << 20;

/// The settings of the work.
pub(super) struct Settings {
    pub threads: usize,
    pub verify: bool,
    pub hashes: bool,
    pub shapes: bool,
    /// A group that is unfit is an error.
    pub strict: bool,
    pub variant: Variant,
}

/// A group to be made, and of which elements of the source.
pub(super) struct GroupSpec {
    pub name: String,
    pub segments: Vec<Segment>,
    /// True if it is a run of its only tensor, by the extension of the format. If one run of a tensor cannot be stored,
    /// the tensor stays plain as a whole.
    pub is_run: bool,
}

/// Elements of a tensor of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub tensor: usize,
    /// The first of them.
    pub first: u64,
    pub count: u64,
}

impl GroupSpec {
    /// Returns its tensors in the order of the weights.
    pub fn tensors(&self) -> impl Iterator<Item = usize> {
        self.segments.iter().map(|segment| segment.tensor)
    }

    /// Returns the tensor that it is a run of, if it is one.
    pub fn run_of(&self) -> Option<usize> {
        self.segments.first().filter(|_| self.is_run).map(|segment| segment.tensor)
    }

    /// Returns the number of its weights.
    pub fn weights(&self) -> u64 {
        self.segments.iter().map(|segment| segment.count).sum()
    }
}

/// A file to be made.
pub(super) struct FileSpec {
    pub path: PathBuf,
    /// Numbers of its groups.
    pub groups: Vec<usize>,
    /// Tensors of the source that are copied.
    pub plain: Vec<usize>,
    /// The metadata of its header.
    pub metadata: BTreeMap<String, String>,
    /// True if it gets its name as soon as it is complete. Otherwise it is brought to the disk, each of its groups is noted in the
    /// ledger, and the caller gives it its name.
    pub named: bool,
    /// True if what an earlier run has left of it is taken over.
    pub resume: bool,
}

/// A group that DF11 cannot hold.
#[derive(Debug, Clone)]
pub(super) struct Unfit {
    pub group: usize,
    /// The first tensor of the source that makes it so.
    pub tensor: usize,
    pub reason: String,
}

/// The result of the work.
pub(super) struct Made {
    /// Groups that DF11 cannot hold. A named file that has no other group is not made; in any other, their tensors are plain.
    pub unfit: Vec<Unfit>,
    /// The number of groups of an earlier run that were taken over.
    pub resumed: u64,
    /// The files that have no name yet: complete, and on the disk.
    pub unnamed: Vec<Arc<PartialFile>>,
}

/// The work to be done: the source, the groups, and the ledger.
pub(super) struct Order<'a> {
    pub model: &'a Model,
    pub groups: &'a [GroupSpec],
    /// `None` if this run has none.
    pub ledger: Option<&'a Ledger>,
    pub settings: &'a Settings,
    pub progress: &'a Progress,
}

/// Makes files.
pub(super) fn run(order: &Order, files: Vec<FileSpec>) -> Result<Made> {
    engine::run(order, files)
}
