//! The kernels: which of the built ones a device takes, and how they are loaded. `kernels/` describes what they do.
//!
//! `kernels/prebuilt` holds one cubin for each family of devices and PTX for all later ones; both are embedded in this
//! library. A cubin serves its own major compute capability from its own minor. Where none fits, or the driver does not
//! accept the one that does (a CUDA error that concerns the image, such as 209), the driver compiles the PTX.
//!
//! Kernels are loaded once for each context and kept until that context ends: `cuModuleUnload` would wait for running
//! work, and a captured graph needs the kernels that it launches as long as it lives, long after the handle that
//! captured it was freed. Contexts are identified by `cuCtxGetId`, which no two contexts of a process share, so what
//! belonged to a destroyed context is never found again.

use super::driver::{Context, Driver, Function, Module, attribute, code};
use super::policy;
use crate::error::{Error, Result, shorten};
use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};

/// The PTX, with the zero at its end that the driver requires.
const PTX: &str = concat!(include_str!("../../kernels/prebuilt/decode.ptx"), "\0");

/// Aligns a cubin, because the driver reads ELF files by words.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! cubins {
    ($($capability:literal = $file:literal;)*) => {
        /// The cubins, by compute capability (major · 10 + minor), rising.
        static CUBINS: &[(u32, &Aligned<[u8]>)] =
            &[$(($capability, &Aligned(*include_bytes!(concat!("../../kernels/prebuilt/", $file))))),*];
    };
}

cubins! {
    75 = "decode.sm_75.cubin";
    80 = "decode.sm_80.cubin";
    90 = "decode.sm_90.cubin";
    100 = "decode.sm_100.cubin";
    120 = "decode.sm_120.cubin";
}

/// The oldest compute capability that has kernels, as major · 10 + minor: what the PTX is for.
pub const OLDEST_CAPABILITY: u32 = 75;

/// The kernels to load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// The cubin that fits, or else the PTX.
    #[default]
    Best,
    /// The PTX, which the driver compiles: for tests.
    Ptx,
}

/// Returns the compute capability of the cubin that fits a device, both as major · 10 + minor.
pub fn cubin_for(capability: u32) -> Option<u32> {
    CUBINS.iter().map(|&(of, _)| of).rfind(|&of| of / 10 == capability / 10 && of <= capability)
}

/// The kernels' names.
const NAMES: [&CStr; 3] = [c"df11_decode", c"df11_decode_many", c"df11_index"];

/// The kernels of one context, loaded.
pub(crate) struct Kernels {
    pub decode: Function,
    pub decode_many: Function,
    pub index: Function,
    /// The name of what was loaded: `sm_90`, or `PTX`.
    pub name: String,
}

// SAFETY: function handles may be used from any thread.
unsafe impl Send for Kernels {}
// SAFETY: the handles are never changed, and may be used from several threads.
unsafe impl Sync for Kernels {}

/// The key of loaded kernels: the driver's identity, the context's number, the choice.
type Key = (usize, u64, Choice);

