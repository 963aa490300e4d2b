//! The ledger of a run: what is being written, and what of it is done.
//!
//! A run has one ledger, whether it writes a folder, a part of one, or a single file. It is a file of lines, each a JSON object:
//!
//! ```text
//! {"job":…,"manner":…,"replaces":false}       the first: what is written, how, and whether a file may be replaced
//! {"group":"model.layers.0"}                  a group is on the disk
//! {"file":"tokenizer.json"}                   a file that goes with the model is there
//! {"void":true}                               the groups before this line are on the disk no longer
//! {"left":"…","tensor":"…","reason":"…"}      a group stays plain
//! {"finished":true}                           all is done; the "left" lines since the last such line are all that stays plain
//! ```
//!
//! Lines are only ever appended, under the lock of the file that the run holds ([`Claim`](super::claim::Claim)). A line that was
//! cut off by an interruption says nothing, and is cut away before the next one is written.

use super::{Entry, limit_of_file_size};
use crate::error::{Error, Place, Result};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The ending of a ledger's name.
pub(crate) const SUFFIX: &str = ".df11-job";

/// A group that stays plain, with the tensor that makes it so and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftGroup {
    pub group: String,
    pub tensor: String,
    pub reason: String,
}

/// The content of a ledger.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The first line, if there is a whole one.
    pub head: Option<Value>,
    groups: HashSet<String>,
    /// Files that go with the model, by their paths below the folder.
    pub files: Vec<String>,
    /// Groups that stay plain, if `finished` is set.
    pub left: Vec<LeftGroup>,
    pub finished: bool,
    /// Bytes of the lines that are whole.
    bytes: u64,
}

impl Record {
    /// Reads the text of a ledger.
    ///
    /// # Errors
    ///
    /// `InvalidFormat` if its first line is whole and not that of a ledger.
    pub fn parse(text: &str, path: &Path) -> Result<Record> {
        let mut record = Record::default();
        let mut left = Vec::new();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let json: Option<Value> = serde_json::from_str(line).ok();
            if record.head.is_none() {
                let head = json.filter(|json| json.get("job").is_some() && json.get("manner").is_some());
                record.head = Some(head.ok_or_else(|| {
                    let place = Place::of(path);
                    Error::invalid(place, "this is not what an unfinished run leaves: remove it to begin anew")
                })?);
            } else if json.is_none_or(|json| !record.add(&json, &mut left)) {
                // A power cut may leave anything where lines were not on the disk yet.
                break;
            }
            record.bytes += line.len() as u64;
        }
        Ok(record)
    }

    /// Takes what a line says. Returns whether it says anything.
    fn add(&mut self, line: &Value, left: &mut Vec<LeftGroup>) -> bool {
        let text = |key: &str| line.get(key)?.as_str().map(str::to_owned);
        if let Some(group) = text("group") {
            self.groups.insert(group);
        } else if let Some(file) = text("file") {
            self.files.push(file);
        } else if line["void"] == true {
            self.groups.clear();
        } else if let Some(group) = text("left") {
            let text = |key| text(key).unwrap_or_default();
            left.push(LeftGroup { group, tensor: text("tensor"), reason: text("reason") });
        } else if line["finished"] == true {
            (self.left, self.finished) = (std::mem::take(left), true);
        } else {
            return false;
        }
        true
    }

    /// Reads a ledger that another run may be writing to. One that is not there says nothing.
    pub fn read(path: &Path) -> Result<Record> {
        let text = crate::format::read_text(path)?.unwrap_or_default();
        Record::parse(&String::from_utf8_lossy(&text), path)
    }

    /// Returns whether nothing is done yet.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.files.is_empty()
    }

    /// Returns the value of a key of the first line.
    pub fn head(&self, key: &str) -> Option<&Value> {
        self.head.as_ref()?.get(key)
    }
}

/// The ledger of this run, locked.
pub(crate) struct Ledger {
    entry: Entry,
    file: Mutex<File>,
    /// Groups that an earlier run has noted.
    earlier: HashSet<String>,
    /// True if nothing is done yet.
    empty: AtomicBool,
    /// True if files that go with the model are there.
    files: AtomicBool,
}

impl Ledger {
    /// Reads the text of an open ledger.
    pub fn text(entry: &Entry, file: &mut File) -> Result<String> {
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|e| Error::io("read", entry.path(), e))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Begins a ledger anew. Its file is locked. After an error it is empty.
    pub fn begin(entry: Entry, mut file: File, head: &Value) -> Result<Ledger> {
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(|e| Error::io("write", entry.path(), e))?;
        let (file, empty, files) = (Mutex::new(file), AtomicBool::new(true), AtomicBool::new(false));
        let ledger = Ledger { entry, file, earlier: HashSet::new(), empty, files };
        if let Err(error) = ledger.append(head, true) {
            let _ = ledger.file.into_inner().unwrap_or_else(PoisonError::into_inner).set_len(0);
            return Err(error);
        }
        Ok(ledger)
    }

