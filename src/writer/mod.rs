//! Writing DF11 models.
//!
//! - [`plan`]: what goes into which group, from the names of a model's tensors and a `pattern_dict`. It reads no files.

pub mod plan;
