//! Small kernels in machine code: what instructions mean, how lanes part and meet, what is a fault, what is refused.

use super::elf::{self, Cubin, Kernel};
use super::{Launch, Module, ParseError};
use crate::exec::{Counts, Fault, FaultKind, Options};
use crate::memory::{Kind, Memory};
use std::collections::BTreeMap;

/// A kernel `k` for capability 9.0, with the address of its result as its parameter.
fn module(listing: &str) -> Result<Module, ParseError> {
    let kernel = Kernel {
        registers: 64,
        stack: 16,
        shared: 0x400,
        parameter_base: 0x210,
        parameters: vec![(0, 8)],
        banks: BTreeMap::from([(2, 0x1122_3344_5566_7788u64.to_le_bytes().to_vec())]),
        ..Kernel::default()
    };
    Module::read(Cubin { capability: 90, kernels: BTreeMap::from([("k".into(), kernel)]) }, listing)
}

/// Numbers instructions, which stand one on a line between labels, as the disassembler does. R0 is the thread's number, R2 the
/// place of its result, UR4 the descriptor; R4 becomes the result.
fn listing(body: &str) -> String {
    let before =
        "S2R R0, SR_TID.X\nLDC.64 R2, c[0x0][0x210]\nULDC.64 UR4, c[0x0][0x208]\nIMAD.WIDE.U32 R2, R0, 0x4, R2\n";
    let after = "\nSTG.E desc[UR4][R2.64], R4\nEXIT";
    let mut text = "\t.section\t.text.k,\"ax\",@progbits\nk:\n".to_string();
    let mut at = 0;
    for line in [before, body, after].concat().lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.ends_with(':') {
            text += &format!("{line}\n");
        } else {
            text += &format!("        /*{at:04x}*/    {line} ;\n");
            at += 16;
        }
    }
    text
}

/// Runs a body on so many threads.
fn launch(body: &str, threads: u32) -> Result<(Vec<u32>, Counts), Fault> {
    let module = module(&listing(body)).unwrap_or_else(|error| panic!("{error}"));
    let memory = Memory::new();
    let bytes = 4 * u64::from(threads);
    let out = memory.alloc(bytes, Kind::Device, 0).unwrap();
    let counts = Launch {
        function: module.function("k").unwrap(),
        grid: [1; 3],
        block: [threads, 1, 1],
        shared_bytes: 1024,
        params: &out.to_le_bytes(),
        memory: &memory,
        options: Options { budget: 10_000, ..Options::default() },
    }
    .run()?;
    // SAFETY: the range is live, and nothing runs.
    let bytes = unsafe { std::slice::from_raw_parts(out as *const u8, bytes as usize) };
    Ok((bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect(), counts))
}

fn words(body: &str) -> Vec<u32> {
    launch(body, 32).unwrap_or_else(|fault| panic!("{fault}")).0
}

fn all(of: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(of).collect()
}

fn fault(body: &str, threads: u32) -> Fault {
    launch(body, threads).map(|_| panic!("no fault in\n{body}")).unwrap_err()
}

#[test]
fn sums_carry_and_borrow() {
    // 0x1_0000_0010 - tid of 64 bits, and the upper half times 16 plus the lower.
    let body = "IMAD.MOV.U32 R6, RZ, RZ, 0x10\nMOV R7, 0x1\nIADD3 R8, P0, -R0, R6, RZ\n\
                IADD3.X R9, R7, -0x1, RZ, P0, !PT\nLEA R4, R9, R8, 0x1c";
    assert_eq!(
        words(body),
        all(|tid| {
            let difference = 0x1_0000_0010u64 - u64::from(tid);
            ((difference >> 32) as u32).wrapping_shl(28).wrapping_add(difference as u32)
        })
    );
    let body = "MOV R6, 0xffffffff\nIADD3 R4, P0, P1, R6, R6, R0\nIMAD.MOV.U32 R4, RZ, RZ, RZ\n\
                IADD3.X R4, R4, RZ, RZ, P0, P1";
    assert_eq!(words(body), all(|tid| if tid >= 2 { 2 } else { 1 }));
    // b - 2a by a shift of the negated number.
    let body = "MOV R6, 0x9\nLEA R4, P0, -R0, R6, 0x1\nSEL R4, R4, 0x77, P0";
    assert_eq!(words(body), all(|tid| if 2 * tid <= 9 { 9 - 2 * tid } else { 0x77 }));
    assert_eq!(words("LEA.HI R4, R0, 0x64, RZ, 0x1d"), all(|tid| (tid >> 3) + 100));
    assert_eq!(words("MOV R5, 0x3\nLEA.HI R4, R0, -R5, RZ, 0x1b"), all(|tid| (tid >> 5).wrapping_sub(3)));
    assert_eq!(words("MOV R5, 0x80000000\nLEA R6, P0, R5, R0, 0x1\nLEA.HI.X R4, R5, 0x1, RZ, 0x1, P0"), all(|_| 2));
    let wide = "IMAD.WIDE.U32 R6, R0, -0x1, RZ\nIMAD.WIDE.U32 R8, P1, R7, 0x3, R6\nIMAD.IADD R4, R8, 0x1, R9";
    assert_eq!(
        words(wide),
        all(|tid| {
            let first = u64::from(tid) * 0xffff_ffff;
            let second = (first >> 32) * 3 + first;
            (second as u32).wrapping_add((second >> 32) as u32)
        })
    );
    let add64 = "MOV.64 R6, 0x10\nMOV R8, R0\nMOV R9, RZ\nIADD.64 R6, -R8, R6\nIADD.64 R6, R6, -0x1\nMOV R4, R7";
    assert_eq!(words(add64), all(|tid| if tid < 16 { 0 } else { u32::MAX }));
}

