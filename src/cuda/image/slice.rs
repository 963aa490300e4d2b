//! Slices: the part of a group that a rank of several holds, as runs of weights at equal distances.

use super::SLICE_BYTES;
use super::layout::Extent;

/// Elements of one of a group's tensors: `run_count` runs of `run_elements` elements each, of which the first begins at
/// element `first` of the tensor and each other one `run_stride` elements after the one before. Rows are one run; columns
/// are a run of each row. A slice may be without elements.
///
/// In the head of an image the five numbers are stored in the order of the fields, four bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Slice {
    /// The number of the tensor among those of its group.
    pub tensor: u32,
    /// The tensor's elements before the first run. If the group has a run of a larger tensor, they count from there.
    pub first: u32,
    /// Elements of a run.
    pub run_elements: u32,
    /// Elements from the beginning of a run to that of the next: at least those of a run.
    pub run_stride: u32,
    /// The number of runs.
    pub run_count: u32,
}

impl Slice {
    /// Returns its elements.
    pub fn element_count(&self) -> u64 {
        self.run_elements as u64 * self.run_count as u64
    }

    /// Returns the tensor's elements up to the end of the last run; `None` if runs overlap.
    pub(super) fn end(&self) -> Option<u64> {
        let Slice { first, run_elements, run_stride, run_count, .. } = *self;
        if self.element_count() == 0 {
            return Some(first as u64);
        }
        // Products of 32 bits each, so nothing overflows.
        let gaps = (run_count as u64 - 1) * run_stride as u64;
        (run_stride >= run_elements).then(|| (first as u64 + run_elements as u64).saturating_add(gaps))
    }

    /// Checks a slice that an image has of its group, as far as the image says how large that is. Returns its elements.
    pub(super) fn check_in_image(&self, extent: &Extent) -> Option<u64> {
        let inside = self.tensor < extent.group_tensors && self.end()? <= extent.group_weights;
        inside.then(|| self.element_count())
    }

    pub(super) fn from_bytes(bytes: &[u8; SLICE_BYTES as usize]) -> Slice {
        let word = |i: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * i + byte]));
        Slice { tensor: word(0), first: word(1), run_elements: word(2), run_stride: word(3), run_count: word(4) }
    }

    pub(super) fn to_bytes(self) -> [u8; SLICE_BYTES as usize] {
        let Slice { tensor, first, run_elements, run_stride, run_count } = self;
        let mut bytes = [0; SLICE_BYTES as usize];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip([tensor, first, run_elements, run_stride, run_count]) {
            *to = word.to_le_bytes();
        }
        bytes
    }
}
