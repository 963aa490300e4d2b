//! Compressing groups in memory.

use super::args::{Info, List};
use super::frame::call;
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::error::{Error, Result};
use crate::format::MOST_TENSORS;
use crate::host::{self, EncodeOptions, PackedSizes};
use std::ffi::c_void;
use std::ptr;

/// The six members of a compressed group in buffers that you provide, and their sizes in bytes. A
/// file stores each as a tensor called NAME.luts and so on, where NAME is the module's name; see
/// DF11_PART_* for what their bytes mean. No address needs an alignment. Begin with
/// DF11_PACKED_GROUP_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_packed_group {
    /// sizeof(df11_packed_group)
    pub struct_size: usize,
    /// In a file of type U8 and shape (luts_bytes / 256, 256)
    pub luts: *mut c_void,
    /// Bytes of `luts`
    pub luts_bytes: usize,
    /// U8, one dimension
    pub encoded_exponent: *mut c_void,
    /// Bytes of `encoded_exponent`
    pub encoded_exponent_bytes: usize,
    /// U8, one dimension: one byte for each weight
    pub sign_mantissa: *mut c_void,
    /// Bytes of `sign_mantissa`
    pub sign_mantissa_bytes: usize,
    /// U8, one dimension: little-endian uint32, 4 bytes each
    pub output_positions: *mut c_void,
    /// Bytes of `output_positions`
    pub output_positions_bytes: usize,
    /// U8, one dimension
    pub gaps: *mut c_void,
    /// Bytes of `gaps`
    pub gaps_bytes: usize,
    /// I64, one dimension: little-endian, 8 bytes for each tensor but the last, so none for a single
    /// tensor
    pub split_positions: *mut c_void,
    /// Bytes of `split_positions`
    pub split_positions_bytes: usize,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL pointers of no bytes.
unsafe impl Sizeable for df11_packed_group {
    const NAME: &'static str = "df11_packed_group";
    const FIRST: usize = 104;
}

const _: () = {
    assert!(size_of::<df11_packed_group>() == 104);
    // What the comment of df11_compress_group() says.
    assert!(MOST_TENSORS == 1024);
};

/// Compresses a group in memory: the weights of its tensors one after the other, in the order of the
/// pattern's list, encoded byte for byte as the reference compressor does.
///
/// `tensors` are the addresses of `tensor_count` tensors, 1 to 1024, and `element_counts` the number
/// of weights in each, bf16 bits in the processor's byte order; all together at most 4294967295. Each
/// address is aligned to 2 bytes; a tensor of no weights may be NULL. `threads` threads work, the
/// calling one among them; 0 means 1. They end before the call returns, and the bytes do not depend
/// on their number. The call allocates some 3 KiB for each tensor and for every 262144 weights of it,
/// and less than 4 MiB for each thread. Weights are read twice.
///
/// `io` gives the buffer for each member, its address and the bytes that it holds, and receives the
/// bytes that were written. If all six addresses are NULL, the sizes that the members need are set
/// and nothing is written; the weights are then read once. Otherwise only a member of 0 bytes may be
/// NULL, such as the split positions of a single tensor.
///
/// Errors: DF11_BUFFER_TOO_SMALL, which sets the sizes that the members need, too, and writes nothing
/// else; DF11_MISALIGNED; DF11_INVALID_ARGUMENT for all else that is wrong with the arguments, for no
/// weights at all, and for an exponent of 240 or more (an infinity, a NaN, a magnitude of 2^113 or
/// more), which the format cannot hold: store such a group's tensors as they are;
/// DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY. After all but the first the sizes are 0.
///
/// # Safety
///
/// The weights do not change during the call. The members' buffers overlap neither each other nor the
/// weights, and nobody else uses them during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_compress_group(
    tensors: *const *const c_void,
    element_counts: *const u64,
    tensor_count: usize,
    threads: u32,
    io: *mut df11_packed_group,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the lists have `tensor_count` elements, each tensor as many weights as it says, which do not
    // change, and the members' buffers are this call's. `counts_of` looks at the numbers before a slice is made.
    unsafe {
        call(error, || {
            let io = PackedArgs::new(Info::new(io))?;
            let counts = counts_of(List::new(element_counts, tensor_count, COUNTS), tensor_count)?;
            let weights = weights_of(List::new(tensors, tensor_count, "the list of tensors"), counts)?;
            let (members, options) = (io.members()?, EncodeOptions::new().threads(threads as usize));
            let mut sizes = PackedSizes::default();
            let result = host::compress_raw(&weights, members, &mut sizes, &options);
            if matches!(result, Ok(()) | Err(Error::BufferTooSmall { .. })) {
                io.set(&sizes)?;
            }
            result
        })
    }
}

