//! The C ABI: each of its functions called from Rust, what is left in the process, the exported symbols, and the list of promises.

mod abi;
mod call_memory;
mod callbacks;
mod cancel;
mod describe;
mod mistakes;
mod out_of_memory;
mod process;
mod promises;
mod structs;
#[path = "../support/mod.rs"]
mod support;

#[global_allocator]
static COUNTING: support::alloc::Counting = support::alloc::Counting;
