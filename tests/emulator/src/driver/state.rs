//! Everything that the emulated driver knows, under one lock, and the handles that it gives out. It decides nothing:
//! the entry points do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::Instant;

use super::capture::{Capture, Exec, Graph};
use super::config::Config;
use super::green::Green;
use super::inject::Injection;
use super::library::{Kernel, Library};
use super::module::{Entry, Loaded};
use super::queue::Op;
use super::report::Record;
use crate::exec::Counts;
use crate::memory::{Kind, Memory};

/// The object of a handle. Handles are addresses that no process has mapped, and are never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Graph,
    Exec,
    Node,
    Pool,
    Library,
    Kernel,
    Green,
    Description,
}

/// A context. Its handle stays known after its end, so that a use of it can be told from nonsense.
pub struct Context {
    /// Of this life: a primary context that was ended and retained again has another.
    pub id: u64,
    pub device: i32,
    pub flags: u32,
    pub primary: bool,
    pub alive: bool,
    /// The memory that its kernels may touch.
    pub memory: Arc<Memory>,
    /// The handle of its legacy default stream.
    pub legacy: usize,
    /// Its per-thread default streams, by thread.
    pub per_thread: BTreeMap<u64, usize>,
    /// The last operations of blocking streams that were destroyed: the legacy stream comes after them, too.
    pub orphans: Vec<u64>,
    /// The error that every call returns from now on; 0 while there is none.
    pub sticky: i32,
    pub limits: BTreeMap<u32, usize>,
    /// The contexts to whose memory it has been given access: copies go there without the host.
    pub peers: BTreeSet<usize>,
    pub cache_config: i32,
    pub shared_config: i32,
}

/// A device's primary context: the handle stays the same as long as the process runs.
#[derive(Clone, Copy, Default)]
pub struct Primary {
    pub handle: usize,
    pub retains: u64,
    pub flags: u32,
}

/// The order of a stream with respect to the legacy default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is the legacy default stream.
    Legacy,
    /// It is a thread's default stream, ordered as blocking ones.
    PerThread,
    /// Ordered with the legacy stream.
    Blocking,
    /// Not ordered with it.
    NonBlocking,
}

/// A stream.
pub struct Stream {
    pub context: usize,
    /// The green context that it is of, 0 for none; `context` is then the primary one.
    pub green: usize,
    pub order: Order,
    pub priority: i32,
    /// The operation queued last, 0 before the first.
    pub last: u64,
    /// The capture that it takes part in, 0 for none.
    pub capture: u64,
    /// While it is captured: the nodes on which the next one depends.
    pub frontier: Vec<usize>,
    /// The handles that `cuStreamGetCaptureInfo` gave out last; they live as long as the stream.
    pub shown: Vec<usize>,
}

/// An event.
pub struct Event {
    pub context: usize,
    pub flags: u32,
    /// The operation that records it, 0 before the first.
    pub op: u64,
    /// When it was recorded in a capture: which, and the nodes before it.
    pub captured: Option<(u64, Vec<usize>)>,
    /// When the operation ended.
    pub at: Option<Instant>,
}

/// A piece of memory that the driver knows: allocated, pinned, registered, or a module's variable.
#[derive(Clone, Debug)]
pub struct Allocation {
    pub bytes: u64,
    pub context: usize,
    pub kind: Kind,
    /// A stream will free it; until then its bytes are there, but nobody may free it again.
    pub freeing: bool,
    pub id: u64,
    pub flags: u32,
}

