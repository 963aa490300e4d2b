//! What a kernel or a copy may touch: the live ranges of device, pinned, registered and managed memory.
//!
//! A device address *is* the host address of the bytes, so that an access costs one check and no translation. Every block
//! that is allocated here is between two guards which belong to no range: one byte beyond either end is a fault, never a
//! neighbour. It is not an allocator that reuses or limits anything.
//!
//! Blocks may be *sparse*: reserved in the address space and zero, so that they take memory only where something was written.

use std::alloc::Layout;
use std::fmt;
use std::sync::{Arc, RwLock};

/// Bytes of guard before and after every block, and the alignment of every block.
pub const GUARD: u64 = 4096;
/// The byte that guards are filled with.
const GUARD_BYTE: u8 = 0x5C;
/// The byte that fresh memory is filled with: nobody may count on zeros.
const FRESH_BYTE: u8 = 0xA5;

/// The kind of a range, as the driver's calls name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Allocated on the device.
    Device,
    /// Pinned host memory that the driver allocated.
    HostPinned,
    /// The caller's host memory, pinned by registering it.
    HostRegistered,
    /// Managed memory.
    Managed,
    /// A variable of a loaded module.
    ModuleGlobal,
}

/// The direction of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes, or reads and writes.
    Write,
}

/// A live range of memory. A copy keeps the bytes of an allocated block alive, so that a launch which runs while another
/// thread frees the block never touches memory that is gone; registered memory must outlive its users.
#[derive(Clone)]
pub struct Range {
    /// Its first address.
    pub start: u64,
    /// Its length in bytes, at least 1.
    pub bytes: u64,
    /// The kind of its memory.
    pub kind: Kind,
    /// Its owner: a number of the driver's, such as a context's.
    pub owner: u64,
    /// Kernels and copies may not write to it.
    pub read_only: bool,
    block: Option<Arc<Block>>,
}

impl Range {
    /// Returns the first address after it.
    pub fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Returns whether these bytes are inside.
    #[inline]
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        address >= self.start && bytes <= self.bytes && address - self.start <= self.bytes - bytes
    }

    /// Returns whether it takes memory only where something was written.
    pub fn is_sparse(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.is_sparse())
    }

    /// Returns whether nobody has written next to it. Always true for registered memory, which has no guards.
    pub fn guards_intact(&self) -> bool {
        self.block.as_ref().is_none_or(|block| block.guards_intact())
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:#x}+{}", self.kind, self.start, self.bytes)
    }
}

/// The bytes of an allocated range with its guards.
struct Block {
    base: *mut u8,
    bytes: u64,
    backing: Backing,
}

/// The origin of a block's bytes.
enum Backing {
    /// The host's allocator.
    Heap(Layout),
    /// Reserved address space; the guards cannot be accessed.
    #[cfg(target_os = "linux")]
    Sparse { _until_dropped: sparse::Reserved },
}

// SAFETY: the block is a piece of memory that nothing in this type reads or writes while it is shared, but for the guards,
// which nobody else may touch.
unsafe impl Send for Block {}
// SAFETY: through a shared block nothing is written, and only the guards, which nobody else may touch, are read.
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: u64) -> Option<Block> {
        let total = bytes.checked_add(2 * GUARD)?.try_into().ok()?;
        let layout = Layout::from_size_align(total, GUARD as usize).ok()?;
        // SAFETY: the layout has a size of at least two guards.
        let base = unsafe { std::alloc::alloc(layout) };
        if base.is_null() {
            return None;
        }
        let guard = GUARD as usize;
        // SAFETY: the block is `total` bytes long, and nobody else knows of it.
        unsafe {
            base.write_bytes(GUARD_BYTE, guard);
            base.add(guard).write_bytes(FRESH_BYTE, bytes as usize);
            base.add(guard + bytes as usize).write_bytes(GUARD_BYTE, guard);
        }
        Some(Block { base, bytes, backing: Backing::Heap(layout) })
    }

    #[cfg(target_os = "linux")]
    fn new_sparse(bytes: u64) -> Option<Block> {
        let reserved = sparse::Reserved::new(bytes)?;
        Some(Block { base: reserved.start(), bytes, backing: Backing::Sparse { _until_dropped: reserved } })
    }

    /// Elsewhere a block takes all of its memory.
    #[cfg(not(target_os = "linux"))]
    fn new_sparse(bytes: u64) -> Option<Block> {
        Block::new(bytes)
    }

    fn start(&self) -> u64 {
        match self.backing {
            Backing::Heap(_) => self.base as u64 + GUARD,
            #[cfg(target_os = "linux")]
            Backing::Sparse { .. } => self.base as u64,
        }
    }

    fn is_sparse(&self) -> bool {
        !matches!(self.backing, Backing::Heap(_))
    }

    fn guards_intact(&self) -> bool {
        // Who writes to the guards of reserved memory does not live to ask.
        if self.is_sparse() {
            return true;
        }
        let guard = GUARD as usize;
        // SAFETY: both guards are inside the block, and nobody may write to them while this runs; who does has lost already.
        let (before, after) = unsafe {
            let after = self.base.add(guard + self.bytes as usize);
            (std::slice::from_raw_parts(self.base, guard), std::slice::from_raw_parts(after, guard))
        };
        before.iter().chain(after).all(|&byte| byte == GUARD_BYTE)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match &self.backing {
            // SAFETY: allocated in `new` with this layout, freed once.
            Backing::Heap(layout) => unsafe { std::alloc::dealloc(self.base, *layout) },
            #[cfg(target_os = "linux")]
            Backing::Sparse { .. } => {}
        }
    }
}

