//! Groups of a model that no published pattern fits, from its table of tensors alone.
//!
//! A *block* is a module whose name ends in a number: `model.layers.3`, `double_blocks.0`, `encoder.block.7`. Models repeat it, and
//! engines decode it as one, so it is one group, as in published models. Which names the modules have does not matter.
//!
//! 1. Members are the bf16 tensors `NAME.weight` of two dimensions and more. Vectors (norms, biases) stay plain, and so do two kinds of
//!    tensors that come to less than a thousandth of the model: small ones, which a group's tables would make larger, and those of
//!    three dimensions and more (convolutions), which the reference's loader cannot give back to their modules.
//! 2. The outermost block of a name is the group. If it has too many weights or members for a group, it is divided at the blocks inside
//!    it (experts); what is beside those is grouped by the largest modules that have no blocks inside.
//! 3. A block that is mostly made of other blocks is looked through if it is no layer: if it has more than half of the model
//!    (`0.model.layers.3`), or if the blocks inside it have more than four matrices (`down_blocks.1.attentions.0.transformer_blocks.2`;
//!    an expert has two or three, a part of a T5 block three or four).
//! 4. A matrix outside of blocks is a group of its own, with an empty list.
//! 5. Groups with the same list whose names differ in numbers only share a pattern, which matches exactly these modules of the
//!    model. So the order of the patterns does not matter, and kinds of layers that alternate get a pattern each.
//!
//! A list has the order that a published pattern with the same attributes has, or else the natural order of the names. Neither depends
//! on how the model is divided into files.

use super::presets::Preset;
use super::{MOST_WEIGHTS, Patterns, SourceTensor, Table};
use crate::error::Result;
use crate::format::{MOST_PATTERNS, MOST_TENSORS, is_number, natural};
use crate::progress::Progress;
use safetensors::Dtype;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

/// A tensor of fewer weights is small: the tables of a group take up to 4.5 KiB.
const SMALL: u64 = 1 << 16;
/// The part of a model's bytes, as a divisor, below which a kind of tensors may stay plain.
const NEGLIGIBLE: u64 = 1000;

/// Returns the patterns for a model; `None` if it has nothing to group. `tied` says that the head is the embedding: it is then not
/// grouped a second time.
pub(super) fn patterns(table: &Table<'_, '_>, tied: bool, progress: &Progress) -> Result<Option<Patterns>> {
    let members = eligible(table, tied);
    progress.check()?;
    let tree = Tree::new(table.tensors, &members);
    progress.check()?;
    let taken = table.like_members.iter().map(|(group, _)| *group).collect();
    let groups = tree.groups(&taken);
    progress.check()?;
    Ok(spell(table, groups))
}

/// Returns the tensors that can be members, in the natural order of their names.
fn eligible(table: &Table<'_, '_>, tied: bool) -> Vec<usize> {
    let tensors = table.tensors;
    let head = table.pair.as_ref().filter(|_| tied).and_then(|pair| pair.head_like_embedding(tensors));
    let is_matrix = |t: &SourceTensor| {
        let bf16 = t.dtype == Dtype::BF16 && t.shape.len() >= 2;
        bf16 && (1..MOST_WEIGHTS).contains(&t.elements) && module_of(t.name).is_some()
    };
    let mut found: Vec<usize> = (0..tensors.len()).filter(|&i| is_matrix(&tensors[i]) && Some(i) != head).collect();
    let total: u64 = tensors.iter().fold(0, |sum, t| sum.saturating_add(t.bf16_bytes()));
    let mut kinds: HashMap<String, u64> = HashMap::new();
    for &i in &found {
        let kind = kinds.entry(template(tensors[i].name).0).or_default();
        *kind = kind.saturating_add(tensors[i].bf16_bytes());
    }
    found.retain(|&i| {
        let tensor = &tensors[i];
        let spared = tensor.elements < SMALL || tensor.shape.len() > 2;
        !(spared && kinds[&template(tensor.name).0] < total / NEGLIGIBLE)
    });
    found.sort_unstable_by(|&a, &b| natural(tensors[a].name, tensors[b].name));
    found
}

/// Returns the module of a weight.
fn module_of(tensor: &str) -> Option<&str> {
    tensor.strip_suffix(".weight").filter(|module| !module.is_empty())
}

/// Returns a name with a zero byte, which no name has, in the place of each number, and the numbers.
fn template(name: &str) -> (String, Vec<&str>) {
    let (mut template, mut numbers) = (String::with_capacity(name.len()), Vec::new());
    for (i, component) in name.split('.').enumerate() {
        template.push_str(if i > 0 { "." } else { "" });
        if is_number(component) {
            template.push('\0');
            numbers.push(component);
        } else {
            template.push_str(component);
        }
    }
    (template, numbers)
}

