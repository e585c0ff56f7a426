//! `axpy` in the catalog.

use super::{Entry, Generator, LINEAR, NewCase, Sample, bind};
use crate::kernels::axpy;

pub(super) const ENTRY: Entry = Entry {
    name: "axpy",
    about: "y = alpha * x + y",
    types: types!(T: f32 => case),
    bitwise: false,
    ..LINEAR
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    let alpha = draw.rng.f32() * 4.0 - 2.0;
    let (x, mut y) = (draw.input(n)?, draw.input(n)?);
    let kernel = axpy(alpha, &x.array, &mut y.array).kernel;
    bind(kernel, (x, y), move |check, (x, y), ()| {
        check.each(y, |i| alpha.exact() * x.at(i) + y.at(i))
    })
}
