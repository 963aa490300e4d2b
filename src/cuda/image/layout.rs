//! The layout of an image, which follows from the group's sizes and code alone, and the head that states it.
//!
//! # The header
//!
//! ```text
//!   0  magic "DF11IMG\0"        52 u32 second-level bits  104 u64 bytes of code sect.  148 u32 tensors of the group
//!   8  u32 version, 1           56 u32 bytes of table     112 u64 offset of signs      152 u32 slices
//!  12  u32 head bytes           60 u32 longest code       120 u64 tiles                156 table of nibbles
//!  16  u64 image bytes          64 u64 offset of ends     128 u64 first element        160 zeros
//!  24  u64 weights              72 u64 offset of table    136 u64 weights of the group 248 u32 state
//!  32  u64 bytes of codes       80 u64 offset of starts   144 u32 first tensor         252 u32 zero
//!  40  u32 tensors              88 u64 offset of lanes
//!  44  u32 weights of a lane    96 u64 offset of code
//!  48  u32 bits of a window                                                        240 u64 checksum
//! ```
//!
//! Bytes 128 to 155 say which part of its group an image holds ([`Extent`]), and are zeros in the image of a whole
//! group: the group's weight with which a range begins, the weights of the whole group, the number of the first tensor
//! of which the range has weights, the number of all tensors, and the number of slices. The first element and the first
//! tensor are 0 where there are slices.
//!
//! Bytes 156 to 159 say what shape the table of nibbles has ([`NibbleShape`]): u8 base, u8 second-level bits, u16 tables;
//! all are zero where there is none.
//!
//! The checksum is the first eight bytes of the SHA-256 of the head without checksum and state: bytes 0 to 239, then
//! all from 256. It detects damage, not malice.

use super::device_table::{DeviceTable, Shape};
use super::nibbles::{NibbleShape, NibbleTable};
use super::*;
use crate::error::{Error, Result, grow, shorten};
use crate::format::{Group, MOST_TENSORS, Member};
use crate::huffman::code::CodeTable;
use crate::huffman::{BLOCK_BYTES, GAP_BYTES_PER_BLOCK, MAX_CODE_BITS};
use sha2::{Digest, Sha256};

/// The sizes and offsets of an image, all in bytes from its start unless said otherwise. Every section begins at a
/// multiple of [`ALIGNMENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageLayout {
    /// Weights of the image: those of the group, or of its part.
    pub weights: u64,
    /// Bytes of codes: those of `encoded_exponent` in the file, or those that the part takes.
    pub code_bytes: u64,
    /// Tensors of which the image holds weights, or slices.
    pub tensors: u32,
    /// The part of its group that the image holds.
    pub extent: Extent,
    /// Bits of the group's longest code; 0 if it has none.
    pub longest: u32,
    /// Bits that a second-level table resolves.
    pub second_bits: u32,
    /// Bytes of the decoding table: a multiple of 16, at most 32,768.
    pub table_bytes: u32,
    /// The shape of the table of nibbles; `None` for an image without one.
    pub nibble_shape: Option<NibbleShape>,
    /// Tiles of 3,328 weights, the last one perhaps not full.
    pub tiles: u64,
    /// The offset of the ends of tensors.
    pub ends: u64,
    /// The offset of the slices.
    pub slices: u64,
    /// The offset of the decoding table.
    pub table: u64,
    /// The offset of the table of nibbles, if there is one.
    pub nibbles: u64,
    /// The offset of the tiles' starts: the end of the head.
    pub starts: u64,
    /// The offset of the lanes' starts.
    pub lanes: u64,
    /// The offset of the codes.
    pub code: u64,
    /// Bytes of the code section with its zeros: a multiple of 16.
    pub code_section_bytes: u64,
    /// The offset of the signs and mantissas.
    pub signs: u64,
    /// Bytes of the whole image.
    pub image_bytes: u64,
}

