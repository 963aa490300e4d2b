//! Errors: one enum, with one status number and one sentence for each variant.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Calls a macro with the one list of statuses: the variant of [`Status`], its number, and its name in the C ABI. Whatever is
/// made for every status is made from this list, and the header's part of it too (tests/sources/header.rs).
macro_rules! statuses {
    ($each:ident) => {
        $each! {
            /// The call succeeded.
            Ok = 0, DF11_OK;
            /// An argument is NULL or out of range, or it contradicts another one.
            InvalidArgument = 1, DF11_INVALID_ARGUMENT;
            /// There is no group, tensor or preset of that name or number.
            NotFound = 2, DF11_NOT_FOUND;
            /// A buffer holds fewer bytes than the result takes.
            BufferTooSmall = 3, DF11_BUFFER_TOO_SMALL;
            /// An address is not aligned as the function requires.
            Misaligned = 4, DF11_MISALIGNED;
            /// This version does not know an option, or a field of a newer options struct.
            UnsupportedOption = 5, DF11_UNSUPPORTED_OPTION;
            /// The caller cancelled the call.
            Cancelled = 6, DF11_CANCELLED;
            /// The stream is NULL, and the device was not opened to allow that.
            DefaultStream = 7, DF11_DEFAULT_STREAM;
            /// A file or folder of that name exists, and the caller did not ask to overwrite it.
            Exists = 8, DF11_EXISTS;
            /// An earlier run left unfinished work there: resume it, or write elsewhere.
            Unfinished = 9, DF11_UNFINISHED;
            /// Another process is writing there.
            Busy = 10, DF11_BUSY;
            /// The operating system refused to open, read, map or write; native_code is its errno.
            Io = 100, DF11_IO;
            /// The file is no safetensors file, or it is no DF11 model.
            InvalidFormat = 101, DF11_INVALID_FORMAT;
            /// The DF11 model is of a kind that this version cannot decode.
            UnsupportedFormat = 102, DF11_UNSUPPORTED_FORMAT;
            /// Parts of the DF11 model contradict each other.
            Corrupt = 103, DF11_CORRUPT;
            /// There is no usable CUDA driver.
            NoDriver = 200, DF11_NO_DRIVER;
            /// There is no kernel for this device.
            NoKernel = 201, DF11_NO_KERNEL;
            /// A CUDA call failed; native_code is its CUresult.
            Cuda = 202, DF11_CUDA;
            /// The call is not allowed while a stream is being captured.
            Capturing = 203, DF11_CAPTURING;
            /// A handle belongs to another device or context.
            WrongDevice = 204, DF11_WRONG_DEVICE;
            /// The memory that the call needs could not be allocated.
            OutOfMemory = 900, DF11_OUT_OF_MEMORY;
            /// The library has a bug. The message says where; please report it.
            Internal = 999, DF11_INTERNAL;
        }
    };
}
pub(crate) use statuses;

macro_rules! define_status {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:ident;)*) => {
        /// The class of a result, with the number that the C ABI gives it (`df11_status`). Numbers are never reused:
        /// 1 to 99 are the caller's mistakes, 100 to 199 come from files and the operating system, 200 to 299 from the
        /// device, 900 to 999 from the library.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum Status {
            $($(#[$doc])* $variant = $code,)*
        }

        impl Status {
            /// All statuses.
            pub const ALL: [Status; [$($code),*].len()] = [$(Status::$variant),*];

            /// Returns the name in the C ABI without its prefix `DF11_`.
            pub fn name(self) -> &'static str {
                let name = match self {
                    $(Status::$variant => stringify!($name),)*
                };
                &name["DF11_".len()..]
            }
        }
    };
}
statuses!(define_status);

impl Status {
    /// Returns the number in the C ABI.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Returns the status with that number.
    pub fn from_code(code: i32) -> Option<Status> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The place of a fault in a model. Each part may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The file, as the caller named it.
    pub file: Option<String>,
    /// The tensor, or the group, by its full name.
    pub tensor: Option<String>,
    /// The byte in the file.
    pub offset: Option<u64>,
}

