//! What a kernel did wrong, said so that the line can be found.

use std::fmt;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The launch itself: too few parameter bytes, no threads, too many threads or blocks.
    Launch,
    /// An access to memory that is not live, or outside shared, local, constant or parameter memory.
    OutOfBounds,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A write to memory that may only be read.
    ReadOnly,
    /// A register was read before anything was written to it.
    UninitialisedRegister,
    /// Bytes of shared or local memory were read before anything was written to them.
    UninitialisedMemory,
    /// A block's barrier that some threads can never reach.
    Barrier,
    /// A warp operation whose mask names lanes that cannot take part, or not the lane that runs it.
    WarpMask,
    /// Two threads accessed the same bytes of shared memory, at least one wrote, and nothing ordered them.
    Race,
    /// A thread of a kernel that was launched early wrote to global memory, or ended, before it had waited for the kernel
    /// before.
    Early,
    /// More instructions than the budget: an endless loop.
    Budget,
    /// `trap`, a branch index outside its table, or another thing that ends a kernel.
    Trap,
}

/// The fault of a kernel, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: String,
    /// The line in the text, PTX or a listing of machine code, from 1; 0 when no instruction is to blame.
    pub line: u32,
    /// The instruction of that line.
    pub instruction: String,
    /// The block's index in the grid.
    pub block: [u32; 3],
    /// The thread's index in its block; for a whole warp or block the first thread concerned.
    pub thread: [u32; 3],
    /// The address, where there is one.
    pub address: Option<u64>,
    /// A description of the fault.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, kernel, line, instruction, block, thread, what, .. } = self;
        write!(f, "{kind:?} in {kernel}")?;
        if *line > 0 {
            write!(f, " line {line} `{instruction}` block {block:?} thread {thread:?}")?;
        }
        write!(f, ": {what}")
    }
}

impl std::error::Error for Fault {}