/// The part of its group that an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// The group's weight that is the image's first. 0 where there are slices.
    pub first: u64,
    /// Weights of the whole group.
    pub group_weights: u64,
    /// The group's tensor that is the image's first. 0 where there are slices.
    pub first_tensor: u32,
    /// Tensors of the whole group.
    pub group_tensors: u32,
    /// The number of slices; 0 for a range and for a whole group.
    pub slices: u32,
}

impl Extent {
    /// Returns whether it is all of a group, whose image has these sizes.
    pub(in crate::cuda) fn is_whole(&self, weights: u64, tensors: u32) -> bool {
        *self == Extent::whole(weights, tensors)
    }

    pub(in crate::cuda) fn whole(weights: u64, tensors: u32) -> Extent {
        Extent { first: 0, group_weights: weights, first_tensor: 0, group_tensors: tensors, slices: 0 }
    }

    /// Returns whether an image of these sizes can hold it.
    fn is_possible(&self, weights: u64, tensors: u32) -> bool {
        let Extent { first, group_weights, first_tensor, group_tensors, slices } = *self;
        group_weights <= u32::MAX as u64
            && group_tensors <= MOST_TENSORS as u32
            && match slices {
                0 => {
                    first.checked_add(weights).is_some_and(|end| end <= group_weights)
                        && first_tensor.checked_add(tensors).is_some_and(|end| end <= group_tensors)
                }
                // They may overlap, so there may be more weights than in the group.
                _ => first == 0 && first_tensor == 0 && slices == tensors,
            }
    }
}

/// The numbers that a layout follows from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub weights: u64,
    pub code_bytes: u64,
    pub tensors: u32,
    pub extent: Extent,
    pub longest: u32,
    pub second_bits: u32,
    pub table_bytes: u32,
    pub nibble_shape: Option<NibbleShape>,
}

impl Sizes {
    /// Returns the sizes of the image of a whole group.
    pub fn of(group: Group) -> Result<Sizes> {
        let too_many = || Error::UnsupportedFormat {
            reason: format!(
                "group '{}' cannot be decoded on a device: its look-up rows hold {} code words",
                shorten(group.name(), 80),
                group.data().codes().codes().len()
            ),
            place: Default::default(),
        };
        let shape = Shape::of(group.data().codes()).ok_or_else(too_many)?;
        let (weights, tensors) = (group.element_count(), group.data().cuts().len() as u32 - 1);
        Ok(Sizes {
            weights,
            code_bytes: group.data().member(Member::EncodedExponent).len,
            tensors,
            extent: Extent::whole(weights, tensors),
            longest: group.data().codes().longest(),
            second_bits: shape.second_bits,
            table_bytes: shape.bytes(),
            nibble_shape: NibbleShape::of(group.data().codes()),
        })
    }

    /// Returns the layout; an error if no group has such sizes.
    pub fn layout(self) -> Result<ImageLayout> {
        ImageLayout::new(self).ok_or_else(|| Error::Internal(format!("no layout for {self:?}")))
    }
}

/// Returns the next multiple.
fn up(bytes: u64, to: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(to)
}

/// Returns the bytes that gaps take while they are parked, and those that positions may take after them. A group has at
/// most two positions more than blocks.
fn parked(code_bytes: u64) -> Option<(u64, u64)> {
    let blocks = code_bytes.div_ceil(BLOCK_BYTES as u64);
    Some((up(blocks.checked_mul(GAP_BYTES_PER_BLOCK as u64)?, ALIGNMENT)?, blocks.checked_add(2)?.checked_mul(4)?))
}

impl ImageLayout {
    /// Returns the layout of a group's image. Walks no codes, and allocates nothing.
    ///
    /// # Errors
    ///
    /// `UnsupportedFormat` for a code that takes more tables than a device's memory for them holds. No code that gives
    /// each exponent one word does: see [`DeviceTable`].
    pub fn of(group: Group) -> Result<ImageLayout> {
        Sizes::of(group)?.layout()
    }

