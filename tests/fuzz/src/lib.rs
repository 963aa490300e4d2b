//! What is done with the bytes of a fuzzer: one function a target, each of which panics where a promise is broken. The
//! programs that libFuzzer drives are in `targets`; `tests/format/kept.rs` runs the same functions over the kept inputs in every
//! `cargo test`. Some targets read the bytes as a recipe rather than as a file, so that most inputs get past the first check.

#![allow(dead_code, reason = "helpers of the other tests come along")]

#[path = "../../support/check.rs"]
mod check;
#[path = "../../support/encoder.rs"]
mod encoder;
#[path = "../../support/files.rs"]
mod files;
#[path = "../../support/golden.rs"]
mod golden;
#[path = "../../support/weights.rs"]
mod weights;

use arbitrary::{Result, Unstructured};
use df11::cuda::Slice;
use df11::internals::cuda::image;
use df11::internals::host::{self, DecodeOptions, EncodeOptions};
use df11::internals::huffman::codebook::{Codebook, Limit};
use df11::internals::huffman::encode::Variant;
use df11::internals::matrix::{self, Input, Matrix, MatrixOptions, Order, naive};
use df11::{Model, OpenOptions, Progress};
use encoder::Encoded;
use half::bf16;
use half::slice::HalfBitsSliceExt;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::LazyLock;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("open_file", open_file),
    ("open_folder", open_folder),
    ("config", config),
    ("group", group),
    ("encode", encode),
    ("image", image),
    ("matrix", matrix),
];

/// The bytes are a file: it is refused, or everything that can be done with it ends in an error or in an answer.
pub fn open_file(data: &[u8]) {
    if let Ok(model) = Model::from_bytes(data.to_vec(), &OpenOptions::default()) {
        let _ = check::exercise(&model, 1);
    }
}

/// What a file of a folder may be called. The last ones must not be opened at all.
pub const NAMES: [&str; 8] = [
    "config.json",
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "lm_head.safetensors",
    "notes.txt",
    "model.safetensors.part",
];

