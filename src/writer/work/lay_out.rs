//! The layout of a file: a function of its groups' sizes and its plain tensors alone.

use super::PIECE;
use crate::error::Result;
use crate::format::{FileLayout, LayoutTensor, MEMBERS, Member, Model};
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};

/// For each member of a group its first byte in the file, and its bytes.
pub(super) type Places = [(u64, u64); 6];

/// A group whose members' sizes are known.
pub(super) struct SizedGroup<'a> {
    pub number: usize,
    pub name: &'a str,
    pub bytes: [u64; 6],
}

/// A piece of a plain tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    /// The tensor of the source.
    pub tensor: usize,
    /// The first byte of it.
    pub from: u64,
    pub bytes: usize,
    /// The first byte in the file.
    pub to: u64,
}

/// A file that is laid out.
pub(super) struct LaidOut {
    pub file: FileLayout,
    /// For each group its number and the places of its members.
    pub groups: Vec<(usize, Places)>,
    pub copies: Vec<Copied>,
}

/// Returns type and shape of a group's member of `bytes` bytes.
fn member_type(member: Member, bytes: u64) -> (Dtype, Vec<u64>) {
    match member {
        Member::Luts => (Dtype::U8, vec![bytes / 256, 256]),
        Member::SplitPositions => (Dtype::I64, vec![bytes / 8]),
        _ => (Dtype::U8, vec![bytes]),
    }
}

/// Returns type, shape and place of each member, as [`Model::open_members`] takes them.
pub(super) fn members(places: &Places) -> [(Dtype, Vec<u64>, u64, u64); 6] {
    Member::ALL.map(|member| {
        let (at, bytes) = places[member as usize];
        let (dtype, shape) = member_type(member, bytes);
        (dtype, shape, at, bytes)
    })
}

/// Returns the members of a group as tensors of a file.
fn group_tensors(name: &str, bytes: [u64; 6]) -> impl Iterator<Item = LayoutTensor> {
    Member::ALL.into_iter().map(move |member| {
        let (name, bytes) = (format!("{name}.{}", MEMBERS[member as usize]), bytes[member as usize]);
        let (dtype, shape) = member_type(member, bytes);
        LayoutTensor { name, dtype, shape, bytes }
    })
}

/// Returns a tensor of the source as one of a file.
fn plain_tensor(model: &Model, number: usize) -> LayoutTensor {
    let tensor = model.tensor_at(number);
    let (name, shape) = (tensor.name().to_owned(), tensor.shape().to_vec());
    LayoutTensor { name, dtype: tensor.dtype(), shape, bytes: tensor.bytes() }
}

/// Returns the bytes of a file of these groups, given by names and bytes of members, and plain tensors.
pub(in crate::writer) fn file_bytes(
    model: &Model,
    groups: &[(&str, [u64; 6])],
    plain: &[usize],
    metadata: &BTreeMap<String, String>,
) -> Result<u64> {
    let groups = groups.iter().flat_map(|&(name, bytes)| group_tensors(name, bytes));
    let tensors = groups.chain(plain.iter().map(|&number| plain_tensor(model, number))).collect();
    Ok(FileLayout::new(tensors, metadata)?.bytes())
}

/// Lays a file out. `plain` are tensors of the source.
pub(super) fn lay_out(
    model: &Model,
    groups: &[SizedGroup],
    plain: &[usize],
    metadata: &BTreeMap<String, String>,
) -> Result<LaidOut> {
    let mut tensors = Vec::with_capacity(6 * groups.len() + plain.len());
    let (mut owners, mut sources) = (HashMap::new(), HashMap::new());
    for (i, group) in groups.iter().enumerate() {
        for (member, tensor) in Member::ALL.into_iter().zip(group_tensors(group.name, group.bytes)) {
            owners.insert(tensor.name.clone(), (i, member));
            tensors.push(tensor);
        }
    }
    for &number in plain {
        sources.insert(model.tensor_at(number).name(), number);
        tensors.push(plain_tensor(model, number));
    }
    let file = FileLayout::new(tensors, metadata)?;
    let mut places = vec![Places::default(); groups.len()];
    let mut copies = Vec::new();
    for (tensor, offset) in file.tensors() {
        if let Some(&(group, member)) = owners.get(&tensor.name) {
            places[group][member as usize] = (offset, tensor.bytes);
        } else if let Some(&source) = sources.get(&tensor.name[..]) {
            copies.extend((0..tensor.bytes).step_by(PIECE).map(|from| Copied {
                tensor: source,
                from,
                bytes: (tensor.bytes - from).min(PIECE as u64) as usize,
                to: offset + from,
            }));
        }
    }
    let groups = groups.iter().map(|group| group.number).zip(places).collect();
    Ok(LaidOut { file, groups, copies })
}
