//! Partial results: the copies that parts accumulate into, and the pass that folds them into one.
//!
//! Copies belong to fixed blocks of items, whose number depends only on the lengths of the call and of the result.
//! Parts consist of whole blocks. Where the order of folding matters, every block accumulates into its own copy, so the
//! result is the same for every split. Otherwise a part uses only the copy of its first block.

use crate::array::{Array, Element, ElementType, Handle};
use crate::device::gpu::TypedShaders;
use crate::error::Result;
use crate::kernel::Shader;
use crate::kernel::{Binding, CpuPart, Fold, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use crate::simd::{Lanes, VectorLoop};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;
use std::sync::LazyLock;

/// The numbers that tune partial results. They decide the blocks, and so the bits of f32 sums.
struct Params {
    /// The most copies: enough to keep the threads of a large machine busy.
    most_copies: usize,
    /// The most scalars of all copies together: 64 MiB, which fits one binding of every adapter.
    most_scalars: usize,
    /// The fewest items of a block, so that folding does not dominate short calls.
    fewest_items: usize,
}

const PARAMS: Params = Params {
    most_copies: 64,
    most_scalars: 1 << 24,
    fewest_items: 4096,
};
/// Copies start at multiples of 256 bytes, the coarsest offset alignment of any adapter.
const COPY_GRAIN: usize = 64;

/// The copies of one partial result.
pub(super) struct Copies {
    array: Handle,
    fold: Fold,
    /// Scalars of one copy.
    scalars: usize,
    /// The items of the block that owns a copy.
    items: usize,
    count: usize,
}

impl Copies {
    /// The number of items of a block, when copies have `scalars` each. A power of two.
    pub(super) fn block(items: usize, scalars: usize) -> usize {
        let copies = (PARAMS.most_scalars / stride(scalars)).clamp(1, PARAMS.most_copies);
        items
            .div_ceil(copies)
            .max(PARAMS.fewest_items)
            .next_power_of_two()
    }

    /// Copies for every block of `block` of `items` items, each at the identity of `fold`.
    pub(super) fn new(
        ty: ElementType,
        scalars: usize,
        fold: Fold,
        items: usize,
        block: usize,
    ) -> Result<Self> {
        let count = items.div_ceil(block).max(1);
        let (len, bits) = (count * stride(scalars), fold.identity(ty));
        let array = match ty {
            ElementType::F32 => filled(len, f32::from_bits(bits)),
            ElementType::U32 => filled(len, bits),
            ElementType::I32 => filled(len, bits as i32),
        }?;
        Ok(Self {
            array,
            fold,
            scalars,
            items: block,
            count,
        })
    }

    /// The items of the block that owns a copy.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// The binding of the array: every block of items owns its copy.
    pub(super) fn binding(&self) -> Binding {
        let role = Role::Items {
            num: stride(self.scalars),
            den: self.items,
        };
        Binding::update(&self.array, role)
    }

    /// How far two devices may be apart in the fold of a part's copies. Each device may use other copies.
    pub(super) fn tolerance(&self, of: Tolerance) -> Tolerance {
        Tolerance::Folded {
            stride: stride(self.scalars),
            fold: self.fold,
            of: of.into(),
        }
    }

    /// The elements of the copy that belongs to the block in which `items` start.
    pub(super) fn elements(&self, items: &Range<usize>) -> Range<usize> {
        let start = items.start / self.items * stride(self.scalars);
        start..start + self.scalars
    }
}

fn filled<T: Element>(len: usize, value: T) -> Result<Handle> {
    Ok(Array::filled(len, value)?.handle().clone())
}

/// Scalars from the start of one copy to the next.
fn stride(scalars: usize) -> usize {
    scalars.next_multiple_of(COPY_GRAIN)
}

/// The shader that folds copies, for each element type.
pub(crate) static SHADERS: LazyLock<TypedShaders> = LazyLock::new(|| {
    let source = include_str!("../../../shaders/fold_partials.wgsl");
    TypedShaders::new("fold_partials", source).entry("main", &[])
});

/// Folds copies into the caller's array, in the order of the blocks.
pub(super) struct FoldPass {
    copies: Copies,
    result: Handle,
}

impl FoldPass {
    pub(super) fn new(copies: Copies, result: Handle) -> Self {
        Self { copies, result }
    }

    fn shader(&self) -> &'static Shader {
        SHADERS.of(self.result.element_type())
    }

    fn cpu_as<T: Sum>(&self, part: &mut CpuPart<'_>) {
        let (copies, result) = (part.read::<T>(0), part.write::<T>(1));
        let first = part.items().start;
        let own =
            |copy: usize| &copies[copy * stride(self.copies.scalars) + first..][..result.len()];
        let others: Vec<_> = (1..self.copies.count).map(own).collect();
        result.copy_from_slice(own(0));
        for other in others {
            part.simd().run(FoldIn {
                fold: self.copies.fold,
                other,
                result,
            });
        }
    }
}

