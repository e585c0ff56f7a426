//! One step of the heat equation on a grid: the 5-point stencil.

mod rows;

use crate::array::{Array, Handle};
use crate::error::{Error, Result};
use crate::kernel::{BOOL, Shader};
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use bytemuck::{Pod, Zeroable};
use rows::Rows;
use std::sync::LazyLock;

/// What happens at the border of a grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Border {
    /// No heat flows through the border: beyond it, the grid is as warm as at it. The sum of all cells is conserved.
    #[default]
    Insulated,
    /// The cells of the first and last row and column keep their temperature.
    Fixed,
}

/// `next = u + r·(up + down + left + right - 4·u)` for every cell of a grid: one explicit step of the heat
/// equation, with `r = α·Δt/Δx²`.
///
/// The grid has `rows` rows of `cols` cells; `u` and `next` hold it row by row. For more steps, swap the arrays between
/// calls. Explicit steps are stable up to `r = 0.25`, where every cell becomes a mean of its neighbours.
///
/// Within 7·2⁻²⁴·max|u| of the exact step on every device.
///
/// # Errors
/// Running fails if `r` is not above 0 and at most 0.25, or an array does not hold rows × columns elements.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::kernels::Border;
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let mut u = rt.array_from(&[0.0f32, 0.0, 0.0, 0.0, 16.0, 0.0, 0.0, 0.0, 0.0])?;
/// let mut next = rt.uninit(9)?;
/// for _ in 0..2 {
///     rt.run(heat_step(3, 3, 0.25, Border::Insulated, &u, &mut next))?;
///     std::mem::swap(&mut u, &mut next);
/// }
/// assert_eq!(u.to_vec()?, [2.0, 1.0, 2.0, 1.0, 4.0, 1.0, 2.0, 1.0, 2.0]);
/// # Ok(())
/// # }
/// ```
pub fn heat_step<'a>(
    rows: usize,
    cols: usize,
    r: f32,
    border: Border,
    u: &'a Array<f32>,
    next: &'a mut Array<f32>,
) -> Call<'a, HeatStep> {
    Call::new(HeatStep {
        rows,
        cols,
        r,
        border,
        u: u.handle().clone(),
        next: next.handle().clone(),
    })
}

/// The kernel behind [`heat_step()`].
#[derive(Debug)]
pub struct HeatStep {
    rows: usize,
    cols: usize,
    r: f32,
    border: Border,
    u: Handle,
    next: Handle,
}

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("heat", include_str!("../../shaders/heat.wgsl"))
        .entry("by_four", &[("FIXED", BOOL)])
        .entry("by_cell", &[("FIXED", BOOL)])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Elements (of four cells or one) per row.
    cols: u32,
    rows: u32,
    /// The elements of the first and the second binding at which the part's first row begins.
    u_start: u32,
    next_start: u32,
    /// 1 if the first binding holds the row above the first one, and the row below the last one.
    above: u32,
    below: u32,
    /// The rows that a lane computes, from top to bottom.
    strip: u32,
    r: f32,
}

/// How the GPU divides a grid among lanes. Taller strips load less: each row once instead of three times.
struct Strips {
    /// The lanes wanted before strips grow taller: enough to fill a large GPU. A guess, not yet measured on one.
    lanes: usize,
    /// The height of the tallest strip. Taller ones gain little (lavapipe, 1024² cells: 2.8, 2.1, 1.7, 1.5, 1.5 ms for
    /// 1 to 16 rows).
    rows: usize,
}

const STRIPS: Strips = Strips {
    lanes: 1 << 16,
    rows: 8,
};
/// Lanes per workgroup.
const LANES: usize = 64;

impl HeatStep {
    /// The number of rows to compute: 0 if they hold no cells.
    fn items(&self) -> usize {
        if self.cols == 0 { 0 } else { self.rows }
    }
}

impl Pass for HeatStep {
    fn name(&self) -> &str {
        "heat"
    }

