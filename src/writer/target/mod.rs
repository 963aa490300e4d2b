//! The destination: what is there already, who may write there, and files that get their names when they are complete.
//!
//! - `claim`: the right of a run to write there, and what is to be resumed;
//! - `ledger`: what is done;
//! - `file`: files that get their names when they are complete;
//! - `folder`: open folders, and names in them;
//! - `lock`: locks of the operating system;
//! - `place`: where a model may be written, and where its config goes.
//!
//! Anybody who may create files in the destination can tell the names that a run uses there. Therefore:
//!
//! - a new file is created exclusively, never adopted;
//! - a file that is resumed, locked or appended to must belong to this user, have one name, and not be writable by others
//!   ([`Folder::check_own`]);
//! - nothing is truncated or removed before its lock is held, except what is left of the parts of a folder that is complete;
//! - nothing is written through a link below the destination ([`Entry::below`]). Links that lead to the destination itself are the
//!   caller's and are followed.

mod claim;
mod file;
mod folder;
mod ledger;
mod lock;
mod place;

pub(crate) use claim::{
    Answer, Claim, Completion, RESTARTED, Request, check_marker, claim, has_unfinished, is_busy, is_marked,
    ledger_of_file, ledger_of_part, ledgers, parts_of, remove_ledgers, remove_named, unmark,
};
pub use file::NewFile;
pub(crate) use file::{
    Leftover, PartialFile, copy_file, is_copy, limit_of_file_size, temporary, unique_temporary, write_file, written_as,
};
pub(crate) use folder::{Entry, Folder, NewFolders};
pub(crate) use ledger::{Ledger, LeftGroup, Record};
pub(crate) use lock::{Locked, lock, lock_existing};
pub(crate) use place::{ConfigPlace, check as check_place, commit_with_config, differs, existing, refuse_existing};
