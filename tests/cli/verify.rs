//! `df11 verify`: what it finds, and how it tells.

use df11::Dtype;

use super::support::files::{self, Stored};
use super::support::{check, encoder, golden, weights};
use super::{Ran, models, run_on};

/// Verifies a model against an original.
fn against(model: &std::path::Path, original: &std::path::Path, more: &[&str]) -> Ran {
    run_on("verify", model, &[&["--against", original.to_str().unwrap()], more].concat())
}

/// The lines that begin with this word.
fn lines<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter(|l| l.split_whitespace().next() == Some(word)).collect()
}

#[test]
fn every_golden_model_is_good() {
    for name in golden::NAMES {
        let original = golden::path(name).join("original.safetensors");
        let groups = df11::Model::open(golden::model(name), &Default::default()).unwrap().groups().len();
        for more in [&[][..], &["--threads", "1"], &["--threads", "5"]] {
            let alone = run_on("verify", golden::model(name), more).good();
            assert_eq!(lines(&alone, "ok").len(), groups, "{alone}");
            let both = against(&golden::model(name), &original, more).good();
            assert!(both.starts_with(alone.lines().next().unwrap()) && both.contains(", 0 different"), "{both}");
        }
        assert_eq!(against(&golden::model(name), &original, &["-q"]).good(), "");
    }
    // Any two that hold the same tensors can be compared; an original may be a folder.
    let original = golden::path("tiny/original.safetensors");
    against(&golden::model("tiny"), &golden::model("tiny"), &[]).good();
    against(&original, &golden::model("tiny"), &[]).good();
}

/// One bit of a mantissa: nothing in the model contradicts it, and the comparison finds it.
#[test]
fn one_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    models::changed("block", dir.path(), |t| models::find(t, "model.layers.1.sign_mantissa").data[300_000] ^= 0x80);
    run_on("verify", dir.path(), &[]).good();
    let ran = against(dir.path(), &golden::path("block/original.safetensors"), &[]);
    // q, k, v and o have 196,608 weights together, and gate 163,840.
    let place = "tensor 'model.layers.1.mlp.gate_proj.weight': element 103392 is 0x";
    ran.bad(1, &["in 1 tensor: ", place, "1 of 163,840 elements differ"]);
    let found = lines(&ran.out, "DIFFERS");
    assert!(found.len() == 1 && found[0].contains(place), "{}", ran.out);
    let bits: Vec<u16> = found[0].split("0x").skip(1).map(|t| u16::from_str_radix(&t[..4], 16).unwrap()).collect();
    assert_eq!(bits[0] ^ bits[1], 0x8000, "{}", ran.out);
    assert!(ran.out.contains("20 tensors equal, 1 different"), "{}", ran.out);
}

/// Damage inside a group is told with its place; the other groups are verified all the same.
#[test]
fn damaged_groups() {
    let dir = tempfile::tempdir().unwrap();
    models::changed("sharded", dir.path(), |t| {
        models::find(t, "model.layers.0.gaps").data[40] ^= 0x10;
        models::find(t, "lm_head.encoded_exponent").data[3000..].fill(0xff);
    });
    let ran = run_on("verify", dir.path(), &[]);
    ran.bad(1, &["2 of 4 groups are damaged: group 'lm_head': ", "tensor 'lm_head.", "at byte"]);
    let bad = lines(&ran.out, "BAD");
    assert!(
        bad.len() == 2 && bad[1].contains("model.layers.0.gaps") && bad[1].contains("the gap of block 0"),
        "{}",
        ran.out
    );
    assert_eq!(lines(&ran.out, "ok").len(), 2, "{}", ran.out);

    let quiet = run_on("verify", dir.path(), &["-q"]);
    assert_eq!((quiet.code, quiet.out.lines().count()), (1, 2));
    // A gap in the middle of a block hurts no decoder that starts at blocks; codes that lead nowhere hurt all.
    let ran = against(dir.path(), &golden::path("sharded/original.safetensors"), &[]);
    ran.bad(
        1,
        &[
            "2 of 4 groups are damaged",
            "; and the model differs from the original in 1 tensor: tensor 'lm_head.weight'",
        ],
    );
    assert!(lines(&ran.out, "DIFFERS")[0].contains("it cannot be decoded: "), "{}", ran.out);

    // A file that opens no more is told as such.
    models::changed("tiny", dir.path(), |t| models::find(t, "linear.output_positions").data[0] = 1);
    run_on("verify", dir.path(), &[]).bad(1, &["linear.output_positions", "position 0 is 1"]);
}

