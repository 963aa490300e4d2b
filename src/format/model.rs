//! A model: all files together, their groups and their tensors.

use super::config::Config;
use super::group::{Group, MEMBERS};
use super::source::{MOST_HEADER_BYTES, Source, Span, open_regular};
use crate::error::{Error, Place, Result, shorten};
use crate::progress::Progress;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Read the files piece by piece instead of mapping them. Slower, and safe against a file that is cut short while it
    /// is open (a mapped one then ends the process with SIGBUS).
    pub read: bool,
    /// Accept a `dfloat11_config.version` that this library does not know.
    pub any_version: bool,
    /// The text of a config.json to use instead of the model's own: for a file that comes without one, so that tensors
    /// inside groups get their names.
    pub config: Option<String>,
    /// Open only those files of a folder that its index lists, if it has one, and miss none of them, nor of their tensors;
    /// without an index only the file of the usual name, if there is one: for uncompressed models, beside which the same
    /// weights may lie in other files. A folder with a `dfloat11_config` is opened as always, for its index lists a part
    /// of it.
    pub indexed: bool,
}

/// An open DF11 model. It is immutable: any number of threads may use it.
///
/// A folder or file of plain safetensors is a model with no groups.
pub struct Model {
    sources: Vec<Source>,
    config: Option<Config>,
    groups: Vec<Group>,
    tensors: Vec<Tensor>,
    group_names: HashMap<String, usize>,
    tensor_names: HashMap<String, usize>,
}

/// A tensor of the original model.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    data: Data,
    bytes: u64,
    sha256: Option<[u8; 32]>,
}

/// Where a tensor's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// As they are, in a file.
    Plain(Span),
    /// In a group.
    Packed {
        /// The group.
        group: usize,
        /// Its first weight there, in elements.
        first: u64,
    },
}

/// Bytes of a file, for readers that bring their own input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location<'a> {
    /// The file's path; `memory` for a model opened from memory.
    pub file: &'a Path,
    /// The first byte, from the start of the file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Tensor {
    /// Its full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements, BF16 for those in groups.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its dimensions. DF11 does not store those of compressed tensors: such a one has one dimension, unless the file's
    /// metadata has its shape under [`super::SHAPES_KEY`].
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Whether its dimensions are its own. One dimension of a tensor in a group means that nobody wrote down which.
    pub fn shape_known(&self) -> bool {
        matches!(self.data, Data::Plain(_)) || self.shape.len() != 1
    }

    /// Bytes of its values, decoded.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its values are.
    pub fn data(&self) -> Data {
        self.data
    }

    /// The SHA-256 of its decoded values, if the file's metadata has it under [`super::HASHES_KEY`]. Opening compares it
    /// with nothing: [`crate::host::verify_model`] does.
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        self.sha256.as_ref()
    }
}

