//! The fuzzer of [`df11_fuzz::image`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| df11_fuzz::image(data));
