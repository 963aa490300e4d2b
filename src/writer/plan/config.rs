//! config.json as the reference writes it: the source's keys and `dfloat11_config`, all sorted, in Python's layout. For a source
//! without a config.json it is `dfloat11_config` alone, in its own order.
//!
//! Numbers stay as they are spelled in the source: `1e-06` must not become `0.000001` or `1e-6`.
//!
//! And the way back: a config without `dfloat11_config`, in which all else is as it was, byte for byte.

use crate::error::{Error, Place, Result};
use crate::format::{LACKS_KEY, MOST_CONFIG_BYTES, Seen, TENSORS_KEY, no_number, of_python};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// The key that is added to a config, and taken out of it.
const KEY: &str = "dfloat11_config";
/// The version of the reference whose files are written, to the byte.
const VERSION: &str = "0.5.0";

/// Returns the text of config.json for a model whose groups are made by these patterns. `source` is the text of the source's
/// config.json, if it has one; `lacks` are the names of what the source lacks, and `tensors` is how many tensors the model has. The
/// reference knows neither, and there is no list if it is empty.
///
/// # Errors
///
/// `InvalidFormat` if the source's is not a JSON object.
pub(crate) fn merged(
    source: Option<&str>,
    place: &Place,
    pattern_dict: &Value,
    lacks: &[&str],
    tensors: Option<u64>,
) -> Result<String> {
    let mut ours = serde_json::json!({
        "version": VERSION,
        "threads_per_block": [512],
        "bytes_per_thread": 8,
        "pattern_dict": pattern_dict,
    });
    if !lacks.is_empty() {
        ours[LACKS_KEY] = lacks.into();
    }
    if let Some(tensors) = tensors {
        ours[TENSORS_KEY] = tensors.into();
    }
    let invalid = |e: serde_json::Error| Error::invalid(place.clone(), format!("the config cannot be merged: {e}"));
    let added = format!("{{\"{KEY}\":{ours}}}");
    let mut printer = Printer { source: "", base: 0, sort: false, out: String::new() };
    match source {
        None => {
            printer.print(serde_json::from_str(&added).map_err(invalid)?, 0).map_err(invalid)?;
        }
        Some(text) => {
            let blanked = of_python(text.as_bytes());
            let Object(mut entries) = serde_json::from_slice(&blanked).map_err(invalid)?;
            entries.retain(|entry| entry.key != KEY);
            let Object(added) = serde_json::from_str(&added).map_err(invalid)?;
            entries.extend(added);
            (printer.source, printer.base, printer.sort) = (text, blanked.as_ptr().addr(), true);
            printer.print_object(entries, 0).map_err(invalid)?;
            printer.out.push('\n');
        }
    }
    let bytes = printer.out.len() as u64;
    if bytes > MOST_CONFIG_BYTES {
        let reason = format!("the config would have {bytes} bytes: {MOST_CONFIG_BYTES} are the most");
        return Err(Error::invalid(place.clone(), reason));
    }
    Ok(printer.out)
}

/// Returns a config's text without `dfloat11_config`, and the number of keys that are left. Nothing else of the text changes.
/// Returns `None` if the text is no object with that key.
pub(crate) fn without(text: &str) -> Option<(String, usize)> {
    let entries = spans(text)?;
    let ours = entries.iter().position(|entry| entry.key == KEY)?;
    let cut = match (ours.checked_sub(1), entries.get(ours + 1)) {
        (_, Some(next)) => entries[ours].from..next.from,
        (Some(before), None) => entries[before].to..entries[ours].to,
        (None, None) => entries[ours].from..entries[ours].to,
    };
    let mut rest = text.to_owned();
    rest.replace_range(cut, "");
    Some((rest, entries.len() - 1))
}

/// The place of an entry of a JSON object in the text: from its key to the end of its value.
struct Span {
    key: String,
    from: usize,
    to: usize,
}

