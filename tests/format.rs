//! Every quirk of the format, shown by the file of `tests/data/golden` that has it: first that the file does have it, so
//! that the test means something, then that the model opens, decodes to its original, and verifies.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use df11::format::{Data, HASHES_KEY, SHAPES_KEY};
use df11::host::{self, DecodeOptions};
use df11::{Dtype, Model, OpenOptions, Status};
use support::files::{self, Stored};
use support::{check, encoder, golden, weights};

/// A group of a golden model: its members as stored, and the code that the reference made for it.
struct Group {
    model: &'static str,
    name: String,
    members: HashMap<&'static str, Vec<u8>>,
    /// Exponents and their code words in zeros and ones.
    words: Vec<(u8, String)>,
    /// The end-of-data code.
    end: String,
}

impl Group {
    fn member(&self, name: &str) -> &[u8] {
        &self.members[name]
    }

    fn code(&self) -> &[u8] {
        self.member("encoded_exponent")
    }

    fn weights(&self) -> usize {
        self.member("sign_mantissa").len()
    }

    fn blocks(&self) -> usize {
        self.code().len().div_ceil(4096)
    }

    fn positions(&self) -> Vec<u32> {
        files::positions(self.member("output_positions"))
    }

    /// The first bit of every weight's code, then the bit behind the last: read with the reference's own words.
    fn starts(&self) -> Vec<usize> {
        let words: HashMap<&str, u8> = self.words.iter().map(|(symbol, word)| (&word[..], *symbol)).collect();
        let bits: String = self.code().iter().map(|b| format!("{b:08b}")).collect();
        let mut starts = vec![0];
        for _ in 0..self.weights() {
            let from = *starts.last().unwrap();
            let len = (1..=32).find(|len| words.contains_key(&bits[from..from + len])).unwrap();
            starts.push(from + len);
        }
        starts
    }
}

