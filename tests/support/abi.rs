//! The C ABI as Rust tests use it: structs as their _INIT macros make them, errors, texts.

use super::files::{self, Stored};
use super::weights;
use df11::Dtype;
use df11::internals::capi::{
    df11_compress_model, df11_compress_options, df11_compress_report, df11_decompress_options, df11_decompress_report,
    df11_device_info, df11_device_options, df11_error, df11_group_info, df11_image_info, df11_linear_options,
    df11_matrix_info, df11_open_options, df11_packed_group, df11_part_info, df11_plan_group_info, df11_plan_info,
    df11_plan_options, df11_plan_share_info, df11_preset_info, df11_repack_options, df11_repack_report,
    df11_resident_info, df11_run_info, df11_tensor_info, df11_verify_options, df11_verify_report,
};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A struct that begins with its size.
///
/// # Safety
///
/// All zeros are a value, and the first field is a `usize`.
pub unsafe trait Struct: Copy {
    /// Its name in the header.
    const NAME: &'static str;
}

macro_rules! sized {
    ($($name:ident),* $(,)?) => {
        $(
            // SAFETY: numbers, pointers and callbacks; `struct_size` comes first.
            unsafe impl Struct for $name {
                const NAME: &'static str = stringify!($name);
            }
        )*
    };
}
sized!(
    df11_open_options,
    df11_group_info,
    df11_tensor_info,
    df11_part_info,
    df11_run_info,
    df11_verify_report,
    df11_verify_options,
    df11_compress_report,
    df11_compress_options,
    df11_decompress_report,
    df11_decompress_options,
    df11_repack_report,
    df11_repack_options,
    df11_preset_info,
    df11_plan_options,
    df11_plan_info,
    df11_plan_group_info,
    df11_plan_share_info,
    df11_packed_group,
    df11_device_options,
    df11_device_info,
    df11_image_info,
    df11_linear_options,
    df11_matrix_info,
    df11_resident_info,
);

/// Returns a struct of zeros with its size set: what the _INIT macro of the header gives.
pub fn init<T: Struct>() -> T {
    // SAFETY: the trait says that all zeros are a value.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: the trait says that the first field is a `usize`.
    unsafe { (&raw mut value).cast::<usize>().write(size_of::<T>()) };
    value
}

/// Returns an error that no call has written yet.
pub fn no_error() -> df11_error {
    df11_error { status: -7, native_code: -7, message: [0x55; 504] }
}

/// Returns the message of an error that a call has written.
pub fn said(error: &df11_error) -> &str {
    // SAFETY: the library ends its text with a zero.
    unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap()
}

/// Converts a path to the text that C takes.
pub fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// A function that the header declares.
pub struct Declared {
    pub name: String,
    /// Names of the parameters that are pointers, except `error`.
    pub pointers: BTreeSet<String>,
    /// True if it takes an error.
    pub error: bool,
}

/// Reads both headers, one after the other.
pub fn headers() -> String {
    let read =
        |name| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include").join(name)).unwrap();
    read("df11.h") + &read("df11_experimental.h")
}

/// Reads every function declaration of the headers.
pub fn functions_of_the_header() -> Vec<Declared> {
    let header = headers();
    // A macro may go on in the next line.
    let header = header.replace("\\\n", " ");
    let code: Vec<&str> = header.lines().filter(|line| !line.trim_start().starts_with(['/', '*', '#'])).collect();
    let code = code.join(" ");
    let declared = code.split(';').filter_map(|text| {
        let (before, parameters) = text.split_once('(')?;
        let name = before.rsplit([' ', '*']).next()?;
        if !name.starts_with("df11_") || before.contains("typedef") {
            return None;
        }
        let parameters = parameters.trim_end_matches(')').split(',').map(str::trim);
        let pointers = parameters.filter(|p| p.contains('*') || p.starts_with("df11_stream "));
        let mut pointers: BTreeSet<String> =
            pointers.map(|p| p.rsplit([' ', '*']).next().unwrap().to_owned()).collect();
        let error = pointers.remove("error");
        Some(Declared { name: name.to_owned(), pointers, error })
    });
    declared.collect()
}

/// Writes a model of one group of some millions of weights into a folder. Returns the paths of the compressed model and of its
/// original.
pub fn large(folder: &Path) -> (CString, CString) {
    let bf16 = |name: &str, rows: usize, seed| {
        let data = bytemuck::cast_slice(&weights::trained_like(rows * 1024, seed)).to_vec();
        Stored::new(name, Dtype::BF16, &[rows, 1024], data)
    };
    let source = folder.join("original.safetensors");
    std::fs::write(&source, files::file(&[bf16("g.a.weight", 2048, 1), bf16("g.b.weight", 1024, 2)])).unwrap();
    let (source, to) = (text(&source), text(&folder.join("model.safetensors")));
    let options = df11_compress_options { pattern_json: c"{\"g\": [\"a\", \"b\"]}".as_ptr(), ..init() };
    // SAFETY: texts that live for the call, and no report is asked for.
    let status = unsafe { df11_compress_model(source.as_ptr(), to.as_ptr(), &options, std::ptr::null_mut()) };
    assert_eq!(status, 0);
    (to, source)
}
