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

use super::output::{NewFolders, no_links, write_file};
use crate::error::{Error, Place, Result, shorten};
use crate::format::UNFINISHED;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
        match File::open(folder.join(part.lock())) {
            Ok(lock) => lock.try_lock().is_ok().then(|| Held(Some(lock))),
            // Nobody can have what is not there.
            Err(_) => Some(Held(None)),
        }
    }
}

/// Opens, or makes, a file whose name all know, and locks it; `None` if another process has. One that was removed while
/// this waited for nothing is no lock, for others would make and lock a new one: then this does, too. Not every file system can
/// lock, and none must.
fn lock_of(path: &Path, options: &mut OpenOptions) -> std::io::Result<Option<File>> {
    loop {
        let file = options.create(true).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Ok(None);
        }
        if is_named(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Whether an open file still has its name.
#[cfg(unix)]
fn is_named(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an open file still has its name. Here, it cannot lose it while it is open.
#[cfg(not(unix))]
fn is_named(_file: &File, _path: &Path) -> std::io::Result<bool> {
    Ok(true)
}

/// Keeps others from completing the same folder, as long as it lives.
pub(super) struct End {
    path: PathBuf,
    lock: File,
}

impl Drop for End {
    fn drop(&mut self) {
        // While it is locked: whoever opened it meanwhile finds that it has no name any more. Of a complete folder it is gone.
        if is_named(&self.lock, &self.path).is_ok_and(|named| named) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Begins to complete a folder.
///
/// # Errors
///
/// `InvalidArgument` if another process does so right now.
pub(super) fn begin_end(folder: &Path) -> Result<End> {
    let path = folder.join(".df11-part-end.lock");
    let lock = lock_of(&path, no_links().write(true).truncate(true)).map_err(|e| Error::io("open", &path, e))?;
    let end = End { path, lock: lock.ok_or_else(|| being_written(folder, Part::WHOLE))? };
    if folder.join(UNFINISHED).exists() {
        return Ok(end);
    }
    Err(Error::InvalidArgument(format!(
        "another process has just completed '{}'",
        shorten(&folder.display().to_string(), 200)
    )))
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
        match must_be_empty(folder) {
            Ok(()) => return write_job(&marker, job).map(|()| true),
            // Another part may have begun in between, and finished a group: then all is well.
            Err(error) if read(&marker)?.is_none() => return Err(error),
            Err(_) => {}
        }
    }
    if !resume {
        let busy = File::open(folder.join(Part::WHOLE.lock()))
            .is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
        return Err(if busy { being_written(folder, Part::WHOLE) } else { unfinished(folder) });
    }
    check_job(&marker, job).map(|()| false)
}

/// What is said of a folder that is to be begun and was before.
pub(super) fn unfinished(folder: &Path) -> Error {
    Error::Unfinished(format!(
        "the folder '{}' is the unfinished output of an earlier run: go on with it, or remove it",
        shorten(&folder.display().to_string(), 200)
    ))
}

fn being_written(folder: &Path, part: Part) -> Error {
    let shown = shorten(&folder.display().to_string(), 200);
    Error::InvalidArgument(match part {
        Part::WHOLE => format!("another process is writing to '{shown}'"),
        Part { number, count } => format!("another process is writing part {number} of {count} to '{shown}'"),
    })
}

/// How the name of a single file's journal ends.
const JOURNAL: &str = ".df11-job";

/// Fails if a folder has anything in it but hidden files: another part may be about to say what we are. A single file that
/// is unfinished is more than that: it would be written to by two, or lie in the folder as a part of the model.
pub(super) fn must_be_empty(folder: &Path) -> Result<()> {
    let fail = |e| Error::io("list", folder, e);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') || name == UNFINISHED || name.ends_with(JOURNAL) {
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

/// Several parts may do so at once, all with the same text: each under a name of its own, and the last rename wins.
fn write_job(marker: &Path, job: &Value) -> Result<()> {
    // Processes of several machines may have the same number (in containers it is mostly 1), so the time is in the name,
    // and the ending is that of files that are removed when the folder is finished.
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    let own = marker.with_file_name(format!("{UNFINISHED}-{}-{time}.df11-tmp", std::process::id()));
    let fail = |e| Error::io("write", &own, e);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&own).map_err(fail)?;
    let written = file.write_all(job.to_string().as_bytes()).and_then(|()| file.sync_all()).map_err(fail);
    let named = written.and_then(|()| std::fs::rename(&own, marker).map_err(|e| Error::io("write", marker, e)));
    if let Err(error) = named {
        let _ = std::fs::remove_file(&own);
        return Err(error);
    }
    super::output::sync_folder_of(marker);
    Ok(())
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
        let lock = lock_of(&lock_path, no_links().write(true).truncate(true)).map_err(fail)?;
        let lock = lock.ok_or_else(|| being_written(folder, part))?;
        // Who had the lock until now may have completed the folder, or removed what it had begun.
        if !folder.join(UNFINISHED).exists() {
            let _ = std::fs::remove_file(&lock_path);
            return Err(Error::InvalidArgument(format!(
                "another process has just ended its work on '{}'",
                shorten(&folder.display().to_string(), 200)
            )));
        }
        check_job(&folder.join(UNFINISHED), job)?;
        let mut state =
            PartState { folder: folder.to_owned(), part, lock: Some(lock), left: Vec::new(), finished: false };
        match read(&path)? {
            Some(_) if !resume => {
                return Err(Error::Unfinished(format!(
                    "part {} of {} was begun before in '{}': go on with it",
                    part.number,
                    part.count,
                    shorten(&folder.display().to_string(), 200)
                )));
            }
            Some(text) => state.parse(&path, &text)?,
            None => state.save()?,
        }
        Ok(state)
    }

    /// Keeps the lock for as long as this lives, too.
    pub fn hold(&self) -> Held {
        Held(self.lock.as_ref().and_then(|lock| lock.try_clone().ok()))
    }

    /// What a part has left, for whoever puts all together.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is not finished.
    pub fn finished(folder: &Path, part: Part) -> Result<Vec<LeftGroup>> {
        let path = folder.join(part.file());
        let mut state = PartState { folder: folder.to_owned(), part, lock: None, left: Vec::new(), finished: false };
        if let Some(text) = read(&path)? {
            state.parse(&path, &text)?;
        }
        if !state.finished {
            return Err(Error::InvalidArgument(format!(
                "part {} of {} is not finished in '{}'",
                part.number,
                part.count,
                shorten(&folder.display().to_string(), 200)
            )));
        }
        Ok(state.left)
    }

    fn parse(&mut self, path: &Path, text: &str) -> Result<()> {
        let invalid = || {
            let place = Place::file(path.display().to_string());
            Error::invalid(place, "this is not what an unfinished run leaves: remove it to do the part anew")
        };
        let json: Value = serde_json::from_str(text).map_err(|_| invalid())?;
        self.finished = json["finished"].as_bool().ok_or_else(invalid)?;
        for left in json["left"].as_array().ok_or_else(invalid)? {
            let text = |key: &str| left[key].as_str().map(str::to_owned).ok_or_else(invalid);
            self.left.push(LeftGroup { group: text("group")?, tensor: text("tensor")?, reason: text("reason")? });
        }
        Ok(())
    }

    /// Notes what was found out.
    pub fn save(&self) -> Result<()> {
        let left = |l: &LeftGroup| json!({ "group": l.group, "tensor": l.tensor, "reason": l.reason });
        let json = json!({ "finished": self.finished, "left": self.left.iter().map(left).collect::<Vec<_>>() });
        write_file(&self.folder.join(self.part.file()), json.to_string().as_bytes())
    }
}

/// How many parts an unfinished folder was begun in.
pub(super) fn parts_of(folder: &Path) -> Result<Option<u32>> {
    let json: Option<Value> = read(&folder.join(UNFINISHED))?.and_then(|text| serde_json::from_str(&text).ok());
    Ok(json.and_then(|json| json["parts"].as_u64()).map(|n| n as u32))
}

/// Removes what is there only while a folder is unfinished; what says that it is, last. `names` are those of the files that were
/// written: temporaries of others are not ours.
pub(super) fn end_folder(folder: &Path, names: &HashSet<String>) -> Result<()> {
    let fail = |e| Error::io("list", folder, e);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let written = super::output::written_as(&name);
        let ours = written.is_some_and(|to| names.contains(to) || to.starts_with(&UNFINISHED[1..]));
        if name.starts_with(".df11-part-") || ours {
            std::fs::remove_file(entry.path()).map_err(|e| Error::io("remove", entry.path(), e))?;
        }
    }
    let marker = folder.join(UNFINISHED);
    std::fs::remove_file(&marker).map_err(|e| Error::io("remove", &marker, e))?;
    super::output::sync_folder_of(&marker);
    Ok(())
}

/// After a failure of the run that has begun the folder and still holds its lock: if nothing was completed there is nothing to go on
/// with, and no trace is left. Otherwise all stays.
pub(super) fn clear_if_empty(folder: &Path, names: &HashSet<String>, made: &NewFolders) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let empty = entries.flatten().all(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    if empty && end_folder(folder, names).is_ok() {
        made.remove();
    }
}

/// Which groups of a single file are on the disk.
pub(super) struct Journal {
    path: PathBuf,
    /// The first line.
    head: String,
    /// Whether the run was begun as one that may replace a file of that name.
    pub replaces: bool,
    there: HashSet<String>,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal of a file to be written, or begins one, of a run that may replace a file of that name or not.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it is to be gone on with and is of another job, or if another process is at it.
    pub fn open(to: &Path, job: &Value, replaces: bool, resume: bool) -> Result<Journal> {
        let path = Self::path(to);
        let fail = |e| Error::io("open", &path, e);
        let file = lock_of(&path, no_links().read(true).append(true)).map_err(fail)?;
        let mut file = file.ok_or_else(|| Self::busy(to))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| {
            // One that this call has made is removed; it has the lock.
            if file.metadata().is_ok_and(|m| m.len() == 0) {
                let _ = std::fs::remove_file(&path);
            }
            fail(e)
        })?;
        let head = |replaces: bool| json!({ "job": job, "replaces": replaces }).to_string();
        // A first line that was cut off says nothing: the run was ended before it could do anything.
        if !text.contains('\n') {
            text.clear();
        }
        let first = text.lines().next();
        let was = [false, true].into_iter().find(|&replaces| first == Some(&head(replaces)[..]));
        let same = was.is_some();
        // What is on the disk is not thrown away unasked.
        let begun = has_a_group(&text);
        if begun && !resume {
            return Err(Error::Unfinished(format!(
                "'{}' is unfinished since an earlier run: go on with it, or remove '{}'",
                shorten(&to.display().to_string(), 200),
                shorten(&path.display().to_string(), 200)
            )));
        }
        if resume && !text.is_empty() && !same {
            return Err(Error::InvalidArgument(format!(
                "the unfinished '{}' was begun from another source or with other options: go on with the same ones, or remove '{}'",
                shorten(&to.display().to_string(), 200),
                shorten(&path.display().to_string(), 200)
            )));
        }
        let replaces = was.filter(|_| resume).unwrap_or(replaces);
        let (head, file) = (head(replaces), Mutex::new(file));
        let mut journal = Journal { path: path.clone(), head, replaces, there: HashSet::new(), file };
        if resume && same {
            // A line that was cut off by the interruption is of a group that is done again.
            let end = text.rfind('\n').map_or(0, |end| end + 1);
            journal.there = text[..end].lines().skip(1).map(str::to_owned).collect();
            journal.file.get_mut().unwrap_or_else(PoisonError::into_inner).set_len(end as u64).map_err(fail)?;
        } else if let Err(error) = journal.clear() {
            // Nothing was on the disk, and a beginning of a line is nothing to go on with.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(journal)
    }

    fn path(to: &Path) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        name.push(JOURNAL);
        to.with_file_name(name)
    }

    fn busy(to: &Path) -> Error {
        Error::InvalidArgument(format!("another process is writing '{}'", shorten(&to.display().to_string(), 200)))
    }

    /// Fails if another process writes to the file.
    pub fn check_free(to: &Path) -> Result<()> {
        match File::open(Self::path(to)).map(|file| file.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => Err(Self::busy(to)),
            _ => Ok(()),
        }
    }

    /// Keeps the lock for as long as this lives, too.
    pub fn hold(&self) -> Held {
        Held(self.file.lock().unwrap_or_else(PoisonError::into_inner).try_clone().ok())
    }

    /// Whether a group is on the disk.
    pub fn has(&self, group: &str) -> bool {
        self.there.contains(&json!(group).to_string())
    }

    /// Nothing is.
    pub fn clear(&self) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |e| Error::io("write", &self.path, e);
        file.set_len(0).map_err(fail)?;
        (&*file).write_all(format!("{}\n", self.head).as_bytes()).and_then(|()| file.sync_data()).map_err(fail)
    }

    /// A group is.
    pub fn add(&self, group: &str) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}\n", json!(group));
        (&*file)
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(|e| Error::io("write", &self.path, e))
    }

    /// Whether there is one.
    pub fn exists(to: &Path) -> bool {
        Self::path(to).is_file()
    }

    /// After a failure: if no group is on the disk there is nothing to go on with, and what was begun is removed. Whether
    /// that is so.
    pub fn remove_if_empty(to: &Path) -> bool {
        let path = Self::path(to);
        let empty = std::fs::read_to_string(&path).is_ok_and(|text| !has_a_group(&text));
        if empty {
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(super::output::temporary(to));
        }
        empty
    }

    /// The file is complete.
    pub fn remove(to: &Path) -> Result<()> {
        let path = Self::path(to);
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))
    }
}

/// Whether a journal says that a group is on the disk. A line that was cut off does not.
fn has_a_group(journal: &str) -> bool {
    journal.bytes().filter(|&byte| byte == b'\n').count() > 1
}

/// That a file of that name can be opened as one that holds this group; else why not.
pub(super) fn holds_group(path: &Path, group: &str) -> Result<()> {
    crate::format::Model::open_group(path, group).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two that open the same name never both have it, also where one removes it right then.
    #[cfg(unix)]
    #[test]
    fn a_lock_is_one_processs_alone() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (inside, had) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        let Some(lock) = lock_of(&path, no_links().write(true)).unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                        had.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        std::fs::remove_file(&path).unwrap();
                        drop(lock);
                    }
                });
            }
        });
        assert!(had.into_inner() > 0);
    }

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
