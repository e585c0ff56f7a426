//! The common part of `sum` and `dot`: one pass sums blocks, on any device; the host then sums the few block sums, by
//! the same fixed tree (`tree`).

use super::tree::{self, Addend, BLOCK, Summand};
use crate::array::{Array, Handle};
use crate::device::gpu::TypedShaders;
use crate::error::{Error, Result};
use crate::kernel::Execution;
use crate::kernel::{
    Binding, CpuPart, ErrorBound, GpuArg, GpuPart, Kernel, LaunchSpec, Pass, Role, Tolerance,
};
use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// The terms of a sum: each is made of one element of each of `N` arrays.
pub trait Term<T, const N: usize>: Summand<T, N> + Send + Sync + 'static {
    /// The name of the kernel and of the shader's entry point.
    const NAME: &'static str;
    /// The names of the arrays in messages.
    const ARGUMENTS: [&'static str; N];
}

/// The kernel behind [`sum`](super::sum()) and [`dot`](super::dot()).
pub struct Reduction<T, Of, const N: usize> {
    inputs: [Handle; N],
    of: PhantomData<fn() -> (T, Of)>,
}

impl<T: Addend, Of: Term<T, N>, const N: usize> Reduction<T, Of, N> {
    pub(super) fn new(inputs: [&Array<T>; N]) -> Self {
        Self {
            inputs: inputs.map(|input| input.handle().clone()),
            of: PhantomData,
        }
    }
}

impl<T: Addend, Of: Term<T, N>, const N: usize> Kernel for Reduction<T, Of, N> {
    type Output = T;

    fn name(&self) -> &str {
        Of::NAME
    }

    fn implementation(&self) -> u64 {
        SHADERS.of(T::ADDED_AS).hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.inputs[0].len();
        for (input, name) in self.inputs.iter().zip(Of::ARGUMENTS) {
            Error::check_length(Of::NAME, name, input.len(), n, || {
                format!("{} has {n}", Of::ARGUMENTS[0])
            })?;
        }
        let inputs = self.inputs.iter();
        let reads = inputs.map(|input| Binding::read(input, Role::ITEM));
        let spec = LaunchSpec::new(n, reads, (N * n) as f64).grain(BLOCK);
        Ok(spec.returning(n.div_ceil(BLOCK) * size_of::<T>()))
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<T> {
        let sums = cx.uninit::<T>(self.inputs[0].len().div_ceil(BLOCK))?;
        cx.launch(&BlockSums {
            inputs: self.inputs.clone(),
            sums: sums.handle().clone(),
            of: self.of,
        })?;
        Ok(tree::total(cx.simd(), &sums.read()?))
    }

    fn value_error_bound(&self) -> ErrorBound {
        ErrorBound::Roundings((tree::depth(self.inputs[0].len()) + 2) as f64)
    }
}

/// The pass that sums each block.
struct BlockSums<T, Of, const N: usize> {
    inputs: [Handle; N],
    sums: Handle,
    of: PhantomData<fn() -> (T, Of)>,
}

pub(crate) static SHADERS: LazyLock<TypedShaders> = LazyLock::new(|| {
    TypedShaders::new("fold", include_str!("../../shaders/fold.wgsl"))
        .entry("sum", &[])
        .entry("dot", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    elements: u32,
    /// Block sums before the part's first one.
    lead: u32,
    /// Always 0.
    zero: u32,
}

impl<T: Addend, Of: Term<T, N>, const N: usize> Pass for BlockSums<T, Of, N> {
    fn name(&self) -> &str {
        Of::NAME
    }

    fn implementation(&self) -> u64 {
        SHADERS.of(T::ADDED_AS).hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.inputs[0].len();
        let inputs = self.inputs.iter();
        let reads = inputs.map(|input| Binding::read(input, Role::ITEM));
        let bindings = reads.chain([Binding::write(&self.sums, Role::per(BLOCK))]);
        Ok(LaunchSpec::new(n, bindings, (N * n) as f64).grain(BLOCK))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let inputs = std::array::from_fn(|i| part.read::<T>(i));
        tree::block_sums::<T, Of, N>(part.simd(), inputs, part.write(N));
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let args: SmallVec<[GpuArg; 3]> = (0..=N).map(|i| part.arg(i)).collect();
        let params = Params {
            elements: part.len() as u32,
            lead: args[N].lead(),
            zero: 0,
        };
        let groups = part.len().div_ceil(BLOCK) as u32;
        part.dispatch_with(
            SHADERS.of(T::ADDED_AS),
            Of::NAME,
            &[],
            &args,
            &params,
            groups,
        )
    }
}
