//! An inference engine for tests. It owns contexts, streams, events and memory, and calls the CUDA driver itself, as the callers of
//! the library do. The driver is the emulator. Each [`Emulator`] loads a copy of its own, so that tests that run at once do not see
//! each other's calls.

use df11::cuda::{Device, DeviceOptions, Stream};
use libloading::Library;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};

/// Returns the path of the emulator that cargo has built with the tests, or of the one that DF11_TEST_EMULATOR names
/// (tests/sanitize.sh).
pub fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("DF11_TEST_EMULATOR") {
        return path.into();
    }
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let library = folder.join(format!("{}df11_emulator{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    assert!(library.exists(), "{} is missing: cargo builds it with the tests", library.display());
    library
}

/// Returns NVIDIA's disassembler, which `kernels/build.py` installs. In CI it must be there.
fn nvdisasm() -> Option<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels-python/lib");
    let inside = "site-packages/nvidia/cu13/bin/nvdisasm";
    let versions = std::fs::read_dir(packages).into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join(inside)).find(|path| path.exists());
    if found.is_none() {
        println!("not run: nvdisasm is missing; `kernels/build.py --check` installs it on Linux for x86-64");
        let expected = cfg!(all(target_os = "linux", target_arch = "x86_64")) && std::env::var_os("CI").is_some();
        assert!(!expected, "nvdisasm is missing");
    }
    found
}

/// A driver that runs PTX, or machine code.
pub struct Emulator {
    library: Library,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Emulator {
    /// Loads a new copy: a device of compute capability 9.0, and a driver that says it is of CUDA 12.4 and has all entry
    /// points.
    pub fn new() -> Emulator {
        Emulator::lacking(&[])
    }

    /// Loads a new copy, a driver of that CUDA version (12040 is 12.4), without the entry points that came later.
    pub fn of_version(version: i32) -> Emulator {
        let emulator = Emulator::lacking(&df11_emulator::driver::newer_than(version));
        emulator.control("driver", &version.to_string());
        emulator
    }

    /// Loads a new copy without these entry points.
    pub fn lacking(symbols: &[&str]) -> Emulator {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libcuda.so.1");
        df11_emulator::driver::without_symbols(&library(), &path, symbols).unwrap();
        // SAFETY: the emulator's initialisers do nothing.
        let library = unsafe { Library::new(&path) }.unwrap();
        Emulator { library, path, _folder: folder }
    }

    /// Loads a new copy with a device of that compute capability, which runs machine code. None without a disassembler.
    pub fn machine_code(capability: u32) -> Option<Emulator> {
        let nvdisasm = nvdisasm()?;
        let emulator = Emulator::new();
        // What drivers of CUDA 12.8 brought are cubins for 10.0 and later.
        emulator.control("driver", "12080");
        emulator.control("cc", &capability.to_string());
        emulator.control("nvdisasm", nvdisasm.to_str().unwrap());
        Some(emulator)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns options that load this driver.
    pub fn options(&self) -> DeviceOptions {
        // SAFETY: the path is that of the emulated driver.
        unsafe { DeviceOptions::default().libcuda(&self.path) }
    }

    /// Opens the device of that number.
    pub fn open(&self, ordinal: i32) -> Device {
        Device::open(ordinal, &self.options()).unwrap()
    }

    /// Sets a property of the emulator: see its README.
    pub fn control(&self, key: &str, value: &str) {
        let (k, v) = (CString::new(key).unwrap(), CString::new(value).unwrap());
        // SAFETY: the function's signature; texts with a zero at the end.
        let code = unsafe {
            let control: libloading::Symbol<unsafe extern "C" fn(*const c_char, *const c_char) -> i32> =
                self.library.get(b"df11_emulator_control\0").unwrap();
            control(k.as_ptr(), v.as_ptr())
        };
        assert_eq!(code, 0, "{key} = {value}");
    }

    /// Reads a number from the emulator.
    pub fn query(&self, key: &str) -> u64 {
        let k = CString::new(key).unwrap();
        // SAFETY: the function's signature; a text with a zero at the end.
        let value = unsafe {
            let query: libloading::Symbol<unsafe extern "C" fn(*const c_char) -> u64> =
                self.library.get(b"df11_emulator_query\0").unwrap();
            query(k.as_ptr())
        };
        assert_ne!(value, u64::MAX, "the emulator does not know {key}");
        value
    }

    /// Reads a text from the emulator.
    pub fn text(&self, key: &str) -> String {
        let k = CString::new(key).unwrap();
        // SAFETY: the function's signature; the buffer has as much room as is said.
        unsafe {
            let text: libloading::Symbol<unsafe extern "C" fn(*const c_char, *mut c_char, usize) -> usize> =
                self.library.get(b"df11_emulator_text\0").unwrap();
            let bytes = text(k.as_ptr(), std::ptr::null_mut(), 0);
            assert_ne!(bytes, usize::MAX, "the emulator does not know {key}");
            let mut buffer = vec![0u8; bytes + 1];
            text(k.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
            buffer.truncate(bytes);
            String::from_utf8(buffer).unwrap()
        }
    }

    /// Returns how often each entry point was called.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let line = |line: &str| {
            let (name, count) = line.split_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        };
        self.text("calls").lines().map(line).collect()
    }

    /// Runs `work`, and returns what it called and how often.
    pub fn calls_of<T>(&self, work: impl FnOnce() -> T) -> (T, BTreeMap<String, u64>) {
        let before = self.calls();
        let result = work();
        let mut calls = self.calls();
        for (name, count) in before {
            *calls.get_mut(&name).unwrap() -= count;
        }
        calls.retain(|_, count| *count > 0);
        (result, calls)
    }

    /// Asserts that no kernel has done anything forbidden.
    pub fn assert_no_fault(&self) {
        assert_eq!(self.query("faults"), 0, "{}", self.text("fault"));
        assert_eq!(self.query("sticky"), 0);
    }

    /// Makes an engine in the primary context of a device.
    pub fn engine(&self, ordinal: i32) -> Engine<'_> {
        Engine::primary(self, ordinal)
    }
}