/// A division by 7 as the compiler writes it.
#[test]
fn numbers_are_divided_as_compilers_do() {
    let body = "IMAD R10, R0, 0x3039, R0\nMOV R12, 0x7\nI2F.U32.RP R9, R12\nMUFU.RCP R9, R9\n\
                IADD3 R6, PT, PT, R9, 0xffffffe, RZ\nF2I.FTZ.U32.TRUNC.NTZ R7, R6\nHFMA2 R6, -RZ, RZ, 0, 0\n\
                IADD3 R11, PT, PT, RZ, -R7, RZ\nIMAD R11, R11, R12, RZ\nIMAD.HI.U32 R14, R7, R11, R6\n\
                IMAD.HI.U32 R4, R14, R10, RZ\nIADD3 R5, PT, PT, -R4, RZ, RZ\nIMAD R5, R12, R5, R10\n\
                ISETP.GE.U32.AND P0, PT, R5, R12, PT\n@P0 IADD3 R5, PT, PT, R5, -R12, RZ\n@P0 VIADD R4, R4, 0x1\n\
                ISETP.GE.U32.AND P0, PT, R5, R12, PT\n@P0 VIADD R4, R4, 0x1";
    assert_eq!(words(body), all(|tid| tid * 12_346 / 7));
    // And of 16 bits, with floats.
    let body = "IMAD R10, R0, 0x7b, R0\nMOV R9, 0x7\nI2F.U16 R6, R9\nIMAD.MOV.U32 R7, RZ, RZ, 0x4b800000\n\
                FSETP.GEU.AND P1, PT, |R6|.reuse, 1.175494350822287508e-38, PT\n\
                FSETP.GT.AND P0, PT, |R6|, 8.50705917302346158658e+37, PT\nFSEL R7, R7, 1, !P1\nFSEL R7, R7, 0.25, !P0\n\
                FMUL R5, R6, R7\nI2F.U16.RZ R6, R10\nMUFU.RCP R8, R5\nFMUL R8, R7, R8\nIADD3 R7, R8, 0x2, RZ\n\
                FMUL.RZ R8, R6, R7\nF2I.U32.TRUNC.NTZ R8, R8\nLOP3.LUT R4, R8, 0xffff, RZ, 0xc0, !PT";
    assert_eq!(words(body), all(|tid| tid * 124 / 7));
}

