//! The library's encoder. Code tables and rows are compared with the reference's, groups with the reference's files and with the naive
//! encoder (`tests/support/encoder.rs`), for every variant and numbers of threads.

use crate::support;

use df11::internals::host::{self, DecodeOptions, EncodeOptions, Packed, PackedSizes};
use df11::internals::huffman::codebook::{Codebook, Limit};
use df11::internals::huffman::encode::{Encoder, Stretch, Variant, count};
use df11::internals::huffman::rows;
use df11::{Model, OpenOptions, Status};
use half::bf16;
use half::slice::HalfBitsSliceExt;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;
use support::check::rounds;
use support::weights::{self, Random};
use support::{encoder, golden};

fn variants() -> impl Iterator<Item = Variant> {
    Variant::ALL.iter().copied().filter(|v| v.is_available())
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{c}"),
    };
    let text = text.trim_end_matches('=').as_bytes();
    let bits = text.chunks(4).flat_map(|four| {
        let value = four.iter().fold(0u32, |v, &c| v << 6 | digit(c) as u32) << (6 * (4 - four.len()));
        value.to_be_bytes()[1..four.len()].to_vec()
    });
    bits.collect()
}

fn counts(value: &Value) -> [u64; 256] {
    let mut counts = [0; 256];
    for pair in value.as_array().unwrap() {
        counts[pair[0].as_u64().unwrap() as usize] = pair[1].as_u64().unwrap();
    }
    counts
}

/// Converts a code book to the words of the naive encoder.
fn words(book: &Codebook) -> encoder::Codes {
    let word = |c: df11::internals::huffman::code::Code| encoder::Word {
        bits: c.bits >> (32 - c.len as u32),
        len: c.len as u32,
    };
    let all: Vec<_> = book.words().map(|c| (c.symbol, word(c))).collect();
    encoder::Codes::new(&all, word(book.end()))
}

/// Reads 240 histograms with the reference's code tables and rows.
#[test]
fn every_vector_of_the_reference_has_its_code_and_its_rows() {
    let json = std::fs::read(golden::path("tables/tables.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_slice(&json).unwrap();
    let (mut same, mut limited, mut crashed, mut changed) = (0, 0, 0, 0);
    for vector in &vectors {
        let tag = &vector["tag"];
        let histogram = counts(&vector["counter"]);
        let book = Codebook::new(&histogram).unwrap_or_else(|| panic!("{tag}: no code"));
        let luts = rows::write(book.words());
        let codes = rows::read(&luts).unwrap_or_else(|fault| panic!("{tag}: {fault:?}"));
        assert!(book.words().all(|w| codes.first(w.bits) == Some(w)), "{tag}");
        if vector.get("luts_shape").is_some_and(|s| s[0].as_u64().unwrap() > rows::MAX_ROWS as u64) {
            // What the reference writes here no decoder can read.
            assert!(matches!(book.limited(), Some(Limit::Rows(8..=16))), "{tag}: {:?}", book.limited());
            assert!(luts.len() <= 256 * rows::MAX_ROWS);
            let ideal = encoder::code_table(&histogram).mean_bits(&histogram);
            assert!(words(&book).mean_bits(&histogram) - ideal < 0.0016, "{tag}");
            limited += 1;
            continue;
        }
        let (mut table, mut end) = (Vec::new(), None);
        for row in vector["table"].as_array().unwrap() {
            let word = encoder::Word::parse(row[2].as_str().unwrap());
            match row[0].as_u64() {
                Some(symbol) => table.push((symbol as u8, word)),
                None => end = Some(word),
            }
        }
        assert_eq!(words(&book), encoder::Codes::new(&table, end.unwrap()), "{tag}");
        if vector.get("used_counter").is_some() {
            assert!(matches!(book.limited(), Some(Limit::Counts(_))), "{tag}");
            changed += 1;
        } else {
            assert_eq!(book.limited(), None, "{tag}");
        }
        match vector["luts_b64"].as_str() {
            Some(text) => {
                assert_eq!(luts, base64(text), "{tag}");
                same += 1;
            }
            None => {
                assert!(vector["error"].as_str().unwrap().contains("curr_val"));
                crashed += 1;
            }
        }
    }
    assert_eq!((vectors.len(), same + limited + crashed), (240, 240));
    assert!(same > 200 && limited > 10 && crashed == 1 && changed == 22, "{same} {limited} {crashed} {changed}");
}

fn compress(tensors: &[&[u16]], threads: usize, variant: Variant) -> df11::Result<Packed> {
    let tensors: Vec<&[bf16]> = tensors.iter().map(|t| t.reinterpret_cast()).collect();
    host::compress(&tensors, &EncodeOptions::new().threads(threads).variant(variant))
}

fn of_naive(e: encoder::Encoded) -> Packed {
    Packed {
        luts: e.luts,
        encoded_exponent: e.encoded_exponent,
        sign_mantissa: e.sign_mantissa,
        output_positions: e.output_positions,
        gaps: e.gaps,
        split_positions: e.split_positions.iter().flat_map(|s| s.to_le_bytes()).collect(),
    }
}

/// Asserts that two groups are equal. The message names the first difference only, because a diff of megabytes helps nobody.
fn same(what: &str, ours: &Packed, theirs: &Packed) {
    let members = |p: &Packed| {
        let Packed { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } = p.clone();
        [luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions]
    };
    let names = ["luts", "encoded_exponent", "sign_mantissa", "output_positions", "gaps", "split_positions"];
    for ((a, b), name) in members(ours).iter().zip(members(theirs)).zip(names) {
        let first = a.iter().zip(&b).position(|(x, y)| x != y);
        assert!(first.is_none(), "{what}: byte {} of {name}, {} bytes", first.unwrap(), b.len());
        assert_eq!(a.len(), b.len(), "{what}: bytes of {name}");
    }
}

/// Opens a group as a model and decodes it.
fn decode(packed: &Packed) -> Vec<u16> {
    let Packed { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } = packed.clone();
    let splits = split_positions.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let encoded =
        encoder::Encoded { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions: splits };
    let file = encoder::safetensors(&encoder::group_tensors("g", &encoded), None);
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    model.group(0).unwrap().verify(2).unwrap();
    let mut weights = vec![bf16::ZERO; model.group(0).unwrap().element_count() as usize];
    model.group(0).unwrap().decompress(0, &mut weights, &DecodeOptions::default()).unwrap();
    weights.iter().map(|w| w.to_bits()).collect()
}

/// Cuts weights into the tensors of a group.
fn cut<'a>(weights: &'a [u16], cuts: &[u64]) -> Vec<&'a [u16]> {
    let mut rest = weights;
    let mut at = 0;
    let mut all = Vec::new();
    for &cut in cuts {
        let (head, tail) = rest.split_at((cut - at) as usize);
        all.push(head);
        (rest, at) = (tail, cut);
    }
    all.push(rest);
    all
}

