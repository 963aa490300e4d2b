//! What goes into which group, and in which file.

use df11::internals::writer::plan::{Dropped, Left, Patterns, PlainReason, Plan, SourceTensor, is_tied, place, plan};
use df11::{Dtype, Status};
use serde_json::{Value, json};

fn bf16(name: &str) -> SourceTensor<'_> {
    SourceTensor { name, dtype: Dtype::BF16, elements: 100, shape: &[10, 10] }
}

fn patterns(json: Value) -> Patterns {
    Patterns::parse(&json.to_string()).unwrap()
}

/// Groups as text: each one's name, and its tensors' names behind it.
fn groups(plan: &Plan, tensors: &[SourceTensor]) -> Vec<String> {
    let text = |g: &df11::internals::writer::plan::PlannedGroup| {
        let members: Vec<&str> = g.members.iter().map(|&m| tensors[m].name).collect();
        format!("{}: {}", g.name, members.join(" "))
    };
    plan.groups.iter().map(text).collect()
}

#[track_caller]
fn refused(tensors: &[SourceTensor], dict: Value, parts: &[&str]) {
    let error = plan(tensors, &patterns(dict), false).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    for part in parts {
        assert!(error.to_string().contains(part), "no '{part}' in: {error}");
    }
}

#[test]
fn a_dict_is_read_from_either_place_and_given_back() {
    let text = r#"{"z":[],"a\\.\\d++":["q.k","b"],"b.c":["x"]}"#;
    let dict: Value = serde_json::from_str(text).unwrap();
    let whole = json!({"model_type": "x", "dfloat11_config": {"version": "0.5.0", "pattern_dict": dict}});
    let alone = json!({"pattern_dict": dict});
    for json in [&dict, &alone, &whole] {
        assert_eq!(Patterns::parse(&json.to_string()).unwrap().to_json(), text);
    }
    let read = patterns(dict);
    assert_eq!(
        (read.find("a.12"), read.find("b.c"), read.find("bxc"), read.find("a.12.b")),
        (Some(1), Some(2), Some(2), None)
    );
    assert_eq!((read.entries()[1].text(), &read.entries()[1].attributes()[0][..]), (r"a\.\d++", "q.k"));
}

