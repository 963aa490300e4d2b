//! Sizes as people type them: `512M`, `5GB`, `79.6GiB`.

/// Splits a size into its number and the bytes of its unit: MB and its like are powers of 1000; MiB and M are powers of 1024.
pub fn split(text: &str) -> Result<(&str, u64), String> {
    const LETTERS: &str = "kmgt";
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let unknown =
        || format!("'{unit}' is no unit: MB, GB and TB are powers of 1000, MiB or M, GiB or G and so on of 1024");
    let lower = unit.to_ascii_lowercase();
    let bytes = match (lower.chars().next().and_then(|letter| LETTERS.find(letter)), lower.get(1..)) {
        (Some(power), Some("b")) => 1000u64.pow(power as u32 + 1),
        (Some(power), Some("" | "ib")) => 1024u64.pow(power as u32 + 1),
        _ if matches!(&lower[..], "" | "b") => 1,
        _ => return Err(unknown()),
    };
    Ok((number.trim(), bytes))
}

/// Parses a size without a fraction, of at most 2^64 bytes. `example` is one.
pub fn whole(text: &str, example: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let number: u64 = number.parse().map_err(|_| format!("write it as a number with a unit, such as {example}"))?;
    number.checked_mul(unit).ok_or_else(|| "that is more than 2^64 bytes".into())
}
