//! Plans of whole models: exact for DF11 models, near the truth for others, and how they are split among devices.

use crate::support::files::{self, Stored};
use crate::support::sparse::Dense;
use crate::support::{golden, weights};
use df11::plan::{Basis, DeviceShare, ModelPlan, PlanOptions, Split};
use df11::writer::{self, CompressOptions, Patterns};
use df11::{Dtype, Error, Model, OpenOptions, Progress};
use std::path::Path;

fn plan(path: &Path, options: &PlanOptions) -> Result<ModelPlan, Error> {
    ModelPlan::new(path, options, &Progress::new())
}

#[test]
fn sizes_of_df11_models_are_those_of_their_files() {
    for name in golden::NAMES {
        let model = Model::open(golden::model(name), &OpenOptions::default()).unwrap();
        let plan = plan(&golden::model(name), &PlanOptions::new()).unwrap();
        assert!(plan.is_compressed() && plan.groups().len() == model.groups().len());
        for (planned, group) in plan.groups().iter().zip(model.groups()) {
            assert_eq!((&planned.name[..], planned.element_count), (group.name(), group.element_count()));
            assert_eq!(planned.packed.total(), group.packed_bytes());
            assert_eq!((planned.image, planned.basis), (group.image_layout().unwrap(), Basis::Exact));
        }
        let files: u64 = plan.files().iter().map(|f| std::fs::metadata(&f.path).unwrap().len()).sum();
        assert_eq!(plan.files().iter().map(|f| f.bytes).sum::<u64>(), files);
        assert_eq!(plan.original_bytes(), model.tensors().map(|t| t.bytes()).sum::<u64>());
        assert_eq!(plan.plain_bytes(), model.tensors().filter(|t| t.group().is_none()).map(|t| t.bytes()).sum::<u64>());
    }
}

/// A model of layers with two matrices of so many rows and a norm each.
fn made(folder: &Path, rows: usize, layers: usize) {
    let bf16 = |name: String, shape: &[usize], seed| {
        let weights = weights::trained_like(shape.iter().product(), seed);
        Stored::new(&name, Dtype::BF16, shape, bytemuck::cast_slice(&weights).to_vec())
    };
    let mut all = Vec::new();
    for layer in 0..layers {
        let of = |name: &str| format!("layers.{layer}.{name}.weight");
        all.push(bf16(of("a"), &[rows, 64], 3 * layer as u64));
        all.push(bf16(of("b"), &[64, rows], 3 * layer as u64 + 1));
        all.push(bf16(of("norm"), &[64], 3 * layer as u64 + 2));
    }
    std::fs::write(folder.join("model.safetensors"), files::file(&all)).unwrap();
}

