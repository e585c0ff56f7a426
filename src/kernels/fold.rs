//! What `sum` and `dot` have in common: one pass that sums blocks, on any device, then the few sums that are left on
//! the host, by the same fixed tree (`tree`).

use super::catalog::{Case, Check, Sample};
use super::tree::{self, Addend, BLOCK};
use crate::array::{Array, ElementType, Handle};
use crate::dispatch::{Execution, Explanation, Placement, Plan, Report};
use crate::error::{Error, Result};
use crate::kernel::Shader;
use crate::kernel::{
    Binding, Call, CpuPart, GpuArg, GpuPart, Kernel, LaunchSpec, Pass, Role, Tolerance, Work,
};
use crate::runtime::Runtime;
use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// What is summed up: a term made of one element of each of `N` arrays.
pub trait Term<T, const N: usize>: Send + Sync + 'static {
    /// The kernel's name, which is also the shader's entry point.
    const NAME: &'static str;
    /// What the arrays are called in messages.
    const ARGUMENTS: [&'static str; N];

    /// The term.
    fn of(elements: [T; N]) -> T;
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

    fn work(n: usize) -> Work {
        Work {
            flops: (N * n) as f64,
            bytes_read: (4 * N * n) as f64,
            bytes_written: 0.0,
        }
    }
}

impl<T: Addend, Of: Term<T, N>, const N: usize> Kernel for Reduction<T, Of, N> {
    type Output = T;

    fn name(&self) -> &str {
        Of::NAME
    }

    fn implementation(&self) -> u64 {
        shader::<T>().hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.inputs[0].len();
        for (input, name) in self.inputs.iter().zip(Of::ARGUMENTS) {
            Error::check_length(Of::NAME, name, input.len(), n, || {
                format!("{} has {n}", Of::ARGUMENTS[0])
            })?;
        }
        let reads = self
            .inputs
            .iter()
            .map(|input| Binding::read(input, Role::ITEM));
        let spec = LaunchSpec::new(n, reads, Self::work(n)).grain(BLOCK);
        Ok(spec.returning(n.div_ceil(BLOCK) * size_of::<T>()))
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<T> {
        let sums = cx.uninit::<T>(self.inputs[0].len().div_ceil(BLOCK))?;
        cx.launch(&BlockSums {
            inputs: self.inputs.clone(),
            sums: sums.handle().clone(),
            of: self.of,
        })?;
        Ok(tree::total(&sums.read()?))
    }
}

/// The pass that sums each block.
struct BlockSums<T, Of, const N: usize> {
    inputs: [Handle; N],
    sums: Handle,
    of: PhantomData<fn() -> (T, Of)>,
}

const SOURCE: &str = include_str!("../../shaders/fold.wgsl");
static FLOATS: LazyLock<Shader> = LazyLock::new(|| Shader::builtin("fold", SOURCE));
/// For both integer types, since wrapping addition is the same for them.
static INTEGERS: LazyLock<Shader> =
    LazyLock::new(|| Shader::typed("fold", SOURCE, ElementType::U32));

fn shader<T: Addend>() -> &'static Shader {
    if T::TYPE == ElementType::F32 {
        &FLOATS
    } else {
        &INTEGERS
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    elements: u32,
    /// Sums before the first of the part.
    lead: u32,
    /// Always 0.
    zero: u32,
}

impl<T: Addend, Of: Term<T, N>, const N: usize> Pass for BlockSums<T, Of, N> {
    fn name(&self) -> &str {
        Of::NAME
    }

    fn implementation(&self) -> u64 {
        shader::<T>().hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.inputs[0].len();
        let reads = self
            .inputs
            .iter()
            .map(|input| Binding::read(input, Role::ITEM));
        let bindings = reads.chain([Binding::write(&self.sums, Role::per(BLOCK))]);
        Ok(LaunchSpec::new(n, bindings, Reduction::<T, Of, N>::work(n)).grain(BLOCK))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let inputs = std::array::from_fn(|i| part.read::<T>(i));
        tree::block_sums(
            inputs,
            #[inline(always)]
            |terms| Of::of(terms),
            part.write(N),
        );
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
        part.dispatch_with(shader::<T>(), Of::NAME, &[], &args, &params, groups)
    }
}

/// A sum or a dot product of random arrays.
pub(super) struct FoldCase<T: Addend, Of, const N: usize> {
    elements: [Vec<T>; N],
    inputs: [Array<T>; N],
    value: Option<T>,
    of: PhantomData<fn() -> Of>,
}

impl<T: Addend + Sample, Of: Term<T, N>, const N: usize> FoldCase<T, Of, N> {
    pub(super) fn boxed(n: usize, seed: u64) -> Result<Box<dyn Case>> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let elements = std::array::from_fn(|_| T::sample(n, &mut rng));
        let inputs = elements
            .each_ref()
            .map(|elements| Array::from_slice(elements));
        let inputs: Vec<_> = inputs.into_iter().collect::<Result<_>>()?;
        let inputs = inputs.try_into().expect("as many as there were");
        Ok(Box::new(Self {
            elements,
            inputs,
            value: None,
            of: PhantomData,
        }))
    }

    fn call(&self) -> Call<'_, Reduction<T, Of, N>> {
        Call::new(Reduction::new(self.inputs.each_ref()))
    }
}

impl<T: Addend + Sample, Of: Term<T, N>, const N: usize> Case for FoldCase<T, Of, N> {
    fn reset(&mut self) -> Result<()> {
        self.value = None;
        self.inputs
            .iter_mut()
            .zip(&self.elements)
            .try_for_each(|(a, e)| a.write_all(e))
    }

    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report> {
        let run = rt.run(self.call().on(placement))?;
        self.value = Some(run.value);
        Ok(run.report)
    }

    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation> {
        rt.explain(&self.call().on(placement))
    }

    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan> {
        rt.plan(&self.call().on(placement))
    }

    fn arrays(&self) -> (Vec<Handle>, Vec<Handle>) {
        (
            self.inputs
                .iter()
                .map(|input| input.handle().clone())
                .collect(),
            Vec::new(),
        )
    }

    fn work(&self) -> Work {
        Reduction::<T, Of, N>::work(self.elements[0].len())
    }

    fn check(&mut self) -> Result<Check> {
        let n = self.elements[0].len();
        let value: Vec<T> = self.value.into_iter().collect();
        let terms = |i: usize| self.elements.each_ref().map(|elements| elements[i]);
        if T::TYPE != ElementType::F32 {
            let want = (0..n).fold(T::ZERO, |sum, i| sum.plus(Of::of(terms(i))));
            return Ok(Check::exact(
                bytemuck::cast_slice(&value),
                &[bytemuck::cast(want)],
            ));
        }
        let exact = |i| terms(i).map(Sample::to_f64).into_iter().product::<f64>();
        let (mut want, mut magnitude) = (0.0, 0.0);
        for term in (0..n).map(exact) {
            want += term;
            magnitude += term.abs();
        }
        let bound = (tree::depth(n) + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * magnitude;
        Ok(Check::elementwise(
            bytemuck::cast_slice(&value),
            [want],
            |_| bound,
        ))
    }

    fn bits(&mut self) -> Result<Vec<u32>> {
        Ok(self
            .value
            .iter()
            .map(|value| bytemuck::cast(*value))
            .collect())
    }
}
