//! libdf11's matrices: made, decoded, and multiplied with one vector, beside plain bf16.
//!
//! The products of plain bf16 are those that ggml makes (`ggml_vec_dot_bf16`), for the same instruction set. Each matrix's
//! product is compared with them bit for bit.

use crate::contest::{Contestant, cut};
use crate::copy;
use crate::data::{self, Data, Lines};
use df11::internals::matrix::{Variant, naive};
use df11::matrix::{self, Input, Matrix, MatrixOptions, Order};
use df11::{Model, Progress, bf16};
use half::slice::HalfBitsSliceExt;
use std::sync::Arc;

/// Columns of every matrix.
pub const COLUMNS: usize = 4096;

/// A matrix and its plain rows, a vector, and the right products.
pub struct Case {
    weights: Lines,
    matrix: Lines,
    matrix_bytes: usize,
    rows: usize,
    x: Vec<bf16>,
    pages: &'static str,
}

impl Case {
    /// Of the weights of a contest, in small or huge pages.
    pub fn new(data: &Data, huge: bool) -> Result<Case, String> {
        let rows = data.original.len() / COLUMNS;
        let original = &data.original[..rows * COLUMNS];
        let mut weights = Lines::new(2 * original.len(), huge);
        for (to, weight) in weights.get_mut().chunks_exact_mut(2).zip(original) {
            to.copy_from_slice(&weight.to_le_bytes());
        }
        let most = matrix::bound(rows as u64, COLUMNS as u64).map_err(|e| e.to_string())? as usize;
        let mut large = Lines::new(most, false);
        let plain: &[bf16] = original.reinterpret_cast();
        let made = matrix::write(plain, COLUMNS as u64, large.get_mut(), &MatrixOptions::new(), &Progress::new());
        let matrix_bytes = made.map_err(|e| e.to_string())?.data().len();
        let mut matrix = Lines::new(matrix_bytes, huge);
        matrix.get_mut()[..matrix_bytes].copy_from_slice(&large.get()[..matrix_bytes]);
        let x = crate::weights::gaussian(COLUMNS, 1.0, 3).into_iter().map(bf16::from_bits).collect();
        Ok(Case { weights, matrix, matrix_bytes, rows, x, pages: if huge { ", from huge pages" } else { "" } })
    }

    fn plain(&self) -> &[u16] {
        let weights = self.rows * COLUMNS;
        // SAFETY: the memory is aligned, holds these weights, and is borrowed as this value is.
        unsafe { std::slice::from_raw_parts(self.weights.get().as_ptr().cast(), weights) }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.matrix.get()).expect("it was written by the library")
    }

    /// The right products in an order, by the slow oracle.
    fn expected(&self, order: Order) -> Vec<u32> {
        self.plain().chunks_exact(COLUMNS).map(|w| naive::dot(w, Input::Bf16(&self.x), order).to_bits()).collect()
    }
}

/// Instruction sets, each with the order in which ggml sums up for it.
pub fn sets() -> Vec<(Variant, Order)> {
    let all = [
        (Variant::Avx2, Order::GgmlAvx2),
        (Variant::Avx512, Order::GgmlAvx512),
        (Variant::Avx512Bf16, Order::GgmlAvx512Bf16),
    ];
    all.into_iter().filter(|(v, _)| v.is_available()).collect()
}

/// What is multiplied with the vector.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Plain bf16, as ggml does it.
    Plain,
    /// A matrix.
    Matrix,
}

/// Products of all rows with one vector.
pub struct Product {
    case: Arc<Case>,
    form: Form,
    variant: Variant,
    order: Order,
    expected: Arc<Vec<u32>>,
    y: Vec<f32>,
    threads: usize,
}

