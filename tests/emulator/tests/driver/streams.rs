//! Deferred streams: what is not waited for has not happened; events and the legacy stream order what they should.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::*;

#[test]
fn work_runs_when_somebody_waits() {
    let (_turn, _) = with_context(&[]);
    let (f, s, p) = (add(), stream(), words([1, 2, 3, 4]));
    assert_eq!(launch_add(f, p, 10, 4, s), 0);
    assert_eq!((peek(p), query("pending")), ([1, 2, 3, 4], 1));
    ok!(cuStreamSynchronize(s));
    assert_eq!((peek(p), query("pending")), ([11, 12, 13, 14], 0));
    assert_eq!((query("launches"), query("last.blocks"), text("launch.0")), (1, 1, "add".into()));
    assert!(query("last.instructions") >= 4 * 9, "{}", text("launches"));
}

#[test]
fn only_the_stream_that_is_waited_for_runs() {
    let (_turn, _) = with_context(&[]);
    let (a, b) = (stream(), stream());
    let (p, q) = (words([0; 4]), words([0; 4]));
    ok!(cuMemsetD32Async(p, 1, 4, a));
    ok!(cuMemsetD32Async(q, 2, 4, b));
    ok!(cuStreamSynchronize(b));
    assert_eq!((peek(p), peek(q)), ([0; 4], [2; 4]));
    ok!(cuCtxSynchronize());
    assert_eq!(peek(p), [1; 4]);
}

#[test]
fn a_missing_wait_between_streams_shows() {
    let (_turn, _) = with_context(&[]);
    let (a, b, p, q) = (stream(), stream(), words([0; 4]), words([0; 4]));
    ok!(cuMemsetD32Async(p, 1, 4, a));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, b));
    ok!(cuStreamSynchronize(b));
    assert_eq!(peek(q), [0; 4], "b did not wait for a");
    ok!(cuStreamSynchronize(a));

    let e = event();
    ok!(cuMemsetD32Async(p, 2, 4, a));
    ok!(cuEventRecord(e, a));
    ok!(cuStreamWaitEvent(b, e, 0));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, b));
    ok!(cuStreamSynchronize(b));
    assert_eq!(peek(q), [2; 4], "b waited");
}

#[test]
fn a_wait_is_for_what_the_event_recorded_before_it() {
    let (_turn, _) = with_context(&[]);
    let (a, b, e, p) = (stream(), stream(), event(), words([0; 4]));
    ok!(cuStreamWaitEvent(b, e, 0));
    ok!(cuEventRecord(e, a));
    ok!(cuStreamWaitEvent(b, e, 0));
    ok!(cuMemsetD32Async(p, 1, 4, a));
    ok!(cuEventRecord(e, a));
    ok!(cuStreamSynchronize(b));
    assert_eq!(peek(p), [0; 4]);
    ok!(cuStreamWaitEvent(b, e, 0));
    ok!(cuEventDestroy_v2(e));
    ok!(cuStreamSynchronize(b));
    assert_eq!(peek(p), [1; 4], "a wait outlives its event");
}

#[test]
fn the_legacy_stream_and_blocking_streams_wait_for_each_other() {
    let (_turn, _) = with_context(&[]);
    let blocking: usize = get!(cuStreamCreate(0));
    let free = stream();
    let (p, q, r) = (words([0; 4]), words([0; 4]), words([0; 4]));
    for legacy in [0, 1] {
        let mark = 10 + legacy as u32;
        ok!(cuMemsetD32Async(p, mark, 4, blocking));
        ok!(cuMemsetD32Async(r, mark, 4, free));
        ok!(cuMemcpyDtoDAsync_v2(q, p, 16, legacy));
        ok!(cuMemsetD32Async(p, 20, 4, blocking));
        ok!(cuStreamSynchronize(legacy));
        assert_eq!((peek(q), peek(r) == [mark; 4]), ([mark; 4], false));
        ok!(cuCtxSynchronize());
    }
    // So does an event in the legacy stream, though nothing waits for the blocking one by name.
    let e = event();
    ok!(cuMemsetD32Async(p, 15, 4, blocking));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, 0));
    ok!(cuEventRecord(e, 0));
    ok!(cuMemsetD32Async(p, 20, 4, blocking));
    ok!(cuEventSynchronize(e));
    assert_eq!((peek(q), query("pending")), ([15; 4], 1));
    ok!(cuCtxSynchronize());
    // The other way round: a blocking stream sees what the legacy one did, a non-blocking one does not.
    ok!(cuMemsetD32Async(p, 30, 4, 0));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, free));
    ok!(cuStreamSynchronize(free));
    assert_eq!(peek(q), [20; 4]);
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, blocking));
    ok!(cuStreamSynchronize(blocking));
    assert_eq!(peek(q), [30; 4]);
    // A destroyed blocking stream's work counts, too.
    ok!(cuMemsetD32Async(p, 40, 4, blocking));
    ok!(cuStreamDestroy_v2(blocking));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, 0));
    ok!(cuStreamSynchronize(0));
    assert_eq!(peek(q), [40; 4]);
}

