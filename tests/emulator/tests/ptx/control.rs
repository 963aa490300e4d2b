//! Control flow: branches that divide a warp, tables, calls, barriers, and the operations of a warp.

use crate::support;

use df11_emulator::ptx::{Module, Options};
use support::{HEAD, Setup, kernel, launch, words};

/// Returns the word of every thread, computed anew.
fn each(threads: u32, word: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..threads).map(word).collect()
}

#[test]
fn divided_lanes_meet_again() {
    // Collatz steps: every lane leaves the loop at its own time, and all meet at the vote after it.
    let body = "
        add.u32 %r1, %t, 1; mov.u32 %r0, 0;
        L: setp.eq.u32 %p1, %r1, 1; @%p1 bra DONE;
        and.b32 %r2, %r1, 1; setp.eq.u32 %p2, %r2, 0; @%p2 bra EVEN;
        mad.lo.u32 %r1, %r1, 3, 1; bra NEXT;
        EVEN: shr.u32 %r1, %r1, 1;
        NEXT: add.u32 %r0, %r0, 1; bra L;
        DONE: activemask.b32 %r3; setp.eq.u32 %p3, %r3, -1; @%p3 add.u32 %r0, %r0, 1000;";
    let steps = |t: u32| {
        (1..)
            .scan(t + 1, |n, i| {
                (*n != 1).then(|| {
                    *n = if *n % 2 == 0 { *n / 2 } else { 3 * *n + 1 };
                    i
                })
            })
            .last()
            .unwrap_or(0)
    };
    assert_eq!(words(body, 96), each(96, |t| 1000 + steps(t)));
}

#[test]
fn predicates_hold_single_instructions_back() {
    let body = "
        and.b32 %r1, %t, 3; setp.eq.u32 %p1|%p2, %r1, 0; mov.u32 %r0, 1; @%p1 mov.u32 %r0, 2; @!%p2 add.u32 %r0, %r0, 10;
        setp.gt.u32 %p3, %t, 9; @%p3 bra S; add.u32 %r0, %r0, 100; S: @!%p3 add.u32 %r0, %r0, 1000;";
    assert_eq!(words(body, 20), each(20, |t| (if t % 4 == 0 { 12 } else { 1 }) + if t > 9 { 0 } else { 1100 }));
}

#[test]
fn branch_tables() {
    let body = "
        ts: .branchtargets A, B, C;
        rem.u32 %r1, %t, 3; setp.lt.u32 %p1, %t, 30; mov.u32 %r0, 99; @%p1 brx.idx %r1, ts; bra E;
        A: mov.u32 %r0, 1; bra E;
        B: mov.u32 %r0, 20;
        C: add.u32 %r0, %r0, 3;
        E: activemask.b32 %r2; setp.ne.u32 %p2, %r2, -1; @%p2 trap;";
    let want = |t: u32| if t >= 30 { 99 } else { [1, 23, 102][t as usize % 3] };
    assert_eq!(words(body, 32), each(32, want));
}

#[test]
fn functions_are_expanded_where_they_are_called() {
    let text = kernel(
        "{ .param .b32 a; .param .b32 b; .param .b64 r; .reg .b32 temp_param_reg;
            st.param.b32 [a+0], %t; st.param.b32 [b+0], 7;
            call.uni (r), product, (a, b);
            ld.param.b64 %d1, [r+0]; cvt.u32.u64 %r0, %d1; }
        setp.gt.u32 %p1, %t, 5;
        { .param .b32 a; .param .b32 b; .param .b64 r;
            st.param.b32 [a], %r0; st.param.b32 [b], %t;
            @%p1 call (r), product, (a, b);
            @%p1 ld.param.b64 %d1, [r]; cvt.u32.u64 %r0, %d1; }
        mad.wide.u32 %d39, %t, 4, %out; st.global.u32 [%d39], %r0;",
    );
    let functions = "
        .func (.param .b32 r) one() { st.param.b32 [r+0], 1; ret; }
        .func (.param .b64 r) product(.param .b32 x, .param .b32 y) {
            .reg .b32 %r<5>; .reg .b64 %d<3>; .reg .pred %p1;
            ld.param.u32 %r1, [x]; ld.param.u32 %r2, [y];
            setp.eq.u32 %p1, %r1, 3; @%p1 bra L;
            { .param .b32 o; call (o), one, (); ld.param.b32 %r3, [o]; }
            add.u32 %r2, %r2, %r3;
            mul.wide.u32 %d1, %r1, %r2; st.param.b64 [r+0], %d1; ret;
            L: mov.u64 %d2, 5; st.param.b64 [r+0], %d2; ret;
        }";
    let text = text.replacen(".visible", &format!("{functions}\n.visible"), 1);
    let ran = launch(&text, &Setup { out_bytes: 128, ..Default::default() }).unwrap();
    let first = |t: u32| if t == 3 { 5 } else { 8 * t };
    assert_eq!(ran.out, each(32, |t| if t > 5 { first(t) * (t + 1) } else { first(t) }));
    assert_eq!(Module::parse(&text).unwrap().functions().count(), 1);
}

