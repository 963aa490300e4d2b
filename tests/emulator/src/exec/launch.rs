//! One launch of a kernel: its shape, and its blocks on threads of the host.

use super::{Counts, Fault, FaultKind};
use crate::memory::{Memory, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The options of a launch; none changes the result of a kernel that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads of the host that run blocks, at least 1. Blocks start in order whatever their number.
    pub threads: usize,
    /// Also look for races on shared memory. Takes about as long again as the rest. Orders made by flags and fences alone are
    /// not understood and reported as races.
    pub races: bool,
    /// The most instructions that a block's warps may issue together.
    pub budget: u64,
    /// Also count by line of the text, see [`Counts::lines`].
    pub profile: bool,
    /// The kernel was launched before the one before it has ended: no thread may write to global memory, or end, before its
    /// `griddepcontrol.wait`.
    pub early: bool,
}

impl Default for Options {
    /// Returns one thread, a search for races, 2^28 instructions a block, no counts by line, not early.
    fn default() -> Options {
        Options { threads: 1, races: true, budget: 1 << 28, profile: false, early: false }
    }
}

/// One launch of a kernel.
pub struct Launch<'a, F> {
    /// The kernel.
    pub function: &'a F,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z; at most 1024 together.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// The parameters' bytes, laid out as the function's `parameters` say.
    pub params: &'a [u8],
    /// The memory that the kernel may touch besides its module's variables.
    pub memory: &'a Memory,
    /// The options by which it runs.
    pub options: Options,
}

/// The shape of a launch, and which of its blocks runs.
pub(crate) struct Geometry {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) at: [u32; 3],
    pub(crate) dynamic_shared: u32,
    pub(crate) total_shared: u32,
}

impl Geometry {
    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Returns the coordinates of a thread by its number.
    pub(crate) fn thread(&self, number: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [number % x, number / x % y, number / x / y]
    }
}

/// What a thread of the host needs to run blocks, one after the other.
pub(crate) trait Worker {
    /// Runs the block at that index to its end.
    fn block(&mut self, at: [u32; 3]) -> Result<(), Box<Fault>>;

    /// Returns what its blocks did.
    fn finish(self) -> Counts;
}

impl<F> Launch<'_, F> {
    /// Checks what can be wrong before any thread runs.
    pub(crate) fn check(&self, kernel: &str, max_threads: Option<u32>, parameter_bytes: u32) -> Result<(), Fault> {
        let threads = self.block.iter().map(|&n| u64::from(n)).product::<u64>();
        let fits = |value: u64, most: u64| (1..=most).contains(&value);
        let what = if !fits(threads, 1024) || self.block[2] > 64 {
            format!("a block of {:?} threads", self.block)
        } else if max_threads.is_some_and(|most| threads > most.into()) {
            format!("a block of {threads} threads; the kernel allows {max_threads:?}")
        } else if !fits(self.grid[0].into(), i32::MAX as u64)
            || !fits(self.grid[1].into(), 65535)
            || !fits(self.grid[2].into(), 65535)
        {
            format!("a grid of {:?} blocks", self.grid)
        } else if self.params.len() < parameter_bytes as usize {
            format!("{} bytes of parameters, {parameter_bytes} are needed", self.params.len())
        } else if self.shared_bytes > 1 << 20 {
            format!("{} bytes of shared memory", self.shared_bytes)
        } else {
            return Ok(());
        };
        Err(Fault {
            kind: FaultKind::Launch,
            kernel: kernel.into(),
            line: 0,
            instruction: String::new(),
            block: [0; 3],
            thread: [0; 3],
            address: None,
            what,
        })
    }

    /// Returns live memory and these ranges, each once, by their addresses.
    pub(crate) fn ranges(&self, more: &[Range]) -> Vec<Range> {
        let mut ranges = self.memory.snapshot().to_vec();
        ranges.extend(more.iter().cloned());
        ranges.sort_by_key(|range| range.start);
        ranges.dedup_by_key(|range| range.start);
        ranges
    }

    /// Returns the shape of the launch at its first block.
    pub(crate) fn geometry(&self, total_shared: u32) -> Geometry {
        let Launch { grid, block, .. } = *self;
        Geometry { grid, block, at: [0; 3], dynamic_shared: self.shared_bytes, total_shared }
    }

    /// Runs every block to its end on the calling thread and its helpers, each with a worker of its own. Returns what was
    /// done, or the first fault by the blocks' order.
    pub(crate) fn blocks<W: Worker>(&self, worker: impl Fn() -> W + Sync) -> Result<Counts, Fault> {
        let [x, y, z] = self.grid.map(u64::from);
        let blocks = x * y * z;
        let next = AtomicU64::new(0);
        // The first block with a fault, and the counts of all that went well.
        let faults: Mutex<Option<(u64, Box<Fault>)>> = Mutex::new(None);
        let counts = Mutex::new(Counts::default());
        let stop = AtomicU64::new(u64::MAX);
        let work = || {
            let mut worker = worker();
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block >= blocks || block > stop.load(Ordering::Relaxed) {
                    break;
                }
                let at = [block % x, block / x % y, block / x / y].map(|index| index as u32);
                if let Err(fault) = worker.block(at) {
                    stop.fetch_min(block, Ordering::Relaxed);
                    let mut first = faults.lock().unwrap();
                    if first.as_ref().is_none_or(|(other, _)| block < *other) {
                        *first = Some((block, fault));
                    }
                    break;
                }
            }
            *counts.lock().unwrap() += &worker.finish();
        };
        let threads = (self.options.threads.max(1) as u64).min(blocks);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        match faults.into_inner().unwrap() {
            Some((_, fault)) => Err(*fault),
            None => Ok(counts.into_inner().unwrap()),
        }
    }
}