/// Every group of the golden models of these names.
fn groups(models: &[&'static str]) -> Vec<Group> {
    let mut all = Vec::new();
    for &model in models {
        let raw = golden::raw(model);
        let json = std::fs::read(golden::path(model).join("codes.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        for entry in json.as_array().unwrap() {
            let name = entry["module"].as_str().unwrap().to_owned();
            let (mut words, mut end) = (Vec::new(), String::new());
            for row in entry["table"].as_array().unwrap() {
                let word = row[2].as_str().unwrap().to_owned();
                match row[0].as_u64() {
                    Some(symbol) => words.push((symbol as u8, word)),
                    None => end = word,
                }
            }
            let members = files::MEMBERS.iter().map(|m| (*m, raw[&format!("{name}.{m}")].clone())).collect();
            all.push(Group { model, name, members, words, end });
        }
    }
    all
}

fn group(model: &'static str, name: &str) -> Group {
    groups(&[model]).into_iter().find(|g| g.name == name).unwrap_or_else(|| panic!("{model} has no {name}"))
}

fn open(path: impl AsRef<Path>) -> Model {
    Model::open(path, &OpenOptions::default()).unwrap()
}

fn with_config(config: &str) -> OpenOptions {
    OpenOptions { config: Some(config.into()), ..OpenOptions::default() }
}

/// The weights of a model of one group, decoded and verified.
fn decode_only_group(file: Vec<u8>) -> Vec<u16> {
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    assert_eq!(model.groups().len(), 1);
    let mut weights = vec![half::bf16::ZERO; model.groups()[0].element_count() as usize];
    host::decompress(&model, 0, 0, &mut weights, &DecodeOptions::default()).unwrap();
    host::verify(&model, 0, 1).unwrap();
    weights.into_iter().map(half::bf16::to_bits).collect()
}

/// A file of one group with these members.
fn file_of(members: &HashMap<&'static str, Vec<u8>>) -> Vec<u8> {
    let tensor = |name: &str| {
        let data = members[name].clone();
        let (dtype, shape) = match name {
            "luts" => (Dtype::U8, vec![data.len() / 256, 256]),
            "split_positions" => (Dtype::I64, vec![data.len() / 8]),
            _ => (Dtype::U8, vec![data.len()]),
        };
        Stored::new(&format!("g.{name}"), dtype, &shape, data)
    };
    files::file(&files::MEMBERS.map(tensor))
}

/// The members of a group, changed, must decode to the same weights.
fn same_weights(group: &Group, what: &str, change: impl FnOnce(&mut HashMap<&'static str, Vec<u8>>)) {
    let want = decode_only_group(file_of(&group.members));
    let mut members = group.members.clone();
    change(&mut members);
    assert!(members != group.members, "{}: {what}: nothing was changed", group.name);
    assert!(decode_only_group(file_of(&members)) == want, "{}: {what}", group.name);
}

// The bit stream

#[test]
fn the_last_byte_is_filled_with_the_start_of_the_end_of_data_code() {
    let mut filled = 0;
    for g in groups(&["tiny", "edge", "edge_patched"]) {
        let (end, bits) = (*g.starts().last().unwrap(), 8 * g.code().len());
        assert!((bits - 7..=bits).contains(&end), "{}", g.name);
        let open = bits - end;
        if open == 0 {
            continue;
        }
        filled += 1;
        let last = g.code()[g.code().len() - 1] & ((1 << open) - 1);
        let want: String = g.end.chars().chain("0000000".chars()).take(open).collect();
        assert_eq!(format!("{last:08b}")[8 - open..], want, "{}", g.name);
        // They mean nothing: a decoder stops at the last weight, whatever code they may look like.
        for fill in 0..1u8 << open {
            if fill != last {
                same_weights(&g, "other bits behind the last weight", |members| {
                    let code = members.get_mut("encoded_exponent").unwrap();
                    *code.last_mut().unwrap() ^= last ^ fill;
                });
            }
        }
    }
    assert!(filled > 20, "{filled}");
}

#[test]
fn the_gap_of_a_chunk_in_which_no_weight_starts_means_nothing() {
    let (mut of_the_end, mut zero) = (0, 0);
    for g in groups(&["tiny", "edge", "edge_patched"]) {
        let mut used = vec![false; 512 * g.blocks()];
        let starts = g.starts();
        let (end, starts) = starts.split_last().unwrap();
        starts.iter().for_each(|s| used[s / 64] = true);
        let unused: Vec<usize> = (0..used.len()).filter(|&c| !used[c]).collect();
        let inside = unused.iter().filter(|&&c| c < g.code().len().div_ceil(8));
        for &chunk in inside {
            let gap = files::gap(g.member("gaps"), chunk) as usize;
            let ends_here = end / 64 == chunk && end % 8 != 0;
            assert_eq!(gap, if ends_here { end % 64 } else { 0 }, "{}, chunk {chunk}", g.name);
            *if gap == 0 { &mut zero } else { &mut of_the_end } += 1;
        }
        if !unused.is_empty() {
            same_weights(&g, "gaps of chunks without a weight", |members| {
                let gaps = members.get_mut("gaps").unwrap();
                unused.iter().for_each(|&chunk| files::set_gap(gaps, chunk, 31));
            });
        }
    }
    assert!(of_the_end > 0 && zero > 0, "{of_the_end} gaps of the end of data, {zero} gaps of 0");
}

#[test]
fn encoded_exponent_is_no_multiple_of_8_bytes() {
    let all = groups(&["tiny", "edge", "edge_patched"]);
    let mut remainders: Vec<usize> = all.iter().map(|g| g.code().len() % 8).collect();
    remainders.sort_unstable();
    remainders.dedup();
    assert_eq!(remainders, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(all.iter().any(|g| g.code().len() == 1));
    all.iter().for_each(|g| assert_eq!(decode_only_group(file_of(&g.members)).len(), g.weights()));
}

#[test]
fn a_last_code_that_straddles_a_block_and_ends_on_a_byte_leaves_one_position_fewer() {
    let g = group("edge", "mods.last_code_straddles_block_byte_aligned");
    assert_eq!(g.positions().len(), g.blocks());
    assert_eq!(g.member("gaps").len(), 320 * g.blocks());
    assert_eq!(g.starts().last().unwrap(), &(8 * g.code().len()));
    decode_only_group(file_of(&g.members));
}

#[test]
fn a_block_in_which_only_the_end_of_data_starts_has_a_position_that_equals_n() {
    for name in ["last_code_straddles_block_eof_in_new_block", "block_plus_one_byte_eof"] {
        let g = group("edge", &format!("mods.{name}"));
        let (positions, n) = (g.positions(), g.weights() as u32);
        assert_eq!(positions[positions.len() - 2..], [n, n]);
        assert_eq!(positions.len(), g.blocks() + 1);
        decode_only_group(file_of(&g.members));
    }
}

#[test]
fn one_position_more_that_equals_n_is_an_empty_block_behind_the_stream() {
    for g in groups(&["edge", "edge_patched"]) {
        if g.positions().len() == g.blocks() + 1 {
            same_weights(&g, "a position more", |members| {
                let n = g.weights() as u32;
                members.get_mut("output_positions").unwrap().extend(n.to_le_bytes());
            });
        }
    }
}

#[test]
fn a_block_can_hold_almost_32768_weights() {
    let g = group("edge", "mods.low_entropy_block_gt_48k_shared");
    assert!(g.positions().windows(2).any(|p| p[1] - p[0] > 32_000));
    decode_only_group(file_of(&g.members));
}

#[test]
fn codes_run_from_1_to_26_bits() {
    let all = groups(&golden::NAMES);
    let lengths = || all.iter().flat_map(|g| &g.words).map(|(_, word)| word.len());
    assert_eq!((lengths().min(), lengths().max()), (Some(1), Some(26)));
    // What the library says of them, too.
    let model = open(golden::model("edge"));
    for g in all.iter().filter(|g| g.model == "edge") {
        let mut want = [0; 256];
        g.words.iter().for_each(|(symbol, word)| want[*symbol as usize] = word.len() as u8);
        let found = &model.groups()[model.find_group(&g.name).unwrap()];
        assert_eq!(found.code_lengths(), &want, "{}", g.name);
        let lens = found.code_lengths().iter().filter(|&&l| l != 0);
        let bounds = (*lens.clone().min().unwrap() as u32, *lens.max().unwrap() as u32);
        assert_eq!((found.codes().shortest(), found.codes().longest()), bounds);
    }
}

// The tables

#[test]
fn stale_table_slots_are_no_codes() {
    let mut stale = 0;
    for g in groups(&golden::NAMES) {
        let file = Model::from_bytes(file_of(&g.members), &OpenOptions::default()).unwrap();
        let found: BTreeMap<String, u8> = file.groups()[0]
            .codes()
            .codes()
            .iter()
            .map(|c| (format!("{:032b}", c.bits)[..c.len as usize].to_owned(), c.symbol))
            .collect();
        for (symbol, word) in &g.words {
            assert_eq!(found.get(word), Some(symbol), "{}: {word}", g.name);
        }
        // Whatever else was taken for a code can only be met behind the end of the data.
        for (word, symbol) in found.iter().filter(|(word, _)| !g.words.iter().any(|(_, w)| w == *word)) {
            assert!(word.starts_with(&g.end), "{}: {word} of exponent {symbol}, end of data {}", g.name, g.end);
            stale += 1;
        }
    }
    assert!(stale > 0);
}

#[test]
fn in_the_first_row_a_stale_slot_can_stand_before_the_real_one() {
    let mut seen = 0;
    for g in groups(&["edge_patched"]) {
        let row = &g.member("luts")[..256];
        for (symbol, word) in g.words.iter().filter(|(_, word)| word.len() <= 8) {
            let real = usize::from_str_radix(word, 2).unwrap() << (8 - word.len());
            assert_eq!(row[real], *symbol);
            seen += row[..real].contains(symbol) as usize;
        }
        decode_only_group(file_of(&g.members));
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn slots_of_the_end_of_data_can_point_to_their_own_row() {
    for name in ["eof_slot_self_pointer_9", "eof_slot_self_pointer_17"] {
        let g = group("edge", &format!("mods.{name}"));
        let rows = g.member("luts").len() / 256 - 1;
        let last = &g.member("luts")[256 * (rows - 1)..256 * rows];
        assert!(last[..128].iter().all(|&slot| slot == (256 - (rows - 1)) as u8), "{:?}", &last[..128]);
        // Bits behind the last weight that lead a walk there are the test above; this is the row itself.
        decode_only_group(file_of(&g.members));
    }
}

#[test]
fn seventeen_tables_are_the_most() {
    let g = group("edge", "mods.luts_17_prefix_rows_max_valid");
    assert_eq!(g.member("luts").len(), 18 * 256);
    assert_eq!(g.member("luts")[..17 * 256].iter().filter(|&&slot| slot >= 240).min(), Some(&240));
    decode_only_group(file_of(&g.members));
}

// The container

#[test]
fn a_groups_numbers_are_those_of_its_tensors() {
    for name in golden::NAMES {
        let stored = files::stored(name);
        for group in open(golden::model(name)).groups() {
            let members: BTreeMap<&str, &Stored> = stored
                .iter()
                .filter_map(|s| {
                    files::member_of(&s.name).filter(|(base, _)| *base == group.name()).map(|(_, m)| (m, s))
                })
                .collect();
            let bytes: usize = members.values().map(|s| s.data.len()).sum();
            assert_eq!(group.packed_bytes(), bytes as u64, "{name} {}", group.name());
            assert_eq!(group.element_count(), members["sign_mantissa"].data.len() as u64);
            assert_eq!(group.block_count() + 1, members["output_positions"].data.len() / 4);
            for (member, span) in group.members() {
                assert_eq!(span.len, members[member].data.len() as u64, "{name} {} {member}", group.name());
            }
        }
    }
}

#[test]
fn data_offsets_are_unaligned() {
    let model = open(golden::model("edge"));
    let mut odd = 0;
    for path in files::golden_files("edge") {
        let bytes = std::fs::read(path).unwrap();
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in file.iter().filter(|(name, _)| name.ends_with(".output_positions")) {
            let at = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            assert!(at >= start, "{name}");
            odd += at % 4;
        }
    }
    assert!(odd > 10, "{odd}");
    check::is_original(&model, "edge");

    // Every alignment of every member, in a file mapped, read, and in memory.
    let folder = tempfile::tempdir().unwrap();
    let want = check::tensors(&open(golden::model("tiny")));
    for pad in 0..16 {
        let mut tensors = files::stored("tiny");
        // Of the same type and first by name, it moves all of them.
        tensors.push(Stored::new("a", Dtype::U8, &[pad], vec![7; pad]));
        let bytes = files::file(&tensors);
        let path = folder.path().join("m.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let opened = |read| Model::open(&path, &OpenOptions { read, ..Default::default() }).unwrap();
        for model in [Model::from_bytes(bytes, &OpenOptions::default()).unwrap(), opened(false), opened(true)] {
            let mut found = check::tensors(&model);
            assert_eq!(found.remove("a"), Some(vec![7; pad]));
            assert!(found == want, "{pad}");
            host::verify(&model, 0, 1).unwrap();
        }
    }
}

#[test]
fn a_groups_members_lie_in_six_different_files() {
    const NAMES: [&str; 6] = ["zz-5", " 1 ", "model-00001-of-00002", "β", "a.b.c", "0"];
    for golden in ["tiny", "edge_patched", "sharded"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), files::golden_config(golden)).unwrap();
        for (member, file) in files::MEMBERS.iter().zip(NAMES) {
            let mut tensors = files::stored(golden);
            // The plain ones go with the gaps.
            tensors.retain(|t| files::member_of(&t.name).map_or("gaps", |(_, m)| m) == *member);
            std::fs::write(folder.path().join(format!("{file}.safetensors")), files::file(&tensors)).unwrap();
        }
        for read in [false, true] {
            let model = Model::open(folder.path(), &OpenOptions { read, ..Default::default() }).unwrap();
            assert_eq!(model.files().count(), 6);
            check::is_original(&model, golden);
        }
    }
}

#[test]
fn an_index_that_lists_less_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    files::copy(&golden::model("sharded"), folder.path());
    let index = r#"{"metadata": {"total_size": 256}, "weight_map": {"model.norm.weight": "model.safetensors", "no.such.tensor": "no-such-file.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    check::is_original(&open(folder.path()), "sharded");
}

#[test]
fn without_a_config_tensors_are_named_after_their_group() {
    // The reference's names are the config's; without one only groups of one tensor get theirs.
    let folder = tempfile::tempdir().unwrap();
    for path in files::golden_files("sharded") {
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let model = open(folder.path());
    assert!(model.config().is_none());
    let (found, want) = (check::tensors(&model), check::tensors(&open(golden::model("sharded"))));
    assert!(found["lm_head.weight"] == want["lm_head.weight"]);
    assert!(found["model.embed_tokens.weight"] == want["model.embed_tokens.weight"]);
    for layer in ["model.layers.0", "model.layers.1"] {
        let attributes = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
        let attributes = attributes.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
        for (i, attribute) in attributes.enumerate() {
            assert!(found[&format!("{layer}.part_{i}")] == want[&format!("{layer}.{attribute}.weight")]);
        }
        // The module's plain tensors keep their names.
        assert!(found.contains_key(&format!("{layer}.input_layernorm.weight")));
    }
    assert_eq!(found.len(), want.len());

    let alone = folder.path().join("model_layers_0.safetensors");
    assert_eq!(open(&alone).tensors()[6].name(), "model.layers.0.part_6");
    let bytes = Model::from_bytes(std::fs::read(&alone).unwrap(), &OpenOptions::default()).unwrap();
    assert_eq!(bytes.tensors()[6].name(), "model.layers.0.part_6");
}

#[test]
fn the_caller_gives_a_config() {
    let options = with_config(&files::golden_config("block"));
    let bytes = std::fs::read(&files::golden_files("block")[0]).unwrap();
    check::is_original(&Model::from_bytes(bytes.clone(), &options).unwrap(), "block");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    std::fs::write(&file, bytes).unwrap();
    check::is_original(&Model::open(&file, &options).unwrap(), "block");
    // It stands in for the model's own, which is then not even read.
    std::fs::write(folder.path().join("config.json"), "{ no JSON").unwrap();
    check::is_original(&Model::open(folder.path(), &options).unwrap(), "block");
    assert_eq!(Model::open(folder.path(), &OpenOptions::default()).unwrap_err().status(), Status::InvalidFormat);
    // Other names in it, other names of the tensors.
    let other = files::config("0.5.0", r#"{"model\\.layers\\.0": ["1", "2", "3", "4", "5", "6", "7"]}"#);
    let model = Model::open(&file, &with_config(&other)).unwrap();
    assert!(model.find_tensor("model.layers.0.7.weight").is_some());
    assert!(model.find_tensor("model.layers.1.part_6").is_some());
}

#[test]
fn a_config_beside_a_single_file_is_used() {
    let file = golden::model("block").join("model.safetensors");
    let model = open(&file);
    assert_eq!(model.config().unwrap().version(), "0.5.0");
    check::is_original(&model, "block");

    // What lies there may belong to something else; a config of DF11 that cannot be used does not.
    let folder = tempfile::tempdir().unwrap();
    let (copy, config) = (folder.path().join("model.safetensors"), folder.path().join("config.json"));
    std::fs::copy(file, &copy).unwrap();
    for foreign in ["", "[1, 2", "[]", "7", r#"{"model_type": "llama"}"#, r#"{"dfloat11_config": 5}"#] {
        std::fs::write(&config, foreign).unwrap();
        let model = open(&copy);
        assert!(model.config().is_none() && model.find_tensor("lm_head.weight").is_some(), "{foreign}");
    }
    std::fs::write(&config, files::config("0.7.0", "{}")).unwrap();
    assert_eq!(Model::open(&copy, &OpenOptions::default()).unwrap_err().status(), Status::UnsupportedFormat);
}

#[test]
fn versions_from_0_2_0_to_0_5_0() {
    let bytes = std::fs::read(&files::golden_files("tiny")[0]).unwrap();
    for version in ["0.2.0", "0.3.1", "0.3.2", "0.4.0", "0.5.0"] {
        let options = with_config(&files::config(version, r#"{"linear": []}"#));
        let model = Model::from_bytes(bytes.clone(), &options).unwrap();
        assert_eq!(model.config().unwrap().version(), version);
        check::is_original(&model, "tiny");
    }
    for version in ["0.1.9", "0.6.0", "1.0.0", "0.5", "5", "0.5.0-rc1", " 0.5.0", "0.-5.0", "0.5.99999999999"] {
        let options = with_config(&files::config(version, r#"{"linear": []}"#));
        let error = Model::from_bytes(bytes.clone(), &options).unwrap_err();
        assert_eq!(error.status(), Status::UnsupportedFormat, "{version}");
        let options = OpenOptions { any_version: true, ..options };
        check::is_original(&Model::from_bytes(bytes.clone(), &options).unwrap(), "tiny");
    }
}

#[test]
fn configs_of_diffusers_releases_have_two_keys() {
    let two = r#"{"dfloat11_config": {"version": "0.3.1", "threads_per_block": [512], "bytes_per_thread": 8,
                  "pattern_dict": {"linear": []}}, "model_type": "flux"}"#;
    let folder = tempfile::tempdir().unwrap();
    files::copy(&golden::model("tiny"), folder.path());
    std::fs::write(folder.path().join("config.json"), two).unwrap();
    check::is_original(&open(folder.path()), "tiny");
    // Other numbers of threads and bytes may be left out, as in a single file.
    let fewest = r#"{"dfloat11_config": {"pattern_dict": {"linear": []}}}"#;
    std::fs::write(folder.path().join("config.json"), fewest).unwrap();
    let model = open(folder.path());
    assert_eq!(model.config().unwrap().version(), "");
    check::is_original(&model, "tiny");
}

#[test]
fn an_empty_list_means_the_modules_own_weight() {
    for golden in ["block", "sharded"] {
        let model = open(golden::model(golden));
        for name in ["lm_head", "model.embed_tokens"] {
            assert_eq!(model.config().unwrap().attributes(name), Some(&[][..]));
            let group = &model.groups()[model.find_group(name).unwrap()];
            assert_eq!(group.tensors().len(), 1);
            let tensor = &model.tensors()[group.tensors().start];
            assert_eq!(tensor.name(), format!("{name}.weight"));
            assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::BF16, &[group.element_count()][..]));
        }
        assert_eq!(model.groups()[model.find_group("model.layers.1").unwrap()].tensors().len(), 7);
        check::is_original(&model, golden);
    }
}

#[test]
fn patterns_are_pythons() {
    let bytes = std::fs::read(&files::golden_files("block")[0]).unwrap();
    let list = r#"["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                   "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]"#;
    for pattern in [
        r"model\\.layers\\.\\d++",
        r"model\\.layers\\.\\d*+[0-9]?",
        r"model\\.(?:layers)\\.(0|1)",
        r"(?P<a>model)\\.layers\\.[\\d]{1,3}",
        r"^model\\.layers\\.\\w+$",
        r"model\\.layers\\.0|model\\.layers\\.1",
        r"(?i)MODEL\\.LAYERS\\.\\d",
        r"[^lx](?s:.)*ers\\.\\d",
        r".*\\.layers\\..*?",
    ] {
        let patterns = format!(r#"{{"{pattern}": {list}}}"#);
        let model = Model::from_bytes(bytes.clone(), &with_config(&files::config("0.5.0", &patterns)));
        check::is_original(&model.unwrap_or_else(|error| panic!("{pattern}: {error}")), "block");
    }
}

#[test]
fn plain_tensors_of_every_dtype() {
    use Dtype::*;
    let all = [
        BOOL,
        F4,
        F6_E2M3,
        F6_E3M2,
        U8,
        I8,
        F8_E5M2,
        F8_E4M3,
        F8_E8M0,
        F8_E4M3FNUZ,
        F8_E5M2FNUZ,
        I16,
        U16,
        F16,
        BF16,
        I32,
        U32,
        F32,
        C64,
        F64,
        I64,
        U64,
    ];
    let mut tensors = files::stored("tiny");
    for (i, dtype) in all.into_iter().enumerate() {
        // Eight elements take whole bytes of every type.
        let data: Vec<u8> = (0..dtype.bitsize()).map(|byte| (byte * 31 + i) as u8).collect();
        tensors.push(Stored::new(&format!("plain.{dtype}"), dtype, &[2, 4], data));
        tensors.push(Stored::new(&format!("empty.{dtype}"), dtype, &[0, 3], Vec::new()));
    }
    tensors.push(Stored::new("scalar", F64, &[], vec![1; 8]));
    let bytes = files::file(&tensors);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
    for read in [false, true] {
        let model = Model::open(folder.path(), &OpenOptions { read, ..Default::default() }).unwrap();
        for stored in tensors.iter().filter(|t| files::member_of(&t.name).is_none()) {
            let tensor = &model.tensors()[model.find_tensor(&stored.name).unwrap()];
            let shape: Vec<u64> = stored.shape.iter().map(|&d| d as u64).collect();
            assert_eq!((tensor.dtype(), tensor.shape()), (stored.dtype, &shape[..]));
            assert_eq!(tensor.bytes(), stored.data.len() as u64);
            let mut found = vec![0; stored.data.len()];
            model.read_plain(tensor, 0, &mut found).unwrap();
            assert_eq!(found, stored.data, "{}", stored.name);
            assert_eq!(model.plain(tensor), (!read).then_some(&stored.data[..]));
            let Data::Plain(span) = tensor.data() else { panic!("{}", stored.name) };
            let at = model.locate(span);
            let file = std::fs::read(at.file).unwrap();
            assert_eq!(file[at.offset as usize..][..at.bytes as usize], stored.data);
        }
    }
    // The reference's own: f32, i64, bool, f16, no dimension, no element, infinities and NaN.
    check::is_original(&open(golden::model("edge")), "edge");
}

/// Everything that a model says of itself and all of its bytes.
fn everything(model: &Model) -> Vec<(String, Dtype, Vec<u64>, Vec<u8>)> {
    let bytes = check::tensors(model);
    let tensor = |t: &df11::Tensor| (t.name().into(), t.dtype(), t.shape().to_vec(), bytes[t.name()].clone());
    model.tensors().iter().map(tensor).collect()
}

#[test]
fn a_folder_a_file_and_memory_mapped_or_read_are_the_same_model() {
    for golden in ["tiny", "edge", "edge_patched", "block"] {
        let folder = golden::model(golden);
        let file = &files::golden_files(golden)[0];
        let read = OpenOptions { read: true, ..Default::default() };
        let config = with_config(&files::golden_config(golden));
        let want = everything(&open(&folder));
        assert_eq!(want.len(), golden::expected(golden).len());
        let others = [
            Model::open(&folder, &read).unwrap(),
            open(file),
            Model::open(file, &read).unwrap(),
            Model::from_bytes(std::fs::read(file).unwrap(), &config).unwrap(),
        ];
        for (i, other) in others.iter().enumerate() {
            assert!(everything(other) == want, "{golden}: {i}");
        }
    }
}

#[cfg(unix)]
#[test]
fn files_may_be_links() {
    use std::os::unix::fs::symlink;
    // As a download cache lays a model out: names that link to blobs, and a link to the folder.
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshot"));
    std::fs::create_dir(&blobs).unwrap();
    std::fs::create_dir(&snapshot).unwrap();
    for (i, entry) in std::fs::read_dir(golden::model("sharded")).unwrap().enumerate() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, blobs.join(i.to_string())).unwrap();
        symlink(Path::new("../blobs").join(i.to_string()), snapshot.join(path.file_name().unwrap())).unwrap();
    }
    let link = cache.path().join("main");
    symlink(&snapshot, &link).unwrap();
    check::is_original(&open(link), "sharded");
}

#[test]
fn hidden_files_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    files::copy(&golden::model("tiny"), folder.path());
    // What some systems leave beside each file of an archive; it is no safetensors file.
    std::fs::write(folder.path().join("._model.safetensors"), [0, 5, 22, 7]).unwrap();
    std::fs::write(folder.path().join(".safetensors"), []).unwrap();
    std::fs::write(folder.path().join("model.safetensors.tmp"), [1]).unwrap();
    std::fs::write(folder.path().join("model.SAFETENSORS.bak"), [1]).unwrap();
    std::fs::create_dir(folder.path().join("original")).unwrap();
    let model = open(folder.path());
    assert_eq!(model.files().count(), 1);
    check::is_original(&model, "tiny");
}

#[test]
fn shapes_of_compressed_tensors_come_from_the_metadata() {
    let weights = weights::gaussian(60, 0.02, 1);
    let members = encoder::group_tensors("g", &encoder::encode(&weights, &[12, 12, 36]));
    let shapes = r#"{"g.part_0": [3, 4], "g.part_1": [7, 0], "g.part_2": [1, 2, 3, 4], "no such": [1, 9]}"#;
    let metadata = [(SHAPES_KEY.to_owned(), shapes.to_owned()), ("format".to_owned(), "pt".to_owned())];
    let file = encoder::safetensors(&members, Some(&metadata));
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    let found: Vec<_> = model.tensors().iter().map(|t| t.shape().to_vec()).collect();
    assert_eq!(found, [vec![3, 4], vec![7, 0], vec![1, 2, 3, 4], vec![24]]);
    let found: Vec<_> = model.tensors().iter().map(|t| t.data()).collect();
    let packed = |first| Data::Packed { group: 0, first };
    assert_eq!(found, [packed(0), packed(12), packed(12), packed(36)]);

    // Another file of the model may carry them.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.safetensors"), encoder::safetensors(&members, None)).unwrap();
    std::fs::write(folder.path().join("a.safetensors"), encoder::safetensors(&[], Some(&metadata))).unwrap();
    assert_eq!(open(folder.path()).tensors()[2].shape(), [1, 2, 3, 4]);
}

#[test]
fn hashes_come_from_the_metadata() {
    let mut members = encoder::group_tensors("g", &encoder::encode(&weights::gaussian(60, 0.02, 1), &[12]));
    members.push(("flags".into(), "U8", vec![1], vec![7]));
    let (ones, mixed) = ("11".repeat(32), "0aF0".repeat(16));
    let hashes = format!(r#"{{"g.part_0": "{ones}", "flags": "{mixed}", "no such": "{ones}"}}"#);
    let metadata = [(HASHES_KEY.to_owned(), hashes)];
    let found = |model: &Model| {
        let hash = |t: &df11::Tensor| (t.name().to_owned(), t.sha256().copied());
        model.tensors().iter().map(hash).collect::<Vec<_>>()
    };
    let mixed = std::array::from_fn(|i| [0x0a, 0xf0][i % 2]);
    let all = [("g.part_0", Some([0x11; 32])), ("g.part_1", None), ("flags", Some(mixed))];
    let all = all.map(|(name, hash)| (name.to_owned(), hash));
    let model = Model::from_bytes(encoder::safetensors(&members, Some(&metadata)), &OpenOptions::default()).unwrap();
    assert_eq!(found(&model), all);

    // Another file of the model may carry them.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.safetensors"), encoder::safetensors(&members, None)).unwrap();
    std::fs::write(folder.path().join("a.safetensors"), encoder::safetensors(&[], Some(&metadata))).unwrap();
    assert_eq!(found(&open(folder.path())), all);
}

#[test]
fn a_name_like_a_members_does_not_make_a_group() {
    let tensors = [
        Stored::new("x.gaps", Dtype::F32, &[1], vec![0; 4]),
        Stored::new("luts", Dtype::U8, &[2], vec![1; 2]),
        Stored::new("gaps", Dtype::U8, &[2], vec![2; 2]),
    ];
    let model = Model::from_bytes(files::file(&tensors), &OpenOptions::default()).unwrap();
    assert_eq!((model.groups().len(), model.tensors().len()), (0, 3));
}

// Opening is cheap

#[test]
fn a_model_of_400_groups_opens_in_milliseconds() {
    let mut tensors = Vec::new();
    for layer in 0..400 {
        let encoded = encoder::encode(&weights::gaussian(500, 0.02, layer), &[200, 300]);
        tensors.extend(encoder::group_tensors(&format!("model.layers.{layer}"), &encoded));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), encoder::safetensors(&tensors, None)).unwrap();
    let config = files::config("0.5.0", r#"{"model\\.layers\\.\\d+": ["a", "b", "c"]}"#);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let start = Instant::now();
    let model = open(folder.path());
    let took = start.elapsed();
    assert_eq!((model.groups().len(), model.tensors().len()), (400, 1200));
    assert_eq!(model.groups()[10].name(), "model.layers.10");
    // About 10 ms on one core; the bound is for machines that do much else.
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// Bytes of memory that this process holds.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// 400 groups of 20 million weights, of which only the header, the rows and the positions are there: the rest are holes
/// of the file. Opening that in no time and in little memory shows that nothing else is looked at.
#[cfg(target_os = "linux")]
#[test]
fn open_reads_nothing_but_headers_rows_and_positions() {
    use std::fmt::Write;
    use std::os::unix::fs::FileExt;
    const GROUPS: usize = 400;
    const BLOCKS: usize = 1700;
    const PER_BLOCK: usize = 12_000;
    let luts = encoder::luts(&encoder::canonical(&[(120, 1), (121, 2), (122, 31)], 32));
    let positions: Vec<u8> = (0..=BLOCKS).flat_map(|k| ((k * PER_BLOCK) as u32).to_le_bytes()).collect();
    let sizes = [luts.len(), 4096 * BLOCKS, PER_BLOCK * BLOCKS, positions.len(), 320 * BLOCKS, 0];
    let (mut header, mut at, mut pieces) = (String::from("{"), 0, Vec::new());
    for group in 0..GROUPS {
        for (member, len) in files::MEMBERS.into_iter().zip(sizes) {
            let (dtype, shape) = match member {
                "luts" => ("U8", format!("{}, 256", len / 256)),
                "split_positions" => ("I64", "0".into()),
                _ => ("U8", len.to_string()),
            };
            let comma = if at == 0 { "" } else { "," };
            write!(
                header,
                r#"{comma}"layers.{group}.{member}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{at},{}]}}"#,
                at + len
            )
            .unwrap();
            match member {
                "luts" => pieces.push((at, &luts)),
                "output_positions" => pieces.push((at, &positions)),
                _ => {}
            }
            at += len;
        }
    }
    header.push('}');
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let file = std::fs::File::create(&path).unwrap();
    let head = files::raw(&header, &[]);
    file.set_len((head.len() + at) as u64).unwrap();
    file.write_all_at(&head, 0).unwrap();
    for (offset, piece) in pieces {
        file.write_all_at(piece, (head.len() + offset) as u64).unwrap();
    }
    for read in [false, true] {
        let before = resident_bytes();
        let start = Instant::now();
        let model = Model::open(&path, &OpenOptions { read, ..Default::default() }).unwrap();
        let (took, grown) = (start.elapsed(), resident_bytes().saturating_sub(before));
        assert_eq!(model.groups().len(), GROUPS);
        let weights: u64 = model.groups().iter().map(|g| g.element_count()).sum();
        assert_eq!(weights, (GROUPS * BLOCKS * PER_BLOCK) as u64);
        // Some 30 ms and, mapped, some pages around each of 1,200 places; what other tests hold is in it too.
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(grown < 256 << 20, "{grown} bytes of {}", head.len() + at);
    }
}