fn patterns() -> Patterns {
    Patterns::parse(r#"{"layers\\.\\d+": ["a", "b"]}"#).unwrap()
}

#[test]
fn estimates_are_near_what_compress_writes() {
    // Small groups are counted as a whole; of the others some runs are.
    for (rows, layers) in [(500, 3), (4000, 2)] {
        let (source, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made(source.path(), rows, layers);
        let options = CompressOptions::new().patterns(patterns()).threads(2);
        writer::compress(source.path(), to.path(), &options, &Progress::new()).unwrap();
        let truth = plan(to.path(), &PlanOptions::new()).unwrap();
        let off = |ours: u64, theirs: u64| (ours as f64 / theirs as f64 - 1.0).abs();
        // Tables weigh something in small groups.
        for (sample, most) in [(false, if rows == 500 { 0.05 } else { 0.02 }), (true, 0.01)] {
            let options = PlanOptions::new().patterns(patterns()).sample(sample);
            let ours = plan(source.path(), &options).unwrap();
            assert!(!ours.is_compressed());
            assert_eq!(ours.groups().len(), truth.groups().len());
            for (group, truth) in ours.groups().iter().zip(truth.groups()) {
                assert_eq!(group.basis, if sample { Basis::Sampled } else { Basis::Assumed });
                let (size, true_size) = (group.packed.total(), truth.packed.total());
                assert!(off(size, true_size) < most, "{}: {size}, in truth {true_size}", group.name);
                let (image, true_image) = (group.image.image_bytes, truth.image.image_bytes);
                assert!(off(image, true_image) < most, "{}: {image}, in truth {true_image}", group.name);
                if sample && rows == 500 {
                    assert_eq!(group.packed.encoded_exponent, truth.packed.encoded_exponent);
                    assert_eq!(group.packed.luts, truth.packed.luts);
                    assert_eq!(group.image, truth.image);
                }
            }
            // The names of the files, too, and their sizes with headers.
            for (file, truth) in ours.files().iter().zip(truth.files()) {
                assert_eq!(Some(file.path.as_os_str()), truth.path.file_name());
                assert!(off(file.bytes, truth.bytes) < most, "{file:?}, in truth {truth:?}");
            }
            assert_eq!(ours.files().len(), truth.files().len());
            assert_eq!((ours.plain_bytes(), ours.original_bytes()), (truth.plain_bytes(), truth.original_bytes()));
        }
    }
}

/// Of a sparse layout all weights are zero: a code of one bit.
#[test]
fn samples_see_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    Dense::named("Llama-3.1-8B").write(folder.path());
    let sampled = plan(folder.path(), &PlanOptions::new().sample(true)).unwrap();
    for group in sampled.groups() {
        assert_eq!(group.packed.encoded_exponent, group.element_count.div_ceil(8), "{}", group.name);
    }
}

fn sum(shares: &[DeviceShare], of: impl Fn(&DeviceShare) -> u64) -> u64 {
    shares.iter().map(of).sum()
}

/// Returns the least that the largest of `count` runs of these units can take, by trying all borders.
fn least(units: &[(u64, u64)], count: usize) -> u64 {
    let cost = |run: &[(u64, u64)]| {
        run.iter().map(|(bytes, _)| bytes).sum::<u64>() + 4 * run.iter().map(|(_, weights)| *weights).max().unwrap_or(0)
    };
    let mut best: Vec<u64> = (0..=units.len()).map(|end| cost(&units[..end])).collect();
    for _ in 1..count {
        let of = |end: usize| (0..=end).map(|from| best[from].max(cost(&units[from..end]))).min().unwrap();
        best = (0..=units.len()).map(of).collect();
    }
    best[units.len()]
}

#[test]
fn layers_are_split_as_evenly_as_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let model = Dense::named("Llama-3.1-8B");
    model.write(folder.path());
    let plan = plan(folder.path(), &PlanOptions::new()).unwrap();
    let group = |name: &str| {
        let group = plan.groups().iter().find(|g| g.name == name).unwrap();
        (group.image.image_bytes, group.element_count)
    };
    // The embedding comes first; the last norm and the head come last.
    let mut units = vec![group("model.embed_tokens")];
    for layer in 0..model.layers {
        let (image, weights) = group(&format!("model.layers.{layer}"));
        units.push((image + 2 * 2 * model.hidden, weights));
    }
    units.extend([group("lm_head"), (2 * model.hidden, 0)]);
    for count in [1, 2, 3, 4, 5, 8, 16, 60] {
        let shares = plan.devices(count, Split::Layers).unwrap();
        assert_eq!(shares.len(), count as usize);
        assert_eq!(sum(&shares, |s| s.image_bytes), plan.image_bytes());
        assert_eq!(sum(&shares, |s| s.plain_bytes), plan.plain_bytes());
        assert_eq!(sum(&shares, |s| s.cache_bytes_per_token.unwrap()), plan.cache_bytes_per_token().unwrap());
        let largest = shares.iter().map(DeviceShare::total_bytes).max().unwrap();
        assert_eq!(largest, least(&units, count as usize), "{count} devices");
        assert_eq!(shares[0].first.as_deref(), Some("model.embed_tokens"));
        let bf16 = plan.devices_bf16(count, Split::Layers).unwrap();
        assert_eq!(sum(&bf16, DeviceShare::total_bytes), plan.original_bytes());
    }
    let two = plan.devices(2, Split::Layers).unwrap();
    assert!(two[0].last.as_ref().unwrap().starts_with("model.layers.") && two[1].last.as_deref() == Some("model.norm"));
}

