//! Which tensors are wanted, by their names or those of their groups.

use crate::error::{Error, Result, shorten};
use crate::format::{Group, Model, Tensor, natural};
use std::collections::BTreeSet;

/// Returns the tensors of these names and of these groups in the natural order of their names; all, if none are given.
///
/// # Errors
///
/// `NotFound` for a name that is not there, with the one that is most like it.
pub(super) fn select<'m>(model: &'m Model, tensors: &[String], groups: &[String]) -> Result<Vec<Tensor<'m>>> {
    let mut wanted = BTreeSet::new();
    if tensors.is_empty() && groups.is_empty() {
        wanted.extend(0..model.tensors().len());
    }
    for name in tensors {
        let tensor = model.find_tensor(name).ok_or_else(|| match model.find_group(name) {
            Some(_) => Error::NotFound(format!("'{}' is a group and no tensor", shorten(name, 80))),
            None => missing("tensor", name, model.tensors().map(Tensor::name)),
        })?;
        wanted.insert(tensor.number());
    }
    for name in groups {
        wanted.extend(group(model, name)?.tensors().map(Tensor::number));
    }
    let mut wanted: Vec<Tensor> = wanted.into_iter().map(|number| model.tensor_at(number)).collect();
    wanted.sort_by(|a, b| natural(a.name(), b.name()));
    Ok(wanted)
}

/// Returns the group of a name.
///
/// # Errors
///
/// `NotFound` with the name that is most like it.
pub(super) fn group<'m>(model: &'m Model, name: &str) -> Result<Group<'m>> {
    model.find_group(name).ok_or_else(|| match model.find_tensor(name) {
        Some(_) => Error::NotFound(format!("'{}' is a tensor and no group", shorten(name, 80))),
        None => missing("group", name, model.groups().map(|group| group.name())),
    })
}

/// Returns the error of a name that is not there.
fn missing<'n>(noun: &str, name: &str, names: impl Iterator<Item = &'n str>) -> Error {
    let nearest = names.min_by_key(|there| strsim::osa_distance(there, name));
    let nearest = nearest.map(|there| format!(": the nearest name is '{}'", shorten(there, 200))).unwrap_or_default();
    Error::NotFound(format!("the model has no {noun} '{}'{nearest}", shorten(name, 200)))
}
