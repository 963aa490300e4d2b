//! The compact form of a kernel: what `lower` makes and the warps run.

/// No register, no guard.
pub(super) const NONE: u16 = u16::MAX;
/// This bit of a [`Slot`] marks a register of 64 bits.
pub(super) const WIDE: u16 = 1 << 14;
/// This bit of a [`Slot`] marks a constant.
pub(super) const CONST: u16 = 1 << 15;

/// The place of an operand: an index, and by [`WIDE`] and [`CONST`] in which of four files. Registers of 16 bits are,
/// extended with zeros, in the file of 32 bits. For a predicate: its index.
pub(super) type Slot = u16;

/// The 32 lanes of a register.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Lanes<T>(pub(super) [T; 32]);

/// The type of an operation. Untyped bits count as unsigned, floats as their bits: the operation says that they are floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ty {
    Pred,
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
}

impl Ty {
    pub(super) fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::U8 | Ty::S8 => 8,
            Ty::U16 | Ty::S16 => 16,
            Ty::U32 | Ty::S32 => 32,
            Ty::U64 | Ty::S64 => 64,
        }
    }

    pub(super) fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    /// Returns the value in the low bits of a register, extended to 64 bits as its type says.
    #[inline(always)]
    pub(super) fn extend(self, value: u64) -> u64 {
        match self {
            Ty::Pred => value & 1,
            Ty::U8 => value as u8 as u64,
            Ty::S8 => value as i8 as u64,
            Ty::U16 => value as u16 as u64,
            Ty::S16 => value as i16 as u64,
            Ty::U32 => value as u32 as u64,
            Ty::S32 => value as i32 as u64,
            Ty::U64 | Ty::S64 => value,
        }
    }
}

/// The operation of an instruction. Each says what its slots `r` and its `sub` are; `d` is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// d, a
    Mov,
    /// d, then parts from the lowest; `sub` parts of `ty`.
    Pack,
    /// a, then parts from the lowest (NONE: dropped); `sub` parts of `ty`.
    Unpack,
    /// d: instructions issued so far.
    Clock,
    /// d, a, b
    Add,
    Sub,
    MulLo,
    MulHi,
    MulWide,
    Mul24Lo,
    Mul24Hi,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    /// d, a, b: of 32-bit floats; `sub` is the style (see `exec::float`), 0 for the plain one.
    FAdd,
    FSub,
    FMul,
    FDiv,
    /// d, a, b: the same, as a times the reciprocal of b
    FDivFast,
    /// d, a, b: the same; `mode`: 1 where a NaN is the result.
    FMin,
    FMax,
    /// d, a, b, c: the same, rounded once
    FFma,
    /// d, a: the same; flips or clears the sign.
    FNeg,
    FAbs,
    /// d, a: the same; `mode` is which of `Function::ALL`.
    FFunction,
    /// d, a, b, c: of 64-bit floats, rounded to the nearest
    DAdd,
    DSub,
    DMul,
    DFma,
    /// d, a, b: saturating, 32 bits
    AddSat,
    SubSat,
    /// d, a, b, c
    MadLo,
    MadHi,
    MadWide,
    Mad24Lo,
    Mad24Hi,
    Sad,
    ShfL,
    ShfR,
    Prmt,
    Bfe,
    Fns,
    Dp4a,
    Dp2a,
    /// d, a, b, c; `imm` is the table.
    Lop3,
    /// d, a, b; `imm` is the selector.
    PrmtConst,
    /// d, a, b, position, length
    Bfi,
    /// d, a
    Abs,
    Neg,
    Not,
    Cnot,
    Popc,
    Clz,
    Brev,
    Bfind,
    /// d, a, b; `sub`: 1 to clamp (else wrap).
    Bmsk,
    Szext,
    /// d, a: from `ty` to `to`; `sub`: 1 to saturate.
    Cvt,
    /// d, a: to the float `imm` (of `Format::ALL`) from an integer of type `ty`; `sub` is the style.
    CvtFromInt,
    /// d, a: to an integer of type `to` from the float `imm`, into a register of `mode` bits; `sub` is the style.
    CvtToInt,
    /// d, a: between floats, from `imm` to `imm >> 8`; `sub` is the style, `mode`: 1 to round to a whole number.
    CvtFloat,
    /// d, a, b: two floats of 32 bits to a pair of the float `imm`, a above b; `sub` is the style.
    CvtPair,
    /// d, a, b, c; `sub`: bits of [`carry`].
    Carry,
    /// p, q, a, b, c: `sub` is the comparison, `mode` how the predicate c joins; q is the negated result joined.
    Setp,
    /// d, -, a, b, c: the same into a register of type `to`.
    Set,
    /// As `Setp`, of 32-bit floats: `sub` is the `Relation`, `imm`: 1 where subnormal numbers count as zeros.
    FSetp,
    /// d, a, b, p
    Selp,
    /// d, a, b, c
    Slct,
    /// p, a, b: `sub` is a [`logic`] operation.
    PredLogic,
    /// d, a
    PredMov,
    /// p, a: `imm` is the first address of the window, `mode` the window (see [`Space`]).
    IsSpace,
    /// d…, address: `sub` elements of `ty` from `space`; the address in slot 5, `imm` its offset.
    Ld,
    /// s…, address: as for `Ld`.
    St,
    /// d (or NONE), b, c; the address in slot 5, `imm` its offset; `sub` is an [`atom`] operation.
    Atom,
    /// `imm` is the target.
    Bra,
    /// index; `imm` is the table.
    Brx,
    Exit,
    Trap,
    Nop,
    Fence,
    /// Waits for the kernel before.
    GridWait,
    /// barrier, threads (or NONE): a block's barrier; `sub`: 1 for one that only arrives, 2 to 4 for the reductions
    /// popc, and, or (d in slot 2, p in slot 3); `mode`: 1 where all lanes must come to the same instruction.
    Bar,
    /// mask
    WarpSync,
    /// d, p (or NONE), a, b, c, mask: `sub` 0 idx, 1 up, 2 down, 3 bfly
    Shfl,
    /// d, a, mask: `sub` 0 ballot, 1 any, 2 all, 3 uni
    Vote,
    /// d, p (or NONE), a, mask: `sub` 0 any, 1 all
    Match,
    /// d, a, mask: `sub` is an [`atom`] operation
    Redux,
    /// d
    ActiveMask,
    /// `imm` is which of `Code::matrices`: a product of matrices by the whole warp.
    Mma,
}