#[test]
fn bits_are_moved_and_compared() {
    assert_eq!(words("HFMA2 R4, -RZ, RZ, 15, 5.9604644775390625e-08"), all(|_| 0x4b80_0001));
    assert_eq!(words("PRMT R4, R0, 0x7610, R0\nPRMT R4, R4, 0x123, RZ"), all(|tid| tid << 24));
    assert_eq!(words("MOV R5, 0x12345678\nSHF.R.W.U32 R4, R5, R0, R5"), all(|tid| 0x1234_5678u32.rotate_right(tid)));
    assert_eq!(
        words("LOP3.LUT P1, RZ, R0, 0x4, RZ, 0xc0, !PT\nSEL R4, R0, 0x63, P1"),
        all(|tid| if tid & 4 != 0 { tid } else { 99 })
    );
    let plop = "ISETP.GT.U32.AND P0, PT, R0, 0x3, PT\nISETP.LT.U32.AND P1, P2, R0, 0x9, P0\n\
                PLOP3.LUT P3, PT, P0, P1, PT, 0x20, 0x0\nSEL R4, RZ, 0x1, !P3\nSEL R5, RZ, 0x2, !P2\nIADD3 R4, R4, R5, RZ";
    // P3 is P0 and not P1, which is what P2 is, too.
    assert_eq!(words(plop), all(|tid| if tid >= 9 { 3 } else { 0 }));
    // Bit 1 is whether it is below 9, bits 0 and 2 stay; then back into two predicates.
    let saved = "ISETP.GT.U32.AND P0, PT, R0, 0x3, PT\nISETP.LT.U32.AND P1, PT, R0, 0x9, PT\nMOV R5, 0x5\n\
                 P2R R4, PR, R5, 0x2";
    assert_eq!(words(saved), all(|tid| if tid < 9 { 7 } else { 5 }));
    let back = "R2P PR, R0, 0x3\nSEL R4, RZ, 0x1, !P0\nSEL R5, RZ, 0x2, !P1\nIADD3 R4, R4, R5, RZ";
    assert_eq!(words(back), all(|tid| tid & 3));
    let wide = "MOV R6, R0\nMOV R7, 0x1\nIMNMX.U64 PT, PT, R8, R6, 0x100000005, PT, !PT\n\
                ISETP.GT.U64.AND P0, PT, R8, 0x100000004, PT\nSEL R4, R8, 0x63, P0";
    assert_eq!(words(wide), all(|tid| if tid >= 5 { 5 } else { 99 }));
    assert_eq!(words("VIMNMX.U32 R4, PT, PT, R0, 0x7, !PT"), all(|tid| tid.max(7)));
    assert_eq!(words("MOV R5, 0x3\nVIADDMNMX.U32 R4, R0, -R5, 0x7, PT"), all(|tid| tid.wrapping_sub(3).min(7)));
    assert_eq!(
        words("LDC.64 R6, c[0x2][0x0]\nLDC R5, c[0x2][RZ]\nIMAD.IADD R4, R7, 0x1, R5"),
        all(|_| 0x1122_3344 + 0x5566_7788)
    );
    assert_eq!(
        words("POPC R5, R0\nBREV R6, R0\nIMAD.IADD R4, R5, 0x1, R6"),
        all(|tid| tid.count_ones() + tid.reverse_bits())
    );
    assert_eq!(words("FLO.U32 R4, R0\nVIADD R4, R4, 0x1"), all(|tid| 32 - tid.leading_zeros()));
    // 16 bits of a register that nobody wrote may be left as they are, and only these.
    assert_eq!(words("PRMT R20, R0, 0x7610, R20\nLOP3.LUT R4, R20, 0xffff, RZ, 0xc0, !PT"), all(|tid| tid));
    assert_eq!(fault("PRMT R4, R0, 0x7614, R20", 32).kind, FaultKind::UninitialisedRegister);
    // Predicates may be kept as bits of a register that nobody wrote: each is changed by itself.
    let bits = "LOP3.LUT R20, R20, 0xfffffbff, RZ, 0xc0, !PT\nISETP.GT.U32.AND P0, PT, R0, 0x3, PT\n\
                @P0 LOP3.LUT R20, R20, 0x400, RZ, 0xfc, !PT\nLOP3.LUT R4, R20, 0x400, RZ, 0xc0, !PT";
    assert_eq!(words(bits), all(|tid| if tid > 3 { 0x400 } else { 0 }));
    for two in ["LOP3.LUT R20, R20, 0xfffff3ff, RZ, 0xc0, !PT\nMOV R4, RZ", "LOP3.LUT R4, R20, 0x1, RZ, 0xfc, !PT"] {
        assert_eq!(fault(two, 32).kind, FaultKind::UninitialisedRegister, "{two}");
    }
}

/// Words, and what a body makes of R5 = a, R6 = b, R7 = c in R4.
fn floats(cases: &[(&str, [u32; 3], u32)]) {
    for &(body, [a, b, c], want) in cases {
        let body = format!("MOV R5, {a:#x}\nMOV R6, {b:#x}\nMOV R7, {c:#x}\n{body}");
        let got = words(&body)[9];
        assert_eq!(got, want, "{body}: {got:#x}, not {want:#x}");
    }
}

