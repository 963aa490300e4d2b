//! Memory of every space: vectors, widths, parameters, variables, generic addresses, atomics.

use crate::support;

use df11_emulator::memory::{Kind, Memory};
use df11_emulator::ptx::{Launch, Module, Options};
use support::{HEAD, Setup, device, kernel, launch, read, words};

/// Launches `k` of a text with one address as its only parameter, on one thread; what is there after.
fn out(text: &str, bytes: usize, threads: u32) -> Vec<u8> {
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let memory = Memory::new();
    let out = device(&memory, &vec![0; bytes]);
    let launch = Launch {
        function: module.function("k").unwrap(),
        grid: [1; 3],
        block: [threads, 1, 1],
        shared_bytes: 0,
        params: &out.to_le_bytes(),
        memory: &memory,
        options: Options::default(),
    };
    launch.run().unwrap_or_else(|fault| panic!("{fault}"));
    read(&memory, out, bytes)
}

#[test]
fn loads_of_every_width_extend_as_their_type_says() {
    let body = "
        ld.global.u8 %r1, [%in]; ld.global.s8 %r2, [%in]; ld.global.u16 %r3, [%in]; ld.global.s16 %r4, [%in];
        ld.global.s32 %d1, [%in]; ld.global.u32 %d2, [%in]; ld.global.nc.s8 %h1, [%in]; ld.global.u64 %d3, [%in];
        cvt.u32.u16 %r5, %h1;
        st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4};
        st.global.v2.u64 [%out+16], {%d1, %d2};
        st.global.u32 [%out+32], %r5; st.global.u64 [%out+40], %d3;
        st.global.u8 [%out+48], %r2; st.global.u16 [%out+50], %r4; st.global.u16 [%out+52], %h1; st.global.u32 [%out+56], %d3;
        ld.global.v4.u8 {%r6, _, _, %r7}, [%in]; st.global.v2.u8 [%out+60], {%r6, %r7};";
    let input = [0x84, 0x83, 0x82, 0x81, 1, 2, 3, 4].to_vec();
    let ran = launch(&kernel(body), &Setup { block: [1; 3], input, ..Default::default() }).unwrap();
    assert_eq!(
        ran.out[..16],
        [
            0x84,
            0xffff_ff84,
            0x8384,
            0xffff_8384, //
            0x8182_8384,
            0xffff_ffff,
            0x8182_8384,
            0, //
            0xff84,
            0,
            0x8182_8384,
            0x0403_0201, //
            0x8384_0084,
            0x0000_ff84,
            0x8182_8384,
            0x0000_8184,
        ]
    );
}

#[test]
fn shared_memory_static_and_dynamic() {
    let text = format!(
        "{HEAD}
        .extern .shared .align 16 .b8 dynamic[];
        .shared .align 4 .b8 module_wide[12];
        .visible .entry k(.param .u64 k_0) {{
            .reg .b32 %r<9>; .reg .b64 %d<9>;
            .shared .align 2 .b8 own[6];
            ld.param.u64 %d1, [k_0];
            mov.u32 %r1, own; mov.u32 %r2, module_wide; mov.u32 %r3, dynamic; mov.u32 %r4, module_wide+4;
            st.global.v4.u32 [%d1], {{%r1, %r2, %r3, %r4}};
            st.shared.u32 [module_wide+8], %r2; st.shared.u16 [own+4], %r3;
            ld.shared.u32 %r5, [%r2+8]; ld.shared.u16 %r6, [%r1+4];
            st.shared.v4.u32 [dynamic], {{%r5, %r6, %r5, %r6}};
            mov.u64 %d2, dynamic; cvta.shared.u64 %d3, %d2; ld.u64 %d4, [%d3+8];
            st.u32 [%d3+4], 77;
            cvta.to.shared.u64 %d5, %d3; cvt.u32.u64 %r7, %d5; ld.shared.u32 %r8, [%r7+4];
            st.global.u64 [%d1+16], %d4; st.global.u32 [%d1+24], %r8;
            ret;
        }}"
    );
    let module = Module::parse(&text).unwrap();
    let function = module.function("k").unwrap();
    // Static variables as they are named first, own (0 to 6) then module_wide (8 to 20), then dynamic at the next 16.
    assert_eq!(function.static_shared_bytes(), 20);
    let memory = Memory::new();
    let out = device(&memory, &[0; 28]);
    let params = out.to_le_bytes();
    let options = Options::default();
    let (grid, block) = ([1; 3], [1; 3]);
    let mut launch = Launch { function, grid, block, shared_bytes: 16, params: &params, memory: &memory, options };
    launch.run().unwrap();
    let words: Vec<_> =
        read(&memory, out, 28).chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, [0, 8, 32, 12, 8, 32, 77]);
    launch.shared_bytes = 15;
    assert!(launch.run().unwrap_err().to_string().contains("shared memory"));
}

