//! Stream capture in its three modes: what becomes a node, what is refused with which code, and what breaks a capture.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::*;

const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;

/// Ends a capture that must be good, and makes it launchable; the graph is destroyed.
fn finish(stream: usize) -> usize {
    let mut graph = 0;
    ok!(cuStreamEndCapture(stream, &mut graph));
    let exec: usize = get!(cuGraphInstantiateWithFlags(graph, 0));
    ok!(cuGraphDestroy(graph));
    exec
}

/// Returns the status of a capture: 0 none, 1 active, 2 broken.
fn status(stream: usize) -> i32 {
    let mut status = 9;
    ok!(cuStreamIsCapturing(stream, &mut status));
    status
}

#[test]
fn captured_work_runs_at_each_launch_with_what_was_captured() {
    let (_turn, _) = with_context(&[]);
    let (f, s, p) = (add(), stream(), words([0; 4]));
    for mode in [GLOBAL, THREAD_LOCAL, RELAXED] {
        ok!(cuMemsetD32Async(p, 0, 4, s));
        ok!(cuStreamSynchronize(s));
        ok!(cuStreamBeginCapture_v2(s, mode));
        let mut value = 3u32;
        let params = [(&raw const p).cast::<u8>(), (&raw const value).cast()];
        ok!(cuLaunchKernel(f, 1, 1, 1, 4, 1, 1, 0, s, params.as_ptr(), std::ptr::null()));
        value = 1000;
        assert_eq!(launch_add(f, p, 4, 4, s), 0);
        assert_eq!((query("pending"), status(s), value), (0, 1, 1000));
        let exec = finish(s);
        assert_eq!(peek(p), [0; 4], "a capture runs nothing");
        for round in 1..=3 {
            ok!(cuGraphLaunch(exec, s));
            assert_eq!(peek(p), [7 * (round - 1); 4]);
            ok!(cuStreamSynchronize(s));
            assert_eq!(peek(p), [7 * round; 4]);
        }
        ok!(cuGraphLaunch(exec, s));
        ok!(cuGraphExecDestroy(exec));
        ok!(cuStreamSynchronize(s));
        assert_eq!(peek(p), [28; 4], "what was launched outlives the graph");
    }
    assert_eq!(query("live.graphs") + query("live.execs") + query("live.captures"), 0);
}

#[test]
fn all_kinds_of_work_become_nodes() {
    let (_turn, _) = with_context(&[]);
    let (s, p, q) = (stream(), words([0; 4]), words([1, 2, 3, 4]));
    let host: usize = get!(cuMemHostAlloc(16, 0));
    static CALLS: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn call(_: usize) {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    ok!(cuMemcpyDtoDAsync_v2(p, q, 16, s));
    ok!(cuMemsetD32Async(q, 9, 4, s));
    ok!(cuMemcpyDtoHAsync_v2(host as *mut c_void, p, 16, s));
    ok!(cuLaunchHostFunc(s, call as *const c_void, std::ptr::null_mut()));
    ok!(cuMemcpyHtoDAsync_v2(p, host as *const c_void, 8, s));
    let mut graph = 0;
    ok!(cuStreamEndCapture(s, &mut graph));
    let (mut nodes, mut count, mut edges) = ([0usize; 9], 0, 0);
    ok!(cuGraphGetNodes(graph, std::ptr::null_mut(), &mut count));
    ok!(cuGraphGetEdges(graph, std::ptr::null_mut(), std::ptr::null_mut(), &mut edges));
    assert_eq!((count, edges), (5, 4));
    ok!(cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count));
    let kinds = nodes[..5].iter().map(|&node| {
        let mut kind = -1;
        ok!(cuGraphNodeGetType(node, &mut kind));
        kind
    });
    assert_eq!(kinds.collect::<Vec<_>>(), [1, 2, 1, 3, 1]);
    let exec: usize = get!(cuGraphInstantiateWithFlags(graph, 1));
    ok!(cuGraphUpload(exec, s));
    ok!(cuGraphLaunch(exec, s));
    ok!(cuStreamSynchronize(s));
    assert_eq!((peek(p), peek(host as u64), CALLS.load(Ordering::SeqCst)), ([1, 2, 3, 4], [1, 2, 3, 4], 1));
    ok!(cuGraphLaunch(exec, s));
    ok!(cuStreamSynchronize(s));
    assert_eq!((peek(host as u64), CALLS.load(Ordering::SeqCst)), ([9; 4], 2));
}

