//! `exclusive_scan` and `inclusive_scan` in the catalog.

use super::check::BLOCK;
use super::{Entry, Exact, Generator, LINEAR, NewCase, Sample, bind};
use crate::kernels::{Addend, exclusive_scan, inclusive_scan};

pub(super) const INCLUSIVE: Entry = Entry {
    name: "inclusive_scan",
    about: "prefix sums, each with its own element",
    types: types!(T: f32, u32, i32 => |n, draw| case::<T>(n, draw, true)),
    ..LINEAR
};

pub(super) const EXCLUSIVE: Entry = Entry {
    name: "exclusive_scan",
    about: "prefix sums, each without its own element",
    types: types!(T: f32, u32, i32 => |n, draw| case::<T>(n, draw, false)),
    ..LINEAR
};

fn case<T: Addend + Sample>(n: usize, draw: &mut Generator, inclusive: bool) -> NewCase {
    let (x, mut out) = (draw.input::<T>(n)?, draw.output(n)?);
    let scan = [exclusive_scan, inclusive_scan][usize::from(inclusive)];
    let kernel = scan(&x.array, &mut out.array).kernel;
    bind(kernel, (x, out), move |check, (x, out), ()| {
        let total = |block: &[T]| block.iter().map(|x| x.exact()).sum();
        let before = prefix_sums(x.drawn.chunks(BLOCK).map(total), Exact::default(), false);
        check.blocks(out, |block| {
            let before = before[block.start / BLOCK];
            prefix_sums(block.map(|i| x.at(i)), before, inclusive)
        })
    })
}

/// The sums of `before` and the terms up to each index, with or without that index.
fn prefix_sums(terms: impl Iterator<Item = Exact>, before: Exact, inclusive: bool) -> Vec<Exact> {
    let mut sum = before;
    let next = |term| {
        let before = sum;
        sum = sum + term;
        if inclusive { sum } else { before }
    };
    terms.map(next).collect()
}