#[test]
fn parameters_of_4096_bytes_by_constant_and_by_register() {
    let text = format!(
        "{HEAD}
        .visible .entry k(.param .u64 k_0, .param .u8 k_1, .param .align 16 .b8 k_2[4064]) {{
            .reg .b32 %r<9>; .reg .b64 %d<9>;
            ld.param.u64 %d1, [k_0]; ld.param.u8 %r1, [k_1];
            mov.u32 %r2, %tid.x; mul.wide.u32 %d2, %r2, 4; mov.b64 %d3, k_2; add.s64 %d4, %d3, %d2;
            ld.param.u32 %r3, [%d4+4032]; ld.param.v2.u32 {{%r4, %r5}}, [k_2+8];
            cvta.param.u64 %d5, %d3; add.s64 %d5, %d5, %d2; ld.u32 %r6, [%d5];
            mul.wide.u32 %d6, %r2, 16; add.s64 %d6, %d1, %d6;
            st.global.v4.u32 [%d6], {{%r1, %r3, %r5, %r6}};
            ret;
        }}"
    );
    let module = Module::parse(&text).unwrap();
    let function = module.function("k").unwrap();
    assert_eq!(function.parameters(), [(0, 8), (8, 1), (16, 4064)]);
    assert_eq!(function.parameter_bytes(), 4080);
    let memory = Memory::new();
    let out = device(&memory, &[0; 128]);
    let mut params = out.to_le_bytes().to_vec();
    params.extend([9; 8]);
    params.extend((0..1016u32).flat_map(u32::to_le_bytes));
    let options = Options::default();
    let (grid, block) = ([1; 3], [8, 1, 1]);
    let mut launch = Launch { function, grid, block, shared_bytes: 0, params: &params, memory: &memory, options };
    launch.run().unwrap();
    let words: Vec<_> =
        read(&memory, out, 128).chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    for (thread, words) in words.chunks(4).enumerate() {
        assert_eq!(words, [9, 1008 + thread as u32, 3, thread as u32]);
    }
    launch.params = &params[..4079];
    assert!(launch.run().unwrap_err().to_string().contains("4079 bytes of parameters"));
    launch.params = &params;
    launch.block = [9, 1, 1];
    assert!(launch.run().unwrap_err().to_string().contains("parameter memory"));
}

