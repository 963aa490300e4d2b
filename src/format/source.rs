//! One safetensors file: mapped, read piece by piece, or given in memory.

use super::foreign;
use super::header::{Fault, Header, Info};
use super::reader::Reader;
use crate::error::{Error, Place, Result, grow, shorten};
use crate::progress::Progress;
use memmap2::Mmap;
use safetensors::Dtype;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Bytes of a file of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The number of the file.
    pub(crate) file: usize,
    /// The first byte, from the start of the file.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

/// The safetensors crate's own limit for a header; also ours for an index.
pub(crate) const MOST_HEADER_BYTES: u64 = 100_000_000;

/// The way to the bytes of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read from the file when they are needed.
    Read,
    /// Mapped into memory. Whoever asks for this promises that nobody changes the files, or cuts them short, while they are open.
    Map,
}

enum Bytes {
    Mapped(Mmap),
    Shared(Box<dyn AsRef<[u8]> + Send + Sync>),
    File(Reader),
}

/// An open safetensors file.
pub(crate) struct Source {
    /// The path as the caller gave it.
    pub name: String,
    path: PathBuf,
    len: u64,
    bytes: Bytes,
}

impl Source {
    /// Opens a file.
    pub fn open(path: &Path, access: Access) -> Result<Source> {
        let file = open_regular(path)?;
        let meta = file.metadata().map_err(|e| Error::io("read the size of", path, e))?;
        let len = meta.len();
        let bytes = if access == Access::Map && len > 0 {
            // SAFETY: nobody changes the file while it is mapped: `Access::Map` is that promise, which only unsafe functions
            // (`Model::open_mapped`, the C ABI) make.
            Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?)
        } else {
            Bytes::File(Reader::new(path, file, &meta))
        };
        Ok(Source { name: path.display().to_string(), path: path.to_owned(), len, bytes })
    }

    /// Takes the bytes of a file that is in memory already.
    pub fn memory(bytes: Box<dyn AsRef<[u8]> + Send + Sync>) -> Source {
        let len = (*bytes).as_ref().len() as u64;
        Source { name: "memory".into(), path: "memory".into(), len, bytes: Bytes::Shared(bytes) }
    }

    pub fn place(&self) -> Place {
        Place::file(&self.name)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the bytes of the whole file when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns the bytes of a span of this file in place; `None` where the file is read.
    pub fn slice(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let all: &[u8] = match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Shared(bytes) => (**bytes).as_ref(),
            Bytes::File(_) => return None,
        };
        all.get(offset as usize..(offset + len) as usize)
    }

    /// Copies bytes of the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if let Bytes::File(reader) = &self.bytes {
            return read_exact_at(&*reader.file()?, offset, buffer).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Error::corrupt(self.place().at(offset), "the file has become shorter since it was opened")
                }
                _ => Error::io("read", &self.path, e),
            });
        }
        let bytes = self
            .slice(offset, buffer.len() as u64)
            .ok_or_else(|| Error::Internal(format!("bytes {offset} + {} are outside '{}'", buffer.len(), self.name)))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    /// Asks the system to read bytes of the file ahead, and does not wait. Where it cannot, reading takes as long as it takes.
    pub fn read_ahead(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        if let Bytes::File(reader) = &self.bytes {
            use std::os::fd::AsRawFd;
            let (Ok(offset), Ok(len), Ok(file)) = (offset.try_into(), len.try_into(), reader.file()) else { return };
            // SAFETY: the descriptor is open, and the call accesses no memory of this process.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_WILLNEED) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }

    /// Copies bytes out of the file into a buffer, which grows as it must.
    pub fn read_into<'b>(&self, offset: u64, len: u64, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        let len = len as usize;
        grow(buffer, len, 0, "a part of a file")?;
        self.read_at(offset, &mut buffer[..len])?;
        Ok(&buffer[..len])
    }

    /// Returns bytes of the file: in place if they are in memory, else read into the buffer.
    pub fn bytes<'a>(&'a self, offset: u64, len: u64, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        match self.slice(offset, len) {
            Some(bytes) => Ok(bytes),
            None => self.read_into(offset, len, buffer),
        }
    }

    /// Returns bytes of the file: in place if they are in memory, else read.
    pub fn view(&self, offset: u64, len: u64) -> Result<Cow<'_, [u8]>> {
        if let Some(bytes) = self.slice(offset, len) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut buffer = Vec::new();
        self.read_into(offset, len, &mut buffer)?;
        Ok(Cow::Owned(buffer))
    }

    /// Returns the text of the header: in place if it is in memory, else read into the buffer, piece by piece.
    fn header_text<'a>(&'a self, size: u64, buffer: &'a mut Vec<u8>, progress: &Progress) -> Result<&'a [u8]> {
        const PIECE: usize = 4 << 20;
        if let Some(text) = self.slice(8, size) {
            return Ok(text);
        }
        grow(buffer, size as usize, 0, "a file's header")?;
        let mut at = 8;
        for piece in buffer[..size as usize].chunks_mut(PIECE) {
            progress.check()?;
            self.read_at(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(&buffer[..size as usize])
    }

    /// Reads and checks the header: each tensor with its type, shape and bytes, in the order of the file.
    pub fn header(&self, number: usize, progress: &Progress) -> Result<Contents> {
        self.read_header(number, true, progress)
    }

    /// Does what [`Source::header`] does for a file of which no more than the header may be there.
    pub fn header_alone(&self, number: usize, progress: &Progress) -> Result<Contents> {
        self.read_header(number, false, progress)
    }

    fn read_header(&self, number: usize, whole: bool, progress: &Progress) -> Result<Contents> {
        let mut head = [0; foreign::HEAD_BYTES];
        let head = &mut head[..self.len.min(foreign::HEAD_BYTES as u64) as usize];
        self.read_at(0, head)?;
        let Some((size, rest)) = head.split_first_chunk() else {
            let reason = match self.len {
                0 => "the file is empty: its download has not begun, or its disk was full".into(),
                len => format!("not a safetensors file: {len} bytes are too few for a header"),
            };
            return Err(Error::not_a_model(self.place(), reason));
        };
        let size = u64::from_le_bytes(*size);
        let rest = rest.trim_ascii_start();
        let begins = rest.is_empty() || rest.starts_with(b"{");
        let refuse = |place, reason| match foreign::kind(head) {
            Some(kind) if !begins => Error::not_a_model(self.place(), kind),
            None if !begins && size > self.len - 8 => {
                Error::not_a_model(self.place(), "not a safetensors file: it does not begin with a header")
            }
            _ => Error::invalid(place, reason),
        };
        if size > self.len - 8 {
            let has = self.len;
            let reason =
                format!("not a whole safetensors file: the header should have {size} bytes, and the file has {has}");
            return Err(refuse(self.place(), reason));
        }
        if size > MOST_HEADER_BYTES {
            let reason = format!(
                "the header has {size} bytes, and {MOST_HEADER_BYTES} are the most that the safetensors package and this \
                 library read: write the model to several files"
            );
            return Err(refuse(self.place(), reason));
        }
        let mut buffer = Vec::new();
        let header =
            Header::parse(self.header_text(size, &mut buffer, progress)?, progress).map_err(|fault| match fault {
                Fault::Cancelled => Error::Cancelled,
                Fault::Invalid(reason, tensor) => {
                    let mut place = self.place().at(8);
                    place.tensor = tensor;
                    refuse(place, format!("the safetensors header is not valid: {reason}"))
                }
            })?;
        let start = 8 + size;
        // The header may describe more than 64 bits can count.
        if whole && header.data_bytes.checked_add(start) != Some(self.len) {
            let reason = format!(
                "the file has {} bytes, but its header describes {start} + {}: it is {}",
                self.len,
                header.data_bytes,
                if self.len - start < header.data_bytes { "cut short" } else { "too long" }
            );
            return Err(Error::invalid(self.place(), reason));
        }
        let stored = |(name, info): (String, Info)| {
            let (from, to) = info.offsets;
            let span = Span { file: number, offset: start + from, len: to - from };
            (name, Stored { dtype: info.dtype, shape: info.shape, span })
        };
        let [shapes, hashes, groups, index, luts] = header.kept;
        let stamps = [("df11pack_index", index), ("df11pack_luts", luts)];
        let variant = stamps.into_iter().find_map(|(key, value)| Some(format!("{key} = {}", shorten(&value?, 20))));
        Ok(Contents { tensors: header.tensors.into_iter().map(stored).collect(), shapes, hashes, groups, variant })
    }

    /// Reads all metadata of the header, which was read and checked before.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let mut size = [0; 8];
        self.read_at(0, &mut size)?;
        let size = u64::from_le_bytes(size);
        if size > MOST_HEADER_BYTES || size > self.len - 8 {
            return Err(Error::corrupt(self.place(), "the header has changed since the file was opened"));
        }
        let text = self.view(8, size)?;
        let invalid = |e| Error::invalid(self.place().at(8), format!("the safetensors header is not valid: {e}"));
        let entries: BTreeMap<String, &RawValue> = serde_json::from_slice(&text).map_err(invalid)?;
        let metadata = entries.get("__metadata__").map(|raw| serde_json::from_str(raw.get()).map_err(invalid));
        Ok(metadata.transpose()?.unwrap_or_default())
    }
}

