//! The summary of a model for `df11 inspect`, and its JSON.
//!
//! # The JSON
//!
//! One object. Keys are added, never renamed or taken away; `schema` rises if one must be. All sizes are in bytes, all
//! numbers of weights in elements. A value that is not known is `null`.
//!
//! ```text
//! schema          1
//! path            MODEL as it was given
//! config_version  dfloat11_config.version, or null
//! files[]         path, bytes
//! groups[]        name, tensors[] (names), extended (true if only libdf11 reads it), weights, blocks (of 4,096 bytes of codes),
//!                 stored {sign_mantissa, codes, gaps, positions, luts, splits, total},
//!                 bits_per_weight {the same keys} or null,
//!                 code_bits {shortest, longest, mean}, code_lengths {exponent: bits}
//! tensors[]       name, dtype, shape, shape_known, shape_source ("stored", "given", "derived" or null),
//!                 bytes (decoded), group (name) or null
//! totals          files, groups, tensors, weights (in groups), stored {the same keys, of all groups},
//!                 bits_per_weight {the same keys} or null, bf16 (bytes of the groups' weights, decoded),
//!                 plain (bytes of all tensors outside groups), decoded (bf16 + plain), file_bytes
//! missing[]       name, reason: what the model lacks, as far as that is known
//! ```
//!
//! `shape_known` is false for a tensor in a group whose shape nothing says: its shape is then its one length.

use crate::Failure;
use df11::{Group, Location, Model, ShapeSource, Tensor};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A model at a glance. The fields have the meaning of the keys of the same names.
#[derive(Serialize)]
pub struct Summary {
    schema: u32,
    pub path: String,
    pub config_version: Option<String>,
    pub files: Vec<FileSummary>,
    pub groups: Vec<GroupSummary>,
    pub tensors: Vec<TensorSummary>,
    pub totals: Totals,
    pub missing: Vec<Absent>,
}

/// A thing that the model lacks.
#[derive(Serialize)]
pub struct Absent {
    name: String,
    pub reason: String,
}

/// A file of the model.
#[derive(Serialize)]
pub struct FileSummary {
    path: String,
    bytes: u64,
}

/// A group.
#[derive(Serialize)]
pub struct GroupSummary {
    pub name: String,
    pub tensors: Vec<String>,
    pub extended: bool,
    pub weights: u64,
    blocks: u64,
    pub stored: Members<u64>,
    bits_per_weight: Option<Members<f64>>,
    pub code_bits: CodeBits,
    code_lengths: BTreeMap<u8, u8>,
}

/// A tensor.
#[derive(Serialize)]
pub struct TensorSummary {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub shape_known: bool,
    pub shape_source: Option<&'static str>,
    pub bytes: u64,
    pub group: Option<String>,
    /// Which of its group's tensors it is.
    #[serde(skip)]
    pub place_in_group: Option<usize>,
}

/// All together.
#[derive(Serialize)]
pub struct Totals {
    files: u64,
    groups: u64,
    tensors: u64,
    pub weights: u64,
    pub stored: Members<u64>,
    pub bits_per_weight: Option<Members<f64>>,
    pub bf16: u64,
    pub plain: u64,
    pub decoded: u64,
    pub file_bytes: u64,
}

/// A value for each member of a group, and for all of them.
#[derive(Serialize, Clone, Copy, Default)]
pub struct Members<T> {
    /// Signs and mantissas, as they were.
    pub sign_mantissa: T,
    /// The code words.
    pub codes: T,
    /// The bit at which the first code of each chunk starts.
    pub gaps: T,
    /// The first weight of each block.
    pub positions: T,
    /// Look-up rows and code lengths.
    pub luts: T,
    /// The elements at which the weights are cut into tensors.
    pub splits: T,
    /// All of it.
    pub total: T,
}

/// Bits of a group's code words.
#[derive(Serialize, Clone, Copy)]
pub struct CodeBits {
    pub shortest: Option<u8>,
    pub longest: Option<u8>,
    /// Weighted by use.
    pub mean: Option<f64>,
}

impl Members<u64> {
    fn add(&mut self, other: &Self) {
        self.sign_mantissa += other.sign_mantissa;
        self.codes += other.codes;
        self.gaps += other.gaps;
        self.positions += other.positions;
        self.luts += other.luts;
        self.splits += other.splits;
        self.total += other.total;
    }

