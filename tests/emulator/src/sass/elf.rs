//! A cubin's parts that its disassembly does not say well: sizes, registers, parameters, constants.

use std::collections::BTreeMap;

/// The attributes of a kernel, or of the whole cubin, that are used here. (`EIATTR_*` in what `nvdisasm` prints.)
mod attribute {
    pub const MAX_THREADS: u8 = 0x05;
    pub const PARAM_CBANK: u8 = 0x0a;
    pub const KPARAM_INFO: u8 = 0x17;
    pub const MIN_STACK_SIZE: u8 = 0x12;
    pub const REGCOUNT: u8 = 0x2f;
}

/// A kernel, as the cubin describes it.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) registers: u32,
    /// Bytes of local memory of a thread.
    pub(super) stack: u32,
    /// Bytes of shared memory that it declares, with what the system keeps at their beginning.
    pub(super) shared: u32,
    pub(super) max_threads: Option<u32>,
    /// Where the parameters begin in constant bank 0.
    pub(super) parameter_base: u32,
    /// Offset and size of each parameter.
    pub(super) parameters: Vec<(u32, u32)>,
    /// The other constant banks.
    pub(super) banks: BTreeMap<u8, Vec<u8>>,
}

/// What is read of a cubin.
pub(super) struct Cubin {
    /// The compute capability, as 10 · major + minor.
    pub(super) capability: u32,
    pub(super) kernels: BTreeMap<String, Kernel>,
}

/// Returns the number of `N` bytes at an offset.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(word))
}

/// A section of an ELF file.
struct Section<'a> {
    name: &'a str,
    size: u64,
    bytes: &'a [u8],
}

const NOBITS: u64 = 8;

/// Returns the sections of an ELF file of 64 bits.
fn sections(bytes: &[u8]) -> Option<Vec<Section<'_>>> {
    let at = number::<8>(bytes, 40)? as usize;
    let each = number::<2>(bytes, 58)? as usize;
    let count = number::<2>(bytes, 60)? as usize;
    let header = |index: usize| at + index * each;
    let names = number::<8>(bytes, header(number::<2>(bytes, 62)? as usize) + 24)? as usize;
    let section = |index: usize| {
        let at = header(index);
        let name = bytes.get(names + number::<4>(bytes, at)? as usize..)?;
        let name = std::str::from_utf8(&name[..name.iter().position(|&byte| byte == 0)?]).ok()?;
        let kind = number::<4>(bytes, at + 4)?;
        let (offset, size) = (number::<8>(bytes, at + 24)? as usize, number::<8>(bytes, at + 32)?);
        let end = if kind == NOBITS { offset } else { offset.checked_add(size as usize)? };
        Some(Section { name, size, bytes: if index == 0 { &[] } else { bytes.get(offset..end)? } })
    };
    (0..count).map(section).collect()
}

/// Returns how many bytes an ELF file of 64 bits has that begins there.
///
/// # Safety
/// `image` is an ELF file.
pub(crate) unsafe fn bytes_of(image: *const u8) -> usize {
    // SAFETY: the header has 64 bytes, by the contract.
    let head = unsafe { std::slice::from_raw_parts(image, 64) };
    let at = |offset| number::<8>(head, offset).unwrap_or(0) as usize;
    let many = |offset| number::<2>(head, offset).unwrap_or(0) as usize;
    let sections = at(40) + many(58) * many(60);
    let segments = at(32) + many(54) * many(56);
    // SAFETY: the file has its table of sections, by the contract.
    let table = unsafe { std::slice::from_raw_parts(image, sections) };
    let end = |index: usize| {
        let header = at(40) + index * many(58);
        let field = |offset| number::<8>(table, header + offset).unwrap_or(0);
        let nobits = number::<4>(table, header + 4) == Some(NOBITS);
        (field(24) + if nobits { 0 } else { field(32) }) as usize
    };
    (0..many(60)).map(end).chain([sections, segments]).max().unwrap_or(64)
}

