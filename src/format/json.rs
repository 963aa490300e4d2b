//! JSON from files and callers, parsed on a stack of a bounded size.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Levels of objects and lists that a text may have. A config.json of a published model has fewer than 10. The parser
/// calls itself for each level, so this bounds the stack that a file can make it use.
const MOST_LEVELS: usize = 32;

/// Parses a JSON text. The error is a sentence without the place.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    if levels(text) > MOST_LEVELS {
        return Err(format!("it is nested more than {MOST_LEVELS} levels deep"));
    }
    serde_json::from_slice(text).map_err(|e| e.to_string())
}

/// The entries of a JSON object in their order, equal keys included: whoever takes them decides what becomes of those.
pub(crate) struct Entries<V>(pub Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<V>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

/// Returns the most levels that are open at once. Brackets inside strings do not count. The answer holds for every text
/// that the parser accepts, and up to the place where it refuses another one.
fn levels(text: &[u8]) -> usize {
    let (mut open, mut most) = (0usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                open += 1;
                most = most.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b'"' => {
                // To the end of the string; the byte after a backslash does not end it.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => _ = bytes.next(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn as_deep_as_is_allowed_and_no_deeper() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"]":"#, "}]")] {
            let step = open.matches(['[', '{']).count();
            let nested = |depth: usize| open.repeat(depth) + "0" + &close.repeat(depth);
            let fits = nested(MOST_LEVELS / step);
            assert!(parse::<Value>(fits.as_bytes()).is_ok(), "{fits}");
            let error = parse::<Value>(nested(MOST_LEVELS / step + 1).as_bytes()).unwrap_err();
            assert!(error.contains("32 levels"), "{error}");
        }
        let flat = format!("[{}0]", "[],".repeat(1000));
        assert!(parse::<Value>(flat.as_bytes()).is_ok());
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        for text in [r#""[[[""#, r#""\"[[""#, r#"["\\", "["]"#] {
            assert!(levels(text.as_bytes()) <= 1, "{text}");
            assert!(parse::<Value>(text.as_bytes()).is_ok(), "{text}");
        }
        assert_eq!(levels(br#"["\\", [[]]]"#), 3);
        assert_eq!(levels(br#""an open string [[["#), 0);
    }
}
