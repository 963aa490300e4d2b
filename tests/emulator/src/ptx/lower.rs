//! From the grammar's functions to compact code: names become slots, labels become indices, calls are expanded in place.
//!
//! What each opcode becomes is said in `opcodes`. A kernel is lowered twice, because dynamic shared memory begins after all
//! static variables, and those may be declared as late as the last function that it calls.

use super::ParseError;
use super::ir::{CONST, Code, Ins, Lanes, NONE, Op, Slot, Space, Special, Ty, WIDE, window};
use super::lex::error;
use super::tree::{FunctionText, InstructionText, Operand, Statement, Text, VariableText, size_of_type};
use std::collections::HashMap;

/// Drivers before 12.1, and devices before sm_70, take no more.
const MOST_PARAMETER_BYTES: u64 = 4096;

/// The meaning of a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Symbol {
    /// A register of that many bits.
    Register(Slot, u32),
    Predicate(Slot),
    /// An address in its space.
    Memory(Space, u64),
}

/// The result of lowering one kernel.
pub(super) struct Lowered {
    pub(super) code: Code,
    /// Offset and bytes of every parameter.
    pub(super) parameters: Vec<(u32, u32)>,
    pub(super) parameter_bytes: u32,
    pub(super) shared_bytes: u32,
    /// The offset at which dynamic shared memory begins.
    pub(super) dynamic_base: u32,
    pub(super) local_bytes: u32,
}

/// Lowers a kernel. `variables` are the addresses of the module's variables in global and constant memory.
pub(super) fn lower(
    text: &Text,
    function: &FunctionText,
    variables: &HashMap<&str, (Space, u64)>,
) -> Result<Lowered, ParseError> {
    let first = Lower::new(text, variables, 0).run(function)?;
    let base = first.dynamic_base;
    Lower::new(text, variables, base).run(function)
}

/// A label that a branch or a table wants.
struct Fixup<'a> {
    scope: usize,
    name: &'a str,
    line: u32,
    place: Place,
}

enum Place {
    Instruction(usize),
    Table(usize, usize),
}

struct Scope<'a> {
    parent: Option<usize>,
    symbols: HashMap<&'a str, Symbol>,
    labels: HashMap<&'a str, u32>,
    tables: HashMap<&'a str, usize>,
}

pub(super) struct Lower<'a, 't> {
    text: &'t Text<'a>,
    variables: &'t HashMap<&'a str, (Space, u64)>,
    scopes: Vec<Scope<'a>>,
    scope: usize,
    fixups: Vec<Fixup<'a>>,
    pub(super) code: Code,
    specials: HashMap<&'a str, Symbol>,
    constants32: HashMap<u32, Slot>,
    constants64: HashMap<u64, Slot>,
    /// Variables in shared memory by function (or "") and name.
    shared: HashMap<(&'a str, &'a str), u64>,
    shared_bytes: u32,
    dynamic_base: u32,
    dynamic_align: u32,
    local_bytes: u32,
    /// The functions that are being expanded, outermost first, each with the branches that its `ret` became.
    calls: Vec<(&'a str, Vec<usize>)>,
}

impl<'a, 't> Lower<'a, 't> {
    fn new(text: &'t Text<'a>, variables: &'t HashMap<&'a str, (Space, u64)>, dynamic_base: u32) -> Self {
        let code = Code {
            ins: Vec::new(),
            tables: Vec::new(),
            matrices: Vec::new(),
            count32: 0,
            count64: 0,
            count_pred: 0,
            pool32: Vec::new(),
            pool64: Vec::new(),
            specials: Vec::new(),
            names32: Vec::new(),
            names64: Vec::new(),
            names_pred: Vec::new(),
        };
        Lower {
            text,
            variables,
            scopes: Vec::new(),
            scope: 0,
            fixups: Vec::new(),
            code,
            specials: HashMap::new(),
            constants32: HashMap::new(),
            constants64: HashMap::new(),
            shared: HashMap::new(),
            shared_bytes: 0,
            dynamic_base,
            dynamic_align: 16,
            local_bytes: 0,
            calls: Vec::new(),
        }
    }

