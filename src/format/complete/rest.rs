//! The file of all tensors that belong to no group. It leaves no gap when it is lost, but a model without it cannot be.

use super::blocks::{Form, Parents, Stack, is_block, stack_of};
use crate::format::model::Model;

/// Tells whether a model has nothing but its blocks, and perhaps an embedding and a head: the blocks have norms, and there is none
/// after the last one; or it is one of diffusers, of which all tensors are in numbered blocks. Others may be parts of a model.
pub(super) fn is_absent(model: &Model, parents: &Parents<'_>, diffusers: bool) -> bool {
    let in_block = |name: &str| name.split('.').any(is_block);
    let mut outside = model.tensors.iter().map(|tensor| &tensor.name[..]).filter(|name| !in_block(name)).peekable();
    if outside.peek().is_none() && diffusers {
        return true;
    }
    let has_norms = parents.iter().any(|(parent, blocks)| {
        let stack = matches!(stack_of(parent, diffusers), Stack::Main | Stack::Single);
        stack && blocks.blocks.len() > 1 && blocks.blocks.values().all(|tensors| tensors.iter().any(is_norm))
    });
    has_norms && !outside.any(|name| name.split('.').any(is_norms_name))
}

/// Tells whether a tensor of a block is a norm of the block itself.
fn is_norm((name, form): (&&str, &Form)) -> bool {
    let module = name.strip_suffix(".weight").filter(|module| !module.contains('.'));
    *form == Form::Vector && module.is_some_and(is_norms_name)
}

fn is_norms_name(part: &str) -> bool {
    let part = part.to_ascii_lowercase();
    part.contains("norm") || part.starts_with("ln")
}

/// Tells whether every file of a compressed model is that of a group, by its name.
pub(super) fn only_groups(model: &Model) -> bool {
    let stems: std::collections::HashSet<String> = model.groups.iter().map(|g| g.name().replace('.', "_")).collect();
    let of_group =
        |path: &std::path::Path| path.file_stem().is_some_and(|stem| stems.contains(&*stem.to_string_lossy()));
    !stems.is_empty() && model.sources.iter().all(|source| of_group(source.path()))
}
