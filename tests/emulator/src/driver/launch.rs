//! The entry points that launch kernels, and those that say how many blocks fit.

use std::sync::Arc;

use super::codes::*;
use super::config::Config;
use super::device::{blocks_per_multiprocessor, threads_per_multiprocessor};
use super::entry::{Call, entries, put, put_if};
use super::module::Entry;
use super::work::{KernelWork, Work};

/// The shape of a launch, as the caller gave it.
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    /// It may start before the kernel before it in the stream has ended.
    early: bool,
}

impl Shape {
    /// Fails with INVALID_VALUE for a shape that no device takes, or that the function was not prepared for.
    fn check(&self, entry: &Entry, max_dynamic: i32) -> Result {
        let threads = self.block.iter().map(|&n| u64::from(n)).product::<u64>();
        let most = entry.function.max_threads().unwrap_or(1024).min(1024);
        let grid =
            self.grid.contains(&0) || self.grid[0] > i32::MAX as u32 || self.grid[1..].iter().any(|&n| n > 65_535);
        let block = threads == 0 || threads > u64::from(most) || self.block[2] > 64;
        let shared = i64::from(self.shared_bytes) > i64::from(max_dynamic);
        if grid || block || shared { Err(INVALID_VALUE) } else { Ok(()) }
    }
}

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `CU_LAUNCH_PARAM_BUFFER_SIZE`; 0 ends the list.
const BUFFER: usize = 1;
const BUFFER_BYTES: usize = 2;

/// Returns the bytes of all parameters: of each as many as the function declares, from its own pointer; or from one buffer.
///
/// # Safety
/// `params` has a pointer for each parameter to as many bytes as it has, or is NULL and `extra` is such a list.
unsafe fn parameters(entry: &Entry, params: *const *const u8, extra: *const usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; entry.function.parameter_bytes() as usize];
    if !params.is_null() {
        if !extra.is_null() {
            return Err(INVALID_VALUE);
        }
        for (at, &(offset, size)) in entry.function.parameters().iter().enumerate() {
            // SAFETY: one pointer for each parameter, by the contract.
            let place = unsafe { params.add(at).read_unaligned() };
            if place.is_null() {
                return Err(INVALID_VALUE);
            }
            let (offset, size) = (offset as usize, size as usize);
            // SAFETY: `size` bytes there, by the contract; the function's own layout fits its bytes.
            unsafe { std::ptr::copy_nonoverlapping(place, bytes[offset..offset + size].as_mut_ptr(), size) };
        }
        return Ok(bytes);
    }
    if extra.is_null() {
        return if bytes.is_empty() { Ok(bytes) } else { Err(INVALID_VALUE) };
    }
    let (mut buffer, mut given, mut at) = (std::ptr::null::<u8>(), 0usize, 0);
    loop {
        // SAFETY: pairs of a name and a value up to the end mark, by the contract.
        let (name, value) = unsafe {
            let name = extra.add(at).read_unaligned();
            (name, if name == 0 { 0 } else { extra.add(at + 1).read_unaligned() })
        };
        match name {
            0 => break,
            BUFFER => buffer = value as *const u8,
            // SAFETY: this value is a pointer to a size.
            BUFFER_BYTES => given = unsafe { (value as *const usize).read_unaligned() },
            _ => return Err(INVALID_VALUE),
        }
        at += 2;
    }
    if buffer.is_null() || given < bytes.len() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the buffer has `given` bytes, which are enough.
    unsafe { std::ptr::copy_nonoverlapping(buffer, bytes.as_mut_ptr(), bytes.len()) };
    Ok(bytes)
}

impl Call {
    /// Queues a launch. Function, stream and current context must belong together, and a stream of a green context to
    /// that; a library's kernel takes its context from the stream.
    ///
    /// # Safety
    /// As [`parameters`].
    unsafe fn launch(
        &mut self,
        function: usize,
        shape: Shape,
        stream: usize,
        params: *const *const u8,
        extra: *const usize,
    ) -> Result {
        let handle = self.stream(stream)?;
        let (mut function, mut context) = (function, self.current()?);
        if self.kernels.contains_key(&function) {
            function = self.function_for_launch(function, handle)?;
            context = self.streams[&handle].context;
        } else if self.streams[&handle].green != self.current_green() {
            return Err(INVALID_HANDLE);
        }
        let entry = self.functions.get(&function).ok_or(INVALID_HANDLE)?;
        if entry.context != context || self.streams[&handle].context != context {
            return Err(INVALID_HANDLE);
        }
        shape.check(entry, self.max_dynamic(entry))?;
        // SAFETY: this function's own contract.
        let params = unsafe { parameters(entry, params, extra) }?;
        let (module, kernel) = (entry.module, entry.function.clone());
        self.load_for_launch(function, handle)?;
        let Shape { grid, block, shared_bytes, early } = shape;
        if early && self.config.cc_of(self.contexts[&context].device) < 90 {
            return Err(NOT_SUPPORTED);
        }
        let work = KernelWork { context, module, function: kernel, grid, block, shared_bytes, params, early, stream };
        self.submit(handle, Work::Kernel(Arc::new(work)))
    }

    /// Returns a function, or a library's kernel's function in the current context.
    fn function_here(&mut self, function: usize) -> Result<usize> {
        if !self.kernels.contains_key(&function) {
            return Ok(function);
        }
        let context = self.current()?;
        self.function_of(function, context)
    }