#[test]
fn streams_join_a_capture_by_events_and_must_come_back() {
    let (_turn, _) = with_context(&[]);
    let (a, b, fork, join) = (stream(), stream(), event(), event());
    let (p, q, r) = (words([1; 4]), words([2; 4]), words([3; 4]));
    ok!(cuStreamBeginCapture_v2(a, GLOBAL));
    ok!(cuMemsetD32Async(p, 10, 4, a));
    ok!(cuEventRecord(fork, a));
    ok!(cuStreamWaitEvent(b, fork, 0));
    assert_eq!(status(b), 1);
    ok!(cuMemcpyDtoDAsync_v2(q, p, 16, b));
    ok!(cuMemsetD32Async(r, 30, 4, a));
    ok!(cuEventRecord(join, b));
    ok!(cuStreamWaitEvent(a, join, 0));
    ok!(cuMemcpyDtoDAsync_v2(r, q, 8, a));
    let exec = finish(a);
    assert_eq!(status(b), 0);
    ok!(cuGraphLaunch(exec, a));
    ok!(cuStreamSynchronize(a));
    assert_eq!((peek(p), peek(q), peek(r)), ([10; 4], [10; 4], [10, 10, 30, 30]));

    // Left out: the work of b leads nowhere.
    ok!(cuStreamBeginCapture_v2(a, GLOBAL));
    ok!(cuEventRecord(fork, a));
    ok!(cuStreamWaitEvent(b, fork, 0));
    ok!(cuMemsetD32Async(q, 1, 4, b));
    let mut graph = 1;
    fails!(STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(a, &mut graph));
    assert_eq!((graph, status(a), status(b)), (0, 0, 0));
    // Ended in the wrong stream, or where nothing is captured.
    ok!(cuStreamBeginCapture_v2(a, GLOBAL));
    fails!(ILLEGAL_STATE, cuStreamBeginCapture_v2(a, GLOBAL));
    ok!(cuEventRecord(fork, a));
    ok!(cuStreamWaitEvent(b, fork, 0));
    fails!(STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(b, &mut graph));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(a, &mut graph));
    fails!(ILLEGAL_STATE, cuStreamEndCapture(a, &mut graph));
}

#[test]
fn events_cross_no_capture() {
    let (_turn, _) = with_context(&[]);
    let (a, b, e, mut graph) = (stream(), stream(), event(), 0);
    // From outside into a capture.
    ok!(cuEventRecord(e, b));
    ok!(cuStreamSynchronize(b));
    ok!(cuStreamBeginCapture_v2(a, RELAXED));
    fails!(STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(a, e, 0));
    fails!(STREAM_CAPTURE_INVALIDATED, cuEventRecord(event(), a));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(a, &mut graph));
    // From one capture into another.
    ok!(cuStreamBeginCapture_v2(a, RELAXED));
    ok!(cuStreamBeginCapture_v2(b, RELAXED));
    ok!(cuEventRecord(e, a));
    fails!(STREAM_CAPTURE_MERGE, cuStreamWaitEvent(b, e, 0));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(a, &mut graph));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(b, &mut graph));
    // Asking after a captured event, during the capture and after it.
    ok!(cuStreamBeginCapture_v2(a, RELAXED));
    ok!(cuEventRecord(e, a));
    fails!(CAPTURED_EVENT, cuEventQuery(e));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(a, &mut graph));
    fails!(CAPTURED_EVENT, cuEventSynchronize(e));
    fails!(CAPTURED_EVENT, cuStreamWaitEvent(b, e, 0));
    ok!(cuEventRecord(e, b));
    ok!(cuEventSynchronize(e));
    // An event that recorded nothing is no dependency.
    ok!(cuStreamBeginCapture_v2(a, RELAXED));
    ok!(cuStreamWaitEvent(a, event(), 0));
    ok!(cuStreamEndCapture(a, &mut graph));
}

