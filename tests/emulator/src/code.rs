//! Modules and kernels of either kind: a PTX text, or a cubin.

use crate::exec::{Counts, Fault, Launch};
use crate::ptx::{self, Variable};
use crate::sass;

/// A loaded module.
pub(crate) enum Module {
    Ptx(ptx::Module),
    Machine(sass::Module),
}

/// A kernel. Cheap to copy, and independent of the module's life.
#[derive(Clone)]
pub(crate) enum Function {
    Ptx(ptx::Function),
    Machine(sass::Function),
}

impl Module {
    /// Returns the kernel of that name.
    pub(crate) fn function(&self, name: &str) -> Option<Function> {
        match self {
            Module::Ptx(module) => module.function(name).cloned().map(Function::Ptx),
            Module::Machine(module) => module.function(name).cloned().map(Function::Machine),
        }
    }

    /// Returns the number of kernels.
    pub(crate) fn function_count(&self) -> usize {
        match self {
            Module::Ptx(module) => module.functions().count(),
            Module::Machine(module) => module.functions().count(),
        }
    }

    /// Returns the variable of that name in global or constant memory.
    pub(crate) fn variable(&self, name: &str) -> Option<Variable> {
        match self {
            Module::Ptx(module) => module.variable(name),
            // Cubins with variables are refused.
            Module::Machine(_) => None,
        }
    }
}

/// Asks the kernel, whichever kind it is of.
macro_rules! ask {
    ($($(#[$doc:meta])* $name:ident -> $result:ty;)*) => {
        impl Function {
            $($(#[$doc])* pub(crate) fn $name(&self) -> $result {
                match self {
                    Function::Ptx(function) => function.$name(),
                    Function::Machine(function) => function.$name(),
                }
            })*
        }
    };
}

ask! {
    /// Returns its name.
    name -> &str;
    /// Returns offset and size of each parameter in the launch's parameter bytes.
    parameters -> &[(u32, u32)];
    /// Bytes of all parameters.
    parameter_bytes -> u32;
    /// Bytes of shared memory that it declares with a size.
    static_shared_bytes -> u32;
    /// Bytes of local memory of a thread.
    local_bytes -> u32;
    /// Returns the most threads of a block, if it says so.
    max_threads -> Option<u32>;
}

impl Function {
    /// Returns the number of registers of a thread. Only a compiler knows it: for PTX, whose registers are virtual, it is
    /// never more than allow 1,024 threads.
    pub(crate) fn registers(&self) -> u32 {
        match self {
            Function::Ptx(function) => function.registers().min(64),
            Function::Machine(function) => function.registers(),
        }
    }
}

impl Launch<'_, Function> {
    /// Runs every block to its end, and returns what was done, or the first fault by the blocks' order.
    pub(crate) fn run(&self) -> Result<Counts, Fault> {
        let Launch { grid, block, shared_bytes, params, memory, .. } = *self;
        let options = self.options.clone();
        match self.function {
            Function::Ptx(function) => {
                ptx::Launch { function, grid, block, shared_bytes, params, memory, options }.run()
            }
            Function::Machine(function) => {
                sass::Launch { function, grid, block, shared_bytes, params, memory, options }.run()
            }
        }
    }
}
