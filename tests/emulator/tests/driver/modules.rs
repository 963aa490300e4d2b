//! Modules, functions and launches: what the posed driver compiles, what a launch may ask for, lazy loading.

use std::ffi::{CStr, CString, c_void};

use crate::support::*;

/// Loads a text, and returns the code.
fn code_of(ptx: &str) -> i32 {
    let text = CString::new(ptx).unwrap();
    // SAFETY: a text with a zero at its end.
    code!(cuModuleLoadData(&mut 0, text.as_ptr().cast()))
}

/// Returns the same PTX with another version and target.
fn with(version: &str, target: &str) -> String {
    PTX.replace(".version 8.0", &format!(".version {version}")).replace("sm_75", target)
}

#[test]
fn ptx_that_the_posed_driver_does_not_know_is_refused() {
    let (_turn, _) = with_context(&[("driver", "12000"), ("cc", "80")]);
    assert_eq!(code_of(PTX), 0);
    assert_eq!(code_of(&with("8.1", "sm_75")), UNSUPPORTED_PTX_VERSION);
    assert_eq!(code_of(&with("8.0", "sm_80")), 0);
    assert_eq!(code_of(&with("8.0", "sm_86")), INVALID_PTX);
    assert_eq!(code_of(&with("8.0", "sm_90")), INVALID_PTX);
    assert_eq!(code_of(&PTX.replace("add.s32", "frobnicate.s32")), INVALID_PTX);
    assert_eq!(code_of("hello"), INVALID_IMAGE);
    fails!(INVALID_VALUE, cuModuleLoadData(&mut 0, std::ptr::null()));
    control("driver", "12010");
    assert_eq!(code_of(&with("8.1", "sm_75")), 0);
    control("jit", "0");
    assert_eq!(code_of(PTX), JIT_COMPILER_NOT_FOUND);
}

#[test]
fn the_error_log_says_what_was_wrong() {
    let (_turn, _) = with_context(&[]);
    let text = CString::new(PTX.replace("add.s32", "frobnicate.s32")).unwrap();
    let mut log = [b'x'; 300];
    let options = [6, 5];
    let mut values = [300usize as *mut c_void, log.as_mut_ptr().cast()];
    let mut module = 0;
    fails!(
        INVALID_PTX,
        cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options.as_ptr(), values.as_mut_ptr())
    );
    let log = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
    assert!(log.contains("frobnicate") || log.contains("line"), "{log}");
    assert_eq!(values[0] as usize, log.len() + 1);
}

/// Returns an ELF header such as NVRTC 12.9 gives a cubin for that architecture.
fn cubin(sm: u8) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..4].copy_from_slice(b"\x7fELF");
    let flags: u32 = if sm < 100 { 0x0000_0500 | u32::from(sm) } else { 0x0600_0002 | u32::from(sm) << 8 };
    bytes[8] = if sm < 100 { 7 } else { 8 };
    bytes[48..52].copy_from_slice(&flags.to_le_bytes());
    bytes
}

