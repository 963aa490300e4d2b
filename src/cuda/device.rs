//! Devices: a CUDA context with the kernels loaded in it. Everything that may block is done when a device is opened, so
//! that decoding ([`super::launch`]) never has to.

use super::driver::{self, Context, Driver, Function, GreenContext, LaunchAttribute, LaunchConfig, Stream, attribute};
use super::kernels::{self, Choice, Kernels, Target};
use super::policy::{self, Form};
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The oldest driver version with which decodes may start early: earlier ones cannot capture that.
const OLDEST_EARLY_DRIVER: i32 = 12_030;

/// Options of [`Device::open`] and [`Device::open_current`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeviceOptions {
    libcuda: Option<PathBuf>,
    /// Accept the NULL stream, which is the context's legacy stream. It is refused by default because work in
    /// non-blocking streams is not ordered with it.
    pub allow_default_stream: bool,
    /// The kernels to load.
    pub kernels: Choice,
    /// The most multiprocessors whose room the kernels of a call take, 0 for all, so that your own kernels find room beside
    /// them. It limits how many blocks a call launches; where these run is the device's choice. A batch has the limit
    /// of its first group's device.
    pub multiprocessors: u32,
    /// Let decodes start before the kernel before them in the stream has ended (programmatic dependent launch): they read
    /// the image at once, and wait for that kernel before they write anything. It has an effect on devices of compute
    /// capability 9.0 and later with a driver of CUDA 12.3 or later; elsewhere decodes start when they always do.
    ///
    /// It requires of every decode that the image was complete before the kernel before it began: put anything but a
    /// kernel between an upload and the first decode, such as an event that you wait for. Otherwise the decode
    /// may read what the upload has not written yet, and give wrong weights.
    pub early_start: bool,
}

impl DeviceOptions {
    /// Loads the driver from `path` instead of from the variable `DF11_LIBCUDA` or the system's usual place.
    ///
    /// # Safety
    ///
    /// The file at `path` is a CUDA driver library, or it does not exist. Loading it runs its initialisers, and its
    /// functions are called with the signatures of CUDA 12.0.
    pub unsafe fn libcuda(mut self, path: impl Into<PathBuf>) -> Self {
        self.libcuda = Some(path.into());
        self
    }

    /// Sets [`DeviceOptions::allow_default_stream`].
    pub fn allow_default_stream(mut self, allow: bool) -> Self {
        self.allow_default_stream = allow;
        self
    }

    /// Sets [`DeviceOptions::kernels`].
    pub fn kernels(mut self, choice: Choice) -> Self {
        self.kernels = choice;
        self
    }

    /// Sets [`DeviceOptions::early_start`].
    pub fn early_start(mut self, early: bool) -> Self {
        self.early_start = early;
        self
    }

    /// Sets [`DeviceOptions::multiprocessors`].
    pub fn multiprocessors(mut self, most: u32) -> Self {
        self.multiprocessors = most;
        self
    }
}

/// Properties of an open device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The device's ordinal, as the driver counts.
    pub ordinal: i32,
    /// The device's name.
    pub name: String,
    /// The compute capability: major, minor.
    pub capability: (u32, u32),
    /// The number of multiprocessors, whatever the options say.
    pub multiprocessors: u32,
    /// The driver's CUDA version: 12040 is 12.4.
    pub driver_version: i32,
    /// The name by which the driver was loaded.
    pub libcuda: String,
    /// The kernels that run: `sm_90` for a cubin, `PTX` where the driver compiled them.
    pub kernels: String,
}

/// A device with its kernels loaded. Clones are the same device.
///
/// Any number of threads may use it at once. It is closed when the last clone and the last [`super::Resident`] are
/// dropped.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Opened>);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.0.info).finish()
    }
}

