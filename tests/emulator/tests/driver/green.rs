//! Green contexts: parts of a device, their streams, and what is told of them.

use std::ffi::CString;

use crate::support::*;

/// Returns the multiprocessors of device 0.
fn all() -> Resource {
    let mut all = std::mem::MaybeUninit::zeroed();
    ok!(cuDeviceGetDevResource(0, all.as_mut_ptr(), 1));
    // SAFETY: numbers only.
    unsafe { all.assume_init() }
}

/// Makes a green context of at least that many multiprocessors, with a default stream if `flags` is 1.
fn green(least: u32, flags: u32) -> usize {
    let (mut part, mut count, input) = (all(), 1, all());
    ok!(cuDevSmResourceSplitByCount(&mut part, &mut count, &input, std::ptr::null_mut(), 0, least));
    assert_eq!(count, 1);
    let description: usize = get!(cuDevResourceGenerateDesc(&part, 1));
    get!(cuGreenCtxCreate(description, 0, flags))
}

/// Returns how many multiprocessors a resource has.
fn sms(resource: &Resource) -> u32 {
    // SAFETY: 144 bytes, of which these are the count, as in NVIDIA's header.
    unsafe { (&raw const *resource).cast::<u32>().add(24).read() }
}

/// Returns the contexts of a stream.
fn contexts(stream: usize) -> (usize, usize) {
    let (mut context, mut green) = (0, 0);
    ok!(cuStreamGetCtx_v2(stream, &mut context, &mut green));
    (context, green)
}

#[test]
fn devices_are_divided() {
    let _turn = fresh(&[("sms", "132")]);
    ok!(cuInit(0));
    let input = all();
    assert_eq!(sms(&input), 132);
    let mut count = 9;
    ok!(cuDevSmResourceSplitByCount(std::ptr::null_mut(), &mut count, &input, std::ptr::null_mut(), 0, 20));
    assert_eq!(count, 5, "24 each");
    let (mut parts, mut rest) = ([input; 9], input);
    count = 2;
    ok!(cuDevSmResourceSplitByCount(parts.as_mut_ptr(), &mut count, &input, &mut rest, 0, 20));
    assert_eq!((count, sms(&parts[0]), sms(&parts[1]), sms(&rest)), (2, 24, 24, 84));
    fails!(INVALID_VALUE, cuDevSmResourceSplitByCount(&mut rest, &mut count, &input, std::ptr::null_mut(), 0, 133));
    fails!(INVALID_RESOURCE_TYPE, cuDeviceGetDevResource(0, &mut rest, 1000));
    fails!(INVALID_DEVICE, cuDeviceGetDevResource(1, &mut rest, 1));
    // Both parts as one.
    let description: usize = get!(cuDevResourceGenerateDesc(parts.as_ptr(), 2));
    let green: usize = get!(cuGreenCtxCreate(description, 0, 0));
    ok!(cuGreenCtxGetDevResource(green, &mut rest, 1));
    assert_eq!((sms(&rest), query("live.greens"), query("live.retains")), (48, 1, 1));
    ok!(cuGreenCtxDestroy(green));
    fails!(INVALID_CONTEXT, cuGreenCtxDestroy(green));
    assert_eq!((query("live.greens"), query("live.retains"), query("leaked")), (0, 0, 0));
}