/// The bytes are a folder's files, one after the other: the number of its name, its length in two bytes, its content.
pub fn open_folder(data: &[u8]) {
    let room = ["/dev/shm", "/tmp"].into_iter().map(Path::new).find(|path| path.is_dir());
    let folder = match room {
        Some(room) => tempfile::tempdir_in(room),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder for the model's files");
    let mut rest = data;
    while let [name, low, high, more @ ..] = rest {
        let len = u16::from_le_bytes([*low, *high]) as usize;
        let (content, behind) = more.split_at(len.min(more.len()));
        std::fs::write(folder.path().join(NAMES[*name as usize % NAMES.len()]), content).expect("a file is written");
        rest = behind;
    }
    if let Ok(model) = Model::open(folder.path(), &OpenOptions::default()) {
        let _ = check::exercise(&model, 1);
    }
}

/// The bytes are a config.json for a model with layers, a head, and tensors of no group.
pub fn config(data: &[u8]) {
    static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let group = |name: &str, splits: &[u64]| {
            encoder::group_tensors(name, &encoder::encode(&weights::gaussian(300, 0.02, 7), splits))
        };
        let all = [group("model.layers.0", &[100, 150]), group("model.layers.1", &[100, 150]), group("lm_head", &[])];
        encoder::safetensors(&all.concat(), None)
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options = OpenOptions::new().config(text);
    if let Ok(model) = Model::from_bytes(&FILE[..], &options) {
        // A config gives names and nothing else: whatever it says, the weights are there.
        check::exercise(&model, 1).expect("the file is good");
        assert_eq!(model.groups().map(|g| g.element_count()).sum::<u64>(), 900);
    }
}

/// Good groups, each of another kind, small enough for thousands of rounds a second.
static GROUPS: LazyLock<Vec<Encoded>> = LazyLock::new(|| {
    let same = |exponent: u16, n: usize| vec![exponent << 7; n];
    let long = encoder::canonical(&[(100, 1), (101, 32), (102, 32)], 31);
    let eight = encoder::canonical(&(0..240).map(|e| (e, 8)).collect::<Vec<_>>(), 8);
    vec![
        encoder::encode(&weights::trained_like(1_500, 1), &[500, 700]),
        encoder::encode(&weights::fibonacci(14, 2), &[]),
        encoder::encode_with_codes(&[same(101, 300), same(102, 40), same(100, 200)].concat(), &[5], &long),
        encoder::encode_with_codes(&weights::uniform_exponents(4_500, 0..=239, 3), &[], &eight),
        encoder::encode(&weights::one_bit(3_000, 120, 4), &[1_000]),
        encoder::encode(&[0x3f80], &[0, 1]),
    ]
});

/// Changes bytes as the input says: up to eight times one, a run, the length.
fn edit(
    u: &mut Unstructured,
    mut pick: impl FnMut(&mut Unstructured) -> Result<usize>,
    of: &mut [Vec<u8>],
) -> Result<()> {
    for _ in 0..u.int_in_range(0..=8)? {
        let which = pick(u)?;
        let bytes = &mut of[which];
        let at = if bytes.is_empty() { 0 } else { u.arbitrary::<u32>()? as usize % bytes.len() };
        match u.int_in_range(0..=6)? {
            0 if !bytes.is_empty() => bytes[at] = u.arbitrary()?,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << u.int_in_range(0..=7)?,
            2 => bytes.truncate(at),
            3 => {
                let value: u8 = u.arbitrary()?;
                let len = bytes.len() + u.int_in_range(0..=400)?;
                bytes.resize(len, value);
            }
            4 => {
                let to = bytes.len().min(at + u.int_in_range(0..=300)?);
                bytes.drain(at..to);
            }
            5 => {
                let value: u64 = u.arbitrary()?;
                let to = bytes.len().min(at / 4 * 4 + if u.arbitrary()? { 4 } else { 8 });
                let from = at / 4 * 4;
                bytes[from..to].copy_from_slice(&value.to_le_bytes()[..to - from]);
            }
            _ => {
                let more: [u8; 16] = u.arbitrary()?;
                bytes.splice(at..at, more);
            }
        }
    }
    Ok(())
}

/// The bytes say which good group is taken and how its six members are changed, or are the members themselves. What opens
/// and verifies must be true by the code's lengths alone, and every decoder must say the same.
pub fn group(data: &[u8]) {
    let _ = try_group(&mut Unstructured::new(data));
}

fn try_group(u: &mut Unstructured) -> Result<()> {
    let kind = u.int_in_range(0..=GROUPS.len())?;
    let mut members: Vec<Vec<u8>> = match GROUPS.get(kind) {
        Some(e) => vec![
            e.luts.clone(),
            e.encoded_exponent.clone(),
            e.sign_mantissa.clone(),
            e.output_positions.clone(),
            e.gaps.clone(),
            e.split_positions.iter().flat_map(|s| s.to_le_bytes()).collect(),
        ],
        None => (0..6).map(|_| u.arbitrary()).collect::<Result<_>>()?,
    };
    edit(u, |u| u.int_in_range(0..=5), &mut members)?;
    let [luts, encoded_exponent, sign_mantissa, output_positions, gaps, splits] =
        <[Vec<u8>; 6]>::try_from(members).expect("six members");
    let split_positions = splits.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect();
    let e = Encoded { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions };
    let file = encoder::safetensors(&encoder::group_tensors("g", &e), None);
    let Ok(model) = Model::from_bytes(file, &OpenOptions::default()) else { return Ok(()) };
    let _ = check::exercise(&model, 1);
    if model.group(0).unwrap().verify(1).is_ok() {
        check::is_true(&e, &model).expect("what verifies is true");
        // And an image of it can be made, which says the same.
        let bytes = image::ImageLayout::of(model.group(0).unwrap()).expect("a good group has an image").image_bytes;
        let mut image = vec![0; bytes as usize];
        model.group(0).unwrap().write_image(&mut image, 1).expect("a good group has an image");
        let n = model.group(0).unwrap().element_count();
        let decoded = image::decode(&image, 0, n).expect("the image is good");
        let mut weights = vec![bf16::ZERO; n as usize];
        model.group(0).unwrap().decompress(0, &mut weights, &DecodeOptions::default()).expect("the group is good");
        assert!(decoded.good && decoded.weights == weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>());
    }
    Ok(())
}

/// The bytes are weights, or say of which few exponents they are and how often: every encoder writes what the naive one
/// writes, and that decodes to the weights. What the format cannot hold is refused.
pub fn encode(data: &[u8]) {
    let _ = try_encode(&mut Unstructured::new(data));
}

fn try_encode(u: &mut Unstructured) -> Result<()> {
    let palette: Option<Vec<u8>> = u.arbitrary()?;
    let cuts: [u16; 2] = u.arbitrary()?;
    let times = u.int_in_range(1..=12)?;
    let rest = u.bytes(u.len())?;
    let mut weights: Vec<u16> = match palette {
        Some(palette) if !palette.is_empty() => {
            // One in each run of the palette: a few likely exponents and many rare ones.
            let of = |b: &u8| palette[(*b as usize).min(255) * palette.len() / 256] as u16 % 240;
            rest.iter().enumerate().map(|(i, b)| of(b) << 7 | (i as u16).wrapping_mul(0x9e37) & 0x807f).collect()
        }
        _ => rest.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
    };
    weights.truncate(4_000);
    let weights = weights.repeat(times as usize);
    let splits: Vec<u64> = {
        let mut splits = cuts.map(|cut| cut as u64 % (weights.len() as u64 + 1));
        splits.sort_unstable();
        splits.to_vec()
    };
    let tensors = [
        &weights[..splits[0] as usize],
        &weights[splits[0] as usize..splits[1] as usize],
        &weights[splits[1] as usize..],
    ];
    let tensors: Vec<&[bf16]> = tensors.iter().map(|t| t.reinterpret_cast()).collect();
    let possible = !weights.is_empty() && weights.iter().all(|&w| encoder::exponent(w) < 240);
    let naive = possible.then(|| {
        // A code that takes more rows than a decoder can read is made shorter, which the naive encoder does not know of.
        let book = Codebook::new(&encoder::histogram(&weights)).expect("there are weights");
        let shortened = matches!(book.limited(), Some(Limit::Rows(_)));
        (!shortened).then(|| encoder::encode(&weights, &splits))
    });
    for variant in Variant::ALL.iter().copied().filter(|v| v.is_available()) {
        let packed = host::compress(&tensors, &EncodeOptions::new().threads(1).variant(variant));
        let Some(naive) = &naive else {
            assert!(packed.is_err(), "the format cannot hold this");
            continue;
        };
        let packed = packed.expect("the format can hold this");
        let split_positions = packed.split_positions.chunks_exact(8);
        let ours = Encoded {
            luts: packed.luts,
            encoded_exponent: packed.encoded_exponent,
            sign_mantissa: packed.sign_mantissa,
            output_positions: packed.output_positions,
            gaps: packed.gaps,
            split_positions: split_positions.map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect(),
        };
        assert!(naive.as_ref().is_none_or(|naive| *naive == ours), "{} and the naive encoder differ", variant.name());
        let file = encoder::safetensors(&encoder::group_tensors("g", &ours), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).expect("what was encoded opens");
        model.group(0).unwrap().verify(1).expect("what was encoded verifies");
        let mut decoded = vec![bf16::ZERO; weights.len()];
        model
            .group(0)
            .unwrap()
            .decompress(0, &mut decoded, &DecodeOptions::default())
            .expect("what was encoded decodes");
        assert!(decoded.iter().map(|w| w.to_bits()).eq(weights.iter().copied()), "other weights come back");
    }
    Ok(())
}

/// Images of the good groups, and of a part of each.
static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let image = |e: &Encoded| {
        let file = encoder::safetensors(&encoder::group_tensors("g", e), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).expect("a good group opens");
        let bytes = image::ImageLayout::of(model.group(0).unwrap()).expect("a good group has an image").image_bytes;
        let mut image = vec![0; bytes as usize];
        model.group(0).unwrap().write_image(&mut image, 1).expect("a good group has an image");
        image
    };
    let range = |e: &Encoded| {
        let file = encoder::safetensors(&encoder::group_tensors("g", e), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).expect("a good group opens");
        let group = model.group(0).unwrap();
        let n = group.element_count();
        let (first, count) = (n / 3, n - n / 3 - n / 5);
        let layout = group.image_range_layout(first, count).expect("a part of a good group has an image");
        let mut image = vec![0; layout.image_bytes as usize];
        group.write_image_range(first, count, &mut image, 1).expect("a part of a good group has an image");
        image
    };
    let shard = |e: &Encoded| {
        let file = encoder::safetensors(&encoder::group_tensors("g", e), None);
        let model = Model::from_bytes(file, &OpenOptions::default()).expect("a good group opens");
        let group = model.group(0).unwrap();
        let (tensor, run) = group.runs().enumerate().max_by_key(|(_, run)| run.element_count()).unwrap();
        let half = (run.element_count() as u32).div_ceil(2);
        let every_second = Slice { tensor: tensor as u32, first: 0, run_elements: 1, run_stride: 2, run_count: half };
        let slices = [every_second, Slice { run_elements: half, run_stride: half, run_count: 1, ..every_second }];
        let shard = group.shard(&slices, 1, &Progress::new()).expect("good slices");
        let mut image = vec![0; shard.layout().image_bytes as usize];
        shard.write_image(&mut image, 1, &Progress::new()).expect("good slices have an image");
        image
    };
    GROUPS.iter().map(image).chain(GROUPS.iter().map(range)).chain(GROUPS.iter().map(shard)).collect()
});