/// Calls an entry point and returns its code.
macro_rules! result_of {
    ($emulator:expr, $name:literal ( $($type:ty = $argument:expr),* )) => {{
        // SAFETY: tests give each entry point what its documentation asks for.
        unsafe {
            let function: libloading::Symbol<unsafe extern "C" fn($($type),*) -> i32> =
                $emulator.library.get(concat!($name, "\0").as_bytes()).unwrap();
            function($($argument),*)
        }
    }};
}

/// Calls an entry point and asserts that it succeeds.
macro_rules! call {
    ($emulator:expr, $name:literal $arguments:tt) => {
        assert_eq!(result_of!($emulator, $name $arguments), 0, $name)
    };
}

/// A context that the engine owns, current on the thread that made it.
pub struct Engine<'a> {
    pub emulator: &'a Emulator,
    pub context: usize,
    primary: Option<i32>,
}

impl<'a> Engine<'a> {
    /// Retains the primary context of a device.
    pub fn primary(emulator: &'a Emulator, ordinal: i32) -> Engine<'a> {
        let (mut context, mut device) = (0usize, 0);
        call!(emulator, "cuInit"(u32 = 0));
        call!(emulator, "cuDeviceGet"(*mut i32 = &mut device, i32 = ordinal));
        call!(emulator, "cuDevicePrimaryCtxRetain"(*mut usize = &mut context, i32 = device));
        call!(emulator, "cuCtxSetCurrent"(usize = context));
        Engine { emulator, context, primary: Some(device) }
    }

    /// Creates a context.
    pub fn own(emulator: &'a Emulator, ordinal: i32) -> Engine<'a> {
        let (mut context, mut device) = (0usize, 0);
        call!(emulator, "cuInit"(u32 = 0));
        call!(emulator, "cuDeviceGet"(*mut i32 = &mut device, i32 = ordinal));
        call!(emulator, "cuCtxCreate_v2"(*mut usize = &mut context, u32 = 0, i32 = device));
        Engine { emulator, context, primary: None }
    }

    /// Makes the context current on this thread.
    pub fn enter(&self) {
        call!(self.emulator, "cuCtxSetCurrent"(usize = self.context));
    }

    /// Returns the current context of this thread.
    pub fn current(&self) -> usize {
        current(self.emulator)
    }

    /// Makes a green context of that many multiprocessors, with a default stream or without.
    pub fn green(&self, multiprocessors: u32, with_default: bool) -> Green<'a> {
        // CUdevResource.
        type Resource = [u64; 18];
        let (mut all, mut part): (Resource, Resource) = ([0; 18], [0; 18]);
        let (mut device, mut count, mut description, mut handle, mut context) = (0, 1u32, 0usize, 0usize, 0usize);
        self.enter();
        let (emulator, none) = (self.emulator, std::ptr::null_mut());
        call!(emulator, "cuCtxGetDevice"(*mut i32 = &mut device));
        call!(emulator, "cuDeviceGetDevResource"(i32 = device, *mut Resource = &mut all, u32 = 1));
        call!(emulator, "cuDevSmResourceSplitByCount"(
            *mut Resource = &mut part, *mut u32 = &mut count, *const Resource = &all, *mut Resource = none, u32 = 0,
            u32 = multiprocessors
        ));
        call!(emulator, "cuDevResourceGenerateDesc"(*mut usize = &mut description, *mut Resource = &mut part, u32 = 1));
        call!(emulator, "cuGreenCtxCreate"(
            *mut usize = &mut handle, usize = description, i32 = device, u32 = u32::from(with_default)
        ));
        call!(emulator, "cuCtxFromGreenCtx"(*mut usize = &mut context, usize = handle));
        Green { emulator, handle, context }
    }

    pub fn alloc(&self, bytes: u64) -> u64 {
        self.enter();
        let mut address = 0;
        call!(self.emulator, "cuMemAlloc_v2"(*mut u64 = &mut address, usize = bytes.max(1) as usize));
        address
    }

    pub fn free(&self, address: u64) {
        self.enter();
        call!(self.emulator, "cuMemFree_v2"(u64 = address));
    }

    pub fn fill(&self, address: u64, value: u8, bytes: u64) {
        self.enter();
        call!(self.emulator, "cuMemsetD8_v2"(u64 = address, u8 = value, usize = bytes as usize));
        call!(self.emulator, "cuCtxSynchronize"());
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.enter();
        let len = bytes.len();
        call!(self.emulator, "cuMemcpyHtoD_v2"(u64 = address, *const u8 = bytes.as_ptr(), usize = len));
        call!(self.emulator, "cuCtxSynchronize"());
    }

    pub fn read(&self, address: u64, bytes: u64) -> Vec<u8> {
        self.enter();
        let mut to = vec![0u8; bytes as usize];
        if bytes > 0 {
            call!(self.emulator, "cuMemcpyDtoH_v2"(*mut u8 = to.as_mut_ptr(), u64 = address, usize = to.len()));
        }
        to
    }

    pub fn read_u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.read(address, 4).try_into().unwrap())
    }

    /// Allocates pinned host memory.
    pub fn pinned(&self, bytes: usize) -> *mut c_void {
        self.enter();
        let mut address = std::ptr::null_mut();
        call!(self.emulator, "cuMemHostAlloc"(*mut *mut c_void = &mut address, usize = bytes, u32 = 0));
        address
    }

    pub fn free_pinned(&self, address: *mut c_void) {
        self.enter();
        call!(self.emulator, "cuMemFreeHost"(*mut c_void = address));
    }

    /// Allocates memory, if the driver gives any.
    pub fn try_alloc(&self, bytes: u64) -> Option<u64> {
        let mut address = 0;
        self.try_enter();
        let code = result_of!(self.emulator, "cuMemAlloc_v2"(*mut u64 = &mut address, usize = bytes.max(1) as usize));
        (code == 0).then_some(address)
    }

    /// Does what [`Engine::enter`] does, and repeats it until the driver does not fail.
    pub fn try_enter(&self) {
        while result_of!(self.emulator, "cuCtxSetCurrent"(usize = self.context)) != 0 {}
    }

    /// Does what [`Engine::write`] does in the current context, and repeats it until the driver does not fail.
    pub fn try_write(&self, address: u64, bytes: &[u8]) {
        let len = bytes.len();
        while result_of!(self.emulator, "cuMemcpyHtoD_v2"(u64 = address, *const u8 = bytes.as_ptr(), usize = len)) != 0
        {
        }
        self.wait_context();
    }

    /// Waits for all work of the context.
    pub fn wait_context(&self) {
        self.enter();
        call!(self.emulator, "cuCtxSynchronize"());
    }

    /// Registers host memory with the driver, so that kernels may use it.
    pub fn register(&self, address: *mut c_void, bytes: usize) {
        self.enter();
        call!(self.emulator, "cuMemHostRegister_v2"(*mut c_void = address, usize = bytes, u32 = 2));
    }

    pub fn unregister(&self, address: *mut c_void) {
        self.enter();
        call!(self.emulator, "cuMemHostUnregister"(*mut c_void = address));
    }

    /// Creates a stream that is not ordered with the legacy stream.
    pub fn stream(&self) -> Stream {
        self.stream_with(1)
    }

    /// Creates a stream with these flags.
    pub fn stream_with(&self, flags: u32) -> Stream {
        self.enter();
        let mut stream = std::ptr::null_mut();
        call!(self.emulator, "cuStreamCreate"(*mut *mut c_void = &mut stream, u32 = flags));
        Stream::from_raw(stream)
    }

    /// Ends the primary context with all that is in it, and begins another that has the same handle.
    pub fn reset(&self) {
        call!(self.emulator, "cuDevicePrimaryCtxReset_v2"(i32 = self.primary.expect("a primary context")));
    }

    pub fn destroy(&self, stream: Stream) {
        self.enter();
        call!(self.emulator, "cuStreamDestroy_v2"(*mut c_void = stream.raw()));
    }

    /// Waits for a stream. Returns the driver's code, which tells whether its work has failed.
    pub fn wait(&self, stream: Stream) -> i32 {
        self.enter();
        result_of!(self.emulator, "cuStreamSynchronize"(*mut c_void = stream.raw()))
    }

    pub fn synchronise(&self, stream: Stream) {
        assert_eq!(self.wait(stream), 0, "{}", self.emulator.text("fault"));
    }

    /// Starts a capture: 0 is the global mode, 1 the thread's own, 2 the relaxed one.
    pub fn begin_capture(&self, stream: Stream, mode: i32) {
        self.enter();
        call!(self.emulator, "cuStreamBeginCapture_v2"(*mut c_void = stream.raw(), i32 = mode));
    }

    /// Ends a capture. Returns the executable graph, or the driver's code.
    pub fn end_capture(&self, stream: Stream) -> Result<usize, i32> {
        self.enter();
        let (mut graph, mut exec) = (0usize, 0usize);
        match result_of!(self.emulator, "cuStreamEndCapture"(*mut c_void = stream.raw(), *mut usize = &mut graph)) {
            0 => {}
            code => return Err(code),
        }
        call!(self.emulator, "cuGraphInstantiateWithFlags"(*mut usize = &mut exec, usize = graph, u64 = 0));
        call!(self.emulator, "cuGraphDestroy"(usize = graph));
        Ok(exec)
    }

    pub fn launch_graph(&self, exec: usize, stream: Stream) {
        self.enter();
        call!(self.emulator, "cuGraphLaunch"(usize = exec, *mut c_void = stream.raw()));
    }

    pub fn destroy_graph(&self, exec: usize) {
        self.enter();
        call!(self.emulator, "cuGraphExecDestroy"(usize = exec));
    }
}

