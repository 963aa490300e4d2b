//! A warp: the registers of 32 lanes, and which of them run together.
//!
//! Lanes that run together are a *group*; the last one of the list runs. A branch divides a group, and groups meet again only
//! where the code says so: at a barrier that remembers its lanes (`BSSY`, `BSYNC`), or where the warp synchronises. Lanes never
//! meet by coming to the same instruction, so that what is counted is what a warp issues.

use super::decode::UNIFORM_REGISTERS;
use super::ir::{BITS, Bit, Slot, TRUE, ZERO};
use crate::exec::ones;

/// What a register holds that nobody has written.
const UNWRITTEN: u32 = 0x5c5c_5c5c;

/// Lanes that run together, and their next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) lanes: u32,
    pub(super) pc: u32,
}

/// What a lane waits for, at which instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// The other lanes of a barrier.
    Meet { barrier: u8 },
    /// The lanes of a mask.
    Sync { mask: u32 },
    /// All lanes that live.
    All,
}

/// The block's barrier at which a warp waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) barrier: usize,
    /// The barrier's generation when the warp came.
    pub(super) generation: u64,
}

pub(super) struct Warp {
    pub(super) index: u32,
    pub(super) registers: Vec<[u32; 32]>,
    /// The lanes that have written to each register.
    pub(super) defined: Vec<u32>,
    /// Predicates, a bit for every lane.
    pub(super) bits: [u32; BITS],
    pub(super) defined_bits: [u32; BITS],
    /// For each barrier and lane, the lanes that it meets.
    pub(super) barriers: [[u32; 32]; 16],
    pub(super) groups: Vec<Group>,
    /// Lanes that wait for others of the warp, for what, and at which instruction.
    pub(super) waiting: u32,
    pub(super) waits: [(Wait, u32); 32],
    /// Lanes at the block's barrier, and the instruction of each.
    pub(super) at_barrier: u32,
    pub(super) barrier_pc: [u32; 32],
    pub(super) held: Option<Held>,
    /// Lanes that there are, and those that have not exited.
    pub(super) born: u32,
    pub(super) live: u32,
    /// Local memory, lane after lane, and whether each byte was written.
    pub(super) local: Vec<u8>,
    pub(super) local_written: Vec<bool>,
}

impl Warp {
    pub(super) fn new(index: u32, registers: u32, local_bytes: u32) -> Warp {
        let count = 1 + registers as usize + usize::from(UNIFORM_REGISTERS);
        let local = 32 * local_bytes as usize;
        Warp {
            index,
            registers: vec![[0; 32]; count],
            defined: vec![0; count],
            bits: [0; BITS],
            defined_bits: [0; BITS],
            barriers: [[0; 32]; 16],
            groups: Vec::new(),
            waiting: 0,
            waits: [(Wait::All, 0); 32],
            at_barrier: 0,
            barrier_pc: [0; 32],
            held: None,
            born: 0,
            live: 0,
            local: vec![0; local],
            local_written: vec![false; local],
        }
    }

    /// Resets the warp to the kernel's first instruction, in a block of so many threads.
    pub(super) fn begin(&mut self, threads: u32) {
        // What is read before it was written is the same every time.
        self.registers[1..].fill([UNWRITTEN; 32]);
        self.defined.fill(0);
        self.defined[usize::from(ZERO)] = u32::MAX;
        self.defined_bits = [0; BITS];
        (self.bits[usize::from(TRUE)], self.defined_bits[usize::from(TRUE)]) = (u32::MAX, u32::MAX);
        self.barriers = [[0; 32]; 16];
        self.local_written.fill(false);
        self.born = u32::MAX >> (32 - (threads - 32 * self.index).min(32));
        self.live = self.born;
        self.groups.clear();
        self.groups.push(Group { lanes: self.born, pc: 0 });
        (self.waiting, self.at_barrier, self.held) = (0, 0, None);
    }

    /// Writes a register in these lanes.
    pub(super) fn put(&mut self, slot: Slot, lanes: u32, values: &[u32; 32]) {
        if slot == ZERO {
            return;
        }
        let register = &mut self.registers[usize::from(slot)];
        for lane in 0..32 {
            let mask = (lanes >> lane & 1).wrapping_neg();
            register[lane] = values[lane] & mask | register[lane] & !mask;
        }
        self.defined[usize::from(slot)] |= lanes;
    }

    /// Writes two registers in these lanes.
    pub(super) fn put_wide(&mut self, slot: Slot, lanes: u32, values: &[u64; 32]) {
        if slot != ZERO {
            self.put(slot, lanes, &values.map(|value| value as u32));
            self.put(slot + 1, lanes, &values.map(|value| (value >> 32) as u32));
        }
    }

    /// Writes a predicate in these lanes.
    pub(super) fn put_bit(&mut self, bit: Bit, lanes: u32, values: u32) {
        if bit != TRUE {
            let at = usize::from(bit);
            self.bits[at] = self.bits[at] & !lanes | values & lanes;
            self.defined_bits[at] |= lanes;
        }
    }

    /// The running group's next instruction.
    pub(super) fn advance(&mut self, pc: u32) {
        self.groups.last_mut().expect("a group runs").pc = pc;
    }

