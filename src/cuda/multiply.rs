//! Multiplying with matrices of linear images, on the caller's stream: `y = W x`. As decoding ([`super::launch`]) it only
//! launches: one kernel, and a second one where columns are split over blocks. Nothing is allocated, waited for, loaded or
//! locked, and every call is legal while the stream is being captured. Experimental: the shape of these calls may change.
//!
//! `kernels/multiply.cuh` says how it is done and in which order sums are made.
//!
//! # How a launch is shaped
//!
//! A warp sums up a *run* of 512 columns for 16 rows; a block has eight warps. Its *piece* of the columns is as many runs as
//! warps have, or a few less so that all pieces are about equally wide. Where a row has fewer runs than a block has warps, a
//! block does several rows of tiles side by side. A block does all pieces one after the other, unless there are too few rows
//! to fill the device: then each block does one piece, and leaves the sums of runs in the caller's workspace for a second
//! launch. The order of sums is the same, so the bits are.

use super::device::Device;
use super::driver::{DevicePtr, Stream};
use super::image::linear::{LinearHead, LinearTensor, RECORD_BYTES, TILE_COLUMNS, TILE_ROWS};
use super::launch::partly;
use super::policy::{self, MultiplyJob, MultiplyPart};
use super::resident::Resident;
use crate::error::{Error, Result};

/// The most vectors of a call.
pub const MOST_VECTORS: u32 = 8;
/// The most matrices of a call.
pub const MOST_MATRICES: usize = policy::MULTIPLY_PARTS;
/// The most experts that a call can choose: a grid has no more blocks in that direction.
pub const MOST_CHOSEN: u32 = 65_535;
/// Columns of a run: what one warp sums up.
const RUN_COLUMNS: u64 = 512;

/// A matrix to multiply with, and where its results go.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// A resident whose image is linear.
    pub resident: &'a Resident,
    /// The number of the tensor in the image; with experts, that of expert 0.
    pub tensor: u64,
    /// With experts: the number of expert `e` is `tensor + e * step`.
    pub step: u64,
    /// Rows of the matrix.
    pub rows: u64,
    /// Columns of the matrix.
    pub columns: u64,
    /// The address of the results.
    pub y: DevicePtr,
    /// Elements from the results of one vector to those of the next.
    pub y_stride: u64,
    /// With experts: elements from the results of one chosen expert to those of the next.
    pub y_step: u64,
}

/// Experts chosen by numbers that are in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    /// The address of a `u32` for each chosen expert.
    pub ids: DevicePtr,
    /// How many are chosen.
    pub chosen: u64,
    /// How many there are.
    pub count: u64,
    /// Elements from the vectors of one chosen expert to those of the next; 0 if all have the same.
    pub x_step: u64,
}

/// What all matrices of a call share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Product {
    /// The address of the vectors, bf16.
    pub x: DevicePtr,
    /// Elements from one vector to the next.
    pub x_stride: u64,
    /// Vectors, at most [`MOST_VECTORS`].
    pub batch: u32,
    /// The results are bf16; otherwise f32.
    pub y_bf16: bool,
    /// Experts; `None` for plain matrices.
    pub experts: Option<Experts>,
    /// The address of the workspace.
    pub workspace: DevicePtr,
    /// Bytes of the workspace: at least [`workspace_bytes`].
    pub workspace_bytes: u64,
    /// The address of a `u32`, or 0.
    pub status: DevicePtr,
}

