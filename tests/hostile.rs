//! Files that must be refused, one for each check. [`cases`] is the list: how each is made, from a small good group that
//! is spoilt in one place, and what must be said of it. They are kept in `tests/data/hostile`, so that other tools,
//! bindings and fuzzers can use them; `DF11_BLESS=1 cargo test --test hostile` writes them anew.

mod support;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use df11::format::{HASHES_KEY, SHAPES_KEY};
use df11::host::{self, DecodeOptions};
use df11::huffman::decode::Variant;
use df11::{Error, Model, OpenOptions, Status};
use half::bf16;
use support::alloc::{self, Counting};
use support::encoder::{self, Codes, Encoded, Tensor};
use support::files;
use support::weights::{self, Random};

#[global_allocator]
static COUNTING: Counting = Counting;

/// What is where in a case's model.
enum Files {
    /// One file, `NAME.safetensors`.
    One(Vec<u8>),
    /// A folder of files, `NAME/`.
    Folder(Vec<(&'static str, Vec<u8>)>),
}

/// Which step finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    /// It opens, and neither decodes nor verifies.
    Decode,
    /// It opens and decodes: only walking every code shows what is wrong.
    Verify,
}

/// A model that must be refused.
struct Case {
    name: &'static str,
    files: Files,
    step: Step,
    status: Status,
    /// What the message must contain.
    says: Vec<String>,
    /// What verification says, where that is something else than what decoding says.
    verify_says: Vec<String>,
    /// The file that it must name; for a single file that one.
    file: Option<&'static str>,
    /// The tensor that it must name, and the byte, counted from the tensor's first.
    tensor: Option<(String, Option<u64>)>,
}

impl Case {
    fn new(name: &'static str, files: Files, step: Step, status: Status) -> Case {
        Case { name, files, step, status, says: vec![], verify_says: vec![], file: None, tensor: None }
    }

    /// Words of the message.
    fn says(mut self, words: &[&str]) -> Case {
        self.says.extend(words.iter().map(|w| w.to_string()));
        self
    }

    /// Words of what verification says.
    fn verify_says(mut self, words: &[&str]) -> Case {
        self.verify_says.extend(words.iter().map(|w| w.to_string()));
        self
    }

    /// The file of a folder that is named.
    fn in_file(mut self, file: &'static str) -> Case {
        self.file = Some(file);
        self
    }

    /// The tensor that is named.
    fn names(mut self, tensor: &str) -> Case {
        self.tensor = Some((tensor.into(), None));
        self
    }

    /// The tensor and the byte in it that are named.
    fn at(mut self, tensor: &str, byte: usize) -> Case {
        self.tensor = Some((tensor.into(), Some(byte as u64)));
        self
    }

    /// The paths of its files, below the folder of all cases, and their bytes.
    fn paths(&self) -> Vec<(PathBuf, &[u8])> {
        match &self.files {
            Files::One(bytes) => vec![(format!("{}.safetensors", self.name).into(), bytes)],
            Files::Folder(files) => files.iter().map(|(f, b)| (Path::new(self.name).join(f), &b[..])).collect(),
        }
    }