/// The parts of a [`Device`].
pub(super) struct Opened {
    pub driver: &'static Driver,
    /// The context of all streams that are accepted.
    pub context: Context,
    /// The context that the device was opened in: the same, or a green context of it. The special streams are its.
    own: Context,
    pub kernels: Kernels,
    pub capability: u32,
    /// Bytes of shared memory that a block may have.
    pub most_shared: u32,
    pub allow_default_stream: bool,
    /// Decodes start before the kernel before them has ended.
    pub is_early: bool,
    /// Decoding blocks that a multiprocessor runs at once, for each form of table.
    blocks: [u32; 3],
    /// The same for blocks that decode linear images.
    linear_blocks: u32,
    /// The multiprocessors that `context` and `own` may use.
    multiprocessors: [u32; 2],
    /// The most multiprocessors of a call.
    most_multiprocessors: u32,
    parts: Parts,
    pub info: DeviceInfo,
    _primary: Option<Primary>,
}

// SAFETY: context and function handles may be used from any thread; all other fields are plain data.
unsafe impl Send for Opened {}
// SAFETY: nothing but atomics changes after construction, and the driver's entry points may be called from any thread.
unsafe impl Sync for Opened {}

/// How much of a device the kernels of a call may take.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// The multiprocessors that they should fill.
    pub multiprocessors: u32,
    /// True if the options say so: there are more.
    pub is_limited: bool,
}

/// The sizes of green contexts that were met, remembered without a lock. A word holds a green context's number, and in its
/// lowest [`Parts::COUNT_BITS`] how many multiprocessors it has. What does not fit into a word is not remembered.
#[derive(Default)]
struct Parts([AtomicU64; 8]);

impl Parts {
    const COUNT_BITS: u32 = 16;

    /// Returns the word of a green context. Others may have the same.
    fn word(&self, id: u64) -> &AtomicU64 {
        // The upper bits of the product depend on all bits of the number.
        &self.0[(id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61) as usize]
    }

    /// Returns the number of multiprocessors, if it is remembered.
    #[inline]
    fn get(&self, id: u64) -> Option<u32> {
        let word = self.word(id).load(Ordering::Relaxed);
        let count = word as u32 & ((1 << Self::COUNT_BITS) - 1);
        (word >> Self::COUNT_BITS == id && count > 0).then_some(count)
    }

    /// Remembers a number of multiprocessors.
    fn set(&self, id: u64, count: u32) {
        if id.leading_zeros() >= Self::COUNT_BITS && count >> Self::COUNT_BITS == 0 {
            self.word(id).store(id << Self::COUNT_BITS | u64::from(count), Ordering::Relaxed);
        }
    }
}

/// A reference to a device's primary context, released on drop.
struct Primary {
    driver: &'static Driver,
    device: i32,
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: the context was retained once for this value, and is released once.
        let release = || unsafe { (self.driver.api.primary_release)(self.device) };
        // The last release frees memory, which must not break a capture on another thread. Drop cannot report an error.
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
    /// Opens a device by its ordinal, in its primary context: the one that the CUDA runtime uses, and so does every
    /// engine that does not create contexts. The context is retained, and released when the device is closed. (If
    /// nobody else holds it by then, CUDA destroys it with all its memory, and waits for that. An engine does hold it.)
    ///
    /// Everything that may block is done here: the driver is loaded, and each function of the kernels.
    ///
    /// # Errors
    ///
    /// `NoDriver`; `InvalidArgument` if no device has that ordinal; `NoKernel`; `Capturing` while a stream of that
    /// context which is ordered with the default stream is being captured (captures of non-blocking streams do not
    /// conflict and are not disturbed); `Cuda`.
    pub fn open(ordinal: i32, options: &DeviceOptions) -> Result<Device> {
        let driver = driver::load(options.libcuda.as_deref())?;
        let count = driver.device_count()?;
        if !(0..count).contains(&ordinal) {
            return Err(Error::InvalidArgument(format!("there is no CUDA device {ordinal}: there are {count}")));
        }
        let mut device = 0;
        // SAFETY: the call writes one number.
        driver.check("cuDeviceGet", unsafe { (driver.api.device_get)(&mut device, ordinal) })?;
        // Checked before a context is created that could not be used.
        check_capability(driver, device)?;
        let mut context = std::ptr::null_mut();
        driver.relaxed(|| {
            // SAFETY: the call writes one handle.
            let code = unsafe { (driver.api.primary_retain)(&mut context, device) };
            driver.check("cuDevicePrimaryCtxRetain", code)
        })?;
        let primary = Primary { driver, device };
        // SAFETY: the context is this device's, and `primary` retains it.
        unsafe { Self::in_context(driver, context, context, device, Some(primary), options) }
    }

