//! A launch and its blocks: their warps by turns, their barriers, what instructions read, and how faults are told.

use super::ir::{Ins, Place, Slot, Source, TRUE, Test, UNIFORM_BIT, ZERO};
use super::module::{Function, Inner};
use super::run::{Stop, run};
use super::warp::{Held, Warp};
use crate::exec::{self, Banks, Counts, Fault, FaultKind, Geometry, LineCounts, Options, Races, Worker, ones};
use crate::memory::Range;

/// Instructions that a warp issues before another has its turn, so that warps which wait for each other get on.
const TURN: u64 = 1 << 18;
/// A block's barriers.
const BARRIERS: usize = 16;
/// What the driver's descriptor of global memory is here: a number to be recognised by.
pub(super) const DESCRIPTOR: u64 = 0xdf11_0000_de5c_0000;

/// One launch of a kernel of a cubin.
pub type Launch<'a> = exec::Launch<'a, Function>;

impl Launch<'_> {
    /// Runs every block to its end on the calling thread and its helpers, and returns what was done, or the first fault by
    /// the blocks' order. Memory keeps what was written before the fault.
    pub fn run(&self) -> Result<Counts, Fault> {
        let function = &self.function.inner;
        self.check(&function.name, self.function.max_threads(), self.function.parameter_bytes())?;
        let ranges = self.ranges(&[]);
        let bank = Bank::new(self);
        self.blocks(|| {
            let geometry = self.geometry(function.kernel.shared + self.shared_bytes);
            let count = geometry.threads().div_ceil(32);
            let mut warps = function.idle.lock().unwrap().pop().unwrap_or_default();
            for index in warps.len() as u32..count {
                warps.push(Warp::new(index, function.kernel.registers, function.kernel.stack));
            }
            let env = Env::new(function, geometry, &ranges, &bank, &self.options);
            Blocks { env, warps, count: count as usize, budget: self.options.budget }
        })
    }
}

/// Runs blocks with warps that launches before it have left, if there are any.
struct Blocks<'a> {
    env: Env<'a>,
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
        self.env.function.idle.lock().unwrap().push(self.warps);
        self.env.counts
    }
}

/// Bytes that parameters may take. Compilers read ahead in them, and do not use what is behind the kernel's own.
const PARAMETER_ROOM: u32 = 4096;

/// Constant bank 0: what the driver puts there, and the parameters.
struct Bank {
    bytes: Vec<u8>,
    /// The bytes whose meaning is known.
    known: Vec<bool>,
}

impl Bank {
    fn new(launch: &Launch) -> Bank {
        let function = &launch.function.inner;
        let layout = function.layout;
        let size = (layout.parameters + PARAMETER_ROOM) as usize;
        let mut bank = Bank { bytes: vec![0x5c; size], known: vec![false; size] };
        bank.known[layout.parameters as usize..].fill(true);
        let mut put = |at: u32, bytes: &[u8]| {
            let place = at as usize..at as usize + bytes.len();
            bank.bytes[place.clone()].copy_from_slice(bytes);
            bank.known[place].fill(true);
        };
        let words = |words: [u32; 3]| words.map(u32::to_le_bytes).concat();
        put(layout.block_size, &words(launch.block));
        put(layout.grid_size, &words(launch.grid));
        put(layout.stack, &function.kernel.stack.to_le_bytes());
        if let Some(at) = layout.descriptor {
            put(at, &DESCRIPTOR.to_le_bytes());
        }
        put(layout.parameters, &launch.params[..launch.function.parameter_bytes() as usize]);
        bank
    }
}

/// One of a block's barriers.
#[derive(Clone, Default)]
struct Barrier {
    /// Counts the times that it opened.
    generation: u64,
    expected: u32,
    warps: Vec<usize>,
}

/// The state that the warps of a block share, with their counts.
pub(super) struct Env<'a> {
    pub(super) function: &'a Inner,
    pub(super) geometry: Geometry,
    /// Live memory in the order of addresses, and for every instruction the range that it last touched.
    pub(super) ranges: &'a [Range],
    pub(super) sites: Vec<u32>,
    bank: &'a Bank,
    pub(super) shared: Vec<u8>,
    pub(super) shared_written: Vec<bool>,
    pub(super) races: Option<Races>,
    pub(super) banks: Banks,
    pub(super) counts: Counts,
    /// Counts by instruction, where they are wanted.
    pub(super) profile: Option<Vec<LineCounts>>,
    barriers: Vec<Barrier>,
}

