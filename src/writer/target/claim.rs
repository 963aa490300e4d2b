//! The claim of a run to its destination: that no other process writes there, and what is to be resumed.
//!
//! | file | what it is |
//! |---|---|
//! | `.df11-job.json` | the marker of a folder that is unfinished, with what is being written: source, patterns, options. Every reader of this library refuses such a folder |
//! | `.df11-part-I-of-N.df11-job` | the [ledger](super::ledger) of part I of a folder; a folder that is written by one process has one part |
//! | `.NAME.df11-job` | the ledger of the single file NAME |
//! | `.df11-part-end.lock` | empty; locked by whoever completes a folder |
//! | `.NAME.df11-tmp` | a file that is being written |
//!
//! A run holds the lock of its ledger from the beginning to its end. If it fails before anything is done, all that it has made is
//! removed again, before the lock is released.

use super::file::remove_left;
use super::ledger::{Ledger, Record, SUFFIX};
use super::{Entry, Folder, Locked, NewFolders, limit_of_file_size, lock, temporary, unique_temporary, written_as};
use crate::error::{Error, Place, Result, shorten_path};
use crate::format::{UNFINISHED, read_text};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// The beginning of the names of a folder's ledgers and locks.
const PART: &str = ".df11-part-";
/// The key of a job that is begun anew and not resumed.
pub(crate) const RESTARTED: &str = "restarted";
/// The lock of whoever completes a folder.
const END: &str = ".df11-part-end.lock";

/// The request of a run to write to a destination.
pub(crate) struct Request<'a> {
    /// The folder that is written to.
    pub folder: &'a Path,
    /// The name of the run's ledger in it.
    pub ledger: OsString,
    /// The job: source, patterns, options. Only the same job is resumed.
    pub job: &'a Value,
    /// The manner in which the job is written, which distinguishes runs that write the same job.
    pub manner: &'a str,
    /// True if the folder gets a marker, so that no reader takes it for a model.
    pub marked: bool,
    /// True if other processes write other parts of the same folder.
    pub shared: bool,
    /// True if the folder is the model's alone: it must be empty when the run begins.
    pub own_folder: bool,
    /// The unfinished file, if it stays after a failure so that it can be resumed.
    pub temporary: Option<OsString>,
    /// True if a file that is there may be replaced.
    pub replaces: bool,
    /// True to resume what an earlier run has left.
    pub resume: bool,
    /// True to remove what an earlier run of the same job has left, and to leave nothing after a failure.
    pub restart: bool,
}

/// The answer to a request.
pub(crate) enum Answer {
    /// Another process is writing there.
    Busy,
    /// An earlier run has left something, and resuming was not asked for.
    Unfinished,
    /// Nothing of an earlier run is there.
    Fresh(Claim),
    /// An earlier run has left something, and this run resumes it.
    Resumed(Claim),
}

/// The right to write to a destination, as long as this lives.
pub(crate) struct Claim {
    pub folder: Arc<Folder>,
    pub ledger: Ledger,
    /// True if a file that is there may be replaced.
    pub replaces: bool,
    undo: Undo,
    /// True if a failure leaves nothing, whatever is done by then.
    restart: bool,
}

/// The files and folders that a run has made, which are removed if it fails before anything is done.
struct Undo {
    folder: Arc<Folder>,
    /// The marker and the ledger.
    names: Vec<OsString>,
    /// The unfinished file.
    temporary: Option<OsString>,
    made: Option<NewFolders>,
}

impl Undo {
    fn run(&mut self) {
        if let Some(name) = self.temporary.take() {
            remove_left(&Entry { folder: self.folder.clone(), name });
        }
        for name in self.names.drain(..) {
            let _ = self.folder.remove(&name);
        }
        if let Some(made) = self.made.take() {
            made.remove();
        }
    }
}

impl Claim {
    /// Lets go of the destination, with all that is in it.
    pub fn keep(mut self) {
        self.undo.names.clear();
        self.undo.temporary = None;
        self.undo.made = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock is held until this is done.
        if self.ledger.is_empty() || self.restart {
            self.undo.run();
        }
    }
}

