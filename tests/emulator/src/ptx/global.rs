//! Global and constant memory: every access is checked against the live ranges, and counted in sectors of 32 bytes.

use super::access::{bytes_of, deliver};
use super::alu;
use super::block::Env;
use super::ir::{Ins, NONE, Op, Space, Ty, WIDE};
use super::warp::Warp;
use crate::exec::{Addresses, Fault, FaultKind, ones, sectors};
use crate::memory::{self, Access, AccessError};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

type Done = Result<(), Box<Fault>>;

impl Env<'_> {
    /// Checks an access. After it every lane's address holds that many aligned bytes of live memory.
    #[inline(always)]
    fn touch_global(&mut self, warp: &Warp, ins: &Ins, addresses: &Addresses, write: bool) -> Done {
        let bytes = bytes_of(ins);
        let site = warp.pc as usize;
        let length = addresses.most - addresses.least;
        if addresses.bits & (bytes - 1) == 0
            && let Some(range) = self.ranges.get(self.sites[site] as usize)
            && length < 1 << 40
            && range.contains(addresses.least, length + bytes)
            && !(write && range.read_only)
        {
            return Ok(());
        }
        self.look_up(warp, ins, addresses, write)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, warp: &Warp, ins: &Ins, addresses: &Addresses, write: bool) -> Done {
        let bytes = bytes_of(ins);
        let access = if write { Access::Write } else { Access::Read };
        for lane in ones(addresses.exec) {
            let address = addresses.at[lane];
            let kind = match memory::check(self.ranges, address, bytes, bytes, access) {
                Ok(range) => {
                    self.sites[warp.pc as usize] = range as u32;
                    continue;
                }
                Err(AccessError::Misaligned { .. }) => return Err(self.misaligned(warp, ins, lane, address)),
                Err(error @ AccessError::OutOfBounds { .. }) => (FaultKind::OutOfBounds, error),
                Err(error @ AccessError::ReadOnly { .. }) => (FaultKind::ReadOnly, error),
            };
            let what = format!("{} {}", if write { "writes to" } else { "reads from" }, kind.1);
            return Err(self.fault(warp, ins, 1 << lane, kind.0, Some(address), what));
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn load_global(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.touch_global(warp, ins, addresses, false)?;
        if ins.space != Space::Const {
            self.counts.global_accesses += 1;
            self.counts.global_sectors_read += sectors(addresses);
        }
        let exec = addresses.exec;
        macro_rules! gather {
            ($atomic:ty, $out:ty, $offset:expr) => {{
                let mut out: [$out; 32] = [0; 32];
                for lane in 0..32 {
                    let at = addresses.at[lane] + $offset as u64;
                    // SAFETY: `touch_global` found the bytes of every lane in a live range, aligned (lanes outside `exec` have
                    // the address of one inside). The range's bytes outlive the launch, which holds a copy of it or, for
                    // registered memory, by the caller's promise. Other threads touch them atomically, as here.
                    out[lane] = unsafe { <$atomic>::from_ptr(at as *mut _) }.load(Relaxed).into();
                }
                out
            }};
        }
        for element in 0..ins.sub as usize {
            let slot = ins.r[element];
            match ins.ty {
                Ty::U32 | Ty::S32 if slot & WIDE == 0 => {
                    warp.put32(slot, exec, &gather!(AtomicU32, u32, 4 * element));
                }
                Ty::U8 | Ty::S8 => deliver(warp, ins, slot, exec, &gather!(AtomicU8, u64, element)),
                Ty::U16 | Ty::S16 => deliver(warp, ins, slot, exec, &gather!(AtomicU16, u64, 2 * element)),
                Ty::U32 | Ty::S32 => deliver(warp, ins, slot, exec, &gather!(AtomicU32, u64, 4 * element)),
                _ => deliver(warp, ins, slot, exec, &gather!(AtomicU64, u64, 8 * element)),
            }
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn store_global(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.not_early(warp, ins, addresses.exec, "writes")?;
        self.touch_global(warp, ins, addresses, true)?;
        self.counts.global_accesses += 1;
        self.counts.global_sectors_written += sectors(addresses);
        macro_rules! scatter {
            ($atomic:ty, $int:ty, $values:expr, $offset:expr) => {
                for lane in ones(addresses.exec) {
                    let at = addresses.at[lane] + $offset as u64;
                    // SAFETY: as in `load_global`, and the range may be written.
                    unsafe { <$atomic>::from_ptr(at as *mut _) }.store($values[lane] as $int, Relaxed);
                }
            };
        }
        for element in 0..ins.sub as usize {
            let slot = ins.r[element];
            if ins.ty.bits() == 32 && slot & WIDE == 0 {
                let values = &warp.get32(self.code, slot).0.0;
                scatter!(AtomicU32, u32, values, 4 * element);
                continue;
            }
            let (values, _) = warp.get(self.code, slot);
            match ins.ty.bits() {
                8 => scatter!(AtomicU8, u8, values, element),
                16 => scatter!(AtomicU16, u16, values, 2 * element),
                32 => scatter!(AtomicU32, u32, values, 4 * element),
                _ => scatter!(AtomicU64, u64, values, 8 * element),
            }
        }
        Ok(())
    }

    pub(super) fn atomic_global(
        &mut self,
        warp: &Warp,
        ins: &Ins,
        addresses: &Addresses,
    ) -> Result<[u64; 32], Box<Fault>> {
        debug_assert_eq!(ins.op, Op::Atom);
        self.not_early(warp, ins, addresses.exec, "writes")?;
        self.touch_global(warp, ins, addresses, true)?;
        self.counts.global_accesses += 1;
        self.counts.global_sectors_atomic += sectors(addresses);
        let (b, _) = warp.get(self.code, ins.r[1]);
        let (c, _) = if ins.r[2] == NONE { ([0; 32], 0) } else { warp.get(self.code, ins.r[2]) };
        let mut old = [0; 32];
        for lane in ones(addresses.exec) {
            let at = addresses.at[lane];
            let change = |old: u64| alu::atomic(ins.sub, old, b[lane], c[lane], ins.ty);
            // SAFETY: as in `load_global`, and the range may be written.
            old[lane] = unsafe {
                if ins.ty.bits() == 32 {
                    let word = AtomicU32::from_ptr(at as *mut u32);
                    let change = |old: u32| Some(change(old.into()) as u32);
                    word.fetch_update(SeqCst, SeqCst, change).unwrap_or_else(|old| old).into()
                } else {
                    let word = AtomicU64::from_ptr(at as *mut u64);
                    word.fetch_update(SeqCst, SeqCst, |old| Some(change(old))).unwrap_or_else(|old| old)
                }
            };
        }
        Ok(old)
    }
}
