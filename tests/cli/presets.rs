//! `df11 presets`: the table, the JSON, and the patterns of one.

use df11::internals::writer::plan::Patterns;
use df11::internals::writer::presets::Preset;
use serde_json::Value;

use super::run;

#[test]
fn the_table_is_a_page_wide_and_names_all() {
    let text = run(["presets"]).good();
    assert!(text.starts_with("NAME ") && text.lines().all(|l| l.chars().count() <= 100), "{text}");
    for preset in Preset::all() {
        let line = |l: &str| l.split_whitespace().take(2).eq([preset.name(), preset.naming().name()]);
        assert_eq!(text.lines().filter(|l| line(l)).count(), 1, "{}", preset.name());
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let models = preset.models().join(", ");
        assert!(words(&text).contains(&words(&models)), "{models}: {text}");
    }
    assert!(text.contains("[llama-tied]"), "{text}");
}

#[test]
fn the_json_has_everything() {
    let json: Value = serde_json::from_str(&run(["presets", "--json"]).good()).unwrap();
    let list = json["presets"].as_array().unwrap();
    assert_eq!((json["schema"].as_u64(), list.len()), (Some(1), Preset::all().len()));
    for (entry, preset) in list.iter().zip(Preset::all()) {
        assert_eq!(
            (entry["name"].as_str(), entry["layout"].as_str()),
            (Some(preset.name()), Some(preset.naming().name()))
        );
        assert_eq!(entry["models"].as_array().unwrap().len(), preset.models().len());
        assert_eq!(entry["patterns"].to_string(), preset.patterns().to_json());
        assert_eq!((entry["evidence"].as_str(), entry["note"].as_str()), (Some(preset.evidence()), preset.note()));
        assert!(entry["aliases"].is_array() && entry["model_types"].is_array());
    }
}

#[test]
fn one_preset_is_a_pattern_dict() {
    for preset in Preset::all() {
        let json: Value = serde_json::from_str(&run(["presets", preset.name()]).good()).unwrap();
        let read = Patterns::parse(&json.to_string()).unwrap().to_json();
        assert_eq!(read.to_string(), preset.patterns().to_json());
    }
    assert_eq!(run(["presets", "gemma3-text"]).good(), run(["presets", "qwen3-tied"]).good());
}

#[test]
fn an_unknown_preset_is_2() {
    run(["presets", "qwen-3"]).bad(2, &["'qwen-3'", "did you mean qwen3"]);
    run(["presets", "\u{1b}[2J"]).bad(2, &["\\u{1b}", "`df11 presets`"]);
    assert_eq!(run(["presets", "qwen3", "--json"]).code, 2);
}
