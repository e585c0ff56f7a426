//! `fill` in the catalog.

use super::{Entry, Generator, LINEAR, NewCase, Sample, bind};
use crate::kernels::fill;

pub(super) const ENTRY: Entry = Entry {
    name: "fill",
    about: "one value in every element",
    types: types!(T: f32, u32, i32 => case::<T>),
    ..LINEAR
};

fn case<T: Sample>(n: usize, draw: &mut Generator) -> NewCase {
    let value = T::random(1, &mut draw.rng)[0];
    let mut x = draw.output(n)?;
    let kernel = fill(value, &mut x.array).kernel;
    bind(kernel, x, move |check, x, ()| {
        check.each(x, |_| value.exact())
    })
}