#[test]
fn floats_are_ieee() {
    let (one, two, three, inf, nan) = (0x3f80_0000, 0x4000_0000, 0x4040_0000, 0x7f80_0000, 0x7fff_ffff);
    floats(&[
        ("FADD R4, R5, -R6", [one, three, 0], 0xc000_0000),
        ("FADD R4, |R5|, R6", [0xbf80_0000, two, 0], three),
        ("FADD R4, R5, 1.5", [0x3f00_0000, 0, 0], two),
        // A tie goes to the even one; subnormal numbers are kept, or flushed.
        ("FADD R4, R5, R6", [0x3f80_0001, 0x3380_0000, 0], 0x3f80_0002),
        ("FADD R4, R5, R6", [1, 1, 0], 2),
        ("FADD.FTZ R4, R5, R6", [0x8000_0001, 0x8000_0001, 0], 0x8000_0000),
        ("FADD.SAT R4, RZ, R5", [three, 0, 0], one),
        ("FADD R4, R5, -R5", [inf, 0, 0], nan),
        ("FMUL R4, R5, R6", [0xffc1_2345, one, 0], nan),
        ("FMUL.RZ R4, R5, R6", [0x7f7f_ffff, two, 0], 0x7f7f_ffff),
        // (1 + 2^-23) squared, less 1 + 2^-22: rounded once it is 2^-46.
        ("FFMA R4, R5, R6, R7", [0x3f80_0001, 0x3f80_0001, 0xbf80_0002], 0x2880_0000),
        ("FFMA R4, -R5, R6, 1", [two, three, 0], 0xc0a0_0000),
        ("FFMA.RM R4, R5, R6, R7", [one, one, 0x8000_0001], 0x3f7f_ffff),
        ("FFMA.RP R4, R5, R6, R7", [one, one, 1], 0x3f80_0001),
        ("FFMA.FTZ R4, R5, R6, R7", [0x0040_0000, 0x7f00_0000, one], one),
        ("FMNMX R4, R5, R6, PT", [0, 0x8000_0000, 0], 0x8000_0000),
        ("FMNMX R4, -R5, |R6|, !PT", [one, 0xc000_0000, 0], two),
        ("FMNMX R4, R5, R6, !PT", [0x7fc0_0000, one, 0], one),
        ("FMNMX.NAN R4, R5, R6, !PT", [0x7fc0_0000, one, 0], nan),
        ("FSEL R4, -R5, R6, PT", [one, two, 0], 0xbf80_0000),
        ("FSETP.GTU.FTZ.AND P0, PT, |R5|, +INF , PT\nSEL R4, R6, R7, P0", [nan, 5, 6], 5),
        ("FSETP.GT.AND P0, PT, R5, RZ, PT\nSEL R4, R6, R7, P0", [1, 5, 6], 5),
        ("FSETP.GT.FTZ.AND P0, PT, R5, RZ, PT\nSEL R4, R6, R7, P0", [1, 5, 6], 6),
        ("FSETP.NEU.OR P0, P1, R5, R5, !PT\nSEL R4, R6, R7, P1", [nan, 5, 6], 6),
        ("FSETP.NUM.AND P0, PT, R5, R6, PT\nSEL R4, R6, R7, P0", [one, two, 6], two),
        ("FCHK P0, R5, R6\nSEL R4, R5, R6, P0", [one, three, 0], three),
        ("FCHK P0, R5, R6\nSEL R4, R5, R6, P0", [one, 0, 0], one),
    ]);
}

#[test]
fn floats_have_functions_and_conversions() {
    let (one, inf, nan) = (0x3f80_0000, 0x7f80_0000, 0x7fff_ffff);
    floats(&[
        ("MUFU.RCP R4, R5", [0xc080_0000, 0, 0], 0xbe80_0000),
        ("MUFU.RCP R4, R5", [1, 0, 0], inf),
        ("MUFU.RSQ R4, R5", [0x4080_0000, 0, 0], 0x3f00_0000),
        ("MUFU.RSQ R4, -QNAN ", [0; 3], nan),
        ("MUFU.SQRT R4, R5", [0x4010_0000, 0, 0], one | 0x40_0000),
        ("MUFU.EX2 R4, -R5", [0x4000_0000, 0, 0], 0x3e80_0000),
        ("MUFU.EX2 R4, R5", [0xc315_0000, 0, 0], 0),
        ("MUFU.LG2 R4, R5", [0x4100_0000, 0, 0], 0x4040_0000),
        // Angles are in turns.
        ("MUFU.SIN R4, R5", [0x3e80_0000, 0, 0], one),
        ("MUFU.COS R4, R5", [0x3f00_0000, 0, 0], 0xbf80_0000),
        ("MUFU.TANH R4, R5", [inf, 0, 0], one),
        ("FRND R4, R5", [0x4020_0000, 0, 0], 0x4000_0000),
        ("FRND.CEIL R4, R5", [0xbf00_0000, 0, 0], 0x8000_0000),
        ("FRND.FTZ.CEIL R4, R5", [1, 0, 0], 0),
        ("I2FP.F32.S32 R4, R5", [u32::MAX, 0, 0], 0xbf80_0000),
        ("I2F.U32.RP R4, R5", [u32::MAX, 0, 0], 0x4f80_0000),
        ("F2I.FTZ.NTZ R4, R5", [0xc020_0000, 0, 0], u32::MAX - 1),
        ("F2I.CEIL.NTZ R4, R5", [1, 0, 0], 1),
        ("F2I.FTZ.CEIL.NTZ R4, R5", [1, 0, 0], 0),
        ("F2I.U32.TRUNC.NTZ R4, R5", [nan, 0, 0], 0),
        ("F2FP.BF16.F32.PACK_AB R4, R5, R6", [0x3f81_8000, 0xbf80_8000, 0], 0x3f82_bf80),
        ("F2FP.BF16.PACK_AB R4, RZ, R6", [0, 0xff80_0001, 0], 0x7fff),
        ("F2FP.F16.F32.PACK_AB R4, R5, R6", [0x3f80_0000, 0x477f_f000, 0], 0x3c00_7c00),
        ("F2F.BF16.F32 R4, R5", [0x0001_8000, 0, 0], 2),
        ("F2F.F16.F32 R4, R5", [0x3300_0001, 0, 0], 1),
        ("IMAD.U32 R4, R5, 0x10000, RZ", [0x1234_3f80, 0, 0], one),
    ]);
}

