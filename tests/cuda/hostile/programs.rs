//! Hostile programs: many threads while the driver fails, contexts that end too early, captures during all calls.

use df11::internals::cuda::{Device, Stream, image};
use df11::{Model, OpenOptions, Status};

use super::image_of;
use super::support::engine::{self, Emulator, Engine};
use super::support::golden;
use super::support::target::upload;
use super::support::weights::Random;

/// Sixteen threads over two drivers with two devices each open, upload, bind, decode and free at once, while the driver fails
/// here and there: what succeeds is right, what fails reports it, no thread's context changes, and nothing is leaked.
#[test]
fn many_threads_over_two_drivers_survive_failures() {
    let emulators = [Emulator::new(), Emulator::new()];
    emulators.iter().for_each(|emulator| emulator.control("devices", "2"));
    emulators.iter().enumerate().for_each(|(i, emulator)| emulator.control("seed", &(i + 3).to_string()));
    let model = Model::open(golden::model("tiny"), &OpenOptions::default()).unwrap();
    let (layout, image) = image_of(&model, 0);
    let want: Vec<u8> =
        image::decode(&image, 0, layout.weights).unwrap().weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let engines: Vec<Engine> = (0..4).map(|i| Engine::primary(&emulators[i % 2], i as i32 / 2)).collect();
    let failures = [
        "cuCtxPushCurrent_v2@7=719",
        "cuMemcpyHtoDAsync_v2@5=2",
        "cuLaunchKernel@4=913",
        "cuLibraryLoadData@1=1",
        "cuKernelGetFunction@3=1",
        "cuMemAlloc_v2@9=2",
        "cuStreamGetCtx_v2@3=999",
        "cuDevicePrimaryCtxRetain@2=100",
        "cuMemsetD8Async@2=1",
        "cuKernelSetAttribute@1=1",
        "cuThreadExchangeStreamCaptureMode@6=4",
        "cuLibraryGetKernel@4=201",
    ];
    let stop = std::sync::atomic::AtomicBool::new(false);
    let done = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (engines, model, want, image, stop, done, layout) =
            (&engines, &model, &want, &image, &stop, &done, &layout);
        let workers: Vec<_> = (0..16)
            .map(|thread| {
                scope.spawn(move || {
                    let engine = &engines[thread % 4];
                    let emulator = engine.emulator;
                    let ordinal = (thread % 4 / 2) as i32;
                    let mut random = Random::new(thread as u64);
                    for _ in 0..25 {
                        let before = engine::current(emulator);
                        let device = match Device::open(ordinal, &emulator.options()) {
                            Ok(device) => device,
                            Err(error) => {
                                assert!(error.native_code() != 0, "{error}");
                                assert_eq!(engine::current(emulator), before);
                                continue;
                            }
                        };
                        let stream = Stream::from_raw(std::ptr::without_provenance_mut(2));
                        // SAFETY: all memory lives until the context was waited for; the per-thread stream is always one.
                        unsafe {
                            let Some(memory) = engine.try_alloc(layout.image_bytes) else { continue };
                            let resident = match random.below(3) {
                                0 => device.upload(model.group(0).unwrap(), memory, layout.image_bytes, stream, None),
                                _ => {
                                    engine.try_write(memory, image);
                                    device.bind(model.group(0).unwrap(), memory, layout.image_bytes)
                                }
                            };
                            let Ok(resident) = resident else {
                                // Some of the upload may be in the stream.
                                engine.wait_context();
                                engine.free(memory);
                                continue;
                            };
                            if random.below(2) == 0 {
                                drop(device.clone());
                            }
                            if let Some(dst) = engine.try_alloc(want.len() as u64) {
                                let decoded = resident.decompress(dst, want.len() as u64, 0, stream);
                                engine.wait_context();
                                if decoded.is_ok() {
                                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                    assert!(engine.read(dst, want.len() as u64) == *want);
                                }
                                engine.free(dst);
                            }
                            engine.wait_context();
                            drop(resident);
                            engine.free(memory);
                        }
                        drop(device);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            for round in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                engines[round % 2].emulator.control("fail", failures[round % failures.len()]);
                std::thread::sleep(std::time::Duration::from_millis(3));
                engines[round % 2].emulator.control("unfail", "");
            }
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    assert!(done.into_inner() > 100);
    for emulator in &emulators {
        emulator.control("unfail", "");
        emulator.control("run", "");
        emulator.assert_no_fault();
        for what in ["allocations", "events", "streams", "captures"] {
            assert_eq!(emulator.query(&format!("live.{what}")), 0, "{what}");
        }
        assert_eq!(emulator.query("live.retains"), 2);
    }
}

/// A context that ends, by its owner's hand, under devices and residents: calls say so, and freeing is safe in every order.
#[test]
fn contexts_may_end_before_what_was_opened_in_them() {
    let emulator = Emulator::new();
    let model = Model::open(golden::model("tiny"), &OpenOptions::default()).unwrap();
    for order in 0..4 {
        let engine = Engine::own(&emulator, 0);
        // SAFETY: what follows is what is looked at: nothing but errors may come of it.
        let device = unsafe { Device::open_current(&emulator.options()) }.unwrap();
        let stream = engine.stream();
        let (memory, resident) = upload(&engine, &device, &model, 0, stream);
        let dst = engine.alloc(2 * resident.element_count());
        engine.synchronise(stream);
        let bytes = 2 * resident.element_count();
        if order % 2 == 0 {
            drop(engine);
            // SAFETY: as above.
            unsafe {
                let failed = resident.decompress(dst, bytes, 0, stream).unwrap_err();
                assert_eq!(failed.status(), Status::Cuda, "{failed}");
                let image_bytes = resident.image_bytes();
                assert!(device.upload(model.group(0).unwrap(), memory, image_bytes, stream, None).is_err());
            }
            if order == 0 {
                drop(device);
                drop(resident);
            } else {
                drop(resident);
                drop(device);
            }
        } else {
            drop(device);
            // SAFETY: as above; the memory is the context's.
            unsafe { resident.decompress(dst, bytes, 0, stream) }.unwrap();
            engine.synchronise(stream);
            if order == 1 {
                drop(resident);
                drop(engine);
            } else {
                drop(engine);
                drop(resident);
            }
        }
    }
    // SAFETY: no context is current.
    let error = unsafe { Device::open_current(&emulator.options()) }.err().unwrap();
    assert_eq!(error.status(), Status::InvalidArgument);
    emulator.assert_no_fault();
}

/// Opening, uploading, binding, decoding and freeing while another thread captures in each mode: the capture stays whole.
#[test]
fn captures_of_every_mode_live_beside_all_calls() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (captured, other) = (engine.stream(), engine.stream());
    let model = Model::open(golden::model("tiny"), &OpenOptions::new()).unwrap();
    let bytes = image::ImageLayout::of(model.group(0).unwrap()).unwrap().image_bytes;
    let (at, dst) = (engine.alloc(bytes), engine.alloc(2 * model.group(0).unwrap().element_count()));
    for mode in [0, 1, 2] {
        for again in [false, true] {
            engine.begin_capture(captured, mode);
            let work = || {
                let device = emulator.open(0);
                // SAFETY: all memory lives until the stream was waited for.
                unsafe {
                    let first = device.upload(model.group(0).unwrap(), at, bytes, other, None).unwrap();
                    let second = device.bind(model.group(0).unwrap(), at, bytes).unwrap();
                    for resident in [&first, &second] {
                        resident.decompress(dst, 2 * resident.element_count(), 0, other).unwrap();
                    }
                    drop(device);
                }
            };
            if again {
                // On the very thread that captures.
                work();
            } else {
                std::thread::scope(|scope| scope.spawn(work).join().unwrap());
            }
            let exec = engine.end_capture(captured).expect("the capture was broken");
            engine.destroy_graph(exec);
            engine.synchronise(other);
        }
    }
    emulator.assert_no_fault();
}
