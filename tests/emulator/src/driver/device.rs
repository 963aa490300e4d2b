//! The entry points of the driver as a whole and of its devices.

use std::ffi::c_char;

use super::codes::*;
use super::config::Config;
use super::entry::{Call, entries, put};
use super::state::Handle;

/// Returns an attribute of a device; 0 for those that mean nothing to the emulator. Numbers as in `cuda.h`.
fn attribute(config: &Config, device: i32, attribute: i32) -> i32 {
    let cc = config.cc_of(device);
    let optin = Config::shared_optin(cc);
    match attribute {
        1 => 1024,                                  // threads per block
        2 | 3 => 1024,                              // block x, y
        4 => 64,                                    // block z
        5 => i32::MAX,                              // grid x
        6 | 7 => 65_535,                            // grid y, z
        8 => 48 << 10,                              // shared memory per block without asking
        9 => 64 << 10,                              // constant memory
        10 => 32,                                   // warp size
        11 => i32::MAX,                             // pitch
        12 | 82 => 65_536,                          // registers per block and multiprocessor
        13 => 1_500_000,                            // clock in kHz
        14 => 512,                                  // alignment of textures
        15 | 19 | 31 | 41 | 78 | 79 | 80 | 83 => 1, // overlap, mapped host memory, concurrency, unified addressing, ...
        16 => config.sms,
        18 => i32::from(config.integrated),
        33 => 1 + device, // PCI bus
        36 => 2_000_000,  // memory clock in kHz
        37 => 256,        // bus width
        38 => 4 << 20,    // L2
        39 => threads_per_multiprocessor(cc),
        40 => 2, // copy engines
        75 => cc / 10,
        76 => cc % 10,
        81 => optin + 1024,     // shared memory per multiprocessor
        85 => device,           // group of boards
        89 | 90 | 91 | 99 => 1, // managed memory, preemption, host pointers of registered memory, registering
        97 => optin,
        106 => blocks_per_multiprocessor(cc),
        111 if cc >= 80 => 1024, // shared memory that the system keeps of each block
        115 => i32::from(config.memory_pools),
        _ => 0,
    }
}

/// Threads that a multiprocessor holds at once. (CUDA C++ Programming Guide, technical specifications.)
pub(super) fn threads_per_multiprocessor(cc: i32) -> i32 {
    match cc {
        75 => 1024,
        86 | 87 | 89 | 120..=129 => 1536,
        _ => 2048,
    }
}

/// Blocks that a multiprocessor holds at once.
pub(super) fn blocks_per_multiprocessor(cc: i32) -> i32 {
    match cc {
        75 | 86 | 87 => 16,
        89 | 120..=129 => 24,
        _ => 32,
    }
}

impl Call {
    /// Returns the device, if it exists.
    pub fn device(&self, device: i32) -> Result<i32> {
        if (0..self.config.devices).contains(&device) { Ok(device) } else { Err(INVALID_DEVICE) }
    }
}

