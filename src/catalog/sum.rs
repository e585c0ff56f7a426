//! `sum` in the catalog.

use super::{Entry, Generator, LINEAR, NewCase, Sample, bind};
use crate::kernels::{Addend, sum};

pub(super) const ENTRY: Entry = Entry {
    name: "sum",
    about: "the sum of an array",
    types: types!(T: f32, u32, i32 => case::<T>),
    ..LINEAR
};

fn case<T: Addend + Sample>(n: usize, draw: &mut Generator) -> NewCase {
    let x = draw.input::<T>(n)?;
    let kernel = sum(&x.array).kernel;
    bind(kernel, x, |check, x, total| {
        check.value(&[*total], &[x.drawn.iter().map(|x| x.exact()).sum()])
    })
}
