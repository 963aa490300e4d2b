//! Every decoder against the bit-by-bit one and against what was encoded: sizes, codes, ranges, destinations, threads,
//! damaged streams, and what lies outside the buffers.

mod support;

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use df11::host::{self, DecodeOptions};
use df11::huffman::code::{Code, CodeTable};
use df11::huffman::decode::{Fault, LANES, Variant};
use df11::huffman::naive;
use df11::{Model, OpenOptions, Status};
use half::bf16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use support::alloc::{self, Counting};
use support::check;
use support::encoder::{self, Encoded};
use support::files;
use support::weights::{self, Random};

#[global_allocator]
static COUNTING: Counting = Counting;

/// The counters are the process's, so the test of memory must run alone: every other one holds this for reading.
static ALONE: RwLock<()> = RwLock::new(());

fn among_others() -> RwLockReadGuard<'static, ()> {
    ALONE.read().unwrap_or_else(PoisonError::into_inner)
}

fn variants() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|v| v.is_available())
}

/// A model of one group, in memory and as a file that is read.
struct Case {
    what: String,
    weights: Vec<u16>,
    encoded: Encoded,
    memory: Model,
    read: Model,
}

impl Case {
    fn new(what: impl Into<String>, weights: Vec<u16>, encoded: Encoded) -> Case {
        let (what, file) = (what.into(), encoder::safetensors(&encoder::group_tensors("g", &encoded), None));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, &file).unwrap();
        let said = |e: df11::Error| panic!("{what}: {e}");
        let read = Model::open(&path, &OpenOptions { read: true, ..Default::default() }).unwrap_or_else(said);
        let memory = Model::from_bytes(file, &OpenOptions::default()).unwrap_or_else(said);
        Case { what, weights, encoded, memory, read }
    }

    fn of(what: impl Into<String>, weights: Vec<u16>) -> Case {
        let encoded = encoder::encode(&weights, &[]);
        Case::new(what, weights, encoded)
    }

    fn models(&self) -> [(&'static str, &Model); 2] {
        [("in memory", &self.memory), ("read", &self.read)]
    }

    /// Decodes a range into the middle of a larger buffer, `lead` weights behind its start, and looks at all of it.
    fn range(&self, model: (&str, &Model), first: usize, count: usize, lead: usize, options: &DecodeOptions) {
        const CANARY: u16 = 0xa5c3;
        let mut buffer = vec![bf16::from_bits(CANARY); lead + count + 64];
        let destination = &mut buffer[lead..lead + count];
        let place = || {
            let variant = options.variant.map_or("default", Variant::name);
            format!("{}, {}, {variant} x{}, {first} + {count}, offset {lead}", self.what, model.0, options.threads)
        };
        host::decompress(model.1, 0, first as u64, destination, options).unwrap_or_else(|e| panic!("{}: {e}", place()));
        let (before, rest) = buffer.reinterpret_cast().split_at(lead);
        let (found, after) = rest.split_at(count);
        assert!(found == &self.weights[first..first + count], "{}: wrong weights", place());
        assert!(before.iter().chain(after).all(|&w| w == CANARY), "{}: wrote outside", place());
    }

    /// All of it, by the naive decoder and by all others, and every gap and position.
    fn check(&self, threads: &[usize]) {
        let group = &self.memory.groups()[0];
        let naive = naive::decode(group.codes(), &self.encoded.encoded_exponent, 0, &self.encoded.sign_mantissa);
        let (found, end) = naive.unwrap_or_else(|k| panic!("{}: the naive decoder stops at weight {k}", self.what));
        assert!(found == self.weights, "{}: naive", self.what);
        assert_eq!(end.div_ceil(8), self.encoded.encoded_exponent.len(), "{}", self.what);
        for model in self.models() {
            for variant in variants() {
                for &threads in threads {
                    let options = DecodeOptions { threads, variant: Some(variant) };
                    self.range(model, 0, self.weights.len(), 0, &options);
                }
            }
            for &threads in threads {
                host::verify(model.1, 0, threads).unwrap_or_else(|e| panic!("{}, {}: {e}", self.what, model.0));
            }
        }
    }
}

