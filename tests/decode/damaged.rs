//! Damaged streams: each fails, or decodes to the weights of the naive decoder.

use df11::DecodeOptions;
use df11::Status;
use df11::internals::huffman::decode::MOST_LANES;
use df11::internals::huffman::naive;
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::support::encoder::{self, Encoded};
use super::support::weights::{self, Random};
use super::support::{check, files};
use super::{Case, cycle, variants};

/// Returns the weights if a decode of all these code bytes should succeed, as far as the naive decoder can tell: the codes must end in
/// the last byte, and the first code of each block must start where its first gap says.
fn judge(case: &Case, code: &[u8]) -> Option<Vec<u16>> {
    let codes = df11::internals::format::codes(case.memory.group(0).unwrap());
    let (mut found, mut at) = (Vec::new(), 0);
    let positions = files::positions(&case.encoded.output_positions);
    for (k, block) in positions.windows(2).enumerate().filter(|(_, block)| block[0] < block[1]) {
        if at != 32_768 * k + files::gap(&case.encoded.gaps, 512 * k) as usize {
            return None;
        }
        let signs = &case.encoded.sign_mantissa[block[0] as usize..block[1] as usize];
        let (weights, end) = naive::decode(codes, code, at, signs).ok()?;
        found.extend(weights);
        at = end;
    }
    (8 * code.len() - 7..=8 * code.len()).contains(&at).then_some(found)
}

#[test]
fn damaged_streams_fail_or_decode_as_the_naive_decoder_says() {
    // Codes with holes and without; few enough blocks that each is a run of its own, so that both judge alike.
    let holes = encoder::canonical(&[(100, 2), (101, 3), (102, 3), (103, 5), (104, 12), (105, 30)], 32);
    let full = encoder::canonical(&[(100, 1), (101, 2), (102, 3), (103, 4), (104, 5), (105, 31)], 32);
    let mut random = Random::new(11);
    let (mut good, mut bad) = (0, 0);
    for round in 0..check::rounds(300) as usize {
        let n = [1, 20, 300, 5_000, 12_000, 24_000][round % 6];
        let codes = if round % 4 < 2 { &holes } else { &full };
        let seed = 1000 + round as u64;
        let weights = match round % 5 {
            // Mostly short codes, so that a change is likely to hit no more than one of them.
            0..=2 => {
                let mut random = Random::new(seed);
                let exponent = |r: &mut Random| 100 + [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5][r.below(12) as usize];
                (0..n).map(|_| random.bits() as u16 & 0x807f | exponent(&mut random) << 7).collect()
            }
            _ => cycle(&[100], n, seed),
        };
        let case =
            Case::new(format!("round {round}"), weights.clone(), encoder::encode_with_codes(&weights, &[], codes));
        let mut code = case.encoded.encoded_exponent.clone();
        assert!(code.len() <= MOST_LANES * 4096 && judge(&case, &code).is_some());
        for _ in 0..1 + random.below(3) {
            let at = random.below(code.len() as u64) as usize;
            match random.below(3) {
                0 => code[at] ^= 1 << random.below(8),
                1 => code[at] = random.bits() as u8,
                _ => {
                    let to = (at + random.below(40) as usize).min(code.len());
                    code[at..to].fill([0, 255][random.below(2) as usize]);
                }
            }
        }
        let want = judge(&case, &code);
        *if want.is_some() { &mut good } else { &mut bad } += 1;
        let encoded = Encoded { encoded_exponent: code, ..case.encoded.clone() };
        let damaged = Case::new(format!("round {round}"), weights, encoded);
        for (_, model) in damaged.models() {
            for variant in variants() {
                let mut found = vec![bf16::ZERO; n];
                let options = DecodeOptions::new().threads(1).variant(variant);
                match (model.group(0).unwrap().decompress(0, &mut found, &options), &want) {
                    (Ok(()), Some(want)) => {
                        assert!(found.reinterpret_cast() == &want[..], "round {round}")
                    }
                    (Err(error), None) => assert_eq!(error.status(), Status::Corrupt, "round {round}: {error}"),
                    (Ok(()), None) => panic!("round {round}: {} took a damaged stream", variant.name()),
                    (Err(error), Some(_)) => panic!("round {round}: {} refused a good one: {error}", variant.name()),
                }
            }
            // A walk of everything finds at least as much.
            assert!(want.is_some() || model.group(0).unwrap().verify(2).is_err(), "round {round}");
        }
    }
    assert!(good > 30 && bad > 100, "{good} good, {bad} bad");
}