    /// Returns the layout that a group would have whose codes take that many bytes; `None` if no group has such sizes. Without a
    /// code the table is as large as that of a layer of a published model.
    pub(crate) fn estimated(
        weights: u64,
        code_bytes: u64,
        tensors: usize,
        codes: Option<&CodeTable>,
    ) -> Option<ImageLayout> {
        const OF_A_LAYER: Shape = Shape { second_bits: 7, tables: 4 };
        let shape = codes.map_or(Some(OF_A_LAYER), Shape::of)?;
        let tensors = u32::try_from(tensors).ok()?;
        ImageLayout::new(Sizes {
            weights,
            code_bytes,
            tensors,
            extent: Extent::whole(weights, tensors),
            longest: codes.map_or(MAX_CODE_BITS, CodeTable::longest),
            second_bits: shape.second_bits,
            table_bytes: shape.bytes(),
            nibble_shape: codes.map_or(Some(NibbleShape::OF_A_LAYER), NibbleShape::of),
        })
    }

    /// Returns the layout that an equal part of a group would have, one of `count`; `None` if no group has such sizes.
    pub(crate) fn of_share(whole: &ImageLayout, count: u64) -> Option<ImageLayout> {
        let &ImageLayout { weights, code_bytes, tensors, longest, second_bits, table_bytes, nibble_shape, .. } = whole;
        let (weights, code_bytes) = (weights.div_ceil(count), code_bytes.div_ceil(count));
        let extent = Extent::whole(weights, tensors);
        ImageLayout::new(Sizes {
            weights,
            code_bytes,
            tensors,
            extent,
            longest,
            second_bits,
            table_bytes,
            nibble_shape,
        })
    }

    /// Returns the layout for sizes; `None` if no group has such sizes.
    fn new(sizes: Sizes) -> Option<ImageLayout> {
        let Sizes { weights, code_bytes, tensors, extent, longest, second_bits, table_bytes, nibble_shape } = sizes;
        // At most 32 bits a weight, and the bytes that an opened group may have in excess before its codes are walked; the
        // codes of a range begin somewhere in a unit.
        let lead = if extent.first > 0 { UNIT_BYTES } else { 0 };
        let possible = weights <= u32::MAX as u64
            && code_bytes <= weights * 4 + 8 + lead
            && (1..=MOST_TENSORS as u32).contains(&tensors)
            && extent.is_possible(weights, tensors)
            && longest <= MAX_CODE_BITS
            && Shape::sizes(second_bits).any(|bytes| bytes == table_bytes)
            && nibble_shape.is_none_or(NibbleShape::is_possible);
        if !possible {
            return None;
        }
        let section = |from: u64, bytes: u64| up(from.checked_add(bytes)?, ALIGNMENT);
        let tiles = weights.div_ceil(TILE_WEIGHTS);
        let ends = HEADER_BYTES as u64;
        let slices = section(ends, 8 * tensors as u64)?;
        let table = section(slices, SLICE_BYTES * extent.slices as u64)?;
        let nibbles = section(table, table_bytes as u64)?;
        let starts = section(nibbles, nibble_shape.map_or(0, |shape| shape.bytes().into()))?;
        let lanes = section(starts, 4 * (tiles + 1))?;
        let code = section(lanes, 2 * TILE_LANES * tiles)?;
        let code_section_bytes = up(code_bytes, UNIT_BYTES)? + CODE_SLACK;
        let signs = section(code, code_section_bytes)?;
        let (gaps, positions) = parked(code_bytes)?;
        let image_bytes = section(signs, weights.max(gaps + positions))?;
        Some(ImageLayout {
            weights,
            code_bytes,
            tensors,
            extent,
            longest,
            second_bits,
            table_bytes,
            nibble_shape,
            tiles,
            ends,
            slices,
            table,
            nibbles,
            starts,
            lanes,
            code,
            code_section_bytes,
            signs,
            image_bytes,
        })
    }

