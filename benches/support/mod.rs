//! What the benchmarks share.

pub mod heat_avx2;
pub mod nbody_avx512;
pub mod raw_wgpu;
pub mod timing;

use std::time::{Duration, Instant};
use timing::{SAMPLE, quartiles, time};

/// The same work through Divvy and written directly.
pub struct Pair<'r> {
    pub divvy: Box<dyn FnMut() + 'r>,
    pub direct: Box<dyn FnMut() + 'r>,
}

/// How long both are measured in all, roughly.
const BUDGET: Duration = Duration::from_secs(2);

/// Runs both in turn and prints the medians, and the median of the ratios of neighbouring rounds with its quartiles: a
/// machine that slows down for a while slows both.
pub fn compare(name: &str, mut pair: Pair<'_>) {
    let repeats = {
        (pair.divvy)();
        (pair.direct)();
        let once = time(&mut pair.divvy, 1).max(1e-9);
        (SAMPLE.as_secs_f64() / once).ceil().max(1.0) as u32
    };
    let (mut divvy, mut direct) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while divvy.len() < 15 || started.elapsed() < BUDGET {
        divvy.push(time(&mut pair.divvy, repeats));
        direct.push(time(&mut pair.direct, repeats));
    }
    let ratios = divvy
        .iter()
        .zip(&direct)
        .map(|(divvy, direct)| divvy / direct);
    let [low, ratio, high] = quartiles(ratios.collect());
    let ([_, divvy, _], [_, direct, _]) = (quartiles(divvy), quartiles(direct));
    println!(
        "{name:<38}{:>9.3} µs{:>9.3} µs{ratio:>8.3}   {low:.3} to {high:.3}",
        divvy * 1e6,
        direct * 1e6,
    );
}
