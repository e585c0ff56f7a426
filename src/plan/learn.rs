//! From what a run took to what the learner takes in.

use super::planned::{Plan, PlannedPart};
use crate::cost::learned::{KernelKey, Learner, Sample};
use smallvec::SmallVec;

/// What the parts of a plan took.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// Seconds of each part, in the plan's order, from its start to its completion: without waiting for earlier work,
    /// and without what the caller read back afterwards. `None` where that is not known.
    pub part_seconds: SmallVec<[Option<f64>; 2]>,
    /// Seconds of the whole call.
    pub seconds: f64,
}

/// Lets the learner take in what a call took: each part for its way of running, and the whole for how much time went
/// into exploring.
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
