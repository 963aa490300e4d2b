//! Kernels with planted faults: each must be caught, at its line, in its thread, with its kind, and for its reason.

use crate::support;

use df11_emulator::ptx::{Fault, FaultKind, Options};
use support::{BODY, Setup, fault, kernel, launch};

/// A fault of the body's given line (from 0), of that thread, with these words.
#[track_caller]
fn expect(fault: Fault, kind: FaultKind, line: u32, thread: u32, words: &str) {
    let text = fault.to_string();
    assert_eq!(fault.kind, kind, "{text}");
    assert_eq!(fault.line, BODY + line, "{text}");
    assert_eq!(fault.thread, [thread, 0, 0], "{text}");
    assert_eq!(fault.kernel, "k");
    assert!(fault.what.contains(words), "{text}");
}

fn setup(threads: u32) -> Setup {
    Setup { block: [threads, 1, 1], shared: 256, ..Default::default() }
}

#[test]
fn early_kernels_wait_before_they_write_or_end() {
    let early = Setup { out_bytes: 4096, options: Options { early: true, ..Options::default() }, ..setup(64) };
    let wait = "griddepcontrol.wait;";
    launch(&kernel(&format!("{wait}\nst.global.u32 [%out], %t;")), &early).unwrap();
    launch(&kernel(&format!("griddepcontrol.launch_dependents;\nld.global.u8 %r1, [%out];\n{wait}")), &early).unwrap();
    for (body, line, thread, words) in [
        ("nanosleep.u32 1;\nst.global.u32 [%out], %t;", 1, 0, "writes"),
        ("red.global.add.u32 [%out], 1;", 0, 0, "writes"),
        ("setp.ne.u32 %p1, %t, 37;\n@%p1 griddepcontrol.wait;\nst.global.u32 [%out], %t;", 2, 37, "writes"),
    ] {
        expect(fault(body, &early), FaultKind::Early, line, thread, words);
    }
    assert_eq!(fault("nanosleep.u32 1;", &early).kind, FaultKind::Early);
    launch(&kernel("st.global.u32 [%out], %t;"), &Setup { out_bytes: 4096, ..setup(64) }).unwrap();
}

#[test]
fn one_byte_beyond_global_memory() {
    let load = |bytes: usize, offset: i64, ty: &str| {
        let body = format!("nanosleep.u32 1;\nld.global.{ty} %r1, [%in+{offset}];");
        launch(&kernel(&body), &Setup { block: [1; 3], input: vec![0; bytes], ..Default::default() }).map(|_| ())
    };
    for (bytes, offset, ty) in [(7, 6, "u8"), (8, 6, "u16"), (12, 8, "u32"), (1, 0, "u8")] {
        load(bytes, offset, ty).unwrap();
    }
    for (bytes, offset, ty) in [(7, 7, "u8"), (7, 6, "u16"), (11, 8, "u32"), (7, -1, "u8"), (8, -4, "u32")] {
        expect(load(bytes, offset, ty).unwrap_err(), FaultKind::OutOfBounds, 1, 0, "in no live memory");
    }
    let store = fault("st.global.v4.u32 [%out+4084], {%t, %t, %t, %t};", &Setup { out_bytes: 4096, ..setup(1) });
    assert_eq!(store.kind, FaultKind::Misaligned);
    let body = "mul.wide.u32 %d1, %t, 16; add.s64 %d1, %d1, %out;\nst.global.v4.u32 [%d1], {%t, %t, %t, %t};";
    launch(&kernel(body), &Setup { out_bytes: 512, ..setup(32) }).unwrap();
    let beyond = fault(body, &Setup { out_bytes: 511, ..setup(32) });
    assert_eq!(beyond.address.map(|address| address % 4096), Some(31 * 16));
    expect(beyond, FaultKind::OutOfBounds, 1, 31, "writes to 16 bytes");
    let atomic = fault(
        "mul.wide.u32 %d1, %t, 4; add.s64 %d1, %d1, %out;\nred.global.add.u32 [%d1], 1;",
        &Setup { out_bytes: 16, ..setup(8) },
    );
    expect(atomic, FaultKind::OutOfBounds, 1, 4, "4 bytes");
    let null = fault("mov.u64 %d1, 0;\nld.global.u32 %r1, [%d1];", &setup(1));
    expect(null, FaultKind::OutOfBounds, 1, 0, "at 0x0");
}

