//! The driver's pose, its devices and contexts, and its handles.

use std::ffi::{CStr, CString, c_char};

use crate::support::*;

#[test]
fn nothing_works_before_init_but_what_needs_none() {
    let _turn = fresh(&[("driver", "12020")]);
    let (mut n, mut p, mut name) = (0, 0usize, std::ptr::null());
    fails!(NOT_INITIALIZED, cuDeviceGetCount(&mut n));
    fails!(NOT_INITIALIZED, cuCtxGetCurrent(&mut p));
    fails!(NOT_INITIALIZED, cuMemAlloc_v2(&mut 0, 16));
    fails!(NOT_INITIALIZED, cuDevicePrimaryCtxRelease_v2(0));
    assert_eq!(get_version(), 12020);
    ok!(cuGetErrorName(700, &mut name));
    // SAFETY: the name of a known code.
    assert_eq!(unsafe { CStr::from_ptr(name) }, c"CUDA_ERROR_ILLEGAL_ADDRESS");
    fails!(INVALID_VALUE, cuInit(1));
    ok!(cuInit(0));
    ok!(cuDeviceGetCount(&mut n));
    assert_eq!(n, 1);
}

fn get_version() -> i32 {
    get!(cuDriverGetVersion())
}

#[test]
fn names_of_unknown_codes_are_refused() {
    let _turn = fresh(&[]);
    let mut name = c"x".as_ptr();
    for code in [913, -1, 12345] {
        fails!(INVALID_VALUE, cuGetErrorName(code, &mut name));
        assert!(name.is_null());
        fails!(INVALID_VALUE, cuGetErrorString(code, &mut name));
    }
    ok!(cuGetErrorString(0, &mut name));
    // SAFETY: the text of a known code.
    assert_eq!(unsafe { CStr::from_ptr(name) }, c"no error");
}

#[test]
fn devices_are_as_posed() {
    let _turn =
        fresh(&[("devices", "2"), ("cc", "90,75"), ("memory", "64M"), ("sms", "7"), ("device_name", "A Device")]);
    ok!(cuInit(0));
    let attribute = |number, device| -> i32 { get!(cuDeviceGetAttribute(number, device)) };
    assert_eq!([75, 76, 16, 97].map(|number| attribute(number, 0)), [9, 0, 7, 232_448]);
    assert_eq!([75, 76, 16, 97, 8, 10].map(|number| attribute(number, 1)), [7, 5, 7, 65_536, 49_152, 32]);
    let bytes: usize = get!(cuDeviceTotalMem_v2(1));
    assert_eq!(bytes, 64 << 20);
    fails!(INVALID_DEVICE, cuDeviceGet(&mut 0, 2));
    fails!(INVALID_DEVICE, cuDeviceGet(&mut 0, -1));
    let mut name = [1 as c_char; 5];
    ok!(cuDeviceGetName(name.as_mut_ptr(), 5, 0));
    // SAFETY: the call ends the text.
    assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"A De");
    let (mut a, mut b) = ([0u8; 16], [0u8; 16]);
    ok!(cuDeviceGetUuid_v2(&mut a, 0));
    ok!(cuDeviceGetUuid_v2(&mut b, 1));
    assert_ne!(a, b);
}

#[test]
fn without_devices_init_fails() {
    let _turn = fresh(&[("devices", "0")]);
    fails!(NO_DEVICE, cuInit(0));
    fails!(NOT_INITIALIZED, cuDeviceGetCount(&mut 0));
}

