//! What a verification found to differ, as plain data.

use std::fmt;
use std::ops::Range;

/// What two devices computed of the same items, where that differs by more than the kernel's
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
    /// Where they are furthest apart, and how far.
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

/// How two results of the same items differ where they differ most.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The element; of vectors that are compared as such, the first.
    pub at: usize,
    /// What the first device computed there; for vectors, the norm of that.
    pub ours: f64,
    /// What the second device computed there.
    pub theirs: f64,
    /// How far apart they are; infinite if either is no finite number.
    pub size: f64,
    /// How far apart they may be.
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
