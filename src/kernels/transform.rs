//! A function of each element.

use super::math;
use crate::array::{Array, Handle};
use crate::error::{Error, Result};
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use crate::simd::vectorised;
use bytemuck::{Pod, Zeroable};
use std::sync::LazyLock;

/// What [`transform()`] does to each element.
///
/// NaN gives NaN everywhere, and the functions have the values of IEEE 754 at zeros and infinities. Arguments and
/// results that are subnormal may be flushed to 0 by a GPU. How exact the rest is: [`Unary::max_ulps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unary {
    /// -x.
    Neg,
    /// |x|.
    Abs,
    /// The square root; NaN below 0.
    Sqrt,
    /// e^x.
    Exp,
    /// The natural logarithm; NaN below 0, -∞ at 0.
    Ln,
    /// The sine of any angle in radians, however large; NaN at infinities.
    Sin,
    /// The cosine of any angle in radians, however large; NaN at infinities.
    Cos,
    /// The hyperbolic tangent.
    Tanh,
    /// x².
    Square,
    /// 1/x.
    Reciprocal,
}

impl Unary {
    /// Every function.
    pub const ALL: &[Self] = &[
        Self::Neg,
        Self::Abs,
        Self::Sqrt,
        Self::Exp,
        Self::Ln,
        Self::Sin,
        Self::Cos,
        Self::Tanh,
        Self::Square,
        Self::Reciprocal,
    ];

    /// How far results may be from exact ones on any device, in units in the last place of the exact one.
    ///
    /// 0 stands for functions that are exact or rounded correctly, and so the same everywhere. The square root and the
    /// reciprocal are on GPUs what WGSL allows (1/x 2.5 ULP; the square root one over an inverse square root, 2 ULP),
    /// and correctly rounded on the CPU. The others are Divvy's own, the same formulas on every device: no f32 has been
    /// found for which the CPU's are more than 1 (exp, ln), 1.4 (tanh) or 2.4 (sin, cos) ULP off; the bounds leave room
    /// for multiplications and additions that a GPU fuses, and for its division.
    pub const fn max_ulps(self) -> f64 {
        match self {
            Self::Neg | Self::Abs | Self::Square => 0.0,
            Self::Exp | Self::Ln => 2.0,
            Self::Reciprocal => 2.5,
            Self::Sin | Self::Cos | Self::Tanh => 4.0,
            Self::Sqrt => 5.0,
        }
    }
}

/// `y[i] = op(x[i])` for f32 arrays of the same length.
///
/// # Errors
/// Running fails if `x` and `y` differ in length.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[1.0f32, -2.0, 0.5])?;
/// let mut y = rt.uninit(3)?;
/// rt.run(transform(Unary::Square, &x, &mut y))?;
/// assert_eq!(y.to_vec()?, [1.0, 4.0, 0.25]);
/// # Ok(())
/// # }
/// ```
pub fn transform<'a>(op: Unary, x: &'a Array<f32>, y: &'a mut Array<f32>) -> Call<'a, Transform> {
    Call::new(Transform {
        op,
        x: x.handle().clone(),
        y: y.handle().clone(),
    })
}

/// The kernel behind [`transform()`].
#[derive(Debug)]
pub struct Transform {
    op: Unary,
    x: Handle,
    y: Handle,
}

/// Operations per element: about as many as the polynomials have.
const FLOPS: f64 = 16.0;

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    let ops: Vec<f64> = Unary::ALL.iter().map(|op| f64::from(*op as u8)).collect();
    Shader::builtin("transform", include_str!("../../shaders/transform.wgsl"))
        .entry("main", &[("OP", &ops)])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Vectors of four elements.
    vectors: u32,
}

/// Applies a function to each element, vectorised.
fn map(x: &[f32], y: &mut [f32], function: impl Fn(f32) -> f32) {
    vectorised(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y = function(*x);
            }
        },
    );
}

impl Pass for Transform {
    fn name(&self) -> &str {
        "transform"
    }

    fn implementation(&self) -> u64 {
        SHADER.variant(self.op as u64)
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.y.len();
        Error::check_length("transform", "x", self.x.len(), n, || format!("y has {n}"))?;
        let bindings = [
            Binding::read(&self.x, Role::ITEM),
            Binding::write(&self.y, Role::ITEM),
        ];
        Ok(LaunchSpec::new(n, bindings, FLOPS * n as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        match self.op.max_ulps() {
            0.0 => Tolerance::Bitwise,
            ulps => Tolerance::Ulps(ulps),
        }
    }

    #[expect(
        clippy::redundant_closure,
        reason = "a function's name is called through a shim, which need not be inlined and vectorised"
    )]
    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (x, y) = (part.read::<f32>(0), part.write::<f32>(1));
        match self.op {
            Unary::Neg => map(
                x,
                y,
                #[inline(always)]
                |x| -x,
            ),
            Unary::Abs => map(
                x,
                y,
                #[inline(always)]
                |x| x.abs(),
            ),
            Unary::Sqrt => map(
                x,
                y,
                #[inline(always)]
                |x| x.sqrt(),
            ),
            Unary::Exp => map(
                x,
                y,
                #[inline(always)]
                |x| math::exp(x),
            ),
            Unary::Ln => map(
                x,
                y,
                #[inline(always)]
                |x| math::ln(x),
            ),
            Unary::Sin => vectorised(
                #[inline(always)]
                || math::sines(x, y, 0),
            ),
            Unary::Cos => vectorised(
                #[inline(always)]
                || math::sines(x, y, 1),
            ),
            Unary::Tanh => map(
                x,
                y,
                #[inline(always)]
                |x| math::tanh(x),
            ),
            Unary::Square => map(
                x,
                y,
                #[inline(always)]
                |x| x * x,
            ),
            Unary::Reciprocal => map(
                x,
                y,
                #[inline(always)]
                |x| 1.0 / x,
            ),
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let vectors = part.len().div_ceil(4) as u32;
        let args = [part.arg(0), part.arg(1)];
        let op = [("OP", f64::from(self.op as u8))];
        let params = Params { vectors };
        part.dispatch_with(&SHADER, "main", &op, &args, &params, vectors.div_ceil(64))
    }
}
