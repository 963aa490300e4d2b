//! The entry points of modules and functions: PTX in, functions out, loaded lazily as drivers do.
//!
//! A function counts as loaded once its attributes were read or set, or it was launched; in a module that was loaded
//! eagerly at once. A first launch that has to load it is counted, and fails in a capture.

use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use super::codes::*;
use super::config::Config;
use super::disassemble::machine_code;
use super::entry::{Call, entries, put, put_if};
use super::state::{Allocation, Handle};
use crate::code::{Function, Module};
use crate::memory::Kind;
use crate::{ptx, sass};

/// A loaded module.
pub(super) struct Loaded {
    pub context: usize,
    module: Module,
    /// Of the PTX, as 10 · major + minor.
    target: i32,
    lazy: bool,
    /// True if it is a library's part in this context, and not the caller's.
    pub of_library: bool,
    /// Variables that callers asked for: they are memory as any other.
    variables: Vec<u64>,
}

/// A function of a module, known by its handle.
pub(super) struct Entry {
    pub module: usize,
    pub context: usize,
    pub function: Function,
    /// The most dynamic shared bytes that a launch may ask for, if the function was told.
    max_dynamic: Option<i32>,
    /// The library's kernel that it is in this context; 0 for a module's own function.
    pub kernel: usize,
    pub loaded: bool,
    target: i32,
    carveout: i32,
    name: std::ffi::CString,
}

/// An image, once it was looked at.
#[derive(Clone)]
pub(super) enum Image {
    Ptx(Arc<str>),
    /// A cubin for that compute capability; of the ELF ABI 8 or newer? And all of it.
    Cubin(i32, bool, Arc<[u8]>),
}

/// What runs for an image on a device.
pub(super) enum Runs {
    Text(Arc<str>),
    /// The cubin's machine code, which that program disassembles.
    Machine(PathBuf, Arc<[u8]>),
}

/// Looks at an image as far as needed to tell what it is.
///
/// # Safety
/// `image` is an ELF file or a text with a zero at its end.
pub(super) unsafe fn look(image: *const u8) -> Result<Image> {
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: a text that is shorter ends the comparison at its zero.
    let begins = |bytes: &[u8]| bytes.iter().enumerate().all(|(at, byte)| unsafe { image.add(at).read() } == *byte);
    if begins(b"\x7fELF") {
        // SAFETY: an ELF file has a header of 64 bytes; e_flags are at 48.
        let flags = unsafe { image.add(48).cast::<u32>().read_unaligned() };
        // SAFETY: the header has 64 bytes; the ABI's version is at 8. Since version 8 the architecture is the second byte.
        let abi = unsafe { image.add(8).read() };
        let sm = (if abi >= 8 { flags >> 8 } else { flags } & 0xFF) as i32;
        // SAFETY: an ELF file has as many bytes as its tables say.
        let bytes = unsafe { std::slice::from_raw_parts(image, sass::bytes_of(image)) };
        return Ok(Image::Cubin(sm, abi >= 8, bytes.into()));
    }
    if begins(&0xBA55_ED50u32.to_le_bytes()) {
        // A fat binary: nothing here reads them.
        return Err(NO_BINARY_FOR_GPU);
    }
    // SAFETY: no ELF file, so by this function's contract a text.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    text.to_str().map(|text| Image::Ptx(text.into())).map_err(|_| INVALID_IMAGE)
}

/// Returns the value of a directive at the beginning of one of the text's lines.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().map(str::trim_start).find(|line| line.starts_with(name))?;
    Some(line[name.len()..].trim())
}

/// Returns whether the posed driver compiles this PTX for a device; `Ok` is its target, the error a code and a text.
fn accept(config: &Config, cc: i32, text: &str) -> Result<i32, (i32, String)> {
    let version = directive(text, ".version").ok_or((INVALID_IMAGE, "no .version: not PTX".to_string()))?;
    let number = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some(10 * major.parse::<i32>().ok()? + minor.parse::<i32>().ok()?)
    };
    let isa = number(version).ok_or((INVALID_PTX, format!(".version {version} is no version")))?;
    if isa > config.newest_ptx() {
        return Err((UNSUPPORTED_PTX_VERSION, format!(".version {version} is too new for driver {}", config.driver)));
    }
    let target = directive(text, ".target").and_then(|t| t.split(',').next()).unwrap_or("").trim();
    let digits = target.strip_prefix("sm_").ok_or((INVALID_PTX, format!(".target {target} is none")))?;
    // sm_90a and sm_100f run on that architecture alone, or its family.
    let special = digits.ends_with(['a', 'f']);
    let sm: i32 =
        digits.trim_end_matches(['a', 'f']).parse().map_err(|_| (INVALID_PTX, format!(".target {target}")))?;
    if sm > cc || special && sm / 10 != cc / 10 {
        return Err((
            INVALID_PTX,
            format!(".target {target} is too new for compute capability {}.{}", cc / 10, cc % 10),
        ));
    }
    Ok(sm)
}

