//! The entry points of streams, events, host functions, and capture.

use std::ffi::c_void;

use super::capture::{Capture, Graph, RELAXED};
use super::codes::*;
use super::entry::{entries, put, put_if, thread_number};
use super::state::{Event, Handle, Order};
use super::work::Work;

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// Lowest and highest priority of streams.
pub(super) const PRIORITIES: (i32, i32) = (0, -5);

entries! {
    /// A stream in the current context.
    Context fn cuStreamCreate(call, stream: *mut usize, flags: u32) {
        if stream.is_null() || flags > NON_BLOCKING { return Err(INVALID_VALUE) }
        let (context, order) = (call.current()?, if flags == 0 { Order::Blocking } else { Order::NonBlocking });
        let (green, handle) = (call.current_green(), call.add_stream(context, order, 0));
        call.streams.get_mut(&handle).unwrap().green = green;
        put(stream, handle)
    }

    /// A stream with a priority, which changes nothing here.
    Context fn cuStreamCreateWithPriority(call, stream: *mut usize, flags: u32, priority: i32) {
        if stream.is_null() || flags > NON_BLOCKING { return Err(INVALID_VALUE) }
        let (context, order) = (call.current()?, if flags == 0 { Order::Blocking } else { Order::NonBlocking });
        let (green, priority) = (call.current_green(), priority.clamp(PRIORITIES.1, PRIORITIES.0));
        let handle = call.add_stream(context, order, priority);
        call.streams.get_mut(&handle).unwrap().green = green;
        put(stream, handle)
    }

    /// The handle ends; queued work stays queued, as the reference says.
    Release fn cuStreamDestroy_v2(call, stream: usize) {
        if stream <= 2 { return Err(INVALID_HANDLE) }
        let handle = call.stream_even_if_poisoned(stream)?;
        // A capture that began in this stream cannot be ended any more; one that it joined is broken.
        let id = call.streams[&handle].capture;
        match call.captures.get_mut(&id) {
            Some(capture) if capture.origin == handle => { call.take_capture(id); }
            Some(capture) => capture.broken = true,
            None => {}
        }
        let stream = call.streams.remove(&handle).unwrap();
        if stream.order == Order::Blocking && call.pending(stream.last) {
            call.contexts.get_mut(&stream.context).unwrap().orphans.push(stream.last);
        }
        Ok(())
    }

    /// Waits for all work of the stream.
    Context(cuStreamSynchronize_ptsz) fn cuStreamSynchronize(call, stream: usize) {
        let stream = call.stream(stream)?;
        call.observe_stream(stream)?;
        let context = call.streams[&stream].context;
        let goals = call.stream_goals(stream);
        call.drive(&goals);
        call.sticky(context)
    }

    /// NOT_READY while work is queued; that work then continues, so that polling ends.
    Context(cuStreamQuery_ptsz) fn cuStreamQuery(call, stream: usize) {
        let stream = call.stream(stream)?;
        call.observe_stream(stream)?;
        let context = call.streams[&stream].context;
        let goals = call.stream_goals(stream);
        call.query(&goals)?;
        call.sticky(context)
    }

    /// Makes later work of the stream wait for the event.
    Context(cuStreamWaitEvent_ptsz) fn cuStreamWaitEvent(call, stream: usize, event: usize, flags: u32) {
        if flags > 0 { return Err(if flags == 1 { NOT_SUPPORTED } else { INVALID_VALUE }) }
        let stream = call.stream(stream)?;
        if !call.events.contains_key(&event) { return Err(INVALID_HANDLE) }
        call.wait_event(stream, event)
    }

    /// The stream's context; a current context is needed for the special streams only. For a stream of a green context
    /// it is the handle by which that is used as a context.
    Init(cuStreamGetCtx_ptsz) fn cuStreamGetCtx(call, stream: usize, context: *mut usize) {
        let stream = call.stream(stream)?;
        let found = &call.streams[&stream];
        put(context, call.greens.get(&found.green).map_or(found.context, |green| green.context))
    }

    /// As it was created.
    Context(cuStreamGetFlags_ptsz) fn cuStreamGetFlags(call, stream: usize, flags: *mut u32) {
        let stream = call.stream(stream)?;
        put(flags, u32::from(call.streams[&stream].order == Order::NonBlocking))
    }

    /// As it was created.
    Context(cuStreamGetPriority_ptsz) fn cuStreamGetPriority(call, stream: usize, priority: *mut i32) {
        let stream = call.stream(stream)?;
        put(priority, call.streams[&stream].priority)
    }

    /// A number that no other stream has.
    Context(cuStreamGetId_ptsz) fn cuStreamGetId(call, stream: usize, id: *mut u64) {
        let stream = call.stream(stream)?;
        put(id, stream as u64 >> 6)
    }

    /// A host function, on a thread of its own.
    Context(cuLaunchHostFunc_ptsz) fn cuLaunchHostFunc(
        call, stream: usize, function: *const c_void, user: *mut c_void,
    ) {
        let stream = call.stream(stream)?;
        if function.is_null() { return Err(INVALID_VALUE) }
        call.submit(stream, Work::Host { function: function as usize, user: user as usize })
    }

    /// Begins a capture. The legacy stream cannot be captured.
    Context(cuStreamBeginCapture_v2_ptsz) fn cuStreamBeginCapture_v2(call, stream: usize, mode: u32) {
        let stream = call.stream(stream)?;
        if mode > RELAXED { return Err(INVALID_VALUE) }
        if call.streams[&stream].order == Order::Legacy { return Err(STREAM_CAPTURE_UNSUPPORTED) }
        if call.capturing(stream) { return Err(ILLEGAL_STATE) }
        let (id, graph) = (call.number(), call.handle(Handle::Graph));
        let (context, thread) = (call.streams[&stream].context, thread_number());
        let capture = Capture { graph, context, mode, thread, origin: stream, broken: false, nodes: Vec::new() };
        call.captures.insert(id, capture);
        call.streams.get_mut(&stream).unwrap().capture = id;
        Ok(())
    }

    /// Ends a capture; the graph is NULL unless everything went well.
    Context(cuStreamEndCapture_ptsz) fn cuStreamEndCapture(call, stream: usize, graph: *mut usize) {
        put(graph, 0)?;
        let stream = call.stream(stream)?;
        let id = call.streams[&stream].capture;
        let Some(capture) = call.captures.get(&id) else { return Err(ILLEGAL_STATE) };
        if capture.origin != stream {
            call.captures.get_mut(&id).unwrap().broken = true;
            return Err(STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != RELAXED && capture.thread != thread_number() { return Err(STREAM_CAPTURE_WRONG_THREAD) }
        let (broken, joined) = (capture.broken, call.joined(id));
        let capture = call.take_capture(id);
        if broken { return Err(STREAM_CAPTURE_INVALIDATED) }
        if !joined { return Err(STREAM_CAPTURE_UNJOINED) }
        call.graphs.insert(capture.graph, Graph { nodes: capture.nodes });
        put(graph, capture.graph)
    }

    /// 0 none, 1 active, 2 broken.
    Context(cuStreamIsCapturing_ptsz) fn cuStreamIsCapturing(call, stream: usize, status: *mut i32) {
        let stream = call.stream(stream)?;
        if call.would_be_implicit(stream) { return Err(STREAM_CAPTURE_IMPLICIT) }
        let capture = call.captures.get(&call.streams[&stream].capture);
        put(status, capture.map_or(0, |capture| 1 + i32::from(capture.broken)))
    }

    /// The status, and while it is active the capture's number, graph, and the nodes on which the next one will depend.
    Context(cuStreamGetCaptureInfo_v2_ptsz) fn cuStreamGetCaptureInfo_v2(
        call, stream: usize, status: *mut i32, id: *mut u64, graph: *mut usize,
        nodes: *mut *const usize, count: *mut usize,
    ) {
        let stream = call.stream(stream)?;
        if call.would_be_implicit(stream) { return Err(STREAM_CAPTURE_IMPLICIT) }
        let number = call.streams[&stream].capture;
        let Some(capture) = call.captures.get(&number) else { return put(status, 0) };
        put(status, 1 + i32::from(capture.broken))?;
        if capture.broken { return Ok(()) }
        put_if(id, number);
        put_if(graph, capture.graph);
        let shown: Vec<usize> =
            call.streams[&stream].frontier.iter().map(|&at| call.captures[&number].nodes[at].handle).collect();
        put_if(count, shown.len());
        let stream = call.streams.get_mut(&stream).unwrap();
        stream.shown = shown;
        put_if(nodes, stream.shown.as_ptr());
        Ok(())
    }

    /// The status and the capture's number.
    Context(cuStreamGetCaptureInfo_ptsz) fn cuStreamGetCaptureInfo(
        call, stream: usize, status: *mut i32, id: *mut u64,
    ) {
        let stream = call.stream(stream)?;
        if call.would_be_implicit(stream) { return Err(STREAM_CAPTURE_IMPLICIT) }
        let number = call.streams[&stream].capture;
        let Some(capture) = call.captures.get(&number) else { return put(status, 0) };
        put(status, 1 + i32::from(capture.broken))?;
        put_if(id, number);
        Ok(())
    }

    /// Sets how this thread is held to the rules of captures, and gives back how it was.
    Init fn cuThreadExchangeStreamCaptureMode(call, mode: *mut u32) {
        if mode.is_null() || mode.read_unaligned() > RELAXED { return Err(INVALID_VALUE) }
        let before = call.exchange_mode(mode.read_unaligned());
        put(mode, before)
    }

    /// An event in the current context.
    Context fn cuEventCreate(call, event: *mut usize, flags: u32) {
        if event.is_null() || flags > 7 || flags & 6 == 4 { return Err(INVALID_VALUE) }
        let (context, handle) = (call.current()?, call.handle(Handle::Event));
        call.events.insert(handle, Event { context, flags, op: 0, captured: None, at: None });
        put(event, handle)
    }

    /// The handle ends; streams that wait for what it recorded continue to wait.
    Release fn cuEventDestroy_v2(call, event: usize) {
        call.events.remove(&event).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Records the event after the stream's work.
    Context(cuEventRecord_ptsz) fn cuEventRecord(call, event: usize, stream: usize) {
        let stream = call.stream(stream)?;
        if !call.events.contains_key(&event) { return Err(INVALID_HANDLE) }
        call.record_event(event, stream)
    }

    /// As `cuEventRecord`; external nodes are not supported.
    Context(cuEventRecordWithFlags_ptsz) fn cuEventRecordWithFlags(call, event: usize, stream: usize, flags: u32) {
        if flags > 0 { return Err(if flags == 1 { NOT_SUPPORTED } else { INVALID_VALUE }) }
        let stream = call.stream(stream)?;
        if !call.events.contains_key(&event) { return Err(INVALID_HANDLE) }
        call.record_event(event, stream)
    }

    /// Waits for what the event recorded last.
    Context fn cuEventSynchronize(call, event: usize) {
        let Some(found) = call.events.get(&event) else { return Err(INVALID_HANDLE) };
        let (context, op) = (found.context, found.op);
        call.observe_event(event)?;
        call.drive(&[op]);
        call.sticky(context)
    }

    /// NOT_READY while that is queued; it then continues, so that polling ends.
    Context fn cuEventQuery(call, event: usize) {
        let Some(found) = call.events.get(&event) else { return Err(INVALID_HANDLE) };
        let (context, op) = (found.context, found.op);
        call.observe_event(event)?;
        call.query(&[op])?;
        call.sticky(context)
    }

    /// Milliseconds between two events: the time that the emulation took, which says nothing of a GPU.
    Context fn cuEventElapsedTime(call, milliseconds: *mut f32, start: usize, end: usize) {
        let pair = [start, end].map(|event| call.events.get(&event));
        let [Some(start), Some(end)] = pair else { return Err(INVALID_HANDLE) };
        if start.captured.is_some() || end.captured.is_some() { return Err(CAPTURED_EVENT) }
        let unfit = |event: &Event| event.flags & DISABLE_TIMING != 0 || event.op == 0;
        if unfit(start) || unfit(end) || start.context != end.context { return Err(INVALID_HANDLE) }
        let (Some(from), Some(to)) = (start.at, end.at) else { return Err(NOT_READY) };
        let time = to.saturating_duration_since(from).as_secs_f32() - from.saturating_duration_since(to).as_secs_f32();
        put(milliseconds, time * 1e3)
    }
}

impl super::entry::Call {
    /// Returns what a wait for the stream waits for: its last operation, and for the legacy stream the blocking ones' too.
    fn stream_goals(&self, stream: usize) -> Vec<u64> {
        let found = &self.streams[&stream];
        let mut goals = vec![found.last];
        if found.order == Order::Legacy {
            goals.extend(self.blocking(found.context));
        }
        goals
    }
}
