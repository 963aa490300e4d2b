//! libdf11 writing images: groups as a CUDA device decodes them.

use crate::contest::Contestant;
use crate::data::{self, Data};
use df11::Model;
use df11::internals::cuda::image::{self, ImageLayout};
use std::sync::Arc;

/// A model in memory, and memory for the image of its only group.
pub struct Image {
    model: Arc<Model>,
    /// What was written once, and decoded to the original weights.
    expected: Arc<Vec<u8>>,
    image: Vec<u8>,
    threads: usize,
}

impl Image {
    /// On one thread, and on `cores` threads. A first image is decoded by the library's slow oracle and compared with the
    /// weights; all others must have its bytes.
    pub fn all(data: &Data, cores: usize) -> Result<Vec<Image>, String> {
        let model = Arc::new(data::open(&data.packed)?);
        let bytes = ImageLayout::of(model.group(0).unwrap()).map_err(|e| e.to_string())?.image_bytes as usize;
        let mut expected = vec![0x55; bytes];
        model.group(0).unwrap().write_image(&mut expected, 1).map_err(|e| e.to_string())?;
        let decoded = image::decode(&expected, 0, data.original.len() as u64).map_err(|e| e.to_string())?;
        if !decoded.good || decoded.weights != data.original {
            return Err("the image decodes to other weights".into());
        }
        let expected = Arc::new(expected);
        let with =
            |threads| Image { model: model.clone(), expected: expected.clone(), image: vec![0x55; bytes], threads };
        Ok(if cores > 1 { vec![with(1), with(cores)] } else { vec![with(1)] })
    }
}

impl Contestant for Image {
    fn name(&self) -> String {
        "df11 image".into()
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.image.len())
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        self.model.group(0).unwrap().write_image(&mut self.image, self.threads).map_err(|e| e.to_string())
    }

    fn answer(&mut self, _: &mut [u16]) -> Result<(), String> {
        let right = self.image == *self.expected;
        // The next time must not find the right bytes there already.
        self.image.iter_mut().step_by(1021).for_each(|b| *b = !*b);
        if right { Ok(()) } else { Err("the image has other bytes than the first one".into()) }
    }

    fn checks_itself(&self) -> bool {
        true
    }
}
