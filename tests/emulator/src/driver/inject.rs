//! Injected failures: rules that make an entry point return a code without doing anything.
//!
//! A rule is `NAME@N=CODE` (the Nth call from now on, counted from 1, fails), `NAME@N+=CODE` (that one and every later)
//! or `NAME=CODE` (every call). NAME is an entry point as exported, or `*` for any: then N counts all calls together.

use std::collections::HashMap;

/// One rule, with the calls that it has still to let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    name: String,
    skip: u64,
    lasting: bool,
    code: i32,
    spent: bool,
}

/// The rules in force, and how often each entry point failed by one.
#[derive(Default)]
pub struct Injection {
    rules: Vec<Rule>,
    fired: HashMap<String, u64>,
}

impl Injection {
    /// Adds the rules of a comma-separated list; all of them or, with a sentence for people, none.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let rules: Result<Vec<Rule>, String> = parts.map(parse).collect();
        self.rules.extend(rules?);
        Ok(())
    }

    /// Forgets all rules; what fired stays counted.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// Returns how often calls of `name` (or, for `*`, of anything) were made to fail.
    pub fn fired(&self, name: &str) -> u64 {
        if name == "*" { self.fired.values().sum() } else { self.fired.get(name).copied().unwrap_or(0) }
    }

    /// Takes note of a call, and says what it must return, if a rule speaks of it. Every rule counts every call.
    pub fn call(&mut self, name: &str) -> Option<i32> {
        let mut result = None;
        for rule in &mut self.rules {
            if rule.spent || (rule.name != "*" && rule.name != name) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.spent = !rule.lasting;
            result = result.or(Some(rule.code));
        }
        if result.is_some() {
            *self.fired.entry(name.into()).or_default() += 1;
        }
        result
    }
}

fn parse(text: &str) -> Result<Rule, String> {
    let wrong = || format!("`{text}` is no rule: NAME=CODE, NAME@N=CODE or NAME@N+=CODE");
    let (left, code) = text.split_once('=').ok_or_else(wrong)?;
    let code: i32 = code.trim().parse().map_err(|_| wrong())?;
    let (name, nth, lasting) = match left.split_once('@') {
        None => (left, 1, true),
        Some((name, nth)) => match nth.strip_suffix('+') {
            Some(nth) => (name, nth.parse().map_err(|_| wrong())?, true),
            None => (name, nth.parse().map_err(|_| wrong())?, false),
        },
    };
    if name.is_empty() || nth == 0 {
        return Err(wrong());
    }
    Ok(Rule { name: name.into(), skip: nth - 1, lasting, code, spent: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_fire_where_they_say() {
        let mut rules = Injection::default();
        rules.add("a@2=7, b@2+=913,c=0").unwrap();
        let mut calls = |name| (0..4).map(|_| rules.call(name)).collect::<Vec<_>>();
        assert_eq!(calls("a"), [None, Some(7), None, None]);
        assert_eq!(calls("b"), [None, Some(913), Some(913), Some(913)]);
        assert_eq!(calls("c"), [Some(0); 4]);
        assert_eq!(calls("d"), [None; 4]);
        assert_eq!((rules.fired("b"), rules.fired("*"), rules.fired("d")), (3, 8, 0));
        rules.clear();
        assert_eq!(rules.call("c"), None);
    }

    #[test]
    fn a_star_counts_all_calls_together() {
        let mut rules = Injection::default();
        rules.add("*@3=2").unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|name| rules.call(name)), [None, None, Some(2), None]);
    }

    #[test]
    fn nonsense_is_refused_as_a_whole() {
        let mut rules = Injection::default();
        for text in ["a", "a=", "a@=1", "a@0=1", "a@x=1", "@1=2", "good=1,a@+=1"] {
            assert!(rules.add(text).is_err(), "{text}");
        }
        assert_eq!(rules.call("good"), None);
    }
}
