//! What uploads and bindings leave alone, and what they refuse: memory, waiting, streams of others, captures, groups that no
//! device can decode.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::capi::{
    df11_device, df11_device_free, df11_device_open, df11_device_options, df11_device_upload_staged, df11_model_free,
    df11_model_open_memory, df11_resident_free,
};
use df11::internals::cuda::{Staging, image};
use df11::plan::{ModelPlan, PlanOptions, Split};
use df11::{Model, OpenOptions, Progress, Status};
use std::collections::BTreeMap;
use std::ptr::{null, null_mut};
use support::abi::{init, text};
use support::encoder::{Encoded, group_tensors, pack_gaps, safetensors};
use support::engine::Emulator;
use support::golden;
use support::target::{Target, upload, want};

fn open(read: bool) -> Model {
    crate::support::files::open(golden::model("sharded"), read).unwrap()
}

/// Calls whose name has one of these words in it.
fn of<'a>(calls: &'a BTreeMap<String, u64>, words: &[&str]) -> Vec<&'a String> {
    calls.keys().filter(|name| words.iter().any(|word| name.contains(word))).collect()
}

const WAITING: [&str; 2] = ["Synchronize", "Query"];
const MEMORY: [&str; 4] = ["MemAlloc", "MemHostAlloc", "MemAllocHost", "HostRegister"];

/// An upload allocates no memory of the device's, pins none of the host's, and waits for nothing, unless a file is read piece
/// by piece: then for the last copy. Taking an image that is there, and giving it back, calls nothing at all.
#[test]
fn uploads_allocate_nothing_and_binding_calls_nothing() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let layout = image::ImageLayout::of(open(false).group(0).unwrap()).unwrap();
    let (at, bytes) = (engine.alloc(layout.image_bytes), layout.image_bytes);
    for read in [false, true] {
        let model = open(read);
        // SAFETY: model and memory live until the stream was waited for.
        let (resident, calls) =
            emulator.calls_of(|| unsafe { device.upload(model.group(0).unwrap(), at, bytes, stream, None).unwrap() });
        assert!(calls.contains_key("cuMemcpyHtoDAsync_v2"), "{calls:?}");
        assert_eq!(of(&calls, &MEMORY), [""; 0], "read: {read}");
        assert_eq!(of(&calls, &WAITING).is_empty(), !read, "read: {read}, {calls:?}");
        engine.synchronise(stream);
        let mut head = vec![0; layout.head_bytes() as usize];
        head.copy_from_slice(&engine.read(at, layout.head_bytes()));
        let ((), calls) = emulator.calls_of(|| {
            // SAFETY: as above.
            unsafe {
                drop(device.bind(model.group(0).unwrap(), at, bytes).unwrap());
                drop(device.bind_image(&head, at, bytes).unwrap());
            }
            image::Head::parse(&head).unwrap();
            drop(resident);
        });
        assert!(calls.is_empty(), "{calls:?}");
    }
    emulator.assert_no_fault();
}

/// When an upload by way of staging memory returns, the model may be dropped, and the memory that holds its file: it is changed
/// here, and known to the driver, so that a copy from it would see that.
#[test]
fn a_staged_upload_is_done_with_the_model() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let stream = engine.stream();
    let mut file = std::fs::read(golden::model("edge_patched").join("model.safetensors")).unwrap();
    let reference = Model::from_bytes(file.clone(), &OpenOptions::default()).unwrap();
    let libcuda = text(emulator.path());
    let options = df11_device_options { libcuda: libcuda.as_ptr(), ..init() };
    let (mut device, mut resident): (*mut df11_device, _) = (null_mut(), null_mut());
    engine.register(file.as_mut_ptr().cast(), file.len());
    let staging = engine.pinned(1 << 16);
    // SAFETY: the device's options live; handles are freed once, and all memory outlives the stream's work.
    unsafe {
        assert_eq!(df11_device_open(0, &options, &mut device, null_mut()), 0);
        for group in 0..reference.groups().len() {
            let mut image =
                vec![0; image::ImageLayout::of(reference.group(group).unwrap()).unwrap().image_bytes as usize];
            reference.group(group).unwrap().write_image(&mut image, 1).unwrap();
            let (at, bytes, mut model) = (engine.alloc(image.len() as u64), image.len(), null_mut());
            let (data, handle) = (file.as_ptr().cast(), stream.raw().cast());
            assert_eq!(df11_model_open_memory(data, file.len(), null(), &mut model, null_mut()), 0);
            let (number, no_error) = (group as u64, null_mut());
            let status = df11_device_upload_staged(
                device,
                model,
                number,
                at,
                bytes,
                handle,
                staging,
                1 << 16,
                &mut resident,
                no_error,
            );
            assert_eq!(status, 0);
            df11_model_free(model);
            let before = file.clone();
            file.fill(0xff);
            engine.synchronise(stream);
            assert!(engine.read(at, image.len() as u64) == image, "group {group}");
            file.copy_from_slice(&before);
            df11_resident_free(resident);
            engine.free(at);
        }
        df11_device_free(device);
    }
    engine.unregister(file.as_mut_ptr().cast());
    engine.free_pinned(staging);
    emulator.assert_no_fault();
}

