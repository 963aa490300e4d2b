//! A `pattern_dict`: which modules are groups, and what their tensors are called. Configs of models are read with it, and models
//! are compressed by it.

use super::foreign;
use super::json::{self, Fault};
use crate::error::{Error, Result, shorten};
use crate::progress::Progress;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::Hir;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// The most patterns of a config. Published ones have 26 at most.
pub(crate) const MOST_PATTERNS: usize = 256;
/// The most attributes of all lists together. Published configs have some 300 at most.
const MOST_ATTRIBUTES: usize = 16 << 10;

/// A `pattern_dict`: regular expressions over names of modules (full match), each with the attribute paths whose weights
/// make a group, in the order of the config. A module belongs to the first pattern that matches its whole name.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    entries: Vec<Pattern>,
}

/// One entry of a [`Patterns`].
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// How every name begins that it matches: most names are refused by this alone.
    head: String,
    automaton: Arc<Automaton>,
    attributes: Vec<String>,
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
        if !module.starts_with(&self.head) {
            return false;
        }
        let input = Input::new(module).anchored(Anchored::Yes).earliest(true);
        // The automaton knows every byte, so no search gives up.
        self.automaton.try_search_fwd(&input).is_ok_and(|found| found.is_some())
    }
}

impl Patterns {
    /// Parses a pattern_dict to compress by: the JSON text of one, of an object that has one under `pattern_dict`, or of a config.json
    /// that has one under `dfloat11_config.pattern_dict`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if the text is none of these, a pattern cannot be used, or a list has more than 1024 attributes or one of
    /// them twice.
    pub fn parse(text: &str) -> Result<Patterns> {
        let given = text.as_bytes();
        let text = json::of_python(given);
        let invalid_json = |e| Self::invalid(foreign::not_json("it", given, e));
        let neither =
            || Self::invalid("it is not an object, nor a config.json with dfloat11_config.pattern_dict".into());
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(json::parse::<IgnoredAny>(&text).map_or_else(invalid_json, |_| neither()));
        }
        let keys = ["dfloat11_config", "pattern_dict", "model_type", "architectures", "_class_name"];
        let [config, dict, of_plain @ ..] = json::fields(&text, keys).map_err(invalid_json)?;
        if config.is_none() && of_plain.iter().any(Option::is_some) {
            let reason = "it is the config.json of a model that is not compressed, which has no dfloat11_config";
            return Err(Self::invalid(reason.into()));
        }
        let dict = match config {
            Some(config) => json::fields(config.as_bytes(), ["pattern_dict"]).map_err(invalid_json)?[0],
            // A pattern may be spelled so. Its value would be a list.
            None => match dict.filter(|dict| dict.starts_with('{')) {
                Some(dict) => Some(dict),
                None => std::str::from_utf8(&text).ok(),
            },
        };
        let dict = dict.filter(|dict| dict.trim_ascii_start().starts_with('{')).ok_or_else(neither)?;
        json::check_names(json::stored(given, &text, dict)).map_err(Self::invalid)?;
        let patterns = Self::read(dict, &Progress::new(), |_, reason| Self::invalid(reason))?;
        if patterns.entries.is_empty() {
            return Err(Self::invalid("it has no pattern".into()));
        }
        for Pattern { text, attributes, .. } in &patterns.entries {
            let mut seen = HashSet::new();
            if let Some(twice) = attributes.iter().find(|a| !seen.insert(*a)) {
                let (text, twice) = (shorten(text, 80), shorten(twice, 80));
                return Err(Self::invalid(format!("the list of '{text}' has '{twice}' twice")));
            }
        }
        Ok(patterns)
    }

    /// Does what [`Patterns::parse`] does for JSON that is parsed already.
    #[cfg(feature = "writer")]
    pub(crate) fn from_value(json: &Value) -> Result<Patterns> {
        Self::parse(&json.to_string())
    }

    fn invalid(reason: String) -> Error {
        Error::InvalidArgument(format!("the pattern_dict cannot be used: {reason}"))
    }

    /// Reads the patterns of a dict's text, with what every reader must check. `refuse` makes the error; its first argument is true
    /// for what may be valid, and is only more than this version can do.
    pub(super) fn read(dict: &str, progress: &Progress, refuse: impl Fn(bool, String) -> Error) -> Result<Patterns> {
        let mut budget = Budget { work: MOST_WORK, bytes: MOST_AUTOMATA_BYTES };
        let (mut entries, mut attribute_count) = (Vec::new(), 0);
        json::each(dict.as_bytes(), |text, list| {
            progress.check().map_err(Fault::Is)?;
            let refuse = |unsupported, reason| Fault::Is(refuse(unsupported, reason));
            if entries.len() == MOST_PATTERNS {
                return Err(refuse(true, format!("pattern_dict has more than {MOST_PATTERNS} patterns")));
            }
            let shown = || shorten(&text, 80);
            let most = super::MOST_TENSORS as usize;
            let attributes = match json::parse::<List>(list.get().as_bytes()) {
                Ok(List { beyond: true, .. }) => {
                    return Err(refuse(true, format!("the list of '{}' is longer than {most}", shown())));
                }
                Ok(List { texts, .. }) => texts,
                Err(_) => return Err(refuse(false, format!("pattern_dict['{}'] is not a list of texts", shown()))),
            };
            attribute_count += attributes.len();
            if attribute_count > MOST_ATTRIBUTES {
                let reason = format!("the lists of pattern_dict have more than {MOST_ATTRIBUTES} attributes");
                return Err(refuse(true, reason));
            }
            let automaton = full_match(&text, &mut budget)
                .map_err(|e| refuse(true, format!("the pattern '{}' cannot be used: {e}", shown())))?;
            entries.push(Pattern { head: head_of(&text), text: text.into_owned(), automaton, attributes });
            Ok(())
        })
        .map_err(|fault| fault.or(|reason| refuse(false, format!("pattern_dict is not valid: {reason}"))))?;
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

/// Returns a text that every match of a pattern begins with: what stands before its first operator.
fn head_of(pattern: &str) -> String {
    let (mut head, mut chars) = (String::new(), pattern.chars().peekable());
    if pattern.contains('|') {
        return head;
    }
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some(c) if c.is_ascii_punctuation() => c,
                _ => break,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => break,
            c => c,
        };
        // The character is optional, or is repeated.
        if matches!(chars.peek(), Some('?' | '*' | '+' | '{')) {
            break;
        }
        head.push(c);
    }
    head
}

