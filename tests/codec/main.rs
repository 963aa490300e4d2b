//! Codes: encoding, and the walk that verifies; golden models by every decoder. The decoders themselves are in `tests/decode`.

mod encode;
mod golden;
mod matrix;
mod naive_encoder;
#[path = "../support/mod.rs"]
mod support;
mod walk;
