//! Pending samples: calls whose times on GPUs are not all known yet. The learner gets them once they are.

use super::params::PARAMS;
use super::report::PartTiming;
use crate::array::ElementType;
use crate::cost::learned::{KernelKey, Learner};
use crate::device::Reading;
use crate::plan::{Measured, Plan, learn};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A call that ran, with the times of its parts, known or not.
#[derive(Debug)]
pub(crate) struct Observation {
    name: Box<str>,
    element_type: Option<ElementType>,
    implementation: u64,
    plan: Plan,
    timings: SmallVec<[PartTiming; 2]>,
    seconds: f64,
}

impl Observation {
    /// A call of `seconds` on the caller's thread.
    pub(crate) fn new(
        key: &KernelKey<'_>,
        plan: Plan,
        timings: SmallVec<[PartTiming; 2]>,
        seconds: f64,
    ) -> Self {
        Self {
            name: key.name.into(),
            element_type: key.element_type,
            implementation: key.implementation,
            plan,
            timings,
            seconds,
        }
    }

    /// Gives it to the learner, unless a time may become known later. Returns whether it did.
    fn record(&self, learner: &Learner) -> bool {
        let pending = |part: &PartTiming| part.timing.reading() == Reading::Pending;
        if self.timings.iter().any(pending) {
            return false;
        }
        let key = KernelKey {
            name: &self.name,
            element_type: self.element_type,
            implementation: self.implementation,
        };
        record(learner, &key, &self.plan, &self.timings, self.seconds);
        true
    }
}

/// Gives a call to the learner. Times that are unknown now stay unknown.
pub(crate) fn record(
    learner: &Learner,
    key: &KernelKey<'_>,
    plan: &Plan,
    timings: &[PartTiming],
    seconds: f64,
) {
    let alone = plan.parts.len() == 1;
    let part_seconds = plan.parts.iter().zip(timings).map(|(part, timing)| {
        let own = match timing.timing.reading() {
            // Different calls shared a submission, so their own shares of its time are unknown.
            Reading::Took {
                seconds,
                calls,
                mixed,
            } => (calls == 1 || !mixed).then_some(seconds)?,
            Reading::Pending | Reading::Unknown => return None,
        };
        let on_cpu = part.evidence.variant.device == crate::device::DeviceId::Cpu;
        let whole = if alone && on_cpu {
            // The whole call without its waiting: most of a short call is the cost of making a call.
            own.max(seconds - timing.waited_seconds)
        } else {
            own
        };
        Some(if part.evidence.variant.moved && on_cpu {
            whole + (timing.waited_seconds - part.predicted.wait).max(0.0)
        } else {
            whole
        })
    });
    let part_seconds: SmallVec<[Option<f64>; 2]> = part_seconds.collect();
    let longest = part_seconds
        .iter()
        .flatten()
        .fold(seconds, |a, b| a.max(*b));
    let measured = Measured {
        part_seconds,
        seconds: longest,
    };
    learn(learner, key, plan, &measured);
}

/// The calls with unknown times, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct PendingSamples {
    observations: Mutex<VecDeque<Observation>>,
}

impl PendingSamples {
    /// Adds a call, and gives the learner some calls whose times are known by now.
    pub(crate) fn add(&self, observation: Observation, learner: &Learner) {
        let mut observations = self
            .observations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        observations.push_back(observation);
        if observations.len() > PARAMS.pending {
            observations.pop_front();
        }
        // A GPU finishes in order: if the oldest is not done, hardly any is.
        for _ in 0..PARAMS.recorded_per_call {
            match observations.front() {
                Some(oldest) if oldest.record(learner) => observations.pop_front(),
                _ => return,
            };
        }
    }

    /// Gives the learner all calls whose times are known by now, in whatever order their GPUs finished.
    pub(crate) fn record(&self, learner: &Learner) {
        let mut observations = self
            .observations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        observations.retain(|observation| !observation.record(learner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::learned::Variant;
    use crate::device::DeviceSet;
    use crate::device::{Clock, DeviceId};
    use crate::execute::report::Timing;
    use crate::plan::{Evidence, PlannedPart};
    use smallvec::smallvec;

    /// A call on a GPU that took this time.
    fn observation(gpu: usize, timing: Timing) -> Observation {
        let part = PlannedPart {
            device: DeviceId::Gpu(gpu),
            range: 0..1000,
            threads: 1,
            predicted: Default::default(),
            evidence: Evidence {
                variant: Variant {
                    device: DeviceId::Gpu(gpu),
                    threads: 1,
                    beside: DeviceSet::EMPTY,
                    moved: false,
                },
                size: 10.0,
                prior_seconds: 1e-3,
                samples: 0,
                uncertainty: 0.7,
                extrapolated: true,
            },
        };
        let plan = Plan {
            parts: smallvec![part],
            ..Plan::default()
        };
        let timing = PartTiming {
            timing,
            waited_seconds: 0.0,
        };
        Observation::new(&KernelKey::named("axpy"), plan, smallvec![timing], 1e-6)
    }

    #[test]
    fn a_slow_gpu_does_not_delay_the_times_of_others() {
        let (pending, learner) = (PendingSamples::default(), Learner::new());
        let clock = Clock::new();
        pending.add(observation(0, Timing::Clock(clock.clone())), &learner);
        pending.add(observation(1, Timing::Seconds(2e-3)), &learner);
        pending.record(&learner);
        let devices: Vec<_> = learner.records().into_iter().map(|r| r.device).collect();
        assert_eq!(devices, [DeviceId::Gpu(1)]);
        // A time that can never be known does not keep its call pending.
        clock.seal();
        pending.record(&learner);
        assert_eq!(pending.observations.lock().map(|l| l.len()).ok(), Some(0));
    }

    #[test]
    fn the_number_of_pending_calls_is_bounded() {
        let (pending, learner) = (PendingSamples::default(), Learner::new());
        for _ in 0..PARAMS.pending + 10 {
            pending.add(observation(0, Timing::Clock(Clock::new())), &learner);
        }
        assert_eq!(
            pending.observations.lock().map(|l| l.len()).ok(),
            Some(PARAMS.pending)
        );
    }
}