#[test]
fn one_byte_beyond_shared_and_local_memory() {
    let body = "shl.b32 %r1, %t, 3; mov.u32 %r2, dynamic; add.u32 %r3, %r1, %r2;\nst.shared.u64 [%r3], %d0;";
    let body = format!("mov.u64 %d0, 1; {body}");
    launch(&kernel(&body), &setup(32)).unwrap();
    let beyond = fault(&body, &Setup { shared: 255, ..setup(32) });
    expect(beyond, FaultKind::OutOfBounds, 1, 31, "8 bytes at 0xf8 of 0xff bytes of shared memory");
    let before = fault("mov.u32 %r1, dynamic;\nst.shared.u8 [%r1+-1], %t;", &setup(32));
    expect(before, FaultKind::OutOfBounds, 1, 0, "of shared memory");
    let generic = fault("mov.u64 %d1, dynamic; cvta.shared.u64 %d1, %d1;\nst.u32 [%d1+256], %t;", &setup(1));
    expect(generic, FaultKind::OutOfBounds, 1, 0, "0x100 of 0x100 bytes of shared memory");
    let local =
        fault(".local .align 4 .b8 depot[10]; st.local.u16 [depot+8], %h0;\nst.local.u16 [depot+10], %h0;", &setup(1));
    assert_eq!(local.kind, FaultKind::UninitialisedRegister);
    let body =
        ".local .align 4 .b8 depot[10]; mov.u16 %h0, 1; st.local.u16 [depot+8], %h0;\nst.local.u16 [depot+10], %h0;";
    expect(fault(body, &setup(1)), FaultKind::OutOfBounds, 1, 0, "0xa of 0xa bytes of local memory");
}

#[test]
fn misaligned_accesses() {
    let global = fault("add.s64 %d1, %in, 2;\nld.global.u32 %r1, [%d1];", &setup(1));
    expect(global, FaultKind::Misaligned, 1, 0, "an access of 4 bytes");
    let vector =
        fault("ld.global.v2.u32 {%r1, %r2}, [%in+8];\nld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+8];", &setup(1));
    expect(vector, FaultKind::Misaligned, 1, 0, "an access of 16 bytes");
    let body = "mov.u16 %h1, 3; mov.u32 %r1, dynamic; add.u32 %r1, %r1, %t;\nst.shared.u16 [%r1], %h1;";
    let shared = fault(body, &setup(2));
    expect(shared, FaultKind::Misaligned, 1, 1, "an access of 2 bytes");
    let atomic = fault("add.s64 %d1, %out, 4;\natom.global.add.u64 %d2, [%d1], 1;", &setup(1));
    expect(atomic, FaultKind::Misaligned, 1, 0, "an access of 8 bytes");
}

#[test]
fn registers_that_nobody_wrote() {
    let never = fault("mov.u32 %r2, 1;\nadd.u32 %r1, %r2, %r3;", &setup(32));
    expect(never, FaultKind::UninitialisedRegister, 1, 0, "reads %r3");
    // Written in some lanes only.
    let some = fault("setp.ne.u32 %p1, %t, 5; @%p1 mov.u64 %d1, 1;\nst.global.u64 [%out], %d1;", &setup(32));
    expect(some, FaultKind::UninitialisedRegister, 1, 5, "reads %d1 before anything wrote it in lanes 0x00000020");
    launch(&kernel("setp.ne.u32 %p1, %t, 5; @%p1 mov.u64 %d1, 1;\n@%p1 st.global.u64 [%out], %d1;"), &setup(32))
        .unwrap();
    let guard = fault("\n@%p3 mov.u32 %r1, 1;", &setup(32));
    expect(guard, FaultKind::UninitialisedRegister, 1, 0, "reads %p3");
    let predicate = fault("setp.eq.u32 %p1, %t, 0;\nand.pred %p2, %p1, %p9;", &setup(32));
    expect(predicate, FaultKind::UninitialisedRegister, 1, 0, "reads %p9");
    let address = fault("\nld.global.u32 %r1, [%d7];", &setup(32));
    expect(address, FaultKind::UninitialisedRegister, 1, 0, "reads %d7");
    let value = fault("\nst.shared.v2.u32 [dynamic], {%t, %r8};", &setup(1));
    expect(value, FaultKind::UninitialisedRegister, 1, 0, "reads %r8");
    let slow = fault("\nbfe.u32 %r1, %t, %r5, 4;", &setup(1));
    expect(slow, FaultKind::UninitialisedRegister, 1, 0, "reads %r5");
    let carry = fault("\naddc.u32 %r1, %t, 4;", &setup(1));
    expect(carry, FaultKind::UninitialisedRegister, 1, 0, "the carry");
    // What a choice does not take need not be there; what it takes must.
    let body = "setp.lt.u32 %p1, %t, 32; mov.u32 %r1, 1; selp.b32 %r2, %r1, %r9, %p1;\nselp.b32 %r2, %r9, %r1, %p1;";
    expect(fault(body, &setup(32)), FaultKind::UninitialisedRegister, 1, 0, "reads %r9");
    // A block begins anew.
    let body = "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 mov.u32 %r2, 7;\nadd.u32 %r3, %r2, 1;";
    let second = fault(body, &Setup { grid: [2, 1, 1], ..setup(32) });
    assert_eq!(second.block, [1, 0, 0]);
    expect(second, FaultKind::UninitialisedRegister, 1, 0, "reads %r2");
}

