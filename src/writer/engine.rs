//! Many groups into many files, on many threads, in memory that does not depend on the model.
//!
//! A group is never in memory whole. It is gone through two or three times, a stretch of some 256,000 weights at a time:
//!
//! ```text
//! count    stretches are read and their exponents counted; then the code is known, and with it the size of every
//!          member, so that the file can be laid out, its header written and its room reserved
//! encode   stretches are read again, encoded, and written at their places; plain tensors are copied
//! verify   stretches are read again, decoded from the file, and compared
//! ```
//!
//! The second and third reading find the bytes in the system's cache, which is cheaper than memory of ours that would have
//! to be large enough for any group. Threads take whatever stretch is next, of the oldest file first, and turn to counting
//! the next file's groups where nothing else is left, so that they wait for one another only at the very end. Bringing
//! files to the disk and naming them is one more thread's work, for it is waiting and nothing else.

mod lay_out;

use super::check;
use super::journal::Journal;
use super::target::PartialFile;
use super::tasks::{Kind, Next, Task, Tasks};
use crate::error::{Error, Place, Result, grow, shorten};
use crate::format::{FileLayout, LayoutTensor, MEMBERS, Member, Model};
use crate::host::encode::{Outline, Piece, STRETCH, Scratch, Sink};
use crate::host::{panic_text, run_threads};
use crate::huffman::encode::{Variant, count, exponent};
use crate::huffman::rows::FIRST_POINTER;
use crate::progress::Progress;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a plain tensor copied or hashed at a time.
const PIECE: usize = 1 << 20;
/// What a thread needs for its buffers, in bytes, with codes of the worst length; and the whole beside them.
pub(super) const THREAD_BYTES: u64 = 5 << 20;
/// Bytes of the source after which the next ones are asked for, ahead of their use: whole stretches.
const AHEAD: u64 = 8 << 20;
/// Files that may wait for the disk.
const WAITING_FILES: usize = 4;

/// How to work.
pub(super) struct Settings {
    pub threads: usize,
    pub verify: bool,
    pub hashes: bool,
    pub shapes: bool,
    /// A group that is unfit is an error.
    pub strict: bool,
    pub variant: Variant,
}

/// A group to be made, and of which tensors of the source.
pub(super) struct GroupSpec {
    pub name: String,
    pub tensors: Vec<usize>,
}

/// A file to be made.
pub(super) struct FileSpec {
    pub path: PathBuf,
    /// Numbers of its groups.
    pub groups: Vec<usize>,
    /// Tensors of the source that are copied.
    pub plain: Vec<usize>,
    /// What its header says beside tensors.
    pub metadata: BTreeMap<String, String>,
    /// Where groups that are on the disk are noted, for a file that is gone on with after an interruption. Such a file is
    /// brought to the disk, and whoever asked for it gives it its name.
    pub journal: Option<Journal>,
}

/// A group that DF11 cannot hold.
#[derive(Debug, Clone)]
pub(super) struct Unfit {
    pub group: usize,
    /// The first tensor of the source that makes it so.
    pub tensor: usize,
    pub reason: String,
}

/// What came of the work.
pub(super) struct Made {
    /// Groups that DF11 cannot hold: their tensors are plain in a file that has other groups or a journal, and a file of which
    /// such a group is the only one is not made.
    pub unfit: Vec<Unfit>,
    /// How many groups a journal had already.
    pub resumed: u64,
    /// The files with a journal: complete, on the disk, and without their names.
    pub unnamed: Vec<Arc<PartialFile>>,
    /// Their journals, which are locked as long as they live.
    pub journals: Vec<Journal>,
}

/// Makes all files.
pub(super) fn run(
    model: &Model,
    groups: &[GroupSpec],
    files: Vec<FileSpec>,
    settings: &Settings,
    progress: &Progress,
) -> Result<Made> {
    let engine = Engine::new(model, groups, files, settings, progress);
    let (send, receive) = sync_channel(WAITING_FILES);
    std::thread::scope(|scope| {
        let engine = &engine;
        let finisher = std::thread::Builder::new().name(crate::host::THREAD_NAME.into());
        match finisher.spawn_scoped(scope, move || engine.finish_files(&receive)) {
            Ok(finisher) => {
                *lock(&engine.send) = Some(send);
                let worked = run_threads(settings.threads, || engine.work());
                *lock(&engine.send) = None;
                let finished = finisher.join().unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))));
                worked.and(finished)
            }
            Err(error) => {
                log::warn!("a thread could not be started ({error}): those that work bring the files to the disk, too");
                run_threads(settings.threads, || engine.work())
            }
        }
    })?;
    match engine.tasks.take_error() {
        Some(error) => Err(error),
        None => Ok(Made {
            unfit: engine.unfit.into_inner().unwrap_or_else(PoisonError::into_inner),
            resumed: engine.resumed.into_inner(),
            unnamed: engine.unnamed.into_inner().unwrap_or_else(PoisonError::into_inner),
            journals: engine.files.into_iter().filter_map(|file| file.spec.journal).collect(),
        }),
    }
}

