//! The entry points of green contexts: parts of a device's multiprocessors, with streams whose kernels run there.
//!
//! A green context has no memory and no functions: it is a view of the device's primary context, which it retains. Its
//! `CUcontext` (`cuCtxFromGreenCtx`) stands for the primary one wherever a context is asked for.

use super::codes::*;
use super::entry::{Call, entries, put};
use super::state::{Handle, Order};

/// A green context.
pub struct Green {
    /// A number that no other green context has or had.
    id: u64,
    device: i32,
    sms: u32,
    /// The device's primary context.
    pub primary: usize,
    /// The handle by which it is used as a context.
    pub context: usize,
    /// Its default stream, 0 if it was made without one.
    pub legacy: usize,
    pub alive: bool,
}

/// `CUdevResource` of multiprocessors.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resource {
    kind: u32,
    /// The device, in bytes that are the driver's own.
    device: i32,
    padding: [u8; 88],
    sms: u32,
    least: u32,
    alignment: u32,
    flags: u32,
    rest: [u32; 8],
}

const _: () = assert!(size_of::<Resource>() == 144 && std::mem::offset_of!(Resource, sms) == 96);

/// `CU_DEV_RESOURCE_TYPE_SM`.
const MULTIPROCESSORS: u32 = 1;
/// `CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING`.
const IGNORE_COSCHEDULING: u32 = 1;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

impl Call {
    /// Returns the green context that is used as a context by that handle.
    pub fn living_green(&self, context: usize) -> Result<&Green> {
        let found = self.greens.values().find(|green| green.context == context).ok_or(INVALID_CONTEXT)?;
        if found.alive { Ok(found) } else { Err(CONTEXT_IS_DESTROYED) }
    }

    /// Returns a green context that has not ended.
    fn green(&self, green: usize) -> Result<&Green> {
        self.greens.get(&green).filter(|green| green.alive).ok_or(INVALID_CONTEXT)
    }

    /// Returns the handle of the green context that is current, 0 for none.
    pub fn current_green(&self) -> usize {
        let top = self.top();
        self.greens.iter().find(|(_, green)| green.context == top).map_or(0, |(&handle, _)| handle)
    }

    /// Returns a device's multiprocessors, or some of them.
    fn resource(&self, device: i32, sms: u32, kind: u32) -> Result<Resource> {
        if kind != MULTIPROCESSORS {
            return Err(INVALID_RESOURCE_TYPE);
        }
        let alignment = if self.config.cc_of(device) >= 90 { 8 } else { 2 };
        Ok(Resource { kind, device, padding: [0; 88], sms, least: alignment, alignment, flags: 0, rest: [0; 8] })
    }

    /// Returns how many multiprocessors a context that is not green may use.
    fn context_sms(&self) -> u32 {
        let (all, some) = (self.config.sms, self.config.context_sms);
        (if some == 0 { all } else { some.min(all) }) as u32
    }
}

