//! Which tensors become groups with names and runs, and where they are cut.

use df11::Dtype;
use df11::internals::writer::plan::{Patterns, Plan, RunSizes, SourceTensor, extend, plan};
use serde_json::{Value, json};

fn tensor<'a>(name: &'a str, shape: &'a [u64]) -> SourceTensor<'a> {
    SourceTensor { name, dtype: Dtype::BF16, elements: shape.iter().product(), shape }
}

fn planned(tensors: &[SourceTensor], patterns: Value) -> Plan {
    let patterns = Patterns::parse(&patterns.to_string()).unwrap();
    let mut plan = plan(tensors, &patterns, false).unwrap();
    extend(&mut plan, tensors, &RunSizes::default());
    // Whatever is chosen, every tensor has one place.
    let mut places: Vec<usize> = plan.groups.iter().flat_map(|g| g.members.clone()).chain(plan.plain.clone()).collect();
    places.extend(plan.in_runs.iter().map(|planned| planned.tensor));
    places.sort_unstable();
    assert!(places.iter().copied().eq(0..tensors.len()), "{plan:?}");
    plan
}

/// Returns the lengths of a tensor's runs, each with how often it follows itself.
fn lengths(shape: &[u64]) -> Vec<(u64, usize)> {
    let plan = planned(&[tensor("t", shape)], json!({ "none": [] }));
    let [planned] = &plan.in_runs[..] else { panic!("{plan:?}") };
    let (mut end, mut lengths) = (0, Vec::<(u64, usize)>::new());
    for (i, run) in planned.runs.iter().enumerate() {
        assert_eq!((&run.group[..], run.first), (&format!("t.run_{i}")[..], end));
        end += run.count;
        match lengths.last_mut() {
            Some((length, times)) if *length == run.count => *times += 1,
            _ => lengths.push((run.count, 1)),
        }
    }
    assert_eq!(end, shape.iter().product::<u64>());
    lengths
}

#[test]
fn cuts_are_between_experts() {
    // Llama 4 Maverick, gpt-oss-20b: an expert each. Qwen3-VL-30B-A3B: a few.
    assert_eq!(lengths(&[128, 5120, 16384]), [(5120 * 16384, 128)]);
    assert_eq!(lengths(&[32, 2880, 5760]), [(2880 * 5760, 32)]);
    assert_eq!(lengths(&[128, 2048, 1536]), [(3 * 2048 * 1536, 42), (2 * 2048 * 1536, 1)]);
    assert_eq!(lengths(&[128, 768, 2048]), [(6 * 768 * 2048, 21), (2 * 768 * 2048, 1)]);
    // Less than one run, and experts of more weights than a run may have.
    assert_eq!(lengths(&[4, 100, 300]), [(120_000, 1)]);
    assert_eq!(lengths(&[3, 1 << 20, 1 << 12]), [(1 << 23, 3 << 9)]);
    assert_eq!(lengths(&[2, 3, 1 << 33]), [(1 << 23, 6 << 10)]);
    assert_eq!(lengths(&[8, (1 << 31) - 1, 1]), [((1 << 31) - 1, 8)]);
}

#[test]
fn matrices_are_cut_between_rows() {
    let rows = (1u64 << 28).div_ceil(20_000);
    assert_eq!(lengths(&[256_000, 20_000]), [(rows * 20_000, 19), (256_000 * 20_000 - 19 * rows * 20_000, 1)]);
    assert_eq!(lengths(&[1000, 1000]), [(1_000_000, 1)]);
    assert_eq!(lengths(&[1 << 33]), [(1 << 28, 32)]);
}

fn names<'a>(plan: &Plan, tensors: &[SourceTensor<'a>]) -> Vec<&'a str> {
    plan.in_runs.iter().map(|planned| tensors[planned.tensor].name).collect()
}

#[test]
fn what_the_format_cannot_name_or_hold() {
    let layer = |name| tensor(name, &[1000, 1000]);
    let tensors = [
        layer("l.0.a.weight"),
        tensor("l.0.experts.up", &[16, 100, 1000]),
        // Small ones, vectors, other types.
        tensor("l.0.experts.scales", &[16, 100]),
        tensor("l.0.experts.bias", &[100_000]),
        SourceTensor { dtype: Dtype::F32, ..tensor("l.0.experts.rows", &[16, 100, 1000]) },
        // What a pattern could have named, but does not.
        layer("other.weight"),
        // Too large, alone and together with others.
        tensor("embed.weight", &[1 << 20, 1 << 12]),
        tensor("m.a.weight", &[1 << 20, 1 << 11]),
        tensor("m.b.weight", &[1 << 20, 1 << 11]),
        tensor("m.c.weight", &[10, 10]),
        // The reference's format cannot hold these either, and no format can.
        tensor("n.a.weight", &[1 << 20, 1 << 12]),
        SourceTensor { dtype: Dtype::F16, ..layer("n.b.weight") },
        // Another tensor's module: the groups' names could be taken.
        tensor("odd", &[1000, 1000]),
        layer("odd.run_0.weight"),
    ];
    let patterns = json!({ r"l\.\d": ["a"], "embed": [], "m": ["a", "b", "c"], "n": ["a", "b"] });
    let plan = planned(&tensors, patterns);
    let found = names(&plan, &tensors);
    assert_eq!(found, ["embed.weight", "l.0.experts.up", "m.a.weight", "m.b.weight", "n.a.weight"]);
    assert_eq!(plan.groups.len(), 1);
    let left: Vec<_> = plan.left.iter().map(|left| (&left.group[..], &left.tensors[..])).collect();
    assert_eq!(left, [("n", &[11][..])]);
    assert_eq!(plan.group_count(), 1 + 16 + 1 + 8 + 8 + 16);
}

/// A model that other programs read whole is worth more than a hundredth of its bytes.
#[test]
fn little_is_not_worth_it() {
    for (rows, expected) in [(999, 0), (1001, 1)] {
        let shapes = [[99_000, 100], [rows, 100]];
        let tensors = [tensor("a.weight", &shapes[0]), tensor("b", &shapes[1])];
        assert_eq!(planned(&tensors, json!({ "a": [] })).in_runs.len(), expected, "{rows}");
    }
}

/// In a small model small tensors count.
#[test]
fn small_is_relative() {
    for (rows, expected) in [(9, 0), (11, 1)] {
        let shapes = [[1000, 100], [rows, 10], [20, 100]];
        let [a, b, c] = [0, 1, 2].map(|i| &shapes[i][..]);
        let tensors = [tensor("a.weight", a), tensor("b", b), tensor("c", c)];
        let plan = planned(&tensors, json!({ "a": [] }));
        assert_eq!(plan.in_runs.len(), 1 + expected, "{rows}");
    }
}
