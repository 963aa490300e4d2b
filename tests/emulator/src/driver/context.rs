//! The entry points of contexts: made, retained, current, ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::codes::*;
use super::entry::{Call, entries, put, put_if};
use super::state::{Context, Handle, Order, Primary};
use crate::memory::{Kind, Memory};

/// The flags that `cuCtxCreate` and `cuDevicePrimaryCtxSetFlags` take.
const FLAGS: u32 = 0xFF;

/// The limits by number: stack size, printf buffer, heap, depth and launches of the device runtime, L2 fetches and
/// persisting L2.
const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];

impl Call {
    /// Creates a context, or restarts the primary one with the handle `old`.
    fn create_context(&mut self, device: i32, flags: u32, old: usize) -> usize {
        let handle = if old == 0 { self.handle(Handle::Context) } else { old };
        let memory = Memory::new();
        for (&start, found) in self.allocations.iter().filter(|(_, a)| is_host(a.kind)) {
            memory.register(start, found.bytes, found.kind, handle as u64, found.flags & READ_ONLY != 0);
        }
        let legacy = self.add_stream(handle, Order::Legacy, 0);
        let context = Context {
            id: self.number(),
            device,
            flags,
            primary: false,
            alive: true,
            memory: Arc::new(memory),
            legacy,
            per_thread: BTreeMap::new(),
            orphans: Vec::new(),
            sticky: 0,
            limits: LIMITS.iter().enumerate().map(|(at, &value)| (at as u32, value)).collect(),
            peers: BTreeSet::new(),
            cache_config: 0,
            shared_config: 0,
        };
        self.contexts.insert(handle, context);
        handle
    }