/// A group that is found: the module, and its list.
struct Found<'n> {
    module: &'n str,
    attributes: Vec<&'n str>,
    weights: u64,
}

/// The modules of a model that have matrices in them.
struct Tree<'n> {
    /// The root is the first. Every module stands before those inside it, which stand in natural order.
    modules: Vec<Module<'n>>,
}

/// A module.
#[derive(Default)]
struct Module<'n> {
    name: &'n str,
    numbered: bool,
    parent: usize,
    inside: Vec<usize>,
    /// The weights of its own matrix.
    own: Option<u64>,
    /// The weights and the number of the matrices inside it.
    weights: u64,
    count: u64,
    /// The outermost blocks inside it: how many, and the weights and the number of their matrices.
    blocks: u64,
    block_weights: u64,
    block_count: u64,
    /// True if a module inside it is numbered.
    has_numbered: bool,
}

impl<'n> Tree<'n> {
    /// Makes the tree of these tensors, which are in natural order.
    fn new(tensors: &[SourceTensor<'n>], members: &[usize]) -> Tree<'n> {
        let mut modules = vec![Module::default()];
        let mut numbers: HashMap<&'n str, usize> = HashMap::new();
        for tensor in members.iter().map(|&i| &tensors[i]) {
            let name = module_of(tensor.name).unwrap_or_default();
            let mut outer = 0;
            let ends = name.match_indices('.').map(|(dot, _)| dot).filter(|&dot| dot > 0).chain([name.len()]);
            for end in ends {
                outer = *numbers.entry(&name[..end]).or_insert_with(|| {
                    let number = modules.len();
                    let last = name[..end].rsplit('.').next().unwrap_or_default();
                    let numbered = is_number(last);
                    modules.push(Module { name: &name[..end], numbered, parent: outer, ..Module::default() });
                    modules[outer].inside.push(number);
                    number
                });
            }
            modules[outer].own = Some(tensor.elements);
        }
        for i in (1..modules.len()).rev() {
            let module = std::mem::take(&mut modules[i]);
            let all = module.weights.saturating_add(module.own.unwrap_or(0));
            let outer = &mut modules[module.parent];
            outer.weights = outer.weights.saturating_add(all);
            outer.count += module.count + u64::from(module.own.is_some());
            outer.has_numbered |= module.numbered || module.has_numbered;
            // A number that has nothing inside it counts the parts of a sequence, and not blocks.
            let inner = match module.numbered && module.count > 0 {
                true => (1, all, module.count),
                false => (module.blocks, module.block_weights, module.block_count),
            };
            outer.blocks += inner.0;
            outer.block_weights = outer.block_weights.saturating_add(inner.1);
            outer.block_count += inner.2;
            modules[i] = module;
        }
        Tree { modules }
    }

    /// Chooses the groups. Names of `taken` cannot be groups: the model has tensors that are called as their members would be.
    fn groups(&self, taken: &HashSet<&str>) -> Vec<Found<'n>> {
        let mut found = Vec::new();
        let mut open = vec![(0, false)];
        // `divided` says that a block around the module is divided.
        while let Some((number, divided)) = open.pop() {
            let module = &self.modules[number];
            let free = number > 0 && !taken.contains(module.name);
            // A matrix with others inside it. The groups of both would be nested.
            if let Some(own) = module.own.filter(|&own| own >= module.weights) {
                if free {
                    found.push(Found { module: module.name, attributes: Vec::new(), weights: own });
                }
                continue;
            }
            let fits = free && module.weights < MOST_WEIGHTS && module.count <= MOST_TENSORS;
            let looked_through = module.numbered && !divided && self.is_no_layer(module);
            let whole = if module.numbered { !looked_through } else { divided && !module.has_numbered };
            if whole && fits {
                let attributes = self.inside(number);
                found.push(Found { module: module.name, attributes, weights: module.weights });
            } else {
                let divided = divided || module.numbered && !looked_through;
                open.extend(module.inside.iter().rev().map(|&inside| (inside, divided)));
            }
        }
        found
    }

    /// Tells whether a block is more than a layer.
    fn is_no_layer(&self, module: &Module<'n>) -> bool {
        let most = module.block_weights.saturating_mul(2) > module.weights;
        let whole_model = module.weights.saturating_mul(2) > self.modules[0].weights;
        most && (whole_model || module.block_count > 4 * module.blocks)
    }

    /// Returns the attribute paths of all matrices inside a module.
    fn inside(&self, number: usize) -> Vec<&'n str> {
        let start = self.modules[number].name.len() + 1;
        let mut paths = Vec::new();
        let mut open: Vec<usize> = self.modules[number].inside.iter().rev().copied().collect();
        while let Some(inside) = open.pop() {
            let module = &self.modules[inside];
            paths.extend(module.own.map(|_| &module.name[start..]));
            open.extend(module.inside.iter().rev());
        }
        paths
    }
}