    fn run(mut self, function: &'t FunctionText<'a>) -> Result<Lowered, ParseError> {
        self.open(None);
        let (mut parameters, mut bytes) = (Vec::new(), 0u32);
        for param in &function.params {
            let (size, align) = param.size()?;
            let offset = bytes.next_multiple_of(align);
            let end = u64::from(offset) + size;
            if end > MOST_PARAMETER_BYTES {
                let what = format!("{}: more than {MOST_PARAMETER_BYTES} bytes of parameters", function.name);
                return Err(error(param.line, &what));
            }
            parameters.push((offset, size as u32));
            bytes = end as u32;
            self.declare(param.name, Symbol::Memory(Space::Param, offset.into()));
        }
        self.calls.push((function.name, Vec::new()));
        self.body(function)?;
        self.emit(Ins { line: function.line, ..INS });
        for fixup in std::mem::take(&mut self.fixups) {
            let target = self
                .find(fixup.scope, |scope| scope.labels.get(fixup.name).copied())
                .ok_or_else(|| error(fixup.line, &format!("there is no label {}", fixup.name)))?;
            match fixup.place {
                Place::Instruction(at) => self.code.ins[at].imm = target.into(),
                Place::Table(table, at) => self.code.tables[table][at] = target,
            }
        }
        Ok(Lowered {
            code: self.code,
            parameters,
            parameter_bytes: bytes,
            shared_bytes: self.shared_bytes,
            dynamic_base: self.shared_bytes.next_multiple_of(self.dynamic_align),
            local_bytes: self.local_bytes,
        })
    }

    fn body(&mut self, function: &'t FunctionText<'a>) -> Result<(), ParseError> {
        let outer = self.scope;
        for statement in &function.body {
            match statement {
                Statement::Open => self.open(Some(self.scope)),
                Statement::Close => self.scope = self.scopes[self.scope].parent.unwrap_or(outer),
                Statement::Variables(variables) => {
                    for variable in variables {
                        self.variable(function.name, variable)?;
                    }
                }
                Statement::Label(line, name) => {
                    let here = self.code.ins.len() as u32;
                    if self.scopes[self.scope].labels.insert(name, here).is_some() {
                        return Err(error(*line, &format!("label {name} is there twice")));
                    }
                }
                Statement::Targets(line, name, targets) => {
                    let table = self.code.tables.len();
                    self.code.tables.push(vec![0; targets.len()]);
                    self.scopes[self.scope].tables.insert(name, table);
                    for (at, target) in targets.iter().enumerate() {
                        self.want_label(target, *line, Place::Table(table, at));
                    }
                }
                Statement::Instruction(ins) => self.instruction(ins)?,
            }
        }
        self.scope = outer;
        Ok(())
    }

    fn open(&mut self, parent: Option<usize>) {
        self.scope = self.scopes.len();
        let (symbols, labels, tables) = (HashMap::new(), HashMap::new(), HashMap::new());
        self.scopes.push(Scope { parent, symbols, labels, tables });
    }

    fn find<T>(&self, mut scope: usize, get: impl Fn(&Scope<'a>) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = get(&self.scopes[scope]) {
                return Some(found);
            }
            scope = self.scopes[scope].parent?;
        }
    }

    fn declare(&mut self, name: &'a str, symbol: Symbol) {
        self.scopes[self.scope].symbols.insert(name, symbol);
    }

    fn want_label(&mut self, name: &'a str, line: u32, place: Place) {
        self.fixups.push(Fixup { scope: self.scope, name, line, place });
    }

    /// Directs the branch at `ins` to that label.
    pub(super) fn branch_to(&mut self, ins: usize, name: &'a str, line: u32) {
        self.want_label(name, line, Place::Instruction(ins));
    }

    /// Returns the branch table of that name.
    pub(super) fn table(&self, name: &str) -> Option<usize> {
        self.find(self.scope, |scope| scope.tables.get(name).copied())
    }

    /// Lowers a declaration in a body.
    fn variable(&mut self, function: &'a str, variable: &VariableText<'a>) -> Result<(), ParseError> {
        let symbol = match variable.space {
            ".reg" => return self.registers(variable),
            ".local" | ".param" => Symbol::Memory(Space::Local, self.local(variable)?),
            ".shared" => Symbol::Memory(Space::Shared, self.shared(function, variable)?),
            space => return Err(error(variable.line, &format!("a {space} variable in a function is not supported"))),
        };
        self.declare(variable.name, symbol);
        Ok(())
    }

