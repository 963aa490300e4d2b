//! The version of the library that is running.

use std::ffi::c_char;

/// Returns the version of the library that is running, as major * 10000 + minor * 100 + patch.
/// DF11_VERSION_NUMBER is that of the header that a program was compiled with. Before 1.0 the two
/// must agree in major and minor.
#[unsafe(no_mangle)]
pub extern "C" fn df11_version_number() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 10000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// Returns the version of the library that is running, such as "0.1.0". The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn df11_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
