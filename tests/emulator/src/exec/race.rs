//! The search for races on shared memory: two threads, the same byte, at least one write, and nothing between that orders
//! them. Barriers of the block order warps; `bar.warp.sync` orders lanes of a warp. Atomics do not race with each other.
//!
//! It is no proof. Per byte it knows the last write and the last reads of two warps; it knows nothing of global memory, nor of
//! orders made by flags and fences, which it reports as races.

use super::ones;

/// Nobody.
const NOBODY: u8 = u8::MAX;

/// The last write to a byte.
#[derive(Clone, Copy)]
struct Write {
    tick: u32,
    warp: u8,
    lane: u8,
    atomic: bool,
}

/// The lanes of a warp that read last.
#[derive(Clone, Copy)]
struct Reads {
    tick: u32,
    lanes: u32,
    warp: u8,
}

#[derive(Clone, Copy)]
struct Byte {
    write: Write,
    reads: [Reads; 2],
}

const FRESH: Byte = Byte {
    write: Write { tick: 0, warp: NOBODY, lane: 0, atomic: false },
    reads: [Reads { tick: 0, lanes: 0, warp: NOBODY }; 2],
};

/// The knowledge of a warp. A warp's tick counts its synchronisations; an access carries the tick at which it was made.
struct Clock {
    tick: u32,
    /// Accesses of this warp's lanes before this tick are known to all of them.
    floor: u32,
    /// `lanes[j][i]`: accesses of lane i before this tick are known to lane j.
    lanes: Box<[[u32; 32]; 32]>,
    /// Accesses of other warps before these ticks are known to this one.
    warps: Vec<u32>,
}

/// The manner in which an access touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
    Atomic,
}

/// Two accesses that race.
pub(crate) struct Race {
    pub(crate) lane: usize,
    pub(crate) address: u64,
    /// The number of the other thread in its block.
    pub(crate) other: u32,
    pub(crate) other_wrote: bool,
}

/// The accesses that are known of a block's shared memory.
pub(crate) struct Races {
    bytes: Vec<Byte>,
    clocks: Vec<Clock>,
}

impl Races {
    pub(crate) fn new(bytes: usize, warps: usize) -> Races {
        let clock = |_| Clock { tick: 1, floor: 0, lanes: Box::new([[0; 32]; 32]), warps: vec![0; warps] };
        Races { bytes: vec![FRESH; bytes], clocks: (0..warps).map(clock).collect() }
    }

    /// Begins a new block: all accesses of the one before are over.
    pub(crate) fn begin(&mut self) {
        let warps: Vec<_> = (0..self.clocks.len()).collect();
        self.block_sync(&warps);
    }

    /// Notes a `bar.warp.sync` of these lanes; `live` are all that live.
    pub(crate) fn warp_sync(&mut self, warp: usize, mask: u32, live: u32) {
        let clock = &mut self.clocks[warp];
        clock.tick += 1;
        if mask & live == live {
            clock.floor = clock.tick;
            return;
        }
        let mut joined = [0; 32];
        for lane in ones(mask) {
            for (joined, &known) in joined.iter_mut().zip(&clock.lanes[lane]) {
                *joined = known.max(*joined);
            }
        }
        for lane in ones(mask) {
            joined[lane] = clock.tick;
        }
        for lane in ones(mask) {
            clock.lanes[lane] = joined;
        }
    }

    /// Notes a barrier that these warps passed together.
    pub(crate) fn block_sync(&mut self, warps: &[usize]) {
        let mut joined = vec![0; self.clocks.len()];
        for &warp in warps {
            for (joined, &known) in joined.iter_mut().zip(&self.clocks[warp].warps) {
                *joined = known.max(*joined);
            }
        }
        for &warp in warps {
            let clock = &mut self.clocks[warp];
            clock.tick += 1;
            clock.floor = clock.tick;
            joined[warp] = clock.tick;
        }
        for &warp in warps {
            self.clocks[warp].warps.copy_from_slice(&joined);
        }
    }

