//! Verification walks a block in two ways. The fast one, by chunks, accepts a block exactly if the slow one, step by step, does.

use crate::support;

use df11::internals::huffman::code::CodeTable;
use df11::internals::huffman::walk::{Block, Mismatch, Walker};
use df11::internals::huffman::{BLOCK_BYTES, GAP_BYTES_PER_BLOCK, rows};
use support::encoder::{self, Encoded};
use support::weights::{self, Random};
use support::{check, files, golden};

/// The numbers of blocks of a group, by the result of the walks.
#[derive(Default, Debug)]
struct Seen {
    /// Good, and accepted by chunks.
    fast: usize,
    /// Good, and at the end of the group, where only the slow walk can tell.
    slow: usize,
    /// Bad.
    gaps: usize,
    codes: usize,
    counts: usize,
}

/// Walks every block of a group in both ways.
fn walk(e: &Encoded, codes: &CodeTable, seen: &mut Seen, what: &str) {
    let walker = Walker::new(codes);
    let positions = files::positions(&e.output_positions);
    let n = e.sign_mantissa.len();
    for (number, gaps) in e.gaps.chunks_exact(GAP_BYTES_PER_BLOCK).enumerate() {
        let [Some(&from), Some(&to)] = [number, number + 1].map(|i| positions.get(i)) else { continue };
        let Some(weights) = to.checked_sub(from) else { continue };
        let rest = &e.encoded_exponent[(number * BLOCK_BYTES).min(e.encoded_exponent.len())..];
        let block = Block {
            // All that the stream has, or as little as verification gives.
            code: if number % 2 == 0 { rest } else { &rest[..rest.len().min(BLOCK_BYTES + 8)] },
            gaps,
            weights: weights as usize,
            stream_bits: rest.len() * 8,
            last: to as usize == n,
        };
        let (fast, slow) = (walker.by_chunks(&block), walker.step_by_step(&block));
        let what = || format!("{what}, block {number}");
        assert_eq!(walker.block(&block), slow, "{}", what());
        if block.last || rest.len() < BLOCK_BYTES + 8 {
            assert_eq!(fast, None, "{}", what());
        } else {
            assert_eq!(fast, slow.ok(), "{}: {slow:?}", what());
        }
        *match (fast, slow) {
            (Some(_), _) => &mut seen.fast,
            (None, Ok(_)) => &mut seen.slow,
            (None, Err(Mismatch::Gap { .. })) => &mut seen.gaps,
            (None, Err(Mismatch::NoCode { .. })) => &mut seen.codes,
            (None, Err(Mismatch::Count { .. } | Mismatch::End { .. })) => &mut seen.counts,
        } += 1;
    }
}

/// Reads the groups of a golden model as they are stored.
fn groups(model: &str) -> Vec<Encoded> {
    let mut tensors = files::stored(model);
    let names: Vec<String> = tensors.iter().filter_map(|t| Some(t.name.strip_suffix(".luts")?.to_owned())).collect();
    let mut take = |name: &str, member: &str| {
        let at = tensors.iter().position(|t| t.name == format!("{name}.{member}")).unwrap();
        tensors.swap_remove(at).data
    };
    let group = |name: &String| Encoded {
        luts: take(name, "luts"),
        encoded_exponent: take(name, "encoded_exponent"),
        sign_mantissa: take(name, "sign_mantissa"),
        output_positions: take(name, "output_positions"),
        gaps: take(name, "gaps"),
        split_positions: vec![],
    };
    names.iter().map(group).collect()
}

#[test]
fn golden_models_are_good_both_ways() {
    let mut seen = Seen::default();
    for model in golden::NAMES {
        for (number, group) in groups(model).iter().enumerate() {
            walk(group, &rows::read(&group.luts).unwrap(), &mut seen, &format!("{model}, group {number}"));
        }
    }
    assert!(seen.fast > 200 && seen.slow > 50 && seen.gaps + seen.codes + seen.counts == 0, "{seen:?}");
}

/// Codes of every length, one bit to 32, whole and with a few bits changed.
#[test]
fn both_ways_agree_on_changed_groups() {
    let many = encoder::canonical(&(0..240).map(|e| (e, 8)).collect::<Vec<_>>(), 8);
    // Half of all strings of bits begin no code.
    let holes = encoder::canonical(&[(100, 3), (101, 3), (102, 4), (103, 12), (104, 20), (105, 32)], 32);
    let exponent = |r: &mut Random| 100 + [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5][r.below(12) as usize];
    let mut seen = Seen::default();
    for round in 0..check::rounds(200) {
        let mut random = Random::new(0xa1c + round);
        let n = 40_000 + random.below(60_000) as usize;
        let group = match round % 6 {
            0 => encoder::encode(&weights::gaussian(n, 0.02, round), &[]),
            1 => encoder::encode(&weights::one_bit(2 * n, 120, round), &[]),
            2 => encoder::encode(&weights::fibonacci(24, round), &[]),
            3 => encoder::encode(&weights::trained_like(n, round), &[]),
            4 => encoder::encode_with_codes(&weights::uniform_exponents(n, 0..=239, round), &[], &many),
            _ => {
                let weights: Vec<u16> = (0..n).map(|_| exponent(&mut random) << 7).collect();
                encoder::encode_with_codes(&weights, &[], &holes)
            }
        };
        let codes = rows::read(&group.luts).unwrap();
        walk(&group, &codes, &mut seen, &format!("round {round}"));
        for change in 0..6 {
            let mut changed = group.clone();
            let noise = random.bits();
            let what = match change % 3 {
                0 => {
                    let at = noise as usize % changed.encoded_exponent.len();
                    changed.encoded_exponent[at] ^= 1 << (noise >> 61);
                    format!("byte {at} of the codes")
                }
                1 => {
                    let chunk = noise as usize % (changed.encoded_exponent.len() / 8);
                    files::set_gap(&mut changed.gaps, chunk, (noise >> 59) as u8);
                    format!("gap {chunk}")
                }
                _ => {
                    let mut positions = files::positions(&changed.output_positions);
                    let at = noise as usize % positions.len();
                    positions[at] = positions[at].wrapping_add([1, u32::MAX][(noise >> 63) as usize]);
                    changed.output_positions = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
                    format!("position {at}")
                }
            };
            walk(&changed, &codes, &mut seen, &format!("round {round}, {what}"));
        }
    }
    let Seen { fast, slow, gaps, codes, counts } = seen;
    assert!(fast > 5_000 && slow > 1_000 && gaps > 300 && codes > 20 && counts > 100, "{seen:?}");
}
