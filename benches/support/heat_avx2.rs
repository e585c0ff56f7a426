//! One heat step written by hand for AVX2 as such loops usually are: five loads for each vector of cells. What the CPU
//! kernel is measured against.

use divvy::Result;
use divvy::array::Handle;
use divvy::kernel::{Binding, CpuPart, GpuPart, LaunchSpec, Pass, Role};
use rayon::prelude::*;

/// A square grid with insulated borders.
#[derive(Clone, Copy)]
pub struct Grid {
    side: usize,
    r: f32,
}

/// Rows that one task of rayon computes: as many as give each thread a few tasks.
const TASKS_PER_THREAD: usize = 4;

impl Grid {
    /// `None` where there is no AVX2, or the side is not a whole number of vectors and at least two.
    pub fn new(side: usize, r: f32) -> Option<Self> {
        (supported() && side.is_multiple_of(8) && side >= 16).then_some(Self { side, r })
    }

    /// One step on one thread.
    pub fn step(self, u: &[f32], next: &mut [f32]) {
        self.rows(0, u, next);
    }

    /// One step on all of rayon's threads.
    pub fn par_step(self, u: &[f32], next: &mut [f32]) {
        let tasks = rayon::current_num_threads() * TASKS_PER_THREAD;
        let rows = self.side.div_ceil(tasks);
        let tasks = next.par_chunks_mut(rows * self.side).enumerate();
        tasks.for_each(|(task, next)| self.rows(task * rows, u, next));
    }

    /// The rows from `first` on that fit `next`.
    fn rows(self, first: usize, u: &[f32], next: &mut [f32]) {
        let side = self.side;
        assert!(u.len() == side * side && first * side + next.len() <= u.len());
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `new` made sure of AVX2 and FMA, and that rows have at least 16 cells.
        unsafe {
            step_rows(side, self.r, first, u, next);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = self.r;
    }
}

/// The loop as a kernel of its own: what a call takes besides the loop is the same then.
#[derive(Clone)]
pub struct HandStep {
    pub grid: Grid,
    pub u: Handle,
    pub next: Handle,
}

impl Pass for HandStep {
    fn name(&self) -> &str {
        "heat by hand"
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let side = self.grid.side;
        let cells = (side * side) as f64;
        let bindings = [
            Binding::read(&self.u, Role::Whole),
            Binding::write(&self.next, Role::rows(side)),
        ];
        let mut spec = LaunchSpec::new(side, bindings, 7.0 * cells);
        spec.has_gpu = false;
        Ok(spec)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        self.grid
            .rows(part.items().start, part.read(0), part.write(1));
        Ok(())
    }

    fn gpu(&self, _: &mut GpuPart<'_>) -> Result<()> {
        unreachable!("its launch spec says that it has no GPU implementation")
    }
}

/// # Safety
/// The processor has AVX2 and FMA; `side` is a multiple of 8 and at least 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn step_rows(side: usize, r: f32, first: usize, u: &[f32], next: &mut [f32]) {
    for (i, next) in (first..).zip(next.chunks_exact_mut(side)) {
        let row = |i: usize| &u[i * side..][..side];
        let (up, middle) = (row(i.saturating_sub(1)), row(i));
        let down = row((i + 1).min(side - 1));
        // SAFETY: the caller's promise; all rows have `side` cells.
        unsafe {
            step_row(r, up, middle, down, next);
        }
    }
}

/// # Safety
/// The processor has AVX2 and FMA; the slices have the same length, a multiple of 8 and at least 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn step_row(r: f32, up: &[f32], middle: &[f32], down: &[f32], next: &mut [f32]) {
    use std::arch::x86_64::*;
    let cols = middle.len();
    let (rs, four) = (_mm256_set1_ps(r), _mm256_set1_ps(4.0));
    let (up_cells, cells, down_cells) = (up.as_ptr(), middle.as_ptr(), down.as_ptr());
    let next_cells = next.as_mut_ptr();
    // SAFETY: `j` is from 1 to `cols - 9`, so eight cells from `j - 1`, `j` and `j + 1` are within the rows.
    let step = |j: usize| unsafe {
        let here = _mm256_loadu_ps(cells.add(j));
        let vertical = _mm256_add_ps(
            _mm256_loadu_ps(up_cells.add(j)),
            _mm256_loadu_ps(down_cells.add(j)),
        );
        let horizontal = _mm256_add_ps(
            _mm256_loadu_ps(cells.add(j - 1)),
            _mm256_loadu_ps(cells.add(j + 1)),
        );
        let change = _mm256_fnmadd_ps(four, here, _mm256_add_ps(vertical, horizontal));
        _mm256_storeu_ps(next_cells.add(j), _mm256_fmadd_ps(rs, change, here));
    };
    // The first vector and the last overlap the others, so that neither reads past the row.
    step(1);
    let mut j = 8;
    while j < cols - 8 {
        step(j);
        j += 8;
    }
    step(cols - 9);
    for (i, left, right) in [(0, 0, 1), (cols - 1, cols - 2, cols - 1)] {
        let around = (up[i] + down[i]) + (middle[left] + middle[right]);
        next[i] = middle[i] + r * (around - 4.0 * middle[i]);
    }
}

#[cfg(target_arch = "x86_64")]
fn supported() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn supported() -> bool {
    false
}
