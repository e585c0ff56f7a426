//! What figures of a machine may be: whatever is outside was not measured.

use std::ops::RangeInclusive;

/// Seconds that something fixed may take.
pub(super) const SECONDS: RangeInclusive<f64> = 0.0..=1e3;

/// Operations or bytes per second.
pub(super) const RATE: RangeInclusive<f64> = 1.0..=1e18;

/// Bytes of anything that is measured.
pub(super) const BYTES: RangeInclusive<f64> = 1.0..=1e18;