/// A call by name, as a closure that returns its code.
type Forbidden = (&'static str, Box<dyn Fn() -> i32>);

/// Every call that a capture forbids, as a closure that returns its code.
fn forbidden(stream: usize, other: usize, event: usize, module: usize) -> Vec<Forbidden> {
    let (p, pinned, text) = (words([1; 4]), get!(cuMemHostAlloc(16, 0)), format!("{PTX}\0"));
    let pinned: usize = pinned;
    let own = Box::leak(Box::new([0u32; 4])).as_ptr() as usize;
    vec![
        ("alloc", Box::new(|| code!(cuMemAlloc_v2(&mut 0, 16)))),
        ("free", Box::new(move || code!(cuMemFree_v2(p)))),
        ("host alloc", Box::new(|| code!(cuMemHostAlloc(&mut 0, 16, 0)))),
        ("host free", Box::new(move || code!(cuMemFreeHost(pinned)))),
        ("register", Box::new(move || code!(cuMemHostRegister_v2(own, 16, 0)))),
        ("context", Box::new(|| code!(cuCtxSynchronize()))),
        ("other stream", Box::new(move || code!(cuStreamSynchronize(other)))),
        ("other query", Box::new(move || code!(cuStreamQuery(other)))),
        ("event", Box::new(move || code!(cuEventSynchronize(event)))),
        ("event query", Box::new(move || code!(cuEventQuery(event)))),
        ("copy", Box::new(move || code!(cuMemcpyHtoD_v2(p, pinned as *const c_void, 16)))),
        ("copy back", Box::new(move || code!(cuMemcpyDtoH_v2(pinned as *mut c_void, p, 16)))),
        ("memset", Box::new(move || code!(cuMemsetD8_v2(p, 0, 16)))),
        ("load", Box::new(move || code!(cuModuleLoadData(&mut 0, text.as_ptr().cast())))),
        ("unload", Box::new(move || code!(cuModuleUnload(module)))),
        ("new context", Box::new(|| code!(cuCtxCreate_v2(&mut 0, 0, 0)))),
        ("stream", Box::new(move || code!(cuStreamSynchronize(stream)))),
        ("query", Box::new(move || code!(cuStreamQuery(stream)))),
        ("pageable", Box::new(move || code!(cuMemcpyHtoDAsync_v2(p, own as *const c_void, 16, stream)))),
        ("pageable back", Box::new(move || code!(cuMemcpyDtoHAsync_v2(own as *mut c_void, p, 16, stream)))),
        ("stream alloc", Box::new(move || code!(cuMemAllocAsync(&mut 0, 16, stream)))),
        ("stream free", Box::new(move || code!(cuMemFreeAsync(p, stream)))),
    ]
}

/// How many of [`forbidden`] are so in every mode: they are about the capturing stream or its context.
const ALWAYS: [&str; 7] = ["context", "stream", "query", "pageable", "pageable back", "stream alloc", "stream free"];

#[test]
fn what_no_graph_can_hold_is_refused_and_breaks_the_capture() {
    for mode in [GLOBAL, THREAD_LOCAL] {
        let (_turn, _) = with_context(&[]);
        let (s, other, e, m) = (stream(), stream(), event(), load(PTX));
        for (name, call) in forbidden(s, other, e, m) {
            ok!(cuStreamBeginCapture_v2(s, mode));
            assert_eq!(call(), STREAM_CAPTURE_UNSUPPORTED, "{name} in mode {mode}");
            assert_eq!(status(s), 2, "{name} in mode {mode}");
            fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &mut 0));
        }
        assert_eq!(query("live.modules"), 1);
    }
}

#[test]
fn a_relaxed_capture_forbids_what_concerns_itself_alone() {
    let (_turn, _) = with_context(&[]);
    let (s, other, e, m) = (stream(), stream(), event(), load(PTX));
    // Made anew for each: some that are allowed end what others need.
    for at in 0..forbidden(s, other, e, m).len() {
        let (name, call) = forbidden(s, other, e, load(PTX)).swap_remove(at);
        ok!(cuStreamBeginCapture_v2(s, RELAXED));
        let refused = ALWAYS.contains(&name);
        assert_eq!(call(), if refused { STREAM_CAPTURE_UNSUPPORTED } else { 0 }, "{name}");
        if name == "new context" {
            ok!(cuCtxPopCurrent_v2(&mut 0));
        }
        assert_eq!(status(s), if refused { 2 } else { 1 }, "{name}");
        let mut graph = 0;
        let expected = if refused { STREAM_CAPTURE_INVALIDATED } else { 0 };
        fails!(expected, cuStreamEndCapture(s, &mut graph));
    }
}

#[test]
fn a_thread_may_exchange_its_mode() {
    let (_turn, _) = with_context(&[]);
    let (s, mut mode) = (stream(), RELAXED);
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    ok!(cuThreadExchangeStreamCaptureMode(&mut mode));
    assert_eq!(mode, GLOBAL);
    let p: u64 = get!(cuMemAlloc_v2(16));
    ok!(cuThreadExchangeStreamCaptureMode(&mut mode));
    assert_eq!(mode, RELAXED);
    fails!(STREAM_CAPTURE_UNSUPPORTED, cuMemFree_v2(p));
    fails!(INVALID_VALUE, cuThreadExchangeStreamCaptureMode(&mut 3));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &mut 0));
}