#[test]
fn rows_are_split_evenly() {
    let folder = tempfile::tempdir().unwrap();
    Dense::named("Qwen3-8B").write(folder.path());
    let plan = plan(folder.path(), &PlanOptions::new()).unwrap();
    for count in [2, 4, 8] {
        let shares = plan.devices(count, Split::Rows).unwrap();
        assert!(shares.windows(2).all(|pair| pair[0] == pair[1]) && shares.len() == count as usize);
        // Tables are on each device, and so are norms, which are all that is plain.
        let (all, whole) = (sum(&shares, |s| s.image_bytes), plan.image_bytes());
        assert!(all > whole && all < whole + whole / 500, "{all} of {whole}");
        assert_eq!(shares[0].plain_bytes, plan.plain_bytes());
        assert!(shares[0].scratch_bytes.abs_diff(plan.scratch_bytes() / u64::from(count)) < 8);
    }
}

/// The tokens are the most that fit, on the device with the least room.
#[test]
fn tokens_fit_and_one_more_does_not() {
    let folder = tempfile::tempdir().unwrap();
    Dense::named("Llama-3.3-70B").write(folder.path());
    for options in [PlanOptions::new(), PlanOptions::new().slots(1).cache_number_bytes(1)] {
        let plan = plan(folder.path(), &options).unwrap();
        for (count, split) in [(1, Split::Layers), (3, Split::Layers), (8, Split::Layers), (4, Split::Rows)] {
            for memory in [30_000_000_000, 60_000_000_000, 141_000_000_000u64] {
                let tokens = plan.tokens(memory, count, split).unwrap();
                let both = [
                    (tokens.compressed, plan.devices(count, split).unwrap()),
                    (tokens.bf16, plan.devices_bf16(count, split).unwrap()),
                ];
                for (tokens, shares) in both {
                    let fits = |tokens: u64| {
                        let bytes = |s: &DeviceShare| s.total_bytes() + tokens * s.cache_bytes_per_token.unwrap();
                        shares.iter().all(|share| bytes(share) <= memory)
                    };
                    match tokens {
                        Some(tokens) => assert!(fits(tokens) && !fits(tokens + 1)),
                        None => assert!(!fits(0)),
                    }
                }
            }
        }
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let model = golden::model("sharded");
    let refused = |options: &PlanOptions| plan(&model, options).unwrap_err().to_string();
    assert!(refused(&PlanOptions::new().preset("llama")).contains("has its own groups"));
    assert!(refused(&PlanOptions::new().slots(65)).contains("65 slots"));
    assert!(refused(&PlanOptions::new().cache_number_bytes(9)).contains("9 bytes"));
    let verified = PlanOptions::new().open(OpenOptions::new().verify(true));
    assert!(plan(&model, &verified).is_ok());
    for open in [OpenOptions::new().config("{}"), OpenOptions::new().shapes("{}"), OpenOptions::new().shapes_from(".")]
    {
        let error = plan(&golden::path("tiny/original.safetensors"), &PlanOptions::new().open(open)).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(reason) if reason.contains("not compressed")), "{error}");
    }
    let plan = plan(&model, &PlanOptions::new()).unwrap();
    for count in [0, 1025] {
        assert!(plan.devices(count, Split::Rows).unwrap_err().to_string().contains("1 to 1024"));
        assert!(plan.tokens(1, count, Split::Layers).is_err());
    }
    let (cancelled, nothing) = (Progress::new(), golden::path("nothing"));
    cancelled.cancel();
    assert!(matches!(ModelPlan::new(&model, &PlanOptions::new(), &cancelled), Err(Error::Cancelled)));
    assert!(matches!(ModelPlan::new(nothing, &PlanOptions::new(), &Progress::new()), Err(Error::Io { .. })));
}
