//! The images of a model's groups as files, with an index: what a loader brings to a device as it is.
//!
//! One image at a time is made in memory, on all threads, and written from there; another thread brings it to the disk while the
//! next one is made. The folder is marked as unfinished until the index is there, which comes last.

use super::check_destination;
use super::folder::{Made, claim_new};
use super::select::group as named;
use crate::cuda::ImageLayout;
use crate::cuda::image::IMAGE_VERSION;
use crate::error::{Error, Place, Result, grow, shorten_path};
use crate::format::{Access, Group, Model, OpenOptions, read_text};
use crate::host::run_threads;
use crate::progress::Progress;
use crate::writer::finisher::Finisher;
use crate::writer::target::{Entry, Folder, PartialFile};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The size of every file of an image is a multiple of this, so that the whole file can be read past the system's cache: 4,096.
pub const IMAGE_FILE_ALIGNMENT: u64 = 4096;
/// The name of the index.
const INDEX: &str = "images.json";
/// The key of the index's version, which is also what an index is known by.
const INDEX_KEY: &str = "df11_images";
const INDEX_VERSION: u64 = 1;
/// Bytes that a thread writes at a time.
const PIECE: u64 = 8 << 20;
/// Parts of an image for each thread: after each of them it looks whether to go on.
const PARTS: usize = 16;
const MOST_THREADS: usize = 128;

/// Options to write images.
///
/// ```
/// use df11::writer::ImagesOptions;
/// let options = ImagesOptions::new().threads(8).groups(["model.layers.0"]);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImagesOptions {
    /// Number of threads, including the calling one; 0 means 1. One more thread brings files to the disk.
    pub threads: usize,
    /// How the model is opened.
    pub open: OpenOptions,
    /// The names of groups whose images are written. If there are none, all are.
    pub groups: Vec<String>,
    /// Fail with [`Error::Exists`](crate::Error::Exists) if images are there. Otherwise they are removed before the new ones
    /// are written. Nothing else is ever removed.
    pub keep_existing: bool,
    /// Accept a model that lacks files, tensors or layers, and write what is there. Without it such a model is refused; one of
    /// which `groups` are chosen never is.
    pub incomplete: bool,
}

impl ImagesOptions {
    /// Returns the defaults: one thread, all groups, and images that are there are removed.
    pub fn new() -> ImagesOptions {
        ImagesOptions::default()
    }

    /// Sets the threads to work with, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets how the model is opened.
    pub fn open(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }

    /// Sets the names of the groups whose images are written.
    pub fn groups(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether to fail instead of removing images that are there.
    pub fn keep_existing(mut self, keep_existing: bool) -> Self {
        self.keep_existing = keep_existing;
        self
    }

    /// Sets whether a model that lacks something is accepted.
    pub fn incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }
}

/// The result of writing images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImagesReport {
    /// Images that were written, each to a file.
    pub images: u64,
    /// Bytes of these files.
    pub written_bytes: u64,
    /// Bytes of the largest image: the memory that the call took, roughly.
    pub largest_bytes: u64,
}

/// A file to be made.
struct ImageFile<'m> {
    group: Group<'m>,
    name: PathBuf,
    layout: ImageLayout,
}

