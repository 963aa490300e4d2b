//! The entry points of libraries: images that are of no context, and load themselves into each context that needs them.
//!
//! The driver says of lazy loading that a library is loaded into a context when a function is needed there. So an image
//! that does not fit a device is refused by the first use there, unless loading is eager: then by the load itself, if it
//! does not fit the device of some context.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};

use super::codes::*;
use super::config::Config;
use super::entry::{Call, entries, put};
use super::module::{Image, look};
use super::state::Handle;

/// A library.
pub struct Library {
    image: Image,
    /// Its module in each context. Those of contexts that have ended do not exist any more.
    modules: BTreeMap<usize, usize>,
}

/// A library's kernel, of no context.
pub struct Kernel {
    library: usize,
    name: CString,
    /// The most dynamic shared bytes that a launch may ask for, by device.
    pub max_dynamic: BTreeMap<i32, i32>,
}

impl Call {
    /// Returns a library's module in a context, and loads it if it is not there.
    fn module_of(&mut self, library: usize, context: usize) -> Result<usize> {
        let found = self.libraries.get(&library).ok_or(INVALID_HANDLE)?;
        if let Some(&module) = found.modules.get(&context).filter(|module| self.modules.contains_key(module)) {
            return Ok(module);
        }
        let image = found.image.clone();
        self.unsafe_in_capture()?;
        let module = self.load_into(context, &image, true).map_err(|(code, text)| {
            if [INVALID_PTX, UNKNOWN].contains(&code) {
                eprintln!("df11-emulator: {text}");
            }
            code
        })?;
        self.libraries.get_mut(&library).unwrap().modules.insert(context, module);
        Ok(module)
    }

    /// Returns a kernel's function in a context; the same each time.
    pub fn function_of(&mut self, kernel: usize, context: usize) -> Result<usize> {
        let found = self.kernels.get(&kernel).ok_or(INVALID_HANDLE)?;
        let (library, name) = (found.library, found.name.clone());
        let module = self.module_of(library, context)?;
        let function = self.function(module, &name)?;
        self.functions.get_mut(&function).unwrap().kernel = kernel;
        Ok(function)
    }

    /// Returns a kernel's function in the context of a stream that it is launched in. To load the library there is
    /// forbidden in a capture.
    pub fn function_for_launch(&mut self, kernel: usize, stream: usize) -> Result<usize> {
        let library = self.kernels.get(&kernel).ok_or(INVALID_HANDLE)?.library;
        let (context, id) = (self.streams[&stream].context, self.streams[&stream].capture);
        let module = self.libraries[&library].modules.get(&context);
        if module.is_none_or(|module| !self.modules.contains_key(module))
            && let Some(capture) = self.captures.get_mut(&id)
        {
            capture.broken = true;
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        self.function_of(kernel, context)
    }
}

entries! {
    /// Loads PTX, or where that is posed a cubin; into all contexts if loading is eager. No context needs to be current.
    Init fn cuLibraryLoadData(
        call, library: *mut usize, image: *const c_void, _jit: *const u32, _jit_values: *mut *mut c_void, _jits: u32,
        _options: *const u32, _values: *mut *mut c_void, _count: u32,
    ) {
        if library.is_null() { return Err(INVALID_VALUE) }
        call.unsafe_in_capture()?;
        let image = look(image.cast())?;
        if let Image::Ptx(text) = &image {
            crate::ptx::Module::parse(text).map_err(|error| { eprintln!("df11-emulator: {error}"); INVALID_PTX })?;
        }
        let handle = call.handle(Handle::Library);
        call.libraries.insert(handle, Library { image, modules: BTreeMap::new() });
        if !call.config.lazy {
            let alive: Vec<usize> = call.contexts.iter().filter(|(_, c)| c.alive).map(|(&handle, _)| handle).collect();
            for context in alive {
                if let Err(code) = call.module_of(handle, context) {
                    call.unload_library(handle)?;
                    return Err(code);
                }
            }
        }
        put(library, handle)
    }

    /// Waits for the work of all contexts that it is loaded in, and unloads.
    Drop fn cuLibraryUnload(call, library: usize) {
        call.unload_library(library)
    }

    /// The library's module in the current context.
    Context fn cuLibraryGetModule(call, module: *mut usize, library: usize) {
        let context = call.current()?;
        let found = call.module_of(library, context)?;
        put(module, found)
    }

    /// A kernel by its name. The names of a cubin are not read: whichever is asked for is found here, and missed by the
    /// first use.
    Init fn cuLibraryGetKernel(call, kernel: *mut usize, library: usize, name: *const c_char) {
        if kernel.is_null() || name.is_null() { return Err(INVALID_VALUE) }
        let (name, found) = (CStr::from_ptr(name), call.libraries.get(&library).ok_or(INVALID_HANDLE)?);
        // A cubin that runs as PTX has the kernels of that.
        let text = match &found.image {
            Image::Ptx(text) => Some(text),
            Image::Cubin(..) if call.config.accept_cubin && call.config.nvdisasm.is_none() => call.cubin_ptx.as_ref(),
            Image::Cubin(..) => None,
        };
        if let Some(text) = text
            && !text.contains(&format!(".entry {}(", name.to_string_lossy()))
        {
            return Err(NOT_FOUND);
        }
        let same = |(_, kernel): &(&usize, &Kernel)| kernel.library == library && kernel.name.as_c_str() == name;
        if let Some((&handle, _)) = call.kernels.iter().find(same) { return put(kernel, handle) }
        let handle = call.handle(Handle::Kernel);
        call.kernels.insert(handle, Kernel { library, name: name.to_owned(), max_dynamic: BTreeMap::new() });
        put(kernel, handle)
    }

    /// The kernel's function in the current context.
    Context fn cuKernelGetFunction(call, function: *mut usize, kernel: usize) {
        if function.is_null() { return Err(INVALID_VALUE) }
        let context = call.current()?;
        let found = call.function_of(kernel, context)?;
        put(function, found)
    }

    /// The dynamic shared bytes that launches on a device may ask for, in every context whose function was not told
    /// otherwise. The other attributes cannot be set here.
    Init fn cuKernelSetAttribute(call, attribute: i32, value: i32, kernel: usize, device: i32) {
        let library = call.kernels.get(&kernel).ok_or(INVALID_HANDLE)?.library;
        call.device(device)?;
        call.fit(device, &call.libraries[&library].image).map_err(|(code, _)| code)?;
        let most = Config::shared_optin(call.config.cc_of(device));
        if attribute != 8 || !(0..=most).contains(&value) { return Err(INVALID_VALUE) }
        call.kernels.get_mut(&kernel).unwrap().max_dynamic.insert(device, value);
        Ok(())
    }
}

impl Call {
    fn unload_library(&mut self, library: usize) -> Result {
        let found = self.libraries.get(&library).ok_or(INVALID_HANDLE)?;
        let modules: Vec<usize> = found.modules.values().copied().filter(|m| self.modules.contains_key(m)).collect();
        self.unsafe_in_capture()?;
        for module in modules {
            self.unload(module)?;
        }
        self.libraries.remove(&library);
        self.kernels.retain(|_, kernel| kernel.library != library);
        Ok(())
    }
}
