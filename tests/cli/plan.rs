//! `df11 plan`: what it prints of models that are there and of layouts without weights, its JSON, how long it takes and how
//! much memory, and docs/plan.md, whose tables are its output.

use super::support::golden;
use super::support::sparse::{self, Dense, Hollow};
use super::{Ran, df11, run, run_on};
use serde_json::{Value, json};
use std::path::Path;

const TINY: &str = "\
tiny/model
has 1 group in 1 file of 6.190 kB
sizes are exact

SIZE                             weights         bf16   compressed     ratio
in groups                          3,072     6.144 kB     5.166 kB   84.08 %
plain tensors                                   352 B        352 B  100.00 %
all                                          6.496 kB     5.518 kB   84.94 %

GROUP                                  count tensors    weights each     stored     bits     images
linear                                     1       1           3,072   5.166 kB   13.453   38.14 kB

PLAIN TENSOR                                               count  type       all of them
linear.bias                                                    1  BF16              96 B
norm.bias                                                      1  BF16             128 B
norm.weight                                                    1  BF16             128 B

MEMORY PER DEVICE              images        plain      scratch          all         bf16
1 device                     38.14 kB        352 B     12.29 kB     50.78 kB     6.496 kB
2 devices, by layers         38.14 kB         96 B     12.29 kB     50.53 kB     6.240 kB
2 devices, by rows           36.10 kB        352 B     6.144 kB     42.59 kB     3.424 kB

KV CACHE unknown: config.json does not say how many layers there are (num_hidden_layers)
";

#[test]
fn the_text_of_a_small_model() {
    let args = ["plan", "tiny/model", "--devices", "1,2"];
    let output = df11().current_dir(golden::path("")).args(args).output().unwrap();
    assert_eq!(Ran::of(output).good(), TINY);
}

fn json_of(model: &Path, more: &[&str]) -> Value {
    serde_json::from_str(&run_on("plan", model, &[&["--json"], more].concat()).good()).unwrap()
}

/// Nothing is wider than 100 columns, however large the model and however many devices.
#[test]
fn lines_are_short() {
    let folder = tempfile::tempdir().unwrap();
    Dense::named("Llama-3.1-405B").write(folder.path());
    for more in [
        &[][..],
        &["--all"],
        &["--devices", "1,16,256,512,1024", "--kv-bytes", "1"],
        &["--device-memory", "80GB,79.6GiB,100TB", "--devices", "1,1024"],
    ] {
        for model in [folder.path(), &golden::model("sharded"), &golden::model("tiny")] {
            let text = run_on("plan", model, more).good();
            let widest = text.lines().skip(1).map(|line| line.chars().count()).max();
            assert!(widest <= Some(100), "{text}");
        }
    }
}

