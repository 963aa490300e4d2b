//! Stream capture: the calls that it allows, those that break it, and the nodes that captured work becomes. The entry points
//! of streams and graphs are in `stream` and `graph`.
//!
//! Rules, after the CUDA programming guide's chapter on stream capture and the driver API's reference:
//! - work in a capturing stream becomes a node after the stream's *frontier*, the nodes that its next one depends on;
//! - an event recorded there carries the frontier, and a stream that waits for it joins the capture;
//! - a call that may synchronise or allocate is refused while this thread captures (unless relaxed), or any thread
//!   captures in global mode, seen by a thread whose own mode says so; the refusal breaks the captures concerned;
//! - to wait for or ask after a capturing stream, its event or its context is refused in every mode;
//! - the legacy stream cannot be used while a blocking stream of its context captures;
//! - a capture ends in the stream and (unless relaxed) the thread in which it began, with all its streams joined.

use std::collections::BTreeSet;

use super::codes::*;
use super::entry::{Call, thread_number};
use super::state::{Order, State};
use super::work::Work;

/// Modes of capture, and of threads towards captures, as the driver numbers them.
pub const GLOBAL: u32 = 0;
/// Only the capturing thread is held to the rules.
pub const THREAD_LOCAL: u32 = 1;
/// Nobody is.
pub const RELAXED: u32 = 2;

/// A capture that has not been ended.
pub struct Capture {
    /// The handle that the graph will have.
    pub graph: usize,
    pub context: usize,
    pub mode: u32,
    pub thread: u64,
    pub origin: usize,
    pub broken: bool,
    pub nodes: Vec<Node>,
}

/// A node of a graph; those that it depends on come before it.
#[derive(Clone)]
pub struct Node {
    pub handle: usize,
    pub work: Work,
    pub after: Vec<usize>,
}

/// A graph that a capture or `cuGraphCreate` made.
#[derive(Clone)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

/// A graph that can be launched.
pub struct Exec {
    pub nodes: Vec<Node>,
    /// The last operation of its last launch: launches of one graph follow each other.
    pub last: u64,
}

impl State {
    /// Breaks the captures that `concerned` says; true if there were any, broken before or not.
    pub fn break_captures(&mut self, concerned: impl Fn(&Capture) -> bool) -> bool {
        let mut any = false;
        for capture in self.captures.values_mut().filter(|capture| concerned(capture)) {
            capture.broken = true;
            any = true;
        }
        any
    }

    /// Returns whether a blocking stream of the context captures.
    fn blocking_capture(&self, context: usize) -> Option<u64> {
        let concerned = |s: &&super::state::Stream| {
            s.context == context && s.capture != 0 && matches!(s.order, Order::Blocking | Order::PerThread)
        };
        self.streams.values().find(concerned).map(|stream| stream.capture)
    }

    /// Refuses the legacy stream while a blocking stream of its context captures, and breaks that capture.
    pub fn implicit(&mut self, stream: usize) -> Result {
        let (order, context) = (self.streams[&stream].order, self.streams[&stream].context);
        if order != Order::Legacy {
            return Ok(());
        }
        match self.blocking_capture(context) {
            Some(id) => {
                self.captures.get_mut(&id).unwrap().broken = true;
                Err(STREAM_CAPTURE_IMPLICIT)
            }
            None => Ok(()),
        }
    }

    /// As [`State::implicit`], but only asks.
    pub fn would_be_implicit(&self, stream: usize) -> bool {
        let stream = &self.streams[&stream];
        stream.order == Order::Legacy && self.blocking_capture(stream.context).is_some()
    }

