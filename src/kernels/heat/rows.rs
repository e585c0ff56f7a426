//! Heat steps on the CPU, a row or two at a time. This module works on slices only.
//!
//! A cell needs both its neighbours in the row, so two of three loads cross cache lines. With 64-byte vectors every
//! such load does, and these loads cost more than the arithmetic. AVX-512 therefore loads each vector of a row once and
//! shifts the neighbours in from the registers beside it. With shorter vectors, shifting costs as much as it saves.
//! There, two rows are computed together; each is the other's neighbour and is loaded once for both. (128² cells on one
//! Zen 4 core: AVX-512 1.5 µs both ways; AVX2 2.0 µs by two rows, 2.3 µs by shifts, 2.5 µs by one row and five loads.
//! 1024²: AVX-512 134 µs by shifts, 181 µs by loads; AVX2 161, 165 and 169 µs.)

use super::Border;
use crate::simd::{InstructionSet, Lanes, VectorLoop};

/// Computes consecutive rows of a grid one step later.
pub(super) struct Rows<'a> {
    /// The rows now, with the rows directly above and below them where the grid has any.
    pub(super) cells: &'a [f32],
    /// The number of rows before those to compute: 1, or 0 at the grid's first row.
    pub(super) above: usize,
    /// Whether a row follows them: not at the grid's last row.
    pub(super) below: bool,
    /// Cells per row, at least 1.
    pub(super) cols: usize,
    /// α·Δt/Δx².
    pub(super) r: f32,
    /// What happens at the grid's border.
    pub(super) border: Border,
    /// The rows one step later.
    pub(super) next: &'a mut [f32],
}

impl VectorLoop for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        let next = std::mem::take(&mut self.next);
        let step = Step {
            lanes,
            r: lanes.splat(self.r),
            four: lanes.splat(4.0),
        };
        let mut rows = next.chunks_exact_mut(self.cols);
        let count = rows.len();
        let mut k = 0;
        while let Some(next) = rows.next() {
            let row = self.row(k, count);
            if self.border == Border::Fixed && row.is_at_border {
                next.copy_from_slice(row.middle);
                k += 1;
                continue;
            }
            if row.middle.len() <= L::F32_LANES {
                row.step_by_cells(self.r, next);
                self.finish(&row, next);
                k += 1;
                continue;
            }
            if L::SET != InstructionSet::Avx512 && k + 1 < count {
                let below = self.row(k + 1, count);
                if (self.border == Border::Insulated || !below.is_at_border)
                    && let Some(next_below) = rows.next()
                {
                    step_two_rows(&step, [&row, &below], [&mut *next, &mut *next_below]);
                    self.finish(&row, next);
                    self.finish(&below, next_below);
                    k += 2;
                    continue;
                }
            }
            if L::SET == InstructionSet::Avx512 {
                step_row_by_shifts(&step, &row, next);
            } else {
                step_row(&step, &row, next);
            }
            self.finish(&row, next);
            k += 1;
        }
    }
}

impl Rows<'_> {
    /// Row `k` of the `count` to compute, with its neighbours.
    #[inline(always)]
    fn row(&self, k: usize, count: usize) -> Row<'_> {
        let row = |i: usize| &self.cells[i * self.cols..][..self.cols];
        let at = self.above + k;
        let (is_first, is_last) = (at == 0, !self.below && k + 1 == count);
        // No heat flows through an insulated border: beyond it the grid is as warm as at it.
        Row {
            up: row(if is_first { at } else { at - 1 }),
            middle: row(at),
            down: row(if is_last { at } else { at + 1 }),
            is_at_border: is_first || is_last,
        }
    }

    /// Restores the ends of a row that keep their temperature.
    #[inline(always)]
    fn finish(&self, row: &Row<'_>, next: &mut [f32]) {
        if self.border == Border::Fixed {
            let last = row.middle.len() - 1;
            (next[0], next[last]) = (row.middle[0], row.middle[last]);
        }
    }
}

/// A row and its neighbours, all of the same length, at least 1. The borders to the left and right are insulated.
struct Row<'a> {
    up: &'a [f32],
    middle: &'a [f32],
    down: &'a [f32],
    /// Whether it is the grid's first or last row.
    is_at_border: bool,
}

