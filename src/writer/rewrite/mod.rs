//! Models in another form: decompressed ([`decompress`]), packed into other files ([`repack`]), or as images ([`write_images`]).
//!
//! The first two make files whose tensors come from an open model, and write them in the same way:
//!
//! - `copy`: the work, on many threads;
//! - `folder`: a folder, which is marked as unfinished until all of it is there; images go to one, too;
//! - `images`: files that hold what a device decodes, and their index;
//! - `shards`: which tensor goes to which file of a decompressed model, and its index;
//! - `select`: which tensors of a model are decompressed.
//!
//! Nothing of an interrupted run is resumed, because to compare what it has left takes as long as to write it again. A failure
//! leaves nothing, and what a killed process has left is removed by the next one that writes to the same place.

mod copy;
mod decompress;
mod folder;
#[cfg(feature = "cuda")]
mod images;
mod repack;
mod select;
mod shards;

pub use decompress::{DEFAULT_SHARD_BYTES, DecompressOptions, DecompressReport, decompress};
#[cfg(feature = "cuda")]
pub use images::{IMAGE_FILE_ALIGNMENT, ImagesOptions, ImagesReport, write_images};
pub use repack::{RepackOptions, RepackReport, repack};

use crate::error::{Error, Result, shorten_path};
use crate::format::Model;
use crate::writer::target::{Entry, Leftover, PartialFile, check_place};
use copy::{OutFile, Sink};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A single file, which stands alone. The caller gives it its name when all else is done.
struct SingleFile<'a> {
    to: &'a Path,
    made: Mutex<Option<Arc<PartialFile>>>,
}

impl SingleFile<'_> {
    fn new(to: &Path) -> SingleFile<'_> {
        SingleFile { to, made: Mutex::new(None) }
    }

    /// Returns the file, which is on the disk and has no name yet.
    fn made(self) -> Result<Arc<PartialFile>> {
        let made = self.made.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.ok_or_else(|| Error::Internal("a file was not made".into()))
    }
}

impl Sink for SingleFile<'_> {
    fn begin(&self, file: &OutFile) -> Result<PartialFile> {
        PartialFile::create(&Entry::at(self.to)?, file.layout.bytes(), Leftover::Removed)
    }

    fn complete(&self, _file: &OutFile, out: Arc<PartialFile>) -> Result<()> {
        out.sync()?;
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(out);
        Ok(())
    }
}

/// Fails if writing to a destination would do harm. `single` is the file if it is one.
fn check_destination(folder: &Path, single: Option<&Path>, source: &Path, model: &Model) -> Result<()> {
    check_place(folder, single, source, model.files().map(|f| f.file))
}

/// Returns the error of a folder that another process is writing to.
fn busy(folder: &Path) -> Error {
    Error::Busy(format!("another process is writing to '{}'", shorten_path(folder)))
}
