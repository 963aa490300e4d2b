//! The entry points of graphs: what a capture made, made launchable and launched.

use std::ffi::{c_char, c_void};

use super::capture::{Exec, Graph, Node, leaves};
use super::codes::*;
use super::entry::{Call, entries, put, put_if};
use super::state::Handle;
use super::work::Work;

/// Flags of instantiation that the emulator takes: to free memory, to upload, and to use priorities change nothing
/// here. Launch from the device (4) is refused.
const FLAGS: u64 = 1 | 2 | 8;

impl Call {
    fn instantiate(&mut self, graph: usize, flags: u64) -> Result<usize> {
        let Some(found) = self.graphs.get(&graph) else { return Err(INVALID_HANDLE) };
        if flags & !FLAGS != 0 {
            return Err(INVALID_VALUE);
        }
        let nodes = found.nodes.clone();
        let handle = self.handle(Handle::Exec);
        self.execs.insert(handle, Exec { nodes, last: 0 });
        Ok(handle)
    }

    /// Queues all nodes: after what the stream has queued and after the graph's own last launch; what the stream queues
    /// later comes after all of them.
    fn launch_graph(&mut self, exec: usize, stream: usize) -> Result {
        let Some(found) = self.execs.get(&exec) else { return Err(INVALID_HANDLE) };
        let (nodes, last) = (found.nodes.clone(), found.last);
        if self.capturing(stream) {
            return self.add_nodes(stream, &nodes);
        }
        self.implicit(stream)?;
        let context = self.streams[&stream].context;
        let begin = self.queue(stream, Work::Join, &[last]);
        let mut ops = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let after =
                if node.after.is_empty() { vec![begin] } else { node.after.iter().map(|&at| ops[at]).collect() };
            ops.push(self.queue_apart(context, node.work.clone(), after));
        }
        let ends: Vec<u64> = leaves(&nodes).into_iter().map(|at| ops[at]).collect();
        let end = self.queue(stream, Work::Join, &ends);
        self.execs.get_mut(&exec).unwrap().last = end;
        self.queued(end);
        Ok(())
    }

    /// Returns whether `new` differs from `old` only in what an update may change; the driver's reason otherwise.
    fn update(&mut self, exec: usize, graph: usize) -> Result<i32> {
        let Some(new) = self.graphs.get(&graph).cloned() else { return Err(INVALID_HANDLE) };
        let Some(old) = self.execs.get_mut(&exec) else { return Err(INVALID_HANDLE) };
        let same = |a: &Node, b: &Node| a.after == b.after;
        if new.nodes.len() != old.nodes.len() || !new.nodes.iter().zip(&old.nodes).all(|(a, b)| same(a, b)) {
            return Ok(2);
        }
        if !new.nodes.iter().zip(&old.nodes).all(|(a, b)| a.work.node_type() == b.work.node_type()) {
            return Ok(3);
        }
        old.nodes = new.nodes;
        Ok(0)
    }
}

