//! The agreement between host and kernels, apart from images: launch shapes and the structs that launches pass. This
//! file mirrors `kernels/policy.h` and `kernels/job.h`, whose comments give the reasons; `tests/sources/policy.rs`
//! compares them.

use super::image::NibbleShape;

/// Bytes of shared memory for a table of at most as many bytes.
pub const TABLE_SMALL: u32 = 16384;
/// Bytes of shared memory for all other tables.
pub const TABLE_LARGE: u32 = 32768;
/// Bytes of shared memory for every table of nibbles.
pub const TABLE_NIBBLES: u32 = super::image::MOST_NIBBLE_BYTES;
/// Units of 16 bytes of code that a warp stages.
pub const CODE_UNITS: u32 = 96;
/// The most jobs of one launch of `df11_decode_many` takes.
pub const MOST_JOBS: usize = 32;
/// The most warps of a decoding block.
pub const MOST_WARPS: u32 = 24;
/// Warps of a decoding block, each from a compute capability (major · 10 + minor).
pub const WARPS: [(u32, u32); 7] = [(75, 6), (80, 10), (86, 14), (89, 14), (90, 12), (100, 12), (120, 14)];
/// Threads of a block of `df11_index`.
pub const INDEX_THREADS: u32 = 512;
/// Shared bytes of a block of `df11_index` in addition to its table.
pub const INDEX_SHARED: u32 = 5248;
/// Warps of a block of `df11_linear_decode` and of `df11_linear_make`.
pub const LINEAR_WARPS: u32 = 8;
/// Shared bytes of a block of `df11_linear_make`.
pub const LINEAR_SHARED: u32 = 512;

/// The most matrices of one launch of `df11_multiply_*`.
pub const MULTIPLY_PARTS: usize = 8;
/// Threads of a block of `df11_multiply_*`.
pub const MULTIPLY_THREADS: u32 = 256;
/// The most rows of tiles of a block of `df11_multiply_*`, each with the most vectors.
pub const MULTIPLY_ROWS: [(u32, u32); 3] = [(1, 16), (2, 8), (8, 4)];
/// The results are bf16: `DF11_MULTIPLY_BF16`.
pub(crate) const MULTIPLY_BF16: u32 = 1;
/// A block does one piece of the columns: `DF11_MULTIPLY_SPLIT`.
pub(crate) const MULTIPLY_SPLIT: u32 = 2;

/// What a decoding block needs of shared memory, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A table of nibbles.
    Nibbles,
    /// A table of at most [`TABLE_SMALL`] bytes.
    Small,
    /// A table of more.
    Large,
}

impl Form {
    /// All forms.
    pub const ALL: [Form; 3] = [Form::Nibbles, Form::Small, Form::Large];

    /// Returns the form of a table of 8-byte entries.
    pub fn of_table(table_bytes: u32) -> Form {
        if table_bytes <= TABLE_SMALL { Form::Small } else { Form::Large }
    }

    /// Returns the shared bytes of the table.
    pub fn table_shared(self) -> u32 {
        match self {
            Form::Nibbles => TABLE_NIBBLES,
            Form::Small => TABLE_SMALL,
            Form::Large => TABLE_LARGE,
        }
    }

    /// Returns the shared bytes of each warp of a decoding block: its code, and the exponents of its lanes.
    pub fn warp_shared(self) -> u32 {
        let exponents = 32 * super::image::LANE_WEIGHTS as u32;
        16 * CODE_UNITS + if self == Form::Nibbles { exponents / 2 } else { exponents }
    }

    /// Returns the shared bytes of a decoding block.
    pub fn decode_shared(self, warps: u32) -> u32 {
        self.table_shared() + warps * self.warp_shared()
    }
}

/// Returns the shared bytes of a block of `df11_index`.
pub fn index_shared(table_bytes: u32) -> u32 {
    Form::of_table(table_bytes).table_shared() + INDEX_SHARED
}

/// Returns the most rows of tiles of a block that multiplies with so many vectors.
pub fn multiply_rows(batch: u32) -> u32 {
    MULTIPLY_ROWS.iter().find(|&&(most, _)| batch <= most).map_or(1, |&(_, rows)| rows)
}

/// Returns the shared bytes of a block that multiplies with so many vectors: for each of its warps the vectors of a run, as
/// f32 with gaps or as bf16, and the sums of runs.
pub fn multiply_shared(batch: u32) -> u32 {
    let (x, vectors) = if batch > 2 { (1024, 8) } else { (2560, batch) };
    MULTIPLY_THREADS / 32 * (batch * x + multiply_rows(batch) * 16 * vectors * 4)
}

/// Returns the warps of a decoding block on a device whose blocks may have `most_shared` bytes of shared memory.
pub fn warps(capability: u32, form: Form, most_shared: u32) -> u32 {
    let tuned = WARPS.iter().rev().find(|&&(from, _)| from <= capability).map_or(1, |&(_, warps)| warps);
    let fit = most_shared.saturating_sub(form.table_shared()) / form.warp_shared();
    tuned.min(fit).clamp(1, MOST_WARPS)
}