    /// Opens the device of the thread's current context, in that context, which you continue to own.
    ///
    /// If it is a green context (CUDA 12.5), streams of all green contexts of that device are accepted, and of its primary
    /// context; the NULL stream and `CU_STREAM_LEGACY` are the default stream of the current one.
    ///
    /// # Errors
    ///
    /// As [`Device::open`]; `InvalidArgument` if no context is current.
    ///
    /// # Safety
    ///
    /// The context must stay alive until the device and its residents are dropped.
    pub unsafe fn open_current(options: &DeviceOptions) -> Result<Device> {
        let driver = driver::load(options.libcuda.as_deref())?;
        let (mut context, mut device) = (std::ptr::null_mut(), 0);
        // SAFETY: the call writes one handle.
        driver.check("cuCtxGetCurrent", unsafe { (driver.api.context_current)(&mut context) })?;
        if context.is_null() {
            return Err(Error::InvalidArgument(
                "no CUDA context is current on this thread: make one current, or open the device by its number".into(),
            ));
        }
        // SAFETY: the call writes one number.
        driver.check("cuCtxGetDevice", unsafe { (driver.api.context_device)(&mut device) })?;
        check_capability(driver, device)?;
        // A green context's streams are told to be of a regular one.
        let regular = if driver.knows_green_contexts() {
            // SAFETY: the legacy stream is the current context's.
            unsafe { driver.stream_contexts(Stream::LEGACY)? }.0
        } else {
            context
        };
        // SAFETY: the driver named the device of this context, which the caller keeps alive as long as the device, and a
        // green context keeps its regular one alive.
        unsafe { Self::in_context(driver, regular, context, device, None, options) }
    }