/// The bytes say how an image is changed, and whether its checksum is made to fit as a liar would: its head is refused, or
/// what it says can be believed, for then every weight can be decoded inside the image.
pub fn image(data: &[u8]) {
    let _ = try_image(&mut Unstructured::new(data));
}

fn try_image(u: &mut Unstructured) -> Result<()> {
    let good = &IMAGES[u.int_in_range(0..=IMAGES.len() - 1)?];
    let fits: bool = u.arbitrary()?;
    // The header's fields, the rest of the head, and all else.
    let head = image::Head::parse(good).expect("the image is good").layout().head_bytes() as usize;
    let mut parts = [good[..256].to_vec(), good[256..head].to_vec(), good[head..].to_vec()];
    edit(u, |u| u.int_in_range(0..=2), &mut parts)?;
    let mut bad = parts.concat();
    if fits && bad.len() >= 256 {
        let says = u32::from_le_bytes(bad[12..16].try_into().expect("4 bytes")) as usize;
        let mut hasher = Sha256::new();
        hasher.update(&bad[..240]);
        hasher.update(&bad[256..says.clamp(256, bad.len())]);
        let digest = hasher.finalize();
        bad[240..248].copy_from_slice(&digest[..8]);
    }
    if let Ok(head) = image::Head::parse(&bad) {
        let layout = *head.layout();
        if bad.len() as u64 >= layout.image_bytes {
            let decoded = image::decode(&bad, 0, layout.weights).expect("the head was accepted");
            assert_eq!(decoded.weights.len() as u64, layout.weights);
            assert!(bad != *good || decoded.good);
        }
    }
    Ok(())
}

