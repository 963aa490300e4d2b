//! Faults inside a group: in its tables, its positions and gaps, and its codes.

use df11::Status;

use super::support::encoder::{self, Encoded};
use super::support::{files, weights};
use super::{
    Case, Files, Step, base, corrupt, cycle, file, flip_gap, holed, long, open_fails, retyped, set_positions, spoilt,
    tensor, two_rows,
};

pub fn tables() -> Vec<Case> {
    let rows = |name, e: Encoded, change: fn(&mut Vec<u8>), byte: usize| {
        corrupt(name, spoilt(e, |e| change(&mut e.luts))).at("layer.luts", byte)
    };
    let unsupported = |name, exponent: usize| {
        let file = spoilt(base(), |e| e.luts[256 + exponent] = 9);
        open_fails(name, file, Status::UnsupportedFormat)
            .says(&[&format!("exponent {exponent} has a code of 9 bits"), "infinities", "lost weights"])
            .at("layer.luts", 256 + exponent)
    };
    let mut all = vec![
        corrupt("luts_of_rows_of_128", retyped(|t| tensor(t, "luts", |(_, _, shape, _)| *shape = vec![4, 128])))
            .says(&["[4, 128]", "[rows, 256]"])
            .at("layer.luts", 0),
        rows("luts_of_no_row", base(), |luts| luts.clear(), 0).says(&["0 bytes of look-up rows"]),
        rows("luts_of_one_row", base(), |luts| luts.truncate(256), 0).says(&["256 bytes of look-up rows"]),
        rows("luts_of_19_rows", base(), |luts| luts.resize(19 * 256, 0), 0).says(&["4864 bytes of look-up rows"]),
        rows("length_33", base(), |luts| luts[256 + 121] = 33, 256 + 121).says(&["exponent 121 has a code of 33 bits"]),
        rows("length_255", base(), |luts| luts[256 + 3] = 255, 256 + 3).says(&["exponent 3 has a code of 255 bits"]),
        unsupported("exponent_240", 240),
        unsupported("exponent_255", 255),
        rows("row_that_no_pointer_leads_to", two_rows(), |luts| luts[128..256].fill(120), 256)
            .says(&["no pointer in an earlier row leads to row 1"]),
        rows("row_that_only_a_later_row_leads_to", two_rows(), swap, 256)
            .says(&["no pointer in an earlier row leads to row 1"]),
        rows("rows_five_deep", two_rows(), deepen, 4 * 256).says(&["no pointer in an earlier row leads to row 4"]),
        rows("pointer_to_the_row_of_lengths", base(), |luts| luts[7] = 255, 7)
            .says(&["entry 7 of row 0 points to row 1"]),
        rows("pointer_outside", two_rows(), |luts| luts[256 + 200] = 240, 456)
            .says(&["points to row 16, and there are 2"]),
        rows("pointer_to_its_own_row_for_a_code", two_rows(), |luts| luts[256..512].fill(255), 512 + 121)
            .says(&["exponent 121 has a code of 12 bits, but no row holds that code"]),
        rows("code_in_no_row", base(), |luts| luts[256 + 77] = 5, 256 + 77)
            .says(&["exponent 77 has a code of 5 bits, but no row holds that code"]),
        rows("code_whose_first_slot_is_taken", base(), |luts| luts[0] = 121, 256 + 120)
            .says(&["exponent 120 has a code of 1 bits, but no row holds"]),
        rows("length_of_another_depth", base(), |luts| luts[256 + 120] = 9, 256 + 120)
            .says(&["exponent 120", "9 bits"]),
        rows("code_with_a_hole", base(), |luts| luts[100] = 121, 256 + 120).says(&["exponent 120", "no row holds"]),
        rows("code_not_aligned", base(), |luts| shift(luts), 256 + 120).says(&["exponent 120", "no row holds"]),
    ];
    // Every length is 0: there are weights, and nothing to write them with.
    let file = spoilt(base(), |e| e.luts.fill(0));
    all.push(corrupt("no_code_at_all", file).says(&["no exponent has a code"]).at("layer.output_positions", 4));
    all
}

/// Inserts a third row: the first row leads to it, and it leads to the second.
fn swap(luts: &mut Vec<u8>) {
    luts[128..256].fill(254);
    luts.splice(512..512, [255; 256]);
}

