//! A function of each element.

use super::math;
use crate::array::{Array, Handle};
use crate::error::{Error, Result};
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use crate::simd::{Lanes, Simd, VectorLoop};
use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;
use std::sync::LazyLock;

/// The function that [`transform()`] applies to each element.
///
/// NaN gives NaN on every device, and the functions have the values of IEEE 754 at zeros and infinities. A GPU may
/// flush subnormal arguments and results to 0. [`Unary::max_ulps`] bounds all other errors.
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
    /// 0 means that the function is exact or correctly rounded, and so the same on every device. On GPUs, the square
    /// root and the reciprocal are as exact as WGSL requires (1/x 2.5 ULP; the square root one over an inverse square
    /// root, 2 ULP); on the CPU they are correctly rounded. The other functions are Divvy's own, with the same formulas
    /// on every device. No f32 is known for which those of the CPU are off by more than 1 (exp, ln), 1.4 (tanh) or 2.4
    /// (sin, cos) ULP. The bounds leave room for multiplications and additions that a GPU fuses, and for its division.
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

/// Operations per element: about the number that the polynomials take.
const FLOPS: f64 = 16.0;

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    let ops: Vec<f64> = Unary::ALL.iter().map(|op| f64::from(*op as u8)).collect();
    Shader::builtin("transform", include_str!("../../shaders/transform.wgsl"))
        .entry("main", &[("OP", &ops)])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// The number of vectors of four elements.
    vectors: u32,
}

/// A function of one element, resolved at compile time.
trait Function {
    fn of(x: f32) -> f32;
}

/// Types that represent functions.
macro_rules! functions {
    ($($Name:ident($x:ident) = $value:expr;)*) => {$(
        struct $Name;

        impl Function for $Name {
            #[inline(always)]
            fn of($x: f32) -> f32 {
                $value
            }
        }
    )*};
}
functions! {
    Neg(x) = -x;
    Abs(x) = x.abs();
    Sqrt(x) = x.sqrt();
    Exp(x) = math::exp(x);
    Ln(x) = math::ln(x);
    Tanh(x) = math::tanh(x);
    Square(x) = x * x;
    Reciprocal(x) = 1.0 / x;
}

/// Applies a function to each element.
struct Map<'a, F> {
    x: &'a [f32],
    y: &'a mut [f32],
    function: PhantomData<F>,
}

impl<F: Function> VectorLoop for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = F::of(*x);
        }
    }
}

fn map<F: Function>(simd: Simd, x: &[f32], y: &mut [f32]) {
    let function = PhantomData::<F>;
    simd.run(Map { x, y, function });
}

/// The sine of each element, or the cosine, which is a quarter turn ahead.
struct Sines<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    turns: u32,
}

impl VectorLoop for Sines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        math::sines(self.x, self.y, self.turns);
    }
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

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (x, y, simd) = (part.read::<f32>(0), part.write::<f32>(1), part.simd());
        match self.op {
            Unary::Neg => map::<Neg>(simd, x, y),
            Unary::Abs => map::<Abs>(simd, x, y),
            Unary::Sqrt => map::<Sqrt>(simd, x, y),
            Unary::Exp => map::<Exp>(simd, x, y),
            Unary::Ln => map::<Ln>(simd, x, y),
            Unary::Sin => simd.run(Sines { x, y, turns: 0 }),
            Unary::Cos => simd.run(Sines { x, y, turns: 1 }),
            Unary::Tanh => map::<Tanh>(simd, x, y),
            Unary::Square => map::<Square>(simd, x, y),
            Unary::Reciprocal => map::<Reciprocal>(simd, x, y),
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
