//! Which tensors are compressed together: groups, files and presets. Nothing is read or written here.

mod families;
mod groups;
mod presets;
mod runs;
#[path = "../support/weights.rs"]
mod weights;
