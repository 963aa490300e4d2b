//! Groups made here, decoded on the emulated driver: what no golden model holds, more tensors than one launch takes, and
//! launches that fill a device.
#![cfg(target_os = "linux")]

use crate::support;

use df11::{Model, OpenOptions, Status};
use support::encoder::{self, Encoded, encode, group_tensors, safetensors};
use support::engine::Emulator;
use support::target::{Target, upload};
use support::{files, weights};

/// Kinds of weights that golden models lack, compressed here: one-bit codes, codes as long as they get, random
/// exponents.
#[test]
fn generated_groups_of_every_kind_are_exact() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let kinds = [
        ("one bit", weights::one_bit(70_001, 120, 1)),
        ("long codes", weights::fibonacci(20, 2)),
        ("uniform", weights::uniform_exponents(20_000, 60..=180, 3)),
        ("zeros", weights::with_zeros(30_000, 0.5, 4)),
        ("trained", weights::trained_like(100_000, 5)),
        ("one", weights::constant(1, 0x3f80)),
    ];
    let kinds = kinds.map(|(kind, weights)| (kind, encode(&weights, &[]), weights));
    // What only hand-made files have: codes of 32 bits, blocks with the most weights and with none, and a position more or
    // fewer than there are borders of blocks.
    let same = |exponent: u16, n: usize| vec![exponent << 7; n];
    let with_positions = |encoded: &Encoded, positions: &[u32]| Encoded {
        output_positions: positions.iter().flat_map(|p| p.to_le_bytes()).collect(),
        ..encoded.clone()
    };
    let long = encoder::canonical(&[(100, 1), (101, 32), (102, 32)], 31);
    let longest = [same(101, 7000), same(102, 3000)].concat();
    let many = same(100, 70_000);
    let most = encoder::encode_with_codes(&many, &[], &long);
    assert_eq!(files::positions(&most.output_positions), [0, 32_768, 65_536, 70_000]);
    let eight = encoder::canonical(&(0..240).map(|e| (e, 8)).collect::<Vec<_>>(), 8);
    let full = weights::uniform_exponents(4096, 0..=239, 1);
    let one_block = encoder::encode_with_codes(&full, &[], &eight);
    assert_eq!(one_block.encoded_exponent.len(), 4096);
    // The last code begins in the first block and ends in the second, where none begins.
    let mixed = encoder::canonical(&[(100, 4), (101, 8), (102, 12)], 13);
    let straddling = [same(100, 1), same(101, 4095), same(102, 1)].concat();
    let two_blocks = encoder::encode_with_codes(&straddling, &[], &mixed);
    assert_eq!(two_blocks.encoded_exponent.len(), 4097);
    let made = [
        ("32-bit codes", encoder::encode_with_codes(&longest, &[], &long), longest),
        ("32,768 weights in a block", most, many),
        ("a position for each block", with_positions(&one_block, &[0, 4096]), full.clone()),
        ("a position more", with_positions(&one_block, &[0, 4096, 4096]), full),
        ("an empty block", with_positions(&two_blocks, &[0, 4097, 4097]), straddling.clone()),
        ("a position fewer", with_positions(&two_blocks, &[0, 4097]), straddling),
    ];
    for (kind, encoded, weights) in kinds.into_iter().chain(made) {
        let file = safetensors(&group_tensors("g", &encoded), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
        let (at, resident) = upload(&engine, &device, &model, 0, stream);
        let status = engine.alloc(4);
        engine.fill(status, 0, 4);
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let target = Target::new(&engine, bytes.len() as u64, 0);
        // SAFETY: all memory lives until the stream was waited for.
        unsafe { resident.decompress(target.dst, target.bytes, status, stream) }.unwrap();
        engine.synchronise(stream);
        assert_eq!(engine.read_u32(status), 0, "{kind}");
        assert!(target.take(&engine) == bytes, "{kind}");
        engine.free(at);
    }
    emulator.assert_no_fault();
}

