//! Parts of the paths of modules.

use super::MOST_BLOCKS;
use crate::format::names::is_number;

/// Returns the module that holds another one of the path `leaf`.
pub(super) fn scope_of<'m>(module: &'m str, leaf: &str) -> Option<&'m str> {
    module.strip_suffix(leaf)?.strip_suffix('.')
}

/// Returns the paths up to each number, which is that of a block; the outermost first, and "" if there are none.
pub(super) fn blocks_around(path: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    let numbered = path.split('.').filter_map(move |part| {
        at += part.len() + 1;
        is_number(part).then(|| &path[..at - 1])
    });
    let numbered = numbered.take(MOST_BLOCKS);
    let none = !path.split('.').any(is_number);
    numbered.chain(none.then_some(""))
}

/// Returns the module that holds the list of blocks in which a path is: what precedes the name before its first number.
pub(super) fn tower_of(path: &str) -> Option<&str> {
    let mut at = 0;
    for part in path.split('.') {
        if is_number(part) {
            let list = path[..at].strip_suffix('.')?;
            return Some(list.rsplit_once('.').map_or("", |(tower, _)| tower));
        }
        at += part.len() + 1;
    }
    None
}
