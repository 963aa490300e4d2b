//! config.json as the reference writes it: the source's keys and `dfloat11_config`, all sorted, in Python's layout. For a source
//! without a config.json it is `dfloat11_config` alone, in its own order.
//!
//! Numbers stay as they are spelled in the source: `1e-06` must not become `0.000001` or `1e-6`.
//!
//! And the way back: a config without `dfloat11_config`, in which all else is as it was, byte for byte.

use crate::error::{Error, Place, Result};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// The key that is added to a config, and taken out of it.
const KEY: &str = "dfloat11_config";
/// The version of the reference whose files are written, to the byte.
const VERSION: &str = "0.5.0";

/// Returns the text of config.json for a model whose groups are made by these patterns. `source` is the text of the source's
/// config.json, if it has one.
///
/// # Errors
///
/// `InvalidFormat` if the source's is not a JSON object.
pub(crate) fn merged(source: Option<&str>, place: &Place, pattern_dict: &Value) -> Result<String> {
    let ours = serde_json::json!({
        "version": VERSION,
        "threads_per_block": [512],
        "bytes_per_thread": 8,
        "pattern_dict": pattern_dict,
    });
    let invalid = |e: serde_json::Error| Error::invalid(place.clone(), format!("the config cannot be merged: {e}"));
    let ours = ours.to_string();
    let mut out = String::new();
    match source {
        None => {
            let whole = format!("{{\"{KEY}\":{ours}}}");
            print(serde_json::from_str(&whole).map_err(invalid)?, false, 0, &mut out).map_err(invalid)?;
        }
        Some(text) => {
            let Object(mut entries) = serde_json::from_str(text).map_err(invalid)?;
            entries.retain(|(key, _)| key != KEY);
            let ours: &RawValue = serde_json::from_str(&ours).map_err(invalid)?;
            entries.push((KEY.into(), ours));
            print_object(entries, true, 0, &mut out).map_err(invalid)?;
            out.push('\n');
        }
    }
    Ok(out)
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

/// An entry of a JSON object, and its place in the text: from its key to the end of its value.
struct Entry {
    key: String,
    from: usize,
    to: usize,
}

/// Finds the entries of a text that is a JSON object, as Python reads it: values may have NaN and Infinity in them, and are not
/// looked at. Returns `None` if it is none.
fn spans(text: &str) -> Option<Vec<Entry>> {
    let bytes = text.as_bytes();
    let space = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    // Returns the end of the text that begins at a quotation mark.
    let end_of_text = |from: usize| {
        let mut at = from + 1;
        while *bytes.get(at)? != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        Some(at + 1)
    };
    // Returns the end of the value that begins here: its first comma or closing bracket that is not inside of it.
    let end_of_value = |from: usize| {
        let (mut at, mut depth) = (from, 0usize);
        let mut end = from;
        loop {
            match *bytes.get(at)? {
                b'"' => at = end_of_text(at)? - 1,
                b'{' | b'[' => depth += 1,
                b',' if depth == 0 => return Some(end),
                b'}' | b']' if depth == 0 => return Some(end),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            at += 1;
            if !bytes[at - 1].is_ascii_whitespace() {
                end = at;
            }
        }
    };
    // Editors on Windows begin a file with a byte order mark.
    let mut at = space(if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 });
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    let mut entries = Vec::new();
    at = space(at + 1);
    while bytes.get(at) == Some(&b'"') {
        let (from, end) = (at, end_of_text(at)?);
        let key = serde_json::from_str(text.get(from..end)?).ok()?;
        let colon = space(end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let to = end_of_value(space(colon + 1))?;
        entries.push(Entry { key, from, to });
        at = space(to);
        match bytes.get(at) {
            Some(b',') => at = space(at + 1),
            Some(b'}') => return Some(entries),
            _ => return None,
        }
    }
    (bytes.get(at) == Some(&b'}')).then_some(entries)
}

/// Returns what Python's `json.dumps(…, indent=2, sort_keys=True)` writes, and the end of a line.
pub(crate) fn pretty(value: &Value) -> Result<String> {
    let fail = |e: serde_json::Error| Error::Internal(format!("a value is no JSON: {e}"));
    let mut out = String::new();
    let raw: Box<RawValue> = serde_json::value::to_raw_value(value).map_err(fail)?;
    print(&raw, true, 0, &mut out).map_err(fail)?;
    out.push('\n');
    Ok(out)
}

/// A JSON object in the order of its keys, with the text of each value.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Object<'de>, A::Error> {
                let mut entries: Vec<(String, &RawValue)> = Vec::new();
                let mut places = HashMap::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    // Of two equal keys Python takes the last value, at the first one's place.
                    match places.insert(key.clone(), entries.len()) {
                        None => entries.push((key, value)),
                        Some(first) => {
                            entries[first].1 = value;
                            places.insert(key, first);
                        }
                    }
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn indent(depth: usize, out: &mut String) {
    out.push('\n');
    (0..depth).for_each(|_| out.push_str("  "));
}

/// Writes what Python's `json.dumps(…, indent=2)` writes, with `sort_keys` or without.
fn print(value: &RawValue, sort: bool, depth: usize, out: &mut String) -> serde_json::Result<()> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let Object(entries) = serde_json::from_str(text)?;
            print_object(entries, sort, depth, out)?;
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                indent(depth + 1, out);
                print(item, sort, depth + 1, out)?;
            }
            if !items.is_empty() {
                indent(depth, out);
            }
            out.push(']');
        }
        Some(b'"') => print_text(&serde_json::from_str::<String>(text)?, out),
        _ => out.push_str(text),
    }
    Ok(())
}

fn print_object(
    mut entries: Vec<(String, &RawValue)>,
    sort: bool,
    depth: usize,
    out: &mut String,
) -> serde_json::Result<()> {
    if sort {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out.push('{');
    for (i, (key, value)) in entries.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        indent(depth + 1, out);
        print_text(key, out);
        out.push_str(": ");
        print(value, sort, depth + 1, out)?;
    }
    if !entries.is_empty() {
        indent(depth, out);
    }
    out.push('}');
    Ok(())
}

/// Writes a text in ASCII, as Python does.
fn print_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
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
            r#"{"z": 1e-06, "b": [], "a": {"y": [1.0, null], "x": "é\n\u0041𝄞"}, "z": 10000000000000000000000}"#;
        let text = merged(Some(source), &Place::file("c"), &serde_json::json!({"m": []})).unwrap();
        let want = "{\n  \"a\": {\n    \"x\": \"\\u00e9\\nA\\ud834\\udd1e\",\n    \"y\": [\n      1.0,\n      null\n    ]\n  },\n  \
                    \"b\": [],\n  \"dfloat11_config\": {\n    \"bytes_per_thread\": 8,\n    \"pattern_dict\": {\n      \
                    \"m\": []\n    },\n    \"threads_per_block\": [\n      512\n    ],\n    \"version\": \"0.5.0\"\n  },\n  \
                    \"z\": 10000000000000000000000\n}\n";
        assert_eq!(text, want);
        assert!(merged(Some("[1]"), &Place::file("c"), &Value::Null).is_err());
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
        let text = merged(None, &Place::file("c"), &serde_json::json!({"linear": []})).unwrap();
        let keys = ["version", "threads_per_block", "bytes_per_thread", "pattern_dict"];
        let places: Vec<usize> = keys.iter().map(|k| text.find(k).unwrap()).collect();
        assert!(places.is_sorted() && text.ends_with("\"linear\": []\n    }\n  }\n}"), "{text}");
    }
}
