//! How the driver is found, and what becomes of one that is missing, too old, or says what nobody knows.
#![cfg(target_os = "linux")]

use crate::support;

use df11::cuda::{Device, DeviceOptions};
use df11::internals::cuda::driver::{ENTRY_POINTS, OPTIONAL_ENTRY_POINTS};
use df11::{Error, Status};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::engine::{self, Emulator, Engine};

fn options(path: &Path) -> DeviceOptions {
    // SAFETY: the tests' own drivers, text files, and paths without a file.
    unsafe { DeviceOptions::default().libcuda(path) }
}

fn refusal(options: &DeviceOptions) -> Error {
    Device::open(0, options).expect_err("there is no such driver")
}

/// Builds a library with these functions and no others.
fn small_library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let path = folder.join(name);
    let c = folder.join("small.c");
    std::fs::write(&c, source).unwrap();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    assert!(Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&path).arg(&c).status().unwrap().success());
    path
}

#[test]
fn a_missing_library_is_named_and_looked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libcuda.so.1");
    for _ in 0..2 {
        let error = refusal(&options(&path));
        assert_eq!((error.status(), error.native_code()), (Status::NoDriver, 0));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
    // A driver that is installed meanwhile is found.
    std::fs::copy(engine::library(), &path).unwrap();
    Device::open(0, &options(&path)).unwrap();
}

#[test]
fn what_is_no_driver_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    let error = refusal(&options(&text));
    assert_eq!(error.status(), Status::NoDriver);

    let empty = small_library(folder.path(), "empty.so", "int nothing(void) { return 0; }");
    let error = refusal(&options(&empty));
    assert_eq!(error.status(), Status::NoDriver);
    assert!(error.to_string().contains("has no cuDriverGetVersion"), "{error}");

    let version = "int cuDriverGetVersion(int *version) { *version = 12040; return 0; }";
    let half = small_library(folder.path(), "half.so", version);
    let error = refusal(&options(&half));
    assert_eq!(error.status(), Status::NoDriver);
    assert!(error.to_string().contains("has no cuInit"), "{error}");

    let failing = small_library(folder.path(), "failing.so", "int cuDriverGetVersion(int *version) { return 913; }");
    assert_eq!(
        (refusal(&options(&failing)).status(), refusal(&options(&failing)).native_code()),
        (Status::NoDriver, 913)
    );
}

/// Each entry point that the table lists is needed: a driver that lacks just that one is refused, and told apart.
#[test]
fn every_missing_symbol_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let names = || ["cuDriverGetVersion"].into_iter().chain(ENTRY_POINTS.iter().copied());
    for missing in names() {
        let mut source = String::new();
        for name in names().filter(|name| *name != missing) {
            source += &match name {
                "cuDriverGetVersion" => "int cuDriverGetVersion(int *v) { *v = 12000; return 0; }\n".to_owned(),
                name => format!("int {name}(void) {{ return 999; }}\n"),
            };
        }
        let path = small_library(folder.path(), &format!("without_{missing}.so"), &source);
        let error = refusal(&options(&path));
        assert_eq!(error.status(), Status::NoDriver);
        assert!(error.to_string().contains(&format!("has no {missing}:")), "{error}");
    }
}

/// What a driver may lack it may lack alone: kernels then come from modules, and only streams of green contexts are refused.
#[test]
fn a_driver_that_lacks_any_later_symbol_decodes() {
    let model = df11::Model::open(support::golden::model("tiny"), &Default::default()).unwrap();
    let want = support::target::want(&model, 0);
    let [libraries, greens, _] = OPTIONAL_ENTRY_POINTS;
    for missing in OPTIONAL_ENTRY_POINTS.concat() {
        let emulator = Emulator::lacking(&[missing]);
        emulator.control("sms", "16");
        let engine = emulator.engine(0);
        let (device, stream, green) = (emulator.open(0), engine.stream(), engine.green(8, false));
        let resident = support::target::upload(&engine, &device, &model, 0, stream).1;
        let target = support::target::Target::new(&engine, want.len() as u64, 0);
        // SAFETY: the memory lives until the streams were waited for.
        let (plain, in_green) = unsafe {
            let plain = resident.decompress(target.dst, target.bytes, 0, stream);
            engine.synchronise(stream);
            (plain, resident.decompress(target.dst, target.bytes, 0, green.stream()))
        };
        plain.unwrap();
        let modules = u64::from(libraries.contains(&missing));
        assert_eq!(emulator.query("live.modules"), modules, "{missing}");
        match in_green {
            Ok(()) => assert!(modules == 0 && !greens.contains(&missing), "{missing}"),
            Err(error) => {
                assert!(modules == 1 || greens.contains(&missing), "{missing}: {error}");
                assert_eq!(error.status(), Status::WrongDevice);
                assert!(error.to_string().contains("too old (CUDA 12.5)"), "{error}");
            }
        }
        engine.wait_context();
        assert!(target.take(&engine) == want, "{missing}");
        emulator.assert_no_fault();
    }
}