static LOADED: Mutex<Vec<(Key, &'static Kernels)>> = Mutex::new(Vec::new());

/// Returns the kernels of the current context, and loads them at the first call. Every function is ready to launch with
/// all the shared memory that it may need. `most_shared` is how many bytes of shared memory the device allows a block.
///
/// # Errors
///
/// `NoKernel` if the driver accepted none of the kernels; `Cuda` and `Capturing` for its other errors.
///
/// # Safety
///
/// `context` is alive and the current context.
pub(crate) unsafe fn load(
    driver: &'static Driver,
    context: Context,
    capability: u32,
    most_shared: u32,
    choice: Choice,
) -> Result<&'static Kernels> {
    let mut id = 0;
    // SAFETY: the context is alive; the call writes one number.
    driver.check("cuCtxGetId", unsafe { (driver.api.context_id)(context, &mut id) })?;
    let key = (driver.identity(), id, choice);
    // Held while kernels are loaded: two threads that open the same device load once.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, kernels)) = loaded.iter().find(|(of, _)| *of == key) {
        return Ok(kernels);
    }
    if capability < OLDEST_CAPABILITY {
        let (major, minor) = (capability / 10, capability % 10);
        let reason = format!("its compute capability is {major}.{minor}, and 7.5 is the oldest");
        return Err(Error::NoKernel { reason, code: 0 });
    }
    let cubin = cubin_for(capability).filter(|_| choice == Choice::Best);
    let cubin = cubin.and_then(|of| CUBINS.iter().find(|(other, _)| *other == of));
    let images = cubin.map(|(of, bytes)| (format!("sm_{of}"), &bytes.0)).into_iter();
    let mut tried = Vec::new();
    let mut last = 0;
    for (name, image) in images.chain([("PTX".to_owned(), PTX.as_bytes())]) {
        // SAFETY: a context is current, and the image is a cubin, or PTX with its zero.
        match unsafe { Loading::new(driver, image).and_then(|loading| loading.finish(&name, capability, most_shared)) }
        {
            Ok(kernels) => {
                let kernels: &'static Kernels = Box::leak(Box::new(kernels));
                log::debug!("loaded the kernels {name}");
                loaded.push((key, kernels));
                return Ok(kernels);
            }
            Err(error) if concerns_image(error.native_code()) => {
                log::debug!("the kernels {name} are not taken: {error}");
                last = error.native_code();
                tried.push(format!("{name}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::NoKernel { reason: shorten(&tried.join("; "), 400), code: last })
}

/// Returns whether a code says that this device or driver cannot use an image; such codes leave the context intact.
fn concerns_image(result: i32) -> bool {
    use code::*;
    [
        INVALID_IMAGE,
        NO_BINARY_FOR_GPU,
        INVALID_PTX,
        JIT_COMPILER_NOT_FOUND,
        UNSUPPORTED_PTX_VERSION,
        JIT_COMPILATION_DISABLED,
        INVALID_SOURCE,
    ]
    .contains(&result)
}

/// A module that is unloaded unless everything in it works. None of it has run, so there is nothing to wait for.
struct Loading {
    driver: &'static Driver,
    module: Module,
}

impl Drop for Loading {
    fn drop(&mut self) {
        // SAFETY: the module was loaded in the current context, and none of its functions were handed out.
        unsafe { (self.driver.api.module_unload)(self.module) };
    }
}

impl Loading {
    /// # Safety
    ///
    /// A context is current; `image` is a cubin or PTX that ends with a zero.
    unsafe fn new(driver: &'static Driver, image: &[u8]) -> Result<Loading> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a context is current, and the image is a cubin or ends with a zero; the call writes one handle.
        let code = unsafe { (driver.api.module_load)(&mut module, image.as_ptr().cast()) };
        driver.check("cuModuleLoadData", code)?;
        Ok(Loading { driver, module })
    }

    /// Finds the functions. Drivers load lazily, at the first launch, which may wait and is forbidden in a capture.
    /// Getting and setting attributes loads them now.
    ///
    /// # Safety
    ///
    /// As for `new`.
    unsafe fn finish(self, name: &str, capability: u32, most_shared: u32) -> Result<Kernels> {
        let api = &self.driver.api;
        let warps = |table_bytes| policy::warps(capability, table_bytes, most_shared);
        let decode = [policy::TABLE_SMALL, policy::TABLE_LARGE].map(|t| policy::decode_shared(t, warps(t)));
        let decode = decode[0].max(decode[1]);
        let shared = [decode, decode, policy::index_shared(policy::TABLE_LARGE)];
        let mut functions = [std::ptr::null_mut(); 3];
        for ((name, shared), function) in NAMES.into_iter().zip(shared).zip(&mut functions) {
            // SAFETY: the module is loaded, the name ends with a zero, and each call writes one value.
            unsafe {
                let code = (api.module_function)(function, self.module, name.as_ptr());
                self.driver.check("cuModuleGetFunction", code)?;
                let mut most = 0;
                let code = (api.function_attribute)(&mut most, attribute::DYNAMIC_SHARED_BYTES, *function);
                self.driver.check("cuFuncGetAttribute", code)?;
                let code = (api.function_set_attribute)(*function, attribute::DYNAMIC_SHARED_BYTES, shared as i32);
                self.driver.check("cuFuncSetAttribute", code)?;
                log_needs(self.driver, name, *function);
            }
        }
        std::mem::forget(self);
        let [decode, decode_many, index] = functions;
        Ok(Kernels { decode, decode_many, index, name: name.to_owned() })
    }
}

/// Logs what the driver says that a function needs: registers and local bytes show what its compiler spilled. An
/// attribute that it does not tell is -1. Without a log at this level no call is made.
///
/// # Safety
///
/// The function is loaded, and its context is current.
unsafe fn log_needs(driver: &Driver, name: &CStr, function: Function) {
    if !log::log_enabled!(log::Level::Debug) {
        return;
    }
    let attribute = |number| {
        let mut value = -1;
        // SAFETY: the function is loaded; the call writes one number.
        let code = unsafe { (driver.api.function_attribute)(&mut value, number, function) };
        if code == 0 { value } else { -1 }
    };
    log::debug!(
        "{}: {} registers, {} local bytes, shared memory carve-out {}",
        name.to_string_lossy(),
        attribute(attribute::REGISTERS),
        attribute(attribute::LOCAL_BYTES),
        attribute(attribute::SHARED_CARVEOUT),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_takes_the_cubin_of_its_family() {
        for (capability, want) in [
            (75, Some(75)),
            (80, Some(80)),
            (86, Some(80)),
            (89, Some(80)),
            (90, Some(90)),
            (100, Some(100)),
            (103, Some(100)),
            (110, None),
            (120, Some(120)),
            (121, Some(120)),
            (70, None),
            (130, None),
        ] {
            assert_eq!(cubin_for(capability), want, "{capability}");
        }
        assert!(CUBINS.iter().all(|(_, bytes)| bytes.0.starts_with(b"\x7fELF")));
        assert!(PTX.ends_with('\0') && PTX.matches('\0').count() == 1);
    }
}
