//! The `cu*` entry points: a driver that queues work, captures it, checks handles, and can be told to fail. It
//! interprets no PTX itself ([`crate::ptx`] does) and knows nothing of time.
//!
//! What is here: the state under one lock (`state`), what each entry point does first and last (`entry`), deferred work
//! (`work`, `queue`), capture, and the entry points by subject. `config`, `inject`, `control` and `report` are what a
//! driver does not have: a pose, planned failures, and answers about what happened. The crate's README is their
//! manual.

#![allow(non_snake_case, reason = "the entry points have the driver's names")]
#![allow(missing_docs, reason = "the state's fields are nobody's interface; entry points and controls are documented")]

mod capture;
pub mod codes;
mod config;
mod context;
mod control;
mod device;
mod disassemble;
mod entry;
mod graph;
mod green;
mod inject;
mod launch;
mod library;
mod memory;
mod module;
mod proc;
mod queue;
mod report;
mod shim;
mod state;
mod stream;
mod work;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use context::*;
pub use control::{df11_emulator_control, df11_emulator_query, df11_emulator_text};
pub use device::*;
pub use graph::*;
pub use green::*;
pub use launch::*;
pub use library::*;
pub use memory::*;
pub use module::*;
pub use proc::*;
pub use shim::without_symbols;
pub use stream::*;

/// All entry points, by name.
static ENTRIES: LazyLock<BTreeMap<&'static str, usize>> = LazyLock::new(|| {
    let files = [
        device::entries(),
        context::entries(),
        memory::entries(),
        module::entries(),
        library::entries(),
        green::entries(),
        launch::entries(),
        stream::entries(),
        graph::entries(),
        proc::entries(),
    ];
    files.into_iter().flatten().collect()
});

/// Returns where an entry point is.
fn address(name: &str) -> Option<usize> {
    ENTRIES.get(name).copied()
}

/// Returns the names of all entry points.
pub fn names() -> Vec<&'static str> {
    ENTRIES.keys().copied().collect()
}
