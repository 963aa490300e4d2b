//! The public ways to open a model. Its headers are checked by [`crate::format`]; its codes are walked here on request.

use crate::error::{Error, Result};
use crate::format::{Access, Model, OpenOptions};
use crate::progress::Progress;
use std::path::Path;

impl Model {
    /// Opens a folder with `*.safetensors`, or one such file. A `config.json` is looked for in the folder, or next to the file,
    /// where `NAME.config.json` of a `NAME.safetensors` comes first. Files with names that begin with a dot are left out.
    ///
    /// Headers, tables and positions are read and checked, which takes milliseconds. Weights are read from the files when they
    /// are decoded. A file that changes meanwhile yields an error or other weights, and nothing worse.
    /// [`Model::open_mapped`] maps the files instead.
    ///
    /// # Errors
    ///
    /// `Io`; `InvalidFormat`, `UnsupportedFormat` and `Corrupt` for what is wrong with the files; `OutOfMemory`.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        let progress = Progress::new();
        Self::open_watched(path.as_ref(), options, Access::Read, &progress)?.verified(options, &progress)
    }

    /// Opens like [`Model::open`], with the files mapped into memory: weights are decoded from the system's cache
    /// without a copy, and plain tensors and [`parts`](crate::Group::parts) of groups have their bytes in place.
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    ///
    /// # Safety
    ///
    /// Nobody, in this process or another, writes to the files or cuts them short while the model lives. (Removing or
    /// replacing them by others of the same name is no change.) Bytes that change under a shared slice are undefined
    /// behaviour, and a file that is cut short ends the process by SIGBUS.
    ///
    /// ```compile_fail,E0133
    /// // Safe code cannot map a file.
    /// let model = df11::Model::open_mapped("model", &df11::OpenOptions::new())?;
    /// # Ok::<(), df11::Error>(())
    /// ```
    pub unsafe fn open_mapped(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        let progress = Progress::new();
        Self::open_watched(path.as_ref(), options, Access::Map, &progress)?.verified(options, &progress)
    }

    /// Opens an uncompressed model to compare with: of a folder only the files that its index lists, if it has one, of which
    /// none may be missing, nor any of their tensors; without an index only the file of the usual name, if there is one. The
    /// same weights may be in other files of the folder. (A folder with a `dfloat11_config` is opened as [`Model::open`]
    /// does, because its index lists only a part of it.)
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    pub fn open_original(path: impl AsRef<Path>) -> Result<Model> {
        Self::open_original_watched(path.as_ref(), &Progress::new())
    }

    /// Opens the bytes of one safetensors file.
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static, options: &OpenOptions) -> Result<Model> {
        let progress = Progress::new();
        Self::of_bytes(Box::new(bytes), options, &progress)?.verified(options, &progress)
    }

    /// Walks the codes, if the options ask for that.
    pub(crate) fn verified(self, options: &OpenOptions, progress: &Progress) -> Result<Model> {
        if options.verify {
            self.verify(options.threads, progress)?;
        }
        Ok(self)
    }
}

/// Turns what is wrong with the original into the caller's mistake: it says nothing about the model, so it must not look as
/// if it did.
pub(crate) fn unusable(error: Error) -> Error {
    error.into_argument("the original cannot be used")
}
