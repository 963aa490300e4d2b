//! What is counted and told: launches, live objects, what was never freed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Once;

use super::entry::Call;
use super::state::State;
use crate::exec::Counts;
use crate::memory::Kind;

/// A launch that ran.
#[derive(Clone, Debug)]
pub struct Record {
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: usize,
    pub early: bool,
    pub counts: Counts,
}

/// Returns each count of a launch, with its name in queries and in JSON.
pub fn named(counts: &Counts) -> [(&'static str, u64); 12] {
    [
        ("instructions", counts.thread_instructions),
        ("predicated_off", counts.predicated_off),
        ("warp_issues", counts.warp_issues),
        ("sectors_read", counts.global_sectors_read),
        ("sectors_written", counts.global_sectors_written),
        ("sectors_atomic", counts.global_sectors_atomic),
        ("shared_wavefronts", counts.shared_wavefronts),
        ("shared_accesses", counts.shared_accesses),
        ("global_accesses", counts.global_accesses),
        ("local_accesses", counts.local_accesses),
        ("collectives", counts.collectives),
        ("blocks", counts.blocks),
    ]
}

impl Record {
    /// Formats one line of JSON.
    pub fn json(&self) -> String {
        let Record { kernel, grid, block, shared_bytes, stream, early, counts } = self;
        // A kernel's name is a C identifier: nothing in it needs escaping.
        let mut text = format!(
            "{{\"kernel\":\"{kernel}\",\"grid\":{grid:?},\"block\":{block:?},\"shared_bytes\":{shared_bytes},\
             \"stream\":{stream},\"early\":{early}"
        );
        for (name, count) in named(counts) {
            let _ = write!(text, ",\"{name}\":{count}");
        }
        text + "}"
    }
}

/// Returns the name of live memory of that kind.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Device => "allocations",
        Kind::Managed => "managed",
        Kind::HostPinned => "pinned",
        Kind::HostRegistered => "registered",
        Kind::ModuleGlobal => "variables",
    }
}

/// The kinds of objects that can be live, in the order of the report. Libraries are not among them: they are of no context,
/// and graphs of every context may have their kernels.
pub const LIVE: [&str; 13] = [
    "retains",
    "contexts",
    "greens",
    "streams",
    "events",
    "modules",
    "allocations",
    "managed",
    "pinned",
    "registered",
    "graphs",
    "execs",
    "captures",
];

impl State {
    /// Notes a launch, and appends it to the file if one is asked for.
    pub fn record(&mut self, record: Record) {
        self.totals += &record.counts;
        if let Some(path) = &self.config.launches {
            let line = record.json() + "\n";
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                eprintln!("df11-emulator: {}: {error}", path.display());
            }
        }
        self.records.push(record);
    }

    /// Returns how many of a kind are live. Contexts are those that `cuCtxCreate` made; retains are of primary ones.
    pub fn live(&self, what: &str) -> Option<u64> {
        let memory = |wanted: &str| self.allocations.values().filter(|a| kind_name(a.kind) == wanted).count();
        Some(match what {
            "retains" => return Some(self.primaries.values().map(|primary| primary.retains).sum()),
            "contexts" => self.contexts.values().filter(|context| context.alive && !context.primary).count(),
            "streams" => self.streams.values().filter(|stream| !stream.special()).count(),
            "events" => self.events.len(),
            "modules" => self.modules.values().filter(|module| !module.of_library).count(),
            "libraries" => self.libraries.len(),
            "greens" => self.greens.values().filter(|green| green.alive).count(),
            "graphs" => self.graphs.len(),
            "execs" => self.execs.len(),
            "captures" => self.captures.len(),
            "allocations" | "managed" | "pinned" | "registered" => memory(what),
            _ => return None,
        } as u64)
    }

    /// Returns the number of objects that are live, or were ended by their context's end: a careful program has
    /// none. Modules are no leak then: they may not be unloaded while a graph has their functions, so that libraries keep
    /// them for as long as the context.
    pub fn leaked(&self) -> u64 {
        let abandoned = self.abandoned.iter().filter(|(what, _)| **what != "modules").map(|(_, count)| count);
        LIVE.iter().filter_map(|what| self.live(what)).sum::<u64>() + abandoned.sum::<u64>()
    }

    /// Returns the report at exit: one line for each kind that leaked; empty when nothing did.
    pub fn leak_report(&self) -> String {
        let mut text = String::new();
        for what in LIVE {
            match self.live(what) {
                Some(count) if count > 0 => {
                    let _ = writeln!(text, "leaked {what}: {count}");
                }
                _ => {}
            }
        }
        for (what, count) in &self.abandoned {
            let _ = writeln!(text, "abandoned {what}: {count} (their context was ended first)");
        }
        for (address, found) in &self.allocations {
            let _ = writeln!(text, "  {:?} {} bytes at {address:#x}", found.kind, found.bytes);
        }
        text
    }
}

impl super::state::Stream {
    /// Returns whether it is one of those that come with a context.
    pub fn special(&self) -> bool {
        matches!(self.order, super::state::Order::Legacy | super::state::Order::PerThread)
    }
}

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> i32;
    fn fflush(stream: *mut std::ffi::c_void) -> i32;
    fn _exit(status: i32) -> !;
}

/// Sees to it that the report is written when the process ends.
pub fn at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `report` is a function without arguments that lives as long as this library; the C library runs it
        // before the library is unloaded.
        unsafe { atexit(report) };
    });
}

/// Ends the process at once with that status.
pub fn quit(status: i32) -> ! {
    // SAFETY: flushes all C streams, as an exit does; then ends the process without running anything else of it.
    unsafe {
        fflush(std::ptr::null_mut());
        _exit(status)
    }
}

extern "C" fn report() {
    let (text, leaked, status, leaks) = {
        let call = Call::internal();
        (call.leak_report(), call.leaked(), call.config.leak_exit, call.config.leaks.clone())
    };
    if let Some(path) = leaks {
        let line = if text.is_empty() { "nothing leaked\n".to_string() } else { text.clone() };
        if path.as_os_str() == "stderr" {
            eprint!("df11-emulator: {line}");
        } else if let Err(error) = std::fs::write(&path, line) {
            eprintln!("df11-emulator: {}: {error}", path.display());
        }
    }
    if status != 0 && leaked > 0 {
        quit(status);
    }
}