/// Row r of A is r + 1 at k = r and 0 elsewhere, B is 8 k + n, C is 1000 r + n.
#[test]
fn matrices_are_multiplied_by_the_whole_warp() {
    // R8 to R11 are A, R12 and R13 are B, R16 to R19 are C; R5 is the row of a lane's group, R6 twice its number there.
    let body = |at: u32| {
        format!(
            "SHF.R.U32.HI R5, RZ, 0x2, R0\nLOP3.LUT R6, R0, 0x3, RZ, 0xc0, !PT\nIMAD.SHL.U32 R6, R6, 0x2, RZ\nVIADD R7, R6, 0x1\n\
             MOV R9, RZ\nMOV R10, RZ\nISETP.EQ.U32.AND P0, PT, R5, R6, PT\nISETP.EQ.U32.AND P1, PT, R5, R7, PT\n\
             VIADD R20, R5, 0x1\nI2FP.F32.U32 R20, R20\nFSEL R21, R20, RZ, P0\nFSEL R22, R20, RZ, P1\n\
             F2FP.BF16.F32.PACK_AB R8, R22, R21\nVIADD R20, R5, 0x9\nI2FP.F32.U32 R20, R20\nFSEL R21, R20, RZ, P0\n\
             FSEL R22, R20, RZ, P1\nF2FP.BF16.F32.PACK_AB R11, R22, R21\n\
             IMAD R20, R6, 0x8, R5\nVIADD R21, R20, 0x8\nI2FP.F32.U32 R22, R20\nI2FP.F32.U32 R23, R21\n\
             F2FP.BF16.F32.PACK_AB R12, R23, R22\nVIADD R20, R20, 0x40\nVIADD R21, R21, 0x40\nI2FP.F32.U32 R22, R20\n\
             I2FP.F32.U32 R23, R21\nF2FP.BF16.F32.PACK_AB R13, R23, R22\nIMAD R20, R5, 0x3e8, R6\nI2FP.F32.U32 R16, R20\n\
             VIADD R20, R20, 0x1\nI2FP.F32.U32 R17, R20\nVIADD R20, R20, 0x1f3f\nI2FP.F32.U32 R18, R20\nVIADD R20, R20, 0x1\n\
             I2FP.F32.U32 R19, R20\nHMMA.16816.F32.BF16 R16, R8.reuse, R12, R16\nMOV R4, R{}",
            16 + at
        )
    };
    for at in 0..4 {
        let got = words(&body(at));
        for (lane, word) in (0..32u32).zip(got) {
            let (row, column) = (lane / 4 + 8 * (at / 2), 2 * (lane % 4) + at % 2);
            let want = (row + 1) * (8 * row + column) + 1000 * row + column;
            assert_eq!(f32::from_bits(word), want as f32, "row {row}, column {column}");
        }
    }
    let part = body(0).replace("HMMA", "ISETP.GT.U32.AND P2, PT, R0, 0x3, PT\n@P2 HMMA");
    assert_eq!(fault(&part, 32).kind, FaultKind::WarpMask);
    assert_eq!(fault(&body(0), 16).kind, FaultKind::WarpMask);
    assert_eq!(fault(&body(0).replace("R12, R16", "R14, R16"), 32).kind, FaultKind::UninitialisedRegister);
    // Row 0 and column 1 without C: 1 times 1.
    assert_eq!(words(&body(1).replace("R12, R16", "R12, RZ"))[0], 1f32.to_bits());
}

