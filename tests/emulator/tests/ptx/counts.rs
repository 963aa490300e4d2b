//! Counts that are known by hand: instructions, sectors, rounds of shared memory.

use crate::support;

use df11_emulator::ptx::{Counts, LineCounts, Options};
use support::{BODY, Setup, kernel, launch};

/// Counts of a body on one block of so many threads, less those of an empty body.
fn counts(body: &str, threads: u32) -> Counts {
    let run = |body: &str| {
        let setup = Setup {
            block: [threads, 1, 1],
            shared: 8192,
            out_bytes: 1 << 17,
            input: vec![1; 1 << 17],
            ..Default::default()
        };
        launch(&kernel(body), &setup).unwrap_or_else(|fault| panic!("{fault}\n{body}")).counts
    };
    let (all, empty) = (run(body), run(""));
    Counts {
        thread_instructions: all.thread_instructions - empty.thread_instructions,
        warp_issues: all.warp_issues - empty.warp_issues,
        ..all
    }
}

#[test]
fn instructions_of_threads_and_warps() {
    let c = counts("mov.u32 %r1, 1; mov.u32 %r2, 2;", 40);
    assert_eq!((c.thread_instructions, c.warp_issues, c.predicated_off), (80, 4, 0));
    // An instruction that a predicate holds back is issued all the same; lanes that branched away are not there.
    let c = counts("setp.lt.u32 %p1, %t, 5; @%p1 mov.u32 %r1, 1; @%p1 bra E; mov.u32 %r1, 2; E:", 32);
    assert_eq!((c.thread_instructions, c.warp_issues, c.predicated_off), (32 + 32 + 32 + 27, 4, 27));
    // A loop that lane l runs l + 1 times: two instructions each.
    let c = counts("mov.u32 %r1, 0; L: setp.lt.u32 %p1, %r1, %t; add.u32 %r1, %r1, 1; @%p1 bra L;", 32);
    assert_eq!((c.thread_instructions, c.warp_issues), (32 + 3 * (32 * 33 / 2), 1 + 3 * 32));
    let c = counts("bar.sync 0; bar.warp.sync -1; activemask.b32 %r1;", 64);
    assert_eq!(c.collectives, 4);
}

#[test]
fn sectors_of_global_memory() {
    // Bytes between lanes, bytes of an access, sectors.
    for (stride, ty, want) in [
        (4, "u32", 4),
        (1, "u8", 1),
        (2, "u16", 2),
        (8, "u64", 8),
        (8, "u32", 8),
        (16, "u32", 16),
        (32, "u32", 32),
        (128, "u32", 32),
        (0, "u32", 1),
    ] {
        let address = |base: &str| format!("mad.wide.u32 %d1, %t, {stride}, {base};");
        let (value, register) = if ty == "u64" { ("%d9", "%d2") } else { ("%r9", "%r2") };
        let c = counts(&format!("{} ld.global.{ty} {register}, [%d1];", address("%in")), 32);
        assert_eq!((c.global_sectors_read, c.global_sectors_written, c.global_accesses), (want, 0, 1), "{stride} {ty}");
        let body = format!("mov.u32 %r9, 1; mov.u64 %d9, 1; {} st.global.{ty} [%d1], {value};", address("%out"));
        let c = counts(&body, 32);
        assert_eq!((c.global_sectors_read, c.global_sectors_written), (0, want), "{stride} {ty}");
    }
    // Not aligned to a sector: one more. Downwards, and shuffled: the same. Half the lanes: half.
    let c = counts("mad.wide.u32 %d1, %t, 4, %in; ld.global.u32 %r1, [%d1+16];", 32);
    assert_eq!(c.global_sectors_read, 5);
    let c = counts("sub.u32 %r1, 31, %t; mad.wide.u32 %d1, %r1, 4, %in; ld.global.u32 %r1, [%d1];", 32);
    assert_eq!(c.global_sectors_read, 4);
    let body = "mul.lo.u32 %r1, %t, 11; and.b32 %r1, %r1, 31; mad.wide.u32 %d1, %r1, 4, %in; ld.global.u32 %r1, [%d1];";
    assert_eq!(counts(body, 32).global_sectors_read, 4);
    let body = "setp.lt.u32 %p1, %t, 16; mad.wide.u32 %d1, %t, 4, %in; @%p1 ld.global.u32 %r1, [%d1];";
    assert_eq!(counts(body, 32).global_sectors_read, 2);
    let body = "mad.wide.u32 %d1, %t, 16, %in; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d1];";
    assert_eq!(counts(body, 64).global_sectors_read, 32);
    let c = counts("red.global.add.u32 [%out], 1;", 32);
    assert_eq!((c.global_sectors_atomic, c.global_sectors_read, c.global_sectors_written), (1, 0, 0));
}

