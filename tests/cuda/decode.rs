//! Decoding on a device, bit for bit: every golden model whole, in ranges, tensor by tensor and in batches, on the
//! emulated driver, which runs the PTX that the library ships.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::{self, Choice, Device, Resident, Stream, image};
use df11::{Model, OpenOptions, Status};
use support::engine::{self, Emulator, Engine};
use support::target::{PAINT, Target, upload, want};
use support::weights::Random;
use support::{files, golden};

fn open(name: &str) -> Model {
    Model::open(golden::model(name), &OpenOptions::default()).unwrap()
}

/// Every group of every golden model, uploaded: the image is what the host writes, and decodes to what the CPU decodes.
#[test]
fn every_golden_group_uploads_to_the_hosts_image_and_decodes_whole() {
    golden_groups(&Emulator::new());
}

pub(crate) fn golden_groups(emulator: &Emulator) {
    // Here also the order of accesses is looked at: a race between threads is a fault.
    emulator.control("races", "1");
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    for name in golden::NAMES {
        let model = open(name);
        for group in 0..model.groups().len() {
            let (at, resident) = upload(&engine, &device, &model, group, stream);
            let want = want(&model, group);
            let target = Target::new(&engine, want.len() as u64, 2 * (group as u64 % 8));
            // SAFETY: all memory lives until the stream was waited for.
            unsafe { resident.decompress(target.dst, target.bytes, status, stream) }.unwrap();
            engine.synchronise(stream);
            assert!(target.take(&engine) == want, "{name}: group {group} differs");
            assert_eq!(engine.read_u32(status), 0, "{name}: group {group}");

            let layout = *resident.layout().unwrap();
            let mut image = vec![0; layout.image_bytes as usize];
            model.group(group).unwrap().write_image(&mut image, 1).unwrap();
            let made = engine.read(at, layout.image_bytes);
            let difference = image.iter().zip(&made).position(|(a, b)| a != b);
            assert_eq!(difference, None, "{name}: the image of group {group} differs, {layout:?}");
            engine.free(at);
        }
    }
    emulator.assert_no_fault();
    engine.free(status);
    engine.destroy(stream);
}

/// Ranges: every border that can be special, and random ones, at every alignment.
#[test]
fn any_range_at_any_alignment_is_exact() {
    ranges(&Emulator::new());
}

pub(crate) fn ranges(emulator: &Emulator) {
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let mut random = Random::new(7);
    for name in golden::NAMES {
        let model = open(name);
        for group in 0..model.groups().len() {
            let (at, resident) = upload(&engine, &device, &model, group, stream);
            let want = want(&model, group);
            let n = model.group(group).unwrap().element_count();
            let mut ranges = vec![(0, 0), (n, 0), (0, 1.min(n)), (n - 1.min(n), 1.min(n)), (1.min(n), n - 1.min(n))];
            for border in [104, 3328, 2 * 3328] {
                if n > border + 8 {
                    ranges.extend([(border, 1), (border - 1, 2), (border - 3, 7), (0, border), (border, 8)]);
                }
            }
            for _ in 0..6 {
                let first = random.below(n + 1);
                ranges.push((first, random.below((n - first).min(20_000) + 1)));
            }
            for (i, (first, count)) in ranges.into_iter().enumerate() {
                let target = Target::new(&engine, 2 * count, 2 * (i as u64 % 8));
                // SAFETY: all memory lives until the stream was waited for.
                unsafe { resident.decompress_range(first, count, target.dst, target.bytes, status, stream) }.unwrap();
                engine.synchronise(stream);
                let (from, to) = (2 * first as usize, 2 * (first + count) as usize);
                assert!(target.take(&engine) == want[from..to], "{name}: group {group}, weights {first} + {count}");
            }
            engine.free(at);
        }
    }
    assert_eq!(engine.read_u32(status), 0);
    emulator.assert_no_fault();
}

