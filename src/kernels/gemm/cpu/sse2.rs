//! Microkernels for every x86-64 processor, in the form that the `gemm` crate calls. The crate itself has only scalar
//! ones.

use gemm_common::microkernel::MicroKernelFn;
use std::arch::x86_64::{
    __m128, _mm_add_ps, _mm_loadu_ps, _mm_mul_ps, _mm_set1_ps, _mm_setzero_ps, _mm_storeu_ps,
};
use std::array;

/// Elements of a vector.
const UNIT: usize = 4;
/// Vectors of the tallest microkernel.
pub(super) const MR_DIV_N: usize = 2;
/// Columns of the widest microkernel. The sums fill 8 of the 16 registers.
pub(super) const NR: usize = 4;

/// Indexed by vectors and by columns, both minus one.
pub(super) const UKR: [[MicroKernelFn<f32>; NR]; MR_DIV_N] = [
    [
        microkernel::<1, 1>,
        microkernel::<1, 2>,
        microkernel::<1, 3>,
        microkernel::<1, 4>,
    ],
    [
        microkernel::<2, 1>,
        microkernel::<2, 2>,
        microkernel::<2, 3>,
        microkernel::<2, 4>,
    ],
];

/// `dst = alpha * dst + beta * lhs * rhs`, where dst has `m` rows and `n` columns, at most `UNITS` vectors and
/// `COLUMNS`.
///
/// # Safety
/// For each of `k` steps that are `lhs_cs` apart, `lhs` points to `UNITS` vectors. For each of `k` steps that are
/// `rhs_rs` apart, `rhs` points to `COLUMNS` elements that are `rhs_cs` apart. `dst` points to m x n elements with
/// these strides, initialised unless `alpha_status` is 0. The processor has SSE, as every x86-64 does.
#[target_feature(enable = "sse")]
#[expect(
    clippy::too_many_arguments,
    reason = "the `gemm` crate calls its microkernels so"
)]
unsafe fn microkernel<const UNITS: usize, const COLUMNS: usize>(
    m: usize,
    n: usize,
    k: usize,
    dst: *mut f32,
    lhs: *const f32,
    rhs: *const f32,
    dst_cs: isize,
    dst_rs: isize,
    lhs_cs: isize,
    rhs_rs: isize,
    rhs_cs: isize,
    alpha: f32,
    beta: f32,
    alpha_status: u8,
    _conj_dst: bool,
    _conj_lhs: bool,
    _conj_rhs: bool,
    _next_lhs: *const f32,
) {
    let mut sums = [[_mm_setzero_ps(); UNITS]; COLUMNS];
    for step in 0..k as isize {
        let (lhs, rhs) = (
            lhs.wrapping_offset(step * lhs_cs),
            rhs.wrapping_offset(step * rhs_rs),
        );
        // SAFETY: the caller's promise about `lhs`.
        let vectors: [__m128; UNITS] =
            array::from_fn(|unit| unsafe { _mm_loadu_ps(lhs.add(unit * UNIT)) });
        for (column, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise about `rhs`.
            let factor = _mm_set1_ps(unsafe { *rhs.wrapping_offset(column as isize * rhs_cs) });
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = _mm_add_ps(*sum, _mm_mul_ps(vector, factor));
            }
        }
    }
    // The meaning of `alpha_status`: 0 says not to read dst, 1 that alpha is 1.
    let alpha = if alpha_status == 1 { 1.0 } else { alpha };
    if m == UNITS * UNIT && n == COLUMNS && dst_rs == 1 {
        let (alpha, beta) = (_mm_set1_ps(alpha), _mm_set1_ps(beta));
        for (column, sums) in sums.into_iter().enumerate() {
            for (unit, sum) in sums.into_iter().enumerate() {
                let dst = dst.wrapping_offset(column as isize * dst_cs + (unit * UNIT) as isize);
                let scaled = _mm_mul_ps(beta, sum);
                // SAFETY: the caller's promise about `dst`, which consists of whole vectors here.
                unsafe {
                    let value = match alpha_status {
                        0 => scaled,
                        _ => _mm_add_ps(_mm_mul_ps(alpha, _mm_loadu_ps(dst)), scaled),
                    };
                    _mm_storeu_ps(dst, value);
                }
            }
        }
        return;
    }
    for (column, sums) in sums.iter().enumerate().take(n) {
        let sums: &[f32] = bytemuck::cast_slice(sums);
        for (row, sum) in sums.iter().enumerate().take(m) {
            let dst = dst.wrapping_offset(column as isize * dst_cs + row as isize * dst_rs);
            let scaled = beta * sum;
            // SAFETY: the caller's promise about `dst`: row and column are below m and n.
            unsafe {
                *dst = match alpha_status {
                    0 => scaled,
                    _ => alpha * *dst + scaled,
                };
            }
        }
    }
}