/// Returns how many tiles each block of a launch should decode. `tiles` are those of each job, whose blocks are its
/// tiles divided by the result, rounded up. `capacity` is how many blocks run at once.
///
/// No launch has more blocks than run at once: the rest would start when all others are done, and take as long again.
/// Rounding up adds less than a block for each job, so the result grows until they fit. As many blocks as possible do
/// run, so that multiprocessors get about the same. Only with more than half as many jobs as blocks that run at once
/// are there several rounds of smaller blocks, because one block for each job would be uneven.
pub fn tiles_per_block(tiles: impl Iterator<Item = u64> + Clone, warps: u32, capacity: u32) -> u64 {
    let (jobs, all) = tiles.clone().fold((0u64, 0), |(jobs, all), tiles| (jobs + 1, all + tiles));
    let capacity = capacity.max(1) as u64;
    let room = capacity * (2 * jobs).div_ceil(capacity).max(1);
    // A block copies the table before its warps decode, so it should have a few tiles to decode. One for each warp
    // would be too many: groups that are too small for the device are done sooner the more multiprocessors they are
    // spread over.
    let mut each = all.div_ceil(room).max((warps as u64 / 4).max(1));
    for _ in 0..4 {
        let blocks: u64 = tiles.clone().map(|tiles| tiles.div_ceil(each)).sum();
        if blocks <= room {
            return each;
        }
        each = (each * blocks).div_ceil(room);
    }
    // With this many, the blocks fit however they are rounded.
    each.max(all.div_ceil(room + 1 - jobs))
}

/// Returns the same for a launch that must not have more than `capacity` blocks, though more could run at once. It has at
/// most as many jobs.
pub fn tiles_per_block_within(tiles: impl Iterator<Item = u64> + Clone, warps: u32, capacity: u32) -> u64 {
    let each = tiles_per_block(tiles.clone(), warps, capacity);
    let (jobs, all, blocks) =
        tiles.fold((0u64, 0, 0), |(jobs, all, blocks), tiles| (jobs + 1, all + tiles, blocks + tiles.div_ceil(each)));
    let capacity = capacity.max(1) as u64;
    if blocks <= capacity { each } else { each.max(all.div_ceil(capacity + 1 - jobs.min(capacity))) }
}

/// The parameter of the decoding kernel: `struct df11_job`. Addresses are device addresses.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DecodeJob {
    pub dst: u64,
    pub status: u64,
    pub first: u64,
    pub count: u64,
    pub state: u64,
    pub table: u64,
    pub starts: u64,
    pub lanes: u64,
    pub code: u64,
    pub signs: u64,
    pub code_units: u32,
    pub tiles: u32,
    pub last_weights: u32,
    pub end_tile: u32,
    pub whole_tile: u32,
    pub whole_end: u32,
    pub table_bytes: u32,
    pub first_block: u32,
    pub blocks: u32,
    pub flags: u32,
}

/// The flag of a job whose kernel may start before the one before it has ended: `DF11_JOB_EARLY`.
pub(crate) const JOB_EARLY: u32 = 1;
/// The flag of a job that is decoded by the image's table of nibbles: `DF11_JOB_NIBBLES`. Its shape is in the bits from
/// `NIBBLE_BASE_BIT`, `NIBBLE_SECOND_BIT` and `NIBBLE_TABLES_BIT` on.
const JOB_NIBBLES: u32 = 2;
const NIBBLE_BASE_BIT: u32 = 9;
const NIBBLE_SECOND_BIT: u32 = 17;
const NIBBLE_TABLES_BIT: u32 = 20;

impl DecodeJob {
    /// Returns the flags of a job that is decoded by a table of nibbles of that shape.
    pub(crate) fn nibble_flags(shape: NibbleShape) -> u32 {
        let NibbleShape { base, second_bits, tables, .. } = shape;
        let shape = (base as u32) << NIBBLE_BASE_BIT | second_bits << NIBBLE_SECOND_BIT | tables << NIBBLE_TABLES_BIT;
        JOB_NIBBLES | shape
    }

    /// Returns what its blocks need.
    pub(crate) fn form(&self) -> Form {
        if self.flags & JOB_NIBBLES != 0 { Form::Nibbles } else { Form::of_table(self.table_bytes) }
    }
}

/// The parameter of the kernel that decodes several groups: `struct df11_jobs`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodeJobs {
    pub count: u32,
    pub reserved: u32,
    pub job: [DecodeJob; MOST_JOBS],
}

/// The parameter of the index kernel: `struct df11_index_job`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IndexJob {
    pub image_state: u64,
    pub table: u64,
    pub starts: u64,
    pub lanes: u64,
    pub code: u64,
    pub gaps: u64,
    pub positions: u64,
    pub weights: u64,
    pub code_bytes: u64,
    pub code_units: u64,
    pub tiles: u64,
    pub blocks: u64,
    pub position_count: u64,
    pub table_bytes: u32,
    pub reserved: u32,
}

