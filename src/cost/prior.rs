//! The roofline: how long something should take, from measured rates and what it costs in the abstract.
//!
//! S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
//! architectures", CACM 52 (2009). It is a lower bound that good kernels come close to, not a measurement.

use super::machine::{Bound, Engine};

/// What a part asks of the device that computes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Operations.
    pub flops: f64,
    /// Bytes read and written, each as often as it is.
    pub traffic_bytes: f64,
    /// Bytes of memory that are touched at all: what decides which cache serves them.
    pub footprint_bytes: f64,
}

/// Seconds to compute what `demand` says: as long as the arithmetic or the memory takes, whichever is slower.
pub fn compute_seconds(engine: &Engine, demand: &Demand) -> f64 {
    let arithmetic = demand.flops / engine.flops_per_second;
    let memory = demand.traffic_bytes / engine.bandwidth.at(demand.footprint_bytes);
    arithmetic.max(memory)
}

/// What limits the speed of something: whichever takes longer.
pub fn bound(engine: &Engine, demand: &Demand) -> Bound {
    let arithmetic = demand.flops / engine.flops_per_second;
    if arithmetic > demand.traffic_bytes / engine.bandwidth.at(demand.footprint_bytes) {
        Bound::Compute
    } else {
        Bound::Memory
    }
}

/// What the seconds of a part are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Prediction {
    /// Until the device is done with earlier work.
    pub wait: f64,
    /// To start, and to be waited for.
    pub launch: f64,
    /// To move to the device what is missing there.
    pub upload: f64,
    /// To compute.
    pub compute: f64,
    /// To move to the host: what the CPU misses, and what a GPU returns to the caller or the caller will read.
    pub download: f64,
}

impl Prediction {
    /// All of it, one after the other.
    pub fn seconds(&self) -> f64 {
        self.wait + self.launch + self.upload + self.compute + self.download
    }
}