/// Claims a destination.
///
/// # Errors
///
/// `InvalidArgument` if the folder has something else in it, or an unfinished run of another job; `InvalidFormat` if the ledger
/// is none; `Io`.
pub(crate) fn claim(request: &Request) -> Result<Answer> {
    let made = NewFolders::make(request.folder)?;
    let answer = Folder::open(request.folder).and_then(|folder| Asked::new(request, folder).begin());
    match answer {
        Ok(Answer::Fresh(mut claim)) => {
            claim.undo.made = Some(made);
            return Ok(Answer::Fresh(claim));
        }
        Ok(Answer::Resumed(_)) => {}
        // Other runs may use what is there: folders that are not empty stay.
        _ => made.remove(),
    }
    answer
}

/// A request that is being answered.
struct Asked<'a> {
    request: &'a Request<'a>,
    folder: Arc<Folder>,
    /// The ledger's name in the folder.
    ledger: Entry,
}

/// The marker of a folder.
enum Mark {
    /// This run has made it, or needs none.
    New,
    /// It was there, for the same job.
    Found,
    /// It was there, and this run may not go on.
    Refused(Answer),
}

impl<'a> Asked<'a> {
    fn new(request: &'a Request<'a>, folder: Folder) -> Asked<'a> {
        let folder = Arc::new(folder);
        let ledger = Entry { folder: folder.clone(), name: request.ledger.clone() };
        Asked { request, folder, ledger }
    }

    fn begin(&self) -> Result<Answer> {
        let new = match self.mark()? {
            Mark::New => true,
            Mark::Found => false,
            Mark::Refused(answer) => return Ok(answer),
        };
        // A marker that parts share is not one part's to remove.
        let undo = new && self.request.marked && !self.request.shared;
        let mut file = match lock(&self.ledger) {
            Ok(Locked::Yes(file)) => file,
            Ok(Locked::Busy) => return Ok(Answer::Busy),
            Err(error) => {
                if undo {
                    self.unmark();
                }
                return Err(Error::io("open", self.ledger.path(), error));
            }
        };
        let mut answer = self.begin_locked(&mut file, new);
        match &mut answer {
            Ok(Answer::Fresh(claim)) => {
                if undo || self.request.restart {
                    claim.undo.names.insert(0, UNFINISHED.into());
                }
            }
            Ok(Answer::Resumed(_)) => {}
            _ => {
                // While it is locked. One that this call has created, or could not begin anew, says nothing.
                if undo {
                    let _ = self.folder.remove(OsStr::new(UNFINISHED));
                }
                if file.metadata().is_ok_and(|meta| meta.len() == 0) {
                    let _ = self.ledger.remove();
                }
            }
        }
        answer
    }

    /// Removes a new marker whose ledger could not be locked, unless another process has locked it since.
    fn unmark(&self) {
        let locked = lock(&self.ledger);
        if let Ok(Locked::Busy) = locked {
            return;
        }
        let _ = self.folder.remove(OsStr::new(UNFINISHED));
        if locked.is_ok() {
            let _ = self.ledger.remove();
        }
    }

    /// Marks the folder as unfinished, or finds that it is.
    fn mark(&self) -> Result<Mark> {
        let request = self.request;
        if !request.marked {
            return self.check_unmarked().map(|()| Mark::New);
        }
        if self.mark_new()? {
            return Ok(Mark::New);
        }
        if request.resume || request.shared || request.restart {
            return check_marker(request.folder, request.job).map(|()| Mark::Found);
        }
        if is_busy(&self.folder, &request.ledger) {
            return Ok(Mark::Refused(Answer::Busy));
        }
        check_marker(request.folder, request.job).map(|()| Mark::Refused(Answer::Unfinished))
    }

    /// Fails if a single file may not be written to the folder.
    fn check_unmarked(&self) -> Result<()> {
        let request = self.request;
        if is_marked(&self.folder) {
            return Err(Error::InvalidArgument(format!(
                "the folder '{}' is being written as one file per group, or was and is unfinished",
                shorten_path(request.folder)
            )));
        }
        // Before anything is written. Once more when nobody else can.
        if request.own_folder && !self.folder.has(&request.ledger) {
            must_be_empty(request.folder, None)?;
        }
        Ok(())
    }

    /// Marks a folder that has no marker. Returns whether this run has.
    fn mark_new(&self) -> Result<bool> {
        if is_marked(&self.folder) {
            return Ok(false);
        }
        match must_be_empty(self.request.folder, None) {
            // If another part was faster, this finds its marker.
            Ok(()) => write_marker(&self.folder, self.request.job),
            // Another part may have begun in between, and finished a group: then all is well.
            Err(_) if is_marked(&self.folder) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins or resumes the ledger, whose lock is held. `new`: there is no marker of an earlier run.
    fn begin_locked(&self, file: &mut File, new: bool) -> Result<Answer> {
        let request = self.request;
        if request.marked {
            // Whoever had the lock until now may have completed the folder, or removed what was begun.
            if !is_marked(&self.folder) {
                return Ok(Answer::Busy);
            }
            check_marker(request.folder, request.job)?;
        }
        let record = Record::parse(&Ledger::text(&self.ledger, file)?, &self.ledger.path())?;
        let file = file.try_clone().map_err(|e| Error::io("open", self.ledger.path(), e))?;
        if request.restart {
            return self.restart(file, &record, new).map(Answer::Fresh);
        }
        if !self.is_to_be_resumed(&record, new)? {
            return self.begin_anew(file).map(Answer::Fresh);
        }
        if request.resume { self.resume(file, record).map(Answer::Resumed) } else { Ok(Answer::Unfinished) }
    }

    /// Returns whether a ledger says something that is not thrown away.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is of another job.
    fn is_to_be_resumed(&self, record: &Record, new: bool) -> Result<bool> {
        let request = self.request;
        let same = record.head("job") == Some(request.job) && record.head("manner") == Some(&request.manner.into());
        if request.marked {
            // In a folder that has just been begun, or of another job, it is what a run that was killed at its very end has left.
            return Ok(!new && same);
        }
        // Nothing on the disk is thrown away unasked; and in a folder that is the model's, more than the file may be there.
        let something = request.resume || !record.is_empty() || request.own_folder;
        if record.head.is_none() || !something {
            return Ok(false);
        }
        if same {
            return Ok(true);
        }
        let there = record.head("job").unwrap_or(&Value::Null);
        let what = difference(there, request.job).unwrap_or_else(|| "in another way".to_owned());
        Err(begun_otherwise(&what, &self.ledger.path()))
    }

    /// Removes what an earlier run has left, and begins anew. Whatever else is in the folder stays, and is an error.
    fn restart(&self, file: File, record: &Record, new: bool) -> Result<Claim> {
        if !new {
            for name in hidden(&self.folder, |name| written_as(name).is_some())? {
                remove_left(&Entry { folder: self.folder.clone(), name });
            }
            record.files.iter().try_for_each(|path| remove_named(&self.folder, Path::new(path)))?;
            if let Err(error) = has_nothing(self.request.folder, |_, shown| !shown.starts_with('.')) {
                // Of the earlier run nothing is left, so nothing is unfinished.
                let _ = self.folder.remove(OsStr::new(UNFINISHED));
                let _ = self.ledger.remove();
                return Err(error);
            }
        }
        self.begin_anew(file)
    }

    fn begin_anew(&self, file: File) -> Result<Claim> {
        let request = self.request;
        if request.own_folder && !request.marked {
            must_be_empty(request.folder, Some(&request.ledger))?;
        }
        let head = json!({ "job": request.job, "manner": request.manner, "replaces": request.replaces });
        let ledger = Ledger::begin(self.ledger.clone(), file, &head)?;
        let (folder, undo) = (self.folder.clone(), self.undo(true));
        Ok(Claim { folder, ledger, replaces: request.replaces, undo, restart: request.restart })
    }

    fn resume(&self, file: File, record: Record) -> Result<Claim> {
        let request = self.request;
        let replaces = record.head("replaces") == Some(&Value::Bool(true));
        let ledger = Ledger::resume(self.ledger.clone(), file, record)?;
        // In a folder of its own, an earlier run may have written more than this one knows of.
        let undo = self.undo(!request.marked && !request.own_folder);
        Ok(Claim { folder: self.folder.clone(), ledger, replaces, undo, restart: false })
    }

    fn undo(&self, anything: bool) -> Undo {
        Undo {
            folder: self.folder.clone(),
            names: Vec::from_iter(anything.then(|| self.request.ledger.clone())),
            temporary: self.request.temporary.clone().filter(|_| anything),
            made: None,
        }
    }
}

/// Returns whether another process has locked the ledger of a name.
pub(crate) fn is_busy(folder: &Folder, ledger: &OsStr) -> bool {
    let locked = folder.open_to_read(ledger).map(|file| file.try_lock());
    matches!(locked, Ok(Err(std::fs::TryLockError::WouldBlock)))
}

/// Keeps others from completing a folder, as long as this lives.
pub(crate) struct Completion {
    entry: Entry,
    lock: File,
}

impl Completion {
    /// Begins to complete a folder. Returns `None` if another process does.
    pub fn begin(folder: &Arc<Folder>) -> Result<Option<Completion>> {
        let entry = Entry { folder: folder.clone(), name: END.into() };
        match lock(&entry).map_err(|e| Error::io("open", entry.path(), e))? {
            Locked::Yes(lock) => Ok(Some(Completion { entry, lock })),
            Locked::Busy => Ok(None),
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // While it is locked: whoever opened it meanwhile finds that it has no name any more. Of a complete folder it is gone.
        if self.entry.folder.is_named(&self.lock, &self.entry.name).is_ok_and(|named| named) {
            let _ = self.entry.remove();
        }
    }
}

/// Returns whether a folder is marked as unfinished.
pub(crate) fn is_marked(folder: &Folder) -> bool {
    folder.has(OsStr::new(UNFINISHED))
}

/// Fails if what is being written to a folder is something else, or nothing.
pub(crate) fn check_marker(folder: &Path, job: &Value) -> Result<()> {
    let marker = folder.join(UNFINISHED);
    let Some(there) = read_marker(&marker)? else {
        return Err(Error::InvalidArgument(format!(
            "'{}' is not there: nothing is being written here",
            shorten_path(&marker)
        )));
    };
    match difference(&there, job) {
        None => Ok(()),
        Some(what) => Err(begun_otherwise(&what, &marker)),
    }
}

/// Returns in how many parts an unfinished folder was begun.
pub(crate) fn parts_of(folder: &Path) -> Result<Option<u32>> {
    let parts = |job: Value| job["parts"].as_u64().and_then(|n| u32::try_from(n).ok());
    Ok(read_marker(&folder.join(UNFINISHED))?.and_then(parts))
}

fn read_marker(marker: &Path) -> Result<Option<Value>> {
    let Some(text) = read_text(marker)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        let place = Place::of(marker);
        Error::invalid(place, format!("this is not what an unfinished run leaves: {e}"))
    })
}