/// Copies bytes. Where both ranges are sparse, what was never written in the source becomes a hole in the target.
///
/// # Safety
/// The bytes are inside the ranges if these are given, and else valid for reads or writes; nobody else writes them.
pub(crate) unsafe fn copy(to: u64, from: u64, bytes: u64, target: Option<&Range>, source: Option<&Range>) {
    let holes = [target, source].into_iter().all(|range| range.is_some_and(Range::is_sparse));
    #[cfg(target_os = "linux")]
    if holes && to.abs_diff(from) >= bytes {
        // SAFETY: this function's own contract, and the two do not overlap.
        return unsafe { sparse::copy(to, from, bytes) };
    }
    let _ = holes;
    // SAFETY: this function's own contract. They may overlap.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) }
}

/// Writes zeros; in a sparse range whole pages become holes.
///
/// # Safety
/// The bytes are inside the range if it is given, and else valid for writes; nobody else uses them.
pub(crate) unsafe fn clear(to: u64, bytes: u64, target: Option<&Range>) {
    #[cfg(target_os = "linux")]
    if target.is_some_and(Range::is_sparse) {
        // SAFETY: this function's own contract.
        return unsafe { sparse::clear(to, bytes) };
    }
    let _ = target;
    // SAFETY: this function's own contract.
    unsafe { (to as *mut u8).write_bytes(0, bytes as usize) }
}

/// The reason why an access is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// Not inside one live range. `near` says what is next to it.
    OutOfBounds {
        /// First address.
        address: u64,
        /// Bytes wanted.
        bytes: u64,
        /// The nearest range, in words.
        near: String,
    },
    /// The address is no multiple of the alignment.
    Misaligned {
        /// First address.
        address: u64,
        /// The alignment wanted, in bytes.
        align: u64,
    },
    /// A write to a range that may only be read.
    ReadOnly {
        /// First address.
        address: u64,
    },
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessError::OutOfBounds { address, bytes, near } => {
                write!(f, "{bytes} bytes at {address:#x} are in no live memory ({near})")
            }
            AccessError::Misaligned { address, align } => write!(f, "{address:#x} is no multiple of {align}"),
            AccessError::ReadOnly { address } => write!(f, "{address:#x} may only be read"),
        }
    }
}

impl std::error::Error for AccessError {}

/// The ranges at one moment, in the order of their addresses.
pub type Ranges = Arc<Vec<Range>>;

/// All live ranges. Any thread may use it at any time.
#[derive(Default)]
pub struct Memory {
    ranges: RwLock<Ranges>,
}

impl Memory {
    /// Returns a memory without ranges.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Allocates that many bytes, aligned to [`GUARD`] bytes and filled with a pattern, and returns the address. None when
    /// `bytes` is 0 or the host has no more.
    pub fn alloc(&self, bytes: u64, kind: Kind, owner: u64) -> Option<u64> {
        if bytes == 0 {
            return None;
        }
        self.take(Block::new(bytes)?, bytes, kind, owner)
    }

    /// Allocates that many bytes, all zero, which take memory where they are written. (Not everywhere: elsewhere than on Linux this
    /// is [`Memory::alloc`].)
    pub fn alloc_sparse(&self, bytes: u64, kind: Kind, owner: u64) -> Option<u64> {
        if bytes == 0 {
            return None;
        }
        self.take(Block::new_sparse(bytes)?, bytes, kind, owner)
    }

    fn take(&self, block: Block, bytes: u64, kind: Kind, owner: u64) -> Option<u64> {
        let block = Arc::new(block);
        let start = block.start();
        self.insert(Range { start, bytes, kind, owner, read_only: false, block: Some(block) }).then_some(start)
    }

