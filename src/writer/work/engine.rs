//! The threads of a run, what they share, and how files come to the disk.

use super::file::Writing;
use super::group::Group;
use super::tasks::{Kind, Next, Task, Tasks};
use super::{FileSpec, GroupSpec, Made, Order, PIECE, PartialFile, Settings, Unfit};
use crate::error::{Error, Result, grow};
use crate::format::Model;
use crate::host::encode::Scratch;
use crate::host::{hex, panic_text, run_threads};
use crate::progress::Progress;
use crate::writer::finisher::Finisher;
pub(super) use crate::writer::finisher::lock;
use crate::writer::target::Ledger;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that may wait for the disk.
const WAITING_FILES: usize = 4;

/// Makes files.
pub(super) fn run(order: &Order, files: Vec<FileSpec>) -> Result<Made> {
    let engine = Engine::new(order, files);
    let finish = |message| {
        engine.finish(message).map_err(|error| {
            engine.tasks.fail(error);
            Error::Cancelled
        })
    };
    let (worked, finished) =
        engine.finisher.run(WAITING_FILES, finish, || run_threads(order.settings.threads, || engine.work()));
    // What failed first is what is told.
    match engine.tasks.take_error() {
        Some(error) => Err(error),
        None => worked.and(finished).map(|()| Made {
            unfit: engine.unfit.into_inner().unwrap_or_else(PoisonError::into_inner),
            resumed: engine.resumed.into_inner(),
            unnamed: engine.unnamed.into_inner().unwrap_or_else(PoisonError::into_inner),
        }),
    }
}

/// A message to the finisher.
pub(super) enum Message {
    /// A group's bytes are written: begin to bring them to the disk.
    Written(Arc<PartialFile>),
    /// A group of an unnamed file is written and verified.
    Group(Arc<PartialFile>, usize),
    /// A file is complete; its number.
    File(Arc<PartialFile>, usize),
}

/// The state that all threads share.
pub(super) struct Engine<'a> {
    pub model: &'a Model,
    pub settings: &'a Settings,
    pub progress: &'a Progress,
    pub ledger: Option<&'a Ledger>,
    pub groups: Vec<Group<'a>>,
    pub files: Vec<OutFile>,
    pub unfit: Mutex<Vec<Unfit>>,
    /// Groups of an earlier run that were taken over.
    pub resumed: AtomicU64,
    unnamed: Mutex<Vec<Arc<PartialFile>>>,
    pub tasks: Tasks,
    finisher: Finisher<Message>,
}

/// A file that is made.
pub(super) struct OutFile {
    pub spec: FileSpec,
    /// Tensors to be hashed that are in no group with other tensors.
    hashed: Vec<usize>,
    /// Groups to be counted and tensors to be hashed before the file can be laid out.
    pub unknown: AtomicUsize,
    /// Groups and pieces of plain tensors before it is complete.
    pub left: AtomicUsize,
    /// Something in the file that an earlier run has left differs from the source.
    pub stale: AtomicBool,
    /// From when it is laid out until it is complete.
    pub writing: Mutex<Option<Arc<Writing>>>,
    pub hashes: Mutex<HashMap<usize, String>>,
}

/// A thread's memory.
#[derive(Default)]
pub(super) struct Memory {
    pub weights: Vec<u16>,
    pub bytes: Vec<u8>,
    pub encode: Scratch,
    pub decoded: Vec<u16>,
}

