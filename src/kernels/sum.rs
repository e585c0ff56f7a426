//! The sum of an array.

use super::catalog::{self, Entry, LINEAR_AUDIT_SIZES, Size, by_type};
use super::fold::{FoldCase, Reduction, Term};
use super::tree::Addend;
use crate::array::{Array, ElementType};
use crate::kernel::Call;

/// The sum of all elements; 0 for an empty array.
///
/// Integers wrap. f32 are added by a fixed tree, whose shape depends on the length alone: the result has the same bits
/// on every device and for every split, and its error is at most (16 + 8 + 2)·u·Σ|x| for each level of 4096 elements
/// (u = 2^-24; one level up to 4096 elements, two up to 16 Mi). A NaN among the elements, or infinities of both signs,
/// give NaN.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[1.5f32, 2.0, -0.25])?;
/// assert_eq!(rt.run(sum(&x))?.value, 3.25);
/// # Ok(())
/// # }
/// ```
pub fn sum<T: Addend>(x: &Array<T>) -> Call<'_, Reduction<T, Itself, 1>> {
    Call::new(Reduction::new([x]))
}

/// What [`sum()`] sums up: the elements themselves.
#[derive(Debug)]
pub enum Itself {}

impl<T: Addend> Term<T, 1> for Itself {
    const NAME: &'static str = "sum";
    const ARGUMENTS: [&'static str; 1] = ["x"];

    #[inline(always)]
    fn of([x]: [T; 1]) -> T {
        x
    }
}

/// `sum` in the catalog.
pub const ENTRY: Entry = Entry {
    name: "sum",
    about: "the sum of an array",
    size: Size::Items,
    dtypes: &[ElementType::F32, ElementType::U32, ElementType::I32],
    bitwise: true,
    bench_sizes: &[1 << 10, 1 << 16, 1 << 20, 1 << 24],
    audit_sizes: LINEAR_AUDIT_SIZES,
    spec: |n, dtype| by_type!(dtype, T => catalog::spec_of(&sum(&Array::<T>::uninit(n)?))),
    case: |n, dtype, seed| by_type!(dtype, T => FoldCase::<T, Itself, 1>::boxed(n, seed)),
};
