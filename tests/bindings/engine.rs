//! The inference engine in `examples/engine`, on the emulated driver: the same tokens however it keeps the weights, which are those
//! that a forward pass in double precision finds here, and products with the bits of a sum in the order that is written down.
#![cfg(target_os = "linux")]

use crate::support;

use df11::Progress;
use df11::writer::{self, CompressOptions};
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
    for (name, options) in [("untied", &[][..]), ("tied", &["--tied"])] {
        let original = folder.path().join(name);
        // 640 columns are a run and a quarter of one.
        run(Command::new("python3")
            .current_dir(ROOT)
            .arg("examples/ggml/make_model.py")
            .arg(&original)
            .arg(folder.path().join("head.gguf"))
            .args(["--layers", "4", "--feed-forward", "640"])
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
    let lines = said.lines().filter_map(|line| line.split_once(" tokens "));
    let lines = lines.filter(|(mode, _)| !mode.contains(' ') || mode.trim_end().split(' ').count() == 1);
    lines
        .map(|(mode, list)| (mode.trim().to_owned(), list.split(' ').map(|token| token.parse().unwrap()).collect()))
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
    for name in ["untied", "tied"] {
        let output = start(&model(name), &["--tokens", "8", "--prompt", "17,99,256,31"], &[]);
        let said = stdout(&output);
        assert!(output.status.success() && said.contains("3 modes, the same tokens"), "{output:?}");
        assert!(!said.contains("tokens a second"), "the emulator's times mean nothing: {said}");
        let mut reference = Reference::new(&BUILT.folder.path().join(name));
        let (mut next, mut want) = ((0, 0.0), Vec::new());
        for token in [17, 99, 256, 31] {
            next = reference.next(token);
        }
        for _ in 0..8 {
            println!("{name}: {} by {:.3}", next.0, next.1);
            want.push(next.0);
            next = reference.next(next.0);
        }
        let found = tokens(&said);
        assert_eq!(found.iter().map(|(mode, _)| mode.as_str()).collect::<Vec<_>>(), ["bf16", "decode", "stream"], "{said}");
        for (mode, tokens) in found {
            assert_eq!(tokens, want, "{name}, {mode}");
        }
        // Tokens that repeat would tell little.
        assert!(want.iter().collect::<std::collections::HashSet<_>>().len() > 4, "{want:?}");
    }
}

/// In whatever order streams run, and at once.
#[test]
fn streams_may_run_in_any_order() {
    let said = |settings: &[(&str, &str)]| {
        let output = start(&model("untied"), &["--tokens", "2"], settings);
        assert!(output.status.success(), "{output:?}");
        tokens(&stdout(&output))
    };
    let want = said(&[]);
    assert_eq!(want.len(), 3);
    for seed in ["1", "2", "3"] {
        assert_eq!(said(&[("DF11_EMULATOR_SEED", seed)]), want);
    }
    assert_eq!(said(&[("DF11_EMULATOR_EAGER", "1")]), want);
}
