//! The index of images: finds the bit at which every n-th weight's code begins, by one walk over the codes.
//!
//! # The idea
//!
//! As in [`super::decode`], several streams are walked side by side, several codes a look-up; but nothing is decoded,
//! so a look-up is one addition. It does not show where a certain weight begins, because it steps over up to twelve
//! codes. So every walk stores *points*, and the stretch between two of them is looked at again, once in some hundred
//! weights:
//!
//! ```text
//! a point  31..29            28..16                         15..0
//!          a long code?      weights                        bits, counted downwards from 2^14 - 1
//!                            (both since the burst's start; weights from 104 before the next mark, and one less)
//!
//! look-up  here += many[12 bits of word]     a window's whole codes and the bits that they take, as points have them
//! round    points[weights of here / 104] = here;  word = load at here;  four look-ups    at most one mark is in it
//! burst    up to 160 rounds of all runs, then of each run:
//!            for each border   of blocks, the first code after it, from the last point before it
//!            for each mark     its round again, look-up by look-up: the last one before it, and from a table of the
//!                              places at which a window's codes begin the bit
//! ```
//!
//! - **A point for each mark.** Of the rounds that begin with as many whole hundreds-and-four as marks before them, the
//!   last one's point remains, and in that round is the next mark. Nothing has to be searched or compared to find it.
//! - **Bits are counted downwards**, because then what a look-up adds to weights and bits moves the window too: the low
//!   byte of `here` in a round is by how much `word` is to be shifted, the one above it is the window's size, and the
//!   two are the operand of the instruction `bextr`. A look-up is that and an addition from memory, some six cycles one
//!   after the other; eight runs fill them.
//! - **A long code stops its run**, and what its window adds is a bit at the top, so that one test for all look-ups of
//!   a round suffices.
//! - **Marks are looked at three at a time**, look-up by look-up through the three as through the runs, for the same
//!   reason.
//!
//! A *run* is a stretch of whole blocks. Its walk crosses their borders without stopping, because the stream restarts
//! nowhere. At each border the walk knows how many weights came before and at which bit the next code begins, and
//! whoever asked for the walk compares both with what is recorded ([`Visitor::border`]). That runs begin where codes
//! begin follows from the border before.
//!
//! # What keeps it in bounds
//!
//! A burst takes only as many rounds as stay in the code even if each took the most: 48 bits in look-ups, 32 in a long
//! code, a load of 8 bytes. The last bytes of a stream are walked code by code. Bits that begin no code stop a run,
//! which then continues code by code until it meets them: only what is before its end can fail.

use super::code::CodeTable;
use super::table::{first_symbols, whole_codes};
use super::{BLOCK_BITS, MAX_CODE_BITS, window};
use crate::error::{Result, boxed};

/// Weights from one mark to the next.
pub const WEIGHTS_PER_MARK: u64 = 104;
/// Runs that are walked side by side.
pub const RUNS: usize = 8;
/// Bytes after a run's blocks that a walk may look at. It needs none, but it is slower without.
pub const BYTES_AFTER: usize = 32;

/// Bits of a window here. One more than the decoder's, because four bytes an entry are enough.
const MARK_WINDOW: u32 = 12;
/// The number of windows.
const WINDOWS: usize = 1 << MARK_WINDOW;
/// Look-ups of a round: 48 bits are at most the 57 that a load guarantees.
const LOOKUPS_PER_ROUND: usize = 4;
/// Rounds of a burst.
const ROUNDS: usize = 160;
/// The most bytes by which a round advances: 48 bits in look-ups and 32 in a long code.
const ROUND_BYTES: usize = 10;
/// The most weights of a round.
const ROUND_WEIGHTS: usize = LOOKUPS_PER_ROUND * MARK_WINDOW as usize + 1;
const _: () = assert!(
    8 * ROUND_BYTES >= LOOKUPS_PER_ROUND * MARK_WINDOW as usize + MAX_CODE_BITS as usize
        && LOOKUPS_PER_ROUND * MARK_WINDOW as usize <= 57
);

