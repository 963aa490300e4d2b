//! What goes wrong on a device: every mistake of a caller's, and every entry point of the driver failing at every call.
#![cfg(target_os = "linux")]

use crate::support;

use df11::cuda::{self, Device, Resident, Staging, Stream};
use df11::internals::cuda::image::{Head, ImageLayout};
use df11::{Error, Model, Status};
use std::collections::BTreeMap;
use support::engine::{self, Emulator, Engine};
use support::golden;

fn tiny(read: bool) -> Model {
    crate::support::files::open(golden::model("tiny"), read).unwrap()
}

#[test]
fn every_wrong_argument_is_refused_before_anything_is_called() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream, model) = (emulator.open(0), engine.stream(), tiny(false));
    let layout = ImageLayout::of(model.group(0).unwrap()).unwrap();
    let (n, bytes) = (layout.weights, layout.image_bytes);
    let (image, dst) = (engine.alloc(bytes + 256), engine.alloc(2 * n + 4096));
    // SAFETY: what is refused touches nothing; the rest lives until the stream was waited for.
    unsafe {
        let resident = device.upload(model.group(0).unwrap(), image, bytes, stream, None).unwrap();
        engine.synchronise(stream);
        let ends = resident.ends().len();
        let whole = 2 * n;
        let mut staging = vec![0u8; 8192];
        let mut staged = |at: bool, bytes: usize| {
            let memory = if at { staging.as_mut_ptr().cast() } else { std::ptr::null_mut() };
            device
                .upload(model.group(0).unwrap(), image, layout.image_bytes, stream, Some(Staging::new(memory, bytes)))
                .map(drop)
        };
        use Status::*;
        let null = staged(false, 8192);
        let small = staged(true, 4095);
        let tensors = |dst: u64, bytes: u64, status: u64, count: usize| {
            resident.decompress_tensors(&vec![dst; count], &vec![bytes; count], status, stream)
        };
        let batch = |residents: &[&Resident], dst: u64, bytes: u64, status: u64| {
            cuda::decompress_batch(residents, &[dst], &[bytes], status, stream)
        };
        let group = model.group(0).unwrap();
        let upload = |at: u64, bytes: u64| device.upload(group, at, bytes, stream, None).map(drop);
        let bind = |at: u64, bytes: u64| device.bind(group, at, bytes).map(drop);
        // What is meant, and what to do.
        let of_tensor = resident.decompress_tensors(&vec![dst; ends], &vec![1; ends], 0, stream).unwrap_err();
        let of_group = cuda::decompress_batch(&[&resident; 2], &[dst, dst + 1], &[whole; 2], 0, stream).unwrap_err();
        let of_image = device.upload(model.group(0).unwrap(), image, bytes - 1, stream, None).map(drop).unwrap_err();
        let of_head = device
            .bind_image(&Head::of(model.group(0).unwrap()).unwrap().bytes().unwrap()[..300], image, bytes)
            .map(drop);
        for (error, text) in [
            (of_tensor, "the destination of tensor 0 holds 1 bytes"),
            (of_group, "the destination of group 1 is not aligned to 2 bytes"),
            (of_image, "the image's memory holds"),
            (of_head.unwrap_err(), "300 bytes are given, and it has 33280 or more"),
        ] {
            assert!(error.to_string().contains(text), "{error}");
        }
        type Refused = fn(&Error) -> bool;
        let any: Refused = |_| true;
        let (results, calls) = emulator.calls_of(|| {
            vec![
                (resident.decompress(0, whole, 0, stream), InvalidArgument, any),
                (resident.decompress(dst + 1, whole, 0, stream), Misaligned, any),
                (
                    resident.decompress(dst, whole - 1, 0, stream),
                    BufferTooSmall,
                    |e: &Error| matches!(e, Error::BufferTooSmall { needed, given, .. } if *needed == given + 1),
                ),
                (resident.decompress(dst, whole, dst + whole + 2, stream), Misaligned, any),
                (resident.decompress(dst, whole, dst + 4, stream), InvalidArgument, any),
                (resident.decompress(dst, whole, image + 248, stream), InvalidArgument, any),
                (resident.decompress(image, whole, 0, stream), InvalidArgument, any),
                (resident.decompress(image - 2, whole, 0, stream), InvalidArgument, any),
                (resident.decompress(image + bytes - 2, whole, 0, stream), InvalidArgument, any),
                (resident.decompress(u64::MAX - 1, whole, 0, stream), InvalidArgument, any),
                (resident.decompress_range(n, 1, dst, 2, 0, stream), InvalidArgument, any),
                (resident.decompress_range(1, n, dst, whole, 0, stream), InvalidArgument, any),
                (resident.decompress_range(u64::MAX, 2, dst, 4, 0, stream), InvalidArgument, any),
                (resident.decompress_range(0, 2, dst, 3, 0, stream), BufferTooSmall, any),
                (tensors(dst, whole, 0, ends + 1), InvalidArgument, any),
                (tensors(dst, whole, 0, 0), InvalidArgument, any),
                (tensors(dst + 1, whole, 0, ends), Misaligned, any),
                (tensors(dst, 1, 0, ends), BufferTooSmall, any),
                (tensors(image, whole, 0, ends), InvalidArgument, any),
                (batch(&[], dst, whole, 0), InvalidArgument, any),
                (batch(&[&resident], 0, whole, 0), InvalidArgument, any),
                (batch(&[&resident], dst + 1, whole, 0), Misaligned, any),
                (batch(&[&resident], dst, whole - 1, 0), BufferTooSmall, any),
                (batch(&[&resident], dst, whole, 2), Misaligned, any),
                (batch(&[&resident], dst, whole, u64::MAX - 3), InvalidArgument, any),
                (upload(0, bytes), InvalidArgument, any),
                (upload(image + 128, bytes), Misaligned, any),
                (upload(image, bytes - 1), BufferTooSmall, any),
                (bind(0, bytes), InvalidArgument, any),
                (bind(image + 16, bytes), Misaligned, any),
                (bind(image, bytes - 1), BufferTooSmall, any),
                (bind(u64::MAX - 255, bytes), InvalidArgument, any),
                (null, InvalidArgument, any),
                (small, BufferTooSmall, |e: &Error| e.to_string().starts_with("the staging memory holds 4095 bytes")),
                // Nothing to do is done.
                (resident.decompress_range(n, 0, 0, 0, 0, stream), Ok, any),
            ]
        });
        for (i, (result, status, is)) in results.into_iter().enumerate() {
            match result {
                Err(error) => assert!(error.status() == status && is(&error), "{i}: {error}"),
                Result::Ok(()) => assert_eq!(status, Ok, "{i}"),
            }
        }
        assert!(calls.is_empty(), "{calls:?}");
    }
    emulator.assert_no_fault();
}

