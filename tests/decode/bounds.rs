//! Reads and writes out of bounds: the buffers of a run end at pages that must not be touched.

use df11::internals::huffman::code::{Code, CodeTable};
use df11::internals::huffman::decode::{self, Fault, Feed, MOST_LANES, Run};
use df11::internals::huffman::naive;
use df11::internals::huffman::table::MultiTable;
use df11::{DecodeOptions, Model, OpenOptions};

use super::support::guarded::{Guarded, Side};
use super::support::weights::{self, Random};
use super::support::{check, encoder, files};
use super::{Case, random_codes, variants};

/// A run whose buffers end at forbidden pages, and its expected result.
struct Trial {
    run: Run,
    _code: Guarded<u8>,
    _gaps: Guarded<u8>,
    _signs: Guarded<u8>,
    dst: Guarded<u16>,
    lead: usize,
    want: Result<Vec<u16>, Vec<Fault>>,
}

const CANARY: u16 = 0x5a3c;

struct Trials<'a> {
    trials: &'a [Trial],
    next: usize,
    gaps: bool,
}

// SAFETY: each trial has memory of its own, which outlives the decode.
unsafe impl Feed for Trials<'_> {
    type Error = (usize, Fault);

    fn next(&mut self, lane: usize) -> Result<Option<Run>, Self::Error> {
        assert!(lane < MOST_LANES);
        self.next += 1;
        Ok(self.trials.get(self.next - 1).map(|t| t.run))
    }

    fn has_gaps(&self) -> bool {
        self.gaps
    }

    fn fault(&self, run: &Run, fault: Fault) -> Self::Error {
        (run.tag, fault)
    }
}

/// Returns bits for a run: codes of the table, random bits, or one byte repeated.
fn bytes(codes: &[Code], len: usize, random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => (0..len).map(|_| random.bits() as u8).collect(),
        1 => vec![[0, 0xff, 0xaa][random.below(3) as usize]; len],
        kind => {
            let mut out = Vec::new();
            let (mut pending, mut open) = (0u64, 0u32);
            let favourite = random.below(codes.len().max(1) as u64) as usize;
            while out.len() < len && !codes.is_empty() {
                let c = match random.below(4) {
                    0 => codes[random.below(codes.len() as u64) as usize],
                    _ => codes[favourite],
                };
                pending = pending << c.len | (c.bits >> (32 - c.len as u32)) as u64;
                open += c.len as u32;
                while open >= 8 {
                    open -= 8;
                    out.push((pending >> open) as u8);
                }
            }
            out.resize(len, 0);
            if kind == 2 && len > 0 {
                let at = random.below(len as u64) as usize;
                out[at] ^= 1 << random.below(8);
            }
            out
        }
    }
}

/// Returns the gaps of the chunks of `code`, as far as codes begin there, packed; some of them wrong. Also returns how many
/// there are.
fn gaps(table: &CodeTable, code: &[u8], start_bit: usize, random: &mut Random) -> (Vec<u8>, usize) {
    let window = |bit: usize| {
        (0..32).fold(0, |w, i| {
            let bit = bit + i;
            w << 1 | code.get(bit / 8).map_or(0, |&byte| byte as u32 >> (7 - bit % 8) & 1)
        })
    };
    let (mut gaps, mut bit) = (Vec::new(), start_bit);
    while bit < 8 * code.len() {
        if bit / 64 >= gaps.len() {
            gaps.push((bit % 64) as u8);
        }
        let Some(found) = table.first(window(bit)) else { break };
        bit += found.len as usize;
    }
    if random.below(3) == 0 {
        for _ in 0..1 + random.below(3) {
            let at = random.below(gaps.len() as u64 + 1) as usize;
            gaps.get_mut(at..).into_iter().flatten().take(1).for_each(|gap| *gap = random.below(32) as u8);
        }
    }
    let count = match random.below(3) {
        0 => random.below(gaps.len() as u64 + 1) as usize,
        _ => gaps.len(),
    };
    let mut packed = vec![0; (5 * count).div_ceil(8)];
    for bit in (0..5 * count).filter(|bit| gaps[bit / 5] >> (4 - bit % 5) & 1 != 0) {
        packed[bit / 8] |= 0x80 >> (bit % 8);
    }
    (packed, count)
}

