//! JSON from files and callers, parsed on a stack of a bounded size, into no more than the caller asks for. A key that an object
//! has twice is refused, because readers disagree on which of the two counts.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::marker::PhantomData;

/// Levels of objects and lists that a text may have. A config.json of a published model has fewer than 10. The parser
/// calls itself for each level, so this bounds the stack that a file can make it use.
const MOST_LEVELS: usize = 32;

/// Parses a JSON text. The error is a sentence without the place.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    parse_seed(text, PhantomData)
}

/// Parses a JSON text with what the seed brings.
pub(crate) fn parse_seed<'a, S: DeserializeSeed<'a>>(text: &'a [u8], seed: S) -> Result<S::Value, String> {
    if levels(text) > MOST_LEVELS {
        return Err(format!("it is nested more than {MOST_LEVELS} levels deep"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    // The parser's own words for half a character are about something else.
    value.map_err(|e| check_names(text).err().unwrap_or_else(|| e.to_string()))
}

/// Returns what Python reads as JSON as the parser here reads it. Every place stays where it is.
///
/// - `NaN`, `Infinity` and `-Infinity`, which JSON does not have, and numbers that a double does not hold, as `1e400`, become empty
///   texts and blanks.
/// - Escapes of half a character, as `\ud800`, become those of characters for private use. A text with them has no meaning to this
///   library; where it would be a name, [`check_names`] refuses it.
/// - The byte order mark, which editors put first, becomes blanks.
pub(crate) fn of_python(text: &[u8]) -> Cow<'_, [u8]> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut out = Cow::Borrowed(text);
    if text.starts_with(MARK) {
        out.to_mut()[..MARK.len()].fill(b' ');
    }
    let mut i = 0;
    while let Some(&byte) = text.get(i) {
        match byte {
            b'"' => {
                let end = end_of_string(text, i);
                for half in halves(&text[i..end]) {
                    // U+D800 to U+DFFF become U+E000 to U+E7FF, in the same order.
                    let [first, second] = [i + half + 2, i + half + 3];
                    let digit = char::from(text[second]).to_digit(16).unwrap_or_default() as u8;
                    let out = out.to_mut();
                    (out[first], out[second]) = (b'e', b'0' + (digit & 7));
                }
                i = end;
            }
            b'N' | b'I' | b'-' | b'0'..=b'9' => match no_number(&text[i..]) {
                Some(token) => {
                    let place = &mut out.to_mut()[i..i + token.len()];
                    place.fill(b' ');
                    place[..2].fill(b'"');
                    i += token.len();
                }
                // What follows the first digit is no number of its own.
                None => i += number(&text[i..]).map_or(1, str::len),
            },
            _ => i += 1,
        }
    }
    out
}

/// Returns what Python reads as a number and [`of_python`] replaces, if a text begins with that.
pub(crate) fn no_number(text: &[u8]) -> Option<&str> {
    if let Some(token) = ["NaN", "Infinity", "-Infinity"].into_iter().find(|token| text.starts_with(token.as_bytes())) {
        return Some(token);
    }
    // Parsers differ in how they round the last ones below infinity.
    const LARGE: f64 = 1e308;
    let number = number(text)?;
    let may_be_large = number.len() > 300 || number.contains(['e', 'E']);
    (may_be_large && number.parse::<f64>().is_ok_and(|value| value.abs() >= LARGE)).then_some(number)
}

/// Returns the number that a text begins with, as JSON spells numbers.
fn number(text: &[u8]) -> Option<&str> {
    let digits = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let at = |place: usize, bytes: &[u8]| text.get(place).is_some_and(|byte| bytes.contains(byte));
    let mut end = usize::from(at(0, b"-"));
    end += match text.get(end)? {
        b'0' => 1,
        b'1'..=b'9' => digits(end),
        _ => return None,
    };
    if at(end, b".") && at(end + 1, b"0123456789") {
        end += 1 + digits(end + 1);
    }
    if at(end, b"eE") {
        let sign = usize::from(at(end + 1, b"+-"));
        if at(end + 1 + sign, b"0123456789") {
            end += 1 + sign + digits(end + 1 + sign);
        }
    }
    std::str::from_utf8(&text[..end]).ok()
}

/// Returns the places in a string, with its quotes, of escapes of half a character: a UTF-16 surrogate without the other.
fn halves(string: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let unit = |at: usize| match string.get(at..at + 6) {
        Some([b'\\', b'u', digits @ ..]) => {
            std::str::from_utf8(digits).ok().and_then(|digits| u16::from_str_radix(digits, 16).ok())
        }
        _ => None,
    };
    let mut i = 0;
    std::iter::from_fn(move || {
        while let Some(&byte) = string.get(i) {
            let at = i;
            let (step, half) = match unit(at) {
                _ if byte != b'\\' => (1, false),
                Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => (12, false),
                Some(0xd800..=0xdfff) => (6, true),
                // The byte after a backslash begins no escape.
                _ => (2, false),
            };
            i += step;
            if half {
                return Some(at);
            }
        }
        None
    })
}

/// Returns a part of a text as it was before [`of_python`]. `read` is what that has returned for `text`, and `part` a part of it.
pub(super) fn stored<'t>(text: &'t [u8], read: &[u8], part: &str) -> &'t [u8] {
    let from = part.as_ptr().addr().wrapping_sub(read.as_ptr().addr());
    text.get(from..from.saturating_add(part.len())).unwrap_or_default()
}

