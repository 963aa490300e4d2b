//! Images: what is in them, byte by byte, and that they decode to the weights that went in.
//!
//! [`expected`] makes an image's body anew from weights and code words, one bit after the other, sharing no line with the
//! library; the table inside is held against the code words by decoding with it.

use crate::support;

use df11::internals::cuda::image::{self, Head, ImageLayout};
use df11::internals::huffman::naive;
use df11::{Error, Group, Model, OpenOptions, Status};
use support::encoder::{self, Codes, Encoded, Word};
use support::weights::Random;
use support::{check, files, golden, weights};

/// A byte that no section is full of.
const CANARY: u8 = 0xa7;

/// Writes the image of a group at once, with guards around it.
fn write(model: &Model, group: usize, threads: usize) -> Result<Vec<u8>, Error> {
    let bytes = ImageLayout::of(model.group(group).unwrap())?.image_bytes as usize;
    let mut memory = vec![CANARY; bytes + 100];
    let result = model.group(group).unwrap().write_image(&mut memory[50..], threads);
    assert!(memory[..50].iter().chain(&memory[50 + bytes..]).all(|&b| b == CANARY), "wrote outside");
    memory.truncate(50 + bytes);
    memory.drain(..50);
    if result.is_err() {
        assert!(memory[..256].iter().all(|&b| b == 0), "a half image has a header");
    }
    result.map(|()| memory)
}

/// Writes the image of a group in parts, the last part first.
fn write_parts(model: &Model, group: usize, parts: u64) -> Result<Vec<u8>, Error> {
    let bytes = ImageLayout::of(model.group(group).unwrap())?.image_bytes;
    let mut memory = vec![CANARY; bytes as usize];
    for part in (0..parts).rev() {
        // SAFETY: the memory is as large as is said, and nobody else's.
        unsafe { model.group(group).unwrap().write_image_part(memory.as_mut_ptr(), bytes, part, parts) }?;
    }
    Ok(memory)
}

/// All after the head of a group's image, from what is in the file.
fn expected(group: Group, code: &[u8], sign_mantissa: &[u8]) -> Vec<u8> {
    let weights = sign_mantissa.len();
    let (tiles, lanes) = (weights.div_ceil(3328), weights.div_ceil(104));
    let mut starts = Vec::new();
    let mut at_lanes = Vec::new();
    let mut bit = 0;
    let window = |bit: usize| {
        (0..32).fold(0u32, |w, i| w << 1 | code.get((bit + i) / 8).map_or(0, |b| (b >> (7 - (bit + i) % 8) & 1) as u32))
    };
    for weight in 0..weights {
        if weight % 3328 == 0 {
            starts.extend(((bit / 128) as u32).to_le_bytes());
        }
        if weight % 104 == 0 {
            at_lanes.extend((bit as u16).to_le_bytes());
        }
        bit += df11::internals::format::codes(group).first(window(bit)).expect("a code").len as usize;
    }
    starts.extend((code.len().div_ceil(16) as u32).to_le_bytes());
    assert_eq!(at_lanes.len(), 2 * lanes);
    let pad = |section: &mut Vec<u8>| section.resize(section.len().next_multiple_of(256), 0);
    let mut body = starts;
    pad(&mut body);
    body.extend(&at_lanes);
    body.resize(body.len() + 2 * (32 * tiles - lanes), 0);
    pad(&mut body);
    body.extend(code);
    body.resize(body.len() + code.len().next_multiple_of(16) - code.len() + 64, 0);
    pad(&mut body);
    let signs = body.len();
    body.extend(sign_mantissa);
    let blocks = code.len().div_ceil(4096);
    let parked = (320 * blocks).next_multiple_of(256) + 4 * (blocks + 2);
    body.resize(signs + weights.max(parked), 0);
    pad(&mut body);
    body
}

