//! `config.json`: the version of the compressor, and which modules are groups.

use super::json;
use super::patterns::{PatternFault, Patterns};
use crate::error::{Error, Place, Result};
use serde_json::Value;

/// The part of config.json under `dfloat11_config`.
#[derive(Debug, Clone)]
pub struct Config {
    version: String,
    patterns: Patterns,
}

impl Config {
    /// Returns the version of the compressor, as the file spells it ("0.2.0" to "0.5.0" in published models), or "".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the attribute paths of the group of that name, in the order of its weights; none for the module's own weight.
    pub fn attributes(&self, group: &str) -> Option<&[String]> {
        self.patterns.find(group).map(|number| self.patterns.entries()[number].attributes())
    }

    pub(crate) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Reads a config.json: `None` if it has no `dfloat11_config`.
    pub(crate) fn parse(text: &[u8], place: &Place, any_version: bool) -> Result<Option<Config>> {
        let invalid = |reason: String| Error::invalid(place.clone(), reason);
        let whole: Value = json::parse(text).map_err(|e| invalid(format!("the config is not valid JSON: {e}")))?;
        let Some(config) = whole.get("dfloat11_config") else { return Ok(None) };
        let Some(config) = config.as_object() else {
            return Err(invalid("dfloat11_config is not an object".into()));
        };
        let version = match config.get("version") {
            Some(Value::String(version)) => version.clone(),
            Some(other) => return Err(invalid(format!("dfloat11_config.version is {}, not a text", kind(other)))),
            // No published model lacks it. The version alone says nothing that the checks of each group do not.
            None => String::new(),
        };
        if !any_version && !version.is_empty() && !is_known(&version) {
            let reason = format!("dfloat11_config.version is '{version}': 0.2.0 to 0.5.x are known");
            return Err(Error::unsupported(place.clone(), reason));
        }
        // Both are optional here: a single file comes without them, and then the same values hold.
        let threads = config.get("threads_per_block").and_then(|v| {
            v.as_array().map_or(v.as_u64(), |a| match &a[..] {
                [one] => one.as_u64(),
                _ => None,
            })
        });
        if config.contains_key("threads_per_block") && threads != Some(512) {
            let reason = format!("threads_per_block is {}: only [512] is known", config["threads_per_block"]);
            return Err(Error::unsupported(place.clone(), reason));
        }
        if config.get("bytes_per_thread").is_some_and(|v| v.as_u64() != Some(8)) {
            let reason = format!("bytes_per_thread is {}: only 8 is known", config["bytes_per_thread"]);
            return Err(Error::unsupported(place.clone(), reason));
        }
        let dict = match config.get("pattern_dict") {
            Some(Value::Object(dict)) => dict,
            _ => return Err(invalid("dfloat11_config has no pattern_dict, or it is not an object".into())),
        };
        let patterns = Patterns::read(dict).map_err(|PatternFault { reason, unsupported }| match unsupported {
            true => Error::unsupported(place.clone(), reason),
            false => invalid(reason),
        })?;
        Ok(Some(Config { version, patterns }))
    }
}

fn is_known(version: &str) -> bool {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().ok());
    matches!((parts.next(), parts.next(), parts.next()), (Some(Some(0)), Some(Some(2..=5)), Some(Some(_))))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inner: &str) -> Result<Option<Config>> {
        Config::parse(
            format!(r#"{{"dfloat11_config": {inner}, "model_type": "llama"}}"#).as_bytes(),
            &Place::file("c"),
            false,
        )
    }

    #[test]
    fn the_first_pattern_that_matches_the_whole_name_wins() {
        let config = parse(
            r#"{"version": "0.2.0", "threads_per_block": [512], "bytes_per_thread": 8, "pattern_dict":
               {"lm_head": [], "model.layers.\\d+": ["a.b", "c"], "model\\.layers\\.[0-9]": ["never"], "x\\d++": ["p"]}}"#,
        )
        .unwrap()
        .unwrap();
        assert_eq!(config.version(), "0.2.0");
        assert_eq!(config.attributes("lm_head"), Some(&[][..]));
        assert_eq!(config.attributes("model.layers.3").unwrap(), ["a.b", "c"]);
        assert_eq!(config.attributes("x12").unwrap(), ["p"]);
        for none in ["lm_head.x", "xlm_head", "model.layers.3.q", "y"] {
            assert_eq!(config.attributes(none), None, "{none}");
        }
    }

    #[test]
    fn odd_configs_are_refused_with_a_reason() {
        let refused = [
            (r#"[]"#, "not an object"),
            (r#"{"version": 5, "pattern_dict": {}}"#, "a number"),
            (r#"{"version": "0.6.0", "pattern_dict": {}}"#, "0.6.0"),
            (r#"{"version": "0.1.0", "pattern_dict": {}}"#, "0.1.0"),
            (r#"{"version": "0.5.0"}"#, "pattern_dict"),
            (r#"{"version": "0.5.0", "pattern_dict": {"a": [1]}}"#, "list of texts"),
            (r#"{"version": "0.5.0", "pattern_dict": {"a": "b"}}"#, "list of texts"),
            (r#"{"version": "0.5.0", "pattern_dict": {"a)|(b": []}}"#, "unopened"),
            (r#"{"version": "0.5.0", "pattern_dict": {"(?=a)b": []}}"#, "look-around"),
            (r#"{"version": "0.5.0", "pattern_dict": {"((a{999}){999}){999}": []}}"#, "size limit"),
            (r#"{"version": "0.5.0", "pattern_dict": {}, "threads_per_block": [256]}"#, "256"),
            (r#"{"version": "0.5.0", "pattern_dict": {}, "threads_per_block": [512, 512]}"#, "[512,512]"),
            (r#"{"version": "0.5.0", "pattern_dict": {}, "bytes_per_thread": 16}"#, "16"),
        ];
        for (json, part) in refused {
            let text = parse(json).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains("'c'"), "{json}: {text}");
        }
        assert!(Config::parse(b"{", &Place::file("c"), false).is_err());
        assert!(Config::parse(b"{}", &Place::file("c"), false).unwrap().is_none());
        assert!(Config::parse("[".repeat(100_000).as_bytes(), &Place::file("c"), false).is_err());
    }

    #[test]
    fn known_versions() {
        for (version, known) in [
            ("0.2.0", true),
            ("0.3.1", true),
            ("0.5.0", true),
            ("0.5.12", true),
            ("0.5", false),
            ("1.2.0", false),
            ("0.5.x", false),
        ] {
            assert_eq!(is_known(version), known, "{version}");
        }
    }
}
