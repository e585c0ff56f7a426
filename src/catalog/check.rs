//! How far results are from their reference, by the kernel's own error bounds.

use super::Sample;
use super::argument::Argument;
use crate::error::Result;
use crate::kernel::{ErrorBound, Exact, LaunchSpec, Precision, relative_error};
use rayon::prelude::*;
use std::ops::Range;

/// How far a result is from its reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Check {
    /// The largest error found, in the units of `tolerance`.
    pub max_error: f64,
    /// The largest accepted error.
    pub tolerance: f64,
    /// Whether every element is within tolerance. A NaN is not, unless one is expected.
    pub ok: bool,
}

impl Check {
    /// Compares elements with exact numbers. The error is a share of the bound, so that the tolerance is 1. If only the
    /// exact elements are accepted, the error is 1 if any differs, and the tolerance is 0. Two NaNs agree, and so do
    /// equal infinities. [`ErrorBound::OfLargest`] refers to the largest [`Exact::terms`].
    pub fn elementwise<T: Sample>(got: &[T], want: &[Exact], bound: ErrorBound) -> Self {
        let mut check = Self::default();
        check.note::<T>(&[worst(got, want, bound)], bound);
        check.judged()
    }

    /// Accumulates errors under a bound.
    fn note<T: Sample>(&mut self, errors: &[f64], bound: ErrorBound) {
        self.max_error = errors.iter().copied().fold(self.max_error, larger);
        let accepted = f64::from(precision::<T>(bound).is_some());
        self.tolerance = self.tolerance.max(accepted);
    }

    fn judged(self) -> Self {
        let ok = self.max_error <= self.tolerance;
        Self { ok, ..self }
    }
}

/// Compares the results of a kernel with its reference.
pub(super) struct Checker<'a> {
    pub(super) spec: &'a LaunchSpec,
    /// The bound of a binding, or of the value.
    pub(super) bound_of: &'a dyn Fn(Option<usize>) -> ErrorBound,
    pub(super) check: Check,
    /// The bindings that were compared.
    pub(super) compared: Vec<usize>,
}

impl Checker<'_> {
    /// Compares every element of an array.
    pub(super) fn each<T: Sample>(
        &mut self,
        array: &Argument<T>,
        want: impl Fn(usize) -> Exact + Sync,
    ) -> Result<()> {
        self.blocks(array, |block| block.map(&want).collect())
    }

    /// Compares every element of an array with blocks from `want`, which begin at multiples of [`BLOCK`].
    pub(super) fn blocks<T: Sample>(
        &mut self,
        array: &Argument<T>,
        want: impl Fn(Range<usize>) -> Vec<Exact> + Sync,
    ) -> Result<()> {
        let n = array.array.len();
        let blocks: Vec<usize> = (0..n.div_ceil(BLOCK)).collect();
        let want = |at| want(at * BLOCK..n.min((at + 1) * BLOCK));
        self.rows(array, BLOCK, &blocks, want).map(drop)
    }

    /// Compares these rows of `width` elements of an array; the others must at least be written. Returns the largest
    /// error of each row, as a share of the bound.
    pub(super) fn rows<T: Sample>(
        &mut self,
        array: &Argument<T>,
        width: usize,
        rows: &[usize],
        want: impl Fn(usize) -> Vec<Exact> + Sync,
    ) -> Result<Vec<f64>> {
        let mut bindings = self.spec.bindings.iter();
        let binding = bindings.position(|binding| {
            binding.access.writes() && binding.array.same_array(array.array.handle())
        });
        self.require(binding.is_some());
        let bound = (self.bound_of)(binding);
        let got = array.array.read()?;
        let row = |&row: &usize| {
            let elements = row * width..got.len().min((row + 1) * width);
            worst(&got[elements], &want(row), bound)
        };
        let errors: Vec<f64> = rows.par_iter().map(row).collect();
        self.check.note::<T>(&errors, bound);
        if rows.len() * width < got.len() {
            self.require(got.par_iter().all(|x| x.partial_cmp(x).is_some()));
        }
        self.compared.extend(binding);
        Ok(errors)
    }

    /// Compares the value, as elements.
    pub(super) fn value<T: Sample>(&mut self, got: &[T], want: &[Exact]) -> Result<()> {
        let bound = (self.bound_of)(None);
        self.check.note::<T>(&[worst(got, want, bound)], bound);
        Ok(())
    }

    /// Fails unless the condition holds.
    pub(super) fn require(&mut self, is_so: bool) {
        if !is_so {
            self.check.max_error = f64::INFINITY;
        }
    }

    /// The verdict. A written array that was not compared is wrong.
    pub(super) fn finish(mut self) -> Check {
        let mut bindings = self.spec.bindings.iter().enumerate();
        let is_fine = bindings.all(|(i, b)| !b.access.writes() || self.compared.contains(&i));
        self.require(is_fine);
        self.check.judged()
    }
}

/// Elements that are compared at once in an array without rows.
pub(super) const BLOCK: usize = 4096;

/// The precision of a type's numbers; `None` if they must be exact.
fn precision<T: Sample>(bound: ErrorBound) -> Option<Precision> {
    Precision::of(T::TYPE).filter(|_| bound != ErrorBound::Exact)
}

/// The larger of two errors. Unlike `max`, it keeps a NaN.
fn larger(a: f64, b: f64) -> f64 {
    if b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// The largest error as a share of the bound.
fn worst<T: Sample>(got: &[T], want: &[Exact], bound: ErrorBound) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let mut pairs = got.iter().zip(want);
    match (precision::<T>(bound), bound) {
        (None, _) => {
            let bytes = bytemuck::bytes_of::<T>;
            f64::from(pairs.any(|(got, want)| bytes(got) != bytes(&T::rounded(*want))))
        }
        (Some(_), ErrorBound::Vectors { width, relative }) => {
            let vectors = got.chunks(width).zip(want.chunks(width));
            let errors = vectors.map(|(got, want)| {
                let got: Vec<f64> = got.iter().map(|x| x.exact().real).collect();
                let want: Vec<f64> = want.iter().map(|x| x.real).collect();
                relative_error(&got, &want) / relative
            });
            errors.fold(0.0, larger)
        }
        (Some(precision), bound) => {
            let largest = want.iter().map(|want| want.terms).fold(0.0, f64::max);
            let errors = pairs.map(|(got, want)| {
                let got = got.exact().real;
                if got == want.real || (got.is_nan() && want.real.is_nan()) {
                    return 0.0;
                }
                let allowed = bound.allowed(precision, *want, largest);
                (got - want.real).abs() / allowed.max(precision.least_normal)
            });
            errors.fold(0.0, larger)
        }
    }
}
