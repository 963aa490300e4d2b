//! What the tool says to what people type: one sentence, with the remedy.

use std::path::Path;

use super::{Ran, df11, models, run, run_on};

/// Runs every subcommand that opens a model on this path.
fn on_each(path: &Path, check: impl Fn(Ran)) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let out = out.to_str().unwrap();
    for (command, more) in
        [("inspect", &[][..]), ("verify", &[]), ("decompress", &["-o", out]), ("compress", &["-o", out])]
    {
        check(run_on(command, path, more));
        assert!(super::list(dir.path()).is_empty(), "{command}");
    }
}

/// Files of other kinds under the name of a safetensors file: alone, and in a folder.
#[test]
fn files_of_other_kinds_are_named() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 5368709120\n";
    for (content, parts) in [
        (lfs.as_bytes(), ["a Git LFS pointer", "`git lfs pull`"]),
        (b"<!DOCTYPE html><html><head><title>401</title>", ["a web page", "`hf download`"]),
        (b"GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0", ["a GGUF file", "bf16 *.safetensors"]),
        (b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl", ["a zip archive, as PyTorch", "save_file()"]),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", ["a pickle, as PyTorch", "save_file()"]),
        (b"Invalid username or password.", ["a text, such as a server's message", "download the file again"]),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0", ["not a safetensors file", "does not begin with a header"]),
        (&[0; 4096], ["begins with zeros", "download it again"]),
        (b"", ["the file is empty", "download"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, content).unwrap();
        on_each(&file, |ran| ran.bad(2, &parts));
        on_each(dir.path(), |ran| ran.bad(2, &[parts[0], parts[1], "model.safetensors"]));
    }
}

/// Files of other kinds under the names of a config and of an index.
#[test]
fn what_is_no_json_is_named() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 5368709120\n";
    let dir = tempfile::tempdir().unwrap();
    models::write_hollow(&dir.path().join("model.safetensors"), 16);
    let patterns = dir.path().join("patterns.json");
    for (content, parts) in [
        (lfs, ["not valid JSON but a Git LFS pointer", "`git lfs pull`"]),
        ("<!DOCTYPE html><html><head><title>401</title>", ["not valid JSON but a web page", "`hf download`"]),
        ("", ["not valid JSON but empty", "download it again"]),
        ("\0\0\0\0", ["begins with zeros", "download it again"]),
        ("{\"a\": ", ["not valid JSON", "EOF"]),
    ] {
        let config = dir.path().join("config.json");
        std::fs::write(&config, content).unwrap();
        on_each(dir.path(), |ran| ran.bad(1, &["the config is ", parts[0], parts[1], "config.json"]));
        std::fs::remove_file(&config).unwrap();
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, content).unwrap();
        for command in ["inspect", "compress"] {
            let more = if command == "compress" { &["-o", "never"][..] } else { &[] };
            run_on(command, dir.path(), more).bad(1, &["the index is ", parts[0], parts[1], "index.json"]);
        }
        std::fs::remove_file(&index).unwrap();
        std::fs::write(&patterns, content).unwrap();
        let given = ["--pattern", patterns.to_str().unwrap()];
        run_on("plan", dir.path(), &given).bad(2, &["it is ", parts[0], parts[1], "patterns.json"]);
    }
}

/// A folder of links, as the Hub's cache is, of which a file was removed.
#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_named() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("models--some--Model-8B/snapshots/0123abcd");
    std::fs::create_dir_all(&model).unwrap();
    let parts = ["cannot follow the link", "No such file", "download the model again", "hf download some/Model-8B"];
    symlink("../../blobs/0123", model.join("model.safetensors")).unwrap();
    on_each(&model, |ran| ran.bad(2, &[&parts[..], &["model.safetensors"]].concat()));
    on_each(&model.join("model.safetensors"), |ran| ran.bad(2, &parts));
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    models::write_hollow(&model.join("model.safetensors"), 16);
    symlink("../../blobs/4567", model.join("config.json")).unwrap();
    on_each(&model, |ran| ran.bad(2, &[&parts[..], &["config.json"]].concat()));
    std::fs::remove_file(model.join("config.json")).unwrap();
    // One that an index lists is absent.
    symlink("../../blobs/89ab", model.join("model-00001-of-00002.safetensors")).unwrap();
    std::fs::rename(model.join("model.safetensors"), model.join("model-00002-of-00002.safetensors")).unwrap();
    let map = r#"{"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}"#;
    std::fs::write(model.join("model.safetensors.index.json"), map).unwrap();
    let listed = "'model-00001-of-00002.safetensors' is";
    run_on("plan", &model, &[]).bad(1, &[listed, "with --incomplete"]);
}