    /// Ends a context with all that is in it; what nobody had freed is counted as abandoned.
    fn destroy_context(&mut self, handle: usize) {
        self.drive_context(handle);
        let captures: Vec<u64> = self.captures.iter().filter(|(_, c)| c.context == handle).map(|(&id, _)| id).collect();
        for id in captures {
            self.take_capture(id);
        }
        let mut abandoned: Vec<(&'static str, usize)> = Vec::new();
        self.streams.retain(|_, stream| stream.context != handle || !stream.special());
        abandoned.push(("streams", remove(&mut self.streams, |stream| stream.context == handle)));
        abandoned.push(("events", remove(&mut self.events, |event| event.context == handle)));
        // A library's modules are not the caller's: the library lives on, and loads itself anew where it is needed.
        remove(&mut self.modules, |module| module.context == handle && module.of_library);
        abandoned.push(("modules", remove(&mut self.modules, |module| module.context == handle)));
        remove(&mut self.functions, |function| function.context == handle);
        let held: Vec<(u64, Kind)> =
            self.allocations.iter().filter(|(_, a)| a.context == handle).map(|(&at, a)| (at, a.kind)).collect();
        for (address, kind) in held {
            self.forget(address);
            abandoned.push((super::report::kind_name(kind), 1));
        }
        self.greens.values_mut().filter(|green| green.primary == handle).for_each(|green| green.alive = false);
        for other in self.contexts.values_mut() {
            other.peers.remove(&handle);
        }
        let context = self.contexts.get_mut(&handle).unwrap();
        context.peers.clear();
        (context.alive, context.sticky, context.memory) = (false, 0, Arc::default());
        for (kind, count) in abandoned.into_iter().filter(|(kind, count)| *count > 0 && *kind != "variables") {
            *self.abandoned.entry(kind).or_default() += count as u64;
        }
    }

    fn primary(&mut self, device: i32) -> Result<Primary> {
        self.device(device)?;
        Ok(*self.primaries.entry(device).or_default())
    }

    /// Retains the device's primary context, makes it if nobody held it, and returns its handle.
    pub fn retain_primary(&mut self, device: i32) -> Result<usize> {
        let mut primary = self.primary(device)?;
        if primary.retains == 0 {
            primary.handle = self.create_context(device, primary.flags, primary.handle);
            self.contexts.get_mut(&primary.handle).unwrap().primary = true;
        }
        primary.retains += 1;
        self.primaries.insert(device, primary);
        Ok(primary.handle)
    }

    /// Undoes a retain; the last one ends the context.
    pub fn release_primary(&mut self, device: i32) -> Result {
        let mut primary = self.primary(device)?;
        if primary.retains == 0 {
            return Err(INVALID_CONTEXT);
        }
        primary.retains -= 1;
        self.primaries.insert(device, primary);
        if primary.retains == 0 {
            self.destroy_context(primary.handle);
        }
        Ok(())
    }
}

/// Returns whether memory of that kind is on the host and is known to every context.
pub(super) fn is_host(kind: Kind) -> bool {
    matches!(kind, Kind::HostPinned | Kind::HostRegistered)
}

/// `CU_MEMHOSTREGISTER_READ_ONLY`.
pub(super) const READ_ONLY: u32 = 8;

fn remove<T>(map: &mut BTreeMap<usize, T>, gone: impl Fn(&T) -> bool) -> usize {
    let before = map.len();
    map.retain(|_, value| !gone(value));
    before - map.len()
}

entries! {
    /// The device's primary context, made at the first call; every call is to be undone by a release.
    Init fn cuDevicePrimaryCtxRetain(call, context: *mut usize, device: i32) {
        if context.is_null() { return Err(INVALID_VALUE) }
        let handle = call.retain_primary(device)?;
        put(context, handle)
    }

    /// Undoes a retain; the last one ends the context.
    Drop fn cuDevicePrimaryCtxRelease_v2(call, device: i32) {
        call.release_primary(device)
    }

    /// Ends all that is in the primary context, but not the retains.
    Drop fn cuDevicePrimaryCtxReset_v2(call, device: i32) {
        let primary = call.primary(device)?;
        if primary.retains > 0 {
            call.destroy_context(primary.handle);
            call.create_context(device, primary.flags, primary.handle);
            call.contexts.get_mut(&primary.handle).unwrap().primary = true;
        }
        Ok(())
    }

    /// Flags for the primary context.
    Init fn cuDevicePrimaryCtxSetFlags_v2(call, device: i32, flags: u32) {
        let mut primary = call.primary(device)?;
        if flags > FLAGS { return Err(INVALID_VALUE) }
        primary.flags = flags;
        call.primaries.insert(device, primary);
        if let Some(context) = call.contexts.get_mut(&primary.handle) { context.flags = flags }
        Ok(())
    }

    /// Flags, and whether it is active.
    Init fn cuDevicePrimaryCtxGetState(call, device: i32, flags: *mut u32, active: *mut i32) {
        let primary = call.primary(device)?;
        put(flags, primary.flags)?;
        put(active, i32::from(primary.retains > 0))
    }

    /// Creates a context that the caller owns, and makes it current.
    Init fn cuCtxCreate_v2(call, context: *mut usize, flags: u32, device: i32) {
        if context.is_null() || flags > FLAGS { return Err(INVALID_VALUE) }
        call.device(device)?;
        call.unsafe_in_capture()?;
        let handle = call.create_context(device, flags, 0);
        call.stack(|stack| stack.push(handle));
        put(context, handle)
    }

    /// The same; affinities are not supported.
    Init fn cuCtxCreate_v3(call, context: *mut usize, affinity: *const u8, count: i32, flags: u32, device: i32) {
        if context.is_null() || flags > FLAGS { return Err(INVALID_VALUE) }
        if !affinity.is_null() || count != 0 { return Err(NOT_SUPPORTED) }
        call.device(device)?;
        call.unsafe_in_capture()?;
        let handle = call.create_context(device, flags, 0);
        call.stack(|stack| stack.push(handle));
        put(context, handle)
    }

    /// Ends a context that `cuCtxCreate` made. Primary contexts are refused.
    Drop fn cuCtxDestroy_v2(call, context: usize) {
        let context = call.living(context)?;
        if call.contexts[&context].primary { return Err(INVALID_CONTEXT) }
        call.destroy_context(context);
        call.stack(|stack| stack.pop_if(|top| *top == context));
        Ok(())
    }

    /// Makes a context current, over what was.
    Init fn cuCtxPushCurrent_v2(call, context: usize) {
        call.living(context)?;
        call.stack(|stack| stack.push(context));
        Ok(())
    }

    /// Takes the current context away, whatever became of it.
    Init fn cuCtxPopCurrent_v2(call, context: *mut usize) {
        let top = call.stack(|stack| stack.pop()).ok_or(INVALID_CONTEXT)?;
        put_if(context, top);
        Ok(())
    }

    /// Replaces the current context; NULL takes it away.
    Init fn cuCtxSetCurrent(call, context: usize) {
        if context == 0 {
            call.stack(|stack| stack.pop());
            return Ok(());
        }
        call.living(context)?;
        call.stack(|stack| { stack.pop(); stack.push(context) });
        Ok(())
    }

    /// The current context, or NULL.
    Init fn cuCtxGetCurrent(call, context: *mut usize) {
        put(context, call.top())
    }

    /// The current context's device.
    Init fn cuCtxGetDevice(call, device: *mut i32) {
        let context = call.current()?;
        put(device, call.contexts[&context].device)
    }

    /// The current context's flags.
    Context fn cuCtxGetFlags(call, flags: *mut u32) {
        let context = call.current()?;
        put(flags, call.contexts[&context].flags)
    }

    /// Sets the current context's flags.
    Context fn cuCtxSetFlags(call, flags: u32) {
        let context = call.current()?;
        if flags > FLAGS { return Err(INVALID_VALUE) }
        call.contexts.get_mut(&context).unwrap().flags = flags;
        Ok(())
    }

    /// A number that no other context has or had; a primary context gets another in each life.
    Init fn cuCtxGetId(call, context: usize, id: *mut u64) {
        let context = if context == 0 { call.current()? } else { call.living(context)? };
        put(id, call.contexts[&context].id)
    }

    /// Waits for all work of the current context.
    Context fn cuCtxSynchronize(call) {
        let context = call.current()?;
        call.observe_context(context)?;
        call.drive_context(context);
        call.sticky(context)
    }

    /// 3020, as for every context since CUDA 3.2.
    Init fn cuCtxGetApiVersion(call, context: usize, version: *mut u32) {
        if context == 0 { call.current()? } else { call.living(context)? };
        put(version, 3020)
    }

    /// A limit; those that the emulator does not know are unsupported.
    Context fn cuCtxGetLimit(call, value: *mut usize, limit: u32) {
        let context = call.current()?;
        put(value, *call.contexts[&context].limits.get(&limit).ok_or(UNSUPPORTED_LIMIT)?)
    }

    /// Notes a limit; it changes nothing.
    Context fn cuCtxSetLimit(call, limit: u32, value: usize) {
        let context = call.current()?;
        let limits = &mut call.contexts.get_mut(&context).unwrap().limits;
        *limits.get_mut(&limit).ok_or(UNSUPPORTED_LIMIT)? = value;
        Ok(())
    }

    /// As it was set.
    Context fn cuCtxGetCacheConfig(call, config: *mut i32) {
        let context = call.current()?;
        put(config, call.contexts[&context].cache_config)
    }

    /// Notes a wish; it changes nothing.
    Context fn cuCtxSetCacheConfig(call, config: i32) {
        let context = call.current()?;
        if !(0..=3).contains(&config) { return Err(INVALID_VALUE) }
        call.contexts.get_mut(&context).unwrap().cache_config = config;
        Ok(())
    }

    /// As it was set.
    Context fn cuCtxGetSharedMemConfig(call, config: *mut i32) {
        let context = call.current()?;
        put(config, call.contexts[&context].shared_config)
    }

    /// Notes a wish; it changes nothing.
    Context fn cuCtxSetSharedMemConfig(call, config: i32) {
        let context = call.current()?;
        if !(0..=2).contains(&config) { return Err(INVALID_VALUE) }
        call.contexts.get_mut(&context).unwrap().shared_config = config;
        Ok(())
    }

    /// Gives the current context access to another's memory, if their devices reach each other. Noted only: kernels touch
    /// their own context's memory and no other.
    Context fn cuCtxEnablePeerAccess(call, peer: usize, flags: u32) {
        if flags != 0 { return Err(INVALID_VALUE) }
        let (context, peer) = (call.current()?, call.living(peer)?);
        if call.contexts[&context].device == call.contexts[&peer].device { return Err(INVALID_DEVICE) }
        if !call.config.peers { return Err(PEER_ACCESS_UNSUPPORTED) }
        let new = call.contexts.get_mut(&context).unwrap().peers.insert(peer);
        if new { Ok(()) } else { Err(PEER_ACCESS_ALREADY_ENABLED) }
    }

    /// Ends that access.
    Context fn cuCtxDisablePeerAccess(call, peer: usize) {
        let (context, peer) = (call.current()?, call.living(peer)?);
        let had = call.contexts.get_mut(&context).unwrap().peers.remove(&peer);
        if had { Ok(()) } else { Err(PEER_ACCESS_NOT_ENABLED) }
    }

    /// 0 and -5.
    Context fn cuCtxGetStreamPriorityRange(_call, least: *mut i32, greatest: *mut i32) {
        put_if(least, super::stream::PRIORITIES.0);
        put_if(greatest, super::stream::PRIORITIES.1);
        Ok(())
    }
}
