//! What `cuda.h` defines, as far as it is used here: numbers of results and attributes, and structs that the driver reads
//! and writes.

use super::Stream;
use std::ffi::{c_int, c_uint, c_void};

/// The `CUresult`s that are handled specially.
pub(crate) mod code {
    pub const INVALID_IMAGE: i32 = 200;
    pub const NO_BINARY_FOR_GPU: i32 = 209;
    pub const INVALID_PTX: i32 = 218;
    pub const JIT_COMPILER_NOT_FOUND: i32 = 221;
    pub const UNSUPPORTED_PTX_VERSION: i32 = 222;
    pub const JIT_COMPILATION_DISABLED: i32 = 223;
    pub const INVALID_SOURCE: i32 = 300;
    /// The name is not in the image.
    pub const NOT_FOUND: i32 = 500;
    /// The first and the last of the codes of stream capture.
    pub const CAPTURE: std::ops::RangeInclusive<i32> = 900..=908;
}

/// `CUdevice_attribute` and `CUfunction_attribute` numbers.
pub(crate) mod attribute {
    pub const MULTIPROCESSORS: i32 = 16;
    pub const INTEGRATED: i32 = 18;
    pub const CAPABILITY_MAJOR: i32 = 75;
    pub const CAPABILITY_MINOR: i32 = 76;
    pub const MOST_SHARED_BYTES: i32 = 97;
    /// The attributes of a function, from here on.
    pub const LOCAL_BYTES: i32 = 3;
    pub const REGISTERS: i32 = 4;
    pub const DYNAMIC_SHARED_BYTES: i32 = 8;
    pub const SHARED_CARVEOUT: i32 = 9;
}

/// `CU_STREAM_CAPTURE_MODE_RELAXED`
pub(super) const RELAXED: c_int = 2;
/// `CU_EVENT_DISABLE_TIMING`
pub(super) const NO_TIMING: c_uint = 2;
/// `CU_DEV_RESOURCE_TYPE_SM`
pub(super) const SM_RESOURCE: c_int = 1;

/// `CUdevResource_v1` of the type `CU_DEV_RESOURCE_TYPE_SM`, which has had this size and this place of the count since
/// CUDA 12.4.
#[repr(C)]
pub(crate) struct Resource {
    pub(super) kind: c_int,
    pub(super) internal: [u8; 92],
    pub(super) multiprocessors: c_uint,
    pub(super) rest: [u8; 36],
    pub(super) next: *mut Resource,
}

const _: () = assert!(cfg!(not(target_pointer_width = "64")) || size_of::<Resource>() == 144);

/// `CUlaunchAttribute`.
#[repr(C)]
pub(crate) struct LaunchAttribute {
    id: c_int,
    padding: [u8; 4],
    value: [u64; 8],
}

impl LaunchAttribute {
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`, allowed: the kernel may start before the one before it has
    /// ended.
    pub fn early() -> LaunchAttribute {
        // The value is an int in the first four bytes: devices and hosts are little endian.
        LaunchAttribute { id: 6, padding: [0; 4], value: [1, 0, 0, 0, 0, 0, 0, 0] }
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
pub(crate) struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: *mut c_void,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

impl LaunchConfig {
    /// Describes a launch of one dimension with one attribute, which must live as long.
    pub fn new(blocks: u32, threads: u32, shared: u32, stream: Stream, attribute: &LaunchAttribute) -> LaunchConfig {
        LaunchConfig {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared_bytes: shared,
            stream: stream.raw(),
            attributes: attribute,
            attribute_count: 1,
        }
    }
}

const _: () = assert!(size_of::<LaunchAttribute>() == 72);
const _: () = assert!(cfg!(not(target_pointer_width = "64")) || size_of::<LaunchConfig>() == 56);
