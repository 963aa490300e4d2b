//! A Rust engine that owns contexts, streams and memory through cudarc, and decodes with its types.
//!
//! cudarc finds the driver by its name alone, so the work is done in a second process, whose search path leads to the
//! emulator.
#![cfg(target_os = "linux")]

use crate::support;

use cudarc::driver::CudaContext;
use df11::internals::cuda::{Device, DeviceOptions, image::ImageLayout};
use df11::{DecodeOptions, Model, OpenOptions};
use half::bf16;
use std::process::Command;
use support::{engine, golden};

/// Set in the second process.
const SECOND: &str = "DF11_TEST_SECOND_PROCESS";

#[test]
fn an_engine_of_cudarc_decodes() {
    if std::env::var_os(SECOND).is_some() {
        return as_an_engine();
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(engine::library(), folder.path().join(name)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cudarc_engine::an_engine_of_cudarc_decodes", "--nocapture"])
        .env(SECOND, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .env_remove("DF11_LIBCUDA")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

fn as_an_engine() {
    let context = CudaContext::new(0).unwrap();
    let (copies, decodes) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    // The driver is found by its usual name, as cudarc found it.
    let device = Device::of_cudarc(&context, &DeviceOptions::default()).unwrap();
    assert_eq!(device.info().libcuda, "libcuda.so.1");
    let model = Model::open(golden::model("sharded"), &OpenOptions::default()).unwrap();
    for group in model.groups() {
        let layout = ImageLayout::of(group).unwrap();
        let mut image = copies.alloc_zeros::<u8>(layout.image_bytes as usize).unwrap();
        let address = {
            use cudarc::driver::DevicePtrMut;
            image.device_ptr_mut(&copies).0
        };
        // SAFETY: image, model and streams live until the decode was waited for.
        let resident = unsafe { device.upload(group, address, layout.image_bytes, (&*copies).into(), None) }.unwrap();
        decodes.join(&copies).unwrap();
        let n = group.element_count();
        let mut want = vec![bf16::ZERO; n as usize];
        group.decompress(0, &mut want, &DecodeOptions::default()).unwrap();
        // cudarc knows bf16 with its feature f16 only; the same bits otherwise.
        let mut whole = decodes.alloc_zeros::<u16>(n as usize).unwrap();
        // SAFETY: every bit pattern is one of both types; for the rest, as above.
        unsafe {
            let mut view = whole.transmute_mut::<bf16>(n as usize).unwrap();
            resident.decompress_into(0, &mut view, &decodes).unwrap();
        }
        assert!(decodes.clone_dtoh(&whole).unwrap() == bits(&want));
        let half = n / 2;
        // SAFETY: as above.
        unsafe {
            let mut view = whole.transmute_mut::<bf16>((n - half) as usize).unwrap();
            resident.decompress_into(half, &mut view, &decodes).unwrap();
        }
        let all = decodes.clone_dtoh(&whole).unwrap();
        assert!(all[..(n - half) as usize] == bits(&want)[half as usize..]);
        // A slice that is longer than what is left is refused before anything is touched.
        // SAFETY: as above.
        unsafe {
            let mut view = whole.transmute_mut::<bf16>(n as usize).unwrap();
            resident.decompress_into(1, &mut view, &decodes).unwrap_err();
        }
        decodes.synchronize().unwrap();
    }
}

fn bits(weights: &[bf16]) -> Vec<u16> {
    weights.iter().map(|w| w.to_bits()).collect()
}