entries! {
    /// The multiprocessors of a device.
    Init fn cuDeviceGetDevResource(call, device: i32, resource: *mut Resource, kind: u32) {
        call.device(device)?;
        put(resource, call.resource(device, call.config.sms as u32, kind)?)
    }

    /// The multiprocessors that a context may use.
    Init fn cuCtxGetDevResource(call, context: usize, resource: *mut Resource, kind: u32) {
        let primary = call.living(context)?;
        let sms = call.living_green(context).map_or(call.context_sms(), |green| green.sms);
        put(resource, call.resource(call.contexts[&primary].device, sms, kind)?)
    }

    /// The multiprocessors of a green context.
    Init fn cuGreenCtxGetDevResource(call, green: usize, resource: *mut Resource, kind: u32) {
        let &Green { device, sms, .. } = call.green(green)?;
        put(resource, call.resource(device, sms, kind)?)
    }

    /// Divides multiprocessors into as many groups of a size as there are, up to `count`; the size is rounded up to what
    /// the device can set apart.
    Init fn cuDevSmResourceSplitByCount(
        call, groups: *mut Resource, count: *mut u32, input: *const Resource, remainder: *mut Resource, flags: u32,
        least: u32,
    ) {
        if count.is_null() || input.is_null() || flags & !3 != 0 { return Err(INVALID_VALUE) }
        let input = input.read_unaligned();
        if input.kind != MULTIPROCESSORS { return Err(INVALID_RESOURCE_TYPE) }
        if least > input.sms { return Err(INVALID_VALUE) }
        let alignment = if flags & IGNORE_COSCHEDULING != 0 { 2 } else { input.alignment };
        let size = least.max(1).next_multiple_of(alignment);
        let most = input.sms / size;
        if groups.is_null() { return put(count, most) }
        let made = count.read_unaligned().min(most);
        let part = |sms| Resource { sms, least: alignment, alignment, ..input };
        for at in 0..made as usize { put(groups.add(at), part(size))? }
        if !remainder.is_null() {
            let rest = input.sms - made * size;
            let kind = if rest == 0 { 0 } else { MULTIPROCESSORS };
            put(remainder, Resource { kind, ..part(rest) })?;
        }
        if call.config.trace { eprintln!("df11-emulator: {made} groups of {size} multiprocessors") }
        put(count, made)
    }

    /// Describes resources of one device together.
    Init fn cuDevResourceGenerateDesc(call, description: *mut usize, resources: *const Resource, count: u32) {
        if description.is_null() || resources.is_null() || count == 0 { return Err(INVALID_VALUE) }
        let all: Vec<Resource> = (0..count as usize).map(|at| resources.add(at).read_unaligned()).collect();
        if all.iter().any(|resource| resource.kind != MULTIPROCESSORS) { return Err(INVALID_RESOURCE_TYPE) }
        let device = all[0].device;
        if all.iter().any(|resource| resource.device != device) { return Err(INVALID_RESOURCE_CONFIGURATION) }
        let handle = call.handle(Handle::Description);
        call.descriptions.insert(handle, (device, all.iter().map(|resource| resource.sms).sum()));
        put(description, handle)
    }

    /// Makes a green context, which retains the device's primary context; flag 1 gives it a default stream.
    Init fn cuGreenCtxCreate(call, green: *mut usize, description: usize, device: i32, flags: u32) {
        if green.is_null() || flags > 1 { return Err(INVALID_VALUE) }
        call.device(device)?;
        let &(of, sms) = call.descriptions.get(&description).ok_or(INVALID_VALUE)?;
        if of != device { return Err(INVALID_DEVICE) }
        call.unsafe_in_capture()?;
        let primary = call.retain_primary(device)?;
        let (handle, context, id) = (call.handle(Handle::Green), call.handle(Handle::Context), call.number());
        let legacy = if flags == 1 { call.add_stream(primary, Order::Legacy, 0) } else { 0 };
        if legacy != 0 { call.streams.get_mut(&legacy).unwrap().green = handle }
        call.greens.insert(handle, Green { id, device, sms, primary, context, legacy, alive: true });
        put(green, handle)
    }

    /// Ends a green context: its streams can only be destroyed from now on, and their captures are broken.
    Drop fn cuGreenCtxDestroy(call, green: usize) {
        let &Green { device, primary, legacy, .. } = call.green(green)?;
        call.drive_context(primary);
        let captures: Vec<u64> =
            call.streams.values().filter(|s| s.green == green && s.capture != 0).map(|s| s.capture).collect();
        call.captures.iter_mut().filter(|(id, _)| captures.contains(id)).for_each(|(_, c)| c.broken = true);
        call.streams.remove(&legacy);
        call.greens.get_mut(&green).unwrap().alive = false;
        call.release_primary(device)
    }

    /// The handle by which a green context is used as a context.
    Init fn cuCtxFromGreenCtx(call, context: *mut usize, green: usize) {
        put(context, call.green(green)?.context)
    }

    /// A stream in a green context, whichever context is current. It is never ordered with the default stream.
    Init fn cuGreenCtxStreamCreate(call, stream: *mut usize, green: usize, flags: u32, priority: i32) {
        let primary = call.green(green)?.primary;
        if stream.is_null() || flags != NON_BLOCKING { return Err(INVALID_VALUE) }
        let (least, most) = super::stream::PRIORITIES;
        let handle = call.add_stream(primary, Order::NonBlocking, priority.clamp(most, least));
        call.streams.get_mut(&handle).unwrap().green = green;
        put(stream, handle)
    }

    /// A number that no other green context has or had; NULL is the current one.
    Init fn cuGreenCtxGetId(call, green: usize, id: *mut u64) {
        let green = if green == 0 { call.current_green() } else { green };
        put(id, call.green(green)?.id)
    }

    /// The stream's context: for one of a green context the primary one, and the green context beside it. A special stream
    /// stands for the current context, also for a green one without a default stream.
    Init(cuStreamGetCtx_v2_ptsz) fn cuStreamGetCtx_v2(call, stream: usize, context: *mut usize, green: *mut usize) {
        if stream < 2 && call.current_green() != 0 {
            put(context, call.current()?)?;
            return put(green, call.current_green());
        }
        let stream = call.stream(stream)?;
        put(context, call.streams[&stream].context)?;
        put(green, call.streams[&stream].green)
    }
}
