//! Decodes that start before the kernel before them has ended. The emulated driver fails a kernel that was launched so and
//! writes, or ends, before it has waited.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::{self, Choice, Device, DeviceOptions, Resident};
use df11::{Model, OpenOptions, Progress};
use support::engine::Emulator;
use support::golden;
use support::target::{Target, upload, want};

/// Decodes all groups of a model in every way, captured too. Returns how many launches started early, and how many did not.
fn decode(emulator: &Emulator, device: &Device, name: &str) -> [u64; 2] {
    let engine = emulator.engine(0);
    let stream = engine.stream();
    let model = Model::open(golden::model(name), &OpenOptions::default()).unwrap();
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let groups = 0..model.groups().len();
    let residents: Vec<Resident> = groups.clone().map(|g| upload(&engine, device, &model, g, stream).1).collect();
    engine.synchronise(stream);
    let before = emulator.query("launches");
    for group in groups.clone() {
        let (resident, want) = (&residents[group], want(&model, group));
        let (first, end) = (want.len() / 14, want.len() / 2 - want.len() / 10);
        for captured in [false, true] {
            let whole = Target::new(&engine, want.len() as u64, 0);
            let part = Target::new(&engine, 2 * (end - first) as u64, 6);
            if captured {
                engine.begin_capture(stream, 0);
            }
            // SAFETY: all memory lives until the stream was waited for, and every image is complete.
            unsafe {
                resident.decompress(whole.dst, whole.bytes, status, stream).unwrap();
                resident
                    .decompress_range(first as u64, (end - first) as u64, part.dst, part.bytes, status, stream)
                    .unwrap();
            }
            if captured {
                let exec = engine.end_capture(stream).unwrap();
                engine.launch_graph(exec, stream);
                engine.synchronise(stream);
                engine.destroy_graph(exec);
            }
            engine.synchronise(stream);
            assert!(whole.take(&engine) == want, "{name}: group {group}, captured: {captured}");
            assert!(
                part.take(&engine) == want[2 * first..2 * end],
                "{name}: range of group {group}, captured: {captured}"
            );
        }
    }
    let wants: Vec<Vec<u8>> = groups.map(|group| want(&model, group)).collect();
    let targets: Vec<Target> = wants.iter().map(|want| Target::new(&engine, want.len() as u64, 0)).collect();
    let dsts: Vec<u64> = targets.iter().map(|target| target.dst).collect();
    let bytes: Vec<u64> = targets.iter().map(|target| target.bytes).collect();
    // SAFETY: as above.
    unsafe { cuda::decompress_batch(&residents.iter().collect::<Vec<_>>(), &dsts, &bytes, 0, stream) }.unwrap();
    engine.synchronise(stream);
    for (group, (target, want)) in targets.into_iter().zip(&wants).enumerate() {
        assert!(&target.take(&engine) == want, "{name}: group {group} of a batch");
    }
    assert_eq!(engine.read_u32(status), 0, "{name}");
    emulator.assert_no_fault();
    let launches = before..emulator.query("launches");
    let early = launches.clone().filter(|launch| emulator.query(&format!("launch.{launch}.early")) == 1).count() as u64;
    [early, launches.count() as u64 - early]
}

fn options(emulator: &Emulator) -> DeviceOptions {
    emulator.options().early_start(true)
}

#[test]
fn early_decodes_give_the_same_bits_and_wait_before_they_write() {
    let emulator = Emulator::new();
    let device = Device::open(0, &options(&emulator)).unwrap();
    for name in golden::NAMES {
        let [early, others] = decode(&emulator, &device, name);
        assert!(early > 0 && others == 0, "{name}: {early} launches were early, {others} were not");
    }
}

#[test]
fn decodes_start_early_only_where_they_can_and_may() {
    for (cc, driver, choice, asked, is_early) in [
        ("90", "12030", Choice::Best, true, true),
        ("120", "13000", Choice::Ptx, true, true),
        ("90", "12040", Choice::Best, false, false),
        // Older drivers cannot capture such launches, and do not take the PTX that waits.
        ("90", "12020", Choice::Best, true, false),
        ("89", "13000", Choice::Best, true, false),
        ("75", "13000", Choice::Ptx, true, false),
    ] {
        let emulator = Emulator::new();
        emulator.control("cc", cc);
        emulator.control("driver", driver);
        let options = options(&emulator).early_start(asked).kernels(choice);
        let device = Device::open(0, &options).unwrap();
        let [early, others] = decode(&emulator, &device, "tiny");
        assert_eq!((early > 0, others > 0), (is_early, !is_early), "{cc}, driver {driver}");
    }
}

/// Without any one of its waits a kernel is caught: before the first store, and at the end of a thread that stores nothing.
#[test]
fn kernels_that_do_not_wait_are_noticed() {
    let text = include_str!("../../kernels/prebuilt/decode.sm_90.ptx");
    assert_eq!(text.matches("griddepcontrol.wait;").count(), 6, "two in each kernel that decodes");
    let folder = tempfile::tempdir().unwrap();
    for (number, (at, _)) in text.match_indices("griddepcontrol.wait;").enumerate() {
        let mut spoilt = text.to_owned();
        spoilt.replace_range(at..at + "griddepcontrol.wait;".len(), "");
        let path = folder.path().join(format!("{number}.ptx"));
        std::fs::write(&path, spoilt).unwrap();
        let emulator = Emulator::new();
        emulator.control("accept_cubin", "1");
        emulator.control("cubin_ptx", path.to_str().unwrap());
        let engine = emulator.engine(0);
        let device = Device::open(0, &options(&emulator)).unwrap();
        let stream = engine.stream();
        let model = Model::open(golden::model("tiny"), &OpenOptions::default()).unwrap();
        let (_, resident) = upload(&engine, &device, &model, 0, stream);
        engine.synchronise(stream);
        let plan = model.group(0).unwrap().linear(&[], 1, &Progress::new()).unwrap();
        let mut image = vec![0; plan.head().image_bytes() as usize];
        plan.write_image(&mut image, 1, &Progress::new()).unwrap();
        let at = engine.alloc(image.len() as u64);
        engine.write(at, &image);
        // SAFETY: the memory is never freed.
        let linear = unsafe { device.bind_image(&image, at, image.len() as u64) }.unwrap();
        let target = Target::new(&engine, 2 * resident.element_count(), 0);
        let (residents, dsts, bytes) = ([&resident; 2], [target.dst; 2], [target.bytes; 2]);
        // SAFETY: all memory lives until the stream was waited for; the second decode overwrites the first's weights.
        unsafe {
            resident.decompress(target.dst, target.bytes, 0, stream).unwrap();
            cuda::decompress_batch(&residents, &dsts, &bytes, 0, stream).unwrap();
            linear.decompress(target.dst, target.bytes, 0, stream).unwrap();
        }
        assert_ne!(engine.wait(stream), 0, "wait number {number} is not needed");
        assert!(emulator.text("fault").contains("Early"), "{}", emulator.text("fault"));
    }
}