/// Fails if there is half a character in a JSON text of names.
pub(super) fn check_names(text: &[u8]) -> Result<(), String> {
    let mut i = 0;
    while let Some(&byte) = text.get(i) {
        if byte != b'"' {
            i += 1;
            continue;
        }
        let end = end_of_string(text, i);
        if let Some(half) = halves(&text[i..end]).next() {
            let escape = String::from_utf8_lossy(&text[i + half..i + half + 6]).into_owned();
            return Err(format!("{escape} is half a character, which no text can have"));
        }
        i = end;
    }
    Ok(())
}

/// Returns the place after the string that begins at `start`.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    while let Some(&byte) = text.get(i) {
        match byte {
            b'"' => return i + 1,
            // The byte after a backslash does not end it.
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    text.len()
}

/// Returns the most levels that are open at once. Brackets inside strings do not count. The answer holds for every text
/// that the parser accepts, and up to the place where it refuses another one.
fn levels(text: &[u8]) -> usize {
    let (mut open, mut most) = (0usize, 0);
    let mut i = 0;
    while let Some(byte) = text.get(i) {
        i += 1;
        match byte {
            b'{' | b'[' => {
                open += 1;
                most = most.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b'"' => i = end_of_string(text, i - 1),
            _ => {}
        }
    }
    most
}

/// The keys of an object that were there already. A hash of each is kept, of 64 bits and with a random key.
#[derive(Default)]
pub(crate) struct Seen {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Seen {
    /// Fails if this key was there already.
    pub fn add<E: serde::de::Error>(&mut self, key: &str) -> Result<(), E> {
        if self.hashes.insert(self.hasher.hash_one(key)) {
            return Ok(());
        }
        Err(E::custom(format_args!("it has the key '{}' twice", crate::error::shorten(key, 80))))
    }
}

/// A value that is skipped, but for keys that an object in it has twice.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Skipped, D::Error> {
        deserializer.deserialize_any(Skipped)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Skipped;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_str<E>(self, _: &str) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_unit<E>(self) -> Result<Skipped, E> {
        Ok(Skipped)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Skipped, A::Error> {
        while let Some(Skipped) = list.next_element()? {}
        Ok(Skipped)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skipped, A::Error> {
        let mut seen = Seen::default();
        while let Some(key) = map.next_key::<Key>()?.map(|key| key.0) {
            seen.add(&key)?;
            let Skipped = map.next_value()?;
        }
        Ok(Skipped)
    }
}

/// A fault that is met while an object is read.
pub(super) enum Fault {
    /// This error.
    Is(crate::error::Error),
    /// The text is not the JSON that it should be, because of this.
    Json(String),
}

impl Fault {
    /// Returns the error, which `make` makes of a sentence.
    pub fn or(self, make: impl FnOnce(String) -> crate::error::Error) -> crate::error::Error {
        match self {
            Fault::Is(error) => error,
            Fault::Json(reason) => make(reason),
        }
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Json(reason)
    }
}

/// Calls `entry` with the key and the text of each value of an object. Fails if a key is there twice, or if `entry` does: the error is
/// then what `entry` returned.
pub(crate) fn each<'a, E: From<String>>(
    text: &'a [u8],
    entry: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
) -> Result<(), E> {
    struct Entries<'e, F, E> {
        entry: F,
        failed: &'e mut Option<E>,
    }

    impl<'de, E, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), E>> Visitor<'de> for Entries<'_, F, E> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            let mut seen = Seen::default();
            while let Some(Key(key)) = map.next_key()? {
                seen.add(&key)?;
                if let Err(error) = (self.entry)(key, map.next_value()?) {
                    *self.failed = Some(error);
                    return Err(A::Error::custom("stopped"));
                }
            }
            Ok(())
        }
    }

    impl<'de, E, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), E>> DeserializeSeed<'de> for Entries<'_, F, E> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_map(self)
        }
    }

    let mut failed = None;
    let parsed = parse_seed(text, Entries { entry, failed: &mut failed });
    match failed {
        Some(error) => Err(error),
        None => Ok(parsed?),
    }
}

/// Returns the texts of these values of an object, as far as it has them. Fails if it, or an object in another of its values, has a
/// key twice.
pub(crate) fn fields<'a, const N: usize>(text: &'a [u8], keys: [&str; N]) -> Result<[Option<&'a str>; N], String> {
    let mut found = [None; N];
    each(text, |key, value| {
        match keys.iter().position(|k| *k == key) {
            Some(i) => found[i] = Some(value.get()),
            None => _ = parse::<Skipped>(value.get().as_bytes())?,
        }
        Ok::<(), String>(())
    })?;
    Ok(found)
}

