//! Where kernels run: several contexts of one device, contexts that begin anew, green contexts, and how many blocks there
//! are for each.
#![cfg(target_os = "linux")]

use crate::support;

use df11::cuda::{self, Choice, Device, DeviceOptions, Resident, Staging, Stream};
use df11::internals::cuda::policy;
use df11::{Model, Status};
use support::engine::{self, Emulator, Engine};
use support::golden;
use support::target::{Target, upload, want};

fn model(name: &str) -> Model {
    Model::open(golden::model(name), &Default::default()).unwrap()
}

/// Returns the number of the blocks of the last launch.
fn last_blocks(emulator: &Emulator) -> u64 {
    emulator.query("last.blocks")
}

/// Returns how many blocks decode a whole group on that many multiprocessors of capability 9.0.
fn blocks_on(resident: &Resident, multiprocessors: u32) -> u64 {
    let tiles = resident.layout().unwrap().tiles;
    // Two blocks fit, with a table of either kind.
    tiles.div_ceil(policy::tiles_per_block(std::iter::once(tiles), 12, 2 * multiprocessors))
}

/// Decodes a group's whole into new memory in a stream, and compares.
fn decode(engine: &Engine, resident: &Resident, want: &[u8], stream: Stream) {
    let target = Target::new(engine, want.len() as u64, 0);
    // SAFETY: the memory lives until the context was waited for.
    unsafe { resident.decompress(target.dst, target.bytes, 0, stream) }.unwrap();
    engine.wait_context();
    assert!(target.take(engine) == want);
}

#[test]
fn streams_of_green_contexts_are_accepted_and_fill_their_part() {
    let emulator = Emulator::new();
    emulator.control("sms", "132");
    let engine = emulator.engine(0);
    let (model, device) = (model("block"), emulator.open(0));
    let group = (0..model.groups().len()).max_by_key(|&g| model.group(g).unwrap().element_count()).unwrap();
    let want = want(&model, group);
    let (small, large) = (engine.green(8, false), engine.green(24, false));
    let streams = [(small.stream(), 8), (large.stream(), 24), (engine.stream(), 132), (small.stream(), 8)];
    // Uploads, from the file and through staging memory.
    let mut memory = vec![0u8; 1 << 16];
    let bytes = model.group(group).unwrap().image_layout().unwrap().image_bytes;
    for (stream, parts) in [(streams[0].0, 8), (streams[2].0, 132)] {
        // SAFETY: model and memory outlive the stream's work.
        let staged = unsafe {
            let staging = Staging::new(memory.as_mut_ptr().cast(), memory.len());
            device.upload(model.group(group).unwrap(), engine.alloc(bytes), bytes, stream, Some(staging)).unwrap()
        };
        engine.wait_context();
        assert!(last_blocks(&emulator) <= 4 * parts && last_blocks(&emulator) > 2 * parts.min(24));
        decode(&engine, &staged, &want, stream);
    }
    let (_, resident) = upload(&engine, &device, &model, group, streams[1].0);
    let mut counts = Vec::new();
    for (stream, parts) in streams {
        decode(&engine, &resident, &want, stream);
        assert_eq!(last_blocks(&emulator), blocks_on(&resident, parts), "{parts} multiprocessors");
        counts.push(last_blocks(&emulator));
    }
    assert!(counts[0] <= 16 && counts[0] < counts[1] && counts[1] < counts[2], "{counts:?}");
    assert_eq!(emulator.query("lazy_loads"), 0, "a kernel was loaded by a launch");
    // The size is asked for once.
    assert_eq!(emulator.query("calls.cuGreenCtxGetDevResource"), 2);

    // Each way to decode, and a batch, in a graph.
    let stream = streams[0].0;
    let ends = resident.ends();
    let target = Target::new(&engine, want.len() as u64, 0);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let (dsts, sizes): (Vec<u64>, Vec<u64>) =
        starts.zip(ends).map(|(from, to)| (target.dst + 2 * from, 2 * (to - from))).unzip();
    let half = resident.element_count() / 2;
    // SAFETY: the memory lives until the context was waited for.
    let graphs = unsafe {
        let graph = |work: &dyn Fn() -> df11::Result<()>| {
            engine.begin_capture(stream, 0);
            work().unwrap();
            engine.end_capture(stream).unwrap()
        };
        [
            graph(&|| resident.decompress_tensors(&dsts, &sizes, 0, stream)),
            graph(&|| cuda::decompress_batch(&[&resident], &[target.dst], &[target.bytes], 0, stream)),
            graph(&|| {
                resident.decompress_range(0, half, target.dst, target.bytes, 0, stream)?;
                let rest = resident.element_count() - half;
                resident.decompress_range(half, rest, target.dst + 2 * half, 2 * rest, 0, stream)
            }),
        ]
    };
    for graph in graphs {
        engine.fill(target.dst, 0, target.bytes);
        engine.launch_graph(graph, stream);
        engine.wait_context();
        assert!(engine.read(target.dst, target.bytes) == want);
        assert!(last_blocks(&emulator) <= 16);
        engine.destroy_graph(graph);
    }
    target.take(&engine);
    drop((small, large));
    // The primary context is left, and in it the device decodes.
    decode(&engine, &resident, &want, streams[2].0);
    // SAFETY: the stream's handle is known to the driver, which says that it is detached.
    let ended = unsafe { resident.decompress(1 << 40, u64::MAX, 0, stream) }.unwrap_err();
    assert_eq!((ended.status(), ended.native_code()), (Status::Cuda, 917), "{ended}");
    emulator.assert_no_fault();
}

