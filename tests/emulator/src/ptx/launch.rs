//! One launch of a kernel, run to its end.

use super::Function;
use super::block::Env;
use super::module::Inner;
use super::warp::Warp;
use crate::exec::{self, Counts, Fault, Worker};

/// One launch of a kernel of a PTX text.
pub type Launch<'a> = exec::Launch<'a, Function>;

/// Runs blocks with warps that launches before it have left, if there are any.
struct Blocks<'a> {
    env: Env<'a>,
    function: &'a Inner,
    warps: Vec<Warp>,
    count: usize,
    budget: u64,
}

impl Worker for Blocks<'_> {
    fn block(&mut self, at: [u32; 3]) -> Result<(), Box<Fault>> {
        self.env.block(&mut self.warps[..self.count], at, self.budget)
    }

    fn finish(mut self) -> Counts {
        self.env.add_lines();
        self.function.idle.lock().unwrap().push(self.warps);
        self.env.counts
    }
}

impl Launch<'_> {
    /// Runs every block to its end on the calling thread and its helpers, and returns what was done, or the first fault by
    /// the blocks' order. Memory keeps what was written before the fault.
    pub fn run(&self) -> Result<Counts, Fault> {
        let function = &self.function.inner;
        self.check(&function.name, self.function.max_threads(), self.function.parameter_bytes())?;
        let ranges = self.ranges(&function.variables.snapshot());
        let total_shared = match self.shared_bytes {
            0 => function.static_shared_bytes,
            dynamic => function.dynamic_base + dynamic,
        };
        self.blocks(|| {
            let geometry = self.geometry(total_shared);
            let count = geometry.threads().div_ceil(32);
            let mut warps = function.idle.lock().unwrap().pop().unwrap_or_default();
            for index in warps.len() as u32..count {
                warps.push(Warp::new(index, &function.code, function.local_bytes));
            }
            let env = Env::new(function, geometry, &ranges, self.params, &self.options);
            Blocks { env, function, warps, count: count as usize, budget: self.options.budget }
        })
    }
}
