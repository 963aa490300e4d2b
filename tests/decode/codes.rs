//! Weights of every number and every distribution of exponents, and codes of every length.

use df11::{DecodeOptions, Status};
use half::bf16;

use super::support::weights::{self, Random};
use super::support::{encoder, files};
use super::{Case, cycle, variants};

#[test]
fn every_size_of_every_distribution() {
    let mut sizes: Vec<usize> = (1..=70).collect();
    for near in [96, 128, 186, 187, 217, 256, 512, 1024, 1240, 4096, 12_400, 32_768, 65_536] {
        sizes.extend([near - 1, near, near + 1]);
    }
    sizes.push(100_003);
    let eight_bits = encoder::canonical(&(0..240).map(|e| (e, 8)).collect::<Vec<_>>(), 8);
    for n in sizes {
        let seed = n as u64;
        let cases: [(&str, Vec<u16>); 6] = [
            ("normal", weights::gaussian(n, 0.02, seed)),
            ("trained-like", weights::trained_like(n, seed)),
            ("constant", weights::constant(n, 0xbf80)),
            ("half zeros", weights::with_zeros(n, 0.5, seed)),
            ("one bit", weights::one_bit(n, 239, seed)),
            ("two exponents", weights::uniform_exponents(n, 120..=121, seed)),
        ];
        for (name, weights) in cases {
            Case::of(format!("{n} weights, {name}, seed {seed}"), weights).check(&[1]);
        }
        // Every exponent there is. Huffman's own code for so many can need more rows than a file can hold.
        let weights = weights::uniform_exponents(n, 0..=239, seed);
        let encoded = encoder::encode_with_codes(&weights, &[], &eight_bits);
        Case::new(format!("{n} weights, uniform, seed {seed}"), weights, encoded).check(&[1]);
    }
}

#[test]
fn a_group_may_have_no_weights() {
    for positions in [vec![0; 4], vec![0; 8]] {
        let mut encoded = encoder::encode(&[], &[]);
        encoded.output_positions = positions;
        let case = Case::new("no weights", vec![], encoded);
        for model in case.models() {
            variants().for_each(|v| case.range(model, 0, 0, 3, &DecodeOptions::new().threads(2).variant(v)));
            model.1.group(0).unwrap().verify(4).unwrap();
        }
        // Not one of them is there.
        let mut one = [bf16::ZERO];
        let error = case.memory.group(0).unwrap().decompress(0, &mut one, &DecodeOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
    }
}

#[test]
fn codes_of_one_length_fill_blocks_to_their_borders() {
    for len in 1..=32u32 {
        let symbols: &[(u8, u32)] = if len == 1 { &[(7, 1)] } else { &[(7, len), (8, len)] };
        let codes = encoder::canonical(symbols, len);
        let last = symbols.last().unwrap().0;
        for blocks in [1, 2] {
            let full = (32_768 * blocks / len) as usize;
            for n in full - 1..=full + 2 {
                let weights = weights::uniform_exponents(n, 7..=last, n as u64);
                let encoded = encoder::encode_with_codes(&weights, &[], &codes);
                Case::new(format!("{n} codes of {len} bits"), weights, encoded).check(&[1]);
            }
        }
    }
}

#[test]
fn blocks_of_one_bit_codes_hold_32768_weights() {
    let case = Case::of("one bit", weights::one_bit(300_000, 5, 1));
    assert!(files::positions(&case.encoded.output_positions).windows(2).take(9).all(|p| p[1] - p[0] == 32_768));
    case.check(&[1, 2]);
}

#[test]
fn long_and_short_codes_in_every_mixture() {
    // Exponent 100 + i has a code of i + 1 bits: 0, 10, 110, and so on.
    let lengths: Vec<(u8, u32)> = (0..32).map(|i| (100 + i as u8, i + 1)).collect();
    let codes = encoder::canonical(&lengths, 32);
    let patterns: [&[u8]; 12] = [
        &[131],                               // only the longest
        &[131, 100],                          // longest and shortest in turn
        &[100, 100, 100, 100, 100, 100, 131], // six to a look-up, then a long one
        &[110, 111],                          // on both sides of the window's width
        &[110],
        &[111],
        &[100; 6],
        &[101, 102, 103, 104, 105, 106, 107],
        &[130, 131, 129, 128],
        &[100, 131, 131, 131, 131, 131],
        &[109, 100, 110, 101, 111, 102],
        &[100, 100, 100, 100, 100, 101],
    ];
    for (i, pattern) in patterns.into_iter().enumerate() {
        for n in [1, 5, 37, 1000, 9000, 40_000] {
            let weights = cycle(pattern, n, i as u64);
            let encoded = encoder::encode_with_codes(&weights, &[], &codes);
            Case::new(format!("pattern {i} of {n}"), weights, encoded).check(&[1]);
        }
    }
    for seed in 0..20 {
        let weights = weights::uniform_exponents(20_000, 100..=131, seed);
        let encoded = encoder::encode_with_codes(&weights, &[], &codes);
        Case::new(format!("random lengths, seed {seed}"), weights, encoded).check(&[1]);
    }
    Case::of("Fibonacci", weights::fibonacci(24, 1)).check(&[1]);
}

/// The decoder with the table in registers has a place for long codes by the 7 bits that they begin with.
#[test]
fn long_codes_after_one_to_five_prefixes() {
    for prefixes in 0..=5u32 {
        // Bits that begin a code of up to 7 bits; the others, 1 in 128 for each prefix, begin a longer one.
        let mut lengths = vec![(100, 2), (101, 2), (102, 3), (103, 4), (104, 5), (105, 5)];
        lengths.extend((0..8 - prefixes as u8).map(|i| (106 + i, 7)));
        let long = [8, 9, 10, 12, 13, 14, 14, 15, 16, 18, 24, 24];
        lengths.extend((0..prefixes as usize * long.len()).map(|i| (120 + i as u8, long[i % long.len()])));
        let codes = encoder::canonical(&lengths, 24);
        for (share, n) in [(300, 400_000), (40, 150_000), (2, 60_000)] {
            let mut random = Random::new(prefixes as u64 * 1000 + share);
            let weights: Vec<u16> = (0..n)
                .map(|_| {
                    let any = if random.below(share) == 0 { lengths.len() } else { 6 };
                    random.bits() as u16 & 0x807f | (lengths[random.below(any as u64) as usize].0 as u16) << 7
                })
                .collect();
            let encoded = encoder::encode_with_codes(&weights, &[], &codes);
            Case::new(format!("{prefixes} prefixes, 1 in {share}"), weights, encoded).check(&[1]);
        }
    }
}