entries! {
    /// Must be called first. Without devices it fails with NO_DEVICE.
    Nothing fn cuInit(call, flags: u32) {
        if flags != 0 { return Err(INVALID_VALUE) }
        if call.config.devices == 0 { return Err(NO_DEVICE) }
        call.initialised = true;
        super::report::at_exit();
        Ok(())
    }

    /// The posed version.
    Nothing fn cuDriverGetVersion(call, version: *mut i32) {
        put(version, call.config.driver)
    }

    /// The code's name: INVALID_VALUE and NULL for a code that the driver does not know.
    Nothing fn cuGetErrorName(_call, code: i32, name: *mut *const c_char) {
        match describe(code) {
            Some((known, _)) => put(name, known.as_ptr()),
            None => { put(name, std::ptr::null())?; Err(INVALID_VALUE) }
        }
    }

    /// The code's text, as `cuGetErrorName`.
    Nothing fn cuGetErrorString(_call, code: i32, text: *mut *const c_char) {
        match describe(code) {
            Some((_, known)) => put(text, known.as_ptr()),
            None => { put(text, std::ptr::null())?; Err(INVALID_VALUE) }
        }
    }

    /// Returns the number of devices that the settings give.
    Init fn cuDeviceGetCount(call, count: *mut i32) {
        put(count, call.config.devices)
    }

    /// A device by its number; the two are the same.
    Init fn cuDeviceGet(call, device: *mut i32, ordinal: i32) {
        let found = call.device(ordinal)?;
        put(device, found)
    }

    /// The posed name, cut to the room.
    Init fn cuDeviceGetName(call, name: *mut c_char, room: i32, device: i32) {
        call.device(device)?;
        if name.is_null() || room < 1 { return Err(INVALID_VALUE) }
        let text = call.config.device_name.as_bytes();
        let bytes = text.len().min(room as usize - 1);
        std::ptr::copy_nonoverlapping(text.as_ptr(), name.cast(), bytes);
        name.add(bytes).write(0);
        Ok(())
    }

    /// 16 bytes that tell devices apart.
    Init fn cuDeviceGetUuid(call, uuid: *mut [u8; 16], device: i32) {
        let mut bytes = *b"DF11-emulator-00";
        bytes[15] += call.device(device)? as u8;
        put(uuid, bytes)
    }

    /// 16 bytes that tell devices apart.
    Init fn cuDeviceGetUuid_v2(call, uuid: *mut [u8; 16], device: i32) {
        let mut bytes = *b"DF11-emulator-00";
        bytes[15] += call.device(device)? as u8;
        put(uuid, bytes)
    }

    /// The posed size.
    Init fn cuDeviceTotalMem_v2(call, bytes: *mut usize, device: i32) {
        call.device(device)?;
        put(bytes, call.config.memory as usize)
    }

    /// An attribute.
    Init fn cuDeviceGetAttribute(call, value: *mut i32, number: i32, device: i32) {
        call.device(device)?;
        if !(1..=200).contains(&number) { return Err(INVALID_VALUE) }
        put(value, attribute(&call.config, device, number))
    }

    /// The compute capability.
    Init fn cuDeviceComputeCapability(call, major: *mut i32, minor: *mut i32, device: i32) {
        let cc = call.config.cc_of(call.device(device)?);
        put(major, cc / 10)?;
        put(minor, cc % 10)
    }

    /// Whether a device reaches another's memory: all do, if the settings say so. None does its own, as a peer.
    Init fn cuDeviceCanAccessPeer(call, can: *mut i32, device: i32, peer: i32) {
        let (device, peer) = (call.device(device)?, call.device(peer)?);
        put(can, i32::from(call.config.peers && device != peer))
    }

    /// `0000:BB:00.0`, where BB tells devices apart.
    Init fn cuDeviceGetPCIBusId(call, id: *mut c_char, room: i32, device: i32) {
        let text = format!("0000:{:02X}:00.0\0", 1 + call.device(device)?);
        if id.is_null() || room < text.len() as i32 { return Err(INVALID_VALUE) }
        std::ptr::copy_nonoverlapping(text.as_ptr(), id.cast(), text.len());
        Ok(())
    }

    /// The device's one memory pool.
    Init fn cuDeviceGetDefaultMemPool(call, pool: *mut usize, device: i32) {
        let handle = call.pool(device)?;
        put(pool, handle)
    }

    /// The device's one memory pool.
    Init fn cuDeviceGetMemPool(call, pool: *mut usize, device: i32) {
        let handle = call.pool(device)?;
        put(pool, handle)
    }

    /// Properties of pools are taken and forgotten.
    Init fn cuMemPoolSetAttribute(call, pool: usize, _attribute: i32, value: *mut u64) {
        if !call.pools.contains_key(&pool) || value.is_null() { return Err(INVALID_VALUE) }
        Ok(())
    }

    /// Every property of a pool is 0.
    Init fn cuMemPoolGetAttribute(call, pool: usize, _attribute: i32, value: *mut u64) {
        if !call.pools.contains_key(&pool) { return Err(INVALID_VALUE) }
        put(value, 0)
    }

    /// There is nothing to trim.
    Init fn cuMemPoolTrimTo(call, pool: usize, _bytes: usize) {
        if call.pools.contains_key(&pool) { Ok(()) } else { Err(INVALID_VALUE) }
    }

    /// There is no profiler.
    Context fn cuProfilerStart(_call) {
        Ok(())
    }

    /// There is no profiler.
    Context fn cuProfilerStop(_call) {
        Ok(())
    }
}

impl Call {
    fn pool(&mut self, device: i32) -> Result<usize> {
        self.device(device)?;
        if !self.config.memory_pools {
            return Err(NOT_SUPPORTED);
        }
        if let Some((&pool, _)) = self.pools.iter().find(|(_, of)| **of == device) {
            return Ok(pool);
        }
        let pool = self.handle(Handle::Pool);
        self.pools.insert(pool, device);
        Ok(pool)
    }
}