impl Product {
    /// Both forms, for each instruction set.
    pub fn all(case: &Arc<Case>, threads: usize) -> Vec<Product> {
        let mut all = Vec::new();
        for (variant, order) in sets() {
            let expected = Arc::new(case.expected(order));
            for form in [Form::Plain, Form::Matrix] {
                let (case, expected, y) = (case.clone(), expected.clone(), vec![0.0; case.rows]);
                all.push(Product { case, form, variant, order, expected, y, threads });
            }
        }
        all
    }

    fn named(&self, form: Form) -> String {
        let form = if form == Form::Plain { "bf16 x vector" } else { "matrix x vector" };
        format!("{form} {}{}", self.variant.name(), self.case.pages)
    }
}

impl Contestant for Product {
    fn name(&self) -> String {
        self.named(self.form)
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn peer(&self) -> String {
        self.named(Form::Plain)
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(if self.form == Form::Plain { 2 * self.case.rows * COLUMNS } else { self.case.matrix_bytes })
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        let Product { case, form, variant, order, y, threads, .. } = self;
        let (case, form, variant, order) = (&**case, *form, *variant, *order);
        let part = |rows: std::ops::Range<usize>, y: &mut [f32]| match form {
            Form::Plain => {
                let dot = plain_dot(variant);
                for (y, w) in y.iter_mut().zip(case.plain()[rows.start * COLUMNS..].chunks_exact(COLUMNS)) {
                    // SAFETY: row and vector have as many elements, a multiple of 64; the processor has the instructions.
                    *y = unsafe { dot(w.as_ptr(), case.x.as_ptr().cast(), COLUMNS) };
                }
                Ok(())
            }
            Form::Matrix => {
                let rows = rows.start as u64..rows.end as u64;
                case.matrix().multiply_by(rows, Input::Bf16(&case.x), order, y, variant).map_err(|e| e.to_string())
            }
        };
        if *threads == 1 {
            return part(0..case.rows, y);
        }
        std::thread::scope(|scope| {
            let mut rest = &mut y[..];
            for rows in cut(case.rows, *threads) {
                let (some, after) = rest.split_at_mut(rows.len());
                rest = after;
                scope.spawn(move || part(rows, some));
            }
        });
        Ok(())
    }

    fn answer(&mut self, _: &mut [u16]) -> Result<(), String> {
        let right = self.y.iter().map(|y| y.to_bits()).eq(self.expected.iter().copied());
        self.y.fill(0.0);
        if right { Ok(()) } else { Err("the products have other bits than the oracle's".into()) }
    }

    fn checks_itself(&self) -> bool {
        true
    }
}

/// A row times a vector: addresses of bf16, and their number.
type PlainDot = unsafe fn(*const u16, *const u16, usize) -> f32;

fn plain_dot(variant: Variant) -> PlainDot {
    match variant {
        #[cfg(target_arch = "x86_64")]
        Variant::Avx2 => dots::avx2,
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512 => dots::avx512,
        #[cfg(target_arch = "x86_64")]
        Variant::Avx512Bf16 => dots::avx512bf16,
        _ => unreachable!("no other variant is measured"),
    }
}

/// Products of plain bf16 in ggml's orders, as its compilers make them: two or four sums at a time.
#[cfg(target_arch = "x86_64")]
mod dots {
    use std::arch::x86_64::*;

    /// The same bits in the type of 32 bf16.
    #[target_feature(enable = "avx512f")]
    fn of_bf16(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes of any content.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
    }

