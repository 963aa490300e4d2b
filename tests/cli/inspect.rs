//! `df11 inspect`: its text, its JSON, its picture.

use df11::{Model, OpenOptions};
use serde_json::Value;

use super::support::files::{self, Stored};
use super::support::{golden, weights};
use super::{Ran, df11, list, models, run_on};

const TINY: &str = "\
tiny/model
DF11, config version 0.5.0; 1 group, 4 tensors, 1 file of 6.190 kB

SIZE                             weights      decoded       stored     ratio
in groups                          3,072     6.144 kB     5.166 kB   84.08 %
plain tensors                                   352 B        352 B  100.00 %
all                                          6.496 kB     5.518 kB   84.94 %

BITS PER WEIGHT                                 share
sign and mantissa                 8.0000      59.47 %
codes                             2.5990      19.32 %
gaps                              0.8333       6.19 %
positions                         0.0208       0.15 %
look-up tables                    2.0000      14.87 %
splits                            0.0000       0.00 %
all                              13.4531     100.00 %

GROUP                             count tensors    weights each     stored     bits  code bits
linear                                1       1           3,072   5.166 kB   13.453  2-12, mean 2.60

TENSOR                                              count  stored as   shape each           decoded
linear.weight                                           1  DF11        [48, 64]            6.144 kB
linear.bias                                             1  BF16        [48]                    96 B
norm.bias                                               1  BF16        [64]                   128 B
norm.weight                                             1  BF16        [64]                   128 B
";

#[test]
fn the_text_of_a_small_model() {
    for more in [&[][..], &["--all"]] {
        let output = df11().current_dir(golden::path("")).args(["inspect", "tiny/model"]).args(more).output().unwrap();
        assert_eq!(Ran::of(output).good(), TINY);
    }
}

/// Nothing is wider than 100 columns, equal layers share a line, and `--all` gives every name its own.
#[test]
fn the_text_of_larger_models() {
    let wide = |text: &str| text.lines().skip(1).map(|l| l.chars().count()).max();
    for name in golden::NAMES {
        let (short, all) = (
            run_on("inspect", golden::model(name), &[]).good(),
            run_on("inspect", golden::model(name), &["--all"]).good(),
        );
        assert!(wide(&short) <= Some(100) && wide(&all) <= Some(100), "{short}{all}");
        let model = Model::open(golden::model(name), &OpenOptions::default()).unwrap();
        assert!(all.lines().count() >= model.groups().len() + model.tensors().len());
    }
    let text = run_on("inspect", golden::model("sharded"), &[]).good();
    for line in ["model.layers.[0-1] ", "model.layers.[0-1].mlp.up_proj.weight ", "lm_head "] {
        assert_eq!(text.lines().filter(|l| l.starts_with(line)).count(), 1, "{text}");
    }
    let text = run_on("inspect", golden::path("edge/original.safetensors"), &[]).good();
    assert!(text.contains("nothing compressed") && !text.contains("GROUP"), "{text}");
}

/// A model of 400 layers is a page, not a scroll.
#[test]
fn four_hundred_groups_fit_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = files::stored("tiny");
    let copies = (0..400).flat_map(|i| {
        tiny.iter().map(move |t| Stored { name: format!("h.{i}.{}", t.name), ..t.clone() }).collect::<Vec<_>>()
    });
    let all: Vec<Stored> = copies.collect();
    std::fs::write(dir.path().join("m.safetensors"), files::file(&all)).unwrap();
    let text = run_on("inspect", dir.path(), &[]).good();
    assert!(text.lines().count() < 30 && text.contains("\nh.[0-399].linear "), "{text}");
    let json: Value = serde_json::from_str(&run_on("inspect", dir.path(), &["--json"]).good()).unwrap();
    assert_eq!((json["groups"].as_array().unwrap().len(), json["totals"]["groups"].as_u64()), (400, Some(400)));
    assert_eq!(json["config_version"], Value::Null);
}

