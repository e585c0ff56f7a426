//! Two arrays combined element by element.

use super::order::{Ordered, Ranking};
use crate::array::{Array, ElementType, Handle};
use crate::device::gpu::TypedShaders;
use crate::error::{Error, Result};
use crate::kernel::{
    Binding, Call, CpuPart, ErrorBound, GpuPart, LaunchSpec, Pass, Role, Tolerance,
};
use crate::simd::{Lanes, VectorLoop};
use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;
use std::sync::LazyLock;

/// The operation that [`zip()`] applies to each pair of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Binary {
    /// a + b; integers wrap.
    Add,
    /// a - b; integers wrap.
    Sub,
    /// a · b; integers wrap.
    Mul,
    /// a / b. Integers are rounded towards 0; a / 0 is a, and `i32::MIN` / -1 is `i32::MIN`. For f32, a GPU may be off
    /// by 2.5 units in the last place, for |b| from 2^-126 to 2^126, and its hardware decides the results for zeros,
    /// infinities and NaN. The CPU divides exactly as IEEE 754 says.
    Div,
    /// The lesser. -0 is less than +0; a number is preferred to a NaN.
    Min,
    /// The greater. +0 is greater than -0; a number is preferred to a NaN.
    Max,
}

impl Binary {
    /// Every operation.
    pub const ALL: &[Self] = &[
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Min,
        Self::Max,
    ];
}

/// `out[i] = op(a[i], b[i])` for arrays of the same length and type.
///
/// Integer results are the same on every device. f32 results, except those of [`Binary::Div`], are exact or rounded
/// once. They are the same on every device unless an operand or the result is subnormal, which a GPU may flush to 0.
///
/// # Errors
/// Running fails if the arrays differ in length.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let a = rt.array_from(&[7u32, 8, 9])?;
/// let b = rt.array_from(&[2u32, 0, 10])?;
/// let mut out = rt.uninit(3)?;
/// rt.run(zip(Binary::Div, &a, &b, &mut out))?;
/// assert_eq!(out.to_vec()?, [3, 8, 0]);
/// # Ok(())
/// # }
/// ```
pub fn zip<'a, T: Arithmetic>(
    op: Binary,
    a: &'a Array<T>,
    b: &'a Array<T>,
    out: &'a mut Array<T>,
) -> Call<'a, Zip<T>> {
    let handle = |array: &Array<T>| array.handle().clone();
    Call::new(Zip {
        op,
        a: handle(a),
        b: handle(b),
        out: handle(out),
        element: PhantomData,
    })
}

/// An element type with the operations of [`Binary`]: `f32`, `u32` and `i32`.
pub trait Arithmetic: Ordered {
    #[doc(hidden)]
    fn add(self, other: Self) -> Self;
    #[doc(hidden)]
    fn sub(self, other: Self) -> Self;
    #[doc(hidden)]
    fn mul(self, other: Self) -> Self;
    #[doc(hidden)]
    fn div(self, other: Self) -> Self;
}

impl Arithmetic for f32 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self / other
    }
}

macro_rules! wrapping_arithmetic {
    ($($T:ty),*) => {$(
        impl Arithmetic for $T {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                if other == 0 { self } else { self.wrapping_div(other) }
            }
        }
    )*};
}
wrapping_arithmetic!(u32, i32);

/// The element that comes first by `ranking`; the first of equals.
#[inline(always)]
fn pick<T: Ordered>(ranking: Ranking, a: T, b: T) -> T {
    let (rank_a, rank_b) = (
        ranking.rank(bytemuck::cast(a)),
        ranking.rank(bytemuck::cast(b)),
    );
    if rank_b < rank_a { b } else { a }
}

/// A function of two elements, resolved at compile time.
trait Operation<T> {
    fn of(a: T, b: T) -> T;
}

/// Types that represent operations.
macro_rules! operations {
    ($($Name:ident($a:ident, $b:ident) = $value:expr;)*) => {$(
        struct $Name;

        impl<T: Arithmetic> Operation<T> for $Name {
            #[inline(always)]
            fn of($a: T, $b: T) -> T {
                $value
            }
        }
    )*};
}
operations! {
    Add(a, b) = a.add(b);
    Sub(a, b) = a.sub(b);
    Mul(a, b) = a.mul(b);
    Div(a, b) = a.div(b);
    Min(a, b) = pick(const { Ranking::ascending::<T>() }, a, b);
    Max(a, b) = pick(const { Ranking::descending::<T>() }, a, b);
}