#[test]
fn drivers_before_12_0_are_refused_and_12_0_is_taken() {
    for (version, refused) in [("11080", "11.8"), ("11020", "11.2"), ("12000", ""), ("13020", "")] {
        let emulator = Emulator::new();
        emulator.control("driver", version);
        match Device::open(0, &emulator.options()) {
            Ok(device) => assert!(refused.is_empty() && device.info().driver_version.to_string() == version),
            Err(error) => {
                assert!(!refused.is_empty(), "{error}");
                assert_eq!(error.status(), Status::NoDriver);
                let text = error.to_string();
                assert!(text.contains(&format!("CUDA {refused}: ")), "{text}");
                assert!(text.contains("12.0 (driver 525)"), "{text}");
                // An old driver is not even started.
                assert_eq!(emulator.query("calls.cuInit"), 0);
            }
        }
    }
}

#[test]
fn no_device_a_wrong_number_and_an_old_device_are_told_apart() {
    let emulator = Emulator::new();
    emulator.control("devices", "0");
    let error = refusal(&emulator.options());
    assert_eq!((error.status(), error.native_code()), (Status::NoDriver, 100), "{error}");
    emulator.control("devices", "2");
    for ordinal in [-1, 2, i32::MAX] {
        let error = Device::open(ordinal, &emulator.options()).err().unwrap();
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.to_string().contains("there are 2"), "{error}");
    }
    assert_eq!(emulator.open(1).info().ordinal, 1);
    emulator.control("cc", "70");
    let error = refusal(&emulator.options());
    assert_eq!(error.status(), Status::NoKernel);
    assert!(error.to_string().contains("7.0"), "{error}");
    assert_eq!(emulator.query("live.retains"), 0);
}

#[test]
fn without_a_compiler_and_a_cubin_there_is_no_kernel() {
    let emulator = Emulator::new();
    emulator.control("jit", "0");
    let error = refusal(&emulator.options());
    assert_eq!((error.status(), error.native_code()), (Status::NoKernel, 221), "{error}");
    assert!(error.to_string().contains("sm_90: ") && error.to_string().contains("PTX: "), "{error}");
    assert_eq!((emulator.query("live.modules"), emulator.query("live.retains")), (0, 0));
    assert_eq!(engine::current(&emulator), 0);
}

/// A code that no version of `cuda.h` had when this was written is a number like any other.
#[test]
fn unknown_codes_survive() {
    for code in [913, 4321, -7] {
        let emulator = Emulator::new();
        emulator.control("fail", &format!("cuDevicePrimaryCtxRetain@1={code}"));
        let error = refusal(&emulator.options());
        assert_eq!((error.status(), error.native_code()), (Status::Cuda, code));
        assert!(error.to_string().starts_with("cuDevicePrimaryCtxRetain failed: "), "{error}");
        emulator.open(0);
    }
}

#[test]
fn the_current_context_is_the_callers() {
    let emulator = Emulator::new();
    emulator.control("devices", "2");
    // Without one there is nothing to open in.
    // SAFETY: there is no context.
    let error = unsafe { Device::open_current(&emulator.options()) }.err().unwrap();
    assert_eq!(error.status(), Status::InvalidArgument, "{error}");
    emulator.open(0);
    assert_eq!(engine::current(&emulator), 0, "opening left a context behind");

    let own = Engine::own(&emulator, 1);
    // SAFETY: the context outlives the device.
    let device = unsafe { Device::open_current(&emulator.options()) }.unwrap();
    assert_eq!((device.info().ordinal, own.current()), (1, own.context));
    // Another device's primary context does not replace it.
    emulator.open(0);
    assert_eq!(own.current(), own.context);
    drop(device);
    assert_eq!(emulator.query("live.contexts"), 1, "the caller's context was ended");
}

