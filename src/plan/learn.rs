//! Turns the measured times of a run into samples for the learner.

use super::planned::{Plan, PlannedPart};
use crate::cost::learned::{KernelKey, Learner, Sample};
use smallvec::SmallVec;

/// Measured times of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// Seconds of each part, in the plan's order, from its start to its completion. Excludes the wait for earlier work
    /// and what the caller reads back afterwards. `None` if unknown.
    pub part_seconds: SmallVec<[Option<f64>; 2]>,
    /// Seconds of the whole call.
    pub seconds: f64,
}

/// Records the times of a call with the learner: each part as a sample of its variant, the shares of a split, and the
/// seconds of the whole call, which the exploration budget depends on.
pub fn learn(learner: &Learner, key: &KernelKey<'_>, plan: &Plan, measured: &Measured) {
    let parts = plan.parts.iter().zip(&measured.part_seconds);
    let samples = parts.filter_map(|(part, seconds)| {
        Some(Sample {
            variant: part.evidence.variant,
            size: part.evidence.size,
            prior_seconds: part.evidence.prior_seconds,
            seconds: (*seconds)?,
        })
    });
    learner.observe(key, plan.size, samples);
    if plan.parts.len() > 1 {
        let items: usize = plan.parts.iter().map(|part| part.range.len()).sum();
        let share = |part: &PlannedPart| part.range.len() as f64 / items as f64;
        let shares = plan.parts.iter().map(|part| (part.device, share(part)));
        let (shares, seconds) = (shares.collect(), measured.seconds);
        learner.remember(key, plan.size, shares, seconds, plan.exploring);
    }
    learner.account(measured.seconds, plan.exploring);
}
