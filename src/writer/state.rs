//! What lies in the output folder while a model is being written, so that an interrupted run can be gone on with and
//! several machines can share one model.
//!
//! | file | what it says |
//! |---|---|
//! | `.df11-job.json` | that the folder is unfinished, and what is being written: source, patterns, options. A folder with it is refused by every reader of this library |
//! | `.df11-part-I-of-N.json` | what part I has found out, and whether it is finished. Locked while its process runs |
//! | `.df11-part-end.lock` | empty; locked by whoever completes the folder |
//! | `.NAME.df11-job` | for a single file: the same as the first and whether a file of that name may be replaced, then the groups that are on the disk, a line each |
//! | `.NAME.df11-tmp` | a file that is being written |

use super::journal;
use super::target::{
    Entry, Folder, Locked, NewFolders, limit_of_file_size, lock, unique_temporary, write_file, written_as,
};
use crate::error::{Error, Place, Result, shorten};
use crate::format::UNFINISHED;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// One of the parts that share a model: `number` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which one, 1 to `count`.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl Part {
    /// The whole model.
    pub const WHOLE: Part = Part { number: 1, count: 1 };

    /// Reads `I/N`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if that is not what it is.
    pub fn parse(text: &str) -> Result<Part> {
        let parsed = text.split_once('/').and_then(|(number, count)| {
            Some(Part { number: number.trim().parse().ok()?, count: count.trim().parse().ok()? })
        });
        let part = parsed.ok_or_else(|| {
            Error::InvalidArgument(format!("'{}' is no part: write it as I/N, such as 1/4", shorten(text, 40)))
        })?;
        part.check()?;
        Ok(part)
    }

    pub(super) fn check(self) -> Result<()> {
        if (1..=self.count).contains(&self.number) && self.count <= 100_000 {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "there is no part {} of {}: they are numbered from 1 to that, and 100000 are the most",
            self.number, self.count
        )))
    }

    /// Whether the group or file of that number is this part's.
    pub(super) fn has(self, number: usize) -> bool {
        number % self.count as usize == self.number as usize - 1
    }

    fn file(self) -> String {
        format!(".df11-part-{}-of-{}.json", self.number, self.count)
    }

    fn lock(self) -> String {
        format!("{}.lock", self.file())
    }
}

/// Why a group stays plain: its number in the plan and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftGroup {
    pub group: String,
    pub tensor: String,
    pub reason: String,
}

/// The part of a job that this process does.
pub(super) struct PartState {
    folder: PathBuf,
    part: Part,
    job: Value,
    /// Locked as long as this lives, so that no other process does the same.
    lock: Option<File>,
    pub left: Vec<LeftGroup>,
    pub finished: bool,
}

