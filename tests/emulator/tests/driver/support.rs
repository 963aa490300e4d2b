//! What the tests of the driver share: one test at a time with a driver that was just loaded, and short ways to call
//! it.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(unused_imports, reason = "each test file uses some of it")]

use std::ffi::{CString, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use df11_emulator::driver::codes::*;
pub use df11_emulator::driver::*;

/// Calls an entry point, and returns its code.
macro_rules! code {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        #[allow(unused_unsafe, reason = "an argument may be such a call itself")]
        // SAFETY: the test passes what the entry point asks for, or what it must refuse.
        unsafe { df11_emulator::driver::$function($($argument),*) }
    }};
}

/// Calls an entry point, and insists on success.
macro_rules! ok {
    ($($call:tt)*) => { assert_eq!(code!($($call)*), 0, "{}", stringify!($($call)*)) };
}

/// Calls an entry point, and insists on that code.
macro_rules! fails {
    ($expected:expr, $($call:tt)*) => { assert_eq!(code!($($call)*), $expected, "{}", stringify!($($call)*)) };
}

/// Calls an entry point whose first argument takes the result, and returns it.
macro_rules! get {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        let mut value = Default::default();
        ok!($function(&mut value, $($argument),*));
        value
    }};
}

/// Steers the emulator.
pub fn control(key: &str, value: &str) {
    let (key, value) = (CString::new(key).unwrap(), CString::new(value).unwrap());
    // SAFETY: two texts.
    assert_eq!(unsafe { df11_emulator_control(key.as_ptr(), value.as_ptr()) }, 0, "{key:?}={value:?}");
}

/// Asks the emulator.
pub fn query(key: &str) -> u64 {
    let text = CString::new(key).unwrap();
    // SAFETY: a text.
    let number = unsafe { df11_emulator_query(text.as_ptr()) };
    assert_ne!(number, u64::MAX, "{key}");
    number
}

/// Asks the emulator for a text.
pub fn text(key: &str) -> String {
    let mut bytes = vec![0u8; 1 << 16];
    let key = CString::new(key).unwrap();
    // SAFETY: a text, and room for that many bytes.
    let length = unsafe { df11_emulator_text(key.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    bytes.truncate(length);
    String::from_utf8(bytes).unwrap()
}

/// Returns a driver that was just loaded. The state is the process's: tests take turns.
pub fn fresh(pose: &[(&str, &str)]) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    control("reset", "");
    for (key, value) in pose {
        control(key, value);
    }
    turn
}

/// As [`fresh`], with the primary context of device 0 retained and current; returns its handle too.
pub fn with_context(pose: &[(&str, &str)]) -> (MutexGuard<'static, ()>, usize) {
    let turn = fresh(pose);
    ok!(cuInit(0));
    let context: usize = get!(cuDevicePrimaryCtxRetain(0));
    ok!(cuCtxPushCurrent_v2(context));
    (turn, context)
}

/// Kernels: `add` adds `value` to the u32 at `p` of every thread; `twice` does it with two parameters of other sizes;
/// `big` has 16 KiB of static shared memory; `few` allows 64 threads.
pub const PTX: &str = "
.version 8.0
.target sm_75
.address_size 64
.global .align 4 .u32 counter = 7;
.visible .entry add(.param .u64 p, .param .u32 value)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    ld.param.u32 %r1, [value];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd3, %r2, 4;
    add.s64 %rd2, %rd2, %rd3;
    ld.global.u32 %r3, [%rd2];
    add.s32 %r3, %r3, %r1;
    st.global.u32 [%rd2], %r3;
    ret;
}
.visible .entry few() .maxntid 64, 1, 1
{
    ret;
}
.visible .entry big()
{
    .shared .align 4 .b8 room[16384];
    ret;
}
.visible .entry bump()
{
    .reg .b32 %r<2>;
    ld.global.u32 %r1, [counter];
    add.s32 %r1, %r1, 1;
    st.global.u32 [counter], %r1;
    ret;
}
";

/// Loads a text.
pub fn load(ptx: &str) -> usize {
    let text = CString::new(ptx).unwrap();
    get!(cuModuleLoadData(text.as_ptr() as *const c_void))
}

/// Returns a function of a module.
pub fn function(module: usize, name: &str) -> usize {
    let name = CString::new(name).unwrap();
    get!(cuModuleGetFunction(module, name.as_ptr()))
}

/// Returns the function `add`, loaded.
pub fn add() -> usize {
    let function = function(load(PTX), "add");
    let threads: i32 = get!(cuFuncGetAttribute(0, function));
    assert_eq!(threads, 1024);
    function
}

/// Launches `add` for some threads, and returns the code.
pub fn launch_add(function: usize, address: u64, value: u32, threads: u32, stream: usize) -> i32 {
    let params = [(&raw const address).cast::<u8>(), (&raw const value).cast()];
    // SAFETY: two parameters as `add` has them.
    unsafe { cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, 0, stream, params.as_ptr(), std::ptr::null()) }
}

/// Four u32 on the device.
pub fn words(values: [u32; 4]) -> u64 {
    let address: u64 = get!(cuMemAlloc_v2(16));
    ok!(cuMemcpyHtoD_v2(address, values.as_ptr().cast(), 16));
    address
}

/// Four u32 as they are there now, whatever is queued.
pub fn peek(address: u64) -> [u32; 4] {
    // SAFETY: the emulator's device addresses are addresses of this process.
    unsafe { (address as *const [u32; 4]).read() }
}

/// Returns a stream that is not ordered with the legacy one.
pub fn stream() -> usize {
    get!(cuStreamCreate(1))
}

/// Returns an event without timing.
pub fn event() -> usize {
    get!(cuEventCreate(2))
}
