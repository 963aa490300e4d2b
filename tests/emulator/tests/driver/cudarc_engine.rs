//! cudarc on the emulated driver: contexts, streams, memory, events, launches and graphs as a Rust engine has them.
//!
//! cudarc finds the driver by its name alone, so the work is done by a second process whose search path leads to the
//! emulator.

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaStream, DevicePtr, DevicePtrMut, DriverError, result, sys};

const PTX: &str = "
.version 8.0
.target sm_75
.address_size 64
.visible .entry double(.param .u64 p)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r2, [%rd3];
    shl.b32 %r2, %r2, 1;
    st.global.u32 [%rd3], %r2;
    ret;
}
";

/// Set in the second process.
const SECOND: &str = "DF11_TEST_SECOND_PROCESS";

#[test]
fn cudarc_works_on_the_emulator() {
    if std::env::var_os(SECOND).is_some() {
        return as_an_engine();
    }
    let here = std::env::current_exe().unwrap();
    let library = here.parent().unwrap().join("libdf11_emulator.so");
    let folder: PathBuf = std::env::temp_dir().join(format!("df11-emulator-cudarc-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&library, folder.join(name)).unwrap();
    }
    let output = Command::new(here)
        .args(["--exact", "cudarc_engine::cudarc_works_on_the_emulator", "--nocapture"])
        .env(SECOND, "1")
        .env("LD_LIBRARY_PATH", &folder)
        .env("DF11_EMULATOR_DRIVER", "12000")
        .env("DF11_EMULATOR_LEAKS", "stderr")
        .env("DF11_EMULATOR_LEAK_EXIT", "99")
        .output()
        .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{err}", String::from_utf8_lossy(&output.stdout));
    assert!(err.contains("nothing leaked"), "{err}");
}

fn query(key: &str) -> u64 {
    type Query = unsafe extern "C" fn(*const c_char) -> u64;
    let key = CString::new(key).unwrap();
    // SAFETY: the emulator has this function, and the key is a text.
    unsafe { sys::culib().get::<Query>(b"df11_emulator_query\0").unwrap()(key.as_ptr()) }
}

fn as_an_engine() {
    let context = CudaContext::new(0).unwrap();
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    assert_eq!(context.total_mem().unwrap(), 8 << 30);
    assert!(context.has_async_alloc());
    assert_eq!(context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE).unwrap(), 32);
    assert!(!context.name().unwrap().is_empty());
    assert_ne!(context.uuid().unwrap().bytes[15], 0);

    // Two streams that cudarc orders by events, and one forked from another.
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let mut x = a.clone_htod(&[1u32, 2, 3, 4]).unwrap();
    let mut y = b.alloc_zeros::<u32>(4).unwrap();
    b.memcpy_dtod(&x, &mut y).unwrap();
    assert_eq!(b.clone_dtoh(&y).unwrap(), [1, 2, 3, 4]);
    let forked = a.fork().unwrap();
    a.join(&forked).unwrap();
    a.memset_zeros(&mut x).unwrap();
    assert_eq!(a.clone_dtoh(&x).unwrap(), [0; 4]);

    // Events.
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let (start, end) = (a.record_event(timed).unwrap(), a.record_event(timed).unwrap());
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0 && end.is_complete());

    launches(&context, &a);
    graphs(&context, &a);

    // Errors are values: too much memory, and codes that cudarc knows.
    // SAFETY: nobody reads what is not there.
    let error: DriverError = unsafe { a.alloc::<u8>(9 << 30) }.unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(error.error_name().unwrap().to_str(), Ok("CUDA_ERROR_OUT_OF_MEMORY"));

    drop((start, end, x, y, forked, b));
    context.synchronize().unwrap();
    assert_eq!(
        (query("live.allocations"), query("live.events"), query("live.streams"), query("live.retains")),
        (0, 0, 1, 1)
    );
    drop((a, context));
    assert_eq!((query("leaked"), query("faults"), query("sticky")), (0, 0, 0));
}

fn launches(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) {
    let text = CString::new(PTX).unwrap();
    context.bind_to_thread().unwrap();
    // SAFETY: a text with a zero at its end.
    let module = unsafe { result::module::load_data(text.as_ptr() as *const c_void) }.unwrap();
    // SAFETY: the module lives.
    let function = unsafe { result::module::get_function(module, c"double".to_owned()) }.unwrap();
    // SAFETY: pinned memory is written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
    pinned.as_mut_slice().unwrap().copy_from_slice(&[5, 6, 7, 8]);
    let mut x = stream.clone_htod(&pinned).unwrap();
    {
        let (address, _guard) = x.device_ptr_mut(stream);
        let mut address = address;
        let mut params = [(&raw mut address).cast::<c_void>()];
        // SAFETY: one parameter, the address of four words.
        unsafe {
            result::launch_kernel(function, (1, 1, 1), (4, 1, 1), 0, stream.cu_stream(), &mut params).unwrap();
        }
    }
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [10, 12, 14, 16]);
    assert_eq!(query("launches"), 1);
    // SAFETY: nothing uses the module any more.
    unsafe { result::module::unload(module) }.unwrap();
}

fn graphs(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) {
    // SAFETY: all that is captured is in one stream.
    unsafe { context.disable_event_tracking() };
    let (x, mut y) = (stream.clone_htod(&[1u32, 2, 3, 4]).unwrap(), stream.alloc_zeros::<u32>(4).unwrap());
    stream.synchronize().unwrap();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    stream.memcpy_dtod(&x, &mut y).unwrap();
    let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [0; 4]);
    graph.upload().unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [1, 2, 3, 4]);
    assert_ne!(x.device_ptr(stream).0, 0);
    // An allocation breaks a capture.
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    assert_eq!(stream.alloc_zeros::<u32>(4).unwrap_err().0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    let error = stream.end_capture(CUgraphInstantiate_flags(0)).err().unwrap();
    assert_eq!(error.0, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    // SAFETY: streams are ordered by events again.
    unsafe { context.enable_event_tracking() };
}