/// A lock that is held as long as this lives.
pub(super) struct Held(#[expect(dead_code, reason = "it is there to be dropped")] Option<File>);

impl Held {
    /// The lock of a part of a folder that could not be begun; `None` if another process has it, which then goes on with what there
    /// is.
    pub fn of_part(folder: &Path, part: Part) -> Option<Held> {
        let path = folder.join(part.lock());
        match File::open(&path) {
            Ok(lock) => {
                let named = Entry::at(&path)
                    .and_then(|e| e.folder.is_named(&lock, &e.name).map_err(|e| Error::io("open", &path, e)));
                (lock.try_lock().is_ok() && named.unwrap_or(false)).then_some(Held(Some(lock)))
            }
            // Nobody can have what is not there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Held(None)),
            Err(_) => None,
        }
    }

    /// The lock of an open file.
    pub fn copy_of(file: &File) -> Held {
        Held(file.try_clone().ok())
    }
}

/// Keeps others from completing the same folder, as long as it lives.
pub(super) struct End {
    entry: Entry,
    lock: File,
}

impl Drop for End {
    fn drop(&mut self) {
        // While it is locked: whoever opened it meanwhile finds that it has no name any more. Of a complete folder it is gone.
        if self.entry.folder.is_named(&self.lock, &self.entry.name).is_ok_and(|named| named) {
            let _ = self.entry.remove();
        }
    }
}

/// Keeps others from completing a model in a folder.
///
/// # Errors
///
/// `InvalidArgument` if another process does so right now.
pub(super) fn alone(folder: &Path) -> Result<End> {
    let path = folder.join(".df11-part-end.lock");
    let entry = Entry::at(&path)?;
    match lock(&entry).map_err(|e| Error::io("open", &path, e))? {
        Locked::Yes(lock) => Ok(End { entry, lock }),
        Locked::Busy => Err(being_written(folder, Part::WHOLE)),
    }
}

/// Begins to complete an unfinished folder.
///
/// # Errors
///
/// As [`alone`]; `InvalidArgument` if another process just has.
pub(super) fn begin_end(folder: &Path) -> Result<End> {
    let end = alone(folder)?;
    if folder.join(UNFINISHED).exists() {
        return Ok(end);
    }
    Err(Error::Busy(format!("another process has just completed '{}'", shorten(&folder.display().to_string(), 200))))
}

/// Text of a file, `None` if there is none.
fn read(path: &Path) -> Result<Option<String>> {
    let text = crate::format::read_text(path)?;
    Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// A folder that is being written.
pub(super) struct Begun {
    /// Whether this process has begun it.
    pub new: bool,
    /// What it has made for that.
    pub folders: NewFolders,
}

/// Says that a folder is being written, or finds that it is, by somebody who writes the same.
///
/// # Errors
///
/// `InvalidArgument` if it is not empty and not ours, or unfinished and not to be gone on with, or of another job.
pub(super) fn begin_folder(folder: &Path, job: &Value, resume: bool) -> Result<Begun> {
    let folders = NewFolders::make(folder)?;
    match mark(folder, job, resume) {
        Ok(new) => Ok(Begun { new, folders }),
        Err(error) => {
            folders.remove();
            Err(error)
        }
    }
}

/// Makes the file that says so, or finds it; returns whether it is new.
fn mark(folder: &Path, job: &Value, resume: bool) -> Result<bool> {
    let marker = folder.join(UNFINISHED);
    if read(&marker)?.is_none() {
        match must_be_empty(folder, None) {
            Ok(()) if write_job(&marker, job)? => return Ok(true),
            // Another part was faster.
            Ok(()) => {}
            // Another part may have begun in between, and finished a group: then all is well.
            Err(error) if read(&marker)?.is_none() => return Err(error),
            Err(_) => {}
        }
    }
    if !resume {
        let busy = File::open(folder.join(Part::WHOLE.lock()))
            .is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
        if busy {
            return Err(being_written(folder, Part::WHOLE));
        }
        check_job(&marker, job)?;
        return Err(Error::Unfinished(format!(
            "the folder '{}' is the unfinished output of an earlier run: go on with it, or remove it",
            shorten(&folder.display().to_string(), 200)
        )));
    }
    check_job(&marker, job).map(|()| false)
}

fn being_written(folder: &Path, part: Part) -> Error {
    let shown = shorten(&folder.display().to_string(), 200);
    Error::Busy(match part {
        Part::WHOLE => format!("another process is writing to '{shown}'"),
        Part { number, count } => format!("another process is writing part {number} of {count} to '{shown}'"),
    })
}

/// Fails if a folder has anything in it but hidden files: another part may be about to say what we are. A single file that
/// is unfinished is more than that: it would be written to by two, or lie in the folder as a part of the model; but for the one
/// whose journal is named `own`.
pub(super) fn must_be_empty(folder: &Path, own: Option<&OsStr>) -> Result<()> {
    let fail = |e| Error::io("list", folder, e);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.')
            || name == UNFINISHED
            || name.ends_with(journal::SUFFIX) && Some(&entry.file_name()[..]) != own
        {
            return Err(Error::InvalidArgument(format!(
                "the folder '{}' is not empty: it has '{}'",
                shorten(&folder.display().to_string(), 200),
                shorten(&name, 80)
            )));
        }
    }
    Ok(())
}

/// Fails if what is being written is something else.
pub(super) fn check_job(marker: &Path, job: &Value) -> Result<()> {
    let Some(text) = read(marker)? else {
        return Err(Error::InvalidArgument(format!(
            "'{}' is not there: nothing is being written here",
            shorten(&marker.display().to_string(), 200)
        )));
    };
    let place = Place::file(marker.display().to_string());
    let there: Value = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(place.clone(), format!("this is not what an unfinished run leaves: {e}")))?;
    let empty = serde_json::Map::new();
    let (there, job) = (there.as_object().unwrap_or(&empty), job.as_object().unwrap_or(&empty));
    match job.iter().find(|(key, value)| there.get(*key) != Some(value)) {
        None => Ok(()),
        Some((key, _)) => {
            let what = match &key[..] {
                "source" => "from another source".to_owned(),
                "patterns" => "with other patterns".to_owned(),
                "parts" => format!("in {} parts", there.get(key).and_then(Value::as_u64).unwrap_or_default()),
                "hashes" | "shapes" if there.get(key) == Some(&Value::Bool(true)) => format!("with {key}"),
                "hashes" | "shapes" => format!("without {key}"),
                _ => "by another version".to_owned(),
            };
            Err(Error::InvalidArgument(format!(
                "the unfinished output was begun {what}: go on in the same way, or remove it [{place}]"
            )))
        }
    }
}