/// A stream of another context is refused by every upload, and so is one that is being captured; a capture that was broken
/// before refuses decodes. What is refused enqueues nothing.
#[test]
fn streams_that_cannot_be_used() {
    let emulator = Emulator::new();
    emulator.control("devices", "2");
    let (engine, other) = (emulator.engine(0), emulator.engine(1));
    let (device, stream, model) = (emulator.open(0), engine.stream(), open(false));
    let (at, resident) = upload(&engine, &device, &model, 0, stream);
    engine.synchronise(stream);
    let bytes = resident.image_bytes();
    let mut memory = vec![0u8; 8192];
    // SAFETY: what is refused touches nothing.
    let uploads = |stream| unsafe {
        let staging = Staging::new(memory.as_mut_ptr().cast(), memory.len());
        [
            device.upload(model.group(0).unwrap(), at, bytes, stream, None).map(drop),
            device.upload(model.group(0).unwrap(), at, bytes, stream, Some(staging)).map(drop),
        ]
    };
    let mut uploads = uploads;
    let before = (emulator.query("live.allocations"), emulator.query("launches"));
    for refused in uploads(other.stream()) {
        assert_eq!(refused.unwrap_err().status(), Status::WrongDevice);
    }
    engine.begin_capture(stream, 0);
    for refused in uploads(stream) {
        assert_eq!(refused.unwrap_err().status(), Status::Capturing);
    }
    let exec = engine.end_capture(stream).expect("the capture was broken");
    engine.destroy_graph(exec);
    engine.synchronise(stream);
    assert_eq!((emulator.query("live.allocations"), emulator.query("launches")), before);

    // The engine breaks its own capture, by a call that none allows.
    let target = Target::new(&engine, want(&model, 0).len() as u64, 0);
    engine.begin_capture(stream, 0);
    assert_ne!(engine.wait(stream), 0);
    // SAFETY: as above.
    let refused = unsafe { resident.decompress(target.dst, target.bytes, 0, stream) }.unwrap_err();
    assert_eq!(refused.status(), Status::Capturing, "{refused}");
    engine.end_capture(stream).unwrap_err();
    assert_eq!(emulator.query("launches"), before.1);
}

/// A group with more code words than a device's tables hold: sixteen full rows, in which each exponent has many words. No
/// compressor writes such. The CPU decodes it, and everything that concerns a device says what it is.
#[test]
fn groups_that_no_device_can_decode() {
    let n = 1000u64;
    let mut luts = vec![0u8; 18 * 256];
    // The first row leads to rows 1 to 16, and those hold words of sixteen bits.
    (0..16).for_each(|row| luts[row] = 255 - row as u8);
    (256..17 * 256).for_each(|at| luts[at] = (at % 240) as u8);
    luts[17 * 256..17 * 256 + 240].fill(16);
    let exponent = luts[256];
    let group = Encoded {
        luts,
        encoded_exponent: vec![0; 2 * n as usize],
        sign_mantissa: (0..n).map(|i| i as u8).collect(),
        output_positions: [0, n as u32].iter().flat_map(|p| p.to_le_bytes()).collect(),
        gaps: pack_gaps(&[0; 512]),
        split_positions: Vec::new(),
    };
    let model = Model::from_bytes(safetensors(&group_tensors("g", &group), None), &OpenOptions::default()).unwrap();
    model.group(0).unwrap().verify(1).unwrap();
    let mut weights = vec![half::bf16::ZERO; n as usize];
    model.group(0).unwrap().decompress(0, &mut weights, &Default::default()).unwrap();
    let bits = |i: usize| (i as u16 & 0x80) << 8 | (exponent as u16) << 7 | i as u16 & 0x7f;
    assert!(weights.iter().enumerate().all(|(i, w)| w.to_bits() == bits(i)));

    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let at = engine.alloc(1 << 20);
    let mut room = vec![0x55; 1 << 20];
    // SAFETY: what is refused touches nothing.
    let refused = unsafe {
        [
            image::ImageLayout::of(model.group(0).unwrap()).map(drop),
            model.group(0).unwrap().write_image(&mut room, 1),
            device.bind(model.group(0).unwrap(), at, 1 << 20).map(drop),
            device.upload(model.group(0).unwrap(), at, 1 << 20, stream, None).map(drop),
        ]
    };
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.status(), Status::UnsupportedFormat, "{error}");
        assert!(error.to_string().contains("4096 code words"), "{error}");
    }
}

/// A plan's memory is what the device needs: images of just those sizes, and a buffer for the largest group.
#[test]
fn a_plan_says_what_a_device_needs() {
    let plan = ModelPlan::new(golden::model("sharded"), &PlanOptions::new(), &Progress::new()).unwrap();
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let (model, slot_bytes) = (open(false), plan.scratch_bytes() / u64::from(plan.slots()));
    let slot = engine.alloc(slot_bytes);
    let mut images = 0;
    for (group, planned) in model.groups().zip(plan.groups()) {
        let bytes = planned.image.image_bytes;
        let at = engine.alloc(bytes);
        // SAFETY: model and memory live until the stream was waited for.
        unsafe {
            let less = device.upload(group, at, bytes - 1, stream, None);
            assert_eq!(less.unwrap_err().status(), Status::BufferTooSmall);
            let resident = device.upload(group, at, bytes, stream, None).unwrap();
            resident.decompress(slot, slot_bytes, 0, stream).unwrap();
            engine.synchronise(stream);
        }
        assert!(engine.read(slot, 2 * group.element_count()) == want(&model, group.number()));
        images += bytes;
        engine.free(at);
    }
    let share = &plan.devices(1, Split::Layers).unwrap()[0];
    assert_eq!((share.image_bytes, share.scratch_bytes), (images, 2 * slot_bytes));
    assert_eq!(Some(slot_bytes), model.groups().map(|g| 2 * g.element_count()).max());
    emulator.assert_no_fault();
}
