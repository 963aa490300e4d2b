//! Ranges, destinations and threads.

use df11::{DecodeOptions, Status};
use half::bf16;
use half::slice::HalfBitsSliceExt;

use super::support::weights::{self, Random};
use super::support::{encoder, files};
use super::{Case, variants};

#[test]
fn all_ranges_of_small_groups() {
    let few = Case::of("40 weights", weights::gaussian(40, 0.02, 1));
    // Three blocks of 1,024 weights: all ranges around their borders.
    let codes = encoder::canonical(&[(7, 32), (8, 32), (9, 32)], 32);
    let weights = weights::uniform_exponents(2_500, 7..=9, 2);
    let encoded = encoder::encode_with_codes(&weights, &[], &codes);
    let blocks = Case::new("three blocks", weights, encoded);
    assert_eq!(files::positions(&blocks.encoded.output_positions), [0, 1024, 2048, 2500]);
    for (case, marks) in [
        (few, (0..=40).collect::<Vec<_>>()),
        (blocks, vec![0, 1, 2, 31, 1023, 1024, 1025, 1056, 2047, 2048, 2049, 2080, 2467, 2499, 2500]),
    ] {
        for model in case.models() {
            for variant in variants() {
                let options = DecodeOptions::new().threads(1).variant(variant);
                for (i, &from) in marks.iter().enumerate() {
                    marks[i..].iter().for_each(|&to| case.range(model, from, to - from, from % 3, &options));
                }
            }
        }
    }
}

#[test]
fn random_ranges_of_large_groups() {
    let cases = [
        Case::of("trained-like", weights::trained_like(1_500_000, 3)),
        Case::of("one bit", weights::one_bit(3_000_000, 7, 4)),
        Case::of("uniform", weights::uniform_exponents(400_000, 0..=239, 5)),
    ];
    let mut random = Random::new(6);
    let variants: Vec<_> = variants().collect();
    for round in 0..300 {
        let case = &cases[random.below(3) as usize];
        let n = case.weights.len() as u64;
        let first = random.below(n + 1);
        let count = match random.below(4) {
            0 => random.below((n - first + 1).min(100)),
            1 => n - first,
            _ => random.below(n - first + 1),
        };
        let variant = variants[random.below(variants.len() as u64) as usize];
        let options = DecodeOptions::new().threads(round % 9).variant(variant);
        let model = case.models()[random.below(2) as usize];
        case.range(model, first as usize, count as usize, random.below(33) as usize, &options);
    }
}