/// Several may do so at once, each under a name of its own: the first to link it to the marker's has begun the folder, and
/// this says whether it was this one. (Where there are no links, the last rename wins.)
fn write_job(marker: &Path, job: &Value) -> Result<bool> {
    let entry = Entry::at(marker)?;
    let folder = &entry.folder;
    // Its ending is that of files that are removed when the folder is finished.
    let own = unique_temporary("job");
    let fail = |e| Error::io("write", marker, e);
    let text = job.to_string();
    let mut file = folder.create_new(&own, 0o644).map_err(fail)?;
    let written = limit_of_file_size(text.len() as u64).and_then(|()| file.write_all(text.as_bytes()));
    let named = written.and_then(|()| file.sync_all()).and_then(|()| match folder.link(&own, &entry.name) {
        Ok(()) => Ok(true),
        // Over a network, an answer that was lost and asked for again may say so of our own.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => folder.is_named(&file, &entry.name),
        Err(_) => folder.rename(&own, &entry.name).map(|()| true),
    });
    let named = named.map_err(fail);
    let _ = folder.remove(&own);
    folder.sync();
    named
}

impl PartState {
    /// Begins a part of a job, or finds what an earlier run of it left.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if another process is at it, or has begun another job at the same moment.
    pub fn begin(folder: &Path, part: Part, job: &Value, resume: bool) -> Result<PartState> {
        let path = folder.join(part.file());
        let fail = |e| Error::io("open", &path, e);
        let lock_path = folder.join(part.lock());
        let Locked::Yes(lock) = lock(&Entry::at(&lock_path)?).map_err(fail)? else {
            return Err(being_written(folder, part));
        };
        // Who had the lock until now may have completed the folder, or removed what it had begun.
        if !folder.join(UNFINISHED).exists() {
            let _ = std::fs::remove_file(&lock_path);
            return Err(Error::Busy(format!(
                "another process has just ended its work on '{}'",
                shorten(&folder.display().to_string(), 200)
            )));
        }
        check_job(&folder.join(UNFINISHED), job)?;
        let mut state = PartState {
            folder: folder.to_owned(),
            part,
            job: job.clone(),
            lock: Some(lock),
            left: Vec::new(),
            finished: false,
        };
        let there = match read(&path)? {
            Some(text) => state.parse(&path, &text)?,
            None => false,
        };
        match there {
            true if !resume => {
                return Err(Error::Unfinished(format!(
                    "part {} of {} was begun before in '{}': go on with it",
                    part.number,
                    part.count,
                    shorten(&folder.display().to_string(), 200)
                )));
            }
            true => {}
            false => state.save()?,
        }
        Ok(state)
    }

    /// Keeps the lock for as long as this lives, too.
    pub fn hold(&self) -> Held {
        self.lock.as_ref().map_or(Held(None), Held::copy_of)
    }

    /// What a part has left, for whoever puts all together.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is not finished.
    pub fn finished(folder: &Path, part: Part, job: &Value) -> Result<Vec<LeftGroup>> {
        let path = folder.join(part.file());
        let (folder, job) = (folder.to_owned(), job.clone());
        let mut state = PartState { folder, part, job, lock: None, left: Vec::new(), finished: false };
        if let Some(text) = read(&path)? {
            state.parse(&path, &text)?;
        }
        if !state.finished {
            return Err(Error::InvalidArgument(format!(
                "part {} of {} is not finished in '{}'",
                part.number,
                part.count,
                shorten(&state.folder.display().to_string(), 200)
            )));
        }
        Ok(state.left)
    }

