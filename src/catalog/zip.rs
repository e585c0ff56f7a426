//! `zip` in the catalog: addition.

use super::{Entry, Generator, LINEAR, NewCase, Sample, bind};
use crate::kernels::{Arithmetic, Binary, zip};

pub(super) const ENTRY: Entry = Entry {
    name: "zip",
    about: "two arrays combined element by element (add)",
    types: types!(T: f32, u32, i32 => case::<T>),
    ..LINEAR
};

fn case<T: Arithmetic + Sample>(n: usize, draw: &mut Generator) -> NewCase {
    let (a, b, mut out) = (draw.input::<T>(n)?, draw.input(n)?, draw.output(n)?);
    let kernel = zip(Binary::Add, &a.array, &b.array, &mut out.array).kernel;
    bind(kernel, (a, b, out), |check, (a, b, out), ()| {
        check.each(out, |i| a.at(i) + b.at(i))
    })
}
