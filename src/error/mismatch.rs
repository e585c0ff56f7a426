//! The difference that a verification found, as plain data.

use std::fmt;
use std::ops::Range;

/// Two devices computed the same items, and the results differ by more than the kernel's
/// [`Tolerance`](crate::kernel::Tolerance).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The kernel that was called.
    pub kernel: String,
    /// The items that were computed twice.
    pub range: Range<usize>,
    /// The device that computed the part.
    pub device: String,
    /// The device that computed it again.
    pub other: String,
    /// The array: its name, if it has one, its element type and its length.
    pub array: String,
    /// The largest difference.
    pub difference: Difference,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            range,
            device,
            other,
            array,
            difference,
        } = self;
        write!(
            f,
            "{kernel}: {device} and {other} disagree on the items {range:?}: the largest difference in {array} is \
             {difference}; make the kernel compute the same on both, give it the `Tolerance` that it needs, or do \
             without the device that is wrong"
        )
    }
}

/// The largest difference between two results of the same items.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The element; for vectors that are compared as a whole, their first element.
    pub at: usize,
    /// The first device's value; for vectors, its norm.
    pub ours: f64,
    /// The second device's value.
    pub theirs: f64,
    /// The difference; infinite if either value is not finite.
    pub size: f64,
    /// The allowed difference.
    pub allowed: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            ours,
            theirs,
            size,
            allowed,
        } = self;
        write!(
            f,
            "{size:.3e} at element {at} ({ours:e} and {theirs:e}), where {allowed:.3e} is allowed"
        )
    }
}
