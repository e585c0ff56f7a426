//! The matrix product on the CPU, with the `gemm` crate's blocking and microkernels.
//!
//! The crate's own entry point asks the processor which instruction set to use. Here the set is an argument, so this
//! module calls the crate's inner function: the blocked product, with the microkernels of the set. For the baseline of
//! x86-64 the crate has only scalar ones; those in `sse2` replace them.

#[cfg(target_arch = "x86_64")]
mod sse2;

use crate::simd::{Simd, Token};
use gemm_common::Parallelism;
use gemm_common::gemm::gemm_basic_generic;
use gemm_common::microkernel::{HMicroKernelFn, MicroKernelFn};
use gemm_common::simd::MixedSimd;

/// A matrix, or the transpose of one, in memory.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    /// The elements from the first one on.
    pub(super) elements: &'a [f32],
    /// Elements from a row to the next.
    pub(super) row_stride: usize,
    /// Elements from a column to the next.
    pub(super) column_stride: usize,
}

impl Strided<'_> {
    /// Whether this number of rows and columns, neither of them 0, lies within the elements.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        let last = last(rows, self.row_stride)
            .zip(last(columns, self.column_stride))
            .and_then(|(row, column)| row.checked_add(column));
        last.is_some_and(|last| last < self.elements.len())
    }
}

/// `c = alpha * a * b + beta * c` for consecutive rows of C. C is not read if `beta` is 0.
pub(super) struct Product<'a> {
    /// Rows of A and of C.
    pub(super) m: usize,
    /// Columns of B and of C.
    pub(super) n: usize,
    /// Columns of A and rows of B.
    pub(super) k: usize,
    pub(super) alpha: f32,
    pub(super) a: Strided<'a>,
    pub(super) b: Strided<'a>,
    pub(super) beta: f32,
    pub(super) c: &'a mut [f32],
}

impl Product<'_> {
    /// Computes it with this number of threads of rayon's current pool. `m`, `n` and `k` must not be 0.
    pub(super) fn compute(self, simd: Simd, threads: usize) {
        let Self { m, n, k, .. } = self;
        assert!(self.a.holds(m, k) && self.b.holds(k, n) && self.c.len() == m * n);
        let parallelism = match threads {
            1 => Parallelism::None,
            threads => Parallelism::Rayon(threads),
        };
        match simd.token() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Token::Avx512(_) => {
                use gemm_f32::microkernel::avx512f::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                self.with::<gemm_common::simd::V4, 16, { 16 * MR_DIV_N }, NR, MR_DIV_N, H_M, H_N>(
                    &UKR,
                    &H_UKR,
                    parallelism,
                );
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Token::Avx2(_) => {
                use gemm_f32::microkernel::fma::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                self.with::<gemm_common::simd::V3, 8, { 8 * MR_DIV_N }, NR, MR_DIV_N, H_M, H_N>(
                    &UKR,
                    &H_UKR,
                    parallelism,
                );
            }
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => {
                use gemm_common::simd::Scalar;
                use gemm_f32::microkernel::neon::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                self.with::<Scalar, 4, { 4 * MR_DIV_N }, NR, MR_DIV_N, H_M, H_N>(
                    &UKR,
                    &H_UKR,
                    parallelism,
                );
            }
            #[cfg(target_arch = "x86_64")]
            Token::Baseline(_) => {
                use gemm_common::simd::Scalar;
                use sse2::{MR_DIV_N, NR, UKR};
                self.with::<Scalar, 4, { 4 * MR_DIV_N }, NR, MR_DIV_N, 0, 0>(
                    &UKR,
                    &[],
                    parallelism,
                );
            }
            #[cfg(not(target_arch = "x86_64"))]
            Token::Baseline(_) => {
                use gemm_common::simd::Scalar;
                use gemm_f32::microkernel::scalar::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                self.with::<Scalar, 1, MR_DIV_N, NR, MR_DIV_N, H_M, H_N>(&UKR, &H_UKR, parallelism);
            }
        }
    }
}

impl Product<'_> {
    /// Computes it with microkernels of `UNIT` elements per vector, each `UNITS` vectors by `COLUMNS` columns.
    fn with<
        S: MixedSimd<f32, f32, f32, f32>,
        const UNIT: usize,
        const ROWS: usize,
        const COLUMNS: usize,
        const UNITS: usize,
        const SHORT_ROWS: usize,
        const SHORT_COLUMNS: usize,
    >(
        self,
        microkernels: &[[MicroKernelFn<f32>; COLUMNS]; UNITS],
        short_microkernels: &[[HMicroKernelFn<f32>; SHORT_COLUMNS]; SHORT_ROWS],
        parallelism: Parallelism,
    ) {
        let Self {
            m,
            n,
            k,
            alpha,
            a,
            b,
            beta,
            c,
        } = self;
        let simd = S::try_new().expect("the token is the proof that the processor has it");
        let stride = |elements: usize| elements as isize;
        // Microkernels prefer contiguous columns. The transpose of C has them, and is the product of the transposes of
        // B and A. What the crate calls alpha is the factor of C.
        //
        // SAFETY: `compute` checked that every element of A, B and C lies within the slices, whose lengths in bytes fit
        // an isize; c is borrowed exclusively; the microkernels are those of `S`, which the processor has.
        unsafe {
            gemm_basic_generic::<_, f32, UNIT, ROWS, COLUMNS, UNITS, SHORT_ROWS, SHORT_COLUMNS>(
                simd,
                n,
                m,
                k,
                c.as_mut_ptr(),
                stride(n),
                1,
                beta != 0.0,
                b.elements.as_ptr(),
                stride(b.row_stride),
                stride(b.column_stride),
                a.elements.as_ptr(),
                stride(a.row_stride),
                stride(a.column_stride),
                beta,
                alpha,
                false,
                false,
                false,
                |a, b, c| a * b + c,
                microkernels,
                short_microkernels,
                false,
                parallelism,
            );
        }
    }
}
