//! `y = alpha * op(A) * x + beta * y`, the matrix-vector product of BLAS level 2, row-major f32.
//!
//! Memory bandwidth limits it: A is read once. The items are the elements of y. A is always read along its stored rows,
//! so a product with the transpose adds up multiples of rows instead of dot products.

use super::gemm::{role_of_a, window, window_elements};
use super::panels::{Panel, Product};
use super::scale;
use crate::array::{Array, Handle, Matrix, MatrixOperand};
use crate::error::{Error, Result};
use crate::kernel::{BOOL, Shader};
use crate::kernel::{
    Binding, Call, CpuPart, CpuTasks, GpuArg, GpuPart, LaunchSpec, Pass, Role, Tolerance,
};
use crate::simd::{Lanes, Simd, VectorLoop};
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::sync::LazyLock;

/// `y = alpha * A * x + beta * y` for a row-major f32 matrix A of M x K, x of K and y of M elements.
///
/// Pass a [`Matrix::transposed`] view to multiply the transpose of an array's matrix. As in BLAS, y is not read if
/// `beta` is 0, and A and x are not read if `alpha` is 0: a NaN that is not read does not spread. M and K may be 0.
///
/// Every element is within (K+2)u(|α||A||x| + |β||y|) of the exact value on every device. The order in which the
/// products are added depends on the device.
///
/// # Errors
/// Running fails if the shapes do not match.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let a = rt.array_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?; // 2 x 3
/// let x = rt.array_from(&[1.0f32, 0.0, -1.0])?;
/// let mut y = rt.array_from(&[10.0f32, 20.0])?;
/// rt.run(gemv(1.0, a.as_matrix(2, 3)?, &x, 1.0, &mut y))?;
/// assert_eq!(y.to_vec()?, [8.0, 18.0]);
/// # Ok(())
/// # }
/// ```
pub fn gemv<'a>(
    alpha: f32,
    a: Matrix<'a, f32>,
    x: &'a Array<f32>,
    beta: f32,
    y: &'a mut Array<f32>,
) -> Call<'a, Gemv> {
    let (x, y) = (x.handle().clone(), y.handle().clone());
    Call::new(Gemv {
        alpha,
        a: a.operand(),
        x,
        beta,
        y,
    })
}

/// The kernel behind [`gemv()`].
#[derive(Clone, Debug)]
pub struct Gemv {
    alpha: f32,
    a: MatrixOperand,
    x: Handle,
    beta: f32,
    y: Handle,
}

// The order of the bindings. A and x are missing where the product vanishes.
const Y: usize = 0;
const A: usize = 1;
const X: usize = 2;

impl Gemv {
    /// Columns of op(A) and elements of x.
    fn k(&self) -> usize {
        self.a.columns
    }

    /// Whether only `beta * y` remains.
    fn product_vanishes(&self) -> bool {
        self.alpha == 0.0 || self.k() == 0
    }
}

impl Pass for Gemv {
    fn name(&self) -> &str {
        "gemv"
    }

    fn implementation(&self) -> u64 {
        match self.a.transposed {
            _ if self.product_vanishes() => scale::SHADER.hash(),
            false => ROWS_SHADER.hash(),
            true => COLUMNS_SHADER.hash(),
        }
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let (m, k) = (self.a.rows, self.k());
        Error::check_length("gemv", "x", self.x.len(), k, || format!("A is {}", self.a))?;
        Error::check_length("gemv", "y", self.y.len(), m, || format!("A is {}", self.a))?;
        let y = if self.beta == 0.0 {
            Binding::write
        } else {
            Binding::update
        };
        let y = y(&self.y, Role::ITEM);
        if self.product_vanishes() {
            let items = if self.beta == 1.0 { 0 } else { m };
            return Ok(LaunchSpec::new(items, [y], 0.0));
        }
        let a = Binding::read(&self.a.handle, role_of_a(&self.a));
        let x = Binding::read(&self.x, Role::WholeWindowed);
        let flops = 2.0 * m as f64 * k as f64;
        Ok(LaunchSpec::new(m, [y, a, x], flops))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        let magnitudes = Self {
            alpha: self.alpha.abs(),
            beta: self.beta.abs(),
            ..self.clone()
        };
        Tolerance::roundings(self.k() as f64 + 2.0, magnitudes)
    }