/// Everything about the image of a good group. Returns it.
fn check_group(what: &str, model: &Model, number: usize, code: &[u8], sign_mantissa: &[u8]) -> Vec<u8> {
    let group = model.group(number).unwrap();
    let layout = ImageLayout::of(group).unwrap();
    let written = write(model, number, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
    let head = Head::parse(&written).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(head, Head::of(group).unwrap(), "{what}");
    assert_eq!(*head.layout(), layout, "{what}");
    assert_eq!(head.bytes().unwrap(), written[..layout.head_bytes() as usize], "{what}");
    assert_eq!(head.ends().len(), group.tensors().len(), "{what}");
    assert_eq!(head.table().bytes().len(), layout.table_bytes as usize, "{what}");
    let body = expected(group, code, sign_mantissa);
    assert!(written[layout.head_bytes() as usize..] == body, "{what}: the body differs");

    let want = naive::decode(df11::internals::format::codes(group), code, 0, sign_mantissa).unwrap().0;
    let n = want.len();
    let all = image::decode(&written, 0, n as u64).unwrap();
    assert!(all.good, "{what}");
    assert!(all.weights == want, "{what}: decodes to other weights");
    for (first, count) in [(0, 1), (n / 2, n - n / 2), (n.saturating_sub(1), 1), (n / 3, 205), (n, 0)] {
        let (first, count) = (first.min(n), count.min(n - first.min(n)));
        let part = image::decode(&written, first as u64, count as u64).unwrap();
        assert!(part.good && part.weights == want[first..first + count], "{what}: {first} + {count}");
    }
    written
}

/// Checks a group in memory and in a file that is read, and its image by every way.
fn check_encoded(what: &str, encoded: &Encoded, lead: usize) -> Vec<u8> {
    // A tensor in front, so that no member begins at an aligned byte.
    let mut tensors = encoder::group_tensors("g", encoded);
    tensors.push(("a".into(), "U8", vec![lead as u64], vec![7; lead]));
    let file = encoder::safetensors(&tensors, None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, &file).unwrap();
    let read = Model::open(&path, &OpenOptions::new()).unwrap();
    let memory = Model::from_bytes(file, &OpenOptions::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let written = check_group(what, &memory, 0, &encoded.encoded_exponent, &encoded.sign_mantissa);
    assert!(write(&read, 0, 1).unwrap() == written, "{what}: read");
    for parts in 1..=7 {
        let model = if parts % 2 == 0 { &read } else { &memory };
        assert!(write_parts(model, 0, parts).unwrap() == written, "{what}: {parts} parts");
    }
    assert!(write(&memory, 0, 3).unwrap() == written, "{what}: 3 threads");
    written
}

#[test]
fn every_group_of_the_reference() {
    for name in golden::NAMES {
        let raw = golden::raw(name);
        for read in [false, true] {
            let model = crate::support::files::open(golden::model(name), read).unwrap();
            for (number, group) in model.groups().enumerate() {
                let member = |m: &str| &raw[&format!("{}.{m}", group.name())][..];
                let what = format!("{name}: {}", group.name());
                let written = check_group(&what, &model, number, member("encoded_exponent"), member("sign_mantissa"));
                for parts in [2, 3, 5, 7, 1000] {
                    assert!(write_parts(&model, number, parts).unwrap() == written, "{what}: {parts} parts");
                }
                assert!(write(&model, number, 4).unwrap() == written, "{what}: 4 threads");
            }
        }
    }
}

#[test]
fn random_groups_of_every_size_near_a_border() {
    for n in [1, 2, 103, 104, 105, 207, 208, 209, 3327, 3328, 3329, 6656, 12_400, 32_768, 99_997] {
        let seed = n as u64;
        let cases: [(&str, Vec<u16>); 5] = [
            ("normal", weights::gaussian(n, 0.02, seed)),
            ("trained-like", weights::trained_like(n, seed)),
            ("constant", weights::constant(n, 0xbf80)),
            ("half zeros", weights::with_zeros(n, 0.5, seed)),
            ("one bit", weights::one_bit(n, 239, seed)),
        ];
        for (name, weights) in cases {
            let cut = n as u64 / 3;
            check_encoded(&format!("{n} weights, {name}"), &encoder::encode(&weights, &[cut, cut]), n % 8);
        }
    }
}

/// Groups at the edges of the format: what each of them is is asserted, so that none turns into another.
#[test]
fn groups_at_the_edges_of_the_format() {
    let same = |exponent: u8, n: usize| vec![(exponent as u16) << 7; n];
    let blocks = |e: &Encoded| e.encoded_exponent.len().div_ceil(4096);
    let positions = |e: &Encoded| e.output_positions.len() / 4;

    // Blocks of 32,768 weights, and no table but the first.
    let e = encoder::encode(&weights::one_bit(100_000, 120, 1), &[]);
    assert!(files::positions(&e.output_positions)[1] > 32_700);
    check_encoded("one-bit codes", &e, 1);

    // Codes that fill one block exactly: the end of data would begin in another, which is empty, and may have a position.
    let eight = encoder::canonical(&(0..240).map(|e| (e, 8)).collect::<Vec<_>>(), 8);
    let mut e = encoder::encode_with_codes(&weights::uniform_exponents(4096, 0..=239, 1), &[], &eight);
    if positions(&e) == 2 {
        e.output_positions.extend(4096u32.to_le_bytes());
    }
    assert_eq!((blocks(&e), positions(&e)), (1, 3));
    check_encoded("a position more", &e, 2);

    // The last code begins in one block and ends with a byte of the next.
    let mixed = encoder::canonical(&[(100, 4), (101, 8), (102, 12)], 13);
    let all = [same(100, 1), same(101, 4095), same(102, 1)].concat();
    let mut e = encoder::encode_with_codes(&all, &[], &mixed);
    assert_eq!(e.encoded_exponent.len(), 4097);
    if positions(&e) == 3 {
        // As the reference writes it: nothing begins in the second block.
        e.output_positions.drain(4..8);
    }
    assert_eq!((blocks(&e), positions(&e)), (2, 2));
    check_encoded("a position fewer", &e, 3);

    // Nothing but codes of 32 bits: tiles of 106,496 bits, whose lanes wrap.
    let long = encoder::canonical(&[(100, 1), (101, 32), (102, 32)], 31);
    let e = encoder::encode_with_codes(&[same(101, 7000), same(102, 3000)].concat(), &[], &long);
    assert_eq!(e.encoded_exponent.len(), 40_000);
    check_encoded("32-bit codes", &e, 4);
    // And here and there one, so that lanes stop and continue.
    let mut random = Random::new(5);
    let some: Vec<u16> = (0..60_000).map(|_| (100 + (random.below(40) == 0) as u16) << 7).collect();
    check_encoded("some 32-bit codes", &encoder::encode_with_codes(&some, &[], &long), 5);

    // Every length from 1 to 24, as Fibonacci's numbers have them.
    check_encoded("fibonacci", &encoder::encode(&weights::fibonacci(24, 3), &[5, 9, 9, 1000]), 6);
    // One weight, and tensors without any.
    check_encoded("one weight", &encoder::encode(&[0x3f80], &[0, 0, 1, 1]), 7);
    // No weights at all.
    let none = encoder::encode(&[], &[]);
    let model =
        Model::from_bytes(encoder::safetensors(&encoder::group_tensors("g", &none), None), &OpenOptions::default());
    if let Ok(model) = model {
        let written = write(&model, 0, 1).unwrap();
        assert!(image::decode(&written, 0, 0).unwrap().weights.is_empty());
    }
}

/// Makes a prefix code of some exponents, complete or not, with lengths up to 32: leaves are split at random, and words left out.
fn random_codes(random: &mut Random) -> Codes {
    let most = [4, 30, 238][random.below(3) as usize];
    let most = 2 + random.below(most) as usize;
    let mut words = vec![Word { bits: 0, len: 0 }];
    // Splitting the last leaf again and again makes long codes, splitting any makes short ones.
    let deep = random.below(3) != 0;
    while words.len() < most {
        let at = if deep && random.below(4) != 0 { words.len() - 1 } else { random.below(words.len() as u64) as usize };
        let Word { bits, len } = words[at];
        if len == 32 {
            if deep && words.iter().all(|w| w.len > 25) {
                break;
            }
            let at = random.below(words.len() as u64) as usize;
            if words[at].len == 32 {
                continue;
            }
            let Word { bits, len } = words.swap_remove(at);
            words.extend([0, 1].map(|bit| Word { bits: bits << 1 | bit, len: len + 1 }));
            continue;
        }
        words.swap_remove(at);
        words.extend([0, 1].map(|bit| Word { bits: bits << 1 | bit, len: len + 1 }));
    }
    // Any order, because exponents do not matter; the end of data is one of them.
    for i in (1..words.len()).rev() {
        words.swap(i, random.below(i as u64 + 1) as usize);
    }
    let end = words.pop().unwrap();
    let holes = random.below(2) * random.below(words.len() as u64);
    words.truncate((words.len() - holes as usize).max(1));
    let table: Vec<(u8, Word)> = words.into_iter().enumerate().map(|(e, w)| (e as u8, w)).collect();
    Codes::new(&table, end)
}

/// Random groups of random codes: what opens has the right image.
#[test]
fn random_codes_of_every_shape() {
    let (mut good, mut long) = (0, 0);
    for round in 0..check::rounds(150) {
        let mut random = Random::new(0x1abe1 + round);
        let codes = random_codes(&mut random);
        let known: Vec<(u8, Word)> = codes.iter().collect();
        // Short words are likelier, as they should be, or all are equally likely.
        let flat = random.below(3) == 0;
        let n = 1 + random.below(20_000) as usize;
        let pick = |random: &mut Random| loop {
            let (exponent, word) = known[random.below(known.len() as u64) as usize];
            if flat || known.len() < 3 || random.below(1 << word.len.min(12)) < 8 {
                break exponent;
            }
        };
        let all: Vec<u16> = (0..n).map(|_| (pick(&mut random) as u16) << 7 | (random.bits() as u16 & 0x807f)).collect();
        let e = encoder::encode_with_codes(&all, &[n as u64 / 2], &codes);
        let file = encoder::safetensors(&encoder::group_tensors("g", &e), None);
        // Some have more rows than a file can hold.
        let Ok(model) = Model::from_bytes(file, &OpenOptions::default()) else { continue };
        let group = model.group(0).unwrap();
        // Where words are missing, leftovers in the rows can hide others. No compressor writes such.
        let is_known = |&(symbol, word): &(u8, Word)| {
            let found = df11::internals::format::codes(group).first(word.bits << (32 - word.len));
            found.is_some_and(|c| (c.symbol, c.len as u32) == (symbol, word.len))
        };
        if !known.iter().all(is_known) {
            continue;
        }
        let written = check_group(&format!("round {round}"), &model, 0, &e.encoded_exponent, &e.sign_mantissa);
        assert!(write_parts(&model, 0, 1 + round % 7).unwrap() == written, "round {round}");
        good += 1;
        long += (df11::internals::format::codes(group).longest() > 11) as u32;
    }
    assert!(good > 60 && long > 20, "{good} groups, {long} with second-level tables");
}

/// Changes of any byte of the head are seen, and so is a head that is cut short.
#[test]
fn spoilt_heads_are_refused() {
    let e = encoder::encode(&weights::trained_like(50_000, 3), &[10_000, 20_000]);
    let model =
        Model::from_bytes(encoder::safetensors(&encoder::group_tensors("g", &e), None), &OpenOptions::default());
    let written = write(&model.unwrap(), 0, 1).unwrap();
    let head = Head::parse(&written).unwrap();
    let bytes = head.layout().head_bytes() as usize;
    assert!(bytes > 256 + 256 + 16_384);
    let mut head_bytes = written[..bytes].to_vec();
    assert_eq!(Head::parse(&head_bytes).unwrap(), head);
    for at in (0..bytes).filter(|at| !(248..252).contains(at)) {
        for bit in if at < 256 { 0..8 } else { at % 8..at % 8 + 1 } {
            head_bytes[at] ^= 1 << bit;
            let error = Head::parse(&head_bytes).expect_err(&format!("byte {at}, bit {bit}"));
            let want: &[Status] = match at {
                0..8 => &[Status::InvalidFormat],
                8..12 => &[Status::UnsupportedFormat],
                _ => &[Status::Corrupt],
            };
            assert!(want.contains(&error.status()), "byte {at}: {error}");
            head_bytes[at] ^= 1 << bit;
        }
    }
    for cut in [0, 1, 7, 8, 255, 256, 257, bytes - 1] {
        let error = Head::parse(&head_bytes[..cut]).expect_err("a cut head");
        assert!(matches!(error.status(), Status::InvalidFormat | Status::Corrupt), "{cut}: {error}");
    }
    // The state is a device's to write, and a decoder's to pass on.
    let mut spoilt = written.clone();
    spoilt[248] = 103;
    assert_eq!(Head::parse(&spoilt).unwrap(), head);
    let decoded = image::decode(&spoilt, 0, 50_000).unwrap();
    assert!(!decoded.good && decoded.weights == image::decode(&written, 0, 50_000).unwrap().weights);
    assert_eq!(image::decode(&written[..written.len() - 1], 0, 1).unwrap_err().status(), Status::BufferTooSmall);
    assert_eq!(image::decode(&written, 1, 50_000).unwrap_err().status(), Status::InvalidArgument);
}

/// Whatever is in the body: the oracle ends, and lanes that do not fit are seen.
#[test]
fn spoilt_bodies_are_decoded_to_something() {
    let e = encoder::encode(&weights::trained_like(20_000, 3), &[]);
    let model =
        Model::from_bytes(encoder::safetensors(&encoder::group_tensors("g", &e), None), &OpenOptions::default());
    let written = write(&model.unwrap(), 0, 1).unwrap();
    let layout = *Head::parse(&written).unwrap().layout();
    let mut random = Random::new(9);
    let mut seen = 0;
    for _ in 0..200 {
        let mut spoilt = written.clone();
        let at = layout.starts + random.below(layout.code + layout.code_bytes - layout.starts);
        spoilt[at as usize] ^= 1 << random.below(8);
        let decoded = image::decode(&spoilt, 0, 20_000).unwrap();
        assert_eq!(decoded.weights.len(), 20_000);
        seen += !decoded.good as u32;
    }
    // A lane that has one code more or fewer than it should is seen only if it also ends too early or far too late.
    assert!(seen > 10, "{seen} of 200");
}

/// Codes, positions and gaps that contradict each other are refused, with the tensor and the byte, and no half image binds.
#[test]
fn lies_are_found() {
    let all = weights::trained_like(300_000, 5);
    let good = encoder::encode(&all, &[]);
    let blocks = good.encoded_exponent.len() / 4096;
    assert!(blocks > 20);
    let model = |e: &Encoded, read: bool| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, encoder::safetensors(&encoder::group_tensors("g", e), None)).unwrap();
        (crate::support::files::open(&path, read).unwrap(), folder)
    };
    let refused = |e: &Encoded, member: &str, what: &str| {
        for read in [false, true] {
            let (model, _folder) = model(e, read);
            for threads in [1, 3] {
                let error = write(&model, 0, threads).expect_err(what);
                assert_eq!(error.status(), Status::Corrupt, "{what}: {error}");
                let text = error.to_string();
                assert!(
                    text.contains(&format!("'g.{member}'")) && text.contains("model.safetensors"),
                    "{what}: {text}"
                );
                assert!(text.contains("at byte"), "{what}: {text}");
            }
            // A part that fails leaves an index that no lane fits.
            let bytes = ImageLayout::of(model.group(0).unwrap()).unwrap().image_bytes;
            let mut memory = vec![0; bytes as usize];
            // SAFETY: the memory is as large as is said.
            let mut part =
                |part| unsafe { model.group(0).unwrap().write_image_part(memory.as_mut_ptr(), bytes, part, 4) };
            let results: Vec<bool> = (0..4).map(|i| part(i).is_ok()).collect();
            assert!(results.contains(&false), "{what}");
            match image::decode(&memory, 0, 300_000) {
                Ok(decoded) => assert!(results[0] && !decoded.good, "{what}"),
                Err(error) => assert!(!results[0] && error.status() == Status::InvalidFormat, "{what}: {error}"),
            }
        }
    };
    // One weight more, and one fewer, before some block.
    for block in [1, 2, blocks / 2, blocks - 1] {
        for by in [1, u32::MAX] {
            let mut e = good.clone();
            let mut positions = files::positions(&e.output_positions);
            positions[block] = positions[block].wrapping_add(by);
            e.output_positions = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
            refused(&e, "output_positions", &format!("position {block} by {}", by as i32));
        }
        let mut e = good.clone();
        let gap = files::gap(&e.gaps, 512 * block);
        files::set_gap(&mut e.gaps, 512 * block, gap ^ 1);
        refused(&e, "gaps", &format!("the gap of block {block}"));
    }
    let mut e = good.clone();
    files::set_gap(&mut e.gaps, 0, 1);
    refused(&e, "gaps", "the first gap");
    // The gaps of chunks inside a block are not an image's business.
    let mut e = good.clone();
    let gap = files::gap(&e.gaps, 700);
    files::set_gap(&mut e.gaps, 700, gap ^ 1);
    let right = write(&model(&good, false).0, 0, 1).unwrap();
    assert!(write(&model(&e, false).0, 0, 1).unwrap() == right);

    // Bits changed in the codes: found, or other codes of the same lengths, and then the image decodes to what the host does.
    let mut found = 0;
    for round in 0..40 {
        let mut random = Random::new(round);
        let mut e = good.clone();
        let at = random.below(e.encoded_exponent.len() as u64) as usize;
        e.encoded_exponent[at] ^= 1 << random.below(8);
        let (model, _folder) = model(&e, false);
        let mut host = vec![half::bf16::ZERO; 300_000];
        let decoded = model.group(0).unwrap().verify(1);
        match write(&model, 0, 1) {
            Ok(written) => {
                model.group(0).unwrap().decompress(0, &mut host, &Default::default()).unwrap();
                let weights = image::decode(&written, 0, 300_000).unwrap();
                assert!(weights.good && host.iter().map(|w| w.to_bits()).eq(weights.weights), "round {round}");
            }
            Err(error) => {
                assert_eq!(error.status(), Status::Corrupt, "{error}");
                assert!(decoded.is_err(), "round {round}: {error}");
                found += 1;
            }
        }
    }
    assert!(found > 10, "{found} of 40");
}

