//! What an access of a warp moves: its addresses, 32-byte sectors of global memory, rounds of shared memory's banks.

use super::ones;

/// The addresses of an access. Lanes outside `exec` have the address of one inside, so that loops need not ask.
pub(crate) struct Addresses {
    pub(crate) exec: u32,
    pub(crate) at: [u64; 32],
    /// The least and the greatest, and all of them or-ed.
    pub(crate) least: u64,
    pub(crate) most: u64,
    pub(crate) bits: u64,
}

impl Addresses {
    /// Adds an offset to the lanes' addresses.
    #[inline(always)]
    pub(crate) fn new(exec: u32, raw: &[u64; 32], offset: u64) -> Addresses {
        let mut at = [0; 32];
        if exec == u32::MAX {
            for lane in 0..32 {
                at[lane] = raw[lane].wrapping_add(offset);
            }
        } else {
            let first = raw[(exec.trailing_zeros() & 31) as usize];
            for lane in 0..32 {
                let value = if exec >> lane & 1 == 1 { raw[lane] } else { first };
                at[lane] = value.wrapping_add(offset);
            }
        }
        let (mut least, mut most, mut bits) = (u64::MAX, 0, 0);
        for &address in &at {
            least = if address < least { address } else { least };
            most = if address > most { address } else { most };
            bits |= address;
        }
        Addresses { exec, at, least, most, bits }
    }

    /// Returns the first lane that fulfils a condition.
    pub(crate) fn first(&self, condition: impl Fn(u64) -> bool) -> Option<usize> {
        ones(self.exec).find(|&lane| condition(self.at[lane]))
    }
}

/// Returns the number of distinct sectors that the lanes touch. An aligned access of up to 32 bytes is in one.
#[inline(always)]
pub(crate) fn sectors(addresses: &Addresses) -> u64 {
    let (mut count, mut ascending) = (1, true);
    if addresses.exec == u32::MAX {
        for lane in 1..32 {
            let (before, here) = (addresses.at[lane - 1] / 32, addresses.at[lane] / 32);
            count += u64::from(before != here);
            ascending &= before <= here;
        }
        if ascending {
            return count;
        }
    }
    let mut all = [0; 32];
    let mut length = 0;
    for lane in ones(addresses.exec) {
        all[length] = addresses.at[lane] / 32;
        length += 1;
    }
    let all = &mut all[..length];
    all.sort_unstable();
    1 + all.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
}

/// The working memory of the count of bank conflicts.
#[derive(Clone, Default)]
pub(crate) struct Banks {
    words: [[u32; 32]; 32],
}

impl Banks {
    /// Rounds for an access of that many bytes by each lane. A round serves one word of each bank, to any number of lanes;
    /// accesses of 8 bytes go by half warps, of 16 by quarters.
    #[inline(always)]
    pub(crate) fn wavefronts(&mut self, addresses: &Addresses, bytes: u64) -> u64 {
        let together = match bytes {
            0..=4 => 32,
            8 => 16,
            _ => 8,
        };
        if addresses.exec == u32::MAX {
            // Neighbours in a row, or all the same: no conflict.
            let first = addresses.at[0];
            let (mut row, mut same) = (true, true);
            for lane in 0..32 {
                row &= addresses.at[lane] == first.wrapping_add(lane as u64 * bytes);
                same &= addresses.at[lane] == first;
            }
            if row && first.is_multiple_of(4) || same {
                return 32 / together as u64;
            }
        }
        self.conflicts(addresses, bytes, together)
    }

    #[inline(always)]
    fn conflicts(&mut self, addresses: &Addresses, bytes: u64, together: usize) -> u64 {
        let words = (bytes / 4).max(1) as u32;
        let part = if together == 32 { u32::MAX } else { (1 << together) - 1 };
        let mut rounds = 0;
        for first in (0..32).step_by(together) {
            let exec = addresses.exec & part << first;
            let mut counts = [0u8; 32];
            let mut most = 0;
            for lane in ones(exec) {
                let word = (addresses.at[lane] / 4) as u32;
                for word in word..word + words {
                    let bank = (word % 32) as usize;
                    let count = counts[bank];
                    let seen = &mut self.words[bank];
                    if !seen[..count as usize].contains(&word) {
                        seen[count as usize] = word;
                        counts[bank] = count + 1;
                        most = most.max(count + 1);
                    }
                }
            }
            rounds += u64::from(most);
        }
        rounds
    }
}
