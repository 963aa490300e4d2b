//! How tensors get their names: configs, versions, patterns.

use df11::{Dtype, Model, OpenOptions, Status};

use super::support::{check, files, golden};
use super::{open, with_config};

#[test]
fn without_a_config_tensors_are_named_after_their_group() {
    // The reference's names are the config's; without one only groups of one tensor get theirs.
    let folder = tempfile::tempdir().unwrap();
    for path in files::golden_files("sharded") {
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let model = open(folder.path());
    assert!(model.config().is_none());
    let (found, want) = (check::tensors(&model), check::tensors(&open(golden::model("sharded"))));
    assert!(found["lm_head.weight"] == want["lm_head.weight"]);
    assert!(found["model.embed_tokens.weight"] == want["model.embed_tokens.weight"]);
    for layer in ["model.layers.0", "model.layers.1"] {
        let attributes = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
        let attributes = attributes.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
        for (i, attribute) in attributes.enumerate() {
            assert!(found[&format!("{layer}.part_{i}")] == want[&format!("{layer}.{attribute}.weight")]);
        }
        // The module's plain tensors keep their names.
        assert!(found.contains_key(&format!("{layer}.input_layernorm.weight")));
    }
    assert_eq!(found.len(), want.len());

    let alone = folder.path().join("model_layers_0.safetensors");
    assert_eq!(open(&alone).tensor(6).unwrap().name(), "model.layers.0.part_6");
    let bytes = Model::from_bytes(std::fs::read(&alone).unwrap(), &OpenOptions::default()).unwrap();
    assert_eq!(bytes.tensor(6).unwrap().name(), "model.layers.0.part_6");
}

#[test]
fn the_caller_gives_a_config() {
    let options = with_config(&files::golden_config("block"));
    let bytes = std::fs::read(&files::golden_files("block")[0]).unwrap();
    check::is_original(&Model::from_bytes(bytes.clone(), &options).unwrap(), "block");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    std::fs::write(&file, bytes).unwrap();
    check::is_original(&Model::open(&file, &options).unwrap(), "block");
    // It stands in for the model's own, which is then not even read.
    std::fs::write(folder.path().join("config.json"), "{ no JSON").unwrap();
    check::is_original(&Model::open(folder.path(), &options).unwrap(), "block");
    assert_eq!(Model::open(folder.path(), &OpenOptions::default()).unwrap_err().status(), Status::InvalidFormat);
    // Other names in it, other names of the tensors.
    let other = files::config("0.5.0", r#"{"model\\.layers\\.0": ["1", "2", "3", "4", "5", "6", "7"]}"#);
    let model = Model::open(&file, &with_config(&other)).unwrap();
    assert!(model.find_tensor("model.layers.0.7.weight").is_some());
    assert!(model.find_tensor("model.layers.1.part_6").is_some());
}

#[test]
fn a_config_beside_a_single_file_is_used() {
    let file = golden::model("block").join("model.safetensors");
    let model = open(&file);
    assert_eq!(model.config().unwrap().version(), "0.5.0");
    check::is_original(&model, "block");

    // What lies there may belong to something else; a config of DF11 that cannot be used does not.
    let folder = tempfile::tempdir().unwrap();
    let (copy, config) = (folder.path().join("model.safetensors"), folder.path().join("config.json"));
    std::fs::copy(file, &copy).unwrap();
    for foreign in ["", "[1, 2", "[]", "7", r#"{"model_type": "llama"}"#, r#"{"dfloat11_config": 5}"#] {
        std::fs::write(&config, foreign).unwrap();
        let model = open(&copy);
        assert!(model.config().is_none() && model.find_tensor("lm_head.weight").is_some(), "{foreign}");
    }
    std::fs::write(&config, files::config("0.7.0", "{}")).unwrap();
    assert_eq!(Model::open(&copy, &OpenOptions::default()).unwrap_err().status(), Status::UnsupportedFormat);
}

#[test]
fn versions_from_0_2_0_to_0_5_0() {
    let bytes = std::fs::read(&files::golden_files("tiny")[0]).unwrap();
    for version in ["0.2.0", "0.3.1", "0.3.2", "0.4.0", "0.5.0"] {
        let options = with_config(&files::config(version, r#"{"linear": []}"#));
        let model = Model::from_bytes(bytes.clone(), &options).unwrap();
        assert_eq!(model.config().unwrap().version(), version);
        check::is_original(&model, "tiny");
    }
    for version in ["0.1.9", "0.6.0", "1.0.0", "0.5", "5", "0.5.0-rc1", " 0.5.0", "0.-5.0", "0.5.99999999999"] {
        let options = with_config(&files::config(version, r#"{"linear": []}"#));
        let error = Model::from_bytes(bytes.clone(), &options).unwrap_err();
        assert_eq!(error.status(), Status::UnsupportedFormat, "{version}");
        let options = options.any_version(true);
        check::is_original(&Model::from_bytes(bytes.clone(), &options).unwrap(), "tiny");
    }
}

#[test]
fn configs_of_diffusers_releases_have_two_keys() {
    let two = r#"{"dfloat11_config": {"version": "0.3.1", "threads_per_block": [512], "bytes_per_thread": 8,
                  "pattern_dict": {"linear": []}}, "model_type": "flux"}"#;
    let folder = tempfile::tempdir().unwrap();
    files::copy(&golden::model("tiny"), folder.path());
    std::fs::write(folder.path().join("config.json"), two).unwrap();
    check::is_original(&open(folder.path()), "tiny");
    // Other numbers of threads and bytes may be left out, as in a single file.
    let fewest = r#"{"dfloat11_config": {"pattern_dict": {"linear": []}}}"#;
    std::fs::write(folder.path().join("config.json"), fewest).unwrap();
    let model = open(folder.path());
    assert_eq!(model.config().unwrap().version(), "");
    check::is_original(&model, "tiny");
}

#[test]
fn an_empty_list_means_the_modules_own_weight() {
    for golden in ["block", "sharded"] {
        let model = open(golden::model(golden));
        for name in ["lm_head", "model.embed_tokens"] {
            assert_eq!(model.config().unwrap().attributes(name), Some(&[][..]));
            let group = model.find_group(name).unwrap();
            assert_eq!(group.tensors().len(), 1);
            let tensor = group.tensors().next().unwrap();
            assert_eq!(tensor.name(), format!("{name}.weight"));
            let width = golden::expected(golden)["model.norm.weight"].shape[0];
            assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::BF16, &[group.element_count() / width, width][..]));
        }
        assert_eq!(model.find_group("model.layers.1").unwrap().tensors().len(), 7);
        check::is_original(&model, golden);
    }
}

#[test]
fn patterns_are_pythons() {
    let bytes = std::fs::read(&files::golden_files("block")[0]).unwrap();
    let list = r#"["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                   "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]"#;
    for pattern in [
        r"model\\.layers\\.\\d++",
        r"model\\.layers\\.\\d*+[0-9]?",
        r"model\\.(?:layers)\\.(0|1)",
        r"(?P<a>model)\\.layers\\.[\\d]{1,3}",
        r"^model\\.layers\\.\\w+$",
        r"model\\.layers\\.0|model\\.layers\\.1",
        r"(?i)MODEL\\.LAYERS\\.\\d",
        r"[^lx](?s:.)*ers\\.\\d",
        r".*\\.layers\\..*?",
    ] {
        let patterns = format!(r#"{{"{pattern}": {list}}}"#);
        let model = Model::from_bytes(bytes.clone(), &with_config(&files::config("0.5.0", &patterns)));
        check::is_original(&model.unwrap_or_else(|error| panic!("{pattern}: {error}")), "block");
    }
}
