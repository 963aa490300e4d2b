//! Whole models written and verified: their bytes, where they are written, and what the file system does meanwhile.

mod attacks;
mod complete;
mod destinations;
mod disk;
mod models;
mod plan_cache;
mod plans;
mod rewrite;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod verify;

#[global_allocator]
static COUNTING: support::alloc::Counting = support::alloc::Counting;