    /// Resumes a ledger that says this. Its file is locked.
    pub fn resume(entry: Entry, mut file: File, record: Record) -> Result<Ledger> {
        file.set_len(record.bytes)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|e| Error::io("write", entry.path(), e))?;
        let (empty, files) = (AtomicBool::new(record.is_empty()), AtomicBool::new(!record.files.is_empty()));
        Ok(Ledger { entry, file: Mutex::new(file), earlier: record.groups, empty, files })
    }

    fn append(&self, line: &Value, sync: bool) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (line, fail) = (format!("{line}\n"), |e| Error::io("write", self.entry.path(), e));
        let end = file.metadata().map_err(fail)?.len() + line.len() as u64;
        limit_of_file_size(end).and_then(|()| file.write_all(line.as_bytes())).map_err(fail)?;
        if sync { file.sync_data().map_err(fail) } else { Ok(()) }
    }

    /// Returns whether an earlier run has noted a group.
    pub fn has(&self, group: &str) -> bool {
        self.earlier.contains(group)
    }

    /// Returns whether an earlier run has noted any group.
    pub fn has_any(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// Notes that a group is on the disk. With `sync` the note is on the disk, too, when this returns: that is not needed where
    /// a file with a name says the same.
    pub fn group(&self, group: &str, sync: bool) -> Result<()> {
        if !sync {
            // It is there, whether it can be noted or not.
            self.empty.store(false, Ordering::Relaxed);
        }
        self.append(&json!({ "group": group }), sync)?;
        self.empty.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that a file that goes with the model is there.
    pub fn carried(&self, path: &Path) -> Result<()> {
        self.files.store(true, Ordering::Relaxed);
        self.empty.store(false, Ordering::Relaxed);
        self.append(&json!({ "file": path.to_string_lossy() }), false)
    }

    /// Notes that a file is about to get its name, and brings the note to the disk: whoever finds it after a kill removes the file.
    pub fn naming(&self, path: &Path) -> Result<()> {
        self.append(&json!({ "file": path.to_string_lossy() }), true)
    }

    /// Notes that the groups noted by an earlier run are on the disk no longer.
    pub fn void(&self) -> Result<()> {
        self.append(&json!({ "void": true }), true)?;
        self.empty.store(!self.files.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }

    /// Notes that all is done, and which groups stay plain.
    pub fn finish(&self, left: &[LeftGroup]) -> Result<()> {
        for LeftGroup { group, tensor, reason } in left {
            self.append(&json!({ "left": group, "tensor": tensor, "reason": reason }), false)?;
        }
        self.append(&json!({ "finished": true }), true)
    }

    /// Returns whether nothing is done yet.
    pub fn is_empty(&self) -> bool {
        self.empty.load(Ordering::Relaxed)
    }

    /// Removes the file. It stays locked as long as this lives.
    pub fn remove(&self) -> std::io::Result<()> {
        match self.entry.remove() {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> PathBuf {
        self.entry.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"job\":1,\"manner\":\"file\",\"replaces\":false}\n";

    fn parse(lines: &str) -> Record {
        Record::parse(&format!("{HEAD}{lines}"), Path::new("x")).unwrap()
    }

    #[test]
    fn lines_that_are_cut_off_or_unknown_say_nothing() {
        assert!(Record::parse("", Path::new("x")).unwrap().head.is_none());
        assert!(Record::parse("{\"job\":1", Path::new("x")).unwrap().head.is_none());
        for bad in ["{\n", "[]\n", "{\"job\":1}\n", "x\n"] {
            assert!(Record::parse(bad, Path::new("x")).is_err(), "{bad}");
        }
        let whole = "{\"group\":\"a\"}\n{\"group\":\"b\"}\n";
        for cut in ["", "{\"group\":\"c\"}", "{\"gro", "\0\0\0\n{\"group\":\"c\"}\n", "{\"other\":1}\n"] {
            let record = parse(&format!("{whole}{cut}"));
            assert_eq!(record.groups, ["a", "b"].map(str::to_owned).into(), "{cut:?}");
            assert_eq!(record.bytes as usize, HEAD.len() + whole.len());
        }
        assert!(parse("{\"left\":\"a\"}\n").is_empty() && !parse("{\"file\":\"a\"}\n").is_empty());
        assert!(parse("{\"group\":\"a\"}\n{\"void\":true}\n").is_empty());
    }

    /// A part that is done once more says anew what it leaves.
    #[test]
    fn the_last_word_on_what_is_left_counts() {
        let line = |group: &str| format!("{{\"left\":\"{group}\",\"tensor\":\"t\",\"reason\":\"r\"}}\n");
        let end = "{\"finished\":true}\n";
        let names = |record: Record| record.left.into_iter().map(|left| left.group).collect::<Vec<_>>();
        assert!(!parse(&line("a")).finished);
        assert_eq!(names(parse(&format!("{}{}{end}", line("a"), line("b")))), ["a", "b"]);
        assert_eq!(names(parse(&format!("{}{end}{}{end}", line("a"), line("b")))), ["b"]);
        assert_eq!(names(parse(&format!("{}{end}{}", line("a"), line("b")))), ["a"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::at(&folder.path().join("ledger")).unwrap();
        let head = json!({ "job": { "a": 1 }, "manner": "file", "replaces": true });
        let ledger = Ledger::begin(entry.clone(), entry.folder.create_new(&entry.name, 0o644).unwrap(), &head).unwrap();
        assert!(ledger.is_empty());
        ledger.group("x\n\"", true).unwrap();
        let left = LeftGroup { group: "y".into(), tensor: "z".into(), reason: "…".into() };
        ledger.finish(std::slice::from_ref(&left)).unwrap();
        drop(ledger);
        let record = Record::read(&entry.path()).unwrap();
        assert!(record.head == Some(head) && record.finished && record.left == [left] && !record.is_empty());
        let ledger = Ledger::resume(entry.clone(), entry.folder.open_existing(&entry.name).unwrap(), record).unwrap();
        assert!(ledger.has("x\n\"") && !ledger.has("y") && !ledger.is_empty());
        ledger.void().unwrap();
        drop(ledger);
        assert!(Record::read(&entry.path()).unwrap().is_empty());
    }
}