impl Place {
    /// Returns a place in the file of that name.
    pub fn file(name: impl Into<String>) -> Self {
        Place { file: Some(name.into()), ..Place::default() }
    }

    /// Returns a place in the file of that path.
    pub(crate) fn of(path: &Path) -> Self {
        Place::file(path.display().to_string())
    }

    /// Adds the tensor.
    pub fn tensor(mut self, name: impl Into<String>) -> Self {
        self.tensor = Some(name.into());
        self
    }

    /// Adds the byte in the file.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Formats the place as ` [tensor … in … at byte …]`, or as nothing if nothing is known.
    fn suffix(&self) -> String {
        if *self == Place::default() { String::new() } else { format!(" [{self}]") }
    }
}

/// Escapes the characters of a text that control a terminal, change the direction of writing or cannot be seen: names come from
/// files that anyone may have written, and two of them should not look alike.
///
/// ```
/// assert_eq!(df11::escape("a\u{1b}[2J\u{200b}b"), r"a\u{1b}[2J\u{200b}b");
/// assert_eq!(df11::escape("层.\"é\""), "层.\"é\"");
/// ```
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Tells whether a character cannot be seen, or does something else than to be seen.
fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_control();
    }
    // Those that Unicode says to ignore where they cannot be shown, and one that is blank, as far as their categories do not tell.
    let ignored = matches!(c,
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}');
    // The standard library knows what is printable: no control or format character, no separator, nothing private or unassigned. The
    // first letter keeps it from escaping an accent for being the first.
    let mut after_a = [0; 5];
    after_a[0] = b'a';
    let bytes = 1 + c.encode_utf8(&mut after_a[1..]).len();
    let printable = std::str::from_utf8(&after_a[..bytes]).is_ok_and(|text| text.escape_debug().nth(2).is_none());
    ignored || !printable
}

/// The action that fails where a link leads nowhere.
const FOLLOW: &str = "follow the link";

/// Returns what to do where an action fails, if there is something.
fn instead_of(action: &str) -> &'static str {
    match action {
        "map" => ": DF11_OPEN_READ, in Rust Model::open(), reads the file instead",
        FOLLOW => {
            ": what it leads to was moved or removed, as by cleaning a cache of downloads, so download the model again"
        }
        _ => "",
    }
}

/// Escapes a text ([`escape`]), and leaves out its middle if it has more than `most` bytes. Names and texts come from
/// files, where an attacker chooses them: all parts of a message must fit a `df11_error`, and none may control a terminal.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let clean = escape(text);
    if clean.len() <= most {
        return clean;
    }
    let middle = '…';
    let half = (most - middle.len_utf8()) / 2;
    let head = (0..=half).rfind(|&i| clean.is_char_boundary(i)).unwrap_or(0);
    let tail = (clean.len() - half..=clean.len()).find(|&i| clean.is_char_boundary(i)).unwrap_or(clean.len());
    format!("{}{middle}{}", &clean[..head], &clean[tail..])
}

/// Formats a path as messages show it.
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

