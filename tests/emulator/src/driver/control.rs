//! How a test steers the emulator and asks it: `df11_emulator_control`, `df11_emulator_query`, `df11_emulator_text`,
//! and the environment. The keys are listed in the emulator's README.

use std::ffi::{CStr, c_char};

use super::config::{KEYS, PREFIX};
use super::entry::Call;
use super::report::named;
use super::state::State;

/// Reads the environment into a new state. What cannot be understood ends the process: a test that runs with another
/// pose than it asked for is worse than none.
pub fn read_environment(state: &mut State) {
    for key in KEYS.into_iter().chain(["cubin_ptx"]) {
        let name = format!("{PREFIX}{}", key.to_ascii_uppercase());
        let Ok(value) = std::env::var(&name) else { continue };
        if let Err(error) = set(state, key, &value) {
            eprintln!("df11-emulator: {name}: {error}");
            super::report::quit(125);
        }
    }
    // The driver's own variable.
    if let Ok(mode) = std::env::var("CUDA_MODULE_LOADING")
        && std::env::var_os(format!("{PREFIX}MODULE_LOADING")).is_none()
    {
        let _ = state.config.set("module_loading", &mode);
    }
}

fn set(state: &mut State, key: &str, value: &str) -> Result<(), String> {
    match key {
        "fail" => state.injection.add(value),
        "unfail" => {
            state.injection.clear();
            Ok(())
        }
        "cubin_ptx" => {
            state.cubin_ptx = match value {
                "" => None,
                path => Some(std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?.into()),
            };
            Ok(())
        }
        "reset" => {
            state.reset();
            Ok(())
        }
        "clear" => {
            match value {
                "calls" => state.calls.clear(),
                "launches" => {
                    state.records.clear();
                    state.totals = Default::default();
                }
                "sticky" => state.contexts.values_mut().for_each(|context| context.sticky = 0),
                "abandoned" => state.abandoned.clear(),
                "faults" => (state.faults, state.fault_text) = (0, String::new()),
                _ => return Err(format!("there is nothing to clear called `{value}`")),
            }
            Ok(())
        }
        _ => state.config.set(key, value),
    }
}

fn query(state: &State, key: &str) -> Option<u64> {
    let (head, rest) = key.split_once('.').unwrap_or((key, ""));
    let count = |counts: &crate::exec::Counts, name: &str| {
        named(counts).into_iter().find(|(known, _)| *known == name).map(|(_, count)| count)
    };
    match (head, rest) {
        ("calls", "") => Some(state.calls.values().sum()),
        ("calls", name) => Some(state.calls.get(name).copied().unwrap_or(0)),
        ("failed", "") => Some(state.injection.fired("*")),
        ("failed", name) => Some(state.injection.fired(name)),
        ("live", "") => Some(super::report::LIVE.iter().filter_map(|what| state.live(what)).sum()),
        ("live", what) => state.live(what),
        ("abandoned", "") => Some(state.abandoned.values().sum()),
        ("abandoned", what) => Some(state.abandoned.get(what).copied().unwrap_or(0)),
        ("leaked", "") => Some(state.leaked()),
        ("pending", "") => Some(state.ops.len() as u64),
        ("lazy_loads", "") => Some(state.lazy_loads),
        ("machine_code", "") => Some(state.machine_code),
        ("faults", "") => Some(state.faults),
        ("sticky", "") => Some(state.contexts.values().map(|context| context.sticky).max().unwrap_or(0) as u64),
        ("bytes", "") => Some(state.allocations.values().map(|a| a.bytes).sum()),
        ("launches", "") => Some(state.records.len() as u64),
        ("total", name) => count(&state.totals, name),
        ("last", name) => state.records.last().and_then(|record| count(&record.counts, name)),
        ("launch", rest) => {
            let (at, name) = rest.split_once('.')?;
            let record = state.records.get(at.parse::<usize>().ok()?)?;
            match name {
                "shared_bytes" => Some(record.shared_bytes.into()),
                "grid" => Some(record.grid.iter().map(|&n| u64::from(n)).product()),
                "block" => Some(record.block.iter().map(|&n| u64::from(n)).product()),
                "stream" => Some(record.stream as u64),
                "early" => Some(record.early.into()),
                name => count(&record.counts, name),
            }
        }
        _ => None,
    }
}

fn text(state: &State, key: &str) -> Option<String> {
    match key {
        "fault" => Some(state.fault_text.clone()),
        "leaks" => Some(state.leak_report()),
        "launches" => Some(state.records.iter().map(|record| record.json() + "\n").collect()),
        "calls" => Some(state.calls.iter().map(|(name, count)| format!("{name} {count}\n")).collect()),
        "entries" => Some(super::names().into_iter().map(|name| format!("{name}\n")).collect()),
        _ => {
            let at = key.strip_prefix("launch.")?.parse::<usize>().ok()?;
            state.records.get(at).map(|record| record.kernel.clone())
        }
    }
}

/// Sets a key to a value. Returns 0 if that was done; -1, after a line on standard error, if it was not understood.
///
/// Beside the keys of the environment, in small letters: `reset` (everything back to the beginning; no call may run at
/// the time), `unfail` (forget all rules of failure), `run` (run all queued work of all contexts), `clear` (`calls`,
/// `launches`,
/// `sticky`, `abandoned` or `faults`).
///
/// # Safety
/// Both are texts with a zero at the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_emulator_control(key: *const c_char, value: *const c_char) -> i32 {
    // SAFETY: this function's own contract.
    let (Some(key), Some(value)) = (unsafe { string(key) }, unsafe { string(value) }) else { return -1 };
    let mut call = Call::internal();
    if key == "run" {
        let all: Vec<u64> = call.ops.keys().copied().collect();
        call.drive(&all);
        return 0;
    }
    match set(&mut call, key, value) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("df11-emulator: {error}");
            -1
        }
    }
}

/// Returns the number of a key, or 2^64 - 1 for an unknown key.
///
/// # Safety
/// `key` is a text with a zero at the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_emulator_query(key: *const c_char) -> u64 {
    // SAFETY: this function's own contract.
    let key = unsafe { string(key) };
    key.and_then(|key| query(&Call::internal(), key)).unwrap_or(u64::MAX)
}

/// Writes the text of a key, cut to `room` bytes with a zero at the end, and returns how many bytes the whole text
/// has without the zero; 2^64 - 1 for a key that there is not.
///
/// # Safety
/// `key` is a text with a zero at the end; `to` is NULL or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_emulator_text(key: *const c_char, to: *mut c_char, room: usize) -> usize {
    // SAFETY: this function's own contract.
    let key = unsafe { string(key) };
    let Some(text) = key.and_then(|key| text(&Call::internal(), key)) else { return usize::MAX };
    if !to.is_null() && room > 0 {
        let bytes = text.len().min(room - 1);
        // SAFETY: `to` has `room` bytes, by this function's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), bytes);
            to.add(bytes).write(0);
        }
    }
    text.len()
}

/// # Safety
/// NULL, or a text with a zero at the end.
unsafe fn string<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: this function's own contract.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}