    /// # Safety
    ///
    /// `n` elements, a multiple of 32, can be read at both, and the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(w: *const u16, x: *const u16, n: usize) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 4];
        for at in (0..n).step_by(32) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's elements.
                let (w, x) = unsafe {
                    let w = _mm256_cvtepu16_epi32(_mm_loadu_si128(w.add(at + 8 * i).cast()));
                    (w, _mm256_cvtepu16_epi32(_mm_loadu_si128(x.add(at + 8 * i).cast())))
                };
                let (w, x) = (_mm256_slli_epi32::<16>(w), _mm256_slli_epi32::<16>(x));
                *sum = _mm256_fmadd_ps(_mm256_castsi256_ps(w), _mm256_castsi256_ps(x), *sum);
            }
        }
        let low = _mm256_add_ps(sums[0], sums[2]);
        let high = _mm256_add_ps(sums[1], sums[3]);
        let all = _mm256_add_ps(low, high);
        let four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }

    /// # Safety
    ///
    /// `n` elements, a multiple of 32, can be read at both, and the processor has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512(w: *const u16, x: *const u16, n: usize) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 2];
        for at in (0..n).step_by(32) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's elements.
                let (w, x) = unsafe {
                    let w = _mm512_cvtepu16_epi32(_mm256_loadu_si256(w.add(at + 16 * i).cast()));
                    (w, _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.add(at + 16 * i).cast())))
                };
                let (w, x) = (_mm512_slli_epi32::<16>(w), _mm512_slli_epi32::<16>(x));
                *sum = _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), *sum);
            }
        }
        (_mm512_reduce_add_ps(sums[0]) as f64 + _mm512_reduce_add_ps(sums[1]) as f64) as f32
    }

    /// # Safety
    ///
    /// `n` elements, a multiple of 64, can be read at both, and the processor has AVX-512 BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn avx512bf16(w: *const u16, x: *const u16, n: usize) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 2];
        for at in (0..n).step_by(64) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's elements; both types are 64 bytes of any content.
                *sum = unsafe {
                    let w = _mm512_loadu_si512(w.add(at + 32 * i).cast());
                    let x = _mm512_loadu_si512(x.add(at + 32 * i).cast());
                    _mm512_dpbf16_ps(*sum, of_bf16(w), of_bf16(x))
                };
            }
        }
        (_mm512_reduce_add_ps(sums[0]) as f64 + _mm512_reduce_add_ps(sums[1]) as f64) as f32
    }
}

/// Where a matrix is decoded to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// All weights, to memory.
    Memory,
    /// Row after row, to the same 8 KiB.
    Cache,
}

/// A matrix, decoded.
pub struct Decode {
    case: Arc<Case>,
    to: To,
    variant: Variant,
    threads: usize,
    row: Vec<bf16>,
}

impl Decode {
    /// To memory and to the cache, by each variant.
    pub fn all(case: &Arc<Case>, threads: usize) -> Vec<Decode> {
        let sets = sets().into_iter().filter(|(v, _)| *v != Variant::Avx512Bf16);
        sets.flat_map(|(variant, _)| {
            [To::Memory, To::Cache].map(|to| Decode {
                case: case.clone(),
                to,
                variant,
                threads,
                row: vec![bf16::ZERO; COLUMNS * threads],
            })
        })
        .collect()
    }
}