/// An error. Its text names the file, the tensor and the byte wherever they are known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of range or contradicts another.
    #[error("{0}")]
    InvalidArgument(String),
    /// No group or tensor of that name or number.
    #[error("{0}")]
    NotFound(String),
    /// A buffer of the caller is too small.
    #[error("{what} holds {given} bytes, and {needed} are needed")]
    #[non_exhaustive]
    BufferTooSmall {
        /// The buffer.
        what: Cow<'static, str>,
        /// The bytes that the result takes.
        needed: u64,
        /// The bytes that the caller gave.
        given: u64,
    },
    /// An address is not a multiple of what the function asks.
    #[error("{what} is not aligned to {to} bytes")]
    #[non_exhaustive]
    Misaligned {
        /// The address.
        what: Cow<'static, str>,
        /// The alignment in bytes.
        to: usize,
    },
    /// A file exists already and must be kept.
    #[error("'{}' is there already", shorten_path(_0))]
    Exists(PathBuf),
    /// A folder that must be empty is not.
    #[error("the folder '{}' is not empty: it has '{}'", shorten_path(folder), shorten(name, 80))]
    #[non_exhaustive]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// The name of something in it.
        name: String,
    },
    /// The shapes of compressed tensors are needed and not known.
    #[error(
        "the shapes of {count} compressed tensors are not known, such as that of '{}' with {weights} weights",
        shorten(tensor, 80)
    )]
    #[non_exhaustive]
    ShapesUnknown {
        /// The number of these tensors.
        count: u64,
        /// The name of one of them.
        tensor: String,
        /// Its number of weights.
        weights: u64,
    },
    /// An earlier run left unfinished work, and resuming was not requested.
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
    /// The operating system refused.
    #[error("cannot {action} '{}': {source}{}", shorten_path(path), instead_of(action))]
    #[non_exhaustive]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No safetensors at all: a file or folder of another kind. Its status is that of `InvalidFormat`.
    #[error("{reason}{}", place.suffix())]
    #[non_exhaustive]
    NotAModel {
        /// The kind of file that it is, and what helps.
        reason: String,
        /// Where.
        place: Place,
    },
    /// A safetensors file, or a DF11 model, that is not valid.
    #[error("{reason}{}", place.suffix())]
    #[non_exhaustive]
    InvalidFormat {
        /// The fault.
        reason: String,
        /// Where.
        place: Place,
    },
    /// A DF11 model of a kind that cannot be decoded.
    #[error("{reason}{}", place.suffix())]
    #[non_exhaustive]
    UnsupportedFormat {
        /// The property that is not supported.
        reason: String,
        /// Where.
        place: Place,
    },
    /// Parts of the model contradict each other.
    #[error("{reason}{}", place.suffix())]
    #[non_exhaustive]
    Corrupt {
        /// The fault.
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
        /// Everything that was tried, with its result.
        reason: String,
        /// The `CUresult` of the driver that was found, or 0.
        code: i32,
    },
    /// No kernel for this device.
    #[error("no kernel for this device: {reason}")]
    #[non_exhaustive]
    NoKernel {
        /// Everything that was tried, with its result.
        reason: String,
        /// The `CUresult` of the last kernels that were tried, or 0.
        code: i32,
    },
    /// A CUDA call failed. The code is a number because newer drivers have codes that this library does not know.
    #[error("{call} failed: {text} ({code})")]
    #[non_exhaustive]
    Cuda {
        /// The driver's entry point.
        call: &'static str,
        /// Its `CUresult`.
        code: i32,
        /// The driver's name for that code.
        text: String,
    },
    /// Not allowed while a stream is being captured.
    #[error("{reason}")]
    #[non_exhaustive]
    Capturing {
        /// The capture, or the call that was refused.
        reason: String,
        /// The `CUresult` of the call that was refused, or 0.
        code: i32,
    },
    /// A handle of another device or context.
    #[error("{0}")]
    WrongDevice(String),
    /// Memory could not be allocated.
    #[error("out of memory: {bytes} bytes for {what}")]
    #[non_exhaustive]
    OutOfMemory {
        /// The bytes wanted.
        bytes: u64,
        /// Their purpose.
        what: &'static str,
    },
    /// A bug in this library.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl Error {
    /// Returns the class of this error.
    pub fn status(&self) -> Status {
        match self {
            Error::InvalidArgument(_) | Error::ShapesUnknown { .. } => Status::InvalidArgument,
            Error::Exists(_) | Error::NotEmpty { .. } => Status::Exists,
            Error::Unfinished(_) => Status::Unfinished,
            Error::Busy(_) => Status::Busy,
            Error::NotFound(_) => Status::NotFound,
            Error::BufferTooSmall { .. } => Status::BufferTooSmall,
            Error::Misaligned { .. } => Status::Misaligned,
            Error::UnsupportedOption(_) => Status::UnsupportedOption,
            Error::Cancelled => Status::Cancelled,
            Error::Io { .. } => Status::Io,
            Error::NotAModel { .. } | Error::InvalidFormat { .. } => Status::InvalidFormat,
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

    /// Returns the number that the system gave: an `errno`, a `CUresult`, or 0.
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

    /// Returns the error of a file or folder that cannot be opened. A link that leads nowhere is told from a name that is not there.
    pub(crate) fn opening(path: &Path, source: io::Error) -> Self {
        let is_link = || std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_symlink());
        let gone = source.kind() == io::ErrorKind::NotFound && is_link();
        Error::io(if gone { FOLLOW } else { "open" }, path, source)
    }

    /// Turns what is wrong with a file that is not the model into the caller's mistake: it says nothing about the model, so it
    /// must not look as if it did. `what` is the beginning of the sentence.
    pub(crate) fn into_argument(self, what: &str) -> Error {
        match self.status() {
            Status::InvalidFormat | Status::UnsupportedFormat | Status::Corrupt => {
                Error::InvalidArgument(format!("{what}: {self}"))
            }
            _ => self,
        }
    }

    pub(crate) fn not_a_model(place: Place, reason: impl Into<String>) -> Self {
        Error::NotAModel { reason: shorten(&reason.into(), 220), place }
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

/// Makes a buffer at least `len` long and keeps its content. Fails if there is no memory, where the standard library would end
/// the process: for every buffer whose size a file or a caller decides.
pub(crate) fn grow<T: Copy>(buffer: &mut Vec<T>, len: usize, value: T, what: &'static str) -> Result<()> {
    if buffer.len() < len {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        buffer.try_reserve_exact(len - buffer.len()).map_err(|_| Error::OutOfMemory { bytes, what })?;
        buffer.resize(len, value);
    }
    Ok(())
}

/// Makes a table of `N` entries on the heap. It never is on the stack, which a caller may have made small. Fails if there is
/// no memory.
pub(crate) fn boxed<T: Copy, const N: usize>(value: T, what: &'static str) -> Result<Box<[T; N]>> {
    let mut table = Vec::new();
    grow(&mut table, N, value, what)?;
    let Ok(table) = table.into_boxed_slice().try_into() else { unreachable!("it has N entries") };
    Ok(table)
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
        for hidden in [
            "\0",
            "\u{1b}",
            "\u{9b}",
            "\u{7f}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{200b}",
            "\u{200f}",
            "\u{2028}",
            "\u{202e}",
            "\u{2060}",
            "\u{2069}",
            "\u{3164}",
            "\u{feff}",
            "\u{fe0f}",
            "\u{fff9}",
            "\u{a0}",
            "\u{3000}",
            "\u{e000}",
            "\u{378}",
            "\u{e0041}",
            "\u{e0100}",
            "\n",
        ] {
            let text = escape(&format!("a{hidden}b"));
            assert!(text.is_ascii() && text.len() > 3 && text.starts_with("a\\"), "{text}");
        }
        for seen in ["layers.0.mlp", "'a' \"b\" \\c", "é e\u{301} 层 レイヤ हिन्दी عربي 𝄞 😀 …"]
        {
            assert_eq!(escape(seen), seen);
        }
        let place = Place::file("a/b.safetensors").tensor("x.luts").at(7);
        assert_eq!(place.to_string(), "tensor 'x.luts' in 'a/b.safetensors' at byte 7");
        let long = Place::file("f".repeat(9000)).tensor("\n\u{1b}[2J".repeat(900)).at(u64::MAX);
        let text = Error::corrupt(long, "too long").to_string();
        assert_eq!(Error::corrupt(Place::default(), "somewhere").to_string(), "somewhere");
        assert!(text.len() < 300 && text.starts_with("too long [tensor '\\n\\u{1b}"), "{text}");
    }
}
