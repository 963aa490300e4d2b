//! The bit stream (its end, gaps and positions, lengths of codes), the tables, and the numbers of a group.

use std::collections::BTreeMap;

use df11::{Model, OpenOptions};

use super::support::files::{self, Stored};
use super::support::golden;
use super::{decode_only_group, file_of, group, groups, open, same_weights};

#[test]
fn the_last_byte_is_filled_with_the_start_of_the_end_of_data_code() {
    let mut filled = 0;
    for g in groups(&["tiny", "edge", "edge_patched"]) {
        let (end, bits) = (*g.starts().last().unwrap(), 8 * g.code().len());
        assert!((bits - 7..=bits).contains(&end), "{}", g.name);
        let open = bits - end;
        if open == 0 {
            continue;
        }
        filled += 1;
        let last = g.code()[g.code().len() - 1] & ((1 << open) - 1);
        let want: String = g.end.chars().chain("0000000".chars()).take(open).collect();
        assert_eq!(format!("{last:08b}")[8 - open..], want, "{}", g.name);
        // They mean nothing: a decoder stops at the last weight, whatever code they may look like.
        for fill in 0..1u8 << open {
            if fill != last {
                same_weights(&g, "other bits behind the last weight", |members| {
                    let code = members.get_mut("encoded_exponent").unwrap();
                    *code.last_mut().unwrap() ^= last ^ fill;
                });
            }
        }
    }
    assert!(filled > 20, "{filled}");
}

#[test]
fn the_gap_of_a_chunk_in_which_no_weight_starts_means_nothing() {
    let (mut of_the_end, mut zero) = (0, 0);
    for g in groups(&["tiny", "edge", "edge_patched"]) {
        let mut used = vec![false; 512 * g.blocks()];
        let starts = g.starts();
        let (end, starts) = starts.split_last().unwrap();
        starts.iter().for_each(|s| used[s / 64] = true);
        let unused: Vec<usize> = (0..used.len()).filter(|&c| !used[c]).collect();
        let inside = unused.iter().filter(|&&c| c < g.code().len().div_ceil(8));
        for &chunk in inside {
            let gap = files::gap(g.member("gaps"), chunk) as usize;
            let ends_here = end / 64 == chunk && end % 8 != 0;
            assert_eq!(gap, if ends_here { end % 64 } else { 0 }, "{}, chunk {chunk}", g.name);
            *if gap == 0 { &mut zero } else { &mut of_the_end } += 1;
        }
        if !unused.is_empty() {
            same_weights(&g, "gaps of chunks without a weight", |members| {
                let gaps = members.get_mut("gaps").unwrap();
                unused.iter().for_each(|&chunk| files::set_gap(gaps, chunk, 31));
            });
        }
    }
    assert!(of_the_end > 0 && zero > 0, "{of_the_end} gaps of the end of data, {zero} gaps of 0");
}

