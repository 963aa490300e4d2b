//! The C ABI and what is below it, called with memory alone, in sizes that an interpreter can bear: encode, open, decode, ranges,
//! images, hostile bytes. It is for Miri, which finds what no test can see: pointers without a right to what they reach, reads
//! of memory that nobody wrote, races.
//!
//! `cargo +nightly miri test --test miri` (`tests/deep.sh miri`). Everywhere else it is a test like others.

#[path = "../support/mod.rs"]
mod support;

use df11::Status;
use df11::internals::capi::*;
use df11::internals::huffman::naive;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use support::encoder::{self, Encoded};
use support::weights::{self, Random};

/// Calls a function of the C ABI with an error at the end; the status and the message.
macro_rules! call {
    ($function:ident ( $($argument:expr),* $(,)? )) => {{
        let mut error = df11_error { status: -1, native_code: -1, message: [1; 504] };
        // SAFETY: each call below gives what the header asks for; memory is as large as is said, and lives.
        let status = unsafe { $function($($argument,)* &mut error) };
        assert_eq!(status, error.status);
        status
    }};
}

macro_rules! zeroed {
    ($name:ident) => {{
        // SAFETY: numbers and pointers, which may be zero.
        let mut value: $name = unsafe { std::mem::zeroed() };
        value.struct_size = size_of::<$name>();
        value
    }};
}

/// Compresses two tensors by the C ABI into memory of exactly the size that it asks for.
fn pack(first: &[u16], second: &[u16], threads: u32) -> Encoded {
    let (counts, tensors) =
        ([first.len() as u64, second.len() as u64], [first.as_ptr().cast(), second.as_ptr().cast()]);
    let mut bound = zeroed!(df11_packed_group);
    assert_eq!(call!(df11_compress_bound(counts.as_ptr(), 2, &mut bound)), 0);
    let mut io = zeroed!(df11_packed_group);
    let sizes = call!(df11_compress_group(tensors.as_ptr(), counts.as_ptr(), 2, threads, &mut io));
    assert!(sizes == 0 && io.encoded_exponent_bytes <= bound.encoded_exponent_bytes);
    let mut encoded = Encoded {
        luts: vec![0; io.luts_bytes],
        encoded_exponent: vec![0; io.encoded_exponent_bytes],
        sign_mantissa: vec![0; io.sign_mantissa_bytes],
        output_positions: vec![0; io.output_positions_bytes],
        gaps: vec![0; io.gaps_bytes],
        split_positions: vec![0; io.split_positions_bytes / 8],
    };
    (io.luts, io.encoded_exponent) = (encoded.luts.as_mut_ptr().cast(), encoded.encoded_exponent.as_mut_ptr().cast());
    (io.sign_mantissa, io.gaps) = (encoded.sign_mantissa.as_mut_ptr().cast(), encoded.gaps.as_mut_ptr().cast());
    io.output_positions = encoded.output_positions.as_mut_ptr().cast();
    io.split_positions = encoded.split_positions.as_mut_ptr().cast();
    assert_eq!(call!(df11_compress_group(tensors.as_ptr(), counts.as_ptr(), 2, threads, &mut io)), 0);
    encoded
}

fn open(file: &[u8], flags: u32) -> Result<*mut df11_model, df11_status> {
    let mut options = zeroed!(df11_open_options);
    (options.flags, options.threads) = (flags, 2);
    let mut model = null_mut();
    let status = call!(df11_model_open_memory(file.as_ptr().cast(), file.len(), &options, &mut model));
    assert_eq!(status == 0, !model.is_null());
    if status == 0 { Ok(model) } else { Err(status) }
}

/// Decodes what there is in every way; what comes of it is the caller's to judge.
fn decode(model: *mut df11_model, first: u64, count: u64, threads: u32) -> Result<Vec<u16>, df11_status> {
    // Memory that nobody has written yet: the library must not read it.
    let mut weights = Vec::<u16>::with_capacity(count as usize);
    let dst: *mut c_void = weights.as_mut_ptr().cast();
    match call!(df11_model_decompress(model, 0, first, count, dst, 2 * count as usize, threads)) {
        0 => {
            // SAFETY: the call has written all of them.
            unsafe { weights.set_len(count as usize) };
            Ok(weights)
        }
        status => Err(status),
    }
}

