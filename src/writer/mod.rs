//! Writing DF11 models.
//!
//! - [`plan`]: what goes into which group, from the names of a model's tensors and a `pattern_dict`. It reads no files;
//! - [`presets`]: the pattern_dicts of published models, and the choice of one for a model.

pub mod plan;
pub mod presets;