/// Handles of the engine's for one scenario.
struct Bench<'a> {
    emulator: &'a Emulator,
    engine: &'a Engine<'a>,
    stream: Stream,
    image: u64,
    bytes: u64,
    dst: u64,
    weights: u64,
}

/// Everything that the emulator says is alive.
fn live(emulator: &Emulator) -> BTreeMap<&'static str, u64> {
    ["retains", "contexts", "streams", "events", "modules", "allocations", "pinned", "graphs", "execs", "captures"]
        .into_iter()
        .map(|what| (what, emulator.query(&format!("live.{what}"))))
        .collect()
}

/// Runs a scenario with each call of each entry point failing, each with several codes: the status says so with the
/// code, nothing is leaked, and the next try succeeds.
fn inject(
    emulator: &Emulator,
    what: &str,
    quiet: &[&str],
    status_of: impl Fn(&str, i32) -> Status,
    mut scenario: impl FnMut() -> df11::Result<()>,
) {
    scenario().unwrap();
    emulator.control("run", "");
    let (result, calls) = emulator.calls_of(&mut scenario);
    result.unwrap();
    emulator.control("run", "");
    let mut injected = 0;
    for (name, count) in calls {
        for nth in 1..=count {
            for code in [1, 719, 913] {
                let (alive, current) = (live(emulator), engine::current(emulator));
                let before = emulator.query(&format!("failed.{name}"));
                emulator.control("fail", &format!("{name}@{nth}={code}"));
                let result = scenario();
                emulator.control("unfail", "");
                let fired = emulator.query(&format!("failed.{name}")) > before;
                assert!(fired, "{what}: {name} was not called {nth} times");
                injected += 1;
                let at = format!("{what}: call {nth} of {name} gave {code}");
                match result {
                    Ok(()) => assert!(quiet.contains(&&name[..]), "{at}, and nobody noticed"),
                    Err(error) => {
                        assert_eq!(
                            (error.status(), error.native_code()),
                            (status_of(&name, code), code),
                            "{at}: {error}"
                        );
                    }
                }
                if name == "cuCtxPopCurrent_v2" {
                    // The driver refused to take the context away, so it is there.
                    engine::pop(emulator);
                }
                assert_eq!(engine::current(emulator), current, "{at}: another context is current");
                emulator.control("run", "");
                assert_eq!(emulator.query("sticky"), 0, "{at}: an error is pending");
                if name != "cuEventDestroy_v2" && name != "cuDevicePrimaryCtxRelease_v2" {
                    assert_eq!(live(emulator), alive, "{at}: something leaked");
                }
            }
        }
    }
    assert!(injected > 0, "{what}");
    scenario().unwrap();
    emulator.control("run", "");
    emulator.assert_no_fault();
}

