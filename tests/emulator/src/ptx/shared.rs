//! Shared memory of a block: bounds, bytes that nobody wrote, races.

use super::access::{bytes_of, deliver};
use super::alu;
use super::block::Env;
use super::ir::{Ins, NONE, Ty, WIDE};
use super::warp::Warp;
use crate::exec::{Addresses, Fault, FaultKind, Touch, ones};

type Done = Result<(), Box<Fault>>;

impl Env<'_> {
    /// Checks an access and counts it.
    #[inline(always)]
    fn touch_shared(&mut self, warp: &Warp, ins: &Ins, addresses: &Addresses, touch: Touch) -> Done {
        let bytes = bytes_of(ins);
        self.inside(warp, ins, addresses, self.shared.len() as u64, "shared")?;
        self.counts.shared_accesses += 1;
        self.counts.shared_wavefronts += self.banks.wavefronts(addresses, bytes);
        if touch != Touch::Write {
            // Aligned accesses of up to 8 bytes are in one byte of the map.
            let need = if bytes >= 8 { 0xff } else { (1u8 << bytes) - 1 };
            let (mut all, map) = (0xff, &self.shared_written);
            for at in addresses.at {
                let at = at as usize;
                all &= map[at / 8] >> (at % 8);
                all &= if bytes == 16 { map[at / 8 + 1] } else { 0xff };
            }
            if all & need != need {
                return Err(self.unwritten_shared(warp, ins, addresses));
            }
        }
        if self.races.is_some() {
            self.race(warp, ins, addresses, touch)?;
        }
        if touch == Touch::Write {
            let bits = if bytes >= 8 { 0xff } else { (1u8 << bytes) - 1 };
            for at in addresses.at {
                let at = at as usize;
                self.shared_written[at / 8] |= bits << (at % 8);
                if bytes == 16 {
                    self.shared_written[at / 8 + 1] = 0xff;
                }
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn unwritten_shared(&self, warp: &Warp, ins: &Ins, addresses: &Addresses) -> Box<Fault> {
        let written = |at: u64| self.shared_written[(at / 8) as usize] >> (at % 8) & 1 == 1;
        let bytes = bytes_of(ins);
        let lane = addresses.first(|at| !(at..at + bytes).all(written)).unwrap_or(0);
        self.unwritten(warp, ins, lane, addresses.at[lane], "shared")
    }

    #[inline(never)]
    fn race(&mut self, warp: &Warp, ins: &Ins, addresses: &Addresses, touch: Touch) -> Done {
        let Some(races) = &mut self.races else { return Ok(()) };
        let found = races.access(warp.index as usize, addresses.exec, &addresses.at, bytes_of(ins), touch);
        found.map_err(|race| {
            let [x, y, z] = self.geometry.thread(race.other);
            let what = format!(
                "{touch:?} of shared byte {:#x}, which thread [{x}, {y}, {z}] {} with no barrier between",
                race.address,
                if race.other_wrote { "wrote" } else { "read" },
            );
            self.fault(warp, ins, 1 << race.lane, FaultKind::Race, Some(race.address), what)
        })
    }

    #[inline(always)]
    pub(super) fn load_shared(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.touch_shared(warp, ins, addresses, Touch::Read)?;
        let shared = &self.shared;
        let exec = addresses.exec;
        macro_rules! gather {
            ($int:ty, $out:ty, $offset:expr) => {{
                let mut out: [$out; 32] = [0; 32];
                for lane in 0..32 {
                    let at = addresses.at[lane] as usize + $offset;
                    let bytes = &shared[at..at + size_of::<$int>()];
                    out[lane] = <$int>::from_le_bytes(bytes.try_into().expect("as many bytes")).into();
                }
                out
            }};
        }
        for element in 0..ins.sub as usize {
            let slot = ins.r[element];
            match ins.ty {
                Ty::U32 | Ty::S32 if slot & WIDE == 0 => {
                    warp.put32(slot, exec, &gather!(u32, u32, 4 * element));
                }
                Ty::U8 | Ty::S8 => deliver(warp, ins, slot, exec, &gather!(u8, u64, element)),
                Ty::U16 | Ty::S16 => deliver(warp, ins, slot, exec, &gather!(u16, u64, 2 * element)),
                Ty::U32 | Ty::S32 => deliver(warp, ins, slot, exec, &gather!(u32, u64, 4 * element)),
                _ => deliver(warp, ins, slot, exec, &gather!(u64, u64, 8 * element)),
            }
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn store_shared(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.touch_shared(warp, ins, addresses, Touch::Write)?;
        let size = ins.ty.bits() as usize / 8;
        for element in 0..ins.sub as usize {
            let slot = ins.r[element];
            if size == 4 && slot & WIDE == 0 {
                let (values, _) = warp.get32(self.code, slot);
                for lane in ones(addresses.exec) {
                    let at = addresses.at[lane] as usize + 4 * element;
                    self.shared[at..at + 4].copy_from_slice(&values.0[lane].to_le_bytes());
                }
                continue;
            }
            let (values, _) = warp.get(self.code, slot);
            for lane in ones(addresses.exec) {
                let at = addresses.at[lane] as usize + size * element;
                self.shared[at..at + size].copy_from_slice(&values[lane].to_le_bytes()[..size]);
            }
        }
        Ok(())
    }

    pub(super) fn atomic_shared(
        &mut self,
        warp: &Warp,
        ins: &Ins,
        addresses: &Addresses,
    ) -> Result<[u64; 32], Box<Fault>> {
        self.touch_shared(warp, ins, addresses, Touch::Atomic)?;
        let size = ins.ty.bits() as usize / 8;
        let (b, _) = warp.get(self.code, ins.r[1]);
        let (c, _) = if ins.r[2] == NONE { ([0; 32], 0) } else { warp.get(self.code, ins.r[2]) };
        let mut old = [0; 32];
        for lane in ones(addresses.exec) {
            let at = addresses.at[lane] as usize;
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(&self.shared[at..at + size]);
            old[lane] = u64::from_le_bytes(bytes);
            let new = alu::atomic(ins.sub, old[lane], b[lane], c[lane], ins.ty);
            self.shared[at..at + size].copy_from_slice(&new.to_le_bytes()[..size]);
        }
        Ok(old)
    }
}
