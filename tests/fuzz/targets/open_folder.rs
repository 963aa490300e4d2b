//! The fuzzer of [`df11_fuzz::open_folder`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| df11_fuzz::open_folder(data));
