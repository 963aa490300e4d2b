//! No memory left: whichever allocation of a call fails, it returns an error and the process goes on. That holds for every
//! allocation whose size a file or a caller decides; where a small one fails, Rust's runtime ends the process, as SECURITY.md
//! says, so allocations below [`LEAST`] are not tried.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::capi::{
    df11_compress_group, df11_compress_model, df11_compress_options, df11_linear_plan_free,
    df11_linear_plan_write_image, df11_model, df11_model_decompress, df11_model_free, df11_model_make_shard,
    df11_model_open, df11_model_plan_linear_image, df11_model_read_tensor, df11_model_write_image, df11_open_options,
    df11_packed_group, df11_shard_free, df11_shard_write_image, df11_slice, df11_status, df11_verify_model,
};
use df11::{Model, OpenOptions, Status};
use std::ffi::CString;
use std::path::Path;
use std::ptr::{null, null_mut};
use support::abi::text;
use support::alloc;
use support::alone::alone;
use support::{golden, weights};

/// Bytes. What the library allocates beyond this has a size that a model or a caller decides.
const LEAST: usize = 32 << 10;

/// How a call ended in which an allocation failed.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// There was no such allocation.
    Complete,
    /// With DF11_OUT_OF_MEMORY.
    Refused,
    /// With DF11_OK: it did with less.
    Good,
    /// With another error.
    Wrong,
    /// The process died of this signal.
    Died(i32),
}

/// Runs a call in a process of its own, in which the `nth` large allocation fails.
fn with_failure(nth: usize, call: &dyn Fn() -> df11_status) -> End {
    // SAFETY: this test is alone in its process, so that no other thread holds a lock at the fork; the child ends by _exit,
    // without running what the test harness would at its end.
    unsafe {
        match libc::fork() {
            0 => {
                alloc::fail(nth, LEAST);
                let status = call();
                let failed = alloc::has_failed();
                alloc::fail(0, LEAST);
                libc::_exit(match (failed, status) {
                    (false, 0) => 0,
                    (true, s) if s == Status::OutOfMemory as i32 => 1,
                    (true, 0) => 2,
                    _ => 3,
                })
            }
            child => {
                let mut how = 0;
                assert_eq!(libc::waitpid(child, &mut how, 0), child);
                match (libc::WIFSIGNALED(how), libc::WEXITSTATUS(how)) {
                    (true, _) => End::Died(libc::WTERMSIG(how)),
                    (_, 0) => End::Complete,
                    (_, 1) => End::Refused,
                    (_, 2) => End::Good,
                    _ => End::Wrong,
                }
            }
        }
    }
}

fn open(path: &CString, read: bool) -> *mut df11_model {
    let options = df11_open_options {
        struct_size: size_of::<df11_open_options>(),
        // DF11_OPEN_READ
        flags: if read { 2 } else { 0 },
        threads: 0,
        config_json: null(),
        progress: null_mut(),
        shapes_from: std::ptr::null(),
        shapes_json: std::ptr::null(),
    };
    let mut model = null_mut();
    // SAFETY: a text, options and a place for the model.
    unsafe { df11_model_open(path.as_ptr(), &options, &mut model, null_mut()) };
    model
}

