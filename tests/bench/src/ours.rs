//! libdf11: its decoder, its encoder, and the encoder's histogram alone.

use crate::contest::Contestant;
use crate::copy::HUGE;
use crate::data::{self, Data, HUGE_PAGE, Lines};
use crate::encoder::{self, Encoded};
use df11::Model;
use df11::internals::host::{self, DecodeOptions, EncodeOptions, PackedSizes};
use df11::internals::huffman::{decode, encode};
use half::bf16;
use half::slice::HalfBitsSliceExt;
use std::sync::Arc;

/// A model in memory and how to decode it.
pub struct Df11 {
    model: Arc<Model>,
    bytes: usize,
    variant: decode::Variant,
    threads: usize,
}

impl Df11 {
    /// The best variant that this processor has, on so many threads.
    pub fn best(data: &Data, threads: usize) -> Result<Df11, String> {
        let (model, bytes) = (Arc::new(data::open(&data.packed)?), data::bytes(&data.packed));
        Ok(Df11 { model, bytes, variant: decode::Variant::best(), threads })
    }

    /// Opens the model once and lists every variant that this processor has on one thread, and the best one on
    /// `cores` threads.
    pub fn all(data: &Data, cores: usize) -> Result<Vec<Df11>, String> {
        let best = Df11::best(data, cores)?;
        let with = |variant, threads| Df11 { model: best.model.clone(), bytes: best.bytes, variant, threads };
        let one = decode::Variant::ALL.into_iter().filter(|v| v.is_available()).map(|v| with(v, 1));
        let many = (cores > 1).then(|| with(decode::Variant::best(), cores));
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

    fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let options = DecodeOptions::new().threads(self.threads).variant(self.variant);
        decompress(&self.model, dst, &options)
    }
}

/// Decodes the model's only group.
fn decompress(model: &Model, dst: &mut [u16], options: &DecodeOptions) -> Result<(), String> {
    let dst: &mut [bf16] = dst.reinterpret_cast_mut();
    model.group(0).unwrap().decompress(0, dst, options).map_err(|e| e.to_string())
}

/// A group of weights, how to encode it, and memory for what comes of it.
pub struct Encoder<'a> {
    data: &'a Data,
    variant: encode::Variant,
    threads: usize,
    /// In the order of [`host::Packed`], as large as it can become, and written before.
    members: [Lines; 6],
    sizes: PackedSizes,
    huge: bool,
}

/// Every variant of the encoder that this processor has.
fn encoders() -> impl Iterator<Item = encode::Variant> {
    encode::Variant::ALL.iter().copied().filter(|v| v.is_available())
}

impl<'a> Encoder<'a> {
    /// Every variant that this processor has on one thread, the best one on one thread with members in huge pages, if
    /// signs and mantissas fill a page, and the best one on `cores` threads.
    pub fn all(data: &'a Data, cores: usize) -> Vec<Encoder<'a>> {
        let with = |variant, threads, huge| {
            let PackedSizes { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } =
                PackedSizes::bound(data.original.len() as u64, data.tensors().len() as u64);
            let bounds = [luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions];
            let members = bounds.map(|bytes| Lines::new(bytes as usize, huge));
            Encoder { data, variant, threads, members, sizes: PackedSizes::default(), huge }
        };
        let one = encoders().map(|v| with(v, 1, false));
        let huge = (data.original.len() >= HUGE_PAGE).then(|| with(encode::Variant::best(), 1, true));
        let many = (cores > 1).then(|| with(encode::Variant::best(), cores, false));
        one.chain(huge).chain(many).collect()
    }

    /// What was made, as the tests' own encoder has it.
    fn packed(&self) -> Encoded {
        let PackedSizes { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } = self.sizes;
        let sizes = [luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions];
        let member = |i: usize| self.members[i].get()[..sizes[i] as usize].to_vec();
        Encoded {
            luts: member(0),
            encoded_exponent: member(1),
            sign_mantissa: member(2),
            output_positions: member(3),
            gaps: member(4),
            split_positions: member(5).as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        }
    }
}

impl Contestant for Encoder<'_> {
    fn name(&self) -> String {
        format!("df11 {}{}", self.variant.name(), if self.huge { HUGE } else { "" })
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.sizes.total() as usize)
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        let members = self.members.each_mut().map(|m| (m.get_mut().as_mut_ptr(), m.get().len() as u64));
        let options = EncodeOptions::new().threads(self.threads).variant(self.variant);
        // SAFETY: each address comes with the size of its memory, which is borrowed exclusively.
        unsafe { host::compress_raw(&self.data.tensors(), Some(members), &mut self.sizes, &options) }
            .map_err(|e| e.to_string())
    }

    fn answer(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let packed = self.packed();
        // The next time must not find the right bytes there already.
        self.members.iter_mut().for_each(|m| m.get_mut().iter_mut().step_by(1021).for_each(|b| *b = !*b));
        if packed != self.data.packed {
            return Err("other bytes than the tests' own encoder writes".into());
        }
        decompress(&data::open(&packed)?, dst, &DecodeOptions::default())
    }
}

/// The encoder's first pass alone: counting exponents.
pub struct Histogram<'a> {
    weights: &'a [u16],
    variant: encode::Variant,
    expected: [u64; 256],
}

impl<'a> Histogram<'a> {
    /// Every variant that this processor has, on one thread.
    pub fn all(data: &'a Data) -> impl Iterator<Item = Histogram<'a>> {
        let expected = encoder::histogram(&data.original);
        encoders().map(move |variant| Histogram { weights: &data.original, variant, expected })
    }
}

impl Contestant for Histogram<'_> {
    fn name(&self) -> String {
        format!("histogram {}", self.variant.name())
    }

    fn stored_bytes(&self) -> Option<usize> {
        None
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        let mut counts = [0; 256];
        encode::count(self.weights, &mut counts, self.variant);
        if counts == self.expected { Ok(()) } else { Err("wrong counts".into()) }
    }

    fn checks_itself(&self) -> bool {
        true
    }
}
