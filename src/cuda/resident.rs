//! Devices, and images that lie on them: everything that may take a while, so that decoding ([`super::launch`]) need
//! not.
//!
//! A [`Device`] is a context with the kernels loaded in it, a [`Resident`] a group's image in memory of the caller's.
//! Both are immutable; a resident keeps its device alive. Neither owns device memory, and dropping one touches none.

use super::driver::{self, Context, DevicePtr, Driver, Stream, attribute};
use super::image::{ALIGNMENT, Head, Layout, STATE_OFFSET};
use super::kernels::{self, Choice, Kernels};
use super::policy::{self, Job};
use super::upload::{self, Staging};
use crate::error::{Error, Result};
use crate::format::Model;
use std::path::PathBuf;
use std::sync::Arc;

/// How to open a device.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// The driver's library. `None` takes the one that the variable `DF11_LIBCUDA` names, or else the system's.
    pub libcuda: Option<PathBuf>,
    /// Accept the NULL stream: the context's legacy stream. Work in streams that were made non-blocking is not ordered
    /// with it, which is why it is refused otherwise.
    pub allow_default_stream: bool,
    /// Which kernels to take.
    pub kernels: Choice,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its number, as the driver counts.
    pub ordinal: i32,
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub capability: (u32, u32),
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// The driver's CUDA version: 12040 is 12.4.
    pub driver_version: i32,
    /// The name by which the driver was loaded.
    pub libcuda: String,
    /// Which kernels run: `sm_90` for a cubin, `PTX` where the driver compiled them.
    pub kernels: String,
}

/// A device with its kernels loaded. Clones are the same device.
///
/// Any number of threads may use it at once. It is closed when the last clone and the last [`Resident`] are gone.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub driver: &'static Driver,
    pub context: Context,
    pub kernels: &'static Kernels,
    pub capability: u32,
    pub most_shared: u32,
    pub allow_default_stream: bool,
    /// Decoding blocks that the device runs at once, for small and for large tables.
    capacity: [u32; 2],
    pub info: DeviceInfo,
    _primary: Option<Primary>,
}

// SAFETY: a context handle may be used from any thread; all else is plain data.
unsafe impl Send for Shared {}
// SAFETY: as above, and nothing changes after it was made.
unsafe impl Sync for Shared {}

/// A reference to a device's primary context.
struct Primary {
    driver: &'static Driver,
    device: i32,
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: it was retained once for this value, and is released once.
        let release = || unsafe { (self.driver.table.primary_release)(self.device) };
        // The last holder's release frees memory, which must not break a capture on another thread. There is nobody to tell
        // of an error.
        let relaxed = self.driver.relaxed(|| {
            release();
            Ok(())
        });
        if relaxed.is_err() {
            release();
        }
    }
}

impl Device {
    /// Opens a device by its number, in its primary context: the one that the CUDA runtime uses, and so every engine
    /// that does not make contexts of its own. The context is retained, and released when the device is closed. (If
    /// nobody else holds it by then, CUDA ends it with all its memory, and waits for that. An engine does hold it.)
    ///
    /// Everything that may block is done here: the driver is loaded, the kernels too, function by function.
    ///
    /// # Errors
    ///
    /// `NoDriver`; `InvalidArgument` for a number that no device has; `NoKernel`; `Capturing` while a stream of that
    /// context which is ordered with the default stream is being captured (captures of non-blocking streams are left
    /// alone and do not disturb); `Cuda`.
    pub fn open(ordinal: i32, options: &DeviceOptions) -> Result<Device> {
        let driver = driver::load(options.libcuda.as_deref())?;
        let count = driver.device_count()?;
        if !(0..count).contains(&ordinal) {
            return Err(Error::InvalidArgument(format!("there is no CUDA device {ordinal}: there are {count}")));
        }
        let mut device = 0;
        // SAFETY: writes one number.
        driver.check("cuDeviceGet", unsafe { (driver.table.device_get)(&mut device, ordinal) })?;
        // Before a context is made for nothing.
        check_capability(driver, device)?;
        let mut context = std::ptr::null_mut();
        driver.relaxed(|| {
            // SAFETY: writes one handle.
            let code = unsafe { (driver.table.primary_retain)(&mut context, device) };
            driver.check("cuDevicePrimaryCtxRetain", code)
        })?;
        let primary = Primary { driver, device };
        // SAFETY: the context is retained for as long as `primary` lives.
        unsafe { Self::in_context(driver, context, device, Some(primary), options) }
    }