/// A part whose codes are more than its positions say does not write the index of the next part, which another thread may be
/// writing at the same time.
#[test]
fn a_part_with_too_many_codes_keeps_to_itself() {
    let good = encoder::encode(&weights::trained_like(300_000, 5), &[]);
    let model = |e: &Encoded| {
        let file = encoder::safetensors(&encoder::group_tensors("g", e), None);
        Model::from_bytes(file, &OpenOptions::default()).unwrap()
    };
    let blocks = ImageLayout::of(model(&good).group(0).unwrap()).unwrap().blocks() as usize;
    for part in 0..3 {
        let (border, mut e) = (blocks * (part + 1) / 4, good.clone());
        let mut positions = files::positions(&e.output_positions);
        positions[border] -= 1000;
        let next = positions[border] as usize;
        e.output_positions = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
        let model = model(&e);
        let group = model.group(0).unwrap();
        let layout = ImageLayout::of(group).unwrap();
        let mut memory = vec![CANARY; layout.image_bytes as usize];
        // SAFETY: the memory is as large as is said.
        let result = unsafe { group.write_image_part(memory.as_mut_ptr(), layout.image_bytes, part as u64, 4) };
        assert_eq!(result.unwrap_err().status(), Status::Corrupt, "part {part}");
        // What is after the part's last lane and tile, up to the last of the group.
        for (section, bytes, weights) in [(layout.lanes, 2, 104), (layout.starts, 4, 104 * 32)] {
            let [from, to] = [next, 300_000].map(|n: usize| section as usize + bytes * n.div_ceil(weights));
            assert!(memory[from..to].iter().all(|&b| b == CANARY), "part {part}");
        }
    }
}