#[test]
fn folders_without_safetensors_say_what_they_have() {
    for (name, parts) in [
        ("pytorch_model.bin", ["PyTorch's weights ('pytorch_model.bin')", "save_pretrained()"]),
        ("consolidated.00.pth", ["PyTorch's weights ('consolidated.00.pth')", "save_pretrained()"]),
        ("qwen3-8b-q4_k_m.gguf", ["GGUF ('qwen3-8b-q4_k_m.gguf')", "bf16 *.safetensors"]),
        ("flax_model.msgpack", ["another format ('flax_model.msgpack')", "*.safetensors"]),
        ("model.safetensors.incomplete", ["has not ended ('model.safetensors.incomplete')", "resume"]),
        ("transformer/diffusion.safetensors", ["its folder 'transformer' has some", "give that"]),
        ("snapshots/0123abcd/model.safetensors", ["its folder 'snapshots/0123abcd' has some", "give that"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"something").unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), b"{}").unwrap();
        on_each(dir.path(), |ran| ran.bad(2, &["no *.safetensors", parts[0], parts[1]]));
    }
}

/// A header that is larger than the safetensors package reads, in a file that is whole.
#[test]
fn a_header_over_100_mb_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    std::fs::write(&file, [&120_000_000u64.to_le_bytes()[..], b"{"].concat()).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(150_000_000).unwrap();
    on_each(&file, |ran| ran.bad(1, &["the header has 120000000 bytes", "safetensors package", "several files"]));
}

#[test]
fn a_name_of_the_hub_is_not_a_path() {
    for (path, download) in [
        ("Qwen/Qwen3-8B", "hf download Qwen/Qwen3-8B --local-dir Qwen3-8B"),
        (
            "https://huggingface.co/DFloat11/Qwen3-8B-DF11",
            "hf download DFloat11/Qwen3-8B-DF11 --local-dir Qwen3-8B-DF11",
        ),
    ] {
        on_each(Path::new(path), |ran| ran.bad(2, &["No such file", download]));
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.safetensors");
        models::write_hollow(&model, 16);
        run_on("verify", &model, &["--against", path]).bad(2, &["the original cannot be used", download]);
    }
    // A folder of that name is there: a path was meant.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("Qwen")).unwrap();
    let ran = Ran::of(df11().current_dir(dir.path()).args(["inspect", "Qwen/Qwen3-8B"]).output().unwrap());
    ran.bad(2, &["No such file"]);
    assert!(!ran.err.contains("hf download"), "{}", ran.err);
}

#[test]
fn an_output_without_its_option() {
    for command in ["compress", "decompress", "merge", "repack"] {
        let ran = run([command, "in", "out"]);
        assert_eq!(ran.code, 2);
        for part in ["unexpected argument 'out'", &format!("'df11 {command} ... -o out'")] {
            assert!(ran.err.contains(part), "{}", ran.err);
        }
        // There is an output: the argument is one too many.
        let ran = run([command, "in", "more", "-o", "out"]);
        assert!(ran.code == 2 && !ran.err.contains("-o more"), "{}", ran.err);
    }
    let ran = run(["some/model"]);
    assert!(ran.code == 2 && ran.err.contains("'df11 inspect some/model' shows a model"), "{}", ran.err);
}

#[test]
fn force_does_not_replace_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("mine"), b"").unwrap();
    models::write_source(&source, &models::qwen3(3, 2048), 1);
    run_on("compress", source, &["-f", "-o", out.to_str().unwrap()])
        .bad(2, &["is not empty", "'mine'", "a new or empty folder", "--force"]);
}

#[test]
fn a_config_without_patterns() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    for text in [
        r#"{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096}"#,
        r#"{"_class_name": "FluxTransformer2DModel", "num_layers": 19}"#,
    ] {
        std::fs::write(&config, text).unwrap();
        run(["compress", "in", "-o", "out", "--pattern", config.to_str().unwrap()])
            .bad(2, &["config.json", "not compressed", "no dfloat11_config", "`df11 presets NAME`"]);
    }
}