/// The texts of a list, as many as a group can have tensors.
struct List {
    texts: Vec<String>,
    /// True if there are more.
    beyond: bool,
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<List, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<List, A::Error> {
                let mut texts = Vec::new();
                while texts.len() < super::MOST_TENSORS as usize {
                    match list.next_element()? {
                        Some(text) => texts.push(text),
                        None => return Ok(List { texts, beyond: false }),
                    }
                }
                let mut beyond = false;
                while let Some(IgnoredAny) = list.next_element()? {
                    beyond = true;
                }
                Ok(List { texts, beyond })
            }
        }
        deserializer.deserialize_seq(Texts)
    }
}

/// The work that compiling all patterns of a dict may take, in transitions of their automata times states that each of them may
/// have to look at. Published dicts take 2 million at most.
const MOST_WORK: usize = 100_000_000;
/// The same for one pattern. It takes less than a tenth of a second, in which nothing can be cancelled.
const MOST_PATTERN_WORK: usize = 20_000_000;
/// The bytes that one pattern may take while it is compiled.
const MOST_BYTES: usize = 64 << 10;
/// The bytes of one pattern's automaton.
const MOST_AUTOMATON_BYTES: usize = 256 << 10;
/// The bytes of all automata of a dict. Published dicts take 50 KB at most.
const MOST_AUTOMATA_BYTES: usize = 8 << 20;
/// The bytes of a pattern's text. Published ones have 60 at most.
const MOST_TEXT: usize = 16 << 10;

/// What compiling the patterns of a dict may still take.
struct Budget {
    work: usize,
    bytes: usize,
}

/// A pattern as a table: for each state and byte the next state. Matching a name takes one look-up for each of its bytes, whatever
/// the pattern is. A pattern from a file is hostile: other ways to match would take time in proportion to the pattern, too.
type Automaton = dense::DFA<Vec<u32>>;

/// Compiles a pattern to match like Python's `re.fullmatch`, except that `\d` and `\w` mean ASCII only: names of modules are
/// identifiers and numbers, and the tables of Unicode would make a small pattern large. The pattern is parsed alone first, so
/// that no stray bracket of it can close the group around it. `budget` is what is left for this dict.
///
/// Python's possessive `\d++`, which a published model ends a pattern with, is read as `(?:\d+)+` here. At the end of a
/// full match that is the same: nothing follows for which it could give a digit back.
fn full_match(pattern: &str, budget: &mut Budget) -> std::result::Result<Arc<Automaton>, String> {
    /// The deepest nesting, in which a sequence and a choice are levels, too. The compiler of patterns calls itself for each, on
    /// the caller's stack. Published patterns have a few.
    const DEEPEST: u32 = 32;
    if pattern.len() > MOST_TEXT {
        return Err(format!("it has {} bytes: {MOST_TEXT} are the most", pattern.len()));
    }
    parsed(pattern, DEEPEST)?;
    let nfa = compiled(&parsed(&format!(r"\A(?:{pattern})\z"), DEEPEST + 2)?).ok_or_else(too_large)?;
    let states = nfa.states().len().max(1);
    let transition_bytes = size_of::<u32>();
    let limit = (budget.work.min(MOST_PATTERN_WORK) / states * transition_bytes).min(budget.bytes);
    let automaton = determinized(&nfa, limit.min(MOST_AUTOMATON_BYTES)).ok_or_else(|| match limit {
        MOST_AUTOMATON_BYTES.. => too_large(),
        _ => "it is too complicated, or all patterns together are".to_owned(),
    })?;
    let bytes = automaton.memory_usage();
    budget.work = budget.work.saturating_sub(bytes / transition_bytes * states);
    budget.bytes = budget.bytes.saturating_sub(bytes);
    Ok(automaton)
}