/// A driver that cannot tell green contexts takes their streams for those of another context, in which a device may be opened.
#[test]
fn streams_of_green_contexts_need_a_driver_of_12_5() {
    for version in [12040, 12050, 13000] {
        let emulator = Emulator::of_version(version);
        emulator.control("sms", "16");
        let engine = emulator.engine(0);
        let (model, device) = (model("tiny"), emulator.open(0));
        // Before 12.5 each of them had to have a default stream.
        let (green, stream, want) = (engine.green(8, true), engine.stream(), want(&model, 0));
        let (_, resident) = upload(&engine, &device, &model, 0, stream);
        engine.synchronise(stream);
        let in_green = green.stream_made_here();
        if version == 12040 {
            // SAFETY: what is refused touches nothing.
            let refused = unsafe { resident.decompress(1 << 40, u64::MAX, 0, in_green) }.unwrap_err();
            assert_eq!(refused.status(), Status::WrongDevice);
            assert!(refused.to_string().contains("the driver is too old (CUDA 12.5)"), "{refused}");
        } else {
            decode(&engine, &resident, &want, in_green);
        }
        green.enter();
        // SAFETY: the green context outlives the device.
        let device = unsafe { Device::open_current(&emulator.options()) }.unwrap();
        let (_, resident) = upload(&engine, &device, &model, 0, in_green);
        decode(&engine, &resident, &want, in_green);
        emulator.assert_no_fault();
    }
}

