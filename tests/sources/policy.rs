//! The library's mirror of `kernels/policy.h` and `kernels/job.h` says what those say.

use df11::internals::cuda::{image, policy};
use std::collections::BTreeMap;
use std::path::Path;

fn source(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(name)).unwrap()
}

#[test]
fn every_constant_is_that_of_the_kernels() {
    let mut header: BTreeMap<String, u64> = source("policy.h")
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .map(|line| {
            let (name, value) = line.split_once(' ').unwrap();
            (name.to_owned(), value.trim().parse().unwrap())
        })
        .collect();
    let warps: BTreeMap<u32, u32> = policy::WARPS.into_iter().collect();
    assert!(policy::WARPS.is_sorted(), "warps are looked up by the capability before");
    let ours = [
        ("DF11_LANE_WEIGHTS".to_owned(), image::LANE_WEIGHTS),
        ("DF11_WINDOW_BITS".to_owned(), image::WINDOW as u64),
        ("DF11_TABLE_SMALL".to_owned(), policy::TABLE_SMALL as u64),
        ("DF11_TABLE_LARGE".to_owned(), policy::TABLE_LARGE as u64),
        ("DF11_NIBBLE_WINDOW_BITS".to_owned(), image::NIBBLE_WINDOW as u64),
        ("DF11_TABLE_NIBBLES".to_owned(), policy::TABLE_NIBBLES as u64),
        ("DF11_CODE_UNITS".to_owned(), policy::CODE_UNITS as u64),
        ("DF11_MOST_JOBS".to_owned(), policy::MOST_JOBS as u64),
        ("DF11_MOST_WARPS".to_owned(), policy::MOST_WARPS as u64),
        ("DF11_INDEX_THREADS".to_owned(), policy::INDEX_THREADS as u64),
        ("DF11_INDEX_SHARED".to_owned(), policy::INDEX_SHARED as u64),
        ("DF11_MULTIPLY_PARTS".to_owned(), policy::MULTIPLY_PARTS as u64),
        ("DF11_MULTIPLY_THREADS".to_owned(), policy::MULTIPLY_THREADS as u64),
        ("DF11_LINEAR_WARPS".to_owned(), policy::LINEAR_WARPS as u64),
        ("DF11_LINEAR_SHARED".to_owned(), policy::LINEAR_SHARED as u64),
    ];
    let ours = ours.into_iter().chain(warps.iter().map(|(cc, &warps)| (format!("DF11_WARPS_{cc}"), warps as u64)));
    let rows = policy::MULTIPLY_ROWS.map(|(vectors, rows)| (format!("DF11_MULTIPLY_ROWS_{vectors}"), rows as u64));
    let ours = ours.chain(rows);
    for (name, value) in ours {
        assert_eq!(header.remove(&name), Some(value), "{name}");
    }
    // What is left is the kernels' own.
    let rest: Vec<&str> = header.keys().map(String::as_str).collect();
    assert_eq!(rest, ["DF11_AHEAD_UNITS"]);
}

/// The fields of a struct in C, in their order, with their bytes; a list of names has one type.
fn fields(source: &str, name: &str) -> Vec<(String, usize)> {
    let body = source.split_once(&format!("struct {name} {{")).unwrap().1.split_once("};").unwrap().0;
    let mut fields = Vec::new();
    for line in body.lines().filter_map(|line| line.split("//").next().unwrap().trim().strip_suffix(';')) {
        let (kind, names) = line.split_once(' ').unwrap();
        let bytes = match kind {
            "u32" => 4,
            "u64" => 8,
            // The parts, at the end.
            "df11_multiply_part" => {
                fields.push((names.split('[').next().unwrap().to_owned(), 0));
                continue;
            }
            other => panic!("{other}"),
        };
        fields.extend(names.split(',').map(|name| (name.trim().to_owned(), bytes)));
    }
    fields
}