fn too_large() -> String {
    format!("it is too complicated: its automaton exceeds the size limit of {MOST_AUTOMATON_BYTES} bytes")
}

// The steps are not inlined, so that the stack needs room for one of them at a time.

#[inline(never)]
fn parsed(pattern: &str, deepest: u32) -> std::result::Result<Hir, String> {
    let config = syntax::Config::new().unicode(false).utf8(false).nest_limit(deepest);
    // The crate's text spans lines and draws a marker; its last line says what is wrong.
    let words = |e: regex_syntax::Error| e.to_string().lines().last().unwrap_or_default().trim().to_owned();
    syntax::parse_with(pattern, &config).map_err(words)
}

/// Returns `None` if it would be too large.
#[inline(never)]
fn compiled(pattern: &Hir) -> Option<NFA> {
    let config = thompson::Config::new().which_captures(WhichCaptures::None).utf8(false);
    thompson::Compiler::new().configure(config.nfa_size_limit(Some(MOST_BYTES))).build_from_hir(pattern).ok()
}

/// Returns `None` if it would be too large.
#[inline(never)]
fn determinized(pattern: &NFA, most_bytes: usize) -> Option<Arc<Automaton>> {
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .accelerate(false)
        .dfa_size_limit(Some(most_bytes))
        .determinize_size_limit(Some(MOST_AUTOMATON_BYTES));
    dense::Builder::new().configure(config).build_from_nfa(pattern).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_match_begins_with_the_head() {
        for (pattern, head) in [
            (r"model\.layers\.\d+", "model.layers."),
            ("model.layers", "model"),
            ("ab?c", "a"),
            ("ab{0}", "a"),
            ("ab+", "a"),
            ("a|b", ""),
            ("(?i)ab", ""),
            (r"\Aab", ""),
            ("lm_head", "lm_head"),
        ] {
            assert_eq!(head_of(pattern), head, "{pattern}");
        }
    }

    /// A pattern from a file does not decide how much of the caller's stack is used.
    #[test]
    fn deeply_nested_patterns_are_refused() {
        for (begin, middle, end, levels) in
            [("(", "a", ")", 1), ("(?:", "a", ")*", 2), ("(a|b", "c", "|d)+", 4), ("[a", "b", "c]", 2)]
        {
            let nested = |depth: usize| {
                full_match(
                    &(begin.repeat(depth) + middle + &end.repeat(depth)),
                    &mut Budget { work: MOST_WORK, bytes: MOST_AUTOMATA_BYTES },
                )
            };
            assert!(nested(28 / levels).is_ok(), "{begin}");
            for depth in [33, 100, 1000] {
                assert!(
                    nested(depth).is_err_and(|reason| reason.contains("maximum number of nested")),
                    "{begin} {depth}"
                );
            }
        }
    }

    /// What Python reads and a name cannot be is refused in the patterns alone.
    #[test]
    fn half_a_character_is_no_pattern() {
        let half = Patterns::parse(r#"{"pattern_dict": {"a\ud800": []}, "\ud800": 1e400}"#).unwrap_err().to_string();
        assert!(half.contains("\\ud800 is half a character"), "{half}");
        assert!(Patterns::parse(r#"{"pattern_dict": {"a": []}, "\ud800": 1e400}"#).is_ok());
    }

    /// As ACE-Step's published release spells it.
    #[test]
    fn a_possessive_end_is_a_greedy_one() {
        let patterns = Patterns::parse(r#"{"encoder\\.lyric_encoder\\.layers\\.\\d++": []}"#).unwrap();
        for (name, expected) in [
            ("encoder.lyric_encoder.layers.0", true),
            ("encoder.lyric_encoder.layers.1234567", true),
            ("encoder.lyric_encoder.layers.", false),
            ("encoder.lyric_encoder.layers.1x", false),
            ("encoder.lyric_encoder.layers.1+", false),
            ("encoder.lyric_encoder.layers.1.self_attn", false),
        ] {
            assert_eq!(patterns.find(name).is_some(), expected, "{name}");
        }
    }
}
