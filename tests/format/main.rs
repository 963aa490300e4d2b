//! The format: what the reference wrote, what must be refused, arbitrary bytes, and files of every size.

mod hostile;
mod kept;
mod properties;
mod quirks;
mod scale;
#[path = "../support/mod.rs"]
mod support;

#[global_allocator]
static COUNTING: support::alloc::Counting = support::alloc::Counting;