    /// Opens the device of the thread's current context, in that context, which stays the caller's.
    ///
    /// # Errors
    ///
    /// As [`Device::open`]; `InvalidArgument` if no context is current.
    ///
    /// # Safety
    ///
    /// The context lives until the device and its residents are gone.
    pub unsafe fn open_current(options: &DeviceOptions) -> Result<Device> {
        let driver = driver::load(options.libcuda.as_deref())?;
        let (mut context, mut device) = (std::ptr::null_mut(), 0);
        // SAFETY: writes one handle.
        driver.check("cuCtxGetCurrent", unsafe { (driver.table.context_current)(&mut context) })?;
        if context.is_null() {
            return Err(Error::InvalidArgument(
                "no CUDA context is current on this thread: make one current, or open the device by its number".into(),
            ));
        }
        // SAFETY: writes one number.
        driver.check("cuCtxGetDevice", unsafe { (driver.table.context_device)(&mut device) })?;
        check_capability(driver, device)?;
        // SAFETY: by the caller's promise.
        unsafe { Self::in_context(driver, context, device, None, options) }
    }

    /// # Safety
    ///
    /// The context is of that device, and lives for as long as `primary` or, without one, the result.
    unsafe fn in_context(
        driver: &'static Driver,
        context: Context,
        device: i32,
        primary: Option<Primary>,
        options: &DeviceOptions,
    ) -> Result<Device> {
        let capability = check_capability(driver, device)?;
        let most_shared = driver.attribute(device, attribute::MOST_SHARED_BYTES)?.max(0) as u32;
        let multiprocessors = driver.attribute(device, attribute::MULTIPROCESSORS)?.max(1) as u32;
        // SAFETY: by the caller's promise; `refuse_capture` asks the legacy stream of the context that is current then.
        let (kernels, capacity) = driver.relaxed(|| unsafe {
            driver.within(context, || {
                driver.refuse_capture(Stream::from_raw(std::ptr::null_mut()), "opening a device")?;
                let kernels = kernels::load(driver, context, capability, most_shared, options.kernels)?;
                let mut capacity = [0; 2];
                for (capacity, table_bytes) in capacity.iter_mut().zip([policy::TABLE_SMALL, policy::TABLE_LARGE]) {
                    let warps = policy::warps(capability, table_bytes, most_shared);
                    let shared = policy::decode_shared(table_bytes, warps) as usize;
                    let mut blocks = 0;
                    let code =
                        (driver.table.function_occupancy)(&mut blocks, kernels.decode, 32 * warps as i32, shared);
                    driver.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
                    *capacity = multiprocessors.saturating_mul(blocks.max(1) as u32);
                }
                Ok((kernels, capacity))
            })
        })?;
        let info = DeviceInfo {
            ordinal: device,
            name: driver.device_name(device)?,
            capability: (capability / 10, capability % 10),
            multiprocessors,
            driver_version: driver.version,
            libcuda: driver.name.to_string_lossy().into_owned(),
            kernels: kernels.name.clone(),
        };
        Ok(Device(Arc::new(Shared {
            driver,
            context,
            kernels,
            capability,
            most_shared,
            allow_default_stream: options.allow_default_stream,
            capacity,
            info,
            _primary: primary,
        })))
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Takes an image that lies on the device, or will when the stream of the first decode gets there. No CUDA call is
    /// made, and the model is not needed afterwards.
    ///
    /// # Errors
    ///
    /// `NotFound`, `UnsupportedFormat` ([`Layout::of`]), `InvalidArgument`, `BufferTooSmall`, `Misaligned`.
    ///
    /// # Safety
    ///
    /// `bytes` bytes at `image` are memory of this context until the resident is gone and its decodes have ended, and
    /// they hold what [`super::image::write_image`] writes for that group. (What the bytes are is not trusted: other
    /// bytes give other weights, and no stray access.)
    pub unsafe fn bind(&self, model: &Model, group: usize, image: DevicePtr, bytes: u64) -> Result<Resident> {
        let group = group_of(model, group)?;
        let layout = Layout::of(group)?;
        check_image(&layout, image, bytes)?;
        Ok(Resident::new(self, image, layout, &group.cuts()[1..], Vec::new()))
    }

    /// The same without the model: `head` are the image's first bytes, at least as many as its head has
    /// ([`super::image::Layout::head_bytes`]; the whole image will do), in host memory. They are checked as hostile.
    ///
    /// # Errors
    ///
    /// As [`Head::parse`]; `InvalidArgument`, `BufferTooSmall`, `Misaligned`.
    ///
    /// # Safety
    ///
    /// As [`Device::bind`], with the image that `head` is the beginning of.
    pub unsafe fn bind_image(&self, head: &[u8], image: DevicePtr, bytes: u64) -> Result<Resident> {
        let head = Head::parse(head)?;
        check_image(head.layout(), image, bytes)?;
        Ok(Resident::new(self, image, *head.layout(), head.ends(), Vec::new()))
    }

    /// Makes a group's image on the device, in stream order: copies the group's parts there and has a kernel make the
    /// index from the file's gaps and positions. Work that is put into the stream behind it may use the image.
    ///
    /// Without `staging` a file that is mapped, or lies in memory, is copied from where it lies: the model and the
    /// resident must stay until the stream has passed the upload. With `staging` the file's bytes go through that
    /// memory, half by half; it should be pinned, and must stay until the stream has passed the upload, but the model
    /// need not. A file that is read piece by piece needs memory to be read to: without `staging` 2 MiB are allocated
    /// for the call, and the call waits for the stream until the last copy is done.
    ///
    /// Whether gaps and positions fit the codes is found out on the device: decoding then reports `CORRUPT` in its
    /// status.
    ///
    /// # Errors
    ///
    /// As [`Device::bind`]; `DefaultStream`, `WrongDevice`, `Capturing` (an upload cannot be captured), `Cuda`, `Io`,
    /// `Corrupt` if a file has become shorter. After the latter four some of the work may be in the stream, so the
    /// memory must stay until the stream has passed it; what lies in it is no image.
    ///
    /// # Safety
    ///
    /// `bytes` bytes at `image` are memory of this context until the resident is gone and its decodes have ended,
    /// `stream` is a stream, and what must stay stays.
    pub unsafe fn upload(
        &self,
        model: &Model,
        group: usize,
        image: DevicePtr,
        bytes: u64,
        stream: Stream,
        staging: Option<Staging>,
    ) -> Result<Resident> {
        let head = Head::of(group_of(model, group)?)?;
        check_image(head.layout(), image, bytes)?;
        self.0.check_null(stream)?;
        // SAFETY: by the caller's promise; the head's bytes are kept in the resident.
        let bytes = unsafe { upload::upload(&self.0, model, group, &head, image, stream, staging)? };
        Ok(Resident::new(self, image, *head.layout(), head.ends(), bytes))
    }
}

impl Shared {
    /// Refuses the NULL stream where it is not wanted.
    #[inline]
    pub fn check_null(&self, stream: Stream) -> Result<()> {
        if stream.raw().is_null() && !self.allow_default_stream { Err(Error::DefaultStream) } else { Ok(()) }
    }

