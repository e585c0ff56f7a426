//! `gemm` in the catalog: the product of two square matrices.

use super::{Entry, Exact, Generator, NewCase, Sample, Size, bind, product};
use crate::kernels::gemm;

pub(super) const ENTRY: Entry = Entry {
    name: "gemm",
    about: "C = alpha * op(A) * op(B) + beta * C, row-major; here A * B of n x n",
    size: Size::Side,
    types: types!(T: f32 => case),
    bitwise: false,
    bench_sizes: &[128, 256, 512, 1024, 2048],
    audit_sizes: &[32, 64, 128, 384, 1024],
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    let len = product("gemm", n, n)?;
    let (a, b, mut c) = (draw.input(len)?, draw.input(len)?, draw.output(len)?);
    let (x, y) = (a.array.as_matrix(n, n)?, b.array.as_matrix(n, n)?);
    let kernel = gemm(1.0, x, y, 0.0, c.array.as_matrix_mut(n, n)?).kernel;
    let rows = draw.rows(n, 64);
    bind(kernel, (a, b, c), move |check, (a, b, c), ()| {
        let row = |row: usize| {
            let mut sums = vec![Exact::default(); n];
            for (a, b) in a.drawn[row * n..][..n].iter().zip(b.drawn.chunks_exact(n)) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = *sum + a.exact() * b.exact();
                }
            }
            sums
        };
        check.rows(c, n, &rows, row).map(drop)
    })
}