    /// Takes the caller's own memory for a live range. False when it overlaps one, is empty, or wraps.
    ///
    /// The bytes must stay valid until [`Memory::free`] and the end of every launch that began before it.
    pub fn register(&self, start: u64, bytes: u64, kind: Kind, owner: u64, read_only: bool) -> bool {
        if bytes == 0 || start.checked_add(bytes).is_none() {
            return false;
        }
        self.insert(Range { start, bytes, kind, owner, read_only, block: None })
    }

    /// Ends the range that starts at `address`, and returns it. None when no range starts there. The bytes go with the
    /// last copy of the range.
    pub fn free(&self, address: u64) -> Option<Range> {
        let mut ranges = self.ranges.write().unwrap();
        let at = ranges.binary_search_by_key(&address, |range| range.start).ok()?;
        Some(Arc::make_mut(&mut ranges).remove(at))
    }

    /// Returns the range that holds the byte at `address`.
    pub fn range_of(&self, address: u64) -> Option<Range> {
        let ranges = self.snapshot();
        find(&ranges, address, 1).map(|at| ranges[at].clone())
    }

    /// Returns all ranges of this moment.
    pub fn snapshot(&self) -> Ranges {
        self.ranges.read().unwrap().clone()
    }

    /// Checks that `bytes` bytes at `address`, a multiple of `align`, are inside one live range, and returns where they are.
    /// An access of no bytes is always good. The pointer is valid as long as the range lives.
    pub fn check(&self, address: u64, bytes: u64, align: u64, access: Access) -> Result<*mut u8, AccessError> {
        check(&self.snapshot(), address, bytes, align, access)?;
        Ok(address as *mut u8)
    }

    fn insert(&self, range: Range) -> bool {
        let mut ranges = self.ranges.write().unwrap();
        let at = ranges.partition_point(|other| other.start < range.start);
        if at > 0 && ranges[at - 1].end() > range.start || at < ranges.len() && ranges[at].start < range.end() {
            return false;
        }
        Arc::make_mut(&mut ranges).insert(at, range);
        true
    }
}

/// Returns the index of the range that holds all these bytes.
pub(crate) fn find(ranges: &[Range], address: u64, bytes: u64) -> Option<usize> {
    let at = ranges.partition_point(|range| range.start <= address).checked_sub(1)?;
    ranges[at].contains(address, bytes).then_some(at)
}

/// Does what [`Memory::check`] does, on a snapshot. Returns the range's index (0 for an access of no bytes).
pub(crate) fn check(
    ranges: &[Range],
    address: u64,
    bytes: u64,
    align: u64,
    access: Access,
) -> Result<usize, AccessError> {
    if align > 1 && !address.is_multiple_of(align) {
        return Err(AccessError::Misaligned { address, align });
    }
    if bytes == 0 {
        return Ok(0);
    }
    match find(ranges, address, bytes) {
        Some(at) if access == Access::Write && ranges[at].read_only => Err(AccessError::ReadOnly { address }),
        Some(at) => Ok(at),
        None => Err(AccessError::OutOfBounds { address, bytes, near: near(ranges, address) }),
    }
}

/// Returns what is around an address, in words.
fn near(ranges: &[Range], address: u64) -> String {
    let at = ranges.partition_point(|range| range.start <= address);
    let below = at.checked_sub(1).map(|at| &ranges[at]);
    let above = ranges.get(at);
    let below_by = below.map_or(u64::MAX, |range| address - range.start);
    let above_by = above.map_or(u64::MAX, |range| range.start - address);
    match (below, above) {
        (None, None) => "nothing is allocated".into(),
        (Some(range), _) if below_by <= above_by || address - range.start < range.bytes + GUARD => {
            format!("{below_by} bytes into the {range:?}")
        }
        (_, Some(range)) => format!("{above_by} bytes before the {range:?}"),
        (Some(range), None) => format!("{below_by} bytes into the {range:?}"),
    }
}

