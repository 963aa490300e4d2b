//! The CUDA driver: found and loaded at run time, its entry points in a struct, its results as numbers. This module
//! knows neither kernels nor images.
//!
//! # Why not cudarc
//!
//! The crate cudarc has all entry points, and a Rust engine should use it. Its driver layer (0.19) is not suited to a C
//! ABI: a missing library or symbol is a panic in whichever call comes first, where here it is a status of
//! `df11_device_open`; `CUresult` is a Rust enum, so that a code which only newer drivers have (913, say) is undefined
//! behaviour; the library's path cannot be given; and it owns its contexts, where the caller often owns ours. Some forty
//! functions are needed. Each of those points is a test in `tests/cuda/driver.rs`.
//!
//! # What is trusted
//!
//! The library that is loaded is the caller's choice, as with every dynamic library. Its symbols are assumed to have
//! the signatures of CUDA 12.0's `cuda.h`, so older drivers are refused before anything else is called.

mod abi;

pub(crate) use abi::{LaunchAttribute, LaunchConfig, attribute, code};

use crate::error::{Error, Result, shorten};
use abi::{NO_TIMING, RELAXED, Resource, SM_RESOURCE};
use libloading::Library;
use std::ffi::{CStr, OsString, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// An address in device memory.
pub type DevicePtr = u64;
/// A driver's context handle.
pub(crate) type Context = *mut c_void;
/// A driver's handle of a green context: some of a device's multiprocessors, with streams of its own, in the device's
/// primary context.
pub(crate) type GreenContext = *mut c_void;
/// A driver's module handle: an image in one context.
pub(crate) type Module = *mut c_void;
/// A driver's library handle: an image of no context, which loads itself into each context that needs it.
pub(crate) type ImageLibrary = *mut c_void;
/// A driver's function handle, or that of a library's kernel, which the calls for functions take as well.
pub(crate) type Function = *mut c_void;
/// A driver's event handle.
pub(crate) type Event = *mut c_void;

/// A stream that you own: `CUstream`, which is also the runtime's `cudaStream_t`. The library never creates one and
/// never owns one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Stream(*mut c_void);

// SAFETY: the handle is opaque, and CUDA's streams may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: the handle is never changed, and CUDA's streams may be used from several threads.
unsafe impl Sync for Stream {}

impl Stream {
    /// Takes a `CUstream` or `cudaStream_t`. NULL is the default stream, which a device accepts only if its options say
    /// so ([`super::DeviceOptions::allow_default_stream`]).
    pub fn from_raw(handle: *mut c_void) -> Stream {
        Stream(handle)
    }

    /// Returns the handle.
    pub fn raw(self) -> *mut c_void {
        self.0
    }

    /// `CU_STREAM_LEGACY`: the default stream of the current context.
    pub(crate) const LEGACY: Stream = Stream(std::ptr::without_provenance_mut(1));

    /// Returns true for NULL, `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`: they belong to whichever context is
    /// current.
    pub(crate) fn is_of_any_context(self) -> bool {
        self.0.addr() <= 2
    }
}

/// The oldest driver version that is accepted: CUDA 12.0, which is driver 525.
pub(crate) const OLDEST: i32 = 12_000;

macro_rules! entry_points {
    ($(#[$doc:meta])* $type:ident; $($field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        $(#[$doc])*
        pub(crate) struct $type { $(pub $field: unsafe extern "C" fn($($argument),*) -> c_int,)* }

        impl $type {
            /// Their names.
            const NAMES: &[&str] = &[$($symbol),*];

            /// Finds all of them; the error is the name of the first that is missing.
            ///
            /// # Safety
            ///
            /// The library's symbols of these names have these signatures, and it is never unloaded.
            unsafe fn load(library: &Library) -> std::result::Result<$type, &'static str> {
                // SAFETY: each field's type is the symbol's signature, and the library is never unloaded.
                unsafe { Ok($type { $($field: *library.get(concat!($symbol, "\0").as_bytes()).map_err(|_| $symbol)?,)* }) }
            }
        }
    };
}

entry_points! {
    /// The entry points that a driver must have, each with its signature in `cuda.h` of CUDA 12.0.
    EntryPoints;
    init = "cuInit"(c_uint);
    error_name = "cuGetErrorName"(c_int, *mut *const c_char);
    error_string = "cuGetErrorString"(c_int, *mut *const c_char);
    device_count = "cuDeviceGetCount"(*mut c_int);
    device_get = "cuDeviceGet"(*mut c_int, c_int);
    device_name = "cuDeviceGetName"(*mut c_char, c_int, c_int);
    device_attribute = "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
    primary_retain = "cuDevicePrimaryCtxRetain"(*mut Context, c_int);
    primary_release = "cuDevicePrimaryCtxRelease_v2"(c_int);
    context_push = "cuCtxPushCurrent_v2"(Context);
    context_pop = "cuCtxPopCurrent_v2"(*mut Context);
    context_current = "cuCtxGetCurrent"(*mut Context);
    context_device = "cuCtxGetDevice"(*mut c_int);
    exchange_capture_mode = "cuThreadExchangeStreamCaptureMode"(*mut c_int);
    stream_context = "cuStreamGetCtx"(*mut c_void, *mut Context);
    stream_capturing = "cuStreamIsCapturing"(*mut c_void, *mut c_int);
    module_load = "cuModuleLoadData"(*mut Module, *const c_void);
    module_unload = "cuModuleUnload"(Module);
    module_function = "cuModuleGetFunction"(*mut Function, Module, *const c_char);
    function_attribute = "cuFuncGetAttribute"(*mut c_int, c_int, Function);
    function_set_attribute = "cuFuncSetAttribute"(Function, c_int, c_int);
    function_occupancy = "cuOccupancyMaxActiveBlocksPerMultiprocessor"(*mut c_int, Function, c_int, usize);
    launch = "cuLaunchKernel"(Function, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut c_void, *mut *mut c_void, *mut *mut c_void);
    launch_with = "cuLaunchKernelEx"(*const LaunchConfig, Function, *mut *mut c_void, *mut *mut c_void);
    copy_to_device = "cuMemcpyHtoDAsync_v2"(DevicePtr, *const c_void, usize, *mut c_void);
    fill = "cuMemsetD8Async"(DevicePtr, u8, usize, *mut c_void);

    event_create = "cuEventCreate"(*mut Event, c_uint);
    event_record = "cuEventRecord"(Event, *mut c_void);
    event_wait = "cuEventSynchronize"(Event);
    event_destroy = "cuEventDestroy_v2"(Event);
}

entry_points! {
    /// The entry points of libraries. CUDA 12.0 has them; a driver that does not is given modules instead.
    LibraryEntryPoints;
    load_data = "cuLibraryLoadData"(*mut ImageLibrary, *const c_void, *mut c_int, *mut *mut c_void, c_uint, *mut c_int, *mut *mut c_void, c_uint);
    kernel = "cuLibraryGetKernel"(*mut Function, ImageLibrary, *const c_char);
    kernel_function = "cuKernelGetFunction"(*mut Function, Function);
    kernel_set_attribute = "cuKernelSetAttribute"(c_int, c_int, Function, c_int);
}

entry_points! {
    /// The entry points of green contexts, of CUDA 12.5. A driver without them refuses streams of green contexts.
    GreenEntryPoints;
    stream_contexts = "cuStreamGetCtx_v2"(*mut c_void, *mut Context, *mut GreenContext);
    context_resource = "cuCtxGetDevResource"(Context, *mut Resource, c_int);
    green_resource = "cuGreenCtxGetDevResource"(GreenContext, *mut Resource, c_int);
}

entry_points! {
    /// The entry point that tells green contexts apart after one has ended, of CUDA 13.0.
    GreenIdEntryPoints;
    green_id = "cuGreenCtxGetId"(GreenContext, *mut u64);
}

/// The names of the entry points that a driver must have.
pub const ENTRY_POINTS: &[&str] = EntryPoints::NAMES;
/// The names of the entry points that it may lack, in groups of which it has all or none.
pub const OPTIONAL_ENTRY_POINTS: [&[&str]; 3] =
    [LibraryEntryPoints::NAMES, GreenEntryPoints::NAMES, GreenIdEntryPoints::NAMES];

/// A loaded driver. It is never unloaded, because contexts, streams and graphs that others own are in it.
pub(crate) struct Driver {
    pub api: EntryPoints,
    pub libraries: Option<LibraryEntryPoints>,
    /// Only with `libraries`, because a function cannot be relied on to run in a green context: a library's kernel takes
    /// its context from the stream.
    green: Option<GreenEntryPoints>,
    green_ids: Option<GreenIdEntryPoints>,
    /// The name by which it was loaded.
    pub name: OsString,
    /// The version that `cuDriverGetVersion` returns: 12040 is CUDA 12.4.
    pub version: i32,
    _library: ManuallyDrop<Library>,
}

/// The platform's own names of the driver.
const USUAL_NAMES: &[&str] = if cfg!(windows) {
    &["nvcuda.dll"]
} else {
    // The last is where WSL puts it.
    &["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"]
};

/// Returns the names by which a driver is looked for, in order: the caller's, that of the variable `DF11_LIBCUDA`, or
/// the platform's own. The second value is true for the latter.
fn candidates(given: Option<&Path>) -> (Vec<OsString>, bool) {
    let named = given.map(OsString::from).or_else(|| variable("DF11_LIBCUDA").filter(|path| !path.is_empty()));
    match named {
        Some(path) => (vec![path], false),
        None => (USUAL_NAMES.iter().map(OsString::from).collect(), true),
    }
}

/// Returns an environment variable. Returns `None` in a process that has more privileges than its caller (set-user-ID, file
/// capabilities): the caller must not decide there what code runs.
fn variable(name: &str) -> Option<OsString> {
    // SAFETY: the calls take and change nothing.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let is_privileged = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // SAFETY: as above.
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    let is_privileged = unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() };
    #[cfg(not(unix))]
    let is_privileged = false;
    if is_privileged { None } else { std::env::var_os(name) }
}