/// One weight in a point.
const ONE: u32 = 1 << 16;
/// The bits in the point at a burst's start.
const BITS: u32 = (1 << 14) - 1;
/// The addition of a long code's window: a bit that nothing else reaches, even if all look-ups of a round add it.
const LONG: u32 = 1 << 29;
// A burst's bits and weights fit a point, and no round has two marks.
const _: () = assert!(ROUNDS * ROUND_BYTES * 8 + 8 < BITS as usize && ROUND_WEIGHTS < WEIGHTS_PER_MARK as usize);
const _: () = assert!(
    (ROUNDS * ROUND_WEIGHTS + WEIGHTS_PER_MARK as usize) * (ONE as usize) < LONG as usize && LOOKUPS_PER_ROUND < 8
);

/// Marks that are looked at together. With an even number the compiler uses vectors, which is slower because look-ups
/// do not vectorise.
const TOGETHER: usize = 3;
/// Slots for points of a burst: as many as any point below [`LONG`] needs, and whole threes.
const SLOTS: usize = 84;
const _: () = assert!(slot(LONG - 1) < SLOTS && SLOTS.is_multiple_of(TOGETHER));

/// Returns the marks before a point: its weights by [`WEIGHTS_PER_MARK`]. The factor is too large by less than one part
/// in 2^30; no point has enough weights for that to matter.
#[inline(always)]
const fn slot(point: u32) -> usize {
    const FACTOR: u64 = (1 << 53) / (WEIGHTS_PER_MARK * ONE as u64) + 1;
    ((point as u64 * FACTOR) >> 53) as usize
}

/// The addition of a round to the lowest three bits of a point, so that its low byte is by how much a word is to be
/// shifted.
const SHIFTED: u32 = MARK_WINDOW << 8 | (57 - MARK_WINDOW);

/// Returns the bits since the burst's start.
#[inline(always)]
fn bits(point: u32) -> u32 {
    !point & BITS
}

/// Cuts the window out of a word at the place that a round has reached: below [`WINDOWS`]. `BEXTR`: the processor has
/// BMI1.
#[inline(always)]
fn cut<const BEXTR: bool>(word: u64, here: u32) -> usize {
    #[cfg(target_arch = "x86_64")]
    if BEXTR {
        // SAFETY: `BEXTR` is true only where the processor has BMI1.
        let window = unsafe { std::arch::x86_64::_bextr2_u64(word, here as u64) } as usize;
        // SAFETY: the second byte of `here` is the number of bits, and it is never more than MARK_WINDOW.
        unsafe { std::hint::assert_unchecked(window < WINDOWS) };
        return window;
    }
    (word >> (here & 63)) as usize % WINDOWS
}

/// A run: a stretch of whole blocks to walk.
#[derive(Debug, Clone, Copy)]
pub struct BlockRun<'a> {
    /// Code bytes from the first block's first, and those after the last block as far as there are any, up to
    /// [`BYTES_AFTER`].
    pub code: &'a [u8],
    /// The number of the first block.
    pub block: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The bit of the first block at which its first code begins.
    pub gap: usize,
    /// Weights of the group before the run's first.
    pub weight: u64,
    /// The number of the group's weights, if the last one is in this run.
    pub end: Option<u64>,
}

/// The receiver of what a walk finds.
pub trait Visitor {
    /// Takes a mark: the code of weight `number * WEIGHTS_PER_MARK` begins at this bit of the stream.
    fn mark(&mut self, number: u64, bit: u64);
    /// Takes a border: `weight` weights begin before a block, and the first one in it at bit `gap` of it. Returns
    /// whether that agrees with what is recorded.
    fn border(&mut self, block: usize, weight: u64, gap: usize) -> bool;
    /// Takes the end: the last weight begins in this block, and its code ends at this bit of the stream. Returns
    /// whether that agrees with what is recorded.
    fn end(&mut self, block: usize, bit: u64) -> bool;
}

/// Walks runs with one code table.
pub struct Marker<'a> {
    codes: &'a CodeTable,
    /// For each window, the addition of its whole codes to a point, or [`LONG`] if the first code is longer, or none begins
    /// so.
    many: Box<[u32; WINDOWS]>,
    /// The bit at which each of a window's whole codes begins, four bits each, the first one lowest; the place after the
    /// last whole code counts.
    places: Box<[u64; WINDOWS]>,
}

