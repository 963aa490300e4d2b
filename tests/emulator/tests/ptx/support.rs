//! Small kernels for the tests: written around a body, launched on fresh memory.

#![allow(dead_code)] // each test takes the part that it needs

use df11_emulator::memory::{Kind, Memory};
use df11_emulator::ptx::{Counts, Fault, Launch, Module, Options};

/// What stands before every kernel.
pub const HEAD: &str = ".version 8.0\n.target sm_75\n.address_size 64\n";

/// Returns a kernel `k` with two addresses as parameters, and registers of every kind. `%out` and `%in` hold the addresses, `%t`
/// the thread's number. The body begins at line 16.
pub fn kernel(body: &str) -> String {
    format!(
        "{HEAD}.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 k_0, .param .u64 k_1)
{{
.reg .pred %p<20>;
.reg .b16 %h<20>;
.reg .b32 %r<40>;
.reg .b64 %d<40>;
.reg .b64 %out, %in;
.reg .b32 %t;
ld.param.u64 %out, [k_0];
ld.param.u64 %in, [k_1];
mov.u32 %t, %tid.x;
{body}
ret;
}}
"
    )
}

/// The line of a body's first line.
pub const BODY: u32 = 16;

/// What a launch left.
pub struct Ran {
    pub counts: Counts,
    pub out: Vec<u32>,
}

/// How to launch.
pub struct Setup {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    /// Bytes of `out`, all 0 before.
    pub out_bytes: usize,
    /// What is in `in`; at least a byte.
    pub input: Vec<u8>,
    pub options: Options,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            grid: [1; 3],
            block: [32, 1, 1],
            shared: 0,
            out_bytes: 4096,
            input: vec![0; 4096],
            options: Options::default(),
        }
    }
}

/// Device memory with these bytes.
pub fn device(memory: &Memory, bytes: &[u8]) -> u64 {
    let address = memory.alloc(bytes.len() as u64, Kind::Device, 0).expect("memory");
    // SAFETY: the range was just allocated with that length.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    address
}

/// Returns what is in device memory.
pub fn read(memory: &Memory, address: u64, bytes: usize) -> Vec<u8> {
    let range = memory.range_of(address).expect("a live range");
    assert!(range.contains(address, bytes as u64));
    // SAFETY: the range is live and nothing runs.
    unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }.to_vec()
}

/// Launches kernel `k` of a text.
pub fn launch(text: &str, setup: &Setup) -> Result<Ran, Fault> {
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let memory = Memory::new();
    let out = device(&memory, &vec![0; setup.out_bytes]);
    let input = device(&memory, &setup.input);
    let params = [out.to_le_bytes(), input.to_le_bytes()].concat();
    let counts = Launch {
        function: module.function("k").expect("kernel k"),
        grid: setup.grid,
        block: setup.block,
        shared_bytes: setup.shared,
        params: &params,
        memory: &memory,
        options: setup.options.clone(),
    }
    .run()?;
    assert!(memory.range_of(out).unwrap().guards_intact() && memory.range_of(input).unwrap().guards_intact());
    let bytes = read(&memory, out, setup.out_bytes);
    let out = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    Ok(Ran { counts, out })
}

/// Runs a body that leaves a word in `%r0` of every thread, on one block of so many threads.
pub fn words(body: &str, threads: u32) -> Vec<u32> {
    let body = format!("{body}\nmad.wide.u32 %d39, %t, 4, %out;\nst.global.u32 [%d39], %r0;");
    let setup = Setup { block: [threads, 1, 1], out_bytes: 4 * threads as usize, shared: 4096, ..Default::default() };
    launch(&kernel(&body), &setup).unwrap_or_else(|fault| panic!("{fault}\n{body}")).out
}

/// Runs a body that must fail.
pub fn fault(body: &str, setup: &Setup) -> Fault {
    match launch(&kernel(body), setup) {
        Err(fault) => fault,
        Ok(_) => panic!("no fault in\n{body}"),
    }
}
