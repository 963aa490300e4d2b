//! The interpreter of PTX: operations, memory, control flow, faults and counts.

mod compiled;
mod control;
mod counts;
mod faults;
mod memory;
mod numbers;
mod parse;
mod support;
