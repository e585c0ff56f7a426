//! `heat_step` in the catalog.

use super::{Entry, Exact, Generator, NewCase, Size, bind, product};
use crate::kernels::heat::{Border, exact_step, heat_step};

pub(super) const ENTRY: Entry = Entry {
    name: "heat",
    about: "one step of the heat equation on a grid (5-point stencil)",
    size: Size::Side,
    types: types!(T: f32 => case),
    bitwise: false,
    bench_sizes: &[256, 1024, 4096],
    audit_sizes: &[64, 192, 512, 1024, 2048],
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    let cells = product("heat", n, n)?;
    let border = [Border::Insulated, Border::Fixed][draw.rng.usize(..2)];
    let r = 0.05 + 0.2 * draw.rng.f32();
    let (u, mut next) = (draw.input(cells)?, draw.output(cells)?);
    let kernel = heat_step(n, n, r, border, &u.array, &mut next.array).kernel;
    bind(kernel, (u, next), move |check, (u, next), ()| {
        let exact = exact_step(n, n, r, border, &u.drawn);
        let terms = u
            .drawn
            .iter()
            .fold(0.0f32, |max, u| max.max(u.abs()))
            .into();
        check.each(next, |i| Exact {
            terms,
            ..Exact::of(exact[i])
        })
    })
}
