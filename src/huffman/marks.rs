//! The bit at which every n-th weight's code begins, found by one walk over the codes: the index of images.
//!
//! # The idea
//!
//! As in [`super::decode`], several streams are walked side by side, several codes a look-up; but nothing is decoded,
//! so a look-up adds one number to one. Where a certain weight begins cannot be seen that way, for a look-up steps over
//! up to twelve codes. So every lane leaves *points* behind it, and what lies between two of them is looked at again,
//! once in some hundred weights:
//!
//! ```text
//! a point  31..29            28..16                         15..0
//!          a long code?      weights                        bits, counted downwards from 2^14 - 1
//!                            (both since the burst's start; weights from 104 before the next mark, and one less)
//!
//! step     here += many[12 bits of word]     a window's whole codes and the bits that they take, as points have them
//! round    points[weights of here / 104] = here;  word = load at here;  four steps       at most one mark lies in it
//! burst    up to 160 rounds of all lanes, then of each lane:
//!            for each border   of blocks, the first code behind it, from the last point before it on
//!            for each mark     its round again, step by step: the last step before it, and from a table of the places
//!                              at which a window's codes begin the bit
//! ```
//!
//! - **A point for each mark.** Of the rounds that begin with as many whole hundreds-and-four as marks before them, the
//!   last one's point stays, and in that round lies the next mark. Nothing has to be searched or compared to find it.
//! - **Bits are counted downwards**, for then what a step adds to weights and bits moves the window too: the low byte
//!   of `here` in a round is by how much `word` is to be shifted, the one above it is the window's size, and the two
//!   are what the instruction `bextr` takes. A step is that and an addition from memory, some six cycles one after the
//!   other; eight lanes fill them.
//! - **A long code leaves its lane where it is**, and what its window adds is a bit at the top, so that one test for
//!   all steps of a round suffices.
//! - **Marks are looked at three at a time**, step by step through the three as through lanes, for the same reason.
//!
//! A lane walks a *run* of whole blocks and goes through their borders without stopping, for the stream restarts
//! nowhere. At each border the walk knows how many weights came before and at which bit the next code begins; whoever
//! asked for the walk compares both with what is recorded ([`Sink::border`]). That runs begin where codes begin follows
//! from the border before.
//!
//! # What keeps it in bounds
//!
//! A burst takes only so many rounds as stay in the code even if each took the most: 48 bits in look-ups, 32 in a long
//! code, a load of 8 bytes. The last bytes of a stream are walked code by code. Bits that begin no code stop a lane
//! where it is, and then it goes on code by code until it meets them: only what lies before its end can fail.

use super::code::CodeTable;
use super::table::first_symbols;
use super::{BLOCK_BITS, MAX_CODE_BITS, window};
use crate::error::{Result, grow};

/// Weights from one mark to the next.
pub const EVERY: u64 = 104;
/// Runs that are walked side by side.
pub const LANES: usize = 8;
/// Bytes behind a run's blocks that a walk may look at; it needs none, but it is slower without.
pub const BEHIND: usize = 32;

/// Bits of a window. One more than the decoder's: four bytes an entry are enough here.
const WINDOW: u32 = 12;
/// How many windows there are.
const SIZE: usize = 1 << WINDOW;
/// Look-ups of a round: 48 bits are at most the 57 that a load guarantees.
const STEPS: usize = 4;
/// Rounds of a burst.
const ROUNDS: usize = 160;
/// The most bytes by which a round moves on: 48 bits in look-ups and 32 in a long code.
const ROUND_BYTES: usize = 10;
/// The most weights of a round.
const ROUND_WEIGHTS: usize = STEPS * WINDOW as usize + 1;
const _: () =
    assert!(8 * ROUND_BYTES >= STEPS * WINDOW as usize + MAX_CODE_BITS as usize && STEPS * WINDOW as usize <= 57);

