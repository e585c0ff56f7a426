//! From what was measured to the figures of a machine.

use super::sampling::rounded;
use crate::cost::bounds::RATE;
use crate::cost::machine::{Curve, Engine, Limits, Link};
use crate::device::gpu::Gpu;

/// Bytes per second by bytes touched, not yet a curve.
pub(super) type Rates = Vec<[f64; 2]>;

/// What an adapter says it can hold, which is known without measuring.
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
    // What a clock that does not move makes of them is no speed.
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

/// A link through measured times, at sizes that ascend. A longer transfer never takes less: noise only adds time, so the
/// time of the longer one holds for the shorter too. And none is infinitely fast, whatever the clock said.
pub(super) fn link(mut times: Vec<[f64; 2]>) -> Link {
    /// Bytes per second that no transfer reaches.
    pub(super) const FASTEST: f64 = 1e13;
    for shorter in (1..times.len()).rev() {
        times[shorter - 1][1] = times[shorter - 1][1].min(times[shorter][1]);
    }
    for [_, seconds] in &mut times {
        *seconds = rounded(*seconds);
    }
    if let [[bytes, seconds]] = times[..] {
        // Of one size only, as where little may be bound: others are taken to be in proportion.
        times.push([2.0 * bytes, 2.0 * seconds]);
    }
    if let [.., [before, least], [bytes, seconds]] = &mut times[..] {
        *seconds = seconds.max(*least + (*bytes - *before) / FASTEST);
    }
    Link::new(times).expect("sizes ascend and times are positive")
}