impl Row<'_> {
    /// Consecutive cells one step later.
    #[inline(always)]
    fn step_by_cells(&self, r: f32, next: &mut [f32]) {
        let last = next.len() - 1;
        for (i, next) in next.iter_mut().enumerate() {
            let (left, right) = (
                self.middle[i.saturating_sub(1)],
                self.middle[(i + 1).min(last)],
            );
            let here = self.middle[i];
            // Written so that a uniform temperature stays exactly the same.
            *next = here + r * ((self.up[i] + self.down[i]) + (left + right) - 4.0 * here);
        }
    }
}

/// The inputs for a vector of cells.
struct Step<L: Lanes> {
    lanes: L,
    r: L::f32s,
    four: L::f32s,
}

/// A vector of cells with their neighbours.
struct Cells<V> {
    up: V,
    left: V,
    here: V,
    right: V,
    down: V,
}

impl<L: Lanes> Step<L> {
    /// Cells one step later. Written so that a uniform temperature stays exactly the same.
    #[inline(always)]
    fn of(&self, cells: Cells<L::f32s>) -> L::f32s {
        let lanes = self.lanes;
        let vertical = lanes.add(cells.up, cells.down);
        let horizontal = lanes.add(cells.left, cells.right);
        let around = lanes.add(vertical, horizontal);
        let change = lanes.negate_multiply_add(self.four, cells.here, around);
        lanes.multiply_add(self.r, change, cells.here)
    }

    /// The first vector of a row, and the last. The row is longer than a vector.
    #[inline(always)]
    fn ends(&self, row: &Row<'_>, next: &mut [f32]) {
        let lanes = self.lanes;
        let first_cell = row.middle[0];
        let here = vector::<L>(row.middle, 0);
        L::as_mut_simd_f32s(next).0[0] = self.of(Cells {
            up: vector::<L>(row.up, 0),
            left: lanes.neighbours_before(lanes.splat(first_cell), here),
            here,
            right: vector::<L>(row.middle, 1),
            down: vector::<L>(row.down, 0),
        });
        self.last(row, next);
    }

    /// The last vector of a row, which may overlap the one before it. The row is longer than a vector.
    #[inline(always)]
    fn last(&self, row: &Row<'_>, next: &mut [f32]) {
        let lanes = self.lanes;
        let last = row.middle.len() - L::F32_LANES;
        let last_cell = row.middle[row.middle.len() - 1];
        let here = vector::<L>(row.middle, last);
        L::as_mut_simd_f32s(&mut next[last..]).0[0] = self.of(Cells {
            up: vector::<L>(row.up, last),
            left: vector::<L>(row.middle, last - 1),
            here,
            right: lanes.neighbours_after(here, lanes.splat(last_cell)),
            down: vector::<L>(row.down, last),
        });
    }
}

/// The vector that begins at a cell.
#[inline(always)]
fn vector<L: Lanes>(cells: &[f32], start: usize) -> L::f32s {
    L::as_simd_f32s(&cells[start..]).0[0]
}

/// Whole vectors from a cell on.
#[inline(always)]
fn vectors<L: Lanes>(cells: &[f32], start: usize) -> &[L::f32s] {
    L::as_simd_f32s(&cells[start..]).0
}

/// One row that is longer than a vector.
#[inline(always)]
fn step_row<L: Lanes>(step: &Step<L>, row: &Row<'_>, next: &mut [f32]) {
    let width = L::F32_LANES;
    step.ends(row, next);
    // Vectors after the first with a cell after them.
    let right = vectors::<L>(row.middle, width + 1);
    let len = right.len();
    let here = &vectors::<L>(row.middle, width)[..len];
    let left = &vectors::<L>(row.middle, width - 1)[..len];
    let up = &vectors::<L>(row.up, width)[..len];
    let down = &vectors::<L>(row.down, width)[..len];
    let next = &mut L::as_mut_simd_f32s(&mut next[width..]).0[..len];
    for i in 0..len {
        next[i] = step.of(Cells {
            up: up[i],
            left: left[i],
            here: here[i],
            right: right[i],
            down: down[i],
        });
    }
}