#[test]
fn cubins_are_refused_or_run_as_the_ptx_that_is_told() {
    let (_turn, _) = with_context(&[("cc", "86")]);
    let load = |sm| {
        let mut module = 0;
        // SAFETY: an ELF header.
        (code!(cuModuleLoadData(&mut module, cubin(sm).as_ptr().cast())), module)
    };
    assert_eq!(load(86).0, NO_BINARY_FOR_GPU);
    control("accept_cubin", "1");
    assert_eq!(load(86).0, NO_BINARY_FOR_GPU, "nothing is known to run for it");
    let folder = tempfile();
    let path = folder.join("kernels.ptx");
    std::fs::write(&path, PTX).unwrap();
    control("cubin_ptx", path.to_str().unwrap());
    for (sm, code) in [(86, 0), (80, 0), (89, NO_BINARY_FOR_GPU), (75, NO_BINARY_FOR_GPU), (90, NO_BINARY_FOR_GPU)] {
        assert_eq!(load(sm).0, code, "sm_{sm}");
    }
    let (_, module) = load(80);
    function(module, "add");
    control("cc", "103");
    control("driver", "12080");
    for (sm, code) in [(100, 0), (90, NO_BINARY_FOR_GPU), (120, NO_BINARY_FOR_GPU)] {
        assert_eq!(load(sm).0, code, "sm_{sm}");
    }
    control("driver", "12040");
    assert_eq!(load(100).0, INVALID_IMAGE, "older than the ABI");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn cubins_run_as_machine_code_or_not_at_all() {
    let (_turn, _) = with_context(&[("cc", "90"), ("accept_cubin", "1"), ("nvdisasm", "/nonexistent/nvdisasm")]);
    let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/prebuilt/decode.sm_");
    let load = |sm: i32| {
        let bytes = std::fs::read(format!("{whole}{sm}.cubin")).unwrap();
        let mut module = 0;
        code!(cuModuleLoadData(&mut module, bytes.as_ptr().cast()))
    };
    let ptx = std::ffi::CString::new(PTX).unwrap();
    let mut module = 0;
    ok!(cuModuleLoadData(&mut module, ptx.as_ptr().cast()));
    // There is no disassembler; and the PTX, which is known, does not stand in for it.
    assert_eq!(load(90), UNKNOWN);
    control("nvdisasm", "/bin/true");
    assert_eq!(load(90), UNKNOWN, "a listing without kernels");
    assert_eq!(load(80), NO_BINARY_FOR_GPU, "another architecture");
    control("nvdisasm", "");
    assert_eq!(load(90), 0);
    assert_eq!(query("machine_code"), 0);
}

/// Returns a folder of this test's own.
fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("df11-emulator-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn launches_are_held_to_what_device_and_function_allow() {
    let (_turn, _) = with_context(&[("cc", "90")]);
    let module = load(PTX);
    let (few, big) = (function(module, "few"), function(module, "big"));
    let launch = |function, grid: [u32; 3], block: [u32; 3], shared| {
        let ([x, y, z], [a, b, c]) = (grid, block);
        // SAFETY: functions without parameters.
        code!(cuLaunchKernel(function, x, y, z, a, b, c, shared, 0, std::ptr::null(), std::ptr::null()))
    };
    assert_eq!(launch(few, [1; 3], [64, 1, 1], 0), 0);
    for (grid, block) in [
        ([0, 1, 1], [1; 3]),
        ([1, 65_536, 1], [1; 3]),
        ([1, 1, 65_536], [1; 3]),
        ([1 << 31, 1, 1], [1; 3]),
        ([1; 3], [0, 1, 1]),
        ([1; 3], [65, 1, 1]),
        ([1; 3], [1, 1, 65]),
        ([1; 3], [1025, 1, 1]),
    ] {
        assert_eq!(launch(few, grid, block, 0), INVALID_VALUE, "{grid:?} {block:?}");
    }
    // 48 KiB together with the static bytes, until more was asked for; then what the device has.
    assert_eq!(launch(few, [1; 3], [1; 3], 48 << 10), 0);
    assert_eq!(launch(few, [1; 3], [1; 3], (48 << 10) + 1), INVALID_VALUE);
    assert_eq!(launch(big, [1; 3], [1; 3], 32 << 10), 0);
    assert_eq!(launch(big, [1; 3], [1; 3], (32 << 10) + 1), INVALID_VALUE);
    let most = (227 << 10) - (16 << 10);
    fails!(INVALID_VALUE, cuFuncSetAttribute(big, 8, most + 1));
    fails!(INVALID_VALUE, cuFuncSetAttribute(big, 0, 32));
    ok!(cuFuncSetAttribute(big, 8, most));
    let told: i32 = get!(cuFuncGetAttribute(8, big));
    assert_eq!(told, most);
    assert_eq!(launch(big, [1; 3], [1; 3], most as u32), 0);
    assert_eq!(launch(big, [1; 3], [1; 3], most as u32 + 1), INVALID_VALUE);
    let attribute = |number, function| -> i32 { get!(cuFuncGetAttribute(number, function)) };
    assert_eq!([attribute(0, few), attribute(1, big), attribute(5, big), attribute(6, big)], [64, 16 << 10, 75, 90]);
    ok!(cuCtxSynchronize());
}

#[test]
fn parameters_come_from_pointers_or_from_one_buffer() {
    let (_turn, _) = with_context(&[]);
    let (f, p) = (add(), words([0; 4]));
    let launch = |params: *const *const u8, extra: *const usize| {
        // SAFETY: as the test says.
        code!(cuLaunchKernel(f, 1, 1, 1, 4, 1, 1, 0, 0, params, extra))
    };
    assert_eq!(launch(std::ptr::null(), std::ptr::null()), INVALID_VALUE);
    assert_eq!(launch([std::ptr::null(); 2].as_ptr(), std::ptr::null()), INVALID_VALUE);
    let mut buffer = [0u8; 12];
    buffer[..8].copy_from_slice(&p.to_le_bytes());
    buffer[8..].copy_from_slice(&5u32.to_le_bytes());
    for (bytes, code) in [(12usize, 0), (11, INVALID_VALUE)] {
        let extra = [1, buffer.as_ptr() as usize, 2, &raw const bytes as usize, 0];
        assert_eq!(launch(std::ptr::null(), extra.as_ptr()), code, "{bytes}");
    }
    ok!(cuCtxSynchronize());
    assert_eq!(peek(p), [5; 4]);
    #[repr(C)]
    struct Config([u32; 7], usize, usize, u32);
    let config = Config([1, 1, 1, 4, 1, 1, 0], 0, 0, 0);
    let value = 2u32;
    let params = [(&raw const p).cast::<u8>(), (&raw const value).cast()];
    ok!(cuLaunchKernelEx((&raw const config).cast(), f, params.as_ptr(), std::ptr::null()));
    ok!(cuCtxSynchronize());
    assert_eq!(peek(p), [7; 4]);
}

/// A kernel that may start early must wait before it writes: the one of [`PTX`] does not.
#[test]
fn launches_that_start_early_must_wait() {
    let early = PTX.replace(".target sm_75", ".target sm_90");
    let waiting = early
        .replace("    st.global", "    griddepcontrol.launch_dependents;\n    griddepcontrol.wait;\n    st.global");
    assert_ne!(waiting, early);
    #[repr(C)]
    struct Attribute(u32, u32, [u64; 8]);
    #[repr(C)]
    struct Config([u32; 7], usize, *const Attribute, u32);
    for (cc, text, id, launched, ran) in [
        ("90", &waiting, 6, 0, 0),
        ("90", &early, 0, 0, 0),
        ("90", &early, 6, 0, LAUNCH_FAILED),
        ("90", &waiting, 4, NOT_SUPPORTED, 0),
        ("75", &PTX.to_owned(), 6, NOT_SUPPORTED, 0),
    ] {
        let (_turn, _) = with_context(&[("cc", cc)]);
        let module = load(text);
        let (f, p) = (function(module, "add"), words([0; 4]));
        let attribute = Attribute(id, 0, [1, 0, 0, 0, 0, 0, 0, 0]);
        let config = Config([1, 1, 1, 4, 1, 1, 0], 0, &attribute, 1);
        let value = 3u32;
        let params = [(&raw const p).cast::<u8>(), (&raw const value).cast()];
        // SAFETY: a configuration with its attribute, and the kernel's parameters.
        let code = code!(cuLaunchKernelEx((&raw const config).cast(), f, params.as_ptr(), std::ptr::null()));
        assert_eq!(code, launched, "{cc} {id}");
        assert_eq!(code!(cuCtxSynchronize()), ran, "{cc} {id}");
        if (launched, ran) == (0, 0) {
            assert_eq!(peek(p), [3; 4]);
            assert_eq!(query(&format!("launch.{}.early", query("launches") - 1)), u64::from(id == 6));
        }
    }
}

#[test]
fn variables_are_memory_while_their_module_lives() {
    let (_turn, _) = with_context(&[]);
    let module = load(PTX);
    let (mut address, mut bytes) = (0, 0);
    ok!(cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"counter".as_ptr()));
    assert_eq!(bytes, 4);
    fails!(NOT_FOUND, cuModuleGetGlobal_v2(&mut 0, &mut 0, module, c"none".as_ptr()));
    ok!(cuLaunchKernel(function(module, "bump"), 1, 1, 1, 1, 1, 1, 0, 0, std::ptr::null(), std::ptr::null()));
    let mut value = 0u32;
    ok!(cuMemcpyDtoH_v2((&raw mut value).cast(), address, 4));
    assert_eq!(value, 8);
    ok!(cuMemsetD32_v2(address, 40, 1));
    ok!(cuLaunchKernel(function(module, "bump"), 1, 1, 1, 1, 1, 1, 0, 0, std::ptr::null(), std::ptr::null()));
    ok!(cuMemcpyDtoH_v2((&raw mut value).cast(), address, 4));
    assert_eq!(value, 41);
    ok!(cuModuleUnload(module));
    fails!(INVALID_VALUE, cuMemcpyDtoH_v2((&raw mut value).cast(), address, 4));
}