#[test]
fn bytes_that_nobody_wrote() {
    let body = "mov.u32 %r1, dynamic; add.u32 %r2, %r1, %t; setp.ne.u32 %p1, %t, 6; @%p1 st.shared.u8 [%r2], %t; bar.sync 0;
        setp.eq.u32 %p2, %t, 0; @!%p2 bra E; ld.shared.u32 %r3, [%r1]; ld.shared.u16 %r3, [%r1+4]; ld.shared.u8 %r3, [%r1+7];
        ld.shared.u32 %r3, [%r1+4]; E:";
    expect(fault(body, &setup(32)), FaultKind::UninitialisedMemory, 2, 0, "4 bytes at 0x4 of shared");
    let body =
        "mov.u32 %r1, dynamic; st.shared.v2.u32 [dynamic], {%t, %t};\nld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [%r1];";
    expect(fault(body, &setup(1)), FaultKind::UninitialisedMemory, 1, 0, "16 bytes at 0x0 of shared");
    expect(
        fault("\natom.shared.add.u32 %r1, [dynamic], 1;", &setup(1)),
        FaultKind::UninitialisedMemory,
        1,
        0,
        "4 bytes",
    );
    let body = ".local .align 8 .b8 depot[8]; st.local.u32 [depot], %t;\nld.local.v2.u32 {%r1, %r2}, [depot];";
    expect(fault(body, &setup(1)), FaultKind::UninitialisedMemory, 1, 0, "of local memory");
    // The next block does not see what the first one wrote.
    let body =
        "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u8 [dynamic], 1;\nld.shared.u8 %r2, [dynamic];";
    assert_eq!(fault(body, &Setup { grid: [2, 1, 1], ..setup(1) }).block, [1, 0, 0]);
}

#[test]
fn barriers_that_some_threads_never_reach() {
    let exited = "setp.eq.u32 %p1, %t, 3; @%p1 exit;\nbar.sync 0;";
    expect(fault(exited, &setup(64)), FaultKind::Barrier, 1, 0, "lanes 0x00000008 of the warp have exited");
    let warp = "setp.lt.u32 %p1, %t, 32; @%p1 exit;\nbar.sync 0;";
    expect(fault(warp, &setup(64)), FaultKind::Barrier, 1, 32, "waits for 64 threads, 32 have come");
    let divergent = "and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra L;\nbar.sync 0; bra E;\nL: bar.sync 0; E: ";
    expect(
        fault(divergent, &setup(32)),
        FaultKind::Barrier,
        2,
        0,
        "0xaaaaaaaa of the warp are at another barrier, of line 17",
    );
    let other = "setp.lt.u32 %p1, %t, 32; @%p1 bra L; bar.sync 1; bra E;\nL: bar.sync 2; E: ";
    expect(fault(other, &setup(64)), FaultKind::Barrier, 1, 0, "barrier 2 waits for 64 threads, 32 have come");
    let held_back = "setp.eq.u32 %p1, %t, 7; @%p1 bra E;\nbar.sync 0; E: ";
    expect(fault(held_back, &setup(32)), FaultKind::Barrier, 1, 0, "have exited");
    let guarded = "setp.eq.u32 %p1, %t, 7;\n@!%p1 bar.sync 0;";
    expect(fault(guarded, &setup(32)), FaultKind::Barrier, 1, 0, "lanes 0x00000080");
    for (barrier, words) in
        [("16", "no barrier 16"), ("0, 48", "48 threads"), ("0, 128", "128 threads"), ("0, 0", "0 threads")]
    {
        expect(fault(&format!("\nbar.sync {barrier};"), &setup(64)), FaultKind::Barrier, 1, 0, words);
    }
    expect(fault("\nbar.sync %t;", &setup(32)), FaultKind::Barrier, 1, 0, "different barriers");
    let part = "setp.eq.u32 %p1, %t, 7;\n@%p1 bar.arrive 0, 64;";
    expect(fault(part, &setup(64)), FaultKind::Barrier, 1, 7, "a part of a warp");
}