/// One destination per tensor, some of them left out, some one after the other.
#[test]
fn every_tensor_goes_where_it_shall() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    for name in golden::NAMES {
        let model = open(name);
        for group in 0..model.groups().len() {
            let (at, resident) = upload(&engine, &device, &model, group, stream);
            let want = want(&model, group);
            let ends = resident.ends().to_vec();
            let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).take(ends.len()).collect();
            let bytes: Vec<u64> = ends.iter().zip(&starts).map(|(end, start)| 2 * (end - start)).collect();

            // Each for itself, every third left out.
            let targets: Vec<Target> =
                bytes.iter().enumerate().map(|(i, &b)| Target::new(&engine, b, 2 * (i as u64 % 8))).collect();
            let skip = |i: usize| i % 3 == 2;
            let dsts: Vec<u64> = targets.iter().enumerate().map(|(i, t)| if skip(i) { 0 } else { t.dst }).collect();
            // SAFETY: all memory lives until the stream was waited for.
            unsafe { resident.decompress_tensors(&dsts, &bytes, 0, stream) }.unwrap();
            engine.synchronise(stream);
            for (i, target) in targets.into_iter().enumerate() {
                let got = target.take(&engine);
                let expected = &want[2 * starts[i] as usize..2 * ends[i] as usize];
                assert!(if skip(i) { got.iter().all(|&b| b == PAINT) } else { got == expected }, "{name}: tensor {i}");
            }

            // One after the other: one launch of the whole.
            let target = Target::new(&engine, want.len() as u64, 2);
            let dsts: Vec<u64> = starts.iter().map(|start| target.dst + 2 * start).collect();
            emulator.control("clear", "launches");
            // SAFETY: as above.
            unsafe { resident.decompress_tensors(&dsts, &bytes, 0, stream) }.unwrap();
            engine.synchronise(stream);
            assert_eq!(emulator.query("launches"), u64::from(!want.is_empty()));
            if !want.is_empty() {
                assert_eq!(emulator.text("launch.0"), "df11_decode");
            }
            assert!(target.take(&engine) == want, "{name}: group {group}");
            engine.free(at);
        }
    }
    emulator.assert_no_fault();
}

/// Batches: all groups of all models in one call, then more than one launch takes, with a status each.
#[test]
fn batches_decode_every_group_in_few_launches() {
    batches(&Emulator::new());
}

pub(crate) fn batches(emulator: &Emulator) {
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let models: Vec<Model> = ["tiny", "sharded", "edge", "edge_patched"].map(open).into();
    let mut all: Vec<(Resident, Vec<u8>)> = Vec::new();
    for model in &models {
        for group in 0..model.groups().len() {
            all.push((upload(&engine, &device, model, group, stream).1, want(model, group)));
        }
    }
    // The same groups again until there are more than 32.
    let small: Vec<usize> = (0..all.len()).filter(|&i| all[i].1.len() < 40_000).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    while order.len() < 70 {
        order.push(small[order.len() % small.len()]);
    }
    let residents: Vec<&Resident> = order.iter().map(|&i| &all[i].0).collect();
    let targets: Vec<Target> = order
        .iter()
        .enumerate()
        .map(|(k, &i)| Target::new(&engine, all[i].1.len() as u64, 2 * (k as u64 % 8)))
        .collect();
    let dsts: Vec<u64> = targets.iter().map(|t| t.dst).collect();
    let bytes: Vec<u64> = targets.iter().map(|t| t.bytes).collect();
    let statuses = engine.alloc(4 * order.len() as u64);
    engine.fill(statuses, 0, 4 * order.len() as u64);
    emulator.control("run", "");
    emulator.control("clear", "launches");
    // SAFETY: all memory lives until the stream was waited for.
    unsafe { cuda::decompress_batch(&residents, &dsts, &bytes, statuses, stream) }.unwrap();
    engine.synchronise(stream);
    let filled = order.iter().filter(|&&i| !all[i].1.is_empty()).count() as u64;
    assert_eq!(emulator.query("launches"), filled.div_ceil(32));
    for (target, &i) in targets.into_iter().zip(&order) {
        assert!(target.take(&engine) == all[i].1, "group {i}");
    }
    assert!(engine.read(statuses, 4 * order.len() as u64).iter().all(|&b| b == 0));
    emulator.assert_no_fault();
    // None is nothing to do.
    // SAFETY: there is nothing to touch.
    unsafe { cuda::decompress_batch(&[], &[], &[], 0, stream) }.unwrap();
}