/// Loads a driver, or finds the one of that name that was loaded before. A failure is tried again at the next call.
///
/// Loading runs the library's initialisers. That `given` is a driver is required by the unsafe method that takes it,
/// [`super::DeviceOptions::libcuda`].
///
/// # Errors
///
/// `NoDriver`, with every name that was tried and why it failed.
pub(crate) fn load(given: Option<&Path>) -> Result<&'static Driver> {
    static LOADED: Mutex<Vec<&'static Driver>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tried = Vec::new();
    let mut code = 0;
    let (names, usual) = candidates(given);
    for name in names {
        let driver = match loaded.iter().find(|driver| driver.name == name) {
            Some(&driver) => driver,
            None => match open(&name, usual) {
                Ok(driver) => {
                    let driver: &'static Driver = Box::leak(Box::new(driver));
                    loaded.push(driver);
                    driver
                }
                Err((reason, result)) => {
                    tried.push(reason);
                    code = if result != 0 { result } else { code };
                    continue;
                }
            },
        };
        // SAFETY: the call takes no pointers, and does nothing after the first time.
        match unsafe { (driver.api.init)(0) } {
            0 => return Ok(driver),
            result => {
                tried.push(format!(
                    "{} (CUDA {}): cuInit: {}",
                    show(&name),
                    driver.cuda_version(),
                    driver.text(result)
                ));
                code = result;
            }
        }
    }
    Err(Error::NoDriver { reason: shorten(&tried.join("; "), 440), code })
}

