//! Loads, stores and atomics: every access is checked, and counted as the interpreter of PTX counts it.

use super::alu;
use super::block::{DESCRIPTOR, Env};
use super::ir::{Access, Ins, Op, Place, Slot, Space, ZERO};
use super::warp::Warp;
use crate::exec::{Addresses, Fault, FaultKind, Touch, ones, sectors};
use crate::memory::{self, AccessError};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

type Done = Result<(), Box<Fault>>;

/// What a lane reads or writes: up to four words.
type Words = [[u32; 4]; 32];

impl Env<'_> {
    pub(super) fn access(&mut self, warp: &mut Warp, pc: u32, ins: &Ins, exec: u32) -> Done {
        match ins.op {
            Op::LoadConstant { bytes } => self.load_constant(warp, pc, ins, exec, bytes),
            Op::Load(access) => {
                let words = self.load(warp, pc, ins, exec, access)?;
                for at in 0..access.bytes.div_ceil(4) {
                    if ins.dst != ZERO {
                        let value = words.map(|words| words[usize::from(at)]);
                        warp.put(ins.dst + Slot::from(at), exec, &value);
                    }
                }
                Ok(())
            }
            Op::Store(access) => self.store(warp, pc, ins, exec, access),
            _ => self.atomic(warp, pc, ins, exec),
        }
    }

    fn load_constant(&self, warp: &mut Warp, pc: u32, ins: &Ins, exec: u32, bytes: u8) -> Done {
        let Place::Constant { bank, index, offset } = ins.src[0].place else { unreachable!("decoded as a constant") };
        let lanes = if ins.uniform { u32::MAX } else { exec };
        let word = |at: u32| self.constant::<4>(warp, pc, (bank, index, offset + 4 * at), lanes);
        let words: Vec<_> = (0..u32::from(bytes) / 4).map(word).collect::<Result<_, _>>()?;
        let at = |lane: usize| warp.registers[usize::from(index)][lane].wrapping_add(offset);
        if let Some(lane) = ones(lanes).find(|&lane| !at(lane).is_multiple_of(bytes.into())) {
            let at = at(lane);
            let what = format!("{bytes} bytes at {at:#x} of constant bank {bank}, which is no multiple of that");
            return Err(self.fault(warp, pc, 1 << lane, FaultKind::Misaligned, Some(at.into()), what));
        }
        for (slot, word) in (ins.dst..).zip(words).filter(|_| ins.dst != ZERO) {
            warp.put(slot, lanes, &word.map(u32::from_le_bytes));
        }
        Ok(())
    }

    /// Returns where the lanes' accesses go, aligned and inside what is live.
    fn addresses(
        &mut self,
        warp: &Warp,
        pc: u32,
        ins: &Ins,
        exec: u32,
        (space, bytes, touch): (Space, u64, Touch),
    ) -> Result<Addresses, Box<Fault>> {
        let address = ins.address;
        let register = |slot: Slot| -> Result<[u32; 32], Box<Fault>> {
            self.defined(warp, pc, slot, exec)?;
            Ok(warp.registers[usize::from(slot)])
        };
        let pair = |slot: Slot| -> Result<[u64; 32], Box<Fault>> {
            let (low, high) = (register(slot)?, if slot == ZERO { [0; 32] } else { register(slot + 1)? });
            Ok(std::array::from_fn(|lane| u64::from(low[lane]) | u64::from(high[lane]) << 32))
        };
        let base = if address.wide { pair(address.base)? } else { register(address.base)?.map(u64::from) };
        let global = space == Space::Global;
        let uniform = if global { pair(address.uniform)? } else { register(address.uniform)?.map(u64::from) };
        if address.descriptor != ZERO && pair(address.descriptor)?[0] != DESCRIPTOR {
            let what = "the descriptor of the memory is another one than the driver's".into();
            return Err(self.fault(warp, pc, exec, FaultKind::OutOfBounds, None, what));
        }
        let raw = std::array::from_fn(|lane| {
            let at = (base[lane] * u64::from(address.scale)).wrapping_add(uniform[lane]);
            let at = at.wrapping_add(address.offset as u64);
            if global { at } else { at & 0xffff_ffff }
        });
        let addresses = Addresses::new(exec, &raw, 0);
        if let Some(lane) = addresses.first(|at| at % bytes != 0) {
            let at = addresses.at[lane];
            let what = format!("an access of {bytes} bytes at {at:#x}, which is no multiple of that");
            return Err(self.fault(warp, pc, 1 << lane, FaultKind::Misaligned, Some(at), what));
        }
        match space {
            Space::Global => self.touch_global(warp, pc, &addresses, bytes, touch)?,
            Space::Shared => self.touch_shared(warp, pc, &addresses, bytes, touch)?,
            Space::Local => {
                self.counts.local_accesses += 1;
                self.inside(warp, pc, &addresses, bytes, (0, self.function.kernel.stack.into(), "local"))?;
            }
        }
        Ok(addresses)
    }

    /// Faults of an access outside of a small memory.
    fn inside(
        &self,
        warp: &Warp,
        pc: u32,
        addresses: &Addresses,
        bytes: u64,
        (from, to, name): (u64, u64, &str),
    ) -> Done {
        let Some(lane) = addresses.first(|at| at < from || at + bytes > to) else { return Ok(()) };
        let at = addresses.at[lane];
        let what = format!("{bytes} bytes at {at:#x} of {name} memory, which is from {from:#x} to {to:#x}");
        Err(self.fault(warp, pc, 1 << lane, FaultKind::OutOfBounds, Some(at), what))
    }

    fn touch_global(&mut self, warp: &Warp, pc: u32, addresses: &Addresses, bytes: u64, touch: Touch) -> Done {
        self.counts.global_accesses += 1;
        let sectors = sectors(addresses);
        match touch {
            Touch::Read => self.counts.global_sectors_read += sectors,
            Touch::Write => self.counts.global_sectors_written += sectors,
            Touch::Atomic => self.counts.global_sectors_atomic += sectors,
        }
        let write = touch != Touch::Read;
        let length = addresses.most - addresses.least;
        if let Some(range) = self.ranges.get(self.sites[pc as usize] as usize)
            && length < 1 << 40
            && range.contains(addresses.least, length + bytes)
            && !(write && range.read_only)
        {
            return Ok(());
        }
        let access = if write { memory::Access::Write } else { memory::Access::Read };
        for lane in ones(addresses.exec) {
            let address = addresses.at[lane];
            let (kind, error) = match memory::check(self.ranges, address, bytes, bytes, access) {
                Ok(range) => {
                    self.sites[pc as usize] = range as u32;
                    continue;
                }
                Err(error @ AccessError::Misaligned { .. }) => (FaultKind::Misaligned, error),
                Err(error @ AccessError::OutOfBounds { .. }) => (FaultKind::OutOfBounds, error),
                Err(error @ AccessError::ReadOnly { .. }) => (FaultKind::ReadOnly, error),
            };
            let what = format!("{} {error}", if write { "writes to" } else { "reads from" });
            return Err(self.fault(warp, pc, 1 << lane, kind, Some(address), what));
        }
        Ok(())
    }

    fn touch_shared(&mut self, warp: &Warp, pc: u32, addresses: &Addresses, bytes: u64, touch: Touch) -> Done {
        let own = (self.function.layout.reserved_shared.into(), self.shared.len() as u64, "shared");
        self.inside(warp, pc, addresses, bytes, own)?;
        self.counts.shared_accesses += 1;
        self.counts.shared_wavefronts += self.banks.wavefronts(addresses, bytes);
        let index = warp.index as usize;
        if let Some(races) = &mut self.races {
            // The instructions of a warp are issued one after the other, so that its lanes race with other warps only.
            races.warp_sync(index, u32::MAX, u32::MAX);
            if let Err(race) = races.access(index, addresses.exec, &addresses.at, bytes, touch) {
                let [x, y, z] = self.geometry.thread(race.other);
                let what = format!(
                    "{touch:?} of shared byte {:#x}, which thread [{x}, {y}, {z}] {} with no barrier between",
                    race.address,
                    if race.other_wrote { "wrote" } else { "read" },
                );
                return Err(self.fault(warp, pc, 1 << race.lane, FaultKind::Race, Some(race.address), what));
            }
        }
        for lane in ones(addresses.exec) {
            let at = addresses.at[lane];
            let written = &mut self.shared_written[at as usize..(at + bytes) as usize];
            if touch == Touch::Write {
                written.fill(true);
            } else if !written.iter().all(|&written| written) {
                return Err(self.unwritten(warp, pc, lane, (at, bytes), "shared"));
            }
        }
        Ok(())
    }

    #[cold]
    fn unwritten(&self, warp: &Warp, pc: u32, lane: usize, (at, bytes): (u64, u64), name: &str) -> Box<Fault> {
        let what = format!("reads {bytes} bytes at {at:#x} of {name} memory; not all of them were written");
        self.fault(warp, pc, 1 << lane, FaultKind::UninitialisedMemory, Some(at), what)
    }

    /// Where a lane's local memory has an address.
    fn local(&self, lane: usize, at: u64) -> usize {
        lane * self.function.kernel.stack as usize + at as usize
    }

    fn load(&mut self, warp: &Warp, pc: u32, ins: &Ins, exec: u32, access: Access) -> Result<Words, Box<Fault>> {
        let Access { space, bytes, signed } = access;
        let size = u64::from(bytes);
        let addresses = self.addresses(warp, pc, ins, exec, (space, size, Touch::Read))?;
        let mut words: Words = [[0; 4]; 32];
        for lane in ones(exec) {
            let at = addresses.at[lane];
            let words = &mut words[lane];
            if space == Space::Global {
                // SAFETY: `addresses` found the lane's bytes in a live range, aligned. The range's bytes outlive the launch,
                // which holds a copy of it or, for registered memory, by the caller's promise. Other threads touch them
                // atomically, as here.
                unsafe {
                    match bytes {
                        1 => words[0] = AtomicU8::from_ptr(at as *mut u8).load(Relaxed).into(),
                        2 => words[0] = AtomicU16::from_ptr(at as *mut u16).load(Relaxed).into(),
                        _ => {
                            for (word, at) in words.iter_mut().zip((at..at + size).step_by(4)) {
                                *word = AtomicU32::from_ptr(at as *mut u32).load(Relaxed);
                            }
                        }
                    }
                }
            } else {
                let from = match space {
                    Space::Shared => &self.shared[at as usize..(at + size) as usize],
                    _ => {
                        let at_local = self.local(lane, at);
                        if !warp.local_written[at_local..at_local + size as usize].iter().all(|&written| written) {
                            return Err(self.unwritten(warp, pc, lane, (at, size), "local"));
                        }
                        &warp.local[at_local..at_local + size as usize]
                    }
                };
                for (at, byte) in from.iter().enumerate() {
                    words[at / 4] |= u32::from(*byte) << (8 * (at % 4));
                }
            }
            if signed {
                let left = 32 - 8 * u32::from(bytes);
                words[0] = ((words[0] << left) as i32 >> left) as u32;
            }
        }
        Ok(words)
    }

    fn store(&mut self, warp: &mut Warp, pc: u32, ins: &Ins, exec: u32, access: Access) -> Done {
        let Access { space, bytes, .. } = access;
        let size = u64::from(bytes);
        let Place::Slot(slot) = ins.src[0].place else {
            return Err(self.fault(warp, pc, exec, FaultKind::Trap, None, "stores what is no register".into()));
        };
        let mut words: Words = [[0; 4]; 32];
        for at in 0..if slot == ZERO { 0 } else { Slot::from(bytes.div_ceil(4)) } {
            self.defined(warp, pc, slot + at, exec)?;
            for lane in ones(exec) {
                words[lane][usize::from(at)] = warp.registers[usize::from(slot + at)][lane];
            }
        }
        let addresses = self.addresses(warp, pc, ins, exec, (space, size, Touch::Write))?;
        for lane in ones(exec) {
            let (at, words) = (addresses.at[lane], &words[lane]);
            if space == Space::Global {
                // SAFETY: as in `load`, and the range may be written.
                unsafe {
                    match bytes {
                        1 => AtomicU8::from_ptr(at as *mut u8).store(words[0] as u8, Relaxed),
                        2 => AtomicU16::from_ptr(at as *mut u16).store(words[0] as u16, Relaxed),
                        _ => {
                            for (word, at) in words.iter().zip((at..at + size).step_by(4)) {
                                AtomicU32::from_ptr(at as *mut u32).store(*word, Relaxed);
                            }
                        }
                    }
                }
                continue;
            }
            let to = match space {
                Space::Shared => &mut self.shared[at as usize..(at + size) as usize],
                _ => {
                    let at = self.local(lane, at);
                    warp.local_written[at..at + size as usize].fill(true);
                    &mut warp.local[at..at + size as usize]
                }
            };
            for (at, byte) in to.iter_mut().enumerate() {
                *byte = (words[at / 4] >> (8 * (at % 4))) as u8;
            }
        }
        Ok(())
    }

    fn atomic(&mut self, warp: &mut Warp, pc: u32, ins: &Ins, exec: u32) -> Done {
        let Op::Atomic { space, fold, signed } = ins.op else { unreachable!("decoded as an atomic") };
        let values = self.number(warp, pc, &ins.src[0], exec)?;
        let addresses = self.addresses(warp, pc, ins, exec, (space, 4, Touch::Atomic))?;
        let mut old = [0; 32];
        for lane in ones(exec) {
            let at = addresses.at[lane];
            let change = |old: u32| alu::fold(fold, signed, old, values[lane]);
            if space == Space::Global {
                // SAFETY: as in `load`, and the range may be written.
                let word = unsafe { AtomicU32::from_ptr(at as *mut u32) };
                old[lane] = word.fetch_update(SeqCst, SeqCst, |old| Some(change(old))).unwrap_or_else(|old| old);
            } else {
                let bytes = &mut self.shared[at as usize..at as usize + 4];
                old[lane] = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
                bytes.copy_from_slice(&change(old[lane]).to_le_bytes());
            }
        }
        warp.put(ins.dst, exec, &old);
        Ok(())
    }
}
