//! Samples of times, and their quantiles.

use crate::error::Result;
use std::time::Instant;

/// Work that a device repeats.
pub(super) type WorkUnit<'a> = Box<dyn FnMut() -> Result<()> + Send + 'a>;

/// Two quantities that are sampled in turn, so that a disturbance meets both.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) first: f64,
    pub(super) second: f64,
}

/// Four digits: no measurement is more accurate, and people read the profile too.
pub(super) fn rounded(value: f64) -> f64 {
    let digits = 3.0 - value.abs().log10().floor();
    let scale = 10f64.powf(digits.abs());
    if !scale.is_finite() {
        // The value is 0 or next to it.
        value
    } else if digits >= 0.0 {
        (value * scale).round() / scale
    } else {
        (value / scale).round() * scale
    }
}

pub(super) fn now() -> Instant {
    #[cfg(test)]
    if let Some(stopped) = STOPPED.get() {
        return stopped;
    }
    Instant::now()
}

pub(super) fn seconds_since(started: Instant) -> f64 {
    now().duration_since(started).as_secs_f64()
}

/// Seconds that `work` takes; never 0, even if the clock does not move.
pub(super) fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = now();
    work()?;
    Ok(seconds_since(started).max(1e-9))
}

/// Bytes that one pass of `y = alpha * x + y` reads and writes, for each byte that it touches.
pub(super) const TRAFFIC: f64 = 1.5;

/// The lowest decile of the samples; the least one if there are fewer than ten.
pub(super) fn decile(samples: Vec<f64>) -> f64 {
    quantile(samples, 0.1)
}

/// The value below which `share` of the samples lie.
pub(super) fn quantile(mut samples: Vec<f64>, share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() as f64 * share) as usize]
}

#[cfg(test)]
thread_local! {
    /// Stops the clock of this thread at a time, for tests.
    pub(super) static STOPPED: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}
