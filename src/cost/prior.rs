//! The roofline: how long a part should take, from measured rates and its abstract cost.
//!
//! S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
//! architectures", CACM 52 (2009). It is a lower bound that good kernels approach, not a measurement.

use super::machine::{Bound, Engine};

/// The abstract cost of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Operations.
    pub flops: f64,
    /// Bytes read and written, counted once for each access.
    pub traffic_bytes: f64,
    /// Distinct bytes of memory that are touched. They decide which cache serves them.
    pub footprint_bytes: f64,
}

/// Seconds to compute `demand`: those of the arithmetic or of the memory, whichever is slower.
pub fn compute_seconds(engine: &Engine, demand: &Demand) -> f64 {
    let arithmetic = demand.flops / engine.flops_per_second;
    let memory = demand.traffic_bytes / engine.bandwidth.at(demand.footprint_bytes);
    arithmetic.max(memory)
}

/// What limits the speed: arithmetic or memory, whichever takes longer.
pub fn bound(engine: &Engine, demand: &Demand) -> Bound {
    let arithmetic = demand.flops / engine.flops_per_second;
    if arithmetic > demand.traffic_bytes / engine.bandwidth.at(demand.footprint_bytes) {
        Bound::Compute
    } else {
        Bound::Memory
    }
}

/// The predicted seconds of a part, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Prediction {
    /// The wait for the device's earlier work.
    pub wait: f64,
    /// To start the part, and to wait for its end.
    pub launch: f64,
    /// To move missing bytes to the device.
    pub upload: f64,
    /// To compute.
    pub compute: f64,
    /// To move bytes to the host: those that the CPU misses, and results that the caller reads.
    pub download: f64,
}

impl Prediction {
    /// The sum: the phases follow one another.
    pub fn seconds(&self) -> f64 {
        self.wait + self.launch + self.upload + self.compute + self.download
    }
}