/// Returns why a device does not multiply matrices of that shape with so many vectors; `None` if it does.
pub fn refusal(device: &Device, rows: u64, columns: u64, batch: u32) -> Option<String> {
    let device = &*device.0;
    if !(1..=MOST_VECTORS).contains(&batch) {
        return Some(format!("{batch} vectors: products are made of 1 to {MOST_VECTORS}"));
    }
    if rows == 0 || columns < TILE_COLUMNS || rows.checked_mul(columns).is_none_or(|weights| weights > u32::MAX.into())
    {
        return Some(format!(
            "a matrix of {rows} × {columns}: there is at least one row, there are at least {TILE_COLUMNS} columns, and \
             less than 2^32 weights"
        ));
    }
    if batch > 2 && device.kernels.multiply_8.is_null() {
        let (name, capability) = (device.kernels.name, device.capability);
        return Some(format!(
            "{batch} vectors: more than two take tensor cores for bf16, which the kernels {name} for a device of compute \
             capability {}.{} do not use",
            capability / 10,
            capability % 10
        ));
    }
    None
}

/// Returns how many bytes of workspace a call needs: 0 where the columns are not split.
///
/// # Errors
///
/// As [`multiply`] for the matrices; addresses are not looked at.
pub fn workspace_bytes<'a>(operand: impl Fn(usize) -> Operand<'a>, count: usize, product: &Product) -> Result<u64> {
    Ok(Shape::of(&operand, count, product)?.workspace_bytes)
}

/// Multiplies up to [`MOST_MATRICES`] matrices of the same columns with the same vectors.
///
/// # Errors
///
/// `InvalidArgument`, `BufferTooSmall`, `Misaligned`, `DefaultStream`, `WrongDevice`, `Cuda`; `UnsupportedOption` if an
/// image is not linear, a matrix is stored in another shape, or [`refusal`] says why not.
///
/// # Safety
///
/// `stream` is a stream. Images, vectors, ids, workspace, results and status are memory of its context until it has executed
/// the work. Nobody else writes the images, the vectors and the ids or uses the rest meanwhile; no two results are in the same
/// place.
pub unsafe fn multiply<'a>(
    operand: impl Fn(usize) -> Operand<'a>,
    count: usize,
    product: &Product,
    stream: Stream,
) -> Result<()> {
    let shape = Shape::of(&operand, count, product)?;
    let device = &*operand(0).resident.device.0;
    device.check_null(stream)?;
    shape.check(&operand, count, product)?;
    if shape.chosen == 0 {
        return Ok(());
    }
    let mut job = shape.job(&operand, count, product);
    // SAFETY: the residents keep the device open, and so its context alive, which is current for the launches. The kernels
    // take a `MultiplyJob`, whose addresses were checked as far as they can be; the rest is what the caller must provide.
    unsafe {
        device.with_stream(stream, |room| {
            let blocks = shape.deal(&mut job, room.multiprocessors);
            let (kernel, shared) = match product.batch {
                1 => (device.kernels.multiply_1, policy::multiply_shared(1)),
                2 => (device.kernels.multiply_2, policy::multiply_shared(2)),
                batch => (device.kernels.multiply_8, policy::multiply_shared(batch)),
            };
            let pieces = if shape.is_split { job.pieces } else { 1 };
            let grid = [blocks, pieces, shape.chosen];
            device.launch_grid(kernel, grid, policy::MULTIPLY_THREADS, shared, &job, stream)?;
            if !shape.is_split {
                return Ok(());
            }
            let rows = job.part[..count].iter().map(|part| part.row_tiles).max().unwrap_or(0) as u64;
            let threads = rows * TILE_ROWS * vectors_of_sums(product.batch) as u64;
            let grid = [threads.div_ceil(policy::MULTIPLY_THREADS.into()) as u32, count as u32, shape.chosen];
            let added =
                device.launch_grid(device.kernels.multiply_add, grid, policy::MULTIPLY_THREADS, 0, &job, stream);
            added.map_err(|error| partly(error, 1))
        })
    }
}

/// Returns how many vectors sums have room for: a kernel is made for 1, 2 or 8.
fn vectors_of_sums(batch: u32) -> u32 {
    if batch > 2 { 8 } else { batch }
}

/// What follows from the matrices and the number of vectors.
struct Shape {
    columns: u64,
    chosen: u32,
    /// Runs of a row, and of a piece.
    runs: u64,
    width: u64,
    /// Rows of tiles that a block does side by side.
    sides: u64,
    is_split: bool,
    workspace_bytes: u64,
}

