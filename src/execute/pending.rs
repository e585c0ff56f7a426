//! Calls whose times are not all known yet: what GPUs are still at. They are handed to the learner when they are.

use super::report::PartTiming;
use crate::array::ElementType;
use crate::cost::learned::{KernelKey, Learner};
use crate::device::Reading;
use crate::plan::{Measured, Plan, learn};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The most calls that are waited for; of more, the oldest teach nothing.
const MOST: usize = 4096;
/// How many are looked at when a call hands in another, so that what it costs is bounded.
const AT_ONCE: usize = 4;

/// A call that was run, with the times of its parts, known or not.
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

    /// Hands it to the learner, unless a time may yet become known. Whether it did.
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

/// Hands a call to the learner of which all times are known that ever will be.
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
            // Of calls that share a submission and differ, nobody knows whose the time was.
            Reading::Took {
                seconds,
                calls,
                mixed,
            } => (calls == 1 || !mixed).then_some(seconds)?,
            Reading::Pending | Reading::Unknown => return None,
        };
        let on_cpu = part.evidence.variant.device == crate::device::DeviceId::Cpu;
        let whole = if alone && on_cpu {
            // All of it but what it waited for: a short call is mostly what it takes to make a call.
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

/// The calls that are waited for, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct PendingSamples {
    observations: Mutex<VecDeque<Observation>>,
}

impl PendingSamples {
    /// Takes a call in, and hands what is known by now of others to the learner.
    pub(crate) fn add(&self, observation: Observation, learner: &Learner) {
        let mut observations = self
            .observations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        observations.push_back(observation);
        if observations.len() > MOST {
            observations.pop_front();
        }
        // A GPU finishes in order: if the oldest is not done, hardly any is.
        for _ in 0..AT_ONCE {
            match observations.front() {
                Some(oldest) if oldest.record(learner) => observations.pop_front(),
                _ => return,
            };
        }
    }

    /// Hands all that is known by now to the learner, also of GPUs that were quicker than others.
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

    /// A call of that size on a GPU.
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
    fn a_slow_gpu_does_not_keep_what_others_taught() {
        let (pending, learner) = (PendingSamples::default(), Learner::new());
        let clock = Clock::new();
        pending.add(observation(0, Timing::Clock(clock.clone())), &learner);
        pending.add(observation(1, Timing::Seconds(2e-3)), &learner);
        pending.record(&learner);
        let devices: Vec<_> = learner.records().into_iter().map(|r| r.device).collect();
        assert_eq!(devices, [DeviceId::Gpu(1)]);
        // What can never be known is not waited for.
        clock.seal();
        pending.record(&learner);
        assert_eq!(pending.observations.lock().map(|l| l.len()).ok(), Some(0));
    }

    #[test]
    fn no_more_calls_are_waited_for_than_fit() {
        let (pending, learner) = (PendingSamples::default(), Learner::new());
        for _ in 0..MOST + 10 {
            pending.add(observation(0, Timing::Clock(Clock::new())), &learner);
        }
        assert_eq!(
            pending.observations.lock().map(|l| l.len()).ok(),
            Some(MOST)
        );
    }
}
