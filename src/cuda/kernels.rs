//! The kernels: which of the built ones a device takes, and how they are loaded. `kernels/` describes what they do.
//!
//! `kernels/prebuilt` holds one cubin for each family of devices and PTX for all later ones; both are embedded in this
//! library. A cubin serves its own major compute capability from its own minor. Where none fits, or the driver does not
//! accept the one that does (a CUDA error that concerns the image, such as 209), the driver compiles the PTX.
//!
//! An image is loaded as a library (`cuLibraryLoadData`), once in a process, and its kernels are of no context: a launch
//! takes the context from its stream, be it that of another device, of a primary context that was reset and begun anew, or
//! of a green context. What a context needs is loaded into it when a device is opened there. Libraries are never unloaded,
//! because a captured graph needs the kernels that it launches as long as it lives, long after the handle that captured it
//! was freed; nor is one that the driver did not accept for a device, because it may accept it for another.
//!
//! A driver that has no libraries is given a module for each device that is opened. It stays until its context ends, for
//! the same reason, and because `cuModuleUnload` would wait for running work.

use super::driver::{Driver, Function, ImageLibrary, LibraryEntryPoints, Module, attribute, code};
use super::policy::{self, Form};
use crate::error::{Error, Result, shorten};
use std::ffi::CStr;
use std::ptr;
use std::sync::{Mutex, PoisonError};

macro_rules! ptx {
    ($file:literal) => {
        concat!(include_str!(concat!("../../kernels/prebuilt/", $file)), "\0")
    };
}

/// The PTX by the oldest compute capability that it is for, falling, with the zero at its end that the driver requires. Only
/// that for 9.0 can wait for the kernel before; drivers before CUDA 12.3 do not take it.
static PTX: [(u32, &str); 2] = [(90, ptx!("decode.sm_90.ptx")), (OLDEST_CAPABILITY, ptx!("decode.ptx"))];

/// The oldest compute capability whose kernels can wait for the kernel before.
const OLDEST_EARLY: u32 = 90;
/// The oldest compute capability whose kernels decode by tables of nibbles: none of the PTX does.
const OLDEST_NIBBLES: u32 = 100;

/// Aligns a cubin, because the driver reads ELF files by words.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! cubins {
    ($($capability:literal = $file:literal;)*) => {
        /// The cubins, by compute capability (major · 10 + minor), rising, with their names.
        static CUBINS: &[(u32, &str, &Aligned<[u8]>)] = &[$((
            $capability,
            concat!("sm_", $capability),
            &Aligned(*include_bytes!(concat!("../../kernels/prebuilt/", $file))),
        )),*];
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

/// The oldest compute capability whose tensor cores take bf16.
const OLDEST_TENSOR_CORES: u32 = 80;

/// The kernels to load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// The cubin that fits, or else the PTX. On a device that is integrated (Tegra) always the PTX.
    #[default]
    Best,
    /// The PTX, which the driver compiles: for tests.
    Ptx,
}

/// Returns the compute capability of the cubin that fits a device, both as major · 10 + minor.
pub fn cubin_for(capability: u32) -> Option<u32> {
    CUBINS.iter().map(|&(of, ..)| of).rfind(|&of| of / 10 == capability / 10 && of <= capability)
}

/// The kernels' names, each with the oldest compute capability whose images have it.
const NAMES: [(&CStr, u32); 9] = [
    (c"df11_decode", OLDEST_CAPABILITY),
    (c"df11_decode_many", OLDEST_CAPABILITY),
    (c"df11_index", OLDEST_CAPABILITY),
    (c"df11_linear_decode", OLDEST_CAPABILITY),
    (c"df11_linear_make", OLDEST_CAPABILITY),
    (c"df11_multiply_1", OLDEST_CAPABILITY),
    (c"df11_multiply_2", OLDEST_CAPABILITY),
    (c"df11_multiply_8", OLDEST_TENSOR_CORES),
    (c"df11_multiply_add", OLDEST_CAPABILITY),
];
const COUNT: usize = NAMES.len();

/// The kernels, loaded: those of a library, or a module's functions.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub decode: Function,
    pub decode_many: Function,
    pub index: Function,
    pub linear_decode: Function,
    pub linear_make: Function,
    pub multiply_1: Function,
    pub multiply_2: Function,
    /// NULL where the image has none, because it is for devices without tensor cores for bf16.
    pub multiply_8: Function,
    pub multiply_add: Function,
    /// The name of what was loaded: `sm_90`, or `PTX`.
    pub name: &'static str,
    /// The kernels can be launched before the one before them has ended: they wait for it where they must.
    pub can_wait: bool,
    /// They decode by tables of nibbles, where an image has one.
    pub has_nibbles: bool,
}