#[test]
fn each_thread_has_its_own_default_stream_if_it_wants() {
    let (_turn, context) = with_context(&[]);
    let (p, q) = (words([0; 4]), words([0; 4]));
    ok!(cuMemsetD32Async(p, 1, 4, 2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ok!(cuCtxSetCurrent(context));
            ok!(cuMemsetD32Async_ptsz(q, 2, 4, 0));
            ok!(cuStreamSynchronize_ptsz(0));
        });
    });
    assert_eq!((peek(p), peek(q)), ([0; 4], [2; 4]));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, 0));
    ok!(cuStreamSynchronize(0));
    assert_eq!(peek(q), [1; 4], "the legacy stream waits for per-thread ones");
}

#[test]
fn pageable_sources_are_taken_at_the_call_and_pinned_ones_when_the_stream_runs() {
    let (_turn, _) = with_context(&[]);
    let (s, p) = (stream(), words([0; 4]));
    let mut pageable = [1u32; 4];
    ok!(cuMemcpyHtoDAsync_v2(p, pageable.as_ptr().cast(), 16, s));
    pageable = [2; 4];
    ok!(cuStreamSynchronize(s));
    assert_eq!((peek(p), pageable), ([1; 4], [2; 4]));
    let host: usize = get!(cuMemHostAlloc(16, 0));
    let pinned = host as *mut [u32; 4];
    // SAFETY: 16 bytes of pinned memory.
    unsafe { pinned.write([3; 4]) };
    ok!(cuMemcpyHtoDAsync_v2(p, pinned as *const c_void, 16, s));
    // SAFETY: as above. This is the race that the emulator makes visible.
    unsafe { pinned.write([4; 4]) };
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [4; 4]);
    // The way back: pinned memory is filled when the stream runs, pageable memory at the call.
    ok!(cuMemsetD32Async(p, 5, 4, s));
    ok!(cuMemcpyDtoHAsync_v2(pinned.cast(), p, 16, s));
    assert_eq!(peek(host as u64), [4; 4]);
    ok!(cuMemcpyDtoHAsync_v2(pageable.as_mut_ptr().cast(), p, 16, s));
    assert_eq!((pageable, peek(host as u64)), ([5; 4], [5; 4]));
}

#[test]
fn queries_say_not_ready_once_and_go_on() {
    let (_turn, _) = with_context(&[]);
    let (s, e, p) = (stream(), event(), words([0; 4]));
    ok!(cuStreamQuery(s));
    ok!(cuEventQuery(e));
    ok!(cuMemsetD32Async(p, 1, 4, s));
    ok!(cuEventRecord(e, s));
    fails!(NOT_READY, cuEventQuery(e));
    ok!(cuEventQuery(e));
    ok!(cuStreamQuery(s));
    assert_eq!(peek(p), [1; 4]);
    ok!(cuMemsetD32Async(p, 2, 4, s));
    fails!(NOT_READY, cuStreamQuery(s));
    ok!(cuStreamQuery(s));
}

#[test]
fn elapsed_time_needs_timed_recorded_finished_events() {
    let (_turn, _) = with_context(&[]);
    let (a, b, untimed): (usize, usize, usize) = (get!(cuEventCreate(0)), get!(cuEventCreate(0)), event());
    let mut ms = -1.0;
    fails!(INVALID_HANDLE, cuEventElapsedTime(&mut ms, a, b));
    for event in [a, b, untimed] {
        ok!(cuEventRecord(event, 0));
    }
    fails!(NOT_READY, cuEventElapsedTime(&mut ms, a, b));
    ok!(cuEventSynchronize(b));
    ok!(cuEventElapsedTime(&mut ms, a, b));
    assert!((0.0..10_000.0).contains(&ms), "{ms}");
    fails!(INVALID_HANDLE, cuEventElapsedTime(&mut ms, a, untimed));
}

