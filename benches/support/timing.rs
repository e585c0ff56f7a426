//! Taking times.

use std::time::{Duration, Instant};

/// The least time of one sample: shorter work is repeated within it.
pub const SAMPLE: Duration = Duration::from_micros(200);

/// Seconds of one call, measured over `repeats`.
pub fn time(work: &mut dyn FnMut(), repeats: u32) -> f64 {
    let started = Instant::now();
    for _ in 0..repeats {
        work();
    }
    started.elapsed().as_secs_f64() / f64::from(repeats)
}

/// The lower quartile, the median and the upper quartile.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
