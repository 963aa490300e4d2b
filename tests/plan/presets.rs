//! The presets: that each is whole, and is chosen for the models that it is meant for.

use df11::internals::writer::plan::{AUTOMATIC, PlannedGroup, SourceTensor, Wanted, grouping, is_tied, plan};
use df11::internals::writer::presets::{Naming, Preset};
use df11::writer::Patterns;
use df11::{Dtype, Status};
use serde_json::{Value, json};

/// Presets that another one, with the same groups, is chosen before, whatever the config says.
const SHADOWED: [(&str, &str); 3] =
    [("llama31", "llama"), ("flux-diffusers-unescaped", "flux-diffusers"), ("longcat-image-comfyui", "flux-comfyui")];

/// A tensor table that owns its names.
struct Table(Vec<(String, Dtype, u64)>);

impl Table {
    fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Table {
        Table(names.into_iter().map(|n| (n.into(), Dtype::BF16, 1000)).collect())
    }

    fn tensors(&self) -> Vec<SourceTensor<'_>> {
        let shape = |elements| if elements < 100 { &[10][..] } else { &[10, 100] };
        let tensors = self.0.iter().map(|t| (&t.0[..], t.1, t.2));
        tensors.map(|(name, dtype, elements)| SourceTensor { name, dtype, elements, shape: shape(elements) }).collect()
    }

    fn renamed(&self, rename: impl Fn(&str) -> String) -> Table {
        Table(self.0.iter().map(|(name, dtype, elements)| (rename(name), *dtype, *elements)).collect())
    }

    fn with(mut self, name: &str, dtype: Dtype, elements: u64) -> Table {
        self.0.push((name.into(), dtype, elements));
        self
    }

    #[track_caller]
    fn chosen(&self, config: Option<Value>) -> &'static str {
        grouping(config.as_ref(), &self.tensors(), Wanted::Best).unwrap().origin.name().unwrap()
    }

    #[track_caller]
    fn refused(&self, config: Option<Value>, parts: &[&str]) {
        let error = grouping(config.as_ref(), &self.tensors(), Wanted::Best).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        for part in parts {
            assert!(error.to_string().contains(part), "no '{part}' in: {error}");
        }
    }
}

/// Names that a pattern matches: three numbers for `\d+`, all else in full. It knows what presets are written in.
fn expand(pattern: &str) -> Vec<String> {
    let (mut names, mut rest) = (vec![String::new()], pattern);
    while let Some(first) = rest.chars().next() {
        let until = |end| rest.find(end).unwrap() + 1;
        let (length, choices): (usize, Vec<String>) = match first {
            '\\' if rest.starts_with("\\d") => (2, ["0", "2", "10"].map(String::from).into()),
            '\\' => (2, vec![rest[1..2].into()]),
            '+' => (1, vec![String::new()]),
            '[' => {
                let class = &rest[1..until(']') - 1];
                let all: Vec<char> = match class.as_bytes() {
                    [low, b'-', high] => (*low..=*high).map(char::from).collect(),
                    _ => class.chars().collect(),
                };
                (until(']'), all.into_iter().map(String::from).collect())
            }
            '(' => (until(')'), rest[1..until(')') - 1].split('|').flat_map(expand).collect()),
            c => (c.len_utf8(), vec![c.into()]),
        };
        rest = &rest[length..];
        names = names.iter().flat_map(|n| choices.iter().map(move |c| format!("{n}{c}"))).collect();
    }
    names
}

/// A model as the preset's patterns have it, with norms and biases that they leave alone.
fn sample(preset: &Preset) -> Table {
    let mut names = vec!["norm_out.bias".to_owned()];
    for pattern in preset.patterns().entries() {
        for module in expand(pattern.text()) {
            assert!(pattern.matches(&module), "{module} {}", pattern.text());
            match pattern.attributes() {
                [] => names.extend([format!("{module}.weight"), format!("{module}.bias")]),
                list => {
                    names.extend(list.iter().map(|a| format!("{module}.{a}.weight")));
                    names.push(format!("{module}.some_norm.weight"));
                }
            }
        }
    }
    let mut table = Table::new(names);
    let small = |(name, _, elements): &mut (String, Dtype, u64)| {
        if name.ends_with("norm.weight") || name.ends_with(".bias") {
            *elements = 10;
        }
    };
    table.0.iter_mut().for_each(small);
    table
}

fn config(preset: &Preset) -> Option<Value> {
    match preset.naming() {
        Naming::Transformers => Some(json!({"model_type": preset.model_types().first(), "architectures": ["X"]})),
        Naming::Diffusers => Some(json!({"_class_name": "X", "_diffusers_version": "0.35.0"})),
        Naming::Comfyui => None,
    }
}

fn preset(name: &str) -> &'static Preset {
    Preset::find(name).unwrap()
}