#[test]
fn damaged_streams_of_many_blocks_give_no_other_weights_than_the_naive_decoder() {
    let case = Case::of("trained-like", weights::trained_like(400_000, 12));
    let codes = df11::internals::format::codes(case.memory.group(0).unwrap());
    let mut random = Random::new(13);
    for round in 0..16 {
        let mut code = case.encoded.encoded_exponent.clone();
        let at = random.below(code.len() as u64) as usize;
        code[at] ^= 1 << random.below(8);
        let naive = naive::decode(codes, &code, 0, &case.encoded.sign_mantissa);
        let encoded = Encoded { encoded_exponent: code, ..case.encoded.clone() };
        let damaged = Case::new(format!("round {round}"), case.weights.clone(), encoded);
        for (_, model) in damaged.models() {
            for variant in variants() {
                let mut found = vec![bf16::ZERO; case.weights.len()];
                let options = DecodeOptions::new().threads(1 + round % 2).variant(variant);
                let result = model.group(0).unwrap().decompress(0, &mut found, &options);
                if result.is_ok() {
                    let (want, _) = naive.as_ref().unwrap_or_else(|_| panic!("round {round}: byte {at}"));
                    assert!(found.reinterpret_cast() == &want[..], "round {round}: byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_whole_group_decodes_whatever_gaps_inside_its_blocks_say() {
    let weights = weights::trained_like(300_000, 21);
    let encoded = encoder::encode(&weights, &[]);
    let mut random = Random::new(22);
    for round in 0..check::rounds(12) {
        let mut encoded = encoded.clone();
        let chunks = encoded.gaps.len() / 5 * 8;
        // One gap, some, or all but those at which blocks begin.
        for _ in 0..[1, 20, 2 * chunks][round as usize % 3] {
            let chunk = random.below(chunks as u64) as usize;
            if !chunk.is_multiple_of(512) {
                files::set_gap(&mut encoded.gaps, chunk, random.below(32) as u8);
            }
        }
        let case = Case::new(format!("round {round}"), weights.clone(), encoded);
        for model in case.models() {
            for variant in variants() {
                let options = DecodeOptions::new().threads(1).variant(variant);
                case.range(model, 0, weights.len(), 0, &options);
                // A range may begin with a wrong gap. Then it fails, or has other weights; nothing else happens.
                for _ in 0..20 {
                    let first = random.below(weights.len() as u64);
                    let count = random.below((weights.len() as u64 - first).min(5_000) + 1) as usize;
                    let mut found = vec![bf16::ZERO; count];
                    if let Err(error) = model.1.group(0).unwrap().decompress(first, &mut found, &options) {
                        assert_eq!(error.status(), Status::Corrupt, "round {round}: {error}");
                    }
                }
            }
        }
    }
}

/// A large range that begins inside a damaged block says so, as the whole group does: a tensor is such a range.
#[test]
fn large_ranges_find_damage_in_their_first_block() {
    let case = Case::of("damaged block", weights::trained_like(120_000, 7));
    let positions = files::positions(&case.encoded.output_positions);
    let (block, next) = (positions[2] as usize, positions[3] as usize);
    for at in [2 * 4096 + 500, 2 * 4096 + 2_000, 2 * 4096 + 3_900] {
        let mut code = case.encoded.encoded_exponent.clone();
        code[at..at + 64].fill(0);
        let damaged =
            Case::new("damaged", case.weights.clone(), Encoded { encoded_exponent: code, ..case.encoded.clone() });
        for (how, model) in damaged.models() {
            let group = model.group(0).unwrap();
            for variant in variants() {
                let options = DecodeOptions::new().threads(1).variant(variant);
                let decode = |first: usize, count: usize| {
                    group.decompress(first as u64, &mut vec![bf16::ZERO; count], &options).map_err(|e| e.status())
                };
                assert_eq!(decode(0, 120_000), Err(Status::Corrupt), "{how}, {}: all", variant.name());
                for tenth in 1..10 {
                    let first = block + (next - block) * tenth / 10;
                    let found = decode(first, 40_000);
                    assert_eq!(found, Err(Status::Corrupt), "{how}, {}, byte {at}, from {first}", variant.name());
                }
            }
        }
    }
}