/// The last point before each mark of a burst.
type Points = [u32; SLOTS];

impl<'a> Marker<'a> {
    /// Makes a marker for one group's code (some 20 µs).
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn new(codes: &'a CodeTable) -> Result<Self> {
        let first = first_symbols::<WINDOWS>(codes);
        let mut tables = (boxed(0u32, "the tables of a walk")?, boxed(0u64, "the tables of a walk")?);
        for (window, (many, places)) in tables.0.iter_mut().zip(tables.1.iter_mut()).enumerate() {
            let (mut used, mut count) = (0, 0);
            // The first code begins at bit 0, and every other one where the one before ends.
            for (_, end) in whole_codes(&first, window) {
                used = end;
                count += 1;
                *places |= (end as u64) << (4 * count);
            }
            *many = if count == 0 { LONG } else { count * ONE - used };
        }
        let (many, places) = tables;
        Ok(Marker { codes, many, places })
    }

    /// Walks runs side by side; those of no blocks are left out. Returns whether nothing is wrong: all bits are codes,
    /// and the visitor agrees.
    pub fn walk<S: Visitor>(&self, runs: [BlockRun; RUNS], visitor: &mut S) -> bool {
        /// # Safety
        ///
        /// The processor has the features.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "bmi1,bmi2,avx2,movbe,popcnt")]
        unsafe fn with_bmi2<S: Visitor>(marker: &Marker, runs: [BlockRun; RUNS], visitor: &mut S) -> bool {
            marker.walk_inline::<true, S>(runs, visitor)
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("movbe")
            && is_x86_feature_detected!("popcnt")
        {
            // SAFETY: the processor has the features.
            return unsafe { with_bmi2(self, runs, visitor) };
        }
        self.walk_inline::<false, S>(runs, visitor)
    }

    #[inline(always)]
    fn walk_inline<const BEXTR: bool, S: Visitor>(&self, runs: [BlockRun; RUNS], visitor: &mut S) -> bool {
        let mut walks = runs.map(RunWalk::new);
        let mut points: [Points; RUNS] = [[0; _]; _];
        loop {
            for walk in &mut walks {
                if !walk.done && walk.room() == 0 && !self.finish(walk, visitor) {
                    return false;
                }
            }
            let Some(busy) = walks.iter().position(|walk| !walk.done) else { return true };
            // A run that is done shadows a busy one, and its points are not looked at.
            let source: [usize; RUNS] = std::array::from_fn(|l| if walks[l].done { busy } else { l });
            let live = || walks.iter().filter(|walk| !walk.done);
            let room = live().map(RunWalk::room).min().unwrap_or(0);
            let rounds = room.min(live().map(RunWalk::wanted).max().unwrap_or(0));
            let starts = source.map(|l| walks[l].code[walks[l].at >> 3..].as_ptr());
            let from = source.map(|l| walks[l].point());
            // SAFETY: every run that is not done has room for these rounds, and the others shadow one of them.
            let (to, stuck) = unsafe { self.burst::<BEXTR>(starts, from, &mut points, rounds) };
            for (l, walk) in walks.iter_mut().enumerate().filter(|(_, walk)| !walk.done) {
                let well = self.look_back::<BEXTR, S>(walk, &mut points[l], to[l], visitor);
                if !well || (stuck[l] && !walk.done && !self.finish(walk, visitor)) {
                    return false;
                }
            }
        }
    }

    /// Walks `rounds` rounds of all runs, each from a point in the byte at its address. Returns the points at which
    /// they end, and which runs met bits that begin no code.
    ///
    /// # Safety
    ///
    /// [`ROUND_BYTES`] bytes for each round, and 8 more, can be read at each address. The points are those of
    /// [`RunWalk::point`].
    #[inline(always)]
    unsafe fn burst<const BEXTR: bool>(
        &self,
        starts: [*const u8; RUNS],
        from: [u32; RUNS],
        points: &mut [Points; RUNS],
        rounds: usize,
    ) -> ([u32; RUNS], [bool; RUNS]) {
        let mut here = from;
        let mut stuck = [false; RUNS];
        for _ in 0..rounds.min(ROUNDS) {
            let (mut words, mut steps) = ([0; RUNS], [0; RUNS]);
            for l in 0..RUNS {
                debug_assert!(here[l] < LONG);
                // SAFETY: the weights of `ROUNDS` rounds leave a point below `LONG`, and there are slots for all such
                // points.
                unsafe { *points[l].get_unchecked_mut(slot(here[l])) = here[l] };
                // SAFETY: a round advances by at most ROUND_BYTES, so 8 bytes can be read at the point.
                words[l] = unsafe { load(starts[l], here[l]) };
                steps[l] = (here[l] & 7) + SHIFTED;
            }
            for _ in 0..LOOKUPS_PER_ROUND {
                for l in 0..RUNS {
                    steps[l] = steps[l].wrapping_add(self.many[cut::<BEXTR>(words[l], steps[l])]);
                }
            }
            for l in 0..RUNS {
                here[l] = (here[l] & !7).wrapping_add(steps[l]).wrapping_sub(SHIFTED);
                if here[l] >= LONG {
                    here[l] %= LONG;
                    // SAFETY: look-ups take 6 of the round's bytes at most, so 8 bytes can be read at the point.
                    let word = unsafe { load(starts[l], here[l]) } << (!here[l] & 7);
                    match self.long(word) {
                        Some(long) => here[l] += long,
                        None => stuck[l] = true,
                    }
                }
            }
        }
        (here, stuck)
    }

    /// Returns what a code that is longer than a window adds to a point.
    #[cold]
    #[inline(never)]
    fn long(&self, word: u64) -> Option<u32> {
        Some(ONE - self.codes.first((word >> 32) as u32)?.len as u32)
    }

    /// Returns the length of the code that a window of 32 bits begins with.
    fn length(&self, window: u32) -> Option<u32> {
        let short = (window >> (32 - MARK_WINDOW)) as usize;
        match self.many[short] {
            LONG => self.codes.first(window).map(|code| code.len as u32),
            // The place where the second code begins.
            _ => Some((self.places[short] >> 4 & 15) as u32),
        }
    }

    /// Finds the marks and borders that a run has passed in a burst, and advances it.
    #[inline(always)]
    fn look_back<const BEXTR: bool, S: Visitor>(
        &self,
        walk: &mut RunWalk,
        points: &mut Points,
        last: u32,
        visitor: &mut S,
    ) -> bool {
        let from = walk.point();
        let base = walk.at >> 3 << 3;
        let code = &walk.code[base >> 3..];
        // Borders first: marks after the run's end are not its own.
        let mut end = last;
        while !walk.done && walk.border <= base + bits(last) as usize {
            let border = (walk.border - base) as u32;
            let before = points[..slot(last)].partition_point(|&point| bits(point) <= border);
            let before = if before == 0 { from } else { points[before - 1] };
            let Some(found) = self.code_at(code, before, border) else { return false };
            if !walk.pass(walk.weight_at(from, found), (bits(found) - border) as usize, visitor) {
                return false;
            }
            if walk.done {
                end = found;
            }
        }
        if walk.end.is_some_and(|all| walk.weight_at(from, end) > all) {
            return false;
        }
        // Not more than the burst has passed, even if the code is being written to.
        let marks = slot(end).min(slot(last));
        if marks > 0 {
            // Slots that are looked at together with the last ones must hold points, although their marks are not used.
            let last = points[marks - 1];
            points[marks..marks.next_multiple_of(TOGETHER)].fill(last);
        }
        let base_bit = walk.first_bit + base as u64;
        for (i, points) in points.as_chunks::<TOGETHER>().0[..marks.div_ceil(TOGETHER)].iter().enumerate() {
            let first = i * TOGETHER;
            // SAFETY: all slots up to that of the burst's end have points of this burst, because no round skips a slot.
            let places = unsafe { self.places::<BEXTR>(code, points, first) };
            for (i, &place) in places[..(marks - first).min(TOGETHER)].iter().enumerate() {
                visitor.mark(walk.mark + (first + i) as u64, base_bit + place as u64);
            }
        }
        walk.weight = walk.weight_at(from, last);
        walk.mark += marks as u64;
        walk.at = base + bits(last) as usize;
        true
    }

    /// Returns the bits at which marks begin, from the last points before them. `first` is the number of the first of
    /// these marks in the burst.
    ///
    /// # Safety
    ///
    /// Rounds of a burst over this code began at the points.
    #[inline(always)]
    unsafe fn places<const BEXTR: bool>(&self, code: &[u8], points: &[u32; TOGETHER], first: usize) -> [u32; TOGETHER] {
        // SAFETY: the burst loaded 8 bytes at the start of each round.
        let words = points.map(|point| unsafe { load(code.as_ptr(), point) });
        // No point after the mark's code is less than this.
        let after: [u32; TOGETHER] = std::array::from_fn(|i| WEIGHTS_PER_MARK as u32 * (first + i + 1) as u32 * ONE);
        let mut here = points.map(|point| (point & !BITS) + (point & 7) + SHIFTED);
        for _ in 0..LOOKUPS_PER_ROUND {
            for i in 0..TOGETHER {
                let next = here[i].wrapping_add(self.many[cut::<BEXTR>(words[i], here[i])]);
                here[i] = std::hint::select_unpredictable(next < after[i], next, here[i]);
            }
        }
        std::array::from_fn(|i| {
            // Whole codes of the window before this one: none after the last look-up, where there may be a long code.
            let codes = (after[i] - ONE - (here[i] & !(ONE - 1))) >> 16;
            let place = self.places[cut::<BEXTR>(words[i], here[i])] >> ((4 * codes) & 63) & 15;
            (bits(points[i]) & !7) + (SHIFTED + 7 - (here[i] & (ONE - 1))) + place as u32
        })
    }

    /// Finds the first code at or after a border, from a point before it.
    #[cold]
    fn code_at(&self, code: &[u8], mut point: u32, border: u32) -> Option<u32> {
        while bits(point) < border {
            let window = window(code, bits(point) as usize);
            let many = self.many[(window >> (32 - MARK_WINDOW)) as usize];
            let next = point.wrapping_add(many);
            point = if many != LONG && bits(next) <= border { next } else { point + ONE - self.length(window)? };
        }
        Some(point)
    }

    /// Walks the rest of a run code by code.
    #[cold]
    fn finish<S: Visitor>(&self, walk: &mut RunWalk, visitor: &mut S) -> bool {
        let mut last = None;
        while !walk.done {
            if walk.end == Some(walk.weight) {
                walk.done = true;
                // Before the end of a stream that ends where it should, runs have no room.
                return last.is_some_and(|at: usize| {
                    visitor.end((walk.first_bit as usize + at) / BLOCK_BITS, walk.first_bit + walk.at as u64)
                });
            }
            if walk.at >= walk.border {
                if !walk.pass(walk.weight, walk.at - walk.border, visitor) {
                    return false;
                }
                continue;
            }
            if walk.at >= walk.code.len() * 8 {
                return false;
            }
            let Some(length) = self.length(window(walk.code, walk.at)) else { return false };
            if walk.mark * WEIGHTS_PER_MARK == walk.weight {
                visitor.mark(walk.mark, walk.first_bit + walk.at as u64);
                walk.mark += 1;
            }
            last = Some(walk.at);
            walk.at += length as usize;
            walk.weight += 1;
        }
        true
    }
}

/// Loads the 64 bits that begin with the byte of a point, counted from an address.
///
/// # Safety
///
/// 8 bytes can be read at that byte.
#[inline(always)]
unsafe fn load(start: *const u8, point: u32) -> u64 {
    // SAFETY: 8 bytes can be read at the point's byte.
    let bytes = unsafe { start.add(bits(point) as usize >> 3).cast::<[u8; 8]>().read() };
    u64::from_be_bytes(bytes)
}

/// The walk of one run.
struct RunWalk<'a> {
    code: &'a [u8],
    /// The stream's bit at which `code` begins.
    first_bit: u64,
    /// The bit of `code` at which the next weight begins.
    at: usize,
    /// The number of that weight.
    weight: u64,
    /// The number of the next mark.
    mark: u64,
    /// The block that the walk is in, and the one after the last.
    block: usize,
    end_block: usize,
    /// The bit of `code` at which the block ends; `usize::MAX` for the block in which the stream ends.
    border: usize,
    end: Option<u64>,
    done: bool,
}

