//! Faults of containers, of types and shapes of a group's tensors, and of configs.

use df11::Status;
use df11::internals::format::SHAPES_KEY;

use super::support::encoder;
use super::{
    Case, Files, Step, base, config, corrupt, file, folder, hashes, invalid, members, named, open_fails, plain,
    retyped, shapes, spoilt, tensor, two_rows,
};

pub fn containers() -> Vec<Case> {
    let good = file(&base());
    let header_len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let sized = |size: u64| [&size.to_le_bytes()[..], b"{}"].concat();
    let tensor = |rest: &str| format!(r#"{{"a":{{"dtype":"U8",{rest}}}}}"#);
    let two = |a: [u64; 2], b: [u64; 2]| {
        plain(&format!(
            r#"{{"a":{{"dtype":"U8","shape":[{}],"data_offsets":{a:?}}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":{b:?}}}}}"#,
            a[1].wrapping_sub(a[0]),
            b[1].wrapping_sub(b[0])
        ))
    };
    // Eight tensors that are each small enough for the safetensors crate, and together almost 2^64 bytes.
    let eighth = (1u64 << 61) - 1;
    let near_2_64: Vec<String> = (0..8)
        .map(|i| {
            let (from, to) = (i * eighth, (i + 1) * eighth);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{eighth}],"data_offsets":[{from},{to}]}}"#)
        })
        .collect();
    let twice_named = |name, names: [&str; 2], at: [[u64; 2]; 2]| {
        let [a, b] = [0, 1].map(|i| {
            let (name, [from, to]) = (names[i], at[i]);
            format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, to - from)
        });
        invalid(name, plain(&format!("{{{a},{b}}}"))).says(&["the header has this name twice"]).names("w")
    };
    let header =
        |name, text: &str| invalid(name, plain(text)).says(&["the safetensors header is not valid", "at byte 8]"]);
    vec![
        invalid("file_empty", vec![]).says(&["the file is empty"]),
        // Files of other kinds, under the name of a model.
        invalid(
            "file_git_lfs_pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff\nsize 5368709120\n"
                .to_vec(),
        )
        .says(&["a Git LFS pointer", "`git lfs pull`"]),
        invalid("file_web_page", b"<!DOCTYPE html><html><head><title>401</title></head></html>".to_vec())
            .says(&["a web page"]),
        invalid("file_gguf", b"GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0".to_vec()).says(&["a GGUF file"]),
        invalid("file_zip", b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl".to_vec()).says(&["a zip archive", "PyTorch"]),
        invalid("file_pickle", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec()).says(&["a pickle", "PyTorch"]),
        invalid("file_of_zeros", vec![0; 64]).says(&["begins with zeros"]),
        invalid("file_of_seven_bytes", vec![2, 0, 0, 0, 0, 0, 0]).says(&["7 bytes are too few for a header"]),
        invalid("header_size_2_64", sized(u64::MAX)).says(&["should have 18446744073709551615 bytes"]),
        invalid("header_size_2_63", sized(1 << 63)).says(&["should have 9223372036854775808 bytes"]),
        invalid("header_size_wraps_to_the_file", sized(u64::MAX - 7)).says(&["should have 18446744073709551608 bytes"]),
        invalid("header_size_over_100_mb", sized(100_000_001)).says(&["should have 100000001 bytes"]),
        invalid("header_size_one_too_many", sized(3)).says(&["should have 3 bytes", "the file has 10"]),
        invalid("header_cut_short", good[..8 + header_len / 2].to_vec()).says(&["not a whole safetensors file"]),
        invalid("payload_cut_short", good[..good.len() - 1].to_vec()).says(&["cut short"]),
        invalid("payload_missing", good[..8 + header_len].to_vec()).says(&["cut short"]),
        invalid("trailing_byte", [&good[..], &[0]].concat()).says(&["too long"]),
        invalid("header_not_utf8", [&3u64.to_le_bytes()[..], b"{\xff}"].concat())
            .says(&["the safetensors header is not valid"]),
        header("header_no_json", "{]"),
        header("header_is_a_list", "[]"),
        header("header_with_text_behind", "{}x"),
        header("header_nested_deeply", &format!(r#"{{"a":{}"#, "[".repeat(3_000))).says(&["32 levels"]),
        header("header_nested_deeply_in_the_metadata", &format!(r#"{{"__metadata__":{}"#, r#"{"a":"#.repeat(3_000))),
        header("metadata_of_numbers", r#"{"__metadata__":{"a":1}}"#),
        header("dtype_unknown", r#"{"a":{"dtype":"U9","shape":[4],"data_offsets":[0,4]}}"#).says(&["U9"]),
        header("dtype_with_control_characters", r#"{"a":{"dtype":"\u001b[2J\n","shape":[4],"data_offsets":[0,4]}}"#),
        header("shape_missing", &tensor(r#""data_offsets":[0,4]"#)).says(&["shape"]),
        header("shape_negative", &tensor(r#""shape":[-4],"data_offsets":[0,4]"#)),
        header("shape_of_fractions", &tensor(r#""shape":[4.0],"data_offsets":[0,4]"#)),
        header("shape_of_2_64", &tensor(r#""shape":[18446744073709551616],"data_offsets":[0,4]"#)),
        header("shape_product_overflows", &tensor(r#""shape":[4294967296,4294967296,4],"data_offsets":[0,4]"#)),
        header("shape_bits_overflow", &tensor(r#""shape":[2305843009213693952],"data_offsets":[0,0]"#)),
        header("shape_of_half_bytes", r#"{"a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}}"#),
        header("offsets_of_another_size_than_the_shape", &tensor(r#""shape":[5],"data_offsets":[0,4]"#)),
        header("offsets_reversed", &tensor(r#""shape":[4],"data_offsets":[4,0]"#)),
        header("offsets_start_late", &tensor(r#""shape":[3],"data_offsets":[1,4]"#)),
        header("offsets_of_three", &tensor(r#""shape":[4],"data_offsets":[0,4,4]"#)),
        header("offsets_negative", &tensor(r#""shape":[4],"data_offsets":[-4,0]"#)),
        invalid("offsets_overlap", two([0, 3], [2, 4])).says(&["the safetensors header is not valid"]),
        invalid("offsets_with_a_hole", two([0, 1], [2, 4])).says(&["the safetensors header is not valid"]),
        invalid("offsets_beyond_the_file", two([0, 4], [4, 1 << 40])).says(&["cut short"]),
        // Their end, counted from the start of the file, does not fit 64 bits.
        invalid("offsets_near_2_64", plain(&format!("{{{}}}", near_2_64.join(",")))),
        twice_named("name_twice", ["w", "w"], [[0, 4], [0, 4]]),
        twice_named("name_twice_of_which_one_is_escaped", ["w", r"\u0077"], [[0, 4], [0, 4]]),
        // The first entry alone would leave a hole, or the last would.
        twice_named("name_twice_in_two_places", ["w", "w"], [[0, 2], [2, 4]]),
        twice_named("name_twice_of_which_one_is_empty", ["w", "w"], [[0, 0], [0, 4]]),
        header("dtype_twice", r#"{"a":{"dtype":"F32","dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#)
            .says(&["duplicate field `dtype`"]),
        header("metadata_twice", r#"{"__metadata__":{},"__metadata__":{"a":"b"}}"#).says(&["'__metadata__' twice"]),
        header("metadata_with_a_key_twice", r#"{"__metadata__":{"k":"a","\u006b":"b"}}"#).says(&["'k' twice"]),
        header("shape_of_65_dimensions", &tensor(&format!(r#""shape":[4{}],"data_offsets":[0,4]"#, ",1".repeat(64))))
            .says(&["more than 64 dimensions"]),
        invalid("name_with_a_zero_byte", plain(r#"{"a\u0000b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#))
            .says(&["contains a zero byte"])
            .names(r"a\u{0}b"),
        Case::new(
            "tensor_in_two_files",
            Files::Folder(vec![
                ("a.safetensors", plain(r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#)),
                ("b.safetensors", plain(r#"{"x":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#)),
            ]),
            Step::Open,
            Status::InvalidFormat,
        )
        .says(&["two files have this tensor", "a.safetensors'"])
        .in_file("b.safetensors")
        .names("x"),
        Case::new(
            "folder_without_tensors",
            Files::Folder(vec![("config.json", b"{}".to_vec()), ("model.bin", vec![0])]),
            Step::Open,
            Status::InvalidFormat,
        )
        .says(&["no *.safetensors", "folder_without_tensors'"])
        .in_file("folder_without_tensors"),
        Case::new(
            "one_file_of_two_is_spoilt",
            Files::Folder(vec![("a.safetensors", plain("{}x")), ("b.safetensors", file(&base()))]),
            Step::Open,
            Status::InvalidFormat,
        )
        .in_file("a.safetensors"),
    ]
}

pub fn groups() -> Vec<Case> {
    let mut all = Vec::new();
    let missing = [
        ("missing_luts", "luts"),
        ("missing_encoded_exponent", "encoded_exponent"),
        ("missing_sign_mantissa", "sign_mantissa"),
        ("missing_output_positions", "output_positions"),
        ("missing_gaps", "gaps"),
        ("missing_split_positions", "split_positions"),
    ];
    for (name, member) in missing {
        let name_of = format!("layer.{member}");
        let file = retyped(|tensors| tensors.retain(|(name, ..)| *name != name_of));
        all.push(invalid(name, file).says(&["lacks one of its six members", "'layer'"]).names(&name_of));
    }
    for (name, key, value) in
        [("df11pack_idx8", "df11pack_index", "idx8"), ("df11pack_luts", "df11pack_luts", "correct")]
    {
        // In place of gaps and positions it has an index of its own.
        let mut tensors = members(&base());
        tensors.retain(|(name, ..)| !name.ends_with("gaps") && !name.ends_with("output_positions"));
        let file = encoder::safetensors(&tensors, Some(&[(key.to_owned(), value.to_owned())]));
        let says = format!("a variant of df11pack ({key} = {value}), which is not DF11");
        all.push(open_fails(name, file, Status::UnsupportedFormat).says(&[&says, "lacks one of its six members"]));
    }
    let retype = |name, member: &str, dtype: &'static str, shape: fn(u64) -> Vec<u64>| {
        let file = retyped(|tensors| {
            tensor(tensors, member, |(_, d, s, bytes)| (*d, *s) = (dtype, shape(bytes.len() as u64)))
        });
        invalid(name, file).says(&["is ", " not "]).at(&format!("layer.{member}"), 0)
    };
    all.extend([
        retype("luts_of_signed_bytes", "luts", "I8", |n| vec![n / 256, 256]),
        retype("luts_of_one_dimension", "luts", "U8", |n| vec![n]),
        retype("luts_of_three_dimensions", "luts", "U8", |n| vec![1, n / 256, 256]),
        retype("encoded_exponent_of_booleans", "encoded_exponent", "BOOL", |n| vec![n]),
        retype("encoded_exponent_of_two_dimensions", "encoded_exponent", "U8", |n| vec![1, n]),
        retype("sign_mantissa_of_bf16", "sign_mantissa", "BF16", |n| vec![n / 2]),
        retype("sign_mantissa_of_two_dimensions", "sign_mantissa", "U8", |n| vec![n, 1]),
        retype("output_positions_of_u32", "output_positions", "U32", |n| vec![n / 4]),
        retype("output_positions_of_two_dimensions", "output_positions", "U8", |n| vec![n / 4, 4]),
        retype("gaps_of_signed_bytes", "gaps", "I8", |n| vec![n]),
        retype("gaps_of_two_dimensions", "gaps", "U8", |n| vec![n / 320, 320]),
        retype("split_positions_of_u64", "split_positions", "U64", |n| vec![n / 8]),
        retype("split_positions_of_bytes", "split_positions", "U8", |n| vec![n]),
        retype("split_positions_without_dimension", "split_positions", "I64", |_| vec![]),
    ]);

    let cuts = |name, cuts: &[i64], bad: usize| {
        let file = spoilt(base(), |e| e.split_positions = cuts.to_vec());
        corrupt(name, file).says(&[&format!("cut {bad} is {}", cuts[bad])]).at("layer.split_positions", 8 * bad)
    };
    all.extend([
        cuts("cut_negative", &[-1], 0),
        cuts("cut_of_minus_2_63", &[i64::MIN], 0),
        cuts("cut_behind_the_end", &[16, 41], 1),
        cuts("cut_of_2_63", &[i64::MAX], 0),
        cuts("cut_of_2_32", &[1 << 32], 0),
        cuts("cuts_falling", &[16, 20, 19], 2),
    ]);

    let lacking = |name, group: &str| {
        let mut tensors = members(&base());
        tensors.iter_mut().for_each(|t| t.0 = t.0.replace("layer", group));
        tensors.retain(|t| !t.0.ends_with(".gaps"));
        invalid(name, encoder::safetensors(&tensors, None)).says(&["lacks one of its six members"])
    };
    let with_plain = |name: &str| {
        let mut tensors = members(&two_rows());
        tensors.push((name.into(), "U8", vec![1], vec![0]));
        encoder::safetensors(&tensors, None)
    };
    all.extend([
        invalid("plain_tensor_named_as_a_packed_one", with_plain("layer.weight"))
            .says(&["two tensors have this name"])
            .names("layer.weight"),
        // A name of a terminal's command, and a long one: the message must stay one line that fits.
        lacking("control_characters_in_a_groups_name", "\u{1b}]0;owned\u{7}\u{1b}[2J\r"),
        lacking("long_name_of_a_group", &"layer".repeat(190)),
        lacking("long_name_in_characters_of_four_bytes", &"\u{1f9e8}".repeat(240)),
        invalid("name_of_3000_bytes", retyped(|tensors| tensors[0].0 = "n".repeat(3_000)))
            .says(&["name has 3000 bytes", "1024 are the most"]),
        shapes("shapes_no_json", "{", Status::InvalidFormat).says(&[SHAPES_KEY, "not valid"]),
        shapes("shapes_negative", r#"{"layer.part_0": [-4, -4]}"#, Status::InvalidFormat).says(&[SHAPES_KEY]),
        shapes("shapes_of_texts", r#"{"layer.part_0": ["4", "4"]}"#, Status::InvalidFormat).says(&[SHAPES_KEY]),
        shapes("shapes_nested_deeply", &"[".repeat(3_000), Status::InvalidFormat).says(&[SHAPES_KEY, "32 levels"]),
        shapes(
            "shapes_with_a_name_twice",
            r#"{"layer.part_0": [4, 4], "layer.part_\u0030": [2, 8]}"#,
            Status::InvalidFormat,
        )
        .says(&[SHAPES_KEY, "'layer.part_0' twice"]),
        shapes("shapes_of_65_dimensions", &format!(r#"{{"x": [4{}]}}"#, ",1".repeat(64)), Status::InvalidFormat)
            .says(&[SHAPES_KEY, "more than 64 dimensions"]),
        hashes("hashes_with_a_name_twice", &format!(r#"{{"x": "{}", "x": "{}"}}"#, "0".repeat(64), "1".repeat(64)))
            .says(&["'x' twice"]),
        hashes("hashes_no_json", "[]").says(&["not valid"]),
        hashes("hashes_of_numbers", r#"{"layer.part_0": [1, 2]}"#),
        hashes("hash_too_short", &format!(r#"{{"layer.part_0": "{}"}}"#, "a".repeat(63)))
            .says(&["'layer.part_0' is not 64 hexadecimal digits"]),
        hashes("hash_of_other_digits", &format!(r#"{{"layer.part_1": "{}"}}"#, "é".repeat(32)))
            .says(&["'layer.part_1' is not 64 hexadecimal digits"]),
        shapes("shape_of_another_product", r#"{"layer.part_0": [4, 4], "layer.part_1": [5, 5]}"#, Status::Corrupt)
            .says(&["[5, 5]", "24 weights"])
            .names("layer.part_1"),
        shapes("shape_whose_product_wraps", r#"{"layer.part_0": [4294967296, 4294967296, 1, 16]}"#, Status::Corrupt)
            .says(&["16 weights"])
            .names("layer.part_0"),
        shapes("shape_without_dimension", r#"{"layer.part_0": []}"#, Status::Corrupt).names("layer.part_0"),
    ]);
    all
}

pub fn configs() -> Vec<Case> {
    use Status::{InvalidFormat, UnsupportedFormat};
    let whole = |name, text: Vec<u8>| {
        let mut files = folder("");
        if let Files::Folder(files) = &mut files {
            files[0].1 = text;
        }
        Case::new(name, files, Step::Open, InvalidFormat).in_file("config.json").says(&["not valid JSON"])
    };
    let pattern = |name, pattern: &str| {
        config(name, &format!(r#"{{"version": "0.5.0", "pattern_dict": {{"{pattern}": []}}}}"#), UnsupportedFormat)
            .says(&["cannot be used"])
    };
    let known = r#""version": "0.5.0", "pattern_dict": {}"#;
    vec![
        whole("config_empty", vec![]),
        whole("config_no_json", b"{'dfloat11_config': {}}".to_vec()),
        whole("config_not_utf8", b"{\"\xff\": 1}".to_vec()),
        whole("config_nested_deeply", "[".repeat(3_000).into_bytes()).says(&["32 levels"]),
        config("config_is_a_list", "[]", InvalidFormat).says(&["not an object"]),
        config("config_is_null", "null", InvalidFormat).says(&["not an object"]),
        config("version_is_a_number", r#"{"version": 0.5, "pattern_dict": {}}"#, InvalidFormat).says(&["a number"]),
        config("version_0_6_0", r#"{"version": "0.6.0", "pattern_dict": {}}"#, UnsupportedFormat).says(&["'0.6.0'"]),
        config("version_0_1_0", r#"{"version": "0.1.0", "pattern_dict": {}}"#, UnsupportedFormat).says(&["'0.1.0'"]),
        config("version_1_5_0", r#"{"version": "1.5.0", "pattern_dict": {}}"#, UnsupportedFormat).says(&["'1.5.0'"]),
        config(
            "version_with_control_characters",
            r#"{"version": "\u001b]0;owned\u0007\u0000\r", "pattern_dict": {}}"#,
            UnsupportedFormat,
        ),
        config(
            "version_of_3000_characters",
            &format!(r#"{{"version": "{}", "pattern_dict": {{}}}}"#, "0".repeat(3_000)),
            UnsupportedFormat,
        ),
        config("threads_256", &format!(r#"{{{known}, "threads_per_block": [256]}}"#), UnsupportedFormat)
            .says(&["threads_per_block is [256]"]),
        config("threads_two_numbers", &format!(r#"{{{known}, "threads_per_block": [512, 1]}}"#), UnsupportedFormat),
        config("threads_none", &format!(r#"{{{known}, "threads_per_block": []}}"#), UnsupportedFormat),
        config("threads_text", &format!(r#"{{{known}, "threads_per_block": ["512"]}}"#), UnsupportedFormat),
        config("threads_nested", &format!(r#"{{{known}, "threads_per_block": [[512]]}}"#), UnsupportedFormat),
        config(
            "threads_of_3000_numbers",
            &format!(r#"{{{known}, "threads_per_block": [{}1]}}"#, "1,".repeat(3_000)),
            UnsupportedFormat,
        ),
        config("bytes_per_thread_16", &format!(r#"{{{known}, "bytes_per_thread": 16}}"#), UnsupportedFormat)
            .says(&["bytes_per_thread is 16"]),
        config("bytes_per_thread_negative", &format!(r#"{{{known}, "bytes_per_thread": -8}}"#), UnsupportedFormat),
        config("pattern_dict_missing", r#"{"version": "0.5.0"}"#, InvalidFormat).says(&["pattern_dict"]),
        config("pattern_dict_is_a_list", r#"{"pattern_dict": []}"#, InvalidFormat).says(&["pattern_dict"]),
        config("pattern_of_a_text", r#"{"pattern_dict": {"a": "b"}}"#, InvalidFormat).says(&["list of texts"]),
        config("pattern_of_numbers", r#"{"pattern_dict": {"a": ["b", 1]}}"#, InvalidFormat).says(&["list of texts"]),
        whole("config_with_a_key_twice", br#"{"a": 1, "\u0061": 2, "dfloat11_config": {}}"#.to_vec())
            .says(&["'a' twice"]),
        whole("config_with_a_key_twice_far_inside", br#"{"x": [{"y": {"a": 1, "a": 1}}]}"#.to_vec())
            .says(&["'a' twice"]),
        config("version_twice", r#"{"version": "0.5.0", "version": "0.2.0", "pattern_dict": {}}"#, InvalidFormat)
            .says(&["'version' twice"]),
        config("pattern_twice", r#"{"pattern_dict": {"a": ["b"], "\u0061": ["c"]}}"#, InvalidFormat)
            .says(&["'a' twice"]),
        config(
            "pattern_with_a_list_of_1025",
            &format!(r#"{{"pattern_dict": {{"a": ["b"{}]}}}}"#, r#","b""#.repeat(1024)),
            UnsupportedFormat,
        )
        .says(&["longer than 1024"]),
        pattern("pattern_whose_automaton_is_too_large", "(a|b)*a(a|b){20}").says(&["too complicated"]),
        pattern("pattern_unclosed", "(a"),
        pattern("pattern_closes_ours", "a)|(?:b"),
        pattern("pattern_looks_ahead", "(?=a)b"),
        pattern("pattern_refers_back", r"(a)\\1"),
        pattern("pattern_repeats_too_often", "((a{999}){999}){999}"),
        pattern("pattern_nested_deeply", &"(".repeat(3_000)),
        pattern("pattern_with_control_characters", r"\u001b[2J("),
        named("names_one_too_many", r#"{"layer": ["a", "b", "c"]}"#)
            .says(&["names 3 tensors", "it has 2"])
            .in_file("model.safetensors")
            .at("layer.split_positions", 0),
        named("names_missing", r#"{"layer": []}"#)
            .says(&["names 0 tensors", "it has 2"])
            .in_file("model.safetensors")
            .at("layer.split_positions", 0),
        named("names_equal", r#"{"layer": ["a", "a"]}"#)
            .says(&["two tensors have this name"])
            .in_file("model.safetensors")
            .names("layer.a.weight"),
        // C would take such a name for a shorter one.
        named("names_with_a_zero_byte", r#"{"layer": ["a\u0000b", "a\u0000c"]}"#),
    ]
}
