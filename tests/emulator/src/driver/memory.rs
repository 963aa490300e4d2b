//! The entry points of memory: allocated, pinned, copied, set, asked after.

use std::ffi::c_void;
use std::sync::Arc;

use super::codes::*;
use super::context::{READ_ONLY, is_host};
use super::entry::{Call, entries, put, put_if};
use super::state::{Allocation, State};
use super::work::{End, Work};
use crate::memory::{Kind, Memory};

impl State {
    /// Ends an allocation of any kind, and gives its bytes back.
    pub fn forget(&mut self, address: u64) {
        let Some(allocation) = self.allocations.remove(&address) else { return };
        let mut ranges = Vec::new();
        if is_host(allocation.kind) {
            ranges.extend(self.contexts.values().map(|context| context.memory.free(address)));
            ranges.push(self.pinned.free(address));
        } else if let Some(owner) = self.contexts.get(&allocation.context) {
            ranges.push(owner.memory.free(address));
        }
        if ranges.into_iter().flatten().any(|range| !range.guards_intact()) {
            let text = format!("the host wrote outside the {} bytes at {address:#x}", allocation.bytes);
            self.poison(allocation.context, ILLEGAL_ADDRESS, text);
        }
    }
}

impl Call {
    fn note(&mut self, address: u64, bytes: u64, kind: Kind, context: usize, flags: u32) {
        let id = self.number();
        self.allocations.insert(address, Allocation { bytes, context, kind, freeing: false, id, flags });
    }

    /// Takes new bytes from the host, sparse if there are many.
    fn new_block(&self, memory: &Memory, bytes: usize, kind: Kind, context: usize) -> Result<u64> {
        let (bytes, owner) = (bytes as u64, context as u64);
        let sparse = self.config.sparse != 0 && bytes >= self.config.sparse;
        let new = if sparse { memory.alloc_sparse(bytes, kind, owner) } else { memory.alloc(bytes, kind, owner) };
        new.ok_or(OUT_OF_MEMORY)
    }

