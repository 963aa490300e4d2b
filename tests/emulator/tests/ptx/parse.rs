//! Texts that cannot be read: each error names its line and what is wrong. Nothing is skipped that might matter.

use crate::support;

use df11_emulator::ptx::Module;
use support::{BODY, HEAD, kernel};

#[track_caller]
fn error(text: &str, line: u32, words: &str) {
    let error = Module::parse(text).err().unwrap_or_else(|| panic!("no error in\n{text}"));
    assert_eq!(error.line, line, "{error}");
    assert!(error.what.contains(words), "{error}");
}

#[test]
fn instructions_that_are_not_supported_are_named() {
    for ins in [
        "fma.f32 %r1, %r2, %r3, %r4",
        "add.rn.f16 %h1, %h2, %h3",
        "fma.rn.bf16x2 %r1, %r2, %r3, %r4",
        "mul.rz.f64 %d1, %d2, %d3",
        "min.f16 %h1, %h2, %h3",
        "min.xorsign.abs.f32 %r1, %r2, %r3",
        "div.f32 %r1, %r2, %r3",
        "div.rz.f32 %r1, %r2, %r3",
        "rcp.rz.f32 %r1, %r2",
        "rsqrt.rn.f32 %r1, %r2",
        "ex2.approx.f16 %h1, %h2",
        "ex2.approx.f64 %d1, %d2",
        "sin.f32 %r1, %r2",
        "set.lt.u32.f32 %r1, %r2, %r3",
        "setp.lt.f64 %p1, %d1, %d2",
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%r7}, {%r1, %r2, %r3, %r4}",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1, %r2, %r3, %r4}, {%r5, %r6, %r7, %r8}, {%r7, %r8}, {%r1, %r2, %r3, %r4}",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r5]",
        "wgmma.fence.sync.aligned",
        "cp.async.ca.shared.global [%r1], [%d1], 16",
        "ld.global.v8.u32 {%r1}, [%d1]",
        "ld.global.strange.u32 %r1, [%d1]",
        "atom.global.add.f32 %r1, [%d1], %r2",
        "shfl.idx.b32 %r1, %r2, 0, 31",
        "vote.ballot.b32 %r1, %p1",
        "mul.u32 %r1, %r2, %r3",
        "cvt.f32.u32 %r1, %r2",
        "cvt.u32.f32 %r1, %r2",
        "cvt.rn.bf16.u32 %h1, %r2",
        "cvt.bf16.f32 %h1, %r2",
        "cvt.rn.relu.bf16.f32 %h1, %r2",
        "cvt.rn.bf16.f64 %h1, %d2",
        "cvt.rn.bf16.f16 %h1, %h2",
        "cvt.rn.f32.bf16x2 %r1, %r2",
        "cvt.rna.tf32.f32 %r1, %r2",
        "setp.ltu.u32 %p1, %r1, %r2",
        "lop3.or.b32 %r1, %r2, %r3, %r4, 0x80",
        "lop3.b32 %r1, %r2, %r3, %r4, 256",
        "mov.b128 %d1, {%d2, %d3}",
        "st.const.u32 [%d1], %r1",
        "call (%r1), %d1, (%r2)",
        "elect.sync %r1|%p1, -1",
    ] {
        error(&kernel(&format!("nanosleep.u32 1;\n{ins};")), BODY + 1, ins.split_whitespace().next().unwrap());
    }
}

#[test]
fn operands_must_fit() {
    for (ins, words) in [
        ("add.u32 %r1, %r2, %d1", "%d1 has 64 bits, not 32"),
        ("add.u64 %d1, %d2, %r1", "%r1 has 32 bits, not 64"),
        ("add.u32 %h1, %r2, %r3", "%h1 has 16 bits"),
        ("add.u32 %r1, %r2", "2 operands"),
        ("add.u32 5, %r1, %r2", "no register"),
        ("add.u32 %r1, %r40, 1", "%r40 is not declared"),
        ("add.u32 %r1, %r01, 1", "%r01 is not declared"),
        ("mov.u32 %r1, nothing", "nothing is not declared"),
        ("@%r1 bra L", "no predicate"),
        ("setp.eq.u32 %r1, %r2, %r3", "%r1 is no predicate"),
        ("bra NOWHERE", "no label NOWHERE"),
        ("brx.idx %r1, nothing", "no branch table"),
        ("ld.global.u32 %r1, [dynamic]", "another space"),
        ("ld.shared.u32 %r1, %r2", "no address"),
        ("ld.global.v2.u32 {%r1, %r2, %r3}, [%d1]", "number of registers"),
        ("ld.global.u64 %r1, [%d1]", "%r1 has 32 bits, not 64"),
        ("ld.global.u32 %r1, [%h1]", "another size"),
        ("call nothing, ()", "no function nothing"),
    ] {
        error(&kernel(&format!("\n{ins};")), BODY + 1, words);
    }
    error(&kernel("L: bra L;\nL: bra L;"), BODY + 1, "twice");
}

#[test]
fn modules() {
    error(".version 8.0\n.target sm_75\n.address_size 32", 3, "64 bits");
    error(&format!("{HEAD}.extern .global .u32 x;"), 4, "another module");
    error(&format!("{HEAD}.tex .u32 x;"), 4, "directive");
    let recursive = format!("{HEAD}.func f() {{\ncall f, ();\nret; }}\n.entry k() {{ call f, (); ret; }}");
    error(&recursive, 5, "recursion");
    let text = format!("{HEAD}.entry k() {{ .reg .f16x4 %r1; }}");
    error(&text, 4, "registers of type");
    let sized = |bytes: u32| format!("{HEAD}.entry k(.param .u32 a,\n.param .align 8 .b8 b[{bytes}]) {{ ret; }}");
    assert_eq!(Module::parse(&sized(4088)).unwrap().function("k").unwrap().parameter_bytes(), 4096);
    error(&sized(4089), 5, "more than 4096 bytes of parameters");
    // A module without kernels, declarations, debug directives and pragmas are fine.
    let text = format!(
        "{HEAD}.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n.file 1 \"x.cu\"\n.section .debug_str\n{{\n\
         .b8 1,2\n}}\n.weak .entry w()\n.minnctapersm 2\n{{\n.pragma \"nounroll\";\n.loc 1 2 3\nret;\n}}"
    );
    let module = Module::parse(&text).unwrap();
    assert_eq!(module.functions().map(|function| function.name()).collect::<Vec<_>>(), ["w"]);
    assert!(module.function("vprintf").is_none());
    assert_eq!(Module::parse(HEAD).unwrap().functions().count(), 0);
}

#[test]
fn cut_off_texts_are_errors_and_never_a_panic() {
    let text =
        kernel("{ .reg .b32 x; mov.u32 x, 5; } st.global.v2.u32 [%out+8], {%t, %t}; @!%p1 bra L; L: bar.sync 0;");
    Module::parse(&text).unwrap();
    for cut in (0..text.len()).step_by(3) {
        let _ = Module::parse(&text[..cut]);
        let mut bytes = text.clone().into_bytes();
        bytes[cut] = b"{};%[1.:"[cut % 8];
        let _ = Module::parse(&String::from_utf8(bytes).unwrap());
    }
    for cut in 1..40 {
        assert!(Module::parse(&text[..text.len() - 3 - cut]).is_err());
    }
}