    /// Notes an access of a warp's lanes, in their order.
    pub(crate) fn access(
        &mut self,
        warp: usize,
        exec: u32,
        addresses: &[u64; 32],
        bytes: u64,
        touch: Touch,
    ) -> Result<(), Race> {
        for lane in ones(exec) {
            for address in addresses[lane]..addresses[lane] + bytes {
                if let Some((other, other_wrote)) = self.touch(warp, lane, address as usize, touch) {
                    return Err(Race { lane, address, other, other_wrote });
                }
            }
        }
        Ok(())
    }

    fn touch(&mut self, warp: usize, lane: usize, at: usize, touch: Touch) -> Option<(u32, bool)> {
        let byte = self.bytes[at];
        let clock = &self.clocks[warp];
        let ordered = |other_warp: u8, other_lane: usize, tick: u32| {
            if usize::from(other_warp) == warp {
                other_lane == lane || tick < clock.floor || tick < clock.lanes[lane][other_lane]
            } else {
                tick < clock.warps[usize::from(other_warp)]
            }
        };
        let number = |warp: u8, lane: usize| 32 * u32::from(warp) + lane as u32;
        let write = byte.write;
        let both_atomic = write.atomic && touch == Touch::Atomic;
        if write.warp != NOBODY && !both_atomic && !ordered(write.warp, write.lane.into(), write.tick) {
            return Some((number(write.warp, write.lane.into()), true));
        }
        if touch != Touch::Read {
            for reads in byte.reads.iter().filter(|reads| reads.warp != NOBODY) {
                for other in ones(reads.lanes) {
                    if !ordered(reads.warp, other, reads.tick) {
                        return Some((number(reads.warp, other), false));
                    }
                }
            }
        }
        let (tick, own) = (clock.tick, warp as u8);
        let byte = &mut self.bytes[at];
        if touch == Touch::Read {
            let reads = &mut byte.reads;
            // The newest first; a third warp takes the oldest's place.
            if reads[0].warp != own {
                reads.swap(0, 1);
            }
            if reads[0].warp != own || reads[0].tick != tick {
                reads[0] = Reads { tick, lanes: 0, warp: own };
            }
            reads[0].lanes |= 1 << lane;
        } else {
            byte.write = Write { tick, warp: own, lane: lane as u8, atomic: touch == Touch::Atomic };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(races: &mut Races, warp: usize, lane: usize, address: u64, touch: Touch) -> bool {
        let mut addresses = [0; 32];
        addresses[lane] = address;
        races.access(warp, 1 << lane, &addresses, 4, touch).is_err()
    }

    #[test]
    fn barriers_order_what_nothing_else_does() {
        use Touch::*;
        let races = &mut Races::new(64, 3);
        assert!(!at(races, 0, 0, 0, Write));
        assert!(at(races, 0, 1, 0, Read), "another lane");
        assert!(at(races, 1, 0, 3, Read), "another warp, one byte in common");
        races.warp_sync(0, u32::MAX, u32::MAX);
        assert!(!at(races, 0, 1, 0, Read));
        assert!(at(races, 1, 0, 0, Read), "a warp's barrier orders no other warp");
        races.block_sync(&[0, 1, 2]);
        assert!(!at(races, 1, 0, 0, Read));
        assert!(!at(races, 2, 0, 0, Read));
        assert!(at(races, 2, 0, 0, Write), "a write after another warp's read");
        races.block_sync(&[0, 1]);
        assert!(!at(races, 2, 0, 8, Write));
        assert!(at(races, 0, 0, 8, Read), "a barrier without the third warp");
    }

    #[test]
    fn part_of_a_warp_may_synchronise() {
        use Touch::*;
        let races = &mut Races::new(64, 1);
        assert!(!at(races, 0, 0, 0, Write));
        races.warp_sync(0, 0b11, u32::MAX);
        assert!(!at(races, 0, 1, 0, Read));
        races.warp_sync(0, 0b110, u32::MAX);
        assert!(!at(races, 0, 2, 0, Read), "what lane 1 knew, lane 2 knows");
        assert!(at(races, 0, 3, 0, Read));
    }

    #[test]
    fn atomics_race_with_plain_accesses_only() {
        use Touch::*;
        let races = &mut Races::new(64, 2);
        assert!(!at(races, 0, 0, 0, Atomic));
        assert!(!at(races, 1, 7, 0, Atomic));
        assert!(at(races, 0, 0, 0, Read));
    }
}