impl Call {
    /// Loads an image into the current context. The text says what was wrong.
    ///
    /// # Safety
    /// As [`look`].
    unsafe fn load(&mut self, image: *const c_void) -> Result<usize, (i32, String)> {
        let bare = |code: i32| (code, String::new());
        self.unsafe_in_capture().map_err(bare)?;
        let context = self.current().map_err(bare)?;
        // SAFETY: this function's own contract.
        let image = unsafe { look(image.cast()) }.map_err(bare)?;
        self.load_into(context, &image, false)
    }

    /// Loads an image into a context. The text says what was wrong.
    pub fn load_into(&mut self, context: usize, image: &Image, of_library: bool) -> Result<usize, (i32, String)> {
        let (runs, target) = self.fit(self.contexts[&context].device, image)?;
        let module = match runs {
            Runs::Text(text) => {
                let module = ptx::Module::parse(&text).map_err(|error| (INVALID_PTX, error.to_string()))?;
                if matches!(image, Image::Ptx(_)) {
                    self.last_ptx = Some(text);
                }
                Module::Ptx(module)
            }
            Runs::Machine(program, cubin) => {
                // No code that lets a library try another image: a test wants this one.
                let module = machine_code(&program, &cubin).map_err(|text| (UNKNOWN, text))?;
                self.machine_code += 1;
                Module::Machine(module)
            }
        };
        let handle = self.handle(Handle::Module);
        let (lazy, variables) = (self.config.lazy, Vec::new());
        self.modules.insert(handle, Loaded { context, module, target, lazy, of_library, variables });
        Ok(handle)
    }

    /// Returns what runs for an image on a device, and the target that it was compiled for. The error's text
    /// says why the posed driver does not take it there.
    pub fn fit(&self, device: i32, image: &Image) -> Result<(Runs, i32), (i32, String)> {
        let cc = self.config.cc_of(device);
        match image {
            Image::Ptx(_) if !self.config.jit => Err((JIT_COMPILER_NOT_FOUND, "no PTX compiler".into())),
            Image::Ptx(text) => accept(&self.config, cc, text).map(|target| (Runs::Text(text.clone()), target)),
            // The ABI that CUDA 12.8 brought for its new architectures, and 13.0 for all.
            Image::Cubin(sm, true, _) if self.config.driver < if *sm >= 100 { 12080 } else { 13000 } => {
                Err((INVALID_IMAGE, format!("a cubin of a newer ABI for sm_{sm}")))
            }
            Image::Cubin(sm, _, bytes) => {
                let fits = sm / 10 == cc / 10 && *sm <= cc;
                if let Some(program) = self.config.nvdisasm.clone().filter(|_| fits) {
                    return Ok((Runs::Machine(program, bytes.clone()), *sm));
                }
                if !self.config.accept_cubin || !fits {
                    return Err((NO_BINARY_FOR_GPU, format!("a cubin for sm_{sm}")));
                }
                let told = self.cubin_ptx.clone().or_else(|| self.last_ptx.clone());
                told.map(|text| (Runs::Text(text), cc))
                    .ok_or((NO_BINARY_FOR_GPU, "a cubin, and no PTX known to run for it".into()))
            }
        }
    }

    /// Does what [`Call::load`] does, writes the fault to standard error, and returns the code alone.
    unsafe fn load_and_tell(&mut self, image: *const c_void) -> Result<usize> {
        // SAFETY: the caller's own contract.
        unsafe { self.load(image) }.map_err(|(code, text)| {
            if [INVALID_PTX, UNKNOWN].contains(&code) {
                eprintln!("df11-emulator: {text}");
            }
            code
        })
    }

    /// Waits for the module's context, and unloads it.
    pub fn unload(&mut self, module: usize) -> Result {
        let context = self.modules.get(&module).ok_or(INVALID_HANDLE)?.context;
        self.unsafe_in_capture()?;
        self.drive_context(context);
        let Some(loaded) = self.modules.remove(&module) else { return Err(INVALID_HANDLE) };
        self.functions.retain(|_, entry| entry.module != module);
        for address in loaded.variables {
            self.forget(address);
        }
        Ok(())
    }