/// Finds the entries of a text that is a JSON object, as Python reads it. Returns `None` if it is none.
fn spans(text: &str) -> Option<Vec<Span>> {
    let blanked = of_python(text.as_bytes());
    let Object(object) = serde_json::from_slice(&blanked).ok()?;
    let at = |value: &RawValue| value.get().as_ptr().addr() - blanked.as_ptr().addr();
    let span = |entry: Entry| {
        let value_at = at(entry.value);
        // What is no number in JSON has a shorter text in its place.
        let bytes = no_number(&text.as_bytes()[value_at..]).map_or(entry.value.get().len(), str::len);
        Span { from: at(entry.spelled), key: entry.key, to: value_at + bytes }
    };
    Some(object.into_iter().map(span).collect())
}

/// Returns what Python's `json.dumps(…, indent=2, sort_keys=True)` writes, and the end of a line.
pub(crate) fn pretty(value: &Value) -> Result<String> {
    let fail = |e: serde_json::Error| Error::Internal(format!("a value is no JSON: {e}"));
    let raw: Box<RawValue> = serde_json::value::to_raw_value(value).map_err(fail)?;
    let mut printer = Printer { source: "", base: 0, sort: true, out: String::new() };
    printer.print(&raw, 0).map_err(fail)?;
    printer.out.push('\n');
    Ok(printer.out)
}

/// An entry of a JSON object.
struct Entry<'a> {
    key: String,
    /// The key as it is spelled.
    spelled: &'a RawValue,
    value: &'a RawValue,
}

/// The entries of a JSON object, in their order.
struct Object<'a>(Vec<Entry<'a>>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Object<'de>, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), Seen::default());
                while let Some((spelled, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    let key: String = serde_json::from_str(spelled.get()).map_err(A::Error::custom)?;
                    seen.add(&key)?;
                    entries.push(Entry { key, spelled, value });
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Writes what Python's `json.dumps(…, indent=2)` writes.
struct Printer<'a> {
    /// The text that the values are from.
    source: &'a str,
    /// The address of its copy in which the values are.
    base: usize,
    /// Python's `sort_keys`.
    sort: bool,
    out: String,
}

impl Printer<'_> {
    fn indent(&mut self, depth: usize) {
        self.out.push('\n');
        (0..depth).for_each(|_| self.out.push_str("  "));
    }

    fn print(&mut self, value: &RawValue, depth: usize) -> serde_json::Result<()> {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'{') => {
                let Object(entries) = serde_json::from_str(text)?;
                self.print_object(entries, depth)?;
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.out.push_str(if i > 0 { "," } else { "" });
                    self.indent(depth + 1);
                    self.print(item, depth + 1)?;
                }
                if !items.is_empty() {
                    self.indent(depth);
                }
                self.out.push(']');
            }
            Some(b'"') => self.print_text(text),
            _ => self.out.push_str(text),
        }
        Ok(())
    }

    /// Returns a part of the source that begins with a value, as it was before [`of_python`]; the value itself if it is from
    /// elsewhere.
    fn stored<'v>(&'v self, value: &'v str) -> &'v str {
        let at = value.as_ptr().addr().checked_sub(self.base);
        let rest = at.and_then(|at| self.source.get(at..));
        // What has replaced a number is shorter. Escapes of a text may be others, and are as many bytes.
        rest.map_or(value, |rest| match no_number(rest.as_bytes()) {
            Some(number) => number,
            None => &rest[..value.len()],
        })
    }

    /// Writes a text, or what Python calls a number and [`of_python`] has replaced.
    fn print_text(&mut self, text: &str) {
        let (stored, mut printed) = (self.stored(text), String::new());
        match stored.starts_with('"') {
            true => print_escaped(stored, &mut printed),
            false => printed.push_str(stored),
        }
        self.out.push_str(&printed);
    }

    fn print_object(&mut self, mut entries: Vec<Entry>, depth: usize) -> serde_json::Result<()> {
        if self.sort {
            entries.sort_by_cached_key(|entry| code_points(self.stored(entry.spelled.get())));
        }
        self.out.push('{');
        for (i, entry) in entries.iter().enumerate() {
            self.out.push_str(if i > 0 { "," } else { "" });
            self.indent(depth + 1);
            self.print_text(entry.spelled.get());
            self.out.push_str(": ");
            self.print(entry.value, depth + 1)?;
        }
        if !entries.is_empty() {
            self.indent(depth);
        }
        self.out.push('}');
        Ok(())
    }
}