/// Images that the host wrote, bound with the model and without, and moved.
#[test]
fn images_of_the_host_are_bound_and_moved() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let model = open("sharded");
    for group in 0..model.groups().len() {
        let layout = image::ImageLayout::of(model.group(group).unwrap()).unwrap();
        let mut bytes = vec![0; layout.image_bytes as usize];
        model.group(group).unwrap().write_image(&mut bytes, 1).unwrap();
        let want = want(&model, group);
        for with_model in [true, false] {
            let at = engine.alloc(layout.image_bytes);
            engine.write(at, &bytes);
            // SAFETY: the memory lives until the stream was waited for.
            let resident = unsafe {
                if with_model {
                    device.bind(model.group(group).unwrap(), at, layout.image_bytes)
                } else {
                    device.bind_image(&bytes[..layout.head_bytes() as usize], at, layout.image_bytes)
                }
            }
            .unwrap();
            assert_eq!((resident.image(), resident.ends().last()), (at, Some(&layout.weights)));
            let target = Target::new(&engine, want.len() as u64, 0);
            // SAFETY: as above.
            unsafe { resident.decompress(target.dst, target.bytes, 0, stream) }.unwrap();
            engine.synchronise(stream);
            assert!(target.take(&engine) == want);
            engine.free(at);
        }
        // A head that is cut short, and a damaged one.
        let short = &bytes[..layout.head_bytes() as usize - 1];
        // SAFETY: refused before anything is touched.
        assert_eq!(unsafe { device.bind_image(short, 256, u64::MAX) }.err().unwrap().status(), Status::Corrupt);
        bytes[300] ^= 1;
        // SAFETY: as above.
        assert_eq!(unsafe { device.bind_image(&bytes, 256, u64::MAX) }.err().unwrap().status(), Status::Corrupt);
    }
}

/// Uploads through staging memory, pinned or not, of a file that is mapped or read: the same image.
#[test]
fn every_way_to_upload_makes_the_same_image() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let pinned = engine.pinned(10_000);
    let mut plain = vec![0u8; 1 << 16];
    for name in ["tiny", "sharded", "edge"] {
        for read in [false, true] {
            let model = crate::support::files::open(golden::model(name), read).unwrap();
            for group in 0..model.groups().len() {
                let layout = image::ImageLayout::of(model.group(group).unwrap()).unwrap();
                let mut image = vec![0; layout.image_bytes as usize];
                model.group(group).unwrap().write_image(&mut image, 1).unwrap();
                for way in 0..4 {
                    let at = engine.alloc(layout.image_bytes);
                    engine.fill(at, PAINT, layout.image_bytes);
                    // SAFETY: staging memory, model and image live until the stream was waited for.
                    let resident = unsafe {
                        let staging = match way {
                            0 => None,
                            1 => Some(cuda::Staging::new(pinned, 10_000)),
                            2 => Some(cuda::Staging::new(pinned.byte_add(1), 4097)),
                            _ => Some(cuda::Staging::new(plain.as_mut_ptr().cast(), plain.len())),
                        };
                        device.upload(model.group(group).unwrap(), at, layout.image_bytes, stream, staging).unwrap()
                    };
                    engine.synchronise(stream);
                    assert!(engine.read(at, layout.image_bytes) == image, "{name}: group {group}, way {way}");
                    drop(resident);
                    engine.free(at);
                }
            }
        }
    }
    assert_eq!(emulator.query("live.events"), 0);
    engine.free_pinned(pinned);
    emulator.assert_no_fault();

    // Dropping a resident leaves the memory, which is the engine's, as it is.
    let model = open("tiny");
    let before = emulator.query("live.allocations");
    let (memory, resident) = upload(&engine, &device, &model, 0, stream);
    assert_eq!((resident.image(), emulator.query("live.allocations")), (memory, before + 1));
    let want = want(&model, 0);
    let target = Target::new(&engine, want.len() as u64, 0);
    // SAFETY: as above.
    unsafe { resident.decompress(target.dst, target.bytes, 0, stream) }.unwrap();
    engine.synchronise(stream);
    assert!(target.take(&engine) == want);
    let ((), calls) = emulator.calls_of(|| drop(resident));
    assert!(calls.is_empty(), "dropping a resident called {calls:?}");
    assert_eq!(emulator.query("live.allocations"), before + 1);
    engine.free(memory);
    assert_eq!(emulator.query("live.allocations"), before);
}

