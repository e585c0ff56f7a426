//! Plans of short calls, used again while nothing changes.
//!
//! To plan a call and to learn from it takes about a microsecond, longer than the shortest calls. So the cache keeps the
//! plan of a short call that is well known, and the plan serves as many further calls as make planning a small share of
//! their time. The learner sees none of these, only the next call that is planned.

use super::params::PARAMS;
use super::planned::Plan;
use std::sync::Mutex;

const SLOTS: usize = PARAMS.cache_slots;

/// A hash of everything that a plan depends on, except the performance model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanKey(u64);

impl PlanKey {
    /// The key of a kernel's identity alone.
    pub(crate) fn of(identity: u64) -> Self {
        Self(identity)
    }

    /// The key with a further fact.
    #[must_use]
    pub(crate) fn and(self, fact: u64) -> Self {
        Self(crate::hash::mixed(self.0, fact))
    }
}

/// The cached plans, each in the slot of its key.
#[derive(Debug)]
pub(crate) struct PlanCache {
    slots: [Mutex<Option<CachedPlan>>; SLOTS],
}

#[derive(Debug)]
struct CachedPlan {
    plan_key: PlanKey,
    plan: Plan,
    /// Further calls that it may serve.
    calls_left: u32,
}

impl Default for PlanCache {
    fn default() -> Self {
        Self {
            slots: [const { Mutex::new(None) }; SLOTS],
        }
    }
}

impl PlanCache {
    /// The cached plan for a call of this many items.
    pub(crate) fn find(&self, plan_key: PlanKey, items: usize) -> Option<Plan> {
        // To plan anew is quicker than to wait for another thread.
        let mut slot = self.slot(plan_key).try_lock().ok()?;
        let cached = slot.as_mut().filter(|cached| cached.plan_key == plan_key)?;
        let planned = cached.plan.parts.last().map(|part| part.range.end);
        if cached.calls_left == 0 || planned != Some(items) {
            *slot = None;
            return None;
        }
        cached.calls_left -= 1;
        Some(cached.plan.clone())
    }

    /// Keeps the plan if it is for a short, well-known call on the CPU.
    pub(crate) fn keep(&self, plan_key: PlanKey, plan: &Plan) {
        let [part] = &plan.parts[..] else {
            return;
        };
        let known = part.evidence.samples >= PARAMS.cached_samples && !part.evidence.extrapolated;
        let on_cpu = part.device == crate::device::DeviceId::Cpu && !part.evidence.variant.moved;
        if !(known && on_cpu) || plan.exploring || !plan.awaits.is_empty() {
            return;
        }
        let call_seconds = plan.predicted_seconds.max(1e-9);
        let calls = PARAMS.planning_seconds / (PARAMS.planning_share * call_seconds);
        let calls_left = calls.min(PARAMS.cached_calls) as u32;
        if let (true, Ok(mut slot)) = (calls_left > 0, self.slot(plan_key).try_lock()) {
            *slot = Some(CachedPlan {
                plan_key,
                plan: plan.clone(),
                calls_left,
            });
        }
    }

    fn slot(&self, plan_key: PlanKey) -> &Mutex<Option<CachedPlan>> {
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
    fn a_plan_of_a_short_well_known_call_serves_a_few_more() {
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
    fn another_key_or_another_number_of_items_misses() {
        let plan_cache = PlanCache::default();
        let here = PlanKey::of(7).and(1000);
        plan_cache.keep(here, &plan(DeviceId::Cpu, 1e-7, 100));
        assert_eq!(plan_cache.find(PlanKey::of(7).and(1001), 1000), None);
        assert_eq!(plan_cache.find(here, 1001), None);
    }

    #[test]
    fn plans_of_long_calls_gpus_little_known_calls_and_explorations_are_not_kept() {
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