    fn implementation(&self) -> u64 {
        // Rows that begin at vectors are computed four cells at a time.
        SHADER.variant(u64::from(self.cols.is_multiple_of(4)))
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let Self { rows, cols, r, .. } = *self;
        if !(r > 0.0 && r <= 0.25) {
            let problem = format!(
                "`r` is {r}, but explicit steps are stable only for 0 < r <= 0.25; take a shorter time step or a coarser grid"
            );
            return Err(Error::argument("heat", problem));
        }
        let cells = rows.checked_mul(cols).ok_or_else(|| Error::TooLarge {
            what: "heat: a grid".into(),
            given: format!("{rows} rows of {cols}"),
            limit: format!("{} cells", usize::MAX),
        })?;
        let because = || format!("{rows} rows of {cols}");
        Error::check_length("heat", "u", self.u.len(), cells, because)?;
        Error::check_length("heat", "next", self.next.len(), cells, because)?;
        let (width, halo) = (cols, 1);
        let bindings = [
            Binding::read(&self.u, Role::Halo { width, halo }),
            Binding::write(&self.next, Role::rows(cols)),
        ];
        Ok(LaunchSpec::new(self.items(), bindings, 7.0 * cells as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        // Five taps, and each side may be off.
        Tolerance::OfLargest(2.0 * (5.0 + 2.0) * f64::from(f32::EPSILON) / 2.0)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        part.simd().run(Rows {
            cells: part.read(0),
            above: part.lead(0) / self.cols,
            below: part.items().end < part.total(),
            cols: self.cols,
            r: self.r,
            border: self.border,
            next: part.write(1),
        });
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        // Four cells a lane are 2.4 times as fast on lavapipe, but need rows that begin at vectors.
        let (entry, width) = if self.cols.is_multiple_of(4) {
            ("by_four", 4)
        } else {
            ("by_cell", 1)
        };
        let (u, next) = (part.arg(0), part.arg(1));
        let items = part.items();
        let (rows, cols) = (items.len(), self.cols / width);
        let above = usize::from(items.start > 0);
        let max_groups = part.limits().max_groups as usize;
        let strip = (cols * rows / STRIPS.lanes)
            .clamp(1, STRIPS.rows)
            .max(rows.div_ceil(max_groups));
        let params = Params {
            cols: cols as u32,
            rows: rows as u32,
            u_start: u.lead() / width as u32 + (above * cols) as u32,
            next_start: next.lead() / width as u32,
            above: above as u32,
            below: u32::from(items.end < part.total()),
            strip: strip as u32,
            r: self.r,
        };
        let uniform = bytemuck::bytes_of(&params);
        let fixed = f64::from(u8::from(self.border == Border::Fixed));
        let grid = [
            cols.div_ceil(LANES).min(max_groups) as u32,
            rows.div_ceil(strip) as u32,
            1,
        ];
        part.dispatch_grid(
            &SHADER,
            entry,
            &[("FIXED", fixed)],
            &[u, next],
            &[uniform],
            grid,
        )
    }
}

/// One step in f64, written as in the definition.
pub(crate) fn exact_step(rows: usize, cols: usize, r: f32, border: Border, u: &[f32]) -> Vec<f64> {
    let cell = |i: usize, j: usize| f64::from(u[i * cols + j]);
    let (last_row, last_col) = (rows.saturating_sub(1), cols.saturating_sub(1));
    (0..rows * cols)
        .map(|at| {
            let (i, j) = (at / cols, at % cols);
            let on_border = i == 0 || i == last_row || j == 0 || j == last_col;
            if border == Border::Fixed && on_border {
                return cell(i, j);
            }
            let around = cell(i.saturating_sub(1), j)
                + cell((i + 1).min(last_row), j)
                + cell(i, j.saturating_sub(1))
                + cell(i, (j + 1).min(last_col));
            cell(i, j) + f64::from(r) * (around - 4.0 * cell(i, j))
        })
        .collect()
}