    /// Takes lanes out of the running group; the others go on after this instruction.
    pub(super) fn part(&mut self, lanes: u32) {
        let group = self.groups.last_mut().expect("a group runs");
        group.lanes &= !lanes;
        group.pc += 1;
        if group.lanes == 0 {
            self.groups.pop();
        }
    }

    /// Lets lanes of the running group wait for others.
    pub(super) fn wait(&mut self, lanes: u32, wait: Wait, pc: u32) {
        self.part(lanes);
        for lane in ones(lanes) {
            self.waits[lane] = (wait, pc);
        }
        self.waiting |= lanes;
        self.release();
    }

    /// Lets lanes go on whose others are there.
    pub(super) fn release(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let here = |same: &dyn Fn(Wait) -> bool| {
            ones(self.waiting).filter(|&lane| same(self.waits[lane].0)).fold(0, |mask, lane| mask | 1 << lane)
        };
        let mut free = 0u32;
        for lane in ones(self.waiting) {
            let missing = match self.waits[lane].0 {
                Wait::Meet { barrier } => {
                    let others = self.barriers[usize::from(barrier)][lane] & self.live;
                    others & !here(&|wait| matches!(wait, Wait::Meet { barrier: other } if other == barrier))
                }
                Wait::Sync { mask } => {
                    mask & !here(&|wait| matches!(wait, Wait::Sync { mask: other } if other == mask))
                }
                Wait::All => self.live & !here(&|wait| matches!(wait, Wait::All)),
            };
            if missing == 0 {
                free |= 1 << lane;
            }
        }
        self.waiting &= !free;
        let pc_of = |lane: usize| self.waits[lane].1;
        while free != 0 {
            let pc = pc_of(free.trailing_zeros() as usize);
            let lanes = ones(free).filter(|&lane| pc_of(lane) == pc).fold(0, |mask, lane| mask | 1 << lane);
            self.groups.push(Group { lanes, pc: pc + 1 });
            free &= !lanes;
        }
    }

    /// Notes that lanes of the running group are to meet again.
    pub(super) fn meet(&mut self, barrier: u8, lanes: u32) {
        for lane in ones(lanes) {
            self.barriers[usize::from(barrier)][lane] = lanes;
        }
    }

    /// Takes lanes off the list of a barrier, so that nobody waits for them there.
    pub(super) fn leave(&mut self, barrier: u8, lanes: u32) {
        for others in &mut self.barriers[usize::from(barrier)] {
            *others &= !lanes;
        }
        self.release();
    }

    /// Ends lanes of the running group.
    pub(super) fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        self.part(lanes);
        self.release();
    }

    /// Lets the lanes at the block's barrier go on.
    pub(super) fn open(&mut self) {
        let pc = self.barrier_pc[self.at_barrier.trailing_zeros() as usize & 31];
        self.groups.push(Group { lanes: self.at_barrier, pc: pc + 1 });
        (self.at_barrier, self.held) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_meet_where_they_agreed() {
        let mut warp = Warp::new(0, 4, 0);
        warp.begin(32);
        warp.meet(3, u32::MAX);
        // A branch at 5 to 9 by the upper half.
        warp.groups = vec![Group { lanes: 0xffff_0000, pc: 9 }, Group { lanes: 0xffff, pc: 6 }];
        warp.wait(0xffff, Wait::Meet { barrier: 3 }, 6);
        assert_eq!(warp.groups, [Group { lanes: 0xffff_0000, pc: 9 }]);
        // Of the others one exits, one leaves the barrier's list.
        warp.exit(1 << 31);
        warp.leave(3, 1 << 30);
        warp.groups = vec![Group { lanes: 1 << 30, pc: 20 }, Group { lanes: 0x3fff_0000, pc: 12 }];
        warp.wait(0x3fff_0000, Wait::Meet { barrier: 3 }, 12);
        let groups = [(1 << 30, 20), (0xffff, 7), (0x3fff_0000, 13)].map(|(lanes, pc)| Group { lanes, pc });
        assert_eq!((&warp.groups[..], warp.waiting), (&groups[..], 0));
    }

    #[test]
    fn lists_of_one_barrier_are_each_groups_own() {
        let mut warp = Warp::new(0, 4, 0);
        warp.begin(32);
        warp.groups = vec![Group { lanes: 0xff00, pc: 1 }, Group { lanes: 0xff, pc: 1 }];
        warp.meet(0, 0xff);
        warp.groups.swap(0, 1);
        warp.meet(0, 0xff00);
        warp.wait(0xff00, Wait::Meet { barrier: 0 }, 4);
        assert_eq!(warp.groups.last(), Some(&Group { lanes: 0xff00, pc: 5 }));
        warp.live = 0xffff;
        warp.wait(0xff00, Wait::Sync { mask: 0xffff }, 5);
        assert_eq!((warp.groups.len(), warp.waiting), (1, 0xff00));
        warp.wait(0xff, Wait::Sync { mask: 0xffff }, 5);
        assert_eq!((&warp.groups[..], warp.waiting), (&[Group { lanes: 0xffff, pc: 6 }][..], 0));
    }
}