fn trial(tag: usize, codes: &[Code], table: &CodeTable, random: &mut Random) -> Trial {
    let len = match random.below(6) {
        0 => random.below(9) as usize,
        1 => random.below(30) as usize,
        2 | 3 => random.below(300) as usize,
        4 => random.below(3_000) as usize,
        // Rarely enough for several batches of all lanes.
        _ if random.below(6) == 0 => random.below(20_000) as usize,
        _ => 0,
    };
    let code = bytes(codes, len, random);
    let start_bit = random.below(32) as usize;
    // As many weights as there are, some more, or fewer.
    let all: Vec<u8> = (0..8 * len + 40).map(|_| random.bits() as u8).collect();
    let possible = match naive::decode(table, &code, start_bit, &all) {
        Ok(_) => unreachable!("more weights than bits"),
        Err(k) => k,
    };
    let total = match random.below(4) {
        0 => random.below(possible as u64 + 1) as usize,
        1 => possible + random.below(40) as usize,
        _ => possible,
    };
    let skip = match random.below(3) {
        0 => random.below(total as u64 + 1) as usize,
        1 => random.below(total as u64 + 1).min(70) as usize,
        _ => 0,
    };
    let signs = &all[..total];
    let bit_of = |weight: usize| naive::decode(table, &code, start_bit, &all[..weight]).unwrap().1;
    let (end_bits, want) = match naive::decode(table, &code, start_bit, signs) {
        Err(weight) => {
            let bit = bit_of(weight);
            ((0, usize::MAX), Err(vec![Fault::NoCode { bit, weight }, Fault::Short { bit, weight }]))
        }
        Ok((found, bit)) => match random.below(5) {
            0 => ((bit + 1, bit + 9), Err(vec![Fault::End { bit }])),
            1 => ((0, bit.wrapping_sub(1)), if bit == 0 { Ok(vec![]) } else { Err(vec![Fault::End { bit }]) }),
            2 => ((bit, bit), Ok(found[skip..].to_vec())),
            3 => ((bit.saturating_sub(7), bit + 3), Ok(found[skip..].to_vec())),
            _ => ((0, usize::MAX), Ok(found[skip..].to_vec())),
        },
    };
    let side = |random: &mut Random| [Side::Front, Side::Back][random.below(2) as usize];
    let lead = random.below(40) as usize;
    let (gaps, gap_count) = gaps(table, &code, start_bit, random);
    let gaps = Guarded::new(&gaps, side(random));
    let (code, code_bytes) = (Guarded::new(&code, side(random)), code.len());
    let signs = Guarded::new(&signs[skip..], side(random));
    let dst = Guarded::new(&vec![CANARY; lead + total - skip], side(random));
    let run = Run {
        code: code.as_ptr(),
        code_bytes,
        start_bit,
        gaps: gaps.as_ptr(),
        gap_count,
        skip,
        sign_mantissa: signs.as_ptr(),
        dst: dst.as_mut_ptr().wrapping_add(lead),
        count: total - skip,
        end_bits,
        tag,
    };
    Trial { run, _code: code, _gaps: gaps, _signs: signs, dst, lead, want }
}

#[test]
fn nothing_outside_a_runs_buffers_is_touched() {
    let (mut fine, mut faulty) = (0, 0);
    for seed in 0..check::rounds(2_000) {
        let mut random = Random::new(seed);
        let codes = random_codes(&mut random);
        let table = CodeTable::new(codes.clone()).unwrap();
        let multi = MultiTable::new(&table);
        let count = random.below(16) as usize;
        let mut trials: Vec<Trial> = (0..count).map(|tag| trial(tag, &codes, &table, &mut random)).collect();
        if random.below(2) == 0 {
            // One bad run hides all others: let half of the rounds have none.
            trials.retain(|t| t.want.is_ok());
            trials.iter_mut().enumerate().for_each(|(tag, t)| t.run.tag = tag);
        }
        for variant in variants() {
            trials.iter_mut().for_each(|t| t.dst.as_mut_slice().fill(CANARY));
            let streaming = random.below(2) == 0;
            let gaps = random.below(2) == 0;
            let mut feed = Trials { trials: &trials, next: 0, gaps };
            let result = decode::decode(&multi, &table, &mut feed, variant, streaming);
            let place = format!("seed {seed}, {}, {count} runs, gaps: {gaps}", variant.name());
            let sound = trials.iter().all(|t| t.want.is_ok());
            match result {
                Ok(()) => {
                    assert!(sound, "{place}: a fault was not found");
                    fine += trials.len();
                    for t in &trials {
                        let found = &t.dst.as_slice()[t.lead..];
                        assert!(t.want.as_ref().is_ok_and(|want| found == want), "{place}: run {}", t.run.tag);
                    }
                }
                Err((tag, fault)) => {
                    faulty += 1;
                    let Err(possible) = &trials[tag].want else {
                        panic!("{place}: run {tag} has no fault, and {fault:?} was found");
                    };
                    assert!(possible.contains(&fault), "{place}: run {tag}: {fault:?}, not of {possible:?}");
                }
            }
            let canaries = trials.iter().all(|t| t.dst.as_slice()[..t.lead].iter().all(|&w| w == CANARY));
            assert!(canaries, "{place}: wrote before a destination");
        }
    }
    let variants = variants().count();
    assert!(
        fine > 3_000 * variants && faulty > 800 * variants,
        "{fine} runs fine, {faulty} rounds with a fault, {variants} decoders"
    );
}