/// The JSON parses, its sums are right, and it says what the library says.
#[test]
fn the_json_adds_up() {
    const MEMBERS: [&str; 6] = ["sign_mantissa", "codes", "gaps", "positions", "luts", "splits"];
    for name in golden::NAMES {
        let path = golden::model(name);
        let json: Value = serde_json::from_str(&run_on("inspect", &path, &["--json"]).good()).unwrap();
        let model = Model::open(&path, &OpenOptions::default()).unwrap();
        let raw = golden::raw(name);
        let number = |v: &Value| v.as_u64().unwrap();
        let (groups, tensors) = (json["groups"].as_array().unwrap(), json["tensors"].as_array().unwrap());
        assert_eq!((groups.len(), tensors.len()), (model.groups().len(), model.tensors().len()));
        assert_eq!((number(&json["schema"]), json["path"].as_str()), (1, path.to_str()));
        assert_eq!(json["config_version"], "0.5.0");

        let mut sums = [0; 6];
        for (group, have) in groups.iter().zip(model.groups()) {
            assert_eq!(group["name"], have.name());
            let stored: Vec<u64> = MEMBERS.iter().map(|m| number(&group["stored"][m])).collect();
            let files = ["sign_mantissa", "encoded_exponent", "gaps", "output_positions", "luts", "split_positions"];
            let sizes: Vec<u64> = files.iter().map(|m| raw[&format!("{}.{m}", have.name())].len() as u64).collect();
            assert_eq!(stored, sizes);
            assert_eq!(number(&group["stored"]["total"]), have.packed_bytes());
            assert_eq!(number(&group["weights"]), have.element_count());
            let bits = 8.0 * have.packed_bytes() as f64 / have.element_count() as f64;
            assert!((group["bits_per_weight"]["total"].as_f64().unwrap() - bits).abs() < 1e-9);
            let lengths = group["code_lengths"].as_object().unwrap();
            for (exponent, &len) in have.code_lengths().iter().enumerate() {
                let listed = lengths.get(&exponent.to_string()).map_or(0, number);
                assert_eq!(listed, len as u64, "{name}: {exponent}");
            }
            let bound = |v: &Value| v.as_f64().unwrap();
            let code = &group["code_bits"];
            assert_eq!(Some(number(&code["longest"])), lengths.values().map(number).max());
            assert_eq!(Some(number(&code["shortest"])), lengths.values().map(number).min());
            assert!(
                bound(&code["shortest"]) <= bound(&code["mean"]) && bound(&code["mean"]) <= bound(&code["longest"])
            );
            sums.iter_mut().zip(stored).for_each(|(sum, n)| *sum += n);
        }

        let totals = &json["totals"];
        for (member, sum) in MEMBERS.iter().zip(sums) {
            assert_eq!(number(&totals["stored"][member]), sum, "{name}: {member}");
        }
        assert_eq!(number(&totals["stored"]["total"]), sums.iter().sum::<u64>());
        let (plain, packed): (Vec<&Value>, Vec<&Value>) = tensors.iter().partition(|t| t["group"].is_null());
        let bytes = |list: &[&Value]| list.iter().map(|t| number(&t["bytes"])).sum::<u64>();
        assert_eq!((number(&totals["plain"]), number(&totals["bf16"])), (bytes(&plain), bytes(&packed)));
        assert_eq!(number(&totals["decoded"]), bytes(&plain) + bytes(&packed));
        assert_eq!(number(&totals["weights"]) * 2, number(&totals["bf16"]));
        let on_disk: u64 = files::golden_files(name).iter().map(|f| f.metadata().unwrap().len()).sum();
        assert_eq!(number(&totals["file_bytes"]), on_disk);
        for (tensor, have) in tensors.iter().zip(model.tensors()) {
            let shape: Vec<u64> = tensor["shape"].as_array().unwrap().iter().map(number).collect();
            assert_eq!((tensor["name"].as_str(), &shape[..]), (Some(have.name()), have.shape()));
            assert_eq!(tensor["shape_known"], have.shape_known());
            let source = match tensor["group"].is_null() {
                true => Some("stored"),
                false => have.shape_known().then_some("derived"),
            };
            assert_eq!(tensor["shape_source"].as_str(), source);
        }
    }
}

/// What a file says about itself cannot steer the terminal.
#[test]
fn names_are_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.safetensors");
    std::fs::write(&file, files::file(&[models::plain("evil\u{1b}[2J\r\n\u{202e}name", &[1, 2])])).unwrap();
    for more in [&[][..], &["--all"], &["--json"], &["-v"]] {
        let ran = run_on("inspect", &file, more);
        let tame = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
        assert!(tame(&ran.out) && tame(&ran.err) && ran.code == 0, "{more:?}: {}{}", ran.out, ran.err);
    }
}