/// A key of an object: borrowed, unless there are escapes in it.
pub(super) struct Key<'de>(pub Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
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

    /// As Python's `json.loads` reads them, and where no number may be, nothing is read that is no JSON.
    #[test]
    fn what_python_calls_a_number_is_read() {
        let read = |text: &str| parse::<Value>(&of_python(text.as_bytes()));
        for text in [
            "[0.0, Infinity]",
            "[-Infinity]",
            "{\"a\": NaN, \"b\": [-Infinity,NaN ,Infinity]}",
            "\u{feff}{\"a\": 1}",
            r#"["\\\"NaN", NaN]"#,
        ] {
            let blanked = of_python(text.as_bytes());
            assert_eq!(blanked.len(), text.len(), "{text}");
            assert!(read(text).is_ok(), "{text}: {}", String::from_utf8_lossy(&blanked));
        }
        for text in [
            "[-1, -0.5e-7, 1e307, 1e-400, 0e99999999999999999999]",
            &format!("[0.{}1e350, 1e-99999999999999999999]", "0".repeat(100)),
            r#"{"NaN": "Infinity -Infinity 1e400", "a\"NaN": 0}"#,
            r#"["\ud834\udd1e", "\\ud800", "\\\\udc00"]"#,
        ] {
            assert!(matches!(of_python(text.as_bytes()), Cow::Borrowed(_)), "{text}");
            assert!(read(text).is_ok(), "{text}");
        }
        for text in [
            "[nan]",
            "[Inf]",
            "[+Infinity]",
            "[NaN NaN]",
            "[--Infinity]",
            "[1NaN]",
            "[NaN1]",
            "[\u{feff}1]",
            "[01e400]",
            "[1e400.5]",
            "[1e]",
            "[1.e400]",
            "[-]",
            "[1e400 1e400]",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_that_no_double_holds_are_read_as_texts() {
        let digits = "9".repeat(400);
        for number in ["1e400", "-1E+400", "1.7976931348623159e308", "0.1e401", "1e99999999999999999999", &digits] {
            let text = format!("[{number}, 1, {{\"a\": {number}}}]");
            let read = of_python(text.as_bytes());
            let value = parse::<Value>(&read).unwrap();
            assert_eq!(value, serde_json::json!(["", 1, {"a": ""}]), "{number}");
            assert_eq!(no_number(&text.as_bytes()[1..]), Some(number));
        }
    }

    /// As Python reads them: a pair is a character, and what has no partner stands for itself.
    #[test]
    fn half_a_character_is_read_and_is_no_name() {
        for (text, read) in [
            (r#""\ud800""#, "\u{e000}"),
            (r#""\uDFFFx""#, "\u{e7ff}x"),
            (r#""\ud800\ud834\udd1e\udc00""#, "\u{e000}\u{1d11e}\u{e400}"),
            (r#""\\\ud8ab\n""#, "\\\u{e0ab}\n"),
        ] {
            let whole = format!("{{\"a\": [], \"b\": {text}}}");
            let python = of_python(whole.as_bytes());
            let [a, b] = fields(&python, ["a", "b"]).unwrap().map(Option::unwrap);
            assert_eq!(parse::<String>(b.as_bytes()).unwrap(), read, "{text}");
            assert_eq!(check_names(stored(whole.as_bytes(), &python, a)), Ok(()));
            let refused = check_names(stored(whole.as_bytes(), &python, b)).unwrap_err();
            assert!(refused.contains("is half a character") && refused.starts_with("\\u"), "{refused}");
        }
        // Two of them are two keys, and what is no escape stays an error.
        assert!(fields(&of_python(br#"{"\ud800": 1, "\ud801": 2}"#), ["a"]).is_ok());
        for text in [r#""\ud80""#, r#""\ud8zz""#, r#""\ud800"#, r#""\"#] {
            assert!(parse::<Value>(&of_python(text.as_bytes())).is_err(), "{text}");
        }
        for text in [r#""\ud834\udd1e""#, r#""\ue000""#, r#""\\ud800""#, "[\"\", 1]", "\"\\"] {
            assert_eq!(check_names(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
        for text in [
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"{"k": 1, "x": {"b": 0, "c": [{"a": 1, "a": 1}]}}"#,
            r#"{"k": 1, "k": 1}"#,
        ] {
            let error = fields(text.as_bytes(), ["k"]).unwrap_err();
            assert!(error.contains("' twice"), "{text}: {error}");
        }
        let text =
            br#"{"a": {"a": {"a": 1}}, "k": {"b": 1}, "b": [{"c": 1}, {"c": 2, "d": null, "e": [true, 1.5, "t"]}]}"#;
        assert_eq!(fields(text, ["k", "z"]), Ok([Some(r#"{"b": 1}"#), None]));
        assert!(fields(b"[]", ["k"]).is_err_and(|e| e.contains("an object")));
    }
}
