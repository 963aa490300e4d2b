//! Devices: a CUDA context with the kernels loaded in it. Everything that may block is done when a device is opened, so
//! that decoding ([`super::launch`]) never has to.

use super::driver::{self, Context, Driver, Function, Stream, attribute};
use super::kernels::{self, Choice, Kernels};
use super::policy;
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

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
    /// The number of multiprocessors.
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
    pub context: Context,
    pub kernels: &'static Kernels,
    pub capability: u32,
    /// Bytes of shared memory that a block may have.
    pub most_shared: u32,
    pub allow_default_stream: bool,
    /// Decoding blocks that the device runs at once, for small and for large tables.
    capacity: [u32; 2],
    pub info: DeviceInfo,
    _primary: Option<Primary>,
}

// SAFETY: a context handle may be used from any thread; all other fields are plain data.
unsafe impl Send for Opened {}
// SAFETY: nothing changes after construction, and the driver's entry points may be called from any thread.
unsafe impl Sync for Opened {}

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
        unsafe { Self::in_context(driver, context, device, Some(primary), options) }
    }

    /// Opens the device of the thread's current context, in that context, which you continue to own.
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
        // SAFETY: the driver named the device of this context, which the caller keeps alive as long as the device.
        unsafe { Self::in_context(driver, context, device, None, options) }
    }

    /// # Safety
    ///
    /// The context is of that device, and lives as long as `primary` or, without one, as long as the result.
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
        // SAFETY: the context lives and is current within; NULL is its legacy stream there; the occupancy call writes
        // one number, for a function that is loaded.
        let (kernels, capacity) = driver.relaxed(|| unsafe {
            driver.within(context, || {
                driver.refuse_capture(Stream::from_raw(std::ptr::null_mut()), "opening a device")?;
                let kernels = kernels::load(driver, context, capability, most_shared, options.kernels)?;
                let mut capacity = [0; 2];
                for (capacity, table_bytes) in capacity.iter_mut().zip([policy::TABLE_SMALL, policy::TABLE_LARGE]) {
                    let warps = policy::warps(capability, table_bytes, most_shared);
                    let shared = policy::decode_shared(table_bytes, warps) as usize;
                    let mut blocks = 0;
                    let code = (driver.api.function_occupancy)(&mut blocks, kernels.decode, 32 * warps as i32, shared);
                    driver.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
                    *capacity = multiprocessors.saturating_mul(blocks.max(1) as u32);
                    log::debug!(
                        "df11_decode, tables up to {} bytes: {warps} warps and {shared} shared bytes a block, {blocks} \
                         blocks a multiprocessor, {capacity} on {multiprocessors} multiprocessors",
                        policy::table_shared(table_bytes),
                    );
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
        Ok(Device(Arc::new(Opened {
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

    /// Refuses streams of other contexts. The three special streams belong to whichever context is current, so they
    /// always pass.
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
        // SAFETY: the handle is a stream's; the call writes one handle.
        let code = unsafe { (self.driver.api.stream_context)(stream.raw(), &mut context) };
        self.driver.check("cuStreamGetCtx", code)?;
        if context == self.context {
            return Ok(());
        }
        Err(Error::WrongDevice("the stream belongs to another context than the device".into()))
    }

    /// Returns how many decoding blocks run at once with a table of `table_bytes`.
    #[inline]
    pub fn capacity(&self, table_bytes: u32) -> u32 {
        self.capacity[usize::from(table_bytes > policy::TABLE_SMALL)]
    }

    /// Launches a kernel that takes one parameter.
    ///
    /// # Safety
    ///
    /// The context is current, `stream` is one of its streams, `function` takes a `T` by value, and the addresses in
    /// `parameter` are right for it.
    pub unsafe fn launch<T>(
        &self,
        function: Function,
        blocks: u32,
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
            (self.driver.api.launch)(function, blocks, 1, 1, threads, 1, 1, shared, stream.raw(), list, none)
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
