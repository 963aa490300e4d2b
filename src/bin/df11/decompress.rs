//! `df11 decompress`: a model back to one plain safetensors file.
//!
//! This thread fills buffers with the tensors in the order of the file, and decodes with as many threads as it is given. A second
//! thread writes the buffers and gives them back. So decoding and writing overlap, and memory is two buffers and the decoder's
//! scratch, however large the model is.

use crate::output::{Output, OutputFile};
use crate::terminal::{Progress, bytes, clean, counted, print, took};
use crate::{Failure, Reading, Threads, interrupt};
use df11::writer::{FileLayout, LayoutTensor, NewFile};
use df11::{DecodeOptions, Model, Tensor};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;

/// Bytes of one buffer, which is large enough to keep 32 threads busy.
const BUFFER_BYTES: usize = 16 << 20;
const BUFFERS: usize = 2;
/// Bytes after which what was written is brought to the disk. Otherwise the end could take minutes during which the bar stands still
/// and Ctrl-C does nothing.
const SYNC_BYTES: u64 = 256 << 20;

/// Turns a model back into one plain safetensors file, bit for bit
///
/// All tensors get their original names, the compressed ones as BF16. DF11 does not store their shapes. They are those that
/// the model's metadata gives, those of --shapes-from, and those that follow from the config and the plain tensors with
/// certainty; a tensor whose shape nothing says has one dimension. OUT has its name when it is complete, and not before.
#[derive(clap::Args)]
pub struct DecompressArgs {
    /// A folder with *.safetensors files, or one such file
    model: PathBuf,
    /// The file to write, which is a new one
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Replace OUT if it is there already, when the new file is complete
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the subcommand.
pub fn run(args: &DecompressArgs, quiet: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let model = args.reading.open(&args.model)?;
    let (layout, tensors) = lay_out(&model)?;
    let beside = config_beside(&args.model);
    let inputs = model.files().map(|f| f.file).chain(args.reading.config()).chain(beside.iter().map(PathBuf::as_path));
    let output = Output::new(&args.output, args.force, inputs)?;
    if would_join(&args.output, &args.model) {
        let reason = "would be taken for a part of the model, whose folder it is in: write it elsewhere";
        return Err(Failure::cannot(format!("'{}' {reason}", clean(&args.output.display().to_string()))));
    }
    let output = output.begin(layout.bytes())?;
    let progress = Progress::new("decompressing", data_bytes(&layout), quiet);
    let options = DecodeOptions::new().threads(args.threads.count());
    stream(&layout, &tensors, &output, &options, &progress)?;
    output.commit()?;
    drop(progress);
    if quiet {
        return Ok(());
    }
    let (count, size) = (counted(tensors.len() as u64, "tensor"), layout.bytes());
    let mut text =
        format!("{}: {count}, {}{}\n", clean(&args.output.display().to_string()), bytes(size), took(start.elapsed()));
    let flat = tensors.iter().filter(|t| !t.shape_known()).count() as u64;
    if flat > 0 {
        let (have, shapes) = if flat == 1 { ("has", "its shape is") } else { ("have", "their shapes are") };
        text += &format!(
            "{} {have} one dimension: {shapes} not in the model (--shapes-from ORIGINAL takes them from the original's headers)\n",
            counted(flat, "tensor")
        );
    }
    print(&text)
}

/// Returns where a model's config may be.
fn config_beside(model: &Path) -> Vec<PathBuf> {
    if model.is_dir() {
        vec![model.join("config.json")]
    } else {
        vec![model.with_file_name("config.json"), model.with_extension("config.json")]
    }
}

/// Tells whether a model that is a folder would be opened with this file the next time.
fn would_join(output: &Path, model: &Path) -> bool {
    let folder = output.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let same = || Some(folder?.canonicalize().ok()? == model.canonicalize().ok()?);
    output.extension().is_some_and(|e| e == "safetensors") && model.is_dir() && same() == Some(true)
}

/// Lays the file out. Returns the layout, and every tensor of the model in the order of their bytes.
fn lay_out(model: &Model) -> Result<(FileLayout, Vec<Tensor<'_>>), Failure> {
    let tensor = |t: Tensor| LayoutTensor {
        name: t.name().to_owned(),
        dtype: t.dtype(),
        shape: t.shape().to_vec(),
        bytes: t.bytes(),
    };
    // Without this word some versions of transformers refuse a file.
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let layout = FileLayout::new(model.tensors().map(tensor).collect(), &format)?;
    let by_name = |(t, _): (&LayoutTensor, u64)| model.find_tensor(&t.name);
    let tensors = layout.tensors().filter_map(by_name).collect();
    Ok((layout, tensors))
}

fn data_bytes(layout: &FileLayout) -> u64 {
    layout.bytes() - layout.header().len() as u64
}

/// A buffer, and how many of its bytes are filled. It consists of words, so that bf16 values in it are aligned.
struct Buffer {
    words: Vec<u64>,
    filled: usize,
}

impl Buffer {
    fn bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }
}