#[test]
fn unloading_waits_and_ends_the_functions() {
    let (_turn, _) = with_context(&[]);
    let (module, p, s) = (load(PTX), words([0; 4]), stream());
    let f = function(module, "add");
    assert_eq!(f, function(module, "add"));
    assert_eq!(launch_add(f, p, 1, 4, s), 0);
    ok!(cuModuleUnload(module));
    assert_eq!(peek(p), [1; 4]);
    assert_eq!(launch_add(f, p, 1, 4, s), INVALID_HANDLE);
    fails!(INVALID_HANDLE, cuFuncGetAttribute(&mut 0, 0, f));
    // A graph that still has the kernel is found out when it runs.
    let f = add();
    ok!(cuStreamBeginCapture_v2(s, 0));
    assert_eq!(launch_add(f, p, 1, 4, s), 0);
    let mut graph = 0;
    ok!(cuStreamEndCapture(s, &mut graph));
    let exec: usize = get!(cuGraphInstantiateWithFlags(graph, 0));
    let owner: usize = get!(cuFuncGetModule(f));
    ok!(cuModuleUnload(owner));
    ok!(cuGraphLaunch(exec, s));
    fails!(ILLEGAL_ADDRESS, cuStreamSynchronize(s));
    assert!(text("fault").contains("unloaded"), "{}", text("fault"));
}