#[test]
fn encoded_exponent_is_no_multiple_of_8_bytes() {
    let all = groups(&["tiny", "edge", "edge_patched"]);
    let mut remainders: Vec<usize> = all.iter().map(|g| g.code().len() % 8).collect();
    remainders.sort_unstable();
    remainders.dedup();
    assert_eq!(remainders, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(all.iter().any(|g| g.code().len() == 1));
    all.iter().for_each(|g| assert_eq!(decode_only_group(file_of(&g.members)).len(), g.weights()));
}

#[test]
fn a_last_code_that_straddles_a_block_and_ends_on_a_byte_leaves_one_position_fewer() {
    let g = group("edge", "mods.last_code_straddles_block_byte_aligned");
    assert_eq!(g.positions().len(), g.blocks());
    assert_eq!(g.member("gaps").len(), 320 * g.blocks());
    assert_eq!(g.starts().last().unwrap(), &(8 * g.code().len()));
    decode_only_group(file_of(&g.members));
}

#[test]
fn a_block_in_which_only_the_end_of_data_starts_has_a_position_that_equals_n() {
    for name in ["last_code_straddles_block_eof_in_new_block", "block_plus_one_byte_eof"] {
        let g = group("edge", &format!("mods.{name}"));
        let (positions, n) = (g.positions(), g.weights() as u32);
        assert_eq!(positions[positions.len() - 2..], [n, n]);
        assert_eq!(positions.len(), g.blocks() + 1);
        decode_only_group(file_of(&g.members));
    }
}

#[test]
fn one_position_more_that_equals_n_is_an_empty_block_behind_the_stream() {
    for g in groups(&["edge", "edge_patched"]) {
        if g.positions().len() == g.blocks() + 1 {
            same_weights(&g, "a position more", |members| {
                let n = g.weights() as u32;
                members.get_mut("output_positions").unwrap().extend(n.to_le_bytes());
            });
        }
    }
}

#[test]
fn a_block_can_hold_almost_32768_weights() {
    let g = group("edge", "mods.low_entropy_block_gt_48k_shared");
    assert!(g.positions().windows(2).any(|p| p[1] - p[0] > 32_000));
    decode_only_group(file_of(&g.members));
}

#[test]
fn codes_run_from_1_to_26_bits() {
    let all = groups(&golden::NAMES);
    let lengths = || all.iter().flat_map(|g| &g.words).map(|(_, word)| word.len());
    assert_eq!((lengths().min(), lengths().max()), (Some(1), Some(26)));
    // What the library says of them, too.
    let model = open(golden::model("edge"));
    for g in all.iter().filter(|g| g.model == "edge") {
        let mut want = [0; 256];
        g.words.iter().for_each(|(symbol, word)| want[*symbol as usize] = word.len() as u8);
        let found = model.find_group(&g.name).unwrap();
        assert_eq!(found.code_lengths(), &want, "{}", g.name);
        let lens = found.code_lengths().iter().filter(|&&l| l != 0);
        let bounds = (*lens.clone().min().unwrap() as u32, *lens.max().unwrap() as u32);
        let codes = df11::internals::format::codes(found);
        assert_eq!((codes.shortest(), codes.longest()), bounds);
    }
}

#[test]
fn stale_table_slots_are_no_codes() {
    let mut stale = 0;
    for g in groups(&golden::NAMES) {
        let file = Model::from_bytes(file_of(&g.members), &OpenOptions::default()).unwrap();
        let found: BTreeMap<String, u8> = df11::internals::format::codes(file.group(0).unwrap())
            .codes()
            .iter()
            .map(|c| (format!("{:032b}", c.bits)[..c.len as usize].to_owned(), c.symbol))
            .collect();
        for (symbol, word) in &g.words {
            assert_eq!(found.get(word), Some(symbol), "{}: {word}", g.name);
        }
        // Whatever else was taken for a code can only be met behind the end of the data.
        for (word, symbol) in found.iter().filter(|(word, _)| !g.words.iter().any(|(_, w)| w == *word)) {
            assert!(word.starts_with(&g.end), "{}: {word} of exponent {symbol}, end of data {}", g.name, g.end);
            stale += 1;
        }
    }
    assert!(stale > 0);
}

#[test]
fn in_the_first_row_a_stale_slot_can_stand_before_the_real_one() {
    let mut seen = 0;
    for g in groups(&["edge_patched"]) {
        let row = &g.member("luts")[..256];
        for (symbol, word) in g.words.iter().filter(|(_, word)| word.len() <= 8) {
            let real = usize::from_str_radix(word, 2).unwrap() << (8 - word.len());
            assert_eq!(row[real], *symbol);
            seen += row[..real].contains(symbol) as usize;
        }
        decode_only_group(file_of(&g.members));
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn slots_of_the_end_of_data_can_point_to_their_own_row() {
    for name in ["eof_slot_self_pointer_9", "eof_slot_self_pointer_17"] {
        let g = group("edge", &format!("mods.{name}"));
        let rows = g.member("luts").len() / 256 - 1;
        let last = &g.member("luts")[256 * (rows - 1)..256 * rows];
        assert!(last[..128].iter().all(|&slot| slot == (256 - (rows - 1)) as u8), "{:?}", &last[..128]);
        // Bits behind the last weight that lead a walk there are the test above; this is the row itself.
        decode_only_group(file_of(&g.members));
    }
}

#[test]
fn seventeen_tables_are_the_most() {
    let g = group("edge", "mods.luts_17_prefix_rows_max_valid");
    assert_eq!(g.member("luts").len(), 18 * 256);
    assert_eq!(g.member("luts")[..17 * 256].iter().filter(|&&slot| slot >= 240).min(), Some(&240));
    decode_only_group(file_of(&g.members));
}

#[test]
fn a_groups_numbers_are_those_of_its_tensors() {
    for name in golden::NAMES {
        let stored = files::stored(name);
        for group in open(golden::model(name)).groups() {
            let members: BTreeMap<&str, &Stored> = stored
                .iter()
                .filter_map(|s| {
                    files::member_of(&s.name).filter(|(base, _)| *base == group.name()).map(|(_, m)| (m, s))
                })
                .collect();
            let bytes: usize = members.values().map(|s| s.data.len()).sum();
            assert_eq!(group.packed_bytes(), bytes as u64, "{name} {}", group.name());
            assert_eq!(group.element_count(), members["sign_mantissa"].data.len() as u64);
            assert_eq!(group.block_count() + 1, members["output_positions"].data.len() / 4);
            assert_eq!(group.parts().count(), 6);
            for part in group.parts() {
                let bytes = members[part.name].data.len() as u64;
                assert_eq!(part.location.bytes, bytes, "{name} {} {}", group.name(), part.name);
            }
        }
    }
}