/// Returns the code points of a JSON text, as Python reads it: half a character, which only an escape can spell, is one.
fn code_points(text: &str) -> Vec<u32> {
    let mut points: Vec<u32> = Vec::new();
    let mut rest = text.get(1..text.len() - 1).unwrap_or_default().chars();
    while let Some(first) = rest.next() {
        let point = match (first, if first == '\\' { rest.next() } else { None }) {
            ('\\', Some('b')) => 8,
            ('\\', Some('f')) => 12,
            ('\\', Some('n')) => 10,
            ('\\', Some('r')) => 13,
            ('\\', Some('t')) => 9,
            ('\\', Some('u')) => {
                let digits = rest.by_ref().take(4).filter_map(|digit| digit.to_digit(16));
                let unit = digits.fold(0, |unit, digit| unit << 4 | digit);
                match points.last() {
                    Some(&high @ 0xd800..=0xdbff) if (0xdc00..=0xdfff).contains(&unit) => {
                        points.pop();
                        0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00)
                    }
                    _ => unit,
                }
            }
            // A quote, a slash or a backslash.
            ('\\', Some(itself)) => itself.into(),
            (c, _) => c.into(),
        };
        points.push(point);
    }
    points
}

/// Writes a JSON text in ASCII, as Python does.
fn print_escaped(text: &str, out: &mut String) {
    out.push('"');
    for point in code_points(text) {
        match char::from_u32(point) {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some(c @ ' '..='~') => out.push(c),
            Some(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            None => out.push_str(&format!("\\u{point:04x}")),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_spelled_as_before() {
        let source =
            r#"{"z": 1e-06, "n": 10000000000000000000000, "b": [], "a": {"y": [1.0, null], "x": "é\n\u0041𝄞"}}"#;
        let text = merged(Some(source), &Place::file("c"), &serde_json::json!({"m": []}), &[], None).unwrap();
        let want = "{\n  \"a\": {\n    \"x\": \"\\u00e9\\nA\\ud834\\udd1e\",\n    \"y\": [\n      1.0,\n      null\n    ]\n  },\n  \
                    \"b\": [],\n  \"dfloat11_config\": {\n    \"bytes_per_thread\": 8,\n    \"pattern_dict\": {\n      \
                    \"m\": []\n    },\n    \"threads_per_block\": [\n      512\n    ],\n    \"version\": \"0.5.0\"\n  },\n  \
                    \"n\": 10000000000000000000000,\n  \"z\": 1e-06\n}\n";
        assert_eq!(text, want);
        assert!(merged(Some("[1]"), &Place::file("c"), &Value::Null, &[], None).is_err());
    }

    /// What Python's `json.dumps(json.loads(text), indent=2, sort_keys=True)` gives.
    #[test]
    fn numbers_that_are_none_stay_as_python_writes_them() {
        let source =
            "\u{feff}{\"z\": [0.0, Infinity, \"Infinity\", \"\"], \"a\": {\"y\": -Infinity,\"x\":NaN}, \"b\": \"\"}";
        let text = merged(Some(source), &Place::file("c"), &serde_json::json!({"m": []}), &[], None).unwrap();
        let a = "{\n  \"a\": {\n    \"x\": NaN,\n    \"y\": -Infinity\n  },\n  \"b\": \"\",\n";
        let z = "  \"z\": [\n    0.0,\n    Infinity,\n    \"Infinity\",\n    \"\"\n  ]\n}\n";
        assert!(text.starts_with(a) && text.ends_with(z), "{text}");
    }

    /// As Python reads and writes them, except for the spelling of numbers.
    #[test]
    fn what_no_double_and_no_text_holds_stays_as_it_is_spelled() {
        let source = r#"{"z": [1e400, -1E400, "\ud800\u0041\"\/"], "\uDFFFk": {"\ud834\udd1e": "\uD834\n", "a": 1e5}}"#;
        let text = merged(Some(source), &Place::file("c"), &serde_json::json!({"m": []}), &[], None).unwrap();
        let z = "  \"z\": [\n    1e400,\n    -1E400,\n    \"\\ud800A\\\"/\"\n  ],\n";
        let k = "  \"\\udfffk\": {\n    \"a\": 1e5,\n    \"\\ud834\\udd1e\": \"\\ud834\\n\"\n  }\n}\n";
        assert!(text.ends_with(&format!("{z}{k}")), "{text}");
        // In the order of code points, halves before what is for private use.
        let order = merged(
            Some(r#"{"\ue000": 1, "\udfff": 2, "\ud834\udd1e": 3}"#),
            &Place::file("c"),
            &Value::Null,
            &[],
            None,
        );
        let order = order.unwrap();
        let at = |key: &str| order.find(key).unwrap();
        assert!(at("\\udfff") < at("\\ue000") && at("\\ue000") < at("\\ud834\\udd1e"), "{order}");
        // And the way back, byte for byte.
        let ours = source.replacen('{', "{\"dfloat11_config\": {\"pattern_dict\": {}}, ", 1);
        assert_eq!(without(&ours), Some((source.to_owned(), 2)));
        let last = format!("{}, \"dfloat11_config\": 1e400}}", &source[..source.len() - 1]);
        assert_eq!(without(&last), Some((source.to_owned(), 2)));
    }

    #[test]
    fn what_cannot_be_a_config_is_refused() {
        for (text, reason) in [
            (r#"{"a": 1, "\u0061": 2}"#, "'a' twice"),
            (r#"{"x": {"a": 1, "a": 2}}"#, "'a' twice"),
            (
                &format!(r#"{{"a": {}{}}}"#, "[".repeat(20) + &"0,".repeat(100_000), "0".to_owned() + &"]".repeat(20)),
                "bytes",
            ),
        ] {
            let error = merged(Some(text), &Place::file("c"), &serde_json::json!({"m": []}), &[], None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_config_comes_back_byte_for_byte() {
        let source =
            "{\n  \"a\": 1e-06,\n  \"b\": [\n    NaN,\n    \"}\\\"\"\n  ],\n  \"f\": Infinity,\n  \"z\": {}\n}\n";
        for (at, key) in ["\"a\"", "\"b\"", "\"f\"", "\"z\""].iter().enumerate() {
            let ours = format!("\"dfloat11_config\": {{\n \"x\": [\"{{\", {{}}]\n  }},\n  {key}");
            assert_eq!(without(&source.replacen(key, &ours, 1)), Some((source.to_owned(), 4)), "{at}");
        }
        let last = source.replace("{}\n}", "{},\n  \"dfloat11_config\": null\n}");
        assert_eq!(without(&last), Some((source.to_owned(), 4)));
        assert_eq!(without(&format!("\u{feff}{last}")), Some((format!("\u{feff}{source}"), 4)));
        // As published with models of diffusers.
        let two = "{\"dfloat11_config\": {\"version\": \"0.2.0\"}, \"model_type\": \"llama\"}";
        assert_eq!(without(two), Some(("{\"model_type\": \"llama\"}".to_owned(), 1)));
        assert_eq!(without("{ \"dfloat11_config\": 1 }"), Some(("{  }".to_owned(), 0)));
        assert_eq!(without("{\"dfloat11\\u005fconfig\": 1}"), Some(("{}".to_owned(), 0)));
        for none in ["", "{", "[1]", "{}", source, "{\"dfloat11_config\"", "{\"dfloat11_config\": {", "{\"a\": \"\\"] {
            assert_eq!(without(none), None, "{none}");
        }
        assert_eq!(
            pretty(&serde_json::json!({"b": {"d": 1, "c": []}, "a": "é"})).unwrap(),
            "{\n  \"a\": \"\\u00e9\",\n  \"b\": {\n    \"c\": [],\n    \"d\": 1\n  }\n}\n"
        );
    }

    #[test]
    fn without_a_source_the_order_is_the_references() {
        let text = merged(None, &Place::file("c"), &serde_json::json!({"linear": []}), &[], None).unwrap();
        let keys = ["version", "threads_per_block", "bytes_per_thread", "pattern_dict"];
        let places: Vec<usize> = keys.iter().map(|k| text.find(k).unwrap()).collect();
        assert!(places.is_sorted() && text.ends_with("\"linear\": []\n    }\n  }\n}"), "{text}");
    }
}