#[test]
fn masks_of_warp_operations() {
    for ins in [
        "bar.warp.sync MASK;",
        "vote.sync.any.pred %p9, %p0, MASK;",
        "shfl.sync.idx.b32 %r9, %t, 0, 31, MASK;",
        "match.any.sync.b32 %r9, %t, MASK;",
        "redux.sync.add.u32 %r9, %t, MASK;",
    ] {
        let with =
            |before: &str, mask: &str| format!("setp.eq.u32 %p0, %t, 0; {before}\n{}", ins.replace("MASK", mask));
        launch(&kernel(&with("", "-1")), &setup(32)).unwrap();
        expect(fault(&with("", "0xfffffffe"), &setup(32)), FaultKind::WarpMask, 1, 0, "does not name the lane 0");
        let gone = "setp.eq.u32 %p1, %t, 9; @%p1 exit;";
        expect(
            fault(&with(gone, "-1"), &setup(32)),
            FaultKind::WarpMask,
            1,
            0,
            "names lanes 0x00000200 that have exited",
        );
        launch(&kernel(&with(gone, "0xfffffdff")), &setup(32)).unwrap();
        expect(fault(&with("", "-1"), &setup(24)), FaultKind::WarpMask, 1, 0, "never there: 0xff000000");
        // Lanes that take another way to the end and exit there.
        let away = "setp.ge.u32 %p1, %t, 16; @%p1 bra E;";
        let body = with(away, "-1") + " E:";
        expect(fault(&body, &setup(32)), FaultKind::WarpMask, 1, 0, "lanes 0xffff0000 have exited");
        // Lanes that wait at a barrier of the block.
        let body = format!(
            "setp.eq.u32 %p0, %t, 0; setp.ge.u32 %p1, %t, 16; @%p1 bra L;\n{} bra E; L: bar.sync 0; E:",
            ins.replace("MASK", "-1")
        );
        expect(fault(&body, &setup(32)), FaultKind::WarpMask, 1, 0, "0xffff0000 are at a block's barrier");
    }
    let outside = "setp.ge.u32 %p1, %t, 16; @%p1 bra E;\nshfl.sync.down.b32 %r1, %t, 1, 31, 0xffff; E:";
    expect(fault(outside, &setup(32)), FaultKind::WarpMask, 1, 15, "value of lane 16, which is not in the mask");
    let two = "setp.ge.u32 %p1, %t, 16; @%p1 bra L;\nvote.sync.ballot.b32 %r1, %p1, -1; bra E;
        L: vote.sync.any.pred %p2, %p1, -1; E:";
    expect(fault(two, &setup(32)), FaultKind::WarpMask, 1, 0, "0xffff0000 are in another operation");
}

#[test]
fn endless_loops_and_traps() {
    let short = Setup { options: Options { budget: 10_000, ..Default::default() }, ..setup(64) };
    let endless = fault("L:\nbra L;", &short);
    expect(endless, FaultKind::Budget, 1, 0, "10000 instructions");
    // Two lanes of a warp that wait for each other.
    let spin =
        "setp.eq.u32 %p1, %t, 1;\n@%p1 bra E; L: ld.global.u32 %r1, [%out]; setp.eq.u32 %p2, %r1, 0; @%p2 bra L; E: ";
    assert_eq!(fault(spin, &short).kind, FaultKind::Budget);
    let enough = "mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 1000; @%p1 bra L;";
    launch(&kernel(enough), &short).unwrap();
    expect(fault("setp.eq.u32 %p1, %t, 33;\n@%p1 trap;", &setup(64)), FaultKind::Trap, 1, 33, "trap");
    let body = "ts: .branchtargets L, L;\nbrx.idx %t, ts; L:";
    expect(fault(body, &setup(3)), FaultKind::Trap, 1, 2, "branch index 2 of 2");
}

