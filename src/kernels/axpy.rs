//! `y = alpha * x + y`, the BLAS level-1 operation.

use crate::array::{Array, Handle};
use crate::error::{Error, Result};
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use crate::simd::{Lanes, VectorLoop};
use bytemuck::{Pod, Zeroable};
use std::sync::LazyLock;

/// `y[i] = alpha * x[i] + y[i]` for f32 arrays of the same length.
///
/// Within 2u(|αx| + |y|) of the exact value on every device. Whether the product is rounded before the addition depends
/// on the device.
///
/// # Errors
/// Running fails if `x` and `y` differ in length.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[1.0f32, 2.0, 3.0])?;
/// let mut y = rt.array_from(&[10.0f32, 20.0, 30.0])?;
/// rt.run(axpy(2.0, &x, &mut y))?;
/// assert_eq!(y.to_vec()?, [12.0, 24.0, 36.0]);
/// # Ok(())
/// # }
/// ```
pub fn axpy<'a>(alpha: f32, x: &'a Array<f32>, y: &'a mut Array<f32>) -> Call<'a, Axpy> {
    Call::new(Axpy {
        alpha,
        x: x.handle().clone(),
        y: y.handle().clone(),
    })
}

/// The kernel behind [`axpy()`].
#[derive(Clone, Debug)]
pub struct Axpy {
    alpha: f32,
    x: Handle,
    y: Handle,
}

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("axpy", include_str!("../../shaders/axpy.wgsl")).entry("main", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// The number of vectors of four elements.
    vectors: u32,
    alpha: f32,
}

impl Pass for Axpy {
    fn name(&self) -> &str {
        "axpy"
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.y.len();
        Error::check_length("axpy", "x", self.x.len(), n, || format!("y has {n}"))?;
        let bindings = [
            Binding::read(&self.x, Role::ITEM),
            Binding::update(&self.y, Role::ITEM),
        ];
        Ok(LaunchSpec::new(n, bindings, 2.0 * n as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        let magnitudes = Self {
            alpha: self.alpha.abs(),
            ..self.clone()
        };
        Tolerance::roundings(2.0, magnitudes)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (x, y) = (part.read::<f32>(0), part.write::<f32>(1));
        let alpha = self.alpha;
        part.simd().run(AddScaled { alpha, x, y });
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let vectors = part.len().div_ceil(4) as u32;
        let (x, y) = (part.arg(0), part.arg(1));
        part.dispatch(
            &SHADER,
            &[x, y],
            &Params {
                vectors,
                alpha: self.alpha,
            },
            vectors.div_ceil(64),
        )
    }
}

/// `y += alpha * x`
struct AddScaled<'a> {
    alpha: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl VectorLoop for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y += self.alpha * *x;
        }
    }
}