#[test]
fn a_device_holds_the_primary_context_as_long_as_it_or_a_resident_lives() {
    let emulator = Emulator::new();
    let one = emulator.open(0);
    let two = one.clone();
    assert_eq!(emulator.query("live.retains"), 1);
    drop(one);
    assert_eq!(emulator.query("live.retains"), 1);
    drop(two);
    assert_eq!(emulator.query("live.retains"), 0);

    // Where the engine holds it, kernels are loaded once, and stay for graphs that captured them.
    let _engine = emulator.engine(0);
    let ((), first) = emulator.calls_of(|| drop(emulator.open(0)));
    let ((), second) = emulator.calls_of(|| drop(emulator.open(0)));
    assert!(!first.keys().chain(second.keys()).any(|name| name.ends_with("LoadData")), "{first:?} {second:?}");
    assert!(!first.contains_key("cuCtxSynchronize") && !first.keys().any(|name| name.contains("Alloc")), "{first:?}");
    // One of a cubin, which this driver does not take, and one of PTX.
    assert_eq!((emulator.query("calls.cuLibraryLoadData"), emulator.query("live.libraries")), (2, 2));
}

#[test]
fn two_drivers_live_in_one_process() {
    let (one, two) = (Emulator::new(), Emulator::new());
    two.control("cc", "86");
    let devices = [one.open(0), two.open(0)];
    assert_eq!([devices[0].info().capability, devices[1].info().capability], [(9, 0), (8, 6)]);
    assert_ne!(devices[0].info().libcuda, devices[1].info().libcuda);
    assert_eq!((one.query("live.retains"), two.query("live.retains")), (1, 1));
}

