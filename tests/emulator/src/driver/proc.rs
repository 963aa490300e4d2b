//! `cuGetProcAddress`: entry points by the name without a version, as libraries and runtimes ask for them.

use std::ffi::{CStr, c_char};

use super::codes::*;
use super::entry::{Call, entries, put, put_if};

/// Entry points that came after CUDA 11.0, with the version that brought them: an older driver does not have them.
const SINCE: &[(&str, i32)] = &[
    ("cuMemAllocAsync", 11020),
    ("cuMemFreeAsync", 11020),
    ("cuMemAllocFromPoolAsync", 11020),
    ("cuDeviceGetDefaultMemPool", 11020),
    ("cuDeviceGetMemPool", 11020),
    ("cuGetProcAddress", 11030),
    ("cuGraphDebugDotPrint", 11030),
    ("cuGraphInstantiateWithFlags", 11040),
    ("cuDeviceGetUuid_v2", 11040),
    ("cuCtxCreate_v3", 11040),
    ("cuModuleGetLoadingMode", 11070),
    ("cuLaunchKernelEx", 11060),
    ("cuGetProcAddress_v2", 12000),
    ("cuGraphInstantiateWithParams", 12000),
    ("cuGraphExecUpdate_v2", 12000),
    ("cuLibraryLoadData", 12000),
    ("cuLibraryUnload", 12000),
    ("cuLibraryGetKernel", 12000),
    ("cuLibraryGetModule", 12000),
    ("cuKernelGetFunction", 12000),
    ("cuKernelSetAttribute", 12000),
    ("cuStreamGetId", 12000),
    ("cuCtxGetId", 12000),
    ("cuFuncGetName", 12030),
    ("cuFuncLoad", 12040),
    ("cuFuncIsLoaded", 12040),
    ("cuModuleGetFunctionCount", 12040),
    ("cuDeviceGetDevResource", 12040),
    ("cuCtxGetDevResource", 12040),
    ("cuGreenCtxGetDevResource", 12040),
    ("cuDevSmResourceSplitByCount", 12040),
    ("cuDevResourceGenerateDesc", 12040),
    ("cuGreenCtxCreate", 12040),
    ("cuGreenCtxDestroy", 12040),
    ("cuCtxFromGreenCtx", 12040),
    ("cuGreenCtxStreamCreate", 12050),
    ("cuStreamGetCtx_v2", 12050),
    ("cuGreenCtxGetId", 13000),
];

/// Returns the entry points that a driver of that CUDA version does not have, with their twins.
pub fn newer_than(version: i32) -> Vec<&'static str> {
    let newer = |name: &str| {
        let bare = name.trim_end_matches("_ptsz").trim_end_matches("_ptds");
        SINCE.iter().any(|(known, since)| *known == bare && *since > version)
    };
    super::names().into_iter().filter(|name| newer(name)).collect()
}

/// The result of a look-up.
enum Found {
    Here(usize),
    Nothing,
    TooNew,
}

impl Call {
    /// Returns the newest form of an entry point that a caller of that CUDA version may have.
    fn look_up(&self, name: &str, version: i32, twins: bool) -> Found {
        if self.config.missing.contains(name)
            || name.contains("_v")
            || name.ends_with("_ptsz")
            || name.ends_with("_ptds")
        {
            return Found::Nothing;
        }
        let mut too_new = false;
        let forms = [format!("{name}_v4"), format!("{name}_v3"), format!("{name}_v2"), name.to_string()];
        for form in forms {
            let Some(address) = super::address(&form) else { continue };
            if self.config.missing.contains(&form) {
                continue;
            }
            let since = SINCE.iter().find(|(known, _)| *known == form).map_or(0, |(_, since)| *since);
            if since > version || since > self.config.driver {
                too_new = true;
                continue;
            }
            let twin = ["_ptsz", "_ptds"].iter().find_map(|tail| super::address(&format!("{form}{tail}")));
            return Found::Here(if twins { twin.unwrap_or(address) } else { address });
        }
        if too_new { Found::TooNew } else { Found::Nothing }
    }
}

entries! {
    /// The address of an entry point, or NOT_FOUND.
    Nothing fn cuGetProcAddress(call, name: *const c_char, address: *mut usize, version: i32, flags: u64) {
        if name.is_null() || flags > 2 { return Err(INVALID_VALUE) }
        put(address, 0)?;
        match call.look_up(&CStr::from_ptr(name).to_string_lossy(), version, flags == 2) {
            Found::Here(found) => put(address, found),
            _ => Err(NOT_FOUND),
        }
    }

    /// The same; with a place for the reason the call itself succeeds, and the address is NULL.
    Nothing fn cuGetProcAddress_v2(
        call, name: *const c_char, address: *mut usize, version: i32, flags: u64, status: *mut i32,
    ) {
        if name.is_null() || flags > 2 { return Err(INVALID_VALUE) }
        put(address, 0)?;
        let reason = match call.look_up(&CStr::from_ptr(name).to_string_lossy(), version, flags == 2) {
            Found::Here(found) => { put(address, found)?; 0 }
            Found::Nothing => 1,
            Found::TooNew => 2,
        };
        put_if(status, reason);
        if reason != 0 && status.is_null() { Err(NOT_FOUND) } else { Ok(()) }
    }

    /// The tables that NVIDIA's runtime asks for are not public.
    Nothing fn cuGetExportTable(_call, table: *mut usize, _id: *const u8) {
        put(table, 0)?;
        Err(NOT_FOUND)
    }
}
