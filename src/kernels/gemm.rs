//! `C = alpha * op(A) * op(B) + beta * C`, the matrix product of BLAS level 3, row-major f32.
//!
//! The items are the rows of C. On the CPU (`cpu`), all threads compute one part together. On a GPU, each panel that
//! fits the adapter's windows is one dispatch of a register-tiled shader.

mod cpu;

use super::panels::{Panel, Product};
use super::scale;
use crate::array::{Matrix, MatrixMut, MatrixOperand};
use crate::device::DeviceKind;
use crate::error::{Error, Result};
use crate::kernel::{BOOL, Shader};
use crate::kernel::{
    Binding, Call, CpuPart, CpuTasks, GpuArg, GpuPart, LaunchSpec, Pass, Role, Tolerance,
};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;
use std::sync::LazyLock;

/// `C = alpha * A * B + beta * C` for row-major f32 matrices: A is M x K, B is K x N, C is M x N.
///
/// Pass [`Matrix::transposed`] views to multiply the transpose of an array's matrix. As in BLAS, C is not read if
/// `beta` is 0, and A and B are not read if `alpha` is 0: a NaN that is not read does not spread. Any of M, N and K may
/// be 0.
///
/// Every element is within (K+2)u(|α||A||B| + |β||C|) of the exact value on every device. The order in which the
/// products are added depends on the device.
///
/// The tiles of the GPU implementation follow the classic register-blocked scheme (V. Volkov and J. Demmel,
/// "Benchmarking GPUs to tune dense linear algebra", 2008); the CPU's is the `gemm` crate.
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
/// let b = rt.array_from(&[1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0])?; // 3 x 2
/// let mut c = rt.array_from(&[0.0f32; 4])?;
/// rt.run(gemm(1.0, a.as_matrix(2, 3)?, b.as_matrix(3, 2)?, 0.0, c.as_matrix_mut(2, 2)?))?;
/// assert_eq!(c.to_vec()?, [4.0, 5.0, 10.0, 11.0]);
///
/// // Half of A times its transpose, added to C.
/// let a = a.as_matrix(2, 3)?;
/// rt.run(gemm(0.5, a, a.transposed(), 1.0, c.as_matrix_mut(2, 2)?))?;
/// assert_eq!(c.to_vec()?, [11.0, 21.0, 26.0, 49.5]);
/// # Ok(())
/// # }
/// ```
pub fn gemm<'a>(
    alpha: f32,
    a: Matrix<'a, f32>,
    b: Matrix<'a, f32>,
    beta: f32,
    c: MatrixMut<'a, f32>,
) -> Call<'a, Gemm> {
    Call::new(Gemm {
        alpha,
        a: a.operand(),
        b: b.operand(),
        beta,
        c: c.operand(),
    })
}

/// The kernel behind [`gemm()`].
#[derive(Clone, Debug)]
pub struct Gemm {
    alpha: f32,
    a: MatrixOperand,
    b: MatrixOperand,
    beta: f32,
    c: MatrixOperand,
}

// The order of the bindings. A and B are missing where the product vanishes.
const C: usize = 0;
const A: usize = 1;
const B: usize = 2;

impl Gemm {
    /// Columns of op(A) and rows of op(B).
    fn k(&self) -> usize {
        self.a.columns
    }

    /// Whether only `beta * C` remains.
    fn product_vanishes(&self) -> bool {
        self.alpha == 0.0 || self.k() == 0
    }

    fn check_shapes(&self) -> Result<()> {
        let Self { a, b, c, .. } = self;
        if a.columns != b.rows {
            return Err(Error::argument(
                "gemm",
                format!(
                    "A is {a} and B is {b}, but A must have as many columns as B has rows; pass other shapes to \
                     `as_matrix`, or a transpose"
                ),
            ));
        }
        if (c.rows, c.columns) != (a.rows, b.columns) {
            return Err(Error::argument(
                "gemm",
                format!(
                    "C is {c}, expected {} x {}, since A is {a} and B is {b}",
                    a.rows, b.columns
                ),
            ));
        }
        Ok(())
    }
}

/// The role of A in a product whose items are rows of op(A): its rows, unless they are read as columns, or are so long
/// that even the shortest part would exceed the 128 MiB that every adapter can bind.
pub(super) fn role_of_a(a: &MatrixOperand) -> Role {
    const LONGEST_ROW: usize = 1 << 19;
    if a.transposed || a.columns > LONGEST_ROW {
        Role::WholeWindowed
    } else {
        Role::rows(a.columns)
    }
}