/// Some of a device's multiprocessors, in the device's primary context.
pub struct Green<'a> {
    emulator: &'a Emulator,
    handle: usize,
    /// The handle by which it is used as a context.
    context: usize,
}

impl Green<'_> {
    /// Makes it current on this thread.
    pub fn enter(&self) {
        call!(self.emulator, "cuCtxSetCurrent"(usize = self.context));
    }

    /// Creates a stream as programs did before CUDA 12.5: while it is current.
    pub fn stream_made_here(&self) -> Stream {
        self.enter();
        let mut stream = std::ptr::null_mut();
        call!(self.emulator, "cuStreamCreate"(*mut *mut c_void = &mut stream, u32 = 1));
        Stream::from_raw(stream)
    }

    /// Creates a stream in it.
    pub fn stream(&self) -> Stream {
        let mut stream = std::ptr::null_mut();
        call!(self.emulator, "cuGreenCtxStreamCreate"(
            *mut *mut c_void = &mut stream, usize = self.handle, u32 = 1, i32 = 0
        ));
        Stream::from_raw(stream)
    }
}

impl Drop for Green<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            call!(self.emulator, "cuGreenCtxDestroy"(usize = self.handle));
        }
    }
}

/// Returns the current context of this thread; 0 for none.
pub fn current(emulator: &Emulator) -> usize {
    let mut context = 0;
    call!(emulator, "cuCtxGetCurrent"(*mut usize = &mut context));
    context
}

/// Removes the current context from the stack, so that the one below it is current.
pub fn pop(emulator: &Emulator) {
    let mut context = 0usize;
    call!(emulator, "cuCtxPopCurrent_v2"(*mut usize = &mut context));
}

/// Makes no context current on this thread.
pub fn leave(emulator: &Emulator) {
    call!(emulator, "cuCtxSetCurrent"(usize = 0));
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        match self.primary {
            Some(device) => call!(self.emulator, "cuDevicePrimaryCtxRelease_v2"(i32 = device)),
            None => call!(self.emulator, "cuCtxDestroy_v2"(usize = self.context)),
        }
    }
}