/// By PTX and by cubin, on every kind of device that there is a cubin for.
#[test]
fn kernels_are_chosen_by_capability_and_ptx_serves_where_none_is_taken() {
    let ptx = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prebuilt/decode.ptx");
    for (cc, accept, choice, name) in [
        ("75", "1", Choice::Best, "sm_75"),
        ("80", "1", Choice::Best, "sm_80"),
        ("86", "1", Choice::Best, "sm_80"),
        ("89", "1", Choice::Best, "sm_80"),
        ("90", "1", Choice::Best, "sm_90"),
        ("90", "1", Choice::Ptx, "PTX"),
        ("90", "0", Choice::Best, "PTX"),
        ("103", "1", Choice::Best, "sm_100"),
        ("110", "1", Choice::Best, "PTX"),
        ("121", "1", Choice::Best, "sm_120"),
    ] {
        let emulator = Emulator::new();
        emulator.control("cc", cc);
        emulator.control("driver", "13000");
        emulator.control("accept_cubin", accept);
        emulator.control("cubin_ptx", ptx);
        let engine = emulator.engine(0);
        let device = Device::open(0, &emulator.options().kernels(choice)).unwrap();
        assert_eq!(device.info().kernels, name, "cc {cc}");
        let cc: u32 = cc.parse().unwrap();
        assert_eq!(device.info().capability, (cc / 10, cc % 10));
        if matches!(name, "sm_100" | "sm_120") {
            // These decode by tables of nibbles, which the PTX that poses as them does not.
            continue;
        }
        let (model, stream) = (open("edge"), engine.stream());
        for group in 0..model.groups().len() {
            let (_, resident) = upload(&engine, &device, &model, group, stream);
            let want = want(&model, group);
            let target = Target::new(&engine, want.len() as u64, 0);
            // SAFETY: all memory lives until the stream was waited for.
            unsafe { resident.decompress(target.dst, target.bytes, 0, stream) }.unwrap();
            engine.synchronise(stream);
            assert!(target.take(&engine) == want, "cc {cc}, group {group}");
        }
        emulator.assert_no_fault();
    }
}

