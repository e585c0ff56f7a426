//! One value in every element.

use super::catalog::{self, Case, Check, Entry, LINEAR_AUDIT_SIZES, Sample, Size, by_type};
use crate::array::{Array, Element, ElementType, Handle};
use crate::dispatch::{Explanation, Placement, Plan, Report};
use crate::error::Result;
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance, Work};
use crate::runtime::Runtime;
use bytemuck::{Pod, Zeroable};
use std::sync::LazyLock;

/// Sets every element of `x` to `value`, bit for bit, NaN included.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let mut x = rt.array_from(&[1u32, 2, 3])?;
/// rt.run(fill(7, &mut x))?;
/// assert_eq!(x.to_vec()?, [7, 7, 7]);
/// # Ok(())
/// # }
/// ```
pub fn fill<T: Element>(value: T, x: &mut Array<T>) -> Call<'_, Fill<T>> {
    Call::new(Fill {
        value,
        x: x.handle().clone(),
    })
}

/// The kernel behind [`fill()`].
#[derive(Debug)]
pub struct Fill<T> {
    value: T,
    x: Handle,
}

static SHADER: LazyLock<Shader> =
    LazyLock::new(|| Shader::builtin("fill", include_str!("../../shaders/fill.wgsl")));

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Vectors of four elements.
    vectors: u32,
    /// The value's bits.
    bits: u32,
}

impl<T: Element> Pass for Fill<T> {
    fn name(&self) -> &str {
        "fill"
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let work = Work {
            bytes_written: 4.0 * n as f64,
            ..Work::default()
        };
        Ok(LaunchSpec::new(
            n,
            [Binding::write(&self.x, Role::ITEM)],
            work,
        ))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        part.write::<T>(0).fill(self.value);
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let vectors = part.len().div_ceil(4) as u32;
        let params = Params {
            vectors,
            bits: bytemuck::cast(self.value),
        };
        part.dispatch(&SHADER, &[part.arg(0)], &params, vectors.div_ceil(64))
    }
}

/// `fill` in the catalog.
pub const ENTRY: Entry = Entry {
    name: "fill",
    about: "one value in every element",
    size: Size::Items,
    dtypes: &[ElementType::F32, ElementType::U32, ElementType::I32],
    bitwise: true,
    bench_sizes: &[1 << 10, 1 << 16, 1 << 20, 1 << 24],
    audit_sizes: LINEAR_AUDIT_SIZES,
    spec: |n, dtype| by_type!(dtype, T => catalog::spec_of(&fill(T::default(), &mut Array::uninit(n)?))),
    case: |n, dtype, seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        by_type!(dtype, T => {
            let value = T::sample(1, &mut rng)[0];
            Ok(Box::new(FillCase { value, x: Array::<T>::uninit(n)? }))
        })
    },
};

struct FillCase<T: Element> {
    value: T,
    x: Array<T>,
}

impl<T: Element + Sample> Case for FillCase<T> {
    fn reset(&mut self) -> Result<()> {
        self.x.write()?.fill(T::poison());
        Ok(())
    }

    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report> {
        Ok(rt.run(fill(self.value, &mut self.x).on(placement))?.report)
    }

    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation> {
        rt.explain(&fill(self.value, &mut self.x).on(placement))
    }

    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan> {
        rt.plan(&fill(self.value, &mut self.x).on(placement))
    }

    fn arrays(&self) -> (Vec<Handle>, Vec<Handle>) {
        (Vec::new(), vec![self.x.handle().clone()])
    }

    fn work(&self) -> Work {
        Work {
            bytes_written: 4.0 * self.x.len() as f64,
            ..Work::default()
        }
    }

    fn check(&mut self) -> Result<Check> {
        let want = vec![bytemuck::cast(self.value); self.x.len()];
        Ok(Check::exact(&self.bits()?, &want))
    }

    fn bits(&mut self) -> Result<Vec<u32>> {
        Ok(bytemuck::cast_slice(&self.x.read()?).to_vec())
    }
}