    /// What is opened, below the folder of all cases.
    fn model(&self) -> PathBuf {
        match &self.files {
            Files::One(_) => format!("{}.safetensors", self.name).into(),
            Files::Folder(_) => self.name.into(),
        }
    }
}

fn open_fails(name: &'static str, file: Vec<u8>, status: Status) -> Case {
    Case::new(name, Files::One(file), Step::Open, status)
}

fn invalid(name: &'static str, file: Vec<u8>) -> Case {
    open_fails(name, file, Status::InvalidFormat)
}

fn corrupt(name: &'static str, file: Vec<u8>) -> Case {
    open_fails(name, file, Status::Corrupt)
}

// Good groups, to be spoilt

/// 40 weights in two tensors, with the codes 0, 10 and 110; 111 is the end of data.
fn base() -> Encoded {
    let exponents = [120, 120, 121, 120, 122, 120, 120, 121];
    let codes = encoder::canonical(&[(120, 1), (121, 2), (122, 3)], 3);
    encoder::encode_with_codes(&cycle(&exponents, 40), &[16], &codes)
}

/// 40 weights with codes of 1 and 12 bits, so that there is a second row.
fn two_rows() -> Encoded {
    let codes = encoder::canonical(&[(120, 1), (121, 12)], 12);
    encoder::encode_with_codes(&cycle(&[120, 120, 120, 121], 40), &[], &codes)
}

/// 40 weights with the codes 00, 011 and 1; 010 is the end of data, whose slots cannot be taken for a code.
fn holed() -> Encoded {
    let word = encoder::Word::parse;
    let codes = Codes::new(&[(120, word("00")), (121, word("011")), (122, word("1"))], word("010"));
    encoder::encode_with_codes(&cycle(&[122, 122, 120, 121], 40), &[16], &codes)
}

/// Codes of 31 and 32 bits, so that blocks have few weights, and a code of 1 bit that is not used.
fn long_codes() -> Codes {
    encoder::canonical(&[(120, 1), (121, 31), (122, 32)], 32)
}

/// `n` weights of 1,024 or a few more to a block.
fn long(n: usize) -> Encoded {
    encoder::encode_with_codes(&cycle(&[122, 122, 122, 122, 122, 122, 121], n), &[], &long_codes())
}

/// Weights of these exponents, over and over.
fn cycle(exponents: &[u8], n: usize) -> Vec<u16> {
    let mut random = Random::new(n as u64);
    exponents.iter().cycle().take(n).map(|&e| random.bits() as u16 & 0x807f | (e as u16) << 7).collect()
}

fn members(e: &Encoded) -> Vec<Tensor> {
    encoder::group_tensors("layer", e)
}

fn file(e: &Encoded) -> Vec<u8> {
    encoder::safetensors(&members(e), None)
}

/// The file of a group, its members changed.
fn spoilt(mut e: Encoded, change: impl FnOnce(&mut Encoded)) -> Vec<u8> {
    let before = e.clone();
    change(&mut e);
    assert!(e != before, "nothing was changed");
    file(&e)
}

/// The file of the small group, its tensors changed as tensors.
fn retyped(change: impl FnOnce(&mut Vec<Tensor>)) -> Vec<u8> {
    let mut tensors = members(&base());
    change(&mut tensors);
    encoder::safetensors(&tensors, None)
}

/// Changes one tensor.
fn tensor(tensors: &mut [Tensor], member: &str, change: impl FnOnce(&mut Tensor)) {
    change(tensors.iter_mut().find(|(name, ..)| *name == format!("layer.{member}")).unwrap());
}

fn set_positions(e: &mut Encoded, positions: &[u32]) {
    e.output_positions = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
}

fn flip_gap(e: &mut Encoded, chunk: usize, bits: u8) {
    let gap = files::gap(&e.gaps, chunk);
    files::set_gap(&mut e.gaps, chunk, gap ^ bits);
}

/// A file of one plain tensor of 4 bytes, by the part of the header that describes it.
fn plain(header: &str) -> Vec<u8> {
    files::raw(header, &[1, 2, 3, 4])
}

fn folder(config: &str) -> Files {
    let model = plain(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#);
    Files::Folder(vec![("config.json", config.into()), ("model.safetensors", model)])
}

/// A folder with a config that cannot be used.
fn config(name: &'static str, inner: &str, status: Status) -> Case {
    let config = format!(r#"{{"dfloat11_config": {inner}}}"#);
    Case::new(name, folder(&config), Step::Open, status).in_file("config.json")
}

/// A folder with the small group and a config of this `pattern_dict`.
fn named(name: &'static str, patterns: &str) -> Case {
    let files =
        vec![("config.json", files::config("0.5.0", patterns).into_bytes()), ("model.safetensors", file(&base()))];
    Case::new(name, Files::Folder(files), Step::Open, Status::InvalidFormat)
}

/// The small group with shapes in its metadata.
fn shapes(name: &'static str, shapes: &str, status: Status) -> Case {
    let metadata = [(SHAPES_KEY.to_owned(), shapes.to_owned())];
    open_fails(name, encoder::safetensors(&members(&base()), Some(&metadata)), status)
}

/// The small group with hashes in its metadata.
fn hashes(name: &'static str, hashes: &str) -> Case {
    let metadata = [(HASHES_KEY.to_owned(), hashes.to_owned())];
    open_fails(name, encoder::safetensors(&members(&base()), Some(&metadata)), Status::InvalidFormat)
        .says(&[HASHES_KEY])
}

/// Every case.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(containers());
    all.extend(groups());
    all.extend(tables());
    all.extend(positions());
    all.extend(configs());
    all.extend(streams());
    all
}

fn containers() -> Vec<Case> {
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
    let header =
        |name, text: &str| invalid(name, plain(text)).says(&["the safetensors header is not valid", "at byte 8]"]);
    vec![
        invalid("file_empty", vec![]).says(&["0 bytes are too few for a header"]),
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
        header("header_nested_deeply", &format!(r#"{{"a":{}"#, "[".repeat(3_000))).says(&["recursion limit"]),
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

fn groups() -> Vec<Case> {
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
        shapes("shapes_nested_deeply", &"[".repeat(3_000), Status::InvalidFormat).says(&[SHAPES_KEY]),
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

fn tables() -> Vec<Case> {
    let rows = |name, e: Encoded, change: fn(&mut Vec<u8>), byte: usize| {
        corrupt(name, spoilt(e, |e| change(&mut e.luts))).at("layer.luts", byte)
    };
    let unsupported = |name, exponent: usize| {
        let file = spoilt(base(), |e| e.luts[256 + exponent] = 9);
        open_fails(name, file, Status::UnsupportedFormat)
            .says(&[&format!("exponent {exponent} has a code of 9 bits"), "infinities", "lost weights"])
            .at("layer.luts", 256 + exponent)
    };
    let mut all = vec![
        corrupt("luts_of_rows_of_128", retyped(|t| tensor(t, "luts", |(_, _, shape, _)| *shape = vec![4, 128])))
            .says(&["[4, 128]", "[rows, 256]"])
            .at("layer.luts", 0),
        rows("luts_of_no_row", base(), |luts| luts.clear(), 0).says(&["0 bytes of look-up rows"]),
        rows("luts_of_one_row", base(), |luts| luts.truncate(256), 0).says(&["256 bytes of look-up rows"]),
        rows("luts_of_19_rows", base(), |luts| luts.resize(19 * 256, 0), 0).says(&["4864 bytes of look-up rows"]),
        rows("length_33", base(), |luts| luts[256 + 121] = 33, 256 + 121).says(&["exponent 121 has a code of 33 bits"]),
        rows("length_255", base(), |luts| luts[256 + 3] = 255, 256 + 3).says(&["exponent 3 has a code of 255 bits"]),
        unsupported("exponent_240", 240),
        unsupported("exponent_255", 255),
        rows("row_that_no_pointer_leads_to", two_rows(), |luts| luts[128..256].fill(120), 256)
            .says(&["no pointer in an earlier row leads to row 1"]),
        rows("row_that_only_a_later_row_leads_to", two_rows(), swap, 256)
            .says(&["no pointer in an earlier row leads to row 1"]),
        rows("rows_five_deep", two_rows(), deepen, 4 * 256).says(&["no pointer in an earlier row leads to row 4"]),
        rows("pointer_to_the_row_of_lengths", base(), |luts| luts[7] = 255, 7)
            .says(&["entry 7 of row 0 points to row 1"]),
        rows("pointer_outside", two_rows(), |luts| luts[256 + 200] = 240, 456)
            .says(&["points to row 16, and there are 2"]),
        rows("pointer_to_its_own_row_for_a_code", two_rows(), |luts| luts[256..512].fill(255), 512 + 121)
            .says(&["exponent 121 has a code of 12 bits, but no row holds that code"]),
        rows("code_in_no_row", base(), |luts| luts[256 + 77] = 5, 256 + 77)
            .says(&["exponent 77 has a code of 5 bits, but no row holds that code"]),
        rows("code_whose_first_slot_is_taken", base(), |luts| luts[0] = 121, 256 + 120)
            .says(&["exponent 120 has a code of 1 bits, but no row holds"]),
        rows("length_of_another_depth", base(), |luts| luts[256 + 120] = 9, 256 + 120)
            .says(&["exponent 120", "9 bits"]),
        rows("code_with_a_hole", base(), |luts| luts[100] = 121, 256 + 120).says(&["exponent 120", "no row holds"]),
        rows("code_not_aligned", base(), |luts| shift(luts), 256 + 120).says(&["exponent 120", "no row holds"]),
    ];
    // Every length is 0: there are weights, and nothing to write them with.
    let file = spoilt(base(), |e| e.luts.fill(0));
    all.push(corrupt("no_code_at_all", file).says(&["no exponent has a code"]).at("layer.output_positions", 4));
    all
}

/// A first row that leads to a new third one, and that to the second.
fn swap(luts: &mut Vec<u8>) {
    luts[128..256].fill(254);
    luts.splice(512..512, [255; 256]);
}

/// Rows that each lead to the next, and in the last of them what was in the second.
fn deepen(luts: &mut Vec<u8>) {
    let (codes, lengths) = (luts[256..512].to_vec(), luts[512..].to_vec());
    luts.truncate(256);
    for row in 2..5u8 {
        luts.extend([0u8.wrapping_sub(row); 256]);
    }
    luts.extend(codes);
    luts.extend(lengths);
}

/// Moves the slots of the first row by one, so that a code of one bit begins in slot 1.
fn shift(luts: &mut [u8]) {
    luts.copy_within(0..128, 1);
    luts[0] = 121;
}

fn positions() -> Vec<Case> {
    let of = |name, e: Encoded, positions: &[u32], byte: usize| {
        corrupt(name, spoilt(e, |e| set_positions(e, positions))).at("layer.output_positions", byte)
    };
    let behind = |name, e: Encoded, positions: &[u32]| {
        corrupt(name, spoilt(e, |e| set_positions(e, positions))).names("layer.output_positions")
    };
    let raw = |name, positions: &[u8]| {
        let file = spoilt(base(), |e| e.output_positions = positions.to_vec());
        corrupt(name, file).says(&["positions take four each"]).at("layer.output_positions", 0)
    };
    let gaps = |name, len: usize| {
        let file = spoilt(base(), |e| e.gaps.resize(len, 0));
        corrupt(name, file).says(&[&format!("has {len} bytes"), "take 320"]).at("layer.gaps", 0)
    };
    // Two blocks: 1,024 to 1,057 weights in the first, and some more.
    let two = || long(1_100);
    let (k1, n) = (files::positions(&two().output_positions)[1], 1_100);
    assert!((1_024..1_058).contains(&k1));
    vec![
        gaps("gaps_missing", 0),
        gaps("gaps_one_byte_short", 319),
        gaps("gaps_one_byte_long", 321),
        gaps("gaps_of_two_blocks", 640),
        raw("positions_missing", &[]),
        raw("positions_of_three_bytes", &[0, 0, 0]),
        raw("positions_of_nine_bytes", &[0, 0, 0, 0, 40, 0, 0, 0, 0]),
        of("position_0_is_not_0", base(), &[1, 40], 0).says(&["position 0 is 1, not 0"]),
        of("position_0_is_2_32_minus_1", base(), &[u32::MAX, 40], 0).says(&["position 0 is 4294967295"]),
        of("last_position_is_less_than_n", base(), &[0, 39], 4).says(&["the last position is 39", "40 weights"]),
        of("last_position_is_more_than_n", base(), &[0, 41], 4).says(&["the last position is 41", "40 weights"]),
        of("positions_one_too_few", two(), &[0, n], 4).says(&["has 2 positions for 2 blocks"]),
        of("positions_two_too_many", base(), &[0, 40, 40, 40], 12).says(&["has 4 positions for 1 blocks"]),
        of("position_too_many_not_n", base(), &[0, 39, 40], 8).says(&["has 3 positions for 1 blocks"]),
        of("positions_falling", two(), &[0, n + 1, n], 8).says(&["position 2 is 1100, less than 1101 before it"]),
        of("block_of_too_few_weights", two(), &[0, 1_023, n], 4).says(&["block 0 has 1023 weights", "1024 to 32768"]),
        of("last_block_of_too_few_weights", two(), &[0, n - 20, n], 8).says(&["block 1 has 20 weights"]),
        corrupt("block_of_too_many_weights", {
            // Without the code of one bit, no more than 1,058 fit.
            let codes = encoder::canonical(&[(121, 31), (122, 32)], 32);
            let mut e = encoder::encode_with_codes(&cycle(&[122, 121], 1_100), &[], &codes);
            set_positions(&mut e, &[0, 1_059, 1_100]);
            file(&e)
        })
        .says(&["block 0 has 1059 weights", "1024 to 1058"])
        .at("layer.output_positions", 4),
        corrupt(
            "more_weights_than_bits",
            spoilt(base(), |e| {
                e.sign_mantissa.resize(400, 0);
                set_positions(e, &[0, 400]);
            }),
        )
        .says(&["block 0 has 400 weights"])
        .at("layer.output_positions", 4),
        corrupt(
            "fewer_weights_than_bits",
            spoilt(two_rows(), |e| {
                e.encoded_exponent.resize(4_000, 0);
            }),
        )
        .says(&["block 0 has 40 weights"])
        .at("layer.output_positions", 4),
        corrupt(
            "weights_and_no_codes",
            spoilt(base(), |e| {
                e.encoded_exponent.clear();
                e.gaps.clear();
            }),
        )
        .says(&["has 2 positions for 0 blocks"])
        .at("layer.output_positions", 4),
        corrupt(
            "codes_and_no_weights",
            spoilt(base(), |e| {
                e.sign_mantissa.clear();
                e.split_positions.clear();
                set_positions(e, &[0, 0]);
            }),
        )
        .says(&["no weights, but 8 bytes of codes"])
        .at("layer.output_positions", 0),
        // A decoder that trusts it takes one block for the whole stream, however long that is.
        behind("all_weights_in_the_first_of_two_blocks", two(), &[0, n, n]),
        behind("weights_behind_the_last", long(2_100), &[0, 2_100, 2_105, 2_100]),
    ]
}

fn configs() -> Vec<Case> {
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
        whole("config_nested_deeply", "[".repeat(3_000).into_bytes()).says(&["recursion limit"]),
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

fn streams() -> Vec<Case> {
    use Step::{Decode, Verify};
    let case = |name, step, e: Encoded, change: &dyn Fn(&mut Encoded)| {
        Case::new(name, Files::One(spoilt(e, change)), step, Status::Corrupt)
    };
    // 17 blocks, more than a thread of verification takes at a time, are too large to keep. Two show the same border.
    let two = || long(1_100);
    let start = files::positions(&two().output_positions)[1];
    let gap_1 = files::gap(&two().gaps, 512);
    let one_bit = || encoder::encode(&weights::one_bit(100, 120, 1), &[]);
    let code = |bits: &str| {
        bits.as_bytes()
            .chunks(8)
            .map(|b| {
                let byte = std::str::from_utf8(b).unwrap();
                u8::from_str_radix(byte, 2).unwrap() << (8 - byte.len())
            })
            .collect::<Vec<u8>>()
    };
    vec![
        // 11, then the end of data where a weight should be.
        case("bits_that_are_no_code", Decode, holed(), &|e| e.encoded_exponent[0] = 0b1101_0000)
            .says(&["weight 2 has no code: no exponent's begins so"])
            .at("layer.encoded_exponent", 0),
        case("bits_that_are_no_code_far_on", Decode, two(), &|e| {
            // Where neither the first nor the last thousand bits are.
            e.encoded_exponent[2_000..2_008].fill(0xff)
        })
        .says(&["has no code"])
        .names("layer.encoded_exponent"),
        case("codes_end_inside_a_weight", Decode, base(), &|e| {
            // 22 weights of three bits and, in the last byte, 6 of one bit; but there are 40.
            e.encoded_exponent = code(&"110".repeat(22));
            files::set_gap(&mut e.gaps, 1, 2);
        })
        .says(&["the codes end inside weight 28"])
        .verify_says(&["block 0 has 40 weights by the positions and 28 by its codes"]),
        case("codes_end_before_the_last_byte", Decode, base(), &|e| e.encoded_exponent.extend([0; 3]))
            .says(&["the codes of weights 0 to 40 do not end where the next begin"])
            .verify_says(&["the last weight's code ends at bit", "not in the last byte"]),
        case("first_gap_of_a_block", Decode, two(), &|e| files::set_gap(&mut e.gaps, 512, (gap_1 + 1) % 32))
            .names("layer.encoded_exponent")
            .verify_says(&["the first gap of block 1 is", &format!("a code starts at bit {gap_1}")]),
        case("one_weight_counted_to_the_wrong_block", Decode, two(), &|e| set_positions(e, &[0, start - 1, 1_100]))
            .names("layer.encoded_exponent")
            .verify_says(&[&format!("block 0 has {} weights by the positions and {start} by its codes", start - 1)]),
        // The next codes are as good as these: nothing else would show that all weights are wrong.
        case("first_gap_not_0", Decode, base(), &|e| files::set_gap(&mut e.gaps, 0, 1))
            .verify_says(&["the first gap is 1, not 0"]),
        case("first_gap_of_codes_of_one_bit", Decode, one_bit(), &|e| files::set_gap(&mut e.gaps, 0, 3))
            .verify_says(&["the first gap is 3, not 0"]),
        case("gap_of_a_later_chunk", Verify, two(), &|e| flip_gap(e, 300, 1))
            .says(&["the gap of block 0, chunk 300 (byte 2400 of the codes)"])
            .at("layer.gaps", 300 * 5 / 8),
        case("gap_of_the_last_block", Verify, two(), &|e| flip_gap(e, 520, 16))
            .says(&["the gap of block 1, chunk 8 (byte 4160 of the codes)"])
            .at("layer.gaps", 320 + 5),
    ]
}

// What is expected of them

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile")
}

/// [`outcome`], or what it panicked with.
fn outcome_or_panic(open: impl FnOnce() -> Result<Model, Error>) -> Result<Option<Refusal>, String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| outcome(open))).map_err(|p| {
        format!("a panic: {:?}", p.downcast_ref::<&str>().map(|s| s.to_string()).or(p.downcast_ref().cloned()))
    })
}

/// The step that failed with its error, and what verification says of a model that does not decode.
struct Refusal {
    step: Step,
    error: Error,
    verify: Option<Error>,
}

/// What becomes of a model: `None` if nothing refuses it.
fn outcome(open: impl FnOnce() -> Result<Model, Error>) -> Option<Refusal> {
    let model = match open() {
        Ok(model) => model,
        Err(error) => return Some(Refusal { step: Step::Open, error, verify: None }),
    };
    let (mut decoded, mut verified) = (None, None);
    for (number, group) in model.groups().iter().enumerate() {
        let mut weights = vec![bf16::ZERO; group.element_count() as usize];
        for variant in Variant::ALL.into_iter().filter(|v| v.is_available()) {
            let options = DecodeOptions { threads: 1, variant: Some(variant) };
            decoded = decoded.or(host::decompress(&model, number, 0, &mut weights, &options).err());
        }
        verified = verified.or(host::verify(&model, number, 1).err());
    }
    match (decoded, verified) {
        (Some(error), verify) => Some(Refusal { step: Step::Decode, error, verify }),
        (None, Some(error)) => Some(Refusal { step: Step::Verify, error, verify: None }),
        (None, None) => None,
    }
}

/// Says what is wrong with an error, if anything is.
fn complaint(case: &Case, in_memory: bool, bytes: &[u8], step: Step, error: &Error) -> Option<String> {
    let text = error.to_string();
    if (step, error.status()) != (case.step, case.status) {
        return Some(format!("{step:?} said {}: {text}", error.status()));
    }
    let mut wanted: Vec<String> = case.says.clone();
    // A long path is shortened in the middle, so its end is looked for.
    let file = match (case.file, in_memory) {
        (_, true) => "memory".into(),
        (Some(file), _) => file.to_owned(),
        (None, _) => format!("{}.safetensors", case.name),
    };
    if !matches!(case.files, Files::Folder(_)) || case.file.is_some() {
        wanted.push(format!("{file}'"));
    }
    if let Some((tensor, byte)) = &case.tensor {
        wanted.push(format!("tensor '{tensor}' in '"));
        if let Some(byte) = byte {
            wanted.push(format!(" at byte {}]", offset_of(bytes, tensor) + byte));
        }
    }
    wanted.into_iter().find(|w| !text.contains(w)).map(|w| format!("the message lacks {w:?}: {text}"))
}

/// Where a tensor begins in a file. Its header may be wrong in other ways than the safetensors crate lets pass.
fn offset_of(file: &[u8], tensor: &str) -> u64 {
    let len = u64::from_le_bytes(file[..8].try_into().unwrap());
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + len as usize]).unwrap();
    8 + len + header[tensor]["data_offsets"][0].as_u64().unwrap()
}

/// Nothing that a terminal obeys, and short enough for an error struct of C.
fn is_readable(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.len() <= 503
}

#[test]
fn the_files_are_what_the_list_makes() {
    let bless = std::env::var_os("DF11_BLESS").is_some_and(|v| v == "1");
    if bless {
        for entry in std::fs::read_dir(data()).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else if path.extension().is_some_and(|e| e == "safetensors") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    let (mut expected, mut total) = (vec![data().join("README.md")], 0);
    for case in cases() {
        for (path, bytes) in case.paths() {
            let path = data().join(path);
            if bless {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, bytes).unwrap();
            }
            let found = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(found == bytes, "{} is another: DF11_BLESS=1 writes them anew", path.display());
            assert!(!expected.contains(&path), "two cases write {}", path.display());
            expected.push(path);
            total += bytes.len();
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data()).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path())),
            false => found.push(path),
        }
    }
    found.retain(|path| !expected.contains(path));
    assert!(found.is_empty(), "no case makes {found:?}");
    assert!(total < 300_000, "{total} bytes");
}