/// One weight, as points count them.
const ONE: u32 = 1 << 16;
/// The bits of a point of a burst's start.
const BITS: u32 = (1 << 14) - 1;
/// What the window of a long code adds: nothing but a bit that nothing else reaches, not even as often as there are
/// steps.
const LONG: u32 = 1 << 29;
// A burst's bits and weights fit a point, and no round has two marks.
const _: () = assert!(ROUNDS * ROUND_BYTES * 8 + 8 < BITS as usize && ROUND_WEIGHTS < EVERY as usize);
const _: () = assert!((ROUNDS * ROUND_WEIGHTS + EVERY as usize) * (ONE as usize) < LONG as usize && STEPS < 8);

/// Marks that are looked at together. Of an even number the compiler makes vectors, which is slower: look-ups are none.
const TOGETHER: usize = 3;
/// Slots for points of a burst: as many as any point below [`LONG`] can ask for, and whole threes.
const SLOTS: usize = 84;
const _: () = assert!(slot(LONG - 1) < SLOTS && SLOTS.is_multiple_of(TOGETHER));

/// Marks before a point: its weights by [`EVERY`]. The factor is a little too large, by less than one part in 2^30; no
/// point has as many weights that it matters.
#[inline(always)]
const fn slot(point: u32) -> usize {
    const FACTOR: u64 = (1 << 53) / (EVERY * ONE as u64) + 1;
    ((point as u64 * FACTOR) >> 53) as usize
}

/// What a round adds to the lowest three bits of a point, so that its low byte says how far a word is to be shifted.
const SHIFTED: u32 = WINDOW << 8 | (57 - WINDOW);

/// The bits since the burst's start.
#[inline(always)]
fn bits(point: u32) -> u32 {
    !point & BITS
}

/// The window that lies in a word where a round has got to: below [`SIZE`]. `BEXTR`: the processor has BMI1.
#[inline(always)]
fn cut<const BEXTR: bool>(word: u64, here: u32) -> usize {
    #[cfg(target_arch = "x86_64")]
    if BEXTR {
        // SAFETY: by what the constant says.
        let window = unsafe { std::arch::x86_64::_bextr2_u64(word, here as u64) } as usize;
        // SAFETY: the second byte of `here` says how many bits these are, and it is never more than WINDOW.
        unsafe { std::hint::assert_unchecked(window < SIZE) };
        return window;
    }
    (word >> (here & 63)) as usize % SIZE
}

/// A stretch of whole blocks to walk.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Code bytes from the first block's first on, and of those behind the last block as many as there are, up to
    /// [`BEHIND`].
    pub code: &'a [u8],
    /// The number of the first block.
    pub block: usize,
    /// How many blocks.
    pub blocks: usize,
    /// The bit of the first block at which its first code begins.
    pub gap: usize,
    /// Weights of the group before the run's first.
    pub weight: u64,
    /// The group's weights, if the last one is in this run.
    pub end: Option<u64>,
}

/// What a walk finds.
pub trait Sink {
    /// The code of weight `number * EVERY` begins at this bit of the stream.
    fn mark(&mut self, number: u64, bit: u64);
    /// So many weights begin before a block, and the first one in it at bit `gap` of it. Returns whether that is so.
    fn border(&mut self, block: usize, weight: u64, gap: usize) -> bool;
    /// The last weight begins in this block, and its code ends at this bit of the stream. Returns whether that is so.
    fn end(&mut self, block: usize, bit: u64) -> bool;
}

/// Walks runs with one code table.
pub struct Marker<'a> {
    codes: &'a CodeTable,
    /// One of them: the memory of a vector can be asked for in a way that may fail.
    tables: Box<[Tables; 1]>,
}

/// What each window begins with.
#[derive(Clone, Copy)]
struct Tables {
    /// What its whole codes add to a point, or [`LONG`] if the first code is longer, or none begins so.
    many: [u32; SIZE],
    /// The bit at which each of its codes begins, four bits each, the first one lowest; the place behind the last whole
    /// code counts.
    places: [u64; SIZE],
}