/// Returns what distinguishes the job that was begun from this one, if anything does.
fn difference(there: &Value, job: &Value) -> Option<String> {
    match (there.get(RESTARTED), job.get(RESTARTED)) {
        (None, Some(_)) => return Some("by a compression".to_owned()),
        (Some(_), None) => return Some("by a run that decompresses or repacks".to_owned()),
        _ => {}
    }
    let (key, _) = job.as_object()?.iter().find(|(key, value)| there.get(key) != Some(value))?;
    Some(match &key[..] {
        "source" => "from another source".to_owned(),
        "patterns" => "with other patterns".to_owned(),
        "parts" => format!("in {} parts", there.get(key).and_then(Value::as_u64).unwrap_or_default()),
        "hashes" | "shapes" if there.get(key) == Some(&Value::Bool(true)) => format!("with {key}"),
        "hashes" | "shapes" => format!("without {key}"),
        "runs" => "with other tensors in runs".to_owned(),
        _ => "by another version".to_owned(),
    })
}

fn begun_otherwise(what: &str, note: &Path) -> Error {
    let place = Place::of(note);
    Error::InvalidArgument(format!(
        "the unfinished output was begun {what}: resume it in the same way, or remove it [{place}]"
    ))
}

/// Fails if a folder has anything in it except hidden files: another part may be about to say what this run is. An unfinished
/// single file is not allowed, either, unless its ledger is the run's own: it would become a part of the model.
fn must_be_empty(folder: &Path, own: Option<&OsStr>) -> Result<()> {
    let of_a_file =
        |name: &OsStr, shown: &str| shown.ends_with(SUFFIX) && !shown.starts_with(PART) && Some(name) != own;
    has_nothing(folder, |name, shown| !shown.starts_with('.') || shown == UNFINISHED || of_a_file(name, shown))
}

