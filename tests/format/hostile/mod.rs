//! Files that must be refused, one for each check. [`cases`] lists how each is made from a small good group that is spoilt in one
//! place, and what the error must say. The files are kept in `tests/data/hostile` for other tools, bindings and fuzzers; `DF11_BLESS=1 cargo test --test format hostile` writes them anew.

mod changing;
mod codes;
mod headers;
mod limits;
mod runs;
use crate::support;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use df11::internals::format::{HASHES_KEY, SHAPES_KEY};
use df11::internals::huffman::decode::Variant;
use df11::{DecodeOptions, Error, Model, OpenOptions, Status};
use half::bf16;
use support::encoder::{self, Codes, Encoded, Tensor};
use support::files;
use support::weights::Random;

/// The files of a model.
enum Files {
    /// One file, `NAME.safetensors`.
    One(Vec<u8>),
    /// A folder of files, `NAME/`.
    Folder(Vec<(&'static str, Vec<u8>)>),
}

/// The step that finds the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    /// The model opens, but neither decodes nor verifies.
    Decode,
    /// The model opens and decodes; only verification, which walks every code, finds the fault.
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
    /// What the message of verification must contain, if it differs from that of decoding.
    verify_says: Vec<String>,
    /// The file that the message must name; `None` for the only file.
    file: Option<&'static str>,
    /// The tensor that the message must name, and the byte in it.
    tensor: Option<(String, Option<u64>)>,
}

impl Case {
    fn new(name: &'static str, files: Files, step: Step, status: Status) -> Case {
        Case { name, files, step, status, says: vec![], verify_says: vec![], file: None, tensor: None }
    }

    /// Adds words of the message.
    fn says(mut self, words: &[&str]) -> Case {
        self.says.extend(words.iter().map(|w| w.to_string()));
        self
    }

    /// Adds words of the message of verification.
    fn verify_says(mut self, words: &[&str]) -> Case {
        self.verify_says.extend(words.iter().map(|w| w.to_string()));
        self
    }

    /// Sets the file of a folder that the message names.
    fn in_file(mut self, file: &'static str) -> Case {
        self.file = Some(file);
        self
    }

    /// Sets the tensor that the message names.
    fn names(mut self, tensor: &str) -> Case {
        self.tensor = Some((tensor.into(), None));
        self
    }

    /// Sets the tensor that the message names, and the byte in it.
    fn at(mut self, tensor: &str, byte: usize) -> Case {
        self.tensor = Some((tensor.into(), Some(byte as u64)));
        self
    }

    /// Returns the paths of the files, relative to the folder of all cases, and their bytes.
    fn paths(&self) -> Vec<(PathBuf, &[u8])> {
        match &self.files {
            Files::One(bytes) => vec![(format!("{}.safetensors", self.name).into(), bytes)],
            Files::Folder(files) => files.iter().map(|(f, b)| (Path::new(self.name).join(f), &b[..])).collect(),
        }
    }

