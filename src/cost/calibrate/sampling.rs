//! Samples of times, and what is told from them.

use crate::error::Result;
use std::time::Instant;

/// Work of a device that is done again and again.
pub(super) type WorkUnit<'a> = Box<dyn FnMut() -> Result<()> + Send + 'a>;

/// Four digits: more would only pretend, and the profile is for people too.
pub(super) fn rounded(value: f64) -> f64 {
    let digits = 3.0 - value.abs().log10().floor();
    let scale = 10f64.powf(digits.abs());
    if !scale.is_finite() {
        // Of 0, or of what is next to it.
        value
    } else if digits >= 0.0 {
        (value * scale).round() / scale
    } else {
        (value / scale).round() * scale
    }
}

/// The clock.
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

/// The share of a sample that remains at least when its launch is taken off, however noisy both are.
pub(super) const LEAST_SHARE: f64 = 0.25;

/// Bytes that one pass of `y = alpha * x + y` reads and writes, for each byte that it touches.
pub(super) const TRAFFIC: f64 = 1.5;

/// The value that a tenth of the samples are below, or the least if they are few.
pub(super) fn decile(samples: Vec<f64>) -> f64 {
    quantile(samples, 0.1)
}

/// The value that this share of the samples are below.
pub(super) fn quantile(mut samples: Vec<f64>, share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() as f64 * share) as usize]
}

#[cfg(test)]
thread_local! {
    /// The time at which the clock of this thread stands still, for tests.
    pub(super) static STOPPED: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}
