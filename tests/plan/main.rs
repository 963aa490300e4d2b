//! Which tensors are compressed together: groups, files and presets; and what is said of a model before it is compressed.

mod cache;
mod groups;
mod model;
mod presets;
#[path = "../support/mod.rs"]
mod support;
