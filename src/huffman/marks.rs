//! The bit at which every n-th weight's code begins, found by one walk over the codes: the index of images.
//!
//! # The idea
//!
//! As in [`super::decode`], several streams are walked side by side, several codes a look-up; but nothing is decoded, so a
//! look-up adds one number to one: codes above, bits below. Where a certain weight begins cannot be seen that way, for a look-up
//! steps over up to eleven codes. So every lane leaves *points* behind it, and what lies between two of them is looked at
//! again, once in some hundred weights:
//!
//! ```text
//! step    here += many[word << here >> 53]         here: weights << 16 | bits, since the burst's start
//! round   points[r] = here;  word = load at here;  five steps         at most one mark lies in it: 55 weights at most
//! burst   up to 128 rounds of all lanes, then of each lane:
//!           for each round    round_of[weights before it / 104] = r: what remains is the last round before each mark
//!           for each mark     its round again, step by step: the last step before it, and from a table of the places at
//!                             which a window's codes begin the bit
//!           for each border   of blocks, the first code behind it, code by code
//! ```
//!
//! A step is a shift, a shift and an addition from memory, some eight cycles one after the other; eight lanes fill them. Nothing
//! in a burst depends on a comparison but long codes, nor does the search for rounds.
//!
//! A lane walks a *run* of whole blocks and goes through their borders without stopping, for the stream restarts nowhere.
//! At each border the walk knows how many weights came before and at which bit the next code begins; whoever asked for the
//! walk compares both with what is recorded ([`Sink::border`]). That runs begin where codes begin follows from the border before.
//!
//! # What keeps it in bounds
//!
//! A burst takes only so many rounds as stay in the code even if each took the most: 55 bits in look-ups, 32 in a long code,
//! a load of 8 bytes. The last bytes of a stream are walked code by code. Bits that begin no code stop a lane where it is, and
//! then it goes on code by code until it meets them: only what lies before its end can fail.

use super::code::CodeTable;
use super::table::{WINDOW, first_symbols};
use super::{BLOCK_BITS, MAX_CODE_BITS, window};

/// Weights from one mark to the next.
pub const EVERY: u64 = 104;
/// Runs that are walked side by side.
pub const LANES: usize = 8;
/// Bytes behind a run's blocks that a walk may look at; it needs none, but it is slower without.
pub const BEHIND: usize = 32;

/// Look-ups of a round: 55 bits are at most the 57 that a load guarantees.
const STEPS: usize = 5;
/// Rounds of a burst.
const ROUNDS: usize = 128;
/// The most bytes by which a round moves on: 55 bits in look-ups and 32 in a long code.
const ROUND_BYTES: usize = 11;
const _: () = assert!(8 * ROUND_BYTES >= STEPS * WINDOW as usize + MAX_CODE_BITS as usize);
// A burst's bits and weights fit half a point each, and no round has two marks.
const _: () = assert!(ROUNDS * ROUND_BYTES * 8 + 8 < 1 << 16 && (STEPS * WINDOW as usize + 1) < EVERY as usize);

/// More marks than a burst has.
const MARKS: usize = 128;
const _: () = assert!(ROUNDS * (STEPS * WINDOW as usize + 1) / (EVERY as usize) < MARKS - 1);

/// The quotient by [`EVERY`]: a multiplication where it is exact, and that is up to 18,723.
#[inline(always)]
fn marks_before(weights: u32) -> usize {
    const { assert!(EVERY == 104 && ROUNDS * (STEPS * WINDOW as usize + 1) + (EVERY as usize) < 18_724) }
    ((weights * 10_083) >> 20) as usize
}

/// One weight, as points count them.
const ONE: u32 = 1 << 16;
/// The bits of a point.
const BITS: u32 = ONE - 1;

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
    tables: Box<Tables>,
}

/// What each window begins with.
struct Tables {
    /// Whole codes, in weights and bits as points have them; 0 if the first code is longer, or none begins so.
    many: [u32; 1 << WINDOW],
    /// The bit at which each of its codes begins, four bits each, the first one lowest; the place behind the last whole code
    /// counts.
    places: [u64; 1 << WINDOW],
}

/// The points of a burst, the last one where it ended.
type Points = [u32; ROUNDS + 1];