impl Model {
    /// Opens a folder with `*.safetensors`, or one such file. A `config.json` is looked for in the folder, or beside the
    /// file, where `NAME.config.json` of a `NAME.safetensors` comes first. Names that start with a dot are passed over, as Python's `glob` does.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        Self::open_watched(path.as_ref(), options, &Progress::new())
    }

    /// [`Model::open`] that can be cancelled between files. It counts nothing: headers take milliseconds, where nothing is
    /// in the way.
    pub(crate) fn open_watched(path: &Path, options: &OpenOptions, progress: &Progress) -> Result<Model> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        let (files, config) = if meta.is_dir() {
            if path.join(super::UNFINISHED).exists() {
                let reason =
                    "the folder is the unfinished output of a compression: it must be finished or merged first";
                return Err(Error::invalid(Place::file(path.display().to_string()), reason));
            }
            (safetensors_of(path)?, path.join("config.json"))
        } else {
            // One of its own comes before one that may be another file's.
            let own = path.with_extension("config.json");
            (vec![path.to_owned()], if own.is_file() { own } else { path.with_file_name("config.json") })
        };
        let config = match &options.config {
            Some(text) => Config::parse(text.as_bytes(), &Place::file("the caller's config"), options.any_version)?,
            None => match read_text(&config)? {
                None => None,
                Some(json) => {
                    let parsed = Config::parse(&json, &Place::file(config.display().to_string()), options.any_version);
                    match parsed {
                        // Beside a single file anything may lie; what is no JSON is not this model's.
                        Err(Error::InvalidFormat { reason, .. }) if !meta.is_dir() => {
                            log::warn!("'{}' is passed over: {reason}", config.display());
                            None
                        }
                        other => other?,
                    }
                }
            },
        };
        let indexed = options.indexed && config.is_none() && meta.is_dir();
        let files = if indexed { super::weights::files(path)? } else { files };
        let source = |file: &PathBuf| progress.check().and_then(|()| Source::open(file, !options.read));
        let model = Self::build(files.iter().map(source).collect::<Result<_>>()?, config, progress)?;
        if indexed {
            super::weights::check(path, &model)?;
        }
        Ok(model)
    }

    /// Opens these files, and no others, to be read piece by piece, with the text of a config if there is one.
    pub(crate) fn open_files(files: &[PathBuf], config: Option<&str>) -> Result<Model> {
        let config = match config {
            Some(text) => Config::parse(text.as_bytes(), &Place::file("config.json"), true)?,
            None => None,
        };
        let sources = files.iter().map(|f| Source::open(f, false)).collect::<Result<_>>()?;
        Self::build(sources, config, &Progress::new())
    }

    /// Opens one group of a file, to be read piece by piece: all else in it may be unfinished.
    pub(crate) fn open_group(file: &Path, group: &str) -> Result<Model> {
        let source = Source::open(file, false)?;
        let mut members: [Option<(TensorInfo, Span)>; 6] = Default::default();
        for (name, info, span) in source.header(0)?.tensors {
            if let Some((base, member)) = member_of(&name)
                && base == group
            {
                members[member] = Some((info, span));
            }
        }
        let members = members.each_ref().map(Option::as_ref);
        let Some(members) = all(&members) else {
            return Err(Error::invalid(source.place(), format!("there is no group '{}'", shorten(group, 80))));
        };
        Self::of_group(source, group, members)
    }

    /// The same for one whose members are known: type, shape, first byte in the file and bytes of each.
    pub(crate) fn open_members(file: &Path, group: &str, members: &[(Dtype, Vec<u64>, u64, u64); 6]) -> Result<Model> {
        let members = members.each_ref().map(|(dtype, shape, offset, len)| {
            let shape = shape.iter().map(|&d| d as usize).collect();
            let data_offsets = (*offset as usize, (offset + len) as usize);
            (TensorInfo { dtype: *dtype, shape, data_offsets }, Span { file: 0, offset: *offset, len: *len })
        });
        Self::of_group(Source::open(file, false)?, group, members.each_ref())
    }

    fn of_group(source: Source, group: &str, members: [&(TensorInfo, Span); 6]) -> Result<Model> {
        let group = Group::check(std::slice::from_ref(&source), group, members)?;
        let group_names = [(group.name().to_owned(), 0)].into();
        let (sources, groups) = (vec![source], vec![group]);
        Ok(Model { sources, config: None, groups, tensors: Vec::new(), group_names, tensor_names: HashMap::new() })
    }

    /// Opens the bytes of one safetensors file.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static, options: &OpenOptions) -> Result<Model> {
        let config = match &options.config {
            Some(text) => Config::parse(text.as_bytes(), &Place::file("the caller's config"), options.any_version)?,
            None => None,
        };
        Self::build(vec![Source::memory(Box::new(bytes))], config, &Progress::new())
    }

    fn build(sources: Vec<Source>, config: Option<Config>, progress: &Progress) -> Result<Model> {
        // Every tensor of every file, and the shapes and hashes that their metadata may carry.
        let mut entries: BTreeMap<String, (TensorInfo, Span)> = BTreeMap::new();
        let mut shapes: HashMap<String, (Vec<u64>, usize)> = HashMap::new();
        let mut hashes: HashMap<String, [u8; 32]> = HashMap::new();
        for (number, source) in sources.iter().enumerate() {
            progress.check()?;
            let header = source.header(number)?;
            for (name, info, span) in header.tensors {
                check_name(&name).map_err(|reason| Error::invalid(source.place().tensor(&name), reason))?;
                if let Some((_, other)) = entries.insert(name.clone(), (info, span)) {
                    let reason = format!("two files have this tensor: the other is '{}'", sources[other.file].name);
                    return Err(Error::invalid(source.place().tensor(name), reason));
                }
            }
            if let Some(text) = header.shapes {
                let parsed: HashMap<String, Vec<u64>> = serde_json::from_str(&text).map_err(|e| {
                    Error::invalid(source.place(), format!("the metadata '{}' is not valid: {e}", super::SHAPES_KEY))
                })?;
                shapes.extend(parsed.into_iter().map(|(name, shape)| (name, (shape, number))));
            }
            if let Some(text) = header.hashes {
                read_hashes(&text, &source.place(), &mut hashes)?;
            }
        }

        // Groups are known by the names of their members.
        let mut bases: BTreeMap<&str, [Option<&(TensorInfo, Span)>; 6]> = BTreeMap::new();
        for (name, entry) in &entries {
            if let Some((base, member)) = member_of(name) {
                bases.entry(base).or_default()[member] = Some(entry);
            }
        }
        // A tensor may be called `x.gaps` and be what it says. Two names of six are no accident.
        bases.retain(|_, members| members.iter().flatten().count() >= 2);
        let mut groups = Vec::with_capacity(bases.len());
        for (base, members) in &bases {
            if let Some(missing) = members.iter().position(Option::is_none) {
                let span = members.iter().flatten().next().map_or(0, |(_, span)| span.file);
                let place = sources[span].place().tensor(format!("{base}.{}", MEMBERS[missing]));
                return Err(Error::invalid(
                    place,
                    format!("the group '{}' lacks one of its six members", shorten(base, 80)),
                ));
            }
            let Some(members) = all(members) else { continue };
            progress.check()?;
            groups.push(Group::check(&sources, base, members)?);
        }
        groups.sort_by(|a, b| natural(a.name(), b.name()));

        // Tensors: those of each group in the order of their weights, then the plain ones. Names of tensors inside groups
        // are not in the files, so their length together is bounded here.
        let mut tensors = Vec::new();
        let mut name_bytes = 0;
        for (number, group) in groups.iter_mut().enumerate() {
            let from = tensors.len();
            let names = names_of(group, config.as_ref(), &sources)?;
            for (name, cut) in names.into_iter().zip(group.cuts().windows(2)) {
                let place = || group.place(&sources, super::Member::SplitPositions, 0);
                check_name(&name).map_err(|reason| Error::invalid(place(), format!("{reason}: '{name}'")))?;
                name_bytes += name.len();
                if name_bytes > MOST_NAME_BYTES {
                    let reason = format!("the names of the tensors in groups take more than {MOST_NAME_BYTES} bytes");
                    return Err(Error::unsupported(place(), reason));
                }
                let (first, count) = (cut[0], cut[1] - cut[0]);
                let shape = match shapes.remove(&name) {
                    None => vec![count],
                    Some((shape, file)) => {
                        if shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)) != Some(count) {
                            let reason =
                                format!("the metadata gives the shape {shape:?}, and there are {count} weights");
                            return Err(Error::corrupt(sources[file].place().tensor(name), reason));
                        }
                        shape
                    }
                };
                let data = Data::Packed { group: number, first };
                let sha256 = hashes.get(&name).copied();
                tensors.push(Tensor { name, dtype: Dtype::BF16, shape, data, bytes: 2 * count, sha256 });
            }
            group.tensors = from..tensors.len();
        }
        let packed = |name: &str| member_of(name).is_some_and(|(base, _)| bases.contains_key(base));
        let mut plain: Vec<_> = entries.iter().filter(|(name, _)| !packed(name)).collect();
        plain.sort_by(|a, b| natural(a.0, b.0));
        tensors.extend(plain.into_iter().map(|(name, (info, span))| Tensor {
            name: name.clone(),
            dtype: info.dtype,
            shape: info.shape.iter().map(|&d| d as u64).collect(),
            data: Data::Plain(*span),
            bytes: span.len,
            sha256: hashes.get(name).copied(),
        }));

        let mut tensor_names = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if let Some(other) = tensor_names.insert(tensor.name.clone(), i) {
                let file = |i: usize| match tensors[i].data {
                    Data::Plain(span) => &sources[span.file].name,
                    Data::Packed { group, .. } => &sources[groups[group].member(super::Member::Luts).file].name,
                };
                let reason = format!("two tensors have this name: the other is in '{}'", file(other));
                return Err(Error::invalid(Place::file(file(i)).tensor(&tensor.name), reason));
            }
        }
        let group_names = groups.iter().enumerate().map(|(i, g)| (g.name().to_owned(), i)).collect();
        log::debug!("opened {} file(s): {} groups, {} tensors", sources.len(), groups.len(), tensors.len());
        Ok(Model { sources, config, groups, tensors, group_names, tensor_names })
    }

    /// The groups, in the natural order of their names (`layers.2` before `layers.10`).
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The tensors: those of the first group in the order of their weights, those of the next, and so on; then the plain
    /// ones by name.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The number of the group of that name.
    pub fn find_group(&self, name: &str) -> Option<usize> {
        self.group_names.get(name).copied()
    }

    /// The number of the tensor of that name.
    pub fn find_tensor(&self, name: &str) -> Option<usize> {
        self.tensor_names.get(name).copied()
    }

    /// The model's config, where it has one.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// The files of the model, whole.
    pub fn files(&self) -> impl Iterator<Item = Location<'_>> {
        self.sources.iter().map(|source| Location { file: source.path(), offset: 0, bytes: source.len() })
    }

    /// Where bytes of a file lie.
    pub fn locate(&self, span: Span) -> Location<'_> {
        Location { file: self.sources[span.file].path(), offset: span.offset, bytes: span.len }
    }

    /// The values of a plain tensor in place; `None` for one in a group, and where files are read instead of mapped.
    /// They are not aligned.
    pub fn plain(&self, tensor: &Tensor) -> Option<&[u8]> {
        match tensor.data {
            Data::Plain(span) => self.bytes_of(span),
            Data::Packed { .. } => None,
        }
    }

    /// The bytes of a span in place; `None` where files are read instead of mapped.
    pub(crate) fn bytes_of(&self, span: Span) -> Option<&[u8]> {
        self.sources[span.file].slice(span.offset, span.len)
    }

    /// Copies values of a plain tensor, from its byte `offset` on.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a tensor in a group and for bytes outside the tensor; `Io` and `Corrupt` from the file.
    pub fn read_plain(&self, tensor: &Tensor, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Data::Plain(span) = tensor.data else {
            return Err(Error::InvalidArgument(format!(
                "tensor '{}' is in a group: it must be decoded",
                shorten(&tensor.name, 80)
            )));
        };
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > span.len) {
            return Err(Error::InvalidArgument(format!(
                "bytes {offset} + {} are outside tensor '{}' of {} bytes",
                buffer.len(),
                shorten(&tensor.name, 80),
                span.len
            )));
        }
        self.sources[span.file].read_at(span.offset + offset, buffer)
    }

    /// Asks the system to read bytes of a plain tensor, from its byte `offset` on, ahead of their use.
    pub(crate) fn read_ahead(&self, tensor: &Tensor, offset: u64, len: u64) {
        if let Data::Plain(span) = tensor.data {
            let offset = offset.min(span.len);
            self.sources[span.file].read_ahead(span.offset + offset, len.min(span.len - offset));
        }
    }

    /// Whether decoding reads the files' bytes in place.
    pub(crate) fn mapped(&self) -> bool {
        self.sources.iter().all(|source| source.slice(0, 0).is_some())
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<&str> = self.sources.iter().map(|s| &s.name[..]).collect();
        f.debug_struct("Model")
            .field("files", &files)
            .field("groups", &self.groups.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

/// The safetensors files of a folder, by name.
pub(crate) fn safetensors_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e| Error::io("list", folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::invalid(Place::file(folder.display().to_string()), "the folder has no *.safetensors"));
    }
    files.sort();
    Ok(files)
}