/// Every file that must be refused and opens all the same: an image is refused where decoding is.
#[test]
fn hostile_files_that_open() {
    let (mut refused, mut written) = (0, 0);
    for entry in std::fs::read_dir(golden::path("../hostile")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(model) = Model::open(&path, &OpenOptions::default()) else { continue };
        for number in 0..model.groups().len() {
            let n = model.group(number).unwrap().element_count() as usize;
            let mut weights = vec![half::bf16::ZERO; n];
            let decoded = model.group(number).unwrap().decompress(0, &mut weights, &Default::default());
            let verified = model.group(number).unwrap().verify(1);
            match write(&model, number, 1) {
                Ok(image) => {
                    let from_image = image::decode(&image, 0, n as u64).unwrap();
                    assert!(decoded.is_ok() && from_image.good, "{}", path.display());
                    assert!(weights.iter().map(|w| w.to_bits()).eq(from_image.weights), "{}", path.display());
                    written += 1;
                }
                Err(error) => {
                    assert_eq!(error.status(), Status::Corrupt, "{}: {error}", path.display());
                    assert!(verified.is_err(), "{}: {error}", path.display());
                    refused += 1;
                }
            }
        }
    }
    assert!(refused >= 5 && written >= 1, "{refused} refused, {written} written");
}