/// Memory of exactly so many bytes at a cache line's beginning, so that a sanitizer sees the first byte after it.
struct Exactly {
    at: *mut u8,
    layout: std::alloc::Layout,
}

impl Exactly {
    fn of(bytes: &[u8]) -> Exactly {
        let layout = std::alloc::Layout::from_size_align(bytes.len(), matrix::ALIGNMENT).expect("it is small");
        assert!(layout.size() > 0);
        // SAFETY: the size is not 0.
        let at = unsafe { std::alloc::alloc(layout) };
        assert!(!at.is_null());
        // SAFETY: so many bytes can be written there.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        Exactly { at, layout }
    }

    fn get(&mut self) -> &mut [u8] {
        // SAFETY: all bytes were written, and are borrowed as this value is.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) }
    }
}

impl Drop for Exactly {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { std::alloc::dealloc(self.at, self.layout) };
    }
}

/// The bytes are weights of a matrix, and say how its bytes are changed, and whether the head's checksum is made to fit as a
/// liar would. Every variant decodes and multiplies as the naive one, inside the bytes.
pub fn matrix(data: &[u8]) {
    let _ = try_matrix(&mut Unstructured::new(data));
}

fn try_matrix(u: &mut Unstructured) -> Result<()> {
    let (columns, rows) = (u.int_in_range(1..=400)?, u.int_in_range(1..=6)?);
    let (some, fits): ([u16; 40], bool) = (u.arbitrary()?, u.arbitrary()?);
    let weights: Vec<u16> = (0..rows * columns).map(|i| some[i * 7 % 40].wrapping_add((i % 3) as u16)).collect();
    let most = matrix::bound(rows as u64, columns as u64).expect("there are weights") as usize;
    let mut room = Exactly::of(&vec![0xa5; most]);
    let (options, progress) = (MatrixOptions::new(), Progress::new());
    let made = matrix::write(weights.reinterpret_cast(), columns as u64, room.get(), &options, &progress);
    let good = made.expect("the bound is enough").data().to_vec();
    all_agree(&Matrix::new(Exactly::of(&good).get()).expect("it was just made"), Some(&weights));

    let mut parts = [good[..128].to_vec(), good[128..].to_vec()];
    edit(u, |u| u.int_in_range(0..=1), &mut parts)?;
    let mut bad = parts.concat();
    if fits && bad.len() >= 128 {
        // FNV-1a, as the head has it.
        let fnv = |sum: u64, &b: &u8| (sum ^ b as u64).wrapping_mul(0x100_0000_01b3);
        let sum = bad[..120].iter().fold(0xcbf2_9ce4_8422_2325, fnv);
        bad[120..128].copy_from_slice(&sum.to_le_bytes());
    }
    if bad.is_empty() {
        return Ok(());
    }
    if let Ok(matrix) = Matrix::new(Exactly::of(&bad).get()) {
        all_agree(&matrix, None);
    }
    Ok(())
}

