//! Shared by the tests.
pub mod encoder;
pub mod golden;
pub mod weights;