#[test]
fn primary_contexts_live_while_they_are_retained() {
    let _turn = fresh(&[]);
    ok!(cuInit(0));
    let state = || {
        let (mut flags, mut active) = (7, 7);
        ok!(cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        active
    };
    assert_eq!(state(), 0);
    let a: usize = get!(cuDevicePrimaryCtxRetain(0));
    let b: usize = get!(cuDevicePrimaryCtxRetain(0));
    assert_eq!((a, state(), query("live.retains")), (b, 1, 2));
    ok!(cuCtxSetCurrent(a));
    let id = || {
        let mut id = 0;
        ok!(cuCtxGetId(a, &mut id));
        id
    };
    let first = id();
    let address: u64 = get!(cuMemAlloc_v2(100));
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    ok!(cuMemsetD8_v2(address, 1, 100));
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    assert_eq!((state(), query("live.allocations"), query("abandoned.allocations")), (0, 0, 1));
    fails!(INVALID_CONTEXT, cuDevicePrimaryCtxRelease_v2(0));
    fails!(CONTEXT_IS_DESTROYED, cuMemAlloc_v2(&mut 0, 16));
    fails!(CONTEXT_IS_DESTROYED, cuCtxSetCurrent(a));
    let again: usize = get!(cuDevicePrimaryCtxRetain(0));
    assert_eq!(again, a);
    assert_ne!(id(), first, "another life");
    fails!(INVALID_VALUE, cuMemFree_v2(address));
    ok!(cuDevicePrimaryCtxReset_v2(0));
    assert_eq!(state(), 1);
}

#[test]
fn every_thread_has_its_own_stack_of_contexts() {
    let (_turn, primary) = with_context(&[]);
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    let current = || -> usize { get!(cuCtxGetCurrent()) };
    assert_eq!(current(), own);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(current(), 0);
            fails!(INVALID_CONTEXT, cuMemAlloc_v2(&mut 0, 16));
            fails!(INVALID_CONTEXT, cuCtxPopCurrent_v2(&mut 0));
            fails!(INVALID_CONTEXT, cuCtxPushCurrent_v2(0));
            fails!(INVALID_CONTEXT, cuCtxPushCurrent_v2(0x1234));
            ok!(cuCtxSetCurrent(own));
            assert_eq!(current(), own);
        });
    });
    let popped: usize = get!(cuCtxPopCurrent_v2());
    assert_eq!((popped, current()), (own, primary));
    ok!(cuCtxSetCurrent(own));
    ok!(cuCtxSetCurrent(0));
    assert_eq!(current(), 0);
    ok!(cuCtxPushCurrent_v2(own));
    fails!(INVALID_CONTEXT, cuCtxDestroy_v2(primary));
    ok!(cuCtxDestroy_v2(own));
    assert_eq!(current(), 0);
    fails!(CONTEXT_IS_DESTROYED, cuCtxDestroy_v2(own));
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    assert_eq!(query("leaked"), 0);
}

#[test]
fn a_context_destroyed_elsewhere_is_told_from_nonsense() {
    let (_turn, _) = with_context(&[]);
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    std::thread::scope(|scope| {
        scope.spawn(|| ok!(cuCtxDestroy_v2(own)));
    });
    fails!(CONTEXT_IS_DESTROYED, cuCtxSynchronize());
    fails!(CONTEXT_IS_DESTROYED, cuCtxGetDevice(&mut 0));
    ok!(cuCtxPopCurrent_v2(std::ptr::null_mut()));
    ok!(cuCtxSynchronize());
}

#[test]
fn handles_are_checked_and_never_used_twice() {
    let (_turn, _) = with_context(&[]);
    let (s, e, m) = (stream(), event(), load(PTX));
    for wrong in [e, m, 0x10, s + 64] {
        fails!(INVALID_HANDLE, cuStreamSynchronize(wrong));
        fails!(INVALID_HANDLE, cuStreamDestroy_v2(wrong));
    }
    fails!(INVALID_HANDLE, cuStreamDestroy_v2(0));
    fails!(INVALID_HANDLE, cuEventRecord(s, s));
    fails!(INVALID_HANDLE, cuModuleGetFunction(&mut 0, s, c"add".as_ptr()));
    fails!(NOT_FOUND, cuModuleGetFunction(&mut 0, m, c"none".as_ptr()));
    ok!(cuStreamDestroy_v2(s));
    ok!(cuEventDestroy_v2(e));
    ok!(cuModuleUnload(m));
    fails!(INVALID_HANDLE, cuStreamDestroy_v2(s));
    fails!(INVALID_HANDLE, cuEventDestroy_v2(e));
    fails!(INVALID_HANDLE, cuModuleUnload(m));
    assert_ne!(stream(), s);
    assert_ne!(event(), e);
}

#[test]
fn a_stream_tells_its_context_without_a_current_one() {
    let (_turn, primary) = with_context(&[]);
    let s = stream();
    ok!(cuCtxPopCurrent_v2(std::ptr::null_mut()));
    let mut context = 0;
    ok!(cuStreamGetCtx(s, &mut context));
    assert_eq!(context, primary);
    for special in [0, 1, 2] {
        fails!(INVALID_CONTEXT, cuStreamGetCtx(special, &mut context));
    }
    fails!(INVALID_CONTEXT, cuStreamSynchronize(s));
    ok!(cuCtxPushCurrent_v2(primary));
    ok!(cuStreamGetCtx(0, &mut context));
    assert_eq!(context, primary);
}