impl<'m> ImageFile<'m> {
    fn new(group: Group<'m>) -> Result<ImageFile<'m>> {
        let name = format!("group-{:05}.image", group.number()).into();
        Ok(ImageFile { group, name, layout: group.image_layout()? })
    }

    fn file_bytes(&self) -> u64 {
        // An image has at most some 18 GB.
        self.layout.image_bytes.next_multiple_of(IMAGE_FILE_ALIGNMENT)
    }

    /// Returns what the index says of it.
    fn entry(&self) -> Value {
        let tensors: Vec<Value> = self
            .group
            .runs()
            .map(|run| {
                let tensor = run.tensor();
                let mut entry = json!({
                    "name": tensor.name(),
                    "group_offset": run.group_offset(),
                    "element_count": run.element_count(),
                });
                if tensor.runs().len() > 1 {
                    entry["tensor_offset"] = run.tensor_offset().into();
                }
                if tensor.shape_known() {
                    entry["shape"] = tensor.shape().into();
                }
                entry
            })
            .collect();
        json!({
            "group": self.group.name(),
            "file": self.name.to_string_lossy(),
            "file_bytes": self.file_bytes(),
            "image_bytes": self.layout.image_bytes,
            "head_bytes": self.layout.head_bytes(),
            "element_count": self.layout.weights,
            "tensors": tensors,
        })
    }
}

/// Writes the image of each group of a model to a file of its own in a folder, and an index, `images.json`. The files are what
/// [`Group::write_image`] makes, with zeros up to a multiple of [`IMAGE_FILE_ALIGNMENT`], so that they can be read straight to a
/// device and used there with [`Device::bind_image`](crate::cuda::Device::bind_image). Nothing of the model is changed.
///
/// The folder is new or empty. While it is unfinished it has no index. A failure leaves nothing; what a killed process has left
/// is removed by the next one that writes there. The memory for the largest image is taken.
///
/// # Errors
///
/// - `Exists` and `Busy` for what is at the destination already;
/// - `NotFound` for the name of a group that is not there;
/// - `InvalidArgument` for what the caller can change, such as a model that is not compressed;
/// - `InvalidFormat`, `UnsupportedFormat` and `Corrupt` for what is wrong with the model, the first also if it lacks something,
///   unless `incomplete` is set;
/// - `Io`, `OutOfMemory`; `Cancelled` by `progress`.
pub fn write_images(
    source: &Path,
    destination: &Path,
    options: &ImagesOptions,
    progress: &Progress,
) -> Result<ImagesReport> {
    progress.begin(0);
    progress.check()?;
    let model =
        Model::open_watched(source, &options.open, Access::Read, progress)?.verified(&options.open, progress)?;
    if options.groups.is_empty() {
        model.require_whole(source, "write", options.incomplete, progress)?;
    }
    if model.groups().len() == 0 {
        let reason = format!("'{}' is not compressed: it has no images", shorten_path(source));
        return Err(Error::InvalidArgument(reason));
    }
    check_destination(destination, None, source, &model)?;
    let mut chosen: Vec<Group> = options.groups.iter().map(|name| named(&model, name)).collect::<Result<_>>()?;
    chosen.sort_by_key(|group| group.number());
    chosen.dedup_by_key(|group| group.number());
    if options.groups.is_empty() {
        chosen = model.groups().collect();
    }
    let files: Vec<ImageFile> = chosen.into_iter().map(ImageFile::new).collect::<Result<_>>()?;
    remove_images(destination, options.keep_existing)?;

    let largest = files.iter().map(|file| file.layout.image_bytes).max().unwrap_or_default();
    let total = files.iter().map(ImageFile::file_bytes).sum();
    progress.begin(total);
    let claim = claim_new(destination)?;
    let made = Made::new(&claim, total);
    run(&files, &made, options.threads.clamp(1, MOST_THREADS), progress)?;
    progress.check()?;
    made.text(INDEX, &index(&files, largest))?;
    made.complete()?;
    claim.keep();
    progress.finish();
    Ok(ImagesReport { images: files.len() as u64, written_bytes: total, largest_bytes: largest })
}

/// Returns the text of the index, with a line for each image.
fn index(files: &[ImageFile], largest: u64) -> String {
    let largest = largest.next_multiple_of(IMAGE_FILE_ALIGNMENT);
    let mut text = format!(
        "{{\"{INDEX_KEY}\": {INDEX_VERSION}, \"image_version\": {IMAGE_VERSION}, \
         \"alignment\": {IMAGE_FILE_ALIGNMENT}, \"largest_file_bytes\": {largest}, \"images\": ["
    );
    for (number, file) in files.iter().enumerate() {
        text += if number == 0 { "\n" } else { ",\n" };
        text += &file.entry().to_string();
    }
    text + "\n]}\n"
}

/// Makes and writes all files.
fn run(files: &[ImageFile], made: &Made, threads: usize, progress: &Progress) -> Result<()> {
    let (finisher, failed) = (Finisher::<(&ImageFile, Arc<PartialFile>)>::new(), AtomicBool::new(false));
    let finish = |(file, out): (&ImageFile, Arc<PartialFile>)| {
        let finished = progress.check().and_then(|()| made.complete_file(&file.name, &out));
        finished.inspect_err(|_| failed.store(true, Ordering::Relaxed))
    };
    let work = || {
        let mut words = Vec::new();
        for file in files {
            if failed.load(Ordering::Relaxed) {
                // The finisher has the error.
                return Ok(());
            }
            let out = made.begin_file(&file.name, file.file_bytes())?;
            let words_of_it = (file.layout.image_bytes / 8) as usize;
            grow(&mut words, words_of_it, 0u64, "an image")?;
            let image: &mut [u8] = bytemuck::cast_slice_mut(&mut words[..words_of_it]);
            make(file, image, threads, progress)?;
            write(image, &out, threads, progress)?;
            progress.advance(file.file_bytes() - file.layout.image_bytes);
            finisher.tell((file, Arc::new(out)), finish)?;
        }
        Ok(())
    };
    let (worked, finished) = finisher.run(1, finish, work);
    finished.and(worked)
}

/// Makes an image in memory.
fn make(file: &ImageFile, image: &mut [u8], threads: usize, progress: &Progress) -> Result<()> {
    let (next, parts) = (AtomicU64::new(0), (threads * PARTS) as u64);
    let (at, bytes) = (Shared(image.as_mut_ptr()), image.len() as u64);
    run_threads(threads, || {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok(());
            }
            // SAFETY: the bytes are this call's alone, and its threads take different parts.
            let written =
                progress.check().and_then(|()| unsafe { file.group.write_image_part(at.get(), bytes, part, parts) });
            // The others take no more.
            written.inspect_err(|_| next.store(parts, Ordering::Relaxed))?;
        }
    })
}