#[test]
fn the_json_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    Dense::named("Qwen2.5-14B").write(folder.path());
    let plan = json_of(folder.path(), &["--device-memory", "48GB", "--slots", "1"]);
    let number = |value: &Value| value.as_u64().unwrap();
    let sum = |list: &Value, of: &dyn Fn(&Value) -> u64| list.as_array().unwrap().iter().map(of).sum::<u64>();
    let totals = &plan["totals"];
    assert_eq!((&plan["schema"], &plan["compressed"], &plan["basis"]), (&json!(1), &json!(false), &json!("assumed")));
    assert_eq!(number(&totals["groups"]), 50);
    assert_eq!(sum(&plan["groups"], &|g| number(&g["weights"])), number(&totals["weights"]));
    assert_eq!(sum(&plan["groups"], &|g| number(&g["stored"]["total"])), number(&totals["stored"]["total"]));
    assert_eq!(sum(&plan["groups"], &|g| number(&g["image_bytes"])), number(&totals["images"]));
    assert_eq!(sum(&plan["plain"], &|t| number(&t["bytes"])), number(&totals["plain"]));
    assert_eq!(sum(&plan["files"], &|f| number(&f["bytes"])), number(&totals["written"]));
    assert_eq!(number(&totals["bf16"]) + number(&totals["plain"]), number(&totals["original"]));
    let members = ["sign_mantissa", "codes", "gaps", "positions", "luts", "splits"];
    let stored = &totals["stored"];
    assert_eq!(members.iter().map(|m| number(&stored[m])).sum::<u64>(), number(&stored["total"]));
    assert_eq!(number(&plan["cache"]["bytes_per_token"]), 48 * 8 * 128 * 2 * 2);
    assert!(plan["cache_unknown"].is_null());
    // A way to split the model for one device, two for each other number.
    assert_eq!(plan["memory"].as_array().unwrap().len(), 7);
    for (memory, tokens) in plan["memory"].as_array().unwrap().iter().zip(plan["tokens"].as_array().unwrap()) {
        assert_eq!((&memory["devices"], &memory["split"]), (&tokens["devices"], &tokens["split"]));
        let room = |shares: &Value| {
            let room = |share: &Value| {
                let total = ["images", "plain", "scratch"].map(|part| number(&share[part])).iter().sum::<u64>();
                assert_eq!(total, number(&share["total"]));
                // A device with the head alone has no cache.
                let bytes = number(&share["cache_bytes_per_token"]);
                48_000_000_000u64.checked_sub(total).map(|free| free.checked_div(bytes).unwrap_or(u64::MAX))
            };
            shares.as_array().unwrap().iter().map(room).min().unwrap()
        };
        assert_eq!(tokens["df11"], json!(room(&memory["shares"])));
        assert_eq!(tokens["bf16"], json!(room(&memory["bf16_shares"])));
    }
    let unknown = json_of(&golden::model("tiny"), &[]);
    assert!(unknown["cache"].is_null() && unknown["tokens"][0]["df11"].is_null());
    assert!(unknown["cache_unknown"].as_str().unwrap().contains("num_hidden_layers"));
    assert_eq!((&unknown["compressed"], &unknown["basis"]), (&json!(true), &json!("exact")));
}

