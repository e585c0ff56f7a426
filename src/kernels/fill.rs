//! One value in every element.

use crate::array::{Array, Element, Handle};
use crate::error::Result;
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use crate::simd::{Lanes, VectorLoop};
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

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("fill", include_str!("../../shaders/fill.wgsl")).entry("main", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// The number of vectors of four elements.
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
        let bindings = [Binding::write(&self.x, Role::ITEM)];
        Ok(LaunchSpec::new(self.x.len(), bindings, 0.0))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (value, x) = (self.value, part.write::<T>(0));
        part.simd().run(Store { value, x });
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

/// `x = value`
struct Store<'a, T> {
    value: T,
    x: &'a mut [T],
}

impl<T: Element> VectorLoop for Store<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for x in self.x {
            *x = self.value;
        }
    }
}
