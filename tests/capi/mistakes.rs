//! What every function of the C ABI makes of NULL in the place of each of its pointers, and what it leaves in its outputs. The
//! table is held against the header: a function or a pointer that is not in it fails the test. Structs of other versions are
//! in tests/capi/structs.rs; each function's own mistakes are in tests/c.
#![cfg(target_os = "linux")]

use crate::support;

use df11::cuda::Stream;
use df11::internals::capi::*;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};
use support::abi::{Declared, functions_of_the_header, init, no_error, said, text};
use support::engine::Emulator;
use support::golden;

/// What a call returned, and whether its outputs are what they are to be after an error: NULL or 0.
type Outcome = (df11_status, bool);
/// A call with NULL for the argument of that name, or for none.
type Call<'a> = Box<dyn Fn(&str, *mut df11_error) -> Outcome + 'a>;

const ANY: df11_status = -1;

/// A function, what NULL in each place must give, and how to call it.
struct Row<'a> {
    function: &'static str,
    arguments: &'static [(&'static str, df11_status)],
    call: Call<'a>,
}

/// The address, or NULL if that argument is to be NULL.
fn unless<T>(null: &str, name: &str, address: *const T) -> *mut T {
    if null == name { null_mut() } else { address.cast_mut() }
}

/// Everything that a function can be given.
struct Things<'a> {
    path: CString,
    original: CString,
    source: CString,
    scratch: tempfile::TempDir,
    made: Cell<u32>,
    file: Vec<u8>,
    libcuda: CString,
    engine: &'a support::engine::Engine<'a>,
    stream: Stream,
    model: *mut df11_model,
    device: *mut df11_device,
    resident: *mut df11_resident,
    image: u64,
    image_bytes: usize,
    other_image: u64,
    host_image: Vec<u8>,
    slice_image: Vec<u8>,
    shard: *mut df11_shard,
    plan: *mut df11_linear_plan,
    linear_image: Vec<u8>,
    dst: u64,
    bytes: usize,
    tensors: usize,
    weights: Vec<u16>,
    matrix_data: Vec<Line>,
    matrix: *mut df11_matrix,
}

/// A cache line, to which a matrix is aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Room for so many bytes, aligned.
fn lines(bytes: usize) -> Vec<Line> {
    vec![Line([0; 64]); bytes.div_ceil(64)]
}

/// Three rows of 64 of these weights as a matrix, which points to the memory.
fn matrix_of(weights: &[u16]) -> (Vec<Line>, *mut df11_matrix) {
    let (mut data, mut bytes, mut matrix) = (lines(2000), 0, null_mut());
    let at = data.as_mut_ptr().cast::<c_void>();
    // SAFETY: there are so many weights, and the memory stays where it is when the list is moved.
    unsafe {
        let status = df11_matrix_write(weights.as_ptr(), 3, 64, at, 2000, 1, null_mut(), &mut bytes, null_mut());
        assert_eq!((status, bytes > 0), (0, true));
        assert_eq!(df11_matrix_bind(at, bytes as usize, &mut matrix, null_mut()), 0);
    }
    (data, matrix)
}

/// A slice of the model's first tensor as a shard, and its image.
fn shard_of(model: *mut df11_model) -> (*mut df11_shard, Vec<u8>) {
    let slice = df11_slice { tensor: 0, first: 1, run_elements: 3, run_stride: 7, run_count: 5 };
    let (mut shard, mut info) = (null_mut(), init::<df11_image_info>());
    // SAFETY: the model stays open, and the lists are as long as is said.
    unsafe {
        assert_eq!(df11_model_make_shard(model, 0, &slice, 1, 1, null_mut(), &mut shard, null_mut()), 0);
        assert_eq!(df11_shard_get_image_info(shard, &mut info, null_mut()), 0);
        let mut image = vec![0; info.image_bytes as usize];
        let (at, none) = (image.as_mut_ptr().cast(), null_mut());
        assert_eq!(df11_shard_write_image(shard, at, image.len(), 1, none, null_mut()), 0);
        (shard, image)
    }
}

/// A plan of the linear image of the model's first group, and the image.
fn linear_of(model: *mut df11_model) -> (*mut df11_linear_plan, Vec<u8>) {
    let (mut plan, mut info) = (null_mut(), init::<df11_image_info>());
    // SAFETY: the model stays open, and the lists are as long as is said.
    unsafe {
        assert_eq!(df11_model_plan_linear_image(model, 0, null(), 0, 1, null_mut(), &mut plan, null_mut()), 0);
        assert_eq!(df11_linear_plan_get_image_info(plan, &mut info, null_mut()), 0);
        let mut image = vec![0; info.image_bytes as usize];
        let (at, none) = (image.as_mut_ptr().cast(), null_mut());
        assert_eq!(df11_linear_plan_write_image(plan, at, image.len(), 1, none, null_mut()), 0);
        (plan, image)
    }
}

impl Things<'_> {
    fn stream(&self) -> df11_stream {
        self.stream.raw().cast()
    }

    /// A path below the scratch folder that nothing has.
    fn new_path(&self) -> CString {
        self.made.set(self.made.get() + 1);
        text(&self.scratch.path().join(format!("out-{}", self.made.get())))
    }

    fn device_options(&self) -> df11_device_options {
        df11_device_options { libcuda: self.libcuda.as_ptr(), ..init() }
    }

    /// A model whose two parts are written.
    fn parts(&self) -> CString {
        let to = self.new_path();
        for part in 1..=2 {
            let options = df11_compress_options { part, part_count: 2, ..init() };
            // SAFETY: texts and options that live.
            let status = unsafe { df11_compress_model(self.source.as_ptr(), to.as_ptr(), &options, null_mut()) };
            assert_eq!(status, 0);
        }
        to
    }

    /// A plan of the model.
    fn plan(&self) -> *mut df11_plan {
        let mut plan = null_mut();
        // SAFETY: a text that lives.
        assert_eq!(unsafe { df11_plan_model(self.path.as_ptr(), null(), &mut plan, null_mut()) }, 0);
        plan
    }

    /// A model that a call gave, if it is what it has to be.
    fn opened(&self, status: df11_status, model: *mut df11_model) -> Outcome {
        // SAFETY: NULL or a model of nobody else's.
        unsafe { df11_model_free(model) };
        (status, (status == 0) != model.is_null())
    }

    fn device_opened(&self, status: df11_status, device: *mut df11_device) -> Outcome {
        // SAFETY: NULL or a device of nobody else's.
        unsafe { df11_device_free(device) };
        (status, (status == 0) != device.is_null())
    }

    /// A matrix of a linear image, which is put on the device, and what is needed to multiply with it.
    fn product(&self) -> (df11_linear_matrix, df11_linear_options) {
        let (bytes, mut resident) = (self.linear_image.len(), null_mut());
        let at = self.engine.alloc(bytes as u64);
        self.engine.write(at, &self.linear_image);
        // SAFETY: the image stays until the emulator goes.
        let status = unsafe {
            let head = self.linear_image.as_ptr().cast();
            df11_device_bind_image(self.device, head, bytes, at, bytes, &mut resident, null_mut())
        };
        assert_eq!(status, 0);
        // The shape is not known, so rows have 64 columns.
        let head = df11::internals::cuda::image::linear::LinearHead::parse(&self.linear_image).unwrap();
        let (row_count, column_count) = (head.tensors()[0].rows, head.tensors()[0].columns);
        let matrix = df11_linear_matrix {
            resident,
            tensor: 0,
            tensor_step: 0,
            row_count,
            column_count,
            d_y: self.engine.alloc(4 * row_count),
            y_stride: 0,
            y_step: 0,
        };
        let d_x = self.engine.alloc(2 * column_count);
        (matrix, df11_linear_options { d_x, vector_count: 1, y_dtype: DF11_DTYPE_F32, ..init() })
    }

    /// The same for a resident, whose upload is waited for first.
    fn taken(&self, status: df11_status, resident: *mut df11_resident) -> Outcome {
        self.engine.synchronise(self.stream);
        // SAFETY: NULL or a resident of nobody else's.
        unsafe { df11_resident_free(resident) };
        (status, (status == 0) != resident.is_null())
    }
}

