//! Images of slices, and which slices each of several ranks holds: against slices of the original tensors, on the host and on
//! the emulated driver.
#![cfg(target_os = "linux")]

use crate::support;

use df11::cuda::{Segment, Shard, Slice, SplitRule};
use df11::internals::cuda::image::{self, Head};
use df11::{Error, Group, Model, OpenOptions, Progress, Status};
use half::bf16;
use std::collections::BTreeMap;
use support::encoder::{self, Encoded};
use support::engine::Emulator;
use support::target::{Target, want};
use support::weights::Random;
use support::{golden, weights};

fn progress() -> Progress {
    Progress::new()
}

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks().0.iter().map(|&w| u16::from_le_bytes(w)).collect()
}

/// Opens a golden model with the shapes of its original.
fn open(name: &str, read: bool) -> Model {
    let shapes: BTreeMap<String, Vec<u64>> =
        golden::expected(name).into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    let options = OpenOptions::new().shapes(serde_json::to_string(&shapes).unwrap());
    let path = golden::model(name);
    // SAFETY: nobody changes the files.
    if read { Model::open(path, &options) } else { unsafe { Model::open_mapped(path, &options) } }.unwrap()
}

/// The weights of a slice, taken one by one.
fn naive(slice: &Slice, tensor: &[u16]) -> Vec<u16> {
    let run = |i: u32| {
        let at = slice.first as usize + i as usize * slice.run_stride as usize;
        &tensor[at..at + slice.run_elements as usize]
    };
    (0..slice.run_count).flat_map(|i| run(i).to_vec()).collect()
}

fn write(shard: &Shard, threads: usize) -> Vec<u8> {
    let bytes = shard.layout().image_bytes as usize;
    let mut memory = vec![0xa7; bytes + 64];
    shard.write_image(&mut memory[32..], threads, &progress()).unwrap();
    assert!(memory[..32].iter().chain(&memory[32 + bytes..]).all(|&b| b == 0xa7), "wrote outside");
    memory[32..32 + bytes].to_vec()
}