impl<'a> Marker<'a> {
    /// A marker for one group's code (some 10 µs).
    pub fn new(codes: &'a CodeTable) -> Self {
        let first = first_symbols(codes);
        let mut tables = Box::new(Tables { many: [0; _], places: [0; _] });
        for (window, (many, places)) in tables.many.iter_mut().zip(&mut tables.places).enumerate() {
            let (mut used, mut count) = (0, 0);
            loop {
                *places |= (used as u64) << (4 * count);
                // Bits shifted in from the right are unknown: a code counts only if it ends before them.
                let len = first[window << used & ((1 << WINDOW) - 1)].1 as u32;
                if len == 0 || used + len > WINDOW {
                    break;
                }
                used += len;
                count += 1;
            }
            *many = count * ONE + used;
        }
        Marker { codes, tables }
    }

    /// Walks runs side by side; those of no blocks are left out. Returns whether all is well: every code is one, and the
    /// sink agrees.
    pub fn walk<S: Sink>(&self, runs: [Run; LANES], sink: &mut S) -> bool {
        /// # Safety
        ///
        /// The processor has the features.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "bmi1,bmi2,avx2,movbe,popcnt")]
        unsafe fn with_bmi2<S: Sink>(marker: &Marker, runs: [Run; LANES], sink: &mut S) -> bool {
            marker.walk_inline(runs, sink)
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
        self.walk_inline(runs, sink)
    }

    #[inline(always)]
    fn walk_inline<S: Sink>(&self, runs: [Run; LANES], sink: &mut S) -> bool {
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
            let bits = source.map(|l| lanes[l].at as u32 & 7);
            // SAFETY: every lane has room for so many rounds.
            let stuck = unsafe { self.burst(starts, bits, &mut points, rounds) };
            for (l, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.done) {
                let well = self.look_back(lane, &points[l], rounds, sink);
                if !well || (stuck[l] && !lane.done && !self.finish(lane, sink)) {
                    return false;
                }
            }
        }
    }

    /// Walks so many rounds of all lanes, each from one of the first bits at its address on. Returns which lanes met bits that
    /// begin no code.
    ///
    /// # Safety
    ///
    /// [`ROUND_BYTES`] bytes for each round, and 8 more, can be read from each address on.
    #[inline(always)]
    unsafe fn burst(
        &self,
        starts: [*const u8; LANES],
        bits: [u32; LANES],
        points: &mut [Points; LANES],
        rounds: usize,
    ) -> [bool; LANES] {
        let mut here = bits;
        let mut stuck = [false; LANES];
        #[expect(clippy::needless_range_loop)] // of several arrays at once
        for r in 0..rounds.min(ROUNDS) {
            let (mut words, mut steps, mut entries) = ([0; LANES], [0; LANES], [0; LANES]);
            for l in 0..LANES {
                points[l][r] = here[l];
                // SAFETY: by the caller's promise; a round moves on by no more than its bytes.
                words[l] = unsafe { load(starts[l], here[l]) };
                steps[l] = here[l] & 7;
            }
            for _ in 0..STEPS {
                for l in 0..LANES {
                    entries[l] = self.tables.many[((words[l] << (steps[l] & 63)) >> (64 - WINDOW)) as usize];
                    steps[l] += entries[l];
                }
            }
            for l in 0..LANES {
                here[l] = (here[l] & !7) + steps[l];
                if entries[l] == 0 {
                    // SAFETY: as above: look-ups take 7 bytes of a round at most.
                    match self.long(unsafe { load(starts[l], here[l]) } << (here[l] & 7)) {
                        Some(long) => here[l] += long,
                        None => stuck[l] = true,
                    }
                }
            }
        }
        for l in 0..LANES {
            points[l][rounds] = here[l];
        }
        stuck
    }

    /// A code that is longer than a window, as a point counts it.
    #[cold]
    #[inline(never)]
    fn long(&self, bits: u64) -> Option<u32> {
        Some(ONE + self.codes.first((bits >> 32) as u32)?.len as u32)
    }

    /// The length of the code that a window of 32 bits begins with.
    fn length(&self, window: u32) -> Option<u32> {
        let short = (window >> (32 - WINDOW)) as usize;
        match self.tables.many[short] {
            0 => self.codes.first(window).map(|code| code.len as u32),
            // Where the second one begins.
            _ => Some((self.tables.places[short] >> 4 & 15) as u32),
        }
    }