    fn local(&mut self, variable: &VariableText) -> Result<u64, ParseError> {
        let (bytes, align) = variable.size()?;
        let offset = self.local_bytes.next_multiple_of(align);
        self.local_bytes = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| offset.checked_add(bytes))
            .filter(|&bytes| bytes <= 512 << 10)
            .ok_or_else(|| error(variable.line, "more than 512 KiB of local memory"))?;
        Ok(offset.into())
    }

    fn shared(&mut self, function: &'a str, variable: &VariableText<'a>) -> Result<u64, ParseError> {
        let (bytes, align) = variable.size()?;
        if variable.external && variable.elements.unwrap_or(0) == 0 {
            self.dynamic_align = self.dynamic_align.max(align);
            return Ok(self.dynamic_base.into());
        }
        if let Some(&offset) = self.shared.get(&(function, variable.name)) {
            return Ok(offset);
        }
        let offset = self.shared_bytes.next_multiple_of(align);
        self.shared_bytes = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| offset.checked_add(bytes))
            .filter(|&bytes| bytes <= 1 << 20)
            .ok_or_else(|| error(variable.line, "more than 1 MiB of shared memory"))?;
        self.shared.insert((function, variable.name), offset.into());
        Ok(offset.into())
    }

    fn registers(&mut self, variable: &VariableText<'a>) -> Result<(), ParseError> {
        if variable.elements.is_some() {
            return Err(error(variable.line, "registers that are vectors are not supported"));
        }
        let Some(count) = variable.registers else {
            let symbol = self.register(variable.ty, variable.name, variable.line)?;
            self.declare(variable.name, symbol);
            return Ok(());
        };
        // `%r<10>` are %r0 to %r9: found by their number, so that thousands cost nothing here.
        for at in 0..count {
            let name = format!("{}{at}", variable.name);
            let symbol = self.register(variable.ty, &name, variable.line)?;
            if at == 0 {
                self.declare_numbered(variable.name, symbol, count);
            }
        }
        Ok(())
    }

    fn declare_numbered(&mut self, base: &'a str, first: Symbol, count: u32) {
        // Two names that no PTX text can hold: the first register, and how many there are.
        self.scopes[self.scope].symbols.insert(base, first);
        self.scopes[self.scope].tables.insert(base, count as usize);
    }

    /// Returns a new register.
    fn register(&mut self, ty: &str, name: &str, line: u32) -> Result<Symbol, ParseError> {
        let code = &mut self.code;
        if ty == ".pred" {
            code.count_pred += 1;
            code.names_pred.push(name.into());
        } else {
            match size_of_type(ty) {
                Some(8) => {
                    code.count64 += 1;
                    code.names64.push(name.into());
                }
                Some(2 | 4) => {
                    code.count32 += 1;
                    code.names32.push(name.into());
                }
                _ => return Err(error(line, &format!("registers of type {ty} are not supported"))),
            }
        }
        if code.count_pred.max(code.count32).max(code.count64) > WIDE as usize {
            return Err(error(line, "more than 16384 registers of a kind are not supported"));
        }
        Ok(match size_of_type(ty) {
            None => Symbol::Predicate(code.count_pred as Slot - 1),
            Some(8) => Symbol::Register((code.count64 as Slot - 1) | WIDE, 64),
            Some(bytes) => Symbol::Register(code.count32 as Slot - 1, 8 * bytes),
        })
    }

    /// Returns what a name stands for here.
    pub(super) fn symbol(&mut self, name: &'a str, line: u32) -> Result<Symbol, ParseError> {
        let plain = self
            .find(self.scope, |scope| scope.symbols.get(name).copied().filter(|_| !scope.tables.contains_key(name)));
        if let Some(symbol) = plain.or_else(|| self.numbered(name)) {
            return Ok(symbol);
        }
        if let Some(&symbol) = self.specials.get(name) {
            return Ok(symbol);
        }
        if let Some((special, bits)) = Special::named(name) {
            let ty = if bits == 64 { ".b64" } else { ".b32" };
            let symbol = self.register(ty, name, line)?;
            let Symbol::Register(slot, _) = symbol else { unreachable!() };
            self.code.specials.push((special, slot));
            self.specials.insert(name, symbol);
            return Ok(symbol);
        }
        if let Some(&(space, address)) = self.variables.get(name) {
            return Ok(Symbol::Memory(space, address));
        }
        let text = self.text;
        if let Some(variable) = text.variables.iter().find(|other| other.name == name && other.space == ".shared") {
            return Ok(Symbol::Memory(Space::Shared, self.shared("", variable)?));
        }
        Err(error(line, &format!("{name} is not declared, or not supported")))
    }

    /// Resolves a numbered register, such as `%r7` of `%r<10>`.
    fn numbered(&self, name: &str) -> Option<Symbol> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        (1..=digits).find_map(|digits| {
            let (base, number) = name.split_at(name.len() - digits);
            if number.len() > 1 && number.starts_with('0') {
                return None;
            }
            let number: usize = number.parse().ok()?;
            self.find(self.scope, |scope| {
                let count = *scope.tables.get(base)?;
                let first = *scope.symbols.get(base)?;
                (number < count).then(|| match first {
                    Symbol::Register(slot, bits) => Symbol::Register(slot + number as Slot, bits),
                    Symbol::Predicate(slot) => Symbol::Predicate(slot + number as Slot),
                    memory => memory,
                })
            })
        })
    }

    /// Returns a constant's slot.
    pub(super) fn constant(&mut self, value: u64, wide: bool) -> Slot {
        if wide {
            let pool = &mut self.code.pool64;
            *self.constants64.entry(value).or_insert_with(|| {
                pool.push(Lanes([value; 32]));
                (pool.len() as Slot - 1) | CONST | WIDE
            })
        } else {
            let pool = &mut self.code.pool32;
            *self.constants32.entry(value as u32).or_insert_with(|| {
                pool.push(Lanes([value as u32; 32]));
                (pool.len() as Slot - 1) | CONST
            })
        }
    }

    /// Appends an instruction and returns its index.
    pub(super) fn emit(&mut self, ins: Ins) -> usize {
        self.code.ins.push(ins);
        self.code.ins.len() - 1
    }

    /// Lowers a return: a branch inside an expanded call, an exit otherwise.
    pub(super) fn return_or_exit(&mut self, ins: Ins) {
        if self.calls.len() == 1 {
            self.emit(Ins { op: Op::Exit, ..ins });
        } else {
            let at = self.emit(Ins { op: Op::Bra, ..ins });
            self.calls.last_mut().expect("there is a call").1.push(at);
        }
    }

    /// Returns whether an address in a register of `ld.param` and `st.param` is one of the kernel's parameters.
    pub(super) fn in_kernel(&self) -> bool {
        self.calls.len() == 1
    }

    /// Expands a call: `call (results), name, (arguments)`.
    pub(super) fn call(&mut self, ins: &InstructionText<'a>, template: Ins) -> Result<(), ParseError> {
        let line = ins.line;
        let fail = |what: &str| Err(error(line, &format!("{}: {what}", ins.opcode)));
        let (results, name, arguments) = match ins.operands.as_slice() {
            [Operand::Word(name)] => (&[][..], *name, &[][..]),
            [Operand::Word(name), Operand::List(arguments)] => (&[][..], *name, &arguments[..]),
            [Operand::List(results), Operand::Word(name)] => (&results[..], *name, &[][..]),
            [Operand::List(results), Operand::Word(name), Operand::List(arguments)] => {
                (&results[..], *name, &arguments[..])
            }
            _ => return fail("only direct calls are supported"),
        };
        let text = self.text;
        let Some(function) = text.functions.iter().find(|function| !function.entry && function.name == name) else {
            return fail(&format!("there is no function {name} with a body"));
        };
        if self.calls.iter().any(|(other, _)| *other == name) || self.calls.len() > 32 {
            return fail("recursion is not supported");
        }
        if function.params.len() != arguments.len() || function.results.len() != results.len() {
            return fail("the number of arguments differs");
        }
        let mut bound = Vec::new();
        for (formal, actual) in function.results.iter().chain(&function.params).zip(results.iter().chain(arguments)) {
            let Operand::Word(actual) = actual else { return fail("only .param variables can be arguments") };
            match self.symbol(actual, line)? {
                memory @ Symbol::Memory(Space::Local, _) if formal.space == ".param" => {
                    bound.push((formal.name, memory))
                }
                _ => return fail("only .param variables can be arguments"),
            }
        }
        let skip = (template.guard != NONE)
            .then(|| self.emit(Ins { op: Op::Bra, guard_not: !template.guard_not, line, ..template }));
        let caller = self.scope;
        self.open(None);
        let callee = self.scope;
        for (name, symbol) in bound {
            self.declare(name, symbol);
        }
        self.calls.push((name, Vec::new()));
        self.body(function)?;
        debug_assert_eq!(self.scope, callee);
        let (_, returns) = self.calls.pop().expect("pushed above");
        let end = self.code.ins.len() as u64;
        for at in returns.into_iter().chain(skip) {
            self.code.ins[at].imm = end;
        }
        self.scope = caller;
        Ok(())
    }

    /// Returns the generic address of a symbol's memory.
    pub(super) fn window(space: Space) -> u64 {
        match space {
            Space::Shared => window::SHARED,
            Space::Local => window::LOCAL,
            Space::Param => window::PARAM,
            Space::Generic | Space::Global | Space::Const => 0,
        }
    }
}

/// An instruction to fill in; by itself it ends the thread.
pub(super) const INS: Ins = Ins {
    op: Op::Exit,
    ty: Ty::U32,
    to: Ty::U32,
    sub: 0,
    mode: 0,
    space: Space::Generic,
    guard_not: false,
    not: false,
    guard: NONE,
    r: [NONE; 6],
    line: 0,
    imm: 0,
};
