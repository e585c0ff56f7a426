//! What the benchmarks share.

pub mod nbody_avx512;
pub mod raw_wgpu;

use std::time::{Duration, Instant};

/// The same work through Divvy and written directly.
pub struct Pair<'r> {
    pub divvy: Box<dyn FnMut() + 'r>,
    pub direct: Box<dyn FnMut() + 'r>,
}

/// How long both are measured in all, roughly.
const BUDGET: Duration = Duration::from_secs(2);
/// The least time of one sample: shorter work is repeated within it.
const SAMPLE: Duration = Duration::from_micros(200);

/// Runs both in turn and prints the medians and their ratio.
pub fn compare(name: &str, mut pair: Pair<'_>) {
    let repeats = {
        (pair.divvy)();
        (pair.direct)();
        let once = time(&mut pair.divvy, 1).max(1e-9);
        (SAMPLE.as_secs_f64() / once).ceil().max(1.0) as u32
    };
    let (mut divvy, mut direct) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while divvy.len() < 7 || started.elapsed() < BUDGET {
        divvy.push(time(&mut pair.divvy, repeats));
        direct.push(time(&mut pair.direct, repeats));
    }
    let (divvy, direct) = (median(divvy), median(direct));
    println!(
        "{name:<34}{:>9.3} µs{:>9.3} µs{:>8.3}",
        divvy * 1e6,
        direct * 1e6,
        divvy / direct
    );
}

/// Seconds of one call, measured over `repeats`.
fn time(work: &mut dyn FnMut(), repeats: u32) -> f64 {
    let started = Instant::now();
    for _ in 0..repeats {
        work();
    }
    started.elapsed().as_secs_f64() / f64::from(repeats)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