#[test]
fn a_group_there_and_back() {
    let all = weights::trained_like(1500, 7);
    let (first, second) = all.split_at(900);
    let packed = pack(first, second, 1);
    assert_eq!(packed, pack(first, second, 2));
    assert_eq!(packed, encoder::encode(&all, &[900]), "the naive encoder writes other bytes");
    let file = encoder::safetensors(&encoder::group_tensors("layer", &packed), None);
    let rust = df11::Model::from_bytes(file.clone(), &Default::default()).unwrap();
    let naive = naive::decode(
        df11::internals::format::codes(rust.group(0).unwrap()),
        &packed.encoded_exponent,
        0,
        &packed.sign_mantissa,
    );
    assert!(naive.is_ok_and(|(weights, _)| weights == all), "the naive decoder says something else");
    for flags in [0, DF11_OPEN_VERIFY] {
        let model = open(&file, flags).unwrap();
        let mut group = zeroed!(df11_group_info);
        assert_eq!(call!(df11_model_get_group_info(model, 0, &mut group)), 0);
        assert_eq!((group.element_count, group.tensor_count), (1500, 2));
        assert_eq!(decode(model, 0, 1500, 2).unwrap(), all);
        for (from, count) in [(0, 0), (1499, 1), (899, 3)] {
            assert_eq!(decode(model, from, count, 2).unwrap(), all[from as usize..][..count as usize]);
        }
        assert_eq!(decode(model, 1500, 1, 1), Err(Status::InvalidArgument as i32));
        let mut tensor = zeroed!(df11_tensor_info);
        assert_eq!(call!(df11_model_get_tensor_info(model, 1, &mut tensor)), 0);
        assert_eq!((tensor.data_bytes, tensor.group_offset), (1200, 900));
        // As the header asks for: Miri lays bytes at odd addresses, too.
        let mut bits = [0u16; 10];
        assert_eq!(call!(df11_model_read_tensor(model, 1, 2, bits.as_mut_ptr().cast(), 20, 1)), 0);
        assert_eq!(bits.map(u16::from_le), second[1..11]);

        let mut image = Vec::<u8>::with_capacity(group.image_bytes as usize);
        let (dst, room) = (image.as_mut_ptr().cast::<c_void>(), group.image_bytes as usize);
        assert_eq!(call!(df11_model_write_image(model, 0, dst, room)), 0);
        // SAFETY: the call has written all of it.
        unsafe { image.set_len(room) };
        let mut info = zeroed!(df11_image_info);
        assert_eq!(call!(df11_image_get_info(image.as_ptr().cast(), room, &mut info)), 0);
        assert_eq!((info.element_count, info.image_bytes), (1500, room as u64));
        // SAFETY: an open model.
        unsafe { df11_model_free(model) };
    }
}

#[test]
fn a_model_on_several_threads() {
    /// A model, which any number of threads may use.
    struct Shared(*mut df11_model);
    // SAFETY: the header says so.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn get(&self) -> *mut df11_model {
            self.0
        }
    }
    let all = weights::trained_like(700, 8);
    let file = encoder::safetensors(&encoder::group_tensors("layer", &encoder::encode(&all, &[])), None);
    let model = Shared(open(&file, 0).unwrap());
    std::thread::scope(|scope| {
        for first in [0, 100, 400] {
            let (model, all) = (&model, &all);
            scope.spawn(move || assert_eq!(decode(model.get(), first, 300, 2).unwrap(), all[first as usize..][..300]));
        }
    });
    // SAFETY: the threads have ended.
    unsafe { df11_model_free(model.get()) };
}

/// Damaged bytes: an error or other weights, and nothing that Miri objects to.
#[test]
fn damage_is_no_danger() {
    let all = weights::trained_like(600, 9);
    let file = encoder::safetensors(&encoder::group_tensors("layer", &encoder::encode(&all, &[])), None);
    let (mut random, mut opened) = (Random::new(10), 0);
    // Miri takes minutes where a processor takes milliseconds.
    for _ in 0..if cfg!(miri) { 8 } else { support::check::rounds(300) } {
        let mut damaged = file.clone();
        // In the header now and then, mostly behind it.
        let at = random.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << random.below(8);
        if let Ok(model) = open(&damaged, 0) {
            let _ = decode(model, 0, 600, 2);
            let _ = decode(model, 590, 10, 1);
            let mut room = vec![0u8; 1 << 16];
            let _ = call!(df11_model_write_image(model, 0, room.as_mut_ptr().cast(), room.len()));
            opened += 1;
            // SAFETY: an open model.
            unsafe { df11_model_free(model) };
        }
    }
    assert!(opened > 0 || cfg!(miri));
    for bytes in [0, 7, 8, 100, file.len() - 1] {
        open(&file[..bytes], 0).unwrap_err();
    }
    let mut model = null_mut();
    assert_eq!(call!(df11_model_open_memory(null(), 0, null(), &mut model)), Status::InvalidArgument as i32);
}