/// Sets the sizes of `out` to the most that a group of these weights can take, whatever they are, and
/// leaves its addresses alone: buffers of these sizes are enough for df11_compress_group().
/// `element_counts` are the weights of its `tensor_count` tensors. A group of trained weights takes
/// about a third of it for `encoded_exponent`.
///
/// Errors: DF11_INVALID_ARGUMENT, for the same counts as in df11_compress_group();
/// DF11_UNSUPPORTED_OPTION. The sizes are then 0.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_compress_bound(
    element_counts: *const u64,
    tensor_count: usize,
    out: *mut df11_packed_group,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the list has `tensor_count` elements, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || bound(List::new(element_counts, tensor_count, COUNTS), tensor_count, Info::new(out))) }
}

fn bound(counts: List<u64>, tensors: usize, out: Info<df11_packed_group>) -> Result<()> {
    let out = PackedArgs::new(out)?;
    let weights = counts_of(counts, tensors)?.iter().sum();
    out.set(&PackedSizes::bound(weights, tensors as u64))
}

/// What messages call the numbers of weights.
const COUNTS: &str = "the list of element counts";

/// Checks the number of weights in each tensor of a group: together no more than the format can count.
fn counts_of<'a>(counts: List<'a, u64>, tensors: usize) -> Result<&'a [u64]> {
    if counts.is_null() {
        return Err(Error::InvalidArgument(format!("{COUNTS} is NULL")));
    }
    if tensors == 0 || tensors as u64 > MOST_TENSORS {
        return Err(Error::InvalidArgument(format!("a group has 1 to {MOST_TENSORS} tensors, not {tensors}")));
    }
    let counts = counts.get()?;
    let weights = counts.iter().fold(0u64, |sum, &count| sum.saturating_add(count));
    if weights == 0 || weights > u32::MAX.into() {
        return Err(Error::InvalidArgument(format!("a group has 1 to {} weights, not {weights}", u32::MAX)));
    }
    Ok(counts)
}

/// Returns the weights of each tensor.
///
/// # Safety
///
/// Each tensor is NULL, or as many weights as its count says can be read there during `'a`, which nobody changes.
unsafe fn weights_of<'a>(tensors: List<'a, *const c_void>, counts: &[u64]) -> Result<Vec<&'a [u16]>> {
    let tensors = tensors.get()?;
    let slice = |(number, (&tensor, &count)): (usize, (&*const c_void, &u64))| {
        let tensor = tensor.cast::<u16>();
        if count > 0 && tensor.is_null() {
            return Err(Error::InvalidArgument(format!("tensor {number} of the group is NULL")));
        }
        // SAFETY: C caller: `count` weights can be read at `tensor`. They are fewer than 2^32 (`counts_of`).
        unsafe { List::new(tensor, count as usize, "a tensor of the group") }
            .get()
            .map_err(|_| Error::Misaligned { what: "a tensor of the group".into(), to: 2 })
    };
    tensors.iter().zip(counts).enumerate().map(slice).collect()
}

/// The members of a group, whose sizes have been cleared in the caller's struct.
struct PackedArgs<'a> {
    given: df11_packed_group,
    out: Info<'a, df11_packed_group>,
}

impl<'a> PackedArgs<'a> {
    fn new(out: Info<'a, df11_packed_group>) -> Result<Self> {
        let given = out.read()?;
        out.set(&with_sizes(given, &PackedSizes::default()))?;
        out.refuse_unknown()?;
        Ok(PackedArgs { given, out })
    }

    fn set(&self, sizes: &PackedSizes) -> Result<()> {
        self.out.set(&with_sizes(self.given, sizes))
    }

    /// Returns where to write, in the order of [`host::Packed`]; `None` if only the sizes are asked for.
    fn members(&self) -> Result<Option<[(*mut u8, u64); 6]>> {
        let group = &self.given;
        let members = [
            (group.luts, group.luts_bytes),
            (group.encoded_exponent, group.encoded_exponent_bytes),
            (group.sign_mantissa, group.sign_mantissa_bytes),
            (group.output_positions, group.output_positions_bytes),
            (group.gaps, group.gaps_bytes),
            (group.split_positions, group.split_positions_bytes),
        ];
        if members.iter().all(|(at, _)| at.is_null()) {
            return Ok(None);
        }
        if members.iter().any(|(at, bytes)| at.is_null() && *bytes > 0) {
            return Err(Error::InvalidArgument("a member of the df11_packed_group is NULL and has bytes".into()));
        }
        // Nothing is written to a member of 0 bytes, but its address is reckoned with.
        let place = |at: *mut c_void| if at.is_null() { ptr::dangling_mut() } else { at.cast() };
        Ok(Some(members.map(|(at, bytes)| (place(at), bytes as u64))))
    }
}

fn with_sizes(group: df11_packed_group, sizes: &PackedSizes) -> df11_packed_group {
    // Sizes of memory fit a usize: it has 64 bits (src/lib.rs).
    df11_packed_group {
        luts_bytes: sizes.luts as usize,
        encoded_exponent_bytes: sizes.encoded_exponent as usize,
        sign_mantissa_bytes: sizes.sign_mantissa as usize,
        output_positions_bytes: sizes.output_positions as usize,
        gaps_bytes: sizes.gaps as usize,
        split_positions_bytes: sizes.split_positions as usize,
        ..group
    }
}