/// Fails if a folder has a file that counts, which is given by its name twice: as it is, and as a text.
fn has_nothing(folder: &Path, counts: impl Fn(&OsStr, &str) -> bool) -> Result<()> {
    let fail = |e| Error::io("list", folder, e);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let shown = name.to_string_lossy();
        if counts(&name, &shown) {
            return Err(Error::NotEmpty { folder: folder.to_owned(), name: shown.into_owned() });
        }
    }
    Ok(())
}

/// Removes a file below a folder, what is left under its temporary name, and the folders on the way that are then empty.
pub(crate) fn remove_named(folder: &Arc<Folder>, path: &Path) -> Result<()> {
    let Some(entry) = Entry::below(folder, path)? else { return Ok(()) };
    remove_left(&entry.beside(temporary(path).file_name().unwrap_or_default()));
    match entry.remove() {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", entry.path(), e)),
        _ => {}
    }
    for above in path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty()) {
        if let Some(entry) = Entry::below(folder, above)? {
            let _ = entry.folder.remove_folder(&entry.name);
        }
    }
    Ok(())
}

/// Writes the marker. Several processes may do so at once, each under a name of its own: the first one that links it to the
/// marker's name has begun the folder. Returns whether it was this one. (Where there are no links, the last rename wins.)
fn write_marker(folder: &Folder, job: &Value) -> Result<bool> {
    let marker = OsStr::new(UNFINISHED);
    // Its ending is that of files that are removed when the folder is complete.
    let own = unique_temporary("job");
    let fail = |e| Error::io("write", folder.path().join(marker), e);
    let text = job.to_string();
    let mut file = folder.create_new(&own, 0o644).map_err(fail)?;
    let written = limit_of_file_size(text.len() as u64).and_then(|()| file.write_all(text.as_bytes()));
    let named = written.and_then(|()| file.sync_all()).and_then(|()| match folder.link(&own, marker) {
        Ok(()) => Ok(true),
        // Over a network, an answer that was lost and asked for again may say so of this process's own.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => folder.is_named(&file, marker),
        Err(_) => folder.rename(&own, marker).map(|()| true),
    });
    let _ = folder.remove(&own);
    folder.sync();
    named.map_err(fail)
}

