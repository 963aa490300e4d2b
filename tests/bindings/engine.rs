//! The inference engine in `examples/engine`, on the emulated driver: the same tokens however it keeps the weights, which are those
//! that a forward pass in double precision finds here, and products with the bits of a sum in the order that is written down.
#![cfg(target_os = "linux")]

use crate::support;

use df11::writer::{self, CompressOptions};
use df11::{Model, OpenOptions, Progress};
use df11_emulator::memory::{Kind, Memory};
use df11_emulator::ptx::{Launch, Module, Options};
use half::bf16;
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use support::engine;
use support::programs::{WARNINGS, compiler, library, run};
use support::weights;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The program, the library that it loads, and the models.
struct Built {
    folder: tempfile::TempDir,
    program: PathBuf,
}

static BUILT: LazyLock<Built> = LazyLock::new(|| {
    let folder = library();
    let program = folder.path().join("engine");
    run(compiler(true)
        .current_dir(ROOT)
        .args(["-std=c++17", "-g", "-O1", "-Iinclude", "-Ibindings/cpp", "-Iexamples", "examples/engine/main.cc", "-o"])
        .arg(&program)
        .args(WARNINGS)
        .arg("-L")
        .arg(folder.path())
        .args(["-ldf11", "-ldl", "-pthread"])
        .arg(format!("-Wl,-rpath,{}", folder.path().display())));
    // 640 columns are a run and a quarter of one. The head of `wide` is larger than its layer. That of `tied` is not compressed.
    let usual = ["--layers", "4", "--feed-forward", "640"];
    for (name, options) in [
        ("untied", [&usual[..], &[]].concat()),
        ("tied", [&usual[..], &["--tied"]].concat()),
        ("wide", vec!["--layers", "1", "--feed-forward", "64", "--vocabulary", "1024"]),
    ] {
        let original = folder.path().join(name);
        run(Command::new("python3")
            .current_dir(ROOT)
            .arg("examples/ggml/make_model.py")
            .arg(&original)
            .arg(folder.path().join("head.gguf"))
            .args(options));
        let to = folder.path().join(format!("{name}-DF11"));
        writer::compress(&original, &to, &CompressOptions::new(), &Progress::new()).unwrap();
    }
    Built { folder, program }
});

/// Starts the engine on the emulator, which ends it with status 99 if it leaves anything behind.
fn start(model: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(&BUILT.program);
    command
        .env("DF11_LIBCUDA", engine::library())
        .env("DF11_EMULATOR_LEAKS", "stderr")
        .env("DF11_EMULATOR_LEAK_EXIT", "99")
        .envs(settings.iter().copied());
    command.arg(model).args(arguments).output().unwrap()
}