/// A device that is opened with a green context current takes streams of all contexts of the same memory. The special ones are
/// those of the green context.
#[test]
fn a_device_opened_in_a_green_context_is_the_devices_own() {
    let emulator = Emulator::new();
    emulator.control("sms", "132");
    emulator.control("devices", "2");
    let engine = emulator.engine(0);
    let model = model("block");
    let want = want(&model, 0);
    let (green, other) = (engine.green(8, true), engine.green(16, false));
    green.enter();
    let current = engine::current(&emulator);
    let options = emulator.options().allow_default_stream(true);
    // SAFETY: the green context outlives the device.
    let device = unsafe { Device::open_current(&options) }.unwrap();
    assert_eq!((engine::current(&emulator), emulator.query("lazy_loads")), (current, 0));
    let plain = Device::open(0, &options).unwrap();
    let stream = engine.stream();
    let (_, resident) = upload(&engine, &device, &model, 0, green.stream());
    let (_, second) = upload(&engine, &plain, &model, 0, stream);
    let legacy = Stream::from_raw(std::ptr::without_provenance_mut(1));
    let null = Stream::from_raw(std::ptr::null_mut());
    for (stream, parts) in [(green.stream(), 8), (other.stream(), 16), (stream, 132), (legacy, 8), (null, 8)] {
        engine::leave(&emulator);
        decode(&engine, &resident, &want, stream);
        assert_eq!(last_blocks(&emulator), blocks_on(&resident, parts), "{parts} multiprocessors");
    }
    // A device that is opened by its number has the primary context's default stream.
    decode(&engine, &second, &want, legacy);
    assert_eq!(last_blocks(&emulator), blocks_on(&second, 132));
    // Residents of both make one batch.
    let targets = [0, 0].map(|off| Target::new(&engine, want.len() as u64, off));
    let (dsts, sizes) = (targets.each_ref().map(|target| target.dst), [want.len() as u64; 2]);
    // SAFETY: the memory lives until the context was waited for.
    unsafe { cuda::decompress_batch(&[&resident, &second], &dsts, &sizes, 0, other.stream()) }.unwrap();
    engine.wait_context();
    assert!(targets.map(|target| target.take(&engine)).iter().all(|got| *got == want));
    // Streams of another device are not taken.
    let foreign = emulator.engine(1);
    for stream in [foreign.stream(), foreign.green(8, false).stream()] {
        // SAFETY: what is refused touches nothing.
        let refused = unsafe { resident.decompress(1 << 40, u64::MAX, 0, stream) }.unwrap_err();
        assert_eq!(refused.status(), Status::WrongDevice, "{refused}");
    }
    emulator.assert_no_fault();
}

/// Kernels that were loaded in one context serve every other: a second of the same device, one that ended and began anew with
/// the same handle, and another device. None is loaded by a launch, so each can be captured first.
#[test]
fn kernels_serve_every_context_that_a_device_is_opened_in() {
    for old in [false, true] {
        let emulator = if old { Emulator::lacking(&["cuKernelSetAttribute"]) } else { Emulator::new() };
        emulator.control("devices", "2");
        emulator.control("cc", "90,75");
        let model = model("tiny");
        let want = want(&model, 0);
        let run = |engine: &Engine, open: &dyn Fn() -> Device| {
            engine.enter();
            let (device, stream) = (open(), engine.stream());
            let at = engine.alloc(model.group(0).unwrap().image_layout().unwrap().image_bytes);
            let mut image = vec![0; model.group(0).unwrap().image_layout().unwrap().image_bytes as usize];
            model.group(0).unwrap().write_image(&mut image, 1).unwrap();
            engine.write(at, &image);
            let target = Target::new(engine, want.len() as u64, 0);
            // SAFETY: the memory lives until the context was waited for.
            unsafe {
                let resident = device.bind(model.group(0).unwrap(), at, image.len() as u64).unwrap();
                engine.begin_capture(stream, 0);
                resident.decompress(target.dst, target.bytes, 0, stream).unwrap();
                // The handles may go before the graph runs.
                let graph = engine.end_capture(stream).unwrap();
                drop((resident, device));
                engine.launch_graph(graph, stream);
                engine.synchronise(stream);
                engine.destroy_graph(graph);
            }
            assert!(target.take(engine) == want, "old driver: {old}");
            engine.free(at);
            engine.destroy(stream);
        };
        let by_number = |ordinal: i32| emulator.open(ordinal);
        // SAFETY: the context outlives the device.
        let here = || unsafe { Device::open_current(&emulator.options()) }.unwrap();
        let primary = emulator.engine(0);
        run(&primary, &|| by_number(0));
        for _ in 0..2 {
            let own = Engine::own(&emulator, 0);
            run(&own, &here);
        }
        run(&emulator.engine(1), &|| by_number(1));
        for _ in 0..2 {
            primary.reset();
            run(&primary, &|| by_number(0));
            run(&primary, &|| by_number(0));
        }
        drop(primary);
        assert_eq!((emulator.query("lazy_loads"), emulator.query("live.retains")), (0, 0));
        // By a driver that has libraries each image was loaded once: two cubins, which are not taken, and the PTX of each
        // of the two devices.
        let loads = if old { 2 * 8 } else { 4 };
        assert_eq!(emulator.query("calls.cuLibraryLoadData") + emulator.query("calls.cuModuleLoadData"), loads);
        emulator.assert_no_fault();
    }
}