#[test]
fn launches_and_events_of_another_context_are_refused_and_copies_are_not() {
    let (_turn, _) = with_context(&[]);
    let (f, s, e) = (add(), stream(), event());
    let p = words([1, 2, 3, 4]);
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    let (own_f, own_s) = (add(), stream());
    assert_eq!(launch_add(own_f, p, 1, 4, s), INVALID_HANDLE);
    assert_eq!(launch_add(f, p, 1, 4, s), INVALID_HANDLE);
    assert_eq!(launch_add(f, p, 1, 4, own_s), INVALID_HANDLE);
    fails!(INVALID_HANDLE, cuEventRecord(e, own_s));
    ok!(cuMemsetD32Async(p, 9, 4, s));
    ok!(cuStreamWaitEvent(own_s, e, 0));
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [9; 4]);
    ok!(cuCtxDestroy_v2(own));
    fails!(INVALID_HANDLE, cuStreamSynchronize(own_s));
    assert_eq!(launch_add(own_f, p, 1, 4, s), INVALID_HANDLE);
}

#[test]
fn entry_points_are_found_by_name_version_and_pose() {
    let _turn = fresh(&[("missing", "cuMemFreeAsync,cuMemAlloc_v2")]);
    let find = |name: &str, version, flags| {
        let name = CString::new(name).unwrap();
        let (mut address, mut status) = (1usize, 9);
        ok!(cuGetProcAddress_v2(name.as_ptr(), &mut address, version, flags, &mut status));
        assert_eq!(address == 0, status != 0);
        (address, status)
    };
    assert_eq!(find("cuStreamDestroy", 12000, 0).0, cuStreamDestroy_v2 as *const () as usize);
    assert_eq!(find("cuMemcpyHtoDAsync", 12000, 2).0, cuMemcpyHtoDAsync_v2_ptsz as *const () as usize);
    assert_eq!(find("cuMemcpyHtoD", 12000, 2).0, cuMemcpyHtoD_v2_ptds as *const () as usize);
    assert_eq!(find("cuInit", 12000, 2).0, cuInit as *const () as usize);
    for missing in ["cuMemFreeAsync", "cuMemAlloc", "cuNoSuchThing", "cuStreamDestroy_v2"] {
        assert_eq!(find(missing, 12000, 0), (0, 1), "{missing}");
    }
    assert_eq!(find("cuFuncLoad", 12000, 0), (0, 2));
    assert_eq!(find("cuFuncLoad", 12040, 0).1, 0);
    control("driver", "12000");
    assert_eq!(find("cuFuncLoad", 12040, 0), (0, 2));
    fails!(NOT_FOUND, cuGetProcAddress(c"cuMemFreeAsync".as_ptr(), &mut 0, 12000, 0));
    ok!(cuGetProcAddress(c"cuMemFree".as_ptr(), &mut 0, 12000, 0));
}

#[test]
fn memory_is_bounded_counted_and_freed_once() {
    let (_turn, _) = with_context(&[("memory", "1M")]);
    let a: u64 = get!(cuMemAlloc_v2(600 << 10));
    fails!(OUT_OF_MEMORY, cuMemAlloc_v2(&mut 0, 600 << 10));
    fails!(OUT_OF_MEMORY, cuMemAlloc_v2(&mut 0, usize::MAX));
    fails!(INVALID_VALUE, cuMemAlloc_v2(&mut 0, 0));
    fails!(INVALID_VALUE, cuMemAlloc_v2(std::ptr::null_mut(), 1));
    let (mut free, mut total) = (0, 0);
    ok!(cuMemGetInfo_v2(&mut free, &mut total));
    assert_eq!((free, total), (424 << 10, 1 << 20));
    fails!(INVALID_VALUE, cuMemFree_v2(a + 256));
    ok!(cuMemFree_v2(a));
    fails!(INVALID_VALUE, cuMemFree_v2(a));
    ok!(cuMemFree_v2(0));
    let b: u64 = get!(cuMemAllocAsync(100, 0));
    ok!(cuMemFreeAsync(b, 0));
    fails!(INVALID_VALUE, cuMemFreeAsync(b, 0));
    fails!(INVALID_VALUE, cuMemFree_v2(b));
    assert_eq!(query("live.allocations"), 1);
    ok!(cuStreamSynchronize(0));
    assert_eq!((query("live.allocations"), query("bytes")), (0, 0));
    control("memory_pools", "0");
    fails!(NOT_SUPPORTED, cuMemAllocAsync(&mut 0, 16, 0));
    let pools: i32 = get!(cuDeviceGetAttribute(115, 0));
    assert_eq!(pools, 0);
}