    /// Returns how many blocks a multiprocessor holds at once. Registers are not counted: only a compiler knows them.
    fn resident_blocks(&mut self, function: usize, block: i32, dynamic: usize) -> Result<i32> {
        let function = self.function_here(function)?;
        let entry = self.functions.get(&function).ok_or(INVALID_HANDLE)?;
        let device = self.contexts.get(&entry.context).ok_or(INVALID_CONTEXT)?.device;
        let cc = self.config.cc_of(device);
        if block < 1 {
            return Err(INVALID_VALUE);
        }
        let most = entry.function.max_threads().unwrap_or(1024).min(1024) as i32;
        let optin = Config::shared_optin(cc) as u64;
        let shared = u64::from(entry.function.static_shared_bytes()) + dynamic as u64;
        if block > most || shared > optin {
            return Ok(0);
        }
        let warps = (block + 31) / 32;
        let by_threads = threads_per_multiprocessor(cc) / (32 * warps);
        let reserved = if cc >= 80 { 1024 } else { 0 };
        let by_shared = (optin + 1024).checked_div(shared + reserved).unwrap_or(u64::MAX);
        Ok(by_threads.min(blocks_per_multiprocessor(cc)).min(by_shared.min(64) as i32))
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: usize,
    attributes: *const LaunchAttribute,
    attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
pub struct LaunchAttribute {
    id: u32,
    padding: u32,
    value: [u64; 8],
}

/// `CU_LAUNCH_ATTRIBUTE_IGNORE` and `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const IGNORE: u32 = 0;
const EARLY: u32 = 6;

/// Returns whether the attributes of a launch let it start before the kernel before it has ended. Others are not supported.
///
/// # Safety
/// The configuration has as many attributes as it says.
unsafe fn is_early(config: &LaunchConfig) -> Result<bool> {
    let mut early = false;
    for at in 0..config.attribute_count as usize {
        if config.attributes.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: this function's own contract; callers from C need not align what they point to.
        let attribute = unsafe { config.attributes.add(at).read_unaligned() };
        match attribute.id {
            IGNORE => {}
            EARLY => early = attribute.value[0] as u32 != 0,
            _ => return Err(NOT_SUPPORTED),
        }
    }
    Ok(early)
}

entries! {
    /// Queues a kernel; parameters are copied now.
    Context(cuLaunchKernel_ptsz) fn cuLaunchKernel(
        call, function: usize, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: usize, params: *const *const u8, extra: *const usize,
    ) {
        let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes, early: false };
        call.launch(function, shape, stream, params, extra)
    }

    /// The same from a struct. Of attributes programmatic stream serialization is supported, from capability 9.0 on.
    Context(cuLaunchKernelEx_ptsz) fn cuLaunchKernelEx(
        call, config: *const LaunchConfig, function: usize, params: *const *const u8, extra: *const usize,
    ) {
        if config.is_null() { return Err(INVALID_VALUE) }
        let config = config.read_unaligned();
        let early = is_early(&config)?;
        let LaunchConfig { grid, block, shared_bytes, stream, .. } = config;
        call.launch(function, Shape { grid, block, shared_bytes, early }, stream, params, extra)
    }

    /// Returns the number of blocks of a function that fit a multiprocessor.
    Context fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        call, blocks: *mut i32, function: usize, block: i32, dynamic: usize,
    ) {
        put(blocks, call.resident_blocks(function, block, dynamic)?)
    }

    /// The same with flags.
    Context fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        call, blocks: *mut i32, function: usize, block: i32, dynamic: usize, flags: u32,
    ) {
        if flags > 1 { return Err(INVALID_VALUE) }
        put(blocks, call.resident_blocks(function, block, dynamic)?)
    }

    /// The block size that fills a multiprocessor best, and the grid that fills the device.
    Context fn cuOccupancyMaxPotentialBlockSize(
        call, grid: *mut i32, block: *mut i32, function: usize,
        dynamic_of: Option<unsafe extern "C" fn(i32) -> usize>, dynamic: usize, limit: i32,
    ) {
        let most = if limit > 0 { limit.min(1024) } else { 1024 };
        let (mut best, mut size) = (0, 0);
        for threads in (32..=most.max(32)).rev().step_by(32) {
            let dynamic = dynamic_of.map_or(dynamic, |of| of(threads));
            let blocks = call.resident_blocks(function, threads, dynamic)?;
            if blocks * threads > best * size { (best, size) = (blocks, threads) }
        }
        if best == 0 { return Err(INVALID_VALUE) }
        put_if(grid, best * call.config.sms);
        put(block, size)
    }

    /// The most dynamic shared bytes with which that many blocks still fit.
    Context fn cuOccupancyAvailableDynamicSMemPerBlock(
        call, bytes: *mut usize, function: usize, blocks: i32, block: i32,
    ) {
        if blocks < 1 { return Err(INVALID_VALUE) }
        let function = call.function_here(function)?;
        let entry = call.functions.get(&function).ok_or(INVALID_HANDLE)?;
        let most = (Config::shared_optin(call.config.cc_of(call.contexts[&entry.context].device)) as u32)
            .saturating_sub(entry.function.static_shared_bytes()) as usize;
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if call.resident_blocks(function, block, middle)? >= blocks { low = middle } else { high = middle - 1 }
        }
        put(bytes, low)
    }

    /// Cooperative launches are not supported.
    Context(cuLaunchCooperativeKernel_ptsz) fn cuLaunchCooperativeKernel(
        call, function: usize, _grid_x: u32, _grid_y: u32, _grid_z: u32, _block_x: u32, _block_y: u32, _block_z: u32,
        _shared_bytes: u32, _stream: usize, _params: *const *const u8,
    ) {
        if call.functions.contains_key(&function) { Err(NOT_SUPPORTED) } else { Err(INVALID_HANDLE) }
    }
}
