//! The dot product of two arrays.

use super::fold::{Reduction, Term};
use super::tree::Summand;
use crate::array::Array;
use crate::kernel::Call;

/// The sum of `x[i] * y[i]` over two f32 arrays of the same length; 0 for empty ones.
///
/// Products are rounded to f32 before the fixed tree of [`sum`](super::sum()) adds them. The result has the same bits
/// on every device and for every split, except for products below the least normal number, which a GPU may flush to 0.
/// Its error is at most that of `sum` with Σ|x·y|.
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
/// let y = rt.array_from(&[4.0f32, 5.0, 6.0])?;
/// assert_eq!(rt.run(dot(&x, &y))?.value, 32.0);
/// # Ok(())
/// # }
/// ```
pub fn dot<'a>(x: &'a Array<f32>, y: &'a Array<f32>) -> Call<'a, Reduction<f32, Product, 2>> {
    Call::new(Reduction::new([x, y]))
}

/// The terms of [`dot()`]: products.
#[derive(Debug)]
pub enum Product {}

impl Term<f32, 2> for Product {
    const NAME: &'static str = "dot";
    const ARGUMENTS: [&'static str; 2] = ["x", "y"];
}

impl Summand<f32, 2> for Product {
    #[inline(always)]
    fn of([x, y]: [f32; 2]) -> f32 {
        x * y
    }
}
