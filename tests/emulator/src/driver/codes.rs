//! The driver's result codes that the emulator returns, and their names and texts.
//!
//! Only codes that CUDA 12.0 knows have a name here: `cuGetErrorName` of any other says `INVALID_VALUE`, as a driver
//! does that is older than the code.

use std::ffi::CStr;

/// The result of an entry point: nothing, or the code that it returns.
pub type Result<T = (), E = i32> = std::result::Result<T, E>;

macro_rules! codes {
    ($($name:ident = $code:literal $text:literal)*) => {
        $(#[doc = concat!("The driver's code ", stringify!($code), ": ", $text, ".")] pub const $name: i32 = $code;)*

        /// Returns the name and the text of a code, for as long as the program runs; nothing for unknown ones.
        pub fn describe(code: i32) -> Option<(&'static CStr, &'static CStr)> {
            const fn c(text: &'static str) -> &'static CStr {
                match CStr::from_bytes_with_nul(text.as_bytes()) {
                    Ok(text) => text,
                    Err(_) => panic!("a text with a zero inside"),
                }
            }
            match code {
                0 => Some((c"CUDA_SUCCESS", c"no error")),
                $($code => {
                    const NAME: &CStr = c(concat!("CUDA_ERROR_", stringify!($name), "\0"));
                    const TEXT: &CStr = c(concat!($text, "\0"));
                    Some((NAME, TEXT))
                })*
                _ => None,
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1 "invalid argument"
    OUT_OF_MEMORY = 2 "out of memory"
    NOT_INITIALIZED = 3 "initialization error"
    DEINITIALIZED = 4 "driver shutting down"
    STUB_LIBRARY = 34 "the loaded library is a stub"
    DEVICE_UNAVAILABLE = 46 "the device is busy or unavailable"
    NO_DEVICE = 100 "no CUDA-capable device is detected"
    INVALID_DEVICE = 101 "invalid device ordinal"
    INVALID_IMAGE = 200 "device kernel image is invalid"
    INVALID_CONTEXT = 201 "invalid device context"
    NO_BINARY_FOR_GPU = 209 "no kernel image is available for execution on the device"
    UNSUPPORTED_LIMIT = 215 "limit is not supported on this architecture"
    PEER_ACCESS_UNSUPPORTED = 217 "peer access is not supported between these two devices"
    INVALID_PTX = 218 "a PTX JIT compilation failed"
    JIT_COMPILER_NOT_FOUND = 221 "PTX JIT compiler library not found"
    UNSUPPORTED_PTX_VERSION = 222 "the provided PTX was compiled with an unsupported toolchain"
    JIT_COMPILATION_DISABLED = 223 "PTX JIT compilation was disabled"
    INVALID_SOURCE = 300 "device kernel image is invalid"
    FILE_NOT_FOUND = 301 "file not found"
    SHARED_OBJECT_SYMBOL_NOT_FOUND = 302 "shared object symbol not found"
    SHARED_OBJECT_INIT_FAILED = 303 "shared object initialization failed"
    OPERATING_SYSTEM = 304 "OS call failed or operation not supported on this OS"
    INVALID_HANDLE = 400 "invalid resource handle"
    ILLEGAL_STATE = 401 "the operation cannot be performed in the present state"
    NOT_FOUND = 500 "named symbol not found"
    NOT_READY = 600 "device not ready"
    ILLEGAL_ADDRESS = 700 "an illegal memory access was encountered"
    LAUNCH_OUT_OF_RESOURCES = 701 "too many resources requested for launch"
    LAUNCH_TIMEOUT = 702 "the launch timed out and was terminated"
    PEER_ACCESS_ALREADY_ENABLED = 704 "peer access is already enabled"
    PEER_ACCESS_NOT_ENABLED = 705 "peer access has not been enabled"
    PRIMARY_CONTEXT_ACTIVE = 708 "cannot set while device is active in this process"
    CONTEXT_IS_DESTROYED = 709 "context is destroyed"
    ASSERT = 710 "device-side assert triggered"
    HOST_MEMORY_ALREADY_REGISTERED = 712 "part or all of the requested memory range is already mapped"
    HOST_MEMORY_NOT_REGISTERED = 713 "pointer does not correspond to a registered memory region"
    HARDWARE_STACK_ERROR = 714 "hardware stack error"
    ILLEGAL_INSTRUCTION = 715 "an illegal instruction was encountered"
    MISALIGNED_ADDRESS = 716 "misaligned address"
    INVALID_ADDRESS_SPACE = 717 "operation not supported on global/shared address space"
    INVALID_PC = 718 "invalid program counter"
    LAUNCH_FAILED = 719 "unspecified launch failure"
    COOPERATIVE_LAUNCH_TOO_LARGE = 720 "too many blocks in cooperative launch"
    NOT_PERMITTED = 800 "operation not permitted"
    NOT_SUPPORTED = 801 "operation not supported"
    SYSTEM_NOT_READY = 802 "system not yet initialized"
    SYSTEM_DRIVER_MISMATCH = 803 "system has unsupported display driver / cuda driver combination"
    COMPAT_NOT_SUPPORTED_ON_DEVICE = 804 "forward compatibility was attempted on non supported HW"
    STREAM_CAPTURE_UNSUPPORTED = 900 "operation not permitted when stream is capturing"
    STREAM_CAPTURE_INVALIDATED = 901 "operation failed due to a previous error during capture"
    STREAM_CAPTURE_MERGE = 902 "operation would result in a merge of separate capture sequences"
    STREAM_CAPTURE_UNMATCHED = 903 "capture was not ended in the same stream as it began"
    STREAM_CAPTURE_UNJOINED = 904 "capturing stream has unjoined work"
    STREAM_CAPTURE_ISOLATION = 905 "dependency created on uncaptured work in another stream"
    STREAM_CAPTURE_IMPLICIT = 906 "operation would make the legacy stream depend on a capturing blocking stream"
    CAPTURED_EVENT = 907 "operation not permitted on an event last recorded in a capturing stream"
    STREAM_CAPTURE_WRONG_THREAD = 908 "attempt to terminate a thread-local capture sequence from another thread"
    TIMEOUT = 909 "wait operation timed out"
    GRAPH_EXEC_UPDATE_FAILURE = 910 "the graph update was not performed because of constraints it violates"
    EXTERNAL_DEVICE = 911 "an async error has occurred in external entity outside of CUDA"
    UNKNOWN = 999 "unknown error"
}

// Codes of later versions, without a name for the reason above.
/// The driver's code 914, of CUDA 12.4: no such type of resource.
pub const INVALID_RESOURCE_TYPE: i32 = 914;
/// The driver's code 915, of CUDA 12.4: resources that do not go together.
pub const INVALID_RESOURCE_CONFIGURATION: i32 = 915;
/// The driver's code 917, of CUDA 12.5: the stream's green context has ended.
pub const STREAM_DETACHED: i32 = 917;
