//! A block: its warps by turns, its barriers, and how faults are told.

use super::ir::{CONST, Code, Ins, NONE, Op, Slot, WIDE};
use super::module::Inner;
use super::run::{Stop, run};
use super::warp::{Held, Warp};
use crate::exec::{Banks, Counts, Fault, FaultKind, Geometry, LineCounts, Options, Races, ones};
use crate::memory::Range;

/// Instructions that a warp issues before another has its turn, so that warps which wait for each other get on.
const TURN: u64 = 1 << 18;
/// A block's barriers.
const BARRIERS: usize = 16;

/// One of a block's barriers.
#[derive(Clone, Default)]
struct Barrier {
    /// Counts the times that it opened.
    generation: u64,
    expected: u32,
    arrived: u32,
    warps: Vec<usize>,
    /// True predicates of a reduction, now and when it last opened, and the threads then.
    votes: u32,
    last_votes: u32,
    last_threads: u32,
}

/// The state that the warps of a block share, with their counts.
pub(super) struct Env<'a> {
    pub(super) function: &'a Inner,
    pub(super) code: &'a Code,
    pub(super) geometry: Geometry,
    /// Live memory in the order of addresses, and for every instruction the range that it last touched.
    pub(super) ranges: &'a [Range],
    pub(super) sites: Vec<u32>,
    pub(super) params: &'a [u8],
    pub(super) shared: Vec<u8>,
    /// A bit for every byte that was written.
    pub(super) shared_written: Vec<u8>,
    pub(super) races: Option<Races>,
    early: bool,
    pub(super) banks: Banks,
    pub(super) counts: Counts,
    /// Counts by instruction, where they are wanted; the instruction that ran last, and the traffic before it.
    pub(super) profile: Option<Vec<LineCounts>>,
    last: usize,
    last_traffic: (u64, u64),
    barriers: Vec<Barrier>,
}