/// A picture for each golden model, and for one group: well-formed, with a bar for each exponent that occurs.
#[test]
fn the_picture_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.svg");
    let to = file.to_str().unwrap();
    for name in golden::NAMES {
        let codes: Value =
            serde_json::from_slice(&std::fs::read(golden::path(name).join("codes.json")).unwrap()).unwrap();
        let text = run_on("inspect", golden::model(name), &["--plot", to, "--threads", "3"]).good();
        assert_eq!(text, run_on("inspect", golden::model(name), &[]).good());
        let svg = std::fs::read_to_string(&file).unwrap();
        let elements = check_xml(&svg);
        let count = |name: &str| elements.iter().filter(|e| *e == name).count();
        let mut exponents: Vec<&String> = Vec::new();
        codes.as_array().unwrap().iter().for_each(|m| exponents.extend(m["counter"].as_object().unwrap().keys()));
        exponents.sort();
        exponents.dedup();
        assert_eq!(count("circle"), exponents.len() + 1, "{name}: one dot each, and the legend's");
        assert_eq!(count("rect"), exponents.len() + 2, "{name}: one bar each, the legend's, and the background");
        assert!(svg.contains("aria-labelledby") && svg.contains("in bits") && svg.contains("share of weights"));
        for bad in ["NaN", "inf\"", "href", "url(", "script"] {
            assert!(!svg.contains(bad), "{name}: {bad}");
        }
    }
    let model = golden::model("sharded");
    run_on("inspect", &model, &["--plot", to, "--group", "lm_head"]).good();
    assert!(std::fs::read_to_string(&file).unwrap().contains("32,768 weights in 1 group;"));
    assert_eq!(list(dir.path()), ["p.svg"]);
}

/// The counts in the picture are those of the weights.
#[test]
fn the_picture_counts_right() {
    let dir = tempfile::tempdir().unwrap();
    models::write_small(dir.path(), &weights::of_counts(100, &[1, 999_000, 2_000], 3), None);
    let file = dir.path().join("p.svg");
    run_on("inspect", dir.path(), &["--plot", file.to_str().unwrap(), "--threads", "4"]).good();
    let svg = std::fs::read_to_string(&file).unwrap();
    for part in
        ["1,001,001 weights in 1 group", ": 999,000 weights,", ": 2,000 weights,", ": 1 weight,", "a code of 1 bit<"]
    {
        assert!(svg.contains(part), "no '{part}' in {svg}");
    }
}

/// What cannot be drawn or written ends with 2, prints nothing, and leaves nothing.
#[test]
fn a_picture_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.svg");
    let to = file.to_str().unwrap();
    let missing = dir.path().join("no/p.svg");
    let (tiny, plain) = (golden::model("tiny"), golden::path("tiny/original.safetensors"));
    let cases = [
        (run_on("inspect", &tiny, &["--plot", to, "--group", "head"]), "no group 'head'"),
        (run_on("inspect", &plain, &["--plot", to]), "nothing to draw"),
        (run_on("inspect", &tiny, &["--plot", missing.to_str().unwrap()]), "No such file"),
    ];
    for (ran, part) in cases {
        ran.bad(2, &[part]);
        assert_eq!(ran.out, "");
    }
    // Codes that lead nowhere: known only when they are decoded.
    models::changed("tiny", dir.path(), |t| models::find(t, "linear.encoded_exponent").data.fill(0xff));
    run_on("inspect", dir.path(), &["--plot", to]).bad(1, &["linear.encoded_exponent"]);
    assert_eq!(list(dir.path()), ["config.json", "model.safetensors"]);
}

/// Checks that a text is well-formed XML of the simple kind (no comments, no CDATA), and returns its elements' names.
fn check_xml(text: &str) -> Vec<String> {
    let body = text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("an XML declaration");
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for piece in body.split('<').skip(1) {
        let (tag, behind) = piece.split_once('>').expect("every tag is closed");
        for (i, _) in behind.match_indices('&') {
            let entity = ["&amp;", "&lt;", "&gt;"].iter().any(|e| behind[i..].starts_with(e));
            assert!(entity, "a bare & in {behind}");
        }
        assert!(
            !behind.contains('>') && (behind.trim().is_empty() || !open.is_empty()),
            "text in no element: {behind}"
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        assert!(tag.matches('"').count() % 2 == 0 && !tag.contains('&'), "{tag}");
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        if !tag.ends_with('/') {
            open.push(name.clone());
        }
        all.push(name);
    }
    assert!(open.is_empty() && all[0] == "svg", "{open:?}");
    all
}