    /// Returns the handle of a module's function; the same each time.
    pub fn function(&mut self, module: usize, name: &CStr) -> Result<usize> {
        let loaded = self.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let found = name.to_str().ok().and_then(|name| loaded.module.function(name)).ok_or(NOT_FOUND)?;
        let known = |(_, entry): &(&usize, &Entry)| entry.module == module && entry.name.as_c_str() == name;
        if let Some((&handle, _)) = self.functions.iter().find(known) {
            return Ok(handle);
        }
        let (context, function, loaded, target) = (loaded.context, found, !loaded.lazy, loaded.target);
        let name = name.to_owned();
        let (max_dynamic, kernel, carveout) = (None, 0, -1);
        let entry = Entry { module, context, function, max_dynamic, kernel, loaded, target, carveout, name };
        let handle = self.handle(Handle::Function);
        self.functions.insert(handle, entry);
        Ok(handle)
    }

    /// Returns the most dynamic shared bytes that a launch of a function may ask for: what the function was told, or
    /// the kernel for the device, or the bytes that every device has.
    pub fn max_dynamic(&self, entry: &Entry) -> i32 {
        let told = || self.kernels.get(&entry.kernel)?.max_dynamic.get(&self.contexts[&entry.context].device).copied();
        let all = (48 << 10) - entry.function.static_shared_bytes() as i32;
        entry.max_dynamic.or_else(told).unwrap_or(all)
    }

    /// Loads a function if it is not, which a capture forbids.
    fn load_function(&mut self, function: usize) -> Result {
        if !self.functions.get(&function).ok_or(INVALID_HANDLE)?.loaded {
            self.unsafe_in_capture()?;
            self.functions.get_mut(&function).unwrap().loaded = true;
        }
        Ok(())
    }