    /// Returns the same in bits per weight.
    pub fn per_weight(&self, weights: u64) -> Option<Members<f64>> {
        let bits = |bytes: u64| 8.0 * bytes as f64 / weights as f64;
        (weights > 0).then(|| Members {
            sign_mantissa: bits(self.sign_mantissa),
            codes: bits(self.codes),
            gaps: bits(self.gaps),
            positions: bits(self.positions),
            luts: bits(self.luts),
            splits: bits(self.splits),
            total: bits(self.total),
        })
    }
}

impl Summary {
    /// Looks at an open model.
    pub fn new(path: &Path, model: &Model) -> Result<Summary, Failure> {
        let file = |f: Location| FileSummary { path: f.file.display().to_string(), bytes: f.bytes };
        let files: Vec<FileSummary> = model.files().map(file).collect();
        let groups: Vec<GroupSummary> = model.groups().map(GroupSummary::new).collect();
        let tensors: Vec<TensorSummary> = model.tensors().map(TensorSummary::new).collect();
        let mut stored = Members::default();
        groups.iter().for_each(|g| stored.add(&g.stored));
        let weights = groups.iter().map(|g| g.weights).sum();
        let plain = tensors.iter().filter(|t| t.group.is_none()).map(|t| t.bytes).sum();
        let totals = Totals {
            files: files.len() as u64,
            groups: groups.len() as u64,
            tensors: tensors.len() as u64,
            weights,
            stored,
            bits_per_weight: stored.per_weight(weights),
            bf16: 2 * weights,
            plain,
            decoded: 2 * weights + plain,
            file_bytes: files.iter().map(|f| f.bytes).sum(),
        };
        let config_version = model.config().map(|c| c.version().to_owned()).filter(|v| !v.is_empty());
        let absent = |missing: df11::Missing| Absent { name: missing.name, reason: missing.reason };
        let missing = model.missing()?.into_iter().map(absent).collect();
        let path = path.display().to_string();
        Ok(Summary { schema: 1, path, config_version, files, groups, tensors, totals, missing })
    }

    /// Returns the text that `--json` prints.
    pub fn json(&self) -> Result<String, Failure> {
        let text = serde_json::to_string_pretty(self);
        text.map(|t| t + "\n").map_err(|e| Failure::cannot(format!("cannot write the JSON: {e}")))
    }
}

impl GroupSummary {
    fn new(group: Group) -> Self {
        let mut stored = Members::default();
        for part in group.parts() {
            stored.total += part.location.bytes;
            *match part.name {
                "sign_mantissa" => &mut stored.sign_mantissa,
                "encoded_exponent" => &mut stored.codes,
                "gaps" => &mut stored.gaps,
                "output_positions" => &mut stored.positions,
                "luts" => &mut stored.luts,
                _ => &mut stored.splits,
            } = part.location.bytes;
        }
        let weights = group.element_count();
        let code_lengths: BTreeMap<u8, u8> = (0..=255).zip(*group.code_lengths()).filter(|&(_, len)| len > 0).collect();
        let bits_per_weight = stored.per_weight(weights);
        let longest = code_lengths.values().max().copied();
        GroupSummary {
            name: group.name().to_owned(),
            tensors: group.tensors().map(|t| t.name().to_owned()).collect(),
            extended: group.is_extended(),
            weights,
            blocks: group.block_count() as u64,
            stored,
            bits_per_weight,
            code_bits: CodeBits {
                shortest: code_lengths.values().min().copied(),
                longest,
                // In a group of a few weights the bits that fill the last byte would weigh more than the codes.
                mean: bits_per_weight.map(|b| longest.map_or(b.codes, |most| b.codes.min(f64::from(most)))),
            },
            code_lengths,
        }
    }
}

impl TensorSummary {
    fn new(tensor: Tensor) -> Self {
        let group = tensor.group();
        TensorSummary {
            name: tensor.name().to_owned(),
            dtype: tensor.dtype().to_string(),
            shape: tensor.shape().to_vec(),
            shape_known: tensor.shape_known(),
            shape_source: match tensor.shape_source() {
                ShapeSource::Stored => Some("stored"),
                ShapeSource::Given => Some("given"),
                ShapeSource::Derived => Some("derived"),
                _ => None,
            },
            bytes: tensor.bytes(),
            group: group.map(|g| g.name().to_owned()),
            place_in_group: group.and_then(|g| g.tensors().position(|t| t.number() == tensor.number())),
        }
    }
}
