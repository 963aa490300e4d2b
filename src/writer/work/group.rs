//! The steps of a group: its stretches are counted, encoded, and verified.

use super::check;
use super::engine::{Engine, Memory, Message, lock};
use super::file::Out;
use super::lay_out::{Places, members};
use super::tasks::Kind;
use super::{GroupSpec, PartialFile, Segment, Unfit};
use crate::error::{Error, Place, Result, Status, grow, shorten};
use crate::format::{Member, Model};
use crate::host::encode::{Outline, Piece, STRETCH, Sink};
use crate::huffman::encode::{count, exponent};
use crate::huffman::rows::FIRST_POINTER;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of the source after which the next ones are asked for, ahead of their use: whole stretches.
const AHEAD: u64 = 8 << 20;

/// A group that is made.
pub(super) struct Group<'a> {
    pub spec: &'a GroupSpec,
    pub file: usize,
    /// For each segment the number of its first stretch and of its first weight, and then the numbers after the last.
    starts: Vec<(usize, u64)>,
    /// Tasks of the present kind that are not done.
    pub left: AtomicUsize,
    /// True if what is verified is what an earlier run has left.
    taken_over: AtomicBool,
    /// True if that differs from the source.
    stale: AtomicBool,
    pub live: Mutex<Live>,
}

/// The state of a group while it is worked on.
#[derive(Default)]
pub(super) struct Live {
    counts: Vec<Option<Box<[u32; 256]>>>,
    last: u8,
    pub outline: Option<Arc<Outline>>,
    /// The bits at which each stretch's codes begin, and the one at which the last one's end.
    bits: Arc<Vec<u64>>,
    pieces: Vec<Piece>,
    pub sink: Option<Arc<FileSink>>,
    written: Option<Arc<Model>>,
}

/// A group's members in a file.
pub(super) struct FileSink {
    pub out: Arc<PartialFile>,
    pub places: Places,
}

impl Sink for FileSink {
    fn write(&self, member: Member, offset: u64, bytes: &[u8]) -> Result<()> {
        let (at, all) = self.places[member as usize];
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > all) {
            return Err(Error::Internal(format!("bytes {offset} + {} of a member of {all}", bytes.len())));
        }
        self.out.write_at(at + offset, bytes)
    }
}

/// A stretch of a group.
struct Stretch {
    tensor: usize,
    /// Its first weight in the tensor, and in the group.
    in_tensor: u64,
    in_group: u64,
    weights: usize,
}

