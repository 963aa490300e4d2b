//! Faults of the lists that name what the weights of groups are: docs/format.md, "Groups with names and runs".

use df11::Status;
use df11::internals::format::{GROUPS_KEY, SHAPES_KEY};

use super::support::encoder::{self, Encoded, Tensor};
use super::{Case, Files, Step, base, cycle, members, open_fails};

/// The groups `layer`, of 16 and 24 weights, and `more`, of 10.
fn tensors() -> Vec<Tensor> {
    [members(&base()), encoder::group_tensors("more", &encoder::encode(&cycle(&[120, 121], 10), &[]))].concat()
}

fn file(tensors: &[Tensor], groups: &str, shapes: &str) -> Vec<u8> {
    let metadata = [(GROUPS_KEY, groups), (SHAPES_KEY, shapes)].map(|(key, text)| (key.to_owned(), text.to_owned()));
    encoder::safetensors(tensors, Some(&metadata))
}

/// The tensor `a` has 26 elements, the last ten of them in the group `more`, and `b` has 24.
const GOOD: &str = r#"{"layer": [["a", 0], ["b", 0]], "more": [["a", 16]]}"#;
const SHAPES: &str = r#"{"a": [2, 13], "b": [24]}"#;

/// Makes a case of the lists.
fn lists(name: &'static str, groups: &str, status: Status) -> Case {
    open_fails(name, file(&tensors(), groups, SHAPES), status)
}

/// Makes a case of the shapes of what the good lists name.
fn listed_shapes(name: &'static str, shapes: &str, status: Status) -> Case {
    open_fails(name, file(&tensors(), GOOD, shapes), status)
}