/// A part of the parameter of the kernel that decodes linear images: `struct df11_linear_decode_job`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinearDecodeJob {
    pub dst: u64,
    pub status: u64,
    pub state: u64,
    pub tiles: u64,
    pub starts: u64,
    pub escapes: u64,
    pub table: u64,
    pub first: u32,
    pub end: u32,
    pub columns: u32,
    pub ktiles: u32,
    pub from_tile: u32,
    pub end_tile: u32,
    pub blocks: u32,
    pub escape_count: u32,
    pub flags: u32,
    pub first_block: u32,
}

/// The parameter of the kernel that decodes linear images: `struct df11_linear_decode_jobs`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearDecodeJobs {
    pub count: u32,
    pub reserved: u32,
    pub job: [LinearDecodeJob; MOST_JOBS],
}

/// The parameter of the kernel that makes linear images: `struct df11_linear_make_job`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinearMakeJob {
    pub source: u64,
    pub state: u64,
    pub tiles: u64,
    pub starts: u64,
    pub escapes: u64,
    pub table: u64,
    pub count: u64,
    pub columns: u32,
    pub ktiles: u32,
    pub escape_count: u32,
    pub tile_count: u32,
}

/// A matrix of a multiplication: `struct df11_multiply_part`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MultiplyPart {
    pub image: u64,
    pub image_bytes: u64,
    pub tiles: u64,
    pub starts: u64,
    pub escapes: u64,
    pub table: u64,
    pub y: u64,
    pub y_stride: u64,
    pub y_step: u64,
    pub partials: u64,
    pub escape_count: u32,
    pub rows: u32,
    pub row_tiles: u32,
    pub tensor: u32,
    pub step: u32,
    pub first_block: u32,
}

/// The parameter of the kernels that multiply: `struct df11_multiply_job`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MultiplyJob {
    pub x: u64,
    pub x_stride: u64,
    pub x_step: u64,
    pub ids: u64,
    pub status: u64,
    pub columns: u32,
    pub ktiles: u32,
    pub runs: u32,
    pub width: u32,
    pub pieces: u32,
    pub sides: u32,
    pub inverse: u32,
    pub rows_of_tiles: u32,
    pub batch: u32,
    pub experts: u32,
    pub flags: u32,
    pub parts: u32,
    pub part: [MultiplyPart; MULTIPLY_PARTS],
}

macro_rules! fields {
    ($type:ident: $($field:ident),*) => { &[$((stringify!($field), std::mem::offset_of!($type, $field))),*] };
}

/// The fields of `struct df11_job` with their offsets in bytes.
pub const JOB_FIELDS: &[(&str, usize)] = fields!(
    DecodeJob: dst, status, first, count, state, table, starts, lanes, code, signs, code_units, tiles, last_weights, end_tile,
    whole_tile, whole_end, table_bytes, first_block, blocks, flags
);
/// The fields of `struct df11_index_job` with their offsets in bytes.
pub const INDEX_JOB_FIELDS: &[(&str, usize)] = fields!(
    IndexJob: image_state, table, starts, lanes, code, gaps, positions, weights, code_bytes, code_units, tiles, blocks,
    position_count, table_bytes, reserved
);

/// The fields of `struct df11_linear_decode_job` with their offsets in bytes.
pub const LINEAR_DECODE_JOB_FIELDS: &[(&str, usize)] = fields!(
    LinearDecodeJob: dst, status, state, tiles, starts, escapes, table, first, end, columns, ktiles, from_tile, end_tile,
    blocks, escape_count, flags, first_block
);
/// The fields of `struct df11_linear_make_job` with their offsets in bytes.
pub const LINEAR_MAKE_JOB_FIELDS: &[(&str, usize)] = fields!(
    LinearMakeJob: source, state, tiles, starts, escapes, table, count, columns, ktiles, escape_count, tile_count
);

/// The fields of `struct df11_multiply_part` with their offsets in bytes.
pub const MULTIPLY_PART_FIELDS: &[(&str, usize)] = fields!(
    MultiplyPart: image, image_bytes, tiles, starts, escapes, table, y, y_stride, y_step, partials, escape_count, rows,
    row_tiles, tensor, step, first_block
);
/// The fields of `struct df11_multiply_job` with their offsets in bytes.
pub const MULTIPLY_JOB_FIELDS: &[(&str, usize)] = fields!(
    MultiplyJob: x, x_stride, x_step, ids, status, columns, ktiles, runs, width, pieces, sides, inverse, rows_of_tiles, batch,
    experts, flags, parts, part
);

// The kernels' own sizes, and no more than every driver accepts for parameters.
const _: () = {
    assert!(size_of::<DecodeJob>() == 120 && size_of::<IndexJob>() == 112);
    assert!(size_of::<MultiplyPart>() == 104 && size_of::<MultiplyJob>() == 88 + 104 * MULTIPLY_PARTS);
    assert!(size_of::<DecodeJobs>() == 8 + 120 * MOST_JOBS && size_of::<DecodeJobs>() <= 4096);
    assert!(size_of::<LinearDecodeJob>() == 96 && size_of::<LinearMakeJob>() == 72);
    assert!(size_of::<LinearDecodeJobs>() == 8 + 96 * MOST_JOBS && size_of::<LinearDecodeJobs>() <= 4096);
};