impl<'a> Env<'a> {
    fn new(function: &'a Inner, geometry: Geometry, ranges: &'a [Range], bank: &'a Bank, options: &Options) -> Env<'a> {
        let shared = geometry.total_shared as usize;
        let warps = geometry.threads().div_ceil(32) as usize;
        Env {
            function,
            ranges,
            sites: vec![0; function.code.len()],
            bank,
            shared: vec![0; shared],
            shared_written: vec![false; shared],
            races: options.races.then(|| Races::new(shared, warps)),
            banks: Banks::default(),
            counts: Counts::default(),
            profile: options.profile.then(|| vec![LineCounts::default(); function.code.len()]),
            barriers: vec![Barrier::default(); BARRIERS],
            geometry,
        }
    }

    /// Runs the block at that index to its end.
    fn block(&mut self, warps: &mut [Warp], at: [u32; 3], budget: u64) -> Result<(), Box<Fault>> {
        self.geometry.at = at;
        self.shared_written.fill(false);
        self.barriers.fill(Barrier::default());
        if let Some(races) = &mut self.races {
            races.begin();
        }
        let threads = self.geometry.threads();
        warps.iter_mut().for_each(|warp| warp.begin(threads));
        let end = self.counts.warp_issues.saturating_add(budget);
        let mut left = warps.len();
        while left > 0 {
            let mut ran = false;
            for warp in warps.iter_mut().filter(|warp| warp.live != 0) {
                if let Some(held) = warp.held {
                    if self.barriers[held.barrier].generation == held.generation {
                        continue;
                    }
                    warp.open();
                }
                ran = true;
                let turn = TURN.min(end - self.counts.warp_issues);
                match run(warp, self, turn)? {
                    Stop::Exited => left -= 1,
                    Stop::Held => {}
                    Stop::Turn if self.counts.warp_issues >= end => {
                        let what = format!("the block issued {budget} instructions and has not ended");
                        let group = *warp.groups.last().expect("it runs");
                        return Err(self.fault(warp, group.pc, group.lanes, FaultKind::Budget, None, what));
                    }
                    Stop::Turn => {}
                }
            }
            if !ran {
                return Err(self.deadlock(warps));
            }
        }
        self.counts.blocks += 1;
        Ok(())
    }

    /// Puts the counts by instruction into those by line.
    fn add_lines(&mut self) {
        let Some(profile) = &mut self.profile else { return };
        for (ins, counts) in self.function.code.iter().zip(profile).filter(|(_, counts)| counts.issues > 0) {
            *self.counts.lines.entry(ins.line).or_default() += *counts;
        }
    }

    /// Brings a warp to a barrier when all of its lanes are there: as a whole, or not at all.
    pub(super) fn arrive(&mut self, warp: &mut Warp) -> Result<(), Box<Fault>> {
        let lanes = warp.at_barrier;
        let pc = warp.barrier_pc[lanes.trailing_zeros() as usize];
        let exited = warp.born & !warp.live;
        let elsewhere = ones(lanes).filter(|&lane| warp.barrier_pc[lane] != pc).fold(0, |mask, lane| mask | 1 << lane);
        let ins = &self.function.code[pc as usize];
        let number = |at: usize| self.one(warp, pc, &ins.src[at], lanes);
        let (at, expected) = (number(0)? as usize, number(1)?);
        let all = 32 * self.geometry.threads().div_ceil(32);
        let expected = if expected == 0 { all } else { expected };
        let wrong = if exited != 0 {
            Some(format!("lanes {exited:#010x} of the warp have exited and will never come to the barrier"))
        } else if elsewhere != 0 {
            Some(format!("lanes {elsewhere:#010x} of the warp are at another barrier"))
        } else if at >= BARRIERS {
            Some(format!("there is no barrier {at}"))
        } else if expected % 32 != 0 || expected > all {
            Some(format!("a barrier of {expected} threads in a block of {all}"))
        } else if !self.barriers[at].warps.is_empty() && self.barriers[at].expected != expected {
            Some(format!("barrier {at} waits for {} threads, not {expected}", self.barriers[at].expected))
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(self.fault(warp, pc, lanes, FaultKind::Barrier, None, what));
        }
        let barrier = &mut self.barriers[at];
        warp.held = Some(Held { barrier: at, generation: barrier.generation });
        barrier.expected = expected;
        barrier.warps.push(warp.index as usize);
        if 32 * barrier.warps.len() as u32 == expected {
            barrier.generation += 1;
            if let Some(races) = &mut self.races {
                races.block_sync(&barrier.warps);
            }
            barrier.warps.clear();
        }
        Ok(())
    }

    /// Returns the fault of a block of which every warp waits at a barrier that will not open.
    fn deadlock(&self, warps: &[Warp]) -> Box<Fault> {
        let exited: Vec<_> = warps.iter().filter(|warp| warp.live == 0).map(|warp| warp.index).collect();
        let warp = warps.iter().find(|warp| warp.live != 0).expect("some warp has not ended");
        let at = warp.held.map_or(0, |held| held.barrier);
        let Barrier { expected, warps: came, .. } = &self.barriers[at];
        let pc = warp.barrier_pc[warp.at_barrier.trailing_zeros() as usize & 31];
        let what = format!(
            "barrier {at} waits for {expected} threads, warps {came:?} have come, and nobody else can: warps {exited:?} have \
             exited"
        );
        self.fault(warp, pc, warp.at_barrier, FaultKind::Barrier, None, what)
    }

    /// Returns a fault of the first of these lanes.
    #[cold]
    pub(super) fn fault(
        &self,
        warp: &Warp,
        pc: u32,
        lanes: u32,
        kind: FaultKind,
        address: Option<u64>,
        what: String,
    ) -> Box<Fault> {
        Box::new(Fault {
            kind,
            kernel: self.function.name.clone(),
            line: self.function.code[pc as usize].line,
            instruction: self.function.texts[pc as usize].clone(),
            block: self.geometry.at,
            thread: self.geometry.thread(32 * warp.index + (lanes.trailing_zeros() & 31)),
            address,
            what,
        })
    }

    /// Lanes that lack a register are a fault.
    pub(super) fn defined(&self, warp: &Warp, pc: u32, slot: Slot, lanes: u32) -> Result<(), Box<Fault>> {
        let missing = lanes & !warp.defined[usize::from(slot)];
        if missing == 0 {
            return Ok(());
        }
        let (index, lanes_have) = (slot - 1, self.function.kernel.registers as u16);
        let name = if index < lanes_have { format!("R{index}") } else { format!("UR{}", index - lanes_have) };
        let what = format!("reads {name} before anything wrote it in lanes {missing:#010x}");
        Err(self.fault(warp, pc, missing, FaultKind::UninitialisedRegister, None, what))
    }

    /// Returns a predicate's lanes.
    pub(super) fn test(&self, warp: &Warp, pc: u32, test: Test, lanes: u32) -> Result<u32, Box<Fault>> {
        let at = usize::from(test.bit);
        let missing = lanes & !warp.defined_bits[at];
        if missing != 0 {
            let name = if test.bit < TRUE { format!("P{at}") } else { format!("UP{}", test.bit - UNIFORM_BIT) };
            let what = format!("reads {name} before anything wrote it in lanes {missing:#010x}");
            return Err(self.fault(warp, pc, missing, FaultKind::UninitialisedRegister, None, what));
        }
        Ok(if test.not { !warp.bits[at] } else { warp.bits[at] })
    }

    /// Returns so many bytes of a constant bank, at an address of each lane.
    pub(super) fn constant<const N: usize>(
        &self,
        warp: &Warp,
        pc: u32,
        (bank, index, offset): (u8, Slot, u32),
        lanes: u32,
    ) -> Result<[[u8; N]; 32], Box<Fault>> {
        self.defined(warp, pc, index, lanes)?;
        let mut out = [[0; N]; 32];
        let own = if bank == 0 { Some(&self.bank.bytes) } else { self.function.kernel.banks.get(&bank) };
        let bytes = own.map_or(&[][..], Vec::as_slice);
        let mut last = None;
        for lane in ones(lanes) {
            let at = warp.registers[usize::from(index)][lane].wrapping_add(offset);
            if last.is_some_and(|(other, _)| other == at) {
                out[lane] = last.map_or([0; N], |(_, value)| value);
                continue;
            }
            let end = at as usize + N;
            let bad = if !(at as usize).is_multiple_of(N.min(8)) {
                Some(FaultKind::Misaligned)
            } else if end > bytes.len() {
                Some(FaultKind::OutOfBounds)
            } else if bank == 0 && !self.bank.known[at as usize..end].iter().all(|&known| known) {
                Some(FaultKind::UninitialisedMemory)
            } else {
                None
            };
            if let Some(kind) = bad {
                let what = format!("{N} bytes at {at:#x} of the {:#x} of constant bank {bank}", bytes.len());
                return Err(self.fault(warp, pc, 1 << lane, kind, Some(at.into()), what));
            }
            let value: [u8; N] = bytes[at as usize..end].try_into().expect("as many bytes");
            (out[lane], last) = (value, Some((at, value)));
        }
        Ok(out)
    }

    /// Returns a source of 32 bits as it is.
    pub(super) fn raw(&self, warp: &Warp, pc: u32, source: &Source, lanes: u32) -> Result<[u32; 32], Box<Fault>> {
        match source.place {
            Place::Slot(slot) => {
                self.defined(warp, pc, slot, lanes)?;
                Ok(warp.registers[usize::from(slot)])
            }
            Place::Value(value) => Ok([value as u32; 32]),
            Place::Constant { bank, index, offset } => {
                Ok(self.constant::<4>(warp, pc, (bank, index, offset), lanes)?.map(u32::from_le_bytes))
            }
        }
    }

    /// Returns a source of 32 bits.
    pub(super) fn number(&self, warp: &Warp, pc: u32, source: &Source, lanes: u32) -> Result<[u32; 32], Box<Fault>> {
        let mut values = self.raw(warp, pc, source, lanes)?;
        if source.absolute {
            values = values.map(|value| (value as i32).unsigned_abs());
        }
        if source.inverted {
            values = values.map(|value| !value);
        }
        if source.negative {
            values = values.map(u32::wrapping_neg);
        }
        Ok(values)
    }

    /// Returns a source that is the same in these lanes.
    pub(super) fn one(&self, warp: &Warp, pc: u32, source: &Source, lanes: u32) -> Result<u32, Box<Fault>> {
        let values = self.number(warp, pc, source, lanes)?;
        let value = values[lanes.trailing_zeros() as usize & 31];
        if ones(lanes).any(|lane| values[lane] != value) {
            let what = "the lanes do not agree on a number of the warp".into();
            return Err(self.fault(warp, pc, lanes, FaultKind::WarpMask, None, what));
        }
        Ok(value)
    }

    /// Returns a source of 64 bits.
    pub(super) fn wide(&self, warp: &Warp, pc: u32, source: &Source, lanes: u32) -> Result<[u64; 32], Box<Fault>> {
        let mut values = match source.place {
            Place::Slot(ZERO) => [0; 32],
            Place::Slot(slot) => {
                self.defined(warp, pc, slot, lanes)?;
                self.defined(warp, pc, slot + 1, lanes)?;
                let (low, high) = (&warp.registers[usize::from(slot)], &warp.registers[usize::from(slot + 1)]);
                std::array::from_fn(|lane| u64::from(low[lane]) | u64::from(high[lane]) << 32)
            }
            Place::Value(value) => [value; 32],
            Place::Constant { bank, index, offset } => {
                self.constant::<8>(warp, pc, (bank, index, offset), lanes)?.map(u64::from_le_bytes)
            }
        };
        if source.inverted {
            values = values.map(|value| !value);
        }
        if source.negative {
            values = values.map(u64::wrapping_neg);
        }
        Ok(values)
    }

    /// Returns a source that is a float.
    pub(super) fn float(&self, warp: &Warp, pc: u32, source: &Source, lanes: u32) -> Result<[f32; 32], Box<Fault>> {
        let values = self.raw(warp, pc, source, lanes)?.map(f32::from_bits);
        let values = if source.absolute { values.map(f32::abs) } else { values };
        Ok(if source.negative { values.map(|value| -value) } else { values })
    }

    /// The instruction there.
    pub(super) fn ins(&self, pc: u32) -> &'a Ins {
        let function: &'a Inner = self.function;
        &function.code[pc as usize]
    }
}