/// Reads the hashes of a file's metadata.
fn read_hashes(text: &str, place: &Place, hashes: &mut HashMap<String, [u8; 32]>) -> Result<()> {
    let invalid = |reason: String| {
        Error::invalid(place.clone(), format!("the metadata '{}' is not valid: {reason}", super::HASHES_KEY))
    };
    let parsed: HashMap<String, String> = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    for (name, digits) in parsed {
        let Some(hash) = hash_of(&digits) else {
            let (name, digits) = (shorten(&name, 80), shorten(&digits, 80));
            return Err(invalid(format!("'{digits}' of '{name}' is not 64 hexadecimal digits")));
        };
        hashes.insert(name, hash);
    }
    Ok(())
}

/// The 32 bytes of 64 hexadecimal digits, in either case.
fn hash_of(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let pairs = digits.as_bytes().chunks_exact(2);
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(hash)
}

/// The bytes of a config.json or an index; `None` where there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.try_exists().map_err(|e| Error::io("open", path, e))? {
        return Ok(None);
    }
    let mut json = Vec::new();
    let file = open_regular(path)?;
    file.take(MOST_HEADER_BYTES + 1).read_to_end(&mut json).map_err(|e| Error::io("read", path, e))?;
    if json.len() as u64 > MOST_HEADER_BYTES {
        return Err(Error::invalid(Place::file(path.display().to_string()), "the file is larger than 100 MB"));
    }
    Ok(Some(json))
}

