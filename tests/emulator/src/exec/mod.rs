//! What the interpreters of PTX and of machine code share: launches and their blocks on threads of the host, counts, faults,
//! and the search for races.

mod counts;
mod fault;
mod float;
mod launch;
mod race;
mod shuffle;
mod traffic;

pub use counts::{Counts, LineCounts};
pub use fault::{Fault, FaultKind};
pub use launch::{Launch, Options};

pub(crate) use float::{Format, Function, Relation, Rounding, Style, from_integer, mma, round, to_integer, whole};
pub(crate) use launch::{Geometry, Worker};
pub(crate) use race::{Races, Touch};
pub(crate) use shuffle::{Shuffle, shuffle};
pub(crate) use traffic::{Addresses, Banks, sectors};

/// Returns the lanes of a mask.
pub(crate) fn ones(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}