fn show(name: &OsString) -> String {
    format!("'{}'", shorten(&name.to_string_lossy(), 120))
}

/// Loads a library. `usual` is true if its name is one of the platform's own for the driver.
///
/// # Safety
///
/// Loading it runs its initialisers, so it is a driver.
#[cfg(unix)]
unsafe fn load_library(name: &OsString, _usual: bool) -> std::result::Result<Library, libloading::Error> {
    use libloading::os::unix::{Library as Unix, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: the caller names a driver.
    unsafe { Unix::open(Some(name), RTLD_NOW | RTLD_LOCAL) }.map(Library::from)
}

/// Loads a library. `usual` is true if its name is one of the platform's own for the driver: such a name is looked for in the
/// system's folder only. Otherwise Windows would look into the program's folder first, and whoever can write there, such
/// as to a folder of downloads, would decide what code runs.
///
/// # Safety
///
/// Loading it runs its initialisers, so it is a driver.
#[cfg(windows)]
unsafe fn load_library(name: &OsString, usual: bool) -> std::result::Result<Library, libloading::Error> {
    use libloading::os::windows::{LOAD_LIBRARY_SEARCH_SYSTEM32, Library as Windows};
    let flags = if usual { LOAD_LIBRARY_SEARCH_SYSTEM32 } else { 0 };
    // SAFETY: the caller names a driver.
    unsafe { Windows::load_with_flags(name, flags) }.map(Library::from)
}

fn open(name: &OsString, usual: bool) -> std::result::Result<Driver, (String, i32)> {
    // SAFETY: it is the system's driver, or the one that the environment or `DeviceOptions::libcuda` names as such.
    let library = unsafe { load_library(name, usual) };
    // Never unloaded, not even after an error: a driver may have started threads.
    let library = ManuallyDrop::new(library.map_err(|error| {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = source.to_string();
        }
        (format!("{} cannot be loaded: {}", show(name), shorten(&text, 160)), 0)
    })?);
    let lacks = |symbol: &str| (format!("{} has no {symbol}: CUDA 12.0 (driver 525) is the oldest", show(name)), 0);
    // The version first: an older driver lacks symbols, and its age is the better message.
    // SAFETY: `cuDriverGetVersion` has had this signature since CUDA 2.2.
    let version = unsafe {
        let ask = library
            .get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion\0")
            .map_err(|_| lacks("cuDriverGetVersion"))?;
        let mut version = 0;
        match ask(&mut version) {
            0 => version,
            code => return Err((format!("{}: cuDriverGetVersion gives {code}", show(name)), code)),
        }
    };
    if version < OLDEST {
        let reason = format!(
            "{} is a driver of CUDA {}.{}: 12.0 (driver 525) is the oldest",
            show(name),
            version / 1000,
            version % 1000 / 10
        );
        return Err((reason, 0));
    }
    // SAFETY: a driver of at least CUDA 12.0 has these signatures, whichever of the later ones it has, and it stays loaded.
    let (api, libraries, green, green_ids) = unsafe {
        let libraries = LibraryEntryPoints::load(&library).ok();
        let green = GreenEntryPoints::load(&library).ok().filter(|_| libraries.is_some());
        (EntryPoints::load(&library).map_err(lacks)?, libraries, green, GreenIdEntryPoints::load(&library).ok())
    };
    log::debug!("loaded the CUDA driver {}, version {version}", show(name));
    Ok(Driver { api, libraries, green, green_ids, name: name.clone(), version, _library: library })
}