#[test]
fn ranges_outside_the_group_are_refused() {
    let case = Case::of("100 weights", weights::gaussian(100, 0.02, 1));
    let mut buffer = vec![bf16::ZERO; 101];
    let outside = [(0, 101), (100, 1), (101, 0), (1, 100), (u64::MAX, 1), (u64::MAX - 50, 101), (1 << 63, 0)];
    for (first, count) in outside {
        let to = &mut buffer[..count];
        let error = case.memory.group(0).unwrap().decompress(first, to, &DecodeOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{first} + {count}: {error}");
    }
    assert!(case.memory.group(1).is_none() && case.memory.group(usize::MAX).is_none());
}

#[test]
fn one_to_eight_threads_and_absurdly_many() {
    let case = Case::of("trained-like", weights::trained_like(2_300_000, 7));
    for model in case.models() {
        for variant in variants() {
            for threads in (0..=8).chain([1000, usize::MAX]) {
                case.range(model, 0, case.weights.len(), 1, &DecodeOptions::new().threads(threads).variant(variant));
            }
        }
        for threads in (0..=8).chain([1000, usize::MAX]) {
            model.1.group(0).unwrap().verify(threads).unwrap();
        }
    }
}

#[test]
fn destinations_at_every_offset_with_and_without_streaming_stores() {
    // 2,097,152 weights are 4 MiB: from there on stores go past the caches.
    let case = Case::of("trained-like", weights::trained_like((2 << 20) + 4_321, 8));
    let model = ("in memory", &case.memory);
    for (i, variant) in variants().enumerate() {
        for lead in 0..=40 {
            let options = DecodeOptions::new().threads(1 + lead % 2).variant(variant);
            case.range(model, 17 * lead, 30_000 + lead, lead, &options);
            // Each offset modulo a vector of 32 with two variants, and the next with the others.
            if lead % 2 == i % 2 || lead > 32 {
                case.range(model, lead, (2 << 20) + 4_000 - lead, lead, &options);
            }
        }
    }
    let (last_small, first_large) = ((2 << 20) - 1, 2 << 20);
    for variant in variants() {
        for count in [last_small, first_large] {
            for lead in [0, 1, 31] {
                case.range(model, 5, count, lead, &DecodeOptions::new().threads(1).variant(variant));
            }
        }
    }
}

/// A group of 4,294,967,295 weights, the most that it can have. All codes are 0, because the holes of a file read as zeros.
#[cfg(target_os = "linux")]
#[test]
fn ranges_around_2_to_the_31_and_the_last_weight_of_the_largest_group() {
    use std::os::unix::fs::FileExt;
    const N: u64 = u32::MAX as u64;
    let luts = encoder::luts(&encoder::canonical(&[(120, 1), (121, 2)], 2));
    let code_bytes = N.div_ceil(8);
    let blocks = code_bytes.div_ceil(4096);
    let positions: Vec<u8> = (0..=blocks).flat_map(|k| ((k * 32_768).min(N) as u32).to_le_bytes()).collect();
    let members = [
        ("luts", luts.len() as u64),
        ("output_positions", positions.len() as u64),
        ("split_positions", 0),
        ("gaps", 320 * blocks),
        ("encoded_exponent", code_bytes),
        ("sign_mantissa", N),
    ];
    let (mut header, mut at) = (Vec::new(), 0);
    for (member, len) in members {
        let (dtype, shape) = match member {
            "luts" => ("U8", format!("[{}, 256]", len / 256)),
            "split_positions" => ("I64", "[0]".into()),
            _ => ("U8", format!("[{len}]")),
        };
        header
            .push(format!(r#""g.{member}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{at},{}]}}"#, at + len));
        at += len;
    }
    let head = files::raw(&format!("{{{}}}", header.join(",")), &[luts, positions].concat());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.set_len(head.len() as u64 - members[0].1 - members[1].1 + at).unwrap();
    for read in [false, true] {
        let model = crate::support::files::open(&path, read).unwrap();
        assert_eq!((model.group(0).unwrap().element_count(), model.tensor(0).unwrap().bytes()), (N, 2 * N));
        let mut buffer = vec![0u16; 3_000_000];
        for (first, count) in [
            (N - 1, 1),
            (N - 40_000, 40_000),
            (N - 2_500_001, 2_500_001),
            ((1 << 31) - 1, 3),
            ((1 << 31) - 1_300_000, 3_000_000),
            ((1 << 31) / 7, 1_000),
            (0, 70_000),
        ] {
            for variant in variants() {
                buffer.fill(1);
                let to = buffer[..count].reinterpret_cast_mut();
                model
                    .group(0)
                    .unwrap()
                    .decompress(first, to, &DecodeOptions::new().threads(2).variant(variant))
                    .unwrap();
                assert!(buffer[..count].iter().all(|&w| w == 120 << 7), "{first} + {count}, read {read}");
                assert!(buffer[count..].iter().all(|&w| w == 1), "{first} + {count}, read {read}");
            }
        }
        for (first, count) in [(N, 1), (N - 1, 2), (1 << 32, 1), (u64::MAX, 2)] {
            let to = buffer[..count].reinterpret_cast_mut();
            let error = model.group(0).unwrap().decompress(first, to, &DecodeOptions::default()).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument);
        }
        let mut bytes = [0; 4];
        model.tensor(0).unwrap().read(2 * N - 4, &mut bytes, &DecodeOptions::default()).unwrap();
        assert_eq!(bytes, [0, 0x3c, 0, 0x3c]);
    }
}

#[test]
fn tensors_are_read_in_parts() {
    let weights = weights::gaussian(50_000, 0.02, 9);
    let case = Case::new("tensors", weights.clone(), encoder::encode(&weights, &[0, 1, 20_000, 20_000, 49_999]));
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let starts = [0, 0, 1, 20_000, 20_000, 49_999, 50_000];
    for (_, model) in case.models() {
        let mut random = Random::new(10);
        assert_eq!(model.tensors().len(), 6);
        for (tensor, range) in model.tensors().zip(starts.windows(2)) {
            let want = &bytes[2 * range[0]..2 * range[1]];
            assert_eq!(tensor.bytes(), want.len() as u64);
            for _ in 0..50 {
                let from = 2 * random.below(want.len() as u64 / 2 + 1) as usize;
                let len = 2 * random.below((want.len() - from) as u64 / 2 + 1) as usize;
                let mut part = vec![0; len];
                tensor
                    .read(from as u64, &mut part, &DecodeOptions::default())
                    .unwrap_or_else(|e| panic!("{from} + {len} of {}: {e}", tensor.name()));
                assert!(part == want[from..from + len], "{from} + {len} of {}", tensor.name());
            }
            let mut most = vec![0; want.len() + 2];
            let mut refused = |offset: u64, len: usize| {
                let result = tensor.read(offset, &mut most[..len], &DecodeOptions::default());
                let error = result.expect_err(&format!("{offset} + {len} of {}", tensor.name()));
                assert_eq!(error.status(), Status::InvalidArgument, "{error}");
            };
            refused(0, want.len() + 2);
            refused(want.len() as u64, 2);
            refused(u64::MAX, 2);
            refused(u64::MAX - 1, 2);
            if want.len() >= 4 {
                refused(1, 2);
                refused(0, 3);
            }
        }
    }
}