#[test]
fn variables_of_a_module() {
    let text = format!(
        "{HEAD}
        .global .align 4 .u32 counter;
        .visible .global .align 8 .u64 pointers[2] = {{counter, table+4}};
        .const .align 4 .b32 table[3] = {{10, -1, 0x20}};
        .visible .entry k(.param .u64 k_0) {{
            .reg .b32 %r<9>; .reg .b64 %d<9>;
            ld.param.u64 %d1, [k_0];
            atom.global.add.u32 %r1, [counter], 5;
            ld.global.u64 %d2, [pointers]; ld.u32 %r2, [%d2];
            ld.global.u64 %d3, [pointers+8]; ld.u32 %r3, [%d3];
            mov.u64 %d4, table; ld.const.u32 %r4, [%d4+8]; ld.const.u32 %r5, [table];
            st.global.v4.u32 [%d1], {{%r1, %r2, %r3, %r4}}; st.global.u32 [%d1+16], %r5;
            ret;
        }}"
    );
    let words: Vec<_> = out(&text, 20, 1).chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, [0, 5, u32::MAX, 32, 10]);
    let module = Module::parse(&text).unwrap();
    let table = module.variable("table").unwrap();
    assert!(table.constant && table.bytes == 12);
    assert_eq!(module.variable("pointers").unwrap().bytes, 16);
    assert!(module.variable("nothing").is_none());
}

#[test]
fn local_memory_belongs_to_a_thread() {
    let body = "
        { .local .align 8 .b8 depot[24]; .reg .b64 %SP, %SPL;
        mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL;
        st.local.u32 [%SPL+4], %t; add.u32 %r1, %t, 100; st.u32 [%SP+8], %r1;
        bar.sync 0;
        ld.u32 %r2, [%SP+4]; ld.local.u32 %r3, [%SPL+8]; mad.lo.u32 %r0, %r2, 1000, %r3; }";
    let got = words(body, 64);
    assert!(got.iter().enumerate().all(|(t, &word)| word == 1000 * t as u32 + t as u32 + 100));
    let module = Module::parse(&kernel(body)).unwrap();
    assert_eq!(module.function("k").unwrap().local_bytes(), 24);
}

#[test]
fn generic_addresses_of_several_spaces_in_one_access() {
    // Even lanes read shared, odd lanes global memory.
    let body = "
        shl.b32 %r1, %t, 2; mov.u32 %r2, dynamic; add.u32 %r3, %r2, %r1; st.shared.u32 [%r3], %t; bar.warp.sync -1;
        cvt.u64.u32 %d1, %r3; cvta.shared.u64 %d2, %d1; cvt.u64.u32 %d3, %r1; add.s64 %d4, %in, %d3;
        and.b32 %r4, %t, 1; setp.eq.u32 %p1, %r4, 1; selp.b64 %d5, %d4, %d2, %p1;
        isspacep.shared %p2, %d5; isspacep.global %p3, %d5; xor.pred %p4, %p2, %p3; @!%p4 trap;
        ld.u32 %r0, [%d5]; st.u32 [%d5], %t; atom.add.u32 %r5, [%d5], 1; ld.u32 %r6, [%d5]; @%p1 add.u32 %r0, %r0, %r6;";
    let got = words(body, 32);
    assert!(
        got.iter().enumerate().all(|(t, &word)| word == if t % 2 == 0 { t as u32 } else { t as u32 + 1 }),
        "{got:?}"
    );
}