    /// Returns whether the image holds all of its group, one weight after the other.
    pub fn is_whole(&self) -> bool {
        self.extent.is_whole(self.weights, self.tensors)
    }

    /// Returns the bytes of the head: all that is needed to use an image on a device.
    pub fn head_bytes(&self) -> u64 {
        self.starts
    }

    /// Returns the 16-byte units of the code section, zeros after the codes included.
    pub fn code_units(&self) -> u64 {
        self.code_section_bytes / UNIT_BYTES
    }

    /// Returns the blocks of 4,096 bytes of code.
    pub fn blocks(&self) -> u64 {
        self.code_bytes.div_ceil(BLOCK_BYTES as u64)
    }

    /// Returns the offset of the group's gaps while a device makes the index: 320 bytes for each block.
    pub fn parked_gaps(&self) -> u64 {
        self.signs
    }

    /// Returns the offset of the group's positions while a device makes the index: after the gaps, at the next multiple
    /// of [`ALIGNMENT`].
    pub fn parked_positions(&self) -> u64 {
        // It did not overflow when the layout was made.
        self.signs + parked(self.code_bytes).map_or(0, |(gaps, _)| gaps)
    }
}

/// The head of an image: its layout, the ends of its tensors, and its decoding table. It is all that is needed to use
/// an image on a device, without the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    layout: ImageLayout,
    ends: Vec<u64>,
    slices: Vec<Slice>,
    table: DeviceTable,
    nibbles: Option<NibbleTable>,
}

impl Head {
    /// Makes the head of a group's image, with its table of some thousand entries.
    ///
    /// # Errors
    ///
    /// As [`ImageLayout::of`].
    pub fn of(group: Group) -> Result<Head> {
        Head::new(group, ImageLayout::of(group)?, group.data().cuts()[1..].to_vec(), Vec::new())
    }

    /// Makes the head of an image that holds a part of a group: `ends` are those of the image's tensors, counted from its
    /// first weight.
    pub(super) fn new(group: Group, layout: ImageLayout, ends: Vec<u64>, slices: Vec<Slice>) -> Result<Head> {
        let table =
            DeviceTable::new(group.data().codes()).ok_or_else(|| Error::Internal("a shape, but no table".into()))?;
        let nibbles = match layout.nibble_shape {
            None => None,
            Some(shape) => Some(
                NibbleTable::new(group.data().codes(), shape)
                    .ok_or_else(|| Error::Internal(format!("{shape:?}, but no table of nibbles")))?,
            ),
        };
        Ok(Head { layout, ends, slices, table, nibbles })
    }

    /// Reads a head from an image's first bytes, which must hold at least the whole head. They are treated as untrusted
    /// input: every number must follow from the few that are free, and the table must not lead out of itself.
    ///
    /// The state word is not checked.
    ///
    /// # Errors
    ///
    /// `InvalidFormat` if the bytes are not the beginning of an image, `UnsupportedFormat` for another version,
    /// `Corrupt` for a head that contradicts itself or its checksum.
    pub fn parse(bytes: &[u8]) -> Result<Head> {
        let nowhere = crate::error::Place::default;
        let corrupt = |reason: &str| Error::corrupt(nowhere(), format!("the image's head is damaged: {reason}"));
        let short = |given: &[u8], has: u64| {
            let reason =
                format!("the image's head is cut short: {} bytes are given, and it has {has} or more", given.len());
            Error::corrupt(nowhere(), reason)
        };
        if !bytes.starts_with(&IMAGE_MAGIC) {
            return Err(Error::invalid(nowhere(), "not an image: it does not begin with DF11IMG"));
        }
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| short(bytes, HEADER_BYTES as u64))?;
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if u32_at(8) != IMAGE_VERSION {
            let reason = format!("an image of version {}: this library knows version {IMAGE_VERSION}", u32_at(8));
            return Err(Error::unsupported(nowhere(), reason));
        }
        let (weights, tensors) = (u64_at(24), u32_at(40));
        let extent = match header[EXTENT_AT..][..EXTENT_BYTES].iter().all(|&byte| byte == 0) {
            true => Extent::whole(weights, tensors),
            false => Extent {
                first: u64_at(128),
                group_weights: u64_at(136),
                first_tensor: u32_at(144),
                group_tensors: u32_at(148),
                slices: u32_at(152),
            },
        };
        let layout = ImageLayout::new(Sizes {
            weights,
            code_bytes: u64_at(32),
            tensors,
            extent,
            longest: u32_at(60),
            second_bits: u32_at(52),
            table_bytes: u32_at(56),
            nibble_shape: NibbleShape::from_bytes(std::array::from_fn(|i| header[NIBBLES_AT + i])),
        })
        .ok_or_else(|| corrupt("no group has these sizes"))?;
        // One comparison for magic, version, constants, offsets and everything that must be zero.
        let mut want = header_of(&layout);
        want[240..252].copy_from_slice(&header[240..252]);
        if want != *header {
            return Err(corrupt("its offsets do not follow from its sizes"));
        }
        let head = bytes.get(..layout.head_bytes() as usize).ok_or_else(|| short(bytes, layout.head_bytes()))?;
        if u64_at(240) != checksum(head) {
            return Err(corrupt("its checksum differs"));
        }