impl Shape {
    /// Checks the matrices, and returns what follows from them.
    fn of<'a>(operand: &impl Fn(usize) -> Operand<'a>, count: usize, product: &Product) -> Result<Shape> {
        if !(1..=MOST_MATRICES).contains(&count) {
            return Err(Error::InvalidArgument(format!("{count} matrices: there are 1 to {MOST_MATRICES} in a call")));
        }
        let first = operand(0);
        let device = &first.resident.device;
        let experts = product.experts.map_or(1, |experts| experts.count);
        let chosen = product.experts.map_or(1, |experts| experts.chosen);
        if experts == 0 || chosen > MOST_CHOSEN.into() {
            let reason = format!(
                "{chosen} chosen of {experts} experts: there is at least one, and at most {MOST_CHOSEN} are chosen"
            );
            return Err(Error::InvalidArgument(reason));
        }
        let mut row_tiles = 0;
        for number in 0..count {
            let one = operand(number);
            if one.columns != first.columns {
                let reason = format!("matrix {number} has {} columns, and matrix 0 has {}", one.columns, first.columns);
                return Err(Error::InvalidArgument(reason));
            }
            if let Some(reason) = refusal(device, one.rows, one.columns, product.batch) {
                return Err(Error::UnsupportedOption(format!("matrix {number}: {reason}")));
            }
            one.check(number, experts)?;
            row_tiles += one.rows.div_ceil(TILE_ROWS);
        }
        let runs = first.columns.div_ceil(RUN_COLUMNS);
        let warps = (policy::MULTIPLY_THREADS / 32) as u64;
        let width = runs.div_ceil(runs.div_ceil(warps));
        let sides = (warps / width).min(policy::multiply_rows(product.batch).into());
        // Fewer than two blocks for each multiprocessor cannot keep enough loads under way. What the device has decides,
        // and not what the stream may use: so the workspace depends on nothing else.
        let blocks = row_tiles.div_ceil(sides) * chosen;
        let is_split = width < runs && blocks < 2 * u64::from(device.0.info.multiprocessors);
        let sums = row_tiles * TILE_ROWS * u64::from(vectors_of_sums(product.batch)) * runs * chosen;
        let workspace_bytes = if is_split { 4 * sums } else { 0 };
        Ok(Shape { columns: first.columns, chosen: chosen as u32, runs, width, sides, is_split, workspace_bytes })
    }

    /// Checks the addresses.
    fn check<'a>(&self, operand: &impl Fn(usize) -> Operand<'a>, count: usize, product: &Product) -> Result<()> {
        let first = &*operand(0).resident.device.0;
        let batch = u64::from(product.batch);
        let aligned = |what: &'static str, value: u64, to: u64| {
            if value.is_multiple_of(to) {
                Ok(())
            } else {
                Err(Error::Misaligned { what: what.into(), to: to as usize })
            }
        };
        aligned("the status", product.status, 4)?;
        if product.x == 0 {
            return Err(Error::InvalidArgument("the address of x is 0".into()));
        }
        aligned("x", product.x, 16)?;
        if batch > 1 {
            aligned("the distance of vectors, in bytes,", product.x_stride.wrapping_mul(2), 16)?;
            if product.x_stride < self.columns {
                let reason = format!("an x_stride of {} is less than the {} columns", product.x_stride, self.columns);
                return Err(Error::InvalidArgument(reason));
            }
        }
        if let Some(experts) = product.experts {
            if experts.ids == 0 {
                return Err(Error::InvalidArgument("the address of the experts' numbers is 0".into()));
            }
            aligned("the list of experts' numbers", experts.ids, 4)?;
            aligned("the distance of experts' vectors, in bytes,", experts.x_step.wrapping_mul(2), 16)?;
        }
        if self.workspace_bytes > 0 {
            if product.workspace == 0 {
                return Err(Error::InvalidArgument("the address of the workspace is 0".into()));
            }
            aligned("the workspace", product.workspace, 16)?;
            if product.workspace_bytes < self.workspace_bytes {
                return Err(Error::BufferTooSmall {
                    what: "the workspace".into(),
                    needed: self.workspace_bytes,
                    given: product.workspace_bytes,
                });
            }
        }
        let element = if product.y_bf16 { 2 } else { 4 };
        let steps = u64::from(self.chosen).saturating_sub(1);
        for number in 0..count {
            let Operand { resident, rows, y, y_stride, y_step, .. } = operand(number);
            let device = &*resident.device.0;
            if device.context != first.context || device.driver.identity() != first.driver.identity() {
                let reason = format!("matrix {number} is in another context than matrix 0");
                return Err(Error::WrongDevice(reason));
            }
            if y == 0 {
                return Err(Error::InvalidArgument(format!("the address of y of matrix {number} is 0")));
            }
            aligned("y", y, element)?;
            if batch > 1 && y_stride < rows {
                let reason = format!("matrix {number}: a y_stride of {y_stride} is less than its {rows} rows");
                return Err(Error::InvalidArgument(reason));
            }
            let last = (batch - 1).checked_mul(y_stride).zip(steps.checked_mul(y_step));
            let end = last.and_then(|(a, b)| a.checked_add(b)?.checked_add(rows)?.checked_mul(element)?.checked_add(y));
            let Some(end) = end else {
                return Err(Error::InvalidArgument(format!("y of matrix {number} leaves the address space")));
            };
            let image = resident.image();
            let image_end = image + resident.linear_head().map_or(0, LinearHead::image_bytes);
            let overlaps = |from: u64, to: u64| from < image_end && image < to;
            if overlaps(y, end)
                || self.workspace_bytes > 0
                    && overlaps(product.workspace, product.workspace.saturating_add(self.workspace_bytes))
                || product.status != 0 && overlaps(product.status, product.status.saturating_add(4))
            {
                let reason = format!("results, workspace or status overlap the image of matrix {number}");
                return Err(Error::InvalidArgument(reason));
            }
        }
        let reach = |stride: u64, times: u64| stride.checked_mul(times);
        let x_step = product.experts.map_or(0, |experts| experts.x_step);
        let x_end = reach(product.x_stride, batch - 1)
            .zip(reach(x_step, steps))
            .and_then(|(a, b)| a.checked_add(b)?.checked_add(self.columns)?.checked_mul(2)?.checked_add(product.x));
        if x_end.is_none() {
            return Err(Error::InvalidArgument("x leaves the address space".into()));
        }
        Ok(())
    }

    /// Returns the job of the kernels, without what depends on the room for it.
    fn job<'a>(&self, operand: &impl Fn(usize) -> Operand<'a>, count: usize, product: &Product) -> MultiplyJob {
        let mut job = MultiplyJob {
            x: product.x,
            x_stride: product.x_stride,
            x_step: product.experts.map_or(0, |experts| experts.x_step),
            ids: product.experts.map_or(0, |experts| experts.ids),
            status: product.status,
            columns: self.columns as u32,
            ktiles: self.columns.div_ceil(TILE_COLUMNS) as u32,
            runs: self.runs as u32,
            width: self.width as u32,
            pieces: self.runs.div_ceil(self.width) as u32,
            sides: self.sides as u32,
            inverse: 256u32.div_ceil(self.width as u32),
            batch: product.batch,
            // Numbers of experts have 32 bits, and an image has at most 1,024 tensors.
            experts: product.experts.map_or(1, |experts| experts.count) as u32,
            flags: if product.y_bf16 { policy::MULTIPLY_BF16 } else { 0 }
                | if self.is_split { policy::MULTIPLY_SPLIT } else { 0 },
            parts: count as u32,
            ..MultiplyJob::default()
        };
        let mut partials = product.workspace;
        for (number, part) in job.part[..count].iter_mut().enumerate() {
            let one = operand(number);
            let image = one.resident.image();
            let row_tiles = one.rows.div_ceil(TILE_ROWS);
            *part = MultiplyPart {
                image,
                y: one.y,
                y_stride: one.y_stride,
                y_step: one.y_step,
                partials,
                rows: one.rows as u32,
                row_tiles: row_tiles as u32,
                tensor: one.tensor as u32,
                step: one.step as u32,
                ..MultiplyPart::default()
            };
            if let Some(head) = one.resident.linear_head() {
                let &LinearTensor { tiles, starts, escapes, escape_count, table, .. } =
                    &head.tensors()[one.tensor as usize];
                part.image_bytes = head.image_bytes();
                (part.tiles, part.starts, part.escapes) = (image + tiles, image + starts, image + escapes);
                (part.escape_count, part.table) = (escape_count, u64::from_le_bytes(table));
            }
            let sums = row_tiles * TILE_ROWS * u64::from(vectors_of_sums(product.batch));
            partials += if self.is_split { 4 * sums * self.runs * u64::from(self.chosen) } else { 0 };
        }
        job
    }

    /// Deals the rows to blocks, and returns the number of blocks in the grid's first direction: about four for each
    /// multiprocessor, but no block gets more rows than it has room for sums. More rows in a block read `x` less often.
    fn deal(&self, job: &mut MultiplyJob, multiprocessors: u32) -> u32 {
        let parts = &mut job.part[..job.parts as usize];
        let row_tiles: u64 = parts.iter().map(|part| u64::from(part.row_tiles)).sum();
        let pieces = if self.is_split { u64::from(job.pieces) } else { 1 };
        let all = row_tiles * pieces * u64::from(self.chosen);
        let most = u64::from(policy::multiply_rows(job.batch)) / self.sides * self.sides;
        let each = all.div_ceil(4 * u64::from(multiprocessors.max(1))).next_multiple_of(self.sides).min(most);
        job.rows_of_tiles = each as u32;
        let mut blocks = 0;
        for part in parts {
            part.first_block = blocks;
            blocks += part.row_tiles.div_ceil(each as u32);
        }
        blocks
    }
}