    fn cpu_tasks(&self) -> CpuTasks {
        // Ranges of rows are contiguous in memory. Ranges of columns are not, and are cut below.
        if self.a.transposed {
            CpuTasks::Own
        } else {
            CpuTasks::Ranges
        }
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        if self.product_vanishes() {
            scale::cpu(part, Y, self.beta);
            return Ok(());
        }
        let (a, x) = (part.read::<f32>(A), part.read::<f32>(X));
        let (items, threads, simd) = (part.items(), part.threads(), part.simd());
        let finish = Finish {
            alpha: self.alpha,
            beta: self.beta,
        };
        let y = part.write::<f32>(Y);
        if self.a.transposed {
            let columns = Columns {
                a,
                row_length: self.a.rows,
                first: items.start,
            };
            columns.multiply(simd, threads, x, y, finish);
        } else {
            let a = match role_of_a(&self.a) {
                Role::WholeWindowed => &a[items.start * self.k()..items.end * self.k()],
                _ => a,
            };
            simd.run(Rows { a, x, y, finish });
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let (m, k) = (part.len(), self.k());
        if self.product_vanishes() {
            return scale::gpu(part, Y, m, self.beta);
        }
        let product = Product {
            m,
            n: 1,
            k,
            lda: self.a.row_length(),
            transposed_a: self.a.transposed,
            transposed_b: false,
        };
        let (most_a, most_x) = (window_elements(part, A), window_elements(part, X));
        for panel in product.panels(most_a, most_x) {
            self.dispatch(part, &panel)?;
        }
        Ok(())
    }
}

/// How sums of products become elements of y.
#[derive(Clone, Copy, Debug)]
struct Finish {
    alpha: f32,
    beta: f32,
}

impl Finish {
    /// Stores one sum in y, which is not read if beta is 0.
    #[inline(always)]
    fn store(self, y: &mut f32, sum: f32) {
        *y = if self.beta == 0.0 {
            self.alpha * sum
        } else {
            self.alpha * sum + self.beta * *y
        };
    }
}

/// Rows that are multiplied at once, so that their loads overlap and x is loaded once for all of them.
const ROWS: usize = 4;

/// Contiguous rows, their products with `x`, and where the products go.
struct Rows<'a> {
    a: &'a [f32],
    x: &'a [f32],
    y: &'a mut [f32],
    finish: Finish,
}

impl VectorLoop for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { a, x, y, finish } = self;
        let mut blocks = a.chunks_exact(ROWS * x.len());
        let mut ys = y.chunks_exact_mut(ROWS);
        for (rows, y) in blocks.by_ref().zip(ys.by_ref()) {
            let sums = four_dot_products(lanes, rows, x);
            for (y, sum) in y.iter_mut().zip(sums) {
                finish.store(y, sum);
            }
        }
        let rest = blocks.remainder().chunks_exact(x.len());
        for (row, y) in rest.zip(ys.into_remainder()) {
            finish.store(y, dot_product(lanes, row, x));
        }
    }
}

