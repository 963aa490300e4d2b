//! Every quirk of the format, shown by a file of `tests/data/golden` that has it. Each test first checks that the file does have the
//! quirk, then that the model opens, decodes to its original, and verifies.

mod codes;
mod configs;
mod containers;
mod cost;
mod runs;
mod shapes;
use crate::support;

use std::collections::HashMap;
use std::path::Path;

use df11::{DecodeOptions, Dtype, Model, OpenOptions};
use support::files::{self, Stored};
use support::golden;

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

    /// Returns the first bit of every weight's code, then the bit after the last, decoded with the reference's own words.
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

/// Reads every group of the golden models of these names.
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
    OpenOptions::new().config(config)
}

/// Opens, verifies and decodes a model of one group. Returns the weights.
fn decode_only_group(file: Vec<u8>) -> Vec<u16> {
    let model = Model::from_bytes(file, &OpenOptions::default()).unwrap();
    assert_eq!(model.groups().len(), 1);
    let mut weights = vec![half::bf16::ZERO; model.group(0).unwrap().element_count() as usize];
    model.group(0).unwrap().decompress(0, &mut weights, &DecodeOptions::default()).unwrap();
    model.group(0).unwrap().verify(1).unwrap();
    weights.into_iter().map(half::bf16::to_bits).collect()
}

/// Returns a file of one group with these members.
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

/// Asserts that a group with changed members decodes to the same weights.
fn same_weights(group: &Group, what: &str, change: impl FnOnce(&mut HashMap<&'static str, Vec<u8>>)) {
    let want = decode_only_group(file_of(&group.members));
    let mut members = group.members.clone();
    change(&mut members);
    assert!(members != group.members, "{}: {what}: nothing was changed", group.name);
    assert!(decode_only_group(file_of(&members)) == want, "{}: {what}", group.name);
}
