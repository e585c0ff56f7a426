//! Heat steps on the CPU, a row at a time. This module knows slices only.
//!
//! A cell needs both its neighbours in the row, so two of three loads from it cross cache lines. With 64-byte
//! vectors every such load does, and they cost more than the arithmetic: AVX-512 therefore loads each vector of the
//! row once and shifts the neighbours in from registers (1024² cells on two Zen 4 cores: 66 µs, against 135 µs with
//! AVX-512 loads and 84 µs with AVX2 loads).

use super::Border;
use crate::simd::vectorised;
use std::ops::Range;

/// Consecutive rows of a grid, with those above and below them as far as the grid has any.
pub(super) struct Rows<'a> {
    /// The rows and their neighbours.
    pub(super) cells: &'a [f32],
    /// How many of them precede the rows to compute: 1, or 0 at the grid's first row.
    pub(super) above: usize,
    /// Whether a row follows them: not at the grid's last row.
    pub(super) below: bool,
    /// Cells per row, at least 1.
    pub(super) cols: usize,
    /// α·Δt/Δx².
    pub(super) r: f32,
    /// What happens at the grid's border.
    pub(super) border: Border,
}

impl Rows<'_> {
    /// Writes the rows one step later.
    pub(super) fn step(&self, next: &mut [f32]) {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(
                #[inline(always)]
                || self.step_by(next, avx512(simd)),
            );
        }
        vectorised(
            #[inline(always)]
            || self.step_by(next, autovectorised),
        );
    }

    /// The same; `inner(row, range, next)` computes cells of a row that have a neighbour on both sides.
    #[inline(always)]
    fn step_by(&self, next: &mut [f32], inner: impl Fn(&Row<'_>, Range<usize>, &mut [f32])) {
        let cols = self.cols;
        let row = |i: usize| &self.cells[i * cols..][..cols];
        let count = next.len() / cols;
        for (k, next) in next.chunks_exact_mut(cols).enumerate() {
            let middle = row(self.above + k);
            let above = (self.above + k > 0).then(|| row(self.above + k - 1));
            let below = (self.below || k + 1 < count).then(|| row(self.above + k + 1));
            if self.border == Border::Fixed && (above.is_none() || below.is_none()) {
                next.copy_from_slice(middle);
                continue;
            }
            // No heat flows through an insulated border: it is as warm beyond it as it is before it.
            let row = Row {
                up: above.unwrap_or(middle),
                middle,
                down: below.unwrap_or(middle),
                r: self.r,
            };
            inner(&row, 1..cols.max(2) - 1, next);
            for i in [0, cols - 1] {
                next[i] = match self.border {
                    Border::Fixed => middle[i],
                    Border::Insulated => {
                        let (left, right) = (i.saturating_sub(1), (i + 1).min(cols - 1));
                        row.cell(
                            row.up[i],
                            middle[left],
                            middle[i],
                            middle[right],
                            row.down[i],
                        )
                    }
                };
            }
        }
    }
}

/// A row and its neighbours, all of the same length.
struct Row<'a> {
    up: &'a [f32],
    middle: &'a [f32],
    down: &'a [f32],
    r: f32,
}

impl Row<'_> {
    /// A cell one step later. Written so that a uniform temperature stays exactly what it is.
    #[inline(always)]
    fn cell(&self, up: f32, left: f32, middle: f32, right: f32, down: f32) -> f32 {
        middle + self.r * ((up + down) + (left + right) - 4.0 * middle)
    }
}

/// Leaves the choice of instructions to the compiler.
#[inline(always)]
fn autovectorised(row: &Row<'_>, range: Range<usize>, next: &mut [f32]) {
    if range.is_empty() {
        return;
    }
    let left = &row.middle[range.start - 1..range.end - 1];
    let right = &row.middle[range.start + 1..range.end + 1];
    let (up, middle, down) = (
        &row.up[range.clone()],
        &row.middle[range.clone()],
        &row.down[range.clone()],
    );
    let neighbours = up.iter().zip(down).zip(left).zip(right);
    for ((next, middle), (((up, down), left), right)) in
        next[range].iter_mut().zip(middle).zip(neighbours)
    {
        *next = row.cell(*up, *left, *middle, *right, *down);
    }
}