impl<'a> Env<'a> {
    pub(super) fn new(
        function: &'a Inner,
        geometry: Geometry,
        ranges: &'a [Range],
        params: &'a [u8],
        options: &Options,
    ) -> Env<'a> {
        let shared = geometry.total_shared as usize;
        let warps = geometry.threads().div_ceil(32) as usize;
        Env {
            function,
            code: &function.code,
            ranges,
            sites: vec![0; function.code.ins.len()],
            params,
            shared: vec![0; shared],
            shared_written: vec![0; shared.div_ceil(8) + 1],
            early: options.early,
            races: options.races.then(|| Races::new(shared, warps)),
            banks: Banks::default(),
            counts: Counts::default(),
            profile: options.profile.then(|| vec![LineCounts::default(); function.code.ins.len()]),
            last: 0,
            last_traffic: (0, 0),
            barriers: vec![Barrier::default(); BARRIERS],
            geometry,
        }
    }

    /// Runs the block at that index to its end.
    pub(super) fn block(&mut self, warps: &mut [Warp], at: [u32; 3], budget: u64) -> Result<(), Box<Fault>> {
        self.geometry.at = at;
        self.shared_written.fill(0);
        self.barriers.fill(Barrier::default());
        if let Some(races) = &mut self.races {
            races.begin();
        }
        for warp in warps.iter_mut() {
            warp.begin(self.code, &self.geometry, self.early);
        }
        let end = self.counts.warp_issues.saturating_add(budget);
        let mut left = warps.len();
        while left > 0 {
            let mut ran = false;
            for warp in warps.iter_mut().filter(|warp| warp.live != 0) {
                if let Some(held) = warp.held {
                    if self.barriers[held.barrier].generation == held.generation {
                        continue;
                    }
                    self.release(warp, held);
                }
                ran = true;
                let turn = TURN.min(end - self.counts.warp_issues);
                match run(warp, self, turn)? {
                    Stop::Exited => left -= 1,
                    Stop::Held => {}
                    Stop::Turn if self.counts.warp_issues >= end => {
                        let what = format!("the block issued {budget} instructions and has not ended");
                        let pc = warp.pc.min(self.code.ins.len() as u32 - 1);
                        let ins = &self.code.ins[pc as usize];
                        return Err(self.fault(warp, ins, warp.active, FaultKind::Budget, None, what));
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

    /// Fails for lanes that have not waited for the kernel before, and must have before what they do.
    #[inline(always)]
    pub(super) fn not_early(&self, warp: &Warp, ins: &Ins, exec: u32, does: &str) -> Result<(), Box<Fault>> {
        let early = warp.early & exec;
        if early == 0 {
            return Ok(());
        }
        let what = format!("launched before the kernel before has ended, a thread {does} and has not waited for it");
        Err(self.fault(warp, ins, early, FaultKind::Early, None, what))
    }

    /// Begins an instruction in the counts by line: what was moved since the last call was the last one's.
    #[inline(never)]
    pub(super) fn mark(&mut self, pc: usize, active: u32) {
        let Some(profile) = &mut self.profile else { return };
        let (sectors, wavefronts) = self.counts.traffic();
        profile[self.last].sectors += sectors - self.last_traffic.0;
        profile[self.last].wavefronts += wavefronts - self.last_traffic.1;
        profile[pc].issues += 1;
        profile[pc].threads += u64::from(active.count_ones());
        (self.last, self.last_traffic) = (pc, (sectors, wavefronts));
    }

    /// Puts the counts by instruction into those by line.
    pub(super) fn add_lines(&mut self) {
        let (sectors, wavefronts) = self.counts.traffic();
        let Some(profile) = &mut self.profile else { return };
        profile[self.last].sectors += sectors - self.last_traffic.0;
        profile[self.last].wavefronts += wavefronts - self.last_traffic.1;
        for (ins, counts) in self.code.ins.iter().zip(profile).filter(|(_, counts)| counts.issues > 0) {
            *self.counts.lines.entry(ins.line).or_default() += *counts;
        }
    }

    /// Brings a group to a barrier. Returns true if it stays there, false if it continues.
    pub(super) fn barrier(&mut self, warp: &mut Warp, ins: &Ins, exec: u32) -> Result<bool, Box<Fault>> {
        let pc = warp.pc;
        if ins.sub == 1 {
            if exec != warp.born {
                let what = "bar.arrive by a part of a warp".into();
                return Err(self.fault(warp, ins, exec, FaultKind::Barrier, None, what));
            }
            self.come(warp, ins, exec)?;
            warp.pc += 1;
            return Ok(false);
        }
        for lane in ones(exec) {
            warp.lane_pc[lane] = pc;
        }
        warp.at_barrier |= exec;
        let rest = warp.active & !exec;
        warp.active = 0;
        warp.park(rest, pc + 1);
        Ok(true)
    }

    /// Brings a warp to a barrier when all of its live lanes are at barriers: as a whole, or not at all.
    pub(super) fn arrive(&mut self, warp: &mut Warp) -> Result<(), Box<Fault>> {
        let code = self.code;
        let first = warp.at_barrier.trailing_zeros() as usize;
        let pc = warp.lane_pc[first];
        let ins = &code.ins[pc as usize];
        let exited = warp.born & !warp.live;
        if exited != 0 {
            let what = format!("lanes {exited:#010x} of the warp have exited and will never come to the barrier");
            return Err(self.fault(warp, ins, warp.at_barrier, FaultKind::Barrier, None, what));
        }
        let elsewhere = warp.at_barrier & !warp.at(warp.at_barrier, pc);
        if elsewhere != 0 && ins.mode == 1 {
            let line = code.ins[warp.lane_pc[elsewhere.trailing_zeros() as usize] as usize].line;
            let what = format!("lanes {elsewhere:#010x} of the warp are at another barrier, of line {line}");
            return Err(self.fault(warp, ins, warp.at_barrier, FaultKind::Barrier, None, what));
        }
        let held = self.come(warp, ins, warp.at_barrier)?;
        warp.held = Some(held);
        Ok(())
    }

    /// Counts a warp's 32 threads at a barrier.
    fn come(&mut self, warp: &Warp, ins: &Ins, lanes: u32) -> Result<Held, Box<Fault>> {
        let one = |slot: Slot| -> Result<u32, Box<Fault>> {
            let (values, defined) = warp.get(self.code, slot);
            self.defined(warp, ins, lanes, defined, slot)?;
            let value = values[lanes.trailing_zeros() as usize];
            if ones(lanes).any(|lane| values[lane] != value) {
                let what = "the lanes name different barriers".into();
                return Err(self.fault(warp, ins, lanes, FaultKind::Barrier, None, what));
            }
            Ok(value as u32)
        };
        let all = 32 * self.geometry.threads().div_ceil(32);
        let at = one(ins.r[0])? as usize;
        let expected = if ins.r[1] == NONE { all } else { one(ins.r[1])? };
        let mut votes = 0;
        if ins.sub >= 2 {
            let p = ins.r[3] as usize;
            let missing = lanes & !warp.defined_p[p];
            if missing != 0 {
                return Err(self.undefined_predicate(warp, ins, missing, ins.r[3]));
            }
            votes = (lanes & if ins.not { !warp.p[p] } else { warp.p[p] }).count_ones();
        }
        let wrong = if at >= BARRIERS {
            Some(format!("there is no barrier {at}"))
        } else if expected % 32 != 0 || expected == 0 || expected > all {
            Some(format!("a barrier of {expected} threads in a block of {all}"))
        } else if self.barriers[at].arrived > 0 && self.barriers[at].expected != expected {
            Some(format!("barrier {at} waits for {} threads, not {expected}", self.barriers[at].expected))
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(self.fault(warp, ins, lanes, FaultKind::Barrier, None, what));
        }
        let barrier = &mut self.barriers[at];
        let held = Held { barrier: at, generation: barrier.generation };
        barrier.expected = expected;
        barrier.arrived += 32;
        barrier.votes += votes;
        barrier.warps.push(warp.index as usize);
        if barrier.arrived == expected {
            barrier.generation += 1;
            barrier.last_votes = std::mem::take(&mut barrier.votes);
            barrier.last_threads = if expected == all { self.geometry.threads() } else { expected };
            barrier.arrived = 0;
            if let Some(races) = &mut self.races {
                races.block_sync(&barrier.warps);
            }
            barrier.warps.clear();
        }
        Ok(held)
    }

    /// Releases a warp from a barrier that has opened, with its result.
    fn release(&mut self, warp: &mut Warp, held: Held) {
        let barrier = &self.barriers[held.barrier];
        for lane in ones(warp.at_barrier) {
            let ins = &self.code.ins[warp.lane_pc[lane] as usize];
            match ins.sub {
                2 => warp.put32(ins.r[2], 1 << lane, &[barrier.last_votes; 32]),
                3 => {
                    let all = barrier.last_votes == barrier.last_threads;
                    warp.put_pred(ins.r[2], 1 << lane, u32::from(all).wrapping_neg());
                }
                4 => warp.put_pred(ins.r[2], 1 << lane, u32::from(barrier.last_votes > 0).wrapping_neg()),
                _ => {}
            }
        }
        warp.release();
    }

    /// Returns the fault of a block of which every warp waits at a barrier that will not open.
    fn deadlock(&self, warps: &[Warp]) -> Box<Fault> {
        let exited: Vec<_> = warps.iter().filter(|warp| warp.live == 0).map(|warp| warp.index).collect();
        let warp = warps.iter().find(|warp| warp.live != 0).expect("some warp has not ended");
        let at = warp.held.map_or(0, |held| held.barrier);
        let Barrier { arrived, expected, warps: came, .. } = &self.barriers[at];
        let ins = &self.code.ins[warp.lane_pc[warp.at_barrier.trailing_zeros() as usize & 31] as usize];
        let what = format!(
            "barrier {at} waits for {expected} threads, {arrived} have come (warps {came:?}), and nobody else can: warps \
             {exited:?} have exited"
        );
        self.fault(warp, ins, warp.at_barrier, FaultKind::Barrier, None, what)
    }

    /// Returns a fault of the first of these lanes.
    #[cold]
    pub(super) fn fault(
        &self,
        warp: &Warp,
        ins: &Ins,
        lanes: u32,
        kind: FaultKind,
        address: Option<u64>,
        what: String,
    ) -> Box<Fault> {
        let thread = self.geometry.thread(32 * warp.index + (lanes.trailing_zeros() & 31));
        Box::new(Fault {
            kind,
            kernel: self.function.name.clone(),
            line: ins.line,
            instruction: self.function.line(ins.line).into(),
            block: self.geometry.at,
            thread,
            address,
            what,
        })
    }

    /// Lanes of `exec` that lack a register are a fault.
    #[inline(always)]
    pub(super) fn defined(
        &self,
        warp: &Warp,
        ins: &Ins,
        exec: u32,
        defined: u32,
        slot: Slot,
    ) -> Result<(), Box<Fault>> {
        if exec & !defined == 0 { Ok(()) } else { Err(self.undefined_register(warp, ins, exec & !defined, slot)) }
    }

    #[cold]
    fn undefined_register(&self, warp: &Warp, ins: &Ins, lanes: u32, slot: Slot) -> Box<Fault> {
        let names = if slot & WIDE != 0 { &self.code.names64 } else { &self.code.names32 };
        let name = names.get((slot & !(WIDE | CONST)) as usize).map_or("a register", String::as_str);
        let what = format!("reads {name} before anything wrote it in lanes {lanes:#010x}");
        self.fault(warp, ins, lanes, FaultKind::UninitialisedRegister, None, what)
    }

    #[cold]
    pub(super) fn undefined_predicate(&self, warp: &Warp, ins: &Ins, lanes: u32, slot: Slot) -> Box<Fault> {
        let name = self.code.names_pred.get(slot as usize).map_or("a predicate", String::as_str);
        let what = format!("reads {name} before anything wrote it in lanes {lanes:#010x}");
        self.fault(warp, ins, lanes, FaultKind::UninitialisedRegister, None, what)
    }

    /// Fails if a source of an operation on registers was never written.
    #[cold]
    #[inline(never)]
    pub(super) fn undefined(&self, warp: &Warp, ins: &Ins, exec: u32) -> Result<(), Box<Fault>> {
        let (registers, predicates): (&[usize], &[usize]) = match ins.op {
            Op::Setp | Op::Set | Op::FSetp => (&[2, 3], &[4]),
            Op::Selp => (&[1, 2], &[3]),
            Op::PredLogic | Op::PredMov => (&[], &[1, 2]),
            _ => (&[1, 2, 3, 4], &[]),
        };
        for &at in predicates.iter().filter(|&&at| ins.r[at] != NONE) {
            let missing = exec & !warp.defined_p[ins.r[at] as usize];
            if missing != 0 {
                return Err(self.undefined_predicate(warp, ins, missing, ins.r[at]));
            }
        }
        for &at in registers.iter().filter(|&&at| ins.r[at] != NONE) {
            let (_, defined) = warp.get(self.code, ins.r[at]);
            self.defined(warp, ins, exec, defined, ins.r[at])?;
        }
        unreachable!("line {}: every source is there", ins.line)
    }
}