// What is encoded

#[test]
fn every_size_of_every_distribution() {
    let _shared = among_others();
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
    let _shared = among_others();
    for positions in [vec![0; 4], vec![0; 8]] {
        let mut encoded = encoder::encode(&[], &[]);
        encoded.output_positions = positions;
        let case = Case::new("no weights", vec![], encoded);
        for model in case.models() {
            variants().for_each(|v| case.range(model, 0, 0, 3, &DecodeOptions { threads: 2, variant: Some(v) }));
            host::verify(model.1, 0, 4).unwrap();
        }
        // Not one of them is there.
        let mut one = [bf16::ZERO];
        let error = host::decompress(&case.memory, 0, 0, &mut one, &DecodeOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
    }
}

#[test]
fn codes_of_one_length_fill_blocks_to_their_borders() {
    let _shared = among_others();
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
    let _shared = among_others();
    let case = Case::of("one bit", weights::one_bit(300_000, 5, 1));
    assert!(files::positions(&case.encoded.output_positions).windows(2).take(9).all(|p| p[1] - p[0] == 32_768));
    case.check(&[1, 2]);
}

/// Weights of these exponents, over and over, with random signs and mantissas.
fn cycle(exponents: &[u8], n: usize, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    exponents.iter().cycle().take(n).map(|&e| random.bits() as u16 & 0x807f | (e as u16) << 7).collect()
}

#[test]
fn long_and_short_codes_in_every_mixture() {
    let _shared = among_others();
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

/// A random prefix code, with holes, of which a symbol may have several words.
fn random_codes(random: &mut Random) -> Vec<Code> {
    // Words are split in two until there are enough; which are split decides the shape.
    let (mut words, wanted) = (vec![(0u64, 0u32)], 1 + random.below(40) as usize);
    let deep = random.below(3);
    for _ in 0..400 {
        if words.len() >= wanted {
            break;
        }
        let i = match deep {
            0 => random.below(words.len() as u64) as usize,
            1 => words.len() - 1,
            _ => words.len() - 1 - random.below(words.len().min(3) as u64) as usize,
        };
        let (bits, len) = words[i];
        if len < 32 {
            words.remove(i);
            words.extend([(bits << 1, len + 1), (bits << 1 | 1, len + 1)]);
        }
    }
    let holes = random.below(4);
    words.retain(|&(_, len)| len > 0 && (holes != 0 || random.below(5) != 0));
    words
        .into_iter()
        .map(|(bits, len)| Code { bits: (bits << (32 - len)) as u32, len: len as u8, symbol: random.below(240) as u8 })
        .collect()
}

// Ranges, destinations, threads

#[test]
fn all_ranges_of_small_groups() {
    let _shared = among_others();
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
                let options = DecodeOptions { threads: 1, variant: Some(variant) };
                for (i, &from) in marks.iter().enumerate() {
                    marks[i..].iter().for_each(|&to| case.range(model, from, to - from, from % 3, &options));
                }
            }
        }
    }
}

#[test]
fn random_ranges_of_large_groups() {
    let _shared = among_others();
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
        let options = DecodeOptions { threads: round % 9, variant: Some(variant) };
        let model = case.models()[random.below(2) as usize];
        case.range(model, first as usize, count as usize, random.below(33) as usize, &options);
    }
}