#[test]
fn each_is_refused_and_said_why() {
    let mut wrong = Vec::new();
    for case in cases() {
        let path = data().join(case.model());
        let bytes = match &case.files {
            Files::One(bytes) => bytes.clone(),
            Files::Folder(files) => files.last().unwrap().1.clone(),
        };
        let read = |read| OpenOptions { read, ..Default::default() };
        let mut ways = vec![
            ("mapped", outcome_or_panic(|| Model::open(&path, &read(false)))),
            ("read", outcome_or_panic(|| Model::open(&path, &read(true)))),
        ];
        if matches!(case.files, Files::One(_)) {
            ways.push(("in memory", outcome_or_panic(|| Model::from_bytes(bytes.clone(), &read(false)))));
        }
        for (way, found) in ways {
            let mut complain = |what: String| wrong.push(format!("{}, {way}: {what}", case.name));
            let Refusal { step, error, verify } = match found {
                Ok(Some(refusal)) => refusal,
                Ok(None) => {
                    complain("it was accepted".into());
                    continue;
                }
                Err(panic) => {
                    complain(panic);
                    continue;
                }
            };
            if let Some(what) = complaint(&case, way == "in memory", &bytes, step, &error) {
                complain(what);
            }
            let verify_text = verify.map(|e| e.to_string()).unwrap_or_default();
            if step == Step::Decode && verify_text.is_empty() {
                complain("it verifies".into());
            }
            if let Some(word) = case.verify_says.iter().find(|word| !verify_text.contains(&word[..])) {
                complain(format!("verification does not say {word:?}: {verify_text}"));
            }
            for text in [error.to_string(), verify_text] {
                if !is_readable(&text) {
                    complain(format!("{} bytes, not readable: {:?}", text.len(), text.get(..200).unwrap_or(&text)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

// What no small file can show

/// Tests that take much memory, or count it, one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What some call took, if it took no longer than this.
fn within<T>(limit: Duration, most_bytes: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let (result, taken) = alloc::taken(work);
    let took = start.elapsed();
    assert!(took <= limit, "{took:?}");
    assert!(taken.peak <= most_bytes, "{taken:?}");
    result
}

#[test]
fn a_small_config_with_many_patterns_is_dealt_with_quickly() {
    let _alone = alone();
    // Each pattern alone is small enough to be compiled.
    let patterns: Vec<String> = (0..250).map(|i| format!(r#""\\w{{20}}x{i}": []"#)).collect();
    let config = files::config("0.5.0", &format!("{{{}}}", patterns.join(",")));
    let options = OpenOptions { config: Some(config), ..Default::default() };
    let opened = within(Duration::from_secs(3), 16 << 20, || Model::from_bytes(files::raw("{}", &[]), &options));
    drop(opened);
}

#[test]
fn a_long_name_with_many_tensors_takes_no_more_memory_than_it_should() {
    let _alone = alone();
    // 180 KB: each tensor inside is called after its group, and there may be as many as there are cuts.
    let mut e = base();
    e.split_positions = vec![0; 12_000];
    let mut tensors = members(&e);
    tensors.iter_mut().for_each(|t| t.0 = t.0.replace("layer", &"n".repeat(12_000)));
    let file = encoder::safetensors(&tensors, None);
    let options = OpenOptions::default();
    drop(within(Duration::from_secs(3), 32 << 20, || Model::from_bytes(file, &options)));
}

#[test]
fn names_that_multiply_are_bounded_for_one_group_and_for_all() {
    let _alone = alone();
    let with_cuts = |groups: usize, cuts: usize| {
        let mut e = base();
        e.split_positions = vec![0; cuts];
        let name = |i: usize| format!("{i}{}", "n".repeat(990));
        let tensors: Vec<_> = (0..groups).flat_map(|i| encoder::group_tensors(&name(i), &e)).collect();
        encoder::safetensors(&tensors, None)
    };
    let options = OpenOptions::default();
    let open = |file| within(Duration::from_secs(3), 32 << 20, || Model::from_bytes(file, &options));
    assert_eq!(open(with_cuts(1, 1_023)).unwrap().tensors().len(), 1_024);
    let error = open(with_cuts(1, 1_024)).unwrap_err();
    assert_eq!(error.status(), Status::Corrupt);
    assert!(error.to_string().contains("into 1025 tensors"), "{error}");
    let error = open(with_cuts(6, 1_000)).unwrap_err();
    assert_eq!(error.status(), Status::UnsupportedFormat);
    assert!(error.to_string().contains("names of the tensors in groups"), "{error}");
}

/// A file of the small group in which one member is a hole of that many bytes.
#[cfg(target_os = "linux")]
fn with_a_hole(path: &Path, member: &str, shape: &str, bytes: u64) {
    use std::os::unix::fs::FileExt;
    let (mut header, mut payload, mut at) = (String::from("{"), Vec::new(), 0u64);
    let mut tensors = members(&base());
    // The hole comes last.
    tensors.sort_by_key(|t| t.0.ends_with(member));
    for (name, dtype, own, data) in &tensors {
        let hole = name.ends_with(member);
        let (shape, len) = if hole { (shape.to_owned(), bytes) } else { (format!("{own:?}"), data.len() as u64) };
        let comma = if at == 0 && payload.is_empty() { "" } else { "," };
        header +=
            &format!(r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{at},{}]}}"#, at + len);
        if !hole {
            payload.extend_from_slice(data);
        }
        at += len;
    }
    header.push('}');
    let head = files::raw(&header, &payload);
    let file = std::fs::File::create(path).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.set_len(head.len() as u64 - payload.len() as u64 + at).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn members_of_absurd_sizes_are_refused_before_they_are_read() {
    let _alone = alone();
    const GIB: u64 = 1 << 30;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let holes = [
        ("luts", format!("[{}, 256]", 4 * GIB / 256), 4 * GIB),
        ("output_positions", format!("[{}]", 4 * GIB), 4 * GIB),
        ("gaps", format!("[{}]", 4 * GIB), 4 * GIB),
        // More weights than positions can count.
        ("sign_mantissa", format!("[{}]", 4 * GIB), 4 * GIB),
        ("sign_mantissa", format!("[{}]", 4 * GIB - 1), 4 * GIB - 1),
        ("sign_mantissa", format!("[{}]", 4 * GIB + 40), 4 * GIB + 40),
        ("encoded_exponent", format!("[{}]", 8 * GIB), 8 * GIB),
    ];
    for (member, shape, bytes) in holes {
        with_a_hole(&path, member, &shape, bytes);
        for read in [false, true] {
            let options = OpenOptions { read, ..Default::default() };
            let error = within(Duration::from_secs(3), 16 << 20, || Model::open(&path, &options)).unwrap_err();
            assert_eq!(error.status(), Status::Corrupt, "{member}, {bytes}, read {read}: {error}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_config_of_over_100_mb_is_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(folder.path().join("model.safetensors"), file(&base())).unwrap();
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = Model::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert_eq!(error.status(), Status::InvalidFormat);
    assert!(error.to_string().contains("larger than 100 MB"), "{error}");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_without_waiting() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = |path: &Path| {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a text that ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    // Each in a folder of its own, as the model itself and as one of its files.
    for (name, member) in [("pipe", "x.safetensors"), ("folder", "x.safetensors"), ("link", "x.safetensors")] {
        std::fs::create_dir(at(name)).unwrap();
        let path = at(name).join(member);
        match name {
            "pipe" => pipe(&path),
            "folder" => std::fs::create_dir(&path).unwrap(),
            _ => symlink("/dev/zero", &path).unwrap(),
        }
        for model in [at(name), path.clone()] {
            if name == "folder" && model == path {
                continue;
            }
            let error = Model::open(model, &OpenOptions::default()).unwrap_err();
            assert_eq!(error.status(), Status::Io, "{name}: {error}");
            assert!(error.to_string().contains("x.safetensors"), "{error}");
        }
    }
    let good = file(&base());
    for name in ["config is a pipe", "config is a folder"] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("model.safetensors"), &good).unwrap();
        match name {
            "config is a pipe" => pipe(&at(name).join("config.json")),
            _ => std::fs::create_dir(at(name).join("config.json")).unwrap(),
        }
        let error = Model::open(at(name), &OpenOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::Io, "{name}: {error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
    symlink("nowhere", at("dangling")).unwrap();
    symlink("circle", at("circle")).unwrap();
    for name in ["no such model", "dangling", "circle"] {
        let error = Model::open(at(name), &OpenOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::Io, "{error}");
        assert!(error.native_code() != 0 && error.to_string().contains(name), "{error}");
    }
}

/// Overwrites bytes of a file in place.
#[cfg(unix)]
fn poke(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_changes_after_it_was_opened_does_no_harm() {
    let weights = weights::gaussian(200_000, 0.02, 1);
    let bytes = file(&encoder::encode(&weights, &[]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut random = Random::new(2);
    let (mut refused, mut changed) = (0, 0);
    for round in 0..200 {
        std::fs::write(&path, &bytes).unwrap();
        let options = OpenOptions { read: round % 4 == 0, ..Default::default() };
        let model = Model::open(&path, &options).unwrap();
        let member = ["output_positions", "gaps", "encoded_exponent", "luts", "split_positions", ""][round % 6];
        if member.is_empty() {
            // The header itself.
            poke(&path, 0, &[0xff; 64]);
        } else {
            let at = offset_of(&bytes, &format!("layer.{member}"));
            let noise: Vec<u8> = (0..1 + random.below(64)).map(|_| random.bits() as u8).collect();
            let noise = if random.below(3) == 0 { vec![0xff; noise.len()] } else { noise };
            poke(&path, at + random.below(60), &noise);
        }
        let mut found = vec![bf16::ZERO; weights.len()];
        let options = DecodeOptions { threads: 1 + round % 2, variant: None };
        if let Err(error) = host::decompress(&model, 0, 0, &mut found, &options) {
            assert_eq!(error.status(), Status::Corrupt, "round {round}, {member}: {error}");
            changed += error.to_string().contains("have changed since the model was opened") as usize;
            refused += 1;
        }
        let _ = host::verify(&model, 0, 2);
        // A part in the middle, too.
        let _ = host::decompress(&model, 0, 77_777, &mut found[..50_000], &options);
    }
    assert!(refused > 20 && changed > 0, "{refused} refused, {changed} of them for their positions");
}

#[cfg(unix)]
#[test]
fn a_file_cut_short_after_it_was_opened_for_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, file(&base())).unwrap();
    let model = Model::open(&path, &OpenOptions { read: true, ..Default::default() }).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20).unwrap();
    let mut weights = [bf16::ZERO; 40];
    for error in [
        host::decompress(&model, 0, 0, &mut weights, &DecodeOptions::default()).unwrap_err(),
        host::verify(&model, 0, 1).unwrap_err(),
    ] {
        assert_eq!(error.status(), Status::Corrupt);
        assert!(error.to_string().contains("has become shorter since it was opened"), "{error}");
    }
}
