//! `min`, `max`, `argmin` and `argmax` in the catalog.

use super::{Entry, Generator, LINEAR, NewCase, Sample, bind};
use crate::array::Array;
use crate::kernel::{Call, Kernel};
use crate::kernels::{argmax, argmin, max, min};

pub(super) const MIN: Entry = Entry {
    name: "min",
    about: "the least element",
    types: types!(T: f32, u32, i32 => |n, draw| value(n, draw, min::<T>, T::lt)),
    ..LINEAR
};

pub(super) const MAX: Entry = Entry {
    name: "max",
    about: "the greatest element",
    types: types!(T: f32, u32, i32 => |n, draw| value(n, draw, max::<T>, T::gt)),
    ..LINEAR
};

pub(super) const ARGMIN: Entry = Entry {
    name: "argmin",
    about: "where the least element is",
    types: types!(T: f32 => |n, draw| place(n, draw, argmin, T::lt)),
    ..LINEAR
};

pub(super) const ARGMAX: Entry = Entry {
    name: "argmax",
    about: "where the greatest element is",
    types: types!(T: f32 => |n, draw| place(n, draw, argmax, T::gt)),
    ..LINEAR
};

fn value<T: Sample, K: Kernel<Output = Option<T>>>(
    n: usize,
    draw: &mut Generator,
    search: fn(&Array<T>) -> Call<'_, K>,
    better: fn(&T, &T) -> bool,
) -> NewCase {
    let x = draw.input(n)?;
    let kernel = search(&x.array).kernel;
    bind(kernel, x, move |check, x, found| {
        let best = first(&x.drawn, better).map(|at| x.at(at));
        check.value(found.as_slice(), best.as_slice())
    })
}

/// A search in an array whose second half repeats the first, so that there are several occurrences.
fn place<T: Sample, K: Kernel<Output = Option<usize>>>(
    n: usize,
    draw: &mut Generator,
    search: fn(&Array<T>) -> Call<'_, K>,
    better: fn(&T, &T) -> bool,
) -> NewCase {
    let x = draw.input_with(n, |n, rng| {
        let half = T::random(n.div_ceil(2), rng);
        half.iter().chain(&half).copied().take(n).collect()
    })?;
    let kernel = search(&x.array).kernel;
    bind(kernel, x, move |check, x, found| {
        check.require(*found == first(&x.drawn, better));
        Ok(())
    })
}

/// The index of the first element that no other beats.
fn first<T>(all: &[T], better: fn(&T, &T) -> bool) -> Option<usize> {
    let best = |best, at| {
        if better(&all[at], &all[best]) {
            at
        } else {
            best
        }
    };
    (0..all.len()).reduce(best)
}