#[inline(always)]
fn four_dot_products<L: Lanes>(lanes: L, rows: &[f32], x: &[f32]) -> [f32; ROWS] {
    let (r0, rows) = rows.split_at(x.len());
    let (r1, rows) = rows.split_at(x.len());
    let (r2, r3) = rows.split_at(x.len());
    let ((v0, t0), (v1, t1)) = (L::as_simd_f32s(r0), L::as_simd_f32s(r1));
    let ((v2, t2), (v3, t3)) = (L::as_simd_f32s(r2), L::as_simd_f32s(r3));
    let (xs, tail) = L::as_simd_f32s(x);
    let mut s = [lanes.splat(0.0); ROWS];
    for ((((x, a0), a1), a2), a3) in xs.iter().zip(v0).zip(v1).zip(v2).zip(v3) {
        s[0] = lanes.multiply_add(*a0, *x, s[0]);
        s[1] = lanes.multiply_add(*a1, *x, s[1]);
        s[2] = lanes.multiply_add(*a2, *x, s[2]);
        s[3] = lanes.multiply_add(*a3, *x, s[3]);
    }
    let mut sums = [0.0; ROWS];
    for (sum, s) in sums.iter_mut().zip(s) {
        *sum = lanes.reduce_sum_f32s(s);
    }
    for ((((x, a0), a1), a2), a3) in tail.iter().zip(t0).zip(t1).zip(t2).zip(t3) {
        sums[0] += a0 * x;
        sums[1] += a1 * x;
        sums[2] += a2 * x;
        sums[3] += a3 * x;
    }
    sums
}

#[inline(always)]
fn dot_product<L: Lanes>(lanes: L, row: &[f32], x: &[f32]) -> f32 {
    let ((vectors, row), (xs, x)) = (L::as_simd_f32s(row), L::as_simd_f32s(x));
    let mut s = lanes.splat(0.0);
    for (a, x) in vectors.iter().zip(xs) {
        s = lanes.multiply_add(*a, *x, s);
    }
    let mut sum = lanes.reduce_sum_f32s(s);
    for (a, x) in row.iter().zip(x) {
        sum += a * x;
    }
    sum
}

/// Columns of a stored matrix, from `first` on.
#[derive(Clone, Copy)]
struct Columns<'a> {
    a: &'a [f32],
    row_length: usize,
    first: usize,
}

/// The numbers that tune products with columns on the CPU.
struct ColumnTuning {
    /// Columns whose sums are kept during a pass over the rows: 16 KiB, which stay in the first-level cache.
    band: usize,
    /// The fewest columns for one thread. With fewer, threads share the rows instead and add up their sums. A product with
    /// 8192 x 8192 elements then took 1.05 times as long as reading them once, on two threads, and 1.58 times with runs of
    /// 4096 columns, which cross memory pages at every step.
    shortest_run: usize,
    /// The fewest rows for one thread, so that adding up the threads' sums costs little in comparison.
    fewest_rows: usize,
}

const COLUMN_TUNING: ColumnTuning = ColumnTuning {
    band: 4096,
    shortest_run: 1 << 14,
    fewest_rows: 16,
};

impl Columns<'_> {
    /// The products of `x` with `y.len()` columns.
    fn multiply(self, simd: Simd, threads: usize, x: &[f32], y: &mut [f32], finish: Finish) {
        let share = y.len().div_ceil(threads);
        if threads == 1 {
            self.multiply_bands(simd, x, y, finish);
        } else if share >= COLUMN_TUNING.shortest_run
            || x.len() < threads * COLUMN_TUNING.fewest_rows
        {
            y.par_chunks_mut(share).enumerate().for_each(|(i, y)| {
                let first = self.first + i * share;
                Columns { first, ..self }.multiply_bands(simd, x, y, finish);
            });
        } else {
            let rows = x.len().div_ceil(threads);
            let sums: Vec<Vec<f32>> = (0..x.len().div_ceil(rows))
                .into_par_iter()
                .map(|i| {
                    let mut sums = vec![0.0; y.len()];
                    let rows = i * rows..((i + 1) * rows).min(x.len());
                    self.add_up(simd, rows, x, &mut sums);
                    sums
                })
                .collect();
            y.par_chunks_mut(share).enumerate().for_each(|(chunk, y)| {
                let (first, sums) = (chunk * share, &sums);
                simd.run(StoreSums {
                    sums,
                    first,
                    y,
                    finish,
                });
            });
        }
    }

    /// The same on this thread.
    fn multiply_bands(self, simd: Simd, x: &[f32], y: &mut [f32], finish: Finish) {
        let mut sums = [0.0; COLUMN_TUNING.band];
        for (i, y) in y.chunks_mut(COLUMN_TUNING.band).enumerate() {
            let sums = &mut sums[..y.len()];
            sums.fill(0.0);
            Columns {
                first: self.first + i * COLUMN_TUNING.band,
                ..self
            }
            .add_up(simd, 0..x.len(), x, sums);
            let (sums, first) = ([&*sums], 0);
            simd.run(StoreSums {
                sums: &sums,
                first,
                y,
                finish,
            });
        }
    }

    /// Adds to `sums` the products of `x[rows]` with those rows.
    fn add_up(self, simd: Simd, rows: std::ops::Range<usize>, x: &[f32], sums: &mut [f32]) {
        simd.run(AddUp {
            columns: self,
            rows,
            x,
            sums,
        });
    }
}