/// Returns the order in which published patterns list attributes, by the attributes in the order of the alphabet.
fn published_order(sorted: &[&str]) -> Option<&'static [String]> {
    static ORDERS: LazyLock<HashMap<Vec<&'static str>, &'static [String]>> = LazyLock::new(|| {
        let mut orders = HashMap::new();
        for pattern in Preset::all().iter().flat_map(|preset| preset.patterns().entries()) {
            let mut key: Vec<&str> = pattern.attributes().iter().map(String::as_str).collect();
            key.sort_unstable();
            orders.entry(key).or_insert(pattern.attributes());
        }
        orders
    });
    ORDERS.get(sorted).copied()
}

/// Groups of one pattern or several: those with the same list whose names differ in numbers only.
struct Kind<'n> {
    template: String,
    attributes: Vec<&'n str>,
    numbers: BTreeSet<Vec<&'n str>>,
    weights: u64,
}

/// Writes patterns that match these modules and no other ones of the model.
fn spell(table: &Table<'_, '_>, found: Vec<Found<'_>>) -> Option<Patterns> {
    let mut kinds: Vec<Kind> = Vec::new();
    let mut index: HashMap<(String, Vec<&str>), usize> = HashMap::new();
    for Found { module, attributes, weights } in found {
        let (template, numbers) = template(module);
        let kind = *index.entry((template, attributes)).or_insert_with_key(|(template, attributes)| {
            let (template, attributes) = (template.clone(), attributes.clone());
            kinds.push(Kind { template, attributes, numbers: BTreeSet::new(), weights: 0 });
            kinds.len() - 1
        });
        kinds[kind].numbers.insert(numbers);
        kinds[kind].weights = kinds[kind].weights.saturating_add(weights);
    }
    // All modules whose names are of a kind, those too that have nothing to group.
    let mut all: HashMap<&str, BTreeSet<Vec<&str>>> = HashMap::new();
    all.extend(kinds.iter().map(|kind| (&kind.template[..], BTreeSet::new())));
    for module in &table.modules {
        let (template, numbers) = template(module);
        if let Some(all) = all.get_mut(&template[..]) {
            all.insert(numbers);
        }
    }
    let mut entries: Vec<Entry> = Vec::new();
    for kind in &kinds {
        let mut sorted = kind.attributes.clone();
        sorted.sort_unstable();
        let list = published_order(&sorted).map_or_else(|| Value::from(kind.attributes.clone()), Value::from);
        for holes in products(&kind.numbers, &all[&kind.template[..]]) {
            entries.push((fill(&kind.template, &holes), list.clone(), kind.weights));
        }
    }
    entries.sort_by_key(|(.., weights)| Reverse(*weights));
    entries.truncate(MOST_PATTERNS);
    if let Some(patterns) = in_order(entries.clone()) {
        return Some(patterns);
    }
    // Some names cannot be patterns. And together they may be too much for a pattern_dict: then what is worth least is left out.
    entries.retain(|(text, ..)| compile([(text, &Value::Array(Vec::new()))]).is_some());
    let fitting = partition_point(entries.len(), |count| in_order(entries[..count].to_vec()).is_some());
    in_order(entries[..fitting].to_vec())
}

/// Returns the largest count, up to `most`, of which something is true that is true of all smaller ones.
fn partition_point(most: usize, is_true: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (0, most + 1);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if is_true(middle) { good = middle } else { bad = middle }
    }
    good
}

/// A pattern, its list, and the weights that its groups have.
type Entry = (String, Value, u64);

/// Returns patterns in the natural order of their texts.
fn in_order(mut entries: Vec<Entry>) -> Option<Patterns> {
    entries.sort_by(|a, b| natural(&a.0, &b.0));
    compile(entries.iter().map(|(text, list, _)| (text, list)))
}

fn compile<'e>(entries: impl IntoIterator<Item = (&'e String, &'e Value)>) -> Option<Patterns> {
    let dict: Map<String, Value> = entries.into_iter().map(|(text, list)| (text.clone(), list.clone())).collect();
    Patterns::from_value(&Value::Object(dict)).ok()
}

/// The regular expression for each number of a template.
type Holes = Vec<String>;

/// The numbers in the names of some modules.
type Numbers<'s> = BTreeSet<Vec<&'s str>>;