impl Driver {
    /// Returns what identifies the driver: one library may have been loaded by several names, and is still one driver.
    #[inline]
    pub fn identity(&self) -> usize {
        self.api.launch as usize
    }

    /// Returns its version as messages show it.
    pub fn cuda_version(&self) -> String {
        format!("{}.{}", self.version / 1000, self.version % 1000 / 10)
    }

    /// Returns the driver's text for a code; the number for codes that the driver does not know.
    pub fn text(&self, code: c_int) -> String {
        let get = |function: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: the driver writes a pointer to a static string, or NULL.
            unsafe {
                let known = function(code, &mut text) == 0 && !text.is_null();
                known.then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (get(self.api.error_name), get(self.api.error_string)) {
            (Some(name), Some(text)) if name != text => format!("{name}: {text}"),
            (Some(name), _) => name,
            _ => format!("a code that this driver does not explain: {code}"),
        }
    }

    /// Turns a result of an entry point into one of this library.
    #[inline]
    pub fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(self.error(call, code)) }
    }

    /// Turns a result that is not 0 into an error.
    #[cold]
    pub fn error(&self, call: &'static str, code: c_int) -> Error {
        let text = shorten(&self.text(code), 160);
        if code::CAPTURE.contains(&code) {
            let reason = format!("{call} is not allowed while a stream is being captured: {text} ({code})");
            return Error::Capturing { reason, code };
        }
        Error::Cuda { call, code, text }
    }

    /// Runs `work` with a context current, and then makes the thread's own current again, also after an error or a
    /// panic.
    ///
    /// # Errors
    ///
    /// Those of `work`. If the context cannot be made current, that is the error and `work` is not run; if it cannot be
    /// removed again, that is the error after `work` has run.
    ///
    /// # Safety
    ///
    /// The context is this driver's, and it lives.
    #[inline]
    pub unsafe fn within<T>(&self, context: Context, work: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Pushed<'a>(&'a Driver);
        impl Drop for Pushed<'_> {
            fn drop(&mut self) {
                let mut top = std::ptr::null_mut();
                // SAFETY: the call writes one handle, and pops what was pushed below.
                unsafe { (self.0.api.context_pop)(&mut top) };
            }
        }
        // SAFETY: the context is alive and this driver's.
        self.check("cuCtxPushCurrent", unsafe { (self.api.context_push)(context) })?;
        let pushed = Pushed(self);
        let result = work();
        std::mem::forget(pushed);
        let mut top = std::ptr::null_mut();
        // SAFETY: the call writes one handle, and pops what was pushed above.
        let popped = unsafe { (self.api.context_pop)(&mut top) };
        let result = result?;
        self.check("cuCtxPopCurrent", popped)?;
        Ok(result)
    }

    /// Runs `work` in the mode in which calls that a capture forbids do not break the captures of other threads. (A
    /// capture of a stream that `work` itself uses still refuses them.) The thread's mode is restored, also after an
    /// error or a panic.
    pub fn relaxed<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Exchanged<'a>(&'a Driver, c_int);
        impl Drop for Exchanged<'_> {
            fn drop(&mut self) {
                // SAFETY: the call reads and writes one number.
                unsafe { (self.0.api.exchange_capture_mode)(&mut self.1) };
            }
        }
        let mut mode = RELAXED;
        // SAFETY: the call reads and writes one number.
        let code = unsafe { (self.api.exchange_capture_mode)(&mut mode) };
        self.check("cuThreadExchangeStreamCaptureMode", code)?;
        let _exchanged = Exchanged(self, mode);
        work()
    }

    /// Returns a device's attribute.
    pub fn attribute(&self, device: c_int, attribute: c_int) -> Result<i32> {
        let mut value = 0;
        // SAFETY: the call writes one number.
        let code = unsafe { (self.api.device_attribute)(&mut value, attribute, device) };
        self.check("cuDeviceGetAttribute", code)?;
        Ok(value)
    }

    /// Returns the number of devices.
    pub fn device_count(&self) -> Result<i32> {
        let mut count = 0;
        // SAFETY: the call writes one number.
        self.check("cuDeviceGetCount", unsafe { (self.api.device_count)(&mut count) })?;
        Ok(count)
    }

    /// Returns a device's name, truncated if it is very long.
    pub fn device_name(&self, device: c_int) -> Result<String> {
        let mut name = [0 as c_char; 256];
        // SAFETY: the call writes at most as many bytes as the array has, the last of them a zero.
        let code = unsafe { (self.api.device_name)(name.as_mut_ptr(), name.len() as c_int, device) };
        self.check("cuDeviceGetName", code)?;
        name[255] = 0;
        // SAFETY: the array ends with a zero.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Returns a stream's context, and the green context that it is of; NULL if it is of none. The context of a green one is
    /// its device's primary context, but on a driver that is too old to tell it is a handle of its own.
    ///
    /// # Safety
    ///
    /// `stream` is a stream, or a special one with a context current.
    #[inline]
    pub unsafe fn stream_contexts(&self, stream: Stream) -> Result<(Context, GreenContext)> {
        let (mut context, mut green) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the handle is a stream's; the calls write one handle or two.
        let code = unsafe {
            match &self.green {
                Some(api) => (api.stream_contexts)(stream.raw(), &mut context, &mut green),
                None => (self.api.stream_context)(stream.raw(), &mut context),
            }
        };
        self.check("cuStreamGetCtx", code)?;
        Ok((context, green))
    }

    /// Returns whether streams of green contexts can be told from others.
    pub fn knows_green_contexts(&self) -> bool {
        self.green.is_some()
    }

    /// Returns how many multiprocessors a context may use; `None` if the driver does not say.
    ///
    /// # Safety
    ///
    /// The context is this driver's, and it lives.
    pub unsafe fn multiprocessors(&self, context: Context) -> Option<u32> {
        let call = self.green.as_ref()?.context_resource;
        // SAFETY: the context lives.
        resource(|place| unsafe { call(context, place, SM_RESOURCE) })
    }

    /// Returns how many multiprocessors a green context has; `None` if the driver does not say.
    ///
    /// # Safety
    ///
    /// The green context is this driver's, and it lives.
    pub unsafe fn green_multiprocessors(&self, green: GreenContext) -> Option<u32> {
        let call = self.green.as_ref()?.green_resource;
        // SAFETY: the green context lives.
        resource(|place| unsafe { call(green, place, SM_RESOURCE) })
    }

    /// Returns a number for a green context that no other has or had, or on a driver that has none the handle, which
    /// may be used again when it has ended.
    ///
    /// # Safety
    ///
    /// The green context is this driver's, and it lives.
    #[inline]
    pub unsafe fn green_id(&self, green: GreenContext) -> Result<u64> {
        let Some(api) = &self.green_ids else { return Ok(green.addr() as u64) };
        let mut id = 0;
        // SAFETY: the green context lives; the call writes one number.
        self.check("cuGreenCtxGetId", unsafe { (api.green_id)(green, &mut id) })?;
        Ok(id)
    }

    /// Refuses a stream that is being captured.
    ///
    /// # Safety
    ///
    /// `stream` is a stream, or NULL with a context current.
    pub unsafe fn refuse_capture(&self, stream: Stream, what: &str) -> Result<()> {
        let mut state = 0;
        // SAFETY: the handle is a stream's, or NULL; the call writes one number.
        let code = unsafe { (self.api.stream_capturing)(stream.raw(), &mut state) };
        if code::CAPTURE.contains(&code) {
            let reason = format!("{what} is not possible while a stream of the same context is being captured");
            return Err(Error::Capturing { reason, code });
        }
        self.check("cuStreamIsCapturing", code)?;
        if state == 0 {
            return Ok(());
        }
        Err(Error::Capturing { reason: format!("{what} is not possible in a stream that is being captured"), code: 0 })
    }

    /// Creates an event without timing.
    pub fn event(&'static self) -> Result<OwnEvent> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the call writes one handle.
        self.check("cuEventCreate", unsafe { (self.api.event_create)(&mut event, NO_TIMING) })?;
        Ok(OwnEvent { driver: self, event })
    }
}