    /// Finds the marks and borders that a lane has passed in a burst, and moves it on.
    #[inline(always)]
    fn look_back<S: Sink>(&self, lane: &mut Lane, points: &Points, rounds: usize, sink: &mut S) -> bool {
        let base = lane.at >> 3 << 3;
        let last = points[rounds];
        let mut weights = last >> 16;
        // Borders first: marks behind the run's end are not its own.
        while !lane.done && lane.border <= base + (last & BITS) as usize {
            let border = (lane.border - base) as u32;
            let round = points[..=rounds].partition_point(|&point| point & BITS <= border) - 1;
            let Some(found) = self.code_at(&lane.code[base >> 3..], points[round], border) else { return false };
            if !lane.pass(lane.weight + (found >> 16) as u64, ((found & BITS) - border) as usize, sink) {
                return false;
            }
            if lane.done {
                weights = found >> 16;
            }
        }
        if lane.end.is_some_and(|end| lane.weight + weights as u64 > end) {
            return false;
        }
        // Weights are counted from 104 before the next mark, and one less, so that a mark lies in the last round that begins with
        // as many whole hundreds-and-four as marks before it. No round has two, so none is left out.
        let ahead = (EVERY - 1 - (lane.mark * EVERY - lane.weight)) as u32;
        let mut round_of = [0; MARKS];
        for (round, &point) in points[..rounds].iter().enumerate() {
            round_of[marks_before((point >> 16) + ahead) % MARKS] = round as u16;
        }
        let base_bit = lane.first_bit + base as u64;
        for (i, &round) in round_of[..marks_before(weights + ahead).min(MARKS)].iter().enumerate() {
            // What every point behind the weight is no less than.
            let behind = (EVERY as u32 * (i as u32 + 1) - ahead) * ONE;
            let bit = self.place(&lane.code[base >> 3..], points[round as usize], behind);
            sink.mark(lane.mark + i as u64, base_bit + bit as u64);
        }
        lane.mark += marks_before(weights + ahead) as u64;
        lane.weight += (last >> 16) as u64;
        lane.at = base + (last & BITS) as usize;
        true
    }

    /// The bit at which the last weight before `behind` begins, in the round that begins at a point.
    #[inline(always)]
    fn place(&self, code: &[u8], point: u32, behind: u32) -> u32 {
        let at = (point & BITS) as usize >> 3;
        let word = u64::from_be_bytes(code[at..].first_chunk().copied().unwrap_or_default());
        let window = |here: u32| ((word << (here & 63)) >> (64 - WINDOW)) as usize;
        // Where each step begins; behind the last one there may be a long code.
        let mut here = [point & 7; STEPS + 1];
        let behind = behind - (point & !BITS);
        let mut step = 0;
        for i in 0..STEPS {
            here[i + 1] = here[i] + self.tables.many[window(here[i])];
            step += (here[i + 1] < behind) as usize;
        }
        let here = here[step];
        // Whole codes of the window before this one: none behind the last step.
        let codes = (behind - ONE - (here & !BITS)) >> 16;
        (point & BITS & !7) + (here & BITS) + (self.tables.places[window(here)] >> ((4 * codes) & 63) & 15) as u32
    }

    /// The first code at or behind a border, code by code from a point before it.
    #[cold]
    fn code_at(&self, code: &[u8], mut point: u32, border: u32) -> Option<u32> {
        while point & BITS < border {
            point += ONE + self.length(window(code, (point & BITS) as usize))?;
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
    let bytes = unsafe { start.add((point & BITS) as usize >> 3).cast::<[u8; 8]>().read() };
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
    fn both_walks_say_what_is_true() {
        for (number, codes) in tables().iter().enumerate() {
            let marker = Marker::new(codes);
            for count in [1, 2, 60, 104, 105, 1000, 30_000, 400_000] {
                let (bytes, truth) = stream(codes, count, count + number as u64);
                for portable in [false, true] {
                    let mut said = Said::default();
                    let runs = runs(&bytes, &truth, count);
                    let well =
                        if portable { marker.walk_inline(runs, &mut said) } else { marker.walk(runs, &mut said) };
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
        let marker = Marker::new(&codes);
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
