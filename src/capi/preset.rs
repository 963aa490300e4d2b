//! Presets: the groups of published models.

use super::args::Info;
use super::frame::call;
use super::model::c_text;
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::error::{Error, Result};
use crate::writer::presets::Preset;
use std::ffi::{CStr, CString, c_char};
use std::sync::LazyLock;

/// A preset. Begin with DF11_PRESET_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_preset_info {
    /// sizeof(df11_preset_info)
    pub struct_size: usize,
    /// Its name, for df11_compress_options.preset. The text is static.
    pub name: *const c_char,
    /// Its pattern_dict, as JSON. The text is static.
    pub pattern_json: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL texts.
unsafe impl Sizeable for df11_preset_info {
    const NAME: &'static str = "df11_preset_info";
    const FIRST: usize = 24;
}

const _: () = assert!(size_of::<df11_preset_info>() == 24);

/// The name and the patterns of a preset as C texts.
struct PresetTexts {
    name: CString,
    pattern_json: CString,
}

static PRESETS: LazyLock<Vec<PresetTexts>> = LazyLock::new(|| {
    let texts = |p: &Preset| PresetTexts { name: c_text(p.name()), pattern_json: c_text(&p.patterns().to_json()) };
    Preset::all().iter().map(texts).collect()
});

/// Returns the name of a preset, which may be given by another of its names, or `automatic`, as a static text.
pub(super) fn static_name(name: &str) -> Result<Option<&'static CStr>> {
    const AUTOMATIC: &CStr = c"automatic";
    if name == crate::writer::AUTOMATIC {
        return Ok(Some(AUTOMATIC));
    }
    let name = Preset::find(name)?.name();
    let texts = PRESETS.iter().find(|texts| texts.name.as_bytes() == name.as_bytes());
    Ok(texts.map(|texts| texts.name.as_c_str()))
}

/// Returns the number of presets.
#[unsafe(no_mangle)]
pub extern "C" fn df11_preset_count() -> u64 {
    Preset::all().len() as u64
}

/// Describes the preset of that number, from 0. After an error `*out` is cleared except for its
/// struct_size; if that is wrong, `*out` is left alone.
///
/// Errors: DF11_NOT_FOUND if there is no such preset; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_preset_get_info(
    preset: u64,
    out: *mut df11_preset_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || preset_info(preset, Info::new(out))) }
}

fn preset_info(preset: u64, out: Info<df11_preset_info>) -> Result<()> {
    let out = out.clear()?;
    let texts = usize::try_from(preset).ok().and_then(|number| PRESETS.get(number));
    let texts =
        texts.ok_or_else(|| Error::NotFound(format!("there is no preset {preset}: there are {}", PRESETS.len())))?;
    out.set(&df11_preset_info { struct_size: 0, name: texts.name.as_ptr(), pattern_json: texts.pattern_json.as_ptr() })
}