#[test]
fn odd_dicts_are_refused() {
    let many: Value = (0..257).map(|i| (format!("p{i}"), json!([]))).collect::<serde_json::Map<_, _>>().into();
    let long: Vec<String> = (0..1025).map(|i| i.to_string()).collect();
    for (dict, part) in [
        (json!([]), "not an object"),
        (json!({}), "has no pattern"),
        (many, "more than 256 patterns"),
        (json!({"model_type": "llama"}), "a model that is not compressed"),
        (json!({"dfloat11_config": {"version": "0.5.0"}}), "dfloat11_config.pattern_dict"),
        (json!({"pattern_dict": {"a": "b"}}), "['a'] is not a list of texts"),
        (json!({"a": [1]}), "['a'] is not a list of texts"),
        (json!({"a": ["b", "c", "b"]}), "'b' twice"),
        (json!({"a(": []}), "unclosed"),
        (json!({"(?!a)b": []}), "look-around"),
        (json!({"a": long}), "longer than 1024"),
    ] {
        let error = Patterns::parse(&dict.to_string()).unwrap_err();
        assert!(error.status() == Status::InvalidArgument && error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn groups_are_the_lists_in_natural_order() {
    let tensors = [
        "head.weight",
        "l.10.a.weight",
        "l.10.b.weight",
        "l.10.norm.weight",
        "l.2.b.weight",
        "l.2.a.weight",
        "l.2.a.bias",
        "norm.weight",
        "scale",
    ]
    .map(bf16);
    let dict =
        patterns(json!({"never": ["a"], "head": [], "l\\.\\d+": ["b", "a"], "l\\.[0-9]+": ["norm"], "scale": []}));
    let plan = plan(&tensors, &dict, false).unwrap();
    assert_eq!(
        groups(&plan, &tensors),
        ["head: head.weight", "l.2: l.2.b.weight l.2.a.weight", "l.10: l.10.b.weight l.10.a.weight"]
    );
    assert_eq!(
        plan.groups.iter().map(|g| (g.pattern, g.tied)).collect::<Vec<_>>(),
        [(1, false), (2, false), (2, false)]
    );
    assert_eq!(plan.plain, [3, 6, 7, 8]);
    assert_eq!(plan.unmatched_patterns, ["never", "l\\.[0-9]+", "scale"]);
    assert!(plan.left.is_empty() && plan.dropped.is_empty());
}

/// A module that is a matrix ignores the list; one with nothing of it is no group; one with a part of it is an error.
#[test]
fn modules_that_do_not_have_the_list() {
    let tensors = ["m.0.weight", "m.1.x.weight", "m.2.a.weight", "m.2.b.weight"].map(bf16);
    let plan = plan(&tensors, &patterns(json!({"m\\.\\d+": ["a", "b"]})), false).unwrap();
    assert_eq!(groups(&plan, &tensors), ["m.0: m.0.weight", "m.2: m.2.a.weight m.2.b.weight"]);
    let tensors = ["m.0.a.weight", "m.0.b.weight", "m.1.a.weight"].map(bf16);
    refused(&tensors, json!({"m\\.\\d+": ["a", "b"]}), &["'m.1'", "'b.weight'", "'m\\.\\d+'"]);
    // Readers would call this one `m.0.a.weight`.
    refused(&[bf16("m.0.weight")], json!({"m\\.\\d+": ["a"]}), &["'m.0'", "'a'", "must be empty"]);
}

#[test]
fn groups_do_not_nest() {
    let tensors = ["v.x.weight", "v.l.0.a.weight", "v.l.0.b.weight"].map(bf16);
    refused(&tensors, json!({"v": ["x"], "v\\.l\\.0": ["a", "b"]}), &["'v'", "'v.l.0'"]);
    refused(&tensors, json!({"v\\.l": ["0.a"], "v\\.l\\.0": ["a", "b"]}), &["'v.l'", "'v.l.0'"]);
}

#[test]
fn sources_that_cannot_be() {
    refused(&["a.weight", "a.weight"].map(bf16), json!({"a": []}), &["'a.weight' twice"]);
    refused(&["a.luts", "a.gaps"].map(bf16), json!({"a": []}), &["compressed already", "'a'"]);
    refused(&["a.weight", "a.gaps"].map(bf16), json!({"a": []}), &["'a.gaps'", "'a'"]);
    // Elsewhere it is a name like any other. A name that begins with a dot is in no module.
    let tensors = ["a.weight", "b.gaps", ".weight", ".gaps"].map(bf16);
    assert_eq!(plan(&tensors, &patterns(json!({"a": [], "": []})), false).unwrap().groups.len(), 1);
}

/// A group that cannot be is left as a whole, with the tensor that is to blame.
#[test]
fn what_cannot_be_compressed_is_left_whole() {
    let of = |dtype, elements| SourceTensor { dtype, elements, ..bf16("m.b.weight") };
    let too_many = "4294967296 weights, 4294967196 of them in the tensor 'm.b.weight'";
    for (second, kind, part) in [
        (of(Dtype::F32, 100), PlainReason::OtherType, "'m.b.weight' is F32"),
        (of(Dtype::F8_E4M3, 100), PlainReason::OtherType, "'m.b.weight' is F8_E4M3"),
        (of(Dtype::BF16, (1 << 32) - 100), PlainReason::Format, too_many),
        (of(Dtype::BF16, u64::MAX), PlainReason::Format, "'m.b.weight'"),
    ] {
        let tensors = [bf16("m.a.weight"), second, bf16("n.weight")];
        let plan = plan(&tensors, &patterns(json!({"m": ["b", "a"], "n": []})), false).unwrap();
        let [Left { tensors: left, group, reason, why }] = &plan.left[..] else { panic!("{plan:?}") };
        assert_eq!((&left[..], &group[..], plan.groups.len(), &plan.plain[..]), (&[1, 0][..], "m", 1, &[0, 1][..]));
        assert!(*why == kind && reason.contains(part), "{reason}");
        assert!(plan.unmatched_patterns.is_empty());
    }
    let none = SourceTensor { elements: 0, ..bf16("n.weight") };
    assert_eq!(plan(&[none], &patterns(json!({"n": []})), false).unwrap().left.len(), 1);
    let most = SourceTensor { elements: (1 << 32) - 1, ..bf16("n.weight") };
    assert_eq!(plan(&[most, none_of("n.x")], &patterns(json!({"n": []})), false).unwrap().left.len(), 0);
}

fn none_of(name: &str) -> SourceTensor<'_> {
    SourceTensor { elements: 0, ..bf16(name) }
}

/// The embedding and the head: stored both or only the first, the dict with the head or without it, tied or not.
#[test]
fn tied_models() {
    let both = ["model.embed_tokens.weight", "lm_head.weight", "model.layers.0.q.weight"].map(bf16);
    let one = ["model.embed_tokens.weight", "model.layers.0.q.weight"].map(bf16);
    let with = patterns(json!({"lm_head": [], "model\\.embed_tokens": [], "model\\.layers\\.\\d+": ["q"]}));
    let without = patterns(json!({"model\\.layers\\.\\d+": ["q"]}));

    let made = plan(&one, &with, true).unwrap();
    assert_eq!(
        groups(&made, &one),
        [
            "lm_head: model.embed_tokens.weight",
            "model.embed_tokens: model.embed_tokens.weight",
            "model.layers.0: model.layers.0.q.weight"
        ]
    );
    assert_eq!(made.groups.iter().map(|g| g.tied).collect::<Vec<_>>(), [true, false, false]);
    assert!(made.plain.is_empty() && made.dropped.is_empty() && made.unmatched_patterns.is_empty());

    let made = plan(&one, &without, true).unwrap();
    assert_eq!((made.groups.len(), &made.plain[..], made.dropped.len()), (1, &[0][..], 0));

    for tied in [true, false] {
        let made = plan(&both, &with, tied).unwrap();
        assert_eq!((made.groups.len(), made.plain.len(), made.dropped.len()), (3, 0, 0));
        assert!(made.groups.iter().all(|g| !g.tied) && made.groups[0].members == [1]);
    }

    let made = plan(&both, &without, true).unwrap();
    assert_eq!((made.groups.len(), &made.plain[..]), (1, &[0, 1][..]));
    assert_eq!(made.dropped, [Dropped { tensor: 1, embedding: 0 }]);
    assert!(plan(&both, &without, false).unwrap().dropped.is_empty());
    assert_eq!(plan(&one, &with, false).unwrap().unmatched_patterns, ["lm_head"]);

    // A head of its own size is no copy; one that the dict's embedding is gone for must stay.
    let mut unlike = both;
    unlike[1].elements = 7;
    assert!(plan(&unlike, &without, true).unwrap().dropped.is_empty());
    let only_embedding = patterns(json!({"model\\.embed_tokens": []}));
    assert!(plan(&both, &only_embedding, true).unwrap().dropped.is_empty());
    // The embedding in no group of its own is stored beside the head's.
    let only_head = plan(&one, &patterns(json!({"lm_head": []})), true).unwrap();
    assert_eq!((only_head.groups.len(), &only_head.plain[..]), (1, &[0, 1][..]));
    // What is left is left for both.
    let f32 = [SourceTensor { dtype: Dtype::F32, ..one[0] }];
    let names: Vec<String> = plan(&f32, &with, true).unwrap().left.into_iter().map(|l| l.group).collect();
    assert_eq!(names, ["lm_head", "model.embed_tokens"]);
}

#[test]
fn heads_with_prefixes() {
    for (embedding, head, is_head) in [
        ("language_model.model.embed_tokens.weight", "language_model.lm_head", true),
        ("language_model.model.embed_tokens.weight", "lm_head", true),
        ("model.language_model.embed_tokens.weight", "lm_head", true),
        ("embed_tokens.weight", "lm_head", true),
        ("model.embed_tokens.weight", "model.lm_head", false),
        ("model.embed_tokens.weight", "other.lm_head", false),
        ("model.xembed_tokens.weight", "lm_head", false),
    ] {
        let made = plan(&[bf16(embedding)], &patterns(json!({head: []})), true).unwrap();
        assert_eq!(made.groups.len() == 1 && made.groups[0].name == head, is_head, "{embedding} {head}");
        let stored = format!("{head}.weight");
        let made = plan(&[bf16(embedding), bf16(&stored)], &patterns(json!({"x": []})), true).unwrap();
        assert_eq!(made.dropped.len() == 1, is_head, "{embedding} {head}");
    }
    // Of two embeddings none is known to be meant.
    let two = ["model.embed_tokens.weight", "audio.embed_tokens.weight"].map(bf16);
    assert!(plan(&two, &patterns(json!({"lm_head": []})), true).unwrap().groups.is_empty());
}

#[test]
fn what_is_tied() {
    let (one, both) =
        (["model.embed_tokens.weight"].map(bf16), ["model.embed_tokens.weight", "lm_head.weight"].map(bf16));
    for (config, of_one, of_both) in [
        (json!({"tie_word_embeddings": true}), true, true),
        (json!({"tie_word_embeddings": false}), false, false),
        (json!({"text_config": {"tie_word_embeddings": true}}), true, true),
        (json!({"tie_word_embeddings": false, "text_config": {"tie_word_embeddings": true}}), false, false),
        (json!({"tie_word_embeddings": null, "text_config": {}}), true, false),
        (json!({}), true, false),
    ] {
        assert_eq!((is_tied(Some(&config), &one), is_tied(Some(&config), &both)), (of_one, of_both), "{config}");
    }
    assert!(is_tied(None, &one) && !is_tied(None, &[bf16("lm_head.weight")]) && !is_tied(None, &[]));
}

#[test]
fn files_are_placed_as_the_reference_does() {
    let tensors = [
        "lm_head.weight",
        "lm_head.bias",
        "model.layers.1.q.weight",
        "model.layers.1.q.bias",
        "model.layers.1.norm.weight",
        "model.layers.10.q.weight",
        "model.layers.2.norm.weight",
        "model.norm.weight",
        "lm_head",
    ]
    .map(bf16);
    let dict = patterns(json!({"lm_head": [], "model\\.layers\\.\\d+": ["q"]}));
    let made = plan(&tensors, &dict, false).unwrap();
    let placed = place(&tensors, &made, "model");
    assert_eq!(placed.stems, ["lm_head", "model_layers_1", "model_layers_10"]);
    assert_eq!(placed.files, [Some(0), Some(0), Some(1), Some(1), Some(1), Some(2), None, None, None]);
}

/// No two files have one name, none leaves the folder, and none has a name that is too long.
#[test]
fn stems_are_distinct_and_harmless() {
    let long = format!("{}.weight", "é".repeat(300));
    let names = [
        "a.b.weight",
        "a_b.weight",
        "A_B.weight",
        "model.weight",
        "/etc/x.weight",
        "..\\c:.weight",
        "a\n\0.weight",
        "-rf.weight",
        &long,
    ];
    let tensors = names.map(bf16);
    let made = plan(&tensors, &patterns(json!({"(?s).*": []})), false).unwrap();
    let stems = place(&tensors, &made, "model").stems;
    assert_eq!(stems.len(), names.len());
    for stem in &stems {
        assert!(!stem.contains(['/', '\\', '.', ':', '\n', '\0']) && !stem.is_empty() && stem.len() < 220, "{stem}");
        assert_eq!(stems.iter().filter(|s| s.eq_ignore_ascii_case(stem)).count(), 1, "{stem}");
        assert_ne!(stem, "model");
    }
    assert!(!stems.iter().any(|stem| stem.starts_with('-')), "an option of most programs: {stems:?}");
    for stem in ["A_B", "a_b-2", "a_b-3", "model-2", "_etc_x", "_rf"] {
        assert!(stems.iter().any(|s| s == stem), "{stem}: {stems:?}");
    }
}