entries! {
    /// An empty graph.
    Context fn cuGraphCreate(call, graph: *mut usize, flags: u32) {
        if graph.is_null() || flags != 0 { return Err(INVALID_VALUE) }
        let handle = call.handle(Handle::Graph);
        call.graphs.insert(handle, Graph { nodes: Vec::new() });
        put(graph, handle)
    }

    /// A copy of a graph.
    Context fn cuGraphClone(call, clone: *mut usize, original: usize) {
        let Some(graph) = call.graphs.get(&original).cloned() else { return Err(INVALID_HANDLE) };
        let handle = call.handle(Handle::Graph);
        call.graphs.insert(handle, graph);
        put(clone, handle)
    }

    /// The graph ends; what was instantiated from it does not.
    Drop fn cuGraphDestroy(call, graph: usize) {
        call.graphs.remove(&graph).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Makes a graph launchable.
    Context fn cuGraphInstantiateWithFlags(call, exec: *mut usize, graph: usize, flags: u64) {
        let handle = call.instantiate(graph, flags)?;
        put(exec, handle)
    }

    /// The older form, with places for a log.
    Context fn cuGraphInstantiate_v2(
        call, exec: *mut usize, graph: usize, node: *mut usize, log: *mut c_char, bytes: usize,
    ) {
        put_if(node, 0);
        if bytes > 0 { put_if(log, 0) }
        let handle = call.instantiate(graph, 0)?;
        put(exec, handle)
    }

    /// The newer form: `params` begins with the flags and a stream for the upload, and ends with node and result.
    Context(cuGraphInstantiateWithParams_ptsz) fn cuGraphInstantiateWithParams(
        call, exec: *mut usize, graph: usize, params: *mut InstantiateParams,
    ) {
        if params.is_null() { return Err(INVALID_VALUE) }
        let handle = call.instantiate(graph, (*params).flags)?;
        ((*params).node, (*params).result) = (0, 0);
        put(exec, handle)
    }

    /// Ends a launchable graph; launches that are queued stay queued.
    Drop fn cuGraphExecDestroy(call, exec: usize) {
        call.execs.remove(&exec).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Queues a graph in a stream, or in a capturing stream makes its nodes part of the capture.
    Context(cuGraphLaunch_ptsz) fn cuGraphLaunch(call, exec: usize, stream: usize) {
        let stream = call.stream(stream)?;
        call.launch_graph(exec, stream)
    }

    /// Nothing is to be uploaded; handles are checked, and a capture cannot hold it.
    Context(cuGraphUpload_ptsz) fn cuGraphUpload(call, exec: usize, stream: usize) {
        let stream = call.stream(stream)?;
        if !call.execs.contains_key(&exec) { return Err(INVALID_HANDLE) }
        call.submit_uncapturable(stream, Work::Join)
    }

    /// Puts another graph's parameters into a launchable one of the same shape.
    Context fn cuGraphExecUpdate_v2(call, exec: usize, graph: usize, info: *mut UpdateInfo) {
        let reason = call.update(exec, graph)?;
        put_if(info, UpdateInfo { result: reason, node: 0, from: 0 });
        if reason == 0 { Ok(()) } else { Err(GRAPH_EXEC_UPDATE_FAILURE) }
    }

    /// The older form.
    Context fn cuGraphExecUpdate(call, exec: usize, graph: usize, node: *mut usize, result: *mut i32) {
        let reason = call.update(exec, graph)?;
        put_if(node, 0);
        put_if(result, reason);
        if reason == 0 { Ok(()) } else { Err(GRAPH_EXEC_UPDATE_FAILURE) }
    }

    /// A graph's nodes in the order of capture; with no place for them only their number.
    Context fn cuGraphGetNodes(call, graph: usize, nodes: *mut usize, count: *mut usize) {
        let Some(found) = call.graphs.get(&graph) else { return Err(INVALID_HANDLE) };
        if count.is_null() { return Err(INVALID_VALUE) }
        if !nodes.is_null() {
            let room = count.read_unaligned();
            for at in 0..room {
                put(nodes.wrapping_add(at), found.nodes.get(at).map_or(0, |node| node.handle))?;
            }
            return put(count, room.min(found.nodes.len()));
        }
        put(count, found.nodes.len())
    }

    /// The number of edges, and their ends where there is room.
    Context fn cuGraphGetEdges(call, graph: usize, from: *mut usize, to: *mut usize, count: *mut usize) {
        let Some(found) = call.graphs.get(&graph) else { return Err(INVALID_HANDLE) };
        if count.is_null() { return Err(INVALID_VALUE) }
        let edges: Vec<(usize, usize)> = found.nodes.iter()
            .flat_map(|node| node.after.iter().map(|&at| (found.nodes[at].handle, node.handle)))
            .collect();
        let room = if from.is_null() || to.is_null() { 0 } else { count.read_unaligned() };
        for (at, edge) in edges.iter().take(room).enumerate() {
            put(from.wrapping_add(at), edge.0)?;
            put(to.wrapping_add(at), edge.1)?;
        }
        put(count, if from.is_null() || to.is_null() { edges.len() } else { room.min(edges.len()) })
    }

    /// 0 kernel, 1 copy, 2 memset, 3 host function, 5 empty.
    Context fn cuGraphNodeGetType(call, node: usize, kind: *mut i32) {
        let mut nodes = call.graphs.values().flat_map(|graph| &graph.nodes);
        let Some(found) = nodes.find(|found| found.handle == node) else { return Err(INVALID_HANDLE) };
        put(kind, found.work.node_type())
    }

    /// A drawing of a graph is not made.
    Context fn cuGraphDebugDotPrint(call, graph: usize, path: *const c_char, flags: u32) {
        let _ = (path as *const c_void, flags);
        if call.graphs.contains_key(&graph) { Err(NOT_SUPPORTED) } else { Err(INVALID_HANDLE) }
    }
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
pub struct InstantiateParams {
    flags: u64,
    stream: usize,
    node: usize,
    result: i32,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
pub struct UpdateInfo {
    result: i32,
    node: usize,
    from: usize,
}