#[test]
fn every_group_of_the_reference_is_encoded_to_the_byte() {
    let mut groups = 0;
    for model in golden::NAMES {
        let bytes = std::fs::read(golden::path(model).join("original.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = golden::raw(model);
        let json: Value =
            serde_json::from_slice(&std::fs::read(golden::path(model).join("expected.json")).unwrap()).unwrap();
        for module in json["modules"].as_array().unwrap() {
            let name = module["module"].as_str().unwrap();
            let tensors: Vec<Vec<u16>> = module["members"]
                .as_array()
                .unwrap()
                .iter()
                .map(|member| {
                    let data = file.tensor(member.as_str().unwrap()).unwrap().data();
                    data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
                })
                .collect();
            let tensors: Vec<&[u16]> = tensors.iter().map(|t| &t[..]).collect();
            let member = |m: &str| stored[&format!("{name}.{m}")].clone();
            let theirs = Packed {
                luts: member("luts"),
                encoded_exponent: member("encoded_exponent"),
                sign_mantissa: member("sign_mantissa"),
                output_positions: member("output_positions"),
                gaps: member("gaps"),
                split_positions: member("split_positions"),
            };
            for variant in variants() {
                for threads in [1, 2, 7] {
                    let ours = compress(&tensors, threads, variant).unwrap();
                    same(&format!("{model} {name} by {} x{threads}", variant.name()), &ours, &theirs);
                }
            }
            groups += 1;
        }
    }
    assert!(groups >= 50, "only {groups} groups were compared");
}

/// Returns trained-like weights, of which one in a thousand has one of these exponents, so that the steps for likely weights meet others.
fn some_anywhere(n: usize, exponents: std::ops::RangeInclusive<u8>, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    let others = weights::uniform_exponents(n, exponents, seed);
    let likely = weights::trained_like(n, seed);
    likely.into_iter().zip(others).map(|(w, other)| if random.below(1000) == 0 { other } else { w }).collect()
}

/// Counting exponents: of every kind, at every place, in any number of weights.
#[test]
fn exponents_are_counted() {
    let kinds = [
        ("trained-like", weights::trained_like(300_000, 1)),
        ("all", weights::uniform_exponents(50_000, 0..=255, 2)),
        ("the smallest", weights::uniform_exponents(50_000, 0..=20, 3)),
        ("the largest", weights::uniform_exponents(50_000, 235..=255, 4)),
        ("sixteen", weights::uniform_exponents(300_000, 240..=255, 5)),
        ("constant", weights::constant(300_000, 0xc180)),
        ("half zeros", weights::with_zeros(300_000, 0.5, 6)),
        ("few zeros", weights::with_zeros(300_000, 0.01, 6)),
        ("some anywhere", some_anywhere(300_000, 0..=255, 7)),
    ];
    for (name, all) in &kinds {
        for n in [all.len(), 0, 1, 31, 511, 512, 1023, 1024, 1025, 8191, 15_360, 16_385, 33_000] {
            // An odd start, for nothing says that weights are aligned to more than two bytes.
            let weights = &all[(n % 3).min(all.len() - n)..][..n];
            let mut expected = encoder::histogram(weights);
            expected[120] += 5;
            for variant in variants() {
                let mut counts = [0; 256];
                counts[120] = 5;
                count(weights, &mut counts, variant);
                assert_eq!(counts, expected, "{name}, {n} weights by {}", variant.name());
            }
        }
    }
}

/// Weights of many kinds, whole and in odd lengths, against the naive encoder.
#[test]
fn weights_of_every_kind_are_encoded_as_the_naive_encoder_does() {
    let kinds: Vec<(&str, Vec<u16>)> = vec![
        ("gaussian", weights::gaussian(300_001, 0.02, 1)),
        ("trained-like", weights::trained_like(1_000_003, 2)),
        ("uniform exponents", weights::uniform_exponents(200_000, 0..=239, 3)),
        ("twelve exponents", weights::uniform_exponents(300_000, 100..=111, 3)),
        ("constant", weights::constant(700_001, 0x3f80)),
        ("half zeros", weights::with_zeros(300_007, 0.5, 4)),
        ("nearly all zeros", weights::with_zeros(900_000, 0.99, 4)),
        ("one bit", weights::one_bit(1_000_000, 120, 5)),
        ("Fibonacci", weights::fibonacci(24, 6)),
        ("some anywhere", some_anywhere(300_000, 0..=239, 7)),
        ("lowest and others", some_anywhere(100_000, 0..=3, 8)),
        ("the smallest there are", weights::uniform_exponents(100_000, 0..=9, 8)),
        ("the largest there are", weights::uniform_exponents(100_000, 229..=239, 8)),
        (
            "far apart",
            weights::of_counts(0, &[1000, 900, 3, 0, 0, 7], 9)
                .into_iter()
                .chain(weights::gaussian(90_000, 9.0, 3))
                .collect(),
        ),
    ];
    for (name, all) in &kinds {
        for variant in variants() {
            let lengths =
                [all.len(), 1, 2, 3, 7, 8, 15, 16, 17, 127, 128, 129, 511, 512, 513, 12_345, 262_144, 262_145];
            for n in lengths.into_iter().filter(|&n| n <= all.len()) {
                let weights = &all[..n];
                let third = n as u64 / 3;
                let theirs = of_naive(encoder::encode(weights, &[third, third, 2 * third]));
                for threads in [1, 3] {
                    let ours = compress(&cut(weights, &[third, third, 2 * third]), threads, variant).unwrap();
                    if theirs.luts.len() > 256 * rows::MAX_ROWS {
                        // The reference's rows could not be read here.
                        assert_eq!(decode(&ours), weights, "{name}, {n} weights");
                        continue;
                    }
                    same(&format!("{name}, {n} weights by {} x{threads}", variant.name()), &ours, &theirs);
                }
            }
        }
    }
}

/// Code lengths of up to 32 bits, with the words of the naive encoder.
#[test]
fn codes_of_up_to_32_bits() {
    // Fibonacci counts up to where the tree is 31 deep: some million weights.
    let mut counts = vec![1usize, 1];
    while counts.len() < 31 {
        counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
    }
    let weights = weights::of_counts(90, &counts, 5);
    let theirs = of_naive(encoder::encode(&weights, &[]));
    let mut histogram = [0; 256];
    count(&weights, &mut histogram, Variant::Portable);
    let book = Codebook::new(&histogram).unwrap();
    assert!(book.words().any(|w| w.len >= 30), "{:?}", book.words().map(|w| w.len).max());
    for variant in variants() {
        same(variant.name(), &compress(&[&weights], 2, variant).unwrap(), &theirs);
    }
}

/// Any cut into stretches gives the same codes, gaps and positions.
#[test]
fn stretches_of_any_length_fit_together() {
    let mut random = Random::new(77);
    for round in 0..rounds(6) {
        let weights = match round % 3 {
            0 => weights::trained_like(60_000, round),
            1 => weights::uniform_exponents(40_000, 0..=200, round),
            _ => weights::one_bit(150_000, 7, round),
        };
        let theirs = encoder::stream(&weights, &encoder::code_table(&encoder::histogram(&weights)));
        for variant in variants() {
            let mut histogram = [0; 256];
            count(&weights, &mut histogram, variant);
            assert_eq!(histogram, encoder::histogram(&weights));
            let book = Codebook::new(&histogram).unwrap();
            let encoder = Encoder::new(&book, &histogram, variant).unwrap();
            let (mut code, mut gaps) = (vec![0u8; theirs.bytes.len() + 8], vec![0u8; theirs.gaps.len() + 1]);
            let mut positions = vec![0];
            let (mut at, mut bit) = (0, 0);
            let mut out = Stretch::default();
            out.reserve(5000).unwrap();
            let mut signs = vec![0; weights.len()];
            while at < weights.len() {
                let len = (random.below(5000) as usize).min(weights.len() - at);
                let part = &weights[at..at + len];
                encoder.stretch(part, bit, &mut signs[at..at + len], &mut out).unwrap();
                let (from, bytes) = out.code();
                bytes.iter().enumerate().for_each(|(i, b)| code[from as usize + i] |= b);
                let (from, known) = out.gaps();
                gaps[from as usize..][..known.len()].copy_from_slice(known);
                positions.extend(out.positions().iter().map(|p| p + at as u32));
                (at, bit) = (at + len, out.end_bit());
            }
            assert_eq!(signs, weights.iter().map(|&w| encoder::sign_mantissa(w)).collect::<Vec<_>>());
            let whole = bit as usize / 8;
            assert_eq!(code[..whole], theirs.bytes[..whole], "{} {round}", variant.name());
            let chunks = bit as usize / 64;
            assert_eq!(gaps[..chunks], theirs.gaps[..chunks]);
            let blocks = bit as usize / 32768;
            assert_eq!(positions[..blocks], theirs.positions[..blocks]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(200) as u32))]
    #[test]
    fn any_weights_are_encoded_as_the_naive_encoder_does(
        mut weights in prop::collection::vec(any::<u16>(), 1..3000),
        mask in any::<u16>(),
        threads in 1usize..4,
    ) {
        // Few exponents or many, none of them 240 or more.
        weights.iter_mut().for_each(|w| {
            *w = *w & (mask | 0x807f) & 0xf7ff;
            if *w >> 7 & 0xff >= 240 { *w &= 0x807f; }
        });
        let theirs = of_naive(encoder::encode(&weights, &[]));
        prop_assume!(theirs.luts.len() <= 256 * rows::MAX_ROWS);
        for variant in variants() {
            let ours = compress(&[&weights], threads, variant).unwrap();
            prop_assert!(ours == theirs, "{}", variant.name());
        }
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let error = compress(&[], 1, Variant::Portable).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    let error = compress(&[&[], &[]], 1, Variant::Portable).unwrap_err();
    assert_eq!(error.to_string(), "a group without a weight");
    let mut weights = weights::gaussian(1000, 0.02, 1);
    weights[500] = 0x7f80;
    weights[600] = 0x7fc0;
    for variant in variants() {
        let error = compress(&[&weights], 1, variant).unwrap_err();
        assert!(error.to_string().starts_with("2 of 1000 weights have an exponent that DF11 cannot hold, such as 255"));
    }
}

#[test]
fn caller_memory_is_filled_to_the_byte_and_sizes_are_told() {
    let weights = weights::trained_like(70_000, 3);
    let want = compress(&[&weights], 1, Variant::best()).unwrap();
    let options = EncodeOptions::new().threads(2);
    let mut sizes = PackedSizes::default();
    // SAFETY: nothing is to be written.
    unsafe { host::compress_raw(&[&weights], None, &mut sizes, &options).unwrap() };
    let bound = PackedSizes::bound(70_000, 1);
    let all =
        |s: &PackedSizes| [s.luts, s.encoded_exponent, s.sign_mantissa, s.output_positions, s.gaps, s.split_positions];
    assert!(all(&sizes).iter().zip(all(&bound)).all(|(size, bound)| *size <= bound));
    let mut memory = all(&sizes).map(|n| vec![0x55u8; n as usize + 16]);
    for short in 0..6 {
        if all(&sizes)[short] == 0 {
            continue;
        }
        let mut given = memory.each_mut().map(|m| (m.as_mut_ptr(), m.len() as u64 - 16));
        given[short].1 -= 1;
        let mut told = PackedSizes::default();
        // SAFETY: the memory is as large as is said, or larger.
        let error = unsafe { host::compress_raw(&[&weights], Some(given), &mut told, &options) }.unwrap_err();
        assert_eq!((error.status(), told), (Status::BufferTooSmall, sizes));
        assert!(memory.iter().flatten().all(|&b| b == 0x55));
    }
    let given = memory.each_mut().map(|m| (m.as_mut_ptr(), m.len() as u64 - 16));
    // SAFETY: the memory is as large as is said.
    unsafe { host::compress_raw(&[&weights], Some(given), &mut sizes, &options).unwrap() };
    assert!(memory.iter().all(|m| m[m.len() - 16..] == [0x55; 16]));
    let [luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions] =
        memory.map(|m| m[..m.len() - 16].to_vec());
    let got = Packed { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions };
    same("caller's memory", &got, &want);
}

/// No group takes more bytes than the bound promises, whatever its weights.
#[test]
fn the_bound_holds() {
    for weights in [
        weights::uniform_exponents(50_000, 0..=239, 1),
        weights::fibonacci(24, 1),
        vec![0x3f80],
        weights::one_bit(100_000, 3, 1),
        weights::uniform_exponents(1, 0..=0, 1),
    ] {
        let packed = compress(&[&weights], 1, Variant::best()).unwrap();
        let bound = PackedSizes::bound(weights.len() as u64, 1);
        assert!(packed.encoded_exponent.len() as u64 <= bound.encoded_exponent);
        assert!(
            packed.gaps.len() as u64 <= bound.gaps && packed.output_positions.len() as u64 <= bound.output_positions
        );
    }
}

/// A file may change between counting and encoding: then encoding returns an error and writes nothing outside its buffers.
#[test]
fn weights_that_were_not_counted_are_noticed() {
    let weights = weights::gaussian(10_000, 0.02, 1);
    for variant in variants() {
        let mut histogram = [0; 256];
        count(&weights, &mut histogram, variant);
        let book = Codebook::new(&histogram).unwrap();
        let encoder = Encoder::new(&book, &histogram, variant).unwrap();
        let mut out = Stretch::default();
        out.reserve(weights.len()).unwrap();
        let absent: Vec<u16> = (0..256).filter(|&e| histogram[e as usize] == 0).collect();
        for at in [0, 5, 127, 128, 4000, 9_983, 9_984, 9_999] {
            for &exponent in &absent {
                let mut changed = weights.clone();
                changed[at] = exponent << 7;
                let mut signs = vec![0; weights.len()];
                let error = encoder.stretch(&changed, 9, &mut signs, &mut out).unwrap_err();
                assert_eq!(error.weight, at, "{}", variant.name());
            }
        }
    }
}

/// The safe interface writes nowhere else, whatever its arguments.
#[test]
fn a_stretch_without_room_panics() {
    let weights = weights::trained_like(5_000, 21);
    let histogram = encoder::histogram(&weights);
    let book = Codebook::new(&histogram).unwrap();
    for variant in variants() {
        let encoder = Encoder::new(&book, &histogram, variant).unwrap();
        let run = |room: usize, signs: usize| {
            let (mut out, mut signs) = (Stretch::default(), vec![0; signs]);
            out.reserve(room).unwrap();
            let call = || encoder.stretch(&weights, 0, &mut signs, &mut out).is_ok();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).ok()
        };
        assert_eq!(run(5_000, 5_000), Some(true));
        // 32 bits a weight are asked for, in words of 64: too little by one word, by most, by all.
        for (room, signs) in [(4_998, 5_000), (600, 5_000), (0, 5_000), (5_000, 4_999), (5_000, 5_001)] {
            assert_eq!(run(room, signs), None, "{}: room for {room} and {signs} signs", variant.name());
        }
    }
}

/// Tools and benchmarks print the names, so each must be different.
#[cfg(target_arch = "x86_64")]
#[test]
fn variants_have_names() {
    let encoders: Vec<&str> = Variant::ALL.iter().map(|v| v.name()).collect();
    assert_eq!(encoders, ["portable", "avx2", "avx512"]);
    let decoders = df11::internals::huffman::decode::Variant::ALL;
    assert_eq!(decoders.map(|v| v.name()), ["portable", "sse2", "avx2", "avx512", "avx512vbmi2"]);
}