impl<'a> Group<'a> {
    pub fn new(spec: &'a GroupSpec, file: usize, hashes: bool) -> Group<'a> {
        let (mut stretch, mut weight) = (0, 0);
        let mut starts = vec![(0, 0)];
        for segment in &spec.segments {
            stretch += segment.count.div_ceil(STRETCH as u64) as usize;
            weight += segment.count;
            starts.push((stretch, weight));
        }
        // A tensor in runs is hashed with its file's plain ones.
        let hashed = if hashes && !spec.is_run { spec.segments.len() } else { 0 };
        Group {
            spec,
            file,
            starts,
            left: AtomicUsize::new(stretch + hashed),
            taken_over: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            live: Mutex::default(),
        }
    }

    fn stretch(&self, number: usize) -> Stretch {
        let segment = self.starts.partition_point(|&(first, _)| first <= number) - 1;
        let (first_stretch, first_weight) = self.starts[segment];
        let Segment { tensor, first, count } = self.spec.segments[segment];
        let in_segment = (number - first_stretch) as u64 * STRETCH as u64;
        let weights = (count - in_segment).min(STRETCH as u64) as usize;
        Stretch { tensor, in_tensor: first + in_segment, in_group: first_weight + in_segment, weights }
    }

    fn stretches(&self) -> usize {
        self.starts.last().map_or(0, |&(stretches, _)| stretches)
    }

    fn weights(&self) -> u64 {
        self.starts.last().map_or(0, |&(_, weights)| weights)
    }
}

impl Engine<'_> {
    fn read<'m>(&self, stretch: &Stretch, buffer: &'m mut Vec<u16>) -> Result<&'m [u16]> {
        grow(buffer, stretch.weights.min(STRETCH), 0, "the weights of a stretch")?;
        let weights = &mut buffer[..stretch.weights];
        let tensor = self.model.tensor_at(stretch.tensor);
        tensor.read_plain(2 * stretch.in_tensor, bytemuck::cast_slice_mut(weights))?;
        Ok(weights)
    }

    /// Returns what all tasks of a kind add to the progress.
    pub(super) fn whole_share(&self, kind: Kind, group: &Group) -> u64 {
        (0..group.stretches()).map(|n| self.share(kind, group.stretch(n).weights as u64)).sum()
    }

    /// Counts a stretch, or hashes a tensor: the tasks after those of all stretches.
    #[inline(never)]
    pub(super) fn count(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let group = &self.groups[number];
        let stretches = group.stretches();
        if let Some(tensor) = task.checked_sub(stretches) {
            self.hash(group.file, group.spec.segments[tensor].tensor, memory)?;
        } else {
            let stretch = group.stretch(task);
            if task.is_multiple_of(AHEAD as usize / (2 * STRETCH)) || stretch.in_tensor == 0 {
                // The disk works while we do, also where one thread does all.
                self.model.tensor_at(stretch.tensor).read_ahead(2 * stretch.in_tensor, 2 * AHEAD);
            }
            let weights = self.read(&stretch, &mut memory.weights)?;
            let mut counts = [0; 256];
            count(weights, &mut counts, self.settings.variant);
            let mut live = lock(&group.live);
            live.counts.resize(stretches, None);
            // A stretch has fewer than 2^32 weights.
            live.counts[task] = Some(Box::new(counts.map(|n| n as u32)));
            if task + 1 == stretches {
                live.last = weights.last().map_or(0, |&w| exponent(w));
            }
            drop(live);
            self.progress.advance(self.share(Kind::Count, stretch.weights as u64));
        }
        if group.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.counted(number) } else { Ok(()) }
    }

    /// Ends the counting of a group.
    #[inline(never)]
    fn counted(&self, number: usize) -> Result<()> {
        let group = &self.groups[number];
        let mut live = lock(&group.live);
        let counts = std::mem::take(&mut live.counts);
        let mut all = [0u64; 256];
        for counts in counts.iter().flatten() {
            all.iter_mut().zip(counts.iter()).for_each(|(sum, &n)| *sum += n as u64);
        }
        let sizes: Vec<u64> = group.spec.segments.iter().map(|segment| segment.count).collect();
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
            None => self.is_unfit(number, &counts, &all)?,
        }
        drop(live);
        self.known(group.file)
    }

    /// Leaves a group plain that has exponents that DF11 cannot hold, or fails if the run is strict.
    fn is_unfit(&self, number: usize, counts: &[Option<Box<[u32; 256]>>], all: &[u64; 256]) -> Result<()> {
        let group = &self.groups[number];
        let above = |counts: &[u32; 256]| counts[FIRST_POINTER as usize..].iter().any(|&n| n > 0);
        let first = counts.iter().position(|c| c.as_deref().is_some_and(above)).unwrap_or(0);
        let tensor = group.stretch(first).tensor;
        let name = self.model.tensor_at(tensor).name();
        let found = all[FIRST_POINTER as usize..].iter().sum::<u64>();
        let reason = format!(
            "{found} of its group's {} weights have an exponent of 240 or more (infinities, NaN, magnitudes of 2^113 and more), \
             which DF11 cannot hold; the first is in '{}'",
            group.weights(),
            shorten(name, 80)
        );
        if self.settings.strict {
            return Err(Error::unsupported(Place::default().tensor(name), reason));
        }
        lock(&self.unfit).push(Unfit { group: number, tensor, reason });
        // They will be copied, and are counted then.
        self.progress.set_back(self.whole_share(Kind::Count, group));
        Ok(())
    }

    /// Hands out the tasks of encoding a group.
    pub(super) fn begin_encoding(&self, number: usize) {
        let group = &self.groups[number];
        group.left.store(group.stretches(), Ordering::Release);
        self.tasks.push(Kind::Encode, number, group.stretches());
    }

    #[inline(never)]
    pub(super) fn encode(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let group = &self.groups[number];
        let stretch = group.stretch(task);
        let live = lock(&group.live);
        let (Some(outline), Some(sink), bits) = (live.outline.clone(), live.sink.clone(), live.bits.clone()) else {
            return Err(Error::Internal("a group is encoded before it is laid out".into()));
        };
        drop(live);
        let weights = self.read(&stretch, &mut memory.weights)?;
        let bits = (bits[task], bits[task + 1]);
        let piece = outline.encode(weights, stretch.in_group, bits, &*sink, &mut memory.encode)?;
        lock(&group.live).pieces.push(piece);
        self.progress.advance(self.share(Kind::Encode, stretch.weights as u64));
        if group.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        // All of it is encoded.
        let mut live = lock(&group.live);
        outline.finish(&std::mem::take(&mut live.pieces), &*sink)?;
        // The tables go; what they took is another group's.
        live.outline = None;
        drop(live);
        self.tell(Message::Written(sink.out.clone()));
        if !self.settings.verify {
            return self.group_done(number);
        }
        self.begin_verifying(number, sink.out.temporary(), &sink.places)
    }

    /// Hands out the tasks of verifying a group that is written.
    fn begin_verifying(&self, number: usize, path: &Path, places: &Places) -> Result<()> {
        let group = &self.groups[number];
        let model = Model::open_members(path, &group.spec.name, &members(places))?;
        lock(&group.live).written = Some(Arc::new(model));
        group.left.store(group.stretches(), Ordering::Release);
        self.tasks.push(Kind::Verify, number, group.stretches());
        Ok(())
    }

    #[inline(never)]
    pub(super) fn verify(&self, number: usize, task: usize, memory: &mut Memory) -> Result<()> {
        let group = &self.groups[number];
        let stretch = group.stretch(task);
        let live = lock(&group.live);
        let Some(written) = live.written.clone() else {
            return Err(Error::Internal("a group is verified before it is written".into()));
        };
        drop(live);
        if !group.stale.load(Ordering::Relaxed) {
            let weights = self.read(&stretch, &mut memory.weights)?;
            let share = check::Share { number: task, of: group.stretches(), weights, first: stretch.in_group };
            match check::share(&written, &share, &mut memory.decoded) {
                Err(error) if group.taken_over.load(Ordering::Relaxed) && is_bad(&error) => {
                    self.is_stale(group, &error);
                }
                result => result?,
            }
        }
        self.progress.advance(self.share(Kind::Verify, stretch.weights as u64));
        if group.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.group_done(number) } else { Ok(()) }
    }

    fn is_stale(&self, group: &Group, error: &Error) {
        let name = shorten(&group.spec.name, 80);
        log::warn!("group '{name}' of an earlier run is not what the source has now, and is written again: {error}");
        group.stale.store(true, Ordering::Relaxed);
    }

    /// Compares a group of an earlier run with the source, bit by bit, before it is taken over.
    pub(super) fn take_over(&self, number: usize, path: &Path, places: &Places) -> Result<()> {
        let group = &self.groups[number];
        group.taken_over.store(true, Ordering::Relaxed);
        match self.begin_verifying(number, path, places) {
            Err(error) if is_bad(&error) => {
                self.is_stale(group, &error);
                // As if every stretch had been looked at.
                self.progress.advance(self.whole_share(Kind::Verify, group));
                self.group_done(number)
            }
            result => result,
        }
    }

    /// Ends the work on a group that is written, and verified if that was asked for, or whose members of an earlier run were
    /// compared with the source.
    fn group_done(&self, number: usize) -> Result<()> {
        let group = &self.groups[number];
        let file = &self.files[group.file];
        let taken_over = group.taken_over.swap(false, Ordering::Relaxed);
        let stale = group.stale.swap(false, Ordering::Relaxed);
        if taken_over && file.spec.named {
            // The file decides, when all of it has been compared.
            lock(&group.live).written = None;
            file.stale.fetch_or(stale, Ordering::Relaxed);
        } else if taken_over && stale {
            lock(&group.live).written = None;
            self.progress.set_back(self.whole_share(Kind::Verify, group));
            self.begin_encoding(number);
            return Ok(());
        } else {
            *lock(&group.live) = Live::default();
            if taken_over {
                self.resumed.fetch_add(1, Ordering::Relaxed);
                self.progress.advance(self.whole_share(Kind::Encode, group));
            } else if let (false, Some(Out::New(out))) = (file.spec.named, self.out(group.file)) {
                self.tell(Message::Group(out, number));
            }
        }
        self.one_less(group.file)
    }
}

/// Returns whether an error says that what was read is wrong, rather than that it could not be read.
pub(super) fn is_bad(error: &Error) -> bool {
    matches!(error.status(), Status::Corrupt | Status::InvalidFormat | Status::UnsupportedFormat)
}