pub fn runs() -> Vec<Case> {
    use Status::{Corrupt, InvalidFormat};
    let no_lists = |name, groups| lists(name, groups, InvalidFormat).says(&[GROUPS_KEY, "is not valid"]);
    let empty_run = |name, cut: i64, says: &str, byte| {
        let e = Encoded { split_positions: vec![cut], ..base() };
        let tensors = [encoder::group_tensors("layer", &e), tensors().split_off(6)].concat();
        open_fails(name, file(&tensors, GOOD, SHAPES), Corrupt).says(&[says]).at("layer.split_positions", byte)
    };
    let two = |name, a: (&str, &str), b: (&str, &str), status| {
        let [layer, more] = [tensors()[..6].to_vec(), tensors()[6..].to_vec()];
        let files = vec![("a.safetensors", file(&layer, a.0, a.1)), ("b.safetensors", file(&more, b.0, b.1))];
        Case::new(name, Files::Folder(files), Step::Open, status)
    };
    let (of_layer, of_more) = (r#"{"layer": [["a", 0], ["b", 0]]}"#, r#"{"more": [["a", 16]]}"#);
    let with_plain = |name: &str| {
        let plain = (name.to_owned(), "U8", vec![1], vec![0]);
        file(&[tensors(), vec![plain]].concat(), GOOD, SHAPES)
    };
    let of_another = {
        let lists = r#"{"layer": [["a", 0], ["more.weight", 0]]}"#;
        file(&tensors(), lists, r#"{"a": [16], "more.weight": [24]}"#)
    };
    vec![
        no_lists("runs_no_json", "{"),
        no_lists("runs_of_a_list", "[]"),
        no_lists("runs_of_texts", r#"{"layer": ["a", "b"]}"#),
        no_lists("run_of_one_value", r#"{"layer": [["a"], ["b"]]}"#),
        no_lists("run_of_three_values", r#"{"layer": [["a", 0, 16], ["b", 0, 24]]}"#),
        no_lists("run_from_a_text", r#"{"layer": [["a", "0"], ["b", 0]]}"#),
        no_lists("run_from_a_negative", r#"{"layer": [["a", -1], ["b", 0]]}"#),
        no_lists("run_from_a_fraction", r#"{"layer": [["a", 0.5], ["b", 0]]}"#),
        no_lists("run_from_2_64", r#"{"layer": [["a", 18446744073709551616], ["b", 0]]}"#),
        no_lists("runs_nested_deeply", &"[".repeat(3_000)).says(&["32 levels"]),
        lists("runs_of_a_group_that_is_not_there", r#"{"layer": [["a", 0], ["b", 0]], "none": []}"#, InvalidFormat)
            .says(&["does not have it"])
            .names("none"),
        lists("runs_of_a_group_twice", &format!("{}, {}", &of_more[..20], &of_more[1..]), InvalidFormat)
            .says(&[GROUPS_KEY, "'more' twice"]),
        two("runs_of_a_group_in_two_files", (of_more, "{}"), (of_more, "{}"), InvalidFormat)
            .says(&["a second time"])
            .in_file("b.safetensors")
            .names("more"),
        lists("runs_one_too_many", r#"{"layer": [["a", 0], ["b", 0], ["c", 0]]}"#, InvalidFormat)
            .says(&["lists 3 runs", "it has 2"])
            .at("layer.split_positions", 0),
        lists("runs_missing", r#"{"layer": []}"#, InvalidFormat)
            .says(&["lists 0 runs", "it has 2"])
            .at("layer.split_positions", 0),
        empty_run("run_of_no_weight_at_the_beginning", 0, "run 0, of 'a', has no weight", 0),
        empty_run("run_of_no_weight_at_the_end", 40, "run 1, of 'b', has no weight", 0),
        lists("run_missing_at_the_beginning", r#"{"layer": [["a", 2], ["b", 0]], "more": [["a", 18]]}"#, Corrupt)
            .says(&["no group has its elements 0 to 1"])
            .names("a"),
        lists("run_missing_in_the_middle", r#"{"layer": [["a", 0], ["b", 0]], "more": [["a", 17]]}"#, Corrupt)
            .says(&["'more' has 10 of its elements from 17 on", "it has 26"])
            .names("a"),
        lists("run_missing_at_the_end", r#"{"layer": [["a", 0], ["b", 0]]}"#, Corrupt)
            .says(&["no group has its elements 16 to 25"])
            .names("a"),
        listed_shapes("run_missing_between_two", r#"{"a": [5, 8], "b": [24]}"#, Corrupt)
            .says(&["no group has its elements 26 to 39"])
            .names("a"),
        lists("runs_overlap", r#"{"layer": [["a", 0], ["b", 0]], "more": [["a", 15]]}"#, Corrupt)
            .says(&["its elements from 15 on are there twice", "'layer'", "'more'"])
            .names("a"),
        lists("run_twice", r#"{"layer": [["a", 0], ["a", 0]]}"#, Corrupt)
            .says(&["its elements from 0 on are there twice"])
            .names("a"),
        lists(
            "run_from_2_64_minus_1",
            r#"{"layer": [["a", 0], ["b", 0]], "more": [["a", 18446744073709551615]]}"#,
            Corrupt,
        )
        .says(&["10 of its elements from 18446744073709551615 on"])
        .names("a"),
        listed_shapes("run_behind_the_end_of_its_tensor", r#"{"a": [25], "b": [24]}"#, Corrupt)
            .says(&["'more' has 10 of its elements from 16 on", "it has 25 by its shape"])
            .names("a"),
        listed_shapes("shape_of_a_run_missing", r#"{"a": [26]}"#, InvalidFormat)
            .says(&[GROUPS_KEY, SHAPES_KEY])
            .names("b"),
        listed_shapes("shape_of_a_run_wraps", r#"{"a": [26], "b": [4294967296, 4294967296, 24]}"#, Corrupt)
            .says(&["too many elements"])
            .names("b"),
        listed_shapes("shape_of_a_run_with_bytes_that_wrap", r#"{"a": [26], "b": [9223372036854775808]}"#, Corrupt)
            .says(&["too many elements"])
            .names("b"),
        two("shapes_of_a_run_differ", (of_layer, SHAPES), (of_more, r#"{"a": [13, 2]}"#), InvalidFormat)
            .says(&["[13, 2]", "[2, 13]"])
            .in_file("b.safetensors")
            .names("a"),
        open_fails("run_of_a_plain_tensor", with_plain("a"), InvalidFormat)
            .says(&["two tensors have this name"])
            .names("a"),
        // A group that is not listed has its tensor's name from its own.
        open_fails("run_of_a_tensor_of_another_group", of_another, InvalidFormat)
            .says(&["two tensors have this name"])
            .names("more.weight"),
        lists("run_of_a_name_with_a_zero_byte", r#"{"layer": [["a\u0000b", 0], ["b", 0]]}"#, InvalidFormat)
            .says(&["contains a zero byte"])
            .at("layer.split_positions", 0),
        lists(
            "run_of_a_name_of_3000_bytes",
            &format!(r#"{{"layer": [["{}", 0], ["b", 0]]}}"#, "n".repeat(3_000)),
            InvalidFormat,
        )
        .says(&["name has 3000 bytes"])
        .at("layer.split_positions", 0),
    ]
}
