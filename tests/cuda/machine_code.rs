//! The cubins that the library ships, run as machine code: each instruction as NVIDIA's disassembler names it, every access
//! checked. The other modules run the PTX that these were made from; here the compiler's work is tested, too.
//!
//! `cargo test --test cuda machine_code -- --nocapture` prints what a weight costs. `tests/deep.sh machine` runs all tests of
//! this program on every cubin.
#![cfg(target_os = "linux")]

use crate::support::engine::Emulator;
use crate::{counts, decode, hostile, multiply, support::check};

/// Runs a cubin: golden groups are uploaded (`df11_index`) and decoded whole, in ranges and in batches (`df11_decode_many`), to
/// destinations at every alignment; thousands of damaged images are reported, or decode as the oracle does.
fn bit_for_bit(capability: u32) {
    let Some(emulator) = Emulator::machine_code(capability) else { return };
    decode::golden_groups(&emulator);
    decode::ranges(&emulator);
    decode::batches(&emulator);
    // By nibbles a lane's end is judged less strictly.
    hostile::images::damaged(&emulator, check::rounds(100), if capability < 100 { 25 } else { 15 });
    assert!(emulator.query("machine_code") > 0, "no cubin was loaded");
}

#[test]
fn the_cubin_for_7_5_decodes_bit_for_bit() {
    bit_for_bit(75);
}

#[test]
fn the_cubin_for_8_0_decodes_bit_for_bit() {
    bit_for_bit(80);
}

#[test]
fn the_cubin_for_9_0_decodes_bit_for_bit() {
    bit_for_bit(90);
}

#[test]
fn the_cubin_for_10_0_decodes_bit_for_bit() {
    bit_for_bit(100);
}

#[test]
fn the_cubin_for_12_0_decodes_bit_for_bit() {
    bit_for_bit(120);
}

/// As `single_changed_bytes_of_codes_are_reported_as_the_rule_says`, by a table of nibbles: the last look-up may take up to eleven
/// bits more than the lane needs. The oracle's look-ups are others, of which the last one may end ten bits later.
#[test]
fn lanes_by_nibbles_may_end_eleven_bits_late() {
    let Some(emulator) = Emulator::machine_code(100) else { return };
    let (wrong, silent, _) = hostile::images::single_changed_bytes(&emulator, -11..=21, 8);
    println!("{wrong} wrong decodes, {silent} not reported");
    assert!(wrong > 250 && 70 * wrong < 100 * silent && 100 * silent < 97 * wrong, "{wrong} {silent}");
}

/// What a weight costs in machine code, in all five cubins. `kernels/README.md` has the counts.
#[test]
fn machine_code_stays_within_the_bounds() {
    let model = counts::layer(4_000_000);
    for capability in [75, 80, 90, 100, 120] {
        let Some(emulator) = Emulator::machine_code(capability) else { return };
        let [instructions, _, wavefronts, _] = counts::count(&emulator, &model, 0, &format!("sm_{capability}"));
        // From 10.0 on by a table of nibbles.
        let most = if capability < 100 { (10.8, 3.5) } else { (10.5, 2.2) };
        assert!(instructions <= most.0 && wavefronts <= most.1, "sm_{capability}: {instructions:.2}, {wavefronts:.2}");
        assert!(instructions > 5.0 && wavefronts > 1.0, "sm_{capability}: {instructions:.2}, {wavefronts:.2}");
    }
}

/// Runs the products of a cubin, with one and two vectors: every golden matrix.
fn products_bit_for_bit(capability: u32) {
    let Some(emulator) = Emulator::machine_code(capability) else { return };
    multiply::golden_matrices(&emulator);
    assert!(emulator.query("machine_code") > 0, "no cubin was loaded");
}

#[test]
fn the_cubins_multiply_bit_for_bit() {
    for capability in [75, 80, 90, 100, 120] {
        products_bit_for_bit(capability);
    }
}

/// What a weight costs when it is multiplied with one vector, in all five cubins.
#[test]
fn products_in_machine_code_stay_within_the_bounds() {
    for capability in [75, 80, 90, 100, 120] {
        let Some(emulator) = Emulator::machine_code(capability) else { return };
        let [instructions, wavefronts, sectors] =
            multiply::count(&emulator, (512, 4096), 1, &format!("sm_{capability}"));
        assert!(instructions <= 4.0, "sm_{capability}: {instructions:.2}");
        assert!(wavefronts <= 1.2 && sectors <= 1.02, "sm_{capability}: {wavefronts:.2}, {sectors:.3}");
        assert!(instructions > 3.0 && wavefronts > 0.25 && sectors >= 1.0, "sm_{capability}");
    }
}