/// A graph that captured decodes gives the same bits at each replay, also when device and resident are gone.
#[test]
fn captured_decodes_replay_even_after_the_handles_are_freed() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let stream = engine.stream();
    let model = open("sharded");
    for mode in [0, 1, 2] {
        let device = emulator.open(0);
        let mut residents = Vec::new();
        let mut targets = Vec::new();
        for group in 0..model.groups().len() {
            residents.push(upload(&engine, &device, &model, group, stream).1);
            targets.push(Target::new(&engine, 2 * model.group(group).unwrap().element_count(), 2 * group as u64));
        }
        engine.synchronise(stream);
        engine.begin_capture(stream, mode);
        for (resident, target) in residents.iter().zip(&targets) {
            let half = resident.element_count() / 2;
            // SAFETY: image and targets live until the graph's last launch was waited for.
            unsafe {
                resident.decompress_range(0, half, target.dst, 2 * half, 0, stream).unwrap();
                let (dst, count) = (target.dst + 2 * half, resident.element_count() - half);
                resident.decompress_range(half, count, dst, 2 * count, 0, stream).unwrap();
            }
        }
        // An upload cannot be captured, and asking for one does not break the capture.
        let resident = &residents[0];
        // SAFETY: refused before anything is touched.
        let refused = unsafe {
            device
                .upload(model.group(0).unwrap(), resident.image(), resident.image_bytes(), stream, None)
                .err()
                .unwrap()
        };
        assert_eq!(refused.status(), Status::Capturing, "{refused}");
        let exec = engine.end_capture(stream).unwrap();
        drop((residents, device));
        for replay in 0..2 {
            for target in &targets {
                engine.fill(target.dst, PAINT, target.bytes);
            }
            engine.launch_graph(exec, stream);
            engine.synchronise(stream);
            for (group, target) in targets.iter().enumerate() {
                assert!(engine.read(target.dst, target.bytes) == want(&model, group), "replay {replay}, group {group}");
            }
        }
        engine.destroy_graph(exec);
        targets.into_iter().for_each(|target| drop(target.take(&engine)));
    }
    emulator.assert_no_fault();
}

/// Opening a device and uploading do not break captures of other threads, and a device is not opened in the midst of
/// one that is ordered with the default stream.
#[test]
fn captures_of_others_are_not_disturbed() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (stream, other) = (engine.stream(), engine.stream());
    let model = open("tiny");
    let bytes = image::ImageLayout::of(model.group(0).unwrap()).unwrap().image_bytes;
    let memory = engine.alloc(bytes);
    engine.begin_capture(stream, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let device = emulator.open(0);
            // SAFETY: model and memory outlive the stream's work.
            drop(unsafe { device.upload(model.group(0).unwrap(), memory, bytes, other, None) }.unwrap());
        });
    });
    let exec = engine.end_capture(stream).expect("the capture was broken");
    engine.destroy_graph(exec);

    let blocking = engine.stream_with(0);
    engine.begin_capture(blocking, 0);
    let refused = Device::open(0, &emulator.options()).err().unwrap();
    assert_eq!((refused.status(), refused.native_code()), (Status::Capturing, 906), "{refused}");
    let exec = engine.end_capture(blocking).expect("the capture was broken");
    engine.destroy_graph(exec);
}