fn model(name: &str) -> PathBuf {
    BUILT.folder.path().join(format!("{name}-DF11"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the tokens that each mode has printed.
fn tokens(said: &str) -> Vec<(String, Vec<u32>)> {
    let lines = said.lines().filter_map(|line| line.split_once(" tokens ")).map(|(mode, list)| (mode.trim(), list));
    lines
        .filter(|(mode, _)| !mode.contains(' '))
        .map(|(mode, list)| (mode.to_owned(), list.split(' ').map(|token| token.parse().unwrap()).collect()))
        .collect()
}

/// A forward pass of Qwen3 in double precision. What the engine rounds to bf16 is rounded here, too: what is multiplied with, and
/// what is kept of keys and values.
struct Reference {
    tensors: HashMap<String, Vec<f64>>,
    config: serde_json::Value,
    cache: Vec<[Vec<Vec<f64>>; 2]>,
}

fn rounded(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    values.into_iter().map(|value| bf16::from_f32(value as f32).to_f64()).collect()
}

impl Reference {
    fn new(folder: &Path) -> Reference {
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let value = |pair: &[u8]| bf16::from_bits(u16::from_le_bytes([pair[0], pair[1]])).to_f64();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| (name.to_owned(), view.data().chunks(2).map(value).collect()));
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let layers = config["num_hidden_layers"].as_u64().unwrap();
        Reference { tensors: tensors.collect(), config, cache: (0..layers).map(|_| Default::default()).collect() }
    }

    fn number(&self, name: &str) -> usize {
        self.config[name].as_u64().unwrap() as usize
    }

    fn product(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.tensors[name].chunks(x.len());
        rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + self.config["rms_norm_eps"].as_f64().unwrap()).sqrt();
        x.iter().zip(&self.tensors[name]).map(|(x, w)| x * scale * w).collect()
    }

    /// Norms and rotates each head.
    fn heads(&self, name: &str, x: &[f64], position: usize) -> Vec<Vec<f64>> {
        let size = self.number("head_dim");
        let base = self.config["rope_theta"].as_f64().unwrap();
        let turned = |head: &[f64]| {
            let (head, half) = (self.norm(name, head), size / 2);
            let at = |i: usize| {
                let angle = position as f64 * base.powf(-2.0 * (i % half) as f64 / size as f64);
                let other = if i < half { -head[i + half] } else { head[i - half] };
                head[i] * angle.cos() + other * angle.sin()
            };
            (0..size).map(at).collect()
        };
        x.chunks(size).map(turned).collect()
    }

    /// Returns the token that is likeliest to follow, and by how much its logit is larger than the second.
    fn next(&mut self, token: u32) -> (u32, f64) {
        let (hidden, size) = (self.number("hidden_size"), self.number("head_dim"));
        let embedding = &self.tensors["model.embed_tokens.weight"];
        let mut state = embedding[token as usize * hidden..][..hidden].to_vec();
        for layer in 0..self.cache.len() {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let x = rounded(self.norm(&name("input_layernorm"), &state));
            let position = self.cache[layer][0].len();
            let queries = self.heads(&name("self_attn.q_norm"), &self.product(&name("self_attn.q_proj"), &x), position);
            let keys = self.heads(&name("self_attn.k_norm"), &self.product(&name("self_attn.k_proj"), &x), position);
            let values = rounded(self.product(&name("self_attn.v_proj"), &x));
            self.cache[layer][0].push(rounded(keys.concat()));
            self.cache[layer][1].push(values);
            let sharing = queries.len() / keys.len();
            let attended = queries.iter().enumerate().flat_map(|(head, query)| {
                let part = head / sharing * size..(head / sharing + 1) * size;
                let [keys, values] = &self.cache[layer];
                let score = |key: &Vec<f64>| {
                    let score: f64 = query.iter().zip(&key[part.clone()]).map(|(q, k)| q * k).sum();
                    (score / (size as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = keys.iter().map(score).collect();
                let total: f64 = weights.iter().sum();
                part.clone()
                    .map(|i| weights.iter().zip(values).map(|(w, v)| w * v[i]).sum::<f64>() / total)
                    .collect::<Vec<_>>()
            });
            let attended = rounded(attended);
            let delta = self.product(&name("self_attn.o_proj"), &attended);
            state.iter_mut().zip(delta).for_each(|(state, delta)| *state += delta);
            let x = rounded(self.norm(&name("post_attention_layernorm"), &state));
            let gate = self.product(&name("mlp.gate_proj"), &x);
            let up = self.product(&name("mlp.up_proj"), &x);
            let inner = rounded(gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up));
            let delta = self.product(&name("mlp.down_proj"), &inner);
            state.iter_mut().zip(delta).for_each(|(state, delta)| *state += delta);
        }
        let x = rounded(self.norm("model.norm.weight", &state));
        let head = if self.tensors.contains_key("lm_head.weight") { "lm_head" } else { "model.embed_tokens" };
        let logits = self.product(&format!("{head}.weight"), &x);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        (order[0] as u32, logits[order[0]] - logits[order[1]])
    }
}

#[test]
fn the_same_tokens_in_every_mode() {
    for (name, count) in [("untied", 6), ("tied", 4), ("wide", 4)] {
        let output = start(&model(name), &["--tokens", &count.to_string(), "--prompt", "1,2,3,4"], &[]);
        let said = stdout(&output);
        assert!(output.status.success() && said.contains("4 modes, the same tokens"), "{output:?}");
        assert!(!said.contains("tokens a second"), "the emulator's times mean nothing: {said}");
        let mut reference = Reference::new(&BUILT.folder.path().join(name));
        let (mut next, mut want) = ((0, 0.0), Vec::new());
        for token in 1..=4 {
            next = reference.next(token);
        }
        for _ in 0..count {
            println!("{name}: {} by {:.3}", next.0, next.1);
            want.push(next.0);
            next = reference.next(next.0);
        }
        let found = tokens(&said);
        assert_eq!(
            found.iter().map(|(mode, _)| mode.as_str()).collect::<Vec<_>>(),
            ["bf16", "decode", "fused", "stream"],
            "{said}"
        );
        for (mode, tokens) in found {
            assert_eq!(tokens, want, "{name}, {mode}");
        }
        // Tokens that repeat would tell little.
        assert!(want.iter().collect::<std::collections::HashSet<_>>().len() > 2, "{want:?}");
    }
}

/// In whatever order streams run, and at once.
#[test]
fn streams_may_run_in_any_order() {
    let said = |settings: &[(&str, &str)]| {
        let output = start(&model("untied"), &["--tokens", "2", "--prompt", "5"], settings);
        assert!(output.status.success(), "{output:?}");
        tokens(&stdout(&output))
    };
    let want = said(&[]);
    assert_eq!(want.len(), 4);
    for seed in ["1", "2"] {
        assert_eq!(said(&[("DF11_EMULATOR_SEED", seed)]), want);
    }
    assert_eq!(said(&[("DF11_EMULATOR_EAGER", "1")]), want);
}

/// Every wait of one stream for another is needed: a driver that leaves one kind of them out, and says that all is well, is found
/// out, at the latest by the capture.
#[test]
fn the_streams_need_each_of_their_waits() {
    // When a slot for weights may be overwritten is the same line in both modes.
    for (mode, kinds, shown) in [("decode", 2, &[1, 2][..]), ("stream", 4, &[1, 2, 4])] {
        let arguments = ["--mode", mode, "--tokens", "1", "--prompt", "5"];
        let want = tokens(&stdout(&start(&model("untied"), &arguments, &[])));
        assert_eq!(want.len(), 1);
        for &kind in shown {
            // Of both passes over the four layers and the head: the one that counts exponents, and the captured one.
            let rules: Vec<String> = (0..10).map(|i| format!("cuStreamWaitEvent@{}=0", kinds * i + kind)).collect();
            let settings = [("DF11_EMULATOR_FAIL", &*rules.join(",")), ("DF11_EMULATOR_LEAK_EXIT", "0")];
            let output = start(&model("untied"), &arguments, &settings);
            let found = output.status.success() && tokens(&stdout(&output)) == want;
            assert!(!found, "{mode}: all is right without wait {kind} of {kinds}");
        }
    }
}

/// Where bf16 does not fit the others go on.
#[test]
fn modes_that_do_not_fit_are_told() {
    let said = |memory| start(&model("untied"), &["--tokens", "2"], &[("DF11_EMULATOR_MEMORY", memory)]);
    let (some, none) = (said("2300K"), said("100K"));
    let error = String::from_utf8_lossy(&some.stderr);
    assert!(error.contains("engine: bf16: the device has no 589824 bytes left"), "{error}");
    assert!(!error.contains("engine: stream") && some.status.success(), "{some:?}");
    assert!(tokens(&stdout(&some)).iter().any(|(mode, _)| mode == "stream"), "{some:?}");
    assert!(none.status.code() == Some(1) && none.stdout.is_empty(), "{none:?}");
}

#[test]
fn what_it_cannot_do_is_refused() {
    let refused = |model: &Path, arguments: &[&str], code, why: &str| {
        let output = start(model, arguments, &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && error.contains(why), "{output:?}");
    };
    let untied = model("untied");
    refused(&untied, &["--prompt", "288"], 1, "engine: bf16: token 288 does not exist");
    refused(&untied, &["--tokens", "8", "--context", "10"], 2, "usage: ");
    refused(&untied, &["--mode", "fast"], 2, "usage: ");
    // Another kind of model, and one that is not compressed.
    refused(&Path::new(ROOT).join("tests/data/golden/block/model"), &[], 1, "engine: config.json: ");
    refused(&BUILT.folder.path().join("untied"), &[], 1, "self_attn.q_proj.weight is not compressed");
    let none = ("DF11_LIBCUDA", "/nonexistent/libcuda.so.1");
    let output = start(&untied, &[], &[none]);
    assert!(output.status.code() == Some(77) && stdout(&output).contains("missing: a CUDA device"), "{output:?}");
}

/// A matrix whose exponents are spread, so that a tenth of its weights are of unusual ones; and some zeros and subnormal numbers.
fn spread(rows: usize, columns: usize) -> Vec<u16> {
    let mut all = weights::uniform_exponents(rows * columns, 112..=127, 7);
    all.iter_mut()
        .step_by(13)
        .zip([0, 0x8000, 1, 0x8001, 0x7f].iter().cycle())
        .for_each(|(weight, &bits)| *weight = bits);
    all
}

/// The seven most frequent of the halved exponents except 0, and 0.
fn usual(weights: &[u16]) -> [bool; 128] {
    let mut counts = [0; 128];
    weights.iter().for_each(|w| counts[usize::from(w >> 8 & 127)] += 1);
    let mut order: Vec<usize> = (1..128).collect();
    order.sort_by_key(|&e| (std::cmp::Reverse(counts[e]), e));
    std::array::from_fn(|e| e == 0 || order[..7].contains(&e))
}

/// The exponents that the engine takes as usual are those of linear images, from which `fused` multiplies.
#[test]
fn usual_exponents_are_those_of_linear_images() {
    let bytes = std::fs::read(BUILT.folder.path().join("untied/model.safetensors")).unwrap();
    let original = SafeTensors::deserialize(&bytes).unwrap();
    let model = Model::open(model("untied"), &OpenOptions::default()).unwrap();
    let mut compared = 0;
    for group in model.groups() {
        let plan = group.linear(&[], 1, &Progress::new()).unwrap();
        for (tensor, linear) in group.tensors().zip(plan.head().tensors()) {
            let data = original.tensor(tensor.name()).unwrap().data().to_vec();
            let weights: Vec<u16> = data.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            let (usual, found) = (usual(&weights), linear.table);
            let found = std::array::from_fn::<bool, 128, _>(|e| found.contains(&(e as u8)));
            assert_eq!(usual, found, "{}", tensor.name());
            compared += 1;
        }
    }
    assert_eq!(compared, 4 * 7 + 2);
}

/// A row's product, in the order that kernels.cu writes down.
fn row(w: &[u16], x: &[u16], usual: &[bool; 128]) -> f32 {
    let wide = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let stored = |bits: u16| if usual[usize::from(bits >> 8 & 127)] { wide(bits) } else { 0.0 };
    let runs = w.chunks(512).zip(x.chunks(512)).map(|(w, x)| {
        let mut quarters = [0.0f32; 4];
        for column in 0..w.len().next_multiple_of(64) {
            let sum = &mut quarters[column / 16 % 4];
            // After the last column both are zeros.
            let (w, x) = (w.get(column).map_or(0.0, |&w| stored(w)), x.get(column).map_or(0.0, |&x| wide(x)));
            *sum = w.mul_add(x, *sum);
        }
        let mut sum = (quarters[0] + quarters[1]) + (quarters[2] + quarters[3]);
        for (&w, &x) in w.iter().zip(x).filter(|(w, _)| !usual[usize::from(**w >> 8 & 127)]) {
            sum = wide(w).mul_add(wide(x), sum);
        }
        sum
    });
    runs.reduce(|sum, run| sum + run).unwrap()
}

/// Up to three matrices in a launch, of numbers of rows and columns that fill no tile, and of several runs.
#[test]
fn products_have_the_bits_of_the_written_order() {
    let header = std::fs::read_to_string(Path::new(ROOT).join("examples/engine/kernels_ptx.h")).unwrap();
    let ptx = header.split_once("R\"PTX(").unwrap().1.split_once(")PTX\"").unwrap().0;
    let module = Module::parse(ptx).unwrap();
    let memory = Memory::new();
    let device = |bytes: &[u8]| {
        let address = memory.alloc(bytes.len() as u64, Kind::Device, 0).unwrap();
        // SAFETY: memory of that size that nobody else uses.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        address
    };
    for (columns, rows) in
        [(8, [1, 16, 17]), (64, [33, 0, 0]), (504, [16, 5, 0]), (1096, [40, 3, 16]), (4616, [17, 0, 0])]
    {
        let x: Vec<u16> = weights::uniform_exponents(columns, 120..=128, 9);
        let matrices: Vec<Vec<u16>> = rows.iter().map(|&rows| spread(rows, columns)).collect();
        let count = rows.iter().filter(|&&rows| rows != 0).count();
        let (mut parameters, mut results) = (Vec::new(), Vec::new());
        for (weights, rows) in matrices.iter().zip(rows) {
            let usual = usual(weights).map(|usual| if usual { 0xff } else { 0 });
            let y = device(&vec![0xff; (4 * rows).max(1)]);
            results.push(y);
            for address in
                [device(bytemuck::cast_slice(&[weights.as_slice(), &[0]].concat())), device(&usual), y, rows as u64]
            {
                parameters.extend(address.to_le_bytes());
            }
        }
        parameters.extend(device(bytemuck::cast_slice(&x)).to_le_bytes());
        parameters.extend((columns as u64).to_le_bytes());
        let runs = columns.div_ceil(512) as u32;
        let launch = Launch {
            function: module.function("multiply").unwrap(),
            grid: [rows.iter().max().unwrap().div_ceil(16) as u32, count as u32, 1],
            block: [32 * runs.min(8), 1, 1],
            shared_bytes: 64 * runs,
            params: &parameters,
            memory: &memory,
            options: Options::default(),
        };
        launch.run().unwrap_or_else(|fault| panic!("{fault}"));
        for ((weights, rows), y) in matrices.iter().zip(rows).zip(results) {
            let (usual, mut unusual) = (usual(weights), 0);
            // SAFETY: memory of that size, and nothing runs.
            let found = unsafe { std::slice::from_raw_parts(y as *const u32, rows) };
            for (number, (w, &found)) in weights.chunks(columns).zip(found).enumerate() {
                unusual += w.iter().filter(|&&w| !usual[usize::from(w >> 8 & 127)]).count();
                let want = row(w, &x, &usual);
                assert_eq!(
                    f32::from_bits(found).to_bits(),
                    want.to_bits(),
                    "row {number} of {rows} of {columns} columns"
                );
            }
            assert!(rows * columns < 500 || unusual > rows * columns / 40, "{unusual} weights are added later");
        }
    }
}
