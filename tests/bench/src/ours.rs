//! libdf11.

use crate::contest::Contestant;
use crate::data::Data;
use df11::host::{self, DecodeOptions};
use df11::huffman::decode::Variant;
use df11::{Model, OpenOptions};
use half::bf16;
use half::slice::HalfBitsSliceExt;
use std::sync::Arc;

/// A model in memory and how to decode it.
pub struct Df11 {
    model: Arc<Model>,
    bytes: usize,
    variant: Variant,
    threads: usize,
}

impl Df11 {
    /// Opens the model once and lists every variant that this processor has on one thread, and the best one on
    /// `cores` threads.
    pub fn all(data: &Data, cores: usize) -> Result<Vec<Df11>, String> {
        let model = Model::from_bytes(data.model.clone(), &OpenOptions::default()).map_err(|e| e.to_string())?;
        let model = Arc::new(model);
        let with = |variant, threads| Df11 { model: model.clone(), bytes: data.df11_bytes, variant, threads };
        let one = Variant::ALL.into_iter().filter(|v| v.is_available()).map(|v| with(v, 1));
        let many = (cores > 1).then(|| with(Variant::best(), cores));
        Ok(one.chain(many).collect())
    }
}

impl Contestant for Df11 {
    fn name(&self) -> String {
        format!("df11 {}", self.variant.name())
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.bytes)
    }

    fn decode(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let dst: &mut [bf16] = dst.reinterpret_cast_mut();
        let options = DecodeOptions { threads: self.threads, variant: Some(self.variant) };
        host::decompress(&self.model, 0, 0, dst, &options).map_err(|e| e.to_string())
    }
}