/// Two devices, two contexts of one device, and many threads at once; what is current on a thread stays so.
#[test]
fn streams_contexts_and_threads_work_at_once() {
    let emulator = Emulator::new();
    emulator.control("devices", "2");
    emulator.control("seed", "11");
    let model = open("sharded");
    let engines = [Engine::primary(&emulator, 0), Engine::primary(&emulator, 1), Engine::own(&emulator, 0)];
    let devices: Vec<Device> = engines
        .iter()
        .map(|engine| {
            engine.enter();
            // SAFETY: the contexts outlive the devices.
            let device = unsafe { Device::open_current(&emulator.options()) }.unwrap();
            assert_eq!(engine.current(), engine.context);
            device
        })
        .collect();
    let wants: Vec<Vec<u8>> = (0..model.groups().len()).map(|group| want(&model, group)).collect();
    let sets: Vec<Vec<Resident>> = engines
        .iter()
        .zip(&devices)
        .map(|(engine, device)| {
            let stream = engine.stream();
            let set = (0..wants.len()).map(|group| upload(engine, device, &model, group, stream).1).collect();
            engine.synchronise(stream);
            engine.destroy(stream);
            set
        })
        .collect();
    engine::leave(&emulator);
    std::thread::scope(|scope| {
        for (which, (engine, set)) in engines.iter().zip(&sets).enumerate() {
            for thread in 0..2 {
                let (wants, engines, emulator) = (&wants, &engines, &emulator);
                scope.spawn(move || {
                    let stream = engine.stream();
                    let targets: Vec<Target> =
                        wants.iter().map(|want| Target::new(engine, want.len() as u64, 2 * thread)).collect();
                    // No context at all, or another's: it stays.
                    engine::leave(emulator);
                    for (resident, target) in set.iter().zip(&targets) {
                        if thread == 1 {
                            engines[(which + 1) % 3].enter();
                        }
                        let before = engine::current(emulator);
                        // SAFETY: all memory lives until the stream was waited for.
                        unsafe { resident.decompress(target.dst, target.bytes, 0, stream) }.unwrap();
                        assert_eq!(engine::current(emulator), before);
                    }
                    engine.synchronise(stream);
                    for (target, want) in targets.into_iter().zip(wants) {
                        assert!(target.take(engine) == *want);
                    }
                    engine.destroy(stream);
                });
            }
        }
    });
    // Streams of other contexts are refused, and so are batches over several.
    let stream = engines[1].stream();
    let target = Target::new(&engines[1], wants[0].len() as u64, 0);
    for (set, of) in [(0, 1), (2, 1)] {
        // SAFETY: refused before anything is touched.
        let refused = unsafe { sets[set][0].decompress(target.dst, target.bytes, 0, stream) }.unwrap_err();
        assert_eq!(refused.status(), Status::WrongDevice, "resident of {set}, stream of {of}");
    }
    // SAFETY: as above.
    let refused = unsafe {
        let (dsts, bytes) = ([target.dst; 2], [target.bytes; 2]);
        cuda::decompress_batch(&[&sets[1][0], &sets[0][0]], &dsts, &bytes, 0, stream).unwrap_err()
    };
    assert_eq!(refused.status(), Status::WrongDevice);
    assert!(target.take(&engines[1]).iter().all(|&b| b == PAINT));
    emulator.assert_no_fault();
}

/// The NULL stream is refused unless it was allowed; the legacy and the per-thread stream pass.
#[test]
fn the_default_stream_is_a_choice() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let strict = emulator.open(0);
    let lax = Device::open(0, &emulator.options().allow_default_stream(true)).unwrap();
    let model = open("tiny");
    let want = want(&model, 0);
    let [null, legacy, per_thread] = [0, 1, 2].map(|n| Stream::from_raw(std::ptr::without_provenance_mut(n)));
    let (at, resident) = upload(&engine, &lax, &model, 0, null);
    let bytes = resident.image_bytes();
    // SAFETY: the memory lives until the streams were waited for; what is refused touches nothing.
    unsafe {
        for stream in [null, legacy, per_thread] {
            let target = Target::new(&engine, want.len() as u64, 0);
            resident.decompress(target.dst, target.bytes, 0, stream).unwrap();
            engine.synchronise(stream);
            assert!(target.take(&engine) == want);
        }
        assert_eq!(
            strict.upload(model.group(0).unwrap(), at, bytes, null, None).err().unwrap().status(),
            Status::DefaultStream
        );
        let other = strict.bind(model.group(0).unwrap(), at, bytes).unwrap();
        let target = Target::new(&engine, want.len() as u64, 0);
        for refused in [
            other.decompress(target.dst, target.bytes, 0, null),
            other.decompress_range(0, 1, target.dst, 2, 0, null),
            other.decompress_tensors(&[target.dst], &[target.bytes], 0, null),
            cuda::decompress_batch(&[&other], &[target.dst], &[target.bytes], 0, null),
            cuda::decompress_batch(&[&resident, &other], &[target.dst; 2], &[target.bytes; 2], 0, null),
        ] {
            assert_eq!(refused.unwrap_err().status(), Status::DefaultStream);
        }
        other.decompress(target.dst, target.bytes, 0, legacy).unwrap();
        engine.synchronise(legacy);
        assert!(target.take(&engine) == want);
    }
}

