//! Libraries: images of no context, whose kernels run in every context, and which are refused by the first use.

use std::ffi::{CString, c_void};

use crate::support::*;

/// Loads an image, and returns the code and the library.
fn load_library(image: *const c_void) -> (i32, usize) {
    let (none, no_values, mut library) = (std::ptr::null(), std::ptr::null_mut(), 0);
    (code!(cuLibraryLoadData(&mut library, image, none, no_values, 0, none, no_values, 0)), library)
}

/// Loads a text, and returns its kernel `add`.
fn add_of(ptx: &str) -> (usize, usize) {
    let text = CString::new(ptx).unwrap();
    let (code, library) = load_library(text.as_ptr().cast());
    assert_eq!(code, 0);
    (library, get!(cuLibraryGetKernel(library, c"add".as_ptr())))
}

#[test]
fn a_kernel_runs_in_the_context_of_its_stream() {
    let _turn = fresh(&[("devices", "2")]);
    ok!(cuInit(0));
    // Loaded and looked up without a context.
    let (library, kernel) = add_of(PTX);
    assert_eq!(kernel, get!(cuLibraryGetKernel(library, c"add".as_ptr())));
    fails!(NOT_FOUND, cuLibraryGetKernel(&mut 0, library, c"ad".as_ptr()));
    fails!(INVALID_CONTEXT, cuKernelGetFunction(&mut 0, kernel));
    let contexts: [usize; 2] = [0, 1].map(|device| get!(cuDevicePrimaryCtxRetain(device)));
    let places = contexts.map(|context| {
        ok!(cuCtxSetCurrent(context));
        (words([1; 4]), stream())
    });
    // The second context is current.
    for (p, s) in places {
        assert_eq!(launch_add(kernel, p, 2, 4, s), 0);
        ok!(cuStreamSynchronize(s));
        assert_eq!(peek(p), [3; 4]);
    }
    assert_eq!(query("lazy_loads"), 2, "each context loads it");
    assert_eq!(launch_add(kernel, places[1].0, 2, 4, 0), 0);
    ok!(cuCtxSynchronize());
    assert_eq!(peek(places[1].0), [5; 4]);
    // A function of one context is none of another.
    let f: usize = get!(cuKernelGetFunction(kernel));
    assert_eq!(launch_add(f, places[0].0, 2, 4, places[0].1), INVALID_HANDLE);
    assert_eq!(launch_add(f, places[1].0, 1, 4, places[1].1), 0);
    assert_eq!((query("live.libraries"), query("live.modules")), (1, 0));
    ok!(cuLibraryUnload(library));
    assert_eq!(peek(places[1].0), [6; 4], "unloading waits");
    fails!(INVALID_HANDLE, cuLibraryUnload(library));
    assert_eq!(launch_add(kernel, places[1].0, 2, 4, places[1].1), INVALID_HANDLE);
    assert_eq!(query("faults"), 0);
}

#[test]
fn a_library_outlives_contexts() {
    let (_turn, context) = with_context(&[]);
    let (_, kernel) = add_of(PTX);
    for life in 1..=3 {
        ok!(cuCtxSetCurrent(context));
        let (p, s) = (words([0; 4]), stream());
        let f: usize = get!(cuKernelGetFunction(kernel));
        let _: i32 = get!(cuFuncGetAttribute(0, f));
        // It was loaded, so a capture may launch it.
        ok!(cuStreamBeginCapture_v2(s, 0));
        assert_eq!(launch_add(kernel, p, 1, 4, s), 0, "{life}");
        let mut graph = 0;
        ok!(cuStreamEndCapture(s, &mut graph));
        assert_eq!(launch_add(kernel, p, life, 4, s), 0);
        ok!(cuStreamSynchronize(s));
        assert_eq!((peek(p), query("lazy_loads")), ([life; 4], 0));
        ok!(cuDevicePrimaryCtxReset_v2(0));
        fails!(INVALID_HANDLE, cuFuncGetAttribute(&mut 0, 0, f));
    }
    // In the next life nobody has loaded it yet.
    let s = stream();
    ok!(cuStreamBeginCapture_v2(s, 0));
    assert_eq!(launch_add(kernel, 0, 1, 4, s), STREAM_CAPTURE_UNSUPPORTED);
}