/// Rounds that a load needs whose lanes have these addresses, by instructions that leave the address in `%r3`.
fn rounds(address: &str, ty: &str, registers: &str, threads: u32) -> u64 {
    let fill = "mov.u32 %r1, dynamic; mad.lo.u32 %r2, %t, 16, %r1; mov.u32 %r9, 0;
        L: st.shared.v4.u32 [%r2], {%t, %t, %t, %t}; add.u32 %r2, %r2, 512; add.u32 %r9, %r9, 1;
        setp.lt.u32 %p1, %r9, 16; @%p1 bra L; bar.sync 0;";
    let with = counts(&format!("{fill} {address} ld.shared.{ty} {registers}, [%r3];"), threads);
    let without = counts(&format!("{fill} {address}"), threads);
    assert_eq!(with.shared_accesses - without.shared_accesses, 1);
    with.shared_wavefronts - without.shared_wavefronts
}

#[test]
fn rounds_of_shared_memory() {
    let stride = |bytes: u32| format!("mad.lo.u32 %r3, %t, {bytes}, %r1;");
    // Words a lane apart: the bank is the word modulo 32.
    for (bytes, want) in [(4, 1), (8, 2), (12, 1), (16, 4), (20, 1), (64, 16), (128, 32), (132, 1), (0, 1)] {
        assert_eq!(rounds(&stride(bytes), "u32", "%r4", 32), want, "{bytes}");
    }
    // Bytes of one word are one word.
    assert_eq!(rounds(&stride(1), "u8", "%r4", 32), 1);
    assert_eq!(rounds(&stride(2), "u16", "%r4", 32), 1);
    // Accesses of 8 bytes go by half warps, of 16 by quarters.
    assert_eq!(rounds(&stride(8), "v2.u32", "{%r4, %r5}", 32), 2);
    assert_eq!(rounds(&stride(8), "u64", "%d4", 32), 2);
    assert_eq!(rounds(&stride(16), "v2.u32", "{%r4, %r5}", 32), 4);
    assert_eq!(rounds(&stride(16), "v4.u32", "{%r4, %r5, %r6, %r7}", 32), 4);
    assert_eq!(rounds(&stride(32), "v4.u32", "{%r4, %r5, %r6, %r7}", 32), 8);
    assert_eq!(rounds(&stride(128), "v4.u32", "{%r4, %r5, %r6, %r7}", 32), 32);
    assert_eq!(rounds(&stride(0), "v4.u32", "{%r4, %r5, %r6, %r7}", 32), 4);
    // Two lanes at each word of one bank: half as many words.
    assert_eq!(rounds("shr.u32 %r3, %t, 1; mad.lo.u32 %r3, %r3, 128, %r1;", "u32", "%r4", 32), 16);
    // Everybody at one word but for one lane at another word of its bank.
    let body = "setp.eq.u32 %p2, %t, 17; selp.u32 %r3, 128, 0, %p2; add.u32 %r3, %r3, %r1;";
    assert_eq!(rounds(body, "u32", "%r4", 32), 2);
}

#[test]
fn counts_by_line_add_up() {
    let body = "setp.eq.u32 %p2, %t, 0; @%p2 st.shared.u32 [dynamic], 7;
        mov.u32 %r1, 0; bar.sync 0;
        L: mad.wide.u32 %d1, %t, 4, %in; ld.global.u32 %r2, [%d1];
        ld.shared.u32 %r3, [dynamic]; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5;
        @%p1 bra L;";
    let options = Options { profile: true, threads: 2, ..Default::default() };
    let setup = Setup { grid: [3, 1, 1], block: [64, 1, 1], shared: 4, options, ..Default::default() };
    let counts = launch(&kernel(body), &setup).unwrap().counts;
    let line = |at: u32| counts.lines[&(BODY + at)];
    // Three blocks of two warps, five rounds.
    assert_eq!(line(2), LineCounts { issues: 60, threads: 1920, sectors: 30 * 4, wavefronts: 0 });
    assert_eq!(line(3), LineCounts { issues: 90, threads: 2880, sectors: 0, wavefronts: 30 });
    assert_eq!(line(4), LineCounts { issues: 30, threads: 960, sectors: 0, wavefronts: 0 });
    let sum = counts.lines.values().copied().fold(LineCounts::default(), |mut sum, line| {
        sum += line;
        sum
    });
    assert_eq!((sum.issues, sum.threads), (counts.warp_issues, counts.thread_instructions));
    assert_eq!((sum.sectors, sum.wavefronts), (counts.global_sectors_read, counts.shared_wavefronts));
    let setup = Setup { options: Options::default(), ..setup };
    assert!(launch(&kernel(body), &setup).unwrap().counts.lines.is_empty());
}