    /// Takes what a note says, if it is of this job: one that a run which was killed at its very end has left may be of
    /// another. Returns whether it is.
    fn parse(&mut self, path: &Path, text: &str) -> Result<bool> {
        let invalid = || {
            let place = Place::file(path.display().to_string());
            Error::invalid(place, "this is not what an unfinished run leaves: remove it to do the part anew")
        };
        let json: Value = serde_json::from_str(text).map_err(|_| invalid())?;
        if json.get("job").ok_or_else(invalid)? != &self.job {
            return Ok(false);
        }
        self.finished = json["finished"].as_bool().ok_or_else(invalid)?;
        for left in json["left"].as_array().ok_or_else(invalid)? {
            let text = |key: &str| left[key].as_str().map(str::to_owned).ok_or_else(invalid);
            self.left.push(LeftGroup { group: text("group")?, tensor: text("tensor")?, reason: text("reason")? });
        }
        Ok(true)
    }

    /// Notes what was found out.
    pub fn save(&self) -> Result<()> {
        let left = |l: &LeftGroup| json!({ "group": l.group, "tensor": l.tensor, "reason": l.reason });
        let json = json!({ "job": self.job, "finished": self.finished, "left": self.left.iter().map(left).collect::<Vec<_>>() });
        write_file(&Entry::at(&self.folder.join(self.part.file()))?, json.to_string().as_bytes())
    }
}

/// How many parts an unfinished folder was begun in.
pub(super) fn parts_of(folder: &Path) -> Result<Option<u32>> {
    let json: Option<Value> = read(&folder.join(UNFINISHED))?.and_then(|text| serde_json::from_str(&text).ok());
    Ok(json.and_then(|json| json["parts"].as_u64()).map(|n| n as u32))
}

/// Removes what is there only while a folder is unfinished. `names` are those of the files that were written: temporaries of
/// others are not ours. What says that the folder is unfinished goes before the notes of the parts, without which a merge could
/// not be repeated; when it is gone, so is all that can fail.
pub(super) fn end_folder(folder: &Path, names: &HashSet<String>) -> Result<()> {
    let ours = |to: &str| names.contains(to) || to.starts_with(&UNFINISHED[1..]);
    let marker = folder.join(UNFINISHED);
    // When the marker is gone, nothing may fail.
    let open = Folder::open(folder)?;
    let temporaries = hidden(folder, |name| written_as(name).is_some_and(ours))?;
    for path in temporaries.iter().chain([&marker]) {
        std::fs::remove_file(path).map_err(|e| Error::io("remove", path, e))?;
    }
    open.sync();
    remove_notes(folder);
    Ok(())
}

/// What parts have noted in a folder.
pub(super) fn notes(folder: &Path) -> Result<Vec<PathBuf>> {
    hidden(folder, |name| name.starts_with(".df11-part-"))
}

/// Removes that from a folder that is complete. Locks go last, for until then nobody else begins.
pub(super) fn remove_notes(folder: &Path) {
    let mut notes = notes(folder).unwrap_or_default();
    notes.sort_by_key(|path| path.extension().is_some_and(|e| e == "lock"));
    for path in notes {
        if let Err(error) = std::fs::remove_file(&path) {
            log::warn!("the folder is complete, and '{}' is left: {error}", path.display());
        }
    }
}

/// The files of a folder whose names begin with a dot, and are meant.
fn hidden(folder: &Path, is_meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let fail = |e| Error::io("list", folder, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && is_meant(&name) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// After a failure of the run that has begun the folder and still holds its lock: if nothing was completed there is nothing to go on
/// with, and no trace is left. Otherwise all stays.
pub(super) fn clear_if_empty(folder: &Path, names: &HashSet<String>, made: &NewFolders) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let hidden = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let empty = entries.into_iter().all(|entry| entry.is_ok_and(hidden));
    if empty && end_folder(folder, names).is_ok() {
        made.remove();
    }
}

/// That a file of that name can be opened as one that holds this group; else why not.
pub(super) fn holds_group(path: &Path, group: &str) -> Result<()> {
    crate::format::Model::open_group(path, group).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_share_all_there_is() {
        assert_eq!(Part::parse("2/3").unwrap(), Part { number: 2, count: 3 });
        for bad in ["", "1", "0/1", "4/3", "a/b", "1/0", "-1/2", "1/100001"] {
            assert!(Part::parse(bad).is_err(), "{bad}");
        }
        for n in 0..20 {
            assert_eq!((1..=3).filter(|&number| Part { number, count: 3 }.has(n)).count(), 1);
        }
    }
}
