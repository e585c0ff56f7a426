//! `dot` in the catalog.

use super::{Entry, Generator, LINEAR, NewCase, bind};
use crate::kernels::dot;

pub(super) const ENTRY: Entry = Entry {
    name: "dot",
    about: "the dot product of two arrays",
    types: types!(T: f32 => case),
    ..LINEAR
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    let (x, y) = (draw.input(n)?, draw.input(n)?);
    let kernel = dot(&x.array, &y.array).kernel;
    bind(kernel, (x, y), move |check, (x, y), total| {
        check.value(&[*total], &[(0..n).map(|i| x.at(i) * y.at(i)).sum()])
    })
}