/// All of it.
pub struct State {
    pub config: Config,
    pub injection: Injection,
    pub initialised: bool,
    /// Grows at every reset: what threads remember of before is void.
    pub epoch: u64,
    pub calls: BTreeMap<&'static str, u64>,
    serial: u64,
    pub contexts: BTreeMap<usize, Context>,
    pub primaries: BTreeMap<i32, Primary>,
    pub streams: BTreeMap<usize, Stream>,
    pub events: BTreeMap<usize, Event>,
    pub modules: BTreeMap<usize, Loaded>,
    pub functions: BTreeMap<usize, Entry>,
    pub libraries: BTreeMap<usize, Library>,
    pub kernels: BTreeMap<usize, Kernel>,
    /// Green contexts. As contexts they stay known after their end.
    pub greens: BTreeMap<usize, Green>,
    /// Descriptions of resources: a device, and how many of its multiprocessors.
    pub descriptions: BTreeMap<usize, (i32, u32)>,
    pub graphs: BTreeMap<usize, Graph>,
    pub execs: BTreeMap<usize, Exec>,
    pub captures: BTreeMap<u64, Capture>,
    /// Pools, by handle: the device of a default pool (made at first sight).
    pub pools: BTreeMap<usize, i32>,
    pub allocations: BTreeMap<u64, Allocation>,
    /// Pinned memory that the driver allocated; every context's memory knows it too.
    pub pinned: Memory,
    pub ops: BTreeMap<u64, Op>,
    pub last_op: u64,
    pub random: u64,
    pub records: Vec<Record>,
    pub totals: Counts,
    pub faults: u64,
    pub fault_text: String,
    /// The text of the PTX that was loaded last: what an accepted cubin runs as, unless `cubin_ptx` says otherwise.
    pub cubin_ptx: Option<Arc<str>>,
    pub last_ptx: Option<Arc<str>>,
    /// Functions that were loaded by their first launch, instead of before.
    pub lazy_loads: u64,
    /// Cubins that were loaded as machine code.
    pub machine_code: u64,
    /// The objects that nobody had freed when their contexts ended, by kind.
    pub abandoned: BTreeMap<&'static str, u64>,
}

impl State {
    /// Returns the state of a process that has called nothing yet, with the pose that the environment asks for.
    fn new(epoch: u64) -> State {
        let mut state = State {
            config: Config::default(),
            injection: Injection::default(),
            initialised: false,
            epoch,
            calls: BTreeMap::new(),
            serial: epoch << 20,
            contexts: BTreeMap::new(),
            primaries: BTreeMap::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            libraries: BTreeMap::new(),
            kernels: BTreeMap::new(),
            greens: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            graphs: BTreeMap::new(),
            execs: BTreeMap::new(),
            captures: BTreeMap::new(),
            pools: BTreeMap::new(),
            allocations: BTreeMap::new(),
            pinned: Memory::new(),
            ops: BTreeMap::new(),
            // No number of an operation is used twice either: one of before a reset may still be running.
            last_op: epoch << 40,
            random: 0,
            records: Vec::new(),
            totals: Counts::default(),
            faults: 0,
            fault_text: String::new(),
            cubin_ptx: None,
            last_ptx: None,
            lazy_loads: 0,
            machine_code: 0,
            abandoned: BTreeMap::new(),
        };
        super::control::read_environment(&mut state);
        state
    }

    /// Resets everything, as if the process had just loaded the library. Only for a moment at which no other thread
    /// is inside a call.
    pub fn reset(&mut self) {
        *self = State::new(self.epoch + 1);
    }

    /// Returns a handle that was never given out before.
    pub fn handle(&mut self, kind: Handle) -> usize {
        self.serial += 1;
        // 8 GiB apart, from 8 GiB on: below where Linux maps anything by itself, and below Go's heap.
        ((kind as usize) << 33) + ((self.serial as usize) << 6)
    }

    /// Returns a number that was never given out before.
    pub fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Returns the allocation that holds all of these bytes, with its first address.
    pub fn find(&self, address: u64, bytes: u64) -> Option<(u64, &Allocation)> {
        let (&start, allocation) = self.allocations.range(..=address).next_back()?;
        let offset = address - start;
        (offset < allocation.bytes && bytes <= allocation.bytes - offset).then_some((start, allocation))
    }

    /// Bytes of a device's memory in use.
    pub fn used(&self, device: i32) -> u64 {
        let on = |a: &&Allocation| self.contexts.get(&a.context).is_some_and(|context| context.device == device);
        let device_memory = |a: &&Allocation| matches!(a.kind, Kind::Device | Kind::Managed);
        self.allocations.values().filter(device_memory).filter(on).map(|a| a.bytes).sum()
    }

    /// Notes an error that ends a context: the first one stays.
    pub fn poison(&mut self, context: usize, code: i32, text: String) {
        eprintln!("df11-emulator: {text}");
        self.faults += 1;
        self.fault_text = text;
        if let Some(context) = self.contexts.get_mut(&context)
            && context.sticky == 0
        {
            context.sticky = code;
        }
    }
}

/// The one state.
pub static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| Mutex::new(State::new(1)));
/// Rung whenever an operation ends.
pub static DONE: Condvar = Condvar::new();