/// A stored tensor: its type, its shape and its place.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub dtype: Dtype,
    pub shape: Box<[u64]>,
    pub span: Span,
}

/// The content of a file's header.
pub(crate) struct Contents {
    /// The tensors in the order of their bytes.
    pub tensors: Vec<(String, Stored)>,
    /// The text under [`SHAPES_KEY`](super::SHAPES_KEY).
    pub shapes: Option<String>,
    /// The text under [`HASHES_KEY`](super::HASHES_KEY).
    pub hashes: Option<String>,
    /// The text under [`GROUPS_KEY`](super::GROUPS_KEY).
    pub groups: Option<String>,
    /// The stamp of df11pack's variants of the format.
    pub variant: Option<String>,
}

/// Opens a regular file (links are followed). Anything else is refused: before it is opened, because opening a device may do
/// something, and after that, because something else may have taken its place meanwhile. Opening never waits, as it does for a pipe.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let fail = |e| Error::opening(path, e);
    let other = || fail(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(other());
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_file() { Ok(file) } else { Err(other()) }
}

/// Reads bytes of a file from its byte `offset` on, wherever its cursor is.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Reads bytes of a file from its byte `offset` on. Moves its cursor.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        offset += n as u64;
        buffer = &mut buffer[n..];
    }
    Ok(())
}