#[test]
fn lanes_act_together() {
    assert_eq!(words("SHFL.UP PT, R4, R0, 0x1, RZ"), all(|tid| tid.saturating_sub(1)));
    assert_eq!(words("SHFL.IDX P1, R5, R0, 0x3, 0x1c1f\nSEL R4, R5, 0x63, P1"), all(|tid| tid & 28 | 3));
    let votes = "ISETP.GT.U32.AND P0, PT, R0, 0x3, PT\nVOTE.ANY R4, PT, P0\nVOTEU.ALL UP0, P0\nSEL R5, RZ, 0x1, !UP0\n\
                 IADD3 R4, R4, R5, RZ";
    assert_eq!(words(votes), all(|_| 0xffff_fff0));
    assert_eq!(words("REDUX.MAX UR6, R0\nUIADD3 UR6, UR6, 0x1, URZ\nMOV R4, UR6"), all(|_| 32));
    assert_eq!(words("ISETP.EQ.U32.AND P0, PT, R0, 0x5, PT\nMOV R4, 0x1\n@P0 R2UR UR7, R0\nMOV R4, UR7"), all(|_| 5));
    let atomics =
        "MOV R6, 0x400\nISETP.EQ.U32.AND P0, PT, R0, RZ, PT\n@P0 STS [R6], RZ\nATOMS.MAX RZ, [R6], R0\nLDS R4, [R6]";
    assert_eq!(words(atomics), all(|_| 31));
    let reductions = "ISETP.NE.U32.AND P0, PT, R0, RZ, PT\nLDC.64 R6, c[0x0][0x210]\n@!P0 STG.E desc[UR4][R6.64], RZ\n\
                      REDG.E.MAX.STRONG.GPU desc[UR4][R6.64], R0\n@P0 STG.E desc[UR4][R2.64], RZ\nLDG.E R4, desc[UR4][R6.64]";
    assert_eq!(words(reductions), all(|_| 31));
    assert_eq!(words("MOV R6, 0x8\nSTL.64 [R6], R2\nLDL.LU.64 R8, [R6]\nIMAD.IADD R4, R8, 0x1, -R2"), all(|_| 0));
}

/// Lanes leave a loop after different numbers of rounds, some by the way out that no lane waits for.
#[test]
fn lanes_part_and_meet() {
    let body = "MOV R4, RZ\nBSSY B1, `(.L_out)\nBSSY B0, `(.L_met)\n.L_loop:\nVIADD R4, R4, 0x1\n\
                ISETP.GT.U32.AND P1, PT, R4, 0x10, PT\n@P1 BREAK B0\n@P1 BRA `(.L_far)\n\
                ISETP.GE.U32.AND P0, PT, R4, R0, PT\n@!P0 BRA `(.L_loop)\nBSYNC B0\n.L_met:\n\
                VOTE.ANY R5, PT, PT\nVIADD R4, R4, 0x64\nPOPC R5, R5\nIMAD R4, R5, 0x3e8, R4\n.L_far:\nBSYNC B1\n.L_out:\n\
                VOTE.ANY R5, PT, PT\nPOPC R5, R5\nIMAD R4, R5, 0x186a0, R4";
    // Lanes 0 to 16 met, the others came from elsewhere; in the end all are together.
    assert_eq!(words(body), all(|tid| if tid <= 16 { 3_217_100 + tid.max(1) } else { 3_200_017 }));
    // Where lanes are apart, a shuffle is done on a path that collects them; where they are not, without.
    let body = "UMOV UR6, 0xffffffff\nMOV R6, 0x1f\nMOV R7, RZ\nISETP.LT.U32.AND P0, PT, R0, 0x8, PT\n\
                @P0 BRA `(.L_join)\nVIADD R7, R7, 0x1\n.L_join:\nBRA.DIV UR6, `(.L_slow)\n\
                SHFL.IDX PT, R4, R0, 0x1f, 0x1f\n.L_back:\nBRA `(.L_end)\n.L_slow:\nBSSY B2, `(.L_after)\n\
                IMAD.MOV.U32 R9, RZ, RZ, -0x1\nWARPSYNC.COLLECTIVE R9, `(.L_done)\nSHFL.IDX P2, R4, R0, R6, R6\n\
                ENDCOLLECTIVE\n.L_done:\nBSYNC B2\n.L_after:\nVIADD R4, R4, 0x64\nBRA `(.L_back)\n.L_end:\nNOP";
    assert_eq!(words(body), all(|_| 131));
    assert_eq!(words(&body.replace("0x8, PT", "0x0, PT")), all(|_| 31));
    // A function that is called and returns.
    let body = "MOV R10, 0x70\nMOV R11, RZ\nCALL.REL.NOINC `(.L_function)\nBRA `(.L_end)\n\
                .L_function:\nVIADD R4, R0, 0x7\nRET.REL.NODEC R10 `(k)\n.L_end:\nNOP";
    assert_eq!(words(body), all(|tid| tid + 7));
}

