//! What a PTX text holds: kernels and variables.

use super::ir::{Code, Space};
use super::lower;
use super::syntax;
use super::tree::{Initial, Text, VariableText, size_of_type};
use super::warp::Warp;
use crate::memory::{Access, Kind, Memory};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The reason why a text cannot be read. `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line.
    pub line: u32,
    /// The fault in words; an instruction that is not supported is named.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

/// A variable of a module in global or constant memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its address; good for as long as the module or one of its functions lives.
    pub address: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// It is in constant memory.
    pub constant: bool,
}

/// A loaded PTX text. Cheap to copy; copies share the module's variables.
#[derive(Clone)]
pub struct Module {
    functions: Arc<BTreeMap<String, Function>>,
    variables: Arc<BTreeMap<String, Variable>>,
}

impl Module {
    /// Reads a PTX text. What the interpreter does not know is an error, never skipped.
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        let source: Arc<str> = text.into();
        let parsed = syntax::parse(text)?;
        let memory = Arc::new(Memory::new());
        let variables = variables(&parsed, &memory)?;
        let addresses: HashMap<&str, (Space, u64)> = variables
            .iter()
            .map(|(name, variable)| {
                (*name, (if variable.constant { Space::Const } else { Space::Global }, variable.address))
            })
            .collect();
        let mut functions = BTreeMap::new();
        for function in parsed.functions.iter().filter(|function| function.entry) {
            let lowered = lower::lower(&parsed, function, &addresses)?;
            let limit = function.limits.iter().find(|(name, _)| matches!(*name, ".maxntid" | ".reqntid"));
            let inner = Inner {
                name: function.name.into(),
                source: source.clone(),
                registers: (lowered.code.count32 + lowered.code.count64 + lowered.code.count_pred) as u32,
                code: lowered.code,
                parameters: lowered.parameters,
                parameter_bytes: lowered.parameter_bytes,
                static_shared_bytes: lowered.shared_bytes,
                dynamic_base: lowered.dynamic_base,
                local_bytes: lowered.local_bytes,
                max_threads: limit.map(|(_, sizes)| sizes.iter().product::<u64>().min(1024) as u32),
                variables: memory.clone(),
                idle: Mutex::default(),
            };
            functions.insert(function.name.into(), Function { inner: Arc::new(inner) });
        }
        let variables = variables.into_iter().map(|(name, variable)| (name.into(), variable)).collect();
        Ok(Module { functions: Arc::new(functions), variables: Arc::new(variables) })
    }

    /// Returns the kernel of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// Returns all kernels, by name.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// Returns the variable of that name in global or constant memory.
    pub fn variable(&self, name: &str) -> Option<Variable> {
        self.variables.get(name).copied()
    }
}

/// A kernel. Cheap to copy, and independent of the module's life.
#[derive(Clone)]
pub struct Function {
    pub(super) inner: Arc<Inner>,
}

/// The state that the copies of a [`Function`] share.
pub(super) struct Inner {
    pub(super) name: String,
    source: Arc<str>,
    pub(super) code: Code,
    parameters: Vec<(u32, u32)>,
    parameter_bytes: u32,
    pub(super) static_shared_bytes: u32,
    pub(super) dynamic_base: u32,
    pub(super) local_bytes: u32,
    registers: u32,
    max_threads: Option<u32>,
    /// The module's variables, which live as long as one of its functions.
    pub(super) variables: Arc<Memory>,
    /// Warps that no launch uses: their registers are megabytes, which small launches need not make anew.
    pub(super) idle: Mutex<Vec<Vec<Warp>>>,
}

impl Inner {
    /// Returns a line of the text, from 1.
    pub(super) fn line(&self, line: u32) -> &str {
        self.source.lines().nth((line as usize).wrapping_sub(1)).unwrap_or_default().trim()
    }
}

impl Function {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns offset and size of each parameter in the launch's parameter bytes: natural alignment, in order.
    pub fn parameters(&self) -> &[(u32, u32)] {
        &self.inner.parameters
    }

    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> u32 {
        self.inner.parameter_bytes
    }

    /// Bytes of shared memory that it declares with a size.
    pub fn static_shared_bytes(&self) -> u32 {
        self.inner.static_shared_bytes
    }

    /// Bytes of local memory of a thread.
    pub fn local_bytes(&self) -> u32 {
        self.inner.local_bytes
    }

    /// Returns the number of virtual registers that it declares; a real compiler uses another number.
    pub fn registers(&self) -> u32 {
        self.inner.registers
    }

    /// Returns the most threads of a block that `.maxntid` or `.reqntid` allow.
    pub fn max_threads(&self) -> Option<u32> {
        self.inner.max_threads
    }
}

/// Places the module's variables in memory of their own and fills them.
fn variables<'a>(text: &Text<'a>, memory: &Memory) -> Result<Vec<(&'a str, Variable)>, ParseError> {
    let mut all: Vec<(&str, Variable, &VariableText)> = Vec::new();
    for variable in text.variables.iter().filter(|variable| variable.space != ".shared") {
        let error = |what: &str| ParseError { line: variable.line, what: format!("{}: {what}", variable.name) };
        if variable.external {
            return Err(error("a variable of another module is not supported"));
        }
        let (bytes, align) = variable.size()?;
        let size = u64::from(size_of_type(variable.ty).unwrap_or(1));
        // `[]` is as long as its initialiser.
        let bytes = bytes.max(size * variable.initial.len() as u64);
        if u64::from(align) > crate::memory::GUARD {
            return Err(error("this alignment is not supported"));
        }
        let address = memory.alloc(bytes, Kind::ModuleGlobal, 0).ok_or_else(|| error("no memory"))?;
        all.push((variable.name, Variable { address, bytes, constant: variable.space == ".const" }, variable));
    }
    let addresses: HashMap<&str, u64> = all.iter().map(|(name, variable, _)| (*name, variable.address)).collect();
    for (name, variable, text) in &all {
        let error = |what: String| ParseError { line: text.line, what: format!("{name}: {what}") };
        let size = u64::from(size_of_type(text.ty).unwrap_or(1));
        let mut bytes = Vec::new();
        for value in &text.initial {
            let value = match value {
                Initial::Value(value) => *value,
                Initial::Address(other, offset) => addresses
                    .get(other)
                    .map(|address| address + offset)
                    .ok_or_else(|| error(format!("{other} has no address")))?,
            };
            bytes.extend_from_slice(&value.to_le_bytes()[..size as usize]);
        }
        bytes.resize(variable.bytes as usize, 0);
        let at =
            memory.check(variable.address, variable.bytes, 1, Access::Write).map_err(|_| error("no memory".into()))?;
        // SAFETY: the bytes were allocated above and nobody else knows of them yet.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
    Ok(all.into_iter().map(|(name, variable, _)| (name, variable)).collect())
}
