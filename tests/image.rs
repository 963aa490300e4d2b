//! Images: what is in them, byte by byte, and that they decode to the weights that went in.
//!
//! [`expected`] makes an image's body anew from weights and code words, one bit after the other, sharing no line with the
//! library; the table inside is held against the code words by decoding with it.

mod support;

use df11::cuda::image::{self, Head, Layout};
use df11::huffman::naive;
use df11::{Error, Group, Model, OpenOptions};
use support::encoder::{self, Encoded};
use support::{golden, weights};

/// A byte that no section is full of.
const CANARY: u8 = 0xa7;

/// The image of a group, made at once, with guards around it.
fn write(model: &Model, group: usize, threads: usize) -> Result<Vec<u8>, Error> {
    let bytes = Layout::of(&model.groups()[group])?.image_bytes as usize;
    let mut memory = vec![CANARY; bytes + 100];
    let result = image::write_image(model, group, &mut memory[50..], threads);
    assert!(memory[..50].iter().chain(&memory[50 + bytes..]).all(|&b| b == CANARY), "wrote outside");
    memory.truncate(50 + bytes);
    memory.drain(..50);
    if result.is_err() {
        assert!(memory[..256].iter().all(|&b| b == 0), "a half image has a header");
    }
    result.map(|()| memory)
}

/// The image of a group, made in parts: the last part first.
fn write_parts(model: &Model, group: usize, parts: u64) -> Result<Vec<u8>, Error> {
    let bytes = Layout::of(&model.groups()[group])?.image_bytes;
    let mut memory = vec![CANARY; bytes as usize];
    for part in (0..parts).rev() {
        // SAFETY: the memory is as large as is said, and nobody else's.
        unsafe { image::write_image_part(model, group, memory.as_mut_ptr(), bytes, part, parts) }?;
    }
    Ok(memory)
}

/// All behind the head of a group's image, from what is in the file.
fn expected(group: &Group, code: &[u8], sign_mantissa: &[u8]) -> Vec<u8> {
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
        bit += group.codes().first(window(bit)).expect("a code").len as usize;
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
    let group = &model.groups()[number];
    let layout = Layout::of(group).unwrap();
    let written = write(model, number, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
    let head = Head::parse(&written).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(head, Head::of(group).unwrap(), "{what}");
    assert_eq!(*head.layout(), layout, "{what}");
    assert_eq!(head.bytes(), written[..layout.head_bytes() as usize], "{what}");
    assert_eq!(head.ends().len(), group.tensors().len(), "{what}");
    assert_eq!(head.table().bytes().len(), layout.table_bytes as usize, "{what}");
    let body = expected(group, code, sign_mantissa);
    assert!(written[layout.head_bytes() as usize..] == body, "{what}: the body differs");

    let want = naive::decode(group.codes(), code, 0, sign_mantissa).unwrap().0;
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

/// A group in memory and in a file that is read, and its image by every way.
fn check_encoded(what: &str, encoded: &Encoded, lead: usize) -> Vec<u8> {
    // A tensor in front, so that no member begins at an aligned byte.
    let mut tensors = encoder::group_tensors("g", encoded);
    tensors.push(("a".into(), "U8", vec![lead as u64], vec![7; lead]));
    let file = encoder::safetensors(&tensors, None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, &file).unwrap();
    let read = Model::open(&path, &OpenOptions { read: true, ..Default::default() }).unwrap();
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
            let model = Model::open(golden::model(name), &OpenOptions { read, ..Default::default() }).unwrap();
            for (number, group) in model.groups().iter().enumerate() {
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