#[test]
fn ranges_outside_the_group_are_refused() {
    let _shared = among_others();
    let case = Case::of("100 weights", weights::gaussian(100, 0.02, 1));
    let mut buffer = vec![bf16::ZERO; 101];
    let outside = [(0, 101), (100, 1), (101, 0), (1, 100), (u64::MAX, 1), (u64::MAX - 50, 101), (1 << 63, 0)];
    for (first, count) in outside {
        let to = &mut buffer[..count];
        let error = host::decompress(&case.memory, 0, first, to, &DecodeOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{first} + {count}: {error}");
    }
    let error = host::decompress(&case.memory, 1, 0, &mut buffer, &DecodeOptions::default()).unwrap_err();
    assert_eq!(error.status(), Status::NotFound);
    assert_eq!(host::verify(&case.memory, usize::MAX, 1).unwrap_err().status(), Status::NotFound);
}

#[test]
fn one_to_eight_threads_and_absurdly_many() {
    let _shared = among_others();
    let case = Case::of("trained-like", weights::trained_like(2_300_000, 7));
    for model in case.models() {
        for variant in variants() {
            for threads in (0..=8).chain([1000, usize::MAX]) {
                case.range(model, 0, case.weights.len(), 1, &DecodeOptions { threads, variant: Some(variant) });
            }
        }
        for threads in (0..=8).chain([1000, usize::MAX]) {
            host::verify(model.1, 0, threads).unwrap();
        }
    }
}

#[test]
fn destinations_at_every_offset_with_and_without_streaming_stores() {
    let _shared = among_others();
    // 2,097,152 weights are 4 MiB: from there on stores go past the caches.
    let case = Case::of("trained-like", weights::trained_like((2 << 20) + 4_321, 8));
    let model = ("in memory", &case.memory);
    for (i, variant) in variants().enumerate() {
        for lead in 0..=40 {
            let options = DecodeOptions { threads: 1 + lead % 2, variant: Some(variant) };
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
                case.range(model, 5, count, lead, &DecodeOptions { threads: 1, variant: Some(variant) });
            }
        }
    }
}

/// 4,294,967,295 weights, the most that a group can have: all codes are 0, and zeros are what the holes of a file hold.
#[cfg(target_os = "linux")]
#[test]
fn ranges_around_2_to_the_31_and_the_last_weight_of_the_largest_group() {
    use std::os::unix::fs::FileExt;
    const N: u64 = u32::MAX as u64;
    let _shared = among_others();
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
        let model = Model::open(&path, &OpenOptions { read, ..Default::default() }).unwrap();
        assert_eq!((model.groups()[0].element_count(), model.tensors()[0].bytes()), (N, 2 * N));
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
                host::decompress(&model, 0, first, to, &DecodeOptions { threads: 2, variant: Some(variant) }).unwrap();
                assert!(buffer[..count].iter().all(|&w| w == 120 << 7), "{first} + {count}, read {read}");
                assert!(buffer[count..].iter().all(|&w| w == 1), "{first} + {count}, read {read}");
            }
        }
        for (first, count) in [(N, 1), (N - 1, 2), (1 << 32, 1), (u64::MAX, 2)] {
            let to = buffer[..count].reinterpret_cast_mut();
            let error = host::decompress(&model, 0, first, to, &DecodeOptions::default()).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument);
        }
        let mut bytes = [0; 4];
        host::read_tensor(&model, &model.tensors()[0], 2 * N - 4, &mut bytes, &DecodeOptions::default()).unwrap();
        assert_eq!(bytes, [0, 0x3c, 0, 0x3c]);
    }
}