/// Computes the same, but loads each vector of the row once and shifts the neighbours in.
#[inline(always)]
fn step_row_by_shifts<L: Lanes>(step: &Step<L>, row: &Row<'_>, next: &mut [f32]) {
    let (lanes, cols) = (step.lanes, row.middle.len());
    let (middle, rest) = L::as_simd_f32s(row.middle);
    let count = middle.len();
    let (up, down) = (
        &vectors::<L>(row.up, 0)[..count],
        &vectors::<L>(row.down, 0)[..count],
    );
    let vectors = &mut L::as_mut_simd_f32s(next).0[..count];
    let mut before = lanes.splat(row.middle[0]);
    let mut here = middle[0];
    let vertical = up.iter().zip(down);
    for ((next, after), (up, down)) in vectors.iter_mut().zip(&middle[1..]).zip(vertical) {
        *next = step.of(Cells {
            up: *up,
            left: lanes.neighbours_before(before, here),
            here,
            right: lanes.neighbours_after(here, *after),
            down: *down,
        });
        (before, here) = (here, *after);
    }
    // After the last vector there is no whole vector, only a cell or the border.
    let beyond = row.middle[(count * L::F32_LANES).min(cols - 1)];
    vectors[count - 1] = step.of(Cells {
        up: up[count - 1],
        left: lanes.neighbours_before(before, here),
        here,
        right: lanes.neighbours_after(here, lanes.splat(beyond)),
        down: down[count - 1],
    });
    if !rest.is_empty() {
        // The last cells, and some of those before them a second time.
        step.last(row, next);
    }
}

/// Two consecutive rows that are longer than a vector.
#[inline(always)]
fn step_two_rows<L: Lanes>(step: &Step<L>, rows: [&Row<'_>; 2], next: [&mut [f32]; 2]) {
    let width = L::F32_LANES;
    let [one, two] = rows;
    let [next_one, next_two] = next;
    step.ends(one, next_one);
    step.ends(two, next_two);
    let right = vectors::<L>(one.middle, width + 1);
    let len = right.len();
    let up = &vectors::<L>(one.up, width)[..len];
    let left = &vectors::<L>(one.middle, width - 1)[..len];
    let here = &vectors::<L>(one.middle, width)[..len];
    let left_below = &vectors::<L>(two.middle, width - 1)[..len];
    let below = &vectors::<L>(two.middle, width)[..len];
    let right_below = &vectors::<L>(two.middle, width + 1)[..len];
    let down = &vectors::<L>(two.down, width)[..len];
    let next_one = &mut L::as_mut_simd_f32s(&mut next_one[width..]).0[..len];
    let next_two = &mut L::as_mut_simd_f32s(&mut next_two[width..]).0[..len];
    for i in 0..len {
        let (here, below) = (here[i], below[i]);
        next_one[i] = step.of(Cells {
            up: up[i],
            left: left[i],
            here,
            right: right[i],
            down: below,
        });
        next_two[i] = step.of(Cells {
            up: here,
            left: left_below[i],
            here: below,
            right: right_below[i],
            down: down[i],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::heat::exact_step;
    use crate::simd::{InstructionSet, Simd};

    /// Every instruction set of this machine.
    fn sets() -> impl Iterator<Item = Simd> {
        let sets = InstructionSet::available().into_iter();
        sets.map(|set| Simd::new(set).expect("it is available"))
    }

    /// One step of the whole grid, computed in pieces of `piece` rows.
    fn step(simd: Simd, u: &[f32], cols: usize, piece: usize, r: f32, border: Border) -> Vec<f32> {
        let rows = u.len() / cols;
        let mut next = vec![f32::NAN; u.len()];
        for (i, next) in next.chunks_mut(piece * cols).enumerate() {
            let first = i * piece;
            let end = first + next.len() / cols;
            let above = first.min(1);
            simd.run(Rows {
                cells: &u[(first - above) * cols..(end + 1).min(rows) * cols],
                above,
                below: end < rows,
                cols,
                r,
                border,
                next,
            });
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
                let want = exact_step(rows, cols, 0.21, border, &u);
                for (piece, simd) in (1..=rows).flat_map(|piece| sets().map(move |s| (piece, s))) {
                    let (name, got) = (simd.set(), step(simd, &u, cols, piece, 0.21, border));
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
            for simd in sets() {
                let name = simd.set();
                let u = vec![0.1; 5 * 77];
                assert_eq!(step(simd, &u, 77, 2, 0.25, border), u, "{name}");
            }
        }
    }
}