    /// Opens a device in the context `own`, whose regular context is `context`.
    ///
    /// # Safety
    ///
    /// The contexts are of that device, and live as long as `primary` or, without one, as long as the result.
    unsafe fn in_context(
        driver: &'static Driver,
        context: Context,
        own: Context,
        device: i32,
        primary: Option<Primary>,
        options: &DeviceOptions,
    ) -> Result<Device> {
        let capability = check_capability(driver, device)?;
        let most_shared = driver.attribute(device, attribute::MOST_SHARED_BYTES)?.max(0) as u32;
        let all = driver.attribute(device, attribute::MULTIPROCESSORS)?.max(1) as u32;
        let is_integrated = driver.attribute(device, attribute::INTEGRATED)? == 1;
        let target = Target { device, capability, most_shared, is_integrated };
        // SAFETY: both contexts live.
        let multiprocessors = [context, own].map(|of| unsafe { driver.multiprocessors(of) }.unwrap_or(all));
        // SAFETY: the context lives and is current within; NULL is its legacy stream there; the occupancy call writes
        // one number, for a function that is loaded.
        let (kernels, blocks, linear_blocks) = driver.relaxed(|| unsafe {
            driver.within(context, || {
                driver.refuse_capture(Stream::from_raw(std::ptr::null_mut()), "opening a device")?;
                let kernels = kernels::load(driver, target, options.kernels)?;
                let mut all_blocks = [0; 3];
                for (kept, form) in all_blocks.iter_mut().zip(Form::ALL) {
                    let warps = policy::warps(capability, form, most_shared);
                    let shared = form.decode_shared(warps) as usize;
                    let mut blocks = 0;
                    let code = (driver.api.function_occupancy)(&mut blocks, kernels.decode, 32 * warps as i32, shared);
                    driver.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
                    *kept = blocks.max(1) as u32;
                    log::debug!(
                        "df11_decode, tables up to {} bytes: {warps} warps and {shared} shared bytes a block, {blocks} \
                         blocks a multiprocessor, {} multiprocessors",
                        form.table_shared(),
                        multiprocessors[1],
                    );
                }
                let (mut linear, threads) = (0, 32 * policy::LINEAR_WARPS as i32);
                let code = (driver.api.function_occupancy)(&mut linear, kernels.linear_decode, threads, 0);
                driver.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
                log::debug!("df11_linear_decode: {linear} blocks a multiprocessor");
                Ok((kernels, all_blocks, linear.max(1) as u32))
            })
        })?;
        let info = DeviceInfo {
            ordinal: device,
            name: driver.device_name(device)?,
            capability: (capability / 10, capability % 10),
            multiprocessors: all,
            driver_version: driver.version,
            libcuda: driver.name.to_string_lossy().into_owned(),
            kernels: kernels.name.to_owned(),
        };
        let is_early = options.early_start && kernels.can_wait && driver.version >= OLDEST_EARLY_DRIVER;
        Ok(Device(Arc::new(Opened {
            driver,
            context,
            own,
            kernels,
            capability,
            most_shared,
            allow_default_stream: options.allow_default_stream,
            is_early,
            blocks,
            linear_blocks,
            multiprocessors,
            most_multiprocessors: if options.multiprocessors == 0 { u32::MAX } else { options.multiprocessors },
            parts: Parts::default(),
            info,
            _primary: primary,
        })))
    }

    /// Returns the device's properties.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }
}

impl Opened {
    /// Refuses the NULL stream unless the options allow it.
    #[inline]
    pub fn check_null(&self, stream: Stream) -> Result<()> {
        if stream.raw().is_null() && !self.allow_default_stream { Err(Error::DefaultStream) } else { Ok(()) }
    }

    /// Runs `work`, which enqueues in a stream, with the context current that the stream needs. `work` is given the room for
    /// its kernels. Streams of other contexts are refused. The three special streams belong to whichever context is
    /// current, so they always pass.
    ///
    /// # Safety
    ///
    /// `stream` is a stream.
    #[inline]
    pub unsafe fn with_stream<T>(&self, stream: Stream, work: impl FnOnce(Room) -> Result<T>) -> Result<T> {
        let is_special = stream.is_of_any_context();
        // SAFETY: the device keeps its contexts alive, or whoever opened it there does; `stream` is a stream.
        unsafe {
            self.driver.within(if is_special { self.own } else { self.context }, || {
                let there = if is_special { self.multiprocessors[1] } else { self.multiprocessors_of(stream)? };
                let most = self.most_multiprocessors;
                work(Room { multiprocessors: there.min(most), is_limited: most < there })
            })
        }
    }

    /// Returns how many multiprocessors the kernels of a stream may use. Refuses streams of other contexts.
    ///
    /// # Safety
    ///
    /// `stream` is a stream, and none of the special ones.
    #[inline]
    unsafe fn multiprocessors_of(&self, stream: Stream) -> Result<u32> {
        // SAFETY: the handle is a stream's.
        let (context, green) = unsafe { self.driver.stream_contexts(stream)? };
        if context != self.context {
            return Err(self.other_context());
        }
        if green.is_null() {
            return Ok(self.multiprocessors[0]);
        }
        // SAFETY: the stream's green context lives, because the driver has just named it.
        unsafe { self.part(green) }
    }

    /// Returns the error for a stream of another context.
    #[cold]
    fn other_context(&self) -> Error {
        let mut reason = "the stream belongs to another context than the device".to_owned();
        if !self.driver.knows_green_contexts() {
            reason += ", or to a green context, for which the driver is too old (CUDA 12.5)";
        }
        Error::WrongDevice(reason)
    }