/// Tensors in several groups: their runs are ranges and tensors of the residents, and every element comes back.
#[test]
fn runs_of_tensors_are_decoded_where_they_are() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let model = Model::open("tests/data/extension/model", &OpenOptions::default()).unwrap();
    let residents: Vec<_> =
        (0..model.groups().len()).map(|group| upload(&engine, &device, &model, group, stream)).collect();
    let mut several = 0;
    for tensor in model.tensors().filter(|t| t.group().is_some()) {
        let mut want = vec![0; tensor.bytes() as usize];
        tensor.read(0, &mut want, &df11::DecodeOptions::new()).unwrap();
        let (ranges, tensors) = (Target::new(&engine, tensor.bytes(), 0), Target::new(&engine, tensor.bytes(), 2));
        for run in tensor.runs() {
            let resident = &residents[run.group().number()].1;
            let (at, bytes) = (2 * run.tensor_offset(), 2 * run.element_count());
            let number = run.group().runs().position(|r| r.tensor().number() == tensor.number()).unwrap();
            let mut dsts = vec![0; resident.ends().len()];
            let mut sizes = vec![0; dsts.len()];
            (dsts[number], sizes[number]) = (tensors.dst + at, bytes);
            // SAFETY: all memory lives until the stream was waited for.
            unsafe {
                let (first, count) = (run.group_offset(), run.element_count());
                resident.decompress_range(first, count, ranges.dst + at, bytes, 0, stream).unwrap();
                resident.decompress_tensors(&dsts, &sizes, 0, stream).unwrap();
            }
        }
        engine.synchronise(stream);
        assert!(ranges.take(&engine) == want && tensors.take(&engine) == want, "{}", tensor.name());
        several += u32::from(tensor.runs().len() > 1);
    }
    assert_eq!(several, 2);
    residents.into_iter().for_each(|(at, _)| engine.free(at));
    emulator.assert_no_fault();
}

/// More tensors than one launch takes, some of them empty.
#[test]
fn a_group_of_many_tensors_takes_several_launches() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let weights = weights::trained_like(20_000, 9);
    let splits: Vec<u64> = (1..100).map(|i| if i % 10 == 0 { 200 * (i - 1) } else { 200 * i }).collect();
    let file = safetensors(&group_tensors("g", &encode(&weights, &splits)), None);
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    let (_, resident) = upload(&engine, &device, &model, 0, stream);
    let ends = resident.ends();
    assert_eq!(ends.len(), 100);
    let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).take(100).collect();
    let bytes: Vec<u64> = ends.iter().zip(&starts).map(|(end, start)| 2 * (end - start)).collect();
    let targets: Vec<Target> = bytes.iter().map(|&b| Target::new(&engine, b, 0)).collect();
    let dsts: Vec<u64> = targets.iter().map(|t| t.dst).collect();
    emulator.control("run", "");
    emulator.control("clear", "launches");
    // SAFETY: all memory lives until the stream was waited for.
    unsafe { resident.decompress_tensors(&dsts, &bytes, 0, stream) }.unwrap();
    engine.synchronise(stream);
    let filled = bytes.iter().filter(|&&b| b > 0).count() as u64;
    assert_eq!((filled, emulator.query("launches")), (91, 3));
    let all: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    for (i, target) in targets.into_iter().enumerate() {
        assert!(target.take(&engine) == all[2 * starts[i] as usize..2 * ends[i] as usize], "tensor {i}");
    }

    // If the second launch fails, the message says that the first was made.
    emulator.control("fail", "cuLaunchKernel@2=719");
    let targets: Vec<Target> = bytes.iter().map(|&b| Target::new(&engine, b, 0)).collect();
    let dsts: Vec<u64> = targets.iter().map(|t| t.dst).collect();
    // SAFETY: as above.
    let failed = unsafe { resident.decompress_tensors(&dsts, &bytes, 0, stream) }.unwrap_err();
    assert_eq!((failed.status(), failed.native_code()), (Status::Cuda, 719));
    assert!(failed.to_string().contains("1 launches of this call are in the stream"), "{failed}");
    engine.synchronise(stream);
    emulator.assert_no_fault();
}

/// Five tensors of 37 tiles on sixteen blocks that run at once: a share each that is rounded up would be twenty blocks, the
/// last four of which would wait for all others.
#[test]
fn a_launch_has_no_more_blocks_than_run_at_once() {
    let emulator = Emulator::new();
    emulator.control("sms", "8");
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let each = 37 * 32 * 104;
    let weights = weights::trained_like(5 * each, 4);
    let splits: Vec<u64> = (1..5).map(|i| (i * each) as u64).collect();
    let file = safetensors(&group_tensors("g", &encode(&weights, &splits)), None);
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    let (_, resident) = upload(&engine, &device, &model, 0, stream);
    let targets: Vec<Target> = (0..5).map(|_| Target::new(&engine, 2 * each as u64, 0)).collect();
    let dsts: Vec<u64> = targets.iter().map(|t| t.dst).collect();
    emulator.control("run", "");
    emulator.control("clear", "launches");
    // SAFETY: all memory lives until the stream was waited for.
    unsafe { resident.decompress_tensors(&dsts, &[2 * each as u64; 5], 0, stream) }.unwrap();
    engine.synchronise(stream);
    assert_eq!((emulator.query("launches"), emulator.query("last.blocks")), (1, 15));
    for (target, want) in targets.into_iter().zip(weights.chunks(each)) {
        assert!(target.take(&engine) == want.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>());
    }
    emulator.assert_no_fault();
}
