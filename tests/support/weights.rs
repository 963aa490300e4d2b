//! Weights for tests and benchmarks, as bf16 bits. The same arguments always give the same weights.
//!
//! The normal distribution takes a logarithm from the platform's mathematics library. Platforms could differ in its
//! last bit, which is 2^44 times finer than a bf16; still, no test should keep a hash of these weights.

#![allow(dead_code)] // each test takes the part that it needs

/// The generator SplitMix64: small, fast, good with any seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a generator. Different seeds give unrelated sequences.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns a number below `n`, which must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// Returns a number from 0 up to but not including 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns two independent numbers of mean 0 and deviation 1 (Marsaglia's polar method).
    pub fn normal_pair(&mut self) -> (f64, f64) {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = x * x + y * y;
            if s < 1.0 && s > 0.0 {
                let scale = (-2.0 * s.ln() / s).sqrt();
                return (x * scale, y * scale);
            }
        }
    }
}

/// Returns the bits of the bf16 nearest to a finite number; of two that are equally near, the even one.
pub fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits as u64 + 0x7fff + (bits >> 16 & 1) as u64) >> 16) as u16
}

/// Returns a bf16 of the given exponent with random sign and mantissa.
fn with_exponent(exponent: u8, random: &mut Random) -> u16 {
    let r = random.bits() as u16;
    r & 0x807f | (exponent as u16) << 7
}

fn push_gaussian(out: &mut Vec<u16>, n: usize, sigma: f64, random: &mut Random) {
    let end = out.len() + n;
    while out.len() < end {
        let (a, b) = random.normal_pair();
        out.push(bf16_bits((a * sigma) as f32));
        if out.len() < end {
            out.push(bf16_bits((b * sigma) as f32));
        }
    }
}

/// Returns normally distributed weights.
pub fn gaussian(n: usize, sigma: f64, seed: u64) -> Vec<u16> {
    let mut out = Vec::with_capacity(n);
    push_gaussian(&mut out, n, sigma, &mut Random::new(seed));
    out
}

/// Returns weights whose exponents spread as those of a trained layer do, about 2.65 bits per code: normally distributed in rows of
/// 4,096, each row with a deviation of its own. A single deviation would give 2.59 bits and flatter a decoder.
pub fn trained_like(n: usize, seed: u64) -> Vec<u16> {
    /// Deviation of the logarithm of a row's deviation.
    const SPREAD: f64 = 0.27;
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(n);
    while out.len() < n {
        let sigma = 0.02 * (SPREAD * random.normal_pair().0).exp();
        let row = 4096.min(n - out.len());
        push_gaussian(&mut out, row, sigma, &mut random);
    }
    out
}

/// Returns weights whose exponents are equally likely within a range.
pub fn uniform_exponents(n: usize, exponents: std::ops::RangeInclusive<u8>, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    let count = (exponents.end() - exponents.start()) as u64 + 1;
    (0..n).map(|_| with_exponent(exponents.start() + random.below(count) as u8, &mut random)).collect()
}

/// Returns one weight, `n` times.
pub fn constant(n: usize, bits: u16) -> Vec<u16> {
    vec![bits; n]
}

/// Returns normally distributed weights of which a share (0 to 1) is zero, half of those negative, as in pruned models.
pub fn with_zeros(n: usize, share: f64, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    let mut out = gaussian(n, 0.02, seed ^ 0x5eed);
    for w in &mut out {
        if random.unit() < share {
            *w = (random.bits() as u16) & 0x8000;
        }
    }
    out
}

/// Returns weights of one exponent, so that every code has one bit and a full block 32,768 weights. Signs and mantissas differ.
pub fn one_bit(n: usize, exponent: u8, seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    (0..n).map(|_| with_exponent(exponent, &mut random)).collect()
}

/// Returns weights of `exponents` exponents, from 100 upwards, that occur 1, 1, 2, 3, 5, … times, in random order. These counts make
/// Huffman codes longest. The longest code has about as many bits as there are exponents.
pub fn fibonacci(exponents: u8, seed: u64) -> Vec<u16> {
    let (mut a, mut b, mut counts) = (1, 1, Vec::new());
    for _ in 0..exponents {
        counts.push(a);
        (a, b) = (b, a + b);
    }
    of_counts(100, &counts, seed)
}

/// Returns weights whose exponents from `first` upwards occur as often as `counts` says, in random order.
pub fn of_counts(first: u8, counts: &[usize], seed: u64) -> Vec<u16> {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(counts.iter().sum());
    for (exponent, &count) in (first..).zip(counts) {
        out.extend((0..count).map(|_| with_exponent(exponent, &mut random)));
    }
    for i in (1..out.len()).rev() {
        out.swap(i, random.below(i as u64 + 1) as usize);
    }
    out
}