#[test]
fn warps_meet_at_the_blocks_barrier() {
    // Each thread takes what the other warp's wrote.
    let body = "IMAD.SHL.U32 R6, R0, 0x4, RZ\nSTS [R6+0x400], R0\nBAR.SYNC.DEFER_BLOCKING 0x0\n\
                LOP3.LUT R6, R6, 0x80, RZ, 0x3c, !PT\nLDS R4, [R6+0x400]";
    let (got, counts) = launch(body, 64).unwrap();
    assert_eq!(got, (0..64).map(|tid| tid ^ 32).collect::<Vec<_>>());
    assert_eq!((counts.shared_accesses, counts.shared_wavefronts, counts.warp_issues), (4, 4, 22));
    assert_eq!((counts.thread_instructions, counts.global_sectors_written), (22 * 32, 8));
    let without = fault(&body.replace("BAR.SYNC.DEFER_BLOCKING 0x0", "NOP"), 64);
    assert!([FaultKind::Race, FaultKind::UninitialisedMemory].contains(&without.kind), "{without}");
    let race = "MOV R6, 0x400\nSTS [R6], R0\nMOV R4, RZ";
    assert_eq!(fault(race, 64).kind, FaultKind::Race);
    let apart = "ISETP.LT.U32.AND P0, PT, R0, 0x20, PT\n@P0 EXIT\nBAR.SYNC 0x0\nMOV R4, RZ";
    assert_eq!(fault(apart, 64).kind, FaultKind::Barrier);
}

