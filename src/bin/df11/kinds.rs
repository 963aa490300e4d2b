//! Folding of names that differ only in numbers into one name: `model.layers.[0-35].mlp.up_proj.weight`.
//!
//! A model of 126 layers has a thousand tensors of nine kinds, and a person wants to see the nine.

use std::collections::HashMap;
use std::hash::Hash;

/// Items of one kind.
pub struct Kind<T> {
    /// The common name.
    pub name: String,
    /// The items, in their order.
    pub members: Vec<T>,
}

/// Groups items whose names differ only in numbers and whose other properties (`key`) are equal. Kinds come in
/// the order of their first members.
pub fn fold<'n, T: Copy, K: Hash + Eq>(
    things: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> &'n str,
    key: impl Fn(T) -> K,
) -> Vec<Kind<T>> {
    let mut order: Vec<Vec<T>> = Vec::new();
    let mut known: HashMap<(String, K), usize> = HashMap::new();
    for thing in things {
        let place = *known.entry((skeleton(name(thing)), key(thing))).or_insert_with(|| {
            order.push(Vec::new());
            order.len() - 1
        });
        order[place].push(thing);
    }
    order
        .into_iter()
        .map(|members| {
            let names: Vec<&str> = members.iter().map(|&m| name(m)).collect();
            Kind { name: common(&names), members }
        })
        .collect()
}

/// Splits a name into texts and numbers, in turn. The first part is a text, which may be empty.
fn parts(name: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut rest, mut digits) = (name, false);
    loop {
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(part);
        if after.is_empty() {
            return parts;
        }
        (rest, digits) = (after, !digits);
    }
}

/// Returns the name with a zero byte for each number. No tensor's name contains a zero byte.
fn skeleton(name: &str) -> String {
    parts(name).iter().enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "\0" }).collect()
}

/// Returns the common name of names of one skeleton: a number that is always the same as it is, numbers without a gap as a
/// range, any others as a star.
fn common(names: &[&str]) -> String {
    let all: Vec<Vec<&str>> = names.iter().map(|name| parts(name)).collect();
    let Some(first) = all.first() else { return String::new() };
    let mut out = String::new();
    for (i, &part) in first.iter().enumerate() {
        if all.iter().all(|parts| parts.get(i) == Some(&part)) {
            out.push_str(part);
            continue;
        }
        let numbers: Option<Vec<u64>> = all.iter().map(|parts| parts.get(i)?.parse().ok()).collect();
        match numbers.and_then(range) {
            Some((low, high)) => out.push_str(&format!("[{low}-{high}]")),
            None => out.push('*'),
        }
    }
    out
}

/// Returns the least and the greatest number, if every number between them occurs.
fn range(mut numbers: Vec<u64>) -> Option<(u64, u64)> {
    numbers.sort_unstable();
    numbers.dedup();
    let (low, high) = (*numbers.first()?, *numbers.last()?);
    ((high - low).checked_add(1) == Some(numbers.len() as u64)).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&'static str]) -> Vec<(String, usize)> {
        let things: Vec<&&'static str> = names.iter().collect();
        fold(things, |n| *n, |_| ()).into_iter().map(|k| (k.name, k.members.len())).collect()
    }

    #[test]
    fn numbers_fold_and_names_do_not() {
        assert_eq!(names(&["lm_head", "model.embed"]), [("lm_head".into(), 1), ("model.embed".into(), 1)]);
        assert_eq!(
            names(&["layers.0", "head", "layers.2", "layers.1"]),
            [("layers.[0-2]".into(), 3), ("head".into(), 1)]
        );
        assert_eq!(names(&["l.0.net.2", "l.5.net.2"]), [("l.*.net.2".into(), 2)]);
        assert_eq!(names(&["l.0.e.3", "l.0.e.4", "l.1.e.3", "l.1.e.4"]), [("l.[0-1].e.[3-4]".into(), 4)]);
        assert_eq!(names(&["7"]), [("7".into(), 1)]);
        assert_eq!(names(&["", "x"]), [("".into(), 1), ("x".into(), 1)]);
        assert_eq!(names(&["a99999999999999999999", "a1"]), [("a*".into(), 2)]);
        assert_eq!(names(&["a0", "a18446744073709551615"]), [("a*".into(), 2)]);
    }

    #[test]
    fn what_differs_otherwise_stays_apart() {
        let kinds = fold(["a1", "a2", "a3"], |n| n, |n| n == "a2");
        let kinds: Vec<_> = kinds.iter().map(|k| (&k.name[..], k.members.len())).collect();
        assert_eq!(kinds, [("a*", 2), ("a2", 1)]);
    }
}