/// Returns the number of multiprocessors that a call writes into a resource; `None` if it fails.
fn resource(call: impl FnOnce(*mut Resource) -> c_int) -> Option<u32> {
    let mut resource =
        Resource { kind: 0, internal: [0; 92], multiprocessors: 0, rest: [0; 36], next: std::ptr::null_mut() };
    let code = call(&mut resource);
    (code == 0 && resource.kind == SM_RESOURCE && resource.multiprocessors > 0).then_some(resource.multiprocessors)
}

/// An event that this library owns, for the time of one call.
pub(crate) struct OwnEvent {
    driver: &'static Driver,
    event: Event,
}

impl OwnEvent {
    /// Records the work that is in a stream now.
    ///
    /// # Safety
    ///
    /// `stream` is one of the current context, in which the event was created.
    pub unsafe fn record(&self, stream: Stream) -> Result<()> {
        // SAFETY: the event is alive, and of the stream's context.
        let code = unsafe { (self.driver.api.event_record)(self.event, stream.raw()) };
        self.driver.check("cuEventRecord", code)
    }

    /// Waits for the work that was recorded last.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        self.driver.check("cuEventSynchronize", unsafe { (self.driver.api.event_wait)(self.event) })
    }
}

impl Drop for OwnEvent {
    fn drop(&mut self) {
        // SAFETY: the event is alive, and is not used again.
        unsafe { (self.driver.api.event_destroy)(self.event) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Returns the emulated driver, which cargo builds with the tests; nothing in the packed crate, which has no
    /// emulator.
    fn emulator() -> Option<&'static Driver> {
        let library = std::env::current_exe().unwrap().with_file_name("libdf11_emulator.so");
        let there = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/emulator")).exists();
        there.then(|| load(Some(&library)).unwrap())
    }

    #[test]
    fn a_panic_restores_the_context_and_the_capture_mode() {
        let Some(driver) = emulator() else { return };
        let mut context = std::ptr::null_mut();
        // SAFETY: the call writes one handle.
        assert_eq!(unsafe { (driver.api.primary_retain)(&mut context, 0) }, 0);
        let current = || {
            let mut current = std::ptr::null_mut();
            // SAFETY: the call writes one handle.
            assert_eq!(unsafe { (driver.api.context_current)(&mut current) }, 0);
            current
        };
        let mode = || {
            let (mut mode, mut same) = (RELAXED, 0);
            // SAFETY: each reads and writes one number; the second puts back what the first took.
            unsafe {
                assert_eq!((driver.api.exchange_capture_mode)(&mut mode), 0);
                same += mode;
                assert_eq!((driver.api.exchange_capture_mode)(&mut mode), 0);
            }
            same
        };
        assert_eq!((current(), mode()), (std::ptr::null_mut(), 0));
        let panicking = |deep: bool| {
            catch_unwind(AssertUnwindSafe(|| {
                driver.relaxed(|| {
                    assert_eq!(mode(), RELAXED);
                    // SAFETY: the context is retained.
                    unsafe {
                        driver.within(context, || {
                            assert_eq!(current(), context);
                            if deep { panic!("on purpose") } else { Err::<(), _>(Error::Cancelled) }
                        })
                    }
                })
            }))
        };
        assert!(matches!(panicking(false), Ok(Err(Error::Cancelled))));
        assert_eq!((current(), mode()), (std::ptr::null_mut(), 0));
        assert!(panicking(true).is_err());
        assert_eq!((current(), mode()), (std::ptr::null_mut(), 0));
        // SAFETY: retained above.
        assert_eq!(unsafe { (driver.api.primary_release)(0) }, 0);
    }

    #[test]
    fn codes_have_texts_known_or_not() {
        let Some(driver) = emulator() else { return };
        assert!(driver.text(2).starts_with("CUDA_ERROR_OUT_OF_MEMORY"));
        assert_eq!(driver.text(913_913), "a code that this driver does not explain: 913913");
        for code in code::CAPTURE {
            assert_eq!(driver.error("x", code).status(), crate::Status::Capturing);
        }
        assert_eq!(driver.error("x", 909).status(), crate::Status::Cuda);
        assert_eq!(driver.check("x", 0).map_err(|e| e.status()), Ok(()));
    }
}