#[test]
fn other_threads_break_global_captures_only() {
    let (_turn, context) = with_context(&[]);
    let s = stream();
    let elsewhere = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ok!(cuCtxSetCurrent(context));
                work();
            });
        })
    };
    for mode in [THREAD_LOCAL, RELAXED] {
        ok!(cuStreamBeginCapture_v2(s, mode));
        elsewhere(&|| ok!(cuMemFree_v2(get!(cuMemAlloc_v2(16)))));
        let mut graph = 0;
        ok!(cuStreamEndCapture(s, &mut graph));
    }
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    elsewhere(&|| {
        let mut mode = THREAD_LOCAL;
        ok!(cuThreadExchangeStreamCaptureMode(&mut mode));
        ok!(cuMemFree_v2(get!(cuMemAlloc_v2(16))));
        assert_eq!(status(s), 1);
        ok!(cuThreadExchangeStreamCaptureMode(&mut mode));
        fails!(STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&mut 0, 16));
        assert_eq!(status(s), 2);
    });
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &mut 0));
    // A capture ends on the thread that began it, unless it is relaxed.
    ok!(cuStreamBeginCapture_v2(s, THREAD_LOCAL));
    elsewhere(&|| fails!(STREAM_CAPTURE_WRONG_THREAD, cuStreamEndCapture(s, &mut 0)));
    ok!(cuStreamEndCapture(s, &mut 0));
    ok!(cuStreamBeginCapture_v2(s, RELAXED));
    elsewhere(&|| ok!(cuStreamEndCapture(s, &mut 0)));
}

#[test]
fn the_legacy_stream_is_out_of_use_while_a_blocking_stream_captures() {
    let (_turn, _) = with_context(&[]);
    let blocking: usize = get!(cuStreamCreate(0));
    let free = stream();
    let p = words([0; 4]);
    fails!(STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(0, RELAXED));
    fails!(STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(1, RELAXED));
    let uses: [fn(u64) -> i32; 5] = [
        |p| code!(cuMemsetD8Async(p, 1, 16, 0)),
        |p| code!(cuMemsetD8_v2(p, 1, 16)),
        |_| code!(cuStreamSynchronize(1)),
        |_| code!(cuEventRecord(event(), 0)),
        |p| code!(cuMemcpyDtoH_v2([0u8; 16].as_mut_ptr().cast(), p, 16)),
    ];
    for use_it in uses {
        ok!(cuStreamBeginCapture_v2(blocking, RELAXED));
        fails!(STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(0, &mut 0));
        assert_eq!(status(blocking), 1, "to ask breaks nothing");
        assert_eq!(use_it(p), STREAM_CAPTURE_IMPLICIT);
        fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(blocking, &mut 0));
    }
    // A non-blocking stream's capture has nothing to do with it; the per-thread stream is a blocking one.
    ok!(cuStreamBeginCapture_v2(free, RELAXED));
    ok!(cuMemsetD8Async(p, 1, 16, 0));
    assert_eq!(status(0), 0);
    ok!(cuStreamEndCapture(free, &mut 0));
    ok!(cuStreamBeginCapture_v2(2, RELAXED));
    fails!(STREAM_CAPTURE_IMPLICIT, cuMemsetD8Async(p, 1, 16, 0));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(2, &mut 0));
}

#[test]
fn a_function_that_is_not_loaded_breaks_a_capture() {
    let (_turn, _) = with_context(&[]);
    let (s, p, m) = (stream(), words([0; 4]), load(PTX));
    let f = function(m, "add");
    for mode in [GLOBAL, RELAXED] {
        ok!(cuStreamBeginCapture_v2(s, mode));
        assert_eq!(launch_add(f, p, 1, 4, s), STREAM_CAPTURE_UNSUPPORTED);
        fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &mut 0));
    }
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    fails!(STREAM_CAPTURE_UNSUPPORTED, cuFuncGetAttribute(&mut 0, 0, f));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &mut 0));
    assert_eq!(query("lazy_loads"), 0);
    assert_eq!(launch_add(f, p, 1, 4, s), 0);
    assert_eq!(query("lazy_loads"), 1);
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    assert_eq!(launch_add(f, p, 1, 4, s), 0);
    finish(s);
    // Eagerly loaded modules have nothing left to load.
    control("module_loading", "EAGER");
    let eager = function(load(PTX), "add");
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    assert_eq!(launch_add(eager, p, 1, 4, s), 0);
    finish(s);
}

