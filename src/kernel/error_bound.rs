//! How far a result may be from the exact one, and the exact numbers to which a bound applies.

use crate::array::ElementType;
use std::iter::Sum;
use std::ops::{Add, Mul};

/// How far a result may be from the exact one.
///
/// Bounds apply to floating-point numbers; integers must be exact. Errors below the least normal number are always
/// accepted, except in vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ErrorBound {
    /// The exact result, rounded once if the type cannot represent it.
    Exact,
    /// This number of units in the last place of the exact result.
    Ulps(f64),
    /// This multiple of the magnitude of the exact result.
    Relative(f64),
    /// This multiple of the largest magnitude that is read or written.
    OfLargest(f64),
    /// The norm of the error of each vector of `width` elements may be `relative` times the norm of the exact one.
    Vectors {
        /// Elements of a vector.
        width: usize,
        /// The share of the norm.
        relative: f64,
    },
    /// This number of roundings of Σ|terms|.
    Roundings(f64),
}

impl ErrorBound {
    /// The error that one number may have, where `largest` is the largest magnitude that is read or written. Vectors
    /// have no bound for each number.
    pub(crate) fn allowed(self, precision: Precision, exact: Exact, largest: f64) -> f64 {
        match self {
            Self::Exact | Self::Vectors { .. } => 0.0,
            Self::Ulps(units) => units * precision.ulp(exact.real),
            Self::Relative(share) => share * exact.real.abs(),
            Self::OfLargest(share) => share * largest,
            Self::Roundings(count) => count * precision.unit * exact.terms,
        }
    }
}

/// The resolution of a floating-point type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Precision {
    /// The unit roundoff: half the distance from 1 to the next number.
    pub(crate) unit: f64,
    /// The least normal number, below which errors are accepted.
    pub(crate) least_normal: f64,
}

impl Precision {
    /// The precision of f32.
    pub(crate) const F32: Self = Self {
        unit: f32::EPSILON as f64 / 2.0,
        least_normal: f32::MIN_POSITIVE as f64,
    };

    /// The precision of a type; integers have none.
    pub(crate) fn of(ty: ElementType) -> Option<Self> {
        match ty {
            ElementType::F32 => Some(Self::F32),
            ElementType::U32 | ElementType::I32 => None,
        }
    }

    /// The unit in the last place of `x`; the lower one where `x` is a power of two.
    fn ulp(self, x: f64) -> f64 {
        let magnitude = x.abs().max(self.least_normal);
        2.0 * self.unit * magnitude.log2().floor().exp2()
    }
}

/// An exact number. Its arithmetic is done in f64 and, for integers, modulo 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exact {
    /// The number.
    pub real: f64,
    /// Its lowest bits, if it is an integer.
    pub integer: u64,
    /// The sum of the magnitudes of the terms of the sum that it is.
    pub terms: f64,
}

impl Exact {
    /// A number that is not a sum.
    pub fn of(real: f64) -> Self {
        Self {
            real,
            integer: 0,
            terms: real.abs(),
        }
    }
}

impl Add for Exact {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            real: self.real + other.real,
            integer: self.integer.wrapping_add(other.integer),
            terms: self.terms + other.terms,
        }
    }
}

impl Mul for Exact {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self {
            real: self.real * other.real,
            integer: self.integer.wrapping_mul(other.integer),
            terms: self.terms * other.terms,
        }
    }
}

impl Sum for Exact {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::default(), Add::add)
    }
}

/// The norm of the error of a vector, relative to that of the exact one. Surplus elements of one of them are padding.
pub(crate) fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    let errors = got.iter().zip(want).map(|(got, want)| got - want);
    let error: f64 = errors.map(|error| error * error).sum();
    let norm: f64 = want.iter().map(|x| x * x).sum();
    if error == 0.0 {
        0.0
    } else {
        (error / norm).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_in_the_last_place_are_the_distances_between_floats() {
        for x in [1.0f32, 1.5, 1.999, 2.0, 1e-30, 1e38, f32::MIN_POSITIVE] {
            let next = f64::from(x.next_up()) - f64::from(x);
            assert_eq!(Precision::F32.ulp(x.into()), next, "{x}");
            assert_eq!(Precision::F32.ulp(f64::from(-x)), next, "{x}");
        }
        let least = f64::from(f32::MIN_POSITIVE.next_up() - f32::MIN_POSITIVE);
        assert_eq!(Precision::F32.ulp(0.0), least);
    }

    #[test]
    fn sums_of_products_know_their_terms() {
        let sum = Exact::of(3.0) * Exact::of(-2.0) + Exact::of(5.0);
        assert_eq!((sum.real, sum.terms), (-1.0, 11.0));
        let all: Exact = [1.0, -2.0, 4.0].map(Exact::of).into_iter().sum();
        assert_eq!((all.real, all.terms), (3.0, 7.0));
        let of = |integer: u64| Exact {
            integer,
            ..Exact::default()
        };
        assert_eq!((of(u64::MAX) * of(3) + of(5)).integer, 2);
    }
}