impl<'a> RunWalk<'a> {
    fn new(run: BlockRun<'a>) -> Self {
        let BlockRun { code, block, blocks, gap, weight, end } = run;
        let mut walk = RunWalk {
            code,
            first_bit: (block * BLOCK_BITS) as u64,
            at: gap,
            weight,
            mark: weight.div_ceil(WEIGHTS_PER_MARK),
            block,
            end_block: block + blocks,
            border: 0,
            end,
            done: blocks == 0,
        };
        walk.enter(block);
        walk
    }

    /// Enters a block.
    fn enter(&mut self, block: usize) {
        self.block = block;
        let endless = self.end.is_some() && block + 1 == self.end_block;
        self.border = if endless { usize::MAX } else { self.border + BLOCK_BITS };
        self.done |= block == self.end_block;
    }

    /// Crosses the border before the next block, at a weight that begins there.
    fn pass<S: Visitor>(&mut self, weight: u64, gap: usize, visitor: &mut S) -> bool {
        self.enter(self.block + 1);
        visitor.border(self.block, weight, gap)
    }

    /// Returns the point from which a burst starts. It counts weights so that whole hundreds-and-four of them end with
    /// marks.
    fn point(&self) -> u32 {
        let ahead = WEIGHTS_PER_MARK - 1 - (self.mark * WEIGHTS_PER_MARK - self.weight);
        ahead as u32 * ONE + BITS - (self.at as u32 & 7)
    }