impl Contestant for Decode {
    fn name(&self) -> String {
        let to = if self.to == To::Memory { "matrix decoded" } else { "matrix to L1" };
        format!("{to} {}{}", self.variant.name(), self.case.pages)
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.case.matrix_bytes)
    }

    fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let Decode { case, to, variant, threads, row } = self;
        let (case, to, variant, threads) = (&**case, *to, *variant, *threads);
        let dst: &mut [bf16] = dst[..case.rows * COLUMNS].reinterpret_cast_mut();
        let part = |rows: std::ops::Range<usize>, dst: &mut [bf16], row: &mut [bf16]| {
            let (matrix, n) = (case.matrix(), COLUMNS as u64);
            let decode = |row: usize, dst: &mut [bf16]| {
                let count = dst.len() as u64;
                // SAFETY: the slice is writable.
                unsafe { matrix.decompress_raw(row as u64 * n, count, dst.as_mut_ptr().cast(), variant) }
            };
            let result = match to {
                To::Memory => decode(rows.start, dst),
                To::Cache => rows.into_iter().try_for_each(|r| decode(r, row)),
            };
            result.map_err(|e| e.to_string())
        };
        if threads == 1 {
            return part(0..case.rows, dst, row);
        }
        std::thread::scope(|scope| {
            let mut rest = dst;
            for (rows, row) in cut(case.rows, threads).zip(row.chunks_exact_mut(COLUMNS)) {
                let (some, after) = rest.split_at_mut(rows.len() * COLUMNS);
                rest = after;
                scope.spawn(move || part(rows, some, row));
            }
        });
        Ok(())
    }

    fn answer(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let weights = self.case.plain();
        match self.to {
            // The last row that each thread decoded.
            To::Cache => {
                for (rows, row) in cut(self.case.rows, self.threads).zip(self.row.chunks_exact_mut(COLUMNS)) {
                    let right = &weights[(rows.end - 1) * COLUMNS..rows.end * COLUMNS];
                    if !row.iter().map(|w| w.to_bits()).eq(right.iter().copied()) {
                        return Err("a row has other weights".into());
                    }
                    row.fill(bf16::ZERO);
                }
                Ok(())
            }
            To::Memory if dst[..weights.len()] != *weights => Err("other weights".into()),
            To::Memory => Ok(()),
        }
    }

    fn checks_itself(&self) -> bool {
        true
    }
}

/// Where a matrix is made from.
pub enum From {
    /// Plain rows.
    Bf16(Vec<u16>),
    /// A DF11 model's tensor.
    Df11(Arc<Model>),
}

/// A matrix being made.
pub struct Make {
    from: From,
    case: Arc<Case>,
    made: Lines,
    threads: usize,
}

impl Make {
    /// From both.
    pub fn all(data: &Data, case: &Arc<Case>, threads: usize) -> Result<Vec<Make>, String> {
        // One tensor in one group: the contest's own model has several.
        let original = &data.original[..case.rows * COLUMNS];
        let packed = crate::encoder::encode(original, &[]);
        let model = Arc::new(data::open(&packed)?);
        let most = matrix::bound(case.rows as u64, COLUMNS as u64).map_err(|e| e.to_string())? as usize;
        let with = |from| Make { from, case: case.clone(), made: Lines::new(most, false), threads };
        Ok(vec![with(From::Bf16(original.to_vec())), with(From::Df11(model))])
    }
}

impl Contestant for Make {
    fn name(&self) -> String {
        match self.from {
            From::Bf16(_) => "matrix of bf16".into(),
            From::Df11(_) => "matrix of DF11".into(),
        }
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn peer(&self) -> String {
        match self.from {
            From::Bf16(_) => copy::NAME.into(),
            From::Df11(_) => "df11 ".to_owned() + df11::internals::huffman::decode::Variant::best().name(),
        }
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.case.matrix_bytes)
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        let options = MatrixOptions::new().threads(self.threads);
        let (columns, progress) = (COLUMNS as u64, Progress::new());
        let made = match &self.from {
            From::Bf16(weights) => {
                let weights: &[bf16] = weights.reinterpret_cast();
                matrix::write(weights, columns, self.made.get_mut(), &options, &progress)
            }
            From::Df11(model) => {
                let tensor = model.tensor(0).ok_or("the model has no tensor")?;
                tensor.write_matrix(columns, 0..self.case.rows as u64, self.made.get_mut(), &options, &progress)
            }
        };
        made.map(|_| ()).map_err(|e| e.to_string())
    }

    fn answer(&mut self, _: &mut [u16]) -> Result<(), String> {
        let bytes = self.case.matrix_bytes;
        let right = self.made.get()[..bytes] == self.case.matrix.get()[..bytes];
        self.made.get_mut()[..bytes].iter_mut().step_by(1021).for_each(|b| *b = !*b);
        if right { Ok(()) } else { Err("the matrix has other bytes than the first one".into()) }
    }

    fn checks_itself(&self) -> bool {
        true
    }
}
