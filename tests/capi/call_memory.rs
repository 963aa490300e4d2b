//! How much memory of the host's packing a group and uploading one take, as the header says. In a process of its own,
//! because what other tests allocate would count.
#![cfg(target_os = "linux")]

use crate::support;

use df11::Progress;
use df11::cuda::Slice;
use df11::internals::capi::{df11_compress_group, df11_packed_group};
use df11::internals::cuda::{Staging, image};
use std::ffi::c_void;
use std::ptr::null_mut;
use support::abi::init;
use support::alloc;
use support::alone::alone;
use support::engine::Emulator;
use support::{encoder, weights};

#[test]
fn no_more_than_the_header_says() {
    alone!();
    packing();
    uploading();
    sharding();
}

/// Less than 4 MB for each thread, mapped or read, by columns that are near each other and by long runs.
fn sharding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let group = encoder::encode(&weights::trained_like(1_500_000, 4), &[]);
    std::fs::write(&path, encoder::safetensors(&encoder::group_tensors("g", &group), None)).unwrap();
    let columns = Slice { tensor: 0, first: 100, run_elements: 500, run_stride: 1000, run_count: 1400 };
    let rows = Slice { tensor: 0, first: 700_001, run_elements: 700_000, run_stride: 700_000, run_count: 1 };
    for read in [false, true] {
        let model = support::files::open(&path, read).unwrap();
        for threads in [1, 3] {
            let make = || model.group(0).unwrap().shard(&[columns, rows], threads, &Progress::new()).unwrap();
            let (shard, made) = alloc::taken(make);
            let mut image = vec![0; shard.layout().image_bytes as usize];
            let ((), written) = alloc::taken(|| shard.write_image(&mut image, threads, &Progress::new()).unwrap());
            let most = threads * 4_000_000;
            assert!(made.peak < most && written.peak < most, "{threads} threads, read: {read}: {made:?}, {written:?}");
            // So does a linear image, also where rows are so long that columns are decoded for themselves.
            for shape in [(1500, 1000), (3, 500_000)] {
                let make = || model.group(0).unwrap().linear(&[shape], threads, &Progress::new()).unwrap();
                let (plan, made) = alloc::taken(make);
                let mut image = vec![0; plan.head().image_bytes() as usize];
                let ((), written) = alloc::taken(|| plan.write_image(&mut image, threads, &Progress::new()).unwrap());
                assert!(made.peak < most && written.peak < most, "{threads}, {read}: {made:?}, {written:?}");
            }
        }
    }
}

/// Some 3 KiB for each tensor and each 262144 weights of it, and less than 4 MiB for each thread.
fn packing() {
    // Codes as long as they get, too, for those need the largest buffers.
    for (tensors, n, all) in [
        (1, 9_000_000, weights::trained_like(9_000_000, 1)),
        (1000, 3_000, weights::trained_like(3_000_000, 2)),
        (2, 2_000_000, weights::fibonacci(24, 3).into_iter().cycle().take(4_000_000).collect()),
    ] {
        let addresses: Vec<*const c_void> = (0..tensors).map(|t| all[t * n..].as_ptr().cast()).collect();
        let counts = vec![n as u64; tensors];
        for threads in [1, 3] {
            let mut group: df11_packed_group = init();
            let call = |group: &mut df11_packed_group| {
                // SAFETY: addresses, counts and members are as large as they say.
                let call = || unsafe {
                    let (addresses, counts) = (addresses.as_ptr(), counts.as_ptr());
                    df11_compress_group(addresses, counts, tensors, threads, group, null_mut())
                };
                let (status, taken) = alloc::taken(call);
                let most = 3200 * tensors * n.div_ceil(262_144) + ((threads as usize) << 22);
                assert_eq!(status, 0);
                assert!(taken.peak < most, "{tensors} tensors, {threads} threads: {taken:?}, {most}");
            };
            // Sizes first, and then all of it.
            call(&mut group);
            let mut members: Vec<Vec<u8>> = [
                group.luts_bytes,
                group.encoded_exponent_bytes,
                group.sign_mantissa_bytes,
                group.output_positions_bytes,
                group.gaps_bytes,
                group.split_positions_bytes,
            ]
            .map(|bytes| vec![0; bytes.max(1)])
            .into();
            let mut at = members.iter_mut().map(|member| member.as_mut_ptr().cast());
            let mut next = || at.next().unwrap();
            (group.luts, group.encoded_exponent, group.sign_mantissa) = (next(), next(), next());
            (group.output_positions, group.gaps, group.split_positions) = (next(), next(), next());
            call(&mut group);
        }
    }
}

/// 2 MiB to read to where a file is read and there is no staging memory; else what a resident keeps, its head.
fn uploading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let group = encoder::encode(&weights::trained_like(6_000_000, 1), &[]);
    std::fs::write(&path, encoder::safetensors(&encoder::group_tensors("g", &group), None)).unwrap();
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let mut memory = vec![0u8; 1 << 20];
    for read in [false, true] {
        let model = crate::support::files::open(&path, read).unwrap();
        let layout = image::ImageLayout::of(model.group(0).unwrap()).unwrap();
        let at = engine.alloc(layout.image_bytes);
        for staged in [false, true] {
            // SAFETY: model and memory live until the stream was waited for.
            let (resident, taken) = alloc::taken(|| unsafe {
                let staging = staged.then(|| Staging::new(memory.as_mut_ptr().cast(), memory.len()));
                device.upload(model.group(0).unwrap(), at, layout.image_bytes, stream, staging).unwrap()
            });
            engine.synchronise(stream);
            drop(resident);
            let most = if read && !staged { (2 << 20) + (256 << 10) } else { 256 << 10 };
            let least = if read && !staged { 2 << 20 } else { 0 };
            assert!((least..most).contains(&taken.peak), "read: {read}, staged: {staged}: {taken:?}");
        }
        engine.free(at);
    }
    emulator.assert_no_fault();
}
