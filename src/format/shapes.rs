//! Shapes of tensors in groups that no file says, derived from what the model does say.
//!
//! DF11 stores of a compressed tensor its name and its number of weights. A shape is derived only where it is *certain*:
//! both dimensions follow from facts of their own and their product is exactly the number of weights, or one dimension
//! follows from a fact that cannot be otherwise. Where facts contradict each other, or there is one fact too few, the
//! tensor keeps its one dimension. Nothing is guessed from divisibility.
//!
//! The name of a tensor says which axis is which: `q_proj`, `up_proj` and their kin read the residual stream
//! (\[out, width\]), `o_proj`, `down_proj` and theirs write it (\[width, in\]). Names that are matrices in one architecture
//! and convolutions or transposed in another (`proj`, `c_fc`, `patch_embedding`) are in no list, or only in the places
//! where they are known.
//!
//! | fact | what it says |
//! |---|---|
//! | the bias of the same module | its output dimension, exactly |
//! | norms of the block: two that agree, or one and the final norm or the config | the width of the residual stream |
//! | the config's sizes, of a part of it that has this width | heads, head dimensions, inner widths, vocabulary |
//! | the other matrix of an attention or an MLP, where the config has no such sizes | that both have one inner width |
//! | a norm between two matrices (`q_a_layernorm`), vectors of a state space (`A_log`, `conv1d`) | an inner width |
//! | self-attention whose query is certain | its keys and values read the same stream |
//!
//! Two norms of a block that differ, a final norm that differs from them, or a config that has widths, but not this one,
//! are contradictions. Sizes from the config are believed only with a product that is exact. An expert needs the
//! config's inner width, because experts may work in a narrower stream, which the other matrix does not show.
//!
//! Sizes come from hostile files: products are computed in 128 bits, and work is linear in the number of tensors.
//!
//! - `facts`: what the model says: lengths of plain tensors, and `config`, its sizes;
//! - `rules`: what follows from that;
//! - `names`: what the modules of published models are called, and `paths`, where they are;
//! - `given`: shapes that the caller gives.

mod config;
mod facts;
mod given;
mod names;
mod paths;
mod rules;
#[cfg(test)]
mod tests;

use super::model::{Model, OpenOptions};
use super::tensor::{Data, ShapeSource, TensorData};
use crate::error::Result;
use crate::progress::Progress;
use facts::Facts;

/// Names that are longer, or have more parts, are not looked at: no model has such.
const MOST_NAME: usize = 256;
const MOST_PARTS: usize = 24;
/// Blocks within blocks.
const MOST_BLOCKS: usize = 8;
/// Levels above an attention or an MLP at which the norms of its block may be.
const MOST_LEVELS: usize = 4;

/// Steps of work after which no more shapes are derived. The largest models take a tenth of that.
const MOST_STEPS: u64 = 50_000_000;

/// A dimension, as numbers of a config make them: a product of hostile numbers may exceed 64 bits.
type Size = u128;

/// Where the shapes of tensors in groups come from, if not from the model's files.
pub(super) enum Shapes<'o> {
    /// From nowhere.
    Stored,
    /// From the config and the plain tensors, as far as they are certain.
    Derived,
    /// From what the caller says, and then perhaps from the config and the plain tensors.
    Options(&'o OpenOptions),
}

impl<'o> Shapes<'o> {
    /// What a caller asks for.
    pub fn of(options: &'o OpenOptions) -> Self {
        Shapes::Options(options)
    }

    /// Gives tensors in groups that have no shape one, if there is one. `find` returns the number of a tensor; `config` is the text of
    /// config.json.
    pub fn complete(
        self,
        tensors: &mut [TensorData],
        find: impl Fn(&[TensorData], &str) -> Option<usize>,
        config: Option<&str>,
        progress: &Progress,
    ) -> Result<()> {
        let derives = match self {
            Shapes::Stored => false,
            Shapes::Derived => true,
            Shapes::Options(options) => {
                let mut given = given::Given { tensors, find, progress, given: 0, known: 0 };
                options.shapes_from.as_deref().map(|path| given.take_path(path)).transpose()?;
                options.shapes.as_deref().map(|list| given.take_list(list)).transpose()?;
                !options.no_derived_shapes
            }
        };
        if derives { derive(tensors, config, progress) } else { Ok(()) }
    }
}

/// Returns the numbers of the tensors of a model without groups whose shapes would be derived, and wrongly, if those that `is_packed`
/// names were in groups. Derived shapes are certain for the architectures that the names are known from; somebody may have given the
/// names to transposed matrices. `is_stored` tells which tensors there are, and `more` has those that there are besides, in groups: the
/// name of each and the number of the tensor that it is equal to.
#[cfg(feature = "writer")]
pub(crate) fn misderived(
    model: &Model,
    (is_packed, is_stored): (impl Fn(usize) -> bool, impl Fn(usize) -> bool),
    more: &[(String, usize)],
    config: Option<&str>,
    progress: &Progress,
) -> Result<Vec<usize>> {
    let as_written = |number: usize, name: &str, packed: bool| {
        let tensor = &model.tensors[number];
        TensorData {
            name: name.to_owned(),
            dtype: tensor.dtype,
            shape: if packed { [tensor.bytes / 2].into() } else { tensor.shape.clone() },
            shape_from: if packed { ShapeSource::Unknown } else { ShapeSource::Stored },
            data: if packed { Data::Packed { first_run: 0, run_count: 1 } } else { tensor.data },
            bytes: tensor.bytes,
            sha256: None,
        }
    };
    let mut numbers: Vec<usize> = (0..model.tensors.len()).filter(|&number| is_stored(number)).collect();
    let of = |&number: &usize| as_written(number, &model.tensors[number].name, is_packed(number));
    let mut tensors: Vec<TensorData> = numbers.iter().map(of).collect();
    tensors.extend(more.iter().map(|(name, number)| as_written(*number, name, true)));
    numbers.extend(more.iter().map(|(_, number)| number));
    derive(&mut tensors, config, progress)?;
    let wrong = |(tensor, number): &(&TensorData, usize)| {
        tensor.shape_from == ShapeSource::Derived && tensor.shape != model.tensors[*number].shape
    };
    Ok(tensors.iter().zip(numbers).filter(wrong).map(|(_, number)| number).collect())
}

/// Derives the shapes of the tensors in groups that have none, as far as they are certain.
fn derive(tensors: &mut [TensorData], config: Option<&str>, progress: &Progress) -> Result<()> {
    if tensors.iter().all(|t| t.shape_from != ShapeSource::Unknown) {
        return Ok(());
    }
    let facts = Facts::new(tensors, config, progress)?;
    let mut found = Vec::new();
    for (i, tensor) in facts.tensors.iter().enumerate() {
        progress.check()?;
        if let Some(shape) = facts.shape_of(tensor) {
            found.push((i, shape));
        }
    }
    log::debug!("derived the shapes of {} tensors", found.len());
    for (i, shape) in found {
        (tensors[i].shape, tensors[i].shape_from) = (shape.into(), ShapeSource::Derived);
    }
    Ok(())
}
