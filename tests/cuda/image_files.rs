//! Images in files: written by [`df11::writer::write_images`], read into device memory as a loader does that knows nothing of
//! them, bound by their heads alone, and decoded. And files that are cut short or damaged.
#![cfg(target_os = "linux")]

use crate::support;

use df11::writer::{ImagesOptions, write_images};
use df11::{Model, OpenOptions, Progress, Status};
use serde_json::Value;
use std::path::Path;
use support::check;
use support::engine::{Emulator, Engine};
use support::golden;
use support::target::{Target, want};
use support::weights::Random;

/// Writes the images of a model to a folder, and returns what its index says of each.
fn images(model: &Path, folder: &Path) -> Vec<Value> {
    write_images(model, folder, &ImagesOptions::new().threads(2), &Progress::new()).unwrap();
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("images.json")).unwrap()).unwrap();
    index["images"].as_array().unwrap().clone()
}

/// Brings a whole file to the device, zeros at its end and all, as one that is read in pieces past the system's cache.
fn load(engine: &Engine, file: &Path) -> (u64, Vec<u8>) {
    let bytes = std::fs::read(file).unwrap();
    let at = engine.alloc(bytes.len() as u64);
    for (i, piece) in bytes.chunks(64 << 10).enumerate() {
        engine.write(at + (i as u64 * (64 << 10)), piece);
    }
    (at, bytes)
}

#[test]
fn every_golden_model_is_decoded_from_its_files() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let dir = tempfile::tempdir().unwrap();
    for name in golden::NAMES {
        let folder = dir.path().join(name);
        let model = Model::open(golden::model(name), &OpenOptions::new()).unwrap();
        for (group, entry) in images(&golden::model(name), &folder).iter().enumerate() {
            let (at, bytes) = load(&engine, &folder.join(entry["file"].as_str().unwrap()));
            let head = &bytes[..entry["head_bytes"].as_u64().unwrap() as usize];
            // SAFETY: memory outlives the stream's work, which is waited for.
            let target = unsafe {
                let resident = device.bind_image(head, at, bytes.len() as u64).unwrap();
                assert_eq!(resident.image_bytes(), entry["image_bytes"].as_u64().unwrap());
                let target = Target::new(&engine, 2 * resident.element_count(), 0);
                resident.decompress(target.dst, target.bytes, status, stream).unwrap();
                engine.synchronise(stream);
                target
            };
            assert!(target.take(&engine) == want(&model, group), "{name}: {}", entry["group"]);
            engine.free(at);
        }
    }
    assert_eq!(engine.read_u32(status), 0);
    emulator.assert_no_fault();
}

/// A file that is cut short anywhere is refused if its head or its size shows it. A reader that takes the size from elsewhere
/// gets what the device finds: whatever it decodes, it stays inside image and destination.
#[test]
fn files_cut_short_or_damaged_are_refused_or_harmless() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    let dir = tempfile::tempdir().unwrap();
    let entries = images(&golden::model("tiny"), dir.path());
    let (file, number) =
        (dir.path().join(entries[0]["file"].as_str().unwrap()), |key: &str| entries[0][key].as_u64().unwrap());
    let (whole, image_bytes, head_bytes) = (std::fs::read(&file).unwrap(), number("image_bytes"), number("head_bytes"));
    let weights = number("element_count");
    let model = Model::open(golden::model("tiny"), &OpenOptions::new()).unwrap();
    let right = want(&model, 0);
    let at = engine.alloc(image_bytes);
    let mut random = Random::new(11);

    // The size is that of the file.
    let mut lengths = vec![0, 1, 255, 256, head_bytes - 1, head_bytes, image_bytes - 1, image_bytes / 4096 * 4096];
    lengths.extend((0..check::rounds(20)).map(|_| random.below(image_bytes)));
    for length in lengths.into_iter().filter(|&length| length < image_bytes) {
        let there = &whole[..length as usize];
        // SAFETY: the memory is there, and nothing is launched.
        let refused = unsafe { device.bind_image(&there[..there.len().min(head_bytes as usize)], at, length) };
        let status = refused.err().unwrap_or_else(|| panic!("{length} bytes are enough")).status();
        let known = if length < 8 {
            &[Status::InvalidFormat, Status::Corrupt][..]
        } else if length < head_bytes {
            &[Status::Corrupt]
        } else {
            &[Status::BufferTooSmall]
        };
        assert!(known.contains(&status), "{length} bytes: {status:?}");
    }

    // The head is whole and the rest is not what it was: bytes of another file, zeros after a cut, or changed ones.
    let mut found = 0;
    for round in 0..check::rounds(60) {
        let mut bytes = whole[..image_bytes as usize].to_vec();
        let from = head_bytes + random.below(image_bytes - head_bytes);
        let tail = &mut bytes[from as usize..];
        match round % 3 {
            0 => tail.fill(0),
            1 => tail.iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            _ => tail[0] ^= 1 << random.below(8),
        }
        engine.write(at, &bytes);
        engine.fill(status, 0, 4);
        // SAFETY: memory outlives the stream's work, which is waited for.
        let target = unsafe {
            let resident = device.bind_image(&bytes[..head_bytes as usize], at, image_bytes).unwrap();
            let target = Target::new(&engine, 2 * weights, 0);
            resident.decompress(target.dst, target.bytes, status, stream).unwrap();
            engine.synchronise(stream);
            target
        };
        let said = engine.read_u32(status);
        assert!([0, Status::Corrupt as u32].contains(&said), "{said}");
        found += u32::from(said != 0 || target.take(&engine) != right);
    }
    assert!(found > 20, "only {found} spoilt files were told from the good one");
    // A head that is not that of the image: its checksum shows it.
    for _ in 0..check::rounds(60) {
        let mut head = whole[..head_bytes as usize].to_vec();
        let at_byte = random.below(head_bytes) as usize;
        head[at_byte] ^= 1 << random.below(8);
        // SAFETY: the memory is there, and nothing is launched.
        let refused = unsafe { device.bind_image(&head, at, image_bytes) };
        // The state is the device's word, and no part of what is summed.
        assert!(refused.is_err() || (248..252).contains(&at_byte), "a flip at {at_byte} went unnoticed");
    }
    emulator.assert_no_fault();
}