    /// Allocates memory of the current context's device.
    fn alloc(&mut self, bytes: usize, kind: Kind, context: usize) -> Result<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let used = self.used(self.contexts[&context].device);
        if used.checked_add(bytes as u64).is_none_or(|sum| sum > self.config.memory) {
            return Err(OUT_OF_MEMORY);
        }
        let address = self.new_block(&self.contexts[&context].memory, bytes, kind, context)?;
        self.note(address, bytes as u64, kind, context, 0);
        Ok(address)
    }

    fn alloc_async(&mut self, bytes: usize, stream: usize) -> Result<u64> {
        if !self.config.memory_pools {
            return Err(NOT_SUPPORTED);
        }
        let context = self.streams[&stream].context;
        self.submit_uncapturable(stream, Work::Join)?;
        self.alloc(bytes, Kind::Device, context)
    }

    fn alloc_host(&mut self, bytes: usize, flags: u32) -> Result<usize> {
        if bytes == 0 || flags > 7 {
            return Err(INVALID_VALUE);
        }
        self.unsafe_in_capture()?;
        let context = self.current()?;
        let address = self.new_block(&self.pinned, bytes, Kind::HostPinned, context)?;
        for (&handle, other) in self.contexts.iter().filter(|(_, other)| other.alive) {
            other.memory.register(address, bytes as u64, Kind::HostPinned, handle as u64, false);
        }
        self.note(address, bytes as u64, Kind::HostPinned, context, flags);
        Ok(address as usize)
    }

    /// Returns an end of a copy that must be memory that the driver knows.
    fn known(&self, address: u64, bytes: usize) -> Result<End> {
        if bytes == 0 || self.find(address, bytes as u64).is_some() {
            Ok(End::Known(address))
        } else {
            Err(INVALID_VALUE)
        }
    }

    /// Returns an end of a copy: the driver's memory, or the caller's. Memory that is both is an error.
    fn any(&self, address: u64, bytes: usize) -> Result<End> {
        if bytes == 0 || self.find(address, bytes as u64).is_some() {
            return Ok(End::Known(address));
        }
        let end = address.checked_add(bytes as u64).ok_or(INVALID_VALUE)?;
        let overlaps = self.allocations.range(..end).next_back().is_some_and(|(at, a)| at + a.bytes > address);
        if overlaps || address == 0 { Err(INVALID_VALUE) } else { Ok(End::Pageable(address)) }
    }

    /// Returns an end of a copy between devices: memory of that context, or pinned.
    fn of_context(&self, address: u64, bytes: usize, context: usize) -> Result<End> {
        let context = self.living(context)?;
        let end = self.known(address, bytes)?;
        match self.find(address, bytes as u64) {
            Some((_, found)) if found.context != context && !is_host(found.kind) => Err(INVALID_VALUE),
            _ => Ok(end),
        }
    }

    /// Queues a copy. From pageable memory the bytes are taken now; to pageable memory the call waits.
    ///
    /// # Safety
    /// Pageable ends are the caller's, valid for that many bytes.
    unsafe fn copy(&mut self, to: End, from: End, bytes: usize, stream: usize) -> Result {
        if bytes == 0 {
            return Ok(());
        }
        match (to, from) {
            (End::Known(to), End::Pageable(from)) => {
                // SAFETY: this function requires that the address is valid for as many bytes.
                let data: Arc<[u8]> = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }.into();
                self.submit_uncapturable(stream, Work::Write { to, data })
            }
            (End::Pageable(_), _) => {
                self.submit_uncapturable(stream, Work::Copy { to, from, bytes: bytes as u64 })?;
                let (op, context) = (self.streams[&stream].last, self.streams[&stream].context);
                self.drive(&[op]);
                self.sticky(context)
            }
            _ => self.submit(stream, Work::Copy { to, from, bytes: bytes as u64 }),
        }
    }

    /// Copies in the default stream, and returns when that is done; copies between device memories are only queued.
    fn copy_now(&mut self, to: End, from: End, bytes: usize) -> Result {
        let stream = self.stream(0)?;
        if bytes == 0 {
            return Ok(());
        }
        let on_device = |end: End| match end {
            End::Known(address) => self.find(address, 1).is_some_and(|(_, found)| !is_host(found.kind)),
            End::Pageable(_) => false,
        };
        let work = Work::Copy { to, from, bytes: bytes as u64 };
        if on_device(to) && on_device(from) {
            self.observe_stream(stream)?;
            return self.submit(stream, work);
        }
        self.submit_and_wait(stream, work)
    }

    /// Queues a memset; `pitch`-less ones only.
    fn set(&mut self, to: u64, value: u32, width: u32, count: usize, stream: usize) -> Result {
        let bytes = count.checked_mul(width as usize).ok_or(INVALID_VALUE)?;
        if !to.is_multiple_of(u64::from(width)) {
            return Err(INVALID_VALUE);
        }
        if count == 0 {
            return Ok(());
        }
        self.known(to, bytes)?;
        self.submit(stream, Work::Set { to, value, width, count: count as u64 })
    }

    /// Sets memory in the default stream: queued, but done at once on host memory.
    fn set_now(&mut self, to: u64, value: u32, width: u32, count: usize) -> Result {
        let stream = self.stream(0)?;
        self.observe_stream(stream)?;
        self.set(to, value, width, count, stream)?;
        if self.find(to, 1).is_some_and(|(_, found)| is_host(found.kind)) {
            let (op, context) = (self.streams[&stream].last, self.streams[&stream].context);
            self.drive(&[op]);
            return self.sticky(context);
        }
        Ok(())
    }

    /// Waits for everything that may use an allocation, then ends it.
    fn free_now(&mut self, address: u64, kinds: &[Kind]) -> Result {
        let fits = |found: &&Allocation| !found.freeing && kinds.contains(&found.kind);
        let found = self.allocations.get(&address).filter(fits).ok_or(INVALID_VALUE)?;
        let (context, host) = (found.context, is_host(found.kind));
        self.unsafe_in_capture()?;
        if host {
            let all: Vec<u64> = self.ops.keys().copied().collect();
            self.drive(&all);
        } else {
            self.drive_context(context);
        }
        // Another thread may have freed it meanwhile.
        if !self.allocations.contains_key(&address) {
            return Err(INVALID_VALUE);
        }
        self.forget(address);
        Ok(())
    }

    /// Returns an attribute of an address; None where it is not the driver's.
    fn pointer_attribute(&self, attribute: i32, address: u64) -> Result<Option<u64>> {
        let Some((start, found)) = self.find(address, 1) else { return Ok(None) };
        let host = is_host(found.kind);
        Ok(Some(match attribute {
            1 => found.context as u64,
            2 => {
                if host {
                    1
                } else {
                    2
                }
            }
            3 => address,
            4 if host || found.kind == Kind::Managed => address,
            4 => return Ok(None),
            6 => 0,
            7 => found.id,
            8 => u64::from(found.kind == Kind::Managed),
            9 => self.contexts[&found.context].device as u64,
            10 | 14 | 15 => 0,
            11 => start,
            12 => found.bytes,
            13 => 1,
            16 => 3,
            _ => return Err(INVALID_VALUE),
        }))
    }
}