#[test]
fn tensors_are_read_in_parts() {
    let _shared = among_others();
    let weights = weights::gaussian(50_000, 0.02, 9);
    let case = Case::new("tensors", weights.clone(), encoder::encode(&weights, &[0, 1, 20_000, 20_000, 49_999]));
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let starts = [0, 0, 1, 20_000, 20_000, 49_999, 50_000];
    for (_, model) in case.models() {
        let mut random = Random::new(10);
        assert_eq!(model.tensors().len(), 6);
        for (tensor, range) in model.tensors().iter().zip(starts.windows(2)) {
            let want = &bytes[2 * range[0]..2 * range[1]];
            assert_eq!(tensor.bytes(), want.len() as u64);
            for _ in 0..50 {
                let from = 2 * random.below(want.len() as u64 / 2 + 1) as usize;
                let len = 2 * random.below((want.len() - from) as u64 / 2 + 1) as usize;
                let mut part = vec![0; len];
                host::read_tensor(model, tensor, from as u64, &mut part, &DecodeOptions::default())
                    .unwrap_or_else(|e| panic!("{from} + {len} of {}: {e}", tensor.name()));
                assert!(part == want[from..from + len], "{from} + {len} of {}", tensor.name());
            }
            let mut most = vec![0; want.len() + 2];
            let mut refused = |offset: u64, len: usize| {
                let result = host::read_tensor(model, tensor, offset, &mut most[..len], &DecodeOptions::default());
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

// Damaged streams

/// Whether a whole decode of these code bytes should succeed, as far as the naive decoder can tell: the codes end in the
/// last byte, and at the first weight of each block they are where its first gap says. Then also the weights.
fn judge(case: &Case, code: &[u8]) -> Option<Vec<u16>> {
    let codes = case.memory.groups()[0].codes();
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
    let _shared = among_others();
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
        assert!(code.len() <= LANES * 4096 && judge(&case, &code).is_some());
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
                let options = DecodeOptions { threads: 1, variant: Some(variant) };
                match (host::decompress(model, 0, 0, &mut found, &options), &want) {
                    (Ok(()), Some(want)) => {
                        assert!(found.reinterpret_cast() == &want[..], "round {round}")
                    }
                    (Err(error), None) => assert_eq!(error.status(), Status::Corrupt, "round {round}: {error}"),
                    (Ok(()), None) => panic!("round {round}: {} took a damaged stream", variant.name()),
                    (Err(error), Some(_)) => panic!("round {round}: {} refused a good one: {error}", variant.name()),
                }
            }
            // A walk of everything finds at least as much.
            assert!(want.is_some() || host::verify(model, 0, 2).is_err(), "round {round}");
        }
    }
    assert!(good > 30 && bad > 100, "{good} good, {bad} bad");
}

#[test]
fn damaged_streams_of_many_blocks_give_no_other_weights_than_the_naive_decoder() {
    let _shared = among_others();
    let case = Case::of("trained-like", weights::trained_like(400_000, 12));
    let codes = case.memory.groups()[0].codes();
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
                let options = DecodeOptions { threads: 1 + round % 2, variant: Some(variant) };
                let result = host::decompress(model, 0, 0, &mut found, &options);
                if result.is_ok() {
                    let (want, _) = naive.as_ref().unwrap_or_else(|_| panic!("round {round}: byte {at}"));
                    assert!(found.reinterpret_cast() == &want[..], "round {round}: byte {at}");
                }
            }
        }
    }
}

// What lies outside the buffers

#[cfg(unix)]
mod bounds {
    use super::*;
    use df11::huffman::decode::{self, Feed, Run};
    use df11::huffman::table::MultiTable;
    use support::guarded::{Guarded, Side};

    /// A run in memory that ends at forbidden pages, and what should become of it.
    struct Trial {
        run: Run,
        _code: Guarded<u8>,
        _signs: Guarded<u8>,
        dst: Guarded<u16>,
        lead: usize,
        want: Result<Vec<u16>, Vec<Fault>>,
    }

    const CANARY: u16 = 0x5a3c;

