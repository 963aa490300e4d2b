//! Instructions as they run: names have become slots, modifiers have become fields.

use crate::exec::{Format, Function, Relation, Rounding, Shuffle, Style};

/// Index of a register in a warp's file: the one that is zero, those of lanes, those of the warp. A register of the warp
/// has the same value in all lanes.
pub(super) type Slot = u16;
/// The register that is always zero; what is written to it is lost.
pub(super) const ZERO: Slot = 0;

/// Index of a predicate: 0 to 6 of the lanes, 8 to 14 of the warp.
pub(super) type Bit = u8;
/// The predicate that is always true; what is written to it is lost.
pub(super) const TRUE: Bit = 7;
/// The number of predicates, with places that nothing names.
pub(super) const BITS: usize = 16;
/// The first predicate of the warp.
pub(super) const UNIFORM_BIT: Bit = 8;

/// A predicate that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) bit: Bit,
    pub(super) not: bool,
}

impl Test {
    pub(super) const ALWAYS: Test = Test { bit: TRUE, not: false };
}

/// The place where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Slot(Slot),
    Value(u64),
    Constant { bank: u8, index: Slot, offset: u32 },
}

/// A number that is read, and what is done to it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) place: Place,
    pub(super) negative: bool,
    pub(super) inverted: bool,
    pub(super) absolute: bool,
}

impl Source {
    pub(super) const ZERO: Source =
        Source { place: Place::Slot(ZERO), negative: false, inverted: false, absolute: false };

    /// Returns whether it is a register as it is.
    pub(super) fn is_register(&self) -> bool {
        matches!(self.place, Place::Slot(_)) && !self.negative && !self.inverted && !self.absolute
    }
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Less,
    Equal,
    LessEqual,
    Greater,
    NotEqual,
    GreaterEqual,
}

/// How two predicates become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    And,
    Or,
    Xor,
}

/// What an atomic does, and a reduction of the warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
}

/// What a vote's predicate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    Any,
    All,
    Equal,
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Thread(u8),
    Block(u8),
    Lane,
    LanesBelow,
    LaneBit,
    Zero,
}

/// Memories that lanes can address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
    Local,
}

/// The address of an access: registers of 32 or 64 bits, scaled, and an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) base: Slot,
    /// The base is 64 bits wide.
    pub(super) wide: bool,
    pub(super) scale: u8,
    pub(super) uniform: Slot,
    pub(super) offset: i64,
    /// The register with the descriptor of global memory, or none.
    pub(super) descriptor: Slot,
}

/// What a lane reads or writes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) space: Space,
    pub(super) bytes: u8,
    /// Fewer than 4 bytes are extended by their sign.
    pub(super) signed: bool,
}