#[test]
fn atomics() {
    // Threads 0 to 31 in order, as the interpreter runs the lanes of a warp; the sum is the same in any order.
    for (operation, start, want) in [
        ("add.u32", 5u32, 5 + 32 * 31 / 2),
        ("min.s32", 5, 0),
        ("max.u32", 5, 31),
        ("max.s32", u32::MAX, 31),
        ("min.u32", u32::MAX, 0),
        ("and.b32", u32::MAX, 0),
        ("or.b32", 0x40, 0x5f),
        ("xor.b32", 0x40, 0x40),
        ("exch.b32", 7, 31),
    ] {
        for shared in [false, true] {
            let (space, at) = if shared { ("shared", "[dynamic]") } else { ("global", "[%out+128]") };
            let body = format!(
                "setp.eq.u32 %p1, %t, 0; @%p1 st.{space}.u32 {at}, {start}; bar.sync 0;
                atom.{space}.{operation} %r1, {at}, %t; bar.sync 0; ld.{space}.u32 %r0, {at};
                @%p1 st.global.u32 [%out], %r0;"
            );
            let ran = launch(&kernel(&body), &Setup { shared: 16, ..Default::default() }).unwrap();
            assert_eq!(ran.out[0], want, "{operation} {space}");
        }
    }
    let body = "
        atom.global.inc.u32 %r1, [%out+200], 2; atom.global.dec.u32 %r2, [%out+204], 2;
        atom.relaxed.gpu.global.cas.b32 %r3, [%out+208], %t, 9; red.global.add.u32 [%out+212], 2;
        atom.global.add.u64 %d1, [%out+216], 0x100000001; atom.global.max.s64 %d2, [%out+224], -1;
        atom.global.cas.b64 %d3, [%out+232], 0, 0x500000000; mad.lo.u32 %r0, %r1, 100, %r2;";
    let body = format!("{body} mad.wide.u32 %d39, %t, 4, %out; st.global.u32 [%d39], %r0;");
    let ran = launch(&kernel(&body), &Setup { block: [4, 1, 1], ..Default::default() }).unwrap();
    // inc: 0 1 2 0; dec: 0 2 1 0. Thread 0 swaps 0 for 9; nobody swaps after that.
    assert_eq!(ran.out[..4], [0, 102, 201, 0]);
    assert_eq!(ran.out[50..60], [1, 2, 9, 8, 4, 4, 0, 0, 0, 5]);
}

#[test]
fn blocks_on_several_threads_add_up() {
    let body = "mov.u32 %r1, %ctaid.x; atom.global.add.u32 %r2, [%out], %r1; atom.global.or.b32 %r3, [%out+4], %t;
        mad.lo.u32 %r4, %r1, 64, %t; mul.wide.u32 %d1, %r4, 4; add.s64 %d1, %d1, %out; st.global.u32 [%d1+8], %r4;";
    let setup = |threads| Setup {
        grid: [300, 1, 1],
        block: [64, 1, 1],
        out_bytes: 8 + 4 * 64 * 300,
        options: Options { threads, ..Default::default() },
        ..Default::default()
    };
    let one = launch(&kernel(body), &setup(1)).unwrap();
    let many = launch(&kernel(body), &setup(5)).unwrap();
    assert_eq!(one.out[0], 64 * 300 * 299 / 2);
    assert!(one.out == many.out && one.counts == many.counts);
    assert_eq!(one.counts.blocks, 300);
}

#[test]
fn pinned_and_registered_memory_is_reached_at_its_own_address() {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 k_0, .param .u64 k_1) {{ .reg .b64 %d<3>; .reg .b32 %r1;
        ld.param.u64 %d1, [k_0]; ld.param.u64 %d2, [k_1]; ld.global.u32 %r1, [%d2]; st.global.u32 [%d1], %r1; ret; }}"
    );
    let module = Module::parse(&text).unwrap();
    let memory = Memory::new();
    let pinned = memory.alloc(4, Kind::HostPinned, 0).unwrap();
    let own = [0x1234_5678u32, 0];
    let at = own.as_ptr() as u64;
    assert!(memory.register(at, 4, Kind::HostRegistered, 0, true));
    let run = |from: u64, to: u64| {
        let params = [to.to_le_bytes(), from.to_le_bytes()].concat();
        let function = module.function("k").unwrap();
        let options = Options::default();
        let (grid, block) = ([1; 3], [1; 3]);
        Launch { function, grid, block, shared_bytes: 0, params: &params, memory: &memory, options }.run()
    };
    run(at, pinned).unwrap();
    assert_eq!(read(&memory, pinned, 4), own[0].to_le_bytes());
    assert!(run(at + 4, pinned).unwrap_err().to_string().contains("OutOfBounds"), "only 4 bytes are registered");
    assert!(run(pinned, at).unwrap_err().to_string().contains("ReadOnly"));
    memory.free(pinned).unwrap();
    assert!(run(at, pinned).unwrap_err().to_string().contains("in no live memory"));
}
