//! A `pattern_dict`: which modules are groups, and what their tensors are called. Configs of models are read with it, and models
//! are compressed by it.

use super::json;
use crate::error::{Error, Result, shorten};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The most patterns of a config. Published ones have 26 at most.
pub(crate) const MOST_PATTERNS: usize = 256;

/// A `pattern_dict`: regular expressions over names of modules (full match), each with the attribute paths whose weights
/// make a group, in the order of the config. A module belongs to the first pattern that matches its whole name.
#[derive(Debug, Clone)]
pub struct Patterns {
    entries: Vec<Pattern>,
}

/// One entry of a [`Patterns`].
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
    attributes: Vec<String>,
}

/// A fault of a `pattern_dict`.
pub(super) struct PatternFault {
    pub reason: String,
    /// True if it may be valid, and is only more than this version can do.
    pub unsupported: bool,
}

impl Pattern {
    /// Returns the regular expression, as it is spelt in the config.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the attribute paths in the order of a group's weights; none for the module's own weight.
    pub fn attributes(&self) -> &[String] {
        &self.attributes
    }

    /// Tells whether this matches the whole name of a module.
    pub fn matches(&self, module: &str) -> bool {
        self.regex.is_match(module.as_bytes())
    }
}

impl Patterns {
    /// Returns the pattern_dict that has no pattern: of a model that is stored as it is.
    pub(crate) fn none() -> Patterns {
        Patterns { entries: Vec::new() }
    }

    /// Parses a pattern_dict to compress by: the JSON text of one, or of a config.json with one under
    /// `dfloat11_config.pattern_dict`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if the text is neither, a pattern cannot be used, or a list has more than 1024 attributes or one of
    /// them twice.
    pub fn parse(text: &str) -> Result<Patterns> {
        let value = json::parse(text.as_bytes()).map_err(|e| Self::invalid(format!("it is not valid JSON: {e}")))?;
        Self::from_value(&value)
    }

    /// Does what [`Patterns::parse`] does for JSON that is parsed already.
    pub(crate) fn from_value(json: &Value) -> Result<Patterns> {
        let dict = json.get("dfloat11_config").map_or(Some(json), |config| config.get("pattern_dict"));
        let Some(dict) = dict.and_then(Value::as_object) else {
            let reason = "it is not an object, nor a config.json with dfloat11_config.pattern_dict";
            return Err(Self::invalid(reason.into()));
        };
        if dict.is_empty() {
            return Err(Self::invalid("it has no pattern".into()));
        }
        let patterns = Self::read(dict).map_err(|fault| Self::invalid(fault.reason))?;
        for Pattern { text, attributes, .. } in &patterns.entries {
            let most = super::MOST_TENSORS;
            if attributes.len() as u64 > most {
                return Err(Self::invalid(format!("the list of '{}' is longer than {most}", shorten(text, 80))));
            }
            let mut seen = HashSet::new();
            if let Some(twice) = attributes.iter().find(|a| !seen.insert(*a)) {
                let (text, twice) = (shorten(text, 80), shorten(twice, 80));
                return Err(Self::invalid(format!("the list of '{text}' has '{twice}' twice")));
            }
        }
        Ok(patterns)
    }

    fn invalid(reason: String) -> Error {
        Error::InvalidArgument(format!("the pattern_dict cannot be used: {reason}"))
    }

    /// Reads the patterns of a dict, with what every reader must check.
    pub(super) fn read(dict: &Map<String, Value>) -> std::result::Result<Patterns, PatternFault> {
        let fault = |unsupported, reason| PatternFault { reason, unsupported };
        if dict.len() > MOST_PATTERNS {
            let reason = format!("pattern_dict has {} patterns: {MOST_PATTERNS} are the most", dict.len());
            return Err(fault(true, reason));
        }
        let mut entries = Vec::with_capacity(dict.len());
        for (text, list) in dict {
            let list = list.as_array().and_then(|l| l.iter().map(|a| a.as_str().map(str::to_owned)).collect());
            let Some(attributes) = list else {
                let reason = format!("pattern_dict['{}'] is not a list of texts", shorten(text, 80));
                return Err(fault(false, reason));
            };
            let regex = full_match(text)
                .map_err(|e| fault(true, format!("the pattern '{}' cannot be used: {e}", shorten(text, 80))))?;
            entries.push(Pattern { text: text.clone(), regex, attributes });
        }
        Ok(Patterns { entries })
    }