/// Removes what is in a folder only while it is unfinished. `names` are those of the files that were written: temporary files of
/// others stay. The marker goes before the ledgers of the parts, without which a merge could not be repeated; when it is gone, so
/// is all that can fail.
pub(crate) fn unmark(folder: &Folder, names: &HashSet<OsString>) -> Result<()> {
    let marker = OsStr::new(UNFINISHED);
    let ours =
        |to: &str| names.contains(OsStr::new(to)) || ["df11-job-", "df11-probe-"].iter().any(|s| to.starts_with(s));
    let temporaries = hidden(folder, |name| written_as(name).is_some_and(ours))?;
    for name in temporaries.iter().map(|name| &name[..]).chain([marker]) {
        match folder.remove(name) {
            // Another process has removed its own.
            Err(e) if e.kind() == io::ErrorKind::NotFound && name != marker => {}
            removed => removed.map_err(|e| Error::io("remove", folder.path().join(name), e))?,
        }
    }
    folder.sync();
    remove_ledgers(folder);
    Ok(())
}

/// Returns the names of the ledgers and locks of parts in a folder.
pub(crate) fn ledgers(folder: &Folder) -> Result<Vec<OsString>> {
    hidden(folder, |name| name.starts_with(PART))
}

/// Removes the ledgers and locks of parts from a folder that is complete.
pub(crate) fn remove_ledgers(folder: &Folder) {
    for name in ledgers(folder).unwrap_or_default() {
        if let Err(error) = folder.remove(&name) {
            log::warn!("the folder is complete, and '{}' is left: {error}", folder.path().join(&name).display());
        }
    }
}

/// Returns the names in a folder that begin with a dot and are meant.
fn hidden(folder: &Folder, is_meant: impl Fn(&str) -> bool) -> Result<Vec<OsString>> {
    let fail = |e| Error::io("list", folder.path(), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.path()).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with('.') && is_meant(name)) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Returns whether a folder has something that an earlier run has left to be resumed: a marker, or the ledger of a single file.
pub(crate) fn has_unfinished(folder: &Path) -> bool {
    let Ok(folder) = Folder::open(folder) else { return false };
    is_marked(&folder) || hidden(&folder, |name| name.ends_with(SUFFIX)).is_ok_and(|names| !names.is_empty())
}

/// Returns the name of the ledger of a single file.
pub(crate) fn ledger_of_file(name: &OsStr) -> OsString {
    let mut ledger = OsString::from(".");
    ledger.push(name);
    ledger.push(SUFFIX);
    ledger
}

/// Returns the name of the ledger of a part.
pub(crate) fn ledger_of_part(number: u32, count: u32) -> OsString {
    format!("{PART}{number}-of-{count}{SUFFIX}").into()
}
