//! `gemv` in the catalog: the product of a square matrix and a vector.

use super::{Entry, Generator, NewCase, Size, bind, product};
use crate::kernels::gemv;

pub(super) const ENTRY: Entry = Entry {
    name: "gemv",
    about: "y = alpha * op(A) * x + beta * y, row-major; here A * x of n x n",
    size: Size::Side,
    types: types!(T: f32 => case),
    bitwise: false,
    bench_sizes: &[256, 1024, 4096, 8192],
    audit_sizes: &[64, 192, 512, 1536, 4096],
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    let a = draw.input(product("gemv", n, n)?)?;
    let (x, mut y) = (draw.input(n)?, draw.output(n)?);
    let kernel = gemv(1.0, a.array.as_matrix(n, n)?, &x.array, 0.0, &mut y.array).kernel;
    bind(kernel, (a, x, y), move |check, (a, x, y), ()| {
        check.each(y, |row| (0..n).map(|i| a.at(row * n + i) * x.at(i)).sum())
    })
}