#[test]
fn free_waits_for_the_context() {
    let (_turn, _) = with_context(&[]);
    let (s, p, q) = (stream(), words([7; 4]), words([0; 4]));
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, s));
    ok!(cuMemFree_v2(p));
    assert_eq!((peek(q), query("pending")), ([7; 4], 0));
}

static HOST_CALLS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn host(user: usize) {
    HOST_CALLS.fetch_add(user as u32, Ordering::SeqCst);
    let mut free = 0;
    // A host function may not call the driver, and is told so instead of hanging.
    fails!(NOT_PERMITTED, cuMemGetInfo_v2(&mut free, std::ptr::null_mut()));
}

#[test]
fn host_functions_run_in_their_place_without_the_lock() {
    let (_turn, _) = with_context(&[]);
    let (s, before) = (stream(), HOST_CALLS.load(Ordering::SeqCst));
    ok!(cuLaunchHostFunc(s, host as *const c_void, 3 as *mut c_void));
    ok!(cuLaunchHostFunc(s, host as *const c_void, 4 as *mut c_void));
    assert_eq!(HOST_CALLS.load(Ordering::SeqCst), before);
    ok!(cuStreamSynchronize(s));
    assert_eq!(HOST_CALLS.load(Ordering::SeqCst), before + 7);
    fails!(INVALID_VALUE, cuLaunchHostFunc(s, std::ptr::null(), std::ptr::null_mut()));
}

static GATE: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn gate(_: usize) {
    while GATE.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_host_function_that_waits_holds_up_only_its_stream() {
    let (_turn, _) = with_context(&[]);
    let (s, other, p, q) = (stream(), stream(), words([0; 4]), words([0; 4]));
    GATE.store(0, Ordering::SeqCst);
    ok!(cuLaunchHostFunc(s, gate as *const c_void, std::ptr::null_mut()));
    ok!(cuMemsetD32Async(p, 1, 4, s));
    for _ in 0..3 {
        fails!(NOT_READY, cuStreamQuery(s));
    }
    ok!(cuMemsetD32Async(q, 2, 4, other));
    ok!(cuStreamSynchronize(other));
    assert_eq!((peek(p), peek(q)), ([0; 4], [2; 4]));
    GATE.store(1, Ordering::SeqCst);
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [1; 4]);
}

#[test]
fn many_threads_may_call_at_once() {
    for pose in [&[][..], &[("eager", "1")], &[("seed", "7")]] {
        call_from_many_threads(pose);
    }
}

fn call_from_many_threads(pose: &[(&str, &str)]) {
    let (_turn, context) = with_context(pose);
    let (f, host_stream) = (add(), stream());
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            scope.spawn(move || {
                ok!(cuCtxSetCurrent(context));
                let (s, e, p) = (stream(), event(), words([thread; 4]));
                for round in 0..20 {
                    assert_eq!(launch_add(f, p, 1, 4, s), 0);
                    ok!(cuEventRecord(e, s));
                    if round % 3 == 0 {
                        ok!(cuLaunchHostFunc(host_stream, host as *const c_void, std::ptr::null_mut()));
                        ok!(cuStreamWaitEvent(host_stream, e, 0));
                    }
                    match (round + thread) % 4 {
                        0 => ok!(cuStreamSynchronize(s)),
                        1 => ok!(cuEventSynchronize(e)),
                        2 => ok!(cuStreamSynchronize(host_stream)),
                        _ => {}
                    }
                }
                ok!(cuStreamSynchronize(s));
                assert_eq!(peek(p), [thread + 20; 4]);
                ok!(cuMemFree_v2(p));
                ok!(cuEventDestroy_v2(e));
                ok!(cuStreamDestroy_v2(s));
            });
        }
    });
    assert_eq!((query("pending"), query("live.streams"), query("live.allocations")), (0, 1, 0));
}

