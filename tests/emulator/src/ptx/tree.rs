//! What the grammar makes of a PTX text. Names borrow from the text.

use super::ParseError;
use super::lex::error;

/// A whole text.
#[derive(Default)]
pub(super) struct Text<'a> {
    pub(super) functions: Vec<FunctionText<'a>>,
    pub(super) variables: Vec<VariableText<'a>>,
}

/// A `.entry` or `.func` with a body.
pub(super) struct FunctionText<'a> {
    pub(super) line: u32,
    pub(super) name: &'a str,
    pub(super) entry: bool,
    pub(super) results: Vec<VariableText<'a>>,
    pub(super) params: Vec<VariableText<'a>>,
    /// `.maxntid` and the like: name and numbers.
    pub(super) limits: Vec<(&'a str, Vec<u64>)>,
    pub(super) body: Vec<Statement<'a>>,
}

/// A declared variable or parameter.
#[derive(Clone, Debug)]
pub(super) struct VariableText<'a> {
    pub(super) line: u32,
    /// `.global`, `.shared`, `.reg`, `.param`, …
    pub(super) space: &'a str,
    pub(super) name: &'a str,
    /// `.b32`, `.u8`, …
    pub(super) ty: &'a str,
    pub(super) align: Option<u32>,
    pub(super) external: bool,
    /// Elements: None for a scalar, 0 for `[]`.
    pub(super) elements: Option<u64>,
    /// `%r<10>`: that many registers of this name.
    pub(super) registers: Option<u32>,
    pub(super) initial: Vec<Initial<'a>>,
}

/// One element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Initial<'a> {
    Value(u64),
    Address(&'a str, u64),
}

/// A statement of a body.
#[derive(Debug)]
pub(super) enum Statement<'a> {
    Variables(Vec<VariableText<'a>>),
    Label(u32, &'a str),
    /// `name: .branchtargets a, b, c;`
    Targets(u32, &'a str, Vec<&'a str>),
    Open,
    Close,
    Instruction(InstructionText<'a>),
}

/// An instruction.
#[derive(Clone, Debug)]
pub(super) struct InstructionText<'a> {
    pub(super) line: u32,
    /// The predicate that guards it, and whether it is negated.
    pub(super) guard: Option<(&'a str, bool)>,
    /// The opcode with its modifiers, as written.
    pub(super) opcode: &'a str,
    pub(super) operands: Vec<Operand<'a>>,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand<'a> {
    Word(&'a str),
    /// A number; negative ones as two's complement.
    Int(u64),
    /// A float's bits; whether they are 64.
    Float(u64, bool),
    /// A name and a number of bytes after it.
    Offset(&'a str, i64),
    /// `[…]`.
    Address(Box<Operand<'a>>),
    /// `{…}`.
    Vector(Vec<Operand<'a>>),
    /// `(…)`, of a call.
    List(Vec<Operand<'a>>),
    /// `a|b`.
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `!a`.
    Not(Box<Operand<'a>>),
}

impl VariableText<'_> {
    /// Bytes and alignment.
    pub(super) fn size(&self) -> Result<(u64, u32), ParseError> {
        let size =
            size_of_type(self.ty).ok_or_else(|| error(self.line, &format!("type {} is not supported", self.ty)))?;
        let align = self.align.unwrap_or(size);
        if !align.is_power_of_two() {
            return Err(error(self.line, "an alignment that is no power of two"));
        }
        let bytes = (size as u64).saturating_mul(self.elements.unwrap_or(1));
        if bytes > 1 << 32 {
            return Err(error(self.line, "a variable of more than 4 GiB"));
        }
        Ok((bytes, align))
    }
}

/// Bytes of a type, by its name; None for one that is not supported.
pub(super) fn size_of_type(ty: &str) -> Option<u32> {
    Some(match ty {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return None,
    })
}