    /// Refuses streams of other contexts. One of the three that belong to whichever context is current is always right.
    ///
    /// # Safety
    ///
    /// `stream` is a stream.
    #[inline]
    pub unsafe fn check_stream(&self, stream: Stream) -> Result<()> {
        if stream.is_of_any_context() {
            return Ok(());
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: by the caller's promise; writes one handle.
        let code = unsafe { (self.driver.table.stream_context)(stream.raw(), &mut context) };
        self.driver.check("cuStreamGetCtx", code)?;
        if context == self.context {
            return Ok(());
        }
        Err(Error::WrongDevice("the stream belongs to another context than the device".into()))
    }

    /// Decoding blocks that run at once with a table of so many bytes.
    #[inline]
    pub fn capacity(&self, table_bytes: u32) -> u32 {
        self.capacity[usize::from(table_bytes > policy::TABLE_SMALL)]
    }
}

/// A device's compute capability, major · 10 + minor, if there are kernels for it.
fn check_capability(driver: &Driver, device: i32) -> Result<u32> {
    let major = driver.attribute(device, attribute::CAPABILITY_MAJOR)?;
    let minor = driver.attribute(device, attribute::CAPABILITY_MINOR)?;
    let capability = (10 * major + minor).max(0) as u32;
    if capability < kernels::OLDEST_CAPABILITY {
        let reason = format!("its compute capability is {major}.{minor}, and 7.5 is the oldest");
        return Err(Error::NoKernel { reason, code: 0 });
    }
    Ok(capability)
}

fn group_of(model: &Model, group: usize) -> Result<&crate::format::Group> {
    let groups = model.groups();
    groups
        .get(group)
        .ok_or_else(|| Error::NotFound(format!("there is no group {group}: the model has {}", groups.len())))
}

fn check_image(layout: &Layout, image: DevicePtr, bytes: u64) -> Result<()> {
    if image == 0 {
        return Err(Error::InvalidArgument("the image's address is 0".into()));
    }
    if !image.is_multiple_of(ALIGNMENT) {
        return Err(Error::Misaligned { what: "the image's address".into(), to: ALIGNMENT as usize });
    }
    if bytes < layout.image_bytes {
        return Err(Error::BufferTooSmall {
            what: "the image's memory".into(),
            needed: layout.image_bytes,
            given: bytes,
        });
    }
    if image.checked_add(layout.image_bytes).is_none() {
        return Err(Error::InvalidArgument("the image leaves the address space".into()));
    }
    Ok(())
}

/// A group's image on a device, ready to be decoded. Dropping it touches no device memory and waits for nothing:
/// decodes that are running go on.
///
/// Any number of threads may use it at once.
pub struct Resident {
    pub(super) device: Device,
    pub(super) layout: Layout,
    pub(super) ends: Box<[u64]>,
    /// A job for the whole group, but for what a call says.
    pub(super) template: Job,
    /// What an upload copied from. The driver may read it until the stream has passed the upload.
    _head: Vec<u8>,
}

impl Resident {
    fn new(device: &Device, image: DevicePtr, layout: Layout, ends: &[u64], head: Vec<u8>) -> Resident {
        let template = Job {
            weights: layout.weights,
            state: image + STATE_OFFSET,
            table: image + layout.table,
            starts: image + layout.starts,
            lanes: image + layout.lanes,
            code: image + layout.code,
            signs: image + layout.signs,
            code_units: layout.code_units(),
            tiles: layout.tiles,
            table_bytes: layout.table_bytes,
            ..Job::default()
        };
        Resident { device: device.clone(), layout, ends: ends.into(), template, _head: head }
    }

    /// The device that it is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where the image lies.
    pub fn image(&self) -> DevicePtr {
        self.template.state - STATE_OFFSET
    }

    /// What lies where in it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Weights before the end of each tensor of the group; the last is their number.
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }
}