#[test]
fn shared_bytes_are_told_to_a_kernel_for_a_device_or_to_a_function() {
    let (_turn, _) = with_context(&[("devices", "2"), ("cc", "90,75")]);
    let (_, kernel) = add_of(PTX);
    let f: usize = get!(cuKernelGetFunction(kernel));
    let p = words([0; 4]);
    let launch = |function, shared| {
        let value = 0u32;
        let params = [(&raw const p).cast::<u8>(), (&raw const value).cast()];
        // SAFETY: two parameters as `add` has them.
        code!(cuLaunchKernel(function, 1, 1, 1, 4, 1, 1, shared, 0, params.as_ptr(), std::ptr::null()))
    };
    assert_eq!(launch(kernel, (48 << 10) + 1), INVALID_VALUE);
    ok!(cuKernelSetAttribute(8, 100 << 10, kernel, 0));
    assert_eq!([launch(kernel, 100 << 10), launch(f, 100 << 10), launch(f, (100 << 10) + 1)], [0, 0, INVALID_VALUE]);
    fails!(INVALID_VALUE, cuKernelSetAttribute(8, 100 << 10, kernel, 1));
    fails!(INVALID_VALUE, cuKernelSetAttribute(0, 32, kernel, 0));
    fails!(INVALID_DEVICE, cuKernelSetAttribute(8, 32, kernel, 2));
    fails!(INVALID_HANDLE, cuKernelSetAttribute(8, 32, f, 0));
    let blocks: i32 = get!(cuOccupancyMaxActiveBlocksPerMultiprocessor(kernel, 32, 100 << 10));
    assert_eq!(blocks, 2);
    // What a function was told is stronger.
    ok!(cuFuncSetAttribute(f, 8, 0));
    assert_eq!([launch(kernel, 0), launch(kernel, 1)], [0, INVALID_VALUE]);
    ok!(cuCtxSynchronize());
}

#[test]
fn what_does_not_fit_is_refused_by_its_first_use() {
    let mut cubin = [0u8; 64];
    cubin[..4].copy_from_slice(b"\x7fELF");
    cubin[8] = 7;
    cubin[48..52].copy_from_slice(&0x0500_005Au32.to_le_bytes());
    for loading in ["LAZY", "EAGER"] {
        let (_turn, _) = with_context(&[("module_loading", loading)]);
        let eager = loading == "EAGER";
        let (code, library) = load_library(cubin.as_ptr().cast());
        assert_eq!(code, if eager { NO_BINARY_FOR_GPU } else { 0 });
        if !eager {
            let kernel: usize = get!(cuLibraryGetKernel(library, c"any".as_ptr()));
            fails!(NO_BINARY_FOR_GPU, cuKernelGetFunction(&mut 0, kernel));
            fails!(NO_BINARY_FOR_GPU, cuKernelSetAttribute(8, 0, kernel, 0));
            assert_eq!(launch_add(kernel, 0, 1, 4, 0), NO_BINARY_FOR_GPU);
        }
        let text = CString::new(PTX).unwrap();
        control("jit", "0");
        let (code, library) = load_library(text.as_ptr().cast());
        assert_eq!(code, if eager { JIT_COMPILER_NOT_FOUND } else { 0 });
        if !eager {
            let kernel: usize = get!(cuLibraryGetKernel(library, c"add".as_ptr()));
            fails!(JIT_COMPILER_NOT_FOUND, cuKernelGetFunction(&mut 0, kernel));
        }
        assert_eq!(query("live.libraries"), if eager { 0 } else { 2 });
        // A text that is none is refused at once.
        let text = CString::new(PTX.replace("add.s32", "frobnicate.s32")).unwrap();
        assert_eq!(load_library(text.as_ptr().cast()).0, INVALID_PTX);
        assert_eq!(load_library(std::ptr::null()).0, INVALID_VALUE);
    }
    // What is loaded eagerly is ready in every context that was there.
    let (_turn, _) = with_context(&[("module_loading", "EAGER")]);
    let (_, kernel) = add_of(PTX);
    let p = words([0; 4]);
    assert_eq!((launch_add(kernel, p, 1, 4, 0), query("lazy_loads")), (0, 0));
}