/// The loop of [`Columns::add_up`].
struct AddUp<'a> {
    columns: Columns<'a>,
    rows: std::ops::Range<usize>,
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl VectorLoop for AddUp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self {
            columns:
                Columns {
                    a,
                    row_length,
                    first,
                },
            rows,
            x,
            sums,
        } = self;
        let columns = sums.len();
        let row = |i: usize| &a[i * row_length + first..][..columns];
        let mut at = rows.start;
        while at + ROWS <= rows.end {
            let (r0, r1, r2, r3) = (row(at), row(at + 1), row(at + 2), row(at + 3));
            let (x0, x1, x2, x3) = (x[at], x[at + 1], x[at + 2], x[at + 3]);
            for i in 0..columns {
                sums[i] += (x0 * r0[i] + x1 * r1[i]) + (x2 * r2[i] + x3 * r3[i]);
            }
            at += ROWS;
        }
        while at < rows.end {
            let x = x[at];
            for (sum, a) in sums.iter_mut().zip(row(at)) {
                *sum += x * a;
            }
            at += 1;
        }
    }
}

/// Adds up the threads' sums of products, in order, and stores the results in y. `first` is the index in the sums of
/// y's first element.
struct StoreSums<'a, S> {
    sums: &'a [S],
    first: usize,
    y: &'a mut [f32],
    finish: Finish,
}

impl<S: AsRef<[f32]>> VectorLoop for StoreSums<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        const BLOCK: usize = 64;
        let mut first = self.first;
        for y in self.y.chunks_mut(BLOCK) {
            let mut total = [0.0; BLOCK];
            for sums in self.sums {
                let sums = &sums.as_ref()[first..][..y.len()];
                for (total, sum) in total.iter_mut().zip(sums) {
                    *total += sum;
                }
            }
            for (y, total) in y.iter_mut().zip(total) {
                self.finish.store(y, total);
            }
            first += y.len();
        }
    }
}

pub(crate) static ROWS_SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("gemv", include_str!("../../shaders/gemv.wgsl"))
        .entry("main", &[("ALIGNED", BOOL), ("LANES", LANES)])
});

pub(crate) static COLUMNS_SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin(
        "gemv_transposed",
        include_str!("../../shaders/gemv_transposed.wgsl"),
    )
    .entry("main", &[("ALIGNED", BOOL)])
});

/// The numbers of lanes of `gemv.wgsl` that may share a row.
const LANES: &[f64] = &[4.0, 8.0, 16.0, 32.0];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    m: u32,
    k: u32,
    lda: u32,
    a_lead: u32,
    x_lead: u32,
    y_lead: u32,
    alpha: f32,
    beta: f32,
}