impl Pass for Gemm {
    fn name(&self) -> &str {
        "gemm"
    }

    fn implementation(&self) -> u64 {
        if self.product_vanishes() {
            return scale::SHADER.hash();
        }
        let transposed = [self.a.transposed, self.b.transposed].map(u64::from);
        SHADER.variant(transposed[0] * 2 + transposed[1])
    }

    fn spec(&self) -> Result<LaunchSpec> {
        self.check_shapes()?;
        let (m, n, k) = (self.c.rows, self.c.columns, self.k());
        let c = if self.beta == 0.0 {
            Binding::write
        } else {
            Binding::update
        };
        let c = c(&self.c.handle, Role::rows(n));
        let items = if n == 0 { 0 } else { m };
        if self.product_vanishes() {
            let items = if self.beta == 1.0 { 0 } else { items };
            return Ok(LaunchSpec::new(items, [c], 0.0));
        }
        let a = Binding::read(&self.a.handle, role_of_a(&self.a));
        let b = Binding::read(&self.b.handle, Role::WholeWindowed);
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        Ok(LaunchSpec::new(items, [c, a, b], flops))
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
        CpuTasks::Own
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        if self.product_vanishes() {
            scale::cpu(part, C, self.beta);
            return Ok(());
        }
        let (a, b) = (part.read::<f32>(A), part.read::<f32>(B));
        let (a_strides, b_strides) = (self.a.strides(), self.b.strides());
        // A part has its own rows of A only, or all of A.
        let a = match role_of_a(&self.a) {
            Role::WholeWindowed => &a[part.items().start * a_strides.row..],
            _ => a,
        };
        let product = cpu::Product {
            m: part.len(),
            n: self.c.columns,
            k: self.k(),
            alpha: self.alpha,
            a: cpu::Strided {
                elements: a,
                row_stride: a_strides.row,
                column_stride: a_strides.column,
            },
            b: cpu::Strided {
                elements: b,
                row_stride: b_strides.row,
                column_stride: b_strides.column,
            },
            beta: self.beta,
            c: part.write::<f32>(C),
        };
        product.compute(part.simd(), part.threads());
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let (m, n, k) = (part.len(), self.c.columns, self.k());
        if self.product_vanishes() {
            return scale::gpu(part, C, m * n, self.beta);
        }
        let product = Product {
            m,
            n,
            k,
            lda: self.a.row_length(),
            transposed_a: self.a.transposed,
            transposed_b: self.b.transposed,
        };
        let (most_a, most_b) = (window_elements(part, A), window_elements(part, B));
        for panel in product.panels(most_a, most_b) {
            self.dispatch(part, &panel)?;
        }
        Ok(())
    }
}

/// The most elements that a window on a binding may have.
pub(super) fn window_elements(part: &GpuPart<'_>, binding: usize) -> usize {
    // Windows are padded to whole vectors.
    usize::try_from(part.max_window_bytes(binding) / 16 * 4).unwrap_or(usize::MAX)
}

/// A window on the stored rows `rows`, of which the columns `columns` are needed.
pub(super) fn window(
    part: &GpuPart<'_>,
    binding: usize,
    row_length: usize,
    rows: &Range<usize>,
    columns: &Range<usize>,
) -> Result<GpuArg> {
    let first = rows.start * row_length + columns.start;
    let end = (rows.end - 1) * row_length + columns.end;
    part.window(binding, first..end)
}

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    let shader = Shader::builtin("gemm", include_str!("../../shaders/gemm.wgsl"));
    Tile::ALL.iter().fold(shader, |shader, tile| {
        let (side, wide) = (f64::from(tile.side), f64::from(u8::from(tile.wide)));
        let constants: [(_, &[f64]); 6] = [
            ("SIDE", &[side]),
            ("WIDE", &[wide]),
            ("TRANSPOSED_A", BOOL),
            ("TRANSPOSED_B", BOOL),
            ("ALIGNED_A", BOOL),
            ("ALIGNED_B", BOOL),
        ];
        shader.entry("main", &constants)
    })
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    lda: u32,
    ldb: u32,
    ldc: u32,
    a_lead: u32,
    b_lead: u32,
    c_lead: u32,
    alpha: f32,
    beta: f32,
}