/// Whole vectors whose neighbours to the left and right are whole vectors too; the cells at both ends otherwise.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
#[inline(always)]
fn avx512(simd: pulp::x86::V4) -> impl Fn(&Row<'_>, Range<usize>, &mut [f32]) {
    use bytemuck::cast;
    use pulp::Simd;

    #[inline(always)]
    move |row: &Row<'_>, range: Range<usize>, next: &mut [f32]| {
        type V4 = pulp::x86::V4;
        let width = V4::F32_LANES;
        let (middle, _) = V4::as_simd_f32s(row.middle);
        if middle.len() < 3 {
            return autovectorised(row, range, next);
        }
        autovectorised(row, range.start..width, next);
        let end = (middle.len() - 1) * width;
        autovectorised(row, end..range.end, next);

        let (up, down) = (V4::as_simd_f32s(row.up).0, V4::as_simd_f32s(row.down).0);
        let next = V4::as_mut_simd_f32s(next).0;
        let r = simd.splat_f32s(row.r);
        let four = simd.splat_f32s(4.0);
        let mut before = middle[0];
        let mut here = middle[1];
        let vertical = up[1..].iter().zip(&down[1..]);
        for ((next, after), (up, down)) in next[1..].iter_mut().zip(&middle[2..]).zip(vertical) {
            // The last of `before` and all but the last of `here`; all but the first of `here` and the first of `after`.
            let left = cast(
                simd.avx512f
                    ._mm512_alignr_epi32::<15>(cast(here), cast(before)),
            );
            let right = cast(
                simd.avx512f
                    ._mm512_alignr_epi32::<1>(cast(*after), cast(here)),
            );
            let sum = simd.add_f32s(simd.add_f32s(*up, *down), simd.add_f32s(left, right));
            *next = simd.mul_add_f32s(r, simd.negate_mul_add_f32s(four, here, sum), here);
            (before, here) = (here, *after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::heat::exact_step;

    type Path = (&'static str, fn(&Rows<'_>, &mut [f32]));

    /// The implementation that this machine chooses, and the one that every machine has.
    const PATHS: [Path; 2] = [
        ("chosen", |rows, next| rows.step(next)),
        ("autovectorised", |rows, next| {
            rows.step_by(next, autovectorised)
        }),
    ];

    /// One step of the whole grid, computed in pieces of `piece` rows.
    fn step(
        path: fn(&Rows<'_>, &mut [f32]),
        u: &[f32],
        cols: usize,
        piece: usize,
        r: f32,
        border: Border,
    ) -> Vec<f32> {
        let rows = u.len() / cols;
        let mut next = vec![f32::NAN; u.len()];
        for (i, next) in next.chunks_mut(piece * cols).enumerate() {
            let first = i * piece;
            let end = first + next.len() / cols;
            let above = first.min(1);
            let cells = &u[(first - above) * cols..(end + 1).min(rows) * cols];
            let below = end < rows;
            path(
                &Rows {
                    cells,
                    above,
                    below,
                    cols,
                    r,
                    border,
                },
                next,
            );
        }
        next
    }

    #[test]
    fn every_shape_border_and_cut_agrees_with_the_definition() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let shapes = (1..70)
            .chain([127, 128, 129])
            .flat_map(|cols| (1..5).map(move |rows| (rows, cols)));
        for (rows, cols) in shapes {
            let u: Vec<f32> = (0..rows * cols).map(|_| rng.f32() * 2.0 - 1.0).collect();
            for border in [Border::Insulated, Border::Fixed] {
                let want = exact_step((rows, cols), 0.21, border, &u);
                for (piece, (name, path)) in (1..=rows).flat_map(|piece| PATHS.map(|p| (piece, p)))
                {
                    let got = step(path, &u, cols, piece, 0.21, border);
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        let error = (f64::from(*got) - want).abs();
                        assert!(
                            error <= 7.0 * f64::from(f32::EPSILON) / 2.0,
                            "{name}, {rows}x{cols} {border:?} by {piece}, cell {i}: {got} for {want}, seed {seed}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_uniform_temperature_stays_exactly_the_same() {
        for border in [Border::Insulated, Border::Fixed] {
            for (name, path) in PATHS {
                let u = vec![0.1; 5 * 77];
                assert_eq!(step(path, &u, 77, 2, 0.25, border), u, "{name}");
            }
        }
    }
}