impl Operand<'_> {
    /// Checks that the image has the matrix, in that shape, and all experts'.
    fn check(&self, number: usize, experts: u64) -> Result<()> {
        let Some(head) = self.resident.linear_head() else {
            let reason =
                format!("matrix {number}: its image is not linear, and products are made from linear images only");
            return Err(Error::UnsupportedOption(reason));
        };
        let last = (experts - 1).checked_mul(self.step).and_then(|steps| steps.checked_add(self.tensor));
        if last.is_none_or(|last| last >= head.tensors().len() as u64) {
            let (tensors, tensor) = (head.tensors().len(), self.tensor);
            let reason = match experts {
                1 => format!("matrix {number}: there is no tensor {tensor} in an image of {tensors}"),
                _ => format!(
                    "matrix {number}: {experts} experts from tensor {tensor} on, each {} after the other, are not in an \
                     image of {tensors} tensors",
                    self.step
                ),
            };
            return Err(Error::InvalidArgument(reason));
        }
        for expert in 0..experts {
            let tensor = (self.tensor + expert * self.step) as usize;
            let before = if tensor == 0 { 0 } else { head.ends()[tensor - 1] };
            let (has, weights) = (&head.tensors()[tensor], head.ends()[tensor] - before);
            if (has.rows, has.columns, weights) != (self.rows, self.columns, self.rows * self.columns) {
                return Err(Error::UnsupportedOption(format!(
                    "matrix {number}: tensor {tensor} is stored as {} × {}, not as {} × {}",
                    has.rows, has.columns, self.rows, self.columns
                )));
            }
        }
        Ok(())
    }
}

const _: () = assert!(RECORD_BYTES == 64, "the records that kernels read");