/// All kinds of differences at once: each has its line.
#[test]
fn all_differences_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("o.safetensors");
    models::changed_original("edge", &original, |t| {
        t.retain(|t| t.name != "misc_bool");
        models::find(t, "misc_f32").data[4 * 7 + 3] ^= 0x40;
        models::find(t, "misc_i64").data[8] ^= 1;
        models::find(t, "misc_f16").dtype = Dtype::BF16;
        models::find(t, "misc_empty").shape = vec![4, 0];
        t.push(models::plain("only.there", &[1]));
        let doubled = models::find(t, "mods.gauss_n8.weight");
        doubled.data.extend_from_within(..);
        doubled.shape = vec![16];
        let all = models::find(t, "mods.n_elements_64.weight");
        all.data.iter_mut().step_by(2).for_each(|b| *b ^= 1);
        // What the model does not know cannot differ.
        models::find(t, "mods.n_elements_512.weight").shape = vec![2, 256];
    });
    let ran = against(&golden::model("edge"), &original, &["--threads", "2"]);
    ran.bad(1, &["in 8 tensors: tensor 'mods.gauss_n8.weight': it has 8 elements, and 16 in the original"]);
    let found = lines(&ran.out, "DIFFERS").join("\n");
    for part in [
        "'misc_bool': the model has it and the original does not",
        "'misc_f32': element 7 is 0x",
        "'misc_i64': element 1 is 0x",
        "'misc_f16': it is F16, and BF16 in the original",
        "'misc_empty': its shape is [0, 4], and [4, 0] in the original",
        "'only.there': the original has it and the model does not",
        "'mods.gauss_n8.weight': it has 8 elements, and 16 in the original",
        "'mods.n_elements_64.weight': element 0 is 0x",
        "(64 of 64 elements differ)",
    ] {
        assert!(found.contains(part), "no \"{part}\" in:\n{found}");
    }
    assert_eq!(found.lines().count(), 8, "{found}");
    assert_eq!(against(&golden::model("edge"), &original, &["-q"]).out.trim_end(), found);
}

