//! Fills files with tensors of an open model, decoded or as they are stored, on many threads, in memory that does not depend on the
//! model.
//!
//! Threads take pieces of tensors in the order of the files, read or decode each one alone, and write it at its place. So all of
//! them work on one file or two at a time. One more thread brings files to the disk, because that is waiting and nothing else.

use crate::error::{Result, grow};
use crate::format::{FileLayout, LayoutTensor, Model, Span};
use crate::host::{DecodeOptions, run_threads};
use crate::progress::Progress;
use crate::writer::finisher::{Finisher, lock};
use crate::writer::target::PartialFile;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of a tensor that a thread reads at a time: 85 blocks of a usual group, of which the first is decoded from its beginning.
const PIECE: usize = 2 << 20;
/// Threads that work at most: their buffers, with those of the decoder, take some 3 MiB each.
const MOST_THREADS: usize = 128;
/// Bytes after which what was written is brought to the disk. Otherwise the end of a file could take minutes in which nothing
/// moves.
const SYNC_BYTES: u64 = 256 << 20;
/// Messages that may wait for the disk.
const WAITING: usize = 4;

/// The place where the bytes of a new tensor are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// They are those of the tensor of this number, decoded if it is in a group.
    Decoded(usize),
    /// They are in a file of the model, as they are.
    Stored(Span),
}

/// A file to be made.
pub(super) struct OutFile {
    /// Its path: below the folder, or the whole one if it stands alone.
    pub path: PathBuf,
    pub layout: FileLayout,
    /// For each tensor of the layout its bytes.
    values: Vec<Values>,
}

impl OutFile {
    /// Lays out a file of these tensors.
    pub fn new(
        path: PathBuf,
        tensors: Vec<(LayoutTensor, Values)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<OutFile> {
        let by_name: HashMap<String, Values> = tensors.iter().map(|(t, values)| (t.name.clone(), *values)).collect();
        let layout = FileLayout::new(tensors.into_iter().map(|(tensor, _)| tensor).collect(), metadata)?;
        let values = layout.tensors().filter_map(|(tensor, _)| by_name.get(&tensor.name).copied()).collect();
        Ok(OutFile { path, layout, values })
    }

    /// Returns the bytes of its tensors.
    pub fn data_bytes(&self) -> u64 {
        self.layout.bytes() - self.layout.header().len() as u64
    }
}

/// The place where files go.
pub(super) trait Sink: Sync {
    /// Begins a file.
    fn begin(&self, file: &OutFile) -> Result<PartialFile>;

    /// Takes a file whose bytes are all written.
    fn complete(&self, file: &OutFile, out: Arc<PartialFile>) -> Result<()>;
}

/// Makes files.
pub(super) fn run(
    model: &Model,
    files: &[OutFile],
    sink: &dyn Sink,
    threads: usize,
    progress: &Progress,
) -> Result<()> {
    let (next, failed, finisher) = (Mutex::default(), AtomicBool::new(false), Finisher::new());
    let copying = Copying { model, files, sink, progress, next, failed, finisher };
    let finish = |message| {
        copying.finish(message).inspect_err(|_| {
            // The others end.
            copying.failed.store(true, Ordering::Relaxed);
        })
    };
    let work = || run_threads(threads.clamp(1, MOST_THREADS), || copying.work());
    let (worked, finished) = copying.finisher.run(WAITING, finish, work);
    // A worker that was told to end returns no error: that of the finisher is the cause.
    finished.and(worked)
}

/// A file being written.
struct Writing {
    number: usize,
    out: Arc<PartialFile>,
    /// Pieces that are handed out and not written, and one more as long as there are others to hand out.
    left: AtomicU64,
    /// Bytes written since the last message about it.
    unsynced: AtomicU64,
}

/// A piece of a tensor to be written.
struct Piece {
    writing: Arc<Writing>,
    values: Values,
    /// Its first byte in the tensor.
    from: u64,
    bytes: usize,
    /// Its first byte in the file.
    to: u64,
}

/// The next piece.
#[derive(Default)]
struct Next {
    file: usize,
    tensor: usize,
    from: u64,
    writing: Option<Arc<Writing>>,
}

/// A message to the thread that brings files to the disk.
enum Message {
    /// Much of the file is written.
    Written(Arc<Writing>),
    /// All of it is.
    Complete(Arc<Writing>),
}

/// The state that all threads share.
struct Copying<'a> {
    model: &'a Model,
    files: &'a [OutFile],
    sink: &'a dyn Sink,
    progress: &'a Progress,
    next: Mutex<Next>,
    /// True if a thread has an error: the others end.
    failed: AtomicBool,
    finisher: Finisher<Message>,
}

