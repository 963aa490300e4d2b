//! The oracle: matrices decoded and multiplied with in the plainest way. It is never made faster.

use super::layout::{BLOCK, ESCAPE, HALF_UNIT_BYTES, UNIT_BYTES, place};
use super::{Input, Matrix, Order};
use crate::huffman::join;

/// Decodes a row: the bits of its weights.
pub fn row(matrix: &Matrix<'_>, row: u64) -> Vec<u16> {
    let bytes = matrix.row_data(row);
    let (mut escapes, end) = matrix.escapes_of(row);
    let columns = matrix.columns() as usize;
    let blocks = columns.div_ceil(BLOCK);
    let mut weights = Vec::new();
    for block in 0..blocks {
        let unit = &bytes[block / 2 * UNIT_BYTES..];
        let is_half = block % 2 == 0 && block + 1 == blocks;
        let (sm, codes) = match (is_half, block % 2) {
            (true, _) => (&unit[..BLOCK], &unit[BLOCK..HALF_UNIT_BYTES]),
            (false, second) => (&unit[second * BLOCK..][..BLOCK], &unit[2 * BLOCK..UNIT_BYTES]),
        };
        let code = |at: usize| match (is_half, block % 2) {
            (true, _) => codes[at % 32] >> (at / 32 * 4) & 15,
            (false, second) => codes[at] >> (second * 4) & 15,
        };
        let mut exponents = [0; BLOCK];
        for (at, exponent) in exponents.iter_mut().enumerate() {
            *exponent = matrix.head.exponents[code(at) as usize];
            if code(at) == ESCAPE {
                let stored = if escapes < end { matrix.data[escapes] } else { 0 };
                *exponent = stored;
                escapes = (escapes + 1).min(end);
            }
        }
        weights.extend((0..BLOCK).map(|w| join(exponents[place(w)], sm[place(w)])));
    }
    weights.truncate(columns);
    weights
}

/// Multiplies a row of weights with a vector, in an order of sums. `x` has as many elements as `w`.
pub fn dot(w: &[u16], x: Input<'_>, order: Order) -> f32 {
    let w = |i: usize| w.get(i).map_or(0.0, |&w| float(w));
    let n = x.len();
    let x = |i: usize| if i >= n { 0.0 } else { x.get(i) };
    let mut sums = [0f32; 32];
    let whole = match order {
        Order::Lanes => n.next_multiple_of(32),
        Order::GgmlAvx2 | Order::GgmlAvx512 => n / 32 * 32,
        Order::GgmlAvx512Bf16 => n / 64 * 64,
    };
    for i in (0..whole).step_by(if order == Order::GgmlAvx512Bf16 { 2 } else { 1 }) {
        if order == Order::GgmlAvx512Bf16 {
            let sum = &mut sums[i % 64 / 2];
            *sum = flushed(flushed(w(i + 1)).mul_add(flushed(x(i + 1)), *sum));
            *sum = flushed(flushed(w(i)).mul_add(flushed(x(i)), *sum));
        } else {
            sums[i % 32] = w(i).mul_add(x(i), sums[i % 32]);
        }
    }
    let half = |sums: &[f32]| -> f32 {
        let mut sums = sums.to_vec();
        while sums.len() > 1 {
            let n = sums.len() / 2;
            sums = (0..n).map(|i| sums[i] + sums[i + n]).collect();
        }
        sums[0]
    };
    if order == Order::Lanes {
        return half(&sums);
    }
    let mut sum = match order {
        Order::GgmlAvx2 => half(&sums) as f64,
        _ => half(&sums[..16]) as f64 + half(&sums[16..]) as f64,
    };
    (whole..n).for_each(|i| sum += (w(i) * x(i)) as f64);
    sum as f32
}

/// Returns the value of bf16 bits.
fn float(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Returns zero, with its sign, for what is too small to be normal.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}
