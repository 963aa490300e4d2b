//! What a launch did, counted; nothing here is a time.

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The counts of a launch. All are of executed instructions, over all blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions times the lanes that reached them, lanes included whose predicate held them back.
    pub thread_instructions: u64,
    /// Of these, the ones held back by a predicate.
    pub predicated_off: u64,
    /// Instructions issued, one for a warp or the part of it that runs together.
    pub warp_issues: u64,
    /// Distinct 32-byte sectors of global memory read, by access of a warp; every access counts anew, as without a cache.
    pub global_sectors_read: u64,
    /// Distinct 32-byte sectors of global memory written, by access of a warp.
    pub global_sectors_written: u64,
    /// Distinct 32-byte sectors of global memory that atomics changed, by access of a warp.
    pub global_sectors_atomic: u64,
    /// Rounds that shared memory needs: 32 banks of 4 bytes, each gives one word a round; accesses of 8 and 16 bytes go by
    /// half and quarter warps.
    pub shared_wavefronts: u64,
    /// Accesses of a warp to shared memory.
    pub shared_accesses: u64,
    /// Accesses of a warp to global memory.
    pub global_accesses: u64,
    /// Accesses of a warp to local memory.
    pub local_accesses: u64,
    /// Barriers of a block and of a warp, votes, shuffles and matches issued.
    pub collectives: u64,
    /// Blocks that ran.
    pub blocks: u64,
    /// The same by line of the text, where [`Options::profile`](super::Options) asks for it; else empty.
    pub lines: BTreeMap<u32, LineCounts>,
}

/// The counts of one line of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Issues of warps.
    pub issues: u64,
    /// Issues times lanes.
    pub threads: u64,
    /// Sectors of global memory, read, written and changed.
    pub sectors: u64,
    /// Rounds of shared memory.
    pub wavefronts: u64,
}

impl AddAssign for LineCounts {
    fn add_assign(&mut self, other: LineCounts) {
        self.issues += other.issues;
        self.threads += other.threads;
        self.sectors += other.sectors;
        self.wavefronts += other.wavefronts;
    }
}

impl Counts {
    /// Sectors and rounds so far.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.global_sectors_read + self.global_sectors_written + self.global_sectors_atomic, self.shared_wavefronts)
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        self.thread_instructions += other.thread_instructions;
        self.predicated_off += other.predicated_off;
        self.warp_issues += other.warp_issues;
        self.global_sectors_read += other.global_sectors_read;
        self.global_sectors_written += other.global_sectors_written;
        self.global_sectors_atomic += other.global_sectors_atomic;
        self.shared_wavefronts += other.shared_wavefronts;
        self.shared_accesses += other.shared_accesses;
        self.global_accesses += other.global_accesses;
        self.local_accesses += other.local_accesses;
        self.collectives += other.collectives;
        self.blocks += other.blocks;
        for (&line, &counts) in &other.lines {
            *self.lines.entry(line).or_default() += counts;
        }
    }
}