/// What the finisher hears.
enum Message {
    /// A group's bytes are written: begin to bring them to the disk.
    Written(Arc<PartialFile>),
    /// A group is written and verified.
    Group(Arc<PartialFile>, usize, usize),
    /// A file is complete; its number.
    File(Arc<PartialFile>, usize),
}

struct Engine<'a> {
    model: &'a Model,
    settings: &'a Settings,
    progress: &'a Progress,
    groups: Vec<Group<'a>>,
    files: Vec<OutFile>,
    unfit: Mutex<Vec<Unfit>>,
    /// Groups that were on the disk already.
    resumed: AtomicU64,
    /// Complete files with a journal.
    unnamed: Mutex<Vec<Arc<PartialFile>>>,
    tasks: Tasks,
    /// To the finisher. `None` if there is none, or nothing more comes.
    send: Mutex<Option<SyncSender<Message>>>,
}

struct Group<'a> {
    spec: &'a GroupSpec,
    file: usize,
    /// For each tensor the number of its first stretch and of its first weight, and then those behind the last.
    starts: Vec<(usize, u64)>,
    /// Tasks of the present kind that are not done.
    left: AtomicUsize,
    live: Mutex<Live>,
}

/// What a group holds while it is worked on.
#[derive(Default)]
struct Live {
    counts: Vec<Option<Box<[u32; 256]>>>,
    last: u8,
    outline: Option<Arc<Outline>>,
    /// Where each stretch's codes begin, and where the last one's end.
    bits: Arc<Vec<u64>>,
    pieces: Vec<Piece>,
    sink: Option<Arc<FileSink>>,
    written: Option<Arc<Model>>,
}

struct OutFile {
    spec: FileSpec,
    /// Groups to be counted and tensors to be hashed before the file can be laid out.
    unknown: AtomicUsize,
    /// Groups and pieces of plain tensors before it is complete.
    left: AtomicUsize,
    /// From when it is laid out until it is complete.
    plan: Mutex<Option<Arc<FilePlan>>>,
    hashes: Mutex<HashMap<usize, String>>,
}

/// A file that is laid out.
struct FilePlan {
    out: Arc<PartialFile>,
    /// Tensor, its bytes from … on, so many, to this byte of the file.
    copies: Vec<(usize, u64, usize, u64)>,
}

/// A group's members in a file.
struct FileSink {
    out: Arc<PartialFile>,
    /// First byte in the file, and bytes.
    at: [(u64, u64); 6],
}

impl Sink for FileSink {
    fn write(&self, member: Member, offset: u64, bytes: &[u8]) -> Result<()> {
        let (at, all) = self.at[member as usize];
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > all) {
            return Err(Error::Internal(format!("bytes {offset} + {} of a member of {all}", bytes.len())));
        }
        self.out.write_at(at + offset, bytes)
    }
}

/// A thread's memory.
#[derive(Default)]
struct Memory {
    weights: Vec<u16>,
    bytes: Vec<u8>,
    encode: Scratch,
    decoded: Vec<u16>,
}

