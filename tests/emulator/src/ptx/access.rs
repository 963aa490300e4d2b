//! Loads, stores and atomics: which memory, at which addresses, and what comes back into registers.
//!
//! The memories themselves are in `shared` and `global`; local memory and parameters are here.

use super::block::Env;
use super::ir::{Ins, NONE, Op, Slot, Space, Ty, WIDE, window};
use super::warp::Warp;
use crate::exec::{Addresses, Fault, FaultKind, ones};

type Done = Result<(), Box<Fault>>;

/// Bytes of an access by one lane.
#[inline(always)]
pub(super) fn bytes_of(ins: &Ins) -> u64 {
    u64::from(ins.ty.bits() / 8) * if ins.op == Op::Atom { 1 } else { u64::from(ins.sub) }
}

impl Env<'_> {
    #[inline(always)]
    fn addresses(&self, warp: &Warp, ins: &Ins, exec: u32) -> Result<Addresses, Box<Fault>> {
        let slot = ins.r[5];
        if slot & WIDE != 0 {
            let (base, defined) = warp.get64(self.code, slot);
            self.defined(warp, ins, exec, defined, slot)?;
            return Ok(Addresses::new(exec, &base.0, ins.imm));
        }
        let (base, defined) = warp.get32(self.code, slot);
        self.defined(warp, ins, exec, defined, slot)?;
        let mut wide = [0; 32];
        for (wide, &base) in wide.iter_mut().zip(&base.0) {
            *wide = base.into();
        }
        Ok(Addresses::new(exec, &wide, ins.imm))
    }

    /// Returns the space that a generic address is in.
    pub(super) fn space_of(&self, address: u64) -> Space {
        match address & !(window::BYTES - 1) {
            window::SHARED => Space::Shared,
            window::LOCAL => Space::Local,
            window::PARAM => Space::Param,
            _ => Space::Global,
        }
    }

    #[inline(always)]
    pub(super) fn load(&mut self, warp: &mut Warp, ins: &Ins, exec: u32) -> Done {
        let addresses = self.addresses(warp, ins, exec)?;
        match ins.space {
            Space::Shared => self.load_shared(warp, ins, &addresses),
            Space::Global | Space::Const => self.load_global(warp, ins, &addresses),
            _ => self.load_other(warp, ins, &addresses),
        }
    }

    #[inline(always)]
    pub(super) fn store(&mut self, warp: &mut Warp, ins: &Ins, exec: u32) -> Done {
        let addresses = self.addresses(warp, ins, exec)?;
        for &slot in &ins.r[..ins.sub as usize] {
            let defined = if slot & WIDE != 0 { warp.get64(self.code, slot).1 } else { warp.get32(self.code, slot).1 };
            self.defined(warp, ins, exec, defined, slot)?;
        }
        match ins.space {
            Space::Shared => self.store_shared(warp, ins, &addresses),
            Space::Global => self.store_global(warp, ins, &addresses),
            _ => self.store_other(warp, ins, &addresses),
        }
    }

    #[inline(never)]
    pub(super) fn atomic(&mut self, warp: &mut Warp, ins: &Ins, exec: u32) -> Done {
        let addresses = self.addresses(warp, ins, exec)?;
        for &slot in ins.r[1..3].iter().filter(|&&slot| slot != NONE) {
            let (_, defined) = warp.get(self.code, slot);
            self.defined(warp, ins, exec, defined, slot)?;
        }
        let old = match ins.space {
            Space::Shared => self.atomic_shared(warp, ins, &addresses)?,
            Space::Global => self.atomic_global(warp, ins, &addresses)?,
            _ => {
                let mut old = [0; 32];
                for (space, part) in self.split(&addresses) {
                    let some = match space {
                        Space::Shared => self.atomic_shared(warp, ins, &part)?,
                        Space::Global => self.atomic_global(warp, ins, &part)?,
                        _ => {
                            let what = format!("an atomic on {space:?} memory");
                            return Err(self.fault(warp, ins, part.exec, FaultKind::OutOfBounds, None, what));
                        }
                    };
                    for lane in ones(part.exec) {
                        old[lane] = some[lane];
                    }
                }
                old
            }
        };
        if ins.r[0] != NONE {
            warp.put(ins.r[0], exec, &old);
        }
        Ok(())
    }

    /// Splits generic addresses by their spaces.
    fn split(&self, addresses: &Addresses) -> Vec<(Space, Addresses)> {
        let mut parts = Vec::new();
        for (space, base) in [
            (Space::Global, 0),
            (Space::Shared, window::SHARED),
            (Space::Local, window::LOCAL),
            (Space::Param, window::PARAM),
        ] {
            let lanes = ones(addresses.exec).filter(|&lane| self.space_of(addresses.at[lane]) == space);
            let exec = lanes.fold(0, |mask, lane| mask | 1 << lane);
            if exec != 0 {
                parts.push((space, Addresses::new(exec, &addresses.at, 0u64.wrapping_sub(base))));
            }
        }
        parts
    }

    /// Loads from local memory, parameters, and generic addresses.
    #[inline(never)]
    fn load_other(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        match ins.space {
            Space::Local => self.load_local(warp, ins, addresses),
            Space::Param => self.load_param(warp, ins, addresses),
            _ => {
                for (space, part) in self.split(addresses) {
                    match space {
                        Space::Shared => self.load_shared(warp, ins, &part)?,
                        Space::Local => self.load_local(warp, ins, &part)?,
                        Space::Param => self.load_param(warp, ins, &part)?,
                        _ => self.load_global(warp, ins, &part)?,
                    }
                }
                Ok(())
            }
        }
    }

    #[inline(never)]
    fn store_other(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        if ins.space == Space::Local {
            return self.store_local(warp, ins, addresses);
        }
        for (space, part) in self.split(addresses) {
            match space {
                Space::Shared => self.store_shared(warp, ins, &part)?,
                Space::Local => self.store_local(warp, ins, &part)?,
                Space::Param => {
                    let what = "a write to the kernel's parameters".into();
                    return Err(self.fault(warp, ins, part.exec, FaultKind::ReadOnly, Some(part.least), what));
                }
                _ => self.store_global(warp, ins, &part)?,
            }
        }
        Ok(())
    }

    /// Faults of an access that is misaligned or ends after `end` bytes of a small memory.
    #[inline(always)]
    pub(super) fn inside(
        &self,
        warp: &Warp,
        ins: &Ins,
        addresses: &Addresses,
        end: u64,
        name: &str,
    ) -> Result<(), Box<Fault>> {
        let bytes = bytes_of(ins);
        if addresses.bits & (bytes - 1) == 0 && addresses.most <= end.wrapping_sub(bytes) && bytes <= end {
            return Ok(());
        }
        Err(self.outside(warp, ins, addresses, end, name))
    }

    #[cold]
    #[inline(never)]
    fn outside(&self, warp: &Warp, ins: &Ins, addresses: &Addresses, end: u64, name: &str) -> Box<Fault> {
        let bytes = bytes_of(ins);
        if let Some(lane) = addresses.first(|at| at % bytes != 0) {
            return self.misaligned(warp, ins, lane, addresses.at[lane]);
        }
        let lane = addresses.first(|at| bytes > end || at > end - bytes).unwrap_or(0);
        let at = addresses.at[lane];
        let what = format!("{bytes} bytes at {at:#x} of {end:#x} bytes of {name} memory");
        self.fault(warp, ins, 1 << lane, FaultKind::OutOfBounds, Some(at), what)
    }

    #[cold]
    pub(super) fn misaligned(&self, warp: &Warp, ins: &Ins, lane: usize, at: u64) -> Box<Fault> {
        let what = format!("an access of {} bytes at {at:#x}, which is no multiple of that", bytes_of(ins));
        self.fault(warp, ins, 1 << lane, FaultKind::Misaligned, Some(at), what)
    }

    #[cold]
    pub(super) fn unwritten(&self, warp: &Warp, ins: &Ins, lane: usize, at: u64, name: &str) -> Box<Fault> {
        let what = format!("reads {} bytes at {at:#x} of {name} memory; not all of them were written", bytes_of(ins));
        self.fault(warp, ins, 1 << lane, FaultKind::UninitialisedMemory, Some(at), what)
    }

    fn load_local(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.counts.local_accesses += 1;
        let each = u64::from(self.function.local_bytes);
        self.inside(warp, ins, addresses, each, "local")?;
        let bytes = bytes_of(ins);
        let mut raw = [[0u8; 16]; 32];
        for lane in ones(addresses.exec) {
            let at = lane as u64 * each + addresses.at[lane];
            if (at..at + bytes).any(|at| warp.local_written[(at / 8) as usize] >> (at % 8) & 1 == 0) {
                return Err(self.unwritten(warp, ins, lane, addresses.at[lane], "local"));
            }
            raw[lane][..bytes as usize].copy_from_slice(&warp.local[at as usize..(at + bytes) as usize]);
        }
        deliver_raw(warp, ins, addresses.exec, &raw);
        Ok(())
    }

    fn store_local(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.counts.local_accesses += 1;
        let each = u64::from(self.function.local_bytes);
        self.inside(warp, ins, addresses, each, "local")?;
        let size = u64::from(ins.ty.bits() / 8);
        for element in 0..u64::from(ins.sub) {
            let (values, _) = warp.get(self.code, ins.r[element as usize]);
            for lane in ones(addresses.exec) {
                let at = lane as u64 * each + addresses.at[lane] + element * size;
                for byte in 0..size {
                    warp.local[(at + byte) as usize] = (values[lane] >> (8 * byte)) as u8;
                    warp.local_written[((at + byte) / 8) as usize] |= 1 << ((at + byte) % 8);
                }
            }
        }
        Ok(())
    }

    fn load_param(&mut self, warp: &mut Warp, ins: &Ins, addresses: &Addresses) -> Done {
        self.inside(warp, ins, addresses, self.params.len() as u64, "parameter")?;
        let bytes = bytes_of(ins) as usize;
        let mut raw = [[0u8; 16]; 32];
        for lane in ones(addresses.exec) {
            let at = addresses.at[lane] as usize;
            raw[lane][..bytes].copy_from_slice(&self.params[at..at + bytes]);
        }
        deliver_raw(warp, ins, addresses.exec, &raw);
        Ok(())
    }
}

/// Writes what a load read into its registers, extended as the type says.
fn deliver_raw(warp: &mut Warp, ins: &Ins, exec: u32, raw: &[[u8; 16]; 32]) {
    let size = ins.ty.bits() as usize / 8;
    for element in 0..ins.sub as usize {
        let mut values = [0; 32];
        for (value, raw) in values.iter_mut().zip(raw) {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(&raw[element * size..(element + 1) * size]);
            *value = u64::from_le_bytes(bytes);
        }
        deliver(warp, ins, ins.r[element], exec, &values);
    }
}

/// Writes one element of a load into its register.
#[inline(always)]
pub(super) fn deliver(warp: &mut Warp, ins: &Ins, slot: Slot, exec: u32, values: &[u64; 32]) {
    if slot == NONE {
        return;
    }
    let mask = if ins.mode == 64 { u64::MAX } else { (1 << ins.mode) - 1 };
    let mut out = [0; 32];
    match ins.ty {
        Ty::S8 | Ty::S16 | Ty::S32 => {
            for lane in 0..32 {
                out[lane] = ins.ty.extend(values[lane]) & mask;
            }
        }
        // Read with zeros above.
        _ => out = *values,
    }
    warp.put(slot, exec, &out);
}
