//! Names of groups and tensors: which tensors are members of a group, what the tensors of a group are called, how names sort.

use super::config::Config;
use super::group::MEMBERS;
use std::cmp::Ordering;

/// The most bytes that the names of all tensors in groups may take. A model of 405 billion weights has some 50,000 bytes of
/// them.
pub(super) const MOST_NAME_BYTES: usize = 4 << 20;

/// Refuses a name that cannot be given to C as a text that a zero byte ends, or that is only there to use up memory: a group's
/// name is part of the name of each of its tensors.
pub(super) fn check_name(name: &str) -> std::result::Result<(), String> {
    const MOST: usize = 1024;
    if name.contains('\0') {
        return Err("a tensor's name contains a zero byte".into());
    }
    if name.len() > MOST {
        return Err(format!("a tensor's name has {} bytes: {MOST} are the most", name.len()));
    }
    Ok(())
}

/// Splits the name of a group's member into the group's name and the member's number.
pub(crate) fn member_of(name: &str) -> Option<(&str, usize)> {
    let (base, last) = name.rsplit_once('.')?;
    MEMBERS.iter().position(|m| *m == last).map(|member| (base, member))
}

/// Names the `count` tensors of a group. The reference lets a matched module that has a weight of its own ignore the
/// pattern's list, so a single tensor is NAME.weight unless the list has exactly one entry. Without a config only the number
/// of tensors is known: a group of one is then taken for such a module, and the tensors of a larger one are numbered.
///
/// The error is the reason.
pub(super) fn names_of(group: &str, count: usize, config: Option<&Config>) -> std::result::Result<Vec<String>, String> {
    match config.and_then(|c| c.attributes(group)) {
        Some(list) if list.len() == count => Ok(list.iter().map(|a| format!("{group}.{a}.weight")).collect()),
        _ if count == 1 => Ok(vec![format!("{group}.weight")]),
        Some(list) => Err(format!("the config names {} tensors for this group, and it has {count}", list.len())),
        None => {
            log::warn!(
                "no config names the {count} tensors of group '{group}': they are called {group}.part_0 and so on"
            );
            Ok((0..count).map(|i| format!("{group}.part_{i}")).collect())
        }
    }
}

/// Tells whether a part of a name is a number, as those of blocks are.
pub(crate) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit())
}

/// Tells whether a dotted name ends in these parts.
pub(crate) fn ends_with(name: &str, parts: &str) -> bool {
    name.strip_suffix(parts).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Compares names with the numbers in them taken as numbers; names that only differ in leading zeros by their bytes.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    // What both begin with says nothing, except the digits at its end.
    let same = x.iter().zip(y).take_while(|(p, q)| p == q).count();
    let same = x[..same].iter().rposition(|c| !c.is_ascii_digit()).map_or(0, |last| last + 1);
    (x, y) = (&x[same..], &y[same..]);
    while let (Some(&p), Some(&q)) = (x.first(), y.first()) {
        let (n, m) = (digits(x), digits(y));
        if n > 0 && m > 0 {
            let strip = |s: &[u8]| s.iter().position(|&c| c != b'0').unwrap_or(s.len());
            let (u, v) = (&x[..n], &y[..m]);
            let (u, v) = (&u[strip(u)..], &v[strip(v)..]);
            match u.len().cmp(&v.len()).then(u.cmp(v)) {
                Ordering::Equal => (x, y) = (&x[n..], &y[m..]),
                unequal => return unequal,
            }
        } else if p != q {
            return p.cmp(&q);
        } else {
            (x, y) = (&x[1..], &y[1..]);
        }
    }
    x.len().cmp(&y.len()).then(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["a.10.b", "a.2.b", "a.2", "a.02", "lm_head", "a.x", "a.18446744073709551616.b", "a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "a.02", "a.2", "a.2.b", "a.10.b", "a.18446744073709551616.b", "a.x", "lm_head"]);
    }
}
