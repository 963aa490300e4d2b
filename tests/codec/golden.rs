//! Every tensor of the models that the reference compressor wrote (`tests/data/golden`), bit for bit, by every decoder.

use crate::support;

use df11::internals::huffman::decode::Variant;
use df11::{DecodeOptions, Model, OpenOptions};
use half::bf16;
use sha2::{Digest, Sha256};
use support::golden;

/// Every tensor of every golden model, decoded by each variant with 1, 2 and 7 threads, mapped and read, has the hash of its original.
#[test]
fn every_tensor_has_the_hash_of_its_original() {
    for name in golden::NAMES {
        for read in [false, true] {
            let model = crate::support::files::open(golden::model(name), read).unwrap();
            let expected = golden::expected(name);
            assert_eq!(model.tensors().len(), expected.len(), "{name}");
            for variant in Variant::ALL.into_iter().filter(|v| v.is_available()) {
                for threads in [1, 2, 7] {
                    let options = DecodeOptions::new().threads(threads).variant(variant);
                    for tensor in model.tensors() {
                        let want = &expected[tensor.name()];
                        let mut bytes = vec![0; tensor.bytes() as usize];
                        tensor.read(0, &mut bytes, &options).unwrap();
                        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                        assert_eq!(hash, want.sha256, "{name}: {} by {} x{threads}", tensor.name(), variant.name());
                    }
                }
            }
        }
    }
}

/// The naive decoder and the fast ones decode each group to the same weights.
#[test]
fn the_naive_decoder_agrees_on_every_group() {
    for name in golden::NAMES {
        let model = Model::open(golden::model(name), &OpenOptions::default()).unwrap();
        let raw = golden::raw(name);
        for group in model.groups() {
            let member = |m: &str| &raw[&format!("{}.{m}", group.name())][..];
            let (want, end) = df11::internals::huffman::naive::decode(
                df11::internals::format::codes(group),
                member("encoded_exponent"),
                0,
                member("sign_mantissa"),
            )
            .unwrap();
            assert_eq!(end.div_ceil(8), member("encoded_exponent").len());
            let mut got = vec![bf16::ZERO; group.element_count() as usize];
            group.decompress(0, &mut got, &DecodeOptions::default()).unwrap();
            assert!(got.iter().map(|w| w.to_bits()).eq(want.iter().copied()), "{name}: {}", group.name());
            group.verify(2).unwrap();
        }
    }
}
