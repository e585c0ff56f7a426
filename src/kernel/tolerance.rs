//! How far the results of two devices for the same items may be apart, and how far one result may be from the exact
//! one.
//!
//! A pass states this once, as its [`Tolerance`]. Verification compares two devices by it. Tests compare one result
//! with a reference by the [`ErrorBound`] that follows from it.

use super::{ErrorBound, Fold, Pass};
use std::fmt;
use std::sync::Arc;

/// How far the results of two devices for the same items may be apart, where [`Policy::verify`](crate::Policy::verify)
/// compares them.
///
/// Fractions and roundings apply to f32. Integers must be equal. NaNs and infinities must be at the same places, but
/// the bits of a NaN are free. Differences below the least normal number are always accepted, since a GPU may flush
/// subnormals.
#[derive(Clone)]
#[non_exhaustive]
pub enum Tolerance {
    /// Equal bits.
    Bitwise,
    /// Equal bits, except for elements that have these bits on either device: those that an implementation need not
    /// compute.
    BitwiseUnless(u32),
    /// This multiple of the larger of the two magnitudes.
    Relative(f64),
    /// This number of units in the last place on each side: twice as many units of the larger magnitude.
    Ulps(f64),
    /// This multiple of the largest magnitude that the part reads or writes: for results that are small where large
    /// terms cancel.
    OfLargest(f64),
    /// For vectors of `width` elements each: the norm of the difference may be `relative` times the larger of the two
    /// norms, plus a few roundings of the largest norm in the part, for sums of vectors that cancel.
    Vectors {
        /// Elements of a vector.
        width: usize,
        /// The share of the norm.
        relative: f64,
    },
    /// Of every `stride` elements, the first `used` are compared by `of`. The others are padding.
    Padded {
        /// Elements of each group that hold results.
        used: usize,
        /// Elements from the start of one group to the next.
        stride: usize,
        /// The tolerance of the results.
        of: Arc<Self>,
    },
    /// The folds of rows of `stride` elements are compared by `of`. These are partial results, which a device may
    /// accumulate in one row or in several.
    Folded {
        /// Elements of a row.
        stride: usize,
        /// The operation that folds the rows.
        fold: Fold,
        /// The tolerance of the folds.
        of: Arc<Self>,
    },
    /// The effect of `count` roundings on each result on each side, if every term has the magnitude that it has in
    /// `of`: the same operation, over the same arrays, with the magnitudes of its coefficients. `of` runs on the
    /// magnitudes of the elements, which gives Σ|terms|, the figure by which error bounds of sums of products are
    /// stated (N. Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, section 3.1).
    Roundings {
        /// Roundings that a result undergoes.
        count: f64,
        /// Computes the sum of the terms' magnitudes.
        of: Arc<dyn Pass>,
    },
}

impl Default for Tolerance {
    /// For a pass that declares no tolerance: 2^-16 of the largest magnitude, about 128 roundings.
    fn default() -> Self {
        Self::OfLargest(1.0 / 65536.0)
    }
}

impl Tolerance {
    /// [`Tolerance::Roundings`] of a pass over the same arrays.
    pub fn roundings(count: f64, of: impl Pass) -> Self {
        let of: Arc<dyn Pass> = Arc::new(of);
        Self::Roundings { count, of }
    }

    /// How far each of two results that differ by this may be from the exact one: half of it.
    pub fn error_bound(&self) -> ErrorBound {
        match self {
            Self::Bitwise | Self::BitwiseUnless(_) => ErrorBound::Exact,
            Self::Relative(share) => ErrorBound::Relative(share / 2.0),
            Self::Ulps(units) => ErrorBound::Ulps(*units),
            Self::OfLargest(share) => ErrorBound::OfLargest(share / 2.0),
            Self::Vectors { width, relative } => ErrorBound::Vectors {
                width: *width,
                relative: relative / 2.0,
            },
            Self::Padded { of, .. } | Self::Folded { of, .. } => of.error_bound(),
            Self::Roundings { count, .. } => ErrorBound::Roundings(*count),
        }
    }

    /// The pass that computes the sum of the terms' magnitudes, if this tolerance needs one.
    pub(crate) fn terms(&self) -> Option<&dyn Pass> {
        match self {
            Self::Roundings { of, .. } => Some(&**of),
            Self::Padded { of, .. } | Self::Folded { of, .. } => of.terms(),
            _ => None,
        }
    }

    /// The same for the first `used` of every `stride` elements.
    pub(crate) fn padded(self, used: usize, stride: usize) -> Self {
        if used == stride {
            return self;
        }
        let of = Arc::new(self);
        Self::Padded { used, stride, of }
    }
}

impl fmt::Debug for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bitwise => f.write_str("Bitwise"),
            Self::BitwiseUnless(bits) => f.debug_tuple("BitwiseUnless").field(bits).finish(),
            Self::Relative(share) => f.debug_tuple("Relative").field(share).finish(),
            Self::Ulps(units) => f.debug_tuple("Ulps").field(units).finish(),
            Self::OfLargest(share) => f.debug_tuple("OfLargest").field(share).finish(),
            Self::Vectors { width, relative } => f
                .debug_struct("Vectors")
                .field("width", width)
                .field("relative", relative)
                .finish(),
            Self::Padded { used, stride, of } => f
                .debug_struct("Padded")
                .field("used", used)
                .field("stride", stride)
                .field("of", of)
                .finish(),
            Self::Folded { stride, fold, of } => f
                .debug_struct("Folded")
                .field("stride", stride)
                .field("fold", fold)
                .field("of", of)
                .finish(),
            Self::Roundings { count, of } => f
                .debug_struct("Roundings")
                .field("count", count)
                .field("of", &of.name())
                .finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_half_of_what_two_may_be_apart() {
        let vectors = Tolerance::Vectors {
            width: 4,
            relative: 2e-5,
        };
        let half = ErrorBound::Vectors {
            width: 4,
            relative: 1e-5,
        };
        for (tolerance, bound) in [
            (Tolerance::Bitwise, ErrorBound::Exact),
            (Tolerance::BitwiseUnless(7), ErrorBound::Exact),
            (Tolerance::Relative(1e-3), ErrorBound::Relative(5e-4)),
            (Tolerance::OfLargest(1e-3), ErrorBound::OfLargest(5e-4)),
            (Tolerance::Ulps(4.0), ErrorBound::Ulps(4.0)),
            (vectors, half),
            (
                Tolerance::Relative(0.5).padded(3, 4),
                ErrorBound::Relative(0.25),
            ),
        ] {
            assert_eq!(tolerance.error_bound(), bound);
        }
    }
}