#[test]
fn a_fault_lies_inside_the_code_even_if_another_run_found_one_first() {
    // The codes are 10 and 11. The first run is one bit short of its last weight; the second soon has no code.
    let code = |bits: u32, symbol| Code { bits: bits << 30, len: 2, symbol };
    let codes = vec![code(2, 7), code(3, 8)];
    let table = CodeTable::new(codes).unwrap();
    let multi = MultiTable::new(&table);
    for variant in variants() {
        let trial = |tag: usize, code: &[u8], start_bit: usize, weights: usize| {
            let code = Guarded::new(code, Side::Back);
            let signs = Guarded::new(&vec![0; weights], Side::Back);
            let dst = Guarded::new(&vec![CANARY; weights], Side::Back);
            let run = Run {
                code: code.as_ptr(),
                code_bytes: code.as_slice().len(),
                start_bit,
                gaps: std::ptr::dangling(),
                gap_count: 0,
                skip: 0,
                sign_mantissa: signs.as_ptr(),
                dst: dst.as_mut_ptr(),
                count: weights,
                end_bits: (0, usize::MAX),
                tag,
            };
            let gaps = Guarded::new(&[], Side::Back);
            Trial { run, _code: code, _gaps: gaps, _signs: signs, dst, lead: 0, want: Err(vec![]) }
        };
        let mut bad = vec![0xaa; 1_000];
        bad[100] = 0;
        let trials = [trial(0, &[0xff; 1_000], 1, 4_100), trial(1, &bad, 0, 4_000)];
        let mut feed = Trials { trials: &trials, next: 0, gaps: false };
        let (tag, fault) = decode::decode(&multi, &table, &mut feed, variant, false).unwrap_err();
        let wanted: &[Fault] = match tag {
            0 => &[Fault::Short { bit: 7_999, weight: 3_999 }, Fault::NoCode { bit: 7_999, weight: 3_999 }],
            _ => &[Fault::NoCode { bit: 800, weight: 400 }],
        };
        assert!(wanted.contains(&fault), "{}: run {tag}: {fault:?}", variant.name());
    }
}

#[test]
fn a_whole_file_right_before_a_forbidden_page() {
    // A file ends with a group's last member, which may be the codes themselves.
    for (seed, n) in [1, 7, 40, 300, 5_000, 90_000].into_iter().enumerate() {
        let case = Case::of(format!("{n} weights"), weights::gaussian(n, 0.02, seed as u64));
        for last in ["encoded_exponent", "sign_mantissa", "gaps", "output_positions"] {
            let mut tensors = encoder::group_tensors("g", &case.encoded);
            // Names decide the order in the file, and a file's own order may be any: put one last.
            tensors.sort_by_key(|(name, ..)| name.ends_with(last));
            let file = Guarded::new(&in_order(&tensors), Side::Back);
            struct Bytes(Guarded<u8>);
            // SAFETY: memory that is only read.
            unsafe impl Send for Bytes {}
            // SAFETY: memory that is only read.
            unsafe impl Sync for Bytes {}
            impl AsRef<[u8]> for Bytes {
                fn as_ref(&self) -> &[u8] {
                    self.0.as_slice()
                }
            }
            let model = Model::from_bytes(Bytes(file), &OpenOptions::default()).unwrap();
            for variant in variants() {
                let options = DecodeOptions::new().threads(1).variant(variant);
                case.range((last, &model), 0, n, 0, &options);
                case.range((last, &model), n / 2, n - n / 2, 0, &options);
            }
            model.group(0).unwrap().verify(1).unwrap();
        }
    }
}

/// Returns a file with its tensors in the given order.
fn in_order(tensors: &[encoder::Tensor]) -> Vec<u8> {
    let (mut header, mut payload) = (String::from("{"), Vec::new());
    for (i, (name, dtype, shape, data)) in tensors.iter().enumerate() {
        let (comma, from) = (if i == 0 { "" } else { "," }, payload.len());
        payload.extend_from_slice(data);
        header += &format!(
            r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{from},{}]}}"#,
            payload.len()
        );
    }
    header.push('}');
    files::raw(&header, &payload)
}