fn cuda_status(_: &str, _: i32) -> Status {
    Status::Cuda
}

#[test]
fn opening_survives_every_failure_of_the_driver() {
    let emulator = Emulator::new();
    // The context ends with each device, so that each opening loads the kernels into it.
    let status = |name: &str, _: i32| if name == "cuInit" { Status::NoDriver } else { Status::Cuda };
    // A driver that does not tell the context's multiprocessors is asked for the device's.
    let quiet = ["cuDevicePrimaryCtxRelease_v2", "cuThreadExchangeStreamCaptureMode", "cuCtxGetDevResource"];
    let quiet = [&quiet[..], &["cuGetErrorName", "cuGetErrorString"]].concat();
    inject(&emulator, "open", &quiet, status, || Device::open(0, &emulator.options()).map(drop));
    assert_eq!(engine::current(&emulator), 0);
}

/// An image that was not loaded is loaded by the next opening.
#[test]
fn loading_survives_every_failure_of_the_driver() {
    for (call, images) in [("cuLibraryLoadData@1", 1), ("cuLibraryLoadData@2", 2), ("cuLibraryGetKernel@2", 2)] {
        for code in [1, 719, 913] {
            let emulator = Emulator::new();
            emulator.control("fail", &format!("{call}={code}"));
            let error = Device::open(0, &emulator.options()).unwrap_err();
            assert_eq!((error.status(), error.native_code()), (Status::Cuda, code), "{call}: {error}");
            assert_eq!((emulator.query("live.retains"), engine::current(&emulator)), (0, 0));
            let before = emulator.query("calls.cuLibraryLoadData");
            emulator.open(0);
            assert_eq!(before, images.min(2), "{call}");
            assert_eq!((emulator.query("live.libraries"), emulator.query("sticky")), (2, 0), "{call}");
        }
    }
}