/// Writes an image to its file.
fn write(image: &[u8], out: &PartialFile, threads: usize, progress: &Progress) -> Result<()> {
    let next = AtomicU64::new(0);
    run_threads(threads, || {
        loop {
            progress.check()?;
            let from = next.fetch_add(PIECE, Ordering::Relaxed) as usize;
            if from >= image.len() {
                return Ok(());
            }
            let piece = &image[from..image.len().min(from + PIECE as usize)];
            out.write_at(from as u64, piece)?;
            progress.advance(piece.len() as u64);
        }
    })
}

/// The memory of an image, of which threads write different parts.
struct Shared(*mut u8);

// SAFETY: who uses the pointer says why its writes are disjoint.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *mut u8 {
        self.0
    }
}

/// Removes what an earlier run has written to a folder: the index and the files that it names.
///
/// # Errors
///
/// `Exists` if they are there and are to be kept; `InvalidFormat` if the index is none, so that nothing else is removed; `Io`.
fn remove_images(folder: &Path, keep: bool) -> Result<()> {
    let path = folder.join(INDEX);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if keep {
        return Err(Error::Exists(path));
    }
    let text = read_text(&path)?.unwrap_or_default();
    let index: Option<Value> = serde_json::from_slice(&text).ok();
    let images = index.as_ref().filter(|index| index.get(INDEX_KEY).is_some_and(Value::is_u64));
    let Some(images) = images.and_then(|index| index.get("images")).and_then(Value::as_array) else {
        return Err(Error::invalid(Place::of(&path), "this is not the index of images, and is not replaced"));
    };
    let open = Arc::new(Folder::open(folder)?);
    let remove = |name: &str| {
        let entry = Entry { folder: open.clone(), name: name.into() };
        match entry.remove() {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", entry.path(), e)),
            _ => Ok(()),
        }
    };
    // The index last, so that a process that is killed meanwhile leaves what the next one can remove.
    let names = images.iter().filter_map(|image| image.get("file")?.as_str());
    names.filter(|name| is_ours(name)).try_for_each(remove)?;
    remove(INDEX)
}

/// Returns whether a name is one that this writer gives: an index that somebody has made may name anything.
fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix("group-").and_then(|rest| rest.strip_suffix(".image"));
    number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()))
}