const BAD: df11_status = DF11_INVALID_ARGUMENT;
const GOOD: df11_status = DF11_OK;

/// A call that gave a struct with this text in it.
fn info(status: df11_status, name: *const c_char) -> Outcome {
    (status, (status == 0) != name.is_null())
}

fn row<'a>(
    function: &'static str,
    arguments: &'static [(&'static str, df11_status)],
    call: impl Fn(&str, *mut df11_error) -> Outcome + 'a,
) -> Row<'a> {
    Row { function, arguments, call: Box::new(call) }
}

// Every block below is sound for one reason: what is given is what the header asks for, or NULL where it says that this may
// be or is refused.
#[allow(clippy::undocumented_unsafe_blocks, reason = "see above: one reason for all")]
fn host_rows<'a>(t: &'a Things<'a>) -> Vec<Row<'a>> {
    vec![
        row("df11_status_name", &[], |_, _| (0, !df11_status_name(0).is_null())),
        row("df11_version_number", &[], |_, _| (0, df11_version_number() > 0)),
        row("df11_version_string", &[], |_, _| (0, !df11_version_string().is_null())),
        row("df11_log_set", &[("user", GOOD)], |n, _| unsafe {
            df11_log_set(None, DF11_LOG_OFF, unless(n, "user", c"".as_ptr().cast()));
            (0, true)
        }),
        row("df11_model_open", &[("path", BAD), ("options", GOOD), ("out", BAD)], |n, error| unsafe {
            let (mut model, options) = (null_mut::<df11_model>().wrapping_byte_add(64), init::<df11_open_options>());
            if n == "out" {
                return (df11_model_open(t.path.as_ptr(), &options, null_mut(), error), true);
            }
            let path = unless(n, "path", t.path.as_ptr());
            t.opened(df11_model_open(path, unless(n, "options", &options), &mut model, error), model)
        }),
        row("df11_model_open_memory", &[("data", BAD), ("options", GOOD), ("out", BAD)], |n, error| unsafe {
            let (mut model, options) = (null_mut::<df11_model>().wrapping_byte_add(64), init::<df11_open_options>());
            let (data, bytes) = (t.file.as_ptr().cast(), t.file.len());
            if n == "out" {
                return (df11_model_open_memory(data, bytes, &options, null_mut(), error), true);
            }
            let options = unless(n, "options", &options);
            t.opened(df11_model_open_memory(unless(n, "data", data), bytes, options, &mut model, error), model)
        }),
        row("df11_model_free", &[("model", GOOD)], |n, _| unsafe {
            if n == "model" {
                df11_model_free(null_mut());
            }
            (0, true)
        }),
        row("df11_model_group_count", &[("model", GOOD)], |n, _| unsafe {
            (0, (df11_model_group_count(unless(n, "model", t.model)) == 0) == (n == "model"))
        }),
        row("df11_model_config_text", &[("model", GOOD), ("text_bytes", GOOD)], |n, _| unsafe {
            let mut bytes = 7;
            let text = df11_model_config_text(unless(n, "model", t.model), unless(n, "text_bytes", &raw mut bytes));
            let size = if n == "text_bytes" { 7 } else { bytes };
            (0, text.is_null() == (n == "model") && (size == 0) == (n == "model"))
        }),
        row("df11_dtype_name", &[], |_, _| (0, !df11_dtype_name(1).is_null())),
        row("df11_dtype_bytes", &[], |_, _| (0, df11_dtype_bytes(1) == 2)),
        row("df11_model_tensor_count", &[("model", GOOD)], |n, _| unsafe {
            (0, (df11_model_tensor_count(unless(n, "model", t.model)) == 0) == (n == "model"))
        }),
        row("df11_model_get_group_info", &[("model", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_group_info { name: c"before".as_ptr(), ..init() };
            if n == "out" {
                return (df11_model_get_group_info(t.model, 0, null_mut(), error), true);
            }
            let status = df11_model_get_group_info(unless(n, "model", t.model), 0, &mut out, error);
            info(status, out.name)
        }),
        row("df11_model_get_group_part", &[("model", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_part_info { file: c"before".as_ptr(), ..init() };
            if n == "out" {
                return (df11_model_get_group_part(t.model, 0, 1, null_mut(), error), true);
            }
            let status = df11_model_get_group_part(unless(n, "model", t.model), 0, 1, &mut out, error);
            info(status, out.file)
        }),
        row("df11_model_get_tensor_info", &[("model", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_tensor_info { name: c"before".as_ptr(), ..init() };
            if n == "out" {
                return (df11_model_get_tensor_info(t.model, 0, null_mut(), error), true);
            }
            let status = df11_model_get_tensor_info(unless(n, "model", t.model), 0, &mut out, error);
            info(status, out.name)
        }),
        row("df11_model_get_group_run", &[("model", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_run_info { element_count: 7, ..init() };
            if n == "out" {
                return (df11_model_get_group_run(t.model, 0, 0, null_mut(), error), true);
            }
            let status = df11_model_get_group_run(unless(n, "model", t.model), 0, 0, &mut out, error);
            (status, (status == 0) == (out.element_count > 7))
        }),
        row("df11_model_get_tensor_run", &[("model", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_run_info { element_count: 7, ..init() };
            if n == "out" {
                return (df11_model_get_tensor_run(t.model, 0, 0, null_mut(), error), true);
            }
            let status = df11_model_get_tensor_run(unless(n, "model", t.model), 0, 0, &mut out, error);
            (status, (status == 0) == (out.element_count > 7))
        }),
        row("df11_model_find_group", &[("model", BAD), ("name", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = 77;
            let (model, name) = (unless(n, "model", t.model), unless(n, "name", c"model.layers.1".as_ptr()));
            let status = df11_model_find_group(model, name, unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out > 0) && out != 77)
        }),
        row("df11_model_find_tensor", &[("model", BAD), ("name", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = 77_000;
            let name = unless(n, "name", c"model.layers.1.mlp.down_proj.weight".as_ptr());
            let model = unless(n, "model", t.model);
            let status = df11_model_find_tensor(model, name, unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out > 0) && out != 77_000)
        }),
        row("df11_model_decompress", &[("model", BAD), ("dst", BAD)], |n, error| unsafe {
            let mut room = vec![0u16; 100];
            let (model, dst) = (unless(n, "model", t.model), unless(n, "dst", room.as_mut_ptr().cast()));
            (df11_model_decompress(model, 0, 0, 100, dst, 200, 1, error), true)
        }),
        row("df11_model_read_tensor", &[("model", BAD), ("dst", BAD)], |n, error| unsafe {
            let mut room = vec![0u16; 100];
            let (model, dst) = (unless(n, "model", t.model), unless(n, "dst", room.as_mut_ptr().cast()));
            (df11_model_read_tensor(model, 0, 0, dst, 200, 1, error), true)
        }),
        row("df11_matrix_bound", &[("matrix_bytes", BAD)], |n, error| unsafe {
            let mut bytes = 77;
            let status = df11_matrix_bound(3, 64, unless(n, "matrix_bytes", &raw mut bytes), error);
            (status, n == "matrix_bytes" || bytes > 100)
        }),
        row(
            "df11_matrix_write",
            &[("weights", BAD), ("dst", BAD), ("progress", GOOD), ("matrix_bytes", BAD)],
            |n, error| unsafe {
                let (mut room, mut bytes) = (lines(2000), 77);
                let mut progress = null_mut();
                assert_eq!(df11_progress_new(&mut progress, null_mut()), 0);
                let (weights, dst) = (unless(n, "weights", t.weights.as_ptr()), room.as_mut_ptr().cast::<c_void>());
                let (dst, out) = (unless(n, "dst", dst), unless(n, "matrix_bytes", &raw mut bytes));
                let given = unless(n, "progress", progress);
                let status = df11_matrix_write(weights, 3, 64, dst, 2000, 1, given, out, error);
                df11_progress_free(progress);
                (status, n == "matrix_bytes" || (status == 0) == (bytes > 0) && bytes != 77)
            },
        ),
        row(
            "df11_model_write_matrix",
            &[("model", BAD), ("dst", BAD), ("progress", GOOD), ("matrix_bytes", BAD)],
            |n, error| unsafe {
                let (mut room, mut bytes) = (lines(2000), 77);
                let mut progress = null_mut();
                assert_eq!(df11_progress_new(&mut progress, null_mut()), 0);
                let (model, dst) = (unless(n, "model", t.model), room.as_mut_ptr().cast::<c_void>());
                let (dst, out) = (unless(n, "dst", dst), unless(n, "matrix_bytes", &raw mut bytes));
                let given = unless(n, "progress", progress);
                let status = df11_model_write_matrix(model, 0, 64, 0, 3, dst, 2000, 1, given, out, error);
                df11_progress_free(progress);
                (status, n == "matrix_bytes" || (status == 0) == (bytes > 0) && bytes != 77)
            },
        ),
        row("df11_matrix_bind", &[("data", BAD), ("out", BAD)], |n, error| unsafe {
            let data = t.matrix_data.as_ptr().cast();
            let mut matrix = null_mut::<df11_matrix>().wrapping_byte_add(64);
            let bytes = size_of_val(&t.matrix_data[..]);
            let status = df11_matrix_bind(unless(n, "data", data), bytes, unless(n, "out", &raw mut matrix), error);
            if n != "out" {
                df11_matrix_free(matrix);
            }
            (status, n == "out" || (status == 0) != matrix.is_null())
        }),
        row("df11_matrix_free", &[("matrix", GOOD)], |n, _| unsafe {
            if n == "matrix" {
                df11_matrix_free(null_mut());
            }
            (0, true)
        }),
        row("df11_matrix_get_info", &[("matrix", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_matrix_info { row_count: 77, ..init() };
            let (matrix, at) = (unless(n, "matrix", t.matrix), unless(n, "out", &raw mut out));
            let status = df11_matrix_get_info(matrix, at, error);
            (status, n == "out" || (status == 0) == (out.row_count > 0) && out.row_count != 77)
        }),
        row("df11_matrix_decompress", &[("matrix", BAD), ("dst", BAD)], |n, error| unsafe {
            let mut room = vec![0u16; 100];
            let (matrix, dst) = (unless(n, "matrix", t.matrix), unless(n, "dst", room.as_mut_ptr().cast()));
            (df11_matrix_decompress(matrix, 0, 100, dst, 200, error), true)
        }),
        row("df11_matrix_multiply", &[("matrix", BAD), ("x", BAD), ("y", BAD)], |n, error| unsafe {
            let (x, mut y) = ([1f32; 64], [0f32; 3]);
            let (matrix, x) = (unless(n, "matrix", t.matrix), unless(n, "x", x.as_ptr().cast()));
            let (kind, y) = (DF11_DTYPE_F32, unless(n, "y", y.as_mut_ptr()));
            (df11_matrix_multiply(matrix, 0, 3, x, kind, 64, 1, DF11_ORDER_LANES, y, 3, error), true)
        }),
        row("df11_model_write_image", &[("model", BAD), ("dst", BAD)], |n, error| unsafe {
            let mut room = vec![0u8; t.image_bytes];
            let (model, dst) = (unless(n, "model", t.model), unless(n, "dst", room.as_mut_ptr().cast()));
            (df11_model_write_image(model, 0, dst, t.image_bytes, error), true)
        }),
        row("df11_model_write_image_part", &[("model", BAD), ("dst", BAD)], |n, error| unsafe {
            let mut room = vec![0u8; t.image_bytes];
            let (model, dst) = (unless(n, "model", t.model), unless(n, "dst", room.as_mut_ptr().cast()));
            (df11_model_write_image_part(model, 0, dst, t.image_bytes, 1, 2, error), true)
        }),
        row("df11_model_get_image_range_info", &[("model", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_image_info { image_bytes: 77, ..init() };
            let (model, at) = (unless(n, "model", t.model), unless(n, "out", &raw mut out));
            let status = df11_model_get_image_range_info(model, 0, 3, 500, at, error);
            (status, n == "out" || (status == 0) == (out.image_bytes > 0) && out.image_bytes != 77)
        }),
        row("df11_model_write_image_range", &[("model", BAD), ("dst", BAD)], |n, error| unsafe {
            let mut room = vec![0u8; t.image_bytes];
            let (model, dst) = (unless(n, "model", t.model), unless(n, "dst", room.as_mut_ptr().cast()));
            (df11_model_write_image_range(model, 0, 3, 500, dst, t.image_bytes, 1, error), true)
        }),
        row("df11_image_get_slice", &[("head", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_slice { tensor: 77, first: 77, run_elements: 77, run_stride: 77, run_count: 77 };
            let head = unless(n, "head", t.slice_image.as_ptr().cast());
            let status = df11_image_get_slice(head, t.slice_image.len(), 0, unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out.run_count > 0) && out.run_count != 77)
        }),
        row("df11_split_segment", &[("segment", BAD), ("first", BAD), ("count", BAD)], |n, error| unsafe {
            let segment = df11_segment { extent: 8, unit: 2, rule: DF11_SPLIT_EVEN, reserved: 0 };
            let (mut first, mut count) = (77, 77);
            let to = (unless(n, "first", &raw mut first), unless(n, "count", &raw mut count));
            let status = df11_split_segment(unless(n, "segment", &segment), 1, 2, to.0, to.1, error);
            (status, status == 0 || (n == "first" || first == 0) && (n != "segment" || count == 0))
        }),
        row("df11_model_get_slices", &[("model", BAD), ("segments", BAD), ("slices", BAD)], |n, error| unsafe {
            let segment = df11_segment { extent: 256, unit: 0, rule: DF11_SPLIT_PAD, reserved: 0 };
            let mut out = df11_slice { tensor: 77, first: 77, run_elements: 77, run_stride: 77, run_count: 77 };
            let (model, segments) = (unless(n, "model", t.model), unless(n, "segments", &segment));
            let status =
                df11_model_get_slices(model, 0, 0, 0, segments, 1, 0, 2, unless(n, "slices", &raw mut out), error);
            (status, n == "slices" || (status == 0) == (out.run_count > 0) && out.run_count != 77)
        }),
        row(
            "df11_model_make_shard",
            &[("model", BAD), ("slices", BAD), ("progress", GOOD), ("out", BAD)],
            |n, error| unsafe {
                let slice = df11_slice { tensor: 0, first: 1, run_elements: 3, run_stride: 7, run_count: 5 };
                let (mut out, mut progress) = (null_mut::<df11_shard>().wrapping_byte_add(64), null_mut());
                df11_progress_new(&mut progress, null_mut());
                let (model, slices) = (unless(n, "model", t.model), unless(n, "slices", &slice));
                let to = if n == "out" { null_mut() } else { &raw mut out };
                let watched = unless(n, "progress", progress);
                let status = df11_model_make_shard(model, 0, slices, 1, 2, watched, to, error);
                df11_progress_free(progress);
                if n == "out" {
                    return (status, true);
                }
                if status == 0 {
                    df11_shard_free(out);
                }
                (status, (status == 0) != out.is_null())
            },
        ),
        row("df11_shard_get_image_info", &[("shard", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_image_info { image_bytes: 77, ..init() };
            let status = df11_shard_get_image_info(unless(n, "shard", t.shard), unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out.image_bytes > 0) && out.image_bytes != 77)
        }),
        row("df11_shard_write_image", &[("shard", BAD), ("dst", BAD), ("progress", GOOD)], |n, error| unsafe {
            let (mut room, mut progress) = (vec![0u8; t.slice_image.len()], null_mut());
            df11_progress_new(&mut progress, null_mut());
            let (shard, dst) = (unless(n, "shard", t.shard), unless(n, "dst", room.as_mut_ptr().cast()));
            let watched = unless(n, "progress", progress);
            let status = df11_shard_write_image(shard, dst, room.len(), 1, watched, error);
            df11_progress_free(progress);
            (status, status != 0 || room == t.slice_image)
        }),
        row("df11_shard_free", &[("shard", GOOD)], |n, _| unsafe {
            if n == "shard" {
                df11_shard_free(null_mut());
            }
            (0, true)
        }),
        row(
            "df11_model_plan_linear_image",
            &[("model", BAD), ("shapes", BAD), ("progress", GOOD), ("out", BAD)],
            |n, error| unsafe {
                let shapes = vec![df11_linear_shape { rows: 0, columns: 0 }; t.tensors];
                let (mut out, mut progress) = (null_mut::<df11_linear_plan>().wrapping_byte_add(64), null_mut());
                df11_progress_new(&mut progress, null_mut());
                let (model, shapes) = (unless(n, "model", t.model), unless(n, "shapes", shapes.as_ptr()));
                let to = if n == "out" { null_mut() } else { &raw mut out };
                let watched = unless(n, "progress", progress);
                let status = df11_model_plan_linear_image(model, 0, shapes, t.tensors, 2, watched, to, error);
                df11_progress_free(progress);
                if n == "out" {
                    return (status, true);
                }
                if status == 0 {
                    df11_linear_plan_free(out);
                }
                (status, (status == 0) != out.is_null())
            },
        ),
        row("df11_linear_plan_get_image_info", &[("plan", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_image_info { image_bytes: 77, ..init() };
            let to = unless(n, "out", &raw mut out);
            let status = df11_linear_plan_get_image_info(unless(n, "plan", t.plan), to, error);
            (status, n == "out" || (status == 0) == (out.image_bytes > 0) && out.image_bytes != 77)
        }),
        row("df11_linear_plan_write_image", &[("plan", BAD), ("dst", BAD), ("progress", GOOD)], |n, error| unsafe {
            let (mut room, mut progress) = (vec![0u8; t.linear_image.len()], null_mut());
            df11_progress_new(&mut progress, null_mut());
            let (plan, dst) = (unless(n, "plan", t.plan), unless(n, "dst", room.as_mut_ptr().cast()));
            let watched = unless(n, "progress", progress);
            let status = df11_linear_plan_write_image(plan, dst, room.len(), 1, watched, error);
            df11_progress_free(progress);
            (status, status != 0 || room == t.linear_image)
        }),
        row("df11_linear_plan_free", &[("plan", GOOD)], |n, _| unsafe {
            if n == "plan" {
                df11_linear_plan_free(null_mut());
            }
            (0, true)
        }),
        row("df11_image_get_info", &[("head", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_image_info { image_bytes: 77, ..init() };
            let head = unless(n, "head", t.host_image.as_ptr().cast());
            let status = df11_image_get_info(head, t.host_image.len(), unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out.image_bytes > 0) && out.image_bytes != 77)
        }),
        row("df11_progress_new", &[("out", BAD)], |n, error| unsafe {
            let mut out = null_mut();
            let status = df11_progress_new(unless(n, "out", &raw mut out), error);
            df11_progress_free(out);
            (status, n == "out" || !out.is_null())
        }),
        row("df11_progress_free", &[("progress", GOOD)], |n, _| unsafe {
            if n == "progress" {
                df11_progress_free(null_mut());
            }
            (0, true)
        }),
        row("df11_progress_get", &[("progress", GOOD), ("done", GOOD), ("total", GOOD)], |n, _| unsafe {
            let (mut progress, mut done, mut total) = (null_mut(), 77, 77);
            df11_progress_new(&mut progress, null_mut());
            let (to_done, to_total) = (unless(n, "done", &raw mut done), unless(n, "total", &raw mut total));
            df11_progress_get(unless(n, "progress", progress), to_done, to_total);
            df11_progress_free(progress);
            (0, (n == "done" || done == 0) && (n == "total" || total == 0))
        }),
        row("df11_progress_cancel", &[("progress", GOOD)], |n, _| unsafe {
            if n == "progress" {
                df11_progress_cancel(null_mut());
            }
            (0, true)
        }),
    ]
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
fn writer_rows<'a>(t: &'a Things<'a>) -> Vec<Row<'a>> {
    vec![
        row("df11_verify_model", &[("model", BAD), ("original", GOOD), ("options", GOOD)], |n, error| unsafe {
            let options: df11_verify_options = init();
            let (model, original) = (unless(n, "model", t.path.as_ptr()), unless(n, "original", t.original.as_ptr()));
            (df11_verify_model(model, original, unless(n, "options", &options), error), true)
        }),
        row("df11_compress_model", &[("src", BAD), ("dst", BAD), ("options", GOOD)], |n, error| unsafe {
            let (options, to) = (init::<df11_compress_options>(), t.new_path());
            let (src, dst) = (unless(n, "src", t.source.as_ptr()), unless(n, "dst", to.as_ptr()));
            (df11_compress_model(src, dst, unless(n, "options", &options), error), true)
        }),
        row("df11_merge_model", &[("src", BAD), ("dst", BAD), ("options", GOOD)], |n, error| unsafe {
            let (options, to) = (init::<df11_compress_options>(), t.parts());
            let (src, dst) = (unless(n, "src", t.source.as_ptr()), unless(n, "dst", to.as_ptr()));
            (df11_merge_model(src, dst, unless(n, "options", &options), error), true)
        }),
        row("df11_plan_model", &[("path", BAD), ("options", GOOD), ("out", BAD)], |n, error| unsafe {
            let (options, mut plan) = (init::<df11_plan_options>(), null_mut::<df11_plan>().wrapping_byte_add(64));
            let (path, out) = (unless(n, "path", t.source.as_ptr()), unless(n, "out", &raw mut plan));
            let status = df11_plan_model(path, unless(n, "options", &options), out, error);
            let right = n == "out" || (status == 0) != plan.is_null();
            df11_plan_free(if n == "out" { null_mut() } else { plan });
            (status, right)
        }),
        row("df11_plan_free", &[("plan", GOOD)], |n, _| unsafe {
            if n == "plan" {
                df11_plan_free(null_mut());
            }
            (0, true)
        }),
        row("df11_plan_get_info", &[("plan", BAD), ("out", BAD)], |n, error| unsafe {
            let (plan, mut out) = (t.plan(), df11_plan_info { group_count: 77, ..init() });
            let status = df11_plan_get_info(unless(n, "plan", plan), unless(n, "out", &raw mut out), error);
            df11_plan_free(plan);
            (status, n == "out" || (status == 0) == (out.group_count > 0) && out.group_count != 77)
        }),
        row("df11_plan_get_group_info", &[("plan", BAD), ("out", BAD)], |n, error| unsafe {
            let (plan, mut out) = (t.plan(), df11_plan_group_info { element_count: 77, ..init() });
            let status = df11_plan_get_group_info(unless(n, "plan", plan), 0, unless(n, "out", &raw mut out), error);
            df11_plan_free(plan);
            (status, n == "out" || (status == 0) == (out.element_count > 0) && out.element_count != 77)
        }),
        row("df11_plan_get_share_info", &[("plan", BAD), ("out", BAD)], |n, error| unsafe {
            let (plan, mut out) = (t.plan(), df11_plan_share_info { total_bytes: 77, ..init() });
            let (from, to) = (unless(n, "plan", plan), unless(n, "out", &raw mut out));
            let status = df11_plan_get_share_info(from, DF11_SPLIT_LAYERS, 2, 1, to, error);
            df11_plan_free(plan);
            (status, n == "out" || (status == 0) == (out.total_bytes > 0) && out.total_bytes != 77)
        }),
        row("df11_plan_count_tokens", &[("plan", BAD), ("tokens", GOOD), ("bf16_tokens", GOOD)], |n, error| unsafe {
            let (plan, mut tokens, mut bf16) = (t.plan(), 77, 77);
            let (to_tokens, to_bf16) = (unless(n, "tokens", &raw mut tokens), unless(n, "bf16_tokens", &raw mut bf16));
            let from = unless(n, "plan", plan);
            let status = df11_plan_count_tokens(from, DF11_SPLIT_ROWS, 1, 1 << 40, to_tokens, to_bf16, error);
            df11_plan_free(plan);
            let right = |value: u64| value != 77 && (status == 0) == (value != DF11_PLAN_NONE);
            (status, (n == "tokens" || right(tokens)) && (n == "bf16_tokens" || right(bf16)))
        }),
        row("df11_decompress_model", &[("src", BAD), ("dst", BAD), ("options", GOOD)], |n, error| unsafe {
            let (options, to) = (init::<df11_decompress_options>(), t.new_path());
            let (src, dst) = (unless(n, "src", t.source.as_ptr()), unless(n, "dst", to.as_ptr()));
            (df11_decompress_model(src, dst, unless(n, "options", &options), error), true)
        }),
        row("df11_repack_model", &[("src", BAD), ("dst", BAD), ("options", GOOD)], |n, error| unsafe {
            let (options, to) = (init::<df11_repack_options>(), t.new_path());
            let (src, dst) = (unless(n, "src", t.path.as_ptr()), unless(n, "dst", to.as_ptr()));
            (df11_repack_model(src, dst, unless(n, "options", &options), error), true)
        }),
        row("df11_preset_count", &[], |_, _| (0, df11_preset_count() > 0)),
        row("df11_preset_get_info", &[("out", BAD)], |n, error| unsafe {
            let mut out: df11_preset_info = init();
            let status = df11_preset_get_info(0, unless(n, "out", &raw mut out), error);
            (status, n == "out" || !out.name.is_null())
        }),
        row("df11_compress_group", &[("tensors", BAD), ("element_counts", BAD), ("io", BAD)], |n, error| unsafe {
            let mut io = df11_packed_group { gaps_bytes: 77, ..init() };
            let (tensor, count) = (t.weights.as_ptr().cast::<c_void>(), t.weights.len() as u64);
            let (tensors, counts) = (unless(n, "tensors", &raw const tensor), unless(n, "element_counts", &count));
            let status = df11_compress_group(tensors, counts, 1, 1, unless(n, "io", &raw mut io), error);
            (status, n == "io" || (status == 0) == (io.gaps_bytes > 0) && io.gaps_bytes != 77)
        }),
        row("df11_compress_bound", &[("element_counts", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_packed_group { gaps_bytes: 77, ..init() };
            let count = t.weights.len() as u64;
            let counts = unless(n, "element_counts", &count);
            let status = df11_compress_bound(counts, 1, unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out.gaps_bytes > 0) && out.gaps_bytes != 77)
        }),
    ]
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above; what is enqueued is waited for")]
fn device_rows<'a>(t: &'a Things<'a>) -> Vec<Row<'a>> {
    let stray = || null_mut::<df11_resident>().wrapping_byte_add(64);
    let done = |status: df11_status| {
        t.engine.synchronise(t.stream);
        (status, true)
    };
    vec![
        // Without options the driver is the system's, which there may be or not: tests/c/cuda.c has one.
        row("df11_device_open", &[("options", ANY), ("out", BAD)], |n, error| unsafe {
            let (mut device, options) = (null_mut::<df11_device>().wrapping_byte_add(64), t.device_options());
            if n == "out" {
                return (df11_device_open(0, &options, null_mut(), error), true);
            }
            t.device_opened(df11_device_open(0, unless(n, "options", &options), &mut device, error), device)
        }),
        row("df11_device_open_current", &[("options", ANY), ("out", BAD)], |n, error| unsafe {
            let (mut device, options) = (null_mut::<df11_device>().wrapping_byte_add(64), t.device_options());
            t.engine.enter();
            if n == "out" {
                return (df11_device_open_current(&options, null_mut(), error), true);
            }
            t.device_opened(df11_device_open_current(unless(n, "options", &options), &mut device, error), device)
        }),
        row("df11_device_free", &[("device", GOOD)], |n, _| unsafe {
            if n == "device" {
                df11_device_free(null_mut());
            }
            (0, true)
        }),
        row("df11_device_get_info", &[("device", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_device_info { name: c"before".as_ptr(), ..init() };
            let device = unless(n, "device", t.device);
            let status = df11_device_get_info(device, unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) != out.name.is_null())
        }),
        row("df11_device_upload", &[("device", BAD), ("model", BAD), ("stream", DF11_DEFAULT_STREAM), ("out", BAD)], {
            move |n, error| unsafe {
                let (mut out, (at, bytes)) = (stray(), (t.other_image, t.image_bytes));
                let (device, model) = (unless(n, "device", t.device), unless(n, "model", t.model));
                let stream = unless(n, "stream", t.stream());
                if n == "out" {
                    return (df11_device_upload(device, model, 0, at, bytes, stream, null_mut(), error), true);
                }
                t.taken(df11_device_upload(device, model, 0, at, bytes, stream, &mut out, error), out)
            }
        }),
        row(
            "df11_device_upload_staged",
            &[("device", BAD), ("model", BAD), ("stream", DF11_DEFAULT_STREAM), ("staging", BAD), ("out", BAD)],
            move |n, error| unsafe {
                let (mut out, (at, bytes)) = (stray(), (t.other_image, t.image_bytes));
                let (device, model) = (unless(n, "device", t.device), unless(n, "model", t.model));
                let (stream, mut memory) = (unless(n, "stream", t.stream()), vec![0u8; 8192]);
                let staging = unless(n, "staging", memory.as_mut_ptr().cast());
                if n == "out" {
                    let none = null_mut();
                    return (
                        df11_device_upload_staged(device, model, 0, at, bytes, stream, staging, 8192, none, error),
                        true,
                    );
                }
                t.taken(
                    df11_device_upload_staged(device, model, 0, at, bytes, stream, staging, 8192, &mut out, error),
                    out,
                )
            },
        ),
        row(
            "df11_device_upload_range",
            &[("device", BAD), ("model", BAD), ("stream", DF11_DEFAULT_STREAM), ("staging", GOOD), ("out", BAD)],
            move |n, error| unsafe {
                let (mut out, (at, bytes)) = (stray(), (t.other_image, t.image_bytes));
                let (device, model) = (unless(n, "device", t.device), unless(n, "model", t.model));
                let (stream, mut memory) = (unless(n, "stream", t.stream()), vec![0u8; 8192]);
                let staging = unless(n, "staging", memory.as_mut_ptr().cast());
                let to = if n == "out" { null_mut() } else { &raw mut out };
                let (first, count, half) = (3, 500, 8192);
                let status = df11_device_upload_range(
                    device, model, 0, first, count, at, bytes, stream, staging, half, to, error,
                );
                if n == "out" { (status, true) } else { t.taken(status, out) }
            },
        ),
        row(
            "df11_device_make_linear_image",
            &[("device", BAD), ("plan", BAD), ("source", BAD), ("stream", DF11_DEFAULT_STREAM), ("out", BAD)],
            move |n, error| unsafe {
                let (mut out, bytes) = (stray(), t.linear_image.len());
                let (image, scratch) = (t.engine.alloc(bytes as u64), t.engine.alloc(1 << 20));
                let (device, plan) = (unless(n, "device", t.device), unless(n, "plan", t.plan));
                let (source, stream) = (unless(n, "source", t.resident), unless(n, "stream", t.stream()));
                let to = if n == "out" { null_mut() } else { &raw mut out };
                let status = df11_device_make_linear_image(
                    device,
                    plan,
                    source,
                    image,
                    bytes,
                    scratch,
                    1 << 20,
                    stream,
                    to,
                    error,
                );
                if n == "out" { (status, true) } else { t.taken(status, out) }
            },
        ),
        row("df11_device_bind", &[("device", BAD), ("model", BAD), ("out", BAD)], move |n, error| unsafe {
            let (mut out, (at, bytes)) = (stray(), (t.image, t.image_bytes));
            let (device, model) = (unless(n, "device", t.device), unless(n, "model", t.model));
            if n == "out" {
                return (df11_device_bind(device, model, 0, at, bytes, null_mut(), error), true);
            }
            t.taken(df11_device_bind(device, model, 0, at, bytes, &mut out, error), out)
        }),
        row("df11_device_bind_image", &[("device", BAD), ("head", BAD), ("out", BAD)], move |n, error| unsafe {
            let (mut out, (at, bytes)) = (stray(), (t.image, t.image_bytes));
            let (device, head) = (unless(n, "device", t.device), unless(n, "head", t.host_image.as_ptr().cast()));
            if n == "out" {
                return (df11_device_bind_image(device, head, bytes, at, bytes, null_mut(), error), true);
            }
            t.taken(df11_device_bind_image(device, head, bytes, at, bytes, &mut out, error), out)
        }),
        row("df11_resident_get_info", &[("resident", BAD), ("out", BAD)], |n, error| unsafe {
            let mut out = df11_resident_info { image: 77, ..init() };
            let resident = unless(n, "resident", t.resident);
            let status = df11_resident_get_info(resident, unless(n, "out", &raw mut out), error);
            (status, n == "out" || (status == 0) == (out.image > 0) && out.image != 77)
        }),
        row("df11_resident_free", &[("resident", GOOD)], |n, _| unsafe {
            if n == "resident" {
                df11_resident_free(null_mut());
            }
            (0, true)
        }),
        row(
            "df11_resident_decompress",
            &[("resident", BAD), ("stream", DF11_DEFAULT_STREAM)],
            move |n, error| unsafe {
                let (resident, stream) = (unless(n, "resident", t.resident), unless(n, "stream", t.stream()));
                done(df11_resident_decompress(resident, t.dst, t.bytes, 0, stream, error))
            },
        ),
        row(
            "df11_resident_decompress_range",
            &[("resident", BAD), ("stream", DF11_DEFAULT_STREAM)],
            move |n, error| unsafe {
                let (resident, stream) = (unless(n, "resident", t.resident), unless(n, "stream", t.stream()));
                done(df11_resident_decompress_range(resident, 3, 5, t.dst, t.bytes, 0, stream, error))
            },
        ),
        row(
            "df11_resident_decompress_tensors",
            &[("resident", BAD), ("d_dsts", BAD), ("dst_bytes", BAD), ("stream", DF11_DEFAULT_STREAM)],
            move |n, error| unsafe {
                let mut dsts = vec![0; t.tensors];
                dsts[0] = t.dst;
                let sizes = vec![t.bytes; t.tensors];
                let (d_dsts, bytes) = (unless(n, "d_dsts", dsts.as_ptr()), unless(n, "dst_bytes", sizes.as_ptr()));
                let (resident, stream) = (unless(n, "resident", t.resident), unless(n, "stream", t.stream()));
                done(df11_resident_decompress_tensors(resident, d_dsts, bytes, t.tensors, 0, stream, error))
            },
        ),
        row(
            "df11_resident_decompress_batch",
            &[("residents", BAD), ("d_dsts", BAD), ("dst_bytes", BAD), ("stream", DF11_DEFAULT_STREAM)],
            move |n, error| unsafe {
                let residents = unless(n, "residents", (&raw const t.resident).cast());
                let (d_dsts, bytes) = (unless(n, "d_dsts", &t.dst), unless(n, "dst_bytes", &t.bytes));
                done(df11_resident_decompress_batch(
                    residents,
                    d_dsts,
                    bytes,
                    1,
                    0,
                    unless(n, "stream", t.stream()),
                    error,
                ))
            },
        ),
        row("df11_device_check_linear", &[("device", BAD)], |n, error| unsafe {
            (df11_device_check_linear(unless(n, "device", t.device), 16, 64, 1, error), true)
        }),
        row(
            "df11_linear_get_workspace",
            &[("matrices", BAD), ("options", BAD), ("workspace_bytes", BAD)],
            move |n, error| unsafe {
                let (matrix, options) = t.product();
                let mut bytes = 77;
                let out = unless(n, "workspace_bytes", &raw mut bytes);
                let (matrices, with) = (unless(n, "matrices", &matrix), unless(n, "options", &options));
                let status = df11_linear_get_workspace(matrices, 1, with, out, error);
                df11_resident_free(matrix.resident.cast_mut());
                (status, n == "workspace_bytes" || bytes == 0)
            },
        ),
        row(
            "df11_linear",
            &[("matrices", BAD), ("options", BAD), ("stream", DF11_DEFAULT_STREAM)],
            move |n, error| unsafe {
                let (matrix, options) = t.product();
                let (matrices, with) = (unless(n, "matrices", &matrix), unless(n, "options", &options));
                let outcome = done(df11_linear(matrices, 1, with, unless(n, "stream", t.stream()), error));
                df11_resident_free(matrix.resident.cast_mut());
                outcome
            },
        ),
    ]
}

/// Opens what the calls need, and gives it to `work`.
#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
fn with_things(work: impl FnOnce(&Things)) {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (path, libcuda) = (text(&golden::model("sharded")), text(emulator.path()));
    let (mut model, mut device, mut resident) = (null_mut(), null_mut(), null_mut());
    let options = df11_device_options { libcuda: libcuda.as_ptr(), ..init() };
    let mut group: df11_group_info = init();
    let stream = engine.stream();
    unsafe {
        assert_eq!(df11_model_open(path.as_ptr(), null(), &mut model, null_mut()), 0);
        assert_eq!(df11_device_open(0, &options, &mut device, null_mut()), 0);
        assert_eq!(df11_model_get_group_info(model, 0, &mut group, null_mut()), 0);
    }
    let image_bytes = group.image_bytes as usize;
    let (image, other_image) = (engine.alloc(group.image_bytes), engine.alloc(group.image_bytes));
    let mut host_image = vec![0; image_bytes];
    unsafe {
        assert_eq!(df11_model_write_image(model, 0, host_image.as_mut_ptr().cast(), image_bytes, null_mut()), 0);
        engine.write(image, &host_image);
        assert_eq!(df11_device_bind(device, model, 0, image, image_bytes, &mut resident, null_mut()), 0);
    }
    let bytes = 2 * group.element_count as usize;
    let weights = support::weights::trained_like(5000, 1);
    let (matrix_data, matrix) = matrix_of(&weights);
    let (shard, slice_image) = shard_of(model);
    let (plan, linear_image) = linear_of(model);
    let things = Things {
        original: text(&golden::path("sharded/original.safetensors")),
        source: text(&golden::path("sharded/original.safetensors")),
        scratch: tempfile::tempdir().unwrap(),
        made: Cell::new(0),
        file: std::fs::read(golden::model("tiny").join("model.safetensors")).unwrap(),
        dst: engine.alloc(bytes as u64),
        tensors: group.tensor_count as usize,
        weights,
        matrix_data,
        matrix,
        engine: &engine,
        path,
        libcuda,
        stream,
        model,
        device,
        resident,
        image,
        image_bytes,
        other_image,
        host_image,
        slice_image,
        shard,
        plan,
        linear_image,
        bytes,
    };
    work(&things);
    unsafe {
        df11_matrix_free(matrix);
        df11_shard_free(shard);
        df11_linear_plan_free(plan);
        df11_resident_free(resident);
        df11_device_free(device);
        df11_model_free(model);
    }
    emulator.assert_no_fault();
}

#[test]
fn null_in_the_place_of_every_pointer() {
    with_things(|things| {
        let rows: Vec<Row> =
            [host_rows(things), writer_rows(things), device_rows(things)].into_iter().flatten().collect();
        let declared = functions_of_the_header();
        assert!(declared.len() == rows.len() && rows.len() > 40, "{} and {}", declared.len(), rows.len());
        for Declared { name: function, pointers, error } in declared {
            let row = rows.iter().find(|row| row.function == function);
            let row = row.unwrap_or_else(|| panic!("the header has {function}, and no row here is for it"));
            let listed: BTreeSet<String> = row.arguments.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(listed, pointers, "{function}: its pointers by the row, and by the header");
            if !error {
                for argument in [""].iter().chain(row.arguments.iter().map(|(name, _)| name)) {
                    assert_eq!((row.call)(argument, null_mut()), (0, true), "{function}, {argument} NULL");
                }
                continue;
            }
            for &(argument, want) in [("", GOOD)].iter().chain(row.arguments) {
                let mut error = no_error();
                let (status, clean) = (row.call)(argument, &mut error);
                let at = format!("{function}, {argument} NULL: {status}, {}", said(&error));
                assert!(want == ANY || status == want, "{at}");
                assert!(clean, "{at}: an output is not what it must be");
                // Every call writes the error, after success too; and it may do without.
                assert_eq!((error.status, said(&error).is_empty()), (status, status == 0), "{at}");
                assert_eq!(error.native_code, 0, "{at}");
                assert_eq!((row.call)(argument, null_mut()), (status, true), "{at}, and no error wanted");
            }
        }
    });
}

/// Numbers and addresses that cannot be, in each place of a call that takes some: the outputs are as after every error.
#[test]
#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
fn numbers_beyond_the_last() {
    with_things(|t| unsafe {
        let mut error = no_error();
        let (groups, tensors) = (df11_model_group_count(t.model), df11_model_tensor_count(t.model));
        for beyond in [0, 1, u64::MAX / 2, u64::MAX] {
            let (group, tensor) = (groups.saturating_add(beyond), tensors.saturating_add(beyond));
            let mut info = df11_group_info { element_count: 7, ..init() };
            assert_eq!(df11_model_get_group_info(t.model, group, &mut info, &mut error), DF11_NOT_FOUND);
            assert_eq!(info.element_count, 0);
            let mut info = df11_tensor_info { data_bytes: 7, ..init() };
            assert_eq!(df11_model_get_tensor_info(t.model, tensor, &mut info, &mut error), DF11_NOT_FOUND);
            assert_eq!(info.data_bytes, 0);
            let mut info = df11_part_info { data_bytes: 7, ..init() };
            assert_eq!(df11_model_get_group_part(t.model, group, 0, &mut info, &mut error), DF11_NOT_FOUND);
            assert_eq!(
                df11_model_get_group_part(t.model, 0, 6 + beyond as u32 / 2, &mut info, &mut error),
                DF11_NOT_FOUND
            );
            assert_eq!(info.data_bytes, 0);
            let mut info = df11_run_info { element_count: 7, ..init() };
            assert_eq!(df11_model_get_group_run(t.model, group, 0, &mut info, &mut error), DF11_NOT_FOUND);
            assert_eq!(df11_model_get_tensor_run(t.model, tensor, 0, &mut info, &mut error), DF11_NOT_FOUND);
            let run = 1024u64.saturating_add(beyond);
            assert_eq!(df11_model_get_group_run(t.model, 0, run, &mut info, &mut error), DF11_NOT_FOUND);
            assert_eq!(df11_model_get_tensor_run(t.model, 0, run, &mut info, &mut error), DF11_NOT_FOUND);
            assert_eq!(info.element_count, 0);
            let mut room = vec![0x55u8; t.image_bytes];
            let dst = room.as_mut_ptr().cast();
            assert_eq!(df11_model_decompress(t.model, group, 0, 1, dst, 2, 1, &mut error), DF11_NOT_FOUND);
            assert_eq!(df11_model_read_tensor(t.model, tensor, 0, dst, 2, 1, &mut error), DF11_NOT_FOUND);
            assert_eq!(df11_model_write_image(t.model, group, dst, t.image_bytes, &mut error), DF11_NOT_FOUND);
            let mut out = null_mut::<df11_resident>().wrapping_byte_add(64);
            let bind = df11_device_bind(t.device, t.model, group, t.image, t.image_bytes, &mut out, &mut error);
            assert!(bind == DF11_NOT_FOUND && out.is_null() && said(&error).contains("no group"), "{}", said(&error));
            assert!(room.iter().all(|&byte| byte == 0x55), "something was written");
            let (mut data, mut bytes, none) = (lines(2000), 7, null_mut());
            let to = data.as_mut_ptr().cast();
            let made = df11_model_write_matrix(t.model, tensor, 64, 0, 1, to, 2000, 1, none, &mut bytes, &mut error);
            assert_eq!((made, bytes), (DF11_NOT_FOUND, 0));
            for (first_row, row_count) in [(beyond, u64::MAX), (1 << 40, beyond.saturating_add(1)), (u64::MAX, 1)] {
                let made = df11_model_write_matrix(
                    t.model, 0, 64, first_row, row_count, to, 2000, 1, none, &mut bytes, &mut error,
                );
                assert_eq!((made, bytes), (DF11_INVALID_ARGUMENT, 0), "{}", said(&error));
            }
            for (rows, columns) in [(0, 1), (1, 0), (u64::MAX, beyond.saturating_add(1)), (1 << 40, 1 << 40)] {
                assert_eq!(df11_matrix_bound(rows, columns, &mut bytes, &mut error), DF11_INVALID_ARGUMENT);
                let weights = t.weights.as_ptr();
                let made = df11_matrix_write(weights, rows, columns, to, 2000, 1, none, &mut bytes, &mut error);
                assert_eq!((made, bytes), (DF11_INVALID_ARGUMENT, 0));
            }
            assert!(data.iter().all(|line| line.0 == [0; 64]), "something was written");
            let (mut room, mut y) = ([0x5555u16; 300], [7f32; 4]);
            let to = room.as_mut_ptr().cast();
            let outside = df11_matrix_decompress(t.matrix, 192, beyond.saturating_add(1), to, 600, &mut error);
            assert_eq!(outside, DF11_INVALID_ARGUMENT);
            let x = [1f32; 64].as_ptr().cast();
            for (first, rows, dtype, order) in [
                (3, beyond.max(1), DF11_DTYPE_F32, DF11_ORDER_LANES),
                (beyond, u64::MAX, DF11_DTYPE_F32, DF11_ORDER_LANES),
                (0, 3, 100 + beyond as u32 / 2, DF11_ORDER_LANES),
                (0, 3, DF11_DTYPE_F32, 4 + beyond as u32 / 2),
                (0, 3, DF11_DTYPE_F32, DF11_ORDER_GGML_AVX2),
            ] {
                let y = y.as_mut_ptr();
                let refused = df11_matrix_multiply(t.matrix, first, rows, x, dtype, 64, 1, order, y, 3, &mut error);
                assert_eq!(refused, DF11_INVALID_ARGUMENT, "{first} {rows} {dtype} {order}");
            }
            assert!(room == [0x5555; 300] && y == [7.0; 4], "something was written");
        }
        // Half a weight, and a place for one that no weight may have.
        let mut room = [0x55u8; 9];
        let dst = room.as_mut_ptr();
        let odd = if dst.addr() % 2 == 0 { dst.add(1) } else { dst };
        let even = dst.add(dst.addr() % 2).cast();
        assert_eq!(df11_model_read_tensor(t.model, 0, 0, odd.cast(), 2, 1, &mut error), DF11_MISALIGNED);
        assert_eq!(df11_model_decompress(t.model, 0, 0, 1, odd.cast(), 2, 1, &mut error), DF11_MISALIGNED);
        assert_eq!(df11_model_read_tensor(t.model, 0, 1, even, 2, 1, &mut error), DF11_INVALID_ARGUMENT);
        assert_eq!(df11_model_read_tensor(t.model, 0, 0, even, 3, 1, &mut error), DF11_INVALID_ARGUMENT);
        assert_eq!(room, [0x55; 9]);
        assert_eq!(df11_matrix_decompress(t.matrix, 0, 1, odd.cast(), 2, &mut error), DF11_MISALIGNED);
        assert_eq!(df11_matrix_decompress(t.matrix, 0, 3, even, 5, &mut error), DF11_BUFFER_TOO_SMALL);
        let (data, mut out) = (t.matrix_data.as_ptr().cast::<u8>(), null_mut());
        assert_eq!(df11_matrix_bind(data.add(1).cast(), 500, &mut out, &mut error), DF11_MISALIGNED);
        for bytes in [0, 127, 128, 500] {
            assert_eq!(df11_matrix_bind(data.cast(), bytes, &mut out, &mut error), DF11_INVALID_FORMAT);
        }
        let (x, mut y) = ([1f32; 192], [7f32; 9]);
        let (x, at) = (x.as_ptr().cast(), y.as_mut_ptr());
        let multiply = |y, stride, error: &mut df11_error| {
            df11_matrix_multiply(t.matrix, 0, 3, x, DF11_DTYPE_F32, 64, 3, DF11_ORDER_LANES, y, stride, error)
        };
        assert_eq!(multiply(at, 2, &mut error), DF11_INVALID_ARGUMENT);
        assert_eq!(multiply(at.wrapping_byte_add(2), 3, &mut error), DF11_MISALIGNED);
        assert_eq!(y, [7.0; 9]);
        assert_eq!(multiply(y.as_mut_ptr(), 3, &mut error), DF11_OK);
        assert!(out.is_null() && y[..3] == y[3..6] && y[..3] == y[6..]);
    });
}
