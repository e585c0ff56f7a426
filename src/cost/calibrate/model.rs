//! Turns measurements into the figures of a machine.

use super::sampling::rounded;
use crate::cost::bounds::RATE;
use crate::cost::machine::{Curve, Engine, Limits, Link};
use crate::cost::params::PARAMS;
use crate::device::gpu::Gpu;

/// Bytes per second by bytes touched, not yet a curve.
pub(super) type Rates = Vec<[f64; 2]>;

/// The limits that an adapter reports, which are known without measuring.
pub(in crate::cost) fn limits(gpu: &Gpu) -> Limits {
    let limits = gpu.limits();
    Limits {
        max_binding_bytes: Some(limits.max_binding_bytes),
        max_buffer_bytes: Some(limits.max_buffer_bytes),
        memory_bytes: limits.memory_bytes,
        budget_bytes: gpu.array_budget(),
        max_arrays: Some(limits.max_arrays),
        max_uniform_bytes: Some(gpu.largest_uniform()),
    }
}

pub(super) fn engine(threads: usize, launch_seconds: f64, flops: f64, rates: Rates) -> Engine {
    // If the clock does not move, a rate may be any number.
    let possible = |rate: f64| rounded(rate.clamp(*RATE.start(), *RATE.end()));
    let rates = rates
        .into_iter()
        .map(|[bytes, rate]| [bytes, possible(rate)]);
    Engine {
        threads,
        launch_seconds: rounded(launch_seconds),
        flops_per_second: possible(flops),
        bandwidth: Curve::new(rates.collect()).expect("sizes ascend and times are positive"),
    }
}

/// A link through measured times, at ascending sizes. Noise only adds time, so the time of a longer transfer also bounds
/// that of a shorter one. No transfer is infinitely fast, whatever the clock says.
pub(super) fn link(mut times: Vec<[f64; 2]>) -> Link {
    for shorter in (1..times.len()).rev() {
        times[shorter - 1][1] = times[shorter - 1][1].min(times[shorter][1]);
    }
    for [_, seconds] in &mut times {
        *seconds = rounded(*seconds);
    }
    if let [[bytes, seconds]] = times[..] {
        // Only one size, as where little may be bound: other sizes are assumed to be in proportion.
        times.push([2.0 * bytes, 2.0 * seconds]);
    }
    if let [.., [before, least], [bytes, seconds]] = &mut times[..] {
        *seconds = seconds.max(*least + (*bytes - *before) / PARAMS.calibration.fastest_link);
    }
    Link::new(times).expect("sizes ascend and times are positive")
}