#[test]
fn barriers_of_a_block() {
    // Each thread hands its number to the thread of another warp, twice.
    let body = "
        shl.b32 %r1, %t, 2; mov.u32 %r2, dynamic; add.u32 %r3, %r2, %r1; st.shared.u32 [%r3], %t; bar.sync 0;
        xor.b32 %r4, %r1, 260; add.u32 %r4, %r2, %r4; ld.shared.u32 %r5, [%r4]; barrier.sync 3; st.shared.u32 [%r3], %r5;
        bar.sync 0, 128; ld.shared.u32 %r0, [%r4];";
    assert_eq!(words(body, 128), each(128, |t| t));
    let body = "
        setp.lt.u32 %p1, %t, 40; bar.red.popc.u32 %r1, 0, %p1; bar.red.and.pred %p2, 1, %p1; bar.red.or.pred %p3, 1, 96, !%p1;
        mov.u32 %r0, %r1; @%p2 add.u32 %r0, %r0, 100; @%p3 add.u32 %r0, %r0, 1000;";
    assert_eq!(words(body, 96), each(96, |_| 1040));
    // One warp produces and only arrives, the other waits for both: 64 threads each time.
    let body = "
        shr.u32 %r1, %t, 5; setp.eq.u32 %p1, %r1, 0; mov.u32 %r0, 0; mov.u32 %r2, dynamic; @%p1 bra P;
        bar.sync 1, 64; ld.shared.u32 %r0, [dynamic]; bra E;
        P: setp.eq.u32 %p2, %t, 0; @%p2 st.shared.u32 [dynamic], 5; bar.arrive 1, 64; E: ";
    assert_eq!(words(body, 64), each(64, |t| if t < 32 { 0 } else { 5 }));
    // A last warp that is not full.
    assert_eq!(words("mov.u32 %r0, 4; bar.sync 0;", 40), each(40, |_| 4));
}

#[test]
fn warps_that_wait_for_each_other_get_on() {
    let body = "
        setp.ne.u32 %p1, %t, 32; @%p1 bra W; st.global.u32 [%out+512], 7;
        W: ld.volatile.global.u32 %r0, [%out+512]; setp.eq.u32 %p2, %r0, 0; @%p2 bra W;
        mad.wide.u32 %d39, %t, 4, %out; st.global.u32 [%d39], %r0;";
    let ran = launch(&kernel(body), &Setup { block: [64, 1, 1], ..Default::default() }).unwrap();
    assert_eq!(ran.out[..64], [7; 64]);
}

#[test]
fn shuffles() {
    let all = |ins: &str| {
        words(&format!("add.u32 %r1, %t, 100; {ins}; selp.u32 %r2, 1000, 0, %p1; add.u32 %r0, %r0, %r2;"), 32)
    };
    let want = |from: &dyn Fn(u32) -> Option<u32>| each(32, |t| from(t).map_or(t + 100, |from| from + 1100));
    assert_eq!(all("shfl.sync.idx.b32 %r0|%p1, %r1, 5, 31, -1"), want(&|_| Some(5)));
    assert_eq!(all("shfl.sync.up.b32 %r0|%p1, %r1, 1, 0, -1"), want(&|t| t.checked_sub(1)));
    assert_eq!(all("shfl.sync.down.b32 %r0|%p1, %r1, 4, 31, -1"), want(&|t| (t + 4 < 32).then_some(t + 4)));
    assert_eq!(all("shfl.sync.bfly.b32 %r0|%p1, %r1, 16, 31, -1"), want(&|t| Some(t ^ 16)));
    // Segments of 8 lanes: the mask in bits 8 to 12 is 24.
    assert_eq!(all("shfl.sync.idx.b32 %r0|%p1, %r1, 3, 6175, -1"), want(&|t| Some((t & 24) + 3)));
    assert_eq!(all("shfl.sync.up.b32 %r0|%p1, %r1, 3, 6144, -1"), want(&|t| (t % 8 >= 3).then(|| t - 3)));
    assert_eq!(all("shfl.sync.down.b32 %r0|%p1, %r1, 3, 6151, -1"), want(&|t| (t % 8 < 5).then_some(t + 3)));
    // A clamp of 3 with mode bfly: what comes from beyond lane 3 does not.
    assert_eq!(all("shfl.sync.bfly.b32 %r0|%p1, %r1, 2, 3, -1"), want(&|t| (t ^ 2 <= 3).then_some(t ^ 2)));
    // Without the predicate, lane numbers by register.
    let body = "sub.u32 %r1, 31, %t; shfl.sync.idx.b32 %r0, %t, %r1, 31, -1;";
    assert_eq!(words(body, 32), each(32, |t| 31 - t));
}