/// Makes rows that each lead to the next one; the last has the contents of the second.
fn deepen(luts: &mut Vec<u8>) {
    let (codes, lengths) = (luts[256..512].to_vec(), luts[512..].to_vec());
    luts.truncate(256);
    for row in 2..5u8 {
        luts.extend([0u8.wrapping_sub(row); 256]);
    }
    luts.extend(codes);
    luts.extend(lengths);
}

/// Moves the slots of the first row by one, so that a code of one bit begins in slot 1.
fn shift(luts: &mut [u8]) {
    luts.copy_within(0..128, 1);
    luts[0] = 121;
}

pub fn positions() -> Vec<Case> {
    let of = |name, e: Encoded, positions: &[u32], byte: usize| {
        corrupt(name, spoilt(e, |e| set_positions(e, positions))).at("layer.output_positions", byte)
    };
    let behind = |name, e: Encoded, positions: &[u32]| {
        corrupt(name, spoilt(e, |e| set_positions(e, positions))).names("layer.output_positions")
    };
    let raw = |name, positions: &[u8]| {
        let file = spoilt(base(), |e| e.output_positions = positions.to_vec());
        corrupt(name, file).says(&["positions take four each"]).at("layer.output_positions", 0)
    };
    let gaps = |name, len: usize| {
        let file = spoilt(base(), |e| e.gaps.resize(len, 0));
        corrupt(name, file).says(&[&format!("has {len} bytes"), "take 320"]).at("layer.gaps", 0)
    };
    // Two blocks: 1,024 to 1,057 weights in the first, and some more.
    let two = || long(1_100);
    let (k1, n) = (files::positions(&two().output_positions)[1], 1_100);
    assert!((1_024..1_058).contains(&k1));
    vec![
        gaps("gaps_missing", 0),
        gaps("gaps_one_byte_short", 319),
        gaps("gaps_one_byte_long", 321),
        gaps("gaps_of_two_blocks", 640),
        raw("positions_missing", &[]),
        raw("positions_of_three_bytes", &[0, 0, 0]),
        raw("positions_of_nine_bytes", &[0, 0, 0, 0, 40, 0, 0, 0, 0]),
        of("position_0_is_not_0", base(), &[1, 40], 0).says(&["position 0 is 1, not 0"]),
        of("position_0_is_2_32_minus_1", base(), &[u32::MAX, 40], 0).says(&["position 0 is 4294967295"]),
        of("last_position_is_less_than_n", base(), &[0, 39], 4).says(&["the last position is 39", "40 weights"]),
        of("last_position_is_more_than_n", base(), &[0, 41], 4).says(&["the last position is 41", "40 weights"]),
        of("positions_one_too_few", two(), &[0, n], 4).says(&["has 2 positions for 2 blocks"]),
        of("positions_two_too_many", base(), &[0, 40, 40, 40], 12).says(&["has 4 positions for 1 blocks"]),
        of("position_too_many_not_n", base(), &[0, 39, 40], 8).says(&["has 3 positions for 1 blocks"]),
        of("positions_falling", two(), &[0, n + 1, n], 8).says(&["position 2 is 1100, less than 1101 before it"]),
        of("block_of_too_few_weights", two(), &[0, 1_023, n], 4).says(&["block 0 has 1023 weights", "1024 to 32768"]),
        of("last_block_of_too_few_weights", two(), &[0, n - 20, n], 8).says(&["block 1 has 20 weights"]),
        corrupt("block_of_too_many_weights", {
            // Without the code of one bit, no more than 1,058 fit.
            let codes = encoder::canonical(&[(121, 31), (122, 32)], 32);
            let mut e = encoder::encode_with_codes(&cycle(&[122, 121], 1_100), &[], &codes);
            set_positions(&mut e, &[0, 1_059, 1_100]);
            file(&e)
        })
        .says(&["block 0 has 1059 weights", "1024 to 1058"])
        .at("layer.output_positions", 4),
        corrupt(
            "more_weights_than_bits",
            spoilt(base(), |e| {
                e.sign_mantissa.resize(400, 0);
                set_positions(e, &[0, 400]);
            }),
        )
        .says(&["block 0 has 400 weights"])
        .at("layer.output_positions", 4),
        corrupt(
            "fewer_weights_than_bits",
            spoilt(two_rows(), |e| {
                e.encoded_exponent.resize(4_000, 0);
            }),
        )
        .says(&["block 0 has 40 weights"])
        .at("layer.output_positions", 4),
        corrupt(
            "weights_and_no_codes",
            spoilt(base(), |e| {
                e.encoded_exponent.clear();
                e.gaps.clear();
            }),
        )
        .says(&["has 2 positions for 0 blocks"])
        .at("layer.output_positions", 4),
        corrupt(
            "codes_and_no_weights",
            spoilt(base(), |e| {
                e.sign_mantissa.clear();
                e.split_positions.clear();
                set_positions(e, &[0, 0]);
            }),
        )
        .says(&["no weights, but 8 bytes of codes"])
        .at("layer.output_positions", 0),
        // A decoder that trusts it takes one block for the whole stream, however long that is.
        behind("all_weights_in_the_first_of_two_blocks", two(), &[0, n, n]),
        behind("weights_behind_the_last", long(2_100), &[0, 2_100, 2_105, 2_100]),
    ]
}