#[test]
fn the_table_is_whole() {
    let all = Preset::all();
    assert_eq!(all.len(), 38);
    assert_eq!(Naming::ALL.map(|l| all.iter().filter(|p| p.naming() == l).count()), [10, 10, 18]);
    let mut names: Vec<&String> = all.iter().flat_map(|p| p.aliases()).collect();
    let own: Vec<String> = all.iter().map(|p| p.name().to_owned()).collect();
    names.extend(&own);
    names.sort();
    assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    for preset in all {
        assert!(!preset.models().is_empty() && !preset.evidence().is_empty(), "{}", preset.name());
        assert!(preset.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        let suffix = preset.name().ends_with(preset.naming().name()) || preset.naming() == Naming::Transformers;
        assert!(suffix || preset.name() == "flux-diffusers-unescaped", "{}", preset.name());
        // A text between brackets in presets.json is what config.json will have.
        let text = preset.patterns().to_json();
        assert_eq!(Patterns::parse(&text).unwrap().to_json(), text);
    }
    let flux: Vec<_> = preset("flux-diffusers").patterns().entries().iter().map(|p| p.text()).collect();
    assert_eq!(flux, [r"transformer_blocks\.\d+", r"single_transformer_blocks\.\d+"]);
}

/// Every preset takes all of its own sample, and is the one that is chosen for it.
#[test]
fn each_preset_is_chosen_for_its_own_model() {
    for preset in Preset::all() {
        let (table, config) = (sample(preset), config(preset));
        let tensors = table.tensors();
        let tied = is_tied(config.as_ref(), &tensors);
        let plan = plan(&tensors, preset.patterns(), tied).unwrap();
        assert!(plan.unmatched_patterns.is_empty() && plan.left.is_empty(), "{}: {plan:?}", preset.name());
        assert!(plan.plain.iter().all(|&i| tensors[i].elements == 10), "{}", preset.name());
        let expected =
            SHADOWED.iter().find(|(name, _)| *name == preset.name()).map_or(preset.name(), |(_, other)| other);
        assert_eq!(table.chosen(config), expected);
    }
}

#[test]
fn the_config_decides_between_equals() {
    let llama = sample(preset("llama"));
    for (config, expected) in [
        (json!({"model_type": "mistral"}), "mistral"),
        (json!({"model_type": "qwen2"}), "qwen25"),
        (json!({"model_type": "qwen3"}), "qwen3"),
        (json!({"model_type": "olmo2"}), "llama"),
        (json!({"_class_name": "X"}), "llama"),
        (json!({}), "llama"),
    ] {
        assert_eq!(llama.chosen(Some(config)), expected);
    }
    assert_eq!(llama.chosen(None), "llama");
    assert_eq!(
        sample(preset("ernie-image-comfyui")).chosen(Some(json!({"_class_name": "X"}))),
        "ernie-image-diffusers"
    );
    // Phi-3 has names of its own; that its type is that of another family does not matter.
    assert_eq!(sample(preset("phi4")).chosen(Some(json!({"model_type": "llama"}))), "phi4");
}

/// A tied model takes the dict without embedding and head, whether the head is stored too or not; unless another covers
/// more besides.
#[test]
fn tied_models_leave_the_embedding() {
    let layers = || sample(preset("qwen3-tied"));
    let large = |table: Table| table.with("model.embed_tokens.weight", Dtype::BF16, 1_000_000);
    let tied = |model_type: &str| Some(json!({"model_type": model_type, "tie_word_embeddings": true}));
    for model_type in ["qwen3", "qwen2", "llama", "mistral", "gemma3_text", "gemma2"] {
        assert_eq!(large(layers()).chosen(tied(model_type)), "qwen3-tied");
        let both = large(layers()).with("lm_head.weight", Dtype::BF16, 1_000_000);
        assert_eq!(both.chosen(tied(model_type)), "qwen3-tied");
        assert_ne!(both.chosen(Some(json!({"model_type": model_type}))), "qwen3-tied");
    }
    // Gemma's config does not say it; an embedding model has no head and is not tied.
    assert_eq!(large(layers()).chosen(Some(json!({"model_type": "gemma3_text"}))), "qwen3-tied");
    let untied = json!({"model_type": "llama", "tie_word_embeddings": false});
    assert_eq!(large(layers()).chosen(Some(untied)), "llama");
    let mut vision = sample(preset("omnigen2-mllm"));
    vision.0.retain(|(name, ..)| !name.starts_with("lm_head"));
    assert_eq!(vision.chosen(tied("qwen2_5_vl")), "omnigen2-mllm");
    assert_eq!(preset("llama-tied").name(), "qwen3-tied");
}

/// A preset is left alone if automatic groups cover clearly more of the model, or store a tied matrix once instead of twice.
#[test]
fn what_no_preset_fits() {
    let transformers = |model_type: &str| Some(json!({"model_type": model_type}));
    let diffusers = || Some(json!({"_class_name": "X"}));
    // Experts: attention is there, the rest of the list is not.
    let experts = sample(preset("qwen3")).renamed(|n| n.replace("mlp.", "mlp.experts.0."));
    assert_eq!(experts.chosen(transformers("qwen3_moe")), AUTOMATIC);
    assert_eq!(Table::new(["a.weight"]).chosen(None), AUTOMATIC);
    // What a preset is known to leave does not count; anything else does, from a fiftieth on.
    let wan = || sample(preset("wan-diffusers"));
    let more = |name: &str, elements| wan().with(name, Dtype::BF16, elements);
    assert_eq!(more("condition_embedder.time_proj.weight", 30_000).chosen(diffusers()), "wan-diffusers");
    assert_eq!(more("blocks.0.attn2.add_k_proj.weight", 500).chosen(diffusers()), "wan-diffusers");
    assert_eq!(more("blocks.0.attn2.add_k_proj.weight", 1000).chosen(diffusers()), AUTOMATIC);
    // The same for presets of which nothing is known, from a twentieth on.
    let krea = |elements| sample(preset("krea2-comfyui")).with("other.weight", Dtype::BF16, elements).chosen(None);
    assert_eq!((krea(3000), krea(9000)), ("krea2-comfyui", AUTOMATIC));
    // The head and the embedding of a model that is not tied.
    let gemma = sample(preset("gemma3")).with("vision_tower.x.weight", Dtype::BF16, 9000);
    let tied = gemma.with("language_model.model.embed_tokens.weight", Dtype::BF16, 9000);
    assert_eq!(tied.chosen(transformers("gemma3")), "gemma3");
    let untied = tied.with("language_model.lm_head.weight", Dtype::BF16, 9000);
    assert_eq!(untied.chosen(transformers("mistral3")), AUTOMATIC);
    // Phi-4-mini; published for OmniGen2 is what stores the matrix twice, see `tied_models_leave_the_embedding`.
    let mut phi = sample(preset("phi4"));
    phi.0.retain(|(name, ..)| !name.starts_with("lm_head"));
    assert_eq!(phi.chosen(transformers("phi3")), AUTOMATIC);
}

#[test]
fn what_has_other_names() {
    for (name, prefix) in [
        ("flux-comfyui", "model.diffusion_model."),
        ("anima-comfyui", "net."),
        ("qwen3", "_orig_mod."),
        ("qwen3", "module.module."),
    ] {
        let table = sample(preset(name)).renamed(|n| format!("{prefix}{n}"));
        assert_eq!(table.chosen(None), AUTOMATIC, "{prefix}");
        // The same groups, with the same members in the same order.
        let names = |table: &Table, cut: &str, wanted| {
            let tensors = table.tensors();
            let mut plan = grouping(None, &tensors, wanted).unwrap().plan;
            plan.groups.sort_by(|a, b| a.name.cmp(&b.name));
            let cut = |name: &str| name.strip_prefix(cut).unwrap().to_owned();
            let members = |g: &PlannedGroup| g.members.iter().map(|&m| cut(tensors[m].name)).collect::<Vec<_>>();
            plan.groups.iter().map(|g| (cut(&g.name), members(g))).collect::<Vec<_>>()
        };
        let automatic = names(&table, prefix, Wanted::Automatic);
        let published = names(&sample(preset(name)), "", Wanted::Preset(preset(name)));
        let kept = published.iter().filter(|group| automatic.contains(group)).count();
        assert!(kept + 1 >= published.len(), "{name}: {automatic:?} {published:?}");
    }
}

#[test]
fn what_has_other_types() {
    for dtype in [Dtype::F16, Dtype::F32] {
        let mut table = sample(preset("wan-diffusers"));
        table.0.iter_mut().for_each(|t| t.1 = dtype);
        table.refused(Some(json!({"_class_name": "X"})), &["no bf16 weights", "convert"]);
    }
    Table::new::<&str>([]).refused(Some(json!({"_class_name": "FluxPipeline"})), &["pipeline"]);
    Table::new(["a.luts", "a.gaps"]).refused(None, &["compressed already"]);
    // Norms in F32 are no obstacle. A matrix in F32 leaves its group out, and automatic groups go without the matrix.
    let mut table = sample(preset("wan-diffusers"));
    table.0.iter_mut().filter(|t| t.0.contains("norm")).for_each(|t| t.1 = Dtype::F32);
    assert_eq!(table.chosen(None), "wan-diffusers");
    table.0.iter_mut().filter(|t| t.0 == "blocks.0.ffn.net.2.weight").for_each(|t| t.1 = Dtype::F32);
    assert_eq!(table.chosen(None), AUTOMATIC);
}

#[test]
fn names_that_are_nearly_right() {
    for (name, meant) in [
        ("qwen-3", "qwen3"),
        ("lama", "llama"),
        ("Llama", "llama"),
        ("qwen2.5", "qwen25"),
        ("flux", "flux-diffusers"),
        ("sdxl", "sdxl-comfyui"),
        ("phi-4", "phi4"),
        ("z-image", "zimage-comfyui"),
    ] {
        let error = Preset::find(name).unwrap_err();
        assert_eq!(error.status(), Status::NotFound);
        let text = error.to_string();
        assert!(text.contains(&format!("'{name}'")) && text.contains("did you mean") && text.contains(meant), "{text}");
    }
    for name in ["", "x", "something else", &"llama".repeat(100_000)] {
        let text = Preset::find(name).unwrap_err().to_string();
        assert!(text.contains("`df11 presets` lists them") || name.len() > 100, "{text}");
        assert!(text.len() < 300, "{text}");
    }
}
