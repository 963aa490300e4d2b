//! Errors: one enum, one status number and one sentence each. This file knows nothing of files, codes or devices.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What this crate's fallible functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// The class of a result, with the number that the C ABI gives it (`df11_status`). Numbers are never reused:
/// 1 to 99 are the caller's mistakes, 100 to 199 the file's, 200 to 299 the device's, 900 to 999 the library's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Status {
    /// Nothing went wrong.
    Ok = 0,
    /// An argument is NULL, out of range or contradicts another.
    InvalidArgument = 1,
    /// No group, tensor or entry of that name or number.
    NotFound = 2,
    /// The destination holds fewer bytes than the result.
    BufferTooSmall = 3,
    /// An address is not aligned as the function asks.
    Misaligned = 4,
    /// An option, or a field of a newer options struct, that this version does not know.
    UnsupportedOption = 5,
    /// The caller cancelled the operation.
    Cancelled = 6,
    /// The NULL stream, on a device that was not opened to allow it.
    DefaultStream = 7,
    /// A file or folder of that name is there already, and overwriting was not asked for.
    Exists = 8,
    /// An earlier run left unfinished work there, and resuming was not asked for.
    Unfinished = 9,
    /// Another process is writing there.
    Busy = 10,
    /// The operating system could not open, read, map or write.
    Io = 100,
    /// Not a safetensors file, or not a DF11 model.
    InvalidFormat = 101,
    /// A DF11 model of a kind that this version cannot decode.
    UnsupportedFormat = 102,
    /// A DF11 model whose parts contradict each other.
    Corrupt = 103,
    /// No usable CUDA driver.
    NoDriver = 200,
    /// No kernel for this device.
    NoKernel = 201,
    /// A CUDA call failed.
    Cuda = 202,
    /// Not allowed while a stream is being captured.
    Capturing = 203,
    /// A handle of another device or context.
    WrongDevice = 204,
    /// Memory could not be had.
    OutOfMemory = 900,
    /// A bug in this library.
    Internal = 999,
}

impl Status {
    /// Every status, for tables and tests.
    pub const ALL: [Status; 22] = [
        Status::Ok,
        Status::InvalidArgument,
        Status::NotFound,
        Status::BufferTooSmall,
        Status::Misaligned,
        Status::UnsupportedOption,
        Status::Cancelled,
        Status::DefaultStream,
        Status::Exists,
        Status::Unfinished,
        Status::Busy,
        Status::Io,
        Status::InvalidFormat,
        Status::UnsupportedFormat,
        Status::Corrupt,
        Status::NoDriver,
        Status::NoKernel,
        Status::Cuda,
        Status::Capturing,
        Status::WrongDevice,
        Status::OutOfMemory,
        Status::Internal,
    ];

    /// The number in the C ABI.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The status with that number.
    pub fn from_code(code: i32) -> Option<Status> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }

    /// The name in the C ABI, without its prefix `DF11_`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::InvalidArgument => "INVALID_ARGUMENT",
            Status::NotFound => "NOT_FOUND",
            Status::BufferTooSmall => "BUFFER_TOO_SMALL",
            Status::Misaligned => "MISALIGNED",
            Status::UnsupportedOption => "UNSUPPORTED_OPTION",
            Status::Cancelled => "CANCELLED",
            Status::DefaultStream => "DEFAULT_STREAM",
            Status::Exists => "EXISTS",
            Status::Unfinished => "UNFINISHED",
            Status::Busy => "BUSY",
            Status::Io => "IO",
            Status::InvalidFormat => "INVALID_FORMAT",
            Status::UnsupportedFormat => "UNSUPPORTED_FORMAT",
            Status::Corrupt => "CORRUPT",
            Status::NoDriver => "NO_DRIVER",
            Status::NoKernel => "NO_KERNEL",
            Status::Cuda => "CUDA",
            Status::Capturing => "CAPTURING",
            Status::WrongDevice => "WRONG_DEVICE",
            Status::OutOfMemory => "OUT_OF_MEMORY",
            Status::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where in a model something is wrong. Each part may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The file, as the caller would name it.
    pub file: Option<String>,
    /// The tensor, or the group, by its full name.
    pub tensor: Option<String>,
    /// The byte of the file.
    pub offset: Option<u64>,
}

impl Place {
    /// A place in a file of that name.
    pub fn file(name: impl Into<String>) -> Self {
        Place { file: Some(name.into()), ..Place::default() }
    }

    /// A place in the file of that path.
    pub(crate) fn of(path: &Path) -> Self {
        Place::file(path.display().to_string())
    }