    /// Returns what a launch asks for: the function, loaded. Loading it now is counted, and in a capture refused.
    pub fn load_for_launch(&mut self, function: usize, stream: usize) -> Result {
        if self.functions.get(&function).ok_or(INVALID_HANDLE)?.loaded {
            return Ok(());
        }
        let id = self.streams[&stream].capture;
        if let Some(capture) = self.captures.get_mut(&id) {
            capture.broken = true;
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        self.lazy_loads += 1;
        self.load_function(function)
    }
}

/// Hands a text to the caller's JIT log: the options of `cuModuleLoadDataEx` that name a buffer and its size.
///
/// # Safety
/// `options` and `values` hold `count` entries each, and what they name is as the driver wants it.
unsafe fn log(text: &str, count: u32, options: *const u32, values: *mut *mut c_void) {
    const BUFFER: u32 = 5;
    const BYTES: u32 = 6;
    if options.is_null() || values.is_null() {
        return;
    }
    // SAFETY: `count` options, by the contract.
    let find = |wanted| (0..count as usize).find(|&at| unsafe { options.add(at).read_unaligned() } == wanted);
    let (Some(buffer), Some(bytes)) = (find(BUFFER), find(BYTES)) else { return };
    // SAFETY: both indices are below `count`; the size is given in the pointer itself, and written back there.
    unsafe {
        let (place, room) =
            (values.add(buffer).read_unaligned().cast::<u8>(), values.add(bytes).read_unaligned() as usize);
        if place.is_null() || room == 0 {
            return;
        }
        let written = text.len().min(room - 1);
        std::ptr::copy_nonoverlapping(text.as_ptr(), place, written);
        place.add(written).write(0);
        values.add(bytes).write_unaligned((written + 1) as *mut c_void);
    }
}

entries! {
    /// Loads PTX, or where that is posed a cubin.
    Context fn cuModuleLoadData(call, module: *mut usize, image: *const c_void) {
        if module.is_null() { return Err(INVALID_VALUE) }
        let handle = call.load_and_tell(image)?;
        put(module, handle)
    }

    /// The same with options; the error log is filled, the others are taken and forgotten.
    Context fn cuModuleLoadDataEx(
        call, module: *mut usize, image: *const c_void, count: u32, options: *const u32, values: *mut *mut c_void,
    ) {
        if module.is_null() { return Err(INVALID_VALUE) }
        match call.load(image) {
            Ok(handle) => put(module, handle),
            Err((code, text)) => { log(&text, count, options, values); Err(code) }
        }
    }

    /// Fat binaries are not read; PTX and cubins are.
    Context fn cuModuleLoadFatBinary(call, module: *mut usize, image: *const c_void) {
        if module.is_null() { return Err(INVALID_VALUE) }
        let handle = call.load_and_tell(image)?;
        put(module, handle)
    }

    /// Loads a file.
    Context fn cuModuleLoad(call, module: *mut usize, path: *const c_char) {
        if module.is_null() || path.is_null() { return Err(INVALID_VALUE) }
        let path = CStr::from_ptr(path).to_str().map_err(|_| FILE_NOT_FOUND)?;
        let mut bytes = std::fs::read(path).map_err(|_| FILE_NOT_FOUND)?;
        bytes.extend([0; 64]);
        let handle = call.load_and_tell(bytes.as_ptr().cast())?;
        put(module, handle)
    }

    /// Waits for the context's work, and unloads.
    Release fn cuModuleUnload(call, module: usize) {
        call.unload(module)
    }

    /// A function by its name.
    Context fn cuModuleGetFunction(call, function: *mut usize, module: usize, name: *const c_char) {
        if function.is_null() || name.is_null() { return Err(INVALID_VALUE) }
        let handle = call.function(module, CStr::from_ptr(name))?;
        put(function, handle)
    }

    /// Returns the number of functions of a module.
    Context fn cuModuleGetFunctionCount(call, count: *mut u32, module: usize) {
        let loaded = call.modules.get(&module).ok_or(INVALID_HANDLE)?;
        put(count, loaded.module.function_count() as u32)
    }

    /// A variable by its name; it is memory as any other as long as the module is loaded.
    Context fn cuModuleGetGlobal_v2(call, address: *mut u64, bytes: *mut usize, module: usize, name: *const c_char) {
        if name.is_null() { return Err(INVALID_VALUE) }
        let loaded = call.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let context = loaded.context;
        let name = CStr::from_ptr(name).to_str().map_err(|_| NOT_FOUND)?;
        let found = loaded.module.variable(name).ok_or(NOT_FOUND)?;
        if !call.allocations.contains_key(&found.address) {
            let memory = &call.contexts[&context].memory;
            memory.register(found.address, found.bytes, Kind::ModuleGlobal, context as u64, false);
            let id = call.number();
            let (bytes, kind, freeing, flags) = (found.bytes, Kind::ModuleGlobal, false, 0);
            call.allocations.insert(found.address, Allocation { bytes, context, kind, freeing, id, flags });
            call.modules.get_mut(&module).unwrap().variables.push(found.address);
        }
        put_if(address, found.address);
        put_if(bytes, found.bytes as usize);
        Ok(())
    }

    /// 1 eager, 2 lazy.
    Init fn cuModuleGetLoadingMode(call, mode: *mut i32) {
        put(mode, 1 + i32::from(call.config.lazy))
    }

    /// An attribute of a function, which is loaded for it.
    Context fn cuFuncGetAttribute(call, value: *mut i32, attribute: i32, function: usize) {
        call.load_function(function)?;
        let cc = call.config.cc_of(call.contexts[&call.current()?].device);
        let entry = &call.functions[&function];
        put(value, match attribute {
            0 => entry.function.max_threads().unwrap_or(1024) as i32,
            1 => entry.function.static_shared_bytes() as i32,
            2 | 7 => 0,
            3 => entry.function.local_bytes() as i32,
            4 => entry.function.registers() as i32,
            5 => entry.target,
            6 => cc,
            8 => call.max_dynamic(entry),
            9 => entry.carveout,
            _ => return Err(INVALID_VALUE),
        })
    }

    /// The two attributes that can be set: dynamic shared bytes, up to what the device allows, and the carve-out.
    Context fn cuFuncSetAttribute(call, function: usize, attribute: i32, value: i32) {
        call.load_function(function)?;
        let entry = &call.functions[&function];
        let device = call.contexts.get(&entry.context).map_or(0, |context| context.device);
        let most = Config::shared_optin(call.config.cc_of(device)) - entry.function.static_shared_bytes() as i32;
        let entry = call.functions.get_mut(&function).unwrap();
        match attribute {
            8 if (0..=most).contains(&value) => entry.max_dynamic = Some(value),
            9 if (-1..=100).contains(&value) => entry.carveout = value,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }

    /// A wish that changes nothing.
    Context fn cuFuncSetCacheConfig(call, function: usize, config: i32) {
        if !(0..=3).contains(&config) { return Err(INVALID_VALUE) }
        if call.functions.contains_key(&function) { Ok(()) } else { Err(INVALID_HANDLE) }
    }

    /// Loads a function.
    Context fn cuFuncLoad(call, function: usize) {
        call.load_function(function)
    }

    /// 0 not loaded, 1 loaded.
    Context fn cuFuncIsLoaded(call, state: *mut i32, function: usize) {
        put(state, i32::from(call.functions.get(&function).ok_or(INVALID_HANDLE)?.loaded))
    }

    /// A function's module.
    Context fn cuFuncGetModule(call, module: *mut usize, function: usize) {
        put(module, call.functions.get(&function).ok_or(INVALID_HANDLE)?.module)
    }

    /// A function's name; it lives as long as the module.
    Context fn cuFuncGetName(call, name: *mut *const c_char, function: usize) {
        put(name, call.functions.get(&function).ok_or(INVALID_HANDLE)?.name.as_ptr())
    }
}
