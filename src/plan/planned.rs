//! A plan: the parts, their devices and their predicted times.

use crate::cost::Prediction;
use crate::cost::learned::Variant;
use crate::device::DeviceId;
use crate::device::DeviceSet;
use smallvec::SmallVec;
use std::ops::Range;

/// The parts of a call, the device of each, and their predicted times.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Contiguous, ascending, not empty, at most one per device. No parts if there are no items.
    pub parts: SmallVec<[PlannedPart; 2]>,
    /// Seconds from the call until its results are complete and where the caller is expected to read them.
    pub predicted_seconds: f64,
    /// Of these, seconds to combine the results of the parts.
    pub combine_seconds: f64,
    /// The size of the call for the learner: log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Whether it was chosen for exploration rather than as the fastest known.
    pub exploring: bool,
    /// Devices that would have been chosen or explored if their pipelines were compiled.
    pub awaits: DeviceSet,
}

impl Plan {
    /// A plan for one device, without predictions.
    pub(crate) fn alone(device: DeviceId, range: Range<usize>, threads: usize) -> Self {
        let part = PlannedPart {
            device,
            range,
            threads,
            predicted: Prediction::default(),
            evidence: Evidence {
                variant: Variant::alone(device, threads),
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

    /// Whether every part runs on the CPU.
    pub(crate) fn is_on_cpu(&self) -> bool {
        self.parts.iter().all(|part| part.device == DeviceId::Cpu)
    }
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedPart {
    /// The device that runs it.
    pub device: DeviceId,
    /// Its items.
    pub range: Range<usize>,
    /// CPU threads that compute it: 1 or all of the pool. 1 on a GPU.
    pub threads: usize,
    /// Its predicted time, by component.
    pub predicted: Prediction,
    /// The basis of the prediction.
    pub evidence: Evidence,
}

/// The basis of a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// The variant that its measurement will be recorded for.
    pub variant: Variant,
    /// log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Seconds by the prior, without the wait and without what the caller reads back.
    pub prior_seconds: f64,
    /// Measurements at the nearest size that was measured, of this variant or, if it was not measured, of the variant that
    /// the performance model infers it from. 0 if the prediction is the prior alone.
    pub samples: u64,
    /// The standard deviation of the natural logarithm of the predicted seconds: 0.1 means about 10 %.
    pub uncertainty: f64,
    /// Whether the size is larger, or smaller, than all that were measured.
    pub extrapolated: bool,
}
