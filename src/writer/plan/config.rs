//! config.json as the reference writes it: the source's keys and `dfloat11_config`, all sorted, in Python's layout. For a source
//! without a config.json it is `dfloat11_config` alone, in its own order.
//!
//! Numbers stay as they are spelled in the source: `1e-06` must not become `0.000001` or `1e-6`.

use crate::error::{Error, Place, Result};
use crate::format::LACKS_KEY;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// The version of the reference whose files are written, to the byte.
const VERSION: &str = "0.5.0";

/// Returns the text of config.json for a model whose groups are made by these patterns. `source` is the text of the source's
/// config.json, if it has one; `lacks` are the names of what the source lacks. The reference knows no such list, and there is none
/// if it is empty.
///
/// # Errors
///
/// `InvalidFormat` if the source's is not a JSON object.
pub(crate) fn merged(source: Option<&str>, place: &Place, pattern_dict: &Value, lacks: &[&str]) -> Result<String> {
    let mut ours = serde_json::json!({
        "version": VERSION,
        "threads_per_block": [512],
        "bytes_per_thread": 8,
        "pattern_dict": pattern_dict,
    });
    if !lacks.is_empty() {
        ours[LACKS_KEY] = lacks.into();
    }
    let invalid = |e: serde_json::Error| Error::invalid(place.clone(), format!("the config cannot be merged: {e}"));
    let ours = ours.to_string();
    let mut out = String::new();
    match source {
        None => {
            let whole = format!("{{\"dfloat11_config\":{ours}}}");
            print(serde_json::from_str(&whole).map_err(invalid)?, false, 0, &mut out).map_err(invalid)?;
        }
        Some(text) => {
            let Object(mut entries) = serde_json::from_str(text).map_err(invalid)?;
            entries.retain(|(key, _)| key != "dfloat11_config");
            let ours: &RawValue = serde_json::from_str(&ours).map_err(invalid)?;
            entries.push(("dfloat11_config".into(), ours));
            print_object(entries, true, 0, &mut out).map_err(invalid)?;
            out.push('\n');
        }
    }
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
        let text = merged(Some(source), &Place::file("c"), &serde_json::json!({"m": []}), &[]).unwrap();
        let want = "{\n  \"a\": {\n    \"x\": \"\\u00e9\\nA\\ud834\\udd1e\",\n    \"y\": [\n      1.0,\n      null\n    ]\n  },\n  \
                    \"b\": [],\n  \"dfloat11_config\": {\n    \"bytes_per_thread\": 8,\n    \"pattern_dict\": {\n      \
                    \"m\": []\n    },\n    \"threads_per_block\": [\n      512\n    ],\n    \"version\": \"0.5.0\"\n  },\n  \
                    \"z\": 10000000000000000000000\n}\n";
        assert_eq!(text, want);
        assert!(merged(Some("[1]"), &Place::file("c"), &Value::Null, &[]).is_err());
    }

    #[test]
    fn without_a_source_the_order_is_the_references() {
        let text = merged(None, &Place::file("c"), &serde_json::json!({"linear": []}), &[]).unwrap();
        let keys = ["version", "threads_per_block", "bytes_per_thread", "pattern_dict"];
        let places: Vec<usize> = keys.iter().map(|k| text.find(k).unwrap()).collect();
        assert!(places.is_sorted() && text.ends_with("\"linear\": []\n    }\n  }\n}"), "{text}");
    }
}