impl<'a> Engine<'a> {
    fn new(order: &Order<'a>, files: Vec<FileSpec>) -> Engine<'a> {
        let Order { model, groups, ledger, settings, progress } = *order;
        let mut file_of = vec![0; groups.len()];
        for (number, file) in files.iter().enumerate() {
            file.groups.iter().for_each(|&g| file_of[g] = number);
        }
        let group = |(spec, file): (&'a GroupSpec, usize)| Group::new(spec, file, settings.hashes);
        let hashed = |spec: &FileSpec| {
            let mut hashed = spec.plain.clone();
            hashed.extend(spec.groups.iter().filter_map(|&g| groups[g].run_of()));
            hashed.sort_unstable();
            hashed.dedup();
            if settings.hashes { hashed } else { Vec::new() }
        };
        let files = files.into_iter().map(|spec| (hashed(&spec), spec));
        let file = |(hashed, spec): (Vec<usize>, FileSpec)| OutFile {
            unknown: AtomicUsize::new(spec.groups.len() + hashed.len()),
            hashed,
            left: AtomicUsize::new(0),
            stale: AtomicBool::new(false),
            writing: Mutex::default(),
            hashes: Mutex::default(),
            spec,
        };
        let files: Vec<OutFile> = files.map(file).collect();
        let groups = groups.iter().zip(file_of).map(group).collect();
        // One more than threads, so that nobody waits while the last tasks of a file are done.
        let tasks = Tasks::new(files.len(), settings.threads + 1);
        Engine {
            model,
            settings,
            progress,
            ledger,
            groups,
            files,
            unfit: Mutex::default(),
            resumed: AtomicU64::new(0),
            unnamed: Mutex::default(),
            tasks,
            finisher: Finisher::new(),
        }
    }

    /// Does a thread's work: tasks until there are no more, or one fails. The error is kept with the tasks.
    fn work(&self) -> Result<()> {
        let mut memory = Memory::default();
        loop {
            let next = self.tasks.next();
            if matches!(next, Next::End) {
                return Ok(());
            }
            let work = AssertUnwindSafe(|| match next {
                Next::Task(task) => self.task(task, &mut memory),
                Next::Begin(file) => self.begin(file),
                Next::End => Ok(()),
            });
            let result = self.progress.check().and_then(|()| {
                // Others would wait for this for ever.
                catch_unwind(work).unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))))
            });
            if let Err(error) = result {
                self.tasks.fail(error);
            }
        }
    }

    /// Does a task. None of those is inlined, so that only the frame of one is on the stack, of which callers may have little.
    fn task(&self, Task { kind, target, number }: Task, memory: &mut Memory) -> Result<()> {
        match kind {
            Kind::Count => self.count(target, number, memory),
            Kind::Hash => {
                self.hash(target, self.files[target].hashed[number], memory)?;
                self.known(target)
            }
            Kind::Encode => self.encode(target, number, memory),
            Kind::Copy => self.copy(target, number, memory),
            Kind::Verify => self.verify(target, number, memory),
        }
    }

    /// Begins a file: whatever must be known of it is found out.
    #[inline(never)]
    fn begin(&self, file: usize) -> Result<()> {
        let spec = &self.files[file].spec;
        let nothing_unknown = self.files[file].unknown.load(Ordering::Acquire) == 0;
        for &group in &spec.groups {
            let tasks = self.groups[group].left.load(Ordering::Relaxed);
            self.tasks.push(Kind::Count, group, tasks);
        }
        let hashed = self.files[file].hashed.len();
        if hashed > 0 {
            self.tasks.push(Kind::Hash, file, hashed);
        }
        // Otherwise whoever makes the last thing known does it.
        if nothing_unknown { self.lay_out(file) } else { Ok(()) }
    }

    /// Notes that one thing more is known of a file.
    pub(super) fn known(&self, file: usize) -> Result<()> {
        if self.files[file].unknown.fetch_sub(1, Ordering::AcqRel) == 1 { self.lay_out(file) } else { Ok(()) }
    }

    /// Returns what a task of a kind adds to the progress, which counts bytes of the source.
    pub(super) fn share(&self, kind: Kind, weights: u64) -> u64 {
        let bytes = 2 * weights;
        match (kind, self.settings.verify) {
            (Kind::Count, _) => bytes / 4,
            (Kind::Encode, true) => bytes / 2,
            (Kind::Encode, false) => bytes - bytes / 4,
            (_, true) => bytes - bytes / 4 - bytes / 2,
            (_, false) => 0,
        }
    }

    /// Hashes a tensor of a file.
    #[inline(never)]
    pub(super) fn hash(&self, file: usize, tensor: usize, memory: &mut Memory) -> Result<()> {
        let source = self.model.tensor_at(tensor);
        grow(&mut memory.bytes, PIECE, 0, "a part of a file")?;
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < source.bytes() {
            self.progress.check()?;
            let piece = &mut memory.bytes[..(source.bytes() - at).min(PIECE as u64) as usize];
            source.read_plain(at, piece)?;
            hash.update(&*piece);
            at += piece.len() as u64;
        }
        lock(&self.files[file].hashes).insert(tensor, hex(&hash.finalize()));
        Ok(())
    }

    /// Tells the finisher something, or does what it would do, if there is none.
    pub(super) fn tell(&self, message: Message) {
        if let Err(error) = self.finisher.tell(message, |message| self.finish(message)) {
            self.tasks.fail(error);
        }
    }

    fn finish(&self, message: Message) -> Result<()> {
        match message {
            Message::Written(out) => {
                out.start_writing();
                Ok(())
            }
            Message::Group(out, group) => {
                out.sync()?;
                self.ledger.map_or(Ok(()), |ledger| ledger.group(&self.groups[group].spec.name, true))
            }
            Message::File(out, file) => self.finish_file(out, &self.files[file].spec),
        }
    }

    fn finish_file(&self, out: Arc<PartialFile>, spec: &FileSpec) -> Result<()> {
        // Work that was cancelled in the last moment is not completed.
        self.progress.check()?;
        if self.tasks.has_failed() {
            return Err(Error::Cancelled);
        }
        if !spec.named {
            out.sync()?;
            lock(&self.unnamed).push(out);
            return Ok(());
        }
        out.commit(true)?;
        let Some(ledger) = self.ledger else { return Ok(()) };
        // The file itself says that its groups are done, so the note need not be on the disk.
        spec.groups.iter().try_for_each(|&g| ledger.group(&self.groups[g].spec.name, false))?;
        if spec.groups.is_empty() { ledger.carried(spec.path.as_ref()) } else { Ok(()) }
    }
}