/// Writes an attribute of an address: 4 or 8 bytes, as the attribute has them.
///
/// # Safety
/// `place` is NULL or has room for it.
unsafe fn put_attribute(place: *mut c_void, attribute: i32, value: u64) -> Result {
    // SAFETY: this function's own contract.
    unsafe {
        match attribute {
            2 | 6 | 8 | 9 | 10 | 13 | 15 | 16 => put(place.cast::<u32>(), value as u32),
            _ => put(place.cast::<u64>(), value),
        }
    }
}

entries! {
    /// Device memory.
    Context fn cuMemAlloc_v2(call, address: *mut u64, bytes: usize) {
        if address.is_null() { return Err(INVALID_VALUE) }
        call.unsafe_in_capture()?;
        let context = call.current()?;
        let start = call.alloc(bytes, Kind::Device, context)?;
        put(address, start)
    }

    /// Managed memory: the emulator's device and host share it anyway.
    Context fn cuMemAllocManaged(call, address: *mut u64, bytes: usize, flags: u32) {
        if address.is_null() || !matches!(flags, 1 | 2) { return Err(INVALID_VALUE) }
        call.unsafe_in_capture()?;
        let context = call.current()?;
        let start = call.alloc(bytes, Kind::Managed, context)?;
        put(address, start)
    }

    /// Waits for the context's work, and frees. NULL is nothing.
    Release fn cuMemFree_v2(call, address: u64) {
        if address == 0 { return Ok(()) }
        call.free_now(address, &[Kind::Device, Kind::Managed])
    }

    /// Device memory, known at once; a capture cannot hold it here.
    Context(cuMemAllocAsync_ptsz) fn cuMemAllocAsync(call, address: *mut u64, bytes: usize, stream: usize) {
        if address.is_null() { return Err(INVALID_VALUE) }
        let stream = call.stream(stream)?;
        let start = call.alloc_async(bytes, stream)?;
        put(address, start)
    }

    /// The same from a named pool.
    Context(cuMemAllocFromPoolAsync_ptsz) fn cuMemAllocFromPoolAsync(
        call, address: *mut u64, bytes: usize, pool: usize, stream: usize,
    ) {
        if address.is_null() || !call.pools.contains_key(&pool) { return Err(INVALID_VALUE) }
        let stream = call.stream(stream)?;
        let start = call.alloc_async(bytes, stream)?;
        put(address, start)
    }

    /// Frees after the stream's work.
    Context(cuMemFreeAsync_ptsz) fn cuMemFreeAsync(call, address: u64, stream: usize) {
        let stream = call.stream(stream)?;
        let fits = |found: &&Allocation| !found.freeing && found.kind == Kind::Device;
        if call.allocations.get(&address).filter(fits).is_none() { return Err(INVALID_VALUE) }
        if !call.capturing(stream) {
            call.allocations.get_mut(&address).unwrap().freeing = true;
        }
        call.submit_uncapturable(stream, Work::Free { address })
    }

    /// Free and total bytes of the current context's device.
    Context fn cuMemGetInfo_v2(call, free: *mut usize, total: *mut usize) {
        let context = call.current()?;
        let used = call.used(call.contexts[&context].device);
        put_if(free, call.config.memory.saturating_sub(used) as usize);
        put_if(total, call.config.memory as usize);
        Ok(())
    }

    /// The allocation around an address.
    Context fn cuMemGetAddressRange_v2(call, start: *mut u64, bytes: *mut usize, address: u64) {
        let Some((first, found)) = call.find(address, 1) else { return Err(NOT_FOUND) };
        put_if(start, first);
        put_if(bytes, found.bytes as usize);
        Ok(())
    }

    /// Pinned memory, which every context may use.
    Context fn cuMemHostAlloc(call, address: *mut usize, bytes: usize, flags: u32) {
        if address.is_null() { return Err(INVALID_VALUE) }
        let start = call.alloc_host(bytes, flags)?;
        put(address, start)
    }

    /// Pinned memory, which every context may use.
    Context fn cuMemAllocHost_v2(call, address: *mut usize, bytes: usize) {
        if address.is_null() { return Err(INVALID_VALUE) }
        let start = call.alloc_host(bytes, 0)?;
        put(address, start)
    }

    /// Waits for all work, and frees pinned memory.
    Release fn cuMemFreeHost(call, address: usize) {
        call.free_now(address as u64, &[Kind::HostPinned])
    }

    /// Pins the caller's memory.
    Context fn cuMemHostRegister_v2(call, address: usize, bytes: usize, flags: u32) {
        if address == 0 || bytes == 0 || flags > 15 { return Err(INVALID_VALUE) }
        let end = address.checked_add(bytes).ok_or(INVALID_VALUE)? as u64;
        call.unsafe_in_capture()?;
        let overlaps = |(at, found): (&u64, &Allocation)| at + found.bytes > address as u64;
        if call.allocations.range(..end).next_back().is_some_and(overlaps) {
            return Err(HOST_MEMORY_ALREADY_REGISTERED);
        }
        let context = call.current()?;
        for (&handle, other) in call.contexts.iter().filter(|(_, other)| other.alive) {
            let read_only = flags & READ_ONLY != 0;
            other.memory.register(address as u64, bytes as u64, Kind::HostRegistered, handle as u64, read_only);
        }
        call.note(address as u64, bytes as u64, Kind::HostRegistered, context, flags);
        Ok(())
    }

    /// Waits for all work, and lets the caller's memory go.
    Release fn cuMemHostUnregister(call, address: usize) {
        let found = call.allocations.get(&(address as u64));
        if found.is_none_or(|found| found.kind != Kind::HostRegistered) { return Err(HOST_MEMORY_NOT_REGISTERED) }
        call.free_now(address as u64, &[Kind::HostRegistered])
    }

    /// Pinned and registered memory has the same address on the device.
    Context fn cuMemHostGetDevicePointer_v2(call, device: *mut u64, host: usize, flags: u32) {
        if flags != 0 { return Err(INVALID_VALUE) }
        let found = call.find(host as u64, 1).filter(|(_, found)| is_host(found.kind));
        if found.is_none() { return Err(INVALID_VALUE) }
        put(device, host as u64)
    }

    /// As it was allocated.
    Context fn cuMemHostGetFlags(call, flags: *mut u32, host: usize) {
        let found = call.find(host as u64, 1).filter(|(_, found)| found.kind == Kind::HostPinned);
        put(flags, found.ok_or(INVALID_VALUE)?.1.flags)
    }

    /// One attribute of an address; INVALID_VALUE where it is not the driver's.
    Context fn cuPointerGetAttribute(call, data: *mut c_void, attribute: i32, address: u64) {
        let value = call.pointer_attribute(attribute, address)?.ok_or(INVALID_VALUE)?;
        put_attribute(data, attribute, value)
    }

    /// Several attributes of an address; zeros where it is not the driver's.
    Context fn cuPointerGetAttributes(
        call, count: u32, attributes: *const i32, data: *mut *mut c_void, address: u64,
    ) {
        if attributes.is_null() || data.is_null() { return Err(INVALID_VALUE) }
        for at in 0..count as usize {
            let (attribute, place) = (attributes.add(at).read_unaligned(), data.add(at).read_unaligned());
            // A device of -2 is what a driver says of memory that belongs to none.
            let none = if attribute == 9 { -2i32 as u32 as u64 } else { 0 };
            let value = call.pointer_attribute(attribute, address)?.unwrap_or(none);
            put_attribute(place, attribute, value)?;
        }
        Ok(())
    }

    /// Host to device, done at return.
    Context(cuMemcpyHtoD_v2_ptds) fn cuMemcpyHtoD_v2(call, to: u64, from: *const c_void, bytes: usize) {
        let (to, from) = (call.known(to, bytes)?, call.any(from as u64, bytes)?);
        call.copy_now(to, from, bytes)
    }

    /// Device to host, done at return.
    Context(cuMemcpyDtoH_v2_ptds) fn cuMemcpyDtoH_v2(call, to: *mut c_void, from: u64, bytes: usize) {
        let (to, from) = (call.any(to as u64, bytes)?, call.known(from, bytes)?);
        call.copy_now(to, from, bytes)
    }

    /// Device to device, queued at return.
    Context(cuMemcpyDtoD_v2_ptds) fn cuMemcpyDtoD_v2(call, to: u64, from: u64, bytes: usize) {
        let (to, from) = (call.known(to, bytes)?, call.known(from, bytes)?);
        call.copy_now(to, from, bytes)
    }

    /// Between any two.
    Context(cuMemcpy_ptds) fn cuMemcpy(call, to: u64, from: u64, bytes: usize) {
        let (to, from) = (call.any(to, bytes)?, call.any(from, bytes)?);
        call.copy_now(to, from, bytes)
    }

    /// Host to device: pageable bytes are taken now, pinned ones when the stream comes to it.
    Context(cuMemcpyHtoDAsync_v2_ptsz) fn cuMemcpyHtoDAsync_v2(
        call, to: u64, from: *const c_void, bytes: usize, stream: usize,
    ) {
        let stream = call.stream(stream)?;
        let (to, from) = (call.known(to, bytes)?, call.any(from as u64, bytes)?);
        call.copy(to, from, bytes, stream)
    }

    /// Device to host: to pageable memory it is done at return.
    Context(cuMemcpyDtoHAsync_v2_ptsz) fn cuMemcpyDtoHAsync_v2(
        call, to: *mut c_void, from: u64, bytes: usize, stream: usize,
    ) {
        let stream = call.stream(stream)?;
        let (to, from) = (call.any(to as u64, bytes)?, call.known(from, bytes)?);
        call.copy(to, from, bytes, stream)
    }

    /// Device to device.
    Context(cuMemcpyDtoDAsync_v2_ptsz) fn cuMemcpyDtoDAsync_v2(call, to: u64, from: u64, bytes: usize, stream: usize) {
        let stream = call.stream(stream)?;
        let (to, from) = (call.known(to, bytes)?, call.known(from, bytes)?);
        call.copy(to, from, bytes, stream)
    }

    /// From one context's memory to another's, queued at return.
    Context(cuMemcpyPeer_ptds) fn cuMemcpyPeer(
        call, to: u64, to_context: usize, from: u64, from_context: usize, bytes: usize,
    ) {
        let (to, from) = (call.of_context(to, bytes, to_context)?, call.of_context(from, bytes, from_context)?);
        call.copy_now(to, from, bytes)
    }

    /// From one context's memory to another's, in a stream of any context.
    Context(cuMemcpyPeerAsync_ptsz) fn cuMemcpyPeerAsync(
        call, to: u64, to_context: usize, from: u64, from_context: usize, bytes: usize, stream: usize,
    ) {
        let stream = call.stream(stream)?;
        let (to, from) = (call.of_context(to, bytes, to_context)?, call.of_context(from, bytes, from_context)?);
        call.copy(to, from, bytes, stream)
    }

    /// Between any two.
    Context(cuMemcpyAsync_ptsz) fn cuMemcpyAsync(call, to: u64, from: u64, bytes: usize, stream: usize) {
        let stream = call.stream(stream)?;
        let (to, from) = (call.any(to, bytes)?, call.any(from, bytes)?);
        call.copy(to, from, bytes, stream)
    }

    /// Bytes, in the default stream.
    Context(cuMemsetD8_v2_ptds) fn cuMemsetD8_v2(call, to: u64, value: u8, count: usize) {
        call.set_now(to, value.into(), 1, count)
    }

    /// 16-bit values, in the default stream.
    Context(cuMemsetD16_v2_ptds) fn cuMemsetD16_v2(call, to: u64, value: u16, count: usize) {
        call.set_now(to, value.into(), 2, count)
    }

    /// 32-bit values, in the default stream.
    Context(cuMemsetD32_v2_ptds) fn cuMemsetD32_v2(call, to: u64, value: u32, count: usize) {
        call.set_now(to, value, 4, count)
    }

    /// Bytes.
    Context(cuMemsetD8Async_ptsz) fn cuMemsetD8Async(call, to: u64, value: u8, count: usize, stream: usize) {
        let stream = call.stream(stream)?;
        call.set(to, value.into(), 1, count, stream)
    }

    /// 16-bit values.
    Context(cuMemsetD16Async_ptsz) fn cuMemsetD16Async(call, to: u64, value: u16, count: usize, stream: usize) {
        let stream = call.stream(stream)?;
        call.set(to, value.into(), 2, count, stream)
    }

    /// 32-bit values.
    Context(cuMemsetD32Async_ptsz) fn cuMemsetD32Async(call, to: u64, value: u32, count: usize, stream: usize) {
        let stream = call.stream(stream)?;
        call.set(to, value, 4, count, stream)
    }
}