/// State spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Const,
    Param,
}

/// Values of `sub` for comparisons.
pub(super) mod compare {
    pub(in super::super) const EQ: u8 = 0;
    pub(in super::super) const NE: u8 = 1;
    pub(in super::super) const LT: u8 = 2;
    pub(in super::super) const LE: u8 = 3;
    pub(in super::super) const GT: u8 = 4;
    pub(in super::super) const GE: u8 = 5;
}

/// Values of `sub` for logic on predicates, and of `mode` for how a comparison is joined (0: not at all).
pub(super) mod logic {
    pub(in super::super) const AND: u8 = 1;
    pub(in super::super) const OR: u8 = 2;
    pub(in super::super) const XOR: u8 = 3;
    pub(in super::super) const NOT: u8 = 4;
}

/// Values of `sub` for atomics.
pub(super) mod atom {
    pub(in super::super) const ADD: u8 = 0;
    pub(in super::super) const MIN: u8 = 1;
    pub(in super::super) const MAX: u8 = 2;
    pub(in super::super) const AND: u8 = 3;
    pub(in super::super) const OR: u8 = 4;
    pub(in super::super) const XOR: u8 = 5;
    pub(in super::super) const EXCH: u8 = 6;
    pub(in super::super) const CAS: u8 = 7;
    pub(in super::super) const INC: u8 = 8;
    pub(in super::super) const DEC: u8 = 9;
}