    /// Returns the pattern_dict as JSON, in the same order and spelling.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// Returns the pattern_dict as a JSON value, in the same order and spelling.
    pub(crate) fn to_value(&self) -> Value {
        let entry = |p: &Pattern| (p.text.clone(), Value::from(p.attributes.clone()));
        Value::Object(self.entries.iter().map(entry).collect::<Map<_, _>>())
    }

    /// Returns the entries in their order.
    pub fn entries(&self) -> &[Pattern] {
        &self.entries
    }

    /// Returns the number of the first pattern that matches the whole name of a module.
    pub fn find(&self, module: &str) -> Option<usize> {
        self.entries.iter().position(|p| p.matches(module))
    }
}

/// Compiles a pattern to match like Python's `re.fullmatch`, except that `\d` and `\w` mean ASCII only: names of modules are
/// identifiers and numbers, and the tables of Unicode would make a small pattern large. The pattern is tried alone first, so
/// that no stray bracket of it can close the group around it.
///
/// Python's possessive `\d++`, which a published model ends a pattern with, is read as `(?:\d+)+` here. At the end of a
/// full match that is the same: nothing follows for which it could give a digit back.
fn full_match(pattern: &str) -> std::result::Result<Regex, String> {
    const MOST: usize = 64 << 10;
    /// The deepest nesting, in which a sequence and a choice are levels, too. The compiler of patterns calls itself for each, on
    /// the caller's stack. Published patterns have a few.
    const DEEPEST: u32 = 32;
    let build = |p: &str, deepest| {
        let mut builder = RegexBuilder::new(p);
        let built = builder.unicode(false).size_limit(MOST).dfa_size_limit(MOST).nest_limit(deepest).build();
        // The crate's text spans lines and draws a marker; its last line says what is wrong.
        built.map_err(|e| e.to_string().lines().last().unwrap_or_default().trim().to_owned())
    };
    build(pattern, DEEPEST)?;
    build(&format!(r"\A(?:{pattern})\z"), DEEPEST + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern from a file does not decide how much of the caller's stack is used.
    #[test]
    fn deeply_nested_patterns_are_refused() {
        for (begin, middle, end, levels) in
            [("(", "a", ")", 1), ("(?:", "a", ")*", 2), ("(a|b", "c", "|d)+", 4), ("[a", "b", "c]", 2)]
        {
            let nested = |depth: usize| full_match(&(begin.repeat(depth) + middle + &end.repeat(depth)));
            assert!(nested(28 / levels).is_ok(), "{begin}");
            for depth in [33, 100, 1000] {
                assert!(
                    nested(depth).is_err_and(|reason| reason.contains("maximum number of nested")),
                    "{begin} {depth}"
                );
            }
        }
    }

    /// As ACE-Step's published release spells it.
    #[test]
    fn a_possessive_end_is_a_greedy_one() {
        let pattern = full_match(r"encoder\.lyric_encoder\.layers\.\d++").unwrap();
        for (name, expected) in [
            ("encoder.lyric_encoder.layers.0", true),
            ("encoder.lyric_encoder.layers.1234567", true),
            ("encoder.lyric_encoder.layers.", false),
            ("encoder.lyric_encoder.layers.1x", false),
            ("encoder.lyric_encoder.layers.1+", false),
            ("encoder.lyric_encoder.layers.1.self_attn", false),
        ] {
            assert_eq!(pattern.is_match(name.as_bytes()), expected, "{name}");
        }
    }
}
