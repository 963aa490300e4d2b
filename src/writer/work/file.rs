//! The steps of a file: it is laid out when all its groups are counted, and then written, or taken over from an earlier run.

use super::engine::{Engine, Memory, Message, OutFile, lock};
use super::group::{FileSink, Live};
use super::lay_out::{LaidOut, SizedGroup, lay_out};
use super::tasks::Kind;
use super::{GroupSpec, PIECE, PartialFile, Segment, Unfit};
use crate::error::{Error, Result, grow};
use crate::format::{GROUPS_KEY, HASHES_KEY, Member, SHAPES_KEY, read_exact_at};
use crate::writer::target::{Entry, Leftover};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file that is laid out and worked on.
pub(super) struct Writing {
    laid_out: Arc<LaidOut>,
    out: Out,
}

/// The place of a file's bytes.
#[derive(Clone)]
pub(super) enum Out {
    /// In a file that is written.
    New(Arc<PartialFile>),
    /// In a complete one of an earlier run, which is only compared.
    Found(Arc<File>),
}

impl Engine<'_> {
    /// Lays out a file of which everything is known, and begins the rest of its work.
    #[inline(never)]
    pub(super) fn lay_out(&self, number: usize) -> Result<()> {
        let file = &self.files[number];
        let spec = &file.spec;
        self.leave_whole_tensors(&spec.groups);
        let (mut fit, mut plain) = (Vec::new(), spec.plain.clone());
        for &g in &spec.groups {
            let group = &self.groups[g];
            match lock(&group.live).outline.clone() {
                Some(outline) => {
                    let bytes = Member::ALL.map(|member| outline.bytes(member));
                    fit.push(SizedGroup { number: g, name: &group.spec.name, bytes });
                }
                None if group.spec.run_of().is_some_and(|tensor| plain.contains(&tensor)) => {}
                None => plain.extend(group.spec.tensors()),
            }
        }
        if fit.is_empty() && !spec.groups.is_empty() && spec.named {
            // Its tensors go elsewhere, and an earlier run may have made it from another source.
            if spec.resume {
                remove(&spec.path)?;
            }
            return self.complete(number, None);
        }
        let laid_out = Arc::new(lay_out(self.model, &fit, &plain, &self.metadata(file, &fit, &plain))?);
        if !spec.named {
            return self.resume(number, laid_out);
        }
        match if spec.resume { find(&spec.path, &laid_out)? } else { None } {
            Some(found) => self.start(number, laid_out, Out::Found(Arc::new(found)), |_| true),
            None => self.write(number, laid_out),
        }
    }

    /// Leaves all runs of a tensor plain if one of them is unfit, because no tensor is in groups in parts.
    fn leave_whole_tensors(&self, groups: &[usize]) {
        // All runs of a tensor are in one file. Whatever else stays plain need not be looked through for each file.
        let is_unfit_run = |&g: &usize| self.groups[g].spec.is_run && lock(&self.groups[g].live).outline.is_none();
        if !groups.iter().any(is_unfit_run) {
            return;
        }
        let unfit: HashMap<usize, Unfit> = lock(&self.unfit)
            .iter()
            .filter_map(|unfit| Some((self.groups[unfit.group].spec.run_of()?, unfit.clone())))
            .collect();
        for &g in groups {
            let group = &self.groups[g];
            let Some(of_tensor) = group.spec.run_of().and_then(|tensor| unfit.get(&tensor)) else { continue };
            if lock(&group.live).outline.take().is_some() {
                lock(&self.unfit).push(Unfit { group: g, ..of_tensor.clone() });
                self.progress.set_back(self.whole_share(Kind::Count, group));
            }
        }
    }

    /// Returns the metadata of a file's header.
    fn metadata(&self, file: &OutFile, fit: &[SizedGroup], plain: &[usize]) -> BTreeMap<String, String> {
        let mut metadata = file.spec.metadata.clone();
        let specs = || fit.iter().map(|group| self.groups[group.number].spec);
        let packed = || specs().flat_map(GroupSpec::tensors);
        let name = |t: usize| self.model.tensor_at(t).name().to_owned();
        let with_shape = |spec: &&GroupSpec| self.settings.shapes || spec.is_run;
        if specs().any(|spec| with_shape(&spec)) {
            let tensors = specs().filter(with_shape).flat_map(GroupSpec::tensors);
            let shapes: BTreeMap<String, &[u64]> =
                tensors.map(|t| (name(t), self.model.tensor_at(t).shape())).collect();
            metadata.insert(SHAPES_KEY.into(), serde_json::json!(shapes).to_string());
        }
        if specs().any(|spec| spec.is_run) {
            let runs = |spec: &GroupSpec| {
                let run = |segment: &Segment| (name(segment.tensor), segment.first);
                (spec.name.clone(), spec.segments.iter().map(run).collect::<Vec<_>>())
            };
            let groups: BTreeMap<_, _> = specs().filter(|spec| spec.is_run).map(runs).collect();
            metadata.insert(GROUPS_KEY.into(), serde_json::json!(groups).to_string());
        }
        if self.settings.hashes {
            let hashes = lock(&file.hashes);
            let of = |t: usize| Some((name(t), hashes.get(&t)?.clone()));
            let all: BTreeMap<String, String> = packed().chain(plain.iter().copied()).filter_map(of).collect();
            metadata.insert(HASHES_KEY.into(), serde_json::json!(all).to_string());
        }
        metadata
    }

    /// Writes a new file.
    fn write(&self, number: usize, laid_out: Arc<LaidOut>) -> Result<()> {
        let to = Entry::at(&self.files[number].spec.path)?;
        let out = PartialFile::create(&to, laid_out.file.bytes(), Leftover::Removed)?;
        out.write_at(0, laid_out.file.header())?;
        self.start(number, laid_out, Out::New(Arc::new(out)), |_| false)
    }

    /// Writes a file whose groups an earlier run may have written to it and noted in the ledger.
    fn resume(&self, number: usize, laid_out: Arc<LaidOut>) -> Result<()> {
        let to = Entry::at(&self.files[number].spec.path)?;
        let noted = self.ledger.filter(|ledger| ledger.has_any());
        let leftover = if noted.is_some() { Leftover::Resumed } else { Leftover::Kept };
        let out = PartialFile::create(&to, laid_out.file.bytes(), leftover)?;
        let same = out.starts_with(laid_out.file.header());
        if let (false, Some(ledger)) = (same, noted) {
            ledger.void()?;
        }
        out.write_at(0, laid_out.file.header())?;
        let is_there = |g: usize| same && noted.is_some_and(|ledger| ledger.has(&self.groups[g].spec.name));
        self.start(number, laid_out, Out::New(Arc::new(out)), is_there)
    }

    /// Hands out the tasks of a file. Groups that are there are compared, others are encoded.
    fn start(&self, number: usize, laid_out: Arc<LaidOut>, out: Out, is_there: impl Fn(usize) -> bool) -> Result<()> {
        let file = &self.files[number];
        let writing = Arc::new(Writing { laid_out, out });
        let LaidOut { groups, copies, .. } = &*writing.laid_out;
        file.left.store(copies.len() + groups.len() + 1, Ordering::Release);
        file.stale.store(false, Ordering::Relaxed);
        *lock(&file.writing) = Some(writing.clone());
        for (g, places) in groups {
            let path = match &writing.out {
                Out::New(out) => {
                    let sink = FileSink { out: out.clone(), places: *places };
                    lock(&self.groups[*g].live).sink = Some(Arc::new(sink));
                    out.temporary()
                }
                Out::Found(_) => &file.spec.path,
            };
            if is_there(*g) {
                self.take_over(*g, path, places)?;
            } else {
                self.begin_encoding(*g);
            }
        }
        if !copies.is_empty() {
            self.tasks.push(Kind::Copy, number, copies.len());
        }
        // The one that was counted for this.
        self.one_less(number)
    }

    /// Returns where a file's bytes are, while it is worked on.
    pub(super) fn out(&self, file: usize) -> Option<Out> {
        lock(&self.files[file].writing).as_ref().map(|writing| writing.out.clone())
    }

    /// Copies a piece of a plain tensor, or compares it.
    #[inline(never)]
    pub(super) fn copy(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let file = &self.files[number];
        let Some(writing) = lock(&file.writing).clone() else {
            return Err(Error::Internal("a file is written before it is laid out".into()));
        };
        let copied = writing.laid_out.copies[task];
        grow(&mut memory.bytes, 2 * PIECE, 0, "parts of two files")?;
        let (source, there) = memory.bytes.split_at_mut(PIECE);
        let (source, there) = (&mut source[..copied.bytes], &mut there[..copied.bytes]);
        self.model.tensor_at(copied.tensor).read_plain(copied.from, source)?;
        match &writing.out {
            Out::New(out) => out.write_at(copied.to, source)?,
            Out::Found(found) => {
                read_exact_at(found, copied.to, there).map_err(|e| Error::io("read", &file.spec.path, e))?;
                if source != there {
                    file.stale.store(true, Ordering::Relaxed);
                }
            }
        }
        self.progress.advance(copied.bytes as u64);
        self.one_less(number)
    }

    /// Notes that there is one thing less to do before a file is complete.
    pub(super) fn one_less(&self, number: usize) -> Result<()> {
        let file = &self.files[number];
        if file.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let Some(writing) = lock(&file.writing).take() else { return self.complete(number, None) };
        match &writing.out {
            Out::New(out) => self.complete(number, Some(out.clone())),
            Out::Found(_) => self.compared(number, &writing.laid_out),
        }
    }

    /// Ends the comparison of a complete file of an earlier run with the source.
    fn compared(&self, number: usize, laid_out: &Arc<LaidOut>) -> Result<()> {
        let file = &self.files[number];
        let groups = || laid_out.groups.iter().map(|(g, _)| &self.groups[*g]);
        if !file.stale.load(Ordering::Relaxed) {
            for group in groups() {
                *lock(&group.live) = Live::default();
                self.resumed.fetch_add(1, Ordering::Relaxed);
                self.progress.advance(self.whole_share(Kind::Encode, group));
            }
            return self.complete(number, None);
        }
        log::warn!("'{}' is not what the source has now, and is written again", file.spec.path.display());
        let copied: u64 = laid_out.copies.iter().map(|copied| copied.bytes as u64).sum();
        self.progress.set_back(copied + groups().map(|g| self.whole_share(Kind::Verify, g)).sum::<u64>());
        self.write(number, laid_out.clone())
    }

    fn complete(&self, file: usize, out: Option<Arc<PartialFile>>) -> Result<()> {
        if let Some(out) = out {
            self.tell(Message::File(out, file));
        }
        self.tasks.complete();
        Ok(())
    }
}

/// Opens the complete file of an earlier run, if it has the size and the header that it would have now and is this user's alone.
fn find(path: &Path, laid_out: &LaidOut) -> Result<Option<File>> {
    let fail = |e| Error::io("read", path, e);
    let entry = Entry::at(path)?;
    let file = match entry.folder.open_to_read(&entry.name) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Whatever else has the name is replaced.
        Err(_) if !entry.folder.is_file(&entry.name) => return Ok(None),
        Err(e) => return Err(fail(e)),
    };
    if let Err(reason) = entry.folder.check_own(&file) {
        log::warn!("'{}' is written again: {reason}", path.display());
        return Ok(None);
    }
    let (header, bytes) = (laid_out.file.header(), laid_out.file.bytes());
    if file.metadata().map_err(fail)?.len() != bytes {
        return Ok(None);
    }
    let mut there = Vec::new();
    grow(&mut there, header.len(), 0, "a header")?;
    read_exact_at(&file, 0, &mut there).map_err(fail)?;
    Ok((there == header).then_some(file))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match Entry::at(path)?.remove() {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}