/// Writes the whole file.
fn stream(
    layout: &FileLayout,
    tensors: &[Tensor],
    output: &OutputFile,
    options: &DecodeOptions,
    progress: &Progress,
) -> Result<(), Failure> {
    let file = output.file();
    file.write_at(0, layout.header())?;
    let start = layout.header().len() as u64;
    let size = data_bytes(layout).min(BUFFER_BYTES as u64) as usize;
    let (give_back, empty) = channel();
    for _ in 0..BUFFERS {
        let mut words = Vec::new();
        words.try_reserve_exact(size.div_ceil(8)).map_err(|_| Failure::cannot("out of memory for the buffers"))?;
        words.resize(size.div_ceil(8), 0);
        // Cannot fail: the other end is in this function.
        let _ = give_back.send(Buffer { words, filled: 0 });
    }
    let (send, full) = sync_channel(BUFFERS);
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .spawn_scoped(scope, move || write(file, start, &full, &give_back))
            .map_err(|e| Failure::cannot(format!("cannot start a thread: {e}")))?;
        // This ends by itself if the writer has ended, whose error is then the one to report.
        let filled = fill(tensors, &empty, send, options, progress);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.map_err(Failure::from).and(filled)
    })
}

/// Writes buffers one after the other from a byte of the file on, as they come, until no more can come.
fn write(file: &NewFile, mut at: u64, full: &Receiver<Buffer>, give_back: &Sender<Buffer>) -> df11::Result<()> {
    let mut unsynced = 0;
    while let Ok(mut buffer) = full.recv() {
        let filled = buffer.filled;
        file.write_at(at, &buffer.bytes()[..filled])?;
        at += filled as u64;
        unsynced += filled as u64;
        if unsynced >= SYNC_BYTES {
            file.sync()?;
            unsynced = 0;
        }
        buffer.filled = 0;
        // Nobody waits for it when all is filled.
        let _ = give_back.send(buffer);
    }
    Ok(())
}

/// Fills buffers with the tensors' bytes and sends them off.
fn fill(
    tensors: &[Tensor],
    empty: &Receiver<Buffer>,
    send: SyncSender<Buffer>,
    options: &DecodeOptions,
    progress: &Progress,
) -> Result<(), Failure> {
    let Ok(mut buffer) = empty.recv() else { return Ok(()) };
    for tensor in tensors {
        let mut done = 0;
        while done < tensor.bytes() {
            interrupt::check()?;
            let filled = buffer.filled;
            let room = buffer.bytes().get_mut(filled..).unwrap_or_default();
            let len = (tensor.bytes() - done).min(room.len() as u64) as usize;
            // The widest types come first, so the end of a buffer, which is a multiple of 8, never cuts a weight in two.
            tensor.read(done, &mut room[..len], options)?;
            buffer.filled += len;
            done += len as u64;
            if buffer.filled == buffer.bytes().len() {
                progress.advance(buffer.filled as u64);
                if send.send(buffer).is_err() {
                    return Ok(());
                }
                match empty.recv() {
                    Ok(next) => buffer = next,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
    progress.advance(buffer.filled as u64);
    let _ = send.send(buffer);
    Ok(())
}