    /// Returns the path that is opened, relative to the folder of all cases.
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

/// Returns weights that repeat these exponents.
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

/// Returns the file of a group with changed members.
fn spoilt(mut e: Encoded, change: impl FnOnce(&mut Encoded)) -> Vec<u8> {
    let before = e.clone();
    change(&mut e);
    assert!(e != before, "nothing was changed");
    file(&e)
}

/// Returns the file of the small group with changed tensors: names, types, shapes.
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

/// Returns a file of one plain tensor of 4 bytes with this entry in the header.
fn plain(header: &str) -> Vec<u8> {
    files::raw(header, &[1, 2, 3, 4])
}

fn folder(config: &str) -> Files {
    let model = plain(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#);
    Files::Folder(vec![("config.json", config.into()), ("model.safetensors", model)])
}

/// Makes a folder with a config that cannot be used.
fn config(name: &'static str, inner: &str, status: Status) -> Case {
    let config = format!(r#"{{"dfloat11_config": {inner}}}"#);
    Case::new(name, folder(&config), Step::Open, status).in_file("config.json")
}

/// Makes a folder with the small group and a config of this `pattern_dict`.
fn named(name: &'static str, patterns: &str) -> Case {
    let files =
        vec![("config.json", files::config("0.5.0", patterns).into_bytes()), ("model.safetensors", file(&base()))];
    Case::new(name, Files::Folder(files), Step::Open, Status::InvalidFormat)
}

/// Returns the small group with shapes in its metadata.
fn shapes(name: &'static str, shapes: &str, status: Status) -> Case {
    let metadata = [(SHAPES_KEY.to_owned(), shapes.to_owned())];
    open_fails(name, encoder::safetensors(&members(&base()), Some(&metadata)), status)
}

/// Returns the small group with hashes in its metadata.
fn hashes(name: &'static str, hashes: &str) -> Case {
    let metadata = [(HASHES_KEY.to_owned(), hashes.to_owned())];
    open_fails(name, encoder::safetensors(&members(&base()), Some(&metadata)), Status::InvalidFormat)
        .says(&[HASHES_KEY])
}

/// Lists every case.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(headers::containers());
    all.extend(headers::groups());
    all.extend(runs::runs());
    all.extend(codes::tables());
    all.extend(codes::positions());
    all.extend(headers::configs());
    all.extend(codes::streams());
    all
}

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile")
}

/// Returns what [`outcome`] returns, or the text of its panic.
fn outcome_or_panic(open: impl FnOnce() -> Result<Model, Error>) -> Result<Option<Refusal>, String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| outcome(open))).map_err(|p| {
        format!("a panic: {:?}", p.downcast_ref::<&str>().map(|s| s.to_string()).or(p.downcast_ref().cloned()))
    })
}

/// The step that failed with its error, and the error of verification for a model that does not decode.
struct Refusal {
    step: Step,
    error: Error,
    verify: Option<Error>,
}

/// Opens, decodes and verifies a model. Returns `None` if no step refuses it.
fn outcome(open: impl FnOnce() -> Result<Model, Error>) -> Option<Refusal> {
    let model = match open() {
        Ok(model) => model,
        Err(error) => return Some(Refusal { step: Step::Open, error, verify: None }),
    };
    let (mut decoded, mut verified) = (None, None);
    for group in model.groups() {
        let mut weights = vec![bf16::ZERO; group.element_count() as usize];
        for variant in Variant::ALL.into_iter().filter(|v| v.is_available()) {
            let options = DecodeOptions::new().threads(1).variant(variant);
            decoded = decoded.or(group.decompress(0, &mut weights, &options).err());
        }
        verified = verified.or(group.verify(1).err());
    }
    match (decoded, verified) {
        (Some(error), verify) => Some(Refusal { step: Step::Decode, error, verify }),
        (None, Some(error)) => Some(Refusal { step: Step::Verify, error, verify: None }),
        (None, None) => None,
    }
}

/// Compares an error with what the case expects. Returns a description of what is wrong.
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

/// Returns where a tensor begins in a file. Parses the header itself, because the safetensors crate refuses many of these files.
fn offset_of(file: &[u8], tensor: &str) -> u64 {
    let len = u64::from_le_bytes(file[..8].try_into().unwrap());
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + len as usize]).unwrap();
    8 + len + header[tensor]["data_offsets"][0].as_u64().unwrap()
}

/// Messages have no control characters, and are short enough for the error struct of C.
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
    assert!(total < 500_000, "{total} bytes");
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
        let mut ways = vec![
            ("mapped", outcome_or_panic(|| files::open(&path, false))),
            ("read", outcome_or_panic(|| files::open(&path, true))),
        ];
        if matches!(case.files, Files::One(_)) {
            ways.push(("in memory", outcome_or_panic(|| Model::from_bytes(bytes.clone(), &OpenOptions::new()))));
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