    /// The same place, at a tensor.
    pub fn tensor(mut self, name: impl Into<String>) -> Self {
        self.tensor = Some(name.into());
        self
    }

    /// The same place, at a byte of the file.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// As it stands behind a sentence, where anything is known.
    fn behind(&self) -> String {
        if *self == Place::default() { String::new() } else { format!(" [{self}]") }
    }
}

/// Names and texts come from the file, so they are as long and as odd as an attacker likes: control characters are escaped,
/// and the middle is left out, so that all parts of a message fit a `df11_error` and none of them steers a terminal.
/// `most` counts bytes.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let clean: String = text.chars().map(escape).collect();
    if clean.len() <= most {
        return clean;
    }
    let middle = '…';
    let half = (most - middle.len_utf8()) / 2;
    let head = (0..=half).rfind(|&i| clean.is_char_boundary(i)).unwrap_or(0);
    let tail = (clean.len() - half..=clean.len()).find(|&i| clean.is_char_boundary(i)).unwrap_or(clean.len());
    format!("{}{middle}{}", &clean[..head], &clean[tail..])
}

/// A path as messages show it.
pub(crate) fn shorten_path(path: &Path) -> String {
    shorten(&path.display().to_string(), 200)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor '{}'", shorten(tensor, 80))?;
            space = " ";
        }
        if let Some(file) = &self.file {
            write!(f, "{space}in '{}'", shorten(file, 130))?;
            space = " ";
        }
        if let Some(offset) = self.offset {
            write!(f, "{space}at byte {offset}")?;
        }
        Ok(())
    }
}

