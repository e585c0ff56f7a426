//! A plan: which part runs where, and what its predicted time is made of.

use crate::cost::Prediction;
use crate::cost::learned::Variant;
use crate::device::DeviceId;
use crate::device::DeviceSet;
use smallvec::SmallVec;
use std::ops::Range;

/// Which part runs where, and how long it is predicted to take.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Contiguous, ascending, none empty, one per device. None at all if there are no items.
    pub parts: SmallVec<[PlannedPart; 2]>,
    /// Seconds from the call until its results are complete, and where the caller is expected to read them.
    pub predicted_seconds: f64,
    /// Of these, seconds to put the results of the parts together.
    pub combine_seconds: f64,
    /// How large the call is to the learner: log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Whether it was chosen to find out how long it takes, rather than as the fastest known.
    pub exploring: bool,
    /// Devices that would have been chosen or tried, were their pipelines compiled.
    pub awaits: DeviceSet,
}

impl Plan {
    /// A plan of these items on one device, with this many threads of it, of which nothing is predicted.
    pub(crate) fn alone(device: DeviceId, range: Range<usize>, threads: usize) -> Self {
        let part = PlannedPart {
            device,
            range,
            threads,
            predicted: Prediction::default(),
            evidence: Evidence {
                variant: Variant {
                    device,
                    threads,
                    beside: DeviceSet::EMPTY,
                    moved: false,
                },
                size: 0.0,
                prior_seconds: 0.0,
                samples: 0,
                uncertainty: 1.0,
                extrapolated: false,
            },
        };
        Self {
            parts: [part].into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether no GPU has a part in it.
    pub(crate) fn is_on_cpu(&self) -> bool {
        self.parts.iter().all(|part| part.device == DeviceId::Cpu)
    }
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedPart {
    /// Where it runs.
    pub device: DeviceId,
    /// Its items.
    pub range: Range<usize>,
    /// CPU threads that compute it: 1 or the pool's. 1 on a GPU.
    pub threads: usize,
    /// What its time is made of.
    pub predicted: Prediction,
    /// What the prediction rests on.
    pub evidence: Evidence,
}

/// What a prediction rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// The way of running that its measurements will be learned for.
    pub variant: Variant,
    /// log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Seconds that the prior gives it, without waiting and without what the caller reads back.
    pub prior_seconds: f64,
    /// Measurements that it rests on most: those at the nearest size that was measured, of this way or, if it was not
    /// measured, of the way that tells of it. 0 if it is predicted from the prior alone.
    pub samples: u64,
    /// The standard deviation of the natural logarithm of the predicted seconds: 0.1 means about 10 %.
    pub uncertainty: f64,
    /// Whether it is larger, or smaller, than everything that was measured.
    pub extrapolated: bool,
}