#[test]
fn capture_info_names_graph_and_frontier() {
    let (_turn, _) = with_context(&[]);
    let (s, p) = (stream(), words([0; 4]));
    let info = || {
        let (mut status, mut id, mut graph, mut nodes, mut count) = (9, 0u64, 0usize, std::ptr::null(), 9usize);
        ok!(cuStreamGetCaptureInfo_v2(s, &mut status, &mut id, &mut graph, &mut nodes, &mut count));
        (status, id, graph, count)
    };
    assert_eq!(info().0, 0);
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    let (status, id, graph, count) = info();
    assert!(status == 1 && id != 0 && graph != 0 && count == 0);
    ok!(cuMemsetD8Async(p, 0, 16, s));
    ok!(cuMemsetD8Async(p, 0, 16, s));
    assert_eq!(info(), (1, id, graph, 1));
    let mut ended = 0;
    ok!(cuStreamEndCapture(s, &mut ended));
    assert_eq!(ended, graph);
}

#[test]
fn graphs_are_launched_into_captures_updated_and_checked() {
    let (_turn, _) = with_context(&[]);
    let (f, s, p) = (add(), stream(), words([0; 4]));
    let capture = |values: &[u32]| {
        ok!(cuStreamBeginCapture_v2(s, GLOBAL));
        values.iter().for_each(|&value| assert_eq!(launch_add(f, p, value, 4, s), 0));
        let mut graph = 0;
        ok!(cuStreamEndCapture(s, &mut graph));
        graph
    };
    let one = capture(&[1, 2]);
    let exec: usize = get!(cuGraphInstantiateWithFlags(one, 0));
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    ok!(cuGraphLaunch(exec, s));
    ok!(cuGraphLaunch(exec, s));
    let outer = finish(s);
    ok!(cuGraphLaunch(outer, s));
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [6; 4]);
    ok!(cuGraphExecUpdate_v2(exec, capture(&[10, 20]), std::ptr::null_mut()));
    ok!(cuGraphLaunch(exec, s));
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [36; 4]);
    let mut reason = 0;
    fails!(GRAPH_EXEC_UPDATE_FAILURE, cuGraphExecUpdate(exec, capture(&[1]), std::ptr::null_mut(), &mut reason));
    assert_eq!(reason, 2);
    fails!(INVALID_VALUE, cuGraphInstantiateWithFlags(&mut 0, one, 4));
    ok!(cuGraphDestroy(one));
    fails!(INVALID_HANDLE, cuGraphDestroy(one));
    fails!(INVALID_HANDLE, cuGraphInstantiateWithFlags(&mut 0, one, 0));
    fails!(INVALID_HANDLE, cuGraphLaunch(one, s));
    // A graph whose memory or module has gone is found out when it runs.
    ok!(cuMemFree_v2(p));
    ok!(cuGraphLaunch(exec, s));
    fails!(ILLEGAL_ADDRESS, cuStreamSynchronize(s));
}

#[test]
fn launches_of_one_graph_follow_each_other_across_streams() {
    let (_turn, _) = with_context(&[]);
    let (f, a, b, p) = (add(), stream(), stream(), words([0; 4]));
    ok!(cuStreamBeginCapture_v2(a, GLOBAL));
    assert_eq!(launch_add(f, p, 1, 4, a), 0);
    let exec = finish(a);
    ok!(cuGraphLaunch(exec, a));
    ok!(cuGraphLaunch(exec, b));
    ok!(cuStreamSynchronize(b));
    assert_eq!(peek(p), [2; 4]);
}

#[test]
fn a_broken_capture_refuses_everything_until_it_is_ended() {
    let (_turn, _) = with_context(&[]);
    let (f, s, p) = (add(), stream(), words([0; 4]));
    ok!(cuStreamBeginCapture_v2(s, GLOBAL));
    fails!(STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&mut 0, 16));
    assert_eq!(launch_add(f, p, 1, 4, s), STREAM_CAPTURE_INVALIDATED);
    fails!(STREAM_CAPTURE_INVALIDATED, cuMemsetD8Async(p, 0, 16, s));
    fails!(STREAM_CAPTURE_INVALIDATED, cuEventRecord(event(), s));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamSynchronize(s));
    fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &mut 0));
    assert_eq!(launch_add(f, p, 1, 4, s), 0);
    ok!(cuStreamSynchronize(s));
    assert_eq!(peek(p), [1; 4]);
}