impl Copying<'_> {
    /// Does a thread's work: pieces until there are no more, or one fails.
    fn work(&self) -> Result<()> {
        let mut words = Vec::new();
        let result = grow(&mut words, PIECE / 8, 0u64, "a part of a tensor").and_then(|()| {
            while !self.failed.load(Ordering::Relaxed) {
                self.progress.check()?;
                let Some(piece) = self.take()? else { break };
                self.copy(&piece, &mut bytemuck::cast_slice_mut(&mut words)[..piece.bytes])?;
            }
            Ok(())
        });
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Hands out the next piece. Whoever comes to a new file begins it.
    fn take(&self) -> Result<Option<Piece>> {
        let mut next = lock(&self.next);
        loop {
            let Some(file) = self.files.get(next.file) else { return Ok(None) };
            let writing = match &next.writing {
                Some(writing) => writing.clone(),
                None => {
                    let out = Arc::new(self.sink.begin(file)?);
                    out.write_at(0, file.layout.header())?;
                    let (left, unsynced) = (AtomicU64::new(1), AtomicU64::new(0));
                    let new = Arc::new(Writing { number: next.file, out, left, unsynced });
                    next.writing = Some(new.clone());
                    new
                }
            };
            if let Some((tensor, at)) = file.layout.tensor(next.tensor) {
                let (from, rest) = (next.from, tensor.bytes - next.from);
                if rest == 0 {
                    (next.tensor, next.from) = (next.tensor + 1, 0);
                    continue;
                }
                let (values, bytes) = (file.values[next.tensor], rest.min(PIECE as u64) as usize);
                next.from += bytes as u64;
                writing.left.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(Piece { writing, values, from, bytes, to: at + from }));
            }
            *next = Next { file: next.file + 1, ..Next::default() };
            self.one_less(writing)?;
        }
    }

    fn copy(&self, piece: &Piece, buffer: &mut [u8]) -> Result<()> {
        match piece.values {
            Values::Decoded(number) => {
                self.model.tensor_at(number).read(piece.from, buffer, &DecodeOptions::new())?;
            }
            Values::Stored(span) => self.model.sources()[span.file].read_at(span.offset + piece.from, buffer)?,
        }
        let writing = &piece.writing;
        writing.out.write_at(piece.to, buffer)?;
        self.progress.advance(piece.bytes as u64);
        if writing.unsynced.fetch_add(piece.bytes as u64, Ordering::Relaxed) + piece.bytes as u64 >= SYNC_BYTES {
            writing.unsynced.store(0, Ordering::Relaxed);
            self.tell(Message::Written(writing.clone()))?;
        }
        self.one_less(writing.clone())
    }

    /// Notes that there is one thing less to do before a file is complete.
    fn one_less(&self, writing: Arc<Writing>) -> Result<()> {
        if writing.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.tell(Message::Complete(writing)) } else { Ok(()) }
    }

    /// Tells the finisher something, or does what it would do, if there is none.
    fn tell(&self, message: Message) -> Result<()> {
        self.finisher.tell(message, |message| self.finish(message))
    }

    fn finish(&self, message: Message) -> Result<()> {
        // Work that has failed or was cancelled in the last moment is not completed.
        self.progress.check()?;
        match message {
            _ if self.failed.load(Ordering::Relaxed) => Ok(()),
            Message::Written(writing) => writing.out.sync(),
            Message::Complete(writing) => self.sink.complete(&self.files[writing.number], writing.out.clone()),
        }
    }
}