/// Calls `each` with the number and the value of every attribute of such a section.
fn attributes(bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> Option<()>) -> Option<()> {
    let mut at = 0;
    while at < bytes.len() {
        let (format, name) = (bytes[at], *bytes.get(at + 1)?);
        let value = number::<2>(bytes, at + 2)? as usize;
        at += 4;
        // Formats 1 to 3 have their value in these two bytes; 4 has its length there.
        if format == 4 {
            each(name, bytes.get(at..at + value)?)?;
            at += value;
        }
    }
    Some(())
}

/// Reads a cubin. The error says what is not understood.
pub(super) fn parse(bytes: &[u8]) -> Result<Cubin, String> {
    read(bytes).ok_or("the cubin is damaged, or of another kind".to_string())?
}

fn read(bytes: &[u8]) -> Option<Result<Cubin, String>> {
    let flags = number::<4>(bytes, 48)?;
    // Since version 8 of the ABI the architecture is the second byte.
    let capability = (if *bytes.get(8)? >= 8 { flags >> 8 } else { flags } & 0xff) as u32;
    let sections = sections(bytes)?;
    let symbols = sections.iter().find(|section| section.name == ".symtab")?.bytes;
    let strings = sections.iter().find(|section| section.name == ".strtab")?.bytes;
    let symbol = |index: u64| {
        let name = strings.get(number::<4>(symbols, 24 * index as usize)? as usize..)?;
        std::str::from_utf8(&name[..name.iter().position(|&byte| byte == 0)?]).ok()
    };
    let names = sections.iter().filter_map(|section| section.name.strip_prefix(".text."));
    let mut kernels: BTreeMap<String, Kernel> = names.map(|name| (name.into(), Kernel::default())).collect();
    for section in &sections {
        let name = section.name;
        if let Some(kernel) = name.strip_prefix(".nv.shared.").and_then(|kernel| kernels.get_mut(kernel)) {
            kernel.shared = section.size as u32;
        } else if let Some(kernel) = name.strip_prefix(".nv.info.").and_then(|kernel| kernels.get_mut(kernel)) {
            attributes(section.bytes, |attribute, value| {
                let half = |at| number::<2>(value, at).map(|half| half as u32);
                match attribute {
                    attribute::MAX_THREADS => {
                        let sizes: Vec<_> = (0..3).map_while(|at| number::<4>(value, 4 * at)).collect();
                        kernel.max_threads = Some(sizes.iter().product::<u64>().min(1024) as u32);
                    }
                    attribute::PARAM_CBANK => kernel.parameter_base = half(4)?,
                    attribute::KPARAM_INFO => {
                        let (ordinal, offset) = (half(4)? as usize, half(6)?);
                        let size = (number::<4>(value, 8)? >> 18) as u32;
                        let room = kernel.parameters.len().max(ordinal + 1);
                        kernel.parameters.resize(room, (0, 0));
                        kernel.parameters[ordinal] = (offset, size);
                    }
                    _ => {}
                }
                Some(())
            })?;
        } else if let Some((bank, kernel)) = name
            .strip_prefix(".nv.constant")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(bank, kernel)| Some((bank.parse::<u8>().ok()?, kernel)))
            .filter(|(bank, _)| *bank != 0)
        {
            let Some(kernel) = kernels.get_mut(kernel) else { continue };
            kernel.banks.insert(bank, section.bytes.to_vec());
        } else if name.starts_with(".nv.constant") && !name.starts_with(".nv.constant0")
            || name.starts_with(".nv.global")
        {
            return Some(Err(format!("variables of a module ({name}) are not supported")));
        }
    }
    let info = sections.iter().find(|section| section.name == ".nv.info")?;
    attributes(info.bytes, |attribute, value| {
        let name = number::<4>(value, 0).and_then(symbol);
        let kernel = name.and_then(|name| kernels.get_mut(name));
        if let (Some(kernel), Some(value)) = (kernel, number::<4>(value, 4)) {
            match attribute {
                attribute::REGCOUNT => kernel.registers = value as u32,
                attribute::MIN_STACK_SIZE => kernel.stack = value as u32,
                _ => {}
            }
        }
        Some(())
    })?;
    Some(Ok(Cubin { capability, kernels }))
}