/// Scalars that can be folded.
trait Sum: Element + PartialOrd {
    /// The sum; integers wrap.
    fn plus(self, other: Self) -> Self;
}

impl Sum for f32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }
}

impl Sum for u32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Sum for i32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

/// Folds another copy into the result, as the shader does.
struct FoldIn<'a, T> {
    fold: Fold,
    other: &'a [T],
    result: &'a mut [T],
}

impl<T: Sum> VectorLoop for FoldIn<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let pairs = self.result.iter_mut().zip(self.other);
        match self.fold {
            Fold::Add => {
                for (a, b) in pairs {
                    *a = a.plus(*b);
                }
            }
            Fold::Min => {
                for (a, b) in pairs {
                    *a = Fold::Min.combine(*a, *b, T::plus);
                }
            }
            Fold::Max => {
                for (a, b) in pairs {
                    *a = Fold::Max.combine(*a, *b, T::plus);
                }
            }
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FoldUniform {
    first: u32,
    len: u32,
    copies: u32,
    stride: u32,
    fold: u32,
}

impl Pass for FoldPass {
    fn name(&self) -> &str {
        "fold_partials"
    }

    fn implementation(&self) -> u64 {
        self.shader().hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let scalars = self.copies.scalars;
        let bindings = [
            Binding::read(&self.copies.array, Role::Whole),
            Binding::write(&self.result, Role::ITEM),
        ];
        Ok(LaunchSpec::new(
            scalars,
            bindings,
            (self.copies.count * scalars) as f64,
        ))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        match self.result.element_type() {
            ElementType::F32 => self.cpu_as::<f32>(part),
            ElementType::U32 => self.cpu_as::<u32>(part),
            ElementType::I32 => self.cpu_as::<i32>(part),
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        // All below 2^32: `Copies` holds at most 2^24 scalars, or one copy whose length was checked.
        let uniform = FoldUniform {
            first: part.items().start as u32,
            len: part.len() as u32,
            copies: self.copies.count as u32,
            stride: stride(self.copies.scalars) as u32,
            fold: match self.copies.fold {
                Fold::Add => 0,
                Fold::Min => 1,
                Fold::Max => 2,
            },
        };
        let (copies, result) = (part.arg(0), part.arg(1));
        part.dispatch(
            self.shader(),
            &[copies, result],
            &uniform,
            part.len().div_ceil(64) as u32,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Simd};

    #[test]
    fn every_instruction_set_folds_as_element_by_element() {
        let values = |seed: u64| -> Vec<f32> {
            let mut rng = fastrand::Rng::with_seed(seed);
            let special = [f32::NAN, 0.0, -0.0, f32::INFINITY];
            let one = |i: usize| {
                let number = rng.f32() - 0.5;
                special.get(i % 7).copied().unwrap_or(number)
            };
            (0..67).map(one).collect()
        };
        let (before, mut other) = (values(1), values(2));
        other.rotate_left(1);
        for fold in [Fold::Add, Fold::Min, Fold::Max] {
            let pairs = before.iter().zip(&other);
            let want: Vec<u32> = pairs
                .map(|(a, b)| fold.combine(*a, *b, |a, b| a + b).to_bits())
                .collect();
            for set in InstructionSet::available() {
                let mut result = before.clone();
                Simd::new(set).expect("it is available").run(FoldIn {
                    fold,
                    other: &other,
                    result: &mut result,
                });
                let got: Vec<u32> = result.iter().map(|x| x.to_bits()).collect();
                assert_eq!(got, want, "{fold:?}, {set}");
            }
        }
    }
}