/// A device that was open when its context ended and began anew decodes there, because its kernels are of no context.
#[test]
fn an_open_device_survives_the_reset_of_its_context() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (model, device) = (model("tiny"), emulator.open(0));
    let want = want(&model, 0);
    for _ in 0..2 {
        engine.enter();
        let stream = engine.stream();
        let (_, resident) = upload(&engine, &device, &model, 0, stream);
        decode(&engine, &resident, &want, stream);
        engine.reset();
    }
    emulator.assert_no_fault();
}

/// The option limits every kernel's blocks, whatever the stream.
#[test]
fn a_limit_on_multiprocessors_limits_every_launch() {
    let emulator = Emulator::new();
    emulator.control("sms", "132");
    let engine = emulator.engine(0);
    let (block, tiny) = (model("block"), model("tiny"));
    let groups = tiny.groups().len();
    let wants: Vec<Vec<u8>> = std::iter::once(want(&block, 0)).chain((0..groups).map(|g| want(&tiny, g))).collect();
    let (green, stream) = (engine.green(8, false), engine.stream());
    for (limit, plain, in_green) in [(0, 132, 8), (1, 1, 1), (5, 5, 5), (20, 20, 8), (132, 132, 8), (u32::MAX, 132, 8)]
    {
        let device = Device::open(0, &emulator.options().multiprocessors(limit)).unwrap();
        assert_eq!(device.info().multiprocessors, 132);
        let resident = upload(&engine, &device, &block, 0, stream).1;
        engine.synchronise(stream);
        let index = last_blocks(&emulator);
        assert!(index <= 4 * u64::from(plain) && (plain > 1 || index > 2), "{index} blocks with a limit of {limit}");
        decode(&engine, &resident, &wants[0], stream);
        assert_eq!(last_blocks(&emulator), blocks_on(&resident, plain), "a limit of {limit}");
        decode(&engine, &resident, &wants[0], green.stream());
        assert_eq!(last_blocks(&emulator), blocks_on(&resident, in_green), "a limit of {limit} in a green context");
        // A batch of a large group and a small one, and one that takes more launches for the limit than for its length.
        let mut residents = vec![resident];
        residents.extend((0..groups).map(|group| upload(&engine, &device, &tiny, group, stream).1));
        for (count, launches) in [(2, 1), (40, 40u32.div_ceil(32.min(2 * plain)))] {
            let order: Vec<usize> = (0..count).map(|i| if i < 2 { i } else { 1 + i % groups }).collect();
            let sizes: Vec<u64> = order.iter().map(|&at| wants[at].len() as u64).collect();
            let target = Target::new(&engine, sizes.iter().sum(), 0);
            let dsts: Vec<u64> = (0..count).map(|i| target.dst + sizes[..i].iter().sum::<u64>()).collect();
            let batch: Vec<&Resident> = order.iter().map(|&at| &residents[at]).collect();
            engine.wait_context();
            emulator.control("clear", "launches");
            // SAFETY: the memory lives until the context was waited for.
            unsafe { cuda::decompress_batch(&batch, &dsts, &sizes, 0, stream) }.unwrap();
            engine.wait_context();
            assert_eq!(emulator.query("launches"), u64::from(launches), "{count} groups with a limit of {limit}");
            for launch in 0..launches {
                let blocks = emulator.query(&format!("launch.{launch}.blocks"));
                assert!(blocks <= 2 * u64::from(plain), "{count} groups with a limit of {limit}: {blocks} blocks");
            }
            assert!(target.take(&engine) == order.iter().flat_map(|&at| wants[at].clone()).collect::<Vec<u8>>());
        }
    }
    emulator.assert_no_fault();
}

