//! The destination: what is there already, who may write there, and files that get their names when they are complete.
//!
//! Anybody who may create files in the destination can tell the names that a run uses there. Therefore:
//!
//! - a new file is created exclusively, never adopted;
//! - a file that is resumed, locked or appended to must belong to this user, have one name, and not be writable by others
//!   ([`Folder::check_own`]);
//! - nothing is truncated or removed before its lock is held;
//! - no link below the destination is followed ([`Entry::below`]). Links that lead to the destination itself are the
//!   caller's and are followed.

mod file;
mod folder;
mod lock;

pub use file::reserve;
pub(crate) use file::{
    PartialFile, copy_file, is_copy, limit_of_file_size, temporary, unique_temporary, write_file, written_as,
};
pub(crate) use folder::{Entry, Folder, NewFolders};
pub(crate) use lock::{Locked, lock};
