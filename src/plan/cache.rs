//! Plans of short calls, to be used again while nothing changes.
//!
//! To plan a call and to learn from it takes about a microsecond, which is more than the shortest calls take themselves.
//! So the plan of a short call that is well known is kept, and serves as many further calls like it as make that a small
//! share. These teach nothing; the next one that is planned does.

use super::planned::Plan;
use std::sync::Mutex;

/// Plans that are kept.
const SLOTS: usize = 64;
/// Measurements behind every part of a plan that is kept.
const LEAST_SAMPLES: u64 = 16;
/// Seconds to plan a call and to learn from it.
const PLANNING_SECONDS: f64 = 1e-6;
/// The share of the calls' time that this may take.
const PLANNING_SHARE: f64 = 0.02;
/// Calls that a plan serves at most: what changes meanwhile is seen that much later.
const MOST_CALLS: f64 = 100.0;

/// All that a plan depends on besides what was learned, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanKey(u64);

impl PlanKey {
    /// The situation of a kernel of this identity.
    pub(crate) fn of(identity: u64) -> Self {
        Self(identity)
    }

    /// The situation in which this is so, too.
    #[must_use]
    pub(crate) fn and(self, fact: u64) -> Self {
        Self(crate::hash::mixed(self.0, fact))
    }
}

/// The plans that are kept, each at the place that its situation gives it.
#[derive(Debug)]
pub(crate) struct PlanCache {
    slots: [Mutex<Option<Kept>>; SLOTS],
}

#[derive(Debug)]
struct Kept {
    plan_key: PlanKey,
    plan: Plan,
    /// Calls that it may still serve.
    left: u32,
}

impl Default for PlanCache {
    fn default() -> Self {
        Self {
            slots: [const { Mutex::new(None) }; SLOTS],
        }
    }
}

impl PlanCache {
    /// The plan for a call of so many items, if one is kept.
    pub(crate) fn find(&self, plan_key: PlanKey, items: usize) -> Option<Plan> {
        // Who finds it in use by another thread plans anew rather than wait.
        let mut slot = self.slot(plan_key).try_lock().ok()?;
        let kept = slot.as_mut().filter(|kept| kept.plan_key == plan_key)?;
        let planned = kept.plan.parts.last().map(|part| part.range.end);
        if kept.left == 0 || planned != Some(items) {
            *slot = None;
            return None;
        }
        kept.left -= 1;
        Some(kept.plan.clone())
    }

    /// Keeps a plan if it is worth that: for a short call on the CPU that is well known.
    pub(crate) fn keep(&self, plan_key: PlanKey, plan: &Plan) {
        let [part] = &plan.parts[..] else {
            return;
        };
        let known = part.evidence.samples >= LEAST_SAMPLES && !part.evidence.extrapolated;
        let on_cpu = part.device == crate::device::DeviceId::Cpu && !part.evidence.variant.moved;
        if !(known && on_cpu) || plan.exploring || !plan.awaits.is_empty() {
            return;
        }
        let calls = PLANNING_SECONDS / (PLANNING_SHARE * plan.predicted_seconds.max(1e-9));
        let left = calls.min(MOST_CALLS) as u32;
        if let (true, Ok(mut slot)) = (left > 0, self.slot(plan_key).try_lock()) {
            *slot = Some(Kept {
                plan_key,
                plan: plan.clone(),
                left,
            });
        }
    }

    fn slot(&self, plan_key: PlanKey) -> &Mutex<Option<Kept>> {
        &self.slots[plan_key.0 as usize % SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::learned::Variant;
    use crate::device::DeviceId;
    use crate::device::DeviceSet;
    use crate::plan::{Evidence, PlannedPart};
    use smallvec::smallvec;

    fn plan(device: DeviceId, seconds: f64, samples: u64) -> Plan {
        Plan {
            parts: smallvec![PlannedPart {
                device,
                range: 0..1000,
                threads: 1,
                predicted: Default::default(),
                evidence: Evidence {
                    variant: Variant {
                        device,
                        threads: 1,
                        beside: DeviceSet::EMPTY,
                        moved: false,
                    },
                    size: 10.0,
                    prior_seconds: seconds,
                    samples,
                    uncertainty: 0.1,
                    extrapolated: false,
                },
            }],
            predicted_seconds: seconds,
            ..Plan::default()
        }
    }

    #[test]
    fn a_short_call_that_is_well_known_is_planned_once_in_a_while() {
        let plan_cache = PlanCache::default();
        let here = PlanKey::of(7).and(1000);
        let known = plan(DeviceId::Cpu, 4.9e-6, 16);
        assert_eq!(plan_cache.find(here, 1000), None);
        plan_cache.keep(here, &known);
        for _ in 0..10 {
            assert_eq!(plan_cache.find(here, 1000).as_ref(), Some(&known));
        }
        assert_eq!(plan_cache.find(here, 1000), None, "it is planned again");
    }

    #[test]
    fn another_situation_or_another_number_of_items_is_planned() {
        let plan_cache = PlanCache::default();
        let here = PlanKey::of(7).and(1000);
        plan_cache.keep(here, &plan(DeviceId::Cpu, 1e-7, 100));
        assert_eq!(plan_cache.find(PlanKey::of(7).and(1001), 1000), None);
        assert_eq!(plan_cache.find(here, 1001), None);
    }

    #[test]
    fn long_calls_gpus_little_known_calls_and_trials_are_always_planned() {
        let here = PlanKey::of(7);
        let trial = Plan {
            exploring: true,
            ..plan(DeviceId::Cpu, 1e-7, 100)
        };
        for plan in [
            plan(DeviceId::Cpu, 1e-3, 100),
            plan(DeviceId::Gpu(0), 1e-6, 100),
            plan(DeviceId::Cpu, 1e-7, 3),
            trial,
            Plan::default(),
        ] {
            let plan_cache = PlanCache::default();
            plan_cache.keep(here, &plan);
            assert_eq!(plan_cache.find(here, 1000), None, "{plan:?}");
        }
    }
}