    struct Trials<'a> {
        trials: &'a [Trial],
        next: usize,
    }

    // SAFETY: each trial has memory of its own, which outlives the decode.
    unsafe impl Feed for Trials<'_> {
        type Error = (usize, Fault);

        fn next(&mut self, lane: usize) -> Result<Option<Run>, Self::Error> {
            assert!(lane < LANES);
            self.next += 1;
            Ok(self.trials.get(self.next - 1).map(|t| t.run))
        }

        fn fault(&self, run: &Run, fault: Fault) -> Self::Error {
            (run.tag, fault)
        }
    }

    /// Bits for a run: codes of the table, anything, or one thing over and over.
    fn bytes(codes: &[Code], len: usize, random: &mut Random) -> Vec<u8> {
        match random.below(6) {
            0 => (0..len).map(|_| random.bits() as u8).collect(),
            1 => vec![[0, 0xff, 0xaa][random.below(3) as usize]; len],
            kind => {
                let mut out = Vec::new();
                let (mut pending, mut open) = (0u64, 0u32);
                let favourite = random.below(codes.len().max(1) as u64) as usize;
                while out.len() < len && !codes.is_empty() {
                    let c = match random.below(4) {
                        0 => codes[random.below(codes.len() as u64) as usize],
                        _ => codes[favourite],
                    };
                    pending = pending << c.len | (c.bits >> (32 - c.len as u32)) as u64;
                    open += c.len as u32;
                    while open >= 8 {
                        open -= 8;
                        out.push((pending >> open) as u8);
                    }
                }
                out.resize(len, 0);
                if kind == 2 && len > 0 {
                    let at = random.below(len as u64) as usize;
                    out[at] ^= 1 << random.below(8);
                }
                out
            }
        }
    }

    fn trial(tag: usize, codes: &[Code], table: &CodeTable, random: &mut Random) -> Trial {
        let len = match random.below(6) {
            0 => random.below(9) as usize,
            1 => random.below(30) as usize,
            2 | 3 => random.below(300) as usize,
            4 => random.below(3_000) as usize,
            _ => 0,
        };
        let code = bytes(codes, len, random);
        let start_bit = random.below(32) as usize;
        // As many weights as there are, some more, or fewer.
        let all: Vec<u8> = (0..8 * len + 40).map(|_| random.bits() as u8).collect();
        let possible = match naive::decode(table, &code, start_bit, &all) {
            Ok(_) => unreachable!("more weights than bits"),
            Err(k) => k,
        };
        let total = match random.below(4) {
            0 => random.below(possible as u64 + 1) as usize,
            1 => possible + random.below(40) as usize,
            _ => possible,
        };
        let skip = match random.below(3) {
            0 => random.below(total as u64 + 1) as usize,
            1 => random.below(total as u64 + 1).min(70) as usize,
            _ => 0,
        };
        let signs = &all[..total];
        let bit_of = |weight: usize| naive::decode(table, &code, start_bit, &all[..weight]).unwrap().1;
        let (end_bits, want) = match naive::decode(table, &code, start_bit, signs) {
            Err(weight) => {
                let bit = bit_of(weight);
                ((0, usize::MAX), Err(vec![Fault::NoCode { bit, weight }, Fault::Short { bit, weight }]))
            }
            Ok((found, bit)) => match random.below(5) {
                0 => ((bit + 1, bit + 9), Err(vec![Fault::End { bit }])),
                1 => ((0, bit.wrapping_sub(1)), if bit == 0 { Ok(vec![]) } else { Err(vec![Fault::End { bit }]) }),
                2 => ((bit, bit), Ok(found[skip..].to_vec())),
                3 => ((bit.saturating_sub(7), bit + 3), Ok(found[skip..].to_vec())),
                _ => ((0, usize::MAX), Ok(found[skip..].to_vec())),
            },
        };
        let side = |random: &mut Random| [Side::Front, Side::Back][random.below(2) as usize];
        let lead = random.below(40) as usize;
        let (code, code_bytes) = (Guarded::new(&code, side(random)), code.len());
        let signs = Guarded::new(&signs[skip..], side(random));
        let dst = Guarded::new(&vec![CANARY; lead + total - skip], side(random));
        let run = Run {
            code: code.as_ptr(),
            code_bytes,
            start_bit,
            skip,
            sign_mantissa: signs.as_ptr(),
            dst: dst.as_mut_ptr().wrapping_add(lead),
            count: total - skip,
            end_bits,
            tag,
        };
        Trial { run, _code: code, _signs: signs, dst, lead, want }
    }

    #[test]
    fn nothing_outside_a_runs_buffers_is_touched() {
        let _shared = among_others();
        let (mut fine, mut faulty) = (0, 0);
        for seed in 0..check::rounds(2_000) {
            let mut random = Random::new(seed);
            let codes = random_codes(&mut random);
            let table = CodeTable::new(codes.clone()).unwrap();
            let multi = MultiTable::new(&table);
            let count = random.below(16) as usize;
            let mut trials: Vec<Trial> = (0..count).map(|tag| trial(tag, &codes, &table, &mut random)).collect();
            if random.below(2) == 0 {
                // One bad run hides all others: let half of the rounds have none.
                trials.retain(|t| t.want.is_ok());
                trials.iter_mut().enumerate().for_each(|(tag, t)| t.run.tag = tag);
            }
            for variant in variants() {
                trials.iter_mut().for_each(|t| t.dst.as_mut_slice().fill(CANARY));
                let streaming = random.below(2) == 0;
                let mut feed = Trials { trials: &trials, next: 0 };
                let result = decode::decode(&multi, &table, &mut feed, variant, streaming);
                let place = format!("seed {seed}, {}, {count} runs", variant.name());
                let sound = trials.iter().all(|t| t.want.is_ok());
                match result {
                    Ok(()) => {
                        assert!(sound, "{place}: a fault was not found");
                        fine += trials.len();
                        for t in &trials {
                            let found = &t.dst.as_slice()[t.lead..];
                            assert!(t.want.as_ref().is_ok_and(|want| found == want), "{place}: run {}", t.run.tag);
                        }
                    }
                    Err((tag, fault)) => {
                        faulty += 1;
                        let Err(possible) = &trials[tag].want else {
                            panic!("{place}: run {tag} has no fault, and {fault:?} was found");
                        };
                        assert!(possible.contains(&fault), "{place}: run {tag}: {fault:?}, not of {possible:?}");
                    }
                }
                let canaries = trials.iter().all(|t| t.dst.as_slice()[..t.lead].iter().all(|&w| w == CANARY));
                assert!(canaries, "{place}: wrote before a destination");
            }
        }
        assert!(fine > 6_000 && faulty > 800, "{fine} runs fine, {faulty} rounds with a fault");
    }

    #[test]
    fn a_fault_lies_inside_the_code_even_if_another_run_found_one_first() {
        let _shared = among_others();
        // The codes are 10 and 11. The first run is one bit short of its last weight; the second soon has no code.
        let code = |bits: u32, symbol| Code { bits: bits << 30, len: 2, symbol };
        let codes = vec![code(2, 7), code(3, 8)];
        let table = CodeTable::new(codes).unwrap();
        let multi = MultiTable::new(&table);
        for variant in variants() {
            let trial = |tag: usize, code: &[u8], start_bit: usize, weights: usize| {
                let code = Guarded::new(code, Side::Back);
                let signs = Guarded::new(&vec![0; weights], Side::Back);
                let dst = Guarded::new(&vec![CANARY; weights], Side::Back);
                let run = Run {
                    code: code.as_ptr(),
                    code_bytes: code.as_slice().len(),
                    start_bit,
                    skip: 0,
                    sign_mantissa: signs.as_ptr(),
                    dst: dst.as_mut_ptr(),
                    count: weights,
                    end_bits: (0, usize::MAX),
                    tag,
                };
                Trial { run, _code: code, _signs: signs, dst, lead: 0, want: Err(vec![]) }
            };
            let mut bad = vec![0xaa; 1_000];
            bad[100] = 0;
            let trials = [trial(0, &[0xff; 1_000], 1, 4_100), trial(1, &bad, 0, 4_000)];
            let mut feed = Trials { trials: &trials, next: 0 };
            let (tag, fault) = decode::decode(&multi, &table, &mut feed, variant, false).unwrap_err();
            let wanted: &[Fault] = match tag {
                0 => &[Fault::Short { bit: 7_999, weight: 3_999 }, Fault::NoCode { bit: 7_999, weight: 3_999 }],
                _ => &[Fault::NoCode { bit: 800, weight: 400 }],
            };
            assert!(wanted.contains(&fault), "{}: run {tag}: {fault:?}", variant.name());
        }
    }

    #[test]
    fn a_whole_file_right_before_a_forbidden_page() {
        let _shared = among_others();
        // A file ends with a group's last member, which may be the codes themselves.
        for (seed, n) in [1, 7, 40, 300, 5_000, 90_000].into_iter().enumerate() {
            let case = Case::of(format!("{n} weights"), weights::gaussian(n, 0.02, seed as u64));
            for last in ["encoded_exponent", "sign_mantissa", "gaps", "output_positions"] {
                let mut tensors = encoder::group_tensors("g", &case.encoded);
                // Names decide the order in the file, and a file's own order may be any: put one last.
                tensors.sort_by_key(|(name, ..)| name.ends_with(last));
                let file = Guarded::new(&in_order(&tensors), Side::Back);
                struct Bytes(Guarded<u8>);
                // SAFETY: memory that is only read.
                unsafe impl Send for Bytes {}
                // SAFETY: memory that is only read.
                unsafe impl Sync for Bytes {}
                impl AsRef<[u8]> for Bytes {
                    fn as_ref(&self) -> &[u8] {
                        self.0.as_slice()
                    }
                }
                let model = Model::from_bytes(Bytes(file), &OpenOptions::default()).unwrap();
                for variant in variants() {
                    let options = DecodeOptions { threads: 1, variant: Some(variant) };
                    case.range((last, &model), 0, n, 0, &options);
                    case.range((last, &model), n / 2, n - n / 2, 0, &options);
                }
                host::verify(&model, 0, 1).unwrap();
            }
        }
    }

    /// A file that holds its tensors in the order given.
    fn in_order(tensors: &[encoder::Tensor]) -> Vec<u8> {
        let (mut header, mut payload) = (String::from("{"), Vec::new());
        for (i, (name, dtype, shape, data)) in tensors.iter().enumerate() {
            let (comma, from) = (if i == 0 { "" } else { "," }, payload.len());
            payload.extend_from_slice(data);
            header += &format!(
                r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{from},{}]}}"#,
                payload.len()
            );
        }
        header.push('}');
        files::raw(&header, &payload)
    }
}