/// Lanes of a workgroup in `gemv.wgsl`.
const SIZE: u32 = 128;
/// Columns of a workgroup in `gemv_transposed.wgsl`.
const COLUMNS: u32 = 32;

impl Gemv {
    /// Encodes the products of one panel; its rows count from the part's first.
    fn dispatch(&self, part: &GpuPart<'_>, panel: &Panel) -> Result<()> {
        let lda = self.a.row_length();
        let first = part.items().start;
        let rows = first + panel.rows.start..first + panel.rows.end;
        let depth = &panel.depth;
        let (outer, inner) = if self.a.transposed {
            (depth, &rows)
        } else {
            (&rows, depth)
        };
        let a = window(part, A, lda, outer, inner)?;
        let x = part.window(X, depth.clone())?;
        let y = part.arg(Y);
        // All counts are of elements within one binding, which has at most 2^31 - 1 bytes. If the window has a single
        // row, that row's length may be larger, but it is multiplied by 0 only.
        let params = Params {
            m: rows.len() as u32,
            k: depth.len() as u32,
            lda: lda as u32,
            a_lead: a.lead(),
            x_lead: x.lead(),
            y_lead: y.lead() + panel.rows.start as u32,
            alpha: self.alpha,
            beta: if panel.is_first() { self.beta } else { 1.0 },
        };
        let vectors = |arg: &GpuArg| arg.lead().is_multiple_of(4);
        let constant = |value: bool| if value { 1.0 } else { 0.0 };
        if self.a.transposed {
            let constants = [("ALIGNED", constant(vectors(&a) && lda.is_multiple_of(4)))];
            let groups = params.m.div_ceil(COLUMNS);
            part.dispatch_with(
                &COLUMNS_SHADER,
                "main",
                &constants,
                &[a, x, y],
                &params,
                groups,
            )
        } else {
            let aligned = vectors(&a)
                && vectors(&x)
                && lda.is_multiple_of(4)
                && depth.len().is_multiple_of(4);
            // As many lanes per row as have at least a few vectors each.
            let lanes = (params.k / 16).next_power_of_two().clamp(4, 32);
            let constants = [("ALIGNED", constant(aligned)), ("LANES", f64::from(lanes))];
            let groups = params.m.div_ceil(SIZE / lanes);
            part.dispatch_with(
                &ROWS_SHADER,
                "main",
                &constants,
                &[a, x, y],
                &params,
                groups,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;

    #[test]
    fn columns_are_right_for_every_distribution_among_threads() {
        // By columns because there are many, by rows, and by columns because there are few rows.
        for (columns, rows) in [
            (3 * COLUMN_TUNING.shortest_run - 1, 5),
            (1000, 3 * COLUMN_TUNING.fewest_rows + 1),
            (700, 2),
        ] {
            // Small integers: every sum is exact.
            let number = |i: usize| (i % 7) as f32 - 3.0;
            let a: Vec<f32> = (0..rows * (columns + 2)).map(number).collect();
            let x: Vec<f32> = (0..rows).map(|i| number(i * 3)).collect();
            let part = Columns {
                a: &a,
                row_length: columns + 2,
                first: 1,
            };
            let sets = InstructionSet::available();
            for (threads, set) in [1, 3]
                .iter()
                .flat_map(|t| sets.iter().map(move |s| (*t, *s)))
            {
                let simd = Simd::new(set).expect("it is available");
                let mut y = vec![1.0; columns];
                let finish = Finish {
                    alpha: 2.0,
                    beta: -1.0,
                };
                part.multiply(simd, threads, &x, &mut y, finish);
                for (j, y) in y.iter().enumerate() {
                    let sum: f32 = (0..rows).map(|i| x[i] * a[i * (columns + 2) + 1 + j]).sum();
                    assert_eq!(
                        *y,
                        2.0 * sum - 1.0,
                        "{columns} x {rows}, column {j}, {threads} threads, {set}"
                    );
                }
            }
        }
    }
}