/// Decodes and multiplies by every variant.
fn all_agree(matrix: &Matrix, weights: Option<&[u16]>) {
    let (rows, columns) = (matrix.rows(), matrix.columns() as usize);
    let naive: Vec<u16> = (0..rows).flat_map(|row| naive::row(matrix, row)).collect();
    assert!(weights.is_none_or(|weights| weights == naive), "other weights come back");
    let x: Vec<f32> = (0..3 * columns).map(|k| (k % 5) as f32).collect();
    let bits = |y: f32| if y.is_nan() { u32::MAX } else { y.to_bits() };
    let product = |v: usize, row: usize| {
        naive::dot(&naive[row * columns..][..columns], Input::F32(&x[v * columns..][..columns]), Order::Lanes)
    };
    let products: Vec<u32> =
        (0..3).flat_map(|v| (0..rows as usize).map(move |r| (v, r))).map(|(v, r)| bits(product(v, r))).collect();
    for variant in matrix::Variant::ALL.into_iter().filter(|v| v.is_available()) {
        let mut decoded = vec![0u16; naive.len()];
        // SAFETY: there is room for all weights.
        unsafe { matrix.decompress_raw(0, naive.len() as u64, decoded.as_mut_ptr(), variant) }.expect("all are there");
        assert!(decoded == naive, "{} and the naive decoder differ", variant.name());
        for vectors in [1, 3] {
            let mut y = vec![0f32; vectors * rows as usize];
            let x = Input::F32(&x[..vectors * columns]);
            matrix.multiply_by(0..rows, x, Order::Lanes, &mut y, variant).expect("it fits");
            let found = y.iter().map(|&y| bits(y));
            assert!(found.eq(products[..y.len()].iter().copied()), "{}: other sums", variant.name());
        }
    }
}