/// Everything that can go wrong. The text names the file, the tensor and the byte wherever they are known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of range or contradicts another.
    #[error("{0}")]
    InvalidArgument(String),
    /// No group or tensor of that name or number.
    #[error("{0}")]
    NotFound(String),
    /// Memory of the caller's is too small; both in bytes.
    #[error("{what} holds {given} bytes, and {needed} are needed")]
    #[non_exhaustive]
    BufferTooSmall {
        /// Which memory.
        what: Cow<'static, str>,
        /// Bytes that the result takes.
        needed: u64,
        /// Bytes that the caller gave.
        given: u64,
    },
    /// An address is not a multiple of what the function asks.
    #[error("{what} is not aligned to {to} bytes")]
    #[non_exhaustive]
    Misaligned {
        /// Which address.
        what: Cow<'static, str>,
        /// The alignment in bytes.
        to: usize,
    },
    /// A file is there already, and is to be kept.
    #[error("'{}' is there already", shorten_path(_0))]
    Exists(PathBuf),
    /// An earlier run has left something unfinished, and going on with that was not asked for.
    #[error("{0}")]
    Unfinished(String),
    /// Another process is writing there.
    #[error("{0}")]
    Busy(String),
    /// An option that this version does not know.
    #[error("{0}")]
    UnsupportedOption(String),
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The operating system said no.
    #[error("cannot {action} '{}': {source}", shorten_path(path))]
    #[non_exhaustive]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a safetensors file, or not a DF11 model.
    #[error("{reason}{}", place.behind())]
    #[non_exhaustive]
    InvalidFormat {
        /// What is wrong.
        reason: String,
        /// Where.
        place: Place,
    },
    /// A DF11 model of a kind that cannot be decoded.
    #[error("{reason}{}", place.behind())]
    #[non_exhaustive]
    UnsupportedFormat {
        /// What is not supported.
        reason: String,
        /// Where.
        place: Place,
    },
    /// Parts of the model contradict each other.
    #[error("{reason}{}", place.behind())]
    #[non_exhaustive]
    Corrupt {
        /// What is wrong.
        reason: String,
        /// Where.
        place: Place,
    },
    /// The NULL stream, on a device that was not opened to allow it.
    #[error(
        "the stream is NULL: give a stream, or open the device with the default stream allowed (DF11_DEVICE_ALLOW_DEFAULT_STREAM)"
    )]
    DefaultStream,
    /// No usable CUDA driver.
    #[error("no usable CUDA driver: {reason}")]
    #[non_exhaustive]
    NoDriver {
        /// What was tried, and what came of it.
        reason: String,
        /// The `CUresult` of the driver that was found, or 0.
        code: i32,
    },
    /// No kernel for this device.
    #[error("no kernel for this device: {reason}")]
    #[non_exhaustive]
    NoKernel {
        /// What was tried, and what came of it.
        reason: String,
        /// The `CUresult` of the last kernels that were tried, or 0.
        code: i32,
    },
    /// A CUDA call failed. Codes are numbers, for drivers have codes that this library has never heard of.
    #[error("{call} failed: {text} ({code})")]
    #[non_exhaustive]
    Cuda {
        /// The driver's entry point.
        call: &'static str,
        /// Its `CUresult`.
        code: i32,
        /// What the driver calls that code.
        text: String,
    },
    /// Not allowed while a stream is being captured.
    #[error("{reason}")]
    #[non_exhaustive]
    Capturing {
        /// What is being captured, or which call was refused.
        reason: String,
        /// The `CUresult` of the call that was refused, or 0.
        code: i32,
    },
    /// A handle of another device or context.
    #[error("{0}")]
    WrongDevice(String),
    /// Memory could not be had.
    #[error("out of memory: {bytes} bytes for {what}")]
    #[non_exhaustive]
    OutOfMemory {
        /// How much.
        bytes: u64,
        /// For what.
        what: &'static str,
    },
    /// A bug in this library.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl Error {
    /// The class of this error.
    pub fn status(&self) -> Status {
        match self {
            Error::InvalidArgument(_) => Status::InvalidArgument,
            Error::Exists(_) => Status::Exists,
            Error::Unfinished(_) => Status::Unfinished,
            Error::Busy(_) => Status::Busy,
            Error::NotFound(_) => Status::NotFound,
            Error::BufferTooSmall { .. } => Status::BufferTooSmall,
            Error::Misaligned { .. } => Status::Misaligned,
            Error::UnsupportedOption(_) => Status::UnsupportedOption,
            Error::Cancelled => Status::Cancelled,
            Error::Io { .. } => Status::Io,
            Error::InvalidFormat { .. } => Status::InvalidFormat,
            Error::UnsupportedFormat { .. } => Status::UnsupportedFormat,
            Error::Corrupt { .. } => Status::Corrupt,
            Error::DefaultStream => Status::DefaultStream,
            Error::NoDriver { .. } => Status::NoDriver,
            Error::NoKernel { .. } => Status::NoKernel,
            Error::Cuda { .. } => Status::Cuda,
            Error::Capturing { .. } => Status::Capturing,
            Error::WrongDevice(_) => Status::WrongDevice,
            Error::OutOfMemory { .. } => Status::OutOfMemory,
            Error::Internal(_) => Status::Internal,
        }
    }

    /// The number that the system below gave: an `errno`, a `CUresult`, or 0.
    pub fn native_code(&self) -> i32 {
        match self {
            Error::Io { source, .. } => source.raw_os_error().unwrap_or(0),
            Error::NoDriver { code, .. }
            | Error::NoKernel { code, .. }
            | Error::Cuda { code, .. }
            | Error::Capturing { code, .. } => *code,
            _ => 0,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn invalid(place: Place, reason: impl Into<String>) -> Self {
        Error::InvalidFormat { reason: shorten(&reason.into(), 220), place }
    }

    pub(crate) fn unsupported(place: Place, reason: impl Into<String>) -> Self {
        Error::UnsupportedFormat { reason: shorten(&reason.into(), 220), place }
    }

    pub(crate) fn corrupt(place: Place, reason: impl Into<String>) -> Self {
        Error::Corrupt { reason: shorten(&reason.into(), 220), place }
    }
}

/// Makes a buffer at least `len` long, where there is memory; it keeps what it has. For every buffer whose size a file or a
/// caller decides: the standard library's own ways end the process where there is none.
pub(crate) fn grow<T: Copy>(buffer: &mut Vec<T>, len: usize, value: T, what: &'static str) -> Result<()> {
    if buffer.len() < len {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        buffer.try_reserve_exact(len - buffer.len()).map_err(|_| Error::OutOfMemory { bytes, what })?;
        buffer.resize(len, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways_and_names_are_distinct() {
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(status));
            assert_eq!(Status::ALL.iter().filter(|s| s.name() == status.name()).count(), 1);
        }
        assert_eq!(Status::from_code(11), None);
    }

    #[test]
    fn a_place_is_named_whole_but_bounded() {
        let place = Place::file("a/b.safetensors").tensor("x.luts").at(7);
        assert_eq!(place.to_string(), "tensor 'x.luts' in 'a/b.safetensors' at byte 7");
        let long = Place::file("f".repeat(9000)).tensor("\n\u{1b}[2J".repeat(900)).at(u64::MAX);
        let text = Error::corrupt(long, "too long").to_string();
        assert_eq!(Error::corrupt(Place::default(), "somewhere").to_string(), "somewhere");
        assert!(text.len() < 300 && text.starts_with("too long [tensor '\\n\\u{1b}"), "{text}");
    }
}