/// Makes the image of slices, by any number of threads, and checks it by the oracle and by what it says.
fn check(what: &str, group: Group, all: &[u16], slices: &[Slice]) -> (Vec<u8>, Vec<u16>) {
    let shard = group.shard(slices, 1, &progress()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let written = write(&shard, 1);
    let again = group.shard(slices, 3, &progress()).unwrap();
    assert!(write(&again, 4) == written, "{what}: threads");
    let cuts: Vec<usize> = group.runs().map(|run| run.group_offset() as usize).chain([all.len()]).collect();
    let tensor = |slice: &Slice| &all[cuts[slice.tensor as usize]..cuts[slice.tensor as usize + 1]];
    let parts: Vec<Vec<u16>> = slices.iter().map(|slice| naive(slice, tensor(slice))).collect();
    let want = parts.concat();

    let head = Head::parse(&written).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (layout, whole) = (*head.layout(), group.image_layout().unwrap());
    assert_eq!((layout, head.slices()), (*shard.layout(), slices), "{what}");
    assert_eq!(head.bytes().unwrap(), written[..layout.head_bytes() as usize], "{what}");
    let extent = layout.extent;
    assert_eq!((extent.first, extent.first_tensor, extent.slices as usize), (0, 0, slices.len()), "{what}");
    assert_eq!((extent.group_weights, extent.group_tensors), (whole.weights, whole.tensors), "{what}");
    let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
    let ends: Vec<u64> = (1..=lengths.len()).map(|i| lengths[..i].iter().sum()).collect();
    assert_eq!((head.ends(), layout.weights), (&ends[..], want.len() as u64), "{what}");
    // The group's own table.
    let mut of_group = vec![0; whole.image_bytes as usize];
    group.write_image(&mut of_group, 1).unwrap();
    assert_eq!(head.table(), Head::parse(&of_group).unwrap().table(), "{what}");

    let decoded = image::decode(&written, 0, want.len() as u64).unwrap();
    assert!(decoded.good, "{what}");
    assert!(decoded.weights == want, "{what}: other weights");
    (written, want)
}

/// Every golden model on 2, 3, 4 and 8 ranks: some tensors by rows and some by columns, spread as well as they divide. Each rank
/// holds slices of the original, bit for bit, on the host and on a device, and all ranks together hold each weight once.
#[test]
fn every_golden_model_on_two_to_eight_ranks() {
    let emulator = Emulator::new();
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let status = engine.alloc(4);
    engine.fill(status, 0, 4);
    let mut columns = 0;
    for (number, name) in golden::NAMES.into_iter().enumerate() {
        let model = open(name, number % 2 == 0);
        for group in model.groups() {
            let all = words(&want(&model, group.number()));
            for world in [2, 3, 4, 8] {
                let mut held = vec![0u8; all.len()];
                for rank in 0..world {
                    let what = format!("{name}: {}, rank {rank} of {world}", group.name());
                    let mut slices = Vec::new();
                    for (i, run) in group.runs().enumerate() {
                        let shape = run.tensor().shape();
                        assert!(run.tensor().shape_known(), "{what}");
                        let dimension = (i + world as usize) % shape.len();
                        let segment = Segment::new(shape[dimension]).rule(SplitRule::Spread);
                        slices.extend(group.slices(i, Some(dimension), &[segment], rank, world).unwrap());
                        columns += u32::from(dimension > 0);
                    }
                    let offsets: Vec<u64> = group.runs().map(|run| run.group_offset()).collect();
                    for slice in &slices {
                        for i in 0..slice.run_count as usize {
                            let at = offsets[slice.tensor as usize] as usize + slice.first as usize;
                            let at = at + i * slice.run_stride as usize;
                            held[at..at + slice.run_elements as usize].iter_mut().for_each(|n| *n += 1);
                        }
                    }
                    if slices.iter().all(|slice| slice.element_count() == 0) {
                        continue;
                    }
                    let (image, want) = check(&what, group, &all, &slices);

                    let (at, dst) = (engine.alloc(image.len() as u64), Target::new(&engine, 2 * want.len() as u64, 4));
                    engine.write(at, &image);
                    let head = &image[..Head::parse(&image).unwrap().layout().head_bytes() as usize];
                    // SAFETY: all memory lives until the stream was waited for.
                    let resident = unsafe { device.bind_image(head, at, image.len() as u64) }.unwrap();
                    assert_eq!((resident.slices(), resident.elements()), (&slices[..], 0..want.len() as u64), "{what}");
                    // Slice by slice, the last one first in memory.
                    let lengths: Vec<u64> = slices.iter().map(|slice| 2 * slice.element_count()).collect();
                    let place = |i: usize| dst.dst + lengths[i + 1..].iter().sum::<u64>();
                    let dsts: Vec<u64> = (0..slices.len()).map(place).collect();
                    // SAFETY: as above.
                    unsafe { resident.decompress_tensors(&dsts, &lengths, status, stream) }.unwrap();
                    engine.synchronise(stream);
                    let got = words(&dst.take(&engine));
                    let mut rest = &want[..];
                    for (i, length) in lengths.iter().enumerate() {
                        let (part, after) = rest.split_at(*length as usize / 2);
                        let at = (lengths[i + 1..].iter().sum::<u64>() / 2) as usize;
                        assert!(got[at..at + part.len()] == *part, "{what}: slice {i}");
                        rest = after;
                    }
                    engine.free(at);
                }
                assert!(held.iter().all(|&n| n == 1), "{name}: {} on {world} ranks", group.name());
            }
        }
    }
    assert_eq!(engine.read_u32(status), 0);
    assert!(columns > 100, "{columns}");
    emulator.assert_no_fault();
}

fn model_of(encoded: &Encoded) -> Model {
    let file = encoder::safetensors(&encoder::group_tensors("g", encoded), None);
    Model::from_bytes(file, &OpenOptions::default()).unwrap()
}

/// Random slices of groups with every kind of code: runs of one weight and of many, near and far, several stretches, and
/// slices without weights between others.
#[test]
fn random_slices_of_every_kind_of_group() {
    let long = encoder::canonical(&[(100, 1), (101, 32), (102, 32)], 31);
    let mut random = Random::new(5);
    let some: Vec<u16> = (0..60_000).map(|_| (100 + u16::from(random.below(40) == 0)) << 7).collect();
    let groups = [
        ("one-bit codes", encoder::encode(&weights::one_bit(100_000, 120, 1), &[])),
        ("some 32-bit codes", encoder::encode_with_codes(&some, &[20, 20, 40_000], &long)),
        ("fibonacci", encoder::encode(&weights::fibonacci(24, 3), &[5, 9, 9, 1000])),
        ("trained-like", encoder::encode(&weights::trained_like(700_000, 3), &[0, 50_000, 50_000, 100_000])),
        ("one weight", encoder::encode(&[0x3f80], &[0, 0, 1, 1])),
    ];
    for (what, encoded) in groups {
        let model = model_of(&encoded);
        let group = model.group(0).unwrap();
        let all = words(&want(&model, 0));
        let sizes: Vec<u64> = group.runs().map(|run| run.element_count()).collect();
        for round in 0..24 {
            let mut slices = Vec::new();
            for _ in 0..1 + random.below(5) {
                let tensor = random.below(sizes.len() as u64);
                let n = sizes[tensor as usize];
                if n == 0 || random.below(6) == 0 {
                    slices.push(Slice { tensor: tensor as u32, ..Slice::default() });
                    continue;
                }
                let first = random.below(n);
                let most = [1, 40, 50_000, u64::MAX][random.below(4) as usize];
                let run = 1 + random.below((n - first).min(most));
                let most = [1, 300, 70_000][random.below(3) as usize];
                let stride = run + random.below(most);
                let count = 1 + random.below((n - first - run) / stride + 1);
                let [first, run, stride, count] = [first, run, stride, count].map(|value| value as u32);
                let tensor = tensor as u32;
                slices.push(Slice { tensor, first, run_elements: run, run_stride: stride, run_count: count });
            }
            if slices.iter().any(|slice| slice.element_count() > 0) {
                check(&format!("{what}, round {round}"), group, &all, &slices);
            }
        }
    }
}

/// A rank of eight holds its share of a matrix and at most a hundredth more, by rows as by columns, in the image and so on the
/// device. (The smallest matrix that this is said of: larger ones have smaller heads beside them.)
#[test]
fn a_rank_holds_its_share() {
    // Of smaller shards the tables are more than that: 37 KB.
    let (rows, columns, world) = (6144u64, 4096u64, 8u32);
    let all = weights::trained_like((rows * columns) as usize, 1);
    let bf16: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
    let packed = df11::encode::compress(&[&bf16], &df11::encode::EncodeOptions::new().threads(2)).unwrap();
    let encoded = Encoded {
        luts: packed.luts,
        encoded_exponent: packed.encoded_exponent,
        sign_mantissa: packed.sign_mantissa,
        output_positions: packed.output_positions,
        gaps: packed.gaps,
        split_positions: Vec::new(),
    };
    let file = encoder::safetensors(&encoder::group_tensors("g", &encoded), None);
    let shapes = format!("{{\"g.weight\": [{rows}, {columns}]}}");
    let model = Model::from_bytes(file, &OpenOptions::new().shapes(shapes)).unwrap();
    let group = model.group(0).unwrap();
    let whole = group.image_layout().unwrap().image_bytes;
    let share = |bytes: u64| bytes as f64 / (whole as f64 / world as f64);
    let mut most = (0f64, 0f64);
    for rank in 0..world {
        let by_rows = group.slices(0, Some(0), &[], rank, world).unwrap()[0];
        assert_eq!((by_rows.run_count, by_rows.run_elements as u64), (1, rows * columns / 8));
        let (first, count) = (by_rows.first as u64, by_rows.run_elements as u64);
        let layout = group.image_range_layout(first, count).unwrap();
        let shard = group.shard(&group.slices(0, Some(1), &[], rank, world).unwrap(), 2, &progress()).unwrap();
        assert_eq!(shard.layout().weights, rows * columns / 8);
        most = (most.0.max(share(layout.image_bytes)), most.1.max(share(shard.layout().image_bytes)));
        // Of one rank all weights, too.
        if rank == 5 {
            let written = write(&shard, 2);
            let decoded = image::decode(&written, 0, rows * columns / 8).unwrap();
            let want = all.chunks(columns as usize).flat_map(|row| row[5 * 512..6 * 512].to_vec());
            assert!(decoded.good && want.eq(decoded.weights));
        }
    }
    println!("of its share: {:.4} by rows, {:.4} by columns", most.0, most.1);
    assert!(most.0 < 1.01 && most.1 < 1.01, "{most:?}");
}

/// Slices that are none, cancelled calls, memory that is too small: errors, and no image.
#[test]
fn what_is_no_slice_is_refused() {
    let model = model_of(&encoder::encode(&weights::trained_like(50_000, 3), &[10_000]));
    let group = model.group(0).unwrap();
    let good = Slice { tensor: 1, first: 0, run_elements: 10, run_stride: 100, run_count: 400 };
    let error = |slices: &[Slice]| group.shard(slices, 1, &progress()).unwrap_err();
    for (what, bad) in [
        ("no tensor 2", Slice { tensor: 2, ..good }),
        ("no tensor 4294967295", Slice { tensor: u32::MAX, ..good }),
        ("ends with element 40010", Slice { run_count: 401, ..good }),
        ("ends with element", Slice { first: u32::MAX, ..good }),
        ("ends with element", Slice { run_stride: u32::MAX, run_count: u32::MAX, ..good }),
        ("ends with element", Slice { tensor: 0, ..good }),
        ("overlap", Slice { run_stride: 9, ..good }),
        ("overlap", Slice { run_stride: 0, ..good }),
        ("0 weights", Slice { run_count: 0, ..good }),
        ("0 weights", Slice { run_elements: 0, ..good }),
    ] {
        let error = error(&[bad]);
        assert!(error.status() == Status::InvalidArgument && error.to_string().contains(what), "{what}: {error}");
    }
    assert!(error(&[]).to_string().contains("0 weights"));
    assert!(error(&vec![good; 1025]).to_string().contains("1025 slices"));
    let cancelled = progress();
    cancelled.cancel();
    assert!(matches!(group.shard(&[good], 2, &cancelled).unwrap_err(), Error::Cancelled));
    let shard = group.shard(&[good, Slice { tensor: 0, ..Slice::default() }, good], 2, &progress()).unwrap();
    assert_eq!(shard.layout().weights, 8000);
    let mut memory = vec![0xa7; shard.layout().image_bytes as usize];
    assert!(matches!(shard.write_image(&mut memory[1..], 1, &progress()), Err(Error::BufferTooSmall { .. })));
    assert!(memory.iter().all(|&b| b == 0xa7));
    assert!(matches!(shard.write_image(&mut memory, 1, &cancelled), Err(Error::Cancelled)));
    assert!(memory[..256].iter().all(|&b| b == 0));
    // It counts the bytes of each pass.
    let counting = progress();
    shard.write_image(&mut memory, 1, &counting).unwrap();
    assert_eq!((counting.done(), counting.total()), (16_000, 16_000));
}

/// Every share of every rule: ranks hold all rows once, or as often as there are ranks for each, and the rules refuse what they
/// say.
#[test]
fn shares_are_what_the_rules_say() {
    let share = |extent, unit, rule, rank, world| {
        Segment::new(extent).unit(unit).rule(rule).share(rank, world).map_err(|error| {
            assert_eq!(error.status(), Status::InvalidArgument, "{error}");
        })
    };
    for extent in [0u64, 1, 6, 7, 8, 12, 64, 97, 128] {
        for unit in [1u64, 2, 4, 8, 16] {
            let units = extent.div_ceil(unit);
            for world in 1..=12u32 {
                for rule in [SplitRule::Even, SplitRule::Replicate, SplitRule::Spread, SplitRule::Pad] {
                    let all: Vec<_> = (0..world).map(|rank| share(extent, unit, rule, rank, world)).collect();
                    let w = world as u64;
                    let good = match rule {
                        SplitRule::Pad => true,
                        _ if extent % unit != 0 => false,
                        SplitRule::Even => units % w == 0,
                        SplitRule::Replicate => units % w == 0 || units > 0 && w.is_multiple_of(units),
                        _ => true,
                    };
                    let what = format!("{extent} by {unit}, {rule:?}, {world} ranks: {all:?}");
                    assert!(all.iter().all(|share| share.is_ok() == good), "{what}");
                    let Ok(all) = all.into_iter().collect::<Result<Vec<_>, _>>() else { continue };
                    let times = if rule == SplitRule::Replicate && units < w && units > 0 { w / units } else { 1 };
                    for row in 0..extent {
                        assert_eq!(all.iter().filter(|share| share.contains(&row)).count() as u64, times, "{what}");
                    }
                    assert!(all.is_sorted_by_key(|share| share.start), "{what}");
                    assert!(all.iter().all(|share| share.start.is_multiple_of(unit) || share.is_empty()), "{what}");
                    let counts: Vec<u64> = all.iter().map(|share| share.end - share.start).collect();
                    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                    match rule {
                        SplitRule::Spread => {
                            assert!(most - least <= unit && counts.is_sorted_by(|a, b| a >= b), "{what}")
                        }
                        SplitRule::Pad => assert!(counts.is_sorted_by(|a, b| a >= b), "{what}"),
                        _ => assert_eq!(least, most, "{what}"),
                    }
                }
            }
        }
    }
    // Eight heads of keys on sixteen ranks: two ranks hold each. A vocabulary that is padded to a multiple of 64.
    assert_eq!(share(1024, 128, SplitRule::Replicate, 5, 16), Ok(256..384));
    assert_eq!(share(32_003, 64, SplitRule::Pad, 7, 8), Ok(28_224..32_003));
    assert_eq!(share(u64::MAX, 1, SplitRule::Pad, 2, 3), Ok(u64::MAX / 3 * 2..u64::MAX));
    for (rank, world) in [(0, 0), (1, 1), (8, 8), (u32::MAX, u32::MAX), (0, u32::MAX)] {
        share(8, 1, SplitRule::Spread, rank, world).unwrap_err();
    }
    share(8, 0, SplitRule::Spread, 0, 1).unwrap_err();
}

/// A transformer's layer: the dimension follows from the name, fused tensors are divided by their segments, and what does not
/// tell is refused.
#[test]
fn tensors_are_divided_by_their_names_and_segments() {
    let config = r#"{"dfloat11_config": {"version": "0.5.0", "threads_per_block": [512], "bytes_per_thread": 8,
        "pattern_dict": {"l": ["q_proj", "qkv_proj", "gate_up_proj", "o_proj", "up_proj", "down_proj", "norm_proj"]}}}"#;
    // 8 heads of 4 rows, 2 of keys and 2 of values; a width of 16; an inner width of 24.
    let shapes: [(&str, u64, u64); 7] = [
        ("q_proj", 32, 16),
        ("qkv_proj", 48, 16),
        ("gate_up_proj", 48, 16),
        ("o_proj", 16, 32),
        ("up_proj", 24, 16),
        ("down_proj", 16, 24),
        ("norm_proj", 16, 16),
    ];
    let mut splits = Vec::new();
    let mut n = 0;
    for (_, rows, columns) in shapes {
        n += rows * columns;
        splits.push(n);
    }
    splits.pop();
    let encoded = encoder::encode(&weights::trained_like(n as usize, 7), &splits);
    let file = encoder::safetensors(&encoder::group_tensors("l", &encoded), None);
    let known: BTreeMap<String, [u64; 2]> =
        shapes.iter().map(|(name, rows, columns)| (format!("l.{name}.weight"), [*rows, *columns])).collect();
    let options = OpenOptions::new().config(config).shapes(serde_json::to_string(&known).unwrap());
    let model = Model::from_bytes(file.clone(), &options).unwrap();
    let group = model.group(0).unwrap();
    let heads = |count: u64| Segment::new(4 * count).unit(4);
    let keys = heads(2).rule(SplitRule::Replicate);
    let slice = |tensor, first, run_elements, run_stride, run_count| Slice {
        tensor,
        first,
        run_elements,
        run_stride,
        run_count,
    };
    let (rank, world) = (3, 4);
    // Each of four ranks has two heads, and half as many ranks as there are share a head of keys.
    assert_eq!(group.slices(0, None, &[heads(8)], rank, world).unwrap(), [slice(0, 24 * 16, 128, 128, 1)]);
    assert_eq!(
        group.slices(1, None, &[heads(8), keys, keys], rank, world).unwrap(),
        [slice(1, 24 * 16, 128, 128, 1), slice(1, 36 * 16, 64, 64, 1), slice(1, 44 * 16, 64, 64, 1)]
    );
    let half = Segment::new(24);
    assert_eq!(
        group.slices(2, None, &[half, half], rank, world).unwrap(),
        [slice(2, 18 * 16, 96, 96, 1), slice(2, 42 * 16, 96, 96, 1)]
    );
    assert_eq!(group.slices(3, None, &[heads(8)], rank, world).unwrap(), [slice(3, 24, 8, 32, 16)]);
    assert_eq!(group.slices(4, None, &[], rank, world).unwrap(), [slice(4, 18 * 16, 96, 96, 1)]);
    assert_eq!(group.slices(5, None, &[], rank, world).unwrap(), [slice(5, 18, 6, 24, 16)]);
    assert_eq!(group.slices(5, Some(1), &[], 0, 1).unwrap(), [slice(5, 0, 384, 384, 1)]);
    let refused = |tensor, dimension, segments: &[Segment], world| {
        group.slices(tensor, dimension, segments, 0, world).unwrap_err()
    };
    for (error, status, says) in [
        (refused(0, None, &[], 4), Status::InvalidArgument, "has heads"),
        (refused(2, None, &[], 4), Status::InvalidArgument, "several matrices"),
        (refused(6, None, &[], 4), Status::NotFound, "does not tell"),
        (refused(7, None, &[], 4), Status::NotFound, "no tensor 7"),
        (refused(6, Some(2), &[], 4), Status::InvalidArgument, "no dimension 2"),
        (refused(6, Some(0), &[Segment::new(15)], 1), Status::InvalidArgument, "segments of 15"),
        (refused(6, Some(0), &[Segment::new(u64::MAX), Segment::new(17)], 1), Status::InvalidArgument, "segments of"),
        (refused(4, None, &[], 5), Status::InvalidArgument, "'l.up_proj.weight': 24 units of 1 rows or columns"),
    ] {
        assert!(error.status() == status && error.to_string().contains(says), "{says}: {error}");
    }
    // Without shapes nothing is known.
    let model = Model::from_bytes(file, &OpenOptions::new().config(config).no_derived_shapes(true)).unwrap();
    let error = model.group(0).unwrap().slices(4, None, &[], 0, 4).unwrap_err();
    assert!(error.status() == Status::InvalidArgument && error.to_string().contains("not known"), "{error}");
}

