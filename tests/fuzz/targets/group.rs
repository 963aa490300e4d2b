//! The fuzzer of [`df11_fuzz::group`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| df11_fuzz::group(data));