/// Applies an operation to each pair of elements.
struct Combine<'a, T, Op> {
    a: &'a [T],
    b: &'a [T],
    out: &'a mut [T],
    operation: PhantomData<Op>,
}

impl<T: Arithmetic, Op: Operation<T>> VectorLoop for Combine<'_, T, Op> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for ((out, a), b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = Op::of(*a, *b);
        }
    }
}

/// The kernel behind [`zip()`].
#[derive(Debug)]
pub struct Zip<T> {
    op: Binary,
    a: Handle,
    b: Handle,
    out: Handle,
    element: PhantomData<T>,
}

pub(crate) static SHADERS: LazyLock<TypedShaders> = LazyLock::new(|| {
    let ops: Vec<f64> = Binary::ALL.iter().map(|op| f64::from(*op as u8)).collect();
    TypedShaders::new("zip", include_str!("../../shaders/zip.wgsl")).entry("main", &[("OP", &ops)])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// The number of vectors of four elements.
    vectors: u32,
    /// Whether divisors of 0, and -1 under the least integer, are replaced.
    guard_zero: u32,
    guard_least: u32,
    /// The ranking of elements for min or max.
    ranking: Ranking,
}

impl<T: Arithmetic> Zip<T> {
    fn combine<Op: Operation<T>>(part: &mut CpuPart<'_>) {
        let (a, b, out) = (part.read::<T>(0), part.read::<T>(1), part.write::<T>(2));
        let operation = PhantomData::<Op>;
        part.simd().run(Combine {
            a,
            b,
            out,
            operation,
        });
    }
}

impl<T: Arithmetic> Pass for Zip<T> {
    fn name(&self) -> &str {
        "zip"
    }

    fn implementation(&self) -> u64 {
        SHADERS.of(T::TYPE).variant(self.op as u64)
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.out.len();
        for (name, array) in [("a", &self.a), ("b", &self.b)] {
            Error::check_length("zip", name, array.len(), n, || format!("out has {n}"))?;
        }
        let bindings = [
            Binding::read(&self.a, Role::ITEM),
            Binding::read(&self.b, Role::ITEM),
            Binding::write(&self.out, Role::ITEM),
        ];
        Ok(LaunchSpec::new(n, bindings, n as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        match self.op {
            // WGSL's is within 2.5 ULP, the CPU's is rounded correctly.
            Binary::Div => Tolerance::Relative(3.0 * f64::from(f32::EPSILON)),
            _ => Tolerance::Bitwise,
        }
    }

    fn error_bound(&self, binding: usize) -> ErrorBound {
        match self.op {
            Binary::Div => ErrorBound::Ulps(2.5),
            _ => self.tolerance(binding).error_bound(),
        }
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        match self.op {
            Binary::Add => Self::combine::<Add>(part),
            Binary::Sub => Self::combine::<Sub>(part),
            Binary::Mul => Self::combine::<Mul>(part),
            Binary::Div => Self::combine::<Div>(part),
            Binary::Min => Self::combine::<Min>(part),
            Binary::Max => Self::combine::<Max>(part),
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let (guard_zero, guard_least) = match T::TYPE {
            ElementType::F32 => (0, 0),
            ElementType::U32 => (1, 0),
            ElementType::I32 => (1, 1),
        };
        let vectors = part.len().div_ceil(4) as u32;
        let ranking = if self.op == Binary::Max {
            Ranking::descending::<T>()
        } else {
            Ranking::ascending::<T>()
        };
        let params = Params {
            vectors,
            guard_zero,
            guard_least,
            ranking,
        };
        let args = [part.arg(0), part.arg(1), part.arg(2)];
        let op = [("OP", f64::from(self.op as u8))];
        let groups = vectors.div_ceil(64);
        part.dispatch_with(SHADERS.of(T::TYPE), "main", &op, &args, &params, groups)
    }
}
