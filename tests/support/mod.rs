//! Shared by the tests.
#![allow(dead_code)] // each test takes the part that it needs

#[cfg(target_os = "linux")]
pub mod abi;
pub mod alloc;
pub mod alone;
pub mod check;
pub mod encoder;
#[cfg(target_os = "linux")]
pub mod engine;
pub mod files;
pub mod golden;
#[cfg(unix)]
pub mod guarded;
#[cfg(target_os = "linux")]
pub mod hollow;
pub mod mutate;
#[cfg(target_os = "linux")]
pub mod programs;
pub mod sparse;
#[cfg(target_os = "linux")]
pub mod target;
#[cfg(target_os = "linux")]
pub mod traffic;
pub mod weights;