// Memory

#[test]
fn decoding_takes_less_than_a_megabyte_per_thread() {
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    // One-bit codes need the largest buffers where files are read.
    let cases = [
        Case::of("trained-like, small", weights::trained_like(300_000, 14)),
        Case::of("trained-like, large", weights::trained_like(3_000_000, 15)),
        Case::of("one bit", weights::one_bit(5_000_000, 8, 16)),
    ];
    const TABLE: usize = 8 << 11;
    for case in &cases {
        let mut buffer = vec![bf16::ZERO; case.weights.len()];
        for (how, model) in case.models() {
            for (i, threads) in [1, 2, 4].into_iter().enumerate() {
                let options = DecodeOptions { threads, variant: None };
                let (result, taken) = alloc::taken(|| host::decompress(model, 0, 0, &mut buffer, &options));
                result.unwrap();
                assert!(buffer.reinterpret_cast() == &case.weights[..]);
                println!("{}, {how}, {threads} threads: {taken:?}", case.what);
                // The table is made once, at the first use.
                let table = if i == 0 { TABLE + 64 } else { 0 };
                let scratch = taken.peak.saturating_sub(table);
                assert!(scratch < threads << 20, "{}, {how}, {threads} threads: {taken:?}", case.what);
                if how == "in memory" {
                    assert!(scratch < 4096 + threads * 2048, "{}, {threads} threads: {taken:?}", case.what);
                }
                let (result, taken) = alloc::taken(|| host::verify(model, 0, threads));
                result.unwrap();
                assert!(taken.peak < threads << 18, "verify, {}, {how}, {threads} threads: {taken:?}", case.what);
            }
        }
    }
}