/// The workgroups that keep an adapter busy: a tile is chosen only if C has this many of it. On two CPU cores, products
/// of 512 x 512 elements measured 9.1, 8.3 and 5.8 GFLOP/s with the three tiles, the largest first.
struct BusyWorkgroups {
    /// Workgroups for a software adapter.
    software: usize,
    /// Workgroups for a GPU: large ones have about 130 cores, and one workgroup for each is a guess.
    gpu: usize,
}

const BUSY: BusyWorkgroups = BusyWorkgroups {
    software: 4,
    gpu: 128,
};

/// The tile that a workgroup of the shader computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// Lanes along each side.
    side: u32,
    /// Whether a lane computes 8 x 8 elements, else 4 x 4.
    wide: bool,
}

impl Tile {
    /// 128 x 128 elements by 256 lanes: the fewest loads per product.
    const LARGE: Self = Self {
        side: 16,
        wide: true,
    };
    /// 64 x 64 elements by 64 lanes.
    const MEDIUM: Self = Self {
        side: 8,
        wide: true,
    };
    /// 32 x 32 elements by 64 lanes, for matrices so small that larger tiles would leave most of a GPU idle.
    const SMALL: Self = Self {
        side: 8,
        wide: false,
    };

    /// Every tile, from the largest.
    const ALL: [Self; 3] = [Self::LARGE, Self::MEDIUM, Self::SMALL];

    /// The largest tile of which C has enough to keep the adapter busy.
    fn choose(m: usize, n: usize, software: bool) -> Self {
        let workgroups = if software { BUSY.software } else { BUSY.gpu };
        let enough = |tile: &Self| {
            let length = tile.length();
            m.div_ceil(length).saturating_mul(n.div_ceil(length)) >= workgroups
        };
        Self::ALL.into_iter().find(enough).unwrap_or(Self::SMALL)
    }

    /// Elements along each side.
    fn length(self) -> usize {
        (self.side * if self.wide { 8 } else { 4 }) as usize
    }
}

impl Gemm {
    /// Encodes the products of one panel; its rows count from the part's first.
    fn dispatch(&self, part: &GpuPart<'_>, panel: &Panel) -> Result<()> {
        let (lda, ldb, ldc) = (self.a.row_length(), self.b.row_length(), self.c.columns);
        let first = part.items().start;
        let rows = first + panel.rows.start..first + panel.rows.end;
        let (columns, depth) = (&panel.columns, &panel.depth);
        let (a, b) = if self.a.transposed {
            (depth, &rows)
        } else {
            (&rows, depth)
        };
        let a = window(part, A, lda, a, b)?;
        let (outer, inner) = if self.b.transposed {
            (columns, depth)
        } else {
            (depth, columns)
        };
        let b = window(part, B, ldb, outer, inner)?;
        let c = part.arg(C);
        // Vectors need rows that begin at, and along k also end at, multiples of four elements.
        let aligned = |arg: &GpuArg, ld: usize, along_k: bool| {
            arg.lead().is_multiple_of(4)
                && ld.is_multiple_of(4)
                && (!along_k || depth.len().is_multiple_of(4))
        };
        let tile = Tile::choose(
            rows.len(),
            columns.len(),
            part.kind() == DeviceKind::Software,
        );
        let constant = |value: bool| if value { 1.0 } else { 0.0 };
        let constants = [
            ("SIDE", f64::from(tile.side)),
            ("WIDE", constant(tile.wide)),
            ("TRANSPOSED_A", constant(self.a.transposed)),
            ("TRANSPOSED_B", constant(self.b.transposed)),
            ("ALIGNED_A", constant(aligned(&a, lda, !self.a.transposed))),
            ("ALIGNED_B", constant(aligned(&b, ldb, self.b.transposed))),
        ];
        // All counts are of elements within one binding, which has at most 2^31 - 1 bytes. If the window has a single
        // row of a matrix, that row's length may be larger, but it is multiplied by 0 only.
        let params = Params {
            m: rows.len() as u32,
            n: columns.len() as u32,
            k: depth.len() as u32,
            lda: lda as u32,
            ldb: ldb as u32,
            ldc: ldc as u32,
            a_lead: a.lead(),
            b_lead: b.lead(),
            c_lead: c.lead() + (panel.rows.start * ldc + columns.start) as u32,
            alpha: self.alpha,
            beta: if panel.is_first() { self.beta } else { 1.0 },
        };
        let groups =
            params.m.div_ceil(tile.length() as u32) * params.n.div_ceil(tile.length() as u32);
        part.dispatch_with(&SHADER, "main", &constants, &[a, b, c], &params, groups)
    }
}
