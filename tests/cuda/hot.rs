//! The hot path's promise: a decode allocates nothing on the host, and calls nothing of the driver but what it must.
//!
//! The allocator counts for the whole process, so the test runs in one of its own.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::capi::{
    df11_device, df11_device_bind, df11_device_free, df11_device_open, df11_device_options, df11_model,
    df11_model_free, df11_model_open, df11_resident, df11_resident_decompress, df11_resident_decompress_batch,
    df11_resident_decompress_range, df11_resident_decompress_tensors, df11_resident_free,
};
use df11::internals::cuda::{self, Resident, image::ImageLayout};
use df11::{Model, OpenOptions};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr;
use support::alloc::taken;
use support::alone::alone;
use support::engine::{self, Emulator};
use support::golden;

/// Makes a resident of the C ABI, with its model and its device, of an image that is there already.
fn through_c(emulator: &Emulator, image: u64, bytes: u64) -> (*mut df11_model, *mut df11_device, *mut df11_resident) {
    let text = |path: &std::path::Path| CString::new(path.to_str().unwrap()).unwrap();
    let (path, libcuda) = (text(&golden::model("sharded")), text(emulator.path()));
    let (mut model, mut device, mut resident) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let options = df11_device_options {
        struct_size: size_of::<df11_device_options>(),
        flags: 0,
        multiprocessors: 0,
        libcuda: libcuda.as_ptr(),
    };
    let none = ptr::null_mut();
    // SAFETY: pointers and sizes are right, and the memory outlives the handles.
    unsafe {
        assert_eq!(df11_model_open(path.as_ptr(), ptr::null(), &mut model, none), 0);
        assert_eq!(df11_device_open(0, &options, &mut device, none), 0);
        assert_eq!(df11_device_bind(device, model, 0, image, bytes as usize, &mut resident, none), 0);
    }
    (model, device, resident)
}

#[test]
fn a_decode_allocates_nothing_and_only_launches() {
    alone!();
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let model = Model::open(golden::model("sharded"), &OpenOptions::default()).unwrap();
    let layout = ImageLayout::of(model.group(0).unwrap()).unwrap();
    let (image, dst) = (engine.alloc(layout.image_bytes), engine.alloc(2 * layout.weights + 1024));
    // SAFETY: all memory outlives the stream's work.
    let resident = unsafe { device.upload(model.group(0).unwrap(), image, layout.image_bytes, stream, None) }.unwrap();
    engine.synchronise(stream);
    let whole = 2 * layout.weights;
    let ends = resident.ends();
    let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).take(ends.len()).collect();
    // Two bytes apart, so that no two are one.
    let dsts: Vec<u64> = starts.iter().enumerate().map(|(i, start)| dst + 2 * start + 2 * i as u64).collect();
    let bytes: Vec<u64> = ends.iter().zip(&starts).map(|(end, start)| 2 * (end - start)).collect();
    let residents: Vec<&Resident> = vec![&resident; 33];
    let (many_dsts, many_bytes) = (vec![dst; 33], vec![whole; 33]);

    let expect = |launches: u64| -> BTreeMap<String, u64> {
        [("cuCtxPushCurrent_v2", 1), ("cuStreamGetCtx_v2", 1), ("cuLaunchKernel", launches), ("cuCtxPopCurrent_v2", 1)]
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    };
    for capturing in [false, true] {
        if capturing {
            engine.begin_capture(stream, 0);
        }
        engine::leave(&emulator);
        let check = |what: &str, launches: u64, work: &dyn Fn() -> df11::Result<()>| {
            // The first call on a thread may make what the thread keeps.
            let ((result, memory), calls) = emulator.calls_of(|| taken(work));
            result.unwrap();
            assert_eq!(calls, expect(launches), "{what}");
            assert_eq!(memory.total, 0, "{what} allocated {} bytes of host memory", memory.total);
            assert_eq!(engine::current(&emulator), 0, "{what}");
        };
        // SAFETY: as above.
        unsafe {
            check("decompress", 1, &|| resident.decompress(dst, whole, 0, stream));
            check("range", 1, &|| resident.decompress_range(5, 999, dst, 2000, 0, stream));
            check("tensors", 1, &|| resident.decompress_tensors(&dsts, &bytes, 0, stream));
            check("batch", 2, &|| cuda::decompress_batch(&residents, &many_dsts, &many_bytes, 0, stream));
        }
        if capturing {
            let exec = engine.end_capture(stream).unwrap();
            engine.destroy_graph(exec);
        }
    }
    engine.synchronise(stream);

    // The same through the C ABI.
    let (c_model, c_device, c_resident) = through_c(&emulator, image, layout.image_bytes);
    engine::leave(&emulator);
    let handle = stream.raw().cast();
    let (list, no_error) = (vec![c_resident.cast_const(); 33], std::ptr::null_mut());
    let sizes = vec![whole as usize; 33];
    let dst_sizes: Vec<usize> = bytes.iter().map(|&b| b as usize).collect();
    // What each launches.
    type Call<'a> = &'a dyn Fn() -> i32;
    let work: [(u64, Call); 4] = [
        // SAFETY: as above.
        (1, &|| unsafe { df11_resident_decompress(c_resident, dst, whole as usize, 0, handle, no_error) }),
        // SAFETY: as above.
        (1, &|| unsafe { df11_resident_decompress_range(c_resident, 5, 999, dst, 2000, 0, handle, no_error) }),
        // SAFETY: as above.
        (1, &|| unsafe {
            let count = dsts.len();
            df11_resident_decompress_tensors(c_resident, dsts.as_ptr(), dst_sizes.as_ptr(), count, 0, handle, no_error)
        }),
        // SAFETY: as above.
        (2, &|| unsafe {
            df11_resident_decompress_batch(list.as_ptr(), many_dsts.as_ptr(), sizes.as_ptr(), 33, 0, handle, no_error)
        }),
    ];
    for (launches, work) in work {
        let ((status, memory), calls) = emulator.calls_of(|| taken(work));
        assert_eq!((status, memory.total, calls), (0, 0, expect(launches)));
    }
    engine.synchronise(stream);
    // SAFETY: nothing uses them any more.
    unsafe {
        df11_resident_free(c_resident);
        df11_device_free(c_device);
        df11_model_free(c_model);
    }
    emulator.assert_no_fault();
    // Closing and freeing: nothing that waits.
    let ((), calls) = emulator.calls_of(|| drop((resident, device)));
    let expected = ["cuDevicePrimaryCtxRelease_v2", "cuThreadExchangeStreamCaptureMode"];
    assert_eq!(calls.into_keys().collect::<Vec<_>>(), expected);
}