/// The largest models take seconds, and no memory worth mentioning.
#[cfg(target_os = "linux")]
#[allow(clippy::zombie_processes, reason = "wait4 waits for the tool, and says what it used")]
#[test]
fn large_layouts_take_no_time() {
    let folder = tempfile::tempdir().unwrap();
    Dense::named("Llama-3.1-405B").write(folder.path());
    let experts = tempfile::tempdir().unwrap();
    write_experts(experts.path());
    for (model, groups, limit, most) in [(folder.path(), 128, 3.0, 50 << 20), (experts.path(), 1, 6.0, 120 << 20)] {
        let child = df11().arg("plan").arg(model).arg("--json").stdout(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id() as i32;
        let peak = std::thread::spawn(move || super::support::programs::peak_of(pid as u32));
        let mut out = String::new();
        std::io::Read::read_to_string(&mut child.stdout.unwrap(), &mut out).unwrap();
        // SAFETY: an output of all zeros, and a child of this process that nobody else waits for.
        let usage = unsafe {
            let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
            assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
            assert_eq!(status, 0, "{out}");
            usage
        };
        // Of processor time: other tests run meanwhile.
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let took = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        assert!(took < limit, "{took} s");
        // What wait4 tells of memory has this process's in it.
        let peak = peak.join().unwrap();
        assert!(peak > 1 << 20 && peak < most, "{peak} bytes");
        let plan: Value = serde_json::from_str(&out).unwrap();
        assert!(plan["groups"].as_array().unwrap().len() >= groups);
    }
}

/// Writes a layout of 45,000 tensors and 1.3 TB: one with 256 experts in each of 58 layers.
fn write_experts(folder: &Path) {
    let mut tensors = vec![Hollow::bf16("model.embed_tokens.weight", &[129_280, 7168])];
    for layer in 0..58 {
        let of = |name: &str| format!("model.layers.{layer}.{name}.weight");
        tensors.push(Hollow::bf16(of("self_attn.kv_a_proj_with_mqa"), &[576, 7168]));
        for expert in 0..256 {
            for (name, shape) in [("gate_proj", [2048, 7168]), ("up_proj", [2048, 7168]), ("down_proj", [7168, 2048])] {
                tensors.push(Hollow::bf16(of(&format!("mlp.experts.{expert}.{name}")), &shape));
            }
        }
    }
    let config = json!({
        "model_type": "deepseek_v3", "num_hidden_layers": 58, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "hidden_size": 7168, "num_attention_heads": 128,
    });
    sparse::write(folder, &tensors, &config);
}

#[test]
fn wrong_arguments_are_told() {
    let model = golden::model("sharded");
    let refused = |more: &[&str]| {
        let ran = run_on("plan", &model, more);
        assert_eq!(ran.code, 2, "{}", ran.out);
        ran.err
    };
    assert!(refused(&["--device-memory", "80G"]).contains("MB, GB and TB"));
    assert!(refused(&["--device-memory", "many"]).contains("'many'"));
    assert!(refused(&["--devices", "0"]).contains("1..=1024"));
    assert!(refused(&["--slots", "65"]).contains("1..=64"));
    assert!(refused(&["--kv-bytes", "9"]).contains("1..=8"));
    assert!(refused(&["--preset", "llama"]).contains("has its own groups"));
    assert!(refused(&["--preset", "llama", "--pattern", "x"]).contains("cannot be used with"));
    assert!(refused(&["--all", "--json"]).contains("cannot be used with"));
    run(["plan", "no such model"]).bad(2, &["no such model"]);
    run_on("plan", golden::path("sharded/original.safetensors"), &["--preset", "lama"]).bad(2, &["did you mean"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0xx").unwrap();
    run_on("plan", folder.path(), &[]).bad(1, &["header is not valid", "model.safetensors"]);
}

/// The paper's figures that docs/plan.md compares with: gigabytes before and after, and the ratio in percent.
const PAPER: [(&str, &str, &str, &str); 4] = [
    ("Llama-3.1-8B", "16.1", "10.9", "67.8"),
    ("Qwen3-14B", "29.5", "20.1", "68.2"),
    ("Llama-3.3-70B", "141", "95.4", "67.6"),
    ("Llama-3.1-405B", "812", "551", "67.9"),
];

/// docs/plan.md has what the tool prints of the layouts of tests/support/sparse.rs. With `DF11_BLESS=1` it is written.
#[test]
fn the_page_is_what_the_tool_prints() {
    let folder = tempfile::tempdir().unwrap();
    for model in &sparse::MODELS {
        let path = folder.path().join(model.name);
        std::fs::create_dir(&path).unwrap();
        model.write(&path);
    }
    let text =
        |args: &[&str]| Ran::of(df11().current_dir(folder.path()).arg("plan").args(args).output().unwrap()).good();
    let code = |command: &str, out: &str| format!("```text\n$ df11 plan {command}\n{out}```\n");
    let example = code("Qwen3-8B", &text(&["Qwen3-8B"]));
    let eight = |slots: &str| {
        let command = format!("Llama-3.1-405B --devices 8 --device-memory 80GB,80GiB --slots {slots}");
        let out = text(&command.split(' ').collect::<Vec<_>>());
        let from = out.find("MEMORY PER DEVICE").unwrap();
        code(&command, &format!("[...]\n{}", &out[from..]))
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.md");
    let before = std::fs::read_to_string(&page).unwrap();
    let mut after = before.clone();
    for (name, block) in [
        ("example", example),
        ("eight", format!("{}\n{}", eight("2"), eight("1"))),
        ("sizes", sizes(folder.path())),
        ("context", context(folder.path())),
    ] {
        let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
        let (head, rest) = after.split_once(&start).unwrap_or_else(|| panic!("no {start}"));
        let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
        after = format!("{head}{start}\n{block}\n{end}{tail}");
    }
    if std::env::var_os("DF11_BLESS").is_some() {
        std::fs::write(&page, &after).unwrap();
    } else {
        assert!(before == after, "docs/plan.md is not what the tool prints: run this test with DF11_BLESS=1");
    }
}

fn sizes(folder: &Path) -> String {
    let gigabytes = |value: &Value| format!("{:.2}", value.as_u64().unwrap() as f64 / 1e9);
    let mut out = String::from(
        "| model | weights | bf16, GB | `df11 plan`, GB | ratio | paper: bf16, GB | DF11, GB | ratio |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for model in &sparse::MODELS {
        let totals = &json_of(&folder.join(model.name), &[])["totals"];
        let (after, before) = (totals["written"].as_u64().unwrap(), totals["original"].as_u64().unwrap());
        let paper = PAPER.iter().find(|(name, ..)| *name == model.name);
        let paper =
            paper.map_or(("", "", String::new()), |(_, before, after, ratio)| (before, after, format!("{ratio} %")));
        out += &format!(
            "| {} | {:.2}e9 | {} | {} | {:.2} % | {} | {} | {} |\n",
            model.name,
            before as f64 / 2e9,
            gigabytes(&totals["original"]),
            gigabytes(&totals["written"]),
            100.0 * after as f64 / before as f64,
            paper.0,
            paper.1,
            paper.2
        );
    }
    out
}

/// A compressed model is read as the other commands read it: a config for files that have none, and a version that is not known.
/// A plain model has its own.
#[test]
fn a_compressed_model_is_read_as_told() {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden::model("sharded")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "safetensors") {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    // Its tensors have no names then, of which the tool warns.
    let nameless = run_on("plan", folder.path(), &["--json"]);
    assert_eq!((nameless.code, nameless.err.contains("no config names")), (0, true), "{}", nameless.err);
    assert_eq!(serde_json::from_str::<Value>(&nameless.out).unwrap()["cache"], Value::Null);
    let config = golden::model("sharded").join("config.json");
    let told = json_of(folder.path(), &["--config", config.to_str().unwrap()]);
    assert_eq!(told, {
        let mut own = json_of(&golden::model("sharded"), &[]);
        own["path"] = told["path"].clone();
        for (file, told) in own["files"].as_array_mut().unwrap().iter_mut().zip(told["files"].as_array().unwrap()) {
            assert_eq!(file["bytes"], told["bytes"]);
            file["path"] = told["path"].clone();
        }
        own
    });
    let newer = folder.path().join("newer.json");
    std::fs::write(&newer, std::fs::read_to_string(&config).unwrap().replace("0.5.0", "9.5.0")).unwrap();
    let newer = ["--config", newer.to_str().unwrap()];
    run_on("plan", folder.path(), &newer).bad(1, &["9.5.0"]);
    assert_eq!(json_of(folder.path(), &[&newer[..], &["--any-version"]].concat())["cache"], told["cache"]);
    let original = golden::path("sharded/original.safetensors");
    let shapes = ["--shapes-from", original.to_str().unwrap()];
    assert_eq!(json_of(&golden::model("sharded"), &shapes)["cache"], told["cache"]);
    for more in [&newer, &shapes] {
        run_on("plan", &original, more).bad(2, &["the model is not compressed"]);
    }
}

/// The ratios between which the paper's longer contexts are.
const LONGER: [f64; 2] = [5.3, 13.17];

/// For each model the memory of a device on which the context is as many times longer as the paper says: the tool finds it so.
fn context(folder: &Path) -> String {
    let mut out = String::from(
        "| model | bf16 takes | DF11 takes | 5.3 times on | tokens | 13.17 times on | tokens |\n|---|---|---|---|---|---|---|\n",
    );
    for model in sparse::MODELS.iter().filter(|model| !model.name.ends_with("405B")) {
        let path = folder.join(model.name);
        let share = &json_of(&path, &["--devices", "1", "--slots", "1"])["memory"][0];
        let total = |shares: &str| share[shares][0]["total"].as_u64().unwrap();
        let (bf16, df11) = (total("bf16_shares"), total("shares"));
        out += &format!("| {} | {:.2} GB | {:.2} GB |", model.name, bf16 as f64 / 1e9, df11 as f64 / 1e9);
        for ratio in LONGER {
            // Room for `ratio` tokens next to the one, and for one token next to the other.
            let memory = (ratio * bf16 as f64 - df11 as f64) / (ratio - 1.0) / 1e9;
            let memory = format!("{memory:.2}GB");
            let more = ["--devices", "1", "--slots", "1", "--device-memory", &memory];
            let tokens = &json_of(&path, &more)["tokens"][0];
            let (long, short) = (tokens["df11"].as_u64().unwrap(), tokens["bf16"].as_u64().unwrap());
            let found = long as f64 / short as f64;
            assert!((found / ratio - 1.0).abs() < 0.1, "{}: {found} on {memory}", model.name);
            let memory = memory.replace("GB", " GB");
            out += &format!(" {memory} | {} and {} |", thousands(long), thousands(short));
        }
        out.push('\n');
    }
    out
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let from_end = |i: usize| digits.len() - i;
    let comma = |(i, digit): (usize, char)| match i > 0 && from_end(i).is_multiple_of(3) {
        true => format!(",{digit}"),
        false => digit.to_string(),
    };
    digits.chars().enumerate().map(comma).collect()
}
