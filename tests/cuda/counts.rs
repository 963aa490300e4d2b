//! What the decode kernel costs, counted: instructions, memory sectors and shared-memory rounds for a weight, on groups like
//! a language model's. A count is not a time, but a kernel that needs more of them is slower on any GPU, and these are the
//! bounds that it was made for; `kernels/README.md` has the counts of each part.
//!
//! `cargo test --test cuda counts -- --nocapture` prints them.
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::cuda::image;
use df11::{Model, OpenOptions};
use support::encoder;
use support::engine::Emulator;
use support::golden;
use support::weights;

/// The bounds, and what a weight costs at least: 8 bits of sign and mantissa, its code and two bytes written, in sectors of 32.
const INSTRUCTIONS: f64 = 14.0;
const OVER_FLOOR: f64 = 1.1;
const WAVEFRONTS_PER_32: f64 = 4.0;

/// Decodes one group whole, and says what a weight cost: instructions, sectors, wavefronts per 32, and the floor of sectors.
pub(crate) fn count(emulator: &Emulator, model: &Model, group: usize, name: &str) -> [f64; 4] {
    // Races are the business of other tests, and looking for them takes half the time.
    emulator.control("races", "0");
    // Each block copies the table. These groups are small: on one multiprocessor they give a block as many weights as the
    // layers of a large model do on a large device.
    emulator.control("sms", "1");
    let engine = emulator.engine(0);
    let (device, stream) = (emulator.open(0), engine.stream());
    let layout = image::ImageLayout::of(model.group(group).unwrap()).unwrap();
    let (at, dst) = (engine.alloc(layout.image_bytes), engine.alloc(2 * layout.weights));
    // SAFETY: memory and model outlive the stream's work, which is waited for.
    unsafe {
        let resident = device.upload(model.group(group).unwrap(), at, layout.image_bytes, stream, None).unwrap();
        resident.decompress(dst, 2 * layout.weights, 0, stream).unwrap();
    }
    engine.synchronise(stream);
    emulator.assert_no_fault();
    let weights = layout.weights as f64;
    let per_weight = |what: &str| emulator.query(what) as f64 / weights;
    let instructions = per_weight("last.instructions");
    let off = per_weight("last.predicated_off");
    let issues = 32.0 * per_weight("last.warp_issues");
    let sectors = per_weight("last.sectors_read") + per_weight("last.sectors_written");
    let wavefronts = 32.0 * per_weight("last.shared_wavefronts");
    let floor = (3.0 + layout.code_bytes as f64 / weights) / 32.0;
    println!(
        "{name}: {instructions:.2} instructions a weight, of which a predicate disables {off:.2}; {issues:.2} issues and \
         {wavefronts:.2} wavefronts for 32; {sectors:.4} sectors ({:.3} of the floor)",
        sectors / floor
    );
    [instructions, sectors, wavefronts, floor]
}

fn assert_bounds(model: &Model, group: usize, name: &str) {
    let [instructions, sectors, wavefronts, floor] = count(&Emulator::new(), model, group, name);
    assert!(instructions <= INSTRUCTIONS, "{name}: {instructions:.2} instructions a weight");
    assert!(sectors <= OVER_FLOOR * floor, "{name}: {sectors:.4} sectors a weight, the floor is {floor:.4}");
    assert!(wavefronts <= WAVEFRONTS_PER_32, "{name}: {wavefronts:.2} wavefronts for 32 weights");
    // Counts below what is possible would be counts of something else.
    assert!(sectors >= floor && instructions > 5.0 && wavefronts > 1.0, "{name}");
}

/// Returns a model of one group, which is like a language model's.
pub(crate) fn layer(weights: usize) -> Model {
    let original = weights::trained_like(weights, 11);
    let codes = encoder::code_table(&encoder::histogram(&original));
    let splits = [weights as u64 / 4, weights as u64 / 8 * 5];
    let packed = encoder::encode_with_codes(&original, &splits, &codes);
    let file = encoder::safetensors(&encoder::group_tensors("layers.0", &packed), None);
    Model::from_bytes(file, &OpenOptions::default()).unwrap()
}

#[test]
fn a_layer_like_a_language_models_stays_within_the_bounds() {
    let model = layer(4_000_000);
    assert_bounds(&model, 0, "4 M weights");
    // What an engine keeps on the device: README.md promises at most 10.9 bits a weight.
    let layout = image::ImageLayout::of(model.group(0).unwrap()).unwrap();
    let bits = 8.0 * layout.image_bytes as f64 / layout.weights as f64;
    assert!(bits <= 10.9, "an image of {bits:.3} bits a weight");
}

#[test]
fn trained_layers_stay_within_the_bounds() {
    let model = Model::open(golden::model("block"), &OpenOptions::default()).unwrap();
    let mut seen = 0;
    for (group, found) in model.groups().enumerate() {
        // Of small groups the tables that each block copies are most of the cost.
        if found.element_count() >= 500_000 {
            assert_bounds(&model, group, found.name());
            seen += 1;
        }
    }
    assert!(seen >= 2, "the golden model has no large groups any more");
}