/// An operation. Its numbers are in `src`, its result in `dst`, predicates in `bits` (written) and `tests` (read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Nop,
    /// `a * b + c`, and the carry `tests[0]`.
    Mad,
    /// The same with 64 bits in `c` and the result; `bits[0]` is the carry.
    MadWide {
        signed: bool,
    },
    /// The upper half of that.
    MadHigh {
        signed: bool,
    },
    /// `a + b + c + tests[0] + tests[1]`; `bits` are the carries.
    Add,
    /// `a + b + c` of 64 bits.
    Add64,
    /// `bits[0] = (a ? b) join tests[0]`, `bits[1]` the same of the opposite. With `extended`, `tests[1]` is the result for
    /// the lower halves.
    Compare {
        compare: Compare,
        wide: bool,
        signed: bool,
        join: Join,
        extended: bool,
    },
    /// The same of floats; with `flush`, subnormal numbers count as zeros.
    CompareFloat {
        relation: Relation,
        flush: bool,
        join: Join,
    },
    /// A table of three inputs; `bits[0]` says whether the result is not 0.
    Logic {
        table: u8,
    },
    /// The same of predicates, with a table for each result.
    LogicBits {
        tables: [u8; 2],
    },
    Permute,
    /// The predicates of a lane as bits from 0, where `b` has bits; else the bits of `a`.
    FromBits,
    /// The same the other way round: predicates become the bits of `a` where `b` has bits.
    ToBits,
    Select,
    Select64,
    SelectFloat,
    /// Both halves are in `a` (lower) and `c`; `b` is the distance.
    Shift {
        left: bool,
        wide: bool,
        signed: bool,
        wrap: bool,
        high: bool,
    },
    /// `(a << shift) + b`; `bits[0]` is the carry.
    ShiftAdd {
        shift: u8,
    },
    /// The upper half of `(c:a << shift)`, plus `b` and the carry `tests[0]`; `bits[0]` is the carry.
    ShiftAddHigh {
        shift: u8,
        extend: bool,
    },
    /// `min` where `tests[0]`, else `max`.
    MinMax {
        signed: bool,
    },
    MinMax64 {
        signed: bool,
    },
    /// `min` or `max` of `a + b` and `c`.
    AddMinMax {
        signed: bool,
    },
    Move,
    Move64,
    Special(Special),
    Special64(Special),
    /// A constant at an address that registers give.
    LoadConstant {
        bytes: u8,
    },
    CountOnes,
    /// The highest bit that is set, or, with `shift`, how far it is from the top.
    FindHighest {
        signed: bool,
        shift: bool,
    },
    Reverse,
    FloatAdd(Style),
    FloatMultiply(Style),
    FloatFused(Style),
    /// `min` where `tests[0]`, else `max`; with `nan`, NaN if one of them is.
    FloatExtreme {
        flush: bool,
        nan: bool,
    },
    /// A function as its unit gives it.
    Function(Function),
    /// Rounds to a whole number.
    FloatWhole(Style),
    /// Two floats in 16 bits each, `a` above `b`; with `single`, only `a`, below zeros.
    Narrow {
        format: Format,
        rounding: Rounding,
        single: bool,
    },
    /// `bits[0]` says whether `a / b` takes more than the usual steps.
    CheckDivision,
    /// A product of matrices, added to `c`: registers from `dst` and of each source.
    Matrices,
    IntegerToFloat {
        bits: u8,
        signed: bool,
        rounding: Rounding,
    },
    FloatToInteger {
        signed: bool,
        rounding: Rounding,
        flush: bool,
    },
    Shuffle(Shuffle),
    Vote(Vote),
    Reduce {
        fold: Fold,
        signed: bool,
    },
    /// A register of a lane becomes one of the warp.
    ToUniform,
    Load(Access),
    Store(Access),
    /// The old value goes to `dst`.
    Atomic {
        space: Space,
        fold: Fold,
        signed: bool,
    },
    /// `target`, where `tests[0]`.
    Branch,
    /// Where the lanes of the mask `a` are not together.
    BranchDivergent,
    /// Where they are.
    BranchConvergent,
    /// Remembers in a barrier which lanes are to meet.
    Meet {
        barrier: u8,
    },
    /// Waits for those lanes.
    Await {
        barrier: u8,
    },
    /// Takes lanes off a barrier's list.
    Leave {
        barrier: u8,
    },
    /// Forgets a barrier's lanes.
    Forget {
        barrier: u8,
    },
    /// Waits for the lanes of the mask `a`, or with `all` for all that live.
    WarpSync {
        all: bool,
    },
    Call,
    /// Jumps to the address `a` in the kernel.
    Return,
    Exit,
    /// The block's barrier `a`, of `b` threads or, with 0, of all.
    BlockSync,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ins {
    /// The line in the listing.
    pub(super) line: u32,
    pub(super) op: Op,
    pub(super) guard: Test,
    /// One instruction for the warp: its results are the same in all lanes.
    pub(super) uniform: bool,
    pub(super) dst: Slot,
    pub(super) src: [Source; 3],
    pub(super) bits: [Bit; 2],
    pub(super) tests: [Test; 3],
    pub(super) address: Address,
    /// The instruction to which it jumps.
    pub(super) target: u32,
}

impl Ins {
    /// Returns whether it sets or clears one bit of a register in its place. Compilers keep predicates so, in registers that they
    /// never write as a whole.
    pub(super) fn changes_one_bit(&self) -> bool {
        let [a, b, c] = self.src;
        let Place::Value(value) = b.place else { return false };
        let bits = match self.op {
            Op::Logic { table: 0xc0 } => !(value as u32),
            Op::Logic { table: 0xfc } => value as u32,
            _ => return false,
        };
        a.is_register() && a.place == Place::Slot(self.dst) && c == Source::ZERO && bits.is_power_of_two()
    }
}
