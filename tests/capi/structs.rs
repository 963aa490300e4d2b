//! Structs of programs that are older or newer than the library, at every function that takes some: what a program does not
//! have is not touched, what the library does not know is refused in options and cleared in what it fills in, and where the
//! size is no size nothing is read or written. The table is held against the header.
#![cfg(target_os = "linux")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all: the memory below is larger than any size given"
)]

use crate::support;

use df11::internals::capi::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};
use support::abi::{Struct, init, text};
use support::engine::Emulator;
use support::golden;

/// The largest size that any struct may have.
const MOST: usize = 4096;
/// What lies where nothing is to be written.
const FILL: u8 = 0xa5;

thread_local! {
    /// The structs that were tried.
    static TRIED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Memory that begins with a struct of some size, and what a call did to it.
fn with_size<T: Struct>(
    value: &T,
    size: usize,
    fill: u8,
    call: impl FnOnce(*mut T) -> df11_status,
) -> (df11_status, Vec<u8>) {
    let mut words = vec![0u64; 2 * MOST / 8];
    let memory = words.as_mut_ptr().cast::<u8>();
    unsafe {
        memory.write_bytes(fill, 2 * MOST);
        memory.copy_from((&raw const *value).cast(), size_of::<T>());
        memory.cast::<usize>().write(size);
        let status = call(memory.cast());
        (status, std::slice::from_raw_parts(memory, 2 * MOST).to_vec())
    }
}

/// Sizes that no struct has: smaller than the first version's, or larger than any will be.
fn no_sizes(first: usize) -> [usize; 6] {
    [0, 8, first - 1, MOST + 1, 1 << 32, usize::MAX]
}

/// Options whose first version had `first` bytes. `call` must succeed with `value`.
fn options<T: Struct>(value: T, first: usize, call: impl Fn(*mut T) -> df11_status) {
    TRIED.with_borrow_mut(|tried| tried.insert(T::NAME));
    let now = size_of::<T>();
    assert!(first <= now);
    for size in no_sizes(first) {
        let (status, _) = with_size(&value, size, 0, &call);
        assert_eq!(status, DF11_INVALID_ARGUMENT, "{} of {size} bytes", T::NAME);
    }
    // An older program has something else behind its struct: that is no option.
    let (status, _) = with_size(&value, first, 0, |at| unsafe {
        at.cast::<u8>().add(first).write_bytes(FILL, MOST - first);
        call(at)
    });
    assert_eq!(status, DF11_OK, "{} of the first version", T::NAME);
    for size in [now, now + 1, now + 8, MOST] {
        let (status, _) = with_size(&value, size, 0, |at| unsafe {
            at.cast::<u8>().add(size).write_bytes(FILL, MOST);
            call(at)
        });
        assert_eq!(status, DF11_OK, "{} of {size} bytes, zeros where it is new", T::NAME);
        for set in [now, size.wrapping_sub(1)].into_iter().filter(|&set| set >= now && set < size) {
            let (status, _) = with_size(&value, size, 0, |at| unsafe {
                at.cast::<u8>().add(set).write(1);
                call(at)
            });
            assert_eq!(status, DF11_UNSUPPORTED_OPTION, "{} of {size} bytes with byte {set}", T::NAME);
        }
    }
}

/// What the library fills in, whose first version had `first` bytes: `good` succeeds, and `bad` fails for another reason.
fn filled<T: Struct>(first: usize, good: impl Fn(*mut T) -> df11_status, bad: impl Fn(*mut T) -> df11_status) {
    TRIED.with_borrow_mut(|tried| tried.insert(T::NAME));
    let (now, value) = (size_of::<T>(), unsafe { std::mem::MaybeUninit::<T>::zeroed().assume_init() });
    for size in no_sizes(first) {
        for call in [&good as &dyn Fn(*mut T) -> df11_status, &bad] {
            let (status, after) = with_size(&value, size, FILL, |at| unsafe {
                at.cast::<u8>().add(8).write_bytes(FILL, 64);
                call(at)
            });
            assert_eq!(status, DF11_INVALID_ARGUMENT, "{} of {size} bytes", T::NAME);
            assert!(after[8..72].iter().all(|&b| b == FILL), "{} of {size} bytes is written to", T::NAME);
            assert!(after[now..].iter().all(|&b| b == FILL), "{} of {size} bytes is written behind", T::NAME);
        }
    }
    let fill = |at: *mut T| unsafe { at.cast::<u8>().add(8).write_bytes(FILL, 2 * MOST - 8) };
    let (status, whole) = with_size(&value, now, FILL, |at| {
        fill(at);
        good(at)
    });
    assert_eq!(status, DF11_OK, "{}", T::NAME);
    for size in [first, now, now + 1, now + 8, MOST] {
        let (status, after) = with_size(&value, size, FILL, |at| {
            fill(at);
            good(at)
        });
        let known = size.min(now);
        assert_eq!(status, DF11_OK, "{} of {size} bytes", T::NAME);
        assert_eq!(after[..8], size.to_ne_bytes(), "{} of {size} bytes", T::NAME);
        assert!(after[8..known] == whole[8..known], "{} of {size} bytes: other values", T::NAME);
        assert!(after[known..size].iter().all(|&b| b == 0), "{} of {size} bytes: what is new is not cleared", T::NAME);
        assert!(after[size..].iter().all(|&b| b == FILL), "{} of {size} bytes is written behind", T::NAME);
        let (status, after) = with_size(&value, size, FILL, |at| {
            fill(at);
            bad(at)
        });
        assert_ne!(status, DF11_OK, "{} of {size} bytes", T::NAME);
        assert!(after[8..size].iter().all(|&b| b == 0), "{} of {size} bytes after an error", T::NAME);
        assert!(
            after[size..].iter().all(|&b| b == FILL),
            "{} of {size} bytes is written behind after an error",
            T::NAME
        );
    }
}

/// Every struct of the header that begins with its size.
fn structs_of_the_header() -> BTreeSet<String> {
    let header = support::abi::headers();
    let structs = header.split("typedef struct ").skip(1).filter(|text| {
        let body = text.split('}').next().unwrap();
        body.contains("size_t struct_size;")
    });
    structs.map(|text| text.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_struct_of_every_age() {
    let golden_path = text(&golden::model("sharded"));
    let path = golden_path.as_ptr();
    let file = std::fs::read(golden::model("tiny").join("model.safetensors")).unwrap();
    let mut model = null_mut();
    unsafe { assert_eq!(df11_model_open(path, null(), &mut model, null_mut()), 0) };

    // What describes models and presets.
    let opened = |status, model| unsafe {
        df11_model_free(model);
        status
    };
    options(init(), 24, |at: *mut df11_open_options| {
        let mut model = null_mut();
        opened(unsafe { df11_model_open(path, at, &mut model, null_mut()) }, model)
    });
    options(init(), 24, |at: *mut df11_open_options| {
        let (mut model, data) = (null_mut(), file.as_ptr().cast());
        opened(unsafe { df11_model_open_memory(data, file.len(), at, &mut model, null_mut()) }, model)
    });
    let group_info =
        |group| move |at: *mut df11_group_info| unsafe { df11_model_get_group_info(model, group, at, null_mut()) };
    filled(48, group_info(1), group_info(99));
    let tensor_info =
        |tensor| move |at: *mut df11_tensor_info| unsafe { df11_model_get_tensor_info(model, tensor, at, null_mut()) };
    filled(96, tensor_info(1), tensor_info(u64::MAX));
    let tensor_run =
        |run| move |at: *mut df11_run_info| unsafe { df11_model_get_tensor_run(model, 1, run, at, null_mut()) };
    filled(48, tensor_run(0), tensor_run(1));
    let group_run =
        |run| move |at: *mut df11_run_info| unsafe { df11_model_get_group_run(model, 1, run, at, null_mut()) };
    filled(48, group_run(0), group_run(1024));
    let part_info =
        |part| move |at: *mut df11_part_info| unsafe { df11_model_get_group_part(model, 1, part, at, null_mut()) };
    filled(40, part_info(2), part_info(6));
    matrices();
    let preset = |number| move |at: *mut df11_preset_info| unsafe { df11_preset_get_info(number, at, null_mut()) };
    filled(24, preset(3), preset(100_000));

    devices(model);

    planning(path);
    verifying_and_writing();
    rewriting();
    packing();
    unsafe { df11_model_free(model) };
    let tried = TRIED.with_borrow(|tried| tried.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    assert_eq!(tried, structs_of_the_header(), "the structs that were tried, and those of the header");
}

fn matrices() {
    #[repr(C, align(64))]
    struct Memory([u8; 4096]);
    let (mut memory, mut bytes, mut matrix) = (Memory([0; 4096]), 0, null_mut());
    let (weights, at) = ([0x3f80u16; 192], (&raw mut memory).cast());
    unsafe {
        assert_eq!(df11_matrix_write(weights.as_ptr(), 3, 64, at, 4096, 1, null_mut(), &mut bytes, null_mut()), 0);
        assert_eq!(df11_matrix_bind(at, bytes as usize, &mut matrix, null_mut()), 0);
    }
    let info = |matrix| move |at: *mut df11_matrix_info| unsafe { df11_matrix_get_info(matrix, at, null_mut()) };
    filled(40, info(matrix), info(null_mut()));
    unsafe { df11_matrix_free(matrix) };
}

fn planning(path: *const std::ffi::c_char) {
    let planned = |at: *const df11_plan_options| {
        let mut plan = null_mut();
        let status = unsafe { df11_plan_model(path, at, &mut plan, null_mut()) };
        (status, plan)
    };
    options(init(), 88, |at: *mut df11_plan_options| {
        let (status, plan) = planned(at);
        unsafe { df11_plan_free(plan) };
        status
    });
    let (status, plan) = planned(null());
    assert_eq!(status, 0);
    let nothing = null::<df11_plan>();
    let info = |plan| move |at: *mut df11_plan_info| unsafe { df11_plan_get_info(plan, at, null_mut()) };
    filled(136, info(plan.cast_const()), info(nothing));
    let group =
        |group| move |at: *mut df11_plan_group_info| unsafe { df11_plan_get_group_info(plan, group, at, null_mut()) };
    filled(64, group(1), group(99));
    let share = |device| {
        move |at: *mut df11_plan_share_info| unsafe {
            df11_plan_get_share_info(plan, DF11_SPLIT_LAYERS, 2, device, at, null_mut())
        }
    };
    filled(56, share(1), share(2));
    unsafe { df11_plan_free(plan) };
}

fn devices(model: *mut df11_model) {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let libcuda = text(emulator.path());
    let (mut device, mut resident) = (null_mut(), null_mut());
    let value = df11_device_options { libcuda: libcuda.as_ptr(), ..init() };
    let opened = |status, device| unsafe {
        df11_device_free(device);
        status
    };
    options(value, 24, |at| {
        let mut device = null_mut();
        opened(unsafe { df11_device_open(0, at, &mut device, null_mut()) }, device)
    });
    options(value, 24, |at| {
        let mut device = null_mut();
        engine.enter();
        opened(unsafe { df11_device_open_current(at, &mut device, null_mut()) }, device)
    });
    let mut group: df11_group_info = init();
    unsafe {
        assert_eq!(df11_device_open(0, &value, &mut device, null_mut()), 0);
        assert_eq!(df11_model_get_group_info(model, 0, &mut group, null_mut()), 0);
    }
    let (bytes, mut image) = (group.image_bytes as usize, vec![0u8; group.image_bytes as usize]);
    let at_device = engine.alloc(group.image_bytes);
    unsafe {
        assert_eq!(df11_model_write_image(model, 0, image.as_mut_ptr().cast(), bytes, null_mut()), 0);
        assert_eq!(df11_device_bind(device, model, 0, at_device, bytes, &mut resident, null_mut()), 0);
    }
    let device_info = |device| move |at: *mut df11_device_info| unsafe { df11_device_get_info(device, at, null_mut()) };
    filled(56, device_info(device), device_info(null_mut()));
    let image: &[u8] = &image;
    let image_info = |bytes| {
        move |at: *mut df11_image_info| unsafe { df11_image_get_info(image.as_ptr().cast(), bytes, at, null_mut()) }
    };
    filled(80, image_info(bytes), image_info(100));
    let about =
        |resident| move |at: *mut df11_resident_info| unsafe { df11_resident_get_info(resident, at, null_mut()) };
    filled(96, about(resident), about(null_mut()));
    products(&engine, model, device);
    unsafe {
        df11_resident_free(resident);
        df11_device_free(device);
    }
}

/// What products share.
fn products(engine: &support::engine::Engine, model: *mut df11_model, device: *mut df11_device) {
    let (mut plan, mut info, mut resident) = (null_mut(), init::<df11_image_info>(), null_mut());
    let mut image;
    unsafe {
        assert_eq!(df11_model_plan_linear_image(model, 0, null(), 0, 1, null_mut(), &mut plan, null_mut()), 0);
        assert_eq!(df11_linear_plan_get_image_info(plan, &mut info, null_mut()), 0);
        image = vec![0u8; info.image_bytes as usize];
        let (at, bytes) = (image.as_mut_ptr().cast(), image.len());
        assert_eq!(df11_linear_plan_write_image(plan, at, bytes, 1, null_mut(), null_mut()), 0);
        df11_linear_plan_free(plan);
        let (head, at) = (image.as_ptr().cast(), engine.alloc(info.image_bytes));
        assert_eq!(df11_device_bind_image(device, head, bytes, at, bytes, &mut resident, null_mut()), 0);
    }
    let head = df11::internals::cuda::image::linear::LinearHead::parse(&image).unwrap();
    let (row_count, column_count) = (head.tensors()[0].rows, head.tensors()[0].columns);
    let matrix = df11_linear_matrix {
        resident,
        tensor: 0,
        tensor_step: 0,
        row_count,
        column_count,
        d_y: 0,
        y_stride: 0,
        y_step: 0,
    };
    let value = df11_linear_options { vector_count: 1, y_dtype: DF11_DTYPE_F32, ..init() };
    let query = |at: *mut df11_linear_options| {
        let mut bytes = 0;
        unsafe { df11_linear_get_workspace(&matrix, 1, at, &mut bytes, null_mut()) }
    };
    options(value, 88, query);
    unsafe { df11_resident_free(resident) };
}

/// Options that say where a report goes, and the report: it is cleared whatever the options have that is not known, and left
/// alone where it cannot be known to be one.
fn verifying_and_writing() {
    let model = text(&golden::model("tiny"));
    let verify = |at: *const df11_verify_options| unsafe { df11_verify_model(model.as_ptr(), null(), at, null_mut()) };
    options(init(), 88, |at: *mut df11_verify_options| verify(at));
    let nowhere = CString::new("/nowhere/at all").unwrap();
    let report = |path: &CString, report| {
        let options = df11_verify_options { report, ..init() };
        unsafe { df11_verify_model(path.as_ptr(), null(), &options, null_mut()) }
    };
    filled(72, |at| report(&model, at), |at| report(&nowhere, at));
    let mut numbers = df11_verify_report { groups_good: 7, ..init() };
    let value = df11_verify_options { report: &mut numbers, ..init() };
    let unknown = |at: *mut df11_verify_options| unsafe {
        at.cast::<u8>().add(size_of::<df11_verify_options>()).write(1);
        verify(at)
    };
    assert_eq!(with_size(&value, 96, 0, unknown).0, DF11_UNSUPPORTED_OPTION);
    assert_eq!(numbers.groups_good, 0, "an error, and the report of before");
    numbers.groups_good = 7;
    assert_eq!(with_size(&value, 87, 0, |at| verify(at)).0, DF11_INVALID_ARGUMENT);
    assert_eq!(numbers.groups_good, 7, "a struct of no size is read");

    let (scratch, made) = (tempfile::tempdir().unwrap(), std::cell::Cell::new(0));
    let source = text(&golden::path("tiny/original.safetensors"));
    let compress = |at: *const df11_compress_options| {
        made.set(made.get() + 1);
        let to = text(&scratch.path().join(made.get().to_string()));
        unsafe { df11_compress_model(source.as_ptr(), to.as_ptr(), at, null_mut()) }
    };
    let value = df11_compress_options { pattern_json: c"{\"linear\": []}".as_ptr(), ..init() };
    options(value, 96, |at| compress(at));
    let report = |patterns: *const std::ffi::c_char, report| {
        compress(&df11_compress_options { pattern_json: patterns, report, ..init() })
    };
    filled(208, |at| report(value.pattern_json, at), |at| report(c"no JSON".as_ptr(), at));
    let mut numbers = df11_compress_report { groups: 7, ..init() };
    let value = df11_compress_options { report: &mut numbers, ..value };
    let unknown = |at: *mut df11_compress_options| unsafe {
        at.cast::<u8>().add(size_of::<df11_compress_options>()).write(1);
        compress(at)
    };
    assert_eq!(with_size(&value, 104, 0, unknown).0, DF11_UNSUPPORTED_OPTION);
    assert_eq!(numbers.groups, 0, "an error, and the report of before");
    // Merging reads the same options in the same way.
    numbers.groups = 7;
    let unknown = |at: *mut df11_compress_options| unsafe {
        at.cast::<u8>().add(size_of::<df11_compress_options>()).write(1);
        df11_merge_model(source.as_ptr(), source.as_ptr(), at, null_mut())
    };
    assert_eq!(with_size(&value, 104, 0, unknown).0, DF11_UNSUPPORTED_OPTION);
    assert_eq!(numbers.groups, 0, "an error, and the report of before");
}

/// Options and reports of models in another form.
fn rewriting() {
    let (scratch, made) = (tempfile::tempdir().unwrap(), std::cell::Cell::new(0));
    let model = text(&golden::model("tiny"));
    let nowhere = CString::new("/nowhere/at all").unwrap();
    let to = || {
        made.set(made.get() + 1);
        text(&scratch.path().join(made.get().to_string()))
    };
    let decompress = |at: *const df11_decompress_options| unsafe {
        df11_decompress_model(model.as_ptr(), to().as_ptr(), at, null_mut())
    };
    let flat = df11_decompress_options { flags: DF11_DECOMPRESS_FLAT, ..init() };
    options(flat, 112, |at| decompress(at));
    let report = |path: &CString, report| {
        let options = df11_decompress_options { report, ..flat };
        unsafe { df11_decompress_model(path.as_ptr(), to().as_ptr(), &options, null_mut()) }
    };
    filled(56, |at| report(&model, at), |at| report(&nowhere, at));
    let mut numbers = df11_decompress_report { tensor_count: 7, ..init() };
    let value = df11_decompress_options { report: &mut numbers, ..flat };
    let unknown = |at: *mut df11_decompress_options| unsafe {
        at.cast::<u8>().add(size_of::<df11_decompress_options>()).write(1);
        decompress(at)
    };
    assert_eq!(with_size(&value, 120, 0, unknown).0, DF11_UNSUPPORTED_OPTION);
    assert_eq!(numbers.tensor_count, 0, "an error, and the report of before");

    let repack =
        |at: *const df11_repack_options| unsafe { df11_repack_model(model.as_ptr(), to().as_ptr(), at, null_mut()) };
    options(init(), 72, |at: *mut df11_repack_options| repack(at));
    let report = |path: &CString, report| {
        let options = df11_repack_options { report, ..init() };
        unsafe { df11_repack_model(path.as_ptr(), to().as_ptr(), &options, null_mut()) }
    };
    filled(40, |at| report(&model, at), |at| report(&nowhere, at));
    let mut numbers = df11_repack_report { group_count: 7, ..init() };
    let value = df11_repack_options { report: &mut numbers, ..init() };
    let unknown = |at: *mut df11_repack_options| unsafe {
        at.cast::<u8>().add(size_of::<df11_repack_options>()).write(1);
        repack(at)
    };
    assert_eq!(with_size(&value, 80, 0, unknown).0, DF11_UNSUPPORTED_OPTION);
    assert_eq!(numbers.group_count, 0, "an error, and the report of before");
}

/// The struct that is both read and filled in.
fn packing() {
    let weights = support::weights::trained_like(5000, 1);
    let (tensor, count) = (weights.as_ptr().cast::<c_void>(), weights.len() as u64);
    let pack = |at: *mut df11_packed_group| unsafe { df11_compress_group(&tensor, &count, 1, 1, at, null_mut()) };
    let bound = |at: *mut df11_packed_group| unsafe { df11_compress_bound(&count, 1, at, null_mut()) };
    for call in [&pack as &dyn Fn(*mut df11_packed_group) -> df11_status, &bound] {
        options(init(), 104, call);
        let before = df11_packed_group { gaps_bytes: 7, luts_bytes: 7, ..init() };
        let sizes = |after: &[u8]| {
            let number = |at: usize| usize::from_ne_bytes(after[at..at + 8].try_into().unwrap());
            (number(16), number(80))
        };
        let (status, after) = with_size(&before, 112, 0, |at| unsafe {
            at.cast::<u8>().add(111).write(1);
            call(at)
        });
        assert_eq!((status, sizes(&after), after[111]), (DF11_UNSUPPORTED_OPTION, (0, 0), 1));
        let (status, after) = with_size(&before, 96, FILL, call);
        assert_eq!((status, sizes(&after)), (DF11_INVALID_ARGUMENT, (7, 7)));
        let (status, after) = with_size(&init(), 104, FILL, call);
        assert!(status == 0 && sizes(&after).0 > 0 && after[104..].iter().all(|&b| b == FILL));
    }
}