/// Experts in one tensor, which several groups share: rows, columns and whole experts of what each group has.
#[test]
fn runs_of_experts_are_divided_where_they_are() {
    let model = Model::open("tests/data/extension/model", &OpenOptions::default()).unwrap();
    let mut several = 0;
    for tensor in model.tensors().filter(|tensor| tensor.group().is_some() && tensor.shape().len() == 3) {
        let mut bytes = vec![0; tensor.bytes() as usize];
        tensor.read(0, &mut bytes, &df11::DecodeOptions::new()).unwrap();
        let (all, shape) = (words(&bytes), tensor.shape());
        for (dimension, world) in [(0, 2), (1, 4), (2, 2)] {
            let rule = [Segment::new(shape[dimension]).rule(SplitRule::Spread)];
            for rank in 0..world {
                let share = rule[0].share(rank, world).unwrap();
                let mut got = Vec::new();
                for run in tensor.runs() {
                    let group = run.group();
                    let number = group.runs().position(|r| r.tensor().number() == tensor.number()).unwrap();
                    let slices = group.slices(number, Some(dimension), &rule, rank, world).unwrap();
                    if slices[0].element_count() > 0 {
                        let of_group = words(&want(&model, group.number()));
                        got.extend(check(tensor.name(), group, &of_group, &slices).1);
                    }
                }
                let inner: u64 = shape[dimension + 1..].iter().product();
                let is_held = |i: usize| share.contains(&(i as u64 / inner % shape[dimension]));
                let want = all.iter().enumerate().filter(|(i, _)| is_held(*i)).map(|(_, &weight)| weight);
                assert!(want.eq(got), "{}: dimension {dimension}, rank {rank} of {world}", tensor.name());
            }
        }
        several += u32::from(tensor.runs().len() > 1);
    }
    assert!(several > 0);
}
