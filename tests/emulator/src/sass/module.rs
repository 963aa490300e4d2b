//! What a cubin holds: kernels.

use super::decode::{Context, decode};
use super::elf::{self, Kernel};
use super::ir::Ins;
use super::listing;
use super::warp::Warp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The reason why a cubin or its listing cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line in the listing, from 1; 0 where the cubin itself is to blame.
    pub line: u32,
    /// The fault in words; an instruction that is not supported is named.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine code line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

/// A loaded cubin. Cheap to copy.
#[derive(Clone)]
pub struct Module {
    functions: Arc<BTreeMap<String, Function>>,
}

impl Module {
    /// Reads a cubin beside what `nvdisasm` printed of it. What the interpreter does not know is an error, never skipped.
    pub fn parse(cubin: &[u8], listing: &str) -> Result<Module, ParseError> {
        let cubin = elf::parse(cubin).map_err(|what| ParseError { line: 0, what })?;
        Module::read(cubin, listing)
    }

    /// Reads the code of kernels that are described.
    pub(super) fn read(elf::Cubin { capability, kernels }: elf::Cubin, listing: &str) -> Result<Module, ParseError> {
        let whole = |what| ParseError { line: 0, what };
        let sections = listing::parse(listing)?;
        let mut functions = BTreeMap::new();
        for (name, kernel) in kernels {
            let Some(section) = sections.get(name.as_str()) else {
                return Err(whole(format!("the listing has no code of {name}")));
            };
            if section.instructions.iter().enumerate().any(|(at, text)| text.at as usize != 16 * at) {
                return Err(whole(format!("the listing of {name} has gaps")));
            }
            let context = Context { kernel: &name, section, registers: kernel.registers as u16 };
            let code = section.instructions.iter().map(|text| decode(&context, text)).collect::<Result<_, _>>()?;
            let texts = section.instructions.iter().map(|text| format!("/*{:04x}*/ {}", text.at, text.whole)).collect();
            let layout = Layout::of(capability);
            let reserved = layout.reserved_shared;
            if kernel.parameter_base != layout.parameters || kernel.shared < reserved {
                return Err(whole(format!("{name} is laid out in another way than cubins for sm_{capability} are")));
            }
            let inner = Inner { name: name.clone(), kernel, layout, code, texts, idle: Mutex::default() };
            functions.insert(name, Function { inner: Arc::new(inner) });
        }
        Ok(Module { functions: Arc::new(functions) })
    }

    /// Returns the kernel of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// Returns all kernels, by name.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }
}

/// What the driver puts where in constant bank 0, and the shared memory that it keeps, by compute capability. (Seen in what
/// compilers make of `ntid`, `nctaid`, stacks and addresses.)
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) block_size: u32,
    pub(super) grid_size: u32,
    pub(super) stack: u32,
    /// The descriptor of global memory, where there is one.
    pub(super) descriptor: Option<u32>,
    pub(super) parameters: u32,
    /// Bytes at the beginning of shared memory that are the system's.
    pub(super) reserved_shared: u32,
}

impl Layout {
    fn of(capability: u32) -> Layout {
        let early = Layout {
            block_size: 0,
            grid_size: 0xc,
            stack: 0x28,
            descriptor: None,
            parameters: 0x160,
            reserved_shared: 0,
        };
        match capability {
            ..80 => early,
            80..90 => Layout { descriptor: Some(0x118), ..early },
            90..100 => Layout { descriptor: Some(0x208), parameters: 0x210, reserved_shared: 0x400, ..early },
            _ => Layout {
                block_size: 0x360,
                grid_size: 0x370,
                stack: 0x37c,
                descriptor: Some(0x358),
                parameters: 0x380,
                reserved_shared: 0x400,
            },
        }
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
    pub(super) kernel: Kernel,
    pub(super) layout: Layout,
    pub(super) code: Vec<Ins>,
    /// What the listing says of each instruction.
    pub(super) texts: Vec<String>,
    /// Warps that no launch uses.
    pub(super) idle: Mutex<Vec<Vec<Warp>>>,
}

impl Function {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns offset and size of each parameter in the launch's parameter bytes.
    pub fn parameters(&self) -> &[(u32, u32)] {
        &self.inner.kernel.parameters
    }

    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> u32 {
        self.parameters().iter().map(|(offset, size)| offset + size).max().unwrap_or(0)
    }

    /// Bytes of shared memory that it declares with a size.
    pub fn static_shared_bytes(&self) -> u32 {
        self.inner.kernel.shared - self.inner.layout.reserved_shared
    }

    /// Bytes of local memory of a thread.
    pub fn local_bytes(&self) -> u32 {
        self.inner.kernel.stack
    }

    /// Returns the number of registers of a thread.
    pub fn registers(&self) -> u32 {
        self.inner.kernel.registers
    }

    /// Returns the most threads of a block that the compiler was told.
    pub fn max_threads(&self) -> Option<u32> {
        self.inner.kernel.max_threads
    }
}