#[test]
fn copies_are_held_to_the_bounds() {
    let (_turn, _) = with_context(&[]);
    let (a, host) = (words([1; 4]), [0u32; 8]);
    fails!(INVALID_VALUE, cuMemcpyHtoD_v2(a, host.as_ptr().cast(), 17));
    fails!(INVALID_VALUE, cuMemcpyHtoD_v2(a + 8, host.as_ptr().cast(), 9));
    fails!(INVALID_VALUE, cuMemcpyHtoDAsync_v2(a - 1, host.as_ptr().cast(), 4, 0));
    fails!(INVALID_VALUE, cuMemcpyHtoD_v2(host.as_ptr() as u64, host.as_ptr().cast(), 4));
    fails!(INVALID_VALUE, cuMemcpyDtoH_v2(host.as_ptr() as *mut _, host.as_ptr() as u64, 4));
    fails!(INVALID_VALUE, cuMemcpyDtoDAsync_v2(a, a + 16, 4, 0));
    fails!(INVALID_VALUE, cuMemsetD32_v2(a + 2, 0, 1));
    fails!(INVALID_VALUE, cuMemsetD8Async(a, 0, 17, 0));
    ok!(cuMemcpyHtoD_v2(a, host.as_ptr().cast(), 0));
    let mut back = [7u32; 4];
    ok!(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), a, 16));
    assert_eq!(back, [1; 4]);
    let sets: [fn(u64); 3] = [
        |a| ok!(cuMemsetD8_v2(a, 0xAB, 3)),
        |a| ok!(cuMemsetD16_v2(a + 4, 0x1234, 1)),
        |a| ok!(cuMemsetD32_v2(a + 8, 0xDEAD_BEEF, 2)),
    ];
    sets.iter().for_each(|set| set(a));
    ok!(cuCtxSynchronize());
    assert_eq!(peek(a), [0x00AB_ABAB, 0x0000_1234, 0xDEAD_BEEF, 0xDEAD_BEEF]);
}

#[test]
fn pinned_memory_is_known_to_every_context() {
    let (_turn, _) = with_context(&[]);
    let p: usize = get!(cuMemHostAlloc(16, 0));
    // SAFETY: 16 bytes of pinned memory.
    unsafe { (p as *mut [u32; 4]).write([1, 2, 3, 4]) };
    let f = add();
    assert_eq!(launch_add(f, p as u64, 5, 4, 0), 0);
    ok!(cuCtxSynchronize());
    assert_eq!(peek(p as u64), [6, 7, 8, 9]);
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    assert_eq!(launch_add(add(), p as u64, 1, 4, 0), 0);
    ok!(cuCtxSynchronize());
    assert_eq!(peek(p as u64), [7, 8, 9, 10]);
    ok!(cuCtxDestroy_v2(own));
    fails!(INVALID_VALUE, cuMemFree_v2(p as u64));
    ok!(cuMemFreeHost(p));
    fails!(INVALID_VALUE, cuMemFreeHost(p));

    let mut own = vec![1u32; 4];
    let at = own.as_mut_ptr() as usize;
    ok!(cuMemHostRegister_v2(at, 16, 0));
    fails!(HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2(at + 4, 4, 0));
    assert_eq!(launch_add(f, at as u64, 1, 4, 0), 0);
    ok!(cuMemHostUnregister(at));
    assert_eq!(own, [2; 4], "unregistering waits");
    fails!(HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(at));
    assert_eq!(query("live.registered") + query("live.pinned"), 0);
}

#[test]
fn addresses_tell_what_they_are() {
    let (_turn, context) = with_context(&[]);
    let (d, h): (u64, usize) = (get!(cuMemAlloc_v2(32)), get!(cuMemHostAlloc(32, 0)));
    let ask = |attribute, address| {
        let mut value = 0u64;
        // SAFETY: room for the largest attribute.
        let code = code!(cuPointerGetAttribute((&raw mut value).cast(), attribute, address));
        (code, value)
    };
    assert_eq!([1, 2, 9, 11, 12].map(|n| ask(n, d + 7)), [context as u64, 2, 0, d, 32].map(|value| (0, value)));
    assert_eq!(ask(2, h as u64), (0, 1));
    assert_eq!(ask(2, d + 32).0, INVALID_VALUE);
    let stack = 5u32;
    assert_eq!(ask(2, &raw const stack as u64).0, INVALID_VALUE);
    let (mut kind, mut start) = (9u32, 9u64);
    let mut places = [(&raw mut kind).cast(), (&raw mut start).cast()];
    ok!(cuPointerGetAttributes(2, [2, 11].as_ptr(), places.as_mut_ptr(), d + 3));
    assert_eq!((kind, start), (2, d));
    ok!(cuPointerGetAttributes(2, [2, 11].as_ptr(), places.as_mut_ptr(), 64));
    assert_eq!((kind, start), (0, 0));
}

