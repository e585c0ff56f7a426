//! The ranges of a machine's figures: a figure outside them was not measured.

use std::ops::RangeInclusive;

/// Seconds of a fixed cost.
pub(super) const SECONDS: RangeInclusive<f64> = 0.0..=1e3;

/// Operations or bytes per second.
pub(super) const RATE: RangeInclusive<f64> = 1.0..=1e18;

/// Bytes of a footprint or a transfer.
pub(super) const BYTES: RangeInclusive<f64> = 1.0..=1e18;

/// The absolute value of a log factor, about a factor of 10^13: a larger one is no measurement of anything.
pub(super) const LARGEST_LOG_FACTOR: f64 = 30.0;