/// A driver whose entry points do nothing and succeed: what is left of a call's time is the library's own.
const IDLE: &str = r#"
#include <stddef.h>
static char context;
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cuInit(unsigned f) { return 0; }
int cuGetErrorName(int c, const char **t) { return 1; }
int cuGetErrorString(int c, const char **t) { return 1; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuDeviceGetName(char *to, int room, int d) { to[0] = 0; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : a == 76 ? 0 : a == 97 ? 232448 : 132; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &context; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxPushCurrent_v2(void *c) { return 0; }
int cuCtxPopCurrent_v2(void **c) { return 0; }
int cuCtxGetCurrent(void **c) { *c = NULL; return 0; }
int cuCtxGetDevice(int *d) { *d = 0; return 0; }
int cuThreadExchangeStreamCaptureMode(int *m) { return 0; }
int cuStreamGetCtx(void *s, void **c) { *c = &context; return 0; }
int cuStreamIsCapturing(void *s, int *v) { *v = 0; return 0; }
int cuModuleLoadData(void **m, const void *i) { return 0; }
int cuModuleUnload(void *m) { return 0; }
int cuModuleGetFunction(void **f, void *m, const char *n) { return 0; }
int cuFuncGetAttribute(int *v, int a, void *f) { return 0; }
int cuFuncSetAttribute(void *f, int a, int v) { return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *f, int t, size_t s) { *n = 2; return 0; }
unsigned stub_blocks;
int cuLaunchKernel(void *f, unsigned x) { stub_blocks = x; return 0; }
int cuLaunchKernelEx(const unsigned *config) { stub_blocks = config[0]; return 0; }
int cuMemcpyHtoDAsync_v2(void) { return 999; }
int cuMemsetD8Async(void) { return 999; }
int cuEventCreate(void) { return 999; }
int cuEventRecord(void) { return 999; }
int cuEventSynchronize(void) { return 999; }
int cuEventDestroy_v2(void) { return 999; }
"#;

/// The entry points of CUDA 12.0 to 12.5 that [`IDLE`] lacks. Stream 64 is of no green context, all others are of one. Each
/// question for its size is counted.
const NEWER: &str = r#"
unsigned stub_part = 24, stub_asked;
int cuLibraryLoadData(void) { return 0; }
int cuLibraryGetKernel(void **k, void *l, const char *n) { *k = &context; return 0; }
int cuKernelGetFunction(void **f, void *k) { *f = &context; return 0; }
int cuKernelSetAttribute(int a, int v, void *k, int d) { return 0; }
int cuStreamGetCtx_v2(void *s, void **c, void **g) { *c = &context; *g = (size_t)s == 64 ? NULL : s; return 0; }
int cuCtxGetDevResource(void *c, unsigned *r, int t) { r[0] = 1; r[24] = 132; return t != 1; }
int cuGreenCtxGetDevResource(void *g, unsigned *r, int t) { r[0] = 1; r[24] = stub_part; stub_asked++; return t != 1; }
"#;

/// What CUDA 13.0 adds to that.
const NEWEST: &str = r#"
unsigned long long stub_number = 1;
int cuGreenCtxGetId(void *g, unsigned long long *id) { *id = stub_number; return 0; }
"#;

/// A stub, and its variables.
struct Stub {
    library: libloading::Library,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Stub {
    fn new(parts: &[&str]) -> Stub {
        let folder = tempfile::tempdir().unwrap();
        let path = small_library(folder.path(), "idle.so", &parts.concat());
        // SAFETY: it has no initialisers.
        Stub { library: unsafe { libloading::Library::new(&path) }.unwrap(), path, _folder: folder }
    }

    /// Returns a number and stores another.
    fn exchange<T: Copy>(&self, name: &str, value: T) -> T {
        // SAFETY: a variable of that type, which no other thread uses.
        unsafe { std::mem::replace(&mut **self.library.get::<*mut T>(name.as_bytes()).unwrap(), value) }
    }

    /// Binds a large group, at an address that nobody reads.
    fn resident(&self, model: &df11::Model) -> df11::cuda::Resident {
        let device = Device::open(0, &options(&self.path)).unwrap();
        let group = model.groups().max_by_key(|group| group.tensors().len()).unwrap();
        let bytes = group.image_layout().unwrap().image_bytes;
        // SAFETY: this driver touches no memory.
        unsafe { device.bind(group, 1 << 20, bytes) }.unwrap()
    }
}

/// Green contexts are told apart by numbers, because handles are used again. Where the driver has no numbers, the size that a
/// handle had first stays in use.
#[test]
fn a_green_context_at_the_address_of_another_is_another() {
    let model = df11::Model::open(support::golden::model("block"), &Default::default()).unwrap();
    let stream = df11::cuda::Stream::from_raw(std::ptr::without_provenance_mut(128));
    for numbered in [true, false] {
        let stub = Stub::new(if numbered { &[IDLE, NEWER, NEWEST] } else { &[IDLE, NEWER] });
        let resident = stub.resident(&model);
        let decode = |part: u32, number: u64| {
            stub.exchange("stub_part", part);
            if numbered {
                stub.exchange("stub_number", number);
            }
            // SAFETY: this driver touches no memory.
            unsafe { resident.decompress(1 << 40, u64::MAX, 0, stream) }.unwrap();
            (stub.exchange("stub_blocks", 0u32), stub.exchange("stub_asked", 0u32))
        };
        let (large, asked) = decode(24, 1);
        assert_eq!((asked, decode(24, 1)), (1, (large, 0)));
        let (small, asked) = decode(4, 2);
        if numbered {
            assert!(asked == 1 && small <= 8 && small < large, "{small} {large} {asked}");
            assert_eq!(decode(4, 2), (small, 0));
            // What cannot be remembered is asked for again.
            for _ in 0..2 {
                assert_eq!((decode(4, 1 << 60), decode(65_536, 3).1), ((small, 1), 1));
            }
        } else {
            assert_eq!((small, asked), (large, 0));
        }
    }
}

/// The host's time for one call, the driver's share left out: the best of many rounds, since a machine under test has
/// others. Streams of green contexts take no longer. Alone on two cores it is less than half a microsecond with the checks
/// of a test build; the bound leaves room for a core that is shared all the time.
#[test]
fn a_call_takes_the_host_about_a_microsecond() {
    for (parts, stream) in [(&[IDLE][..], 64), (&[IDLE, NEWER, NEWEST], 64), (&[IDLE, NEWER, NEWEST], 128)] {
        time_a_call(&Stub::new(parts), stream);
    }
}

fn time_a_call(stub: &Stub, stream: usize) {
    let device = Device::open(0, &options(&stub.path)).unwrap();
    let model = df11::Model::open(support::golden::model("block"), &Default::default()).unwrap();
    let group = (0..model.groups().len()).max_by_key(|&g| model.group(g).unwrap().tensors().len()).unwrap();
    let layout = df11::internals::cuda::image::ImageLayout::of(model.group(group).unwrap()).unwrap();
    // SAFETY: this driver touches no memory.
    let resident = unsafe { device.bind(model.group(group).unwrap(), 1 << 20, layout.image_bytes) }.unwrap();
    let stream = df11::cuda::Stream::from_raw(std::ptr::without_provenance_mut(stream));
    let (dst, whole) = (1 << 40, u64::MAX);
    let ends = resident.ends().len() as u64;
    let dsts: Vec<u64> = (0..ends).map(|i| dst + (i << 32)).collect();
    let sizes = vec![whole; dsts.len()];
    let batch = ([&resident; 32], [dst; 32], [whole; 32]);
    let best = |work: &dyn Fn()| {
        let round = |_| {
            let start = std::time::Instant::now();
            (0..1000).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / 1e6
        };
        (0..50).map(round).fold(f64::INFINITY, f64::min)
    };
    // SAFETY: as above.
    let [one, tensors, many] = unsafe {
        [
            best(&|| resident.decompress(dst, whole, 0, stream).unwrap()),
            best(&|| resident.decompress_tensors(&dsts, &sizes, 0, stream).unwrap()),
            best(&|| df11::cuda::decompress_batch(&batch.0, &batch.1, &batch.2, 0, stream).unwrap()),
        ]
    };
    println!("µs a call: {one:.3} for a group, {tensors:.3} for {ends} tensors, {many:.3} for 32 groups");
    assert!(one < 2.0 && tensors < 2.0 && many < 2.0, "{one} {tensors} {many}");
}

/// A library that is loaded by two names is one driver: a context is loaded to once, and residents of both make one batch.
#[test]
fn one_driver_by_two_names_is_one() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let link = emulator.path().with_file_name("another_name.so");
    std::os::unix::fs::symlink(emulator.path(), &link).unwrap();
    let devices = [emulator.open(0), Device::open(0, &options(&link)).unwrap()];
    assert_ne!(devices[0].info().libcuda, devices[1].info().libcuda);
    assert_eq!(emulator.query("calls.cuLibraryLoadData"), 2);
    let model = df11::Model::open(support::golden::model("tiny"), &Default::default()).unwrap();
    let stream = engine.stream();
    // SAFETY: the memory lives until the stream was waited for.
    unsafe {
        let residents = devices.each_ref().map(|device| support::target::upload(&engine, device, &model, 0, stream).1);
        let bytes = 2 * residents[0].element_count();
        let dsts = [0; 2].map(|_| engine.alloc(bytes));
        df11::cuda::decompress_batch(&residents.each_ref(), &dsts, &[bytes; 2], 0, stream).unwrap();
        engine.synchronise(stream);
        assert!(engine.read(dsts[0], bytes) == engine.read(dsts[1], bytes));
    }
    emulator.assert_no_fault();
}

/// Set in the processes that `a_privileged_program_ignores_the_variable` starts.
const SAY: &str = "DF11_TEST_SAY";

/// Opens a device with the default options. Prints whether this process has more privileges than its caller, and the message.
/// Does nothing in a run of all tests.
#[test]
fn what_the_variable_names() {
    if std::env::var_os(SAY).is_none() {
        return;
    }
    // SAFETY: the call takes and changes nothing.
    let is_privileged = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    let message = Device::open(0, &DeviceOptions::default()).err().map(|error| error.to_string()).unwrap_or_default();
    println!("privileged: {is_privileged}, message: {message}");
}

/// In a set-user-ID program the caller's environment must not decide what code runs.
#[test]
fn a_privileged_program_ignores_the_variable() {
    use std::os::unix::fs::PermissionsExt;
    const NAMED: &str = "/nonexistent/libcuda.so.1";
    let say = |program: &Path| {
        let mut command = Command::new(program);
        let test = "driver::what_the_variable_names";
        command
            .args([test, "--exact", "--nocapture"])
            .env(SAY, "1")
            .env("DF11_LIBCUDA", NAMED)
            .env_remove("RUST_BACKTRACE");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("privileged: "), "{said}");
        said
    };
    let program = std::env::current_exe().unwrap();
    assert!(say(&program).contains(NAMED), "the variable is not looked at");
    // SAFETY: the call takes and changes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("not root: no program with other privileges can be made");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("program");
    std::fs::copy(&program, &copy).unwrap();
    std::os::unix::fs::chown(&copy, Some(65534), None).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let said = say(&copy);
    if said.contains("privileged: false") {
        println!("the folder for temporary files has no set-user-ID programs");
        return;
    }
    assert!(!said.contains(NAMED), "{said}");
}
