//! What a stream can be asked to do, and doing it. When it is done is decided in `queue`.

use std::sync::Arc;

use super::codes::*;
use super::report::Record;
use super::state::State;
use crate::code::Function;
use crate::exec::{FaultKind, Launch, Options};
use crate::memory::{self, Kind, Memory, Range};

/// One thing to do. Cheap to copy: graphs keep it and queue a copy at each launch.
#[derive(Clone)]
pub enum Work {
    /// Nothing; it only waits for others.
    Join,
    /// A kernel.
    Kernel(Arc<KernelWork>),
    /// A copy between two ends.
    Copy { to: End, from: End, bytes: u64 },
    /// Bytes that were taken at the call.
    Write { to: u64, data: Arc<[u8]> },
    /// `count` values of `width` bytes (1, 2 or 4).
    Set { to: u64, value: u32, width: u32, count: u64 },
    /// A host function.
    Host { function: usize, user: usize },
    /// An event.
    Record { event: usize },
    /// The end of an allocation.
    Free { address: u64 },
}

/// One end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Memory that the driver knows; looked up again when the copy runs.
    Known(u64),
    /// The caller's own memory.
    Pageable(u64),
}

/// A launch: everything is copied at the call.
pub struct KernelWork {
    pub context: usize,
    pub module: usize,
    pub function: Function,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: Vec<u8>,
    /// It may start before the kernel before it in the stream has ended.
    pub early: bool,
    /// The stream as the caller named it; for the record.
    pub stream: usize,
}

/// The effect of an operation, to be noted.
pub enum Done {
    Nothing,
    Recorded(usize),
    Freed(u64),
    Ran(Box<Record>),
}

/// Work with all that it touches, so that it can run without the lock.
pub enum Job {
    Note(Done),
    Kernel(Arc<KernelWork>, Arc<Memory>, Options),
    Copy { to: u64, from: u64, bytes: u64, held: [Option<Range>; 2] },
    Write { to: u64, data: Arc<[u8]>, _held: Option<Range> },
    Set { to: u64, value: u32, width: u32, count: u64, held: Option<Range> },
}

/// A failure while work runs: what the context returns from then on, and what happened.
type Failure = (i32, String);

impl Work {
    /// Takes what the work needs out of the state; a failure if its memory or module does not exist any more.
    pub fn prepare(self, state: &State, context: usize) -> Result<Job, Failure> {
        Ok(match self {
            Work::Join => Job::Note(Done::Nothing),
            Work::Record { event } => Job::Note(Done::Recorded(event)),
            Work::Free { address } => Job::Note(Done::Freed(address)),
            Work::Host { .. } => unreachable!("host functions have threads of their own"),
            Work::Kernel(kernel) => {
                if !state.modules.contains_key(&kernel.module) {
                    let text = format!("kernel {} runs after its module was unloaded", kernel.function.name());
                    return Err((ILLEGAL_ADDRESS, text));
                }
                let Some(owner) = state.contexts.get(&kernel.context).filter(|context| context.alive) else {
                    let text = format!("kernel {} runs after its context was destroyed", kernel.function.name());
                    return Err((CONTEXT_IS_DESTROYED, text));
                };
                Job::Kernel(kernel, owner.memory.clone(), state.config.options.clone())
            }
            Work::Copy { to, from, bytes } => {
                let (to, a) = hold(state, context, to, bytes, "writes")?;
                let (from, b) = hold(state, context, from, bytes, "reads")?;
                Job::Copy { to, from, bytes, held: [a, b] }
            }
            Work::Write { to, data } => {
                let (to, _held) = hold(state, context, End::Known(to), data.len() as u64, "writes")?;
                Job::Write { to, data, _held }
            }
            Work::Set { to, value, width, count } => {
                let (to, held) = hold(state, context, End::Known(to), count * u64::from(width), "writes")?;
                Job::Set { to, value, width, count, held }
            }
        })
    }

