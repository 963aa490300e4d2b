//! Images, devices and kernels, on the emulated CUDA driver and, in `simt`, as C++.

mod contexts;
mod counts;
#[cfg(feature = "cudarc")]
mod cudarc_engine;
mod decode;
mod driver;
mod early;
mod errors;
mod groups;
mod hostile;
mod hot;
mod image;
mod image_files;
mod image_memory;
mod linear;
mod machine_code;
mod multiply;
mod ranges;
mod shards;
mod simt;
#[path = "../support/mod.rs"]
mod support;
mod uploads;

#[global_allocator]
static COUNTING: support::alloc::Counting = support::alloc::Counting;