pub fn streams() -> Vec<Case> {
    use Step::{Decode, Verify};
    let case = |name, step, e: Encoded, change: &dyn Fn(&mut Encoded)| {
        Case::new(name, Files::One(spoilt(e, change)), step, Status::Corrupt)
    };
    // 17 blocks, more than a thread of verification takes at a time, are too large to keep. Two show the same border.
    let two = || long(1_100);
    let start = files::positions(&two().output_positions)[1];
    let gap_1 = files::gap(&two().gaps, 512);
    let one_bit = || encoder::encode(&weights::one_bit(100, 120, 1), &[]);
    let code = |bits: &str| {
        bits.as_bytes()
            .chunks(8)
            .map(|b| {
                let byte = std::str::from_utf8(b).unwrap();
                u8::from_str_radix(byte, 2).unwrap() << (8 - byte.len())
            })
            .collect::<Vec<u8>>()
    };
    vec![
        // 11, then the end of data where a weight should be.
        case("bits_that_are_no_code", Decode, holed(), &|e| e.encoded_exponent[0] = 0b1101_0000)
            .says(&["weight 2 has no code: no exponent's begins so"])
            .at("layer.encoded_exponent", 0),
        case("bits_that_are_no_code_far_on", Decode, two(), &|e| {
            // Where neither the first nor the last thousand bits are.
            e.encoded_exponent[2_000..2_008].fill(0xff)
        })
        .says(&["has no code"])
        .names("layer.encoded_exponent"),
        case("codes_end_inside_a_weight", Decode, base(), &|e| {
            // 22 weights of three bits and, in the last byte, 6 of one bit; but there are 40.
            e.encoded_exponent = code(&"110".repeat(22));
            files::set_gap(&mut e.gaps, 1, 2);
        })
        .says(&["the codes end inside weight 28"])
        .verify_says(&["block 0 has 40 weights by the positions and 28 by its codes"]),
        case("codes_end_before_the_last_byte", Decode, base(), &|e| e.encoded_exponent.extend([0; 3]))
            .says(&["the codes of weights 0 to 40 do not end where the next begin"])
            .verify_says(&["the last weight's code ends at bit", "not in the last byte"]),
        case("first_gap_of_a_block", Decode, two(), &|e| files::set_gap(&mut e.gaps, 512, (gap_1 + 1) % 32))
            .names("layer.encoded_exponent")
            .verify_says(&["the first gap of block 1 is", &format!("a code starts at bit {gap_1}")]),
        case("one_weight_counted_to_the_wrong_block", Decode, two(), &|e| set_positions(e, &[0, start - 1, 1_100]))
            .names("layer.encoded_exponent")
            .verify_says(&[&format!("block 0 has {} weights by the positions and {start} by its codes", start - 1)]),
        // The next codes are as good as these: nothing else would show that all weights are wrong.
        case("first_gap_not_0", Decode, base(), &|e| files::set_gap(&mut e.gaps, 0, 1))
            .verify_says(&["the first gap is 1, not 0"]),
        case("first_gap_of_codes_of_one_bit", Decode, one_bit(), &|e| files::set_gap(&mut e.gaps, 0, 3))
            .verify_says(&["the first gap is 3, not 0"]),
        case("gap_of_a_later_chunk", Verify, two(), &|e| flip_gap(e, 300, 1))
            .says(&["the gap of block 0, chunk 300 (byte 2400 of the codes)"])
            .at("layer.gaps", 300 * 5 / 8),
        case("gap_of_the_last_block", Verify, two(), &|e| flip_gap(e, 520, 16))
            .says(&["the gap of block 1, chunk 8 (byte 4160 of the codes)"])
            .at("layer.gaps", 320 + 5),
    ]
}