/// Eight devices of more memory than any machine has, each with a context of its own; bytes go from one to the next.
#[test]
fn bytes_move_between_devices() {
    let _turn = fresh(&[("devices", "8"), ("memory", "80G"), ("sparse", "1M"), ("peers", "1")]);
    ok!(cuInit(0));
    let contexts: Vec<usize> = (0..8).map(|device| get!(cuDevicePrimaryCtxRetain(device))).collect();
    let large = 60usize << 30;
    let mut memory = Vec::new();
    for &context in &contexts {
        ok!(cuCtxSetCurrent(context));
        let (at, mut free, mut total): (u64, _, _) = (get!(cuMemAlloc_v2(large)), 0, 0);
        ok!(cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!((free, total), (20 << 30, 80 << 30));
        fails!(OUT_OF_MEMORY, cuMemAlloc_v2(&mut 0, free + 1));
        memory.push(at);
    }
    let can: i32 = get!(cuDeviceCanAccessPeer(0, 1));
    let own: i32 = get!(cuDeviceCanAccessPeer(1, 1));
    assert_eq!((can, own), (1, 0));
    ok!(cuCtxSetCurrent(contexts[0]));
    ok!(cuCtxEnablePeerAccess(contexts[1], 0));
    fails!(PEER_ACCESS_ALREADY_ENABLED, cuCtxEnablePeerAccess(contexts[1], 0));
    fails!(INVALID_DEVICE, cuCtxEnablePeerAccess(contexts[0], 0));
    fails!(INVALID_VALUE, cuCtxEnablePeerAccess(contexts[2], 1));
    fails!(INVALID_CONTEXT, cuCtxEnablePeerAccess(12345, 0));
    ok!(cuCtxDisablePeerAccess(contexts[1]));
    fails!(PEER_ACCESS_NOT_ENABLED, cuCtxDisablePeerAccess(contexts[1]));

    // From device to device, at the end of 60 GB, and nothing before the stream is waited for.
    let at = large as u64 - 16;
    let first = words([1, 2, 3, 4]);
    let stream = stream();
    ok!(cuMemcpyPeerAsync(memory[0] + at, contexts[0], first, contexts[0], 16, stream));
    let (before, bytes) = (large as u64 - (1 << 28), 1 << 28);
    for (from, to) in (0..8).zip(1..8) {
        let (source, target) = (memory[from] + before, memory[to] + before);
        ok!(cuMemcpyPeerAsync(target, contexts[to], source, contexts[from], bytes, stream));
    }
    assert_eq!(peek(memory[7] + at), [0; 4]);
    ok!(cuStreamSynchronize(stream));
    assert_eq!(peek(memory[7] + at), [1, 2, 3, 4]);
    ok!(cuMemsetD8_v2(memory[7], 0, large));
    ok!(cuCtxSynchronize());
    assert_eq!(peek(memory[7] + at), [0; 4]);
    ok!(cuMemcpyPeer(memory[7] + 4, contexts[7], first, contexts[0], 16));
    ok!(cuCtxSynchronize());
    assert_eq!(peek(memory[7]), [0, 1, 2, 3]);

    // Memory of another context than is said, beyond its end, and in no context.
    fails!(INVALID_VALUE, cuMemcpyPeerAsync(memory[1], contexts[2], first, contexts[0], 16, stream));
    fails!(INVALID_VALUE, cuMemcpyPeerAsync(memory[1], contexts[1], first, contexts[3], 16, stream));
    fails!(INVALID_VALUE, cuMemcpyPeer(memory[1] + large as u64, contexts[1], first, contexts[0], 1));
    fails!(INVALID_CONTEXT, cuMemcpyPeer(memory[1], 12345, first, contexts[0], 16));
    ok!(cuDevicePrimaryCtxRelease_v2(7));
    fails!(CONTEXT_IS_DESTROYED, cuMemcpyPeer(memory[7], contexts[7], first, contexts[0], 16));
    control("peers", "0");
    let can: i32 = get!(cuDeviceCanAccessPeer(0, 1));
    assert_eq!(can, 0);
    fails!(PEER_ACCESS_UNSUPPORTED, cuCtxEnablePeerAccess(contexts[1], 0));
    // A copy needs no access: it goes through the host then.
    ok!(cuMemcpyPeer(memory[1], contexts[1], first, contexts[0], 16));
    ok!(cuCtxSynchronize());
    assert_eq!(peek(memory[1]), [1, 2, 3, 4]);
    assert_eq!(query("faults"), 0);
}