/// Bits of `sub` for arithmetic with a carry.
pub(super) mod carry {
    /// It reads the carry.
    pub(in super::super) const IN: u8 = 1;
    /// It writes the carry.
    pub(in super::super) const OUT: u8 = 2;
    /// It subtracts.
    pub(in super::super) const SUB: u8 = 4;
    /// It multiplies a and b (low half, or high half) and adds c; else it adds a and b.
    pub(in super::super) const MUL_LO: u8 = 8;
    pub(in super::super) const MUL_HI: u8 = 16;
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ins {
    pub(super) op: Op,
    pub(super) ty: Ty,
    pub(super) to: Ty,
    pub(super) sub: u8,
    pub(super) mode: u8,
    pub(super) space: Space,
    /// The guard holds where the predicate is false.
    pub(super) guard_not: bool,
    /// Slot 4 of a comparison, or 3 of `Selp`, is a predicate to be negated.
    pub(super) not: bool,
    pub(super) guard: u16,
    pub(super) r: [Slot; 6],
    pub(super) line: u32,
    pub(super) imm: u64,
}

/// Special registers that hold still while a thread lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Tid(u8),
    NTid(u8),
    CtaId(u8),
    NCtaId(u8),
    LaneId,
    WarpId,
    NWarpId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    /// The multiprocessor and their number, the grid: one of each.
    Zero,
    One,
    DynamicShared,
    TotalShared,
}

impl Special {
    /// Returns the register of that name, with its width in bits.
    pub(super) fn named(name: &str) -> Option<(Special, u32)> {
        let axis = |name: &str| match name {
            "x" => Some(0),
            "y" => Some(1),
            "z" => Some(2),
            _ => None,
        };
        if let Some((base, component)) = name.split_once('.') {
            let axis = axis(component)?;
            let special = match base {
                "%tid" => Special::Tid(axis),
                "%ntid" => Special::NTid(axis),
                "%ctaid" => Special::CtaId(axis),
                "%nctaid" => Special::NCtaId(axis),
                _ => return None,
            };
            return Some((special, 32));
        }
        Some(match name {
            "%laneid" => (Special::LaneId, 32),
            "%warpid" => (Special::WarpId, 32),
            "%nwarpid" => (Special::NWarpId, 32),
            "%lanemask_eq" => (Special::LaneMaskEq, 32),
            "%lanemask_lt" => (Special::LaneMaskLt, 32),
            "%lanemask_le" => (Special::LaneMaskLe, 32),
            "%lanemask_gt" => (Special::LaneMaskGt, 32),
            "%lanemask_ge" => (Special::LaneMaskGe, 32),
            "%smid" => (Special::Zero, 32),
            "%nsmid" => (Special::One, 32),
            "%gridid" => (Special::One, 64),
            "%dynamic_smem_size" => (Special::DynamicShared, 32),
            "%total_smem_size" => (Special::TotalShared, 32),
            _ => return None,
        })
    }
}

/// Generic addresses of shared, local and parameter memory: 4 GiB each, where no host address can be. Global and constant
/// memory are at their own addresses.
pub(super) mod window {
    pub(in super::super) const SHARED: u64 = 0x5348_0000_0000_0000;
    pub(in super::super) const LOCAL: u64 = 0x4c4f_0000_0000_0000;
    pub(in super::super) const PARAM: u64 = 0x5041_0000_0000_0000;
    pub(in super::super) const BYTES: u64 = 1 << 32;
}

/// A kernel, ready to run.
pub(super) struct Code {
    pub(super) ins: Vec<Ins>,
    /// Branch tables.
    pub(super) tables: Vec<Vec<u32>>,
    /// Operands of products of matrices: four of D, four of A, two of B, four of C.
    pub(super) matrices: Vec<[Slot; 14]>,
    /// Registers of 32 and of 64 bits, predicates.
    pub(super) count32: usize,
    pub(super) count64: usize,
    pub(super) count_pred: usize,
    pub(super) pool32: Vec<Lanes<u32>>,
    pub(super) pool64: Vec<Lanes<u64>>,
    pub(super) specials: Vec<(Special, Slot)>,
    /// Names of the registers in the three files.
    pub(super) names32: Vec<String>,
    pub(super) names64: Vec<String>,
    pub(super) names_pred: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_stay_compact() {
        assert!(size_of::<Ins>() <= 40);
        assert_eq!(Ty::S8.extend(0x1ff), u64::MAX);
        assert_eq!(Ty::U16.extend(0x1_ffff), 0xffff);
        assert_eq!(Special::named("%ntid.y"), Some((Special::NTid(1), 32)));
        assert_eq!(Special::named("%tid.w"), None);
    }
}