/// The properties of a device that decide which kernels it takes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The driver's number of the device.
    pub device: i32,
    /// Its compute capability, as major · 10 + minor.
    pub capability: u32,
    /// Bytes of shared memory that it allows a block.
    pub most_shared: u32,
    /// It is part of the processor, as Tegra's are. NVIDIA does not promise that such a device runs the binaries of its
    /// capability's family.
    pub is_integrated: bool,
}

impl Target {
    /// Returns the most dynamic shared bytes that a launch of each of the [`NAMES`] may need.
    fn shared_bytes(self) -> [i32; COUNT] {
        let decode = Form::ALL.map(|form| form.decode_shared(policy::warps(self.capability, form, self.most_shared)));
        let decode = decode.into_iter().fold(0, u32::max) as i32;
        let [one, two, eight] = [1, 2, 8].map(|batch| policy::multiply_shared(batch) as i32);
        let index = policy::index_shared(policy::TABLE_LARGE) as i32;
        [decode, decode, index, 0, policy::LINEAR_SHARED as i32, one, two, eight, 0]
    }
}

/// Loads the kernels into the current context. Every function is ready to launch with all the shared memory that it may need.
///
/// # Errors
///
/// `NoKernel` if the driver accepted none of the kernels; `Cuda` and `Capturing` for its other errors.
///
/// # Safety
///
/// A context of the target's device is current.
pub(crate) unsafe fn load(driver: &'static Driver, target: Target, choice: Choice) -> Result<Kernels> {
    let cubin = cubin_for(target.capability).filter(|_| choice == Choice::Best && !target.is_integrated);
    let cubin = cubin.and_then(|of| CUBINS.iter().find(|(other, ..)| *other == of));
    let cubin = cubin.map(|&(of, name, bytes)| (of, name, &bytes.0));
    let ptx = PTX.iter().filter(|(of, _)| *of <= target.capability).map(|(of, text)| (*of, "PTX", text.as_bytes()));
    let mut tried = Vec::new();
    let mut last = 0;
    for (of, name, image) in cubin.into_iter().chain(ptx) {
        // SAFETY: a context is current, and the image is a cubin, or PTX with its zero.
        let loaded = unsafe {
            match &driver.libraries {
                Some(api) => from_library(driver, api, target, of, image),
                None => Loading::new(driver, image).and_then(|loading| loading.finish(target, of)),
            }
        };
        match loaded {
            Ok(functions) => {
                log::debug!("loaded the kernels {name}");
                let [
                    decode,
                    decode_many,
                    index,
                    linear_decode,
                    linear_make,
                    multiply_1,
                    multiply_2,
                    multiply_8,
                    multiply_add,
                ] = functions;
                return Ok(Kernels {
                    decode,
                    decode_many,
                    index,
                    linear_decode,
                    linear_make,
                    multiply_1,
                    multiply_2,
                    multiply_8,
                    multiply_add,
                    name,
                    can_wait: of >= OLDEST_EARLY,
                    has_nibbles: of >= OLDEST_NIBBLES,
                });
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
        NOT_FOUND,
    ]
    .contains(&result)
}

/// A library that was loaded: by which driver ([`Driver::identity`]), and from which image, by its address.
struct Loaded {
    driver: usize,
    image: usize,
    library: ImageLibrary,
}

// SAFETY: library handles may be used from any thread.
unsafe impl Send for Loaded {}

/// Returns the library of an image, and loads it at the first call.
///
/// # Safety
///
/// `image` is a cubin, or PTX that ends with a zero.
unsafe fn library_of(driver: &'static Driver, api: &LibraryEntryPoints, image: &'static [u8]) -> Result<ImageLibrary> {
    static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());
    // Held while an image is loaded, so that threads which open devices at once load it once. Compiling PTX for a device is
    // left to its first use, which is outside.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) =
        loaded.iter().find(|found| found.driver == driver.identity() && found.image == image.as_ptr().addr())
    {
        return Ok(found.library);
    }
    let mut library = ptr::null_mut();
    // SAFETY: the image is a cubin or ends with a zero; there are no options; the call writes one handle.
    let code = unsafe {
        let (no_options, no_values) = (ptr::null_mut, ptr::null_mut);
        (api.load_data)(&mut library, image.as_ptr().cast(), no_options(), no_values(), 0, no_options(), no_values(), 0)
    };
    driver.check("cuLibraryLoadData", code)?;
    loaded.push(Loaded { driver: driver.identity(), image: image.as_ptr().addr(), library });
    Ok(library)
}

/// Returns the kernels of an image for devices from `of` on, loaded into the current context. Drivers load lazily, at the first launch, which may
/// wait and is forbidden in a capture; asking for an attribute loads them now.
///
/// # Safety
///
/// A context of the target's device is current; `image` as for [`library_of`].
unsafe fn from_library(
    driver: &'static Driver,
    api: &LibraryEntryPoints,
    target: Target,
    of: u32,
    image: &'static [u8],
) -> Result<[Function; COUNT]> {
    // SAFETY: as the caller promises.
    let library = unsafe { library_of(driver, api, image)? };
    let mut kernels = [ptr::null_mut(); COUNT];
    let all = NAMES.into_iter().zip(target.shared_bytes()).zip(&mut kernels);
    for (((name, oldest), shared), kernel) in all.filter(|(((_, oldest), _), _)| of >= *oldest) {
        // SAFETY: the library is loaded, the name ends with a zero, and each call writes one value or none.
        unsafe {
            let code = (api.kernel)(kernel, library, name.as_ptr());
            // Calls of what not every image has ask whether it is there.
            if code == code::NOT_FOUND && oldest > OLDEST_CAPABILITY {
                *kernel = ptr::null_mut();
                continue;
            }
            driver.check("cuLibraryGetKernel", code)?;
            // For every context of the device, those of green contexts included.
            let code = (api.kernel_set_attribute)(attribute::DYNAMIC_SHARED_BYTES, shared, *kernel, target.device);
            driver.check("cuKernelSetAttribute", code)?;
            let (mut function, mut most) = (ptr::null_mut(), 0);
            let code = (api.kernel_function)(&mut function, *kernel);
            // Where libraries are loaded lazily, only this call looks for it.
            if code == code::NOT_FOUND && oldest > OLDEST_CAPABILITY {
                *kernel = ptr::null_mut();
                continue;
            }
            driver.check("cuKernelGetFunction", code)?;
            let code = (driver.api.function_attribute)(&mut most, attribute::DYNAMIC_SHARED_BYTES, function);
            driver.check("cuFuncGetAttribute", code)?;
            log_needs(driver, name, function);
        }
    }
    Ok(kernels)
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
        let mut module = ptr::null_mut();
        // SAFETY: a context is current, and the image is a cubin or ends with a zero; the call writes one handle.
        let code = unsafe { (driver.api.module_load)(&mut module, image.as_ptr().cast()) };
        driver.check("cuModuleLoadData", code)?;
        Ok(Loading { driver, module })
    }

    /// Finds the functions, and loads them as [`from_library`] does.
    ///
    /// # Safety
    ///
    /// As for `new`, with a context of the target's device.
    unsafe fn finish(self, target: Target, of: u32) -> Result<[Function; COUNT]> {
        let api = &self.driver.api;
        let mut functions = [ptr::null_mut(); COUNT];
        let all = NAMES.into_iter().zip(target.shared_bytes()).zip(&mut functions);
        for (((name, oldest), shared), function) in all.filter(|(((_, oldest), _), _)| of >= *oldest) {
            // SAFETY: the module is loaded, the name ends with a zero, and each call writes one value.
            unsafe {
                let code = (api.module_function)(function, self.module, name.as_ptr());
                if code == code::NOT_FOUND && oldest > OLDEST_CAPABILITY {
                    *function = ptr::null_mut();
                    continue;
                }
                self.driver.check("cuModuleGetFunction", code)?;
                let mut most = 0;
                let code = (api.function_attribute)(&mut most, attribute::DYNAMIC_SHARED_BYTES, *function);
                self.driver.check("cuFuncGetAttribute", code)?;
                let code = (api.function_set_attribute)(*function, attribute::DYNAMIC_SHARED_BYTES, shared);
                self.driver.check("cuFuncSetAttribute", code)?;
                log_needs(self.driver, name, *function);
            }
        }
        std::mem::forget(self);
        Ok(functions)
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
        assert!(CUBINS.iter().all(|(.., bytes)| bytes.0.starts_with(b"\x7fELF")));
        assert!(PTX.iter().all(|(_, text)| text.ends_with('\0') && text.matches('\0').count() == 1));
    }
}