#[test]
fn races_on_shared_memory() {
    let address = "shl.b32 %r1, %t, 2; mov.u32 %r2, dynamic; add.u32 %r3, %r2, %r1; xor.b32 %r4, %r3, LANE;";
    let exchange = |lane: &str, barrier: &str| {
        format!("{} st.shared.u32 [%r3], %t; {barrier}\nld.shared.u32 %r5, [%r4];", address.replace("LANE", lane))
    };
    let shared = |threads| Setup { shared: 4 * threads, ..setup(threads) };
    // Lanes of a warp: 4 bytes away is the neighbour.
    launch(&kernel(&exchange("4", "bar.warp.sync -1;")), &shared(64)).unwrap();
    launch(&kernel(&exchange("4", "bar.sync 0;")), &shared(64)).unwrap();
    expect(fault(&exchange("4", ""), &shared(64)), FaultKind::Race, 1, 0, "thread [1, 0, 0] wrote");
    launch(&kernel(&exchange("0", "")), &shared(64)).unwrap();
    // Warps: 128 bytes away is the other warp. The first one has run before the second begins, and reads what nobody wrote.
    launch(&kernel(&exchange("128", "bar.sync 0;")), &shared(64)).unwrap();
    let early = "setp.lt.u32 %p1, %t, 32;";
    let late = exchange("128", "@%p1 bra E; bar.warp.sync -1;");
    expect(fault(&format!("{early} {late} E:"), &shared(64)), FaultKind::Race, 1, 32, "thread [0, 0, 0] wrote");
    // A write after a read by another warp, and two writes by one instruction.
    let body = "setp.lt.u32 %p1, %t, 32; st.shared.u32 [%r3], %t; bar.sync 0;
        @%p1 ld.shared.u32 %r5, [%r4];\n@!%p1 st.shared.u32 [%r3], %t;";
    let body = format!("{} {body}", address.replace("LANE", "128"));
    expect(fault(&body, &shared(64)), FaultKind::Race, 2, 32, "thread [0, 0, 0] read");
    expect(fault("\nst.shared.u8 [dynamic], %t;", &shared(2)), FaultKind::Race, 1, 1, "Write of shared byte 0x0");
    // Neighbouring bytes are no race, and the search can be switched off.
    launch(&kernel("mov.u32 %r1, dynamic; add.u32 %r1, %r1, %t; st.shared.u8 [%r1], %t;"), &shared(32)).unwrap();
    let off = Options { races: false, ..Default::default() };
    launch(&kernel(&exchange("4", "")), &Setup { options: off, ..shared(64) }).unwrap();
    // A barrier of half a warp orders that half only.
    let half = "setp.ge.u32 %p1, %t, 16; @%p1 bra L; bar.warp.sync 0xffff; L: ";
    expect(fault(&exchange("4", half), &shared(32)), FaultKind::Race, 1, 16, "thread [17, 0, 0] wrote");
    // A shuffle orders nothing.
    let shuffle = "shfl.sync.idx.b32 %r9, %t, 0, 31, -1;";
    expect(fault(&exchange("4", shuffle), &shared(32)), FaultKind::Race, 1, 0, "thread [1, 0, 0] wrote");
}

#[test]
fn the_first_block_with_a_fault_is_told_whatever_the_threads() {
    let body = "mov.u32 %r1, %ctaid.x; setp.ge.u32 %p1, %r1, 7;\n@%p1 trap;";
    for threads in [1, 2, 6] {
        let options = Options { threads, ..Default::default() };
        let fault = fault(body, &Setup { grid: [50, 1, 1], options, ..setup(32) });
        assert_eq!(fault.block, [7, 0, 0]);
        assert_eq!(fault.instruction, "@%p1 trap;");
    }
}

#[test]
fn launches_that_cannot_be() {
    for (grid, block) in
        [([1, 1, 1], [0, 1, 1]), ([1, 1, 1], [1025, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([1, 65536, 1], [1, 1, 1])]
    {
        let fault = fault("", &Setup { grid, block, ..setup(1) });
        assert_eq!(fault.kind, FaultKind::Launch, "{fault}");
    }
    launch(&kernel(""), &setup(1024)).unwrap();
}
