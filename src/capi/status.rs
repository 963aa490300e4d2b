//! Statuses and errors.

use crate::error::{Status, statuses};
use std::ffi::c_char;
use std::mem::offset_of;

/// The result of a call. 0 is success. 1 to 99 are the caller's mistakes, 100 to 199 come from
/// files and the operating system, 200 to 299 from the device, 900 to 999 from the library.
/// Numbers are never reused. Newer versions may return new ones: treat an unknown status by its
/// range. df11_status_name() gives the name of each.
pub type df11_status = i32;

// The header's constants are made from the same list (tests/sources/header.rs).
macro_rules! constants {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:ident;)*) => {
        $($(#[$doc])* pub const $name: df11_status = $code;)*

        fn name_of(status: Status) -> &'static str {
            match status {
                $(Status::$variant => concat!(stringify!($name), "\0"),)*
            }
        }
    };
}
statuses!(constants);

/// The error of a call, in memory that you provide: 512 bytes, a layout that never changes. Every
/// call that takes one writes it; after success it holds DF11_OK and an empty message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_error {
    /// The status that the call returned.
    pub status: df11_status,
    /// The number that the system below gave: an errno, a CUresult, or 0.
    pub native_code: i32,
    /// One sentence in UTF-8 that ends in a zero byte. It names the file, the tensor and the byte
    /// in the file where they are known. Text that does not fit is cut between characters.
    pub message: [c_char; 504],
}

const _: () = assert!(size_of::<df11_error>() == 512 && align_of::<df11_error>() == 4);
const _: () = assert!(offset_of!(df11_error, native_code) == 4 && offset_of!(df11_error, message) == 8);

/// Returns the name of a status in capitals without its prefix, such as "CORRUPT", or "UNKNOWN" for
/// a number that this version does not have. The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn df11_status_name(status: df11_status) -> *const c_char {
    let name = Status::from_code(status).map_or("DF11_UNKNOWN\0", name_of);
    name["DF11_".len()..].as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn names_are_those_of_the_statuses() {
        for status in Status::ALL {
            // SAFETY: a static text.
            let name = unsafe { CStr::from_ptr(df11_status_name(status.code())) };
            assert_eq!(name.to_str().unwrap(), status.name());
        }
        // SAFETY: a static text.
        assert_eq!(unsafe { CStr::from_ptr(df11_status_name(12345)) }, c"UNKNOWN");
        assert_eq!((DF11_OK, DF11_BUSY, DF11_INTERNAL), (0, 10, 999));
    }
}
