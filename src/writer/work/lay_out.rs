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
        for member in Member::ALL {
            let name = format!("{}.{}", group.name, MEMBERS[member as usize]);
            let bytes = group.bytes[member as usize];
            let (dtype, shape) = member_type(member, bytes);
            owners.insert(name.clone(), (i, member));
            tensors.push(LayoutTensor { name, dtype, shape, bytes });
        }
    }
    for &number in plain {
        let tensor = model.tensor_at(number);
        sources.insert(tensor.name(), number);
        let (name, shape) = (tensor.name().to_owned(), tensor.shape().to_vec());
        tensors.push(LayoutTensor { name, dtype: tensor.dtype(), shape, bytes: tensor.bytes() });
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