    /// Returns how many multiprocessors a green context has.
    ///
    /// # Safety
    ///
    /// It lives.
    unsafe fn part(&self, green: GreenContext) -> Result<u32> {
        // SAFETY: the green context lives.
        unsafe {
            let id = self.driver.green_id(green)?;
            if let Some(count) = self.parts.get(id) {
                return Ok(count);
            }
            let count = self.driver.green_multiprocessors(green);
            count.inspect(|&count| self.parts.set(id, count));
            Ok(count.unwrap_or(self.multiprocessors[0]))
        }
    }

    /// Returns how many decoding blocks run at once in that room, with tables of that form.
    #[inline]
    pub fn capacity(&self, form: Form, room: Room) -> u32 {
        room.multiprocessors.saturating_mul(self.blocks[form as usize])
    }

    /// Returns how many blocks that decode linear images run at once in that room.
    #[inline]
    pub fn linear_capacity(&self, room: Room) -> u32 {
        room.multiprocessors.saturating_mul(self.linear_blocks)
    }
}

impl Room {
    /// Returns how many tiles each block of a launch in it should decode ([`policy::tiles_per_block`]), if `capacity` blocks
    /// run at once.
    #[inline]
    pub fn tiles_per_block(self, tiles: impl Iterator<Item = u64> + Clone, warps: u32, capacity: u32) -> u64 {
        if self.is_limited {
            policy::tiles_per_block_within(tiles, warps, capacity)
        } else {
            policy::tiles_per_block(tiles, warps, capacity)
        }
    }
}

impl Opened {
    /// Launches a kernel that takes one parameter; if `early`, before the one before it has ended.
    ///
    /// # Safety
    ///
    /// The context is current, `stream` is one of its streams, `function` takes a `T` by value, and the addresses in
    /// `parameter` are right for it. A kernel that is launched early waits before it writes.
    #[allow(clippy::too_many_arguments, reason = "those of a launch")]
    pub unsafe fn launch<T>(
        &self,
        function: Function,
        blocks: u32,
        threads: u32,
        shared: u32,
        parameter: &T,
        stream: Stream,
        early: bool,
    ) -> Result<()> {
        if early {
            let mut parameters = [(&raw const *parameter).cast_mut().cast()];
            let attribute = LaunchAttribute::early();
            let config = LaunchConfig::new(blocks, threads, shared, stream, &attribute);
            // SAFETY: as below; the driver copies the attribute, too.
            let code = unsafe {
                let (list, none) = (parameters.as_mut_ptr(), std::ptr::null_mut());
                (self.driver.api.launch_with)(&config, function, list, none)
            };
            return self.driver.check("cuLaunchKernelEx", code);
        }
        // SAFETY: as the caller promises.
        unsafe { self.launch_grid(function, [blocks, 1, 1], threads, shared, parameter, stream) }
    }

    /// Launches a kernel that takes one parameter, with a grid of up to three directions.
    ///
    /// # Safety
    ///
    /// As for `launch`.
    pub unsafe fn launch_grid<T>(
        &self,
        function: Function,
        [x, y, z]: [u32; 3],
        threads: u32,
        shared: u32,
        parameter: &T,
        stream: Stream,
    ) -> Result<()> {
        let mut parameters = [(&raw const *parameter).cast_mut().cast()];
        // SAFETY: the list holds one pointer, to a parameter of the kernel's type; the driver copies it before it
        // returns.
        let code = unsafe {
            let (list, none) = (parameters.as_mut_ptr(), std::ptr::null_mut());
            (self.driver.api.launch)(function, x, y, z, threads, 1, 1, shared, stream.raw(), list, none)
        };
        self.driver.check("cuLaunchKernel", code)
    }
}

/// Returns a device's compute capability, major · 10 + minor, if there are kernels for it.
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