        let section = |from: u64, to: u64| head.get(from as usize..to as usize).unwrap_or_default();
        let (ends, after_ends) = section(layout.ends, layout.slices).split_at(8 * layout.tensors as usize);
        let (slices, after_slices) =
            section(layout.slices, layout.table).split_at(SLICE_BYTES as usize * extent.slices as usize);
        let (table, after_table) = section(layout.table, layout.nibbles).split_at(layout.table_bytes as usize);
        if after_ends.iter().chain(after_slices).chain(after_table).any(|&b| b != 0) {
            return Err(corrupt("there are bytes between its sections"));
        }
        let (ends, _) = ends.as_chunks();
        let ends: Vec<u64> = ends.iter().map(|&end| u64::from_le_bytes(end)).collect();
        if !ends.is_sorted() || ends.last() != Some(&layout.weights) {
            return Err(corrupt("its tensors do not end where the weights do"));
        }
        let slices: Vec<Slice> = slices.as_chunks().0.iter().map(Slice::from_bytes).collect();
        let mut end = 0;
        for (slice, &stored) in slices.iter().zip(&ends) {
            end += slice.check_in_image(&extent).ok_or_else(|| corrupt("a slice leaves its group"))?;
            if end != stored {
                return Err(corrupt("its slices do not end where its tensors do"));
            }
        }
        let table =
            DeviceTable::parse(table, layout.second_bits).ok_or_else(|| corrupt("its table leads out of itself"))?;
        let nibbles = match layout.nibble_shape {
            None => None,
            Some(shape) => {
                let (table, after) = section(layout.nibbles, layout.starts).split_at(shape.bytes() as usize);
                if after.iter().any(|&b| b != 0) {
                    return Err(corrupt("there are bytes between its sections"));
                }
                let table = NibbleTable::parse(table, shape);
                Some(table.ok_or_else(|| corrupt("its table of nibbles leads out of itself"))?)
            }
        };
        Ok(Head { layout, ends, slices, table, nibbles })
    }

    /// Returns the layout.
    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    /// Returns the number of the image's weights before the end of each tensor or slice; the last is the number of all.
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Returns the slices; none for a range and for a whole group.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// Returns the decoding table.
    pub fn table(&self) -> &DeviceTable {
        &self.table
    }

    /// Returns the table of nibbles, if the image has one.
    pub fn nibbles(&self) -> Option<&NibbleTable> {
        self.nibbles.as_ref()
    }

    /// Returns the head's bytes, [`ImageLayout::head_bytes`] of them: the first of the image.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let layout = &self.layout;
        let mut head = Vec::new();
        grow(&mut head, layout.head_bytes() as usize, 0u8, "the head of an image")?;
        head[..HEADER_BYTES].copy_from_slice(&header_of(layout));
        for (to, end) in head[layout.ends as usize..].chunks_exact_mut(8).zip(&self.ends) {
            to.copy_from_slice(&end.to_le_bytes());
        }
        for (to, slice) in head[layout.slices as usize..].as_chunks_mut().0.iter_mut().zip(&self.slices) {
            *to = slice.to_bytes();
        }
        head[layout.table as usize..][..layout.table_bytes as usize].copy_from_slice(self.table.bytes());
        if let Some(nibbles) = &self.nibbles {
            head[layout.nibbles as usize..][..nibbles.bytes().len()].copy_from_slice(nibbles.bytes());
        }
        let sum = checksum(&head);
        head[240..248].copy_from_slice(&sum.to_le_bytes());
        Ok(head)
    }
}

