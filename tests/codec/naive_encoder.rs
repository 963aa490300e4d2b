//! Checks the naive encoder of the tests against everything that the reference has written: code tables, rows, streams, gaps, positions.
//! Does not use the library.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use support::encoder::{self, Codes, Encoded, Word};
use support::{golden, weights};

fn json(model: &str, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden::path(model).join(file)).unwrap()).unwrap()
}

/// Returns the weights of a module in order, and where they are cut.
fn original(file: &SafeTensors, module: &Value) -> (Vec<u16>, Vec<u64>) {
    let (mut all, mut cuts) = (Vec::new(), Vec::new());
    for member in module["members"].as_array().unwrap() {
        let view = file.tensor(member.as_str().unwrap()).unwrap();
        assert_eq!(view.dtype(), Dtype::BF16);
        all.extend(view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])));
        cuts.push(all.len() as u64);
    }
    cuts.pop();
    (all, cuts)
}

/// Asserts that two members are equal. The message names the first difference only, because a diff of megabytes helps nobody.
fn same(what: &str, ours: &[u8], theirs: &[u8]) {
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert!(first.is_none(), "{what}: byte {} of {} differs", first.unwrap(), theirs.len());
    assert_eq!(ours.len(), theirs.len(), "{what}: length");
}

#[test]
fn every_group_of_the_reference_is_encoded_to_the_byte() {
    let mut groups = 0;
    for model in golden::NAMES {
        let bytes = std::fs::read(golden::path(model).join("original.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = golden::raw(model);
        for module in json(model, "expected.json")["modules"].as_array().unwrap() {
            let name = module["module"].as_str().unwrap();
            let (weights, cuts) = original(&file, module);
            for (tensor, _, _, ours) in encoder::group_tensors(name, &encoder::encode(&weights, &cuts)) {
                same(&format!("{model}: {tensor}"), &ours, &stored[&tensor]);
            }
            groups += 1;
        }
    }
    assert!(groups >= 50, "only {groups} groups were compared");
}

#[test]
fn code_tables_are_the_references() {
    for model in golden::NAMES {
        for entry in json(model, "codes.json").as_array().unwrap() {
            let module = &entry["module"];
            let counts = |key: &str| {
                let mut counts = [0; 256];
                for (symbol, count) in entry[key].as_object().unwrap() {
                    counts[symbol.parse::<usize>().unwrap()] = count.as_u64().unwrap();
                }
                counts
            };
            let (mut words, mut end) = (Vec::new(), None);
            for row in entry["table"].as_array().unwrap() {
                let word = Word::parse(row[2].as_str().unwrap());
                match row[0].as_u64() {
                    Some(symbol) => words.push((symbol as u8, word)),
                    None => end = Some(word),
                }
            }
            let histogram = counts("counter");
            assert_eq!(encoder::limited_counts(&histogram), counts("used_counter"), "{model}: {module}");
            assert_eq!(encoder::code_table(&histogram), Codes::new(&words, end.unwrap()), "{model}: {module}");
        }
    }
}

#[test]
fn files_are_laid_out_as_the_safetensors_library_does() {
    // Every tensor of every file that the reference wrote, put together again.
    for model in golden::NAMES {
        for entry in std::fs::read_dir(golden::model(model)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "safetensors") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let dtypes: BTreeMap<String, String> =
                header.tensors().iter().map(|(name, info)| (name.clone(), info.dtype.to_string())).collect();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let tensors: Vec<_> = file
                .iter()
                .map(|(name, view)| {
                    let shape = view.shape().iter().map(|&d| d as u64).collect();
                    (name.to_owned(), dtypes[name].as_str(), shape, view.data().to_vec())
                })
                .collect();
            let metadata: Option<Vec<_>> =
                header.metadata().as_ref().map(|m| m.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
            same(&path.display().to_string(), &encoder::safetensors(&tensors, metadata.as_deref()), &bytes);
        }
    }
}

#[test]
fn names_and_metadata_are_escaped() {
    let name = "a \"quoted\\name\"\n é".to_owned();
    let pairs = [("key \"1\"".to_owned(), "\t\\value".to_owned())];
    let file = encoder::safetensors(&[(name.clone(), "U8", vec![3], vec![1, 2, 3])], Some(&pairs));
    let (_, header) = SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()[&pairs[0].0], pairs[0].1);
    assert_eq!(SafeTensors::deserialize(&file).unwrap().tensor(&name).unwrap().data(), [1, 2, 3]);
}

/// Reads a group back one bit at a time, and compares every gap and position with the places where codes start.
fn read_back(e: &Encoded, codes: &Codes) -> Vec<u16> {
    let symbols: BTreeMap<(u32, u32), u8> = codes.iter().map(|(symbol, w)| ((w.len, w.bits), symbol)).collect();
    let bit = |data: &[u8], at: usize| data[at / 8] >> (7 - at % 8) & 1;
    let gap = |chunk: usize| (0..5).fold(0, |v, i| v << 1 | bit(&e.gaps, 5 * chunk + i) as usize);
    let position = |k: usize| u32::from_le_bytes(e.output_positions[4 * k..4 * k + 4].try_into().unwrap()) as usize;
    let (mut at, mut chunks, mut blocks) = (0, BTreeSet::new(), BTreeSet::new());
    let mut weights = Vec::new();
    for (i, &sm) in e.sign_mantissa.iter().enumerate() {
        if chunks.insert(at / 64) {
            assert_eq!(gap(at / 64), at % 64);
        }
        if blocks.insert(at / 32768) {
            assert_eq!(position(at / 32768), i);
        }
        let (mut len, mut bits) = (0, 0u64);
        let symbol = loop {
            bits = bits << 1 | bit(&e.encoded_exponent, at) as u64;
            (at, len) = (at + 1, len + 1);
            if let Some(&symbol) = symbols.get(&(len, bits as u32)) {
                break symbol;
            }
        };
        weights.push((sm as u16 & 0x80) << 8 | (symbol as u16) << 7 | sm as u16 & 0x7f);
    }
    assert_eq!(e.encoded_exponent.len(), at.div_ceil(8));
    assert_eq!(position(e.output_positions.len() / 4 - 1), weights.len());
    assert_eq!(e.gaps.len(), 320 * e.encoded_exponent.len().div_ceil(4096));
    weights
}

#[test]
fn what_is_written_reads_back() {
    let cases = [
        ("gaussian", weights::gaussian(20_000, 0.02, 1)),
        ("trained-like", weights::trained_like(50_000, 2)),
        ("uniform exponents", weights::uniform_exponents(30_000, 0..=239, 3)),
        ("constant", weights::constant(40_000, 0x3f80)),
        ("half zeros", weights::with_zeros(30_000, 0.5, 4)),
        ("one bit", weights::one_bit(70_000, 120, 5)),
        ("Fibonacci", weights::fibonacci(22, 6)),
        ("one weight", weights::gaussian(1, 0.02, 7)),
    ];
    for (name, weights) in cases {
        let codes = encoder::code_table(&encoder::histogram(&weights));
        let encoded = encoder::encode(&weights, &[]);
        assert_eq!(read_back(&encoded, &codes), weights, "{name}");
    }
}

#[test]
fn codes_of_one_bit_fill_blocks_with_32768_weights() {
    let weights = weights::one_bit(3 * 32_768, 120, 1);
    let e = encoder::encode(&weights, &[]);
    assert_eq!(e.encoded_exponent.len(), 3 * 4096);
    let expected: Vec<u8> = [0u32, 32_768, 65_536, 98_304].iter().flat_map(|p| p.to_le_bytes()).collect();
    assert_eq!(e.output_positions, expected);
}

#[test]
fn codes_of_32_bits_can_be_written() {
    // 0, 10, 110, … up to a code of 31 ones and a zero; the end of data has 32 ones.
    let lengths: Vec<(u8, u32)> = (0..32).map(|i| (100 + i, i as u32 + 1)).collect();
    let codes = encoder::canonical(&lengths, 32);
    assert_eq!(codes.words[131], Some(Word { bits: u32::MAX - 1, len: 32 }));
    assert_eq!(codes.end, Word { bits: u32::MAX, len: 32 });
    let weights = weights::uniform_exponents(20_000, 100..=131, 1);
    let encoded = encoder::encode_with_codes(&weights, &[5, 7], &codes);
    assert_eq!(encoded.luts.len(), 256 * 5);
    assert_eq!(encoded.split_positions, [5, 7]);
    assert_eq!(read_back(&encoded, &codes), weights);

    // Only codes of 32 bits: the rows on the way to them belong to no code of their own.
    let codes = encoder::canonical(&[(7, 32), (8, 32)], 32);
    let weights = weights::uniform_exponents(3_000, 7..=8, 2);
    let encoded = encoder::encode_with_codes(&weights, &[], &codes);
    assert_eq!(encoded.luts.len(), 256 * 5);
    assert_eq!(encoded.luts[0], 255, "the pointer to the second row");
    assert_eq!(read_back(&encoded, &codes), weights);
}

#[test]
fn counts_are_changed_until_no_code_is_longer_than_32_bits() {
    let mut histogram = [0; 256];
    let (mut a, mut b) = (1, 1);
    for count in &mut histogram[90..136] {
        *count = a;
        (a, b) = (b, a + b);
    }
    let used = encoder::limited_counts(&histogram);
    assert_ne!(used, histogram);
    let codes = encoder::code_table(&histogram);
    assert!(codes.iter().map(|(_, w)| w.len).chain([codes.end.len]).all(|len| len <= 32));
    // What changed are the smallest counts, and no more of them than needed.
    let changed: Vec<usize> = (0..256).filter(|&s| used[s] != histogram[s]).collect();
    assert_eq!(changed, (92..92 + changed.len()).collect::<Vec<_>>());
    assert!(changed.iter().all(|&s| used[s] == 1));
}

#[test]
fn trained_like_weights_code_as_trained_ones() {
    let bits = |weights: &[u16]| {
        let histogram = encoder::histogram(weights);
        encoder::code_table(&histogram).mean_bits(&histogram)
    };
    let (trained, normal) = (bits(&weights::trained_like(1 << 20, 1)), bits(&weights::gaussian(1 << 20, 0.02, 1)));
    assert!((2.60..2.70).contains(&trained), "{trained} bits per code");
    assert!((2.55..2.62).contains(&normal), "{normal} bits per code");
}

#[test]
fn bf16_is_rounded_to_the_nearest_even() {
    let bits = |f: u32| weights::bf16_bits(f32::from_bits(f));
    assert_eq!(bits(0x3f80_8000), 0x3f80, "halfway, down to even");
    assert_eq!(bits(0x3f81_8000), 0x3f82, "halfway, up to even");
    assert_eq!(bits(0x3f80_8001), 0x3f81);
    assert_eq!(bits(0xbfff_ffff), 0xc000, "the carry reaches the exponent");
}