    /// Returns its type, as `cuGraphNodeGetType` gives it.
    pub fn node_type(&self) -> i32 {
        match self {
            Work::Kernel(_) => 0,
            Work::Copy { .. } | Work::Write { .. } => 1,
            Work::Set { .. } => 2,
            Work::Host { .. } => 3,
            Work::Join => 5,
            Work::Record { .. } => 7,
            Work::Free { .. } => 11,
        }
    }
}

/// Returns where an end of a copy is now, and what keeps it alive.
fn hold(state: &State, context: usize, end: End, bytes: u64, verb: &str) -> Result<(u64, Option<Range>), Failure> {
    let address = match end {
        End::Pageable(address) => return Ok((address, None)),
        End::Known(address) => address,
    };
    let Some((_, allocation)) = state.find(address, bytes) else {
        let text = format!("a copy or memset {verb} {bytes} bytes at {address:#x}, which were freed before it ran");
        return Err((ILLEGAL_ADDRESS, text));
    };
    let range = match allocation.kind {
        Kind::HostPinned => state.pinned.range_of(address),
        _ => {
            let owner = if allocation.context == 0 { context } else { allocation.context };
            state.contexts.get(&owner).and_then(|owner| owner.memory.range_of(address))
        }
    };
    Ok((address, range))
}

impl Job {
    /// Does it. The lock is not held.
    pub fn run(self) -> Result<Done, Failure> {
        match self {
            Job::Note(done) => return Ok(done),
            Job::Kernel(kernel, memory, options) => return run_kernel(&kernel, &memory, options),
            Job::Copy { to, from, bytes, held: [target, source] } => {
                // SAFETY: both ends were checked against what is allocated, and are held; a pageable end is valid by
                // the contract of the call that queued it.
                unsafe { memory::copy(to, from, bytes, target.as_ref(), source.as_ref()) }
            }
            Job::Write { to, data, .. } => {
                // SAFETY: the target was checked against what is allocated, and is held.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, data.len()) }
            }
            Job::Set { to, value: 0, width, count, held } => {
                // SAFETY: the whole target was checked against what is allocated, and is held.
                unsafe { memory::clear(to, count * u64::from(width), held.as_ref()) }
            }
            Job::Set { to, value, width, count, .. } => {
                let bytes = value.to_le_bytes();
                for i in 0..count * u64::from(width) {
                    // SAFETY: the whole target was checked against what is allocated, and is held.
                    unsafe { ((to + i) as *mut u8).write(bytes[(i % u64::from(width)) as usize]) }
                }
            }
        }
        Ok(Done::Nothing)
    }
}

fn run_kernel(kernel: &KernelWork, memory: &Memory, options: Options) -> Result<Done, Failure> {
    let launch = Launch {
        function: &kernel.function,
        grid: kernel.grid,
        block: kernel.block,
        shared_bytes: kernel.shared_bytes,
        params: &kernel.params,
        memory,
        options: Options { early: kernel.early, ..options },
    };
    let counts = launch.run().map_err(|fault| (code(fault.kind), fault.to_string()))?;
    Ok(Done::Ran(Box::new(Record {
        kernel: kernel.function.name().into(),
        grid: kernel.grid,
        block: kernel.block,
        shared_bytes: kernel.shared_bytes,
        stream: kernel.stream,
        early: kernel.early,
        counts,
    })))
}

/// Returns the code that a driver gives for such a fault; for what no device would notice, LAUNCH_FAILED.
fn code(kind: FaultKind) -> i32 {
    match kind {
        FaultKind::OutOfBounds | FaultKind::ReadOnly => ILLEGAL_ADDRESS,
        FaultKind::Misaligned => MISALIGNED_ADDRESS,
        FaultKind::WarpMask => ILLEGAL_INSTRUCTION,
        FaultKind::Budget | FaultKind::Barrier => LAUNCH_TIMEOUT,
        FaultKind::Launch
        | FaultKind::UninitialisedRegister
        | FaultKind::UninitialisedMemory
        | FaultKind::Race
        | FaultKind::Early
        | FaultKind::Trap => LAUNCH_FAILED,
    }
}