#[cfg(target_os = "linux")]
mod sparse;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_inside_one_range_or_refused() {
        let memory = Memory::new();
        let a = memory.alloc(100, Kind::Device, 7).unwrap();
        let b = memory.alloc(50, Kind::HostPinned, 7).unwrap();
        assert!(memory.alloc(0, Kind::Device, 0).is_none());
        assert_eq!(a % GUARD, 0);
        assert_eq!(memory.check(a, 100, 256, Access::Write), Ok(a as *mut u8));
        for (address, bytes) in [(a, 101), (a - 1, 1), (a + 100, 1), (a + 99, 2), (b - 1, 2), (u64::MAX, 2), (0, 1)] {
            let error = memory.check(address, bytes, 1, Access::Read).unwrap_err();
            assert!(matches!(error, AccessError::OutOfBounds { .. }), "{error}");
        }
        let error = memory.check(a + 100, 1, 1, Access::Read).unwrap_err().to_string();
        assert!(error.contains("100 bytes into the Device"), "{error}");
        assert!(memory.check(a + 2, 4, 4, Access::Read).unwrap_err().to_string().contains("multiple of 4"));
        assert_eq!(memory.range_of(b + 49).unwrap().kind, Kind::HostPinned);
        assert!(memory.range_of(b + 50).is_none());
        assert_eq!(memory.free(a).unwrap().bytes, 100);
        assert!(memory.free(a).is_none());
        assert!(memory.check(a, 1, 1, Access::Read).is_err());
        assert!(memory.check(a, 0, 1, Access::Read).is_ok());
    }

    #[test]
    fn registered_memory_may_not_overlap_and_may_be_read_only() {
        let memory = Memory::new();
        let bytes = [1u8; 64];
        let at = bytes.as_ptr() as u64;
        assert!(memory.register(at, 32, Kind::HostRegistered, 0, true));
        assert!(!memory.register(at + 31, 8, Kind::HostRegistered, 0, false));
        assert!(memory.register(at + 32, 32, Kind::HostRegistered, 0, false));
        assert!(!memory.register(at, 0, Kind::HostRegistered, 0, false));
        assert!(memory.check(at + 30, 4, 1, Access::Read).is_err(), "two ranges are not one");
        assert_eq!(memory.check(at, 4, 1, Access::Write), Err(AccessError::ReadOnly { address: at }));
        assert!(memory.check(at + 32, 4, 1, Access::Write).is_ok());
    }

    #[test]
    fn a_write_beside_a_block_is_seen_when_it_is_freed() {
        let memory = Memory::new();
        let a = memory.alloc(10, Kind::HostPinned, 0).unwrap();
        assert!(memory.range_of(a).unwrap().guards_intact());
        // SAFETY: the guard after the block is memory of this process.
        unsafe { ((a + 10) as *mut u8).write(0) };
        assert!(!memory.free(a).unwrap().guards_intact());
    }

    /// More than most machines have, of which a few pages are used.
    #[test]
    #[cfg(target_os = "linux")]
    fn sparse_blocks_take_memory_where_they_are_written() {
        let memory = Memory::new();
        let bytes = 1 << 32;
        let [a, b] = [0; 2].map(|_| memory.alloc_sparse(bytes, Kind::Device, 0).unwrap());
        let [ra, rb] = [a, b].map(|at| memory.range_of(at).unwrap());
        assert!(ra.is_sparse() && ra.guards_intact());
        let (write, read) = (
            // SAFETY: these are bytes of the blocks.
            |at: u64, value: u8| unsafe { (at as *mut u8).write(value) },
            // SAFETY: as above.
            |at: u64| unsafe { (at as *const u8).read() },
        );
        let marks = [0, 1, 4095, 4096, 1 << 20, (1 << 31) + 12_345, bytes - 1];
        for (i, mark) in marks.into_iter().enumerate() {
            write(a + mark, i as u8 + 1);
        }
        // What was there before goes where the source has a hole, in the middle of a page, too.
        for at in [2, 8000, 1 << 30, (1 << 31) + 12_346, bytes - 2] {
            write(b + at, 99);
        }
        // SAFETY: both are whole blocks that nobody else uses.
        unsafe { copy(b, a, bytes, Some(&rb), Some(&ra)) };
        for (i, mark) in marks.into_iter().enumerate() {
            assert_eq!(read(b + mark), i as u8 + 1, "{mark}");
        }
        for at in [2, 8000, 1 << 30, (1 << 31) + 12_346, bytes - 2] {
            assert_eq!(read(b + at), 0, "{at}");
        }
        // At an odd distance, where pages do not meet.
        // SAFETY: inside the blocks, and nobody else uses them.
        unsafe { copy(b + 77, a, bytes - 77, Some(&rb), Some(&ra)) };
        for (i, mark) in marks.into_iter().enumerate().filter(|(_, mark)| mark + 77 < bytes) {
            assert_eq!(read(b + 77 + mark), i as u8 + 1, "{mark}");
        }
        assert_eq!((read(b), read(b + 76), read(b + 79)), (1, 0, 0));
        // SAFETY: as above.
        unsafe { clear(b + 1, bytes - 1, Some(&rb)) };
        assert_eq!((read(b), read(b + 77), read(b + bytes - 1)), (1, 0, 0));
        assert!(memory.free(a).is_some() && memory.alloc_sparse(0, Kind::Device, 0).is_none());
    }
}