/// A stretch of a group.
struct Tile {
    tensor: usize,
    /// Its first weight in the tensor, and in the group.
    in_tensor: u64,
    in_group: u64,
    weights: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Engine<'a> {
    fn new(
        model: &'a Model,
        groups: &'a [GroupSpec],
        files: Vec<FileSpec>,
        settings: &'a Settings,
        progress: &'a Progress,
    ) -> Engine<'a> {
        let mut file_of = vec![0; groups.len()];
        for (number, file) in files.iter().enumerate() {
            file.groups.iter().for_each(|&g| file_of[g] = number);
        }
        let group = |(spec, file): (&'a GroupSpec, usize)| {
            let (mut tile, mut weight) = (0, 0);
            let mut starts = vec![(0, 0)];
            for &tensor in &spec.tensors {
                let weights = model.tensor_at(tensor).bytes() / 2;
                tile += weights.div_ceil(STRETCH as u64) as usize;
                weight += weights;
                starts.push((tile, weight));
            }
            let hashed = if settings.hashes { spec.tensors.len() } else { 0 };
            Group { spec, file, starts, left: AtomicUsize::new(tile + hashed), live: Mutex::default() }
        };
        let groups = groups.iter().zip(file_of).map(group).collect();
        let file = |spec: FileSpec| OutFile {
            unknown: AtomicUsize::new(spec.groups.len() + if settings.hashes { spec.plain.len() } else { 0 }),
            left: AtomicUsize::new(0),
            plan: Mutex::default(),
            hashes: Mutex::default(),
            spec,
        };
        let files: Vec<OutFile> = files.into_iter().map(file).collect();
        let file_count = files.len();
        Engine {
            model,
            settings,
            progress,
            groups,
            files,
            unfit: Mutex::default(),
            resumed: AtomicU64::new(0),
            unnamed: Mutex::default(),
            // One more than threads, so that nobody waits while the last tasks of a file are done.
            tasks: Tasks::new(file_count, settings.threads + 1),
            send: Mutex::default(),
        }
    }

    fn tell(&self, message: Message) {
        let send = lock(&self.send).clone();
        match send {
            // If the finisher has gone, it has left its error.
            Some(send) => _ = send.send(message),
            None => {
                if let Err(error) = self.finish(message) {
                    self.tasks.fail(error);
                }
            }
        }
    }

    /// A thread's work: tasks until there are no more, or one fails. The error is kept with the tasks.
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

    fn task(&self, Task { kind, target, number }: Task, memory: &mut Memory) -> Result<()> {
        match kind {
            Kind::Count => self.count(target, number, memory),
            Kind::Hash => {
                self.hash(target, self.files[target].spec.plain[number], memory)?;
                self.known(target)
            }
            Kind::Encode => self.encode(target, number, memory),
            Kind::Copy => self.copy(target, number, memory),
            Kind::Verify => self.verify(target, number, memory),
        }
    }

    /// Begins a file: whatever must be known of it is found out.
    fn begin(&self, file: usize) -> Result<()> {
        let spec = &self.files[file].spec;
        let nothing_unknown = self.files[file].unknown.load(Ordering::Acquire) == 0;
        for &group in &spec.groups {
            let tasks = self.groups[group].left.load(Ordering::Relaxed);
            self.tasks.push(Kind::Count, group, tasks);
        }
        if self.settings.hashes && !spec.plain.is_empty() {
            self.tasks.push(Kind::Hash, file, spec.plain.len());
        }
        // Otherwise whoever makes the last thing known does it.
        if nothing_unknown { self.lay_out(file) } else { Ok(()) }
    }

    /// One thing more is known of a file.
    fn known(&self, file: usize) -> Result<()> {
        if self.files[file].unknown.fetch_sub(1, Ordering::AcqRel) == 1 { self.lay_out(file) } else { Ok(()) }
    }

    fn tile(group: &Group, number: usize) -> Tile {
        let tensor = group.starts.partition_point(|&(first, _)| first <= number) - 1;
        let (first_tile, first_weight) = group.starts[tensor];
        let in_tensor = (number - first_tile) as u64 * STRETCH as u64;
        let weights = (group.starts[tensor + 1].1 - first_weight - in_tensor).min(STRETCH as u64) as usize;
        Tile { tensor: group.spec.tensors[tensor], in_tensor, in_group: first_weight + in_tensor, weights }
    }

    fn tiles(group: &Group) -> usize {
        group.starts.last().map_or(0, |&(tiles, _)| tiles)
    }

    fn weights(group: &Group) -> u64 {
        group.starts.last().map_or(0, |&(_, weights)| weights)
    }

    fn read<'m>(&self, tile: &Tile, buffer: &'m mut Vec<u16>) -> Result<&'m [u16]> {
        grow(buffer, tile.weights.min(STRETCH), 0, "the weights of a stretch")?;
        let weights = &mut buffer[..tile.weights];
        let tensor = self.model.tensor_at(tile.tensor);
        tensor.read_plain(2 * tile.in_tensor, bytemuck::cast_slice_mut(weights))?;
        Ok(weights)
    }

    /// What a task of a kind adds to the progress, which counts bytes of the source.
    fn share(&self, kind: Kind, weights: u64) -> u64 {
        let bytes = 2 * weights;
        match (kind, self.settings.verify) {
            (Kind::Count, _) => bytes / 4,
            (Kind::Encode, true) => bytes / 2,
            (Kind::Encode, false) => bytes - bytes / 4,
            _ => bytes - bytes / 4 - bytes / 2,
        }
    }

    fn hash(&self, file: usize, tensor: usize, memory: &mut Memory) -> Result<()> {
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
        let text: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        lock(&self.files[file].hashes).insert(tensor, text);
        Ok(())
    }

    fn count(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let group = &self.groups[number];
        let tiles = Self::tiles(group);
        if let Some(tensor) = task.checked_sub(tiles) {
            self.hash(group.file, group.spec.tensors[tensor], memory)?;
        } else {
            let tile = Self::tile(group, task);
            if (2 * tile.in_tensor).is_multiple_of(AHEAD) {
                // The disk works while we do, also where one thread does all.
                let tensor = self.model.tensor_at(tile.tensor);
                tensor.read_ahead(2 * tile.in_tensor, 2 * AHEAD);
            }
            let weights = self.read(&tile, &mut memory.weights)?;
            let mut counts = [0; 256];
            count(weights, &mut counts, self.settings.variant);
            let mut live = lock(&group.live);
            live.counts.resize(tiles, None);
            // A stretch has fewer than 2^32 weights.
            live.counts[task] = Some(Box::new(counts.map(|n| n as u32)));
            if task + 1 == tiles {
                live.last = weights.last().map_or(0, |&w| exponent(w));
            }
            drop(live);
            self.progress.advance(self.share(Kind::Count, tile.weights as u64));
        }
        if group.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.counted(number) } else { Ok(()) }
    }

    /// All of a group is counted.
    fn counted(&self, number: usize) -> Result<()> {
        let group = &self.groups[number];
        let mut live = lock(&group.live);
        let counts = std::mem::take(&mut live.counts);
        let mut all = [0u64; 256];
        for counts in counts.iter().flatten() {
            all.iter_mut().zip(counts.iter()).for_each(|(sum, &n)| *sum += n as u64);
        }
        let sizes: Vec<u64> = group.spec.tensors.iter().map(|&t| self.model.tensor_at(t).bytes() / 2).collect();
        match Outline::new(&sizes, &all, live.last, self.settings.variant) {
            Some(outline) => {
                if let Some(limit) = outline.limited() {
                    log::warn!("group '{}': {limit}", shorten(&group.spec.name, 80));
                }
                let mut bits = vec![0];
                for counts in counts.iter().flatten() {
                    let wide = counts.map(u64::from);
                    bits.push(bits.last().unwrap_or(&0) + outline.bits_of(&wide).unwrap_or(0));
                }
                (live.outline, live.bits) = (Some(Arc::new(outline)), Arc::new(bits));
            }
            None => {
                let above = |counts: &[u32; 256]| counts[FIRST_POINTER as usize..].iter().any(|&n| n > 0);
                let tile = counts.iter().position(|c| c.as_deref().is_some_and(above)).unwrap_or(0);
                let tensor = self.model.tensor_at(Self::tile(group, tile).tensor);
                let found = all[FIRST_POINTER as usize..].iter().sum::<u64>();
                let reason = format!(
                    "{found} of its group's {} weights have an exponent of 240 or more (infinities, NaN, magnitudes of \
                     2^113 and more), which DF11 cannot hold; the first is in '{}'",
                    Self::weights(group),
                    shorten(tensor.name(), 80)
                );
                if self.settings.strict {
                    let place = Place::default().tensor(tensor.name());
                    return Err(Error::unsupported(place, reason));
                }
                lock(&self.unfit).push(Unfit { group: number, tensor: Self::tile(group, tile).tensor, reason });
                // They will be copied, and are counted then.
                let counted: u64 =
                    (0..Self::tiles(group)).map(|t| self.share(Kind::Count, Self::tile(group, t).weights as u64)).sum();
                self.progress.set_back(counted);
            }
        }
        drop(live);
        self.known(group.file)
    }

    fn encode(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let group = &self.groups[number];
        let tile = Self::tile(group, task);
        let live = lock(&group.live);
        let (Some(outline), Some(sink), bits) = (live.outline.clone(), live.sink.clone(), live.bits.clone()) else {
            return Err(Error::Internal("a group is encoded before it is laid out".into()));
        };
        drop(live);
        let weights = self.read(&tile, &mut memory.weights)?;
        let bits = (bits[task], bits[task + 1]);
        let piece = outline.encode(weights, tile.in_group, bits, &*sink, &mut memory.encode)?;
        lock(&group.live).pieces.push(piece);
        self.progress.advance(self.share(Kind::Encode, tile.weights as u64));
        if group.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        // All of it is encoded.
        let mut live = lock(&group.live);
        outline.finish(&std::mem::take(&mut live.pieces), &*sink)?;
        // The tables go; what they took is another group's.
        live.outline = None;
        let plan = self.plan(group.file)?;
        self.tell(Message::Written(plan.out.clone()));
        if !self.settings.verify {
            drop(live);
            return self.group_done(number);
        }
        let members = Member::ALL.map(|member| {
            let (at, bytes) = sink.at[member as usize];
            let (dtype, shape) = lay_out::member_type(member, bytes);
            (dtype, shape, at, bytes)
        });
        live.written = Some(Arc::new(Model::open_members(plan.out.temporary(), &group.spec.name, &members)?));
        drop(live);
        let tiles = Self::tiles(group);
        group.left.store(tiles, Ordering::Release);
        self.tasks.push(Kind::Verify, number, tiles);
        Ok(())
    }

    fn verify(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let group = &self.groups[number];
        let tile = Self::tile(group, task);
        let live = lock(&group.live);
        let Some(written) = live.written.clone() else {
            return Err(Error::Internal("a group is verified before it is written".into()));
        };
        drop(live);
        let weights = self.read(&tile, &mut memory.weights)?;
        let share = check::Share { number: task, of: Self::tiles(group), weights, first: tile.in_group };
        check::share(&written, &share, &mut memory.decoded)?;
        self.progress.advance(self.share(Kind::Verify, tile.weights as u64));
        if group.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.group_done(number) } else { Ok(()) }
    }

    /// A group is written, and verified if that was asked for.
    fn group_done(&self, number: usize) -> Result<()> {
        let group = &self.groups[number];
        *lock(&group.live) = Live::default();
        if self.files[group.file].spec.journal.is_some() {
            self.tell(Message::Group(self.plan(group.file)?.out.clone(), group.file, number));
        }
        self.one_less(group.file)
    }

    fn copy(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let plan = self.plan(number)?;
        let (tensor, from, len, to) = plan.copies[task];
        grow(&mut memory.bytes, PIECE, 0, "a part of a file")?;
        let bytes = &mut memory.bytes[..len];
        self.model.tensor_at(tensor).read_plain(from, bytes)?;
        plan.out.write_at(to, bytes)?;
        self.progress.advance(len as u64);
        self.one_less(number)
    }

    /// One thing less to do before a file is complete.
    fn one_less(&self, file: usize) -> Result<()> {
        if self.files[file].left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let plan = lock(&self.files[file].plan).take();
        self.complete(file, plan.map(|plan| plan.out.clone()))
    }

    fn plan(&self, file: usize) -> Result<Arc<FilePlan>> {
        lock(&self.files[file].plan)
            .clone()
            .ok_or_else(|| Error::Internal("a file is written before it is laid out".into()))
    }

    fn complete(&self, file: usize, out: Option<Arc<PartialFile>>) -> Result<()> {
        if let Some(out) = out {
            self.tell(Message::File(out, file));
        }
        self.tasks.complete();
        Ok(())
    }

    /// The finisher: brings files to the disk and gives them their names.
    fn finish_files(&self, messages: &Receiver<Message>) -> Result<()> {
        for message in messages {
            if let Err(error) = self.finish(message) {
                self.tasks.fail(error);
                // Senders must not wait for somebody who has gone.
                messages.iter().for_each(drop);
                return Ok(());
            }
        }
        Ok(())
    }

    fn finish(&self, message: Message) -> Result<()> {
        match message {
            Message::Written(out) => {
                out.start_writing();
                Ok(())
            }
            Message::Group(out, file, group) => match &self.files[file].spec.journal {
                Some(journal) => out.sync().and_then(|()| journal.add(&self.groups[group].spec.name)),
                None => Ok(()),
            },
            Message::File(out, file) => {
                // What was cancelled in the last moment is not completed.
                self.progress.check()?;
                if self.tasks.has_failed() {
                    return Err(Error::Cancelled);
                }
                if self.files[file].spec.journal.is_none() {
                    return out.commit();
                }
                out.sync()?;
                lock(&self.unnamed).push(out);
                Ok(())
            }
        }
    }
}