#[test]
fn jobs_have_the_fields_of_the_kernels() {
    let header = source("job.h");
    for (name, ours) in [
        ("df11_job", policy::JOB_FIELDS),
        ("df11_index_job", policy::INDEX_JOB_FIELDS),
        ("df11_linear_decode_job", policy::LINEAR_DECODE_JOB_FIELDS),
        ("df11_linear_make_job", policy::LINEAR_MAKE_JOB_FIELDS),
        ("df11_multiply_part", policy::MULTIPLY_PART_FIELDS),
        ("df11_multiply_job", policy::MULTIPLY_JOB_FIELDS),
    ] {
        let mut at = 0;
        let mut theirs = Vec::new();
        for (field, bytes) in fields(&header, name) {
            theirs.push((field, at));
            at += bytes;
        }
        let ours: Vec<(String, usize)> = ours.iter().map(|&(field, at)| (field.to_owned(), at)).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// Every block fits the device, and no device gets no warp.
#[test]
fn launches_fit_every_device() {
    for (capability, most_shared) in [(75, 64 << 10), (80, 163 << 10), (86, 99 << 10), (90, 227 << 10), (120, 99 << 10)]
    {
        for form in policy::Form::ALL {
            let warps = policy::warps(capability, form, most_shared);
            let shared = form.decode_shared(warps);
            assert!(warps >= 1 && shared <= most_shared, "{capability}: {warps} warps, {shared} bytes");
            for vectors in 1..=if capability < 80 { 2 } else { 8 } {
                assert!(policy::multiply_shared(vectors) <= most_shared, "{capability}: {vectors} vectors");
            }
        }
        assert!([16384, 32768].into_iter().all(|table_bytes| policy::index_shared(table_bytes) <= most_shared));
    }
    let small = policy::Form::Small;
    assert_eq!(policy::warps(87, small, 1 << 20), policy::warps(86, small, 1 << 20));
    assert_eq!(policy::warps(70, small, 1 << 20), 1);
}

/// A launch has no more blocks than run at once, whatever its jobs: the rest would start when all others are done. And it
/// has about as many, so that no multiprocessor has much more to do than the others.
#[test]
fn no_launch_has_blocks_left_over() {
    // Tiles of the seven matrices of a layer with 218 million weights, and of all of it.
    let layer = [5042, 1261, 1261, 5042, 17_645, 17_645, 17_645];
    let whole = [65_536];
    let layers = [65_536; 32];
    for (jobs, capacity) in [
        (&layer[..], 264),
        (&layer[..], 128),
        (&layer[..], 46),
        (&whole[..], 264),
        (&layers[..], 264),
        (&layers[..], 128),
        (&[4507][..], 264),
        (&[10_080][..], 264),
        (&[3169][..], 264),
    ] {
        let each = policy::tiles_per_block(jobs.iter().copied(), 12, capacity);
        let blocks: u64 = jobs.iter().map(|tiles| tiles.div_ceil(each)).sum();
        assert!(blocks <= capacity as u64, "{jobs:?}: {blocks} of {capacity}");
        assert!(blocks * 100 >= capacity as u64 * 88, "{jobs:?}: {blocks} of {capacity}");
    }
    // Any numbers at all: those that do not fit at once make whole rounds.
    let mut random = 1u64;
    for i in 0..20_000u64 {
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let jobs: Vec<u64> = (0..=next(32)).map(|_| 1 + next(1 << (1 + i % 27))).collect();
        let capacity = 1 + next(300);
        let each = policy::tiles_per_block(jobs.iter().copied(), 12, capacity as u32);
        let blocks: u64 = jobs.iter().map(|tiles| tiles.div_ceil(each)).sum();
        assert!(blocks <= capacity * (2 * jobs.len() as u64).div_ceil(capacity), "{jobs:?}: {blocks} of {capacity}");
        // Where the limit is the caller's, there is one round, and no block has more to do than it must.
        let jobs = &jobs[..jobs.len().min(capacity as usize)];
        let plain = policy::tiles_per_block(jobs.iter().copied(), 12, capacity as u32);
        let each = policy::tiles_per_block_within(jobs.iter().copied(), 12, capacity as u32);
        let count = |each: u64| jobs.iter().map(|tiles| tiles.div_ceil(each)).sum::<u64>();
        assert!(count(each) <= capacity, "{jobs:?}: {} of {capacity}", count(each));
        assert!(each == plain || count(plain) > capacity, "{jobs:?}: {each} instead of {plain} of {capacity}");
    }
    // A few tiles are spread out, but no block copies a table for fewer than three.
    assert_eq!(policy::tiles_per_block([5].into_iter(), 12, 264), 3);
}