/// A file that becomes shorter while it is read.
#[test]
fn a_file_cut_short_while_it_is_open() {
    let e = encoder::encode(&weights::trained_like(300_000, 5), &[]);
    let file = encoder::safetensors(&encoder::group_tensors("g", &e), None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, &file).unwrap();
    let model = Model::open(&path, &OpenOptions::new()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(file.len() as u64 / 2).unwrap();
    let error = write(&model, 0, 1).unwrap_err();
    assert!(error.status() == Status::Corrupt && error.to_string().contains("shorter"), "{error}");
}

/// What callers may get wrong.
#[test]
fn mistakes() {
    let e = encoder::encode(&weights::trained_like(1000, 5), &[]);
    let model =
        Model::from_bytes(encoder::safetensors(&encoder::group_tensors("g", &e), None), &OpenOptions::default())
            .unwrap();
    let bytes = ImageLayout::of(model.group(0).unwrap()).unwrap().image_bytes;
    let mut memory = vec![CANARY; bytes as usize];
    let error = model.group(0).unwrap().write_image(&mut memory[1..], 1).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { needed, given, .. } if needed == bytes && given == bytes - 1));
    for (part, parts) in [(0, 0), (1, 1), (7, 7), (u64::MAX, 3)] {
        // SAFETY: the memory is as large as is said.
        let error =
            unsafe { model.group(0).unwrap().write_image_part(memory.as_mut_ptr(), bytes, part, parts) }.unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{part} of {parts}");
    }
    assert!(memory.iter().all(|&b| b == CANARY), "a mistake wrote something");
}
