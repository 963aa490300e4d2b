//! `config.json`: the version of the compressor, and which modules are groups.

use super::patterns::Patterns;
use super::{foreign, json};
use crate::error::{Error, Place, Result, shorten};
use crate::progress::Progress;
use serde::de::IgnoredAny;

/// The bytes of a config.json. Published ones have some 10 kB.
pub(crate) const MOST_CONFIG_BYTES: u64 = 4_000_000;

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

    /// Reads a config.json: `None` if it has no `dfloat11_config`. All else in it is skipped.
    pub(crate) fn parse(text: &[u8], place: &Place, any_version: bool, progress: &Progress) -> Result<Option<Config>> {
        let invalid = |reason: String| Error::invalid(place.clone(), reason);
        let unsupported = |reason: String| Error::unsupported(place.clone(), reason);
        if text.len() as u64 > MOST_CONFIG_BYTES {
            return Err(invalid(format!("the config has {} bytes: {MOST_CONFIG_BYTES} are the most", text.len())));
        }
        let stored = text;
        let not_json = |e| invalid(foreign::not_json("the config", stored, e));
        let text = json::of_python(stored);
        if text.trim_ascii_start().first() != Some(&b'{') {
            // Whatever it is, it has no dfloat11_config.
            return json::parse::<IgnoredAny>(&text).map(|_| None).map_err(not_json);
        }
        let [Some(config)] = json::fields(&text, ["dfloat11_config"]).map_err(not_json)? else { return Ok(None) };
        if !config.starts_with('{') {
            return Err(invalid("dfloat11_config is not an object".into()));
        }
        let keys = ["version", "threads_per_block", "bytes_per_thread", "pattern_dict"];
        let [version, threads, bytes, dict] =
            json::fields(config.as_bytes(), keys).map_err(|e| not_json(format!("dfloat11_config: {e}")))?;
        let parse = |v: &str| match json::stored(stored, &text, v).first() {
            Some(b'"') => json::parse::<String>(v.as_bytes()).map_err(|_| kind(v)),
            _ => Err(if v.starts_with('"') { "a number" } else { kind(v) }),
        };
        let version = match version.map(parse) {
            Some(Ok(version)) => version,
            Some(Err(other)) => return Err(invalid(format!("dfloat11_config.version is {other}, not a text"))),
            // No published model lacks it. The version alone says nothing that the checks of each group do not.
            None => String::new(),
        };
        if !any_version && !version.is_empty() && !is_known(&version) {
            let version = shorten(&version, 80);
            return Err(unsupported(format!("dfloat11_config.version is '{version}': 0.2.0 to 0.5.x are known")));
        }
        // Both are optional here: a single file comes without them, and then the same values hold.
        let is = |text: &str, number| json::parse::<u64>(text.as_bytes()) == Ok(number);
        if let Some(threads) = threads.filter(|t| json::parse(t.as_bytes()) != Ok([512u64]) && !is(t, 512)) {
            let reason = format!("threads_per_block is {}: only [512] is known", shorten(threads, 80));
            return Err(unsupported(reason));
        }
        if let Some(bytes) = bytes.filter(|bytes| !is(bytes, 8)) {
            let reason = format!("bytes_per_thread is {}: only 8 is known", shorten(bytes, 80));
            return Err(unsupported(reason));
        }
        let Some(dict) = dict.filter(|dict| dict.starts_with('{')) else {
            return Err(invalid("dfloat11_config has no pattern_dict, or it is not an object".into()));
        };
        json::check_names(json::stored(stored, &text, dict))
            .map_err(|e| invalid(format!("pattern_dict cannot be used: {e}")))?;
        let refuse = |too_much, reason| if too_much { unsupported(reason) } else { invalid(reason) };
        Ok(Some(Config { version, patterns: Patterns::read(dict, progress, refuse)? }))
    }
}

fn is_known(version: &str) -> bool {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().ok());
    matches!((parts.next(), parts.next(), parts.next()), (Some(Some(0)), Some(Some(2..=5)), Some(Some(_))))
}

/// Names the kind of a value by the first byte of its text.
fn kind(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a truth value",
        Some(b'"') => "a text",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        _ => "a number",
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
            &Progress::new(),
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
            (r#"{"version": "0.5.0", "pattern_dict": {"a\ud800": []}}"#, "\\ud800 is half a character"),
            (r#"{"version": "0.5.0", "pattern_dict": {"a": ["\udfff"]}}"#, "\\udfff is half a character"),
            (r#"{"version": 1e400, "pattern_dict": {}}"#, "a number, not a text"),
            (r#"{"version": "0.5.0", "pattern_dict": {}, "threads_per_block": [256]}"#, "256"),
            (r#"{"version": "0.5.0", "pattern_dict": {}, "threads_per_block": [512, 512]}"#, "[512, 512]"),
            (r#"{"version": "0.5.0", "pattern_dict": {}, "bytes_per_thread": 16}"#, "16"),
        ];
        for (json, part) in refused {
            let text = parse(json).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains("'c'"), "{json}: {text}");
        }
        assert!(Config::parse(b"{", &Place::file("c"), false, &Progress::new()).is_err());
        assert!(Config::parse(b"{}", &Place::file("c"), false, &Progress::new()).unwrap().is_none());
        assert!(Config::parse("[".repeat(100_000).as_bytes(), &Place::file("c"), false, &Progress::new()).is_err());
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