/// As above, on a driver that has no libraries.
#[test]
fn opening_survives_every_failure_of_a_driver_without_libraries() {
    let emulator = Emulator::lacking(&["cuLibraryLoadData"]);
    let status = |name: &str, _: i32| if name == "cuInit" { Status::NoDriver } else { Status::Cuda };
    let quiet =
        ["cuDevicePrimaryCtxRelease_v2", "cuThreadExchangeStreamCaptureMode", "cuModuleUnload", "cuModuleLoadData"];
    let quiet = [&quiet[..], &["cuGetErrorName", "cuGetErrorString"]].concat();
    inject(&emulator, "open", &quiet, status, || Device::open(0, &emulator.options()).map(drop));
    assert_eq!(engine::current(&emulator), 0);
}

fn with_bench(read: bool, work: impl FnOnce(&Bench, &Device, &Model)) {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, model, stream) = (emulator.open(0), tiny(read), engine.stream());
    let layout = ImageLayout::of(model.group(0).unwrap()).unwrap();
    let bench = Bench {
        emulator: &emulator,
        engine: &engine,
        stream,
        image: engine.alloc(layout.image_bytes),
        bytes: layout.image_bytes,
        dst: engine.alloc(2 * layout.weights),
        weights: layout.weights,
    };
    work(&bench, &device, &model);
    bench.engine.synchronise(stream);
}

#[test]
fn uploads_survive_every_failure_of_the_driver() {
    for read in [false, true] {
        with_bench(read, |b, device, model| {
            let quiet = ["cuThreadExchangeStreamCaptureMode", "cuEventDestroy_v2", "cuEventSynchronize"];
            inject(b.emulator, "upload", &quiet, cuda_status, || {
                // SAFETY: model and memory outlive the stream's work.
                unsafe { device.upload(model.group(0).unwrap(), b.image, b.bytes, b.stream, None) }.map(drop)
            });
            let mut memory = vec![0u8; 4096];
            inject(b.emulator, "staged", &quiet, cuda_status, || {
                // SAFETY: as above.
                unsafe {
                    let staging = Staging::new(memory.as_mut_ptr().cast(), memory.len());
                    device.upload(model.group(0).unwrap(), b.image, b.bytes, b.stream, Some(staging)).map(drop)
                }
            });
        });
    }
}

#[test]
fn decodes_survive_every_failure_of_the_driver() {
    with_bench(false, |b, device, model| {
        // SAFETY: all memory outlives the stream's work.
        let resident = unsafe { device.upload(model.group(0).unwrap(), b.image, b.bytes, b.stream, None) }.unwrap();
        b.engine.synchronise(b.stream);
        let whole = 2 * b.weights;
        // SAFETY: as above.
        unsafe {
            inject(b.emulator, "decompress", &[], cuda_status, || resident.decompress(b.dst, whole, 0, b.stream));
            inject(b.emulator, "range", &[], cuda_status, || {
                resident.decompress_range(1, b.weights - 1, b.dst, whole, 0, b.stream)
            });
            let ends = resident.ends().to_vec();
            let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).take(ends.len()).collect();
            let dsts: Vec<u64> = starts.iter().map(|start| b.dst + 2 * start).collect();
            let bytes: Vec<u64> = ends.iter().zip(&starts).map(|(end, start)| 2 * (end - start)).collect();
            inject(b.emulator, "tensors", &[], cuda_status, || resident.decompress_tensors(&dsts, &bytes, 0, b.stream));
            inject(b.emulator, "batch", &[], cuda_status, || {
                cuda::decompress_batch(&[&resident; 40], &[b.dst; 40], &[whole; 40], 0, b.stream)
            });
        }
        // Nothing is launched when something before the launch fails.
        for name in ["cuCtxPushCurrent_v2", "cuStreamGetCtx_v2", "cuLaunchKernel"] {
            b.emulator.control("run", "");
            b.emulator.control("clear", "launches");
            b.emulator.control("fail", &format!("{name}@1=719"));
            // SAFETY: as above.
            unsafe { resident.decompress(b.dst, whole, 0, b.stream) }.unwrap_err();
            b.engine.synchronise(b.stream);
            assert_eq!(b.emulator.query("launches"), 0, "{name}");
        }
    });
}