#[test]
fn functions_are_loaded_at_first_use() {
    let (_turn, _) = with_context(&[]);
    let module = load(PTX);
    let f = function(module, "few");
    let loaded = |f| -> i32 { get!(cuFuncIsLoaded(f)) };
    let mode: i32 = get!(cuModuleGetLoadingMode());
    assert_eq!((mode, loaded(f)), (2, 0));
    ok!(cuFuncSetAttribute(f, 8, 0));
    assert_eq!(loaded(f), 1);
    let f = function(module, "big");
    ok!(cuFuncLoad(f));
    assert_eq!((loaded(f), query("lazy_loads")), (1, 0));
}

#[test]
fn occupancy_counts_threads_blocks_and_shared_memory() {
    let (_turn, _) = with_context(&[("cc", "90"), ("sms", "10")]);
    let f = add();
    let blocks = |block, dynamic| -> i32 { get!(cuOccupancyMaxActiveBlocksPerMultiprocessor(f, block, dynamic)) };
    assert_eq!([blocks(1024, 0), blocks(256, 0), blocks(32, 0), blocks(33, 0)], [2, 8, 32, 32]);
    assert_eq!([blocks(256, 100 << 10), blocks(256, 227 << 10), blocks(256, 228 << 10)], [2, 1, 0]);
    let (mut grid, mut block) = (0, 0);
    ok!(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, f, None, 0, 0));
    assert_eq!((grid * block, grid % 10), (20_480, 0));
}