/// The last point before each mark of a burst.
type Points = [u32; SLOTS];

impl<'a> Marker<'a> {
    /// A marker for one group's code (some 20 µs).
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn new(codes: &'a CodeTable) -> Result<Self> {
        let first = first_symbols::<SIZE>(codes);
        let mut tables = Vec::new();
        grow(&mut tables, 1, Tables { many: [0; _], places: [0; _] }, "the tables of a walk")?;
        let Tables { many, places } = &mut tables[0];
        for (window, (many, places)) in many.iter_mut().zip(places).enumerate() {
            let (mut used, mut count) = (0, 0);
            loop {
                *places |= (used as u64) << (4 * count);
                // Bits shifted in from the right are unknown: a code counts only if it ends before them.
                let len = first[window << used & (SIZE - 1)].1 as u32;
                if len == 0 || used + len > WINDOW {
                    break;
                }
                used += len;
                count += 1;
            }
            *many = if count == 0 { LONG } else { count * ONE - used };
        }
        let Ok(tables) = tables.into_boxed_slice().try_into() else { unreachable!("there is one") };
        Ok(Marker { codes, tables })
    }

    /// Walks runs side by side; those of no blocks are left out. Returns whether all is well: every code is one, and
    /// the sink agrees.
    pub fn walk<S: Sink>(&self, runs: [Run; LANES], sink: &mut S) -> bool {
        /// # Safety
        ///
        /// The processor has the features.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "bmi1,bmi2,avx2,movbe,popcnt")]
        unsafe fn with_bmi2<S: Sink>(marker: &Marker, runs: [Run; LANES], sink: &mut S) -> bool {
            marker.walk_inline::<true, S>(runs, sink)
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("movbe")
            && is_x86_feature_detected!("popcnt")
        {
            // SAFETY: it has them.
            return unsafe { with_bmi2(self, runs, sink) };
        }
        self.walk_inline::<false, S>(runs, sink)
    }

    #[inline(always)]
    fn walk_inline<const BEXTR: bool, S: Sink>(&self, runs: [Run; LANES], sink: &mut S) -> bool {
        let mut lanes = runs.map(Lane::new);
        let mut points: [Points; LANES] = [[0; _]; _];
        loop {
            for lane in &mut lanes {
                if !lane.done && lane.room() == 0 && !self.finish(lane, sink) {
                    return false;
                }
            }
            let Some(busy) = lanes.iter().position(|lane| !lane.done) else { return true };
            // A lane without work shadows a busy one, and its points are not looked at.
            let source: [usize; LANES] = std::array::from_fn(|l| if lanes[l].done { busy } else { l });
            let live = || lanes.iter().filter(|lane| !lane.done);
            let room = live().map(Lane::room).min().unwrap_or(0);
            let rounds = room.min(live().map(Lane::wanted).max().unwrap_or(0));
            let starts = source.map(|l| lanes[l].code[lanes[l].at >> 3..].as_ptr());
            let from = source.map(|l| lanes[l].point());
            // SAFETY: every lane has room for so many rounds.
            let (to, stuck) = unsafe { self.burst::<BEXTR>(starts, from, &mut points, rounds) };
            for (l, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.done) {
                let well = self.look_back::<BEXTR, S>(lane, &mut points[l], to[l], sink);
                if !well || (stuck[l] && !lane.done && !self.finish(lane, sink)) {
                    return false;
                }
            }
        }
    }

    /// Walks so many rounds of all lanes, each from a point at the start of its address on. Returns the points at which
    /// they end, and which lanes met bits that begin no code.
    ///
    /// # Safety
    ///
    /// [`ROUND_BYTES`] bytes for each round, and 8 more, can be read from each address on. The points are those of
    /// [`Lane::point`].
    #[inline(always)]
    unsafe fn burst<const BEXTR: bool>(
        &self,
        starts: [*const u8; LANES],
        from: [u32; LANES],
        points: &mut [Points; LANES],
        rounds: usize,
    ) -> ([u32; LANES], [bool; LANES]) {
        let mut here = from;
        let mut stuck = [false; LANES];
        for _ in 0..rounds.min(ROUNDS) {
            let (mut words, mut steps) = ([0; LANES], [0; LANES]);
            for l in 0..LANES {
                debug_assert!(here[l] < LONG);
                // SAFETY: weights of so many rounds leave a point below `LONG`, and there are slots for all of those.
                unsafe { *points[l].get_unchecked_mut(slot(here[l])) = here[l] };
                // SAFETY: by the caller's promise; a round moves on by no more than its bytes.
                words[l] = unsafe { load(starts[l], here[l]) };
                steps[l] = (here[l] & 7) + SHIFTED;
            }
            for _ in 0..STEPS {
                for l in 0..LANES {
                    steps[l] = steps[l].wrapping_add(self.tables[0].many[cut::<BEXTR>(words[l], steps[l])]);
                }
            }
            for l in 0..LANES {
                here[l] = (here[l] & !7).wrapping_add(steps[l]).wrapping_sub(SHIFTED);
                if here[l] >= LONG {
                    here[l] %= LONG;
                    // SAFETY: as above: look-ups take 6 bytes of a round at most.
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

    /// What a code that is longer than a window adds to a point.
    #[cold]
    #[inline(never)]
    fn long(&self, word: u64) -> Option<u32> {
        Some(ONE - self.codes.first((word >> 32) as u32)?.len as u32)
    }

    /// The length of the code that a window of 32 bits begins with.
    fn length(&self, window: u32) -> Option<u32> {
        let short = (window >> (32 - WINDOW)) as usize;
        match self.tables[0].many[short] {
            LONG => self.codes.first(window).map(|code| code.len as u32),
            // Where the second one begins.
            _ => Some((self.tables[0].places[short] >> 4 & 15) as u32),
        }
    }

    /// Finds the marks and borders that a lane has passed in a burst, and moves it on.
    #[inline(always)]
    fn look_back<const BEXTR: bool, S: Sink>(
        &self,
        lane: &mut Lane,
        points: &mut Points,
        last: u32,
        sink: &mut S,
    ) -> bool {
        let from = lane.point();
        let base = lane.at >> 3 << 3;
        let code = &lane.code[base >> 3..];
        // Borders first: marks behind the run's end are not its own.
        let mut end = last;
        while !lane.done && lane.border <= base + bits(last) as usize {
            let border = (lane.border - base) as u32;
            let before = points[..slot(last)].partition_point(|&point| bits(point) <= border);
            let before = if before == 0 { from } else { points[before - 1] };
            let Some(found) = self.code_at(code, before, border) else { return false };
            if !lane.pass(lane.weight_at(from, found), (bits(found) - border) as usize, sink) {
                return false;
            }
            if lane.done {
                end = found;
            }
        }
        if lane.end.is_some_and(|all| lane.weight_at(from, end) > all) {
            return false;
        }
        // Not more than the burst has passed, even if someone writes to the code.
        let marks = slot(end).min(slot(last));
        if marks > 0 {
            // What is looked at together with the last ones must be points, though nobody asks where their marks are.
            let last = points[marks - 1];
            points[marks..marks.next_multiple_of(TOGETHER)].fill(last);
        }
        let base_bit = lane.first_bit + base as u64;
        for (i, points) in points.as_chunks::<TOGETHER>().0[..marks.div_ceil(TOGETHER)].iter().enumerate() {
            let first = i * TOGETHER;
            // SAFETY: all slots up to that of the burst's end have points of this burst, for no round goes over a whole
            // one.
            let places = unsafe { self.places::<BEXTR>(code, points, first) };
            for (i, &place) in places[..(marks - first).min(TOGETHER)].iter().enumerate() {
                sink.mark(lane.mark + (first + i) as u64, base_bit + place as u64);
            }
        }
        lane.weight = lane.weight_at(from, last);
        lane.mark += marks as u64;
        lane.at = base + bits(last) as usize;
        true
    }

    /// The bits at which marks begin, from the last points before them: those of a burst from number `first` on.
    ///
    /// # Safety
    ///
    /// Rounds of a burst over this code began at the points.
    #[inline(always)]
    unsafe fn places<const BEXTR: bool>(&self, code: &[u8], points: &[u32; TOGETHER], first: usize) -> [u32; TOGETHER] {
        // SAFETY: by the caller's promise.
        let words = points.map(|point| unsafe { load(code.as_ptr(), point) });
        // What every point behind the mark's code is no less than.
        let behind: [u32; TOGETHER] = std::array::from_fn(|i| EVERY as u32 * (first + i + 1) as u32 * ONE);
        let mut here = points.map(|point| (point & !BITS) + (point & 7) + SHIFTED);
        for _ in 0..STEPS {
            for i in 0..TOGETHER {
                let next = here[i].wrapping_add(self.tables[0].many[cut::<BEXTR>(words[i], here[i])]);
                here[i] = std::hint::select_unpredictable(next < behind[i], next, here[i]);
            }
        }
        std::array::from_fn(|i| {
            // Whole codes of the window before this one: none behind the last step, where there may be a long code.
            let codes = (behind[i] - ONE - (here[i] & !(ONE - 1))) >> 16;
            let place = self.tables[0].places[cut::<BEXTR>(words[i], here[i])] >> ((4 * codes) & 63) & 15;
            (bits(points[i]) & !7) + (SHIFTED + 7 - (here[i] & (ONE - 1))) + place as u32
        })
    }

    /// The first code at or behind a border, from a point before it on.
    #[cold]
    fn code_at(&self, code: &[u8], mut point: u32, border: u32) -> Option<u32> {
        while bits(point) < border {
            let window = window(code, bits(point) as usize);
            let many = self.tables[0].many[(window >> (32 - WINDOW)) as usize];
            let next = point.wrapping_add(many);
            point = if many != LONG && bits(next) <= border { next } else { point + ONE - self.length(window)? };
        }
        Some(point)
    }

    /// Walks what is left of a lane's run, code by code.
    #[cold]
    fn finish<S: Sink>(&self, lane: &mut Lane, sink: &mut S) -> bool {
        let mut last = None;
        while !lane.done {
            if lane.end == Some(lane.weight) {
                lane.done = true;
                // Before the end of a stream that ends where it should, lanes have no room.
                return last.is_some_and(|at: usize| {
                    sink.end((lane.first_bit as usize + at) / BLOCK_BITS, lane.first_bit + lane.at as u64)
                });
            }
            if lane.at >= lane.border {
                if !lane.pass(lane.weight, lane.at - lane.border, sink) {
                    return false;
                }
                continue;
            }
            if lane.at >= lane.code.len() * 8 {
                return false;
            }
            let Some(length) = self.length(window(lane.code, lane.at)) else { return false };
            if lane.mark * EVERY == lane.weight {
                sink.mark(lane.mark, lane.first_bit + lane.at as u64);
                lane.mark += 1;
            }
            last = Some(lane.at);
            lane.at += length as usize;
            lane.weight += 1;
        }
        true
    }
}

/// The 64 bits that begin with the byte in which a point behind an address lies.
///
/// # Safety
///
/// 8 bytes can be read there.
#[inline(always)]
unsafe fn load(start: *const u8, point: u32) -> u64 {
    // SAFETY: by the caller's promise.
    let bytes = unsafe { start.add(bits(point) as usize >> 3).cast::<[u8; 8]>().read() };
    u64::from_be_bytes(bytes)
}

/// A run on its way.
struct Lane<'a> {
    code: &'a [u8],
    /// The stream's bit at which `code` begins.
    first_bit: u64,
    /// The bit of `code` at which the next weight begins.
    at: usize,
    /// The number of that weight.
    weight: u64,
    /// The next mark.
    mark: u64,
    /// The block it is in, and the one behind the last.
    block: usize,
    end_block: usize,
    /// The bit of `code` at which the block ends; none for the block in which the stream ends.
    border: usize,
    end: Option<u64>,
    done: bool,
}

impl<'a> Lane<'a> {
    fn new(run: Run<'a>) -> Self {
        let Run { code, block, blocks, gap, weight, end } = run;
        let mut lane = Lane {
            code,
            first_bit: (block * BLOCK_BITS) as u64,
            at: gap,
            weight,
            mark: weight.div_ceil(EVERY),
            block,
            end_block: block + blocks,
            border: 0,
            end,
            done: blocks == 0,
        };
        lane.enter(block);
        lane
    }

    /// Goes into a block.
    fn enter(&mut self, block: usize) {
        self.block = block;
        let endless = self.end.is_some() && block + 1 == self.end_block;
        self.border = if endless { usize::MAX } else { self.border + BLOCK_BITS };
        self.done |= block == self.end_block;
    }

    /// Goes over the border before the next block, at a weight that begins there.
    fn pass<S: Sink>(&mut self, weight: u64, gap: usize, sink: &mut S) -> bool {
        self.enter(self.block + 1);
        sink.border(self.block, weight, gap)
    }

    /// The point from which a burst starts: its weights are such that whole hundreds-and-four of them end with marks.
    fn point(&self) -> u32 {
        let ahead = EVERY - 1 - (self.mark * EVERY - self.weight);
        ahead as u32 * ONE + BITS - (self.at as u32 & 7)
    }

    /// The number of the weight at a point of the burst that starts from one.
    fn weight_at(&self, from: u32, point: u32) -> u64 {
        self.weight + ((point >> 16) - (from >> 16)) as u64
    }

    /// Rounds that cannot leave the code.
    fn room(&self) -> usize {
        (self.code.len().saturating_sub((self.at >> 3) + 8) / ROUND_BYTES).min(ROUNDS)
    }

    /// Rounds after which the run is probably over.
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

    /// What a walk said.
    #[derive(Debug, Default, PartialEq)]
    struct Said {
        marks: Vec<(u64, u64)>,
        borders: Vec<(usize, u64, usize)>,
        ends: Vec<(usize, u64)>,
    }

    impl Sink for Said {
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

    /// A stream of so many codes, and what is to be said of it.
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
            if weight.is_multiple_of(EVERY) {
                said.marks.push((weight / EVERY, bit));
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

    /// Runs of a whole stream, as what is to be said of it cuts it.
    fn runs<'a>(code: &'a [u8], said: &Said, count: u64) -> [Run<'a>; LANES] {
        let blocks = said.borders.len() + 1;
        std::array::from_fn(|lane| {
            let (block, end) = (blocks * lane / LANES, blocks * (lane + 1) / LANES);
            let (weight, gap) =
                if block == 0 { (0, 0) } else { (said.borders[block - 1].1, said.borders[block - 1].2) };
            let code = &code[block * BLOCK_BYTES..code.len().min(end * BLOCK_BYTES + BEHIND)];
            Run { code, block, blocks: end - block, gap, weight, end: (end == blocks).then_some(count) }
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
                    (weights / EVERY as u32) as usize,
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
            // A run that ends before it does not mind.
            let run = Run { code: &spoilt[..BLOCK_BYTES + BEHIND], block: 0, blocks: 1, gap: 0, weight: 0, end: None };
            let others = Run { blocks: 0, ..run };
            let mut said = Said::default();
            let well = marker.walk(std::array::from_fn(|lane| if lane == 0 { run } else { others }), &mut said);
            assert!(if at < 4096 { !well } else { well && said.borders == truth.borders[..1] }, "byte {at}");
        }
    }
}