    /// Returns the number of the weight at a point of the burst that starts at the point `from`.
    fn weight_at(&self, from: u32, point: u32) -> u64 {
        self.weight + ((point >> 16) - (from >> 16)) as u64
    }

    /// Returns how many rounds cannot leave the code.
    fn room(&self) -> usize {
        (self.code.len().saturating_sub((self.at >> 3) + 8) / ROUND_BYTES).min(ROUNDS)
    }

    /// Returns the rounds after which the run is probably done.
    fn wanted(&self) -> usize {
        let left = match self.end {
            Some(_) => usize::MAX,
            None => (self.end_block * BLOCK_BITS).saturating_sub(self.first_bit as usize + self.at),
        };
        (left / 48 + 1).min(ROUNDS)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BLOCK_BYTES;
    use super::super::code::Code;
    use super::*;

    /// What a walk reported.
    #[derive(Debug, Default, PartialEq)]
    struct Said {
        marks: Vec<(u64, u64)>,
        borders: Vec<(usize, u64, usize)>,
        ends: Vec<(usize, u64)>,
    }

    impl Visitor for Said {
        fn mark(&mut self, number: u64, bit: u64) {
            self.marks.push((number, bit));
        }
        fn border(&mut self, block: usize, weight: u64, gap: usize) -> bool {
            self.borders.push((block, weight, gap));
            true
        }
        fn end(&mut self, block: usize, bit: u64) -> bool {
            self.ends.push((block, bit));
            true
        }
    }

    /// Makes a stream of `count` codes, and what a walk must report of it.
    fn stream(codes: &CodeTable, count: u64, mut random: u64) -> (Vec<u8>, Said) {
        let (mut bytes, mut said, mut bit) = (Vec::new(), Said::default(), 0u64);
        let mut block = 0;
        for weight in 0..count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Short words are likely, as they should be.
            let code = codes.first((random >> 32) as u32).unwrap_or(codes.codes()[0]);
            if bit >= (block + 1) * BLOCK_BITS as u64 {
                block += 1;
                said.borders.push((block as usize, weight, (bit % BLOCK_BITS as u64) as usize));
            }
            if weight.is_multiple_of(WEIGHTS_PER_MARK) {
                said.marks.push((weight / WEIGHTS_PER_MARK, bit));
            }
            if weight + 1 == count {
                said.ends.push((block as usize, bit + code.len as u64));
            }
            bytes.resize((bit / 8 + 8) as usize, 0);
            let word = (code.bits as u64) << 32 >> (bit % 8);
            for (to, part) in bytes[(bit / 8) as usize..].iter_mut().zip(word.to_be_bytes()) {
                *to |= part;
            }
            bit += code.len as u64;
        }
        bytes.truncate(bit.div_ceil(8) as usize);
        (bytes, said)
    }