    /// Adds a node after a capturing stream's frontier.
    pub fn add_node(&mut self, stream: usize, work: Work) -> Result {
        let id = self.streams[&stream].capture;
        let handle = self.handle(super::state::Handle::Node);
        let capture = self.captures.get_mut(&id).expect("a stream's capture");
        if capture.broken {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        let after = std::mem::take(&mut self.streams.get_mut(&stream).unwrap().frontier);
        capture.nodes.push(Node { handle, work, after });
        self.streams.get_mut(&stream).unwrap().frontier = vec![capture.nodes.len() - 1];
        Ok(())
    }

    /// Adds a graph's nodes after a capturing stream's frontier, as the child graph that a real capture makes of it.
    pub fn add_nodes(&mut self, stream: usize, nodes: &[Node]) -> Result {
        let id = self.streams[&stream].capture;
        let handles: Vec<usize> = nodes.iter().map(|_| self.handle(super::state::Handle::Node)).collect();
        let capture = self.captures.get_mut(&id).expect("a stream's capture");
        if capture.broken {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        let stream = self.streams.get_mut(&stream).unwrap();
        let first = capture.nodes.len();
        for (node, handle) in nodes.iter().zip(handles) {
            let after = if node.after.is_empty() {
                stream.frontier.clone()
            } else {
                node.after.iter().map(|at| first + at).collect()
            };
            capture.nodes.push(Node { handle, work: node.work.clone(), after });
        }
        if !nodes.is_empty() {
            stream.frontier = leaves(nodes).into_iter().map(|at| first + at).collect();
        }
        Ok(())
    }

    /// Ends the capture `id` for all its streams, and takes it out.
    pub fn take_capture(&mut self, id: u64) -> Capture {
        for stream in self.streams.values_mut().filter(|stream| stream.capture == id) {
            stream.capture = 0;
            stream.frontier.clear();
        }
        self.captures.remove(&id).expect("a capture")
    }

    /// Returns whether all that the capture's streams did leads to the frontier of the stream in which it began.
    pub fn joined(&self, id: u64) -> bool {
        let capture = &self.captures[&id];
        let mut reached = BTreeSet::new();
        let mut open = self.streams.get(&capture.origin).map_or(Vec::new(), |stream| stream.frontier.clone());
        while let Some(at) = open.pop() {
            if reached.insert(at) {
                open.extend(&capture.nodes[at].after);
            }
        }
        self.streams.values().filter(|s| s.capture == id).all(|s| s.frontier.iter().all(|at| reached.contains(at)))
    }
}

/// Returns the nodes on which no other depends.
pub fn leaves(nodes: &[Node]) -> Vec<usize> {
    let inner: BTreeSet<usize> = nodes.iter().flat_map(|node| node.after.iter().copied()).collect();
    (0..nodes.len()).filter(|at| !inner.contains(at)).collect()
}

impl Call {
    /// Checks a call that may allocate or synchronise, or otherwise do what no graph can hold.
    pub fn unsafe_in_capture(&mut self) -> Result {
        let (me, mode) = (thread_number(), self.mode());
        let concerned = |capture: &Capture| {
            let own = capture.thread == me && capture.mode != RELAXED;
            let global = capture.thread != me && capture.mode == GLOBAL;
            match mode {
                GLOBAL => own || global,
                THREAD_LOCAL => own,
                _ => false,
            }
        };
        if self.break_captures(concerned) { Err(STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    /// Checks a call that waits for a stream or queries it.
    pub fn observe_stream(&mut self, stream: usize) -> Result {
        let id = self.streams[&stream].capture;
        if let Some(capture) = self.captures.get_mut(&id) {
            let code = if capture.broken { STREAM_CAPTURE_INVALIDATED } else { STREAM_CAPTURE_UNSUPPORTED };
            capture.broken = true;
            return Err(code);
        }
        self.implicit(stream)?;
        self.unsafe_in_capture()
    }

    /// Checks a call that waits for a whole context.
    pub fn observe_context(&mut self, context: usize) -> Result {
        let captures: Vec<u64> =
            self.streams.values().filter(|s| s.context == context && s.capture != 0).map(|s| s.capture).collect();
        if !captures.is_empty() {
            for id in captures {
                self.captures.get_mut(&id).unwrap().broken = true;
            }
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        self.unsafe_in_capture()
    }

    /// Checks a call that waits for an event or queries it.
    pub fn observe_event(&mut self, event: usize) -> Result {
        if let Some((id, _)) = self.events[&event].captured.clone() {
            self.break_captures_by_id(id);
            return Err(CAPTURED_EVENT);
        }
        self.unsafe_in_capture()
    }

    fn break_captures_by_id(&mut self, id: u64) {
        if let Some(capture) = self.captures.get_mut(&id) {
            capture.broken = true;
        }
    }

    /// Returns whether the stream is being captured.
    pub fn capturing(&self, stream: usize) -> bool {
        self.streams[&stream].capture != 0
    }

    /// Queues work in a stream, or makes it a node of the stream's capture.
    pub fn submit(&mut self, stream: usize, work: Work) -> Result {
        if self.capturing(stream) {
            return self.add_node(stream, work);
        }
        self.implicit(stream)?;
        let op = self.queue(stream, work, &[]);
        self.queued(op);
        Ok(())
    }

    /// Does what [`Call::submit`] does for work that a graph cannot hold: in a capture it is refused, and breaks the capture.
    pub fn submit_uncapturable(&mut self, stream: usize, work: Work) -> Result {
        if self.capturing(stream) {
            let id = self.streams[&stream].capture;
            self.break_captures_by_id(id);
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        self.submit(stream, work)
    }

    /// Queues work in a stream, runs it, and reports what the context is left with. For calls that return when all is
    /// done.
    pub fn submit_and_wait(&mut self, stream: usize, work: Work) -> Result {
        self.observe_stream(stream)?;
        let op = self.queue(stream, work, &[]);
        self.drive(&[op]);
        let context = self.streams.get(&stream).map(|stream| stream.context);
        context.map_or(Ok(()), |context| self.sticky(context))
    }

    /// Notes an event in a stream: as an operation, or as the frontier of a capture.
    pub fn record_event(&mut self, event: usize, stream: usize) -> Result {
        if self.events[&event].context != self.streams[&stream].context {
            return Err(INVALID_HANDLE);
        }
        let (id, frontier) = (self.streams[&stream].capture, self.streams[&stream].frontier.clone());
        if id != 0 {
            if self.captures[&id].broken {
                return Err(STREAM_CAPTURE_INVALIDATED);
            }
            let event = self.events.get_mut(&event).unwrap();
            (event.op, event.at, event.captured) = (0, None, Some((id, frontier)));
            return Ok(());
        }
        self.implicit(stream)?;
        let op = self.queue(stream, Work::Record { event }, &[]);
        let noted = self.events.get_mut(&event).unwrap();
        (noted.op, noted.at, noted.captured) = (op, None, None);
        self.queued(op);
        Ok(())
    }

    /// Makes a stream wait for an event: by an operation, or by joining the event's capture.
    pub fn wait_event(&mut self, stream: usize, event: usize) -> Result {
        let own = self.streams[&stream].capture;
        let (op, captured) = (self.events[&event].op, self.events[&event].captured.clone());
        if own != 0 && self.captures[&own].broken {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        match captured {
            None if op == 0 => Ok(()),
            None if own != 0 => {
                self.break_captures_by_id(own);
                Err(STREAM_CAPTURE_ISOLATION)
            }
            None => {
                self.implicit(stream)?;
                let op = self.queue(stream, Work::Join, &[op]);
                self.queued(op);
                Ok(())
            }
            Some((id, frontier)) => {
                let Some(capture) = self.captures.get(&id) else { return Err(CAPTURED_EVENT) };
                if own != 0 && own != id {
                    self.break_captures_by_id(own);
                    self.break_captures_by_id(id);
                    return Err(STREAM_CAPTURE_MERGE);
                }
                if capture.broken {
                    return Err(STREAM_CAPTURE_INVALIDATED);
                }
                if self.streams[&stream].order == Order::Legacy {
                    self.break_captures_by_id(id);
                    return Err(STREAM_CAPTURE_IMPLICIT);
                }
                let stream = self.streams.get_mut(&stream).unwrap();
                stream.capture = id;
                stream.frontier.extend(frontier);
                stream.frontier.sort_unstable();
                stream.frontier.dedup();
                Ok(())
            }
        }
    }
}