/// Returns regular expressions for the numbers of these modules that match none of the others of `all`. Each has one for each number of
/// a name, so it matches every combination: there are several where not all combinations are wanted.
fn products(wanted: &Numbers, all: &Numbers) -> Vec<Holes> {
    /// A set of modules to be matched, of all that the holes so far match.
    struct Open<'s> {
        holes: Holes,
        wanted: Numbers<'s>,
        all: Numbers<'s>,
    }
    let mut done = Vec::new();
    let mut open = vec![Open { holes: Vec::new(), wanted: wanted.clone(), all: all.clone() }];
    while let Some(Open { holes, wanted, all }) = open.pop() {
        let count = wanted.first().map_or(0, Vec::len);
        if wanted == all {
            let mut holes = holes;
            holes.resize(holes.len() + count, r"\d+".into());
            done.push(holes);
            continue;
        }
        // By the first number: what is wanted of the others, and which there are.
        let mut tails: BTreeMap<&str, (Numbers, Numbers)> = BTreeMap::new();
        for (set, is_wanted) in [(&wanted, true), (&all, false)] {
            for numbers in set {
                let Some((first, rest)) = numbers.split_first() else { continue };
                let tail = tails.entry(first).or_default();
                (if is_wanted { &mut tail.0 } else { &mut tail.1 }).insert(rest.to_vec());
            }
        }
        let mut alike: BTreeMap<_, (BTreeSet<&str>, Numbers)> = BTreeMap::new();
        for (first, (wanted, all)) in tails {
            if !wanted.is_empty() {
                // Those that have all of theirs can share `\d+`.
                let key = if wanted == all { BTreeSet::new() } else { wanted.clone() };
                let (firsts, union) = alike.entry((wanted == all, key)).or_default();
                firsts.insert(first);
                union.extend(all);
            }
        }
        for ((complete, wanted), (firsts, union)) in alike.into_iter().rev() {
            let mut holes = holes.clone();
            holes.push(number_set(&firsts));
            let wanted = if complete { union.clone() } else { wanted };
            open.push(Open { holes, wanted, all: union });
        }
    }
    done
}

/// Returns a regular expression for these numbers, such as `(?:[0-24]|1[0-9])`.
fn number_set(numbers: &BTreeSet<&str>) -> String {
    // The last digits by what stands before them, and then the beginnings by their last digits.
    let mut lasts: BTreeMap<(usize, &str), BTreeSet<u8>> = BTreeMap::new();
    for number in numbers {
        let (start, last) = number.split_at(number.len() - 1);
        lasts.entry((start.len(), start)).or_default().extend(last.bytes());
    }
    let mut starts: Vec<(usize, BTreeSet<&str>, BTreeSet<u8>)> = Vec::new();
    for ((len, start), digits) in lasts {
        match starts.iter_mut().find(|(l, _, d)| *l == len && *d == digits) {
            Some((_, alike, _)) => drop(alike.insert(start)),
            None => starts.push((len, BTreeSet::from([start]), digits)),
        }
    }
    let single = starts.len() == 1;
    let parts = starts.into_iter().map(|(len, starts, digits)| {
        let start = match len {
            0 => String::new(),
            // They have a digit less each time. Numbers as long as nobody counts would go deep.
            1..=9 => number_set(&starts),
            _ => format!("(?:{})", starts.into_iter().collect::<Vec<_>>().join("|")),
        };
        start + &class(&digits)
    });
    let parts: Vec<String> = parts.collect();
    if single { parts.concat() } else { format!("(?:{})", parts.join("|")) }
}

/// Returns a character class of digits.
fn class(digits: &BTreeSet<u8>) -> String {
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for &digit in digits {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == digit => *last = digit,
            _ => runs.push((digit, digit)),
        }
    }
    let spell = |&(first, last): &(u8, u8)| {
        let (first, last) = (char::from(first), char::from(last));
        match last as u32 - first as u32 {
            0 => first.to_string(),
            1 => format!("{first}{last}"),
            _ => format!("{first}-{last}"),
        }
    };
    let runs_text: String = runs.iter().map(spell).collect();
    if digits.len() == 1 { runs_text } else { format!("[{runs_text}]") }
}

/// Returns the pattern of a template: its texts as they are, and these expressions in the places of its numbers.
fn fill(template: &str, holes: &Holes) -> String {
    let mut holes = holes.iter();
    let mut pattern = String::with_capacity(template.len() + 16);
    for c in template.chars() {
        match c {
            '\0' => pattern.push_str(holes.next().map_or("", |hole| hole)),
            // Both Python and this library take these escaped, and no other character needs it.
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                pattern.extend(['\\', c]);
            }
            _ => pattern.push(c),
        }
    }
    pattern
}
