//! Loads, stores and atomics.

use super::super::ParseError;
use super::super::ir::{Access, Fold, Op, Place, Space};
use super::form::Form;

/// Words that say how long a cache should keep something, or in which order threads see it. Here every access is seen by
/// all at once.
const HINTS: [&str; 15] = [
    "SYS", "STRONG", "GPU", "SM", "CTA", "CONSTANT", "EF", "EL", "LU", "NA", "LTC64B", "LTC128B", "LTC256B", "WEAK",
    "U",
];

/// Decodes an instruction, if it is one of these.
pub(super) fn decode(form: &mut Form) -> Result<bool, ParseError> {
    let op = match form.name {
        "LDC" | "LDCU" => {
            form.ins.uniform |= form.name == "LDCU";
            let bytes = form.one_of(&[("64", 8), ("128", 16)]).unwrap_or(4);
            form.dst(u16::from(bytes) / 4)?;
            form.src(0, 1)?;
            if !matches!(form.ins.src[0].place, Place::Constant { .. }) {
                return form.fail("no constant");
            }
            Op::LoadConstant { bytes }
        }
        "LDG" | "LD" => load(form, Space::Global)?,
        "LDS" => load(form, Space::Shared)?,
        "LDL" => load(form, Space::Local)?,
        "STG" | "ST" => store(form, Space::Global)?,
        "STS" => store(form, Space::Shared)?,
        "STL" => store(form, Space::Local)?,
        "RED" | "REDG" | "ATOMG" | "ATOM" => atomic(form, Space::Global)?,
        "ATOMS" => atomic(form, Space::Shared)?,
        _ => return Ok(false),
    };
    form.ins.op = op;
    Ok(true)
}

/// Takes width and hints. Addresses of global memory must be wide.
fn access(form: &mut Form, space: Space) -> Result<Access, ParseError> {
    if space == Space::Global && !form.take("E") {
        return form.fail("an address of 32 bits in global memory");
    }
    let widths = [
        ("U8", (1, false)),
        ("S8", (1, true)),
        ("U16", (2, false)),
        ("S16", (2, true)),
        ("32", (4, false)),
        ("64", (8, false)),
        ("128", (16, false)),
    ];
    let (bytes, signed) = form.one_of(&widths).unwrap_or((4, false));
    form.drop(&HINTS);
    Ok(Access { space, bytes, signed })
}

fn load(form: &mut Form, space: Space) -> Result<Op, ParseError> {
    let access = access(form, space)?;
    form.dst(u16::from(access.bytes).div_ceil(4))?;
    form.address(space == Space::Global)?;
    Ok(Op::Load(access))
}

fn store(form: &mut Form, space: Space) -> Result<Op, ParseError> {
    let access = access(form, space)?;
    form.address(space == Space::Global)?;
    form.src(0, u16::from(access.bytes).div_ceil(4))?;
    Ok(Op::Store(access))
}

fn atomic(form: &mut Form, space: Space) -> Result<Op, ParseError> {
    let kinds = [
        ("ADD", Fold::Add),
        ("MIN", Fold::Min),
        ("MAX", Fold::Max),
        ("AND", Fold::And),
        ("OR", Fold::Or),
        ("XOR", Fold::Xor),
        ("EXCH", Fold::Exchange),
    ];
    let Some(fold) = form.one_of(&kinds) else { return form.fail("this atomic is not supported") };
    let signed = form.take("S32");
    if access(form, space)?.bytes != 4 {
        return form.fail("only 32 bits are supported");
    }
    if form.name.starts_with("ATOM") {
        form.no_bits()?;
        form.dst(1)?;
    }
    form.address(space == Space::Global)?;
    form.src(0, 1)?;
    Ok(Op::Atomic { space, fold, signed })
}