/// The bytes of the header that say which part of its group an image holds.
const EXTENT_AT: usize = 128;
const EXTENT_BYTES: usize = 28;
/// The bytes of the header that hold the shape of the table of nibbles.
const NIBBLES_AT: usize = 156;

/// Returns the header of a layout, without its checksum.
fn header_of(layout: &ImageLayout) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&IMAGE_MAGIC);
    for (at, value) in [
        (8, IMAGE_VERSION),
        (12, layout.head_bytes() as u32),
        (40, layout.tensors),
        (44, LANE_WEIGHTS as u32),
        (48, WINDOW),
        (52, layout.second_bits),
        (56, layout.table_bytes),
        (60, layout.longest),
    ] {
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [
        (16, layout.image_bytes),
        (24, layout.weights),
        (32, layout.code_bytes),
        (64, layout.ends),
        (72, layout.table),
        (80, layout.starts),
        (88, layout.lanes),
        (96, layout.code),
        (104, layout.code_section_bytes),
        (112, layout.signs),
        (120, layout.tiles),
    ] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    if let Some(shape) = layout.nibble_shape {
        header[NIBBLES_AT..][..4].copy_from_slice(&shape.to_bytes());
    }
    if !layout.is_whole() {
        let Extent { first, group_weights, first_tensor, group_tensors, slices } = layout.extent;
        header[128..136].copy_from_slice(&first.to_le_bytes());
        header[136..144].copy_from_slice(&group_weights.to_le_bytes());
        for (at, value) in [(144, first_tensor), (148, group_tensors), (152, slices)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    header
}

/// Returns the checksum of a whole head.
pub(super) fn checksum(head: &[u8]) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(&head[..240]);
    hasher.update(&head[HEADER_BYTES..]);
    let digest: [u8; 32] = hasher.finalize().into();
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Sizes = Sizes {
        weights: 1,
        code_bytes: 1,
        tensors: 1,
        extent: WIDE,
        longest: 1,
        second_bits: 7,
        table_bytes: 16384,
        nibble_shape: None,
    };
    /// A group that any weights can be a part of.
    const WIDE: Extent = Extent {
        first: 0,
        group_weights: u32::MAX as u64,
        first_tensor: 0,
        group_tensors: MOST_TENSORS as u32,
        slices: 0,
    };

    #[test]
    fn the_largest_group_has_a_layout_and_impossible_ones_have_none() {
        let weights = u32::MAX as u64;
        let sizes = Sizes { weights, code_bytes: 4 * weights, tensors: 1024, longest: 32, ..SMALL };
        let largest = ImageLayout::new(sizes).unwrap();
        // Codes of 32 bits: 40 bits a weight, 65,536 bits a tile and more, all of it above 2^34 bytes.
        assert_eq!(largest.code_units(), weights / 4 + 1 + 4);
        assert!(largest.image_bytes > 5 * weights && largest.image_bytes < 5 * weights + weights / 40);
        // A tile's start is counted in units of 128 bits, which fit 32 bits.
        assert!(largest.code_bytes / UNIT_BYTES < u32::MAX as u64);
        for wrong in [
            Sizes { weights: weights + 1, ..sizes },
            Sizes { code_bytes: 4 * weights + 9, ..sizes },
            Sizes { tensors: 0, ..sizes },
            Sizes { tensors: 1025, ..sizes },
            Sizes { longest: 33, ..sizes },
            Sizes { second_bits: 8, ..sizes },
            Sizes { second_bits: 1, ..sizes },
            Sizes { table_bytes: 16400, ..sizes },
            Sizes { table_bytes: 0, ..sizes },
            Sizes { table_bytes: 65536, ..sizes },
            Sizes { weights: u64::MAX, code_bytes: u64::MAX, ..sizes },
            Sizes { extent: Extent { first: 1, ..WIDE }, ..sizes },
            Sizes { extent: Extent { first: u64::MAX, ..WIDE }, ..sizes },
            Sizes { extent: Extent { group_weights: weights + 1, ..WIDE }, ..sizes },
            Sizes { extent: Extent { first_tensor: 1, ..WIDE }, ..sizes },
            Sizes { extent: Extent { first_tensor: u32::MAX, ..WIDE }, ..sizes },
            Sizes { extent: Extent { group_tensors: 1025, ..WIDE }, ..sizes },
            Sizes { extent: Extent { slices: 1023, ..WIDE }, ..sizes },
            Sizes { weights: 1, code_bytes: 4, extent: Extent { first: 1, slices: 1024, ..WIDE }, ..sizes },
        ] {
            assert_eq!(ImageLayout::new(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sections_follow_one_another_and_hold_what_they_must() {
        for (weights, code_bytes) in
            [(0, 0), (1, 1), (1, 4), (3327, 400), (3328, 13312), (3329, 1109), (1 << 27, 44_739_243)]
        {
            let l = ImageLayout::new(Sizes { weights, code_bytes, ..SMALL }).unwrap();
            let tiles = weights.div_ceil(3328);
            let sections = [
                (0, 256),
                (l.ends, 8),
                (l.table, 16384),
                (l.starts, 4 * tiles + 4),
                (l.lanes, 64 * tiles),
                (l.code, l.code_section_bytes),
                (l.signs, weights),
                (l.image_bytes, 0),
            ];
            for pair in sections.windows(2) {
                let after = pair[0].0 + pair[0].1;
                assert!(pair[1].0 >= after && pair[1].0.is_multiple_of(256), "{l:?}");
            }
            assert!(l.code_section_bytes.is_multiple_of(16) && l.code_section_bytes >= code_bytes + 64);
            // What is parked fits, with two positions more than blocks.
            let blocks = code_bytes.div_ceil(4096);
            assert!(l.parked_gaps() + 320 * blocks <= l.parked_positions());
            assert!(
                l.parked_positions() + 4 * (blocks + 2) <= l.image_bytes && l.parked_positions().is_multiple_of(256)
            );
        }
        // The statistics of a real layer.
        let real = ImageLayout::new(Sizes { weights: 15_728_640, code_bytes: 5_233_705, table_bytes: 20480, ..SMALL })
            .unwrap();
        assert!((real.image_bytes * 8) as f64 / 15_728_640.0 < 10.9);
    }

    #[test]
    fn the_largest_head_is_as_large_as_is_said() {
        let tables = (2..=7).flat_map(|bits| Shape::sizes(bits).map(move |bytes| (bits, bytes)));
        let head = |(second_bits, table_bytes)| {
            let (tensors, extent) = (MOST_TENSORS as u32, Extent { slices: MOST_TENSORS as u32, ..WIDE });
            let nibble_shape = NibbleShape::from_bytes([0, 2, 0, 1]);
            let sizes = Sizes { second_bits, table_bytes, nibble_shape, tensors, extent, longest: 32, ..SMALL };
            ImageLayout::new(sizes).unwrap().head_bytes()
        };
        assert_eq!(tables.map(head).max(), Some(MOST_HEAD_BYTES));
    }
}
