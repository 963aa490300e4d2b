//! PTX text as tokens. It knows nothing of statements.

use super::ParseError;

/// One token and its line, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) line: u32,
    pub(super) kind: Kind<'a>,
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind<'a> {
    /// A name, a directive, an opcode with its modifiers, a register: letters, digits and `_ $ % .`.
    Word(&'a str),
    /// An integer, as the 64 bits that it stands for.
    Int(u64),
    /// A float written by its bits (`0f…`, `0d…`) or in decimal: its value's bits and whether they are 64.
    Float(u64, bool),
    /// A text in quotes, which are not part of it.
    Text(&'a str),
    /// Anything else is one character.
    Mark(u8),
}

/// Returns all tokens of a text, without comments and white space.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 4);
    let (mut at, mut line) = (0, 1);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.');
    while at < bytes.len() {
        let rest = &bytes[at..];
        let kind = match rest[0] {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            byte if byte.is_ascii_whitespace() || byte == 0 => {
                at += 1;
                continue;
            }
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = text[at..].find("*/").ok_or_else(|| error(line, "a comment has no end"))? + 2;
                line += rest[..end].iter().filter(|&&byte| byte == b'\n').count() as u32;
                at += end;
                continue;
            }
            b'"' => {
                let end = text[at + 1..].find('"').ok_or_else(|| error(line, "a text has no end"))?;
                let inner = &text[at + 1..at + 1 + end];
                at += end + 2;
                tokens.push(Token { line, kind: Kind::Text(inner) });
                line += inner.bytes().filter(|&byte| byte == b'\n').count() as u32;
                continue;
            }
            byte if is_word(byte) => {
                let mut end = 0;
                while end < rest.len() {
                    match rest[end] {
                        byte if is_word(byte) => end += 1,
                        // `ld.global.L1::no_allocate`, `cta::x`: never a label.
                        b':' if rest[end..].starts_with(b"::") => end += 2,
                        _ => break,
                    }
                }
                let word = &text[at..at + end];
                at += end;
                if byte.is_ascii_digit() {
                    number(word).ok_or_else(|| error(line, &format!("{word} is no number")))?
                } else {
                    Kind::Word(word)
                }
            }
            mark if mark.is_ascii() => {
                at += 1;
                Kind::Mark(mark)
            }
            _ => return Err(error(line, "a character that is not ASCII")),
        };
        tokens.push(Token { line, kind });
    }
    Ok(tokens)
}

/// Reads a number as PTX writes it.
fn number(word: &str) -> Option<Kind<'_>> {
    if let Some(bits) = word.strip_prefix("0f").or_else(|| word.strip_prefix("0F")) {
        return Some(Kind::Float(u32::from_str_radix(bits, 16).ok()?.into(), false));
    }
    if let Some(bits) = word.strip_prefix("0d").or_else(|| word.strip_prefix("0D")) {
        return Some(Kind::Float(u64::from_str_radix(bits, 16).ok()?, true));
    }
    if word.contains('.') {
        return Some(Kind::Float(word.parse::<f64>().ok()?.to_bits(), true));
    }
    let word = word.strip_suffix(['u', 'U']).unwrap_or(word);
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&word[2..], 16),
        [b'0', b'b' | b'B', ..] => (&word[2..], 2),
        [b'0', _, ..] => (&word[1..], 8),
        _ => (word, 10),
    };
    Some(Kind::Int(u64::from_str_radix(digits, radix).ok()?))
}

/// Returns an error at that line.
pub(super) fn error(line: u32, what: &str) -> ParseError {
    ParseError { line, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind<'_>> {
        tokens(text).unwrap().iter().map(|token| token.kind).collect()
    }

    #[test]
    fn words_numbers_marks_and_comments() {
        use Kind::*;
        assert_eq!(
            kinds("@!%p1 ld.global.v2.u32 {%r1}, [%rd4+-16]; // x\n/* y\n */ $L_1:"),
            [
                Mark(b'@'),
                Mark(b'!'),
                Word("%p1"),
                Word("ld.global.v2.u32"),
                Mark(b'{'),
                Word("%r1"),
                Mark(b'}'),
                Mark(b','),
                Mark(b'['),
                Word("%rd4"),
                Mark(b'+'),
                Mark(b'-'),
                Int(16),
                Mark(b']'),
                Mark(b';'),
                Word("$L_1"),
                Mark(b':'),
            ]
        );
        assert_eq!(
            kinds("0x1F 017 0b101 42U 0 0f3F800000 0d3FF0000000000000 18446744073709551615"),
            [
                Int(31),
                Int(15),
                Int(5),
                Int(42),
                Int(0),
                Float(0x3f80_0000, false),
                Float(0x3ff0_0000_0000_0000, true),
                Int(u64::MAX),
            ]
        );
        assert_eq!(tokens("a\n/*\n*/ b").unwrap()[1].line, 3);
        for (text, line) in [("\n/* x", 2), ("12z4", 1), ("\n\n\"x", 3), ("a\nä", 2)] {
            assert_eq!(tokens(text).unwrap_err().line, line, "{text}");
        }
    }
}
