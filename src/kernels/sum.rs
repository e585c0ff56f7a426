//! The sum of an array.

use super::fold::{Reduction, Term};
use super::tree::Addend;
pub use super::tree::Itself;
use crate::array::Array;
use crate::kernel::Call;

/// The sum of all elements; 0 for an empty array.
///
/// Integers wrap. A fixed tree adds f32; its shape depends only on the length. The result has the same bits on every
/// device and for every split, and its error is at most (16 + 8 + 2)·u·Σ|x| for each level of 4096 elements (u = 2^-24;
/// one level up to 4096 elements, two up to 16 Mi). A NaN among the elements, or infinities of both signs, give NaN.
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

impl<T: Addend> Term<T, 1> for Itself {
    const NAME: &'static str = "sum";
    const ARGUMENTS: [&'static str; 1] = ["x"];
}