/// What the names of all tensors in groups may take. A model of 405 billion weights has some 50,000 bytes of them.
const MOST_NAME_BYTES: usize = 4 << 20;

/// Names go to C as texts that a zero byte ends. Long ones only serve to use up memory: a group's name is part of each of
/// its tensors'.
fn check_name(name: &str) -> std::result::Result<(), String> {
    const MOST: usize = 1024;
    if name.contains('\0') {
        return Err("a tensor's name contains a zero byte".into());
    }
    if name.len() > MOST {
        return Err(format!("a tensor's name has {} bytes: {MOST} are the most", name.len()));
    }
    Ok(())
}

/// Splits the name of a group's member.
pub(crate) fn member_of(name: &str) -> Option<(&str, usize)> {
    let (base, last) = name.rsplit_once('.')?;
    MEMBERS.iter().position(|m| *m == last).map(|member| (base, member))
}

fn all<'a>(members: &[Option<&'a (TensorInfo, Span)>; 6]) -> Option<[&'a (TensorInfo, Span); 6]> {
    let [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] = *members else { return None };
    Some([a, b, c, d, e, f])
}

/// What a group's tensors are called. The reference lets a matched module that has a weight of its own ignore the list,
/// so one tensor is always NAME.weight unless the list has exactly one entry. Without a config only the number of
/// tensors is known; a group of one is then taken for such a module, and parts of a larger one are numbered.
fn names_of(group: &Group, config: Option<&Config>, sources: &[Source]) -> Result<Vec<String>> {
    let (name, count) = (group.name(), group.cuts().len() - 1);
    match config.and_then(|c| c.attributes(name)) {
        Some(list) if list.len() == count => Ok(list.iter().map(|a| format!("{name}.{a}.weight")).collect()),
        _ if count == 1 => Ok(vec![format!("{name}.weight")]),
        Some(list) => {
            let reason = format!("the config names {} tensors for this group, and it has {count}", list.len());
            Err(Error::invalid(group.place(sources, super::Member::SplitPositions, 0), reason))
        }
        None => {
            log::warn!(
                "no config names the {count} tensors of group '{name}': they are called {name}.part_0 and so on"
            );
            Ok((0..count).map(|i| format!("{name}.part_{i}")).collect())
        }
    }
}

/// Compares names with the numbers in them taken as numbers; names that only differ in leading zeros by their bytes.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(&p), Some(&q)) = (x.first(), y.first()) {
        let (n, m) = (digits(x), digits(y));
        if n > 0 && m > 0 {
            let strip = |s: &[u8]| s.iter().position(|&c| c != b'0').unwrap_or(s.len());
            let (u, v) = (&x[..n], &y[..m]);
            let (u, v) = (&u[strip(u)..], &v[strip(v)..]);
            match u.len().cmp(&v.len()).then(u.cmp(v)) {
                Ordering::Equal => (x, y) = (&x[n..], &y[m..]),
                unequal => return unequal,
            }
        } else if p != q {
            return p.cmp(&q);
        } else {
            (x, y) = (&x[1..], &y[1..]);
        }
    }
    x.len().cmp(&y.len()).then(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["a.10.b", "a.2.b", "a.2", "a.02", "lm_head", "a.x", "a.18446744073709551616.b", "a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "a.02", "a.2", "a.2.b", "a.10.b", "a.18446744073709551616.b", "a.x", "lm_head"]);
    }
}
