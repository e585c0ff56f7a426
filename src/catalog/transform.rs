//! `transform` in the catalog: the exponential function.

use super::{Entry, Exact, Generator, LINEAR, NewCase, bind, random_f32};
use crate::kernels::{Unary, transform};

pub(super) const ENTRY: Entry = Entry {
    name: "transform",
    about: "a function of each element (exp)",
    types: types!(T: f32 => case),
    bitwise: false,
    ..LINEAR
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    let x = draw.input_with(n, |n, rng| {
        let all = random_f32(n, rng).into_iter();
        // Arguments with a finite, normal exponential.
        all.map(|x| x % 80.0).collect()
    })?;
    let mut y = draw.output(n)?;
    let kernel = transform(Unary::Exp, &x.array, &mut y.array).kernel;
    bind(kernel, (x, y), |check, (x, y), ()| {
        check.each(y, |i| Exact::of(x.at(i).real.exp()))
    })
}
