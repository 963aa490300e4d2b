//! The fuzzer of [`df11_fuzz::matrix`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| df11_fuzz::matrix(data));