#[test]
fn votes_matches_and_reductions() {
    let body = "setp.lt.u32 %p1, %t, 5; vote.sync.ballot.b32 %r0, %p1, -1;";
    assert_eq!(words(body, 32), each(32, |_| 0x1f));
    let body = "setp.lt.u32 %p1, %t, 5; vote.sync.ballot.b32 %r0, !%p1, 0xff;";
    assert_eq!(words(body, 8), each(8, |_| 0xe0));
    let body = "
        setp.lt.u32 %p1, %t, 5; vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1;
        vote.sync.uni.pred %p4, %p1, -1; setp.lt.u32 %p5, %t, 32; vote.sync.uni.pred %p6, %p5, -1; mov.u32 %r0, 0;
        @%p2 add.u32 %r0, %r0, 1; @%p3 add.u32 %r0, %r0, 2; @%p4 add.u32 %r0, %r0, 4; @%p6 add.u32 %r0, %r0, 8;";
    assert_eq!(words(body, 32), each(32, |_| 9));
    let body = "rem.u32 %r1, %t, 3; match.any.sync.b32 %r0, %r1, -1;";
    let same = |t: u32| (0..32).filter(|other| other % 3 == t % 3).fold(0, |mask, other| mask | 1 << other);
    assert_eq!(words(body, 32), each(32, same));
    let body = "
        cvt.u64.u32 %d1, %t; shl.b64 %d1, %d1, 32; match.any.sync.b64 %r1, %d1, -1; match.all.sync.b32 %r2|%p1, 7, -1;
        match.all.sync.b32 %r3|%p2, %t, -1; add.u32 %r0, %r1, %r3; @%p1 xor.b32 %r0, %r0, %r2; @%p2 trap;";
    assert_eq!(words(body, 32), each(32, |t| !(1 << t)));
    for (operation, want) in
        [("add.u32", 496), ("min.u32", 0), ("max.s32", 31), ("and.b32", 0), ("or.b32", 31), ("xor.b32", 0)]
    {
        assert_eq!(words(&format!("redux.sync.{operation} %r0, %t, -1;"), 32), each(32, |_| want), "{operation}");
    }
}

#[test]
fn parts_of_a_warp_work_on_their_own() {
    // Two halves divide and each does its own vote and shuffle; both meet at a barrier of the warp on two lines.
    let body = "
        setp.lt.u32 %p1, %t, 16; setp.lt.u32 %p2, %t, 3; @%p1 bra LOW;
        vote.sync.ballot.b32 %r0, %p1, 0xffff0000; shfl.sync.idx.b32 %r1, %t, 20, 31, 0xffff0000; add.u32 %r0, %r0, %r1;
        bar.warp.sync -1; bra E;
        LOW: vote.sync.ballot.b32 %r0, %p2, 0xffff; bar.warp.sync -1;
        E: ";
    assert_eq!(words(body, 32), each(32, |t| if t < 16 { 7 } else { 20 }));
    // Lanes come one after the other to one instruction and wait there for the whole mask.
    let body = "
        and.b32 %r1, %t, 3; mov.u32 %r2, 0;
        L: setp.ge.u32 %p1, %r2, %r1; @%p1 bra E; add.u32 %r2, %r2, 1; bra L;
        E: setp.eq.u32 %p2, %r2, 3; vote.sync.ballot.b32 %r0, %p2, -1;";
    assert_eq!(words(body, 32), each(32, |_| 0x8888_8888));
}

#[test]
fn exit_ends_some_lanes_only() {
    let text = kernel(
        "mad.wide.u32 %d39, %t, 4, %out; st.global.u32 [%d39], 1; and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 0; @%p1 exit;
        activemask.b32 %r2; st.global.u32 [%d39], %r2; vote.sync.any.pred %p2, %p1, 0xaaaaaaaa; @%p2 trap;",
    );
    let ran = launch(&text, &Setup { out_bytes: 128, ..Default::default() }).unwrap();
    assert_eq!(ran.out, each(32, |t| if t % 2 == 0 { 1 } else { 0xaaaa_aaaa }));
}

#[test]
fn grids_and_blocks_of_three_dimensions() {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 k_0, .param .u64 k_1) .maxntid 24, 1, 1 {{ .reg .b32 %r<20>; .reg .b64 %d<4>;
        ld.param.u64 %d1, [k_0];
        mad.lo.u32 %r1, %ctaid.z, %nctaid.y, %ctaid.y; mad.lo.u32 %r1, %r1, %nctaid.x, %ctaid.x;
        mad.lo.u32 %r2, %tid.z, %ntid.y, %tid.y; mad.lo.u32 %r2, %r2, %ntid.x, %tid.x;
        mul.lo.u32 %r3, %ntid.x, %ntid.y; mul.lo.u32 %r3, %r3, %ntid.z; mad.lo.u32 %r4, %r1, %r3, %r2;
        mad.wide.u32 %d2, %r4, 4, %d1; st.global.u32 [%d2], %r4; ret; }}"
    );
    let setup = |threads, block| Setup {
        grid: [2, 3, 4],
        block,
        out_bytes: 4 * 24 * 24,
        options: Options { threads, ..Default::default() },
        ..Default::default()
    };
    assert_eq!(launch(&text, &setup(2, [4, 3, 2])).unwrap().out, each(24 * 24, |n| n));
    assert!(launch(&text, &setup(1, [5, 5, 1])).err().unwrap().to_string().contains("the kernel allows Some(24)"));
    assert_eq!(Module::parse(&text).unwrap().function("k").unwrap().max_threads(), Some(24));
}