/// Shapes are compared where the model's metadata has them.
#[test]
fn shapes_from_the_metadata_count() {
    let dir = tempfile::tempdir().unwrap();
    let weights = weights::gaussian(64, 0.02, 9);
    let original = dir.path().join("o");
    let shaped = |name: &str, shape: &[usize], w: &[u16]| Stored {
        shape: shape.to_vec(),
        ..models::plain(&format!("layers.0.{name}.weight"), w)
    };
    let flags = Stored::new("flags", Dtype::BOOL, &[5], vec![1, 0, 1, 1, 0]);
    let all = [shaped("a", &[4, 8], &weights[..32]), shaped("b", &[8, 4], &weights[32..]), flags];
    std::fs::write(&original, files::file(&all)).unwrap();
    models::write_small(dir.path(), &weights, None);
    against(dir.path(), &original, &[]).good();
    models::write_small(dir.path(), &weights, Some(r#"{"layers.0.a.weight": [4, 8], "layers.0.b.weight": [2, 16]}"#));
    against(dir.path(), &original, &[])
        .bad(1, &["'layers.0.b.weight': its shape is [2, 16], and [8, 4] in the original"]);
}

/// Names of published models for matrices that are transposed: a shape that is derived is compared, and is not left to be derived if
/// it would be wrong. Where it is right nothing is stored, as the reference stores nothing.
#[test]
fn shapes_that_would_be_derived_wrongly_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (usual, transposed) = (dir.path().join("usual"), dir.path().join("transposed"));
    let mut tensors = models::qwen3(3, 12_800);
    models::write_source(&usual, &tensors, 1);
    tensors.iter_mut().for_each(|t| t.shape.reverse());
    models::write_source(&transposed, &tensors, 1);
    for (source, other, stores) in [(&usual, &transposed, false), (&transposed, &usual, true)] {
        let to = tempfile::tempdir().unwrap();
        let (out, back) = (to.path().join("df11"), to.path().join("back"));
        let (out_text, back_text) = (out.to_str().unwrap(), back.to_str().unwrap());
        let ran = run_on("compress", source, &["--preset", "qwen3", "-o", out_text]);
        assert!(ran.code == 0 && ran.err.contains("the shapes are stored") == stores, "{}", ran.err);
        let files = models::tree(&out);
        let has = |bytes: &Vec<u8>| bytes.windows(11).any(|w| w == b"df11.shapes");
        assert_eq!(files.values().filter(|bytes| has(bytes)).count(), if stores { 5 } else { 0 });
        against(&out, source, &[]).good();
        let how =
            if stores { "its shape is [" } else { "its shape follows from the config and the plain tensors as [" };
        let all = format!("differs from the original in {} tensors", 3 * 7 + 2);
        against(&out, other, &[]).bad(1, &[how, "in the original", &all]);
        if !stores {
            let remedy = ["--shapes-from", other.to_str().unwrap()];
            against(&out, other, &remedy).good();
        }
        run_on("decompress", &out, &["-o", back_text, "-q"]).good();
        against(&back, source, &[]).good();
    }
}

/// Hashes of the metadata have a line of their own, and those that are wrong are listed.
#[test]
fn hashes_from_the_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.safetensors");
    let weights = weights::gaussian(64, 0.02, 9);
    let write = |hashes: &str| {
        let group = encoder::group_tensors("g", &encoder::encode(&weights, &[32]));
        let metadata = [(df11::internals::format::HASHES_KEY.to_owned(), hashes.to_owned())];
        std::fs::write(&file, encoder::safetensors(&group, Some(&metadata))).unwrap();
        run_on("verify", &file, &["--config", dir.path().join("config.json").to_str().unwrap()])
    };
    std::fs::write(dir.path().join("config.json"), files::config("0.5.0", r#"{"g": ["a", "b"]}"#)).unwrap();
    let hash = |half: &[u16]| check::sha256(bytemuck::cast_slice(half));
    let (a, b) = (hash(&weights[..32]), hash(&weights[32..]));
    let out = write(&format!(r#"{{"g.a.weight": "{a}"}}"#)).good();
    assert!(out.contains("1 group good, 0 bad; 64 codes walked\n1 hash right, 0 wrong; compared\n"), "{out}");
    let ran = write(&format!(r#"{{"g.a.weight": "{a}", "g.b.weight": "{a}"}}"#));
    ran.bad(1, &["1 of 2 hashes is wrong: tensor 'g.b.weight': its SHA-256 is ", &b]);
    assert!(lines(&ran.out, "BAD").len() == 1 && ran.out.contains("1 hash right, 1 wrong"), "{}", ran.out);
    write(r#"{"g.a.weight": "12"}"#).bad(1, &["is not 64 hexadecimal digits", "m.safetensors"]);
}

/// A head that is the embedding once more may be missing on either side; any other may not.
#[test]
fn a_tied_head_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let embedding = weights::gaussian(3000, 0.02, 2);
    let tied = [models::plain("model.embed_tokens.weight", &embedding), models::plain("lm_head.weight", &embedding)];
    let mut other = embedding.clone();
    other[2999] ^= 1;
    let untied = [tied[0].clone(), models::plain("lm_head.weight", &other)];
    let (with, without, odd) = (folder("with"), folder("without"), folder("odd"));
    std::fs::write(with.join("m.safetensors"), files::file(&tied)).unwrap();
    std::fs::write(without.join("m.safetensors"), files::file(&tied[..1])).unwrap();
    std::fs::write(odd.join("m.safetensors"), files::file(&untied)).unwrap();

    for (model, original, side) in [(&with, &without, "model"), (&without, &with, "original")] {
        let out = against(model, original, &[]).good();
        let note =
            format!("'lm_head.weight' is in the {side} only: it is tied, bit for bit equal to 'model.embed_tokens");
        assert!(lines(&out, "note")[0].contains(&note), "{out}");
        assert_eq!(against(model, original, &["-q"]).good(), "");
    }
    against(&odd, &without, &[]).bad(1, &["'lm_head.weight': the model has it and the original does not"]);
    against(&without, &odd, &[]).bad(1, &["'lm_head.weight': the original has it and the model does not"]);

    // Compressed: of the golden model neither is tied to the other.
    let lone = dir.path().join("o.safetensors");
    models::changed_original("sharded", &lone, |t| t.retain(|t| t.name != "lm_head.weight"));
    against(&golden::model("sharded"), &lone, &[]).bad(1, &["'lm_head.weight'"]);
}

/// An original that cannot be used says nothing about the model.
#[test]
fn an_original_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("o.safetensors");
    std::fs::write(&file, "not one").unwrap();
    against(&golden::model("tiny"), &file, &[]).bad(2, &["the original cannot be used", "o.safetensors"]);
    against(&golden::model("tiny"), &dir.path().join("gone"), &[])
        .bad(2, &["the original cannot be used", "No such file"]);
}