#[test]
fn eager_streams_and_random_ones() {
    let (_turn, _) = with_context(&[("eager", "1")]);
    let (s, p) = (stream(), words([0; 4]));
    ok!(cuMemsetD32Async(p, 1, 4, s));
    assert_eq!((peek(p), query("pending")), ([1; 4], 0));
    control("eager", "0");
    // Some seeds run the other stream's work at a wait that is not for it, and some do not.
    let other = stream();
    let mut seen = [false; 2];
    for seed in 1..40u32 {
        control("seed", &seed.to_string());
        ok!(cuMemsetD32Async(p, 1 + seed, 4, s));
        ok!(cuMemsetD32Async(p, 1 + seed, 0, other));
        ok!(cuEventRecord(event(), other));
        ok!(cuStreamSynchronize(other));
        seen[usize::from(peek(p) == [1 + seed; 4])] = true;
        ok!(cuCtxSynchronize());
    }
    assert_eq!(seen, [true; 2]);
    ok!(cuMemsetD32Async(p, 99, 4, s));
    control("run", "");
    assert_eq!(peek(p), [99; 4]);
}

#[test]
fn a_stray_kernel_ends_its_context_and_no_other() {
    let (_turn, _) = with_context(&[]);
    let (f, s, p, e) = (add(), stream(), words([1; 4]), event());
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    let own_stream = stream();
    ok!(cuCtxPopCurrent_v2(std::ptr::null_mut()));
    assert_eq!(launch_add(f, p, 1, 5, s), 0);
    ok!(cuEventRecord(e, s));
    ok!(cuMemsetD32Async(p, 50, 4, s));
    fails!(ILLEGAL_ADDRESS, cuStreamSynchronize(s));
    assert_eq!((query("faults"), query("sticky")), (1, 700));
    assert!(text("fault").contains("add"), "{}", text("fault"));
    assert_ne!(peek(p), [50; 4], "nothing runs after a fault");
    fails!(ILLEGAL_ADDRESS, cuCtxSynchronize());
    fails!(ILLEGAL_ADDRESS, cuMemAlloc_v2(&mut 0, 16));
    fails!(ILLEGAL_ADDRESS, cuEventQuery(e));
    assert_eq!(launch_add(f, p, 1, 4, s), ILLEGAL_ADDRESS);
    fails!(ILLEGAL_ADDRESS, cuStreamBeginCapture_v2(s, 0));
    // What is released is released all the same, and the error told again.
    fails!(ILLEGAL_ADDRESS, cuMemFree_v2(p));
    fails!(ILLEGAL_ADDRESS, cuStreamDestroy_v2(s));
    assert_eq!(query("live.allocations"), 0);
    ok!(cuCtxPushCurrent_v2(own));
    ok!(cuStreamSynchronize(own_stream));
    ok!(cuMemFree_v2(words([0; 4])));
    ok!(cuDeviceGetCount(&mut 0));
    // The primary context begins anew when all have let it go.
    ok!(cuCtxDestroy_v2(own));
    ok!(cuDevicePrimaryCtxRelease_v2(0));
    let again: usize = get!(cuDevicePrimaryCtxRetain(0));
    ok!(cuCtxSetCurrent(again));
    ok!(cuCtxSynchronize());
}

#[test]
fn faults_have_the_code_that_a_device_would_give() {
    let (_turn, _) = with_context(&[]);
    let f = add();
    let p = words([1; 4]);
    assert_eq!(launch_add(f, p + 2, 1, 1, 0), 0);
    fails!(MISALIGNED_ADDRESS, cuCtxSynchronize());
    control("clear", "sticky");
    // Freed before the copy ran: only another context's free does not wait.
    let (s, q) = (stream(), words([0; 4]));
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    let foreign = words([5; 4]);
    ok!(cuMemcpyDtoDAsync_v2(q, foreign, 16, s));
    ok!(cuMemFree_v2(foreign));
    ok!(cuCtxDestroy_v2(own));
    fails!(ILLEGAL_ADDRESS, cuStreamSynchronize(s));
    assert!(text("fault").contains("freed before it ran"), "{}", text("fault"));
    control("clear", "sticky");
    // Another context's memory is no memory of this one.
    let own: usize = get!(cuCtxCreate_v2(0, 0));
    let foreign = words([5; 4]);
    ok!(cuCtxPopCurrent_v2(std::ptr::null_mut()));
    assert_eq!(launch_add(f, foreign, 1, 4, 0), 0);
    fails!(ILLEGAL_ADDRESS, cuStreamSynchronize(0));
    ok!(cuCtxDestroy_v2(own));
}
