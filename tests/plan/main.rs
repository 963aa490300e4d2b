//! Which tensors are compressed together: groups, files and presets. Nothing is read or written here.

mod groups;
mod presets;
mod runs;