#[test]
fn what_must_not_be_is_a_fault() {
    for (body, kind) in [
        ("LDG.E R4, desc[UR4][R2.64+0x80]", FaultKind::OutOfBounds),
        ("LDG.E.64 R4, desc[UR4][R2.64]", FaultKind::Misaligned),
        ("LDG.E R4, desc[UR4][R2.64+-0x1000]", FaultKind::OutOfBounds),
        ("UMOV UR4, 0x0\nLDG.E R4, desc[UR4][R2.64]", FaultKind::OutOfBounds),
        ("LDS R4, [RZ+0x3fc]", FaultKind::OutOfBounds),
        ("LDS R4, [RZ+0x800]", FaultKind::OutOfBounds),
        ("LDS R4, [RZ+0x402]", FaultKind::Misaligned),
        ("LDS R4, [RZ+0x400]", FaultKind::UninitialisedMemory),
        ("LDL R4, [RZ]", FaultKind::UninitialisedMemory),
        ("STL [RZ+0x10], R0", FaultKind::OutOfBounds),
        ("VIADD R4, R40, 0x1", FaultKind::UninitialisedRegister),
        ("UIADD3 UR6, UR9, 0x1, URZ\nMOV R4, UR6", FaultKind::UninitialisedRegister),
        ("SEL R4, R0, RZ, P3", FaultKind::UninitialisedRegister),
        ("LDC R4, c[0x0][0x100]", FaultKind::UninitialisedMemory),
        ("LDC R4, c[0x2][0x8]", FaultKind::OutOfBounds),
        ("LDC.64 R4, c[0x2][0x4]", FaultKind::OutOfBounds),
        ("MOV R6, 0x4\nLDC.64 R4, c[0x0][R6+0x210]", FaultKind::Misaligned),
        ("ISETP.LT.U32.AND P0, PT, R0, 0x8, PT\n@P0 SHFL.IDX PT, R4, R0, 0x9, 0x1f", FaultKind::WarpMask),
        ("ISETP.LT.U32.AND P0, PT, R0, 0x8, PT\n@P0 EXIT\nWARPSYNC 0xffffffff", FaultKind::WarpMask),
        (
            "BSSY B0, `(.L_x)\nISETP.LT.U32.AND P0, PT, R0, 0x8, PT\n@P0 BAR.SYNC 0x0\nBSYNC B0\n.L_x:\nNOP",
            FaultKind::WarpMask,
        ),
        (".L_x:\nBRA `(.L_x)", FaultKind::Budget),
        ("MOV R10, 0x8\nMOV R11, RZ\nRET.REL.NODEC R10 `(k)", FaultKind::Trap),
    ] {
        let fault = fault(body, 32);
        assert_eq!(fault.kind, kind, "{body}: {fault}");
        assert!(fault.line > 0 && fault.instruction.starts_with("/*00"), "{fault}");
    }
    // Where another predicate decides, a number that was never written changes nothing.
    assert_eq!(words("ISETP.GT.U32.AND P0, PT, R40, R0, !PT\nSEL R4, R40, R0, P0"), all(|tid| tid));
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    for (body, what) in [
        ("HMMA.16816.F32 R4, R4, R4, R4", "only .16816.F32.BF16"),
        ("HMMA.1688.F32.BF16 R4, R4, R4, R4", "only .16816.F32.BF16"),
        ("HMMA.16816.F32.BF16 R4, R6, R4, R4", "does not begin 4"),
        ("HMMA.16816.F32.BF16 R4, R4, R4, -R4", "no plain register"),
        ("IMMA.16832.S8.S8 R4, R4, R4, R4", "IMMA is not supported"),
        ("IMAD.WIDE.S16 R4, R4, R4, R6", ".S16 is not supported"),
        ("LDG.E.WIBBLE R4, desc[UR4][R2.64]", ".WIBBLE is not supported"),
        ("LDG R4, [R2]", "32 bits"),
        ("S2R R4, SR_CLOCKLO", "special register"),
        ("IADD3 R4, R4, R4", "operand is missing"),
        ("MOV R4, R5, 0xf", "one too many"),
        ("MOV R70, R5", "not one of the kernel's 64"),
        ("LDS.64 R5, [R4]", "does not begin 2"),
        ("UIADD3 UR6, R4, UR6, URZ", "lane's register"),
        ("MOV UR6, R4", "no register that it can have"),
        ("BRA `(.L_nowhere)", "no label .L_nowhere"),
        ("HFMA2 R4, R5, RZ, 0, 0", "only constants"),
        ("MUFU.RCP64H R4, R4", "this function is not supported"),
        ("F2FP.E4M3.F32.PACK_AB_MERGE_C R4, R4, R4, R4", "this form is not supported"),
        ("FADD2 R4, R4, R4", "FADD2 is not supported"),
        ("DADD R4, R4, R6", "DADD is not supported"),
        ("LOP3.LUT R4, R4, R4, R4, 0xc0, PT", "not always false"),
        ("SHF.L R4, R4, R4, R4", "no type"),
        ("BMOV.32.CLEAR R4, B0", "only clearing"),
        ("FADD R4, R4, R4.H0_H0", "operand R4.H0_H0"),
        ("IMNMX.U64 P0, PT, R4, R4, R4, PT, !PT", "result that is not supported"),
    ] {
        let error = module(&listing(body)).map(|_| panic!("{body} is taken")).unwrap_err();
        assert!(error.what.contains(what) && error.what.contains(body), "{error}");
        assert_eq!(error.line, 7);
    }
    let gap = listing("NOP\nNOP").replace("/*0050*/", "/*0060*/");
    assert!(module(&gap).map(|_| ()).unwrap_err().what.contains("gaps"));
    assert!(module("").map(|_| ()).unwrap_err().what.contains("no code of k"));
}

/// What the shipped cubins say of themselves; and no damaged one is taken for more than it is.
#[test]
fn cubins_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/prebuilt");
    for capability in [75, 80, 90, 100, 120] {
        let bytes = std::fs::read(format!("{folder}/decode.sm_{capability}.cubin")).unwrap();
        // SAFETY: an ELF file.
        assert_eq!(unsafe { elf::bytes_of(bytes.as_ptr()) }, bytes.len());
        let cubin = elf::parse(&bytes).unwrap();
        assert_eq!(cubin.capability, capability);
        let facts = |name: &str| {
            let kernel = &cubin.kernels[name];
            assert!((16..=80).contains(&kernel.registers), "{name}: {}", kernel.registers);
            (kernel.max_threads, kernel.parameters.clone())
        };
        let (most, parameters) = facts("df11_decode");
        assert_eq!((most.is_some(), parameters), (true, vec![(0, 120)]));
        assert_eq!(facts("df11_decode_many").1, [(0, 8 + 32 * 120)]);
        assert_eq!(facts("df11_index"), (Some(512), vec![(0, 112)]));
        for at in 0..bytes.len() / 64 {
            let mut bad = bytes.clone();
            bad[64 * at] ^= 0x81;
            let _ = elf::parse(&bad);
            let _ = elf::parse(&bytes[..64 * at]);
        }
    }
}