#[test]
fn streams_run_kernels_of_libraries_in_the_primary_context() {
    let (_turn, primary) = with_context(&[("sms", "16")]);
    let (g, p) = (green(8, 0), words([1; 4]));
    let s: usize = get!(cuGreenCtxStreamCreate(g, 1, 0));
    fails!(INVALID_VALUE, cuGreenCtxStreamCreate(&mut 0, g, 0, 0));
    assert_eq!((contexts(s), contexts(stream())), ((primary, g), (primary, 0)));
    // By the older call it is of a context of its own.
    let mut own = 0;
    ok!(cuStreamGetCtx(s, &mut own));
    assert!(own != primary && own != g);
    assert_eq!(own, get!(cuCtxFromGreenCtx(g)));
    let text = CString::new(PTX).unwrap();
    let (none, no_values, mut library) = (std::ptr::null(), std::ptr::null_mut(), 0);
    ok!(cuLibraryLoadData(&mut library, text.as_ptr().cast(), none, no_values, 0, none, no_values, 0));
    let kernel: usize = get!(cuLibraryGetKernel(library, c"add".as_ptr()));
    assert_eq!(launch_add(kernel, p, 2, 4, s), 0);
    // Copies and events are of the primary context.
    let e = event();
    ok!(cuEventRecord(e, s));
    ok!(cuEventSynchronize(e));
    assert_eq!(peek(p), [3; 4]);
    // A function can be launched there only with the green context current.
    let f = add();
    assert_eq!(launch_add(f, p, 2, 4, s), INVALID_HANDLE);
    ok!(cuCtxPushCurrent_v2(own));
    let current: usize = get!(cuCtxGetCurrent());
    assert_eq!(current, own);
    assert_eq!(launch_add(f, p, 2, 4, s), 0);
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [5; 4]);
    let mut resource = all();
    ok!(cuCtxGetDevResource(own, &mut resource, 1));
    assert_eq!(sms(&resource), 8);
    ok!(cuCtxGetDevResource(primary, &mut resource, 1));
    assert_eq!(sms(&resource), 16);
    control("context_sms", "6");
    ok!(cuCtxGetDevResource(primary, &mut resource, 1));
    assert_eq!(sms(&resource), 6);
    // Without a default stream of its own there is none.
    fails!(INVALID_HANDLE, cuStreamSynchronize(0));
    assert_eq!(contexts(1), (primary, g));
    // A stream that is made now is of the green context.
    assert_eq!(contexts(stream()), (primary, g));
}

#[test]
fn a_default_stream_is_asked_for() {
    let (_turn, primary) = with_context(&[("sms", "16")]);
    let g = green(8, 1);
    let own: usize = get!(cuCtxFromGreenCtx(g));
    assert_eq!(contexts(1), (primary, 0));
    ok!(cuCtxPushCurrent_v2(own));
    assert_eq!(contexts(1), (primary, g));
    assert_eq!(contexts(0), (primary, g));
    fails!(INVALID_HANDLE, cuStreamGetCtx_v2(2, &mut 0, &mut 0));
    ok!(cuStreamSynchronize(0));
    assert_eq!(query("live.streams"), 0);
}

#[test]
fn streams_of_a_green_context_that_ended_can_only_be_destroyed() {
    let (_turn, _) = with_context(&[("sms", "16")]);
    let (first, p) = (green(8, 0), words([0; 4]));
    let s: usize = get!(cuGreenCtxStreamCreate(first, 1, 0));
    ok!(cuMemsetD32Async(p, 7, 4, s));
    let number = |green| {
        let mut id = 0;
        ok!(cuGreenCtxGetId(green, &mut id));
        id
    };
    let id = number(first);
    ok!(cuGreenCtxDestroy(first));
    assert_eq!(peek(p), [7; 4], "its work was done");
    fails!(STREAM_DETACHED, cuStreamGetCtx_v2(s, &mut 0, &mut 0));
    fails!(STREAM_DETACHED, cuStreamSynchronize(s));
    ok!(cuStreamDestroy_v2(s));
    fails!(INVALID_CONTEXT, cuGreenCtxGetId(first, &mut 0));
    assert_ne!(number(green(8, 0)), id);
    // A reset ends all of them.
    let g = green(8, 0);
    ok!(cuDevicePrimaryCtxReset_v2(0));
    fails!(INVALID_CONTEXT, cuGreenCtxGetId(g, &mut 0));
}

#[test]
fn older_drivers_lack_what_came_later() {
    let _turn = fresh(&[]);
    let lacks = |version, name| newer_than(version).contains(&name);
    for (name, since) in [
        ("cuLibraryLoadData", 12000),
        ("cuKernelSetAttribute", 12000),
        ("cuGreenCtxCreate", 12040),
        ("cuStreamGetCtx_v2", 12050),
        ("cuStreamGetCtx_v2_ptsz", 12050),
        ("cuGreenCtxGetId", 13000),
    ] {
        assert!(lacks(since - 10, name) && !lacks(since, name), "{name}");
    }
    assert!(!lacks(11000, "cuStreamGetCtx") && newer_than(99_990).is_empty());
}