/// A context may have fewer multiprocessors than its device, as under MPS.
#[test]
fn a_contexts_share_of_the_device_is_what_is_filled() {
    let emulator = Emulator::new();
    emulator.control("sms", "132");
    emulator.control("context_sms", "6");
    let engine = emulator.engine(0);
    let (model, device, stream) = (model("block"), emulator.open(0), engine.stream());
    let (_, resident) = upload(&engine, &device, &model, 0, stream);
    decode(&engine, &resident, &want(&model, 0), stream);
    assert_eq!((last_blocks(&emulator), device.info().multiprocessors), (blocks_on(&resident, 6), 132));
}

/// Tegra's devices get PTX, though there is a binary for their capability that the driver would take.
#[test]
fn integrated_devices_get_ptx() {
    for (integrated, name) in [("0", "sm_80"), ("1", "PTX")] {
        let emulator = Emulator::new();
        emulator.control("cc", "87");
        emulator.control("integrated", integrated);
        emulator.control("accept_cubin", "1");
        emulator.control("cubin_ptx", concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prebuilt/decode.ptx"));
        assert_eq!(emulator.open(0).info().kernels, name);
        assert_eq!(emulator.query("live.libraries"), 1);
    }
}

/// A driver that loads eagerly says at the load what another says at the first use.
#[test]
fn eager_loading_is_the_same() {
    for (accept, jit, name) in [("1", "1", "sm_90"), ("0", "1", "PTX"), ("0", "0", "")] {
        for loading in ["LAZY", "EAGER"] {
            let emulator = Emulator::new();
            emulator.control("module_loading", loading);
            emulator.control("accept_cubin", accept);
            emulator.control("jit", jit);
            emulator.control("cubin_ptx", concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prebuilt/decode.ptx"));
            let engine = emulator.engine(0);
            match Device::open(0, &emulator.options()) {
                Ok(device) => {
                    let (model, stream) = (model("tiny"), engine.stream());
                    assert_eq!(device.info().kernels, name);
                    let (_, resident) = upload(&engine, &device, &model, 0, stream);
                    decode(&engine, &resident, &want(&model, 0), stream);
                }
                Err(error) => assert_eq!((error.status(), name), (Status::NoKernel, ""), "{error}"),
            }
            emulator.assert_no_fault();
        }
    }
}

/// The PTX that one device has taken serves another, and what one does not take is no loss to the other.
#[test]
fn images_are_shared_by_devices() {
    let emulator = Emulator::new();
    emulator.control("devices", "3");
    emulator.control("cc", "90,86,90");
    emulator.control("accept_cubin", "1");
    emulator.control("cubin_ptx", concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prebuilt/decode.ptx"));
    let best = DeviceOptions::kernels;
    for (ordinal, choice, name, loads) in [
        (0, Choice::Best, "sm_90", 1),
        (1, Choice::Best, "sm_80", 2),
        (2, Choice::Best, "sm_90", 2),
        (2, Choice::Ptx, "PTX", 3),
        (0, Choice::Ptx, "PTX", 3),
    ] {
        let device = Device::open(ordinal, &best(emulator.options(), choice)).unwrap();
        assert_eq!(device.info().kernels, name);
        assert_eq!(emulator.query("calls.cuLibraryLoadData"), loads);
    }
}
