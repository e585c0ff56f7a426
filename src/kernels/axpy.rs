//! `y = alpha * x + y`, the BLAS level-1 operation.

use super::catalog::{self, Case, Check, Entry, Size};
use crate::array::{Array, ElementType, Handle};
use crate::dispatch::{Explanation, Placement, Plan, Report};
use crate::error::{Error, Result};
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance, Work};
use crate::runtime::Runtime;
use crate::simd::vectorised;
use bytemuck::{Pod, Zeroable};
use std::sync::LazyLock;

/// `y[i] = alpha * x[i] + y[i]` for f32 arrays of the same length.
///
/// Within 2u(|αx| + |y|) of the exact value on every device; whether the product is rounded before the
/// addition is the device's choice.
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
#[derive(Debug)]
pub struct Axpy {
    alpha: f32,
    x: Handle,
    y: Handle,
}

static SHADER: LazyLock<Shader> =
    LazyLock::new(|| Shader::builtin("axpy", include_str!("../../shaders/axpy.wgsl")));

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Vectors of four elements.
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
        let work = Work {
            flops: 2.0 * n as f64,
            bytes_read: 8.0 * n as f64,
            bytes_written: 4.0 * n as f64,
        };
        Ok(LaunchSpec::new(
            n,
            [
                Binding::read(&self.x, Role::ITEM),
                Binding::update(&self.y, Role::ITEM),
            ],
            work,
        ))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        let magnitudes = Self {
            alpha: self.alpha.abs(),
            x: self.x.clone(),
            y: self.y.clone(),
        };
        Tolerance::roundings(2.0, magnitudes)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (x, y) = (part.read::<f32>(0), part.write::<f32>(1));
        let alpha = self.alpha;
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y += alpha * *x;
                }
            },
        );
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

/// `axpy` in the catalog.
pub const ENTRY: Entry = Entry {
    name: "axpy",
    about: "y = alpha * x + y",
    size: Size::Items,
    dtypes: &[ElementType::F32],
    bitwise: false,
    bench_sizes: &[1 << 10, 1 << 16, 1 << 20, 1 << 24],
    audit_sizes: catalog::LINEAR_AUDIT_SIZES,
    spec: |n, _| {
        let (x, mut y) = (Array::uninit(n)?, Array::uninit(n)?);
        catalog::spec_of(&axpy(1.0, &x, &mut y))
    },
    case: |n, _, seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (xs, ys) = (
            catalog::random_f32(n, &mut rng),
            catalog::random_f32(n, &mut rng),
        );
        let (x, y) = (Array::from_slice(&xs)?, Array::from_slice(&ys)?);
        Ok(Box::new(AxpyCase {
            alpha: rng.f32() * 4.0 - 2.0,
            xs,
            ys,
            x,
            y,
        }))
    },
};

struct AxpyCase {
    alpha: f32,
    xs: Vec<f32>,
    ys: Vec<f32>,
    x: Array<f32>,
    y: Array<f32>,
}

impl Case for AxpyCase {
    fn reset(&mut self) -> Result<()> {
        self.x.write_all(&self.xs)?;
        self.y.write_all(&self.ys)
    }

    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report> {
        Ok(rt
            .run(axpy(self.alpha, &self.x, &mut self.y).on(placement))?
            .report)
    }

    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation> {
        rt.explain(&axpy(self.alpha, &self.x, &mut self.y).on(placement))
    }

    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan> {
        rt.plan(&axpy(self.alpha, &self.x, &mut self.y).on(placement))
    }

    fn arrays(&self) -> (Vec<Handle>, Vec<Handle>) {
        (
            vec![self.x.handle().clone(), self.y.handle().clone()],
            vec![self.y.handle().clone()],
        )
    }

    fn work(&self) -> Work {
        let n = self.xs.len() as f64;
        Work {
            flops: 2.0 * n,
            bytes_read: 8.0 * n,
            bytes_written: 4.0 * n,
        }
    }

    fn check(&mut self) -> Result<Check> {
        let alpha = f64::from(self.alpha);
        let term = |i: usize| (alpha * f64::from(self.xs[i]), f64::from(self.ys[i]));
        let u = f64::from(f32::EPSILON) / 2.0;
        let want = (0..self.xs.len()).map(|i| term(i).0 + term(i).1);
        Ok(Check::elementwise(&self.y.read()?, want, |i| {
            2.0 * u * (term(i).0.abs() + term(i).1.abs())
        }))
    }

    fn bits(&mut self) -> Result<Vec<u32>> {
        Ok(bytemuck::cast_slice(&self.y.read()?).to_vec())
    }
}