#[test]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "all for one reason: texts that end, models that live, and memory as large as it is said to be"
)]
fn every_large_allocation_may_fail() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let (path, original) = (text(&golden::model("block")), text(&golden::path("block/original.safetensors")));
    let group_bytes =
        2 * Model::open(golden::model("block"), &OpenOptions::default()).unwrap().group(0).unwrap().element_count();
    let weights = weights::trained_like(300_000, 1);
    let (mapped, read) = (open(&path, false), open(&path, true));
    assert!(!mapped.is_null() && !read.is_null());
    let (mut room, mut image) = (vec![0u16; group_bytes as usize / 2], vec![0u8; 8 << 20]);
    let (room, image) = (room.as_mut_ptr(), image.as_mut_ptr());
    let destination = text(&folder.path().join("model"));
    let config = CString::new(std::fs::read(golden::model("block").join("config.json")).unwrap()).unwrap();
    let source = text(&{
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::copy(golden::path("block/original.safetensors"), source.join("model.safetensors")).unwrap();
        source
    });
    let members: Vec<Vec<u8>> = (0..6).map(|_| vec![0; 1 << 20]).collect();

    let decode = |model| unsafe {
        df11_model_decompress(model, 0, 0, group_bytes / 2, room.cast(), group_bytes as usize, 2, null_mut())
    };
    let write_image = |model| unsafe {
        let block = Model::open(golden::model("block"), &OpenOptions::default()).unwrap();
        let bytes = block.group(0).unwrap().image_layout().unwrap().image_bytes;
        df11_model_write_image(model, 0, image.cast(), bytes as usize, null_mut())
    };
    let shard = |model| unsafe {
        let slice = df11_slice { tensor: 0, first: 3, run_elements: 40, run_stride: 64, run_count: 100 };
        let mut shard = null_mut();
        let status = df11_model_make_shard(model, 0, &slice, 1, 2, null_mut(), &mut shard, null_mut());
        if status != 0 {
            return status;
        }
        let status = df11_shard_write_image(shard, image.cast(), 8 << 20, 2, null_mut(), null_mut());
        df11_shard_free(shard);
        status
    };
    let linear = |model| unsafe {
        let mut plan = null_mut();
        let status = df11_model_plan_linear_image(model, 0, null(), 0, 2, null_mut(), &mut plan, null_mut());
        if status != 0 {
            return status;
        }
        let status = df11_linear_plan_write_image(plan, image.cast(), 8 << 20, 2, null_mut(), null_mut());
        df11_linear_plan_free(plan);
        status
    };
    let calls: [(&str, &dyn Fn() -> df11_status); 13] = [
        ("open", &|| unsafe {
            let mut model = null_mut();
            let status = df11_model_open(path.as_ptr(), null(), &mut model, null_mut());
            df11_model_free(model);
            status
        }),
        ("decompress a mapped file", &|| decode(mapped)),
        ("decompress a file that is read", &|| decode(read)),
        ("read a tensor", &|| unsafe { df11_model_read_tensor(read, 0, 0, room.cast(), 4096, 1, null_mut()) }),
        ("write an image", &|| write_image(mapped)),
        ("write an image of a file that is read", &|| write_image(read)),
        ("make a shard", &|| shard(mapped)),
        ("make a shard of a file that is read", &|| shard(read)),
        ("make a linear image", &|| linear(mapped)),
        ("make a linear image of a file that is read", &|| linear(read)),
        ("verify", &|| unsafe { df11_verify_model(path.as_ptr(), original.as_ptr(), null(), null_mut()) }),
        ("compress a group", &|| unsafe {
            let at = |i: usize| members[i].as_ptr().cast_mut().cast();
            let mut io: df11_packed_group = std::mem::zeroed();
            io.struct_size = size_of::<df11_packed_group>();
            (io.luts, io.encoded_exponent, io.sign_mantissa) = (at(0), at(1), at(2));
            (io.output_positions, io.gaps, io.split_positions) = (at(3), at(4), at(5));
            io.luts_bytes = 1 << 20;
            io.encoded_exponent_bytes = 1 << 20;
            io.sign_mantissa_bytes = 1 << 20;
            io.output_positions_bytes = 1 << 20;
            io.gaps_bytes = 1 << 20;
            io.split_positions_bytes = 1 << 20;
            let (tensor, count) = (weights.as_ptr().cast(), weights.len() as u64);
            df11_compress_group(&tensor, &count, 1, 2, &mut io, null_mut())
        }),
        ("compress a model", &|| unsafe {
            let mut options: df11_compress_options = std::mem::zeroed();
            options.struct_size = size_of::<df11_compress_options>();
            options.pattern_json = config.as_ptr();
            options.threads = 2;
            // What a run before left, that was refused in the middle.
            let _ = std::fs::remove_dir_all(Path::new(destination.to_str().unwrap()));
            df11_compress_model(source.as_ptr(), destination.as_ptr(), &options, null_mut())
        }),
    ];
    let mut wrong = Vec::new();
    for (what, call) in calls {
        for nth in 1.. {
            match with_failure(nth, call) {
                End::Complete => {
                    println!("{what}: {} large allocations", nth - 1);
                    break;
                }
                End::Refused | End::Good => {}
                end => wrong.push(format!("{what}, large allocation {nth}: {end:?}")),
            }
            assert!(nth < 2_000, "{what} does not end");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // SAFETY: nobody uses them any more.
    unsafe {
        df11_model_free(mapped);
        df11_model_free(read);
    }
}