/// Makes a model of one golden group with changed members.
fn changed(name: &str, change: impl Fn(&str, &mut Vec<u8>)) -> Model {
    let mut stored = files::stored(name);
    for tensor in &mut stored {
        if let Some((_, member)) = files::member_of(&tensor.name) {
            change(member, &mut tensor.data);
        }
    }
    Model::from_bytes(files::file(&stored), &OpenOptions::default()).unwrap()
}

/// Wrong gaps and codes: the status reports them, and nothing outside image and destination is accessed.
#[test]
fn lies_of_the_file_reach_the_status() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let decode = |model: &Model| {
        engine.fill(status, 0, 4);
        let mut worst = 0;
        for group in 0..model.groups().len() {
            let (at, resident) = upload(&engine, &device, model, group, stream);
            let target = Target::new(&engine, 2 * model.group(group).unwrap().element_count(), 2);
            // SAFETY: all memory lives until the stream was waited for.
            unsafe { resident.decompress(target.dst, target.bytes, status, stream) }.unwrap();
            engine.synchronise(stream);
            target.take(&engine);
            engine.free(at);
            worst = worst.max(engine.read_u32(status));
        }
        worst
    };
    assert_eq!(decode(&changed("tiny", |_, _| ())), 0);
    let gaps = changed("tiny", |member, data| {
        if member == "gaps" {
            let gap = files::gap(data, 1);
            files::set_gap(data, 1, (gap + 1) % 32);
        }
    });
    assert_eq!(decode(&gaps), 103);
    let mut reported = 0;
    let mut random = Random::new(3);
    for _ in 0..20 {
        let at = random.bits() as usize;
        let codes = changed("tiny", |member, data| {
            if member == "encoded_exponent" {
                let at = at % data.len();
                data[at] ^= 0xff;
            }
        });
        let worst = decode(&codes);
        assert!(worst == 0 || worst == 103, "{worst}");
        reported += u32::from(worst == 103);
    }
    assert!(reported > 10, "only {reported} of 20 changed streams were noticed");
    emulator.assert_no_fault();
}

/// Images that were damaged on their way: whatever they hold, no access goes astray.
#[test]
fn damaged_images_cause_no_stray_access() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let mut random = Random::new(5);
    let (mut noticed, mut rounds) = (0, 0);
    for name in ["tiny", "edge"] {
        let model = open(name);
        for group in 0..model.groups().len() {
            let n = model.group(group).unwrap().element_count();
            if n == 0 || n > 100_000 {
                continue;
            }
            let layout = image::ImageLayout::of(model.group(group).unwrap()).unwrap();
            let mut good = vec![0; layout.image_bytes as usize];
            model.group(group).unwrap().write_image(&mut good, 1).unwrap();
            for round in 0..12 {
                let mut bad = good.clone();
                let from = [layout.table, layout.starts, layout.lanes, layout.code][round % 4] as usize;
                let to = [layout.starts, layout.lanes, layout.code, layout.signs][round % 4] as usize;
                match round {
                    0..4 => bad[from..to].fill(0xff),
                    4..8 => bad[from..to].iter_mut().for_each(|b| *b = random.bits() as u8),
                    _ => bad[from + random.below((to - from) as u64) as usize] ^= 1 << random.below(8),
                }
                let at = engine.alloc(layout.image_bytes);
                engine.write(at, &bad);
                engine.fill(status, 0, 4);
                let target = Target::new(&engine, 2 * n, 2 * (round as u64 % 8));
                // SAFETY: all memory lives until the stream was waited for.
                unsafe {
                    let resident = device.bind(model.group(group).unwrap(), at, layout.image_bytes).unwrap();
                    resident.decompress(target.dst, target.bytes, status, stream).unwrap();
                }
                engine.synchronise(stream);
                target.take(&engine);
                engine.free(at);
                rounds += 1;
                let status = engine.read_u32(status);
                assert!(status == 0 || status == 103, "{status}");
                noticed += u32::from(status == 103);
            }
        }
    }
    emulator.assert_no_fault();
    assert!(rounds >= 24 && noticed > rounds / 3, "{noticed} of {rounds}");
}