    /// Cuts a whole stream into runs, by what a walk must report of it.
    fn runs<'a>(code: &'a [u8], said: &Said, count: u64) -> [BlockRun<'a>; RUNS] {
        let blocks = said.borders.len() + 1;
        std::array::from_fn(|lane| {
            let (block, end) = (blocks * lane / RUNS, blocks * (lane + 1) / RUNS);
            let (weight, gap) =
                if block == 0 { (0, 0) } else { (said.borders[block - 1].1, said.borders[block - 1].2) };
            let code = &code[block * BLOCK_BYTES..code.len().min(end * BLOCK_BYTES + BYTES_AFTER)];
            BlockRun { code, block, blocks: end - block, gap, weight, end: (end == blocks).then_some(count) }
        })
    }

    fn tables() -> Vec<CodeTable> {
        let code = |bits: u32, len: u8| Code { bits: bits << (32 - len), len, symbol: len };
        vec![
            CodeTable::new(vec![code(0, 1), code(1, 1)]).unwrap(),
            CodeTable::new(vec![code(0, 1), code(2, 2), code(6, 3), code(14, 4)]).unwrap(),
            // Nothing that is short, and long words now and then.
            CodeTable::new((0..200).map(|i| code(i, 8)).chain([code(255, 8)]).collect()).unwrap(),
            CodeTable::new((1..32).map(|len| code((1u64 << len) as u32 - 2, len)).collect()).unwrap(),
            CodeTable::new(vec![code(1, 32), code(3, 32), code(0xffff_ffff, 32)]).unwrap(),
        ]
    }

    #[test]
    fn slots_are_whole_hundreds_and_four() {
        for weights in 0..LONG / ONE {
            for bits in [0, BITS, ONE - 1] {
                assert_eq!(
                    slot(weights * ONE + bits),
                    (weights / WEIGHTS_PER_MARK as u32) as usize,
                    "{weights} weights, {bits} bits"
                );
            }
        }
    }

    #[test]
    fn both_walks_say_what_is_true() {
        for (number, codes) in tables().iter().enumerate() {
            let marker = Marker::new(codes).unwrap();
            for count in [1, 2, 60, 104, 105, 1000, 30_000, 400_000] {
                let (bytes, truth) = stream(codes, count, count + number as u64);
                for portable in [false, true] {
                    let mut said = Said::default();
                    let runs = runs(&bytes, &truth, count);
                    let well = if portable {
                        marker.walk_inline::<false, _>(runs, &mut said)
                    } else {
                        marker.walk(runs, &mut said)
                    };
                    said.marks.sort_unstable();
                    said.borders.sort_unstable();
                    assert!(well && said == truth, "table {number}, {count} weights, portable: {portable}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_code_is_met_where_it_is() {
        // Windows of ones begin no code.
        let code = |bits: u32, len: u8| Code { bits: bits << (32 - len), len, symbol: len };
        let codes = CodeTable::new(vec![code(0, 1), code(2, 2), code(6, 3)]).unwrap();
        let marker = Marker::new(&codes).unwrap();
        let (bytes, truth) = stream(&codes, 400_000, 1);
        for at in [0, 1, 4095, 4097, 4100, bytes.len() / 2, bytes.len() - 20, bytes.len() - 1] {
            let mut spoilt = bytes.clone();
            spoilt[at] = 0xff;
            let before = Said::default();
            assert!(!marker.walk(runs(&spoilt, &truth, 400_000), &mut { before }), "byte {at}");
            // A run that ends before it is not affected.
            let run = BlockRun {
                code: &spoilt[..BLOCK_BYTES + BYTES_AFTER],
                block: 0,
                blocks: 1,
                gap: 0,
                weight: 0,
                end: None,
            };
            let others = BlockRun { blocks: 0, ..run };
            let mut said = Said::default();
            let well = marker.walk(std::array::from_fn(|lane| if lane == 0 { run } else { others }), &mut said);
            assert!(if at < 4096 { !well } else { well && said.borders == truth.borders[..1] }, "byte {at}");
        }
    }
}
